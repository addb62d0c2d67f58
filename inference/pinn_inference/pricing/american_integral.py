"""Places in the American model's domain, and the premium as an integral over the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.algebra import NumPyAlgebra
from pinn_inference.pricing.american_network import AmericanDomain, boundary_features, boundary_from_output
from pinn_inference.pricing.mills import normal_distribution
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray

HISTORY_S_MIN: Final = 1e-3
"""The boundary is learned down to here: an option's own history reaches back to expiry."""


@dataclass(frozen=True, slots=True)
class Places:
    """Points (s, κ, λ) of the domain, all of shape (n,)."""

    s: FloatArray
    kappa: FloatArray
    lambda_: FloatArray

    def __len__(self) -> int:
        return len(self.s)


def quasi_random(dimensions: int, n: int, *, seed: int) -> FloatArray:
    """A Kronecker sequence of shape (n, dimensions), shifted by the seed: powers of 1/ρ with ρ^{d+1} = ρ + 1."""
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (dimensions + 1.0))
    steps = root ** -np.arange(1, dimensions + 1)
    shift = np.random.default_rng(seed).uniform(size=dimensions)
    return (shift + np.arange(1, n + 1)[:, None] * steps) % 1.0


def places(unit: FloatArray, domain: AmericanDomain, *, s_min: float) -> Places:
    """From points of the unit cube, shape (n, 3), to points of the domain.

    s and κ are even in their logarithms. A sixth of the points has no dividend and a third lies where the boundary at
    expiry begins to move, |ln(λ/κ)| ≤ 6s: both are parts of the domain that desks quote and an even sample
    hardly hits.
    """
    s = s_min * (domain.s_max / s_min) ** unit[:, 0]
    top = np.minimum(domain.kappa_max, 2.0 * domain.carry_max / (s * s))
    kappa = domain.kappa_min * (top / domain.kappa_min) ** unit[:, 1]
    kind, inner = np.divmod(unit[:, 2] * 6.0, 1.0)
    even = top * ((kind - 3.0 + inner) / 3.0) ** 2
    near = np.minimum(kappa * np.exp(s * (6.0 * (kind - 1.0 + inner) - 6.0)), top)
    lambda_ = np.where(kind == 0.0, 0.0, np.where(kind <= 2.0, near, even))
    return Places(s, kappa, lambda_)


def quadrature(nodes: int) -> tuple[FloatArray, FloatArray]:
    """Gauss–Legendre nodes θ in (0, π/2) and weights; u = w·sin²θ smooths both ends of the integrals."""
    x, weights = np.polynomial.legendre.leggauss(nodes)
    return (x + 1.0) * (np.pi / 4.0), weights * (np.pi / 4.0)


def premium_integral(
    boundary_layers: Sequence[Layer], x: FloatArray, at: Places, *, nodes: int, chunk: int = 4096
) -> FloatArray:
    """I[b](x, w) of the module's docstring for the boundary of these layers; shape (n,), units of the strike."""
    algebra = NumPyAlgebra()
    angle, weights = quadrature(nodes)
    sine, cosine = np.sin(angle), np.cos(angle)
    result = np.empty_like(x)
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        s, kappa, lambda_ = (getattr(at, name)[rows, None] for name in ("s", "kappa", "lambda_"))
        history = s * cosine
        features, ratio = boundary_features(
            algebra, history, np.broadcast_to(kappa, history.shape), np.broadcast_to(lambda_, history.shape)
        )
        earlier = boundary_from_output(algebra, history, ratio, algebra.perceptron(boundary_layers, features))
        w = s * s
        elapsed, root = w * sine**2, s * sine
        measure = weights * 2.0 * w * sine * cosine
        place = x[rows, None]
        upper = (place - earlier + 0.5 * (kappa - lambda_ + 1.0) * elapsed) / root
        cash = 0.5 * kappa * np.exp(-0.5 * kappa * elapsed) * normal_distribution(root - upper)
        asset = 0.5 * lambda_ * np.exp(place - 0.5 * lambda_ * elapsed) * normal_distribution(-upper)
        result[rows] = np.sum(measure * (cash - asset), axis=1)
    return result
