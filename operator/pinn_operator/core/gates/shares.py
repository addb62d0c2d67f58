"""Shares of counters: of all that was counted, how much was good or bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pinn_operator.core.gates.comparison import (
    FEW,
    compared,
    last_minute,
    own_options,
    share_outside,
    window_of,
    with_comparison,
    without,
)
from pinn_operator.core.gates.evidence import Reference, Window
from pinn_operator.core.gates.families import (
    Answers,
    Family,
    Reading,
    Readings,
    Slice,
    WarmUp,
    age_of,
    expression,
    questions,
    requests_family,
    stale,
)
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.wording import describe, inside, outside
from pinn_operator.core.samples import FAMILY_LABEL, Question, SourceError
from pinn_operator.core.verification.questions import NO_QUESTIONS
from pinn_operator.core.wanted.spec import Gate, MetricNames

Classes = tuple[str, ...]
ALIKE: Final = 0.1
"""Shares that differ by less are alike."""
SETTLED_SECONDS: Final = 240.0
SETTLED_COUNT: Final = 800.0
"""Until a warm pod has counted so much or so long, no abort bound is held against it: its cache may still fill."""


def by_name(labels: Mapping[str, str]) -> str | None:
    """The class of a series is the name of its sample."""
    return labels.get(FAMILY_LABEL)


def counters(first: str, second: str, *, warm_up: WarmUp | None = None) -> Family:
    """Two counters as one family, its classes their names."""
    return Family(
        first, classify=by_name,
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
    by_option: bool = False
    """The options of a list count, and so do those that the operator asks of verified pods."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """Both counters; and the requests, whose moments are theirs too."""
        del gate
        return questions([requests_family(scope), self.family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """A share, its bound and, where the gate asks for it, the comparison with stable."""
        names = scope.analysis.names
        family, part, total = self.family(names), self.part(names), self.total(names)
        found = answers.readings(family, absent=" and ".join((family.sample, *(it.sample for it in family.slices[1:]))))
        if not isinstance(found, Readings):
            return found
        whole = found.whole.windows.whole
        own = scope.own if self.by_option else NO_QUESTIONS
        window = window_of(whole, total, part, concurrent=scope.concurrent, own=own) if whole else None
        stable = self._stable(gate, found.whole, window, scope)
        latest = last_minute(_settled(found.fast, total), scope)
        minute = without(latest.canary_counts(total, part), own_options(latest, own))
        worse = compared(gate, found.fast, found.whole, total, part, scope, None, own=own)
        canary = window.canary if window else Counts(0, 0)
        outside_abort = share_outside(gate.abort, minute)
        if outside_abort and stable is not None and outside(gate.abort, stable):
            outside_abort = False
        evidence = Evidence(
            value=canary.share,
            stable=stable,
            samples=whole.canary_counts(total, part).total if whole else 0.0,
            own=own_options(whole, own).total if whole else 0.0,
            stable_samples=window.stable.total if window else 0.0,
            recent=minute.share,
            exceeded=outside_abort,
            age=age_of(found.fast, scope),
            source=found.whole.source,
            query=expression(family, scope),
            collecting=self._warming_up(family.warm_up) if canary.total <= 0 and family.warm_up else "",
            excused=self._excuse(gate, canary, stable),
            held=stale(found.fast, scope),
            present=Reference(window.stable.total, window.stable.bad) if window and window.stable.total > 0 else None,
        )
        return with_comparison(evidence, worse)

    def _warming_up(self, warm_up: WarmUp) -> str:
        least = f"a pod's first {warm_up.requests:g}, or first {warm_up.seconds:g} s, are left out"
        return f"no {self.unit} counted at this weight yet ({least})"

    def _stable(self, gate: Gate, reading: Reading, window: Window | None, scope: Scope) -> float | None:
        """Stable's share: of the same time, or of the last time when it had traffic."""
        if scope.concurrent:
            enough = window is not None and window.stable.total >= FEW
            return window.stable.share if window is not None and enough else None
        old = scope.earlier.get(gate.name)
        if old is not None and old.reference_total >= FEW:
            return old.reference_bad / old.reference_total
        names = scope.analysis.names
        before = Counts(0, 0)
        for track in reading.stable:
            end = max(0, track.at_or_before(scope.since))
            counted = track.count(self.total(names), 0, end)
            before += Counts(counted, min(counted, track.count(self.part(names), 0, end)))
        return before.share if before.total >= FEW else None

    def _excuse(self, gate: Gate, canary: Counts, stable: float | None) -> str:
        """Stable is outside the advance bound as well: then it is what clients ask, and not the revision."""
        if gate.advance is None or stable is None or inside(gate.advance, stable):
            return ""
        nothing_to_lose = stable < 2 * ALIKE if gate.advance.above is not None else stable > 1 - 2 * ALIKE
        if canary.total < gate.min_samples or canary.share is None:
            alike = nothing_to_lose
        else:
            worse = stable - canary.share if gate.advance.above is not None else canary.share - stable
            alike = worse <= ALIKE
        return f"stable {describe(gate, stable)}, so it is what clients ask" if alike else ""


def _settled(reading: Reading, total: Classes) -> Reading:
    """The pods that an abort bound may be judged by: they have counted for some time since they are warm."""
    kept = tuple(
        track
        for track in reading.canary
        if track.times[-1] - track.times[0] >= SETTLED_SECONDS
        or track.count(total, 0, len(track.times) - 1) >= SETTLED_COUNT
    )
    return replace(reading, canary=kept)
