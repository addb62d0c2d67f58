"""The built-in metrics as the API knows them. How each is measured is in `core.gates.metrics`, under the same name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Better(StrEnum):
    """Which way a metric should go."""

    LESS = "less"
    MORE = "more"


class Unit(StrEnum):
    """How a value is shown to people."""

    SHARE = "share"
    """0–1 in bounds, percent in messages."""
    SECONDS = "seconds"
    BYTES = "bytes"
    BYTES_PER_HOUR = "bytes per hour"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A built-in metric; `name` is that of its gate in the API.

    `comparable` says that the gate may be compared with the stable revision by a sequential test (`relative`).
    """

    name: str
    unit: Unit
    better: Better = Better.LESS
    comparable: bool = False


_ALL: Final = (
    BuiltIn("error-rate", Unit.SHARE, comparable=True),
    BuiltIn("latency-p50", Unit.SECONDS, comparable=True),
    BuiltIn("latency-p95", Unit.SECONDS, comparable=True),
    BuiltIn("latency-p99", Unit.SECONDS, comparable=True),
    BuiltIn("cache-hit-rate", Unit.SHARE, Better.MORE),
    BuiltIn("fallback-rate", Unit.SHARE, comparable=True),
    BuiltIn("memory", Unit.BYTES),
    BuiltIn("memory-usage", Unit.SHARE),
    BuiltIn("memory-growth", Unit.BYTES_PER_HOUR),
    BuiltIn("availability", Unit.SHARE, Better.MORE),
    BuiltIn("cpu-usage", Unit.SHARE),
    BuiltIn("prediction-spread", Unit.NUMBER, Better.MORE),
    BuiltIn("router-errors", Unit.SHARE, comparable=True),
)

METRICS: Final = {metric.name: metric for metric in _ALL}
"""By the name of their gate, in the order in which documents and messages list them. A test holds the CRD to it."""
