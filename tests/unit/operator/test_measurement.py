"""From samples to counts: restarts, late births, double targets, quantiles, and the proof of silence."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.gates.custom_query import single_value
from pinn_operator.core.gates.histogram import Histogram, bound_of, histogram_of
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.silence import STILL_COUNTS, STILL_SCRAPES, STILL_SECONDS, silent, stands_still
from pinn_operator.core.gates.tracks import Track, tracks
from pinn_operator.core.gates.windows import Part
from pinn_operator.core.samples import Awaited, Series, SourceError
from pinn_operator.core.wanted.spec import Analysis, Profile, Prometheus

INF = math.inf
DOWN = SourceError("connection refused")


def pod(side: str, name: str = "1") -> str:
    return f"eu-options-{'bbbb' if side == 'canary' else 'aaaa'}-x-{name}"


def series(*values: float, status: str = "200", start: float = 0, step: float = 10, **labels: str) -> Series:
    points = tuple((start + index * step, value) for index, value in enumerate(values))
    return Series({"pod": "a", "status": status, **labels}, points)


def growth(track: Track, name: str) -> list[float]:
    values = track.grown[name]
    return [value - values[0] for value in values]


def track_of(*found: Series) -> Track:
    return tracks(found, lambda labels: labels["status"])["a"]


# --- counters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "grown"),
    [
        ("it grows", [5, 7, 12], [0, 2, 7]),
        ("it restarts from zero", [50, 70, 1], [0, 20, 21]),
        ("it restarts twice", [50, 0, 40, 2], [0, 0, 40, 42]),
        ("a replica that lags takes nothing back and adds nothing twice", [200000, 199980, 200010], [0, 0, 10]),
        ("it has holes of NaN", [5, math.nan, 9], [0, 0, 4]),
        ("one point shows no growth", [5], [0]),
    ],
)
def test_growth_of_a_counter(name: str, values: list[float], grown: list[float]) -> None:
    assert growth(track_of(series(*values)), "200") == grown, name


@given(steps=st.lists(st.integers(1, 1000), min_size=1, max_size=30), restarts=st.sets(st.integers(1, 29)))
def test_restarts_lose_nothing_that_was_counted_after_them(steps: list[int], restarts: set[int]) -> None:
    values, value = [1_000_000.0], 1_000_000.0
    for index, step in enumerate(steps):
        # A restart is seen as one if the container has not caught up with its predecessor.
        value = float(step) if index in restarts and value > 2 * step else value + step
        values.append(value)
    track = track_of(series(*values))
    assert growth(track, "200")[-1] == pytest.approx(sum(steps))


def test_a_status_that_is_first_seen_late_began_at_zero() -> None:
    track = track_of(series(10, 20, 30), series(4, status="500", start=20))
    assert growth(track, "500") == [0, 0, 4]
    assert track.has_counted(0)
    assert not track_of(series(0, 1)).has_counted(0)


def test_series_of_one_class_are_summed_and_a_restart_is_told_by_all_of_them() -> None:
    track = track_of(
        series(100, 110, 5, handler="/a"), series(100, 120, 4, handler="/b"), series(3, 2, 0, status="500")
    )
    assert growth(track, "200") == [0, 30, 39]
    assert growth(track, "500") == [0, 0, 0], "two errors of a lagging replica are no restart"
    assert track.restarts == (20.0,)


@pytest.mark.parametrize("reborn", [None, 20, 30])
def test_a_restarted_server_without_errors_yet_has_not_repeated_those_of_before(reborn: int | None) -> None:
    """Its counters by label are absent until they are used, and Prometheus and the pod say nothing of them."""
    good = series(8000, 8100, 50, 150)
    after = () if reborn is None else tuple((time, 1.0) for time in range(reborn, 40, 10))
    bad = Series({"pod": "a", "status": "500"}, ((0.0, 90.0), (10.0, 92.0), *after))
    track = track_of(good, bad)
    assert [track.count(("200",), 0, end) for end in range(4)] == [0, 100, 150, 250]
    assert [track.count(("500",), 0, end) for end in (1, 3)] == [2, 2 + bool(after)]
    assert track.restarts == (20,)


def test_a_small_counter_that_lags_alone_is_no_restart() -> None:
    good = Series({"pod": "a", "status": "200"}, ((0.0, 8000.0), (10.0, 8100.0), (20.0, 8200.0)))
    bad = Series({"pod": "a", "status": "500"}, ((5.0, 9.0), (15.0, 3.0), (25.0, 9.0)))
    track = track_of(good, bad)
    assert track.restarts == ()
    assert track.count(("200",), 0, len(track.times) - 1) == 200


def test_a_pod_counts_once_however_many_targets_it_has() -> None:
    once = track_of(series(0, 10, 20, job="a"))
    thrice = track_of(*(series(0, 10, 20, job=job) for job in ("a", "b", "c")))
    assert thrice.grown == once.grown


def test_of_two_targets_the_one_that_was_scraped_for_longest_counts() -> None:
    late = series(20, 900, 9000, job="a", start=20)
    assert growth(track_of(late, series(0, 10, 20, 30, 40, 50, job="b")), "200") == [0, 10, 20, 30, 40, 50]


def test_the_interval_is_that_of_the_newest_samples() -> None:
    assert track_of(series(*range(10), step=15)).interval == 15
    assert Track.of("a", (0.0, 100.0, 200.0, 201.0, 202.0, 203.0, 204.0), {}).interval == 1
    assert Track.of("a", (5.0,), {}).interval is None


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


def test_the_pods_of_a_side_make_one_histogram_and_a_bucket_below_its_neighbour_is_raised_to_it() -> None:
    one = Track.of("a", (0.0, 1.0), {"0.1": (0.0, 5.1), "0.2": (0.0, 5.0), "+Inf": (0.0, 6.0)})
    other = Track.of("b", (0.5, 1.5), {"0.1": (0.0, 1.0), "+Inf": (0.0, 4.0)})
    found = histogram_of((Part(one, 0, 1), Part(other, 0, 1)))
    assert found.buckets == ((0.1, 6.1), (0.2, 6.1), (INF, 10))
    without_last = Track.of("a", (0.0, 1.0), {"0.1": (0.0, 5.0)})
    assert histogram_of((Part(without_last, 0, 1),)) == Histogram()


def test_a_bucket_is_called_by_its_bound_however_it_is_written() -> None:
    assert [bound_of({"le": text}) for text in ("0.5", "5e-1", "1", "1.0", "+Inf", "inf", "x")] == [
        "0.5", "0.5", "1", "1", "+Inf", "+Inf", None,
    ]  # fmt: skip


# --- own queries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer", "value"),
    [
        ("one number", (Series({}, ((1.0, 0.25),)),), 0.25),
        ("nothing is no data", (), None),
        ("a series without points is no data", (Series({}, ()),), None),
        ("NaN is no data", (Series({}, ((1.0, math.nan),)),), None),
        ("infinity is a number", (Series({}, ((1.0, INF),)),), INF),
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


ANALYSIS = Analysis(Prometheus(), Profile.STANDARD, ())
MOMENT = datetime.fromtimestamp(95, UTC)


def test_pods_that_were_read_themselves_prove_silence_too() -> None:
    def read(*points: tuple[float, float], handler: str = "/v1/price") -> Series:
        return Series({"pod": "a", "handler": handler}, points)

    key = "pods/http_requests_total"
    probes = read((90, 1), (92, 2), (94, 3), handler="/health")
    assert silent({key: (read((90, 5), (92, 5), (94, 5)), probes)}, ANALYSIS, MOMENT) is True
    assert silent({key: (read((90, 5), (92, 5), (94, 6)), probes)}, ANALYSIS, MOMENT) is False
    assert silent({key: (probes,)}, ANALYSIS, MOMENT) is None
    assert silent({key: DOWN}, ANALYSIS, MOMENT) is None
    asked = {STILL_COUNTS: Awaited(), STILL_SCRAPES: Awaited()}
    assert silent({key: DOWN, **asked}, ANALYSIS, MOMENT) is False, "Prometheus may still tell"
    later = MOMENT + timedelta(seconds=60)
    assert silent({key: (read((90, 5), (92, 5), (94, 6)), probes)}, ANALYSIS, later) is None, "they are read no more"
    assert silent({}, ANALYSIS, MOMENT) is False, (
        "what was not asked proves nothing, and nothing is known to be missing"
    )
