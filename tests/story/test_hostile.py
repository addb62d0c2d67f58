"""Whatever a source answers, a pass ends: with a valid, bounded status, and without promoting on nonsense."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterable
from functools import cache
from math import inf, nan
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinn_operator.core.api import status_from_manifest
from pinn_operator.core.samples import (
    AnyAnswer,
    PodCounts,
    PodReadFault,
    PodReadFaults,
    Question,
    Samples,
    Series,
    SourceError,
)
from pinn_operator.core.status.values import Phase, Status
from pinn_operator.pods.history import History, TooManySeries
from pinn_operator.prom.client import parse_body
from pinn_operator.prom.parsing import parse_answer
from tests.story.reader import Reader
from tests.story.trial import Draw, Trial, steady
from tests.support.crd import validator

BYTES = 64 * 1024
NUMBERS = (nan, inf, -inf, -1.0, 0.0, 1e308, 5e-324, -1e308, 2.0**53, 0.1)

# --- answers as they come over the wire -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["success", "error", "vector", "matrix", "scalar", "NaN", "+Inf", "1e400", "0x1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["data", "result", "resultType", "metric", "value", "values", "warnings", "histogram"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


def is_answer(answer: object) -> bool:
    if isinstance(answer, SourceError):
        return 0 < len(answer.message) <= 1024
    return isinstance(answer, tuple) and all(
        isinstance(it, Series)
        and all(isinstance(time, float) and isinstance(value, float) for time, value in it.points)
        for it in answer
    )


@given(document=JSON)
def test_whatever_json_prometheus_answers_is_series_or_an_error_in_words(document: Any) -> None:
    assert is_answer(parse_answer(document))


@given(kind=st.sampled_from(["vector", "matrix", "scalar", "string"]), result=JSON)
def test_whatever_result_prometheus_gives_is_series_or_an_error_in_words(kind: str, result: Any) -> None:
    assert is_answer(parse_answer({"status": "success", "data": {"resultType": kind, "result": result}}))


@given(status=st.integers(100, 599), body=st.binary(max_size=200) | JSON.map(lambda it: json.dumps(it).encode()))
def test_whatever_bytes_prometheus_answers_are_series_or_an_error_in_words(status: int, body: bytes) -> None:
    assert is_answer(parse_body(status, body))


LINE = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda name, labels, value: name + b"{" + labels + b"} " + value + b"\n",
        st.sampled_from([b"a_total", b"a_totals", b"# a_total", b"a_total\x00", b"\xff"]),
        st.binary(max_size=20) | st.sampled_from([b'pod="x",__name__="y"', b'le="+Inf"', b'x="\\', b'x="1",x="2"']),
        st.sampled_from([b"1", b"NaN", b"+Inf", b"1e400", b"-1", b"1_0", b"", b"\xd9\xa1", b"1 2 3", b"0x10"]),
    ),
)


@given(pages=st.lists(st.lists(LINE, max_size=6).map(b"".join), max_size=5), times=st.lists(st.floats(-1e9, 1e12)))
def test_whatever_page_a_pod_gives_is_read_as_finite_numbers_in_the_order_of_time(
    pages: list[bytes], times: list[float]
) -> None:
    history = History("eu-1")
    for page, time in zip(pages, times, strict=False):
        try:
            history.add(time, page, [b"a_total"])
        except TooManySeries:
            continue
    for series in history.series(("a_total",)):
        moments = [time for time, _ in series.points]
        assert moments == sorted(set(moments))
        assert all(abs(value) < inf for _, value in series.points)
        assert (series.labels["pod"], series.labels["__name__"]) == ("eu-1", "a_total")


# --- answers as a pass gets them --------------------------------------------------------------------------------------

Mutation = Callable[[random.Random, list[Series]], list[Series]]


def _values(rng: random.Random, series: list[Series]) -> list[Series]:
    return [
        Series(it.labels, tuple((t, rng.choice(NUMBERS) if rng.random() < 0.3 else v) for t, v in it.points))
        for it in series
    ]


def _times(rng: random.Random, series: list[Series]) -> list[Series]:
    shift = rng.choice([0.0, -1e9, 1e9, -3600.0, 3600.0, 1e18, 0.001])
    return [Series(it.labels, tuple((t + shift * rng.random(), v) for t, v in it.points)) for it in series]


def _order(rng: random.Random, series: list[Series]) -> list[Series]:
    return [Series(it.labels, tuple(rng.sample(it.points, len(it.points)))) for it in series]


def _twice(rng: random.Random, series: list[Series]) -> list[Series]:
    return [*series, *(Series(it.labels, it.points + it.points[: rng.randint(0, 3)]) for it in series)]


def _labels(rng: random.Random, series: list[Series]) -> list[Series]:
    texts = ["", "\x00", "+Inf", "nan", "-1", "5xx", "abc", "é" * 300, "200", "1e999"]
    return [
        Series({k: rng.choice(texts) if rng.random() < 0.2 else v for k, v in it.labels.items() if rng.random() < 0.9},
               it.points)
        for it in series
    ]  # fmt: skip


def _fewer(rng: random.Random, series: list[Series]) -> list[Series]:
    return [Series(it.labels, it.points[: rng.randint(0, 2)]) for it in series if rng.random() < 0.7]


def _falling(rng: random.Random, series: list[Series]) -> list[Series]:
    return [Series(it.labels, tuple((t, -v * rng.random()) for t, v in it.points)) for it in series]


def _strange_moments(rng: random.Random, series: list[Series]) -> list[Series]:
    return [Series(it.labels, tuple((rng.choice(NUMBERS), v) for _, v in it.points)) for it in series]


MUTATIONS: tuple[Mutation, ...] = (
    _values, _times, _order, _twice, _labels, _fewer, _falling, _strange_moments,
)  # fmt: skip


@cache
def honest(weight: int, sources: str) -> Trial:
    draw = Draw(both=steady(0.01), slow=steady(0.01))
    return Trial(draw, seed=5, seconds=400, interval=5, weight=weight, hold=300, sources=sources)


def judged(weight: int, sources: str, mutate: Callable[[str, AnyAnswer], AnyAnswer]) -> tuple[Status, Status]:
    """The status of a trial before and after a pass by answers that somebody has changed."""
    trial = copy.copy(honest(weight, sources))
    world = trial.world = copy.copy(trial.world)
    world.reader = Reader()
    before, answers = world.state, world._answers

    def changed(questions: Iterable[Question]) -> Samples:
        return {key: mutate(key, answer) for key, answer in dict(answers(list(questions))).items()}

    world.__dict__["_answers"] = changed
    after = trial.look(350.0)
    assert len(json.dumps(world.status, allow_nan=False)) < BYTES
    assert not [f"{it.json_path}: {it.message}" for it in validator("status").iter_errors(world.status)]
    assert status_from_manifest(world.status) == after
    return before, after


def of_series(rng: random.Random, mutations: list[Mutation], share: float) -> Callable[[str, AnyAnswer], AnyAnswer]:
    def mutate(key: str, answer: AnyAnswer) -> AnyAnswer:
        answer = answer.series() if isinstance(answer, PodCounts) else answer
        if not isinstance(answer, tuple) or rng.random() > share:
            return answer
        series = list(answer)
        for mutation in mutations:
            series = mutation(rng, series)
        return tuple(series)

    return mutate


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32), mutations=st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=3),
    share=st.sampled_from([0.3, 1.0]), weight=st.sampled_from([10, 100]),
    sources=st.sampled_from(["Prometheus", "Pods"]),
)  # fmt: skip
def test_no_samples_break_a_pass(seed: int, mutations: list[Mutation], share: float, weight: int, sources: str) -> None:
    judged(weight, sources, of_series(random.Random(seed), mutations, share))


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
@pytest.mark.parametrize("weight", [10, 100])
@pytest.mark.parametrize(
    "answer",
    [
        (), SourceError("x" * 5000), SourceError(""), (Series({}, ()),), (Series({}, ((nan, nan),)),),
        PodReadFaults(tuple(PodReadFault(f"pod-{index}", "y" * 400) for index in range(500))),
    ],
    ids=["nothing", "long error", "empty error", "no points", "nan", "all pods silent"],
)  # fmt: skip
def test_an_answer_of_no_use_neither_promotes_nor_rejects(answer: AnyAnswer, weight: int, sources: str) -> None:
    before, after = judged(weight, sources, lambda _key, _answer: answer)
    assert after.phase is before.phase
    assert after.rejected is None
    assert after.rollout is not None
    # How many replicas are available is not asked of these sources.
    assert not [gate for gate in after.rollout.gates if gate.verdict == "Pass" and gate.name != "availability"]


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
@pytest.mark.parametrize("value", NUMBERS)
def test_counters_that_all_hold_one_strange_number_neither_promote_nor_reject(value: float, sources: str) -> None:
    def mutate(_key: str, answer: AnyAnswer) -> AnyAnswer:
        if not isinstance(answer, tuple):
            return answer
        return tuple(Series(it.labels, tuple((time, value) for time, _ in it.points)) for it in answer)

    _, after = judged(10, sources, mutate)
    assert after.phase is Phase.PROGRESSING
    assert after.rejected is None
