"""Whether a revision's prices are right: compared with stable, with what no price may be, and with themselves.

Tolerances are in `…tolerances`, no-arbitrage in `…arbitrage`, errors and slow answers in `…waves`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Final

from pinn_operator.core.samples import (
    PodPrices,
    PriceAnswers,
    PriceFault,
    PriceOption,
    PriceProtocol,
    PriceQuestion,
    PriceReply,
    Quote,
)
from pinn_operator.core.status.verification import WORST_LIMIT, PriceCell, VerificationVerdict
from pinn_operator.core.text import cut
from pinn_operator.core.verification.arbitrage import arbitrage
from pinn_operator.core.verification.grid import grid, ordinary
from pinn_operator.core.verification.tolerances import apart, price_allowance
from pinn_operator.core.verification.waves import errors, slow_limit, slowness

FALLBACK_SHARE: Final = 0.1
"""Of the options that stable's model priced: so many may come from a fallback of the canary."""
COVERAGE: Final = 0.5
"""Of the options asked for: so many must be comparable, or nothing was shown."""
SPORADIC: Final = 0.01
"""Of the requests: with more errors than that a few options fail each time by chance."""
FALLBACKS: Final = frozenset({"closed_form", "integral_equation", "backward_induction", "fallback"})

NOT_FINITE: Final = "PricesNotFinite"
NOT_REPRODUCIBLE: Final = "PricesNotReproducible"
PODS_DIFFER: Final = "PodsDiffer"
DIFFER: Final = "PricesDiffer"
ARBITRAGE: Final = "PricesArbitrage"
FALLS_BACK: Final = "PricesFallBack"
API_MISSING: Final = "PriceApiMissing"
ERRORS: Final = "PriceErrors"
SLOW: Final = "PricesSlow"
UNAVAILABLE: Final = "VerificationUnavailable"
MATCH: Final = "PricesMatch"
CONSISTENT: Final = "PricesConsistent"
NO_API: Final = "NoPriceApi"

ACKNOWLEDGEABLE: Final = frozenset({DIFFER, ARBITRAGE, FALLS_BACK, API_MISSING})
"""What a revision may be meant to do. Chance, NaN and errors are meant by nobody."""
UNCERTAIN: Final = frozenset({ERRORS, SLOW})
"""What a second attempt must confirm: a machine can be the cause of it once."""
_ORDER: Final = (NOT_FINITE, NOT_REPRODUCIBLE, PODS_DIFFER, DIFFER, ARBITRAGE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one set of answers shows."""

    verdict: VerificationVerdict
    reason: str
    message: str
    also: frozenset[str] = frozenset()
    """Every reason for which it fails."""
    worst: tuple[PriceCell, ...] = ()
    protocol: str = ""
    compared: int = 0
    styles: str = ""
    pods: tuple[str, ...] = ()
    """The canary's pods that answered well."""
    stable_pods: tuple[str, ...] = ()
    stable_asked: bool = False
    """Pods of stable were asked, whatever came of it."""
    stable_fails: bool = False
    """All that they answered is errors, so the canary was compared with nothing."""
    fallbacks: int = 0
    """Of the options that are asked again in traffic, so many the canary's model did not price itself."""
    meant: bool = False
    """It would fail, but only for what the spec accepts."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A value out of tolerance."""

    reason: str
    quantity: str
    option: int
    pod: str
    canary: float | None
    expected: float | None
    tolerance: float

    @property
    def excess(self) -> float:
        if self.canary is None or self.expected is None or self.tolerance <= 0:
            return 1e9
        distance = abs(self.canary - self.expected) / self.tolerance
        return min(distance, 1e9) if isfinite(distance) else 1e9


@dataclass(frozen=True, slots=True)
class _Priced:
    """The quotes of one pod by option, those asked for alone first."""

    name: str
    quotes: Mapping[int, Sequence[Quote]]

    def first(self, option: int) -> Quote | None:
        found = self.quotes.get(option)
        return found[0] if found else None

    @property
    def firsts(self) -> dict[int, Quote]:
        return {option: quotes[0] for option, quotes in self.quotes.items()}


def compare(question: PriceQuestion, answers: PriceAnswers, *, tolerance: float, accepted: bool = False) -> Finding:
    """What the answers show.

    Args:
        question: what was asked; its options are those of `grid`.
        answers: what came back, in whatever state.
        tolerance: of the strike, beside the error bounds.
        accepted: what a revision may be meant to do fails nothing, and is only said.
    """
    canaries = [item for item in answers.pods if item.pod.canary]
    # A stable revision from before there was such an interface is compared with nothing; nor is one that is broken,
    # or else it would keep its fix waiting.
    stables = [item for item in answers.pods if not item.pod.canary and not _lacks_api(item)]
    if stables and all(map(_only_fails, stables)):
        stables = []
    missing = _without_api(canaries, stables)
    if missing is not None:
        return _as_meant(missing) if accepted and missing.also else missing
    tested, known = [_priced(item) for item in canaries], [_priced(item) for item in stables]
    faults = list(_faults(question, tested, known, tolerance))
    refused = _always(canaries, known, lambda reply: 400 <= reply.status < 500 and reply.status != 429)
    faults.extend(_Fault(DIFFER, "refused", option, pod, None, quote.price, 0.0) for pod, option, quote, _ in refused)
    shown = _Shown(question, answers, canaries, stables, tested, known)
    failed = _failed(question, faults, shown) if faults else None
    if failed is None and question.waves and (fallback := _fallback(tested, known)) is not None:
        failed = shown.finding(VerificationVerdict.FAIL, FALLS_BACK, fallback, also=frozenset({FALLS_BACK}))
    if failed is not None and not (accepted and failed.also <= ACKNOWLEDGEABLE):
        return failed
    # What few answers to a verified revision show of errors is in its pods' counters, which are judged by their number.
    if question.waves and (worse := _worse(question, answers, known)) is not None:
        return shown.finding(VerificationVerdict.FAIL, *worse, also=frozenset({worse[0]}))
    if (unavailable := _unavailable(question, answers, canaries, stables, tested, known)) is not None:
        return shown.finding(VerificationVerdict.ERROR, UNAVAILABLE, unavailable)
    return shown.passed() if failed is None else _as_meant(failed)


def _as_meant(failed: Finding) -> Finding:
    if not failed.also <= ACKNOWLEDGEABLE:
        return failed
    return replace(failed, verdict=VerificationVerdict.PASS, meant=True)


class _Shown:
    """What a finding says of the answers, whatever the verdict."""

    def __init__(
        self, question: PriceQuestion, answers: PriceAnswers, canaries: Sequence[PodPrices],
        stables: Sequence[PodPrices], tested: Sequence[_Priced], known: Sequence[_Priced],
    ) -> None:  # fmt: skip
        self.question, self.answers = question, answers
        priced = {option for item in tested for option in item.quotes}
        both = priced & {option for item in known for option in item.quotes}
        self.compared = len(both)
        self.priced = len(priced)
        american = {question.options[option].american for option in priced}
        self.styles = ", ".join(name for name, here in (("european", False), ("american", True)) if here in american)
        self.pods = tuple(item.pod.name for item in canaries if _answers_well(item))
        self.stable_pods = tuple(item.pod.name for item in stables if _answers_well(item))
        self.protocol = next((str(item.protocol) for item in canaries if item.protocol), "")
        self.known = bool(known)
        self.absent = [item for item in answers.pods if not item.pod.canary] if not stables else []
        asked_again = ordinary(len(question.options)) if question.waves else ()
        self.fallbacks = max((_fallen(item, asked_again) for item in tested), default=0)

    def finding(
        self, verdict: VerificationVerdict, reason: str, message: str, *, also: frozenset[str] = frozenset(),
        worst: tuple[PriceCell, ...] = (),
    ) -> Finding:  # fmt: skip
        return Finding(
            verdict, reason, message, also=also, worst=worst, protocol=self.protocol, compared=self.compared,
            styles=self.styles, pods=self.pods, stable_pods=self.stable_pods, fallbacks=self.fallbacks,
            stable_asked=self.known or bool(self.absent), stable_fails=any(map(_only_fails, self.absent)),
        )  # fmt: skip

    def passed(self) -> Finding:
        took = _times(self.answers)
        if self.known:
            text = (
                f"{self.compared} options ({self.styles}) of {_names(self.pods)} agree with {_names(self.stable_pods)}"
                f" in price and Greeks, and with each other{took}"
            )
            return self.finding(VerificationVerdict.PASS, MATCH, text)
        text = (
            f"{self.priced} options ({self.styles}) of {_names(self.pods)} allow no arbitrage and agree with each "
            f"other; {self._why_alone()}{took}"
        )
        return self.finding(VerificationVerdict.PASS, CONSISTENT, text)

    def _why_alone(self) -> str:
        if not self.absent:
            return "there was no stable revision to compare them with"
        why = "fails each request" if any(map(_only_fails, self.absent)) else "has no interface for prices"
        return f"they are compared with nothing, stable {why} ({_complaint(self.absent[0])})"


# --- no interface, no answer ------------------------------------------------------------------------------------------


def _without_api(canaries: Sequence[PodPrices], stables: Sequence[PodPrices]) -> Finding | None:
    """Prices cannot be asked for. A canary that lacks what stable offers fails; so do pods that are not alike."""
    lacking = [item for item in canaries if _lacks_api(item)]
    if not lacking:
        return None
    words = f"{lacking[0].pod.name}: {lacking[0].message or _complaint(lacking[0])}"
    offering = [item for item in (*stables, *canaries) if any(reply.good for reply in item.replies)]
    if not offering:
        text = f"prices cannot be compared, the server takes neither /v1/price nor the Open Inference Protocol: {words}"
        return Finding(VerificationVerdict.NOT_APPLICABLE, NO_API, text)
    other = offering[0].pod
    reason = PODS_DIFFER if other.canary else API_MISSING
    text = f"pods of the canary do not answer for prices, {other.name} does: {words}"
    return Finding(VerificationVerdict.FAIL, reason, text, also=frozenset({reason}))


def _lacks_api(item: PodPrices) -> bool:
    """It has no interface for prices, or refuses every request as one that it does not understand."""
    if item.protocol is PriceProtocol.NONE:
        return True
    return bool(item.replies) and all(400 <= reply.status < 500 and reply.status != 429 for reply in item.replies)


def _only_fails(item: PodPrices) -> bool:
    """It takes requests, and each of them ends in an error of its own."""
    return bool(item.replies) and all(reply.status >= 500 for reply in item.replies)


def _complaint(item: PodPrices) -> str:
    reply = next((reply for reply in item.replies if not reply.good), None)
    if reply is None:
        return item.message or "no answer"
    status = f"status {reply.status}: " if reply.status not in (0, 200) else ""
    return cut(f"{status}{reply.message or reply.fault or 'an error'}", 200)


def _answers_well(item: PodPrices) -> bool:
    return bool(item.replies) and any(reply.good for reply in item.replies)


def _unavailable(
    question: PriceQuestion, answers: PriceAnswers, canaries: Sequence[PodPrices], stables: Sequence[PodPrices],
    tested: Sequence[_Priced], known: Sequence[_Priced],
) -> str | None:  # fmt: skip
    """Why nothing was shown, in words."""
    for item in (*canaries, *stables):
        fault = _first_fault(item)
        # Of the pods beside the ones that are asked in full, those that answered are verified, the others later.
        if fault is not None and (item.pod.full or not any(_answers_well(other) for other in canaries)):
            return f"pod {item.pod.name} could not be asked for prices: {fault}"
    asked = {option for wave in question.waves for request in wave for option in request} | set(question.sample)
    if not answers.complete:
        return (
            f"the pods took more than {question.timeout_seconds:g} s for {len(asked)} options: make "
            "spec.verification.timeoutSeconds larger, or spec.verification.options smaller"
        )
    priced = {option for item in tested for option in item.quotes}
    shared = priced & {option for item in known for option in item.quotes} if known else priced
    if len(shared) < COVERAGE * len(asked):
        words = next((_complaint(item) for item in (*canaries, *stables) if not all(r.good for r in item.replies)), "")
        return f"only {len(shared)} of {len(asked)} options were priced: {words}"
    return None


def _first_fault(item: PodPrices) -> str | None:
    """What is not the revision's fault, or cannot be told from it."""
    for reply in item.replies:
        if reply.fault in (PriceFault.UNREACHABLE, PriceFault.UNREADABLE):
            return reply.message or str(reply.fault)
    return None if item.replies else item.message or "no answer"


def _worse(question: PriceQuestion, answers: PriceAnswers, known: Sequence[_Priced]) -> tuple[str, str] | None:
    """Errors or slow answers, beside stable's."""
    failing = errors(answers.pods)
    if failing.worse:
        text = f"{failing.bad} of {failing.requests} requests failed ({failing.example})"
        return ERRORS, f"{text}, of stable {failing.stable_bad} of {failing.stable_requests}"
    slow = slowness(answers.pods)
    if slow.worse:
        limit = slow_limit(answers.pods)
        than = f"slower than {limit:.3g} s" if limit is not None else "without an answer in time"
        text = f"{slow.bad} of {slow.requests} answers were {than} ({slow.example})"
        return SLOW, f"{text}, of stable {slow.stable_bad} of {slow.stable_requests}"
    failed = _always(answers.pods, known, lambda reply: reply.status >= 500 or reply.status == 429)
    # Where any option fails now and then, some fail each time by chance.
    elsewhere = failing.bad - sum(bad for *_, bad in failed)
    if failed and elsewhere <= SPORADIC * failing.requests:
        pod, option, *_ = failed[0]
        return ERRORS, f"{len(failed)} options fail each time, first {describe(question.options[option])} of {pod}"
    return None


# --- prices -----------------------------------------------------------------------------------------------------------


def _priced(item: PodPrices) -> _Priced:
    found: dict[int, list[Quote]] = {}
    for alone in (True, False):
        for reply in item.replies:
            if reply.good and (len(reply.options) == 1) is alone:
                for option, quote in zip(reply.options, reply.quotes, strict=True):
                    found.setdefault(option, []).append(quote)
    return _Priced(item.pod.name, found)


def _faults(
    question: PriceQuestion, tested: Sequence[_Priced], known: Sequence[_Priced], tolerance: float
) -> Iterator[_Fault]:
    structure = grid(len(question.options))
    excused = {
        (breach.rule, breach.option)
        for pod in known
        for breach in arbitrage(question.options, structure, pod.firsts, tolerance=tolerance)
    }
    for pod in tested:
        yield from _not_finite(pod, known)
        yield from _not_reproducible(question.options, pod, tolerance)
        for reference in known[:1]:
            yield from _difference(question.options, pod, reference, tolerance)
        for breach in arbitrage(question.options, structure, pod.firsts, tolerance=tolerance):
            # What stable's prices do too is no reason against this revision.
            if (breach.rule, breach.option) not in excused:
                yield _Fault(
                    ARBITRAGE, breach.rule, breach.option, pod.name, breach.value, breach.bound, breach.allowed
                )
    for first, other in pairwise(tested):
        yield from _unlike(question.options, first, other, tolerance)


def _not_finite(pod: _Priced, known: Sequence[_Priced]) -> Iterator[_Fault]:
    for option, quotes in pod.quotes.items():
        for quote in quotes:
            bad = [(name, value) for name, value in _values(quote) if value is not None and not isfinite(value)]
            reference = known[0].first(option) if known else None
            if bad and not (reference and any(v is not None and not isfinite(v) for _, v in _values(reference))):
                yield _Fault(NOT_FINITE, bad[0][0], option, pod.name, None, None, 0.0)
                break


def _not_reproducible(options: Sequence[PriceOption], pod: _Priced, tolerance: float) -> Iterator[_Fault]:
    for option, quotes in pod.quotes.items():
        terms = options[option]
        for quote in quotes[1:]:
            found = apart(terms, quotes[0], quote, tolerance * terms.strike)
            if found is not None:
                name, before, after, allowed = found
                yield _Fault(NOT_REPRODUCIBLE, f"{name}, asked again", option, pod.name, after, before, allowed)
                break


def _unlike(
    options: Sequence[PriceOption], first: _Priced, other: _Priced, tolerance: float
) -> Iterator[_Fault]:  # fmt: skip
    for option in other.quotes:
        left, right = first.first(option), other.first(option)
        if left is not None and right is not None:
            found = apart(options[option], left, right, tolerance * options[option].strike)
            if found is not None:
                name, before, after, allowed = found
                yield _Fault(PODS_DIFFER, f"{name}, {first.name}'s", option, other.name, after, before, allowed)


def _difference(
    options: Sequence[PriceOption], pod: _Priced, reference: _Priced, tolerance: float
) -> Iterator[_Fault]:  # fmt: skip
    for option in pod.quotes:
        ours, theirs = pod.first(option), reference.first(option)
        if ours is None or theirs is None:
            continue
        terms = options[option]
        found = apart(terms, theirs, ours, price_allowance(terms, ours, theirs, tolerance=tolerance))
        if found is not None:
            name, before, after, allowed = found
            yield _Fault(DIFFER, name, option, pod.name, after, before, allowed)


def _values(quote: Quote) -> tuple[tuple[str, float | None], ...]:
    return (
        ("price", quote.price), ("delta", quote.delta), ("gamma", quote.gamma), ("vega", quote.vega),
        ("theta", quote.theta), ("rho", quote.rho),
    )  # fmt: skip


# --- methods and refusals ---------------------------------------------------------------------------------------------


def _fallback(tested: Sequence[_Priced], known: Sequence[_Priced]) -> str | None:
    """The canary falls back for options that stable's model prices."""
    if not known:
        return None
    by_model = [
        option for option in known[0].quotes
        if (quote := known[0].first(option)) is not None and quote.method not in FALLBACKS and quote.method
    ]  # fmt: skip
    for pod in tested:
        methods = [quote.method for option in by_model if (quote := pod.first(option)) is not None]
        fallen = sum(method in FALLBACKS for method in methods)
        if fallen > FALLBACK_SHARE * len(methods):
            example = next(method for method in methods if method in FALLBACKS)
            return (
                f"{pod.name} prices {fallen} of {len(methods)} options by {example} that {known[0].name} prices by its "
                f"model: at most {FALLBACK_SHARE:.0%} may fall back"
            )
    return None


def _fallen(pod: _Priced, options: Iterable[int]) -> int:
    """How many of these options came from a fallback."""
    return sum((quote := pod.first(option)) is not None and quote.method in FALLBACKS for option in options)


def _always(
    pods: Iterable[PodPrices], known: Sequence[_Priced], bad: Callable[[PriceReply], bool]
) -> list[tuple[str, int, Quote, int]]:
    """Options that stable prices and a pod of the canary answers badly each time, and more than once.

    Pod, option, stable's quote, and the number of its bad answers.
    """
    found = []
    for item in pods:
        if not item.pod.canary:
            continue
        times = Counter(option for reply in item.replies if bad(reply) for option in reply.options)
        alone = Counter(reply.options[0] for reply in item.replies if len(reply.options) == 1 and bad(reply))
        priced = _priced(item).quotes
        for option, count in alone.items():
            reference = next((quote for pod in known if (quote := pod.first(option)) is not None), None)
            if count > 1 and option not in priced and reference is not None:
                found.append((item.pod.name, option, reference, times[option]))
    return found


# --- words ------------------------------------------------------------------------------------------------------------


def _failed(question: PriceQuestion, faults: Sequence[_Fault], shown: _Shown) -> Finding:
    reasons = [reason for reason in _ORDER if any(fault.reason == reason for fault in faults)]
    worst = _worst(question.options, faults)
    count = {reason: len({fault.option for fault in faults if fault.reason == reason}) for reason in reasons}
    texts = {
        DIFFER: f"{count.get(DIFFER, 0)} of {shown.compared} options differ from stable's",
        ARBITRAGE: f"{count.get(ARBITRAGE, 0)} options allow arbitrage",
        NOT_FINITE: f"{count.get(NOT_FINITE, 0)} options have no finite price or Greek",
        NOT_REPRODUCIBLE: f"{count.get(NOT_REPRODUCIBLE, 0)} options are priced otherwise when asked again",
        PODS_DIFFER: f"pods of the revision price {count.get(PODS_DIFFER, 0)} options differently",
    }
    text = "; ".join(texts[reason] for reason in reasons)
    return shown.finding(
        VerificationVerdict.FAIL, reasons[0], f"{text}. Worst: {in_words(worst[0])}", also=frozenset(reasons),
        worst=worst,
    )  # fmt: skip


def _worst(options: Sequence[PriceOption], faults: Sequence[_Fault]) -> tuple[PriceCell, ...]:
    """One row for each option and reason, the furthest out first."""
    rows: dict[tuple[int, str], _Fault] = {}
    for fault in sorted(faults, key=lambda item: -item.excess):
        rows.setdefault((fault.option, fault.reason), fault)
    return tuple(
        PriceCell(
            describe(options[fault.option]), fault.quantity, fault.pod, fault.canary, fault.expected, fault.tolerance,
            float(f"{fault.excess:.4g}"),
        )
        for fault in list(rows.values())[:WORST_LIMIT]
    )  # fmt: skip


def describe(option: PriceOption) -> str:
    """An option in one line."""
    style, kind = "american" if option.american else "european", "call" if option.call else "put"
    return (
        f"{style} {kind} S={option.spot:g} K={option.strike:g} T={option.maturity:g} r={option.rate:g} "
        f"q={option.dividend:g} σ={option.volatility:g}"
    )


def in_words(cell: PriceCell) -> str:
    """A cell in one line."""
    given = "none" if cell.canary is None else f"{cell.canary:.8g}"
    if cell.expected is None:
        return f"{cell.quantity} of {cell.option} is not finite"
    return (
        f"{cell.quantity} of {cell.option} is {given}, expected {cell.expected:.8g} ± {cell.tolerance:.2g} "
        f"({cell.excess:.3g} times the tolerance)"
    )


def _times(answers: PriceAnswers) -> str:
    """The median time of a single answer, of both."""
    texts = []
    for name, canary in (("canary", True), ("stable", False)):
        times = sorted(
            reply.seconds for item in answers.pods if item.pod.canary is canary
            for reply in item.replies if reply.good and len(reply.options) == 1
        )  # fmt: skip
        if times:
            texts.append(f"{name} {1000 * times[len(times) // 2]:.2g} ms")
    if all(item.pod.canary for item in answers.pods):
        # The first revision is no canary.
        texts = [text.removeprefix("canary ") for text in texts]
    return f"; median answer: {', '.join(texts)}" if texts else ""


def _names(pods: Sequence[str]) -> str:
    return ", ".join(pods[:3]) + (f" and {len(pods) - 3} more" if len(pods) > 3 else "")
