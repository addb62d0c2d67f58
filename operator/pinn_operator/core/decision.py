"""The result of a pass: a value that the reconciler carries out, in its order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.status.values import EventType, Status


@dataclass(frozen=True, slots=True)
class Event:
    """Emitted if and only if the status of its decision was committed."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a whole object."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an owned object; absent is fine."""

    api_version: str
    kind: str
    name: str


Action = Apply | Delete


@dataclass(frozen=True, slots=True)
class ResetCaches:
    """Ask pods of a revision to empty their caches, because of a gate. What came of it is an event."""

    revision: str
    gate: str
    pods: tuple[str, ...]
    """Names."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A committed change worth a metric: what ended or began, and why."""

    kind: str
    """started, advanced, rolled_back, promoted, superseded, suspended"""
    revision: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`status` is committed first (if it differs), then `actions` run in order and `resets` at the same
    time, then `events` are emitted. A reset is not repeated if the operator ends between the commit and it.

    `requeue_at` is when to look again without news; None means at the next resync.
    """

    status: Status
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    transitions: tuple[Transition, ...] = ()
    requeue_at: datetime | None = None
    resets: tuple[ResetCaches, ...] = ()
