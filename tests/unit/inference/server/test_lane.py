"""The short way of a single quote: which requests take it, and that nobody can tell from the answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pinn_inference.pricing import closed_form
from pinn_inference.server.app import ENGINE, IN_FLIGHT
from pinn_inference.server.lane import MAX_BYTES, Lane, LaneServer
from tests.support.server import PUT, Client, ExactModel, eventually, options, running, sample

LABELS = {"method": "POST", "handler": "/v1/price"}


@web.middleware
async def idle(request: web.Request, handler: Any) -> web.StreamResponse:
    return await handler(request)


class Connection:
    """One connection, as raw as a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers by lower-case name, and JSON of the next answer."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 30)).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await asyncio.wait_for(self._reader.readexactly(int(headers["content-length"])), 30)
        return int(head[0].split()[1]), headers, json.loads(body)

    async def interim(self) -> int:
        """Status of an answer that announces another."""
        return int((await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 30)).split()[1])

    async def closed_by_server(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), 30) == b""


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def request(
    document: Any, *, version: str = "1.1", method: str = "POST", path: str = "/v1/price", **headers: str
) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    fields = {"Host": "pinn", "Content-Length": str(len(body))}
    fields.update((name.replace("_", "-"), value) for name, value in headers.items())
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + body


def lane_of(client: Client) -> Lane:
    assert isinstance(client.server, TestServer)
    assert client.server.runner is not None
    server = client.server.runner.server
    assert isinstance(server, LaneServer)
    return server.lane


@asynccontextmanager
async def watched(model: ExactModel | None = None, **settings: Any) -> AsyncIterator[tuple[Client, Lane, Connection]]:
    """A server, its lane, and a connection to it."""
    async with running(model, **settings) as client, connected(client) as connection:
        yield client, lane_of(client), connection


async def test_a_single_quote_has_the_same_answer_headers_and_counts_on_both_ways() -> None:
    answers = []
    for middlewares, taken in (((), 1), ((idle,), 0)):
        async with watched(middlewares=middlewares, revision="9d77e0") as (client, lane, connection):
            connection.send(request(PUT, X_Request_ID="desk-7"))
            status, headers, document = await connection.answer()
            assert lane.taken == taken
            assert headers["x-request-id"] == "desk-7"
            assert headers["x-pinn-revision"] == "9d77e0"
            assert sample(client, "http_requests_total", **LABELS, status="200") == 1
            assert sample(client, "pinn_inference_requests_total", status="200") == 1
            assert sample(client, "pinn_inference_latency_seconds_count") == 1
            assert sample(client, "pinn_prediction_latency_seconds_count", method="pinn") == 1
            assert sample(client, "pinn_options_priced_total", method="pinn") == 1
            same = {name: headers[name] for name in ("server", "content-type", "content-length")}
            answers.append((status, set(headers), same, document))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("unusual", "status"),
    [
        (request({"options": [PUT]}), 200),
        (request({**PUT, "spot": -1}), 400),
        (request(b"{"), 400),
        (request(b""), 400),
        (request(json.dumps(PUT).encode() + b" " * MAX_BYTES), 200),
        (request(PUT, Connection="close"), 200),
        (request(PUT, Content_Encoding="gzip"), 400),
        (request(PUT, Expect="100-continue"), 100),
        (request(PUT, version="1.0"), 200),
        (request(PUT, path="/v1/price?x=1"), 200),
        (request(PUT, path="/v1/prices"), 404),
        (request(PUT, method="PUT"), 405),
        (request(PUT, method="GET", path="/health"), 200),
    ],
    ids=[
        "a list", "a bad option", "no JSON", "no body", "long", "last of its connection", "compressed", "expectant",
        "HTTP/1.0", "with a query", "elsewhere", "another method", "a probe",
    ],
)  # fmt: skip
async def test_whatever_is_unusual_goes_the_ordinary_way(unusual: bytes, status: int) -> None:
    async with watched() as (_client, lane, connection):
        connection.send(unusual)
        if status == 100:
            assert await connection.interim() == 100
            status = 200
        assert (await connection.answer())[0] == status
        assert lane.taken == 0


async def test_a_body_that_comes_after_its_head_goes_the_ordinary_way() -> None:
    whole = request(PUT)
    async with watched() as (_client, lane, connection):
        connection.send(whole[:-20])
        await asyncio.sleep(0.05)
        connection.send(whole[-20:])
        assert (await connection.answer())[0] == 200
        assert lane.taken == 0


async def test_the_lane_goes_on_after_a_request_of_the_other_kind_on_the_same_connection() -> None:
    async with watched() as (_client, lane, connection):
        for _ in range(3):
            connection.send(request(PUT))
            assert (await connection.answer())[0] == 200
            connection.send(request({**PUT, "maturity": "soon"}))
            assert (await connection.answer())[0] == 400
        assert lane.taken == 3


async def test_pipelined_requests_are_answered_in_their_order_whichever_way_they_go() -> None:
    spots = [90.0 + index for index in range(60)]
    async with watched() as (_client, _lane, connection):
        for spot in spots:
            one = {**PUT, "spot": spot}
            connection.send(request(one, X_Request_ID=f"id-{spot}"))
            connection.send(request({"options": [one]}, X_Request_ID=f"list-{spot}"))
            if spot % 7 == 0:
                await asyncio.sleep(0)
        seen = [(await connection.answer())[1]["x-request-id"] for _ in range(2 * len(spots))]
    assert seen == [name for spot in spots for name in (f"id-{spot}", f"list-{spot}")]


async def test_quotes_that_arrive_together_are_priced_together_and_each_gets_its_own() -> None:
    model = ExactModel()
    spots = [80.0 + index for index in range(40)]
    base = {"strike": 100, "maturity": 1, "rate": 0.03, "volatility": 0.2}
    async with running(model) as client, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(client)) for _ in spots]
        await asyncio.sleep(0.05)
        for connection, spot in zip(connections, spots, strict=True):
            connection.send(request({**base, "spot": spot}))
        prices = [(await connection.answer())[2]["price"] for connection in connections]
        assert lane_of(client).taken == len(spots)
    assert np.allclose(prices, closed_form.price(options(*spots)).price, rtol=1e-12)
    assert sum(model.batches) == len(spots)
    assert len(model.batches) < len(spots)


async def test_a_result_that_is_not_finite_is_a_500_on_the_lane_too() -> None:
    class Broken(ExactModel):
        def price(self, batch: Any) -> Any:
            quotes = super().price(batch)
            quotes.vega[:] = np.inf
            return quotes

    async with watched(Broken()) as (client, lane, connection):
        connection.send(request(PUT))
        status, headers, answer = await connection.answer()
        assert (status, answer["reason"], lane.taken) == (500, "NonFiniteResult", 1)
        assert answer["request_id"] == headers["x-request-id"]
        assert sample(client, "http_requests_total", **LABELS, status="500") == 1
        assert sample(client, "pinn_prediction_errors_total", error_type="NonFiniteResult") == 1
        connection.send(request({**PUT, "spot": 0}))
        assert (await connection.answer())[0] == 400, "the connection goes on"


async def test_while_draining_the_answer_says_that_the_connection_ends() -> None:
    async with watched() as (client, lane, connection):
        assert client.app is not None
        client.app[ENGINE].begin_draining()
        connection.send(request(PUT))
        status, headers, _ = await connection.answer()
        assert (status, headers["connection"], lane.taken) == (200, "close", 0)
        assert await connection.closed_by_server()


async def test_a_client_that_goes_away_before_its_quote_leaves_nothing_in_flight() -> None:
    async with running() as client:
        assert client.app is not None
        for _ in range(20):
            async with connected(client) as connection:
                connection.send(request(PUT))
        in_flight = client.app[IN_FLIGHT]
        await eventually(lambda: in_flight.count == 0)
        async with connected(client) as connection:
            connection.send(request(PUT))
            assert (await connection.answer())[0] == 200


async def test_an_idle_connection_of_the_lane_is_closed_when_its_time_is_over_and_not_while_it_is_used() -> None:
    async with watched(keep_alive_seconds=0.6) as (_client, lane, connection):
        for _ in range(4):
            await asyncio.sleep(0.3)
            connection.send(request(PUT))
            assert (await connection.answer())[0] == 200
        assert lane.taken == 4
        assert await connection.closed_by_server()


async def test_ids_that_the_server_makes_are_all_different() -> None:
    async with watched() as (_client, _lane, connection):
        ids = set()
        for _ in range(50):
            connection.send(request(PUT))
            ids.add((await connection.answer())[1]["x-request-id"])
    assert len(ids) == 50
    assert {len(one) for one in ids} == {32}


async def test_the_time_of_each_step_is_told_in_milliseconds() -> None:
    async with watched() as (_client, _lane, connection):
        connection.send(request(PUT))
        timing = (await connection.answer())[1]["server-timing"]
    steps = dict(step.split(";dur=") for step in timing.split(", "))
    assert list(steps) == ["parse", "price", "render"]
    assert all(0 <= float(milliseconds) < 10_000 for milliseconds in steps.values())


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"A" * 9000 + b"\r\n\r\n"]
)
async def test_what_is_no_http_is_an_error_in_json_that_is_counted_and_ends_the_connection(noise: bytes) -> None:
    async with watched() as (client, _lane, connection):
        connection.send(noise)
        status, headers, answer = await connection.answer()
        assert (status, answer["reason"]) == (400, "BadHttp")
        assert answer["request_id"] == headers["x-request-id"]
        assert await connection.closed_by_server()
        assert sample(client, "http_requests_total", method="other", handler="unmatched", status="400") == 1


async def test_after_a_body_that_cannot_be_inflated_the_connection_goes_on_and_no_error_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watched() as (_client, _lane, connection):
        connection.send(request(b"\xff\xff\xff\xff" * 10, Content_Encoding="gzip"))
        assert (await connection.answer())[0] == 400
        connection.send(request(PUT))
        assert (await connection.answer())[0] == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_expectation_that_nobody_knows_is_an_error_in_json_that_is_counted() -> None:
    async with watched() as (client, _lane, connection):
        connection.send(request(PUT, Expect="tea", X_Request_ID="desk-7"))
        status, headers, document = await connection.answer()
        assert (status, document["reason"], document["request_id"]) == (417, "ExpectationFailed", "desk-7")
        assert headers["server"] == "pinn-inference"
        assert await connection.closed_by_server()
        assert sample(client, "http_requests_total", method="POST", handler="unmatched", status="417") == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_cannot_be_decompressed_is_told_in_one_line(coding: str) -> None:
    async with watched() as (_client, _lane, connection):
        connection.send(request(b"no such thing", Content_Encoding=coding))
        status, _headers, document = await connection.answer()
        assert status == 400
        assert coding in document["error"]
        assert "\n" not in document["error"]


# --- pieces -----------------------------------------------------------------------------------------------------------


async def answers_to(client: Client, pieces: list[bytes], count: int, pause: float) -> list[tuple[int, Any]]:
    """Status and JSON of each answer to what is sent in these pieces; fewer than `count` if the rest never came."""
    got: list[tuple[int, Any]] = []
    async with connected(client) as connection:

        async def send() -> None:
            for piece in pieces:
                connection.send(piece)
                await asyncio.sleep(pause)

        sending = asyncio.create_task(send())
        with suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(15):
                while len(got) < count:
                    status, _, document = await connection.answer()
                    document.pop("request_id", None)
                    got.append((status, document))
        await sending
    return got


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("count", [33, 34, 66, 100])
async def test_however_many_quotes_are_pipelined_behind_a_head_without_its_body_all_are_answered(count: int) -> None:
    data = b"".join(request({**PUT, "spot": 80 + index}) for index in range(count))
    head = data.index(b"\r\n\r\n") + 4
    async with running() as client:
        for places in ([head], [head + 10], [head - 3]):
            assert len(await answers_to(client, cut(data, places), count, 0.003)) == count


async def test_a_stream_cut_anywhere_is_answered_as_plain_aiohttp_answers_it() -> None:
    source = random.Random(20)
    kinds = [
        lambda: request({**PUT, "spot": source.randrange(60, 140)}),
        lambda: request({**PUT, "spot": source.randrange(60, 140), "style": "american"}),
        lambda: request({"options": [PUT] * source.randrange(1, 12)}),
        lambda: request({**PUT, "spot": -1}),
        lambda: request(b"", method="GET", path="/health"),
        lambda: request(json.dumps(PUT, indent=8).encode()),
        lambda: _chunked(json.dumps(PUT).encode(), source.randrange(1, 60)),
    ]
    async with running() as ours, running(has_lane=False) as plain:
        for _ in range(40):
            count = source.choice([1, 2, 3, 20, 32, 33, 34, 65, 70])
            weights = [20 if source.random() < 0.7 else 1, 1, 1, 1, 1, 1, 1]
            data = b"".join(kind() for kind in source.choices(kinds, weights, k=count))
            pieces = cut(data, sorted(source.sample(range(1, len(data)), source.choice([0, 1, 2, 3, 8]))))
            pause = source.choice([0.0, 0.001, 0.003])
            got, wanted = [await answers_to(client, pieces, count, pause) for client in (ours, plain)]
            assert len(wanted) == count
            assert got == wanted


def _chunked(body: bytes, size: int) -> bytes:
    chunks = b"".join(
        f"{len(body[start : start + size]):x}\r\n".encode() + body[start : start + size] + b"\r\n"
        for start in range(0, len(body), size)
    )
    return b"POST /v1/price HTTP/1.1\r\nHost: pinn\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


# --- heads that do not come -------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinn_inference.server.lane.HEAD_SECONDS", 0.3)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("before", [b"", request(PUT), request({"options": [PUT]})], ids=["first", "lane", "ordinary"])
async def test_a_connection_with_half_a_head_is_closed_soon(before: bytes) -> None:
    async with running() as client, connected(client) as connection:
        if before:
            connection.send(before)
            assert (await connection.answer())[0] == 200
        connection.send(b"POST /v1/price HTTP/1.1\r\nHost: pi")
        assert await connection.closed_by_server()


@pytest.mark.usefixtures("hasty")
async def test_a_connection_that_says_nothing_or_waits_for_its_next_request_stays() -> None:
    slow = request({"options": [PUT] * 30})
    async with running() as client, connected(client) as silent, connected(client) as connection:
        for piece in (slow[:90], slow[90:1500], slow[1500:]):  # in a body one may take one's time
            connection.send(piece)
            await asyncio.sleep(0.4 if piece is not slow[:90] else 0.0)
        assert (await connection.answer())[0] == 200
        connection.send(b"\r\n")
        await asyncio.sleep(0.8)
        for one in (connection, silent):
            one.send(request(PUT))
            assert (await one.answer())[0] == 200


@pytest.mark.usefixtures("hasty")
async def test_a_head_in_pieces_is_waited_for() -> None:
    data = request(PUT)
    async with running() as client, connected(client) as connection:
        for _ in range(3):
            connection.send(data[:30])
            await asyncio.sleep(0.05)
            connection.send(data[30:])
            assert (await connection.answer())[0] == 200
            await asyncio.sleep(0.4)
