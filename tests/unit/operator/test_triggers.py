"""Pod failures that condemn a revision, each with its reason, and the patience with pods that are not ready."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pinn_operator.core.observed import Observed, Pod, PodReport, Termination, Workload
from pinn_operator.core.rollout.triggers import MODEL_REASONS, ends_of_others, next_deadline, pod_failure
from pinn_operator.core.wanted.spec import Rollback

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ROLLBACK = Rollback(ready_deadline_seconds=600, unready_seconds=30)
READY = Pod("eu-bbbb-x-1", "bbbb", START, "Running", ready=True, ready_changed=START, was_ready=True, started=True)
PULLING = Pod("eu-bbbb-x-1", "bbbb", START, "Pending", ready=False, ready_changed=START)
STARTING = replace(READY, ready=False, ready_changed=START, was_ready=False)
LOST = replace(READY, ready=False, ready_changed=START + timedelta(seconds=100))


def seen(*pods: Pod, available: int | None = None, replicas: int = 1, revision: str = "bbbb") -> Observed:
    ready = sum(pod.ready for pod in pods) if available is None else available
    return Observed(workloads={revision: Workload(revision, replicas, ready, ready, settled=True)}, pods=pods)


def reason(observed: Observed, *, after: float = 10) -> str | None:
    now = START + timedelta(seconds=after)
    found = pod_failure(observed, "bbbb", rollback=ROLLBACK, now=now, patience_from=START)
    return found.reason if found else None


OOM, ERROR = Termination("OOMKilled", 137), Termination("Error", 1, "Traceback\n  …\nValueError: no weights\n")


@pytest.mark.parametrize(
    ("name", "pod", "expected", "words"),
    [
        ("killed for its memory", replace(READY, termination=OOM, restarts=1, memory_limit="72Mi"), "OOMKilled",
         "killed for exceeding its memory limit of 72Mi (pod eu-bbbb-x-1)"),
        ("killed for its memory, and ready again", replace(READY, termination=OOM, restarts=1), "OOMKilled",
         "memory limit"),
        ("waiting to be started again", replace(LOST, waiting_reason="CrashLoopBackOff", restarts=1, termination=ERROR),
         "CrashLoopBackOff", "ValueError: no weights"),
        ("started for the third time", replace(READY, restarts=2, termination=ERROR, container_started=START),
         "CrashLoopBackOff", "ended 2 times, last with exit code 1 (Error)"),
        ("no such image", replace(PULLING, waiting_reason="ImagePullBackOff", waiting_message="not found"),
         "ImageUnavailable", "not found"),
        ("no image name", replace(PULLING, waiting_reason="InvalidImageName"), "ImageUnavailable", "image"),
        ("image may not be pulled", replace(PULLING, waiting_reason="ErrImageNeverPull"), "ImageUnavailable", "image"),
        *[
            (f"the server says {it}", replace(STARTING, report=PodReport(it, "expected 9f, found 00")), it,
             "expected 9f")
            for it in sorted(MODEL_REASONS)
        ],
    ],
)  # fmt: skip
def test_a_pod_that_condemns_its_revision_at_once(name: str, pod: Pod, expected: str, words: str) -> None:
    found = pod_failure(seen(pod), "bbbb", rollback=ROLLBACK, now=START + timedelta(seconds=1), patience_from=START)
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
    assert reason(seen(READY, replace(pod, name="other"), available=1), after=400) is None, name


def test_the_value_of_a_crash_exceeds_its_limit() -> None:
    again = replace(LOST, waiting_reason="CrashLoopBackOff", restarts=1, termination=ERROR)
    found = pod_failure(seen(again), "bbbb", rollback=ROLLBACK, now=START, patience_from=START)
    assert found is not None
    assert (found.value, found.limit) == ("2 exits", "< 2 exits")


def test_a_memory_kill_counts_even_of_a_pod_that_is_over() -> None:
    assert reason(seen(READY, replace(LOST, name="over", phase="Failed", termination=OOM))) == "OOMKilled"


def test_a_pod_that_never_was_ready_has_until_the_deadline() -> None:
    assert reason(seen(STARTING), after=599) is None
    assert reason(seen(STARTING), after=600) == "NotReady"


def test_a_pod_whose_container_could_not_be_started_for_long_has_its_time_from_its_start() -> None:
    started = replace(STARTING, first_started=START + timedelta(seconds=900))
    assert reason(seen(started), after=1499) is None
    assert reason(seen(started), after=1500) == "NotReady"


def test_only_a_container_that_runs_can_be_late() -> None:
    waiting = replace(PULLING, unschedulable="0/1 nodes: insufficient memory")
    assert reason(seen(waiting), after=10_000) is None
    assert reason(seen(replace(PULLING, waiting_reason="CreateContainerConfigError")), after=10_000) is None


def test_a_clock_that_is_ahead_of_the_api_server_does_not_shorten_the_patience() -> None:
    ahead = START + timedelta(hours=1)
    early = pod_failure(seen(STARTING), "bbbb", rollback=ROLLBACK, now=ahead, patience_from=ahead)
    assert early is None
    late = ahead + timedelta(seconds=600)
    assert pod_failure(seen(STARTING), "bbbb", rollback=ROLLBACK, now=late, patience_from=ahead) is not None


def test_a_pod_that_was_ready_has_a_short_patience_from_the_moment_it_was_lost() -> None:
    assert reason(seen(READY, LOST), after=129) is None
    assert reason(seen(READY, LOST), after=130) == "NotReady"


def test_missing_pods_condemn_nobody() -> None:
    assert reason(seen(), after=10_000) is None
    assert reason(seen(LOST), after=101) is None


@pytest.mark.parametrize(
    ("name", "pod"),
    [
        ("its node restarted", replace(READY, restarts=3, termination=Termination("Unknown", 255, cause="its node"))),
        ("its node ran out of memory", replace(READY, termination=replace(OOM, cause="its node"))),
        ("its node does not report", replace(LOST, unready_cause="its node does not report")),
        ("it is evicted", replace(LOST, disruption="EvictionByEvictionAPI")),
        ("its registry is away", replace(PULLING, waiting_reason="ImagePullBackOff", waiting_message="i/o timeout")),
        ("its credentials are missing",
         replace(PULLING, waiting_reason="ErrImagePull",
                 waiting_message="repository does not exist or may require authorization")),
        ("its registry was asked too often",
         replace(PULLING, waiting_reason="ErrImagePull", waiting_message="429: toomanyrequests, not found")),
    ],
)  # fmt: skip
def test_what_the_infrastructure_did_condemns_nobody(name: str, pod: Pod) -> None:
    assert reason(seen(pod), after=10_000) is None, name


@pytest.mark.parametrize("reason_of_kubelet", ["ImagePullBackOff", "CreateContainerError", "SomeRuntimeError"])
def test_a_container_that_ran_and_is_kept_from_running_again_condemns_nobody(reason_of_kubelet: str) -> None:
    kept = replace(LOST, restarts=1, termination=ERROR, waiting_reason=reason_of_kubelet, waiting_message="i/o timeout")
    assert reason(seen(kept), after=10_000) is None


def test_the_missing_image_of_an_init_container_is_not_the_revision_s() -> None:
    injected = replace(PULLING, waiting_reason="ErrImagePull", waiting_message="not found", waits_for="istio-init")
    assert reason(seen(injected), after=10_000) is None


def test_an_image_that_runs_somewhere_is_never_unavailable() -> None:
    pulling = replace(PULLING, name="b", waiting_reason="ImagePullBackOff", waiting_message="x: not found")
    assert reason(seen(pulling)) == "ImageUnavailable"
    assert reason(seen(READY, pulling)) is None


def test_one_ill_pod_of_ten_is_not_its_revision() -> None:
    pods = [replace(READY, name=f"pod-{number}") for number in range(10)]
    ill = [replace(pod, ready=False, ready_changed=START) for pod in pods]
    assert reason(seen(*ill[:1], *pods[1:], replicas=10), after=10_000) is None
    assert reason(seen(*ill[:2], *pods[2:], replicas=10), after=10_000) == "NotReady"


def test_failing_probes_condemn_only_while_the_neighbours_are_well() -> None:
    stable = replace(READY, name="eu-aaaa-x-1", revision="aaaa")
    assert reason(seen(LOST, stable), after=10_000) == "NotReady"
    assert reason(seen(LOST, replace(stable, ready=False)), after=10_000) is None


def test_restarts_that_a_container_did_not_cause_are_not_counted() -> None:
    again = replace(READY, restarts=3, termination=ERROR)
    now = START + timedelta(seconds=10)
    found = pod_failure(
        seen(again), "bbbb", rollback=ROLLBACK, now=now, patience_from=START, excused={again.name: 2}
    )  # fmt: skip
    assert found is None
    assert ends_of_others(seen(replace(again, termination=Termination("Unknown", 255, cause="x"))), "bbbb") == {
        again.name: 3
    }


STABLE = replace(READY, name="eu-aaaa-x-1", revision="aaaa")


def ended(pod: Pod, kind: Termination, after: float, **changes: object) -> Pod:
    return replace(pod, restarts=2, termination=replace(kind, finished=START + timedelta(seconds=after)), **changes)


@pytest.mark.parametrize("kind", [OOM, ERROR], ids=["OOM", "exit"])
def test_containers_of_both_revisions_that_end_together_condemn_nobody(kind: Termination) -> None:
    mine = ended(READY, kind, 100)
    stable = [ended(replace(STABLE, name=f"eu-aaaa-x-{number}"), kind, 100 + 10 * number) for number in range(3)]
    assert reason(seen(mine, *stable)) is None
    assert ends_of_others(seen(mine, *stable), "bbbb") == {mine.name: 2 + 1}
    assert reason(seen(mine, *stable[:2], replace(STABLE, name="well"))) is not None
    assert reason(seen(mine, *(ended(pod, kind, 300) for pod in stable))) is not None


def test_containers_that_end_in_different_ways_do_not_end_together() -> None:
    assert reason(seen(ended(READY, OOM, 100), ended(STABLE, ERROR, 100))) == "OOMKilled"


def test_an_end_that_hit_both_is_excused_for_ever_and_the_next_one_is_not() -> None:
    now, mine = START + timedelta(seconds=200), ended(READY, OOM, 100)
    for restarts, condemned in ((2, False), (3, True)):
        found = pod_failure(
            seen(replace(mine, restarts=restarts, container_started=START), STABLE), "bbbb", rollback=ROLLBACK,
            now=now, patience_from=START, excused={mine.name: 2},
        )  # fmt: skip
        assert (found is not None) == condemned


def test_containers_of_both_that_crash_again_and_again_condemn_nobody() -> None:
    looping = {"ready": False, "waiting_reason": "CrashLoopBackOff"}
    mine, stable = ended(READY, ERROR, 100, **looping), ended(STABLE, ERROR, 300, **looping)
    assert reason(seen(mine, stable)) is None
    assert reason(seen(mine, replace(stable, waiting_reason="", ready=True))) == "CrashLoopBackOff"


def test_probes_that_fail_for_as_large_a_share_of_both_condemn_nobody() -> None:
    stable = [replace(STABLE, name=f"eu-aaaa-x-{number}") for number in range(4)]
    ill = [replace(pod, ready=False, ready_changed=LOST.ready_changed) for pod in stable[:2]]
    well = replace(READY, name="well")
    assert reason(seen(LOST, well, *ill, *stable[2:]), after=10_000) is None
    assert reason(seen(LOST, well, ill[0], *stable[1:]), after=10_000) == "NotReady"


def test_the_gravest_failure_is_named() -> None:
    pods = (
        replace(PULLING, name="a", waiting_reason="ImagePullBackOff"), replace(READY, name="b", restarts=5),
        replace(READY, name="c", termination=OOM),
    )  # fmt: skip
    assert reason(seen(*pods), after=10_000) == "OOMKilled"
    assert reason(seen(*pods[:2]), after=10_000) == "CrashLoopBackOff"


def test_the_next_deadline_is_the_first_that_is_still_to_come() -> None:
    at = START + timedelta(seconds=110)
    observed = seen(READY, LOST, replace(STARTING, name="c"))
    assert next_deadline(observed, "bbbb", rollback=ROLLBACK, now=at) == START + timedelta(seconds=130)
    later = START + timedelta(seconds=131)
    assert next_deadline(observed, "bbbb", rollback=ROLLBACK, now=later) == START + timedelta(seconds=600)
    assert next_deadline(seen(READY), "bbbb", rollback=ROLLBACK, now=at) is None
    assert next_deadline(seen(replace(LOST, phase="Failed")), "bbbb", rollback=ROLLBACK, now=at) is None


@pytest.mark.parametrize("pod", [LOST, STARTING], ids=["was ready", "starts"])
def test_a_pod_is_unready_for_no_longer_than_the_operator_has_seen_it_so(pod: Pod) -> None:
    """By a clock that is hours ahead, every pod has been unready for hours."""
    assert reason(seen(replace(pod, seen=3.0)), after=7200) is None
    assert reason(seen(replace(pod, seen=601.0)), after=7200) == "NotReady"
