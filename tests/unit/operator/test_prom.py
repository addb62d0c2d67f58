"""Both Prometheus clients under one contract, against a server that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pinn_operator.core.samples import Query, Series, SourceError
from pinn_operator.core.wanted.prometheus import PROMETHEUS_ADDRESS
from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.prom.client import HttpSource, shown
from pinn_operator.prom.guard import Guard, SourceSilent
from pinn_operator.prom.library import LibrarySource
from pinn_operator.prom.login import Kept, KeptLogin
from pinn_operator.prom.parsing import parse_answer
from pinn_operator.prom.protocol import MetricSource
from pinn_operator.prom.sources import ClientKind, Sources

NOW = datetime(2026, 11, 21, 8, 0, 0, 250_000, tzinfo=UTC)
INSTANT = Query(key="q", expression="up", end=NOW)
RANGE = Query(key="q", expression="up", end=NOW, start=NOW - timedelta(seconds=60), step=2.5)
TIMEOUT = 0.6


def success(kind: str, result: Any, **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


@dataclass
class Server:
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""
    at_once: int = 0
    most: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = {**request.query, **(await request.post())}
        self.seen.append(
            {
                "path": request.path,
                "raw": request.raw_path,
                "form": form,
                "authorization": request.headers.get("Authorization"),
            }
        )
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            assert self.answer is not None
            return await self.answer(request)
        finally:
            self.at_once -= 1

    def says(self, document: Any, *, status: int = 200) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response(document, status=status)

        self.answer = answer

    def says_text(self, text: str, *, status: int = 200, **headers: str) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(text=text, status=status, headers=headers)

        self.answer = answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    state = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", state.handle)
    running = TestServer(application)
    await running.start_server()
    state.address = str(running.make_url("")).rstrip("/")
    yield state
    await running.close()


@pytest.fixture(params=[HttpSource, LibrarySource], ids=["aiohttp", "prometheus-api-client"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., MetricSource]]:
    made: list[MetricSource] = []

    def build(address: str, **more: Any) -> MetricSource:
        made.append(request.param(address, timeout=TIMEOUT, **more))
        return made[-1]

    yield build
    for source in made:
        await source.close()


Make = Callable[..., MetricSource]


def kept(value: str | None, *, where: str = "the Secret pricing/metrics", key: str = "key") -> Kept:
    async def read() -> str | None:
        return value

    return Kept(read, where=where, key=key)


async def test_an_instant_vector_becomes_series_of_one_point(make: Make, server: Server) -> None:
    server.says(success("vector", [{"metric": {"pod": "a"}, "value": [1795248000.25, "0.5"]}]))
    assert await make(server.address).ask(INSTANT) == (Series({"pod": "a"}, ((1795248000.25, 0.5),)),)
    assert server.seen[0]["path"] == "/api/v1/query"
    assert server.seen[0]["form"]["query"] == "up"
    assert server.seen[0]["form"]["time"] == f"{NOW.timestamp():.3f}"


async def test_a_range_keeps_its_milliseconds(make: Make, server: Server) -> None:
    server.says(success("matrix", [{"metric": {}, "values": [[1.25, "1"], [3.75, "2"]]}]))
    assert await make(server.address).ask(RANGE) == (Series({}, ((1.25, 1.0), (3.75, 2.0))),)
    form = server.seen[0]["form"]
    assert server.seen[0]["path"] == "/api/v1/query_range"
    assert float(form["end"]) - float(form["start"]) == 60
    assert form["end"].endswith(".250")
    assert float(form["step"]) == 2.5


async def test_a_scalar_is_a_series_without_labels(make: Make, server: Server) -> None:
    server.says(success("scalar", [1.0, "42"]))
    assert await make(server.address).ask(INSTANT) == (Series({}, ((1.0, 42.0),)),)


async def test_no_series_is_an_answer_and_not_an_error(make: Make, server: Server) -> None:
    server.says(success("vector", []))
    assert await make(server.address).ask(INSTANT) == ()


async def test_not_a_number_and_infinity_are_numbers_here(make: Make, server: Server) -> None:
    values = ["NaN", "+Inf", "-Inf"]
    server.says(success("vector", [{"metric": {}, "value": [1.0, value]} for value in values]))
    answer = await make(server.address).ask(INSTANT)
    assert not isinstance(answer, SourceError)
    nan, plus, minus = (series.points[0][1] for series in answer)
    assert math.isnan(nan)
    assert (plus, minus) == (math.inf, -math.inf)


async def test_a_bad_query_is_told_in_prometheus_own_words(make: Make, server: Server) -> None:
    server.says({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected }"}, status=400)
    assert await make(server.address).ask(INSTANT) == SourceError("bad_data: parse error: unexpected }")


async def test_a_warning_makes_the_answer_an_error(make: Make, server: Server) -> None:
    server.says(success("vector", [], warnings=["remote read: one shard is away"]))
    answer = await make(server.address).ask(INSTANT)
    assert isinstance(answer, SourceError)
    assert "one shard is away" in answer.message


async def test_an_answer_of_a_part_of_the_storage_is_an_error(make: Make, server: Server) -> None:
    server.says({"isPartial": True, **success("vector", [{"metric": {}, "value": [1, "1"]}])})
    answer = await make(server.address).ask(INSTANT)
    assert answer == SourceError("incomplete answer: isPartial, a part of the storage did not answer")
    server.says({"isPartial": False, **success("vector", [])})
    assert await make(server.address).ask(INSTANT) == ()


async def test_a_warning_about_the_query_says_that_the_query_is_to_be_fixed(make: Make, server: Server) -> None:
    warning = "PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:10)"
    server.says(success("vector", [{"metric": {}, "value": [1, "+Inf"]}], warnings=[warning]))
    assert await make(server.address).ask(INSTANT) == SourceError(f"fix the query: {warning}")
    server.says(success("vector", [], warnings=[warning, "one shard is away"]))
    assert await make(server.address).ask(INSTANT) == SourceError(f"incomplete answer: {warning}; one shard is away")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "text", ['{"status": "error", "error": "log in first"}', "log in first"], ids=["in JSON", "in words"]
)
async def test_a_refused_login_is_told_as_such_and_what_to_check(
    make: Make, server: Server, text: str, status: int
) -> None:
    server.says_text(text, status=status)
    answer = await make(server.address).ask(INSTANT)
    assert isinstance(answer, SourceError)
    assert answer.message.startswith(f"Prometheus refused the login (HTTP {status}): log in first; check ")
    assert "bearerTokenSecretRef" in answer.message


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
async def test_a_refused_login_needs_no_words(make: Make, server: Server, text: str) -> None:
    server.says_text(text, status=401)
    answer = await make(server.address).ask(INSTANT)
    assert isinstance(answer, SourceError)
    assert "refused the login (HTTP 401)" in answer.message


async def test_a_note_on_the_query_does_not(make: Make, server: Server) -> None:
    server.says(success("vector", [], infos=["metric might not be a counter"]))
    assert await make(server.address).ask(INSTANT) == ()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("<html>please log in</html>", 200), ("bad gateway", 502), ("", 200), ("[]", 200), ("[" * 100_000, 200),
        ('{"status": "success"}', 200),
    ],
)  # fmt: skip
async def test_anything_else_than_an_answer_is_an_error(make: Make, server: Server, text: str, status: int) -> None:
    server.says_text(text, status=status)
    assert isinstance(await make(server.address).ask(INSTANT), SourceError)


async def test_a_question_that_no_request_can_carry_is_an_error(make: Make, server: Server) -> None:
    lone_surrogate = Query(key="k", expression="\ud800", end=INSTANT.end)
    assert isinstance(await make(server.address).ask(lone_surrogate), SourceError)


async def test_an_html_page_is_quoted(make: Make, server: Server) -> None:
    server.says_text("<html>please log in</html>", status=503)
    answer = await make(server.address).ask(INSTANT)
    assert isinstance(answer, SourceError)
    assert "503" in answer.message
    assert "please log in" in answer.message


async def test_a_redirect_is_not_followed(make: Make, server: Server) -> None:
    server.says_text("", status=302, Location=f"{server.address}/login")
    assert isinstance(await make(server.address, login=KeptLogin(bearer=kept("s3cr3t"))).ask(INSTANT), SourceError)
    assert [seen["path"] for seen in server.seen] == ["/api/v1/query"]


async def test_nobody_listening_is_an_error_that_names_the_address(make: Make) -> None:
    answer = await make("http://127.0.0.1:9").ask(INSTANT)
    assert isinstance(answer, SourceError)
    assert "http://127.0.0.1:9" in answer.message


@pytest.mark.parametrize("address", ["http://", "nonsense", "ftp://x"])
async def test_an_address_that_is_none_is_an_error(make: Make, address: str) -> None:
    assert isinstance(await make(address).ask(INSTANT), SourceError)


async def test_no_answer_in_time_is_an_error(make: Make, server: Server) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    server.answer = never
    answer = await make(server.address).ask(INSTANT)
    assert isinstance(answer, SourceError)
    assert "Prometheus at" in answer.message


async def test_a_login_that_cannot_be_had_is_an_error_and_nothing_is_asked(make: Make, server: Server) -> None:
    login = KeptLogin(bearer=kept(None, where="the Secret pricing/prometheus", key="token"))
    answer = await make(server.address, login=login).ask(INSTANT)
    assert answer == SourceError(
        "the Secret pricing/prometheus does not exist or has no key 'token'", "CredentialsUnreadable"
    )
    assert server.seen == []


async def test_few_questions_are_out_at_once(make: Make, server: Server) -> None:
    async def slowly(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.json_response(success("vector", []))

    server.answer = slowly
    source = make(server.address)
    await asyncio.gather(*(source.ask(INSTANT) for _ in range(24)))
    assert server.most <= 8


async def test_an_address_may_have_a_path(make: Make, server: Server) -> None:
    server.says(success("vector", []))
    await make(f"{server.address}/prometheus/").ask(INSTANT)
    assert server.seen[0]["path"] == "/prometheus/api/v1/query"


@pytest.mark.parametrize(
    "path",
    ["/select/0:1/prometheus", "/v1/projects/example.com:prices/location/global/prometheus", "/a%20b/(c)=d,e@f"],
)
async def test_a_path_is_sent_as_it_is_written(make: Make, server: Server, path: str) -> None:
    address = f"{server.address}{path}"
    assert PROMETHEUS_ADDRESS.fullmatch(address)
    server.says(success("vector", []))
    assert await make(address).ask(INSTANT) == ()
    assert server.seen[0]["raw"].startswith(f"{path}/api/v1/query")


@pytest.mark.parametrize(
    "address",
    [
        "http://prom/?dedup=true",
        "http://prom/#x",
        "http://user:pw@prom",
        "http://prom/a b",
        "http://prom/%zz",
        "http://",
    ],
)
def test_an_address_with_more_than_a_path_is_refused(address: str) -> None:
    assert not PROMETHEUS_ADDRESS.fullmatch(address)


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        None,
        5,
        {"status": "success", "data": {"resultType": "string", "result": [1, "x"]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "x"]}]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "histogram": [1, {}]}]}},
        {"status": "success", "data": {"resultType": "vector", "result": {"a": 1}}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [10**400, "1"]}]}},
    ],
)
def test_an_answer_of_another_shape_is_an_error(document: Any) -> None:
    assert isinstance(parse_answer(document), SourceError)


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("http://me:secret@host:9090/x") == "http://host:9090/x"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_source_that_stays_silent_is_asked_by_one_at_a_time() -> None:
    clock, asked = Clock(), 0
    guard = Guard(name="it", timeout=1.0, failures=3, rest=5.0, clock=clock)

    async def silent() -> tuple[Series, ...]:
        nonlocal asked
        asked += 1
        raise SourceSilent("refused")

    for _ in range(10):
        assert isinstance(await guard.run(silent), SourceError)
    assert asked == 3
    clock.now += 5.0
    await asyncio.gather(*(guard.run(silent) for _ in range(10)))
    assert asked == 4


async def test_one_answer_ends_the_rest() -> None:
    clock = Clock()
    guard = Guard(name="it", timeout=1.0, failures=1, rest=5.0, clock=clock)

    async def silent() -> tuple[Series, ...]:
        raise SourceSilent("refused")

    async def answers() -> tuple[Series, ...]:
        return ()

    await guard.run(silent)
    clock.now += 5.0
    assert await guard.run(answers) == ()
    assert await guard.run(answers) == ()


async def test_waiting_for_a_turn_is_no_silence_of_the_source_and_has_an_end() -> None:
    guard = Guard(name="it", timeout=1.0, concurrency=1, failures=2)

    async def slow() -> tuple[Series, ...]:
        await asyncio.sleep(0.6)
        return ()

    answers = await asyncio.gather(*(guard.run(slow) for _ in range(6)))
    assert answers[:2] == [(), ()], "each has its whole time from its turn on"
    assert set(answers[2:]) == {SourceError("it: no turn within 1 s, the queries before it are slow")}
    assert await guard.run(slow) == (), "it answered whatever it was asked"


async def test_whoever_waits_for_a_turn_is_told_when_the_source_fell_silent() -> None:
    guard = Guard(name="it", timeout=1.0, concurrency=1, failures=1)
    asked = 0

    async def refused() -> tuple[Series, ...]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise SourceSilent("refused")

    answers = await asyncio.gather(*(guard.run(refused) for _ in range(3)))
    assert answers == [SourceError("it: refused"), *[SourceError("it does not answer (refused)")] * 2]
    assert asked == 1


async def test_slow_queries_of_one_namespace_delay_and_end_no_other_s(make: Make, server: Server) -> None:
    async def slow_or_quick(_: web.Request) -> web.StreamResponse:
        if server.seen[-1]["form"]["query"] == "slow":
            await asyncio.sleep(30)
        return web.json_response(success("vector", []))

    server.answer = slow_or_quick
    source, slow = make(server.address), replace(INSTANT, expression="slow")
    noisy = asyncio.gather(*(source.ask(slow, namespace="noisy") for _ in range(24)))
    await asyncio.sleep(0.05)
    assert await asyncio.gather(*(source.ask(INSTANT, namespace="quiet") for _ in range(8))) == [()] * 8
    assert all(isinstance(answer, SourceError) for answer in await noisy)
    assert await source.ask(INSTANT, namespace="quiet") == (), "it does answer"


async def test_custom_queries_that_hang_take_no_turn_from_the_built_in_gates(make: Make, server: Server) -> None:
    async def hangs(_: web.Request) -> web.StreamResponse:
        if server.seen[-1]["form"]["query"] == "slow":
            await asyncio.sleep(30)
        return web.json_response(success("vector", []))

    server.answer = hangs
    source = make(server.address)
    custom = [replace(INSTANT, key=f"gate/{number}", expression="slow") for number in range(12)]
    hanging = asyncio.gather(*(source.ask(query, namespace="pricing") for query in custom))
    await asyncio.sleep(0.05)
    assert await source.ask(INSTANT, namespace="pricing") == ()
    assert all(isinstance(answer, SourceError) for answer in await hanging)
    assert await source.ask(INSTANT, namespace="pricing") == (), "that they had no answer says nothing of it"


async def test_resources_that_name_the_same_prometheus_share_a_source() -> None:
    async def absent(*_: str) -> str | None:
        return None

    for kind in ClientKind:
        sources = Sources(
            default_address="http://prometheus.monitoring:9090", read_secret=absent, read_config_map=absent, kind=kind
        )
        default = await sources.source(Prometheus(), "pricing")
        assert await sources.source(Prometheus(), "trading") is default
        assert await sources.source(Prometheus(address="http://other:9090"), "pricing") is not default
        token = Prometheus(address="http://other:9090", bearer_token_secret=("prometheus", "token"))
        own = await sources.source(token, "pricing")
        assert own is await sources.source(token, "pricing")
        assert own is not await sources.source(token, "trading"), "a token must not be used for another namespace"
        plain = Prometheus(address="http://other:9090")
        assert await sources.source(plain, "pricing") is await sources.source(plain, "trading")
        await sources.close()
