"""A cluster, a router, clients and a Prometheus in fake time, for whole rollouts in milliseconds.

It runs the real `decide` on the real manifests that it renders: what is applied is parsed back into what is observed.
Only time, pods and requests are simulated. The operator is woken as in a cluster: when something changed, and when it
asked to be.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from pinn_operator.core import decide as deciding
from pinn_operator.core.api import Resource, parse_resource, status_from_manifest, status_to_manifest
from pinn_operator.core.decision import Action, Apply, Decision, Event
from pinn_operator.core.gates.questions import due
from pinn_operator.core.objects.desired import Desired
from pinn_operator.core.objects.plan import plan
from pinn_operator.core.observed import Observed, Pod, PodReport, RevisionRecord, Route, Termination, Workload
from pinn_operator.core.routers.http_route import parse_route
from pinn_operator.core.samples import (
    Answer,
    AnyAnswer,
    PodQuestion,
    PricePod,
    PriceQuestion,
    PriceReply,
    Query,
    Question,
    Samples,
    Series,
)
from pinn_operator.core.situation import situation_of
from pinn_operator.core.status.values import Status
from pinn_operator.core.verification.questions import due_prices
from pinn_operator.kube.parsing import parse_record
from tests.story.kubelet import (
    IMAGE_ABSENT,
    NO_ROOM,
    NODE_GONE_SECONDS,
    NODE_SILENT_SECONDS,
    QUOTA,
    StoryPod,
    moment,
)
from tests.story.prices import Oracle, Pricing
from tests.story.prometheus import PRICED, START, Prometheus, SimulatedPod
from tests.story.reader import Reader
from tests.support.prices import Change, same

Clock = Callable[[float], float]


def constant(value: float) -> Clock:
    return lambda _: value


NEVER, QUICK = constant(0.0), constant(0.004)


@dataclass(frozen=True)
class Behaviour:
    """What an image does. Functions take the seconds since the story began."""

    errors: Clock = NEVER
    latency: Clock = QUICK
    refused: Clock = NEVER
    """Share of the requests that are answered with `refused_status`."""
    refused_status: str = "429"
    swallowed: Clock = NEVER
    """Share of the requests that are never answered, and so never counted."""
    slow: Clock = NEVER
    """Share of the requests that take three seconds."""
    prices: Change = same
    """What its model makes of right prices."""
    price_api: bool = True
    startup_seconds: float = 2.0
    image_missing: bool = False
    report: PodReport | None = None
    oom_at: float | None = None
    crashes_at: float | None = None
    """From then on its container ends as soon as it has started."""
    crash_times: tuple[float, ...] = ()
    """Moments at which its container ends once, and is started again."""
    never_ready: bool = False
    pull: Callable[[float], str] = lambda seconds: ""
    """What its registry says instead of giving the image; empty when it gives it."""
    configuration: Callable[[float], str] = lambda seconds: ""
    """What the kubelet says of a Secret or ConfigMap that is missing; empty when all are there."""
    kubelet: Callable[[float], tuple[str, str]] = lambda seconds: ("", "")
    """Reason and message of what else the kubelet waits for before it runs the container."""
    init: Callable[[float], Mapping[str, Any]] = lambda seconds: {}
    """The state of an init container that somebody injects; empty when it has ended well."""
    gated: Callable[[float], bool] = lambda seconds: False
    """A scheduling gate holds its pods back."""
    volume: Callable[[float], str] = lambda seconds: ""
    """The event about a volume that cannot be mounted; empty when it can."""


class World:
    """One PINNService and everything around it."""

    def __init__(
        self, spec: Mapping[str, Any], *, images: Mapping[str, Behaviour] | None = None, rate: float = 40.0,
        seed: int = 1, name: str = "eu-options", prometheus: Prometheus | None = None,
    ) -> None:  # fmt: skip
        self.name, self.rate, self.seconds = name, rate, 0.0
        self.random = random.Random(seed)
        self.images = dict(images or {})
        self.spec: dict[str, Any] = dict(spec)
        self.generation, self.version = 1, 1
        self.annotations: dict[str, str] = {}
        self.status: dict[str, Any] = {}
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: list[StoryPod] = []
        self.gone: list[StoryPod] = []
        self.own: dict[str, Callable[[float], float | None]] = {}
        """What the queries of own gates answer, by gate name."""
        self.events: list[Event] = []
        self.transitions: list[tuple[float, str, str]] = []
        self.weights: list[tuple[float, int]] = []
        self.commits = 0
        self.prometheus = prometheus or Prometheus()
        self.reader = Reader()
        self.dress: Callable[[SimulatedPod], None] = lambda pod: None
        """What is special about pods; called for each of them all the time."""
        self.oracle = Oracle(self._pricing, seed=seed)
        self.oracle.counted = self._count_own
        self.reads_alarm = True
        """Bad answers of the canary wake the operator."""
        self.strangers: list[SimulatedPod] = []
        """Pods that are scraped too and are nobody's business here."""
        self.operator_up = True
        self.route_kind_served = True
        self.route_accepted = True
        self.quota = 1000
        """How many pods a ResourceQuota lets be."""
        self.room = 1000
        """How many pods fit onto the nodes."""
        self.nodes: dict[str, float | None] = dict.fromkeys(("node-1", "node-2", "node-3"))
        """Since when each node is silent; None for one that is well."""
        self.cordoned: set[str] = set()
        self.endpoint_lag = 0.0
        """How long the router goes on with the endpoints it knew."""
        self.connections = 0
        """With router Replicas: so many clients keep one connection each; 0: each request has its own."""
        self.connection_seconds = float("inf")
        """So long on average a client keeps a connection before it makes a new one."""
        self.clients: dict[int, float] = {}
        """Share of the requests of single clients that fail, whoever answers them."""
        self.stamps = True
        """Whether the Gateway says which generation of the route it speaks of."""
        self.parents_absent: set[str] = set()
        """Gateways that say nothing of the route."""
        self.clock_offset = 0.0
        """How far the operator's clock is ahead of everybody else's, in seconds."""
        self.restless = False
        """The operator is woken at every tick, for nothing."""
        self.router_lag = 0.2
        self.failed_requests = 0.0
        self.refused_requests = 0.0
        self.requests = 0.0
        self._counter = 0
        self._failures: dict[str, str] = {}
        self._endpoints: list[tuple[float, list[StoryPod]]] = []
        self._pinned: dict[int, tuple[StoryPod, float]] = {}
        self._route_generation, self._accepted_generation = 0, 0
        self._route_seen: tuple[tuple[Any, ...], Route | None] = ((), None)
        self._route_changes: list[tuple[float, dict[str, int]]] = []
        self.last: Decision | None = None
        self._read: Resource | None = None
        self._parsed: tuple[dict[str, Any], Status] = ({}, Status())
        self._recorded: dict[tuple[str, str], RevisionRecord] = {}
        self._planned: tuple[tuple[Any, ...], tuple[Action, ...]] = ((), ())
        self._seen: tuple[Any, ...] = ()

    # --- what people do ---------------------------------------------------------------------------------------------

    def apply(self, **changes: Any) -> None:
        """`kubectl apply` of a changed spec."""
        self.spec = {**self.spec, **changes}
        self.generation += 1

    def run(self, seconds: float, *, tick: float = 0.5) -> World:
        """Let time pass; whenever there is a reason, the operator makes a pass."""
        for _ in range(round(seconds / tick)):
            self.seconds += tick
            self._live(tick)
            if self.operator_up and self._awake():
                self.reconcile()
        return self

    def _awake(self) -> bool:
        """A watch event since the last pass, or the moment that the last pass asked for."""
        seen = (
            self.generation, self.version, id(self.objects), self.clock_offset, self._route_status(),
            self.annotations, dict(self._failures), [id(pod.seen()) for pod in self.pods],
            self.oracle.news(self.seconds),
        )  # fmt: skip
        changed, self._seen = seen != self._seen, seen
        alarmed, self.reader.alarmed = self.reader.alarmed and self.reads_alarm, False
        requeue = self.last.requeue_at if self.last else None
        return alarmed or self.restless or changed or (requeue is not None and self.now >= requeue)

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
        """By the operator's clock."""
        return START + timedelta(seconds=self.seconds + self.clock_offset)

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
            "resourceVersion": str(self.version), "annotations": dict(self.annotations),
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
        return first, self._decided(again, observed, samples)

    def _decide(self) -> tuple[Decision, Observed, Samples]:
        resource, observed = self._resource(), self.observe()
        situation = situation_of(resource, observed)
        samples = self._answers((*due(situation, self.now), *due_prices(situation, self.now)))
        return self._decided(resource, observed, samples), observed, samples

    def _answers(self, questions: Iterable[Question]) -> Samples:
        """What each kind of source answers."""
        asked = list(questions)
        samples: dict[str, AnyAnswer] = {it.key: self.answer(it) for it in asked if isinstance(it, Query)}
        samples |= self.oracle.answers((it for it in asked if isinstance(it, PriceQuestion)), self.seconds)
        return samples | self.reader.answers(it for it in asked if isinstance(it, PodQuestion))

    def _pricing(self, asked: PricePod) -> Pricing | None:
        """How a pod answers for prices now."""
        pod = next((pod for pod in self.pods if pod.name == asked.name and pod.ready), None)
        if pod is None:
            return None
        how = self._behaviour(pod.image)
        return Pricing(
            how.prices, errors=how.errors(self.seconds), slow=how.slow(self.seconds),
            latency=how.latency(self.seconds), api=how.price_api,
        )  # fmt: skip

    def _count_own(self, asked: PricePod, reply: PriceReply) -> None:
        """An answer to the operator is counted as one to a client is."""
        pod = next((pod for pod in self.pods if pod.name == asked.name), None)
        if pod is not None and reply.status:
            pod.count(str(reply.status), reply.seconds)
            pod.counters[PRICED] += len(reply.quotes)

    def _decided(self, resource: Resource, observed: Observed, samples: Samples) -> Decision:
        with patch.object(deciding, "plan", self._plan):
            return deciding.decide(resource, observed, samples, self.now)

    def _plan(self, resource: Resource, desired: Desired, observed: Observed) -> tuple[Action, ...]:
        """`plan` is pure and is most of a pass, so its answer is kept until something is different."""
        asked = (id(resource.spec), resource.generation, desired, id(observed.objects), observed.route_kind_served)
        if self._planned[0] != asked:
            self._planned = (asked, plan(resource, desired, observed))
        return self._planned[1]

    def _resource(self) -> Resource:
        """As read from the API server; parsed once per generation, because stories take many passes."""
        if self._read is None or self._read.generation != self.generation:
            self._read = parse_resource({**self.manifest(), "status": {}})
        retry = self.annotations.get("pinn.dev/retry", "")
        return replace(self._read, status=self.state, resource_version=str(self.version), retry=retry)

    def reconcile(self, *, crash_before_acting: bool = False) -> Decision:
        decision, observed, samples = self._decide()
        self.decided(decision, observed, samples)
        if decision.status != self.state:
            written = status_to_manifest(decision.status)
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
                self.delete(action.kind, action.name)
        self.events.extend(decision.events)
        self.transitions.extend((self.seconds, item.kind, item.revision) for item in decision.transitions)
        return decision

    def decided(self, decision: Decision, observed: Observed, samples: Samples) -> None:
        """For those who watch: what a pass saw and decided, before anything of it is done."""

    def _write(self, manifest: dict[str, Any]) -> None:
        key = (manifest["kind"], manifest["metadata"]["name"])
        self.objects = {**self.objects, key: manifest}
        if manifest["kind"] == "HTTPRoute":
            self._route_changes.append((self.seconds, self._live_weights()))
            self._route_generation += 1

    def delete(self, kind: str, name: str) -> None:
        """Somebody, or the operator, deletes an object."""
        self.objects = {key: value for key, value in self.objects.items() if key != (kind, name)}
        if kind == "HTTPRoute":
            self._route_changes.append((self.seconds, {}))

    def retry(self, order: str) -> None:
        """`kubectl annotate pinnservice … pinn.dev/retry=<order>`."""
        self.annotations = {**self.annotations, "pinn.dev/retry": order}

    def of(self, image: str) -> list[StoryPod]:
        """The pods of an image that are not being deleted."""
        return [pod for pod in self.pods if pod.image == image and pod.deleted is None and pod.phase != "Failed"]

    def kill(self, image: str) -> None:
        """All pods of an image are deleted by force; their Deployment makes new ones."""
        for pod in [pod for pod in self.pods if pod.image == image]:
            self._remove(pod)

    def evict(self, image: str) -> None:
        """The node evicts all pods of an image: they stay as records, and their Deployment makes new ones."""
        for pod in self.of(image):
            pod.disruption = ("TerminationByKubelet", "The node was low on resource: memory.")
            pod.failed = ("Evicted", "The node was low on resource: memory.")
            pod.phase, pod.ended, pod.termination = "Failed", True, Termination("Error", 137)
            self._set_ready(pod, container=False, ready=False)

    def take_away(self, pods: list[StoryPod], reason: str = "EvictionByEvictionAPI", message: str = "") -> None:
        """Somebody evicts or preempts pods, as a drain does: they end in good order, and others are made."""
        for pod in pods:
            text = message or "Eviction API: evicting"
            pod.disruption, pod.deleted = (reason, text) if reason else None, self.seconds

    def drain(self, node: str) -> None:
        """`kubectl drain`."""
        self.cordoned.add(node)
        self.take_away([pod for pod in self.pods if pod.node == node and pod.deleted is None])

    def lose_node(self, node: str) -> None:
        """A node goes silent, and its pods answer nobody."""
        self.nodes[node] = self.seconds

    def bring_back(self, node: str, *, rebooted: bool = False) -> None:
        """A node is back; after a reboot its containers are started again."""
        self.nodes[node] = None
        self.cordoned.discard(node)
        for pod in [pod for pod in self.pods if pod.node == node and pod.phase == "Running"]:
            if rebooted:
                pod.restarts += 1
                pod.termination, pod.started = Termination("Unknown", 255), self.seconds

    def blink(self, image: str, seconds: float) -> None:
        """The probes of all pods of an image fail for a while."""
        for pod in self.of(image):
            pod.unready_until = self.seconds + seconds

    def _remove(self, pod: StoryPod) -> None:
        pod.gone = True
        self.pods.remove(pod)
        self.gone.append(pod)

    def edit_weight(self, canary: int, *, manager: str = "kubectl-edit") -> None:
        """Somebody, or another controller, edits the route."""
        route = self.objects["HTTPRoute", self.name]
        rules = route["spec"]["rules"]
        backends = [
            {**item, "weight": canary if item["name"].endswith("-canary") else 100 - canary}
            for item in rules[0]["backendRefs"]
        ]
        written = {
            "manager": manager,
            "operation": "Update",
            "time": moment(self.seconds),
            "fieldsV1": {"f:spec": {"f:rules": {}}},
        }
        changed = {
            **route, "metadata": {**route["metadata"], "managedFields": [written]},
            "spec": {**route["spec"], "rules": [{**rules[0], "backendRefs": backends}]},
        }  # fmt: skip
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
        pods = tuple(self._seen_pod(pod) for pod in self.pods)
        workloads, selectors, records = {}, {}, {}
        for (kind, name), manifest in self.objects.items():
            if kind == "Deployment":
                revision = name.removeprefix(f"{self.name}-")
                ready = sum(pod.ready for pod in self.pods if pod.revision == revision and pod.deleted is None)
                workloads[revision] = Workload(
                    revision, manifest["spec"]["replicas"], ready, ready, settled=True,
                    failure=self._failures.get(revision, ""),
                )  # fmt: skip
            elif kind == "Service":
                selectors[name] = manifest["spec"]["selector"]
            elif kind == "ControllerRevision":
                key = (name, str(manifest["metadata"].get("annotations")))
                if key not in self._recorded:
                    self._recorded[key] = parse_record(manifest)
                records[name.removeprefix(f"{self.name}-")] = self._recorded[key]
        return Observed(workloads, pods, selectors, self._route(), self.route_kind_served, records, self.objects)

    def _behaviour(self, image: str) -> Behaviour:
        return self.images.get(image, Behaviour())

    def _live(self, tick: float) -> None:
        self._deployments()
        for pod in self.pods:
            self._pod(pod)
        self._traffic(tick)
        if self.endpoint_lag:
            self._endpoints = [*self._endpoints[-200:], (self.seconds, [pod for pod in self.pods if pod.ready])]
        for pod in self.pods:
            self.dress(pod)
            pod.live(self.seconds)
        self.prometheus.live([*self.pods, *self.strangers], self.seconds)
        self._read_pods()

    def _seen_pod(self, pod: StoryPod) -> Pod:
        seen = pod.seen()
        report = None if pod.ready or pod.started is None else self._behaviour(pod.image).report
        return seen if report is None and not pod.event else replace(seen, report=report, trouble=pod.event)

    def _route_status(self) -> tuple[Any, ...]:
        if self.route_accepted:
            self._accepted_generation = self._route_generation
        return (
            self._route_generation, self._accepted_generation, self.stamps, frozenset(self.parents_absent),
            self.route_kind_served,
        )  # fmt: skip

    def _route(self) -> Route | None:
        manifest = self.objects.get(("HTTPRoute", self.name))
        if manifest is None or not self.route_kind_served:
            return None
        known = (id(manifest), *self._route_status())
        if self._route_seen[0] != known:
            stamp = {"observedGeneration": self._accepted_generation} if self.stamps else {}
            conditions = [{"type": kind, "status": "True", **stamp} for kind in ("Accepted", "ResolvedRefs")]
            parents = [
                {"parentRef": parent, "conditions": conditions}
                for parent in manifest["spec"]["parentRefs"]
                if parent["name"] not in self.parents_absent
            ]
            metadata = {**manifest["metadata"], "namespace": "pricing", "generation": self._route_generation}
            self._route_seen = (known, parse_route({**manifest, "metadata": metadata, "status": {"parents": parents}}))
        return self._route_seen[1]

    def _deployments(self) -> None:
        self._failures = {}
        for (kind, name), manifest in self.objects.items():
            if kind != "Deployment":
                continue
            revision = name.removeprefix(f"{self.name}-")
            mine = [
                pod for pod in self.pods
                if pod.revision == revision and pod.phase != "Failed" and pod.deleted is None
            ]  # fmt: skip
            wanted = manifest["spec"]["replicas"]
            image = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
            counted = sum(pod.phase != "Failed" for pod in self.pods)
            for _ in range(max(0, min(wanted - len(mine), self.quota - counted))):
                self._counter += 1
                self.pods.append(StoryPod(f"{name}-abc-{self._counter}", revision, image, self.seconds))
                counted += 1
            if wanted - len(mine) > 0 and counted >= self.quota:
                self._failures[revision] = QUOTA.format(name=f"{name}-abc-x", used=self.quota)
            for pod in mine[wanted:]:
                self._remove(pod)
        deployments = {name.removeprefix(f"{self.name}-") for kind, name in self.objects if kind == "Deployment"}
        for pod in [pod for pod in self.pods if pod.revision not in deployments]:
            self._remove(pod)

    def _pod(self, pod: StoryPod) -> None:
        if pod.phase == "Failed":
            return
        behaviour = self._behaviour(pod.image)
        if pod.deleted is not None:
            self._set_ready(pod, container=pod.container_ready, ready=False)
            if self.seconds >= pod.deleted + pod.grace and self.nodes.get(pod.node) is None:
                self._remove(pod)
            return
        pod.gated = not pod.node and behaviour.gated(self.seconds)
        if not pod.node and (pod.gated or not self._scheduled(pod)):
            return
        silent_since = self.nodes.get(pod.node)
        if silent_since is not None:
            if self.seconds >= silent_since + NODE_SILENT_SECONDS:
                self._set_ready(pod, container=pod.container_ready, ready=False)
            if self.seconds >= silent_since + NODE_GONE_SECONDS:
                self.take_away([pod], "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
            return
        if pod.started is None and not self._can_start(pod, behaviour):
            return
        if pod.started is None:
            pod.started, pod.phase, pod.waiting, pod.waiting_message = self.seconds, "Running", "", ""
            pod.started = max(pod.created, self.seconds) if pod.event else pod.created
            pod.event = ""
        ready = (
            self.seconds - pod.started >= behaviour.startup_seconds and self.seconds >= pod.unready_until
            and behaviour.report is None and not behaviour.never_ready
        )  # fmt: skip
        if behaviour.oom_at is not None and self.seconds >= behaviour.oom_at:
            ended = self._ended("OOMKilled", 137, max(pod.created, behaviour.oom_at))
            pod.termination, pod.restarts, ready = ended, 1, False
        due = [time for time in behaviour.crash_times if time <= self.seconds]
        if len(due) > pod.crashes:
            pod.crashes = len(due)
            pod.termination, pod.started, ready = self._ended("Error", 1, self.seconds), self.seconds, False
            pod.restarts += 1
        pod.waiting = ""
        if behaviour.crashes_at is not None and self.seconds >= behaviour.crashes_at:
            pod.termination, ready = self._ended("Error", 1, max(pod.created, behaviour.crashes_at)), False
            pod.restarts, pod.waiting = 2, "CrashLoopBackOff"
        self._set_ready(pod, container=ready, ready=ready)

    def _ended(self, reason: str, code: int, seconds: float) -> Termination:
        return Termination(reason, code, "bye", finished=START + timedelta(seconds=seconds))

    def _scheduled(self, pod: StoryPod) -> bool:
        nodes = [node for node, silent in self.nodes.items() if silent is None and node not in self.cordoned]
        if not nodes or sum(bool(other.node) and other.phase != "Failed" for other in self.pods) >= self.room:
            pod.unscheduled = NO_ROOM
            return False
        pod.node, pod.unscheduled = nodes[self._counter % len(nodes)], ""
        return True

    def _can_start(self, pod: StoryPod, behaviour: Behaviour) -> bool:
        pull = IMAGE_ABSENT if behaviour.image_missing else behaviour.pull(self.seconds)
        if pull:
            pod.waiting, pod.waiting_message = "ImagePullBackOff", pull.format(image=pod.image)
            return False
        configuration = behaviour.configuration(self.seconds)
        if configuration:
            pod.waiting, pod.waiting_message = "CreateContainerConfigError", configuration
            return False
        pod.init = behaviour.init(self.seconds)
        pod.waiting, pod.waiting_message = behaviour.kubelet(self.seconds)
        if pod.init or pod.waiting:
            return False
        if behaviour.volume(self.seconds):
            pod.event = behaviour.volume(self.seconds)
            return False
        return True

    def _set_ready(self, pod: StoryPod, *, container: bool, ready: bool) -> None:
        pod.container_ready = container
        if ready != pod.ready:
            pod.ready, pod.ready_changed = ready, self.seconds
        pod.was_ready = pod.was_ready or ready

    def _traffic(self, tick: float) -> None:
        expected = self.rate * tick
        count = int(expected) + (self.random.random() < expected % 1)
        self.requests += count
        if self.spec["traffic"]["router"] != "HTTPRoute":
            self._answer(self.name, count)
            return
        share = self._weights_in_force().get(f"{self.name}-canary")
        if share is None:
            self.failed_requests += count
            return
        canary = sum(self.random.random() * 100 < share for _ in range(count))
        self._answer(f"{self.name}-canary", canary)
        self._answer(f"{self.name}-stable", count - canary)

    def backends(self, service: str) -> list[StoryPod]:
        """The ready pods behind a Service, as the router knows them."""
        selector = self.objects.get(("Service", service), {}).get("spec", {}).get("selector", {})
        revision = selector.get("pinn.dev/revision")
        known = [pod for pod in self.pods if pod.ready]
        if self.endpoint_lag:
            old = [pods for time, pods in self._endpoints if time + self.endpoint_lag <= self.seconds]
            known = old[-1] if old else known
        return [pod for pod in known if selector and revision in (None, pod.revision)]

    def _answer(self, service: str, count: int) -> None:
        backends = self.backends(service)
        if not backends:
            self.failed_requests += count
            return
        selected = len(backends)
        backends = [*backends, *self._kept(backends)]
        behaviours = [self._behaviour(pod.image) for pod in backends]
        errors = [behaviour.errors(self.seconds) for behaviour in behaviours]
        latencies = [behaviour.latency(self.seconds) for behaviour in behaviours]
        refused = [behaviour.refused(self.seconds) for behaviour in behaviours]
        swallowed = [behaviour.swallowed(self.seconds) for behaviour in behaviours]
        slow = [behaviour.slow(self.seconds) for behaviour in behaviours]
        for _ in range(count):
            client = int(self.random.random() * self.connections) if self.connections else None
            index = self._chosen(client, backends, selected)
            pod, behaviour = backends[index], behaviours[index]
            if not pod.answers or self.nodes.get(pod.node) is not None:
                self.failed_requests += 1
                continue
            failed = self.random.random() < errors[index]
            if client in self.clients and self.random.random() < self.clients[client]:
                failed = True
            latency = latencies[index] * self.random.lognormvariate(0, 0.3)
            if slow[index] and self.random.random() < slow[index]:
                latency = 3.0
            status = "500" if failed else "200"
            if swallowed[index] and self.random.random() < swallowed[index]:
                failed, latency = True, float("inf")
            elif refused[index] and self.random.random() < refused[index]:
                status = behaviour.refused_status
                self.refused_requests += 1
            self.failed_requests += failed
            pod.serve(self.seconds, status, latency)

    def _kept(self, backends: list[StoryPod]) -> list[StoryPod]:
        """Pods that clients are connected to, whether the Service selects them still or not."""
        kept = {id(pod): pod for pod, _ in self._pinned.values() if pod.answers}
        return [pod for pod in kept.values() if pod not in backends]

    def _chosen(self, client: int | None, backends: list[StoryPod], selected: int) -> int:
        """Which of them gets the next request: with kept connections the one that its client is connected to."""
        if client is None:
            return int(self.random.random() * selected)
        pinned, until = self._pinned.get(client, (None, 0.0))
        if pinned is None or not pinned.answers or self.seconds >= until:
            pinned = backends[int(self.random.random() * selected)]
            keeps = self.connection_seconds
            until = self.seconds + (keeps if keeps == float("inf") else self.random.expovariate(1 / keeps))
            self._pinned[client] = (pinned, until)
        return backends.index(pinned)

    # --- Prometheus ---------------------------------------------------------------------------------------------------

    def _read_pods(self) -> None:
        """The operator reads the pods itself that its last pass asked about."""
        if not self.operator_up:
            self.reader.forget()
        elif self.reader.wanted:
            canary = self.state.canary.revision if self.state.canary is not None else ""
            pods = [pod for pod in self.pods if pod.name in self.reader.wanted]
            self.reader.live(pods, canary, self.seconds, self.now.timestamp())

    @property
    def prometheus_up(self) -> bool:
        """Whether Prometheus answers at all."""
        return self.prometheus.up

    @prometheus_up.setter
    def prometheus_up(self, up: bool) -> None:
        self.prometheus.up = up

    def answer(self, query: Query) -> Answer:
        """What Prometheus says, if anything."""
        name = query.key.removeprefix("gate/")
        if self.prometheus.up and not self.prometheus.forgetful and name in self.own and name != query.key:
            value = self.own[name](self.seconds)
            return () if value is None else (Series({}, ((query.end.timestamp(), value),)),)
        return self.prometheus.answer(query, self.seconds)


def service(**overrides: Any) -> dict[str, Any]:
    """A spec with a Gateway, short holds and everything else as it is by default.

    But for the verification of prices: it would find most images of these stories before any client does. Stories of
    prices turn it on.
    """
    spec: dict[str, Any] = {
        "image": "pinn:1", "replicas": 3,
        "strategy": {"type": "Canary", "canary": {"steps": [
            {"weight": 10, "holdSeconds": 60}, {"weight": 50, "holdSeconds": 60}, {"weight": 100, "holdSeconds": 60}]}},
        "traffic": {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}],
                    "hostnames": ["pricing.example.com"]},
        "analysis": {"intervalSeconds": 10, "abortIntervalSeconds": 2},
        "verification": {"mode": "Disabled"},
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
