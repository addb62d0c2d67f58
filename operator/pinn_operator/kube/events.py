"""Kubernetes Events about a PINNService: one object per thing that was said, with a count and the first and last time.

The name of the object follows from what is said, so that a repetition after a restart of the operator, or by a second
operator, raises the count of the same object too.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from pinn_operator.core.api import API_VERSION, KIND, Resource
from pinn_operator.core.decision import Event
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.text import cut
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.errors import AlreadyExists, NotFound

EVENT = Kind("v1", "Event", "events")
COMPONENT = "pinn-operator"
MESSAGE_LIMIT = 1024
_REMEMBERED = 2048


class EventRecorder:
    """Writes events. Raises `ClusterError`; whoever tells decides that an event is not worth failing for."""

    def __init__(
        self, client: Client, *, instance: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._client = client
        self._instance = instance
        self._now = now
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def emit_missing(self, resource: Resource, event: Event, time: datetime) -> None:
        """Say what was decided at `time`, unless it has been said since."""
        moment = _seconds(time)
        await self._write(resource, event, moment, unless_since=moment)

    async def emit(self, resource: Resource, event: Event) -> None:
        """Say it, or raise the count of what was said before."""
        key = (resource.namespace, event_name(resource, event))
        moment = _seconds(self._now())
        known = self._counts.get(key)
        if known is not None:
            try:
                await self._raise_count(key, known, moment)
            except NotFound:
                # Events live for an hour.
                del self._counts[key]
            else:
                return
        await self._write(resource, event, moment)

    async def _write(self, resource: Resource, event: Event, moment: str, *, unless_since: str | None = None) -> None:
        """Create it, or raise the count of what is there, unless that was said at `unless_since` or later."""
        name = event_name(resource, event)
        key = (resource.namespace, name)
        try:
            await self._client.create(EVENT, resource.namespace, self._manifest(resource, event, name, moment))
            self._remember(key, 1)
        except AlreadyExists:
            live = await self._client.get(EVENT, resource.namespace, name)
            if unless_since is None or str(live.get("lastTimestamp") or "") < unless_since:
                await self._raise_count(key, int(live.get("count") or 1), moment)

    async def _raise_count(self, key: tuple[str, str], known: int, moment: str) -> None:
        namespace, name = key
        await self._client.merge(EVENT, namespace, name, {"count": known + 1, "lastTimestamp": moment})
        self._remember(key, known + 1)

    def _remember(self, key: tuple[str, str], count: int) -> None:
        self._counts[key] = count
        self._counts.move_to_end(key)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def _manifest(self, resource: Resource, event: Event, name: str, moment: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": resource.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": resource.namespace,
                "name": resource.name,
                "uid": resource.uid,
                "resourceVersion": resource.resource_version,
            },
            "type": event.type.value,
            "reason": event.reason,
            "message": cut(event.message, MESSAGE_LIMIT),
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }


def _seconds(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def event_name(resource: Resource, event: Event) -> str:
    """The same for the same thing said of the same object."""
    text = f"{resource.uid}\0{event.type.value}\0{event.reason}\0{event.message}"
    return f"{resource.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
