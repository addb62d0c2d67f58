"""Proof that a revision answers no more requests: its own counters stand still, and were read after they did."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from math import isfinite
from typing import Final

from pinn_operator.core.gates.families import handler_classes
from pinn_operator.core.samples import (
    POD_KEY,
    Answer,
    Awaited,
    PodQuestion,
    Query,
    Question,
    Samples,
    Series,
    SourceError,
    as_series,
    series_of,
)
from pinn_operator.core.wanted.spec import Analysis, SourceKind

STILL_COUNTS: Final = "still-counts"
STILL_SCRAPES: Final = "still-scrapes"
STILL_SECONDS: Final = 2.0
"""How long counters must stand still, seen by a sample after it."""
UNREAD_SECONDS: Final = 10.0
"""Pods that were not read for so long cannot be read: nothing more is to be learned from them."""
_LOOK_BACK: Final = 60.0


def silence_questions(
    analysis: Analysis, selector: str, pods: tuple[str, ...], start: datetime, now: datetime,
    probe_paths: Iterable[str] = (),
) -> tuple[Question, ...]:  # fmt: skip
    """What proves the silence of the pods that `selector` matches, since `start`, when their weight was taken away."""
    names = analysis.names
    begin = max(start, now - timedelta(seconds=_LOOK_BACK))
    asked: list[Question] = []
    if SourceKind.PODS in analysis.sources and pods:
        asked.append(PodQuestion(POD_KEY + names.requests, (names.requests,), pods, begin))
    if SourceKind.PROMETHEUS in analysis.sources:
        quoted = "|".join(handler_classes(probe_paths)).replace("\\", "\\\\")
        series = f'{names.requests}{{{selector},{names.handler_label}!~"{quoted}"}}'
        step = max(0.25, (now - begin).total_seconds() / _LOOK_BACK)
        count = int((now - begin).total_seconds() / step)
        grid_start = now - timedelta(seconds=count * step)
        by = names.pod_label
        asked += [
            Query(STILL_COUNTS, f"sum by ({by}) ({series})", now, start=grid_start, step=step),
            Query(STILL_SCRAPES, f"min by ({by}) (timestamp({series}))", now),
        ]
    return tuple(asked)


def silent(samples: Samples, analysis: Analysis, now: datetime, probe_paths: Iterable[str] = ()) -> bool | None:
    """Whether it is proven that no request has been answered for `STILL_SECONDS`.

    Returns:
        True if proven, False if requests still come or the proof is not yet there, None if there is nothing to ask:
        the pods have no request counters, or no source can answer.
    """
    proofs = []
    read = series_of(samples, POD_KEY + analysis.names.requests)
    if read is not None:
        proofs.append(_pods_stand_still(read, analysis, now, tuple(probe_paths)))
    if any(isinstance(samples.get(key), Awaited) for key in (STILL_COUNTS, STILL_SCRAPES)):
        proofs.append(False)
    counts, scrapes = series_of(samples, STILL_COUNTS), series_of(samples, STILL_SCRAPES)
    if counts is not None and scrapes is not None:
        proofs.append(stands_still(counts, scrapes))
    if any(proof is True for proof in proofs):
        return True
    return None if proofs and all(proof is None for proof in proofs) else False


def resumed(samples: Samples, analysis: Analysis, since: datetime, probe_paths: Iterable[str] = ()) -> bool:
    """Whether counters have moved after `since`, when they were seen to stand still or there was nobody to count.

    A restarted container counts from zero again, which is no request. Prometheus is believed only where the pods cannot
    be read: its samples show late what the pods have shown already.
    """
    read, paths = series_of(samples, POD_KEY + analysis.names.requests), tuple(probe_paths)
    if isinstance(read, tuple):
        counts = [series for series in read if not _is_probe(series.labels, analysis, paths)]
    else:
        scraped = series_of(samples, STILL_COUNTS)
        counts = list(scraped) if isinstance(scraped, tuple) else []
    return any(
        after > before and time > since.timestamp()
        for series in counts
        for (_, before), (time, after) in pairwise(_finite(series))
    )


def stands_still(counts: Answer, scrapes: Answer) -> bool | None:
    """As `silent`, by what Prometheus has: counters on a grid, and when each pod was last scraped."""
    if isinstance(counts, SourceError) or isinstance(scrapes, SourceError):
        return None
    changes = [_last_change(points) for points in map(_finite, as_series(counts)) if points]
    seen = [points[-1][1] for points in map(_finite, as_series(scrapes)) if points]
    if not changes or not seen:
        return None
    return min(seen) - max(changes) >= STILL_SECONDS


def _pods_stand_still(read: Answer, analysis: Analysis, now: datetime, probe_paths: tuple[str, ...]) -> bool | None:
    if isinstance(read, SourceError):
        return None
    kept = [
        points
        for series in as_series(read)
        if not _is_probe(series.labels, analysis, probe_paths) and (points := _finite(series))
    ]
    if not kept or now.timestamp() - max(points[-1][0] for points in kept) > UNREAD_SECONDS:
        return None
    return min(points[-1][0] for points in kept) - max(map(_last_change, kept)) >= STILL_SECONDS


def _is_probe(labels: Mapping[str, str], analysis: Analysis, probe_paths: tuple[str, ...]) -> bool:
    handler = labels.get(analysis.names.handler_label, "")
    return any(re.fullmatch(pattern, handler) for pattern in handler_classes(probe_paths))


def _finite(series: Series) -> list[tuple[float, float]]:
    return [(time, value) for time, value in series.points if isfinite(value)]


def _last_change(points: Sequence[tuple[float, float]]) -> float:
    """The first moment from which on the value never changed."""
    moment = points[0][0]
    for (_, before), (time, after) in pairwise(points):
        if after != before:
            moment = time
    return moment
