"""What a pod's counters were at each read: every read of the last minutes, then ever thinner, in bounded memory."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, floor, inf, isfinite, isnan, log2, nan, nextafter
from operator import le
from typing import Any, Final
from zlib import crc32

from pinn_operator.core.gates.tracks import interval_between
from pinn_operator.core.samples import FAMILY_LABEL, LARGEST, Memo, PodReads, Series, Shape
from pinn_operator.pods.text import lines_of, name_of, number_of, parse

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
_ANSWERS_LIMIT: Final = 16
_LAYOUTS_LIMIT: Final = 8
_SMALL: Final = 16384
_THIN_EVERY: Final = 64
"""Reads between two thinnings."""


Identity = tuple[tuple[str, str], ...]
"""The labels of a series, sorted, without the pod's name."""


class TooManySeries(Exception):
    """The pod has more series of the asked families than are kept."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a page looked whose lines were all understood. The next one usually differs in nothing but its values.

    The last line is empty. `heads` are the beginnings of all lines, as far as they do not change. `places` are, of the
    lines that are read, the numbers and the lengths of their heads, and `columns` is where their values belong.
    """

    heads: tuple[bytes, ...]
    places: tuple[tuple[int, int], ...]
    columns: tuple[int, ...]

    def values(self, lines: Sequence[bytes]) -> list[float] | None:
        """Those of another page; None if it looks otherwise."""
        if lines[-1] or not all(map(bytes.startswith, lines, self.heads)):
            return None
        try:
            values = [float(lines[place][length:]) for place, length in self.places]
        except ValueError:
            return None
        return values if isfinite(sum(values)) else None


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
    _rows: list[array[float]] = field(default_factory=list)
    """What was read at each moment, by the number of the series; NaN, or a row that ends before, where it was not
    there."""
    _numbers: dict[Identity, int] = field(default_factory=dict)
    """Of the series, in their order, by their labels."""
    _families: list[str] = field(default_factory=list)
    """Of the series, by their numbers."""
    _known_families: set[str] = field(default_factory=set)
    _shape: Shape | None = None
    """Of the series that were known when it was last asked for."""
    _broken: Mapping[str, float] = field(default_factory=dict)
    """See `PodReads`. Never changed in place: earlier answers have it too."""
    _known: dict[bytes, int] = field(default_factory=dict)
    """The same by their text as the pod writes it."""
    _bad: list[int] = field(default_factory=list)
    _layouts: dict[int, _Layout] = field(default_factory=dict)
    """By the number of their lines: a pod is asked now for more families, now for fewer."""
    _longest: int = 0
    """Bytes of the longest page that has a layout."""
    _answers: dict[float | None, PodReads] = field(default_factory=dict)
    """Until the next read."""
    _lasting: dict[Hashable, Any] = field(default_factory=dict)
    """See `PodReads`. A new one for other rows: earlier answers keep theirs."""
    _until_thinned: int = _THIN_EVERY

    def __post_init__(self) -> None:
        # Pods that are read together are not thinned together: what follows from their rows is then made anew.
        self._until_thinned = 1 + crc32(self.pod.encode()) % _THIN_EVERY

    def add(self, moment: float, page: bytes, families: Sequence[bytes]) -> None:
        """Take one read in. Raises TooManySeries, and keeps nothing of the page then.

        A page of a moment that is not after the last one is dropped; if the clock was set back by more than
        `CLOCK_SECONDS`, all that was read before is.
        """
        if self.moments and moment <= self.moments[-1]:
            if moment > self.moments[-1] - CLOCK_SECONDS:
                return
            self.moments, self._rows, self._broken, self._lasting = [], [], {}, {}
        # A page of many other lines is not even split: it is searched for the families.
        lines = page.split(b"\n") if len(page) <= 2 * self._longest + _SMALL else None
        row = self._quickly(lines) if lines else None
        if row is None:
            row = self._carefully(page, families, lines)
        self._look_for_breaks(row, moment)
        self._rows.append(row)
        self.moments.append(moment)
        self._answers.clear()
        bad = sum(row[number] for number in self._bad if number < len(row) and not isnan(row[number]))
        self.bad, self.bad_grew = bad, len(self.moments) > 1 and bad > self.bad
        self._until_thinned -= 1
        if self._until_thinned <= 0:
            self._until_thinned = _THIN_EVERY
            self._keep(kept_moments(self.moments, moment))

    def reads(self, start: float | None = None) -> PodReads | None:
        """Everything that is kept, from the last read at or before `start`. The same object until the next read."""
        found = self._answers.get(start)
        if found is None and self.moments:
            if len(self._answers) >= _ANSWERS_LIMIT:
                self._answers.clear()
            begin = 0 if start is None else max(0, bisect_right(self.moments, start) - 1)
            times = self.moments[begin:]
            found = self._answers[start] = PodReads(
                self.pod, self._present_shape(), times, self._rows[begin:], self._broken, interval_between(times),
                Memo(), self._lasting,
            )  # fmt: skip
        return found

    def series(self, families: Sequence[str], start: float | None = None) -> tuple[Series, ...]:
        """The series of these families, from the last read at or before `start`."""
        found = self.reads(start)
        return found.series(tuple(families)) if found is not None else ()

    def has(self, families: Iterable[str]) -> bool:
        """Whether it was ever read of any of these families."""
        return not self._known_families.isdisjoint(families)

    @property
    def size(self) -> int:
        """How many values are kept."""
        return len(self.moments) * len(self._numbers)

    def coarsen(self) -> None:
        """Keep every second read of those that are not of the last `RAW_SECONDS`: memory is short."""
        if self.moments:
            recent = bisect_right(self.moments, self.moments[-1] - RAW_SECONDS)
            self._keep([*range(0, recent, 2), *range(recent, len(self.moments))])

    # --- reading ------------------------------------------------------------------------------------------------------

    def _quickly(self, lines: Sequence[bytes]) -> array[float] | None:
        layout = self._layouts.get(len(lines))
        values = layout.values(lines) if layout is not None else None
        if layout is None or values is None:
            return None
        if layout.columns == _IN_ORDER[: len(self._numbers)]:
            return array("d", values)
        row = array("d", [nan]) * len(self._numbers)
        for number, value in zip(layout.columns, values, strict=True):
            row[number] = value
        return row

    def _carefully(self, page: bytes, families: Sequence[bytes], lines: Sequence[bytes] | None) -> array[float]:
        known = self._known
        read: dict[int, float] = {}
        lengths: dict[bytes, int] = {}
        for line in lines_of(page, families):
            key, _, text = line.rpartition(b" ")
            number, value = known.get(key), None
            if number is not None:
                value = number_of(text)
            else:
                learnt = self._learn(line)
                if learnt is not None:
                    number, value, key = learnt
            if number is not None and value is not None:
                read[number] = value
                lengths[line] = len(key)
        row = array("d", [nan]) * len(self._numbers)
        for number, value in read.items():
            row[number] = value
        layout = self._layout_of(lines, families, lengths, read) if lines else None
        if layout is not None:
            if len(self._layouts) >= _LAYOUTS_LIMIT:
                self._layouts.clear()
            self._layouts[len(layout.heads)] = layout
            self._longest = max(self._longest, len(page))
        return row

    def _layout_of(
        self, lines: Sequence[bytes], families: Sequence[bytes], lengths: Mapping[bytes, int],
        read: Mapping[int, float],
    ) -> _Layout | None:  # fmt: skip
        """None for a page that is large beside what is read of it, or has anything out of the ordinary."""
        if len(lines) > 4 * len(lengths) + 64 or len(lengths) != len(read) or lines[-1]:
            return None
        heads, places = [], []
        for place, line in enumerate(lines[:-1]):
            length = lengths.get(line)
            if length is not None:
                places.append((place, length))
                heads.append(line[:length])
                continue
            name = name_of(line)
            if not name or name in families:
                return None  # it was passed over
            heads.append(line[: len(name) + 1])
        heads.append(b"")
        columns = tuple(self._known[lines[place][:length]] for place, length in places)
        return _Layout(tuple(heads), tuple(places), columns) if len(places) == len(read) else None

    def _learn(self, line: bytes) -> tuple[int, float, bytes] | None:
        """The number of a series that is met for the first time in this form, its value and its text."""
        sample = parse(line)
        if sample is None:
            return None
        labels = {**sample.labels, FAMILY_LABEL: sample.name}
        # As in Prometheus: what a pod says of itself does not decide whose it is.
        labels.pop("pod", None)
        identity = tuple(sorted(labels.items()))
        number = self._numbers.get(identity)
        if number is None:
            if len(self._numbers) >= SERIES_LIMIT:
                self._forget()  # or a pod that makes up series would never be read again
                raise TooManySeries
            number = self._numbers[identity] = len(self._numbers)
            self._families.append(sample.name)
            self._known_families.add(sample.name)
            if self.is_bad(labels):
                self._bad.append(number)
        if len(self._known) >= 4 * SERIES_LIMIT:
            self._known.clear()
        self._known[sample.key] = number
        return number, sample.value, sample.key

    # --- answering and thinning ---------------------------------------------------------------------------------------

    def _look_for_breaks(self, row: array[float], moment: float) -> None:
        """Note the families that do not simply go on in this row from the one before."""
        before = self._rows[-1] if self._rows else ()
        if len(before) == len(row) and all(map(le, before, row)) and max(row, default=0.0) <= LARGEST:
            return  # as nearly always: nothing fell, nothing came or went
        broken = dict[str, float]()
        for place, (value, family) in enumerate(zip(row, self._families, strict=True)):
            last = before[place] if place < len(before) else nan
            if isnan(value):
                goes_on = isnan(last)
            elif not -LARGEST <= value <= LARGEST:
                # Not even this read is a beginning.
                broken[family] = nextafter(moment, inf)
                continue
            else:
                goes_on = isnan(last) or -LARGEST <= last <= value
            if not goes_on:
                broken.setdefault(family, moment)
        if broken:
            self._broken = {**self._broken, **broken}

    def _present_shape(self) -> Shape:
        if self._shape is None or len(self._shape.series) != len(self._numbers):
            self._shape = shape_of(tuple(self._numbers))
        return self._shape

    def _keep(self, kept: Sequence[int]) -> None:
        if len(kept) < len(self.moments):
            self.moments = [self.moments[place] for place in kept]
            self._rows = [self._rows[place] for place in kept]
            self._answers.clear()
            self._lasting = {}

    def _forget(self) -> None:
        self.moments, self._rows, self._bad = [], [], []
        self._broken, self._answers, self._lasting = {}, {}, {}
        self._numbers, self._families, self._known_families, self._shape = {}, [], set(), None
        self._known, self._layouts, self._longest = {}, {}, 0


@lru_cache(maxsize=256)
def shape_of(identities: tuple[Identity, ...]) -> Shape:
    """The shape of these series: pods of one server have one, so what follows from it is found out once for all."""
    return Shape(tuple(dict(identity) for identity in identities))


_IN_ORDER: Final = tuple(range(SERIES_LIMIT))


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
