"""What the status tells people and tools: conditions, the next action, and the columns of `kubectl get`.

Conditions follow the Kubernetes API conventions ("Typical status properties") and kstatus: `Reconciling`, `Stalled` and
`Degraded` are abnormal-true and absent otherwise; `lastTransitionTime` moves only with `status`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from pinn_operator.core.api import Resource
from pinn_operator.core.gates.judgement import Condemnation, Judgement
from pinn_operator.core.names import canary_service_name, selector_of, stable_service_name
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.steps import aim
from pinn_operator.core.rollout.triggers import MODEL_REASONS, pod_failure
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.routers.router import Split
from pinn_operator.core.status.values import (
    MESSAGE_LIMIT,
    WATCHED,
    Condition,
    GateStatus,
    NextAction,
    Phase,
    Status,
    Verdict,
)
from pinn_operator.core.wanted.spec import InvalidSpec, Spec

_GRAVITY = (Verdict.FAIL, Verdict.ERROR, Verdict.NO_DATA, Verdict.COLLECTING, Verdict.PASS)
_UNMEASURED = "-"
_HOLDING = {
    "a replica of the stable revision": "it is the only healthy copy",
    "a person": "rollback.mode is Hold",
}
_Row = tuple[str, str, str]


def report(
    resource: Resource, spec: Spec | None, observed: Observed, status: Status, judgement: Judgement,
    blocked: Condemnation | None, now: datetime,
) -> Status:  # fmt: skip
    """The status with everything in it that is derived: conditions, next action, columns, scale fields."""
    rows = _rows(resource, spec, observed, status, judgement, blocked, now)
    status = replace(
        status,
        observed_generation=resource.generation,
        conditions=_conditions(rows, resource.status.conditions, resource.generation, now),
    )
    if spec is None:
        errors = resource.spec.errors if isinstance(resource.spec, InvalidSpec) else ()
        return replace(status, reason="; ".join(str(error) for error in errors)[:256])
    serving = _serving(status)
    return replace(
        status,
        next=_next(resource, spec, observed, status, blocked),
        replicas=observed.workloads[serving].replicas if serving in observed.workloads else 0,
        ready_replicas=observed.workloads[serving].ready if serving in observed.workloads else 0,
        selector=",".join(f"{key}={value}" for key, value in selector_of(resource.name, serving or None).items()),
        step=_step_column(status, spec),
        weight=_weight_column(status),
        verdict=_verdict_column(status),
        reason=_reason_column(status, rows)[:256],
    )


def _serving(status: Status) -> str:
    """The revision with most of the traffic: the one an autoscaler should look at."""
    if status.canary and status.rollout and status.rollout.weight >= 50:
        return status.canary.revision
    return status.stable.revision if status.stable else ""


# --- conditions -------------------------------------------------------------------------------------------------------


def _conditions(
    rows: dict[str, _Row], before: tuple[Condition, ...], generation: int, now: datetime
) -> tuple[Condition, ...]:
    old = {condition.type: condition for condition in before}
    result = []
    for name, (value, reason, message) in rows.items():
        previous = old.get(name)
        since = previous.last_transition_time if previous and previous.status == value else now
        result.append(Condition(name, value, reason, message[:MESSAGE_LIMIT], since, generation))
    return tuple(result)


def _rows(
    resource: Resource, spec: Spec | None, observed: Observed, status: Status, judgement: Judgement,
    blocked: Condemnation | None, now: datetime,
) -> dict[str, _Row]:  # fmt: skip
    rows = {"Ready": _ready(resource.name, spec, observed, status)}
    stalled = _stalled(resource, spec, observed, status, now)
    if stalled is not None:
        rows["Stalled"] = ("True", *stalled)
    moving = status.rollout is not None or status.phase is Phase.PENDING
    if moving and stalled is None:
        rows["Reconciling"] = ("True", status.phase.value, _what_goes_on(status))
    rows["Progressing"] = (
        "True" if status.rollout is not None else "False",
        status.phase.value,
        _what_goes_on(status),
    )
    if (model := _model(observed, status)) is not None:
        rows["ModelVerified"] = model
    if (metrics := _metrics(resource, judgement, status)) is not None:
        rows["MetricsAvailable"] = metrics
    if spec is not None and status.stable is not None:
        rows["TrafficProgrammed"] = _traffic(resource.name, spec, observed, status)
    if (degraded := _degraded(spec, observed, status, blocked)) is not None:
        rows["Degraded"] = ("True", *degraded)
    return rows


def _ready(name: str, spec: Spec | None, observed: Observed, status: Status) -> _Row:
    if spec is None or status.stable is None:
        return "False", "NothingServes", "no revision has been accepted yet"
    if name not in observed.selectors:
        return "False", "ServiceMissing", _service_missing(name)
    available = observed.available(status.stable.revision)
    if status.canary is not None and status.rollout is not None and status.rollout.weight == 100:
        available = max(available, observed.available(status.canary.revision))
    text = f"{available} of {spec.replicas} replicas of {status.stable.revision} are available"
    before = status.condition("Ready")
    enough = spec.replicas if before is None or before.status != "True" else min(1, spec.replicas)
    return ("True", "Serving", text) if available >= enough else ("False", "NotEnoughReplicas", text)


def _stalled(
    resource: Resource, spec: Spec | None, observed: Observed, status: Status, now: datetime
) -> tuple[str, str] | None:
    if isinstance(resource.spec, InvalidSpec):
        faults = "; ".join(str(error) for error in resource.spec.errors)
        return "InvalidSpec", f"the spec is not used, the last valid one stays in force: {faults}"
    if spec is None:
        return None
    if status.phase is Phase.ROLLED_BACK and status.rejected is not None:
        rejected = status.rejected
        return rejected.reason, f"revision {rejected.revision} was rolled back and is not retried: {rejected.message}"
    if status.phase is Phase.PENDING and status.stable is not None:
        fault = pod_failure(
            observed, status.stable.revision, weight=0, rollback=spec.rollback, now=now,
            patience_from=min(status.stable.since, now),
        )  # fmt: skip
        if fault is not None:
            return fault.reason, f"the first revision cannot serve: {fault.message}"
    rollout = status.rollout
    watched = rollout is not None and status.phase in WATCHED
    if watched and rollout is not None and rollout.programmed_time is not None:
        step = aim(spec, rollout)
        patience = timedelta(seconds=step.hold_seconds + spec.analysis.deadline_seconds)
        if not spec.paused and now > rollout.programmed_time + patience:
            worst = _worst(rollout.gates)
            why = f"{worst.name}: {worst.message}" if worst else "no gate was judged"
            return "AnalysisDeadlineExceeded", f"{rollout.weight}% since {rollout.programmed_time:%H:%M:%S}: {why}"
    return None


def _what_goes_on(status: Status) -> str:
    stable = status.stable.revision if status.stable else "none"
    canary = status.canary.revision if status.canary else "none"
    weight = status.rollout.weight if status.rollout else 0
    match status.phase:
        case Phase.PENDING:
            return f"revision {stable} starts"
        case Phase.PROGRESSING if weight == 0:
            return f"revision {canary} starts, {stable} serves"
        case Phase.PROGRESSING | Phase.BAKING:
            return f"revision {canary} has {weight}%, {stable} is kept for an instant return"
        case Phase.PROMOTING:
            return f"revision {stable} is promoted, the old capacity leaves"
        case Phase.ROLLING_BACK:
            return f"revision {canary} leaves, {stable} serves"
        case _:
            return f"revision {stable} serves"


def _model(observed: Observed, status: Status) -> _Row | None:
    revision = status.canary.revision if status.canary else (status.stable.revision if status.stable else "")
    pods = observed.pods_of(revision)
    refused = next((pod.report for pod in pods if pod.report and pod.report.reason in MODEL_REASONS), None)
    if refused is not None:
        return "False", refused.reason, refused.message
    if status.rejected is not None and status.rejected.reason in MODEL_REASONS:
        return "False", status.rejected.reason, status.rejected.message
    if any(pod.ready for pod in pods):
        return "True", "ReadyPods", f"pods of {revision} passed their own model checks"
    return "Unknown", "NoReadyPod", f"no pod of {revision} is ready"


def _metrics(resource: Resource, judgement: Judgement, status: Status) -> _Row | None:
    if judgement.source_error is not None:
        return "False", "QueryFailed", f"the rollout holds: {judgement.source_error}"
    if judgement.asked:
        return "True", "Answering", "every query was answered"
    before = resource.status.condition("MetricsAvailable")
    if before is None or status.rollout is None:
        return None
    return before.status, before.reason, before.message


def _service_missing(name: str) -> str:
    return f"the Service {name} is not there, or not of this resource: the events say why"


def _traffic(name: str, spec: Spec, observed: Observed, status: Status) -> _Row:
    missing = [service for service in (name, stable_service_name(name), canary_service_name(name))
               if service not in observed.selectors]  # fmt: skip
    if missing:
        return "False", "ServiceMissing", _service_missing(missing[0])
    rollout = status.rollout
    stable = status.stable.revision if status.stable else ""
    canary = status.canary.revision if status.canary else stable
    seen = router_of(spec.traffic).seen(name, Split(stable, canary, rollout.weight if rollout else 0), observed)
    if not seen.in_force:
        return "False", seen.reason, seen.message
    moving = rollout is not None and rollout.programmed_time is None and status.phase is not Phase.PROMOTING
    if moving and rollout is not None and (rollout.weight > 0 or status.phase is Phase.ROLLING_BACK):
        return "False", "WeightPending", f"weight {rollout.weight}% is written and not yet seen in force"
    return "True", "InForce", "the router has taken the wanted weight up"


def _degraded(
    spec: Spec | None, observed: Observed, status: Status, blocked: Condemnation | None
) -> tuple[str, str] | None:
    if spec is None or status.stable is None:
        return None
    if blocked is not None:
        start, end = (
            f"{blocked.reason}: ",
            f"the canary keeps its weight because {_HOLDING[_held_by(observed, status)]}",
        )
        before = status.condition("Degraded")
        if before is not None and before.message.startswith(start) and before.message.endswith(end):
            # The figures of each measurement would be a write, and a wake-up, every two seconds.
            return before.reason, before.message
        return "RollbackHeld", f"{start}{blocked.message}; {end}"
    available = observed.available(status.stable.revision)
    if status.phase is not Phase.PENDING and available < spec.replicas:
        return "StableReplicasMissing", f"{available} of {spec.replicas} replicas of the stable revision are available"
    return None


def _held_by(observed: Observed, status: Status) -> str:
    """What a canary that should leave waits for."""
    alone = status.stable is not None and observed.available(status.stable.revision) == 0
    return "a replica of the stable revision" if alone else "a person"


# --- next action and columns ------------------------------------------------------------------------------------------


def _next(
    resource: Resource, spec: Spec, observed: Observed, status: Status, blocked: Condemnation | None
) -> NextAction | None:
    rollout = status.rollout
    if status.phase is Phase.PENDING:
        return NextAction("Serve", "a ready replica")
    if status.phase is Phase.ROLLED_BACK:
        return NextAction("Wait", "a changed spec")
    if rollout is None:
        return None
    if status.phase is Phase.ROLLING_BACK:
        waits = "silence of the canary's request counters" if rollout.still_time is None else "the drain"
        return NextAction("RemoveCapacity", waits)
    if status.phase is Phase.PROMOTING:
        return NextAction("RemoveOldCapacity", "silence of the old revision's request counters")
    step = aim(spec, rollout)
    if blocked is not None:
        return NextAction("Wait", f"{_held_by(observed, status)}: {blocked.reason}")
    if isinstance(resource.spec, InvalidSpec):
        return NextAction("Wait", "a valid spec")
    if spec.paused:
        return NextAction("Wait", "spec.paused to be false")
    if rollout.weight != step.weight:
        canary = status.canary.revision if status.canary else ""
        waits = f"replicas of {canary}, {observed.available(canary)} are available"
        return NextAction(f"SetWeight {step.weight}%", waits)
    last = rollout.step_index + 1 >= len(spec.steps)
    action = "Promote" if last else f"SetWeight {spec.steps[rollout.step_index + 1].weight}%"
    if rollout.programmed_time is None:
        return NextAction(action, "the router to take the weight up")
    waiting = [f"{gate.name}: {gate.message}" for gate in rollout.gates if gate.verdict is not Verdict.PASS]
    end = rollout.programmed_time + timedelta(seconds=step.hold_seconds)
    return NextAction(action, "; ".join(waiting)[:512] or "the end of the hold", end)


def _step_column(status: Status, spec: Spec) -> str:
    if status.rollout is None or status.phase not in WATCHED:
        return _UNMEASURED
    return f"{min(status.rollout.step_index, len(spec.steps) - 1) + 1}/{len(spec.steps)}"


def _weight_column(status: Status) -> str:
    rollout = status.rollout
    if status.phase is Phase.ROLLED_BACK:
        return "0/0"
    if rollout is None or status.phase is Phase.PROMOTING:
        return _UNMEASURED
    if rollout.weight == 0 and rollout.still_time is not None:
        return "0/0"
    share = "?" if rollout.observed_share is None else f"{rollout.observed_share:g}"
    return f"{rollout.weight}/{share}"


def _worst(gates: tuple[GateStatus, ...]) -> GateStatus | None:
    return min(gates, key=lambda gate: _GRAVITY.index(gate.verdict), default=None)


def _verdict_column(status: Status) -> str:
    if status.rejected is not None:
        return Verdict.FAIL.value
    if status.rollout is None or status.phase not in WATCHED:
        return _UNMEASURED
    worst = _worst(status.rollout.gates)
    return worst.verdict.value if worst and status.rollout.weight > 0 else _UNMEASURED


def _reason_column(status: Status, rows: dict[str, _Row]) -> str:
    for name in ("Stalled", "Degraded", "MetricsAvailable", "TrafficProgrammed"):
        row = rows.get(name)
        if row is not None and (row[0] == "True") == (name in ("Stalled", "Degraded")):
            message = status.rejected.message if status.rejected and name == "Stalled" else row[2]
            return f"{row[1]}: {message}"
    if status.rejected is not None:
        return f"{status.rejected.reason}: {status.rejected.message}"
    if status.rollout is not None and status.rollout.weight > 0 and status.phase in WATCHED:
        worst = _worst(status.rollout.gates)
        if worst is not None and worst.verdict is not Verdict.PASS:
            return f"{worst.name}: {worst.message}"
        if worst is not None:
            return "all gates pass"
    return _what_goes_on(status)
