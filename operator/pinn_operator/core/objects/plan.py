"""From what `decide` wants to the writes that are missing, in the order that is safe.

Traffic that the canary loses goes first, so that no other write that fails can keep it. Otherwise capacity is added
before traffic moves, and removed after. What an object looks like, and whether the live one holds it, is known to the
other modules of this package and to `core.routers`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pinn_operator.core.api import API_VERSION, KIND, Resource
from pinn_operator.core.decision import Action, Apply, Delete
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import Owner, controller_uid, workload_name
from pinn_operator.core.objects.deployment import render_deployment
from pinn_operator.core.objects.desired import Desired
from pinn_operator.core.objects.difference import changed
from pinn_operator.core.objects.records import adopted_record, edited_record, record_data, render_record
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.registry import ROUTERS, live_router, router_of
from pinn_operator.core.situation import traffic_in_force
from pinn_operator.core.wanted.spec import Traffic


def plan(resource: Resource, desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """The writes that are missing, in safe order.

    What takes traffic from the canary, records, Deployments that grow or are new, Services and the objects of the
    router, Deployments that shrink, records of specs that were edited, deletions.
    A revision that is not `reproducible` gets no Deployment. Raises ValueError if the weight is outside 0–100 or a
    revision is both kept and forgotten, which `decide` never asks for.
    """
    _check(desired)
    owner = Owner(API_VERSION, KIND, resource.name, resource.namespace, resource.uid)
    records: list[Manifest] = []
    edited: list[Manifest] = []
    growing: list[Manifest] = []
    shrinking: list[Manifest] = []
    numbers = [record.number for record in observed.records.values()]
    for revision in sorted({*desired.replicas, *([desired.new_revision] if desired.new_revision else [])}):
        record = record_data(resource, revision, observed)
        if record is None:
            continue
        if revision not in observed.records:
            numbers.append(max(numbers, default=0) + 1)
            records.append(render_record(owner, revision, number=numbers[-1], data=record))
        elif adopted := adopted_record(owner, revision, observed):
            records.append(adopted)
        elif record_of_edit := edited_record(owner, resource, revision, observed):
            edited.append(record_of_edit)
        if revision in desired.replicas:
            replicas = desired.replicas[revision]
            manifest = render_deployment(owner, record["workload"], replicas)
            shrinks = replicas < _live_replicas(revision, observed)
            (shrinking if shrinks else growing).append(manifest)
    traffic = traffic_in_force(resource, observed, revisions=(desired.canary, desired.stable))
    routing = router_of(traffic).objects(owner, traffic, desired.split, observed) if traffic else ()
    withdrawal = live_router(owner.name, observed).withdraw(owner, desired.split, observed)
    first = list(changed(tuple(withdrawal), observed))
    writes = [*records, *changed((*growing, *routing, *shrinking), observed)]
    writes = [*first, *(manifest for manifest in writes if manifest not in first), *edited]
    return (*(Apply(manifest) for manifest in writes), *_deletions(owner, traffic, desired, observed))


def _check(desired: Desired) -> None:
    if not 0 <= desired.canary_weight <= 100:
        raise ValueError(f"canary weight {desired.canary_weight} is outside 0–100")
    both = sorted({*desired.replicas, desired.stable, desired.canary} & set(desired.forget))
    if both:
        raise ValueError(f"revisions are both kept and forgotten: {', '.join(both)}")


def _live_replicas(revision: str, observed: Observed) -> int:
    workload = observed.workloads.get(revision)
    return workload.replicas if workload else 0


def _deletions(owner: Owner, traffic: Traffic | None, desired: Desired, observed: Observed) -> Iterator[Delete]:
    """Deployments before their records: a revision without a record could not be written again."""
    doomed = [
        ("apps/v1", kind, workload_name(owner.name, revision))
        for revision in desired.forget
        for kind in ("Deployment", "ControllerRevision")
    ]
    if traffic is not None:
        needed = router_of(traffic).kinds
        unused = [kind for router in ROUTERS.values() for kind in router.kinds if kind not in needed]
        doomed = [*((kind.api_version, kind.kind, owner.name) for kind in unused), *doomed]
    for api_version, kind, name in doomed:
        live = observed.objects.get((kind, name))
        if live is not None and controller_uid(live) == owner.uid:
            yield Delete(api_version, kind, name)
