"""Where a rollback is decided: `roll_back_if_bad`, the first thing in every pass.

A canary goes for a pod failure (`pinn_operator.core.rollout.triggers`) or for a gate that failed beyond its bound
(`pinn_operator.core.gates.judgement`), from every phase in which it has a claim on traffic, in the pass that sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Transition
from pinn_operator.core.gates.judgement import Condemnation, Judgement, judge
from pinn_operator.core.gates.scope import NO_ANSWERS, scope_of
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.doubt import answers_before, ask_if_suspected, hear_answers, in_doubt
from pinn_operator.core.rollout.draft import Draft, Pass, at_weight, timeline_with
from pinn_operator.core.rollout.prices import price_fault, see_prices
from pinn_operator.core.rollout.slowness import ask_if_slow, hear_slowness
from pinn_operator.core.rollout.triggers import pod_failure
from pinn_operator.core.samples import Samples
from pinn_operator.core.status.values import MESSAGE_LIMIT, WATCHED, Phase, RollbackStatus, Status
from pinn_operator.core.text import cut
from pinn_operator.core.verification.questions import verification_of
from pinn_operator.core.wanted.spec import RollbackMode, Spec


def judge_gates(resource: Resource, spec: Spec, observed: Observed, samples: Samples, now: datetime) -> Judgement:
    """The gates by the answers of this pass; as they were when there is nothing to judge."""
    status, rollout = resource.status, resource.status.rollout
    if status.phase not in WATCHED or not (rollout and status.canary and status.stable):
        return Judgement(gates=rollout.gates if rollout else ())
    doubted, slow = (rollout.doubt, rollout.slowness) if rollout.weight < 100 else (None, None)
    late = answers_before(slow, samples, now) if slow is not None else NO_ANSWERS
    doubtful = answers_before(doubted, samples, now) if doubted is not None else NO_ANSWERS
    # A slow answer is a good one to whoever counts errors.
    canary, stable = (bad + Counts(all_of.total, 0) for bad, all_of in zip(doubtful, late, strict=True))
    scope = scope_of(resource, spec, observed, now, own_answers=(canary, stable), own_slow=late)
    assert scope is not None
    # What was asked for before this weight was written, in this very moment, says nothing of it.
    return judge(scope, samples if rollout.weight > 0 and now > rollout.weight_time else {})


def roll_back_if_bad(this: Pass, draft: Draft) -> None:
    """Take a failing canary out of traffic, whatever else this pass would do.

    A fault that is not acted on is left in `draft.held`: `rollback.mode` is Hold, or the canary is the only healthy
    copy.
    """
    prices = see_prices(this, draft)
    if draft.status.phase not in WATCHED:
        return
    for notice in this.judgement.notices:
        draft.warning(notice.reason, f"{_severity(notice)}revision {draft.canary.revision}: {notice.message}")
    fault = pod_fault(this, draft) or this.judgement.condemnation
    if fault is not None and prices is None and in_doubt(this, draft, fault):
        return
    fault = fault or prices or hear_answers(this, draft) or hear_slowness(this, draft)
    if fault is None:
        ask_if_suspected(this, draft)
        ask_if_slow(this, draft)
        return
    if this.spec.rollback.mode is RollbackMode.HOLD or only_copy(this, draft):
        draft.held = fault
        return
    status, rollout, canary = draft.status, draft.rollout, draft.canary
    timeline = timeline_with(rollout, this.now, 0, fault.reason, fault.message)
    record = RollbackStatus(
        revision=canary.revision, image=canary.image, time=this.now, reason=fault.reason,
        message=cut(fault.message, MESSAGE_LIMIT), gate=fault.gate, value=fault.value, limit=fault.limit,
        weight=rollout.weight or (rollout.suspension.weight if rollout.suspension else 0), timeline=timeline,
        gates=this.judgement.gates, pods=tuple(_describe_pods(this.observed, canary.revision)),
        verification=verification_of(status, canary.revision),
    )  # fmt: skip
    draft.status = replace(
        status,
        phase=Phase.ROLLING_BACK,
        # The evidence is kept once: three copies of it could outgrow what an object may hold.
        rejected=replace(record, timeline=(), gates=(), pods=(), verification=None),
        last_rollback=record,
        rollout=replace(
            at_weight(rollout, 0, this.now, timeline=timeline, gates=this.judgement.gates),
            suspension=None, return_step=None,
        ),
    )  # fmt: skip
    draft.remember(canary, "RolledBack", rollout.start_time, this.now, f"{fault.reason}: {fault.message}")
    said = f"revision {canary.revision} rolled back from {rollout.weight}%: {fault.message}"
    draft.warning(fault.reason, f"{_severity(fault)}{said}")
    draft.transitions.append(Transition("rolled_back", canary.revision, fault.reason))


def _severity(fault: Condemnation) -> str:
    return f"{fault.severity.value}: " if fault.severity else ""


def only_copy(this: Pass, draft: Draft) -> bool:
    """The canary has traffic and is the only revision that can answer it: taking it away would be the outage."""
    return (
        draft.rollout.weight > 0
        and not this.observed.can_answer(draft.stable.revision)
        and this.observed.available(draft.canary.revision) > 0
    )


def note_rollback(draft: Draft, change: Callable[[RollbackStatus], RollbackStatus]) -> None:
    """Enter into both records of the rollback what was seen of it."""
    status = draft.status
    assert status.rejected is not None
    last = status.last_rollback
    if last is not None and last.revision == status.rejected.revision:
        last = change(last)
    draft.status = replace(status, rejected=change(status.rejected), last_rollback=last)


def hold_what_stands(this: Pass, draft: Draft) -> None:
    """Of a fault that is not acted on, keep what is still one at a weight that this pass wrote anew: what the gates
    measured, and for how long pods were awaited, was at the one before."""
    if draft.held is None or not _weight_moved(this.resource.status, draft.status):
        return
    watched = draft.status.phase in WATCHED
    draft.held = (pod_fault(this, draft) or price_fault(this, draft)) if watched else None


def _weight_moved(before: Status, after: Status) -> bool:
    return before.rollout is None or after.rollout is None or before.rollout.weight_time != after.rollout.weight_time


def pod_fault(this: Pass, draft: Draft) -> Condemnation | None:
    rollout, revision = draft.rollout, draft.canary.revision
    return pod_failure(
        this.observed,
        revision,
        rollback=this.spec.rollback,
        now=this.now,
        patience_from=rollout.weight_time,
        excused={item.pod: item.restarts for item in rollout.excused},
    )


def _describe_pods(observed: Observed, revision: str) -> list[str]:
    lines = []
    for pod in sorted(observed.pods_of(revision), key=lambda pod: pod.name)[:10]:
        state = "ready" if pod.ready else (pod.waiting_reason or pod.phase)
        ended = f", ended {pod.termination.reason} ({pod.termination.exit_code})" if pod.termination else ""
        lines.append(cut(f"{pod.name}: {state}, {pod.restarts} restarts{ended}", 250))
    return lines
