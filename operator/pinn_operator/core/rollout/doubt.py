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
| fail | fail as well, at least half as often | it is upstream: what clients got so far is held against nobody |
| answer | answer | it is over: the same. If clients fail again and again no pod does, it is what clients ask: it goes |

"Beyond chance" is the evidence of `log_evidence_above_stable`, which holds however often one looks. Until the answers
tell one of the three, the same pods are asked once more and all answers are added up: a few of them say nothing of a
fault that hits one request in ten.

Whatever cannot be asked (no interface for prices, no answer within `OPINION_PATIENCE`, no pod of stable) does not
protect: then the counts decide alone, because a revision that fails all clients must not stay for want of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from math import log

from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.gates.sequential import Counts, log_evidence_above_stable
from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.samples import PodPrices, PriceAnswers, PriceQuestion, PriceReply, prices_of
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.values import MESSAGE_LIMIT, DoubtStatus
from pinn_operator.core.text import cut
from pinn_operator.core.verification.questions import (
    OPINION_PATIENCE,
    PRICES,
    SUSPECTED_AGAIN,
    second_opinion,
    subject_of,
)

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
QUIET_SECONDS = 60.0
"""Between two events about the same."""


def ask_if_suspected(this: Pass, draft: Draft) -> None:
    """Have pods of both revisions asked now, if the canary's newest answers beside stable's are those of a dead one."""
    rollout = draft.rollout
    doubt = rollout.doubt
    if not this.judgement.suspected or not 0 < rollout.weight < 100:
        return
    if doubt is not None and this.now < doubt.time + SUSPECTED_AGAIN:
        return
    begun = _asked_again(doubt, this.now)
    if _question_of(this, draft, begun) is not None:
        draft.change_rollout(replace(rollout, doubt=begun))


def in_doubt(this: Pass, draft: Draft, fault: Condemnation) -> bool:
    """Whether `fault` is not to be acted on in this pass: pods are being asked, or have just spoken for the canary."""
    if not fault.alone or draft.rollout.weight != 100:
        return False
    doubt = draft.rollout.doubt
    if doubt is None or not doubt.open or this.now >= doubt.time + FORGOTTEN:
        unheard = doubt is not None and doubt.open
        if doubt is not None and unheard and _unexplained(doubt, this.now) + 1 >= UNEXPLAINED:
            # Passes that come rarely must not ask without end.
            return False
        begun = _asked_again(doubt, this.now, unheard=unheard)
        if _question_of(this, draft, begun) is None:
            return False
        draft.change_rollout(replace(draft.rollout, doubt=begun))
        return True
    if _question_of(this, draft, doubt) is None:
        return False
    answers = _answers_to(this, draft, doubt)
    return answers is None or _settle(this, draft, doubt, answers, fault.share)


def hear_answers(this: Pass, draft: Draft) -> None:
    """What pods said that were asked a moment ago counts also if what clients get is no fault in this very pass."""
    doubt = draft.rollout.doubt
    if doubt is None or not doubt.open or draft.rollout.weight != 100:
        return
    answers = _answers_to(this, draft, doubt)
    if answers is not None:
        _settle(this, draft, doubt, answers, None)


def _answers_to(this: Pass, draft: Draft, doubt: DoubtStatus) -> PriceAnswers | None:
    """None as long as they are not there."""
    question, answers = _question_of(this, draft, doubt), prices_of(this.samples, PRICES)
    if question is None or not isinstance(answers, PriceAnswers):
        return None
    return answers if answers.question.identity == question.identity else None


def _asked_again(doubt: DoubtStatus | None, now: datetime, *, unheard: bool = False) -> DoubtStatus:
    """The doubt as it begins now; `unheard`: nobody heard what the pods had answered before."""
    if doubt is None:
        return DoubtStatus(now)
    return replace(
        doubt, time=now, unexplained=_unexplained(doubt, now) + unheard, asked=doubt.asked + 1,
        unexplained_time=now if unheard else doubt.unexplained_time,
        rounds=0, canary_bad=0, canary_requests=0, stable_bad=0, stable_requests=0,
    )  # fmt: skip


def _unexplained(doubt: DoubtStatus, now: datetime) -> int:
    """How many such times there were in the last moments."""
    newest = doubt.unexplained_time
    return doubt.unexplained if newest and now <= newest + timedelta(seconds=UNEXPLAINED_SECONDS) else 0


def _question_of(this: Pass, draft: Draft, doubt: DoubtStatus) -> PriceQuestion | None:
    """What is asked, or would be; None where nothing can be."""
    status = replace(draft.status, rollout=replace(draft.rollout, doubt=doubt))
    situation = Situation(replace(this.resource, status=status), this.observed, this.spec, this.target)
    asked = subject_of(situation)
    return second_opinion(situation, asked, this.now) if asked is not None else None


def _settle(this: Pass, draft: Draft, doubt: DoubtStatus, answers: PriceAnswers, clients: float | None) -> bool:
    """Whether the canary stays for now; `clients` is the share of bad answers that they got from it."""
    doubt = _summed(doubt, answers)
    ours, theirs = Counts(doubt.canary_requests, doubt.canary_bad), Counts(doubt.stable_requests, doubt.stable_bad)
    if log_evidence_above_stable(ours, theirs, margin=0.0) >= SURE:
        return False
    upstream = ours.bad > 0 and theirs.bad > 0 and theirs.bad * ours.total >= AS_OFTEN * ours.bad * theirs.total
    nothing = ours.bad + theirs.bad <= 0 and ours.total * (clients or 1.0) >= TELLING
    if not (upstream or nothing or doubt.rounds >= MOST_ROUNDS):
        draft.change_rollout(replace(draft.rollout, doubt=replace(doubt, time=this.now, asked=doubt.asked + 1)))
        return True
    before, moment = _unexplained(doubt, this.now), doubt.unexplained_time
    # What clients got at one moment is read in several pieces.
    is_news = moment is None or this.now >= moment + timedelta(seconds=MOMENT_SECONDS)
    unexplained = 0 if upstream else before + is_news
    if unexplained >= UNEXPLAINED:
        return False
    said = (
        f"of the operator's own requests the canary failed {ours.bad:.0f} of {ours.total:.0f}, "
        f"stable {theirs.bad:.0f} of {theirs.total:.0f}"
    )
    draft.change_rollout(
        replace(
            draft.rollout,
            doubt=replace(
                doubt,
                settled_time=this.now,
                unexplained=unexplained,
                message=cut(said, MESSAGE_LIMIT),
                unexplained_time=None if upstream else this.now if is_news else moment,
            ),
        )
    )
    if doubt.settled_time is None or this.now >= doubt.settled_time + timedelta(seconds=QUIET_SECONDS):
        draft.warning("FaultUpstream", f"revision {draft.canary.revision} is not held to what clients got: {said}")
    return True


def _summed(doubt: DoubtStatus, answers: PriceAnswers) -> DoubtStatus:
    """With the answers that were awaited."""
    ours, of_ours = _bad(item for item in answers.pods if item.pod.canary)
    theirs, of_theirs = _bad(item for item in answers.pods if not item.pod.canary)
    return replace(
        doubt, rounds=doubt.rounds + 1,
        canary_bad=doubt.canary_bad + ours, canary_requests=doubt.canary_requests + of_ours,
        stable_bad=doubt.stable_bad + theirs, stable_requests=doubt.stable_requests + of_theirs,
    )  # fmt: skip


def _bad(pods: Iterable[PodPrices]) -> tuple[int, int]:
    """Bad answers and requests; a pod that gave none at all is one bad answer."""
    bad = requests = 0
    for item in pods:
        requests += len(item.replies) or 1
        bad += sum(map(_failed, item.replies)) if item.replies else 1
    return bad, requests


def _failed(reply: PriceReply) -> bool:
    """It refused nothing, it failed: a status of 5xx or 429, no answer, or one that is none."""
    return bool(reply.fault) or reply.status >= 500 or reply.status == 429
