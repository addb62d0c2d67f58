"""Whatever a Prometheus, a pod or a webhook answers, or does not: words, in time, in little memory, and no crash."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinn_operator.core.samples import POD_FAULTS, PodQuestion, PodReadFaults, Query, SourceError, WebhookQuestion
from pinn_operator.pods.http import PodClient
from pinn_operator.pods.reader import Cadence, PodReader, Reading, Target
from pinn_operator.prom.client import HttpSource, parse_body
from pinn_operator.prom.library import LibrarySource
from pinn_operator.webhooks.client import WebhookClient
from tests.support.sending import sending

NOW = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)
SECONDS = 1.0
MEMORY = 64 * 1024 * 1024
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def with_aiohttp(address: str) -> object:
    return await _prometheus(HttpSource(f"http://{address}", timeout=SECONDS))


async def with_the_library(address: str) -> object:
    return await _prometheus(LibrarySource(f"http://{address}", timeout=SECONDS))


async def _prometheus(source: Any) -> object:
    try:
        return await source.ask(Query("q", "up", NOW))
    finally:
        await source.close()


async def with_a_webhook(address: str) -> object:
    async def no_secret(*_: str) -> str | None:
        return None

    client = WebhookClient(no_secret, allow_local=True)
    question = WebhookQuestion(
        "webhook/a", gate="a", url=f"http://{address}/", canary="b", stable="c", weight=10, step=1, timeout=SECONDS,
        retries=0,
    )  # fmt: skip
    try:
        return await client.ask(question, namespace="d", name="e")
    finally:
        await client.close()


async def with_pods(address: str) -> object:
    reader = PodReader(
        PodClient(timeout=SECONDS), wake=lambda _namespace, _name: None, cadence=Cadence(failures=1, failed_rest=20.0)
    )
    question = PodQuestion("pods/http_requests_total", ("http_requests_total",), ("one",))
    reader.read("a", "b", Reading((Target("one", address, True),), question.families))
    try:
        while True:
            await asyncio.sleep(0.01)
            answers = reader.answers("a", "b", [question])
            told = answers.get(POD_FAULTS)
            if isinstance(told, PodReadFaults) and told.faults:
                assert isinstance(answers[question.key], SourceError)
                return SourceError(told.faults[0].message)
    finally:
        await reader.close()


SOURCES = [with_aiohttp, with_the_library, with_a_webhook, with_pods]
ANSWERS: dict[str, tuple[tuple[bytes, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "garbage": ((b"\x00\x01\xfe garbage \r\n\r\n",), {}),
    "another protocol": ((b"SSH-2.0-OpenSSH_9.9\r\n",), {}),
    "an endless status line": ((b"HTTP/1.1 200 " + b"O" * 65536,), {"forever": True}),
    "an endless header": ((b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 65536), {"forever": False}),
    "headers without end": ((b"HTTP/1.1 200 OK\r\n", b"X-A: y\r\n" * 5000), {"forever": False, "wait": 0.01}),
    "text that is none": ((_OK + b"Content-Length: 4\r\n\r\n\xff\xfe\x00\x80",), {}),
    "a page to log in": ((_OK + b"Content-Length: 13\r\n\r\n<html>in</html"[:13],), {}),
    "half an answer": ((_OK + b'Content-Length: 900\r\n\r\n{"status": "succ',), {}),
    "a length that is none": ((_OK + b"Content-Length: minus one\r\n\r\n{}",), {}),
    "a length of terabytes": ((_OK + b"Content-Length: 9999999999999\r\n\r\n{}",), {"wait": 2.0}),
    "a broken chunk": ((_CHUNKED + b"zz\r\n",), {}),
    "a chunk of terabytes": ((_CHUNKED + b"ffffffffff\r\n{",), {"wait": 2.0}),
    "chunks without end": ((_CHUNKED, b"ffff\r\n" + b" " * 65535 + b"\r\n"), {"forever": False}),
    "a body without end": ((_OK + b"\r\n", *[b" " * 65536] * 400), {}),
    "never": ((b"",), {"wait": 20.0}),
    "a head and never a body": ((_OK + b"Content-Length: 20\r\n\r\n",), {"wait": 20.0}),
    "a byte at a time": ((_OK + b"\r\n", *[b" "] * 100), {"wait": 0.1}),
    "brackets": ((_OK + b"\r\n" + b"[" * 200_000,), {}),
    "points": ((_OK + b"\r\n" + b'[1,"1"],' * 900_000,), {}),
    "a number of many digits": ((_OK + b"\r\n" + b"1" * 100_000,), {}),
    "a redirect": ((b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",), {}),
    "a redirect to itself": ((b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",), {}),
    "a status that is none": ((b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\n{}",), {}),
    "an informational answer alone": ((b"HTTP/1.1 100 Continue\r\n\r\n",), {}),
    "an error without words": ((b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",), {}),
}


@pytest.mark.parametrize("ask", SOURCES)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_bad_answer_is_an_error_with_words_in_time_and_in_little_memory(
    ask: Callable[[str], Awaitable[object]], answer: str
) -> None:
    parts, options = ANSWERS[answer]
    async with sending(*parts, **options) as address:
        tracemalloc.start()
        started = time.monotonic()
        # The library's thread goes on until its own time-out; a webhook's and a pod's time is theirs alone.
        found = await asyncio.wait_for(ask(address), 10 * SECONDS)
        seconds = time.monotonic() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(found, SourceError), found
    assert found.message
    assert len(found.message) < 1024
    assert found.message.isprintable(), repr(found.message)
    assert seconds < 5 * SECONDS
    assert peak < MEMORY


@given(
    st.integers(100, 599),
    st.binary(max_size=200)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from(["success", "vector", "matrix"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["status", "data", "resultType", "result", "metric", "value", "values", "error", "warnings"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda it: repr(it).replace("'", '"').replace("None", "null").encode(errors="replace")),
)
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_body_makes_prometheus_reader_raise(status: int, body: bytes) -> None:
    found = parse_body(status, body)
    assert isinstance(found, tuple | SourceError)
