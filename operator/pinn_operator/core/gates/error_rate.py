"""Error rate: the share of requests that are answered with a 5xx; every other class is compared with stable as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pinn_operator.core.gates.apart import share_apart
from pinn_operator.core.gates.arrival import EVERY
from pinn_operator.core.gates.comparison import (
    FEW,
    carried_counts,
    compared,
    in_words,
    last_minute,
    minutes_before,
    minutes_of,
    outside_abort,
    window_of,
    with_carried,
)
from pinn_operator.core.gates.evidence import Comparison, Reference, Window
from pinn_operator.core.gates.families import (
    BEFORE_ASKED_SECONDS,
    PROMETHEUS_KEY,
    UNREADABLE,
    Answers,
    Reading,
    Readings,
    age_of,
    expression,
    questions,
    requests_family,
    selector,
    stale,
)
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.tracks import newest
from pinn_operator.core.gates.windows import SHORTEST_SECONDS
from pinn_operator.core.samples import Query, Question, SourceError, as_series, series_of
from pinn_operator.core.wanted.spec import Gate, SourceKind

ANSWERED: Final = ("1", "2", "3", "4", "5")
FAILED: Final = ("5",)
UNKNOWN_PATHS: Final = ("u3", "u4", "u5")
OTHER_CLASSES: Final = ((("4", "u4"), "4xx"), (("3", "u3"), "3xx"))
"""Refused and redirected requests have no bound of their own: there are services in which they are usual."""
SUSPICIOUS: Final = 0.1
"""The share of bad answers in the shortest window from which on the operator asks the pods itself."""
SILENCE: Final = 20.0
"""So many requests are expected before their absence is a reason to ask the pods: chance leaves e⁻²⁰."""
MOST: Final = 0.5
"""The share of refused requests from which on a canary with all traffic is not promoted."""
LABELS_KEY: Final = f"{PROMETHEUS_KEY}labels"


class ErrorRate:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """Requests by status, those of unknown paths, and once in a while the labels that they have."""
        del gate
        asked = questions([requests_family(scope)], scope)
        if SourceKind.PROMETHEUS in scope.analysis.sources and scope.advance_due:
            series = f"{scope.analysis.names.requests}{{{selector(scope, scope.stable, scope.canary)}}}"
            asked.append(Query(LABELS_KEY, f"topk(1, {series})", scope.now))
        return asked

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """Whole and recent windows of both revisions."""
        family = requests_family(scope)
        found = answers.readings(family)
        if not isinstance(found, Readings):
            return found
        unreadable = _unreadable(found.whole, answers, scope)
        if unreadable is not None:
            return unreadable
        reference = reference_of(gate, found.whole, scope, ANSWERED, FAILED)
        carried = carried_counts(gate, found.whole, scope)
        worst, words = _worst(gate, found, scope, reference, carried)
        whole = found.whole.windows.whole
        window = window_of(whole, ANSWERED, FAILED, concurrent=scope.concurrent) if whole else None
        window = with_carried(window, carried) if window else None
        minute = last_minute(found.fast, scope)
        return Evidence(
            value=window.canary.share if window else None,
            apart=share_apart(gate, found.whole, scope, ANSWERED, FAILED, carried),
            stable=window.stable.share if window and scope.concurrent else _share(reference),
            samples=window.canary.total if window else 0.0,
            stable_samples=window.stable.total if window else 0.0,
            recent=minute.canary_counts(ANSWERED, FAILED).share,
            exceeded=outside_abort(gate.abort, minute, ANSWERED, FAILED),
            worse=words,
            worse_share=worst.window.canary.share if words and worst and worst.window else None,
            alone=not scope.concurrent,
            mounting=worst is not None and worst.mounting,
            suspected=_looks_silent(found.fast, scope)
            or (window is not None and window.canary.bad > 0 and _looks_dead(found.fast, scope)),
            more_requests=worst.more_requests if worst else None,
            age=age_of(found.fast, scope),
            source=found.whole.source,
            query=expression(family, scope),
            held=stale(found.fast, scope) or _refuses(found, scope),
            carried=carried,
            reference=reference,
            present=_present(found.whole, window, scope),
        )


def _looks_dead(reading: Reading, scope: Scope) -> bool:
    """Whether the newest answers of the canary are as those of one that fails always, and stable's are not."""
    begin = reading.windows.end - SHORTEST_SECONDS
    if not scope.concurrent or begin < scope.own.asked or stale(reading, scope):
        # Nothing was answered since the pods were asked last.
        return False
    newest = reading.windows.make(SHORTEST_SECONDS)
    if newest is None or (newest.canary_counts(ANSWERED, FAILED).share or 0.0) < SUSPICIOUS:
        return False
    return (newest.stable_counts(ANSWERED, FAILED).share or 0.0) < SUSPICIOUS / 2


def _looks_silent(reading: Reading, scope: Scope) -> bool:
    """Whether a canary answers nothing any more, though it should have answered many by now: its counters stand still,
    or none of its pods tells them."""
    whole = reading.windows.whole
    if whole is None or whole.seconds <= 0:
        return False
    rate = whole.canary_counts(EVERY, ()).total / whole.seconds
    if stale(reading, scope):
        return not scope.concurrent and rate * (scope.now.timestamp() - newest(reading.canary)) >= SILENCE
    expected = (span for span in reading.windows.each() if rate * span.seconds >= SILENCE)
    shortest = next(expected, None)
    return shortest is not None and shortest.canary_counts(EVERY, ()).total <= 0


def _refuses(found: Readings, scope: Scope) -> str:
    """That a canary with all traffic turns most requests away, which stable did not before; empty if it does not.

    No reason to reject it: what clients ask changes, and nobody answers beside it. But nothing to promote it by.
    """
    if scope.concurrent:
        return ""
    minute = last_minute(found.fast, scope)
    total = (*ANSWERED, *UNKNOWN_PATHS)
    for refused, shown in OTHER_CLASSES:
        counts = minute.canary_counts(total, refused)
        if counts.total < FEW or counts.bad < MOST * counts.total:
            continue
        before = _share(minutes_before(found.whole, scope, total, refused))
        if before is not None and before < MOST / 2:
            share = counts.bad / counts.total
            return f"{share:.0%} of the last minute's answers are {shown}, {before:.0%} of stable's before"
    return ""


def _present(reading: Reading, window: Window | None, scope: Scope) -> Reference | None:
    """What stable does at this weight.

    Without a router that is not remembered: a client that fails everywhere may be the canary's now, and stable's then.
    """
    to_compare = scope.weighted and scope.concurrent and scope.advance_due
    if window is None or not to_compare or window.stable.total <= 0:
        return None
    minutes = minutes_of(reading.stable, scope.since, reading.windows.end, ANSWERED, FAILED)
    return minutes or Reference(window.stable.total, window.stable.bad)


def reference_of(
    gate: Gate, reading: Reading, scope: Scope, total: tuple[str, ...], bad: tuple[str, ...]
) -> Reference | None:
    """What stable did before this weight: as remembered, or as far as the source that knows most of it goes back."""
    old, known = scope.earlier.get(gate.name), None
    if old is not None and old.reference_total > 0:
        known = Reference(
            old.reference_total, old.reference_bad, old.reference_minutes or 1, old.reference_variation or 1.0
        )
        if scope.seconds > BEFORE_ASKED_SECONDS:
            return known
    found = minutes_before(reading, scope, total, bad)
    if known is None or found is None:
        return known or found
    return max(known, found, key=lambda it: it.total)


def _worst(
    gate: Gate, found: Readings, scope: Scope, reference: Reference | None, carried: tuple[Counts, Counts] | None
) -> tuple[Comparison | None, str | None]:  # fmt: skip
    """The class that speaks most against the canary; in words, if it is enough.

    Refused and redirected requests are compared only while stable answers requests at the same moment: what clients ask
    changes from hour to hour.
    """
    errors = compared(gate, found.fast, found.whole, ANSWERED, FAILED, scope, reference, part=0.9, carried=carried)
    if errors is None or errors.worse:
        return errors, in_words(errors) if errors else None
    for bad, shown in OTHER_CLASSES if scope.concurrent else ():
        other = compared(gate, found.fast, found.whole, (*ANSWERED, *UNKNOWN_PATHS), bad, scope, None, part=0.05)
        if other is not None and other.worse:
            return other, f"{shown}: {in_words(other)}"
    return errors, None


def _unreadable(reading: Reading, answers: Answers, scope: Scope) -> SourceError | None:
    """An error that names the labels, if requests were counted whose status cannot be told."""
    if last_minute(reading, scope).canary_counts((UNREADABLE,), ()).total <= 0 and not _only_unreadable(reading):
        return None
    names = scope.analysis.names
    found = sorted(_labels(answers, scope))
    return SourceError(
        f"{names.requests} has no label {names.status_label} with an HTTP status; its labels are {', '.join(found)}: "
        f"set analysis.names.status"
    )


def _only_unreadable(reading: Reading) -> bool:
    return all(track.columns.classes == (UNREADABLE,) for track in reading.canary) if reading.canary else False


def _labels(answers: Answers, scope: Scope) -> set[str]:
    for key in (LABELS_KEY, f"pods/{scope.analysis.names.requests}"):
        answer = series_of(answers.samples, key)
        found = () if answer is None or isinstance(answer, SourceError) else as_series(answer)
        if found:
            return set(found[0].labels) - {"__name__"}
    return {"unknown"}


def _share(reference: Reference | None) -> float | None:
    return Counts(reference.total, min(reference.bad, reference.total)).share if reference else None
