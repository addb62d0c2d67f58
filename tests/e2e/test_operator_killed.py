"""kill -9 of the operator: the status is the log, so the next start ends the rollout as the last one would have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.line import Line
from lab.service import Chronicle, Service, revision_of
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]
ERRORS = ("ErrorRateOutOfBounds", "ErrorRateAboveStable")


class TestTheOperatorIsKilled:
    def test_at_each_change_of_weight_of_a_good_rollout(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        with service.watched() as chronicle, _killed_when(line, chronicle, weights=(10, 50, 100)) as killed:
            service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=((10, 3), (50, 3), (100, 3)))
            promoted = service.wait_stable(other_than=stable, seconds=180)
        account("operator killed at 10, 50 and 100 %", traffic.summary())
        assert sorted(killed) == [10, 50, 100]
        assert traffic.summary().failed == 0
        assert service.untouched(promoted)
        expect.weights_rose_on_evidence(chronicle, traffic, least=20)
        assert [weight for weight in chronicle.weights() if weight] == [10, 50, 100]

    def test_before_during_and_after_a_rollback(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        serving = service.status()["stable"]["revision"]
        untouched = service.untouched(serving)
        with service.watched() as chronicle:
            manifest = service.apply(
                image=line.images.faulty,
                env={"TRY": "killed"},
                steps=((10, 60), (100, 5)),
                rollback={"scaleDownDelaySeconds": 6},
            )
            service.wait_weight(10)
            bad = revision_of(service.status(), "canary")
            began = service.turn_bad(bad, "errors")
            line.kill_operator()
            service.wait("rolling back", lambda status: status.get("phase") == "RollingBack", seconds=60)
            line.kill_operator()
            expect.rolled_back(service, stable=serving, bad=bad, reasons=ERRORS, untouched=untouched)
            line.kill_operator()
            line.operator_pod()
            expect.not_retried(service, manifest, bad=bad)
        account("operator killed before, during and after a rollback", traffic.summary(began))
        zero = chronicle.zero_since(began)
        assert zero is not None
        expect.never_above(chronicle, 0, since=zero)

    def test_a_resource_that_is_deleted_meanwhile_leaves_nothing_behind(self, line: Line, service: Service) -> None:
        line.kill_operator()
        service.delete()
        service.kube.kubectl(
            "wait", "--for=delete", "deployments,services,httproutes,controllerrevisions", "-n", service.namespace,
            "-l", f"pinn.dev/service={service.name}", "--timeout=60s", timeout=70,
        )  # fmt: skip


@contextmanager
def _killed_when(line: Line, chronicle: Chronicle, *, weights: tuple[int, ...]) -> Iterator[set[int]]:
    """Kills the operator the moment its status first wants each of the weights."""
    killed: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            wanted = chronicle.seen[-1].wanted if chronicle.seen else 0
            if wanted in weights and wanted not in killed:
                killed.add(wanted)
                line.kill_operator()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join(70)
