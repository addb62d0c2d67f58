"""What the status tells people and tools: conditions, the next action, and the columns of `kubectl get`."""

from __future__ import annotations

from dataclasses import replace

from pinn_operator.core.names import selector_of
from pinn_operator.core.status.values import Status
from pinn_operator.core.telling.columns import (
    invalid_column,
    reason_column,
    step_column,
    verdict_column,
    weight_column,
)
from pinn_operator.core.telling.conditions import conditions, rows
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.next import next_action
from pinn_operator.core.wanted.spec import InvalidSpec


def report(facts: Facts) -> Status:
    """The decided status with everything in it that is derived: conditions, next action, columns, scale fields."""
    found, resource, spec, observed = rows(facts), facts.resource, facts.spec, facts.observed
    status = replace(facts.status, observed_generation=resource.generation, conditions=conditions(found, facts))
    if spec is None:
        return replace(status, reason=invalid_column(resource.spec) if isinstance(resource.spec, InvalidSpec) else "")
    serving = _serving(status)
    workload = observed.workloads.get(serving)
    return replace(
        status,
        next=next_action(facts, spec),
        replicas=workload.replicas if workload else 0,
        ready_replicas=workload.ready if workload else 0,
        # All revisions: an autoscaler multiplies the mean load by the number of pods, so those that share the load, or
        # have none of it yet, must be among them.
        selector=",".join(f"{key}={value}" for key, value in selector_of(resource.name).items()),
        step=step_column(status, spec),
        weight=weight_column(status),
        verdict=verdict_column(status),
        reason=reason_column(facts, found),
    )


def _serving(status: Status) -> str:
    """The revision with most of the traffic: the one an autoscaler should look at."""
    if status.canary and status.rollout and status.rollout.weight >= 50:
        return status.canary.revision
    return status.stable.revision if status.stable else ""
