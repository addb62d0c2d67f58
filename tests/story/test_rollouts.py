"""Whole rollouts in fake time, told as they happen to a team."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pinn_operator.core.observed import PodReport
from pinn_operator.core.status.values import Phase
from tests.story.world import Behaviour, World, service, serving, started


def rises(world: World) -> list[int]:
    return [weight for _, weight in world.weights]


def test_a_good_revision_walks_through_every_step_and_becomes_stable() -> None:
    world = started("pinn:2").until_stable("pinn:2")
    assert rises(world)[:3] == [10, 50, 100]
    assert world.state.stable is not None
    assert world.state.stable.image == "pinn:2"
    assert world.failed_requests == 0
    assert world.state.history[-1].outcome == "Promoted"
    assert {pod.image for pod in world.pods} == {"pinn:2"}


def test_the_promoted_pods_are_the_ones_that_were_the_canary() -> None:
    world = started("pinn:2").run_until(lambda it: it.state.phase is Phase.BAKING)
    canary = {pod.name for pod in world.pods if pod.image == "pinn:2"}
    world.until_stable("pinn:2")
    assert canary <= {pod.name for pod in world.pods}


@pytest.mark.parametrize(
    ("what", "behaviour", "reason"),
    [
        ("answers errors", Behaviour(errors=lambda _: 1.0), "ErrorRateAboveStable"),
        ("answers some errors", Behaviour(errors=lambda _: 0.15), "ErrorRateAboveStable"),
        ("is slow", Behaviour(latency=lambda _: 0.9), "LatencyP95AboveStable"),
        ("cannot be pulled", Behaviour(image_missing=True), "ImageUnavailable"),
        ("has a wrong checksum", Behaviour(report=PodReport("ModelChecksumMismatch", "expected 9f, found 00")),
         "ModelChecksumMismatch"),
        ("never becomes ready", Behaviour(never_ready=True), "NotReady"),
        ("is killed for its memory", Behaviour(oom_at=20), "OOMKilled"),
        ("crash-loops after it was ready", Behaviour(crashes_at=40), "CrashLoopBackOff"),
    ],
)  # fmt: skip
def test_a_revision_that_is_bad_is_rolled_back_with_its_reason(what: str, behaviour: Behaviour, reason: str) -> None:
    world = started("pinn:bad", images={"pinn:bad": behaviour})
    stable = {pod.name for pod in world.pods if pod.image == "pinn:1"}
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK, at_most=900, tick=1).run(1)
    state = world.state
    assert state.last_rollback is not None, what
    assert state.last_rollback.reason == reason
    assert state.last_rollback.weight_zero_time is not None
    assert world.weight == 0
    assert stable == {pod.name for pod in world.pods}, "the stable pods were touched"
    assert world.said(reason)


def test_a_rejected_revision_is_not_retried_and_a_fixed_one_is_accepted() -> None:
    world = started("pinn:bad", images={"pinn:bad": Behaviour(image_missing=True)})
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK).run(120, tick=1)
    assert world.state.phase is Phase.ROLLED_BACK, "a rejected revision was tried again"
    world.apply(image="pinn:fixed")
    world.until_stable("pinn:fixed")


def test_total_failure_is_seen_within_seconds() -> None:
    world = started("pinn:bad", images={"pinn:bad": Behaviour(errors=lambda t: 1.0 if t > 60 else 0.0)}, rate=30)
    world.run_until(lambda it: it.seconds > 60)
    world.run_until(lambda it: it.weight == 0, at_most=12, tick=0.5)


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.BAKING])
def test_a_revision_that_turns_bad_later_is_caught_there(phase: Phase) -> None:
    turned = {"at": float("inf")}
    behaviour = Behaviour(errors=lambda t: 0.5 if t >= turned["at"] else 0.0)
    world = started("pinn:late", images={"pinn:late": behaviour})
    world.run_until(lambda it: it.weight == (50 if phase is Phase.PROGRESSING else 100)).run(10)
    turned["at"] = world.seconds
    world.run_until(lambda it: it.weight == 0, at_most=15)
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.gate == "error-rate"
    assert world.state.last_rollback.weight == (50 if phase is Phase.PROGRESSING else 100)


def test_without_traffic_nothing_is_promoted_and_nothing_is_rolled_back() -> None:
    world = started("pinn:2", rate=0)
    world.run(900, tick=1)
    assert rises(world) == [10]
    assert world.state.verdict == "NoData"
    assert world.state.phase is Phase.PROGRESSING


def test_the_analysis_deadline_says_that_the_rollout_is_stuck_and_keeps_the_weight() -> None:
    world = started("pinn:2", rate=0, spec={"analysis": {"deadlineSeconds": 60, "intervalSeconds": 10}})
    world.run(300, tick=1)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "AnalysisDeadlineExceeded"
    assert world.weight == 10


def test_an_outage_of_prometheus_holds_says_so_and_goes_on_afterwards() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 10)
    world.prometheus_up = False
    world.run(300)
    condition = world.state.condition("MetricsAvailable")
    assert condition is not None
    assert condition.status == "False"
    assert world.weight == 10
    world.prometheus_up = True
    world.until_stable("pinn:2")


def test_a_crash_loop_is_rolled_back_even_while_prometheus_is_away() -> None:
    world = started("pinn:bad", images={"pinn:bad": Behaviour(crashes_at=60)})
    world.run_until(lambda it: it.weight == 10)
    world.prometheus_up = False
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK, at_most=200)


def test_the_previous_spec_returns_to_stable_at_once_and_rejects_nothing() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50)
    world.apply(image="pinn:1")
    world.run(1)
    assert world.weight == 0
    world.until_stable("pinn:1")
    assert world.state.rejected is None
    assert {pod.image for pod in world.pods} == {"pinn:1"}


def test_a_third_revision_starts_from_stable() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50)
    world.apply(image="pinn:3")
    world.run(1)
    assert world.weight == 0
    world.run_until(lambda it: it.weight == 10)
    assert world.state.canary is not None
    assert world.state.canary.image == "pinn:3"
    assert world.state.stable is not None
    assert world.state.stable.image == "pinn:1"


def test_an_invalid_spec_changes_nothing_and_keeps_the_gates_armed() -> None:
    turned = {"at": float("inf")}
    behaviour = Behaviour(errors=lambda t: 1.0 if t >= turned["at"] else 0.0)
    world = started("pinn:2", images={"pinn:2": behaviour}).run_until(lambda it: it.weight == 10)
    world.apply(replicas=-4)
    world.run(5)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "InvalidSpec"
    assert "spec.replicas" in stalled.message
    assert world.weight == 10
    turned["at"] = world.seconds
    world.run_until(lambda it: it.weight == 0, at_most=30)


@pytest.mark.parametrize("edited", [0, 3, 40, 100])
def test_a_weight_edited_by_hand_is_put_right_and_never_taken_as_the_step(edited: int) -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 10).run(10)
    world.edit_weight(edited)
    world.run(1)
    assert world.weight == 10
    assert world.said("WeightRepaired")
    assert world.state.rollout is not None
    assert world.state.rollout.step_index == 0


def test_pausing_holds_the_weight_and_keeps_the_gates_armed() -> None:
    turned = {"at": float("inf")}
    behaviour = Behaviour(errors=lambda t: 1.0 if t >= turned["at"] else 0.0)
    world = started("pinn:2", images={"pinn:2": behaviour}).run_until(lambda it: it.weight == 10)
    world.apply(paused=True)
    world.run(300)
    assert world.weight == 10
    turned["at"] = world.seconds
    world.run_until(lambda it: it.weight == 0, at_most=30)


def test_without_a_router_the_ratio_of_replicas_is_the_weight() -> None:
    spec = service(traffic={"router": "Replicas"})
    world = serving(World(spec))
    world.apply(image="pinn:2")
    world.until_stable("pinn:2")
    assert rises(world)[:3] == [10, 50, 100]
    assert world.failed_requests == 0
    assert world.state.stable is not None
    assert world.state.stable.image == "pinn:2"


def test_without_a_router_a_bad_revision_leaves_the_service_before_its_pods_go() -> None:
    world = serving(World(service(traffic={"router": "Replicas"}),
                                        images={"pinn:bad": Behaviour(errors=lambda _: 1.0)}))  # fmt: skip
    world.apply(image="pinn:bad")
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK)
    world.run(1)
    assert any(pod.image == "pinn:bad" for pod in world.pods)
    failed = world.failed_requests
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK)
    assert world.failed_requests == failed


@pytest.mark.parametrize("when", [10, 50, 100])
def test_an_operator_that_dies_between_commit_and_act_ends_the_rollout_right(when: int) -> None:
    world = started("pinn:2")
    world.run_until(lambda it: it.state.rollout is not None and it.look().status.rollout is not None
                    and it.look().status.rollout.weight == when)  # fmt: skip
    world.reconcile(crash_before_acting=True)
    world.operator_up = False
    world.run(20)
    world.operator_up = True
    world.until_stable("pinn:2")
    assert rises(world)[:3] == [10, 50, 100]


def test_a_rollback_that_was_committed_is_carried_out_by_the_next_operator() -> None:
    world = started("pinn:bad", images={"pinn:bad": Behaviour(errors=lambda t: 1.0 if t > 50 else 0.0)})
    world.run_until(lambda it: it.weight == 10).run(2)
    world.operator_up = False
    world.run_until(lambda it: it.look().status.phase is Phase.ROLLING_BACK)
    world.reconcile(crash_before_acting=True)
    assert world.weight == 10
    world.operator_up = True
    world.run(0.5)
    assert world.weight == 0


def test_a_fault_while_the_operator_was_down_is_seen_by_the_next_one() -> None:
    world = started("pinn:bad", images={"pinn:bad": Behaviour(errors=lambda t: 1.0 if t > 50 else 0.0)})
    world.run_until(lambda it: it.weight == 10).run(2)
    world.operator_up = False
    world.run(900, tick=1)
    world.operator_up = True
    world.run(1)
    assert world.weight == 0
    assert rises(world) == [10, 0]


def test_when_the_canary_is_the_only_copy_that_can_answer_it_gets_the_traffic_though_it_should_leave() -> None:
    images = {"pinn:1": Behaviour(), "pinn:2": Behaviour(errors=lambda t: 0.4 if t > 60 else 0.0)}
    world = started("pinn:2", images=images).run_until(lambda it: it.weight == 10)
    world.run_until(lambda it: it.seconds >= 58)
    images["pinn:1"] = replace(images["pinn:1"], never_ready=True)
    world.images = images
    world.run(40)
    assert world.weight == 100
    degraded = world.state.condition("Degraded")
    assert degraded is not None


def test_a_pass_without_news_writes_nothing() -> None:
    world = serving(World(service()))
    commits = world.commits
    world.run(600, tick=1)
    assert world.commits == commits


@pytest.mark.parametrize("image", ["pinn:2", "pinn:bad"])
def test_deciding_twice_at_one_moment_decides_nothing_new(image: str) -> None:
    world = started(image, images={"pinn:bad": Behaviour(errors=lambda t: 0.3 if t > 40 else 0.0)})
    for _ in range(250):
        first, second = world.look_twice()
        assert second.status == first.status, world.describe()
        assert second.events == ()
        world.run(1, tick=1)


def test_a_healthy_canary_survives_a_noisy_day() -> None:
    """Both revisions fail 1 % of requests: no seed may end in a rollback."""
    for seed in range(8):
        noisy = Behaviour(errors=lambda _: 0.01)
        world = started("pinn:2", images={"pinn:1": noisy, "pinn:2": noisy}, seed=seed)
        world.run(150, tick=1)
        assert world.state.last_rollback is None, f"seed {seed}: {world.state.last_rollback}"
