"""Reads the counters of the pods of each rollout, in the background, and answers from memory.

One task for each rollout that asks, until it asks no more. It reads every pod about once a second, a few of the canary
twice, and four times a second for a while after the canary has given a bad answer; it then wakes the pass, which finds
the newest figures.

A round reads the canary's pods first and the stable ones after their answers are there. A canary's read is dated by its
arrival and a stable pod's by its departure. So whatever hit both revisions by the moment of a canary's read is in every
stable read that is dated later, however slow a pod or the network is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from operator import is_
from typing import Final
from urllib.parse import quote

from pinn_operator.core.samples import (
    FAMILY_LABEL,
    POD_FAULTS,
    AnyAnswer,
    PodCounts,
    PodQuestion,
    PodReadFault,
    PodReadFaults,
    PodReads,
    Series,
    SourceError,
)
from pinn_operator.pods.history import SERIES_LIMIT, History, TooManySeries
from pinn_operator.pods.http import Page, PodClient, PodSilent, Question
from pinn_operator.pods.text import LINE_LIMIT, parse

Key = tuple[str, str]
"""Namespace and name of a resource."""
ReadObserver = Callable[[str, float], None]
"""Is told of each read: `read` or `failed`, and its seconds."""

FAMILIES_LIMIT: Final = 32
PODS_LIMIT: Final = 500
"""Pods of one rollout whose figures are kept."""
_PROBES: Final = ("/health", "/metrics", "/cache/", "/v2/health/")
_METRICS: Final = ("", "text/plain", "application/openmetrics-text")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cadence:
    """Seconds, where nothing else is said."""

    rest: float = 1.0
    canary_rest: float = 0.5
    """Between two reads of a pod of the canary: the sooner its first bad answer is seen, the sooner all are."""
    few: int = 4
    """Of more pods of the canary than so many each is read at `rest`, in two halves by turns: a canary that fails is
    seen as soon, and a large one costs no more than stable."""
    slow: float = 5.0
    """Between two reads of what is judged over minutes."""
    close: float = 0.25
    """While the canary's answers are looked at closely."""
    close_for: float = 10.0
    """So long after its last bad answer."""
    jitter: float = 0.1
    """Share of a wait by which it is longer or shorter."""
    pods_at_once: int = 40
    """Pods of one rollout in a round; with more of them each has its turn less often."""
    reads_per_second: float = 600.0
    """Of all rollouts together, at rest; with more pods each is read less often."""
    bytes_per_second: int = 32 * 1024
    """Of one pod: a server that ignores the filter is read less often the larger its page is."""
    failures: int = 2
    """A pod is reported after so many reads in a row that failed, and from then on is read less often."""
    failed_rest: float = 2.0
    reported: float = 10.0
    """So long after its last failure a pod is still reported: one that fails now and then is no news each time."""
    unasked: float = 120.0
    """A rollout that no pass has asked about for so long is not read any more: the API server may be away."""
    grace: float = 5.0
    """So long after a pass that asks nothing the pods are read on: the next one may ask again."""
    kept: float = 600.0
    """The figures of a pod that is gone are kept so long."""
    alarm_seconds: float = 30.0
    """Of the newest reads, for the alarm."""
    bounds: float = 1.0
    """How often it is looked at what all rollouts take together."""
    values: int = 8_000_000
    """Kept of all rollouts together, 8 bytes each; beyond, the rollout with most of them loses old ones."""


@dataclass(frozen=True, slots=True)
class Target:
    """A pod that is read. `address` is `host:port`."""

    name: str
    address: str
    canary: bool


@dataclass(frozen=True, slots=True)
class BadAnswers:
    """Whether a series counts bad answers: requests to what is no probe, with a status that is neither 2xx nor 3xx."""

    family: str
    status_label: str
    handler_label: str

    def __call__(self, labels: Mapping[str, str]) -> bool:
        """`labels` are those of a `Series`."""
        return (
            labels.get(FAMILY_LABEL) == self.family
            and labels.get(self.status_label, "2")[:1] not in ("2", "3")
            and not labels.get(self.handler_label, "").startswith(_PROBES)
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read for one rollout.

    `quick` are the families that are read in each round, `slow` those that are judged over minutes. `is_bad`
    tells by its labels whether a series counts bad answers; once those of the canary have grown, it is looked at
    closely.
    """

    targets: tuple[Target, ...]
    quick: tuple[str, ...]
    slow: tuple[str, ...] = ()
    is_bad: Callable[[Mapping[str, str]], bool] = lambda _labels: False
    alarm: Alarm | None = None
    """Which of its bad answers wake a pass; by default those that wake it for any rollout."""
    alarmed: tuple[str, ...] = ()
    """The families that this is told by; by default the quick ones."""


Alarm = Callable[[Sequence[Series], Sequence[Series]], bool]
"""Whether a pass is worth while now, by the first and the last of the newest reads of the canary and of stable. Asked
each time the canary has given more bad answers."""


def always(_canary: Sequence[Series], _stable: Sequence[Series]) -> bool:
    """The alarm that wakes whenever the canary has given another bad answer."""
    return True


@dataclass(slots=True)
class _Pod:
    """What is known of one pod."""

    name: str
    quick: History
    slow: History
    due: float = 0.0
    slow_due: float = 0.0
    failures: int = 0
    message: str = ""
    """Of the last failure."""
    reported_until: float = 0.0
    turn: float = 0.0
    """When it is read between two reads of others that are read as often, as a share of that time."""
    size: int = 0
    last_read: float = 0.0

    def reads(self, families: Iterable[str], start: float | None) -> PodReads | None:
        """What was read of these families, which are in one history; None if nothing was."""
        for history in (self.quick, self.slow):
            if history.has(families):
                return history.reads(start)
        return None


class LastCounts:
    """The last answer about each set of families: as long as no pod was read again, it is the same object."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], PodCounts] = {}

    def of(self, families: tuple[str, ...], reads: tuple[PodReads, ...]) -> PodCounts:
        """These reads as an answer: the last one, if they are its reads."""
        last = self._counts.get(families)
        if last is None or len(last.pods) != len(reads) or not all(map(is_, last.pods, reads)):
            if len(self._counts) >= FAMILIES_LIMIT:
                self._counts.clear()
            last = self._counts[families] = PodCounts(families, reads)
        return last


@dataclass(frozen=True, slots=True)
class _Read:
    """One read of a pod that is under way. `started` is by the monotonic clock, `asked_at` in unix seconds."""

    pod: _Pod
    reading: Reading
    canary: bool
    with_slow: bool
    started: float
    asked_at: float


@dataclass(slots=True, eq=False)
class _Rollout:
    reading: Reading
    asked: float
    pods: dict[str, _Pod] = field(default_factory=dict)
    close_until: float = 0.0
    by_turns: bool = False
    """Whether the canary's pods are read in two halves."""
    turn: float = field(default_factory=random.random)
    """Of the first half: what rollouts do by turns they do not all do at the same moments."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    counts: LastCounts = field(default_factory=LastCounts)


class PodReader:
    """Reads pods. `wake` is called with namespace and name when a rollout had better be looked at now.

    `now` gives unix seconds. Used from one event loop only.
    """

    def __init__(
        self,
        client: PodClient,
        *,
        wake: Callable[[str, str], None],
        alarm: Alarm = always,
        cadence: Cadence | None = None,
        now: Callable[[], float] = time.time,
        observer: ReadObserver = lambda _outcome, _seconds: None,
    ) -> None:
        self._client = client
        self._alarm = alarm
        self._wake = wake
        self._cadence = cadence or Cadence()
        self._now = now
        self._observer = observer
        self._rollouts: dict[Key, _Rollout] = {}
        self._stretch = 1.0
        self._bounds_due = 0.0

    def __len__(self) -> int:
        return len(self._rollouts)

    # --- what a pass calls --------------------------------------------------------------------------------------------

    def read(self, namespace: str, name: str, reading: Reading) -> None:
        """From now on read these pods."""
        key = (namespace, name)
        rollout, now = self._rollouts.get(key), time.monotonic()
        if rollout is None:
            rollout = self._rollouts[key] = _Rollout(reading, now)
            rollout.task = asyncio.create_task(self._run(key, rollout), name=f"pods of {namespace}/{name}")
        elif rollout.reading != reading:
            rollout.reading = reading
            rollout.changed.set()
        rollout.asked = now

    def read_now(self, namespace: str, name: str) -> None:
        """What is looked at closely has news: its pods have just answered something else."""
        rollout, now = self._rollouts.get((namespace, name)), time.monotonic()
        if rollout is None or now >= rollout.close_until:
            return
        for pod in rollout.pods.values():
            if not pod.failures:
                pod.due = min(pod.due, now)
        rollout.changed.set()

    def end_soon(self, namespace: str, name: str) -> None:
        """Read no more for this resource, unless a pass asks again within the grace."""
        rollout = self._rollouts.get((namespace, name))
        end = time.monotonic() - self._cadence.unasked + self._cadence.grace
        if rollout is not None and end < rollout.asked:
            rollout.asked = end
            rollout.changed.set()

    def end(self, namespace: str, name: str) -> None:
        """Read no more for this resource, and forget what was read."""
        rollout = self._rollouts.pop((namespace, name), None)
        if rollout is not None:
            if rollout.task is not None:
                rollout.task.cancel()
            self._disconnect(rollout.reading.targets)

    def answers(self, namespace: str, name: str, questions: Iterable[PodQuestion]) -> Mapping[str, AnyAnswer]:
        """What is known, at once. Nothing for a question none of whose pods was ever read."""
        rollout = self._rollouts.get((namespace, name))
        if rollout is None:
            return {}
        answers: dict[str, AnyAnswer] = {}
        asked: set[str] = set()
        for question in questions:
            pods = [rollout.pods[pod] for pod in question.pods if pod in rollout.pods]
            asked.update(question.pods)
            start = question.start.timestamp() if question.start is not None else None
            reads = tuple([found for pod in pods if (found := pod.reads(question.families, start)) is not None])
            if reads or any(pod.last_read for pod in pods):
                answers[question.key] = rollout.counts.of(question.families, reads)
            elif any(pod.failures for pod in pods):
                answers[question.key] = SourceError(_none_read([pod for pod in pods if pod.failures]))
        now = time.monotonic()
        failed = sorted(
            (pod for pod in rollout.pods.values() if pod.name in asked and pod.reported_until > now),
            key=lambda pod: pod.name,
        )
        answers[POD_FAULTS] = PodReadFaults(tuple(PodReadFault(pod.name, pod.message) for pod in failed))
        return answers

    async def close(self) -> None:
        """End all reading."""
        tasks = [rollout.task for rollout in self._rollouts.values() if rollout.task is not None]
        for key in list(self._rollouts):
            self.end(*key)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._client.close()

    # --- the task of a rollout ----------------------------------------------------------------------------------------

    async def _run(self, key: Key, rollout: _Rollout) -> None:
        try:
            while time.monotonic() - rollout.asked < self._cadence.unasked:
                rollout.changed.clear()
                self._take_targets(rollout)
                try:
                    await self._round(key, rollout)
                except Exception:  # noqa: BLE001 - a fault of ours must not end the reading of this rollout
                    _LOG.exception("reading pods failed", extra={"namespace": key[0], "service": key[1]})
                await self._rest(rollout)
        finally:
            if self._rollouts.get(key) is rollout:
                del self._rollouts[key]
                self._disconnect(rollout.reading.targets)

    def _take_targets(self, rollout: _Rollout) -> None:
        targets = {target.name for target in rollout.reading.targets}
        canaries = [target.name for target in rollout.reading.targets if target.canary]
        rollout.by_turns = len(canaries) > self._cadence.few
        for name in targets - rollout.pods.keys():
            rollout.pods[name] = _Pod(name, History(name, rollout.reading.is_bad), History(name))
        now = time.monotonic()
        gone = sorted((pod.due, name) for name, pod in rollout.pods.items() if name not in targets)
        surplus = len(rollout.pods) - PODS_LIMIT
        for place, (due, name) in enumerate(gone):
            if place < surplus or now - due > self._cadence.kept:
                del rollout.pods[name]
        for place, name in enumerate(canaries):
            rollout.pods[name].turn = 0.5 * (place % 2)

    async def _round(self, key: Key, rollout: _Rollout) -> None:
        self._bound_all()
        targets = rollout.reading.targets
        canaries = [target for target in targets if target.canary]
        stables = [target for target in targets if not target.canary]
        read = self._due(rollout, canaries, self._slack(rollout, canary=True))
        await self._read_all(rollout, read)
        grew = any(rollout.pods[target.name].quick.bad_grew for target in read)
        if grew:
            rollout.close_until = time.monotonic() + self._cadence.close_for
            for target in canaries:
                pod = rollout.pods[target.name]
                pod.due = min(pod.due, time.monotonic() + self._interval(rollout, pod, canary=True))
        # A bad answer is judged beside what stable answers at the same moment, so that is read now.
        slack = self._cadence.rest if grew else self._slack(rollout, canary=False)
        await self._read_all(rollout, self._due(rollout, stables, slack))
        if grew and (rollout.reading.alarm or self._alarm)(
            self._newest(rollout, canaries), self._newest(rollout, stables)
        ):
            self._wake(*key)

    def _newest(self, rollout: _Rollout, targets: Iterable[Target]) -> list[Series]:
        start, counted = self._now() - self._cadence.alarm_seconds, rollout.reading.alarmed or rollout.reading.quick
        reads = (rollout.pods[target.name].quick.reads(start) for target in targets)
        return [one for found in reads if found is not None for one in found.ends(counted)]

    def _slack(self, rollout: _Rollout, *, canary: bool) -> float:
        """Seconds by which a pod may be read early: those of a rollout are read together."""
        return 2.0 * self._cadence.jitter * self._wanted(rollout, canary=canary)

    def _wanted(self, rollout: _Rollout, *, canary: bool) -> float:
        """Seconds between two reads of a pod whose answers are small and come in time."""
        cadence = self._cadence
        if time.monotonic() < rollout.close_until:
            return cadence.close
        return min(cadence.rest, cadence.canary_rest) if canary and not rollout.by_turns else cadence.rest

    def _bound_all(self) -> None:
        """What all rollouts take together, looked at now and then."""
        now = time.monotonic()
        if now < self._bounds_due:
            return
        self._bounds_due = now + self._cadence.bounds
        reads = sum(len(it.reading.targets) for it in self._rollouts.values()) / self._cadence.rest
        self._stretch = max(1.0, reads / self._cadence.reads_per_second)
        sizes = [
            (sum(pod.quick.size + pod.slow.size for pod in rollout.pods.values()), rollout)
            for rollout in self._rollouts.values()
        ]
        if sum(size for size, _ in sizes) > self._cadence.values:
            _, largest = max(sizes, key=lambda pair: pair[0])
            for pod in largest.pods.values():
                pod.quick.coarsen()
                pod.slow.coarsen()

    def _due(self, rollout: _Rollout, targets: Iterable[Target], slack: float) -> list[Target]:
        """Those whose time has come, or will have within `slack`; the one that has waited longest first."""
        pods, soon = rollout.pods, time.monotonic() + slack
        due = [target for target in targets if pods[target.name].due <= soon]
        due.sort(key=lambda target: pods[target.name].due)
        return due[: self._cadence.pods_at_once]

    async def _read_all(self, rollout: _Rollout, targets: Sequence[Target]) -> None:
        await self._client.get_all([self._question(rollout, target) for target in targets])

    def _question(self, rollout: _Rollout, target: Target) -> Question:
        pod, reading = rollout.pods[target.name], rollout.reading
        started = time.monotonic()
        with_slow = bool(reading.slow) and started >= pod.slow_due
        families = (*reading.quick, *reading.slow) if with_slow else reading.quick
        read = _Read(pod, reading, target.canary, with_slow, started, self._now())
        return Question(target.address, path_of(families), partial(self._take, rollout, read))

    def _take(self, rollout: _Rollout, read: _Read, answer: Page | PodSilent) -> None:
        """An answer, or what is said of a pod that gave none."""
        pod = read.pod
        moment = self._now() if read.canary else read.asked_at
        try:
            if isinstance(answer, PodSilent):
                raise answer
            check(answer)
            pod.size = len(answer.body)
            pod.quick.add(moment, answer.body, encoded(read.reading.quick))
            if read.with_slow:
                pod.slow.add(moment, answer.body, encoded(read.reading.slow))
        except PodSilent as error:
            self._failed(pod, str(error))
        except TooManySeries:
            self._failed(pod, f"more than {SERIES_LIMIT} series of the asked metrics")
        else:
            pod.failures, pod.last_read = 0, moment
        self._observer("failed" if pod.failures else "read", time.monotonic() - read.started)
        pod.due = self._next(rollout, pod, read)
        if read.with_slow:
            pod.slow_due = read.started + 0.9 * self._cadence.slow

    def _next(self, rollout: _Rollout, pod: _Pod, read: _Read) -> float:
        """When the pod is read again: after its interval; by turns, up to half an interval sooner or later."""
        interval = self._interval(rollout, pod, canary=read.canary)
        due = read.started + interval
        if not (read.canary and rollout.by_turns) or time.monotonic() < rollout.close_until:
            return due
        late = (due - (rollout.turn + pod.turn) * interval) % interval
        return due - late if late <= interval / 2 else due - late + interval

    def _failed(self, pod: _Pod, message: str) -> None:
        pod.failures += 1
        pod.message = message
        if pod.failures >= self._cadence.failures:
            pod.reported_until = time.monotonic() + max(self._cadence.reported, 2.0 * self._cadence.failed_rest)

    def _interval(self, rollout: _Rollout, pod: _Pod, *, canary: bool) -> float:
        """Seconds between two reads of this pod."""
        cadence = self._cadence
        if pod.failures >= cadence.failures:
            return cadence.failed_rest
        return max(self._wanted(rollout, canary=canary) * self._stretch, pod.size / cadence.bytes_per_second)

    async def _rest(self, rollout: _Rollout) -> None:
        """Until the next pod is due, or something else is to be read."""
        pods = [rollout.pods[target.name] for target in rollout.reading.targets if target.name in rollout.pods]
        soonest = min((pod.due for pod in pods), default=time.monotonic() + self._cadence.rest)
        soonest = min(soonest, rollout.asked + self._cadence.unasked)
        wait = max(0.02, soonest - time.monotonic())
        wait *= 1.0 + self._cadence.jitter * random.uniform(-1.0, 1.0)  # noqa: S311
        try:
            async with asyncio.timeout(wait):
                await rollout.changed.wait()
        except TimeoutError:
            pass

    def _disconnect(self, targets: Iterable[Target]) -> None:
        for target in targets:
            self._client.forget(target.address)


@lru_cache(maxsize=256)
def encoded(families: tuple[str, ...]) -> tuple[bytes, ...]:
    """As they are on a page."""
    return tuple(family.encode() for family in families)


@lru_cache(maxsize=256)
def path_of(families: tuple[str, ...]) -> str:
    """The path that asks for these families alone, as Prometheus' client libraries understand it."""
    return "/metrics?" + "&".join(f"name%5B%5D={quote(family, safe='')}" for family in families)


def check(page: Page) -> None:
    """Raises PodSilent for an answer that is no page of metrics."""
    if 300 <= page.status < 400:
        raise PodSilent(f"HTTP {page.status}: a redirect is not followed")
    if page.status != 200:
        raise PodSilent(f"HTTP {page.status}")
    if page.kind not in _METRICS:
        raise PodSilent(f"the answer is {page.kind[:40]!r}, not metrics")
    first = page.body[:LINE_LIMIT].partition(b"\n")[0].strip()
    if first and not first.startswith(b"#") and parse(first) is None:
        raise PodSilent("the answer is no page of metrics")


def _none_read(pods: Sequence[_Pod]) -> str:
    pod = pods[0]
    others = f", and {len(pods) - 1} more" if len(pods) > 1 else ""
    return f"no pod could be read: {pod.name}: {pod.message}{others}"
