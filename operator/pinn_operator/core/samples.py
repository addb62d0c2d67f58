"""Questions to the metric source, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL question. With `start` it is a range query from `start` to `end` at `step` seconds, else an instant
    query at `end`. `key` is how `decide` finds the answer."""

    key: str
    expression: str
    end: datetime
    start: datetime | None = None
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: its labels and (unix seconds, value) points in time order."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class SourceError:
    """The metric source could not answer. It is never counted against the canary."""

    message: str


Answer = tuple[Series, ...] | SourceError
Samples = Mapping[str, Answer]
"""Answers by `Query.key`. A key that is absent was not asked in this pass."""
