"""Comparing a canary with stable: how much the counts say against it, and how much must be said to reject it.

Everything here is an e-value: a number that is never negative and whose expectation is at most 1 for a canary that is
not worse. It may be looked at as often as one likes: by Ville's inequality (J. Ville, "Étude critique de la notion de
collectif", 1939) an e-process ever exceeds 1/α with probability at most α. An average of e-values with fixed weights
is an e-value, whatever their dependence; so is each of them divided by a constant above 1.

Four e-values are averaged, each the best one in a situation of its own. The canary has a bad requests of n, stable b
of m; the canary's share is tolerated up to τ times stable's plus a margin. Adding margin/τ·m to b covers the margin
(E[c^Y] is smallest for a Y that is certain, by Jensen's inequality), so it is left out below.

1. *Errors only.* Of two Poisson streams, given that a bad request came, it is the canary's with probability
   π = τn/(τn + m), whatever the rate is, even if it changes with time on both sides at once (J. Przyborowski and
   H. Wilenski, "Homogeneity of results in testing samples from Poisson series", Biometrika 31 (1940)). Against a canary
   that is r times as bad, the likelihood ratio of a + b bad requests is r^a ((m + τn)/(m + rτn))^(a + b). No rate has
   to be estimated, so none has to be paid for. Counts of Bernoulli trials vary less than Poisson counts (in the convex
   order), and the ratio is convex in them: it stays an e-value.
2. *With a reference.* Stable's time before the window tells the rate too, as far as rates stand still. The common rate
   has a prior distribution under both hypotheses: what `Reference` remembers, as uncertain as it varied from minute to
   minute; with smaller weights a rate that moved, or shifted altogether; with a tiny one an outage, as likely as one a
   day makes it in a window of that length. The ratio of the two marginal likelihoods, a Bayes factor, has expectation 1
   under that prior (closed forms with Beta functions). Where stable has traffic beside the canary a rate that leaves
   the prior is seen on both sides, and does not speak against the canary. Where it has none (weight 100), only what
   neither a shift nor an outage explains does: that nearly everything fails since the weight rose.
3. *Universal inference*: the likelihood mixed over all shares of both sides, divided by the largest that the null
   allows (L. Wasserman, A. Ramdas and S. Balakrishnan, "Universal inference", PNAS 117 (2020), §3 and §7). It alone
   uses good requests as well, which counts when nearly all of the canary's are bad or when stable never fails.
4. *The dead canary*: 19 of 20 requests bad. A hypothesis so simple pays nothing for the choice among ratios.

Bad requests that come in clusters say less than their number. The logarithm is divided by the dispersion φ, the mean
size of the cluster that a bad request belongs to (quasi-likelihood; P. McCullagh and J. A. Nelder, "Generalized linear
models", 2nd ed. (1989), §9.2): it is then the evidence of as many clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, lgamma, log, log1p, log2, pi

from pinn_operator.core.gates.sequential import Counts, log_evidence_above_limit
from pinn_operator.core.wanted.spec import Relative

__all__ = [
    "Budget",
    "Comparison",
    "Counts",
    "Reference",
    "Window",
    "compare",
    "exceeds_limit",
    "log_evidence",
    "log_evidence_dead",
    "log_evidence_of_tails",
    "tails",
]

RATIOS = (1.5, 2.2, 3.2, 4.7, 7.0, 11.0, 22.0, 70.0)
"""How many times as bad a worse canary may be, as far as ratios go."""
RATIO_WEIGHTS = (0.06, 0.13, 0.19, 0.2, 0.16, 0.12, 0.08, 0.06)
TAIL_WEIGHTS = (0.04, 0.06, 0.1, 0.13, 0.15, 0.17, 0.17, 0.18)
"""Slow answers are rare by definition, so that a slow revision has many times as many."""
DEAD = 0.95
"""The share of bad requests of a dead canary."""
DEAD_SECONDS = 4.0
"""Windows up to this long look for a dead canary alone."""
OVERSHOOT = 0.6
"""At the moment of a decision the evidence has jumped beyond what was needed, because it grows by whole bad requests.
So a threshold of ln(1/p) is ever passed with a probability of νp, ν the mean of e to the minus overshoot, not of p
(T. L. Lai and D. Siegmund, "A nonlinear renewal theory with applications to sequential analysis I", Annals of
Statistics 5 (1977)). Simulated here, with looks at every bad request: ν is 0.48 to 0.58; larger is more patient."""
LEAST = 1e-6
"""So small a part of a bad request is a rounding error of whoever extrapolated it."""
FEWEST = 3.0
"""A recent window with fewer bad canary requests than this is not worth the arithmetic: it cannot decide."""
SHORTEST_SECONDS = 3.0
"""Other windows are at least twice as long."""

OUTAGES_PER_SECOND = 1 / 86400
"""How often everything fails at once, through no fault of either revision."""
OUTAGE_SECONDS = 15.0
"""How long that lasts on average."""
MOVED, SHIFTED = 0.15, 0.02
"""How likely it is that stable's share of bad requests moved by up to its size, or is another one, since before."""
SHIFT_SECONDS = 60.0
"""A shift in just the last few seconds is less likely, in proportion."""
MOVED_WORTH = 4.0
"""A share that moved is known as well as from this many bad requests: give or take a half."""

_UNIVERSAL, _REFERENCE, _ANY = 0.1, 0.65, 0.1
"""Weights of the e-values in their average; the rest is that of errors only. Within the one with a reference: the
weight of a canary that is as bad as it likes, whatever stable is."""
_LOG_UNIVERSAL, _LOG_REFERENCE, _LOG_ANY, _LOG_RATIOS = log(_UNIVERSAL), log(_REFERENCE), log(_ANY), log(1 - _ANY)
_Ratios = tuple[tuple[float, float, float], ...]
"""Logarithms of weights, ratios, and logarithms of these."""
_OF_ERRORS: _Ratios = tuple((log(w), ratio, log(ratio)) for w, ratio in zip(RATIO_WEIGHTS, RATIOS, strict=True))
_OF_TAILS: _Ratios = tuple((log(w), ratio, log(ratio)) for w, ratio in zip(TAIL_WEIGHTS, RATIOS, strict=True))


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of both revisions in the last `seconds`, and the bad ones among them.

    Stable's bad requests are counted over an interval that covers the canary's, its total in proportion to the
    canary's interval, so that what hit both is never the canary's alone.
    """

    seconds: float
    canary: Counts
    stable: Counts


@dataclass(frozen=True, slots=True)
class Reference:
    """What stable did before: requests, bad ones, and how far its share moved from minute to minute.

    `variation` is the coefficient of variation of its share of bad requests between minutes beyond what chance gives;
    `minutes` is how many minutes were looked at. A share that was seen for a moment alone may move by its own size.
    """

    total: float
    bad: float
    minutes: int = 1
    variation: float = 1.0

    @classmethod
    def of(cls, minutes: Sequence[Counts]) -> Reference | None:
        """From stable's counts minute by minute; None without requests."""
        seen = [counts for counts in minutes if counts.total > 0]
        total, bad = sum(counts.total for counts in seen), sum(counts.bad for counts in seen)
        if total <= 0:
            return None
        if len(seen) < 2 or bad < 1:
            return cls(total, bad, len(seen))
        share = bad / total
        # Method of moments for a Gamma mixture of Poisson counts: Var = mean + variation²·mean².
        excess = sum((counts.bad - share * counts.total) ** 2 - share * counts.total for counts in seen)
        squares = sum((share * counts.total) ** 2 for counts in seen)
        # One minute that was off by half its size is added: as long as few minutes were seen, little is known.
        return cls(total, bad, len(seen), (max(0.0, excess) / squares + 0.25 / len(seen)) ** 0.5)

    @property
    def prior(self) -> tuple[float, float]:
        """Parameters of the Beta distribution of stable's present share: bad and good requests that it is worth."""
        share = (self.bad + 0.5) / (self.total + 1.0)
        worth = min(self.bad + 0.5, 1.0 / max(self.variation, 1e-3) ** 2)
        return worth, worth * (1 - share) / share


@dataclass(frozen=True, slots=True)
class Budget:
    """The probability with which a good revision may be rejected, and how it is spent; nothing is spent twice.

    α = 1 − confidence is of the whole rollout. It is split (union bound):

    | over | shares |
    |---|---|
    | gates | the error rate 0.7 (all, if nothing else is compared), the rest in equal parts |
    | stages | the first time at a weight 0.7, the k-th after it 0.3·6/(π²k²); a step begun anew is one more |
    | latencies | what clients got 0.8; together with the operator's own requests 0.2 |
    | windows | the whole stage 0.85; the dead canary 0.06; all other recent windows 0.09 |
    | lengths | of the dead canary 1.5 and 3 s; of the others 6, 12, 24, … s up to the hold: equal parts |
    | time | the j-th window of s seconds, of N = hold/s, 1/N·(1 + j/N)⁻²; sums to at most 1 however long it takes |

    A share p needs evidence of ln(ν/p), not of ln(1/p): see `OVERSHOOT`.
    """

    alpha: float
    gate: float = 1.0
    stage: int = 0
    hold_seconds: float = 600.0
    spent_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.gate <= 1 and self.stage >= 0):
            raise ValueError(f"alpha must be in (0, 1), gate in (0, 1], stage at least 0: {self}")

    @staticmethod
    def gate_share(*, errors: bool, others: int) -> tuple[float, float]:
        """Shares of the error rate and of each of `others` gates that are compared with stable as well."""
        if not others:
            return (1.0, 0.0)
        return (0.7, 0.3 / others) if errors else (0.0, 1.0 / others)

    @property
    def stage_alpha(self) -> float:
        share = 0.7 if self.stage == 0 else 0.3 * 6 / (pi * self.stage) ** 2
        return self.alpha * self.gate * share

    def whole(self) -> float:
        """Needed evidence in nats of the whole stage."""
        return -log(0.85 * self.stage_alpha / OVERSHOOT)

    def recent(self, seconds: float, *, dead: bool = False) -> float:
        """Needed evidence in nats of a recent window of about that length."""
        number = max(1.0, self.hold_seconds / seconds)
        index = self.spent_seconds / seconds
        lengths = 2.0 if dead else max(1.0, log2(self.hold_seconds / SHORTEST_SECONDS))
        share = (0.06 if dead else 0.09) / lengths / number / (1 + index / number) ** 2
        return -log(share * self.stage_alpha / OVERSHOOT)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the counts say against a canary.

    `log_evidence` and `needed` are in nats, of the window that says most against it (`window`); `more_requests` is
    how many more canary requests a decision needs if all goes on as in the whole stage (None: it never would be made,
    0: it is made).
    """

    log_evidence: float
    needed: float
    worse: bool
    mounting: bool
    window: Window | None
    more_requests: float | None


def compare(
    windows: Sequence[Window], whole: Window, *, relative: Relative, budget: Budget,
    dispersion: float | Callable[[], float] = 1.0, reference: Reference | None = None,
) -> Comparison:  # fmt: skip
    """Whether the canary is worse than stable in the whole stage or in one of the recent windows.

    Args:
        windows: recent windows; those up to `DEAD_SECONDS` look for a dead canary alone.
        whole: all of the time at this weight.
        relative: what is tolerated.
        budget: how likely a good canary may be rejected.
        dispersion: the mean size of the cluster that a bad request belongs to, at least 1. A function is asked for it
            only when it decides: it takes longer than all the rest.
        reference: stable's time before this stage, if it is remembered. Recent windows are judged with that or with
            stable's whole stage as reference, with what was worse.
    """
    return _compare(windows, whole, relative, budget, dispersion, reference, _OF_ERRORS)


def tails(
    windows: Sequence[Window], whole: Window, *, relative: Relative, budget: Budget,
    dispersion: float | Callable[[], float] = 1.0, reference: Reference | None = None,
) -> Comparison:  # fmt: skip
    """As `compare`, of slow requests: those beyond `ratio` times stable's quantile are the bad ones."""
    return _compare(windows, whole, relative, budget, dispersion, reference, _OF_TAILS)


def _compare(
    windows: Sequence[Window], whole: Window, relative: Relative, budget: Budget,
    dispersion: float | Callable[[], float], reference: Reference | None, ratios: _Ratios,
) -> Comparison:  # fmt: skip
    found = [(log_evidence(whole, relative=relative, reference=reference, ratios=ratios), budget.whole(), whole)]
    remembered = _worse_of(reference, _of_stage(whole))
    for window in windows:
        if window.canary.bad < FEWEST:
            continue
        dead = window.seconds <= DEAD_SECONDS
        if dead:
            evidence = log_evidence_dead(window, relative=relative, reference=remembered)
        else:
            evidence = log_evidence(window, relative=relative, reference=remembered, ratios=ratios)
        found.append((evidence, budget.recent(window.seconds, dead=dead), window))
    clusters = 1.0
    if not callable(dispersion) or any(evidence >= needed for evidence, needed, _ in found):
        clusters = max(1.0, dispersion() if callable(dispersion) else dispersion)
    found = [(evidence / clusters, needed, window) for evidence, needed, window in found]
    evidence, needed, window = max(found, key=lambda it: it[0] - it[1] if it[0] > 0 else -inf)
    if evidence >= needed:
        return Comparison(evidence, needed, True, True, window, 0.0)
    more = _more_requests(whole, found[0][0], budget.whole(), relative, clusters, reference, ratios)
    if evidence <= 0:
        return Comparison(0.0, budget.whole(), False, False, None, more)
    return Comparison(evidence, needed, False, True, window, more)


def exceeds_limit(counts: Counts, *, limit: float, confidence: float = 0.95) -> bool:
    """Whether a share is above an absolute limit by more than chance."""
    return log_evidence_above_limit(counts, limit=limit) >= -log(1 - confidence)


def log_evidence(
    window: Window, *, relative: Relative, reference: Reference | None = None, ratios: _Ratios | None = None
) -> float:  # fmt: skip
    """Logarithm of the average of the e-values 1, 2 and 3 of the module's text, in nats; 0 where nothing is worse."""
    tolerance, n, a, m, b = _tolerant(window, relative)
    if not _seems_worse(tolerance * n, a, m, b, reference):
        return 0.0
    ratios = ratios or _OF_ERRORS
    known = _REFERENCE if reference is not None else 0.0
    terms = []
    if m > 0:
        growth = tolerance * n / (tolerance * n + m)
        mixed = [
            log_weight + a * log_ratio - (a + b) * log1p((ratio - 1) * growth)
            for log_weight, ratio, log_ratio in ratios
        ]
        terms.append(log(1 - _UNIVERSAL - known) + _sum(mixed))
        terms.append(_LOG_UNIVERSAL + _universal(tolerance, n, a, m, b))
    if reference is not None:
        terms.append(_LOG_REFERENCE + _with_reference(tolerance, n, a, m, b, reference, window.seconds, ratios))
    return _sum(terms)


def log_evidence_of_tails(window: Window, *, relative: Relative) -> float:
    """As `log_evidence`, of slow requests."""
    return log_evidence(window, relative=relative, ratios=_OF_TAILS)


def log_evidence_dead(window: Window, *, relative: Relative, reference: Reference | None = None) -> float:
    """Logarithm of the e-value 4 of the module's text: for a dead canary, in nats; 0 where nothing is worse."""
    tolerance, n, a, m, b = _tolerant(window, relative)
    if a < 0.5 * n or not _seems_worse(tolerance * n, a, m, b, reference):
        return 0.0
    alternative = a * log(DEAD) + max(0.0, n - a) * log(1 - DEAD)
    priors = _priors(reference, window.seconds)
    stable = _sum([prior.marginal(b, m - b) for prior in priors])
    return alternative + stable - _null(priors, tolerance, n, a, m, b)


def _tolerant(window: Window, relative: Relative) -> tuple[float, float, float, float, float]:
    """The tolerance; the canary's total and bad; stable's total and bad, the margin added."""
    tolerance, stable = max(1.0, relative.tolerance), window.stable
    bad = min(stable.total, stable.bad + relative.margin / tolerance * stable.total)
    return tolerance, window.canary.total, min(window.canary.bad, window.canary.total), stable.total, bad


def _seems_worse(n: float, a: float, m: float, b: float, reference: Reference | None) -> bool:
    if a < LEAST or (m > 0 and a * m <= b * n):
        return False
    return m > 0 or (reference is not None and a * (reference.total + 1) > (reference.bad + 0.5) * n)


def _of_stage(whole: Window) -> Reference | None:
    if whole.stable.total <= 0:
        return None
    minutes = max(1.0, whole.seconds / 60)
    return Reference(whole.stable.total, min(whole.stable.bad, whole.stable.total), int(minutes), minutes**-0.5)


def _worse_of(before: Reference | None, stage: Reference | None) -> Reference | None:
    if before is None or stage is None:
        return before or stage
    return stage if stage.bad >= 5 and stage.bad * before.total > before.bad * stage.total else before


def _universal(tolerance: float, n: float, a: float, m: float, b: float) -> float:
    """Universal inference. (1 − τx) is at most (1 − x)^τ (Bernoulli's inequality), which gives the largest likelihood
    under the null in closed form, or a little more, which errs on the side of patience."""
    good = tolerance * (n - a) + m - b
    share = (a + b) / (a + b + good)
    null = a * log(tolerance) + (a + b) * log(share) + (good * log1p(-share) if good > 0 else 0.0)
    return _log_marginal(0.5, 0.5, a, n - a) + _log_marginal(0.5, 0.5, b, m - b) - null


def _priors(reference: Reference | None, seconds: float) -> tuple[_Prior, ...]:
    """Of stable's present share: what is remembered, moved, shifted, and an outage."""
    if reference is None:
        return _ANYTHING
    outage = OUTAGES_PER_SECOND * min(seconds, OUTAGE_SECONDS) * exp(-seconds / OUTAGE_SECONDS)
    remembered, moved, shifted = _remembered(reference)
    shift = _Prior(shifted.constant + log(min(1.0, seconds / SHIFT_SECONDS)), shifted.bad, shifted.good)
    return remembered, moved, shift, _Prior(log(max(outage, 1e-300)) + _ANYTHING[0].constant, 0.5, 0.5)


@lru_cache(maxsize=1024)
def _remembered(reference: Reference) -> tuple[_Prior, ...]:
    bad, good = reference.prior
    moved = min(1.0, MOVED_WORTH / bad)
    return (
        _Prior.of(log(1 - MOVED - SHIFTED), bad, good),
        _Prior.of(log(MOVED), moved * bad, moved * good),
        _Prior.of(log(SHIFTED), 0.5, 5.0),
    )


def _null(priors: Sequence[_Prior], tolerance: float, n: float, a: float, m: float, b: float) -> float:
    """Log of the marginal likelihood of a canary that is just as bad as it may be."""
    good = max(0.0, m - b) + tolerance * (n - a)
    return a * log(tolerance) + _sum([prior.marginal(a + b, good) for prior in priors])


def _with_reference(
    tolerance: float, n: float, a: float, m: float, b: float, reference: Reference, seconds: float, ratios: _Ratios
) -> float:  # fmt: skip
    """The Bayes factor: for a canary that is r times as bad, r of `RATIOS`, or as bad as it likes, mixed.

    With rτx(1 − x)^(rτ − 1) for a bad request and (1 − x)^rτ for a good one, which are together at most 1, the
    marginal likelihood of a ratio is a Beta function as well.
    """
    priors = _priors(reference, seconds)
    terms = []
    # What a shift or an outage would add to the alternatives is left out where it is not needed: that is the time, and
    # errs on the side of patience.
    shifted = priors[2].marginal(a + b, m - b + tolerance * (n - a))
    remembered = priors[1].marginal(a + b, m - b + tolerance * (n - a))
    for prior in priors[: 3 if shifted > remembered - 7 else 2]:
        start = prior.constant + lgamma(prior.bad + a + b)
        first, second = prior.good + m - b - a, prior.bad + prior.good + m
        for log_weight, ratio, log_ratio in ratios:
            times = ratio * tolerance * n
            terms.append(start + log_weight + a * log_ratio + lgamma(first + times) - lgamma(second + times))
    worse = a * log(tolerance) + _sum(terms)
    alone = _log_marginal(0.5, 0.5, a, n - a) + _sum([prior.marginal(b, m - b) for prior in priors])
    return _sum([_LOG_RATIOS + worse, _LOG_ANY + alone]) - _null(priors, tolerance, n, a, m, b)


@dataclass(frozen=True, slots=True)
class _Prior:
    """A Beta distribution in a mixture; `constant` is the logarithm of its weight over its Beta function."""

    constant: float
    bad: float
    good: float

    @classmethod
    def of(cls, log_weight: float, bad: float, good: float) -> _Prior:
        return cls(log_weight - _log_beta(bad, good), bad, good)

    def marginal(self, failures: float, successes: float) -> float:
        """Log of the weight times the mean of x^failures (1 − x)^successes."""
        return self.constant + _log_beta(self.bad + failures, self.good + successes)


def _log_marginal(bad: float, good: float, failures: float, successes: float) -> float:
    return _log_beta(bad + failures, good + max(0.0, successes)) - _log_beta(bad, good)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


_ANYTHING = (_Prior.of(0.0, 0.5, 0.5),)


def _sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + log(sum(exp(value - top) for value in logs))


def _more_requests(
    whole: Window, evidence: float, needed: float, relative: Relative, dispersion: float, reference: Reference | None,
    ratios: _Ratios,
) -> float | None:  # fmt: skip
    """Canary requests until the whole stage's evidence is enough, if both shares stay as they are.

    Evidence grows nearly linearly with the requests, after a start in which it pays for what it does not know: a
    straight line through now and twice the requests, or through where that leads.
    """
    tolerance, n, a, m, b = _tolerant(whole, relative)
    if evidence >= needed:
        return 0.0
    if not _seems_worse(tolerance * n, a, m, b, reference):
        return None
    scale, guess = 1.0, 2.0
    for _ in range(2):
        scale = guess
        canary = Counts(whole.canary.total * scale, whole.canary.bad * scale)
        stable = Counts(whole.stable.total * scale, whole.stable.bad * scale)
        window = Window(whole.seconds, canary, stable)
        at_scale = log_evidence(window, relative=relative, reference=reference, ratios=ratios)
        gained = at_scale / dispersion - evidence
        if gained <= 0:
            return None
        guess = 1.0 + (needed - evidence) * (scale - 1.0) / gained
        if guess < 3.0:
            break
        guess = min(guess, 1e6)
    return (guess - 1.0) * n
