"""Pod failures that condemn a canary without any metric.

A container that dies, an image that cannot be had, a model that fails its own check: no query is needed to know, and
waiting for one costs requests. Reasons are the kubelet's where it has one (core/v1 ContainerStateWaiting.reason).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pinn_operator.core.gates.judgement import Condemnation
from pinn_operator.core.observed import Observed, Pod
from pinn_operator.core.wanted.spec import Rollback

IMAGE_REASONS = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
"""Trying again cannot cure these."""
IMAGE_ABSENT = ("not found", "manifest unknown", "does not exist")
"""What a registry that answers says of an image that it does not have (containerd, Docker, CRI-O)."""
IMAGE_PATIENCE_SECONDS = 30.0
"""In ImagePullBackOff the kubelet goes on trying: a registry may be away for a moment, and a good revision must outlive
that."""

MODEL_REASONS = frozenset(
    {
        "ModelNotFound", "ModelChecksumMismatch", "ModelFormatInvalid", "ModelLoadFailed", "ModelWarmUpFailed",
        "ModelRuntimeFailed", "ModelSelfCheckFailed",
    }
)  # fmt: skip
"""Reasons in a pod's own readiness report that waiting cannot cure."""

CRASH_RESTARTS = 2
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def pod_failure(observed: Observed, revision: str, *, weight: int, rollback: Rollback, now: datetime,
                patience_from: datetime) -> Condemnation | None:  # fmt: skip
    """The first pod failure that condemns the revision, or None. The gravest comes first.

    `patience_from` is when pods of the revision were first to be expected.
    """
    everything = sorted(observed.pods_of(revision), key=lambda pod: pod.name)
    # An evicted pod stays as a record while its Deployment has long replaced it: only a memory kill counts against the
    # revision then.
    pods = [pod for pod in everything if not pod.over]
    graves = (
        *(_killed(pod) for pod in everything),
        *(_crash_looping(pod) for pod in pods),
        *(_image_unavailable(pod, now, patience_from) for pod in pods),
        *(_model_refused(pod) for pod in pods),
    )
    for grave in graves:
        if grave is not None:
            return grave
    if weight > 0 and observed.available(revision) == 0:
        return Condemnation(
            reason="CanaryUnavailable", message=f"no replica of {revision} is available while it has {weight}%",
            value="0 available", limit=">= 1",
        )  # fmt: skip
    for pod in pods:
        found = _not_ready(pod, rollback, now, patience_from)
        if found is not None:
            return found
    deadline = patience_from + timedelta(seconds=rollback.ready_deadline_seconds)
    workload = observed.workloads.get(revision)
    expected = workload is not None and workload.replicas > 0 and workload.available == 0
    if expected and not pods and weight == 0 and now >= deadline:
        return Condemnation(
            reason="NoPods", message=f"no pod of {revision} exists {rollback.ready_deadline_seconds} s after its start",
            value="0 pods", limit=f"{rollback.ready_deadline_seconds} s",
        )  # fmt: skip
    return None


def next_deadline(observed: Observed, revision: str, *, rollback: Rollback, now: datetime) -> datetime | None:
    """When the oldest patience with an unready pod ends, if that is still to come."""
    ends = (_patience_ends(pod, rollback) for pod in observed.living(revision) if not pod.ready)
    return min((end for end in ends if end > now), default=None)


def _killed(pod: Pod) -> Condemnation | None:
    if pod.termination is None or pod.termination.reason != "OOMKilled":
        return None
    return Condemnation(
        reason="OOMKilled", message=f"pod {pod.name} was killed for exceeding its memory limit",
        value="OOMKilled", limit="spec.resources.limits.memory",
    )  # fmt: skip


def _crash_looping(pod: Pod) -> Condemnation | None:
    if pod.waiting_reason != "CrashLoopBackOff" and pod.restarts < CRASH_RESTARTS:
        return None
    ended = pod.termination
    how = f", last with exit code {ended.exit_code} ({ended.reason})" if ended else ""
    words = f": {_last_line(ended.message)}" if ended and ended.message.strip() else ""
    return Condemnation(
        reason="CrashLoopBackOff", message=f"pod {pod.name} restarted {pod.restarts} times{how}{words}",
        value=f"{pod.restarts} restarts", limit=f"< {CRASH_RESTARTS} restarts",
    )  # fmt: skip


def _image_unavailable(pod: Pod, now: datetime, patience_from: datetime) -> Condemnation | None:
    if pod.waiting_reason == "ImagePullBackOff":
        absent = any(words in pod.waiting_message for words in IMAGE_ABSENT)
        waited = (now - max(pod.created, patience_from)).total_seconds()
        if not absent and waited < IMAGE_PATIENCE_SECONDS:
            return None
    elif pod.waiting_reason not in IMAGE_REASONS:
        return None
    return Condemnation(
        reason="ImageUnavailable", message=f"pod {pod.name} cannot get its image: {pod.waiting_message[:300]}",
        value=pod.waiting_reason, limit="spec.image",
    )  # fmt: skip


def _model_refused(pod: Pod) -> Condemnation | None:
    if pod.ready or pod.report is None or pod.report.reason not in MODEL_REASONS:
        return None
    return Condemnation(
        reason=pod.report.reason, message=f"pod {pod.name}: {pod.report.message[:400]}",
        value=pod.report.reason, limit="spec.model",
    )  # fmt: skip


def _not_ready(pod: Pod, rollback: Rollback, now: datetime, patience_from: datetime) -> Condemnation | None:
    if pod.ready or now < _patience_ends(pod, rollback, patience_from):
        return None
    patience = rollback.unready_seconds if pod.was_ready else rollback.ready_deadline_seconds
    field = "spec.rollback.unreadySeconds" if pod.was_ready else "spec.rollback.readyDeadlineSeconds"
    why = next(iter(_reasons(pod)), "")
    return Condemnation(
        reason="NotReady", message=f"pod {pod.name} is not ready for more than {patience} s{why}",
        value=f"> {patience} s", limit=f"{field} {patience} s",
    )  # fmt: skip


def _reasons(pod: Pod) -> Iterable[str]:
    if pod.unschedulable:
        yield f": cannot be scheduled: {pod.unschedulable[:200]}"
    if pod.report is not None:
        yield f": {pod.report.reason}: {pod.report.message[:200]}"
    if pod.waiting_reason:
        yield f": {pod.waiting_reason}: {pod.waiting_message[:200]}"


def _patience_ends(pod: Pod, rollback: Rollback, patience_from: datetime = _LONG_AGO) -> datetime:
    if pod.was_ready:
        return (pod.ready_changed or pod.created) + timedelta(seconds=rollback.unready_seconds)
    # `patience_from` is by the operator's own clock, which may be far ahead of the API server's.
    return max(pod.created, patience_from) + timedelta(seconds=rollback.ready_deadline_seconds)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:300]
