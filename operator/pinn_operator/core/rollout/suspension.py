"""What stops a rollout and is not the revision's fault: traffic is made safe, and the step begins anew afterwards.

A rollout is suspended when its canary has weight and not one pod that can answer, when none of the requests that it
should get by its weight arrive at its pods, when a route is not accepted within `ROUTE_SECONDS`, and when something
keeps all pods of the canary away for `TROUBLE_SECONDS`. Nothing is rejected. What took weight back is counted: it is
tried again after a growing pause, and after `LIMIT` times only by order.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pinn_operator.core.decision import Transition
from pinn_operator.core.rollout.draft import Draft, Pass, at_weight, timeline_with, unmeasured
from pinn_operator.core.rollout.prices import compare_once_more
from pinn_operator.core.rollout.rollback import only_copy
from pinn_operator.core.rollout.sight import why_not_in_force
from pinn_operator.core.rollout.trouble import Trouble, state_of, trouble
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.status.values import MESSAGE_LIMIT, Phase, SuspensionStatus
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import Rollback

LIMIT = 5
"""Suspensions at one step after which only an order, or another revision, goes on."""
PAUSE_SECONDS = 10.0
"""Before the first new try; twice as long before each further one."""
ROUTE_SECONDS = 120.0
"""How long a router may take to accept a weight. Istio was seen to take 15 s after an outage of its control plane, and
a Gateway's certificate or load balancer may take a minute."""
TROUBLE_SECONDS = 30.0
"""How long the pods of a canary without weight may be kept away before the rollout counts as suspended."""
TOO_OFTEN = "SuspendedTooOften"
NOT_ARRIVING = "TrafficNotArriving"
_NOT_ARRIVING = "its pods are cut off or never answer, or clients use the Service and not the route"


def suspend_if_needed(this: Pass, draft: Draft) -> bool:
    """Make traffic safe when something beside the revision took its pods or its route away; whether that was done."""
    rollout, revision = draft.rollout, draft.canary.revision
    if rollout.weight > 0 and this.observed.available(revision) == 0:
        found = trouble(this.observed, revision) or Trouble(
            "NoReadyPod", state_of(this.observed, revision) or f"no pod of {revision} is ready"
        )
        _take_back(this, draft, found, to=0)
        return True
    arriving = this.judgement.arrival
    if rollout.weight > 0 and arriving is not None and arriving.missing and not only_copy(this, draft):
        _take_back(this, draft, Trouble(NOT_ARRIVING, f"{arriving}: {_NOT_ARRIVING}"), to=0)
        return True
    if rollout.weight > rollout.weight_in_force and _route_is_late(this, draft) and not only_copy(this, draft):
        reason, message = why_not_in_force(this, draft)
        _take_back(this, draft, Trouble(reason, message), to=rollout.weight_in_force, patience=0.0)
        return True
    if rollout.suspension is None and rollout.weight == 0 and this.observed.available(revision) == 0:
        found_first = trouble(this.observed, revision)
        if found_first is not None and this.now >= rollout.weight_time + timedelta(seconds=TROUBLE_SECONDS):
            _stop(this, draft, found_first)
    return False


def resume_if_possible(this: Pass, draft: Draft) -> bool:
    """Whether the rollout may move. A suspension is over when pods, or the route, are back and its pause is over."""
    rollout = draft.rollout
    suspension = rollout.suspension
    if suspension is None:
        return True
    if suspension.final:
        text = f"an order or another spec; {suspension.reason}: {suspension.message} ({retry_command(this)})"
        draft.wait(TOO_OFTEN, text, gravity=Gravity.STALLED)
        return False
    if this.observed.available(draft.canary.revision) == 0:
        found = trouble(this.observed, draft.canary.revision)
        if found is not None and (found.reason, found.text) != (suspension.reason, suspension.message):
            patience = timedelta(seconds=patience_with(found.reason, this.spec.rollback))
            suspension = replace(
                suspension, reason=found.reason, message=cut(found.text, MESSAGE_LIMIT),
                until=max(suspension.since, rollout.weight_time + patience),
            )  # fmt: skip
            draft.change_rollout(replace(rollout, suspension=suspension))
        gravity = Gravity.STALLED if this.now >= suspension.until else Gravity.DEGRADED
        draft.wait(suspension.reason, suspension.message, gravity=gravity)
        return False
    if rollout.programmed_time is None:
        reason, message = why_not_in_force(this, draft)
        late = this.now >= min(suspension.until, rollout.weight_time + timedelta(seconds=ROUTE_SECONDS))
        draft.wait(reason, message, gravity=Gravity.STALLED if late else Gravity.DEGRADED)
        return False
    if this.now < suspension.retry_time:
        draft.wait("Resuming", f"the pause after suspension {rollout.suspensions}", suspension.retry_time)
        return False
    phase = Phase.BAKING if rollout.weight == 100 else Phase.PROGRESSING
    draft.status = replace(draft.status, phase=phase, rollout=replace(rollout, suspension=None))
    if suspension.reason == NOT_ARRIVING:
        # It may be the revision that answers nothing any more: that shows without clients.
        compare_once_more(this, draft)
    draft.normal("Resumed", f"revision {draft.canary.revision}: its step begins anew")
    return True


def retry_command(this: Pass) -> str:
    """Starts a rejected or suspended revision again."""
    name, namespace = this.resource.name, this.resource.namespace
    return f"kubectl annotate pinnservice {name} -n {namespace} --overwrite pinn.dev/retry=$(date +%s)"


def _take_back(this: Pass, draft: Draft, why: Trouble, *, to: int, patience: float | None = None) -> None:
    """`patience` is how many seconds pass until a person is called."""
    if patience is None:
        patience = patience_with(why.reason, this.spec.rollback)
    rollout, canary = draft.rollout, draft.canary
    times = rollout.suspensions + 1
    final = times > LIMIT
    pause = timedelta(seconds=PAUSE_SECONDS * 2 ** min(times - 1, 10))
    suspension = SuspensionStatus(
        reason=why.reason, message=cut(why.text, MESSAGE_LIMIT), since=this.now,
        until=this.now + timedelta(seconds=patience), retry_time=this.now + pause, weight=rollout.weight, final=final,
    )  # fmt: skip
    timeline = timeline_with(rollout, this.now, to, "Suspended", f"{why.reason}: {why.text}")
    moved = at_weight(rollout, to, this.now, timeline=timeline, gates=unmeasured(rollout.gates))
    draft.status = replace(
        draft.status,
        phase=Phase.SUSPENDED,
        rollout=replace(moved, suspension=suspension, suspensions=times),
    )
    again = "it is not tried again without an order" if final else "its step begins anew when that is over"
    draft.warning(
        "Suspended", f"revision {canary.revision}: {rollout.weight}% → {to}%, {why.reason}: {why.text}; {again}"
    )
    draft.transitions.append(Transition("suspended", canary.revision, why.reason))


def _stop(this: Pass, draft: Draft, why: Trouble) -> None:
    """The canary has no weight that could be taken back, and cannot start."""
    rollout = draft.rollout
    suspension = SuspensionStatus(
        reason=why.reason, message=cut(why.text, MESSAGE_LIMIT), since=this.now,
        until=max(this.now, rollout.weight_time + timedelta(seconds=patience_with(why.reason, this.spec.rollback))),
        retry_time=this.now,
    )  # fmt: skip
    draft.status = replace(draft.status, phase=Phase.SUSPENDED, rollout=replace(rollout, suspension=suspension))
    draft.warning("Suspended", f"revision {draft.canary.revision} cannot start, {why.reason}: {why.text}")
    draft.transitions.append(Transition("suspended", draft.canary.revision, why.reason))


def patience_with(reason: str, rollback: Rollback) -> float:
    """After how many seconds a person is called: a missing key of a Secret appears by a person alone."""
    return TROUBLE_SECONDS if reason == "ConfigurationMissing" else float(rollback.ready_deadline_seconds)


def _route_is_late(this: Pass, draft: Draft) -> bool:
    rollout = draft.rollout
    if rollout.programmed_time is not None or router_of(this.spec.traffic).by_replicas:
        return False
    return this.now >= rollout.weight_time + timedelta(seconds=ROUTE_SECONDS)
