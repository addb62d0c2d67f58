"""A canary that turns bad at once, after a long good time: it is found in the newest seconds, and soon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pinn_operator.core.gates.judgement import Judgement, judge
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.samples import Answer, Series
from pinn_operator.core.wanted.profiles import gates_of
from pinn_operator.core.wanted.spec import Analysis, Profile, Prometheus

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
HOLD = 1800.0
"""Of the default's first step: the longer the hold, the more evidence is asked for."""
CANARY_RATE, STABLE_RATE = 3.0, 27.0
"""Requests per second at 10 %."""


def answers(*, seconds: float, step: float, bad_for: float) -> Answer:
    """Counters of both revisions over the last `seconds`; all the canary's requests failed in the last `bad_for`."""
    ages = [seconds - index * step for index in range(round(seconds / step) + 1)]
    series = []
    for revision, rate, fault in (("bbbb", CANARY_RATE, bad_for), ("aaaa", STABLE_RATE, 0.0)):
        for status in ("200", "500"):
            points = []
            for age in ages:
                failed = rate * max(0.0, fault - age)
                count = failed if status == "500" else 1000 * rate - rate * max(age, fault)
                points.append((NOW.timestamp() - age, count))
            series.append(Series({"pod": f"eu-{revision}-x-1", "status": status}, tuple(points)))
    return tuple(series)


def scope() -> Scope:
    gates = tuple(gate for gate in gates_of(Profile.STANDARD) if gate.name == "error-rate")
    start = NOW - timedelta(seconds=120)
    return Scope(
        name="eu", namespace="pricing", analysis=Analysis(Prometheus(), Profile.STANDARD, gates),
        canary=Side("bbbb"), stable=Side("aaaa"), weight=10, start=start, now=NOW, in_force=start, hold_seconds=HOLD,
    )  # fmt: skip


def after(bad_for: float) -> Judgement:
    """The judgement `bad_for` seconds after the canary turned bad."""
    return judge(scope(), {"pods/http_requests_total": answers(seconds=120.0, step=0.25, bad_for=bad_for)})


def test_a_good_canary_is_looked_at_in_its_usual_time() -> None:
    assert not after(0.0).mounting
    assert after(0.0).condemnation is None


def test_the_first_errors_of_a_good_canary_call_for_another_look_soon() -> None:
    judgement = after(0.5)
    assert judgement.condemnation is None
    assert judgement.mounting


def test_three_seconds_of_errors_condemn_although_the_last_ten_seconds_were_mostly_good() -> None:
    condemnation = after(3.0).condemnation
    assert condemnation is not None


@pytest.mark.parametrize("bad_for", [0.0, 1.0, 2.0, 3.0, 6.0, 20.0])
def test_what_hits_both_revisions_alike_condemns_neither(bad_for: float) -> None:
    both = tuple(
        Series({**series.labels, "pod": f"eu-{revision}-x-1"}, series.points)
        for series in answers(seconds=120.0, step=0.25, bad_for=bad_for)
        if "bbbb" in series.labels["pod"]
        for revision in ("aaaa", "bbbb")
    )
    assert judge(scope(), {"pods/http_requests_total": both}).condemnation is None
