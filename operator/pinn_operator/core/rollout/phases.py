"""Where a rollout goes on: one function per phase, each taking one step if this pass allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from pinn_operator.core.decision import Transition
from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.names import canary_service_name, stable_service_name
from pinn_operator.core.rollout.draft import Draft, Pass, at_weight, timeline_with, unmeasured
from pinn_operator.core.rollout.rollback import note_rollback, only_copy
from pinn_operator.core.rollout.sight import (
    drained,
    see_silence,
    see_weight,
    selected_revision,
    selectors_in_place,
    strangers,
)
from pinn_operator.core.rollout.steps import aim, replicas_at
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.status.values import MESSAGE_LIMIT, Phase, RevisionStatus, RolloutStatus, TimelineEntry
from pinn_operator.core.wanted.spec import Step

SWITCH_SECONDS = 5.0
"""After the Services select the promoted revision, this long until weight returns to `<name>-stable`: the router must
have seen the new endpoints first."""
_MAX_STEPS_PER_PASS = 8


def _pending(this: Pass, draft: Draft) -> None:
    """Nothing has served yet, so nothing can be lost: the newest revision takes the place at once."""
    status = draft.status
    wanted = this.target or (status.stable.revision if status.stable else None)
    if wanted is None:
        return
    running = selected_revision(this, stable_service_name(this.resource.name)) if status.stable is None else None
    if running is not None and running.revision != wanted:
        _adopt(this, draft, running)
    elif status.stable is None or status.stable.revision != wanted:
        draft.status = replace(status, stable=_revision(this), canary=None, rollout=None, rejected=None)
        draft.normal("InitialRevision", f"revision {wanted} is the first to serve")
    elif this.observed.available(wanted) > 0 or this.spec.replicas == 0:
        draft.status = replace(status, phase=Phase.STABLE)
        draft.normal("RevisionServing", f"revision {wanted} serves")


def _adopt(this: Pass, draft: Draft, stable: RevisionStatus) -> None:
    """The status was lost (a backup holds none) while its objects live on: what serves is not put at risk."""
    canary = selected_revision(this, canary_service_name(this.resource.name))
    draft.status = replace(draft.status, phase=Phase.STABLE, stable=stable, canary=None, rollout=None, rejected=None)
    draft.normal("RevisionAdopted", f"revision {stable.revision} was found serving")
    if canary is not None and canary.revision != stable.revision:
        rollout = RolloutStatus(start_time=this.now, step_index=0, weight=0, weight_time=this.now)
        draft.status = replace(draft.status, phase=Phase.ROLLING_BACK, canary=canary, rollout=rollout)


def _settled(this: Pass, draft: Draft) -> None:
    """Stable or RolledBack: start a rollout when the spec names another revision than runs or was rejected."""
    status = draft.status
    if this.target is None:
        return
    if status.rejected is not None and status.rejected.revision == this.target:
        draft.status = replace(status, phase=Phase.ROLLED_BACK)
        return
    if this.target == draft.stable.revision:
        draft.status = replace(status, phase=Phase.STABLE, canary=None, rejected=None)
        return
    if this.spec.replicas == 0:
        draft.status = replace(status, phase=Phase.STABLE, stable=_revision(this), canary=None, rejected=None)
        return
    if this.observed.living(this.target) or _has_replicas(this, this.target):
        # Pods of an earlier try leave first: neither their faults nor their requests are those of this one.
        return
    steps = " → ".join(f"{step.weight}%" for step in this.spec.steps)
    entry = TimelineEntry(this.now, 0, "RolloutStarted", f"from {draft.stable.revision}, steps {steps}"[:MESSAGE_LIMIT])
    draft.status = replace(
        status,
        phase=Phase.PROGRESSING,
        canary=_revision(this),
        rejected=None,
        rollout=RolloutStatus(
            start_time=this.now, step_index=0, weight=0, weight_time=this.now, steps=len(this.spec.steps),
            timeline=(entry,),
        ),
    )  # fmt: skip
    draft.normal("RolloutStarted", f"revision {this.target} from {draft.stable.revision}, steps {steps}")
    draft.transitions.append(Transition("started", this.target, "RolloutStarted"))


def _has_replicas(this: Pass, revision: str) -> bool:
    workload = this.observed.workloads.get(revision)
    return workload is not None and workload.replicas > 0


def _progressing(this: Pass, draft: Draft) -> None:
    """Progressing or Baking: add capacity, move weight, watch, and go on when every gate passes."""
    if this.target is not None and this.target != draft.canary.revision:
        _turn_back(this, draft)
        return
    see_weight(this, draft)
    if this.spec.replicas == 0:
        _scaled_to_zero(this, draft)
        return
    _await_pods(this, draft)
    rollout, step = draft.rollout, aim(this.spec, draft.rollout)
    if rollout.weight != step.weight:
        _move_weight(this, draft, step)
    elif _may_rise(this, draft) and _hold_over(rollout, step, this.now):
        if rollout.step_index + 1 < len(this.spec.steps):
            draft.change_rollout(replace(rollout, step_index=rollout.step_index + 1, passed_time=this.now))
        elif this.observed.available(draft.canary.revision) >= this.spec.replicas:
            _promote(this, draft)


def _move_weight(this: Pass, draft: Draft, step: Step) -> None:
    rollout, revision = draft.rollout, draft.canary.revision
    if step.weight > rollout.weight:
        if not _may_rise(this, draft):
            return
        if this.observed.available(revision) < max(1, replicas_at(this.spec, step.weight)):
            return
        if router_of(this.spec.traffic).by_replicas and strangers(this, draft):
            return
    elif only_copy(this, draft):
        return
    why = "AllGatesPass" if rollout.weight > 0 else "CanaryReady"
    if step.weight < rollout.weight:
        why = "StepLowered"
    draft.status = replace(
        draft.status,
        phase=Phase.BAKING if step.weight == 100 else Phase.PROGRESSING,
        rollout=at_weight(
            rollout, step.weight, this.now, timeline=timeline_with(rollout, this.now, step.weight, why),
            gates=unmeasured(this.judgement.gates or rollout.gates),
        ),
    )  # fmt: skip
    draft.normal("WeightChanged", f"revision {revision}: {rollout.weight}% → {step.weight}% ({why})")
    draft.transitions.append(Transition("advanced", revision, why))


def _may_rise(this: Pass, draft: Draft) -> bool:
    """The present weight was seen in force, and whatever was measured at it in this very pass is good."""
    rollout = draft.rollout
    if this.spec.paused or draft.held is not None or rollout.programmed_time is None:
        return False
    return rollout.weight == 0 or this.judgement.all_pass


def _hold_over(rollout: RolloutStatus, step: Step, now: datetime) -> bool:
    seen = rollout.programmed_time
    return seen is not None and now >= seen + timedelta(seconds=step.hold_seconds)


def _await_pods(this: Pass, draft: Draft) -> None:
    """Patience with the first pod begins once there is a Deployment: whoever should have written it may have died."""
    rollout = draft.rollout
    deadline = rollout.weight_time + timedelta(seconds=this.spec.rollback.ready_deadline_seconds)
    if rollout.weight == 0 and not _has_replicas(this, draft.canary.revision) and this.now >= deadline:
        draft.change_rollout(replace(rollout, weight_time=this.now))


def _scaled_to_zero(this: Pass, draft: Draft) -> None:
    """Nobody serves and nobody is measured: the canary begins anew when there are replicas again."""
    rollout = draft.rollout
    if rollout.weight == 0:
        return
    draft.held = None
    timeline = timeline_with(rollout, this.now, 0, "ScaledToZero")
    draft.status = replace(
        draft.status,
        phase=Phase.PROGRESSING,
        rollout=replace(
            at_weight(rollout, 0, this.now, timeline=timeline, gates=unmeasured(rollout.gates)), step_index=0
        ),
    )
    draft.normal("ScaledToZero", f"revision {draft.canary.revision} begins anew when spec.replicas is above 0")


def _promote(this: Pass, draft: Draft) -> None:
    """The pointer moves; the warm canary pods become the stable ones and none is restarted."""
    rollout, canary, old = draft.rollout, draft.canary, draft.stable
    draft.status = replace(
        draft.status,
        phase=Phase.PROMOTING,
        stable=replace(canary, since=this.now),
        previous=old,
        canary=None,
        rejected=None,
        rollout=replace(
            rollout, weight_time=this.now, programmed_time=None, still_time=None,
            timeline=timeline_with(rollout, this.now, 100, "Promoted"),
        ),
    )  # fmt: skip
    draft.remember(canary, "Promoted", rollout.start_time, this.now, f"replaces {old.revision}")
    draft.normal("Promoted", f"revision {canary.revision} is stable, it replaces {old.revision}")
    draft.transitions.append(Transition("promoted", canary.revision, "AllGatesPass"))


def _promoting(this: Pass, draft: Draft) -> None:
    """Both Services select the promoted revision; give `-stable` all weight again, then let the old capacity go."""
    rollout, old = draft.rollout, draft.status.previous
    assert old is not None
    if rollout.weight > 0:
        if selectors_in_place(this, draft) and this.now >= rollout.weight_time + timedelta(seconds=SWITCH_SECONDS):
            draft.change_rollout(at_weight(rollout, 0, this.now, timeline=rollout.timeline))
        return
    see_weight(this, draft)
    see_silence(this, draft, old.revision)
    if drained(draft.rollout, this.spec.rollback.drain_seconds, this.now):
        draft.normal("CapacityRemoved", f"revision {old.revision} has no more traffic")
        draft.status = replace(draft.status, phase=Phase.STABLE, previous=None, rollout=None)


def _turn_back(this: Pass, draft: Draft) -> None:
    """The spec names the stable revision again, or a third one: back to stable at once."""
    rollout, canary = draft.rollout, draft.canary
    reason = "ReturnedToStable" if this.target == draft.stable.revision else "Superseded"
    message = f"the spec now asks for {this.target}"
    if only_copy(this, draft):
        draft.held = draft.held or Condemnation(reason=reason, message=message)
        return
    draft.held = None
    draft.status = replace(
        draft.status,
        phase=Phase.ROLLING_BACK,
        rejected=None,
        rollout=at_weight(rollout, 0, this.now, timeline=timeline_with(rollout, this.now, 0, reason, message)),
    )
    if rollout.weight == 0:
        draft.change_rollout(replace(draft.rollout, still_time=this.now))
    draft.remember(canary, "Superseded", rollout.start_time, this.now, message)
    draft.normal(reason, f"revision {canary.revision} leaves from {rollout.weight}%: {message}")
    draft.transitions.append(Transition("superseded", canary.revision, reason))


def _rolling_back(this: Pass, draft: Draft) -> None:
    """Weight 0 is written; see it in force, drain, and only then remove capacity."""
    see_weight(this, draft)
    status, revision = draft.status, draft.canary.revision
    rejected = status.rejected if status.rejected and status.rejected.revision == revision else None
    if draft.rollout.still_time is None and (rejected and rejected.weight == 0):
        draft.change_rollout(replace(draft.rollout, still_time=this.now))
    see_silence(this, draft, revision)
    still = draft.rollout.still_time
    if still is not None and rejected is not None and rejected.weight_zero_time is None:
        note_rollback(draft, lambda record: replace(record, weight_zero_time=still))
        draft.normal("TrafficRemoved", f"revision {revision} answers no more requests")
    wait = this.spec.rollback.drain_seconds
    if rejected is not None and this.target in (revision, None):
        wait = max(wait, this.spec.rollback.scale_down_delay_seconds)
    if not drained(draft.rollout, wait, this.now):
        return
    if rejected is not None:
        note_rollback(draft, lambda record: replace(record, capacity_removed_time=this.now))
        draft.status = replace(draft.status, phase=Phase.ROLLED_BACK, rollout=None)
    else:
        draft.status = replace(draft.status, phase=Phase.STABLE, canary=None, rollout=None)
    draft.normal("CapacityRemoved", f"revision {revision} is scaled down")


STEPS: dict[Phase, Callable[[Pass, Draft], None]] = {
    Phase.PENDING: _pending,
    Phase.STABLE: _settled,
    Phase.ROLLED_BACK: _settled,
    Phase.PROGRESSING: _progressing,
    Phase.BAKING: _progressing,
    Phase.SUSPENDED: _progressing,
    Phase.PROMOTING: _promoting,
    Phase.ROLLING_BACK: _rolling_back,
}


def _revision(this: Pass) -> RevisionStatus:
    assert this.target is not None
    return RevisionStatus(this.target, str(this.spec.serving.get("image", "")), this.now)
