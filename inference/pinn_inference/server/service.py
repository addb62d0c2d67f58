"""Who prices what: the event loop small requests, the batch process whole large ones, a thread what is between.

Handlers of every protocol come here with options or with a request's body, and get quotes or the body of an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from aiohttp import hdrs, web
from numpy.typing import NDArray

from pinn_inference.pricing.american import SLOW_OPTIONS_AT_MOST
from pinn_inference.pricing.cache import OptionKey
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import BoolArray, FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.batch import (
    BatchAnswer,
    BatchProcess,
    BatchSettings,
    BatchState,
    BatchStatus,
    Counts,
    JobKind,
    ModelLabels,
    RemoteError,
)
from pinn_inference.server.batch.jobs import SLOW_PIECE, SLOW_QUEUE, TooManySlowOptions, slow_pieces, slow_weights
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.desk import QuoteDesk
from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.errors import Overloaded
from pinn_inference.server.inflate import Coding
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.middleware import Observer
from pinn_inference.server.oip_codec import HEADER_LENGTH
from pinn_inference.server.served_model import options_of, quotes_of, scalars_of
from pinn_inference.server.timing import SERVER_TIMING, TIMING, Timing
from pinn_inference.server.worker import PricingWorker

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 16 * 1024
"""Bodies up to about here are parsed, priced and rendered on the event loop; that takes a millisecond at most."""
FEW_OPTIONS: Final = 8
"""Up to here the cache is asked for each option of a request."""
SOME_OPTIONS: Final = 512
"""Up to here a batch is priced on the event loop."""
ANSWER_SECONDS: Final = 60.0
"""A large answer that its client has not taken by then keeps memory that others wait for: the connection is cut."""


class PricingService:
    """For one event loop. Call `start` before anything else, and `close` at the end.

    `has_batch_process` is False for servers whose model exists in this process alone; their large requests are priced
    by a thread.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        engine: PricingEngine,
        metrics: ServerMetrics,
        observer: Observer,
        has_batch_process: bool = True,
    ) -> None:
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._observer = observer
        self._has_batch_process = has_batch_process
        self._batches: BatchProcess | None = None
        self.desk = QuoteDesk(engine, capacity=config.queue_options, metrics=metrics)
        self.worker = PricingWorker(engine.price, capacity=config.queue_options, metrics=metrics)
        # A thread of their own: what takes a millisecond must not wait for what takes seconds.
        self._slow_worker = PricingWorker(
            engine.price, capacity=config.queue_options, metrics=metrics, merge_limit=SLOW_PIECE
        )
        self._slow_waiting = 0
        for state in BatchState:
            metrics.batch_detours.labels(state.value)
        metrics.queued_options.set_function(lambda: float(self.waiting))

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept requests."""
        self._batches = BatchProcess(
            replace(BatchSettings.from_config(self._config), slots=self._config.max_batches),
            price=self._engine.price,
            labels=self._labels,
            slow_rows=self._engine.slow_rows,
            on_restart=lambda _reason: self._metrics.batch_restarts.inc(),
            on_trouble=self._engine.hold_back,
        )

    async def start_batch_process(self) -> None:
        """Start the batch process, which then loads TensorFlow unless that is switched off.

        For a server that is ready: before that it would only take processor time from what the server is waiting for.
        """
        sources = self._engine.sources
        if self._has_batch_process and self._batches is not None and sources is not None:
            await self._batches.start(sources.packed())
            if self._config.tensorflow:
                self._batches.load_tensorflow()

    async def close(self) -> None:
        """Finish what was accepted."""
        await self.worker.close()
        await self._slow_worker.close()
        if self._batches is not None:
            await self._batches.close(within=self._config.inflight_timeout_seconds)

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Options that wait or are being priced in this process."""
        return self.desk.waiting + self.worker.outstanding + self._slow_waiting

    def batch_status(self) -> BatchStatus | None:
        """The batch process, None before the start."""
        return self._batches.status if self._batches is not None else None

    def tensorflow(self) -> Mapping[str, Any]:
        """TensorFlow's state in the batch process, for the health pages: `status`, `version`, `gpu_available`."""
        status = self.batch_status()
        described: dict[str, Any] = {"status": "not_loaded", "version": None, "gpu_available": False}
        if status is None:
            return described
        described.update(status.tensorflow)
        if not self._config.tensorflow:
            described["status"] = "off"
        elif status.state in (BatchState.STARTING, BatchState.LOADING) and described["status"] == "not_loaded":
            described["status"] = "loading"
        described["batch_process"] = {
            "state": status.state.value,
            "restarts": status.restarts,
            "waiting": status.waiting,
            **({"message": status.message} if status.message else {}),
        }
        return described

    def _labels(self) -> ModelLabels:
        engine = self._engine
        return ModelLabels(engine.label(), engine.label(american=True), engine.greek_bounds)

    # --- pricing ----------------------------------------------------------------------------------------------------

    async def price(self, options: OptionBatch) -> tuple[Quotes, BoolArray]:
        """Price a batch; also says which rows came from the cache.

        Raises Overloaded and TooManySlowOptions.
        """
        rows = len(options)
        american = bool(options.is_american.any())
        if rows <= FEW_OPTIONS:
            if not american:
                return quotes_of((await self.desk.quote(options_of(options)))[0])
            # What is remembered is known by its numbers alone, which a schedule is not among.
            if not options.schedules and (known := self.quote_quickly(options_of(options))) is not None:
                return quotes_of(known[0])
        quotes = await self._price_afresh(options)
        if american and rows <= FEW_OPTIONS and not options.schedules:
            self._remember(options, quotes)
        return quotes, np.zeros(rows, dtype=np.bool_)

    async def _price_afresh(self, options: OptionBatch) -> Quotes:
        """Price a batch without the cache: on the event loop, in a thread, or, slow options, in a thread of theirs."""
        if options.is_american.any():
            weights = slow_weights(options, self._engine.slow_rows(options))
            return await (self._price_slowly(options, weights) if weights.any() else self.worker.price(options))
        if len(options) <= SOME_OPTIONS:
            return (await self.desk.price(options))[0]
        return await self.worker.price(options)

    def quote_quickly(self, options: Sequence[OptionKey]) -> tuple[list[ScalarQuote], float] | None:
        """A few quotes of either style, at once, and the seconds they took; None if that would hold up the loop."""
        started = time.perf_counter()
        quotes = self._engine.quote_quickly(options)
        if quotes is None:
            return None
        seconds = time.perf_counter() - started
        for option, quote in zip(options, quotes, strict=True):
            self._metrics.quotes.count_quote(option[0], option[1], option[2], quote)
        methods = {quote.method for quote in quotes}
        self._metrics.observe_evaluation(rows=len(quotes), seconds=seconds, methods=methods)
        return quotes, seconds

    async def _price_slowly(self, options: OptionBatch, weights: NDArray[np.intp]) -> Quotes:
        """American options that their network does not price take milliseconds each. Requests with such options take
        turns, and one whose client has gone ends with its turn.
        """
        slow = int(weights.sum())
        if slow > SLOW_OPTIONS_AT_MOST:
            raise TooManySlowOptions(size=slow, limit=SLOW_OPTIONS_AT_MOST)
        if self._slow_waiting + slow > SLOW_QUEUE:
            raise Overloaded(queued=self._slow_waiting, asked=slow, limit=SLOW_QUEUE, what="slow American options")
        self._slow_waiting += slow
        try:
            pieces = [options.take(rows) for rows in slow_pieces(np.maximum(weights, 1))]
            return Quotes.concatenate([await self._slow_worker.price(piece) for piece in pieces])
        finally:
            self._slow_waiting -= slow

    def _remember(self, options: OptionBatch, quotes: Quotes) -> None:
        """Keep what took long for whoever asks the same again; not what came from a failure, which may pass."""
        cache = self._engine.cache
        if cache is None:
            return
        for key, quote in zip(options_of(options), scalars_of(quotes), strict=True):
            if key[7] and quote.reason not in (FallbackReason.DEVICE_ERROR, FallbackReason.NOT_FINITE):
                cache.store(key, quote)

    async def price_again(self, options: OptionBatch) -> Quotes:
        """Price a batch that is asked for again and again, as reports are. What is remembered of it takes no room from
        the quotes that clients ask for.

        Raises what `price` does.
        """
        cache = self._engine.cache
        if cache is None:
            return await self._price_afresh(options)
        keys = options_of(options)
        found = [cache.reports.get(key) for key in keys]
        known = [quote for quote in found if quote is not None]
        if len(known) == len(found):
            return quotes_of(known)[0]
        missing = np.array([quote is None for quote in found])
        made = await self._price_afresh(options.take(missing))
        fresh = iter(scalars_of(made))
        for row in np.flatnonzero(missing).tolist():
            quote = found[row] = next(fresh)
            cache.reports.put(keys[row], quote)
        return quotes_of([quote for quote in found if quote is not None])[0]

    async def answer_large(
        self,
        request: web.Request,
        body: AsyncIterator[bytes],
        kind: JobKind,
        parameters: Mapping[str, str] | None = None,
        coding: Coding = Coding.NONE,
    ) -> web.StreamResponse:
        """The answer to a request with a large body, sent; inflated, parsed, priced and rendered in the batch process.

        Raises what `BatchProcess.run` does.
        """
        assert self._batches is not None, "start comes first"
        try:
            answer = await self._batches.run(kind, body, parameters=parameters, coding=coding)
        except RemoteError as error:
            self._count(error.counts)
            raise
        with answer:
            self._observer.answer_ready(request)
            self._count(answer.counts)
            return await self._send(request, answer)

    async def _send(self, request: web.Request, answer: BatchAnswer) -> web.StreamResponse:
        counts = answer.counts
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: answer.content_type})
        response.content_length = answer.length
        if answer.header_length is not None:
            response.headers[HEADER_LENGTH] = str(answer.header_length)
        timing = Timing(sum(counts.methods), counts.parse_seconds, counts.evaluation_seconds, counts.render_seconds)
        request[TIMING] = timing
        response.headers[SERVER_TIMING] = timing.header
        self._observer.name_answer(request, response)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await response.prepare(request)
                for piece in answer.pieces():
                    await response.write(piece)
                    # A client that keeps up never makes `write` wait: single quotes get their turn here.
                    await asyncio.sleep(0)
                await response.write_eof()
        except ConnectionError:
            self._observer.client_gone(request)
        except TimeoutError:
            log.warning("a client did not take its answer", extra={"bytes": answer.length, "seconds": ANSWER_SECONDS})
            self._observer.client_gone(request)
            if request.transport is not None:
                request.transport.abort()
        return response

    def _count(self, counts: Counts) -> None:
        metrics = self._metrics
        for name, number in counts.failed_evaluations.items():
            metrics.prediction_errors.labels(name).inc(number)
        if counts.where == "server" and self._has_batch_process:
            status = self.batch_status()
            metrics.batch_detours.labels(status.state.value if status is not None else "closed").inc()
        if counts.moments:
            metrics.quotes.count_elsewhere(counts.methods, counts.reasons, counts.moments)
            methods = {method for method in Method if counts.methods[method]}
            metrics.observe_evaluation(rows=counts.options, seconds=counts.evaluation_seconds, methods=methods)
