"""Judging gates: what each verdict means, how long a bound must be exceeded, and what is compared with what."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.gates.judgement import Judgement, begun_anew, judge
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.gates.wording import camel, describe, describe_limit, usual_limit
from pinn_operator.core.samples import Answer, Series, SourceError
from pinn_operator.core.status.values import GateStatus, Verdict
from pinn_operator.core.wanted.spec import Analysis, Bound, Gate, Profile, Prometheus, Relative

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DOWN = SourceError("connection refused")
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, float("inf"))
REQUESTS, LATENCIES = "pods/http_requests_total", "pods/pinn_inference_latency_seconds_bucket"

ERRORS = Gate(
    "error-rate", "error-rate", advance=Bound(below=0.01), abort=Bound(above=0.05, for_seconds=60),
    relative=Relative(margin=0.01),
)  # fmt: skip
LATENCY = Gate(
    "latency-p95", "latency-p95", advance=Bound(below=0.5), abort=Bound(above=2.0, for_seconds=60),
    relative=Relative(margin=0.1),
)  # fmt: skip
DRIFT = Gate("drift", query="drift", advance=Bound(below=0.5), abort=Bound(above=0.8, consecutive=3))


def requests(*, canary: tuple[float, float] = (0, 0), stable: tuple[float, float] = (0, 0), seconds: float = 60,
             points: int = 61) -> tuple[Series, ...]:  # fmt: skip
    """Counters of (all, failed) requests that grew evenly to these within the window."""
    series = []
    for revision, (total, failed) in (("bbbb", canary), ("aaaa", stable)):
        for status, end in (("200", total - failed), ("500", failed)):
            grid = tuple((seconds * i / (points - 1), end * i / (points - 1)) for i in range(points))
            series.append(Series({"pod": f"eu-{revision}-x-1", "status": status}, grid))
    return tuple(series)


def latencies(
    *, canary: dict[float, float] | None = None, stable: dict[float, float] | None = None, points: int = 61
) -> Answer:
    """Histograms that grew evenly within a minute: answers by the seconds that each took. Their pods are warm."""
    series = []
    for revision, answers in (("bbbb", canary), ("aaaa", stable)):
        for bound in BOUNDS if answers else ():
            count = sum(number for seconds, number in (answers or {}).items() if seconds <= bound)
            labels = {"pod": f"eu-{revision}-x-1", "le": "+Inf" if bound == float("inf") else str(bound)}
            grid = tuple((60.0 * i / (points - 1), 1000.0 + count * i / (points - 1)) for i in range(points))
            series.append(Series(labels, grid))
    return tuple(series)


def own(value: float | None) -> Answer:
    return () if value is None else (Series({}, ((0.0, value),)),)


def ending(answer: Answer, now: datetime) -> Answer:
    """The same answer with its newest sample at this moment."""
    if isinstance(answer, SourceError) or not answer:
        return answer
    shift = now.timestamp() - max(point[0] for series in answer for point in series.points)
    return tuple(Series(it.labels, tuple((at + shift, value) for at, value in it.points)) for it in answer)


def judged(
    gate: Gate, samples: dict[str, Answer], *, now: datetime = NOW, previous: tuple[GateStatus, ...] = (),
    concurrent: bool = True, hold: float = 60, seconds: float = 60, due: bool = True,
) -> Judgement:  # fmt: skip
    analysis = Analysis(Prometheus(), Profile.STANDARD, (gate,), interval_seconds=30, abort_interval_seconds=2)
    scope = Scope(
        name="eu", namespace="pricing", analysis=analysis, canary=Side("bbbb"), stable=Side("aaaa"),
        weight=50 if concurrent else 100, start=now - timedelta(seconds=seconds), now=now,
        in_force=now - timedelta(seconds=seconds), hold_seconds=hold, advance_due=due,
        earlier={it.name: it for it in previous},
    )  # fmt: skip
    return judge(scope, {key: ending(answer, now) for key, answer in samples.items()})


class Measurements:
    """One gate, judged again and again; every judgement is remembered as the status would."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.now = gate, NOW
        self.last: Judgement = Judgement(gates=())

    def __call__(self, after: float, answer: Answer | float | None) -> Judgement:
        self.now += timedelta(seconds=after)
        key = "gate/drift" if self.gate.query else REQUESTS
        found = own(answer) if answer is None or isinstance(answer, float) else answer
        self.last = judged(self.gate, {key: found}, now=self.now, previous=self.last.gates)
        return self.last

    @property
    def status(self) -> GateStatus:
        return self.last.gates[0]


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gate", "samples", "verdict", "message"),
    [
        ("good", ERRORS, {REQUESTS: requests(canary=(200, 1), stable=(900, 2))}, Verdict.PASS, "0.5%"),
        ("too few", ERRORS, {REQUESTS: requests(canary=(99, 0), stable=(900, 0))}, Verdict.COLLECTING,
         "99/100 requests"),
        ("not good enough", ERRORS, {REQUESTS: requests(canary=(1000, 20), stable=(900, 16))}, Verdict.FAIL,
         "2%, needs < 1%"),
        ("no traffic", ERRORS, {REQUESTS: requests(stable=(900, 2))}, Verdict.NO_DATA, "no requests yet"),
        ("no series", ERRORS, {REQUESTS: ()}, Verdict.NOT_APPLICABLE, "neither revision has http_requests_total"),
        ("no series of what is required", replace(ERRORS, required=True), {REQUESTS: ()}, Verdict.NO_DATA,
         "required, but neither revision has http_requests_total"),
        ("no metric source", ERRORS, {REQUESTS: DOWN}, Verdict.ERROR, "connection refused"),
        ("fast", LATENCY, {LATENCIES: latencies(canary={0.04: 200}, stable={0.04: 900})}, Verdict.PASS, "47.5ms"),
        ("slow-ish", LATENCY, {LATENCIES: latencies(canary={0.6: 200}, stable={0.6: 900})}, Verdict.FAIL,
         "975ms, needs < 500ms"),
        ("few latencies", LATENCY, {LATENCIES: latencies(canary={0.04: 7}, stable={0.04: 900})},
         Verdict.COLLECTING, "7/100 requests"),
        ("no latencies", LATENCY, {LATENCIES: latencies(stable={0.04: 900})}, Verdict.NO_DATA, "no requests yet"),
        ("latencies unanswered", LATENCY, {LATENCIES: DOWN}, Verdict.ERROR, "connection refused"),
        ("own query good", DRIFT, {"gate/drift": own(0.2)}, Verdict.PASS, "0.2"),
        ("own query between", DRIFT, {"gate/drift": own(0.6)}, Verdict.FAIL, "0.6, needs < 0.5"),
        ("own query empty", DRIFT, {"gate/drift": own(None)}, Verdict.NO_DATA, "the query returned no series: drift"),
        ("own query NaN", DRIFT, {"gate/drift": own(float("nan"))}, Verdict.NO_DATA,
         "the query returned no number: drift"),
        ("own query down", DRIFT, {"gate/drift": DOWN}, Verdict.ERROR, "connection refused"),
        ("own query of two series", DRIFT, {"gate/drift": (*own(1.0), *own(2.0))}, Verdict.ERROR,
         "the query returned 2 series, it must return one: wrap it in sum() or max()"),
    ],
)  # fmt: skip
def test_each_verdict(name: str, gate: Gate, samples: dict[str, Answer], verdict: Verdict, message: str) -> None:
    judgement = judged(gate, samples)
    [status] = judgement.gates
    assert (status.verdict, status.message) == (verdict, message), name
    assert judgement.condemnation is None
    assert judgement.all_pass is (verdict is Verdict.PASS)
    assert (judgement.source_error is not None) is (verdict is Verdict.ERROR)


def test_a_gate_whose_pods_were_not_read_at_this_weight_yet_does_not_claim_that_nobody_asked_them() -> None:
    both = requests(canary=(200, 0), stable=(900, 0))
    assert isinstance(both, tuple)
    stable = tuple(it for it in both if "aaaa" in it.labels["pod"])
    older = tuple(replace(it, points=it.points[:-2]) for it in both if it not in stable)
    assert judged(ERRORS, {REQUESTS: (*older, *stable)}, seconds=1).gates[0].message == "not read yet"
    assert judged(ERRORS, {REQUESTS: stable}, seconds=1).gates[0].message == "not read yet"
    read = requests(canary=(0, 0), stable=(900, 2))
    assert judged(ERRORS, {REQUESTS: read}, seconds=30).gates[0].message == "no requests yet"
    assert judged(ERRORS, {REQUESTS: stable}).gates[0].message == "no requests yet", "a minute later"


def test_nothing_asked_leaves_the_gates_as_they_were_and_passes_nothing() -> None:
    before = (GateStatus("error-rate", Verdict.PASS),)
    judgement = judged(ERRORS, {}, previous=before)
    assert judgement.gates == before
    assert not judgement.asked
    assert not judgement.all_pass, "a Pass of an earlier pass was taken for one of this pass"


def test_an_analysis_without_gates_passes_nothing() -> None:
    assert not Judgement(gates=(), asked=True).all_pass


def test_one_gate_that_is_not_sure_is_enough_to_hold() -> None:
    passed, unsure = GateStatus("a", Verdict.PASS), GateStatus("b", Verdict.COLLECTING)
    assert not Judgement(gates=(passed, unsure), asked=True).all_pass


def test_the_share_of_requests_is_measured() -> None:
    judgement = judged(ERRORS, {REQUESTS: requests(canary=(50, 0), stable=(150, 0))})
    assert judgement.observed_share == pytest.approx(25)
    assert judged(ERRORS, {REQUESTS: requests()}).observed_share is None


# --- against stable ---------------------------------------------------------------------------------------------------


def test_a_canary_that_is_worse_than_stable_is_condemned_at_once_with_both_figures() -> None:
    judgement = judged(ERRORS, {REQUESTS: requests(canary=(60, 15), stable=(540, 1))})
    found = judgement.condemnation
    assert found is not None
    assert (found.reason, found.gate, found.value) == ("ErrorRateAboveStable", "error-rate", "25%")
    assert found.limit == "stable 0.185%"
    assert "of 60 requests" in found.message
    assert judgement.gates[0].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("name", "canary", "stable"),
    [
        ("both are bad", (200, 40), (900, 180)),
        ("by chance", (10, 1), (90, 0)),
        ("within the margin", (1000, 9), (9000, 9)),
        ("nothing to compare with", (200, 100), (0, 0)),
    ],
)
def test_who_is_not_worse_than_stable(name: str, canary: tuple[float, float], stable: tuple[float, float]) -> None:
    assert judged(ERRORS, {REQUESTS: requests(canary=canary, stable=stable)}).condemnation is None, name


def test_a_sudden_fault_after_a_long_good_time_is_seen_in_the_recent_requests() -> None:
    sudden = []
    for series in requests(canary=(20000, 0), stable=(180000, 20), seconds=86400, points=481):
        at, value = series.points[-1]
        rate = {"bbbb-500": 2.0, "aaaa-200": 20.0}.get(f"{series.labels['pod'][3:7]}-{series.labels['status']}", 0.0)
        more = tuple((at + i, value + rate * i) for i in range(1, 31))
        sudden.append(Series(series.labels, series.points + more))
    judgement = judged(ERRORS, {REQUESTS: tuple(sudden)}, hold=86400, seconds=86430)
    assert judgement.condemnation is not None


def test_a_slower_canary_is_condemned_by_its_slow_requests() -> None:
    answer = latencies(canary={0.04: 20, 0.9: 60}, stable={0.04: 700})
    found = judged(LATENCY, {LATENCIES: answer}).condemnation
    assert found is not None
    assert found.reason == "LatencyP95AboveStable"
    assert (found.value, found.limit) == ("75.0% longer than 0.1 s", "stable 0.0%")


def test_a_canary_whose_requests_are_slow_while_those_of_stable_are_too_is_not_condemned() -> None:
    answer = latencies(canary={0.9: 100}, stable={0.9: 900})
    assert judged(LATENCY, {LATENCIES: answer}).condemnation is None


def test_below_the_floor_a_ratio_condemns_nobody() -> None:
    answer = latencies(canary={0.09: 500}, stable={0.01: 4500})
    assert judged(LATENCY, {LATENCIES: answer}).condemnation is None


def test_a_comparison_that_is_switched_off_condemns_nobody() -> None:
    gate = replace(ERRORS, relative=Relative(enabled=False))
    assert judged(gate, {REQUESTS: requests(canary=(60, 30), stable=(540, 0))}).condemnation is None


def test_in_the_bake_errors_are_compared_with_what_stable_showed_before() -> None:
    first = judged(ERRORS, {REQUESTS: requests(canary=(500, 1), stable=(500, 1))})
    [anew] = (begun_anew(gate) for gate in first.gates)
    assert (anew.reference_total, anew.reference_bad) == (500, pytest.approx(1))
    bake = {REQUESTS: requests(canary=(100, 20), stable=(3, 3))}
    found = judged(ERRORS, bake, previous=(anew,), concurrent=False)
    assert found.condemnation is not None, "the stragglers that still reach stable were taken for its error rate"
    assert found.gates[0].reference_total == 500
    good = {REQUESTS: requests(canary=(500, 1))}
    assert judged(ERRORS, good, previous=(anew,), concurrent=False).all_pass


def test_in_the_bake_a_little_more_than_before_is_left_to_the_bounds_and_their_patience() -> None:
    first = judged(ERRORS, {REQUESTS: requests(canary=(200, 0), stable=(2000, 2))})
    before = tuple(begun_anew(gate) for gate in first.gates)
    drifted = {REQUESTS: requests(canary=(20000, 500), seconds=600, points=301)}
    found = judged(ERRORS, drifted, previous=before, concurrent=False, seconds=600)
    assert found.condemnation is None, "everybody has 2.5 % now, and nobody else is there to show it"
    assert not found.all_pass


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_bound_in_three_measurements_condemns_at_the_third_in_a_row() -> None:
    measure = Measurements(DRIFT)
    assert measure(0, 0.9).condemnation is None
    assert measure(2, 0.9).condemnation is None
    found = measure(2, 0.9).condemnation
    assert found is not None
    assert (found.reason, found.value, found.limit) == ("DriftOutOfBounds", "0.9", "> 0.8 in 3 measurements")


def test_a_good_measurement_in_between_begins_the_row_anew() -> None:
    measure = Measurements(DRIFT)
    for value in (0.9, 0.9, 0.1, 0.9, 0.9, 0.6, 0.9, 0.9):
        assert measure(2, value).condemnation is None, "failures were summed up over the rollout"
    assert measure.status.consecutive == 2


@pytest.mark.parametrize("nothing", [None, DOWN], ids=["NoData", "Error"])
def test_a_measurement_without_an_answer_neither_counts_nor_forgives(nothing: Answer | None) -> None:
    measure = Measurements(DRIFT)
    measure(2, 0.9), measure(2, 0.9)
    for _ in range(20):
        assert measure(2, nothing).condemnation is None
        assert measure.status.consecutive == 2
    assert measure(2, 0.9).condemnation is not None


def test_a_pass_that_a_watch_event_woke_is_not_a_new_measurement() -> None:
    measure = Measurements(DRIFT)
    for _ in range(7):
        assert measure(0.25, 0.9).condemnation is None
        assert measure.status.consecutive == 1
    measure(2, 0.9)
    assert measure.status.consecutive == 2


def bad(share: float) -> Answer:
    return requests(canary=(400, 400 * share), stable=(400, 0))


BOUNDED = replace(ERRORS, relative=None)
"""Nothing but its bounds."""


def test_a_bound_that_stable_exceeds_at_the_same_moment_condemns_nobody() -> None:
    measure = Measurements(BOUNDED)
    for _ in range(60):
        found = measure(2, requests(canary=(400, 80), stable=(400, 70)))
        assert found.condemnation is None
        assert not found.all_pass


def test_a_bound_with_a_duration_condemns_when_it_was_exceeded_all_that_time() -> None:
    measure = Measurements(BOUNDED)
    for _ in range(30):
        assert measure(2, bad(0.2)).condemnation is None, measure.status
    found = measure(2, bad(0.2)).condemnation
    assert found is not None
    assert (found.reason, found.limit) == ("ErrorRateOutOfBounds", "> 5% for 60 s")


def test_one_good_measurement_ends_the_duration() -> None:
    measure = Measurements(BOUNDED)
    for round_ in range(5):
        for _ in range(25):
            assert measure(2, bad(0.2)).condemnation is None, f"round {round_}: durations were summed up"
        measure(2, bad(0.0))
        assert measure.status.failing_since is None


@pytest.mark.parametrize("nothing", [(), DOWN], ids=["NoData", "Error"])
def test_time_without_an_answer_does_not_count_towards_a_duration(nothing: Answer) -> None:
    measure = Measurements(BOUNDED)
    for _ in range(11):
        measure(2, bad(0.2))
    for _ in range(60):
        assert measure(2, nothing).condemnation is None
    for _ in range(20):
        assert measure(2, bad(0.2)).condemnation is None, "an outage of the metric source was held against the canary"
    assert measure(2, bad(0.2)).condemnation is not None


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_jump_of_the_clock_is_no_duration_and_no_pardon(jump: float) -> None:
    gate = replace(BOUNDED, abort=Bound(above=0.05, for_seconds=300))
    measure = Measurements(gate)
    for _ in range(11):
        measure(2, bad(0.2))
    assert measure(jump, bad(0.2)).condemnation is None, "two hours that nobody measured were held against the canary"
    assert measure.status.failing_since is not None
    assert 20 <= (measure.now - measure.status.failing_since).total_seconds() <= 80
    for _ in range(150):
        measure(2, bad(0.2))
    assert measure.last.condemnation is not None


def test_a_bound_needs_both_its_duration_and_its_measurements() -> None:
    gate = replace(DRIFT, abort=Bound(above=0.8, for_seconds=30, consecutive=3))
    measure = Measurements(gate)
    for seconds in (0, 2, 2, 2):
        assert measure(seconds, 0.9).condemnation is None
    for _ in range(11):
        assert measure(2, 0.9).condemnation is None
    assert measure(2, 0.9).condemnation is not None


def test_a_few_errors_are_no_error_rate() -> None:
    gate = replace(ERRORS, relative=None, abort=Bound(above=0.05))
    assert judged(gate, {REQUESTS: requests(canary=(3, 1))}).condemnation is None
    assert judged(gate, {REQUESTS: requests(canary=(300, 60))}).condemnation is not None


def test_a_latency_bound_goes_by_how_many_requests_took_longer() -> None:
    gate = replace(LATENCY, relative=None, abort=Bound(above=1.0))
    few = {LATENCIES: latencies(canary={0.04: 19, 2.0: 1})}
    many = {LATENCIES: latencies(canary={0.04: 150, 2.0: 50})}
    assert judged(gate, few).condemnation is None
    found = judged(gate, many).condemnation
    assert found is not None
    assert found.reason == "LatencyP95OutOfBounds"


def test_an_own_gate_may_have_its_bad_side_below() -> None:
    gate = replace(DRIFT, advance=Bound(above=0.8), abort=Bound(below=0.5))
    assert judged(gate, {"gate/drift": own(0.9)}).all_pass
    assert judged(gate, {"gate/drift": own(0.6)}).gates[0].verdict is Verdict.FAIL
    assert judged(gate, {"gate/drift": own(0.4)}).condemnation is not None


INFINITE = float("inf")


def test_an_infinite_value_is_beyond_a_bound_on_its_side() -> None:
    above, below = Gate("drift", query="x", abort=Bound(above=2)), Gate("drift", query="x", abort=Bound(below=-1))
    for gate, value in ((above, INFINITE), (below, -INFINITE)):
        found = judged(gate, {"gate/drift": own(value)}).condemnation
        assert found is not None
        assert found.value == ("+Inf" if value > 0 else "-Inf")
    needs = Gate("drift", query="x", advance=Bound(below=0.5))
    assert judged(needs, {"gate/drift": own(INFINITE)}).gates[0].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        (Gate("drift", query="x", abort=Bound(above=2)), -INFINITE),
        (Gate("drift", query="x", abort=Bound(below=2)), INFINITE),
        (Gate("drift", query="x", advance=Bound(above=2)), INFINITE),
    ],
    ids=["far below", "far above", "above what is needed"],
)
def test_an_infinite_value_passes_nothing(gate: Gate, value: float) -> None:
    found = judged(gate, {"gate/drift": own(value)})
    assert found.condemnation is None
    assert found.gates[0].verdict is Verdict.NO_DATA
    assert "divided by 0" in found.gates[0].message


def test_deciding_twice_at_one_moment_counts_one_measurement() -> None:
    first = judged(DRIFT, {"gate/drift": own(0.9)})
    second = judged(DRIFT, {"gate/drift": own(0.9)}, previous=first.gates)
    assert second.gates == first.gates


@pytest.mark.parametrize(
    "edited",
    [replace(DRIFT, query="max(y)"), replace(DRIFT, abort=Bound(above=0.85, consecutive=3))],
    ids=["another query", "another bound"],
)
def test_the_patience_of_a_gate_begins_anew_when_what_it_measures_or_its_bound_is_edited(edited: Gate) -> None:
    measure = Measurements(DRIFT)
    for _ in range(2):
        assert measure(2, 0.9).condemnation is None
    measure.gate = edited
    for _ in range(2):
        assert measure(2, 0.9).condemnation is None
    assert measure.status.consecutive == 2
    assert measure(2, 0.9).condemnation is not None


def test_the_patience_of_a_gate_goes_on_when_only_its_length_is_edited() -> None:
    measure = Measurements(replace(DRIFT, abort=Bound(above=0.8, consecutive=9)))
    for _ in range(2):
        assert measure(2, 0.9).condemnation is None
    measure.gate = DRIFT
    assert measure(2, 0.9).condemnation is not None


def test_an_edited_bound_leaves_what_stable_did_before() -> None:
    before = GateStatus("drift", Verdict.PASS, definition="another", reference_total=900.0, reference_bad=3.0)
    found = judged(DRIFT, {"gate/drift": own(0.1)}, previous=(before,)).gates[0]
    assert (found.reference_total, found.reference_bad) == (900.0, 3.0)


script = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 2.0, 2.0, 2.0, 30.0, 4000.0, -4000.0]),
              st.sampled_from([0.9, 0.9, 0.1, None, DOWN])),
    max_size=30,
)  # fmt: skip


@given(script)
def test_condemned_only_by_an_unbroken_row_of_failing_measurements(steps: list[tuple[float, Any]]) -> None:
    measure, row = Measurements(DRIFT), 0
    for after, answer in steps:
        condemned = measure(after, answer).condemnation is not None
        row = 0 if answer == 0.1 else row + (answer == 0.9)
        assert measure.status.consecutive <= row
        assert condemned is (answer == 0.9 and measure.status.consecutive >= 3)


@given(script)
def test_a_duration_is_never_longer_than_the_time_that_was_measured(steps: list[tuple[float, Any]]) -> None:
    measure, most, gap = Measurements(replace(DRIFT, abort=Bound(above=0.8, for_seconds=86400))), 0.0, 0.0
    for after, answer in steps:
        measure(after, answer)
        gap += after
        if answer == 0.1:
            most = gap = 0.0
        elif answer == 0.9:
            # A measurement looks back a minute, whatever could not be answered meanwhile.
            most, gap = most + min(60.0, max(0.0, gap)), 0.0
        since = measure.status.failing_since
        assert since is None or 0 <= (measure.now - since).total_seconds() <= most


# --- when a part cannot be answered -----------------------------------------------------------------------------------


PROMETHEUS_DOWN: dict[str, Answer] = {"prom/http_requests_total/newest": DOWN}


def test_what_the_pods_say_condemns_even_while_prometheus_is_down() -> None:
    judgement = judged(ERRORS, {REQUESTS: requests(canary=(60, 30), stable=(540, 0)), **PROMETHEUS_DOWN})
    assert judgement.condemnation is not None
    assert judgement.source_error == DOWN


@pytest.mark.parametrize(
    ("gate", "samples"),
    [
        (ERRORS, {REQUESTS: requests(canary=(600, 0), stable=(540, 0))}),
        (LATENCY, {LATENCIES: latencies(canary={0.04: 600}, stable={0.04: 600})}),
    ],
    ids=["requests", "latencies"],
)
def test_while_prometheus_is_down_nothing_passes_though_the_pods_answer(
    gate: Gate, samples: dict[str, Answer]
) -> None:  # fmt: skip
    assert judged(gate, samples).all_pass
    judgement = judged(gate, samples | PROMETHEUS_DOWN)
    assert judgement.gates[0].verdict is Verdict.ERROR
    assert not judgement.all_pass
    assert judgement.condemnation is None


def test_a_look_between_two_judgements_of_the_whole_passes_nothing_and_keeps_what_was_said() -> None:
    good: dict[str, Answer] = {REQUESTS: requests(canary=(600, 0), stable=(540, 0))}
    first = judged(ERRORS, good)
    between = judged(ERRORS, good, now=NOW + timedelta(seconds=2), previous=first.gates, due=False)
    assert between.gates == first.gates
    assert not between.all_pass
    dead = {REQUESTS: requests(canary=(600, 600), stable=(540, 0))}
    assert judged(ERRORS, dead, now=NOW + timedelta(seconds=4), previous=first.gates, due=False).condemnation


def test_errors_condemn_while_latencies_cannot_be_had() -> None:
    analysis = Analysis(Prometheus(), Profile.STANDARD, (LATENCY, ERRORS))
    scope = Scope(
        name="eu", namespace="pricing", analysis=analysis, canary=Side("bbbb"), stable=Side("aaaa"), weight=50,
        start=NOW - timedelta(seconds=60), now=NOW, in_force=NOW - timedelta(seconds=60), hold_seconds=60,
    )  # fmt: skip
    judgement = judge(
        scope, {LATENCIES: DOWN, REQUESTS: ending(requests(canary=(60, 30), stable=(540, 0)), NOW)}
    )  # fmt: skip
    assert [gate.verdict for gate in judgement.gates] == [Verdict.ERROR, Verdict.FAIL]
    assert judgement.condemnation is not None


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "value", "text"),
    [
        (ERRORS, 0.0213, "2.13%"), (LATENCY, 0.0042, "4.2ms"), (LATENCY, 2.5, "2.5s"), (DRIFT, 0.25, "0.25"),
        (ERRORS, None, "-"),
    ],
)  # fmt: skip
def test_a_value_is_told_in_its_unit(gate: Gate, value: float | None, text: str) -> None:
    assert describe(gate, value) == text


def test_a_bound_is_told_with_its_duration() -> None:
    bound = Bound(above=0.05, for_seconds=300, consecutive=2)
    assert describe_limit(ERRORS, bound, advance=False) == "> 5% for 300 s in 2 measurements"
    assert describe_limit(ERRORS, bound, advance=True) == "> 5%"
    assert describe_limit(ERRORS, None, advance=True) == ""
    assert describe_limit(ERRORS, Bound(consecutive=2), advance=False) == "verdict fail in 2 measurements"


@pytest.mark.parametrize(
    ("gate", "limit"),
    [
        (replace(ERRORS, advance=Bound(below=0.01), abort=Bound(above=0.05, for_seconds=300)), "< 1%"),
        (replace(ERRORS, advance=None, abort=Bound(above=0.05, for_seconds=300)), "> 5% for 300 s"),
        (replace(ERRORS, advance=None, abort=None, relative=Relative()), "stable"),
        (replace(ERRORS, advance=None, abort=None, relative=None), ""),
    ],
)
def test_every_gate_says_what_it_is_judged_by_before_it_fails(gate: Gate, limit: str) -> None:
    assert usual_limit(gate) == limit


def test_reasons_are_camel_case() -> None:
    assert camel("latency-p95") == "LatencyP95"
    assert camel("desk_pnl.drift") == "DeskPnlDrift"
