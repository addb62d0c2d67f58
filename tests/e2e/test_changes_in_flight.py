"""What people do while a rollout is in flight, and what silence does: nothing here has one request of traffic."""

from __future__ import annotations

import time

import pytest

from lab.kube import KubeError
from lab.line import Line
from lab.service import Service, revision_of
from tests.support import expect

STEPS = ((10, 3), (50, 3), (100, 3))


class TestChangesInFlight:
    """One rollout at 10 % without traffic; each test is something that happens to it."""

    def test_without_traffic_a_canary_holds_as_no_data_and_is_never_promoted(
        self, line: Line, service: Service, stable: str
    ) -> None:
        with service.watched() as chronicle:
            service.apply(image=line.images.inference, env={"RELEASE": "2"}, steps=STEPS)
            service.wait_weight(10)
            service.wait("told NoData", lambda status: status.get("verdict") == "NoData")
            time.sleep(8)
            status = service.status()
        assert (status["phase"], status["rollout"]["weight"]) == ("Progressing", 10)
        verdicts = {gate["name"]: gate["verdict"] for gate in status["rollout"]["gates"]}
        assert verdicts["error-rate"] == "NoData", verdicts
        assert {verdicts["latency-p95"], verdicts["latency-p99"]} <= {"NoData", "Collecting"}, verdicts
        expect.never_above(chronicle, 10)

    @pytest.mark.parametrize("weight", [60, 0], ids=["higher", "lower"])
    def test_a_weight_that_somebody_sets_by_hand_is_set_back(self, weight: int, service: Service) -> None:
        service.set_route_weight(weight)
        service.wait("back at 10 %", lambda _: service.route_weight() == 10, seconds=20)
        time.sleep(4)
        assert service.route_weight() == 10
        assert service.status()["rollout"]["weight"] == 10, "a foreign weight was taken as the step"

    def test_an_invalid_spec_changes_nothing(self, line: Line, service: Service, stable: str) -> None:
        before = service.read()
        with pytest.raises(KubeError, match="weight 100"):
            service.apply(image=line.images.inference, env={"RELEASE": "9"}, steps=((10, 3), (50, 3)))
        with pytest.raises(KubeError, match="rise"):
            service.apply(image=line.images.inference, env={"RELEASE": "9"}, steps=((50, 3), (10, 3), (100, 3)))
        after = service.read()
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["status"]["phase"] == "Progressing"
        assert revision_of(after["status"], "canary") == revision_of(before["status"], "canary")
        assert service.route_weight() == 10

    def test_a_third_revision_starts_from_stable(self, line: Line, service: Service, stable: str) -> None:
        second = revision_of(service.status(), "canary")
        untouched = service.untouched(stable)
        with service.watched() as chronicle:
            service.apply(image=line.images.inference, env={"RELEASE": "3"}, steps=STEPS)
            third = service.wait("trying the third", lambda status: _other_canary(status, second), seconds=60)
            service.wait_weight(10)
        assert third not in (second, stable)
        weights = chronicle.weights()
        assert 0 in weights[: weights.index(10, 1)] if weights[0] == 10 else True, f"no 0 between: {weights}"
        status = service.status()
        assert revision_of(status, "stable") == stable
        assert service.untouched(stable) == untouched
        assert status["history"][-1]["outcome"] == "Superseded"

    def test_the_previous_revision_returns_at_once(self, line: Line, service: Service, stable: str) -> None:
        untouched = service.untouched(stable)
        service.apply(image=line.images.inference, env={"RELEASE": "1"}, steps=STEPS)
        service.wait("at weight 0", lambda _: service.route_weight() == 0, seconds=5)
        assert service.untouched(stable) == untouched, "stable pods were restarted"
        assert service.wait_stable() == stable
        assert service.untouched(stable) == untouched
        assert service.condition("Ready") == "True"


def _other_canary(status: dict[str, object], second: str) -> str:
    revision = revision_of(status, "canary")
    return revision if revision != second and status.get("phase") == "Progressing" else ""
