"""The operator as a process against a real API server and controller-manager. There are no nodes: where pods must be
ready, or must fail, the test writes their status as a kubelet would."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab.kube import REPOSITORY, Kube, Manifest, program, wait_until
from tests.support import crd
from tests.support.operator import Operator, pause
from tests.support.place import NAME, Place, install_crd

pytestmark = pytest.mark.integration

CHILDREN = ("deployments", "services", "controllerrevisions", "pods")


@pytest.fixture(scope="module")
def kube(control_plane: Path) -> Iterator[Kube]:
    """The control plane with the CRD installed."""
    kube = Kube(control_plane)
    install_crd(kube)
    yield kube
    kube.close()


@pytest.fixture
def place(kube: Kube, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    namespace = f"it-{abs(hash(request.node.name)) % 10**9}"
    kube.kubectl("create", "namespace", namespace)
    yield Place(kube, namespace, tmp_path)
    kube.kubectl("delete", "namespace", namespace, "--wait=false")


def is_stable(status: Manifest) -> bool:
    return bool(status.get("phase") == "Stable" and status.get("readyReplicas") == 2)


# --- birth and death --------------------------------------------------------------------------------------------------


def test_an_image_alone_becomes_a_service(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        revision = place.status["stable"]["revision"]
        assert {item["metadata"]["name"] for item in place.children("deployments")} == {f"{NAME}-{revision}"}
        names = {item["metadata"]["name"] for item in place.children("services")}
        assert names == {NAME, f"{NAME}-stable", f"{NAME}-canary"}
        assert len(place.children("controllerrevisions")) == 1
        assert place.condition("Ready")["status"] == "True"
        assert place.read()["metadata"].get("finalizers") is None
        assert set(place.read()["metadata"].get("annotations", {})) <= {
            "kubectl.kubernetes.io/last-applied-configuration"
        }
        assert operator.metric("pinn_operator_ready", namespace=place.namespace, service=NAME) == 1


def test_a_resource_at_rest_is_not_written(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        wait_until("the passes have ended", lambda: _still(operator), seconds=30)
        before = versions(place)
        for number in range(5):
            place.kube.kubectl(
                "annotate", "pinnservice", NAME, "-n", place.namespace, "--overwrite", f"example.com/touch={number}"
            )
            pause(0.3)
        wait_until("the passes have ended", lambda: _still(operator), seconds=30)
        assert versions(place) == before
        assert operator.metric("pinn_operator_passes_total", outcome="quiet") >= 1
        assert place.status["observedGeneration"] == 1


def versions(place: Place) -> dict[str, str]:
    found = {
        f"{kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for kind in CHILDREN
        for item in place.children(kind)
    }
    managers = [
        entry["time"] for entry in place.read()["metadata"]["managedFields"] if entry["manager"] == "pinn-operator"
    ]
    return found | {"status": str(managers)}


def _still(operator: Operator) -> bool:
    before = operator.metric("pinn_operator_passes_total")
    pause(1.0)
    return operator.metric("pinn_operator_passes_total") == before


def test_deleting_it_leaves_nothing(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        place.kube.delete("pinnservice", NAME, place.namespace)
        place.wait("all children are gone", lambda: not any(place.children(kind) for kind in CHILDREN))
        wait_until("its metrics are gone", lambda: not operator.metric("pinn_operator_resources"), seconds=30)


def test_deleting_it_needs_no_operator(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        operator.kill()
    place.kube.delete("pinnservice", NAME, place.namespace)
    place.wait("all children are gone", lambda: not any(place.children(kind) for kind in CHILDREN))


def test_one_made_again_under_the_same_name_is_another(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready():
        place.until("stable", is_stable)
        first = place.read()["metadata"]["uid"]
        place.kube.delete("pinnservice", NAME, place.namespace)
        place.apply(tag="2.0.0")
        place.until("stable again", is_stable)
        assert place.read()["metadata"]["uid"] != first
        place.wait(
            "every child belongs to the new one",
            lambda: (
                {
                    owner["uid"]
                    for kind in ("deployments", "services", "controllerrevisions")
                    for item in place.children(kind)
                    for owner in item["metadata"].get("ownerReferences", [])
                }
                == {place.read()["metadata"]["uid"]}
            ),
        )


# --- edits and strangers ----------------------------------------------------------------------------------------------


def test_what_somebody_edits_is_put_right(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready():
        place.until("stable", is_stable)
        revision = place.status["stable"]["revision"]
        wrong = {"spec": {"selector": {"pinn.dev/revision": "ffffffff"}}}
        place.kube.merge("services", f"{NAME}-stable", place.namespace, wrong)
        place.kube.merge("deployments", f"{NAME}-{revision}", place.namespace, {"spec": {"replicas": 7}})

        def is_right() -> bool:
            service = place.kube.get("services", f"{NAME}-stable", place.namespace) or {}
            deployment = place.kube.get("deployments", f"{NAME}-{revision}", place.namespace) or {}
            return bool(
                service["spec"]["selector"]["pinn.dev/revision"] == revision and deployment["spec"]["replicas"] == 2
            )

        place.wait("both are right again", is_right)


def test_a_service_of_a_team_that_has_the_name_is_left_alone(place: Place) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": place.namespace},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    place.kube.apply(theirs)
    place.apply()
    with place.operator().wait_ready():
        place.wait("it is said", lambda: place.events("NameTaken"))
        pause(2)
        live = place.kube.get("services", NAME, place.namespace)
        assert live is not None
        assert live["spec"]["selector"] == {"app": "theirs"}
        assert "ownerReferences" not in live["metadata"]
        place.kube.delete("service", NAME, place.namespace)
        place.wait("then it is made", lambda: len(place.children("services")) == 3)


def test_pods_that_only_carry_the_label_do_no_harm(place: Place) -> None:
    stray = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stray", "namespace": place.namespace, "labels": {"pinn.dev/service": "nobody"}},
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    }
    place.kube.apply(stray)
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        assert operator.metric("pinn_operator_resources") == 1


# --- specs ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lax_crd(kube: Kube) -> Iterator[None]:
    """A CRD that accepts any spec, as an older one might have."""
    document = yaml.safe_load(crd.CRD.read_text())
    lax = copy.deepcopy(document)
    schema = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema.pop("x-kubernetes-validations", None)
    schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    try:
        kube.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(lax))
        pause(2)
        yield
    finally:
        kube.kubectl("delete", "pinnservices", "--all", "--all-namespaces", "--ignore-not-found")
        install_crd(kube)


def test_a_spec_that_no_schema_stopped_is_told_and_does_no_harm(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready():
        place.until("stable", is_stable)
        before = place.status["stable"]["revision"]
        with lax_crd(place.kube):
            place.kube.merge("pinnservices", NAME, place.namespace, {"spec": {"paused": "perhaps", "port": "http"}})
            place.wait("it is said", lambda: place.condition("Stalled").get("status") == "True")
            message = place.condition("Stalled")["message"]
            assert "spec.paused" in message
            assert "spec.port" in message
            assert place.status["stable"]["revision"] == before
            assert place.condition("Ready")["status"] == "True"
            place.kube.merge("pinnservices", NAME, place.namespace, {"spec": {"paused": None, "port": None}})
            place.wait("it is well again", lambda: place.condition("Stalled").get("status") != "True")


# --- two, none, and dying ones ----------------------------------------------------------------------------------------


def test_two_operators_at_once_do_no_harm(place: Place) -> None:
    place.apply()
    with place.operator("one").start() as one, place.operator("other").start() as other:
        one.wait_ready()
        other.wait_ready()
        place.until("stable", is_stable)
        assert len(place.children("deployments")) == 1
        assert len(place.children("controllerrevisions")) == 1
        assert [event.get("count") for event in place.events("InitialRevision")] == [1]
        wait_until("both rest", lambda: _still(one) and _still(other), seconds=30)


def test_killed_at_any_moment_it_goes_on_where_it_was(place: Place) -> None:
    place.apply()
    for number in range(4):
        operator = place.operator(f"operator-{number}")
        with operator:
            # Later each time: before the first write, between commit and writes, after them.
            with contextlib.suppress(TimeoutError):
                wait_until(
                    "some writes",
                    lambda: len(place.children("services")) >= 3 or bool(place.status),
                    seconds=4 + number,
                    every=0.02,
                )
            operator.kill()
    with place.operator("last").wait_ready():
        place.until("stable", is_stable)
        assert len(place.children("deployments")) == 1
        assert len(place.children("services")) == 3
        assert len(place.children("controllerrevisions")) == 1


def test_it_ends_at_once_when_it_is_told_to(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        assert operator.terminate() == 0
    assert operator.lines()[-1]["message"] == "stopped"


# --- an API server that is away ---------------------------------------------------------------------------------------


def component(kube: Kube, verb: str, name: str) -> None:
    """Stop or start a component of this very control plane."""
    state = kube.kubeconfig.parent
    plane = kube.context.removeprefix("pinn-")
    command = [sys.executable, "-m", "cluster", "--state", str(state), "--name", plane]
    command += ["--ports-offset", plane.removeprefix("it-"), verb, name]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=120, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def api_server_away(kube: Kube) -> Iterator[None]:
    """Within the block there is none. The controllers are started anew afterwards: they back off for a minute."""
    component(kube, "stop", "apiserver")
    try:
        yield
    finally:
        component(kube, "start", "apiserver")
        wait_until("the API server is up", kube.is_up, seconds=60)
        component(kube, "stop", "kcm")
        component(kube, "start", "kcm")


def test_an_api_server_that_was_away_is_waited_for_in_place(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        with api_server_away(place.kube):
            pause(8)
            assert operator.is_running()
            assert operator.answers("/livez")
        place.apply(replicas=3)
        place.until("the edit was seen", lambda status: status.get("readyReplicas") == 3)
        assert operator.is_running()


def test_it_ends_when_it_is_told_to_although_the_api_server_is_away(place: Place) -> None:
    place.apply()
    with place.operator().wait_ready() as operator:
        place.until("stable", is_stable)
        with api_server_away(place.kube):
            pause(5)
            assert operator.terminate() == 0


# --- rights and credentials -------------------------------------------------------------------------------------------


@pytest.fixture
def account(place: Place) -> Callable[[], Path]:
    """A kubeconfig with the rights the chart gives; called again, it makes the account and its token anew."""
    namespace, name = place.namespace, "pinn-operator"
    chart = REPOSITORY / "charts" / "pinn-operator"
    helm = [program("helm"), "template", name, str(chart), "--namespace", namespace]
    helm += ["--kube-version", "1.35.0", "--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.enabled=false"]
    rendered = subprocess.run(helm, check=True, capture_output=True, text=True).stdout
    wanted = [item for item in yaml.safe_load_all(rendered) if item and item["kind"] in ("Role", "RoleBinding")]
    place.kube.apply(*wanted)
    [subject] = {item["subjects"][0]["name"] for item in wanted if item["kind"] == "RoleBinding"}
    path = place.folder / "account.kubeconfig"

    def make() -> Path:
        place.kube.kubectl("delete", "serviceaccount", subject, "-n", namespace, "--ignore-not-found")
        place.kube.kubectl("create", "serviceaccount", subject, "-n", namespace)
        token = place.kube.kubectl("create", "token", subject, "-n", namespace).strip()
        document = yaml.safe_load(place.kube.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token}
        path.write_text(yaml.safe_dump(document))
        return path

    return make


def test_the_rights_of_the_chart_are_enough(place: Place, account: Callable[[], Path]) -> None:
    place.apply()
    with place.operator(kubeconfig=account()).wait_ready() as operator:
        place.until("stable", is_stable)
        place.kube.delete("pinnservice", NAME, place.namespace)
        place.wait("all children are gone", lambda: not any(place.children(kind) for kind in CHILDREN))
        assert operator.metric("pinn_operator_api_requests_total", code="403") == 0
        assert not [line for line in operator.lines() if "forbidden" in str(line).lower()]


def test_a_token_that_is_revoked_is_replaced_by_the_one_in_the_file(place: Place, account: Callable[[], Path]) -> None:
    place.apply()
    with place.operator(kubeconfig=account()).wait_ready() as operator:
        place.until("stable", is_stable)
        account()
        place.apply(replicas=3)
        place.until("the edit was seen", lambda status: status.get("readyReplicas") == 3, seconds=120)
        assert operator.is_running()
