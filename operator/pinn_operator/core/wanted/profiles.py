"""The named sets of gates. The numbers are those of the deployment guides (docs, "Gates")."""

from __future__ import annotations

from pinn_operator.core.wanted.spec import Bound, Gate, Profile, Relative, Severity

_ERRORS = Relative(margin=0.0)
_LATENCY = Relative(margin=0.001, tolerance=1.5)

_STANDARD = (
    Gate(
        name="error-rate",
        metric="error-rate",
        advance=Bound(below=0.01),
        abort=Bound(above=0.05, for_seconds=300),
        relative=_ERRORS,
    ),
    Gate(
        name="latency-p95",
        metric="latency-p95",
        advance=Bound(below=0.5),
        abort=Bound(above=2.0, for_seconds=600),
        relative=_LATENCY,
    ),
    Gate(name="latency-p99", metric="latency-p99", advance=Bound(below=1.0)),
)

_STRICT = (
    Gate(
        name="error-rate",
        metric="error-rate",
        advance=Bound(below=0.05),
        abort=Bound(above=0.05, for_seconds=120),
        relative=_ERRORS,
        severity=Severity.P0,
    ),
    Gate(
        name="latency-p95",
        metric="latency-p95",
        advance=Bound(below=0.26),
        abort=Bound(above=0.26, consecutive=3),
        severity=Severity.P0,
    ),
)

_FLASH = (
    Gate(
        name="error-rate",
        metric="error-rate",
        advance=Bound(below=0.01),
        abort=Bound(above=0.05, for_seconds=60),
        relative=_ERRORS,
    ),
    Gate(
        name="latency-p99",
        metric="latency-p99",
        advance=Bound(below=0.2),
        abort=Bound(above=0.5, for_seconds=120),
    ),
)

_GATES = {Profile.STANDARD: _STANDARD, Profile.STRICT: _STRICT, Profile.FLASH: _FLASH}


def gates_of(profile: Profile) -> tuple[Gate, ...]:
    """The gates of a profile, in the order in which they are shown."""
    return _GATES[profile]


def merge_gates(profile: Profile, changed: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """The profile's gates, each replaced by the one of the same name in `changed`, then the others of `changed`."""
    by_name = {gate.name: gate for gate in gates_of(profile)} | {gate.name: gate for gate in changed}
    return tuple(by_name.values())
