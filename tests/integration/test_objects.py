"""What `plan` writes, against a real API server: accepted by strict validation, then at rest, repaired when edited.

The unit tests of `plan` use a store that imitates the API server's defaulting; here is the proof that it does so well.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.kube import REPOSITORY, Kube, program
from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.decision import Action, Apply
from pinn_operator.core.names import MANAGER
from pinn_operator.core.objects.desired import Desired
from pinn_operator.core.objects.plan import plan
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.spec import InvalidSpec
from tests.unit.operator.plan_support import HTTP_ROUTE, IMAGE, Store, revision_in

NAME = "eu-options"
GOLDEN = json.loads((REPOSITORY / "tests" / "unit" / "golden" / "revisions.json").read_text())
FULL: dict[str, Any] = copy.deepcopy(next(case["serving"] for case in GOLDEN if case["name"] == "every field"))
FULL["env"].append({"name": "EMPTY", "value": ""})
FULL["resources"] = {"requests": {"cpu": "0.25", "memory": "768.5Mi"}, "limits": {"cpu": "2000m", "memory": "2048Mi"}}
FULL["tolerations"] += [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]

SPECS: dict[str, dict[str, Any]] = {
    "only an image": {},
    "a node port": {"traffic": {"serviceType": "NodePort"}},
    "a load balancer": {"traffic": {"serviceType": "LoadBalancer", "servicePort": 8443}},
    "a route": {"traffic": HTTP_ROUTE},
    "every field": {**FULL, "traffic": HTTP_ROUTE},
}
_PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Service": "/api/v1/namespaces/{}/services",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace that admits only restricted pods, on a real API server."""

    kube: Kube
    namespace: str

    def write(self, **spec: Any) -> Resource:
        """The PINNService with this spec, as the API server gives it back."""
        path = f"/apis/pinn.dev/v1alpha1/namespaces/{self.namespace}/pinnservices/{NAME}"
        body = {
            "apiVersion": "pinn.dev/v1alpha1",
            "kind": "PINNService",
            "metadata": {"name": NAME},
            "spec": {"image": IMAGE, **spec},
        }
        resource = parse_resource(self._apply(path, body, manager="team"))
        assert not isinstance(resource.spec, InvalidSpec), resource.spec
        return resource

    def observed(self) -> Observed:
        """What a pass sees."""
        objects = {}
        for kind, path in _PATHS.items():
            answer = self.kube.request("GET", f"{path.format(self.namespace)}?labelSelector=pinn.dev/service={NAME}")
            assert answer.status == 200, answer
            for item in answer.body["items"]:
                objects[kind, item["metadata"]["name"]] = item
        return Store(objects).observed()

    def act(self, actions: tuple[Action, ...]) -> list[str]:
        """Carries actions out by strict server-side apply; tells what was done."""
        done = []
        for action in actions:
            if isinstance(action, Apply):
                manifest = action.manifest
                kind, name = manifest["kind"], manifest["metadata"]["name"]
                self._apply(f"{_PATHS[kind].format(self.namespace)}/{name}", manifest, manager=MANAGER)
                done.append(f"{kind} {name}")
            else:
                path = f"{_PATHS[action.kind].format(self.namespace)}/{action.name}"
                answer = self.kube.request("DELETE", path, {"propagationPolicy": "Background"})
                assert answer.status == 200, answer
                done.append(f"delete {action.kind} {action.name}")
        return done

    def patch(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        """An edit by hand."""
        path = f"{_PATHS[kind].format(self.namespace)}/{name}?fieldManager=somebody"
        answer = self.kube.request("PATCH", path, patch, content_type="application/merge-patch+json")
        assert answer.status == 200, answer

    def _apply(self, path: str, manifest: Any, *, manager: str) -> dict[str, Any]:
        answer = self.kube.request(
            "PATCH",
            f"{path}?fieldManager={manager}&force=true&fieldValidation=Strict",
            manifest,
            content_type="application/apply-patch+yaml",
        )
        assert answer.status in (200, 201), f"{path}: {answer.body}"
        body: dict[str, Any] = answer.body
        return body


@pytest.fixture(scope="module")
def kube(control_plane: Path) -> Iterator[Kube]:
    cluster = Kube(control_plane)
    routes = sorted(Path(program("contour")).parent.glob("gateway-crds/*_httproutes.yaml"))
    for path in (REPOSITORY / "crds" / "pinnservices.yaml", *routes):
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(path))
    yield cluster
    cluster.close()


@pytest.fixture
def place(kube: Kube, request: pytest.FixtureRequest) -> Iterator[Place]:
    namespace = f"objects-{abs(hash(request.node.nodeid)) % 10**8}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    yield Place(kube, namespace)
    kube.kubectl("delete", "namespace", namespace, "--wait=false")


def start(place: Place, **spec: Any) -> tuple[Resource, Desired]:
    resource = place.write(**spec)
    revision = revision_in(resource)
    desired = Desired({revision: 3}, revision, revision, 0, new_revision=revision)
    place.act(plan(resource, desired, place.observed()))
    return resource, desired


def roll(place: Place, weight: int, **spec: Any) -> tuple[Resource, Desired, str, str]:
    old, _ = start(place, **spec)
    new = place.write(**{**spec, "image": f"{IMAGE}1"})
    stable, canary = revision_in(old), revision_in(new)
    desired = Desired({stable: 3, canary: 2}, stable, canary, weight, new_revision=canary)
    place.act(plan(new, desired, place.observed()))
    return new, desired, stable, canary


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_everything_is_accepted_by_strict_validation_and_then_at_rest(place: Place, spec: dict[str, Any]) -> None:
    resource, desired = start(place, **spec)
    assert plan(resource, desired, place.observed()) == ()
    changed = place.write(**{**spec, "image": f"{IMAGE}1"})
    stable, canary = revision_in(resource), revision_in(changed)
    for weight in (0, 10, 50, 100):
        wanted = Desired({stable: 3, canary: 1 + weight // 50}, stable, canary, weight, new_revision=canary)
        place.act(plan(changed, wanted, place.observed()))
        assert plan(changed, wanted, place.observed()) == ()
    promoted = Desired({stable: 0, canary: 3}, canary, canary, 0)
    place.act(plan(changed, promoted, place.observed()))
    assert plan(changed, promoted, place.observed()) == ()
    forgotten = Desired({canary: 3}, canary, canary, 0, forget=(stable,))
    assert place.act(plan(changed, forgotten, place.observed())) == [
        f"delete Deployment {NAME}-{stable}",
        f"delete ControllerRevision {NAME}-{stable}",
    ]


def test_pods_are_admitted_where_only_restricted_ones_are(place: Place) -> None:
    _, desired = start(place, **SPECS["a route"])
    deployment = place.observed().objects["Deployment", f"{NAME}-{desired.stable}"]
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", **template["metadata"]}, **template}
    pod["metadata"] = {"name": "one", "labels": template["metadata"]["labels"]}
    answer = place.kube.request("POST", f"/api/v1/namespaces/{place.namespace}/pods?dryRun=All", pod)
    assert answer.status == 201, answer.body


EDITS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "replicas": ("Deployment eu-options-{canary}", "Deployment", "eu-options-{canary}", {"spec": {"replicas": 7}}),
    "selector": (
        "Service eu-options-stable",
        "Service",
        "eu-options-stable",
        {"spec": {"selector": {"extra": "label"}}},
    ),
    "a label": (
        "Service eu-options-canary",
        "Service",
        "eu-options-canary",
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}},
    ),
    "hostnames": ("HTTPRoute eu-options", "HTTPRoute", "eu-options", {"spec": {"hostnames": ["other.example.com"]}}),
}


@pytest.mark.parametrize(("written", "kind", "name", "patch"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_by_hand_is_repaired_by_one_write(
    place: Place, written: str, kind: str, name: str, patch: dict[str, Any]
) -> None:
    resource, desired, _, canary = roll(place, 10, traffic=HTTP_ROUTE)
    place.patch(kind, name.format(canary=canary), patch)
    assert place.act(plan(resource, desired, place.observed())) == [written.format(canary=canary)]
    assert plan(resource, desired, place.observed()) == ()


def _weights(route: dict[str, Any], stable: int, canary: int) -> None:
    backends = route["rules"][0]["backendRefs"]
    backends[0]["weight"], backends[1]["weight"] = stable, canary


ROUTE_EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a higher weight": lambda route: _weights(route, 10, 90),
    "a lower weight": lambda route: _weights(route, 100, 0),
    "weights that do not sum to 100": lambda route: _weights(route, 3, 3),
    "a filter": lambda route: route["rules"][0].update(
        filters=[
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]},
            }
        ]
    ),
    "a second rule": lambda route: route["rules"].append({"matches": [{"path": {"value": "/admin"}}]}),
}


@pytest.mark.parametrize("edit", ROUTE_EDITS.values(), ids=ROUTE_EDITS.keys())
def test_a_route_that_was_edited_by_hand_is_put_right(place: Place, edit: Callable[[dict[str, Any]], object]) -> None:
    resource, desired, _, _ = roll(place, 10, traffic=HTTP_ROUTE)
    before = place.observed().objects["HTTPRoute", NAME]["spec"]
    edited = copy.deepcopy(before)
    edit(edited)
    place.patch("HTTPRoute", NAME, {"spec": edited})
    assert place.observed().objects["HTTPRoute", NAME]["spec"] != before
    assert place.act(plan(resource, desired, place.observed())) == [f"HTTPRoute {NAME}"]
    assert place.observed().objects["HTTPRoute", NAME]["spec"] == before


def test_a_field_that_leaves_the_spec_leaves_the_route(place: Place) -> None:
    _, desired, _, _ = roll(place, 10, traffic=HTTP_ROUTE)
    traffic = {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]}
    changed = place.write(image=f"{IMAGE}1", traffic=traffic)
    record = f"ControllerRevision {NAME}-{revision_in(changed)}"
    assert place.act(plan(changed, desired, place.observed())) == [f"HTTPRoute {NAME}", record]
    spec = place.observed().objects["HTTPRoute", NAME]["spec"]
    assert spec["hostnames"] == []
    assert "sectionName" not in spec["parentRefs"][0]


def test_leaving_the_router_removes_the_route(place: Place) -> None:
    _, desired, _, _ = roll(place, 10, traffic=HTTP_ROUTE)
    changed = place.write(image=f"{IMAGE}1")
    record = f"ControllerRevision {NAME}-{revision_in(changed)}"
    writes = place.act(plan(changed, desired, place.observed()))
    assert writes == [f"Service {NAME}", record, f"delete HTTPRoute {NAME}"]
    assert plan(changed, desired, place.observed()) == ()
    assert place.observed().records[revision_in(changed)].spec == changed.spec


def test_a_lost_record_is_made_again_without_a_change_of_any_pod(place: Place) -> None:
    resource, desired, stable, _ = roll(place, 10)
    before = place.observed().objects["Deployment", f"{NAME}-{stable}"]["spec"]["template"]
    place.kube.delete("controllerrevision", f"{NAME}-{stable}", place.namespace)
    assert f"ControllerRevision {NAME}-{stable}" in place.act(plan(resource, desired, place.observed()))
    assert place.observed().objects["Deployment", f"{NAME}-{stable}"]["spec"]["template"] == before
    assert plan(resource, desired, place.observed()) == ()


def test_a_resource_made_again_adopts_what_an_orphaning_deletion_left(place: Place) -> None:
    _, desired, _, _ = roll(place, 10, traffic=HTTP_ROUTE)
    path = f"/apis/pinn.dev/v1alpha1/namespaces/{place.namespace}/pinnservices/{NAME}"
    answer = place.kube.request("DELETE", path, {"propagationPolicy": "Orphan"})
    assert answer.status == 200, answer
    deadline = time.monotonic() + 60
    while place.kube.request("GET", path).status != 404:
        assert time.monotonic() < deadline, "the resource is not gone"
        time.sleep(0.1)
    again = place.write(image=f"{IMAGE}1", traffic=HTTP_ROUTE)
    place.act(plan(again, desired, place.observed()))
    owners = [live["metadata"]["ownerReferences"] for live in place.observed().objects.values()]
    assert [[owner["uid"] for owner in references] for references in owners] == [[again.uid]] * len(owners)
    assert plan(again, desired, place.observed()) == ()


def test_deletion_of_the_resource_leaves_nothing_behind(place: Place) -> None:
    roll(place, 10, traffic=HTTP_ROUTE)
    place.kube.delete("pinnservice", NAME, place.namespace)
    deadline = time.monotonic() + 60
    while place.observed().objects:
        assert time.monotonic() < deadline, list(place.observed().objects)
        time.sleep(0.1)
