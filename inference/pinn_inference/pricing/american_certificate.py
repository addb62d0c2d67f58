"""A bound on the error of an American price that needs no exact price.

Let b be any boundary with b ≤ ln min(1, κ/λ), and let ṽ = v + I[b] be the European value plus the premium integral of
`integral_equation` for this b. Then ṽ solves the pricing equation exactly above b (Duhamel), and with the source
κ/2 − λ/2·eˣ ≥ 0 below it; below it ṽ − payoff solves the equation without source and equals m = ṽ(b) − payoff(b) on b.

* m bounds |ṽ − payoff| below the boundary, by the maximum principle. So if ṽ ≥ payoff − ε above it, too, ṽ + ε is a
  supersolution that is nowhere less than the payoff: the American value is at most ṽ + ε.
* Stopping at b is one way to exercise; its value solves the same equation above b and differs from ṽ by m on b: the
  American value is at least ṽ − sup|m|.

Hence |American value − ṽ| ≤ ε = max(sup|m|, sup (payoff − ṽ)⁺), the suprema over the option's life, that is over all
smaller s at the same κ and λ. What is served is v + e above b and the payoff below, so

    |error| ≤ sup |e − I[b]| + 2ε,

in units of the strike, plus the European price's own error. The suprema are sampled at quasi-random points, not
proved by interval arithmetic, and enlarged by a factor for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.algebra import NumPyAlgebra
from pinn_inference.pricing.american_integral import (
    HISTORY_S_MIN,
    Places,
    places,
    premium_integral,
    quasi_random,
)
from pinn_inference.pricing.american_network import AmericanNetworks, boundary, european_put, premium
from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.types import FloatArray

SAMPLING_MARGIN: Final = 1.5
"""What the sampled suprema are multiplied with."""
_KNOTS: Final = 42
_NODES: Final = 40
_CHUNK: Final = 8192


@dataclass(frozen=True, slots=True)
class Residuals:
    """By how much the networks miss their equations at n places, in units of the strike; all of shape (n,).

    `premium` = |e − I[b]|, `mismatch` = |ṽ − payoff| at the boundary, `obstacle` = (payoff − ṽ)⁺ above it.
    """

    premium: FloatArray
    mismatch: FloatArray
    obstacle: FloatArray


def residuals(networks: AmericanNetworks, z: FloatArray, at: Places) -> Residuals:
    """The residuals at x = b + s·z of places of the domain, shape (n,)."""
    algebra = NumPyAlgebra()
    b = boundary(algebra, networks, at.s, at.kappa, at.lambda_)
    x = b + at.s * z
    e, _ = premium(algebra, networks, x, at.s, at.kappa, at.lambda_)
    integral = premium_integral(networks.boundary, x, at, nodes=_NODES)
    at_boundary = premium_integral(networks.boundary, b, at, nodes=_NODES)
    payoff_at_boundary = 1.0 - np.exp(b)
    value = european_put(algebra, x, at.s, at.kappa, at.lambda_) + integral
    mismatch = european_put(algebra, b, at.s, at.kappa, at.lambda_) + at_boundary - payoff_at_boundary
    return Residuals(
        premium=np.abs(e - integral),
        mismatch=np.abs(mismatch),
        obstacle=np.maximum(1.0 - np.exp(x) - value, 0.0),
    )


def certify_american(
    networks: AmericanNetworks,
    *,
    points: int = 200_000,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Certificate:
    """The bound over the domain as a growing function of s, in units of the put's strike.

    `report(done, points)` is called now and then. The part of an option's life before s_min is sampled too.
    """
    domain = networks.domain
    knots = np.linspace(0.0, domain.s_max, _KNOTS + 1)[1:]
    premium_peak, payoff_peak = np.zeros(_KNOTS), np.zeros(_KNOTS)
    unit = quasi_random(4, points, seed=seed)
    for start in range(0, points, _CHUNK):
        rows = slice(start, start + _CHUNK)
        at = places(unit[rows, :3], domain, s_min=HISTORY_S_MIN)
        found = residuals(networks, domain.z_max * unit[rows, 3] ** 2, at)
        knot = np.minimum(np.searchsorted(knots, at.s), _KNOTS - 1)
        served = np.where(at.s >= domain.s_min, found.premium, 0.0)
        np.maximum.at(premium_peak, knot, served)
        np.maximum.at(payoff_peak, knot, np.maximum(found.mismatch, found.obstacle))
        if report is not None:
            report(min(start + _CHUNK, points), points)
    bound = SAMPLING_MARGIN * (premium_peak + 2.0 * np.maximum.accumulate(payoff_peak))
    return Certificate(s=knots, bound=np.maximum.accumulate(bound))
