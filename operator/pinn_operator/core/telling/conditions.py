"""Conditions after the Kubernetes API conventions ("Typical status properties") and kstatus.

`Reconciling`, `Stalled`, `Degraded` and `Paused` are abnormal-true and absent otherwise; `lastTransitionTime` moves
only with `status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pinn_operator.core.names import canary_service_name, stable_service_name
from pinn_operator.core.observed import Observed
from pinn_operator.core.reasons import Reason
from pinn_operator.core.rollout.shares import share_at
from pinn_operator.core.rollout.steps import aim
from pinn_operator.core.rollout.triggers import MODEL_REASONS, pod_failure
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.routers.router import Seen, Split
from pinn_operator.core.status.values import MESSAGE_LIMIT, WATCHED, Condition, Phase, Status
from pinn_operator.core.status.verification import VerificationVerdict
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.phrases import what_goes_on, worst
from pinn_operator.core.text import cut
from pinn_operator.core.verification.questions import verification_of
from pinn_operator.core.wanted.spec import InvalidSpec, SourceKind, Spec

Row = tuple[str, str, str]
"""Status, reason and message of a condition."""

_NAMED_PODS = 3
_HOLDING = {
    "a replica of the stable revision": "it is the only healthy copy",
    "a person": "rollback.mode is Hold",
}


def conditions(rows: Mapping[str, Row], facts: Facts) -> tuple[Condition, ...]:
    """With the times of their last transitions."""
    result = []
    for name, (value, reason, message) in rows.items():
        previous = facts.before(name)
        since = previous.last_transition_time if previous and previous.status == value else facts.now
        text = cut(message, MESSAGE_LIMIT)
        result.append(Condition(name, value, str(reason), text, since, facts.resource.generation))
    return tuple(result)


def rows(facts: Facts) -> dict[str, Row]:
    """Every condition that is to be there, by type."""
    status, spec = facts.status, facts.spec
    found: dict[str, Row | None] = {"Ready": _ready(facts)}
    stalled = _stalled(facts)
    found["Stalled"] = stalled
    begins = next((f"it waits for {wait.text}" for wait in facts.waits if wait.reason == Reason.EARLIER_PODS), "")
    moving = status.rollout is not None or status.phase is Phase.PENDING or bool(begins)
    reason, message = status.phase.value, begins or what_goes_on(status)
    found["Reconciling"] = ("True", reason, message) if moving and stalled is None else None
    found["Progressing"] = ("True" if moving else "False", reason, message)
    found["Paused"] = _paused(facts)
    found["ModelVerified"] = _model(facts.observed, status)
    found["MetricsAvailable"] = _metrics(facts)
    found["PodMetricsAvailable"] = _pod_metrics(facts)
    found["TrafficProgrammed"] = _traffic(facts, spec) if spec is not None and status.stable is not None else None
    found["Degraded"] = _degraded(facts)
    return {name: row for name, row in found.items() if row is not None}


def held_by(facts: Facts) -> str:
    """What a canary that should leave waits for."""
    stable = facts.status.stable
    alone = stable is not None and facts.observed.available(stable.revision) == 0
    return "a replica of the stable revision" if alone else "a person"


def _ready(facts: Facts) -> Row:
    name, spec, observed, status = facts.resource.name, facts.spec, facts.observed, facts.status
    if spec is None or status.stable is None:
        return "False", Reason.NOTHING_SERVES, "no revision has been accepted yet"
    if name not in observed.selectors:
        return "False", Reason.SERVICE_MISSING, _service_missing(name)
    serving = status.stable.revision
    available = observed.available(serving)
    canary = status.canary.revision if status.canary is not None else serving
    if status.rollout is not None and status.rollout.weight == 100 and observed.available(canary) > available:
        serving, available = canary, observed.available(canary)
    text = f"{available} of {spec.replicas} replicas of {serving} are available" if spec.replicas else "replicas is 0"
    seen, fewest = _seen(facts, spec), min(1, spec.replicas)
    if seen.unserved and available >= fewest:
        return "False", seen.reason, f"{text}, but clients do not reach them: {seen.message}"
    before = facts.status.condition("Ready")
    enough = spec.replicas if before is None or before.status != "True" else fewest
    return ("True", Reason.SERVING, text) if available >= enough else ("False", Reason.NOT_ENOUGH_REPLICAS, text)


def _stalled(facts: Facts) -> Row | None:
    spec, status = facts.spec, facts.status
    if isinstance(facts.resource.spec, InvalidSpec):
        faults = "; ".join(str(error) for error in facts.resource.spec.errors)
        text = f"the spec is not used, the last valid one stays in force: {faults}"
        return "True", Reason.INVALID_SPEC, text
    if spec is None:
        return None
    if status.phase is Phase.ROLLED_BACK and status.rejected is not None:
        rejected = status.rejected
        text = f"revision {rejected.revision} was rolled back and is not retried: {rejected.message}"
        return "True", rejected.reason, text
    if status.phase is Phase.PENDING and status.stable is not None:
        fault = pod_failure(
            facts.observed, status.stable.revision, rollback=spec.rollback, now=facts.now,
            patience_from=min(status.stable.since, facts.now),
        )  # fmt: skip
        if fault is not None:
            return "True", fault.reason, f"{fault.message}; it is the first revision, so nothing else can serve"
    wait = facts.wait_of(Gravity.STALLED)
    if wait is not None:
        return "True", wait.reason, wait.text
    return _overdue(facts, spec)


def _overdue(facts: Facts, spec: Spec) -> Row | None:
    """The analysis at this weight should be over, and is not."""
    rollout = facts.status.rollout
    if rollout is None or facts.status.phase not in WATCHED or rollout.programmed_time is None or spec.paused:
        return None
    patience = timedelta(seconds=aim(spec, rollout).hold_seconds + spec.analysis.deadline_seconds)
    if facts.now <= rollout.programmed_time + patience:
        return None
    gate = worst(rollout.gates)
    why = f"{gate.name}: {gate.message}" if gate else "no gate was judged"
    text = f"{why}; {rollout.weight}% since {rollout.programmed_time:%H:%M:%S}"
    return "True", Reason.ANALYSIS_DEADLINE_EXCEEDED, text


def _paused(facts: Facts) -> Row | None:
    spec = facts.resource.spec
    if isinstance(spec, InvalidSpec) or not spec.paused:
        return None
    return "True", Reason.PAUSED, "no weight rises and gates stay armed until spec.paused is false"


_VERIFIED = {VerificationVerdict.PASS: "True", VerificationVerdict.FAIL: "False"}


def _model(observed: Observed, status: Status) -> Row | None:
    revision = status.canary.revision if status.canary else (status.stable.revision if status.stable else "")
    pods = observed.pods_of(revision)
    refused = next((pod.report for pod in pods if pod.report and pod.report.reason in MODEL_REASONS), None)
    if refused is not None:
        return "False", refused.reason, refused.message
    if status.rejected is not None and status.rejected.reason in MODEL_REASONS:
        return "False", status.rejected.reason, status.rejected.message
    verified = verification_of(status, revision)
    if verified is not None and verified.verdict is not VerificationVerdict.PENDING:
        return _VERIFIED.get(verified.verdict, "Unknown"), verified.reason, verified.message
    if any(pod.ready for pod in pods):
        return "True", Reason.READY_PODS, f"pods of {revision} passed their own model checks"
    return "Unknown", Reason.NO_READY_POD, f"no pod of {revision} is ready"


def _metrics(facts: Facts) -> Row | None:
    judgement = facts.judgement
    fault, before = judgement.source_error, facts.before("MetricsAvailable")
    if fault is not None:
        known = before is not None and before.status == "False" and before.message.startswith(fault.message)
        if before is not None and known and not fault.reason:
            # Remembered from a gate, which has the beginning of the words alone.
            return before.status, before.reason, before.message
        return "False", fault.reason or Reason.QUERY_FAILED, f"{fault.message}; the rollout holds"
    if judgement.asked and not judgement.awaited:
        return "True", Reason.ANSWERING, "every query was answered"
    if before is None or facts.status.rollout is None:
        return None
    return before.status, before.reason, before.message


def _pod_metrics(facts: Facts) -> Row | None:
    """Of ready pods alone: one that only starts has nothing to be read yet."""
    if facts.pod_reads is None:
        before = facts.before("PodMetricsAvailable")
        return (before.status, before.reason, before.message) if before and facts.status.rollout else None
    ready = {pod.name for pod in facts.observed.pods if pod.ready}
    faults = [fault for fault in facts.pod_reads.faults if fault.pod in ready]
    if not faults:
        return "True", Reason.PODS_ANSWER, "the operator reads the counters of every ready pod"
    named = "; ".join(f"{fault.pod}: {fault.message}" for fault in faults[:_NAMED_PODS])
    more = f"; and {len(faults) - _NAMED_PODS} more" if len(faults) > _NAMED_PODS else ""
    alone = facts.spec is not None and SourceKind.PROMETHEUS not in facts.spec.analysis.sources
    end = "what these pods answer is not judged" if alone else "Prometheus alone tells what these pods answer"
    return "False", Reason.PODS_NOT_READABLE, f"{named}{more}; {end}"


def _service_missing(name: str) -> str:
    return f"the Service {name} is not there yet, or belongs to something else: then the events say so"


def _traffic(facts: Facts, spec: Spec) -> Row:
    name, observed, status = facts.resource.name, facts.observed, facts.status
    missing = [service for service in (name, stable_service_name(name), canary_service_name(name))
               if service not in observed.selectors]  # fmt: skip
    if missing:
        return "False", Reason.SERVICE_MISSING, _service_missing(missing[0])
    rollout, seen = status.rollout, _seen(facts, spec)
    if not seen.in_force:
        return "False", seen.reason, seen.message
    moving = rollout is not None and rollout.programmed_time is None and status.phase is not Phase.PROMOTING
    if moving and rollout is not None and (rollout.weight > 0 or status.phase is Phase.ROLLING_BACK):
        return "False", Reason.WEIGHT_PENDING, f"weight {rollout.weight}% is written and not yet seen in force"
    share = share_at(spec, rollout.weight) if rollout is not None else 0.0
    if rollout is not None and status.phase in WATCHED and share != rollout.weight:
        return "True", Reason.IN_FORCE, f"{rollout.weight}% is wanted, and {spec.replicas} replicas give {share:.0f}%"
    return "True", Reason.IN_FORCE, "the router uses the wanted weight"


def _seen(facts: Facts, spec: Spec) -> Seen:
    """What the router has and reports."""
    status = facts.status
    stable = status.stable.revision if status.stable else ""
    canary = status.canary.revision if status.canary else stable
    split = Split(stable, canary, status.rollout.weight if status.rollout else 0)
    return router_of(spec.traffic).seen(facts.resource.name, split, facts.observed)


def _degraded(facts: Facts) -> Row | None:
    spec, status = facts.spec, facts.status
    if spec is None or status.stable is None:
        return None
    if facts.held is not None:
        start, end = f"{facts.held.reason}: ", f"the canary keeps its weight because {_HOLDING[held_by(facts)]}"
        before = status.condition("Degraded")
        if before is not None and before.message.startswith(start) and before.message.endswith(end):
            # The figures of each measurement would be a write, and a wake-up, every two seconds.
            return "True", before.reason, before.message
        return "True", Reason.ROLLBACK_HELD, f"{start}{facts.held.message}; {end}"
    wait = facts.wait_of(Gravity.DEGRADED)
    if wait is not None:
        return "True", wait.reason, wait.text
    available = facts.observed.available(status.stable.revision)
    if status.phase is not Phase.PENDING and available < spec.replicas:
        text = f"{available} of {spec.replicas} replicas of the stable revision are available"
        return "True", Reason.STABLE_REPLICAS_MISSING, text
    return None
