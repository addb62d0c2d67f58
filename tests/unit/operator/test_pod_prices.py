"""Asking real servers on the loopback for prices."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from pinn_inference.server import ServerConfig
from pinn_inference.server.served_model import load_configured_model
from pinn_operator.core.samples import PriceFault, PricePod, PriceProtocol, PriceQuestion, PriceReply, Quote
from pinn_operator.core.status.verification import VerificationVerdict
from pinn_operator.core.verification.compare import compare
from pinn_operator.core.verification.grid import grid, sample
from pinn_operator.core.verification.waves import worth_a_look
from pinn_operator.pods import prices
from pinn_operator.pods.prices import PriceReader, Unreadable, ask_pods, read_list, read_single, read_tensors
from tests.support import server
from tests.support.prices import question

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPTIONS = 24


@asynccontextmanager
async def serving(*routes: tuple[str, Handler]) -> AsyncIterator[str]:
    """The address of a server with these paths."""
    app = web.Application()
    for path, handler in routes:
        app.router.add_post(path, handler)
    async with TestServer(app) as running:
        yield f"127.0.0.1:{running.port}"


def asked(canary: str, stable: str = "", *, options: int = OPTIONS, **changes: Any) -> PriceQuestion:
    pods = [PricePod("eu-bbbb-x-1", canary, canary=True, full=True)]
    if stable:
        pods.append(PricePod("eu-aaaa-x-1", stable, canary=False, full=True))
    return replace(question(options, *pods), sample=sample(options, 10, 0), **changes)


def quote(number: float = 1.0) -> dict[str, Any]:
    return {"price": number, "delta": 0.5, "gamma": 0.1, "vega": 2, "theta": -3.5, "rho": 1e-3, "method": "pinn",
            "error_bound": 1e-6, "cached": False}  # fmt: skip


async def well(request: web.Request) -> web.Response:
    """Some price for whatever is asked."""
    body = await request.json()
    if "options" in body:
        return web.json_response({"results": [quote() for _ in body["options"]]})
    return web.json_response(quote())


def answering(make: Callable[[], web.Response]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return make()

    return handler


async def one(handler: Handler, **changes: Any) -> PriceReply:
    """The first reply of a server that answers so."""
    async with serving(("/v1/price", handler)) as address:
        answers = await ask_pods(asked(address, **changes))
    return answers.pods[0].replies[0]


# --- the bundled server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/price", "/v2"])
async def test_the_bundled_server_is_verified_against_itself_by_either_protocol(path: str) -> None:
    def models() -> Any:
        return load_configured_model(ServerConfig())

    @web.middleware
    async def only(request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith(path):
            raise web.HTTPNotFound
        answer: web.StreamResponse = await handler(request)
        return answer

    middlewares = [only] if path == "/v2" else []
    async with (
        server.running(models, middlewares=middlewares) as canary,
        server.running(models, middlewares=middlewares) as stable,
    ):
        what = asked(f"127.0.0.1:{canary.port}", f"127.0.0.1:{stable.port}", options=96)
        answers = await ask_pods(what)
    shown = compare(what, answers, tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.PASS, "PricesMatch"), shown.message
    assert shown.compared == 96
    assert shown.protocol == ("Open Inference Protocol" if path == "/v2" else "/v1/price")
    assert answers.complete
    assert answers.pods[0].replies[0].quotes[0].method == "pinn"


async def test_the_bundled_server_beside_one_whose_short_puts_are_wrong_fails() -> None:
    class Wrong(server.ExactModel):
        def price(self, batch: Any) -> Any:
            quotes = super().price(batch)
            short = (batch.maturity < 7 / 365) & ~batch.is_call
            return replace(quotes, price=quotes.price + 0.001 * batch.strike * short)

    right = server.ExactModel(american=server.ExactModel())
    async with server.running(Wrong(american=Wrong())) as canary, server.running(right) as stable:
        what = asked(f"127.0.0.1:{canary.port}", f"127.0.0.1:{stable.port}", options=96)
        answers = await ask_pods(what)
    shown = compare(what, answers, tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesDiffer"), shown.message
    assert all(" put " in cell.option for cell in shown.worst)


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_every_option_is_asked_for_in_a_list_and_twice_alone() -> None:
    lists, alone = [], []

    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        (lists.extend if "options" in body else lambda it: alone.append(it))(body.get("options", body))
        return await well(request)

    async with serving(("/v1/price", handler)) as address:
        answers = await ask_pods(asked(address))
    as_sent = [
        {"spot": it.spot, "strike": it.strike, "maturity": it.maturity, "rate": it.rate, "dividend": it.dividend,
         "volatility": it.volatility, "option_type": "call" if it.call else "put",
         "style": "american" if it.american else "european"}
        for it in grid(OPTIONS).options
    ]  # fmt: skip
    assert lists == as_sent
    # One more alone, by which the protocol was found out.
    assert len(alone) == 2 * OPTIONS + 1
    assert all(alone.count(option) in (2, 3) for option in as_sent)
    assert answers.complete
    assert [reply.quotes[0] for reply in answers.pods[0].replies[:1]] == [
        Quote(1.0, 0.5, 0.1, 2.0, -3.5, 0.001, error_bound=1e-6, method="pinn")
    ]


async def test_no_more_than_a_few_requests_are_at_one_pod_at_the_same_time() -> None:
    present, most = 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await asyncio.sleep(0.002)
        present -= 1
        return await well(request)

    async with serving(("/v1/price", handler)) as address:
        await ask_pods(asked(address))
    assert most == 4


async def test_a_pod_that_is_not_asked_in_full_gets_one_list() -> None:
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(await request.json())
        return await well(request)

    async with serving(("/v1/price", handler)) as address:
        pod = PricePod("eu-bbbb-x-2", address, canary=True, full=False)
        answers = await ask_pods(replace(asked(address), pods=(pod,)))
    assert [len(it.get("options", [it])) for it in requests] == [1, 10]
    assert answers.pods[0].replies[0].options == sample(OPTIONS, 10, 0)


# --- finding the protocol ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_either_path_has_no_interface(status: int) -> None:
    absent = answering(lambda: web.Response(status=status))
    async with serving(("/v1/price", absent), ("/v2/models/european/infer", absent)) as address:
        answers = await ask_pods(asked(address))
    assert answers.pods[0].protocol is PriceProtocol.NONE
    assert f"/v1/price: {status}" in answers.pods[0].message
    assert answers.pods[0].replies == ()


async def test_a_path_that_is_lost_later_is_an_error_of_the_server() -> None:
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return await well(request) if count < 5 else web.Response(status=404)

    async with serving(("/v1/price", handler)) as address:
        answers = await ask_pods(asked(address))
    assert answers.pods[0].protocol is PriceProtocol.PRICE
    assert {reply.status for reply in answers.pods[0].replies} == {200, 404}


# --- answers of any kind ----------------------------------------------------------------------------------------------


GARBAGE: list[tuple[str, Callable[[], web.Response], str]] = [
    ("HTML", lambda: web.Response(text="<html>hello</html>", content_type="text/html"), "not JSON"),
    ("nothing", lambda: web.Response(text=""), "not JSON"),
    ("a number", lambda: web.json_response(7), "no list of"),
    ("no results", lambda: web.json_response({"result": []}), "no list of"),
    ("too few results", lambda: web.json_response({"results": [quote()]}), "no list of"),
    ("deep nesting", lambda: web.Response(text="[" * 100_000), "not JSON"),
    ("a huge answer", lambda: web.Response(body=b" " * (prices.SIZE_LIMIT + 1)), "more than"),
    ("bytes", lambda: web.Response(body=b"\xff\xfe\x00"), "not JSON"),
    ("prices in words", lambda: web.json_response({"results": [{"price": "one"}] * OPTIONS}), "no number price"),
]


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in GARBAGE], ids=[case[0] for case in GARBAGE])
async def test_an_answer_that_is_no_price_is_kept_as_words(make: Callable[[], web.Response], words: str) -> None:
    reply = await one(answering(make))
    assert (reply.status, reply.fault, reply.quotes) == (200, PriceFault.UNREADABLE, ())
    assert words in reply.message
    assert len(reply.message) <= 200


async def test_a_compressed_bomb_is_not_inflated_beyond_the_size_of_an_answer() -> None:
    bomb = gzip.compress(b"0" * 200_000_000, 1)
    headers = {"Content-Encoding": "gzip"}
    reply = await one(answering(lambda: web.Response(body=bomb, headers=headers)), options=2)
    assert reply.fault is PriceFault.UNREADABLE


async def test_an_error_has_its_status_and_the_servers_words() -> None:
    reply = await one(answering(lambda: web.json_response({"error": "out of memory"}, status=500)))
    assert (reply.status, reply.fault, reply.message, reply.good) == (500, PriceFault.NONE, "out of memory", False)


async def test_a_redirect_is_not_followed() -> None:
    followed = []

    async def elsewhere(request: web.Request) -> web.Response:
        followed.append(request.path)
        return web.Response()

    away = answering(lambda: web.Response(status=307, headers={"Location": "/elsewhere"}))
    async with serving(("/v1/price", away), ("/elsewhere", elsewhere)) as address:
        answers = await ask_pods(asked(address))
    assert followed == []
    assert answers.pods[0].replies[0].status == 307


async def test_an_answer_that_does_not_come_in_its_time_is_slow() -> None:
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if count > 1:
            await asyncio.sleep(1)
        return await well(request)

    reply = await one(handler, request_seconds=0.1, timeout_seconds=2.0)
    assert (reply.status, reply.fault) == (0, PriceFault.SLOW)
    assert reply.seconds >= 0.1


async def test_everything_ends_when_the_time_is_over() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return await well(request)

    async with serving(("/v1/price", handler)) as address:
        answers = await ask_pods(asked(address, timeout_seconds=0.3))
    assert not answers.complete
    assert answers.pods[0].replies
    assert answers.seconds < 10


async def test_a_pod_without_a_server_is_unreachable() -> None:
    async with serving(("/v1/price", well)) as address:
        answers = await ask_pods(asked(f"127.0.0.1:{unused_port()}", address))
    assert answers.pods[0].protocol is PriceProtocol.UNKNOWN
    assert "Cannot connect" in answers.pods[0].message


async def test_a_server_that_drops_idle_connections_is_asked_again() -> None:
    async def handler(request: web.Request) -> web.Response:
        response = await well(request)
        response.force_close()
        return response

    async with serving(("/v1/price", handler)) as address:
        answers = await ask_pods(asked(address))
    assert all(reply.good for reply in answers.pods[0].replies)


async def test_a_revision_that_fails_from_its_start_is_not_asked_to_the_end() -> None:
    requests = 0

    async def failing(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return await well(request) if requests < 2 else web.Response(status=500)

    async with serving(("/v1/price", failing)) as bad, serving(("/v1/price", well)) as good:
        what = asked(bad, good, options=240)
        answers = await ask_pods(what)
    assert requests < 100
    assert compare(what, answers, tolerance=1e-6).reason == "PriceErrors"


def test_whether_more_could_matter_is_looked_at_after_every_fourth_wave_and_after_each_slow_one() -> None:
    assert [worth_a_look(number, 0.01) for number in range(6)] == [True, False, False, False, True, False]
    assert worth_a_look(5, 2.0)


def test_numbers_that_no_float_holds_are_infinite_and_true_is_none() -> None:
    assert read_single({"price": 10**400}, 1)[0].price == math.inf
    assert math.isnan(read_single(json.loads('{"price": NaN}'), 1)[0].price)
    with pytest.raises(Unreadable, match="no number price"):
        read_single({"price": True}, 1)


@pytest.mark.parametrize(
    "document", [None, 1, [], {}, {"outputs": 1}, {"outputs": [1]}, {"outputs": [{"name": "price"}]}]
)
def test_tensors_without_a_price_for_each_row_are_unreadable(document: Any) -> None:
    with pytest.raises(Unreadable):
        read_tensors(document, 2)
    with pytest.raises(Unreadable):
        read_list(document, 2)


def test_a_tensor_of_another_length_is_not_given() -> None:
    outputs = [{"name": "price", "data": [1, 2]}, {"name": "delta", "data": [0.5]}]
    assert read_tensors({"outputs": outputs}, 2) == [Quote(1.0), Quote(2.0)]


# --- the reader -------------------------------------------------------------------------------------------------------


async def test_a_question_is_answered_in_the_background_and_wakes_the_pass_once() -> None:
    woken: list[tuple[str, str]] = []
    reader = PriceReader(wake=lambda namespace, name: woken.append((namespace, name)))
    async with serving(("/v1/price", well)) as address:
        what = asked(address)
        assert reader.answer("pricing", "eu", what) is None
        await server.eventually(lambda: bool(woken))
        answers = reader.answer("pricing", "eu", what)
        assert answers is not None
        assert answers.question is what
        assert reader.answer("pricing", "eu", replace(what, pods=())) is answers  # the same question by its identity
    assert woken == [("pricing", "eu")]
    await reader.close()


async def test_another_question_ends_the_one_before_it() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append("asked")
        await asyncio.sleep(30)
        return await well(request)

    woken: list[str] = []
    reader = PriceReader(wake=lambda _, name: woken.append(name))
    async with serving(("/v1/price", handler)) as slow, serving(("/v1/price", well)) as quick:
        reader.answer("pricing", "eu", asked(slow))
        await server.eventually(lambda: bool(seen))
        second = replace(asked(quick), identity="another")
        reader.answer("pricing", "eu", second)
        await server.eventually(lambda: bool(woken))
        answers = reader.answer("pricing", "eu", second)
        assert answers is not None
        assert answers.question is second
        await reader.close()


async def test_nothing_more_is_asked_when_no_question_is_due() -> None:
    reader = PriceReader(wake=lambda _, __: None)
    async with serving(("/v1/price", well)) as address:
        reader.answer("pricing", "eu", asked(address))
        assert len(reader) == 1
        assert reader.answer("pricing", "eu", None) is None
        assert len(reader) == 0
        await asyncio.wait_for(reader.close(), 30)


async def test_revisions_beyond_a_few_wait_for_their_turn_to_be_asked_everything() -> None:
    hosts: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        hosts.append(request.host)
        return await well(request)

    woken: list[str] = []
    reader = PriceReader(wake=lambda _, name: woken.append(name), at_once=1)
    async with serving(("/v1/price", handler)) as first, serving(("/v1/price", handler)) as second:
        reader.answer("pricing", "eu", asked(first))
        reader.answer("pricing", "us", asked(second))
        await server.eventually(lambda: len(woken) == 2)
    assert woken == ["eu", "us"]
    assert hosts == sorted(hosts, key=[first, second].index)
    await reader.close()
