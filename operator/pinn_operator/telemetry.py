"""What the operator tells about itself: Prometheus metrics, liveness and readiness, on a port of its own.

The registry is private. What is known of each PINNService is kept as one small tuple and turned into samples only when
somebody scrapes, so that a thousand resources at rest cost next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pinn_operator import __version__
from pinn_operator.core.decision import Transition
from pinn_operator.core.status.values import Phase, Status

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class ResourceGauges:
    """What a scrape shows of one PINNService."""

    phase: Phase
    ready: bool
    stalled: bool
    paused: bool
    metrics_available: bool
    weight: int
    observed_share: float | None
    weight_time: datetime | None


def gauges_of(status: Status) -> ResourceGauges:
    """Reads a status."""
    rollout = status.rollout

    def holds(kind: str, *, absent: bool) -> bool:
        condition = status.condition(kind)
        return absent if condition is None else condition.status == "True"

    return ResourceGauges(
        phase=status.phase,
        ready=holds("Ready", absent=False),
        stalled=holds("Stalled", absent=False),
        paused=holds("Paused", absent=False),
        metrics_available=holds("MetricsAvailable", absent=True),
        weight=rollout.weight if rollout else 0,
        observed_share=rollout.observed_share if rollout else None,
        weight_time=rollout.weight_time if rollout else None,
    )


class Telemetry:
    """Counts, and serves what was counted. `clock` is monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._clock = clock
        self._resources: dict[tuple[str, str], ResourceGauges] = {}
        self._last_sign = clock()
        self._last_event: float | None = None
        self.ready = False
        """Whether the watches are established: set by the shell."""
        self._passes = self._counter("passes", "Passes over a resource, by how they ended.", "outcome")
        self._pass_seconds = Histogram(
            "pinn_operator_pass_seconds", "Duration of a pass.", buckets=_SECONDS, registry=self.registry
        )
        self._calls = self._counter(
            "api_requests", "Calls to the API server; code is the HTTP status, or error.", "verb", "resource", "code"
        )
        self._call_seconds = Histogram(
            "pinn_operator_api_request_seconds",
            "Duration of a call to the API server.",
            ["verb"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queries = self._counter(
            "metric_queries", "Queries to metric sources: answered, empty or error.", "outcome"
        )
        self._query_seconds = Histogram(
            "pinn_operator_metric_query_seconds",
            "Duration of a query to a metric source.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pod_reads = self._counter("pod_reads", "Reads of a pod's metrics: read or failed.", "outcome")
        self._pod_read_seconds = Histogram(
            "pinn_operator_pod_read_seconds", "Duration of a read of a pod's metrics.", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._actions = self._counter("actions", "Writes of owned objects: done or failed.", "verb", "kind", "outcome")
        self._events = self._counter("events", "Kubernetes Events emitted: done or failed.", "outcome")
        self._transitions = self._counter(
            "transitions", "Committed changes of rollouts.", "namespace", "service", "transition"
        )
        self._rollbacks = self._counter(
            "rollbacks", "Revisions taken out of traffic, by reason.", "namespace", "service", "reason"
        )
        self._wakes = self._counter("watch_events", "Watch events that were received, by kind.", "kind")
        self._restarts = self._counter("watch_restarts", "How often watching failed as a whole and was begun anew.")
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_Gauges(self))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pinn_operator_{name}", text, labels, registry=self.registry)

    # --- telling ------------------------------------------------------------------------------------------------------

    def pass_ended(self, outcome: str, seconds: float) -> None:
        """`outcome` is the value of a `reconciler.Outcome`: quiet, committed, gone, conflict or failed."""
        self._passes.labels(outcome).inc()
        self._pass_seconds.observe(seconds)
        self._last_sign = self._clock()

    def api_call(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """A `kube.client.CallObserver`."""
        self._calls.labels(verb, resource, code).inc()
        self._call_seconds.labels(verb).observe(seconds)

    def query(self, outcome: str, seconds: float) -> None:
        """One query to a metric source."""
        self._queries.labels(outcome).inc()
        self._query_seconds.observe(seconds)

    def pod_read(self, outcome: str, seconds: float) -> None:
        """One read of a pod's metrics."""
        self._pod_reads.labels(outcome).inc()
        self._pod_read_seconds.observe(seconds)

    def action(self, verb: str, kind: str, outcome: str) -> None:
        """One write."""
        self._actions.labels(verb, kind, outcome).inc()

    def event_told(self, outcome: str) -> None:
        """One Kubernetes Event."""
        self._events.labels(outcome).inc()

    def transition(self, namespace: str, name: str, transition: Transition) -> None:
        """A change that was committed."""
        self._transitions.labels(namespace, name, transition.kind).inc()
        if transition.kind == "rolled_back":
            self._rollbacks.labels(namespace, name, transition.reason).inc()

    def resource_seen(self, namespace: str, name: str, status: Status) -> None:
        """The status as it was read or committed."""
        self._resources[namespace, name] = gauges_of(status)

    def resource_gone(self, namespace: str, name: str) -> None:
        """The resource was deleted."""
        self._resources.pop((namespace, name), None)

    def watch_event(self, kind: str) -> None:
        """Something was heard from the API server."""
        self._wakes.labels(kind).inc()
        self._last_event = self._last_sign = self._clock()

    def sign_of_life(self) -> None:
        """The shell is working, though nothing is heard: there may be no resource at all."""
        self._last_sign = self._clock()

    def watch_restarted(self) -> None:
        """Watching is begun anew."""
        self._restarts.inc()

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def silent_seconds(self) -> float:
        """Since the last sign of life."""
        return self._clock() - self._last_sign

    @property
    def last_event_seconds(self) -> float | None:
        """Since the last watch event; None if there was none yet."""
        return None if self._last_event is None else self._clock() - self._last_event

    @property
    def resources(self) -> dict[tuple[str, str], ResourceGauges]:
        """By namespace and name."""
        return self._resources


class _Gauges(Collector):
    """Samples of the resources, made at the moment of a scrape."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        resources = self._telemetry.resources
        names = ["namespace", "service"]

        def family(name: str, text: str, value: Callable[[ResourceGauges], float | None]) -> Metric:
            metric = GaugeMetricFamily(f"pinn_operator_{name}", text, labels=names)
            for key, gauges in resources.items():
                number = value(gauges)
                if number is not None:
                    metric.add_metric(key, number)
            return metric

        phases = GaugeMetricFamily("pinn_operator_phase", "1 for the phase a resource is in.", labels=[*names, "phase"])
        for key, gauges in resources.items():
            phases.add_metric([*key, gauges.phase.value], 1.0)
        yield phases
        yield family("ready", "Condition Ready.", lambda item: float(item.ready))
        yield family("stalled", "Condition Stalled.", lambda item: float(item.stalled))
        yield family("paused", "Condition Paused.", lambda item: float(item.paused))
        yield family("metrics_available", "Condition MetricsAvailable.", lambda item: float(item.metrics_available))
        yield family("canary_weight_percent", "Desired weight of the canary.", lambda item: float(item.weight))
        yield family("canary_observed_percent", "Share of requests the canary had.", lambda item: item.observed_share)
        yield family(
            "weight_changed_timestamp_seconds",
            "When the weight was last changed.",
            lambda item: item.weight_time.timestamp() if item.weight_time else None,
        )
        yield GaugeMetricFamily("pinn_operator_resources", "PINNServices that are served.", value=len(resources))
        age = self._telemetry.last_event_seconds
        if age is not None:
            yield GaugeMetricFamily("pinn_operator_last_watch_event_seconds", "Since the last watch event.", value=age)
        build = GaugeMetricFamily("pinn_operator_build_info", "The version that runs.", labels=["version"])
        build.add_metric([__version__], 1.0)
        yield build


# --- endpoints ------------------------------------------------------------------------------------------------------


class HealthServer:
    """/livez, /readyz and /metrics.

    Alive means that there was a sign of life within `patience` seconds; the shell gives one every few seconds while its
    watches run or are being begun anew, so an API server that is away does not get the operator killed.
    """

    def __init__(self, telemetry: Telemetry, *, host: str, port: int, patience: float = 120.0) -> None:
        self._telemetry = telemetry
        self._host = host
        self._port = port
        self._patience = patience
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def application(self) -> web.Application:
        """The routes, without a port."""
        application = web.Application()
        application.add_routes(
            [web.get("/livez", self._live), web.get("/readyz", self._ready), web.get("/metrics", self._metrics)]
        )
        return application

    async def _live(self, _: web.Request) -> web.Response:
        silent = self._telemetry.silent_seconds
        alive = silent <= self._patience
        text = "ok" if alive else f"no sign of life for {silent:.0f} s"
        return web.Response(text=text + "\n", status=200 if alive else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self._telemetry.ready
        return web.Response(text="ok\n" if ready else "not watching yet\n", status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
