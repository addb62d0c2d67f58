"""Windows that are fair to both revisions, whatever moments their pods were read at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.gates.evidence import Budget, Window, compare
from pinn_operator.core.gates.sequential import log_evidence_above_stable
from pinn_operator.core.gates.tracks import Track, tracks
from pinn_operator.core.gates.windows import Span, alone, lengths, windows
from pinn_operator.core.samples import Series
from pinn_operator.core.wanted.spec import Relative

TOTAL, BAD = ("2", "5"), ("5",)
Rate = Callable[[float], float]
"""Requests until a moment, of which that moment is the end."""


def read(pod: str, times: Sequence[float], *, rate: float, bad: Rate) -> Track:
    """A pod that answers `rate` requests a second, of which `bad(t)` had failed by t, read at these moments."""
    failed = tuple((at, rate * bad(at)) for at in times)
    good = tuple((at, rate * (at - bad(at))) for at in times)
    found = tracks(
        (Series({"pod": pod, "status": "2"}, good), Series({"pod": pod, "status": "5"}, failed)),
        lambda labels: labels["status"],
    )
    return found[pod]


def burst(start: float, seconds: float) -> Rate:
    """Everything fails from `start` on for some seconds."""
    return lambda at: max(0.0, min(at, start + seconds) - start)


def steady(share: float) -> Rate:
    return lambda at: share * at


def every(interval: float, *, offset: float = 0.0, until: float, begin: float = 0.0) -> list[float]:
    times, at = [], begin + offset
    while at <= until:
        times.append(at)
        at += interval
    return times


def counted(span: Span) -> Window:
    return Window(span.seconds, span.canary_counts(TOTAL, BAD), span.stable_counts(TOTAL, BAD))


def all_of(canary: Sequence[Track], stable: Sequence[Track], start: float = 0.0) -> list[Window]:
    found = windows(canary, stable, start)
    return [counted(span) for span in (*found.recent, *([found.whole] if found.whole else []))]


pods = st.lists(
    st.tuples(st.sampled_from([0.25, 1.0, 7.0, 15.0, 30.0, 60.0]), st.floats(0, 1), st.floats(0.2, 30)),
    min_size=1, max_size=4,
)  # fmt: skip


@given(
    canaries=pods, stables=pods, until=st.floats(120, 900), start=st.floats(0, 60), at=st.floats(0, 1),
    seconds=st.floats(0.1, 120),
)  # fmt: skip
def test_a_burst_that_hits_all_pods_alike_never_makes_the_canary_look_worse(
    canaries: list[tuple[float, float, float]], stables: list[tuple[float, float, float]], until: float, start: float,
    at: float, seconds: float,
) -> None:  # fmt: skip
    fault = burst(at * until, seconds)
    canary, stable = (
        [
            read(f"{name}{index}", times, rate=rate, bad=fault)
            for index, (interval, offset, rate) in enumerate(found)
            if (times := every(interval, offset=offset * interval, until=until))
        ]
        for name, found in (("c", canaries), ("s", stables))
    )
    for window in all_of(canary, stable, start):
        if window.stable.total <= 0:
            continue
        assert (window.canary.share or 0.0) <= (window.stable.share or 0.0) + 1e-6, window
        # The maximum of the likelihood lies inside the null: no evidence at all.
        assert log_evidence_above_stable(window.canary, window.stable, margin=0.0) <= 1e-6


@given(interval=st.sampled_from([1.0, 15.0, 30.0, 60.0]), offset=st.floats(0, 1), seconds=st.floats(1, 60))
def test_an_upstream_fault_condemns_nobody_at_any_scrape_interval(
    interval: float, offset: float, seconds: float
) -> None:  # fmt: skip
    fault = burst(300.0, seconds)
    for looked in (310.0, 330.0, 360.0, 420.0):
        canary = [read("c", every(interval, offset=offset * interval, until=looked), rate=3, bad=fault)]
        stable = [
            read(f"s{index}", every(interval, offset=(index / 3) * interval, until=looked), rate=9, bad=fault)
            for index in range(3)
        ]
        found = all_of(canary, stable)
        if not found:
            continue
        verdict = compare(
            found[:-1], found[-1], relative=Relative(margin=0.0), budget=Budget(0.001, hold_seconds=1800.0)
        )
        assert not verdict.worse


def test_a_canary_is_judged_only_up_to_where_every_stable_pod_was_scraped() -> None:
    fault = burst(100.0, 10.0)
    canary = [read("c", [*range(111)], rate=10, bad=fault)]
    stable = [read("s", [*range(0, 106, 15)], rate=90, bad=fault)]
    found = windows(canary, stable, 0.0)
    assert found.end == 105
    assert found.whole is not None
    assert found.whole.canary_counts(TOTAL, BAD).bad == pytest.approx(50), "what came after the last look at stable"
    assert found.whole.stable_counts(TOTAL, BAD).bad == pytest.approx(450)


def test_a_canary_that_fails_alone_is_seen_whatever_the_offsets() -> None:
    for interval in (1.0, 15.0, 60.0):
        canary = [read("c", every(interval, offset=0.3 * interval, until=600), rate=3, bad=burst(300, 300))]
        stable = [read("s", every(interval, offset=0.8 * interval, until=600), rate=27, bad=steady(0.0))]
        found = all_of(canary, stable)
        assert max(window.canary.share or 0.0 for window in found) > 0.7, interval
        assert all(window.stable.bad == 0 for window in found)


def test_a_stable_pod_that_is_not_read_any_more_does_not_hold_back_judgement() -> None:
    canary = [read("c", [*range(101)], rate=3, bad=burst(50, 50))]
    stable = [
        read("s1", [*range(101)], rate=10, bad=steady(0.0)), read("s2", [*range(41)], rate=10, bad=steady(0.0)),
    ]  # fmt: skip
    found = windows(canary, stable, 0.0)
    assert found.end == 100
    assert {part.track.pod for part in found.recent[0].stable} == {"s1"}


def test_a_stable_pod_that_came_later_says_nothing_of_the_time_before() -> None:
    canary = [read("c", [*range(101)], rate=3, bad=steady(0.0))]
    stable = [
        read("s1", [*range(101)], rate=10, bad=steady(0.0)), read("s2", [*range(101)], rate=10, bad=steady(0.0)),
        read("s3", [*range(90, 101)], rate=10, bad=steady(0.0)),
    ]  # fmt: skip
    found = windows(canary, stable, 0.0)
    assert found.whole is not None
    assert {part.track.pod for part in found.whole.stable} == {"s1", "s2"}
    assert {part.track.pod for part in found.recent[0].stable} == {"s1", "s2", "s3"}


def test_windows_double_and_have_at_least_four_sample_intervals() -> None:
    assert lengths(100.0, 0.25) == [1.5, 3.0, 6.0, 12.0, 24.0, 48.0, 96.0]
    assert lengths(100.0, 1.0) == [6.0, 12.0, 24.0, 48.0, 96.0]
    assert lengths(3600.0, 60.0) == [384.0, 768.0, 1536.0, 3072.0]
    assert lengths(100.0, 60.0) == []
    assert lengths(100.0, None) == []


def test_what_a_canary_answered_before_its_weight_is_no_part_of_it() -> None:
    canary = [read("c", every(15.0, offset=7.0, until=600.0), rate=3, bad=burst(0.0, 290.0))]
    stable = [read("s", every(15.0, until=600.0), rate=27, bad=steady(0.0))]
    found = windows(canary, stable, 300.0)
    assert found.whole is not None
    assert found.whole.canary_counts(TOTAL, BAD).bad == 0
    assert all(part.track.times[part.begin] >= 300.0 for part in found.whole.canary)


def test_a_canary_without_requests_before_its_weight_is_counted_from_its_last_sample_before_it() -> None:
    answered = tracks(
        (Series({"pod": "c", "status": "5"}, ((0.0, 0.0), (290.0, 0.0), (350.0, 40.0))),),
        lambda labels: labels["status"],
    )
    stable = [read("s", every(15.0, until=600.0), rate=27, bad=steady(0.0))]
    found = windows([answered["c"]], stable, 300.0)
    assert found.whole is not None
    assert found.whole.canary_counts(("5",), ("5",)).bad == 40


def test_requests_of_the_operators_own_before_a_weight_are_nobodys_of_that_weight() -> None:
    """All options were asked between two samples: of the canary, which had answered nobody, and of stable."""
    found_tracks = tracks(
        (
            Series({"pod": "c", "status": "2"}, ((280.0, 0.0), (310.0, 484.0), (340.0, 490.0), (370.0, 496.0))),
            Series({"pod": "s", "status": "2"}, ((275.0, 90.0), (305.0, 604.0), (335.0, 634.0), (365.0, 664.0))),
        ),
        lambda labels: labels["status"],
    )
    canary, stable = [found_tracks["c"]], [found_tracks["s"]]
    found = windows(canary, stable, 300.0, asked=True)
    assert found.whole is not None
    assert found.whole.canary_counts(("2",), ()).total == 6
    assert found.whole.stable_counts(("2",), ()).total == pytest.approx(30)


def test_until_both_were_read_twice_at_a_weight_what_they_counted_before_tells_of_a_bad_canary() -> None:
    found_tracks = tracks(
        (
            Series({"pod": "c", "status": "5"}, ((250.0, 0.0), (310.0, 30.0))),
            Series({"pod": "s", "status": "2"}, ((245.0, 90.0), (315.0, 1900.0))),
        ),
        lambda labels: labels["status"],
    )
    found = windows([found_tracks["c"]], [found_tracks["s"]], 300.0, asked=True)
    assert found.whole is not None
    assert found.whole.canary_counts(("5",), ("5",)).bad == 30


def test_the_operators_own_requests_are_not_of_a_weight_without_stable_either() -> None:
    answered = tracks(
        (Series({"pod": "c", "status": "2"}, ((280.0, 0.0), (310.0, 484.0), (340.0, 490.0))),),
        lambda labels: labels["status"],
    )
    found = alone([answered["c"]], 300.0, asked=True)
    assert found.whole is not None
    assert found.whole.canary_counts(("2",), ()).total == 6


def test_a_stable_pod_that_came_after_the_weight_moves_no_beginning() -> None:
    canary = [read("c", [*range(101)], rate=3, bad=steady(0.0))]
    stable = [read("s1", [*range(101)], rate=10, bad=steady(0.0)), read("s2", [*range(101)], rate=10, bad=steady(0.0))]
    late = read("s3", [*range(60, 101)], rate=10, bad=steady(0.0))
    found, without = windows(canary, [*stable, late], 10.0, asked=True), windows(canary, stable, 10.0)
    assert found.whole is not None
    assert without.whole is not None
    assert found.whole.canary_counts(TOTAL, BAD) == without.whole.canary_counts(TOTAL, BAD)


def test_alone_a_canary_is_judged_up_to_its_own_newest_sample() -> None:
    found = alone([read("c", [*range(101)], rate=3, bad=burst(98, 2))], 10.0)
    assert found.end == 100
    assert found.whole is not None
    assert found.whole.canary_counts(TOTAL, BAD).bad == pytest.approx(6)
    assert found.recent[0].canary_counts(TOTAL, BAD).total == pytest.approx(18)


def test_nobody_is_judged_without_two_samples_or_without_stable() -> None:
    one = [read("c", [5.0], rate=3, bad=steady(0.0))]
    stable = [read("s", [*range(101)], rate=27, bad=steady(0.0))]
    assert windows(one, stable, 0.0).whole is None
    assert windows([], stable, 0.0).whole is None
    assert windows(stable, [], 0.0).whole is None
    assert alone([], 0.0).whole is None
