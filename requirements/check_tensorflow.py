"""Run while the inference image is built: the TensorFlow left in it does what serving, training and verifying need."""

import tempfile

import numpy as np
import tensorflow as tf

POINTS = tf.TensorSpec([None, 2], tf.float64)


class Network(tf.Module):
    """Two layers, and the gradient by reverse differentiation, as the pricing network has them."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(np.linspace(-1.0, 1.0, 32).reshape(2, 16))

    @tf.function(input_signature=[POINTS], autograph=False)
    def values(self, points):
        with tf.GradientTape() as tape:
            tape.watch(points)
            values = tf.reduce_sum(tf.tanh(points @ self.weights), axis=1)
        return values, tape.gradient(values, points)


def main() -> None:
    network = Network()
    points = np.random.default_rng(0).normal(size=(100, 2))
    values, slopes = network.values(points)
    hidden = np.tanh(points @ network.weights.numpy())
    np.testing.assert_allclose(values, hidden.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(slopes, (1 - hidden**2) @ network.weights.numpy().T, rtol=1e-10)

    compiled = tf.function(network.values.python_function, input_signature=[POINTS], autograph=False, jit_compile=True)
    np.testing.assert_allclose(compiled(points)[1], slopes, rtol=1e-10)
    tf.linalg.cholesky(tf.eye(3, dtype=tf.float64))

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(network, folder)
        loaded = tf.saved_model.load(folder)
        np.testing.assert_array_equal(loaded.values(points)[0], values)

        model = tf.keras.Sequential([tf.keras.layers.Input((2,)), tf.keras.layers.Dense(4, "tanh")])
        model.compile("adam", "mse")
        model.fit(points, points[:, :1] * np.ones(4), verbose=0)
        model.save(f"{folder}/model.keras")
        restored = tf.keras.models.load_model(f"{folder}/model.keras")
        np.testing.assert_allclose(restored.predict(points, verbose=0), model.predict(points, verbose=0), rtol=1e-6)


if __name__ == "__main__":
    main()
