"""How fast a gauge rises: a slope that single odd samples, steps and peaks do not move, and how sure it is.

The slope is the median of the slopes between all pairs of moments (H. Theil, "A rank-invariant method of linear and
polynomial regression analysis", 1950; P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau",
J. Am. Stat. Assoc. 63 (1968)), with Sen's confidence interval. Sen's interval is for noise without memory, and memory
has one: a step, a garbage collector's saw-tooth or a wave leave residuals that resemble their neighbours. So the
variance is inflated by (1 + r)/(1 − r), r being the lag-one correlation of the residuals (S. Yue, C. Wang, "The
Mann-Kendall test modified by effective sample size to detect trend in serially correlated hydrological series", Water
Resources Management 18 (2004)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, inf
from statistics import fmean, median
from typing import Final

from pinn_operator.core.gates.tracks import Points

HOUR: Final = 3600.0
BINS: Final = 24
_NORMAL_99: Final = 2.576
_MOST_ALIKE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Slope:
    """Units per hour, with the bounds between which the true slope lies with a confidence of 99 %."""

    value: float
    low: float
    high: float
    seconds: float
    """From the first to the last moment that it rests on."""


def slope_of(points: Points) -> Slope:
    """The slope of samples at ascending moments (unix seconds); at least two of them."""
    return theil_sen(_binned(points), points[-1][0] - points[0][0])


def theil_sen(points: Points, seconds: float) -> Slope:
    """The median of all pairs' slopes, per hour, with its 99 % interval. At least two points, at distinct moments."""
    slopes = sorted(
        (after[1] - before[1]) / (after[0] - before[0]) * HOUR
        for index, before in enumerate(points)
        for after in points[index + 1 :]
    )
    count, number, value = len(points), len(slopes), median(slopes)
    alike = _lag_one(points, value / HOUR)
    variance = count * (count - 1) * (2 * count + 5) / 18 * (1 + alike) / (1 - alike)
    low = floor((number - _NORMAL_99 * variance**0.5) / 2)
    if low < 0:
        return Slope(value, -inf, inf, seconds)
    return Slope(value, slopes[low], slopes[number - 1 - low], seconds)


def _lag_one(points: Points, slope: float) -> float:
    """How much a residual resembles the one before it, from 0 to `_MOST_ALIKE`."""
    residuals = [value - slope * moment for moment, value in points]
    middle = fmean(residuals)
    apart = [residual - middle for residual in residuals]
    total = sum(it * it for it in apart)
    shared = sum(before * after for before, after in pairwise(apart))
    return min(_MOST_ALIKE, max(0.0, shared / total)) if total > 0 else 0.0


def _binned(points: Points) -> Sequence[tuple[float, float]]:
    """Medians of equal stretches of time: few enough for all pairs, and deaf to peaks that are shorter."""
    begin, width = points[0][0], (points[-1][0] - points[0][0]) / BINS
    bins: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        bins.setdefault(min(BINS - 1, int((point[0] - begin) / width)), []).append(point)
    return [
        (fmean(moments), median(values)) for moments, values in (tuple(zip(*it, strict=True)) for it in bins.values())
    ]
