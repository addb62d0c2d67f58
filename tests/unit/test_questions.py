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
from pinn_operator.core.gates.questions import (
    LATENCY_RECENT,
    LATENCY_WHOLE,
    REQUESTS_LATEST,
    REQUESTS_RECENT,
    REQUESTS_WHOLE,
    STILL_COUNTS,
    STILL_SCRAPES,
    due,
    render,
)
from pinn_operator.core.observed import Observed
from pinn_operator.core.samples import Query
from pinn_operator.core.situation import situation_of
from pinn_operator.core.status.values import Phase, RevisionStatus, RolloutStatus, Status

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


def asked(status: Status, *, after: float = 60, **analysis: Any) -> dict[str, Query]:
    found = due(situation_of(resource(status, **analysis), Observed()), START + timedelta(seconds=after))
    assert len({query.key for query in found}) == len(found)
    return {query.key: query for query in found}


@pytest.mark.parametrize(
    ("name", "status", "after"),
    [
        ("nothing is in flight", Status(phase=Phase.STABLE, stable=STABLE), 60),
        ("the canary has no weight", progressing(weight=0), 60),
        ("the weight was not yet seen in force", progressing(programmed_time=None), 60),
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


REQUESTS = {REQUESTS_LATEST, REQUESTS_RECENT}


def test_young_weights_are_asked_about_once_and_older_ones_twice() -> None:
    assert set(asked(progressing(), after=30)) == {*REQUESTS, LATENCY_RECENT}
    assert set(asked(progressing(), after=90)) == {*REQUESTS, LATENCY_RECENT, LATENCY_WHOLE}
    assert set(asked(progressing(), after=600)) == {*REQUESTS, REQUESTS_WHOLE, LATENCY_RECENT, LATENCY_WHOLE}


def test_the_promql_of_the_built_in_gates() -> None:
    queries = asked(progressing(), after=600)
    requests = f"sum by (pod, status) (http_requests_total{{{PODS},{NOT_PROBES}}})"
    assert queries[REQUESTS_RECENT].expression == queries[REQUESTS_WHOLE].expression == requests
    buckets = f"pinn_inference_latency_seconds_bucket{{{PODS}}}"
    assert queries[LATENCY_RECENT].expression == f"sum by (pod, le) (increase({buckets}[60000ms]))"
    assert queries[LATENCY_WHOLE].expression == f"sum by (pod, le) (increase({buckets}[600000ms]))"
    assert queries[LATENCY_RECENT].start is None


def test_pods_of_both_revisions_are_meant_and_of_no_other() -> None:
    pattern = re.search('pod=~"([^"]+)"', asked(progressing())[REQUESTS_RECENT].expression)
    assert pattern is not None
    for name, meant in (("eu-aaaa-7f9-x2", True), ("eu-bbbb-7f9-x2", True), ("eu-cccc-7f9-x2", False),
                        ("eu-west-aaaa-7f9-x2", False), ("eu-aaaa-cccc-7f9-x2", False),
                        ("my-eu-aaaa-7f9-x2", False)):  # fmt: skip
        assert bool(re.fullmatch(pattern[1], name)) is meant, name


@given(after=st.floats(0.3, 2e5))
def test_grids_end_now_begin_no_earlier_than_the_weight_and_stay_small(after: float) -> None:
    now = START + timedelta(seconds=after)
    for query in asked(progressing(), after=after).values():
        assert query.end == now
        if query.start is None:
            continue
        assert query.start >= START - timedelta(microseconds=1), "data from before the weight was in force"
        assert query.step >= 0.25
        points = (query.end - query.start).total_seconds() / query.step
        assert points == pytest.approx(round(points), abs=1e-3), "the newest moment is not on the grid"
        assert points <= 61
    whole = asked(progressing(), after=after).get(REQUESTS_WHOLE)
    assert whole is None or (whole.start is not None and (whole.start - START).total_seconds() <= whole.step)


@given(after=st.floats(0.3, 2e5))
def test_an_increase_looks_no_further_back_than_the_weight(after: float) -> None:
    for key, query in asked(progressing(), after=after).items():
        if key in (LATENCY_RECENT, LATENCY_WHOLE):
            window = re.search(r"\[(\d+)ms\]", query.expression)
            assert window is not None
            assert int(window[1]) <= max(1000, after * 1000 + 1)


def test_own_gates_are_asked_as_they_are_written() -> None:
    template = 'max(drift{rev="{{ canary }}",was="{{stable}}",ns="{{ namespace }}",of="{{ name }}"}[{{ window }}])'
    gate = {"name": "drift", "advance": {"below": "1"}, "query": template}
    query = asked(progressing(), after=90.4, gates=[gate])["gate/drift"]
    assert query.expression == 'max(drift{rev="bbbb",was="aaaa",ns="pricing",of="eu"}[90s])'
    assert query.start is None
    assert query.end == START + timedelta(seconds=90.4)


def test_a_window_is_at_least_a_second_and_unknown_names_stay() -> None:
    assert render("[{{ window }}] {{ other }}", resource(Status()), "a", "b", 0.2) == "[1s] {{ other }}"


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
    series = f'http_requests_total{{namespace="pricing",pod=~"eu-({revision})-[^-]+-[^-]+",{NOT_PROBES}}}'
    assert queries[STILL_COUNTS].expression == f"sum by (pod) ({series})"
    assert queries[STILL_SCRAPES].expression == f"min by (pod) (timestamp({series}))"
    assert queries[STILL_COUNTS].start == START + timedelta(seconds=140), "a minute back is enough"
    assert queries[STILL_SCRAPES].start is None


def test_silence_is_never_asked_of_the_time_before_the_weight_was_taken_away() -> None:
    status = Status(phase=Phase.ROLLING_BACK, stable=STABLE, canary=CANARY, rollout=rollout(weight=0))
    counts = asked(status, after=5)[STILL_COUNTS]
    assert counts.start is not None
    assert counts.start >= START
