"""The story's cluster, router and clients in real time, with the operator's own loops, passes and reader of pods.

Nothing is simulated between a pod's counters and the written weight: the counters are served over HTTP on loopback.
There is no Prometheus, or one that never answers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from pinn_operator.core.api import Resource, status_to_manifest
from pinn_operator.core.decision import Action, Apply, Event
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.observed import Observed
from pinn_operator.core.samples import Answer, AnyAnswer, PodQuestion, PriceQuestion, Query, SourceError
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.values import Status, Verdict
from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.loops import Loops
from pinn_operator.pods.http import PodClient
from pinn_operator.pods.reader import PodReader
from pinn_operator.pods.source import PodCounters
from pinn_operator.prom.asker import PrometheusAsker
from pinn_operator.prom.protocol import MetricSource
from pinn_operator.reconciler import Reconciler
from pinn_operator.telemetry import Telemetry
from tests.story.prometheus import SimulatedPod
from tests.story.world import Behaviour, World, started

API_SECONDS = 0.02
"""What a call to the API server takes."""
SETTLED_SECONDS = 6.0


class LiveCluster:
    """What the reconciler asks of a cluster, by a world."""

    def __init__(self, world: World, addresses: Mapping[str, str]) -> None:
        self._world = world
        self._addresses = addresses

    async def read(self, namespace: str, name: str) -> Manifest | None:
        await asyncio.sleep(API_SECONDS)
        manifest: Manifest = json.loads(json.dumps(self._world.manifest()))
        return manifest

    async def observe(self, resource: Resource) -> Observed:
        await asyncio.sleep(API_SECONDS)
        observed = self._world.observe()
        return replace(
            observed, pods=tuple(replace(pod, address=self._addresses.get(pod.name, "")) for pod in observed.pods)
        )

    async def commit_status(self, resource: Resource, status: Status) -> None:
        await asyncio.sleep(API_SECONDS)
        self._world.status = status_to_manifest(status)
        self._world.version += 1

    async def act(self, resource: Resource, action: Action) -> None:
        await asyncio.sleep(API_SECONDS)
        if isinstance(action, Apply):
            self._world._write(dict(action.manifest))
        else:
            self._world.delete(action.kind, action.name)

    async def emit(self, resource: Resource, event: Event) -> None:
        self._world.events.append(event)

    async def emit_missing(self, resource: Resource, event: Event, time: datetime) -> None:
        """Nothing is ever missing here."""


class LivePrices:
    """Prices as the world's pods give them."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, situation: Situation, questions: Sequence[PriceQuestion]) -> Mapping[str, AnyAnswer]:
        return self._world.oracle.answers(iter(questions), self._world.seconds)

    def gone(self, namespace: str, name: str) -> None: ...


class SilentPrometheus:
    """Takes every query and answers none."""

    async def source(self, prometheus: Prometheus, namespace: str) -> MetricSource:
        return self

    async def ask(self, query: Query, *, namespace: str = "") -> Answer:
        await asyncio.sleep(SILENT_SECONDS)
        return SourceError(f"no answer within {SILENT_SECONDS:g} s")

    async def close(self) -> None: ...


SILENT_SECONDS = 20.0
"""How long a query may take: as long as `timeoutSeconds` allows."""


class Live:
    """Pods of a world as HTTP servers, and the operator beside them."""

    def __init__(self, world: World, *, silent_prometheus: bool = False) -> None:
        self.world = world
        self.addresses: dict[str, str] = {}
        self._runners: list[web.AppRunner] = []
        client = PodClient()
        self._reader = PodReader(client, wake=self._wake, now=lambda: world.now.timestamp())
        self._counters = PodCounters(self._reader, client, data={})
        self._prometheus = PrometheusAsker(SilentPrometheus(), wake=self._wake, has_default=silent_prometheus)
        reconciler = Reconciler(
            cluster=LiveCluster(world, self.addresses),
            sources={
                Query: self._prometheus,
                PodQuestion: self._counters,
                PriceQuestion: LivePrices(world),
            },
            has_prometheus=silent_prometheus,
            telemetry=Telemetry(),
            now=lambda: world.now,
        )
        self._loops = Loops(reconciler.once)
        self._began, self._base = time.monotonic(), world.seconds
        self._version = world.version

    def _wake(self, namespace: str, name: str) -> None:
        self._loops.wake_known(namespace, name)

    async def begin(self) -> None:
        self.world.operator_up = False  # the one of the story: this one takes over
        await self._serve()
        self._began, self._base = time.monotonic(), self.world.seconds
        self._loops.wake("pricing", self.world.name, urgent=True)

    async def step(self) -> None:
        """A moment of real time passes."""
        await asyncio.sleep(0.02)
        world = self.world
        tick = self._base + time.monotonic() - self._began - world.seconds
        world.seconds += tick
        world._live(tick)
        await self._serve()
        if world.version != self._version:
            self._version = world.version
            self._wake("pricing", world.name)

    async def end(self) -> None:
        await self._loops.stop()
        await self._counters.close()
        await self._prometheus.close()
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self) -> None:
        for pod in self.world.pods:
            if pod.name not in self.addresses:
                application = web.Application()
                application.router.add_get("/metrics", self._page_of(pod))
                runner = web.AppRunner(application, access_log=None)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self._runners.append(runner)
                self.addresses[pod.name] = "{}:{}".format(*runner.addresses[0])

    def _page_of(self, pod: SimulatedPod) -> Any:
        async def page(request: web.Request) -> web.Response:
            names = frozenset(request.query.getall("name[]"))
            lines = [
                name + "{" + ",".join(f'{label}="{text}"' for label, text in labels) + f"}} {float(value)!r}\n"
                for (name, labels), value in pod.exported(self.world.seconds).items()
                if name in names
            ]
            return web.Response(text="".join(lines))

        return page


@asynccontextmanager
async def live(
    behaviour: Behaviour, *, rate: float, seed: int, silent_prometheus: bool = False
) -> AsyncIterator[Live]:  # fmt: skip
    """A canary at weight 10, from a world in fake time up to there."""
    sources = ["Pods", "Prometheus"] if silent_prometheus else ["Pods"]
    spec = {"analysis": {"sources": sources, "intervalSeconds": 5}}
    world = started("pinn:2", images={"pinn:2": behaviour}, rate=rate, seed=seed, spec=spec)
    world.run_until(lambda it: it.weight == 10, tick=0.25)
    running = Live(world, silent_prometheus=silent_prometheus)
    await running.begin()
    try:
        yield running
    finally:
        await running.end()


@pytest.mark.parametrize(
    ("rate", "seed", "silent_prometheus"),
    [(30.0, 1, False), (300.0, 2, False), (300.0, 4, True)],
    ids=["30 requests/s", "300 requests/s", "beside a Prometheus that never answers"],
)
async def test_a_canary_that_turns_bad_loses_its_traffic_in_seconds_without_any_answer_of_prometheus(
    rate: float, seed: int, silent_prometheus: bool
) -> None:
    """The goal is 1.5 s in the median and 3 s at worst, measured on a cluster; this machine may be busy."""
    bad_from = [float("inf")]
    behaviour = Behaviour(errors=lambda now: float(now >= bad_from[0]))
    async with live(behaviour, rate=rate, seed=seed, silent_prometheus=silent_prometheus) as running:
        world = running.world
        bad_from[0] = world.seconds + SETTLED_SECONDS
        first_failure = None
        while world.weight > 0:
            await running.step()
            if first_failure is None and any(pod.requests[1] for pod in world.of("pinn:2")):
                first_failure = world.seconds
            assert world.seconds < bad_from[0] + 15, world.describe()
        assert first_failure is not None, world.describe()
        assert world.seconds - first_failure < 6
        assert world.state.last_rollback is not None
        assert world.state.last_rollback.reason == "ErrorRateAboveStable"
        condition = world.state.condition("PodMetricsAvailable")
        assert condition is not None
        assert condition.status == "True"


async def test_a_good_canary_passes_its_gates_by_its_pods_counters_alone() -> None:
    async with live(Behaviour(), rate=300.0, seed=3) as running:
        world = running.world
        began = world.seconds
        while not any(
            gate.name == "error-rate" and gate.verdict is Verdict.PASS
            for gate in (world.state.rollout.gates if world.state.rollout else ())
        ):
            await running.step()
            assert world.seconds < began + 40, world.describe()
        assert world.weight == 10
        condition = world.state.condition("MetricsAvailable")
        assert condition is not None
        assert condition.status == "True"
