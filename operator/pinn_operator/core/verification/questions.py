"""Which prices a pass asks for. Pure: the same state and moment give the same question.

Before a revision gets weight its pods are asked everything: all options in lists, then each alone, then each alone
once more. That shows what a batch, a cache and a second look change, and gives hundreds of single requests by which
errors and slow answers are judged. As many stable pods are asked the same at the same moments. Once it has weight, a
small list is compared every `intervalSeconds`, another one each time, and each new pod is asked a sample when it is
ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Final

from pinn_operator.core.observed import Observed, Pod
from pinn_operator.core.samples import PricePod, PriceProtocol, PriceQuestion
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.json import POD_LINE_LIMIT
from pinn_operator.core.status.values import WATCHED, DoubtStatus, Phase, RolloutStatus, Status
from pinn_operator.core.status.verification import VerificationStatus, VerificationVerdict
from pinn_operator.core.verification.grid import grid, ordinary, sample
from pinn_operator.core.wanted.spec import Spec, Verification, VerificationMode

PRICES: Final = "prices"
"""The key of the question."""
FULL_PODS: Final = 2
"""So many pods of each revision are asked everything, of both the same number."""
OTHER_PODS: Final = 8
"""So many more of the canary are asked a sample in one go."""
LIST_OPTIONS: Final = 60
WAVE_REQUESTS: Final = 4
"""Requests to one pod at the same time."""
SAMPLE_OPTIONS: Final = 10
"""Prices of each pod in one sample: with stable's, 20 every `intervalSeconds`."""

NEW_POD_SAMPLES: Final = 3
"""A new pod is asked one, a pod beside it another, and the sample of that moment is asked again afterwards."""
ANSWERED_SECONDS: Final = 2.0
"""A sample that is due is asked and answered within this time."""

OPINION_PODS: Final = 4
"""So many pods of each revision are asked when the canary is in doubt."""
OPINION_TIMES: Final = 4
"""So often each of them, a single one twice as often."""
SLOW_ASKS: Final = 4
"""One time that pods are asked whether they are slow counts as so many others."""
BAKE_ANSWERS: Final = 32
"""So many answers of each revision are asked for in one go while the canary has all traffic: only they can tell."""
OPINION_SECONDS: Final = 1.0
"""For one of these requests."""
LEAST_PATIENCE_SECONDS: Final = 0.25
"""For one of those that ask whether a canary is slow: it is known after twice the bound."""
SUSPECTED_AGAIN: Final = timedelta(seconds=10.0)
"""So long after pods were asked beside stable they are not asked again."""
OPINION_PATIENCE: Final = timedelta(seconds=2.5)
"""For the answers of pods that may take twice as long as a request."""

Waves = tuple[tuple[tuple[int, ...], ...], ...]


def due_prices(situation: Situation, now: datetime) -> tuple[PriceQuestion, ...]:
    """The question about prices, if one is due."""
    question = price_question(situation, now)
    return () if question is None else (question,)


def price_question(situation: Situation, now: datetime) -> PriceQuestion | None:
    """The question that is due; None when nothing is to be asked, and what is being asked is to end."""
    spec, status = situation.spec, situation.resource.status
    asked = subject_of(situation)
    if spec is None or asked is None:
        return None
    if status.rollout is not None and asked.known is not None and asked.known.verdict is VerificationVerdict.PASS:
        opinion = second_opinion(situation, asked, now) or slow_opinion(situation, asked, now)
        if opinion is not None:
            return opinion
        return _sample(spec, status.rollout, situation.observed, asked, asked.known, now)
    if not asked.unsettled or (status.rollout is not None and status.rollout.weight > 0):
        return None
    return _everything(spec.verification, situation.observed, asked, now)


@dataclass(frozen=True, slots=True)
class Subject:
    """The revision whose prices are of interest, the one that it is compared with, and what is known of it."""

    revision: str
    stable: str
    """Empty for the first revision of a resource."""
    known: VerificationStatus | None

    @property
    def unsettled(self) -> bool:
        """It is still to be verified."""
        return self.known is None or self.known.verdict in (VerificationVerdict.PENDING, VerificationVerdict.ERROR)

    def identity(self, options: int) -> str:
        """Of the question for everything, at this attempt."""
        return f"{self.sides}{options}/{self.known.attempts if self.known is not None else 0}"

    @property
    def sides(self) -> str:
        """How the identity of each question about these two begins."""
        return f"{self.revision}/{self.stable}/"


def subject_of(situation: Situation) -> Subject | None:
    """Whose prices are of interest now; None where none are.

    The first revision of a resource serves whatever its prices are, as there is nothing else: they are looked at all
    the same, once.
    """
    spec, status = situation.spec, situation.resource.status
    if spec is None or spec.verification.mode is VerificationMode.OFF or status.stable is None:
        return None
    if status.rollout is not None and status.canary is not None:
        revision = status.canary.revision
        if status.phase not in WATCHED or situation.target not in (None, revision):
            return None
        return Subject(revision, status.stable.revision, verification_of(status, revision))
    first = not (status.history or status.last_rollback is not None or status.rejected is not None)
    if first and status.phase in (Phase.PENDING, Phase.STABLE):
        return Subject(status.stable.revision, "", verification_of(status, status.stable.revision))
    return None


def verification_of(status: Status, revision: str) -> VerificationStatus | None:
    """What is known of a revision's prices; of a canary's, what this rollout has shown."""
    known = status.verification
    if known is None or known.revision != revision:
        return None
    if status.rollout is not None and known.start_time < status.rollout.start_time:
        return None
    return known


def ready_pods(observed: Observed, revision: str) -> tuple[Pod, ...]:
    """The pods that can be asked, in the order of their names."""
    pods = (pod for pod in observed.living(revision) if pod.ready and pod.address)
    return tuple(sorted(pods, key=lambda pod: pod.name))


def new_pods(observed: Observed, known: VerificationStatus) -> tuple[Pod, ...]:
    """Ready pods of a verified revision that were not asked yet. Beyond the 20 that are remembered none is new."""
    if len(known.pods) >= POD_LINE_LIMIT:
        return ()
    return tuple(pod for pod in ready_pods(observed, known.revision) if pod.name not in known.pods)


@dataclass(frozen=True, slots=True)
class OwnQuestions:
    """What the operator itself asks the canary's pods at a weight: it stands in their counters, and is no client's.

    Every `seconds` one pod is asked a sample, the first one when the weight is written.
    """

    since: float = 0.0
    """Unix seconds when the weight was written."""
    seconds: float = 0.0
    """Between two samples; 0: nothing is asked."""
    more: int = 0
    """Samples beside these: of pods that are new at this weight."""
    asks: int = 0
    """How many times pods were asked because the canary was in doubt."""
    asked: float = 0.0
    """Unix seconds of the last of these."""
    each: int = 0
    """Samples that the pods of a revision were asked each time."""
    requests: int = 1
    """What one sample takes: the Open Inference Protocol has a model, and so a request, for each style."""
    options: int = SAMPLE_OPTIONS
    fallback_share: float = 0.0
    """Of these options, so many did not come from the revision's model when it was verified."""

    def samples(self, begin: float, end: float) -> int:
        """How many requests for prices are, at most, in counts that were read at these two moments (unix seconds)."""
        return self._regular(begin, end) + self._of_doubts(begin, end)

    def options_asked(self, begin: float, end: float) -> int:
        """How many options these were for: in doubt, each request is for one."""
        return self.options * self._regular(begin, end) + self._of_doubts(begin, end)

    def _regular(self, begin: float, end: float) -> int:
        if self.seconds <= 0 or end < self.since:
            return 0
        passed = max(0, ceil((begin - ANSWERED_SECONDS - self.since) / self.seconds))
        return max(0, 1 + int((end - self.since) / self.seconds) - passed) + self.more

    def _of_doubts(self, begin: float, end: float) -> int:
        """Those of a canary in doubt. Only when they were asked last is known: as many as fall to such a time."""
        if not self.asks or end < self.since or self.asked < begin - ANSWERED_SECONDS:
            return 0
        share = (end - begin + ANSWERED_SECONDS) / max(1.0, end - self.since)
        return self.each * max(1, int(self.asks * min(1.0, share)))


NO_QUESTIONS: Final = OwnQuestions()


def own_questions(spec: Spec, status: Status, observed: Observed, now: datetime) -> OwnQuestions:
    """What is asked at the present weight. It is no evidence of clients: whoever counts them subtracts it."""
    rollout = status.rollout
    if spec.verification.mode is VerificationMode.OFF or rollout is None or rollout.weight == 0:
        return NO_QUESTIONS
    known = verification_of(status, status.canary.revision) if status.canary is not None else None
    if known is None or known.verdict is not VerificationVerdict.PASS:
        return NO_QUESTIONS
    here = observed.living(known.revision)
    old = {it.name for it in here if it.ready and (it.ready_changed is None or it.ready_changed <= rollout.weight_time)}
    # Also those that are only asked now: what is told of them in this pass must not change what it counts.
    fresh = len({*known.pods, *(pod.name for pod in new_pods(observed, known))} - old)
    doubt, slowness, pods = rollout.doubt, rollout.slowness, max(1, min(OPINION_PODS, len(here)))
    asked_again = ordinary(spec.verification.options)
    both_styles = known.protocol == PriceProtocol.OPEN_INFERENCE and "," in known.styles
    return OwnQuestions(
        since=rollout.weight_time.timestamp(),
        seconds=float(spec.analysis.interval_seconds),
        more=fresh * NEW_POD_SAMPLES,
        # What is asked from this very moment on is in no count yet.
        asks=_asks(doubt, now) + SLOW_ASKS * _asks(slowness, now),
        asked=max((it.time.timestamp() for it in (doubt, slowness) if it is not None), default=0.0),
        # A sample that is interrupted by it is asked once more.
        each=pods * opinion_times(pods, rollout.weight) + 1,
        requests=2 if both_styles else 1,
        options=min(SAMPLE_OPTIONS, len(asked_again)),
        fallback_share=min(1.0, known.fallbacks / len(asked_again)),
    )


def _everything(verification: Verification, observed: Observed, asked: Subject, now: datetime) -> PriceQuestion | None:
    known = asked.known
    if known is not None and known.retry_time is not None and now < known.retry_time:
        return None
    canaries = ready_pods(observed, asked.revision)
    if not canaries:
        return None
    stables = ready_pods(observed, asked.stable) if asked.stable else ()
    full = min(FULL_PODS, len(canaries), len(stables) or FULL_PODS)
    others = canaries[full : full + OTHER_PODS]
    pods = (
        *(_pod(pod, canary=True, full=True) for pod in canaries[:full]),
        *(_pod(pod, canary=False, full=True) for pod in stables[:full]),
        *(_pod(pod, canary=True, full=False) for pod in others),
    )
    options = verification.options
    return PriceQuestion(
        key=PRICES,
        identity=asked.identity(options),
        options=grid(options).options,
        pods=pods,
        waves=waves(options),
        sample=sample(options, SAMPLE_OPTIONS, 0),
        timeout_seconds=float(verification.timeout_seconds),
        request_seconds=request_seconds(verification),
    )


def request_seconds(verification: Verification) -> float:
    """How long one request may take."""
    return max(2.0, verification.timeout_seconds / 90)


def _asks(doubt: DoubtStatus | None, now: datetime) -> int:
    return doubt.asked - (doubt.time >= now) if doubt is not None else 0


def _sample(
    spec: Spec, rollout: RolloutStatus, observed: Observed, asked: Subject, known: VerificationStatus, now: datetime
) -> PriceQuestion | None:
    verification, options = spec.verification, spec.verification.options
    fresh = new_pods(observed, known)[:OTHER_PODS]
    if rollout.weight == 0 and not fresh:
        return None
    canaries, stables = ready_pods(observed, asked.revision), ready_pods(observed, asked.stable)
    if not canaries:
        return None
    # Counted from the weight on, so that it can be told how many are in the counters of this weight.
    seconds = spec.analysis.interval_seconds
    before = int(max(0.0, (rollout.weight_time - rollout.start_time).total_seconds()) / seconds)
    turn = 1 + before + int(max(0.0, (now - rollout.weight_time).total_seconds()) / seconds)
    chosen = fresh or (canaries[turn % len(canaries)],)
    # A new pod is compared with stable, and with the canary's pods that were verified before.
    beside = (stables[turn % len(stables)],) if stables else ()
    old = tuple(pod for pod in canaries if pod.name in known.pods)[:1] if fresh else ()
    pods = (
        *(_pod(pod, canary=True, full=False) for pod in (*old, *chosen)),
        *(_pod(pod, canary=False, full=False) for pod in beside),
    )
    return PriceQuestion(
        key=PRICES,
        identity=f"{asked.sides}{options}/sample/{rollout.weight}/{turn}/{','.join(pod.name for pod in fresh)}",
        options=grid(options).options,
        pods=pods,
        waves=(),
        sample=sample_in_traffic(options, turn),
        timeout_seconds=2 * request_seconds(verification),
        request_seconds=request_seconds(verification),
        protocol=_protocol(known),
    )


def second_opinion(situation: Situation, asked: Subject, now: datetime) -> PriceQuestion | None:
    """What is asked of pods of both revisions while the canary is in doubt; None where that cannot be.

    Its answers to clients are bad, or were. Beside stable, more answers decide sooner; where it has all traffic, pods
    of stable that run but get none tell whether it is the revision or the moment.
    """
    rollout = situation.resource.status.rollout
    if rollout is None or rollout.doubt is None:
        return None
    return _opinion(situation, asked, rollout.doubt, "doubt", rollout.weight, now)


def slow_opinion(situation: Situation, asked: Subject, now: datetime) -> PriceQuestion | None:
    """The same of a canary that seems slow beside stable: as many answers as can tell, and none is awaited for long."""
    rollout = situation.resource.status.rollout
    if rollout is None or rollout.slowness is None or not 0 < rollout.weight < 100:
        return None
    return _opinion(situation, asked, rollout.slowness, "slow", 100, now)


def _opinion(
    situation: Situation, asked: Subject, doubt: DoubtStatus, word: str, weight: int, now: datetime
) -> PriceQuestion | None:  # fmt: skip
    spec, known = situation.spec, asked.known
    if spec is None or not doubt.open or known is None or now >= doubt.time + OPINION_PATIENCE:
        return None
    canaries, stables = ready_pods(situation.observed, asked.revision), ready_pods(situation.observed, asked.stable)
    if known.verdict is not VerificationVerdict.PASS or not canaries or not stables:
        return None
    options, chosen = spec.verification.options, canaries[:OPINION_PODS]
    pods = (
        *(_pod(pod, canary=True, full=False) for pod in chosen),
        # Of both as many: whoever leaves these requests out of the counts takes the same off both.
        *(_pod(pod, canary=False, full=False) for pod in stables[: len(chosen)]),
    )
    return PriceQuestion(
        key=PRICES,
        identity=f"{asked.sides}{options}/{word}/{doubt.asked}/{doubt.time.timestamp()}",
        options=grid(options).options,
        pods=pods,
        waves=(),
        sample=sample_in_traffic(options, int(doubt.time.timestamp()))[:1],
        timeout_seconds=2 * OPINION_SECONDS,
        request_seconds=patience_of(doubt),
        protocol=_protocol(known),
        sample_times=opinion_times(len(chosen), weight),
    )


def patience_of(doubt: DoubtStatus) -> float:
    """Seconds that one of these requests may take."""
    if doubt.slower_than is None:
        return OPINION_SECONDS
    return min(OPINION_SECONDS, max(LEAST_PATIENCE_SECONDS, 2 * doubt.slower_than))


def opinion_times(pods: int, weight: int) -> int:
    """How often each of so many pods of the canary is asked, and each of stable's."""
    if weight == 100:
        return ceil(BAKE_ANSWERS / pods)
    return max(OPINION_TIMES, ceil(2 * OPINION_TIMES / pods))


def _protocol(known: VerificationStatus) -> PriceProtocol:
    return next((it for it in PriceProtocol if it == known.protocol), PriceProtocol.UNKNOWN)


def sample_in_traffic(options: int, turn: int) -> tuple[int, ...]:
    """Indices into the grid: `SAMPLE_OPTIONS` of the ordinary ones, others at each turn."""
    chosen = ordinary(options)
    return tuple(chosen[place] for place in sample(len(chosen), SAMPLE_OPTIONS, turn))


def asked_at(question: PriceQuestion, weight: int) -> bool:
    """Whether it is one of the regular samples at this weight."""
    return f"/sample/{weight}/" in question.identity


def is_sample(question: PriceQuestion) -> bool:
    """Whether it is one of the small questions to a revision that is verified already."""
    return not question.waves


@lru_cache(maxsize=8)
def waves(options: int) -> Waves:
    """Everything that a pod is asked: all options in lists, each alone, and in another order each alone again."""
    # Neighbours in the grid are alike: mixed, so that a fault of a few options is not one of a few waves.
    order = sample(options, options, 0)
    lists = _pieces(tuple(range(options)), LIST_OPTIONS)
    return (
        *_waves([tuple(piece) for piece in lists]),
        *_waves([(index,) for index in order]),
        *_waves([(index,) for index in reversed(order)]),
    )


def _waves(requests: Sequence[tuple[int, ...]]) -> Waves:
    return tuple(tuple(requests[start : start + WAVE_REQUESTS]) for start in range(0, len(requests), WAVE_REQUESTS))


def _pieces(indices: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _pod(pod: Pod, *, canary: bool, full: bool) -> PricePod:
    return PricePod(pod.name, pod.address, canary=canary, full=full)
