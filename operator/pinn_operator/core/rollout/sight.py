"""What a pass saw of traffic: whether a weight is in force, who changed it, and whether a revision has gone silent.

A router's own status is a claim; what was seen is noted in the rollout with its time, and analysis windows, holds and
drains count from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from pinn_operator.core.gates.scope import probe_paths
from pinn_operator.core.gates.silence import resumed, silent
from pinn_operator.core.names import other_writer
from pinn_operator.core.observed import Pod
from pinn_operator.core.rollout.draft import Draft, Pass, at_weight, timeline_with, unmeasured
from pinn_operator.core.rollout.waits import Gravity
from pinn_operator.core.routers.registry import router_of
from pinn_operator.core.routers.router import Seen, Split
from pinn_operator.core.routers.services import wanted_selectors
from pinn_operator.core.situation import serving_revision
from pinn_operator.core.status.values import (
    WATCHED,
    DoubtStatus,
    GateStatus,
    RevisionStatus,
    RolloutStatus,
    SuspensionStatus,
    TimelineEntry,
    Verdict,
)
from pinn_operator.core.status.verification import VerificationStatus

_EVER = datetime.min.replace(tzinfo=UTC)
UNPROVEN_SECONDS = 30.0
"""How long silence is waited for when no metric can prove it. Above the 16 s for which a restarted router was seen to
serve old weights under a current status."""
FIGHT_REPAIRS = 3
"""Repairs of one weight within `FIGHT_TIME` after which a person is called: one is a slip, and what writes again and
again (a GitOps controller, a script) never leaves it."""
FIGHT_TIME = timedelta(hours=1)
UNSILENT_SECONDS = 300.0
"""After this long at weight 0 capacity goes even though somebody still sends requests past the router."""


def not_in_the_future(rollout: RolloutStatus, now: datetime) -> RolloutStatus:
    """The rollout with no moment later than `now`: a clock that was set back must not disarm anything until it has
    caught up, so what was seen "in the future" counts as seen now."""

    def seen(moment: datetime | None) -> datetime | None:
        return moment if moment is None else min(moment, now)

    return replace(
        rollout, start_time=min(rollout.start_time, now), weight_time=min(rollout.weight_time, now),
        programmed_time=seen(rollout.programmed_time), still_time=seen(rollout.still_time),
        # What passed then did not pass at this very moment.
        passed_time=rollout.passed_time if rollout.passed_time is not None and rollout.passed_time <= now else None,
        suspension=_suspended_by_now(rollout.suspension, now),
        doubt=_doubted_by_now(rollout.doubt, seen), slowness=_doubted_by_now(rollout.slowness, seen),
    )  # fmt: skip


def _doubted_by_now(
    doubt: DoubtStatus | None, seen: Callable[[datetime | None], datetime | None]
) -> DoubtStatus | None:  # fmt: skip
    time = seen(doubt.time) if doubt is not None else None
    if doubt is None or time is None:
        return None
    return replace(
        doubt, time=time, settled_time=seen(doubt.settled_time), answered_time=seen(doubt.answered_time),
        against_time=seen(doubt.against_time), unexplained_time=seen(doubt.unexplained_time),
    )  # fmt: skip


def _suspended_by_now(suspension: SuspensionStatus | None, now: datetime) -> SuspensionStatus | None:
    """Its pause and its bound are as long as before, but do not wait for a clock that was set back."""
    if suspension is None or suspension.since <= now:
        return suspension
    ahead = suspension.since - now
    return replace(
        suspension, since=now, until=suspension.until - ahead, retry_time=suspension.retry_time - ahead
    )  # fmt: skip


def verified_by_now(verification: VerificationStatus | None, now: datetime) -> VerificationStatus | None:
    """As `not_in_the_future`, of what the prices showed and when they are asked again."""
    moments = () if verification is None else (verification.start_time, verification.time, verification.sample_time)
    ahead = max((moment - now for moment in moments if moment is not None), default=timedelta(0))
    if verification is None or ahead <= timedelta(0):
        return verification

    def shifted(moment: datetime | None) -> datetime | None:
        return None if moment is None else moment - ahead

    return replace(
        verification, start_time=verification.start_time - ahead, time=shifted(verification.time),
        retry_time=shifted(verification.retry_time), sample_time=shifted(verification.sample_time),
    )  # fmt: skip


def see_weight(this: Pass, draft: Draft) -> None:
    """Note when the router has taken the wanted weight up; notice when somebody else changed it, and who goes on to."""
    _see_weight(this, draft)
    repairs = [entry for entry in _last_repairs(draft.rollout) if entry.time >= this.now - FIGHT_TIME]
    if len(repairs) >= FIGHT_REPAIRS:
        text = f"an end of changes by others: {len(repairs)} in the last hour, and the hold begins anew after each; "
        draft.wait("WeightRepaired", text + repairs[0].message, gravity=Gravity.STALLED)


def _last_repairs(rollout: RolloutStatus) -> list[TimelineEntry]:
    """The repairs of the present weight, the newest first."""
    return list(takewhile(lambda entry: entry.reason == "WeightRepaired", reversed(rollout.timeline)))


def _see_weight(this: Pass, draft: Draft) -> None:
    rollout = draft.rollout
    if rollout.programmed_time is None:
        if weight_in_force(this, draft):
            draft.change_rollout(replace(rollout, programmed_time=this.now, weight_in_force=rollout.weight))
        return
    live = _foreign_weight(this, draft)
    if not live:
        return
    # What was measured under another weight proves nothing: the window, the hold and the drain start again.
    draft.change_rollout(
        at_weight(
            rollout, rollout.weight, this.now,
            gates=unmeasured(rollout.gates) if rollout.weight > 0 else rollout.gates,
            timeline=timeline_with(rollout, this.now, rollout.weight, "WeightRepaired", live),
        )
    )  # fmt: skip
    draft.warning("WeightRepaired", f"{live}; it is {rollout.weight}% again")


def why_not_in_force(this: Pass, draft: Draft) -> tuple[str, str]:
    """Reason and text of what the wanted weight still lacks to be in force."""
    if not selectors_in_place(this, draft):
        return "ServicesPending", "the Services to select their revisions"
    seen = _router_sees(this, draft)
    if seen.message and not seen.in_force:
        return seen.reason or "RouteNotAccepted", seen.message
    return "WeightPending", f"the router to take {draft.rollout.weight}% up"


def weight_in_force(this: Pass, draft: Draft) -> bool:
    """The router says that it has the wanted weight, and the Services select what they shall."""
    seen = _router_sees(this, draft)
    return selectors_in_place(this, draft) and seen.written and seen.in_force


def _foreign_weight(this: Pass, draft: Draft) -> str:
    """In words how traffic is not as it was seen before; empty when it is."""
    if (service := _foreign_service(this, draft)) is not None:
        gone = service not in this.observed.selectors
        writer = other_writer(this.observed.objects.get(("Service", service)), "selector") or "someone else"
        how = "was deleted by someone else" if gone else f"has a selector that {writer} changed"
        return f"the Service {service} {how}: requests may have failed meanwhile"
    seen = _router_sees(this, draft)
    if seen.written:
        return ""
    if seen.weight is None:
        return f"the {this.spec.traffic.router} was deleted by someone else"
    writer = other_writer(this.observed.objects.get(("HTTPRoute", this.resource.name)), "rules") or "someone else"
    return f"the canary's weight was changed to {seen.weight} by {writer}"


def _router_sees(this: Pass, draft: Draft) -> Seen:
    return router_of(this.spec.traffic).seen(this.resource.name, _split(draft), this.observed)


def _split(draft: Draft) -> Split:
    """How requests are to be divided: all to stable when there is no canary any more."""
    stable, canary = draft.stable.revision, draft.status.canary
    return Split(stable, canary.revision if canary else stable, draft.rollout.weight)


def selectors_in_place(this: Pass, draft: Draft) -> bool:
    """The Services select what they shall, as far as traffic depends on them."""
    return _foreign_service(this, draft) is None


def _foreign_service(this: Pass, draft: Draft) -> str | None:
    """The first Service that does not select what it shall."""
    split, selectors = _split(draft), this.observed.selectors
    wanted = wanted_selectors(this.resource.name, split, clients=router_of(this.spec.traffic).clients_revision(split))
    return next((name for name, selector in wanted.items() if dict(selectors.get(name, {})) != selector), None)


def selected_revision(this: Pass, service: str) -> RevisionStatus | None:
    """The revision that a Service selects, if it serves and its Deployment could be written again."""
    revision = serving_revision(this.observed, service)
    if revision is None:
        return None
    record = this.observed.records[revision]
    image = str(record.spec.serving.get("image", "")) if record.spec else ""
    return RevisionStatus(revision, image, this.now)


def see_silence(this: Pass, draft: Draft, revision: str) -> None:
    """Note when the revision's own request counters were seen to stand still; forget it when they move again.

    They may have stood still for want of a pod, while a router that lags sends requests as soon as there is one.
    """
    rollout = draft.rollout
    if rollout.programmed_time is None:
        return
    waited, paths = (this.now - rollout.programmed_time).total_seconds(), probe_paths(this.spec)
    answers = this.observed.available(revision) > 0
    if rollout.still_time is not None:
        never_had_traffic = rollout.still_time <= rollout.weight_time
        if never_had_traffic or not answers or waited >= UNSILENT_SECONDS:
            return
        came_back = any(_ready_since(this, pod) > rollout.still_time for pod in this.observed.living(revision))
        if came_back or resumed(this.samples, this.spec.analysis, rollout.still_time, paths):
            draft.change_rollout(replace(rollout, still_time=None))
        return
    proof = silent(this.samples, this.spec.analysis, this.now, paths)
    gone = proof is True or not answers or (proof is None and waited >= UNPROVEN_SECONDS) or waited >= UNSILENT_SECONDS
    # At the very moment of the weight it would say that there never was any traffic.
    if gone and this.now > rollout.weight_time:
        draft.change_rollout(replace(rollout, still_time=this.now))


def _ready_since(this: Pass, pod: Pod) -> datetime:
    """Since when a pod may get requests; before everything if it gets none, or nobody knows."""
    if not pod.ready:
        return _EVER
    if pod.seen is not None:
        return this.now - timedelta(seconds=pod.seen)
    return pod.ready_changed or _EVER


def drained_at(rollout: RolloutStatus, seconds: float) -> datetime:
    """When weight 0 will have been seen in force and the revision silent, both for `seconds`; as late as can be if
    either was not seen yet."""
    if rollout.still_time is None or rollout.programmed_time is None:
        return datetime.max.replace(tzinfo=UTC)
    return max(rollout.still_time, rollout.programmed_time) + timedelta(seconds=seconds)


def strangers(this: Pass, draft: Draft) -> bool:
    """Pods of a third revision would be selected by a Service that selects both revisions."""
    known = {draft.stable.revision, draft.canary.revision}
    return any(pod.revision not in known and not pod.over for pod in this.observed.pods)


def keep_measurements(this: Pass, draft: Draft) -> None:
    """Take the judged gates into the status, but not more often than asked for: a pass without news writes nothing."""
    rollout, judged = draft.status.rollout, this.judgement
    if rollout is None or not judged.asked or draft.status.phase not in WATCHED:
        return
    if rollout.weight == 0:
        return
    last = max((gate.time for gate in rollout.gates if gate.time is not None), default=None)
    if last == this.now:
        # What was measured at this very moment is there already.
        return
    recent = last is not None and timedelta(0) <= this.now - last < timedelta(
        seconds=this.spec.analysis.interval_seconds
    )
    # A doubt that this pass began or settled changes what is measured from now on: what was seen is written with it.
    found, doubt = this.resource.status.rollout, rollout.doubt
    news = doubt is not None and (found is None or found.doubt != doubt)
    doubted = doubt is not None and news and this.now in (doubt.time, doubt.settled_time)
    same = [_essence(gate) for gate in rollout.gates] == [_essence(gate) for gate in judged.gates]
    if recent and same and not doubted:
        return
    share = judged.observed_share
    if share is None and judged.awaited:
        share = rollout.observed_share
    draft.change_rollout(
        replace(
            rollout, gates=judged.gates, observed_share=None if share is None else round(share, 1),
            passed_time=this.now if judged.all_pass and rollout.programmed_time else rollout.passed_time,
        )
    )  # fmt: skip


def _essence(gate: GateStatus) -> tuple[str, Verdict, datetime | None, int, datetime | None]:
    """What is worth a write at once. A duration that stands still moves along with time, which is no news."""
    failing_since = gate.failing_since if gate.verdict is Verdict.FAIL else None
    return gate.name, gate.verdict, failing_since, gate.consecutive, gate.acted_time
