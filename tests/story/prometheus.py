"""A Prometheus in fake time, as unkind as a real one, and the pods that it scrapes.

Each target is scraped at its own offset and interval. Scrapes can be late, fail, or stop without a word; a pod can be
several targets; there can be replicas of which now one answers and now another. What is stored is asked by PromQL, see
`tests.story.promql`; nothing here knows which questions the operator has.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from heapq import heappop, heappush

from pinn_operator.core.observed import Termination
from pinn_operator.core.samples import Answer, Query, Series, SourceError
from tests.story import promql
from tests.story.promql import NAME, Store, TimeSeries

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
EPOCH = START.timestamp()
"""Unix seconds when a story begins; inside stories, times are seconds since then."""
BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, float("inf"))
_BOUND_NAMES = [f"{bound:g}" if bound != float("inf") else "+Inf" for bound in BOUNDS]
REQUESTS, LATENCY = "http_requests_total", "pinn_inference_latency_seconds"
HANDLER = "/v1/price"

Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name of a sample and its labels, as a pod shows them on `/metrics`."""


def key(name: str, **labels: str) -> Key:
    """One line of `/metrics`, without its value."""
    return name, tuple(labels.items())


def _request(status: str, *, method: str = "POST", handler: str = HANDLER) -> Key:
    return key(REQUESTS, method=method, handler=handler, status=status)


_BUCKETS = [key(f"{LATENCY}_bucket", le=bound) for bound in _BOUND_NAMES]
_COUNT, _SUM = key(f"{LATENCY}_count"), key(f"{LATENCY}_sum")
_HITS, _MISSES = key("pinn_cache_hits_total"), key("pinn_cache_misses_total")
PRICED, _FALLBACK = key("pinn_options_priced_total", method="pinn"), key("pinn_fallback_total", reason="domain")
_MEMORY, _TREE = key("process_resident_memory_bytes"), key("pinn_process_tree_resident_memory_bytes")
_CPU = key("process_cpu_seconds_total")
_SPREAD = {"moneyness": "1.00-1.05", "maturity": "0.25-0.5"}
_PRICES, _PRICE_SUM = key("pinn_price_to_strike_count", **_SPREAD), key("pinn_price_to_strike_sum", **_SPREAD)
_SQUARES = key("pinn_price_to_strike_sum_of_squares_total", **_SPREAD)
_BORN = (
    *(_request(status) for status in ("200", "400", "413", "429", "500", "503")),
    _HITS, _MISSES, PRICED, _FALLBACK, _PRICES, _PRICE_SUM, _SQUARES,
)  # fmt: skip
"""What the bundled server shows before its first request."""


class Trouble(Enum):
    """Why the operator's own read of a pod fails."""

    REFUSED = auto()
    SLOW = auto()
    GARBAGE = auto()


@dataclass
class SimulatedPod:
    """A pod and its counters. Times are seconds since the story began."""

    name: str
    revision: str
    image: str
    created: float
    ready: bool = False
    was_ready: bool = False
    ready_changed: float = 0.0
    restarts: int = 0
    waiting: str = ""
    termination: Termination | None = None
    requests: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Good and failed ones, whatever happened to the counters since."""
    last_request: float = float("-inf")
    gone: bool = False
    phase: str = "Running"
    namespace: str = "pricing"
    probes: tuple[str, ...] = ("/health/deployment/readiness", "/health")
    """Paths that the kubelet asks."""
    memory: float = 600e6
    trouble: Trouble | None = None
    """What the operator's own reads of it meet."""
    rename: Callable[[Key], Key] | None = None
    """A server of the team's own has other names and labels."""
    counters: dict[Key, float] = field(default_factory=lambda: dict.fromkeys(_BORN, 0.0))
    buckets: list[float] = field(default_factory=lambda: [0.0] * len(BOUNDS))
    seconds_sum: float = 0.0
    _started: int = 0
    _underway: list[tuple[float, str, float]] = field(default_factory=list)

    def serve(
        self, time: float, status: str, latency: float, *, hit: bool = True, fallback: bool = False, price: float = 0.1
    ) -> None:
        """A request that arrives now. It is counted when it is answered, and not before."""
        self.requests[status[0] == "5"] += 1
        self.last_request = time
        self.counters[_HITS if hit else _MISSES] += 1
        self.counters[PRICED] += 1
        self.counters[_PRICES] += 1
        self.counters[_PRICE_SUM] += price
        self.counters[_SQUARES] += price * price
        if fallback:
            self.counters[_FALLBACK] += 1
        if latency < 0.5:
            self.count(status, latency)
        else:
            heappush(self._underway, (time + latency, status, latency))

    def count(self, status: str, latency: float) -> None:
        """A request was answered."""
        line = _request(status)
        self.counters[line] = self.counters.get(line, 0.0) + 1
        self.buckets[bisect_left(BOUNDS, latency)] += 1
        self.seconds_sum += latency

    def live(self, time: float) -> None:
        """Time passes: slow requests are answered, and a restarted container begins at zero."""
        if self.restarts > self._started:
            self._started = self.restarts
            self.restart()
        while self._underway and self._underway[0][0] <= time:
            _, status, latency = heappop(self._underway)
            self.count(status, latency)

    def restart(self) -> None:
        """Its container starts again, and counts from zero."""
        self.counters, self.buckets, self.seconds_sum = dict.fromkeys(_BORN, 0.0), [0.0] * len(BOUNDS), 0.0
        self._underway = []

    @property
    def scraped(self) -> bool:
        """Whether something listens on its port."""
        return not self.gone and self.phase == "Running" and not self.waiting

    def exported(self, time: float) -> dict[Key, float]:
        """What its `/metrics` shows at this moment."""
        shown, running = self.counters.copy(), 0.0
        for line, count in zip(_BUCKETS, self.buckets, strict=True):
            running += count
            shown[line] = running
        shown[_COUNT], shown[_SUM] = running, self.seconds_sum
        for path in self.probes:
            shown[_request("200", method="GET", handler=path)] = float(int(time - self.created))
        shown[_MEMORY] = shown[_TREE] = self.memory
        shown[_CPU] = running * 0.001 + (time - self.created) * 0.01
        return shown if self.rename is None else {self.rename(line): value for line, value in shown.items()}


class Scrape(Enum):
    """How a scrape ends."""

    GOOD = auto()
    FAILS = auto()
    """The target does not answer: its series end with a staleness marker."""
    SILENT = auto()
    """Prometheus itself stores nothing: a full disk, a remote write that hangs. No marker."""


Outcome = Callable[[SimulatedPod, float], Scrape]


class _Target:
    def __init__(self, pod: SimulatedPod, labels: Mapping[str, str], due: float) -> None:
        self.pod, self.labels, self.due = pod, dict(labels), due
        self.series: dict[Key, TimeSeries] = {}
        self.fresh = False
        self.last = float("-inf")


class Replica:
    """One Prometheus. See `Prometheus` for what can be set."""

    def __init__(self, settings: Prometheus, seed: int) -> None:
        self.settings = settings
        self.store = Store()
        self.random = random.Random(seed)
        self._targets: dict[int, list[_Target]] = {}
        self._late: deque[tuple[float, TimeSeries, float, float]] = deque()

    def live(self, pods: Iterable[SimulatedPod], now: float) -> None:
        """Scrape what is due at `now`."""
        present = set()
        for pod in pods:
            present.add(id(pod))
            targets = self._targets.get(id(pod))
            if targets is None:
                targets = self._targets[id(pod)] = [
                    _Target(pod, labels, now + self.settings.first_scrape(self.random))
                    for labels in self.settings.targets(pod)
                ]
            for target in targets:
                if target.due <= now:
                    self._scrape(target, now)
        for known in [known for known in self._targets if known not in present]:
            for target in self._targets[known]:
                if now >= target.last + self.settings.interval:
                    self._end(target, now)
            if all(not target.fresh for target in self._targets[known]):
                del self._targets[known]
        while self._late and self._late[0][0] <= now:
            _, series, time, value = self._late.popleft()
            series.append(time, value)

    def _scrape(self, target: _Target, now: float) -> None:
        settings = self.settings
        target.due += settings.interval
        if target.due <= now:
            target.due = now + settings.interval
        outcome = settings.outcome(target.pod, now)
        if outcome is Scrape.SILENT:
            return
        lost = settings.loss > 0 and self.random.random() < settings.loss
        if outcome is Scrape.FAILS or lost or not target.pod.scraped:
            self._end(target, now)
            return
        moment = round(EPOCH + now - (self.random.random() * settings.jitter if settings.jitter else 0.0), 3)
        shown = target.pod.exported(now)
        if len(shown) < len(target.series):
            for line in target.series.keys() - shown.keys():
                target.series[line].mark_stale(moment)
        for line, value in shown.items():
            series = target.series.get(line)
            if series is None:
                if not settings.stores(line):
                    continue
                series = target.series[line] = self.store.get({NAME: line[0], **dict(line[1]), **target.labels})
            if settings.delay:
                self._late.append((now + settings.delay, series, moment, value))
            else:
                series.append(moment, value)
        if settings.native:
            self.store.get({NAME: LATENCY, **target.labels}, native=True).append(moment, shown[_COUNT])
        target.fresh, target.last = True, now

    def drop(self, job: str) -> None:
        """Forget the targets of a job."""
        for known, targets in self._targets.items():
            for target in targets:
                if target.labels["job"] == job:
                    self._end(target, target.last + self.settings.interval)
            self._targets[known] = [target for target in targets if target.labels["job"] != job]

    @staticmethod
    def _end(target: _Target, now: float) -> None:
        if target.fresh:
            for series in target.series.values():
                series.mark_stale(EPOCH + now)
        target.fresh = False


@dataclass
class Prometheus:
    """What a team's Prometheus is like. The defaults are a scrape every second, each pod at its own moment."""

    interval: float = 1.0
    aligned: bool = False
    """All targets are scraped at one moment: what no Prometheus does."""
    jitter: float = 0.0
    """A sample's time is up to this much before the moment of its counts."""
    loss: float = 0.0
    """Probability that a scrape fails."""
    delay: float = 0.0
    """Seconds until a sample can be asked for: a remote write."""
    copies: Callable[[SimulatedPod], int] = lambda pod: 1
    """How many targets a pod is: Services and a PodMonitor that select it too."""
    native: bool = False
    """The latency is stored as a native histogram, and its classic series are not."""
    outcome: Outcome = lambda pod, time: Scrape.GOOD
    replicas: int = 1
    chosen: Callable[[float], int] | None = None
    """Which replica answers a query at a moment; None: any of them."""
    seed: int = 1
    up: bool = True
    forgetful: bool = False
    """It answers, and knows nothing."""
    refuses: Callable[[float], bool] = lambda seconds: False
    """Whether a query that reaches back so far takes too long."""
    loads: list[int] = field(default_factory=list)
    """Samples that each query loaded."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed * 7919 + 1)
        self._replicas = [Replica(self, self.seed * 100 + index) for index in range(self.replicas)]

    def first_scrape(self, rng: random.Random) -> float:
        """Seconds from the discovery of a target to its first scrape."""
        return 0.0 if self.aligned else rng.random() * self.interval

    def targets(self, pod: SimulatedPod) -> list[dict[str, str]]:
        """The target labels of a pod, once for everything that selects it."""
        return [
            {"namespace": pod.namespace, "pod": pod.name, "instance": f"10.0.0.{index}:8000", "job": job}
            for index, job in enumerate(("pinn", "pinn-stable", "pods")[: self.copies(pod)])
        ]

    @property
    def stores_of_replicas(self) -> list[Store]:
        """What each replica holds."""
        return [replica.store for replica in self._replicas]

    def stores(self, line: Key) -> bool:
        """Whether a line of `/metrics` becomes a series."""
        return not (self.native and line[0].startswith(LATENCY))

    def live(self, pods: Iterable[SimulatedPod], now: float) -> None:
        """Time has passed."""
        known = list(pods)
        for replica in self._replicas:
            replica.live(known, now)

    def drop(self, job: str) -> None:
        """Nobody selects pods by this job any more."""
        for replica in self._replicas:
            replica.drop(job)

    def answer(self, query: Query, now: float) -> Answer:
        """What its HTTP API answers, parsed."""
        if not self.up:
            return SourceError("connection refused")
        if self.forgetful:
            return ()
        if len(self._replicas) == 1:
            store = self._replicas[0].store
        elif self.chosen is not None:
            store = self._replicas[self.chosen(now)].store
        else:
            store = self._random.choice(self._replicas).store
        if self.refuses(reach(query)):
            return SourceError("timeout: query timed out in expression evaluation")
        end = query.end.timestamp()
        try:
            if query.start is None:
                result = promql.instant(store, query.expression, end)
            else:
                result = promql.ranged(store, query.expression, query.start.timestamp(), end, query.step)
        except promql.QueryError as error:
            return SourceError(f"bad_data: {error}")
        self.loads.append(store.samples_read)
        return tuple(Series(labels, tuple(points)) for labels, points in result)


def reach(query: Query) -> float:
    """How many seconds back a query looks."""
    ranges = [promql.duration(text) for text in re.findall(r"\[([0-9a-z]+)[\]:]", query.expression)]
    whole = (query.end - query.start).total_seconds() if query.start is not None else 0.0
    return max(ranges, default=0.0) + whole
