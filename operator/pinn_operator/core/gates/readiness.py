"""Which pods that are not ready say something of their revision, and how long each of them is waited for.

A pod that only starts, and one that something beside it keeps away, says nothing: how many of those there are depends
on nodes, quotas, registries and autoscalers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pinn_operator.core.observed import INIT_RUNNING, Pod
from pinn_operator.core.wanted.spec import Rollback

STARTING_WAITS = frozenset({"", "ContainerCreating", "PodInitializing", INIT_RUNNING})
"""What a container waits for before it runs for the first time, while nothing is wrong."""
OWN_WAITS = STARTING_WAITS | {"CrashLoopBackOff", "RunContainerError"}
"""What a container that ran waits for by its own doing. For anything else (its image, its configuration, its runtime)
it is kept waiting."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a pod that is not ready is waited for."""

    starts: bool
    """It was never ready, or its node has started its container again: it starts."""
    since: datetime
    seconds: int

    @property
    def ends(self) -> datetime:
        """When it is over."""
        return self.since + timedelta(seconds=self.seconds)

    @property
    def field(self) -> str:
        """Where its seconds are set."""
        return f"spec.rollback.{'readyDeadlineSeconds' if self.starts else 'unreadySeconds'}"


def unready_by_itself(pod: Pod) -> bool:
    """Its container runs, or ran, and nothing beside it is known to keep the pod from being ready."""
    kept_away = pod.unready_cause or pod.disruption or pod.waits_for or pod.waiting_reason not in OWN_WAITS
    return pod.started and not pod.ready and not kept_away


def patience_with(pod: Pod, rollback: Rollback, expected_from: datetime) -> Patience:
    """`expected_from` is when pods of its revision were first to be expected, by the operator's own clock: that may be
    far ahead of the API server's."""
    if pod.termination is not None and pod.termination.cause:
        # Its container was started again by a restart of its node.
        again = max(pod.created, expected_from, pod.ready_changed or expected_from)
        return Patience(True, again, rollback.ready_deadline_seconds)
    if pod.was_ready:
        return Patience(False, pod.ready_changed or pod.created, rollback.unready_seconds)
    # Until its image was there, a node had room and a volume was attached, it could not become ready.
    begins = max(pod.created, expected_from, pod.first_started or pod.created)
    return Patience(True, begins, rollback.ready_deadline_seconds)


def is_over(patience: Patience, pod: Pod, now: datetime) -> bool:
    """By the times in the pod, and by what the operator has seen of it itself: either clock may be wrong."""
    return now >= patience.ends and (pod.seen is None or pod.seen >= patience.seconds)


def has_failed(pod: Pod, rollback: Rollback, now: datetime, expected_from: datetime) -> bool:
    """Not ready, and neither starting nor kept from it: it was ready before, or is too late to become it."""
    if not unready_by_itself(pod):
        return False
    patience = patience_with(pod, rollback, expected_from)
    return not patience.starts or is_over(patience, pod, now)
