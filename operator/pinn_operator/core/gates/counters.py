"""From time series to counts: what the canary and the stable revision answered, and how.

Counters restart at zero with their container and are born when first used; both are handled here
(Prometheus documentation, "Metric types: counter").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite

from pinn_operator.core.gates.evidence import Window
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.samples import Answer, Series, SourceError

LATEST_AGES = (3.0,)
AGES = (10.0, 30.0, 60.0, 120.0)
"""Lengths in seconds of the recent windows in which a sudden fault is looked for."""


@dataclass(frozen=True, slots=True)
class Sides:
    """How pods are attributed: pod name prefixes of the two revisions."""

    canary: str
    stable: str

    @classmethod
    def of(cls, name: str, *, canary: str, stable: str) -> Sides:
        """The prefixes that the pods of `<name>-<revision>` Deployments carry."""
        return cls(canary=f"{name}-{canary}-", stable=f"{name}-{stable}-")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by bucket upper bound in seconds, ascending, the last one +Inf."""

    buckets: tuple[tuple[float, float], ...] = ()

    @property
    def total(self) -> float:
        return self.buckets[-1][1] if self.buckets else 0.0

    def quantile(self, q: float) -> float | None:
        """Linear interpolation within the bucket, as PromQL's `histogram_quantile`; None where that gives NaN: without
        observations, or without a finite bucket."""
        if self.total <= 0 or len(self.buckets) < 2:
            return None
        rank, lower, below = q * self.total, 0.0, 0.0
        for upper, cumulative in self.buckets:
            if cumulative >= rank:
                if upper == inf:
                    return lower
                share = (rank - below) / (cumulative - below) if cumulative > below else 1.0
                return lower + (upper - lower) * share
            lower, below = upper, cumulative
        return lower

    def bound_at_least(self, seconds: float) -> float:
        """The smallest bucket bound that is not under `seconds`."""
        return next((upper for upper, _ in self.buckets if upper >= seconds), inf)

    def slower_than(self, seconds: float) -> Counts:
        """All observations, and as bad those above the first bucket bound that is not under `seconds`."""
        bound = self.bound_at_least(seconds)
        faster = next((count for upper, count in self.buckets if upper >= bound), self.total)
        return Counts(self.total, min(self.total, max(0.0, self.total - faster)))


@dataclass(frozen=True, slots=True)
class LatencyWindow:
    """Latency histograms of both revisions over the last `seconds`."""

    canary: Histogram
    stable: Histogram


def request_windows(
    answer: tuple[Series, ...], sides: Sides, *, ages: tuple[float, ...] = AGES
) -> tuple[Window, ...]:  # fmt: skip
    """Windows of `ages` that fit into the answered range, and the whole range as the last."""
    times = sorted({time for series in answer for time, _ in series.points})
    if len(times) < 2:
        return ()
    end, span = times[-1], times[-1] - times[0]
    starts = [max(time for time in times if time <= end - age) for age in ages if age < span]
    return tuple(
        Window(end - start, _counts(answer, sides.canary, start), _counts(answer, sides.stable, start))
        for start in [*starts, times[0]]
    )


def _counts(answer: tuple[Series, ...], prefix: str, start: float) -> Counts:
    mine = [series for series in answer if series.labels.get("pod", "").startswith(prefix)]
    first_seen: dict[str, float] = {}
    for series in mine:
        if series.points:
            pod = series.labels["pod"]
            first_seen[pod] = min(first_seen.get(pod, inf), series.points[0][0])
    total = bad = 0.0
    for series in mine:
        # A series born after its pod was already scraped began at zero; what a pod counted before it was first
        # scraped belongs to no window.
        born_at_zero = bool(series.points) and series.points[0][0] > first_seen[series.labels["pod"]]
        grown = increase(series.points, start, born_at_zero=born_at_zero)
        total += grown
        if series.labels.get("status", "").startswith("5"):
            bad += grown
    return Counts(total, min(bad, total))


def increase(points: Sequence[tuple[float, float]], start: float, *, born_at_zero: bool = False) -> float:
    """Growth of a counter after `start`, restarts counted from zero.

    >>> increase([(0, 5), (1, 7), (2, 1)], 0)
    3
    """
    previous: float | None = 0.0 if born_at_zero else None
    grown = 0.0
    for time, value in points:
        if not isfinite(value):
            continue
        if previous is not None and time > start:
            grown += value - previous if value >= previous else value
        previous = value
    return grown


def histograms(answer: tuple[Series, ...], sides: Sides) -> LatencyWindow:
    """The latency histograms of an instant answer labelled by `pod` and `le`."""
    return LatencyWindow(canary=_histogram(answer, sides.canary), stable=_histogram(answer, sides.stable))


def _histogram(answer: tuple[Series, ...], prefix: str) -> Histogram:
    sums: dict[float, float] = {}
    for series in answer:
        if not series.labels.get("pod", "").startswith(prefix) or not series.points:
            continue
        value = series.points[-1][1]
        if isfinite(value):
            bound = _bound(series.labels)
            sums[bound] = sums.get(bound, 0.0) + value
    running, buckets = 0.0, []
    for bound in sorted(sums):
        running = max(running, sums[bound])
        buckets.append((bound, running))
    if not buckets or buckets[-1][0] != inf:
        return Histogram()
    return Histogram(tuple(buckets))


def _bound(labels: Mapping[str, str]) -> float:
    try:
        return float(labels.get("le", "+Inf"))
    except ValueError:
        return inf


def single_value(answer: tuple[Series, ...]) -> float | SourceError | None:
    """The value of a team's own query: one series, a finite number. Empty and NaN are no data."""
    if len(answer) > 1:
        return SourceError(f"the query returned {len(answer)} series, it must return one: wrap it in sum() or max()")
    if not answer or not answer[0].points or not isfinite(answer[0].points[-1][1]):
        return None
    return answer[0].points[-1][1]


STILL_SECONDS = 2.0
"""How long counters must stand still, seen by a scrape after it."""


def stands_still(counts: Answer, scrapes: Answer) -> bool | None:
    """Whether scrapes prove that no request has been answered for `STILL_SECONDS`.

    Returns:
        True if proven, False if requests still come or the proof is not yet there, None if there is nothing to ask:
        the pods have no request counters, or the source cannot answer.
    """
    if isinstance(counts, SourceError) or isinstance(scrapes, SourceError):
        return None
    changes = [_last_change(points) for points in map(_finite, counts) if points]
    seen = [points[-1][1] for points in map(_finite, scrapes) if points]
    if not changes or not seen:
        return None
    return min(seen) - max(changes) >= STILL_SECONDS


def _finite(series: Series) -> list[tuple[float, float]]:
    return [(time, value) for time, value in series.points if isfinite(value)]


def _last_change(points: Sequence[tuple[float, float]]) -> float:
    """The first grid moment from which on the value never changed."""
    moment = points[0][0]
    for (_, before), (time, after) in pairwise(points):
        if after != before:
            moment = time
    return moment
