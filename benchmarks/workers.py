"""Ten workers with ten quotes each against a real server, as JSON.

    python -m benchmarks.workers --output benchmarks/results/workers.json

Each worker has its own connection and asks again as soon as it has its answer. Every price is checked.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import aiohttp
import orjson

from benchmarks.report import emit, milliseconds, parser, serving
from lab.pricing import random_option

GOAL_P95_MS = 100.0
GOAL_RATE = 50.0
_TIMEOUT = aiohttp.ClientTimeout(total=10.0)


async def worker(url: str, requests: int, seed: int) -> tuple[list[float], int]:
    """The seconds each answer took, and how many were no right price."""
    source = random.Random(seed)
    times: list[float] = []
    failed = 0
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        for _ in range(requests):
            option = random_option(source)
            began = time.perf_counter()
            async with session.post(f"{url}/v1/price", data=orjson.dumps(option.body())) as response:
                answer = await response.read()
            times.append(time.perf_counter() - began)
            failed += response.status != 200 or not option.is_price(orjson.loads(answer)["price"])
    return times, failed


async def all_workers(url: str, workers: int, requests: int) -> tuple[list[float], int, float]:
    await worker(url, requests, seed=0)  # the first connection ever pays for what is done once
    began = time.perf_counter()
    results = await asyncio.gather(*(worker(url, requests, seed) for seed in range(1, workers + 1)))
    seconds = time.perf_counter() - began
    return [one for times, _ in results for one in times], sum(failed for _, failed in results), seconds


def main() -> int:
    command = parser(__doc__ or "")
    command.add_argument("--workers", type=int, default=10)
    command.add_argument("--requests", type=int, default=10, help="of each worker")
    arguments = command.parse_args()
    with serving() as server:
        times, failed, seconds = asyncio.run(all_workers(server.url, arguments.workers, arguments.requests))
    p95, rate = milliseconds(times, 0.95), len(times) / seconds
    return emit(
        {
            "test": "workers",
            "iterations": len(times),
            "workers": arguments.workers,
            "requests_per_worker": arguments.requests,
            "p50_ms": milliseconds(times, 0.5),
            "p95_ms": p95,
            "p99_ms": milliseconds(times, 0.99),
            "requests_per_second": round(rate, 1),
            "failed": failed,
            "goals": {"p95_ms": GOAL_P95_MS, "requests_per_second": GOAL_RATE, "failed": 0},
            "passed": failed == 0 and p95 < GOAL_P95_MS and rate > GOAL_RATE,
        },
        arguments.output,
    )


if __name__ == "__main__":
    sys.exit(main())
