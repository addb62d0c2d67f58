"""Evidence that a share of bad requests is too high, valid however often one looks.

A gate is judged every few seconds, so a test with a fixed sample size would sooner or later condemn a good revision.
The evidence here is an e-process: a mixture likelihood over the alternative divided by the largest likelihood under
the null (universal inference; Wasserman, Ramdas and Balakrishnan, "Universal inference", PNAS 117 (2020), §3, with the
mixture numerator of its §7). Under the null its expectation never exceeds 1 at any stopping time, so by Ville's
inequality it ever exceeds 1/α with probability at most α. It depends on the totals alone: nothing has to be
remembered between two looks, and a restarted operator reaches the same verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, lgamma, log

_ITERATIONS = 60
_JEFFREYS = 0.5


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests in a window, and how many of them were bad. Real numbers, because metric sources extrapolate."""

    total: float
    bad: float

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.total * (1 + 1e-9) + 1e-9:
            raise ValueError(f"bad requests must be between 0 and total {self.total}, not {self.bad}")

    @property
    def share(self) -> float | None:
        """Bad requests per request, or None without any."""
        return min(1.0, self.bad / self.total) if self.total > 0 else None

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.total + other.total, self.bad + other.bad)


def log_evidence_above_stable(canary: Counts, stable: Counts, *, margin: float) -> float:
    """Natural logarithm of the evidence against "canary share ≤ stable share + margin".

    Args:
        canary: requests of the canary in the window.
        stable: requests of the stable revision in the same window.
        margin: tolerated worsening as a share of requests, in [0, 1).

    Returns:
        At least log(1/α) with probability at most α for a canary within the margin, over all looks together.

    Raises:
        ValueError: the margin is outside [0, 1).
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be in [0, 1), not {margin}")
    mixture = _log_mixture(canary) + _log_mixture(stable)
    canary_share, stable_share = canary.share, stable.share
    if canary_share is None or stable_share is None or canary_share <= stable_share + margin:
        # The likelihood's maximum lies inside the null.
        return mixture - _log_likelihood(canary, canary_share or 0.0) - _log_likelihood(stable, stable_share or 0.0)

    def on_boundary(share: float) -> float:
        return _log_likelihood(canary, share + margin) + _log_likelihood(stable, share)

    return mixture - _maximum_of_concave(on_boundary, 0.0, 1.0 - margin)


def log_evidence_above_limit(canary: Counts, *, limit: float) -> float:
    """Natural logarithm of the evidence against "share ≤ limit", for one revision on its own.

    Raises:
        ValueError: the limit is outside [0, 1].
    """
    if not 0 <= limit <= 1:
        raise ValueError(f"limit must be in [0, 1], not {limit}")
    share = canary.share
    if share is None:
        return 0.0
    return _log_mixture(canary) - _log_likelihood(canary, min(share, limit))


def _log_mixture(counts: Counts) -> float:
    """Log of the likelihood of a Bernoulli sequence averaged over Jeffreys' prior Beta(½, ½)."""
    good = max(0.0, counts.total - counts.bad)
    return _log_beta(counts.bad + _JEFFREYS, good + _JEFFREYS) - _log_beta(_JEFFREYS, _JEFFREYS)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _log_likelihood(counts: Counts, share: float) -> float:
    good = max(0.0, counts.total - counts.bad)
    return _times_log(counts.bad, share) + _times_log(good, 1.0 - share)


def _times_log(count: float, probability: float) -> float:
    if count <= 0:
        return 0.0
    return count * log(probability) if probability > 0 else -inf


def _maximum_of_concave(function: Callable[[float], float], low: float, high: float) -> float:
    """Largest value of a concave function on [low, high], by ternary search."""
    best = max(function(low), function(high))
    for _ in range(_ITERATIONS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        at_left, at_right = function(left), function(right)
        best = max(best, at_left, at_right)
        if at_left < at_right:
            low = left
        else:
            high = right
    return best
