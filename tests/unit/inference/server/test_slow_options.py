"""American options that no network prices take milliseconds each: they wait for each other, and nobody for them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import orjson

from pinn_inference.pricing.american import SLOW_OPTIONS_AT_MOST
from pinn_inference.server import ServerConfig
from pinn_inference.server.app import SERVICE
from pinn_inference.server.batch.jobs import SLOW_PIECE, SLOW_QUEUE
from pinn_inference.server.served_model import load_configured_model
from pinn_inference.server.service import SOME_OPTIONS
from tests.support.server import PUT, Client, ExactModel, Gate, eventually, running, sample

AMERICAN = {**PUT, "style": "american"}


def columns(count: int) -> dict[str, Any]:
    """American options; up to `SOME_OPTIONS` are priced in the server's own process."""
    return {"columns": {**AMERICAN, "spot": [100] * count}}


async def price(client: Client, document: Any) -> tuple[int, Any]:
    body = json.dumps(document, separators=(",", ":")).encode()
    async with client.post("/v1/price", data=body) as response:
        return response.status, orjson.loads(await response.read())


def slow_model(gate: Gate | None = None) -> ExactModel:
    """Prices both styles; to the server every American option of it is a slow one."""
    model = ExactModel(american=ExactModel())
    if gate is not None:
        model.on_price = lambda batch: gate(batch) if batch.is_american.any() else None
    return model


async def test_more_slow_options_than_a_request_may_have_are_refused_however_few_bytes_they_take() -> None:
    async with running(slow_model()) as client:
        status, answer = await price(client, columns(SLOW_OPTIONS_AT_MOST + 1))
        assert (status, answer["reason"]) == (413, "TooManySlowOptions")
        status, answer = await price(client, columns(SLOW_OPTIONS_AT_MOST))
        assert (status, len(answer["columns"]["price"])) == (200, SLOW_OPTIONS_AT_MOST)


async def test_a_long_request_of_slow_options_lets_a_short_one_pass() -> None:
    gate = Gate()
    model = slow_model(gate)
    async with running(model) as client:
        long = asyncio.create_task(price(client, columns(3 * SLOW_PIECE)))
        await eventually(gate.arrived.is_set)
        short = asyncio.create_task(price(client, AMERICAN))
        assert client.app is not None
        service = client.app[SERVICE]
        await eventually(lambda: service.waiting == 3 * SLOW_PIECE + 1)
        assert sample(client, "pinn_queued_options") == 3 * SLOW_PIECE + 1
        # Prices of others wait for neither.
        assert (await price(client, PUT))[0] == 200
        gate.opened.set()
        assert (await short)[0] == (await long)[0] == 200
        assert [size for size in model.batches if size != 1] == [SLOW_PIECE] * 3
        assert model.batches[-1] == SLOW_PIECE
        assert service.waiting == 0


async def test_a_client_that_has_gone_is_not_priced_for_beyond_its_turn() -> None:
    gate = Gate()
    model = slow_model(gate)
    async with running(model) as client:
        long = asyncio.create_task(price(client, columns(10 * SLOW_PIECE)))
        await eventually(gate.arrived.is_set)
        long.cancel()
        with suppress(asyncio.CancelledError):
            await long
        assert client.app is not None
        await eventually(lambda: client.app is not None and client.app[SERVICE].waiting == 0)
        gate.opened.set()
        assert (await price(client, AMERICAN))[0] == 200
        assert model.batches == [SLOW_PIECE, 1]


async def test_a_full_queue_of_slow_options_is_an_overload_and_ends() -> None:
    gate = Gate()
    async with running(slow_model(gate)) as client:
        waiting = [asyncio.create_task(price(client, columns(SLOW_QUEUE // 8))) for _ in range(8)]
        assert SLOW_QUEUE // 8 <= SOME_OPTIONS
        assert client.app is not None
        service = client.app[SERVICE]
        await eventually(lambda: service.waiting == SLOW_QUEUE)
        status, answer = await price(client, AMERICAN)
        assert (status, answer["reason"]) == (429, "Overloaded")
        gate.opened.set()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        assert (await price(client, AMERICAN))[0] == 200


async def test_what_the_integral_equation_has_priced_once_is_known() -> None:
    outside = {**AMERICAN, "volatility": 1.5, "maturity": 5}
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        _, first = await price(client, outside)
        _, second = await price(client, outside)
        assert (first.pop("cached"), second.pop("cached")) == (False, True)
        assert first == second
        assert first["method"] == "integral_equation"
        assert sample(client, "pinn_prediction_latency_seconds_count", method="integral_equation") == 2
        assert sample(client, "pinn_prediction_latency_seconds_count", method="closed_form") == 0


async def test_options_with_two_exercise_boundaries_are_answered_and_wait_with_the_slow_ones() -> None:
    put = {**AMERICAN, "rate": -0.005, "dividend": -0.0075}
    call = {**AMERICAN, "option_type": "call", "rate": -0.0075, "dividend": -0.005}
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        status, answer = await price(client, {"options": [put, call, PUT]})
        assert status == 200
        methods = [(row["method"], row.get("reason")) for row in answer["results"]]
        assert methods == [("backward_induction", "out_of_domain")] * 2 + [("pinn", None)]
        near_the_band = {**put, "spot": 78, "volatility": 0.05}
        status, first = await price(client, near_the_band)
        status, again = await price(client, near_the_band)
        assert first.pop("cached") != again.pop("cached")
        assert first == again
        assert first["far_exercise_boundary"] < first["exercise_boundary"]
        assert "far_exercise_boundary" not in (await price(client, AMERICAN))[1]
        status, columns_of_both = await price(client, {"columns": {**near_the_band, "style": ["european", "american"]}})
        assert columns_of_both["columns"]["far_exercise_boundary"] == [None, first["far_exercise_boundary"]]
        status, again = await price(client, put)
        assert (again["cached"], again["price"]) == (True, answer["results"][0]["price"])
        status, answer = await price(client, {"columns": {**put, "spot": [100.0] * 63}})
        assert (status, answer["reason"]) == (413, "TooManySlowOptions")
