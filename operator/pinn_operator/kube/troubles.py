"""What the events say of pods whose containers do not start: no field of such a pod has the words.

A volume that is attached elsewhere, a network that cannot be set up: the kubelet and the attach controller write it
into events alone. Few pods are asked about, not often, and without the right to read events nothing is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from pinn_operator.core.gates.readiness import STARTING_WAITS
from pinn_operator.core.observed import INIT_RUNNING, Pod
from pinn_operator.core.text import cut
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.errors import ClusterError

EVENT: Final = Kind("v1", "Event", "events")
STUCK_SECONDS: Final = 5.0
"""A container is usually created sooner after its pod is."""
AGAIN_SECONDS: Final = 5.0
ASKED_LIMIT: Final = 3
"""Pods asked about in one pass: those of a revision mostly lack the same."""
KNOWN_LIMIT: Final = 1000
_TEXT_LIMIT: Final = 1024
_LOG = logging.getLogger(__name__)


class PodTroubles:
    """Remembers for `AGAIN_SECONDS` what it found. `clock` is monotonic seconds, `now` aware UTC."""

    def __init__(
        self, client: Client, *, clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._client = client
        self._clock = clock
        self._now = now
        self._known: dict[tuple[str, str], tuple[float, str]] = {}

    async def add(self, namespace: str, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        """The pods, those that are stuck with the newest warning about them. Never raises for a failed call."""
        pods = tuple(pods)
        stuck = sorted((pod for pod in pods if self._stuck(pod)), key=lambda pod: pod.name)[:ASKED_LIMIT]
        if not stuck:
            return pods
        words = await asyncio.gather(*(self._words(namespace, pod.name) for pod in stuck))
        found = {pod.name: text for pod, text in zip(stuck, words, strict=True) if text}
        return tuple(replace(pod, trouble=found[pod.name]) if pod.name in found else pod for pod in pods)

    def _stuck(self, pod: Pod) -> bool:
        waits = bool(pod.node) and not pod.started and not pod.over and not pod.terminating
        late = (self._now() - pod.created).total_seconds() >= STUCK_SECONDS
        return waits and late and pod.waiting_reason in STARTING_WAITS - {INIT_RUNNING}

    async def _words(self, namespace: str, name: str) -> str:
        known = self._known.get((namespace, name))
        if known is not None and self._clock() < known[0] + AGAIN_SECONDS:
            return known[1]
        try:
            selector = f"involvedObject.kind=Pod,involvedObject.name={name},type=Warning"
            events = await self._client.list_matching(EVENT, namespace, field_selector=selector)
        except ClusterError as error:
            _LOG.debug("events could not be read", extra={"pod": name, "error": str(error)})
            events = []
        text = newest_warning(events)
        if len(self._known) >= KNOWN_LIMIT:
            self._known.clear()
        self._known[namespace, name] = self._clock(), text
        return text


def newest_warning(events: Iterable[Mapping[str, Any]]) -> str:
    """`Reason: message` of the newest event; empty without one.

    Scheduling is left out: what the scheduler says is in the pod, and it is over for one that has a node.
    """
    told = [event for event in events if event.get("reason") != "FailedScheduling"]
    newest = max(told, key=_time_of, default=None)
    if newest is None:
        return ""
    return cut(f"{newest.get('reason') or 'Warning'}: {newest.get('message') or ''}".rstrip(": "), _TEXT_LIMIT)


def _time_of(event: Mapping[str, Any]) -> str:
    """RFC 3339 in UTC sorts as text, to the second."""
    series: Mapping[str, Any] = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    first = next((time for time in times if time), "")
    return str(first)[:19]
