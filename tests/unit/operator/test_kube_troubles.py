"""The words that events have for pods whose containers do not start, and how seldom they are asked for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pinn_operator.core.observed import Pod
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.errors import Forbidden
from pinn_operator.kube.troubles import AGAIN_SECONDS, ASKED_LIMIT, PodTroubles, newest_warning

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
STUCK = Pod("eu-bbbb-x-1", "bbbb", START, "Pending", ready=False, node="node-1", waiting_reason="ContainerCreating")


def event(reason: str, message: str, seconds: int, **more: Any) -> dict[str, Any]:
    time = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"reason": reason, "message": message, "lastTimestamp": time, **more}


class Events(Client):
    """Answers with events, or refuses."""

    def __init__(self, *found: dict[str, Any], refuses: bool = False) -> None:
        self.found, self.refuses, self.asked = list(found), refuses, [""][:0]

    async def list_matching(
        self, kind: Kind, namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> list[dict[str, Any]]:
        assert (kind.plural, label_selector) == ("events", "")
        self.asked.append(field_selector)
        if self.refuses:
            raise Forbidden(403, "Forbidden", "events is forbidden", request="LIST")
        return self.found


class Clock:
    seconds = 60.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def added(client: Events, *pods: Pod, clock: Clock | None = None, troubles: PodTroubles | None = None) -> list[str]:
    clock = clock or Clock()
    troubles = troubles or PodTroubles(client, clock=clock.monotonic, now=clock.now)
    return [pod.trouble for pod in asyncio.run(troubles.add("pricing", pods))]


def test_a_pod_that_is_stuck_has_the_words_of_its_newest_warning() -> None:
    client = Events(event("FailedMount", "old", 1), event("FailedAttachVolume", "Multi-Attach error for volume", 9))
    assert added(client, STUCK) == ["FailedAttachVolume: Multi-Attach error for volume"]
    assert client.asked == ["involvedObject.kind=Pod,involvedObject.name=eu-bbbb-x-1,type=Warning"]


@pytest.mark.parametrize(
    "changes",
    [
        {"node": ""}, {"started": True}, {"phase": "Failed"}, {"terminating": True},
        {"waiting_reason": "ImagePullBackOff"}, {"created": START + timedelta(seconds=58)},
    ],
    ids=str,
)  # fmt: skip
def test_a_pod_that_says_itself_what_it_lacks_is_not_asked_about(changes: dict[str, Any]) -> None:
    client = Events(event("FailedMount", "x", 1))
    fields = {name: getattr(STUCK, name) for name in STUCK.__slots__}
    assert added(client, Pod(**{**fields, **changes})) == [""]
    assert client.asked == []


def test_without_the_right_to_read_events_nothing_is_known_and_nothing_fails() -> None:
    assert added(Events(refuses=True), STUCK) == [""]


def test_few_pods_are_asked_about_and_not_often() -> None:
    clock, client = Clock(), Events(event("FailedMount", "x", 1))
    troubles = PodTroubles(client, clock=clock.monotonic, now=clock.now)
    pods = [Pod(f"eu-{number}", "bbbb", START, "Pending", ready=False, node="node-1") for number in range(9)]
    assert sum(bool(words) for words in added(client, *pods, troubles=troubles)) == ASKED_LIMIT
    added(client, *pods, troubles=troubles)
    assert len(client.asked) == ASKED_LIMIT
    clock.seconds += AGAIN_SECONDS
    added(client, *pods, troubles=troubles)
    assert len(client.asked) == 2 * ASKED_LIMIT


def test_the_newest_warning_is_found_whatever_wrote_it() -> None:
    newer = {"reason": "FailedCreatePodSandBox", "message": "no IP", "eventTime": "2026-11-21T09:00:00.123456Z"}
    assert newest_warning([event("FailedMount", "x", 5), newer]) == "FailedCreatePodSandBox: no IP"
    assert newest_warning([event("FailedScheduling", "0/3 nodes", 5)]) == ""
    assert newest_warning([]) == ""
