"""Revisions that start well and answer badly: only measurements can tell."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.line import Line
from lab.service import Service
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]
ERRORS = ("ErrorRateOutOfBounds", "ErrorRateAboveStable")
SLOWNESS = ("LatencyP95OutOfBounds", "LatencyP95AboveStable", "LatencyP99OutOfBounds")


class TestBadAnswers:
    """One PINNService, tried with one bad revision after the other; none may harm the next."""

    def test_a_revision_that_answers_errors_is_taken_out_of_traffic(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        with service.watched() as chronicle:
            manifest = service.apply(image=line.images.faulty, env={"TRY": "errors"}, steps=((10, 60), (100, 5)))
            service.wait_weight(10)
            service.turn_bad(_bad(service), "errors")
            record = expect.rolled_back(service, stable=stable, bad=_bad(service), reasons=ERRORS, untouched=before)
        account("all requests answered with 500", traffic.summary())
        expect.never_above(chronicle, 10)
        assert record["gate"] == "error-rate"
        assert set(traffic.summary().failed_by_revision) == {record["revision"]}
        expect.not_retried(service, manifest, bad=record["revision"])

    def test_a_slow_revision_is_taken_out_of_traffic(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        with service.watched() as chronicle:
            service.apply(image=line.images.faulty, env={"TRY": "sleep"}, steps=((10, 60), (100, 5)))
            service.wait_weight(10)
            service.turn_bad(_bad(service), "sleep", seconds=3)
            expect.rolled_back(service, stable=stable, bad=_bad(service), reasons=SLOWNESS, untouched=before)
        account("every request takes 3 s", traffic.summary())
        expect.never_above(chronicle, 10)

    def test_errors_that_begin_at_50_percent_end_at_0_percent(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        with service.watched() as chronicle:
            service.apply(image=line.images.faulty, env={"TRY": "half"}, steps=((10, 3), (50, 30), (100, 5)))
            service.wait_weight(50)
            bad = _bad(service)
            began = service.turn_bad(bad, "errors", share=0.5)
            record = expect.rolled_back(service, stable=stable, bad=bad, reasons=ERRORS, untouched=before)
        account("half of the requests fail from 50 % on", traffic.summary(began))
        assert record["weight"] == 50
        expect.never_above(chronicle, 0, since=(chronicle.zero_since(began) or time.time()))
        expect.weights_rose_on_evidence(chronicle, traffic, least=20)

    def test_errors_that_begin_during_the_bake_bring_the_warm_old_revision_back(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        before = service.untouched(stable)
        service.apply(image=line.images.faulty, env={"TRY": "bake"}, steps=((50, 6), (100, 60)))
        service.wait_weight(100)
        bad = _bad(service)
        began = service.turn_bad(bad, "errors", share=0.3)
        record = expect.rolled_back(service, stable=stable, bad=bad, reasons=ERRORS, untouched=before)
        account("a third of the requests fail during the bake", traffic.summary(began))
        assert record["weight"] == 100

    def test_a_fixed_revision_is_accepted_afterwards(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=((50, 3), (100, 3)))
        assert service.wait_stable(other_than=stable)
        account("fixed revision", traffic.summary())
        assert traffic.summary().failed == 0


def _bad(service: Service) -> str:
    """The canary's revision, once there is one that was not rejected before."""

    def find(status: dict[str, object]) -> str:
        canary, phase = status.get("canary") or {}, status.get("phase")
        fresh = phase in ("Progressing", "Baking", "RollingBack")
        return str(canary.get("revision", "")) if fresh and isinstance(canary, dict) else ""

    revision: str = service.wait("trying a revision", find)
    return revision
