"""The API of a PINNService: manifests in, values out, and a status back into a manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.status.json import (
    format_time,
    parse_time,
    status_from_manifest,
    status_to_manifest,
)
from pinn_operator.core.status.values import Status
from pinn_operator.core.wanted.parsing import parse_spec
from pinn_operator.core.wanted.promql import fault_of
from pinn_operator.core.wanted.queries import filled_for_checking
from pinn_operator.core.wanted.spec import FieldError, InvalidSpec, Spec

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "RETRY_ANNOTATION",
    "VERSION",
    "Resource",
    "format_time",
    "parse_resource",
    "parse_spec",
    "parse_time",
    "status_from_manifest",
    "status_to_manifest",
]

GROUP: Final = "pinn.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "PINNService"
PLURAL: Final = "pinnservices"

RETRY_ANNOTATION: Final = "pinn.dev/retry"
"""An order: any new value starts a rejected or suspended revision again, once."""
ORDER_ID_LIMIT: Final = 256

NAME_LIMIT: Final = 37
"""Pods are called <name>-<8 hex>-<10>-<5>: at most 63 characters, so never cut, and metrics go by that name."""
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Resource:
    """One PINNService as read from the API server. `spec_manifest` is its `spec` as it is there."""

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    spec: Spec | InvalidSpec
    status: Status
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    spec_manifest: Manifest = field(default_factory=dict)
    retry: str = ""
    """The id of an order to retry, from the annotation `pinn.dev/retry`; empty if there is none."""


def parse_resource(manifest: Manifest) -> Resource:
    """A PINNService as values. Faults of its spec, or of its name, are in `spec`; never raises for bad input."""
    metadata = _object(manifest.get("metadata"))
    spec_manifest = _object(manifest.get("spec"))
    name = str(metadata.get("name") or "")
    spec = parse_spec(spec_manifest)
    faults = _name_faults(name) + _query_faults(spec)
    if faults:
        spec = InvalidSpec(faults + (spec.errors if isinstance(spec, InvalidSpec) else ()))
    generation = metadata.get("generation")
    return Resource(
        name=name,
        namespace=str(metadata.get("namespace") or ""),
        uid=str(metadata.get("uid") or ""),
        generation=generation if isinstance(generation, int) else 0,
        resource_version=str(metadata.get("resourceVersion") or ""),
        spec=spec,
        status=status_from_manifest(_object(manifest.get("status"))),
        deleting=metadata.get("deletionTimestamp") is not None,
        finalizers=tuple(map(str, metadata.get("finalizers") or ())),
        spec_manifest=spec_manifest,
        retry=str(_object(metadata.get("annotations")).get(RETRY_ANNOTATION) or "")[:ORDER_ID_LIMIT],
    )


def _query_faults(spec: Spec | InvalidSpec) -> tuple[FieldError, ...]:
    """Custom queries that no server could answer.

    Only what is wanted now is checked so, not the record of what was accepted once: a rollout in flight must not lose
    its gates because a newer operator reads PromQL more strictly.
    """
    if isinstance(spec, InvalidSpec):
        return ()
    faults = []
    for gate in spec.analysis.gates:
        fault = fault_of(filled_for_checking(gate.query)) if gate.query is not None else None
        if fault is not None:
            faults.append(FieldError(f"spec.analysis.gates[{gate.name}].query", fault))
    return tuple(faults)


def _name_faults(name: str) -> tuple[FieldError, ...]:
    faults = []
    if _NAME.fullmatch(name) is None:
        faults.append(
            FieldError(
                "metadata.name",
                "must be lower case letters, digits and '-', start with a letter and end with a letter or digit, "
                f"not {name!r}",
            )
        )
    if len(name) > NAME_LIMIT:
        faults.append(
            FieldError(
                "metadata.name",
                f"must have at most {NAME_LIMIT} characters, not {len(name)}: the names of its pods are made from it",
            )
        )
    return tuple(faults)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
