"""What a pod's counters were at each read: every read of the last minutes, then ever thinner, in bounded memory."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, isnan, log2, nan
from typing import Final

from pinn_operator.core.samples import FAMILY_LABEL, Series
from pinn_operator.pods.text import lines_of, number_of, parse

SERIES_LIMIT: Final = 1000
"""Series of one pod. A server that has more of the few asked families is not judged by them."""
RAW_SECONDS: Final = 16.0
"""Every read is kept so long, however close they are."""
FINE_SECONDS: Final = 180.0
"""Reads a second apart are kept so long."""
CLOCK_SECONDS: Final = 5.0
_FINE_WIDTH: Final = 1.0
_SHARE: Final = 64.0
"""Beyond, reads are kept at least this share of their age apart."""
_THIN_EVERY: Final = 64
"""Reads between two thinnings."""


class TooManySeries(Exception):
    """The pod has more series of the asked families than are kept."""


@dataclass(slots=True)
class _Column:
    """One series: its labels, and its value at each moment; NaN where the pod did not show it."""

    labels: Mapping[str, str]
    values: array[float]
    gaps: bool
    """Whether there is any NaN."""
    bad: bool


@dataclass(slots=True)
class History:
    """One pod's reads of a set of families. Moments are unix seconds and must ascend."""

    pod: str
    is_bad: Callable[[Mapping[str, str]], bool] = lambda _labels: False
    """Whether a series with these labels counts bad answers."""
    bad: float = 0.0
    """Bad answers by the newest read."""
    bad_grew: bool = False
    """Whether they are more than by the read before."""
    moments: list[float] = field(default_factory=list)
    _columns: dict[tuple[tuple[str, str], ...], _Column] = field(default_factory=dict)
    _known: dict[bytes, _Column] = field(default_factory=dict)
    """By the text of the series as the pod writes it."""
    _until_thinned: int = _THIN_EVERY

    def add(self, moment: float, page: bytes, families: Sequence[bytes]) -> None:
        """Take one read in. Raises TooManySeries, and keeps nothing of the page then.

        A page of a moment that is not after the last one is dropped; if the clock was set back by more than
        `CLOCK_SECONDS`, all that was read before is.
        """
        if self.moments and moment <= self.moments[-1]:
            if moment > self.moments[-1] - CLOCK_SECONDS:
                return
            self.moments.clear()
            self._columns.clear()
            self._known.clear()
        read: list[tuple[_Column, float]] = []
        known = self._known
        for line in lines_of(page, families):
            key, _, value = line.rpartition(b" ")
            column = known.get(key)
            if column is None:
                self._learn(line, read)
            elif (number := number_of(value)) is not None:
                read.append((column, number))
        self.moments.append(moment)
        length = len(self.moments)
        bad, before = 0.0, self.bad
        for column, number in read:
            if column.bad:
                bad += number
            values = column.values
            if len(values) < length:
                values.append(number)
            else:
                values[-1] = number
        for column in self._columns.values():
            if len(column.values) < length:
                column.values.append(nan)
                column.gaps = True
        self.bad, self.bad_grew = bad, length > 1 and bad > before
        self._until_thinned -= 1
        if self._until_thinned <= 0:
            self._until_thinned = _THIN_EVERY
            self._thin(moment)

    def series(self, families: Sequence[str], start: float | None = None) -> Iterator[Series]:
        """The series of these families, from the last read at or before `start`."""
        begin = 0 if start is None else max(0, bisect_right(self.moments, start) - 1)
        moments = self.moments[begin:]
        for column in self._columns.values():
            if column.labels[FAMILY_LABEL] not in families:
                continue
            values = column.values[begin:] if begin else column.values
            points = tuple(zip(moments, values, strict=True))
            if column.gaps:
                points = tuple(point for point in points if not isnan(point[1]))
            if points:
                yield Series(labels=column.labels, points=points)

    @property
    def size(self) -> int:
        """How many values are kept."""
        return len(self.moments) * len(self._columns)

    def _learn(self, line: bytes, read: list[tuple[_Column, float]]) -> None:
        sample = parse(line)
        if sample is None:
            return
        # As in Prometheus: what a pod says of itself does not decide whose it is.
        labels = {**sample.labels, FAMILY_LABEL: sample.name, "pod": self.pod}
        identity = tuple(sorted(labels.items()))
        column = self._columns.get(identity)
        if column is None:
            if len(self._columns) >= SERIES_LIMIT:
                raise TooManySeries
            blank = array("d", [nan]) * len(self.moments)
            column = self._columns[identity] = _Column(labels, blank, bool(blank), self.is_bad(labels))
        if len(self._known) < 4 * SERIES_LIMIT:
            self._known[sample.key] = column
        read.append((column, sample.value))

    def coarsen(self) -> None:
        """Keep every second read of those that are not of the last `RAW_SECONDS`: memory is short."""
        if self.moments:
            recent = bisect_right(self.moments, self.moments[-1] - RAW_SECONDS)
            self._keep([*range(0, recent, 2), *range(recent, len(self.moments))])

    def _thin(self, now: float) -> None:
        kept = kept_moments(self.moments, now)
        if len(kept) < len(self.moments):
            self._keep(kept)

    def _keep(self, kept: Sequence[int]) -> None:
        self.moments = [self.moments[place] for place in kept]
        for identity, column in list(self._columns.items()):
            values = column.values
            column.values = array("d", [values[place] for place in kept])
            if column.gaps:
                column.gaps = any(map(isnan, column.values))
                if all(map(isnan, column.values)):
                    del self._columns[identity]
                    self._known = {key: other for key, other in self._known.items() if other is not column}


def kept_moments(moments: Sequence[float], now: float) -> list[int]:
    """Places of those that are kept: all of the last `RAW_SECONDS`, then the first of each cell of a fixed grid.

    The cells are a second wide up to `FINE_SECONDS`, then a 64th of the age, rounded up to a power of two. They nest,
    so it does not matter how often this is done, and a day of reads a quarter of a second apart leaves about 600.
    """
    kept: list[int] = []
    last: tuple[float, int] | None = None
    for place, moment in enumerate(moments):
        age = now - moment
        if age <= RAW_SECONDS:
            kept.append(place)
            continue
        width = _FINE_WIDTH if age <= FINE_SECONDS else 2.0 ** ceil(log2(age / _SHARE))
        cell = (width, floor(moment / width))
        if cell != last:
            kept.append(place)
            last = cell
    return kept
