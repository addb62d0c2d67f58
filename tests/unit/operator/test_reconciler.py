"""The order of a pass, and what it does when something fails. What is decided is `core.decide`'s own matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pinn_operator import reconciler as module
from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Action, Apply, Decision, Delete, Event, ResetCaches, Transition
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.observed import Observed, Pod
from pinn_operator.core.samples import (
    AnyAnswer,
    PodQuestion,
    PodReadFault,
    Query,
    Question,
    Samples,
    SourceError,
)
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.json import status_to_manifest
from pinn_operator.core.status.values import Announcement, EventType, Phase, Status
from pinn_operator.kube.errors import ApiError, Conflict, Forbidden, NotOwned, Unreachable
from pinn_operator.reconciler import ACT_FAILED, NAME_TAKEN, PODS_IN_LOOP, Outcome, Pace, Reconciler
from pinn_operator.telemetry import Telemetry

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
STABLE = Status(phase=Phase.STABLE, observed_generation=1)
ADVANCED = Event(EventType.NORMAL, "Advanced", "weight 10 → 50")
FIRST = Apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "eu-a"}})
SECOND = Apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "eu"}})
LAST = Delete("apps/v1", "Deployment", "eu-b")


def refusal(kind: type[ApiError], status: int) -> ApiError:
    return kind(status, kind.__name__, "because", request="PATCH /x")


@dataclass
class FakeCluster:
    """Does what it is told, notes what it did, and fails where a test wants it to."""

    manifest: Manifest | None = field(
        default_factory=lambda: {
            "metadata": {"name": "eu", "namespace": "pricing", "uid": "u-1", "generation": 1, "resourceVersion": "7"},
            "spec": {"image": "x:1"},
        }
    )
    done: list[str] = field(default_factory=list)
    pods: tuple[Pod, ...] = ()
    failing: dict[str, list[Exception]] = field(default_factory=dict)
    told: list[Event] = field(default_factory=list)
    missing: list[tuple[Event, datetime]] = field(default_factory=list)

    async def read(self, namespace: str, name: str) -> Manifest | None:
        self._note("read")
        return self.manifest

    async def observe(self, resource: Resource) -> Observed:
        self._note("observe")
        return Observed(pods=self.pods)

    async def commit_status(self, resource: Resource, status: Status) -> None:
        self._note("commit")

    async def act(self, resource: Resource, action: Action) -> None:
        self._note(
            f"delete {action.name}" if isinstance(action, Delete) else f"apply {action.manifest['metadata']['name']}"
        )

    async def emit(self, resource: Resource, event: Event) -> None:
        self._note(f"tell {event.reason}")
        self.told.append(event)

    async def emit_missing(self, resource: Resource, event: Event, time: datetime) -> None:
        self._note(f"tell {event.reason} if missing")
        self.missing.append((event, time))

    def _note(self, what: str) -> None:
        self.done.append(what)
        failures = self.failing.get(what)
        if failures:
            raise failures.pop(0)


@dataclass
class FakeSource:
    answers: dict[str, AnyAnswer] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    resets: list[ResetCaches] = field(default_factory=list)
    faults: tuple[PodReadFault, ...] = ()

    async def ask(self, situation: Situation, questions: Sequence[Question]) -> dict[str, AnyAnswer]:
        self.asked.append(tuple(question.key for question in questions))
        return {question.key: self.answers[question.key] for question in questions}

    def gone(self, namespace: str, name: str) -> None:
        self.left.append((namespace, name))

    async def reset(self, action: ResetCaches, situation: Situation) -> tuple[PodReadFault, ...]:
        self.resets.append(action)
        return self.faults


@dataclass
class World:
    cluster: FakeCluster
    telemetry: Telemetry
    slept: list[float]
    reconciler: Reconciler
    samples: list[Samples]
    decide: Callable[[Decision], None]
    ask: Callable[[Sequence[Question]], None]
    pods: FakeSource
    prometheus: FakeSource

    async def once(self) -> Any:
        return await self.reconciler.once("pricing", "eu")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    cluster, telemetry = FakeCluster(), Telemetry()
    slept: list[float] = []
    samples: list[Samples] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def decide_as(decision: Decision) -> None:
        def decide(situation: Situation, given: Samples, now: datetime) -> Decision:
            samples.append(given)
            return replace(decision, status=situation.resource.status) if decision.status is SAME else decision

        monkeypatch.setattr(module, "decide_in", decide)

    def ask(queries: Sequence[Question]) -> None:
        monkeypatch.setattr(module, "due", lambda situation, now: tuple(queries))

    pods, prometheus = FakeSource(), FakeSource()
    reconciler = Reconciler(
        cluster=cluster, telemetry=telemetry, pace=Pace(resync=1000), now=lambda: NOW, sleep=sleep,
        sources={Query: prometheus, PodQuestion: pods}, resetter=pods,
    )  # fmt: skip
    ask(())
    return World(cluster, telemetry, slept, reconciler, samples, decide_as, ask, pods, prometheus)


SAME = Status(reason="stands for the status that was read")


async def test_the_status_is_committed_before_anything_is_done_and_told_last(world: World) -> None:
    world.decide(Decision(status=STABLE, actions=(FIRST, SECOND, LAST), events=(ADVANCED,)))
    result = await world.once()
    order = ["read", "observe", "commit", "apply eu-a", "apply eu", "delete eu-b", "tell Advanced"]
    assert world.cluster.done == order
    assert result.outcome is Outcome.COMMITTED


async def test_a_pass_without_news_writes_nothing(world: World) -> None:
    world.decide(Decision(status=SAME))
    result = await world.once()
    assert world.cluster.done == ["read", "observe"]
    assert result.outcome is Outcome.QUIET
    assert 800 <= result.delay <= 1200


async def test_others_go_on_while_a_resource_of_very_many_pods_is_decided(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.pods = tuple(
        Pod(f"eu-a-x-{number}", "a", NOW, "Running", ready=True) for number in range(PODS_IN_LOOP + 1)
    )
    went_on = threading.Event()

    def decide(situation: Situation, samples: Samples, now: datetime) -> Decision:
        assert went_on.wait(20), "the loop stood still"
        return Decision(status=situation.resource.status)

    monkeypatch.setattr(module, "decide_in", decide)

    async def other() -> None:
        went_on.set()

    result, _ = await asyncio.gather(world.once(), other())
    assert result.outcome is Outcome.QUIET


async def test_nothing_is_told_that_was_not_committed(world: World) -> None:
    world.decide(Decision(status=SAME, events=(ADVANCED,)))
    await world.once()
    assert world.cluster.told == []


async def test_an_edited_object_is_repaired_without_a_commit(world: World) -> None:
    world.decide(Decision(status=SAME, actions=(SECOND,)))
    assert (await world.once()).outcome is Outcome.COMMITTED
    assert world.cluster.done == ["read", "observe", "apply eu"]


async def test_after_a_conflict_everything_is_read_again(world: World) -> None:
    world.decide(Decision(status=STABLE, actions=(FIRST,), events=(ADVANCED,)))
    world.cluster.failing["commit"] = [refusal(Conflict, 409)]
    await world.once()
    assert world.cluster.done == ["read", "observe", "commit"] * 2 + ["apply eu-a", "tell Advanced"]
    assert len(world.slept) == 1


async def test_endless_conflicts_end_the_pass_and_it_is_tried_again_soon(world: World) -> None:
    world.decide(Decision(status=STABLE, actions=(FIRST,)))
    world.cluster.failing["commit"] = [refusal(Conflict, 409) for _ in range(99)]
    result = await world.once()
    assert result.outcome is Outcome.CONFLICT
    assert result.delay < 5
    assert world.cluster.done.count("commit") == 5
    assert "apply eu-a" not in world.cluster.done


async def test_a_write_that_fails_ends_the_writes_because_their_order_is_what_is_safe(world: World) -> None:
    world.decide(Decision(status=STABLE, actions=(FIRST, SECOND, LAST), events=(ADVANCED,)))
    world.cluster.failing["apply eu"] = [refusal(Forbidden, 403)]
    result = await world.once()
    assert result.outcome is Outcome.FAILED
    assert "delete eu-b" not in world.cluster.done
    reasons = [event.reason for event in world.cluster.told]
    assert reasons == ["Advanced", ACT_FAILED], "what was committed is told although a write failed"
    assert "could not apply Service eu" in world.cluster.told[-1].message


async def test_a_name_that_is_taken_is_told_as_such(world: World) -> None:
    world.decide(Decision(status=SAME, actions=(SECOND,)))
    world.cluster.failing["apply eu"] = [NotOwned("Service pricing/eu exists and belongs to another object")]
    await world.once()
    assert [event.reason for event in world.cluster.told] == [NAME_TAKEN]


async def test_an_event_that_cannot_be_told_does_not_fail_the_pass(world: World) -> None:
    world.decide(Decision(status=STABLE, events=(ADVANCED,)))
    world.cluster.failing["tell Advanced"] = [refusal(Forbidden, 403)]
    assert (await world.once()).outcome is Outcome.COMMITTED
    assert world.telemetry.registry.get_sample_value("pinn_operator_events_total", {"outcome": "failed"}) == 1


def committed(world: World, *, ago: timedelta) -> None:
    """The status of the resource as a pass before left it."""
    assert world.cluster.manifest is not None
    time = NOW - ago
    said = Announcement(time, EventType.WARNING, "ErrorRateOutOfBounds", "9d77e0aa was rolled back")
    world.cluster.manifest["status"] = status_to_manifest(replace(STABLE, announcements=(said,)))


async def test_what_a_process_that_died_had_committed_is_told_by_the_next_one_and_once(world: World) -> None:
    committed(world, ago=timedelta(seconds=3))
    world.decide(Decision(status=STABLE, actions=(FIRST,), events=(ADVANCED,)))
    await world.once()
    await world.once()
    rolled_back = Event(EventType.WARNING, "ErrorRateOutOfBounds", "9d77e0aa was rolled back")
    assert world.cluster.missing == [(rolled_back, NOW - timedelta(seconds=3))]
    first_pass = ["read", "observe", "commit", "apply eu-a", "tell ErrorRateOutOfBounds if missing", "tell Advanced"]
    assert world.cluster.done[: len(first_pass)] == first_pass, "traffic first, and news in their order"


async def test_what_was_committed_long_ago_is_not_told_at_a_start(world: World) -> None:
    committed(world, ago=timedelta(hours=1))
    world.decide(Decision(status=SAME))
    await world.once()
    assert world.cluster.missing == []


async def test_what_could_not_be_told_is_told_by_the_next_pass(world: World) -> None:
    world.decide(Decision(status=STABLE, events=(ADVANCED,)))
    world.cluster.failing["tell Advanced"] = [Unreachable("refused")]
    await world.once()
    committed(world, ago=timedelta(seconds=1))
    world.decide(Decision(status=SAME))
    await world.once()
    await world.once()
    assert [event.reason for event, _ in world.cluster.missing] == ["ErrorRateOutOfBounds"]


async def test_an_api_server_that_is_away_is_the_caller_s_to_wait_for(world: World) -> None:
    world.decide(Decision(status=STABLE))
    world.cluster.failing["observe"] = [Unreachable("refused")]
    with pytest.raises(Unreachable):
        await world.once()
    assert "commit" not in world.cluster.done
    labels = {"outcome": "failed"}
    assert world.telemetry.registry.get_sample_value("pinn_operator_passes_total", labels) == 1


async def test_a_resource_that_is_gone_is_not_come_back_to(world: World) -> None:
    world.cluster.manifest = None
    world.decide(Decision(status=STABLE))
    result = await world.once()
    assert (result.outcome, result.delay) == (Outcome.GONE, None)
    assert world.cluster.done == ["read"]


async def test_a_resource_that_is_being_deleted_is_left_alone(world: World) -> None:
    assert world.cluster.manifest is not None
    metadata = {**world.cluster.manifest["metadata"], "deletionTimestamp": "2026-11-21T08:00:00Z"}
    world.cluster.manifest = {**world.cluster.manifest, "metadata": metadata}
    world.decide(Decision(status=STABLE, actions=(FIRST,)))
    assert (await world.once()).outcome is Outcome.GONE
    assert world.cluster.done == ["read"]


@pytest.mark.parametrize(("seconds", "delay"), [(2.0, 2.0), (-30.0, 0.05), (0.0, 0.05)])
async def test_the_next_pass_is_when_it_was_decided_and_never_in_the_past(
    world: World, seconds: float, delay: float
) -> None:
    world.decide(Decision(status=SAME, requeue_at=NOW + timedelta(seconds=seconds)))
    assert (await world.once()).delay == delay


async def test_a_time_far_away_does_not_put_off_the_resync(world: World) -> None:
    world.decide(Decision(status=SAME, requeue_at=NOW + timedelta(days=30)))
    assert (await world.once()).delay <= 1200


async def test_metrics_follow_the_committed_transition(world: World) -> None:
    rolled_back = Transition(kind="rolled_back", revision="9d77e0aa", reason="ErrorRate")
    world.decide(Decision(status=STABLE, transitions=(rolled_back,)))
    world.cluster.failing["commit"] = [refusal(Conflict, 409)]
    await world.once()
    labels = {"namespace": "pricing", "service": "eu", "reason": "ErrorRate"}
    assert world.telemetry.registry.get_sample_value("pinn_operator_rollbacks_total", labels) == 1


# --- kinds of questions ---------------------------------------------------------------------------------------------


async def test_each_kind_of_question_goes_to_its_source(world: World) -> None:
    world.decide(Decision(SAME))
    world.ask([Query("a", "up", NOW), PodQuestion("pods/x", ("x",), ("eu-1",)), Query("b", "up", NOW)])
    world.prometheus.answers = {"a": (), "b": SourceError("no")}
    world.pods.answers = {"pods/x": ()}
    await world.once()
    assert world.samples == [{"a": (), "b": SourceError("no"), "pods/x": ()}]
    assert world.pods.asked == [("pods/x",)]
    assert world.prometheus.asked == [("a", "b")]


async def test_a_source_hears_of_a_pass_that_asks_it_nothing(world: World) -> None:
    world.decide(Decision(SAME))
    await world.once()
    assert world.pods.asked == [()]
    assert world.pods.left == []


@pytest.mark.parametrize("deleted", [True, False], ids=["gone", "being deleted"])
async def test_a_source_hears_of_the_end_of_a_resource(world: World, deleted: bool) -> None:
    assert world.cluster.manifest is not None
    world.cluster.manifest["metadata"]["deletionTimestamp"] = "2026-11-21T08:00:00Z"
    if deleted:
        world.cluster.manifest = None
    await world.once()
    assert world.pods.left == [("pricing", "eu")]


async def test_a_reset_of_caches_is_done_once_with_its_commit_and_told(world: World) -> None:
    action = ResetCaches("a1", "cache-hits", ("eu-a1-1", "eu-a1-2"))
    world.decide(Decision(replace(STABLE, reason="new"), resets=(action,)))
    await world.once()
    assert world.pods.resets == [action]
    text = "gate cache-hits: caches of 2 of 2 pods of a1 were reset"
    assert world.cluster.told == [Event(EventType.NORMAL, "CachesReset", text)]
    world.decide(Decision(SAME, resets=(action,)))
    await world.once()
    assert world.pods.resets == [action]


async def test_pods_whose_caches_could_not_be_reset_are_named(world: World) -> None:
    world.pods.faults = (PodReadFault("eu-a1-2", "no answer within 3 s"),)
    world.decide(
        Decision(replace(STABLE, reason="new"), resets=(ResetCaches("a1", "cache-hits", ("eu-a1-1", "eu-a1-2")),))
    )
    await world.once()
    (event,) = world.cluster.told
    assert (event.type, event.reason) == (EventType.WARNING, "CachesNotReset")
    assert event.message.endswith("1 of 2 pods of a1 were reset; eu-a1-2: no answer within 3 s")
