"""Prices that nobody could quote without giving money away (Merton, "Theory of rational option pricing", 1973).

They hold for whatever model prices: bounds, parity of call and put, monotonicity and convexity in the strike, and an
American option that is worth at least the European one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite

from pinn_operator.core.samples import PriceOption, Quote
from pinn_operator.core.verification.grid import Grid
from pinn_operator.core.verification.tolerances import price_allowance


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that prices break by more than their tolerances."""

    rule: str
    option: int
    """The index of the option that it is shown at."""
    value: float
    bound: float
    allowed: float


def arbitrage(
    options: Sequence[PriceOption], structure: Grid, prices: Mapping[int, Quote], *, tolerance: float
) -> Iterator[Breach]:
    """What the prices, by the indices of their options, break by more than their tolerances."""
    found = {option: quote for option, quote in prices.items() if isfinite(quote.price)}
    allowed = {
        option: price_allowance(options[option], quote, tolerance=tolerance) for option, quote in found.items()
    }  # fmt: skip
    for option, quote in found.items():
        low, high = _bounds(options[option])
        if quote.price < low - allowed[option]:
            yield Breach("lower bound", option, quote.price, low, allowed[option])
        elif quote.price > high + allowed[option]:
            yield Breach("upper bound", option, quote.price, high, allowed[option])
    for call, put in structure.parities:
        if call in found and put in found:
            low, high = _parity(options[call])
            value, slack = found[call].price - found[put].price, allowed[call] + allowed[put]
            if not low - slack <= value <= high + slack:
                yield Breach("put-call parity", put, value, low if value < low else high, slack)
    for european, american in structure.styles:
        if european in found and american in found:
            value, bound = found[american].price, found[european].price
            slack = allowed[european] + allowed[american]
            if value < bound - slack:
                yield Breach("at least the European price", american, value, bound, slack)
    for rungs in structure.ladders:
        if all(option in found for option in rungs):
            yield from _ladder(options, rungs, found, allowed)


def _ladder(
    options: Sequence[PriceOption], rungs: tuple[int, int, int], found: Mapping[int, Quote],
    allowed: Mapping[int, float],
) -> Iterator[Breach]:  # fmt: skip
    low, middle, high = rungs
    for lower, upper in ((low, middle), (middle, high)):
        cheap, dear = (upper, lower) if options[low].call else (lower, upper)
        slack = allowed[lower] + allowed[upper]
        if found[cheap].price > found[dear].price + slack:
            yield Breach("monotone in the strike", cheap, found[cheap].price, found[dear].price, slack)
    width = options[high].strike - options[low].strike
    share = (options[high].strike - options[middle].strike) / width
    chord = share * found[low].price + (1 - share) * found[high].price
    slack = allowed[low] + allowed[middle] + allowed[high]
    if found[middle].price > chord + slack:
        yield Breach("convex in the strike", middle, found[middle].price, chord, slack)


def _bounds(option: PriceOption) -> tuple[float, float]:
    """Between which every price lies, whatever the model."""
    asset = option.spot * exp(-option.dividend * option.maturity)
    cash = option.strike * exp(-option.rate * option.maturity)
    ahead = asset - cash if option.call else cash - asset
    if not option.american:
        return max(0.0, ahead), asset if option.call else cash
    now = option.spot - option.strike if option.call else option.strike - option.spot
    # With a negative rate, cash later is worth more than cash now.
    most = max(option.spot, asset) if option.call else max(option.strike, cash)
    return max(0.0, ahead, now), most


def _parity(call: PriceOption) -> tuple[float, float]:
    """Between which the price of the call less that of the put lies; for European options both are the same."""
    asset = call.spot * exp(-call.dividend * call.maturity)
    cash = call.strike * exp(-call.rate * call.maturity)
    if not call.american:
        return asset - cash, asset - cash
    return min(asset, call.spot) - max(call.strike, cash), max(asset, call.spot) - min(call.strike, cash)
