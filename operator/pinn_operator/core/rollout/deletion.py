"""A resource that is being deleted, and that somebody else's finalizer keeps.

Its children live on, with their traffic, for as long as that takes. So a rollout in flight stays watched: weight may be
taken from its canary, and nothing else is done, above all nothing is made again.
"""

from __future__ import annotations

from collections.abc import Iterable

from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Action, Apply
from pinn_operator.core.observed import Observed

_TRAFFIC = ("Service", "HTTPRoute")
_COLLECTORS = frozenset({"orphan", "foregroundDeletion"})
"""Finalizers of the garbage collector: it is taking the children away, or their owner from them (`--cascade`)."""


def is_kept(resource: Resource, observed: Observed) -> bool:
    """Whether a rollout is in flight, and nobody is at work on the children yet."""
    if not _COLLECTORS.isdisjoint(resource.finalizers):
        return False
    children = observed.objects.values()
    in_flight = resource.status.rollout is not None and bool(children)
    return in_flight and not any(child["metadata"].get("deletionTimestamp") for child in children)


def of_traffic(actions: Iterable[Action], observed: Observed) -> tuple[Action, ...]:
    """Those that write what divides the traffic, where it is there."""
    return tuple(
        action
        for action in actions
        if isinstance(action, Apply)
        and action.manifest["kind"] in _TRAFFIC
        and (action.manifest["kind"], action.manifest["metadata"]["name"]) in observed.objects
    )


def what_keeps(resource: Resource) -> str:
    """What the deletion waits for, as a wait says it."""
    kept = ", ".join(resource.finalizers) or "somebody"
    return f"the deletion, which {kept} holds up (metadata.finalizers); meanwhile no weight rises and gates stay armed"
