"""The cluster as the reconciler sees it, over a client that keeps objects in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.decision import Apply, Delete, Event
from pinn_operator.core.observed import PodReport
from pinn_operator.core.status.values import EventType, Phase, Status
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.cluster import DOUBTED_SECONDS, UNSERVED_SECONDS, ApiCluster
from pinn_operator.kube.errors import AlreadyExists, Forbidden, NotFound, NotListed, NotOwned
from pinn_operator.kube.events import EventRecorder, event_name
from pinn_operator.kube.reports import PodReporter, parse_report

Manifest = dict[str, Any]


class Memory(Client):
    """The verbs of a client on a dictionary of objects."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.unserved: set[str] = set()
        self.forbidden = False

    def put(self, kind: str, name: str, **manifest: Any) -> Manifest:
        metadata = {"name": name, "namespace": "pricing", "uid": f"uid-{name}", **manifest.pop("metadata", {})}
        self.objects[kind, name] = {"metadata": metadata, **manifest}
        return self.objects[kind, name]

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        self.calls.append(("get", kind.kind, name))
        if self.forbidden:
            raise Forbidden(403, "Forbidden", f"{kind.kind} is forbidden", request="GET")
        self._demand_served(kind, "GET")
        return self._find(kind, name)

    def _demand_served(self, kind: Kind, request: str) -> None:
        if kind.kind in self.unserved:
            raise NotFound(404, "NotFound", "the server could not find the requested resource", request=request)

    async def list_matching(self, kind: Kind, namespace: str, *, label_selector: str = "") -> list[Manifest]:
        self.calls.append(("list", kind.kind, label_selector))
        self._demand_served(kind, "LIST")
        found = [item for (name, _), item in self.objects.items() if name == kind.kind]
        return [{**item, "apiVersion": kind.api_version, "kind": kind.kind} for item in found]

    async def apply(self, kind: Kind, namespace: str, manifest: Mapping[str, Any]) -> Manifest:
        self.calls.append(("apply", kind.kind, manifest["metadata"]["name"]))
        return dict(manifest)

    async def replace_status(self, kind: Kind, namespace: str, manifest: Mapping[str, Any]) -> Manifest:
        self.calls.append(("status", kind.kind, manifest["metadata"]["resourceVersion"]))
        self.objects["status", manifest["metadata"]["name"]] = dict(manifest)
        return dict(manifest)

    async def create(self, kind: Kind, namespace: str, manifest: Mapping[str, Any]) -> Manifest:
        name = manifest["metadata"]["name"]
        self.calls.append(("create", kind.kind, name))
        if (kind.kind, name) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", "exists", request="POST")
        self.objects[kind.kind, name] = dict(manifest)
        return dict(manifest)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Manifest:
        self.calls.append(("merge", kind.kind, name))
        self._find(kind, name).update(patch)
        return self._find(kind, name)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        self.calls.append(("delete", kind.kind, uid))
        del self.objects[kind.kind, name]

    def _find(self, kind: Kind, name: str) -> Manifest:
        try:
            return self.objects[kind.kind, name]
        except KeyError:
            raise NotFound(404, "NotFound", f'"{name}" not found', request="GET") from None


class Reporter(PodReporter):
    """Answers what it was given, and remembers who was asked."""

    def __init__(self, reports: Mapping[str, PodReport]) -> None:
        super().__init__()
        self.reports = reports
        self.asked: dict[str, str] = {}

    async def ask(self, addresses: Mapping[str, str]) -> Mapping[str, PodReport]:
        self.asked.update(addresses)
        return self.reports


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def resource() -> Resource:
    return parse_resource(
        {
            "metadata": {"name": "eu", "namespace": "pricing", "uid": "u-1", "generation": 1, "resourceVersion": "77"},
            "spec": {"image": "x:1"},
        }
    )


def owned(uid: str | None = "u-1", **labels: str) -> Manifest:
    references = [{"uid": uid, "controller": True}] if uid else []
    return {"ownerReferences": references, "labels": {"pinn.dev/service": "eu", **labels}}


def build(client: Memory, *, reporter: PodReporter | None = None, clock: Clock | None = None) -> ApiCluster:
    return ApiCluster(
        client,
        events=EventRecorder(client, instance="test"),
        reporter=reporter or Reporter({}),
        clock=clock or Clock(),
    )


async def test_a_resource_that_is_gone_reads_as_none() -> None:
    assert await build(Memory()).read("pricing", "eu") is None


async def test_children_are_asked_for_by_label_and_parsed() -> None:
    client = Memory()
    client.put("Deployment", "eu-a1f3c2aa", metadata=owned(**{"pinn.dev/revision": "a1f3c2aa"}), spec={"replicas": 3})
    client.put("Service", "eu-stable", metadata=owned(), spec={"selector": {"pinn.dev/revision": "a1f3c2aa"}})
    client.put("Pod", "eu-a1f3c2aa-x", metadata=owned(None, **{"pinn.dev/revision": "a1f3c2aa"}))
    seen = await build(client).observe(resource())
    assert seen.workloads["a1f3c2aa"].replicas == 3
    assert seen.selectors == {"eu-stable": {"pinn.dev/revision": "a1f3c2aa"}}
    assert [pod.name for pod in seen.pods] == ["eu-a1f3c2aa-x"]
    assert set(seen.objects) == {("Deployment", "eu-a1f3c2aa"), ("Service", "eu-stable")}
    assert {call[2] for call in client.calls} == {"pinn.dev/service=eu"}


async def test_children_of_a_deleted_namesake_are_not_ours() -> None:
    client = Memory()
    client.put("Deployment", "eu-a1f3c2aa", metadata=owned("u-0", **{"pinn.dev/revision": "a1f3c2aa"}))
    seen = await build(client).observe(resource())
    assert seen.workloads == {}
    assert seen.objects == {}


async def test_children_that_lost_their_owner_are_ours() -> None:
    client = Memory()
    client.put("Service", "eu", metadata=owned(None), spec={"selector": {}})
    assert ("Service", "eu") in (await build(client).observe(resource())).objects


async def test_a_deployment_that_is_being_deleted_has_no_capacity() -> None:
    client = Memory()
    metadata = owned(**{"pinn.dev/revision": "a1f3c2aa"}) | {"deletionTimestamp": "2026-11-21T08:00:00Z"}
    client.put("Deployment", "eu-a1f3c2aa", metadata=metadata)
    seen = await build(client).observe(resource())
    assert seen.workloads == {}
    assert ("Deployment", "eu-a1f3c2aa") in seen.objects


async def test_how_long_a_pod_is_as_ready_as_it_is_is_measured_by_the_operators_own_clock() -> None:
    client, clock = Memory(), Clock()
    cluster = build(client, clock=clock)
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    runs = {"containerStatuses": [{"name": "inference", "state": {"running": {}}}]}

    async def seen() -> float | None:
        return (await cluster.observe(resource())).pods[0].seen

    def put(status: dict[str, object]) -> None:
        client.put("Pod", "eu-a1f3c2aa-x", metadata=owned(None, **{"pinn.dev/revision": "a1f3c2aa"}), status=status)

    for _ in range(2):
        put({})
        assert await seen() == 0.0
        clock.now += 7
        assert await seen() == 0.0, "it does not even run"
        put(runs)
        assert await seen() == 0.0
        clock.now += 7
        assert await seen() == 7.0
        put(runs | ready)
        assert await seen() == 0.0
        clock.now += 7
        assert await seen() == 7.0


async def test_an_api_server_without_httproutes_is_asked_again_only_after_a_while() -> None:
    client, clock = Memory(), Clock()
    client.unserved.add("HTTPRoute")
    cluster = build(client, clock=clock)
    for _ in range(3):
        assert not (await cluster.observe(resource())).route_kind_served
        clock.now += DOUBTED_SECONDS
    assert sum(call[1] == "HTTPRoute" for call in client.calls) == 2
    clock.now += UNSERVED_SECONDS
    client.unserved.clear()
    assert (await cluster.observe(resource())).route_kind_served


async def test_a_kind_that_was_served_a_moment_ago_is_not_taken_for_unserved_by_an_api_server_that_starts() -> None:
    client, clock = Memory(), Clock()
    cluster = build(client, clock=clock)
    assert (await cluster.observe(resource())).route_kind_served
    client.unserved.add("HTTPRoute")
    with pytest.raises(NotFound):
        await cluster.observe(resource())
    client.unserved.clear()
    assert (await cluster.observe(resource())).route_kind_served
    client.unserved.add("HTTPRoute")
    with pytest.raises(NotFound):
        await cluster.observe(resource())
    clock.now += DOUBTED_SECONDS
    assert not (await cluster.observe(resource())).route_kind_served, "it was removed"


async def test_a_resource_is_gone_only_if_the_api_server_knows_its_kind_or_has_not_for_a_while() -> None:
    client, clock = Memory(), Clock()
    cluster = build(client, clock=clock)
    assert await cluster.read("pricing", "eu") is None
    client.put("PINNService", "eu")
    for _ in range(2):
        client.unserved.add("PINNService")
        with pytest.raises(NotFound):
            await cluster.read("pricing", "eu")
        clock.now += DOUBTED_SECONDS - 1
        with pytest.raises(NotFound):
            await cluster.read("pricing", "eu")
        client.unserved.clear()
        assert await cluster.read("pricing", "eu") is not None
    client.unserved.add("PINNService")
    with pytest.raises(NotFound):
        await cluster.read("pricing", "eu")
    clock.now += DOUBTED_SECONDS
    assert await cluster.read("pricing", "eu") is None, "its definition was removed"


async def test_only_pods_that_run_and_are_not_ready_are_asked_why() -> None:
    client = Memory()
    running = {"phase": "Running", "containerStatuses": [{"name": "inference", "state": {"running": {}}}]}
    spec = {"containers": [{"name": "inference", "ports": [{"name": "http", "containerPort": 8000}]}]}
    client.put("Pod", "eu-x-1", metadata=owned(None), spec=spec, status=running | {"podIP": "10.0.0.1"})
    is_ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    client.put("Pod", "eu-x-2", metadata=owned(None), spec=spec, status=running | {"podIP": "10.0.0.2"} | is_ready)
    client.put("Pod", "eu-x-3", metadata=owned(None), spec=spec, status={"phase": "Pending"})
    reporter = Reporter({"eu-x-1": PodReport("ChecksumMismatch", "wrong")})
    seen = await build(client, reporter=reporter).observe(resource())
    assert reporter.asked == {"eu-x-1": "10.0.0.1:8000"}
    assert {pod.name: pod.report for pod in seen.pods} == {
        "eu-x-1": PodReport("ChecksumMismatch", "wrong"),
        "eu-x-2": None,
        "eu-x-3": None,
    }


async def test_a_status_is_committed_against_the_version_that_was_read() -> None:
    client = Memory()
    await build(client).commit_status(resource(), Status(phase=Phase.STABLE))
    assert client.calls == [("status", "PINNService", "77")]
    written = client.objects["status", "eu"]
    assert written["metadata"]["uid"] == "u-1"
    assert written["status"]["phase"] == "Stable"


def apply_service(name: str = "eu") -> Apply:
    return Apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "pricing"}})


async def test_an_object_that_is_absent_or_ours_is_applied() -> None:
    client = Memory()
    cluster = build(client)
    await cluster.act(resource(), apply_service())
    client.put("Service", "eu", metadata=owned())
    await cluster.act(resource(), apply_service())
    client.put("Service", "eu", metadata=owned(None))
    await cluster.act(resource(), apply_service())
    assert client.calls.count(("apply", "Service", "eu")) == 3


@pytest.mark.parametrize("metadata", [{}, owned("u-9")], ids=["a team's own", "another owner's"])
async def test_an_object_of_somebody_else_is_left_alone(metadata: Manifest) -> None:
    client = Memory()
    client.put("Service", "eu", metadata=metadata)
    with pytest.raises(NotOwned, match="Service pricing/eu exists"):
        await build(client).act(resource(), apply_service())
    with pytest.raises(NotOwned):
        await build(client).act(resource(), Delete("v1", "Service", "eu"))
    assert ("Service", "eu") in client.objects


async def test_deleting_what_is_gone_is_fine() -> None:
    await build(Memory()).act(resource(), Delete("apps/v1", "Deployment", "eu-a1f3c2aa"))


async def test_what_is_deleted_is_the_object_that_was_seen() -> None:
    client = Memory()
    client.put("Deployment", "eu-a1f3c2aa", metadata=owned())
    await build(client).act(resource(), Delete("apps/v1", "Deployment", "eu-a1f3c2aa"))
    assert client.calls[-1] == ("delete", "Deployment", "uid-eu-a1f3c2aa")


async def test_only_kinds_of_ours_are_ever_written() -> None:
    with pytest.raises(ValueError, match="writes no v1 Secret"):
        await build(Memory()).act(resource(), Delete("v1", "Secret", "eu"))


async def test_a_secret_gives_one_value_as_text() -> None:
    client = Memory()
    client.put("Secret", "prometheus", data={"token": "czNjcjN0Cg==", "broken": "%%"})
    cluster = build(client)
    assert await cluster.read_secret("pricing", "prometheus", "token") == "s3cr3t"
    for name, key in (("prometheus", "other"), ("prometheus", "broken"), ("absent", "token")):
        assert await cluster.read_secret("pricing", name, key) is None


async def test_what_the_operator_may_not_read_is_named_with_the_line_for_the_chart() -> None:
    client = Memory()
    client.forbidden = True
    cluster = build(client)
    with pytest.raises(NotListed, match=r"add {namespace: pricing, name: checks} to metricsSecrets of the operator's"):
        await cluster.read_secret("pricing", "checks", "hmac")
    with pytest.raises(NotListed, match="to metricsConfigMaps"):
        await cluster.read_config_map("pricing", "ca", "ca.crt")


# --- events -----------------------------------------------------------------------------------------------------------

ADVANCED = Event(EventType.NORMAL, "Advanced", "weight 10 → 50")


async def test_what_is_said_twice_is_one_event_with_a_count() -> None:
    client = Memory()
    cluster = build(client)
    for _ in range(3):
        await cluster.emit(resource(), ADVANCED)
    [(_, event)] = client.objects.items()
    assert (event["count"], event["reason"], event["type"]) == (3, "Advanced", "Normal")
    assert event["involvedObject"]["uid"] == "u-1"


async def test_what_is_said_again_after_a_restart_raises_the_same_count() -> None:
    client = Memory()
    await build(client).emit(resource(), ADVANCED)
    await build(client).emit(resource(), ADVANCED)
    [(_, event)] = client.objects.items()
    assert event["count"] == 2


async def test_what_a_process_that_died_had_committed_and_told_is_not_told_twice() -> None:
    client = Memory()
    await build(client).emit(resource(), ADVANCED)
    await build(client).emit_missing(resource(), ADVANCED, datetime.now(UTC) - timedelta(seconds=2))
    [(_, event)] = client.objects.items()
    assert event["count"] == 1


async def test_what_a_process_that_died_had_committed_and_not_told_is_told_with_the_time_of_the_decision() -> None:
    client = Memory()
    await build(client).emit_missing(resource(), ADVANCED, datetime(2026, 11, 21, 8, 0, 5, 900_000, tzinfo=UTC))
    [(_, event)] = client.objects.items()
    assert (event["count"], event["reason"]) == (1, "Advanced")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-11-21T08:00:05Z"


async def test_what_was_told_of_an_earlier_change_only_is_told_of_this_one_too() -> None:
    client = Memory()
    await build(client).emit(resource(), ADVANCED)
    await build(client).emit_missing(resource(), ADVANCED, datetime.now(UTC) + timedelta(minutes=1))
    [(_, event)] = client.objects.items()
    assert event["count"] == 2


async def test_an_event_that_has_expired_is_told_anew() -> None:
    client = Memory()
    cluster = build(client)
    await cluster.emit(resource(), ADVANCED)
    client.objects.clear()
    await cluster.emit(resource(), ADVANCED)
    [(_, event)] = client.objects.items()
    assert event["count"] == 1


def test_different_things_said_are_different_events() -> None:
    names = {
        event_name(resource(), ADVANCED),
        event_name(resource(), replace(ADVANCED, message="weight 50 → 100")),
        event_name(resource(), replace(ADVANCED, reason="Promoted")),
        event_name(replace(resource(), uid="u-2"), ADVANCED),
    }
    assert len(names) == 4


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[" * 60_000, b"{}", b'{"reason": 5}', b'{"reason": ""}'])
def test_an_answer_without_a_reason_is_no_report(body: bytes) -> None:
    assert parse_report(body) is None


def test_a_report_has_reason_and_message() -> None:
    assert parse_report(b'{"ready": false, "reason": "Draining", "message": "bye"}') == PodReport("Draining", "bye")


async def test_a_pod_that_does_not_answer_has_no_report_and_only_a_few_are_asked() -> None:
    reporter = PodReporter(timeout=0.2, limit=2)
    asked = await asyncio.wait_for(reporter.ask({f"p{n}": "127.0.0.1:9" for n in range(50)}), 30)
    assert asked == {}
    await reporter.close()
