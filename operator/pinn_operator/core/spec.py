"""What the team wants: the `spec` of a PINNService as frozen values.

`pinn_operator.core.api` parses manifests into these; nothing here knows YAML or defaults of the API server.
Times are seconds, weights are percent, thresholds are plain numbers in the metric's own unit
(a ratio for rates, seconds for latencies).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Manifest = Mapping[str, Any]
"""A Kubernetes object as JSON. Only rendering, diffing and parsing look inside one."""


class RouterKind(StrEnum):
    """How weight becomes traffic."""

    REPLICAS = "Replicas"
    HTTP_ROUTE = "HTTPRoute"


class RollbackMode(StrEnum):
    """`Auto` takes a failing revision out of traffic; `Hold` only stops its weight from rising and says so."""

    AUTO = "Auto"
    HOLD = "Hold"


class Profile(StrEnum):
    """A named set of gates; the numbers are in `pinn_operator.core.profiles`."""

    STANDARD = "Standard"
    STRICT = "Strict"
    FLASH = "Flash"


class Metric(StrEnum):
    """Built-in metrics; the value is the gate's name in the API."""

    ERROR_RATE = "error-rate"
    LATENCY_P50 = "latency-p50"
    LATENCY_P95 = "latency-p95"
    LATENCY_P99 = "latency-p99"

    @property
    def quantile(self) -> float | None:
        """The latency quantile this metric is, or None for a rate."""
        return {"latency-p50": 0.50, "latency-p95": 0.95, "latency-p99": 0.99}.get(self.value)


class Severity(StrEnum):
    """How loud a gate is in events and alerts."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


@dataclass(frozen=True, slots=True)
class Bound:
    """One side of a gate. Exactly one of `above` and `below` is set.

    As an `advance` bound it names the good side (`below: 0.01` passes under 1 %); as an `abort` bound the bad one
    (`above: 0.05` fails over 5 %). An abort bound is exceeded once it has been so for `for_seconds`, and in
    `consecutive` measurements in a row.
    """

    above: float | None = None
    below: float | None = None
    for_seconds: int = 0
    consecutive: int = 1


@dataclass(frozen=True, slots=True)
class Relative:
    """Compares a built-in metric with the concurrently running stable revision by a sequential test.

    `margin` is the worsening, in share of requests, that is tolerated. `ratio` and `floor` (latencies only): a canary
    request counts as slow when it took longer than `ratio` times the stable quantile and longer than `floor` seconds.
    `confidence` bounds the chance that a revision as good as stable is condemned at one step by 1 − confidence.
    """

    enabled: bool = True
    margin: float = 0.01
    ratio: float = 2.0
    floor: float = 0.1
    confidence: float = 0.999


@dataclass(frozen=True, slots=True)
class Gate:
    """One judged metric: built in (`metric`) or the team's own PromQL (`query`); exactly one of the two is set."""

    name: str
    metric: Metric | None = None
    query: str | None = None
    advance: Bound | None = None
    abort: Bound | None = None
    relative: Relative | None = None
    min_samples: int = 100
    severity: Severity = Severity.P1


@dataclass(frozen=True, slots=True)
class Step:
    """A weight, in percent, and how long at least the canary is watched at it."""

    weight: int
    hold_seconds: int


@dataclass(frozen=True, slots=True)
class ParentRef:
    """The Gateway a route attaches to. The namespace is always written: without it Contour matches any namespace."""

    name: str
    namespace: str
    section_name: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """How clients reach the service."""

    router: RouterKind = RouterKind.REPLICAS
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    path_prefix: str = "/"
    service_port: int = 80
    service_type: str = "ClusterIP"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where metrics are read. `address` None means the operator's own default; `bearer_token_secret` is name, key."""

    address: str | None = None
    timeout_seconds: int = 5
    bearer_token_secret: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """How each step is judged. `gates` are the profile's with the team's overrides already merged in."""

    prometheus: Prometheus
    profile: Profile
    gates: tuple[Gate, ...]
    interval_seconds: int = 30
    abort_interval_seconds: int = 2
    deadline_seconds: int = 3600
    """After hold plus this long without a Pass the resource is `Stalled`; the weight stays where it is."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """What happens to a condemned revision, and the patience with pods."""

    mode: RollbackMode = RollbackMode.AUTO
    scale_down_delay_seconds: int = 30
    """How long its pods stay, out of traffic, for a look at them."""
    drain_seconds: int = 10
    """Between the last observed request of a revision and the removal of its pods."""
    ready_deadline_seconds: int = 600
    """A canary that is not ready this long after its pods were created is rejected."""
    unready_seconds: int = 30
    """A canary pod that was ready and is not for this long condemns its revision."""
    revision_history_limit: int = 5


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole PINNService, parsed. `serving` is the canonical JSON of the fields the pods are made from."""

    replicas: int
    serving: Manifest
    steps: tuple[Step, ...]
    traffic: Traffic
    analysis: Analysis
    rollback: Rollback
    paused: bool = False


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of a manifest: where, and what would be right."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class InvalidSpec:
    """A spec that could not be parsed. All faults at once."""

    errors: tuple[FieldError, ...]
