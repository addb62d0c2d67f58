"""A revision that turns bad once it has all traffic, in ways that no error shows: it hangs, or turns clients away.

Stable answers no clients then, so what the canary's counters show may be the clients' doing. The pods are asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.story.prometheus import Trouble
from tests.story.test_measurement import from_now_on, gate, gone_bad, steps
from tests.story.world import Behaviour, World, service, serving


def baking(
    seed: int = 1, mode: str = "Auto", replicas: int = 3, hold: int = 250, profile: str = "Standard", **usual: Any
) -> World:  # fmt: skip
    """A good revision that has had all traffic for a minute; `hold` is in seconds."""
    images = {image: Behaviour(**usual) for image in ("pinn:1", "pinn:2")}
    spec = service(
        **steps((50, 60), (100, hold)), analysis={"sources": ["Pods"], "profile": profile},
        verification={"mode": mode}, replicas=replicas,
    )  # fmt: skip
    world = World(spec, images=images, rate=30, seed=seed)
    serving(world).run(90)
    world.apply(image="pinn:2")
    return world.run_until(lambda it: it.weight == 100, at_most=1500).run(60)


def doubts(world: World) -> int:
    return sum("/doubt/" in it.identity for it in world.oracle.questions)


@pytest.mark.parametrize("seed", range(3))
def test_a_revision_that_hangs_during_the_bake_goes_within_twenty_seconds(seed: int) -> None:
    world = baking(seed)
    from_now_on(world, "pinn:2", swallowed=lambda _: 1.0, slow=lambda _: 1.0)
    world.run_until(gone_bad, at_most=20, tick=0.25)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.reason == "PriceErrors"
    assert "stable 0 of " in world.state.last_rollback.message


@pytest.mark.parametrize("seed", range(3))
def test_one_that_answers_only_half_of_the_requests_goes_within_two_minutes(seed: int) -> None:
    world = baking(seed)
    from_now_on(world, "pinn:2", swallowed=lambda _: 0.5, slow=lambda _: 0.5)
    world.run_until(gone_bad, at_most=120, tick=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_one_whose_process_stands_still_goes_within_half_a_minute(seed: int) -> None:
    """It answers neither clients nor the operator, not even with its counters."""
    world = baking(seed)
    from_now_on(world, "pinn:2", swallowed=lambda _: 1.0, slow=lambda _: 1.0)
    for pod in world.of("pinn:2"):
        pod.trouble = Trouble.SLOW
    world.run_until(gone_bad, at_most=30, tick=0.25)


def test_one_that_only_the_operator_cannot_reach_is_not_rejected() -> None:
    world = baking()
    asked = world.oracle._pricing
    world.oracle._pricing = lambda pod: None if pod.canary else asked(pod)
    for pod in world.of("pinn:2"):
        pod.trouble = Trouble.REFUSED
    world.run(60, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback


def test_where_clients_stop_asking_a_revision_is_promoted_and_its_pods_are_hardly_asked() -> None:
    world = baking()
    world.rate = 0
    world.until_stable("pinn:2", at_most=700)
    assert doubts(world) <= 10
    assert world.state.last_rollback is None


@pytest.mark.parametrize("seed", range(3))
def test_a_pause_of_the_only_pod_rejects_nobody(seed: int) -> None:
    world = baking(seed, replicas=1)
    begin = world.seconds
    from_now_on(world, "pinn:2", latency=lambda now: 4.0 if now < begin + 4 else 0.004)
    world.run(60, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback


def test_a_revision_that_has_more_to_do_than_it_can_is_not_held_to_an_idle_stable() -> None:
    """Every answer takes a second and a half, as stable's would with that much traffic: latency has its own bounds."""
    world = baking()
    from_now_on(world, "pinn:2", latency=lambda _: 1.5)
    world.run(60, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback


@pytest.mark.parametrize(("status", "shown"), [("429", "4xx"), ("403", "4xx"), ("307", "3xx")])
@pytest.mark.parametrize("mode", ["Auto", "Disabled"])
def test_a_revision_that_turns_every_client_away_is_not_promoted_until_that_is_over(
    mode: str, status: str, shown: str
) -> None:
    world = baking(mode=mode)
    until = world.seconds + 600
    from_now_on(
        world, "pinn:2", refused=lambda now: 1.0 if now < until else 0.0, refused_status=status,
    )  # fmt: skip
    world.run(500)
    assert world.weight == 100
    assert gate(world).message == f"100% of the last minute's answers are {shown}, 0% of stable's before"
    world.run(100)
    world.until_stable("pinn:2", at_most=300)


def test_where_stable_turned_as_many_away_before_nothing_is_held() -> None:
    world = baking(refused=lambda _: 0.8, refused_status="404")
    world.until_stable("pinn:2", at_most=400)


@pytest.mark.parametrize("hold", [250, 700])
def test_a_hang_after_a_fault_upstream_is_seen_as_soon(hold: int) -> None:
    world = baking(hold=hold)
    begin = world.seconds
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda now: 1.0 if now < begin + 10 else 0.0)
    world.run(50, tick=0.25)
    from_now_on(world, "pinn:1")
    from_now_on(world, "pinn:2", swallowed=lambda _: 1.0, slow=lambda _: 1.0)
    world.run_until(gone_bad, at_most=20, tick=0.25)


def test_a_hang_at_the_end_of_the_bake_is_not_promoted() -> None:
    world = baking()
    while world.state.next is None or world.state.next.time is None or (world.state.next.time - world.now).seconds > 8:
        world.run(1)
    from_now_on(world, "pinn:2", swallowed=lambda _: 1.0, slow=lambda _: 1.0)
    world.run_until(gone_bad, at_most=40, tick=0.25)


def test_a_hang_beside_stable_is_rejected_at_weight_0_after_it_was_suspended() -> None:
    images = {image: Behaviour() for image in ("pinn:1", "pinn:2")}
    spec = service(**steps((50, 600), (100, 60)), analysis={"sources": ["Pods"]}, verification={"mode": "Auto"})
    world = serving(World(spec, images=images, rate=30)).run(90)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 50, at_most=400).run(60)
    from_now_on(world, "pinn:2", swallowed=lambda _: 1.0, slow=lambda _: 1.0)
    world.run_until(gone_bad, at_most=120)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.reason in ("PricesSlow", "PriceErrors")


@pytest.mark.parametrize("upstream", [0.01, 0.05])
@pytest.mark.parametrize("seed", range(2))
def test_errors_that_only_clients_get_are_not_explained_by_a_flaky_upstream(seed: int, upstream: float) -> None:
    world = baking(seed)
    asked = world.oracle._pricing
    world.oracle._pricing = lambda pod: (found := asked(pod)) and replace(found, errors=upstream)
    from_now_on(world, "pinn:1", errors=lambda _: upstream)
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(gone_bad, at_most=30, tick=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_moments_of_half_a_second_upstream_are_no_errors_that_last(seed: int) -> None:
    world = baking(seed)
    begin = world.seconds
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda now: 1.0 if (now - begin) % 17 < 0.7 else 0.0)
    world.run(120, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback


# --- slow -------------------------------------------------------------------------------------------------------------


def strict(seed: int) -> World:
    """The same with the profile Strict: a p95 above 260 ms in three measurements is too much."""
    return baking(seed, profile="Strict")


@pytest.mark.parametrize("seconds", [10, 30])
@pytest.mark.parametrize("seed", range(2))
def test_answers_that_are_slow_upstream_for_a_moment_reject_nobody_under_strict(seed: int, seconds: float) -> None:
    world = strict(seed)
    begin = world.seconds
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, latency=lambda now: 4.0 if now < begin + seconds else 0.004)
    world.run(seconds + 60, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback


def test_a_revision_that_alone_is_slow_goes_under_strict_within_half_a_minute() -> None:
    world = strict(1)
    from_now_on(world, "pinn:2", latency=lambda _: 0.6)
    world.run_until(gone_bad, at_most=30, tick=0.25)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.gate == "latency-p95"


def test_one_that_is_slow_only_for_what_clients_ask_goes_within_a_minute() -> None:
    world = strict(1)
    asked = world.oracle._pricing
    world.oracle._pricing = lambda pod: (found := asked(pod)) and replace(found, latency=0.004)
    from_now_on(world, "pinn:2", latency=lambda _: 0.6)
    world.run_until(gone_bad, at_most=60, tick=0.25)
