"""A bound on the price error that needs no exact price: from the residual of the equation alone.

Let E = Ñ − N be the error of a network Ñ, R its residual, and C the approximate solution of the error equation from
`defect`. The remainder e = s·φ(y)·(E − C) of the time value satisfies e_w = e_xx/2 − e/8 − φ/(2s)·(R − L[C]) with
e(x, 0) = 0 and the flux e_x(0, w) = φ(0)·(Ñ_y + √(π/2) − C_y)(0, w). By the maximum principle, and with the Neumann
heat kernel for the flux, the error of the time value at s is at most

    sup_y s·φ|C| + ∫₀ˢ sup_y φ|R − L[C]| dσ + s·√(2/π)·φ(0)·sup_{σ≤s} |(Ñ_y + √(π/2) − C_y)(0, σ²)|,

in units of D·√(FK). That holds for any C; a good one makes the first term the error itself and the others a few per
cent of it. The suprema are sampled on a dense grid, not proved by interval arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.defect import Y_BEYOND, solve
from pinn_inference.pricing.mills import SQRT_HALF_PI, normal_density
from pinn_inference.pricing.network import Network, evaluate, residual
from pinn_inference.pricing.types import FloatArray

_PANELS: Final = 50
_BETWEEN_POINTS: Final = 1.01
"""Allowance for maxima of |C| that lie between grid points."""


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
        position: NDArray[np.intp] = np.ceil(s * (len(self.s) / self.s[-1]) - 1.0).astype(np.intp)
        return position


def certify(network: Network, *, per_panel: int = 20, y_points: int = 801) -> Certificate:
    """The bound of a network over its domain, on `50·per_panel + 1` by `y_points` points; takes some seconds.

    The integral is an upper sum of the sampled suprema: each cell counts with the larger of its two ends.
    """
    defect = solve(network)
    s_max = float(np.sqrt(network.domain.w_max))
    s = np.linspace(0.0, s_max, _PANELS * per_panel + 1)
    y = np.linspace(0.0, Y_BEYOND, y_points)
    density = normal_density(y)
    peaks, known = np.empty_like(s), np.empty_like(s)
    for index, value in enumerate(s):
        w = np.full_like(y, value * value)
        correction = defect.jets(y, w)
        remainder = residual(evaluate(network, y, w), y, w) - residual(correction, y, w)
        peaks[index] = np.max(density * np.abs(remainder))
        known[index] = value * np.max(density * np.abs(correction.n))
    cells = np.maximum(peaks[1:], peaks[:-1]) * (s_max / (len(s) - 1))
    integral = np.concatenate([[0.0], np.cumsum(cells)])
    border = np.zeros_like(s)
    slope_error = evaluate(network, border, s * s).n_y + SQRT_HALF_PI - defect.jets(border, s * s).n_y
    flux = np.maximum.accumulate(np.abs(slope_error)) * float(density[0])
    bound = _BETWEEN_POINTS * np.maximum.accumulate(known) + integral + s * np.sqrt(2.0 / np.pi) * flux
    knots = np.arange(1, _PANELS + 1) * per_panel
    return Certificate(s=s[knots], bound=bound[knots])


def sampled_residual(network: Network, *, s_points: int = 201, y_points: int = 401) -> float:
    """max φ(y)·|R(y, w)| over a grid of the domain: how far the network is from solving the equation."""
    grid_y, grid_s = np.meshgrid(
        np.linspace(0.0, network.domain.y_max, y_points), np.linspace(0.0, np.sqrt(network.domain.w_max), s_points)
    )
    y, w = grid_y.ravel(), grid_s.ravel() ** 2
    return float(np.max(normal_density(y) * np.abs(residual(evaluate(network, y, w), y, w))))
