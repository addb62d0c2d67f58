"""Where counters come from: each family of samples is asked of Prometheus and of the pods, and both give the same.

Prometheus is asked on grids that lie ever wider apart: the last seconds, the last two minutes, and, only when the whole
time at a weight is judged, ever longer times. On each grid it also says when each sample was scraped (`timestamp()`),
so a grid gives true samples with their moments, and an answer stays small however long a weight is held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil, inf
from typing import Final

from pinn_operator.core.gates.metric import Evidence, Scope, Side
from pinn_operator.core.gates.tracks import (
    TARGET_LABELS,
    Classify,
    Points,
    Track,
    Tracks,
    levels,
    levels_of_reads,
    tracks,
    tracks_of_reads,
)
from pinn_operator.core.gates.windows import LATENESS_SECONDS, Windows, alone, interval_of, stale_after, windows
from pinn_operator.core.samples import (  # fmt: skip
    POD_KEY,
    Memo,
    PodCounts,
    PodQuestion,
    Query,
    Question,
    Samples,
    Series,
    SourceError,
    as_series,
    series_of,
)
from pinn_operator.core.wanted.spec import MetricNames, SourceKind

PROMETHEUS_KEY: Final = "prom/"
TIMES: Final = "times"
BEFORE_SECONDS: Final = 900.0
"""So much of stable's time before a weight tells what it does when nothing is tried."""
BEFORE_ASKED_SECONDS: Final = 60.0
"""So long at a weight it is asked for, and whoever knows more of it is believed."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Moments at which Prometheus is asked: the last `seconds`, `step` apart; sparsely, every `every`-th of them."""

    name: str
    seconds: float
    step: float
    every: int = 2

    def query(self, key: str, expression: str, start: datetime, end: datetime, *, sparse: bool) -> Query:
        """The grid ends now, so that the newest scrape is in it, and begins at `start` or just before."""
        step = self.step * self.every if sparse else self.step
        span = min(self.seconds, (end - start).total_seconds())
        count = max(1, ceil(span / step - 1e-9))
        return Query(key, expression, end, start=end - timedelta(seconds=count * step), step=step)


NEWEST: Final = Grid("newest", 8.0, 1.0)
RECENT: Final = Grid("recent", 128.0, 4.0)
BEFORE: Final = Grid("before", BEFORE_SECONDS, 30.0)
"""Of the time before a weight; ends before it, so that no moment of it is that of a later sample."""
LONG: Final = tuple(Grid(f"{32 * step:g}s", 32.0 * step, step) for step in (32.0, 256.0, 2048.0, 16384.0))


def grids(seconds: float, *, whole: bool, sparse: bool) -> tuple[Grid, ...]:
    """The grids for so much time; the long ones only where the whole is asked for."""
    chosen = [RECENT] if sparse else [NEWEST, RECENT]
    if whole:
        for grid, shorter in zip(LONG, (RECENT, *LONG), strict=False):
            if seconds > shorter.seconds:
                chosen.append(grid)
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a family that is a query of its own: its label matchers, and labels that its series are given."""

    name: str = ""
    matchers: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    sample: str = ""
    """Its own sample; by default that of the family."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A new pod of the canary is not judged by its first requests: its caches are empty, its code is not warm.

    They end with the first sample after so many `requests` (counted in the classes `count`), or after so many `seconds`
    since its first one, whichever comes first. A pod that had counted before it was first read is warm.
    """

    requests: float
    seconds: float
    count: tuple[str, ...]
    by_clients: bool = False
    """It begins with the first weight: what the operator asks before that warms no cache for what clients ask."""


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name.

    `labels` are those of the metric itself that are kept apart; `classify` says to which class a series belongs, by its
    labels. `slices` narrow what Prometheus is asked (the pods' own answers are narrowed by `classify`).
    """

    sample: str
    labels: tuple[str, ...] = ()
    classify: Classify = lambda _labels: "all"
    slices: tuple[Slice, ...] = (Slice(),)
    sparse: bool = False
    gauge: bool = False
    warm_up: WarmUp | None = None
    of_router: bool = False
    """Counters of the router, by revision: their tracks are called canary@… and stable@…."""


def pod_key(family: Family) -> str:
    """Key of the question to the pods."""
    return POD_KEY + family.sample


def prometheus_key(family: Family, part: Slice, grid: Grid) -> str:
    """Key of the question to Prometheus."""
    return f"{PROMETHEUS_KEY}{family.sample}{'/' if part.name else ''}{part.name}/{grid.name}"


def selector(scope: Scope, *sides: Side, names: MetricNames | None = None) -> str:
    """The label matchers of the pods of these revisions: exactly the two parts that a Deployment's pods append, because
    "eu-42e41f50" may also be the name of another PINNService."""
    called = names or scope.analysis.names
    revisions = "|".join(side.revision for side in sides)
    return f'{called.namespace_label}="{scope.namespace}",{called.pod_label}=~"{scope.name}-({revisions})-[^-]+-[^-]+"'


def expression(family: Family, scope: Scope, part: Slice | None = None) -> str:
    """The PromQL of a part of a family (the first by default), summed within each target."""
    series = _series(family, part or family.slices[0], scope)
    return f"{'max' if family.gauge else 'sum'} by ({_by(scope, family.labels)}) ({series})"


def _by(scope: Scope, labels: Iterable[str] = ()) -> str:
    return ", ".join((scope.analysis.names.pod_label, *labels, *TARGET_LABELS))


def _series(family: Family, part: Slice, scope: Scope) -> str:
    matchers = [part.matchers] if part.matchers else []
    if not family.of_router:
        matchers.insert(0, selector(scope, scope.stable, scope.canary))
    return f"{part.sample or family.sample}{{{','.join(matchers)}}}"


def _samples(family: Family) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.sample or family.sample for part in family.slices))


def questions(families: Iterable[Family], scope: Scope) -> list[Question]:
    """What is asked for these families, of each source that the spec names."""
    wanted, asked = list(families), list[Question]()
    if SourceKind.PODS in scope.analysis.sources:
        pods = (*scope.canary.pods, *scope.stable.pods)
        before = scope.start - timedelta(seconds=BEFORE_SECONDS)
        compared = (scope.analysis.names.requests, f"{scope.analysis.names.latency}_bucket")
        asked.extend(
            PodQuestion(
                pod_key(family),
                _samples(family),
                pods,
                before if family.sample in compared or not scope.concurrent else scope.start,
            )
            for family in wanted
            if pods and not family.of_router
        )
    if SourceKind.PROMETHEUS in scope.analysis.sources and scope.prometheus_due:
        asked.extend(_of_prometheus(wanted, scope))
    return asked


def _of_prometheus(families: Iterable[Family], scope: Scope) -> Iterable[Query]:
    times = f"max by ({_by(scope)}) (timestamp({_series(requests_family(scope), Slice(), scope)}))"
    for grid in grids(scope.seconds, whole=scope.advance_due, sparse=False):
        yield grid.query(f"{PROMETHEUS_KEY}{TIMES}/{grid.name}", times, scope.start, scope.now, sparse=False)
    for family in families:
        for part in family.slices:
            asked = expression(family, scope, part)
            for grid in grids(scope.seconds, whole=scope.advance_due, sparse=family.sparse):
                key = prometheus_key(family, part, grid)
                sparse = family.sparse and not (grid is RECENT and _nobody_else(scope))
                yield grid.query(key, asked, scope.start, scope.now, sparse=sparse)
            if family.sample == scope.analysis.names.requests and _asks_before(scope):
                end = scope.start - timedelta(seconds=BEFORE.step)
                start = scope.start - timedelta(seconds=BEFORE.seconds)
                yield BEFORE.query(prometheus_key(family, part, BEFORE), asked, start, end, sparse=False)


def _nobody_else(scope: Scope) -> bool:
    """Only Prometheus tells what happens within seconds: a coarse grid would lose a quarter of a minute at each end."""
    return SourceKind.PODS not in scope.analysis.sources


def _asks_before(scope: Scope) -> bool:
    """What stable did before is the reference of a canary at this weight, and tells without a router whose failures a
    client took along. It is asked for a while, as its answer may be late, and then remembered."""
    remembered = any(gate.reference_total > 0 for gate in scope.earlier.values())
    return scope.advance_due and (not remembered or scope.seconds <= BEFORE_ASKED_SECONDS)


# --- requests: every gate needs them ----------------------------------------------------------------------------------

PROBES: Final = (
    "/health.*", "/metrics", "/cache/.*", "/docs", "/openapi.json", "/v2/health/.*", "/v2/models/.*/ready",
)  # fmt: skip
UNMATCHED: Final = "unmatched"
"""What the bundled server calls the handler of paths that it does not have."""
SIDES: Final = ("canary", "stable")
UNREADABLE: Final = "?"
"""The class of requests whose status cannot be told."""
_STATUS: Final = re.compile(r"[1-5](\d\d|xx)")


def handler_classes(probe_paths: Iterable[str]) -> tuple[str, ...]:
    """Regular expressions of the handlers that no client asks: those of the bundled server, and the spec's own."""
    return (*PROBES, *map(re.escape, probe_paths))


def requests_family(scope: Scope) -> Family:
    """Answered requests by the first digit of their status, without probes; of paths that do not exist apart (`u4`)."""
    return _requests_family(scope.analysis.names, scope.probe_paths)


@lru_cache(maxsize=64)
def _requests_family(names: MetricNames, probe_paths: tuple[str, ...]) -> Family:
    probes = "|".join(handler_classes(probe_paths))
    quoted = f"{probes}|{UNMATCHED}".replace("\\", "\\\\")
    return Family(
        names.requests, (names.status_label,), _by_status(names, re.compile(probes)),
        (
            Slice("", f'{names.handler_label}!~"{quoted}"'),
            Slice(UNMATCHED, f'{names.handler_label}="{UNMATCHED}"', {names.handler_label: UNMATCHED}),
        ),
    )  # fmt: skip


def _by_status(names: MetricNames, left_out: re.Pattern[str]) -> Classify:
    known: dict[tuple[str, str], str | None] = {}

    def classify(labels: Mapping[str, str]) -> str | None:
        found = labels.get(names.handler_label, ""), labels.get(names.status_label, "")
        if found not in known:
            digit = found[1][0] if _STATUS.fullmatch(found[1].lower()) else UNREADABLE
            prefix = UNMATCHED[0] if found[0] == UNMATCHED else ""
            known[found] = None if left_out.fullmatch(found[0]) else prefix + digit
        return known[found]

    return classify


# --- answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source knows of a family: tracks of the pods that are listed, and the windows they allow."""

    source: SourceKind
    canary: tuple[Track, ...]
    stable: tuple[Track, ...]
    windows: Windows
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)
    earlier: tuple[Track, ...] = ()
    """Stable's, of the source that knows most of the time before this weight; empty: this one."""

    @property
    def begin(self) -> float:
        """Since when the canary is known to this source."""
        return min((track.times[0] for track in self.canary), default=float("inf"))


@dataclass(frozen=True, slots=True)
class Found:
    """A family in the answers of a pass. `fast` is judged for sudden faults, `whole` for the whole time at a weight."""

    fast: Reading | None = None
    whole: Reading | None = None
    error: SourceError | None = None
    """A source that is configured did not answer: nothing may pass."""
    answered: bool = False
    """A source did answer, if only that it has no such series."""

    @property
    def absent(self) -> bool:
        """It was asked for, and neither revision has it."""
        both = (self.fast, self.whole)
        return self.answered and self.error is None and not any(it and (it.canary or it.stable) for it in both)


@dataclass(frozen=True, slots=True)
class Readings:
    """A family that is there to be judged, see `Found`."""

    fast: Reading
    whole: Reading


UNREAD_SECONDS: Final = 60.0
"""So long after a weight was written, what has no sample has no requests, whether a source was read or not."""


Moments = Mapping[tuple[str, ...], Mapping[float, float]]
"""Of each target: time on the grid → time of the scrape that Prometheus had there."""


class Answers:
    """The answers of one pass, each family read once."""

    def __init__(self, samples: Samples, scope: Scope) -> None:
        self.samples = samples
        self._scope = scope
        self._found: dict[str, Found] = {}
        self._scraped = any(key.startswith(PROMETHEUS_KEY) for key in samples)
        self._keys = _Milliseconds()
        self._moments: dict[str, Moments | SourceError] = {}

    def find(self, family: Family) -> Found:
        """What the sources say of a family."""
        if family.sample not in self._found:
            self._found[family.sample] = self._find(family)
        return self._found[family.sample]

    def unread(self) -> bool:
        """No pod of the canary is known to have been read since the present weight was written."""
        scope = self._scope
        found = self.find(requests_family(scope))
        tracks = [track for reading in (found.fast, found.whole) if reading is not None for track in reading.canary]
        counts = [it for it in self.samples.values() if isinstance(it, PodCounts)]
        # A pod that has answered nothing yet may have no such series.
        read = [(reads.pod, reads.times) for it in counts for reads in it.pods]
        here = frozenset(of_revision([pod for pod, _ in read], scope.canary, scope))
        newest = [times[-1] for pod, times in read if pod in here] + [track.times[-1] for track in tracks]
        return scope.seconds < UNREAD_SECONDS and max(newest, default=-inf) <= scope.since

    def readings(self, family: Family, *, absent: str = "") -> Readings | Evidence | SourceError:
        """What there is to judge; or what there is to say instead: nothing yet, that a source does not answer, or that
        neither revision has it (`absent`: what was looked for, by default its sample)."""
        found = self.find(family)
        if found.fast is None or found.whole is None:
            return found.error or Evidence()
        if found.absent:
            query = expression(family, self._scope, family.slices[0])
            return Evidence(absent=absent or family.sample, source=found.fast.source, query=query)
        return Readings(found.fast, found.whole)

    def _find(self, family: Family) -> Found:
        pods = series_of(self.samples, pod_key(family))
        prometheus = self._prometheus(family)
        readings = [
            self._reading(source, answer, family)
            for source, answer in ((SourceKind.PODS, pods), (SourceKind.PROMETHEUS, prometheus))
            if isinstance(answer, tuple | PodCounts)
        ]
        known = [reading for reading in readings if reading.canary] or readings
        # Pods that cannot be read hide nothing as long as Prometheus answers for them.
        answers = (prometheus,) if isinstance(prometheus, tuple) else (prometheus, pods)
        error = next((answer for answer in answers if isinstance(answer, SourceError)), None)
        if not known:
            return Found(error=error)
        earlier = min((it.stable for it in readings if it.stable), key=_first, default=())
        known = [replace(reading, earlier=earlier) for reading in known]
        fast, whole = known[0], known[0]
        if len(known) > 1 and not _covers_as_much(known[0], known[1], self._scope):
            whole = known[1]
        return Found(fast, whole, error, answered=True)

    def _reading(self, source: SourceKind, answer: tuple[Series, ...] | PodCounts, family: Family) -> Reading:
        scope = self._scope
        if isinstance(answer, PodCounts):
            # The same follows from the same reads at every look.
            sides = tuple((side.revision, side.pods) for side in (scope.canary, scope.stable))
            return answer.memo.once(
                (
                    "reading",
                    family.classify,
                    family.warm_up,
                    sides,
                    scope.since,
                    scope.step,
                    scope.judged_since,
                    scope.concurrent,
                ),
                lambda: _reading_of(source, tracks_of_reads(answer, family.classify), family, scope),
            )
        label = scope.analysis.names.pod_label if source is SourceKind.PROMETHEUS else "pod"
        if family.of_router:
            found = _of_router(answer, family.classify, label)
        else:
            found = tracks(answer, family.classify, pod_label=label, targets=source is SourceKind.PROMETHEUS)
        return _reading_of(source, found, family, scope)

    def levels(self, family: Family) -> tuple[SourceKind | None, dict[str, Points], SourceError | None]:
        """The samples of a gauge by pod; who answered, and what could not be read.

        The pods' own samples are newer, and begin anew with the operator: what Prometheus has of the time before and
        after them is added.
        """
        pods, prometheus = series_of(self.samples, pod_key(family)), self._prometheus(family)
        error = next((answer for answer in (prometheus, pods) if isinstance(answer, SourceError)), None)
        label = self._scope.analysis.names.pod_label
        if isinstance(pods, PodCounts):
            read, empty = levels_of_reads(pods), not pods.pods
        else:
            read, empty = levels(pods) if isinstance(pods, tuple) else {}, pods == ()
        scraped = levels(prometheus, pod_label=label) if isinstance(prometheus, tuple) else {}
        found = {pod: _spliced(read.get(pod, ()), scraped.get(pod, ())) for pod in read.keys() | scraped.keys()}
        if read or empty:
            return SourceKind.PODS, found, error
        return (SourceKind.PROMETHEUS if isinstance(prometheus, tuple) else None), found, error

    def _prometheus(self, family: Family) -> tuple[Series, ...] | SourceError | None:
        """All grids of a family as one series of true samples for each target."""
        return self._merged(family) if self._scraped else None

    def _merged(self, family: Family) -> tuple[Series, ...] | SourceError | None:
        """Points are (moment of the scrape, value)."""
        collected: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
        asked = False
        for grid in (NEWEST, RECENT, *LONG, BEFORE):
            for part in family.slices:
                values = series_of(self.samples, prometheus_key(family, part, grid))
                if values is None:
                    continue
                asked = True
                if isinstance(values, SourceError):
                    return values
                moments = self._moments_of(grid.name)
                if isinstance(moments, SourceError):
                    return moments
                for series in as_series(values):
                    scraped = moments.get(_target(series.labels, self._scope), {})
                    labels = tuple(sorted({**series.labels, **part.labels}.items()))
                    kept = collected.setdefault(labels, {})
                    kept.update((scraped.get(self._keys[at], at), value) for at, value in series.points)
        if not asked:
            return None
        return tuple(Series(dict(labels), tuple(sorted(points.items()))) for labels, points in collected.items())

    def _moments_of(self, grid: str) -> Moments | SourceError:
        """When each target was scraped, on a grid: all families of a pass have the same."""
        known = self._moments.get(grid)
        if known is None:
            times = series_of(self.samples, f"{PROMETHEUS_KEY}{TIMES}/{grid}")
            known = times if isinstance(times, SourceError) else {
                _target(one.labels, self._scope): {self._keys[at]: moment for at, moment in one.points}
                for one in as_series(times or ())
            }  # fmt: skip
            self._moments[grid] = known
        return known


def _spliced(read: Points, scraped: Points) -> Points:
    """What was read, and before and after it what was scraped."""
    if not read or not scraped:
        return read or scraped
    first, last = read[0][0], read[-1][0]
    before, after = (it for it in scraped if it[0] < first), (it for it in scraped if it[0] > last)
    return (*before, *read, *after)


def _reading_of(source: SourceKind, found: Tracks, family: Family, scope: Scope) -> Reading:
    if family.of_router:
        canary, stable = ([found[pod] for pod in sorted(found) if pod.startswith(side)] for side in SIDES)
    else:
        canary, stable = _of(found, scope.canary, scope), _of(found, scope.stable, scope)
    if family.warm_up is not None:
        since = scope.since if family.warm_up.by_clients and scope.step == 1 else -inf
        canary = [track.after(_warm(track, family.warm_up, since)) for track in canary]
    beside, first = scope.concurrent and bool(stable), scope.judged_since if scope.settled is not None else -inf
    asked = scope.own.seconds > 0
    fair = (
        windows(canary, stable, scope.since, asked=asked)
        if beside
        else alone(canary, scope.judged_since, first=first, asked=asked)
    )
    return Reading(source, tuple(canary), tuple(stable), fair)


class _Milliseconds(dict[float, float]):
    """Times as Prometheus writes them, by themselves: all series of an answer have the same, and rounding is slow."""

    def __missing__(self, at: float) -> float:
        rounded = self[at] = round(at, 3)
        return rounded


def _target(labels: Mapping[str, str], scope: Scope) -> tuple[str, ...]:
    return tuple(labels.get(label, "") for label in (scope.analysis.names.pod_label, *TARGET_LABELS))


def _of(found: Tracks, side: Side, scope: Scope) -> list[Track]:
    """The tracks of the pods that are listed; of whatever carries the revision's name where no pod is."""
    return [found[pod] for pod in of_revision(found, side, scope)]


def of_revision(pods: Iterable[str], side: Side, scope: Scope) -> list[str]:
    """Which pods of an answer are this revision's, in order: those that are listed, or whatever carries its name."""
    if side.pods:
        # A set: with a thousand pods a search for each would cost more than all the rest.
        there = frozenset(pods)
        return [pod for pod in side.pods if pod in there]
    return sorted(pod for pod in pods if pod.startswith(f"{scope.name}-{side.revision}-"))


def _of_router(answer: Iterable[Series], classify: Classify, label: str) -> dict[str, Track]:
    """Tracks by revision and target of the router: all counters of a target are of one moment."""
    named = (
        Series({**one.labels, "pod": f"{one.labels['side']}@{one.labels.get(label, '')}"}, one.points) for one in answer
    )
    return tracks(named, classify)


def _warm(track: Track, warm_up: WarmUp, since: float) -> int:
    """From which sample on a pod is warm, by what it counted since that moment (unix seconds)."""
    start = track.at_or_after(since)
    if start == 0 and track.has_counted(0) and track.times[0] > since + warm_up.seconds:
        return 0
    began = None
    for index in range(start, len(track.times)):
        moment, counted = track.times[index], track.count(warm_up.count, start, index)
        if counted >= warm_up.requests or (began is not None and moment >= began + warm_up.seconds):
            return index
        if began is None and counted > 0:
            began = moment
    return len(track.times) - 1


def _first(tracks: Iterable[Track]) -> float:
    return min(track.times[0] for track in tracks)


def _covers_as_much(one: Reading, other: Reading, scope: Scope) -> bool:
    """By time alone, not by what was counted: else the choice would be made by the evidence."""

    def covered(reading: Reading) -> float:
        return max(0.0, scope.now.timestamp() - max(reading.begin, scope.since))

    return covered(one) >= 0.95 * covered(other) - stale_after(interval_of(one.canary))


def age_of(reading: Reading, scope: Scope) -> float | None:
    """Seconds since the newest sample of the canary's pod that was read least recently; None if one was never read."""
    read = {track.pod for track in reading.canary}
    if not reading.canary or any(pod not in read for pod in scope.canary.ready):
        return None
    ready = frozenset(scope.canary.ready) or read
    return max(0.0, scope.now.timestamp() - min(track.times[-1] for track in reading.canary if track.pod in ready))


def router_age(reading: Reading, scope: Scope) -> float | None:
    """Seconds since the newest sample of what a router counts for the canary; None if there is none.

    Of its replicas nobody knows which there are to be: one that still counts is enough.
    """
    newest = max((track.times[-1] for track in reading.canary), default=None)
    return None if newest is None else max(0.0, scope.now.timestamp() - newest)


def router_stale(reading: Reading, scope: Scope) -> str:
    """As `stale`, of what a router counts."""
    age = router_age(reading, scope)
    if age is None or age <= max(stale_after(track.interval) for track in reading.canary):
        return ""
    return f"the router's newest sample is {age:.0f} s old"


def stale(reading: Reading | None, scope: Scope) -> str:
    """Why its samples do not speak of the present, in words; empty if they do."""
    if reading is None:
        return ""
    read = {track.pod: track for track in reading.canary}
    now = scope.now.timestamp()
    for pod in scope.canary.ready or tuple(read):
        if pod not in read:
            return f"no sample of pod {pod} yet"
        age = now - read[pod].times[-1]
        if age > LATENESS_SECONDS and age > stale_after(read[pod].interval):
            return f"the newest sample of pod {pod} is {age:.0f} s old"
    return ""
