"""Prices small requests on the event loop, those that arrive together in one evaluation.

There is no timer: what one turn of the event loop brings in is priced at its end. A quote alone is priced at once, by
plain floats, in some ten microseconds; under load many connections have something to read in the same turn, and then
their quotes share one array evaluation, which costs a fraction of that for each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pinn_inference.pricing.cache import OptionKey
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.errors import Overloaded
from pinn_inference.server.metrics import ServerMetrics

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 0.001
"""Batches are priced for so long in one turn of the event loop; the rest has to let quotes and probes pass."""


class Pricer(Protocol):
    """What the desk asks for prices; neither method raises because of a model."""

    def quote(self, options: Sequence[OptionKey]) -> list[ScalarQuote]:
        """A few options."""

    def price(self, options: OptionBatch) -> Quotes:
        """A batch of some hundreds at most."""


class Ticket(Protocol):
    """A request for a few quotes, and what to do with them."""

    @property
    def options(self) -> Sequence[OptionKey]:
        """What is asked; nothing if the ticket has its quotes and only waits for its turn."""

    def deliver(self, quotes: Sequence[ScalarQuote], seconds: float) -> None:
        """The quotes, and how long the evaluation took that they were part of. Must not raise."""

    def fail(self, error: Exception) -> None:
        """Called instead of `deliver` when there are no quotes. Must not raise."""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    options: OptionBatch
    answer: asyncio.Future[tuple[Quotes, float]]


class FutureTicket:
    """A ticket for a coroutine that waits."""

    __slots__ = ("answer", "options")

    def __init__(self, options: Sequence[OptionKey]) -> None:
        self.options = options
        self.answer: asyncio.Future[tuple[Sequence[ScalarQuote], float]] = asyncio.get_running_loop().create_future()

    def deliver(self, quotes: Sequence[ScalarQuote], seconds: float) -> None:
        if not self.answer.done():
            self.answer.set_result((quotes, seconds))

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class QuoteDesk:
    """For one event loop only. `capacity` bounds the options that wait in batches."""

    def __init__(self, pricer: Pricer, *, capacity: int, metrics: ServerMetrics) -> None:
        self._pricer = pricer
        self._capacity = capacity
        self._metrics = metrics
        self._tickets: list[Ticket] = []
        self._batches: deque[_Batch] = deque()
        self._waiting = 0
        self._scheduled = False
        self._call_soon: Callable[[Callable[[], None]], object] | None = None

    @property
    def waiting(self) -> int:
        """Options in batches that wait for a turn."""
        return self._waiting

    def submit(self, ticket: Ticket) -> None:
        """Price it with whatever else this turn of the event loop brings; tickets are delivered in their order."""
        self._tickets.append(ticket)
        if not self._scheduled:
            self._schedule()

    async def quote(self, options: Sequence[OptionKey]) -> tuple[Sequence[ScalarQuote], float]:
        """Price a few options; returns the quotes and the seconds they took."""
        ticket = FutureTicket(options)
        self.submit(ticket)
        return await ticket.answer

    async def price(self, options: OptionBatch) -> tuple[Quotes, float]:
        """Price a batch of some hundreds at most; returns the quotes and the seconds they took.

        Raises Overloaded at once if it does not fit. Cancelling the caller takes a waiting batch out.
        """
        size = len(options)
        if self._waiting + size > self._capacity:
            raise Overloaded(queued=self._waiting, asked=size, limit=self._capacity)
        batch = _Batch(options, asyncio.get_running_loop().create_future())
        self._batches.append(batch)
        self._waiting += size
        if not self._scheduled:
            self._schedule()
        return await batch.answer

    def _schedule(self) -> None:
        if self._call_soon is None:
            self._call_soon = asyncio.get_running_loop().call_soon
        self._scheduled = True
        self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        tickets = self._tickets
        if tickets:
            self._tickets = []
            self._serve(tickets)
        if self._batches:
            self._price_batches()

    def _serve(self, tickets: Sequence[Ticket]) -> None:
        options: Sequence[OptionKey]
        if len(tickets) == 1:
            options = tickets[0].options
        else:
            options = [option for ticket in tickets for option in ticket.options]
        started = time.perf_counter()
        try:
            quotes = self._pricer.quote(options) if options else []
        except Exception as error:  # noqa: BLE001 - handed to the requests it belongs to
            self._metrics.prediction_errors.labels(type(error).__name__).inc()
            for ticket in tickets:
                ticket.fail(error)
            return
        seconds = time.perf_counter() - started
        if options:
            count, methods = self._metrics.quotes.count_quote, set()
            for option, quote in zip(options, quotes, strict=True):
                count(option[0], option[1], option[2], quote)
                methods.add(quote.method)
            self._metrics.observe_evaluation(rows=len(options), seconds=seconds, methods=methods)
        if len(tickets) == 1:
            tickets[0].deliver(quotes, seconds)
            return
        start = 0
        for ticket in tickets:
            end = start + len(ticket.options)
            ticket.deliver(quotes[start:end], seconds)
            start = end

    def _price_batches(self) -> None:
        end = time.perf_counter() + TURN_SECONDS
        while self._batches and time.perf_counter() < end:
            batch = self._batches.popleft()
            self._waiting -= len(batch.options)
            if batch.answer.done():  # cancelled: its client has gone
                continue
            started = time.perf_counter()
            try:
                quotes = self._pricer.price(batch.options)
            except Exception as error:  # noqa: BLE001 - handed to the request it belongs to
                self._metrics.prediction_errors.labels(type(error).__name__).inc()
                batch.answer.set_exception(error)
                continue
            seconds = time.perf_counter() - started
            self._metrics.quotes.count_batch(batch.options, quotes)
            self._metrics.observe_evaluation(rows=len(quotes), seconds=seconds, methods=quotes.method)
            batch.answer.set_result((quotes, seconds))
        if self._batches:
            self._schedule()
