"""Which spec is in force: the resource's own, or, while that one is invalid, the last that was accepted."""

from __future__ import annotations

from dataclasses import replace

from pinn_operator.core.api import Resource
from pinn_operator.core.objects.plan import traffic_in_force
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.parsing import REPLICA_LIMIT
from pinn_operator.core.wanted.spec import InvalidSpec, Spec


def accepted_spec(resource: Resource, observed: Observed) -> Spec | None:
    """The spec whose gates are armed, or None if there has never been a valid one.

    An invalid new spec must not disarm the rollout in flight, so the one recorded with the canary, or else with the
    stable revision, stays in force until the fault is mended. That record is as old as its revision: whoever scaled or
    paused since, or changed the router, is heeded by keeping what is there and holding the weight.
    """
    if not isinstance(resource.spec, InvalidSpec):
        return resource.spec
    status = resource.status
    for known in (status.canary, status.stable):
        record = observed.records.get(known.revision) if known else None
        if record is not None and record.spec is not None:
            traffic = traffic_in_force(resource, observed, revisions=(known.revision,)) if known else None
            replicas = _replicas(resource, observed, record.spec)
            return replace(record.spec, replicas=replicas, paused=True, traffic=traffic or record.spec.traffic)
    return None


def _replicas(resource: Resource, observed: Observed, recorded: Spec) -> int:
    """As written, if that much of the spec can be used (an autoscaler writes it), or as they are."""
    written = resource.spec_manifest.get("replicas")
    if isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= REPLICA_LIMIT:
        return written
    stable = resource.status.stable
    workload = observed.workloads.get(stable.revision) if stable else None
    return workload.replicas if workload else recorded.replicas
