"""What the reconciler asks of a cluster."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Action, Event
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.observed import Observed
from pinn_operator.core.status.values import Status


class Cluster(Protocol):
    """Every method raises `kube.errors.ClusterError`."""

    async def read(self, namespace: str, name: str) -> Manifest | None:
        """The PINNService as it is now; None if there is none."""

    async def observe(self, resource: Resource) -> Observed:
        """Everything that belongs to it."""

    async def commit_status(self, resource: Resource, status: Status) -> None:
        """Replace the status. Raises Conflict if the resource has changed since it was read."""

    async def act(self, resource: Resource, action: Action) -> None:
        """Write or delete one object. Raises NotOwned if it is somebody else's."""

    async def emit(self, resource: Resource, event: Event) -> None:
        """Tell."""

    async def emit_missing(self, resource: Resource, event: Event, time: datetime) -> None:
        """Tell what was decided at `time`, unless it has been told since."""
