"""Evaluates the network and its first derivatives in TensorFlow.

Engines are interchangeable behind `NetworkEngine`; the model tries them in order, so that a device which fails is
followed by the CPU and then by the closed form.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pinn_inference.pricing.errors import ModelRuntimeError
from pinn_inference.pricing.mills import SQRT_HALF_PI
from pinn_inference.pricing.network import Network
from pinn_inference.pricing.types import FloatArray
from pinn_inference.tensorflow_runtime import Tensor, load_tensorflow


class NetworkEngine(Protocol):
    """Evaluates one network; calls may come from several threads at once."""

    @property
    def device(self) -> str:
        """Where it runs, for logs and health pages."""

    def evaluate(self, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """N, N_y and N_w at n points, all of shape (n,); raises ModelRuntimeError when the device fails."""


class TensorFlowEngine:
    """One concrete function with a fixed signature, traced at construction; any batch size, no tracing afterwards.

    N_y and N_w come from automatic differentiation. float64 throughout: float32 would cost a factor of 15 in price
    error and saves nothing at the batch sizes of a request.
    """

    def __init__(self, network: Network, *, device: str = "/CPU:0", threads: int | None = None) -> None:
        self._tf = load_tensorflow(threads=threads)
        self.device = device
        self._function = self._trace(network)

    def evaluate(self, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        tf = self._tf
        try:
            with tf.device(self.device):
                n, n_y, n_w = self._function(tf.constant(y), tf.constant(w))
            return n.numpy(), n_y.numpy(), n_w.numpy()
        except tf.errors.OpError as error:
            raise ModelRuntimeError(f"{self.device}: {error.message}") from error

    def _trace(self, network: Network) -> Tensor:
        tf = self._tf
        layers = [(tf.constant(layer.kernel), tf.constant(layer.bias)) for layer in network.layers]
        w_scale = np.float64(2.0 / network.domain.w_max)

        def value_and_slopes(y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch((y, w))
                hidden = tf.stack([(y - 2.0) / (y + 2.0), w_scale * w - 1.0], axis=1)
                for kernel, bias in layers[:-1]:
                    hidden = tf.tanh(hidden @ kernel + bias)
                kernel, bias = layers[-1]
                n = (hidden @ kernel + bias)[:, 0] / (1.0 + SQRT_HALF_PI * y + y * y)
            n_y, n_w = tape.gradient(n, (y, w))
            return n, n_y, n_w

        column = tf.TensorSpec([None], tf.float64)
        with tf.device(self.device):
            return tf.function(value_and_slopes, input_signature=[column, column]).get_concrete_function()


def engines_for(network: Network, *, threads: int | None = None) -> tuple[NetworkEngine, ...]:
    """Every engine this machine offers, best first; the CPU is always among them, and last.

    Raises ImportError where TensorFlow is not installed.
    """
    tf = load_tensorflow(threads=threads)
    devices = ["/GPU:0"] if tf.config.list_physical_devices("GPU") else []
    return tuple(TensorFlowEngine(network, device=device, threads=threads) for device in [*devices, "/CPU:0"])
