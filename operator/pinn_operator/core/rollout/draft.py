"""What one pass decides by, and the next status in the making."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from pinn_operator.core.api import Resource
from pinn_operator.core.decision import Event, Transition
from pinn_operator.core.gates.judgement import Condemnation, Judgement, begun_anew
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.waits import Gravity, Wait
from pinn_operator.core.samples import Samples
from pinn_operator.core.status.values import (
    HISTORY_LIMIT,
    MESSAGE_LIMIT,
    TIMELINE_LIMIT,
    EventType,
    GateStatus,
    HistoryEntry,
    RevisionStatus,
    RolloutStatus,
    Status,
    TimelineEntry,
)
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import Spec

_LINE_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass decides by."""

    resource: Resource
    spec: Spec
    """The spec in force: the resource's own, or the last valid one."""
    target: str | None
    """Revision of the resource's spec; None while that is invalid."""
    observed: Observed
    samples: Samples
    judgement: Judgement
    now: datetime


@dataclass(slots=True)
class Draft:
    """The next status in the making, and what is to be told of it."""

    status: Status
    events: list[Event] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    held: Condemnation | None = None
    """Why the canary should leave, while it must or may not."""
    waits: list[Wait] = field(default_factory=list)
    """Why the last step of this pass did not move the rollout: the first is the one to be shown."""

    def wait(self, reason: str, text: str, until: datetime | None = None, gravity: Gravity = Gravity.NORMAL) -> None:
        self.waits.append(Wait(reason, cut(text, MESSAGE_LIMIT), until, gravity))

    def normal(self, reason: str, message: str) -> None:
        self.events.append(Event(EventType.NORMAL, reason, cut(message, MESSAGE_LIMIT)))

    def warning(self, reason: str, message: str) -> None:
        self.events.append(Event(EventType.WARNING, reason, cut(message, MESSAGE_LIMIT)))

    @property
    def rollout(self) -> RolloutStatus:
        assert self.status.rollout is not None
        return self.status.rollout

    @property
    def stable(self) -> RevisionStatus:
        assert self.status.stable is not None
        return self.status.stable

    @property
    def canary(self) -> RevisionStatus:
        assert self.status.canary is not None
        return self.status.canary

    def change_rollout(self, rollout: RolloutStatus) -> None:
        self.status = replace(self.status, rollout=rollout)

    def remember(self, revision: RevisionStatus, outcome: str, start: datetime, end: datetime, message: str) -> None:
        """Enter how a rollout ended into the history."""
        entry = HistoryEntry(revision.revision, revision.image, outcome, start, end, cut(message, _LINE_LIMIT))
        self.status = replace(self.status, history=(*self.status.history, entry)[-HISTORY_LIMIT:])


def at_weight(
    rollout: RolloutStatus, weight: int, now: datetime, *, timeline: tuple[TimelineEntry, ...],
    gates: tuple[GateStatus, ...] | None = None, hold_seconds: int | None = None,
) -> RolloutStatus:  # fmt: skip
    """The rollout as it begins at a weight: not yet seen in force, nothing measured.

    `hold_seconds` is how long the weight is held at least, by the step that it is written for; as before by default.
    """
    return replace(
        rollout, weight=weight, weight_time=now, programmed_time=None, still_time=None, passed_time=None,
        doubt=None, slowness=None, observed_share=None, timeline=timeline,
        gates=rollout.gates if gates is None else gates,
        hold_seconds=rollout.hold_seconds if hold_seconds is None else hold_seconds,
    )  # fmt: skip


def unmeasured(gates: tuple[GateStatus, ...]) -> tuple[GateStatus, ...]:
    """Gates as they begin at a new weight: nothing measured, but stable's figures remembered for the bake."""
    return tuple(begun_anew(gate) for gate in gates)


def timeline_with(
    rollout: RolloutStatus, now: datetime, weight: int, reason: str, message: str = ""
) -> tuple[TimelineEntry, ...]:
    """The rollout's timeline with one more entry; the oldest leaves when it is full."""
    return (*rollout.timeline, TimelineEntry(now, weight, reason, cut(message, _LINE_LIMIT)))[-TIMELINE_LIMIT:]
