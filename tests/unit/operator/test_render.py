"""What the operator writes: pods as restricted, addressed by revision, with the team's fields in the right places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pinn_operator.core.names import Owner, selector_of
from pinn_operator.core.objects.deployment import DEFAULT_RESOURCES, render_deployment, render_workload
from pinn_operator.core.routers.http_route import render_route
from pinn_operator.core.routers.services import render_service
from pinn_operator.core.wanted.spec import ParentRef, RouterKind, Traffic

REVISION = "0123abcd"
OWNER = Owner("pinn.dev/v1alpha1", "PINNService", "eu-options", "pricing", "1b2c")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "revisions.json").read_text())
FULL: dict[str, Any] = next(case["serving"] for case in GOLDEN if case["name"] == "every field")
ROUTE = Traffic(
    router=RouterKind.HTTP_ROUTE,
    parent_refs=(ParentRef("edge", "edge-system", section_name="https", port=443),),
    hostnames=("pricing.example.com",),
    path_prefix="/v1",
    service_port=8080,
)


def workload(**serving: Any) -> dict[str, Any]:
    return render_workload("eu-options", REVISION, {"image": "pinn:1", **serving})


def pod(**serving: Any) -> dict[str, Any]:
    rendered: dict[str, Any] = workload(**serving)["spec"]["template"]["spec"]
    return rendered


def container(**serving: Any) -> dict[str, Any]:
    rendered: dict[str, Any] = pod(**serving)["containers"][0]
    return rendered


def environment(**serving: Any) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in container(**serving)["env"]}


def test_deployment_and_its_pods_are_addressed_by_revision() -> None:
    rendered = workload()
    assert rendered["metadata"]["name"] == "eu-options-0123abcd"
    assert rendered["spec"]["selector"]["matchLabels"] == selector_of("eu-options", REVISION)
    labels = rendered["spec"]["template"]["metadata"]["labels"]
    assert labels["pinn.dev/service"] == "eu-options"
    assert labels["pinn.dev/revision"] == REVISION
    assert labels["app"] == labels["app.kubernetes.io/instance"] == "eu-options"
    assert labels["app.kubernetes.io/managed-by"] == "pinn-operator"


def test_pod_meets_the_restricted_pod_security_standard() -> None:
    security = pod()["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pod_has_a_writable_tmp_because_tensorflow_does_not_start_without_one() -> None:
    assert {"name": "tmp", "emptyDir": {}} in pod()["volumes"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container()["volumeMounts"]


def test_pod_gets_no_api_token_and_no_variables_of_other_services() -> None:
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False


def test_rolling_update_never_takes_a_serving_pod_away_first() -> None:
    assert workload()["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_resources_have_defaults_only_if_the_team_gives_none() -> None:
    assert container()["resources"] == DEFAULT_RESOURCES
    assert container(resources={"limits": {}})["resources"] == DEFAULT_RESOURCES
    own = {"requests": {"cpu": "1"}}
    assert container(resources=own)["resources"] == own


def test_probes_ask_the_servers_own_paths_and_each_field_can_be_set_alone() -> None:
    default = container()
    assert default["readinessProbe"] == {
        "httpGet": {"path": "/health/deployment/readiness", "port": "http", "scheme": "HTTP"},
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 3,
    }
    assert default["livenessProbe"]["httpGet"]["path"] == "/health"
    assert default["startupProbe"]["periodSeconds"] * default["startupProbe"]["failureThreshold"] == 120
    own = container(probes={"readiness": {"path": "/ready"}, "startup": {"failureThreshold": 5}})
    assert own["readinessProbe"] == {
        **default["readinessProbe"],
        "httpGet": {**default["readinessProbe"]["httpGet"], "path": "/ready"},
    }
    assert own["startupProbe"] == {**default["startupProbe"], "failureThreshold": 5}
    assert own["livenessProbe"] == default["livenessProbe"]


def test_port_reaches_container_annotation_and_server() -> None:
    rendered = workload(port=9000)
    assert rendered["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9000"
    assert container(port=9000)["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    assert environment(port=9000)["PINN_PORT"] == "9000"


def test_own_annotations_win_over_ours() -> None:
    annotations = workload(podAnnotations={"prometheus.io/scrape": "false", "a": "b"})["spec"]["template"]["metadata"]
    assert annotations["annotations"] == {
        "prometheus.io/scrape": "false",
        "prometheus.io/port": "8000",
        "prometheus.io/path": "/metrics",
        "a": "b",
    }


def test_server_learns_its_service_and_revision() -> None:
    assert environment() == {
        "ENVIRONMENT": "production",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PINN_SERVICE": "eu-options",
        "PINN_REVISION": REVISION,
        "PINN_PORT": "8000",
        "PINN_CONTROL_TOKEN": None,
    }


def test_the_token_of_a_pod_is_its_uid_unless_the_team_gives_another() -> None:
    def token(**serving: Any) -> list[Any]:
        return [variable for variable in container(**serving)["env"] if variable["name"] == "PINN_CONTROL_TOKEN"]

    uid = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}
    assert token() == [{"name": "PINN_CONTROL_TOKEN", "valueFrom": uid}]
    own = {"name": "PINN_CONTROL_TOKEN", "value": "ours"}
    assert token(env=[own]) == [own]


def test_a_variable_of_the_team_replaces_ours_and_no_name_comes_twice() -> None:
    variables = container(env=[{"name": "ENVIRONMENT", "value": "staging"}, {"name": "EMPTY", "value": ""}])["env"]
    names = [variable["name"] for variable in variables]
    assert len(names) == len(set(names))
    assert {"name": "ENVIRONMENT", "value": "staging"} in variables
    assert {"name": "EMPTY"} in variables


def test_model_on_a_volume_is_mounted_read_only_and_announced() -> None:
    claim = {"claimName": "pinn-models", "path": "/european/2026-11/"}
    model = {"persistentVolumeClaim": claim, "sha256": "ab" * 32}
    source = {"name": "models", "persistentVolumeClaim": {"claimName": "pinn-models", "readOnly": True}}
    assert source in pod(model=model)["volumes"]
    assert {"name": "models", "mountPath": "/app/models", "readOnly": True} in container(model=model)["volumeMounts"]
    assert environment(model=model)["PINN_MODEL_DIR"] == "/app/models/european/2026-11"
    assert environment(model=model)["PINN_MODEL_SHA256"] == "ab" * 32
    assert environment(model={"persistentVolumeClaim": {"claimName": "a"}})["PINN_MODEL_DIR"] == "/app/models"


def test_bundled_model_needs_no_volume() -> None:
    assert [volume["name"] for volume in pod(model={"bundled": "european"})["volumes"]] == ["tmp"]
    assert environment(model={"bundled": "european"})["PINN_MODEL"] == "european"


def test_secrets_are_passed_by_reference_alone() -> None:
    reference = {"secretKeyRef": {"name": "keys", "key": "pricing", "optional": True}}
    assert {"name": "API_KEY", "valueFrom": reference} in container(**FULL)["env"]


def test_every_scheduling_field_reaches_the_pod() -> None:
    rendered = pod(**FULL)
    for name in ("imagePullSecrets", "serviceAccountName", "nodeSelector", "tolerations"):
        assert rendered[name] == FULL[name]
    assert rendered["terminationGracePeriodSeconds"] == 60
    assert pod(terminationGracePeriodSeconds=0)["terminationGracePeriodSeconds"] == 0
    assert pod()["terminationGracePeriodSeconds"] == 45
    assert container(**FULL)["args"] == FULL["args"]
    assert container(**FULL)["imagePullPolicy"] == "IfNotPresent"
    assert "imagePullPolicy" not in container()


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("pinn:1.4.0", "1.4.0"),
        ("registry.example.com:5000/team/pinn:1.4.0", "1.4.0"),
        ("registry.example.com:5000/team/pinn:1.4.0@sha256:" + "0" * 64, "1.4.0"),
        ("registry.example.com:5000/team/pinn", REVISION),
        ("pinn@sha256:" + "0" * 64, REVISION),
        ("pinn:_odd-", REVISION),
        ("pinn:" + "x" * 64, REVISION),
    ],
)
def test_version_label_is_the_tag_if_it_may_be_a_label_and_else_the_revision(image: str, version: str) -> None:
    labels = workload(image=image)["spec"]["template"]["metadata"]["labels"]
    assert labels["version"] == version
    assert labels.get("app.kubernetes.io/version", REVISION) == version


def test_recorded_workload_is_applied_as_it_is_with_owner_and_replicas() -> None:
    recorded = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "eu-options-0123abcd", "labels": {"from": "an older operator"}},
        "spec": {"template": {"spec": {"containers": [{"name": "other", "env": []}]}}},
    }
    applied = render_deployment(OWNER, recorded, 4)
    assert json.dumps(applied["spec"].pop("template")) == json.dumps(recorded["spec"]["template"])
    assert applied["spec"] == {"replicas": 4}
    assert applied["metadata"]["labels"] == {"from": "an older operator"}
    assert applied["metadata"]["namespace"] == "pricing"


def test_every_object_is_owned_without_holding_up_a_deletion() -> None:
    objects = (
        render_deployment(OWNER, workload(), 1),
        render_service(OWNER, "eu-options", selector={}, port=80),
        render_route(OWNER, ROUTE, canary_weight=0),
    )
    for manifest in objects:
        assert manifest["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "pinn.dev/v1alpha1",
                "kind": "PINNService",
                "name": "eu-options",
                "uid": "1b2c",
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]


@pytest.mark.parametrize("weight", range(101))
def test_weights_of_the_route_sum_to_100(weight: int) -> None:
    backends = render_route(OWNER, ROUTE, canary_weight=weight)["spec"]["rules"][0]["backendRefs"]
    assert [(backend["name"], backend["weight"]) for backend in backends] == [
        ("eu-options-stable", 100 - weight),
        ("eu-options-canary", weight),
    ]


@pytest.mark.parametrize("weight", [-1, 101])
def test_a_weight_that_is_no_percentage_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="outside 0–100"):
        render_route(OWNER, ROUTE, canary_weight=weight)


def test_route_names_gateway_with_namespace_listener_hosts_and_path() -> None:
    spec = render_route(OWNER, ROUTE, canary_weight=10)["spec"]
    assert spec["parentRefs"] == [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "namespace": "edge-system",
            "name": "edge",
            "sectionName": "https",
            "port": 443,
        }
    ]
    assert spec["hostnames"] == ["pricing.example.com"]
    assert spec["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    assert {backend["port"] for backend in spec["rules"][0]["backendRefs"]} == {8080}
