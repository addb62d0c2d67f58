"""Latency quantiles, from the histogram of the pricing requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf, log

from pinn_operator.core.gates.apart import looks_apart, remainder
from pinn_operator.core.gates.comparison import (
    budget_of,
    clustering,
    compared,
    in_words,
    last_minute,
    minutes_before,
    stable_is_outside,
    with_comparison,
)
from pinn_operator.core.gates.evidence import Comparison, exceeds_limit
from pinn_operator.core.gates.families import (
    Answers,
    Family,
    Reading,
    Readings,
    WarmUp,
    age_of,
    expression,
    questions,
    requests_family,
    stale,
)
from pinn_operator.core.gates.histogram import ALL, Histogram, bound_of, histogram_of
from pinn_operator.core.gates.metric import Apart, Evidence, Lateness, Scope
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Bound, Gate, MetricNames

ASKED = 0.2
"""The part of a gate's probability to reject a good revision that is spent on what clients and the operator got
together; the rest on what clients got alone."""


def latency_family(names: MetricNames) -> Family:
    """Buckets of the histogram, by their upper bound."""
    return Family(f"{names.latency}_bucket", ("le",), bound_of, sparse=True, warm_up=WarmUp(10, 10.0, (ALL,)))


@dataclass(frozen=True, slots=True)
class Latency:
    """The `quantile` of the time that pricing requests take, in seconds."""

    quantile: float

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The buckets; and the requests, whose moments are those of the buckets too."""
        del gate
        return questions([requests_family(scope), latency_family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """The q-quantile is above L exactly if more than 1 − q of the requests took longer than L: a rate again."""
        family = latency_family(scope.analysis.names)
        found = answers.readings(family, absent=f"{family.sample}; native histograms are not read")
        if not isinstance(found, Readings):
            return found
        canary, stable, minute, beside = _histograms(found.fast, found.whole, scope)
        bound = self._slow_from(gate, found, canary, stable)
        worse = _compared(gate, found, bound, scope) if bound is not None else None
        evidence = Evidence(
            value=canary.quantile(self.quantile),
            apart=self._apart(gate, found.whole, canary, scope),
            stable=stable.quantile(self.quantile),
            samples=canary.total,
            stable_samples=stable.total,
            recent=minute.quantile(self.quantile),
            exceeded=self._exceeded(gate.abort, minute, beside),
            alone=not scope.concurrent,
            slower_than=gate.abort.above if gate.abort is not None and not scope.concurrent else None,
            age=age_of(found.fast, scope),
            source=found.whole.source,
            query=expression(family, scope),
            held=stale(found.fast, scope),
            lateness=_lateness(gate, found, worse, bound, scope),
        )
        return _named(with_comparison(evidence, worse), worse, bound)

    def _exceeded(self, bound: Bound | None, minute: Histogram, beside: Histogram) -> bool | None:
        """Not told while stable is outside the bound in the same minute: see `outside_abort`."""
        if bound is None or bound.above is None or minute.total <= 0:
            return None
        limit = 1 - self.quantile
        found = exceeds_limit(minute.slower_than(bound.above), limit=limit)
        return None if found and stable_is_outside(Bound(above=limit), beside.slower_than(bound.above)) else found

    def _apart(self, gate: Gate, reading: Reading, canary: Histogram, scope: Scope) -> Apart | None:
        """The quantile without the stretches in which too many of stable's answers took longer than the bound too."""
        limit, value = gate.advance.below if gate.advance is not None else None, canary.quantile(self.quantile)
        if limit is None or value is None or value < limit or not looks_apart(scope):
            return None
        slow = (ALL, f"-{canary.bound_at_least(limit):g}")
        left = remainder(reading, (ALL,), slow, limit=1 - self.quantile)
        if left is None:
            return None
        rest = histogram_of(left.parts)
        return Apart(rest.quantile(self.quantile), rest.total, left.note)

    def _slow_from(self, gate: Gate, found: Readings, canary: Histogram, stable: Histogram) -> float | None:
        """Requests that take `ratio` times stable's quantile are slow; their shares are compared.

        Latency depends on the load of the moment: only the stable revision of the same moment tells how slow is slow,
        so during the bake nothing is compared here.
        """
        relative, usual = gate.relative, stable.quantile(self.quantile)
        if relative is None or usual is None or not canary.buckets:
            return None
        bound = canary.bound_at_least(max(relative.ratio * usual, relative.floor))
        if bound == inf:
            return None
        tracks = (track for reading in (found.fast, found.whole) for track in (*reading.canary, *reading.stable))
        if not all(f"{bound:g}" in track.columns.of for track in tracks):
            return None
        return bound


def _compared(gate: Gate, found: Readings, bound: float, scope: Scope) -> Comparison | None:
    slow = (ALL, f"-{bound:g}")
    before = (lambda: minutes_before(found.whole, scope, (ALL,), slow)) if scope.concurrent else None
    return compared(gate, found.fast, found.whole, (ALL,), slow, scope, before, part=1 - ASKED, slow=True)


def _named(evidence: Evidence, worse: Comparison | None, bound: float | None) -> Evidence:
    """With what was slow in words: a quantile of the last minute says nothing of the window that condemns."""
    if worse is None or worse.window is None or bound is None:
        return evidence
    canary, stable = worse.window.canary.share or 0.0, worse.window.stable.share or 0.0
    shares = f"{canary:.1%} longer than {bound:g} s", f"stable {stable:.1%}"
    return replace(evidence, worse=_slow_in_words(worse, bound) if evidence.worse else None, worse_shares=shares)


def _slow_in_words(found: Comparison, bound: float) -> str:
    return f"longer than {bound:g} s took {in_words(found) if found.window is not None else 'none'}"


def _lateness(
    gate: Gate, found: Readings, worse: Comparison | None, bound: float | None, scope: Scope
) -> Lateness | None:  # fmt: skip
    if worse is None or bound is None or gate.relative is None or not scope.concurrent:
        return None
    evidence, needed, words = worse.log_evidence, worse.needed, _slow_in_words(worse, bound)
    without = budget_of(gate, scope, 1 - ASKED).whole()
    if evidence - needed < -without:
        # A recent window that says little needs much: then less is needed if clients are not heard at all.
        evidence, needed = 0.0, without
    asked = scope.own_slow[0].total > 0
    clusters = clustering(found.whole.stable, (ALL,), (ALL, f"-{bound:g}")) if asked else 1.0
    return Lateness(bound, evidence, needed + log((1 - ASKED) / ASKED), words, max(1.0, clusters), gate.relative)


def _histograms(
    fast: Reading, whole: Reading, scope: Scope
) -> tuple[Histogram, Histogram, Histogram, Histogram]:  # fmt: skip
    """Of the canary and of stable over the whole time, and over the canary's last minute. All quantiles need the
    same."""
    span, minute = whole.windows.whole, last_minute(fast, scope)
    return (
        whole.memo.once("canary", lambda: histogram_of(span.canary)) if span else Histogram(),
        whole.memo.once("stable", lambda: histogram_of(span.stable)) if span and scope.concurrent else Histogram(),
        minute.memo.once("canary", lambda: histogram_of(minute.canary)),
        minute.memo.once("stable", lambda: histogram_of(minute.stable)),
    )
