"""A whole batch, from the bytes of its request to the bytes of its answer.

The child does this with shared memory on both sides, and the server, while the child is away, in a thread of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.batch.protocol import Counts, JobKind
from pinn_inference.server.errors import NonFiniteResult, ServerError, let_go
from pinn_inference.server.inflate import Coding, inflate
from pinn_inference.server.moments import price_moments
from pinn_inference.server.parsing import parse_price_request
from pinn_inference.server.rendering import render_parts

log = logging.getLogger(__name__)

Piece: TypeAlias = bytes | memoryview
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """What answers call the models behind the rows of method `pinn`, `name/version`; empty where there is none."""

    european: str = ""
    american: str = ""

    def version(self, *, american: bool) -> str | None:
        """That of a style's model, None where there is none."""
        return (self.american if american else self.european).partition("/")[2] or None


class Pricer(Protocol):
    """Prices batches; calls come from one thread at a time."""

    @property
    def labels(self) -> ModelLabels: ...

    @property
    def where(self) -> str:
        """Which engine prices at the moment: `numpy`, `tensorflow` or `server`."""

    def price(self, options: OptionBatch) -> Quotes:
        """Prices and Greeks in the options' order."""

    def slow_options(self, options: OptionBatch) -> int:
        """How many of them would take milliseconds each."""


@dataclass(frozen=True, slots=True)
class Work:
    """A request as it came, compressed as `coding` says; `parameters` are those of its kind.

    `max_body_bytes` bounds what it inflates to, and `max_batch` its options.
    """

    kind: JobKind
    body: bytes | memoryview
    parameters: Mapping[str, str]
    max_batch: int
    max_body_bytes: int
    coding: Coding = Coding.NONE


@dataclass(frozen=True, slots=True)
class Answered:
    """All pieces of the answer have been written."""

    content_type: str
    header_length: int | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error is the answer."""

    error: ServerError
    counts: Counts


@dataclass(slots=True)
class _Rendered:
    pieces: Iterable[Piece]
    content_type: str = JSON
    header_length: int | None = None


@dataclass(slots=True)
class _Tally:
    """What is counted while the work goes on."""

    where: str
    options: int = 0
    methods: list[int] = field(default_factory=lambda: [0] * len(Method))
    reasons: list[int] = field(default_factory=lambda: [0] * len(FallbackReason))
    moments: list[list[float]] = field(default_factory=list)
    failed_evaluations: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def part_ended(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._started
        self._started = now

    def failed(self, error: Exception) -> None:
        name = type(error).__name__
        self.failed_evaluations[name] = self.failed_evaluations.get(name, 0) + 1

    def counts(self) -> Counts:
        return Counts(
            where=self.where,
            options=self.options,
            methods=self.methods,
            reasons=self.reasons,
            moments=self.moments,
            failed_evaluations=self.failed_evaluations,
            parse_seconds=self.seconds.get("parse", 0.0),
            evaluation_seconds=self.seconds.get("evaluation", 0.0),
            render_seconds=self.seconds.get("render", 0.0),
        )


SLOW_OPTIONS_AT_MOST: Final = 1000
"""So many options that need the integral equation take some seconds, during which no other batch is priced."""


class TooManySlowOptions(ServerError):
    """American options that no network prices: each takes as long as ten thousand others."""

    status = 413

    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(
            f"options holds {size} American options outside the domain of the model for them, which take milliseconds "
            f"each: at most {limit} fit in one request, send several"
        )


def price_without_model(options: OptionBatch, reason: FallbackReason) -> Quotes:
    """European options in closed form, American ones by the integral equation, which takes milliseconds for each."""
    american = options.is_american
    if not american.any():
        return closed_form.price(options, reason=reason)
    if american.all():
        return integral_equation.price(options, reason=reason)
    parts = [
        closed_form.price(options.take(~american), reason=reason),
        integral_equation.price(options.take(american), reason=reason),
    ]
    # Where each row lies among the European ones followed by the American ones.
    place = np.empty(len(options), dtype=np.intp)
    place[np.argsort(american, kind="stable")] = np.arange(len(options))
    return Quotes.concatenate(parts).take(place)


def perform(work: Work, pricer: Pricer, write: Callable[[Piece], None]) -> Answered | Refusal:
    """Inflate, parse, price, render; `write` takes the pieces of the answer in order.

    A request that is wrong, and a result that is not finite, are a `Refusal`, which keeps nothing of the request. An
    evaluation that raises is counted, and answered without the model.
    """
    tally = _Tally(pricer.where)
    try:
        request, options = _parse(work)
        tally.options = len(options)
        tally.part_ended("parse")
        slow = pricer.slow_options(options)
        if slow > SLOW_OPTIONS_AT_MOST:
            raise TooManySlowOptions(size=slow, limit=SLOW_OPTIONS_AT_MOST)
        quotes = _evaluate(options, pricer, tally)
        tally.part_ended("evaluation")
        rendered = _render(work, request, quotes, pricer.labels)
        for piece in rendered.pieces:
            write(piece)
        tally.part_ended("render")
    except ServerError as error:
        if isinstance(error, NonFiniteResult):
            tally.failed(error)
        let_go(error)
        return Refusal(error, tally.counts())
    return Answered(rendered.content_type, rendered.header_length, tally.counts())


def _evaluate(options: OptionBatch, pricer: Pricer, tally: _Tally) -> Quotes:
    try:
        quotes = pricer.price(options)
    except ServerError:
        raise
    except Exception as error:
        tally.failed(error)
        log.warning("evaluation failed: priced without the model", extra={"error": repr(error)}, exc_info=error)
        quotes = price_without_model(options, FallbackReason.DEVICE_ERROR)
    tally.methods = np.bincount(quotes.method, minlength=len(Method)).tolist()
    tally.reasons = np.bincount(quotes.reason, minlength=len(FallbackReason)).tolist()
    tally.moments = price_moments(options, quotes).tolist()
    return quotes


def _parse(work: Work) -> tuple[Any, OptionBatch]:
    body = inflate(work.body, work.coding, limit=work.max_body_bytes)
    if work.kind is JobKind.PRICE:
        request = parse_price_request(body, max_batch=work.max_batch)
        return request, request.options
    from pinn_inference.server.oip_codec import InferTarget, parse_infer_request

    infer_request = parse_infer_request(body, target=InferTarget(**work.parameters), max_batch=work.max_batch)
    return infer_request, infer_request.options


def _render(work: Work, request: Any, quotes: Quotes, labels: ModelLabels) -> _Rendered:
    if work.kind is JobKind.PRICE:
        parts = render_parts(quotes, model=labels.european, american_model=labels.american, form=request.form)
        return _Rendered(parts)
    from pinn_inference.server.oip_codec import InferTarget, render_infer_answer

    target = InferTarget(**work.parameters)
    answer = render_infer_answer(request, quotes, target=target, version=labels.version(american=target.american))
    return _Rendered(answer.parts, answer.content_type, answer.header_length)
