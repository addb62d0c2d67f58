"""Memory growth: the slope of each pod's resident bytes, in bytes per hour; that of the canary's fastest one.

The slope is the median of the slopes between all pairs of moments (H. Theil, "A rank-invariant method of linear and
polynomial regression analysis", 1950; P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau",
J. Am. Stat. Assoc. 63 (1968)), with Sen's confidence interval. A single step moves it little and widens the interval: a
step is not a leak. What a container had before it last restarted is left out: a restart is not a fall. So is its
warm-up, in which every server grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor
from statistics import median
from typing import Final

from pinn_operator.core.gates.families import Answers, expression, questions, requests_family
from pinn_operator.core.gates.memory import gauge_stale, level, memory_family, of_side, oldest_age
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.tracks import Points
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate

WARM_UP_SECONDS: Final = 300.0
LEAST_SECONDS: Final = 600.0
"""A shorter time says nothing of an hour."""
LONGEST_SECONDS: Final = 3600.0
BINS: Final = 24
FALL: Final = 0.3
"""A container that is started anew has lost more than this part of its memory from one sample to the next."""
_HOUR: Final = 3600.0
_NORMAL_99: Final = 2.576


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes per hour, with the bounds between which the true slope lies with a confidence of 99 %."""

    value: float
    low: float
    high: float
    seconds: float


class MemoryGrowth:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The gauge; and the requests, whose moments are its too."""
        del gate
        return questions([requests_family(scope), memory_family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """Slopes of all pods; an abort bound is exceeded when the whole interval is beyond it."""
        family = memory_family(scope.analysis.names)
        source, found, error = answers.levels(family)
        if source is None:
            return error or Evidence()
        canary, stable = of_side(found, scope.canary, scope), of_side(found, scope.stable, scope)
        if not canary and not stable:
            return error or Evidence(absent=family.sample, source=source, query=expression(family, scope))
        slopes = {pod: slope for pod, points in canary.items() if (slope := slope_of(points)) is not None}
        fastest = max(slopes, key=lambda pod: (slopes[pod].value, pod), default=None)
        others = [slope.value for points in stable.values() if (slope := slope_of(points)) is not None]
        age, held = oldest_age(canary, scope), gauge_stale(canary, scope)
        if fastest is None or len(slopes) < len(canary):
            longest = max((_seconds(points) for points in canary.values()), default=0.0)
            needed = WARM_UP_SECONDS + LEAST_SECONDS
            short = f"a step of {scope.hold_seconds:.0f} s is too short to judge it: it needs {needed:.0f} s"
            return Evidence(
                stable=max(others, default=None), age=age, source=source, query=expression(family, scope), held=held,
                collecting=f"{longest:.0f} of {LEAST_SECONDS:.0f} s after the warm-up",
                inapplicable=short if scope.hold_seconds < needed else "",
            )  # fmt: skip
        steepest, bound = slopes[fastest], gate.abort
        return Evidence(
            value=steepest.value,
            stable=max(others, default=None),
            recent=steepest.value,
            enough=True,
            exceeded=steepest.low > bound.above if bound and bound.above is not None else None,
            age=age,
            source=source,
            query=expression(family, scope),
            held=held,
            note=_until_limit(steepest, level(canary[fastest]), scope),
        )


def slope_of(points: Points) -> Slope | None:
    """The slope of a pod's memory in the last hour; None as long as there is too little of it."""
    kept = since_start(points)
    if not kept or kept[-1][0] - kept[0][0] < LEAST_SECONDS:
        return None
    return theil_sen(_binned(kept))


def since_start(points: Points) -> Points:
    """What was read of the present container after its warm-up, at most an hour of it."""
    begin = 0
    for index in range(1, len(points)):
        if points[index][1] < points[index - 1][1] * (1 - FALL):
            begin = index
    if not points:
        return ()
    first = max(points[begin][0] + WARM_UP_SECONDS, points[-1][0] - LONGEST_SECONDS)
    return tuple(point for point in points[begin:] if point[0] >= first)


def theil_sen(points: Points) -> Slope:
    """The median of all pairs' slopes, per hour, with Sen's 99 % interval. At least two points, at distinct moments."""
    slopes = sorted(
        (after[1] - before[1]) / (after[0] - before[0]) * _HOUR
        for index, before in enumerate(points)
        for after in points[index + 1 :]
    )
    count, number = len(points), len(slopes)
    spread = _NORMAL_99 * (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    low = floor((number - spread) / 2)
    high = number - 1 - low
    return Slope(
        median(slopes),
        slopes[low] if low >= 0 else float("-inf"),
        slopes[high] if high < number else float("inf"),
        points[-1][0] - points[0][0],
    )


def _binned(points: Points) -> list[tuple[float, float]]:
    """Medians of equal stretches of time: few enough for all pairs, and deaf to single odd samples."""
    begin, width = points[0][0], (points[-1][0] - points[0][0]) / BINS
    bins: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        bins.setdefault(min(BINS - 1, int((point[0] - begin) / width)), []).append(point)
    return [
        (_mean(moments), median(values)) for moments, values in (tuple(zip(*it, strict=True)) for it in bins.values())
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _seconds(points: Points) -> float:
    kept = since_start(points)
    return kept[-1][0] - kept[0][0] if kept else 0.0


def _until_limit(slope: Slope, now: float, scope: Scope) -> str:
    """When a pod that grows for sure has no memory left."""
    if scope.memory_limit is None or slope.low <= 0 or slope.value <= 0:
        return ""
    hours = max(0.0, scope.memory_limit - now) / slope.value
    return (
        f"the memory limit is reached in {hours:.0f} h"
        if hours >= 2
        else f"the memory limit is reached in {hours * 60:.0f} min"
    )
