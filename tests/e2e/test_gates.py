"""Each gate fires on a revision that is really bad in that way, and on no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lab.kube import Manifest
from lab.line import Line
from lab.service import GATES, Service, revision_of
from lab.traffic import Summary, Traffic
from tests.support import expect

Account = Callable[[str, Summary], None]


def gate(name: str, above: str = "", below: str = "", **more: Any) -> Manifest:
    """A gate that fails at once, in two measurements in a row, with a limit on one side."""
    bound = {"above": above} if above else {"below": below}
    return {"name": name, "abort": {**bound, "forSeconds": 0, "consecutive": 2}, **more}


FIRING: list[Any] = [
    pytest.param("forgetful", {}, [gate("cache-hit-rate", below="0.5", minSamples=20)], "cache-hit-rate",
                 id="a-cache-that-never-knows-anything"),
    pytest.param("fallbacks", {"share": 0.5}, [gate("fallback-rate", above="0.2", minSamples=20)], "fallback-rate",
                 id="half-of-the-options-priced-by-the-fallback"),
    pytest.param("refusals", {"share": 0.6}, [], "error-rate", id="valid-quotes-refused-with-400"),
    pytest.param("sleep", {"share": 0.1, "seconds": 3}, [], "latency-p95", id="one-request-in-ten-takes-3-seconds"),
    pytest.param("bloat", {"megabytes": 600}, [gate("memory", above="900M", action="RollBack")], "memory",
                 id="more-memory-than-the-limit-of-the-gate"),
]  # fmt: skip


class TestFiringGates:
    """One PINNService, tried with one bad revision after the other."""

    TENSORFLOW = True

    @pytest.mark.parametrize(("kind", "how", "gates", "fires"), FIRING)
    def test_the_gate_rolls_back_what_is_bad_in_its_way(
        self, kind: str, how: dict[str, Any], gates: Sequence[Manifest], fires: str, line: Line, service: Service,
        stable: str, traffic: Traffic, account: Account,
    ) -> None:  # fmt: skip
        before = service.untouched(stable)
        bad = _at_50(service, line, {"TRY": kind}, gates)
        began = service.turn_bad(bad, kind, **how)
        status = service.wait_phase("RolledBack", seconds=150)
        record = status["lastRollback"]
        expect.rolled_back(service, stable=stable, bad=bad, reasons={record["reason"]}, untouched=before)
        account(f"{kind} {how}, after {time.time() - began:.1f} s: {record['message']}", traffic.summary(began))
        # A slow tenth may be seen by either latency gate first.
        assert record["gate"] == fires or (fires.startswith("latency") and record["gate"].startswith("latency")), record


class TestQuietGates:
    """A good revision under every built-in gate."""

    TENSORFLOW = True

    def test_no_gate_fires_on_a_good_revision_and_each_shows_what_it_saw(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        gates = [
            gate("cache-hit-rate", below="0.01", minSamples=20),
            gate("fallback-rate", above="0.2", minSamples=20),
            gate("memory", above="1900M"),
            gate("memory-growth", above="5G"),
            gate("availability", below="0.5"),
            gate("cpu-usage", above="0.98"),
            gate("prediction-spread", below="0.0001"),
            gate("router-errors", above="0.5", minSamples=20),
        ]
        measured = (
            "error-rate",
            "latency-p95",
            "fallback-rate",
            "memory",
            "prediction-spread",
            "availability",
            "router-errors",
        )
        _at_50(service, line, {"TRY": "good"}, gates, hold=40, router="Contour")
        seen: dict[str, Manifest] = {}

        def shown(status: Manifest) -> bool:
            seen.update({item["name"]: item for item in (status.get("rollout") or {}).get("gates", [])})
            return all(seen.get(name, {}).get("verdict") == "Pass" for name in measured)

        service.wait("showing what its gates saw", shown, seconds=40)
        account(f"{ {name: item['message'] for name, item in seen.items()} }", traffic.summary())
        assert {item["name"] for item in gates} <= set(seen)
        for name in measured:
            assert seen[name].get("canary") is not None, seen[name]
        assert service.wait_stable(other_than=stable)
        assert traffic.summary().failed == 0


class TestCacheResets:
    """Memory above its limit: the caches are reset first, and the revision goes only if that did not help."""

    TENSORFLOW = True
    MEMORY = gate("memory", above="1100M", action="ResetCaches", recheckSeconds=10, severity="P2")

    def test_a_reset_that_helps_keeps_the_revision(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        bad = _at_50(service, line, {"TRY": "helps"}, [self.MEMORY], hold=25)
        service.turn_bad(bad, "bloated cache", megabytes=700)
        assert service.wait_stable(other_than=stable) == bad
        account("a reset that helps", traffic.summary())
        assert traffic.summary().failed == 0
        assert any("Reset" in reason for reason, _ in service.events()), service.events()

    def test_a_reset_that_does_not_help_ends_in_a_rollback(
        self, line: Line, service: Service, stable: str, traffic: Traffic, account: Account
    ) -> None:
        serving = revision_of(service.status(), "stable")
        bad = _at_50(service, line, {"TRY": "does not help"}, [self.MEMORY], hold=60)
        began = service.turn_bad(bad, "bloat", megabytes=700)
        record = service.wait_phase("RolledBack", seconds=60)["lastRollback"]
        account(f"after {time.time() - began:.1f} s: {record['message']}", traffic.summary(began))
        assert (record["gate"], record["revision"]) == ("memory", bad)
        assert revision_of(service.status(), "stable") == serving


def _at_50(
    service: Service, line: Line, env: dict[str, str], gates: Sequence[Manifest], *, hold: int = 150, router: str = ""
) -> str:
    """A revision of the derived image that is good so far and has half of the traffic."""
    rejected = revision_of(service.status(), "canary")
    names = {item["name"] for item in gates}
    merged = [*(item for item in GATES if item["name"] not in names), *gates]
    analysis: Manifest = {"gates": merged} | ({"routerMetrics": router} if router else {})
    service.apply(
        image=line.images.faulty, env=env, steps=((50, hold), (100, 2)), analysis=analysis, limits={"memory": "2Gi"}
    )
    service.wait("trying it", lambda status: revision_of(status, "canary") not in ("", rejected))
    service.wait_weight(50)
    return revision_of(service.status(), "canary")
