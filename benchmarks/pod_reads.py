"""What the reading of pods costs: the operator for ten rollouts of twenty pods, and a server for being read.

    python -m benchmarks.pod_reads [--seconds 20] [--output FILE]

The pods are 200 addresses of loopback behind one process, which answers what the bundled server does. Each figure
is the processor time of its own process. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from pinn_inference.server.config import ServerConfig
from pinn_inference.server.metrics import ServerMetrics
from pinn_operator.core.samples import PodQuestion
from pinn_operator.core.wanted.spec import MetricNames
from pinn_operator.pods.history import History
from pinn_operator.pods.http import PodClient
from pinn_operator.pods.reader import BadAnswers, PodReader, Reading, Target, path_of

NAMES = MetricNames()
QUICK = (NAMES.requests, f"{NAMES.latency}_bucket")
SLOW = (
    NAMES.cache_hits, NAMES.cache_misses, NAMES.fallbacks, NAMES.options, NAMES.memory, NAMES.cpu,
    NAMES.price_count, NAMES.price_sum, NAMES.price_squares,
)  # fmt: skip
PODS = 20


def busy_metrics() -> ServerMetrics:
    """Those of a server that has answered a while."""
    metrics = ServerMetrics(revision="9d77e0aa", service="eu")
    for number in range(3000):
        status = 500 if number % 200 == 0 else 200
        metrics.observe_request(method="POST", handler="/v1/price", status=status, seconds=number * 1e-6, prices=True)
    for handler in ("/metrics", "/health/deployment/readiness"):
        metrics.observe_request(method="GET", handler=handler, status=200, seconds=0.001, prices=False)
    return metrics


def page() -> bytes:
    """What the operator gets of a pod at rest."""
    return busy_metrics().exposition(path_of((*QUICK, *SLOW)).partition("?")[2])


def pods(port: int, ready: Any) -> None:
    """Answers as pods do, at little cost. Runs in a process of its own."""
    quick = busy_metrics().exposition(path_of(QUICK).partition("?")[2])
    whole = page()

    class Pod(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            body = whole if SLOW[0].encode() in data else quick
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(head.encode() + b"X-Request-ID: 0123456789abcdef\r\nServer: pinn\r\n\r\n" + body)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Pod, "0.0.0.0", port)
        ready.set()
        await server.serve_forever()

    asyncio.run(serve())


def addresses(port: int, rollout: int) -> list[str]:
    return [f"127.0.{rollout + 1}.{pod + 1}:{port}" for pod in range(PODS)]


async def cpu_share(work: Callable[[], Awaitable[None]], seconds: float) -> float:
    """Percent of a core that this process takes while `work` runs beside, its start left out."""
    task = asyncio.ensure_future(work())
    await asyncio.sleep(2.0)
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    share = 100 * (time.process_time() - cpu) / (time.monotonic() - began)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return round(share, 2)


async def read_as_the_operator(port: int, seconds: float, rollouts: int, *, passes: bool) -> tuple[float, int]:
    """Its reader, with `passes` that ask it every two seconds too; and the reads a second."""
    counted = 0

    def count(_outcome: str, _seconds: float) -> None:
        nonlocal counted
        counted += 1

    reader = PodReader(PodClient(), wake=lambda _namespace, _name: None, observer=count)
    for rollout in range(rollouts):
        targets = tuple(
            Target(f"eu-{'cs'[pod % 2]}-{pod}", address, canary=pod % 2 == 0)
            for pod, address in enumerate(addresses(port, rollout))
        )
        reader.read("ns", f"eu-{rollout}", Reading(targets, QUICK, SLOW, BadAnswers(QUICK[0], "status", "handler")))
    names = tuple(f"eu-{'cs'[pod % 2]}-{pod}" for pod in range(PODS))
    questions = [PodQuestion(f"pods/{family}", (family,), names) for family in (*QUICK, *SLOW)]

    async def ask() -> None:
        while True:
            for rollout in range(rollouts if passes else 0):
                reader.answers("ns", f"eu-{rollout}", questions)
                await asyncio.sleep(2.0 / rollouts)
            await asyncio.sleep(0 if passes else 1)

    share = await cpu_share(ask, seconds)
    await reader.close()
    return share, counted


async def read_with_aiohttp(port: int, seconds: float, rollouts: int) -> float:
    """The same reads by aiohttp's client, parsed by this operator's parser."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as session:

        async def one(address: str) -> None:
            history = History(address)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with session.get(f"http://{address}{path_of(QUICK)}") as response:
                        body = await response.read()
                    history.add(time.time(), body, [family.encode() for family in QUICK])
                await asyncio.sleep(1.0)

        async def all_of_them() -> None:
            await asyncio.gather(*(one(address) for rollout in range(rollouts) for address in addresses(port, rollout)))

        return await cpu_share(all_of_them, seconds)


def microseconds(call: Callable[[], object], times: int) -> float:
    """The best of a few rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, (time.perf_counter() - began) / times)
    return round(best * 1e6, 1)


def in_process() -> dict[str, float]:
    """What writing and parsing a page take."""
    metrics, body = busy_metrics(), page()
    everything = metrics.exposition()
    families = [family.encode() for family in (*QUICK, *SLOW)]
    history, moment = History("eu-1"), iter(range(10**9))
    asked = {name: path_of(names).partition("?")[2] for name, names in (("close", QUICK), ("rest", (*QUICK, *SLOW)))}
    return {
        "server_writes_close_look_us": microseconds(lambda: metrics.exposition(asked["close"]), 300),
        "server_writes_rest_us": microseconds(lambda: metrics.exposition(asked["rest"]), 300),
        "server_writes_everything_us": microseconds(metrics.exposition, 50),
        "operator_takes_in_rest_us": microseconds(lambda: history.add(float(next(moment)), body, families), 300),
        "operator_takes_in_everything_us": microseconds(
            lambda: history.add(float(next(moment)), everything, families), 300
        ),
        "client_library_parses_rest_us": microseconds(lambda: list(text_string_to_metric_families(body.decode())), 20),
        "page_at_rest_bytes": len(body),
    }


async def server_read(seconds: float, every: float) -> float:
    """Percent of a core that a real server, alone in this process, takes for being read at this pace, above idle."""
    from pinn_inference.server.app import PricingRunner, create_app

    runner = PricingRunner(create_app(ServerConfig()))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    await asyncio.sleep(8.0)  # the model loads
    idle = await cpu_share(lambda: asyncio.sleep(3600), seconds)
    reads = multiprocessing.get_context("spawn").Process(target=_read_one, args=(port, every), daemon=True)
    reads.start()
    await asyncio.sleep(3.0)
    busy = await cpu_share(lambda: asyncio.sleep(3600), seconds)
    reads.kill()
    await runner.cleanup()
    return round(busy - idle, 2)


def _read_one(port: int, every: float) -> None:
    async def read() -> None:
        client = PodClient()
        while True:
            await client.get(f"127.0.0.1:{port}", path_of((*QUICK, *SLOW) if every >= 1 else QUICK))
            await asyncio.sleep(every)

    asyncio.run(read())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--port", type=int, default=18411)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=pods, args=(given.port, ready), daemon=True)
    process.start()
    ready.wait(30)
    try:
        reading, count = asyncio.run(read_as_the_operator(given.port, given.seconds, 10, passes=False))
        with_passes, _ = asyncio.run(read_as_the_operator(given.port, given.seconds, 10, passes=True))
        with_aiohttp = asyncio.run(read_with_aiohttp(given.port, given.seconds, 10))
    finally:
        process.kill()
    result = {
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "operator_percent_of_a_core": {
            "ten rollouts of twenty pods, every second": reading,
            "with a pass every two seconds that asks for everything": with_passes,
            "the same reads by aiohttp's client": with_aiohttp,
            "reads": count,
        },
        "server_percent_of_a_core": {
            "read every second": asyncio.run(server_read(given.seconds, 1.0)),
            "read four times a second": asyncio.run(server_read(given.seconds, 0.25)),
        },
        "in_process": in_process(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
