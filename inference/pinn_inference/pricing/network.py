"""The network N(y, w): its shape, its weights, and a plain NumPy evaluation with derivatives.

    N = Q / (1 + √(π/2)·y + y²),   Q = tanh perceptron of ((y − 2)/(y + 2), 2w/w_max − 1)

The denominator carries N's decay, so Q is bounded and so is its error in the far wings.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pinn_inference.pricing.mills import SQRT_HALF_PI
from pinn_inference.pricing.types import FloatArray


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the network was trained: 0 ≤ y ≤ y_max, 0 < w ≤ w_max, in the variables of `reduction`.

    Beyond y_max = 8.5 the time value is below 1e-15 of the strike and the intrinsic value is the price; beyond
    w_max = 6.25 (σ√T = 2.5) the closed form answers.
    """

    y_max: float = 8.5
    w_max: float = 6.25


@dataclass(frozen=True, slots=True)
class Architecture:
    """Widths of the hidden tanh layers between the two inputs and the one output."""

    hidden: tuple[int, ...] = (16, 16)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every layer."""
        return tuple(pairwise((2, *self.hidden, 1)))

    @property
    def parameter_count(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in self.shapes)


@dataclass(frozen=True, slots=True)
class Layer:
    """One affine layer: `kernel` of shape (inputs, outputs), `bias` of shape (outputs,), float64."""

    kernel: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class Network:
    """Weights and the domain they were trained on."""

    layers: tuple[Layer, ...]
    domain: Domain

    @property
    def architecture(self) -> Architecture:
        return Architecture(hidden=tuple(len(layer.bias) for layer in self.layers[:-1]))

    @classmethod
    def from_vector(cls, vector: FloatArray, architecture: Architecture, domain: Domain) -> Network:
        """The network whose parameters lie in `vector`, layer by layer, each kernel row-major before its bias."""
        if vector.shape != (architecture.parameter_count,):
            raise ValueError(f"{vector.shape} parameters, {architecture.hidden} has {architecture.parameter_count}")
        layers, start = [], 0
        for inputs, outputs in architecture.shapes:
            kernel = vector[start : start + inputs * outputs].reshape(inputs, outputs)
            start += inputs * outputs
            layers.append(Layer(kernel=kernel.copy(), bias=vector[start : start + outputs].copy()))
            start += outputs
        return cls(layers=tuple(layers), domain=domain)

    def to_vector(self) -> FloatArray:
        """All parameters in the order of `from_vector`."""
        return np.concatenate([part.ravel() for layer in self.layers for part in (layer.kernel, layer.bias)])


@dataclass(frozen=True, slots=True)
class Jets:
    """N and its derivatives at n points, each of shape (n,)."""

    n: FloatArray
    n_y: FloatArray
    n_w: FloatArray
    n_yy: FloatArray


def evaluate(network: Network, y: FloatArray, w: FloatArray) -> Jets:
    """N, N_y, N_w and N_yy by forward propagation of derivatives; y and w of shape (n,).

    Independent of TensorFlow: verification and the certificate use it to check what is served.
    """
    w_scale = 2.0 / network.domain.w_max
    zero, one = np.zeros_like(y), np.ones_like(y)
    value = np.stack([(y - 2.0) / (y + 2.0), w_scale * w - 1.0], axis=1)
    d_y = np.stack([4.0 / (2.0 + y) ** 2, zero], axis=1)
    d_w = np.stack([zero, w_scale * one], axis=1)
    d_yy = np.stack([-8.0 / (2.0 + y) ** 3, zero], axis=1)
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        value = value @ layer.kernel + layer.bias
        d_y, d_w, d_yy = d_y @ layer.kernel, d_w @ layer.kernel, d_yy @ layer.kernel
        if index < last:
            value = np.tanh(value)
            slope = 1.0 - value * value
            d_yy = slope * d_yy - 2.0 * value * slope * d_y * d_y
            d_y, d_w = slope * d_y, slope * d_w
    decay = 1.0 / (1.0 + SQRT_HALF_PI * y + y * y)
    decay_slope = SQRT_HALF_PI + 2.0 * y
    n = value[:, 0] * decay
    n_y = (d_y[:, 0] - n * decay_slope) * decay
    n_yy = (d_yy[:, 0] - 2.0 * n_y * decay_slope - 2.0 * n) * decay
    return Jets(n=n, n_y=n_y, n_w=d_w[:, 0] * decay, n_yy=n_yy)


def residual(jets: Jets, y: FloatArray, w: FloatArray) -> FloatArray:
    """R = N_yy − y·N_y − 2N − 2w·N_w − (w/4)·N: by how much N misses the pricing equation; shape (n,)."""
    return jets.n_yy - y * jets.n_y - 2.0 * jets.n - 2.0 * w * jets.n_w - 0.25 * w * jets.n
