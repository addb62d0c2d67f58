"""What a pass asks of pods, and what the reader is told to read for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pinn_operator.core.api import parse_resource
from pinn_operator.core.decision import ResetCaches
from pinn_operator.core.observed import ControlToken, DataKind, Observed, Pod
from pinn_operator.core.samples import POD_FAULTS, PodQuestion, PodReadFault, PodReadFaults, pod_reads
from pinn_operator.core.situation import Situation, situation_of
from pinn_operator.core.wanted.spec import MetricNames, SourceKind, Spec
from pinn_operator.pods.http import PodClient
from pinn_operator.pods.reader import BadAnswers, Cadence, PodReader, Target
from pinn_operator.pods.source import PodCounters, reading_of

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
LATENCY = "pinn_inference_latency_seconds_bucket"
REQUESTS = "http_requests_total"


def pod(name: str, revision: str, address: str = "10.0.0.1:8000") -> Pod:
    return Pod(name=name, revision=revision, created=NOW, phase="Running", ready=True, address=address)


OBSERVED = Observed(
    pods=(
        pod("eu-s-2", "s", "10.0.0.3:8000"),
        pod("eu-s-1", "s", "10.0.0.2:8000"),
        pod("eu-c-1", "c"),
        pod("eu-c-2", "c", ""),
        pod("eu-old-1", "old"),
    )
)


def situation(observed: Observed = OBSERVED, **analysis: Any) -> Situation:
    manifest: dict[str, Any] = {
        "metadata": {"name": "eu", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "7"},
        "spec": {"image": "x:1", "analysis": analysis},
        "status": {
            "phase": "Progressing",
            "stable": {"revision": "s", "since": "2026-11-21T07:00:00Z"},
            "canary": {"revision": "c", "since": "2026-11-21T07:00:00Z"},
        },
    }
    return situation_of(parse_resource(manifest), observed)


def question(family: str, *pods: str) -> PodQuestion:
    return PodQuestion(f"pods/{family}", (family,), pods or ("eu-c-1", "eu-c-2", "eu-s-1", "eu-s-2"))


def test_the_asked_pods_that_run_are_read_and_the_canarys_are_known() -> None:
    reading = reading_of(
        [question(LATENCY), question(REQUESTS), question("memory")], OBSERVED, canary="c", names=MetricNames()
    )
    assert reading.targets == (
        Target("eu-c-1", "10.0.0.1:8000", canary=True),
        Target("eu-s-1", "10.0.0.2:8000", canary=False),
        Target("eu-s-2", "10.0.0.3:8000", canary=False),
    )
    assert reading.quick == (LATENCY, REQUESTS)
    assert reading.slow == ("memory",)


def test_the_same_questions_give_the_same_reading() -> None:
    """Or each pass would disturb the reader."""
    one, other = (reading_of([question(REQUESTS)], OBSERVED, canary="c", names=MetricNames()) for _ in range(2))
    assert one == other


def test_no_more_families_are_asked_for_than_a_server_takes() -> None:
    many = [question(f"own_{number}") for number in range(100)]
    reading = reading_of([question(REQUESTS), *many], OBSERVED, canary="c", names=MetricNames())
    assert len(reading.quick) + len(reading.slow) == 32


@pytest.mark.parametrize(
    ("labels", "bad"),
    [
        ({"status": "500", "handler": "/v1/price"}, True),
        ({"status": "429", "handler": "/v1/price"}, True),
        ({"status": "499"}, True),
        ({"status": "200"}, False),
        ({"status": "302"}, False),
        ({}, False),
        ({"status": "503", "handler": "/health/deployment/readiness"}, False),
        ({"status": "500", "handler": "/metrics"}, False),
        ({"status": "500", "__name__": "other_total"}, False),
    ],
)
def test_bad_answers_are_told_by_labels(labels: dict[str, str], bad: bool) -> None:
    assert BadAnswers(REQUESTS, "status", "handler")({"__name__": REQUESTS, **labels}) is bad


async def test_a_pass_that_asks_nothing_ends_the_reading() -> None:
    client = PodClient(timeout=0.2)
    counters = PodCounters(
        reader := PodReader(client, wake=lambda *_: None, cadence=Cadence(rest=0.05, grace=0.2)), client, data={}
    )
    try:
        observed = Observed(pods=(pod("eu-c-1", "c", "127.0.0.1:1"),))
        asked = [question(REQUESTS, "eu-c-1")]
        assert await counters.ask(situation(observed), asked) == {POD_FAULTS: PodReadFaults()}
        assert len(reader) == 1
        async with asyncio.timeout(3):
            faults: tuple[PodReadFault, ...] = ()
            while not faults:
                await asyncio.sleep(0.01)
                found = pod_reads(await counters.ask(situation(observed), asked))
                faults = found.faults if found is not None else ()
        assert faults == (PodReadFault("eu-c-1", "nothing listens at 127.0.0.1:1"),)
        assert await counters.ask(situation(observed), []) == {}
        await counters.ask(situation(observed), asked)
        await asyncio.sleep(0.4)
        assert len(reader) == 1, "it was asked again"
        assert await counters.ask(situation(observed), []) == {}
        await asyncio.sleep(0.5)
        assert len(reader) == 0
        await counters.ask(situation(observed), asked)
        counters.gone("ns", "eu")
        assert len(reader) == 0
    finally:
        await counters.close()


async def test_caches_are_reset_and_who_could_not_is_named() -> None:
    asked: list[str] = []

    async def reset(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        return web.Response(status=200 if len(asked) == 1 else 403)

    application = web.Application()
    application.router.add_post("/cache/reset", reset)
    server = TestServer(application)
    await server.start_server()
    address = f"127.0.0.1:{server.port}"
    client = PodClient()
    counters = PodCounters(PodReader(client, wake=lambda *_: None), client, data={})
    try:
        first = replace(pod("a", "c", address), token=ControlToken("0b1c"))
        observed = Observed(pods=(first, pod("b", "c", "127.0.0.1:1"), pod("c", "c", "")))
        faults = await counters.reset(ResetCaches("c", "cache-hits", ("a", "b", "c", "d")), situation(observed))
        assert faults == (
            PodReadFault("b", "nothing listens at 127.0.0.1:1"),
            PodReadFault("c", "it does not run"),
            PodReadFault("d", "it does not run"),
        )
        (fault,) = await counters.reset(ResetCaches("c", "cache-hits", ("a",)), situation(observed))
        assert fault.message == "POST /cache/reset: HTTP 403"
        assert asked == ["Bearer 0b1c"] * 2
    finally:
        await counters.close()
        await server.close()


# --- without a Prometheus -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("analysis", "has_prometheus", "sources"),
    [
        ({}, True, (SourceKind.PODS, SourceKind.PROMETHEUS)),
        ({}, False, (SourceKind.PODS,)),
        ({"prometheus": {"address": "http://p:9090"}}, False, (SourceKind.PODS, SourceKind.PROMETHEUS)),
        ({"sources": ["Prometheus"]}, False, (SourceKind.PROMETHEUS,)),
    ],
    ids=["there is one", "none at all", "one of its own", "wanted alone"],
)
def test_without_any_prometheus_the_pods_judge_alone(
    analysis: dict[str, Any], has_prometheus: bool, sources: tuple[SourceKind, ...]
) -> None:
    resource = situation(**analysis).resource
    found = situation_of(resource, OBSERVED, has_prometheus=has_prometheus).spec
    assert isinstance(found, Spec)
    assert found.analysis.sources == sources


KEPT = ControlToken(kind=DataKind.SECRET, name="tokens", key="control")
CONFIGURED = ControlToken(kind=DataKind.CONFIG_MAP, name="settings", key="control")


@pytest.mark.parametrize(
    ("token", "sent", "fault"),
    [
        (ControlToken("ours"), "Bearer ours", ""),
        (ControlToken(), "", ""),
        (KEPT, "Bearer of the Secret", ""),
        (CONFIGURED, "", ""),
        (
            replace(KEPT, name="hidden"),
            None,
            "PINN_CONTROL_TOKEN is in the Secret ns/hidden, which cannot be read: not in",
        ),
        (ControlToken("$(POD)-1"), None, "PINN_CONTROL_TOKEN is made of other variables"),
        (ControlToken("a\r\nHost: b"), None, "PINN_CONTROL_TOKEN can be no header"),
        (ControlToken("é"), None, "PINN_CONTROL_TOKEN can be no header"),
        (
            ControlToken("theirs"),
            "Bearer theirs",
            "POST /cache/reset: HTTP 401, it asks for another PINN_CONTROL_TOKEN",
        ),
    ],
)
async def test_a_pod_is_sent_the_token_that_the_team_gave_it(token: ControlToken, sent: str | None, fault: str) -> None:
    asked: list[str] = []

    async def reset(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        return web.Response(status=401 if asked == ["Bearer theirs"] else 200)

    async def secret(namespace: str, name: str, key: str) -> str:
        assert (namespace, key) == ("ns", "control")
        if name == "hidden":
            raise PermissionError("not in metricsSecrets")
        return "of the Secret"

    async def absent(_namespace: str, _name: str, _key: str) -> None: ...

    application = web.Application()
    application.router.add_post("/cache/reset", reset)
    client = PodClient()
    data = {DataKind.SECRET: secret, DataKind.CONFIG_MAP: absent}
    counters = PodCounters(PodReader(client, wake=lambda *_: None), client, data=data)
    async with TestServer(application) as server:
        observed = Observed(pods=(replace(pod("a", "c", f"127.0.0.1:{server.port}"), token=token),))
        faults = await counters.reset(ResetCaches("c", "memory", ("a",)), situation(observed))
    await counters.close()
    assert asked == ([] if sent is None else [sent])
    assert [it.message[: len(fault)] for it in faults] == ([fault] if fault else [])
    assert not token.value or token.value not in repr(observed), "it is in no log"
