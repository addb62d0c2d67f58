"""The list `spec.analysis.gates`."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.metrics import METRICS, Better, Unit
from pinn_operator.core.wanted.profiles import gates_of, merge_gates
from pinn_operator.core.wanted.queries import parse_query
from pinn_operator.core.wanted.serving import DNS_LABEL
from pinn_operator.core.wanted.spec import (
    Bound,
    Gate,
    GateAction,
    Profile,
    Relative,
    Severity,
    Webhook,
)
from pinn_operator.core.wanted.webhook import parse_webhook

GATE_LIMIT: Final = 32
BUILT_IN_NAMES: Final = ", ".join(METRICS)
COMPARABLE_NAMES: Final = ", ".join(name for name, metric in METRICS.items() if metric.comparable)
SHARES: Final = tuple(name for name, metric in METRICS.items() if metric.unit is Unit.SHARE)
"""Their bounds lie from 0 to 1."""
LONGEST_SECONDS: Final = 60.0
"""No answer to a client takes longer: 260 is a bound of 260 ms, written without its unit."""
SMALLEST_MEMORY: Final = 1_000_000
"""Bytes. A bound below it is a slip: 1800m are 1.8 bytes, 1800M are 1.8 gigabytes."""
SMALLEST_GROWTH: Final = 1_000
"""Bytes per hour."""
_BUILT_IN_ONLY: Final = (
    ("minSamples", "is for built-in metrics: a value that the query gives is always taken as evidence"),
    ("required", "is for built-in metrics: without an answer a custom gate always holds"),
)


def parse_gates(analysis: Fields, profile: Profile) -> tuple[Gate, ...]:
    profiled = {gate.name: gate for gate in gates_of(profile)}
    changed = []
    for item in analysis.children("gates", items=GATE_LIMIT, key="name"):
        name = item.text("name", limit=63, pattern=DNS_LABEL, expected="a name like latency-p95 or desk-drift")
        query, webhook = parse_query(item), parse_webhook(item.child("webhook"))
        custom = item.has("query") or item.has("webhook")
        if name in METRICS:
            for field in ("query", "webhook"):
                if item.has(field):
                    item.fault(
                        field, f"{name} is built in and has its own query: remove this one, or choose another name"
                    )
        elif item.has("query") and item.has("webhook"):
            item.fault("webhook", "must not be set together with query: keep one of the two")
        elif not custom:
            item.fault(
                "query",
                f"{name or 'this gate'} is not built in and needs one, or a webhook (built in: {BUILT_IN_NAMES})",
            )
        base = profiled.get(name, Gate(name, name if name in METRICS else None))
        changed.append(_gate(item, base, query, webhook))
        item.close()
    return merge_gates(profile, tuple(changed))


def _gate(item: Fields, base: Gate, query: str | None, webhook: Webhook | None) -> Gate:
    custom, asked = item.has("query") or item.has("webhook"), item.has("webhook")
    advance = _bound(item.child("advance"), base.advance, sided=True, durable=False)
    abort = _bound(item.child("abort"), Bound() if asked else base.abort, sided=not asked, durable=True)
    relative = item.child("relative")
    if custom:
        for field, message in _BUILT_IN_ONLY:
            if item.has(field):
                item.fault(field, message)
    if asked and item.has("advance"):
        item.fault("advance", "is not for a webhook, which answers pass, fail or hold itself")
    comparable = base.metric is not None and METRICS[base.metric].comparable
    if relative is not None and not comparable and (base.metric or custom):
        item.fault("relative", f"only {COMPARABLE_NAMES} are compared with stable; use advance and abort")
    gate = Gate(
        name=base.name,
        metric=base.metric,
        query=query,
        webhook=webhook,
        advance=advance,
        abort=abort,
        relative=_relative(relative, base),
        min_samples=item.integer("minSamples", minimum=1, maximum=1_000_000, default=base.min_samples),
        severity=item.choice("severity", Severity, default=base.severity),
        action=item.choice("action", GateAction, default=base.action),
        recheck_seconds=item.integer("recheckSeconds", minimum=10, maximum=3600, default=base.recheck_seconds),
        dry_run=item.boolean("dryRun", default=base.dry_run),
        required=item.boolean("required", default=base.required),
    )
    # A built-in gate may have the action from its profile.
    chosen = custom or item.has("action")
    if item.has("recheckSeconds") and chosen and gate.action is not GateAction.RESET_CACHES:
        item.fault("recheckSeconds", f"is for action {GateAction.RESET_CACHES} only")
    judges = gate.advance or gate.abort or (gate.relative and gate.relative.enabled)
    if not judges and (base.metric or query) and not (base.advance or base.abort or base.relative):
        item.fault("", f"judges nothing: give {base.name} an advance or an abort bound")
    _check_direction(item, gate)
    _check_range(item, gate)
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


def _check_range(item: Fields, gate: Gate) -> None:
    """A bound that is a slip of the unit would never be reached, or always."""
    for name, bound in (
        ("advance", _written(item, "advance", gate.advance)),
        ("abort", _written(item, "abort", gate.abort)),
    ):
        for side in ("above", "below"):
            value = getattr(bound, side, None)
            if value is None:
                continue
            if gate.metric in SHARES and not 0 <= value <= 1:
                item.fault(f"{name}.{side}", f'{gate.name} is a share from 0 to 1, like "0.8" for 80 %, not {value:g}')
            seconds = gate.metric is not None and METRICS[gate.metric].unit is Unit.SECONDS
            if seconds and not 0 <= value <= LONGEST_SECONDS:
                item.fault(
                    f"{name}.{side}", f"{gate.name} is in seconds, from 0 to 60, like 260m for 260 ms, not {value:g}"
                )
            if gate.metric == "memory" and value < SMALLEST_MEMORY:
                item.fault(f"{name}.{side}", f"memory is in bytes, like 1800M or 2Gi, not {value:g}")
            if gate.metric == "memory-growth" and value < SMALLEST_GROWTH:
                item.fault(f"{name}.{side}", f"memory-growth is in bytes per hour, like 10M, not {value:g}")


def _written(item: Fields, name: str, bound: Bound | None) -> Bound | None:
    return bound if item.has(name) else None


def _bound(fields: Fields | None, base: Bound | None, *, sided: bool, durable: bool) -> Bound | None:
    if fields is None:
        return base
    above, below = fields.quantity("above"), fields.quantity("below")
    if not sided:
        if fields.has("above") or fields.has("below"):
            fields.fault("", "must have neither above nor below: the webhook says itself what fails")
    elif fields.has("above") == fields.has("below"):
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
            fields.fault(name, "is for latencies only; of other metrics set margin")
    # A record of an earlier version may have it: analysis.confidence has taken its place, for all gates together.
    fields.raw("confidence")
    parsed = Relative(
        enabled=fields.boolean("enabled", default=start.enabled),
        margin=_share(fields, "margin", start.margin, "0", "1", 'at least 0 and below 1, like "0.01"', least=True),
        tolerance=_share(
            fields, "tolerance", start.tolerance, "1", "100", 'at least 1 and below 100, like "1.5"', least=True
        ),
        ratio=_share(fields, "ratio", start.ratio, "1", "100", 'above 1 and below 100, like "2"'),
        floor=_share(fields, "floor", start.floor, "0", "3600", 'seconds above 0 and below 3600, like "100m"'),
    )
    fields.close()
    return parsed


def _share(
    fields: Fields, name: str, default: float, low: str, high: str, expected: str, *, least: bool = False
) -> float:  # fmt: skip
    """A quantity above `low`, or with `least` equal to it, and below `high`."""
    value = fields.quantity(name)
    if value is None:
        return default
    if not (Decimal(low) < value or (least and Decimal(low) == value)) or not value < Decimal(high):
        fields.fault(name, f"must be {expected}, not {value}")
    return float(value)
