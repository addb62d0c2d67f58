"""A page of metrics is read for the asked families alone, whatever else is on it."""

from __future__ import annotations

import time
from bisect import bisect_right
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pinn_operator.core.samples import Series
from pinn_operator.pods.history import SERIES_LIMIT, History, TooManySeries, kept_moments
from pinn_operator.pods.text import lines_of, parse

LABEL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.floats(allow_nan=False, allow_infinity=False, min_value=0)


def read(*pages: bytes, families: tuple[str, ...] = ("a_total",)) -> dict[tuple[tuple[str, str], ...], list[float]]:
    """The values of each series by its own labels, read a second apart."""
    history = History("eu-1")
    for second, page in enumerate(pages):
        history.add(float(second), page, [family.encode() for family in families])
    return {own(series): [value for _, value in series.points] for series in history.series(families)}


def own(series: Series) -> tuple[tuple[str, str], ...]:
    assert series.labels["pod"] == "eu-1"
    return tuple(sorted((key, value) for key, value in series.labels.items() if key not in ("pod", "__name__")))


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("a_total 5", {}, 5),
        ("a_total\t5", {}, 5),
        ("a_total 5 1700000000000", {}, 5),
        ("a_total{} 5", {}, 5),
        ('a_total{x="1"} 5', {"x": "1"}, 5),
        ('a_total {x="1"} 5', {"x": "1"}, 5),
        ('a_total{x="1",} 5', {"x": "1"}, 5),
        ('a_total{ x = "1" , y = "2" } 5.5e3', {"x": "1", "y": "2"}, 5500),
        ('a_total{x="} 7 {"} 5', {"x": "} 7 {"}, 5),
        (r'a_total{x="a\"b\\c\nd"} 5', {"x": 'a"b\\c\nd'}, 5),
        ('a_total{x="1"} 5 # {trace="9"} 7', {"x": "1"}, 5),
        ('a_total{x="1"} 5 1700000000.5 # {trace="9"} 7 1', {"x": "1"}, 5),
        ('a_total{x="1"} 5\r', {"x": "1"}, 5),
        ('a_total{x="ü"} 5', {"x": "ü"}, 5),
    ],
)
def test_every_form_of_a_sample_is_read(line: str, labels: dict[str, str], value: float) -> None:
    page = f"# TYPE a_total counter\n{line}\n".encode()
    assert read(page, page) == {tuple(sorted(labels.items())): [value, value]}


@pytest.mark.parametrize(
    "line",
    [
        "a_total",
        "a_total ",
        "a_total x",
        "a_total{",
        'a_total{x="1} 5',
        'a_total{x="1"',
        "a_total{x=1} 5",
        'a_total{1="1"} 5',
        "a_total NaN",
        "a_total +Inf",
        "a_totals 5",
        "b_total 5",
        "# a_total 5",
        ' a_total{x="1"} 5',
        'a_total{x="' + "1" * 3000 + '"} 5',
        "a_total{" + ",".join(f'x{i}="1"' for i in range(100)) + "} 5",
    ],
)
def test_what_is_no_sample_of_the_family_is_passed_over(line: str) -> None:
    assert read(f'{line}\na_total{{x="2"}} 7\n'.encode()) == {(("x", "2"),): [7]}


def test_a_value_that_looks_like_a_time_is_not_taken_for_it() -> None:
    assert read(b"a_total 5 5\n", b"a_total 5 9\n", b"a_total 6\n") == {(): [5, 5, 6]}


def test_what_a_pod_says_of_itself_does_not_decide_whose_it_is() -> None:
    history = History("eu-1")
    history.add(1.0, b'a_total{pod="eu-2",__name__="b"} 5\n', [b"a_total"])
    assert [dict(series.labels) for series in history.series(["a_total"])] == [{"__name__": "a_total", "pod": "eu-1"}]


@given(st.dictionaries(st.tuples(LABEL, LABEL), VALUE, max_size=8), st.lists(st.floats(0.001, 10), max_size=5))
def test_a_page_of_the_client_library_reads_as_its_own_parser_reads_it(
    counts: dict[tuple[str, str], float], seconds: list[float]
) -> None:
    registry = CollectorRegistry()
    counter = Counter("a", "…", ["x", "y"], registry=registry)
    for labels, value in counts.items():
        counter.labels(*labels).inc(value)
    histogram = Histogram("b", "…", registry=registry)
    for value in seconds:
        histogram.observe(value)
    page = generate_latest(registry)
    wanted = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name in ("a_total", "b_bucket")
    }
    history = History("eu-1")
    history.add(1.0, page, [b"a_total", b"b_bucket"])
    read = {
        (series.labels["__name__"], own(series)): series.points[-1][1]
        for series in history.series(["a_total", "b_bucket"])
    }
    assert read == wanted


@given(st.binary(max_size=400))
def test_no_bytes_break_it(noise: bytes) -> None:
    page = b'a_total{x="1"} 5\n' + noise + b'\na_total{x="2"} 5\n'
    for line in lines_of(page, [b"a_total"]):
        parse(line)
    read(page, noise, page)


def test_a_hostile_page_takes_no_longer_than_its_bytes() -> None:
    pages = [
        b"\n" * 262_144,
        b"a_total" * 37_449,
        b"a_total\n" * 32_768,
        b'a_total{x="' + b"\\" * 262_000,
        b'a_total{x="1",' * 18_000,
        b"a_total" + b" " * 262_000,
    ]
    for page in pages:
        began = time.process_time()
        read(page)
        assert time.process_time() - began < 0.5


# --- history --------------------------------------------------------------------------------------------------------


def test_a_series_that_comes_later_and_one_that_goes_keep_their_moments() -> None:
    history = History("eu-1")
    pages = [b"a_total 1\n", b'a_total 2\na_total{x="1"} 1\n', b'a_total{x="1"} 3\n', b'a_total 4\na_total{x="1"} 3\n']
    for second, page in enumerate(pages):
        history.add(float(second), page, [b"a_total"])
    points = {own(series): series.points for series in history.series(["a_total"])}
    assert points == {
        (): ((0.0, 1.0), (1.0, 2.0), (3.0, 4.0)),
        (("x", "1"),): ((1.0, 1.0), (2.0, 3.0), (3.0, 3.0)),
    }


def test_labels_in_another_order_are_the_same_series() -> None:
    assert read(b'a_total{x="1",y="2"} 1\n', b'a_total{y="2",x="1"} 2\n') == {(("x", "1"), ("y", "2")): [1, 2]}


def test_a_series_that_is_there_twice_counts_once() -> None:
    assert read(b'a_total 1\na_total{x="1"} 9\n', b"a_total 2\na_total 3\n") == {(): [1, 3], (("x", "1"),): [9]}


def test_from_a_start_on_the_last_read_before_it_is_the_first() -> None:
    history = History("eu-1")
    for second in range(10):
        history.add(float(second), f"a_total {second}\n".encode(), [b"a_total"])
    (series,) = history.series(["a_total"], 6.5)
    assert [moment for moment, _ in series.points] == [6, 7, 8, 9]
    (series,) = history.series(["a_total"], -5)
    assert len(series.points) == 10


def test_more_series_than_are_kept_are_refused() -> None:
    page = "".join(f'a_total{{x="{i}"}} 1\n' for i in range(SERIES_LIMIT + 1)).encode()
    with pytest.raises(TooManySeries):
        read(page)


def test_a_clock_that_is_set_back_begins_anew() -> None:
    history = History("eu-1")
    for moment, value in ((100.0, 1), (99.9, 2), (101.0, 3), (50.0, 4), (51.0, 5)):
        history.add(moment, f"a_total {value}\n".encode(), [b"a_total"])
    (series,) = history.series(["a_total"])
    assert series.points == ((50.0, 4.0), (51.0, 5.0))


def test_a_day_of_reads_leaves_every_recent_one_and_few_old_ones() -> None:
    history = History("eu-1")
    for number in range(4 * 3600 * 4):
        history.add(number / 4, b"a_total %d\n" % number, [b"a_total"])
    (series,) = history.series(["a_total"])
    moments = [moment for moment, _ in series.points]
    now = moments[-1]
    assert [moment for moment in moments if moment >= now - 16] == [now - 16 + step / 4 for step in range(65)]
    assert all(moment in moments for moment in range(int(now) - 170, int(now) - 20))
    gaps = [(now - before, after - before) for before, after in pairwise(moments)]
    # Between two thinnings the old cells are finer, never wider.
    assert all(gap <= max(1.0, age / 32) for age, gap in gaps)
    assert len(moments) < 700
    assert all(value == moment * 4 for moment, value in series.points)


@given(st.lists(st.floats(0.2, 30), min_size=1, max_size=200), st.integers(1, 5))
def test_however_often_it_is_thinned_a_read_is_kept_shortly_before_each(steps: list[float], often: int) -> None:
    moments, kept = list(accumulate(steps)), []
    for number, now in enumerate(moments):
        kept.append(now)
        if number % often == 0:
            kept = [kept[place] for place in kept_moments(kept, now)]
    for moment in moments:
        age = moments[-1] - moment
        before = kept[bisect_right(kept, moment) - 1]
        assert before <= moment
        assert moment - before <= (0 if age <= 16 else max(1.0, age / 32))


def test_growing_bad_answers_are_noticed() -> None:
    history = History("eu-1", is_bad=lambda labels: labels.get("status") == "500")
    seen = []
    for second, count in enumerate((3, 3, 4, 4, 0, 1)):
        page = f'a_total{{status="500"}} {count}\na_total{{status="200"}} {second}\n'
        history.add(float(second), page.encode(), [b"a_total"])
        seen.append(history.bad_grew)
    assert seen == [False, False, True, False, False, True]


PAGES = st.lists(
    st.sampled_from(
        [
            "# HELP a_total text", "a_total 1", "a_total 2", 'a_total{x="1"} 3', 'a_total{x="1"} 4', "a 5", "b_total 6",
            'a_total{x="2"} 7 1700000000000', "a_total NaN", "", "a_total{", 'b_total{x="1"} 8', "a_total_more 9",
            'a_total{x="1"} 3\r', "a_total", "#",
        ]
    ),
    max_size=6,
).flatmap(lambda lines: st.sampled_from(["\n".join(lines), "\n".join(lines) + "\n"]))  # fmt: skip


@given(st.lists(PAGES.map(str.encode), min_size=1, max_size=8), st.lists(st.integers(0, 7), max_size=12))
def test_a_page_that_looks_like_the_last_one_is_read_as_one_that_is_seen_for_the_first_time(
    pages: list[bytes], order: list[int]
) -> None:
    """What is remembered of the last page's looks makes reading quick, and never other."""
    history = History("eu-1")
    families = [b"a_total", b"b_total"]
    for second, number in enumerate([*range(len(pages)), *order]):
        page = pages[number % len(pages)]
        history.add(float(second), page, families)
        fresh = History("eu-1")
        fresh.add(float(second), page, families)
        newest = {
            own_and_name(it): it.points[-1][1]
            for it in history.series(["a_total", "b_total"])
            if it.points[-1][0] == second
        }
        assert newest == {own_and_name(it): it.points[-1][1] for it in fresh.series(["a_total", "b_total"])}


def own_and_name(series: Series) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(series.labels.items()))


def test_an_answer_is_made_once_between_two_reads() -> None:
    history = History("eu-1")
    history.add(1.0, b"a_total 1\n", [b"a_total"])
    before = history.reads()
    assert history.reads() is before
    history.add(2.0, b"a_total 2\n", [b"a_total"])
    assert history.reads() is not before


def test_a_pod_that_makes_up_series_is_read_again_once_it_stops() -> None:
    history = History("eu-1")
    for second in range(SERIES_LIMIT):
        history.add(float(second), b'a_total{x="%d"} 1\n' % second, [b"a_total"])
    with pytest.raises(TooManySeries):
        history.add(2000.0, b'a_total{x="one more"} 1\n', [b"a_total"])
    history.add(3000.0, b"a_total 1\n", [b"a_total"])
    assert [series.points for series in history.series(["a_total"])] == [((3000.0, 1.0),)]
