"""A canary that fails: is it the revision, or something that fails for everybody at this moment?

**Beside stable** the answers to clients tell, but few clients reach a canary with little traffic: the third failure of
three requests a second takes a second. So from the first ones on pods of both revisions are asked as well. That takes a
tenth of a second, and stands in their counters as what clients get: nothing else has to be looked at, and a canary
that answers has lost nothing.

**During the bake** no stable pod answers clients, so their answers cannot tell. But stable's pods still run. As soon as
the canary's counts would reject it, pods of both revisions are asked for the same prices at the same moment, which
takes a tenth of a second, and their answers decide:

| canary's pods | stable's pods | |
|---|---|---|
| fail more often, beyond chance | | the revision goes |
| fail | as well, at least half as often | upstream, if it explains the clients' errors: they are held against nobody |
| answer | answer | it is over: the same. If clients fail on and on while no pod does, it is what clients ask: it goes |

"Beyond chance" is the evidence of `log_evidence_above_stable`, which holds however often one looks. Until the answers
tell one of the three, the same pods are asked once more and all answers are added up: a few of them say nothing of a
fault that hits one request in ten.

They are asked as well when a canary with all traffic falls silent, or fails a sample of prices that stable's pod
answers: clients of a server that hangs get no bad answer that could be counted. Then the pods' answers alone speak
against it, so they must do so twice, `CONFIRM` apart, and late ones count only if the others are fast or none come at
all: a canary that has too much to do is no worse than an idle stable.

Whatever cannot be asked (no interface for prices, no answer within `OPINION_PATIENCE`, no pod of stable) does not
protect: then the counts decide alone, because a revision that fails all clients must not stay for want of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto
from math import inf, log
from statistics import median

from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.gates.sequential import Counts, log_evidence_above_stable
from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.samples import (
    PodPrices,
    PriceAnswers,
    PriceFault,
    PriceQuestion,
    PriceReply,
    Samples,
    prices_of,
)
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.values import MESSAGE_LIMIT, DoubtStatus, RolloutStatus
from pinn_operator.core.text import cut
from pinn_operator.core.verification.questions import (
    OPINION_PATIENCE,
    PRICES,
    SUSPECTED_AGAIN,
    Subject,
    asked_at,
    second_opinion,
    subject_of,
)

ANSWER = timedelta(seconds=1.0)
"""Beside stable, what clients got waits for the pods' answers for so long."""
FORGOTTEN = 4 * OPINION_PATIENCE
"""A doubt of so long ago that no answer settled was of something that passed."""
AS_OFTEN = 0.5
"""Stable's share of bad answers, beside the canary's, from which on it is not the canary's fault."""
SURE = log(400.0)
"""Evidence that the canary's pods fail more often than stable's: by chance in one of 400 such doubts at most."""
TELLING, MOST_ROUNDS = 6.0, 6
"""So many bad answers are expected of the canary's pods, if they fail as they fail clients, before none of them tells
that they do not (chance leaves e⁻⁶); and so often they are asked for that at most."""
UNEXPLAINED = 2
"""Times in a row that clients may get bad answers while no pod gives the operator any, or nobody hears what they do."""
MOMENT_SECONDS, UNEXPLAINED_SECONDS = 3.0, 60.0
"""Between two such times, at least and at most: what passes by itself comes again hours later."""
SLOW_MOMENT_SECONDS = 12.0
"""The same for slow answers, at least."""
PASSES_SECONDS = 120.0
"""A bound that is exceeded for longer was not exceeded by a moment that is over: a minute is looked at."""
QUIET_SECONDS = 60.0
"""Between two events about the same."""
SILENT_AGAIN = timedelta(seconds=30.0)
"""After pods have answered well, the same suspicion is no reason to ask again before that."""
UPSTREAM_AGAIN = timedelta(seconds=2.0)
"""After pods of both have failed, they are not asked again before that."""
EXPLAINS = 0.25
"""The pods' share of bad answers, beside that of the clients, from which on the one can explain the other."""
STEADY = 0.1
"""A share of bad answers to clients that is no moment's: over all of the time that counts."""
BAD_BESIDE = 2, 0.1
"""Bad answers of stable's pods, and their share, from which on it is upstream what the canary's newest answers show."""
CONFIRM, LAPSED = timedelta(seconds=5.0), timedelta(seconds=60.0)
"""Between two times that the pods' answers alone speak against a canary, at least and at most."""
FAST_SECONDS = 0.25
"""A canary with all traffic answers so fast unless it has too much of it, and that would be stable's fate as well."""


class Heard(Enum):
    """What the answers of pods of both revisions say."""

    AGAINST = auto()
    UPSTREAM = auto()
    NOTHING = auto()
    TOO_LITTLE = auto()


def ask_if_suspected(this: Pass, draft: Draft) -> None:
    """Have pods of both revisions asked now: the canary's newest answers beside stable's are those of a dead one; or it
    has fallen silent, or has all traffic and failed to answer the operator what stable did."""
    rollout = draft.rollout
    doubt = rollout.doubt
    suspected = this.judgement.suspected or (rollout.weight == 100 and _failed_a_sample(this, draft))
    if rollout.weight == 0:
        return
    if doubt is not None and doubt.against_time is not None and doubt.time <= doubt.against_time:
        if this.now < doubt.against_time + CONFIRM:
            return
    elif not suspected or (doubt is not None and this.now < doubt.time + _patience(doubt)):
        return
    begun = _asked_again(doubt, this.now, rollout.weight)
    if _question_of(this, draft, begun) is not None:
        draft.change_rollout(replace(rollout, doubt=begun))


def in_doubt(this: Pass, draft: Draft, fault: Condemnation) -> bool:
    """Whether `fault` is not to be acted on in this pass: pods are being asked, or have just spoken for the canary."""
    if draft.rollout.weight < 100:
        return fault.share is not None and _in_doubt_beside_stable(this, draft)
    if not fault.alone:
        return False
    doubt = draft.rollout.doubt
    if doubt is not None and _was_upstream(doubt) and this.now < (doubt.settled_time or this.now) + UPSTREAM_AGAIN:
        return True
    if doubt is None or not doubt.open or this.now >= doubt.time + FORGOTTEN:
        unheard = doubt is not None and doubt.open
        if doubt is not None and unheard and _unexplained(doubt, this.now) + 1 >= UNEXPLAINED:
            # Passes that come rarely must not ask without end.
            return False
        begun = _asked_again(doubt, this.now, 100, unheard=unheard)
        if _question_of(this, draft, begun) is None:
            return False
        draft.change_rollout(replace(draft.rollout, doubt=begun))
        return True
    if _question_of(this, draft, doubt) is None:
        return False
    answers = _answers_to(this, draft, doubt)
    if answers is None:
        return True
    doubt = summed(doubt, answers, slower_than=fault.slower_than or inf)
    match heard(doubt, fault.share if fault.slower_than is None else None):
        case Heard.AGAINST:
            return False
        case Heard.TOO_LITTLE:
            _ask_once_more(this, draft, doubt)
        case Heard.UPSTREAM:
            _settle(this, draft, replace(doubt, unexplained=0, unexplained_time=None))
        case Heard.NOTHING if fault.lasted > PASSES_SECONDS:
            return False
        case Heard.NOTHING:
            moment = doubt.unexplained_time
            # What clients got at one moment is read in several pieces, and a slow answer is read when it has come.
            apart = MOMENT_SECONDS if fault.slower_than is None else SLOW_MOMENT_SECONDS
            is_news = moment is None or this.now >= moment + timedelta(seconds=apart)
            unexplained = _unexplained(doubt, this.now) + is_news if is_steady(fault.share, fault.lasting) else 1
            if unexplained >= UNEXPLAINED:
                return False
            _settle(
                this, draft,
                replace(doubt, unexplained=unexplained, unexplained_time=this.now if is_news else moment),
            )  # fmt: skip
    return True


def _was_upstream(doubt: DoubtStatus) -> bool:
    return not doubt.open and not doubt.unexplained and doubt.settled_time == newest_end(doubt)


def is_steady(share: float | None, lasting: float | None) -> bool:
    """Whether clients get bad answers all the time, and not now and then for a moment: `share` of those that speak
    against the canary, `lasting` of all that count."""
    return share is None or lasting is None or lasting >= min(STEADY, AS_OFTEN * share)


def _in_doubt_beside_stable(this: Pass, draft: Draft) -> bool:
    """Whether pods are being asked, or have just told of a fault upstream: then what clients got at that moment speaks
    of no revision. Whatever else they say, it is for the counts to decide."""
    doubt = draft.rollout.doubt
    if doubt is None or not doubt.open or this.now >= doubt.time + ANSWER:
        return False
    answers = _answers_to(this, draft, doubt)
    if answers is None:
        return _question_of(this, draft, doubt) is not None
    return _hear_beside_stable(this, draft, doubt, answers)


def _hear_beside_stable(this: Pass, draft: Draft, doubt: DoubtStatus, answers: PriceAnswers) -> bool:
    """Whether it was upstream."""
    now = summed(_counted_anew(doubt), answers)
    fewest, share = BAD_BESIDE
    upstream = heard(now, None) is Heard.UPSTREAM and now.stable_bad >= max(fewest, share * now.stable_requests)
    doubt = replace(summed(doubt, answers), rounds=0)
    if upstream:
        _settle(this, draft, replace(doubt, against_time=None))
        return True
    _answered(this, draft, doubt)
    return False


def answers_before(doubt: DoubtStatus, samples: Samples, now: datetime) -> tuple[Counts, Counts]:
    """Of the canary and of stable to the operator's own requests beside stable, as they were known when this moment
    began: a second look at the same moment finds what the first one found."""
    told = Counts(doubt.canary_requests, doubt.canary_bad), Counts(doubt.stable_requests, doubt.stable_bad)
    answers = prices_of(samples, PRICES)
    if not isinstance(answers, PriceAnswers) or not _heard_now(doubt, answers.question, now):
        return told
    slow = doubt.slower_than
    new = summed(_counted_anew(doubt), of_reached(answers) if slow else answers, slower_than=slow or inf)
    return _less(told[0], new.canary_requests, new.canary_bad), _less(told[1], new.stable_requests, new.stable_bad)


def _heard_now(doubt: DoubtStatus, question: PriceQuestion, now: datetime) -> bool:
    """Whether the answers to that question were added up in this very moment."""
    word = "slow" if doubt.slower_than else "doubt"
    if newest_end(doubt) == now:
        return f"/{word}/{doubt.asked}/" in question.identity
    return doubt.time == now and doubt.rounds > 0 and f"/{word}/{doubt.asked - 1}/" in question.identity


def _less(counts: Counts, total: float, bad: float) -> Counts:
    left = max(0.0, counts.total - total)
    return Counts(left, min(left, max(0.0, counts.bad - bad)))


def _counted_anew(doubt: DoubtStatus) -> DoubtStatus:
    return replace(doubt, rounds=0, canary_bad=0, canary_requests=0, stable_bad=0, stable_requests=0)


def hear_answers(this: Pass, draft: Draft) -> Condemnation | None:
    """What pods say that were asked a moment ago, though nothing that clients got is a fault in this very pass.

    Returns:
        Why the canary must go, if its pods fail and stable's do not.
    """
    doubt = draft.rollout.doubt
    if doubt is None or not doubt.open or draft.rollout.weight == 0:
        return None
    answers = _answers_to(this, draft, doubt)
    if answers is None:
        return None
    beside = draft.rollout.weight < 100
    if beside and _hear_beside_stable(this, draft, doubt, answers):
        return None
    kept = draft.rollout.doubt if beside else None
    reached = of_reached(answers)
    late = this.judgement.suspected or _answers_fast(reached)
    total = summed(_counted_anew(doubt) if beside else doubt, reached, late=late)
    match heard(total, None):
        case Heard.AGAINST:
            first = doubt.against_time
            if first is None or not CONFIRM <= this.now - first <= LAPSED:
                # A pause of a node or of the process is over then.
                _answered(this, draft, replace(kept or total, against_time=this.now))
                return None
            return Condemnation(
                reason="PriceErrors", message=_said(total), value=f"{total.canary_bad} of {total.canary_requests}",
                limit=f"stable {total.stable_bad} of {total.stable_requests}",
            )  # fmt: skip
        case Heard.TOO_LITTLE if not beside:
            _ask_once_more(this, draft, total)
        case Heard.UPSTREAM if not beside:
            _settle(this, draft, replace(total, unexplained=0, unexplained_time=None))
        case _:
            _answered(this, draft, replace(kept or total, against_time=None))
    return None


def unanswered(this: Pass, draft: Draft) -> bool:
    """Whether it is still to be heard from the pods if a canary with all traffic is well: clients get no answers any
    more, or its pods have failed the operator once."""
    doubt = draft.rollout.doubt
    if doubt is not None and doubt.against_time is not None and this.now <= doubt.against_time + LAPSED:
        return True
    if not this.judgement.suspected or _question_of(this, draft, DoubtStatus(this.now)) is None:
        return False
    answered = doubt.answered_time if doubt is not None else None
    return answered is None or this.now > answered + 2 * SILENT_AGAIN


def _patience(doubt: DoubtStatus) -> timedelta:
    """Before the same suspicion is a reason to ask again; where no client asks for anything any more, it stays so."""
    return SILENT_AGAIN if not doubt.open and doubt.answered_time == newest_end(doubt) else SUSPECTED_AGAIN


def newest_end(doubt: DoubtStatus) -> datetime | None:
    return max(filter(None, (doubt.settled_time, doubt.answered_time)), default=None)


def _answered(this: Pass, draft: Draft, doubt: DoubtStatus) -> None:
    """What clients got counts as before."""
    answered = replace(doubt, answered_time=this.now, message=cut(_said(doubt), MESSAGE_LIMIT))
    draft.change_rollout(replace(draft.rollout, doubt=answered))


def of_reached(answers: PriceAnswers) -> PriceAnswers:
    """What was answered, or not, by pods that take connections: the others may be cut off from the operator alone."""
    reached = (
        replace(item, replies=tuple(it for it in item.replies if it.fault is not PriceFault.UNREACHABLE))
        for item in answers.pods
    )
    return replace(answers, pods=tuple(item for item in reached if item.replies))


def _answers_fast(answers: PriceAnswers) -> bool:
    """Whether the canary's good answers are fast: others that are late hang then, and do not wait for their turn."""
    seconds = [
        reply.seconds for item in answers.pods if item.pod.canary for reply in item.replies if not _failed(reply)
    ]
    return bool(seconds) and median(seconds) <= FAST_SECONDS


def _failed_a_sample(this: Pass, draft: Draft) -> bool:
    """Whether the canary's pod failed the last sample of prices, and stable's pod, asked at that moment, did not."""
    answers, rollout = prices_of(this.samples, PRICES), draft.rollout
    # What was asked before this weight was written says nothing of it.
    if this.now <= rollout.weight_time or not isinstance(answers, PriceAnswers):
        return False
    if not asked_at(answers.question, rollout.weight):
        return False
    ours, _ = bad_among(item for item in answers.pods if item.pod.canary)
    theirs, of_theirs = bad_among(item for item in answers.pods if not item.pod.canary)
    return ours > 0 and of_theirs > 0 and not theirs


def _answers_to(this: Pass, draft: Draft, doubt: DoubtStatus) -> PriceAnswers | None:
    """None as long as they are not there."""
    return answers_to(this, _question_of(this, draft, doubt))


def answers_to(this: Pass, question: PriceQuestion | None) -> PriceAnswers | None:
    """None as long as they are not there, or where nothing can be asked."""
    answers = prices_of(this.samples, PRICES)
    if question is None or not isinstance(answers, PriceAnswers):
        return None
    return answers if answers.question.identity == question.identity else None


def _asked_again(doubt: DoubtStatus | None, now: datetime, weight: int, *, unheard: bool = False) -> DoubtStatus:
    """The doubt as it begins now; `unheard`: nobody heard what the pods had answered before."""
    if doubt is None:
        return DoubtStatus(now)
    # Beside stable the answers stand in the pods' counters: whoever wants to know what clients got takes them off.
    doubt = doubt if weight < 100 else _counted_anew(doubt)
    return replace(
        doubt, time=now, unexplained=_unexplained(doubt, now) + unheard, asked=doubt.asked + 1,
        unexplained_time=now if unheard else doubt.unexplained_time,
    )  # fmt: skip


def _unexplained(doubt: DoubtStatus, now: datetime) -> int:
    """How many such times there were in the last moments."""
    newest = doubt.unexplained_time
    return doubt.unexplained if newest and now <= newest + timedelta(seconds=UNEXPLAINED_SECONDS) else 0


def _question_of(this: Pass, draft: Draft, doubt: DoubtStatus) -> PriceQuestion | None:
    """What is asked, or would be; None where nothing can be."""
    return question_with(this, draft, replace(draft.rollout, doubt=doubt), second_opinion)


Opinion = Callable[[Situation, Subject, datetime], PriceQuestion | None]


def question_with(this: Pass, draft: Draft, rollout: RolloutStatus, opinion: Opinion) -> PriceQuestion | None:
    """What `opinion` asks in a rollout that is in this state; None where nothing can be asked."""
    status = replace(draft.status, rollout=rollout)
    situation = Situation(replace(this.resource, status=status), this.observed, this.spec, this.target)
    asked = subject_of(situation)
    return opinion(situation, asked, this.now) if asked is not None else None


def heard(doubt: DoubtStatus, share: float | None) -> Heard:
    """What the answers say by now; `share` of those to clients were bad, or nobody knows."""
    ours, theirs = Counts(doubt.canary_requests, doubt.canary_bad), Counts(doubt.stable_requests, doubt.stable_bad)
    if log_evidence_above_stable(ours, theirs, margin=0.0) >= SURE:
        return Heard.AGAINST
    alike = ours.bad > 0 and theirs.bad > 0 and theirs.bad * ours.total >= AS_OFTEN * ours.bad * theirs.total
    if alike and theirs.bad >= EXPLAINS * (share or 0.0) * theirs.total:
        return Heard.UPSTREAM
    as_little = max(ours.share or 0.0, theirs.share or 0.0) <= EXPLAINS * (share or 0.0)
    nothing = as_little and ours.total * (share or 1.0) >= TELLING
    return Heard.NOTHING if nothing or doubt.rounds >= MOST_ROUNDS else Heard.TOO_LITTLE


def _ask_once_more(this: Pass, draft: Draft, doubt: DoubtStatus) -> None:
    draft.change_rollout(replace(draft.rollout, doubt=replace(doubt, time=this.now, asked=doubt.asked + 1)))


def _settle(this: Pass, draft: Draft, doubt: DoubtStatus) -> None:
    """What clients got until now is held against nobody."""
    said = _said(doubt)
    settled = replace(doubt, settled_time=this.now, message=cut(said, MESSAGE_LIMIT))
    draft.change_rollout(replace(draft.rollout, doubt=settled))
    if doubt.settled_time is None or this.now >= doubt.settled_time + timedelta(seconds=QUIET_SECONDS):
        draft.warning("FaultUpstream", f"revision {draft.canary.revision} is not held to what clients got: {said}")


def _said(doubt: DoubtStatus) -> str:
    return (
        f"of the operator's own requests the canary failed {doubt.canary_bad} of {doubt.canary_requests}, "
        f"stable {doubt.stable_bad} of {doubt.stable_requests}"
    )


def summed(
    doubt: DoubtStatus, answers: PriceAnswers, *, late: bool = True, slower_than: float = inf
) -> DoubtStatus:  # fmt: skip
    """With the answers that were awaited; `late`: those that did not come in time are bad ones, not left out."""
    ours, theirs = ([item for item in answers.pods if item.pod.canary is canary] for canary in (True, False))
    bad, requests = bad_among(ours, late=late, slower_than=slower_than)
    bad_beside, beside = bad_among(theirs, late=late, slower_than=slower_than)
    return replace(
        doubt, rounds=doubt.rounds + 1,
        canary_bad=doubt.canary_bad + bad, canary_requests=doubt.canary_requests + requests,
        stable_bad=doubt.stable_bad + bad_beside, stable_requests=doubt.stable_requests + beside,
    )  # fmt: skip


def bad_among(pods: Iterable[PodPrices], *, late: bool = True, slower_than: float = inf) -> tuple[int, int]:
    """Bad answers and requests; a pod that gave none at all is one bad answer."""
    bad = requests = 0
    for item in pods:
        replies = [reply for reply in item.replies if late or reply.fault is not PriceFault.SLOW]
        requests += len(replies) if item.replies else 1
        bad += sum(_failed(reply) or reply.seconds > slower_than for reply in replies) if item.replies else 1
    return bad, requests


def _failed(reply: PriceReply) -> bool:
    """Another status than 200, no answer, or one that is none: what a pod refuses, one of the other refuses as well."""
    return bool(reply.fault) or reply.status != 200
