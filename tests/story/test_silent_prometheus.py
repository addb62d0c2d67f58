"""A Prometheus that takes queries and does not answer: what needs it waits, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pinn_operator.core.samples import AnyAnswer, Awaited, Query, Question, Samples
from pinn_operator.core.status.values import GateStatus, Phase, Verdict
from tests.story.world import Behaviour, World, constant, service, serving

ALL = ("Pods", "Prometheus")


class Silent(World):
    """From `silent_from` until `silent_until` no query whose key begins with `silent_key` is answered."""

    silent_from = 0.0
    silent_until = float("inf")
    silent_key = ""

    def _answers(self, questions: Iterable[Question]) -> Samples:
        asked = list(questions)
        samples: dict[str, AnyAnswer] = dict(super()._answers(asked))
        if self.silent_from <= self.seconds < self.silent_until:
            queries = (it for it in asked if isinstance(it, Query) and it.key.startswith(self.silent_key))
            samples |= {query.key: Awaited() for query in queries}
        return samples


def rollout(
    *, sources: tuple[str, ...] = ALL, gates: tuple[dict[str, Any], ...] = (), silent_key: str = "", **behaviour: Any
) -> Silent:
    analysis: dict[str, Any] = {"intervalSeconds": 5, "sources": list(sources)}
    if gates:
        analysis["gates"] = list(gates)
    world = Silent(service(analysis=analysis), images={"pinn:2": Behaviour(**behaviour)}, rate=60.0)
    world.silent_key = silent_key
    serving(world).apply(image="pinn:2")
    return world


def gate(world: World, name: str) -> GateStatus:
    gates = world.state.rollout.gates if world.state.rollout else ()
    return next((it for it in gates if it.name == name), GateStatus(name, Verdict.NO_DATA))


def test_errors_that_the_pods_show_roll_back_while_prometheus_is_silent() -> None:
    world = rollout(errors=constant(0.5))
    world.run_until(lambda it: it.weight == 10).run_until(lambda it: it.weight == 0, at_most=10)
    assert world.state.last_rollback is not None, world.describe()
    assert world.state.last_rollback.reason.startswith("ErrorRate")


def test_an_out_of_memory_kill_rolls_back_while_prometheus_is_silent() -> None:
    world = rollout(oom_at=20.0)
    world.run_until(lambda it: it.weight == 10).run_until(lambda it: it.weight == 0, at_most=30)
    assert world.state.last_rollback is not None, world.describe()
    assert world.state.last_rollback.reason == "OOMKilled"


@pytest.mark.parametrize("sources", [ALL, ("Prometheus",)], ids=["beside the pods", "alone"])
def test_nothing_passes_before_prometheus_has_answered_and_then_the_rollout_goes_on(sources: tuple[str, ...]) -> None:
    world = rollout(sources=sources)
    world.run_until(lambda it: it.weight == 10).run(120)
    assert (world.state.phase, world.weight) == (Phase.PROGRESSING, 10), world.describe()
    error_rate = gate(world, "error-rate")
    assert error_rate.verdict is Verdict.NO_DATA
    assert error_rate.message == "Prometheus has not answered yet"
    assert world.state.condition("MetricsAvailable") is None, "nothing is known of it yet"
    world.silent_until = world.seconds
    world.until_stable("pinn:2")


QUEUE = {"name": "queue", "query": "sum(queue)", "abort": {"above": "5", "forSeconds": 20}}
DRIFT = {"name": "drift", "query": "sum(drift)", "abort": {"above": "5", "forSeconds": 20}}


def test_a_custom_query_that_hangs_keeps_no_other_gate_from_rolling_back() -> None:
    hangs = {"sources": ("Prometheus",), "gates": (QUEUE, DRIFT), "silent_key": "gate/queue"}
    world = rollout(errors=constant(0.5), **hangs)
    world.run_until(lambda it: it.weight == 10).run_until(lambda it: it.weight == 0, at_most=15)
    assert world.state.last_rollback is not None, world.describe()
    assert world.state.last_rollback.reason.startswith("ErrorRate")
    world = rollout(**hangs)
    world.own["drift"] = lambda _seconds: 9.0
    world.run_until(lambda it: it.weight == 10).run_until(lambda it: it.weight == 0, at_most=30)
    assert world.state.last_rollback is not None, world.describe()
    assert world.state.last_rollback.gate == "drift"


def test_nothing_passes_without_the_custom_query_that_hangs() -> None:
    world = rollout(gates=(QUEUE, DRIFT), silent_key="gate/queue")
    world.own["queue"] = world.own["drift"] = lambda _seconds: 1.0
    world.run_until(lambda it: it.weight == 10).run(120)
    assert (world.state.phase, world.weight) == (Phase.PROGRESSING, 10), world.describe()
    assert gate(world, "queue").verdict is Verdict.NO_DATA
    world.silent_until = world.seconds
    world.until_stable("pinn:2")


def test_a_verdict_that_needs_the_missing_answer_stays_what_it_was() -> None:
    world = rollout(gates=(QUEUE,))
    world.silent_from = float("inf")
    world.own["queue"] = lambda _seconds: 9.0
    world.run_until(lambda it: it.weight == 10).run_until(lambda it: gate(it, "queue").verdict is Verdict.FAIL)
    world.run(4)
    world.silent_from = world.seconds
    commits, kept = world.commits, gate(world, "queue")
    world.run(10)
    assert gate(world, "queue") == kept
    assert world.commits - commits <= 3, "a pass without news writes nothing"
    assert [it.status for it in world.state.conditions if it.type == "MetricsAvailable"] == ["True"]


def test_a_bound_that_every_second_answer_exceeds_is_exceeded_for_as_long_though_the_others_are_empty() -> None:
    world = rollout(gates=(QUEUE,))
    world.silent_from = float("inf")
    turn = iter(range(10**6))
    world.own["queue"] = lambda _seconds: 9.0 if next(turn) % 2 else float("nan")
    world.run_until(lambda it: it.weight == 10).run_until(lambda it: it.weight == 0, at_most=60)
    assert world.state.last_rollback is not None
    assert world.state.last_rollback.gate == "queue"
