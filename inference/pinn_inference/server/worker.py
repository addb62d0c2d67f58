"""One thread that prices what is too large for the event loop, and the queue before it.

Requests that arrive while the thread is busy are merged into one evaluation; when it is idle a request never waits for
company: there is no timer. A request alone is evaluated at once; under load the batches grow by themselves to what
arrived during the last evaluation.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.errors import Overloaded
from pinn_inference.server.metrics import ServerMetrics

PriceFunction = Callable[[OptionBatch], Quotes]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    options: OptionBatch
    answer: asyncio.Future[Quotes]


@dataclass(frozen=True, slots=True)
class _Evaluation:
    outcomes: list[Quotes | Exception]
    seconds: float


class PricingWorker:
    """Prices batches in one thread, in order of arrival.

    `capacity` bounds the options that wait or are priced at one time, `merge_limit` those that are merged into one
    evaluation (a single request may be larger). Use it from one event loop only.
    """

    def __init__(
        self, price: PriceFunction, *, capacity: int, metrics: ServerMetrics, merge_limit: int = 16_384
    ) -> None:
        self._price = price
        self._capacity = capacity
        self._merge_limit = merge_limit
        self._metrics = metrics
        self._pending: deque[_Job] = deque()
        self._outstanding = 0
        self._busy = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pricing")
        self._running: set[asyncio.Task[None]] = set()

    @property
    def outstanding(self) -> int:
        """Options that wait or are being priced."""
        return self._outstanding

    async def price(self, options: OptionBatch) -> Quotes:
        """Price a batch, merged with others if the thread is busy.

        Raises Overloaded at once if the batch does not fit into the queue, and whatever the price function raised.
        Cancelling the caller takes a batch that still waits out of the queue's work.
        """
        size = len(options)
        if self._outstanding + size > self._capacity:
            raise Overloaded(queued=self._outstanding, asked=size, limit=self._capacity)
        job = _Job(options, asyncio.get_running_loop().create_future())
        self._outstanding += size
        self._pending.append(job)
        if not self._busy:
            self._start()
        try:
            return await job.answer
        except asyncio.CancelledError:
            if job in self._pending:
                self._pending.remove(job)
                self._outstanding -= size
            raise

    async def close(self) -> None:
        """Finish what was accepted, then stop the thread."""
        while self._running:
            await asyncio.gather(*self._running)
        self._thread.shutdown(wait=True)

    def _start(self) -> None:
        self._busy = True
        task = asyncio.get_running_loop().create_task(self._drain_pending())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _drain_pending(self) -> None:
        loop = asyncio.get_running_loop()
        jobs: list[_Job] = []
        try:
            while self._pending:
                jobs = self._take()
                batches = [job.options for job in jobs]
                evaluation = await loop.run_in_executor(self._thread, self._evaluate, batches)
                self._answer(jobs, evaluation)
        except RuntimeError as stopped:  # the thread was stopped: nobody may wait for it for ever
            for job in (*jobs, *self._pending):
                if not job.answer.done():
                    job.answer.set_exception(stopped)
            self._pending.clear()
        finally:
            self._busy = False

    def _take(self) -> list[_Job]:
        jobs = [self._pending.popleft()]
        size = len(jobs[0].options)
        while self._pending and size + len(self._pending[0].options) <= self._merge_limit:
            jobs.append(self._pending.popleft())
            size += len(jobs[-1].options)
        return jobs

    def _evaluate(self, batches: Sequence[OptionBatch]) -> _Evaluation:
        """Runs in the thread; an error spoils only the request whose options cause it."""
        started = time.perf_counter()
        outcomes: list[Quotes | Exception]
        try:
            if len(batches) == 1:
                outcomes = [self._price(batches[0])]
            else:
                merged = self._price(OptionBatch.concatenate(batches))
                outcomes, start = [], 0
                for batch in batches:
                    outcomes.append(merged.take(slice(start, start + len(batch))))
                    start += len(batch)
        except Exception as error:  # noqa: BLE001 - handed to the requests it belongs to
            outcomes = [error] if len(batches) == 1 else [self._evaluate([batch]).outcomes[0] for batch in batches]
        return _Evaluation(outcomes, time.perf_counter() - started)

    def _answer(self, jobs: Sequence[_Job], evaluation: _Evaluation) -> None:
        total = sum(len(job.options) for job in jobs)
        self._outstanding -= total
        self._metrics.observe_rows(total)
        for job, outcome in zip(jobs, evaluation.outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._metrics.prediction_errors.labels(type(outcome).__name__).inc()
                if not job.answer.done():
                    job.answer.set_exception(outcome)
                continue
            self._metrics.quotes.count_batch(job.options, outcome)
            self._metrics.observe_prediction(seconds=evaluation.seconds, methods=outcome.method)
            if not job.answer.done():
                job.answer.set_result(outcome)
