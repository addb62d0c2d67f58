"""What people, clocks and clusters do to a rollout in flight."""

from __future__ import annotations

import json

import pytest

from pinn_operator.core.status.values import Phase
from tests.story.test_rollouts import rises
from tests.story.world import Behaviour, World, service, serving, started

# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [30, 3600])
def test_a_clock_that_is_set_back_does_not_disarm_the_gates(ahead: float) -> None:
    turned = {"at": float("inf")}
    behaviour = Behaviour(errors=lambda t: 1.0 if t >= turned["at"] else 0.0)
    world = serving(World(service(), images={"pinn:2": behaviour}))
    world.clock_offset = ahead
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(10)
    world.clock_offset = 0
    world.run(10)
    turned["at"] = world.seconds
    world.run_until(lambda it: it.weight == 0, at_most=20)


@pytest.mark.parametrize("offset", [-7200, -30, -3, 7200])
def test_a_revision_that_turns_bad_just_when_the_clock_is_set_goes_as_soon(offset: float) -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(errors=lambda t: 0.5 if t >= 60 else 0.0)})
    world.run_until(lambda it: it.seconds >= 60)
    assert world.weight == 10
    world.clock_offset = offset
    world.run_until(lambda it: it.weight == 0, at_most=20)


def test_a_clock_that_jumps_ahead_skips_no_gate() -> None:
    world = started("pinn:2", rate=0).run_until(lambda it: it.weight == 10)
    for offset in (7200, 14400, 90000):
        world.clock_offset = offset
        world.run(20)
    assert rises(world) == [10]
    assert world.state.last_rollback is None


# --- people -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_does_not_put_the_next_try_off() -> None:
    """Neither after a suspension, nor after prices that could not be asked for."""
    ahead = 400.0
    world = started("pinn:2", spec={"verification": {"mode": "Auto"}})
    world.oracle.reachable, world.clock_offset = False, ahead
    world.run(60, tick=1)
    assert world.state.rollout is not None
    assert world.state.rollout.weight == 0
    world.oracle.reachable, world.clock_offset = True, 0.0
    world.run_until(lambda it: it.weight == 10, at_most=60, tick=1).run(5)
    world.clock_offset = ahead
    world.take_away(world.of("pinn:2"))
    world.run_until(lambda it: it.state.phase is Phase.SUSPENDED, at_most=10)
    world.clock_offset = 0.0
    world.run_until(lambda it: it.weight == 10, at_most=60, tick=1)


def test_a_weight_edited_while_capacity_is_added_lets_nothing_rise_on_what_was_measured_under_it() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(startup_seconds=20)})
    world.run_until(lambda it: it.state.rollout is not None and it.state.rollout.step_index == 1)
    world.images["pinn:2"] = Behaviour()
    world.edit_weight(100)
    for pod in world.pods:
        pod.ready = pod.was_ready = True
    world.reconcile()
    assert world.weight == 10
    assert world.state.rollout is not None
    assert world.state.rollout.programmed_time is None, "the edit was not seen: this story tells nothing"


def test_an_endless_fight_over_the_route_is_stalled_and_names_the_other_writer() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 10)
    for _ in range(3):
        assert world.state.condition("Stalled") is None
        world.run(30).edit_weight(0, manager="flux-controller")
        world.run(1)
    world.run(10)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "WeightRepaired"
    assert "3 in the last hour" in stalled.message
    assert "the canary's weight was changed to 0 by flux-controller" in stalled.message
    assert world.weight == 10
    world.until_stable("pinn:2")
    assert world.state.condition("Stalled") is None


def test_weights_edited_seldom_call_nobody() -> None:
    slow = [{"weight": 10, "holdSeconds": 7200}, {"weight": 100, "holdSeconds": 60}]
    strategy = {"strategy": {"type": "Canary", "canary": {"steps": slow}}}
    world = started("pinn:2", spec=strategy, rate=1).run_until(lambda it: it.weight == 10)
    for _ in range(4):
        world.run(1900, tick=10).edit_weight(0)
    world.run(10)
    assert world.said("WeightRepaired")
    assert world.state.condition("Stalled") is None


def test_a_return_to_a_stable_revision_that_has_died_waits_for_it() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 100).run(5)
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.run(1)
    world.apply(image="pinn:1")
    world.run(10)
    assert world.weight == 100, "traffic was taken to a revision that cannot answer"
    degraded = world.state.condition("Degraded")
    assert degraded is not None
    assert "only healthy copy" in degraded.message
    world.images["pinn:1"] = Behaviour()
    world.until_stable("pinn:1")


def test_a_lowered_step_does_not_take_traffic_to_a_stable_revision_that_has_died() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50).run(2)
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.run(1)
    world.apply(strategy={"canary": {"steps": [{"weight": 5, "holdSeconds": 60}, {"weight": 20, "holdSeconds": 60},
                                               {"weight": 100, "holdSeconds": 60}]}})  # fmt: skip
    world.run(10)
    assert world.weight == 100, "what can answer gets the traffic"


@pytest.mark.parametrize("weight", [0, 10, 100])
def test_scaling_to_zero_rejects_nothing_and_the_canary_begins_anew(weight: int) -> None:
    world = started("pinn:2").run_until(lambda it: it.state.canary is not None and it.weight == weight)
    world.apply(replicas=0)
    world.run(60)
    assert world.pods == []
    assert world.weight == 0
    world.apply(replicas=3)
    before = len(world.weights)
    world.until_stable("pinn:2")
    assert rises(world)[before:][:3] == [10, 50, 100]
    assert world.state.last_rollback is None


@pytest.mark.parametrize("replicas", [1, 2, 8])
def test_an_autoscaler_may_change_the_replicas_in_mid_rollout(replicas: int) -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50).run(10)
    world.apply(replicas=replicas)
    world.until_stable("pinn:2")
    assert rises(world)[:3] == [10, 50, 100]
    assert world.failed_requests == 0
    assert len(world.pods) == replicas


def test_steps_that_are_taken_away_in_mid_rollout_leave_the_bake() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50)
    world.apply(strategy={"canary": {"steps": [{"weight": 100, "holdSeconds": 30}]}})
    world.until_stable("pinn:2")
    assert rises(world)[:3] == [10, 50, 100]


def test_while_a_spec_is_invalid_replicas_and_pause_stay_as_they_were_last_set() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 10)
    world.apply(replicas=5, paused=True)
    world.run(10)
    world.apply(replicas=-1, paused="perhaps")
    world.run(200)
    assert world.weight == 10, "an invalid spec ended the pause"
    assert sum(pod.image == "pinn:1" for pod in world.pods) == 5
    world.apply(replicas=6)
    world.run(10)
    assert sum(pod.image == "pinn:1" for pod in world.pods) == 6, "an autoscaler is not heard"


def test_a_route_that_is_deleted_while_the_spec_is_invalid_comes_back() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 10)
    world.apply(paused="perhaps")
    world.run(2)
    world.delete("HTTPRoute", world.name)
    world.run(1)
    assert world.weight == 10
    assert world.said("WeightRepaired")


@pytest.mark.parametrize("service_name", ["", "-stable", "-canary"])
def test_a_service_that_is_deleted_comes_back_and_the_measurement_begins_anew(service_name: str) -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 10).run(10)
    world.delete("Service", world.name + service_name)
    world.run(1)
    assert ("Service", world.name + service_name) in world.objects
    assert world.said("WeightRepaired")
    world.until_stable("pinn:2")


def test_specs_that_flip_between_two_revisions_end_at_the_last_one() -> None:
    world = started("pinn:2")
    for pause, image in ((1, "pinn:1"), (1, "pinn:2"), (30, "pinn:1"), (1, "pinn:2"), (3, "pinn:1"), (12, "pinn:2")):
        world.apply(image=image)
        world.run(pause)
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None
    assert world.failed_requests == 0


def test_a_third_revision_during_a_rollback_starts_as_soon_as_the_bad_one_is_drained() -> None:
    world = started("pinn:bad", images={"pinn:bad": Behaviour(errors=lambda _: 1.0)})
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK)
    world.apply(image="pinn:3")
    world.until_stable("pinn:3")
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.capacity_removed_time is not None
    assert [entry.outcome for entry in world.state.history] == ["RolledBack", "Promoted"]


def test_a_revision_that_comes_back_at_once_is_not_judged_by_the_pods_of_its_earlier_try() -> None:
    world = started("pinn:2").until_stable("pinn:2")
    world.apply(image="pinn:1")
    world.run_until(lambda it: it.state.phase is Phase.PROMOTING)
    world.apply(image="pinn:2")
    world.images["pinn:2"] = Behaviour(image_missing=True)
    world.run_until(lambda it: it.state.phase is Phase.STABLE)
    world.images["pinn:2"] = Behaviour()
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None


@pytest.mark.parametrize("changes", [{"image": "pinn:1"}, {"replicas": 0}], ids=["returned", "scaled to zero"])
def test_a_held_rollback_is_over_when_a_person_acts(changes: dict[str, object]) -> None:
    images = {"pinn:bad": Behaviour(errors=lambda _: 0.5)}
    world = started("pinn:bad", images=images, spec={"rollback": {"mode": "Hold"}})
    world.run_until(lambda it: it.state.condition("Degraded") is not None).run(30)
    assert world.weight == 10, "mode Hold rolled back"
    world.apply(**changes)
    first, second = world.look_twice()
    assert second.status == first.status
    assert first.status.condition("Degraded") is None
    world.run(2)
    assert world.weight == 0


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prometheus_up", [True, False])
def test_a_router_that_lags_behind_its_own_status_loses_no_request(prometheus_up: bool) -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50).run(20)
    world.router_lag, world.prometheus_up = 16.0, prometheus_up
    world.apply(image="pinn:1")
    world.run_until(lambda it: all(pod.image == "pinn:1" for pod in it.pods), at_most=120)
    newest = max(pod.last_request for pod in world.gone if pod.image == "pinn:2")
    assert world.seconds - newest >= 10, "capacity went while the router still sent requests to it"
    assert world.failed_requests == 0


def test_an_operator_that_died_before_it_wrote_the_deployment_condemns_nobody_for_it() -> None:
    world = started("pinn:2")
    world.reconcile(crash_before_acting=True)
    assert world.state.phase is Phase.PROGRESSING
    world.operator_up = False
    world.run(3600, tick=5)
    world.operator_up = True
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None


def test_a_status_that_was_lost_keeps_what_serves() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(startup_seconds=30)})
    world.run(5)
    stable = {pod.name for pod in world.pods if pod.image == "pinn:1"}
    world.status = {}
    world.until_stable("pinn:2")
    assert world.said("RevisionAdopted")
    assert stable
    assert world.failed_requests == 0, "the new revision replaced the serving one before it was ready"
    assert rises(world)[-4:] == [10, 50, 100, 0]


def test_without_a_gateway_api_no_weight_moves_and_the_status_says_why() -> None:
    world = serving(World(service()))
    world.route_kind_served = False
    world.apply(image="pinn:2")
    world.run(60)
    assert rises(world) == []
    programmed = world.state.condition("TrafficProgrammed")
    assert programmed is not None
    assert programmed.reason == "HTTPRouteNotServed"
    world.route_kind_served = True
    world.until_stable("pinn:2")


def test_a_first_revision_that_never_serves_is_stalled_and_a_fixed_one_takes_its_place_at_once() -> None:
    world = World(service(image="pinn:bad"), images={"pinn:bad": Behaviour(crashes_at=0)})
    world.run(30)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "CrashLoopBackOff"
    assert world.state.phase is Phase.PENDING
    world.apply(image="pinn:fixed")
    world.run_until(lambda it: it.state.phase is Phase.STABLE, at_most=20)
    assert {pod.image for pod in world.run(3).pods} == {"pinn:fixed"}


def test_a_first_revision_of_no_replicas_is_at_rest() -> None:
    world = World(service(replicas=0)).run(10)
    assert world.state.phase is Phase.STABLE
    world.apply(image="pinn:2")
    world.run(5)
    world.apply(replicas=2)
    world.run(10)
    assert {pod.image for pod in world.pods} == {"pinn:2"}, "nothing ran, so there was nothing to compare with"


def test_without_a_router_one_replica_shares_honestly() -> None:
    world = serving(World(service(traffic={"router": "Replicas"}, replicas=1)))
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.state.rollout is not None and it.state.rollout.weight == 10).run(30)
    wanted, observed = world.state.weight.split("/")
    assert wanted == "10"
    assert 40 < float(observed) < 60
    world.until_stable("pinn:2")
    assert world.failed_requests == 0


def test_a_canary_whose_pods_are_all_gone_loses_its_weight_at_once_and_is_not_rejected() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(startup_seconds=5)})
    world.run_until(lambda it: it.weight == 10).run(5)
    world.kill("pinn:2")
    world.run(0.5)
    assert world.weight == 0
    assert world.state.phase is Phase.SUSPENDED
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None


@pytest.mark.parametrize("router", ["HTTPRoute", "Replicas"])
def test_evicted_pods_that_nobody_clears_away_stand_in_nobodys_way(router: str) -> None:
    traffic = service()["traffic"] if router == "HTTPRoute" else {"router": router}
    world = serving(World(service(traffic=traffic)))
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.state.rollout is not None and it.state.rollout.weight == 10).run(3)
    world.apply(image="pinn:1")
    world.run(2)
    world.evict("pinn:2")
    world.run(40)
    assert any(pod.phase == "Failed" for pod in world.pods)
    for image in ("pinn:3", "pinn:2"):
        world.apply(image=image)
        world.until_stable(image)
    assert world.state.last_rollback is None


def test_a_rollback_ends_though_prometheus_never_answers_again() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50)
    world.prometheus.forgetful = True
    world.apply(image="pinn:1")
    world.until_stable("pinn:1", at_most=90)
    assert {pod.image for pod in world.pods} == {"pinn:1"}


def test_the_promoted_revision_is_served_by_both_services_all_along() -> None:
    world = started("pinn:2").run_until(lambda it: it.state.phase is Phase.PROMOTING)
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.until_stable("pinn:2")
    assert world.failed_requests == 0


# --- the status -------------------------------------------------------------------------------------------------------


def test_the_largest_status_stays_small() -> None:
    gates: list[dict[str, object]] = [
        {"name": f"a-name-as-long-as-a-team-could-ever-choose-for-its-own-gate-{number:03d}", "query": "up",
         "advance": {"below": "0.123456789"}, "abort": {"above": "1000000.5", "forSeconds": 86400, "consecutive": 100}}
        for number in range(32)
    ]  # fmt: skip
    faulty = Behaviour(errors=lambda t: 1.0 if t > 90 else 0.0)
    world = serving(World(service(analysis={"gates": gates}, replicas=40), images={"pinn:bad": faulty}))
    world.own = {str(gate["name"]): lambda _: 1234567.891 for gate in gates}
    world.apply(image="pinn:bad")
    world.run_until(lambda it: it.weight == 10)
    for _ in range(25):
        world.run(1)
        world.edit_weight(50)
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK, at_most=200)
    assert len(world.state.rollout.timeline if world.state.rollout else ()) == 20
    assert len(world.state.rollout.gates if world.state.rollout else ()) == 39
    assert len(json.dumps(world.status)) < 48 * 1024


# --- own gates --------------------------------------------------------------------------------------------------------

DRIFT = {"name": "desk-drift", "query": "max(drift)", "abort": {"above": "0.02", "consecutive": 3}}


def test_an_own_gate_rolls_back_after_three_measurements_and_an_empty_answer_holds() -> None:
    world = serving(World(service(analysis={"intervalSeconds": 10, "gates": [DRIFT]})))
    world.own["desk-drift"] = lambda _: None
    world.apply(image="pinn:2")
    world.run(200)
    assert rises(world) == [10]
    assert world.state.verdict == "NoData"
    began = world.seconds
    world.own["desk-drift"] = lambda _: 0.03
    world.run_until(lambda it: it.weight == 0, at_most=15)
    assert world.seconds - began >= 4, "fewer than three measurements"
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.gate == "desk-drift"
