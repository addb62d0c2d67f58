"""What the operator does next, and what it waits for."""

from __future__ import annotations

from pinn_operator.core.rollout.steps import aim
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.status.values import NextAction, Phase
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import InvalidSpec, Spec

_TEXT_LIMIT = 512
_WAIT = "Wait"


def next_action(facts: Facts, spec: Spec) -> NextAction | None:
    """None at rest. What is waited for is what the pass recorded; nothing is guessed here."""
    action = _action(facts, spec) or (_at_rest(facts) if facts.waits else None)
    if action is None:
        return None
    if not facts.waits:
        return NextAction(action)
    wait = facts.waits[0]
    # A wait that only a person can end is not followed by anything.
    action = _WAIT if wait.gravity is Gravity.STALLED else action
    return NextAction(action, cut(wait.text, _TEXT_LIMIT), wait.until)


def _at_rest(facts: Facts) -> str:
    return "Serve" if facts.status.stable and facts.status.stable.revision == facts.status.target else "StartRollout"


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
