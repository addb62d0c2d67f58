"""The server's metrics, in a registry of its own, so that two apps in one process never share a counter.

Counters that a rollout's gates read are born at zero: a first error that creates its series is invisible to `rate()`.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from pinn_inference.pricing.types import FallbackReason, Method

LATENCY_BUCKETS = (
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05,
    0.1, 0.2, 0.26, 0.3, 0.5, 0.6, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Seconds: from what one evaluation takes to every limit a gate or an alert uses (0.2, 0.26, 0.3, 0.5, 1, 2, 5)."""
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_STATUSES_FROM_THE_START = ("200", "400", "413", "500", "503")
CLIENT_CLOSED_REQUEST = 499
"""Counted when the client went away before the answer; neither a success nor the server's error."""


class ServerMetrics:
    """Every metric of one server, in `registry`."""

    def __init__(self, *, revision: str = "", service: str = "") -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests",
            "HTTP requests answered, by status code; 499 means that the client went away first.",
            ("method", "handler", "status"),
            registry=self.registry,
        )
        self.inference_requests = Counter(
            "pinn_inference_requests", "Pricing requests answered, by status code.", ("status",), registry=self.registry
        )
        self.inference_latency = Histogram(
            "pinn_inference_latency_seconds",
            "Time from the head of a pricing request to its answer, whatever the status.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.prediction_latency = Histogram(
            "pinn_prediction_latency_seconds",
            "Evaluation time of the batch a pricing request was in; pinn if the network priced any of its options.",
            ("method",),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.options = Counter("pinn_options_priced", "Options priced, by method.", ("method",), registry=self.registry)
        self.fallbacks = Counter(
            "pinn_fallback", "Options priced in closed form, by the reason.", ("reason",), registry=self.registry
        )
        self.prediction_errors = Counter(
            "pinn_prediction_errors",
            "Evaluations that failed, by the kind of error.",
            ("error_type",),
            registry=self.registry,
        )
        self.overloads = Counter(
            "pinn_overloaded_requests", "Pricing requests refused because the queue was full.", registry=self.registry
        )
        self.queued_options = Gauge(
            "pinn_queued_options", "Options waiting or being priced now.", registry=self.registry
        )
        self.batch_options = Histogram(
            "pinn_batch_options", "Options in one evaluation.", buckets=_BATCH_BUCKETS, registry=self.registry
        )
        self.ready = Gauge("pinn_ready", "1 while the readiness probe succeeds.", registry=self.registry)
        self.model_info = Gauge(
            "pinn_model_info", "The model in use; always 1.", ("name", "version", "sha256"), registry=self.registry
        )
        build = Gauge(
            "pinn_build_info",
            "Version of the server and where it was deployed; always 1.",
            ("version", "python", "revision", "service"),
            registry=self.registry,
        )
        build.labels(version("pinn-operator"), platform.python_version(), revision, service).set(1)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for status in _STATUSES_FROM_THE_START:
            self.requests.labels("POST", "/v1/price", status)
            self.inference_requests.labels(status)
        for method in Method:
            self.prediction_latency.labels(method.label)
            self.options.labels(method.label)
        for reason in FallbackReason:
            if reason != FallbackReason.NONE:
                self.fallbacks.labels(reason.label)
        self.prediction_errors.labels("NonFiniteResult")

    def observe_request(self, *, method: str, handler: str, status: int, seconds: float, prices: bool) -> None:
        """Count one answered request; `prices` says that its handler prices options."""
        code = str(status)
        self.requests.labels(method if method in _KNOWN_METHODS else "other", handler, code).inc()
        if prices:
            self.inference_requests.labels(code).inc()
            self.inference_latency.observe(seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)
