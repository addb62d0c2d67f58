"""The `Cluster` that is a Kubernetes API server."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pinn_operator.core.api import API_VERSION, KIND, PLURAL, Resource, status_to_manifest
from pinn_operator.core.decision import Action, Delete, Event
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import SERVICE_LABEL, controller_uid
from pinn_operator.core.observed import Observed, Pod
from pinn_operator.core.routers import http_route
from pinn_operator.core.routers.registry import KINDS
from pinn_operator.core.status.values import Status
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.errors import Forbidden, NotFound, NotListed, NotOwned
from pinn_operator.kube.events import EventRecorder
from pinn_operator.kube.parsing import (
    is_terminating,
    label_of,
    parse_pod,
    parse_record,
    parse_selector,
    parse_workload,
    report_address,
)
from pinn_operator.kube.reports import PodReporter
from pinn_operator.kube.troubles import PodTroubles

PINN_SERVICE: Final = Kind(API_VERSION, KIND, PLURAL)
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
CONTROLLER_REVISION: Final = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
SERVICE: Final = Kind("v1", "Service", "services")
POD: Final = Kind("v1", "Pod", "pods")
SECRET: Final = Kind("v1", "Secret", "secrets")
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
HTTP_ROUTE: Final = Kind.of(http_route.HTTP_ROUTE)
ROUTER_KINDS: Final = tuple(map(Kind.of, KINDS))
OWNED: Final = {
    (kind.api_version, kind.kind): kind for kind in (DEPLOYMENT, CONTROLLER_REVISION, SERVICE, *ROUTER_KINDS)
}

HEARD: Final = (POD, DEPLOYMENT, SERVICE, *ROUTER_KINDS)
"""Kinds whose changes wake the PINNService they belong to."""

UNSERVED_SECONDS: Final = 120.0
DOUBTED_SECONDS: Final = 15.0
"""How long it is taken for granted that the API server does not know HTTPRoute, after it has said so."""


class _Missed:
    """Since when the API server says that it does not know a kind.

    One that starts, or whose store does, may say so for a moment of a kind that it serves.
    """

    def __init__(self) -> None:
        self._since = float("inf")

    def for_long(self, now: float) -> bool:
        """It says so once more: whether that is to be believed."""
        self._since = min(self._since, now)
        return now >= self._since + DOUBTED_SECONDS

    def ends(self) -> None:
        self._since = float("inf")


class ApiCluster:
    """Reads and writes through one client. `clock` is monotonic seconds."""

    def __init__(
        self,
        client: Client,
        *,
        events: EventRecorder,
        reporter: PodReporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._events = events
        self._reporter = reporter
        self._troubles = PodTroubles(client, clock=clock)
        self._clock = clock
        self._routes_unserved_until = float("-inf")
        self._routes_served = False
        self._routes_missed, self._kind_missed = _Missed(), _Missed()
        self._since: dict[tuple[str, str], dict[tuple[str, bool], float]] = {}
        """By resource, since when each of its started pods was seen ready, or not ready, on `clock`."""

    async def read(self, namespace: str, name: str) -> Manifest | None:
        """See `Cluster.read`."""
        try:
            found = await self._client.get(PINN_SERVICE, namespace, name)
        except NotFound as error:
            if error.object_missing:
                self._kind_missed.ends()
            elif not self._kind_missed.for_long(self._clock()):
                raise
            self._since.pop((namespace, name), None)
            return None
        self._kind_missed.ends()
        return found

    async def read_all(self, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of every PINNService in a namespace, or in all."""
        items = await self._client.list_metadata(PINN_SERVICE, namespace)
        return [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items]

    async def is_served(self, namespace: str | None) -> bool:
        """Whether the API server knows PINNService: whether the CRD is installed."""
        try:
            await self._client.newest_version(PINN_SERVICE, namespace)
        except NotFound:
            return False
        return True

    async def read_secret(self, namespace: str, name: str, key: str) -> str | None:
        """One value of a Secret as text; None if there is none. Never logged, never kept here."""
        encoded = (await self._data(SECRET, namespace, name, listed_in="metricsSecrets")).get(key)
        if encoded is None:
            return None
        try:
            return base64.b64decode(encoded, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            return None

    async def read_config_map(self, namespace: str, name: str, key: str) -> str | None:
        """One value of a ConfigMap; None if there is none."""
        value = (await self._data(CONFIG_MAP, namespace, name, listed_in="metricsConfigMaps")).get(key)
        return value if isinstance(value, str) else None

    async def observe(self, resource: Resource) -> Observed:
        """See `Cluster.observe`. The lists are asked for at the same time."""
        deployments, services, records, routes, pods = await asyncio.gather(
            self._owned(resource, DEPLOYMENT),
            self._owned(resource, SERVICE),
            self._owned(resource, CONTROLLER_REVISION),
            self._routes(resource),
            self._list(resource, POD),
        )
        route = next((item for item in routes or () if item["metadata"]["name"] == resource.name), None)
        return Observed(
            workloads={
                workload.revision: workload
                for workload in (parse_workload(item) for item in deployments if not is_terminating(item))
            },
            pods=await self._troubles.add(resource.namespace, await self._pods(resource, pods)),
            selectors={item["metadata"]["name"]: parse_selector(item) for item in services},
            route=http_route.parse_route(route) if route is not None else None,
            route_kind_served=routes is not None,
            records={record.revision: record for record in map(parse_record, records)},
            objects={
                (item["kind"], item["metadata"]["name"]): item
                for item in (*deployments, *services, *records, *(routes or ()))
            },
        )

    async def commit_status(self, resource: Resource, status: Status) -> None:
        """See `Cluster.commit_status`. The API server takes nothing but the status from what is sent here."""
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": resource.name,
                "namespace": resource.namespace,
                "uid": resource.uid,
                "resourceVersion": resource.resource_version,
            },
            "spec": resource.spec_manifest,
            "status": status_to_manifest(status),
        }
        await self._client.replace_status(PINN_SERVICE, resource.namespace, manifest)

    async def act(self, resource: Resource, action: Action) -> None:
        """See `Cluster.act`.

        Server-side apply with force takes over whatever has that name, so what is there is looked at first: the Service
        of a team that happens to be called like a PINNService is not ours to change.
        """
        if isinstance(action, Delete):
            kind = _owned_kind(action.api_version, action.kind)
            try:
                live = await self._client.get(kind, resource.namespace, action.name)
                _check_owner(resource, live, kind)
                await self._client.delete(kind, resource.namespace, action.name, uid=live["metadata"]["uid"])
            except NotFound:
                return
            return
        manifest = action.manifest
        kind = _owned_kind(manifest["apiVersion"], manifest["kind"])
        try:
            live = await self._client.get(kind, resource.namespace, manifest["metadata"]["name"])
            _check_owner(resource, live, kind)
        except NotFound as error:
            if not error.object_missing:
                raise
        await self._client.apply(kind, resource.namespace, manifest)

    async def emit(self, resource: Resource, event: Event) -> None:
        """See `Cluster.emit`."""
        await self._events.emit(resource, event)

    async def emit_missing(self, resource: Resource, event: Event, time: datetime) -> None:
        """See `Cluster.emit_missing`."""
        await self._events.emit_missing(resource, event, time)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _data(self, kind: Kind, namespace: str, name: str, *, listed_in: str) -> dict[str, Any]:
        """Of a Secret or ConfigMap that a resource refers to; empty if there is none. Raises NotListed."""
        try:
            found = await self._client.get(kind, namespace, name)
        except NotFound:
            return {}
        except Forbidden as error:
            text = f"add {{namespace: {namespace}, name: {name}}} to {listed_in} of the operator's Helm chart"
            raise NotListed(text) from error
        return found.get("data") or {}

    async def _list(self, resource: Resource, kind: Kind) -> list[dict[str, Any]]:
        return await self._client.list_matching(
            kind, resource.namespace, label_selector=f"{SERVICE_LABEL}={resource.name}"
        )

    async def _owned(self, resource: Resource, kind: Kind) -> list[dict[str, Any]]:
        """Ours, and those that lost their owner: not those of a namesake that was deleted and is being cleaned up."""
        return [item for item in await self._list(resource, kind) if controller_uid(item) in (None, resource.uid)]

    async def _routes(self, resource: Resource) -> list[dict[str, Any]] | None:
        """None when the API server does not know the kind; before that was said for long, only if it never knew it."""
        now = self._clock()
        if now < self._routes_unserved_until:
            return None
        try:
            found = await self._owned(resource, HTTP_ROUTE)
        except NotFound:
            if self._routes_missed.for_long(now):
                self._routes_served = False
                self._routes_unserved_until = now + UNSERVED_SECONDS
            elif self._routes_served:
                raise
            return None
        self._routes_served = True
        self._routes_missed.ends()
        return found

    async def _pods(self, resource: Resource, manifests: Iterable[Manifest]) -> tuple[Pod, ...]:
        pods = {item["metadata"]["name"]: (parse_pod(item), report_address(item)) for item in manifests}
        now, key = self._clock(), (resource.namespace, resource.name)
        before = self._since.get(key, {})
        states = ((name, pod.ready) for name, (pod, _) in pods.items() if pod.started)
        since = self._since[key] = {state: before.get(state, now) for state in states}
        addresses = {
            name: address
            for name, (pod, address) in pods.items()
            if address is not None and not pod.ready and not pod.terminating
        }
        reports = await self._reporter.ask(addresses) if addresses else {}
        return tuple(
            replace(pod, report=reports.get(name), seen=now - since.get((name, pod.ready), now))
            for name, (pod, _) in pods.items()
        )


def _owned_kind(api_version: str, kind: str) -> Kind:
    try:
        return OWNED[api_version, kind]
    except KeyError:
        raise ValueError(f"this operator writes no {api_version} {kind}") from None


def _check_owner(resource: Resource, live: Manifest, kind: Kind) -> None:
    owner = controller_uid(live)
    if owner == resource.uid or (owner is None and label_of(live, SERVICE_LABEL) == resource.name):
        return
    whose = "belongs to another object" if owner else f"was not made for this PINNService (no label {SERVICE_LABEL})"
    raise NotOwned(
        f"{kind.kind} {resource.namespace}/{live['metadata']['name']} exists and {whose}: "
        "rename one of the two, or delete it if nobody needs it"
    )
