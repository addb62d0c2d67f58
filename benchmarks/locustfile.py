"""A load test of the inference server for Locust, which says at its end whether the server passed.

    locust -f benchmarks/locustfile.py --headless --host http://127.0.0.1:8000 --users 10 --spawn-rate 2 --run-time 5m

Users read investor reports, forecasts and the detailed health page, 3 : 1 : 1, with 1 to 3 seconds between. The exit
code is 0 if p95 is below 500 ms, less than 1 % of the requests failed, the cache's hit rate is above 80 % and memory is
stable; `--report FILE` writes the verdict as JSON. `python -m benchmarks.load` starts a server and runs this.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from locust import HttpUser, between, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

P95_GOAL_MS = 500.0
FAILURES_GOAL = 0.01
HIT_RATE_GOAL = 0.8
MEMORY_GOAL_MB = 5.0
"""Most by which the server's memory may grow after the first fifth of the test."""
MEMORY_GOAL_MB_PER_HOUR = 10.0
_MEMORY_METRICS = ("pinn_process_tree_resident_memory_bytes ", "process_resident_memory_bytes ")
_SAMPLE_SECONDS = 2.0
_PATIENCE = 10.0

log = logging.getLogger("pinn.load")
memory: list[tuple[float, float]] = []
"""(seconds, MB) of the server's processes, as /metrics says."""


class Investor(HttpUser):
    """Somebody who looks at the same few symbols again and again."""

    wait_time = between(1, 3)

    @task(3)
    def investor_report(self) -> None:
        symbols = random.choice(("SPY,QQQ", "SPY", "AAPL,MSFT"))
        self.client.get(
            "/api/investor-report", params={"symbols": symbols, "user_id": "locust"}, name="/api/investor-report"
        )

    @task(1)
    def forecast(self) -> None:
        self.client.get("/api/forecast/all", params={"symbols": "AAPL"}, name="/api/forecast/all")

    @task(1)
    def detailed_health(self) -> None:
        self.client.get("/health/detailed")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--report", default="", help="write the verdict as JSON to this file")


def _watch_memory(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return

    def watch() -> None:
        while True:
            sample = _memory_megabytes(str(environment.host))
            if sample is not None:
                memory.append((time.monotonic(), sample))
            time.sleep(_SAMPLE_SECONDS)

    memory.clear()
    threading.Thread(target=watch, daemon=True).start()  # a greenlet: Locust has patched the module


def _judge(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    total = environment.stats.total
    p95 = total.get_response_time_percentile(0.95) or 0.0
    growth, slope = _growth(memory)
    checks: dict[str, dict[str, Any]] = {
        "requests": {"value": total.num_requests, "goal": "> 0", "passed": total.num_requests > 0},
        "p95_ms": {"value": p95, "goal": f"< {P95_GOAL_MS:g}", "passed": p95 < P95_GOAL_MS},
        "failure_ratio": {
            "value": total.fail_ratio,
            "goal": f"< {FAILURES_GOAL:g}",
            "passed": total.fail_ratio < FAILURES_GOAL,
        },
        "hit_rate": _hit_rate(str(environment.host)),
        "memory_growth_mb": {
            "value": growth,
            "mb_per_hour": slope,
            "goal": f"≤ {MEMORY_GOAL_MB:g} after the first fifth, or < {MEMORY_GOAL_MB_PER_HOUR:g} an hour",
            "passed": growth is not None
            and slope is not None
            and (growth <= MEMORY_GOAL_MB or slope < MEMORY_GOAL_MB_PER_HOUR),
        },
    }
    passed = all(check["passed"] for check in checks.values())
    document = {
        "test": "locust",
        "requests": total.num_requests,
        "requests_per_second": round(total.total_rps, 2),
        "p50_ms": total.get_response_time_percentile(0.5),
        "p95_ms": p95,
        "p99_ms": total.get_response_time_percentile(0.99),
        "by_path": {
            entry.name: {
                "requests": entry.num_requests,
                "failures": entry.num_failures,
                "p50_ms": entry.get_response_time_percentile(0.5),
                "p95_ms": entry.get_response_time_percentile(0.95),
            }
            for entry in environment.stats.entries.values()
        },
        "memory_mb": [round(megabytes, 1) for _, megabytes in memory[:: max(1, len(memory) // 20)]],
        "checks": checks,
        "passed": passed,
    }
    for name, check in checks.items():
        print(f"{'PASS' if check['passed'] else 'FAIL'} {name}: {check['value']} (goal {check['goal']})")
    report = getattr(environment.parsed_options, "report", "")
    if report:
        Path(report).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    environment.process_exit_code = 0 if passed else 1


def _growth(samples: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """MB from the second fifth to the last, each by its median, and that per hour; None with too few samples."""
    fifth = len(samples) // 5
    if fifth == 0:
        return None, None
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]

    def middle(part: list[tuple[float, float]]) -> tuple[float, float]:
        ordered = sorted(megabytes for _, megabytes in part)
        return (part[0][0] + part[-1][0]) / 2.0, ordered[len(ordered) // 2]

    (first, before), (last, after) = middle(early), middle(late)
    return round(after - before, 2), round((after - before) / (last - first) * 3600.0, 1)


def _hit_rate(host: str) -> dict[str, Any]:
    goal = f"> {HIT_RATE_GOAL:g}"
    try:
        with urlopen(f"{host}/cache/stats", timeout=_PATIENCE) as response:
            rate = float(json.load(response)["hit_rate"])
    except (URLError, TimeoutError, ValueError, KeyError) as error:
        return {"value": None, "goal": goal, "passed": False, "message": f"/cache/stats: {error}"}
    return {"value": rate, "goal": goal, "passed": rate > HIT_RATE_GOAL}


def _memory_megabytes(host: str) -> float | None:
    try:
        with urlopen(f"{host}/metrics", timeout=_PATIENCE) as response:
            lines = response.read().decode().splitlines()
    except (URLError, TimeoutError) as error:
        log.warning("/metrics: %s", error)
        return None
    for metric in _MEMORY_METRICS:
        for line in lines:
            if line.startswith(metric):
                return float(line.rpartition(" ")[2]) / 2**20
    return None


for _hook, _listener in (
    (events.init_command_line_parser, _add_arguments),
    (events.test_start, _watch_memory),
    (events.quitting, _judge),
):
    _hook.add_listener(_listener)  # type: ignore[no-untyped-call]
