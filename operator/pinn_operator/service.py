"""The whole operator in one place: what is made, in which order it starts, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time

from pinn_operator import __version__
from pinn_operator.core.api import PLURAL
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import SERVICE_LABEL
from pinn_operator.core.observed import DataKind
from pinn_operator.core.samples import PodQuestion, PriceQuestion, Query, WebhookQuestion
from pinn_operator.handlers import WatchThread
from pinn_operator.kube.client import Client, Kind
from pinn_operator.kube.cluster import HEARD, ApiCluster
from pinn_operator.kube.connection import Credentials
from pinn_operator.kube.errors import ClusterError
from pinn_operator.kube.events import EventRecorder
from pinn_operator.kube.reports import PodReporter
from pinn_operator.kube.watching import Watch
from pinn_operator.loops import Loops, end_tasks
from pinn_operator.pods.http import PodClient
from pinn_operator.pods.prices import PriceReader
from pinn_operator.pods.reader import PodReader
from pinn_operator.pods.source import PodCounters
from pinn_operator.prom.asker import PrometheusAsker
from pinn_operator.prom.sources import Sources
from pinn_operator.reconciler import Pace, Reconciler
from pinn_operator.settings import Settings
from pinn_operator.telemetry import HealthServer, Telemetry
from pinn_operator.webhooks.asker import WebhookAsker
from pinn_operator.webhooks.client import WebhookClient

HEARTBEAT_SECONDS = 5.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_QUIET_AFTER = 300.0

_LOG = logging.getLogger(__name__)


class Operator:
    """Everything that runs. Raises CredentialsError from `__init__`, OSError from `run` when the port is taken."""

    def __init__(self, settings: Settings, *, telemetry: Telemetry | None = None) -> None:
        self._settings = settings
        self._credentials = Credentials.find(kubeconfig=settings.kubeconfig, context=settings.context)
        self.telemetry = telemetry or Telemetry()
        self._client = self._make_client()
        # Watches hold their connections for as long as they live, and must not take them from the passes.
        self._watching_client = self._make_client(connections=0)
        self._reporter = PodReporter()
        self._cluster = ApiCluster(
            self._client,
            events=EventRecorder(self._client, instance=socket.gethostname()),
            reporter=self._reporter,
        )
        self._sources = Sources(
            default_address=settings.prometheus_address,
            read_secret=self._cluster.read_secret,
            read_config_map=self._cluster.read_config_map,
            default_login=settings.prometheus_login.login(),
            kind=settings.metrics_client,
        )
        self._prometheus = PrometheusAsker(
            self._sources,
            wake=self._wake_now,
            observer=self.telemetry.query,
            has_default=bool(settings.prometheus_address),
        )
        self._webhooks = WebhookAsker(
            WebhookClient(
                self._cluster.read_secret,
                allow_local=settings.allow_local_webhooks,
                user_agent=f"pinn-operator/{__version__}",
            ),
            wake=self._wake_now,
        )
        pods = PodClient()
        self._counters = PodReader(pods, wake=self._wake_now, observer=self.telemetry.pod_read)
        self._pods = PodCounters(
            self._counters,
            pods,
            data={DataKind.SECRET: self._cluster.read_secret, DataKind.CONFIG_MAP: self._cluster.read_config_map},
        )
        self._prices = PriceReader(wake=self._prices_answered)
        self._reconciler = Reconciler(
            cluster=self._cluster,
            sources={
                Query: self._prometheus,
                PodQuestion: self._pods,
                PriceQuestion: self._prices,
                WebhookQuestion: self._webhooks,
            },
            resetter=self._pods,
            has_prometheus=bool(settings.prometheus_address),
            telemetry=self.telemetry,
            pace=Pace(resync=float(settings.resync_seconds)),
        )
        self._loops = Loops(self._reconciler.once)

    def _make_client(self, *, connections: int | None = None) -> Client:
        return Client(
            self._credentials.load,
            connections=connections,
            observer=self.telemetry.api_call,
            user_agent=f"pinn-operator/{__version__}",
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Then everything ends within a few seconds; nothing needs to be saved.

        Raises whatever ended a task that is meant to run for ever: a fault of ours, of which only a new start can help.
        """
        health = HealthServer(self.telemetry, host=self._settings.health_host, port=self._settings.health_port)
        await health.start()
        _LOG.info("started", extra={"version": __version__})
        tasks = [
            asyncio.create_task(self._watch_forever(), name="watch"),
            asyncio.create_task(self._resync_forever(), name="resync"),
            asyncio.create_task(self._beat_forever(), name="heartbeat"),
            *(asyncio.create_task(watch.run(), name="watch children") for watch in self._watches()),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            _LOG.info("stopping")
            self.telemetry.ready = False
            await end_tasks((stopping, *tasks))
            await self._loops.stop()
            await health.stop()
            await self._pods.close()
            await self._prices.close()
            await self._webhooks.close()
            await self._prometheus.close()
            await self._sources.close()
            await self._reporter.close()
            await self._client.close()
            await self._watching_client.close()
            _LOG.info("stopped")

    # --- watching -----------------------------------------------------------------------------------------------------

    async def _watch_forever(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                await self._until_served()
                await self._watch()
            except ClusterError as error:
                _LOG.warning("cannot begin to watch", extra={"error": str(error)})
            except Exception as error:  # noqa: BLE001
                # kopf raises whatever it met; the passes go on without it until it is back.
                _LOG.warning(
                    "watching has failed, it is begun anew", extra={"error": f"{type(error).__name__}: {error}"}
                )
            self.telemetry.ready = False
            self.telemetry.watch_restarted()
            if time.monotonic() - began > _QUIET_AFTER:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _until_served(self) -> None:
        """Raises ClusterError while the API server is away, or has not got the CRD."""
        namespaces = self._settings.namespaces
        if not await self._cluster.is_served(namespaces[0] if namespaces else None):
            raise ClusterError("the API server does not know PINNService: is the CRD installed?")

    async def _watch(self) -> None:
        """Raises what kopf failed with."""
        loop = asyncio.get_running_loop()

        def heard(namespace: str, name: str, urgent: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(self._heard, namespace, name, urgent)

        thread = WatchThread(self._settings.namespaces, credentials=self._credentials, heard=heard)
        thread.start()
        ended = asyncio.wrap_future(thread.ended)
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=HEARTBEAT_SECONDS if self.telemetry.ready else 0.2)
                self.telemetry.ready = thread.ready
            ended.result()
        finally:
            await thread.stop()

    def _heard(self, namespace: str, name: str, urgent: bool) -> None:
        self.telemetry.watch_event(PLURAL)
        self._loops.wake(namespace, name, urgent=urgent)

    def _wake_now(self, namespace: str, name: str) -> None:
        self._loops.wake_known(namespace, name)

    def _prices_answered(self, namespace: str, name: str) -> None:
        # What the pods answered is in their counters, too.
        self._counters.read_now(namespace, name)
        self._wake_now(namespace, name)

    def _watches(self) -> list[Watch]:
        return [
            Watch(
                self._watching_client,
                kind,
                namespace=namespace,
                label=SERVICE_LABEL,
                heard=self._heard_of_child,
                lost=self._loops.wake_all,
            )
            for kind in HEARD
            for namespace in self._settings.namespaces or (None,)
        ]

    def _heard_of_child(self, kind: Kind, metadata: Manifest) -> None:
        self.telemetry.watch_event(kind.plural)
        self._loops.wake_known(metadata.get("namespace", ""), (metadata.get("labels") or {}).get(SERVICE_LABEL, ""))

    # --- beside the watches -------------------------------------------------------------------------------------------

    async def _resync_forever(self) -> None:
        """Finds what a watch may have missed, new objects above all. Each known one comes back by itself."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                for namespace in self._settings.namespaces or (None,):
                    for found in await self._cluster.read_all(namespace):
                        self._loops.ensure(*found)
            except ClusterError as error:
                _LOG.warning("resync failed", extra={"error": str(error)})

    async def _beat_forever(self) -> None:
        while True:
            self.telemetry.sign_of_life()
            await asyncio.sleep(HEARTBEAT_SECONDS)
