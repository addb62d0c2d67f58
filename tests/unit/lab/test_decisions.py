"""The simulation behind the table of decisions: small enough for every run, with the operator's own rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import decisions
from benchmarks.decisions import (
    DEFAULTS,
    SCENARIOS,
    Batch,
    Operator,
    Parts,
    Rival,
    Scenario,
    Verdicts,
    simulate,
    worse_in_both,
    wrong,
)

ROLLOUTS = 20


def simulated(name: str) -> tuple[Scenario, Batch, np.random.Generator]:
    scenario = next(it for it in SCENARIOS if it.name == name)
    dice = np.random.default_rng(20261127)
    return scenario, simulate(scenario, ROLLOUTS, dice, 15), dice


def judged(name: str) -> tuple[float, Verdicts]:
    """The operator's share of wrong decisions, and its verdicts."""
    scenario, batch, dice = simulated(name)
    verdicts = Operator().judge(batch, dice)
    return wrong(scenario, verdicts), verdicts


def rivals(name: str) -> dict[str, float]:
    scenario, batch, _ = simulated(name)
    return {rival: wrong(scenario, Rival(rules).judge(batch)) for rival, rules in DEFAULTS.items()}


@pytest.mark.parametrize(
    "name",
    [
        "healthy", "cold caches", "upstream fault of 10 s", "clusters of mean 5",
        "scrape every 15 s, upstream fault of 30 s",
    ],
)  # fmt: skip
def test_a_good_revision_is_not_rolled_back(name: str) -> None:
    assert judged(name)[0] == 0


@pytest.mark.parametrize(
    ("name", "requests"),
    [("errors x4", 1500), ("errors x10", 300), ("one in ten slow", 100), ("p95 +100 %", 350)],
)
def test_a_bad_revision_is_rejected_by_little_evidence(name: str, requests: float) -> None:
    promoted, verdicts = judged(name)
    assert promoted == 0
    assert np.median(verdicts.requests) < requests


def test_a_leak_is_not_promoted() -> None:
    assert judged("memory leak 20 MB/h")[0] == 0


def test_fixed_limits_do_what_their_rules_say() -> None:
    assert rivals("upstream fault of 10 s")["Argo Rollouts, defaults"] > 0.9
    assert rivals("errors x2")["Argo Rollouts, defaults"] > 0.9
    assert rivals("errors x10") == {"Argo Rollouts, defaults": 0, "Flagger, defaults": 0}


def test_who_is_worse_in_both_columns_is_named() -> None:
    def rules(ours: float, theirs: float, key: str) -> dict[str, dict[str, float]]:
        return {"operator": {key: ours}, "other": {key: theirs}}

    good = {"scenario": "healthy", "bad": False, "rules": rules(0.1, 0.0, "goodRolledBack")}
    bad = {"scenario": "errors x4", "bad": True, "rules": rules(0.1, 0.0, "badPromoted")}
    fine = {"scenario": "errors x4", "bad": True, "rules": rules(0.0, 0.2, "badPromoted")}
    assert worse_in_both([good, bad]) == ["healthy: other", "errors x4: other"]
    assert worse_in_both([good, fine]) == []


@pytest.mark.parametrize(
    "name", ["upstream fault of 30 s", "scrape every 60 s, upstream fault of 30 s",
             "scrape every 0.5 s, upstream fault of 5 s in the bake",
             "scrape every 15 s, upstream fault of 30 s in the bake"],
)  # fmt: skip
def test_a_fault_upstream_neither_rejects_nor_holds(name: str) -> None:
    promoted, verdicts = judged(name)
    assert promoted == 0
    assert not verdicts.held.any()


def test_a_run_that_was_ended_goes_on_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "BATCH", 3)
    index = next(place for place, it in enumerate(SCENARIOS) if it.name == "errors x10")
    at_once, _ = Parts(None, 7, 15).verdicts(index, DEFAULTS, 6, float("inf"))
    Parts(tmp_path, 7, 15).verdicts(index, DEFAULTS, 3, float("inf"))
    later, seconds = Parts(tmp_path, 7, 15).verdicts(index, DEFAULTS, 6, float("inf"))
    assert seconds > 0
    for name, verdicts in at_once.items():
        assert verdicts.requests.tolist() == later[name].requests.tolist()
    nothing_more, _ = Parts(tmp_path, 7, 15).verdicts(index, DEFAULTS, 6, float("-inf"))
    assert len(nothing_more["operator"].held) == 6
