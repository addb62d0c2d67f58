"""What pods counted and which windows that allows, computed in the simplest way: everything anew, from plain points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median_high

from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.tracks import RESTARTED_BELOW, Classify, Track
from pinn_operator.core.gates.windows import lengths
from pinn_operator.core.samples import LARGEST, Series


def reference_tracks(series: Iterable[Series], classify: Classify) -> dict[str, Track]:
    """Of each pod, moment by moment: what is absent stands still, what falls by half has begun anew."""
    pods: dict[str, list[tuple[str, dict[float, float]]]] = {}
    for one in series:
        name = classify(one.labels)
        if name is not None:
            pods.setdefault(one.labels["pod"], []).append((name, dict(one.points)))
    return {pod: _track(pod, members) for pod, members in pods.items()}


def _track(pod: str, members: Sequence[tuple[str, dict[float, float]]]) -> Track:
    times = sorted({moment for _, points in members for moment in points})
    last, held, finite = [0.0] * len(members), [0.0] * len(members), [0.0] * len(members)
    rows: list[dict[str, float]] = []
    for moment in times:
        seen = [place for place, (_, points) in enumerate(members) if moment in points]
        before, after = sum(held[place] for place in seen), sum(members[place][1][moment] for place in seen)
        if after < before * RESTARTED_BELOW and before >= sum(held) * 0.25:
            last, held = [0.0] * len(members), [0.0] * len(members)
        for place in seen:
            last[place] = held[place] = members[place][1][moment]
        finite = [new if abs(new) <= LARGEST else old for new, old in zip(last, finite, strict=True)]
        row: dict[str, float] = {}
        for (name, _), value in zip(members, finite, strict=True):
            row[name] = row.get(name, 0.0) + value
        rows.append(row)
    restarts = tuple(
        moment
        for moment, before, after in zip(times[1:], rows, rows[1:], strict=False)
        if sum(after.values()) < sum(before.values()) * RESTARTED_BELOW
    )
    grown = {name: _never_falling(times, [row[name] for row in rows], restarts) for name in rows[0]} if rows else {}
    return Track.of(pod, times, grown, restarts)


def _never_falling(times: Sequence[float], values: Sequence[float], restarts: Sequence[float]) -> list[float]:
    result, highest = [values[0]], values[0]
    for moment, value in zip(times[1:], values[1:], strict=True):
        if moment in restarts:
            result.append(result[-1] + value)
            highest = value
        else:
            result.append(result[-1] + max(0.0, value - highest))
            highest = max(highest, value)
    return result


@dataclass(frozen=True)
class Seen:
    """A window: its seconds, and the counts of both revisions."""

    seconds: float
    canary: Counts
    stable: Counts


def reference_windows(
    canary: Sequence[Track], stable: Sequence[Track], start: float, total: tuple[str, ...], bad: tuple[str, ...]
) -> list[Seen]:
    """The recent windows from short to long and, last, the whole; none where nothing can be said."""
    known = sorted(gap for track in (*canary, *stable) if (gap := track.interval) is not None)
    interval = known[len(known) // 2] if known else None
    latest = max((track.times[-1] for track in stable), default=-inf)
    fresh = [track for track in stable if track.times[-1] >= latest - max(3.0, 4 * (track.interval or 0.0))]
    end = min((track.times[-1] for track in fresh), default=-inf)
    first = median_high(track.times[0] for track in fresh) if fresh else -inf
    begin = max(start, first)
    if end <= begin or not canary:
        return []
    asked = [(end - seconds, False) for seconds in lengths(end - begin, interval)] + [(begin, True)]
    found = (_seen(canary, fresh, at, end, first, total, bad, fresh_start=whole) for at, whole in asked)
    return [it for it in found if it is not None]


def _seen(
    canary: Sequence[Track], stable: Sequence[Track], begin: float, end: float, first: float, total: tuple[str, ...],
    bad: tuple[str, ...], *, fresh_start: bool,
) -> Seen | None:  # fmt: skip
    ours: list[tuple[float, float, float, float]] = []
    for track in canary:
        before = [place for place, moment in enumerate(track.times) if moment <= begin]
        after = [place for place, moment in enumerate(track.times) if moment >= max(begin, first)]
        until = [place for place, moment in enumerate(track.times) if moment <= end]
        old = before and fresh_start and track.times[before[-1]] < begin and track.has_counted(before[-1])
        if not before or track.times[before[-1]] < first or old:
            before = after[:1]
        if before and until and before[-1] < until[-1]:
            low, high = before[-1], until[-1]
            counts = (track.count(total, low, high), track.count(bad, low, high))
            ours.append((track.times[low], track.times[high], *counts))
    if not ours:
        return None
    low, high = min(it[0] for it in ours), max(it[1] for it in ours)
    rates = sum(count / (last - since) for since, last, count, _ in ours)
    length = sum(it[2] for it in ours) / rates if rates > 0 else max(it[1] - it[0] for it in ours)
    requests = failed = 0.0
    for track in stable:
        covers = [place for place, moment in enumerate(track.times) if moment <= low]
        to = [place for place, moment in enumerate(track.times) if moment >= high]
        if covers and to:
            seconds = track.times[to[0]] - track.times[covers[-1]]
            requests += track.count(total, covers[-1], to[0]) * (min(1.0, length / seconds) if seconds > 0 else 0.0)
            failed += track.count(bad, covers[-1], to[0])
    mine = sum(it[2] for it in ours)
    return Seen(
        end - begin, Counts(mine, min(mine, sum(it[3] for it in ours))), Counts(requests, min(failed, requests))
    )


def reference_levels(series: Iterable[Series]) -> Mapping[str, list[tuple[float, float]]]:
    """The samples of a gauge that are possible, by pod, where each pod has one series."""
    found = {one.labels["pod"]: [it for it in one.points if abs(it[1]) <= LARGEST] for one in series}
    return {pod: points for pod, points in found.items() if points}
