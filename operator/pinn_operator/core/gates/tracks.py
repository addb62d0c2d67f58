"""What the counters of pods were at the moments at which they were read.

Prometheus and the pods themselves give the same: for each pod the moments of its samples and the growth of its counters
since the first of them. A counter restarts at zero with its container and is born when first used; a replica of
Prometheus may lag a little behind another. A pod counts once, whatever targets it has.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite, isnan, nan
from operator import add, itemgetter, le, lt, sub
from typing import Final, NamedTuple

from pinn_operator.core.samples import LARGEST, PodCounts, PodReads, Series

Points = Sequence[tuple[float, float]]
Classify = Callable[[Mapping[str, str]], str | None]
"""To which class the samples of a series belong, by its labels; None leaves the series out."""

TARGET_LABELS = ("job", "instance", "service", "endpoint", "container", "prometheus", "prometheus_replica", "replica")
"""Labels that Prometheus and its operator add for a target: two targets of one pod differ in one of them."""
LATEST: Final = 1e11
"""No moment in unix seconds is later."""
RESTARTED_BELOW = 0.5
"""A restarted container has counted less than this part of what it had; a replica that lags lacks a few seconds."""
_WITNESSES = 0.25
"""The series that tell of a restart had counted at least this part of what the pod had: a small one that lags alone
tells nothing."""
_INTERVALS = 5


class Columns:
    """Which columns of a row of values belong to each class."""

    __slots__ = ("_chosen", "_joined", "_kept", "all", "classes", "highest", "of", "width")

    def __init__(self, of: Mapping[str, tuple[int, ...]]) -> None:
        self.of = of
        self.classes = tuple(of)
        everything = tuple(column for columns in of.values() for column in columns)
        self.highest = max(everything, default=-1)
        self.all = _taking(everything)
        self.width = len(everything)
        self._chosen: dict[tuple[str, ...], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._kept: dict[frozenset[int], Columns] = {}
        self._joined: dict[frozenset[str], Columns] = {}

    def chosen(self, classes: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The columns that are added for these classes, and those that are taken off: a class that is written "-x"."""
        found = self._chosen.get(classes)
        if found is None:
            added = [column for name in classes if name[0] != "-" for column in self.of.get(name, ())]
            taken = [column for name in classes if name[0] == "-" for column in self.of.get(name[1:], ())]
            found = self._chosen[classes] = (tuple(added), tuple(taken))
        return found

    def classes_within(self, there: frozenset[str]) -> Columns:
        """Those of rows that have one value for each class, in order; only of these classes."""
        found = self._joined.get(there)
        if found is None:
            every = {name: (place,) for place, name in enumerate(self.classes) if name in there}
            found = self._joined[there] = Columns(every)
        return found

    def within(self, there: frozenset[int]) -> Columns:
        """The same without the columns that are not among these."""
        found = self._kept.get(there)
        if found is None:
            kept = {name: tuple(column for column in columns if column in there) for name, columns in self.of.items()}
            found = self._kept[there] = Columns({name: columns for name, columns in kept.items() if columns})
        return found


def _taking(columns: Sequence[int]) -> Callable[[Sequence[float]], tuple[float, ...]]:
    if len(columns) > 1:
        return itemgetter(*columns)
    return (lambda row: (row[columns[0]],)) if columns else (lambda _row: ())


class Track(NamedTuple):
    """One pod: moments in ascending order (unix seconds), and at each of them a row of what it has counted in all its
    life, as if its container had never restarted. `columns` says what of a row belongs to which class. Unless the track
    is `complete`, rows may lack values, or have NaN: what was not there yet had counted nothing.
    """

    pod: str
    times: Sequence[float]
    rows: Sequence[Sequence[float]]
    columns: Columns
    interval: float | None
    """Seconds between its newest samples (the median of five); None with a single sample."""
    complete: bool = True
    restarts: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, pod: str, times: Sequence[float], grown: Mapping[str, Sequence[float]], restarts: tuple[float, ...] = ()
    ) -> Track:
        """From what was counted of each class at each moment."""
        columns = Columns({name: (place,) for place, name in enumerate(grown)})
        rows = tuple(zip(*grown.values(), strict=True)) if grown else ((),) * len(times)
        return cls(pod, times, rows, columns, interval_between(times), restarts=restarts)

    @property
    def grown(self) -> Mapping[str, tuple[float, ...]]:
        """What was counted of each class, at all moments."""
        return {
            name: tuple(sum(self._at(row, columns)) for row in self.rows) for name, columns in self.columns.of.items()
        }

    def at_or_before(self, moment: float) -> int:
        """Index of the newest sample at or before that moment; -1 if there is none."""
        return bisect_right(self.times, moment) - 1

    def at_or_after(self, moment: float) -> int:
        """Index of the oldest sample at or after that moment; the number of samples if there is none."""
        return bisect_left(self.times, moment)

    def count(self, classes: Iterable[str], begin: int, end: int) -> float:  # type: ignore[override]
        """How far these classes have grown together between two samples; one that is written "-x" is taken off."""
        added, taken = self.columns.chosen(tuple(classes))
        before, later = self.rows[begin], self.rows[end]
        total = 0.0
        if self.complete:
            for column in added:
                total += later[column] - before[column]
            for column in taken:
                total -= later[column] - before[column]
        else:
            total = sum(self._at(later, added)) - sum(self._at(before, added))
            total -= sum(self._at(later, taken)) - sum(self._at(before, taken))
        return max(0.0, total)

    def counts(self, classes: Iterable[str], indices: Iterable[int]) -> list[float]:
        """What these classes had counted together by each of these samples."""
        added, taken = self.columns.chosen(tuple(classes))
        rows = [self.rows[index] for index in indices]
        if not self.complete:
            return [sum(self._at(row, added)) - sum(self._at(row, taken)) for row in rows]
        if taken:
            return [sum([row[it] for it in added]) - sum([row[it] for it in taken]) for row in rows]
        return [sum([row[it] for it in added]) for row in rows]

    def row(self, index: int) -> tuple[float, ...]:
        """What was counted by a sample, class after class."""
        if self.complete and len(self.columns.of) == self.columns.width:
            return self.columns.all(self.rows[index])
        row = self.rows[index]
        return tuple(sum(self._at(row, columns)) for columns in self.columns.of.values())

    def after(self, index: int) -> Track:
        """The track from its sample with that index on."""
        if index <= 0:
            return self
        restarts = tuple(moment for moment in self.restarts if moment > self.times[index])
        times = self.times[index:]
        return self._replace(times=times, rows=self.rows[index:], interval=interval_between(times), restarts=restarts)

    def has_counted(self, index: int) -> bool:
        """Whether it had counted anything by that sample."""
        return any(counted > 0 for counted in self.row(index))

    def _at(self, row: Sequence[float], columns: Iterable[int]) -> list[float]:
        if self.complete:
            return [row[column] for column in columns]
        there = len(row)
        # A value that differs from itself is NaN.
        return [row[it] if it < there and row[it] == row[it] else 0.0 for it in columns]


def interval_between(times: Sequence[float]) -> float | None:
    """Seconds between the newest of these moments: the median of five; None if there is only one."""
    newest = times[-_INTERVALS - 1 :]
    gaps = sorted(map(sub, newest[1:], newest))
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


def tracks_of_reads(counts: PodCounts, classify: Classify) -> dict[str, Track]:
    """The tracks of pods as they were read: the same as `tracks` of the answer's series.

    A pod whose counters only grew, and that is nearly every pod, is not copied: its reads are its track. The others are
    joined read by read.
    """
    return counts.memo.once(("tracks", classify), lambda: dict(_each_track(counts, classify)))


def _each_track(counts: PodCounts, classify: Classify) -> Iterable[tuple[str, Track]]:
    families, key = counts.families, ("track", counts.families, classify)
    for reads in counts.pods:
        track = reads.memo.once(key, lambda: _track_of_reads(reads, families, classify))  # noqa: B023 - called at once
        if track is not None:
            yield reads.pod, track


def _track_of_reads(reads: PodReads, families: tuple[str, ...], classify: Classify) -> Track | None:
    columns = reads.shape.memo.once(
        ("columns", families, classify), lambda: _columns(reads, families, classify)
    )  # fmt: skip
    times, rows = reads.times, reads.rows
    if any(reads.broken.get(family, -inf) > times[0] for family in families):
        return _joined_reads(reads, columns, ("joining", families, classify, times[0]))
    # From here on no series vanishes: what is in the first row is in all, and what is not in the last one is in none.
    if not _has_all(rows[-1], columns):
        columns = columns.within(_there(rows[-1], columns))
    if columns.width == 0:
        return None
    complete = _has_all(rows[0], columns)
    if not complete and not _there(rows[0], columns):
        born = bisect_left(rows, 1, key=lambda row: len(_there(row, columns)))
        times, rows = times[born:], rows[born:]
        return Track(reads.pod, times, rows, columns, interval_between(times), _has_all(rows[0], columns))
    return Track(reads.pod, times, rows, columns, reads.interval, complete)


def _joined_reads(reads: PodReads, columns: Columns, key: Hashable) -> Track | None:
    joining = reads.lasting.get(key)
    if joining is None or joining.columns is not columns or joining.done > len(reads.times):
        joining = reads.lasting[key] = _Joining(columns)
    for place in range(joining.done, len(reads.times)):
        joining.add(reads.times[place], reads.rows[place])
    if not joining.times:
        return None
    # Both lists only ever grow, and what was given away must not.
    there = columns.classes_within(frozenset(joining.there))
    times, rows = joining.times[:], joining.rows[:]
    return Track(reads.pod, times, rows, there, interval_between(times), restarts=tuple(joining.restarts))


class _Joining:
    """The counters of a pod that was started anew, or whose counters fell or vanished, joined read by read.

    The same as `_track`, which has all reads at once: what a read adds does not depend on later ones.
    """

    __slots__ = (
        "_finite", "_grown", "_held", "_highest", "_last", "_members", "_total", "columns", "done", "restarts", "rows",
        "there", "times",
    )  # fmt: skip

    def __init__(self, columns: Columns) -> None:
        self.columns, self.done = columns, 0
        self.times, self.rows = list[float](), list[tuple[float, ...]]()
        self.restarts, self.there = list[float](), set[str]()
        self._members = [(place, name, it) for place, name in enumerate(columns.classes) for it in columns.of[name]]
        self._last = self._held = self._finite = [0.0] * len(self._members)
        self._grown, self._highest, self._total = list[float](), list[float](), 0.0

    def add(self, moment: float, row: Sequence[float]) -> None:
        """Take the next read in."""
        self.done += 1
        seen = [
            (place, row[column])
            for place, (_, _, column) in enumerate(self._members)
            if column < len(row) and not isnan(row[column])
        ]
        if not seen:
            return
        last, held = list(self._last), list(self._held)
        before, after = sum([held[place] for place, _ in seen]), sum([value for _, value in seen])
        if after < before * RESTARTED_BELOW and before >= sum(held) * _WITNESSES:
            last, held = [0.0] * len(last), [0.0] * len(held)
        for place, value in seen:
            last[place] = held[place] = value
            self.there.add(self._members[place][1])
        finite = [new if _possible(new) else old for new, old in zip(last, self._finite, strict=True)]
        self._last, self._held, self._finite = last, held, finite
        counted = [0.0] * len(self.columns.of)
        for (place, _, _), value in zip(self._members, finite, strict=True):
            counted[place] += value
        self._grow(moment, counted)
        self.times.append(moment)
        self.rows.append(tuple(self._grown))

    def _grow(self, moment: float, counted: list[float]) -> None:
        total = sum(counted)
        if not self.times:
            self._grown, self._highest = counted, counted
        elif total < self._total * RESTARTED_BELOW:
            self.restarts.append(moment)
            self._grown, self._highest = list(map(add, self._grown, counted)), counted
        else:
            highest = list(map(max, self._highest, counted))
            self._grown = [
                grown + value - before
                for grown, value, before in zip(self._grown, highest, self._highest, strict=True)
            ]  # fmt: skip
            self._highest = highest
        self._total = total


def _columns(reads: PodReads, families: tuple[str, ...], classify: Classify) -> Columns:
    found: dict[str, list[int]] = {}
    for column in reads.columns(families):
        name = classify(reads.shape.series[column])
        if name is not None:
            found.setdefault(name, []).append(column)
    return Columns({name: tuple(columns) for name, columns in found.items()})


def _has_all(row: Sequence[float], columns: Columns) -> bool:
    return len(row) > columns.highest and not isnan(sum(columns.all(row)))


def _there(row: Sequence[float], columns: Columns) -> frozenset[int]:
    numbers = (column for each in columns.of.values() for column in each)
    return frozenset(column for column in numbers if column < len(row) and not isnan(row[column]))


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
        return Track.of(pod, times, raw)
    restarts = _restarts(times, raw)
    cuts = [index for index, moment in enumerate(times) if moment in restarts]
    return Track.of(pod, times, {name: _joined(values, cuts) for name, values in raw.items()}, restarts)


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


def levels_of_reads(counts: PodCounts) -> dict[str, Points]:
    """The samples of a gauge, by pod, as `levels` of the answer's series."""
    key = ("levels", counts.families)
    found = ((it.pod, it.memo.once(key, lambda: _levels_of(it, counts.families))) for it in counts.pods)  # noqa: B023
    return {pod: points for pod, points in found if points}


def _levels_of(reads: PodReads, families: tuple[str, ...]) -> Points:
    columns = reads.columns(families)
    if len(columns) == 1 and columns[0] < len(reads.rows[0]):
        values = list(map(itemgetter(columns[0]), reads.rows))
        if isfinite(sum(values)) and max(values) <= LARGEST and min(values) >= -LARGEST:
            return tuple(zip(reads.times, values, strict=True))
    return levels(reads.series(families)).get(reads.pod, ())


def newest(found: Iterable[Track]) -> float:
    """The newest moment of any of them; minus infinity without any."""
    return max([track.times[-1] for track in found], default=-inf)
