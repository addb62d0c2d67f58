"""The invariants of a rollout, held by every pass of random histories, and how each history must end.

A script is a list of things that happen to a team; `Watched` checks each pass while it is played. What really happened
(which pods answered, what share the router really gives) is read from the simulated world, not from the operator.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st

from pinn_operator.core import decide as deciding
from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Decision
from pinn_operator.core.observed import Observed
from pinn_operator.core.samples import Samples
from pinn_operator.core.situation import accepted_spec
from pinn_operator.core.status.values import Phase, Status
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.report import report
from tests.story.invariants import DRAIN, MIN_SAMPLES, Invariants, Made, as_written, is_valid, weight_of
from tests.story.kubelet import NO_CREDENTIALS, NO_KEY, REGISTRY_AWAY
from tests.story.world import Behaviour, World, constant

STEPS = [{"weight": 10, "holdSeconds": 6}, {"weight": 50, "holdSeconds": 6}, {"weight": 100, "holdSeconds": 6}]
OTHER_STEPS = [
    [{"weight": 100, "holdSeconds": 3}],
    [{"weight": 30, "holdSeconds": 5}, {"weight": 100, "holdSeconds": 5}],
    [{"weight": weight, "holdSeconds": 2} for weight in (5, 20, 40, 60, 80, 100)],
]
GATES = [
    {"name": "error-rate", "minSamples": MIN_SAMPLES, "abort": {"above": "0.05", "forSeconds": 20}},
    {"name": "latency-p95", "minSamples": MIN_SAMPLES, "abort": {"above": "1", "forSeconds": 10}},
    {"name": "latency-p99", "minSamples": MIN_SAMPLES},
    # The operator's own samples of prices, every four seconds, are more than the options that clients ask for here.
    {"name": "cache-hit-rate", "dryRun": True},
    {"name": "fallback-rate", "dryRun": True},
    {"name": "drift", "query": "drift", "advance": {"below": "0.5"}, "abort": {"above": "0.8", "consecutive": 3}},
]
BROKEN = Behaviour(errors=constant(1.0))
ILLS: dict[str, Callable[[float], Behaviour]] = {
    "fails": lambda now: BROKEN,
    "fails sometimes": lambda now: Behaviour(errors=constant(0.25)),
    "is slow": lambda now: Behaviour(latency=constant(1.5)),
    "crashes": lambda now: Behaviour(crashes_at=now),
    "is killed": lambda now: Behaviour(oom_at=now),
    "is never ready": lambda now: Behaviour(never_ready=True),
    "cannot be pulled": lambda now: Behaviour(image_missing=True),
}
BAD_LUCK: dict[str, Behaviour] = {
    "registry away": Behaviour(pull=lambda _: REGISTRY_AWAY),
    "no credentials": Behaviour(pull=lambda _: NO_CREDENTIALS),
    "no key": Behaviour(configuration=lambda _: NO_KEY),
}
"""What keeps the pods of an image away and is not its fault."""


def team_spec(router: str) -> dict[str, Any]:
    traffic: dict[str, Any] = {"router": router}
    if router == "HTTPRoute":
        traffic |= {"parentRefs": [{"name": "edge", "namespace": "edge"}]}
    return {
        "image": "pinn:1", "replicas": 3, "traffic": traffic,
        "strategy": {"type": "Canary", "canary": {"steps": STEPS}},
        # The operator's own questions would be most of what so little traffic leaves in the counters.
        "verification": {"mode": "Disabled"},
        "analysis": {"intervalSeconds": 4, "abortIntervalSeconds": 2, "gates": GATES},
        "rollback": {"drainSeconds": DRAIN, "scaleDownDelaySeconds": 10, "readyDeadlineSeconds": 20,
                     "unreadySeconds": 5},
    }  # fmt: skip


class Watched(Invariants, World):
    """A world in which every pass is checked."""

    def __init__(self, *, router: str = "HTTPRoute", seed: int = 1) -> None:
        Invariants.__init__(self)
        World.__init__(self, team_spec(router), rate=20, seed=seed)
        self.own["drift"] = lambda _: 0.1
        self.healed: set[str] = set()
        self.facts: Facts | None = None

    def _decided(self, resource: Resource, observed: Observed, samples: Any) -> Decision:
        def reported(facts: Facts) -> Status:
            self.facts = facts
            return report(facts)

        with patch.object(deciding, "report", reported):
            return super()._decided(resource, observed, samples)

    def decided(self, decision: Decision, observed: Observed, samples: Samples) -> None:
        resource, facts = self._resource(), self.facts
        spec = accepted_spec(resource, observed)
        if decision.status != resource.status:
            is_valid(decision.status)
        again = self._decided(as_written(resource, decision.status), observed, dict(samples))
        if spec is None:
            assert decision.actions == ()
            return
        self.check(
            Made(self.name, self.now, resource, observed, samples, decision, again, facts, spec)
        )  # fmt: skip

    def reconcile(self, *, crash_before_acting: bool = False) -> Decision:
        decision = super().reconcile(crash_before_acting=crash_before_acting)
        route = self.objects.get(("HTTPRoute", self.name))
        routed = self.spec["traffic"]["router"] == "HTTPRoute" and self.state.stable is not None
        if routed and not crash_before_acting and self.route_kind_served:
            assert route is not None, "the route is absent"
            assert self.weight == weight_of(self.state), "a foreign weight was left"
        return decision

    # --- what really happens ------------------------------------------------------------------------------------------

    def answered(self, revision: str) -> float:
        return sum(sum(pod.requests) for pod in [*self.pods, *self.gone] if pod.revision == revision)

    def must_keep_capacity(self, revision: str) -> str:
        lags = self.status_was_lost and self.router_lag > 1
        if not lags and revision in self._revisions_in_traffic():
            return "it has traffic"
        newest = max((pod.last_request for pod in self.pods if pod.revision == revision), default=float("-inf"))
        uncertain = self.clock_was_set or self.rerouted or self.status_was_lost
        recent = not uncertain and self.seconds - newest < DRAIN
        return f"it answered {self.seconds - newest} s ago" if recent else ""

    def foreign_weight(self, status: Status) -> bool:
        return self.spec["traffic"]["router"] == "HTTPRoute" and self.weight != weight_of(status)

    @property
    def sources_answer(self) -> bool:
        return self.prometheus_up

    def _revisions_in_traffic(self) -> set[str]:
        services = [self.name]
        if self.spec["traffic"]["router"] == "HTTPRoute":
            services = [service for service, weight in self._weights_in_force().items() if weight > 0]
        return {pod.revision for service in services for pod in self.backends(service)}

    # --- what may happen ----------------------------------------------------------------------------------------------

    def happen(self, what: str, how: Any) -> None:
        getattr(self, f"_happens_{what.replace(' ', '_')}")(how)

    def _happens_image(self, image: str) -> None:
        self.images_written += 1
        self.apply(image=image)

    def _happens_replicas(self, replicas: int) -> None:
        self.apply(replicas=replicas)

    def _happens_paused(self, paused: bool) -> None:
        self.apply(paused=paused)

    def _happens_steps(self, steps: list[dict[str, Any]]) -> None:
        self.apply(strategy={"type": "Canary", "canary": {"steps": steps}})

    def _happens_mode(self, mode: str) -> None:
        self.apply(rollback={**self.spec["rollback"], "mode": mode})

    def _happens_invalid(self, invalid: bool) -> None:
        self.apply(paused="perhaps" if invalid else False)

    def _happens_weight_edited(self, weight: int) -> None:
        if ("HTTPRoute", self.name) in self.objects:
            self.edit_weight(weight)
            self.answered_before = self.answered(self.state.canary.revision) if self.state.canary else 0.0

    def _happens_deleted(self, what: tuple[str, str]) -> None:
        self.delete(what[0], self.name + what[1])

    def _happens_prometheus(self, up: bool) -> None:
        self.prometheus_up = up

    def _happens_traffic(self, rate: float) -> None:
        self.rate = rate

    def _happens_drift(self, value: float | None) -> None:
        self.drifted = self.drifted or (value or 0.0) > 0.8
        self.own["drift"] = lambda _: value

    def _happens_canary_ill(self, ill: str) -> None:
        image = self.spec["image"]
        if self.state.stable is None or self.state.stable.image != image:
            self.ever_ill.add(image)
            self.images[image] = ILLS[ill](self.seconds)

    def _happens_stable_ill(self, ill: str) -> None:
        if self.state.stable is not None:
            self.ever_ill.add(self.state.stable.image)
            self.images[self.state.stable.image] = ILLS[ill](self.seconds)

    def _happens_healed(self, image: str) -> None:
        self.images.pop(image, None)
        self.healed.add(image)

    def _happens_stable_dies(self, _: None) -> None:
        if self.state.stable is not None:
            self.kill(self.state.stable.image)

    def _happens_bad_luck(self, which: str) -> None:
        self.images.setdefault(self.spec["image"], BAD_LUCK[which])

    def _happens_pods_taken(self, how: tuple[str, str]) -> None:
        whose, reason = how
        if (revision := getattr(self.state, whose)) is None:
            return
        if reason == "by force":
            self.kill(revision.image)
        elif reason == "by the node":
            self.evict(revision.image)
        else:
            self.take_away(self.of(revision.image), reason)

    def _happens_blink(self, whose: str) -> None:
        if (revision := getattr(self.state, whose)) is not None:
            self.blink(revision.image, 2)

    def _happens_drained(self, node: str) -> None:
        self.drain(node)
        self.cordoned = {node}

    def _happens_node(self, how: tuple[str, str]) -> None:
        node, what = how
        if what == "lost":
            self.lose_node(node)
        else:
            self.bring_back(node, rebooted=what == "rebooted")

    def _happens_quota(self, pods: int) -> None:
        self.quota = pods

    def _happens_room(self, pods: int) -> None:
        self.room = pods

    def _happens_endpoint_lag(self, seconds: float) -> None:
        self.endpoint_lag = seconds

    def _happens_stamps(self, stamps: bool) -> None:
        self.stamps = stamps

    def _happens_retry(self, order: str) -> None:
        self.retry(order)
        self.rejected_at = {}

    def _happens_operator(self, up: bool) -> None:
        self.operator_up = up

    def _happens_died_before_acting(self, _: None) -> None:
        if self.operator_up:
            self.reconcile(crash_before_acting=True)

    def _happens_clock(self, offset: float) -> None:
        self.clock_offset, self.clock_was_set = offset, True

    def _happens_routes_served(self, served: bool) -> None:
        self.route_kind_served = served

    def _happens_gateway(self, accepts: bool) -> None:
        self.route_accepted = accepts

    def _happens_router_lag(self, seconds: float) -> None:
        self.router_lag = seconds

    def _happens_router(self, router: str) -> None:
        self.apply(traffic=team_spec(router)["traffic"])
        self.rerouted = True

    def _happens_deployment_deleted(self, whose: str) -> None:
        if (revision := getattr(self.state, whose)) is not None:
            self.delete("Deployment", f"{self.name}-{revision.revision}")

    def _happens_scaled_by_hand(self, how: tuple[str, int]) -> None:
        whose, replicas = how
        revision = getattr(self.state, whose)
        key = ("Deployment", f"{self.name}-{revision.revision}") if revision is not None else ("", "")
        if key in self.objects:
            deployment = self.objects[key]
            self._write({**deployment, "spec": {**deployment["spec"], "replicas": replicas}})

    def _happens_status_lost(self, _: None) -> None:
        self.status = {}
        self.status_was_lost = True
        self.version += 1
        self.rejected_at = {}

    # --- how it must end ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything but the revisions is well again, the spec is valid and Auto: the end follows from the target."""
        self.prometheus_up = self.operator_up = self.route_kind_served = self.route_accepted = True
        self.rate, self.clock_offset, self.router_lag = 20, 0.0, 0.2
        self.quota = self.room = 1000
        self.endpoint_lag, self.stamps, self.cordoned = 0.0, True, set()
        for node, silent in self.nodes.items():
            if silent is not None:
                self.bring_back(node)
        self.own["drift"] = lambda _: 0.1
        target = self.spec["image"]
        self.images = {
            image: behaviour for image, behaviour in self.images.items()
            if image == target and behaviour not in BAD_LUCK.values()
        }  # fmt: skip
        self.apply(replicas=3, paused=False)
        self._happens_steps(STEPS)
        self._happens_mode("Auto")
        self.run(150, tick=1)
        if self.state.phase is Phase.SUSPENDED:
            self.retry("at last")
            self.run(90, tick=1)
        state, ill = self.state, self.images.get(target)
        assert state.stable is not None
        if state.phase is Phase.PENDING:
            assert ill is not None, f"a healthy first revision does not serve: {self.describe()}"
        elif state.stable.image == target and ill is not None:
            return
        elif state.stable.image == target:
            assert state.phase is Phase.STABLE, self.describe()
            assert {pod.image for pod in self.pods if pod.phase != "Failed"} == {target}
        elif ill is not None and ill.image_missing and any(pod.image == target for pod in self.pods):
            # An image that runs in a pod exists: the rollout holds until the registry gives it to the other nodes too.
            assert state.phase in (Phase.PROGRESSING, Phase.BAKING, Phase.SUSPENDED), self.describe()
            return
        elif ill is not None:
            assert state.phase is Phase.ROLLED_BACK, f"{target} is bad: {self.describe()}"
            assert state.stable.revision in self._revisions_in_traffic()
            assert {pod.image for pod in self.pods if pod.phase != "Failed"} == {state.stable.image}
        elif target in self.healed and state.phase in (Phase.PROGRESSING, Phase.BAKING):
            # It is good now, but has answered badly since the last change of weight, and that counts.
            assert state.verdict == "Fail", self.describe()
            return
        else:
            assert state.phase is Phase.ROLLED_BACK, f"{target} is good: {self.describe()}"
            assert state.rejected is not None, f"{target} is good and was never rejected"
        assert weight_of(state) == 0
        commits = self.commits
        self.run(60, tick=1)
        assert self.commits == commits, "a pass without news wrote something"


IMAGES = st.sampled_from(["pinn:1", "pinn:2", "pinn:2", "pinn:3"])
HAPPENINGS = st.one_of(
    st.tuples(st.just("image"), IMAGES),
    st.tuples(st.just("replicas"), st.sampled_from([0, 1, 2, 5])),
    st.tuples(st.just("paused"), st.booleans()),
    st.tuples(st.just("steps"), st.sampled_from(OTHER_STEPS)),
    st.tuples(st.just("mode"), st.sampled_from(["Hold", "Auto"])),
    st.tuples(st.just("invalid"), st.booleans()),
    st.tuples(st.just("weight edited"), st.sampled_from([0, 3, 40, 100])),
    st.tuples(
        st.just("deleted"),
        st.sampled_from([("HTTPRoute", ""), ("Service", ""), ("Service", "-stable"), ("Service", "-canary")]),
    ),
    st.tuples(st.just("prometheus"), st.booleans()),
    st.tuples(st.just("traffic"), st.sampled_from([0.0, 2.0, 20.0])),
    st.tuples(st.just("drift"), st.sampled_from([None, 0.1, 0.6, 0.9])),
    st.tuples(st.just("canary ill"), st.sampled_from(sorted(ILLS))),
    st.tuples(st.just("canary ill"), st.sampled_from(sorted(ILLS))),
    st.tuples(st.just("stable ill"), st.sampled_from(sorted(ILLS))),
    st.tuples(st.just("healed"), IMAGES),
    st.tuples(st.just("stable dies"), st.none()),
    st.tuples(st.just("bad luck"), st.sampled_from(sorted(BAD_LUCK))),
    st.tuples(
        st.just("pods taken"),
        st.tuples(
            st.sampled_from(["canary", "canary", "stable"]),
            st.sampled_from(["by force", "by the node", "EvictionByEvictionAPI", "PreemptionByScheduler", ""]),
        ),
    ),
    st.tuples(st.just("blink"), st.sampled_from(["canary", "stable"])),
    st.tuples(st.just("drained"), st.sampled_from(["node-1", "node-2", "node-3"])),
    st.tuples(
        st.just("node"),
        st.tuples(st.sampled_from(["node-1", "node-2"]), st.sampled_from(["lost", "back", "rebooted"])),
    ),
    st.tuples(st.just("quota"), st.sampled_from([3, 4, 1000])),
    st.tuples(st.just("room"), st.sampled_from([3, 4, 1000])),
    st.tuples(st.just("endpoint lag"), st.sampled_from([0.0, 5.0, 20.0])),
    st.tuples(st.just("stamps"), st.booleans()),
    st.tuples(st.just("retry"), st.sampled_from(["1", "2"])),
    st.tuples(st.just("operator"), st.booleans()),
    st.tuples(st.just("died before acting"), st.none()),
    st.tuples(st.just("clock"), st.sampled_from([-3600.0, -20.0, 0.0, 40.0, 7200.0])),
    st.tuples(st.just("routes served"), st.booleans()),
    st.tuples(st.just("gateway"), st.booleans()),
    st.tuples(st.just("router lag"), st.sampled_from([0.2, 3.0, 14.0])),
    st.tuples(st.just("router"), st.sampled_from(["HTTPRoute", "Replicas"])),
    st.tuples(st.just("deployment deleted"), st.sampled_from(["stable", "canary"])),
    st.tuples(st.just("scaled by hand"), st.tuples(st.sampled_from(["stable", "canary"]), st.sampled_from([0, 1, 7]))),
    st.tuples(st.just("status lost"), st.none()),
)
SCRIPTS = st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 5, 8, 13, 20]), HAPPENINGS), min_size=1, max_size=9)
REACHED = st.sampled_from([0, 10, 50, 100])
Script = list[tuple[int, tuple[str, Any]]]


def play(script: Script, *, router: str, reached: int, seed: int = 1) -> Watched:
    """A second revision is at `reached` percent when the script begins; pauses between happenings are in seconds."""
    world = Watched(router=router, seed=seed)
    world.run(6, tick=1)
    world.happen("image", "pinn:2")
    world.run_until(lambda it: weight_of(it.state) == reached, tick=1)
    for pause, (what, how) in script:
        world.run(pause, tick=1)
        world.happen(what, how)
    world.run(5, tick=1)
    world.settle()
    return world


EXAMPLES = int(os.environ.get("PINN_EXAMPLES", "0"))
"""So many histories are tried instead of the usual few; `pytest -s` shows the seed, `PINN_SEED` repeats it."""
SEED = int(os.environ.get("PINN_SEED", "0")) or (random.randrange(1, 2**32) if EXAMPLES else 1)


def histories(usual: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The usual number of histories, the same in each run; or as many as asked for, from a seed that is printed."""

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        unhurried = settings(
            max_examples=EXAMPLES or usual, deadline=None, derandomize=not EXAMPLES,
            suppress_health_check=[HealthCheck.too_slow],
            # A history takes seconds: shrinking one would take longer than all of them.
            phases=[Stage.explicit, Stage.reuse, Stage.generate],
        )  # fmt: skip
        if not EXAMPLES:
            return unhurried(test)
        print(f"{test.__name__}: {EXAMPLES} histories, PINN_SEED={SEED}")
        return seed(SEED)(unhurried(test))

    return decorated


@histories(24)
@given(script=SCRIPTS, reached=REACHED)
def test_every_pass_keeps_the_invariants_behind_a_gateway(script: Script, reached: int) -> None:
    play(script, router="HTTPRoute", reached=reached)


@histories(10)
@given(script=SCRIPTS, reached=REACHED)
def test_every_pass_keeps_the_invariants_without_a_router(script: Script, reached: int) -> None:
    play(script, router="Replicas", reached=reached)
