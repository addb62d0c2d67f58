"""Shares of counters: of all that was counted, how much was good or bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pinn_operator.core.gates.comparison import compared, in_words, last_minute, share_outside, window_of
from pinn_operator.core.gates.families import (
    Answers,
    Family,
    Slice,
    WarmUp,
    age_of,
    expression,
    questions,
    requests_family,
    stale,
)
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.samples import FAMILY_LABEL, Question, SourceError
from pinn_operator.core.wanted.spec import Gate, MetricNames

Classes = tuple[str, ...]
COUNTED: Final = "counted"


def counters(first: str, second: str, *, warm_up: WarmUp | None = None) -> Family:
    """Two counters as one family, its classes their names."""
    return Family(
        first, classify=lambda labels: labels.get(FAMILY_LABEL),
        slices=(Slice("", labels={FAMILY_LABEL: first}), Slice(second, labels={FAMILY_LABEL: second}, sample=second)),
        sparse=True, warm_up=warm_up,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CounterShare:
    """The share of the classes `part` in the classes `total`; both by the names that the resource gives its metrics.

    `unit` is what is counted, in the plural: lookups, options.
    """

    family: Callable[[MetricNames], Family]
    part: Callable[[MetricNames], Classes]
    total: Callable[[MetricNames], Classes]
    unit: str

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """Both counters; and the requests, whose moments are theirs too."""
        del gate
        return questions([requests_family(scope), self.family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """A share, its bound and, where the gate asks for it, the comparison with stable."""
        names = scope.analysis.names
        family, part, total = self.family(names), self.part(names), self.total(names)
        found = answers.find(family)
        if found.fast is None or found.whole is None:
            return found.error or Evidence()
        if found.absent:
            return Evidence(absent=" and ".join((family.sample, *(it.sample for it in family.slices[1:]))))
        whole = found.whole.windows.whole
        window = window_of(whole, total, part, concurrent=scope.concurrent) if whole else None
        minute = last_minute(found.fast, total, part)
        worse = compared(gate, found.fast, found.whole, total, part, scope, None)
        samples = window.canary.total if window else 0.0
        warming = samples <= 0 and family.warm_up is not None
        return Evidence(
            value=window.canary.share if window else None,
            stable=window.stable.share if window else None,
            samples=samples,
            stable_samples=window.stable.total if window else 0.0,
            recent=minute.share,
            exceeded=share_outside(gate.abort, minute),
            worse=in_words(worse) if worse and worse.worse else None,
            mounting=worse is not None and worse.mounting,
            more_requests=worse.more_requests if worse else None,
            age=age_of(found.fast, scope),
            source=found.whole.source,
            query=expression(family, scope),
            collecting=f"warming up: no {self.unit} counted yet" if warming else "",
            held=stale(found.fast, scope),
        )
