"""Hear of changes of children: which PINNService is concerned, nothing more.

Only metadata is asked for (`PartialObjectMetadata`), filtered by label in the API server, and nothing is kept. kopf
would hand over each whole pod and remember every object it ever saw: 10 KB each, which for a thousand resources with
their Deployments, Services and pods is more than all the rest of the operator (measured, `benchmarks/`).

A watch goes on from the last version it has seen, over lost connections and ended streams. When it begins, and when
that version has become too old, changes may have been missed, and `lost` is called.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from pinn_operator.core.manifest import Manifest
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.errors import ClusterError, Gone, NotFound, Unreachable

UNSERVED_SECONDS = 120.0

_LOG = logging.getLogger(__name__)


class Watch:
    """One kind in one namespace, or in all. `heard` gets the metadata of each object that has changed."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        *,
        namespace: str | None,
        label: str,
        heard: Callable[[Kind, Manifest], None],
        lost: Callable[[], None],
        first_backoff: float = 0.5,
        longest_backoff: float = 5.0,
    ) -> None:
        self._client = client
        self._kind = kind
        self._namespace = namespace
        self._label = label
        self._heard = heard
        self._lost = lost
        self._first_backoff = first_backoff
        self._longest_backoff = longest_backoff
        self._version: str | None = None
        self._backoff = first_backoff

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._stream()
            except Gone:
                self._version = None
            except NotFound:
                # The kind is not served: it may be, once somebody installs it.
                self._version = None
                await asyncio.sleep(UNSERVED_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311
            except ClusterError as error:
                _LOG.warning("a watch was lost, it is taken up again", extra={"error": str(error)})
                await asyncio.sleep(self._backoff * random.uniform(0.5, 1.0))  # noqa: S311
                # A refusal stays one until somebody changes the rights; an absence may be over any moment.
                longest = self._longest_backoff if isinstance(error, Unreachable) else 6 * self._longest_backoff
                self._backoff = min(longest, self._backoff * 2)

    async def _stream(self) -> None:
        if self._version is None:
            self._version = await self._client.newest_version(self._kind, self._namespace, label_selector=self._label)
            # Also the first time: a pass may have looked before this watch began.
            self._lost()
        events = self._client.watch(self._kind, self._namespace, label_selector=self._label, version=self._version)
        async for event in events:
            self._take(event)
        # A server that ends streams at once must not be asked without pause.
        await asyncio.sleep(self._first_backoff * random.uniform(0.1, 0.2))  # noqa: S311

    def _take(self, event: dict[str, Any]) -> None:
        metadata = event["object"].get("metadata") or {}
        self._version = metadata.get("resourceVersion") or self._version
        self._backoff = self._first_backoff
        if event["type"] != "BOOKMARK":
            self._heard(self._kind, metadata)
