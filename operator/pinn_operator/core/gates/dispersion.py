"""How far bad requests come in clusters: the dispersion that evidence is divided by.

A pod whose connection breaks fails ten requests at once. They are one event, and say as much against a revision as one
event does. The dispersion φ is the mean size of the cluster that a bad request belongs to, ΣC²/ΣC over clusters of
size C; it is 1 for bad requests that know nothing of each other.

It is measured within stable, between pods at the same moment: of X bad requests in a block of time each pod would get
its share of the traffic if they were independent (a multinomial distribution). Pearson's statistic over its degrees
of freedom, averaged with the bad requests as weights, estimates φ (P. McCullagh and J. A. Nelder, "Generalized linear
models", 2nd ed. (1989), §4.5). A fault upstream hits all pods alike: given their sum, nothing is left of it. So a
burst that hits both revisions does not blunt the test, and one that hits single pods does.

With one stable pod the parts of a block stand for the pods; then a burst upstream counts as a cluster as well, which
errs on the side of patience.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pinn_operator.core.gates.sequential import Counts

BLOCK_SECONDS = (30.0, 120.0)
"""Lengths of the blocks: several times a burst's, so that few bursts are cut in two; and longer ones for longer bursts.
The largest estimate counts."""
PARTS = 8
"""Into how many parts the time of a single pod is cut."""


def dispersion(pods: Mapping[str, Sequence[Counts]], *, bin_seconds: float) -> float:
    """The mean size of the cluster that a bad request of stable belongs to, at least 1.

    Args:
        pods: for each stable pod its requests and bad ones in bins of equal length; the i-th bin of all pods is the
            same time. A pod that was not there has no requests in a bin. Time before the rollout counts too.
        bin_seconds: length of a bin; of 5 to 15 s, or the scrape interval if that is longer.

    An estimate within three times its standard error of 1 is drawn towards 1 by its square, so that chance alone hardly
    slows the test; without bad requests it is 1.
    """
    if bin_seconds <= 0:
        raise ValueError(f"bin_seconds must be above 0, not {bin_seconds}")
    length = max((len(bins) for bins in pods.values()), default=0)
    largest = 1.0
    for seconds in BLOCK_SECONDS:
        if len(pods) > 1:
            size = max(1, round(seconds / bin_seconds))
            blocks = [[_sum(bins[start : start + size]) for bins in pods.values()] for start in range(0, length, size)]
        else:
            size = max(1, round(seconds / 2 / bin_seconds))
            bins = next(iter(pods.values()), ())
            parts = [_sum(bins[start : start + size]) for start in range(0, length, size)]
            blocks = [parts[start : start + PARTS] for start in range(0, len(parts), PARTS)]
        largest = max(largest, _estimate(blocks))
    return largest


def _estimate(blocks: Sequence[Sequence[tuple[float, float]]]) -> float:
    weights = weighted = variance = 0.0
    for block in blocks:
        shares = [(total, bad) for total, bad in block if total >= 1]
        requests, failures = sum(total for total, _ in shares), sum(bad for _, bad in shares)
        freedom = len(shares) - 1
        if failures <= 0 or freedom < 1:
            continue
        pearson = 0.0
        for total, bad in shares:
            expected = failures * total / requests
            pearson += (bad - expected) ** 2 / expected
        weights += failures
        weighted += failures * pearson / freedom
        variance += failures * max(0.0, failures - 1) * 2 / freedom
    if weights <= 0:
        return 1.0
    excess = weighted / weights - 1
    if excess <= 0:
        return 1.0
    error = variance**0.5 / weights
    return 1 + excess * min(1.0, (excess / (3 * error)) ** 2 if error > 0 else 0.0)


def _sum(counts: Sequence[Counts]) -> tuple[float, float]:
    total = bad = 0.0
    for each in counts:
        total += each.total
        bad += each.bad
    return total, bad
