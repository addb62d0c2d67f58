"""Questions to the sources of figures, and their answers.

Each kind of question has its own source: PromQL goes to Prometheus, counters of pods to the reader of the pods. An
answer is found by the key of its question, whatever its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import isnan
from typing import Any, Final, NamedTuple, TypeVar

_T = TypeVar("_T")

POD_KEY: Final = "pods/"
"""Keys of pod questions begin so: `pods/http_requests_total`."""
GATE_KEY: Final = "gate/"
"""Keys of the queries of custom gates begin so: `gate/pricing-time`."""
POD_FAULTS: Final = "pods/faults"
"""Under this key are the `PodReadFaults` of a pass that asked any `PodQuestion`."""
FAMILY_LABEL: Final = "__name__"
"""The label that holds the name of the sample, as in Prometheus."""

LARGEST: Final = 2.0**53
"""A counter cannot count beyond: what shows more is no count."""


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
    `pinn_inference_latency_seconds_bucket`. `pods` are names of pods. The answer is `PodCounts`: of each pod every read
    of the last minutes, by the operator's clock, and thinner the older they are. With `start` they begin with the last
    read at or before it. A pod that was never read is not in the answer. A source may answer with `Series` instead,
    with the labels `__name__`, `pod` and those that the pod gives.
    """

    key: str
    families: tuple[str, ...]
    pods: tuple[str, ...]
    start: datetime | None = None


@dataclass(frozen=True, slots=True)
class PriceOption:
    """One option to be priced; years, and decimals per year, continuously compounded."""

    spot: float
    strike: float
    maturity: float
    rate: float
    dividend: float
    volatility: float
    call: bool
    american: bool


class PriceProtocol(StrEnum):
    """How a pod was asked."""

    UNKNOWN = ""
    """It could not be found out, because the pod did not answer."""
    NONE = "None"
    """It has neither."""
    PRICE = "/v1/price"
    OPEN_INFERENCE = "Open Inference Protocol"


@dataclass(frozen=True, slots=True)
class PricePod:
    """A pod that is asked for prices. One that is asked in `full` gets every request, any other only the `sample`."""

    name: str
    address: str
    """`host:port`"""
    canary: bool
    full: bool


@dataclass(frozen=True, slots=True)
class PriceQuestion:
    """Prices that the canary's and the stable pods are asked for.

    A request is a tuple of indices into `options`: one index is asked alone, several together in one list. The requests
    of a wave are sent to all pods at the same moment, the next wave when all of them are answered: what hits every pod
    alike hits the same wave of all. Two questions with one `identity` are one: the answer is the same, nothing is asked
    again.
    """

    key: str
    identity: str
    options: tuple[PriceOption, ...]
    pods: tuple[PricePod, ...]
    waves: tuple[tuple[tuple[int, ...], ...], ...]
    sample: tuple[int, ...]
    """What the other pods are asked for, in one list."""
    timeout_seconds: float
    """For everything."""
    request_seconds: float
    """For one request; one that takes longer has no answer."""
    protocol: PriceProtocol = PriceProtocol.UNKNOWN
    """Which the canary is known to speak: it need not be found out again."""
    sample_times: int = 1
    """How often each of the other pods is asked for the sample; all at the same moment, a few requests at a time."""


@dataclass(frozen=True, slots=True)
class WebhookQuestion:
    """A custom gate that is asked over HTTP, in the background, every `interval` seconds.

    `secret` is the name and the key of a Secret of the resource's namespace. `timeout` is in seconds, for each of
    1 + `retries` attempts. The rest is what the webhook is told; `step` counts from 1. Any change makes a new question,
    which is asked at once: an answer never speaks of another revision or weight.
    """

    key: str
    gate: str
    url: str
    canary: str
    stable: str
    weight: int
    step: int
    interval: float = 30.0
    timeout: float = 5.0
    retries: int = 2
    secret: tuple[str, str] | None = None


Question = Query | PodQuestion | PriceQuestion | WebhookQuestion


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: its labels and (unix seconds, value) points in time order."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class Memo:
    """What was derived from a value that never changes, made once: it lives as long as that value."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, which must follow from the value and the key alone."""
        if key not in self._made:
            self._made[key] = make()
        found: _T = self._made[key]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The series of a pod, in the order of the columns of its reads: their labels, without the pod's name. Pods that
    have the same series share one."""

    series: tuple[Mapping[str, str], ...]
    memo: Memo = field(default_factory=Memo)


class PodReads(NamedTuple):
    """What one pod's series were at each read. Nothing in it ever changes: the next read makes another.

    `times` ascend, in unix seconds. `rows` are the values at each of them by the column of the series; a series that
    was not there is NaN, or its column is beyond the end of the row. `broken` says of families since when they go on
    without a break: from that moment to the last one no series of the family fell, vanished, or had an impossible
    value. One that is not in it never had a break.
    """

    pod: str
    shape: Shape
    times: Sequence[float]
    rows: Sequence[Sequence[float]]
    broken: Mapping[str, float]
    interval: float | None
    """Seconds between its newest reads; None with a single one."""
    memo: Memo
    lasting: dict[Hashable, Any]
    """What is made of its reads one after the other: the next ones have it too, until older reads are thinned."""

    def columns(self, families: tuple[str, ...]) -> list[int]:
        """The columns of the series of these families."""
        return self.shape.memo.once(
            ("columns", families),
            lambda: [place for place, labels in enumerate(self.shape.series) if labels[FAMILY_LABEL] in families],
        )

    def ends(self, families: tuple[str, ...]) -> list[Series]:
        """The same as `series`, with nothing between the first and the last point of each."""
        first, last, found = self.rows[0], self.rows[-1], []
        for column in self.columns(families):
            if column < len(first) and not isnan(first[column]) and not isnan(last[column]):
                points = ((self.times[0], first[column]), (self.times[-1], last[column]))
                found.append(Series(self.shape.series[column], points[: len(self.times)]))
            else:
                found += [Series(one.labels, one.points[:1] + one.points[1:][-1:]) for one in self._series((column,))]
        return found

    def series(self, families: tuple[str, ...]) -> tuple[Series, ...]:
        """The same as series, of those that were there."""
        return self._series(self.columns(families))

    def _series(self, columns: Iterable[int]) -> tuple[Series, ...]:
        found = []
        for column in columns:
            points = tuple(
                (moment, row[column])
                for moment, row in zip(self.times, self.rows, strict=True)
                if column < len(row) and not isnan(row[column])
            )
            if points:
                found.append(Series({**self.shape.series[column], "pod": self.pod}, points))
        return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class PodCounts:
    """The answer to a `PodQuestion`. As long as no pod was read again, it is the same object."""

    families: tuple[str, ...]
    pods: tuple[PodReads, ...]
    memo: Memo = field(default_factory=Memo)

    def series(self) -> tuple[Series, ...]:
        """The same as series, pod after pod."""
        return tuple(one for reads in self.pods for one in reads.series(self.families))


@dataclass(frozen=True, slots=True)
class SourceError:
    """A source could not answer. It is never counted against the canary."""

    message: str
    reason: str = ""
    """Why, as `MetricsAvailable` has it; empty: as a query that failed."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """A source was asked and has not answered yet; its answer wakes a pass. What needs it is not judged until then."""


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
class Quote:
    """A price with its Greeks, as a pod gave it; None for a Greek that it did not give. Any may be NaN or infinite.

    Units are those of `POST /v1/price`: vega and rho per 1.00, theta per year. `error_bound` is in currency, 0 when the
    server knows none.
    """

    price: float
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    rho: float | None = None
    error_bound: float = 0.0
    method: str = ""


class PriceFault(StrEnum):
    """Why a request has no usable answer, beside a status that says so."""

    NONE = ""
    UNREACHABLE = "Unreachable"
    """No connection, or one that broke."""
    SLOW = "Slow"
    """No answer within the time of one request."""
    UNREADABLE = "Unreadable"
    """Status 200 with something else than prices."""


@dataclass(frozen=True, slots=True)
class PriceReply:
    """What one pod answered to one request. `quotes` are in the order of `options`, none unless `status` is 200."""

    wave: int
    """Which of the question's waves; −1 for the sample."""
    options: tuple[int, ...]
    seconds: float
    status: int = 0
    """Of HTTP; 0 without an answer."""
    quotes: tuple[Quote, ...] = ()
    fault: PriceFault = PriceFault.NONE
    message: str = ""
    """Of a fault or an error, in the pod's own words, cut."""

    @property
    def good(self) -> bool:
        """Every option of the request has a quote."""
        return self.status == 200 and not self.fault and len(self.quotes) == len(self.options)


@dataclass(frozen=True, slots=True)
class PodPrices:
    """Everything that one pod answered, in the order in which it was asked."""

    pod: PricePod
    protocol: PriceProtocol
    replies: tuple[PriceReply, ...] = ()
    message: str = ""
    """Why it could not be asked, or has no such interface."""


@dataclass(frozen=True, slots=True, eq=False)
class PriceAnswers:
    """What the pods answered to a `PriceQuestion`. One is equal to itself alone: they are large."""

    question: PriceQuestion
    pods: tuple[PodPrices, ...]
    seconds: float
    """From the first request to the last answer."""
    complete: bool = True
    """False when the time was over before everything was asked."""


class WebhookVerdict(StrEnum):
    """What a webhook may say; the values are those of its JSON."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a webhook said last, to this very question.

    `time` is the moment at which it was asked. `count` answers in a row said the same, the first of them at `since`;
    attempts without an answer in between change neither.
    """

    verdict: WebhookVerdict
    time: datetime
    since: datetime
    count: int = 1
    message: str = ""
    value: float | None = None


Answer = tuple[Series, ...] | PodCounts | SourceError
"""To a `Query` or a `PodQuestion`."""
AnyAnswer = Answer | Awaited | PodReadFaults | PriceAnswers | WebhookAnswer
Samples = Mapping[str, AnyAnswer]
"""Answers by the key of their question. A key that is absent was not asked in this pass, or has no answer yet."""


def series_of(samples: Samples, key: str) -> Answer | None:
    """The answer to a `Query` or a `PodQuestion`; None if it was not asked or has no answer yet."""
    answer = samples.get(key)
    return answer if isinstance(answer, tuple | PodCounts | SourceError) else None


def as_series(answer: tuple[Series, ...] | PodCounts) -> tuple[Series, ...]:
    """The series of an answer, in whatever form it came."""
    return answer.series() if isinstance(answer, PodCounts) else answer


def prices_of(samples: Samples, key: str) -> PriceAnswers | SourceError | None:
    """The answer to a `PriceQuestion`; None if it was not asked or is not there yet."""
    answer = samples.get(key)
    return answer if isinstance(answer, PriceAnswers | SourceError) else None


def pod_reads(samples: Samples) -> PodReadFaults | None:
    """The pods that could not be read in this pass; None if none were asked for."""
    answer = samples.get(POD_FAULTS)
    return answer if isinstance(answer, PodReadFaults) else None
