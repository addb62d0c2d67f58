"""Pod failures that condemn a revision, each with its reason, and the patience with pods that are not ready."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pinn_operator.core.observed import Observed, Pod, PodReport, Termination, Workload
from pinn_operator.core.rollout.triggers import MODEL_REASONS, next_deadline, pod_failure
from pinn_operator.core.wanted.spec import Rollback

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ROLLBACK = Rollback(ready_deadline_seconds=600, unready_seconds=30)
READY = Pod("eu-bbbb-x-1", "bbbb", START, "Running", ready=True, ready_changed=START, was_ready=True)
STARTING = replace(READY, ready=False, ready_changed=START, was_ready=False)
LOST = replace(READY, ready=False, ready_changed=START + timedelta(seconds=100))


def seen(*pods: Pod, available: int | None = None, replicas: int = 1, revision: str = "bbbb") -> Observed:
    ready = sum(pod.ready for pod in pods) if available is None else available
    return Observed(workloads={revision: Workload(revision, replicas, ready, ready, settled=True)}, pods=pods)


def reason(observed: Observed, *, after: float = 10, weight: int = 0) -> str | None:
    now = START + timedelta(seconds=after)
    found = pod_failure(observed, "bbbb", weight=weight, rollback=ROLLBACK, now=now, patience_from=START)
    return found.reason if found else None


OOM, ERROR = Termination("OOMKilled", 137), Termination("Error", 1, "Traceback\n  …\nValueError: no weights\n")


@pytest.mark.parametrize(
    ("name", "pod", "expected", "words"),
    [
        ("killed for its memory, and ready again", replace(READY, termination=OOM, restarts=1), "OOMKilled",
         "memory limit"),
        ("waiting to be started again", replace(LOST, waiting_reason="CrashLoopBackOff", restarts=1, termination=ERROR),
         "CrashLoopBackOff", "ValueError: no weights"),
        ("started for the third time", replace(READY, restarts=2, termination=ERROR), "CrashLoopBackOff",
         "restarted 2 times, last with exit code 1 (Error)"),
        ("no such image", replace(STARTING, waiting_reason="ImagePullBackOff", waiting_message="not found"),
         "ImageUnavailable", "not found"),
        ("no image name", replace(STARTING, waiting_reason="InvalidImageName"), "ImageUnavailable", "image"),
        ("image may not be pulled", replace(STARTING, waiting_reason="ErrImageNeverPull"), "ImageUnavailable", "image"),
        *[
            (f"the server says {it}", replace(STARTING, report=PodReport(it, "expected 9f, found 00")), it,
             "expected 9f")
            for it in sorted(MODEL_REASONS)
        ],
    ],
)  # fmt: skip
def test_a_pod_that_condemns_its_revision_at_once(name: str, pod: Pod, expected: str, words: str) -> None:
    found = pod_failure(
        seen(pod), "bbbb", weight=0, rollback=ROLLBACK, now=START + timedelta(seconds=1), patience_from=START
    )
    assert found is not None, name
    assert found.reason == expected
    assert words in found.message
    assert found.value
    assert found.limit


@pytest.mark.parametrize(
    ("name", "pod"),
    [
        ("ready", READY),
        ("starting", STARTING),
        ("restarted once", replace(READY, restarts=1, termination=ERROR)),
        ("one failed pull may be repeated", replace(STARTING, waiting_reason="ErrImagePull")),
        ("still loading its model", replace(STARTING, report=PodReport("WarmingUp", "3 of 8 shapes"))),
        ("a report of a pod that is ready by now", replace(READY, report=PodReport("ModelNotFound", "old"))),
        ("being deleted", replace(LOST, terminating=True, termination=OOM)),
        ("of another revision", replace(READY, revision="aaaa", termination=OOM)),
        ("evicted by the node, long replaced", replace(LOST, phase="Failed", restarts=3, waiting_reason="Evicted")),
    ],
)
def test_a_pod_that_condemns_nobody(name: str, pod: Pod) -> None:
    assert reason(seen(READY, replace(pod, name="other"), available=1), after=400, weight=10) is None, name


def test_a_memory_kill_counts_even_of_a_pod_that_is_over() -> None:
    assert reason(seen(READY, replace(LOST, name="over", phase="Failed", termination=OOM))) == "OOMKilled"


def test_a_pod_that_never_was_ready_has_until_the_deadline() -> None:
    assert reason(seen(STARTING), after=599) is None
    assert reason(seen(STARTING), after=600) == "NotReady"
    found = pod_failure(
        seen(replace(STARTING, unschedulable="0/1 nodes: insufficient memory")), "bbbb", weight=0, rollback=ROLLBACK,
        now=START + timedelta(seconds=601), patience_from=START,
    )  # fmt: skip
    assert found is not None
    assert "cannot be scheduled: 0/1 nodes" in found.message
    assert found.limit == "spec.rollback.readyDeadlineSeconds 600 s"


def test_a_clock_that_is_ahead_of_the_api_server_does_not_shorten_the_patience() -> None:
    ahead = START + timedelta(hours=1)
    early = pod_failure(seen(STARTING), "bbbb", weight=0, rollback=ROLLBACK, now=ahead, patience_from=ahead)
    assert early is None
    late = ahead + timedelta(seconds=600)
    assert pod_failure(seen(STARTING), "bbbb", weight=0, rollback=ROLLBACK, now=late, patience_from=ahead) is not None


def test_a_pod_that_was_ready_has_a_short_patience_from_the_moment_it_was_lost() -> None:
    assert reason(seen(READY, LOST), after=129, weight=10) is None
    assert reason(seen(READY, LOST), after=130, weight=10) == "NotReady"


def test_without_any_replica_a_canary_with_weight_goes_at_once_and_one_without_waits() -> None:
    assert reason(seen(LOST), after=101, weight=10) == "CanaryUnavailable"
    assert reason(seen(LOST), after=101, weight=0) is None
    assert reason(seen(), weight=10) == "CanaryUnavailable"


def test_a_deployment_that_gets_no_pods_is_condemned_after_the_deadline_and_one_that_is_not_there_is_not() -> None:
    assert reason(seen(), after=599) is None
    assert reason(seen(), after=600) == "NoPods"
    assert reason(seen(replicas=0), after=6000) is None, "nobody asked for pods"
    assert reason(Observed(), after=6000) is None, "its Deployment was never written: the operator was away"


def test_the_gravest_failure_is_named() -> None:
    pods = (
        replace(STARTING, name="a", waiting_reason="ImagePullBackOff"), replace(READY, name="b", restarts=5),
        replace(READY, name="c", termination=OOM),
    )  # fmt: skip
    assert reason(seen(*pods), after=10_000, weight=50) == "OOMKilled"
    assert reason(seen(*pods[:2]), after=10_000, weight=50) == "CrashLoopBackOff"


def test_the_next_deadline_is_the_first_that_is_still_to_come() -> None:
    at = START + timedelta(seconds=110)
    observed = seen(READY, LOST, replace(STARTING, name="c"))
    assert next_deadline(observed, "bbbb", rollback=ROLLBACK, now=at) == START + timedelta(seconds=130)
    later = START + timedelta(seconds=131)
    assert next_deadline(observed, "bbbb", rollback=ROLLBACK, now=later) == START + timedelta(seconds=600)
    assert next_deadline(seen(READY), "bbbb", rollback=ROLLBACK, now=at) is None
    assert next_deadline(seen(replace(LOST, phase="Failed")), "bbbb", rollback=ROLLBACK, now=at) is None


@pytest.mark.parametrize(
    ("message", "after", "expected"),
    [
        ("dial tcp: connection refused", 12, None),
        ("dial tcp: connection refused", 31, "ImageUnavailable"),
        ("registry.example.com/pinn:9: not found", 2, "ImageUnavailable"),
    ],
)
def test_a_registry_that_is_away_is_waited_for_and_an_image_that_it_does_not_have_is_not(
    message: str, after: float, expected: str | None
) -> None:
    pod = replace(STARTING, waiting_reason="ImagePullBackOff", waiting_message=message)
    assert reason(seen(pod), after=after) == expected
