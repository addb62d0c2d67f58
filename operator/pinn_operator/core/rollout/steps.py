"""Where a rollout is on its way: the step that is aimed at, and how many replicas its weight needs."""

from __future__ import annotations

from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.status.values import RolloutStatus
from pinn_operator.core.wanted.spec import Spec, Step


def aim(spec: Spec, rollout: RolloutStatus) -> Step:
    """The step that is aimed at; the last one if the steps were shortened meanwhile."""
    return spec.steps[min(rollout.step_index, len(spec.steps) - 1)]


def replicas_at(spec: Spec, weight: int) -> int:
    """How many canary replicas carry `weight` percent with the spec's router."""
    return router_of(spec.traffic).capacity(spec.replicas, weight)


def hold_of(spec: Spec, rollout: RolloutStatus) -> int:
    """For how many seconds the present weight is held before it may rise, whatever the list of steps says by now.

    A step of that weight that is still in the list counts as it is written there; else the one that the weight was
    written for.
    """
    step = aim(spec, rollout)
    if step.weight == rollout.weight:
        return step.hold_seconds
    return next((item.hold_seconds for item in spec.steps if item.weight == rollout.weight), rollout.hold_seconds)
