"""Custom gates: a team's own PromQL that gives one number."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, isnan, nan

from pinn_operator.core.gates.families import Answers
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.wording import describe, outside
from pinn_operator.core.samples import GATE_KEY, Query, Question, Series, SourceError, series_of
from pinn_operator.core.wanted.spec import Gate


def custom_key(gate: Gate) -> str:
    """The `Query.key` of a custom gate."""
    return f"{GATE_KEY}{gate.name}"


def render(template: str, scope: Scope) -> str:
    """A template with its placeholders (`core.wanted.queries.PLACEHOLDERS`) filled in.

    `{{ canaryPods }}` and `{{ stablePods }}` are regular expressions of the pods' names, for `pod=~"…"`.
    """
    for name, value in values(scope).items():
        template = template.replace("{{ " + name + " }}", value).replace("{{" + name + "}}", value)
    return template


def values(scope: Scope) -> dict[str, str]:
    """What the placeholders stand for."""
    return {
        "canary": scope.canary.revision,
        "stable": scope.stable.revision,
        "name": scope.name,
        "namespace": scope.namespace,
        "window": f"{max(1, round(scope.seconds))}s",
        "canaryPods": f"{scope.name}-{scope.canary.revision}-[^-]+-[^-]+",
        "stablePods": f"{scope.name}-{scope.stable.revision}-[^-]+-[^-]+",
    }


class CustomQuery:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The query as it is written, its placeholders filled in."""
        assert gate.query is not None
        return (Query(custom_key(gate), render(gate.query, scope), scope.now),)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """A value is evidence by itself: how many samples it rests on is the query's business."""
        assert gate.query is not None
        answer = series_of(answers.samples, custom_key(gate))
        if not isinstance(answer, tuple):
            return answer if isinstance(answer, SourceError) else Evidence()
        query = render(gate.query, scope)
        value = single_value(answer)
        if isinstance(value, SourceError):
            return value
        if value is None:
            return Evidence(source="Prometheus", query=query, collecting=_nothing(answer, query))
        return Evidence(
            value=value,
            recent=value,
            enough=True,
            exceeded=outside(gate.abort, value),
            source="Prometheus",
            query=query,
            held="" if isfinite(value) else f"{describe(gate, value)} is no measure: something was divided by 0",
        )


def single_value(answer: tuple[Series, ...]) -> float | SourceError | None:
    """One series, one number. Empty and NaN are no data. ±Inf is beyond any bound on its side; it passes none."""
    if len(answer) > 1:
        return SourceError(f"the query returned {len(answer)} series, it must return one: wrap it in sum() or max()")
    value = answer[0].points[-1][1] if answer and answer[0].points else nan
    return None if isnan(value) else value


def _nothing(answer: tuple[Series, ...], query: str) -> str:
    return f"the query returned {'no number' if answer else 'no series'}: {query}"
