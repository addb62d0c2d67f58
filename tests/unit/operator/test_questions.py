"""Which PromQL a pass asks, at which moments, and about which pods."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.gates.custom_query import render
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.gates.questions import due
from pinn_operator.core.gates.silence import STILL_COUNTS, STILL_SCRAPES
from pinn_operator.core.observed import Observed, Pod
from pinn_operator.core.samples import PodQuestion, Query, Question
from pinn_operator.core.situation import situation_of
from pinn_operator.core.status.values import GateStatus, Phase, RevisionStatus, RolloutStatus, Status, Verdict
from pinn_operator.core.wanted.spec import Analysis, Profile, Prometheus

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
STABLE, CANARY = RevisionStatus("aaaa", "pinn:1", START), RevisionStatus("bbbb", "pinn:2", START)
PODS = 'namespace="pricing",pod=~"eu-(aaaa|bbbb)-[^-]+-[^-]+"'
NOT_PROBES = 'handler!~"/health.*|/metrics|/cache/.*|/docs|/openapi.json|/v2/health/.*|/v2/models/.*/ready"'


def rollout(**changes: Any) -> RolloutStatus:
    start = RolloutStatus(start_time=START, step_index=0, weight=10, weight_time=START, programmed_time=START)
    return replace(start, **changes)


def resource(status: Status, **analysis: Any) -> Resource:
    manifest = {
        "metadata": {"name": "eu", "namespace": "pricing", "uid": "u", "generation": 1},
        "spec": {"image": "pinn:2", "analysis": analysis},
    }
    return replace(parse_resource(manifest), status=status)


def progressing(**changes: Any) -> Status:
    return Status(phase=Phase.PROGRESSING, stable=STABLE, canary=CANARY, rollout=rollout(**changes))


REMEMBERED = GateStatus("error-rate", Verdict.NO_DATA, reference_total=100)

PODS_SEEN = Observed(
    pods=tuple(
        Pod(f"eu-{revision}-7f9-x{number}", revision, START, "Running", ready=True)
        for revision in ("aaaa", "bbbb")
        for number in (1, 2)
    )
)


def questions(
    status: Status, *, after: float = 60, observed: Observed = PODS_SEEN, **analysis: Any
) -> dict[str, Question]:  # fmt: skip
    found = due(situation_of(resource(status, **analysis), observed), START + timedelta(seconds=after))
    assert len({question.key for question in found}) == len(found)
    return {question.key: question for question in found}


def asked(status: Status, **more: Any) -> dict[str, Query]:
    """What Prometheus is asked."""
    return {key: it for key, it in questions(status, **more).items() if isinstance(it, Query)}


@pytest.mark.parametrize(
    ("name", "status", "after"),
    [
        ("nothing is in flight", Status(phase=Phase.STABLE, stable=STABLE), 60),
        ("the canary has no weight, of Prometheus", progressing(weight=0), 60),
        ("no time has passed at this weight", progressing(), 0),
        ("the clock was set back", progressing(), -3600),
        ("silence is proven", Status(phase=Phase.ROLLING_BACK, stable=STABLE, canary=CANARY,
                                     rollout=rollout(weight=0, still_time=START)), 60),
        ("weight 0 was not yet seen in force", Status(phase=Phase.ROLLING_BACK, stable=STABLE, canary=CANARY,
                                                      rollout=rollout(weight=0, programmed_time=None)), 60),
        ("a rollout without a canary", Status(phase=Phase.PROGRESSING, stable=STABLE, rollout=rollout()), 60),
    ],
)  # fmt: skip
def test_nothing_is_asked_when(name: str, status: Status, after: float) -> None:
    assert asked(status, after=after) == {}, name


def test_a_resource_that_never_was_valid_is_asked_nothing_about() -> None:
    broken = parse_resource({"metadata": {"name": "eu", "namespace": "pricing"}, "spec": {"image": 7}})
    assert due(situation_of(replace(broken, status=progressing()), Observed()), START + timedelta(seconds=60)) == ()


def test_longer_times_are_asked_about_on_wider_grids() -> None:
    for after, grids in ((5, {"newest", "recent", "before"}), (70, {"newest", "recent"}),
                         (600, {"newest", "recent", "1024s"}),
                         (86400, {"newest", "recent", "1024s", "8192s", "65536s", "524288s"})):  # fmt: skip
        found = asked(progressing(gates=(REMEMBERED,)), after=after)
        assert {key.rpartition("/")[2] for key in found if key.startswith("prom/http_requests_total/")} == grids


def test_what_stable_did_before_is_asked_for_a_minute_and_until_it_is_remembered() -> None:
    def before(status: Status, after: float = 30) -> list[Query]:
        return [it for key, it in asked(status, after=after).items() if key == "prom/http_requests_total/before"]

    [found] = before(progressing())
    assert found.start is not None
    assert (START - found.start).total_seconds() >= 900
    assert found.end < START, "nothing of this weight is in it"
    assert before(progressing(gates=(REMEMBERED,)))
    assert before(progressing(gates=(REMEMBERED,)), after=61) == []
    assert before(progressing(), after=61)


def test_the_whole_time_is_asked_about_every_interval_and_while_a_bound_is_exceeded() -> None:
    def long(gate: GateStatus, *, after: float = 600) -> bool:
        return any("1024s" in key for key in asked(progressing(gates=(gate,)), after=after))

    judged = START + timedelta(seconds=590)
    assert not long(GateStatus("error-rate", Verdict.PASS, time=judged))
    assert long(GateStatus("error-rate", Verdict.PASS, time=judged), after=620)
    assert long(GateStatus("error-rate", Verdict.FAIL, time=judged, failing_since=judged))
    assert long(GateStatus("error-rate", Verdict.NO_DATA))


def test_while_the_pods_answer_prometheus_is_asked_only_every_interval() -> None:
    gate = GateStatus("error-rate", Verdict.PASS, time=START + timedelta(seconds=590), source="Pods")
    assert asked(progressing(gates=(gate,)), after=592) == {}
    assert asked(progressing(gates=(gate,)), after=620) != {}
    assert asked(progressing(gates=(replace(gate, source="Prometheus"),)), after=592) != {}


def test_the_sources_are_those_of_the_spec() -> None:
    pods = questions(progressing(), sources=["Pods"])
    assert all(isinstance(question, PodQuestion) for question in pods.values())
    prometheus = questions(progressing(), sources=["Prometheus"])
    assert all(isinstance(question, Query) for question in prometheus.values())


def test_pods_are_asked_from_before_the_weight_on_and_before_there_is_any() -> None:
    for status in (progressing(), progressing(weight=0)):
        found = questions(status)["pods/http_requests_total"]
        assert isinstance(found, PodQuestion)
        assert set(found.pods) == {pod.name for pod in PODS_SEEN.pods}
        assert found.start is not None
        assert found.start < START


def test_the_promql_of_the_built_in_gates() -> None:
    queries = asked(progressing(), after=600)
    by = "job, instance, service, endpoint, container, prometheus, prometheus_replica, replica"
    not_unmatched = NOT_PROBES.removesuffix('"') + '|unmatched"'
    expected = f"sum by (pod, status, {by}) (http_requests_total{{{PODS},{not_unmatched}}})"
    assert queries["prom/http_requests_total/recent"].expression == expected
    unmatched = f'sum by (pod, status, {by}) (http_requests_total{{{PODS},handler="unmatched"}})'
    assert queries["prom/http_requests_total/unmatched/recent"].expression == unmatched
    buckets = f"sum by (pod, le, {by}) (pinn_inference_latency_seconds_bucket{{{PODS}}})"
    assert queries["prom/pinn_inference_latency_seconds_bucket/recent"].expression == buckets
    times = f"max by (pod, {by}) (timestamp(http_requests_total{{{PODS}}}))"
    assert queries["prom/times/recent"].expression == times


def test_the_names_of_metrics_and_labels_are_those_of_the_spec() -> None:
    names = {"requests": "served_total", "podLabel": "k8s_pod", "statusLabel": "code", "handlerLabel": "path"}
    found = asked(progressing(), metrics=names)["prom/served_total/recent"].expression
    assert found.startswith("sum by (k8s_pod, code, job,")
    assert 'k8s_pod=~"eu-(aaaa|bbbb)-[^-]+-[^-]+",path!~"/health' in found


def test_the_paths_of_the_specs_own_probes_are_no_traffic() -> None:
    status = progressing()
    manifest = {
        "metadata": {"name": "eu", "namespace": "pricing", "uid": "u", "generation": 1},
        "spec": {"image": "pinn:2", "probes": {"liveness": {"path": "/livez.v1"}}},
    }
    of = replace(parse_resource(manifest), status=status)
    found = {it.key: it for it in due(situation_of(of, PODS_SEEN), START + timedelta(seconds=60))}
    query = found["prom/http_requests_total/recent"]
    assert isinstance(query, Query)
    assert r"|/livez\\.v1|unmatched" in query.expression


def test_pods_of_both_revisions_are_meant_and_of_no_other() -> None:
    pattern = re.search('pod=~"([^"]+)"', asked(progressing())["prom/http_requests_total/recent"].expression)
    assert pattern is not None
    for name, meant in (("eu-aaaa-7f9-x2", True), ("eu-bbbb-7f9-x2", True), ("eu-cccc-7f9-x2", False),
                        ("eu-west-aaaa-7f9-x2", False), ("eu-aaaa-cccc-7f9-x2", False),
                        ("my-eu-aaaa-7f9-x2", False)):  # fmt: skip
        assert bool(re.fullmatch(pattern[1], name)) is meant, name


@given(after=st.floats(0.3, 2e5))
def test_grids_end_now_reach_back_to_the_weight_and_stay_small(after: float) -> None:
    now = START + timedelta(seconds=after)
    earliest = now
    for query in asked(progressing(gates=(REMEMBERED,)), after=after).values():
        if query.key.endswith("/before"):
            continue
        assert query.end == now
        if query.start is None:
            continue
        assert query.start >= START - timedelta(seconds=query.step), "data from long before the weight"
        assert query.step >= 1
        points = (query.end - query.start).total_seconds() / query.step
        assert points == pytest.approx(round(points), abs=1e-3), "the newest moment is not on the grid"
        assert points <= 32
        if query.key.startswith("prom/http_requests_total/"):
            earliest = min(earliest, query.start)
    assert earliest <= START + timedelta(microseconds=1)


def test_own_gates_are_asked_as_they_are_written() -> None:
    template = 'max(drift{rev="{{ canary }}",was="{{stable}}",ns="{{ namespace }}",of="{{ name }}"}[{{ window }}])'
    gate = {"name": "drift", "advance": {"below": "1"}, "query": template}
    query = asked(progressing(), after=90.4, gates=[gate])["gate/drift"]
    assert query.expression == 'max(drift{rev="bbbb",was="aaaa",ns="pricing",of="eu"}[90s])'
    assert query.start is None
    assert query.end == START + timedelta(seconds=90.4)


def test_a_window_is_at_least_a_second_and_unknown_names_stay() -> None:
    scope = Scope(
        "eu", "pricing", Analysis(Prometheus(), Profile.STANDARD, ()), Side("b"), Side("a"), 10, START,
        START + timedelta(seconds=0.2),
    )  # fmt: skip
    assert render("[{{ window }}] {{ other }}", scope) == "[1s] {{ other }}"


@pytest.mark.parametrize(
    ("status", "revision"),
    [
        (Status(phase=Phase.ROLLING_BACK, stable=STABLE, canary=CANARY, rollout=rollout(weight=0)), "bbbb"),
        (Status(phase=Phase.PROMOTING, stable=CANARY, previous=STABLE, rollout=rollout(weight=0)), "aaaa"),
    ],
    ids=["rolling back", "promoting"],
)
def test_silence_is_asked_of_the_revision_that_leaves(status: Status, revision: str) -> None:
    queries = asked(status, after=200)
    series = f'http_requests_total{{namespace="pricing",pod=~"eu-{revision}-[^-]+-[^-]+",{NOT_PROBES}}}'
    assert queries[STILL_COUNTS].expression == f"sum by (pod) ({series})"
    assert queries[STILL_SCRAPES].expression == f"min by (pod) (timestamp({series}))"
    assert queries[STILL_COUNTS].start == START + timedelta(seconds=140), "a minute back is enough"
    assert queries[STILL_SCRAPES].start is None


def test_silence_is_never_asked_of_the_time_before_the_weight_was_taken_away() -> None:
    status = Status(phase=Phase.ROLLING_BACK, stable=STABLE, canary=CANARY, rollout=rollout(weight=0))
    counts = asked(status, after=5)[STILL_COUNTS]
    assert counts.start is not None
    assert counts.start >= START
