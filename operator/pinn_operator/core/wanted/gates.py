"""The list `spec.analysis.gates`."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.metrics import METRICS, Better, Unit
from pinn_operator.core.wanted.profiles import gates_of, merge_gates
from pinn_operator.core.wanted.serving import DNS_LABEL
from pinn_operator.core.wanted.spec import (
    Bound,
    Gate,
    Profile,
    Relative,
    Severity,
)

GATE_LIMIT: Final = 32
BUILT_IN_NAMES: Final = ", ".join(METRICS)
COMPARABLE_NAMES: Final = ", ".join(name for name, metric in METRICS.items() if metric.comparable)


def parse_gates(analysis: Fields, profile: Profile) -> tuple[Gate, ...]:
    profiled = {gate.name: gate for gate in gates_of(profile)}
    changed = []
    for item in analysis.children("gates", items=GATE_LIMIT, key="name"):
        name = item.text("name", limit=63, pattern=DNS_LABEL, expected="a name like latency-p95 or desk-drift")
        query = item.optional_text("query", limit=4096)
        built_in = name in METRICS
        if query is not None and not query.strip():
            item.fault("query", "must be PromQL that gives one number, not an empty string")
        if built_in and query is not None:
            item.fault("query", f"{name} is built in and has its own query: remove this one, or choose another name")
        if not built_in and query is None:
            item.fault("query", f"{name or 'this gate'} is not built in and needs one (built in: {BUILT_IN_NAMES})")
        changed.append(_gate(item, profiled.get(name, Gate(name, name if built_in else None)), query))
        item.close()
    return merge_gates(profile, tuple(changed))


def _gate(item: Fields, base: Gate, query: str | None) -> Gate:
    advance = _bound(item.child("advance"), base.advance, durable=False)
    abort = _bound(item.child("abort"), base.abort, durable=True)
    relative = item.child("relative")
    comparable = base.metric is not None and METRICS[base.metric].comparable
    if relative is not None and not comparable and (base.metric or query is not None):
        item.fault("relative", f"only {COMPARABLE_NAMES} are compared with stable; use advance and abort")
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
    """Sides that do not fit together: a built-in metric has its good side, and good and bad must not overlap."""
    advance, abort = _written(item, "advance", gate.advance), _written(item, "abort", gate.abort)
    if gate.metric is not None:
        less = METRICS[gate.metric].better is Better.LESS
        good, bad = ("below", "above") if less else ("above", "below")
        word = "less" if less else "more"
        if advance and getattr(advance, bad) is not None:
            item.fault(f"advance.{bad}", f"of {gate.name} {word} is better: use {good}")
        if abort and getattr(abort, good) is not None:
            item.fault(f"abort.{good}", f"of {gate.name} {word} is better: use {bad}")
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
    latency = base.metric is not None and METRICS[base.metric].unit is Unit.SECONDS
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
