"""The record of a revision: a ControllerRevision that holds its Deployment as first rendered, and the accepted spec.

What makes no revision may be edited after that: gates, bounds, what a rollback does. The API server never lets `data`
change, so the spec that was accepted last is in an annotation, from the first such edit on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pinn_operator.core.api import Resource
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import Owner, controller_uid, labels_of, placement, workload_name
from pinn_operator.core.objects.deployment import render_workload
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.revision import revision_of
from pinn_operator.core.wanted.spec import Spec

ACCEPTED_ANNOTATION: Final = "pinn.dev/accepted-spec"
_LARGEST: Final = 128 * 1024
"""Characters of it. All annotations of an object may have twice as many bytes."""


def render_record(
    owner: Owner, revision: str, *, number: int, data: Manifest, accepted: str | None = None
) -> dict[str, Any]:
    """The ControllerRevision of a revision. `accepted` is the JSON of a spec that was accepted after it was made."""
    annotations = {} if accepted is None else {"annotations": {ACCEPTED_ANNOTATION: accepted}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": workload_name(owner.name, revision),
            "labels": labels_of(owner.name, revision),
            **annotations,
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
    return render_record(owner, revision, number=live["revision"], data=live["data"], accepted=_annotated(live))


def edited_record(owner: Owner, resource: Resource, revision: str, observed: Observed) -> Manifest | None:
    """The record of the resource's own revision with its spec, if that was edited since it was recorded.

    `replicas` is left out of the comparison: an autoscaler writes it again and again, and nobody reads it there.
    """
    live = observed.objects.get(("ControllerRevision", workload_name(owner.name, revision)))
    if live is None or not isinstance(resource.spec, Spec) or revision_of(resource.spec.serving) != revision:
        return None
    if _without_replicas(resource.spec_manifest) == _without_replicas(accepted_manifests(live)[0]):
        return None
    text = json.dumps(resource.spec_manifest, sort_keys=True, separators=(",", ":"))
    if len(text) > _LARGEST:
        return None
    return render_record(owner, revision, number=live["revision"], data=live["data"], accepted=text)


def accepted_manifests(record: Manifest) -> tuple[Manifest, ...]:
    """The specs in a ControllerRevision: what was accepted last, if it was edited, and what it was made for."""
    data = record.get("data")
    found: list[Any] = [data.get("spec") if isinstance(data, Mapping) else None]
    if (text := _annotated(record)) is not None:
        with suppress(ValueError, RecursionError):  # somebody else may have written there
            found.insert(0, json.loads(text))
    return tuple(each for each in found if isinstance(each, Mapping)) or ({},)


def _annotated(record: Manifest) -> str | None:
    text = (record["metadata"].get("annotations") or {}).get(ACCEPTED_ANNOTATION)
    return text if isinstance(text, str) else None


def _without_replicas(spec: Manifest) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name != "replicas"}
