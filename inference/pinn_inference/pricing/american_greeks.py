"""From the premium's derivatives in its own variables to what it adds to a quote; written once for every algebra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from pinn_inference.pricing.algebra import Number

PREMIUM_ROUNDING: Final = 1e-14
"""Of the strike: what float64 does to a premium."""

Choose: TypeAlias = Callable[[Number, Number, Number], Number]
"""`np.where`, `tf.where`, or `choose_float`: condition, value if so, value if not."""


def choose_float(condition: bool, if_so: float, if_not: float) -> float:
    return if_so if condition else if_not


class PutTerms(NamedTuple):
    """American options as puts; a call's spot and strike, rate and dividend are exchanged. x = ln(spot/strike)."""

    spot: Number
    strike: Number
    x: Number
    s: Number
    kappa: Number
    lambda_: Number


class Addition(NamedTuple):
    """What the premium adds to price and Greeks, in the units of `Quotes`."""

    price: Number
    delta: Number
    gamma: Number
    vega: Number
    theta: Number
    rho: Number


def addition(
    choose: Choose,
    put: PutTerms,
    is_call: Number,
    volatility: Number,
    jets: Sequence[Number],
) -> Addition:
    """`jets` are e, e_x, e_s, e_κ, e_λ; `is_call` says what the options were before they were made puts.

    The pricing equation gives the second derivative: e_w = e_xx/2 + (κ − λ − 1)/2·e_x − κ/2·e.
    """
    e, e_x, e_s, e_kappa, e_lambda = jets
    strike, s = put.strike, put.s
    e_w = 0.5 * e_s / s
    bend = strike * (2.0 * e_w - (put.kappa - put.lambda_) * e_x + put.kappa * e)  # K·(e_xx − e_x)
    spot = choose(is_call, strike, put.spot)
    drift = put.kappa * e_kappa + put.lambda_ * e_lambda
    return Addition(
        price=strike * e,
        # The put's S is the call's strike: K·e(ln S − ln K) is differentiated by the other of the two.
        delta=choose(is_call, e - e_x, strike * e_x / put.spot),
        gamma=bend / spot / spot,
        vega=strike * (e_s * (s / volatility) - 2.0 * drift / volatility),
        theta=-volatility * volatility * strike * e_w,
        rho=strike * (2.0 / (volatility * volatility)) * choose(is_call, e_lambda, e_kappa),
    )
