"""Revisions that are bad from their start: rejected before any client has asked them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.line import Line
from lab.service import VERIFIED, Service, revision_of
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]

BAD: list[Any] = [
    pytest.param({"FAULT": "errors", "FAULT_SHARE": "0.3"}, id="three-of-ten-requests-answered-with-500"),
    pytest.param({"FAULT": "sleep", "FAULT_SHARE": "0.1", "FAULT_SLEEP_SECONDS": "3"}, id="one-in-ten-slow"),
    pytest.param({"FAULT": "wrong"}, id="wrong-prices-of-puts-under-a-week"),
]


class TestBadFromTheStart:
    """One PINNService, tried with one bad revision after the other."""

    @pytest.mark.parametrize("env", BAD)
    def test_it_is_rejected_at_weight_0_and_no_client_has_seen_it(
        self, env: dict[str, str], line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        rejected = revision_of(service.status(), "canary")
        with service.watched() as chronicle:
            service.apply(image=line.images.faulty, env=env, verification=VERIFIED)
            bad = service.wait("trying it", lambda status: _other(status, rejected))
            status = service.wait_phase("RolledBack", seconds=240)
            record = status["lastRollback"]
            expect.rolled_back(service, stable=stable, bad=bad, reasons={record["reason"]}, untouched=before)
        expect.never_above(chronicle, 0)
        account(f"{env}: {record['reason']}: {record['message']}", traffic.summary())
        assert traffic.summary().failed == 0
        assert set(traffic.summary().revisions) == {stable}
        assert service.condition("ModelVerified") == "False"

    def test_a_difference_that_is_meant_passes_when_it_is_acknowledged(
        self, line: Line, service: Service, stable: str, account: Account
    ) -> None:
        env = {"FAULT": "wrong", "TRY": "acknowledged"}
        rejected = revision_of(service.status(), "canary")
        service.apply(image=line.images.faulty, env=env, steps=((100, 2),), verification=VERIFIED)
        bad = service.wait("trying it", lambda status: _other(status, rejected))
        service.wait_phase("RolledBack", seconds=240)
        service.apply(
            image=line.images.faulty, env=env, steps=((100, 2),),
            verification={**VERIFIED, "acknowledgedRevision": bad},
        )  # fmt: skip
        service.kube.kubectl(
            "annotate", "pinnservice", service.name, "-n", service.namespace, "pinn.dev/retry=acknowledged"
        )
        with Traffic(line.gateway, host=service.host, rate=40, seconds=900):
            assert service.wait_stable(other_than=stable, seconds=280) == bad


def _other(status: dict[str, Any], known: str) -> str:
    canary = revision_of(status, "canary")
    return canary if canary != known and status.get("phase") in ("Progressing", "RollingBack", "RolledBack") else ""
