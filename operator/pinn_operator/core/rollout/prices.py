"""What the prices of a revision mean for its rollout: no weight before they were compared, none after they differ.

`see_prices` takes answers into the status and says whether the revision must go; `prices_allow` is asked before a
weight rises. What is asked when is in `pinn_operator.core.verification.questions`, what answers show in `…compare`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.samples import PriceAnswers, SourceError, prices_of
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.json import POD_LINE_LIMIT
from pinn_operator.core.status.values import MESSAGE_LIMIT, WATCHED, RollbackStatus
from pinn_operator.core.status.verification import STABLE_POD_LIMIT, VerificationStatus, VerificationVerdict
from pinn_operator.core.text import cut
from pinn_operator.core.verification.compare import ACKNOWLEDGEABLE, UNAVAILABLE, UNCERTAIN, Finding, compare
from pinn_operator.core.verification.questions import (
    PRICES,
    Subject,
    is_sample,
    new_pods,
    ready_pods,
    subject_of,
    verification_of,
)
from pinn_operator.core.wanted.spec import VerificationMode

CONFIRM_SECONDS = 5.0
"""Between two attempts that must both show errors or slow answers, or that stable answers nothing."""
RETRY_SECONDS = 2.0
"""After the first attempt that showed nothing; it doubles up to the longest."""
LONGEST_RETRY_SECONDS = 30.0
SAMPLE_NOTE_SECONDS = 300.0
"""Between two writes of when a sample in traffic was last found good."""


def see_prices(this: Pass, draft: Draft) -> Condemnation | None:
    """Take what the pods answered into the status; why the canary must go, if it must."""
    asked = subject_of(Situation(this.resource, this.observed, this.spec, this.target))
    if asked is not None:
        _take(this, draft, asked)
        _accept_what_is_kept(this, draft)
        _compare_with_more_tolerance(this, draft)
        compare_once_stable_is_back(this, draft)
    return price_fault(this, draft)


def price_fault(this: Pass, draft: Draft) -> Condemnation | None:
    """Why the canary must go by what is known of its prices, if it must."""
    status = draft.status
    if status.phase not in WATCHED or this.spec.verification.mode is VerificationMode.OFF:
        return None
    known = verification_of(status, draft.canary.revision)
    if known is None or known.verdict is not VerificationVerdict.FAIL:
        return None
    worst = known.worst[0] if known.worst else None
    return Condemnation(
        reason=known.reason,
        message=known.message,
        value=f"{worst.quantity} {worst.excess:.3g} times the tolerance" if worst else known.reason,
        limit=f"spec.verification.tolerance {this.spec.verification.tolerance:g} of the strike and the error bounds",
    )


def begin_prices(this: Pass, draft: Draft) -> None:
    """Begin the verification that follows from what this pass decided: the next one would find nothing else new."""
    compare_once_stable_is_back(this, draft)
    resource = replace(this.resource, status=draft.status)
    asked = subject_of(Situation(resource, this.observed, this.spec, this.target))
    if asked is not None and asked.known is None and ready_pods(this.observed, asked.revision):
        draft.status = replace(draft.status, verification=_begun(this, asked))


def _begun(this: Pass, asked: Subject) -> VerificationStatus:
    return VerificationStatus(
        asked.revision, VerificationVerdict.PENDING, this.now, options=this.spec.verification.options,
        stable=asked.stable,
    )  # fmt: skip


def prices_allow(this: Pass, draft: Draft) -> bool:
    """Whether the canary's weight may rise as far as its prices are concerned; leaves a wait if not."""
    verification = this.spec.verification
    if verification.mode is VerificationMode.OFF:
        return True
    revision = draft.canary.revision
    known = verification_of(draft.status, revision)
    late = known is not None and this.now >= known.start_time + timedelta(seconds=verification.timeout_seconds)
    gravity = Gravity.STALLED if late else Gravity.NORMAL
    match known.verdict if known is not None else None:
        case VerificationVerdict.PASS if known is not None:
            fresh = new_pods(this.observed, known)
            if fresh:
                draft.wait("NewPodUnverified", f"the prices of pod {fresh[0].name}, which is new")
            return not fresh
        case VerificationVerdict.NOT_APPLICABLE if known is not None:
            if verification.mode is VerificationMode.AUTO:
                return True
            text = f"prices to compare, spec.verification.mode is Required: {known.message}"
            draft.wait(known.reason, text, gravity=Gravity.STALLED)
        case VerificationVerdict.ERROR if known is not None:
            draft.wait(UNAVAILABLE, f"prices of {revision}: {known.message}", known.retry_time, gravity)
        case VerificationVerdict.FAIL if known is not None:
            draft.wait(known.reason, f"a revision with other prices: {known.message}", gravity=Gravity.STALLED)
        case _ if not ready_pods(this.observed, revision):
            draft.wait(UNAVAILABLE, f"a ready pod of {revision} with an address that can be asked for prices")
        case _:
            suspicion = f": {known.message}" if known is not None and known.suspicion else ""
            until = known.retry_time if known is not None else None
            text = f"the prices of {revision}, which are compared before it gets weight{suspicion}"
            draft.wait("PricesBeingCompared", text, until, gravity)
    return False


def prices_allow_all(this: Pass, draft: Draft) -> bool:
    """Whether the canary may get all traffic because stable cannot answer: clients fail meanwhile.

    Its prices are looked at first, which takes seconds. Where they cannot be, an answer is better than none.
    """
    known = verification_of(draft.status, draft.canary.revision)
    if this.spec.verification.mode is VerificationMode.OFF:
        return True
    if known is None:
        return not ready_pods(this.observed, draft.canary.revision) or prices_allow(this, draft)
    late = this.now >= known.start_time + timedelta(seconds=this.spec.verification.timeout_seconds)
    if known.verdict is VerificationVerdict.FAIL or (known.verdict is VerificationVerdict.PENDING and not late):
        return prices_allow(this, draft)
    return True


def may_stay_beside_stable(this: Pass, draft: Draft) -> bool:
    """Whether the canary's prices were compared with stable's and are right, or cannot be compared at all.

    It had all traffic for want of anybody else; beside stable, nobody needs prices that differ.
    """
    if this.spec.verification.mode is VerificationMode.OFF:
        return True
    known = verification_of(draft.status, draft.canary.revision)
    if known is None or known.verdict is not VerificationVerdict.PASS:
        return known is not None and known.verdict is VerificationVerdict.NOT_APPLICABLE
    return bool(known.stable)


def has_unverified_weight(this: Pass, draft: Draft) -> bool:
    """Whether the canary has weight although its prices are not known: verification was turned on meanwhile, or an
    operator that knew none gave it the weight.

    Everything is asked at weight 0 alone: beside clients it would be seen in their latencies, and count as theirs.
    """
    if this.spec.verification.mode is VerificationMode.OFF or draft.rollout.weight == 0:
        return False
    known = verification_of(draft.status, draft.canary.revision)
    return known is None or known.verdict in (VerificationVerdict.PENDING, VerificationVerdict.ERROR)


def _accept_what_is_kept(this: Pass, draft: Draft) -> None:
    """A revision with other prices is still here (`rollback.mode` is Hold, or it is the only copy), and the spec says
    by now that they are meant: once more it is looked whether they are all that is to be said against it."""
    status = draft.status
    if status.rollout is None or status.canary is None:
        return
    known = verification_of(status, status.canary.revision)
    if known is None or known.verdict is not VerificationVerdict.FAIL or known.acknowledged_time is not None:
        return
    if known.reason not in ACKNOWLEDGEABLE or this.spec.verification.acknowledged_revision != known.revision:
        return
    accepted = replace(known, acknowledged_time=this.now, retry_time=None, suspicion="")
    if status.rollout.weight == 0:
        accepted = replace(accepted, verdict=VerificationVerdict.PENDING, start_time=this.now)
    else:
        # In traffic samples are compared, and the next one will say.
        accepted = replace(accepted, verdict=VerificationVerdict.PASS, message=_as_accepted(known.message))
        draft.normal(*_acknowledged(known.revision, known.message))
    draft.status = replace(status, verification=accepted)


def _compare_with_more_tolerance(this: Pass, draft: Draft) -> None:
    """A revision with other prices is still here, and the spec allows more by now: everything is asked again, without
    weight."""
    status, allowed = draft.status, this.spec.verification.tolerance
    if status.rollout is None or status.canary is None:
        return
    known = verification_of(status, status.canary.revision)
    if known is None or known.verdict is not VerificationVerdict.FAIL or known.tolerance is None:
        return
    if allowed > known.tolerance:
        draft.status = replace(status, verification=replace(_begun_again(known, this.now), tolerance=allowed))


def _begun_again(known: VerificationStatus, now: datetime) -> VerificationStatus:
    """Everything is asked once more."""
    return replace(known, verdict=VerificationVerdict.PENDING, start_time=now, retry_time=None, suspicion="")


def _as_accepted(message: str) -> str:
    return cut(f"accepted by spec.verification.acknowledgedRevision: {message}", MESSAGE_LIMIT)


def _acknowledged(revision: str, message: str) -> tuple[str, str]:
    return "PriceDifferenceAcknowledged", f"revision {revision} goes on: {message}"


def compare_once_stable_is_back(this: Pass, draft: Draft) -> None:
    """A canary without weight that passed because no pod of stable could be asked is compared when one can be."""
    status = draft.status
    if status.rollout is None or status.canary is None or status.rollout.weight > 0:
        return
    known, stable = verification_of(status, status.canary.revision), draft.stable.revision
    if known is None or known.verdict is not VerificationVerdict.PASS or known.stable:
        return
    if ready_pods(this.observed, stable):
        draft.status = replace(status, verification=replace(_begun_again(known, this.now), stable=stable))


def compare_once_more(this: Pass, draft: Draft) -> None:
    """A canary without weight that was verified before is asked everything again before it gets any."""
    status = draft.status
    known = verification_of(status, draft.canary.revision)
    if known is not None and known.verdict is VerificationVerdict.PASS and draft.rollout.weight == 0:
        draft.status = replace(status, verification=_begun_again(known, this.now))


def acknowledged_since(this: Pass, rejected: RollbackStatus) -> bool:
    """A revision that was rejected because it prices differently is meant to, as the spec says by now."""
    return rejected.reason in ACKNOWLEDGEABLE and this.spec.verification.acknowledged_revision == rejected.revision


# --- inside -----------------------------------------------------------------------------------------------------------


def _take(this: Pass, draft: Draft, asked: Subject) -> None:
    status, options = draft.status, this.spec.verification.options
    # A pass that asked for the first time may not have committed that it did.
    known = asked.known or _begun(this, asked)
    answers = prices_of(this.samples, PRICES)
    if isinstance(answers, SourceError):
        if asked.unsettled:
            draft.status = replace(status, verification=_failed_attempt(known, answers.message, this.now))
    elif answers is not None and asked.unsettled:
        # The answer to an attempt before this one says nothing new.
        if answers.question.identity == asked.identity(options):
            finding = compare(
                answers.question, answers, tolerance=this.spec.verification.tolerance, accepted=_named(this, known)
            )
            _take_everything(this, draft, known, finding)
    elif (
        answers is not None and known.verdict is VerificationVerdict.PASS and asked.stable and _is_ours(answers, asked)
    ):
        tolerance = this.spec.verification.tolerance
        _take_sample(this, draft, known, _compared_sample(answers, tolerance, _named(this, known)))


def _is_ours(answers: PriceAnswers, asked: Subject) -> bool:
    """It is a sample of these two revisions."""
    return is_sample(answers.question) and answers.question.identity.startswith(asked.sides)


@lru_cache(maxsize=64)
def _compared_sample(answers: PriceAnswers, tolerance: float, accepted: bool) -> Finding:
    """Remembered, because the same answers are there in every pass until others come."""
    return compare(answers.question, answers, tolerance=tolerance, accepted=accepted)


def _take_everything(this: Pass, draft: Draft, known: VerificationStatus, finding: Finding) -> None:
    now, canary = this.now, draft.status.canary is not None
    shown = replace(
        known, time=now, reason=finding.reason, message=cut(finding.message, MESSAGE_LIMIT), protocol=finding.protocol,
        tolerance=this.spec.verification.tolerance,
        stable=known.stable if finding.stable_asked else "", compared=finding.compared, styles=finding.styles,
        stable_pods=finding.stable_pods[:STABLE_POD_LIMIT], worst=finding.worst, attempts=known.attempts + 1,
        retry_time=None, suspicion="", pods=(), fallbacks=finding.fallbacks,
    )  # fmt: skip
    match finding.verdict:
        case VerificationVerdict.ERROR:
            shown = _failed_attempt(known, finding.message, now)
        case VerificationVerdict.FAIL if canary and not finding.stable_asked and finding.also <= UNCERTAIN:
            # Nobody else was asked: it may be upstream. It has no weight, and is asked again.
            shown = replace(
                _failed_attempt(known, finding.message, now), verdict=VerificationVerdict.PENDING,
                suspicion=finding.reason,
            )  # fmt: skip
        case VerificationVerdict.FAIL if finding.also & UNCERTAIN and known.suspicion not in UNCERTAIN:
            shown = _to_be_confirmed(shown, finding.reason, now)
        case _ if finding.meant:
            shown = replace(
                shown, verdict=VerificationVerdict.PASS, acknowledged_time=now, pods=finding.pods[-POD_LINE_LIMIT:],
                message=_as_accepted(finding.message),
            )  # fmt: skip
            draft.normal(*_acknowledged(known.revision, finding.message))
        case VerificationVerdict.FAIL:
            shown = replace(
                shown, verdict=VerificationVerdict.FAIL,
                message=cut(_with_way_out(finding, known.revision if canary else ""), MESSAGE_LIMIT),
            )  # fmt: skip
            if not canary:
                draft.warning(finding.reason, f"first revision {known.revision}: {finding.message}")
        case VerificationVerdict.NOT_APPLICABLE:
            shown = replace(shown, verdict=VerificationVerdict.NOT_APPLICABLE)
            draft.normal("VerificationNotApplicable", f"revision {known.revision}: {finding.message}")
        case _ if finding.stable_fails and known.suspicion != UNAVAILABLE:
            shown = _to_be_confirmed(shown, UNAVAILABLE, now)
        case _:
            shown = replace(shown, verdict=VerificationVerdict.PASS, pods=finding.pods[-POD_LINE_LIMIT:])
            draft.normal("PricesVerified", f"revision {known.revision}: {finding.message}")
    draft.status = replace(draft.status, verification=shown)


def _to_be_confirmed(shown: VerificationStatus, suspicion: str, now: datetime) -> VerificationStatus:
    retry = now + timedelta(seconds=CONFIRM_SECONDS)
    return replace(shown, verdict=VerificationVerdict.PENDING, suspicion=suspicion, retry_time=retry)


def _take_sample(this: Pass, draft: Draft, known: VerificationStatus, finding: Finding) -> None:
    """What a few prices of a verified revision show. Only what is certain counts; a pod that is away is not news."""
    if finding.verdict is VerificationVerdict.FAIL:
        failed = replace(
            known, verdict=VerificationVerdict.FAIL, time=this.now, reason=finding.reason, worst=finding.worst,
            tolerance=this.spec.verification.tolerance,
            message=cut(f"in traffic, {_with_way_out(finding, known.revision)}", MESSAGE_LIMIT),
        )  # fmt: skip
        draft.status = replace(draft.status, verification=failed)
        return
    if finding.verdict is not VerificationVerdict.PASS:
        return
    here = {pod.name for pod in this.observed.pods_of(known.revision)}
    fresh = tuple(pod for pod in finding.pods if pod not in known.pods)
    due = known.sample_time is None or this.now >= known.sample_time + timedelta(seconds=SAMPLE_NOTE_SECONDS)
    if not fresh and not due:
        return
    pods = (*(pod for pod in known.pods if pod in here), *fresh)[-POD_LINE_LIMIT:]
    draft.status = replace(draft.status, verification=replace(known, pods=pods, sample_time=this.now))


def _named(this: Pass, known: VerificationStatus) -> bool:
    """The spec names this very revision, or did: another model's prices are meant."""
    return known.acknowledged_time is not None or this.spec.verification.acknowledged_revision == known.revision


def _with_way_out(finding: Finding, revision: str) -> str:
    if not revision or not finding.also <= ACKNOWLEDGEABLE:
        return finding.message
    return (
        f"{finding.message}. If this revision is meant to price differently, write spec.verification."
        f"acknowledgedRevision: {revision}"
    )


def _failed_attempt(known: VerificationStatus, message: str, now: datetime) -> VerificationStatus:
    wait = min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2 ** min(known.attempts, 8))
    return replace(
        known, verdict=VerificationVerdict.ERROR, time=now, reason=UNAVAILABLE, message=cut(message, MESSAGE_LIMIT),
        attempts=known.attempts + 1, retry_time=now + timedelta(seconds=wait),
    )  # fmt: skip
