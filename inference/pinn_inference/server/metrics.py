"""The server's metrics, in a registry of its own, so that two apps in one process never share a counter.

Counters that a rollout's gates read are born at zero: a first error that creates its series is invisible to `rate()`.
What every quote is counted in is of `tally`. All of it is written, and asked for, on the event loop, but for what says
otherwise.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Container
from importlib.metadata import version

from prometheus_client import Counter, Gauge, GCCollector

from pinn_inference.pricing.cache import LevelStats, QuoteCache
from pinn_inference.pricing.types import Method
from pinn_inference.server.exposition import Figures, ServerRegistry
from pinn_inference.server.processes import ProcessFigures, ProcessTree
from pinn_inference.server.tally import CounterTally, HistogramTally, QuoteTally

LATENCY_BUCKETS = (
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05,
    0.1, 0.2, 0.26, 0.3, 0.5, 0.6, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Seconds: from what one evaluation takes to every limit a gate or an alert uses (0.2, 0.26, 0.3, 0.5, 1, 2, 5)."""
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_CACHE_FIGURES = (
    ("pinn_cache_hits_total", "Single quotes that the cache knew."),
    ("pinn_cache_misses_total", "Single quotes that it did not know."),
    ("pinn_cache_size", "Entries in the cache."),
    ("pinn_cache_max_size", "Entries the cache may have."),
)
_TREE_FIGURES = (
    (
        "pinn_process_tree_resident_memory_bytes",
        "Resident memory of this process and of all its children; pages they share count in each.",
    ),
)
_KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_STATUSES_FROM_THE_START = ("200", "400", "413", "429", "500", "503")
_SLOWEST_FIRST = (Method.BACKWARD_INDUCTION, Method.INTEGRAL_EQUATION, Method.PINN, Method.CLOSED_FORM)
"""Dozens of milliseconds an option, milliseconds, microseconds, and the share of a batch that the network left over."""
CLIENT_CLOSED_REQUEST = 499
"""Counted when the client went away before the answer; neither a success nor the server's error."""


class ServerMetrics:
    """Every metric of one server, in `registry`."""

    def __init__(self, *, revision: str = "", service: str = "") -> None:
        self.registry = ServerRegistry()
        self._requests = CounterTally(
            "http_requests",
            "HTTP requests answered, by status code; 499 means that the client went away first.",
            ("method", "handler", "status"),
        )
        self._inference_requests = CounterTally(
            "pinn_inference_requests", "Pricing requests answered, by status code.", ("status",)
        )
        inference_latency = HistogramTally(
            "pinn_inference_latency_seconds",
            "Time from the last byte of a pricing request to its answer, whatever the status.",
            LATENCY_BUCKETS,
        )
        prediction_latency = HistogramTally(
            "pinn_prediction_latency_seconds",
            "Evaluation time of the batch a pricing request was in, by the slowest method among its options.",
            LATENCY_BUCKETS,
            "method",
            [method.label for method in Method],
        )
        batch_options = HistogramTally("pinn_batch_options", "Options in one evaluation.", _BATCH_BUCKETS)
        self.quotes = QuoteTally()
        """Options by method and reason, and the moments of their prices."""
        for tally in (
            self._requests,
            self._inference_requests,
            inference_latency,
            prediction_latency,
            batch_options,
            self.quotes,
        ):
            self.registry.register(tally)
        self._inference_latency = inference_latency.of[""]
        self._prediction_latency = [prediction_latency.of[method.label] for method in Method]
        self._batch_options = batch_options.of[""]
        self.prediction_errors = Counter(
            "pinn_prediction_errors",
            "Evaluations that failed, by the kind of error.",
            ("error_type",),
            registry=self.registry,
        )
        self.overloads = Counter(
            "pinn_overloaded_requests",
            "Pricing requests refused because too many requests or options were waiting.",
            registry=self.registry,
        )
        self.queued_options = Gauge(
            "pinn_queued_options", "Options waiting or being priced now.", registry=self.registry
        )
        self.batch_restarts = Counter(
            "pinn_batch_process_restarts", "Ends of the batch process that nobody asked for.", registry=self.registry
        )
        self.batch_detours = Counter(
            "pinn_batch_detours",
            "Large requests that the server priced itself because its batch process could not, by the reason.",
            ("reason",),
            registry=self.registry,
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
        self.registry.register(ProcessFigures())
        GCCollector(registry=self.registry)
        tree = ProcessTree(os.getpid())
        self.registry.register(Figures(_TREE_FIGURES, lambda: (tree.resident_memory(),)))
        self._cache: QuoteCache | None = None
        self._earlier_hits = self._earlier_misses = 0
        self.registry.register(Figures(_CACHE_FIGURES, self._cache_figures))
        self._status_texts: dict[int, str] = {}
        for status in _STATUSES_FROM_THE_START:
            self._requests.begin("POST", "/v1/price", status)
            self._inference_requests.begin(status)
        self.prediction_errors.labels("NonFiniteResult")

    def observe_request(self, *, method: str, handler: str, status: int, seconds: float | None, prices: bool) -> None:
        """Count one answered request; `prices` says that its handler prices options.

        `seconds` is None for one that did not come whole: how slowly a client sends is no fault of the revision.
        """
        text = self._status_texts.get(status)
        if text is None:
            text = self._status_texts[status] = str(status)
        # Methods that clients make up must not fill the memory.
        self._requests.add((method if method in _KNOWN_METHODS else "other", handler, text))
        if prices:
            self._inference_requests.add((text,))
            if seconds is not None:
                self._inference_latency.observe(seconds)

    def observe_evaluation(self, *, rows: int, seconds: float, methods: Container[int]) -> None:
        """Count one evaluation: how many options it had, how long it took, and by which methods."""
        self._batch_options.observe(rows)
        self.observe_prediction(seconds=seconds, methods=methods)

    def observe_rows(self, rows: int) -> None:
        """Count how many options one evaluation had."""
        self._batch_options.observe(rows)

    def observe_prediction(self, *, seconds: float, methods: Container[int]) -> None:
        """Count how long the evaluation took that a request was part of, under the slowest of its methods."""
        for method in _SLOWEST_FIRST:
            if method in methods:
                self._prediction_latency[method].observe(seconds)
                return

    def show_cache(self, cache: QuoteCache) -> None:
        """From now on the cache metrics are of this one."""
        self._cache = cache

    def reset_cache(self) -> None:
        """Empties the cache; what it counted until now stays in the counters, which must never go down."""
        if self._cache is not None:
            counts = self._cache.stats().total
            self._earlier_hits += counts.hits
            self._earlier_misses += counts.misses
            self._cache.reset()

    def exposition(self, query: str = "") -> bytes:
        """Metrics in Prometheus' text format 0.0.4: all, or the samples that the query of the URL names by `name[]`.

        Raises BadFilter.
        """
        return self.registry.exposition(self.registry.asked(query))

    def _cache_figures(self) -> tuple[float, ...]:
        counts = self._cache.stats().total if self._cache is not None else LevelStats(0, 0, 0, 0, 0)
        hits, misses = self._earlier_hits + counts.hits, self._earlier_misses + counts.misses
        return hits, misses, counts.size, counts.max_size
