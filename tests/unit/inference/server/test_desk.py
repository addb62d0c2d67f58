"""The desk: what arrives together is priced together, batches leave the loop in between, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.cache import OptionKey
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.desk import TURN_SECONDS, QuoteDesk
from pinn_inference.server.errors import Overloaded
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.served_model import options_of, quotes_by_batch
from tests.support.server import options


class Pricer:
    """The closed form, and what it was asked for."""

    def __init__(self, *, seconds: float = 0.0, fails_on_spot: float | None = None) -> None:
        self.turns: list[int] = []
        self.batches: list[int] = []
        self._seconds = seconds
        self._fails_on_spot = fails_on_spot

    def quote(self, options: Sequence[OptionKey]) -> list[ScalarQuote]:
        self.turns.append(len(options))
        self._fail_on(option[0] for option in options)
        return quotes_by_batch(closed_form.price, options)

    def price(self, options: OptionBatch) -> Quotes:
        self.batches.append(len(options))
        time.sleep(self._seconds)
        self._fail_on(options.spot)
        return closed_form.price(options)

    def _fail_on(self, spots: object) -> None:
        if self._fails_on_spot in list(spots):  # type: ignore[call-overload]
            raise ArithmeticError("13")


def desk_of(pricer: Pricer, *, capacity: int = 10_000) -> tuple[QuoteDesk, ServerMetrics]:
    metrics = ServerMetrics()
    return QuoteDesk(pricer, capacity=capacity, metrics=metrics), metrics


def keys(*spots: float) -> list[OptionKey]:
    return options_of(options(*spots))


async def test_a_quote_alone_is_priced_at_once_and_alone() -> None:
    pricer = Pricer()
    desk, _ = desk_of(pricer)
    (quote,), seconds = await desk.quote(keys(90.0))
    assert quote.price == closed_form.price(options(90.0)).price[0]
    assert seconds > 0
    assert pricer.turns == [1]


async def test_what_one_turn_of_the_loop_brings_in_is_priced_together_and_each_gets_its_own() -> None:
    pricer = Pricer()
    desk, metrics = desk_of(pricer)
    asked = [(90.0,), (91.0, 92.0), (93.0,)]
    answers = await asyncio.gather(*(desk.quote(keys(*spots)) for spots in asked))
    assert pricer.turns == [4]
    for spots, (quotes, _) in zip(asked, answers, strict=True):
        assert [quote.price for quote in quotes] == closed_form.price(options(*spots)).price.tolist()
    assert metrics.registry.get_sample_value("pinn_batch_options_bucket", {"le": "4.0"}) == 1
    assert metrics.registry.get_sample_value("pinn_options_priced_total", {"method": "closed_form"}) == 4


async def test_tickets_are_delivered_in_the_order_in_which_they_came() -> None:
    desk, _ = desk_of(Pricer())
    delivered: list[int] = []

    class Ticket:
        def __init__(self, number: int) -> None:
            self.number = number
            self.options = keys(90.0 + number)

        def deliver(self, quotes: Sequence[ScalarQuote], seconds: float) -> None:
            assert quotes[0].price == closed_form.price(options(90.0 + self.number)).price[0]
            delivered.append(self.number)

        def fail(self, error: Exception) -> None:
            raise AssertionError(error)

    for number in range(50):
        desk.submit(Ticket(number))
    await asyncio.sleep(0.01)
    assert delivered == list(range(50))


async def test_an_error_reaches_every_quote_of_its_turn_and_the_desk_goes_on() -> None:
    desk, metrics = desk_of(Pricer(fails_on_spot=13.0))
    answers = await asyncio.gather(desk.quote(keys(90.0)), desk.quote(keys(13.0)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ArithmeticError] * 2
    assert len((await desk.quote(keys(90.0)))[0]) == 1
    assert metrics.registry.get_sample_value("pinn_prediction_errors_total", {"error_type": "ArithmeticError"}) == 1


async def test_batches_leave_the_loop_to_quotes_in_between() -> None:
    pricer = Pricer(seconds=2 * TURN_SECONDS)
    desk, _ = desk_of(pricer)
    order: list[str] = []

    async def batch(number: int) -> None:
        await desk.price(options(*([90.0] * 100)))
        order.append(f"batch {number}")

    async def quote() -> None:
        await asyncio.sleep(0)  # the batches are there before it
        await desk.quote(keys(90.0))
        order.append("quote")

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(batch(number))
        group.create_task(quote())
    assert [one for one in order if one != "quote"] == [f"batch {number}" for number in range(4)]
    assert order.index("quote") <= 1, "it waited for one batch at most"
    assert pricer.batches == [100] * 4
    assert desk.waiting == 0


async def test_a_batch_that_does_not_fit_is_refused_at_once() -> None:
    desk, _ = desk_of(Pricer(), capacity=150)
    first = asyncio.create_task(desk.price(options(*([90.0] * 100))))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="100 options wait or are being priced: 51 more would exceed the limit of 150"):
        await desk.price(options(*([90.0] * 51)))
    quotes, _ = await first
    assert len(quotes) == 100
    assert len((await desk.price(options(*([90.0] * 150))))[0]) == 150


async def test_a_batch_whose_client_has_gone_is_not_priced() -> None:
    pricer = Pricer()
    desk, _ = desk_of(pricer)
    task = asyncio.create_task(desk.price(options(90.0, 91.0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len((await desk.price(options(90.0)))[0]) == 1
    assert pricer.batches == [1]
    assert desk.waiting == 0


async def test_an_error_in_a_batch_spoils_no_other() -> None:
    desk, metrics = desk_of(Pricer(fails_on_spot=13.0))
    answers = await asyncio.gather(desk.price(options(13.0)), desk.price(options(90.0)), return_exceptions=True)
    assert isinstance(answers[0], ArithmeticError)
    assert not isinstance(answers[1], BaseException)
    assert np.array_equal(answers[1][0].price, closed_form.price(options(90.0)).price)
    assert metrics.registry.get_sample_value("pinn_prediction_errors_total", {"error_type": "ArithmeticError"}) == 1
