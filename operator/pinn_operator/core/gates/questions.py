"""Which PromQL a pass asks. Pure: the same state and moment give the same questions.

Revisions are told apart by pod name (`<name>-<revision>-…`), so the usual `namespace` and `pod` target labels suffice
and no relabelling is asked of the team's Prometheus.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pinn_operator.core.api import Resource
from pinn_operator.core.samples import Query
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.values import Phase, RolloutStatus
from pinn_operator.core.wanted.spec import Analysis, Gate

REQUESTS_LATEST = "requests-latest"
REQUESTS_RECENT = "requests-recent"
REQUESTS_WHOLE = "requests-whole"
LATENCY_RECENT = "latency-recent"
LATENCY_WHOLE = "latency-whole"
STILL_COUNTS = "still-counts"
STILL_SCRAPES = "still-scrapes"

LATEST_SECONDS = 6.0
"""The window in which the first errors of a canary that has just turned bad are not yet diluted by earlier requests."""
RECENT_SECONDS = 120.0
"""The window in which a sudden fault is looked for; the whole time at a weight is judged beside it."""
LATENCY_RECENT_SECONDS = 60.0
_LATEST_POINTS = 6
_RECENT_POINTS = 24
_WHOLE_POINTS = 40
_STILL_POINTS = 60

_REQUESTS = "http_requests_total"
_LATENCY = "pinn_inference_latency_seconds_bucket"
_NOT_PROBES = 'handler!~"/health.*|/metrics|/cache/.*|/docs|/openapi.json|/v2/health/.*|/v2/models/.*/ready"'


def due(situation: Situation, now: datetime) -> tuple[Query, ...]:
    """The queries this pass needs: gates while the canary has weight, proof of silence after it has lost it."""
    resource, spec = situation.resource, situation.spec
    if spec is None:
        return ()
    analysis, status = spec.analysis, resource.status
    rollout = status.rollout
    if rollout is None or status.stable is None:
        return ()
    if status.phase is Phase.PROMOTING and status.previous is not None:
        return _stillness(resource, status.previous.revision, rollout, now)
    if status.canary is None:
        return ()
    if status.phase is Phase.ROLLING_BACK:
        return () if rollout.still_time else _stillness(resource, status.canary.revision, rollout, now)
    if rollout.weight == 0 or rollout.programmed_time is None or now <= rollout.programmed_time:
        return ()
    return _gates(resource, analysis, rollout, status.stable.revision, status.canary.revision, now)


def _gates(
    resource: Resource, analysis: Analysis, rollout: RolloutStatus, stable: str, canary: str, now: datetime
) -> tuple[Query, ...]:
    start = rollout.programmed_time
    assert start is not None
    span = (now - start).total_seconds()
    pods = _selector(resource, stable, canary)
    queries: list[Query] = []
    metrics = {gate.metric for gate in analysis.gates if gate.metric is not None}
    if metrics:
        # The requests are counted for every built-in gate: they give the observed share.
        requests = f"sum by (pod, status) ({_REQUESTS}{{{pods},{_NOT_PROBES}}})"
        latest_start = max(start, now - timedelta(seconds=LATEST_SECONDS))
        queries.append(_range(REQUESTS_LATEST, requests, latest_start, now, _LATEST_POINTS))
        recent_start = max(start, now - timedelta(seconds=RECENT_SECONDS))
        queries.append(_range(REQUESTS_RECENT, requests, recent_start, now, _RECENT_POINTS))
        if span > RECENT_SECONDS:
            queries.append(_range(REQUESTS_WHOLE, requests, start, now, _WHOLE_POINTS))
    if any(metric.startswith("latency-") for metric in metrics):
        recent = min(span, LATENCY_RECENT_SECONDS)
        queries.append(_latency(LATENCY_RECENT, pods, recent, now))
        if span > recent:
            queries.append(_latency(LATENCY_WHOLE, pods, span, now))
    queries.extend(
        Query(key=own_key(gate), expression=render(gate.query, resource, stable, canary, span), end=now)
        for gate in analysis.gates
        if gate.query is not None
    )
    return tuple(queries)


def own_key(gate: Gate) -> str:
    """The `Query.key` of a team's own gate."""
    return f"gate/{gate.name}"


def render(template: str, resource: Resource, stable: str, canary: str, span: float) -> str:
    """Fill `{{ canary }}`, `{{ stable }}`, `{{ name }}`, `{{ namespace }}`, `{{ window }}` of a team's PromQL."""
    values = {
        "canary": canary,
        "stable": stable,
        "name": resource.name,
        "namespace": resource.namespace,
        "window": f"{max(1, round(span))}s",
    }
    for key, value in values.items():
        template = template.replace("{{ " + key + " }}", value).replace("{{" + key + "}}", value)
    return template


def _stillness(resource: Resource, revision: str, rollout: RolloutStatus, now: datetime) -> tuple[Query, ...]:
    start = rollout.programmed_time
    if start is None or now <= start:
        return ()
    series = f"{_REQUESTS}{{{_selector(resource, revision)},{_NOT_PROBES}}}"
    begin = max(start, now - timedelta(seconds=_STILL_POINTS))
    return (
        _range(STILL_COUNTS, f"sum by (pod) ({series})", begin, now, _STILL_POINTS),
        Query(key=STILL_SCRAPES, expression=f"min by (pod) (timestamp({series}))", end=now),
    )


def _selector(resource: Resource, *revisions: str) -> str:
    # Exactly the two parts that a Deployment's pods append: "eu-42e41f50" may also be the name of another PINNService.
    return f'namespace="{resource.namespace}",pod=~"{resource.name}-({"|".join(revisions)})-[^-]+-[^-]+"'


def _range(key: str, expression: str, start: datetime, end: datetime, points: int) -> Query:
    step = max(0.25, (end - start).total_seconds() / points)
    # The grid is laid from its end, so that the newest scrape is always in it.
    count = int((end - start).total_seconds() / step)
    return Query(key=key, expression=expression, start=end - timedelta(seconds=count * step), end=end, step=step)


def _latency(key: str, pods: str, seconds: float, now: datetime) -> Query:
    window = f"{max(1000, round(seconds * 1000))}ms"
    return Query(key=key, expression=f"sum by (pod, le) (increase({_LATENCY}{{{pods}}}[{window}]))", end=now)
