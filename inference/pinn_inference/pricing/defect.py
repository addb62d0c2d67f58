"""What a network's residual says about its error: an approximate solution of the error equation, without any price.

The equation is linear. With L[N] = N_yy − y·N_y − 2N − 2w·N_w − (w/4)·N, the exact solution has L[N] = 0 and a network
Ñ leaves L[Ñ] = R, so its error E = Ñ − N satisfies

    L[E] = R,    E_y(0, w) = Ñ_y(0, w) + √(π/2).

A network's residual oscillates, and most of it cancels: a bound from |R| alone is 80 times too large. Here a Chebyshev
series C is fitted to the equation by linear least squares, so that R − L[C] is thousands of times smaller than R. Then
C is the error, all but what that small remainder can cause, and the remainder is what has to be bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev

from pinn_inference.pricing.mills import SQRT_HALF_PI, normal_density
from pinn_inference.pricing.network import Jets, Network, evaluate, residual
from pinn_inference.pricing.types import FloatArray

Y_BEYOND: Final = 12.0
"""φ(12) = 2e-32: what lies farther out adds nothing to a price."""

_TERMS: Final = (28, 20)
"""Chebyshev polynomials in (y − 2)/(y + 2) and in w."""
_POINTS: Final = (45, 30)
_WING_WEIGHT: Final = 1e-5
_BOUNDARY_WEIGHT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Defect:
    """C(y, w) = Σ a[i, j]·T_i(t)·T_j(v)/(1 + √(π/2)·y + y²), with t and v the inputs scaled to −1..1.

    `coefficients` have shape (terms in y, terms in w); C is the error of the network up to a remainder.
    """

    coefficients: FloatArray
    w_max: float

    def jets(self, y: FloatArray, w: FloatArray) -> Jets:
        """C and its derivatives at points 0 ≤ y ≤ 12, 0 ≤ w ≤ w_max, all of shape (n,)."""
        t, t_y, t_yy = _stretched(y)
        v, v_w = 2.0 / self.w_max * w - 1.0, 2.0 / self.w_max

        def series(d_t: int, d_v: int) -> FloatArray:
            coefficients = _derivative(_TERMS[0], d_t) @ self.coefficients @ _derivative(_TERMS[1], d_v).T
            return np.asarray(chebyshev.chebval2d(t, v, coefficients), dtype=np.float64)

        d_t = series(1, 0)
        return _decayed(y, series(0, 0), d_t * t_y, series(0, 1) * v_w, series(2, 0) * t_y * t_y + d_t * t_yy)


def solve(network: Network) -> Defect:
    """The series that fits L[C] = R at 45 by 30 Chebyshev points and C_y = Ñ_y + √(π/2) at y = 0; takes half a second.

    The fit counts residuals with the density φ(y) with which they reach a price, and 1e-5 at least.
    """
    w_max = network.domain.w_max
    w = 0.5 * w_max * (1.0 + _nodes(_POINTS[1]))
    border = np.zeros_like(w)
    grid_y, grid_w = (grid.ravel() for grid in np.meshgrid(_unstretched(_nodes(_POINTS[0])), w))
    weight = np.maximum(normal_density(grid_y), _WING_WEIGHT)
    inside = _basis(grid_y, grid_w, w_max)
    rows = [
        weight[:, None] * residual(inside, grid_y[:, None], grid_w[:, None]),
        _BOUNDARY_WEIGHT * _basis(border, w, w_max).n_y,
    ]
    targets = [
        weight * residual(evaluate(network, grid_y, grid_w), grid_y, grid_w),
        _BOUNDARY_WEIGHT * (evaluate(network, border, w).n_y + SQRT_HALF_PI),
    ]
    coefficients, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=1e-13)
    return Defect(coefficients=coefficients.reshape(_TERMS), w_max=w_max)


def _basis(y: FloatArray, w: FloatArray, w_max: float) -> Jets:
    """Every product of one polynomial in t and one in v with its derivatives, each of shape (n, terms)."""
    t, t_y, t_yy = (column[:, None] for column in _stretched(y))
    first = [chebyshev.chebvander(t[:, 0], _TERMS[0] - 1 - order) @ _derivative(_TERMS[0], order) for order in range(3)]
    v = 2.0 / w_max * w - 1.0
    second = [chebyshev.chebvander(v, _TERMS[1] - 1 - order) @ _derivative(_TERMS[1], order) for order in range(2)]

    def products(in_t: FloatArray, in_v: FloatArray) -> FloatArray:
        return (in_t[:, :, None] * in_v[:, None, :]).reshape(len(y), -1)

    return _decayed(
        y[:, None],
        products(first[0], second[0]),
        products(first[1] * t_y, second[0]),
        products(first[0], second[1]) * (2.0 / w_max),
        products(first[2] * t_y * t_y + first[1] * t_yy, second[0]),
    )


def _derivative(terms: int, order: int) -> FloatArray:
    """The matrix from Chebyshev coefficients to those of the derivative, of shape (terms − order, terms)."""
    matrix: FloatArray = np.asarray(chebyshev.chebder(np.eye(terms), order), dtype=np.float64)
    return matrix


def _stretched(y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """t = (y − 2)/(y + 2), scaled so that 0 ≤ y ≤ 12 becomes −1 ≤ t ≤ 1, and its two derivatives."""
    scale = (Y_BEYOND + 2.0) / Y_BEYOND
    return 2.0 * scale * y / (y + 2.0) - 1.0, 4.0 * scale / (y + 2.0) ** 2, -8.0 * scale / (y + 2.0) ** 3


def _unstretched(t: FloatArray) -> FloatArray:
    share = 0.5 * (1.0 + t) * Y_BEYOND / (Y_BEYOND + 2.0)
    return 2.0 * share / (1.0 - share)


def _nodes(count: int) -> FloatArray:
    """The roots of a Chebyshev polynomial."""
    nodes: FloatArray = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return nodes


def _decayed(y: FloatArray, value: FloatArray, d_y: FloatArray, d_w: FloatArray, d_yy: FloatArray) -> Jets:
    """The jets of value/(1 + √(π/2)·y + y²)."""
    decay = 1.0 / (1.0 + SQRT_HALF_PI * y + y * y)
    slope = SQRT_HALF_PI + 2.0 * y
    n = value * decay
    n_y = (d_y - n * slope) * decay
    return Jets(n=n, n_y=n_y, n_w=d_w * decay, n_yy=(d_yy - 2.0 * n_y * slope - 2.0 * n) * decay)
