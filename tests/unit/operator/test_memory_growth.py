"""Growth of memory: what is a leak, what only looks like one, and when it can be told."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lab.memory_shapes import HEALTHY, MB, PEAK, REST, Shape, leaking, samples
from lab.memory_trials import judged, trial
from pinn_operator.core.gates.families import Answers
from pinn_operator.core.gates.judgement import judge
from pinn_operator.core.gates.memory import memory_family
from pinn_operator.core.gates.memory_growth import growth_of
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.gates.slope import slope_of, theil_sen
from pinn_operator.core.samples import FAMILY_LABEL, AnyAnswer, Series
from pinn_operator.core.status.values import GateStatus, Verdict
from pinn_operator.core.wanted.spec import Analysis, Bound, Gate, MetricNames, Profile, Prometheus, SourceKind

HOUR = 3600.0
FLAT: Shape = lambda _at: REST  # noqa: E731


def of(shape: Shape, seconds: float, **options: float) -> GateStatus:
    """What the gate says `seconds` after the weight was written of memory of this shape."""
    return judged(samples(shape, random.Random(1), 0.0, seconds), seconds, **options)


# --- the slope -------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_slope_holds_the_truth_as_often_as_it_says() -> None:
    inside, noise = 0, random.Random(7)
    for _ in range(300):
        points = [(60.0 * i, 10 * MB * i / 60 + noise.gauss(0, 1) * MB) for i in range(24)]
        slope = theil_sen(points, 1380.0)
        inside += slope.low <= 10 * MB <= slope.high
    assert inside >= 290


def test_the_interval_of_a_wave_holds_the_truth_though_its_residuals_resemble_their_neighbours() -> None:
    inside, noise = 0, random.Random(7)
    for _ in range(300):
        at, points = noise.gauss(0, 1), []
        for i in range(24):
            at = 0.7 * at + noise.gauss(0, 1)
            points.append((60.0 * i, at * MB))
        slope = theil_sen(points, 1380.0)
        inside += slope.low <= 0 <= slope.high
    assert inside >= 285


@pytest.mark.parametrize("at", [0.2, 0.4, 0.5, 0.6, 0.8])
def test_the_interval_of_a_step_holds_zero(at: float) -> None:
    slope = slope_of(samples(lambda now: REST + (200 * MB if now > at * HOUR else 0), random.Random(1), 0, HOUR))
    assert slope.low <= 0 <= slope.high


def test_after_a_gap_of_hours_the_whole_is_judged() -> None:
    before = samples(FLAT, random.Random(1), 0.0, 1200.0)
    growth = growth_of([*before, (before[-1][0] + 2 * HOUR, REST)])
    assert growth.hour == growth.whole


# --- what is a leak --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", HEALTHY)
def test_a_healthy_server_is_not_rejected(shape: str) -> None:
    assert [it for seed in range(12) if (it := trial(shape, 0, seed, every=300)).rejected is not None] == []


@pytest.mark.parametrize("shape", HEALTHY)
def test_a_leak_that_eats_the_limit_in_two_hours_is_rejected_within_half_an_hour(shape: str) -> None:
    for seed in range(5):
        found = trial(shape, 2000, seed, seconds=1800)
        assert found.rejected is not None
        assert found.passed is None


@pytest.mark.parametrize("shape", ["plateau", "compiling", "filling", "jumping", "arenas"])
def test_a_leak_of_twice_the_bound_is_rejected_after_an_hour_of_it(shape: str) -> None:
    for seed in range(4):
        found = trial(shape, 200, seed, seconds=5400)
        assert found.rejected is not None
        assert found.rejected >= 3900 - 1
        assert found.passed is None


@pytest.mark.parametrize("shape", ["plateau", "compiling", "filling", "jumping", "arenas"])
def test_a_leak_of_20_mb_an_hour_never_lets_the_weight_rise(shape: str) -> None:
    for seed in range(4):
        found = trial(shape, 20, seed, every=300)
        assert (found.rejected, found.passed) == (None, None)


def test_a_quiet_server_passes_at_the_end_of_its_hold() -> None:
    for shape in ("plateau", "compiling"):
        for seed in range(5):
            assert trial(shape, 0, seed, seconds=1920).passed == 1800


def test_a_leak_that_begins_in_the_bake_is_rejected_soon_after() -> None:
    begun = 6 * HOUR
    curve = leaking(FLAT, 2000 * MB, since=begun)
    points = samples(curve, random.Random(1), 0.0, begun + 1500)
    assert judged(points, begun).verdict is Verdict.PASS
    assert judged(points, begun + 1500).limit == "> 100 MB/h"


def test_a_leak_of_20_mb_an_hour_that_begins_in_the_bake_is_seen_in_the_last_hour() -> None:
    begun = 20 * HOUR
    points = samples(leaking(FLAT, 20 * MB, since=begun), random.Random(1), 0.0, begun + HOUR, step=60)
    assert judged(points, begun).verdict is Verdict.PASS
    assert judged(points, begun + HOUR).verdict is Verdict.FAIL


def test_a_leak_near_the_limit_is_rejected_while_there_is_time() -> None:
    curve = leaking(FLAT, 300 * MB)
    near = of(curve, 2400, limit=REST + 230 * MB)
    assert near.limit == "> 100 MB/h"
    assert near.message == "300 MB/h, above 100 MB/h (the memory limit is reached in 6 min)"
    assert of(curve, 2400, limit=4e9).limit == "< 10 MB/h"


# --- what is not counted ---------------------------------------------------------------------------------------------


def test_a_fall_is_not_a_restart() -> None:
    peaks: Shape = lambda at: PEAK + 200 * MB if at % 400 < 40 else REST  # noqa: E731
    assert of(peaks, 1800).verdict is Verdict.PASS


def test_a_restart_is_not_a_fall_and_growth_is_that_of_the_container_that_runs() -> None:
    curve: Shape = lambda at: leaking(FLAT, 200 * MB)(at % 1700) + (400 * MB if at < 1700 else 0.0)  # noqa: E731
    found = of(curve, HOUR - 300, started=1700.0)
    assert found.canary == pytest.approx(200 * MB, rel=0.1)


def test_a_node_whose_clock_is_ahead_is_not_waited_for() -> None:
    assert of(FLAT, 1800, started=86_400.0).verdict is Verdict.PASS


def test_warm_up_is_no_growth() -> None:
    assert of(lambda at: REST - 300 * MB * max(0.0, 1 - at / 250), 1800).verdict is Verdict.PASS


# --- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "message"), [
    (60.0, "needs 14 more minutes of samples"),
    (300.0, "needs 10 more minutes of samples"),
    (851.0, "needs 1 more minute of samples"),
])  # fmt: skip
def test_it_says_how_long_until_there_are_enough_samples(seconds: float, message: str) -> None:
    found = of(FLAT, seconds)
    assert (found.verdict, found.message) == (Verdict.COLLECTING, message)


def test_a_restarted_operator_that_has_only_its_own_samples_says_that_it_needs_ten_minutes_of_them() -> None:
    points = samples(FLAT, random.Random(1), 3000.0, 3120.0)
    assert judged(points, 3120.0).message == "needs 8 more minutes of samples"


def test_a_noisy_slope_says_its_interval_and_how_long_it_takes_to_tell() -> None:
    points = samples(FLAT, random.Random(1), 0.0, 1800, noise=40)
    found = judged(points, 1800)
    assert found.verdict is Verdict.COLLECTING
    assert "MB/h, between -" in found.message
    assert "needs about" in found.message
    assert "more minutes of samples" in found.message


def test_a_leak_says_when_the_limit_is_reached_and_when_it_is_decided() -> None:
    found = of(leaking(FLAT, 200 * MB), 2400, limit=2e9)
    assert found.verdict is Verdict.FAIL
    assert found.message == (
        "200 MB/h, needs < 10 MB/h (the memory limit is reached in 7 h; acts in about 25 minutes if it stays above "
        "100 MB/h)"
    )


def test_a_slow_leak_holds_and_does_not_reject() -> None:
    found = of(leaking(FLAT, 20 * MB), HOUR)
    assert found.verdict is Verdict.FAIL
    assert found.message == "20.3 MB/h, needs < 10 MB/h (the memory limit is reached in 169 h)"


def test_a_step_that_is_too_short_for_it_is_not_held_by_growth() -> None:
    found = of(FLAT, 30, hold=30.0)
    assert found.verdict is Verdict.NOT_APPLICABLE
    assert found.message == "a step of 30 s is too short to judge it: it needs 900 s"


# --- several pods, several sources -----------------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NAME = MetricNames().memory
GROWTH = Gate("memory-growth", "memory-growth", advance=Bound(below=10 * MB), abort=Bound(above=100 * MB))


def series(pod: str, shape: Shape, begin: float, end: float) -> Series:
    """Samples of a pod; times are seconds before now."""
    start = NOW.timestamp() - 2 * HOUR
    found = samples(shape, random.Random(pod), 2 * HOUR - begin, 2 * HOUR - end)
    return Series({FAMILY_LABEL: NAME, "pod": pod}, tuple((start + at, value) for at, value in found))


def scope(*pods: str) -> Scope:
    return Scope(
        name="eu", namespace="pricing", analysis=Analysis(Prometheus(), Profile.STANDARD, (GROWTH,)),
        canary=Side("bbbb", pods=pods, ready=pods), stable=Side("aaaa"), weight=10, now=NOW,
        start=NOW - timedelta(seconds=2 * HOUR), in_force=NOW - timedelta(seconds=2 * HOUR), hold_seconds=1800,
    )  # fmt: skip


A, B, C = (f"eu-bbbb-x-{number}" for number in (1, 2, 3))


def test_a_pod_that_was_just_added_does_not_disarm_the_gate_for_the_others() -> None:
    leak = leaking(FLAT, 200 * MB)
    answers: dict[str, AnyAnswer] = {f"pods/{NAME}": (series(A, leak, 2 * HOUR, 0), series(B, FLAT, 100, 0))}
    assert judge(scope(A, B), answers).condemnation is not None
    answers = {f"pods/{NAME}": (series(A, FLAT, 2 * HOUR, 0), series(B, FLAT, 100, 0))}
    assert judge(scope(A, B), answers).all_pass
    answers = {f"pods/{NAME}": (*answers[f"pods/{NAME}"], series(C, FLAT, 100, 0))}  # type: ignore[misc]
    [found] = judge(scope(A, B, C), answers).gates
    assert found.message == "needs 9 more minutes of samples", "of most of its pods nothing is known"


def test_the_history_of_prometheus_goes_before_that_of_the_pods() -> None:
    own, scraped = series(A, FLAT, 60, 0), series(A, FLAT, 2 * HOUR, 0)
    found = Answers(
        {f"pods/{NAME}": (own,), f"prom/{NAME}/8192s": (replace(scraped, labels={"pod": A}),)}, scope(A)
    ).levels(memory_family(MetricNames()))
    source, points, error = found
    assert (source, error) == (SourceKind.PODS, None)
    assert points[A][-len(own.points) :] == own.points
    assert points[A][0] == scraped.points[0]
    moments = [at for at, _ in points[A]]
    assert moments == sorted(set(moments))
