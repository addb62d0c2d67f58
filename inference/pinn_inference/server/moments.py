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
    rows = np.searchsorted(MONEYNESS_BORDERS, options.spot / options.strike) * _MATURITIES
    rows += np.searchsorted(MATURITY_BORDERS, options.maturity)
    finite = np.isfinite(quotes.price)
    ratio = np.where(finite, quotes.price, 0.0) / options.strike
    columns = [np.bincount(rows, weights, BUCKETS) for weights in (finite.astype(np.float64), ratio, ratio * ratio)]
    return np.stack(columns, axis=1)


def bucket(moneyness: float, maturity: float) -> int:
    """The bucket of one option."""
    return bisect_left(MONEYNESS_BORDERS, moneyness) * _MATURITIES + bisect_left(MATURITY_BORDERS, maturity)


def bucket_names(number: int) -> tuple[str, str]:
    """How a bucket's moneyness and maturity are called in labels."""
    return _MONEYNESS_NAMES[number // _MATURITIES], _MATURITY_NAMES[number % _MATURITIES]
