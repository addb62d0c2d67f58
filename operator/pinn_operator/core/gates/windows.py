"""Windows in time that are fair to both revisions, whatever moments their pods were read at.

Each pod is read at moments of its own, so "the last minute" is another minute for each of them. A fault that hits all
pods alike would then be seen in the canary's counters first as often as not. So the canary is judged only up to the
moment that every stable pod was read past, and the bad answers of a stable pod are counted over the smallest interval
between two of its samples that covers the canary's: a burst that is in the canary's count is in stable's too.
Stable's total is taken in proportion to the length of the canary's interval, so its share is never understated.

Proof that a burst that hits all pods alike cannot make the canary's share the larger: let pod c of the canary answer
r_c requests a second in an interval of length l_c, of which the burst covers o_c. Its covering stable interval contains
each of them, so its overlap o is at least every o_c, and stable's total is scaled to the length L that makes
Σ r_c o_c / Σ r_c l_c ≤ o · Σ r_c / Σ r_c l_c = o / L.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.tracks import Track, newest
from pinn_operator.core.samples import Memo

SHORTEST_SECONDS = 1.5
INTERVALS = 4
"""A window has at least so many sample intervals; a sample older than so many is stale."""
LATENESS_SECONDS = 3.0
"""A sample is never called stale before this: a read may take its time."""
THINNED = 1 / 30
"""Old samples are kept so much of their age apart, at most (`pods.history.kept_moments`)."""


class Part(NamedTuple):
    """A stretch of a pod's track: from the sample with index `begin` to that with index `end`."""

    track: Track
    begin: int
    end: int

    @property
    def seconds(self) -> float:
        return self.track.times[self.end] - self.track.times[self.begin]

    def count(self, classes: Iterable[str]) -> float:  # type: ignore[override]
        """Growth of all these classes."""
        return self.track.count(classes, self.begin, self.end)


@dataclass(frozen=True, slots=True)
class Span:
    """One window: the canary's stretches, and the stretches of stable pods that cover them."""

    seconds: float
    canary: tuple[Part, ...]
    stable: tuple[Part, ...]
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)

    @property
    def begin(self) -> float:
        """Of the earliest of these stretches, in unix seconds."""
        return min([track.times[begin] for track, begin, _ in (*self.canary, *self.stable)])

    def canary_counts(self, total: Sequence[str], bad: Sequence[str]) -> Counts:
        """Requests of the canary: of the classes `total`, and those of the classes `bad`."""
        return _counts(self._canary_total(total), self._canary_total(bad))

    def stable_counts(self, total: Sequence[str], bad: Sequence[str]) -> Counts:
        """Bad answers over the covering intervals, the total in proportion to the canary's."""
        return self.memo.once(("stable", total, bad), lambda: self._stable_counts(total, bad))

    def _canary_total(self, classes: Sequence[str]) -> float:
        return self.memo.once(
            ("canary", classes), lambda: sum([track.count(classes, begin, end) for track, begin, end in self.canary])
        )

    def _stable_counts(self, total: Sequence[str], bad: Sequence[str]) -> Counts:
        length, all_of, failed = self._length(total), 0.0, 0.0
        for track, begin, end in self.stable:
            all_of += track.count(total, begin, end) * _scale(length, track.times[end] - track.times[begin])
            failed += track.count(bad, begin, end)
        return _counts(all_of, failed)

    def _length(self, total: Sequence[str]) -> float:
        """The canary's mean length, each pod weighted with its rate."""
        requests = [(part.count(total), part.seconds) for part in self.canary if part.seconds > 0]
        rates = sum([count / seconds for count, seconds in requests])
        if rates <= 0:
            return max((seconds for _, seconds in requests), default=0.0)
        return sum([count for count, _ in requests]) / rates


def _scale(length: float, seconds: float) -> float:
    return min(1.0, length / seconds) if seconds > 0 else 0.0


def _counts(total: float, bad: float) -> Counts:
    return Counts(total, min(bad, total))


@dataclass(frozen=True, slots=True)
class Windows:
    """`recent` ones from short to long, and `whole`, all of the time at this weight. None where nothing can be said."""

    whole: Span | None
    end: float
    """Up to here every stable pod was read; minus infinity without any."""
    interval: float | None
    """Measured seconds between two samples of a pod."""
    seconds: tuple[float, ...] = ()
    """Lengths of the recent ones."""
    make: Callable[[float], Span | None] = lambda _seconds: None
    """The recent one of a length. Few looks need all of them, so each is made when it is asked for."""
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)

    def each(self) -> Iterator[Span]:
        """The recent ones from short to long, each made once."""
        for seconds in self.seconds:
            span = self.memo.once(seconds, lambda: self.make(seconds))  # noqa: B023 - called at once
            if span is not None:
                yield span

    @property
    def recent(self) -> tuple[Span, ...]:
        return tuple(self.each())


def windows(canary: Sequence[Track], stable: Sequence[Track], start: float, *, asked: bool = False) -> Windows:
    """The windows in which a canary is compared with a stable revision that has traffic too.

    Args:
        canary: tracks of its pods.
        stable: tracks of the stable pods. Those that are stale beside the others, or were first read later, say
            nothing: the others stand for them.
        start: unix seconds, since when the canary has its present weight.
        asked: the operator has sent its pods requests of its own before that.
    """
    interval = interval_of([*canary, *stable])
    fresh = fresh_tracks(stable)
    end = min([track.times[-1] for track in fresh], default=-inf)
    first = _first_of_most(fresh)
    begin = max(start, first)
    if end <= begin or not canary:
        return Windows(None, end, interval)
    if not asked:
        return _windows(canary, fresh, begin, end, interval, first)
    # A sample of stable from before the operator's own requests would make these requests of this weight, too. A pod
    # that was not read again for long says nothing of the whole.
    latest = start + max(stale_after(interval), THINNED * (end - start))
    cover = [it for it in fresh if it.times[0] >= start or it.times[it.at_or_after(start)] <= latest] or fresh
    firsts = (it.times[it.at_or_after(start)] for it in cover if it.times[0] < start)
    strict = cover, max([begin, *firsts])
    return _windows(canary, fresh, begin, end, interval, first, strict=strict, since=start)


def alone(canary: Sequence[Track], start: float, *, first: float = -inf, asked: bool = False) -> Windows:
    """The windows of a canary that is not compared with anybody at the same moment: up to its own newest samples.

    Samples from before `first` are not looked at; `asked` is that of `windows`.
    """
    interval = interval_of(canary)
    end = newest(canary)
    if end <= start:
        return Windows(None, end, interval)
    if not asked:
        return _windows(canary, (), start, end, interval, first)
    return _windows(canary, (), start, end, interval, first, strict=((), start), since=start)


def _windows(
    canary: Sequence[Track], stable: Sequence[Track], begin: float, end: float, interval: float | None, first: float,
    *, strict: tuple[Sequence[Track], float] | None = None, since: float = -inf,
) -> Windows:  # fmt: skip
    """`strict`: of which stable pods, and since when, the whole holds nothing that the operator had asked before; no
    recent one holds anything from before `since`."""
    upto = [(track, last) for track in canary if (last := track.at_or_before(end)) >= 0]
    everything = None
    if strict is not None:
        everything = _span(upto, *strict, end, first=first, fresh_start=True, asked=True)
    # Until both were read twice since, what they had counted before is better than nothing: a bad canary must go.
    everything = everything or _span(upto, stable, begin, end, first=first, fresh_start=True)

    def recent(seconds: float) -> Span | None:
        span = _span(upto, stable, end - seconds, end, first=first)
        return span if span is None or span.begin >= since else None

    return Windows(everything, end, interval, tuple(lengths(end - begin, interval)), recent)


def lengths(whole: float, interval: float | None) -> list[float]:
    """Doubling from the shortest useful one to less than the whole."""
    least = max(SHORTEST_SECONDS, INTERVALS * interval) if interval is not None else inf
    seconds, found = SHORTEST_SECONDS, []
    while seconds < whole:
        if seconds >= least:
            found.append(seconds)
        seconds *= 2
    return found


def interval_of(tracks: Iterable[Track]) -> float | None:
    """The median interval of the pods; None as long as none has two samples."""
    found = sorted([track.interval for track in tracks if track.interval is not None])
    return found[len(found) // 2] if found else None


def stale_after(interval: float | None) -> float:
    """Seconds after which a sample is too old to speak of the present."""
    return max(LATENESS_SECONDS, INTERVALS * interval) if interval is not None else LATENESS_SECONDS


def fresh_tracks(tracks: Sequence[Track]) -> list[Track]:
    """Those that are read as the others are. One that is not read any more must not hold back all judgement."""
    latest = newest(tracks)
    return [
        track
        for track in tracks
        if latest - track.times[-1] <= LATENESS_SECONDS or latest - track.times[-1] <= stale_after(track.interval)
    ]


def _first_of_most(tracks: Sequence[Track]) -> float:
    """Since when most pods were read: those that came later are not waited for."""
    firsts = sorted([track.times[0] for track in tracks])
    return firsts[len(firsts) // 2] if firsts else -inf


def _span(
    canary: Sequence[tuple[Track, int]], stable: Sequence[Track], begin: float, end: float, *, first: float,
    fresh_start: bool = False, asked: bool = False,
) -> Span | None:  # fmt: skip
    """`canary` has tracks with the index of their newest sample at or before `end`."""
    parts, low, high = list[Part](), inf, -inf
    for track, last in canary:
        times = track.times
        start = track.at_or_before(begin)
        # At the start of a weight a sample from before it may hold requests of the weight before, and one from before
        # the operator's own requests would make these requests of this weight.
        older = fresh_start and start >= 0 and times[start] < begin and (asked or track.has_counted(start))
        if start < 0 or times[start] < first or older:
            start = track.at_or_after(max(begin, first))
        if 0 <= start < last:
            parts.append(Part(track, start, last))
            low, high = min(low, times[start]), max(high, times[last])
    if not parts:
        return None
    cover = []
    for track in stable:
        start, last = track.at_or_before(low), track.at_or_after(high)
        if start >= 0 and last < len(track.times):
            cover.append(Part(track, start, last))
    return Span(end - begin, tuple(parts), tuple(cover))
