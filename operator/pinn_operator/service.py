"""The whole operator in one place: what is made, in which order it starts, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time

from pinn_operator import __version__
from pinn_operator.handlers import Scope, WatchThread
from pinn_operator.kube.client import Client
from pinn_operator.kube.cluster import ApiCluster
from pinn_operator.kube.connection import Credentials
from pinn_operator.kube.errors import ApiError, ClusterError, NotFound
from pinn_operator.kube.events import EventRecorder
from pinn_operator.kube.reports import PodReporter
from pinn_operator.loops import Loops
from pinn_operator.prom.sources import Sources
from pinn_operator.reconciler import Pace, Reconciler
from pinn_operator.settings import Settings
from pinn_operator.telemetry import HealthServer, Telemetry

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
        self._client = Client(
            self._credentials.load,
            observer=self.telemetry.api_call,
            user_agent=f"pinn-operator/{__version__}",
        )
        self._reporter = PodReporter()
        self._cluster = ApiCluster(
            self._client,
            events=EventRecorder(self._client, instance=socket.gethostname()),
            reporter=self._reporter,
        )
        self._sources = Sources(
            default_address=settings.prometheus_address,
            read_secret=self._cluster.read_secret,
            kind=settings.metrics_client,
        )
        self._reconciler = Reconciler(
            cluster=self._cluster,
            sources=self._sources,
            telemetry=self.telemetry,
            pace=Pace(resync=float(settings.resync_seconds)),
        )
        self._loops = Loops(self._reconciler.once)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Then everything ends within a few seconds; nothing needs to be saved."""
        health = HealthServer(self.telemetry, host=self._settings.health_host, port=self._settings.health_port)
        await health.start()
        _LOG.info("started", extra={"version": __version__})
        tasks = [
            asyncio.create_task(self._watch_forever(), name="watch"),
            asyncio.create_task(self._resync_forever(), name="resync"),
            asyncio.create_task(self._beat_forever(), name="heartbeat"),
        ]
        try:
            await stop.wait()
        finally:
            _LOG.info("stopping")
            self.telemetry.ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._loops.stop()
            await health.stop()
            await self._sources.close()
            await self._reporter.close()
            await self._client.close()
            _LOG.info("stopped")

    # --- watching -----------------------------------------------------------------------------------------------------

    async def _watch_forever(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                scope = await self._find_scope()
                await self._watch(scope)
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

    async def _find_scope(self) -> Scope:
        """Raises ClusterError while the API server is away or does not know PINNServices."""
        namespaces = self._settings.namespaces
        try:
            await self._cluster.read_all(namespaces[0] if namespaces else None)
        except NotFound as error:
            raise ApiError(
                404,
                "NotServed",
                "the API server does not know PINNService: is the CRD installed?",
                request=error.request,
            ) from error
        return Scope(namespaces=namespaces, routes=await self._cluster.serves_routes())

    async def _watch(self, scope: Scope) -> None:
        """Returns when something else is to be watched; raises what kopf failed with."""
        loop = asyncio.get_running_loop()

        def heard(kind: str, namespace: str, name: str, urgent: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(self._heard, kind, namespace, name, urgent)

        thread = WatchThread(scope, credentials=self._credentials, heard=heard)
        thread.start()
        ended = asyncio.wrap_future(thread.ended)
        try:
            while not ended.done():
                self.telemetry.ready = self.telemetry.ready or thread.ready
                await asyncio.wait([ended], timeout=1.0 if not thread.ready else HEARTBEAT_SECONDS)
                if not scope.routes and self._cluster.routes_seen:
                    _LOG.info("the API server knows HTTPRoutes now: they are watched too")
                    return
            ended.result()
        finally:
            await thread.stop()

    def _heard(self, kind: str, namespace: str, name: str, urgent: bool) -> None:
        self.telemetry.watch_event(kind)
        if kind == "pinnservices":
            self._loops.wake(namespace, name, urgent=urgent)
        elif name:
            self._loops.wake_known(namespace, name)

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
