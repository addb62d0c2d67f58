"""A whole batch, from the bytes of its request to the bytes of its answer.

The child does this with shared memory on both sides, and the server, while the child is away, in a thread of its own.
Options that no network prices take a thousand times as long as others: a batch with such options is priced in pieces,
and between them whoever runs it can do what is quick (`SlowBatches`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.american import SLOW_OPTIONS_AT_MOST, AmericanModel, never_exercised, put_terms
from pinn_inference.pricing.american_domain import has_two_boundaries
from pinn_inference.pricing.american_implied_volatility import AmericanSearch
from pinn_inference.pricing.american_network import inside
from pinn_inference.pricing.implied_volatility import ImpliedVolatilities
from pinn_inference.pricing.model_set import StyleModel
from pinn_inference.pricing.types import BoolArray, FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.batch.protocol import Counts, JobKind, Refused
from pinn_inference.server.errors import NonFiniteResult, Overloaded, ServerError, let_go
from pinn_inference.server.implied_volatility import ImpliedRequest, parse_implied_request, render_implied
from pinn_inference.server.inflate import Coding, inflate
from pinn_inference.server.moments import price_moments
from pinn_inference.server.more_greeks import greeks_of, parse_request
from pinn_inference.server.rendering import render_parts
from pinn_inference.server.scenarios import parse_scenarios, render_scenarios

log = logging.getLogger(__name__)

Piece: TypeAlias = bytes | memoryview
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """What answers say of the models behind the rows of method `pinn`: `name/version`; empty where there is none."""

    european: str = ""
    american: str = ""
    greek_bounds: Mapping[str, float] = field(default_factory=dict)
    """The American model's, see `StyleModel.greek_bounds`; empty where there is none."""

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

    def slow_rows(self, options: OptionBatch) -> BoolArray:
        """Which of them would take milliseconds each, shape (n,)."""


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

    def priced(self, options: OptionBatch, quotes: Quotes) -> None:
        self.methods = np.bincount(quotes.method, minlength=len(Method)).tolist()
        self.reasons = np.bincount(quotes.reason, minlength=len(FallbackReason)).tolist()
        self.moments = price_moments(options, quotes).tolist()

    def failed(self, error: Exception) -> None:
        name = type(error).__name__
        self.failed_evaluations[name] = self.failed_evaluations.get(name, 0) + 1

    def waited(self, seconds: float) -> None:
        """So long something else was done."""
        self._started += seconds

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


SLOW_QUEUE: Final = 4 * SLOW_OPTIONS_AT_MOST
"""Slow options that may wait at one time, some ten or twenty seconds of work; a request beyond it is answered 429."""
IMPLIED_SLOW_AT_MOST: Final = SLOW_OPTIONS_AT_MOST // 10
"""Slow options whose volatilities one request may ask for: each is priced up to ten times."""
SLOW_PIECE: Final = 16
"""Slow options that are priced before something else has its turn; fewer at once take longer each."""
_QUICK_SHARE: Final = 4.0
"""Quick work goes first, but for one piece of slow work after so many times that piece's own time."""


_BACKWARD: Final = 16
"""So many options of the integral equation take the time of one that is solved backwards in time."""
_DIVIDENDS: Final = 8
"""And so many dividends as much again."""


class TooManySlowOptions(ServerError):
    """American options that no network prices: each takes as long as ten thousand others."""

    status = 413

    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(
            f"options holds {size} American options outside the domain of the model for them, which take milliseconds "
            f"each, those with two exercise boundaries or with dividends counted {_BACKWARD} times and more: at most "
            f"{limit} fit in one request, send several"
        )


def slow_weights(options: OptionBatch, slow: BoolArray) -> NDArray[np.intp]:
    """In how many options of the integral equation each of the rows is worth counting, 0 where it is not slow."""
    weights = slow.astype(np.intp)
    if slow.any():
        weights[slow & has_two_boundaries(options)] = _BACKWARD
    for row in np.flatnonzero(slow & options.waits_for_dividends).tolist():
        weights[row] = _BACKWARD * (1 + len(options.schedules[row].dividends) // _DIVIDENDS)
    return weights


def slow_pieces(weights: NDArray[np.intp]) -> Iterator[slice]:
    """Rows of together about the weight of `SLOW_PIECE`, one after the other; at least one each."""
    start = weight = 0
    for row, more in enumerate(weights.tolist()):
        if row > start and weight + more > SLOW_PIECE:
            yield slice(start, row)
            start, weight = row, 0
        weight += more
    if start < len(weights):
        yield slice(start, len(weights))


def slow_rows(options: OptionBatch, american: StyleModel | None) -> BoolArray:
    """Which options the integral equation has to price, at milliseconds each, where `american` is what is in use.

    Shape (n,).
    """
    slow: BoolArray = options.is_american.copy()
    if not slow.any():
        return slow
    rows = options.take(slow)
    unknown = ~never_exercised(rows)
    if isinstance(american, AmericanModel):
        puts = put_terms(rows)
        unknown &= ~inside(american.artefact.networks.domain, puts.s, puts.kappa, puts.lambda_)
    slow[slow] = (unknown | rows.waits_for_dividends) & (rows.maturity > 0.0)  # what has ended is worth its payoff
    return slow


def price_without_model(options: OptionBatch, reason: FallbackReason) -> Quotes:
    """European options in closed form, American ones by the integral equation, which takes milliseconds for each.

    Raises EngineFailed for more than a thousand of those.
    """
    american = options.is_american
    if (slow := int(np.count_nonzero(slow_rows(options, None)))) > SLOW_OPTIONS_AT_MOST:
        raise EngineFailed(size=slow)
    if not american.any():
        return closed_form.price(options, reason=reason)
    if american.all():
        return integral_equation.price(options, reason=reason)
    parts = (
        (~american, closed_form.price(options.take(~american), reason=reason)),
        (american, integral_equation.price(options.take(american), reason=reason)),
    )
    return Quotes.assembled(len(options), parts)


class EngineFailed(ServerError):
    """The engine for American options failed, and there are more of them than can be priced without it."""

    status = 500

    def __init__(self, *, size: int) -> None:
        super().__init__(
            f"the engine for American options failed: {size} of them cannot be priced without it in one request, "
            f"{SLOW_OPTIONS_AT_MOST} can"
        )


def refused(number: int, refusal: Refusal) -> Refused:
    """The message about a refusal of job `number`."""
    error = refusal.error
    return Refused(number, error.status, error.reason, str(error), error.details(), dict(error.headers), refusal.counts)


Steps: TypeAlias = Generator[int, None, "Answered | Refusal"]
"""A batch being priced: yields how many slow options it still has, before each piece of them."""


def perform(work: Work, pricer: Pricer, write: Callable[[Piece], None], admit: Callable[[int], None]) -> Steps:
    """Inflate, parse, price, render; `write` takes the pieces of the answer in order.

    A request that is wrong, and a result that is not finite, are a `Refusal`, which keeps nothing of the request. An
    evaluation that raises is counted, and answered without the model. `admit` is told how many slow options there are,
    and may raise a ServerError against them.
    """
    tally = _Tally(pricer.where)
    try:
        request = _parse(work)
        tally.options = len(request.options)
        tally.part_ended("parse")
        if isinstance(request, ImpliedRequest):
            found = yield from _imply(request, pricer, tally, admit)
            tally.part_ended("evaluation")
            rendered = _Rendered(render_implied(found, form=request.form, maturity=request.told_maturity))
        else:
            quotes = yield from _evaluate(request.options, pricer, tally, admit)
            if work.kind is not JobKind.SCENARIOS:  # what nobody trades at tells nothing of the revision
                tally.priced(request.options, quotes)
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


def _evaluate(
    options: OptionBatch,
    pricer: Pricer,
    tally: _Tally,
    admit: Callable[[int], None],
    *,
    most_slow: int = SLOW_OPTIONS_AT_MOST,
) -> Generator[int, None, Quotes]:
    slow = pricer.slow_rows(options)
    weights = slow_weights(options, slow)
    left = int(weights.sum())
    if left > most_slow:
        raise TooManySlowOptions(size=left, limit=most_slow)
    if left:
        admit(left)
    quick = ~slow
    parts: list[tuple[np.ndarray[Any, Any], Quotes]] = []
    price = pricer.price
    if not left or quick.any():
        try:
            parts.append((quick, price(options.take(quick) if left else options)))
        except ServerError:
            raise
        except Exception as error:
            _failed(error, tally)
            european = quick & ~slow_rows(options, None)
            slow = ~european
            weights = slow_weights(options, slow)
            if (failed := int(weights.sum())) > SLOW_OPTIONS_AT_MOST:
                raise EngineFailed(size=failed) from error
            admit(failed - left)
            left, price = failed, _without_device
            if european.any():
                parts.append((european, price(options.take(european))))
    rows = np.flatnonzero(slow)
    for chosen in slow_pieces(weights[rows]):
        waits = time.perf_counter()
        yield left
        tally.waited(time.perf_counter() - waits)
        piece = rows[chosen]
        left -= int(weights[piece].sum())
        try:
            part = price(options.take(piece))
        except Exception as error:  # noqa: BLE001 - counted and logged there
            _failed(error, tally)
            part = _without_device(options.take(piece))
        parts.append((piece, part))
    return parts[0][1] if not len(rows) else Quotes.assembled(len(options), parts)


def _imply(
    request: ImpliedRequest, pricer: Pricer, tally: _Tally, admit: Callable[[int], None]
) -> Generator[int, None, ImpliedVolatilities]:
    """Volatilities of prices: European ones at once, American ones by pricing them some five times.

    What those prices are is counted nowhere: nobody asked for them.
    """
    american = request.options.is_american
    if not american.any():
        return request.of_european()
    search = AmericanSearch(request.options.take(american), request.price[american])
    while (options := search.trial) is not None:
        waits = time.perf_counter()
        yield 0  # a round takes as long as a batch: others have their turn
        tally.waited(time.perf_counter() - waits)
        search.learn((yield from _evaluate(options, pricer, tally, admit, most_slow=IMPLIED_SLOW_AT_MOST)))
    if american.all():
        return search.found
    found = ImpliedVolatilities.empty(len(american))
    found.put(np.flatnonzero(american), search.found)
    found.put(np.flatnonzero(~american), request.of_european(~american))
    return found


def _failed(error: Exception, tally: _Tally) -> None:
    tally.failed(error)
    log.warning("evaluation failed: priced without the model", extra={"error": repr(error)}, exc_info=error)


def _without_device(options: OptionBatch) -> Quotes:
    return price_without_model(options, FallbackReason.DEVICE_ERROR)


J = TypeVar("J")


@dataclass(slots=True, eq=False)
class SlowBatch(Generic[J]):
    """A batch that has begun and has slow options left."""

    job: J
    steps: Steps
    left: int


class SlowBatches(Generic[J]):
    """Batches with slow options, which are priced a piece of each in turn when there is nothing quick to do.

    Quick work goes first; that it never ends does not keep slow work waiting for ever (`is_due`).
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._batches: deque[SlowBatch[J]] = deque()
        self._piece_seconds = 0.0
        self._quick_seconds = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def jobs(self) -> list[J]:
        """Those that wait for their next turn."""
        return [batch.job for batch in self._batches]

    @property
    def is_due(self) -> bool:
        """Whether quick work has had its share, and a piece of slow work is next whatever else there is to do."""
        return bool(self._batches) and self._quick_seconds > _QUICK_SHARE * self._piece_seconds

    def admit(self, slow: int) -> None:
        """Raises Overloaded if so many slow options more would be too many."""
        waiting = sum(batch.left for batch in self._batches)
        if waiting + slow > SLOW_QUEUE:
            raise Overloaded(queued=waiting, asked=slow, limit=SLOW_QUEUE, what="slow American options")

    def begin(self, job: J, steps: Steps) -> Answered | Refusal | None:
        """Does all that is quick; None if the batch has slow options, and has been put into the queue.

        Raises what `steps` does.
        """
        started = self._clock()
        try:
            return self._go_on(SlowBatch(job, steps, 0))
        finally:
            self._quick_seconds += self._clock() - started

    def take(self) -> SlowBatch[J]:
        """The batch whose turn it is; `go_on` with it. Raises IndexError if there is none."""
        return self._batches.popleft()

    def go_on(self, batch: SlowBatch[J]) -> Answered | Refusal | None:
        """Prices one piece of a batch that was taken; None if it has more, and waits for its next turn.

        Raises what its steps do.
        """
        started = self._clock()
        try:
            return self._go_on(batch)
        finally:
            self._piece_seconds = self._clock() - started
            self._quick_seconds = 0.0

    def drop(self, is_dropped: Callable[[J], bool]) -> list[J]:
        """Take out the batches that nobody waits for any more; returns their jobs."""
        dropped = [batch for batch in self._batches if is_dropped(batch.job)]
        for batch in dropped:
            self._batches.remove(batch)
            batch.steps.close()
        return [batch.job for batch in dropped]

    def _go_on(self, batch: SlowBatch[J]) -> Answered | Refusal | None:
        try:
            batch.left = next(batch.steps)
        except StopIteration as ended:
            outcome: Answered | Refusal = ended.value
            return outcome
        self._batches.append(batch)
        return None


def _parse(work: Work) -> Any:
    """The request, which has `options`."""
    body = inflate(work.body, work.coding, limit=work.max_body_bytes)
    if work.kind is JobKind.PRICE:
        return parse_request(body, max_batch=work.max_batch)
    if work.kind is JobKind.IMPLIED:
        return parse_implied_request(body, max_batch=work.max_batch)
    if work.kind is JobKind.SCENARIOS:
        return parse_scenarios(body, max_batch=work.max_batch)
    from pinn_inference.server.oip_codec import InferTarget, parse_infer_request

    return parse_infer_request(body, target=InferTarget(**work.parameters), max_batch=work.max_batch)


def _render(work: Work, request: Any, quotes: Quotes, labels: ModelLabels) -> _Rendered:
    if work.kind is JobKind.PRICE:
        answer = request.settled(quotes)
        parts = render_parts(
            answer,
            model=labels.european,
            american_model=labels.american,
            form=request.form,
            maturity=request.told_maturity,
            greeks=greeks_of(request, answer, american_bounds=labels.greek_bounds),
        )
        return _Rendered(parts)
    if work.kind is JobKind.SCENARIOS:
        return _Rendered(render_scenarios(request, quotes, model=labels.european, american_model=labels.american))
    from pinn_inference.server.oip_codec import InferTarget, render_infer_answer

    target = InferTarget(**work.parameters)
    answer = render_infer_answer(request, quotes, target=target, version=labels.version(american=target.american))
    return _Rendered(answer.parts, answer.content_type, answer.header_length)
