"""The record of a revision: a ControllerRevision that holds its Deployment as first rendered, and the accepted spec."""

from __future__ import annotations

from typing import Any

from pinn_operator.core.api import Resource
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import Owner, controller_uid, labels_of, placement, workload_name
from pinn_operator.core.objects.deployment import render_workload
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.revision import revision_of
from pinn_operator.core.wanted.spec import Spec


def render_record(owner: Owner, revision: str, *, number: int, data: Manifest) -> dict[str, Any]:
    """The ControllerRevision of a revision. The API server never lets its `data` change."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": workload_name(owner.name, revision),
            "labels": labels_of(owner.name, revision),
            **placement(owner),
        },
        "data": data,
        "revision": number,
    }


def reproducible(resource: Resource, revision: str, observed: Observed) -> bool:
    """Whether the Deployment of a revision can be written: from its record, from the spec, or from what runs."""
    return record_data(resource, revision, observed) is not None


def record_data(resource: Resource, revision: str, observed: Observed) -> Manifest | None:
    """The data of a revision's record: as recorded, or else rendered from the spec, or else taken from what runs."""
    recorded = observed.records.get(revision)
    if recorded is not None and recorded.workload:
        return {"workload": recorded.workload}
    if isinstance(resource.spec, Spec) and revision_of(resource.spec.serving) == revision:
        workload = render_workload(resource.name, revision, resource.spec.serving)
        return {"workload": workload, "spec": resource.spec_manifest}
    live = observed.objects.get(("Deployment", workload_name(resource.name, revision)))
    if live is None:
        return None
    metadata = {"name": live["metadata"]["name"], "labels": live["metadata"].get("labels") or {}}
    spec = {key: value for key, value in live["spec"].items() if key != "replicas"}
    return {"workload": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}}


def adopted_record(owner: Owner, revision: str, observed: Observed) -> Manifest | None:
    """The record with our owner reference, if it lost its own: the resource was deleted without its objects."""
    live = observed.objects.get(("ControllerRevision", workload_name(owner.name, revision)))
    if live is None or controller_uid(live) == owner.uid:
        return None
    return render_record(owner, revision, number=live["revision"], data=live["data"])
