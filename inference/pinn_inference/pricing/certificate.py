"""A bound on the price error that needs no exact price: from the residual of the equation alone.

The error e = ũ − u of a network satisfies e_w = e_xx/2 − e/8 − φ/(2s)·R with e(x, 0) = 0 and the flux error
e_x(0, w) = φ(0)·(N_y(0, w) + √(π/2)). By the maximum principle, and with the Neumann heat kernel for the flux,

    |e(x, s²)| ≤ ∫₀ˢ sup_y φ(y)|R(y, σ²)| dσ + s·√(2/π)·φ(0)·sup_{σ≤s} |N_y(0, σ²) + √(π/2)|,

in units of D·√(FK). The suprema are sampled on a dense grid, not proved by interval arithmetic; measured bounds are 30
to 80 times the true error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.mills import SQRT_HALF_PI, normal_density
from pinn_inference.pricing.network import Network, evaluate, residual
from pinn_inference.pricing.types import FloatArray

_Y_BEYOND: Final = 12.0  # φ(12) = 2e-32: what lies farther out adds nothing
_PANELS: Final = 50


@dataclass(frozen=True, slots=True)
class Certificate:
    """Error bounds in units of D·√(FK), growing with s = σ√T.

    `s` and `bound` have shape (m,): for every option with σ√T ≤ s[i] the price error is at most bound[i]. The knots are
    evenly spaced, s[i] = (i + 1)·s[0].
    """

    s: FloatArray
    bound: FloatArray

    @property
    def error_bound(self) -> float:
        """The bound over the whole domain."""
        return float(self.bound[-1])

    def at(self, s: FloatArray) -> FloatArray:
        """The bound for options with σ√T = s, shape (n,); s must not exceed the domain, NaN gives any bound."""
        return self.bound.take(self.knot(s), mode="clip")

    def knot(self, s: FloatArray) -> NDArray[np.intp]:
        """The position of the first knot that is not below s, shape (n,); the knots are evenly spaced."""
        return np.ceil(s * (len(self.s) / self.s[-1]) - 1.0).astype(np.intp)


def certify(network: Network, *, per_panel: int = 30, y_points: int = 1201) -> Certificate:
    """The bound of a network over its domain, on `50·per_panel + 1` by `y_points` points.

    The integral is an upper sum of the sampled suprema: each cell counts with the larger of its two ends.
    """
    s_max = float(np.sqrt(network.domain.w_max))
    s = np.linspace(0.0, s_max, _PANELS * per_panel + 1)
    y = np.linspace(0.0, _Y_BEYOND, y_points)
    density = normal_density(y)
    peaks = np.empty_like(s)
    for index, value in enumerate(s):
        w = np.full_like(y, value * value)
        peaks[index] = np.max(density * np.abs(residual(evaluate(network, y, w), y, w)))
    cells = np.maximum(peaks[1:], peaks[:-1]) * (s_max / (len(s) - 1))
    integral = np.concatenate([[0.0], np.cumsum(cells)])
    at_the_money = evaluate(network, np.zeros_like(s), s * s)
    flux = np.maximum.accumulate(np.abs(at_the_money.n_y + SQRT_HALF_PI)) * float(density[0])
    bound = integral + s * np.sqrt(2.0 / np.pi) * flux
    knots = np.arange(1, _PANELS + 1) * per_panel
    return Certificate(s=s[knots], bound=bound[knots])


def sampled_residual(network: Network, *, s_points: int = 201, y_points: int = 401) -> float:
    """max φ(y)·|R(y, w)| over a grid of the domain: how far the network is from solving the equation."""
    grid_y, grid_s = np.meshgrid(
        np.linspace(0.0, network.domain.y_max, y_points), np.linspace(0.0, np.sqrt(network.domain.w_max), s_points)
    )
    y, w = grid_y.ravel(), grid_s.ravel() ** 2
    return float(np.max(normal_density(y) * np.abs(residual(evaluate(network, y, w), y, w))))
