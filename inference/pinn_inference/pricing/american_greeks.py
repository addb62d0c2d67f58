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


class Greeks(NamedTuple):
    """Price and Greeks in the units of `Quotes`, or what the premium adds to them."""

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
) -> Greeks:
    """What the premium adds. `jets` are e, e_x, e_s, e_κ, e_λ; `is_call` says what the puts were before.

    The pricing equation gives the second derivative: e_w = e_xx/2 + (κ − λ − 1)/2·e_x − κ/2·e.
    """
    e, e_x, e_s, e_kappa, e_lambda = jets
    strike, s = put.strike, put.s
    e_w = 0.5 * e_s / s
    bend = strike * (2.0 * e_w - (put.kappa - put.lambda_) * e_x + put.kappa * e)  # K·(e_xx − e_x)
    spot = choose(is_call, strike, put.spot)
    drift = put.kappa * e_kappa + put.lambda_ * e_lambda
    return Greeks(
        price=strike * e,
        # The put's S is the call's strike: K·e(ln S − ln K) is differentiated by the other of the two.
        delta=choose(is_call, e - e_x, strike * e_x / put.spot),
        gamma=bend / spot / spot,
        vega=strike * (e_s * (s / volatility) - 2.0 * drift / volatility),
        theta=-volatility * volatility * strike * e_w,
        rho=strike * (2.0 / (volatility * volatility)) * choose(is_call, e_lambda, e_kappa),
    )


def held(choose: Choose, european: Greeks, added: Greeks, put: PutTerms, is_call: Number) -> Greeks:
    """The option while it is held, kept to what every American option obeys whatever the networks say.

    It is worth no less than its payoff, its delta is within [−1, 0] (put) or [0, 1] (call), and gamma is not negative.
    """

    def at_least(low: Number, value: Number) -> Number:
        return choose(value < low, low, value)  # in this order NaN stays NaN

    price, delta, gamma, *others = (old + new for old, new in zip(european, added, strict=True))
    lowest = choose(is_call, 0.0, -1.0)
    below = at_least(lowest, delta)
    return Greeks(
        at_least(put.strike - put.spot, price),
        choose(below > lowest + 1.0, lowest + 1.0, below),
        at_least(0.0, gamma),
        *others,
    )


def exercised(choose: Choose, put: PutTerms, is_call: Number) -> Greeks:
    """The option once it is exercised: the payoff and its derivatives."""
    return Greeks(put.strike - put.spot, choose(is_call, 1.0, -1.0), 0.0, 0.0, 0.0, 0.0)
