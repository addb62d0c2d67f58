"""Custom gates that are asked over HTTP: a webhook says pass, fail or hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from pinn_operator.core.gates.families import Answers
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.reasons import Reason
from pinn_operator.core.samples import Question, SourceError, WebhookAnswer, WebhookQuestion, WebhookVerdict
from pinn_operator.core.wanted.spec import Gate

SOURCE: Final = "Webhook"
STALE_INTERVALS: Final = 4
"""An answer of longer ago, beside the time that asking may take, says nothing of the present: the webhooks of a
namespace wait for each other."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts, at most."""


def webhook_key(gate: Gate) -> str:
    """The `WebhookQuestion.key` of a gate."""
    return f"webhook/{gate.name}"


class WebhookGate:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The webhook, with what it is to know."""
        hook = gate.webhook
        assert hook is not None
        return (
            WebhookQuestion(
                webhook_key(gate), gate=gate.name, url=hook.url, canary=scope.canary.revision,
                stable=scope.stable.revision, weight=scope.weight, step=scope.step,
                interval=float(scope.analysis.interval_seconds), timeout=float(hook.timeout_seconds),
                retries=hook.retries, secret=(hook.secret.name, hook.secret.key) if hook.secret else None,
            ),
        )  # fmt: skip

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """What it said last. A fail counts as beyond the bound of the gate, with its patience, or else at once."""
        hook = gate.webhook
        assert hook is not None
        answer = answers.samples.get(webhook_key(gate))
        if isinstance(answer, SourceError):
            return replace(answer, reason=answer.reason or Reason.WEBHOOK_FAILED)
        if not isinstance(answer, WebhookAnswer):
            return Evidence(source=SOURCE, query=hook.url, collecting="the webhook has not answered yet")
        age = (scope.now - answer.time).total_seconds()
        asking = (1 + hook.retries) * (hook.timeout_seconds + LONGEST_PAUSE)
        if age > STALE_INTERVALS * scope.analysis.interval_seconds + asking:
            return Evidence(source=SOURCE, query=hook.url, collecting=f"the webhook's last answer is {age:.0f} s old")
        said = answer.message or f"the webhook says {answer.verdict.value}"
        return Evidence(
            value=answer.value, recent=answer.value, source=SOURCE, query=hook.url, said=said, enough=True,
            # It is asked less often than it is looked at.
            exceeded=answer.verdict is WebhookVerdict.FAIL, in_a_row=answer.count,
            held=said if answer.verdict is WebhookVerdict.HOLD else "",
        )  # fmt: skip
