"""What is away for a moment for everybody, a database or the network, speaks of no revision: it is neither rejected nor
stuck. What one revision alone does is seen all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pinn_operator.core.status.json import status_to_manifest
from pinn_operator.core.status.values import DoubtStatus
from tests.story.prometheus import Prometheus, SimulatedPod, Trouble
from tests.story.test_measurement import blind, from_now_on, gate, gone_bad, steps
from tests.story.world import Behaviour, Clock, World, service, serving

USUAL = 0.002


def away(world: World, seconds: float, **otherwise: Any) -> None:
    """From now on every request fails for some seconds, whoever answers it."""
    begin = world.seconds

    def errors(usual: float) -> Clock:
        return lambda now: 1.0 if begin <= now < begin + seconds else usual

    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=errors(otherwise.get(image.replace(":", ""), USUAL)))


def slow_for(world: World, seconds: float) -> None:
    """From now on every answer takes four seconds, for some time."""
    begin = world.seconds
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, latency=lambda now: 4.0 if begin <= now < begin + seconds else 0.004)


def rolling(sources: str, interval: float, *pairs: tuple[int, int], seed: int = 1, **spec: Any) -> World:
    """A second revision that is as good as the first, at its first step."""
    usual = Behaviour(errors=lambda _: USUAL)
    images = {"pinn:1": usual, "pinn:2": usual}
    pairs = pairs or BAKE
    analysis = {"intervalSeconds": 10, "abortIntervalSeconds": 2, "sources": [sources], **spec.pop("analysis", {})}
    made = service(**steps(*pairs), analysis=analysis, **spec)
    world = World(made, images=images, rate=30, seed=seed, prometheus=Prometheus(interval=interval))
    if sources == "Prometheus":
        world = blind(world)
    serving(world).run(90, tick=1)
    world.apply(image="pinn:2")
    return world.run_until(lambda it: it.weight == pairs[0][0], tick=1)


BAKE = ((50, 60), (100, 250))
SOURCES = [("Pods", 1.0), ("Prometheus", 15.0), ("Prometheus", 60.0)]


@pytest.mark.parametrize(("sources", "interval"), SOURCES)
def test_a_fault_upstream_of_half_a_minute_holds_no_step_longer(sources: str, interval: float) -> None:
    """It is five times what the bound allows of the whole step, and stable had it too."""
    world = rolling(sources, interval, (50, 600), (100, 60))
    world.run(200, tick=1)
    away(world, 30)
    world.run_until(lambda it: it.weight == 100, at_most=600, tick=1)
    assert world.state.last_rollback is None


@pytest.mark.parametrize(("sources", "interval"), SOURCES)
def test_slow_answers_upstream_of_half_a_minute_hold_no_step_longer(sources: str, interval: float) -> None:
    world = rolling(sources, interval, (50, 600), (100, 60))
    world.run(200, tick=1)
    slow_for(world, 35)
    world.run_until(lambda it: it.weight == 100, at_most=600, tick=1)
    assert world.state.last_rollback is None


@pytest.mark.parametrize(("sources", "interval"), SOURCES)
def test_a_share_that_is_the_canarys_own_holds_whatever_was_away_upstream(sources: str, interval: float) -> None:
    """Nothing is compared here, so that nothing but the bound of one in a hundred is in the way."""
    own = {"gates": [{"name": "error-rate", "relative": {"enabled": False}}]}
    world = rolling(sources, interval, (50, 600), (100, 60), analysis=own)
    world.run(200, tick=1)
    away(world, 30, pinn2=0.02)
    world.run(800, tick=1)
    assert world.weight == 50
    assert gate(world).verdict == "Fail"


def test_what_stable_always_does_is_no_fault_of_a_moment() -> None:
    """Both fail three in a hundred all the time: the bound says that this is too much."""
    world = rolling("Pods", 1.0, (50, 300), (100, 60))
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda _: 0.03)
    world.run(500, tick=1)
    assert world.weight == 50
    assert not gone_bad(world)
    assert gate(world).verdict == "Fail"


def test_the_status_says_what_was_left_out_and_why() -> None:
    world = rolling("Pods", 1.0, (50, 600), (100, 60))
    world.run(200, tick=1)
    away(world, 30)
    world.run(150, tick=1)
    assert gate(world).verdict == "Pass"
    assert "in which stable was outside the bound as well" in gate(world).message


# --- all traffic, and nobody to compare with --------------------------------------------------------------------------

VERIFIED = {"mode": "Auto"}


def baking(sources: str, interval: float, **spec: Any) -> World:
    """A good revision that has had all traffic for two minutes; the operator may ask pods for prices."""
    world = rolling(sources, interval, verification=VERIFIED, **spec)
    return world.run_until(lambda it: it.weight == 100, at_most=400, tick=1).run(120, tick=1)


@pytest.mark.parametrize(
    ("sources", "interval", "seconds"),
    [("Pods", 1, 5), ("Pods", 1, 30), ("Prometheus", 15, 5), ("Prometheus", 15, 10), ("Prometheus", 60, 30)],
)
def test_a_fault_upstream_during_the_bake_neither_rejects_nor_holds(
    sources: str, interval: float, seconds: float
) -> None:
    world = baking(sources, interval)
    away(world, seconds)
    world.run(seconds + 2 * interval)
    world.until_stable("pinn:2", at_most=700)
    assert world.state.last_rollback is None


@pytest.mark.parametrize(("share", "seconds"), [(0.12, 40), (0.3, 20), (0.5, 20)])
@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_requests_that_fails_upstream_during_the_bake_rejects_nobody(
    seed: int, share: float, seconds: float
) -> None:
    world = baking("Pods", 1.0, seed=seed)
    begin = world.seconds
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda now: share if now < begin + seconds else USUAL)
    world.run(seconds + 20, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback
    assert share < 0.3 or world.said("FaultUpstream")


@pytest.mark.parametrize("seed", range(4))
def test_a_revision_that_alone_fails_one_request_in_eight_during_the_bake_goes_within_a_minute(seed: int) -> None:
    world = baking("Pods", 1.0, seed=seed)
    from_now_on(world, "pinn:2", errors=lambda _: 0.12)
    world.run_until(gone_bad, at_most=60, tick=0.25)


@pytest.mark.parametrize("sources", ["Pods", "Prometheus"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_revision_that_fails_during_the_bake_goes_within_three_seconds(sources: str, share: float) -> None:
    world = baking(sources, 1.0)
    from_now_on(world, "pinn:2", errors=lambda _: share)
    looks = 0 if sources == "Pods" else 2
    world.run_until(lambda it: it.weight == 0, at_most=looks + (3 if share == 1 else 6), tick=0.25)
    assert gone_bad(world)


def test_a_revision_that_fails_while_stable_is_well_goes_after_a_fault_upstream_too() -> None:
    world = baking("Pods", 1.0)
    away(world, 10)
    world.run(40)
    assert world.weight == 100
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    from_now_on(world, "pinn:1")
    world.run_until(gone_bad, at_most=3.0, tick=0.25)


def test_a_revision_that_fails_what_only_clients_ask_goes_within_seconds() -> None:
    """The operator's own requests are answered by every pod, those of the clients are not."""
    world = baking("Pods", 1.0)
    asked = world.oracle._pricing
    world.oracle._pricing = lambda pod: (found := asked(pod)) and replace(found, errors=0.0)
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(gone_bad, at_most=6.0, tick=0.25)


def test_an_answer_that_does_not_come_protects_no_revision() -> None:
    world = baking("Pods", 1.0)
    world.oracle.answers = lambda questions, seconds: {}  # type: ignore[method-assign]
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(gone_bad, at_most=5.0, tick=0.25)


def test_a_doubt_that_nobody_settled_keeps_no_sample_of_prices_from_being_asked() -> None:
    world = baking("Pods", 1.0)
    assert world.state.rollout is not None
    rollout = replace(world.state.rollout, doubt=DoubtStatus(world.now))
    world.status = status_to_manifest(replace(world.state, rollout=rollout))
    world.run(5)
    asked = len(world.oracle.questions)
    world.run(25)
    assert len(world.oracle.questions) >= asked + 2


def test_what_the_pods_answered_is_told_and_kept() -> None:
    world = baking("Pods", 1.0)
    away(world, 10)
    world.run(6)
    assert world.said("FaultUpstream")
    assert world.state.rollout is not None
    assert world.state.rollout.doubt is not None
    assert world.state.rollout.doubt.message.endswith("the canary failed 33 of 33, stable 33 of 33")


# --- absolute bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sources", "interval"), SOURCES[:2])
@pytest.mark.parametrize(("how", "profile"), [(away, "Flash"), (slow_for, "Strict")])
def test_bounds_that_stable_exceeds_as_well_reject_nothing(
    how: Callable[[World, float], None], profile: str, sources: str, interval: float
) -> None:
    """Three measurements in a row, or a minute, are less than what a fault of half a minute leaves in the counts."""
    world = rolling(sources, interval, (50, 300), (100, 60), analysis={"profile": profile})
    world.run(100, tick=1)
    how(world, 30)
    world.run(150, tick=1)
    assert not gone_bad(world)


# --- little traffic beside stable -------------------------------------------------------------------------------------


def beside_stable(
    rate: float, *pairs: tuple[int, int], seed: int = 1, seconds: float = 100, **more: Any
) -> World:  # fmt: skip
    """A good revision with little traffic, for so long; the operator may ask pods for prices."""
    first, *_ = pairs = pairs or LONG
    spec = service(**steps(*pairs, (100, 60)), analysis={"sources": ["Pods"]}, verification=VERIFIED, **more)
    usual = Behaviour()
    world = World(spec, images={"pinn:1": usual, "pinn:2": usual}, rate=rate, seed=seed)
    serving(world).run(90)
    world.apply(image="pinn:2")
    return world.run_until(lambda it: it.weight == first[0]).run(seconds)


LONG = ((10, 3000),)


def doubts(world: World) -> int:
    return sum("/doubt/" in it.identity for it in world.oracle.questions)


def failed(world: World, image: str = "pinn:2") -> float:
    return sum(pod.requests[1] for pod in [*world.pods, *world.gone] if pod.image == image)


@pytest.mark.parametrize("seed", range(5))
def test_pods_are_asked_at_the_first_failures_so_few_clients_see_a_revision_that_fails_always(seed: int) -> None:
    world = beside_stable(30.0, seed=seed)
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(failed, at_most=20, tick=0.05)
    first = world.seconds
    world.run_until(lambda it: it.weight == 0, at_most=5, tick=0.05)
    assert world.seconds - first <= 1.25
    assert failed(world) <= 4


def test_with_a_request_in_ten_seconds_the_first_failure_is_enough() -> None:
    world = beside_stable(1.0)
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(lambda it: it.weight == 0, at_most=120, tick=0.25)
    assert failed(world) <= 2


def test_a_canary_that_answers_the_operator_is_asked_again_after_a_while_alone_and_loses_nothing() -> None:
    world = beside_stable(30.0)
    before = doubts(world)
    # Every tenth second one answer in ten fails, of stable's too.
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda now: 0.1 * (int(now) % 10 == 0))
    world.run(200, tick=0.25)
    assert world.weight == 10
    asked = doubts(world) - before
    assert 0 < asked <= 20
    assert world.state.rollout is not None
    assert world.state.rollout.doubt is not None
    assert world.state.rollout.doubt.asked == asked


def test_what_fails_for_everybody_beside_stable_rejects_nobody_who_was_asked() -> None:
    world = beside_stable(30.0)
    away(world, 20)
    world.run(100, tick=0.25)
    assert world.weight == 10
    assert not gone_bad(world)


def test_requests_of_the_operator_s_own_are_not_taken_for_clients() -> None:
    """Each failure has pods asked; none of these answers counts towards `minSamples`."""
    world = beside_stable(2.0)
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda _: 0.05)
    world.run(300, tick=0.25)
    assert world.state.rollout is not None
    assert world.state.rollout.doubt is not None
    clients = sum(pod.requests[0] + pod.requests[1] for pod in world.of("pinn:2"))
    [found] = [it for it in world.state.rollout.gates if it.name == "error-rate"]
    assert clients < found.min_samples
    assert found.verdict == "Collecting"


def test_one_bad_answer_is_asked_about_once_however_long_nothing_else_is_read() -> None:
    world = beside_stable(5.0)
    world.of("pinn:2")[0].serve(world.seconds, "500", 0.004)
    world.run(1.0, tick=0.25)
    asked = doubts(world)

    def deaf(pod: SimulatedPod) -> None:
        pod.trouble = Trouble.REFUSED

    world.dress = deaf
    world.run(100, tick=0.5)
    assert asked <= 1
    assert doubts(world) == asked


def test_a_stable_pod_that_is_read_again_takes_nothing_away_from_what_was_counted() -> None:
    world = beside_stable(30.0, (10, 60), (30, 6000), seconds=40)
    silent = world.of("pinn:1")[0]
    silent.trouble = Trouble.SLOW
    world.run_until(lambda it: it.weight == 30, at_most=1500).run(300)
    before = gate(world).samples
    silent.trouble = None
    world.run(30)
    assert gate(world).samples >= before > 2000


@pytest.mark.parametrize("seed", range(3))
def test_what_few_answers_to_a_doubt_show_of_errors_is_left_to_the_counters(seed: int) -> None:
    """Six in ten requests fail for everybody, three seconds in forty. One option that is asked eight times and fails
    each time is no fault of the revision's prices."""
    world = beside_stable(3.0, (50, 30000), replicas=10, seed=seed)
    begun = world.seconds
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, errors=lambda now: 0.6 if (now - begun) % 40 < 3 else 0.0)
    world.run(300, tick=0.5)
    assert not gone_bad(world), world.events[-3:]


@pytest.mark.parametrize("seed", range(2))
def test_no_window_reaches_back_to_what_the_operator_asked_before_the_weight(seed: int) -> None:
    """With a request in a second the comparison of prices before the weight is most of what stable ever answered: as
    part of a recent window it made stable's share of an outage small beside the canary's."""
    world = beside_stable(1.0, (75, 30000), seed=seed, seconds=300 + 7 * seed)
    away(world, 90)
    world.run(180, tick=0.5)
    assert not gone_bad(world), world.events[-3:]


def test_moments_that_passed_by_themselves_minutes_apart_are_no_row() -> None:
    world = rolling("Pods", 1.0, (50, 60), (100, 9000), verification=VERIFIED)
    world.run_until(lambda it: it.weight == 100, at_most=400, tick=1).run(120, tick=1)
    for seconds in (0.8, 1.0, 0.8):
        away(world, seconds)
        world.run(100 + seconds, tick=0.25)
    assert not gone_bad(world), world.events[-3:]
