"""Where a rollout is decided: one pure function from what is wanted, known and seen to what is done next.

`decide` looks at a rollback first (`_condemn_if_bad`), then lets the rollout take as many steps as this pass allows
(`_STEPS`, one function per phase), and last derives the objects that shall exist. It never does anything: the
reconciler commits the status, then acts, then tells.

    Pending ──► Stable ──► Progressing ──► Baking ──► Promoting ──► Stable
                              │   ▲           │
                              ▼   │ new spec  ▼
                          RollingBack ──► RolledBack | Stable
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pinn_operator.core.accepted import accepted_spec
from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Decision, Event, EventType, Transition
from pinn_operator.core.judgement import Condemnation, Judgement, judge
from pinn_operator.core.measurement import stands_still
from pinn_operator.core.observed import Observed
from pinn_operator.core.outcome import aim, desired, replicas_at, requeue_at
from pinn_operator.core.plan import plan
from pinn_operator.core.questions import STILL_COUNTS, STILL_SCRAPES
from pinn_operator.core.render import canary_service_name, selector_of, stable_service_name
from pinn_operator.core.report import report
from pinn_operator.core.revision import revision_of
from pinn_operator.core.samples import Samples
from pinn_operator.core.spec import InvalidSpec, RollbackMode, RouterKind, Spec, Step
from pinn_operator.core.status import (
    HISTORY_LIMIT,
    MESSAGE_LIMIT,
    TIMELINE_LIMIT,
    GateStatus,
    HistoryEntry,
    Phase,
    RevisionStatus,
    RollbackStatus,
    RolloutStatus,
    Status,
    TimelineEntry,
    Verdict,
)
from pinn_operator.core.triggers import pod_failure

SWITCH_SECONDS = 5.0
"""After the Services select the promoted revision, this long until weight returns to `<name>-stable`: the router must
have seen the new endpoints first."""
UNPROVEN_SECONDS = 30.0
"""How long silence is waited for when no metric can prove it. Above the 16 s for which a restarted router was seen to
serve old weights under a current status."""
UNSILENT_SECONDS = 300.0
"""After this long at weight 0 capacity goes even though somebody still sends requests past the router."""
_MAX_STEPS_PER_PASS = 8


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass decides by."""

    resource: Resource
    spec: Spec
    target: str | None
    """Revision of the spec; None while the spec is invalid."""
    observed: Observed
    samples: Samples
    judgement: Judgement
    blocked: Condemnation | None
    """A fault for which the canary should go, but must or may not."""
    now: datetime

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.spec.steps


@dataclass(slots=True)
class _Draft:
    """The next status in the making, and what is to be told of it."""

    status: Status
    events: list[Event] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)

    def normal(self, reason: str, message: str) -> None:
        self.events.append(Event(EventType.NORMAL, reason, message[:MESSAGE_LIMIT]))

    def warning(self, reason: str, message: str) -> None:
        self.events.append(Event(EventType.WARNING, reason, message[:MESSAGE_LIMIT]))

    @property
    def rollout(self) -> RolloutStatus:
        assert self.status.rollout is not None
        return self.status.rollout

    @property
    def stable(self) -> RevisionStatus:
        assert self.status.stable is not None
        return self.status.stable

    @property
    def canary(self) -> RevisionStatus:
        assert self.status.canary is not None
        return self.status.canary


def decide(resource: Resource, observed: Observed, samples: Samples, now: datetime) -> Decision:
    """What this pass does.

    Args:
        resource: the PINNService as read in this pass, status included.
        observed: its children as read in this pass.
        samples: answers to `pinn_operator.core.questions.due`; an absent key was not asked.
        now: the moment of the pass, timezone-aware.

    Returns:
        The next status, the writes that are missing for it, what to tell, and when to look again. The same arguments
        with the returned status in place of the old one decide nothing new.
    """
    if resource.deleting:
        return Decision(status=resource.status)
    spec = accepted_spec(resource, observed)
    if spec is None:
        return Decision(status=report(resource, None, observed, resource.status, Judgement(gates=()), None, now))
    target = None if isinstance(resource.spec, InvalidSpec) else revision_of(resource.spec.serving)
    judgement = _judge(resource, spec, samples, now)
    draft = _Draft(resource.status)
    blocked = _condemn_if_bad(draft, spec, observed, judgement, now)
    this = _Pass(resource, spec, target, observed, samples, judgement, blocked, now)
    if target is not None:
        draft.status = replace(draft.status, target=target)
    for _ in range(_MAX_STEPS_PER_PASS):
        before = draft.status
        _STEPS[before.phase](this, draft)
        if draft.status == before:
            break
    _keep_measurements(this, draft)
    status = report(resource, spec, observed, draft.status, judgement, blocked, now)
    status = replace(status, observed_generation=resource.generation)
    return Decision(
        status=status,
        actions=plan(resource, desired(resource, spec, target, observed, status), observed) if status.stable else (),
        events=tuple(draft.events),
        transitions=tuple(draft.transitions),
        requeue_at=requeue_at(spec, observed, status, now),
    )


# --- the rollback, first of all ---------------------------------------------------------------------------------------


def _judge(resource: Resource, spec: Spec, samples: Samples, now: datetime) -> Judgement:
    status, rollout = resource.status, resource.status.rollout
    if status.phase not in (Phase.PROGRESSING, Phase.BAKING) or not (rollout and status.canary and status.stable):
        return Judgement(gates=rollout.gates if rollout else ())
    return judge(
        analysis=spec.analysis, name=resource.name, canary=status.canary.revision, stable=status.stable.revision,
        hold_seconds=float(aim(spec, rollout).hold_seconds), previous=rollout.gates,
        samples=samples if rollout.weight > 0 else {}, now=now,
    )  # fmt: skip


def _condemn_if_bad(
    draft: _Draft, spec: Spec, observed: Observed, judgement: Judgement, now: datetime
) -> Condemnation | None:
    """Take a failing canary out of traffic, whatever else this pass would do.

    Returns:
        The fault, if it is not acted on: `rollback.mode: Hold`, or the canary is the only healthy copy.
    """
    status = draft.status
    if status.phase not in (Phase.PROGRESSING, Phase.BAKING):
        return None
    rollout, canary = draft.rollout, draft.canary
    fault = (
        pod_failure(
            observed, canary.revision, weight=rollout.weight, rollback=spec.rollback, now=now,
            rollout_start=rollout.start_time,
        )
        or judgement.condemnation
    )  # fmt: skip
    if fault is None:
        return None
    only_copy = observed.available(draft.stable.revision) == 0 and observed.available(canary.revision) > 0
    if spec.rollback.mode is RollbackMode.HOLD or (only_copy and rollout.weight > 0):
        return fault
    timeline = _timeline(rollout, now, 0, fault.reason, fault.message)
    record = RollbackStatus(
        revision=canary.revision, image=canary.image, time=now, reason=fault.reason,
        message=fault.message[:MESSAGE_LIMIT], gate=fault.gate, value=fault.value, limit=fault.limit,
        weight=rollout.weight, timeline=timeline, gates=judgement.gates,
        pods=tuple(_describe_pods(observed, canary.revision)),
    )  # fmt: skip
    draft.status = replace(
        status,
        phase=Phase.ROLLING_BACK,
        rejected=record,
        last_rollback=record,
        rollout=_at_weight(rollout, 0, now, timeline=timeline, gates=judgement.gates),
    )
    _remember(draft, canary, "RolledBack", rollout.start_time, now, f"{fault.reason}: {fault.message}")
    draft.warning(fault.reason, f"revision {canary.revision} rolled back from {rollout.weight}%: {fault.message}")
    draft.transitions.append(Transition("rolled_back", canary.revision, fault.reason))
    return None


def _describe_pods(observed: Observed, revision: str) -> list[str]:
    lines = []
    for pod in sorted(observed.pods_of(revision), key=lambda pod: pod.name)[:10]:
        state = "ready" if pod.ready else (pod.waiting_reason or pod.phase)
        ended = f", ended {pod.termination.reason} ({pod.termination.exit_code})" if pod.termination else ""
        lines.append(f"{pod.name}: {state}, {pod.restarts} restarts{ended}"[:250])
    return lines


# --- one function per phase -------------------------------------------------------------------------------------------


def _pending(this: _Pass, draft: _Draft) -> None:
    """Nothing has served yet, so nothing can be lost: the newest revision takes the place at once."""
    status = draft.status
    if this.target is None:
        return
    if status.stable is None or status.stable.revision != this.target:
        draft.status = replace(status, stable=_revision(this), canary=None, rollout=None, rejected=None)
        draft.normal("InitialRevision", f"revision {this.target} is the first to serve")
    elif this.observed.available(this.target) > 0 or this.spec.replicas == 0:
        draft.status = replace(status, phase=Phase.STABLE)
        draft.normal("RevisionServing", f"revision {this.target} serves")


def _settled(this: _Pass, draft: _Draft) -> None:
    """Stable or RolledBack: start a rollout when the spec names another revision than runs or was rejected."""
    status = draft.status
    if this.target is None:
        return
    if status.rejected is not None and status.rejected.revision == this.target:
        draft.status = replace(status, phase=Phase.ROLLED_BACK)
        return
    if this.target == draft.stable.revision:
        draft.status = replace(status, phase=Phase.STABLE, canary=None, rejected=None, rollout=None)
        return
    if this.spec.replicas == 0:
        draft.status = replace(status, phase=Phase.STABLE, stable=_revision(this), canary=None, rejected=None)
        return
    steps = " → ".join(f"{step.weight}%" for step in this.steps)
    entry = TimelineEntry(this.now, 0, "RolloutStarted", f"from {draft.stable.revision}, steps {steps}"[:MESSAGE_LIMIT])
    draft.status = replace(
        status,
        phase=Phase.PROGRESSING,
        canary=_revision(this),
        rejected=None,
        rollout=RolloutStatus(
            start_time=this.now, step_index=0, weight=0, weight_time=this.now, steps=len(this.steps), timeline=(entry,)
        ),
    )
    draft.normal("RolloutStarted", f"revision {this.target} from {draft.stable.revision}, steps {steps}")
    draft.transitions.append(Transition("started", this.target, "RolloutStarted"))


def _progressing(this: _Pass, draft: _Draft) -> None:
    """Progressing or Baking: add capacity, move weight, watch, and go on when every gate passes."""
    if this.target is not None and this.target != draft.canary.revision:
        _turn_back(this, draft)
        return
    _see_weight(this, draft)
    rollout, step = draft.rollout, aim(this.spec, draft.rollout)
    if rollout.weight != step.weight:
        _move_weight(this, draft, step)
    elif _may_rise(this) and _hold_over(rollout, step, this.now):
        if rollout.step_index + 1 < len(this.steps):
            draft.status = replace(
                draft.status, rollout=replace(rollout, step_index=rollout.step_index + 1, passed_time=this.now)
            )
        elif this.observed.available(draft.canary.revision) >= this.spec.replicas:
            _promote(this, draft)


def _move_weight(this: _Pass, draft: _Draft, step: Step) -> None:
    rollout, revision = draft.rollout, draft.canary.revision
    if step.weight > rollout.weight:
        if this.spec.paused or this.blocked is not None:
            return
        if rollout.weight > 0 and not this.judgement.all_pass:
            return
        if this.observed.available(revision) < max(1, replicas_at(this.spec, step.weight)):
            return
        if this.spec.traffic.router is RouterKind.REPLICAS and _strangers(this, draft):
            return
    why = "AllGatesPass" if rollout.weight > 0 else "CanaryReady"
    if step.weight < rollout.weight:
        why = "StepLowered"
    draft.status = replace(
        draft.status,
        phase=Phase.BAKING if step.weight == 100 else Phase.PROGRESSING,
        rollout=_at_weight(
            rollout, step.weight, this.now, timeline=_timeline(rollout, this.now, step.weight, why),
            gates=_references_of(this.judgement.gates or rollout.gates),
        ),
    )  # fmt: skip
    draft.normal("WeightChanged", f"revision {revision}: {rollout.weight}% → {step.weight}% ({why})")
    draft.transitions.append(Transition("advanced", revision, why))


def _may_rise(this: _Pass) -> bool:
    return this.judgement.all_pass and this.blocked is None and not this.spec.paused


def _hold_over(rollout: RolloutStatus, step: Step, now: datetime) -> bool:
    seen = rollout.programmed_time
    return seen is not None and now >= seen + timedelta(seconds=step.hold_seconds)


def _promote(this: _Pass, draft: _Draft) -> None:
    """The pointer moves; the warm canary pods become the stable ones and none is restarted."""
    rollout, canary, old = draft.rollout, draft.canary, draft.stable
    draft.status = replace(
        draft.status,
        phase=Phase.PROMOTING,
        stable=canary,
        previous=old,
        canary=None,
        rejected=None,
        rollout=replace(
            rollout, weight_time=this.now, programmed_time=None, still_time=None,
            timeline=_timeline(rollout, this.now, 100, "Promoted"),
        ),
    )  # fmt: skip
    _remember(draft, canary, "Promoted", rollout.start_time, this.now, f"replaces {old.revision}")
    draft.normal("Promoted", f"revision {canary.revision} is stable, it replaces {old.revision}")
    draft.transitions.append(Transition("promoted", canary.revision, "AllGatesPass"))


def _promoting(this: _Pass, draft: _Draft) -> None:
    """Both Services select the promoted revision; give `-stable` all weight again, then let the old capacity go."""
    rollout, old = draft.rollout, draft.status.previous
    assert old is not None
    if rollout.weight > 0:
        if _selectors_in_place(this, draft) and this.now >= rollout.weight_time + timedelta(seconds=SWITCH_SECONDS):
            draft.status = replace(draft.status, rollout=_at_weight(rollout, 0, this.now, timeline=rollout.timeline))
        return
    _see_weight(this, draft)
    _see_silence(this, draft, old.revision)
    if _drained(draft.rollout, this.spec.rollback.drain_seconds, this.now):
        draft.normal("CapacityRemoved", f"revision {old.revision} has no more traffic")
        draft.status = replace(draft.status, phase=Phase.STABLE, previous=None, rollout=None)


def _turn_back(this: _Pass, draft: _Draft) -> None:
    """The spec names the stable revision again, or a third one: back to stable at once."""
    rollout, canary = draft.rollout, draft.canary
    reason = "ReturnedToStable" if this.target == draft.stable.revision else "Superseded"
    message = f"the spec now asks for {this.target}"
    draft.status = replace(
        draft.status,
        phase=Phase.ROLLING_BACK,
        rejected=None,
        rollout=_at_weight(rollout, 0, this.now, timeline=_timeline(rollout, this.now, 0, reason, message)),
    )
    if rollout.weight == 0:
        draft.status = replace(draft.status, rollout=replace(draft.rollout, still_time=this.now))
    _remember(draft, canary, "Superseded", rollout.start_time, this.now, message)
    draft.normal(reason, f"revision {canary.revision} leaves from {rollout.weight}%: {message}")
    draft.transitions.append(Transition("superseded", canary.revision, reason))


def _rolling_back(this: _Pass, draft: _Draft) -> None:
    """Weight 0 is written; see it in force, drain, and only then remove capacity."""
    _see_weight(this, draft)
    status, revision = draft.status, draft.canary.revision
    rejected = status.rejected if status.rejected and status.rejected.revision == revision else None
    if draft.rollout.still_time is None and (rejected and rejected.weight == 0):
        draft.status = replace(status, rollout=replace(draft.rollout, still_time=this.now))
    _see_silence(this, draft, revision)
    still = draft.rollout.still_time
    if still is not None and rejected is not None and rejected.weight_zero_time is None:
        rejected = replace(rejected, weight_zero_time=still)
        draft.status = replace(draft.status, rejected=rejected, last_rollback=rejected)
        draft.normal("TrafficRemoved", f"revision {revision} answers no more requests")
    wait = this.spec.rollback.drain_seconds
    if rejected is not None and this.target in (revision, None):
        wait = max(wait, this.spec.rollback.scale_down_delay_seconds)
    if not _drained(draft.rollout, wait, this.now):
        return
    if rejected is not None:
        rejected = replace(rejected, capacity_removed_time=this.now)
        draft.status = replace(draft.status, last_rollback=rejected, rejected=rejected)
        draft.status = replace(draft.status, phase=Phase.ROLLED_BACK, rollout=None)
    else:
        draft.status = replace(draft.status, phase=Phase.STABLE, canary=None, rollout=None)
    draft.normal("CapacityRemoved", f"revision {revision} is scaled down")


_STEPS: dict[Phase, Callable[[_Pass, _Draft], None]] = {
    Phase.PENDING: _pending,
    Phase.STABLE: _settled,
    Phase.ROLLED_BACK: _settled,
    Phase.PROGRESSING: _progressing,
    Phase.BAKING: _progressing,
    Phase.PROMOTING: _promoting,
    Phase.ROLLING_BACK: _rolling_back,
}


# --- what was seen ----------------------------------------------------------------------------------------------------


def _see_weight(this: _Pass, draft: _Draft) -> None:
    """Note when the router has taken the wanted weight up; notice when somebody else changed it."""
    rollout = draft.rollout
    in_force = _weight_in_force(this, draft)
    if rollout.programmed_time is None and in_force:
        draft.status = replace(draft.status, rollout=replace(rollout, programmed_time=this.now))
    elif rollout.programmed_time is not None and rollout.weight > 0 and (live := _foreign_weight(this, draft)):
        # What was measured under another weight proves nothing: the window and the hold start again.
        draft.status = replace(
            draft.status,
            rollout=_at_weight(
                rollout, rollout.weight, this.now, gates=_references_of(rollout.gates),
                timeline=_timeline(rollout, this.now, rollout.weight, "WeightRepaired", live),
            ),
        )  # fmt: skip
        draft.warning("WeightRepaired", f"{live}; it is {rollout.weight}% again")


def _weight_in_force(this: _Pass, draft: _Draft) -> bool:
    if this.spec.traffic.router is RouterKind.REPLICAS:
        return _selectors_in_place(this, draft)
    route = this.observed.route
    return (
        route is not None
        and route.programmed
        and dict(route.weights) == _wanted_weights(this.resource.name, draft.rollout.weight)
        and _selectors_in_place(this, draft)
    )


def _foreign_weight(this: _Pass, draft: _Draft) -> str:
    route, weight = this.observed.route, draft.rollout.weight
    if this.spec.traffic.router is RouterKind.REPLICAS:
        return "" if _selectors_in_place(this, draft) else "the Service's selector was changed by someone else"
    if route is None:
        return "the HTTPRoute was deleted by someone else"
    if dict(route.weights) == _wanted_weights(this.resource.name, weight):
        return ""
    live = route.weights.get(canary_service_name(this.resource.name), 0)
    return f"the canary's weight was changed to {live} by someone else"


def _wanted_weights(name: str, weight: int) -> dict[str, int]:
    return {stable_service_name(name): 100 - weight, canary_service_name(name): weight}


def _selectors_in_place(this: _Pass, draft: _Draft) -> bool:
    """The Services select what they shall, as far as traffic depends on them."""
    status, selectors, name = draft.status, this.observed.selectors, this.resource.name
    stable = selector_of(name, draft.stable.revision)
    canary = selector_of(name, status.canary.revision) if status.canary else stable
    wanted = {stable_service_name(name): stable, canary_service_name(name): canary, name: stable}
    if this.spec.traffic.router is RouterKind.REPLICAS and draft.rollout.weight > 0:
        wanted[name] = canary if draft.rollout.weight == 100 else selector_of(name)
    return all(dict(selectors.get(service, {})) == selector for service, selector in wanted.items())


def _see_silence(this: _Pass, draft: _Draft, revision: str) -> None:
    """Note when the revision's own request counters were seen to stand still."""
    rollout = draft.rollout
    if rollout.still_time is not None or rollout.programmed_time is None:
        return
    waited = (this.now - rollout.programmed_time).total_seconds()
    proof: bool | None = False
    if STILL_COUNTS in this.samples and STILL_SCRAPES in this.samples:
        proof = stands_still(this.samples[STILL_COUNTS], this.samples[STILL_SCRAPES])
    silent = (
        proof is True
        or this.observed.available(revision) == 0
        or (proof is None and waited >= UNPROVEN_SECONDS)
        or waited >= UNSILENT_SECONDS
    )
    if silent:
        draft.status = replace(draft.status, rollout=replace(rollout, still_time=this.now))


def _drained(rollout: RolloutStatus, seconds: float, now: datetime) -> bool:
    return (
        rollout.still_time is not None
        and rollout.programmed_time is not None
        and now >= rollout.still_time + timedelta(seconds=seconds)
    )


def _strangers(this: _Pass, draft: _Draft) -> bool:
    """Pods of a third revision would be selected by a Service that selects both revisions."""
    known = {draft.stable.revision, draft.canary.revision}
    return any(pod.revision not in known for pod in this.observed.pods)


def _keep_measurements(this: _Pass, draft: _Draft) -> None:
    """Take the judged gates into the status, but not more often than asked for: a pass without news writes nothing."""
    rollout, judged = draft.status.rollout, this.judgement
    if rollout is None or not judged.asked or draft.status.phase not in (Phase.PROGRESSING, Phase.BAKING):
        return
    if rollout.programmed_time is None or rollout.weight == 0:
        return
    last = max((gate.time for gate in rollout.gates if gate.time is not None), default=None)
    recent = last is not None and timedelta(0) <= this.now - last < timedelta(
        seconds=this.spec.analysis.interval_seconds
    )
    if recent and [_essence(gate) for gate in rollout.gates] == [_essence(gate) for gate in judged.gates]:
        return
    share = judged.observed_share
    draft.status = replace(
        draft.status,
        rollout=replace(
            rollout, gates=judged.gates, observed_share=None if share is None else round(share, 1),
            passed_time=this.now if judged.all_pass else rollout.passed_time,
        ),
    )  # fmt: skip


def _essence(gate: GateStatus) -> tuple[str, Verdict, datetime | None, int]:
    return gate.name, gate.verdict, gate.failing_since, gate.consecutive


# --- parts ------------------------------------------------------------------------------------------------------------


def _revision(this: _Pass) -> RevisionStatus:
    assert this.target is not None
    return RevisionStatus(this.target, str(this.spec.serving.get("image", "")), this.now)


def _at_weight(
    rollout: RolloutStatus, weight: int, now: datetime, *, timeline: tuple[TimelineEntry, ...],
    gates: tuple[GateStatus, ...] | None = None,
) -> RolloutStatus:  # fmt: skip
    return replace(
        rollout, weight=weight, weight_time=now, programmed_time=None, still_time=None, passed_time=None,
        observed_share=None, timeline=timeline, gates=rollout.gates if gates is None else gates,
    )  # fmt: skip


def _references_of(gates: tuple[GateStatus, ...]) -> tuple[GateStatus, ...]:
    """Gates as they begin at a new weight: nothing measured, but stable's figures remembered for the bake."""
    return tuple(
        GateStatus(
            name=gate.name, verdict=Verdict.NO_DATA, min_samples=gate.min_samples,
            reference_total=gate.reference_total, reference_bad=gate.reference_bad,
            reference_threshold=gate.reference_threshold,
        )
        for gate in gates
    )  # fmt: skip


def _timeline(
    rollout: RolloutStatus, now: datetime, weight: int, reason: str, message: str = ""
) -> tuple[TimelineEntry, ...]:
    return (*rollout.timeline, TimelineEntry(now, weight, reason, message[:256]))[-TIMELINE_LIMIT:]


def _remember(
    draft: _Draft, revision: RevisionStatus, outcome: str, start: datetime, now: datetime, message: str
) -> None:
    entry = HistoryEntry(revision.revision, revision.image, outcome, start, now, message[:256])
    draft.status = replace(draft.status, history=(*draft.status.history, entry)[-HISTORY_LIMIT:])
