"""Why a rollout does not move: every place that decides so says it in a value, which is printed and never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Gravity(StrEnum):
    """What a wait means for the conditions."""

    NORMAL = "Normal"
    """It belongs to a rollout: a hold, a start, a measurement."""
    DEGRADED = "Degraded"
    """Something is not as it should be, and may pass by itself."""
    STALLED = "Stalled"
    """It will hardly pass without a person."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for.

    `reason` is one CamelCase word; `text` completes "waiting for …", with the words of whoever reported it and the way
    out, a command included, where a person is needed. `until` is the earliest moment at which it can end by itself, if
    that is known.
    """

    reason: str
    text: str
    until: datetime | None = None
    gravity: Gravity = Gravity.NORMAL
