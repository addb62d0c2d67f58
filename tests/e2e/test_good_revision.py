"""A good revision: it takes the whole traffic step by step, and no client notices."""

from __future__ import annotations

from collections.abc import Callable

from lab.kube import wait_until
from lab.line import Line
from lab.service import Service
from lab.traffic import Summary, Traffic
from tests.support import expect

STEPS = ((10, 24), (50, 40), (100, 5))
RATE = 100.0
"""Requests per second: more than 2,000 at each step, and 4,000 at 50 %, where chance alone moves the share most."""


class TestAGoodRevision:
    TENSORFLOW = True

    def test_it_is_promoted_with_the_shares_of_its_steps_and_without_one_failed_request(
        self, line: Line, service: Service, stable: str, account: Callable[[str, Summary], None]
    ) -> None:
        with (
            service.watched() as chronicle,
            Traffic(line.gateway, host=service.host, rate=RATE, seconds=900) as traffic,
        ):
            service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=STEPS)
            service.wait_weight(10)
            canary = service.status()["canary"]["revision"]
            first_pods = service.untouched(canary)
            service.wait_phase("Baking", seconds=150)
            warm_pods = service.untouched(canary)
            assert service.wait_stable(other_than=stable) == canary
            summary = traffic.summary()
        account("good revision", summary)

        assert summary.failed == 0, summary
        shares = expect.shares_follow_weights(chronicle, traffic, canary=canary, points=3.0, least=2000)
        assert set(shares) == {10, 50}
        expect.weights_rose_on_evidence(chronicle, traffic, least=20)
        assert first_pods.items() <= warm_pods.items(), "a canary pod was replaced on the way"
        assert service.untouched(canary) == warm_pods, "promotion restarted or replaced pods"
        # The status is committed before it is acted on.
        wait_until("the old revision has no capacity after the bake", lambda: service.replicas(stable) == 0, seconds=10)

    def test_the_resource_says_so_to_people_and_to_tools(self, service: Service) -> None:
        assert service.condition("Ready") == "True"
        assert service.condition("Reconciling") in ("", "False")
        assert service.condition("Stalled") in ("", "False")
        reasons = [reason for reason, _ in service.events()]
        assert "RolloutStarted" in reasons
        assert "Promoted" in reasons
        resource = f"pinnservice/{service.name}"
        service.kube.kubectl("wait", "--for=condition=Ready", resource, "-n", service.namespace, "--timeout=10s")
        table = service.kube.kubectl("get", "pinnservices", "-n", service.namespace)
        assert table.split()[:2] == ["NAME", "READY"]
        assert "Stable" in table

    def test_deleting_it_leaves_nothing_behind(self, service: Service) -> None:
        service.delete()
        kinds = "deployments,replicasets,services,controllerrevisions,httproutes,pods"
        service.kube.kubectl(
            "wait", "--for=delete", kinds, "-n", service.namespace, "-l", f"pinn.dev/service={service.name}",
            "--timeout=90s", timeout=100,
        )  # fmt: skip
