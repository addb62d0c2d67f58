"""What the status tells: conditions as the API conventions and kstatus want them, the next action, the columns."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.gates.judgement import Condemnation, Judgement
from pinn_operator.core.observed import Observed, Pod, PodReport, RevisionRecord, Route, Termination, Workload
from pinn_operator.core.rollout.triggers import pod_failure
from pinn_operator.core.rollout.trouble import trouble
from pinn_operator.core.rollout.waits import Gravity, Wait
from pinn_operator.core.samples import PodReadFault, PodReadFaults, SourceError
from pinn_operator.core.situation import accepted_spec
from pinn_operator.core.status.values import (
    Condition,
    GateStatus,
    NextAction,
    Phase,
    RevisionStatus,
    RollbackStatus,
    RolloutStatus,
    Status,
    Verdict,
)
from pinn_operator.core.telling.announce import announcements
from pinn_operator.core.telling.facts import Facts
from pinn_operator.core.telling.report import report
from pinn_operator.core.wanted.spec import Rollback, Spec

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=1)
STABLE, CANARY = RevisionStatus("aaaa", "pinn:1", EARLIER), RevisionStatus("bbbb", "pinn:2", EARLIER)
STEPS = [{"weight": 10, "holdSeconds": 60}, {"weight": 50, "holdSeconds": 60}, {"weight": 100, "holdSeconds": 60}]
PASSED = GateStatus("error-rate", Verdict.PASS, message="0.1%")
COLLECTING = GateStatus("latency-p95", Verdict.COLLECTING, message="41/100 requests")
ROLLOUT = RolloutStatus(
    start_time=EARLIER, step_index=0, weight=10, weight_time=NOW, programmed_time=NOW, observed_share=9.4,
    gates=(PASSED,),
)  # fmt: skip
REJECTED = RollbackStatus("bbbb", "pinn:2", EARLIER, "ErrorRateAboveStable", "error-rate 25% against 0.1%")
SETTLED = Status(phase=Phase.STABLE, stable=STABLE)
MOVING = Status(phase=Phase.PROGRESSING, stable=STABLE, canary=CANARY, rollout=ROLLOUT)
BACK = replace(MOVING, phase=Phase.ROLLING_BACK, rejected=REJECTED, rollout=replace(ROLLOUT, weight=0))
BACKED = Status(phase=Phase.ROLLED_BACK, stable=STABLE, canary=CANARY, rejected=REJECTED)


def resource(status: Status = SETTLED, **spec: Any) -> Resource:
    manifest = {
        "metadata": {"name": "eu", "namespace": "pricing", "uid": "u", "generation": 7},
        "spec": {
            "image": "pinn:2",
            "strategy": {"canary": {"steps": STEPS}},
            "traffic": {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]},
            "analysis": {"deadlineSeconds": 600},
            **spec,
        },
    }
    return replace(parse_resource(manifest), status=status)


def seen(*, stable: int = 3, canary: int = 3, pods: tuple[Pod, ...] = (), **changes: Any) -> Observed:
    return replace(
        Observed(
            workloads={
                revision: Workload(revision, 3, available, available, settled=True)
                for revision, available in (("aaaa", stable), ("bbbb", canary))
            },
            pods=pods,
            selectors={name: {} for name in ("eu", "eu-stable", "eu-canary")},
            route=Route({"eu-stable": 90, "eu-canary": 10}, programmed=True),
        ),
        **changes,
    )  # fmt: skip


def told(
    status: Status, observed: Observed | None = None, *, of: Resource | None = None, now: datetime = NOW,
    judgement: Judgement | None = None, held: Condemnation | None = None, waits: tuple[Wait, ...] = (),
    pods: PodReadFaults | None = None,
) -> Status:  # fmt: skip
    of, observed = of or resource(status), observed or seen()
    spec = accepted_spec(of, observed)
    return report(Facts(of, spec, observed, status, judgement or Judgement(gates=()), held, waits, now, pods))


def condition(status: Status, kind: str) -> Condition:
    found = status.condition(kind)
    assert found is not None, [item.type for item in status.conditions]
    return found


# --- conditions -------------------------------------------------------------------------------------------------------


def test_at_rest_only_good_conditions_are_there() -> None:
    status = told(SETTLED)
    assert {item.type: item.status for item in status.conditions} == {
        "Ready": "True", "Progressing": "False", "ModelVerified": "Unknown", "TrafficProgrammed": "True",
    }  # fmt: skip
    assert status.observed_generation == 7
    assert {item.observed_generation for item in status.conditions} == {7}


def test_the_time_of_a_transition_moves_with_the_status_alone() -> None:
    first = told(MOVING, now=EARLIER)
    later = told(replace(MOVING, conditions=first.conditions), seen(stable=2, canary=1), of=resource(first), now=NOW)
    assert condition(later, "Ready").message != condition(first, "Ready").message
    assert condition(later, "Ready").last_transition_time == EARLIER
    gone = told(later, seen(stable=0, canary=0), of=resource(later), now=NOW)
    assert condition(gone, "Ready").status == "False"
    assert condition(gone, "Ready").last_transition_time == NOW
    assert condition(gone, "Progressing").last_transition_time == EARLIER


@pytest.mark.parametrize(
    ("name", "before", "available", "ready"),
    [
        ("a service that starts is ready with all replicas", None, 2, "False"),
        ("and then it is", None, 3, "True"),
        ("one that serves stays ready while one replica does", "True", 1, "True"),
        ("without any it is not", "True", 0, "False"),
        ("and again needs all", "False", 2, "False"),
    ],
)
def test_ready(name: str, before: str | None, available: int, ready: str) -> None:
    known = (Condition("Ready", before, "Serving", "", EARLIER, 7),) if before else ()
    status = replace(SETTLED, conditions=known)
    assert condition(told(status, seen(stable=available)), "Ready").status == ready, name


def test_without_its_service_nothing_is_ready() -> None:
    assert condition(told(SETTLED, seen(selectors={})), "Ready").reason == "ServiceMissing"


def test_a_service_scaled_to_zero_is_ready() -> None:
    assert condition(told(SETTLED, seen(stable=0), of=resource(replicas=0)), "Ready").status == "True"


def test_in_the_bake_the_canary_serves() -> None:
    bake = replace(MOVING, phase=Phase.BAKING, rollout=replace(ROLLOUT, weight=100, step_index=2))
    assert condition(told(bake, seen(stable=0, canary=3)), "Ready").status == "True"


@pytest.mark.parametrize("status", [Status(stable=STABLE), MOVING, BACK, replace(MOVING, phase=Phase.PROMOTING)])
def test_what_moves_is_reconciling_and_not_stalled(status: Status) -> None:
    said = told(status)
    assert condition(said, "Reconciling").reason == status.phase.value
    assert said.condition("Stalled") is None


def test_a_rolled_back_service_is_stalled_with_its_reason_and_still_ready() -> None:
    said = told(BACKED)
    assert condition(said, "Stalled").reason == "ErrorRateAboveStable"
    assert "is not retried: error-rate 25% against 0.1%" in condition(said, "Stalled").message
    assert condition(said, "Ready").status == "True"
    assert said.condition("Reconciling") is None


def test_an_invalid_spec_is_stalled_with_every_fault() -> None:
    broken = resource(replicas=-4, paused="perhaps")
    said = told(SETTLED, of=broken)
    assert condition(said, "Stalled").reason == "InvalidSpec"
    for field in ("spec.replicas", "spec.paused"):
        assert field in condition(said, "Stalled").message
        assert field in said.reason
    assert condition(said, "Ready").status == "False", "nothing is known that could serve"


def test_while_a_spec_is_invalid_a_rollout_waits_for_a_valid_one() -> None:
    good = resource()
    assert isinstance(good.spec, Spec)
    record = RevisionRecord("bbbb", 1, {}, good.spec)
    said = told(MOVING, seen(records={"bbbb": record}), of=resource(MOVING, paused="perhaps"))
    assert said.next == NextAction("Wait")


def test_a_first_revision_that_cannot_serve_is_stalled() -> None:
    pod = Pod(
        "eu-aaaa-x-1", "aaaa", NOW, "Pending", ready=False, waiting_reason="ImagePullBackOff",
        waiting_message="pinn:2: not found",
    )  # fmt: skip
    said = told(Status(stable=STABLE), seen(stable=0, pods=(pod,)))
    assert condition(said, "Stalled").reason == "ImageUnavailable"
    assert said.condition("Reconciling") is None


@pytest.mark.parametrize(
    ("name", "after", "paused", "stalled"),
    [("in time", 660, False, False), ("too late", 661, False, True), ("too late, but told to wait", 661, True, False)],
)
def test_an_analysis_that_never_passes_is_stalled_after_its_hold_and_deadline(
    name: str, after: float, paused: bool, stalled: bool
) -> None:
    status = replace(MOVING, rollout=replace(ROLLOUT, gates=(PASSED, COLLECTING)))
    said = told(status, of=resource(status, paused=paused), now=NOW + timedelta(seconds=after)).condition("Stalled")
    assert (said is not None) is stalled, name
    assert said is None or (said.reason == "AnalysisDeadlineExceeded" and "latency-p95: 41/100" in said.message)


FAULT = Condemnation("ErrorRateAboveStable", "error-rate 25%", "error-rate", "25%", "stable 0.1%")


@pytest.mark.parametrize(
    ("stable", "why"), [(3, "because rollback.mode is Hold"), (0, "because it is the only healthy copy")]
)
def test_a_rollback_that_is_held_says_why(stable: int, why: str) -> None:
    said = told(MOVING, seen(stable=stable), held=FAULT)
    assert condition(said, "Degraded").reason == "RollbackHeld"
    assert condition(said, "Degraded").message.endswith(why)
    assert said.next == NextAction("Wait")
    assert said.reason.startswith("RollbackHeld")


def test_the_figures_of_every_measurement_of_a_held_fault_are_no_news() -> None:
    first = told(MOVING, held=FAULT)
    again = told(first, of=resource(first), held=replace(FAULT, message="error-rate 26%"))
    assert again == first
    other = told(first, of=resource(first), held=replace(FAULT, reason="OOMKilled"))
    assert condition(other, "Degraded").message.startswith("OOMKilled")
    alone = told(first, seen(stable=0), of=resource(first), held=FAULT)
    assert condition(alone, "Degraded").message.endswith("only healthy copy")


def test_missing_replicas_of_stable_are_degraded() -> None:
    assert condition(told(SETTLED, seen(stable=2)), "Degraded").reason == "StableReplicasMissing"
    assert told(Status(stable=STABLE), seen(stable=0)).condition("Degraded") is None, "it only starts"


def test_metrics_are_told_as_they_were_when_they_were_last_asked_for() -> None:
    down = told(MOVING, judgement=Judgement(gates=(), source_error=SourceError("connection refused"), asked=True))
    assert condition(down, "MetricsAvailable").status == "False"
    assert "connection refused" in condition(down, "MetricsAvailable").message
    assert down.reason.startswith("QueryFailed")
    still = told(down, of=resource(down))
    assert condition(still, "MetricsAvailable").status == "False"
    up = told(down, of=resource(down), judgement=Judgement(gates=(), asked=True))
    assert condition(up, "MetricsAvailable").status == "True"
    assert told(replace(up, phase=Phase.STABLE, rollout=None), of=resource(up)).condition("MetricsAvailable") is None


def test_a_secret_that_the_operator_may_not_read_has_a_reason_of_its_own_for_as_long_as_that_is_so() -> None:
    words = "the Secret pricing/checks cannot be read: add {namespace: pricing, name: checks} to metricsSecrets"
    fault = SourceError(words, "CredentialsUnreadable")
    down = told(MOVING, judgement=Judgement(gates=(), source_error=fault, asked=True))
    assert down.reason.startswith("CredentialsUnreadable")
    # Between two questions to Prometheus a gate's message is all that is known, and it may have been cut.
    between = Judgement(gates=(), source_error=SourceError(words[:60]), asked=True)
    assert told(down, of=resource(down), judgement=between) == down


def test_pods_that_cannot_be_read_are_named_once_they_are_ready() -> None:
    ready = ("eu-aaaa-1", "eu-bbbb-1")
    pods = [Pod(name, name[3:7], NOW, "Running", ready=name in ready) for name in (*ready, "not-ready")]
    observed = seen(pods=tuple(pods))
    fine = told(MOVING, observed, pods=PodReadFaults((PodReadFault("not-ready", "nothing listens"),)))
    assert condition(fine, "PodMetricsAvailable").status == "True"
    faults = PodReadFaults(tuple(PodReadFault(name, "no answer within 0.5 s") for name in ready))
    cut_off = told(MOVING, observed, pods=faults)
    found = condition(cut_off, "PodMetricsAvailable")
    assert (found.status, found.reason) == ("False", "PodsNotReadable")
    assert f"{ready[0]}: no answer within 0.5 s; " in found.message
    assert found.message.endswith("Prometheus alone tells what these pods answer")
    still = told(cut_off, observed, of=resource(cut_off))
    assert condition(still, "PodMetricsAvailable").status == "False"
    assert told(replace(cut_off, phase=Phase.STABLE, rollout=None)).condition("PodMetricsAvailable") is None


PENDING_WEIGHT = replace(MOVING, rollout=replace(ROLLOUT, programmed_time=None))


@pytest.mark.parametrize(
    ("name", "status", "changes", "reason"),
    [
        ("all is well", MOVING, {}, "InForce"),
        ("no Gateway API", MOVING, {"route_kind_served": False}, "HTTPRouteNotServed"),
        ("no Service", MOVING, {"selectors": {"eu": {}, "eu-stable": {}}}, "ServiceMissing"),
        ("no route yet", MOVING, {"route": None}, "RouteMissing"),
        ("refused", MOVING, {"route": Route({}, programmed=False, message="no such Gateway")}, "RouteNotAccepted"),
        ("not yet seen", PENDING_WEIGHT, {}, "WeightPending"),
    ],
)
def test_traffic(name: str, status: Status, changes: dict[str, Any], reason: str) -> None:
    found = condition(told(status, seen(**changes)), "TrafficProgrammed")
    assert found.reason == reason, name
    assert found.status == ("True" if reason == "InForce" else "False")


@pytest.mark.parametrize(
    ("route", "ready"),
    [
        (Route({}, programmed=False, reason="RouteNotAccepted", message="no such host name", unserved=True), "False"),
        (Route({}, programmed=False, reason="RouteNotAccepted", message="one of two"), "True"),
    ],
)
def test_what_no_client_reaches_is_not_ready(route: Route, ready: str) -> None:
    found = condition(told(MOVING, seen(route=route)), "Ready")
    assert found.status == ready
    if ready == "False":
        assert found.reason == "RouteNotAccepted"
        assert found.message.endswith("but clients do not reach them: no such host name")


READY_POD = Pod("eu-bbbb-x-1", "bbbb", EARLIER, "Running", ready=True)
REFUSED = replace(READY_POD, ready=False, report=PodReport("ModelChecksumMismatch", "expected 9f, found 00"))


@pytest.mark.parametrize(
    ("name", "status", "pods", "verified", "reason"),
    [
        ("a ready pod has checked its model", MOVING, (READY_POD,), "True", "ReadyPods"),
        ("a pod refused it", MOVING, (REFUSED,), "False", "ModelChecksumMismatch"),
        ("nobody knows yet", MOVING, (), "Unknown", "NoReadyPod"),
        ("it was rejected for it", replace(BACKED, rejected=replace(REJECTED, reason="ModelChecksumMismatch")), (),
         "False", "ModelChecksumMismatch"),
    ],
)  # fmt: skip
def test_model(name: str, status: Status, pods: tuple[Pod, ...], verified: str, reason: str) -> None:
    found = condition(told(status, seen(pods=pods)), "ModelVerified")
    assert (found.status, found.reason) == (verified, reason), name


# --- columns and the next action --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "columns"),
    [
        ("at rest", SETTLED, ("-", "-", "-", "revision aaaa serves")),
        ("the canary starts", replace(MOVING, rollout=replace(ROLLOUT, weight=0, gates=(), observed_share=None)),
         ("1/3", "0/?", "-", "revision bbbb has no traffic yet, aaaa serves")),
        ("all is good", MOVING, ("1/3", "10/9.4", "Pass", "all gates pass")),
        ("the worst gate is shown", replace(MOVING, rollout=replace(ROLLOUT, gates=(PASSED, COLLECTING))),
         ("1/3", "10/9.4", "Collecting", "latency-p95: 41/100 requests")),
        ("the bake", replace(MOVING, phase=Phase.BAKING, rollout=replace(ROLLOUT, step_index=2, weight=100)),
         ("3/3", "100/9.4", "Pass", "all gates pass")),
        ("steps were taken away", replace(MOVING, rollout=replace(ROLLOUT, step_index=9)),
         ("3/3", "10/9.4", "Pass", "all gates pass")),
        ("rolled back", BACKED, ("-", "0/0", "Fail", "ErrorRateAboveStable: error-rate 25% against 0.1%")),
    ],
)  # fmt: skip
def test_columns(name: str, status: Status, columns: tuple[str, str, str, str]) -> None:
    said = told(status)
    assert (said.step, said.weight, said.verdict, said.reason) == columns, name


@pytest.mark.parametrize(
    ("name", "status", "spec", "action"),
    [
        ("first revision", Status(stable=STABLE), {}, "Serve"),
        ("rolled back", BACKED, {}, "Wait"),
        ("rolling back", BACK, {}, "RemoveCapacity"),
        ("promoting", replace(MOVING, phase=Phase.PROMOTING), {}, "RemoveOldCapacity"),
        ("paused", MOVING, {"paused": True}, "Wait"),
        ("starting", replace(MOVING, rollout=replace(ROLLOUT, weight=0)), {}, "SetWeight 10%"),
        ("holding", MOVING, {}, "SetWeight 50%"),
        ("baking", replace(MOVING, phase=Phase.BAKING, rollout=replace(ROLLOUT, step_index=2, weight=100)), {},
         "Promote"),
        ("about to start", SETTLED, {}, "StartRollout"),
    ],
)  # fmt: skip
def test_next(name: str, status: Status, spec: dict[str, Any], action: str) -> None:
    said = told(status, of=resource(status, **spec), waits=(Wait("Reason", "what is missing"),)).next
    assert said == NextAction(action, "what is missing"), name


def test_a_wait_that_the_pass_recorded_is_told_instead_of_a_guess() -> None:
    until = NOW + timedelta(seconds=40)
    said = told(MOVING, waits=(Wait("PodsPending", "pod eu-bbbb-1: Insufficient cpu", until), Wait("Other", "later")))
    assert said.next == NextAction("SetWeight 50%", "pod eu-bbbb-1: Insufficient cpu", until)
    assert said.reason == "PodsPending: pod eu-bbbb-1: Insufficient cpu"


@pytest.mark.parametrize(
    ("gravity", "kind", "action"),
    [(Gravity.DEGRADED, "Degraded", "SetWeight 50%"), (Gravity.STALLED, "Stalled", "Wait")],
)
def test_a_grave_wait_is_a_condition_too(gravity: Gravity, kind: str, action: str) -> None:
    said = told(MOVING, waits=(Wait("RouteNotAccepted", "gateway edge refuses it", gravity=gravity),))
    assert condition(said, kind).reason == "RouteNotAccepted"
    assert said.reason == "RouteNotAccepted: gateway edge refuses it"
    assert said.next is not None
    assert (said.next.action, said.next.waiting_for) == (action, "gateway edge refuses it")


def test_a_pause_is_seen_at_rest_and_in_a_rollout() -> None:
    for status, words in ((SETTLED, "revision aaaa serves"), (MOVING, "revision bbbb has 10%")):
        said = told(status, of=resource(status, paused=True))
        assert condition(said, "Paused").status == "True"
        assert said.reason.startswith(f"Paused: {words}")
    assert told(SETTLED).condition("Paused") is None


def events(before: Status, after: Status) -> list[str]:
    return [event.reason for event in announcements(before, after, ())]


def test_the_begin_and_the_end_of_a_pause_are_announced_once() -> None:
    running, paused = told(MOVING), told(MOVING, of=resource(MOVING, paused=True))
    assert events(running, paused) == ["Paused"]
    assert events(paused, paused) == []
    assert events(paused, running) == ["Resumed"]


def test_what_stalls_is_announced_unless_its_rollback_was() -> None:
    late = told(MOVING, now=NOW + timedelta(seconds=661))
    assert events(told(MOVING), late) == ["AnalysisDeadlineExceeded"]
    assert events(late, late) == []
    assert events(told(BACK), told(BACKED)) == []
    assert events(told(SETTLED), told(SETTLED, of=resource(SETTLED, replicas=-4))) == ["InvalidSpec"]


def test_the_column_fits_a_terminal_and_the_condition_has_the_whole() -> None:
    long = "expected " + 64 * "9" + " and found " + 64 * "0"
    said = told(replace(BACKED, rejected=replace(REJECTED, reason="ModelChecksumMismatch", message=long)))
    assert len(said.reason) <= 80
    assert said.reason.startswith("ModelChecksumMismatch: expected")
    assert long in condition(said, "Stalled").message


POD = "eu-options-intraday-31e8660e-7c9d5f6b8-x2x4z"


@pytest.mark.parametrize(
    ("pod", "shown"),
    [
        ({"waiting_reason": "ErrImagePull", "waiting_message": 'failed to pull and unpack image "pinn:2": failed to '
          'resolve reference "registry.example.com/pinn:2": registry.example.com/pinn:2: not found'},
         "ImageUnavailable: registry.example.com/pinn:2: registry.example.com/pinn:2: not found"),
        ({"waiting_reason": "CrashLoopBackOff", "restarts": 2,
          "termination": Termination("Error", 1, "ValueError: no such model", finished=NOW)},
         "CrashLoopBackOff: ended 3 times, last with exit code 1 (Error): ValueError: no such model"),
        ({"termination": Termination("OOMKilled", 137, finished=NOW)},
         "OOMKilled: killed for exceeding its memory limit"),
    ],
    ids=["image", "crash", "memory"],
)  # fmt: skip
def test_the_column_begins_with_what_happened_and_ends_with_names(pod: dict[str, Any], shown: str) -> None:
    """A name of a pod is half of the column."""
    ill = Pod(POD, "aaaa", NOW - timedelta(seconds=60), "Pending", ready=False, started="termination" in pod, **pod)
    found = pod_failure(
        Observed(workloads={"aaaa": Workload("aaaa", 1, 0, 0, settled=True)}, pods=(ill,)), "aaaa",
        rollback=Rollback(), now=NOW, patience_from=NOW,
    )  # fmt: skip
    assert found is not None
    assert f"{found.reason}: {found.message}".startswith(shown)
    assert found.message.endswith(f"(pod {POD})")


def test_the_column_begins_with_the_words_of_a_source_a_quota_and_a_gate() -> None:
    fault = SourceError("Prometheus at http://prometheus.monitoring:9090: connection refused")
    down = told(MOVING, judgement=Judgement(gates=(), source_error=fault, asked=True))
    assert down.reason == f"QueryFailed: {fault.message}"[:79].rsplit(" ", 1)[0] + "…"
    full = Workload("aaaa", 1, 0, 0, settled=True, failure='pods "eu-aaaa-x" is forbidden: exceeded quota: team')
    found = trouble(Observed(workloads={"aaaa": full}), "aaaa")
    assert found is not None
    assert found.text == "exceeded quota: team"
    late = told(MOVING, now=NOW + timedelta(seconds=661))
    assert late.reason.startswith("AnalysisDeadlineExceeded: error-rate: 0.1%; ")


def test_at_rest_there_is_no_next_action() -> None:
    assert told(SETTLED).next is None


def test_what_no_pass_recorded_is_not_guessed() -> None:
    assert told(MOVING).next == NextAction("SetWeight 50%")


def test_an_autoscaler_sees_every_pod_that_shares_the_load() -> None:
    half = replace(MOVING, rollout=replace(ROLLOUT, weight=50))
    observed = seen(stable=2, canary=1)
    assert told(MOVING, observed).selector == told(half, observed).selector == "pinn.dev/service=eu"
    assert (told(half, observed).replicas, told(half, observed).ready_replicas) == (3, 1)
