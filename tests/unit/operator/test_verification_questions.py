"""Which prices are asked for when, of which pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pinn_operator.core.api import parse_resource
from pinn_operator.core.observed import Observed, Pod, Workload
from pinn_operator.core.samples import PriceProtocol
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.values import HistoryEntry, Phase, RevisionStatus, RolloutStatus, Status
from pinn_operator.core.status.verification import VerificationStatus, VerificationVerdict
from pinn_operator.core.verification.grid import grid
from pinn_operator.core.verification.questions import (
    FULL_PODS,
    NEW_POD_SAMPLES,
    OTHER_PODS,
    SAMPLE_OPTIONS,
    OwnQuestions,
    due_prices,
    own_questions,
    price_question,
    sample_in_traffic,
)
from pinn_operator.core.wanted.spec import Spec

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
STABLE, CANARY = RevisionStatus("aaaa", "pinn:1", NOW), RevisionStatus("bbbb", "pinn:2", NOW)
ROLLOUT = RolloutStatus(start_time=NOW, step_index=0, weight=0, weight_time=NOW)
PASSED = VerificationStatus(
    "bbbb", VerificationVerdict.PASS, NOW, protocol="/v1/price", pods=("eu-bbbb-x-00",), stable="aaaa"
)


def pods(revision: str, count: int, **fields: Any) -> list[Pod]:
    values: dict[str, Any] = {"ready": True, "was_ready": True, "address": "10.0.0.1:8000", **fields}
    return [Pod(f"eu-{revision}-x-{number:02}", revision, NOW, "Running", **values) for number in range(count)]


def situation(
    *found: list[Pod], status: Status | None = None, target: str | None = "bbbb",
    analysis: dict[str, Any] | None = None, **verification: Any,
) -> Situation:  # fmt: skip
    manifest = {
        "metadata": {"name": "eu", "namespace": "pricing", "uid": "u", "generation": 1},
        "spec": {"image": "pinn:2", "replicas": 3, "verification": verification, "analysis": analysis or {}},
    }
    resource = parse_resource(manifest)
    assert isinstance(resource.spec, Spec)
    if status is None:
        status = Status(phase=Phase.PROGRESSING, stable=STABLE, canary=CANARY, rollout=ROLLOUT)
    everything = tuple(pod for group in found for pod in group)
    observed = Observed(workloads={"aaaa": Workload("aaaa", 3, 3, 3, settled=True)}, pods=everything)
    return Situation(replace(resource, status=status), observed, resource.spec, target)


def in_flight(known: VerificationStatus | None, *, weight: int = 0) -> Status:
    rollout = replace(ROLLOUT, weight=weight, programmed_time=NOW)
    return Status(phase=Phase.PROGRESSING, stable=STABLE, canary=CANARY, rollout=rollout, verification=known)


def test_at_weight_0_as_many_pods_of_each_revision_are_asked_everything_and_a_few_more_a_sample() -> None:
    asked = price_question(situation(pods("aaaa", 3), pods("bbbb", 20)), NOW)
    assert asked is not None
    full = [(pod.canary, pod.full) for pod in asked.pods]
    assert full.count((True, True)) == full.count((False, True)) == FULL_PODS
    assert full.count((True, False)) == OTHER_PODS
    assert len(asked.options) == 240


def test_one_canary_pod_is_compared_with_one_stable_pod() -> None:
    asked = price_question(situation(pods("aaaa", 3), pods("bbbb", 1)), NOW)
    assert asked is not None
    assert [pod.canary for pod in asked.pods] == [True, False]


@pytest.mark.parametrize("fields", [{"ready": False}, {"address": ""}, {"terminating": True}, {"phase": "Failed"}])
def test_pods_that_cannot_answer_are_not_asked(fields: dict[str, Any]) -> None:
    phase = fields.pop("phase", "Running")
    canaries = [replace(pod, phase=phase) for pod in pods("bbbb", 2, **fields)]
    assert due_prices(situation(pods("aaaa", 3), canaries), NOW) == ()


def test_without_a_stable_pod_that_is_ready_the_canary_is_asked_alone() -> None:
    asked = price_question(situation(pods("aaaa", 3, ready=False), pods("bbbb", 1)), NOW)
    assert asked is not None
    assert [pod.canary for pod in asked.pods] == [True]


def test_the_same_attempt_is_the_same_question_whatever_pods_come_and_go() -> None:
    first = price_question(situation(pods("aaaa", 3), pods("bbbb", 1)), NOW)
    later = price_question(situation(pods("aaaa", 2), pods("bbbb", 3)), NOW + timedelta(seconds=9))
    assert first is not None
    assert later is not None
    assert first.identity == later.identity
    tried = VerificationStatus("bbbb", VerificationVerdict.ERROR, NOW, attempts=1)
    again = price_question(situation(pods("aaaa", 3), pods("bbbb", 1), status=in_flight(tried)), NOW)
    assert again is not None
    assert again.identity != first.identity


def test_an_attempt_waits_for_its_time() -> None:
    tried = VerificationStatus(
        "bbbb", VerificationVerdict.ERROR, NOW, attempts=1, retry_time=NOW + timedelta(seconds=4)
    )
    it = situation(pods("aaaa", 3), pods("bbbb", 1), status=in_flight(tried))
    assert price_question(it, NOW + timedelta(seconds=3)) is None
    assert price_question(it, NOW + timedelta(seconds=4)) is not None


@pytest.mark.parametrize("verdict", [VerificationVerdict.FAIL, VerificationVerdict.NOT_APPLICABLE])
def test_what_was_decided_is_not_asked_again(verdict: VerificationVerdict) -> None:
    known = VerificationStatus("bbbb", verdict, NOW)
    for weight in (0, 10):
        it = situation(pods("aaaa", 3), pods("bbbb", 1), status=in_flight(known, weight=weight))
        assert price_question(it, NOW) is None


def test_what_an_earlier_rollout_of_the_revision_showed_counts_no_more() -> None:
    old = replace(PASSED, start_time=NOW - timedelta(hours=1))
    asked = price_question(situation(pods("aaaa", 3), pods("bbbb", 1), status=in_flight(old)), NOW)
    assert asked is not None
    assert asked.waves


def test_in_traffic_another_sample_is_due_each_interval_of_twenty_prices_together() -> None:
    it = situation(pods("aaaa", 3), pods("bbbb", 1), status=in_flight(PASSED, weight=10))
    asked = [price_question(it, NOW + timedelta(seconds=seconds)) for seconds in (1, 29, 31, 61)]
    found = [one for one in asked if one is not None]
    assert len(found) == 4
    assert found[0].identity == found[1].identity
    assert len({one.identity for one in found}) == 3
    assert len({one.sample for one in found}) == 3
    assert [len(one.pods) * len(one.sample) for one in found] == [2 * SAMPLE_OPTIONS] * 4
    assert {one.protocol for one in found} == {PriceProtocol.PRICE}
    assert not any(pod.full for one in found for pod in one.pods)


def test_each_new_pod_is_asked_at_once_beside_one_that_is_known() -> None:
    it = situation(pods("aaaa", 3), pods("bbbb", 3), status=in_flight(PASSED))
    asked = price_question(it, NOW)
    assert asked is not None
    assert [pod.name for pod in asked.pods if pod.canary] == ["eu-bbbb-x-00", "eu-bbbb-x-01", "eu-bbbb-x-02"]


def test_of_hundreds_of_pods_no_more_than_twenty_have_to_be_known() -> None:
    known = replace(PASSED, pods=tuple(f"eu-bbbb-x-{number:02}" for number in range(20)))
    it = situation(pods("aaaa", 3), pods("bbbb", 60), status=in_flight(known))
    assert price_question(it, NOW) is None


def test_nothing_is_asked_when_the_mode_is_disabled_or_the_canary_leaves() -> None:
    everything = (pods("aaaa", 3), pods("bbbb", 1))
    assert price_question(situation(*everything, mode="Disabled"), NOW) is None
    assert price_question(situation(*everything, target="cccc"), NOW) is None
    leaving = replace(in_flight(None), phase=Phase.ROLLING_BACK)
    assert price_question(situation(*everything, status=leaving), NOW) is None


def test_an_invalid_spec_does_not_end_the_samples_of_a_rollout_in_flight() -> None:
    it = situation(pods("aaaa", 3), pods("bbbb", 1), status=in_flight(PASSED, weight=10), target=None)
    assert price_question(it, NOW) is not None


def test_the_first_revision_of_a_resource_is_asked_once_and_later_ones_never_at_rest() -> None:
    first = Status(phase=Phase.STABLE, stable=STABLE)
    asked = price_question(situation(pods("aaaa", 2), status=first, target="aaaa"), NOW)
    assert asked is not None
    assert all(pod.canary for pod in asked.pods)
    done = replace(first, verification=VerificationStatus("aaaa", VerificationVerdict.PASS, NOW))
    assert price_question(situation(pods("aaaa", 2), status=done, target="aaaa"), NOW) is None
    entry = HistoryEntry("aaaa", "pinn:1", "Promoted", NOW, NOW)
    later = replace(first, history=(entry,))
    assert price_question(situation(pods("aaaa", 2), status=later, target="aaaa"), NOW) is None


def test_the_operator_knows_how_many_samples_it_asks_between_two_moments_of_a_weight() -> None:
    it = situation(pods("aaaa", 3), pods("bbbb", 1), analysis={"intervalSeconds": 30})
    assert it.spec is not None
    start = NOW.timestamp()
    asked = own_questions(it.spec, in_flight(PASSED, weight=10), it.observed, NOW)
    assert [asked.samples(start, start + seconds) for seconds in (0, 29, 30, 300)] == [1, 1, 2, 11]
    assert asked.samples(start + 15, start + 300) == 10, "the first one was before the first scrape of this weight"
    assert own_questions(it.spec, in_flight(None, weight=10), it.observed, NOW).samples(start, start + 300) == 0
    assert own_questions(it.spec, in_flight(PASSED), it.observed, NOW).samples(start, start + 300) == 0


def test_as_many_samples_are_asked_as_the_operator_takes_off() -> None:
    it = situation(pods("aaaa", 3), pods("bbbb", 2), analysis={"intervalSeconds": 30})
    assert it.spec is not None
    begun = NOW + timedelta(seconds=47)
    status = in_flight(replace(PASSED, pods=("eu-bbbb-x-00", "eu-bbbb-x-01")), weight=10)
    assert status.rollout is not None
    status = replace(status, rollout=replace(status.rollout, weight_time=begun))
    there = replace(it, resource=replace(it.resource, status=status))
    found = {
        question.identity: question
        for second in range(130)
        if (question := price_question(there, begun + timedelta(seconds=second))) is not None
    }
    own = own_questions(it.spec, status, it.observed, NOW)
    assert own.samples(begun.timestamp(), begun.timestamp() + 129) == len(found) == 5
    assert {len(question.sample) for question in found.values()} == {own.options}


def test_pods_that_were_verified_before_this_weight_are_not_asked_for_it_again() -> None:
    older, newer = NOW - timedelta(seconds=60), NOW + timedelta(seconds=60)
    twenty = tuple(pod.name for pod in pods("bbbb", 20))
    status, start = in_flight(replace(PASSED, pods=twenty), weight=10), NOW.timestamp()
    here = situation(pods("bbbb", 20, ready_changed=older))
    assert here.spec is not None
    assert own_questions(here.spec, status, here.observed, NOW).samples(start, start) == 1
    grown = situation([*pods("bbbb", 20, ready_changed=older)[:18], *pods("bbbb", 20, ready_changed=newer)[18:]])
    assert own_questions(here.spec, status, grown.observed, NOW).samples(start, start) == 1 + 2 * NEW_POD_SAMPLES


def test_by_the_open_inference_protocol_a_sample_of_both_styles_takes_two_requests() -> None:
    it = situation(pods("bbbb", 1))
    assert it.spec is not None
    for protocol, styles, requests in (
        ("/v1/price", "european, american", 1), ("Open Inference Protocol", "european", 1),
        ("Open Inference Protocol", "european, american", 2),
    ):  # fmt: skip
        known = replace(PASSED, protocol=protocol, styles=styles)
        assert own_questions(it.spec, in_flight(known, weight=10), it.observed, NOW).requests == requests


@pytest.mark.parametrize("options", [12, 240, 1000])
def test_what_is_asked_in_traffic_is_priced_at_once_by_any_method(options: int) -> None:
    """An American option at a rate of zero took a hundred times as long, and stood in the canary's p95."""
    asked = {number for turn in range(200) for number in sample_in_traffic(options, turn)}
    american = [it for it in (grid(options).options[number] for number in asked) if it.american]
    assert all(it.rate >= 0.03 and it.maturity >= 14 / 365 and it.volatility <= 0.6 for it in american), american
    assert {it.call for it in (grid(options).options[number] for number in asked)} == {True, False}


# --- what the operator itself asked, in counts of a stretch of time ---------------------------------------------------

DOUBTED = OwnQuestions(since=1000.0, seconds=0.0, asks=10, asked=1900.0, each=9, options=10)
"""At a weight for 1,000 seconds, asked ten times because of errors, for the last time 100 seconds ago."""


@pytest.mark.parametrize(
    ("begin", "requests"), [(1000.0, 90), (1500.0, 45), (1890.0, 9), (1901.0, 9), (1903.0, 0), (1990.0, 0)]
)
def test_of_what_was_asked_in_doubt_a_window_has_what_falls_to_its_time(begin: float, requests: int) -> None:
    assert DOUBTED.samples(begin, 2000.0) == requests
    assert DOUBTED.options_asked(begin, 2000.0) == requests, "each was for one option"


def test_a_doubt_takes_nothing_off_counts_from_before_its_weight() -> None:
    assert DOUBTED.samples(0.0, 999.0) == DOUBTED.options_asked(0.0, 999.0) == 0


def test_regular_samples_are_of_ten_options_each() -> None:
    regular = replace(DOUBTED, seconds=10.0, asks=0)
    assert regular.options_asked(1000.0, 2000.0) == 10 * regular.samples(1000.0, 2000.0) == 1010
