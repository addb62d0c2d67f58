"""Reads of pods are judged as they are kept. What follows is what follows from the same figures as plain series."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinn_operator.core.gates.tracks import Track, levels_of_reads, tracks, tracks_of_reads
from pinn_operator.core.gates.windows import windows
from pinn_operator.core.samples import FAMILY_LABEL, PodCounts, Series
from pinn_operator.pods.history import CLOCK_SECONDS, History
from tests.support.tracks import reference_levels, reference_tracks, reference_windows

FAMILIES = ("a_total", "b_bucket")
Line = tuple[str, str]
"""Family and class of a series."""
LINES: Sequence[Line] = (("a_total", "2"), ("a_total", "5"), ("a_total", "probe"), ("b_bucket", "+Inf"))


def classify(labels: Mapping[str, str]) -> str | None:
    return None if labels["code"] == "probe" else labels["code"]


@dataclass
class Remembered:
    """A pod's reads as plain points by label, of the moments that its history has kept."""

    history: History
    reads: list[tuple[float, dict[Line, float]]] = field(default_factory=list)

    def add(self, moment: float, values: Mapping[Line, float]) -> None:
        if self.reads and moment <= self.reads[-1][0]:
            if moment > self.reads[-1][0] - CLOCK_SECONDS:
                return
            self.reads.clear()
        self.reads.append((moment, dict(values)))
        body = "".join(f'{family}{{code="{code}"}} {value!r}\n' for (family, code), value in values.items())
        self.history.add(moment, body.encode(), [it.encode() for it in FAMILIES])

    def series(self, families: Sequence[str], start: float | None) -> tuple[Series, ...]:
        kept = set(self.history.moments)
        reads = [(moment, values) for moment, values in self.reads if moment in kept]
        begin = 0 if start is None else max(0, bisect_right([moment for moment, _ in reads], start) - 1)
        lines = dict.fromkeys(line for _, values in self.reads for line in values if line[0] in families)
        found = []
        for line in lines:
            points = tuple((moment, values[line]) for moment, values in reads[begin:] if line in values)
            if points:
                found.append(Series({FAMILY_LABEL: line[0], "code": line[1], "pod": self.history.pod}, points))
        return tuple(found)


_EVENTS = ["grow"] * 12 + ["restart", "lag", "gone", "all gone", "huge", "born", "fraction"]
_DICE = st.integers(0, 2**32).map(random.Random)
_STEPS = [0.25, 0.5, 1.0, 1.0, 2.0, 2.0, 7.0, 7.0, 40.0]


def life(name: str, dice: random.Random, look: Callable[[History], None] = lambda _history: None) -> Remembered:
    """A pod that counts, restarts, lags behind itself, loses and wins series; now and then its clock is set back. What
    it has shown is looked at in between."""
    pod, moment = Remembered(History(name)), 1000.0 + dice.choice([1, 1, 60]) * dice.random()
    counted = {line: dice.choice([0.0, 5.0, 1000.0]) for line in LINES if dice.random() < 0.7}
    kinds = [_EVENTS, ["grow"], ["grow", "grow", "born"], ["grow", "all gone", "born", "gone"], ["huge", "grow"]]
    events, steps = dice.choice(kinds), dice.sample(_STEPS, 3)
    for _ in range(dice.randint(1, 30)):
        event = dice.choice(events)
        for _ in range(dice.choice([1, 1, 1, 40])):
            counted = {line: value + dice.choice([0, 0, 1, 17]) for line, value in counted.items()}
            shown = dict(counted)
            line = dice.choice(sorted(shown)) if shown else LINES[0]
            if event == "restart":
                counted = shown = dict.fromkeys(counted, 0.0)
            elif event == "lag" and shown:
                shown[line] = max(0.0, shown[line] - dice.choice([1.0, 4.0, 900.0]))
            elif event == "gone":
                shown.pop(line, None)
            elif event == "all gone":
                shown = {}
            elif event == "huge" and shown:
                shown[line] = dice.choice([1e300, -1e300])
            elif event == "born":
                counted = shown = {dice.choice(LINES): 3.0, **counted}
            elif event == "fraction":
                counted = shown = {it: value + 0.125 for it, value in counted.items()}
            moment += dice.choice([-1.0, -30.0]) if dice.random() < 0.005 else dice.choice(steps)
            pod.add(moment, shown)
            if dice.random() < 0.5:
                look(pod.history)
    if dice.random() < 0.3:
        pod.history.coarsen()
    return pod


def alike(one: Track, other: Track) -> None:
    assert list(one.times) == list(other.times)
    assert one.columns.of.keys() == other.columns.of.keys()
    assert one.restarts == other.restarts
    assert one.interval == other.interval
    every = tuple(one.columns.of)
    for index in range(len(one.times)):
        assert one.has_counted(index) == other.has_counted(index)
        for classes in ((name,) for name in every):
            assert one.count(classes, 0, index) == other.count(classes, 0, index)
        assert one.count(every, index, len(one.times) - 1) == other.count(every, index, len(one.times) - 1)
    if len(every) > 1:
        assert one.count((every[0], f"-{every[1]}"), 0, len(one.times) - 1) == other.count(
            (every[0], f"-{every[1]}"), 0, len(one.times) - 1
        )


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(dice=_DICE, families=st.sampled_from([("a_total",), ("b_bucket",), FAMILIES]))
def test_a_track_of_reads_is_the_track_of_the_same_series(dice: random.Random, families: tuple[str, ...]) -> None:
    start = dice.choice([None, dice.uniform(990, 1100), dice.uniform(990, 1600)])

    def look(history: History) -> None:
        seen = history.reads(start)
        assert seen is not None
        tracks_of_reads(PodCounts(families, (seen,)), classify)

    pod = life("eu-1", dice, look)
    moments = [moment for moment, _ in pod.reads]
    start = dice.choice([start, start, moments[-1], dice.choice(moments)])
    reads = pod.history.reads(start)
    assert reads is not None
    found = tracks_of_reads(PodCounts(families, (reads,)), classify)
    expected = reference_tracks(pod.series(families, start), classify)
    assert found.keys() == expected.keys()
    for name, track in found.items():
        alike(track, expected[name])
        alike(tracks(pod.series(families, start), classify)[name], expected[name])


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(dice=_DICE)
def test_windows_over_reads_are_those_over_plain_points(dice: random.Random) -> None:
    chosen = [life(name, dice) for name in ("c-1", "c-2", "s-1", "s-2") if dice.random() < 0.8]
    since = 1000.0 + dice.choice([dice.uniform(-10, 100), dice.uniform(0, 1000)])
    reads = tuple(found for pod in chosen if (found := pod.history.reads(since - 100)) is not None)
    ours = tracks_of_reads(PodCounts(("a_total",), reads), classify)
    plain = [one for pod in chosen for one in pod.series(("a_total",), since - 100)]
    theirs = reference_tracks(plain, classify)
    total, bad = ("2", "5"), ("5",)
    found, expected = (
        [[them[pod] for pod in sorted(them) if pod.startswith(side)] for side in ("c", "s")] for them in (ours, theirs)
    )
    seen = windows(*found, since)
    spans = [*seen.recent, *([seen.whole] if seen.whole else [])]
    reference = reference_windows(*expected, since, total, bad)
    assert [span.seconds for span in spans] == [it.seconds for it in reference]
    for span, it in zip(spans, reference, strict=True):
        canary, stable = span.canary_counts(total, bad), span.stable_counts(total, bad)
        assert (canary.total, canary.bad) == pytest.approx((it.canary.total, it.canary.bad), rel=1e-12)
        assert (stable.total, stable.bad) == pytest.approx((it.stable.total, it.stable.bad), rel=1e-12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dice=_DICE)
def test_a_gauge_of_reads_has_the_samples_of_the_series(dice: random.Random) -> None:
    pod = life("eu-1", dice)
    reads = pod.history.reads()
    assert reads is not None
    found = levels_of_reads(PodCounts(("b_bucket",), (reads,)))
    assert {name: list(points) for name, points in found.items()} == reference_levels(pod.series(("b_bucket",), None))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dice=_DICE)
def test_the_ends_of_reads_are_the_first_and_the_last_point_of_each_series(dice: random.Random) -> None:
    pod = life("eu-1", dice)
    reads = pod.history.reads(dice.choice([None, *(moment for moment, _ in pod.reads)]))
    assert reads is not None
    expected = {one.labels["code"]: (one.points[0], one.points[-1]) for one in reads.series(("a_total",))}
    found = {one.labels["code"]: (one.points[0], one.points[-1]) for one in reads.ends(("a_total",))}
    assert found == expected
    assert all(len(one.points) <= 2 for one in reads.ends(("a_total",)))


def test_what_a_pass_was_given_stays_as_it_was_when_the_pod_is_read_again() -> None:
    pod = Remembered(History("eu-1"))
    for second in range(100):
        pod.add(1000.0 + second, {("a_total", "2"): float(second)})
    reads = pod.history.reads()
    assert reads is not None
    track = tracks_of_reads(PodCounts(("a_total",), (reads,)), classify)["eu-1"]
    before = (list(track.times), [list(row) for row in track.rows], track.grown)
    for second in range(100, 300):
        pod.add(1000.0 + second, {("a_total", "2"): 0.0, ("a_total", "5"): float(second)})
    assert (list(track.times), [list(row) for row in track.rows], track.grown) == before
