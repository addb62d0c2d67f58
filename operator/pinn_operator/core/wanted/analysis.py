"""The block `spec.analysis` but for its gates."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.gates import parse_gates
from pinn_operator.core.wanted.names import parse_names
from pinn_operator.core.wanted.prometheus import parse_prometheus
from pinn_operator.core.wanted.spec import Analysis, Profile, RouterMetricsKind, SourceKind


def parse_analysis(analysis: Fields) -> Analysis:
    profile = analysis.choice("profile", Profile, default=Profile.STANDARD)
    interval = analysis.integer("intervalSeconds", minimum=1, maximum=3600, default=30)
    abort_interval = analysis.integer("abortIntervalSeconds", minimum=1, maximum=60, default=2)
    if abort_interval > interval:
        analysis.fault(
            "abortIntervalSeconds", f"must be at most intervalSeconds, which is {interval}, not {abort_interval}"
        )
    parsed = Analysis(
        prometheus=parse_prometheus(analysis.child_or_empty("prometheus")),
        profile=profile,
        gates=parse_gates(analysis, profile),
        interval_seconds=interval,
        abort_interval_seconds=abort_interval,
        sources=_sources(analysis),
        names=parse_names(analysis.child_or_empty("metrics")),
        router_metrics=analysis.optional_choice("routerMetrics", RouterMetricsKind),
        confidence=_confidence(analysis),
        deadline_seconds=analysis.integer("deadlineSeconds", minimum=60, maximum=604800, default=3600),
    )
    if not analysis.has("routerMetrics") and "router-errors" in _written_gates(analysis):
        kinds = ", ".join(kind.value for kind in RouterMetricsKind)
        analysis.fault("routerMetrics", f"is required by the gate router-errors: one of {kinds}")
    analysis.close()
    return parsed


def _written_gates(analysis: Fields) -> list[object]:
    """The names of the gates that the team itself wrote: a gate of the profile needs nothing else to be set."""
    gates = analysis.raw("gates")
    return [gate.get("name") for gate in gates if isinstance(gate, Mapping)] if isinstance(gates, list | tuple) else []


def _sources(analysis: Fields) -> tuple[SourceKind, ...]:
    if not analysis.has("sources"):
        analysis.raw("sources")
        return tuple(SourceKind)
    found = analysis.choices("sources", SourceKind, items=len(SourceKind))
    # The order has no meaning.
    return tuple(kind for kind in SourceKind if kind in found)


def _confidence(analysis: Fields) -> float:
    confidence = analysis.quantity("confidence")
    if confidence is None:
        return 0.999
    if not Decimal("0.5") < confidence < 1:
        analysis.fault("confidence", f'must be above 0.5 and below 1, like "0.999", not {confidence}')
    return float(confidence)
