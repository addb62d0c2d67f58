"""One metric source per address and login, shared by all resources that name it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.prom.client import HttpSource
from pinn_operator.prom.protocol import MetricSource, TokenError

SecretReader = Callable[[str, str, str], Awaitable[str | None]]
"""Namespace, name and key of a Secret to its value; None if it is absent. May raise; that counts as absent."""

TOKEN_SECONDS = 60.0
_OPEN_SOURCES = 64


class ClientKind(StrEnum):
    """Which HTTP client asks Prometheus."""

    AIOHTTP = "aiohttp"
    LIBRARY = "prometheus-api-client"


@dataclass(frozen=True, slots=True)
class _Key:
    address: str
    timeout: float
    secret: tuple[str, str, str] | None


class Sources:
    """`default_address` is asked where a resource names no Prometheus of its own."""

    def __init__(
        self,
        *,
        default_address: str,
        read_secret: SecretReader,
        kind: ClientKind = ClientKind.AIOHTTP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default = default_address
        self._read_secret = read_secret
        self._kind = kind
        self._clock = clock
        self._open: OrderedDict[_Key, MetricSource] = OrderedDict()

    async def source(self, prometheus: Prometheus, namespace: str) -> MetricSource:
        """The source a resource of that namespace asks. The Secret with its token lies in the same namespace."""
        secret = prometheus.bearer_token_secret
        key = _Key(
            address=prometheus.address or self._default,
            timeout=float(prometheus.timeout_seconds),
            secret=(namespace, *secret) if secret else None,
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
        token = CachedToken(key.secret, self._read_secret, clock=self._clock) if key.secret else None
        if self._kind is ClientKind.LIBRARY:
            # Imported where it is used: it brings `requests` along.
            from pinn_operator.prom.library import LibrarySource

            return LibrarySource(key.address, timeout=key.timeout, token=token)
        return HttpSource(key.address, timeout=key.timeout, token=token)


class CachedToken:
    """A bearer token from a Secret, read again after a minute, because tokens are rotated."""

    def __init__(
        self, secret: tuple[str, str, str], read_secret: SecretReader, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._secret = secret
        self._read_secret = read_secret
        self._clock = clock
        self._token: str | None = None
        self._read_at = float("-inf")

    def __repr__(self) -> str:
        return f"CachedToken({self._secret!r})"

    async def __call__(self) -> str:
        """Raises TokenError that names the Secret."""
        if self._token is None or self._clock() - self._read_at >= TOKEN_SECONDS:
            namespace, name, key = self._secret
            try:
                self._token = await self._read_secret(namespace, name, key)
            except Exception as error:
                raise TokenError(f"the Secret {namespace}/{name} cannot be read: {error}") from error
            self._read_at = self._clock()
            if not self._token:
                raise TokenError(f"the Secret {namespace}/{name} has no key {key!r}")
            if not (self._token.isascii() and self._token.isprintable()):
                # An HTTP client would refuse it as a header, and might quote it.
                self._token = None
                where = f"the Secret {namespace}/{name}"
                raise TokenError(f"{where} holds no token under {key!r}: it must be one line of ASCII")
        return self._token
