"""What is refused leaves nothing behind: no text, no document and no frame that holds them, whatever was wrong."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.batch import JobKind, ModelLabels
from pinn_inference.server.batch.jobs import Refusal, SlowBatches, Work, perform
from tests.support.batch import SteeredPricer, exact
from tests.support.server import PUT, running

SIZE = 1_000_000
ROWS = json.dumps([PUT] * 5000).encode()
AMERICAN = json.dumps({"options": [{**PUT, "style": "american"}] * 5000}).encode()
WRONG_ROW = {**PUT, "volatility": -1}
HEADER = {"model": "european", "version": "1"}
BAD = {
    "no JSON": b"x" * SIZE,
    "blanks": b" " * SIZE,
    "JSON that ends too early": b'{"options":' + ROWS,
    "NaN, which a lenient reader takes": b'{"options":' + ROWS[:-1] + b',{"spot":NaN}]}',
    "half a character": b'{"a":"' + b"a" * SIZE + b"\xc3" + b'"}',
    "brackets": b"[" + b"[]," * SIZE + b"[]]",
    "a wrong row": json.dumps({"options": [PUT] * 5000 + [WRONG_ROW]}).encode(),
    "wrong rows": json.dumps({"options": [WRONG_ROW] * 5000}).encode(),
    "too many rows": b'{"options":' + json.dumps([PUT] * 20_000).encode() + b"}",
    "slow options": AMERICAN,
    "a wrong column": json.dumps({"columns": {**PUT, "spot": [1.0] * 9999 + [-1.0]}}).encode(),
    "another form": b'"' + b"a" * SIZE + b'"',
}


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _AllSlow(SteeredPricer):
    def price(self, batch: OptionBatch) -> Quotes:
        return exact(batch)


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_refusal_keeps_neither_the_body_nor_what_was_made_of_it(kind: JobKind, body: bytes) -> None:
    pricer = _AllSlow({})
    assert pricer.labels != ModelLabels()

    def refuse() -> Refusal:
        work = Work(kind, body, HEADER if kind is JobKind.INFER else {}, 10_000, 32 << 20)
        outcome = SlowBatches[None]().begin(None, perform(work, pricer, lambda _: None, lambda _: None))
        assert isinstance(outcome, Refusal)
        return outcome

    refuse()  # whatever is remembered for good is remembered now
    references = sys.getrefcount(body)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [refuse() for _ in range(3)]
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert sys.getrefcount(body) == references
    assert grown < 300_000, f"{grown} bytes for {len(kept)} refusals"


@pytest.mark.usefixtures("without_collector")
async def test_the_server_keeps_nothing_of_a_request_that_it_refused() -> None:
    async with running() as client:
        grown: list[int] = []
        body = b'{"spot":' + b"x" * 200_000
        for _ in range(30):
            async with client.post("/v1/price", data=body) as response:
                assert response.status == 400
            grown.append(sum(isinstance(thing, BaseException) for thing in gc.get_objects()))
    assert grown[-1] <= grown[5] + 2
