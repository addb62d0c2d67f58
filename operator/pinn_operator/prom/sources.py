"""One metric source per address and login, shared by all resources that name it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.prom.client import HttpSource
from pinn_operator.prom.login import DataReader, login_of
from pinn_operator.prom.protocol import Login, MetricSource

_OPEN_SOURCES = 64


class ClientKind(StrEnum):
    """Which HTTP client asks Prometheus."""

    AIOHTTP = "aiohttp"
    LIBRARY = "prometheus-api-client"


@dataclass(frozen=True, slots=True)
class _Key:
    """What must be the same for two resources to share a source. `prometheus` None is the operator's own."""

    address: str
    timeout: float
    namespace: str
    prometheus: Prometheus | None


class Sources:
    """`default_address` is asked, with `default_login`, where a resource names no Prometheus of its own.

    That login goes nowhere else: a resource that names the same address logs in by its own references.
    """

    def __init__(
        self,
        *,
        default_address: str,
        read_secret: DataReader,
        read_config_map: DataReader,
        default_login: Login | None = None,
        kind: ClientKind = ClientKind.AIOHTTP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default = default_address
        self._default_login = default_login
        self._read_secret = read_secret
        self._read_config_map = read_config_map
        self._kind = kind
        self._clock = clock
        self._open: OrderedDict[_Key, MetricSource] = OrderedDict()

    async def source(self, prometheus: Prometheus, namespace: str) -> MetricSource:
        """The source a resource of that namespace asks. What it logs in with lies in the same namespace."""
        # A login is always sent to an address that the same resource names: the parser has seen to it.
        own = prometheus.address is not None
        logs_in = own and any(
            (
                prometheus.bearer_token_secret,
                prometheus.basic_auth,
                prometheus.headers,
                prometheus.certificate_authority,
            )
        )
        key = _Key(
            address=prometheus.address or self._default,
            timeout=float(prometheus.timeout_seconds),
            namespace=namespace if logs_in else "",
            prometheus=prometheus if own else None,
        )
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = self._make(key)
        self._open.move_to_end(key)
        while len(self._open) > _OPEN_SOURCES:
            _, oldest = self._open.popitem(last=False)
            await oldest.close()
        return found

    async def close(self) -> None:
        """Close all connections."""
        while self._open:
            _, source = self._open.popitem()
            await source.close()

    def _make(self, key: _Key) -> MetricSource:
        login: Login | None = self._default_login
        if key.prometheus is not None:
            login = login_of(
                key.prometheus,
                key.namespace,
                read_secret=self._read_secret,
                read_config_map=self._read_config_map,
                clock=self._clock,
            )
        if self._kind is ClientKind.LIBRARY:
            # Imported where it is used: it brings `requests` along.
            from pinn_operator.prom.library import LibrarySource

            return LibrarySource(key.address, timeout=key.timeout, login=login)
        return HttpSource(key.address, timeout=key.timeout, login=login)
