"""The columns of `kubectl get pinnservices`."""

from __future__ import annotations

from collections.abc import Mapping

from pinn_operator.core.reasons import Reason
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.status.values import WATCHED, Phase, Status, Verdict
from pinn_operator.core.telling.conditions import Row
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.phrases import what_goes_on, worst
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import InvalidSpec, Spec

REASON_LIMIT = 80
"""Characters of the column REASON: a table must fit a terminal. The whole text is in the conditions."""
_UNMEASURED = "-"
_ABNORMAL = ("Stalled", "Degraded", "Paused")
_TOLD = ("Stalled", "Degraded", "Paused", "MetricsAvailable", "TrafficProgrammed")
"""Conditions that the column shows when they are bad, the most important first."""


def step_column(status: Status, spec: Spec) -> str:
    """`2/3`."""
    if status.rollout is None or status.phase not in WATCHED:
        return _UNMEASURED
    return f"{min(status.rollout.step_index, len(spec.steps) - 1) + 1}/{len(spec.steps)}"


def weight_column(status: Status) -> str:
    """`50/48.9`: percent as wanted and as measured."""
    rollout = status.rollout
    if status.phase is Phase.ROLLED_BACK:
        return "0/0"
    if rollout is None or status.phase is Phase.PROMOTING:
        return _UNMEASURED
    if rollout.weight == 0 and rollout.still_time is not None:
        return "0/0"
    share = "?" if rollout.observed_share is None else f"{rollout.observed_share:g}"
    return f"{rollout.weight}/{share}"


def verdict_column(status: Status) -> str:
    """The worst verdict of the gates."""
    if status.rejected is not None:
        return Verdict.FAIL.value
    if status.rollout is None or status.phase not in WATCHED:
        return _UNMEASURED
    gate = worst(status.rollout.gates)
    return gate.verdict.value if gate and status.rollout.weight > 0 else _UNMEASURED


def reason_column(facts: Facts, rows: Mapping[str, Row]) -> str:
    """Why it is as it is, in one line."""
    return cut(" ".join(_reason(facts, rows).split()), REASON_LIMIT)


def invalid_column(spec: InvalidSpec) -> str:
    """The fault of a spec; of several faults their fields."""
    if len(spec.errors) == 1:
        return cut(f"InvalidSpec: {spec.errors[0]}", REASON_LIMIT)
    return cut("InvalidSpec: " + ", ".join(error.path for error in spec.errors), REASON_LIMIT)


def _reason(facts: Facts, rows: Mapping[str, Row]) -> str:
    status, invalid = facts.status, facts.resource.spec
    for name in _TOLD:
        row = rows.get(name)
        if row is None or (row[0] == "True") != (name in _ABNORMAL):
            continue
        if name == "Stalled" and isinstance(invalid, InvalidSpec):
            return invalid_column(invalid)
        if name == "Stalled" and status.rejected is not None:
            return f"{row[1]}: {status.rejected.message}"
        if name == "Paused":
            return f"{row[1]}: {what_goes_on(status)}"
        return f"{row[1]}: {row[2]}"
    if status.rejected is not None:
        return f"{status.rejected.reason}: {status.rejected.message}"
    wait = facts.wait_of(Gravity.NORMAL)
    if wait is not None and wait.reason not in (Reason.ANALYSIS, Reason.HOLD):
        return f"{wait.reason}: {wait.text}"
    if status.rollout is not None and status.rollout.weight > 0 and status.phase in WATCHED:
        gate = worst(status.rollout.gates)
        if gate is not None and gate.holds:
            return f"{gate.name}: {gate.message}"
        if gate is not None:
            return "all gates pass"
    return what_goes_on(status)
