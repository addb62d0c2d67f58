"""Memory growth: the slope of each pod's resident bytes, in bytes per hour; that of the canary's fastest one.

What counts of a pod begins `WARM_UP_SECONDS` after the weight was written and after its container last started, as the
kubelet says: a restart is not a fall, and a fall is not a restart. To that time belong TensorFlow's first peak and
caches that fill.

The first minutes do not tell a leak from a cache that still fills, or from a large step. So an abort bound is exceeded
when a pod grew beyond it for an hour; sooner only if it has already grown by several hours' worth, or if its memory
limit is near. An advance bound is met if the whole interval of the slope (`core.gates.slope`) is below it, over all the
time that counts or over the last hour; or the slope itself, over an hour or more. Until then the weight does not rise,
and the message says how much longer that takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, isfinite
from typing import Final

from pinn_operator.core.gates.families import Answers, expression
from pinn_operator.core.gates.memory import Gauge, gauge_of, gauge_questions, level
from pinn_operator.core.gates.metric import Evidence, Scope, Side
from pinn_operator.core.gates.slope import HOUR, Slope, slope_of
from pinn_operator.core.gates.tracks import Points
from pinn_operator.core.gates.wording import count, describe
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate

WARM_UP_SECONDS: Final = 300.0
LEAST_SECONDS: Final = 600.0
"""A shorter time says nothing of an hour."""
WINDOWS: Final = (600.0, 1200.0, 2400.0)
"""Newest times, beside the whole hour, in which a fast leak may show."""
HOURS_WORTH: Final = 3.0
"""A pod that has grown by what the bound lets it grow in so many hours is not watched for an hour."""
NEAR_SECONDS: Final = 900.0
"""Nor is one that reaches its memory limit so soon."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one pod: over all the time that counts, and over the last hour of it."""

    whole: Slope
    hour: Slope

    @property
    def of_an_hour(self) -> bool:
        """It was watched for an hour: the estimate decides, however noisy it is."""
        return self.whole.seconds >= HOUR

    def decided(self, bound: float) -> bool | None:
        """Whether it grows by less than `bound` an hour; None while that cannot be told."""
        if self.hour.low > bound:
            return False
        if self.hour.high < bound:
            return True
        if self.whole.high < bound or self.whole.low >= bound or self.of_an_hour:
            return self.whole.value < bound
        return None

    def shown(self, bound: float | None) -> Slope:
        """What decides: the last hour if that is clear, else everything."""
        clear = bound is None or self.hour.low > bound or self.hour.high < bound
        return self.hour if clear else self.whole

    def seconds_to_decide(self, bound: float) -> float:
        """About how much longer it takes, by the width of the interval: that of a slope falls with T^(3/2)."""
        rest = HOUR - self.whole.seconds
        apart, half = abs(bound - self.whole.value), (self.whole.high - self.whole.low) / 2
        if apart <= 0 or not isfinite(half):
            return rest
        return min(rest, self.whole.seconds * (float((half / apart) ** (2 / 3)) - 1))


class MemoryGrowth:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The gauge; and the requests, whose moments are its too."""
        del gate
        return gauge_questions(scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """Slopes of all pods. They are of minutes, so they are not looked at in the passes in between."""
        gauge = gauge_of(answers, scope)
        if not isinstance(gauge, Gauge):
            return gauge
        if not scope.advance_due:
            return Evidence(source=gauge.source)
        canary = {pod: counting(points, pod, scope.canary, scope) for pod, points in gauge.canary.items()}
        growths = {pod: growth_of(points) for pod, points in canary.items() if seconds_of(points) >= LEAST_SECONDS}
        stable = (counting(points, pod, scope.stable, scope) for pod, points in gauge.stable.items())
        others = [slope_of(points).value for points in stable if seconds_of(points) >= LEAST_SECONDS]
        common = Evidence(
            stable=max(others, default=None), age=gauge.age(scope), source=gauge.source,
            query=expression(gauge.family, scope), held=gauge.stale(scope),
        )  # fmt: skip
        # A pod that has just been added does not hold up the judgement of the others.
        if not growths or len(growths) < len(canary) / 2:
            return _too_early(common, canary, scope)
        return _judged(gate, common, growths, canary, scope)


def _too_early(common: Evidence, canary: Mapping[str, Points], scope: Scope) -> Evidence:
    needed = WARM_UP_SECONDS + LEAST_SECONDS
    rests = sorted(
        max(LEAST_SECONDS - seconds_of(points), begin_of(pod, scope.canary, scope) + needed - scope.now.timestamp())
        for pod, points in canary.items()
    )
    rest = rests[(len(rests) - 1) // 2] if rests else needed
    short = f"a step of {scope.hold_seconds:.0f} s is too short to judge it: it needs {needed:.0f} s"
    return replace(
        common, collecting=f"needs {_minutes(rest, 'more ')} of samples",
        inapplicable=short if scope.hold_seconds < needed else "",
    )  # fmt: skip


def _judged(
    gate: Gate, common: Evidence, growths: Mapping[str, Growth], canary: Mapping[str, Points], scope: Scope
) -> Evidence:  # fmt: skip
    advance = gate.advance.below if gate.advance else None
    abort = gate.abort.above if gate.abort else None
    shown = {pod: growth.shown(advance) for pod, growth in growths.items()}
    fastest = max(shown, key=lambda pod: (shown[pod].value, pod))
    slope = shown[fastest]
    room = {pod: _room(points, scope) for pod, points in canary.items()}
    collecting = ""
    if advance is not None and all(growth.decided(advance) is not False for growth in growths.values()):
        open_ones = [growth for growth in growths.values() if growth.decided(advance) is None]
        if open_ones:
            rest = max(growth.seconds_to_decide(advance) for growth in open_ones)
            collecting = f"{_with_interval(gate, slope)}: needs about {_minutes(rest, 'more ')} of samples"
    notes, exceeded = [_until_limit(slope, room[fastest])], None
    if abort is not None:
        proven = {pod: beyond_bound(canary[pod], abort, room[pod]) for pod in growths}
        beyond = {pod: found for pod, found in proven.items() if found is not None}
        exceeded = bool(beyond)
        if beyond:
            fastest = max(beyond, key=lambda pod: (beyond[pod].value, pod))
            slope = beyond[fastest]
            notes = [_until_limit(slope, room[fastest])]
        elif growths[fastest].hour.low > abort:
            rest = _until_proven(growths[fastest].hour, growths[fastest].whole.seconds, abort)
            notes.append(f"acts in about {_minutes(rest)} if it stays above {describe(gate, abort)}")
            if advance is None:
                collecting = f"{describe(gate, slope.value)} ({'; '.join(filter(None, notes))})"
    return replace(
        common, value=slope.value, recent=slope.value, enough=True, exceeded=exceeded, collecting=collecting,
        note="; ".join(filter(None, notes)),
    )  # fmt: skip


def begin_of(pod: str, side: Side, scope: Scope) -> float:
    """Unix seconds since which a pod's memory is that of its present container at the present weight.

    A node whose clock is ahead says that a container has not started yet; that is not heeded.
    """
    started = side.started.get(pod, 0.0)
    return max(scope.since, started if started <= scope.now.timestamp() else 0.0)


def counting(points: Points, pod: str, side: Side, scope: Scope) -> Points:
    """The samples of a pod after its warm-up."""
    first = begin_of(pod, side, scope) + WARM_UP_SECONDS
    return [point for point in points if point[0] >= first]


def seconds_of(points: Points) -> float:
    """From the first to the last sample; 0 without any."""
    return points[-1][0] - points[0][0] if points else 0.0


def growth_of(points: Points) -> Growth:
    """The growth of a pod, by what counts of it: at least `LEAST_SECONDS`.

    After a gap, such as a clock that was set ahead makes, too little may be known of the last hour.
    """
    whole = slope_of(points)
    newest = newest_of(points, HOUR) if whole.seconds > HOUR else ()
    return Growth(whole, slope_of(newest) if seconds_of(newest) >= LEAST_SECONDS else whole)


def newest_of(points: Points, seconds: float) -> Points:
    """The samples of the last so many seconds."""
    return [point for point in points if point[0] >= points[-1][0] - seconds]


def beyond_bound(points: Points, bound: float, room: float | None) -> Slope | None:
    """The slope that proves growth beyond `bound` bytes an hour; None if there is none.

    `room` is how many bytes are left to the memory limit, None without one.
    """
    values = [value for _, value in points]
    if max(values) - min(values) < bound * min(1.0, LEAST_SECONDS / HOUR):
        return None
    seconds = seconds_of(points)
    for window in (*(it for it in WINDOWS if it < seconds), min(seconds, HOUR)):
        newest = newest_of(points, window)
        if seconds_of(newest) < LEAST_SECONDS / 2:
            continue
        slope = slope_of(newest)
        if slope.low <= bound:
            continue
        grown = slope.low * window / HOUR
        near = room is not None and grown >= bound and room < slope.value * NEAR_SECONDS / HOUR
        if window >= HOUR or grown >= HOURS_WORTH * bound or near:
            return slope
    return None


def _until_proven(slope: Slope, seconds: float, bound: float) -> float:
    """Seconds until growth beyond a bound is proven, if it goes on as it does."""
    return max(0.0, min(HOUR - seconds, HOURS_WORTH * bound / slope.low * HOUR - seconds))


def _room(points: Points, scope: Scope) -> float | None:
    """Bytes that are left to the memory limit."""
    return max(0.0, scope.memory_limit - level(points)) if scope.memory_limit is not None and points else None


def _until_limit(slope: Slope, room: float | None) -> str:
    """When a pod that grows for sure has no memory left."""
    if room is None or slope.low <= 0:
        return ""
    hours = room / slope.value
    return f"the memory limit is reached in {f'{hours:.0f} h' if hours >= 2 else f'{hours * 60:.0f} min'}"


def _with_interval(gate: Gate, slope: Slope) -> str:
    if not isfinite(slope.low):
        return describe(gate, slope.value)
    return f"{describe(gate, slope.value)}, between {describe(gate, slope.low)} and {describe(gate, slope.high)}"


def _minutes(seconds: float, more: str = "") -> str:
    return count(max(1, ceil(seconds / 60)), f"{more}minute", f"{more}minutes")
