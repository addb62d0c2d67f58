"""Columns of float64 that know how far they may be from the exact numbers: a bound goes along with every operation.

First-order error analysis without its omissions: the product of the errors is there too, each operation adds its own
rounding, and so a bound holds however much cancels. It costs three operations instead of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.mills import INV_SQRT_2PI, normal_distribution
from pinn_inference.pricing.types import FloatArray

_EPS: Final = 1.25 * float(np.finfo(np.float64).eps)
"""Of one operation: half a unit in the last place, or two for functions (`_FUNCTION`), and the bound's own rounding."""
_FUNCTION: Final = 4.0 * _EPS
_DISTRIBUTION: Final = 16.0 * _EPS
"""Of Φ's lower tail, relative, times 1 + z²: its exponential carries the rounding of its argument."""
_UNDERFLOW: Final = 1e-300


@dataclass(frozen=True, slots=True)
class Bounded:
    """Numbers, shape (n,), and bounds of their errors, of the same shape. Plain arrays and floats count as exact."""

    value: FloatArray
    error: FloatArray

    @classmethod
    def exact(cls, value: FloatArray) -> Bounded:
        return cls(value, np.zeros_like(value))

    def __add__(self, other: Bounded | float) -> Bounded:
        right, error = _parts(other)
        value = self.value + right
        return Bounded(value, self.error + error + _EPS * np.abs(value))

    def __sub__(self, other: Bounded | float) -> Bounded:
        return self + (-other)

    def __mul__(self, other: Bounded | float) -> Bounded:
        right, error = _parts(other)
        value = self.value * right
        spread = np.abs(self.value) * error + np.abs(right) * self.error + self.error * error
        return Bounded(value, spread + _EPS * np.abs(value) + _UNDERFLOW * (error != 0.0))

    def __truediv__(self, other: Bounded | float) -> Bounded:
        right, error = _parts(other)
        value = self.value / right
        least = np.maximum(np.abs(right) - error, 0.0)  # of a divisor that may be 0 there is no bound
        return Bounded(value, (self.error + np.abs(value) * error) / least + _EPS * np.abs(value))

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error)

    def exp(self) -> Bounded:
        value = np.exp(self.value)
        return Bounded(value, value * (1.0 + _FUNCTION) * np.expm1(self.error) + _FUNCTION * value + _UNDERFLOW)

    def log(self) -> Bounded:
        """Of numbers whose error is less than they are."""
        value = np.log(self.value)
        return Bounded(value, -np.log1p(-self.error / self.value) + _FUNCTION * np.abs(value))

    def sqrt(self) -> Bounded:
        """Of exact numbers."""
        value = np.sqrt(self.value)
        return Bounded(value, _EPS * value)

    def normal_distribution(self) -> Bounded:
        """Φ."""
        size = np.abs(self.value)
        tail = normal_distribution(-size)
        value = np.where(self.value > 0.0, 1.0 - tail, tail)
        steepest = INV_SQRT_2PI * np.exp(-0.5 * np.maximum(size - self.error, 0.0) ** 2)
        rounding = _DISTRIBUTION * (1.0 + size * size) * tail + _EPS * value
        return Bounded(value, steepest * self.error + rounding + _UNDERFLOW)

    def clipped(self, largest: float) -> Bounded:
        """Kept within ±`largest`, for whoever knows that nothing depends on what is beyond."""
        surely_beyond = np.abs(self.value) - self.error > largest
        error = np.where(surely_beyond, 0.0, np.minimum(self.error, 2.0 * largest))
        return Bounded(np.clip(self.value, -largest, largest), error)


def _parts(other: Bounded | float) -> tuple[FloatArray | float, FloatArray | float]:
    return (other.value, other.error) if isinstance(other, Bounded) else (other, 0.0)
