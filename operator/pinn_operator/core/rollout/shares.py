"""What a number of replicas can really give where their ratio is the weight."""

from __future__ import annotations

from pinn_operator.core.rollout.steps import replicas_at
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.wanted.spec import Spec

TOLERATED_POINTS = 5.0
"""A share that is this close to the weight needs no words."""


def share_at(spec: Spec, weight: int) -> float:
    """The percent of the connections that the canary gets at `weight`: exact with a router, c/(n+c) without."""
    if not router_of(spec.traffic).by_replicas or weight in (0, 100) or spec.replicas == 0:
        return float(weight)
    canary = replicas_at(spec, weight)
    return 100.0 * canary / (spec.replicas + canary)


def what_replicas_can_give(spec: Spec) -> str:
    """In words how far the steps are from what the replicas can give, and which cannot be told apart; empty if near.

    >>> # 1 replica, steps 10, 50, 100: "10% is about 50% …; the steps 10% and 50% cannot be told apart"
    """
    if not router_of(spec.traffic).by_replicas or spec.replicas == 0:
        return ""
    shares = {step.weight: share_at(spec, step.weight) for step in spec.steps}
    far = [f"{weight}% is about {share:.0f}%" for weight, share in shares.items()
           if abs(share - weight) > TOLERATED_POINTS]  # fmt: skip
    groups: dict[float, list[int]] = {}
    for weight, share in shares.items():
        groups.setdefault(share, []).append(weight)
    same = [" and ".join(f"{weight}%" for weight in group) for group in groups.values() if len(group) > 1]
    parts = [", ".join(far)] if far else []
    parts += [f"the steps {group} cannot be told apart" for group in same]
    if not parts:
        return ""
    return f"with {spec.replicas} replica{'s' if spec.replicas > 1 else ''} and no router {'; '.join(parts)}"
