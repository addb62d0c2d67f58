"""Judging the gates: is this canary worse than the running revision, good enough to go on, or unknown.

Four verdicts with different meanings: Pass needs evidence; NoData (and Collecting, data that is on its way) holds;
Error is the metric source's fault and is never counted against the canary; Fail beyond its bound condemns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import log

from pinn_operator.core.gates.counters import (
    LATEST_AGES,
    Histogram,
    LatencyWindow,
    Sides,
    histograms,
    request_windows,
    single_value,
)
from pinn_operator.core.gates.evidence import Window
from pinn_operator.core.gates.questions import (
    LATENCY_RECENT,
    LATENCY_RECENT_SECONDS,
    LATENCY_WHOLE,
    REQUESTS_LATEST,
    REQUESTS_RECENT,
    REQUESTS_WHOLE,
    own_key,
)
from pinn_operator.core.gates.sequential import Counts, log_evidence_above_limit, log_evidence_above_stable
from pinn_operator.core.samples import Samples, SourceError, series_of
from pinn_operator.core.status.values import GateStatus, Verdict
from pinn_operator.core.wanted.spec import Analysis, Bound, Gate, Relative

LIMIT_CONFIDENCE = 0.95
"""An absolute bound on a rate counts as exceeded only if chance alone would not explain it (1 error of 3 requests is
no error rate of 33 %)."""

_REFERENCE_LIMIT = 2000.0
"""A remembered reference is a memory, not a measurement: it weighs no more than this many requests."""


@dataclass(frozen=True, slots=True)
class Condemnation:
    """Why a revision must go: the gate, what it measured, and what would have been right."""

    reason: str
    message: str
    gate: str = ""
    value: str = ""
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judged gates of one pass."""

    gates: tuple[GateStatus, ...]
    condemnation: Condemnation | None = None
    source_error: str | None = None
    observed_share: float | None = None
    requests: float = 0.0
    asked: bool = False
    """False when this pass measured nothing: the gates are the previous ones."""
    mounting: bool = False
    """There is evidence against the canary, not yet enough to condemn it: worth another look soon."""

    @property
    def all_pass(self) -> bool:
        """Every gate passed in this very pass."""
        return self.asked and bool(self.gates) and all(gate.verdict is Verdict.PASS for gate in self.gates)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one gate has to judge by, whatever its metric."""

    value: float | None
    stable_value: float | None
    samples: float
    exceeded: bool | None
    """The abort bound is exceeded now; None when there is nothing to tell by."""
    recent_value: float | None = None
    worse: str | None = None
    """How the canary is significantly worse than stable, in words."""
    mounting: bool = False
    """It seems worse than stable in some window, by chance or not."""
    reference: Counts | None = None


def judge(
    *, analysis: Analysis, name: str, canary: str, stable: str, hold_seconds: float, concurrent: bool,
    previous: Iterable[GateStatus], samples: Samples, now: datetime,
) -> Judgement:  # fmt: skip
    """Judge every gate of `analysis` by the answers of this pass.

    `concurrent` says that stable has weight too; else its remembered counts are compared with, and the few requests
    that still reach it tell nothing.
    """
    before = {gate.name: gate for gate in previous}
    if not samples:
        return Judgement(gates=tuple(before.values()))
    sides = Sides.of(name, canary=canary, stable=stable)
    requests, latencies = _requests(samples, sides), _latencies(samples, sides)
    incomplete = {gate.name: _incomplete(gate, samples) for gate in analysis.gates}
    faults = [answer.message for answer in samples.values() if isinstance(answer, SourceError)]
    results: list[GateStatus] = []
    condemnation: Condemnation | None = None
    mounting = False
    for gate in analysis.gates:
        old = before.get(gate.name, GateStatus(name=gate.name, verdict=Verdict.NO_DATA))
        evidence = _evidence_of(gate, requests, latencies, samples, old, hold_seconds, concurrent)
        if isinstance(evidence, SourceError):
            faults.append(evidence.message)
            results.append(_with_error(gate, old, evidence, now))
            continue
        mounting = mounting or evidence.mounting
        status, found = _judge_gate(gate, old, evidence, analysis, now)
        missing = incomplete[gate.name]
        if missing is not None and status.verdict is not Verdict.FAIL:
            status = replace(status, verdict=Verdict.ERROR, message=missing.message[:200])
        results.append(status)
        condemnation = condemnation or found
    share, total = _share(requests)
    return Judgement(
        gates=tuple(results), condemnation=condemnation, source_error=faults[0] if faults else None,
        observed_share=share, requests=total, asked=True, mounting=mounting,
    )  # fmt: skip


def _requests(samples: Samples, sides: Sides) -> tuple[Window, ...] | SourceError | None:
    """Windows of the recent time, which is enough to condemn, and last the whole time at this weight."""
    latest, recent, whole = (series_of(samples, key) for key in (REQUESTS_LATEST, REQUESTS_RECENT, REQUESTS_WHOLE))
    if recent is None or isinstance(recent, SourceError):
        return recent
    windows = request_windows(recent, sides)
    if windows and latest is not None and not isinstance(latest, SourceError):
        newest = request_windows(latest, sides, ages=LATEST_AGES)
        windows = (*(window for window in newest if window.seconds < windows[0].seconds), *windows)
    if isinstance(whole, SourceError):
        return (*windows, Window(0.0, Counts(0, 0), Counts(0, 0)))
    return windows if whole is None else (*windows, *request_windows(whole, sides)[-1:])


def _latencies(samples: Samples, sides: Sides) -> tuple[LatencyWindow, ...] | SourceError | None:
    recent, whole = series_of(samples, LATENCY_RECENT), series_of(samples, LATENCY_WHOLE)
    if recent is None or isinstance(recent, SourceError):
        return recent
    answers = (recent,) if whole is None or isinstance(whole, SourceError) else (recent, whole)
    return tuple(histograms(answer, sides) for answer in answers)


def _incomplete(gate: Gate, samples: Samples) -> SourceError | None:
    """Why the whole time at this weight is not known, without which a gate cannot pass."""
    if gate.metric is None:
        return None
    answer = series_of(samples, REQUESTS_WHOLE if gate.metric == "error-rate" else LATENCY_WHOLE)
    return answer if isinstance(answer, SourceError) else None


def _share(requests: tuple[Window, ...] | SourceError | None) -> tuple[float | None, float]:
    if not isinstance(requests, tuple) or not requests:
        return None, 0.0
    whole = requests[-1]
    total = whole.canary.total + whole.stable.total
    return (100.0 * whole.canary.total / total if total > 0 else None), total


def _evidence_of(
    gate: Gate, requests: tuple[Window, ...] | SourceError | None,
    latencies: tuple[LatencyWindow, ...] | SourceError | None, samples: Samples, old: GateStatus, hold: float,
    concurrent: bool,
) -> _Evidence | SourceError:  # fmt: skip
    if gate.metric is None:
        return _own_evidence(gate, samples)
    if gate.metric == "error-rate":
        if isinstance(requests, SourceError):
            return requests
        return _error_evidence(gate, requests or (), old, hold, concurrent)
    if not gate.metric.startswith("latency-"):
        return _Evidence(None, None, 0, None)
    if isinstance(latencies, SourceError):
        return latencies
    return _latency_evidence(gate, gate.metric, latencies or (), hold)


def _own_evidence(gate: Gate, samples: Samples) -> _Evidence | SourceError:
    answer = series_of(samples, own_key(gate))
    if answer is None:
        return _Evidence(None, None, 0, None)
    if isinstance(answer, SourceError):
        return answer
    value = single_value(answer)
    if isinstance(value, SourceError):
        return value
    exceeded = _outside(gate.abort, value) if gate.abort and value is not None else None
    # A value of the team's own query is evidence by itself: how many samples it rests on is the query's business.
    return _Evidence(value, None, gate.min_samples if value is not None else 0, exceeded, recent_value=value)


def _error_evidence(
    gate: Gate, windows: tuple[Window, ...], old: GateStatus, hold: float, concurrent: bool
) -> _Evidence:  # fmt: skip
    if not windows:
        return _Evidence(None, None, 0, None)
    whole = windows[-1]
    remembered = Counts(old.reference_total, old.reference_bad)
    if not concurrent:
        windows = tuple(replace(window, stable=remembered) for window in windows)
    recent = _window_of_about(windows, LATENCY_RECENT_SECONDS)
    reference = whole.stable if concurrent and whole.stable.total > 0 else remembered
    worse, mounting = _worse(gate.relative, [(it.seconds, it.canary, it.stable) for it in windows], hold)
    return _Evidence(
        value=whole.canary.share,
        stable_value=reference.share,
        samples=whole.canary.total,
        exceeded=_rate_exceeds(gate.abort, recent.canary, None),
        recent_value=recent.canary.share,
        worse=worse,
        mounting=mounting,
        reference=reference,
    )


def _latency_evidence(gate: Gate, metric: str, windows: tuple[LatencyWindow, ...], hold: float) -> _Evidence:
    quantile = int(metric.removeprefix("latency-p")) / 100
    if not windows:
        return _Evidence(None, None, 0, None)
    recent, whole = windows[0], windows[-1]
    stable_value = whole.stable.quantile(quantile)
    worse, mounting = None, False
    if gate.relative and gate.relative.enabled and stable_value is not None:
        # Latency depends on the machines' load of the moment: only the stable revision of the same moment tells how
        # slow is slow, so during the bake nothing is compared here.
        wanted = max(gate.relative.ratio * stable_value, gate.relative.floor)
        threshold = whole.canary.bound_at_least(wanted) if whole.canary.buckets else wanted
        pairs = [
            (seconds, window.canary.slower_than(threshold), window.stable.slower_than(threshold))
            for seconds, window in zip((LATENCY_RECENT_SECONDS, hold), windows, strict=False)
        ]
        worse, mounting = _worse(gate.relative, pairs, hold)
    return _Evidence(
        value=whole.canary.quantile(quantile),
        stable_value=stable_value,
        samples=whole.canary.total,
        exceeded=_rate_exceeds(gate.abort, recent.canary, quantile),
        recent_value=recent.canary.quantile(quantile),
        worse=worse,
        mounting=mounting,
    )


def _window_of_about(windows: tuple[Window, ...], seconds: float) -> Window:
    return next((window for window in windows if window.seconds >= seconds), windows[-1])


def _rate_exceeds(bound: Bound | None, counts: Counts | Histogram, quantile: float | None) -> bool | None:
    """Whether a rate, or a latency quantile, is outside an abort bound by more than chance.

    The q-quantile is above L exactly if more than 1 − q of the requests took longer than L, which is a rate again.
    """
    if bound is None or counts.total <= 0:
        return None
    needed = -log(1 - LIMIT_CONFIDENCE)
    limit = bound.above
    if limit is None:
        assert bound.below is not None
        share = counts.share if isinstance(counts, Counts) else counts.quantile(quantile or 0.5)
        return share is not None and share < bound.below
    if isinstance(counts, Histogram):
        assert quantile is not None
        return log_evidence_above_limit(counts.slower_than(limit), limit=1 - quantile) >= needed
    return log_evidence_above_limit(counts, limit=min(1.0, limit)) >= needed


def _worse(
    relative: Relative | None, pairs: list[tuple[float, Counts, Counts]], hold: float
) -> tuple[str | None, bool]:  # fmt: skip
    """In words how the canary is worse than stable, or None; and whether anything speaks for it.

    The error probability α of the gate is shared: half for the whole time at this weight, half for the recent windows.
    A window that slides over the hold is in effect tried again and again, so its part shrinks with the number of
    disjoint windows that fit into the hold (union bound).
    """
    if relative is None or not relative.enabled:
        return None, False
    alpha = 1 - relative.confidence
    last, mounting = len(pairs) - 1, False
    for index, (seconds, canary, stable) in enumerate(pairs):
        if stable.total <= 0 or canary.total <= 0:
            continue
        share = alpha / 2 if index == last else alpha / 2 / last * min(1.0, seconds / max(hold, 1.0))
        evidence = log_evidence_above_stable(canary, stable, margin=relative.margin)
        mounting = mounting or evidence > 0
        if evidence >= -log(share):
            return (
                f"{canary.bad:.0f} of {canary.total:.0f} requests in {seconds:.0f} s, "
                f"stable {stable.bad:.0f} of {stable.total:.0f}"
            ), True
    return None, mounting


def _judge_gate(
    gate: Gate, old: GateStatus, evidence: _Evidence, analysis: Analysis, now: datetime
) -> tuple[GateStatus, Condemnation | None]:
    status = GateStatus(
        name=gate.name, verdict=Verdict.NO_DATA, canary=evidence.value, stable=evidence.stable_value,
        limit=describe_limit(gate, gate.advance, advance=True), samples=int(evidence.samples),
        min_samples=gate.min_samples if gate.metric else 0, time=now,
        failing_since=old.failing_since, consecutive=old.consecutive,
        reference_total=old.reference_total, reference_bad=old.reference_bad,
    )  # fmt: skip
    status = _remember(status, evidence)
    shown = describe(gate, evidence.recent_value if evidence.recent_value is not None else evidence.value)
    if evidence.worse is not None:
        message = f"worse than stable: {evidence.worse}"
        condemned = replace(status, verdict=Verdict.FAIL, message=message, limit="stable")
        stable_text = describe(gate, evidence.stable_value)
        return condemned, Condemnation(
            reason=f"{camel(gate.name)}AboveStable",
            message=f"{gate.name} {shown} against {stable_text} of the stable revision ({evidence.worse})",
            gate=gate.name, value=shown, limit=f"stable {stable_text}",
        )  # fmt: skip
    if evidence.exceeded:
        return _failing(gate, status, old, analysis, shown, now)
    if evidence.exceeded is False:
        status = replace(status, failing_since=None, consecutive=0)
    else:
        status = replace(status, failing_since=_frozen(old, now))
    return _advance_verdict(gate, status, evidence), None


def _remember(status: GateStatus, evidence: _Evidence) -> GateStatus:
    if evidence.reference is None or evidence.reference.total <= 0:
        return status
    scale = min(1.0, _REFERENCE_LIMIT / evidence.reference.total)
    return replace(
        status,
        reference_total=round(evidence.reference.total * scale, 3),
        reference_bad=round(evidence.reference.bad * scale, 3),
    )


def _failing(
    gate: Gate, status: GateStatus, old: GateStatus, analysis: Analysis, shown: str, now: datetime
) -> tuple[GateStatus, Condemnation | None]:
    bound = gate.abort
    assert bound is not None
    since = _failing_since(old, now)
    # A pass that a watch event woke is not a new measurement.
    fresh = old.consecutive == 0 or old.time is None or old.time > now or (
        (now - old.time).total_seconds() >= 0.9 * analysis.abort_interval_seconds
    )  # fmt: skip
    consecutive = old.consecutive + 1 if fresh else old.consecutive
    limit = describe_limit(gate, bound, advance=False)
    lasted = (now - since).total_seconds()
    failed = replace(
        status, verdict=Verdict.FAIL, limit=limit, failing_since=since, consecutive=consecutive,
        time=now if fresh else old.time,
        message=f"{shown}, limit {limit}, for {lasted:.0f} s in {consecutive} measurements",
    )  # fmt: skip
    if lasted < bound.for_seconds or consecutive < bound.consecutive:
        return failed, None
    return failed, Condemnation(
        reason=f"{camel(gate.name)}OutOfBounds", message=f"{gate.name} {shown}, limit {limit}",
        gate=gate.name, value=shown, limit=limit,
    )  # fmt: skip


def _failing_since(old: GateStatus, now: datetime) -> datetime:
    """Since when, counted back from now, the bound is exceeded as far as that was measured.

    A measurement looks back over `LATENCY_RECENT_SECONDS`. What lies between two that are further apart was seen by
    nobody (the operator was away, or a clock was set), and neither was a time without an answer: it does not count.
    """
    if old.failing_since is None or old.time is None:
        return now
    between = (now - old.time).total_seconds()
    proven = min(max(0.0, between), LATENCY_RECENT_SECONDS) if old.verdict is Verdict.FAIL else 0.0
    return now - timedelta(seconds=_lasted(old) + proven)


def _frozen(old: GateStatus, now: datetime) -> datetime | None:
    """`failing_since` moved along with time that must not count: nothing could be measured."""
    return None if old.failing_since is None else now - timedelta(seconds=_lasted(old))


def _lasted(old: GateStatus) -> float:
    """For how many seconds the bound had been exceeded at the last measurement."""
    if old.failing_since is None or old.time is None:
        return 0.0
    return max(0.0, (old.time - old.failing_since).total_seconds())


def _advance_verdict(gate: Gate, status: GateStatus, evidence: _Evidence) -> GateStatus:
    if evidence.value is None or evidence.samples <= 0:
        return replace(status, verdict=Verdict.NO_DATA, message="no requests yet" if gate.metric else "no value")
    if gate.metric is not None and evidence.samples < gate.min_samples:
        text = f"{int(evidence.samples)}/{gate.min_samples} requests"
        return replace(status, verdict=Verdict.COLLECTING, message=text)
    if gate.advance is not None and not _inside(gate.advance, evidence.value):
        text = f"{describe(gate, evidence.value)}, needs {describe_limit(gate, gate.advance, advance=True)}"
        return replace(status, verdict=Verdict.FAIL, message=text)
    return replace(status, verdict=Verdict.PASS, message=describe(gate, evidence.value))


def _with_error(gate: Gate, old: GateStatus, error: SourceError, now: datetime) -> GateStatus:
    return replace(
        old, verdict=Verdict.ERROR, message=error.message[:200], time=now, failing_since=_frozen(old, now),
        limit=old.limit or describe_limit(gate, gate.advance, advance=True),
        min_samples=gate.min_samples if gate.metric else 0,
    )  # fmt: skip


def _outside(bound: Bound | None, value: float) -> bool:
    """The value is on the bad side of an abort bound."""
    if bound is None:
        return False
    return value > bound.above if bound.above is not None else value < (bound.below or 0.0)


def _inside(bound: Bound, value: float) -> bool:
    """The value is on the good side of an advance bound."""
    return value < bound.below if bound.below is not None else value > (bound.above or 0.0)


def describe(gate: Gate, value: float | None) -> str:
    """A value in the unit people use: percent for rates, milliseconds for latencies, as it is for own queries."""
    if value is None:
        return "-"
    if gate.metric == "error-rate":
        return f"{100 * value:.3g}%"
    if gate.metric is not None:
        return f"{1000 * value:.3g}ms" if value < 1 else f"{value:.3g}s"
    return f"{value:.6g}"


def describe_limit(gate: Gate, bound: Bound | None, *, advance: bool) -> str:
    """A bound in words, such as "< 1%" or "> 5% for 300 s"."""
    if bound is None:
        return ""
    sign, value = ("<", bound.below) if bound.below is not None else (">", bound.above)
    text = f"{sign} {describe(gate, value)}"
    if not advance and bound.for_seconds:
        text += f" for {bound.for_seconds} s"
    if not advance and bound.consecutive > 1:
        text += f" in {bound.consecutive} measurements"
    return text


def camel(name: str) -> str:
    """CamelCase of a gate's name, as Kubernetes wants reasons: `latency-p95` becomes `LatencyP95`."""
    return "".join(part[:1].upper() + part[1:] for part in name.replace(".", "-").replace("_", "-").split("-"))
