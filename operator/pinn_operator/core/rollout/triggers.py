"""Pod failures that condemn a canary without any metric.

Only what a container did itself counts: it ended by itself and again, exceeded its memory limit, refused its model,
failed its probes while its neighbours are well, or asks for an image that its registry does not have. For that no query
is needed, and waiting for one costs requests. What the infrastructure did is in `pinn_operator.core.rollout.trouble`.
Reasons are the kubelet's where it has one (core/v1 ContainerStateWaiting.reason).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil

from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.gates.readiness import has_failed, is_over, patience_with, unready_by_itself
from pinn_operator.core.observed import Observed, Pod
from pinn_operator.core.rollout.trouble import IMAGE_REASONS, pull_failure, pull_words
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import Rollback

MODEL_REASONS = frozenset(
    {
        "ModelNotFound", "ModelChecksumMismatch", "ModelFormatInvalid", "ModelLoadFailed", "ModelWarmUpFailed",
        "ModelRuntimeFailed", "ModelSelfCheckFailed",
    }
)  # fmt: skip
"""Reasons in a pod's own readiness report that waiting cannot cure."""

OOM_KILLED = "OOMKilled"
CRASH_RESTARTS = 2
TOGETHER_SECONDS = 60.0
"""Containers that ended within so many seconds of each other may have ended for the same reason: what they all need
fails them at their next request, and a request that is too large for them all is sent to one after another."""
CONDEMNING_SHARE = 0.2
"""Of the wanted pods of a revision, this share must be ill: one of ten may be on a node that is. A memory kill, and an
image that does not exist, are the same on every node and condemn alone."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
NOBODY: Mapping[str, int] = {}


def pod_failure(observed: Observed, revision: str, *, rollback: Rollback, now: datetime, patience_from: datetime,
                excused: Mapping[str, int] = NOBODY) -> Condemnation | None:  # fmt: skip
    """The first pod failure that condemns the revision, or None. The gravest comes first.

    `patience_from` is when pods of the revision were first to be expected. `excused` are ends by pod name that the
    containers did not cause.
    """
    everything = sorted(observed.pods_of(revision), key=lambda pod: pod.name)
    # An evicted pod stays as a record while its Deployment has long replaced it: only a memory kill counts against the
    # revision then.
    pods = [pod for pod in everything if not pod.over]
    excused = merged(excused, ended_together(observed, revision))
    killed = next((found for pod in everything if (found := _killed(pod, excused.get(pod.name, 0)))), None)
    if killed is not None:
        return killed
    needed = _needed(observed, revision, len(pods))
    crash_looping = _shared(pods, lambda pod: _crash_looping(pod, excused.get(pod.name, 0)), needed)
    if crash_looping is not None:
        return crash_looping
    if not any(pod.started for pod in everything):
        absent = next((found for pod in pods if (found := _image_unavailable(pod))), None)
        if absent is not None:
            return absent
    refused = _shared(pods, _model_refused, needed)
    if refused is not None:
        return refused
    late = [found for pod in pods if (found := _not_ready(pod, rollback, now, patience_from))]
    others = _others(observed, revision)
    as_ill = [pod for pod in others if has_failed(pod, rollback, now, patience_from)]
    # When every pod of every other revision is unready too, it is their nodes, or something that they all need.
    alone = not others or any(pod.ready for pod in others)
    return late[0] if alone and len(late) >= needed and not _as_many(as_ill, others, late, pods) else None


def next_deadline(observed: Observed, revision: str, *, rollback: Rollback, now: datetime) -> datetime | None:
    """When the oldest patience with an unready pod ends, if that is still to come."""
    waited_for = (pod for pod in observed.living(revision) if not pod.ready)
    ends = (patience_with(pod, rollback, _LONG_AGO).ends for pod in waited_for)
    return min((end for end in ends if end > now), default=None)


def ends_of_others(observed: Observed, revision: str) -> dict[str, int]:
    """By pod name, the ends of its container up to one that it did not cause, or that hit the others alike."""
    caused = {
        pod.name: pod.restarts
        for pod in observed.pods_of(revision)
        if pod.restarts and pod.termination is not None and pod.termination.cause
    }
    return merged(caused, ended_together(observed, revision))


def ended_together(observed: Observed, revision: str) -> dict[str, int]:
    """By pod name, the ends of its container up to one that hit the pods of other revisions alike: at the same time as
    large a share of those ended in the same way."""
    mine, others = observed.pods_of(revision), _others(observed, revision)
    found = {}
    for pod in mine:
        like = [other for other in others if _ended_alike(pod, other)]
        if like and _as_many(like, others, [it for it in mine if _ended_alike(pod, it)], mine):
            found[pod.name] = pod.ends
    return found


def merged(known: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """The larger number for each name."""
    return {name: max(known.get(name, 0), more.get(name, 0)) for name in (*known, *more)}


def _others(observed: Observed, revision: str) -> list[Pod]:
    return [pod for pod in observed.pods if pod.revision != revision and not pod.terminating and not pod.over]


def _as_many(like: Sequence[Pod], others: Sequence[Pod], mine: Sequence[object], of: Sequence[Pod]) -> bool:
    """At least as large a share, in whole pods, of the others as of the revision's own."""
    return bool(like) and len(like) >= len(mine) * len(others) // len(of)


def _ended_alike(pod: Pod, other: Pod) -> bool:
    """Both containers ended by themselves, and in the same way: at the same time, or again and again."""
    one, two = pod.termination, other.termination
    if one is None or two is None or one.cause or two.cause:
        return False
    killed = one.reason == OOM_KILLED
    if killed != (two.reason == OOM_KILLED):
        return False
    if not killed and pod.waiting_reason == other.waiting_reason == "CrashLoopBackOff":
        return True
    if one.finished is None or two.finished is None:
        return False
    return abs((one.finished - two.finished).total_seconds()) <= TOGETHER_SECONDS


def _needed(observed: Observed, revision: str, pods: int) -> int:
    """How many ill pods condemn."""
    workload = observed.workloads.get(revision)
    wanted = max(pods, workload.replicas if workload else 0)
    return max(1, ceil(CONDEMNING_SHARE * wanted))


def _shared(pods: list[Pod], illness: Callable[[Pod], Condemnation | None], needed: int) -> Condemnation | None:
    found = [condemnation for pod in pods if (condemnation := illness(pod))]
    return found[0] if len(found) >= needed else None


def _killed(pod: Pod, excused: int) -> Condemnation | None:
    if pod.termination is None or pod.termination.reason != OOM_KILLED or pod.termination.cause:
        return None
    if excused and pod.ends <= excused:
        return None
    limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
    return Condemnation(
        reason="OOMKilled", message=f"killed for exceeding its memory limit{limit} (pod {pod.name})",
        value="OOMKilled", limit="spec.resources.limits.memory",
    )  # fmt: skip


def _crash_looping(pod: Pod, excused: int) -> Condemnation | None:
    ended, restarts = pod.termination, pod.restarts - excused
    if ended is not None and ended.cause:
        return None
    if not (restarts >= 1 and pod.waiting_reason == "CrashLoopBackOff") and restarts < CRASH_RESTARTS:
        return None
    how = f", last with exit code {ended.exit_code} ({ended.reason})" if ended else ""
    words = f": {_last_line(ended.message)}" if ended and ended.message.strip() else ""
    exits = pod.ends - excused
    return Condemnation(
        reason="CrashLoopBackOff", message=f"ended {exits} times{how}{words} (pod {pod.name})",
        value=f"{exits} exits", limit=f"< {CRASH_RESTARTS} exits",
    )  # fmt: skip


def _image_unavailable(pod: Pod) -> Condemnation | None:
    """An init container is not the revision's: whoever injected it chose its image."""
    if pod.waits_for or (pod.waiting_reason not in IMAGE_REASONS and pull_failure(pod) != "absent"):
        return None
    words = cut(pull_words(pod), 300) or f"its image cannot be had: {pod.waiting_reason}"
    return Condemnation(
        reason="ImageUnavailable", message=f"{words} (pod {pod.name})", value=pod.waiting_reason, limit="spec.image"
    )


def _model_refused(pod: Pod) -> Condemnation | None:
    if pod.ready or pod.report is None or pod.report.reason not in MODEL_REASONS:
        return None
    return Condemnation(
        reason=pod.report.reason, message=f"{cut(pod.report.message, 400)} (pod {pod.name})",
        value=pod.report.reason, limit="spec.model",
    )  # fmt: skip


def _not_ready(pod: Pod, rollback: Rollback, now: datetime, patience_from: datetime) -> Condemnation | None:
    patience = patience_with(pod, rollback, patience_from)
    if not unready_by_itself(pod) or not is_over(patience, pod, now):
        return None
    why = next(iter(_reasons(pod)), "")
    return Condemnation(
        reason="NotReady", message=f"{why}not ready for more than {patience.seconds} s (pod {pod.name})",
        value=f"> {patience.seconds} s", limit=f"{patience.field} {patience.seconds} s",
    )  # fmt: skip


def _reasons(pod: Pod) -> Iterable[str]:
    if pod.report is not None:
        yield f"{pod.report.reason}: {cut(pod.report.message, 200)}; "
    if pod.waiting_reason:
        yield f"{pod.waiting_reason}: {cut(pod.waiting_message, 200)}; "


def _last_line(text: str) -> str:
    return cut(text.strip().splitlines()[-1], 300)
