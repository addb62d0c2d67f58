"""A PINNService as a user has it: applied with kubectl, watched, asked for its pods, its route and its reasons."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab.kube import Kube, KubeError, Manifest, Watch, container_restarts, is_ready, label_of, wait_until

REVISION_LABEL = "pinn.dev/revision"
SERVICE_LABEL = "pinn.dev/service"
CONTROL_PORT = 9900
VERIFIED: Manifest = {"mode": "Required", "timeoutSeconds": 240}
"""Prices are compared, with the patience of a machine that is busy with other tests."""

GATES: list[Manifest] = [
    {
        "name": "error-rate",
        "advance": {"below": "0.01"},
        "abort": {"above": "0.05", "forSeconds": 0, "consecutive": 2},
        "minSamples": 20,
    },
    {
        "name": "latency-p95",
        "advance": {"below": "1500m"},
        "abort": {"above": "2", "forSeconds": 0, "consecutive": 2},
        "relative": {"floor": "1500m"},
        "minSamples": 20,
    },
    {"name": "latency-p99", "advance": {"below": "4"}, "minSamples": 20},
    {"name": "cache-hit-rate", "dryRun": True},
]
"""The Standard profile with few samples and short patience, for a test of seconds, and with latencies that two busy
cores keep while other pods start. A cold cache has a minute before it is judged, which only tests of that gate wait."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One version of the resource or of its route, when it was received (unix seconds)."""

    time: float
    phase: str
    stable: str
    canary: str
    wanted: int
    verdicts: tuple[tuple[str, str], ...]
    reason: str
    version: str


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """The canary's weight on the HTTPRoute from then on."""

    time: float
    canary: int


def manifest(
    name: str,
    namespace: str,
    *,
    image: str,
    host: str,
    replicas: int = 1,
    steps: Sequence[tuple[int, int]] = ((10, 6), (50, 6), (100, 6)),
    env: Mapping[str, str] | None = None,
    limits: Mapping[str, str] | None = None,
    sha256: str | None = None,
    analysis: Mapping[str, Any] | None = None,
    rollback: Mapping[str, Any] | None = None,
    verification: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    tensorflow: bool = True,
) -> Manifest:
    """A whole resource. `steps` are (weight, seconds of hold); `env` makes a revision of its own.

    Without `tensorflow` each pod leaves ten seconds of processor time to other tests; single quotes never need it.

    Prices are compared only where `verification` asks for it: a dozen rollouts at once on two cores have better to do.
    """
    spec: Manifest = {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "replicas": replicas,
        "resources": {
            # A tenth of a core: with less, a loaded machine starves a new pod's probes.
            "requests": {"cpu": "100m", "memory": "128Mi", **(limits or {})},
            "limits": {"cpu": "2", "memory": "1536Mi", **(limits or {})},
        },
        "strategy": {
            "type": "Canary",
            "canary": {"steps": [{"weight": weight, "holdSeconds": hold} for weight, hold in steps]},
        },
        "traffic": {
            "router": "HTTPRoute",
            "parentRefs": [{"name": "edge", "namespace": "edge"}],
            "hostnames": [host],
        },
        "analysis": {"intervalSeconds": 2, "abortIntervalSeconds": 1, "gates": GATES, **(analysis or {})},
        "rollback": {"scaleDownDelaySeconds": 3, "drainSeconds": 2, **(rollback or {})},
        "verification": {"mode": "Disabled"} if verification is None else dict(verification),
    }
    environment = {**(env or {}), **({} if tensorflow else {"PINN_TENSORFLOW": "off"})}
    if environment:
        spec["env"] = [{"name": key, "value": value} for key, value in environment.items()]
    if sha256 is not None:
        spec["model"] = {"bundled": "european", "sha256": sha256}
    spec.update(more or {})
    return {
        "apiVersion": "pinn.dev/v1alpha1",
        "kind": "PINNService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


class Service:
    """One PINNService by name; nothing needs to exist yet."""

    def __init__(self, kube: Kube, name: str, namespace: str, *, host: str, tensorflow: bool = True) -> None:
        self.kube, self.name, self.namespace, self.host = kube, name, namespace, host
        self._tensorflow = tensorflow

    # --- the resource -------------------------------------------------------------------------------------------------

    def apply(self, **arguments: Any) -> Manifest:
        """`kubectl apply` of a spec made by `manifest`; the manifest."""
        document = manifest(self.name, self.namespace, host=self.host, tensorflow=self._tensorflow, **arguments)
        self.kube.apply(document)
        return document

    def read(self) -> Manifest:
        """The resource; empty if there is none."""
        return self.kube.get("pinnservices", self.name, self.namespace) or {}

    def status(self) -> Manifest:
        """Its status; empty if it has none yet."""
        status: Manifest = self.read().get("status", {})
        return status

    def condition(self, kind: str) -> str:
        """`True`, `False`, `Unknown`, or empty for a condition that is absent."""
        conditions = self.status().get("conditions", [])
        return next((str(item["status"]) for item in conditions if item["type"] == kind), "")

    def line(self) -> str:
        """What `kubectl get` shows, in one line, for messages."""
        status = self.status()
        return (
            f"{self.name}: phase={status.get('phase')} step={status.get('step')} weight={status.get('weight')} "
            f"stable={revision_of(status, 'stable')} canary={revision_of(status, 'canary')} "
            f"verdict={status.get('verdict')} reason={status.get('reason')!r}"
        )

    def delete(self) -> None:
        """`kubectl delete`, waiting until the resource is gone."""
        self.kube.delete("pinnservices", self.name, self.namespace)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, what: str, check: Callable[[Manifest], Any], *, seconds: float = 90.0) -> Any:
        """The first truthy value of `check(status)`."""
        return wait_until(
            f"{self.name} {what}", lambda: check(self.status()), seconds=seconds, every=0.15, tell=self.line
        )

    def wait_phase(self, *phases: str, seconds: float = 90.0) -> Manifest:
        """Until the newest spec was seen and its phase is one of these; the status."""

        def check() -> Manifest | None:
            resource = self.read()
            status: Manifest = resource.get("status", {})
            newest = status.get("observedGeneration") == resource.get("metadata", {}).get("generation")
            return status if newest and status.get("phase") in phases else None

        status: Manifest = wait_until(
            f"{self.name} {' or '.join(phases)}", check, seconds=seconds, every=0.15, tell=self.line
        )
        return status

    def wait_weight(self, weight: int, *, seconds: float = 90.0) -> Manifest:
        """Until the rollout wants this weight and the router has it; the status."""

        def check(status: Manifest) -> Manifest | None:
            return (
                status
                if (status.get("rollout") or {}).get("weight") == weight and self.route_weight() == weight
                else None
            )

        found: Manifest = self.wait(f"at weight {weight}", check, seconds=seconds)
        return found

    def wait_stable(self, *, seconds: float = 120.0, other_than: str = "") -> str:
        """Until a revision (another one than given) serves alone; its name."""

        def check(status: Manifest) -> str:
            revision = revision_of(status, "stable")
            return revision if status.get("phase") == "Stable" and revision != other_than else ""

        revision: str = self.wait("stable", check, seconds=seconds)
        return revision

    # --- its parts ----------------------------------------------------------------------------------------------------

    def pods(self, revision: str = "") -> list[Manifest]:
        """Pods, of one revision if given, without those that are being deleted."""
        labels = f"{SERVICE_LABEL}={self.name}" + (f",{REVISION_LABEL}={revision}" if revision else "")
        pods = self.kube.list("pods", self.namespace, labels=labels)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def untouched(self, revision: str) -> dict[str, int]:
        """Ready pods of a revision by unique id, with their restarts: equal before and after means untouched."""
        return {pod["metadata"]["uid"]: container_restarts(pod) for pod in self.pods(revision) if is_ready(pod)}

    def revisions(self) -> set[str]:
        """Revisions that have a Deployment."""
        found = self.kube.list("deployments", self.namespace, labels=f"{SERVICE_LABEL}={self.name}")
        return {label_of(item, REVISION_LABEL) for item in found}

    def replicas(self, revision: str) -> int:
        """Replicas that a revision's Deployment asks for; 0 without one."""
        deployment = self.kube.get("deployments", f"{self.name}-{revision}", self.namespace)
        return int(deployment["spec"]["replicas"]) if deployment else 0

    def route_weight(self) -> int | None:
        """Percent that the HTTPRoute gives to the canary's Service; None without a route."""
        route = self.kube.get("httproutes", self.name, self.namespace)
        return canary_weight(route, self.name) if route else None

    def set_route_weight(self, weight: int) -> None:
        """What somebody does by hand."""
        route = self.kube.get("httproutes", self.name, self.namespace)
        if route is None:
            raise KubeError(f"no HTTPRoute {self.name}")
        rules = route["spec"]["rules"]
        for backend in rules[0]["backendRefs"]:
            backend["weight"] = weight if backend["name"] == f"{self.name}-canary" else 100 - weight
        self.kube.merge("httproutes", self.name, self.namespace, {"spec": {"rules": rules}})

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of the resource's events, oldest first."""
        found = self.kube.list("events", self.namespace, fields=f"involvedObject.name={self.name}")
        found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [(event["reason"], event.get("message", "")) for event in found]

    def turn_bad(
        self, revision: str, kind: str, *, share: float = 1.0, seconds: float = 1.0, megabytes: float = 60.0
    ) -> float:
        """Order a fault from every pod of a revision of the derived image; the time just before, in unix seconds."""
        began = time.time()
        for pod in self.pods(revision):
            connection = http.client.HTTPConnection(pod["status"]["podIP"], CONTROL_PORT, timeout=5)
            order = json.dumps({"kind": kind, "share": share, "seconds": seconds, "megabytes": megabytes})
            connection.request("POST", "/fault", body=order, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{pod['metadata']['name']}: {answer.status} {answer.read().decode()}")
            connection.close()
        return began

    @contextmanager
    def watched(self) -> Iterator[Chronicle]:
        """A chronicle of every version of the resource and of its route."""
        chronicle = Chronicle(self)
        chronicle.start()
        try:
            yield chronicle
        finally:
            chronicle.stop()


class Chronicle:
    """Every change of a resource's status and of its route, from two watches that survive API server restarts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopped = threading.Event()
        self._watches: dict[str, Watch] = {}
        self.seen: list[Seen] = []
        self.routes: list[RouteSeen] = []
        self._threads = [
            threading.Thread(target=self._follow, args=("pinnservices", self._on_resource), daemon=True),
            threading.Thread(target=self._follow, args=("httproutes", self._on_route), daemon=True),
        ]

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait until the watches are closed."""
        self._stopped.set()
        for watch in list(self._watches.values()):
            watch.stop()
        for thread in self._threads:
            thread.join(15)

    def _follow(self, kind: str, note: Callable[[Manifest], None]) -> None:
        service = self._service
        while not self._stopped.is_set():
            watch = service.kube.watch(kind, service.namespace, seconds=60, fields=f"metadata.name={service.name}")
            self._watches[kind] = watch
            try:
                for change, item in watch:
                    if change in ("ADDED", "MODIFIED"):
                        note(item)
            except (OSError, http.client.HTTPException, KubeError, ValueError):
                self._stopped.wait(0.3)

    def _on_resource(self, resource: Manifest) -> None:
        version = resource["metadata"]["resourceVersion"]
        if self.seen and self.seen[-1].version == version:
            return
        status = resource.get("status", {})
        rollout = status.get("rollout") or {}
        gates = tuple((gate["name"], gate["verdict"]) for gate in rollout.get("gates", []))
        self.seen.append(
            Seen(
                time.time(), status.get("phase", ""), revision_of(status, "stable"), revision_of(status, "canary"),
                rollout.get("weight", 0), gates, status.get("reason", ""), version,
            )
        )  # fmt: skip

    def _on_route(self, route: Manifest) -> None:
        weight = canary_weight(route, self._service.name)
        if not self.routes or self.routes[-1].canary != weight:
            self.routes.append(RouteSeen(time.time(), weight))

    def weights(self) -> list[int]:
        """The canary's weights on the route, in order."""
        return [route.canary for route in self.routes]

    def zero_since(self, moment: float) -> float | None:
        """When the route's canary weight was first seen at 0 after a moment (unix seconds)."""
        return next((route.time for route in self.routes if route.time >= moment and route.canary == 0), None)


def revision_of(status: Manifest, role: str) -> str:
    """The revision in a role (`stable`, `canary`, `previous`), empty if there is none."""
    return str((status.get(role) or {}).get("revision", ""))


def canary_weight(route: Manifest, name: str) -> int:
    """Percent that a route gives to the Service `<name>-canary`."""
    return sum(
        backend.get("weight", 1)
        for rule in route["spec"].get("rules", [])
        for backend in rule.get("backendRefs", [])
        if backend["name"] == f"{name}-canary"
    )
