"""The options that a revision is asked for: few, always the same, and some in every corner.

A market is a spot, a maturity, a rate, a dividend and a volatility. In each of them calls and puts, European and
American, are priced at three strikes, which gives ladders for monotonicity and convexity, pairs for the parity of call
and put, and pairs of styles. Two markets of each maturity have ladders that together touch every class of moneyness, so
from 16 markets (192 options) on each combination of maturity, moneyness, type and style is there: a model that is wrong
only for puts under a week is wrong in the grid. Nothing is drawn: the same number of options is the same options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import exp, gcd, log, sqrt
from typing import Final

from pinn_operator.core.samples import PriceOption

STRIKES: Final = 3
MARKET_OPTIONS: Final = 4 * STRIKES

_MATURITIES: Final = (5 / 365, 1.0, 45 / 365, 2 / 365, 0.5, 14 / 365, 2.0, 0.25)
"""Years, in the order in which markets take them, so that few markets are spread too."""
_LADDERS: Final = ((-2.4, 0.1, 2.1), (-0.9, -0.2, 0.8), (-5.0, 0.3, 4.5))
"""ln(K/F) in standard deviations: from deep in the money to deep out of it, around it, and where little is left."""
_SPOTS: Final = (100.0, 4321.5, 1.0842, 37.25, 250.0)
_RATES: Final = (0.03, 0.0, 0.05, -0.005, 0.08, 0.01, 0.12)
_DIVIDENDS: Final = (0.01, 0.0, 0.03)
_VOLATILITIES: Final = (0.2, 0.6, 0.12, 0.35, 1.0, 0.25, 0.45, 0.16, 0.3, 0.8, 0.22)
_STRETCH: Final = 0.37
"""How much longer, at most, the maturities of later rounds are than those of the first."""

MONEYNESS: Final = ("deep low", "low", "at", "high", "deep high")
"""Classes of the strike."""
_MONEYNESS_ENDS: Final = (-1.5, -0.4, 0.4, 1.5)
TERMS: Final = ("days", "weeks", "months", "years")
"""Classes of the maturity."""
_TERM_ENDS: Final = (7.5 / 365, 60 / 365, 0.9)


@dataclass(frozen=True, slots=True)
class Grid:
    """`options`, and by their indices what belongs together."""

    options: tuple[PriceOption, ...]
    ladders: tuple[tuple[int, int, int], ...]
    """Equal but for the strike, which rises."""
    parities: tuple[tuple[int, int], ...]
    """A call and a put, otherwise equal."""
    styles: tuple[tuple[int, int], ...]
    """A European and an American option, otherwise equal."""


@lru_cache(maxsize=32)
def grid(options: int) -> Grid:
    """That many options. The first n of a larger grid are the grid of n.

    Raises:
        ValueError: fewer than one.
    """
    if options < 1:
        raise ValueError(f"options must be at least 1, not {options}")
    found: list[PriceOption] = []
    for market in _markets():
        found.extend(market)
        if len(found) >= options:
            break
    # As `_market` orders them: strike by strike, puts before calls, European before American.
    strikes = range(0, options - 3, 4)
    markets = range(0, options - MARKET_OPTIONS + 1, MARKET_OPTIONS)
    return Grid(
        options=tuple(found[:options]),
        ladders=tuple((start + kind, start + kind + 4, start + kind + 8) for start in markets for kind in range(4)),
        parities=tuple((start + 2 + style, start + style) for start in strikes for style in range(2)),
        styles=tuple((start + kind, start + kind + 1) for start in strikes for kind in (0, 2)),
    )


def moneyness(option: PriceOption) -> str:
    """The class of its strike, as one of `MONEYNESS`."""
    deviation = option.volatility * sqrt(option.maturity)
    distance = log(option.strike / option.spot) - (option.rate - option.dividend) * option.maturity
    return MONEYNESS[sum(distance > end * deviation for end in _MONEYNESS_ENDS)]


def term(option: PriceOption) -> str:
    """The class of its maturity, as one of `TERMS`."""
    return TERMS[sum(option.maturity > end for end in _TERM_ENDS)]


@lru_cache(maxsize=32)
def ordinary(options: int) -> tuple[int, ...]:
    """Indices into a grid of `options` of those that any method prices at once.

    American ones at low rates, or far from what is usual, can take a server a hundred times as long. All are compared
    before a revision gets weight; asked in traffic, they would stand in the latencies that it is judged by.
    """
    found = tuple(number for number, it in enumerate(grid(options).options) if not it.american or _usual(it))
    return found or tuple(range(options))


def _usual(option: PriceOption) -> bool:
    return (
        option.rate >= 0.03
        and 0.12 <= option.volatility <= 0.6
        and 14 / 365 <= option.maturity <= 2.0
        and abs(log(option.strike / option.spot)) <= 0.6
    )


@lru_cache(maxsize=64)
def sample(options: int, size: int, turn: int) -> tuple[int, ...]:
    """`size` indices into a grid of `options`, spread over it; one turn after the other visits every index."""
    size = min(size, options)
    # Steps that have no divisor in common with the number come by every index before one of them comes again.
    step = next(step for step in range(max(1, round(options * 0.382)), options + 1) if gcd(step, options) == 1)
    return tuple((turn * size + number) * step % options for number in range(size))


def _markets() -> Iterator[tuple[PriceOption, ...]]:
    number = 0
    while True:
        turn, position = divmod(number, len(_MATURITIES))
        # The first two ladders touch every class of moneyness; later turns move the maturities a little.
        stretch = 1.0 + _STRETCH * _spread(turn // 2)
        yield _market(
            spot=_SPOTS[number % len(_SPOTS)],
            maturity=_digits(_MATURITIES[position] * stretch),
            rate=_RATES[number % len(_RATES)],
            dividend=_DIVIDENDS[number % len(_DIVIDENDS)],
            volatility=_VOLATILITIES[number % len(_VOLATILITIES)],
            ladder=_LADDERS[turn % len(_LADDERS)],
        )
        number += 1


def _market(
    *, spot: float, maturity: float, rate: float, dividend: float, volatility: float, ladder: tuple[float, ...]
) -> tuple[PriceOption, ...]:
    forward, deviation = spot * exp((rate - dividend) * maturity), volatility * sqrt(maturity)
    return tuple(
        PriceOption(
            spot, _digits(forward * exp(place * deviation)), maturity, rate, dividend, volatility, call, american
        )
        for place in ladder
        for call in (False, True)
        for american in (False, True)
    )


def _digits(number: float) -> float:
    """Six digits, as a person would write it."""
    return float(f"{number:.6g}")


def _spread(number: int) -> float:
    """The van der Corput sequence in base 2: 0, 1/2, 1/4, 3/4, …"""
    found, share = 0.0, 0.5
    while number:
        found += share * (number & 1)
        number, share = number >> 1, share / 2
    return found
