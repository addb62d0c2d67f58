"""The chart on a real API server: every object is accepted, rights suffice and are no more, the CRD stays."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.kube import REPOSITORY, Kube, program

CHART = REPOSITORY / "charts" / "pinn-operator"
NAMESPACE = "pinn-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:pinn-operator"
NEEDED = {
    ("pinn.dev", "pinnservices"): {"get", "list", "watch"},
    ("pinn.dev", "pinnservices/status"): {"update"},
    ("apps", "deployments"): {"get", "list", "watch", "create", "patch", "delete"},
    ("apps", "controllerrevisions"): {"get", "list", "create", "patch", "delete"},
    ("", "services"): {"get", "list", "watch", "create", "patch", "delete"},
    ("gateway.networking.k8s.io", "httproutes"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "events"): {"get", "create", "patch"},
}
FORBIDDEN = {
    ("pinn.dev", "pinnservices"): {"create", "update", "patch", "delete"},
    ("pinn.dev", "pinnservices/finalizers"): {"update"},
    ("", "secrets"): {"get", "list", "watch", "create"},
    ("", "configmaps"): {"get", "list"},
    ("", "pods"): {"create", "delete", "patch"},
    ("", "pods/exec"): {"create"},
    ("", "serviceaccounts/token"): {"create"},
    ("", "nodes"): {"list"},
    ("apps", "daemonsets"): {"list", "create"},
    ("rbac.authorization.k8s.io", "clusterrolebindings"): {"create", "list"},
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch", "create", "patch", "delete"},
    ("", "namespaces"): {"list", "watch"},
}


def _helm(kubeconfig: Path, *words: str, values: Mapping[str, Any] | None = None) -> str:
    command = [program("helm"), *words, "--namespace", NAMESPACE, "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(
        [*command, "--values", "-"] if values is not None else command,
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(control_plane: Path) -> Iterator[Kube]:
    """The chart, installed into a namespace that admits only restricted pods."""
    kube = Kube(control_plane)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    for name in ("pricing", "risk"):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    _install(kube)
    yield kube
    _helm(kube.kubeconfig, "uninstall", "pinn-operator", "--wait")
    kube.close()


@pytest.fixture
def release(installed: Kube) -> Iterator[Kube]:
    """The release with its default values, also for the next test."""
    yield installed
    _install(installed)


def _install(kube: Kube, **values: Any) -> str:
    # Another test may have applied the CRD itself.
    return _helm(
        kube.kubeconfig, "upgrade", "--install", "--take-ownership", "pinn-operator", str(CHART), values=values
    )


def _may(kube: Kube, verb: str, group: str, resource: str, *, namespace: str = "pricing", name: str = "") -> bool:
    kind, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": kind, "subresource": subresource, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": ACCOUNT, "resourceAttributes": {**attributes, "name": name}},
    }
    answer = kube.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert answer.status == 201, answer
    allowed: bool = answer.body["status"]["allowed"]
    return allowed


def test_operator_has_every_right_that_it_needs_and_no_other(installed: Kube) -> None:
    missing = [(verb, *what) for what, verbs in NEEDED.items() for verb in verbs if not _may(installed, verb, *what)]
    assert missing == []
    excess = [(verb, *what) for what, verbs in FORBIDDEN.items() for verb in verbs if _may(installed, verb, *what)]
    assert excess == []


def test_only_the_named_secret_may_be_read(release: Kube) -> None:
    _install(release, metricsSecrets=[{"namespace": "pricing", "name": "prometheus-token"}])
    assert _may(release, "get", "", "secrets", name="prometheus-token")
    assert not _may(release, "get", "", "secrets", name="other")
    assert not _may(release, "get", "", "secrets", name="prometheus-token", namespace="risk")
    assert not _may(release, "list", "", "secrets")


def test_operator_of_one_namespace_may_do_nothing_in_another(release: Kube) -> None:
    _install(release, watchNamespaces=["pricing"])
    for (group, resource), verbs in NEEDED.items():
        for verb in verbs:
            assert _may(release, verb, group, resource), (verb, resource)
            assert not _may(release, verb, group, resource, namespace="risk"), (verb, resource)
    assert not _may(release, "list", "", "namespaces", namespace="")


def test_operator_pod_is_admitted_where_only_restricted_ones_are(installed: Kube) -> None:
    deadline = time.monotonic() + 60
    while not (pods := installed.list("pods", NAMESPACE, labels="app.kubernetes.io/name=pinn-operator")):
        assert time.monotonic() < deadline, installed.kubectl("get", "events", "-n", NAMESPACE)
        time.sleep(0.2)
    assert len(pods) == 1


def test_uninstall_keeps_the_crd_and_every_resource_and_a_second_install_takes_them_over(release: Kube) -> None:
    path = "/apis/pinn.dev/v1alpha1/namespaces/pricing/pinnservices/eu-options"
    release.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/pinnservices.pinn.dev")
    release.apply(
        {
            "apiVersion": "pinn.dev/v1alpha1",
            "kind": "PINNService",
            "metadata": {"name": "eu-options", "namespace": "pricing"},
            "spec": {"image": "registry.example.com/pinn-inference:1.4.0"},
        }
    )
    uid = release.request("GET", path).body["metadata"]["uid"]
    _helm(release.kubeconfig, "uninstall", "pinn-operator", "--wait")
    assert release.request("GET", path).body["metadata"]["uid"] == uid
    notes = _install(release)
    assert "STATUS: deployed" in notes
    assert release.request("GET", path).body["metadata"]["uid"] == uid


def test_cluster_roles_for_people_include_the_resource(installed: Kube) -> None:
    deadline = time.monotonic() + 30
    wanted = {"view": "list", "edit": "patch", "admin": "delete"}
    while True:
        rules = {
            name: [
                rule
                for rule in installed.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}").body[
                    "rules"
                ]
                if "pinn.dev" in rule["apiGroups"]
            ]
            for name in wanted
        }
        if all(any(wanted[name] in rule["verbs"] for rule in found) for name, found in rules.items()):
            break
        assert time.monotonic() < deadline, rules
        time.sleep(0.2)
    assert not any("patch" in rule["verbs"] for rule in rules["view"])
