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
   minute; with a small weight anything else (a shift of the whole traffic's rate); with a tiny one an outage. The
   ratio of the two marginal likelihoods, a Bayes factor, has expectation 1 under that prior (closed forms with Beta
   functions). If the rate leaves the prior, both revisions' counts say so, and the e-value falls back to the first.
3. *Universal inference*: the likelihood mixed over all shares of both sides, divided by the largest that the null
   allows (L. Wasserman, A. Ramdas and S. Balakrishnan, "Universal inference", PNAS 117 (2020), §3 and §7). It alone
   uses good requests as well, which counts when nearly all of the canary's are bad or when stable never fails.
4. *The dead canary*: 19 of 20 requests bad. A hypothesis so simple pays nothing for the choice among ratios.

Bad requests that come in clusters say less than their number. The logarithm is divided by the dispersion φ, the mean
size of the cluster that a bad request belongs to (quasi-likelihood; P. McCullagh and J. A. Nelder, "Generalized linear
models", 2nd ed. (1989), §9.2): it is then the evidence of as many clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, lgamma, log, log1p, pi

from pinn_operator.core.gates.sequential import Counts, log_evidence_above_limit, log_evidence_above_stable
from pinn_operator.core.wanted.spec import Relative

__all__ = ["Budget", "Comparison", "Counts", "Reference", "Window", "compare", "exceeds_limit", "tails"]

RATIOS = (1.5, 2.0, 3.0, 4.5, 7.0, 11.0, 20.0, 45.0, 100.0)
"""How many times as bad a worse canary may be, as far as ratios go."""
RATIO_WEIGHTS = (0.06, 0.1, 0.17, 0.19, 0.17, 0.13, 0.09, 0.05, 0.04)
DEAD = 0.95
"""The share of bad requests of a dead canary."""
DEAD_SECONDS = 3.0
"""Windows up to this long look for a dead canary alone."""

_ERRORS_ONLY, _UNIVERSAL, _REFERENCE = 0.25, 0.1, 0.65


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
        if len(seen) < 2 or bad <= 0:
            return cls(total, bad, len(seen))
        share = bad / total
        # Method of moments for a Gamma mixture of Poisson counts: Var = mean + variation²·mean².
        excess = sum((counts.bad - share * counts.total) ** 2 - share * counts.total for counts in seen)
        squares = sum((share * counts.total) ** 2 for counts in seen)
        # Two bad minutes' worth of prior: a variation of one, as long as few minutes were seen.
        return cls(total, bad, len(seen), ((max(0.0, excess) + squares / len(seen)) / squares) ** 0.5)

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
    | windows | the whole stage 0.7; the dead canary 0.1; all other recent windows 0.2 |
    | lengths | equal parts for each length of recent windows |
    | time | the j-th window of s seconds, of N = hold/s, 1/N·(1 + j/N)⁻²: sums to at most 1 however long it takes |
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
        return -log(0.7 * self.stage_alpha)

    def recent(self, seconds: float, *, lengths: int, dead: bool = False) -> float:
        """Needed evidence in nats of a recent window, one of `lengths` different ones."""
        number = max(1.0, self.hold_seconds / seconds)
        index = self.spent_seconds / seconds
        share = (0.1 if dead else 0.2) / max(1, lengths) / number / (1 + index / number) ** 2
        return -log(share * self.stage_alpha)


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
    windows: Sequence[Window], whole: Window, *, relative: Relative, budget: Budget, dispersion: float = 1.0,
    reference: Reference | None = None,
) -> Comparison:  # fmt: skip
    """Whether the canary is worse than stable in the whole stage or in one of the recent windows.

    Args:
        windows: recent windows; those up to `DEAD_SECONDS` look for a dead canary alone.
        whole: all of the time at this weight.
        relative: what is tolerated.
        budget: how likely a good canary may be rejected.
        dispersion: the mean size of the cluster that a bad request belongs to, at least 1.
        reference: stable's time before, if it is remembered.
    """
    dispersion = max(1.0, dispersion)
    dead = sum(1 for window in windows if window.seconds <= DEAD_SECONDS * 1.2)
    best: tuple[float, float, Window | None] = (0.0, budget.whole(), None)
    mounting = False
    for window in (whole, *windows):
        if window.canary.bad <= 0:
            continue
        if window is whole:
            needed = budget.whole()
            evidence = log_evidence(window, relative=relative, reference=reference) / dispersion
        elif window.seconds <= DEAD_SECONDS * 1.2:
            needed = budget.recent(window.seconds, lengths=dead, dead=True)
            evidence = log_evidence_dead(window, relative=relative, reference=reference) / dispersion
        else:
            needed = budget.recent(window.seconds, lengths=len(windows) - dead)
            evidence = log_evidence(window, relative=relative, reference=reference) / dispersion
        mounting = mounting or evidence > 0
        if best[2] is None or evidence - needed > best[0] - best[1]:
            best = (evidence, needed, window)
    evidence, needed, found = best
    worse = evidence >= needed
    more = 0.0 if worse else _more_requests(whole, relative, budget.whole(), dispersion, reference)
    return Comparison(evidence, needed, worse, mounting, found, more)


def tails(
    windows: Sequence[Window], whole: Window, *, relative: Relative, budget: Budget, dispersion: float = 1.0,
    reference: Reference | None = None,
) -> Comparison:  # fmt: skip
    """As `compare`, of slow requests: those beyond `ratio` times stable's quantile are the bad ones."""
    return compare(windows, whole, relative=relative, budget=budget, dispersion=dispersion, reference=reference)


def exceeds_limit(counts: Counts, *, limit: float, confidence: float = 0.95) -> bool:
    """Whether a share is above an absolute limit by more than chance."""
    return log_evidence_above_limit(counts, limit=limit) >= -log(1 - confidence)


def log_evidence(window: Window, *, relative: Relative, reference: Reference | None = None) -> float:
    """Logarithm of the average of the e-values 1, 2 and 3 of the module's text, in nats."""
    n, a, m, b = _tolerant(window, relative)
    if a <= 0 or (m <= 0 and reference is None):
        return 0.0
    terms = []
    if m > 0:
        k = a + b
        terms.append(log(_ERRORS_ONLY) + _mixture([a * log(r) - k * log1p((r - 1) * n / (m + n)) for r in RATIOS]))
        terms.append(log(_UNIVERSAL) + log_evidence_above_stable(Counts(n, a), Counts(m, b), margin=0.0))
    if reference is not None:
        terms.append(log(_REFERENCE) + _against_reference(n, a, m, b, reference))
    elif m > 0:
        terms[0] += log((_ERRORS_ONLY + _REFERENCE) / _ERRORS_ONLY)
    return _sum(terms)


def log_evidence_dead(window: Window, *, relative: Relative, reference: Reference | None = None) -> float:
    """Logarithm of the e-value 4 of the module's text: for a dead canary, in nats."""
    n, a, m, b = _tolerant(window, relative)
    if a <= 0 or (m <= 0 and reference is None):
        return 0.0
    priors = _priors(reference, window.seconds)
    alternative = a * log(DEAD) + max(0.0, n - a) * log(1 - DEAD)
    stable = _sum([weight + _log_marginal(bad, good, b, m - b) for weight, bad, good in priors])
    null = _sum([weight + _log_marginal(bad, good, a + b, n + m - a - b) for weight, bad, good in priors])
    return alternative + stable - null


def _tolerant(window: Window, relative: Relative) -> tuple[float, float, float, float]:
    """Canary total and bad, stable total and bad, as if stable were as bad as the canary may be.

    A rate tolerated τ times is a stream of τn requests at stable's rate; a margin is that much more of stable's.
    """
    tolerance = max(1.0, relative.tolerance)
    stable = window.stable
    bad = min(stable.total, stable.bad + relative.margin / tolerance * stable.total)
    return window.canary.total * tolerance, window.canary.bad, stable.total, bad


def _priors(reference: Reference | None, seconds: float) -> list[tuple[float, float, float]]:
    if reference is None:
        return [(0.0, 0.5, 0.5)]
    bad, good = reference.prior
    del seconds
    return [(log(0.99), bad, good), (log(0.01), 0.5, 0.5)]


def _against_reference(n: float, a: float, m: float, b: float, reference: Reference) -> float:
    priors = _priors(reference, 0.0)
    null = _sum([weight + _log_marginal(bad, good, a + b, n + m - a - b) for weight, bad, good in priors])
    alternatives = []
    for ratio in RATIOS:
        marginal = _sum([w + _log_marginal(bad, good, a + b, m - b + ratio * n - a) for w, bad, good in priors])
        alternatives.append(a * log(ratio) + marginal)
    return _mixture(alternatives) - null


def _log_marginal(bad: float, good: float, failures: float, successes: float) -> float:
    """Log of the mean of x^failures (1 − x)^successes over Beta(bad, good)."""
    return _log_beta(bad + failures, good + max(0.0, successes)) - _log_beta(bad, good)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _mixture(logs: Sequence[float]) -> float:
    """Log of the weighted mean over `RATIOS` of e to the power of each."""
    top = max(logs)
    return top + log(sum(weight * exp(value - top) for weight, value in zip(RATIO_WEIGHTS, logs, strict=True)))


def _sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + log(sum(exp(value - top) for value in logs)) if isfinite(top) else -inf


def _more_requests(
    whole: Window, relative: Relative, needed: float, dispersion: float, reference: Reference | None
) -> float | None:
    """Canary requests until the whole stage's evidence is enough, if both shares stay as they are."""

    def at(scale: float) -> float:
        scaled = Window(
            whole.seconds * scale,
            Counts(whole.canary.total * scale, whole.canary.bad * scale),
            Counts(whole.stable.total * scale, whole.stable.bad * scale),
        )
        return log_evidence(scaled, relative=relative, reference=reference) / dispersion

    if whole.canary.bad <= 0:
        return None
    low, high = 1.0, 2.0
    while at(high) < needed:
        low, high = high, 4 * high
        if high > 1e5:
            return None
    for _ in range(5):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if at(middle) >= needed else (middle, high)
    return (high - 1) * whole.canary.total
