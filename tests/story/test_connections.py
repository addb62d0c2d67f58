"""Router `Replicas`: clients keep their connections, and which pod answers them is decided when they connect."""

from __future__ import annotations

from typing import Any

import pytest

from pinn_operator.core.status.values import Phase
from tests.story.world import Behaviour, World, service, serving

CONNECTIONS = 10


def kept(*, hold: int = 120, seconds: float = float("inf"), seed: int = 1, **options: Any) -> World:
    """Ten clients keep one connection each to a service without a router, and a new revision is applied."""
    steps = [{"weight": 25, "holdSeconds": hold}, {"weight": 100, "holdSeconds": 60}]
    spec = service(traffic={"router": "Replicas"}, strategy={"canary": {"steps": steps}})
    world = World(spec, seed=seed, **options)
    world.connections, world.connection_seconds = CONNECTIONS, seconds
    serving(world)
    return world


def at_canary(world: World) -> World:
    world.run(120).apply(image="pinn:2")
    return world.run_until(lambda it: it.state.rollout is not None and it.state.rollout.weight == 25)


@pytest.mark.parametrize("seed", [0, 4, 12])
def test_one_client_that_fails_wherever_it_is_connected_does_not_reject_a_good_revision(seed: int) -> None:
    world = kept(seconds=60, seed=seed, hold=300, rate=20.0)
    world.clients = {0: 0.1}
    at_canary(world).run(200, tick=1)
    assert world.state.last_rollback is None, world.state.last_rollback


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_bad_revision_is_still_rejected_among_kept_connections(share: float) -> None:
    turned = {"at": float("inf")}
    bad = Behaviour(errors=lambda at: share if at >= turned["at"] else 0.0)
    world = kept(seconds=20, images={"pinn:2": bad}, hold=600)
    at_canary(world).run(60)
    turned["at"] = world.seconds
    world.run_until(lambda it: it.state.last_rollback is not None, at_most=60)


def test_a_bad_revision_is_rejected_beside_a_client_that_fails_wherever_it_is_connected() -> None:
    turned = {"at": float("inf")}
    bad = Behaviour(errors=lambda at: 1.0 if at >= turned["at"] else 0.0)
    world = kept(seconds=20, images={"pinn:2": bad}, hold=600)
    world.clients = {0: 0.1}
    at_canary(world).run(60)
    turned["at"] = world.seconds
    world.run_until(lambda it: it.state.last_rollback is not None, at_most=60)


def test_connections_that_all_stay_with_stable_are_named_with_the_way_out() -> None:
    world = at_canary(kept(rate=20.0)).run(140, tick=1)
    said = world.state
    assert said.phase is Phase.PROGRESSING
    assert said.reason.startswith("ConnectionsKept: ")
    assert said.next is not None
    assert "new connections" in said.next.waiting_for
    assert "spec.traffic.router" in said.next.waiting_for
    world.connection_seconds = 20
    world._pinned.clear()
    world.until_stable("pinn:2", at_most=900)


def test_connections_that_stay_say_so_after_the_deadline_too() -> None:
    world = kept(hold=60, rate=10.0)
    world.apply(analysis={**world.spec["analysis"], "deadlineSeconds": 300})
    at_canary(world).run(380, tick=2)
    assert "new connections" in world.state.next.waiting_for
    assert world.state.condition("Stalled").status == "True"


def test_a_good_revision_gets_all_connections_when_stable_s_pods_leave() -> None:
    world = at_canary(kept(seconds=60))
    world.until_stable("pinn:2", at_most=900)
    assert world.failed_requests <= 5
