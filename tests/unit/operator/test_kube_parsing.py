"""Kubernetes objects as they really look, read as values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pinn_operator.core.names import controller_uid
from pinn_operator.core.observed import ControlToken, DataKind, Termination
from pinn_operator.core.routers.http_route import parse_route
from pinn_operator.kube.parsing import (
    parse_pod,
    parse_record,
    parse_selector,
    parse_workload,
    report_address,
)

Manifest = dict[str, Any]

WORKLOAD: Manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "eu-a1f3c2aa"}, "spec": {}}


def pod(*, conditions: list[Manifest] | None = None, container: Manifest | None = None, **status: Any) -> Manifest:
    return {
        "metadata": {
            "name": "eu-9d77e0aa-5c9f-x2x4z",
            "labels": {"pinn.dev/service": "eu", "pinn.dev/revision": "9d77e0aa"},
            "creationTimestamp": "2026-11-21T08:00:00Z",
        },
        "spec": {
            "containers": [
                {"name": "istio-proxy", "ports": [{"name": "http", "containerPort": 15090}]},
                {
                    "name": "inference",
                    "ports": [{"name": "http", "containerPort": 8000}],
                    "resources": {"limits": {"memory": "2Gi"}},
                },
            ]
        },
        "status": {
            "phase": "Running",
            "startTime": "2026-11-21T08:00:01Z",
            "conditions": conditions or [],
            "containerStatuses": [{"name": "inference", **container}] if container else [],
            **status,
        },
    }


def ready(status: str, changed: str) -> Manifest:
    return {"type": "Ready", "status": status, "lastTransitionTime": changed}


def test_a_pod_without_status_is_pending_and_unready() -> None:
    parsed = parse_pod({"metadata": {"name": "a", "creationTimestamp": "2026-11-21T08:00:00Z"}})
    assert (parsed.phase, parsed.ready, parsed.was_ready, parsed.restarts) == ("Pending", False, False, 0)


def test_a_ready_pod_is_and_was_ready() -> None:
    parsed = parse_pod(pod(conditions=[ready("True", "2026-11-21T08:00:09Z")]))
    assert parsed.ready
    assert parsed.was_ready
    assert parsed.ready_changed == datetime(2026, 11, 21, 8, 0, 9, tzinfo=UTC)
    assert parsed.revision == "9d77e0aa"


def test_a_pod_whose_ready_condition_never_changed_was_never_ready() -> None:
    # The kubelet writes the condition and startTime together; both are cut to seconds.
    for changed in ("2026-11-21T08:00:01Z", "2026-11-21T08:00:02Z"):
        assert not parse_pod(pod(conditions=[ready("False", changed)])).was_ready


def test_a_pod_whose_ready_condition_became_false_later_was_ready_before() -> None:
    parsed = parse_pod(pod(conditions=[ready("False", "2026-11-21T08:05:00Z")]))
    assert not parsed.ready
    assert parsed.was_ready


def test_a_pod_that_crash_loops_from_the_start_was_never_ready() -> None:
    container = {
        "restartCount": 5,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting"}},
        "lastState": {"terminated": {"reason": "Error", "exitCode": 3, "message": "ChecksumMismatch"}},
    }
    parsed = parse_pod(pod(conditions=[ready("False", "2026-11-21T08:00:01Z")], container=container))
    assert not parsed.was_ready
    assert (parsed.restarts, parsed.waiting_reason) == (5, "CrashLoopBackOff")
    assert parsed.termination == Termination("Error", 3, "ChecksumMismatch")


def test_the_newest_end_of_a_container_counts() -> None:
    container = {
        "restartCount": 1,
        "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
        "lastState": {"terminated": {"reason": "Error", "exitCode": 1}},
    }
    assert parse_pod(pod(container=container)).termination == Termination("OOMKilled", 137)
    assert parse_pod(pod(container=container)).memory_limit == "2Gi"


def test_an_out_of_memory_kill_is_still_seen_after_the_restart() -> None:
    container = {
        "restartCount": 1,
        "state": {"running": {}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
    }
    parsed = parse_pod(pod(container=container))
    assert parsed.termination is not None
    assert parsed.termination.reason == "OOMKilled"


RESTARTED = {"state": {"running": {}}, "restartCount": 1}


@pytest.mark.parametrize(
    ("name", "container", "cause"),
    [
        ("it ended by itself", {**RESTARTED, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}, ""),
        ("it did not answer its liveness probe",
         {**RESTARTED, "lastState": {"terminated": {"reason": "Error", "exitCode": 137}}}, ""),
        ("its node restarted", {**RESTARTED, "lastState": {"terminated": {"reason": "Unknown", "exitCode": 255}}},
         "its node restarted"),
        ("its node lost it",
         {**RESTARTED, "lastState": {"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137}}},
         "its node restarted"),
        ("it ends with its pod", {"state": {"terminated": {"reason": "Error", "exitCode": 143}}}, "its deletion"),
        ("it fails while its pod ends", {"state": {"terminated": {"reason": "Error", "exitCode": 1}}}, ""),
    ],
)  # fmt: skip
def test_who_ended_a_container(name: str, container: Manifest, cause: str) -> None:
    manifest = pod(container=container)
    if "ends" in name:
        manifest["metadata"]["deletionTimestamp"] = "2026-11-21T08:09:00Z"
    ended = parse_pod(manifest).termination
    assert ended is not None
    assert ended.cause == cause, name


def test_a_memory_kill_without_a_memory_limit_is_its_node_s() -> None:
    manifest = pod(container={"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}})
    del manifest["spec"]["containers"][1]["resources"]
    ended = parse_pod(manifest).termination
    assert ended is not None
    assert "its node ran out of memory" in ended.cause


def test_a_pod_that_is_taken_away_says_by_whom() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "a drain"}
    container = {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    parsed = parse_pod(pod(conditions=[target], container=container))
    assert parsed.disruption == "EvictionByEvictionAPI: a drain"
    assert parsed.termination is not None
    assert parsed.termination.cause == parsed.disruption
    failed = parse_pod(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert failed.disruption == "Evicted: The node was low on resource: memory."


@pytest.mark.parametrize(
    ("name", "condition", "container", "cause"),
    [
        ("a silent node", {}, {"ready": True}, "its node does not report"),
        ("a sidecar", {"reason": "ContainersNotReady", "message": "[istio-proxy]"}, {"ready": True},
         "ContainersNotReady: [istio-proxy]"),
        ("its own probe", {"reason": "ContainersNotReady"}, {"ready": False}, ""),
    ],
)  # fmt: skip
def test_who_keeps_a_pod_from_being_ready(name: str, condition: Manifest, container: Manifest, cause: str) -> None:
    parsed = parse_pod(pod(conditions=[{**ready("False", "2026-11-21T08:10:00Z"), **condition}], container=container))
    assert parsed.unready_cause == cause, name
    assert parsed.was_ready


def test_a_container_that_waits_for_another_one_says_what_that_one_waits_for() -> None:
    other = {"name": "fetch", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}}
    container = {"state": {"waiting": {"reason": "PodInitializing"}}, "imageID": ""}
    parsed = parse_pod(pod(container=container, initContainerStatuses=[other]))
    assert (parsed.waiting_reason, parsed.waiting_message) == ("CreateContainerConfigError", "no key")
    assert not parsed.started


@pytest.mark.parametrize(
    ("name", "inits", "reason", "words"),
    [
        ("runs", [{"state": {"running": {"startedAt": "2026-11-21T08:00:05Z"}}}], "InitContainerRunning",
         "it runs since 2026-11-21T08:00:05Z"),
        ("ended badly", [{"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}], "Error",
         "it ended with exit code 3 (Error)"),
        ("the second one", [{"name": "first", "state": {"terminated": {"exitCode": 0}}},
                            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}],
         "ImagePullBackOff", "Back-off"),
        ("after a sidecar that started", [{"name": "mesh", "started": True, "state": {"running": {}}},
                                          {"state": {"running": {}}}], "InitContainerRunning", "it runs"),
    ],
)  # fmt: skip
def test_a_container_that_waits_for_an_init_container_names_it(
    name: str, inits: list[Manifest], reason: str, words: str
) -> None:
    container = {"state": {"waiting": {"reason": "PodInitializing"}}}
    parsed = parse_pod(pod(container=container, initContainerStatuses=[{"name": "setup", **item} for item in inits]))
    assert (parsed.waits_for, parsed.waiting_reason, parsed.waiting_message) == ("setup", reason, words), name


def test_a_pod_that_only_begins_waits_for_no_init_container() -> None:
    waiting = {"state": {"waiting": {"reason": "PodInitializing"}}}
    parsed = parse_pod(pod(container=waiting, initContainerStatuses=[{"name": "setup", **waiting}]))
    assert (parsed.waits_for, parsed.waiting_reason) == ("", "PodInitializing")


def test_a_deployment_that_cannot_create_pods_says_why() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: pods"}
    manifest = {"metadata": {"name": "a"}, "spec": {}, "status": {"conditions": [failure]}}
    assert parse_workload(manifest).failure == "exceeded quota: pods"
    failure["status"] = "False"
    assert parse_workload(manifest).failure == ""


def test_a_sidecar_that_crashes_is_not_the_revision_s_fault() -> None:
    manifest = pod()
    manifest["status"]["containerStatuses"] = [
        {"name": "istio-proxy", "restartCount": 9, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    ]
    parsed = parse_pod(manifest)
    assert (parsed.restarts, parsed.waiting_reason, parsed.termination) == (0, "", None)


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    container = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:9"'}}}
    parsed = parse_pod(pod(container=container, phase="Pending"))
    assert (parsed.waiting_reason, parsed.waiting_message) == ("ImagePullBackOff", 'Back-off pulling image "x:9"')


def test_a_pod_that_no_node_takes_says_so() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: memory"}
    assert parse_pod(pod(conditions=[condition], phase="Pending")).unschedulable == "0/3 nodes: memory"


def test_a_pod_that_waits_for_its_gate_is_not_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    manifest = pod(conditions=[condition], phase="Pending")
    manifest["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    parsed = parse_pod(manifest)
    assert parsed.unschedulable == ""
    assert (parsed.waiting_reason, parsed.waiting_message) == (
        "SchedulingGated", "held back by kueue.x-k8s.io/admission",
    )  # fmt: skip


def test_an_evicted_pod_has_the_reason_of_its_eviction() -> None:
    parsed = parse_pod(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory"))
    assert (parsed.phase, parsed.waiting_reason) == ("Failed", "Evicted")
    assert "memory" in parsed.waiting_message


def test_a_pod_that_is_being_deleted_is_terminating() -> None:
    manifest = pod()
    manifest["metadata"]["deletionTimestamp"] = "2026-11-21T08:10:00Z"
    assert parse_pod(manifest).terminating


def test_long_messages_are_cut_and_keep_the_end_of_a_log() -> None:
    container = {"state": {"terminated": {"reason": "Error", "exitCode": 1, "message": "x" * 5000 + "the last line"}}}
    termination = parse_pod(pod(container=container)).termination
    assert termination is not None
    assert len(termination.message) == 1024
    assert termination.message.endswith("the last line")


def test_a_running_pod_is_asked_at_the_port_of_its_own_container() -> None:
    assert report_address(pod(container={"state": {"running": {}}}, podIP="10.0.0.7")) == "10.0.0.7:8000"
    assert report_address(pod(container={"state": {"running": {}}}, podIP="fd00::7")) == "[fd00::7]:8000"
    assert parse_pod(pod(container={"state": {"running": {}}}, podIP="10.0.0.7")).address == "10.0.0.7:8000"


@pytest.mark.parametrize(
    "manifest",
    [
        pod(container={"state": {"running": {}}}),
        pod(container={"state": {"waiting": {}}}, podIP="10.0.0.7"),
        pod(container={"state": {"running": {}}}, podIP="10.0.0.7", phase="Pending"),
    ],
    ids=["no address", "not running", "not yet started"],
)
def test_a_pod_that_cannot_answer_is_not_asked(manifest: Manifest) -> None:
    assert report_address(manifest) is None
    assert parse_pod(manifest).address == ""


def deployment(*, generation: int, observed: int | None, replicas: int | None = 3, **status: int) -> Manifest:
    return {
        "metadata": {"name": "eu-a", "generation": generation, "labels": {"pinn.dev/revision": "a1f3c2aa"}},
        "spec": {} if replicas is None else {"replicas": replicas},
        "status": {**status, **({} if observed is None else {"observedGeneration": observed})},
    }


def test_a_deployment_is_settled_when_its_newest_generation_was_seen() -> None:
    assert parse_workload(deployment(generation=4, observed=4, availableReplicas=2, readyReplicas=3)).settled
    assert not parse_workload(deployment(generation=4, observed=3)).settled
    assert not parse_workload(deployment(generation=1, observed=None)).settled


def test_a_deployment_counts_what_it_shall_have_and_what_it_has() -> None:
    parsed = parse_workload(deployment(generation=1, observed=1, availableReplicas=2, readyReplicas=3))
    assert (parsed.revision, parsed.replicas, parsed.available, parsed.ready) == ("a1f3c2aa", 3, 2, 3)
    assert parse_workload(deployment(generation=1, observed=1, replicas=None)).replicas == 1
    assert parse_workload(deployment(generation=1, observed=1, replicas=0)).replicas == 0


def test_a_service_without_selector_has_an_empty_one() -> None:
    assert parse_selector({"spec": {}}) == {}


# --- routes -----------------------------------------------------------------------------------------------------------

PARENT = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edge", "name": "edge"}


def conditions(generation: int, **values: str) -> list[Manifest]:
    statuses = {"Accepted": "True", "ResolvedRefs": "True"} | values
    return [
        {"type": kind, "status": status, "observedGeneration": generation, "reason": "Why", "message": "because"}
        for kind, status in statuses.items()
    ]


def route(
    *, parents: list[Manifest] | None = None, wanted: list[Manifest] | None = None, generation: int = 7
) -> Manifest:
    return {
        "metadata": {"name": "eu", "namespace": "pricing", "generation": generation},
        "spec": {
            "parentRefs": [PARENT] if wanted is None else wanted,
            "rules": [{"backendRefs": [{"name": "eu-stable", "weight": 90}, {"name": "eu-canary", "weight": 10}]}],
        },
        "status": {"parents": parents or []},
    }


def test_a_route_that_every_parent_has_taken_up_is_programmed() -> None:
    parsed = parse_route(route(parents=[{"parentRef": PARENT, "conditions": conditions(7)}]))
    assert parsed.programmed
    assert parsed.message == ""
    assert parsed.weights == {"eu-stable": 90, "eu-canary": 10}


@pytest.mark.parametrize(
    ("parents", "reason", "words"),
    [
        ([], "RouteStatusAbsent", "edge/edge has not taken the route up"),
        ([{"parentRef": PARENT, "conditions": conditions(6)}], "ObservedGenerationOld", "older generation"),
        (
            [{"parentRef": PARENT, "conditions": [{"type": "Accepted", "status": "True"}]}],
            "ObservedGenerationAbsent",
            "does not say which generation",
        ),
        (
            [{"parentRef": PARENT, "conditions": conditions(7, ResolvedRefs="False")}],
            "RouteNotResolved",
            "ResolvedRefs is False: Why because",
        ),
        (
            [{"parentRef": PARENT, "conditions": conditions(7)[:1]}],
            "RouteStatusAbsent",
            "ResolvedRefs is not reported yet",
        ),
        (
            [{"parentRef": PARENT | {"name": "old"}, "conditions": conditions(7)}],
            "RouteStatusAbsent",
            "edge/edge has not taken",
        ),
        (
            [{"parentRef": PARENT | {"sectionName": "https"}, "conditions": conditions(7)}],
            "RouteStatusAbsent",
            "edge/edge has not taken",
        ),
    ],
    ids=[
        "unseen",
        "older generation",
        "no generation",
        "refused",
        "half reported",
        "the Gateway it was moved from",
        "another listener",
    ],
)
def test_a_route_that_is_not_in_force_says_why(parents: list[Manifest], reason: str, words: str) -> None:
    parsed = parse_route(route(parents=parents))
    assert not parsed.programmed
    assert parsed.reason == reason
    assert words in parsed.message


def test_a_parent_without_namespace_is_in_the_route_s_own() -> None:
    wanted = [{"name": "edge"}]
    entry = {"parentRef": {"name": "edge", "namespace": "pricing"}, "conditions": conditions(7)}
    assert parse_route(route(parents=[entry], wanted=wanted)).programmed


def test_a_route_without_parents_is_not_in_force() -> None:
    assert not parse_route(route(wanted=[])).programmed


def test_one_of_two_parents_is_not_enough() -> None:
    other = PARENT | {"name": "internal"}
    parsed = parse_route(route(parents=[{"parentRef": PARENT, "conditions": conditions(7)}], wanted=[PARENT, other]))
    assert not parsed.programmed
    assert "edge/internal" in parsed.message


REFUSED = {"parentRef": PARENT, "conditions": conditions(7, Accepted="False")}
SERVED = {"parentRef": PARENT, "conditions": conditions(7)}
OTHER = PARENT | {"name": "internal"}


@pytest.mark.parametrize(
    ("parents", "wanted", "unserved"),
    [
        ([], [], True),
        ([], [PARENT], True),
        ([REFUSED], [PARENT], True),
        ([REFUSED], [PARENT, OTHER], True),
        ([SERVED], [PARENT], False),
        ([SERVED], [PARENT, OTHER], False),
        ([REFUSED, SERVED], [PARENT], False),
        ([{"parentRef": PARENT, "conditions": conditions(6)}], [PARENT], False),
        ([{"parentRef": PARENT, "conditions": conditions(7, ResolvedRefs="False")}], [PARENT], False),
    ],
)
def test_clients_are_lost_only_where_no_parent_serves_the_route(
    parents: list[Manifest], wanted: list[Manifest], unserved: bool
) -> None:
    assert parse_route(route(parents=parents, wanted=wanted)).unserved is unserved


def test_a_backend_named_by_several_rules_counts_with_its_largest_weight() -> None:
    manifest = route()
    manifest["spec"]["rules"].append({"backendRefs": [{"name": "eu-canary", "weight": 100}, {"name": "other"}]})
    assert parse_route(manifest).weights == {"eu-stable": 90, "eu-canary": 100, "other": 1}


def test_a_record_whose_spec_is_no_longer_taken_keeps_its_workload() -> None:
    manifest = {
        "metadata": {"name": "eu-a", "labels": {"pinn.dev/revision": "a1f3c2aa"}},
        "revision": 4,
        "data": {"workload": WORKLOAD, "spec": {"image": 5}},
    }
    parsed = parse_record(manifest)
    assert (parsed.revision, parsed.number, parsed.spec) == ("a1f3c2aa", 4, None)
    assert parsed.workload == WORKLOAD


@pytest.mark.parametrize(
    "data",
    [
        None, "x", [1], {"workload": "x"}, {"workload": {"metadata": {}}}, {"spec": "x"},
        {"workload": {**WORKLOAD, "kind": "ClusterRole"}},
    ],
)  # fmt: skip
def test_a_record_that_somebody_made_by_hand_is_read_as_one_without_a_workload(data: object) -> None:
    parsed = parse_record({"metadata": {"name": "eu-a1f3c2aa"}, "revision": 1, "data": data})
    assert (parsed.workload, parsed.spec) == ({}, None)


def test_the_controller_is_told_from_other_owners() -> None:
    references = [{"uid": "u-1"}, {"uid": "u-2", "controller": True}]
    assert controller_uid({"metadata": {"ownerReferences": references}}) == "u-2"
    assert controller_uid({"metadata": {}}) is None


def test_a_container_that_runs_has_started_when_its_kubelet_says_and_one_that_waits_has_not() -> None:
    running = {"name": "inference", "restartCount": 2, "state": {"running": {"startedAt": "2026-11-21T09:30:00Z"}}}
    waiting = {"name": "inference", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    assert parse_pod(pod(container=running)).container_started == datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    assert parse_pod(pod(container=waiting)).container_started is None


@pytest.mark.parametrize(
    ("container", "known"),
    [
        ({"state": {"waiting": {"reason": "ImagePullBackOff"}}}, False),
        ({"state": {"running": {"startedAt": "2026-11-21T09:30:00Z"}}}, True),
        ({"state": {"terminated": {"startedAt": "2026-11-21T09:30:00Z", "finishedAt": "2026-11-21T09:31:00Z"}}}, True),
        (
            {
                "restartCount": 1, "state": {"running": {"startedAt": "2026-11-21T09:40:00Z"}},
                "lastState": {"terminated": {"startedAt": "2026-11-21T09:30:00Z"}},
            },
            True,
        ),
        (
            {
                "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"startedAt": "2026-11-21T09:30:00Z"}},
            },
            False,
        ),
        ({"restartCount": 1, "state": {"running": {"startedAt": "2026-11-21T09:40:00Z"}}}, False),
    ],
    ids=["waiting", "running", "ended", "restarted once", "restarted twice", "restarted, nobody knows when"],
)  # fmt: skip
def test_when_a_container_was_started_for_the_first_time(container: Manifest, known: bool) -> None:
    first = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    assert parse_pod(pod(container=container)).first_started == (first if known else None)


@pytest.mark.parametrize(
    ("variable", "token"),
    [
        ({"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}}, ControlToken("0b1c-44")),
        ({"value": "ours"}, ControlToken("ours")),
        ({}, ControlToken()),
        (
            {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
            ControlToken(kind=DataKind.SECRET, name="a", key="b"),
        ),
        (
            {"valueFrom": {"configMapKeyRef": {"name": "a", "key": "b", "optional": True}}},
            ControlToken(kind=DataKind.CONFIG_MAP, name="a", key="b"),
        ),
    ],
)
def test_what_a_pod_asks_of_those_who_change_something_is_in_its_environment(
    variable: Manifest, token: ControlToken
) -> None:
    manifest = pod()
    assert parse_pod(manifest).token == ControlToken(), "a pod from before there was a token"
    manifest["metadata"]["uid"] = "0b1c-44"
    manifest["spec"]["containers"][0]["env"] = [{"name": "PINN_CONTROL_TOKEN", "value": "of a sidecar"}]
    manifest["spec"]["containers"][1]["env"] = [{"name": "A", "value": "1"}, {"name": "PINN_CONTROL_TOKEN", **variable}]
    assert parse_pod(manifest).token == token
