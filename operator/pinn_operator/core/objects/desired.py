"""What follows from a decided status: the objects that have to exist, and when to look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pinn_operator.core.api import Resource
from pinn_operator.core.names import REVISION_LABEL, canary_service_name
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.steps import aim, replicas_at
from pinn_operator.core.rollout.suspension import TROUBLE_SECONDS
from pinn_operator.core.rollout.triggers import next_deadline
from pinn_operator.core.rollout.waits import Wait
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.routers.router import Split
from pinn_operator.core.status.values import WATCHED, Phase, RolloutStatus, Status
from pinn_operator.core.wanted.spec import Spec

SOON_SECONDS = 0.5
"""Between two looks while something is about to be known."""
_ROUTER_SECONDS = 30.0
"""After this long a router's answer is not about to be known."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is wanted: which revisions run, and where traffic goes."""

    replicas: Mapping[str, int]
    """Every revision whose Deployment has to exist, 0 allowed. Others are left alone unless forgotten."""
    stable: str
    """The revision that `<name>-stable` selects, and with an HTTPRoute the clients' Service `<name>` too."""
    canary: str
    """The revision that `<name>-canary` selects: `stable` when there is no canary."""
    canary_weight: int
    """Percent."""
    new_revision: str | None = None
    """A revision to be recorded from the resource's own spec."""
    forget: tuple[str, ...] = ()
    """Revisions whose Deployment and record are deleted."""

    @property
    def split(self) -> Split:
        """Where requests go."""
        return Split(self.stable, self.canary, self.canary_weight)


def desired(resource: Resource, spec: Spec, target: str | None, observed: Observed, status: Status) -> Desired:
    """The objects that make `status` true. Revisions that lose traffic keep their pods until that was seen."""
    assert status.stable is not None
    stable = status.stable.revision
    active = status.canary.revision if status.canary and status.rollout else None
    replicas = {stable: spec.replicas}
    if active and status.rollout and status.phase in WATCHED:
        replicas[active] = _canary_replicas(spec, observed, status.rollout, active)
    kept = {stable, active, status.previous.revision if status.previous else None}
    left = {name: it.replicas for name, it in observed.workloads.items() if name not in kept and it.replicas > 0}
    if left:
        answering = _answers_by_hand(resource, spec, observed)
        replicas |= {revision: live if revision == answering else 0 for revision, live in left.items()}
    weight = status.rollout.weight if status.rollout else 0
    return Desired(
        replicas=replicas,
        stable=stable,
        canary=active or stable,
        canary_weight=weight,
        new_revision=target if target in (stable, active) else None,
        forget=_forgotten(resource, spec, observed, kept | set(replicas)),
    )


def _answers_by_hand(resource: Resource, spec: Spec, observed: Observed) -> str | None:
    """The revision that requests reach by the canary's Service as it is now. If nobody wants that any more, somebody
    gave it weight by hand: traffic is taken from it in this pass, its pods go in the next one."""
    router, name = router_of(spec.traffic), resource.name
    if router.by_replicas or not router.seen(name, Split("", "", 0), observed).weight:
        return None
    return observed.selectors.get(canary_service_name(name), {}).get(REVISION_LABEL)


def _canary_replicas(spec: Spec, observed: Observed, rollout: RolloutStatus, revision: str) -> int:
    """Enough for the weight it has and for the one that is aimed at."""
    enough = replicas_at(spec, max(rollout.weight, aim(spec, rollout).weight))
    workload = observed.workloads.get(revision)
    if workload is None or rollout.programmed_time is not None or router_of(spec.traffic).by_replicas:
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
    spec: Spec, observed: Observed, status: Status, now: datetime, *, mounting: bool = False,
    waits: tuple[Wait, ...] = (),
) -> datetime | None:  # fmt: skip
    """When to look again without news; soon while evidence against the canary is `mounting`, or a wait is over."""
    rollout = status.rollout
    times = [wait.until for wait in waits if wait.until is not None and wait.until > now]
    if rollout is not None and status.phase in WATCHED:
        if rollout.weight > 0:
            late = now >= rollout.weight_time + timedelta(seconds=_ROUTER_SECONDS)
            at_rest = (rollout.programmed_time is not None or late) and not mounting
            wait = float(spec.analysis.abort_interval_seconds) if at_rest else SOON_SECONDS
            times.append(now + timedelta(seconds=wait))
        elif status.canary is not None:
            deadline = next_deadline(observed, status.canary.revision, rollback=spec.rollback, now=now)
            times.append(min(deadline or now + timedelta(seconds=10), now + timedelta(seconds=10)))
    elif rollout is not None and status.phase in (Phase.ROLLING_BACK, Phase.PROMOTING):
        times.append(now + timedelta(seconds=1))
    elif status.phase is Phase.PENDING and status.stable is not None:
        deadline = next_deadline(observed, status.stable.revision, rollback=spec.rollback, now=now)
        ends = (status.stable.since + timedelta(seconds=seconds)
                for seconds in (TROUBLE_SECONDS, spec.rollback.ready_deadline_seconds))  # fmt: skip
        times.extend(time for time in (deadline, *ends) if time is not None and time > now)
    elif status.phase is Phase.STABLE and status.stable and status.target not in ("", status.stable.revision):
        times.append(now + timedelta(seconds=1))
    retry = status.verification.retry_time if status.verification else None
    if retry is not None and retry > now:
        times.append(retry)
    return min(times, default=None)
