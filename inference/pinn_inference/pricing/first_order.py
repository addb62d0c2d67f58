"""How far the Greeks of an answer may be from the exact ones: delta, gamma, vega, theta and rho of each option.

**European** ones are held against the exact formulas, evaluated with bounds of their rounding (`bounded`): the distance
from them and that bound together are more than the error, whatever priced the option. With the terms of `second_order`
and B = K·e^{−rT}

    Δ = ±e^{−qT}·Φ(±d₁)      Γ = e^{−qT}·φ(d₁)/(S·s)      vega = S·e^{−qT}·φ(d₁)·√T
    theta = −vega·σ/(2T) + q·S·Δ ∓ r·B·Φ(±d₂) − Δ·r·P      rho = ±T·B·Φ(±d₂) − Δ·∂P/∂r

**American** ones that the networks price have the bounds that come with the model (`AmericanArtefact.greek_bounds`).
Of others that can be exercised early none are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.american_artefact import GAMMA_JUMPS
from pinn_inference.pricing.bounded import Bounded
from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.golden import greek_scales
from pinn_inference.pricing.second_order import OF_DIVIDENDS, Greek, Terms, terms_of
from pinn_inference.pricing.types import BoolArray, FloatArray, Method, OptionBatch, Quotes

_EPS: Final = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class _Exact:
    """What the formulas need beside the terms."""

    at: Terms
    cash: Bounded
    """±B·Φ(±d₂)"""
    rate: Bounded
    by_rate: Bounded
    """∂P/∂r"""


def _theta(of: _Exact) -> Bounded:
    at = of.at
    decay = at.vega * at.volatility * at.pace
    return at.dividend * at.spot * at.delta - decay - of.rate * of.cash - at.delta * at.growth


def _rho(of: _Exact) -> Bounded:
    return of.at.maturity * of.cash - of.at.delta * of.by_rate


_FORMULAS: Final[Mapping[str, Callable[[_Exact], Bounded]]] = {
    "delta": lambda of: of.at.delta,
    "gamma": lambda of: of.at.gamma,
    "vega": lambda of: of.at.vega,
    "theta": _theta,
    "rho": _rho,
}
NAMES: Final = tuple(_FORMULAS)


def first_order(
    options: OptionBatch,
    quotes: Quotes,
    names: Sequence[str],
    *,
    as_european: BoolArray,
    bounds: Mapping[str, float],
    escrow: Escrow | None = None,
) -> dict[str, Greek]:
    """These Greeks, of `NAMES`, as `quotes` have them, with bounds of their errors, NaN where none is known.

    `as_european`, shape (n,), are the rows that are worth what European options are; `bounds` are the American model's,
    by name and in natural sizes (`golden.greek_scales`). `escrow` is what was taken off the spots of `options` for
    dividends of known amounts, and is in theta and rho of `quotes`.
    """
    with np.errstate(all="ignore"):
        exact, scales = _exact(options, escrow), greek_scales(options)
        by_network = ~as_european & (quotes.method == Method.PINN)
        untold = near_boundary(options, quotes.exercise_boundary)
        greeks = {}
        for name in names:
            value = getattr(quotes, name)
            formula = _FORMULAS[name](exact)
            bound = np.abs(value - formula.value) + formula.error + 2.0 * _EPS * np.abs(value)
            of_model = bounds.get(name, np.nan) * scales[name]
            if name == "gamma":
                of_model = np.where(untold, np.nan, of_model)
            bound = np.where(as_european, bound, np.where(by_network, of_model, np.nan))
            greeks[name] = Greek(value, np.where(np.isfinite(bound), bound, np.nan))
    return greeks


def near_boundary(options: OptionBatch, exercise_boundary: FloatArray) -> BoolArray:
    """Where gamma's jump at the boundary is too near to say anything of gamma, shape (n,)."""
    distance = np.abs(np.log(options.spot / exercise_boundary))
    return np.asarray(distance < GAMMA_JUMPS * options.volatility * np.sqrt(options.maturity))


def _exact(options: OptionBatch, escrow: Escrow | None) -> _Exact:
    at = terms_of(options, escrow)
    rate, by_rate = Bounded.exact(options.rate), np.zeros_like(options.spot) if escrow is None else escrow.by_rate
    discounted = Bounded.exact(options.strike) * (-(rate * at.maturity)).exp()
    return _Exact(
        at=at,
        cash=discounted * (at.d2 * at.side).normal_distribution() * at.side,
        rate=rate,
        by_rate=Bounded(by_rate, OF_DIVIDENDS * np.abs(by_rate)),
    )
