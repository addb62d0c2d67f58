"""How values, bounds and gates are put into words."""

from __future__ import annotations

from math import isinf

from pinn_operator.core.wanted.metrics import METRICS, Unit
from pinn_operator.core.wanted.spec import Bound, Gate


def inside(bound: Bound, value: float) -> bool:
    """The value is on the good side of an advance bound."""
    return value < bound.below if bound.below is not None else value > (bound.above or 0.0)


def outside(bound: Bound | None, value: float) -> bool | None:
    """The value is on the bad side of an abort bound; None without a bound."""
    if bound is None:
        return None
    return value > bound.above if bound.above is not None else value < (bound.below or 0.0)


def unit_of(gate: Gate) -> Unit:
    """The unit of a gate's value; that of a custom one is not known."""
    return METRICS[gate.metric].unit if gate.metric in METRICS else Unit.NUMBER


def describe(gate: Gate, value: float | None) -> str:
    """A value in the unit people use: percent for shares, milliseconds for latencies, megabytes for memory."""
    if value is None:
        return "-"
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    match unit_of(gate):
        case Unit.SHARE:
            return f"{100 * value:.3g}%"
        case Unit.SECONDS:
            return f"{1000 * value:.3g}ms" if value < 1 else f"{value:.3g}s"
        case Unit.BYTES:
            return _bytes(value)
        case Unit.BYTES_PER_HOUR:
            return f"{_bytes(value)}/h"
        case _:
            return f"{value:.6g}"


def _bytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB" if abs(value) >= 1e9 else f"{value / 1e6:.3g} MB"


def describe_limit(gate: Gate, bound: Bound | None, *, advance: bool) -> str:
    """A bound in words, such as "< 1%" or "> 5% for 300 s"."""
    if bound is None:
        return ""
    sign, value = ("<", bound.below) if bound.below is not None else (">", bound.above)
    text = f"{sign} {describe(gate, value)}" if value is not None else "verdict fail"  # a webhook's word alone
    if not advance and bound.for_seconds:
        text += f" for {bound.for_seconds} s"
    if not advance and bound.consecutive > 1:
        text += f" in {bound.consecutive} measurements"
    return text


def usual_limit(gate: Gate) -> str:
    """What a gate is judged by while it does not fail: what a step needs, or else what would abort, or else stable."""
    if gate.advance is not None:
        return describe_limit(gate, gate.advance, advance=True)
    if gate.abort is not None:
        return describe_limit(gate, gate.abort, advance=False)
    return "stable" if gate.relative is not None and gate.relative.enabled else ""


def describe_excess(gate: Gate, bound: Bound, shown: str, lasted: float, consecutive: int) -> str:
    """How far an abort bound is exceeded by now, such as "29.4%, above 5% for 0 of 300 s"."""
    side, value = ("above", bound.above) if bound.above is not None else ("below", bound.below)
    text = f"{shown}, {side} {describe(gate, value)}"
    if bound.for_seconds:
        text += f" for {min(lasted, bound.for_seconds):.0f} of {bound.for_seconds} s"
    if bound.consecutive > 1:
        text += f" in {min(consecutive, bound.consecutive)} of {bound.consecutive} measurements"
    return text


def camel(name: str) -> str:
    """CamelCase of a gate's name, as Kubernetes wants reasons: `latency-p95` becomes `LatencyP95`."""
    return "".join(part[:1].upper() + part[1:] for part in name.replace(".", "-").replace("_", "-").split("-"))


def count(number: float, one: str, many: str) -> str:
    """`1 request`, `325 requests`."""
    return f"{number:.0f} {one if round(number) == 1 else many}"
