"""What tests of the batch process share: pricers for the child that wait, fail or die when a test says so.

A child is another process, so what it does is steered by files: `until` names one that has to exist before a batch is
priced, `arrived` one that is made when a batch has come, and `dies` one that ends the process while it exists. To it
all American options are slow ones, and each piece of them takes `slow_seconds`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import BoolArray, Method, OptionBatch, Quotes
from pinn_inference.server.batch import BatchProcess, BatchSettings, BatchState, JobKind, ModelLabels
from tests.support.server import eventually

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PATIENCE = 180.0


def exact(batch: OptionBatch) -> Quotes:
    """The closed form, as if it were the network."""
    quotes = closed_form.price(batch)
    return replace(quotes, method=np.full(len(batch), Method.PINN, dtype=np.int8))


@dataclass
class SteeredPricer:
    """A pricer for the child; see the module."""

    options: dict[str, Any]
    where: str = "numpy"

    @property
    def labels(self) -> ModelLabels:
        if "no_memory" in self.options:
            raise MemoryError(self.options["no_memory"])
        return ModelLabels(european="european/test", american="american/test")

    def price(self, batch: OptionBatch) -> Quotes:
        for name, act in (("arrived", _touch), ("until", _wait_for), ("dies", _die_if)):
            if name in self.options:
                act(Path(self.options[name]))
        if "slow_seconds" in self.options and batch.is_american.any():
            time.sleep(self.options["slow_seconds"])
        if "raises" in self.options:
            raise MemoryError(self.options["raises"])
        return exact(batch)

    def slow_rows(self, batch: OptionBatch) -> BoolArray:
        return batch.is_american

    def load_tensorflow(self, *, threads: int) -> dict[str, Any]:
        match self.options.get("loading"):
            case "dies":
                os.kill(os.getpid(), signal.SIGABRT)
            case "raises":
                raise ImportError("no module named tensorflow")
        self.where = "tensorflow"
        return {"status": "healthy", "version": "none", "gpu_available": False, "threads": threads}


def steered(options: dict[str, Any], models: bytes) -> SteeredPricer:
    """A `PricerFactory`."""
    match options.get("starting"):
        case "raises":
            raise RuntimeError("cannot start")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    return SteeredPricer(options)


@asynccontextmanager
async def batch_process(*, started: bool = True, **changes: Any) -> AsyncIterator[BatchProcess]:
    """A real one, whose child is steered by `options`; `models` are what it gets to price by, `price` is
    what the server itself prices by. `ends` is filled with the reasons of its restarts, `troubles` with its troubles.
    """
    ends: list[str] = changes.pop("ends", [])
    troubles: list[str] = changes.pop("troubles", [])
    models: bytes = changes.pop("models", b"")
    price: Callable[[OptionBatch], Quotes] = changes.pop("price", exact)
    values: dict[str, Any] = {"factory": "tests.support.batch:steered", "first_pause_seconds": 0.01, "slots": 4}
    process = BatchProcess(
        BatchSettings(**{**values, **changes}),
        price=price,
        labels=lambda: ModelLabels(european="european/server"),
        on_restart=ends.append,
        on_trouble=troubles.append,
    )
    await process.start(models)
    try:
        if started:
            await reaches(process, BatchState.NUMPY)
        yield process
    finally:
        await process.close(within=PATIENCE)


async def reaches(process: BatchProcess, state: BatchState) -> None:
    await eventually(lambda: process.status.state is state, seconds=PATIENCE)


@dataclass
class Taken:
    """An answer after it was read."""

    document: Any
    body: bytes
    content_type: str
    header_length: int | None
    counts: Any


async def ask(process: BatchProcess, body: Any, kind: JobKind = JobKind.PRICE, **arguments: Any) -> Taken:
    """Run a batch and read its answer; a document that is not bytes is sent as JSON."""
    sent = body if isinstance(body, bytes) or hasattr(body, "__aiter__") else orjson.dumps(body)
    async with asyncio.timeout(PATIENCE):
        answer = await process.run(kind, sent, **arguments)
    with answer:
        content = b"".join(answer.pieces())
        assert len(content) == answer.length
        document = orjson.loads(content[: answer.header_length])
        return Taken(document, content, answer.content_type, answer.header_length, answer.counts)


def rows(count: int, *, seed: int = 7) -> list[dict[str, Any]]:
    """Options of a request, calls and puts, all different."""
    source = np.random.default_rng(seed)
    return [
        {
            "spot": round(float(spot), 4),
            "strike": 100,
            "maturity": round(float(maturity), 4),
            "rate": 0.03,
            "dividend": 0.01,
            "volatility": round(float(volatility), 4),
            "option_type": "put" if index % 2 else "call",
        }
        for index, (spot, maturity, volatility) in enumerate(
            zip(
                source.uniform(50, 150, count),
                source.uniform(0.05, 2, count),
                source.uniform(0.1, 0.6, count),
                strict=True,
            )
        )
    ]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # It may also end between the opening of the file and its reading.
        return False


def _touch(path: Path) -> None:
    path.touch()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} never came")
        time.sleep(0.005)


def _die_if(path: Path) -> None:
    if path.exists():
        os.kill(os.getpid(), signal.SIGKILL)
