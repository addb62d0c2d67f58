"""Judging the gates: is this canary worse than the running revision, good enough to go on, or unknown.

Six verdicts with different meanings. Pass needs evidence. NoData, and Collecting (data that is on its way), hold. Error
is the fault of a source and is never counted against the canary. Fail beyond its bound does what the gate's action
says. NotApplicable: neither revision has such a metric; it does not hold, unless the gate is required.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

from pinn_operator.core.decision import ResetCaches
from pinn_operator.core.gates.arrival import Arrival, arrival, observed_share
from pinn_operator.core.gates.families import PROMETHEUS_KEY, Answers
from pinn_operator.core.gates.metric import Apart, Evidence, Lateness, Scope
from pinn_operator.core.gates.metrics import metric_of
from pinn_operator.core.gates.wording import (
    camel,
    count,
    describe,
    describe_excess,
    describe_limit,
    inside,
    unit_of,
    usual_limit,
)
from pinn_operator.core.samples import Awaited, Samples, SourceError
from pinn_operator.core.status.values import GOES_ON, GateStatus, Verdict
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import Bound, Gate, GateAction, MetricNames, Severity, SourceKind

LEVEL_SECONDS: Final = 60.0
"""How far a measurement of an abort bound looks back."""
MESSAGE_LENGTH: Final = 200
QUERY_LENGTH: Final = 256
QUERIES_LENGTH: Final = 2048
"""Of all gates together: a status must stay small."""

_SEVERITIES: Final = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Condemnation:
    """Why a revision must go: the gate, what it measured, and what would have been right."""

    reason: str
    message: str
    gate: str = ""
    value: str = ""
    limit: str = ""
    severity: Severity | None = None
    alone: bool = False
    """Only what stable did before speaks against it: a fault that hits everybody now would look the same."""
    share: float | None = None
    """Of bad answers to clients, if it is those that speak against it."""
    lasting: float | None = None
    """The same over all of the time that counts."""
    slower_than: float | None = None
    """Seconds that its answers take, if it is that which speaks against it, and it has all traffic (`alone`)."""
    lasted: float = 0.0
    """For so many seconds."""


@dataclass(frozen=True, slots=True)
class Slowness:
    """How slow a canary's answers to clients seem, and what it would be rejected with."""

    lateness: Lateness
    fault: Condemnation


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judged gates of one pass."""

    gates: tuple[GateStatus, ...]
    condemnation: Condemnation | None = None
    source_error: SourceError | None = None
    observed_share: float | None = None
    requests: float = 0.0
    asked: bool = False
    """False when this pass measured nothing: the gates are the previous ones."""
    awaited: bool = False
    """A source has not answered yet: nothing passes, and what needs its answer is as it was."""
    mounting: bool = False
    """There is evidence against the canary, not yet enough to condemn it: worth another look soon."""
    suspected: bool = False
    """Its newest answers are those of a revision that fails always: its pods are better asked at once."""
    slowness: Slowness | None = None
    """Of the gate that speaks most of its being slow beside stable."""
    complete: bool = True
    """The whole time at this weight was judged: without that nothing passes."""
    idle: frozenset[str] = frozenset()
    """Gates that never hold: dry runs, and those that only warn."""
    notices: tuple[Condemnation, ...] = ()
    """Bounds that were exceeded for the first time, of gates that do not roll back."""
    resets: tuple[ResetCaches, ...] = ()
    """Caches to be reset now."""
    arrival: Arrival | None = None
    """What the canary should have answered by its weight, and what it did."""

    @property
    def all_pass(self) -> bool:
        """Every gate that may hold passed in this very pass, and not for want of a metric alone."""
        holding = [gate.verdict for gate in self.gates if gate.name not in self.idle]
        passed = any(gate.verdict is Verdict.PASS for gate in self.gates)
        return self.asked and self.complete and passed and GOES_ON.issuperset(holding)


@dataclass(frozen=True, slots=True)
class _Judged:
    status: GateStatus
    condemnation: Condemnation | None = None
    notice: Condemnation | None = None
    reset: ResetCaches | None = None
    mounting: bool = False


def judge(scope: Scope, samples: Samples) -> Judgement:
    """Judge every gate by the answers of this pass."""
    gates = scope.analysis.gates
    if not samples or scope.seconds <= 0:
        return Judgement(gates=tuple(scope.earlier.values()))
    asked, awaited = scope, frozenset(key for key, it in samples.items() if isinstance(it, Awaited))
    if awaited:
        # As between two judgements of the whole, when only what the pods and webhooks say is looked at.
        scope = replace(scope, advance_due=False, prometheus_due=False)
    answers = Answers(samples, scope)
    missing = next(
        (it for key, it in samples.items() if key.startswith(PROMETHEUS_KEY) and isinstance(it, SourceError)),
        None,
    )  # fmt: skip
    judged, faults = list[_Judged](), [missing] if missing else []
    unread, suspected, slow = answers.unread(), False, list[Slowness]()
    room = max(48, QUERIES_LENGTH // max(1, len(gates)))
    for gate in gates:
        old = _earlier(gate, scope)
        if not scope.advance_due and old.time is not None and not _aborts(gate):
            judged.append(_Judged(old))
            continue
        evidence = metric_of(gate).evidence(gate, answers, scope)
        waits = bool(awaited) and any(it.key in awaited for it in metric_of(gate).questions(gate, asked))
        if waits and not _tells(evidence, old):
            judged.append(_Judged(_awaiting(gate, old), mounting=_mounts(evidence)))
            continue
        if isinstance(evidence, Evidence) and evidence.value is None and gate.metric and unread:
            evidence = replace(evidence, held=evidence.held or "not read yet")
        if isinstance(evidence, SourceError):
            faults.append(evidence)
            judged.append(_Judged(_with_error(gate, old, evidence, scope)))
            continue
        suspected = suspected or (evidence.suspected and not gate.dry_run)
        if evidence.lateness is not None and gate.action is GateAction.ROLL_BACK and not gate.dry_run:
            said = replace(evidence, worse=evidence.lateness.words)
            slow.append(Slowness(evidence.lateness, _above_stable(gate, said)))
        found = _judge_gate(gate, old, evidence, scope)
        if missing is not None and found.status.verdict is not Verdict.FAIL and evidence.source in tuple(SourceKind):
            found = replace(found, status=replace(found.status, verdict=Verdict.ERROR, message=_cut(missing.message)))
        judged.append(replace(found, status=_described(gate, found.status, evidence, room)))
    if not scope.prometheus_due:
        # Prometheus was not asked now: what it said last still stands.
        faults += [SourceError(it.status.message) for it in judged if it.status.verdict is Verdict.ERROR]
    share, total = observed_share(answers, scope)
    return Judgement(
        gates=tuple(it.status for it in judged),
        condemnation=_gravest([it.condemnation for it in judged if it.condemnation]),
        source_error=faults[0] if faults else None,
        observed_share=share,
        requests=total,
        asked=True,
        awaited=bool(awaited),
        mounting=any(it.mounting for it in judged),
        suspected=suspected,
        slowness=max(slow, key=lambda it: it.lateness.evidence - it.lateness.needed, default=None),
        complete=scope.advance_due,
        idle=frozenset(gate.name for gate in gates if gate.dry_run or gate.action is GateAction.WARN),
        notices=tuple(it.notice for it in judged if it.notice),
        resets=tuple(it.reset for it in judged if it.reset),
        arrival=arrival(answers, scope),
    )


def _earlier(gate: Gate, scope: Scope) -> GateStatus:
    """What was measured of this gate before. Of another query, bound or metric of its name nothing counts any more."""
    definition = definition_of(gate, scope.analysis.names)
    old = scope.earlier.get(gate.name, GateStatus(name=gate.name, verdict=Verdict.NO_DATA))
    if old.definition not in ("", definition):
        old = replace(
            old, verdict=Verdict.NO_DATA, message="", time=None, failing_since=None, failing_time=None, consecutive=0,
            acted_time=None,
        )  # fmt: skip
    return old if old.definition == definition else replace(old, definition=definition)


@lru_cache(maxsize=1024)
def definition_of(gate: Gate, names: MetricNames) -> str:
    """A hash of what a gate measures and of its abort bound, but not for how long that is to be exceeded."""
    abort = gate.abort
    bound = (abort.above, abort.below) if abort else None
    measured = (gate.metric, gate.query, gate.webhook.url if gate.webhook else None, bound, names)
    return sha256(repr(measured).encode()).hexdigest()[:8]


def _tells(evidence: Evidence | SourceError, old: GateStatus) -> bool:
    """It says something of an abort bound without the answers that are awaited."""
    if isinstance(evidence, SourceError):
        return False
    if evidence.worse is not None or evidence.exceeded:
        return True
    return evidence.exceeded is False and old.time is not None


def _mounts(evidence: Evidence | SourceError) -> bool:
    return isinstance(evidence, Evidence) and evidence.mounting


def _awaiting(gate: Gate, old: GateStatus) -> GateStatus:
    """What was said last stands; the first time there is nothing to say."""
    if old.time is not None:
        return old
    return replace(_as_written(gate, old), message="Prometheus has not answered yet")


def _aborts(gate: Gate) -> bool:
    """There is something to look at between two judgements of the whole."""
    return gate.abort is not None or gate.webhook is not None or bool(gate.relative and gate.relative.enabled)


def _gravest(found: Sequence[Condemnation]) -> Condemnation | None:
    """What is certain first, then P0, then in the order of the gates."""
    return min(found, key=lambda it: (it.alone, _SEVERITIES.index(it.severity or Severity.P2)), default=None)


def _described(gate: Gate, status: GateStatus, evidence: Evidence, room: int) -> GateStatus:
    return replace(
        status, source=str(evidence.source) or status.source, unit=unit_of(gate).value, action=gate.action.value,
        severity=gate.severity.value, dry_run=gate.dry_run,
        query=cut(evidence.query, min(room, QUERY_LENGTH)) or status.query,
    )  # fmt: skip


def _judge_gate(gate: Gate, old: GateStatus, evidence: Evidence, scope: Scope) -> _Judged:
    now = scope.now
    status = GateStatus(
        name=gate.name, definition=old.definition,
        verdict=Verdict.NO_DATA, canary=evidence.value, stable=evidence.stable,
        limit=usual_limit(gate), samples=round(evidence.samples),
        stable_samples=round(evidence.stable_samples), min_samples=_least(gate), age=_rounded(evidence.age),
        needed_samples=_needed(evidence), time=now, failing_since=old.failing_since, failing_time=_failing_time(old),
        consecutive=old.consecutive,
        acted_time=old.acted_time, reference_total=old.reference_total, reference_bad=old.reference_bad,
        reference_minutes=old.reference_minutes, reference_variation=old.reference_variation,
    )  # fmt: skip
    status = _remember(status, evidence)
    if evidence.worse is not None:
        return _worse(gate, status, evidence, scope)
    if evidence.exceeded:
        return replace(_failing(gate, status, old, evidence, scope), mounting=evidence.mounting)
    if not scope.advance_due and old.time is not None:
        # Between two judgements of the whole only abort bounds are looked at; what was said of the whole stands.
        status = replace(old, source=evidence.source)
    since, times = (None, 0) if evidence.exceeded is False else (_frozen(old, now), status.consecutive)
    if (status.failing_since, status.consecutive) != (since, times):
        status = replace(
            status, failing_since=since, consecutive=times, failing_time=status.failing_time if since else None
        )
    if not scope.advance_due and old.time is not None:
        return _Judged(status, mounting=evidence.mounting)
    return _Judged(_advance_verdict(gate, status, evidence, scope), mounting=evidence.mounting)


def _least(gate: Gate) -> int:
    counted = gate.metric is not None and gate.metric not in _LEVELS
    return gate.min_samples if counted else 0


def _own_samples(gate: Gate, evidence: Evidence, scope: Scope) -> float:
    """How many of the samples are, at most, of the operator's making: they are no evidence of clients."""
    if not _least(gate):
        return 0.0
    if evidence.own is not None:
        return evidence.own
    return float(scope.own.requests * scope.own.samples(scope.since, scope.now.timestamp()))


_LEVELS: Final = frozenset({"memory", "memory-usage", "memory-growth", "availability", "cpu-usage"})


def _needed(evidence: Evidence) -> int | None:
    more = evidence.more_requests
    return None if more is None else min(10**9, round(more))


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 1)


def _remember(status: GateStatus, evidence: Evidence) -> GateStatus:
    reference = evidence.reference
    if reference is not None and reference.total > max(0.0, status.reference_total):
        status = replace(
            status, reference_total=round(reference.total, 3), reference_bad=round(reference.bad, 3),
            reference_minutes=reference.minutes, reference_variation=round(reference.variation, 4),
        )  # fmt: skip
    if evidence.carried is not None:
        canary, stable = evidence.carried
        status = replace(
            status, carried_total=round(canary.total, 3), carried_bad=round(canary.bad, 3),
            carried_stable_total=round(stable.total, 3), carried_stable_bad=round(stable.bad, 3),
        )  # fmt: skip
    if evidence.present is not None:
        status = replace(
            status, stable_minutes=evidence.present.minutes, stable_variation=round(evidence.present.variation, 4)
        )
    return status


def begun_anew(gate: GateStatus) -> GateStatus:
    """A gate as it begins at a new weight: nothing measured; what stable did at the last one is remembered."""
    anew = GateStatus(
        name=gate.name, definition=gate.definition,
        verdict=Verdict.NO_DATA, limit=gate.limit, min_samples=gate.min_samples,
        message="not measured at this weight yet", unit=gate.unit, action=gate.action, severity=gate.severity,
        dry_run=gate.dry_run, reference_total=gate.reference_total, reference_bad=gate.reference_bad,
        reference_minutes=gate.reference_minutes, reference_variation=gate.reference_variation,
    )  # fmt: skip
    if not gate.stable_minutes or gate.stable is None:
        return anew
    return replace(
        anew, reference_total=float(gate.stable_samples), reference_bad=round(gate.stable * gate.stable_samples, 3),
        reference_minutes=gate.stable_minutes, reference_variation=gate.stable_variation,
    )  # fmt: skip


def _worse(gate: Gate, status: GateStatus, evidence: Evidence, scope: Scope) -> _Judged:
    status = replace(
        status, verdict=Verdict.FAIL, message=_cut(f"worse than stable: {evidence.worse}"), limit="stable"
    )  # fmt: skip
    return _act(gate, status, scope, _above_stable(gate, evidence))


def _above_stable(gate: Gate, evidence: Evidence) -> Condemnation:
    # What condemns is shown as it was counted: the last minute may hold answers from before this weight.
    known = (evidence.worse_share, evidence.recent, evidence.value)
    shown = describe(gate, next((it for it in known if it is not None), None))
    stable = describe(gate, evidence.stable)
    message, limit = (
        f"{gate.name} {shown} against {stable} of the stable revision ({evidence.worse})",
        f"stable {stable}",
    )
    if evidence.worse_shares is not None:
        message, (shown, limit) = f"{gate.name}: {evidence.worse}", evidence.worse_shares
    return Condemnation(
        reason=f"{camel(gate.name)}AboveStable", message=message, gate=gate.name, value=shown, limit=limit,
        severity=gate.severity, alone=evidence.alone, share=evidence.worse_share, lasting=evidence.value,
    )  # fmt: skip


def _failing(gate: Gate, status: GateStatus, old: GateStatus, evidence: Evidence, scope: Scope) -> _Judged:
    bound, now = gate.abort or Bound(), scope.now
    if evidence.alone and scope.settled is not None and old.time is not None and old.time <= scope.settled:
        # What was measured until then is held against nobody.
        old = replace(old, failing_since=None, failing_time=None, consecutive=0)
    shown = evidence.said or describe(gate, evidence.recent if evidence.recent is not None else evidence.value)
    since = _failing_since(old, now)
    # A pass that a watch event woke is not a new measurement.
    fresh = old.consecutive == 0 or old.time is None or old.time > now or (
        (now - old.time).total_seconds() >= 0.9 * scope.analysis.abort_interval_seconds
    )  # fmt: skip
    consecutive = evidence.in_a_row or (old.consecutive + 1 if fresh else old.consecutive)
    limit = describe_limit(gate, bound, advance=False)
    lasted = (now - since).total_seconds()
    excess = _with_note(describe_excess(gate, bound, shown, lasted, consecutive), evidence.note)
    failed = replace(
        status, verdict=Verdict.FAIL, limit=limit, failing_since=since, failing_time=None,
        consecutive=consecutive,
        time=now if fresh else old.time, message=_cut(evidence.said or excess),
    )  # fmt: skip
    if lasted < bound.for_seconds or consecutive < bound.consecutive:
        return _Judged(failed)
    return _act(
        gate, failed, scope,
        Condemnation(
            reason=f"{camel(gate.name)}OutOfBounds",
            message=f"{gate.name}: {evidence.said}" if evidence.said
            else _with_note(f"{gate.name} {shown}, limit {limit}", evidence.note),
            gate=gate.name, value=shown, limit=limit, severity=gate.severity,
            alone=evidence.alone, share=evidence.recent if evidence.alone and evidence.slower_than is None else None,
            lasting=evidence.value, slower_than=evidence.slower_than, lasted=lasted,
        ),
    )  # fmt: skip


def _act(gate: Gate, status: GateStatus, scope: Scope, found: Condemnation) -> _Judged:
    """What a gate that failed beyond its bound does."""
    first = status.acted_time is None
    # A clock that was set back must not put off the second look.
    acted = replace(status, acted_time=min(status.acted_time or scope.now, scope.now))
    if gate.dry_run:
        would = "" if gate.action is GateAction.WARN else f"dry run, would {_VERBS[gate.action]}: "
        return _Judged(replace(acted, message=_cut(would + status.message)), notice=found if first else None)
    if gate.action is GateAction.ROLL_BACK:
        return _Judged(status, condemnation=found)
    if gate.action in (GateAction.HOLD, GateAction.WARN):
        return _Judged(acted, notice=found if first else None)
    return _reset(gate, acted, scope, found, first=first)


_VERBS: Final = {
    GateAction.ROLL_BACK: "roll back", GateAction.HOLD: "hold", GateAction.RESET_CACHES: "reset the caches",
    GateAction.WARN: "warn",
}  # fmt: skip


def _reset(gate: Gate, status: GateStatus, scope: Scope, found: Condemnation, *, first: bool) -> _Judged:
    """The caches are reset once at a weight. If the bound is exceeded later still, the revision goes."""
    assert status.acted_time is not None
    since = (scope.now - status.acted_time).total_seconds()
    if since >= gate.recheck_seconds:
        message = f"{found.message}, {since:.0f} s after its caches were reset"
        return _Judged(status, condemnation=replace(found, message=message))
    now = ResetCaches(scope.canary.revision, gate.name, scope.canary.pods) if first else None
    text = f"caches reset, judged again in {gate.recheck_seconds - since:.0f} s: {status.message}"
    return _Judged(replace(status, message=_cut(text)), notice=found if first else None, reset=now)


def _failing_since(old: GateStatus, now: datetime) -> datetime:
    """Since when, counted back from now, the bound is exceeded as far as that was measured.

    A measurement looks back over `LEVEL_SECONDS`. What lies between two that are further apart was seen by nobody (the
    operator was away, a clock was set, or there was no answer): it does not count.
    """
    if old.failing_since is None or old.time is None:
        return now
    last = _failing_time(old)
    between = (now - last).total_seconds() if last is not None else 0.0
    seen = old.verdict is Verdict.FAIL or between <= LEVEL_SECONDS
    proven = min(max(0.0, between), LEVEL_SECONDS) if seen else 0.0
    return now - timedelta(seconds=_lasted(old) + proven)


def _failing_time(old: GateStatus) -> datetime | None:
    """When the bound was last measured to be exceeded; of a gate that fails it is the last measurement of all."""
    if old.failing_since is None:
        return None
    return old.time if old.verdict is Verdict.FAIL else old.failing_time


def _frozen(old: GateStatus, now: datetime) -> datetime | None:
    """`failing_since` moved along with time that must not count: nothing could be measured."""
    return None if old.failing_since is None else now - timedelta(seconds=_lasted(old))


def _lasted(old: GateStatus) -> float:
    """For how many seconds the bound had been exceeded at the last measurement."""
    if old.failing_since is None or old.time is None:
        return 0.0
    return max(0.0, (old.time - old.failing_since).total_seconds())


def _advance_verdict(gate: Gate, status: GateStatus, evidence: Evidence, scope: Scope) -> GateStatus:
    """The verdict of a gate whose abort bound is not exceeded."""
    value = describe(gate, evidence.value)
    inapplicable = evidence.inapplicable or (f"neither revision has {evidence.absent}" if evidence.absent else "")
    if inapplicable:
        verdict = Verdict.NO_DATA if gate.required else Verdict.NOT_APPLICABLE
        return replace(
            status, verdict=verdict, message=_cut(("required, but " if gate.required else "") + inapplicable)
        )
    if evidence.excused:
        verdict = Verdict.NO_DATA if evidence.held else Verdict.PASS
        return replace(status, verdict=verdict, message=_cut(evidence.held or f"{value}: {evidence.excused}"))
    if evidence.collecting:
        verdict = Verdict.NO_DATA if evidence.value is None and gate.metric is None else Verdict.COLLECTING
        return replace(status, verdict=verdict, message=_cut(evidence.collecting))
    if evidence.said:
        verdict = Verdict.COLLECTING if evidence.held else Verdict.PASS
        return replace(status, verdict=verdict, message=_cut(evidence.said))
    own = min(_own_samples(gate, evidence, scope), evidence.samples)
    if (evidence.value is None and not own) or (evidence.samples <= 0 and not evidence.enough):
        text = "no requests yet" if _least(gate) else "no value"
        return replace(status, verdict=Verdict.NO_DATA, message=_cut(evidence.held or text))
    from_clients = evidence.samples - own
    if evidence.value is None or (not evidence.enough and from_clients < gate.min_samples):
        text = f"{from_clients:.0f}/{count(gate.min_samples, *_COUNTED.get(gate.metric or '', _REQUESTS))}"
        beside = f"{own:.0f} more by the operator, which compares prices" if own >= 1 else ""
        return replace(status, verdict=Verdict.COLLECTING, message=_with_note(text, beside))
    note = evidence.note
    if gate.advance is not None and not inside(gate.advance, evidence.value):
        text = f"{value}, needs {describe_limit(gate, gate.advance, advance=True)}"
        if evidence.apart is None or not _passes(gate, gate.advance, evidence.apart, own):
            return replace(status, verdict=Verdict.FAIL, message=_cut(_with_note(text, note)))
        note = f"{describe(gate, evidence.apart.value)} {evidence.apart.note}"
    if evidence.held:
        return replace(status, verdict=Verdict.NO_DATA, message=_cut(evidence.held))
    return replace(status, verdict=Verdict.PASS, message=_cut(_with_note(value, note)))


_REQUESTS: Final = ("request", "requests")
_COUNTED: Final = {
    "fallback-rate": ("option", "options"), "prediction-spread": ("option", "options"),
    "cache-hit-rate": ("lookup", "lookups"),
}  # fmt: skip
"""What is counted, where it is not requests: one and many."""


def _passes(gate: Gate, bound: Bound, apart: Apart, own: float) -> bool:
    """It is within the bound but for what stable suffered too, by enough requests from outside of that."""
    if apart.value is None or not inside(bound, apart.value):
        return False
    return apart.samples - own >= gate.min_samples


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text


def _cut(text: str) -> str:
    return cut(text, MESSAGE_LENGTH)


def _with_error(gate: Gate, old: GateStatus, error: SourceError, scope: Scope) -> GateStatus:
    now = scope.now
    return replace(
        _as_written(gate, old), verdict=Verdict.ERROR, message=_cut(error.message), time=now,
        failing_since=_frozen(old, now), failing_time=_failing_time(old),
    )  # fmt: skip


def _as_written(gate: Gate, old: GateStatus) -> GateStatus:
    """What follows from the gate alone, whatever was measured."""
    return replace(
        old, limit=old.limit or usual_limit(gate), min_samples=_least(gate),
        unit=unit_of(gate).value, action=gate.action.value, severity=gate.severity.value, dry_run=gate.dry_run,
    )  # fmt: skip
