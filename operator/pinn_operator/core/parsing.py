"""The `spec` of a manifest as a `Spec`, or every fault of it at once.

The same rules are in crds/pinnservices.yaml, where the API server applies them. This parser applies them again because
an object may be older than the CRD, and because a revision record keeps a spec that no API server looks at. What the
CRD accepts parses, and the defaults here are those of the CRD.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from pinn_operator.core.fields import Fields
from pinn_operator.core.profiles import gates_of, merge_gates
from pinn_operator.core.revision import serving_fields
from pinn_operator.core.serving import DNS_LABEL, DNS_SUBDOMAIN, check_serving
from pinn_operator.core.spec import (
    Analysis,
    Bound,
    FieldError,
    Gate,
    InvalidSpec,
    Manifest,
    Metric,
    ParentRef,
    Profile,
    Prometheus,
    Relative,
    Rollback,
    RollbackMode,
    RouterKind,
    Severity,
    Spec,
    Step,
    Traffic,
)

DEFAULT_STEPS: Final = (Step(10, 1800), Step(50, 3600), Step(100, 86400))
STEP_LIMIT: Final = 20
REPLICA_LIMIT: Final = 1000
GATE_LIMIT: Final = 32
SERVICE_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer")

_BUILT_IN: Final = tuple(metric.value for metric in Metric)
_BUILT_IN_NAMES: Final = ", ".join(_BUILT_IN)
PROMETHEUS_ADDRESS: Final = re.compile(
    r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
HOSTNAME: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PATH_PREFIX: Final = re.compile(r"/|(/[-A-Za-z0-9_~!$&()*+,;=:@][-A-Za-z0-9._~!$&()*+,;=:@]*)+/?")
_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")


def parse_spec(manifest: Manifest, *, path: str = "spec") -> Spec | InvalidSpec:
    """A `spec` as values, with defaults filled in; `InvalidSpec` with all faults at once when there are any.

    Never raises for bad input. `path` is how the object is called in the faults.
    """
    errors: list[FieldError] = []
    spec = Fields(manifest, path, errors)
    check_serving(spec)
    steps = _steps(spec.child_or_empty("strategy"))
    parsed = Spec(
        replicas=spec.integer("replicas", minimum=0, maximum=REPLICA_LIMIT, default=3),
        serving=serving_fields(manifest),
        steps=steps,
        traffic=_traffic(spec.child_or_empty("traffic")),
        analysis=_analysis(spec.child_or_empty("analysis")),
        rollback=_rollback(spec.child_or_empty("rollback")),
        paused=spec.boolean("paused", default=False),
    )
    spec.close()
    return InvalidSpec(tuple(errors)) if errors else parsed


def _steps(strategy: Fields) -> tuple[Step, ...]:
    strategy.one_of("type", ("Canary",), default="Canary")
    canary = strategy.child_or_empty("canary")
    strategy.close()
    if not canary.has("steps"):
        canary.raw("steps")
        canary.close()
        return DEFAULT_STEPS
    steps = []
    for item in canary.children("steps", items=STEP_LIMIT):
        steps.append(
            Step(
                weight=item.integer("weight", minimum=1, maximum=100),
                hold_seconds=item.integer("holdSeconds", minimum=0, maximum=604800),
            )
        )
        item.close()
    canary.close()
    if not steps:
        canary.fault("steps", "must have at least one step, the last one with weight 100")
        return DEFAULT_STEPS
    for index in range(1, len(steps)):
        if steps[index].weight <= steps[index - 1].weight:
            canary.fault(
                f"steps[{index}].weight",
                f"weights must rise from step to step: {steps[index].weight} follows {steps[index - 1].weight}",
            )
    if steps[-1].weight != 100:
        canary.fault(
            f"steps[{len(steps) - 1}].weight",
            f"the last step must have weight 100, not {steps[-1].weight}; its holdSeconds is the bake",
        )
    return tuple(steps)


def _traffic(traffic: Fields) -> Traffic:
    router = traffic.choice("router", RouterKind, default=RouterKind.REPLICAS)
    parents = []
    for item in traffic.children("parentRefs", items=8):
        parents.append(
            ParentRef(
                name=item.text("name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a Gateway, like edge"),
                namespace=item.text(
                    "namespace", limit=63, pattern=DNS_LABEL, expected="the namespace of the Gateway, always written"
                ),
                section_name=item.optional_text(
                    "sectionName", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a listener, like https"
                ),
                port=item.optional_integer("port", minimum=1, maximum=65535),
            )
        )
        item.close()
    parsed = Traffic(
        router=router,
        parent_refs=tuple(parents),
        hostnames=traffic.texts(
            "hostnames",
            items=16,
            limit=253,
            pattern=HOSTNAME,
            expected="a DNS name in lower case, like pricing.example.com or *.example.com",
        ),
        path_prefix=traffic.text(
            "pathPrefix",
            limit=1024,
            pattern=PATH_PREFIX,
            default="/",
            expected="a path like /pricing: it starts with /, has no empty part, and no part that starts with a dot",
        ),
        service_port=traffic.integer("servicePort", minimum=1, maximum=65535, default=80),
        service_type=traffic.one_of("serviceType", SERVICE_TYPES, default="ClusterIP") or "ClusterIP",
    )
    traffic.close()
    if router is RouterKind.HTTP_ROUTE:
        if not parsed.parent_refs:
            traffic.fault("parentRefs", "router HTTPRoute needs at least one Gateway: {name: edge, namespace: edge}")
        return parsed
    for name, value, absent in (
        ("parentRefs", parsed.parent_refs, ()),
        ("hostnames", parsed.hostnames, ()),
        ("pathPrefix", parsed.path_prefix, "/"),
    ):
        if value != absent:
            traffic.fault(name, f"router {router} has no use for it: remove it, or set router to HTTPRoute")
    return parsed


def _analysis(analysis: Fields) -> Analysis:
    profile = analysis.choice("profile", Profile, default=Profile.STANDARD)
    interval = analysis.integer("intervalSeconds", minimum=1, maximum=3600, default=30)
    abort_interval = analysis.integer("abortIntervalSeconds", minimum=1, maximum=60, default=2)
    if abort_interval > interval:
        analysis.fault(
            "abortIntervalSeconds", f"must be at most intervalSeconds, which is {interval}, not {abort_interval}"
        )
    parsed = Analysis(
        prometheus=_prometheus(analysis.child_or_empty("prometheus")),
        profile=profile,
        gates=_gates(analysis, profile),
        interval_seconds=interval,
        abort_interval_seconds=abort_interval,
        deadline_seconds=analysis.integer("deadlineSeconds", minimum=60, maximum=604800, default=3600),
    )
    analysis.close()
    return parsed


def _prometheus(prometheus: Fields) -> Prometheus:
    address = prometheus.optional_text(
        "address",
        limit=1024,
        pattern=PROMETHEUS_ADDRESS,
        expected="the address of a Prometheus server like http://prometheus.monitoring:9090, no credentials, no query",
    )
    token = prometheus.child("bearerTokenSecretRef")
    secret = None
    if token is not None:
        secret = (
            token.text("name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a Secret in this namespace"),
            token.text("key", limit=253, pattern=_SECRET_KEY, expected="a key of that Secret, like token"),
        )
        token.close()
        if address is None:
            prometheus.fault("bearerTokenSecretRef", "needs an address: the token is only ever sent to that server")
    parsed = Prometheus(
        address=address,
        timeout_seconds=prometheus.integer("timeoutSeconds", minimum=1, maximum=60, default=5),
        bearer_token_secret=secret,
    )
    prometheus.close()
    return parsed


def _gates(analysis: Fields, profile: Profile) -> tuple[Gate, ...]:
    profiled = {gate.name: gate for gate in gates_of(profile)}
    changed = []
    for item in analysis.children("gates", items=GATE_LIMIT, key="name"):
        name = item.text("name", limit=63, pattern=DNS_LABEL, expected="a name like latency-p95 or desk-drift")
        query = item.optional_text("query", limit=4096)
        built_in = name in _BUILT_IN
        if query is not None and not query.strip():
            item.fault("query", "must be PromQL that gives one number, not an empty string")
        if built_in and query is not None:
            item.fault("query", f"{name} is built in and has its own query: remove this one, or choose another name")
        if not built_in and query is None:
            item.fault("query", f"{name or 'this gate'} is not built in and needs one (built in: {_BUILT_IN_NAMES})")
        changed.append(_gate(item, profiled.get(name, Gate(name, Metric(name) if built_in else None)), query))
        item.close()
    return merge_gates(profile, tuple(changed))


def _gate(item: Fields, base: Gate, query: str | None) -> Gate:
    advance = _bound(item.child("advance"), base.advance, durable=False)
    abort = _bound(item.child("abort"), base.abort, durable=True)
    relative = item.child("relative")
    if relative is not None and query is not None:
        item.fault(
            "relative", f"only built-in metrics are compared with stable ({_BUILT_IN_NAMES}); use advance and abort"
        )
    if query is not None and item.has("minSamples"):
        item.fault("minSamples", "is for built-in metrics: a value that the query gives is always taken as evidence")
    gate = Gate(
        name=base.name,
        metric=base.metric,
        query=query,
        advance=advance,
        abort=abort,
        relative=_relative(relative, base),
        min_samples=item.integer("minSamples", minimum=1, maximum=1_000_000, default=base.min_samples),
        severity=item.choice("severity", Severity, default=base.severity),
    )
    judges = gate.advance or gate.abort or (gate.relative and gate.relative.enabled)
    if not judges and (base.metric or query) and not (base.advance or base.abort or base.relative):
        item.fault("", f"judges nothing: give {base.name} an advance or an abort bound")
    _check_direction(item, gate)
    return gate


def _check_direction(item: Fields, gate: Gate) -> None:
    """Sides that do not fit together: of a built-in metric less is better, and good and bad must not overlap."""
    advance, abort = _written(item, "advance", gate.advance), _written(item, "abort", gate.abort)
    if gate.metric and advance and advance.above is not None:
        item.fault("advance.above", f"of {gate.name} less is better: use below")
    if gate.metric and abort and abort.below is not None:
        item.fault("abort.below", f"of {gate.name} less is better: use above")
    if not (advance and abort):
        return
    if (advance.below is not None and abort.below is not None) or (
        advance.above is not None and abort.above is not None
    ):
        item.fault(
            "abort", "is on the good side: with advance.below use abort.above, with advance.above use abort.below"
        )
    if advance.below is not None and abort.above is not None and advance.below > abort.above:
        item.fault(
            "abort.above", f"must not be less than advance.below: {abort.above:g} is less than {advance.below:g}"
        )
    if advance.above is not None and abort.below is not None and advance.above < abort.below:
        item.fault(
            "abort.below", f"must not be more than advance.above: {abort.below:g} is more than {advance.above:g}"
        )


def _written(item: Fields, name: str, bound: Bound | None) -> Bound | None:
    return bound if item.has(name) else None


def _bound(fields: Fields | None, base: Bound | None, *, durable: bool) -> Bound | None:
    if fields is None:
        return base
    above, below = fields.quantity("above"), fields.quantity("below")
    if fields.has("above") == fields.has("below"):
        fields.fault("", 'must have exactly one of above and below, like {below: "0.01"}')
    for_seconds, consecutive = (base.for_seconds, base.consecutive) if base else (0, 1)
    if fields.has("forSeconds") or fields.has("consecutive"):
        # Who says how long a fault may last says it whole: the profile's other patience beside it would be a surprise.
        for_seconds, consecutive = 0, 1
    if durable:
        for_seconds = fields.integer("forSeconds", minimum=0, maximum=86400, default=for_seconds)
        consecutive = fields.integer("consecutive", minimum=1, maximum=100, default=consecutive)
    fields.close()
    return Bound(
        above=None if above is None else float(above),
        below=None if below is None else float(below),
        for_seconds=for_seconds,
        consecutive=consecutive,
    )


def _relative(fields: Fields | None, base: Gate) -> Relative | None:
    if fields is None:
        return base.relative
    start = base.relative or Relative()
    latency = base.metric is not None and base.metric.quantile is not None
    for name in ("ratio", "floor"):
        if fields.has(name) and not latency:
            fields.fault(name, f"is for latencies only; of {base.name} set margin")
    parsed = Relative(
        enabled=fields.boolean("enabled", default=start.enabled),
        margin=_share(fields, "margin", start.margin, "0", "1", 'above 0 and below 1, like "0.01"'),
        ratio=_share(fields, "ratio", start.ratio, "1", "100", 'above 1 and below 100, like "2"'),
        floor=_share(fields, "floor", start.floor, "0", "3600", 'seconds above 0 and below 3600, like "100m"'),
        confidence=_share(fields, "confidence", start.confidence, "0.5", "1", 'above 0.5 and below 1, like "0.999"'),
    )
    fields.close()
    return parsed


def _share(fields: Fields, name: str, default: float, low: str, high: str, expected: str) -> float:
    value = fields.quantity(name)
    if value is None:
        return default
    if not Decimal(low) < value < Decimal(high):
        fields.fault(name, f"must be {expected}, not {value}")
    return float(value)


def _rollback(rollback: Fields) -> Rollback:
    parsed = Rollback(
        mode=rollback.choice("mode", RollbackMode, default=RollbackMode.AUTO),
        scale_down_delay_seconds=rollback.integer("scaleDownDelaySeconds", minimum=0, maximum=86400, default=30),
        drain_seconds=rollback.integer("drainSeconds", minimum=1, maximum=3600, default=10),
        ready_deadline_seconds=rollback.integer("readyDeadlineSeconds", minimum=10, maximum=86400, default=600),
        unready_seconds=rollback.integer("unreadySeconds", minimum=1, maximum=3600, default=30),
        revision_history_limit=rollback.integer("revisionHistoryLimit", minimum=1, maximum=20, default=5),
    )
    rollback.close()
    return parsed
