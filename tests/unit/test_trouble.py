"""What keeps pods away and is not the revision's doing: how it is told apart, and in whose words it is said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pinn_operator.core.observed import Observed, Pod, Workload
from pinn_operator.core.rollout.trouble import trouble

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("its node does not report", "NodeNotReporting"),
        ("ContainersNotReady: containers with unready status: [istio-proxy]", "SidecarNotReady"),
        ('ReadinessGatesNotReady: the status of pod readiness gate "target-health.elbv2.k8s.aws/x" is not "True"',
         "ReadinessGateNotPassed"),
    ],
)  # fmt: skip
def test_who_keeps_a_pod_unready_although_its_container_is_ready_is_told_apart(cause: str, reason: str) -> None:
    pod = Pod("eu-bbbb-x-1", "bbbb", START, "Running", ready=False, node="n", started=True, unready_cause=cause)
    found = trouble(Observed({"bbbb": Workload("bbbb", 1, 0, 0, settled=True)}, (pod,)), "bbbb")
    assert found is not None
    assert (found.reason, found.text) == (reason, f"{cause} (pod eu-bbbb-x-1)")
