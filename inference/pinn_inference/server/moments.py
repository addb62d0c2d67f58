"""Moments of what was priced, by moneyness and maturity.

Two revisions that see the same kind of traffic should answer with the same prices; where they do not, mean and spread
of price ÷ strike in one of these buckets differ. The sums are counters, so any window of time has its own moments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.types import FloatArray, OptionBatch, Quotes

MONEYNESS_BORDERS: Final = (0.8, 0.95, 1.05, 1.25)
"""Of spot ÷ strike; a bucket holds its upper border, not its lower one."""
MATURITY_BORDERS: Final = (0.0833, 0.5, 2.0)
"""In years; a bucket holds its upper border, not its lower one."""


def _bucket_names(borders: Sequence[float]) -> tuple[str, ...]:
    inner = [f"{low:g}..{high:g}" for low, high in pairwise(borders)]
    return (f"..{borders[0]:g}", *inner, f"{borders[-1]:g}..")


_MONEYNESS_NAMES: Final = _bucket_names(MONEYNESS_BORDERS)
_MATURITY_NAMES: Final = _bucket_names(MATURITY_BORDERS)
BUCKETS: Final = len(_MONEYNESS_NAMES) * len(_MATURITY_NAMES)
_MATURITIES: Final = len(_MATURITY_NAMES)


def price_moments(options: OptionBatch, quotes: Quotes) -> FloatArray:
    """Count, sum and sum of squares of price ÷ strike by moneyness and maturity; shape (BUCKETS, 3).

    Prices that are not finite count nowhere.
    """
    rows = _places(options.spot / options.strike, MONEYNESS_BORDERS) * np.uint8(_MATURITIES)
    rows += _places(options.maturity, MATURITY_BORDERS)
    buckets = rows.astype(np.intp)
    finite = np.isfinite(quotes.price)
    ratio = quotes.price / options.strike
    counts: FloatArray
    if finite.all():
        counts = np.bincount(buckets, minlength=BUCKETS).astype(np.float64)
    else:
        counts = np.bincount(buckets, finite, BUCKETS).astype(np.float64)
        ratio = np.where(finite, ratio, 0.0)
    sums = (np.bincount(buckets, powers, BUCKETS) for powers in (ratio, ratio * ratio))
    return np.stack([counts, *sums], axis=1)


def _places(values: FloatArray, borders: Sequence[float]) -> NDArray[np.uint8]:
    """How many borders each value exceeds; for so few of them faster than a search."""
    places = np.zeros(len(values), dtype=np.uint8)
    for border in borders:
        places += values > border
    return places


def bucket(moneyness: float, maturity: float) -> int:
    """The bucket of one option."""
    return bisect_left(MONEYNESS_BORDERS, moneyness) * _MATURITIES + bisect_left(MATURITY_BORDERS, maturity)


def bucket_names(number: int) -> tuple[str, str]:
    """How a bucket's moneyness and maturity are called in labels."""
    return _MONEYNESS_NAMES[number // _MATURITIES], _MATURITY_NAMES[number % _MATURITIES]
