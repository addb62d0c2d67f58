"""The pricing equation as a least-squares problem: no price enters it, only the equation and one boundary condition.

Residuals, for collocation points (y, w) and boundary points (0, w):

    [N_yy − y·N_y − 2N − 2w·N_w − (w/4)·N]·(1 + √(π/2)·y + y²)/(1 + y)/√n_interior,
    √10·[N_y(0, w) + √(π/2)]/√n_boundary.

The payoff at expiry and the decay far from the money are built into the form s·φ(y)·N, and every other solution grows
like e^{y²/2}, so nothing else needs to be imposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np

from pinn_inference.pricing.mills import SQRT_HALF_PI
from pinn_inference.pricing.network import Architecture, Domain
from pinn_inference.pricing.types import FloatArray
from pinn_inference.tensorflow_runtime import Tensor
from pinn_inference.training.levenberg_marquardt import LinearisedResiduals

_BOUNDARY_WEIGHT: Final = 10.0
_WING_DENSITY: Final = 1.3
# Generators of the two-dimensional Kronecker sequence of lowest known discrepancy: powers of 1/ρ, ρ³ = ρ + 1.
_PLASTIC: Final = 1.324717957244746


@dataclass(frozen=True, slots=True)
class Collocation:
    """Points where the equation is imposed, and points (0, w) where the boundary condition is; all of shape (n,)."""

    y: FloatArray
    w: FloatArray
    boundary_w: FloatArray

    @classmethod
    def quasi_random(cls, domain: Domain, *, interior: int, boundary: int, seed: int) -> Collocation:
        """A Kronecker sequence shifted by the seed: denser at the money (y = 8.5·v^1.3) and even in s = √w."""
        shift = np.random.default_rng(seed).uniform(size=2)
        steps = np.arange(1, interior + 1)[:, None] * np.array([1.0 / _PLASTIC, 1.0 / _PLASTIC**2])
        unit = (shift + steps) % 1.0
        s_max = np.sqrt(domain.w_max)
        return cls(
            y=domain.y_max * unit[:, 0] ** _WING_DENSITY,
            w=(s_max * unit[:, 1]) ** 2,
            boundary_w=np.linspace(0.0, s_max, boundary) ** 2,
        )


def initial_parameters(architecture: Architecture, *, seed: int) -> FloatArray:
    """Kernels normal with variance 1/inputs, hidden biases uniform in ±1/2, output bias 0; as `Network.from_vector`."""
    rng = np.random.default_rng([seed, 1])
    parts: list[FloatArray] = []
    for inputs, outputs in architecture.shapes:
        parts.append(rng.normal(0.0, np.sqrt(1.0 / inputs), inputs * outputs))
        parts.append(np.zeros(1) if outputs == 1 else rng.uniform(-0.5, 0.5, outputs))
    return np.concatenate(parts)


class EquationResiduals:
    """Residuals of the equation at fixed points as compiled TensorFlow functions of the parameter vector, float64.

    The Jacobian comes from one backward pass: a residual depends on its own point only, so the adjoint of a layer's
    pre-activations, times that layer's inputs, is the row of the Jacobian. `tape.jacobian` takes 500 times as long.
    """

    def __init__(self, tf: ModuleType, architecture: Architecture, domain: Domain, points: Collocation) -> None:
        self._tf = tf
        self._shapes = architecture.shapes
        interior, boundary = len(points.y), len(points.boundary_w)
        y = np.concatenate([points.y, np.zeros(boundary)])
        w = np.concatenate([points.w, points.boundary_w])
        decay = 1.0 + SQRT_HALF_PI * y + y * y
        on_boundary = np.arange(interior + boundary) >= interior
        constant = {
            "y": y,
            "w": w,
            "decay": 1.0 / decay,
            "decay_slope": SQRT_HALF_PI + 2.0 * y,
            "interior": np.where(on_boundary, 0.0, decay / (1.0 + y) / np.sqrt(interior)),
            "boundary": np.where(on_boundary, np.sqrt(_BOUNDARY_WEIGHT / boundary), 0.0),
        }
        self._at = {name: tf.constant(value, tf.float64) for name, value in constant.items()}
        zero = np.zeros_like(y)
        w_scale = 2.0 / domain.w_max
        self._inputs = tuple(
            tf.constant(np.stack(columns, axis=1), tf.float64)
            for columns in (
                ((y - 2.0) / (y + 2.0), w_scale * w - 1.0),
                (4.0 / (2.0 + y) ** 2, zero),
                (zero, zero + w_scale),
                (-8.0 / (2.0 + y) ** 3, zero),
            )
        )
        vector = tf.TensorSpec([architecture.parameter_count], tf.float64)
        self._residuals = tf.function(self._trace_residuals, input_signature=[vector])
        self._jacobian = tf.function(self._trace_jacobian, input_signature=[vector])

    def __call__(self, parameters: Tensor) -> Tensor:
        """Residuals of shape (interior + boundary,) at parameters of shape (p,)."""
        return self._residuals(parameters)

    def linearise(self, parameters: Tensor) -> LinearisedResiduals:
        """Residuals with JᵀJ and Jᵀr at parameters of shape (p,).

        The products are NumPy's, which sees that JᵀJ is symmetric and takes a quarter of the time.
        """
        tf = self._tf
        residuals, jacobian = self._jacobian(parameters)
        rows = jacobian.numpy()
        gram, gradient = rows.T @ rows, rows.T @ residuals.numpy()
        return LinearisedResiduals(residuals=residuals, gram=tf.constant(gram), gradient=tf.constant(gradient))

    def jacobian(self, parameters: Tensor) -> Tensor:
        """J of shape (interior + boundary, p), uncompiled; for checks."""
        return self._trace_jacobian(parameters)[1]

    def _forward(self, parameters: Tensor, tape: Tensor = None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Residuals, and per layer the jets (value, d/dy, d/dw, d²/dy²) of its inputs and of its pre-activations."""
        tf = self._tf
        value, d_y, d_w, d_yy = self._inputs
        inputs, outputs, start = [], [], 0
        for index, (rows, columns) in enumerate(self._shapes):
            kernel = tf.reshape(parameters[start : start + rows * columns], [rows, columns])
            start += rows * columns
            bias = parameters[start : start + columns]
            start += columns
            inputs.append((value, d_y, d_w, d_yy))
            value, d_y, d_w, d_yy = value @ kernel + bias, d_y @ kernel, d_w @ kernel, d_yy @ kernel
            jets = (value, d_y, d_w, d_yy)
            if tape is not None:
                tape.watch(jets)
            outputs.append(jets)
            if index < len(self._shapes) - 1:
                value = tf.tanh(value)
                slope = 1.0 - value * value
                d_yy = slope * d_yy - 2.0 * value * slope * d_y * d_y
                d_y, d_w = slope * d_y, slope * d_w
        at = self._at
        n = value[:, 0] * at["decay"]
        n_y = (d_y[:, 0] - n * at["decay_slope"]) * at["decay"]
        n_yy = (d_yy[:, 0] - 2.0 * n_y * at["decay_slope"] - 2.0 * n) * at["decay"]
        n_w = d_w[:, 0] * at["decay"]
        equation = n_yy - at["y"] * n_y - (2.0 + 0.25 * at["w"]) * n - 2.0 * at["w"] * n_w
        return at["interior"] * equation + at["boundary"] * (n_y + SQRT_HALF_PI), inputs, outputs

    def _trace_residuals(self, parameters: Tensor) -> Tensor:
        return self._forward(parameters)[0]

    def _trace_jacobian(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        tf = self._tf
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            residuals, inputs, outputs = self._forward(parameters, tape)
        adjoints = tape.gradient(residuals, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        blocks = []
        for layer_inputs, layer_adjoints in zip(inputs, adjoints, strict=True):
            # One batched (4, n)-contraction: sum over the four jets of input ⊗ adjoint.
            kernel = tf.einsum("jni,jno->nio", tf.stack(layer_inputs), tf.stack(layer_adjoints))
            blocks.append(tf.reshape(kernel, [tf.shape(kernel)[0], kernel.shape[1] * kernel.shape[2]]))
            blocks.append(layer_adjoints[0])
        return residuals, tf.concat(blocks, axis=1)
