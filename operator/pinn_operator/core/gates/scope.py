"""What is judged in a pass, from what was read in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import inf
from typing import Any

from pinn_operator.core.api import Resource
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.gates.readiness import has_failed
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.status.values import GOES_ON, GateStatus, RolloutStatus
from pinn_operator.core.verification.questions import own_questions
from pinn_operator.core.wanted.quantity import parse_quantity
from pinn_operator.core.wanted.spec import Rollback, SourceKind, Spec

NO_ANSWERS = Counts(0, 0), Counts(0, 0)


def scope_of(
    resource: Resource, spec: Spec, observed: Observed, now: datetime, *,
    own_answers: tuple[Counts, Counts] = NO_ANSWERS, own_slow: tuple[Counts, Counts] = NO_ANSWERS,
) -> Scope | None:  # fmt: skip
    """The scope of a rollout in flight; None without one. `own_answers` are those of a canary in doubt, `own_slow`
    of one that seems slow, see `Scope`."""
    status, rollout = resource.status, resource.status.rollout
    if rollout is None or status.canary is None or status.stable is None:
        return None
    advance_due = _advance_due(rollout, spec, now)
    doubt, beside = rollout.doubt, rollout.weight < 100
    settled = doubt.settled_time if doubt is not None else None
    return Scope(
        name=resource.name,
        namespace=resource.namespace,
        analysis=spec.analysis,
        canary=_side(observed, status.canary.revision, spec.rollback, now, rollout.weight_time),
        stable=_side(observed, status.stable.revision, spec.rollback, now, rollout.weight_time),
        weight=rollout.weight,
        start=rollout.weight_time,
        now=now,
        in_force=rollout.programmed_time,
        hold_seconds=float(_hold(rollout, spec)),
        # Not `step_index`: that is the step that is aimed at, while the weight is still that of the one before.
        step=1 + sum(step.weight < rollout.weight for step in spec.steps),
        stage=rollout.step_index + rollout.suspensions,
        weighted=not router_of(spec.traffic).by_replicas,
        memory_limit=_limit(spec, "memory"),
        cpu_limit=_limit(spec, "cpu"),
        probe_paths=probe_paths(spec),
        advance_due=advance_due,
        prometheus_due=advance_due or not _pods_serve(rollout.gates, spec),
        settled=None if beside else settled,
        upstream=settled.timestamp() if settled is not None and beside else -inf,
        own_answers=own_answers,
        own_slow=own_slow,
        own=own_questions(spec, status, observed, now),
        earlier={gate.name: gate for gate in rollout.gates},
    )


def _side(observed: Observed, revision: str, rollback: Rollback, now: datetime, expected_from: datetime) -> Side:
    pods = sorted((pod for pod in observed.living(revision) if pod.phase in ("Running", "")), key=lambda pod: pod.name)
    workload = observed.workloads.get(revision)
    return Side(
        revision,
        pods=tuple(pod.name for pod in pods),
        ready=tuple(pod.name for pod in pods if pod.ready),
        failed=tuple(pod.name for pod in pods if has_failed(pod, rollback, now, expected_from)),
        replicas=workload.replicas if workload else 0,
        started={pod.name: pod.container_started.timestamp() for pod in pods if pod.container_started is not None},
    )


def _hold(rollout: RolloutStatus, spec: Spec) -> int:
    """As the list of steps has it by now, if a step of it has this weight; else as the weight was written with."""
    aimed = spec.steps[min(rollout.step_index, len(spec.steps) - 1)]
    same = [step.hold_seconds for step in (aimed, *spec.steps) if step.weight == rollout.weight]
    return same[0] if same else rollout.hold_seconds or aimed.hold_seconds


def _advance_due(rollout: RolloutStatus, spec: Spec, now: datetime) -> bool:
    """The whole time at a weight is asked for every `intervalSeconds`, while a bound is exceeded, and whenever the
    weight could rise now: a rise rests on what was measured in that very pass."""
    times = [gate.time for gate in rollout.gates]
    # A gate that this very moment found to fail makes the others due at the next one.
    failing = any(gate.failing_since is not None and gate.time != now for gate in rollout.gates)
    if not times or any(time is None for time in times) or failing:
        return True
    newest = max(time for time in times if time is not None)
    if rollout.programmed_time is not None:
        over = rollout.programmed_time + timedelta(seconds=_hold(rollout, spec))
        ready = not spec.paused and all(gate.verdict in GOES_ON for gate in rollout.gates)
        if over <= now and (ready or newest < over):
            return True
    return not timedelta(0) <= now - newest < timedelta(seconds=0.95 * spec.analysis.interval_seconds)


def _pods_serve(gates: Iterable[GateStatus], spec: Spec) -> bool:
    """The pods themselves answered last: Prometheus need not be asked at each look."""
    return SourceKind.PODS in spec.analysis.sources and any(gate.source == SourceKind.PODS for gate in gates)


def _limit(spec: Spec, resource: str) -> float | None:
    limits = _object(_object(spec.serving.get("resources")).get("limits"))
    try:
        return float(parse_quantity(str(limits[resource]))) or None
    except (KeyError, ValueError):
        return None


def probe_paths(spec: Spec) -> tuple[str, ...]:
    """The paths that the kubelet asks, where the spec names its own."""
    paths = (_object(probe).get("path") for probe in _object(spec.serving.get("probes")).values())
    return tuple(sorted(path for path in paths if isinstance(path, str)))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
