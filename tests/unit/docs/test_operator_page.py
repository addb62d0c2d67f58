"""docs/operator.md against the code: every flag and every metric is there, and nothing that is not."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from prometheus_client import generate_latest

from lab.kube import REPOSITORY
from pinn_operator.core.decision import Transition
from pinn_operator.core.status.values import RolloutStatus, Status
from pinn_operator.settings import ENVIRONMENT_PREFIX, _parser
from pinn_operator.telemetry import Telemetry

PAGE = (REPOSITORY / "docs" / "operator.md").read_text()
NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


def flags() -> set[str]:
    [commands] = [action for action in _parser()._actions if action.dest == "command"]
    assert isinstance(commands.choices, dict)
    return {option for action in commands.choices["run"]._actions for option in action.option_strings} - {
        "-h",
        "--help",
    }


def metrics() -> set[str]:
    """The names of all families once everything has happened."""
    telemetry = Telemetry()
    rollout = RolloutStatus(start_time=NOW, step_index=0, weight=10, weight_time=NOW, observed_share=9.8)
    telemetry.resource_seen("pricing", "eu", Status(rollout=rollout))
    telemetry.transition("pricing", "eu", Transition("rolled_back", "a1f3c2aa", "OOMKilled"))
    telemetry.watch_event("pods")
    families = re.findall(r"^# TYPE (\S+) ", generate_latest(telemetry.registry).decode(), re.MULTILINE)
    return {name for name in families if name.startswith("pinn_") and not name.endswith("_created")}


def test_every_flag_is_described_and_no_other() -> None:
    assert set(re.findall(r"^\| `(--[a-z-]+)`", PAGE, re.MULTILINE)) == flags()


def test_every_variable_is_named_after_its_flag() -> None:
    described = dict(re.findall(r"^\| `--([a-z-]+)`[^|]*\| `([A-Z_]+)`", PAGE, re.MULTILINE))
    described.pop("kubeconfig")
    for flag in re.findall(r"^\| `--([a-z-]+)` \(repeatable\)", PAGE, re.MULTILINE):
        described[flag] = described[flag].removesuffix("S")
    assert all(name == ENVIRONMENT_PREFIX + flag.upper().replace("-", "_") for flag, name in described.items())


def test_every_metric_is_described_and_no_other() -> None:
    described = {
        name for row in re.findall(r"^\| `pinn_.*?\|", PAGE, re.MULTILINE) for name in re.findall(r"pinn_\w+", row)
    }
    assert described == metrics()
