"""Rollouts of which nothing is simulated but the memory of one pod, judged by the real gate of profile `Standard`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from lab.memory_shapes import HEALTHY, MB, leaking, samples
from pinn_operator.core.gates.judgement import judge
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.samples import FAMILY_LABEL, Series
from pinn_operator.core.status.values import GateStatus, Verdict
from pinn_operator.core.wanted.profiles import gates_of
from pinn_operator.core.wanted.spec import Analysis, Profile, Prometheus

POD = "eu-bbbb-x-1"
_SAMPLE = "pinn_process_tree_resident_memory_bytes"
_EPOCH = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds since the weight was written; None: not in this trial."""

    rejected: float | None
    passed: float | None
    """The first time after the hold at which the weight might rise."""


@lru_cache
def _analysis() -> Analysis:
    gate = next(gate for gate in gates_of(Profile.STANDARD) if gate.name == "memory-growth")
    return Analysis(Prometheus(), Profile.STANDARD, (gate,))


def judged(
    points: list[tuple[float, float]], at: float, *, hold: float = 1800.0, started: float = -60.0,
    limit: float | None = 4e9, earlier: GateStatus | None = None,
) -> GateStatus:  # fmt: skip
    """What the gate says at a moment. All times are seconds since the weight was written."""
    return _judge(points, at, hold, started, limit, earlier)[0]


def _judge(
    points: list[tuple[float, float]], at: float, hold: float, started: float, limit: float | None,
    earlier: GateStatus | None,
) -> tuple[GateStatus, bool]:  # fmt: skip
    begin = _EPOCH.timestamp()
    seen = tuple((begin + moment, value) for moment, value in points if moment <= at)
    canary = Side("bbbb", pods=(POD,), ready=(POD,), replicas=1, started={POD: begin + started})
    judgement = judge(
        Scope(
            name="eu", namespace="pricing", analysis=_analysis(), canary=canary, stable=Side("aaaa"), weight=10,
            start=_EPOCH, now=_EPOCH + timedelta(seconds=at), in_force=_EPOCH, hold_seconds=hold, memory_limit=limit,
            earlier={earlier.name: earlier} if earlier else {},
        ),
        {f"pods/{_SAMPLE}": (Series({FAMILY_LABEL: _SAMPLE, "pod": POD}, seen),)},
    )  # fmt: skip
    return judgement.gates[0], judgement.condemnation is not None


def trial(
    shape: str, leak: float, seed: int, *, seconds: float = 7200.0, hold: float = 1800.0, every: float = 120.0
) -> Trial:  # fmt: skip
    """One rollout of a server with memory of this shape and a leak of so many MB per hour."""
    rng = random.Random(f"{shape} {leak} {seed}")
    started = -rng.uniform(10, 120)
    curve = leaking(HEALTHY[shape](rng), leak * MB)
    points = samples(lambda at: curve(at - started), rng, 0.0, seconds)
    passed, at = None, every
    while at <= seconds:
        status, rejected = _judge(points, at, hold, started, 4e9, None)
        if rejected:
            return Trial(at, passed)
        if passed is None and at >= hold and status.verdict is Verdict.PASS:
            passed = at
        at += every
    return Trial(None, passed)
