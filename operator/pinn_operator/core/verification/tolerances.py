"""How far two prices of one option may be apart.

Two prices of one option may differ by what both answers' own `error_bound`s allow and `tolerance` times the
strike; a bound counts up to a thousandth of the strike, so that nobody passes by promising nothing. Greeks are compared
in their natural units (delta 1, gamma 1/(S·σ·√T), vega S·√T, theta S·σ/√T, rho K·T), in which they may differ by 1e-4
and 20 times what the price may by, per strike. American rho is the weakest Greek of the bundled model: 0.5 more.
Gamma and theta of an American option jump where it is exercised, so they are not compared within a thousandth of the
strike of its intrinsic value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite, sqrt
from typing import Final

from pinn_operator.core.samples import PriceOption, Quote

BOUND_LIMIT: Final = 1e-3
"""Of the strike: no error bound counts for more."""
GREEK_TOLERANCE: Final = 1e-4
GREEK_PER_PRICE: Final = 20.0
AMERICAN_RHO: Final = 0.5
EXERCISE_MARGIN: Final = 1e-3
"""Of the strike: so near its intrinsic value an American option counts as one that is about to be exercised."""


def price_allowance(option: PriceOption, *quotes: Quote, tolerance: float) -> float:
    """By how much prices of the option may differ, in currency."""
    return tolerance * option.strike + sum(_bound(option, quote) for quote in quotes)


def _bound(option: PriceOption, quote: Quote) -> float:
    limit = BOUND_LIMIT * option.strike
    return min(max(0.0, quote.error_bound), limit) if isfinite(quote.error_bound) else 0.0


def apart(
    option: PriceOption, reference: Quote, quote: Quote, allowed: float
) -> tuple[str, float | None, float | None, float] | None:
    """The first of price and Greeks that is too far away: its name, both values, and what is allowed."""
    if not isfinite(quote.price) or not isfinite(reference.price):
        return None
    if abs(quote.price - reference.price) > allowed:
        return "price", reference.price, quote.price, allowed
    for name, scale in greek_allowances(option, (reference, quote), allowed / option.strike):
        before, after = getattr(reference, name), getattr(quote, name)
        if before is None or not isfinite(before):
            continue
        if after is None or (isfinite(after) and abs(after - before) > scale):
            return name, before, after, scale
    return None


def greek_allowances(
    option: PriceOption, quotes: Iterable[Quote], price: float
) -> Iterator[tuple[str, float]]:  # fmt: skip
    root = sqrt(option.maturity)
    unit = GREEK_TOLERANCE + GREEK_PER_PRICE * price
    yield "delta", unit
    yield "vega", unit * option.spot * root
    yield "rho", (unit + (AMERICAN_RHO if option.american else 0.0)) * option.strike * option.maturity
    if option.american and any(_near_exercise(option, quote) for quote in quotes):
        return
    yield "gamma", unit / (option.spot * option.volatility * root)
    yield "theta", unit * option.spot * option.volatility / root


def _near_exercise(option: PriceOption, quote: Quote) -> bool:
    intrinsic = option.spot - option.strike if option.call else option.strike - option.spot
    return quote.price - intrinsic <= EXERCISE_MARGIN * option.strike
