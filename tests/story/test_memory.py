"""Memory that grows, in whole rollouts: TensorFlow's peaks, restarts of containers and of the operator."""

from __future__ import annotations

import random
from typing import Any

from lab.memory_shapes import MB, PEAK, REST, Shape, leaking, plateau
from pinn_operator.core.status.values import GateStatus, Phase, Verdict
from tests.story.kubelet import StoryPod
from tests.story.world import World, service, serving

HOUR = 3600.0


def growing(shape: Shape, *, hold: int = 1800, sources: list[str] | None = None) -> World:
    """The new revision has 10 % of the traffic, and its memory is of this shape; stable's does not move."""
    noise = random.Random(1)
    spec: dict[str, Any] = service(
        replicas=1,
        strategy={"type": "Canary", "canary": {"steps": [{"weight": 10, "holdSeconds": hold},
                                                         {"weight": 100, "holdSeconds": hold}]}},
        analysis={"intervalSeconds": 60, "abortIntervalSeconds": 20, "sources": sources or ["Pods", "Prometheus"]},
    )  # fmt: skip
    world = World(spec, rate=4.0)
    world.prometheus.interval = 15.0
    steady = plateau(noise)

    def dress(pod: Any) -> None:
        assert isinstance(pod, StoryPod)
        of = shape if pod.image == "pinn:2" else steady
        pod.memory = of(world.seconds - (pod.started or world.seconds)) + noise.gauss(0, 1) * MB

    world.dress = dress
    serving(world)
    world.apply(image="pinn:2")
    return world.run_until(lambda it: it.weight == 10 and it.state.rollout.programmed_time is not None)


def growth(world: World) -> GateStatus:
    assert world.state.rollout is not None
    return next(gate for gate in world.state.rollout.gates if gate.name == "memory-growth")


def rejected_after(world: World, *, at_most: float) -> float:
    """Seconds until the revision is rejected for its memory."""
    begun = world.seconds
    world.run_until(lambda it: it.state.last_rollback is not None, at_most=at_most, tick=5)
    assert world.state.last_rollback.reason == "MemoryGrowthOutOfBounds"
    return world.seconds - begun


def compiling(bytes_per_hour: float) -> Shape:
    """Every seven minutes XLA compiles for half a minute, and takes half as much again as there is."""
    return lambda at: (REST + bytes_per_hour * at / HOUR) * (PEAK / REST if at % 420 < 30 else 1.0)


def test_a_leak_is_rejected_though_tensorflow_s_peaks_come_and_go() -> None:
    world = growing(compiling(2000 * MB))
    assert rejected_after(world, at_most=1500) < 1200


def test_peaks_without_a_leak_are_promoted() -> None:
    growing(compiling(0.0)).until_stable("pinn:2", at_most=3 * HOUR, tick=5)


def test_a_restarted_operator_takes_the_longer_history_of_prometheus() -> None:
    world = growing(leaking(plateau(random.Random(1)), 2000 * MB))
    world.run(700, tick=5)
    world.operator_up = False
    world.run(30, tick=5)
    world.operator_up = True
    assert rejected_after(world, at_most=600) < 400


def test_an_operator_that_restarts_again_and_again_still_rejects_a_leak() -> None:
    world = growing(leaking(plateau(random.Random(1)), 2000 * MB))
    begun = world.seconds
    while world.state.last_rollback is None and world.seconds - begun < 2400:
        world.operator_up = False
        world.run(10, tick=5)
        world.operator_up = True
        world.run(290, tick=5)
    assert world.state.last_rollback is not None
    assert world.seconds - begun < 1300


def test_the_status_says_how_long_until_growth_can_be_judged_and_when_the_limit_is_reached() -> None:
    world = growing(leaking(plateau(random.Random(1)), 60 * MB))
    world.run(120, tick=5)
    assert growth(world).verdict is Verdict.COLLECTING
    assert growth(world).message in ("needs 13 more minutes of samples", "needs 14 more minutes of samples")
    world.run(2400, tick=5)
    assert world.state.phase is Phase.PROGRESSING
    assert growth(world).verdict is Verdict.FAIL
    assert "MB/h, needs < 10 MB/h" in growth(world).message
