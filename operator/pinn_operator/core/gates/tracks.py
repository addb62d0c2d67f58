"""What the counters of pods were at the moments at which they were read.

Prometheus and the pods themselves give the same: for each pod the moments of its samples and the growth of its counters
since the first of them. A counter restarts at zero with its container and is born when first used; a replica of
Prometheus may lag a little behind another. A pod counts once, whatever targets it has.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite, nan
from operator import le, lt
from typing import Final

from pinn_operator.core.samples import Series

Points = Sequence[tuple[float, float]]
Classify = Callable[[Mapping[str, str]], str | None]
"""To which class the samples of a series belong, by its labels; None leaves the series out."""

TARGET_LABELS = ("job", "instance", "service", "endpoint", "container", "prometheus", "prometheus_replica", "replica")
"""Labels that Prometheus and its operator add for a target: two targets of one pod differ in one of them."""
LATEST: Final = 1e11
"""No moment in unix seconds is later."""
LARGEST: Final = 2.0**53
"""A counter cannot count beyond: what shows more is no count."""
RESTARTED_BELOW = 0.5
"""A restarted container has counted less than this part of what it had; a replica that lags lacks a few seconds."""
_WITNESSES = 0.25
"""The series that tell of a restart had counted at least this part of what the pod had: a small one that lags alone
tells nothing."""
_INTERVALS = 5


@dataclass(frozen=True, slots=True)
class Track:
    """One pod: moments in ascending order (unix seconds), and at each of them what it has counted of each class in all
    its life, as if its container had never restarted."""

    pod: str
    times: tuple[float, ...]
    grown: Mapping[str, tuple[float, ...]]
    restarts: tuple[float, ...] = ()

    def at_or_before(self, moment: float) -> int:
        """Index of the newest sample at or before that moment; -1 if there is none."""
        return bisect_right(self.times, moment) - 1

    def at_or_after(self, moment: float) -> int:
        """Index of the oldest sample at or after that moment; the number of samples if there is none."""
        return bisect_left(self.times, moment)

    def count(self, classes: Iterable[str], begin: int, end: int) -> float:
        """How far these classes have grown together between two samples; one that is written "-x" is taken off."""
        total = 0.0
        for name in classes:
            values = self.grown.get(name.removeprefix("-"))
            if values is not None:
                total += (values[begin] - values[end]) if name[0] == "-" else (values[end] - values[begin])
        return max(0.0, total)

    def after(self, index: int) -> Track:
        """The track from its sample with that index on."""
        if index <= 0:
            return self
        restarts = tuple(moment for moment in self.restarts if moment > self.times[index])
        grown = {name: values[index:] for name, values in self.grown.items()}
        return Track(self.pod, self.times[index:], grown, restarts)

    def has_counted(self, index: int) -> bool:
        """Whether it had counted anything by that sample."""
        return any(values[index] > 0 for values in self.grown.values())

    @property
    def interval(self) -> float | None:
        """Seconds between its newest samples (the median of five); None with a single sample."""
        times = self.times[-_INTERVALS - 1 :]
        gaps = sorted(after - before for before, after in pairwise(times))
        return gaps[len(gaps) // 2] if gaps else None


Tracks = Mapping[str, Track]
"""By pod."""


def tracks(
    series: Iterable[Series], classify: Classify, *, pod_label: str = "pod", targets: bool = True
) -> dict[str, Track]:
    """The tracks of raw samples: points are (moment of the sample, value), labels those of the pod and the metric.

    `targets` is False where a pod is read as one, and no label tells a target.
    """
    found: dict[str, dict[tuple[str, ...], list[tuple[str, Points]]]] = {}
    for one in series:
        pod, name = one.labels.get(pod_label), classify(one.labels)
        points = in_order(one.points) if pod is not None and name is not None else ()
        if pod is None or name is None or not points:
            continue
        target = tuple(one.labels.get(label, "") for label in TARGET_LABELS) if targets else ()
        found.setdefault(pod, {}).setdefault(target, []).append((name, points))
    return {pod: _track(pod, _one_target(targets)) for pod, targets in found.items()}


def in_order(points: Points) -> Points:
    """Points at ascending moments: those of no possible moment are left out, of two at one moment the last is kept."""
    moments = [moment for moment, _ in points]
    if not moments or (all(map(lt, moments, moments[1:])) and moments[0] >= 0 and moments[-1] <= LATEST):
        return points
    return tuple(sorted({moment: value for moment, value in points if 0 <= moment <= LATEST}.items()))


def _possible(value: float) -> bool:
    return -LARGEST <= value <= LARGEST


def _one_target(targets: dict[tuple[str, ...], list[tuple[str, Points]]]) -> list[tuple[str, Points]]:
    """The target that was read for longest, and oftenest: a choice that does not depend on what it counted."""

    def coverage(target: tuple[str, ...]) -> tuple[float, int]:
        points = max((points for _, points in targets[target]), key=len)
        return round(points[-1][0] - points[0][0]), len(points)

    return targets[max(sorted(targets), key=coverage)]


def _track(pod: str, members: list[tuple[str, Points]]) -> Track:
    # Of a hundred series of a pod most stand at zero or never moved, and all have the same moments: both are cheap.
    columns: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = []
    for name, points in members:
        moments, values = zip(*points, strict=True)
        columns.append((name, moments, values))
    times = columns[0][1]
    begun_anew: frozenset[float] = frozenset()
    if any(moments != times for _, moments, _ in columns):
        times = tuple(sorted({moment for _, moments, _ in columns for moment in moments}))
        begun_anew = _begun_anew([(moments, values) for _, moments, values in columns], times)
    classes: dict[str, list[tuple[float, ...]]] = {}
    for name, moments, values in columns:
        kept = classes.setdefault(name, [])
        if not any(values):
            continue
        if len(values) != len(times):
            values = _filled(moments, values, times, begun_anew)
        possible = isfinite(sum(values)) and max(values) <= LARGEST and min(values) >= -LARGEST
        kept.append(values if possible else _finite(values))
    zeros = (0.0,) * len(times)
    raw = {
        name: zeros if not kept else kept[0] if len(kept) == 1 else tuple(map(sum, zip(*kept, strict=True)))
        for name, kept in classes.items()
    }
    if all(values is zeros or all(map(le, values, values[1:])) for values in raw.values()):
        return Track(pod, times, raw)
    restarts = _restarts(times, raw)
    cuts = [index for index, moment in enumerate(times) if moment in restarts]
    return Track(pod, times, {name: _joined(values, cuts) for name, values in raw.items()}, restarts)


def _filled(
    own: Sequence[float], values: Sequence[float], times: Sequence[float], begun_anew: frozenset[float]
) -> tuple[float, ...]:  # fmt: skip
    """Values at all moments of the pod: the last one where it has no sample, but zero before the series was born, and
    again from a restart of the container until it is born once more."""
    result, index, last = [], -1, 0.0
    for moment in times:
        if moment in begun_anew:
            last = 0.0
        while index + 1 < len(own) and own[index + 1] <= moment:
            index += 1
            last = values[index]
        result.append(last)
    return tuple(result)


def _begun_anew(columns: Sequence[tuple[Sequence[float], Sequence[float]]], times: Sequence[float]) -> frozenset[float]:
    """When the container was started again, by the series that have a sample then: what a server counts by label is
    absent until it is used, and what it had counted before the restart must not be taken for new."""
    if all(all(map(le, values, values[1:])) for _, values in columns):
        return frozenset()
    own = [dict(zip(moments, values, strict=True)) for moments, values in columns]
    held, found = [0.0] * len(columns), set[float]()
    for moment in times:
        seen = [place for place, samples in enumerate(own) if isfinite(samples.get(moment, nan))]
        before, after = sum(held[place] for place in seen), sum(own[place][moment] for place in seen)
        if after < before * RESTARTED_BELOW and before >= sum(held) * _WITNESSES:
            found.add(moment)
            held = [0.0] * len(columns)
        for place in seen:
            held[place] = own[place][moment]
    return frozenset(found)


def _finite(values: Iterable[float]) -> tuple[float, ...]:
    last, result = 0.0, []
    for value in values:
        last = value if _possible(value) else last
        result.append(last)
    return tuple(result)


def _restarts(times: Sequence[float], raw: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
    totals = [sum(column) for column in zip(*raw.values(), strict=True)]
    return tuple(
        times[index + 1]
        for index, (before, after) in enumerate(pairwise(totals))
        if after < before * RESTARTED_BELOW
    )  # fmt: skip


def _joined(values: Sequence[float], cuts: Sequence[int]) -> tuple[float, ...]:
    """Never falling: going on from zero after a restart, and standing still while a replica lags."""
    grown, highest, result = values[0], values[0], [values[0]]
    restarted = set(cuts)
    for index in range(1, len(values)):
        value = values[index]
        if index in restarted:
            grown, highest = grown + value, value
        elif value > highest:
            grown, highest = grown + value - highest, value
        result.append(grown)
    return tuple(result)


def levels(series: Iterable[Series], *, pod_label: str = "pod") -> dict[str, Points]:
    """The samples of a gauge, by pod; of several targets those of the one that was read for longest."""
    found: dict[str, Points] = {}
    for one in sorted(series, key=lambda it: sorted(it.labels.items())):
        pod = one.labels.get(pod_label)
        points = tuple(point for point in in_order(one.points) if _possible(point[1]))
        if pod is not None and points and len(points) > len(found.get(pod, ())):
            found[pod] = points
    return found


def newest(found: Iterable[Track]) -> float:
    """The newest moment of any of them; minus infinity without any."""
    return max((track.times[-1] for track in found), default=-inf)
