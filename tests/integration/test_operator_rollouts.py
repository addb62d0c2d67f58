"""Whole rollouts: the operator as a process, a real API server and controller-manager, a real Prometheus.

There are no nodes. The test plays the kubelet (pods become ready) and the clients (requests to whatever the clients'
Service selects), so weight is the ratio of replicas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.kube import Kube, Manifest
from tests.support.operator import Operator, pause
from tests.support.place import Place, install_crd, running
from tests.support.telling import Exporter, PrometheusProcess, Traffic, running_prometheus

pytestmark = pytest.mark.integration

GATES = [
    {
        "name": "error-rate",
        "advance": {"below": "0.01"},
        "abort": {"above": "0.05", "consecutive": 2},
        "minSamples": 50,
    },
    {"name": "latency-p95", "minSamples": 50},
    {"name": "latency-p99", "minSamples": 50},
]
BAKE_SECONDS = 3


@pytest.fixture(scope="module")
def kube(control_plane: Path) -> Iterator[Kube]:
    """The control plane with the CRD installed."""
    kube = Kube(control_plane)
    install_crd(kube)
    yield kube
    kube.close()


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    """What the pods of all stages tell."""
    with Exporter() as exporter:
        yield exporter


@pytest.fixture(scope="module")
def prometheus(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    """One for all stages."""
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), exporter) as process:
        yield process


@dataclass(frozen=True, slots=True)
class Stage:
    """A place with traffic, metrics and an operator, and revision 1 serving."""

    place: Place
    traffic: Traffic
    prometheus: PrometheusProcess
    operator: Operator
    first: str

    def apply(self, tag: str, *, bake: int = BAKE_SECONDS, **more: Any) -> None:
        apply(self.place, self.prometheus, tag, bake=bake, **more)

    def start_canary(self, tag: str = "2.0.0", **more: Any) -> str:
        """Apply a new revision; its name as soon as it is the canary."""
        self.apply(tag, **more)
        status = self.place.until("a canary", lambda status: status.get("canary") and status)
        revision: str = status["canary"]["revision"]
        return revision

    def until_weight(self, weight: int) -> Manifest:
        """Until the canary has that weight in force."""

        def check(status: Manifest) -> Manifest | None:
            rollout = status.get("rollout") or {}
            return status if rollout.get("weight") == weight and rollout.get("programmedTime") else None

        found: Manifest = self.place.until(f"weight {weight}", check)
        return found

    def pod_names(self, revision: str) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.place.pods(revision)}


def apply(place: Place, prometheus: PrometheusProcess, tag: str, *, bake: int = BAKE_SECONDS, **more: Any) -> None:
    place.apply(
        tag=tag,
        strategy={
            "type": "Canary",
            "canary": {"steps": [{"weight": 50, "holdSeconds": 2}, {"weight": 100, "holdSeconds": bake}]},
        },
        analysis={
            "prometheus": {"address": prometheus.address},
            "intervalSeconds": 1,
            "abortIntervalSeconds": 1,
            "gates": GATES,
        },
        rollback={"scaleDownDelaySeconds": 1, "drainSeconds": 1, "unreadySeconds": 3},
        **more,
    )


@pytest.fixture
def stage(
    kube: Kube, exporter: Exporter, prometheus: PrometheusProcess, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    namespace = f"roll-{abs(hash(request.node.name)) % 10**9}"
    kube.kubectl("create", "namespace", namespace)
    place = Place(kube, namespace, tmp_path)
    with Traffic(place) as traffic, place.operator(prometheus=prometheus.address).wait_ready() as operator:
        exporter.traffics.append(traffic)
        apply(place, prometheus, "1.0.0")
        status = place.until("the first revision serves", is_stable)
        yield Stage(place, traffic, prometheus, operator, status["stable"]["revision"])
        exporter.traffics.remove(traffic)
    kube.kubectl("delete", "namespace", namespace, "--wait=false")


def is_stable(status: Manifest) -> Manifest | None:
    return status if status.get("phase") == "Stable" and status.get("readyReplicas") == 2 else None


def has_rolled_back(status: Manifest) -> Manifest | None:
    return status if status.get("phase") == "RolledBack" else None


def condition(status: Manifest, kind: str) -> Manifest:
    return next((item for item in status.get("conditions", []) if item["type"] == kind), {})


def test_a_good_revision_is_promoted_and_its_pods_become_the_stable_ones(stage: Stage) -> None:
    canary = stage.start_canary()
    stage.until_weight(100)
    warm = stage.pod_names(canary)
    status = stage.place.until("promoted", lambda status: is_stable(status) if not status.get("rollout") else None)
    assert status["stable"]["revision"] == canary
    assert stage.pod_names(canary) == warm, "no pod is restarted by a promotion"
    stage.place.until("the old revision has no pods", lambda _: not stage.pod_names(stage.first))
    assert [entry["outcome"] for entry in status["history"]][-1] == "Promoted"
    labels = {"service": "eu-options", "namespace": stage.place.namespace}
    assert stage.operator.metric("pinn_operator_transitions_total", transition="promoted", **labels) == 1


def test_a_revision_that_answers_errors_is_rolled_back(stage: Stage) -> None:
    untouched = stage.pod_names(stage.first)
    canary = stage.start_canary()
    stage.traffic.bad_revisions[canary] = 0.5
    status = stage.place.until("rolled back", has_rolled_back)
    assert status["stable"]["revision"] == stage.first
    assert status["rejected"]["revision"] == canary
    assert "ErrorRate" in status["rejected"]["reason"]
    assert status["rejected"]["gate"] == "error-rate"
    assert stage.pod_names(stage.first) >= untouched, "the stable pods were not touched"
    stage.place.until("its pods are gone", lambda _: not stage.pod_names(canary))
    pause(3)
    assert has_rolled_back(stage.place.status), "it is not tried again by itself"
    assert stage.operator.metric("pinn_operator_rollbacks_total", namespace=stage.place.namespace) == 1


def test_after_a_rollback_a_repaired_revision_is_accepted(stage: Stage) -> None:
    stage.traffic.bad_revisions[stage.start_canary("2.0.0")] = 1.0
    stage.place.until("rolled back", has_rolled_back)
    stage.apply("2.0.1")
    status = stage.place.until(
        "the repaired one serves",
        lambda status: is_stable(status) if status["stable"]["revision"] != stage.first else None,
    )
    assert status["stable"]["image"].endswith(":2.0.1")
    assert not status.get("rejected")


def test_one_that_turns_bad_during_the_bake_is_taken_out(stage: Stage) -> None:
    canary = stage.start_canary(bake=600)
    stage.until_weight(100)
    stage.traffic.bad_revisions[canary] = 0.5
    status = stage.place.until("rolled back", has_rolled_back)
    assert status["rejected"]["weight"] == 100
    assert status["stable"]["revision"] == stage.first


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "restarts": 1}, "OOMKilled"),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"reason": "Error", "exitCode": 1, "message": "no model"}},
                "restarts": 3,
            },
            "CrashLoopBackOff",
        ),
        ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "x:9: not found"}}}, "ImageUnavailable"),
    ],
    ids=["out of memory", "crash loop", "no image"],
)
def test_a_pod_that_fails_condemns_its_revision(stage: Stage, container: Manifest, reason: str) -> None:
    canary = stage.start_canary()
    pods = stage.place.wait("its pods", lambda: stage.place.pods(canary))
    # An image that one pod of the revision runs is there, whatever another pod's registry says.
    for pod in pods if reason == "ImageUnavailable" else pods[:1]:
        stage.place.set_status(pod, running(ready=False, **container))
    status = stage.place.until("rolled back", has_rolled_back, healthy=False)
    assert status["rejected"]["reason"] == reason
    assert status["stable"]["revision"] == stage.first


def test_without_metrics_it_holds_and_says_so_and_goes_on_when_they_are_back(stage: Stage) -> None:
    stage.start_canary(bake=600)
    stage.until_weight(50)
    stage.prometheus.stop()
    try:
        stage.place.until("it says so", lambda status: condition(status, "MetricsAvailable").get("status") == "False")
        weight = stage.place.status["rollout"]["weight"]
        pause(5)
        assert stage.place.status["rollout"]["weight"] == weight, "no weight moves on silence"
        assert stage.place.status["phase"] in ("Progressing", "Baking")
    finally:
        stage.prometheus.start()
    stage.until_weight(100)
    stage.place.until("it says so", lambda status: condition(status, "MetricsAvailable").get("status") == "True")


def test_without_traffic_it_never_promotes(stage: Stage) -> None:
    stage.traffic.per_second = 0.0
    stage.start_canary()
    stage.until_weight(50)
    pause(8)
    status = stage.place.status
    assert status["rollout"]["weight"] == 50
    verdicts = {gate["name"]: gate["verdict"] for gate in status["rollout"]["gates"]}
    assert {verdicts["error-rate"], verdicts["latency-p95"]} <= {"NoData", "Collecting"}, verdicts


def test_a_return_to_the_stable_revision_is_immediate(stage: Stage) -> None:
    canary = stage.start_canary(bake=600)
    stage.until_weight(50)
    stage.apply("1.0.0")
    status = stage.place.until("back", lambda status: is_stable(status) if not status.get("canary") else None)
    assert status["stable"]["revision"] == stage.first
    assert not status.get("rejected"), "nothing was wrong with it"
    stage.place.until("its pods are gone", lambda _: not stage.pod_names(canary))


@pytest.mark.parametrize("moment", ["weight 50", "weight 100", "rollback"])
def test_killed_in_mid_rollout_the_next_one_ends_it_right(stage: Stage, moment: str) -> None:
    canary = stage.start_canary(bake=5)
    stage.until_weight(100 if moment == "weight 100" else 50)
    if moment == "rollback":
        stage.traffic.bad_revisions[canary] = 1.0
        stage.place.until("the rollback begins", lambda status: status.get("phase") in ("RollingBack", "RolledBack"))
    stage.operator.kill()
    pause(1)
    with stage.place.operator("second", prometheus=stage.prometheus.address).wait_ready():
        if moment == "rollback":
            status = stage.place.until("rolled back", has_rolled_back)
            assert status["stable"]["revision"] == stage.first
        else:
            status = stage.place.until(
                "promoted", lambda status: is_stable(status) if not status.get("rollout") else None
            )
            assert status["stable"]["revision"] == canary


def test_an_invalid_spec_in_mid_rollout_changes_nothing_and_disarms_no_gate(stage: Stage) -> None:
    """The CRD refuses it; the rollout goes on as if nobody had tried."""
    canary = stage.start_canary(bake=600)
    stage.until_weight(50)
    with pytest.raises(Exception, match="weight"):
        stage.place.kube.merge(
            "pinnservices",
            "eu-options",
            stage.place.namespace,
            {"spec": {"strategy": {"canary": {"steps": [{"weight": 0, "holdSeconds": 1}]}}}},
        )
    stage.traffic.bad_revisions[canary] = 1.0
    assert stage.place.until("rolled back", has_rolled_back)["stable"]["revision"] == stage.first
