"""How long a pass computes over a rollout whose pods are read: their figures collected, and the decision made.

    python -m benchmarks.decide [--pods 2 10 50 200 1665] [--passes 100] [--against CHECKOUT] [--output FILE]

Each rollout is five minutes into a step at 10 %, its history is a quarter of an hour longer, one request in 200 fails
in both revisions, and the gates are those of the profile Standard. A pass comes every two seconds, one in fifteen of
them judges the whole. Three things can have happened since the last one: nothing (another pass was woken by an event),
one new read of every pod, or everything (the operator has just read a whole history that it has never judged).

Times are processor time of this process, its garbage collector's included. `--against` measures another checkout of
this repository beside this one, size by size, and gives the ratio. The goal is a p99 of 1 ms for the decision.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.report import emit, milliseconds, parser
from pinn_operator.core.api import parse_resource
from pinn_operator.core.decide import decide_in
from pinn_operator.core.decision import Apply
from pinn_operator.core.gates.questions import due
from pinn_operator.core.observed import Observed, Pod, Route, Workload
from pinn_operator.core.samples import PodQuestion
from pinn_operator.core.situation import Situation, situation_of
from pinn_operator.core.status.values import Phase, RevisionStatus, RolloutStatus, Status
from pinn_operator.core.wanted.revision import revision_of
from pinn_operator.core.wanted.spec import MetricNames, Spec
from pinn_operator.pods.http import PodClient
from pinn_operator.pods.reader import PodReader
from pinn_operator.pods.source import PodCounters

ROOT = Path(__file__).resolve().parents[1]
NAMES = MetricNames()
QUICK = (NAMES.requests, f"{NAMES.latency}_bucket")
START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
HELD, BEFORE = 300.0, 900.0
REPLICAS_LIMIT = 1000
BOUNDS = (
    "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1",
    "0.2", "0.26", "0.3", "0.5", "0.6", "1.0", "2.0", "5.0", "10.0", "+Inf",
)  # fmt: skip
REQUESTS_A_SECOND = 3.0
GOAL_MS = 1.0


@dataclass
class Clock:
    """Stands until it is set; unix seconds."""

    now: float = START.timestamp()

    def __call__(self) -> float:
        return self.now


def page(second: float, offset: int, *, slow: bool) -> bytes:
    """What a pod shows after so many seconds of life."""
    count = int(second * REQUESTS_A_SECOND) + offset
    bad = (count + offset * 73) // 200
    lines = [f'{QUICK[0]}{{handler="/v1/price",method="POST",status="200"}} {count - bad}.0']
    lines += [f'{QUICK[0]}{{handler="/v1/price",method="POST",status="{it}"}} 0.0' for it in (400, 413, 429, 503)]
    lines.append(f'{QUICK[0]}{{handler="/v1/price",method="POST",status="500"}} {bad}.0')
    lines.append(f'{QUICK[0]}{{handler="/metrics",method="GET",status="200"}} {int(second)}.0')
    counted = [min(count, count * (place + 1) // 8) for place in range(len(BOUNDS))]
    lines += [f'{QUICK[1]}{{le="{le}"}} {it}.0' for le, it in zip(BOUNDS, counted, strict=True)]
    if slow:
        lines += [f"{NAMES.cache_hits} {count * 9 // 10}.0", f"{NAMES.cache_misses} {count // 10}.0"]
        lines += [f'{NAMES.options}{{method="{it}"}} {count}.0' for it in ("pinn", "closed_form", "integral_equation")]
        lines += [f'{NAMES.fallbacks}{{reason="{it}"}} 0.0' for it in ("out_of_domain", "zero_variance", "not_finite")]
        lines.append(f"{NAMES.memory} {300_000_000 + offset * 4096}.0")
    return ("\n".join(lines) + "\n").encode()


class Rollout:
    """A resource in the middle of a step, its pods, and the reader that has read them."""

    def __init__(self, pods: int) -> None:
        canaries = max(1, pods // 10, pods - REPLICAS_LIMIT)
        canary, stable = revision_of({"image": "pinn:2"}), "aaaaaaaa"
        self.clock = Clock()
        self._reader = PodReader(PodClient(), wake=lambda _namespace, _name: None, now=self.clock)
        self._counters = PodCounters(self._reader, PodClient(), data={})
        self._names = [f"eu-{canary if it < canaries else stable}-x-{it:05}" for it in range(pods)]
        self._canary, self._canaries = canary, canaries
        self._interval = max(1.0, pods / 600)
        observed = Observed(
            workloads={
                stable: Workload(stable, pods - canaries, pods - canaries, pods - canaries, settled=True),
                canary: Workload(canary, canaries, canaries, canaries, settled=True),
            },
            pods=tuple(
                Pod(name, name[3:11], START, "Running", ready=True, was_ready=True, started=True, address="10.0.0.1:80")
                for name in self._names
            ),
        )
        since = START + timedelta(seconds=BEFORE)
        manifest = {
            "metadata": {"name": "eu", "namespace": "pricing", "uid": "u", "generation": 1},
            "spec": {
                "image": "pinn:2",
                "replicas": max(1, pods - canaries),
                "traffic": {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]},
                "strategy": {
                    "canary": {"steps": [{"weight": 10, "holdSeconds": 1800}, {"weight": 100, "holdSeconds": 600}]}
                },
                "verification": {"mode": "Disabled"},
                "analysis": {"sources": ["Pods"], "profile": "Standard"},
            },
        }
        status = Status(
            phase=Phase.PROGRESSING,
            stable=RevisionStatus(stable, "pinn:1", START),
            canary=RevisionStatus(canary, "pinn:2", START),
            rollout=RolloutStatus(
                start_time=START, step_index=0, weight=10, weight_time=since, programmed_time=since, hold_seconds=1800,
                weight_in_force=10,
            ),
        )  # fmt: skip
        self._observed = observed
        self._status = status
        self._resource = replace(parse_resource(manifest), status=status)
        assert isinstance(self._resource.spec, Spec), self._resource.spec
        self._take_objects()
        self.read_history()

    def _take_objects(self) -> None:
        """Have the cluster hold what the operator wants of it."""
        now = START + timedelta(seconds=BEFORE + 1)
        found = decide_in(self.situation(), {}, now)
        written = {
            (it.manifest["kind"], it.manifest["metadata"]["name"]): it.manifest
            for it in found.actions
            if isinstance(it, Apply)
        }
        selectors = {name: it["spec"]["selector"] for (kind, name), it in written.items() if kind == "Service"}
        self._observed = replace(
            self._observed,
            selectors=selectors,
            objects=written,
            route=Route({"eu-stable": 90, "eu-canary": 10}, programmed=True),
        )

    def read_history(self) -> None:
        """Everything anew."""
        self._reader._rollouts.clear()
        self.pod_questions_known()
        self.clock.now = START.timestamp()
        begun = time.thread_time()
        reads = 0
        for number, name in enumerate(self._names):
            every = self._interval * (0.5 if number < self._canaries else 1.0)
            second, last_slow = number / len(self._names), -10.0
            while second < BEFORE + HELD:
                slow = second - last_slow >= 5.0
                last_slow = second if slow else last_slow
                self._read(name, second, number, slow=slow)
                second += every
                reads += 1
        self.clock.now = START.timestamp() + BEFORE + HELD
        self.read_microseconds = round((time.thread_time() - begun) / reads * 1e6, 1)

    def pod_questions_known(self) -> None:
        """Let the reader know which pods there are, without a task that reads them."""
        from pinn_operator.pods.reader import _Rollout
        from pinn_operator.pods.source import reading_of

        situation = self.situation()
        questions = self.questions(situation, START + timedelta(seconds=BEFORE + HELD))
        reading = reading_of(questions, self._observed, canary=self._canary, names=NAMES)
        rollout = self._reader._rollouts[("pricing", "eu")] = _Rollout(reading, time.monotonic())
        self._reader._take_targets(rollout)
        self._reading = reading

    def questions(self, situation: Situation, now: datetime) -> list[PodQuestion]:
        return [it for it in due(situation, now) if isinstance(it, PodQuestion)]

    def situation(self) -> Situation:
        return situation_of(self._resource, self._observed, has_prometheus=False)

    def _read(self, name: str, second: float, offset: int, *, slow: bool) -> None:
        pod = self._reader._rollouts[("pricing", "eu")].pods[name]
        moment, body = START.timestamp() + second, page(second, offset, slow=slow)
        pod.quick.add(moment, body, [family.encode() for family in self._reading.quick])
        if slow:
            pod.slow.add(moment, body, [family.encode() for family in self._reading.slow])
        pod.last_read = moment

    def read_all(self) -> None:
        """One new read of every pod."""
        second = self.clock.now - START.timestamp()
        for number, name in enumerate(self._names):
            at = second - 0.9 * (1 - number / len(self._names))
            self._read(name, at, number, slow=number % 3 == 0)

    def run(self) -> tuple[float, float]:
        """Seconds that one pass takes to collect the answers, and to decide."""
        now = datetime.fromtimestamp(self.clock.now, UTC)
        situation = self.situation()
        questions = self.questions(situation, now)
        began = time.thread_time()
        samples = self._reader.answers("pricing", "eu", questions)
        asked = time.thread_time()
        decision = decide_in(situation, samples, now)
        ended = time.thread_time()
        assert decision.status.phase is Phase.PROGRESSING, decision.status.reason
        rollout = decision.status.rollout
        assert rollout is not None
        assert rollout.weight == 10, decision.status.reason
        assert {"error-rate", "latency-p95"} <= {gate.name for gate in rollout.gates if gate.samples}, rollout.gates
        self._resource = replace(self._resource, status=decision.status)
        return asked - began, ended - asked


def measured(pods: int, passes: int, seconds: float) -> dict[str, Any]:
    """The figures of one rollout; at most so many passes of each kind, and at most so many seconds of them."""
    began = time.monotonic()
    rollout = Rollout(pods)
    reading_takes = time.monotonic() - began
    found: dict[str, Any] = {"pods": pods, "read_us": rollout.read_microseconds}
    everything = [rollout.run()]
    gc.collect()
    for kind in ("no_news", "one_read_each"):
        runs, end = list[tuple[float, float]](), time.monotonic() + seconds
        while len(runs) < passes and (len(runs) < 5 or time.monotonic() < end):
            if kind == "one_read_each":
                rollout.clock.now += max(2.0, rollout._interval)
                rollout.read_all()
            else:
                rollout.clock.now += 0.01
            runs.append(rollout.run())
        found[kind] = summary(runs)
    end = time.monotonic() + seconds
    while len(everything) < 10 and time.monotonic() + reading_takes < end:
        rollout.read_history()
        everything.append(rollout.run())
    found["everything_new"] = summary(everything)
    return found


def summary(runs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    asked, decided = zip(*runs, strict=True)
    return {
        "passes": len(runs),
        "collect_p50_ms": milliseconds(asked, 0.5),
        "collect_p99_ms": milliseconds(asked, 0.99),
        "decide_p50_ms": milliseconds(decided, 0.5),
        "decide_p99_ms": milliseconds(decided, 0.99),
    }


def elsewhere(checkout: Path, pods: int, passes: int, seconds: float) -> dict[str, Any]:
    """The same measured in a process of its own, by the code of that checkout and by this file."""
    path = os.pathsep.join(str(checkout / part) for part in ("operator", "inference", ""))
    command = [sys.executable, str(Path(__file__)), "--one", str(pods), "--passes", str(passes)]
    command += ["--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((path, str(ROOT)))}
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for kind in ("no_news", "one_read_each", "everything_new"):
        for figure in ("decide_p50_ms", "decide_p99_ms"):
            yield f"{kind}.{figure}", round(theirs[kind][figure] / ours[kind][figure], 1)
        whole = [it[kind]["collect_p50_ms"] + it[kind]["decide_p50_ms"] for it in (theirs, ours)]
        yield f"{kind}.pass_p50", round(whole[0] / whole[1], 1)


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--pods", type=int, nargs="+", default=[2, 10, 50, 200, 1665])
    made.add_argument("--passes", type=int, default=150)
    made.add_argument("--seconds", type=float, default=15.0, help="of each kind of pass, at most")
    made.add_argument("--against", type=Path, help="another checkout, measured beside this one")
    made.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = made.parse_args(arguments)
    if given.one:
        main_module = importlib.import_module("pinn_operator.__main__")
        gc.set_threshold(*getattr(main_module, "COLLECTOR", gc.get_threshold()))
        print(json.dumps(measured(given.one, given.passes, given.seconds)))
        return 0
    rows = []
    for pods in given.pods:
        row: dict[str, Any] = elsewhere(ROOT, pods, given.passes, given.seconds)
        if given.against:
            before = elsewhere(given.against, pods, given.passes, given.seconds)
            row = {**row, "before": before, "times_faster": dict(ratios(row, before))}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    reached = all(row[kind]["decide_p99_ms"] <= GOAL_MS for row in rows for kind in ("no_news", "one_read_each"))
    return emit({"test": "decide", "goal_ms": GOAL_MS, "passed": reached, "rollouts": rows}, given.output)


if __name__ == "__main__":
    sys.exit(main())
