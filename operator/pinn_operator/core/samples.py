"""Questions to the sources of figures, and their answers.

Each kind of question has its own source: PromQL goes to Prometheus, counters of pods to the reader of the pods. An
answer is found by the key of its question, whatever its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

POD_KEY: Final = "pods/"
"""Keys of pod questions begin so: `pods/http_requests_total`."""
POD_FAULTS: Final = "pods/faults"
"""Under this key are the `PodReadFaults` of a pass that asked any `PodQuestion`."""
FAMILY_LABEL: Final = "__name__"
"""The label that holds the name of the sample, as in Prometheus."""


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
class PodQuestion:
    """Counters and gauges that the operator reads from pods itself.

    `families` are names of samples as `/metrics` shows them: `http_requests_total`,
    `pinn_inference_latency_seconds_bucket`. `pods` are names of pods. The answer has one `Series` for each pod and set
    of labels, with the labels `__name__`, `pod` and those that the pod gives; its points are (unix seconds of the read
    by the operator's clock, value), every read of the last minutes and thinner the older they are. With `start` the
    points begin with the last read at or before it. A pod that was never read has no series.
    """

    key: str
    families: tuple[str, ...]
    pods: tuple[str, ...]
    start: datetime | None = None


@dataclass(frozen=True, slots=True)
class PriceQuestion:
    """Prices that the canary's and the stable pods are asked for."""

    key: str


@dataclass(frozen=True, slots=True)
class WebhookQuestion:
    """A custom gate that is asked over HTTP."""

    key: str


Question = Query | PodQuestion | PriceQuestion | WebhookQuestion


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: its labels and (unix seconds, value) points in time order."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class SourceError:
    """A source could not answer. It is never counted against the canary."""

    message: str


@dataclass(frozen=True, slots=True)
class PodReadFault:
    """Why a pod's metrics could not be read: not reachable, too slow, not metrics. Never the revision's fault."""

    pod: str
    message: str


@dataclass(frozen=True, slots=True)
class PodReadFaults:
    """The pods that were asked for and whose newest read failed, by name. Empty when all could be read."""

    faults: tuple[PodReadFault, ...] = ()


@dataclass(frozen=True, slots=True)
class PriceAnswers:
    """What the pods answered to a `PriceQuestion`."""


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a webhook said."""


Answer = tuple[Series, ...] | SourceError
"""To a `Query` or a `PodQuestion`."""
AnyAnswer = Answer | PodReadFaults | PriceAnswers | WebhookAnswer
Samples = Mapping[str, AnyAnswer]
"""Answers by the key of their question. A key that is absent was not asked in this pass, or has no answer yet."""


def series_of(samples: Samples, key: str) -> Answer | None:
    """The answer to a `Query` or a `PodQuestion`; None if it was not asked or has no answer yet."""
    answer = samples.get(key)
    return answer if isinstance(answer, tuple | SourceError) else None


def pod_faults(samples: Samples) -> tuple[PodReadFault, ...]:
    """The pods that could not be read in this pass."""
    answer = samples.get(POD_FAULTS)
    return answer.faults if isinstance(answer, PodReadFaults) else ()
