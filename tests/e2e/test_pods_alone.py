"""A resource whose Prometheus answers nothing: what the operator reads from the pods promotes and rolls back."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.line import Line
from lab.service import Service, revision_of
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]
STEPS = ((10, 6), (100, 4))
PODS_ALONE = {"sources": ["Pods"], "prometheus": {"address": "http://127.0.0.1:9"}}
"""Nobody listens on port 9 (discard), so whatever is shown comes from the pods."""


class TestPodsAlone:
    def test_a_good_revision_is_promoted_by_its_pods_counters(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        service.apply(image=line.images.faulty, env={"RELEASE": "2"}, steps=STEPS, analysis=PODS_ALONE)
        service.wait_weight(10)
        service.wait("reading pods", lambda _: service.condition("PodMetricsAvailable") == "True", seconds=30)
        promoted = service.wait_stable(other_than=stable)
        account(f"{promoted} promoted without Prometheus", traffic.summary())
        assert traffic.summary().failed == 0

    def test_a_bad_revision_is_rolled_back_by_its_pods_counters(
        self, line: Line, service: Service, traffic: Traffic, account: Account
    ) -> None:
        stable = revision_of(service.status(), "stable")
        before = service.untouched(stable)
        service.apply(image=line.images.faulty, env={"RELEASE": "3"}, steps=((10, 600), (100, 4)), analysis=PODS_ALONE)
        service.wait_weight(10)
        bad = revision_of(service.status(), "canary")
        time.sleep(5)
        began = service.turn_bad(bad, "errors")
        service.wait("at weight 0", lambda _: service.route_weight() == 0, seconds=15)
        record = service.wait_phase("RolledBack", seconds=60)["lastRollback"]
        account(f"after {time.time() - began:.1f} s: {record['message']}", traffic.summary(began))
        expect.rolled_back(service, stable=stable, bad=bad, reasons={record["reason"]}, untouched=before)
        assert record["gate"] == "error-rate"
