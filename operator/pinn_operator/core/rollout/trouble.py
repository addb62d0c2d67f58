"""Why replicas of a revision are missing, in the words of whoever knows: the scheduler, a quota, a kubelet, a registry.

What is named here is not the revision's doing and never condemns it (`pinn_operator.core.rollout.triggers` has what
does). It is shown while a rollout waits, and suspends one that cannot go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pinn_operator.core.gates.readiness import OWN_WAITS, STARTING_WAITS
from pinn_operator.core.observed import NODE_SILENT, READINESS_GATES, SCHEDULING_GATED, Observed, Pod
from pinn_operator.core.text import cut

PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"})
IMAGE_REASONS = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
"""Trying again cannot cure these."""
_REFERENCE = re.compile(r'"[^"\s]*"|\S*[/@]\S*|[^\s:]+:[^\s:]\S*')
"""A quoted text without spaces, a path, a digest, an address, `name:tag`: names may hold any words and figures."""
_TAG = re.compile(r"\bmanifest \S+ in\b")
"""How CRI-O names a tag."""
_STATUS = r"(?:status|code|http)\b[a-z\s:=]*\b"
_SIGNS = {
    # Registries hide what exists from those who may not see it: "repository does not exist or may require
    # authorization" is said of missing credentials too.
    "refused": (
        r"(?:un)?authoriz\w*", "authentication", "access denied", "forbidden", "insufficient_scope", _STATUS + "40[13]",
    ),
    "limited": ("toomanyrequests", "too many requests", r"rate.?limit\w*", _STATUS + "429"),
    "away": (
        "no such host", "dial tcp", "time-?out", "timed out", "connection refused", "deadline exceeded", "eof",
    ),
    # What a registry that answers says of an image that it does not have (containerd, Docker, CRI-O).
    "absent": (
        "not found", "manifest unknown", "does not exist", "name unknown", "no match(?:ing manifest)? for",
    ),
}  # fmt: skip
_SAID = {kind: re.compile(rf"\b(?:{'|'.join(signs)})\b") for kind, signs in _SIGNS.items()}
_CONFIGURATION = frozenset({"CreateContainerConfigError"})
_WORDS = 400


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something beside the revision that keeps replicas away. `text` holds the words of whoever reported it."""

    reason: str
    text: str


def trouble(observed: Observed, revision: str) -> Trouble | None:
    """What keeps replicas of the revision away and is not its own doing; the cause that a person can cure first.

    None when nothing is missing, or when the revision's pods have only themselves to blame, or just start.
    """
    workload = observed.workloads.get(revision)
    if workload is None or workload.available >= workload.replicas:
        return None
    if workload.failure:
        reason = "QuotaExceeded" if "quota" in workload.failure.lower() else "PodsNotCreated"
        return Trouble(reason, cut(_FORBIDDEN.sub("", workload.failure), _WORDS))
    mine = sorted((pod for pod in observed.pods if pod.revision == revision), key=lambda pod: pod.name)
    causes = [cause for pod in mine if not pod.ready or pod.terminating for cause in _causes(pod)]
    for reason in _GRAVEST_FIRST:
        found = next((cause for cause in causes if cause.reason == reason), None)
        if found is not None:
            return found
    if not any(pod for pod in mine if not pod.over):
        return Trouble("NoPods", f"no pod of {revision} exists, although {workload.replicas} are wanted")
    return None


_GRAVEST_FIRST = (
    "ConfigurationMissing", "ImagePullFailed", "Unschedulable", "SchedulingGated", "ContainerNotCreated",
    "PodDisrupted", "NodeNotReporting", "ReadinessGateNotPassed", "SidecarNotReady", "NodeRestarted", "PodDeleted",
)  # fmt: skip


def pull_failure(pod: Pod) -> str | None:
    """What keeps an image away: `absent` when a registry says that it does not have it, `refused` when it wants other
    credentials, `limited` when it was asked too often, `away` when it did not answer; None if it is not the image."""
    if pod.waiting_reason not in PULL_REASONS:
        return None
    words = _TAG.sub(" ", _REFERENCE.sub(" ", pod.waiting_message.lower()))
    return next((kind for kind, signs in _SAID.items() if signs.search(words)), "away")


_BOILERPLATE = re.compile(r'.*failed to (?:resolve reference|copy|resolve image)(?: "([^"]*)")?: ', re.DOTALL)
"""What containerd says before the words of the registry."""
_FORBIDDEN = re.compile(r'^(?:Error creating: )?pods "[^"]*" is forbidden: ')
"""What the API server says before the words of a quota or an admission policy."""


def pull_words(pod: Pod) -> str:
    """The image, and what the registry, or whoever was asked for it, says."""
    return _BOILERPLATE.sub(lambda found: f"{found[1]}: " if found[1] else "", pod.waiting_message)


def _causes(pod: Pod) -> Iterator[Trouble]:
    """The words first: of a long text a table shows the beginning."""
    if pod.terminating and not pod.disruption:
        yield Trouble("PodDeleted", f"pod {pod.name} was deleted, another one starts")
    if pod.disruption:
        yield _of(pod, "PodDisrupted", pod.disruption)
    if pod.over or pod.terminating:
        return
    if pod.unschedulable:
        yield _of(pod, "Unschedulable", pod.unschedulable)
    if (waits := _waits(pod)) is not None:
        yield waits
    if pod.trouble and not pod.started:
        yield _of(pod, "ContainerNotCreated", pod.trouble)
    if pod.unready_cause:
        yield _of(pod, _kept_unready_by(pod.unready_cause), pod.unready_cause)
    if pod.termination is not None and pod.termination.cause:
        yield _of(pod, "NodeRestarted", pod.termination.cause)


def _waits(pod: Pod) -> Trouble | None:
    """What the kubelet waits for before it runs the container, if that is not only its start."""
    reason, words = pod.waiting_reason, pod.waiting_message
    if reason == SCHEDULING_GATED:
        return _of(pod, "SchedulingGated", words)
    if reason in _CONFIGURATION:
        return _of(pod, "ConfigurationMissing", words)
    if reason in PULL_REASONS | IMAGE_REASONS:
        return _of(pod, "ImagePullFailed", pull_words(pod))
    if reason in STARTING_WAITS or (reason in OWN_WAITS and pod.started):
        return None
    return _of(pod, "ContainerNotCreated", waiting(pod))


def _kept_unready_by(cause: str) -> str:
    if cause == NODE_SILENT:
        return "NodeNotReporting"
    return "ReadinessGateNotPassed" if cause.startswith(READINESS_GATES) else "SidecarNotReady"


def waiting(pod: Pod) -> str:
    """Why its container does not run, in the kubelet's words; empty if it does not say."""
    words = ": ".join(filter(None, [pod.waiting_reason, pod.waiting_message]))
    return f"init container {pod.waits_for}: {words}" if pod.waits_for and words else words


def missing_since(observed: Observed, revision: str, expected_from: datetime) -> datetime:
    """Since when replicas of the revision are missing that were to be expected from `expected_from` on."""
    unready = [pod for pod in observed.living(revision) if not pod.ready]
    moments = [pod.ready_changed if pod.was_ready and pod.ready_changed else pod.created for pod in unready]
    workload = observed.workloads.get(revision)
    if workload is not None and workload.failure and workload.failing_since is not None:
        moments.append(workload.failing_since)
    return max(expected_from, min(moments, default=expected_from))


def state_of(observed: Observed, revision: str) -> str:
    """What the first pod of the revision that is not ready waits for, whoever is to blame; empty if all are ready."""
    for pod in sorted(observed.living(revision), key=lambda pod: pod.name):
        if pod.ready:
            continue
        if pod.report is not None:
            return f"pod {pod.name} is not ready: {pod.report.reason}: {pod.report.message}"
        if pod.termination is not None:
            return f"pod {pod.name} ended with exit code {pod.termination.exit_code} and starts again"
        if not pod.node:
            return f"no scheduler has found a node for pod {pod.name}"
        if not pod.started:
            return f"pod {pod.name} waits: {waiting(pod) or 'its kubelet does not say for what'}"
        return f"the container of pod {pod.name} runs and is not ready"
    return ""


def _of(pod: Pod, reason: str, words: str) -> Trouble:
    return Trouble(reason, f"{cut(' '.join(words.split()), _WORDS) or reason} (pod {pod.name})")
