"""A share of bad requests, judged: against an absolute bound, and against stable at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf, sqrt
from operator import add, sub

from pinn_operator.core.gates.dispersion import dispersion
from pinn_operator.core.gates.evidence import (
    FEWEST,
    Budget,
    Comparison,
    Reference,
    Window,
    compare,
    exceeds_limit,
    tails,
)
from pinn_operator.core.gates.families import BEFORE_SECONDS, Reading
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.sequential import Counts, log_evidence_above_limit, log_evidence_above_stable
from pinn_operator.core.gates.tracks import Track
from pinn_operator.core.gates.windows import INTERVALS, Part, Span, fresh_tracks, stale_after
from pinn_operator.core.gates.wording import outside
from pinn_operator.core.verification.questions import NO_QUESTIONS, OwnQuestions
from pinn_operator.core.wanted.metrics import METRICS
from pinn_operator.core.wanted.spec import Bound, Gate

LEVEL_SECONDS = 60.0
"""An abort bound is judged by the last minute, or four sample intervals if that is longer."""
BAKE_LIMIT = 0.05
"""Without an abort bound, what is tolerated of a canary that has all traffic before it goes at once."""
REFERENCE_LIMIT = 2000.0
"""A remembered reference is a memory, not a measurement: it weighs no more than this many requests."""
BIN_SECONDS, MOST_BINS = 10.0, 240
MOVED_DEVIATIONS, KNOWN_MINUTES = 3.0, 5

FEW = 20.0
"""A share of fewer says nothing of stable."""

Classes = Sequence[str]


def window_of(
    span: Span, total: Classes, bad: Classes, *, concurrent: bool, own: OwnQuestions = NO_QUESTIONS
) -> Window:
    """The counts of both revisions in a span; of options, without those that the operator itself asked (`own`)."""
    stable = span.stable_counts(total, bad) if concurrent else Counts(0, 0)
    window = Window(span.seconds, span.canary_counts(total, bad), stable)
    if not own.seconds:
        return window
    # Both revisions are asked the same.
    asked = own_options(span, own)
    return Window(window.seconds, without(window.canary, asked), without(window.stable, asked))


def own_options(span: Span, own: OwnQuestions) -> Counts:
    """Options that the operator itself asked of the canary in a span, and how many of them were fallbacks."""
    if not span.canary:
        return Counts(0, 0)
    begin = min(part.track.times[part.begin] for part in span.canary)
    end = max(part.track.times[part.end] for part in span.canary)
    options = float(own.options_asked(begin, end))
    return Counts(options, options * own.fallback_share)


def without(counts: Counts, own: Counts) -> Counts:
    """What is left for clients."""
    total = max(0.0, counts.total - own.total)
    return Counts(total, min(total, max(0.0, counts.bad - own.bad)))


def with_carried(window: Window, carried: tuple[Counts, Counts] | None) -> Window:
    """The whole, and what was counted before and is remembered only as totals."""
    if carried is None:
        return window
    return Window(window.seconds, window.canary + carried[0], window.stable + carried[1])


def carried_counts(gate: Gate, reading: Reading, scope: Scope) -> tuple[Counts, Counts] | None:
    """Totals of canary and stable at this weight from before the source's memory begins, as the status has them."""
    old = scope.earlier.get(gate.name)
    if scope.settled is not None or old is None or reading.begin <= scope.since + stale_after(reading.windows.interval):
        return None
    known = None
    if old.carried_total is not None:
        stable = Counts(old.carried_stable_total or 0.0, old.carried_stable_bad or 0.0)
        known = Counts(old.carried_total, old.carried_bad or 0.0), stable
    if old.time is None or old.time.timestamp() >= reading.begin or old.canary is None or old.samples <= 0:
        # This memory knows what was measured last, or there is nothing to carry.
        return known
    if reading.begin > scope.now.timestamp():
        # The clock was set back: what the source remembers has times to come, and is what was counted already.
        return known
    stable_bad = (old.stable or 0.0) * old.stable_samples if scope.concurrent else 0.0
    stable = Counts(float(old.stable_samples) if scope.concurrent else 0.0, stable_bad)
    return Counts(float(old.samples), old.canary * old.samples), stable


def last_minute(reading: Reading, scope: Scope) -> Span:
    """The canary's last minute, and the stretches of stable pods that cover it where these answer at the same moment.

    A minute is four sample intervals if that is longer. Beside stable it ends where every stable pod was read past:
    what hit both is then never the canary's alone.
    """
    pods = tuple([track.pod for track in reading.canary])
    return reading.memo.once(("last minute", scope.judged_since, pods), lambda: _last_minute(reading, scope))


def _last_minute(reading: Reading, scope: Scope) -> Span:
    end = reading.windows.end if scope.concurrent and reading.windows.end > -inf else inf
    parts = []
    for track in reading.canary:
        last = max(0, track.at_or_before(end))
        seconds = max(LEVEL_SECONDS, INTERVALS * (track.interval or 0.0))
        first = max(track.at_or_before(track.times[last] - seconds), 0)
        if scope.settled is not None and track.times[first] < scope.judged_since:
            first = min(last, track.at_or_after(scope.judged_since))
        parts.append(Part(track, first, last))
    cover = fresh_tracks(reading.stable) if parts and scope.concurrent else []
    low = min((part.track.times[part.begin] for part in parts), default=0.0)
    high = max((part.track.times[part.end] for part in parts), default=0.0)
    stable = [
        Part(track, max(0, track.at_or_before(low)), min(len(track.times) - 1, track.at_or_after(high)))
        for track in cover
    ]
    return Span(high - low, tuple(parts), tuple(stable))


def outside_abort(bound: Bound | None, minute: Span, total: Classes, bad: Classes) -> bool | None:
    """Whether the canary's last minute is outside an abort bound by more than chance.

    None when there is nothing to tell by: no requests, or stable is outside the bound at the same moment as well. A
    rollback would help nobody then, and reject a revision for what hits both.
    """
    found = share_outside(bound, minute.canary_counts(total, bad))
    if not found or bound is None:
        return found
    return None if stable_is_outside(bound, minute.stable_counts(total, bad)) else found


def stable_is_outside(bound: Bound, beside: Counts) -> bool:
    """Whether stable is outside the bound too: by many requests at all, by few beyond chance."""
    if beside.total >= FEW:
        return bool(outside(bound, beside.share or 0.0))
    return bool(share_outside(bound, beside))


def compared(
    gate: Gate, fast: Reading | None, whole: Reading | None, total: Classes, bad: Classes, scope: Scope,
    reference: Reference | Callable[[], Reference | None] | None, *, part: float = 1.0, slow: bool = False,
    carried: tuple[Counts, Counts] | None = None, own: OwnQuestions = NO_QUESTIONS,
) -> Comparison | None:  # fmt: skip
    """What speaks against the canary in the recent windows and in the whole; None where nothing can be compared.

    `reference` may be a function: it is asked for only where stable answers at the same moment and there is something
    to compare. `part` is the share of the gate's error probability that may be spent here; `carried` is what the whole
    has lost, `own` what the operator asked where options are counted.
    """
    relative = gate.relative
    if relative is None or not relative.enabled or fast is None or whole is None or whole.windows.whole is None:
        return None
    if not scope.concurrent and reference is None:
        return None
    tracks = fast.canary if fast is whole else (*fast.canary, *whole.canary)
    lost = carried is not None and carried[0].bad > 0
    if not lost and not any(track.count(bad, 0, len(track.times) - 1) > 0 for track in tracks):
        # Nothing bad, nothing to compare: the usual case, and the cheap one.
        return Comparison(0.0, budget_of(gate, scope, part).whole(), False, False, None, None)
    everything = with_carried(window_of(whole.windows.whole, total, bad, concurrent=scope.concurrent, own=own), carried)
    # What was asked at the very moment that the canary failed, or was slow, is no evidence of any other moment.
    canary, stable = scope.own_slow if slow else scope.own_answers
    everything = replace(
        everything, canary=without(everything.canary, canary), stable=without(everything.stable, stable)
    )
    if reference is not None and not scope.concurrent:
        assert not callable(reference)
        windows = [window_of(span, total, bad, concurrent=False, own=own) for span in fast.windows.recent]
        return against_reference(gate, windows, everything, reference, budget_of(gate, scope, part))
    judge = tails if slow else compare
    # What holds so few bad answers proves nothing, so what stable did meanwhile need not be counted.
    telling = (
        span
        for span in fast.windows.recent
        if span.canary_counts(total, bad).bad >= FEWEST and (slow or span.begin >= scope.upstream)
    )
    known = reference() if callable(reference) else reference
    found = judge(
        [window_of(span, total, bad, concurrent=scope.concurrent, own=own) for span in telling], everything,
        relative=relative, budget=budget_of(gate, scope, part), reference=known,
        dispersion=lambda: clustering(whole.stable, total, bad),
    )  # fmt: skip
    if scope.weighted or found.window is None or known is None or known.minutes < KNOWN_MINUTES:
        # A client that was watched for less time may have been missed: then nothing is excused.
        return found
    excused = no_more_than(known, found.window)
    return replace(found, worse=False, mounting=False, more_requests=None) if excused else found


def no_more_than(before: Reference, window: Window) -> bool:
    """Both revisions together have no more bad requests than there were before, beyond chance and usual variation.

    Without a router a client keeps its connection, and one whose requests fail whoever answers them takes its failures
    along to the canary. That moves bad requests from one revision to the other and adds none; a bad revision adds some.
    The bound is `MOVED_DEVIATIONS` standard deviations: Poisson's, that of the share itself from minute to minute, and
    that of its estimate. It comes on top of the evidence of the comparison, and spends nothing of its budget.
    """
    requests = window.canary + window.stable
    expected = requests.total * (before.bad + 0.5) / (before.total + 1.0)
    variance = expected + (before.variation * expected) ** 2 + expected**2 / (before.bad + 0.5)
    return requests.bad <= expected + MOVED_DEVIATIONS * sqrt(variance)


def against_reference(
    gate: Gate, windows: Sequence[Window], whole: Window, reference: Reference, budget: Budget
) -> Comparison:
    """A canary that has all traffic, beside what stable did before.

    What goes wrong for everybody now cannot be told from what the canary does wrong, as nobody else answers. So little
    is held against it here: it goes at once if its share of bad requests is above stable's of before *and* above the
    abort bound, both beyond chance; the smaller of the two e-values counts. Anything less is left to the abort bound
    and its patience.
    """
    assert gate.relative is not None
    limit = min(1.0, gate.abort.above) if gate.abort and gate.abort.above is not None else BAKE_LIMIT
    scale = min(1.0, REFERENCE_LIMIT / reference.total) if reference.total > 0 else 0.0
    remembered = Counts(reference.total * scale, min(reference.bad, reference.total) * scale)
    best: Comparison | None = None
    for window in (whole, *windows):
        needed = budget.whole() if window is whole else budget.recent(window.seconds)
        evidence = min(
            log_evidence_above_limit(window.canary, limit=limit),
            log_evidence_above_stable(window.canary, remembered, margin=gate.relative.margin),
        )
        found = Comparison(evidence, needed, evidence >= needed, evidence > 0, window, None)
        if best is None or found.log_evidence - found.needed > best.log_evidence - best.needed:
            best = found
    assert best is not None
    return best


def budget_of(gate: Gate, scope: Scope, part: float = 1.0) -> Budget:
    """The gate's part of the probability that the whole rollout may reject a good revision with."""
    gates = [it for it in scope.analysis.gates if it.relative and it.relative.enabled and it.metric in METRICS]
    errors = [it for it in gates if it.metric == "error-rate"]
    first, other = Budget.gate_share(errors=bool(errors), others=len(gates) - len(errors))
    return Budget(
        alpha=1 - scope.analysis.confidence, gate=part * ((first if gate.metric == "error-rate" else other) or 1.0),
        stage=scope.stage, hold_seconds=max(1.0, scope.hold_seconds), spent_seconds=scope.seconds,
    )  # fmt: skip


def clustering(stable: Sequence[Track], total: Classes, bad: Classes) -> float:
    """How far stable's bad requests come in clusters: measured between its pods, over all that is known of them."""
    if not any(track.count(bad, 0, len(track.times) - 1) > 0 for track in stable):
        return 1.0
    begin = min(track.times[0] for track in stable)
    end = min(track.times[-1] for track in stable)
    seconds = max(BIN_SECONDS, (end - begin) / MOST_BINS, *(track.interval or 0.0 for track in stable))
    count = int((end - begin) / seconds)
    edges = [begin + index * seconds for index in range(count + 1)]
    return dispersion({track.pod: bins(track, edges, total, bad) for track in stable}, bin_seconds=seconds)


def bins(track: Track, edges: Sequence[float], total: Classes, bad: Classes) -> list[Counts]:
    """Requests between each two edges, as far as the pod was read."""
    return list(map(Counts, *_between(track, edges, total, bad)))


def _between(
    track: Track, edges: Sequence[float], total: Classes, bad: Classes
) -> tuple[list[float], list[float]]:  # fmt: skip
    at = [max(0, track.at_or_before(edge)) for edge in edges]
    all_of, failed = ([max(0.0, more) for more in _steps(track.counts(it, at))] for it in (total, bad))
    return all_of, list(map(min, all_of, failed))


def _steps(values: Sequence[float]) -> Iterable[float]:
    return map(sub, values[1:], values)


def minutes_of(stable: Sequence[Track], begin: float, end: float, total: Classes, bad: Classes) -> Reference | None:
    """What stable did between two moments, minute by minute; less than a minute counts as one."""
    if end <= begin or not stable:
        return None
    count = min(MOST_BINS, int((end - begin) / 60.0))
    edges = [end - (count - index) * 60.0 for index in range(count + 1)] if count else [begin, end]
    sums = [[0.0] * (len(edges) - 1), [0.0] * (len(edges) - 1)]
    for track in stable:
        all_of, failed = _between(track, edges, total, bad)
        sums = [list(map(add, sums[0], all_of)), list(map(add, sums[1], failed))]
    return Reference.of(list(map(Counts, *sums)))


def minutes_before(reading: Reading, scope: Scope, total: Classes, bad: Classes) -> Reference | None:
    """What stable did before this weight, as far as the source that knows most of it goes back."""
    tracks = reading.earlier or reading.stable
    begin = max(scope.since - BEFORE_SECONDS, min((track.times[0] for track in tracks), default=scope.since))
    return minutes_of(tracks, begin, scope.since, total, bad)


def share_outside(bound: Bound | None, counts: Counts) -> bool | None:
    """Whether a share is outside an abort bound by more than chance; None when there is nothing to tell by."""
    if bound is None or counts.total <= 0:
        return None
    if bound.above is not None:
        return exceeds_limit(counts, limit=min(1.0, bound.above))
    # Too few good ones are too many others.
    good = Counts(counts.total, counts.total - counts.bad)
    return exceeds_limit(good, limit=1.0 - min(1.0, bound.below or 0.0))


def with_comparison(evidence: Evidence, found: Comparison | None) -> Evidence:
    """The evidence, with what a comparison with stable has shown, if there was one."""
    if found is None:
        return evidence
    words = in_words(found) if found.worse else None
    return replace(evidence, worse=words, mounting=found.mounting, more_requests=found.more_requests)


def in_words(found: Comparison) -> str:
    """The window that speaks most against the canary."""
    window = found.window
    assert window is not None
    return f"{window.canary.bad:.0f} of {window.canary.total:.0f} requests in {max(1.0, window.seconds):.0f} s, " + (
        f"stable {window.stable.bad:.0f} of {window.stable.total:.0f}"
        if window.stable.total > 0
        else "stable fewer before"
    )
