"""What the operator knows and says: the `status` of a PINNService as frozen values.

It is the log of the rollout: acting is repeatable from it. Lists are bounded rings. `core.status.json` turns it
into JSON and back; unknown or absent fields of an older operator parse as their defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pinn_operator.core.status.verification import VerificationStatus

TIMELINE_LIMIT = 20
HISTORY_LIMIT = 10
MESSAGE_LIMIT = 1024
ANNOUNCEMENT_LIMIT = 10
ORDER_LIMIT = 10
"""Orders whose ids are remembered beside the last one."""


class Phase(StrEnum):
    """One word for people; programs read the conditions."""

    PENDING = "Pending"
    """No revision serves yet."""
    STABLE = "Stable"
    PROGRESSING = "Progressing"
    BAKING = "Baking"
    SUSPENDED = "Suspended"
    """Something beside the revision stops the rollout: traffic is safe, and the step begins anew once that is over."""
    PROMOTING = "Promoting"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"


WATCHED: Final = frozenset({Phase.PROGRESSING, Phase.BAKING, Phase.SUSPENDED})
"""The phases in which a canary is judged and may be condemned."""


class Verdict(StrEnum):
    """What one measurement of a gate means."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    NO_DATA = "NoData"
    ERROR = "Error"
    COLLECTING = "Collecting"
    """Data, but fewer than `minSamples` yet: a NoData that is on its way."""
    NOT_APPLICABLE = "NotApplicable"
    """Neither revision has such a metric: nothing to judge, and nothing to wait for."""


GOES_ON: Final = frozenset({Verdict.PASS, Verdict.NOT_APPLICABLE})
"""Verdicts that do not hold a rollout."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition after the Kubernetes API conventions. `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    """A revision that serves, or is to serve."""

    revision: str
    image: str
    since: datetime
    fault: str = ""
    """Why it should leave: it serves only because nothing else could answer."""


@dataclass(frozen=True, slots=True)
class GateStatus:
    """The last judgement of one gate. `failing_since` and `consecutive` carry its abort bound across passes."""

    name: str
    verdict: Verdict
    canary: float | None = None
    stable: float | None = None
    limit: str = ""
    samples: int = 0
    min_samples: int = 0
    message: str = ""
    time: datetime | None = None
    failing_since: datetime | None = None
    failing_time: datetime | None = None
    """When it was last measured beyond its abort bound, if that was not the last measurement of all."""
    consecutive: int = 0
    stable_samples: int = 0
    stable_minutes: int | None = None
    stable_variation: float | None = None
    needed_samples: int | None = None
    """So many more requests of the canary would decide, if both revisions went on as they do."""
    age: float | None = None
    """Seconds since the newest sample of the canary's pod that was read least recently, at `time`."""
    source: str = ""
    """Who answered: Pods, Prometheus, Kubernetes, or a webhook."""
    unit: str = ""
    action: str = ""
    severity: str = ""
    dry_run: bool = False
    query: str = ""
    """What was asked, its beginning."""
    definition: str = ""
    """What it measures and by which abort bound, as a hash: measurements by another one say nothing of this one."""
    acted_time: datetime | None = None
    """When its abort bound was first exceeded for as long as it takes, at this weight."""
    reference_total: float = 0.0
    """Requests of the stable revision before this weight, and of them the bad ones: the canary is compared with them
    too, and with nothing else while stable has no traffic."""
    reference_bad: float = 0.0
    reference_minutes: int | None = None
    reference_variation: float | None = None
    """Over how many minutes, and how far the share of bad ones moved between them (coefficient of variation)."""
    carried_total: float | None = None
    carried_bad: float | None = None
    """Requests of the canary at this weight, and the bad ones, that no source remembers any more: the operator that
    read them from the pods was restarted, or the pods are gone. And those of stable in that time."""
    carried_stable_total: float | None = None
    carried_stable_bad: float | None = None

    @property
    def holds(self) -> bool:
        """It keeps the weight from rising: not a dry run, and not one that only warns."""
        return self.verdict not in GOES_ON and not self.dry_run and self.action != "Warn"


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A change of weight, or what led to one."""

    time: datetime
    weight: int
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class SuspensionStatus:
    """Why a rollout is suspended, since when, and how it goes on."""

    reason: str
    message: str
    since: datetime
    until: datetime
    """The rollout goes on by itself whenever it can; after this moment it is also `Stalled`."""
    retry_time: datetime
    """Not tried again before: the pause grows with each suspension."""
    weight: int = 0
    """The weight that was taken back."""
    final: bool = False
    """It does not go on by itself: too many suspensions in this rollout."""


@dataclass(frozen=True, slots=True)
class ExcusedRestarts:
    """Restarts of a pod's container that it did not cause, such as those of its node."""

    pod: str
    restarts: int


@dataclass(frozen=True, slots=True)
class RetryStatus:
    """The last order to retry: each id is executed once."""

    id: str
    time: datetime
    message: str = ""
    earlier: tuple[str, ...] = ()
    """Ids of the orders before it, the newest last: a manifest in a repository may bring an old one back."""


@dataclass(frozen=True, slots=True)
class DoubtStatus:
    """The canary fails clients: the pods of both revisions are asked."""

    time: datetime
    """When they were to be asked."""
    settled_time: datetime | None = None
    """When their answers spoke against holding it against the canary: what clients got before does not count."""
    answered_time: datetime | None = None
    """When their answers spoke for the canary, and nothing that clients got had to be explained: that counts still."""
    against_time: datetime | None = None
    """When their answers spoke against the canary, though not those to clients: a second time confirms it."""
    unexplained: int = 0
    """How many times in a row no pod failed, of either revision, or no pass came while the answers were there."""
    unexplained_time: datetime | None = None
    """When that was so last."""
    message: str = ""
    """What the pods answered."""
    asked: int = 1
    """How many times at this weight."""
    rounds: int = 0
    """How many times in a row their answers were too few to tell; the four that follow are the sums of these."""
    canary_bad: int = 0
    canary_requests: int = 0
    stable_bad: int = 0
    stable_requests: int = 0
    canary_scattered: int = 0
    """Of the canary's bad answers, those among good ones; of a pod that gave mostly bad ones at a time, one."""
    stable_scattered: int = 0
    slower_than: float | None = None
    """Seconds: answers that take longer are bad ones, where it is asked whether the canary is slow."""

    @property
    def open(self) -> bool:
        """Their answers are still to come."""
        over = (self.settled_time, self.answered_time)
        return all(moment is None or moment < self.time for moment in over)


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """The rollout in flight."""

    start_time: datetime
    step_index: int
    """The step that is aimed at. While its weight differs from `weight`, capacity is being added."""
    weight: int
    """The wanted canary weight, in percent."""
    weight_time: datetime
    """When `weight` was decided."""
    programmed_time: datetime | None = None
    """When the router was first seen to have taken `weight` up: analysis windows start here."""
    still_time: datetime | None = None
    """When, at weight 0, the canary's request counters were first seen to stand still."""
    passed_time: datetime | None = None
    """The newest moment at which every gate passed at this weight."""
    steps: int = 0
    observed_share: float | None = None
    """Measured percent of requests that the canary answered since `programmed_time`."""
    gates: tuple[GateStatus, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()
    hold_seconds: int = 0
    """How long `weight` is held at least, by the step that it was written for."""
    weight_in_force: int = 0
    """The last weight that was seen in force."""
    suspension: SuspensionStatus | None = None
    suspensions: int = 0
    """How many times weight was taken back in this rollout without a fault of the revision."""
    return_step: int | None = None
    """While the canary has all traffic only because stable cannot answer: the step to go back to."""
    excused: tuple[ExcusedRestarts, ...] = ()
    doubt: DoubtStatus | None = None
    slowness: DoubtStatus | None = None
    """The same of a canary that seems slow; its counts are those of all that was asked at this weight."""


@dataclass(frozen=True, slots=True)
class RollbackStatus:
    """Why, when and by what a revision was taken out of traffic. Also the record of a rejected revision."""

    revision: str
    image: str
    time: datetime
    reason: str
    message: str
    gate: str = ""
    value: str = ""
    limit: str = ""
    weight: int = 0
    """Its weight when it was condemned."""
    weight_zero_time: datetime | None = None
    """When weight 0 was observed."""
    capacity_removed_time: datetime | None = None
    timeline: tuple[TimelineEntry, ...] = ()
    gates: tuple[GateStatus, ...] = ()
    pods: tuple[str, ...] = ()
    """One line per pod of the revision, as seen when it was condemned."""
    verification: VerificationStatus | None = None
    """What its prices had shown by then."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """How a rollout ended: Promoted, RolledBack or Superseded."""

    revision: str
    image: str
    outcome: str
    start_time: datetime
    end_time: datetime
    message: str = ""


@dataclass(frozen=True, slots=True)
class NextAction:
    """What the operator does next, when at the earliest, and what it waits for."""

    action: str
    waiting_for: str = ""
    time: datetime | None = None


class EventType(StrEnum):
    """The two types of events that Kubernetes knows."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is told as an event because of a change of the status, committed with it.

    A process that dies between the commit and the event has left here what is still to be told.
    """

    time: datetime
    type: EventType
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A whole status. `target` is the revision of the newest valid spec."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    conditions: tuple[Condition, ...] = ()
    target: str = ""
    stable: RevisionStatus | None = None
    canary: RevisionStatus | None = None
    previous: RevisionStatus | None = None
    """While promoting: the old stable revision, whose capacity is not yet removed."""
    rollout: RolloutStatus | None = None
    rejected: RollbackStatus | None = None
    """Set while the target is a revision that was condemned: it is not tried again by itself."""
    last_rollback: RollbackStatus | None = None
    history: tuple[HistoryEntry, ...] = ()
    verification: VerificationStatus | None = None
    """What the prices of the newest revision showed before it got traffic, and since."""
    next: NextAction | None = None
    retry: RetryStatus | None = None
    announcements: tuple[Announcement, ...] = ()
    """The events of the newest change that had any."""
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    step: str = "-"
    """Printer columns: "2/3", "50/48.9" (wanted/observed), the worst verdict, and one line of reason."""
    weight: str = "-"
    verdict: str = "-"
    reason: str = ""

    def condition(self, condition_type: str) -> Condition | None:
        """The condition of that type, or None."""
        return next((item for item in self.conditions if item.type == condition_type), None)
