"""The kopf shell: hears of PINNServices and wakes their loops. No policy. Children are heard of in `kube.watching`.

kopf runs in a thread with an event loop of its own. It cancels every task of the loop it lives in when it ends, and it
ends on some answers of an API server (an error inside a watch stream, credentials that are refused); our passes go on
meanwhile, and watching is begun anew.

Nothing is written through kopf: no finalizers, no annotations, no events.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from kopf._core.engines.peering import Identity

from pinn_operator.core.api import GROUP, PLURAL, VERSION
from pinn_operator.kube.connection import Credentials
from pinn_operator.kube.errors import CredentialsError

Heard = Callable[[str, str, bool], None]
"""Namespace and name of a PINNService, and whether it has a rollout in flight. Called in kopf's thread."""

_LOG = logging.getLogger(__name__)


class EndlessBackoffs:
    """Seconds between attempts to reach the API server: kopf ends the process after the last, so there is no last."""

    def __init__(self, *, first: float = 0.5, longest: float = 5.0) -> None:
        self._first = first
        self._longest = longest

    def __iter__(self) -> Iterator[float]:
        delay = self._first
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311
            delay = min(self._longest, delay * 2)


def make_settings() -> kopf.OperatorSettings:
    """kopf's settings where its defaults are not ours."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # No watch on CustomResourceDefinitions and Namespaces: megabytes, and rights that nobody wants to give.
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 200
    settings.process.ultimate_exiting_timeout = None
    return settings


def make_registry(*, credentials: Credentials, heard: Heard) -> kopf.OperatorRegistry:
    """The handlers. They only call `heard`, which must not raise."""
    registry = kopf.OperatorRegistry()
    login = _Login(credentials)

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=5)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def hear(namespace: str | None, name: str | None, status: Mapping[str, Any], **_: Any) -> None:
        heard(namespace or "", name or "", bool(status.get("rollout")))

    return registry


class _Connection(kopf.ConnectionInfo):
    """Verifies the API server as kubectl does, without what Python 3.13 adds (`Credentials.load` says why)."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class _Login:
    """Reads the credentials anew each time kopf asks, and slows down when that does not help.

    kopf gives up for good when it is handed what was refused before; the expiration makes each login a new one.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._logins = 0
        self._delays = iter(EndlessBackoffs(first=1.0, longest=30.0))
        self._last: datetime | None = None

    async def __call__(self) -> kopf.ConnectionInfo:
        now = datetime.now(UTC)
        if self._last is not None:
            if now - self._last > timedelta(minutes=5):
                self._delays = iter(EndlessBackoffs(first=1.0, longest=30.0))
            await asyncio.sleep(next(self._delays))
        self._last = datetime.now(UTC)
        self._logins += 1
        try:
            login = await self._credentials.login()
        except CredentialsError as error:
            raise kopf.TemporaryError(str(error), delay=5) from error
        return _Connection(
            server=login.server,
            ca_path=login.ca_path,
            insecure=login.insecure,
            token=login.token,
            certificate_path=login.certificate_path,
            private_key_path=login.private_key_path,
            proxy_url=login.proxy,
            expiration=self._last + timedelta(days=3650, seconds=self._logins),
        )


class WatchThread:
    """One run of kopf in a thread of its own, for some namespaces or all. `ended` gets what it ended with."""

    def __init__(self, namespaces: tuple[str, ...], *, credentials: Credentials, heard: Heard) -> None:
        self._namespaces = namespaces
        self._credentials = credentials
        self._heard = heard
        self._stop: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ready = threading.Event()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        # A daemon, so that a kopf that does not end cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether kopf has logged in and begun."""
        return self._ready.is_set()

    async def stop(self, *, patience: float = 3.0) -> None:
        """End it, and wait for its end no longer than `patience` seconds."""
        if not self._stop.done():
            self._stop.set_result(None)
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(asyncio.wrap_future(self.ended))
        except TimeoutError:
            _LOG.warning("watching has not ended in time, it is left behind")
        except Exception as error:  # noqa: BLE001 – whatever kopf ended with was dealt with by who waits for `ended`
            _LOG.debug("watching had failed", extra={"error": str(error)})

    def _run(self) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=make_registry(credentials=self._credentials, heard=self._heard),
                    settings=make_settings(),
                    standalone=True,
                    # Else kopf asks for the user's name, which a numeric user in a container has not.
                    identity=Identity(socket.gethostname()),
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    stop_flag=self._stop,
                    ready_flag=self._ready,
                )
            )
        except BaseException as error:
            self.ended.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self.ended.set_result(None)
