"""Comparing a canary with stable: rejected soon when there is cause, and no more often by chance than promised."""

from __future__ import annotations

import random

import pytest

from pinn_operator.core.gates.evidence import Budget, Counts, Reference, Window, compare, log_evidence
from pinn_operator.core.wanted.spec import Relative

NO_MARGIN = Relative(margin=0.0)
BUDGET = Budget(alpha=0.001, gate=0.7, hold_seconds=1800)
HOUR = Reference.of([Counts(1620, 8)] * 60)


@pytest.mark.parametrize(
    ("name", "canary", "stable", "reference", "worse"),
    [
        ("everything fails, stable has been quiet", Counts(12, 12), Counts(108, 0), None, True),
        ("everything fails, and of stable too", Counts(200, 200), Counts(1800, 1800), HOUR, False),
        ("a fifth fails", Counts(100, 20), Counts(900, 5), None, True),
        ("one failure of three", Counts(3, 1), Counts(27, 0), HOUR, False),
        ("both fail alike", Counts(5000, 25), Counts(45000, 225), HOUR, False),
        ("both fail five times as often as before", Counts(5000, 125), Counts(45000, 1125), HOUR, False),
        ("four times as bad", Counts(1000, 20), Counts(9000, 45), HOUR, True),
        ("the canary has no requests", Counts(0, 0), Counts(1000, 10), HOUR, False),
        ("nobody has requests", Counts(0, 0), Counts(0, 0), None, False),
        ("better than stable", Counts(1000, 0), Counts(1000, 300), HOUR, False),
    ],
)
def test_who_is_worse(name: str, canary: Counts, stable: Counts, reference: Reference | None, worse: bool) -> None:
    whole = Window(600, canary, stable)
    found = compare([], whole, relative=NO_MARGIN, budget=BUDGET, reference=reference)
    assert found.worse is worse, f"{name}: {found}"


@pytest.mark.parametrize(("ratio", "expected"), [(4, 800), (10, 170)])
def test_how_many_canary_requests_a_decision_needs(ratio: float, expected: float) -> None:
    dice = random.Random(20261127)
    needed = []
    for _ in range(60):
        n = a = m = b = 0
        while True:
            if dice.random() < 0.1:
                n += 1
                if dice.random() < 0.005 * ratio:
                    a += 1
                    window = Window(1800, Counts(n, a), Counts(m, b))
                    if log_evidence(window, relative=NO_MARGIN, reference=HOUR) >= BUDGET.whole():
                        break
            else:
                m += 1
                b += dice.random() < 0.005
        needed.append(n)
    assert sorted(needed)[len(needed) // 2] < expected
