"""From time series to counts: restarts, late births, pods that come and go, quantiles, and the proof of silence."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.gates.counters import (
    STILL_SECONDS,
    Histogram,
    Sides,
    histograms,
    increase,
    request_windows,
    single_value,
    stands_still,
)
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.samples import Series, SourceError

INF = math.inf
SIDES = Sides.of("eu-options", canary="bbbb", stable="aaaa")
DOWN = SourceError("connection refused")


def pod(side: str, name: str = "1") -> str:
    return f"eu-options-{'bbbb' if side == 'canary' else 'aaaa'}-x-{name}"


def counter(
    side: str, *values: float, status: str = "200", name: str = "1", start: float = 0, step: float = 10
) -> Series:
    points = tuple((start + index * step, value) for index, value in enumerate(values))
    return Series({"pod": pod(side, name), "status": status}, points)


# --- counters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "start", "born_at_zero", "grown"),
    [
        ("it grows", [5, 7, 12], 0, False, 7),
        ("only what grew after the start counts", [5, 7, 12], 10, False, 5),
        ("it restarts from zero", [5, 7, 1], 0, False, 3),
        ("it restarts twice", [5, 0, 4, 2], 0, False, 6),
        ("it restarts and overtakes itself unseen", [5, 7, 9], 0, False, 4),
        ("it was born within the window", [3, 4], -1, True, 4),
        ("its first value is unknown history", [3, 4], -1, False, 1),
        ("it has holes of NaN", [5, math.nan, 9], 0, False, 4),
        ("one point shows no growth", [5], 0, False, 0),
        ("nothing is nothing", [], 0, False, 0),
    ],
)
def test_growth_of_a_counter(name: str, values: list[float], start: float, born_at_zero: bool, grown: float) -> None:
    points = [(10.0 * index, value) for index, value in enumerate(values)]
    assert increase(points, start, born_at_zero=born_at_zero) == grown, name


@given(steps=st.lists(st.floats(0, 1e6), min_size=1, max_size=30), restarts=st.sets(st.integers(1, 29)))
def test_restarts_lose_nothing_that_was_counted_after_them(steps: list[float], restarts: set[int]) -> None:
    values, value = [], 0.0
    for index, step in enumerate(steps):
        value = step if index in restarts else value + step
        values.append(value)
    points = [(float(index), value) for index, value in enumerate(values)]
    grown = increase(points, 0)
    # A restart after which more was counted than before cannot be told from growth: never too much is counted.
    # The counter itself rounds: a step is known to no more digits than the counter has.
    assert 0 <= grown <= sum(steps[1:]) + 1e-12 * sum(steps)


def test_both_sides_are_counted_by_pod_name_and_status() -> None:
    [window] = request_windows(
        (
            counter("canary", 0, 5), counter("canary", 0, 2, status="503"), counter("stable", 10, 90),
            counter("stable", 1, 1, status="500"), counter("stable", 0, 3, status="404"),
            Series({"pod": "us-options-bbbb-x-1", "status": "500"}, ((0.0, 0.0), (10.0, 99.0))),
            Series({"status": "500"}, ((0.0, 0.0), (10.0, 99.0))),
        ),
        SIDES,
    )  # fmt: skip
    assert window.canary == Counts(7, 2)
    assert window.stable == Counts(83, 0)
    assert window.seconds == 10


def test_a_status_that_is_first_seen_late_began_at_zero_but_a_pod_that_is_first_seen_late_did_not() -> None:
    late_status = counter("canary", 4, 4, status="500", start=10)
    late_pod = counter("canary", 1000, 1001, name="2", start=10)
    [*_, window] = request_windows((counter("canary", 0, 10, 20), late_status, late_pod), SIDES)
    assert window.canary == Counts(20 + 4 + 1, 4)


def test_a_pod_that_disappears_keeps_what_it_answered() -> None:
    gone = Series({"pod": pod("canary"), "status": "500"}, ((0.0, 0.0), (10.0, 8.0)))
    [*_, window] = request_windows((gone, counter("canary", 0, 1, 2, name="2")), SIDES)
    assert window.canary == Counts(10, 8)


def test_windows_of_ten_seconds_to_two_minutes_and_the_whole_range() -> None:
    values = [float(value) for value in range(31)]
    windows = request_windows((counter("canary", *values), counter("stable", *values)), SIDES)
    assert [window.seconds for window in windows] == [10, 30, 60, 120, 300]
    assert [window.canary.total for window in windows] == [1, 3, 6, 12, 30]


@pytest.mark.parametrize("answer", [(), (counter("canary", 5),)])
def test_less_than_two_moments_are_no_window(answer: tuple[Series, ...]) -> None:
    assert request_windows(answer, SIDES) == ()


# --- histograms -------------------------------------------------------------------------------------------------------


def histogram(*buckets: tuple[float, float]) -> Histogram:
    return Histogram(buckets)


def promql_quantile(q: float, buckets: list[tuple[float, float]]) -> float:
    """Prometheus 3, promql/quantile.go, `BucketQuantile`, for classic histograms and 0 < q < 1."""
    if len(buckets) < 2 or buckets[-1][1] == 0:
        return math.nan
    rank = q * buckets[-1][1]
    index = next(place for place, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    if index == 0 and buckets[0][0] <= 0:
        return buckets[0][0]
    start, end, count = 0.0, buckets[index][0], buckets[index][1]
    if index > 0:
        start, count, rank = buckets[index - 1][0], count - buckets[index - 1][1], rank - buckets[index - 1][1]
    return start + (end - start) * (rank / count)


@given(
    bounds=st.sets(st.floats(0.0001, 100), max_size=12),
    counts=st.lists(st.one_of(st.integers(0, 50).map(float), st.floats(0, 1000)), min_size=13, max_size=13),
    q=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_quantiles_are_those_of_promql(bounds: set[float], counts: list[float], q: float) -> None:
    buckets = list(zip([*sorted(bounds), INF], accumulate(counts), strict=False))
    expected, found = promql_quantile(q, buckets), Histogram(tuple(buckets)).quantile(q)
    if math.isnan(expected):
        assert found is None
    else:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "value", "q", "expected"),
    [
        ("half way into a bucket", histogram((0.1, 0), (0.2, 10), (INF, 10)), 0.5, 0.15),
        ("beyond the last bound it is that bound", histogram((0.1, 1), (INF, 100)), 0.95, 0.1),
        ("below the first bound it begins at zero", histogram((0.1, 10), (INF, 10)), 0.5, 0.05),
        ("without observations there is none", histogram((0.1, 0), (INF, 0)), 0.5, None),
        ("without buckets there is none", histogram(), 0.5, None),
        ("without a finite bucket there is none", histogram((INF, 5)), 0.5, None),
    ],
)
def test_a_quantile(name: str, value: Histogram, q: float, expected: float | None) -> None:
    assert value.quantile(q) == (None if expected is None else pytest.approx(expected)), name


def test_slower_requests_are_counted_from_the_next_bound_on() -> None:
    value = histogram((0.1, 50), (0.5, 80), (1.0, 95), (INF, 100))
    assert value.slower_than(0.5) == Counts(100, 20)
    assert value.slower_than(0.3) == Counts(100, 20)
    assert value.slower_than(7) == Counts(100, 0)


def bucket(side: str, le: str, value: float, name: str = "1") -> Series:
    return Series({"pod": pod(side, name), "le": le}, ((100.0, value),))


def test_the_pods_of_a_side_make_one_histogram() -> None:
    window = histograms(
        (
            bucket("canary", "0.1", 5), bucket("canary", "+Inf", 6), bucket("canary", "0.1", 1, "2"),
            bucket("canary", "+Inf", 4, "2"), bucket("stable", "0.1", 7), bucket("stable", "+Inf", 7),
        ),
        SIDES,
    )  # fmt: skip
    assert window.canary.buckets == ((0.1, 6), (INF, 10))
    assert window.stable.buckets == ((0.1, 7), (INF, 7))


def test_a_bucket_that_extrapolation_left_below_its_neighbour_is_raised_to_it() -> None:
    window = histograms((bucket("canary", "0.1", 5.1), bucket("canary", "0.2", 5), bucket("canary", "+Inf", 6)), SIDES)
    assert window.canary.buckets == ((0.1, 5.1), (0.2, 5.1), (INF, 6))


def test_a_histogram_without_its_last_bucket_or_with_nan_is_no_histogram() -> None:
    assert histograms((bucket("canary", "0.1", 5),), SIDES).canary == Histogram()
    nan = histograms((bucket("canary", "0.1", 5), bucket("canary", "+Inf", math.nan)), SIDES)
    assert nan.canary == Histogram()


# --- own queries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer", "value"),
    [
        ("one number", (Series({}, ((1.0, 0.25),)),), 0.25),
        ("nothing is no data", (), None),
        ("a series without points is no data", (Series({}, ()),), None),
        ("NaN is no data", (Series({}, ((1.0, math.nan),)),), None),
        ("infinity is no data", (Series({}, ((1.0, INF),)),), None),
    ],
)
def test_the_value_of_an_own_query(name: str, answer: tuple[Series, ...], value: float | None) -> None:
    assert single_value(answer) == value, name


def test_an_own_query_that_returns_two_series_is_told_what_would_be_right() -> None:
    value = single_value((Series({"pod": "a"}, ((1.0, 1.0),)), Series({"pod": "b"}, ((1.0, 2.0),))))
    assert isinstance(value, SourceError)
    assert "2 series" in value.message
    assert "sum()" in value.message


# --- silence ----------------------------------------------------------------------------------------------------------


def scraped(*times: float) -> tuple[Series, ...]:
    return tuple(Series({"pod": str(index)}, ((100.0, time),)) for index, time in enumerate(times))


def answered(*points: tuple[float, float], name: str = "1") -> Series:
    return Series({"pod": pod("canary", name)}, points)


@pytest.mark.parametrize(
    ("name", "counts", "scrapes", "proof"),
    [
        ("counters stand still and were scraped after it", (answered((90, 5), (91, 5)),), scraped(92), True),
        ("they moved a moment ago", (answered((90, 5), (91, 6)),), scraped(92), False),
        ("they stand still, but nobody has looked since", (answered((90, 5), (99, 5)),), scraped(90.5), False),
        ("one pod still answers", (answered((90, 5), (95, 5)), answered((90, 5), (95, 6), name="2")), scraped(96, 96),
         False),
        ("one pod was not scraped again", (answered((90, 5)), answered((90, 5), name="2")), scraped(96, 91), False),
        ("a restart is a change", (answered((90, 5), (95, 0)),), scraped(96), False),
        ("nothing is counted", (), scraped(96), None),
        ("nothing is scraped", (answered((90, 5)),), (), None),
        ("series without points", (answered(),), (Series({}, ()),), None),
        ("values that are none", (answered((90, math.nan)),), scraped(math.nan), None),
        ("holes of NaN are no change", (answered((90, 5), (94, math.nan), (95, 5)),), scraped(96), True),
        ("counts cannot be had", DOWN, scraped(96), None),
        ("scrapes cannot be had", (answered((90, 5)),), DOWN, None),
    ],
)  # fmt: skip
def test_what_proves_silence(
    name: str, counts: tuple[Series, ...] | SourceError, scrapes: tuple[Series, ...] | SourceError, proof: bool | None
) -> None:
    assert stands_still(counts, scrapes) is proof, name


@given(changed=st.integers(0, 59), seen=st.floats(0, 120))
def test_silence_is_never_proven_before_a_scrape_two_seconds_after_the_last_change(changed: int, seen: float) -> None:
    points = tuple((float(second), 0.0 if second < changed else 1.0) for second in range(60))
    assert (stands_still((answered(*points),), scraped(seen)) is True) is (seen - changed >= STILL_SECONDS)
