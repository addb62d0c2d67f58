"""A status as JSON and back: exact, bounded, and as the CRD's schema wants it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings

from lab.kube import Manifest
from pinn_operator.core.api import format_time, parse_time, status_from_manifest, status_to_manifest
from pinn_operator.core.status.values import (
    MESSAGE_LIMIT,
    TIMELINE_LIMIT,
    Condition,
    GateStatus,
    Phase,
    RevisionStatus,
    RolloutStatus,
    Status,
    TimelineEntry,
    Verdict,
)
from tests.support import crd, specs

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


def rollout(**changes: object) -> RolloutStatus:
    values = {"start_time": NOON, "step_index": 0, "weight": 10, "weight_time": NOON} | changes
    return RolloutStatus(**values)  # type: ignore[arg-type]


@given(specs.statuses())
@SLOW
def test_a_status_survives_the_way_through_json(status: Status) -> None:
    text = json.dumps(status_to_manifest(status), allow_nan=False)
    assert status_from_manifest(json.loads(text)) == status


@given(specs.statuses(bounded=False))
@SLOW
def test_whatever_a_status_holds_fits_the_schema(status: Status) -> None:
    manifest = status_to_manifest(status)
    crd.validator("status").validate(manifest)
    # What was cut is not cut again, or two passes would write two different things.
    assert status_to_manifest(status_from_manifest(manifest)) == manifest


@given(specs.odd_specs())
@SLOW
def test_no_manifest_makes_the_status_parser_raise(manifest: Manifest) -> None:
    status_from_manifest({"rollout": manifest, "conditions": [manifest], "stable": manifest, **manifest})


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_utc_calendar_holds_is_unusable_and_no_crash(time: str) -> None:
    with pytest.raises(ValueError, match="before the year 1 or after the year 9999"):
        parse_time(time)
    assert status_from_manifest({"stable": {"revision": "a", "since": time}}).stable is None


def test_names_are_camel_case_and_times_have_microseconds() -> None:
    manifest = status_to_manifest(
        Status(observed_generation=3, rollout=rollout(programmed_time=NOON + timedelta(microseconds=5)))
    )
    assert manifest["observedGeneration"] == 3
    assert manifest["rollout"]["programmedTime"] == "2026-11-21T12:00:00.000005Z"


def test_what_is_empty_is_left_out() -> None:
    assert status_to_manifest(Status()) == {
        "observedGeneration": 0, "phase": "Pending", "replicas": 0, "readyReplicas": 0,
        "step": "-", "weight": "-", "verdict": "-",
    }  # fmt: skip


def test_an_absent_status_is_the_default_one() -> None:
    assert status_from_manifest({}) == Status()


def test_fields_of_a_newer_operator_are_ignored() -> None:
    manifest = {"phase": "Baking", "novelty": {"a": 1}, "stable": {"revision": "r", "since": format_time(NOON), "x": 1}}
    status = status_from_manifest(manifest)
    assert (status.phase, status.stable) == (Phase.BAKING, RevisionStatus("r", "", NOON))


def test_unusable_values_count_as_absent() -> None:
    status = status_from_manifest(
        {
            "phase": "Dancing",
            "observedGeneration": "3",
            "replicas": True,
            "stable": {"revision": "r", "since": "yesterday"},
            "history": "none",
            "conditions": [{"type": "Ready"}, 3],
        }
    )
    assert status == Status()


def test_a_message_that_is_too_long_ends_with_an_ellipsis() -> None:
    manifest = status_to_manifest(Status(reason="x" * 2000))
    assert len(manifest["reason"]) == MESSAGE_LIMIT
    assert manifest["reason"].endswith("x…")


def test_of_a_timeline_that_is_too_long_the_newest_entries_stay() -> None:
    entries = tuple(TimelineEntry(NOON + timedelta(seconds=second), 10, "r") for second in range(30))
    manifest = status_to_manifest(Status(rollout=rollout(timeline=entries)))
    times = [entry["time"] for entry in manifest["rollout"]["timeline"]]
    assert times == [format_time(entry.time) for entry in entries[-TIMELINE_LIMIT:]]


def test_a_value_that_json_does_not_have_is_left_out() -> None:
    gate = GateStatus("g", Verdict.NO_DATA, canary=float("nan"), stable=float("inf"))
    [manifest] = status_to_manifest(Status(rollout=rollout(gates=(gate,))))["rollout"]["gates"]
    assert "canary" not in manifest
    assert "stable" not in manifest


def test_times_of_other_zones_are_written_in_utc() -> None:
    assert format_time(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-11-21T12:00:00.000000Z"
    assert parse_time("2026-11-21T13:00:00+01:00") == NOON


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        format_time(datetime(2026, 11, 21))  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        parse_time("2026-11-21T12:00:00")


def test_a_condition_is_found_by_its_type() -> None:
    ready = Condition("Ready", "True", "Serving", "", NOON, 1)
    assert status_from_manifest(status_to_manifest(Status(conditions=(ready,)))).condition("Ready") == ready
