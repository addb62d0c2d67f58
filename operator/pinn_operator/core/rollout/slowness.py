"""A canary that seems slow beside stable: its pods are asked as well, and stable's at the same moment.

Clients tell late: an answer that takes three seconds is counted after three seconds, and few clients reach a canary.
But an answer that has not come after twice the bound from which on it is slow is a slow one, whenever it comes. So pods
of both are asked some thirty times each, up to `MOST_ROUNDS` times in a row, and nobody waits longer than that.

What clients got and what the operator got are e-values of different requests, so their product is one too: their
logarithms are added. Of the operator's own there is one e-process at a weight, over all that was asked at it. They must
say something, in two rounds at least: a pause of a node or of a process is over then.

Slow answers come in clusters as bad ones do. A pod that gives mostly slow ones at a time gives one cluster, and where
stable's answers to clients show clusters, the operator's own evidence is that of as many fewer (`dispersion`).

What was asked may stand in the pods' counters as what clients get, so all of it is taken off both revisions, the slow
answers as well. Some servers count no request that nobody waits for any more: of these clients' slow answers are taken
off too, so what is left says too little, and never too much. The operator's own can reject a canary alone then.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import inf

from pinn_operator.core.gates.evidence import Window, log_evidence_of_tails
from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.rollout.doubt import answers_to, bad_among, newest_end, of_reached, question_with, summed
from pinn_operator.core.rollout.draft import Draft, Pass
from pinn_operator.core.samples import PriceAnswers
from pinn_operator.core.status.values import MESSAGE_LIMIT, DoubtStatus
from pinn_operator.core.text import cut
from pinn_operator.core.verification.questions import OPINION_SECONDS, slow_opinion
from pinn_operator.core.wanted.spec import Relative

SAYS = 3.0
"""Nats that the operator's own requests must say, whatever clients got."""
SEEMS_SLOW = 1.5
"""Nats that clients' answers say, before pods are asked: about two slow ones of twenty where stable has none."""
FEWEST_ROUNDS, MOST_ROUNDS = 2, 12
AGAIN = timedelta(seconds=30.0)
"""After that many rounds pods are not asked again before that."""


def ask_if_slow(this: Pass, draft: Draft) -> None:
    """Have pods of both revisions asked now, if the canary's answers to clients seem slow."""
    rollout, slow = draft.rollout, this.judgement.slowness
    if slow is None or slow.lateness.evidence < SEEMS_SLOW or not 0 < rollout.weight < 100:
        return
    if slow.lateness.bound > OPINION_SECONDS:
        # Nobody waits so long for an answer: a slow one could not be told from one that is within the bound.
        return
    doubt = rollout.slowness
    if doubt is not None and this.now < max(doubt.time, newest_end(doubt) or doubt.time) + AGAIN:
        return
    bound = slow.lateness.bound
    begun = (
        DoubtStatus(this.now, slower_than=bound)
        if doubt is None
        else replace(doubt, time=this.now, asked=doubt.asked + 1, rounds=0, slower_than=bound)
    )
    asked = replace(rollout, slowness=begun)
    if question_with(this, draft, asked, slow_opinion) is not None:
        draft.change_rollout(asked)


def hear_slowness(this: Pass, draft: Draft) -> Condemnation | None:
    """Why the canary must go, if what clients got and what its pods have just answered suffice together."""
    rollout = draft.rollout
    doubt = rollout.slowness
    if doubt is None or not doubt.open or not 0 < rollout.weight < 100:
        return None
    answers = answers_to(this, question_with(this, draft, rollout, slow_opinion))
    if answers is None:
        return None
    reached, bound = of_reached(answers), doubt.slower_than or inf
    doubt = _scattered(summed(doubt, reached, slower_than=bound), reached, bound)
    slow, told = this.judgement.slowness, doubt.rounds >= FEWEST_ROUNDS
    own = said_by(doubt, slow.lateness.relative) / slow.lateness.clusters if slow is not None else 0.0
    if slow is not None and told and own >= SAYS and slow.lateness.evidence + own >= slow.lateness.needed:
        return replace(slow.fault, message=f"{slow.fault.message}; {_said(doubt)}")
    if (told and own <= 0) or doubt.rounds >= MOST_ROUNDS:
        doubt = replace(doubt, answered_time=this.now, message=cut(_said(doubt), MESSAGE_LIMIT))
    else:
        doubt = replace(doubt, time=this.now, asked=doubt.asked + 1)
    draft.change_rollout(replace(rollout, slowness=doubt))
    return None


def said_by(doubt: DoubtStatus, relative: Relative) -> float:
    """Nats that the operator's own requests say against the canary; 0 where it is not slower than tolerated."""
    canary = Counts(doubt.canary_requests, doubt.canary_scattered)
    stable = Counts(doubt.stable_requests, doubt.stable_scattered)
    return log_evidence_of_tails(Window(1.0, canary, stable), relative=relative)


def _scattered(doubt: DoubtStatus, answers: PriceAnswers, bound: float) -> DoubtStatus:
    """With what these answers say of slow ones among quick ones. A pod that stands still makes all of a moment slow, as
    many as are asked then: that is one such moment."""
    ours = theirs = 0
    for item in answers.pods:
        bad, requests = bad_among((item,), slower_than=bound)
        counted = 1 if 2 * bad > requests else bad
        ours, theirs = ours + counted * item.pod.canary, theirs + counted * (not item.pod.canary)
    return replace(
        doubt, canary_scattered=doubt.canary_scattered + ours, stable_scattered=doubt.stable_scattered + theirs
    )


def _said(doubt: DoubtStatus) -> str:
    return (
        f"of the operator's own requests the canary took longer than {doubt.slower_than:g} s for {doubt.canary_bad} of "
        f"{doubt.canary_requests}, stable for {doubt.stable_bad} of {doubt.stable_requests}"
    )
