"""A cluster, a router, clients and a Prometheus in fake time, for whole rollouts in milliseconds.

It runs the real `decide` on the real manifests that it renders: what is applied is parsed back into what is observed.
Only time, pods and requests are simulated.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pinn_operator.core.api import Resource, parse_resource, parse_spec, status_from_manifest, status_to_manifest
from pinn_operator.core.decide import decide
from pinn_operator.core.decision import Apply, Decision, Event
from pinn_operator.core.observed import Observed, Pod, PodReport, RevisionRecord, Route, Termination, Workload
from pinn_operator.core.questions import (
    LATENCY_RECENT,
    LATENCY_WHOLE,
    REQUESTS_RECENT,
    REQUESTS_WHOLE,
    STILL_COUNTS,
    STILL_SCRAPES,
    due,
)
from pinn_operator.core.samples import Answer, Query, Series, SourceError
from pinn_operator.core.spec import InvalidSpec
from pinn_operator.core.status import Status

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, float("inf"))
Clock = Callable[[float], float]


def constant(value: float) -> Clock:
    return lambda _: value


@dataclass(frozen=True)
class Behaviour:
    """What an image does. Functions take the seconds since the story began."""

    errors: Clock = constant(0.0)
    latency: Clock = constant(0.004)
    startup_seconds: float = 2.0
    image_missing: bool = False
    report: PodReport | None = None
    oom_at: float | None = None
    crashes_at: float | None = None
    never_ready: bool = False


@dataclass
class SimulatedPod:
    name: str
    revision: str
    image: str
    created: float
    ready: bool = False
    was_ready: bool = False
    ready_changed: float = 0.0
    restarts: int = 0
    waiting: str = ""
    termination: Termination | None = None
    requests: dict[str, float] = field(default_factory=lambda: {"200": 0.0, "500": 0.0})
    buckets: dict[float, float] = field(default_factory=lambda: dict.fromkeys(BOUNDS, 0.0))
    scrapes: list[tuple[float, dict[str, float], dict[float, float]]] = field(default_factory=list)
    scrape_times: list[float] = field(default_factory=list)


class World:
    """One PINNService and everything around it."""

    def __init__(
        self, spec: Mapping[str, Any], *, images: Mapping[str, Behaviour] | None = None, rate: float = 40.0,
        seed: int = 1, name: str = "eu-options",
    ) -> None:  # fmt: skip
        self.name, self.rate, self.seconds = name, rate, 0.0
        self.random = random.Random(seed)
        self.images = dict(images or {})
        self.spec: dict[str, Any] = dict(spec)
        self.generation, self.version = 1, 1
        self.status: dict[str, Any] = {}
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: list[SimulatedPod] = []
        self.gone: list[SimulatedPod] = []
        self.events: list[Event] = []
        self.transitions: list[tuple[float, str, str]] = []
        self.weights: list[tuple[float, int]] = []
        self.commits = 0
        self.prometheus_up = True
        self.operator_up = True
        self.router_lag = 0.2
        self.failed_requests = 0.0
        self.requests = 0.0
        self._counter = 0
        self._route_changes: list[tuple[float, dict[str, int]]] = []
        self.last: Decision | None = None
        self._read: Resource | None = None
        self._parsed: tuple[dict[str, Any], Status] = ({}, Status())

    # --- what people do ---------------------------------------------------------------------------------------------

    def apply(self, **changes: Any) -> None:
        """`kubectl apply` of a changed spec."""
        self.spec = {**self.spec, **changes}
        self.generation += 1

    def run(self, seconds: float, *, tick: float = 0.5) -> World:
        """Let time pass; the operator looks at every tick (as after a watch event)."""
        for _ in range(round(seconds / tick)):
            self.seconds += tick
            self._live(tick)
            if self.operator_up:
                self.reconcile()
        return self

    def run_until(self, condition: Callable[[World], bool], *, at_most: float = 600.0, tick: float = 0.5) -> World:
        """Let time pass until something is true; fails with the state if it never is."""
        limit = self.seconds + at_most
        while not condition(self):
            assert self.seconds < limit, f"not within {at_most} s; {self.describe()}"
            self.run(tick, tick=tick)
        return self

    def until_stable(self, image: str, *, at_most: float = 600.0, tick: float = 1.0) -> World:
        """Let time pass until that image alone serves and no rollout is in flight."""
        return self.run_until(
            lambda it: it.state.phase == "Stable" and it.state.rollout is None
            and it.state.stable is not None and it.state.stable.image == image,
            at_most=at_most, tick=tick,
        ).run(1)  # fmt: skip

    def describe(self) -> str:
        state = self.state
        return (
            f"t={self.seconds}: {state.phase} {state.step} {state.weight} {state.verdict} {state.reason} {state.next}"
        )

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    @property
    def state(self) -> Status:
        if self._parsed[0] is not self.status:
            self._parsed = (self.status, status_from_manifest(self.status))
        return self._parsed[1]

    @property
    def weight(self) -> int:
        """The canary's weight on the route itself."""
        return self._live_weights().get(f"{self.name}-canary", 0)

    def said(self, reason: str) -> bool:
        return any(event.reason == reason for event in self.events)

    # --- one pass ---------------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any]:
        metadata = {
            "name": self.name, "namespace": "pricing", "uid": "u-1", "generation": self.generation,
            "resourceVersion": str(self.version),
        }  # fmt: skip
        return {
            "apiVersion": "pinn.dev/v1alpha1", "kind": "PINNService", "metadata": metadata, "spec": self.spec,
            "status": self.status,
        }  # fmt: skip

    def look(self) -> Decision:
        """What the operator would decide now; nothing is done."""
        return self._decide()[0]

    def look_twice(self) -> tuple[Decision, Decision]:
        """What it would decide now, and with that status already committed: the same moment, nothing else changed."""
        first, observed, samples = self._decide()
        again = parse_resource({**self.manifest(), "status": status_to_manifest(first.status)})
        return first, decide(again, observed, samples, self.now)

    def _decide(self) -> tuple[Decision, Observed, dict[str, Answer]]:
        resource, observed = self._resource(), self.observe()
        samples = {query.key: self.answer(query) for query in due(resource, observed, self.now)}
        return decide(resource, observed, samples, self.now), observed, samples

    def _resource(self) -> Resource:
        """As read from the API server; parsed once per generation, because stories take many passes."""
        if self._read is None or self._read.generation != self.generation:
            self._read = parse_resource({**self.manifest(), "status": {}})
        return replace(self._read, status=self.state, resource_version=str(self.version))

    def reconcile(self, *, crash_before_acting: bool = False) -> Decision:
        decision = self.look()
        written = status_to_manifest(decision.status)
        if written != self.status:
            before = self.state.rollout.weight if self.state.rollout else 0
            self.status = written
            self.commits += 1
            self.version += 1
            after = self.state.rollout.weight if self.state.rollout else 0
            if before != after:
                self.weights.append((self.seconds, after))
        self.last = decision
        if crash_before_acting:
            return decision
        for action in decision.actions:
            if isinstance(action, Apply):
                self._write(dict(action.manifest))
            else:
                self.objects.pop((action.kind, action.name), None)
        self.events.extend(decision.events)
        self.transitions.extend((self.seconds, item.kind, item.revision) for item in decision.transitions)
        return decision

    def _write(self, manifest: dict[str, Any]) -> None:
        key = (manifest["kind"], manifest["metadata"]["name"])
        self.objects[key] = manifest
        if manifest["kind"] == "HTTPRoute":
            self._route_changes.append((self.seconds, self._live_weights()))

    def edit_weight(self, canary: int) -> None:
        """Somebody edits the route by hand."""
        route = self.objects["HTTPRoute", self.name]
        rules = route["spec"]["rules"]
        backends = [
            {**item, "weight": canary if item["name"].endswith("-canary") else 100 - canary}
            for item in rules[0]["backendRefs"]
        ]
        changed = {**route, "spec": {**route["spec"], "rules": [{**rules[0], "backendRefs": backends}]}}
        self._write(changed)

    # --- the cluster ------------------------------------------------------------------------------------------------

    def _live_weights(self) -> dict[str, int]:
        route = self.objects.get(("HTTPRoute", self.name))
        if route is None:
            return {}
        return {item["name"]: item["weight"] for item in route["spec"]["rules"][0]["backendRefs"]}

    def _weights_in_force(self) -> dict[str, int]:
        ready = [weights for time, weights in self._route_changes if time + self.router_lag <= self.seconds]
        return ready[-1] if ready else {}

    def observe(self) -> Observed:
        pods = tuple(
            Pod(
                name=pod.name, revision=pod.revision, created=START + timedelta(seconds=pod.created), phase="Running",
                ready=pod.ready, ready_changed=START + timedelta(seconds=pod.ready_changed), was_ready=pod.was_ready,
                restarts=pod.restarts, waiting_reason=pod.waiting, termination=pod.termination,
                report=None if pod.ready else self._behaviour(pod.image).report,
            )
            for pod in self.pods
        )  # fmt: skip
        workloads, selectors, records = {}, {}, {}
        for (kind, name), manifest in self.objects.items():
            if kind == "Deployment":
                revision = name.removeprefix(f"{self.name}-")
                ready = sum(pod.ready for pod in self.pods if pod.revision == revision)
                workloads[revision] = Workload(revision, manifest["spec"]["replicas"], ready, ready, settled=True)
            elif kind == "Service":
                selectors[name] = manifest["spec"]["selector"]
            elif kind == "ControllerRevision":
                spec = parse_spec(manifest["data"]["spec"])
                revision = name.removeprefix(f"{self.name}-")
                records[revision] = RevisionRecord(
                    revision, manifest["revision"], manifest["data"]["workload"],
                    None if isinstance(spec, InvalidSpec) else spec,
                )  # fmt: skip
        weights = self._live_weights()
        route = Route(weights, programmed=True) if weights else None
        return Observed(workloads, pods, selectors, route, True, records, dict(self.objects))

    def _behaviour(self, image: str) -> Behaviour:
        return self.images.get(image, Behaviour())

    def _live(self, tick: float) -> None:
        self._deployments()
        for pod in self.pods:
            self._pod(pod)
        self._traffic(tick)
        if self.seconds % 1 == 0:
            for pod in self.pods:
                pod.scrapes.append((self.seconds, dict(pod.requests), dict(pod.buckets)))
                pod.scrape_times.append(self.seconds)

    def _deployments(self) -> None:
        for (kind, name), manifest in self.objects.items():
            if kind != "Deployment":
                continue
            revision = name.removeprefix(f"{self.name}-")
            mine = [pod for pod in self.pods if pod.revision == revision]
            image = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
            for _ in range(manifest["spec"]["replicas"] - len(mine)):
                self._counter += 1
                self.pods.append(SimulatedPod(f"{name}-abc-{self._counter}", revision, image, self.seconds))
            for pod in mine[manifest["spec"]["replicas"] :]:
                self.pods.remove(pod)
                self.gone.append(pod)
        deployments = {name.removeprefix(f"{self.name}-") for kind, name in self.objects if kind == "Deployment"}
        self.pods = [pod for pod in self.pods if pod.revision in deployments]

    def _pod(self, pod: SimulatedPod) -> None:
        behaviour = self._behaviour(pod.image)
        ready = (
            self.seconds - pod.created >= behaviour.startup_seconds
            and not behaviour.image_missing and behaviour.report is None and not behaviour.never_ready
        )  # fmt: skip
        pod.waiting = "ImagePullBackOff" if behaviour.image_missing else ""
        if behaviour.oom_at is not None and self.seconds >= behaviour.oom_at:
            pod.termination, pod.restarts, ready = Termination("OOMKilled", 137), 1, False
        if behaviour.crashes_at is not None and self.seconds >= behaviour.crashes_at:
            pod.termination, ready = Termination("Error", 1, "bye"), False
            pod.restarts, pod.waiting = 2, "CrashLoopBackOff"
        if ready != pod.ready:
            pod.ready, pod.ready_changed = ready, self.seconds
        pod.was_ready = pod.was_ready or ready

    def _traffic(self, tick: float) -> None:
        expected = self.rate * tick
        count = int(expected) + (self.random.random() < expected % 1)
        weights = self._weights_in_force()
        for _ in range(count):
            self.requests += 1
            service = f"{self.name}-stable"
            if weights:
                service = f"{self.name}-canary" if self.random.random() * 100 < weights.get(
                    f"{self.name}-canary", 0) else service  # fmt: skip
            else:
                service = self.name
            self._request(service)

    def _request(self, service: str) -> None:
        selector = self.objects.get(("Service", service), {}).get("spec", {}).get("selector", {})
        revision = selector.get("pinn.dev/revision")
        backends = [pod for pod in self.pods if pod.ready and revision in (None, pod.revision)]
        if not selector or not backends:
            self.failed_requests += 1
            return
        pod = self.random.choice(backends)
        behaviour = self._behaviour(pod.image)
        failed = self.random.random() < behaviour.errors(self.seconds)
        pod.requests["500" if failed else "200"] += 1
        self.failed_requests += failed
        latency = behaviour.latency(self.seconds) * self.random.lognormvariate(0, 0.3)
        for bound in BOUNDS[bisect_left(BOUNDS, latency) :]:
            pod.buckets[bound] += 1

    # --- Prometheus -------------------------------------------------------------------------------------------------

    def answer(self, query: Query) -> Answer:
        if not self.prometheus_up:
            return SourceError("connection refused")
        pods = [pod for pod in [*self.pods, *self.gone] if pod.scrapes]
        end = (query.end - START).total_seconds()
        if query.start is not None:
            start = (query.start - START).total_seconds()
            steps = round((end - start) / query.step) if query.step else 0
            grid = [start + index * query.step for index in range(steps + 1)]
            by_status = query.key in (REQUESTS_RECENT, REQUESTS_WHOLE)
            series = []
            for pod in pods:
                for keys in (("200",), ("500",)) if by_status else (("200", "500"),):
                    labels = {"pod": pod.name, "status": keys[0]} if by_status else {"pod": pod.name}
                    points = tuple(
                        (time, sum(seen[key] for key in keys))
                        for time in grid if (seen := _scrape(pod, time)) is not None
                    )  # fmt: skip
                    if points:
                        series.append(Series(labels, points))
            assert query.key in (REQUESTS_RECENT, REQUESTS_WHOLE, STILL_COUNTS)
            return tuple(series)
        if query.key == STILL_SCRAPES:
            return tuple(Series({"pod": pod.name}, ((end, pod.scrapes[-1][0]),)) for pod in self.pods if pod.scrapes)
        assert query.key in (LATENCY_RECENT, LATENCY_WHOLE), query.key
        window = float(query.expression.split("[")[1].split("ms")[0]) / 1000
        series = []
        for pod in pods:
            last = pod.scrapes[-1][2]
            index = bisect_left(pod.scrape_times, end - window)
            first = pod.scrapes[index][2] if index < len(pod.scrapes) else last
            series.extend(
                Series({"pod": pod.name, "le": "+Inf" if bound == float("inf") else str(bound)},
                       ((end, last[bound] - first[bound]),))
                for bound in BOUNDS
            )  # fmt: skip
        return tuple(series)


def _scrape(pod: SimulatedPod, time: float) -> dict[str, float] | None:
    index = bisect_right(pod.scrape_times, time) - 1
    return pod.scrapes[index][1] if index >= 0 and pod.scrape_times[index] >= time - 300 else None


def service(**overrides: Any) -> dict[str, Any]:
    """A spec with a Gateway, short holds and everything else as it is by default."""
    spec: dict[str, Any] = {
        "image": "pinn:1", "replicas": 3,
        "strategy": {"type": "Canary", "canary": {"steps": [
            {"weight": 10, "holdSeconds": 60}, {"weight": 50, "holdSeconds": 60}, {"weight": 100, "holdSeconds": 60}]}},
        "traffic": {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}],
                    "hostnames": ["pricing.example.com"]},
        "analysis": {"intervalSeconds": 10, "abortIntervalSeconds": 2},
    }  # fmt: skip
    return {**spec, **overrides}


def serving(world: World) -> World:
    """Bring the first revision into service."""
    world.run_until(lambda it: it.state.phase == "Stable").run(3)
    world.requests = world.failed_requests = 0
    return world


def started(image: str, **options: Any) -> World:
    """A world whose first revision serves and whose second, `image`, was just applied."""
    world = serving(World(service(**options.pop("spec", {})), **options))
    world.apply(image=image)
    return world
