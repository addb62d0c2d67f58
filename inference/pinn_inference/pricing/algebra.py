"""One formula for several kinds of numbers: NumPy columns, Python floats, and TensorFlow's tensors.

The American model's formulas are written once, in the operators and the few functions named here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from pinn_inference.pricing.mills import normal_distribution
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray

_SQRT_HALF: Final = 0.7071067811865476

Number: TypeAlias = Any
"""A column of an algebra: supports +, −, ·, / and unary minus with its like and with floats."""


class Algebra(Protocol):
    """Elementary functions of columns, and the two operations of a perceptron."""

    def exp(self, a: Number) -> Number: ...
    def log(self, a: Number) -> Number: ...
    def sqrt(self, a: Number) -> Number: ...
    def softplus(self, a: Number) -> Number:
        """ln(1 + eᵃ)"""

    def sigmoid(self, a: Number) -> Number:
        """1/(1 + e⁻ᵃ), the derivative of softplus."""

    def normal_distribution(self, a: Number) -> Number:
        """Φ(a)"""

    def perceptron(self, layers: Sequence[Layer], inputs: Sequence[Number]) -> Number:
        """The single output of a tanh perceptron with these inputs."""

    def perceptron_gradient(self, layers: Sequence[Layer], inputs: Sequence[Number]) -> tuple[Number, Sequence[Number]]:
        """The output and its derivative by each input."""


class NumPyAlgebra:
    """Plain float64 columns of shape (n,)."""

    def exp(self, a: FloatArray) -> FloatArray:
        return np.exp(a)

    def log(self, a: FloatArray) -> FloatArray:
        return np.log(a)

    def sqrt(self, a: FloatArray) -> FloatArray:
        return np.sqrt(a)

    def softplus(self, a: FloatArray) -> FloatArray:
        return np.maximum(a, 0.0) + np.log1p(np.exp(-np.abs(a)))

    def sigmoid(self, a: FloatArray) -> FloatArray:
        decayed = np.exp(-np.abs(a))
        return np.where(a >= 0.0, 1.0, decayed) / (1.0 + decayed)

    def normal_distribution(self, a: FloatArray) -> FloatArray:
        return normal_distribution(a)

    def perceptron(self, layers: Sequence[Layer], inputs: Sequence[FloatArray]) -> FloatArray:
        hidden = np.stack(inputs)
        shape = hidden.shape[1:]
        hidden = hidden.reshape(len(inputs), -1)
        for layer in layers[:-1]:
            hidden = layer.kernel.T @ hidden
            hidden += layer.bias[:, None]
            np.tanh(hidden, out=hidden)
        output: FloatArray = (layers[-1].kernel.T @ hidden)[0] + layers[-1].bias[0]
        return output.reshape(shape)

    def perceptron_gradient(
        self, layers: Sequence[Layer], inputs: Sequence[FloatArray]
    ) -> tuple[FloatArray, Sequence[FloatArray]]:
        hidden, activations = np.stack(inputs), []
        for layer in layers[:-1]:
            hidden = layer.kernel.T @ hidden
            hidden += layer.bias[:, None]
            activations.append(np.tanh(hidden, out=hidden))
        last = layers[-1]
        adjoint = last.kernel
        for layer, activation in zip(reversed(layers[:-1]), reversed(activations), strict=True):
            adjoint = layer.kernel @ (adjoint * (1.0 - activation * activation))
        return (last.kernel.T @ hidden)[0] + last.bias[0], list(adjoint)


class ScalarAlgebra:
    """Python floats, for one option: an array operation costs twenty times a float's."""

    exp = staticmethod(math.exp)
    log = staticmethod(math.log)
    sqrt = staticmethod(math.sqrt)

    def softplus(self, a: float) -> float:
        return max(a, 0.0) + math.log1p(math.exp(-abs(a)))

    def sigmoid(self, a: float) -> float:
        decayed = math.exp(-abs(a))
        return (1.0 if a >= 0.0 else decayed) / (1.0 + decayed)

    def normal_distribution(self, a: float) -> float:
        return 0.5 * math.erfc(-_SQRT_HALF * a)

    def perceptron(self, layers: Sequence[Layer], inputs: Sequence[float]) -> float:
        hidden = np.array(inputs)
        for layer in layers[:-1]:
            hidden = hidden @ layer.kernel
            hidden += layer.bias
            np.tanh(hidden, out=hidden)
        return float(hidden @ layers[-1].kernel[:, 0]) + float(layers[-1].bias[0])

    def perceptron_gradient(self, layers: Sequence[Layer], inputs: Sequence[float]) -> tuple[float, Sequence[float]]:
        hidden, activations = np.array(inputs), []
        for layer in layers[:-1]:
            hidden = hidden @ layer.kernel
            hidden += layer.bias
            activations.append(np.tanh(hidden, out=hidden))
        last = layers[-1]
        adjoint = last.kernel[:, 0]
        for layer, activation in zip(reversed(layers[:-1]), reversed(activations), strict=True):
            adjoint = layer.kernel @ (adjoint - adjoint * activation * activation)
        return float(hidden @ last.kernel[:, 0]) + float(last.bias[0]), adjoint.tolist()
