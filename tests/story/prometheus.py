"""What a Prometheus that scrapes simulated pods would answer to the operator's own queries."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from pinn_operator.core.gates.questions import (
    LATENCY_RECENT,
    LATENCY_WHOLE,
    REQUESTS_LATEST,
    REQUESTS_RECENT,
    REQUESTS_WHOLE,
    STILL_COUNTS,
    STILL_SCRAPES,
)
from pinn_operator.core.observed import Termination
from pinn_operator.core.samples import Answer, Query, Series

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, float("inf"))


class Scrape(NamedTuple):
    """The counters of a pod at one moment; `buckets` are answers by the first of `BOUNDS` that they kept."""

    good: float
    failed: float
    buckets: list[float]


@dataclass
class SimulatedPod:
    """A pod, its counters, and what was scraped of them. Times are seconds since the story began."""

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
    """Good and failed ones."""
    buckets: list[float] = field(default_factory=lambda: [0.0] * len(BOUNDS))
    last_request: float = float("-inf")
    scrapes: list[Scrape] = field(default_factory=list)
    scrape_times: list[float] = field(default_factory=list)
    gone: bool = False
    phase: str = "Running"

    def scrape(self, time: float) -> None:
        """Prometheus looks at its counters."""
        self.scrapes.append(Scrape(self.requests[0], self.requests[1], list(self.buckets)))
        self.scrape_times.append(time)

    def seen_at(self, time: float) -> int | None:
        """The newest scrape that a query at that time finds: five minutes back, and none of a target that is gone."""
        index = bisect_right(self.scrape_times, time) - 1
        if index < 0 or self.scrape_times[index] < time - (1 if self.gone else 300):
            return None
        return index


def answer(query: Query, pods: Iterable[SimulatedPod]) -> Answer:
    """The answer to one of the operator's built-in queries, about those of the pods that it asks for."""
    asked = re.search('pod=~"([^"]+)"', query.expression)
    assert asked is not None, query.expression
    meant = [pod for pod in pods if pod.scrapes and re.fullmatch(asked[1], pod.name)]
    end = (query.end - START).total_seconds()
    if query.start is not None:
        return _counters(query, meant, (query.start - START).total_seconds(), end)
    if query.key == STILL_SCRAPES:
        seen = ((pod, pod.seen_at(end)) for pod in meant)
        return tuple(
            Series({"pod": pod.name}, ((end, pod.scrape_times[index]),)) for pod, index in seen if index is not None
        )
    assert query.key in (LATENCY_RECENT, LATENCY_WHOLE), query.key
    return _increases(query, meant, end)


def _increases(query: Query, pods: list[SimulatedPod], end: float) -> Answer:
    window = re.search(r"\[(\d+)ms\]", query.expression)
    assert window is not None, query.expression
    series = []
    for pod in pods:
        last, first = pod.seen_at(end), bisect_left(pod.scrape_times, end - float(window[1]) / 1000)
        if last is None or first >= last:
            continue
        running, before, after = 0.0, pod.scrapes[first].buckets, pod.scrapes[last].buckets
        for index, bound in enumerate(BOUNDS):
            running += after[index] - before[index]
            labels = {"pod": pod.name, "le": "+Inf" if bound == float("inf") else str(bound)}
            series.append(Series(labels, ((end, running),)))
    return tuple(series)


def _counters(query: Query, pods: list[SimulatedPod], start: float, end: float) -> Answer:
    assert query.key in (REQUESTS_LATEST, REQUESTS_RECENT, REQUESTS_WHOLE, STILL_COUNTS), query.key
    steps = round((end - start) / query.step) if query.step else 0
    grid = [start + index * query.step for index in range(steps + 1)]
    series = []
    for pod in pods:
        seen = [(time, pod.scrapes[index]) for time in grid if (index := pod.seen_at(time)) is not None]
        if seen and query.key == STILL_COUNTS:
            series.append(Series({"pod": pod.name}, tuple((time, it.good + it.failed) for time, it in seen)))
        elif seen:
            series.append(Series({"pod": pod.name, "status": "200"}, tuple((time, it.good) for time, it in seen)))
            series.append(Series({"pod": pod.name, "status": "500"}, tuple((time, it.failed) for time, it in seen)))
    return tuple(series)
