"""The sequential test: never condemns by chance more often than promised, and condemns soon when there is cause."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_operator.core.gates.sequential import Counts, log_evidence_above_limit, log_evidence_above_stable

CONDEMNED = -math.log(0.001)
"""`Analysis.confidence` 0.999, all of it for one gate."""

totals = st.one_of(
    st.just(0.0), st.floats(0, 50), st.floats(0, 1e4), st.just(1e7), st.integers(0, 1000).map(float)
)  # fmt: skip
shares = st.one_of(st.sampled_from([0.0, 1.0, 1e-9, 0.5]), st.floats(0, 1))
counts = st.builds(lambda total, share: Counts(total, total * share), totals, shares)
margins = st.sampled_from([0.0, 1e-6, 0.01, 0.1, 0.5, 0.99])


@pytest.mark.parametrize(
    ("name", "canary", "stable", "condemned"),
    [
        ("everything fails, stable has been quiet", Counts(12, 12), Counts(100, 0), True),
        ("everything fails, and of stable too", Counts(200, 200), Counts(200, 200), False),
        ("a fifth fails", Counts(100, 20), Counts(900, 1), True),
        ("one in twenty fails, over many requests", Counts(1000, 50), Counts(9000, 9), True),
        ("one failure of three", Counts(3, 1), Counts(300, 0), False),
        ("two failures of two hundred", Counts(200, 2), Counts(2000, 2), False),
        ("both fail one in a hundred", Counts(5000, 50), Counts(50000, 500), False),
        ("worse, but within the margin", Counts(10000, 90), Counts(100000, 100), False),
        ("the canary has no requests", Counts(0, 0), Counts(1000, 10), False),
        ("stable has no requests", Counts(1000, 500), Counts(0, 0), False),
        ("nobody has requests", Counts(0, 0), Counts(0, 0), False),
        ("extrapolated counts", Counts(33.4, 33.4), Counts(301.7, 0.3), True),
        ("ten million of each, alike", Counts(1e7, 1e5), Counts(1e7, 1e5), False),
        ("ten million of each, 2 % worse", Counts(1e7, 3e5), Counts(1e7, 1e5), True),
        ("better than stable", Counts(1000, 0), Counts(1000, 300), False),
    ],
)
def test_who_is_condemned(name: str, canary: Counts, stable: Counts, condemned: bool) -> None:
    evidence = log_evidence_above_stable(canary, stable, margin=0.01)
    assert (evidence >= CONDEMNED) is condemned, f"{name}: {evidence}"


@pytest.mark.parametrize(
    ("name", "counts", "limit", "exceeded"),
    [
        ("one error of three is no error rate of a third", Counts(3, 1), 0.05, False),
        ("three of three", Counts(3, 3), 0.05, True),
        ("exactly the limit", Counts(1000, 50), 0.05, False),
        ("twice the limit", Counts(1000, 100), 0.05, True),
        ("no requests", Counts(0, 0), 0.05, False),
        ("one error where none is allowed", Counts(1e7, 1), 0.0, True),
        ("everything, where everything is allowed", Counts(1e7, 1e7), 1.0, False),
    ],
)
def test_which_limit_is_exceeded(name: str, counts: Counts, limit: float, exceeded: bool) -> None:
    evidence = log_evidence_above_limit(counts, limit=limit)
    assert (evidence >= -math.log(0.05)) is exceeded, f"{name}: {evidence}"


@given(canary=counts, stable=counts, margin=margins)
def test_a_canary_that_is_not_worse_has_no_evidence_against_it(canary: Counts, stable: Counts, margin: float) -> None:
    evidence = log_evidence_above_stable(canary, stable, margin=margin)
    assert not math.isnan(evidence)
    if canary.total == 0 or stable.total == 0 or canary.bad / canary.total <= stable.bad / stable.total + margin:
        assert evidence <= 1e-6


@given(canary=counts, limit=shares)
def test_a_revision_within_its_limit_has_no_evidence_against_it(canary: Counts, limit: float) -> None:
    evidence = log_evidence_above_limit(canary, limit=limit)
    assert not math.isnan(evidence)
    if canary.total == 0 or canary.bad / canary.total <= limit:
        assert evidence <= 1e-6


@given(canary=counts, stable=counts, margin=margins, more=st.floats(0, 1))
def test_more_bad_canary_requests_are_never_less_evidence(
    canary: Counts, stable: Counts, margin: float, more: float
) -> None:
    worse = Counts(canary.total, min(canary.total, canary.bad + more * (canary.total - canary.bad)))
    before = log_evidence_above_stable(canary, stable, margin=margin)
    after = log_evidence_above_stable(worse, stable, margin=margin)
    # Below zero there is no evidence, and how far below says nothing.
    assert max(0.0, after) >= max(0.0, before) - 1e-6 * max(1.0, abs(before))


@given(canary=counts, stable=counts, margin=margins)
def test_not_both_revisions_can_be_worse_than_the_other(canary: Counts, stable: Counts, margin: float) -> None:
    there = log_evidence_above_stable(canary, stable, margin=margin)
    back = log_evidence_above_stable(stable, canary, margin=margin)
    assert min(there, back) <= 1e-6


@given(canary=counts, stable=counts, low=margins, high=margins)
def test_a_wider_margin_never_condemns_more(canary: Counts, stable: Counts, low: float, high: float) -> None:
    low, high = sorted((low, high))
    strict = log_evidence_above_stable(canary, stable, margin=low)
    lenient = log_evidence_above_stable(canary, stable, margin=high)
    assert lenient <= strict + 1e-6 * max(1.0, abs(strict))


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_look_after_every_request_raises_no_more_false_alarms_than_promised(rate: float, share: float) -> None:
    """Universal inference promises at most α over all looks together; margin 0 is the hardest case."""
    alpha, rollouts, requests = 0.05, 100, 250
    dice = random.Random(20261121)
    alarms = 0
    for _ in range(rollouts):
        seen = {True: [0, 0], False: [0, 0]}
        for _ in range(requests):
            side = seen[dice.random() < share]
            side[0] += 1
            side[1] += dice.random() < rate
            canary, stable = Counts(*seen[True]), Counts(*seen[False])
            if (canary.share or 0.0) <= (stable.share or 0.0):
                continue  # there is no evidence then, and most looks are like that
            evidence = log_evidence_above_stable(canary, stable, margin=0.0)
            if evidence >= -math.log(alpha):
                alarms += 1
                break
    assert alarms <= alpha * rollouts, f"{alarms} of {rollouts} good revisions were condemned"


@pytest.mark.parametrize(
    ("share_of_errors", "at_most"),
    [(1.0, 4), (0.5, 10), (0.2, 36), (0.1, 105), (0.05, 400), (0.03, 1420)],
)  # fmt: skip
def test_how_many_canary_requests_condemn_a_bad_revision(share_of_errors: float, at_most: int) -> None:
    """Against 0.1 % of a stable revision with nine times the traffic, at confidence 0.999: every expected count."""
    needed = next(
        requests
        for requests in range(1, 2000)
        if log_evidence_above_stable(
            Counts(requests, requests * share_of_errors), Counts(9 * requests, 9 * requests * 0.001), margin=0.01
        )
        >= CONDEMNED
    )
    assert needed <= at_most


@pytest.mark.parametrize("bad", [-1.0, 11.0, math.nan])
def test_counts_that_cannot_be_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="between 0 and total"):
        Counts(10, bad)


@pytest.mark.parametrize("margin", [-0.1, 1.0])
def test_a_margin_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        log_evidence_above_stable(Counts(1, 0), Counts(1, 0), margin=margin)


@pytest.mark.parametrize("limit", [-0.1, 1.1])
def test_a_limit_that_is_no_share_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        log_evidence_above_limit(Counts(1, 0), limit=limit)


@settings(max_examples=50)
@given(first=counts, second=counts)
def test_windows_add_up(first: Counts, second: Counts) -> None:
    both = first + second
    assert both.total == first.total + second.total
    assert both.share is None or 0 <= both.share <= 1
