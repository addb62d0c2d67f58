"""The three Services of a PINNService, which every router needs: for clients, `-stable` and `-canary`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import (
    PORT_NAME,
    Owner,
    canary_service_name,
    labels_of,
    placement,
    selector_of,
    stable_service_name,
)
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.router import Split
from pinn_operator.core.wanted.spec import Traffic


def render_service(
    owner: Owner, name: str, *, selector: Mapping[str, str], port: int, service_type: str = "ClusterIP"
) -> dict[str, Any]:
    """A Service from `port` to the pods' http port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels_of(owner.name), **placement(owner)},
        "spec": {
            "type": service_type,
            "selector": dict(selector),
            "ports": [{"name": PORT_NAME, "port": port, "targetPort": PORT_NAME, "protocol": "TCP"}],
        },
    }


def render_services(owner: Owner, traffic: Traffic, split: Split, *, clients: str | None) -> Iterator[Manifest]:
    """All three. `clients` is the revision that the clients' Service selects, None for every revision."""
    selector, port = selector_of(owner.name, clients), traffic.service_port
    yield render_service(owner, owner.name, selector=selector, port=port, service_type=traffic.service_type)
    for name, revision in (
        (stable_service_name(owner.name), split.stable),
        (canary_service_name(owner.name), split.canary),
    ):
        yield render_service(owner, name, selector=selector_of(owner.name, revision), port=port)


def wanted_selectors(name: str, split: Split, *, clients: str | None) -> dict[str, dict[str, str]]:
    """What the three Services are to select, by the name of the Service."""
    return {
        name: selector_of(name, clients),
        stable_service_name(name): selector_of(name, split.stable),
        canary_service_name(name): selector_of(name, split.canary),
    }


def leads_to_stable(name: str, split: Split, observed: Observed) -> bool:
    """Whether traffic can be led back: the clients' Service is there and `-stable` selects the stable revision."""
    stable = observed.selectors.get(stable_service_name(name))
    return name in observed.selectors and stable == selector_of(name, split.stable)


def restore_services(name: str, observed: Observed) -> Traffic | None:
    """Port and type as the clients' Service has them; None if there is none."""
    service = observed.objects.get(("Service", name))
    if service is None:
        return None
    first_port: Manifest = next(iter(service["spec"].get("ports") or ()), {})
    return Traffic(
        service_port=int(first_port.get("port", Traffic().service_port)),
        service_type=str(service["spec"].get("type", "ClusterIP")),
    )
