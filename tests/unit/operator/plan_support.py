"""A PINNService, and an object store that adds what a real API server adds to what is applied."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.decision import Action, Apply
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.http_route import parse_route
from pinn_operator.core.wanted.quantity import parse_quantity
from pinn_operator.core.wanted.revision import revision_of, serving_fields
from pinn_operator.kube.parsing import parse_record, parse_selector, parse_workload

IMAGE = "registry.example.com/pinn-inference:1.4.0"
HTTP_ROUTE: dict[str, Any] = {
    "router": "HTTPRoute",
    "parentRefs": [{"name": "edge", "namespace": "edge", "sectionName": "http"}],
    "hostnames": ["pricing.example.com"],
}


def a_resource(*, uid: str = "1b2c", **spec: Any) -> Resource:
    """A resource with only an image, and whatever fields are given."""
    manifest = {
        "apiVersion": "pinn.dev/v1alpha1",
        "kind": "PINNService",
        "metadata": {"name": "eu-options", "namespace": "pricing", "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {"image": IMAGE, **spec},
    }
    return parse_resource(manifest)


def revision_in(resource: Resource) -> str:
    """The revision that the resource's spec asks for."""
    return revision_of(serving_fields(resource.spec_manifest))


@dataclass
class Store:
    """Objects by (kind, name), as an API server would hold them after server-side apply."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def act(self, actions: Iterable[Action]) -> None:
        """Carries actions out."""
        for action in actions:
            if isinstance(action, Apply):
                manifest = copy.deepcopy(dict(action.manifest))
                key = (manifest["kind"], manifest["metadata"]["name"])
                self.objects[key] = _DEFAULTING.get(manifest["kind"], lambda made: made)(_stored(manifest))
            else:
                self.objects.pop((action.kind, action.name), None)

    def observed(self, *, route_kind_served: bool = True) -> Observed:
        """What a pass would see."""
        records = {}
        for (kind, _), live in self.objects.items():
            if kind == "ControllerRevision":
                record = parse_record(live)
                records[record.revision] = record
        route = next((parse_route(live) for (kind, _), live in self.objects.items() if kind == "HTTPRoute"), None)
        workloads = [parse_workload(live) for (kind, _), live in self.objects.items() if kind == "Deployment"]
        return Observed(
            workloads={workload.revision: workload for workload in workloads},
            selectors={name: parse_selector(live) for (kind, name), live in self.objects.items() if kind == "Service"},
            records=records,
            objects=self.objects,
            route=route,
            route_kind_served=route_kind_served,
        )

    def __getitem__(self, key: tuple[str, str]) -> dict[str, Any]:
        return self.objects[key]


def _stored(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["metadata"] |= {
        "uid": "f00d",
        "resourceVersion": "42",
        "generation": 3,
        "creationTimestamp": "2026-11-21T08:00:00Z",
        "managedFields": [{"manager": "pinn-operator", "operation": "Apply"}],
    }
    return manifest


def _deployment(live: dict[str, Any]) -> dict[str, Any]:
    live["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "1"
    live["status"] = {"observedGeneration": 3, "replicas": 1}
    live["spec"].setdefault("replicas", 1)
    pod = live["spec"]["template"]["spec"]
    pod |= {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler"}
    for account in {pod[key] for key in ("serviceAccountName",) if key in pod}:
        pod["serviceAccount"] = account
    for container in pod["containers"]:
        container["terminationMessagePath"] = "/dev/termination-log"
        container.setdefault("imagePullPolicy", "IfNotPresent")
        for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
            container[kind]["successThreshold"] = 1
        for quantities in container["resources"].values():
            quantities |= {key: _canonical(value) for key, value in quantities.items()}
    return _without_empty_texts(live)


def _service(live: dict[str, Any]) -> dict[str, Any]:
    live["spec"] |= {
        "clusterIP": "198.18.0.7",
        "clusterIPs": ["198.18.0.7"],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "None",
    }
    if live["spec"]["type"] != "ClusterIP":
        live["spec"]["externalTrafficPolicy"] = "Cluster"
        live["spec"]["ports"][0]["nodePort"] = 30080
    live["status"] = {"loadBalancer": {}}
    return live


def _route(live: dict[str, Any]) -> dict[str, Any]:
    live["status"] = {"parents": []}
    return live


_DEFAULTING = {"Deployment": _deployment, "Service": _service, "HTTPRoute": _route}


def _canonical(quantity: str | int) -> str:
    """Not how Kubernetes writes it, but another way to write the same value."""
    return f"{parse_quantity(str(quantity)) * 1000:f}m"


def _without_empty_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_empty_texts(item) for key, item in value.items() if item not in ("", [])}
    return [_without_empty_texts(item) for item in value] if isinstance(value, list) else value
