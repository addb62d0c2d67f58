"""What is measured wrongly, too late or not at all, and what must not follow from it.

In most of these the operator has Prometheus alone: a NetworkPolicy keeps it from the pods (`blind`). Where it can read
the pods itself, it is to see more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pinn_operator.core.status.values import GateStatus, Phase
from tests.story.prometheus import REQUESTS, Key, Prometheus, Scrape, SimulatedPod, Trouble
from tests.story.world import Behaviour, World, service, serving, started

ROLLED_BACK = (Phase.ROLLING_BACK, Phase.ROLLED_BACK)


def steps(*pairs: tuple[int, int]) -> dict[str, Any]:
    """Weights and how long they are held."""
    held = [{"weight": weight, "holdSeconds": seconds} for weight, seconds in pairs]
    return {"strategy": {"type": "Canary", "canary": {"steps": held}}}


def blind(world: World) -> World:
    """The operator cannot read any pod itself."""
    before = world.dress

    def dress(pod: SimulatedPod) -> None:
        before(pod)
        pod.trouble = Trouble.REFUSED

    world.dress = dress
    return world


def from_now_on(world: World, image: str, **how: Any) -> None:
    """An image behaves otherwise."""
    world.images = {**world.images, image: Behaviour(**how)}


def gone_bad(world: World) -> bool:
    return world.state.phase in ROLLED_BACK


def gate(world: World, name: str = "error-rate") -> GateStatus:
    assert world.state.rollout is not None
    return next(it for it in world.state.rollout.gates if it.name == name)


def canary(world: World) -> Callable[[SimulatedPod], bool]:
    """Whether a pod is of the canary's revision."""
    assert world.state.canary is not None
    revision = world.state.canary.revision
    return lambda pod: pod.revision == revision


# --- dead data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Scrape.SILENT, Scrape.FAILS])
@pytest.mark.parametrize("whose", ["all", "canary"])
def test_a_bake_on_dead_data_never_promotes(how: Scrape, whose: str) -> None:
    world = blind(started("pinn:2", spec=steps((10, 30), (100, 120))))
    world.run_until(lambda it: it.weight == 100).run(40, tick=1)
    mine = canary(world)
    world.prometheus.outcome = lambda pod, time: how if whose == "all" or mine(pod) else Scrape.GOOD
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run(300, tick=1)
    assert world.state.phase in (Phase.BAKING, *ROLLED_BACK)


@pytest.mark.parametrize("how", [Scrape.SILENT, Scrape.FAILS])
def test_a_weight_never_rises_on_dead_data(how: Scrape) -> None:
    world = blind(started("pinn:2", spec=steps((10, 150), (50, 60), (100, 60))))
    world.run_until(lambda it: it.weight == 10).run(60, tick=1)
    world.prometheus.outcome = lambda pod, time: how
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run(240, tick=1)
    assert max(weight for _, weight in world.weights) == 10


def test_what_prometheus_does_not_see_any_more_the_operator_sees_at_the_pods() -> None:
    world = started("pinn:2", spec=steps((10, 30), (100, 300)))
    world.run_until(lambda it: it.weight == 100).run(40, tick=1)
    world.prometheus.outcome = lambda pod, time: Scrape.SILENT
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(gone_bad, at_most=10)


def test_scrapes_that_come_back_let_the_rollout_go_on() -> None:
    world = blind(started("pinn:2"))
    world.run_until(lambda it: it.weight == 50).run(10, tick=1)
    world.prometheus.outcome = lambda pod, time: Scrape.FAILS
    world.run(90, tick=1)
    assert world.weight == 50
    world.prometheus.outcome = lambda pod, time: Scrape.GOOD
    world.until_stable("pinn:2")


def test_a_query_over_the_whole_hold_that_takes_too_long_passes_nothing() -> None:
    world = blind(started("pinn:2", spec=steps((10, 300), (100, 60))))
    world.run_until(lambda it: it.weight == 10)
    world.prometheus.refuses = lambda seconds: seconds > 130
    world.run(420, tick=1)
    assert world.weight == 10
    assert not gone_bad(world)
    world.prometheus.refuses = lambda seconds: False
    world.run_until(lambda it: it.weight == 100, tick=1)


@pytest.mark.parametrize(
    "prometheus",
    [
        Prometheus(interval=15, jitter=2.0),
        Prometheus(interval=15, loss=0.2),
        Prometheus(interval=15, delay=30),
        Prometheus(interval=15, replicas=2),
        Prometheus(interval=60),
        Prometheus(interval=5, copies=lambda pod: 1 + len(pod.name) % 3),
    ],
    ids=["late", "lossy", "behind", "of two replicas", "slow", "doubled"],
)  # fmt: skip
def test_a_good_revision_is_promoted_by_an_unkind_prometheus(prometheus: Prometheus) -> None:
    noisy = Behaviour(errors=lambda _: 0.01)
    world = blind(World(service(), images={"pinn:1": noisy, "pinn:2": noisy}, prometheus=prometheus))
    serving(world).run(60, tick=1)
    world.apply(image="pinn:2")
    world.until_stable("pinn:2", at_most=1800, tick=1)
    assert world.state.last_rollback is None


@pytest.mark.parametrize("interval", [15, 30, 60])
def test_a_canary_that_fails_is_rolled_back_at_every_scrape_interval(interval: float) -> None:
    world = blind(World(service(**steps((10, 600), (100, 60))), prometheus=Prometheus(interval=interval)))
    serving(world).run(2 * interval, tick=1)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10, tick=1).run(4 * interval, tick=1)
    from_now_on(world, "pinn:2", errors=lambda _: 1.0)
    world.run_until(gone_bad, at_most=2.5 * interval + 5, tick=1)


def test_slow_answers_in_a_bake_are_seen_where_scrapes_are_a_minute_apart() -> None:
    world = blind(World(service(**steps((10, 120), (100, 2400))), prometheus=Prometheus(interval=60)))
    serving(world).run(60, tick=1)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 100, at_most=1200, tick=1).run(120, tick=1)
    from_now_on(world, "pinn:2", latency=lambda _: 4.0)
    world.run_until(gone_bad, at_most=900, tick=1)


# --- counters that are not what they seem -----------------------------------------------------------------------------


def test_a_replica_of_prometheus_that_is_behind_is_no_restart_of_a_pod() -> None:
    world = blind(World(service(**steps((10, 600), (100, 60))), prometheus=Prometheus(interval=15, replicas=2)))
    serving(world).run(600, tick=1)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10, tick=1).run(200, tick=1)
    sent = world.requests
    assert world.state.rollout is not None
    assert world.state.rollout.observed_share == pytest.approx(10, abs=4)
    assert gate(world).samples < 0.3 * sent


def test_a_target_that_leaves_takes_nothing_back_and_one_that_comes_adds_nothing() -> None:
    prometheus = Prometheus(copies=lambda pod: 3)
    world = blind(World(service(**steps((10, 300), (100, 60))), prometheus=prometheus))
    serving(world)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10, tick=1).run(60, tick=1)
    before = gate(world).samples
    prometheus.drop("pinn-stable")
    world.run(30, tick=1)
    assert before <= gate(world).samples <= before + 30 * world.rate * 0.2


def test_a_container_that_restarts_takes_nothing_back() -> None:
    world = blind(started("pinn:2", spec=steps((10, 300), (100, 60))))
    world.run_until(lambda it: it.weight == 10, tick=1).run(60, tick=1)
    before = gate(world).samples
    for pod in world.pods:
        if pod.image == "pinn:1":
            pod.restart()
    world.run(20, tick=1)
    assert before <= gate(world).samples <= before + 20 * world.rate * 0.25
    assert not gone_bad(world)


def test_a_restart_of_a_server_that_names_errors_only_once_it_has_had_one_condemns_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported = SimulatedPod.exported

    def used(pod: SimulatedPod, time: float) -> dict[Key, float]:
        return {line: value for line, value in exported(pod, time).items() if value or line[0] != REQUESTS}

    monkeypatch.setattr(SimulatedPod, "exported", used)
    usual = Behaviour(errors=lambda _: 0.006, refused=lambda _: 0.05)
    world = started("pinn:2", spec=steps((50, 3600), (100, 60)), images={"pinn:1": usual, "pinn:2": usual}, rate=20)
    world = blind(world)
    world.run_until(lambda it: it.weight == 50, tick=1).run(600, tick=1)
    world.of("pinn:2")[0].restart()
    world.run(60, tick=1)
    assert not gone_bad(world)
    assert world.weight == 50


def test_pods_that_nobody_lists_count_for_nobody() -> None:
    """Somebody's pod has the canary's name, namespace and labels, and fails every request."""
    world = blind(started("pinn:2", spec=steps((10, 120), (100, 60))))
    world.run_until(lambda it: it.weight == 10)
    assert world.state.canary is not None
    stranger = SimulatedPod(f"eu-options-{world.state.canary.revision}-abc-zz9", "none", "other:1", world.seconds)
    world.strangers.append(stranger)
    for _ in range(60):
        for _ in range(40):
            stranger.serve(world.seconds, "500", 0.004)
        world.run(1, tick=1)
    assert not gone_bad(world)
    assert gate(world).canary == 0


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["429", "400", "404", "307"])
def test_a_canary_that_refuses_what_stable_answers_is_rolled_back(status: str) -> None:
    images = {"pinn:2": Behaviour(refused=lambda _: 0.6, refused_status=status)}
    world = started("pinn:2", images=images, spec=steps((10, 120), (100, 60)))
    world.run_until(lambda it: it.weight == 10)
    world.run_until(gone_bad, at_most=60, tick=1)


@pytest.mark.parametrize("status", ["429", "400", "404"])
def test_refusals_that_both_revisions_give_roll_nothing_back(status: str) -> None:
    refusing = Behaviour(refused=lambda _: 0.4, refused_status=status)
    world = started("pinn:2", images={"pinn:1": refusing, "pinn:2": refusing})
    world.until_stable("pinn:2")


def test_a_canary_that_swallows_its_requests_gets_none() -> None:
    world = started("pinn:2", images={"pinn:2": Behaviour(swallowed=lambda _: 1.0)}, spec=steps((10, 600), (100, 60)))
    world.run_until(lambda it: it.weight == 10)
    world.run_until(lambda it: it.weight == 0, at_most=120, tick=1)
    assert world.state.rejected is None, "nobody knows whether the revision or the way to it is at fault"


def test_one_answer_in_ten_that_is_slow_is_seen_within_seconds() -> None:
    world = started("pinn:2", rate=30, seed=2, spec=steps((10, 600), (100, 9)))
    world.run_until(lambda it: it.weight == 10).run(60, tick=1)
    from_now_on(world, "pinn:2", slow=lambda _: 0.1)
    world.run_until(gone_bad, at_most=40)


@pytest.mark.parametrize("sources", [["Pods"], ["Prometheus"], ["Prometheus", "Pods"]], ids="+".join)
def test_a_single_step_of_all_traffic_is_judged_by_what_stable_did_before(sources: list[str]) -> None:
    """Whose newest sample is up to 15 s old when the weight is written, where only Prometheus is asked."""
    analysis = {"intervalSeconds": 10, "abortIntervalSeconds": 2, "sources": sources}
    images = {"pinn:2": Behaviour(errors=lambda _: 1.0)}
    spec = service(**steps((100, 600)), analysis=analysis)
    world = World(spec, images=images, prometheus=Prometheus(interval=15))
    serving(world).run(60, tick=1)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 100)
    world.run_until(gone_bad, at_most=40 if sources == ["Prometheus"] else 15)


@pytest.mark.parametrize("path", ["/ready", "/v1/health"])
def test_the_probes_that_the_team_set_are_no_traffic(path: str) -> None:
    probes = {name: {"path": path} for name in ("readiness", "liveness", "startup")}
    world = World(service(probes=probes), rate=0)

    def dress(pod: SimulatedPod) -> None:
        pod.probes = (path,)

    world.dress = dress
    serving(world).apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(120, tick=1)
    assert world.weight == 10
    assert gate(world).samples == 0


def test_requests_without_a_status_that_can_be_read_pass_nothing_and_the_labels_are_named() -> None:
    def own(line: Key) -> Key:
        return line[0], tuple(("code" if name == "status" else name, value) for name, value in line[1])

    def dress(pod: SimulatedPod) -> None:
        pod.rename = own

    world = World(service())
    world.dress = dress
    serving(world).apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(120, tick=1)
    assert world.weight == 10
    assert gate(world).verdict == "Error"
    assert "code" in gate(world).message
    assert "status" in gate(world).message


def test_it_is_said_that_a_native_histogram_is_not_read() -> None:
    world = blind(World(service(), prometheus=Prometheus(native=True)))
    serving(world).apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(50, tick=1)
    latency = gate(world, "latency-p95")
    assert latency.verdict == "NotApplicable"
    assert "native histograms are not read" in latency.message


# --- a reference that varies ------------------------------------------------------------------------------------------


def test_a_rate_of_errors_that_varies_for_both_revisions_is_no_fault_in_the_bake() -> None:
    """Every other minute both fail 2.5 % instead of 0.1 %; the bake has no stable revision to compare with."""
    varying = Behaviour(errors=lambda t: 0.025 if t % 120 < 60 else 0.001)
    spec = {
        **steps((10, 240), (50, 240), (100, 300)),
        "analysis": {"gates": [{"name": "error-rate", "advance": {"below": "0.05"}}]},
    }
    world = started("pinn:2", images={"pinn:1": varying, "pinn:2": varying}, rate=60, spec=spec)
    world.until_stable("pinn:2", at_most=1000, tick=1)


def test_a_pod_that_shares_the_load_is_in_the_selector_of_the_scale() -> None:
    world = started("pinn:2").run_until(lambda it: it.weight == 50).run(5)
    wanted = dict(part.split("=", 1) for part in world.state.selector.split(","))
    templates = [
        it["spec"]["template"]["metadata"]["labels"] for key, it in world.objects.items() if key[0] == "Deployment"
    ]
    assert len(templates) == 2
    assert all(wanted.items() <= labels.items() for labels in templates)


def test_clients_that_all_ask_for_one_kind_of_option_reject_no_revision_in_the_bake() -> None:
    gate = {"name": "prediction-spread", "abort": {"below": "0.05", "forSeconds": 20}}
    analysis = {"intervalSeconds": 10, "abortIntervalSeconds": 2, "gates": [gate]}
    world = started("pinn:2", spec={"analysis": analysis, **steps((10, 40), (100, 60))})
    world.until_stable("pinn:2")


def test_an_operator_that_reads_pods_alone_forgets_nothing_however_often_it_is_restarted() -> None:
    images = {image: Behaviour() for image in ("pinn:1", "pinn:2")}
    spec = service(**steps((10, 900), (100, 60)), analysis={"sources": ["Pods"]})
    world = serving(World(spec, images=images, rate=30)).run(60)
    world.apply(image="pinn:2")
    world.run_until(lambda it: it.weight == 10).run(30)
    for _ in range(3):
        world.operator_up = False
        world.run(3)
        world.operator_up = True
        world.run(60)
    answered = sum(sum(pod.requests) for pod in world.of("pinn:2"))
    # Lost is what came after the last write of a status, every `intervalSeconds`, and while nobody looked.
    assert gate(world).samples >= 0.7 * answered
