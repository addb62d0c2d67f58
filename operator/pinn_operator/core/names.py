"""What the objects of a PINNService are called, and how they show whose they are: names, labels, selectors, owners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pinn_operator.core.manifest import Manifest

MANAGER: Final = "pinn-operator"
SERVICE_LABEL: Final = "pinn.dev/service"
REVISION_LABEL: Final = "pinn.dev/revision"

CONTAINER: Final = "inference"
PORT_NAME: Final = "http"
CONTROL_TOKEN: Final = "PINN_CONTROL_TOKEN"  # noqa: S105 - a name
"""The variable with what the bundled server asks for before it changes anything."""


def other_writer(manifest: Manifest | None, field: str) -> str:
    """The field manager other than the operator that wrote this field of an object's spec last; empty if that is not
    known (Kubernetes documentation, "Server-Side Apply", managedFields)."""
    entries = (manifest or {}).get("metadata", {}).get("managedFields") or ()
    others = [
        entry for entry in entries
        if entry.get("manager") != MANAGER
        and f"f:{field}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]  # fmt: skip
    newest: Manifest = max(others, key=lambda entry: str(entry.get("time") or ""), default={})
    return str(newest.get("manager") or "")


@dataclass(frozen=True, slots=True)
class Owner:
    """The PINNService that an object belongs to."""

    api_version: str
    kind: str
    name: str
    namespace: str
    uid: str


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """A kind of object that the operator writes, and its name in URLs and in RBAC rules."""

    api_version: str
    kind: str
    plural: str


def workload_name(service: str, revision: str) -> str:
    """Name of the Deployment and of the ControllerRevision of a revision."""
    return f"{service}-{revision}"


def stable_service_name(service: str) -> str:
    """Name of the Service that selects the stable revision."""
    return f"{service}-stable"


def canary_service_name(service: str) -> str:
    """Name of the Service that selects the canary revision."""
    return f"{service}-canary"


def selector_of(service: str, revision: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a service, or of one of its revisions."""
    return {SERVICE_LABEL: service} | ({REVISION_LABEL: revision} if revision else {})


def labels_of(service: str, revision: str | None = None, *, version: str | None = None) -> dict[str, str]:
    """The labels of an object of a service, or of one of its revisions; `version` is the tag of its image."""
    return {
        **selector_of(service, revision),
        "app.kubernetes.io/name": "pinn-inference",
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/component": "inference",
        "app.kubernetes.io/managed-by": MANAGER,
    } | ({"app.kubernetes.io/version": version} if version else {})


def placement(owner: Owner) -> dict[str, Any]:
    """The namespace and the owner reference of an object, as fields of its metadata."""
    # blockOwnerDeletion would need the right to update finalizers, and nothing here must hold a deletion up.
    reference = {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {"namespace": owner.namespace, "ownerReferences": [reference]}


def controller_uid(manifest: Manifest) -> str | None:
    """The uid of the object's controller, None if it has none. An object is ours if this is our resource's uid."""
    references = manifest["metadata"].get("ownerReferences") or ()
    return next((str(reference.get("uid")) for reference in references if reference.get("controller")), None)
