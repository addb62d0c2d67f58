"""Running the application as a process: signals, draining, exit codes.

On SIGTERM readiness turns 503 at once, while the socket stays open for the drain delay: endpoints are removed from
proxies a moment after the kubelet sends the signal, and what they still send must be answered. Then the socket closes,
requests in flight are finished, and the process exits with 0. A second SIGTERM skips the delay, and so does SIGINT.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys

import uvloop
from aiohttp import web
from prometheus_client import disable_created_metrics

from pinn_inference.server.app import CONFIG, ENGINE, IN_FLIGHT, PricingRunner
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.logs import configure_logging

log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED = 0, 1
_ARENA_MAX = -8  # M_ARENA_MAX, malloc.h
_SWITCH_SECONDS = 0.0005
_DESCRIPTORS = 65_536
_BACKLOG = 1024
_LAST_WRITE_SECONDS = 5.0
"""For bytes of finished answers that clients have not taken yet."""


def run_app(app: web.Application) -> int:
    """Serve `app` (from `create_app`) until a signal; returns the exit code, 1 if the address cannot be used.

    Sets up logging. If a signal comes while the model is still being read, from a volume that hangs perhaps, the
    process leaves at once after draining instead of returning.
    """
    config, engine = app[CONFIG], app[ENGINE]
    configure_logging(level=config.log_level, revision=config.revision, service=config.service)
    _allow_connections()
    _keep_one_arena()
    # A thread beside the event loop must not keep it waiting for the default 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    code: int = uvloop.run(_serve(app, config, engine))
    if engine.loading:
        sys.stdout.flush()
        os._exit(code)
    return code


def _allow_connections() -> None:
    """Each connection is a descriptor; the soft limit of many systems, 1024, is one that any process may raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _keep_one_arena() -> None:
    """One heap for all threads: glibc would keep one for each, and what is free in one is no use to another."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's alone
        libc.mallopt(_ARENA_MAX, 1)


async def _serve(app: web.Application, config: ServerConfig, engine: PricingEngine) -> int:
    stop = _Signals(engine, config.drain_seconds)
    runner = PricingRunner(
        app,
        access_log=None,
        keepalive_timeout=config.keep_alive_seconds,
        shutdown_timeout=min(config.inflight_timeout_seconds, _LAST_WRITE_SECONDS),
        handler_cancellation=True,
    )
    await runner.setup()
    try:
        await _site(runner, config).start()
    except OSError as error:
        log.error("cannot listen on %s port %s: %s", config.host, config.port, error)  # noqa: TRY400 - no traceback needed
        await runner.cleanup()
        return EXIT_FAILED
    log.info("listening", extra={"address": runner.addresses[0][0], "port": runner.addresses[0][1]})
    await stop.wait()
    log.info("finishing requests in flight", extra={"seconds_at_most": config.inflight_timeout_seconds})
    for site in runner.sites:
        await site.stop()
    # NB: aiohttp's own shutdown drops whatever arrives from its first moment on, even the rest of a request's body.
    left = await app[IN_FLIGHT].finished(within=config.inflight_timeout_seconds)
    if left:
        log.warning("requests cut off", extra={"requests": left})
    await runner.cleanup()
    log.info("stopped")
    return EXIT_OK


def _site(runner: web.AppRunner, config: ServerConfig) -> web.BaseSite:
    """Where to listen; `::` is every address of either kind. Raises OSError."""
    if config.host == "::" and socket.has_dualstack_ipv6():
        return web.SockSite(
            runner,
            socket.create_server(
                (config.host, config.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            ),
            backlog=_BACKLOG,
        )
    return web.TCPSite(runner, config.host, config.port, backlog=_BACKLOG)


class _Signals:
    """From the first signal to the moment when the socket may close."""

    def __init__(self, engine: PricingEngine, drain_seconds: float) -> None:
        self._engine = engine
        self._drain_seconds = drain_seconds
        self._asked = asyncio.Event()
        self._hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    async def wait(self) -> None:
        await self._asked.wait()
        try:
            await asyncio.wait_for(self._hurry.wait(), self._drain_seconds)
        except TimeoutError:
            return

    def _terminate(self) -> None:
        if self._asked.is_set():
            log.info("second SIGTERM: the drain delay is skipped")
            self._hurry.set()
            return
        log.info("SIGTERM: draining", extra={"seconds": self._drain_seconds})
        self._engine.begin_draining()
        self._asked.set()

    def _interrupt(self) -> None:
        log.info("SIGINT: stopping")
        self._engine.begin_draining()
        self._asked.set()
        self._hurry.set()

    def _hang_up(self) -> None:
        log.warning("SIGHUP is ignored: a process keeps its model, another model comes in another pod")
