"""Metrics, liveness and readiness."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from aiohttp.test_utils import TestClient, TestServer

from pinn_operator.core.decision import Transition
from pinn_operator.core.status.values import Condition, Phase, RolloutStatus, Status
from pinn_operator.logs import JsonFormatter, TextFormatter
from pinn_operator.telemetry import HealthServer, Telemetry

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(**more: object) -> Status:
    conditions = (
        Condition("Ready", "True", "Serving", "", NOW, 1),
        Condition("MetricsAvailable", "False", "SourceError", "", NOW, 1),
    )
    rollout = RolloutStatus(start_time=NOW, step_index=1, weight=50, weight_time=NOW, observed_share=48.9)
    return Status(phase=Phase.PROGRESSING, conditions=conditions, rollout=rollout)


LABELS = {"namespace": "pricing", "service": "eu"}


def test_a_resource_is_shown_as_its_status_says() -> None:
    telemetry = Telemetry()
    telemetry.resource_seen("pricing", "eu", status())
    value = telemetry.registry.get_sample_value
    assert value("pinn_operator_phase", {**LABELS, "phase": "Progressing"}) == 1
    assert value("pinn_operator_ready", LABELS) == 1
    assert value("pinn_operator_stalled", LABELS) == 0
    assert value("pinn_operator_metrics_available", LABELS) == 0
    assert value("pinn_operator_canary_weight_percent", LABELS) == 50
    assert value("pinn_operator_canary_observed_percent", LABELS) == 48.9
    assert value("pinn_operator_weight_changed_timestamp_seconds", LABELS) == NOW.timestamp()
    assert value("pinn_operator_resources") == 1


def test_a_resource_without_rollout_has_no_share_and_lacks_no_metrics() -> None:
    telemetry = Telemetry()
    telemetry.resource_seen("pricing", "eu", Status(phase=Phase.STABLE))
    value = telemetry.registry.get_sample_value
    assert value("pinn_operator_metrics_available", LABELS) == 1
    assert value("pinn_operator_canary_weight_percent", LABELS) == 0
    assert value("pinn_operator_canary_observed_percent", LABELS) is None


def test_a_resource_that_is_gone_is_not_shown() -> None:
    telemetry = Telemetry()
    telemetry.resource_seen("pricing", "eu", status())
    telemetry.resource_gone("pricing", "eu")
    assert telemetry.registry.get_sample_value("pinn_operator_ready", LABELS) is None
    assert telemetry.registry.get_sample_value("pinn_operator_resources") == 0


def test_transitions_are_counted_and_rollbacks_by_reason() -> None:
    telemetry = Telemetry()
    telemetry.transition("pricing", "eu", Transition("promoted", "9d77e0aa", "AllPassed"))
    telemetry.transition("pricing", "eu", Transition("rolled_back", "9d77e0aa", "OutOfMemory"))
    value = telemetry.registry.get_sample_value
    assert value("pinn_operator_transitions_total", {**LABELS, "transition": "promoted"}) == 1
    assert value("pinn_operator_rollbacks_total", {**LABELS, "reason": "OutOfMemory"}) == 1
    assert value("pinn_operator_rollbacks_total", {**LABELS, "reason": "AllPassed"}) is None


def test_two_operators_in_one_process_count_apart() -> None:
    one, other = Telemetry(), Telemetry()
    one.watch_restarted()
    assert one.registry.get_sample_value("pinn_operator_watch_restarts_total") == 1
    assert other.registry.get_sample_value("pinn_operator_watch_restarts_total") == 0


async def test_alive_as_long_as_there_are_signs_of_life() -> None:
    clock = Clock()
    telemetry = Telemetry(clock=clock)
    server = HealthServer(telemetry, host="127.0.0.1", port=0, patience=120)
    async with TestClient(TestServer(server.application())) as client:
        assert (await client.get("/livez")).status == 200
        clock.now += 121
        answer = await client.get("/livez")
        assert answer.status == 503
        assert "121 s" in await answer.text()
        for sign in (
            telemetry.sign_of_life,
            lambda: telemetry.watch_event("pods"),
            lambda: telemetry.pass_ended("quiet", 0.1),
        ):
            clock.now += 121
            sign()
            assert (await client.get("/livez")).status == 200


async def test_ready_once_the_watches_are_there() -> None:
    telemetry = Telemetry()
    server = HealthServer(telemetry, host="127.0.0.1", port=0)
    async with TestClient(TestServer(server.application())) as client:
        assert (await client.get("/readyz")).status == 503
        telemetry.ready = True
        assert (await client.get("/readyz")).status == 200


async def test_metrics_are_served_as_prometheus_reads_them() -> None:
    telemetry = Telemetry()
    telemetry.api_call("LIST", "pods", "200", 0.01)
    telemetry.resource_seen("pricing", "eu", status())
    server = HealthServer(telemetry, host="127.0.0.1", port=0)
    async with TestClient(TestServer(server.application())) as client:
        answer = await client.get("/metrics")
        text = await answer.text()
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'pinn_operator_api_requests_total{code="200",resource="pods",verb="LIST"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert 'pinn_operator_phase{namespace="pricing",phase="Progressing",service="eu"} 1.0' in text


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("pinn_operator.loops", logging.WARNING, __file__, 1, message, (), None)
    made.__dict__.update(fields)
    return made


def test_a_log_line_is_one_json_object_with_the_named_fields() -> None:
    line = JsonFormatter().format(record("pass failed", namespace="pricing", service="eu", error="403"))
    document = json.loads(line)
    assert "\n" not in line
    assert document["message"] == "pass failed"
    assert (document["level"], document["namespace"], document["service"]) == ("warning", "pricing", "eu")


def test_what_is_not_named_is_not_logged() -> None:
    made = record("read", headers={"Authorization": "Bearer s3cr3t"}, body={"token": "s3cr3t"})
    assert "s3cr3t" not in JsonFormatter().format(made)
    assert "s3cr3t" not in TextFormatter().format(made)


def test_a_traceback_stays_within_its_line() -> None:
    try:
        int("broken")
    except ValueError:
        made = record("pass failed")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["traceback"]
