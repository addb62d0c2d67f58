"""Prediction spread: the standard deviation of the prices a revision quotes, each divided by its strike.

A model that has collapsed gives nearly the same price whatever it is asked; clients notice that last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pinn_operator.core.gates.comparison import FEW, own_options
from pinn_operator.core.gates.evidence import Reference
from pinn_operator.core.gates.families import (
    Answers,
    Family,
    Readings,
    Slice,
    age_of,
    expression,
    questions,
    requests_family,
    stale,
)
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.shares import by_name
from pinn_operator.core.gates.windows import Part, Span
from pinn_operator.core.samples import FAMILY_LABEL, Question, SourceError
from pinn_operator.core.wanted.spec import Gate, MetricNames


def moments_family(names: MetricNames) -> Family:
    """Count, sum and sum of squares of price ÷ strike."""
    samples = (names.price_count, names.price_sum, names.price_squares)
    return Family(
        names.price_count, classify=by_name, sparse=True,
        slices=tuple(Slice(sample if index else "", labels={FAMILY_LABEL: sample}, sample=sample)
                     for index, sample in enumerate(samples)),
    )  # fmt: skip


class PredictionSpread:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The moments; and the requests, whose moments in time are theirs too."""
        del gate
        return questions([requests_family(scope), moments_family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """Of all options priced at this weight."""
        names = scope.analysis.names
        family = moments_family(names)
        found = answers.readings(family)
        if not isinstance(found, Readings):
            return found
        whole, bound = found.whole.windows.whole, gate.abort
        value = _deviation(whole.canary, names) if whole else None
        samples = _sum(whole.canary, names.price_count) if whole else 0.0
        spread, stable_samples = _of_stable(gate, whole, scope)
        exceeded = None
        if bound and bound.below is not None and value is not None and samples >= gate.min_samples:
            # Clients that all ask for one kind of option spread little, whatever answers them: stable's spread tells.
            exceeded = value < bound.below and (spread is None or spread >= bound.below)
        return Evidence(
            value=value,
            stable=spread,
            samples=samples,
            own=own_options(whole, scope.own).total if whole else 0.0,
            stable_samples=stable_samples,
            recent=value,
            exceeded=exceeded,
            age=age_of(found.fast, scope),
            source=found.whole.source,
            query=expression(family, scope),
            held=stale(found.fast, scope),
            present=Reference(stable_samples, spread * stable_samples)
            if spread is not None and stable_samples
            else None,
        )


def _of_stable(gate: Gate, whole: Span | None, scope: Scope) -> tuple[float | None, float]:
    """Stable's spread and the options that it rests on: of the same time, or of the last time when it had traffic."""
    names = scope.analysis.names
    if whole is not None and scope.concurrent:
        return _deviation(whole.stable, names), _sum(whole.stable, names.price_count)
    old = scope.earlier.get(gate.name)
    if old is not None and old.reference_total >= FEW:
        return old.reference_bad / old.reference_total, 0.0
    return None, 0.0


def _sum(parts: Sequence[Part], name: str) -> float:
    return sum(part.count((name,)) for part in parts)


def _deviation(parts: Sequence[Part], names: MetricNames) -> float | None:
    count = _sum(parts, names.price_count)
    if count < 2:
        return None
    mean = _sum(parts, names.price_sum) / count
    return float(max(0.0, _sum(parts, names.price_squares) / count - mean * mean) ** 0.5)
