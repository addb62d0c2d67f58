"""How fast the inference server is, as JSON: start to ready, single quotes in an open loop, large batches, memory.

    python -m benchmarks.server --runs 3 --output benchmarks/results/server.json

Each run starts the server as a process of its own, on one core, with the client on another where there are two. The
latency of single quotes counts from the moment a request was due, not from when it was sent, so that a slow server
cannot hide by slowing its client down.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import orjson

START_PATIENCE = 180.0
PACKAGES = ("aiohttp", "uvloop", "orjson", "numpy", "tensorflow-cpu", "prometheus-client")


@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles in milliseconds of `count` requests, and how many of them failed."""

    count: int
    failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float], *, failed: int) -> Latencies:
        ordered = sorted(seconds)

        def percentile(share: float) -> float:
            return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1e3, 3)

        return cls(len(ordered), failed, percentile(0.5), percentile(0.9), percentile(0.99), percentile(1.0))


class Server:
    """`pinn-inference serve` on a free port of the loopback."""

    def __init__(self, core: int | None, environment: Mapping[str, str] | None = None) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pinn_inference", "serve", "--host", "127.0.0.1", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})
        self._told: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()
        self._heard: dict[str, tuple[float, dict[str, Any]]] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.listening_seconds, entry = self.wait_for("listening")
        self.url = f"http://127.0.0.1:{entry['port']}"
        self.ready_seconds, _ = self.wait_for("ready")

    def wait_for(self, message: str) -> tuple[float, dict[str, Any]]:
        """When the server logged this first, in seconds after its start, and the whole entry."""
        while message not in self._heard:
            left = self.started + START_PATIENCE - time.perf_counter()
            try:
                seconds, entry = self._told.get(timeout=max(0.0, left))
            except queue.Empty:
                raise RuntimeError(f"the server never logged {message!r}") from None
            if entry["level"] == "error":
                raise RuntimeError(f"the server logged an error: {entry}")
            self._heard.setdefault(entry["message"], (seconds, entry))
        return self._heard[message]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._told.put((round(time.perf_counter() - self.started, 2), json.loads(line)))

    def memory_megabytes(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
        raise RuntimeError("no VmRSS in the process's status")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        for _ in range(2):
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        self.process.wait(30)
        self._listener.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def options(count: int, seed: int) -> list[dict[str, Any]]:
    """Options as a desk quotes them, no two alike."""
    source = random.Random(seed)
    return [
        {
            "spot": round(source.uniform(60, 160), 4),
            "strike": 100,
            "maturity": round(source.uniform(0.02, 2), 4),
            "rate": round(source.uniform(0, 0.06), 4),
            "dividend": round(source.uniform(0, 0.04), 4),
            "volatility": round(source.uniform(0.1, 0.6), 4),
            "option_type": source.choice(("call", "put")),
        }
        for _ in range(count)
    ]


async def open_loop(url: str, *, rate: float, seconds: float, seed: int) -> Latencies:
    """Single quotes at a constant rate, each sent when it is due whether or not earlier ones were answered."""
    bodies = [orjson.dumps(option) for option in options(int(rate * seconds), seed)]
    times: list[float] = []
    failed = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

        async def ask(body: bytes, due: float) -> None:
            nonlocal failed
            async with session.post(f"{url}/v1/price", data=body) as response:
                await response.read()
                failed += response.status != 200
            times.append(time.perf_counter() - due)

        start = time.perf_counter() + 0.1
        async with asyncio.TaskGroup() as group:
            for index, body in enumerate(bodies):
                due = start + index / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(ask(body, due))
    return Latencies.of(times, failed=failed)


async def batches(url: str, *, size: int, repeats: int, seed: int) -> Latencies:
    """Batches of `size` options, one after another, as JSON."""
    body = orjson.dumps({"options": options(size, seed)})
    times: list[float] = []
    failed = 0
    async with aiohttp.ClientSession() as session:
        for _ in range(repeats):
            began = time.perf_counter()
            async with session.post(f"{url}/v1/price", data=body) as response:
                answer = await response.read()
                failed += response.status != 200 or len(orjson.loads(answer)["results"]) != size
            times.append(time.perf_counter() - began)
    return Latencies.of(times, failed=failed)


def run_once(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One server from start to end."""
    cores = sorted(os.sched_getaffinity(0))
    pinned = len(cores) > 1 and not arguments.no_pinning
    server = Server(cores[-1] if pinned else None)
    try:
        if pinned:
            os.sched_setaffinity(0, set(cores[:-1]))
        at_ready = server.memory_megabytes()
        asyncio.run(open_loop(server.url, rate=arguments.rate, seconds=2, seed=seed))
        cpu = server.cpu_seconds()
        singles = asyncio.run(open_loop(server.url, rate=arguments.rate, seconds=arguments.seconds, seed=seed + 1))
        cpu = server.cpu_seconds() - cpu
        asyncio.run(batches(server.url, size=arguments.batch, repeats=3, seed=seed))
        large = asyncio.run(batches(server.url, size=arguments.batch, repeats=arguments.repeats, seed=seed))
        return {
            "load_average_1m": round(os.getloadavg()[0], 2),
            "listening_seconds": server.listening_seconds,
            "ready_seconds": server.ready_seconds,
            "single_quotes": {**asdict(singles), "cpu_ms_per_quote": round(cpu / singles.count * 1e3, 3)},
            "batches": {**asdict(large), "options_per_second": round(arguments.batch / large.p50_ms * 1e3)},
            "rss_at_ready_mb": at_ready,
            "rss_at_end_mb": server.memory_megabytes(),
        }
    finally:
        os.sched_setaffinity(0, set(cores))
        server.stop()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="single quotes per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the open loop")
    parser.add_argument("--batch", type=int, default=10_000, help="options in a large request")
    parser.add_argument("--repeats", type=int, default=20, help="large requests in a run")
    parser.add_argument("--no-pinning", action="store_true", help="let the system choose the cores")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    runs = []
    for number in range(arguments.runs):
        print(f"run {number + 1} of {arguments.runs}", file=sys.stderr)
        runs.append(run_once(arguments, seed=1000 * number))
    settings = {name: getattr(arguments, name) for name in ("rate", "seconds", "batch", "repeats")}
    document = {
        "benchmark": "server",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "settings": {**settings, "server_on_one_core": not arguments.no_pinning},
        "runs": runs,
    }
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
