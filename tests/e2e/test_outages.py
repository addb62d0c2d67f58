"""Prometheus or the API server is away in mid-rollout: hold, say so, protect the clients, and go on afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from lab.line import Line, install_chart, uninstall_chart
from lab.service import Service, revision_of
from lab.traffic import Summary, Traffic

Account = Callable[[str, Summary], None]


@pytest.fixture(scope="class")
def other(line: Line, service: Service) -> Iterator[Service]:
    """A second PINNService beside the class's own."""
    other = Service(line.kube, "us", service.namespace, host=f"us.{service.host}", tensorflow=False)
    other.apply(image=line.images.faulty, env={"RELEASE": "1"})
    other.wait_stable()
    yield other
    other.delete()


@pytest.mark.alone
class TestOutages:
    def test_without_prometheus_a_good_canary_holds_and_a_crashing_one_is_still_rolled_back(
        self, line: Line, service: Service, stable: str, other: Service, traffic: Traffic, account: Account
    ) -> None:
        untouched = service.untouched(stable)
        steps = ((10, 6), (100, 4))
        service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=steps)
        other.apply(image=line.images.faulty, env={"RELEASE": "2"}, steps=steps)
        service.wait_weight(10)
        other.wait_weight(10)
        bad = revision_of(other.status(), "canary")
        with line.without("prometheus"):
            service.wait("saying so", lambda _: service.condition("MetricsAvailable") == "False", seconds=30)
            other.turn_bad(bad, "exit")
            other.wait("at weight 0", lambda _: other.route_weight() == 0, seconds=20)
            other.wait_weight(10)
            other.turn_bad(bad, "exit")
            other.wait("rejected", lambda status: "lastRollback" in status, seconds=30)
            assert other.status()["lastRollback"]["revision"] == bad
            time.sleep(10)
            status = service.status()
            assert (status["phase"], status["rollout"]["weight"]) == ("Progressing", 10), "it did not hold"
            verdicts = {gate["name"]: gate["verdict"] for gate in status["rollout"]["gates"]}
            # What Kubernetes alone tells, such as the availability, needs no Prometheus.
            assert verdicts["error-rate"] == "Error", verdicts
            assert service.untouched(stable) == untouched
        service.wait("measuring again", lambda _: service.condition("MetricsAvailable") == "True", seconds=40)
        promoted = service.wait_stable(other_than=stable)
        assert service.untouched(promoted)
        other.wait_phase("RolledBack")
        account("Prometheus stopped at 10 %", traffic.summary())
        assert traffic.summary().failed == 0

    def test_an_api_server_that_restarts_does_not_end_the_rollout(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = revision_of(service.status(), "stable")
        service.apply(image=line.images.inference, env={"RELEASE": "3"}, steps=((10, 6), (50, 4), (100, 4)))
        service.wait_weight(10)
        canary = revision_of(service.status(), "canary")
        with line.without("apiserver"):
            time.sleep(4)
        assert service.wait_stable(other_than=before) == canary
        account("API server restarted at 10 %", traffic.summary())
        assert traffic.summary().failed == 0

    def test_a_drained_node_suspends_the_rollout_and_it_goes_on_when_the_node_is_back(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = revision_of(service.status(), "stable")
        service.apply(image=line.images.inference, env={"RELEASE": "4"}, steps=((10, 6), (100, 4)))
        service.wait_weight(10)
        canary = revision_of(service.status(), "canary")
        node = service.kube.request("GET", "/api/v1/nodes").body["items"][0]["metadata"]["name"]
        began = time.time()
        try:
            # The only node: all pods of both revisions go, and none can come back before it is uncordoned.
            service.kube.kubectl(
                "drain", node, f"--pod-selector=pinn.dev/service={service.name}", "--ignore-daemonsets",
                "--delete-emptydir-data", "--timeout=60s", timeout=90,
            )  # fmt: skip
            service.wait("saying so", lambda status: "node" in str(status.get("next", {})), seconds=20)
            time.sleep(10)
            assert service.status()["phase"] != "RolledBack", service.line()
        finally:
            service.kube.kubectl("uncordon", node)
        assert service.wait_stable(other_than=before) == canary
        account(f"node drained and back after {time.time() - began:.0f} s", traffic.summary(began))
        assert "lastRollback" not in service.status(), service.line()

    def test_without_the_operator_the_pods_serve_on_and_a_deleted_resource_is_gone(
        self, line: Line, service: Service, traffic: Traffic, account: Account
    ) -> None:
        serving = revision_of(service.status(), "stable")
        untouched = service.untouched(serving)
        uninstall_chart(line.kube)
        try:
            time.sleep(3)
            assert service.read(), "the resources went with the chart"
            assert service.untouched(serving) == untouched
            account("the chart is uninstalled", traffic.summary())
            assert traffic.summary().failed == 0
            service.delete()
            service.kube.kubectl(
                "wait", "--for=delete", "deployments,services,httproutes,controllerrevisions,pods",
                "-n", service.namespace, "-l", f"pinn.dev/service={service.name}", "--timeout=90s", timeout=100,
            )  # fmt: skip
        finally:
            install_chart(line.kube, line.images, prometheus=line.prometheus_in_pods)
