"""What must hold after a rollout, a rollback, or any history of weights, as assertions that say what broke."""

from __future__ import annotations

import time
from collections.abc import Collection
from itertools import pairwise

from lab.kube import Manifest, wait_until
from lab.service import Chronicle, Service, revision_of
from lab.traffic import Traffic

ROUTER_SECONDS = 1.0
"""How long after a change of the route its old weights may still be in force (at most 0.6 s were measured)."""


def rolled_back(
    service: Service, *, stable: str, bad: str, reasons: Collection[str], untouched: dict[str, int], seconds: float = 90
) -> Manifest:
    """The bad revision was condemned for one of the reasons, has no traffic and no pods, and is not tried again."""
    status = service.wait_phase("RolledBack", seconds=seconds)
    record: Manifest = status["lastRollback"]
    assert record["revision"] == bad, record
    assert record["reason"] in reasons, record
    assert record["message"], "the rollback says nothing of why"
    assert [entry["weight"] for entry in record["timeline"]][-1] == 0, record["timeline"]
    assert revision_of(status, "stable") == stable
    assert service.route_weight() == 0
    assert service.untouched(stable) == untouched, "the stable revision's pods were touched"
    # The status is committed before it is acted on.
    wait_until("the rejected revision has no replicas", lambda: service.replicas(bad) == 0, seconds=10)
    reasons_told = [reason for reason, _ in service.events()]
    assert record["reason"] in reasons_told, f"no event tells of {record['reason']}: {reasons_told}"
    assert service.condition("Ready") == "True", "stable serves, so the resource is Ready"
    return record


def not_retried(service: Service, manifest: Manifest, *, bad: str, seconds: float = 3.0) -> None:
    """Applying the rejected revision again, and waiting, brings none of it back."""
    service.kube.apply(manifest)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert service.route_weight() == 0, "a rejected revision got weight again"
        assert service.replicas(bad) == 0, "a rejected revision got pods again"
        time.sleep(0.3)
    assert service.status()["phase"] == "RolledBack"


def weights_rose_on_evidence(chronicle: Chronicle, traffic: Traffic, *, least: int) -> None:
    """Before each rise from a weight above 0, the clients had got at least so many right answers at that weight.

    This does not ask the operator: the weights are the route's, the answers are the clients'.
    """
    routes = chronicle.routes
    for before, after in pairwise(routes):
        if 0 < before.canary < after.canary:
            rollout = next(seen for seen in reversed(chronicle.seen) if seen.canary and seen.time <= after.time + 1)
            records = traffic.records(before.time, after.time)
            right = sum(1 for record in records if record.revision == rollout.canary and not record.failure)
            assert right >= least, f"weight rose {before.canary} → {after.canary} after {right} right answers"


def never_above(chronicle: Chronicle, weight: int, *, since: float = 0.0) -> None:
    """The route never gave the canary more than this."""
    seen = [route for route in chronicle.routes if route.time >= since]
    assert all(route.canary <= weight for route in seen), seen


def shares_follow_weights(
    chronicle: Chronicle, traffic: Traffic, *, canary: str, points: float, least: int
) -> dict[int, float]:
    """The canary's share of the answers at each weight of the route, in percent; fails if one is off by more points."""
    shares: dict[int, float] = {}
    routes = [*chronicle.routes, None]
    for now, later in pairwise(routes):
        if now is None or not 0 < now.canary < 100:
            continue
        until = later.time if later is not None else float("inf")
        summary = traffic.summary(now.time + ROUTER_SECONDS, until)
        assert summary.requests >= least, f"only {summary.requests} requests at weight {now.canary}"
        share = shares[now.canary] = summary.share(canary)
        off = abs(share - now.canary)
        assert off <= points, f"weight {now.canary}, but {share:.2f} % of {summary.requests} answers"
    return shares
