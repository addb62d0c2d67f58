"""How long a bad canary keeps its traffic: fault → visible → weight 0 written → last answer of the canary.

A canary with weight 10 under 30 pricing requests per second turns bad at a random moment: all its answers become 500s,
or its process exits, or it outgrows its memory. Measured from outside the operator, on one machine's clock:

* *visible*: the share of 5xx among the canary's requests of the last 10 s is at least 5 % in the very counters that
  the operator's error-rate gate reads, asked of Prometheus every 100 ms. For pod faults: the first watch event of the
  pod that shows the container terminated, restarted or not ready.
* *weight 0*: the watch event of the HTTPRoute that shows it.
* *last answer*: the last answer that names the canary's revision, as received by the clients.

    python -m benchmarks.detection --runs 10 --output benchmarks/results/detection.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.kube import REPOSITORY, Manifest, is_ready
from tests.support.line import Line, bring_up
from tests.support.service import Chronicle, Service, revision_of
from tests.support.traffic import Traffic, now

NAMESPACE = "benchmark-detection"
RATE = 30.0
WEIGHT = 10
VISIBLE_SHARE = 0.05
WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Run:
    """One fault. Times are seconds after the fault was ordered; None where it was not seen."""

    kind: str
    abort_interval_seconds: int
    visible: float | None
    decided: float
    weight_zero: float
    last_answer: float
    failed_requests: int
    reason: str

    @property
    def visible_to_zero(self) -> float | None:
        """Seconds from visible to weight 0; below 0 when the operator saw it first."""
        return None if self.visible is None else self.weight_zero - self.visible

    @property
    def visible_to_decided(self) -> float | None:
        """Seconds from visible to the pass that condemned the revision, by the operator's own record."""
        return None if self.visible is None else self.decided - self.visible

    @property
    def visible_to_last_answer(self) -> float | None:
        """Seconds from visible to the last answer of the canary."""
        return None if self.visible is None else self.last_answer - self.visible


# --- what is visible --------------------------------------------------------------------------------------------------


class ErrorWatch:
    """Asks Prometheus every 100 ms for the canary's request counters, and notes when its error share is visible."""

    def __init__(self, line: Line, service: Service, canary: str) -> None:
        self._line = line
        pods = f'namespace="{service.namespace}",pod=~"{service.name}-({canary})-.+"'
        self._query = f'sum by (pod, status) (http_requests_total{{{pods},handler!~"/health.*|/metrics"}})'
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self.visible: float | None = None

    def _poll(self) -> None:
        history: deque[tuple[float, float, float]] = deque()
        while not self._stop.wait(0.1):
            try:
                series = self._line.prometheus.query(self._query)
            except ConnectionError:
                continue
            moment = now()
            total = sum(value for _, value in series)
            bad = sum(value for labels, value in series if labels.get("status", "").startswith("5"))
            history.append((moment, total, bad))
            while history[0][0] < moment - WINDOW_SECONDS:
                history.popleft()
            grown = total - history[0][1]
            if self.visible is None and grown > 0 and (bad - history[0][2]) / grown >= VISIBLE_SHARE:
                self.visible = moment

    def __enter__(self) -> ErrorWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


class PodWatch:
    """Watches the canary's pods, and notes when one first shows a dead or unready container."""

    def __init__(self, service: Service, canary: str) -> None:
        self._canary = canary
        self._watch = service.kube.watch("pods", service.namespace, seconds=120)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.visible: float | None = None

    def _follow(self) -> None:
        for _, pod in self._watch:
            mine = pod["metadata"].get("labels", {}).get("pinn.dev/revision") == self._canary
            if mine and self.visible is None and _failing(pod):
                self.visible = now()

    def __enter__(self) -> PodWatch:
        self._thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.stop()
        self._thread.join(10)


def _failing(pod: Manifest) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    dead = any("terminated" in item.get("state", {}) or item.get("restartCount", 0) > 0 for item in statuses)
    return dead or not is_ready(pod)


# --- runs -------------------------------------------------------------------------------------------------------------


def measure(line: Line, service: Service, traffic: Traffic, *, kind: str, cadence: int, number: int) -> Run:
    """One new revision, one fault. Raises TimeoutError when the operator does not act within a minute."""
    _apply(line, service, cadence=cadence, run=f"{kind}-{cadence}-{number}-{random.randrange(10**6)}")
    service.wait_weight(WEIGHT, seconds=120)
    canary = revision_of(service.status(), "canary")
    with _followed(service) as chronicle:
        # At least the gate's window, so that earlier requests are counted, and then any moment of the cadence.
        time.sleep(WINDOW_SECONDS + random.uniform(0, max(2, cadence)))
        watch = ErrorWatch(line, service, canary) if kind == "errors" else PodWatch(service, canary)
        with watch:
            time.sleep(1.0)
            began = service.turn_bad(canary, kind)
            service.wait("at weight 0", lambda _: chronicle.zero_since(began), seconds=60)
            time.sleep(2.0)
    status = service.wait_phase("RolledBack", seconds=120)
    zero = chronicle.zero_since(began)
    last = traffic.last_answer(canary)
    assert zero is not None
    return Run(
        kind=kind,
        abort_interval_seconds=cadence,
        visible=None if watch.visible is None else watch.visible - began,
        decided=_unix(status["lastRollback"]["time"]) - began,
        weight_zero=zero - began,
        last_answer=(last or began) - began,
        failed_requests=traffic.summary(began).failed,
        reason=status["lastRollback"]["reason"],
    )


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


@contextmanager
def _followed(service: Service) -> Iterator[Chronicle]:
    with service.watched() as chronicle:
        while not chronicle.routes:
            time.sleep(0.05)
        yield chronicle


def _apply(line: Line, service: Service, *, cadence: int, run: str) -> None:
    service.apply(
        image=line.images.faulty,
        env={"RUN": run},
        steps=((WEIGHT, 1800), (100, 5)),
        # The Standard profile as it is, with nothing made stricter.
        analysis={"gates": [], "intervalSeconds": max(10, cadence), "abortIntervalSeconds": cadence},
        rollback={"scaleDownDelaySeconds": 0, "drainSeconds": 1},
    )


# --- the report -------------------------------------------------------------------------------------------------------


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Least, median and greatest, in seconds or requests."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {name: round(f(known), 3) for name, f in (("min", min), ("median", statistics.median), ("max", max))}


def report(runs: Sequence[Run], line: Line, *, rate: float) -> dict[str, Any]:
    """The result as JSON."""
    groups = sorted({(run.kind, run.abort_interval_seconds) for run in runs})
    results = []
    for kind, cadence in groups:
        chosen = [run for run in runs if (run.kind, run.abort_interval_seconds) == (kind, cadence)]
        results.append(
            {
                "fault": kind,
                "abort_interval_seconds": cadence,
                "runs": len(chosen),
                "fault_to_visible_seconds": spread(run.visible for run in chosen),
                "visible_to_decided_seconds": spread(run.visible_to_decided for run in chosen),
                "visible_to_weight_zero_seconds": spread(run.visible_to_zero for run in chosen),
                "visible_to_last_answer_seconds": spread(run.visible_to_last_answer for run in chosen),
                "fault_to_weight_zero_seconds": spread(run.weight_zero for run in chosen),
                "failed_requests": spread(run.failed_requests for run in chosen),
                "reasons": sorted({run.reason for run in chosen}),
            }
        )
    return {
        "benchmark": "detection",
        "weight": WEIGHT,
        "requests_per_second": rate,
        "gates": "profile Standard",
        "machine": machine(),
        "versions": versions(line),
        "results": results,
        "runs": [asdict(run) for run in runs],
    }


def machine() -> dict[str, Any]:
    """The processor, its cores, memory and kernel."""
    cpu = next(
        (
            row.partition(":")[2].strip()
            for row in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in row
        ),
        platform.machine(),
    )
    memory = next(
        row.split()[1] for row in Path("/proc/meminfo").read_text().splitlines() if row.startswith("MemTotal")
    )
    cores = len([row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("processor")])
    return {"cpu": cpu, "cores": cores, "memory_gib": round(int(memory) / 2**20, 1), "kernel": platform.release()}


def versions(line: Line) -> dict[str, str]:
    """Of this repository, Python and Kubernetes."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    server = json.loads(line.kube.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    return {"repository": commit.stdout.strip(), "python": platform.python_version(), "kubernetes": server}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, saying each run on standard error; the report goes to standard output and, if asked, to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--runs", type=int, default=10, help="of each fault and cadence")
    parser.add_argument("--cadences", type=int, nargs="+", default=[2, 10], help="abortIntervalSeconds to try")
    parser.add_argument("--pod-runs", type=int, default=5, help="of each pod fault, at the first cadence")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second")
    parser.add_argument("--output", type=Path, help="also write the report here")
    chosen = parser.parse_args(arguments)
    plan = [("errors", cadence, number) for cadence in chosen.cadences for number in range(chosen.runs)]
    plan += [(kind, chosen.cadences[0], number) for kind in ("exit", "memory") for number in range(chosen.pod_runs)]
    line = bring_up()
    line.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    service = Service(line.kube, "bench", NAMESPACE, host="bench.example.com")
    _apply(line, service, cadence=2, run="stable")
    service.wait_phase("Stable", "RolledBack", seconds=180)
    runs: list[Run] = []
    try:
        with Traffic(line.gateway, host=service.host, rate=chosen.rate, seconds=120.0 * len(plan)) as traffic:
            for kind, cadence, number in plan:
                run = measure(line, service, traffic, kind=kind, cadence=cadence, number=number)
                runs.append(run)
                print(f"{len(runs)}/{len(plan)} {run}", file=sys.stderr, flush=True)
    finally:
        line.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        if runs:
            text = json.dumps(report(runs, line, rate=chosen.rate), indent=2)
            print(text)
            if chosen.output:
                chosen.output.parent.mkdir(parents=True, exist_ok=True)
                chosen.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
