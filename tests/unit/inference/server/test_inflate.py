"""Compressed bodies: every form that clients send comes out as it was, and nothing goes far beyond its bounds."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.server.errors import BodyTooLarge, InflatesTooMuch, InvalidRequest, UnknownCoding
from pinn_inference.server.inflate import FREE_BYTES, RATIO, Coding, coding_of, inflate, inflate_small
from tests.support.server import PUT, running, sample

LIMIT = 32 << 20
NOISE = Random(5).randbytes(300_000)
TEXTS = {
    "empty": b"",
    "short": b"{}",
    "blanks": b" " * 900_000,
    "noise": NOISE,
    "mixed": NOISE + b" " * 500_000 + NOISE,
}


def raw_deflate(text: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(text) + engine.flush()


def in_members(text: bytes) -> bytes:
    return b"".join(gzip.compress(text[start : start + 65_536]) for start in range(0, max(1, len(text)), 65_536))


WAYS: dict[str, tuple[Coding, Callable[[bytes], bytes]]] = {
    "gzip": (Coding.GZIP, gzip.compress),
    "gzip in members": (Coding.GZIP, in_members),
    "deflate": (Coding.DEFLATE, zlib.compress),
    "deflate without its frame": (Coding.DEFLATE, raw_deflate),
    "nothing": (Coding.NONE, bytes),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(("coding", "pack"), WAYS.values(), ids=WAYS)
def test_what_was_compressed_comes_out_as_it_was(coding: Coding, pack: Callable[[bytes], bytes], text: bytes) -> None:
    packed = pack(text)
    assert bytes(inflate(memoryview(packed), coding, limit=LIMIT)) == text
    small = inflate_small(packed, coding, size=16_384)
    assert small is None or bytes(small) == text
    if coding is not Coding.NONE:
        assert (small is None) == (len(text) > 16_384)


@settings(deadline=None)
@given(text=st.binary(max_size=400), position=st.integers(0, 450), junk=st.binary(max_size=8), cut=st.booleans())
def test_a_damaged_body_is_a_fault_or_what_was_meant(text: bytes, position: int, junk: bytes, cut: bool) -> None:
    for coding, pack in ((Coding.GZIP, gzip.compress), (Coding.DEFLATE, zlib.compress)):
        packed = pack(text)
        damaged = packed[:position] + junk + (b"" if cut else packed[position + len(junk) :])
        for read in (inflate, inflate_small):
            bound = {"limit": LIMIT} if read is inflate else {"size": 16_384}
            with suppress(InvalidRequest):
                assert read(damaged, coding, **bound) == text  # type: ignore[operator]


@pytest.mark.parametrize(("coding", "pack"), [WAYS["gzip"], WAYS["deflate"]], ids=["gzip", "deflate"])
def test_a_body_without_its_end_is_refused(coding: Coding, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InvalidRequest, match="it ends too early"):
        inflate(pack(b"{}")[:-3], coding, limit=LIMIT)
    with pytest.raises(InvalidRequest):
        inflate(pack(b"{}") + b"more", coding, limit=LIMIT)


def test_a_body_of_thousands_of_members_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="goes on after its end"):
        inflate(gzip.compress(b"") * 5000, Coding.GZIP, limit=LIMIT)
    assert inflate_small(gzip.compress(b"") * 500, Coding.GZIP, size=16_384) is None


def test_a_body_that_is_nearly_all_repetition_is_refused_beyond_what_any_may_have() -> None:
    assert len(inflate(gzip.compress(b" " * FREE_BYTES), Coding.GZIP, limit=LIMIT)) == FREE_BYTES
    with pytest.raises(InflatesTooMuch, match=f"more than {RATIO} times its size"):
        inflate(gzip.compress(b" " * (31 << 20)), Coding.GZIP, limit=LIMIT)


def test_a_body_is_bounded_by_its_inflated_size() -> None:
    packed = gzip.compress(NOISE)
    assert inflate(packed, Coding.GZIP, limit=len(NOISE)) == NOISE
    with pytest.raises(BodyTooLarge):
        inflate(packed, Coding.GZIP, limit=len(NOISE) - 1)


def test_a_bomb_is_refused_before_it_has_cost_more_than_a_small_body() -> None:
    bomb = gzip.compress(b" " * (31 << 20))
    started = time.thread_time()
    for _ in range(20):
        with pytest.raises(InflatesTooMuch):
            inflate(bomb, Coding.GZIP, limit=LIMIT)
    assert (time.thread_time() - started) / 20 <= 0.03


@pytest.mark.parametrize("header", ["", "identity", "GZip", " x-gzip ", "deflate"])
def test_codings_are_known_in_any_case(header: str) -> None:
    assert coding_of(header).value in header.lower()


@pytest.mark.parametrize("header", ["br", "zstd", "banana", "gzip, gzip", "é" * 200])
async def test_a_coding_that_is_not_known_is_told_and_never_ignored(header: str) -> None:
    with pytest.raises(UnknownCoding) as caught:
        coding_of(header)
    assert len(str(caught.value)) < 150
    if header.isascii():
        async with running() as client:
            async with client.post("/v1/price", json=PUT, headers={"Content-Encoding": header}) as response:
                assert (response.status, response.headers["Accept-Encoding"]) == (415, "gzip, deflate")
                assert (await response.json())["reason"] == "UnknownCoding"
            assert sample(client, "http_requests_total", method="POST", handler="/v1/price", status="415") == 1


@pytest.mark.parametrize("path", ["/v1/price", "/v2/models/european/infer", "/v1/nothing", "/cache/reset"])
async def test_a_bomb_costs_the_event_loop_next_to_nothing(path: str) -> None:
    bomb = gzip.compress(b" " * (31 << 20))
    async with running() as client:
        spent: list[float] = []
        for _ in range(6):
            started = time.thread_time()  # of this thread alone, client and server
            async with client.post(path, data=bomb, headers={"Content-Encoding": "gzip"}) as response:
                document = await response.json()
            spent.append(time.thread_time() - started)
            if path.startswith(("/v1/price", "/v2")):
                assert (response.status, document["reason"]) == (413, "InflatesTooMuch")
        assert min(spent) <= 0.02


@pytest.mark.parametrize("rows", [1, 20, 2000])
async def test_compressed_options_have_the_prices_of_the_same_options(rows: int) -> None:
    document = PUT if rows == 1 else {"options": [{**PUT, "spot": 90 + 0.01 * row} for row in range(rows)]}
    body = json.dumps(document).encode()
    async with running() as client:
        async with client.post("/v1/price", data=body) as response:
            expected = await response.json()
        for coding, pack in (WAYS["gzip"], WAYS["deflate"], WAYS["deflate without its frame"]):
            headers = {"Content-Encoding": coding.value}
            async with client.post("/v1/price", data=pack(body), headers=headers) as response:
                assert (response.status, await response.json()) == (200, expected)
