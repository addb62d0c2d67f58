"""Which spec is in force: the resource's own, or, while that one is invalid, the last that was accepted."""

from __future__ import annotations

from pinn_operator.core.api import Resource
from pinn_operator.core.observed import Observed
from pinn_operator.core.spec import InvalidSpec, Spec


def accepted_spec(resource: Resource, observed: Observed) -> Spec | None:
    """The spec whose gates are armed, or None if there has never been a valid one.

    An invalid new spec must not disarm the rollout in flight, so the one recorded with the canary, or else with the
    stable revision, stays in force until the fault is mended.
    """
    if not isinstance(resource.spec, InvalidSpec):
        return resource.spec
    status = resource.status
    for known in (status.canary, status.stable):
        record = observed.records.get(known.revision) if known else None
        if record is not None and record.spec is not None:
            return record.spec
    return None
