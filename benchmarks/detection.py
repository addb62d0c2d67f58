"""How long a bad canary keeps its traffic: first failure → visible → weight 0 written → last answer of the canary.

A canary with weight 10 under pricing requests at a given rate turns bad at a random moment: all its answers become
500s, one in ten takes 3 s, its process exits, or it outgrows its memory, and does so again when it has weight again.
The gates are those of the profile Standard, and everything else is at its default. Measured from outside the
operator, on one machine's clock:

* *first failure*: when a client has its first failed answer of the canary; for slow ones, its first answer after 1 s.
* *visible*: the share of 5xx among the canary's requests of the last 10 s is at least 5 % in the pods' own counters,
  which the benchmark reads every 50 ms. For pod faults: the first watch event of the pod that shows the container
  terminated, restarted or not ready. For slow answers there is none.
* *weight 0*: the watch event of the HTTPRoute that shows it.
* *last answer*: the last answer that names the canary's revision, as received by the clients.

Prometheus scrapes every second or every 15, or the operator knows of none (`absent`): `--scrapes 1 15 absent`. Only a
local cluster's Prometheus can be set so.

    python -m benchmarks.detection --runs 10 --output benchmarks/results/detection.json
"""

from __future__ import annotations

import argparse
import http.client
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

from lab.kube import REPOSITORY, Manifest, is_ready
from lab.line import Line, bring_up
from lab.service import Chronicle, Service, manifest, revision_of
from lab.traffic import Traffic, now

NAMESPACE = "benchmark-detection"
RATES = (30.0, 300.0)
SLOW_SHARE, SLOW_SECONDS = 0.1, 3.0
ABSENT = "absent"
PORT = 8000
LATE_SECONDS = 1.0
"""An answer that takes longer shows a client that the canary is slow: the others take milliseconds."""
WEIGHT = 10
VISIBLE_SHARE = 0.05
WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Run:
    """One fault. Times are seconds after the fault was ordered; None where it was not seen."""

    kind: str
    scrape: str
    """Seconds between two scrapes, or `absent`."""
    rate: float
    """Requests a second."""
    first_failure: float | None
    visible: float | None
    decided: float
    weight_zero: float
    last_answer: float
    failed_requests: int
    canary_requests: int
    """Sent since the fault."""
    reason: str

    @property
    def failure_to_zero(self) -> float | None:
        """Seconds from the first failed answer that a client had to weight 0."""
        return None if self.first_failure is None else self.weight_zero - self.first_failure

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
    """Reads the canary's request counters from its pods every 50 ms, and notes when its error share is visible."""

    def __init__(self, service: Service, canary: str) -> None:
        self._pods = [pod["status"]["podIP"] for pod in service.pods(canary)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self.visible: float | None = None

    def _poll(self) -> None:
        history: deque[tuple[float, float, float]] = deque()
        connections = [http.client.HTTPConnection(pod, PORT, timeout=2) for pod in self._pods]
        while not self._stop.wait(0.05):
            try:
                counts = [_requests(connection) for connection in connections]
            except (OSError, http.client.HTTPException):
                for connection in connections:
                    connection.close()
                continue
            moment = now()
            total, bad = (sum(values) for values in zip(*counts, strict=True))
            history.append((moment, total, bad))
            while history[0][0] < moment - WINDOW_SECONDS:
                history.popleft()
            grown = total - history[0][1]
            if self.visible is None and grown > 0 and (bad - history[0][2]) / grown >= VISIBLE_SHARE:
                self.visible = moment
        for connection in connections:
            connection.close()

    def __enter__(self) -> ErrorWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


def _requests(connection: http.client.HTTPConnection) -> tuple[float, float]:
    """Pricing requests of one pod, and how many of them were answered with 5xx."""
    connection.request("GET", "/metrics?name[]=http_requests_total")
    page = connection.getresponse().read().decode()
    total = bad = 0.0
    for line in page.splitlines():
        if line.startswith("http_requests_total{") and 'handler="/v1/price"' in line:
            value = float(line.rpartition(" ")[2])
            total += value
            bad += value if 'status="5' in line else 0.0
    return total, bad


class NoWatch:
    """Nothing can be seen from outside."""

    visible = None

    def __enter__(self) -> NoWatch:
        return self

    def __exit__(self, *_: object) -> None: ...


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


def measure(line: Line, service: Service, traffic: Traffic, *, kind: str, scrape: str, rate: float, number: int) -> Run:
    """One new revision, one fault. Raises TimeoutError when the operator does not act within two minutes."""
    _apply(line, service, run=f"{kind}-{scrape}-{number}-{random.randrange(10**6)}")
    service.wait_weight(WEIGHT, seconds=120)
    canary = revision_of(service.status(), "canary")
    with _followed(service) as chronicle:
        # At least the window, so that earlier requests are counted, and then any moment of the operator's rhythm.
        time.sleep(WINDOW_SECONDS + random.uniform(0, 5))
        with _watch_for(kind, service, canary) as watch:
            time.sleep(1.0)
            if kind == "slow":
                began = service.turn_bad(canary, "sleep", share=SLOW_SHARE, seconds=SLOW_SECONDS)
            else:
                began = service.turn_bad(canary, kind)
            service.wait("at weight 0", lambda _: chronicle.zero_since(began), seconds=120)
            time.sleep(2.0 + (SLOW_SECONDS if kind == "slow" else 0.0))
    suspended = (service.status().get("rollout") or {}).get("suspension")
    if suspended:
        # A container that ended gets another try; when it ends again, the revision is rejected.
        service.wait_weight(WEIGHT, seconds=120)
        service.turn_bad(canary, kind)
    rollback = service.wait_phase("RolledBack", seconds=120)["lastRollback"]
    decided, reason = (suspended["since"], "Suspended") if suspended else (rollback["time"], rollback["reason"])
    zero = chronicle.zero_since(began)
    last = traffic.last_answer(canary)
    assert zero is not None
    records = [record for record in traffic.records(began) if record.revision == canary]
    failed = [record.done for record in records if record.failure or record.latency > LATE_SECONDS]
    return Run(
        kind=kind,
        scrape=scrape,
        rate=rate,
        first_failure=min(failed) - began if failed else None,
        visible=None if watch.visible is None else watch.visible - began,
        decided=_unix(decided) - began,
        weight_zero=zero - began,
        last_answer=(last or began) - began,
        failed_requests=traffic.summary(began).failed,
        canary_requests=len(records),
        reason=reason,
    )


def _watch_for(kind: str, service: Service, canary: str) -> ErrorWatch | PodWatch | NoWatch:
    if kind == "errors":
        return ErrorWatch(service, canary)
    return NoWatch() if kind == "slow" else PodWatch(service, canary)


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


@contextmanager
def _followed(service: Service) -> Iterator[Chronicle]:
    with service.watched() as chronicle:
        while not chronicle.routes:
            time.sleep(0.05)
        yield chronicle


def _apply(line: Line, service: Service, *, run: str) -> None:
    applied = manifest(
        service.name,
        service.namespace,
        image=line.images.faulty,
        host=service.host,
        env={"RUN": run},
        steps=((WEIGHT, 1800), (100, 5)),
        rollback={"scaleDownDelaySeconds": 0, "drainSeconds": 1},
    )
    # The profile Standard with every default: nothing of the judgement is made stricter or quicker.
    del applied["spec"]["analysis"], applied["spec"]["verification"]
    service.kube.apply(applied)


# --- the report -------------------------------------------------------------------------------------------------------


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Least, median and greatest, in seconds or requests."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {name: round(f(known), 3) for name, f in (("min", min), ("median", statistics.median), ("max", max))}


def report(runs: Sequence[Run], line: Line) -> dict[str, Any]:
    """The result as JSON."""
    groups = dict.fromkeys((run.kind, run.scrape, run.rate) for run in runs)
    results = []
    for kind, scrape, rate in groups:
        chosen = [run for run in runs if (run.kind, run.scrape, run.rate) == (kind, scrape, rate)]
        results.append(
            {
                "fault": kind,
                "scrape_interval_seconds": scrape,
                "requests_per_second": rate,
                "runs": len(chosen),
                "first_failure_to_weight_zero_seconds": spread(run.failure_to_zero for run in chosen),
                "visible_to_weight_zero_seconds": spread(run.visible_to_zero for run in chosen),
                "visible_to_decided_seconds": spread(run.visible_to_decided for run in chosen),
                "visible_to_last_answer_seconds": spread(run.visible_to_last_answer for run in chosen),
                "fault_to_visible_seconds": spread(run.visible for run in chosen),
                "fault_to_weight_zero_seconds": spread(run.weight_zero for run in chosen),
                "failed_requests": spread(run.failed_requests for run in chosen),
                "canary_requests": spread(run.canary_requests for run in chosen),
                "reasons": sorted({run.reason for run in chosen}),
            }
        )
    return {
        "benchmark": "detection",
        "weight": WEIGHT,
        "gates": "profile Standard, every default",
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
    parser.add_argument("--runs", type=int, default=10, help="of each fault, scrape interval and rate")
    parser.add_argument("--kinds", nargs="+", choices=("errors", "slow"), default=["errors", "slow"])
    parser.add_argument("--scrapes", nargs="+", default=["1", "15", ABSENT], help="seconds, or absent")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="requests per second")
    parser.add_argument("--pod-runs", type=int, default=5, help="of each pod fault, at the first scrape and rate")
    parser.add_argument("--output", type=Path, help="also write the report here")
    chosen = parser.parse_args(arguments)
    for scrape in chosen.scrapes:
        if scrape != ABSENT and not scrape.isdecimal():
            parser.error(f"--scrapes: want whole seconds or {ABSENT}, not {scrape!r}")
    runs: list[Run] = []
    line: Line | None = None
    try:
        for scrape in chosen.scrapes:
            line = bring_up(scrape_seconds=None if scrape == ABSENT else int(scrape))
            for rate in chosen.rates:
                kinds = [kind for kind in chosen.kinds for _ in range(chosen.runs)]
                if (scrape, rate) == (chosen.scrapes[0], chosen.rates[0]):
                    kinds += [kind for kind in ("exit", "memory") for _ in range(chosen.pod_runs)]
                for run in _all(line, kinds, scrape=scrape, rate=rate):
                    runs.append(run)
                    print(f"{len(runs)} {run}", file=sys.stderr, flush=True)
    finally:
        if line is not None:
            # Whoever measures next makes it anew.
            line.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=true", timeout=150)
        if runs and line is not None:
            text = json.dumps(report(runs, line), indent=2)
            print(text)
            if chosen.output:
                chosen.output.parent.mkdir(parents=True, exist_ok=True)
                chosen.output.write_text(text + "\n")
    return 0


def _all(line: Line, kinds: Sequence[str], *, scrape: str, rate: float) -> Iterator[Run]:
    line.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    service = Service(line.kube, "bench", NAMESPACE, host="bench.example.com")
    if not service.read():
        _apply(line, service, run="stable")
    service.wait_phase("Stable", "RolledBack", seconds=300)
    for number, kind in enumerate(kinds):
        # Traffic of its own for each run: a generator sends no more than so many requests.
        with Traffic(line.gateway, host=service.host, rate=rate, seconds=400.0) as traffic:
            yield measure(line, service, traffic, kind=kind, scrape=scrape, rate=rate, number=number)


if __name__ == "__main__":
    raise SystemExit(main())
