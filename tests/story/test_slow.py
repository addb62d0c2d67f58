"""A canary that turns slow beside stable: its pods are asked as well, so few clients have to wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pinn_operator.core.gates import latency
from pinn_operator.core.gates.metric import Lateness
from pinn_operator.core.samples import PriceFault, PricePod, PriceReply
from pinn_operator.core.wanted.spec import Relative
from tests.story.test_measurement import from_now_on, gone_bad, steps
from tests.story.world import Behaviour, World, service, serving

DRY = {"sources": ["Pods"], "gates": [{"name": "latency-p95", "dryRun": True}]}


def at_ten_percent(
    seed: int = 1, rate: float = 30, analysis: dict[str, Any] | None = None, mode: str = "Auto", replicas: int = 3
) -> World:
    """A good revision that has had a tenth of the requests for twenty seconds."""
    spec = service(
        **steps((10, 900), (100, 9)), verification={"mode": mode}, replicas=replicas,
        analysis=analysis or {"sources": ["Pods"]},
    )  # fmt: skip
    world = World(spec, images={image: Behaviour() for image in ("pinn:1", "pinn:2")}, rate=rate, seed=seed)
    serving(world).run(30)
    world.apply(image="pinn:2")
    return world.run_until(lambda it: it.weight == 10, at_most=300).run(20, tick=1)


def asked(world: World) -> int:
    return sum("/slow/" in it.identity for it in world.oracle.questions)


def test_one_answer_in_ten_that_takes_three_seconds_costs_some_thirty_requests_of_the_canary() -> None:
    requests = []
    for seed in range(9):
        world = at_ten_percent(seed)
        begun = world.now
        from_now_on(world, "pinn:2", slow=lambda _: 0.1)
        world.run_until(gone_bad, at_most=60, tick=0.25)
        assert world.state.last_rollback is not None
        assert world.state.last_rollback.reason == "LatencyP95AboveStable"
        requests.append(3 * (world.now - begun).total_seconds())
    assert sorted(requests)[4] <= 45, requests


def test_the_rollback_says_what_clients_and_what_the_operator_got() -> None:
    world = at_ten_percent()
    from_now_on(world, "pinn:2", slow=lambda _: 0.2)
    world.run_until(gone_bad, at_most=40, tick=0.25)
    assert world.state.last_rollback is not None
    said, rollback = world.state.last_rollback.message, world.state.last_rollback
    assert said.startswith("latency-p95: longer than 0.1 s took")
    assert rollback.value.endswith("% longer than 0.1 s")
    assert rollback.limit == "stable 0.0%"
    assert "of the operator's own requests the canary took longer than 0.1 s for" in said
    assert "stable for 0 of" in said


def test_with_a_request_of_the_canary_every_two_seconds_it_is_seen_within_two_minutes() -> None:
    world = at_ten_percent(rate=5)
    from_now_on(world, "pinn:2", slow=lambda _: 0.2)
    world.run_until(gone_bad, at_most=120, tick=0.5)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_revisions_that_are_slow_alike_are_both_kept(share: float, seed: int) -> None:
    world = at_ten_percent(seed)
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, slow=lambda _: share)
    world.run(240, tick=0.5)
    assert not gone_bad(world), world.state.last_rollback
    assert asked(world) <= 20


def test_a_pause_that_is_over_when_its_pods_are_asked_rejects_nobody() -> None:
    world = at_ten_percent()
    paused = world.seconds
    from_now_on(world, "pinn:2", slow=lambda now: float(paused <= now < paused + 1.2))
    world.run(120, tick=0.25)
    assert not gone_bad(world), world.state.last_rollback
    assert 0 < asked(world) <= 12
    rollout = world.state.rollout
    assert rollout is not None
    assert rollout.slowness is not None
    assert rollout.slowness.canary_bad == 0
    assert rollout.slowness.message.endswith(f"stable for 0 of {rollout.slowness.stable_requests}")


def test_what_the_operator_asks_hides_no_slow_answers_of_clients() -> None:
    """Requests that only clients send are slow: the operator's own are quick, and stand in the same counters."""
    world = at_ten_percent()
    asked_pricing = world.oracle._pricing
    from_now_on(world, "pinn:2", slow=lambda _: 0.1)

    def quick(pod: Any) -> Any:
        found = asked_pricing(pod)
        return None if found is None else replace(found, slow=0.0)

    world.oracle._pricing = quick
    world.run_until(gone_bad, at_most=60, tick=0.5)
    assert asked(world) > 0


def test_a_gate_that_never_rolls_back_asks_no_pod() -> None:
    world = at_ten_percent(analysis=DRY)
    from_now_on(world, "pinn:2", slow=lambda _: 0.2)
    world.run(60, tick=0.5)
    assert asked(world) == 0
    assert not gone_bad(world)


def test_where_no_prices_can_be_asked_for_clients_alone_tell() -> None:
    world = at_ten_percent(mode="Disabled")
    from_now_on(world, "pinn:2", slow=lambda _: 0.1)
    world.run_until(gone_bad, at_most=60, tick=0.5)
    assert asked(world) == 0


def counting_what_nobody_waits_for(world: World) -> World:
    """Some servers go on when their client is gone, and count the answer."""
    counted = world.oracle.counted

    def all_of_them(asked: PricePod, reply: PriceReply) -> None:
        counted(asked, replace(reply, status=200, seconds=3.0) if reply.fault is PriceFault.SLOW else reply)

    world.oracle.counted = all_of_them
    return world


@pytest.mark.parametrize("seed", range(4))
def test_slow_answers_to_the_operator_are_no_clients_where_they_are_counted(seed: int) -> None:
    world = counting_what_nobody_waits_for(at_ten_percent(seed))
    for image in ("pinn:1", "pinn:2"):
        from_now_on(world, image, slow=lambda _: 0.08)
    world.run(300, tick=0.5)
    assert not gone_bad(world), world.state.last_rollback


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_canary_goes_as_soon_where_they_are_counted(seed: int) -> None:
    world = counting_what_nobody_waits_for(at_ten_percent(seed))
    from_now_on(world, "pinn:2", slow=lambda _: 0.1)
    world.run_until(gone_bad, at_most=30, tick=0.25)


@pytest.mark.parametrize(("bound", "asks"), [(0.1, True), (1.0, True), (2.0, False)])
def test_pods_are_asked_only_where_a_slow_answer_can_be_told_from_one_within_the_bound(
    monkeypatch: pytest.MonkeyPatch, bound: float, asks: bool
) -> None:
    """The operator waits for a second: what takes 1.05 s would be called slower than 2 s."""
    seems_slow = Lateness(bound, 5.0, 100.0, "2 of 20 requests", 1.0, Relative())
    monkeypatch.setattr(latency, "_lateness", lambda *_: seems_slow)
    world = at_ten_percent()
    assert (asked(world) > 0) is asks


def test_shares_stay_true_when_old_reads_are_thinned() -> None:
    """After four minutes reads are kept farther apart than a pod's newest ones are, each pod's at its own moments."""
    spec = service(
        **steps((10, 900), (100, 9)), verification={"mode": "Auto"}, replicas=8,
        analysis={"sources": ["Pods"], "intervalSeconds": 10},
    )  # fmt: skip
    world = World(spec, rate=30, seed=1)
    serving(world).run(90, tick=0.5)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10, at_most=300, tick=0.5).run(60, tick=0.5)
    before = 0
    for _ in range(300):
        world.run(1, tick=0.5)
        rollout = world.state.rollout
        assert rollout is not None
        share, samples = rollout.observed_share, rollout.gates[0].stable_samples
        assert share is not None
        assert abs(share - 10) < 3
        assert samples >= 0.9 * before
        before = samples
