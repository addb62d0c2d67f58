"""The evaluator that stories ask gives what Prometheus gives.

The expected values are what `promtool test rules` of Prometheus 3 printed for these series and questions.
"""

from __future__ import annotations

from math import inf as INF
from math import nan as NAN

import pytest

from tests.story.promql import QueryError, Store, TimeSeries, instant, parse, ranged

SERIES = {
    'req{pod="a",status="200"}': "3 9 16 20 27 33 36 41 50 58 66 70",
    'req{pod="a",status="500"}': "_ _ _ _ 2 2 3 3 3 5 6 6",
    'req{pod="b",status="200"}': "10 14 19 25 2 6 6 11 15 19 24 30",
    'req{pod="c",status="200"}': "1 2 4 6 7 stale _ _ _ _ _ _",
    'mem{pod="a"}': "100 104 99 103 107 101 98 _ 110 112 108 111",
    'mem{pod="b"}': "50 52 54 56 58 60 62 64 66 68 70 72",
    'lat_bucket{pod="a",le="0.1"}': "0 4 9 12 15 20 22 25 29 33 36 40",
    'lat_bucket{pod="a",le="1"}': "0 6 12 18 22 29 33 38 44 49 54 60",
    'lat_bucket{pod="a",le="+Inf"}': "0 6 13 20 25 32 36 41 48 54 60 66",
}
"""A sample every 15 seconds from 0 on, in promtool's notation: `_` is none, `stale` a staleness marker."""
CASES: list[tuple[str, float, dict[str, float] | None]] = [
    ("req", 0, {'req pod="a", status="200"': 3.0, 'req pod="b", status="200"': 10.0, 'req pod="c", status="200"': 1.0}),
    (
        "req",
        100,
        {'req pod="a", status="200"': 36.0, 'req pod="a", status="500"': 3.0, 'req pod="b", status="200"': 6.0},
    ),
    (
        "req",
        165,
        {'req pod="a", status="200"': 70.0, 'req pod="a", status="500"': 6.0, 'req pod="b", status="200"': 30.0},
    ),
    (
        "req",
        464,
        {'req pod="a", status="200"': 70.0, 'req pod="a", status="500"': 6.0, 'req pod="b", status="200"': 30.0},
    ),
    ("req", 465, {}),
    ("req", 480, {}),
    ('req{status=~"5.."}', 165, {'req pod="a", status="500"': 6.0}),
    ('req{pod!~"a|b"}', 60, {'req pod="c", status="200"': 7.0}),
    ('{__name__=~"m.*"}', 75, {'mem pod="a"': 101.0, 'mem pod="b"': 60.0}),
    ('mem{zone=""}', 30, {'mem pod="a"': 99.0, 'mem pod="b"': 54.0}),
    ("sum by (status) (req)", 100, {'status="200"': 42.0, 'status="500"': 3.0}),
    ("sum without (status) (req)", 165, {'pod="a"': 76.0, 'pod="b"': 30.0}),
    ("avg(mem)", 40, {"": 76.5}),
    ("max(req)", 75, {"": 33.0}),
    ("count by (pod) (req)", 165, {'pod="a"': 2.0, 'pod="b"': 1.0}),
    ("topk(2, req)", 165, {'req pod="a", status="200"': 70.0, 'req pod="b", status="200"': 30.0}),
    ("quantile(0.25, mem)", 75, {"": 70.25}),
    ("rate(req[30s])", 75, {'pod="a", status="200"': 0.4, 'pod="a", status="500"': 0.0, 'pod="b", status="200"': 0.2}),
    (
        "rate(req[31s])",
        75,
        {
            'pod="a", status="200"': 0.4333333333333334,
            'pod="a", status="500"': 0.0,
            'pod="b", status="200"': 0.20000000000000004,
            'pod="c", status="200"': 0.06666666666666668,
        },
    ),
    (
        "increase(req[1m])",
        75,
        {
            'pod="a", status="200"': 22.666666666666664,
            'pod="a", status="500"': 0.0,
            'pod="b", status="200"': 16.0,
            'pod="c", status="200"': 6.0,
        },
    ),
    (
        "increase(req[1m])",
        83,
        {
            'pod="a", status="200"': 22.666666666666664,
            'pod="a", status="500"': 0.0,
            'pod="b", status="200"': 16.0,
            'pod="c", status="200"': 4.45,
        },
    ),
    (
        "increase(req[2m] offset 20s)",
        165,
        {
            'pod="a", status="200"': 48.0,
            'pod="a", status="500"': 3.7,
            'pod="b", status="200"': 28.57142857142857,
            'pod="c", status="200"': 4.25,
        },
    ),
    ("increase(req[15s])", 75, {}),
    ("delta(mem[1m])", 165, {'pod="a"': 1.3333333333333333, 'pod="b"': 8.0}),
    (
        "irate(req[1m])",
        75,
        {
            'pod="a", status="200"': 0.4,
            'pod="a", status="500"': 0.0,
            'pod="b", status="200"': 0.26666666666666666,
            'pod="c", status="200"': 0.06666666666666667,
        },
    ),
    ("deriv(mem[2m])", 165, {'pod="a"': 0.08652968036529658, 'pod="b"': 0.13333333333333333}),
    (
        "changes(req[1m])",
        165,
        {'pod="a", status="200"': 3.0, 'pod="a", status="500"': 2.0, 'pod="b", status="200"': 3.0},
    ),
    (
        "resets(req[3m])",
        165,
        {
            'pod="a", status="200"': 0.0,
            'pod="a", status="500"': 0.0,
            'pod="b", status="200"': 1.0,
            'pod="c", status="200"': 0.0,
        },
    ),
    (
        "last_over_time(req[20s])",
        75,
        {
            'req pod="a", status="200"': 33.0,
            'req pod="a", status="500"': 2.0,
            'req pod="b", status="200"': 6.0,
            'req pod="c", status="200"': 7.0,
        },
    ),
    (
        "last_over_time(req[2m])",
        165,
        {
            'req pod="a", status="200"': 70.0,
            'req pod="a", status="500"': 6.0,
            'req pod="b", status="200"': 30.0,
            'req pod="c", status="200"': 7.0,
        },
    ),
    ("max_over_time(mem[1m])", 120, {'pod="a"': 110.0, 'pod="b"': 66.0}),
    ("avg_over_time(mem[45s])", 120, {'pod="a"': 104.0, 'pod="b"': 64.0}),
    ("count_over_time(mem[45s])", 120, {'pod="a"': 2.0, 'pod="b"': 3.0}),
    (
        "count_over_time(req[30s])",
        75,
        {
            'pod="a", status="200"': 2.0,
            'pod="a", status="500"': 2.0,
            'pod="b", status="200"': 2.0,
            'pod="c", status="200"': 1.0,
        },
    ),
    (
        "timestamp(req)",
        100,
        {'pod="a", status="200"': 90.0, 'pod="a", status="500"': 90.0, 'pod="b", status="200"': 90.0},
    ),
    ("timestamp(sum(req))", 100, {"": 100.0}),
    ("histogram_quantile(0.5, lat_bucket)", 165, {'pod="a"': 0.0825}),
    ("histogram_quantile(0.9, sum by (pod, le) (increase(lat_bucket[1m])))", 165, {'pod="a"': 1.0}),
    ("histogram_quantile(0.99, lat_bucket)", 165, {'pod="a"': 1.0}),
    ("histogram_quantile(0.9, lat_bucket)", 0, {'pod="a"': NAN}),
    ("mem > 100", 165, {'mem pod="a"': 111.0}),
    ("100 < bool mem", 165, {'pod="a"': 1.0, 'pod="b"': 0.0}),
    (
        "mem / on (pod) group_right req",
        165,
        {'pod="a", status="200"': 1.5857142857142856, 'pod="a", status="500"': 18.5, 'pod="b", status="200"': 2.4},
    ),
    ('sum(req{status=~"5.."}) / sum(req)', 165, {"": 0.05660377358490566}),
    ('sum(req{status=~"9.."}) / sum(req) or vector(0)', 165, {"": 0.0}),
    ("mem and on (pod) req > 60", 165, {'mem pod="a"': 111.0}),
    ("mem unless on (pod) (req > 60)", 165, {'mem pod="b"': 72.0}),
    ("max_over_time(sum(req)[1m:15s])", 165, {"": 106.0}),
    ("-2 ^ 2", 0, {"": -4.0}),
    ("1 / 0", 0, {"": INF}),
    ('absent(nothing{pod="a"})', 0, {'pod="a"': 1.0}),
    ("scalar(mem)", 0, {"": NAN}),
    ("mem * on (pod) req", 165, None),
    ("rate(req)", 0, None),
    ("sum(req", 0, None),
    ("mem + bool 1", 0, None),
    ('{pod=""}', 0, None),
    ('req{status=~"("}', 0, None),
    (
        'rate({pod="a",__name__=~"mem|lat_bucket"}[1m])',
        165,
        {
            'le="+Inf", pod="a"': 0.39999999999999997,
            'le="0.1", pod="a"': 0.2444444444444444,
            'le="1", pod="a"': 0.3555555555555555,
            'pod="a"': 2.5111111111111106,
        },
    ),
    ('rate({__name__=~"lat_bucket|mem",pod="b"}[1m])', 165, {'pod="b"': 0.1333333333333333}),
]
"""Expression, moment in seconds, and the series with their values; None where Prometheus refuses."""


def labels_of(text: str) -> dict[str, str]:
    """`req{pod="a"}`, or as promtool prints it `req pod="a"`, as labels."""
    name, _, rest = text.replace("{", " ").replace("}", "").partition(" ")
    if "=" in name:
        name, rest = "", text
    pairs = [part.split("=", 1) for part in rest.replace(", ", ",").split(",") if part]
    labels = {key: value.strip('"') for key, value in pairs}
    return {"__name__": name, **labels} if name else labels


@pytest.fixture(scope="module")
def store() -> Store:
    store = Store()
    for text, samples in SERIES.items():
        series = store.get(labels_of(text))
        for index, sample in enumerate(samples.split()):
            if sample == "stale":
                series.mark_stale(15.0 * index)
            elif sample != "_":
                series.append(15.0 * index, float(sample))
    return store


@pytest.mark.parametrize(("expression", "time", "expected"), CASES)
def test_an_expression_has_the_value_that_prometheus_gives_it(
    store: Store, expression: str, time: float, expected: dict[str, float] | None
) -> None:
    if expected is None:
        with pytest.raises(QueryError):
            instant(store, expression, time)
        return
    found = {tuple(sorted(labels.items())): points[-1][1] for labels, points in instant(store, expression, time)}
    wanted = {tuple(sorted(labels_of(text).items())): value for text, value in expected.items()}
    assert found.keys() == wanted.keys()
    for labels, value in found.items():
        assert value == pytest.approx(wanted[labels], nan_ok=True)


def test_a_range_selector_gives_raw_samples_and_nothing_from_before_the_range(store: Store) -> None:
    [(_, points)] = instant(store, 'req{pod="a",status="200"}[30s]', 75)
    assert points == [(60, 27), (75, 33)]
    assert instant(store, 'req{pod="a"}[10s]', 74) == []


def test_a_range_query_looks_back_at_every_step_and_sees_no_series_behind_its_marker(store: Store) -> None:
    [(_, points)] = ranged(store, 'req{pod="c"}', 55, 85, 10)
    assert points == [(55, 6), (65, 7)]


def test_a_range_query_of_too_many_points_is_refused(store: Store) -> None:
    with pytest.raises(QueryError, match="exceeded maximum resolution of 11,000 points"):
        ranged(store, "req", 0, 11_001, 1)


def test_a_native_histogram_is_no_number() -> None:
    store = Store()
    store.get({"__name__": "latency"}, native=True).append(10, 1)
    for expression in ("latency", "latency[1m]", "rate(latency[1m])", "sum(latency)"):
        with pytest.raises(QueryError):
            instant(store, expression, 20)


def test_a_sample_that_is_not_newer_is_not_stored() -> None:
    series = TimeSeries({})
    for time, value in ((1.0, 5.0), (1.0, 6.0), (0.5, 7.0), (2.0, 8.0)):
        series.append(time, value)
    assert (series.times, series.values) == ([1.0, 2.0], [5.0, 8.0])


@pytest.mark.parametrize(
    "text",
    ["", "req{", "req{pod}", "req{pod=a}", "sum(", "1 +", "req[5m", "req[0s]", "sum(req)[5m]", "req offset", "by (pod)",
     "rate()", "topk(req)", "req[5m] + 1", "1 == 1", "foo(1)", "req or 1", '"text"', "req )", "req $ 1"],
)  # fmt: skip
def test_what_prometheus_refuses_is_refused(store: Store, text: str) -> None:
    with pytest.raises(QueryError):
        instant(store, text, 60)


def test_an_expression_is_parsed_once() -> None:
    assert parse("sum by (pod) (req)") is parse("sum by (pod) (req)")
