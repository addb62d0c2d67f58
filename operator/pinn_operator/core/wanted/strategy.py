"""The block `spec.strategy`."""

from __future__ import annotations

from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.spec import (
    Step,
)

DEFAULT_STEPS: Final = (Step(10, 1800), Step(50, 3600), Step(100, 86400))
STEP_LIMIT: Final = 20


def parse_steps(strategy: Fields) -> tuple[Step, ...]:
    strategy.one_of("type", ("Canary",), default="Canary")
    canary = strategy.child_or_empty("canary")
    strategy.close()
    if not canary.has("steps"):
        canary.raw("steps")
        canary.close()
        return DEFAULT_STEPS
    steps = []
    for item in canary.children("steps", items=STEP_LIMIT):
        steps.append(
            Step(
                weight=item.integer("weight", minimum=1, maximum=100),
                hold_seconds=item.integer("holdSeconds", minimum=0, maximum=604800),
            )
        )
        item.close()
    canary.close()
    if not steps:
        canary.fault("steps", "must have at least one step, the last one with weight 100")
        return DEFAULT_STEPS
    for index in range(1, len(steps)):
        if steps[index].weight <= steps[index - 1].weight:
            canary.fault(
                f"steps[{index}].weight",
                f"weights must rise from step to step: {steps[index].weight} follows {steps[index - 1].weight}",
            )
    if steps[-1].weight != 100:
        canary.fault(
            f"steps[{len(steps) - 1}].weight",
            f"the last step must have weight 100, not {steps[-1].weight}; its holdSeconds is the bake",
        )
    return tuple(steps)
