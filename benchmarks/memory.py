"""Whether memory grows, as JSON: 1,000 predictions in process, and many requests over every path of a real server.

    python -m benchmarks.memory --output benchmarks/results/memory.json
    python -m benchmarks.memory --requests 100000 --output benchmarks/results/memory.json

Without `--requests` no server is started. With it, the server is warmed up before its memory is first looked at: by a
tenth as many requests of the same mix, twice as many of them at a time, because memory that was once needed for
requests at the same time is kept for the next such moment, which may come late. What is looked at is the resident
memory of the whole process tree without mapped files, which come and go with the machine's page cache. Every answer
must have the status that its request deserves.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from benchmarks.report import Memory, emit, parser, serving
from benchmarks.server import options
from pinn_inference.pricing.artefact import bundled_directory, read
from pinn_inference.pricing.cache import QuoteCache
from pinn_inference.pricing.model import load_model
from pinn_inference.pricing.scalar import single

PREDICTIONS = 1000
PREDICTIONS_GOAL_MB = 50.0
SERVER_GOAL_MB = 5.0
_CONNECTIONS = 8
_CHECKPOINTS = 10
_TOKEN = "benchmark"
_TIMEOUT = aiohttp.ClientTimeout(total=60.0)
_SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request: its share of all, and the status it must be answered with."""

    share: int
    method: str
    path: str
    status: int = 200
    bodies: tuple[bytes, ...] = (b"",)


def mix() -> list[Ask]:
    """Every path of the server, right and wrong requests; mostly single quotes, as in life."""
    random_options = options(500, seed=1)
    american = [{**option, "style": "american"} for option in options(100, seed=2)]
    batches = [{"options": options(size, seed=size)} for size in (10, 200, 2000)]
    columns = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    tensors = [
        {"name": name, "shape": [100], "datatype": "FP64", "data": [option[name] for option in random_options[:100]]}
        for name in columns
    ]
    kinds = {
        "name": "option_type",
        "shape": [100],
        "datatype": "BYTES",
        "data": [option["option_type"] for option in random_options[:100]],
    }
    infer = orjson.dumps({"inputs": [*tensors, kinds]})
    bad = [{**random_options[0], "spot": "a lot"}, {**random_options[0], "maturity": -1}, {"strike": 1}, [], "text"]

    def documents(items: list[Any]) -> tuple[bytes, ...]:
        return tuple(orjson.dumps(item) for item in items)

    return [
        Ask(600, "POST", "/v1/price", bodies=documents(random_options)),
        Ask(60, "POST", "/v1/price", bodies=documents(american)),
        Ask(20, "POST", "/v1/price", bodies=documents(batches)),
        Ask(40, "POST", "/v1/price", status=400, bodies=(*documents(bad), b"{", b"\xff")),
        Ask(30, "POST", "/v2/models/european/infer", bodies=(infer,)),
        Ask(10, "POST", "/v2/models/european/infer", status=400, bodies=documents(bad)),
        Ask(20, "GET", "/api/investor-report?symbols=SPY,QQQ&user_id=benchmark"),
        Ask(20, "GET", "/api/forecast/all?symbols=AAPL"),
        Ask(10, "GET", "/api/investor-report?symbols=NOSUCHSYMBOL", status=404),
        *(Ask(10, "GET", path) for path in ("/health", "/health/deployment/readiness", "/health/detailed")),
        *(Ask(10, "GET", path) for path in ("/health/pinn", "/health/pinn/quick", "/health/pinn/metrics")),
        *(Ask(10, "GET", path) for path in ("/metrics", "/cache/stats", "/openapi.json", "/docs")),
        *(Ask(5, "GET", path) for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/european")),
        Ask(1, "POST", "/cache/reset"),
        Ask(1, "POST", "/health/pinn/warmup"),
        Ask(10, "GET", "/no/such/path", status=404),
        Ask(10, "PUT", "/v1/price", status=405),
    ]


async def ask_all(
    url: str, asks: Iterator[tuple[Ask, bytes]], wrong: Counter[str], *, connections: int = _CONNECTIONS
) -> None:
    """Sends requests over so many connections until there are none left; `wrong` counts unexpected answers."""

    async def one_connection(session: aiohttp.ClientSession) -> None:
        for ask, body in asks:
            async with session.request(ask.method, url + ask.path, data=body or None) as response:
                await response.read()
            if response.status != ask.status:
                wrong[f"{ask.method} {ask.path}: {response.status} instead of {ask.status}"] += 1

    headers = {"Authorization": f"Bearer {_TOKEN}"}
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session:
        await asyncio.gather(*(one_connection(session) for _ in range(connections)))


def requests(count: int, seed: int) -> Iterator[tuple[Ask, bytes]]:
    """A random sequence of the mix, every kind at least once in each hundred times its share."""
    source = random.Random(seed)
    asks = mix()
    return (
        (ask, source.choice(ask.bodies))
        for ask in itertools.islice(_shuffled([ask for ask in asks for _ in range(ask.share)], source), count)
    )


def _shuffled(asks: list[Ask], source: random.Random) -> Iterator[Ask]:
    while True:
        source.shuffle(asks)
        yield from asks


async def until_tensorflow_is_loaded(url: str) -> bool:
    """TensorFlow is imported after the server is ready, and grows the process once; False if it never came."""
    end = time.monotonic() + _SETTLE_SECONDS
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        while time.monotonic() < end:
            async with session.get(f"{url}/health/detailed") as response:
                document = await response.json()
            if document["components"]["tensorflow"].get("status") == "healthy":
                return True
            await asyncio.sleep(1.0)
    return False


def over_every_path(count: int) -> dict[str, Any]:
    """Memory of a server and its children before and after `count` requests."""
    wrong: Counter[str] = Counter()
    with serving(PINN_CONTROL_TOKEN=_TOKEN) as server:
        pid = server.process.pid
        at_ready = Memory.of(pid)
        loaded = asyncio.run(until_tensorflow_is_loaded(server.url))
        warm_up = requests(max(count // 10, 4000), seed=1)
        asyncio.run(ask_all(server.url, warm_up, wrong, connections=2 * _CONNECTIONS))
        time.sleep(2.0)
        series = [Memory.of(pid)]
        began = time.perf_counter()
        for checkpoint in range(_CHECKPOINTS):
            asyncio.run(ask_all(server.url, requests(count // _CHECKPOINTS, seed=2 + checkpoint), wrong))
            series.append(Memory.of(pid))
        seconds = time.perf_counter() - began
        time.sleep(2.0)
        series[-1] = Memory.of(pid)
    growth = round(series[-1].own - series[0].own, 2)
    return {
        "requests": count // _CHECKPOINTS * _CHECKPOINTS,
        "requests_per_second": round(count / seconds),
        "tensorflow_loaded": loaded,
        "rss_at_ready_mb": at_ready.rss,
        "rss_after_warm_up_mb": series[0].rss,
        "rss_at_end_mb": series[-1].rss,
        "own_at_each_tenth_mb": [memory.own for memory in series],
        "files_at_each_tenth_mb": [memory.files for memory in series],
        "growth_mb": growth,
        "goal_mb": SERVER_GOAL_MB,
        "wrong_answers": dict(wrong),
        "passed": growth <= SERVER_GOAL_MB and not wrong,
    }


def in_process() -> dict[str, Any]:
    """Memory of this process before and after single predictions through the cache and through the model's engine."""
    artefact, model = read(bundled_directory()), load_model(bundled_directory())
    cache = QuoteCache(artefact)

    def predict(count: int, seed: int) -> None:
        for option in options(count, seed):
            inputs = (
                *(float(option[name]) for name in ("spot", "strike", "maturity", "rate", "dividend", "volatility")),
                option["option_type"] == "call",
            )
            cache.quote(*inputs)
            model.price(single(*inputs))

    predict(100, seed=1)
    gc.collect()
    before = Memory.of(os.getpid()).rss
    predict(PREDICTIONS, seed=2)
    gc.collect()
    growth = round(Memory.of(os.getpid()).rss - before, 2)
    return {
        "predictions": PREDICTIONS,
        "rss_before_mb": before,
        "growth_mb": growth,
        "goal_mb": PREDICTIONS_GOAL_MB,
        "passed": growth < PREDICTIONS_GOAL_MB,
    }


def main() -> int:
    command = parser(__doc__ or "")
    command.add_argument("--requests", type=_count, default=0, help="requests to a server; at least 1,000")
    arguments = command.parse_args()
    parts = {"in_process": in_process()}
    if arguments.requests:
        parts["over_every_path"] = over_every_path(arguments.requests)
    passed = all(part["passed"] for part in parts.values())
    return emit({"test": "memory", "iterations": PREDICTIONS, **parts, "passed": passed}, arguments.output)


def _count(text: str) -> int:
    if not text.isdigit() or 0 < int(text) < 1000:
        raise argparse.ArgumentTypeError("0 or a whole number from 1000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
