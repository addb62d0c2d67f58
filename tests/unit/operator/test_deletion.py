"""A resource that is being deleted, and that somebody else's finalizer keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pinn_operator.core.api import Resource, parse_resource
from pinn_operator.core.decision import Apply, Delete
from pinn_operator.core.observed import Observed
from pinn_operator.core.rollout.deletion import is_kept, of_traffic, what_keeps
from pinn_operator.core.status.values import RolloutStatus, Status

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
IN_FLIGHT = Status(rollout=RolloutStatus(start_time=NOW, step_index=0, weight=10, weight_time=NOW))


def resource(status: Status = IN_FLIGHT, **metadata: Any) -> Resource:
    written = {"name": "eu", "namespace": "pricing", "deletionTimestamp": "2026-11-21T08:00:00Z", **metadata}
    return replace(parse_resource({"metadata": written, "spec": {"image": "x:1"}}), status=status)


def child(kind: str, name: str = "eu", **metadata: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}}


def seen(*children: dict[str, Any]) -> Observed:
    return Observed(objects={(item["kind"], item["metadata"]["name"]): item for item in children})


LEAVING = child("Service", deletionTimestamp="2026-11-21T08:00:01Z")


@pytest.mark.parametrize(
    ("status", "children", "kept"),
    [
        (IN_FLIGHT, [child("Service"), child("Deployment", "eu-a")], True),
        (IN_FLIGHT, [child("Deployment", "eu-a"), LEAVING], False),
        (IN_FLIGHT, [], False),
        (Status(), [child("Service")], False),
    ],
    ids=["its children live on", "they are being deleted too", "they are gone", "nothing is in flight"],
)
def test_what_is_watched_to_its_end(status: Status, children: list[dict[str, Any]], kept: bool) -> None:
    assert is_kept(resource(status), seen(*children)) is kept


@pytest.mark.parametrize("collector", ["orphan", "foregroundDeletion"])
def test_nothing_is_written_while_the_garbage_collector_is_at_work(collector: str) -> None:
    """With `--cascade=orphan` it takes the owner from each child: one that got it back would be deleted."""
    assert not is_kept(resource(finalizers=["a/b", collector]), seen(child("Service")))


def test_nothing_is_made_again_and_nothing_but_traffic_is_written() -> None:
    here = Apply(child("HTTPRoute"))
    actions = [Apply(child("Deployment", "eu-a")), here, Apply(child("Service")), Delete("v1", "Service", "eu-canary")]
    assert of_traffic(actions, seen(child("HTTPRoute"), child("Deployment", "eu-a"))) == (here,)


def test_who_holds_the_deletion_up_is_named() -> None:
    assert "velero.io/backup, a/b" in what_keeps(resource(finalizers=["velero.io/backup", "a/b"]))
