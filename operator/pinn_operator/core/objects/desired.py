"""What follows from a decided status: the objects that shall exist, and when to look again."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil

from pinn_operator.core.api import Resource
from pinn_operator.core.objects.plan import Desired
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.triggers import next_deadline
from pinn_operator.core.status.values import WATCHED, Phase, RolloutStatus, Status
from pinn_operator.core.wanted.spec import RouterKind, Spec, Step

SOON_SECONDS = 0.5
"""Between two looks while something is about to be known."""


def replicas_at(spec: Spec, weight: int) -> int:
    """How many canary replicas carry `weight` percent.

    With a router, capacity follows the share: ceil(n·w/100), at least 1, n at 100 %. Without one the ratio of replicas
    *is* the share: c/(n+c) comes closest to w for c = n·w/(100−w), at least 1 and at most n.

    >>> # n = 3: 10 % → 1, 50 % → 2, 100 % → 3 with a router; 1 (25 %), 3 (50 %), 3 without
    """
    if weight >= 100 or spec.replicas == 0:
        return spec.replicas
    if spec.traffic.router is RouterKind.REPLICAS:
        return min(spec.replicas, max(1, round(spec.replicas * weight / (100 - weight))))
    return max(1, ceil(spec.replicas * weight / 100))


def aim(spec: Spec, rollout: RolloutStatus) -> Step:
    """The step that is aimed at; the last one if the steps were shortened meanwhile."""
    return spec.steps[min(rollout.step_index, len(spec.steps) - 1)]


def desired(resource: Resource, spec: Spec, target: str | None, observed: Observed, status: Status) -> Desired:
    """The objects that make `status` true. Revisions that lose traffic keep their pods until that was seen."""
    assert status.stable is not None
    stable = status.stable.revision
    active = status.canary.revision if status.canary and status.rollout else None
    replicas = {stable: spec.replicas}
    if active and status.rollout and status.phase in WATCHED:
        replicas[active] = _canary_replicas(spec, observed, status.rollout, active)
    kept = {stable, active, status.previous.revision if status.previous else None}
    for revision, workload in observed.workloads.items():
        if revision not in kept and workload.replicas > 0:
            replicas[revision] = 0
    weight = status.rollout.weight if status.rollout else 0
    return Desired(
        replicas=replicas,
        stable=stable,
        canary=active or stable,
        canary_weight=weight,
        new_revision=target if target in (stable, active) else None,
        forget=_forgotten(resource, spec, observed, kept | set(replicas)),
    )


def _canary_replicas(spec: Spec, observed: Observed, rollout: RolloutStatus, revision: str) -> int:
    """Enough for the weight it has and for the one that is aimed at."""
    enough = replicas_at(spec, max(rollout.weight, aim(spec, rollout).weight))
    workload = observed.workloads.get(revision)
    if workload is None or rollout.programmed_time is not None or spec.traffic.router is RouterKind.REPLICAS:
        return enough
    # A lower weight is written but not in force: the pods still answer the old share.
    return max(enough, min(workload.replicas, spec.replicas))


def _forgotten(resource: Resource, spec: Spec, observed: Observed, kept: set[str | None]) -> tuple[str, ...]:
    """Old revisions beyond the limit, oldest first; never one that still has pods."""
    rejected = resource.status.rejected
    idle = sorted(
        (
            record
            for revision, record in observed.records.items()
            if revision not in kept and not observed.living(revision)
            and not (rejected and rejected.revision == revision)
        ),
        key=lambda record: record.number,
    )  # fmt: skip
    surplus = len(idle) - spec.rollback.revision_history_limit
    return tuple(record.revision for record in idle[: max(0, surplus)])


def requeue_at(
    spec: Spec, observed: Observed, status: Status, now: datetime, *, mounting: bool = False
) -> datetime | None:  # fmt: skip
    """When to look again without news; soon while evidence against the canary is `mounting`."""
    rollout = status.rollout
    times: list[datetime] = []
    if rollout is not None and status.phase in WATCHED:
        if rollout.weight > 0:
            at_rest = rollout.programmed_time is not None and not mounting
            wait = float(spec.analysis.abort_interval_seconds) if at_rest else SOON_SECONDS
            times.append(now + timedelta(seconds=wait))
        elif status.canary is not None:
            deadline = next_deadline(observed, status.canary.revision, rollback=spec.rollback, now=now)
            times.append(min(deadline or now + timedelta(seconds=10), now + timedelta(seconds=10)))
    elif rollout is not None and status.phase in (Phase.ROLLING_BACK, Phase.PROMOTING):
        times.append(now + timedelta(seconds=1))
    elif status.phase is Phase.PENDING and status.stable is not None:
        deadline = next_deadline(observed, status.stable.revision, rollback=spec.rollback, now=now)
        times.extend([deadline] if deadline else [])
    elif status.phase is Phase.STABLE and status.stable and status.target not in ("", status.stable.revision):
        times.append(now + timedelta(seconds=1))
    return min(times, default=None)
