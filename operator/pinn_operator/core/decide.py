"""Where a rollout is decided: one pure function from what is wanted, known and seen to what is done next.

`decide` looks at a rollback first (`core.rollout.rollback`), then lets the rollout take as many steps as this pass
allows (`core.rollout.phases`), and last derives the objects that must exist (`core.objects.desired`). It never does
anything: the reconciler commits the status, then acts, then reports.

                            Suspended
                              ▲   │ its cause is over
                              │   ▼
    Pending ──► Stable ──► Progressing ──► Baking ──► Promoting ──► Stable
                              │   ▲           │
                              ▼   │ new spec  ▼
                          RollingBack ──► RolledBack | Stable
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Decision
from pinn_operator.core.gates.judgement import Judgement
from pinn_operator.core.objects.desired import desired, requeue_at
from pinn_operator.core.objects.plan import plan
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.deletion import is_kept, of_traffic
from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.rollout.orders import retry_if_ordered
from pinn_operator.core.rollout.phases import STEPS
from pinn_operator.core.rollout.prices import begin_prices
from pinn_operator.core.rollout.rollback import hold_what_stands, judge_gates, roll_back_if_bad
from pinn_operator.core.rollout.sight import (
    keep_measurements,
    not_in_the_future,
    verified_by_now,
)
from pinn_operator.core.samples import Samples, pod_reads
from pinn_operator.core.situation import Situation, situation_of
from pinn_operator.core.status.values import Phase, RolloutStatus, Status
from pinn_operator.core.telling.announce import announced, announcements
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.report import report
from pinn_operator.core.verification.questions import verification_of

_MAX_STEPS_PER_PASS = 8


def decide(resource: Resource, observed: Observed, samples: Samples, now: datetime) -> Decision:
    """What this pass does.

    Args:
        resource: the PINNService as read in this pass, status included.
        observed: its children as read in this pass.
        samples: answers to `pinn_operator.core.gates.questions.due`; an absent key was not asked.
        now: the moment of the pass, timezone-aware.

    Returns:
        The next status, the writes that are missing for it, what to tell, and when to look again. The same arguments
        with the returned status in place of the old one decide nothing new.
    """
    return decide_in(situation_of(resource, observed), samples, now)


def decide_in(situation: Situation, samples: Samples, now: datetime) -> Decision:
    """As `decide`, for who has built the situation already to know what to ask."""
    resource, observed, spec, target = situation.resource, situation.observed, situation.spec, situation.target
    if resource.deleting:
        if spec is None or not is_kept(resource, observed):
            return Decision(status=resource.status)
        spec = replace(spec, paused=True)
    if spec is None:
        judgement = Judgement(gates=())
        facts = Facts(resource, None, observed, resource.status, judgement, held=None, waits=(), now=now)
        status = report(facts)
        events = announcements(resource.status, status, told=())
        return Decision(status=announced(resource.status, status, events, now), events=events)
    found = resource.status
    resource = replace(resource, status=_sound(found, now))
    this = Pass(resource, spec, target, observed, samples, judge_gates(resource, spec, observed, samples, now), now)
    draft = Draft(resource.status)
    roll_back_if_bad(this, draft)
    keep_measurements(this, draft)
    if target is not None:
        draft.status = replace(draft.status, target=target)
    said = tuple(draft.waits)
    for _ in range(_MAX_STEPS_PER_PASS):
        before = draft.status
        # What an earlier step waited for is over once there is another one.
        draft.waits = list(said)
        hold_what_stands(this, draft)
        # After each step: a rollback in flight is finished first, perhaps in this very pass.
        retry_if_ordered(this, draft)
        STEPS[before.phase](this, draft)
        if draft.status == before:
            break
    begin_prices(this, draft)
    waits = tuple(draft.waits)
    status = report(
        Facts(
            resource,
            spec,
            observed,
            draft.status,
            this.judgement,
            held=draft.held,
            waits=waits,
            now=now,
            pod_reads=pod_reads(samples),
        )
    )
    events = (*draft.events, *announcements(resource.status, status, draft.events))
    actions = plan(resource, desired(resource, spec, target, observed, status), observed) if status.stable else ()
    return Decision(
        status=announced(found, status, events, now),
        actions=of_traffic(actions, observed) if resource.deleting else actions,
        events=events,
        transitions=tuple(draft.transitions),
        resets=this.judgement.resets,
        requeue_at=requeue_at(spec, observed, status, now, mounting=this.judgement.mounting, waits=waits),
    )


def _sound(status: Status, now: datetime) -> Status:
    """The status as one that can be gone on from: a clock set back, or a field that was lost, must not end it all.

    What cannot be known any more is assumed so that traffic returns to stable and capacity goes in good order.
    """
    known = verification_of(status, status.canary.revision) if status.canary is not None else None
    status = replace(status, verification=verified_by_now(status.verification, now))
    if status.stable is None:
        return replace(status, phase=Phase.PENDING, canary=None, previous=None, rollout=None)
    if status.phase in (Phase.PENDING, Phase.STABLE, Phase.ROLLED_BACK):
        return status if status.rollout is None else replace(status, rollout=None)
    leaving = status.previous if status.phase is Phase.PROMOTING else status.canary
    if leaving is None:
        return replace(status, phase=Phase.STABLE, canary=None, previous=None, rollout=None)
    if status.rollout is None:
        phase = status.phase if status.phase is Phase.PROMOTING else Phase.ROLLING_BACK
        lost = RolloutStatus(start_time=now, step_index=0, weight=0, weight_time=now)
        return replace(status, phase=phase, rollout=lost)
    rollout = not_in_the_future(status.rollout, now)
    if known is not None and status.verification is not None:
        # What this rollout has shown of its prices stays what this rollout has shown.
        begun = max(status.verification.start_time, rollout.start_time)
        status = replace(status, verification=replace(status.verification, start_time=begun))
    return replace(status, rollout=rollout)
