"""A webhook as a gate: what each of its answers does to a rollout, and how long a fail must last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pinn_operator.core.gates.judgement import Judgement, judge
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.gates.metrics import metric_of
from pinn_operator.core.samples import AnyAnswer, SourceError, WebhookAnswer, WebhookQuestion, WebhookVerdict
from pinn_operator.core.status.values import GateStatus, Verdict
from pinn_operator.core.wanted.spec import Analysis, Bound, Gate, Profile, Prometheus, SecretKey, Webhook

NOW = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)
HOOK = Webhook("https://checks.example.com/canary", SecretKey("checks", "hmac"), timeout_seconds=3, retries=1)


def gate(abort: Bound | None = None) -> Gate:
    return Gate("checks", webhook=HOOK, abort=abort or Bound())


def said(verdict: WebhookVerdict, *, count: int = 1, message: str = "", value: float | None = None) -> WebhookAnswer:
    return WebhookAnswer(verdict, time=NOW, since=NOW, count=count, message=message, value=value)


def judged(
    wanted: Gate, answer: AnyAnswer | None, *, now: datetime = NOW, previous: tuple[GateStatus, ...] = ()
) -> Judgement:
    scope = Scope(
        name="eu", namespace="pricing",
        analysis=Analysis(Prometheus(), Profile.STANDARD, (wanted,), interval_seconds=30, abort_interval_seconds=2),
        canary=Side("bbbb"), stable=Side("aaaa"), weight=50, start=now - timedelta(seconds=60), now=now,
        in_force=now - timedelta(seconds=60), hold_seconds=60, advance_due=True,
        earlier={it.name: it for it in previous},
    )  # fmt: skip
    # Something else was asked too, or nothing was judged at all.
    return judge(scope, {"other": ()} if answer is None else {"webhook/checks": answer})


@pytest.mark.parametrize(
    ("answer", "verdict", "message"),
    [
        (said(WebhookVerdict.PASS), Verdict.PASS, "pass"),
        (said(WebhookVerdict.PASS, message="all desks agree"), Verdict.PASS, "all desks agree"),
        (said(WebhookVerdict.HOLD, message="the desk is at lunch"), Verdict.COLLECTING, "the desk is at lunch"),
        (said(WebhookVerdict.FAIL, message="drift of 3 %"), Verdict.FAIL, "drift of 3 %"),
        (SourceError("the webhook did not answer: HTTP 503"), Verdict.ERROR, "the webhook did not answer: HTTP 503"),
        (None, Verdict.NO_DATA, "the webhook has not answered yet"),
    ],
)
def test_each_answer(answer: AnyAnswer | None, verdict: Verdict, message: str) -> None:
    judgement = judged(gate(), answer)
    [status] = judgement.gates
    assert status.verdict is verdict
    assert message in status.message
    assert (judgement.condemnation is not None) == (verdict is Verdict.FAIL)


def test_a_fail_condemns_at_once_in_the_words_of_the_webhook() -> None:
    condemned = judged(gate(), said(WebhookVerdict.FAIL, message="drift of 3 %", value=0.03)).condemnation
    assert condemned is not None
    assert (condemned.gate, condemned.reason) == ("checks", "ChecksOutOfBounds")
    assert "drift of 3 %" in condemned.message


def test_answers_are_counted_and_not_the_looks_at_them() -> None:
    wanted, previous = gate(Bound(consecutive=2)), ()
    for look in range(20):
        judgement = judged(wanted, said(WebhookVerdict.FAIL), now=NOW + timedelta(seconds=2 * look), previous=previous)
        previous = judgement.gates
        assert judgement.condemnation is None, look
    assert judged(wanted, said(WebhookVerdict.FAIL, count=2), previous=previous).condemnation is not None


def test_a_fail_must_last_as_long_as_its_bound_says() -> None:
    wanted, previous = gate(Bound(for_seconds=60)), ()
    for second, condemned in ((0, False), (30, False), (59, False), (60, True)):
        now = NOW + timedelta(seconds=second)
        judgement = judged(wanted, said(WebhookVerdict.FAIL, count=9), now=now, previous=previous)
        previous = judgement.gates
        assert (judgement.condemnation is not None) == condemned, second


@pytest.mark.parametrize("verdict", [WebhookVerdict.PASS, WebhookVerdict.FAIL])
def test_an_answer_of_long_ago_neither_passes_nor_fails(verdict: WebhookVerdict) -> None:
    """The webhooks of a namespace wait for each other, and an operator's clock may jump."""
    # Four intervals, and two attempts of 3 s with a pause after each.
    fresh, old = (judged(gate(), said(verdict), now=NOW + timedelta(seconds=after)) for after in (136, 137))
    assert fresh.gates[0].verdict.value.lower() == verdict.value
    assert (old.gates[0].verdict, old.gates[0].message) == (Verdict.NO_DATA, "the webhook's last answer is 137 s old")
    assert old.condemnation is None
    assert not old.all_pass


def test_errors_never_count_against_the_revision() -> None:
    wanted, previous = gate(Bound(consecutive=2)), judged(gate(), said(WebhookVerdict.FAIL)).gates
    for look in range(50):
        now = NOW + timedelta(seconds=2 * look)
        judgement = judged(wanted, SourceError("no answer"), now=now, previous=previous)
        previous = judgement.gates
        assert judgement.condemnation is None
    assert previous[0].verdict is Verdict.ERROR


def test_a_webhook_that_fails_is_not_called_a_query_that_failed() -> None:
    for fault, reason in (
        (SourceError("the webhook did not answer: HTTP 503"), "WebhookFailed"),
        (SourceError("the Secret pricing/checks cannot be read", "CredentialsUnreadable"), "CredentialsUnreadable"),
    ):
        found = judged(gate(), fault).source_error
        assert found is not None
        assert (found.message, found.reason) == (fault.message, reason)


def test_the_webhook_is_asked_what_the_gate_says() -> None:
    judgement_scope = Scope(
        name="eu", namespace="pricing",
        analysis=Analysis(Prometheus(), Profile.STANDARD, (gate(),), interval_seconds=45),
        canary=Side("bbbb"), stable=Side("aaaa"), weight=50, start=NOW, now=NOW, in_force=NOW, hold_seconds=60,
        step=2,
    )  # fmt: skip
    wanted = gate()
    [question] = metric_of(wanted).questions(wanted, judgement_scope)
    assert question == WebhookQuestion(
        "webhook/checks", gate="checks", url="https://checks.example.com/canary", canary="bbbb", stable="aaaa",
        weight=50, step=2, interval=45.0, timeout=3.0, retries=1, secret=("checks", "hmac"),
    )  # fmt: skip
