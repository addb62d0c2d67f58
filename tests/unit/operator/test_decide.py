"""A pass on states that no pass ever wrote: edited by hand, cut short, of an older or a newer operator."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinn_operator.core.api import Resource, parse_resource, status_from_manifest, status_to_manifest
from pinn_operator.core.decide import decide
from pinn_operator.core.decision import Apply
from pinn_operator.core.gates.questions import due
from pinn_operator.core.observed import Observed, Pod, Workload
from pinn_operator.core.samples import SourceError
from pinn_operator.core.situation import situation_of
from pinn_operator.core.status.values import WATCHED, Phase, RevisionStatus, RolloutStatus, Status
from pinn_operator.core.wanted.revision import revision_of
from pinn_operator.core.wanted.spec import Spec
from tests.support.crd import validator
from tests.support.specs import statuses

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
STABLE, CANARY = RevisionStatus("aaaa", "pinn:1", NOW), RevisionStatus("bbbb", "pinn:2", NOW)


def resource(status: Status, **spec: Any) -> Resource:
    manifest = {
        "metadata": {"name": "eu", "namespace": "pricing", "uid": "u", "generation": 1},
        "spec": {
            "image": "pinn:2",
            "traffic": {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]},
            **spec,
        },
    }
    return replace(parse_resource(manifest), status=status)


def running(*revisions: str) -> Observed:
    return Observed(
        workloads={it: Workload(it, 3, 3, 3, settled=True) for it in revisions},
        pods=tuple(Pod(f"eu-{it}-x-1", it, NOW, "Running", ready=True, was_ready=True) for it in revisions),
    )


_PIECES = st.builds(
    Status,
    phase=st.sampled_from(Phase),
    stable=st.sampled_from([None, STABLE]),
    canary=st.sampled_from([None, CANARY]),
    previous=st.sampled_from([None, CANARY]),
    rollout=st.one_of(
        st.none(),
        st.builds(
            RolloutStatus, start_time=st.just(NOW), step_index=st.integers(0, 30), weight=st.integers(0, 100),
            weight_time=st.just(NOW), programmed_time=st.sampled_from([None, NOW]),
        ),
    ),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    status=st.one_of(statuses(), statuses(bounded=False), _PIECES),
    revisions=st.lists(st.sampled_from(["aaaa", "bbbb", "cccc"]), unique=True),
    paused=st.booleans(), replicas=st.integers(0, 4), down=st.booleans(),
)  # fmt: skip
def test_whatever_stands_in_the_status_a_pass_decides_something_that_can_be_written(
    status: Status, revisions: list[str], paused: bool, replicas: int, down: bool
) -> None:
    it, observed = resource(status, paused=paused, replicas=replicas), running(*revisions)
    samples = {query.key: SourceError("down") if down else () for query in due(situation_of(it, observed), NOW)}
    decision = decide(it, observed, samples, NOW)
    written = status_to_manifest(decision.status)
    assert not [error.message for error in validator("status").iter_errors(written)]
    assert decision.status.observed_generation == 1
    read_back = decide(replace(it, status=status_from_manifest(written)), observed, samples, NOW)
    assert [event.reason for event in read_back.events] == []


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    status=_PIECES, revisions=st.lists(st.sampled_from(["aaaa", "bbbb", "cccc"]), unique=True), paused=st.booleans(),
    replicas=st.integers(0, 4), mode=st.sampled_from(["Auto", "Hold"]),
)  # fmt: skip
def test_whatever_does_not_move_says_what_it_waits_for(
    status: Status, revisions: list[str], paused: bool, replicas: int, mode: str
) -> None:
    it = resource(status, paused=paused, replicas=replicas, rollback={"mode": mode})
    for _ in range(3):
        decision = decide(it, running(*revisions), {}, NOW)
        moved, it = decision.status.rollout != it.status.rollout, replace(it, status=decision.status)
    if it.status.next is not None and not moved:
        assert it.status.next.waiting_for, it.status


@given(status=_PIECES)
def test_a_status_that_lost_a_part_still_ends_at_rest(status: Status) -> None:
    """Applied, seen in force and silent: after a handful of passes nothing is in flight that has no parts."""
    it, observed = resource(status), running("aaaa", "bbbb")
    assert isinstance(it.spec, Spec)
    for _ in range(5):
        decision = decide(it, observed, {}, NOW)
        it = replace(it, status=decision.status)
    found = it.status
    assert found.stable is not None
    moving = found.phase in (*WATCHED, Phase.PROMOTING, Phase.ROLLING_BACK)
    assert (found.rollout is not None) is moving
    if moving:
        assert (found.previous if found.phase is Phase.PROMOTING else found.canary) is not None
    target = revision_of(it.spec.serving)
    assert found.target == target
    for action in decision.actions:
        if isinstance(action, Apply) and action.manifest["kind"] == "Deployment":
            assert action.manifest["spec"]["replicas"] >= 0
