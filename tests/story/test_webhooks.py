"""A rollout with a webhook as a gate: what it says lets the revision rise, holds it, or rolls it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from pinn_operator.core.samples import (
    AnyAnswer,
    Question,
    Samples,
    SourceError,
    WebhookAnswer,
    WebhookQuestion,
    WebhookVerdict,
)
from pinn_operator.core.status.values import Phase, Verdict
from tests.story.world import World, service, serving

HOOK = {"name": "desk-checks", "webhook": {"url": "https://checks.example.com/canary"}}
Says = Callable[[WebhookQuestion, float], WebhookVerdict | SourceError]


class Asked(World):
    """A world with a webhook that is asked as often as the operator asks: `says(question, seconds)`."""

    says: Says = staticmethod(lambda _question, _seconds: WebhookVerdict.PASS)

    def _answers(self, questions: Iterable[Question]) -> Samples:
        asked = list(questions)
        samples: dict[str, AnyAnswer] = dict(super()._answers(asked))
        for question in asked:
            if isinstance(question, WebhookQuestion):
                samples[question.key] = self._webhook(question)
        return samples

    def _webhook(self, question: WebhookQuestion) -> AnyAnswer:
        kept: dict[str, Any] = self.__dict__.setdefault("kept", {})
        old = kept.get("answer") if kept.get("question") == question else None
        if old is not None and (self.now - kept["time"]).total_seconds() < question.interval:
            answer: AnyAnswer = old
            return answer
        said = self.says(question, self.seconds)
        found: AnyAnswer
        if isinstance(said, SourceError):
            found = said
        else:
            same = isinstance(old, WebhookAnswer) and old.verdict is said
            found = WebhookAnswer(
                said, time=self.now, since=self.now, count=old.count + 1 if same and old is not None else 1,
                message="the desk says so",
            )  # fmt: skip
        kept.update(question=question, answer=found, time=self.now)
        return found


def rollout(says: Says, **gate: Any) -> Asked:
    analysis = {"intervalSeconds": 10, "abortIntervalSeconds": 2, "gates": [{**HOOK, **gate}]}
    world = Asked(service(analysis=analysis), rate=20.0)
    world.says = says  # type: ignore[method-assign]
    serving(world).apply(image="pinn:2")
    return world


def gate_of(world: World) -> tuple[Verdict, str]:
    assert world.state.rollout is not None
    [gate] = [gate for gate in world.state.rollout.gates if gate.name == "desk-checks"]
    return gate.verdict, gate.message


def test_a_webhook_that_passes_lets_a_good_revision_through() -> None:
    seen: list[tuple[int, int]] = []

    def says(question: WebhookQuestion, _: float) -> WebhookVerdict:
        seen.append((question.step, question.weight))
        return WebhookVerdict.PASS

    rollout(says).until_stable("pinn:2", tick=2.0)
    assert sorted(set(seen)) == [(1, 10), (2, 50), (3, 100)]


def test_a_webhook_that_fails_rolls_back_in_its_words() -> None:
    world = rollout(lambda question, _: WebhookVerdict.FAIL if question.weight == 50 else WebhookVerdict.PASS)
    world.run_until(lambda it: it.state.phase is Phase.ROLLED_BACK, at_most=600, tick=1.0)
    rollback = world.state.last_rollback
    assert rollback is not None
    assert (rollback.reason, rollback.gate, rollback.weight) == ("DeskChecksOutOfBounds", "desk-checks", 50)
    assert "the desk says so" in rollback.message
    assert world.weight == 0


def test_two_fails_in_a_row_are_two_answers_and_not_two_looks() -> None:
    said: list[float] = []

    def says(_: WebhookQuestion, seconds: float) -> WebhookVerdict:
        said.append(seconds)
        return WebhookVerdict.FAIL

    world = rollout(says, abort={"consecutive": 2})
    world.run_until(lambda it: it.state.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK), at_most=300)
    assert len(said) == 2
    assert said[1] - said[0] >= 10


def test_a_single_fail_between_passes_is_forgiven_where_two_are_wanted() -> None:
    count = iter(range(10_000))
    world = rollout(
        lambda *_: WebhookVerdict.FAIL if next(count) % 3 == 1 else WebhookVerdict.PASS, abort={"consecutive": 2}
    )
    world.until_stable("pinn:2", at_most=900, tick=2.0)


def test_a_webhook_that_holds_keeps_the_weight_and_rolls_nothing_back() -> None:
    open_at = 240.0
    world = rollout(lambda _, seconds: WebhookVerdict.HOLD if seconds < open_at else WebhookVerdict.PASS)
    world.run_until(lambda it: it.seconds >= open_at - 20, at_most=500, tick=2.0)
    assert world.weight == 10
    assert world.state.last_rollback is None
    assert gate_of(world) == (Verdict.COLLECTING, "the desk says so")
    world.until_stable("pinn:2", at_most=900, tick=2.0)


@pytest.mark.parametrize("words", ["the webhook did not answer: HTTP 503 (3 attempts)", "the answer is not JSON"])
def test_a_webhook_that_answers_nothing_holds_and_is_no_fault_of_the_revision(words: str) -> None:
    down = (60.0, 300.0)
    world = rollout(lambda _, now: SourceError(words) if down[0] < now < down[1] else WebhookVerdict.PASS)
    world.run_until(lambda it: it.seconds >= down[1] - 20, at_most=900, tick=2.0)
    assert world.state.last_rollback is None
    assert gate_of(world) == (Verdict.ERROR, words)
    assert world.weight in (10, 50)
    world.until_stable("pinn:2", at_most=900, tick=2.0)


@pytest.mark.parametrize("gate", [{"dryRun": True}, {"action": "Warn"}], ids=["dry run", "warning"])
def test_a_gate_that_only_reports_shows_its_fail_and_does_nothing(gate: dict[str, Any]) -> None:
    world = rollout(lambda *_: WebhookVerdict.FAIL, **gate)
    world.run_until(lambda it: it.state.phase is Phase.PROGRESSING and it.weight == 50, at_most=300).run(20)
    assert gate_of(world)[0] is Verdict.FAIL
    world.until_stable("pinn:2", at_most=900, tick=2.0)


def test_the_webhook_is_never_asked_about_what_has_no_weight() -> None:
    weights: set[int] = set()

    def says(question: WebhookQuestion, _: float) -> WebhookVerdict:
        weights.add(question.weight)
        return WebhookVerdict.PASS

    world = rollout(says).until_stable("pinn:2", tick=2.0)
    assert 0 not in weights
    later = world.now + timedelta(seconds=60)
    weights.clear()
    world.run_until(lambda it: it.now >= later)
    assert weights == set()
