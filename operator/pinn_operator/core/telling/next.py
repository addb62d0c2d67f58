"""What the operator does next, and what it waits for."""

from __future__ import annotations

from datetime import datetime, timedelta

from pinn_operator.core.rollout.steps import aim
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.status.values import NextAction, Phase, RolloutStatus
from pinn_operator.core.telling.conditions import held_by
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.phrases import GOES_ON, replicas_of
from pinn_operator.core.wanted.spec import InvalidSpec, Spec

_TEXT_LIMIT = 512
_WAIT = "Wait"


def next_action(facts: Facts, spec: Spec) -> NextAction | None:
    """None at rest. What the pass itself recorded as its wait comes first."""
    action = _action(facts, spec) or ("StartRollout" if facts.waits else None)
    if action is None:
        return None
    if facts.waits:
        wait = facts.waits[0]
        # A wait that only a person can end is not followed by anything.
        action = _WAIT if wait.gravity is Gravity.STALLED else action
        return NextAction(action, wait.text[:_TEXT_LIMIT], wait.until)
    text, time = _waiting_for(facts, spec)
    return NextAction(action, text[:_TEXT_LIMIT], time)


def _action(facts: Facts, spec: Spec) -> str | None:
    status, rollout = facts.status, facts.status.rollout
    if status.phase is Phase.PENDING:
        return "Serve"
    if status.phase is Phase.ROLLED_BACK:
        return _WAIT
    if rollout is None:
        return None
    if status.phase is Phase.ROLLING_BACK:
        return "RemoveCapacity"
    if status.phase is Phase.PROMOTING:
        return "RemoveOldCapacity"
    if facts.held is not None or isinstance(facts.resource.spec, InvalidSpec) or spec.paused:
        return _WAIT
    step = aim(spec, rollout)
    if rollout.weight != step.weight:
        return f"SetWeight {step.weight}%"
    last = rollout.step_index + 1 >= len(spec.steps)
    return "Promote" if last else f"SetWeight {spec.steps[rollout.step_index + 1].weight}%"


def _waiting_for(facts: Facts, spec: Spec) -> tuple[str, datetime | None]:
    status, rollout = facts.status, facts.status.rollout
    if status.phase is Phase.ROLLED_BACK:
        return "a changed spec", None
    if status.phase is Phase.PENDING or rollout is None:
        return "a ready replica", None
    if status.phase is Phase.ROLLING_BACK:
        return "silence of the canary's request counters" if rollout.still_time is None else "the drain", None
    if status.phase is Phase.PROMOTING:
        return "silence of the old revision's request counters", None
    if facts.held is not None:
        return f"{held_by(facts)}: {facts.held.reason}", None
    if isinstance(facts.resource.spec, InvalidSpec):
        return "a valid spec", None
    if spec.paused:
        return "paused by spec.paused", None
    return _measured(facts, spec, rollout)


def _measured(facts: Facts, spec: Spec, rollout: RolloutStatus) -> tuple[str, datetime | None]:
    step = aim(spec, rollout)
    if rollout.weight != step.weight:
        canary = facts.status.canary.revision if facts.status.canary else ""
        return f"replicas of {canary}: {replicas_of(facts.observed, canary)}", None
    if rollout.programmed_time is None:
        return "the router to use the new weight", None
    open_gates = [f"{gate.name}: {gate.message}" for gate in rollout.gates if gate.verdict not in GOES_ON]
    end = rollout.programmed_time + timedelta(seconds=step.hold_seconds)
    return "; ".join(open_gates) or "the end of the hold", end
