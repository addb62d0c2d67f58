"""What the infrastructure does to a canary suspends its rollout, and never rejects it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.kube import Manifest
from lab.line import Line
from lab.service import Service, revision_of
from lab.traffic import Summary, Traffic

Account = Callable[[str, Summary], None]
STEPS = ((10, 12), (100, 3))


class TestInfrastructure:
    """One PINNService; each rollout meets a fault that is not its own, and is promoted after it."""

    def test_an_evicted_canary_is_tried_again(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        canary = _at_10(service, line, "evicted")
        for pod in service.pods(canary):
            _evict(service, pod)
        _promoted_after(service, canary, account, traffic)

    def test_a_canary_deleted_by_force_is_tried_again(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        canary = _at_10(service, line, "deleted")
        for pod in service.pods(canary):
            service.kube.kubectl(
                "delete", "pod", pod["metadata"]["name"], "-n", service.namespace, "--grace-period=0", "--force"
            )
        _promoted_after(service, canary, account, traffic)

    def test_a_full_quota_is_named_and_waited_for(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        pods = len(service.kube.list("pods", service.namespace))
        quota = {
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods", "namespace": service.namespace},
            "spec": {"hard": {"pods": str(pods)}},
        }  # fmt: skip
        service.kube.apply(quota)
        canary = _started(service, line, env={"TRY": "quota"})
        service.wait("naming the quota", lambda status: "exceeded quota" in str(status.get("next", {})), seconds=15)
        service.kube.delete("resourcequotas", "pods", service.namespace)
        _promoted_after(service, canary, account, traffic)

    def test_a_canary_that_no_node_takes_is_named_and_waited_for(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        canary = _started(service, line, env={"TRY": "room"}, more={"nodeSelector": {"e2e.pinn.dev/room": "yes"}})
        service.wait("naming the scheduler", lambda status: "node" in str(status.get("next", {})), seconds=15)
        node = service.kube.request("GET", "/api/v1/nodes").body["items"][0]["metadata"]["name"]
        service.kube.kubectl("label", "node", node, "e2e.pinn.dev/room=yes")
        try:
            _promoted_after(service, canary, account, traffic)
        finally:
            service.kube.kubectl("label", "node", node, "e2e.pinn.dev/room-")

    def test_a_missing_key_of_a_secret_is_named_and_waited_for(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        secret: Manifest = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "desk", "namespace": service.namespace},
            "stringData": {"other": "x"},
        }  # fmt: skip
        service.kube.apply(secret)
        reference = {"name": "DESK", "valueFrom": {"secretKeyRef": {"name": "desk", "key": "token"}}}
        canary = _started(service, line, more={"env": [reference]})
        service.wait("naming the key", lambda status: "token" in str(status.get("next", {})), seconds=40)
        service.kube.apply({**secret, "stringData": {"token": "x"}})
        _promoted_after(service, canary, account, traffic)

    def test_a_route_that_no_gateway_accepts_is_named_and_waited_for(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        canary = _at_10(service, line, "route")
        route = {"router": "HTTPRoute", "hostnames": [service.host]}
        nowhere = {**route, "parentRefs": [{"name": "nowhere", "namespace": "edge"}]}
        service.apply(image=line.images.inference, steps=STEPS, env={"TRY": "route"}, more={"traffic": nowhere})
        service.wait("naming the route", lambda status: "edge/nowhere" in str(status.get("reason")), seconds=30)
        assert (service.route_weight(), revision_of(service.status(), "canary")) == (10, canary), service.line()
        service.apply(image=line.images.inference, steps=STEPS, env={"TRY": "route"})
        assert service.wait_stable(other_than=stable, seconds=150) == canary
        account("a route without a Gateway", traffic.summary())


def _started(service: Service, line: Line, **arguments: Any) -> str:
    before = {revision_of(service.status(), role) for role in ("stable", "canary")}
    service.apply(image=line.images.inference, steps=STEPS, **arguments)
    found: str = service.wait(
        "trying it", lambda status: (name := revision_of(status, "canary")) not in before and name
    )
    return found


def _at_10(service: Service, line: Line, what: str) -> str:
    canary = _started(service, line, env={"TRY": what})
    service.wait_weight(10)
    return canary


def _evict(service: Service, pod: Manifest) -> None:
    name = pod["metadata"]["name"]
    answer = service.kube.request(
        "POST",
        f"/api/v1/namespaces/{service.namespace}/pods/{name}/eviction",
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": service.namespace}},
    )
    assert answer.status < 300, answer


def _promoted_after(service: Service, canary: str, account: Account, traffic: Traffic) -> None:
    def ended(status: dict[str, Any]) -> str:
        assert status.get("phase") != "RolledBack", f"rejected: {status['lastRollback']}"
        return canary if status.get("phase") == "Stable" and revision_of(status, "stable") == canary else ""

    assert service.wait("promoted", ended, seconds=150) == canary
    events = [reason for reason, _ in service.events()]
    account(f"events {sorted(set(events))}", traffic.summary())
