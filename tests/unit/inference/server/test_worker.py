"""The pricing queue: merging, bounds, cancellation, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.errors import Overloaded
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.worker import PricingWorker
from tests.support.server import ExactModel, Gate, options


@asynccontextmanager
async def worker_for(model: ExactModel, *, capacity: int = 100, merge_limit: int = 50) -> AsyncIterator[PricingWorker]:
    worker = PricingWorker(model.price, capacity=capacity, merge_limit=merge_limit, metrics=ServerMetrics())
    try:
        yield worker
    finally:
        await worker.close()


async def until(event: object, *, seconds: float = 10) -> None:
    await asyncio.wait_for(asyncio.to_thread(event.wait, seconds), seconds)  # type: ignore[attr-defined]


async def test_a_request_alone_is_evaluated_alone_and_at_once() -> None:
    model = ExactModel()
    async with worker_for(model) as worker:
        quotes = await worker.price(options(90.0, 100.0))
    assert model.batches == [2]
    assert np.array_equal(quotes.price, closed_form.price(options(90.0, 100.0)).price)


async def test_what_arrives_during_an_evaluation_is_merged_into_the_next_and_each_gets_its_own_rows() -> None:
    gate = Gate()
    model = ExactModel(on_price=gate)
    async with worker_for(model) as worker:
        first = asyncio.create_task(worker.price(options(80.0)))
        await until(gate.arrived)
        others = [asyncio.create_task(worker.price(options(*(90.0 + k for k in range(n))))) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        answers = await asyncio.gather(*others)
    assert model.batches == [1, 6]
    for n, quotes in zip((1, 2, 3), answers, strict=True):
        expected = closed_form.price(options(*(90.0 + k for k in range(n))))
        assert np.array_equal(quotes.price, expected.price)


async def test_merging_stops_at_its_limit_but_a_larger_request_passes_whole() -> None:
    gate = Gate()
    model = ExactModel(on_price=gate)
    async with worker_for(model, capacity=1000, merge_limit=4) as worker:
        first = asyncio.create_task(worker.price(options(80.0)))
        await until(gate.arrived)
        tasks = [asyncio.create_task(worker.price(options(*([90.0] * n)))) for n in (2, 2, 1, 9, 1)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *tasks)
    assert model.batches == [1, 4, 1, 9, 1]


async def test_a_full_queue_refuses_at_once_and_takes_requests_again_when_it_is_empty() -> None:
    gate = Gate()
    model = ExactModel(on_price=gate)
    async with worker_for(model, capacity=3) as worker:
        first = asyncio.create_task(worker.price(options(80.0, 81.0)))
        await until(gate.arrived)
        with pytest.raises(Overloaded, match="2 options wait or are being priced: 2 more would exceed the limit of 3"):
            await worker.price(options(90.0, 91.0))
        gate.opened.set()
        await first
        assert len(await worker.price(options(90.0, 91.0, 92.0))) == 3
        assert worker.outstanding == 0


async def test_a_cancelled_request_leaves_the_queue_and_is_not_evaluated() -> None:
    gate = Gate()
    model = ExactModel(on_price=gate)
    async with worker_for(model) as worker:
        first = asyncio.create_task(worker.price(options(80.0)))
        await until(gate.arrived)
        gone = asyncio.create_task(worker.price(options(90.0, 91.0)))
        await asyncio.sleep(0)
        assert worker.outstanding == 3
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert worker.outstanding == 1
        gate.opened.set()
        await first
    assert model.batches == [1]


async def test_a_request_cancelled_during_its_evaluation_leaves_nothing_behind() -> None:
    gate = Gate()
    async with worker_for(ExactModel(on_price=gate)) as worker:
        gone = asyncio.create_task(worker.price(options(80.0)))
        await until(gate.arrived)
        gone.cancel()
        gate.opened.set()
        assert len(await worker.price(options(90.0))) == 1
        assert worker.outstanding == 0


async def test_an_error_in_a_merged_evaluation_spoils_only_the_request_that_causes_it() -> None:
    gate = Gate()

    def fail_on_spot_13(batch: OptionBatch) -> None:
        gate(batch)
        if (batch.spot == 13.0).any():
            raise ArithmeticError("13")

    model = ExactModel(on_price=fail_on_spot_13)
    metrics = ServerMetrics()
    worker = PricingWorker(model.price, capacity=100, metrics=metrics)
    first = asyncio.create_task(worker.price(options(80.0)))
    await until(gate.arrived)
    good, bad = (asyncio.create_task(worker.price(options(spot))) for spot in (90.0, 13.0))
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    assert isinstance(await good, Quotes)
    with pytest.raises(ArithmeticError, match="13"):
        await bad
    assert worker.outstanding == 0
    assert metrics.registry.get_sample_value("pinn_prediction_errors_total", {"error_type": "ArithmeticError"}) == 1
    await worker.close()


async def test_closing_finishes_what_was_accepted() -> None:
    gate = Gate()
    worker = PricingWorker(ExactModel(on_price=gate).price, capacity=100, metrics=ServerMetrics())
    tasks = [asyncio.create_task(worker.price(options(spot))) for spot in (80.0, 90.0)]
    await until(gate.arrived)
    closing = asyncio.create_task(worker.close())
    await asyncio.sleep(0)
    gate.opened.set()
    await closing
    assert all(task.done() for task in tasks)


async def test_after_closing_a_request_fails_instead_of_waiting_for_ever() -> None:
    worker = PricingWorker(ExactModel().price, capacity=100, metrics=ServerMetrics())
    await worker.close()
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(worker.price(options(80.0)), 5)


async def test_a_thousand_requests_at_once_are_all_answered_right() -> None:
    model = ExactModel()
    spots = [50.0 + k / 10 for k in range(1000)]
    async with worker_for(model, capacity=1000, merge_limit=100) as worker:
        answers = await asyncio.gather(*(worker.price(options(spot)) for spot in spots))
    prices = [float(quotes.price[0]) for quotes in answers]
    assert np.allclose(prices, closed_form.price(options(*spots)).price, rtol=1e-12)
    assert sum(model.batches) == 1000
    assert len(model.batches) < 100
