"""The server's metrics, in a registry of its own, so that two apps in one process never share a counter.

Counters that a rollout's gates read are born at zero: a first error that creates its series is invisible to `rate()`.
What every quote is counted in, `QuoteTally`, are plain numbers that only the event loop writes: no lock, no look-up of
labels. They become metrics when somebody asks.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from pinn_inference.pricing.cache import LevelStats, QuoteCache
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server import moments

LATENCY_BUCKETS = (
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05,
    0.1, 0.2, 0.26, 0.3, 0.5, 0.6, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Seconds: from what one evaluation takes to every limit a gate or an alert uses (0.2, 0.26, 0.3, 0.5, 1, 2, 5)."""
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_LARGEST = 1e100
_KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_STATUSES_FROM_THE_START = ("200", "400", "413", "429", "500", "503")
CLIENT_CLOSED_REQUEST = 499
"""Counted when the client went away before the answer; neither a success nor the server's error."""


class QuoteTally:
    """Counts of quotes: by method, by reason, and the moments of their prices. For the event loop alone."""

    def __init__(self) -> None:
        self._methods = [0] * len(Method)
        self._reasons = [0] * len(FallbackReason)
        self._moments = [[0.0, 0.0, 0.0] for _ in range(moments.BUCKETS)]

    def count_quote(self, spot: float, strike: float, maturity: float, quote: ScalarQuote) -> None:
        """One option."""
        self._methods[quote.method] += 1
        if quote.reason:
            self._reasons[quote.reason] += 1
        ratio = quote.price / strike
        if not -_LARGEST < ratio < _LARGEST:  # a NaN, once added, would stay for good
            return
        sums = self._moments[moments.bucket(spot / strike, maturity)]
        sums[0] += 1.0
        sums[1] += ratio
        sums[2] += ratio * ratio

    def count_batch(self, options: OptionBatch, quotes: Quotes) -> None:
        """A batch priced in this process."""
        self.count_elsewhere(
            np.bincount(quotes.method, minlength=len(Method)).tolist(),
            np.bincount(quotes.reason, minlength=len(FallbackReason)).tolist(),
            moments.price_moments(options, quotes).tolist(),
        )

    def count_elsewhere(self, methods: Sequence[int], reasons: Sequence[int], sums: Sequence[Sequence[float]]) -> None:
        """What was counted in another process: by `Method` code, by `FallbackReason` code, by `price_moments`."""
        for code, more in enumerate(methods):
            self._methods[code] += more
        for code, more in enumerate(reasons):
            self._reasons[code] += more
        for total, added in zip(self._moments, sums, strict=True):
            for place, value in enumerate(added):
                total[place] += value

    @property
    def priced(self) -> Mapping[str, int]:
        """Options priced so far, by the label of the method."""
        return {method.label: self._methods[method] for method in Method}

    @property
    def fallbacks(self) -> Mapping[str, int]:
        """Options priced otherwise than asked, by the label of the reason."""
        return {reason.label: self._reasons[reason] for reason in FallbackReason if reason}

    def collect(self) -> Iterator[Metric]:
        priced = CounterMetricFamily("pinn_options_priced", "Options priced, by method.", labels=["method"])
        for label, number in self.priced.items():
            priced.add_metric([label], number)
        fallbacks = CounterMetricFamily(
            "pinn_fallback", "Options not priced by the network, by the reason.", labels=["reason"]
        )
        for label, number in self.fallbacks.items():
            fallbacks.add_metric([label], number)
        labels = ["moneyness", "maturity"]
        prices = SummaryMetricFamily(
            "pinn_price_to_strike",
            "Price divided by strike, by spot divided by strike and by years to maturity.",
            labels=labels,
        )
        squares = CounterMetricFamily(
            "pinn_price_to_strike_sum_of_squares", "Squares of what pinn_price_to_strike_sum sums up.", labels=labels
        )
        for bucket, (count, total, total_of_squares) in enumerate(self._moments):
            names = [*moments.bucket_names(bucket)]
            prices.add_metric(names, count_value=int(count), sum_value=total)
            squares.add_metric(names, total_of_squares)
        yield from (priced, fallbacks, prices, squares)


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
        self.quotes = QuoteTally()
        self.registry.register(_as_collector(self.quotes.collect))
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
        self.batch_options = Histogram(
            "pinn_batch_options", "Options in one evaluation.", buckets=_BATCH_BUCKETS, registry=self.registry
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
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_as_collector(_process_tree_memory))
        self._cache: QuoteCache | None = None
        self._earlier_hits = self._earlier_misses = 0
        self.registry.register(_as_collector(self._collect_cache))
        # The children of labelled metrics, found once: a look-up costs more than counting.
        self._request_counters: dict[tuple[str, str, int], Counter] = {}
        self._inference_counters: dict[int, Counter] = {}
        self.prediction_by_network = self.prediction_latency.labels(Method.PINN.label)
        self.prediction_otherwise = self.prediction_latency.labels(Method.CLOSED_FORM.label)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for status in _STATUSES_FROM_THE_START:
            self.requests.labels("POST", "/v1/price", status)
            self.inference_requests.labels(status)
        for method in Method:
            self.prediction_latency.labels(method.label)
        self.prediction_errors.labels("NonFiniteResult")

    def observe_request(self, *, method: str, handler: str, status: int, seconds: float, prices: bool) -> None:
        """Count one answered request; `prices` says that its handler prices options."""
        key = (method, handler, status)
        counter = self._request_counters.get(key)
        if counter is None:
            known = method if method in _KNOWN_METHODS else "other"
            counter = self.requests.labels(known, handler, str(status))
            if known == method:  # methods that clients make up must not fill the memory
                self._request_counters[key] = counter
        counter.inc()
        if prices:
            asked = self._inference_counters.get(status)
            if asked is None:
                asked = self._inference_counters[status] = self.inference_requests.labels(str(status))
            asked.inc()
            self.inference_latency.observe(seconds)

    def observe_evaluation(self, *, rows: int, seconds: float, by_network: bool) -> None:
        """Count one evaluation: how many options it had and how long it took."""
        self.batch_options.observe(rows)
        self.observe_prediction(seconds=seconds, by_network=by_network)

    def observe_prediction(self, *, seconds: float, by_network: bool) -> None:
        """Count how long the evaluation took that a request was part of."""
        (self.prediction_by_network if by_network else self.prediction_otherwise).observe(seconds)

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

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)

    def _collect_cache(self) -> Iterator[Metric]:
        counts = self._cache.stats().total if self._cache is not None else LevelStats(0, 0, 0, 0, 0)
        hits, misses = self._earlier_hits + counts.hits, self._earlier_misses + counts.misses
        yield CounterMetricFamily("pinn_cache_hits", "Single quotes that the cache knew.", value=hits)
        yield CounterMetricFamily("pinn_cache_misses", "Single quotes that it did not know.", value=misses)
        yield GaugeMetricFamily("pinn_cache_size", "Entries in the cache.", value=counts.size)
        yield GaugeMetricFamily("pinn_cache_max_size", "Entries the cache may have.", value=counts.max_size)


class _Source(Collector):
    """A function as a collector."""

    def __init__(self, function: Callable[[], Iterable[Metric]]) -> None:
        self._function = function

    def collect(self) -> Iterable[Metric]:
        return self._function()


def _as_collector(function: Callable[[], Iterable[Metric]]) -> Collector:
    return _Source(function)


def _process_tree_memory() -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "pinn_process_tree_resident_memory_bytes",
        "Resident memory of this process and of all its children; pages they share count in each.",
        value=resident_memory_of_tree(os.getpid()),
    )


def resident_memory_of_tree(root: int) -> int:
    """Bytes, by /proc; 0 where there is none. A process that ends meanwhile counts as nothing."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        fields = _proc_file(place.name, "stat").rpartition(b")")[2].split()
        if len(fields) > 1:
            parents[int(place.name)] = int(fields[1])
    tree, grown = {root}, True
    while grown:
        more = {process for process, parent in parents.items() if parent in tree} - tree
        grown = bool(more)
        tree |= more
    pages = 0
    for process in tree:
        fields = _proc_file(str(process), "statm").split()
        pages += int(fields[1]) if len(fields) > 1 else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _proc_file(process: str, name: str) -> bytes:
    try:
        return Path("/proc", process, name).read_bytes()
    except OSError:
        return b""
