"""The chart, rendered by real Helm: least rights, restricted pods, closed values, and no surprise in what it installs.

Snapshots are what Helm makes of three sets of values; `UPDATE_SNAPSHOTS=1 pytest tests/unit/chart` writes them anew, to
be read in the diff.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lab.kube import KubeError, program

REPOSITORY = Path(__file__).resolve().parents[3]
CHART = REPOSITORY / "charts" / "pinn-operator"
SNAPSHOTS = Path(__file__).parents[1] / "golden" / "chart"
Objects = list[dict[str, Any]]

DEFAULT: dict[str, Any] = {}
NAMESPACED: dict[str, Any] = {"watchNamespaces": ["pricing", "risk"], "rbac": {"aggregateClusterRoles": False}}
ALL_ON: dict[str, Any] = {
    "nameOverride": "pinn",
    "image": {"registry": "registry.example.com", "repository": "team/pinn-operator", "digest": "sha256:" + "0a" * 32},
    "imagePullSecrets": [{"name": "registry"}],
    "prometheus": {
        "address": "https://metrics.example.com/prometheus",
        "basicAuthSecret": {"name": "metrics", "usernameKey": "user", "passwordKey": "password"},
        "headers": [
            {"name": "X-Scope-OrgID", "value": "desk one"},
            {"name": "X-Api-Key", "secret": {"name": "metrics", "key": "api-key"}},
        ],
        "ca": {"kind": "ConfigMap", "name": "internal-ca", "key": "ca.crt"},
    },
    "metricsConfigMaps": [{"namespace": "risk", "name": "internal-ca"}, {"namespace": "rates", "name": "internal-ca"}],
    "webhooks": {"allowLocal": True},
    "metricsSecrets": [
        {"namespace": "pricing", "name": "prometheus-token"},
        {"namespace": "risk", "name": "token-b"},
        {"namespace": "risk", "name": "token-a"},
    ],
    "log": {"level": "debug", "format": "text"},
    "extraArgs": ["--resync-seconds=600"],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    "serviceAccount": {"annotations": {"example.com/role": "operator"}},
    "podLabels": {"example.com/team": "platform"},
    "podAnnotations": {"example.com/note": "1"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["system"]}]}]
            }
        }
    },
    "priorityClassName": "system-cluster-critical",
    "metrics": {
        "service": {"annotations": {"example.com/scrape": "yes"}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": '{{ include "pinn-operator.fullname" . }}-extra'},
            "data": {"namespace": "{{ .Release.Namespace }}"},
        }
    ],
}
VARIANTS = {"default": DEFAULT, "namespaced": NAMESPACED, "all-on": ALL_ON}


@pytest.fixture(scope="module")
def helm() -> str:
    try:
        return program("helm")
    except KubeError as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Helm here: {reason}")


def _run(helm: str, *arguments: str, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm, *arguments, "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@cache
def _rendered(helm: str, values: str, release: str) -> str:
    done = _run(
        helm,
        *("template", release, str(CHART), "--namespace", "pinn-system", "--kube-version", "1.35.0"),
        values=json.loads(values),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(helm: str, values: Mapping[str, Any], *, release: str = "pinn-operator") -> Objects:
    rendered = _rendered(helm, json.dumps(values, sort_keys=True), release)
    return [document for document in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if document]


def of_kind(rendered: Objects, kind: str) -> Objects:
    return [item for item in rendered if item["kind"] == kind]


def pod_of(rendered: Objects) -> dict[str, Any]:
    (deployment,) = of_kind(rendered, "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def rules(rendered: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in rendered:
        if item["kind"] in ("Role", "ClusterRole"):
            for rule in item["rules"]:
                yield item["metadata"]["name"], rule


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_helm_finds_nothing_to_complain_about(helm: str, values: dict[str, Any]) -> None:
    done = _run(helm, "lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "values"), VARIANTS.items(), ids=VARIANTS.keys())
def test_chart_renders_what_its_snapshot_says(helm: str, name: str, values: dict[str, Any]) -> None:
    rendered = [item for item in objects(helm, values) if item["kind"] != "CustomResourceDefinition"]
    text = yaml.safe_dump_all(rendered, sort_keys=False, width=120)
    snapshot = SNAPSHOTS / f"{name}.yaml"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(text)
    assert text == snapshot.read_text(), "UPDATE_SNAPSHOTS=1 writes the snapshot anew"


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_no_right_is_given_by_wildcard(helm: str, values: dict[str, Any]) -> None:
    found = list(rules(objects(helm, values)))
    assert found
    for name, rule in found:
        for key in ("apiGroups", "resources", "verbs", "resourceNames"):
            assert not any("*" in item for item in rule.get(key, [])), f"{name}: {rule}"
        assert "nonResourceURLs" not in rule


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_operator_may_read_only_the_secrets_that_are_named(helm: str, values: dict[str, Any]) -> None:
    named = {secret["name"] for secret in values.get("metricsSecrets", [])}
    rendered = objects(helm, values)
    granted = [
        (item["kind"], rule)
        for item in rendered
        for rule in item.get("rules", [])
        if "secrets" in rule.get("resources", [])
    ]
    assert {name for _, rule in granted for name in rule["resourceNames"]} == named
    assert all(kind == "Role" and rule["verbs"] == ["get"] for kind, rule in granted)


def test_operator_never_changes_a_spec_nor_sets_a_finalizer(helm: str) -> None:
    for name, rule in rules(objects(helm, {**DEFAULT, "rbac": {"aggregateClusterRoles": False}})):
        if "pinn.dev" in rule["apiGroups"] and "pinnservices" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}, name
        assert not any("finalizers" in resource for resource in rule["resources"])


def test_operator_that_watches_all_namespaces_has_one_cluster_role(helm: str) -> None:
    rendered = objects(helm, {"rbac": {"aggregateClusterRoles": False}})
    assert len(of_kind(rendered, "ClusterRole")) == len(of_kind(rendered, "ClusterRoleBinding")) == 1
    assert not of_kind(rendered, "Role")
    assert not any(argument.startswith("--namespace") for argument in pod_of(rendered)["containers"][0]["args"])


def test_operator_of_some_namespaces_has_no_right_outside_them(helm: str) -> None:
    rendered = objects(helm, NAMESPACED)
    assert not of_kind(rendered, "ClusterRole")
    assert not of_kind(rendered, "ClusterRoleBinding")
    for kind in ("Role", "RoleBinding"):
        assert [item["metadata"]["namespace"] for item in of_kind(rendered, kind)] == ["pricing", "risk"]
    arguments = pod_of(rendered)["containers"][0]["args"]
    assert [item for item in arguments if item.startswith("--namespace")] == ["--namespace=pricing", "--namespace=risk"]


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_binding_is_for_the_operators_own_account(helm: str, values: dict[str, Any]) -> None:
    rendered = objects(helm, values)
    (account,) = of_kind(rendered, "ServiceAccount")
    assert pod_of(rendered)["serviceAccountName"] == account["metadata"]["name"]
    roles = {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in rendered}
    for binding in (*of_kind(rendered, "RoleBinding"), *of_kind(rendered, "ClusterRoleBinding")):
        (subject,) = binding["subjects"]
        assert subject == {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": account["metadata"]["namespace"],
        }
        reference = binding["roleRef"]
        assert (reference["kind"], binding["metadata"].get("namespace"), reference["name"]) in roles


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_pod_meets_the_restricted_pod_security_standard(helm: str, values: dict[str, Any]) -> None:
    pod = pod_of(objects(helm, values))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    assert container["resources"]["limits"]["memory"] == "256Mi"


def test_one_operator_at_a_time(helm: str) -> None:
    (deployment,) = of_kind(objects(helm, DEFAULT), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_operator_understands_every_flag_that_the_chart_gives_it(helm: str) -> None:
    from pinn_operator.settings import parse_settings

    arguments = pod_of(objects(helm, {**ALL_ON, "watchNamespaces": ["pricing", "risk"]}))["containers"][0]["args"]
    settings = parse_settings(["run", *arguments], {})
    assert settings.namespaces == ("pricing", "risk")
    assert settings.prometheus_address == "https://metrics.example.com/prometheus"
    assert settings.health_port == 8081
    assert settings.resync_seconds == 600
    assert settings.log_level == "debug"


def test_image_is_named_by_digest_before_tag_before_app_version(helm: str) -> None:
    def image(**values: str) -> str:
        named: str = pod_of(objects(helm, {"image": values}))["containers"][0]["image"]
        return named

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "0a" * 32
    assert image() == f"pinn-operator:{version}"
    assert image(tag="1.2.3") == "pinn-operator:1.2.3"
    assert image(tag="1.2.3", digest=digest) == f"pinn-operator@{digest}"
    assert image(registry="registry.example.com:5000") == f"registry.example.com:5000/pinn-operator:{version}"


def test_chart_and_package_have_one_version() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_crd_of_the_chart_is_the_one_of_the_repository(helm: str) -> None:
    source = yaml.safe_load((REPOSITORY / "crds" / "pinnservices.yaml").read_text())
    (crd,) = of_kind(objects(helm, DEFAULT), "CustomResourceDefinition")
    assert crd["spec"] == source["spec"], "run python3 charts/sync_crd.py"
    assert crd["metadata"]["name"] == source["metadata"]["name"]


def test_template_of_the_crd_was_written_after_the_last_change_of_its_source() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "charts" / "sync_crd.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_crd_stays_on_uninstall_unless_that_is_not_wanted(helm: str) -> None:
    (kept,) = of_kind(objects(helm, DEFAULT), "CustomResourceDefinition")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (dropped,) = of_kind(objects(helm, {"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in dropped["metadata"]
    assert not of_kind(objects(helm, {"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_falsy_values_count(helm: str) -> None:
    rendered = objects(
        helm,
        {
            "rbac": {"create": False},
            "serviceAccount": {"create": False},
            "metrics": {"scrapeAnnotations": False, "service": {"enabled": False}},
        },
    )
    assert {item["kind"] for item in rendered} == {"Deployment", "CustomResourceDefinition"}
    assert pod_of(rendered)["serviceAccountName"] == "default"
    assert "annotations" not in of_kind(rendered, "Deployment")[0]["spec"]["template"]["metadata"]


def test_names_stay_within_63_characters_for_the_longest_release(helm: str) -> None:
    release = "r" * 53
    for item in objects(helm, ALL_ON, release=release):
        assert len(item["metadata"]["name"]) <= 63, item["metadata"]["name"]
        for value in item["metadata"].get("labels", {}).values():
            assert len(value) <= 63


def test_two_releases_share_no_object_but_the_crd(helm: str) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        rendered = objects(helm, {**DEFAULT, "crds": {"enabled": False}}, release=release)
        return {(item["kind"], item["metadata"]["name"]) for item in rendered}

    assert not names("one") & names("two")


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown value": ({"replicas": 2}, "replicas"),
    "an unknown inner value": ({"image": {"name": "x"}}, "name"),
    "the tag latest": ({"image": {"tag": "latest"}}, "/image/tag"),
    "no digest": ({"image": {"digest": "0a0a"}}, "/image/digest"),
    "a repository with a tag": ({"image": {"repository": "pinn-operator:1"}}, "/image/repository"),
    "another pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    "one namespace as text": ({"watchNamespaces": "pricing"}, "/watchNamespaces"),
    "a namespace that cannot be": ({"watchNamespaces": ["Pricing"]}, "/watchNamespaces/0"),
    "a namespace twice": ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces"),
    "an address without scheme": ({"prometheus": {"address": "prometheus:9090"}}, "/prometheus/address"),
    "an address with a password": ({"prometheus": {"address": "http://u:p@prometheus:9090"}}, "/prometheus/address"),
    "an address that is none": ({"prometheus": {"address": "none"}}, "/prometheus/address"),
    "a secret without namespace": ({"metricsSecrets": [{"name": "token"}]}, "namespace"),
    "another log level": ({"log": {"level": "chatty"}}, "/log/level"),
    "a flag without dashes": ({"extraArgs": ["resync"]}, "/extraArgs/0"),
    "text for a switch": ({"crds": {"keep": "no"}}, "/crds/keep"),
    "a port out of range": ({"metrics": {"service": {"port": 70000}}}, "/metrics/service/port"),
    "an interval without unit": ({"metrics": {"serviceMonitor": {"interval": "30"}}}, "/serviceMonitor/interval"),
    "a number for a label": ({"podLabels": {"a": 1}}, "/podLabels/a"),
    "a long name": ({"fullnameOverride": "x" * 53}, "/fullnameOverride"),
    "a monitor of no service": (
        {"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.enabled needs metrics.service.enabled",
    ),
}


@pytest.mark.parametrize(("values", "named"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_wrong_values_are_refused_by_name(helm: str, values: dict[str, Any], named: str) -> None:
    done = _run(helm, "template", "x", str(CHART), "--kube-version", "1.35.0", values=values)
    assert done.returncode != 0
    assert named in done.stderr


def test_every_object_in_the_values_schema_is_closed_or_deliberately_a_map() -> None:
    free = {
        *("global", "podSecurityContext", "securityContext", "affinity", "valueFrom"),
        *("tolerations[]", "extraObjects[]"),
    }

    def walk(schema: dict[str, Any], name: str) -> Iterator[str]:
        if schema.get("type") == "object" and name not in free and "additionalProperties" not in schema:
            yield name
        for key, inner in schema.get("properties", {}).items():
            yield from walk(inner, key)
        if "items" in schema:
            yield from walk(schema["items"], f"{name}[]")

    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    assert list(walk(schema, "values")) == []


def test_schema_and_default_values_name_the_same_things() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> Iterator[str]:
        known = schema["properties"].keys() - {"global"}
        for name in known ^ values.keys():
            yield f"{path}{name}"
        for name in known & values.keys():
            if "properties" in schema["properties"][name] and name != "resources":
                yield from compare(schema["properties"][name], values[name], f"{path}{name}.")

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(compare(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "")) == []


def test_alerts_are_read_by_prometheus_itself(tmp_path: Path) -> None:
    try:
        promtool = program("promtool")
    except KubeError as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no promtool here: {reason}")
    tests = {
        "rule_files": [str(CHART / "files" / "rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            _alert_test("PinnOperatorDown", {}, at="3m", labels={"severity": "critical"}),
            _alert_test("PinnOperatorDown", {'pinn_operator_build_info{version="0.1.0"}': "1+0x10"}, at="5m"),
            _alert_test(
                "PinnServiceRolledBack",
                {
                    f'pinn_operator_phase{{namespace="a",service="b",phase="{phase}"}}': values
                    for phase, values in {"Stable": "1 _ _ _", "RolledBack": "_ 1 1 1"}.items()
                },
                at="2m",
                labels={"severity": "warning", "namespace": "a", "service": "b", "phase": "RolledBack"},
            ),
            _alert_test(
                "PinnServiceStalled",
                {'pinn_operator_stalled{namespace="a",service="b"}': "1+0x10"},
                at="6m",
                labels={"severity": "warning", "namespace": "a", "service": "b"},
            ),
            _alert_test(
                "PinnServiceStalled",
                {
                    'pinn_operator_stalled{namespace="a",service="b"}': "1+0x10",
                    'pinn_operator_phase{namespace="a",service="b",phase="RolledBack"}': "1+0x10",
                },
                at="6m",
            ),
            _alert_test(
                "PinnServiceMetricsUnavailable",
                {'pinn_operator_metrics_available{namespace="a",service="b"}': "0+0x10"},
                at="6m",
                labels={"severity": "warning", "namespace": "a", "service": "b"},
            ),
            _alert_test(
                "PinnServiceNotReady",
                {'pinn_operator_ready{namespace="a",service="b"}': "0+0x10"},
                at="6m",
                labels={"severity": "critical", "namespace": "a", "service": "b"},
            ),
        ],
    }
    path = tmp_path / "rules_test.yaml"
    path.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _alert_test(
    alert: str, series: Mapping[str, str], *, at: str, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    (rule,) = (
        rule
        for group in yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
        for rule in group["rules"]
        if rule["alert"] == alert
    )
    annotations = dict(rule["annotations"])
    for name, value in (labels or {}).items():
        for key, text in annotations.items():
            annotations[key] = text.replace(f"{{{{ $labels.{name} }}}}", value)
    expected = [{"exp_labels": dict(labels), "exp_annotations": annotations}] if labels else []
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
    }


def test_alerts_use_only_metrics_that_the_operator_has() -> None:
    import re

    from pinn_operator.telemetry import Telemetry

    telemetry = Telemetry()
    known = {family.name for family in telemetry.registry.collect()}
    text = (CHART / "files" / "rules.yaml").read_text()
    for name in set(re.findall(r"pinn_operator_[a-z_]+", text)):
        assert name in known, f"{name} is not among {sorted(known)}"
