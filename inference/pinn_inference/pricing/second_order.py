"""Greeks of second order and two of third, of European options, each with a bound of its error.

They are those of the exact formula, whatever priced the option: a network that is right to 1e-7 of the price says
nothing certain about its third derivatives. With A = S·e^{−qT}, s = σ√T, d₁, d₂ and c = (r − q)/s − d₂/(2T) = ∂d₁/∂T,
and for call and put alike but for charm (Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., chapter 2):

    vanna = ∂²V/∂S∂σ = −A·φ(d₁)·d₂/(S·σ)        volga = ∂²V/∂σ² = vega·d₁·d₂/σ
    charm = −∂Δ/∂T  = ±q·e^{−qT}·Φ(±d₁) − e^{−qT}·φ(d₁)·c
    veta  = −∂vega/∂T = vega·(q + d₁·c − 1/(2T))  color = −∂Γ/∂T = Γ·(q + d₁·c + 1/(2T))
    speed = ∂Γ/∂S = −Γ/S·(1 + d₁/s)              zomma = ∂Γ/∂σ = Γ·(d₁·d₂ − 1)/σ
    ultima = ∂³V/∂σ³ = −vega/σ²·(d₁·d₂·(1 − d₁·d₂) + d₁² + d₂²)

Per 1.00 of volatility, and per year of calendar time as theta is: what the passing of time does. Of shares that pay
dividends of known amounts S is what is left without their present value P (see `escrow`), which falls by r·P a year
because P grows: charm loses Γ·r·P by that, veta vanna·r·P, and color speed·r·P.
The bounds are those of `bounded`, for the very numbers that were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.bounded import Bounded
from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.mills import INV_SQRT_2PI
from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch

_FAR: Final = 1e4
"""Of d₁ and d₂: from 38.6 on φ is 0 in float64."""
_EPS: Final = float(np.finfo(np.float64).eps)
OF_DIVIDENDS: Final = 1024.0 * _EPS
"""Relative error of a present value: a sum of a hundred exponentials of at most a hundred, taken off a larger spot."""


@dataclass(frozen=True, slots=True)
class Greek:
    """One Greek of a batch: values and bounds of their errors, shape (n,), NaN where it has no answer."""

    value: FloatArray
    error_bound: FloatArray


@dataclass(frozen=True, slots=True)
class Terms:
    """What the formulas are made of, see the module's docstring."""

    spot: Bounded
    maturity: Bounded
    volatility: Bounded
    dividend: Bounded
    s: Bounded
    d1: Bounded
    d2: Bounded
    carried: Bounded
    """e^{−qT}"""
    drift: Bounded
    """c = ∂d₁/∂T"""
    pace: Bounded
    """1/(2T)"""
    side: Bounded
    """1 for calls, −1 for puts."""
    growth: Bounded
    """r·P"""

    @property
    def delta(self) -> Bounded:
        return self.carried * (self.d1 * self.side).normal_distribution() * self.side

    @property
    def density(self) -> Bounded:
        return (self.d1 * self.d1 * -0.5).exp() * INV_SQRT_2PI

    @property
    def gamma(self) -> Bounded:
        return self.carried * self.density / (self.spot * self.s)

    @property
    def vega(self) -> Bounded:
        return self.spot * self.carried * self.density * self.maturity.sqrt()


def _vanna(at: Terms) -> Bounded:
    return -(at.carried * at.density * at.d2 / at.volatility)


def _volga(at: Terms) -> Bounded:
    return at.vega * at.d1 * at.d2 / at.volatility


def _charm(at: Terms) -> Bounded:
    return at.dividend * at.delta - at.carried * at.density * at.drift - at.gamma * at.growth


def _veta(at: Terms) -> Bounded:
    return at.vega * (at.dividend + at.d1 * at.drift - at.pace) - _vanna(at) * at.growth


def _color(at: Terms) -> Bounded:
    return at.gamma * (at.dividend + at.d1 * at.drift + at.pace) - _speed(at) * at.growth


def _speed(at: Terms) -> Bounded:
    return -(at.gamma / at.spot * (at.d1 / at.s + 1.0))


def _zomma(at: Terms) -> Bounded:
    return at.gamma * (at.d1 * at.d2 - 1.0) / at.volatility


def _ultima(at: Terms) -> Bounded:
    product = at.d1 * at.d2
    bracket = product * (-product + 1.0) + at.d1 * at.d1 + at.d2 * at.d2
    return -(at.vega * bracket / (at.volatility * at.volatility))


_FORMULAS: Final[Mapping[str, Callable[[Terms], Bounded]]] = {
    "vanna": _vanna,
    "volga": _volga,
    "charm": _charm,
    "veta": _veta,
    "speed": _speed,
    "zomma": _zomma,
    "color": _color,
    "ultima": _ultima,
}
NAMES: Final = tuple(_FORMULAS)


def second_order(
    options: OptionBatch, names: Sequence[str], *, known: BoolArray | None = None, escrow: Escrow | None = None
) -> dict[str, Greek]:
    """These Greeks, of `NAMES`, in currency and the units of the module's docstring.

    They are NaN in rows without variance, where some are infinite and others jump, and outside `known`, shape (n,): for
    American options that can be exercised early, of which the formulas say nothing. `is_american` is not looked at.
    `escrow` is what was taken off the spots of `options` for dividends of known amounts.
    """
    with np.errstate(all="ignore"):
        terms = terms_of(options, escrow)
        answerable = terms.s.value > 0.0
        if known is not None:
            answerable &= known
        greeks = {}
        for name in names:
            found = _FORMULAS[name](terms)
            usable = answerable & np.isfinite(found.value) & np.isfinite(found.error)
            greeks[name] = Greek(np.where(usable, found.value, np.nan), np.where(usable, found.error, np.nan))
    return greeks


def terms_of(options: OptionBatch, escrow: Escrow | None) -> Terms:
    """The terms of European options; they mean nothing in rows without variance."""
    strike, maturity, rate, dividend, volatility = map(
        Bounded.exact, (options.strike, options.maturity, options.rate, options.dividend, options.volatility)
    )
    present_value = np.zeros_like(options.spot) if escrow is None else escrow.present_value
    growth = present_value if escrow is None else escrow.growth
    spot = Bounded(options.spot, OF_DIVIDENDS * present_value + (present_value > 0.0) * _EPS * options.spot)
    s = volatility * maturity.sqrt()
    carry = rate - dividend
    moneyness = ((spot / strike).log() + carry * maturity) / s
    half = s * 0.5
    d1, d2 = (moneyness + half).clipped(_FAR), (moneyness - half).clipped(_FAR)
    pace = Bounded.exact(np.full_like(options.maturity, 0.5)) / maturity
    return Terms(
        spot=spot,
        maturity=maturity,
        volatility=volatility,
        dividend=dividend,
        s=s,
        d1=d1,
        d2=d2,
        carried=(-(dividend * maturity)).exp(),
        drift=carry / s - d2 * pace,
        pace=pace,
        side=Bounded.exact(np.where(options.is_call, 1.0, -1.0)),
        growth=Bounded(growth, OF_DIVIDENDS * np.abs(growth)),
    )
