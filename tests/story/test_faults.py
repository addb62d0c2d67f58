"""What the infrastructure does to a rollout: traffic is safe at once, the status says why, and nothing is rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pinn_operator.core.api import Resource
from pinn_operator.core.observed import Observed
from pinn_operator.core.status.values import NextAction, Phase
from tests.story.kubelet import MULTI_ATTACH, NO_CREDENTIALS, NO_KEY, REGISTRY_AWAY, TOO_MANY
from tests.story.test_rollouts import rises
from tests.story.world import Behaviour, World, service, serving, started


def until(moment: float, words: str) -> Callable[[float], str]:
    return lambda seconds: words if seconds < moment else ""


def at_step(weight: int, **options: Any) -> World:
    """A world in which a good second revision has had that weight for some seconds."""
    return started("pinn:2", **options).run_until(lambda it: it.weight == weight).run(5)


def said_in(world: World, *words: str) -> bool:
    """Whether the status says it where a person looks first: what it waits for."""
    waiting = world.state.next.waiting_for if world.state.next else ""
    return all(word in waiting for word in words)


# --- pods that are taken away -----------------------------------------------------------------------------------------


def _evicted(world: World) -> None:
    world.take_away(world.of("pinn:2"))


def _preempted(world: World) -> None:
    world.take_away(world.of("pinn:2"), "PreemptionByScheduler", "preempted by a pod of higher priority")


def _deleted(world: World) -> None:
    world.take_away(world.of("pinn:2"), "")


def _deleted_by_force(world: World) -> None:
    world.kill("pinn:2")


def _evicted_by_its_node(world: World) -> None:
    world.evict("pinn:2")


def _drained(world: World) -> None:
    world.drain(world.of("pinn:2")[0].node)


def _rebooted(world: World) -> None:
    node = world.of("pinn:2")[0].node
    world.lose_node(node)
    world.run(20)
    world.bring_back(node, rebooted=True)


def _blinked(world: World) -> None:
    world.blink("pinn:2", 1)


@pytest.mark.parametrize(
    "happens",
    [_evicted, _preempted, _deleted, _deleted_by_force, _evicted_by_its_node, _drained, _rebooted, _blinked],
    ids=lambda it: it.__name__.strip("_"),
)
def test_a_canary_that_loses_its_only_pod_loses_its_weight_at_once_and_is_promoted_later(
    happens: Callable[[World], None],
) -> None:
    world = at_step(10)
    happens(world)
    world.run(1)
    assert world.weight == 0
    assert world.state.phase is Phase.SUSPENDED
    assert world.state.rejected is None
    assert world.said("Suspended")
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None
    assert rises(world)[:4] == [10, 0, 10, 50], "the step did not begin anew"


def test_a_suspension_says_why_since_when_how_often_and_until_when() -> None:
    world = at_step(10)
    world.take_away(world.of("pinn:2"))
    began = world.now
    world.run(1)
    rollout = world.state.rollout
    assert rollout is not None
    assert rollout.suspension is not None
    assert rollout.suspension.reason == "PodDisrupted"
    assert "EvictionByEvictionAPI" in rollout.suspension.message
    assert rollout.suspensions == 1
    assert began <= rollout.suspension.since < rollout.suspension.retry_time < rollout.suspension.until


def test_a_node_that_is_silent_for_a_while_suspends_and_a_return_promotes() -> None:
    world = at_step(10)
    [pod] = world.of("pinn:2")
    world.lose_node(pod.node)
    world.run_until(lambda it: it.state.phase is Phase.SUSPENDED, at_most=60)
    assert world.state.rollout is not None
    assert world.state.rollout.suspension is not None
    assert world.state.rollout.suspension.reason == "NodeNotReporting"
    world.run(120)
    assert world.state.rejected is None
    world.bring_back(pod.node)
    world.until_stable("pinn:2", at_most=900)
    assert world.state.last_rollback is None


def test_restarts_by_reboots_of_a_node_never_add_up_to_a_crash_loop() -> None:
    world = at_step(50)
    for _ in range(4):
        for node in {pod.node for pod in world.of("pinn:2")}:
            world.bring_back(node, rebooted=True)
        world.run(45)
    world.until_stable("pinn:2", at_most=900)
    assert world.state.last_rollback is None


def test_a_container_that_ends_by_itself_suspends_first_and_is_condemned_when_it_does_so_again() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(crash_times=(60.0, 110.0))})
    world.run_until(lambda it: it.seconds >= 62)
    assert world.state.phase is Phase.SUSPENDED
    assert world.state.rejected is None
    world.run_until(lambda it: it.state.rejected is not None, at_most=120)
    assert world.state.rejected is not None
    assert world.state.rejected.reason == "CrashLoopBackOff"


def test_one_pod_of_ten_on_a_lost_node_condemns_nobody() -> None:
    world = at_step(100, spec={"replicas": 10})
    pods = world.of("pinn:2")
    lost = next(pod for pod in pods)
    lost.unready_until = world.seconds + 120
    world.run(90)
    assert world.state.last_rollback is None
    assert world.weight == 100
    world.until_stable("pinn:2", at_most=900)


def test_too_many_suspensions_end_in_stalled_and_an_order_goes_on() -> None:
    world = at_step(10)
    for _ in range(6):
        world.run_until(lambda it: it.weight == 10, at_most=400).run(2)
        world.kill("pinn:2")
        world.run(1)
    world.run(600, tick=1)
    assert world.weight == 0
    assert world.state.rejected is None
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == "SuspendedTooOften"
    assert "pinn.dev/retry" in stalled.message
    world.retry("again")
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None


# --- pods that cannot start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        (Behaviour(pull=until(100, REGISTRY_AWAY)), "ImagePullFailed", "i/o timeout"),
        (Behaviour(pull=until(100, NO_CREDENTIALS)), "ImagePullFailed", "may require authorization"),
        (Behaviour(pull=until(100, TOO_MANY)), "ImagePullFailed", "toomanyrequests"),
        (Behaviour(configuration=until(100, NO_KEY)), "ConfigurationMissing", "couldn't find key rate-url"),
        (Behaviour(volume=until(100, MULTI_ATTACH)), "ContainerNotCreated", "Multi-Attach"),
    ],
    ids=["registry away", "no credentials", "asked too often", "no key in a Secret", "volume elsewhere"],
)  # fmt: skip
def test_a_canary_that_cannot_start_says_why_within_seconds_and_starts_when_it_can(
    behaviour: Behaviour, reason: str, words: str
) -> None:
    world = started("pinn:2", images={"pinn:2": behaviour})
    world.run(5)
    assert said_in(world, words), world.describe()
    assert world.state.reason.startswith(f"{reason}: ")
    world.run(40)
    assert world.state.phase is Phase.SUSPENDED
    assert world.state.rollout is not None
    assert world.state.rollout.suspension is not None
    assert world.state.rollout.suspension.reason == reason
    stalled = world.state.condition("Stalled")
    assert (stalled is not None and stalled.reason == reason) == (reason == "ConfigurationMissing")
    until = world.state.rollout.suspension.until
    assert (until <= world.now) == (stalled is not None), "a person is called when the status says so"
    world.until_stable("pinn:2")
    assert world.state.last_rollback is None
    assert world.failed_requests == 0


INIT_CRASHES = {
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}},
    "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}},
}
INIT_RUNS = {"state": {"running": {"startedAt": "2026-11-21T08:00:00Z"}}}


def _waits(reason: str, message: str = "") -> Behaviour:
    return Behaviour(kubelet=lambda seconds: (reason, message))


NEVER_STARTS = [
    (_waits("CreateContainerError", "context deadline exceeded"), "ContainerNotCreated",
     ("CreateContainerError", "context deadline exceeded")),
    (_waits("PreCreateHookError", "hook failed"), "ContainerNotCreated", ("PreCreateHookError", "hook failed")),
    (_waits("SomeRuntimeError"), "ContainerNotCreated", ("SomeRuntimeError",)),
    (_waits("RegistryUnavailable", "pull failed"), "ImagePullFailed", ("pull failed",)),
    (_waits("SignatureValidationFailed", "no signature"), "ImagePullFailed", ("no signature",)),
    (Behaviour(init=lambda seconds: INIT_CRASHES), "ContainerNotCreated",
     ("init container istio-init", "CrashLoopBackOff", "exit code 2")),
    (Behaviour(gated=lambda seconds: True), "SchedulingGated", ("kueue.x-k8s.io/admission",)),
    (Behaviour(init=lambda seconds: INIT_RUNS), "ReplicasLate", ("init container istio-init", "runs since")),
    (_waits("ContainerCreating"), "ReplicasLate", ("ContainerCreating",)),
]  # fmt: skip
_IDS = ("create error", "hook", "unknown word", "registry", "signature", "init crashes", "gated", "init runs", "silent")


@pytest.mark.parametrize(("behaviour", "reason", "words"), NEVER_STARTS, ids=_IDS)
def test_a_container_that_never_starts_stalls_with_the_words_of_its_kubelet_and_is_not_rejected(
    behaviour: Behaviour, reason: str, words: tuple[str, ...]
) -> None:
    world = started("pinn:2", images={"pinn:2": behaviour}, spec={"rollback": {"readyDeadlineSeconds": 60}}, rate=1)
    world.run(45, tick=1)
    assert said_in(world, *words), world.describe()
    world.run(45, tick=1)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert (stalled.reason, world.state.rejected) == (reason, None)
    assert all(word in stalled.message for word in words), stalled.message
    world.images["pinn:2"] = Behaviour()
    world.run_until(lambda it: it.weight == 10, at_most=60)
    assert world.state.condition("Stalled") is None


@pytest.mark.parametrize(("behaviour", "reason", "words"), NEVER_STARTS, ids=_IDS)
def test_a_first_revision_that_never_starts_stalls_with_the_words_of_its_kubelet(
    behaviour: Behaviour, reason: str, words: tuple[str, ...]
) -> None:
    world = World(service(rollback={"readyDeadlineSeconds": 60}), images={"pinn:1": behaviour}, rate=0)
    world.run(90, tick=1)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == reason
    assert all(word in stalled.message for word in words), stalled.message
    world.images["pinn:1"] = Behaviour()
    world.until_stable("pinn:1", at_most=60)


@pytest.mark.parametrize(("behaviour", "reason", "words"), NEVER_STARTS[-3:], ids=_IDS[-3:])
def test_pods_of_the_next_step_that_never_start_stall_and_the_weight_stays(
    behaviour: Behaviour, reason: str, words: tuple[str, ...]
) -> None:
    world = at_step(10, spec={"rollback": {"readyDeadlineSeconds": 60}}, rate=20)
    world.images["pinn:2"] = behaviour
    world.run_until(lambda it: it.state.step.startswith("2/"))
    world.run(80, tick=1)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert (stalled.reason, world.weight, world.state.rejected) == (reason, 10, None)
    assert all(word in stalled.message for word in words), stalled.message


@pytest.mark.parametrize("limit", ["quota", "room"])
def test_a_cluster_without_room_holds_with_its_own_words_and_the_rollout_goes_on_when_there_is_some(limit: str) -> None:
    world = serving(World(service(rollback={"readyDeadlineSeconds": 60})))
    setattr(world, limit, 3)
    world.apply(image="pinn:2")
    world.run(5)
    assert said_in(world, "exceeded quota" if limit == "quota" else "Insufficient cpu"), world.describe()
    world.run(600, tick=1)
    assert world.state.rejected is None
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert stalled.reason == ("QuotaExceeded" if limit == "quota" else "Unschedulable")
    setattr(world, limit, 100)
    world.until_stable("pinn:2")
    assert world.state.condition("Stalled") is None


@pytest.mark.parametrize("limit", ["quota", "room"])
def test_a_cluster_with_room_for_one_canary_pod_only_holds_at_its_weight(limit: str) -> None:
    world = serving(World(service()))
    setattr(world, limit, 4)
    world.apply(image="pinn:2")
    world.run(600, tick=1)
    assert rises(world) == [10]
    assert world.state.phase is Phase.PROGRESSING
    degraded = world.state.condition("Degraded")
    assert degraded is not None
    assert ("exceeded quota" if limit == "quota" else "Insufficient cpu") in degraded.message
    setattr(world, limit, 100)
    world.until_stable("pinn:2")


def test_an_autoscaler_that_finds_no_room_in_the_bake_rolls_nothing_back() -> None:
    world = at_step(100, spec={"rollback": {"readyDeadlineSeconds": 60}})
    world.room = 8
    world.apply(replicas=6)
    world.run(240, tick=1)
    assert world.weight == 100
    assert world.state.last_rollback is None
    world.room = 100
    world.until_stable("pinn:2")


STRICT = {"analysis": {"intervalSeconds": 10, "abortIntervalSeconds": 2, "profile": "Strict"}, "replicas": 6}


def _slow_start(world: World) -> None:
    world.run(45)
    world.images["pinn:2"] = Behaviour(startup_seconds=45)


def _full_quota(world: World) -> None:
    world.quota = 7


def _no_room(world: World) -> None:
    world.room = 7


def _registry_away(world: World) -> None:
    world.images["pinn:2"] = Behaviour(pull=until(world.seconds + 150, REGISTRY_AWAY))


@pytest.mark.parametrize(
    "happens", [_slow_start, _full_quota, _no_room, _registry_away], ids=lambda it: it.__name__.strip("_")
)
def test_pods_that_a_step_adds_and_that_are_not_there_yet_reject_nothing(happens: Callable[[World], None]) -> None:
    world = at_step(10, spec=STRICT, rate=20)
    happens(world)
    world.run(120, tick=1)
    world.quota = world.room = 1000
    world.run_until(lambda it: it.weight == 50, at_most=300, tick=1).run(40, tick=1)
    assert world.state.last_rollback is None
    assert world.failed_requests == 0


def test_an_autoscaler_that_adds_many_slow_pods_to_a_step_rejects_nothing() -> None:
    slow = Behaviour(startup_seconds=45)
    world = at_step(50, spec={**STRICT, "replicas": 4}, images={"pinn:1": slow, "pinn:2": slow})
    world.apply(replicas=12)
    world.run_until(lambda it: it.weight == 100, at_most=300, tick=1)
    assert world.state.last_rollback is None


def test_pods_that_were_ready_and_fail_their_probes_are_still_rejected() -> None:
    world = at_step(50, spec=STRICT)
    world.blink("pinn:2", 600)
    world.of("pinn:2")[0].unready_until = 0.0
    world.run_until(lambda it: it.state.last_rollback is not None, at_most=60)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.reason in ("AvailabilityOutOfBounds", "NotReady")


def test_a_missing_image_is_condemned_and_one_that_a_pod_runs_never_is() -> None:
    images = {"pinn:2": Behaviour(image_missing=True)}
    world = started("pinn:2", images=images)
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK, at_most=60)
    world = at_step(10)
    world.images["pinn:2"] = Behaviour(image_missing=True)
    world.run(200)
    assert world.weight == 50 or world.state.next is not None
    assert world.state.last_rollback is None


# --- what hits both revisions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["HTTPRoute", "Replicas"])
def test_an_outage_that_ends_all_containers_of_both_revisions_twice_rejects_nothing(router: str) -> None:
    both = Behaviour(crash_times=(40.0, 55.0))
    traffic = {"traffic": {"router": "Replicas"}} if router == "Replicas" else {}
    world = started("pinn:2", images={"pinn:1": both, "pinn:2": both}, spec=traffic)
    world.run_until(lambda it: it.seconds >= 100)
    assert world.of("pinn:2")[0].restarts == 2
    assert world.state.last_rollback is None
    world.until_stable("pinn:2", at_most=900)


def test_what_ends_both_revisions_once_does_not_excuse_what_the_canary_does_alone() -> None:
    images = {"pinn:1": Behaviour(crash_times=(40.0,)), "pinn:2": Behaviour(crash_times=(40.0, 105.0, 115.0))}
    world = started("pinn:2", images=images).run_until(lambda it: it.state.last_rollback is not None, at_most=200)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.reason == "CrashLoopBackOff"
    assert world.seconds >= 115


def test_memory_kills_of_all_containers_of_both_revisions_at_once_reject_nothing() -> None:
    world = started("pinn:2", images={image: Behaviour(oom_at=45) for image in ("pinn:1", "pinn:2")})
    world.run(120)
    assert (world.state.last_rollback, world.weight) == (None, 0)


# --- the route --------------------------------------------------------------------------------------------------------


def _unstamped(world: World) -> None:
    world.stamps = False


def _parent_gone(world: World) -> None:
    world.parents_absent = {"edge"}


def _old(world: World) -> None:
    world.route_accepted = False


@pytest.mark.parametrize("breaks", [_unstamped, _parent_gone, _old], ids=["unstamped", "parent gone", "old generation"])
@pytest.mark.parametrize("weight", [10, 50])
def test_a_weight_that_the_route_never_takes_up_is_taken_back_and_stalls_with_the_gateway_s_name(
    weight: int, breaks: Callable[[World], None]
) -> None:
    before = {10: 0, 50: 10}[weight]
    world = started("pinn:2").run_until(lambda it: it.weight == weight)
    breaks(world)
    world.run(130, tick=1)
    assert world.weight == before
    assert world.state.phase is Phase.SUSPENDED
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert "edge/edge" in stalled.message
    assert world.state.rejected is None
    world.stamps, world.route_accepted, world.parents_absent = True, True, set()
    world.until_stable("pinn:2")


def _in_force(world: World, weight: int) -> bool:
    rollout = world.state.rollout
    return rollout is not None and rollout.weight == weight and rollout.programmed_time is not None


@pytest.mark.parametrize("breaks", [_unstamped, _parent_gone], ids=["unstamped", "parent gone"])
def test_a_weight_that_was_in_force_stays_and_stalls_when_the_route_loses_its_gateway(
    breaks: Callable[[World], None],
) -> None:
    world = started("pinn:2").run_until(lambda it: _in_force(it, 10))
    breaks(world)
    world.run(20, tick=1)
    assert world.state.condition("Stalled") is None
    world.run(110, tick=1)
    assert world.weight == 10
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert "edge/edge" in stalled.message
    assert world.state.rejected is None
    world.stamps, world.route_accepted, world.parents_absent = True, True, set()
    world.until_stable("pinn:2")


def test_a_first_revision_whose_route_no_gateway_serves_is_stalled_with_the_gateway_s_name_until_one_does() -> None:
    world = World(service())
    world.parents_absent = {"edge"}
    world.run(30, tick=1)
    assert world.state.condition("Stalled") is None
    assert world.state.next is not None
    assert "edge/edge" in str(world.state.next.waiting_for)
    world.run(110, tick=1)
    stalled = world.state.condition("Stalled")
    assert stalled is not None
    assert "edge/edge" in stalled.message
    assert [event.type for event in world.events if event.reason == stalled.reason] == ["Warning"]
    world.parents_absent = set()
    world.run(20, tick=1)
    assert world.state.condition("Stalled") is None
    assert world.state.next is None


def test_endpoints_that_lag_behind_condemn_nobody() -> None:
    world = started("pinn:2")
    world.endpoint_lag = 20.0
    world.run(600, tick=1)
    assert world.state.last_rollback is None


# --- a stable revision that cannot answer -----------------------------------------------------------------------------


def test_the_fix_of_a_dead_stable_gets_all_traffic_as_soon_as_it_is_ready() -> None:
    world = serving(World(service()))
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.run(20)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 100, at_most=20)
    world.run(2)
    failed = world.failed_requests
    world.until_stable("pinn:2")
    assert world.failed_requests == failed


def test_a_canary_in_traffic_takes_over_when_stable_dies_and_gives_back_when_it_is_well() -> None:
    world = at_step(10)
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.run(1.5)
    assert world.weight == 100
    assert world.said("StableUnavailable")
    world.images["pinn:1"] = Behaviour()
    world.run(20)
    assert world.weight == 100, "traffic went back to a stable revision that has just come up"
    world.run_until(lambda it: it.weight == 10, at_most=60)
    world.until_stable("pinn:2")


@pytest.mark.parametrize("seconds", [0.5, 3, 6, 10])
def test_when_a_promoted_revision_dies_before_the_old_pods_are_gone_they_serve_again(seconds: float) -> None:
    world = started("pinn:2").run_until(lambda it: it.state.phase is Phase.PROMOTING, at_most=900)
    world.images["pinn:2"] = Behaviour(crashes_at=world.seconds + seconds)
    failed = world.failed_requests
    world.run(seconds + 120)
    assert world.failed_requests - failed < 60
    assert all(pod.ready for pod in world.of("pinn:1"))
    assert world.state.reason.startswith("StableUnavailable"), world.state.reason
    assert world.said("StableUnavailable")
    world.images["pinn:2"] = Behaviour()
    for pod in world.of("pinn:2"):
        world.take_away([pod])
    world.until_stable("pinn:2")
    assert world.failed_requests - failed < 60


def test_when_stable_dies_while_a_good_canary_leaves_that_serves_again_after_five_seconds() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 100, at_most=900).run(10)
    world.apply(image="pinn:1")
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK)
    world.images["pinn:1"] = Behaviour(crashes_at=world.seconds + 5)
    failed = world.failed_requests
    world.run(60)
    assert (world.weight, len(world.of("pinn:2"))) == (100, 3)
    assert world.failed_requests - failed < 6 * 40


class Remembering(World):
    """Its operator remembers since when it has seen each pod as ready as it is."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.since: dict[tuple[str, bool], float] = {}
        super().__init__(*arguments, **options)

    def observe(self) -> Observed:
        seen = super().observe()
        pods = (
            replace(pod, seen=self.seconds - self.since.setdefault((pod.name, pod.ready), self.seconds))
            if pod.started
            else pod
            for pod in seen.pods
        )
        return replace(seen, pods=tuple(pods))


@pytest.mark.parametrize("ahead", [0, 60, 600])
def test_clocks_of_nodes_that_are_ahead_keep_no_fix_of_a_dead_stable_waiting(ahead: int) -> None:
    dies = Behaviour(crashes_at=60)
    world = serving(Remembering(service(), images={"pinn:1": dies}))
    world.clock_offset = -ahead
    world.run_until(lambda it: it.seconds >= 75)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 100, at_most=20)
    world.images["pinn:1"] = Behaviour()
    world.run_until(lambda it: it.weight < 100, at_most=120)
    assert world.said("StableIsBack")


DRIFT: dict[str, Any] = {"name": "drift", "query": "max(drift)", "abort": {"above": "0.02", "consecutive": 3}}
TYPO: dict[str, Any] = {"name": "x", "query": "sum(rate(foo[1m])", "advance": {"below": "1"}}
"""What the API server takes, because it reads no PromQL."""


@pytest.mark.parametrize(("edit", "rolled_back"), [({"dryRun": True}, False), ({"abort": {"above": "0.3"}}, True)])
def test_an_invalid_spec_leaves_the_gates_of_the_last_valid_one_in_force(
    edit: dict[str, Any], rolled_back: bool
) -> None:
    """Not those of the spec that began the rollout: what was disarmed since stays so, and what was set since counts."""
    first = DRIFT if not rolled_back else {**DRIFT, "abort": {"above": "0.9"}}
    world = serving(World(service(analysis={"intervalSeconds": 10, "gates": [first]})))
    world.own["drift"] = lambda seconds: 0.01 if seconds < 120 else 0.5
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(10)
    edited = {**DRIFT, **edit}
    world.apply(analysis={"intervalSeconds": 10, "gates": [edited]})
    world.run(5)
    world.apply(analysis={"intervalSeconds": 10, "gates": [edited, TYPO]})
    world.run_until(lambda it: it.seconds >= 200, at_most=300)
    assert (world.state.last_rollback is not None) is rolled_back
    assert world.weight == (0 if rolled_back else 10)


class Kept(World):
    """The resource is being deleted, and somebody's finalizer keeps it."""

    kept = False

    def _resource(self) -> Resource:
        found = super()._resource()
        return replace(found, deleting=True, finalizers=("velero.io/backup",)) if self.kept else found


def test_a_rollout_stays_watched_while_a_finalizer_holds_its_deletion_up() -> None:
    turns_bad = Behaviour(errors=lambda seconds: 1.0 if seconds >= 400 else 0.0)
    world = serving(Kept(service(), images={"pinn:2": turns_bad}))
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10)
    world.kept = True
    world.version += 1
    world.run_until(lambda it: it.seconds >= 390, at_most=600)
    assert world.weight == 10, "weight rose while the resource was being deleted"
    assert world.state.next is not None
    assert "velero.io/backup" in world.state.next.waiting_for
    world.run(30)
    assert world.weight == 0
    assert world.failed_requests < 60
    deployments = [name for kind, name in world.objects if kind == "Deployment"]
    world.run(120)
    assert [name for kind, name in world.objects if kind == "Deployment"] == deployments


class Orphaned(World):
    """Stable's Deployment was deleted and its pods were left; the new one has no figures yet."""

    lost = False

    def observe(self) -> Observed:
        seen = super().observe()
        if not self.lost or self.state.stable is None:
            return seen
        others = {name: it for name, it in seen.workloads.items() if name != self.state.stable.revision}
        return replace(seen, workloads=others)


def test_a_deployment_that_is_missing_for_a_moment_moves_no_traffic_as_long_as_its_pods_answer() -> None:
    world = serving(Orphaned(service()))
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(10)
    world.lost = True
    world.run(4)
    world.lost = False
    world.run(4)
    assert world.weight == 10
    assert not world.said("StableUnavailable")


def test_a_rejected_revision_never_serves_again_though_stable_dies() -> None:
    world = at_step(50)
    world.images["pinn:2"] = Behaviour(errors=lambda _: 0.5)
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK)
    world.images["pinn:1"] = Behaviour(crashes_at=world.seconds + 1)
    world.run(60)
    assert world.weight == 0


def test_a_paused_rollout_takes_nothing_over() -> None:
    world = at_step(10)
    world.apply(paused=True)
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.run(30)
    assert world.weight == 10


def test_a_third_revision_starts_though_stable_is_dead_and_the_canary_is_bad() -> None:
    turned = {"at": float("inf")}
    bad = Behaviour(errors=lambda t: 1.0 if t >= turned["at"] else 0.0)
    world = at_step(10, images={"pinn:2": bad})
    world.images["pinn:1"] = Behaviour(never_ready=True)
    turned["at"] = world.seconds
    world.run(60)
    world.apply(image="pinn:3")
    world.run_until(lambda it: it.weight == 100 and it.state.canary is not None and it.state.canary.image == "pinn:3",
                    at_most=120)  # fmt: skip
    world.run(2)
    failed = world.failed_requests
    world.until_stable("pinn:3")
    assert world.failed_requests == failed


def test_a_third_revision_starts_though_stable_is_dead_and_the_canary_is_good() -> None:
    world = at_step(10)
    world.images["pinn:1"] = Behaviour(never_ready=True)
    world.run(5)
    world.apply(image="pinn:3")
    world.until_stable("pinn:3")
    assert world.state.last_rollback is None


# --- orders -----------------------------------------------------------------------------------------------------------


def test_a_rejected_revision_is_tried_again_once_per_order() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(image_missing=True)})
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK).run(10)
    assert said_in(world, "kubectl annotate pinnservice eu-options -n pricing", "pinn.dev/retry")
    world.retry("1")
    world.run(5)
    assert world.state.retry is not None
    assert world.state.retry.id == "1"
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK).run(60)
    assert len(world.state.history) == 2, "the order was executed more than once"
    world.images["pinn:2"] = Behaviour()
    world.retry("2")
    world.until_stable("pinn:2")


def test_an_order_without_anything_to_retry_does_nothing_later_either() -> None:
    world = serving(World(service()))
    world.retry("1")
    world.run(5)
    world.apply(image="pinn:2")
    world.images["pinn:2"] = Behaviour(image_missing=True)
    world.run(120)
    assert world.state.phase is Phase.ROLLED_BACK


def test_an_order_without_anything_to_retry_says_so() -> None:
    world = serving(World(service()))
    world.retry("1")
    world.run(5)
    assert world.state.retry is not None
    assert world.state.retry.message == "nothing to retry: no revision is rejected or suspended"
    assert [event.reason for event in world.events if "retr" in event.message] == ["NothingToRetry"]


@pytest.mark.parametrize("seconds", [10, 60], ids=["before it is suspended", "suspended"])
def test_an_order_for_a_revision_that_waits_for_its_image_says_who_tries_again_and_how_to_hurry_it(
    seconds: int,
) -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(pull=until(200, REGISTRY_AWAY))})
    world.run(seconds)
    world.retry("1")
    world.run(5)
    [event] = [event for event in world.events if event.reason in ("Retried", "NothingToRetry")]
    assert event.reason == "NothingToRetry"
    assert "ImagePullFailed: " in event.message
    assert "i/o timeout" in event.message
    assert event.message.endswith("delete the one that waits")
    world.until_stable("pinn:2")


def test_an_order_ends_the_pause_of_a_suspended_revision() -> None:
    world = at_step(10)
    for _ in range(4):
        world.run_until(lambda it: it.weight == 10, at_most=400).run(2)
        world.kill("pinn:2")
        world.run(1)
    world.run(45)
    assert world.weight == 0
    world.retry("now")
    world.run_until(lambda it: it.weight == 10, at_most=20)
    assert [event.reason for event in world.events][-3:].count("NothingToRetry") == 0
    assert any(event.reason == "Retried" and event.message.endswith(" goes on") for event in world.events)


# --- what is waited for -----------------------------------------------------------------------------------------------


def waits_of(world: World, seconds: float) -> list[NextAction]:
    # What was next, each once, in the order in which it came.
    found: list[NextAction] = []
    for _ in range(round(seconds)):
        world.run(1)
        if world.state.next is not None and world.state.next not in found[-1:]:
            found.append(world.state.next)
    return found


def test_what_a_rejected_revision_s_pods_are_kept_for_and_until_when_is_said() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(image_missing=True)})
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK)
    [draining] = [it for it in waits_of(world, 60) if "a look at the pods" in it.waiting_for]
    assert draining.time is not None
    assert "(rollback.scaleDownDelaySeconds), 30 s after the last request" in draining.waiting_for
    assert world.state.phase is Phase.ROLLED_BACK
    removed = world.state.last_rollback.capacity_removed_time  # type: ignore[union-attr]
    assert removed is not None
    assert timedelta(0) <= removed - draining.time <= timedelta(seconds=2)


def test_what_a_rejected_revision_waits_for_reads_as_one_sentence() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(image_missing=True)})
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK).run(5)
    assert world.state.next is not None
    assert world.state.next.waiting_for.startswith(
        "another spec, or an order to try this one again: kubectl annotate pinnservice eu-options -n pricing"
    )


def test_the_first_revision_counts_the_replicas_that_the_spec_asks_for_everywhere() -> None:
    world = World(service(replicas=2))
    said = {text for it in waits_of(world, 8) if "replicas of" in (text := it.waiting_for)}
    assert said
    assert all(" of 2 replicas of " in text for text in said), said


# --- steps and pauses -------------------------------------------------------------------------------------------------


def test_a_weight_rises_only_after_the_hold_at_the_present_one_whatever_the_list_of_steps_says() -> None:
    steps = [{"weight": 10, "holdSeconds": 20}, {"weight": 50, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 60}]
    world = at_step(50, spec={"strategy": {"canary": {"steps": steps}}})
    world.run(30)
    world.apply(strategy={"canary": {"steps": [steps[0], steps[2]]}})
    world.run(300, tick=1)
    assert world.weight == 50
    world.until_stable("pinn:2", at_most=1200)


def test_a_hold_that_is_shortened_is_over_earlier() -> None:
    steps = [{"weight": 50, "holdSeconds": 3600}, {"weight": 100, "holdSeconds": 20}]
    world = at_step(50, spec={"strategy": {"canary": {"steps": steps}}})
    world.run(30)
    world.apply(strategy={"canary": {"steps": [{"weight": 50, "holdSeconds": 60}, steps[1]]}})
    world.until_stable("pinn:2", at_most=300)


# --- capacity ---------------------------------------------------------------------------------------------------------


def test_a_rejected_revision_s_pods_go_after_the_drain_though_connections_are_kept() -> None:
    turned = {"at": float("inf")}
    bad = Behaviour(errors=lambda t: 1.0 if t >= turned["at"] else 0.0)
    world = serving(
        World(service(traffic={"router": "Replicas"}, rollback={"drainSeconds": 5}), images={"pinn:2": bad})
    )
    world.connections = 40
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.state.rollout is not None and it.state.rollout.weight == 10).run(20)
    turned["at"] = world.seconds
    world.run_until(lambda it: it.state.phase is Phase.ROLLING_BACK, at_most=60)
    began = world.seconds
    world.run_until(lambda it: not it.of("pinn:2"), at_most=400)
    assert world.seconds - began <= 5 + 3
