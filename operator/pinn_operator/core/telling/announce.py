"""Events that follow from conditions: what begins or ends there is reported where people look for news, too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from pinn_operator.core.decision import Event
from pinn_operator.core.reasons import Reason
from pinn_operator.core.status.values import Announcement, Condition, EventType, Status


def announcements(before: Status, after: Status, told: Collection[Event]) -> tuple[Event, ...]:
    """For a condition `Stalled` of a new reason, and for the begin and the end of a pause.

    Nothing is reported twice: not what this pass reports by itself (`told`), and not the rollback that led to
    `Stalled`, which was reported when it was decided.
    """
    events = []
    stalled = _new_reason(before.condition("Stalled"), after.condition("Stalled"))
    rejected = after.rejected.reason if after.rejected else None
    if stalled is not None and stalled.reason not in {rejected, *(event.reason for event in told)}:
        events.append(Event(EventType.WARNING, stalled.reason, stalled.message))
    was, now = before.condition("Paused"), after.condition("Paused")
    if was is None and now is not None:
        events.append(Event(EventType.NORMAL, now.reason, now.message))
    elif was is not None and now is None:
        events.append(Event(EventType.NORMAL, Reason.RESUMED.value, "spec.paused is false"))
    return tuple(events)


def announced(before: Status, after: Status, events: Sequence[Event], now: datetime) -> Status:
    """The status with the events that tell of its change, for whoever goes on if this process dies before it told them.

    What changes nothing is not committed, so it is not told either.
    """
    if not events or after == before:
        return after
    told = tuple(Announcement(now, event.type, event.reason, event.message) for event in events)
    return replace(after, announcements=told)


def _new_reason(before: Condition | None, after: Condition | None) -> Condition | None:
    return None if after is None or (before is not None and before.reason == after.reason) else after
