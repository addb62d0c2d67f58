"""Revisions whose pods fail: what the kubelet or the pod itself says is enough, no request has to be lost for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.line import Line
from lab.service import Service, revision_of
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]

NEVER_READY: list[Any] = [
    pytest.param({"limits": {"memory": "32Mi"}}, {"OOMKilled"}, id="a-memory-limit-that-kills-it"),
    pytest.param({"sha256": "0" * 64}, {"ModelChecksumMismatch"}, id="weights-with-a-wrong-checksum"),
    pytest.param(
        {"limits": {"cpu": "10m"}, "rollback": {"readyDeadlineSeconds": 20}}, {"NotReady"}, id="a-cpu-limit-too-small"
    ),
    pytest.param({"env": {"PINN_LOG_LEVEL": "nonsense"}}, {"CrashLoopBackOff"}, id="a-process-that-exits-at-the-start"),
]


class TestBadPods:
    """One PINNService, tried with one bad revision after the other; none may harm the next."""

    @pytest.mark.parametrize(("change", "reasons"), NEVER_READY)
    def test_a_revision_that_never_gets_ready_is_rejected_without_one_failed_request(
        self, change: dict[str, Any], reasons: set[str], line: Line, service: Service, stable: str, traffic: Traffic,
        account: Account,
    ) -> None:  # fmt: skip
        before = service.untouched(stable)
        rejected = revision_of(service.status(), "canary")
        with service.watched() as chronicle:
            manifest = service.apply(**{"image": line.images.inference, **change})
            bad = service.wait("trying it", lambda status: _other(status, rejected))
            expect.rolled_back(service, stable=stable, bad=bad, reasons=reasons, untouched=before)
        expect.never_above(chronicle, 0)
        expect.not_retried(service, manifest, bad=bad, seconds=1.5)
        account(f"{', '.join(reasons)}", traffic.summary())
        assert traffic.summary().failed == 0

    def test_a_registry_that_does_not_answer_suspends_the_rollout_and_rejects_nothing(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        service.apply(image="localhost:1/pinn-inference:none")
        status = service.wait_phase("Suspended", seconds=60)
        assert "ImagePull" in status["reason"], status["reason"]
        account("a registry that is away", traffic.summary())
        assert traffic.summary().failed == 0

    def test_a_process_that_exits_while_it_has_traffic_is_taken_out_at_once_and_rejected_when_it_does_so_again(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        service.apply(image=line.images.faulty, env={"TRY": "exit"}, steps=((10, 60), (100, 5)))
        service.wait_weight(10)
        bad = revision_of(service.status(), "canary")
        began = service.turn_bad(bad, "exit")
        service.wait("at weight 0", lambda _: service.route_weight() == 0, seconds=20)
        assert service.status()["phase"] == "Suspended"
        service.wait_weight(10)
        service.turn_bad(bad, "exit")
        expect.rolled_back(service, stable=stable, bad=bad, reasons={"CrashLoopBackOff"}, untouched=before)
        account("the process exits at 10 %", traffic.summary(began))

    def test_a_process_that_outgrows_its_memory_while_it_has_traffic_is_taken_out_at_once(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        service.apply(image=line.images.faulty, env={"TRY": "memory"}, steps=((10, 60), (100, 5)))
        service.wait_weight(10)
        bad = revision_of(service.status(), "canary")
        began = service.turn_bad(bad, "memory")
        expect.rolled_back(service, stable=stable, bad=bad, reasons={"OOMKilled"}, untouched=before)
        account("the process outgrows its memory at 10 %", traffic.summary(began))

    def test_a_fixed_revision_is_accepted_afterwards(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=((50, 3), (100, 3)))
        assert service.wait_stable(other_than=stable)
        account("fixed revision", traffic.summary())
        assert traffic.summary().failed == 0


def _other(status: dict[str, Any], rejected: str) -> str:
    revision = revision_of(status, "canary")
    return revision if revision != rejected else ""
