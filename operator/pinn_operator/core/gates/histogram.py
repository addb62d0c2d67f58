"""Latency histograms: what quantile they give, and how many requests took longer than so many seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from operator import sub

from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.windows import Part

ALL = "+Inf"


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


def bound_of(labels: Mapping[str, str]) -> str | None:
    """The class of a bucket series: its upper bound, "+Inf" for the last one; None if `le` is no number."""
    text = labels.get("le", "")
    try:
        value = float(text)
    except ValueError:
        return None
    return ALL if value == inf else f"{value:g}"


def histogram_of(parts: Iterable[Part]) -> Histogram:
    """The observations within these stretches of tracks, whose classes are those of `bound_of`."""
    # Pods that have the same series are summed up column by column, all at once.
    alike: dict[tuple[str, ...], tuple[list[tuple[float, ...]], list[tuple[float, ...]]]] = {}
    for part in parts:
        track = part.track
        ends, begins = alike.setdefault(track.columns.classes, ([], []))
        ends.append(track.row(part.end))
        begins.append(track.row(part.begin))
    sums: dict[float, float] = {}
    for names, (ends, begins) in alike.items():
        grown = map(sub, map(sum, zip(*ends, strict=True)), map(sum, zip(*begins, strict=True)))
        for name, more in zip(names, grown, strict=True):
            sums[float(name)] = sums.get(float(name), 0.0) + more
    running, buckets = 0.0, []
    for bound in sorted(sums):
        running = max(running, sums[bound])
        buckets.append((bound, running))
    if not buckets or buckets[-1][0] != inf:
        return Histogram()
    return Histogram(tuple(buckets))
