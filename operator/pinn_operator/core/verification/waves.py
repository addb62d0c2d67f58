"""Whether a revision answers worse than stable: with errors, or slowly.

Both are asked the same questions wave by wave, at the same moments. A wave counts against the canary when some canary
pod had a bad answer in it and no stable pod had, and for it the other way round; waves in which both or neither had
one say nothing. When the revisions are alike and as many pods of each are asked, one is as likely as the other,
whatever the machine does meanwhile and however bad answers cluster: what is bet on the next such wave being the
canary's, at nine to one, multiplies as a fair game, and exceeds 100 with probability at most 1 % however often it is
looked at (Ville's inequality; Shafer, "Testing by betting", J. R. Stat. Soc. A 184 (2021), §2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log
from typing import Final, TypeAlias

from pinn_operator.core.gates.sequential import Counts, log_evidence_above_limit
from pinn_operator.core.samples import PodPrices, PriceFault, PriceReply
from pinn_operator.core.text import cut

SLOW_FLOOR: Final = 1.0
"""Seconds. No answer to a single question that is quicker counts as slow, whatever stable does."""
SLOW_RATIO: Final = 3.0
"""Slower than this many times stable's 95 % quantile of the same questions."""
ENOUGH: Final = log(100.0)
"""Evidence at which one attempt is held against the revision; a second must confirm it, which makes 1 in 10,000."""
_Test: TypeAlias = Callable[[PriceReply], bool]
_STAKE: Final = 0.9
_GIVEN_UP: Final = 8
"""Requests without a usable answer after which a pod is not asked any more."""
_LOOK_EVERY: Final = 4
_ALONE_LIMIT: Final = 0.1
"""Without a stable revision: more than this share of waves is too many."""


@dataclass(frozen=True, slots=True)
class Answering:
    """How the canary answers beside stable, in one respect."""

    requests: int
    bad: int
    stable_requests: int
    stable_bad: int
    evidence: float
    """Natural logarithm of the evidence that the canary is worse."""
    example: str = ""
    """The first bad answer in words."""

    @property
    def worse(self) -> bool:
        """There is enough evidence."""
        return self.evidence >= ENOUGH


def errors(pods: Iterable[PodPrices]) -> Answering:
    """Answers with another status than 200. One that never came, or cannot be read, is not one of them."""
    return _compare(pods, lambda reply: reply.status not in (0, 200), lambda reply: reply.status != 0)


def slowness(pods: Iterable[PodPrices]) -> Answering:
    """Single questions that took too long, or had no answer in the time of one request."""
    pods = tuple(pods)
    limit = slow_limit(pods)

    def slow(reply: PriceReply) -> bool:
        return reply.fault is PriceFault.SLOW or (limit is not None and reply.seconds > limit)

    return _compare(
        pods, slow, lambda reply: len(reply.options) == 1 and reply.fault is not PriceFault.UNREACHABLE
    )  # fmt: skip


def slow_limit(pods: Iterable[PodPrices]) -> float | None:
    """From how many seconds on a single answer is slow; None without a stable pod that answers."""
    times = sorted(
        reply.seconds
        for item in pods if not item.pod.canary
        for reply in item.replies
        if len(reply.options) == 1 and (reply.status or reply.fault is PriceFault.SLOW)
    )  # fmt: skip
    return max(SLOW_FLOOR, SLOW_RATIO * times[int(0.95 * (len(times) - 1))]) if times else None


def worth_a_look(wave: int, seconds: float) -> bool:
    """Whether to find out after this wave, which took so long, if what more of them could show is `settled`.

    That takes as long as some quick waves do, and is nothing beside a slow one.
    """
    return wave % _LOOK_EVERY == 0 or seconds >= SLOW_FLOOR


def settled(pods: Iterable[PodPrices]) -> bool:
    """What more answers could show is known already: the canary answers worse, or a pod gives no usable ones."""
    pods = tuple(pods)
    unusable = (PriceFault.UNREACHABLE, PriceFault.UNREADABLE)
    if any(sum(reply.fault in unusable for reply in item.replies) >= _GIVEN_UP for item in pods):
        return True
    return errors(pods).worse or slowness(pods).worse


def sign_evidence(against: int, in_favour: int) -> float:
    """Natural logarithm of what betting on the canary's being worse has won."""
    return against * log(2 * _STAKE) + in_favour * log(2 * (1 - _STAKE))


class _Judge:
    """Counts requests and bad ones, and remembers the waves of both."""

    def __init__(self) -> None:
        self.requests = self.bad = 0
        self.waves: set[int] = set()
        self.bad_waves: set[int] = set()
        self.example = ""

    def add(self, pod: str, reply: PriceReply, bad: bool) -> None:
        self.requests += 1
        self.waves.add(reply.wave)
        if not bad:
            return
        self.bad += 1
        self.bad_waves.add(reply.wave)
        if not self.example:
            what = f"status {reply.status}" if reply.status not in (0, 200) else f"{reply.seconds:.3g} s"
            self.example = f"{pod}: {what}{': ' if reply.message else ''}{cut(reply.message, 120)}"


def _compare(pods: Iterable[PodPrices], is_bad: _Test, counts: _Test) -> Answering:
    canary, stable = _Judge(), _Judge()
    for item in pods:
        if not item.pod.full:
            continue
        judge = canary if item.pod.canary else stable
        for reply in item.replies:
            if counts(reply):
                judge.add(item.pod.name, reply, is_bad(reply))
    if stable.requests:
        both = canary.waves & stable.waves
        against = len((canary.bad_waves - stable.bad_waves) & both)
        in_favour = len((stable.bad_waves - canary.bad_waves) & both)
        evidence = sign_evidence(against, in_favour)
    else:
        counted = Counts(len(canary.waves), len(canary.bad_waves))
        evidence = log_evidence_above_limit(counted, limit=_ALONE_LIMIT)
    return Answering(
        canary.requests, canary.bad, stable.requests, stable.bad, evidence, canary.example
    )  # fmt: skip
