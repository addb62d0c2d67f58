"""The named sets of gates. The numbers are those of the deployment guides (docs, "Gates")."""

from __future__ import annotations

from pinn_operator.core.wanted.spec import Bound, Gate, GateAction, Profile, Relative, Severity

_ERRORS = Relative(margin=0.0)
_LATENCY = Relative(margin=0.001, tolerance=1.5)

_STANDARD = (
    Gate(
        "error-rate", "error-rate", required=True, relative=_ERRORS,
        advance=Bound(below=0.01), abort=Bound(above=0.05, for_seconds=300),
    ),
    Gate(
        "latency-p95", "latency-p95", relative=_LATENCY,
        advance=Bound(below=0.5), abort=Bound(above=2.0, for_seconds=600),
    ),
    Gate("latency-p99", "latency-p99", advance=Bound(below=1.0)),
    Gate(
        "cache-hit-rate", "cache-hit-rate", advance=Bound(above=0.8), abort=Bound(below=0.5, for_seconds=900)
    ),
    Gate("fallback-rate", "fallback-rate", advance=Bound(below=0.1)),
    Gate("memory-growth", "memory-growth", advance=Bound(below=10e6), abort=Bound(above=100e6)),
    Gate("availability", "availability", abort=Bound(below=0.01, for_seconds=120)),
)  # fmt: skip

_STRICT = (
    Gate(
        "error-rate", "error-rate", required=True, relative=_ERRORS, severity=Severity.P0,
        advance=Bound(below=0.05), abort=Bound(above=0.05, for_seconds=120),
    ),
    Gate(
        "latency-p95", "latency-p95", severity=Severity.P0,
        advance=Bound(below=0.26), abort=Bound(above=0.26, consecutive=3),
    ),
    Gate("cache-hit-rate", "cache-hit-rate", advance=Bound(above=0.8)),
    Gate(
        "memory", "memory", severity=Severity.P2, action=GateAction.RESET_CACHES, recheck_seconds=120,
        advance=Bound(below=1.8e9), abort=Bound(above=1.8e9),
    ),
    # Half of the pods: more than three failed health checks, ten seconds apart.
    Gate("availability", "availability", severity=Severity.P1, abort=Bound(below=0.5, for_seconds=30)),
)  # fmt: skip

_FLASH = (
    Gate(
        "error-rate", "error-rate", required=True, relative=_ERRORS,
        advance=Bound(below=0.01), abort=Bound(above=0.05, for_seconds=60),
    ),
    Gate("latency-p99", "latency-p99", advance=Bound(below=0.2), abort=Bound(above=0.5, for_seconds=120)),
    Gate("cache-hit-rate", "cache-hit-rate", advance=Bound(above=0.7)),
    Gate("prediction-spread", "prediction-spread", abort=Bound(below=0.05, for_seconds=600)),
    Gate(
        "cpu-usage", "cpu-usage", severity=Severity.P2, action=GateAction.WARN,
        abort=Bound(above=0.8, for_seconds=600),
    ),
    Gate(
        "memory-usage", "memory-usage", severity=Severity.P2, action=GateAction.WARN,
        abort=Bound(above=0.9, for_seconds=300),
    ),
)  # fmt: skip

_GATES = {Profile.STANDARD: _STANDARD, Profile.STRICT: _STRICT, Profile.FLASH: _FLASH}


def gates_of(profile: Profile) -> tuple[Gate, ...]:
    """The gates of a profile, in the order in which they are shown."""
    return _GATES[profile]


def merge_gates(profile: Profile, changed: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """The profile's gates, each replaced by the one of the same name in `changed`, then the others of `changed`."""
    by_name = {gate.name: gate for gate in gates_of(profile)} | {gate.name: gate for gate in changed}
    return tuple(by_name.values())
