"""Pods are read beside the passes: bounded in time and memory, whatever they answer."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pinn_operator.core.samples import (
    POD_FAULTS,
    PodCounts,
    PodQuestion,
    PodReadFault,
    PodReadFaults,
    Series,
    SourceError,
)
from pinn_operator.pods.http import Page, PodClient, PodSilent, Question
from pinn_operator.pods.reader import BadAnswers, Cadence, PodReader, Reading, Target, path_of

FAST = Cadence(rest=0.08, close=0.02, close_for=0.3, failed_rest=0.1, reported=0.2)
REQUESTS = "http_requests_total"
BAD = BadAnswers(REQUESTS, "status", "handler")
CONNECTION = asyncio.StreamWriter
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FakePod:
    """A pod that counts, as a real HTTP server on loopback."""

    good: int = 0
    bad: int = 0
    delay: float = 0.0
    reads: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    ports: set[Any] = field(default_factory=set)
    answer: Callable[[], web.Response] | None = None
    address: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.reads.append((time.monotonic(), tuple(request.query.getall("name[]"))))
        assert request.transport is not None
        self.ports.add(request.transport.get_extra_info("peername"))
        await asyncio.sleep(self.delay)
        if self.answer is not None:
            return self.answer()
        lines = [
            f'{REQUESTS}{{handler="/v1/price",status="200"}} {self.good}',
            f'{REQUESTS}{{handler="/v1/price",status="500"}} {self.bad}',
            f'{REQUESTS}{{handler="/health/deployment/readiness",status="503"}} {len(self.reads)}',
            "memory_bytes 5e8",
        ]
        return web.Response(text="\n".join(lines) + "\n")


Pods = Callable[[FakePod], Awaitable[FakePod]]


@pytest.fixture
async def serve() -> AsyncIterator[Pods]:
    servers: list[TestServer] = []

    async def start(pod: FakePod) -> FakePod:
        application = web.Application()
        application.router.add_get("/metrics", pod.handle)
        server = TestServer(application)
        await server.start_server()
        servers.append(server)
        pod.address = f"127.0.0.1:{server.port}"
        return pod

    yield start
    for server in servers:
        await server.close()


@asynccontextmanager
async def raw(answer: bytes | Serve) -> AsyncIterator[str]:
    """A server that answers each request with these bytes and closes, or as it is told."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if callable(answer):
                await answer(reader, writer)
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    try:
        yield "127.0.0.1:" + str(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@asynccontextmanager
async def reader(*, patience: float = 0.3, **more: Any) -> AsyncIterator[PodReader]:
    more.setdefault("cadence", FAST)
    more.setdefault("wake", lambda _namespace, _name: None)
    made = PodReader(PodClient(timeout=patience), **more)
    try:
        yield made
    finally:
        await made.close()


def reading(*, canary: str = "", stable: str = "", **more: Any) -> Reading:
    targets = [Target("eu-c-1", canary, True)] if canary else []
    targets += [Target("eu-s-1", stable, False)] if stable else []
    return Reading(tuple(targets), quick=(REQUESTS,), is_bad=BAD, **more)


def question(*pods: str, families: tuple[str, ...] = (REQUESTS,)) -> PodQuestion:
    return PodQuestion("pods/q", families, pods)


def pace(pod: FakePod) -> float:
    """Seconds between two reads, on average."""
    (first, _), (last, _) = pod.reads[0], pod.reads[-1]
    return (last - first) / (len(pod.reads) - 1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def answered(reader: PodReader, *pods: str, families: tuple[str, ...] = (REQUESTS,)) -> Any:
    answer = reader.answers("ns", "eu", [question(*pods, families=families)]).get("pods/q")
    return answer.series() if isinstance(answer, PodCounts) else answer


def faults(reader: PodReader, *pods: str) -> PodReadFaults:
    found = reader.answers("ns", "eu", [question(*pods)]).get(POD_FAULTS, PodReadFaults())
    assert isinstance(found, PodReadFaults)
    return found


# --- reading --------------------------------------------------------------------------------------------------------


async def test_counters_of_both_revisions_are_answered_from_memory(serve: Pods) -> None:
    canary, stable = await serve(FakePod(good=3)), await serve(FakePod(good=30))
    async with reader() as pods:
        assert answered(pods, "eu-c-1") is None
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: len(answered(pods, "eu-c-1", "eu-s-1") or ()) == 6)
        canary.good = 7
        await until(lambda: any(it.points[-1][1] == 7 for it in answered(pods, "eu-c-1")))
        good = next(it for it in answered(pods, "eu-c-1") if it.labels["status"] == "200")
        assert good.labels == {"__name__": REQUESTS, "pod": "eu-c-1", "handler": "/v1/price", "status": "200"}
        assert abs(good.points[-1][0] - time.time()) < 1
        assert faults(pods, "eu-c-1", "eu-s-1") == PodReadFaults()


async def test_pods_are_read_at_their_pace_on_one_connection(serve: Pods) -> None:
    canary = await serve(FakePod())
    async with reader() as pods:
        pods.read("ns", "eu", reading(canary=canary.address))
        await until(lambda: len(canary.reads) >= 6)
        assert pace(canary) > 0.7 * FAST.rest
        assert len(canary.ports) == 1


async def test_the_canary_is_read_more_often_than_stable(serve: Pods) -> None:
    canary, stable = await serve(FakePod()), await serve(FakePod())
    async with reader(cadence=Cadence(rest=0.4, canary_rest=0.1)) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: len(stable.reads) >= 4)
        assert pace(stable) > 0.28
        assert len(canary.reads) > len(stable.reads)


async def test_many_pods_of_a_canary_are_read_in_two_halves_by_turns(serve: Pods) -> None:
    pods = [await serve(FakePod(good=9)) for _ in range(6)]
    targets = tuple(Target(f"eu-c-{place}", pod.address, True) for place, pod in enumerate(pods))
    async with reader(cadence=replace(FAST, rest=0.4, canary_rest=0.2)) as it:
        it.read("ns", "eu", Reading(targets, quick=(REQUESTS,), is_bad=BAD))
        await until(lambda: all(len(pod.reads) >= 7 for pod in pods))
    assert all(pace(pod) > 0.3 for pod in pods), "as often as stable"
    halves = [[moment for pod in pods[half::2] for moment, _ in pod.reads[2:]] for half in (0, 1)]
    apart = [min(abs(other - moment) for other in halves[1]) for moment in halves[0]]
    assert statistics.median(apart) > 0.1, "one half is read between two reads of the other"


async def test_nothing_is_read_after_the_end_and_nothing_is_kept(serve: Pods) -> None:
    canary = await serve(FakePod())
    async with reader() as pods:
        pods.read("ns", "eu", reading(canary=canary.address))
        await until(lambda: bool(canary.reads))
        pods.end("ns", "eu")
        count = len(canary.reads)
        await asyncio.sleep(0.3)
        assert len(canary.reads) <= count + 1
        assert len(pods) == 0
        assert pods.answers("ns", "eu", [question("eu-c-1")]) == {}


async def test_a_rollout_that_no_pass_asks_about_is_read_no_more(serve: Pods) -> None:
    canary = await serve(FakePod())
    async with reader(cadence=Cadence(rest=0.05, unasked=0.2)) as pods:
        pods.read("ns", "eu", reading(canary=canary.address))
        await until(lambda: len(pods) == 0)
        count = len(canary.reads)
        await asyncio.sleep(0.2)
        assert len(canary.reads) == count


async def test_pods_that_come_are_read_at_once_and_those_that_go_no_more(serve: Pods) -> None:
    first, second = await serve(FakePod()), await serve(FakePod(good=5))
    async with reader(cadence=Cadence(rest=30)) as pods:
        pods.read("ns", "eu", reading(canary=first.address))
        await until(lambda: bool(first.reads))
        pods.read("ns", "eu", reading(stable=second.address))
        await until(lambda: bool(answered(pods, "eu-s-1")))
        assert answered(pods, "eu-c-1")
        assert len(first.reads) == 1


async def test_slow_families_are_not_asked_for_in_every_close_look(serve: Pods) -> None:
    canary = await serve(FakePod())
    async with reader(cadence=Cadence(rest=0.4, slow=0.4, close=0.02, close_for=5)) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, slow=("memory_bytes",)))
        await until(lambda: bool(canary.reads))
        canary.bad = 1

        def with_memory() -> int:
            return sum("memory_bytes" in names for _, names in canary.reads)

        await until(lambda: with_memory() >= 3)
        assert len(canary.reads) > 2 * with_memory()
        assert canary.reads[0][1] == (REQUESTS, "memory_bytes")
        assert [it.labels["__name__"] for it in answered(pods, "eu-c-1", families=("memory_bytes",))] == [
            "memory_bytes"
        ]


# --- alarms ---------------------------------------------------------------------------------------------------------


async def test_a_bad_answer_of_the_canary_wakes_the_pass_after_stable_was_read(serve: Pods) -> None:
    canary, stable = await serve(FakePod()), await serve(FakePod())
    woken: list[tuple[float, int]] = []
    async with reader(
        wake=lambda namespace, name: woken.append((time.monotonic(), len(stable.reads))),
        cadence=Cadence(rest=3600.0, close=0.05),  # of itself stable would not be read again
    ) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: bool(stable.reads))
        await asyncio.sleep(0.1)
        assert woken == []
        for bad in (1, 2):
            changed, canary.bad = time.monotonic(), bad
            await until(lambda count=bad: len(woken) == count)
            bad_seen = next(when for when, _ in canary.reads if when >= changed)
            assert stable.reads[woken[-1][1] - 1][0] > bad_seen


async def test_what_is_looked_at_closely_can_be_read_at_once_and_nothing_else_can(serve: Pods) -> None:
    canary, stable = await serve(FakePod()), await serve(FakePod())
    cadence = Cadence(rest=3600.0, canary_rest=0.2, close=3600.0)
    async with reader(cadence=cadence) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: bool(stable.reads))
        pods.read_now("ns", "eu")
        pods.read_now("ns", "another")
        await asyncio.sleep(0.05)
        assert len(stable.reads) == 1
        canary.bad = 1
        await until(lambda: len(stable.reads) == 2)
        await asyncio.sleep(0.1)  # until that answer was taken
        before = len(canary.reads)
        pods.read_now("ns", "eu")
        await until(lambda: len(stable.reads) == 3)
        assert len(canary.reads) == before + 1


async def test_bad_answers_of_stable_and_of_probes_wake_nobody(serve: Pods) -> None:
    canary, stable = await serve(FakePod()), await serve(FakePod())
    woken: list[str] = []
    async with reader(wake=lambda namespace, name: woken.append(name)) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: bool(stable.reads))
        stable.bad = 5
        await asyncio.sleep(0.4)
        assert woken == []


async def test_an_alarm_that_sees_no_news_wakes_nobody(serve: Pods) -> None:
    canary = await serve(FakePod())
    seen: list[list[Series]] = []
    woken: list[str] = []

    def alarm(series: Any, stable: Any) -> bool:
        seen.append(list(series))
        return False

    async with reader(wake=lambda namespace, name: woken.append(name), alarm=alarm) as pods:
        pods.read("ns", "eu", reading(canary=canary.address))
        await until(lambda: bool(canary.reads))
        await asyncio.sleep(0.05)
        canary.bad = 1
        await until(lambda: bool(seen))
        await asyncio.sleep(0.1)
        assert woken == []
        assert len(seen) == 1
        assert {it.labels["status"] for it in seen[0]} == {"200", "500", "503"}


async def test_whatever_hit_both_is_in_every_later_read_of_stable(serve: Pods) -> None:
    """The canary's read is dated by its arrival, and stable is asked only then: the dates never claim too much."""
    canary, stable = await serve(FakePod(delay=0.1)), await serve(FakePod(delay=1.0))
    async with reader(cadence=Cadence(rest=0.2), patience=30) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: len(stable.reads) >= 3)
        canary_moments = [moment for moment, _ in answered(pods, "eu-c-1")[0].points]
        stable_moments = [moment for moment, _ in answered(pods, "eu-s-1")[0].points]
        for number, moment in enumerate(stable_moments):
            assert canary_moments[number] <= moment < canary_moments[number] + 0.9


# --- faults ---------------------------------------------------------------------------------------------------------


def response(**more: Any) -> Callable[[], web.Response]:
    return lambda: web.Response(**more)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(status=404, text="no such page"), "HTTP 404"),
        (response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302: a redirect is not followed"),
        (response(text="<html>", content_type="text/html"), "the answer is 'text/html', not metrics"),
        (response(body=b"\x00\x01\x02 \xff" * 100, content_type="text/plain"), "the answer is no page of metrics"),
        (response(text="a 1\n" * 100_000), "the answer is larger than 256 KiB"),
        (
            response(text="".join(f'{REQUESTS}{{x="{i}"}} 1\n' for i in range(1001))),
            "more than 1000 series of the asked metrics",
        ),
    ],
    ids=["absent", "redirect", "html", "garbage", "huge", "series"],
)
async def test_a_pod_that_answers_no_metrics_is_named(
    serve: Pods, answer: Callable[[], web.Response], message: str
) -> None:
    canary, stable = await serve(FakePod(answer=answer)), await serve(FakePod(good=1))
    async with reader() as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: bool(faults(pods, "eu-c-1", "eu-s-1").faults))
        assert faults(pods, "eu-c-1", "eu-s-1").faults == (PodReadFault("eu-c-1", message),)
        assert answered(pods, "eu-s-1")
        assert answered(pods, "eu-c-1") == SourceError(f"no pod could be read: eu-c-1: {message}")


async def test_a_pod_that_is_back_is_named_no_more_and_keeps_its_history(serve: Pods) -> None:
    canary = await serve(FakePod(good=1))
    async with reader() as pods:
        pods.read("ns", "eu", reading(canary=canary.address))
        await until(lambda: bool(answered(pods, "eu-c-1")))
        canary.answer = lambda: web.Response(status=503)
        await until(lambda: bool(faults(pods, "eu-c-1").faults))
        assert answered(pods, "eu-c-1")[0].points
        canary.answer, canary.good = None, 2
        await until(lambda: not faults(pods, "eu-c-1").faults)
        values = [
            value for _, value in next(it for it in answered(pods, "eu-c-1") if it.labels["status"] == "200").points
        ]
        assert values[0] == 1
        assert values[-1] == 2


async def test_one_slow_pod_does_not_keep_the_others_from_being_read(serve: Pods) -> None:
    canary, stable = await serve(FakePod(delay=5)), await serve(FakePod(good=1))
    async with reader() as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable=stable.address))
        await until(lambda: len(stable.reads) >= 6)
        assert faults(pods, "eu-c-1").faults == (PodReadFault("eu-c-1", "no answer within 0.3 s"),)


async def test_a_server_that_ignores_the_filter_is_read_less_often_the_larger_its_page(serve: Pods) -> None:
    page = f'{REQUESTS}{{status="200"}} 4\n' + "other_total 1\n" * 10_000
    canary = await serve(FakePod(answer=lambda: web.Response(text=page)))
    async with reader(cadence=Cadence(rest=0.05)) as pods:
        pods.read("ns", "eu", reading(canary=canary.address))
        await until(lambda: bool(answered(pods, "eu-c-1")))
        assert len(answered(pods, "eu-c-1")) == 1
        await asyncio.sleep(1.0)
        assert len(canary.reads) == 1


async def test_many_pods_have_their_turns_in_rotation(serve: Pods) -> None:
    stable = await serve(FakePod())
    targets = tuple(Target(f"eu-s-{number}", stable.address, False) for number in range(30))
    async with reader(cadence=Cadence(rest=0.05, pods_at_once=4)) as pods:
        pods.read("ns", "eu", Reading(targets, quick=(REQUESTS,)))
        await until(lambda: all(answered(pods, target.name) for target in targets))


async def test_with_very_many_pods_each_is_read_less_often(serve: Pods) -> None:
    stable = await serve(FakePod())
    targets = tuple(Target(f"eu-s-{number}", stable.address, False) for number in range(20))
    async with reader(cadence=Cadence(rest=0.05, reads_per_second=40)) as pods:
        pods.read("ns", "eu", Reading(targets, quick=(REQUESTS,)))
        await until(lambda: len(stable.reads) >= 60)
        assert pace(stable) > 0.3 / 40


async def test_memory_is_bounded_over_all_rollouts(serve: Pods) -> None:
    stable = await serve(FakePod())
    async with reader(cadence=Cadence(rest=0.005, jitter=0, bounds=0, values=100), now=CountingClock()) as pods:
        pods.read("ns", "eu", reading(stable=stable.address))
        await until(lambda: len(stable.reads) > 60)
        assert sum(len(it.points) for it in answered(pods, "eu-s-1")) <= 106
        newest = max(moment for it in answered(pods, "eu-s-1") for moment, _ in it.points)
        assert newest >= 10 * 58


class CountingClock:
    """Ten seconds further at each look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 10.0
        return self.seconds


async def test_reads_are_counted_for_the_operators_own_metrics(serve: Pods) -> None:
    canary = await serve(FakePod())
    told: list[tuple[str, float]] = []
    async with reader(observer=lambda outcome, seconds: told.append((outcome, seconds))) as pods:
        pods.read("ns", "eu", reading(canary=canary.address, stable="127.0.0.1:1"))
        await until(lambda: {"read", "failed"} <= {outcome for outcome, _ in told})


# --- HTTP -----------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 4\r\n\r\na 1\n",
        OK + b"content-length:4\r\nConnection: close\r\n\r\na 1\n",
        OK + b"\r\na 1\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\na 1\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\na 1\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\na \r\n2;x=y\r\n1\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n0\r\nX: y\r\n\r\n",
    ],
    ids=["length", "closing", "until the end", "1.0", "continue", "chunks", "trailer"],
)
@pytest.mark.parametrize("piece", [1, 1000], ids=["byte by byte", "at once"])
async def test_every_framing_of_an_answer_is_read(answer: bytes, piece: int) -> None:
    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(answer), piece):
            writer.write(answer[start : start + piece])
            await asyncio.sleep(0)

    async with raw(reply) as address:
        client = PodClient(timeout=2)
        assert await client.get(address, "/metrics") == Page(200, "text/plain", b"a 1\n")
        client.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the connection was closed without an answer"),
        (b"\x16\x03\x01 tls?\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"HTTP/1.1 200", "the answer ends in its head"),
        (OK + b"Content-Length: 9\r\n\r\na 1\n", "the answer ends before its end"),
        (OK + b"Content-Length: -1\r\n\r\n", "the answer's Content-Length is no number"),
        (OK + b"Content-Length: 9999999\r\n\r\n", "the answer is larger than 256 KiB"),
        (OK + b"Content-Encoding: gzip\r\n\r\n", "the answer is compressed, though that was not asked for"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\n", "the answer's Transfer-Encoding is not chunked"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "the answer's chunks cannot be read"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n", "the answer is larger than 256 KiB"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 300, "the answer's chunks cannot be read"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, "the head of the answer is larger than 16 KiB"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP 101 was not asked for"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_described(answer: bytes, message: str) -> None:
    async with raw(answer) as address:
        with pytest.raises(PodSilent, match=message):
            await PodClient(timeout=2).get(address, "/metrics")


async def test_an_endless_answer_is_cut_off() -> None:
    sent = 0

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"a 1\n" * 4096)
            sent += 16_384
            await writer.drain()

    async with raw(endless) as address:
        with pytest.raises(PodSilent, match="larger than 256 KiB"):
            await PodClient(timeout=2).get(address, "/metrics")
        await asyncio.sleep(0.05)
        so_far = sent
        await asyncio.sleep(0.05)
        assert sent == so_far


async def test_an_answer_that_trickles_is_cut_off_in_time() -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw(trickle) as address:
        with pytest.raises(PodSilent, match=r"no answer within 0\.2 s"):
            await asyncio.wait_for(PodClient(timeout=0.2).get(address, "/metrics"), 30)


async def test_a_connection_that_is_reset_is_no_more_than_a_failed_read() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with raw(reset) as address:
        with pytest.raises(PodSilent):
            await PodClient(timeout=2).get(address, "/metrics")


async def test_nothing_listens() -> None:
    with pytest.raises(PodSilent, match=r"nothing listens at 127\.0\.0\.1:1"):
        await PodClient(timeout=2).get("127.0.0.1:1", "/metrics")


@pytest.mark.parametrize("address", ["localhost:80", "", "127.0.0.1", "127.0.0.1:x", "example.com:80"])
async def test_no_name_is_ever_looked_up(address: str) -> None:
    with pytest.raises(PodSilent, match="is no address"):
        await PodClient(timeout=2).get(address, "/metrics")


async def test_a_connection_that_was_closed_while_idle_is_opened_anew() -> None:
    served = 0

    async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(OK + b"Content-Length: 4\r\n\r\na 1\n")

    async with raw(once) as address:
        client = PodClient(timeout=2)
        for _ in range(3):
            assert (await client.get(address, "/metrics")).body == b"a 1\n"
            await asyncio.sleep(0.02)
        assert served == 3
        client.close()


@asynccontextmanager
async def keeping(then: bytes | None) -> AsyncIterator[str]:
    """A server whose connections last, but after its first answer it gives `then`, or is silent."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer: bytes | None = OK + b"Content-Length: 4\r\n\r\na 1\n"
        while answer is not None:
            writer.write(answer)
            await reader.readuntil(b"\r\n\r\n")
            answer = then
        await reader.read()

    async with raw(reply) as address:
        yield address


async def test_many_are_asked_at_once_and_each_is_told_once_what_became_of_it() -> None:
    async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 4\r\n\r\na 1\n")

    well = Page(200, "text/plain", b"a 1\n")
    second = OK + b"Content-Length: 4\r\n\r\na 2\n"
    async with keeping(second) as good, keeping(b"nonsense\r\n\r\n") as bad, keeping(None) as dead, raw(once) as short:
        addresses = (good, bad, dead, short, "127.0.0.1:1")
        client = PodClient(timeout=1)
        told: list[dict[str, list[Page | str]]] = []
        for _ in range(2):
            answers: dict[str, list[Page | str]] = {address: [] for address in addresses}
            told.append(answers)

            def take(found: list[Page | str], answer: Page | PodSilent) -> None:
                found.append(answer if isinstance(answer, Page) else str(answer))

            await client.get_all([Question(it, "/metrics", partial(take, answers[it])) for it in addresses])
        first, then = told
        refused = ["nothing listens at 127.0.0.1:1"]
        assert list(first.values()) == [[well], [well], [well], [well], refused]
        assert list(then.values()) == [
            [Page(200, "text/plain", b"a 2\n")], ["the answer is not HTTP/1.1"], ["no answer within 1 s"], [well],
            refused,
        ]  # fmt: skip
        client.close()


async def test_asking_that_is_given_up_leaves_no_turn_taken_and_no_connection_open() -> None:
    async with keeping(None) as dead, keeping(OK + b"Content-Length: 0\r\n\r\n") as good:
        client = PodClient(timeout=30, at_once=1)
        await client.get(dead, "/metrics")
        asking = asyncio.create_task(client.get_all([Question(dead, "/metrics", lambda _: None)]))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await asyncio.wait_for(client.get(good, "/metrics"), 30)).status == 200
        client.close()


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 4\r\n\r\na 1\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nb 2\n")
        await reader.read()

    async with raw(chatty) as address:
        client = PodClient(timeout=2)
        for _ in range(3):
            assert (await client.get(address, "/metrics")).body == b"a 1\n"
        client.close()


async def test_questions_at_once_are_bounded_and_time_begins_with_the_turn(serve: Pods) -> None:
    pod = await serve(FakePod(delay=0.15))
    client = PodClient(timeout=0.3, at_once=1)
    pages = await asyncio.gather(*(client.get(pod.address, path_of((REQUESTS,))) for _ in range(4)))
    assert [page.status for page in pages] == [200] * 4
    client.close()


async def test_a_post_has_its_body() -> None:
    seen: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(2))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with raw(take) as address:
        assert (await PodClient(timeout=2).post(address, "/cache/reset", b"{}")).status == 204
    assert seen == [b"{}"]


def test_the_path_asks_for_the_families_alone() -> None:
    assert path_of(("a_total", "b_bucket")) == "/metrics?name%5B%5D=a_total&name%5B%5D=b_bucket"
