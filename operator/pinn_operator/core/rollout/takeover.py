"""When the stable revision cannot answer and the canary can: what can answer gets the traffic.

The canary takes all of it at once, and goes back to its step when stable has been well for a while. A third revision
never waits for a dead stable one: the canary then stands in as stable.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from pinn_operator.core.decision import Transition
from pinn_operator.core.observed import Pod
from pinn_operator.core.rollout.draft import Draft, Pass, at_weight, timeline_with, unmeasured
from pinn_operator.core.rollout.prices import compare_once_stable_is_back, may_stay_beside_stable, prices_allow_all
from pinn_operator.core.rollout.rollback import pod_fault
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.status.values import MESSAGE_LIMIT, Phase, RevisionStatus
from pinn_operator.core.text import cut

UNANSWERED_SECONDS = 5.0
"""For this long no pod of stable must have been ready before a canary that never had traffic gets all of it."""
STEADY_SECONDS = 30.0
"""For this long every replica of stable must have been ready before the canary gives traffic back."""


def stable_cannot_answer(this: Pass, draft: Draft) -> bool:
    """No replica of stable can answer, or stable is a revision that should have left and serves for want of another."""
    if this.spec.replicas == 0:
        return False
    return not this.observed.can_answer(draft.stable.revision) or bool(draft.stable.fault)


def take_over_if_needed(this: Pass, draft: Draft) -> bool:
    """Give the canary all traffic when stable cannot answer; whether that was done in this pass."""
    rollout, canary, stable = draft.rollout, draft.canary, draft.stable
    if rollout.weight == 100 or this.spec.paused or rollout.suspension is not None:
        return False
    if not stable_cannot_answer(this, draft) or this.observed.available(canary.revision) == 0:
        return False
    if rollout.weight == 0 and rollout.programmed_time is None:
        return False
    if rollout.weight == 0 and (until := _down_for_long_at(this, draft)) > this.now:
        draft.wait("StableUnavailable", f"a replica of {stable.revision}", until, Gravity.DEGRADED)
        return False
    if rollout.weight == 0 and not prices_allow_all(this, draft):
        return False
    why = f"{stable.revision} cannot answer" if not stable.fault else f"{stable.revision} should leave: {stable.fault}"
    draft.warning("StableUnavailable", f"revision {canary.revision}: {rollout.weight}% → 100%, {why}")
    _give_all(this, draft, canary, why, return_step=rollout.step_index)
    return True


def give_back_if_well(this: Pass, draft: Draft) -> bool:
    """Return to the step before the take-over once stable is steadily well; whether that was done in this pass."""
    rollout = draft.rollout
    if rollout.return_step is None or this.spec.paused or not _steady(this, draft):
        return False
    index = min(rollout.return_step, len(this.spec.steps) - 1)
    # Prices that nobody could compare are compared now, and before any weight; those that differ get none.
    weight = this.spec.steps[index].weight if may_stay_beside_stable(this, draft) else 0
    timeline = timeline_with(rollout, this.now, weight, "StableIsBack", f"{draft.stable.revision} answers again")
    moved = at_weight(
        rollout, weight, this.now, timeline=timeline, gates=unmeasured(rollout.gates),
        hold_seconds=this.spec.steps[index].hold_seconds,
    )  # fmt: skip
    phase = Phase.BAKING if weight == 100 else Phase.PROGRESSING
    draft.status = replace(draft.status, phase=phase, rollout=replace(moved, step_index=index, return_step=None))
    compare_once_stable_is_back(this, draft)
    draft.normal("StableIsBack", f"revision {draft.canary.revision}: 100% → {weight}%, its step begins anew")
    return True


def serve_again_if_needed(this: Pass, draft: Draft) -> bool:
    """Give all traffic back to a revision that leaves, if what should serve cannot; whether that was done in this pass.

    Neither one that was rejected gets it, nor one whose prices nobody has compared. One that had all of it until it was
    replaced gets it at once.
    """
    status, stable = draft.status, draft.stable
    leaving = status.previous if status.phase is Phase.PROMOTING else status.canary
    if leaving is None or status.rejected is not None or this.spec.paused or this.target is None:
        return False
    if not _is_the_only_one(this, draft, leaving.revision):
        return False
    if status.phase is not Phase.PROMOTING and (
        _down_for_long_at(this, draft) > this.now or not may_stay_beside_stable(this, draft)
    ):
        return False
    why = f"{stable.revision} cannot answer"
    draft.warning("StableUnavailable", f"revision {leaving.revision} was leaving and gets 100%: {why}")
    draft.status = replace(status, previous=None)
    _give_all(this, draft, leaving, why, return_step=0)
    # Watched again from this very pass on; as the only healthy copy it stays whatever is wrong with it.
    draft.held = pod_fault(this, draft)
    return True


def _give_all(this: Pass, draft: Draft, revision: RevisionStatus, why: str, *, return_step: int) -> None:
    """All traffic to a revision, as the canary of the last step, until stable is well."""
    rollout, steps = draft.rollout, this.spec.steps
    moved = at_weight(
        rollout, 100, this.now, timeline=timeline_with(rollout, this.now, 100, "StableUnavailable", why),
        gates=unmeasured(this.judgement.gates or rollout.gates), hold_seconds=steps[-1].hold_seconds,
    )  # fmt: skip
    draft.status = replace(
        draft.status, phase=Phase.BAKING, canary=revision,
        rollout=replace(moved, step_index=len(steps) - 1, suspension=None, return_step=return_step),
    )  # fmt: skip
    draft.transitions.append(Transition("advanced", revision.revision, "StableUnavailable"))


def keeps_capacity(this: Pass, draft: Draft, leaving: str) -> bool:
    """Whether a revision that leaves keeps its pods, because nothing else can answer."""
    if draft.status.rejected is not None or not _is_the_only_one(this, draft, leaving):
        return False
    draft.wait("StableUnavailable", f"a replica of {draft.stable.revision}", gravity=Gravity.DEGRADED)
    return True


def _is_the_only_one(this: Pass, draft: Draft, revision: str) -> bool:
    stable = draft.stable.revision
    return this.spec.replicas > 0 and not this.observed.can_answer(stable) and this.observed.available(revision) > 0


def waits_until_well(this: Pass, draft: Draft) -> bool:
    """Whether a revision that was replaced, and serves for want of the new one, keeps all traffic until that is well.

    A return to stable that somebody asked for waits for nothing of the kind.
    """
    stable, is_replaced = draft.stable, draft.canary.since < draft.stable.since
    if draft.rollout.return_step is None or not is_replaced or stable.fault or this.target != stable.revision:
        return False
    if _steady(this, draft):
        return False
    text = f"every replica of {stable.revision} to have been ready for {STEADY_SECONDS:.0f} s"
    draft.wait("StableUnavailable", text, gravity=Gravity.DEGRADED)
    return True


def stand_in(this: Pass, draft: Draft, message: str) -> None:
    """The canary becomes stable because nothing else can answer, so that the wanted revision can start."""
    rollout, canary, old = draft.rollout, draft.canary, draft.stable
    fault = cut(f"{draft.held.reason}: {draft.held.message}", MESSAGE_LIMIT) if draft.held else ""
    draft.held = None
    draft.status = replace(
        draft.status,
        phase=Phase.PROMOTING,
        stable=replace(canary, since=this.now, fault=fault),
        previous=old,
        canary=None,
        rejected=None,
        rollout=replace(
            rollout, weight=100, weight_time=this.now, programmed_time=None, still_time=None, suspension=None,
            return_step=None, timeline=timeline_with(rollout, this.now, 100, "StandsIn", message),
        ),
    )  # fmt: skip
    draft.remember(canary, "Superseded", rollout.start_time, this.now, f"stands in for {old.revision}: {message}")
    draft.warning("StandsIn", f"revision {canary.revision} serves because {old.revision} cannot answer: {message}")
    draft.transitions.append(Transition("superseded", canary.revision, "StandsIn"))


def _down_for_long_at(this: Pass, draft: Draft) -> datetime:
    """When stable will have been without an answer for so long that it hardly comes back in a moment."""
    changes = (_changed(pod, this.now) for pod in this.observed.living(draft.stable.revision))
    newest = max(changes, default=None)
    if draft.stable.fault or newest is None:
        return this.now
    return newest + timedelta(seconds=UNANSWERED_SECONDS)


def _steady(this: Pass, draft: Draft) -> bool:
    if stable_cannot_answer(this, draft) or this.observed.available(draft.stable.revision) < this.spec.replicas:
        return False
    pods = [pod for pod in this.observed.living(draft.stable.revision) if pod.ready]
    newest = max((_changed(pod, this.now) for pod in pods), default=None)
    return newest is not None and this.now >= newest + timedelta(seconds=STEADY_SECONDS)


def _changed(pod: Pod, now: datetime) -> datetime:
    """When its readiness changed; at the latest when this operator saw it so, whatever the clock of its node says."""
    told = pod.ready_changed or pod.created
    return min(told, now - timedelta(seconds=pod.seen)) if pod.seen else told
