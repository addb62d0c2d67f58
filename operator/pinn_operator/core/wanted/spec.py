"""What the team wants: the `spec` of a PINNService as frozen values.

`core.wanted.parsing` and its modules parse manifests into these; nothing here knows YAML or defaults of the API server.
Times are seconds, weights are percent, thresholds are plain numbers in the metric's own unit
(a ratio for rates, seconds for latencies).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pinn_operator.core.manifest import Manifest


class RouterKind(StrEnum):
    """How weight becomes traffic."""

    REPLICAS = "Replicas"
    HTTP_ROUTE = "HTTPRoute"


class RollbackMode(StrEnum):
    """`Auto` takes a failing revision out of traffic; `Hold` only stops its weight from rising and says so."""

    AUTO = "Auto"
    HOLD = "Hold"


class Profile(StrEnum):
    """A named set of gates; the numbers are in `pinn_operator.core.wanted.profiles`."""

    STANDARD = "Standard"
    STRICT = "Strict"
    FLASH = "Flash"


class Severity(StrEnum):
    """How loud a gate is in events and alerts."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


class GateAction(StrEnum):
    """What a gate does when it fails beyond its abort bound."""

    ROLL_BACK = "RollBack"
    HOLD = "Hold"
    """The weight does not rise while it fails; nothing is rolled back."""
    RESET_CACHES = "ResetCaches"
    """The caches of the canary's pods are reset; if it fails `recheck_seconds` later still, it is rolled back."""
    WARN = "Warn"
    """It is reported, and neither holds nor rolls back."""


class SourceKind(StrEnum):
    """Where the figures of the built-in metrics come from."""

    PODS = "Pods"
    """The pods' own `/metrics`, read by the operator."""
    PROMETHEUS = "Prometheus"


class RouterMetricsKind(StrEnum):
    """Whose series show what the router answered for a revision."""

    CONTOUR = "Contour"
    ENVOY_GATEWAY = "EnvoyGateway"
    ISTIO = "Istio"
    NGINX_INGRESS = "NginxIngress"


class VerificationMode(StrEnum):
    """Whether the canary's prices are compared before it gets weight."""

    REQUIRED = "Required"
    """A server that cannot be asked for prices holds the rollout."""
    AUTO = "Auto"
    """A server that cannot be asked for prices is not verified, and the status says so."""
    OFF = "Disabled"
    """Nothing is compared. Not "Off", which YAML takes for false."""


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A key of a Secret in the resource's namespace."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Bound:
    """One side of a gate. Exactly one of `above` and `below` is set, but for a webhook, which needs neither.

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

    The canary's share of bad requests is tolerated up to `tolerance` times stable's plus `margin`. `ratio` and `floor`
    (latencies only): a canary request counts as slow when it took longer than `ratio` times the stable quantile and
    longer than `floor` seconds. How sure the test must be is said for all gates together, by `Analysis.confidence`.
    """

    enabled: bool = True
    margin: float = 0.01
    tolerance: float = 1.0
    ratio: float = 2.0
    floor: float = 0.1


@dataclass(frozen=True, slots=True)
class Webhook:
    """A custom gate that is asked over HTTP: a POST of JSON, answered with pass, fail or hold.

    `secret` signs the body (HMAC-SHA256); `timeout_seconds` bounds each of 1 + `retries` attempts.
    """

    url: str
    secret: SecretKey | None = None
    timeout_seconds: int = 5
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Gate:
    """One judged metric: built in (`metric`, a name in `core.wanted.metrics.METRICS`), custom PromQL (`query`) or a
    `webhook`; exactly one of them is set.

    The `abort` of a webhook has neither `above` nor `below`: it says only for how long the answer must be "fail".
    """

    name: str
    metric: str | None = None
    query: str | None = None
    webhook: Webhook | None = None
    advance: Bound | None = None
    abort: Bound | None = None
    relative: Relative | None = None
    min_samples: int = 100
    severity: Severity = Severity.P1
    action: GateAction = GateAction.ROLL_BACK
    recheck_seconds: int = 120
    """After a reset of the caches, this long until the gate is judged again."""
    dry_run: bool = False
    """Judged and reported; never holds and never rolls back."""
    required: bool = False
    """A metric that neither revision has holds the rollout, instead of being `NotApplicable`."""


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
class BasicAuth:
    """User name and password, both from Secrets of the resource's namespace."""

    username: SecretKey
    password: SecretKey


@dataclass(frozen=True, slots=True)
class Header:
    """A header of each query: a plain `value`, or one from a Secret."""

    name: str
    value: str | None = None
    secret: SecretKey | None = None


@dataclass(frozen=True, slots=True)
class CertificateRef:
    """Certificates of a private authority: a key of a ConfigMap, or of a Secret, of the resource's namespace."""

    kind: str
    """ConfigMap or Secret"""
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where metrics are read. `address` None means the operator's own default; `bearer_token_secret` is name, key."""

    address: str | None = None
    timeout_seconds: int = 5
    bearer_token_secret: tuple[str, str] | None = None
    basic_auth: BasicAuth | None = None
    headers: tuple[Header, ...] = ()
    certificate_authority: CertificateRef | None = None


@dataclass(frozen=True, slots=True)
class MetricNames:
    """What the judged server calls its metrics and labels. The defaults are those of the bundled server."""

    requests: str = "http_requests_total"
    """Counter of answered requests, by `status` and `handler`."""
    latency: str = "pinn_inference_latency_seconds"
    """Histogram of the seconds a pricing request takes, without the suffix `_bucket`."""
    cache_hits: str = "pinn_cache_hits_total"
    cache_misses: str = "pinn_cache_misses_total"
    fallbacks: str = "pinn_fallback_total"
    """Counter of options that the fallback priced; its share is taken of `options`."""
    options: str = "pinn_options_priced_total"
    """Counter of priced options."""
    memory: str = "pinn_process_tree_resident_memory_bytes"
    """Gauge of resident bytes."""
    cpu: str = "process_cpu_seconds_total"
    price_count: str = "pinn_price_to_strike_count"
    """Counters by `moneyness` and `maturity` of priced options, of price ÷ strike, and of its square."""
    price_sum: str = "pinn_price_to_strike_sum"
    price_squares: str = "pinn_price_to_strike_sum_of_squares_total"
    pod_label: str = "pod"
    namespace_label: str = "namespace"
    status_label: str = "status"
    handler_label: str = "handler"


@dataclass(frozen=True, slots=True)
class Analysis:
    """How each step is judged. `gates` are the profile's with the team's overrides already merged in."""

    prometheus: Prometheus
    profile: Profile
    gates: tuple[Gate, ...]
    interval_seconds: int = 30
    abort_interval_seconds: int = 2
    sources: tuple[SourceKind, ...] = (SourceKind.PODS, SourceKind.PROMETHEUS)
    names: MetricNames = MetricNames()
    router_metrics: RouterMetricsKind | None = None
    confidence: float = 0.999
    """A revision as good as stable is rolled back in a whole rollout with probability at most 1 − this."""
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
class Verification:
    """What is asked of the canary's pods at weight 0, before any client is."""

    mode: VerificationMode = VerificationMode.AUTO
    options: int = 240
    """How many options are priced by each pod."""
    tolerance: float = 1e-6
    """Of the strike, beside what both revisions' own error bounds allow."""
    timeout_seconds: int = 180
    """For the whole verification of a revision."""
    acknowledged_revision: str = ""
    """The revision whose prices are meant to differ from stable's: it passes in spite of the difference."""


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
    verification: Verification = Verification()


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
