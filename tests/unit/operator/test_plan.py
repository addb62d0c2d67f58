"""Only what is missing is written, in the order that is safe, and what was edited by hand is repaired."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Action, Apply
from pinn_operator.core.names import selector_of
from pinn_operator.core.objects import deployment
from pinn_operator.core.objects.desired import Desired
from pinn_operator.core.objects.difference import covers
from pinn_operator.core.objects.plan import plan
from pinn_operator.core.objects.records import ACCEPTED_ANNOTATION, reproducible
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.spec import FieldError, InvalidSpec
from tests.unit.operator.plan_support import HTTP_ROUTE, Store, a_resource, revision_in

NAME = "eu-options"


def described(actions: tuple[Action, ...]) -> list[str]:
    return [
        f"{action.manifest['kind']} {action.manifest['metadata']['name']}"
        if isinstance(action, Apply)
        else f"delete {action.kind} {action.name}"
        for action in actions
    ]


def settled(resource: Resource, desired: Desired) -> Store:
    store = Store()
    store.act(plan(resource, desired, store.observed()))
    return store


def first_revision(resource: Resource, *, replicas: int = 3) -> Desired:
    revision = revision_in(resource)
    return Desired({revision: replicas}, stable=revision, canary=revision, canary_weight=0, new_revision=revision)


def a_rollout(weight: int = 0, **traffic: Any) -> tuple[Resource, Desired, Store, str, str]:
    """A resource in the middle of a rollout: the old revision runs, the new one is in the spec."""
    old = a_resource(traffic=traffic) if traffic else a_resource()
    store = settled(old, first_revision(old))
    new = a_resource(**{**old.spec_manifest, "image": "registry.example.com/pinn-inference:1.5.0"})
    stable, canary = revision_in(old), revision_in(new)
    desired = Desired({stable: 3, canary: 1}, stable, canary, weight, new_revision=canary)
    store.act(plan(new, desired, store.observed()))
    return new, desired, store, stable, canary


def test_a_resource_with_only_an_image_becomes_record_deployment_and_three_services() -> None:
    resource = a_resource()
    revision = revision_in(resource)
    assert described(plan(resource, first_revision(resource), Observed())) == [
        f"ControllerRevision {NAME}-{revision}",
        f"Deployment {NAME}-{revision}",
        f"Service {NAME}",
        f"Service {NAME}-stable",
        f"Service {NAME}-canary",
    ]


SPECS: dict[str, dict[str, Any]] = {
    "only an image": {},
    "a route": {"traffic": HTTP_ROUTE},
    "a node port": {"traffic": {"serviceType": "NodePort"}},
    "quantities that the server writes otherwise": {"resources": {"limits": {"cpu": "1000m", "memory": "2048Mi"}}},
    "an empty variable": {"env": [{"name": "A", "value": ""}, {"name": "B", "value": "1"}]},
    "an empty toleration value": {"tolerations": [{"key": "a", "operator": "Equal", "value": ""}]},
    "a model and scheduling": {
        "model": {"persistentVolumeClaim": {"claimName": "models", "path": "a"}, "sha256": "ab" * 32},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "serviceAccountName": "pricing",
        "imagePullSecrets": [{"name": "registry"}],
        "args": ["serve"],
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("replicas", [0, 3])
def test_a_pass_without_news_writes_nothing(spec: dict[str, Any], replicas: int) -> None:
    resource = a_resource(**spec)
    assert not isinstance(resource.spec, InvalidSpec), resource.spec
    desired = first_revision(resource, replicas=replicas)
    store = settled(resource, desired)
    assert plan(resource, desired, store.observed()) == ()
    assert plan(resource, replace(desired, new_revision=None), store.observed()) == ()


@pytest.mark.parametrize("weight", [0, 10, 50, 100])
@pytest.mark.parametrize("traffic", [{}, HTTP_ROUTE], ids=["Replicas", "HTTPRoute"])
def test_a_rollout_at_rest_writes_nothing(weight: int, traffic: dict[str, Any]) -> None:
    resource, desired, store, _, _ = a_rollout(weight, **traffic)
    assert plan(resource, desired, store.observed()) == ()


def test_items_of_a_list_are_compared_though_they_do_not_say_what_they_are() -> None:
    resource, desired, store, _, _ = a_rollout(10, **HTTP_ROUTE)
    for live in store.objects.values():
        del live["apiVersion"], live["kind"]
    assert plan(resource, desired, store.observed()) == ()


def test_capacity_is_added_before_traffic_moves_and_removed_after() -> None:
    resource, desired, store, stable, canary = a_rollout(50, **HTTP_ROUTE)
    forgotten = "0badcafe"
    for kind in ("Deployment", "ControllerRevision"):
        made = copy.deepcopy(store[kind, f"{NAME}-{stable}"])
        made["metadata"]["name"] = f"{NAME}-{forgotten}"
        made["metadata"]["labels"]["pinn.dev/revision"] = forgotten
        store.objects[kind, f"{NAME}-{forgotten}"] = made
    wanted = replace(
        desired, replicas={stable: 0, canary: 3}, stable=canary, canary_weight=0, forget=(forgotten,), new_revision=None
    )
    assert described(plan(resource, wanted, store.observed())) == [
        f"Deployment {NAME}-{canary}",
        f"Service {NAME}",
        f"Service {NAME}-stable",
        f"HTTPRoute {NAME}",
        f"Deployment {NAME}-{stable}",
        f"delete Deployment {NAME}-{forgotten}",
        f"delete ControllerRevision {NAME}-{forgotten}",
    ]


@pytest.mark.parametrize("traffic", [{}, HTTP_ROUTE])
def test_the_canary_loses_its_traffic_before_any_other_write_can_fail(traffic: dict[str, Any]) -> None:
    resource, desired, store, stable, canary = a_rollout(50, **traffic)
    asked = a_resource(**{**resource.spec_manifest, "traffic": {**traffic, "serviceType": "LoadBalancer"}})
    back = replace(desired, replicas={stable: 5, canary: 1}, canary_weight=0)
    first, *others = plan(asked, back, store.observed())
    assert isinstance(first, Apply)
    assert described((first,)) == [f"{'HTTPRoute' if traffic else 'Service'} {NAME}"]
    store.act((first,))
    live = store["Service", NAME]["spec"]
    assert (live["type"], live["selector"]) == ("ClusterIP", selector_of(NAME, stable))
    if traffic:
        weights = [backend["weight"] for backend in store["HTTPRoute", NAME]["spec"]["rules"][0]["backendRefs"]]
        assert weights == [100, 0]
    assert described(plan(asked, back, store.observed())) == described(tuple(others))
    store.act(others)
    assert plan(asked, back, store.observed()) == ()
    assert store["Service", NAME]["spec"]["type"] == "LoadBalancer"


def test_promotion_moves_selectors_and_leaves_the_canary_pods_alone() -> None:
    resource, desired, store, _, canary = a_rollout(100, **HTTP_ROUTE)
    before = copy.deepcopy(store["Deployment", f"{NAME}-{canary}"]["spec"]["template"])
    promoted = replace(desired, stable=canary, canary_weight=0, new_revision=None)
    store.act(plan(resource, promoted, store.observed()))
    assert store["Deployment", f"{NAME}-{canary}"]["spec"]["template"] == before
    for suffix in ("", "-stable", "-canary"):
        assert store["Service", NAME + suffix]["spec"]["selector"]["pinn.dev/revision"] == canary


def test_changes_of_policy_never_touch_a_pod() -> None:
    resource, desired, store, _, canary = a_rollout(10, **HTTP_ROUTE)
    traffic = {**HTTP_ROUTE, "hostnames": ["prices.example.com"]}
    changed = a_resource(**{**resource.spec_manifest, "traffic": traffic, "paused": True})
    writes = described(plan(changed, desired, store.observed()))
    assert writes == [f"HTTPRoute {NAME}", f"ControllerRevision {NAME}-{canary}"]


def test_a_field_that_left_the_spec_leaves_the_object() -> None:
    resource, desired, store, _, canary = a_rollout(10, **HTTP_ROUTE)
    traffic = {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]}
    changed = a_resource(**{**resource.spec_manifest, "traffic": traffic})
    writes = described(plan(changed, desired, store.observed()))
    assert writes == [f"HTTPRoute {NAME}", f"ControllerRevision {NAME}-{canary}"]


@pytest.mark.parametrize(
    ("weight", "expected"), [(0, "stable"), (1, "both"), (50, "both"), (99, "both"), (100, "canary")]
)
def test_without_a_router_the_clients_service_selects_by_weight(weight: int, expected: str) -> None:
    _, _, store, stable, canary = a_rollout(weight)
    selector = store["Service", NAME]["spec"]["selector"]
    revision = {"stable": stable, "canary": canary}.get(expected)
    assert selector == {"pinn.dev/service": NAME} | ({"pinn.dev/revision": revision} if revision else {})


@pytest.mark.parametrize("weight", [0, 10, 100])
def test_with_a_router_the_clients_service_selects_stable_whatever_the_weight(weight: int) -> None:
    _, _, store, stable, canary = a_rollout(weight, **HTTP_ROUTE)
    assert store["Service", NAME]["spec"]["selector"]["pinn.dev/revision"] == stable
    assert store["Service", f"{NAME}-stable"]["spec"]["selector"]["pinn.dev/revision"] == stable
    assert store["Service", f"{NAME}-canary"]["spec"]["selector"]["pinn.dev/revision"] == canary


@given(st.integers(0, 100))
def test_weights_always_sum_to_100(weight: int) -> None:
    _, _, store, _, _ = a_rollout(weight, **HTTP_ROUTE)
    backends = store["HTTPRoute", NAME]["spec"]["rules"][0]["backendRefs"]
    assert {backend["name"]: backend["weight"] for backend in backends} == {
        f"{NAME}-stable": 100 - weight,
        f"{NAME}-canary": weight,
    }


def _edit_weights(stable: int, canary: int) -> Callable[[Store, str], None]:
    def edit(store: Store, _: str) -> None:
        backends = store["HTTPRoute", NAME]["spec"]["rules"][0]["backendRefs"]
        backends[0]["weight"], backends[1]["weight"] = stable, canary

    return edit


def _edit(kind: str, suffix: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Store, str], None]:
    def edit(store: Store, canary: str) -> None:
        change(store[kind, NAME + suffix.format(canary=canary)]["spec"])

    return edit


def _pod_container(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["template"]["spec"]["containers"][0]
    return found


EDITS: dict[str, tuple[str, Callable[[Store, str], None]]] = {
    "a higher weight": ("HTTPRoute eu-options", _edit_weights(50, 50)),
    "a lower weight": ("HTTPRoute eu-options", _edit_weights(100, 0)),
    "weights that do not sum to 100": ("HTTPRoute eu-options", _edit_weights(90, 90)),
    "another rule": (
        "HTTPRoute eu-options",
        _edit("HTTPRoute", "", lambda spec: spec["rules"].append(copy.deepcopy(spec["rules"][0]))),
    ),
    "a filter": (
        "HTTPRoute eu-options",
        _edit("HTTPRoute", "", lambda spec: spec["rules"][0].update(filters=[{"type": "RequestRedirect"}])),
    ),
    "another backend": (
        "HTTPRoute eu-options",
        _edit("HTTPRoute", "", lambda spec: spec["rules"][0]["backendRefs"].append({"name": "x", "weight": 5})),
    ),
    "another selector": (
        "Service eu-options-canary",
        _edit("Service", "-canary", lambda spec: spec["selector"].update({"pinn.dev/revision": "ffffffff"})),
    ),
    "one selector more": (
        "Service eu-options-stable",
        _edit("Service", "-stable", lambda spec: spec["selector"].update({"app": "other"})),
    ),
    "one selector less": (
        "Service eu-options",
        _edit("Service", "", lambda spec: spec["selector"].pop("pinn.dev/revision")),
    ),
    "another port": ("Service eu-options", _edit("Service", "", lambda spec: spec["ports"][0].update(port=81))),
    "other replicas": (
        "Deployment eu-options-{canary}",
        _edit("Deployment", "-{canary}", lambda spec: spec.update(replicas=9)),
    ),
    "another image": (
        "Deployment eu-options-{canary}",
        _edit("Deployment", "-{canary}", lambda spec: _pod_container(spec).update(image="evil:1")),
    ),
    "a variable less": (
        "Deployment eu-options-{canary}",
        _edit("Deployment", "-{canary}", lambda spec: _pod_container(spec)["env"].pop()),
    ),
    "a privilege more": (
        "Deployment eu-options-{canary}",
        _edit(
            "Deployment",
            "-{canary}",
            lambda spec: _pod_container(spec)["securityContext"].update(readOnlyRootFilesystem=False),
        ),
    ),
    "a lower memory limit": (
        "Deployment eu-options-{canary}",
        _edit(
            "Deployment", "-{canary}", lambda spec: _pod_container(spec)["resources"]["limits"].update(memory="64Mi")
        ),
    ),
}


@pytest.mark.parametrize(("written", "edit"), EDITS.values(), ids=EDITS.keys())
def test_what_was_edited_by_hand_is_repaired_and_nothing_else_is_written(
    written: str, edit: Callable[[Store, str], None]
) -> None:
    resource, desired, store, _, canary = a_rollout(10, **HTTP_ROUTE)
    edit(store, canary)
    actions = plan(resource, desired, store.observed())
    assert described(actions) == [written.format(canary=canary)]
    store.act(actions)
    assert plan(resource, desired, store.observed()) == ()


@pytest.mark.parametrize("key", ["Deployment", "Service", "HTTPRoute", "ControllerRevision"])
def test_what_was_deleted_by_hand_is_made_again(key: str) -> None:
    resource, desired, store, _, canary = a_rollout(10, **HTTP_ROUTE)
    name = f"{NAME}-{canary}" if key in ("Deployment", "ControllerRevision") else NAME
    before = store.objects.pop((key, name))
    actions = plan(resource, replace(desired, new_revision=None), store.observed())
    assert described(actions) == [f"{key} {name}"]
    store.act(actions)
    assert store[key, name] == before


def test_what_other_controllers_add_is_left_alone() -> None:
    resource, desired, store, _, canary = a_rollout(10, **HTTP_ROUTE)
    deployment = store["Deployment", f"{NAME}-{canary}"]
    deployment["metadata"]["labels"]["topology"] = "east"
    deployment["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    deployment["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "proxy:1"})
    _pod_container(deployment["spec"]).setdefault("env", []).append({"name": "PROXY"})
    store["Service", NAME]["metadata"]["annotations"]["example.com/load-balancer"] = "internal"
    assert plan(resource, desired, store.observed()) == ()


def test_a_newer_operator_leaves_recorded_pods_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    resource, desired, store, stable, canary = a_rollout(10, **HTTP_ROUTE)
    templates = {rev: json.dumps(store["Deployment", f"{NAME}-{rev}"]["spec"]["template"]) for rev in (stable, canary)}
    monkeypatch.setattr(deployment, "CONTAINER", "server")
    monkeypatch.setattr(deployment, "DEFAULT_TERMINATION_SECONDS", 90)
    assert plan(resource, desired, store.observed()) == ()
    scaled = replace(desired, replicas={stable: 4, canary: 2})
    actions = plan(resource, scaled, store.observed())
    assert sorted(described(actions)) == sorted(f"Deployment {NAME}-{rev}" for rev in (stable, canary))
    store.act(actions)
    assert templates == {
        rev: json.dumps(store["Deployment", f"{NAME}-{rev}"]["spec"]["template"]) for rev in (stable, canary)
    }


def test_a_revision_accepted_before_is_taken_from_its_record_not_from_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = a_resource()
    desired = first_revision(resource)
    store = settled(resource, desired)
    template = copy.deepcopy(store["Deployment", f"{NAME}-{revision_in(resource)}"]["spec"]["template"])
    del store.objects["Deployment", f"{NAME}-{revision_in(resource)}"]
    monkeypatch.setattr(deployment, "CONTAINER", "server")
    store.act(plan(resource, desired, store.observed()))
    assert store["Deployment", f"{NAME}-{revision_in(resource)}"]["spec"]["template"] == template


def test_record_holds_workload_and_accepted_spec_and_numbers_rise() -> None:
    resource, _, store, stable, canary = a_rollout(10)
    record = store["ControllerRevision", f"{NAME}-{canary}"]
    assert record["data"]["spec"] == resource.spec_manifest
    assert "replicas" not in record["data"]["workload"]["spec"]
    assert [store["ControllerRevision", f"{NAME}-{rev}"]["revision"] for rev in (stable, canary)] == [1, 2]


def test_a_record_follows_the_edits_of_its_spec_and_its_data_never_changes() -> None:
    resource, desired, store, _, canary = a_rollout(10)
    key = ("ControllerRevision", f"{NAME}-{canary}")
    first = copy.deepcopy(store[key]["data"])
    for number, edit in enumerate(({"paused": True}, {"analysis": {"intervalSeconds": 20}}, {})):
        edited = a_resource(**{**resource.spec_manifest, **edit})
        actions = plan(edited, desired, store.observed())
        assert described(actions) == [f"ControllerRevision {NAME}-{canary}"], number
        store.act(actions)
        assert plan(edited, desired, store.observed()) == ()
        assert store.observed().records[canary].spec == edited.spec
        assert store[key]["data"] == first


def test_replicas_that_an_autoscaler_writes_are_no_edit_of_a_record() -> None:
    resource, desired, store, _, _ = a_rollout(10)
    scaled = a_resource(**{**resource.spec_manifest, "replicas": 7})
    assert "ControllerRevision" not in str(described(plan(scaled, desired, store.observed())))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"replicas": "many"}', "null"])
def test_an_annotation_that_somebody_else_wrote_leaves_what_the_record_was_made_for(text: str) -> None:
    _, _, store, _, canary = a_rollout(10)
    known = store.observed().records[canary].spec
    assert known is not None
    store["ControllerRevision", f"{NAME}-{canary}"]["metadata"]["annotations"] = {ACCEPTED_ANNOTATION: text}
    assert store.observed().records[canary].spec == known


def test_a_lost_record_is_written_again_from_what_runs() -> None:
    resource, desired, store, stable, _ = a_rollout(10)
    lost = store.objects.pop(("ControllerRevision", f"{NAME}-{stable}"))
    actions = plan(resource, desired, store.observed())
    assert f"ControllerRevision {NAME}-{stable}" in described(actions)
    assert not any(described((action,)) == [f"Deployment {NAME}-{rev}"] for action in actions for rev in ("canary",))
    store.act(actions)
    made = store["ControllerRevision", f"{NAME}-{stable}"]["data"]["workload"]
    assert covers(made["spec"], lost["data"]["workload"]["spec"])
    assert plan(resource, desired, store.observed()) == ()


def test_a_revision_that_nothing_remembers_cannot_be_made_and_says_so() -> None:
    resource, desired, store, stable, canary = a_rollout(10)
    del store.objects["ControllerRevision", f"{NAME}-{stable}"]
    del store.objects["Deployment", f"{NAME}-{stable}"]
    assert not reproducible(resource, stable, store.observed())
    assert reproducible(resource, canary, store.observed())
    assert not any(stable in line for line in described(plan(resource, desired, store.observed())))


def test_an_invalid_spec_keeps_what_clients_use_and_still_moves_the_weight() -> None:
    resource, desired, store, _, _ = a_rollout(50, **HTTP_ROUTE)
    invalid = replace(resource, spec=InvalidSpec((FieldError("spec.replicas", "must be from 0 to 1000"),)))
    assert plan(invalid, desired, store.observed()) == ()
    before = copy.deepcopy(store["HTTPRoute", NAME]["spec"])
    actions = plan(invalid, replace(desired, canary_weight=0), store.observed())
    assert described(actions) == [f"HTTPRoute {NAME}"]
    store.act(actions)
    after = store["HTTPRoute", NAME]["spec"]
    assert [backend["weight"] for backend in after["rules"][0].pop("backendRefs")] == [100, 0]
    before["rules"][0].pop("backendRefs")
    assert after == before


def test_an_invalid_spec_takes_lost_services_from_the_last_accepted_spec() -> None:
    resource, desired, store, _, _ = a_rollout(50, **HTTP_ROUTE)
    invalid = replace(resource, spec=InvalidSpec((FieldError("spec.replicas", "must be from 0 to 1000"),)))
    before = {key: store.objects.pop(key) for key in list(store.objects) if key[0] in ("Service", "HTTPRoute")}
    store.act(plan(invalid, desired, store.observed()))
    assert {key: store.objects.get(key) for key in before} == before


def test_leaving_the_router_deletes_its_route_after_the_services_select_pods() -> None:
    resource, desired, store, _, canary = a_rollout(50, **HTTP_ROUTE)
    changed = a_resource(**{**resource.spec_manifest, "traffic": {"router": "Replicas"}})
    writes = described(plan(changed, desired, store.observed()))
    assert writes == [f"Service {NAME}", f"ControllerRevision {NAME}-{canary}", f"delete HTTPRoute {NAME}"]


def test_objects_of_another_owner_are_never_deleted() -> None:
    resource, desired, store, stable, _ = a_rollout(0, **HTTP_ROUTE)
    for key in (("HTTPRoute", NAME), ("Deployment", f"{NAME}-{stable}")):
        store[key]["metadata"]["ownerReferences"] = [{"uid": "someone", "controller": True}]
    changed = a_resource(**{**resource.spec_manifest, "traffic": {"router": "Replicas"}})
    canary = desired.canary
    wanted = Desired({canary: 3}, canary, canary, 0, forget=(stable,))
    deleted = [line for line in described(plan(changed, wanted, store.observed())) if line.startswith("delete")]
    assert deleted == [f"delete ControllerRevision {NAME}-{stable}"]


def test_a_resource_made_again_adopts_the_objects_that_were_left() -> None:
    resource, desired, store, _, _ = a_rollout(10, **HTTP_ROUTE)
    for live in store.objects.values():
        del live["metadata"]["ownerReferences"]
    again = replace(resource, uid="9f9f")
    data = {key: copy.deepcopy(live["data"]) for key, live in store.objects.items() if "data" in live}
    store.act(plan(again, desired, store.observed()))
    assert {live["metadata"]["ownerReferences"][0]["uid"] for live in store.objects.values()} == {"9f9f"}
    assert {key: store[key]["data"] for key in data} == data


def test_no_route_is_written_where_the_api_server_knows_none() -> None:
    resource = a_resource(traffic=HTTP_ROUTE)
    actions = plan(resource, first_revision(resource), Observed(route_kind_served=False))
    assert not any("HTTPRoute" in line for line in described(actions))


def test_revisions_that_are_not_mentioned_are_left_alone() -> None:
    resource, desired, store, stable, canary = a_rollout(100)
    only = replace(desired, replicas={canary: 3}, stable=canary, new_revision=None)
    assert not any(stable in line for line in described(plan(resource, only, store.observed())))


@pytest.mark.parametrize("weight", [-1, 101])
def test_a_weight_outside_its_range_is_refused(weight: int) -> None:
    resource = a_resource()
    with pytest.raises(ValueError, match="outside 0–100"):
        plan(resource, replace(first_revision(resource), canary_weight=weight), Observed())


def test_a_revision_cannot_be_kept_and_forgotten() -> None:
    resource = a_resource()
    desired = first_revision(resource)
    with pytest.raises(ValueError, match=f"kept and forgotten: {desired.stable}"):
        plan(resource, replace(desired, forget=(desired.stable,)), Observed())


manifests = st.recursive(
    st.text(max_size=4) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
    max_leaves=10,
)


@given(manifests)
def test_everything_covers_itself(manifest: Any) -> None:
    assert covers(copy.deepcopy(manifest), manifest)


@given(st.dictionaries(st.sampled_from("abc"), manifests), st.dictionaries(st.sampled_from("xyz"), manifests))
def test_fields_that_others_added_do_not_matter(manifest: dict[str, Any], more: dict[str, Any]) -> None:
    assert covers({**more, **manifest}, manifest)


@given(manifests, manifests)
def test_a_covered_value_can_be_told_from_another_leaf(live: Any, desired: Any) -> None:
    if covers({"field": live}, {"field": desired}) and not isinstance(desired, (dict, list)):
        assert live == desired
        assert type(live) is type(desired)


@pytest.mark.parametrize(
    ("live", "desired", "result"),
    [
        (None, {}, True),
        ({}, {"filters": []}, True),
        ({"filters": [1]}, {"filters": []}, False),
        ({}, {"group": ""}, True),
        ({"group": "apps"}, {"group": ""}, False),
        ({}, {"readOnly": False}, False),
        ({}, {"replicas": 0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1000m"}}, True),
        ({"limits": {"cpu": 1}}, {"limits": {"cpu": "1"}}, True),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1", "memory": "1Gi"}}, False),
        ({"env": [{"name": "X"}, {"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "1"}]}, True),
        ({"env": [{"name": "A", "value": "2"}]}, {"env": [{"name": "A", "value": "1"}]}, False),
        ({"args": ["a", "b"]}, {"args": ["a"]}, False),
        ({"args": ["b", "a"]}, {"args": ["a", "b"]}, False),
        ({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, False),
        ({"labels": {"a": "1", "b": "2"}}, {"labels": {"a": "1"}}, True),
        ({"spec": "text"}, {"spec": {}}, False),
        ({"spec": "text"}, {"spec": []}, False),
    ],
)
def test_comparison_follows_the_merge_rules_of_server_side_apply(live: Any, desired: Any, *, result: bool) -> None:
    assert covers(live, desired) is result
