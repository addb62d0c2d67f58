"""Where a rollout goes on: one function per phase, each taking one step if this pass allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from pinn_operator.core.decision import Transition
from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.names import canary_service_name, stable_service_name
from pinn_operator.core.rollout.deletion import what_keeps
from pinn_operator.core.rollout.doubt import unanswered
from pinn_operator.core.rollout.draft import Draft, Pass, at_weight, timeline_with, unmeasured
from pinn_operator.core.rollout.prices import acknowledged_since, has_unverified_weight, prices_allow
from pinn_operator.core.rollout.rollback import note_rollback, only_copy
from pinn_operator.core.rollout.shares import what_replicas_can_give
from pinn_operator.core.rollout.sight import (
    drained_at,
    see_silence,
    see_weight,
    selected_revision,
    selectors_in_place,
    strangers,
    weight_in_force,
    why_not_in_force,
)
from pinn_operator.core.rollout.steps import aim, hold_of, replicas_at
from pinn_operator.core.rollout.suspension import (
    ROUTE_SECONDS,
    TROUBLE_SECONDS,
    patience_with,
    resume_if_possible,
    retry_command,
    suspend_if_needed,
)
from pinn_operator.core.rollout.takeover import (
    give_back_if_well,
    keeps_capacity,
    serve_again_if_needed,
    stable_cannot_answer,
    stand_in,
    take_over_if_needed,
    waits_until_well,
)
from pinn_operator.core.rollout.triggers import ends_of_others, merged
from pinn_operator.core.rollout.trouble import missing_since, state_of, trouble
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.routers.router import Split
from pinn_operator.core.status.json import EXCUSED_LIMIT
from pinn_operator.core.status.values import (
    MESSAGE_LIMIT,
    ExcusedRestarts,
    Phase,
    RevisionStatus,
    RolloutStatus,
    TimelineEntry,
)
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import InvalidSpec, RollbackMode, Step

SWITCH_SECONDS = 5.0
"""After the Services select the promoted revision, this long until weight returns to `<name>-stable`: the router must
have seen the new endpoints first."""
_MAX_STEPS_PER_PASS = 8


def _pending(this: Pass, draft: Draft) -> None:
    """Nothing has served yet, so nothing can be lost: the newest revision takes the place at once."""
    status = draft.status
    wanted = this.target or (status.stable.revision if status.stable else None)
    running = selected_revision(this, stable_service_name(this.resource.name)) if status.stable is None else None
    if running is not None and running.revision != wanted:
        _adopt(this, draft, running)
    elif wanted is None:
        return
    elif status.stable is None or status.stable.revision != wanted:
        draft.status = replace(status, stable=_revision(this), canary=None, rollout=None, rejected=None)
        draft.normal("InitialRevision", f"revision {wanted} is the first to serve")
    elif this.observed.available(wanted) > 0 or this.spec.replicas == 0:
        draft.status = replace(status, phase=Phase.STABLE)
        draft.normal("RevisionServing", f"revision {wanted} serves")
    else:
        _wait_for_replicas(this, draft, wanted, this.spec.replicas, min(draft.stable.since, this.now))


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
    rejected = status.rejected
    if rejected is not None and rejected.revision == this.target and not acknowledged_since(this, rejected):
        draft.status = replace(status, phase=Phase.ROLLED_BACK)
        draft.wait("Rejected", f"another spec, or an order to try this one again: {retry_command(this)}")
        return
    if this.target == draft.stable.revision:
        draft.status = replace(status, phase=Phase.STABLE, canary=None, rejected=None)
        _say_if_unserved(this, draft)
        return
    if this.spec.replicas == 0:
        draft.status = replace(status, phase=Phase.STABLE, stable=_revision(this), canary=None, rejected=None)
        return
    if this.observed.living(this.target) or _has_replicas(this, this.target):
        # Pods of an earlier try leave first: neither their faults nor their requests are those of this one.
        draft.wait("EarlierPods", f"the pods of an earlier try of {this.target} to leave")
        return
    steps = " → ".join(f"{step.weight}%" for step in this.spec.steps)
    begins = "; ".join(
        filter(None, [f"from {draft.stable.revision}, steps {steps}", what_replicas_can_give(this.spec)])
    )
    entry = TimelineEntry(this.now, 0, "RolloutStarted", cut(begins, MESSAGE_LIMIT))
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
    if given := what_replicas_can_give(this.spec):
        draft.warning("WeightsApproximate", given)
    draft.transitions.append(Transition("started", this.target, "RolloutStarted"))


def _has_replicas(this: Pass, revision: str) -> bool:
    workload = this.observed.workloads.get(revision)
    return workload is not None and workload.replicas > 0


def _progressing(this: Pass, draft: Draft) -> None:
    """Progressing, Baking or Suspended: add capacity, move weight, watch, and go on when every gate passes."""
    if this.target is not None and this.target != draft.canary.revision:
        _turn_back(this, draft)
        return
    see_weight(this, draft)
    if this.spec.replicas == 0:
        _scaled_to_zero(this, draft)
        draft.wait("ScaledToZero", "spec.replicas to be above 0")
        return
    _excuse_restarts(this, draft)
    _await_pods(this, draft)
    if suspend_if_needed(this, draft):
        return
    _say_who_holds(this, draft)
    if not resume_if_possible(this, draft):
        return
    if take_over_if_needed(this, draft) or give_back_if_well(this, draft) or _verify_first(this, draft):
        return
    rollout, step = draft.rollout, aim(this.spec, draft.rollout)
    if rollout.weight != step.weight:
        _move_weight(this, draft, step)
    elif _may_rise(this, draft) and _hold_over(this, draft):
        if rollout.step_index + 1 < len(this.spec.steps):
            passed = replace(rollout, step_index=rollout.step_index + 1, passed_time=this.now, suspensions=0)
            draft.change_rollout(passed)
        elif this.observed.available(draft.canary.revision) >= this.spec.replicas:
            _promote(this, draft)
        else:
            _wait_for_canary(this, draft, this.spec.replicas)


def _verify_first(this: Pass, draft: Draft) -> bool:
    """Take back weight that was given before anybody asked for prices; whether that was done in this pass.

    A canary that stands in for stable is compared once that is back.
    """
    rollout, steps = draft.rollout, this.spec.steps
    if this.spec.paused or rollout.return_step is not None or not has_unverified_weight(this, draft):
        return False
    if stable_cannot_answer(this, draft):
        return False
    why = "its prices are compared before it has weight"
    timeline = timeline_with(rollout, this.now, 0, "PricesBeingCompared", why)
    index = next((index for index, step in enumerate(steps) if step.weight >= rollout.weight), len(steps) - 1)
    moved = at_weight(rollout, 0, this.now, timeline=timeline, gates=unmeasured(this.judgement.gates or rollout.gates))
    draft.status = replace(draft.status, phase=Phase.PROGRESSING, rollout=replace(moved, step_index=index))
    draft.normal("PricesBeingCompared", f"revision {draft.canary.revision}: {rollout.weight}% → 0%, {why}")
    return True


def _move_weight(this: Pass, draft: Draft, step: Step) -> None:
    rollout, revision = draft.rollout, draft.canary.revision
    if step.weight > rollout.weight:
        needed = max(1, replicas_at(this.spec, step.weight))
        missing = this.observed.available(revision) < needed
        if missing:
            _wait_for_canary(this, draft, needed)
        if not _may_rise(this, draft) or not _hold_over(this, draft) or missing:
            return
        if rollout.weight == 0 and stable_cannot_answer(this, draft):
            # With any weight it would take over at once: `take_over_if_needed` has said what it waits for.
            return
        if router_of(this.spec.traffic).by_replicas and strangers(this, draft):
            draft.wait("OtherPods", "the pods of a third revision to leave: the clients' Service would select them")
            return
        if not prices_allow(this, draft):
            return
    elif only_copy(this, draft):
        draft.wait("OnlyCopy", f"a replica of {draft.stable.revision}: {revision} is the only one that can answer")
        return
    why = "AllGatesPass" if rollout.weight > 0 else "CanaryReady"
    if step.weight < rollout.weight:
        why = "StepLowered"
    draft.status = replace(
        draft.status,
        phase=Phase.BAKING if step.weight == 100 else Phase.PROGRESSING,
        rollout=at_weight(
            rollout, step.weight, this.now, timeline=timeline_with(rollout, this.now, step.weight, why),
            gates=unmeasured(this.judgement.gates or rollout.gates), hold_seconds=step.hold_seconds,
        ),
    )  # fmt: skip
    draft.normal("WeightChanged", f"revision {revision}: {rollout.weight}% → {step.weight}% ({why})")
    draft.transitions.append(Transition("advanced", revision, why))


def _say_if_unserved(this: Pass, draft: Draft) -> None:
    """What serves gets no client at all, because no Gateway serves the route."""
    split = Split(draft.stable.revision, draft.stable.revision, 0)
    seen = router_of(this.spec.traffic).seen(this.resource.name, split, this.observed)
    if not seen.unserved:
        return
    told = this.resource.status.condition("TrafficProgrammed")
    since = told.last_transition_time if told is not None and told.status == "False" else this.now
    end = min(since, this.now) + timedelta(seconds=ROUTE_SECONDS)
    text = f"a Gateway that serves the route: {seen.message}"
    if this.now < end:
        draft.wait(seen.reason, text, end)
    else:
        draft.wait(seen.reason, text, gravity=Gravity.STALLED)


def _say_who_holds(this: Pass, draft: Draft) -> None:
    """A person, an invalid spec, or a fault that is not acted on keeps the weight where it is."""
    if draft.held is not None:
        reason = draft.held.reason
        if this.spec.rollback.mode is RollbackMode.HOLD:
            command = _patch(this, '{"spec":{"rollback":{"mode":"Auto"}}}')
            text = f"a person, as rollback.mode is Hold: apply the previous spec, or have it rolled back: {command}"
            draft.wait("RollbackHeld", f"{text}; {reason}", gravity=Gravity.STALLED)
        else:
            who = f"a replica of the stable revision: {draft.canary.revision} is the only one that can answer"
            draft.wait("RollbackHeld", f"{who}; {reason}")
    elif isinstance(this.resource.spec, InvalidSpec):
        draft.wait("InvalidSpec", f"a valid spec: {'; '.join(map(str, this.resource.spec.errors))}")
    elif this.resource.deleting:
        draft.wait("Deleting", what_keeps(this.resource), gravity=Gravity.DEGRADED)
    elif this.spec.paused:
        command = _patch(this, '{"spec":{"paused":false}}')
        draft.wait("Paused", f"spec.paused to be false: {command}")


def _patch(this: Pass, patch: str) -> str:
    return f"kubectl patch pinnservice {this.resource.name} -n {this.resource.namespace} --type merge -p '{patch}'"


def _may_rise(this: Pass, draft: Draft) -> bool:
    """The present weight was seen in force, and whatever was measured at it in this very pass is good."""
    rollout = draft.rollout
    if this.spec.paused or draft.held is not None:
        return False
    if rollout.programmed_time is None or (rollout.weight > 0 and not weight_in_force(this, draft)):
        # Also a weight that was in force: the route may have lost its Gateway, or have been given another one.
        reason, message = why_not_in_force(this, draft)
        late = this.now >= _not_in_force_since(this, draft) + timedelta(seconds=ROUTE_SECONDS)
        draft.wait(reason, message, gravity=Gravity.STALLED if late else Gravity.NORMAL)
        return False
    # What this pass judged was measured at the weight that it found, and not at one that it has just written or seen.
    at_this_moment = rollout.passed_time == this.now and not this.judgement.asked
    passed = (this.judgement.all_pass or at_this_moment) and this.now > rollout.programmed_time
    if passed and rollout.weight == 100 and unanswered(this, draft):
        draft.wait("Analysis", "an answer of the canary's pods: clients get none any more, or it failed the operator")
        return False
    if rollout.weight == 0 or passed:
        return True
    kept_away = _kept_away(this)
    waiting = [kept_away] if kept_away else [f"{gate.name}: {gate.message}" for gate in rollout.gates if gate.holds]
    over = rollout.programmed_time + timedelta(seconds=hold_of(this.spec, rollout))
    late = this.now > over + timedelta(seconds=this.spec.analysis.deadline_seconds)
    if not waiting and this.now < over:
        draft.wait("Hold", f"the end of the hold at {rollout.weight}%", over)
    elif late:
        why = "; ".join(waiting) or "no gate was judged"
        text = f"{why}; {rollout.weight}% since {rollout.programmed_time:%H:%M:%S}"
        draft.wait("AnalysisDeadlineExceeded", text, gravity=Gravity.STALLED)
    elif kept_away:
        draft.wait("ConnectionsKept", kept_away, gravity=Gravity.DEGRADED)
    else:
        until = over if over > this.now else None
        draft.wait("Analysis", "; ".join(waiting) or "the next judgement of all gates", until)
    return False


def _not_in_force_since(this: Pass, draft: Draft) -> datetime:
    if draft.rollout.programmed_time is None:
        return draft.rollout.weight_time
    said = draft.status.condition("TrafficProgrammed")
    return this.now if said is None or said.status != "False" else said.last_transition_time


def _kept_away(this: Pass) -> str:
    """What is waited for, and the way out, if no client has connected to the canary's pods; empty if one has."""
    arriving = this.judgement.arrival
    if arriving is None or not arriving.kept_away:
        return ""
    return (
        f"new connections: clients keep those to stable's pods, the canary got {arriving}. Restart the clients, limit "
        f"how long they keep a connection, or set spec.traffic.router"
    )


def _hold_over(this: Pass, draft: Draft) -> bool:
    """The present weight was in force for as long as it is to be held, whatever the list of steps says by now."""
    rollout = draft.rollout
    if rollout.weight == 0:
        return True
    assert rollout.programmed_time is not None
    over = rollout.programmed_time + timedelta(seconds=hold_of(this.spec, rollout))
    if this.now < over:
        draft.wait("Hold", f"the end of the hold at {rollout.weight}%", over)
        return False
    return True


def _expected_from(this: Pass, rollout: RolloutStatus) -> datetime:
    """When the replicas of the next step were to be expected at the earliest."""
    if rollout.weight == 0 or rollout.programmed_time is None:
        return rollout.weight_time
    return rollout.programmed_time + timedelta(seconds=hold_of(this.spec, rollout))


def _wait_for_canary(this: Pass, draft: Draft, needed: int) -> None:
    revision = draft.canary.revision
    since = missing_since(this.observed, revision, _expected_from(this, draft.rollout))
    _wait_for_replicas(this, draft, revision, needed, since)


def _wait_for_replicas(this: Pass, draft: Draft, revision: str, needed: int, since: datetime) -> None:
    """In the words of whoever keeps the replicas away. `since` is when they were first to be expected."""
    found, waited = trouble(this.observed, revision), (this.now - since).total_seconds()
    text = f"{this.observed.available(revision)} of {needed} replicas of {revision} are available"
    if found is not None:
        late = waited >= patience_with(found.reason, this.spec.rollback)
        gravity = Gravity.STALLED if late else Gravity.DEGRADED
        draft.wait(found.reason, f"{found.text}; {text}", gravity=gravity)
        return
    if waited >= TROUBLE_SECONDS:
        text = "; ".join(filter(None, [state_of(this.observed, revision), text]))
    if waited >= this.spec.rollback.ready_deadline_seconds:
        draft.wait("ReplicasLate", text, gravity=Gravity.STALLED)
    else:
        draft.wait("ReplicasStarting", text)


def _excuse_restarts(this: Pass, draft: Draft) -> None:
    """Remember ends that the containers did not cause: of each container only the last can be seen."""
    rollout, revision = draft.rollout, draft.canary.revision
    known = {item.pod: item.restarts for item in rollout.excused}
    found = merged(known, ends_of_others(this.observed, revision))
    living = {pod.name for pod in this.observed.pods_of(revision)}
    excused = tuple(ExcusedRestarts(pod, count) for pod, count in sorted(found.items()) if pod in living)
    if excused != rollout.excused:
        draft.change_rollout(replace(rollout, excused=excused[:EXCUSED_LIMIT]))


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
    timeline = timeline_with(rollout, this.now, 0, "ScaledToZero")
    draft.status = replace(
        draft.status,
        phase=Phase.PROGRESSING,
        rollout=replace(
            at_weight(rollout, 0, this.now, timeline=timeline, gates=unmeasured(rollout.gates)),
            step_index=0,
            suspension=None,
            return_step=None,
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
    if serve_again_if_needed(this, draft):
        return
    if rollout.weight > 0:
        if selectors_in_place(this, draft) and this.now >= rollout.weight_time + timedelta(seconds=SWITCH_SECONDS):
            draft.change_rollout(at_weight(rollout, 0, this.now, timeline=rollout.timeline))
            return
        draft.wait("SwitchPending", f"both Services to select {draft.stable.revision}")
        return
    see_weight(this, draft)
    see_silence(this, draft, old.revision)
    seconds = this.spec.rollback.drain_seconds
    if drained_at(draft.rollout, seconds) <= this.now:
        if keeps_capacity(this, draft, old.revision):
            return
        draft.normal("CapacityRemoved", f"revision {old.revision} has no more traffic")
        draft.status = replace(draft.status, phase=Phase.STABLE, previous=None, rollout=None)
        return
    _wait_for_silence(this, draft, old.revision, seconds)


def _wait_for_silence(this: Pass, draft: Draft, revision: str, seconds: int) -> None:
    """`seconds` are how long its pods stay after that, for requests in flight or for a look at them."""
    if draft.rollout.programmed_time is None:
        draft.wait(*why_not_in_force(this, draft))
    elif draft.rollout.still_time is None:
        draft.wait("StillAnswering", f"silence of the request counters of {revision}")
    else:
        what = "the end of the drain" if seconds <= this.spec.rollback.drain_seconds else (
            f"the end of the time for a look at the pods of {revision} (rollback.scaleDownDelaySeconds)"
        )  # fmt: skip
        draft.wait("Draining", f"{what}, {seconds} s after the last request", drained_at(draft.rollout, seconds))


def _turn_back(this: Pass, draft: Draft) -> None:
    """The spec names the stable revision again, or a third one: back to stable at once."""
    rollout, canary = draft.rollout, draft.canary
    reason = "ReturnedToStable" if this.target == draft.stable.revision else "Superseded"
    message = f"the spec now asks for {this.target}"
    if waits_until_well(this, draft):
        return
    if only_copy(this, draft):
        if this.target != draft.stable.revision and not draft.stable.fault and not this.spec.paused:
            stand_in(this, draft, message)
            return
        draft.held = draft.held or Condemnation(reason=reason, message=message)
        _say_who_holds(this, draft)
        return
    draft.held = None
    had_weight = rollout.weight > 0 or rollout.suspension is not None
    draft.status = replace(
        draft.status,
        phase=Phase.ROLLING_BACK,
        rejected=None,
        rollout=replace(
            at_weight(rollout, 0, this.now, timeline=timeline_with(rollout, this.now, 0, reason, message)),
            suspension=None, return_step=None,
        ),
    )  # fmt: skip
    if not had_weight:
        draft.change_rollout(replace(draft.rollout, still_time=this.now))
    draft.remember(canary, "Superseded", rollout.start_time, this.now, message)
    draft.normal(reason, f"revision {canary.revision} leaves from {rollout.weight}%: {message}")
    draft.transitions.append(Transition("superseded", canary.revision, reason))


def _rolling_back(this: Pass, draft: Draft) -> None:
    """Weight 0 is written; see it in force, drain, and only then remove capacity."""
    if serve_again_if_needed(this, draft):
        return
    see_weight(this, draft)
    status, revision = draft.status, draft.canary.revision
    rejected = status.rejected if status.rejected and status.rejected.revision == revision else None
    if draft.rollout.still_time is None and (rejected and rejected.weight == 0):
        draft.change_rollout(replace(draft.rollout, still_time=this.now))
    see_silence(this, draft, revision)
    if rejected is not None and _connections_outlive_the_drain(this, draft):
        note_rollback(draft, lambda record: replace(record, capacity_removed_time=this.now))
        draft.status = replace(draft.status, phase=Phase.ROLLED_BACK, rollout=None)
        text = f"revision {revision} is scaled down after the drain: clients keep connections to its pods"
        draft.normal("CapacityRemoved", text)
        return
    still = draft.rollout.still_time
    if still is not None and rejected is not None and rejected.weight_zero_time is None:
        note_rollback(draft, lambda record: replace(record, weight_zero_time=still))
        if rejected.weight > 0:
            draft.normal("TrafficRemoved", f"revision {revision} answers no more requests")
    wait = this.spec.rollback.drain_seconds
    if rejected is not None and this.target in (revision, None):
        wait = max(wait, this.spec.rollback.scale_down_delay_seconds)
    if drained_at(draft.rollout, wait) > this.now:
        _wait_for_silence(this, draft, revision, wait)
        return
    if keeps_capacity(this, draft, revision):
        return
    if rejected is not None:
        note_rollback(draft, lambda record: replace(record, capacity_removed_time=this.now))
        draft.status = replace(draft.status, phase=Phase.ROLLED_BACK, rollout=None)
    else:
        draft.status = replace(draft.status, phase=Phase.STABLE, canary=None, rollout=None)
    draft.normal("CapacityRemoved", f"revision {revision} is scaled down")


def _connections_outlive_the_drain(this: Pass, draft: Draft) -> bool:
    """Without a router a Service that selects other pods ends no connection: only the end of a bad pod does."""
    rollout = draft.rollout
    if (
        not router_of(this.spec.traffic).by_replicas
        or rollout.still_time is not None
        or rollout.programmed_time is None
    ):
        return False
    over = rollout.programmed_time + timedelta(seconds=this.spec.rollback.drain_seconds)
    return this.now >= over and this.observed.available(draft.stable.revision) > 0


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
