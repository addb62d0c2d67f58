"""Queries in the background: a pass has the answers of a Prometheus that is quick, and waits for none that is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from pinn_operator.core.api import parse_resource
from pinn_operator.core.observed import Observed
from pinn_operator.core.samples import Answer, Awaited, Query, Series, SourceError
from pinn_operator.core.situation import Situation, situation_of
from pinn_operator.core.status.values import Phase, RevisionStatus, RolloutStatus, Status
from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.prom import asker as module
from pinn_operator.prom.asker import NO_PROMETHEUS, PrometheusAsker
from pinn_operator.telemetry import Telemetry

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
ONE = (Series({}, ((NOW.timestamp(), 1.0),)),)
UP, DOWN = Query("a", "up", NOW), Query("b", "down", NOW)
PATIENCE = 0.05
GATE = {"gates": [{"name": "queue", "query": "up", "abort": {"above": "1"}}]}


@dataclass
class Server:
    """Answers when it is let."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    answers: dict[str, Answer] = field(default_factory=lambda: {"a": ONE, "b": ()})
    asked: list[Query] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    broken: bool = False

    async def source(self, prometheus: Prometheus, namespace: str) -> Server:
        self.namespaces.append(namespace)
        return self

    async def ask(self, query: Query, *, namespace: str = "") -> Answer:
        assert namespace == "pricing"
        self.asked.append(query)
        if self.broken:
            raise RuntimeError("a fault of ours")
        answer = self.answers[query.key]
        await self.open.wait()
        return answer

    async def close(self) -> None: ...


@dataclass
class Bench:
    server: Server
    asker: PrometheusAsker
    woken: list[tuple[str, str]]
    telemetry: Telemetry

    async def late(self) -> None:
        """What is out is answered, some time after the pass went on."""
        self.server.open.set()
        await asyncio.sleep(PATIENCE * 2)
        self.server.open.clear()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    server, woken, telemetry = Server(), list[tuple[str, str]](), Telemetry()
    asker = PrometheusAsker(
        server, wake=lambda namespace, name: woken.append((namespace, name)), observer=telemetry.query
    )
    yield Bench(server, asker, woken, telemetry)
    await asker.close()


@asynccontextmanager
async def without_waiting() -> AsyncIterator[None]:
    """A pass in here that waited for an answer would wait for an hour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PATIENCE", 3600.0)
        async with asyncio.timeout(30):
            yield


def situation(*, weight_time: datetime = NOW, **spec: object) -> Situation:
    manifest = {
        "metadata": {"name": "eu", "namespace": "pricing", "uid": "u-1", "generation": 1, "resourceVersion": "7"},
        "spec": {"image": "x:1", **spec},
    }
    status = Status(
        phase=Phase.PROGRESSING, observed_generation=1, stable=RevisionStatus("a1", "x:0", NOW),
        canary=RevisionStatus("b2", "x:1", NOW),
        rollout=RolloutStatus(start_time=NOW, step_index=0, weight=10, weight_time=weight_time),
    )  # fmt: skip
    return situation_of(replace(parse_resource(manifest), status=status), Observed())


async def test_a_quick_prometheus_is_waited_for_in_the_pass_that_asks(bench: Bench) -> None:
    bench.server.open.set()
    bench.server.answers["b"] = SourceError("no")
    assert await bench.asker.ask(situation(), [UP, DOWN]) == {"a": ONE, "b": SourceError("no")}
    assert bench.woken == []
    assert bench.server.namespaces == ["pricing"]
    value = bench.telemetry.registry.get_sample_value
    assert value("pinn_operator_metric_queries_total", {"outcome": "answered"}) == 1
    assert value("pinn_operator_metric_queries_total", {"outcome": "error"}) == 1


async def test_without_a_query_nothing_is_asked(bench: Bench) -> None:
    assert await bench.asker.ask(situation(), []) == {}
    assert bench.server.namespaces == []


async def test_a_silent_prometheus_is_not_waited_for_and_its_answer_wakes_the_pass_that_has_it(bench: Bench) -> None:
    assert await bench.asker.ask(situation(), [UP]) == {"a": Awaited()}
    async with without_waiting():
        for _ in range(2):
            assert await bench.asker.ask(situation(), [UP]) == {"a": Awaited()}
    assert len(bench.server.asked) == 1, "the same is not asked again while it is out"
    await bench.late()
    assert bench.woken == [("pricing", "eu")]
    assert await bench.asker.ask(situation(), [UP]) == {"a": ONE}


async def test_after_a_late_answer_no_pass_waits_until_one_comes_soon(bench: Bench) -> None:
    await bench.asker.ask(situation(), [UP])
    await bench.late()
    await bench.asker.ask(situation(), [UP])
    async with without_waiting():
        assert await bench.asker.ask(situation(), [UP]) == {"a": Awaited()}
    bench.server.open.set()
    await asyncio.sleep(0)
    await asyncio.sleep(PATIENCE / 5)
    assert await bench.asker.ask(situation(), [UP]) == {"a": ONE}
    assert await bench.asker.ask(situation(), [UP]) == {"a": ONE}, "it is quick again, and waited for"


async def test_one_measurement_is_never_given_twice(bench: Bench) -> None:
    await bench.asker.ask(situation(), [UP])
    await bench.late()
    await bench.asker.ask(situation(), [UP])
    assert await bench.asker.ask(situation(), [UP]) == {"a": Awaited()}
    assert len(bench.server.asked) == 2


async def test_what_was_asked_of_another_weight_or_by_another_gate_is_no_answer(bench: Bench) -> None:
    await bench.asker.ask(situation(), [UP])
    await bench.late()
    later = situation(weight_time=NOW + timedelta(seconds=5))
    assert await bench.asker.ask(later, [UP]) == {"a": Awaited()}
    await bench.late()
    other = situation(weight_time=NOW + timedelta(seconds=5), analysis=GATE)
    assert await bench.asker.ask(other, [UP]) == {"a": Awaited()}


async def test_a_pass_that_needs_more_than_was_asked_has_what_is_there_and_asks_it_all(bench: Bench) -> None:
    await bench.asker.ask(situation(), [UP])
    await bench.late()
    assert await bench.asker.ask(situation(), [UP, DOWN]) == {"a": ONE, "b": Awaited()}
    assert [query.key for query in bench.server.asked] == ["a", "a", "b"]
    await bench.late()
    assert await bench.asker.ask(situation(), [UP, DOWN]) == {"a": ONE, "b": ()}


async def test_an_answer_that_nobody_needs_any_more_is_forgotten(bench: Bench) -> None:
    await bench.asker.ask(situation(), [UP])
    await bench.late()
    await bench.asker.ask(situation(), [])
    assert len(bench.asker) == 0
    assert await bench.asker.ask(situation(), [UP]) == {"a": Awaited()}


async def test_what_a_resource_asked_is_given_up_when_it_is_gone(bench: Bench) -> None:
    await bench.asker.ask(situation(), [UP])
    bench.asker.gone("pricing", "eu")
    await bench.late()
    assert bench.woken == []
    assert len(bench.asker) == 0


async def test_a_fault_of_ours_is_an_error_in_words_and_not_an_endless_wait(bench: Bench) -> None:
    bench.server.broken = True
    answers = await bench.asker.ask(situation(), [UP, DOWN])
    assert answers == dict.fromkeys(("a", "b"), SourceError("Prometheus could not be asked: RuntimeError"))


async def test_without_any_prometheus_a_query_is_answered_with_what_to_do() -> None:
    server = Server()
    asker = PrometheusAsker(server, wake=lambda _namespace, _name: None, has_default=False)
    assert await asker.ask(situation(), [UP]) == {"a": NO_PROMETHEUS}
    assert server.namespaces == []


# --- several batches: the built-in gates together, each custom gate by itself -----------------------------------------


@dataclass
class Slow(Server):
    """Some queries take so many seconds each; the others answer at once."""

    seconds: dict[str, float] = field(default_factory=dict)

    async def ask(self, query: Query, *, namespace: str = "") -> Answer:
        self.asked.append(query)
        await asyncio.sleep(self.seconds.get(query.key, 0.0))
        return ONE


QUEUE, DRIFT = Query("gate/queue", "queue", NOW), Query("gate/drift", "drift", NOW)


@pytest.fixture
async def slow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    server, woken = Slow(), list[tuple[str, str]]()
    yield Bench(server, asker := PrometheusAsker(server, wake=lambda *key: woken.append(key)), woken, Telemetry())
    await asker.close()


async def test_a_custom_query_that_hangs_keeps_no_answer_from_the_other_gates(slow: Bench) -> None:
    assert isinstance(slow.server, Slow)
    slow.server.seconds = {QUEUE.key: 60.0}
    for _ in range(3):
        assert await slow.asker.ask(situation(), [UP, QUEUE, DRIFT]) == {"a": ONE, QUEUE.key: Awaited(), DRIFT.key: ONE}
    assert [query.key for query in slow.server.asked].count(QUEUE.key) == 1, "it is not asked again while it is out"


async def test_beside_a_custom_query_that_hangs_only_the_first_pass_waits(slow: Bench) -> None:
    assert isinstance(slow.server, Slow)
    slow.server.seconds = {QUEUE.key: 60.0}
    await slow.asker.ask(situation(), [UP, QUEUE])
    async with without_waiting():
        for _ in range(3):
            await slow.asker.ask(situation(), [UP, QUEUE])


@pytest.mark.parametrize(
    "seconds", [(2.0, 0.0, 0.0), (0.0, 2.0, 5.0), (3.0, 5.0, 0.0), (3.0, 5.0, 9.0), (9.0, 4.0, 7.0)]
)
async def test_however_slow_each_of_them_is_all_answers_come_together_again_and_again(
    slow: Bench, seconds: tuple[float, float, float]
) -> None:
    """Nothing passes while an answer is awaited, so a rollout goes on only if they meet in one pass."""
    assert isinstance(slow.server, Slow)
    asked = [UP, QUEUE, DRIFT]
    slow.server.seconds = {query.key: factor * PATIENCE for query, factor in zip(asked, seconds, strict=True)}
    together, passes, limit = 0, 0, time.monotonic() + 600 * PATIENCE
    while together < 2 and time.monotonic() < limit:
        answers = await slow.asker.ask(situation(), asked)
        passes += 1
        together += Awaited() not in answers.values()
        await asyncio.sleep(0.7 * PATIENCE)
    assert together == 2, f"{passes} passes"


async def test_an_answer_that_is_kept_for_the_others_is_given_once(slow: Bench) -> None:
    assert isinstance(slow.server, Slow)
    slow.server.seconds = {QUEUE.key: 3 * PATIENCE}
    given = []
    for _ in range(12):
        given.append(await slow.asker.ask(situation(), [UP, QUEUE]))
        await asyncio.sleep(PATIENCE)
    asked = [query.key for query in slow.server.asked].count(QUEUE.key)
    assert 2 <= sum(it[QUEUE.key] == ONE for it in given) <= asked
