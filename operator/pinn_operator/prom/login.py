"""How the operator logs in at a Prometheus: by references of a resource, or by files that it was started with.

What is read is kept for a minute, because tokens and certificates are rotated, and is in no log, error or `repr`.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.prom.protocol import LoginError

DataReader = Callable[[str, str, str], Awaitable[str | None]]
"""Namespace, name and key of a Secret or ConfigMap to its value; None if it is absent. May raise; that counts as
absent."""

KEPT_SECONDS: Final = 60.0
FAULT_KEPT_SECONDS: Final = 5.0
"""All queries of a pass, and of some passes, share one attempt to read what cannot be read."""
PEM_LIMIT: Final = 256 * 1024
_FILE_LIMIT: Final = 1024 * 1024
_CERTIFICATE: Final = re.compile(r"-----BEGIN (TRUSTED )?CERTIFICATE-----")


class Kept:
    """One value, read again after a minute, and by one reader at a time. `where` names it in errors, like `the Secret
    pricing/metrics`. A value that cannot be had or used is not looked for again for some seconds."""

    def __init__(
        self,
        read: Callable[[], Awaitable[str | None]],
        *,
        where: str,
        key: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._where = where
        self._key = key
        self._clock = clock
        self._turn = asyncio.Lock()
        self._value = ""
        self._fault = ""
        self._until = float("-inf")

    def __repr__(self) -> str:
        return f"Kept({self._where!r}, key={self._key!r})"

    async def text(self) -> str:
        """Any text that is not empty. Raises LoginError."""
        async with self._turn:
            if self._clock() >= self._until:
                await self._read_now()
        if self._fault:
            raise LoginError(self._fault)
        return self._value

    async def line(self) -> str:
        """One line of printable ASCII: what a header can carry. Raises LoginError."""
        text = await self.text()
        if not (text.isascii() and text.isprintable()):
            # An HTTP client would refuse it as a header, and might quote it.
            what = f"{self._where} holds no header under {self._key!r}" if self._key else f"{self._where} is no header"
            raise self._refused(f"{what}: it must be one line of ASCII")
        return text

    async def pem(self) -> str:
        """Certificates. Raises LoginError."""
        text = await self.text()
        if _CERTIFICATE.search(text) is None or not text.isascii() or len(text) > PEM_LIMIT:
            raise self._refused(f"{self._where} holds no certificates: want PEM, -----BEGIN CERTIFICATE-----")
        return text

    async def _read_now(self) -> None:
        try:
            value = await self._read()
        except Exception as error:  # noqa: BLE001
            # Whatever the reader failed with: the query is not asked, and its gate says why.
            self._refused(f"{self._where} cannot be read: {error}")
            return
        if not value:
            self._refused(
                f"{self._where} does not exist or has no key {self._key!r}" if self._key else f"{self._where} is empty"
            )
            return
        self._value, self._fault, self._until = value, "", self._clock() + KEPT_SECONDS

    def _refused(self, fault: str) -> LoginError:
        """Keep the fault for some seconds, in place of a value."""
        self._value, self._fault, self._until = "", fault, self._clock() + FAULT_KEPT_SECONDS
        return LoginError(fault)


@dataclass(frozen=True, slots=True)
class KeptLogin:
    """A login that is put together from values that are kept. Two headers of one name: the later one counts."""

    bearer: Kept | None = None
    username: Kept | None = None
    password: Kept | None = None
    plain: tuple[tuple[str, str], ...] = ()
    secret: tuple[tuple[str, Kept], ...] = ()
    authority: Kept | None = None

    async def headers(self) -> Mapping[str, str]:
        """See `Login.headers`."""
        found = dict(self.plain)
        for name, kept in self.secret:
            found[name] = await kept.line()
        if self.bearer is not None:
            found["Authorization"] = f"Bearer {await self.bearer.line()}"
        if self.username is not None and self.password is not None:
            username, password = await self.username.text(), await self.password.text()
            if ":" in username:
                raise LoginError("a user name of basic authentication has no colon (RFC 7617)")
            found["Authorization"] = f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
        return found

    async def certificates(self) -> str | None:
        """See `Login.certificates`."""
        return None if self.authority is None else await self.authority.pem()


def login_of(
    prometheus: Prometheus,
    namespace: str,
    *,
    read_secret: DataReader,
    read_config_map: DataReader,
    clock: Callable[[], float] = time.monotonic,
) -> KeptLogin:
    """The login that a resource of this namespace describes. What it refers to lies in the same namespace."""

    def kept(kind: str, name: str, key: str) -> Kept:
        reader = read_secret if kind == "Secret" else read_config_map
        return Kept(lambda: reader(namespace, name, key), where=f"the {kind} {namespace}/{name}", key=key, clock=clock)

    basic, token, authority = prometheus.basic_auth, prometheus.bearer_token_secret, prometheus.certificate_authority
    return KeptLogin(
        bearer=kept("Secret", *token) if token else None,
        username=kept("Secret", basic.username.name, basic.username.key) if basic else None,
        password=kept("Secret", basic.password.name, basic.password.key) if basic else None,
        plain=tuple((header.name, header.value) for header in prometheus.headers if header.value is not None),
        secret=tuple(
            (header.name, kept("Secret", header.secret.name, header.secret.key))
            for header in prometheus.headers
            if header.secret is not None
        ),
        authority=kept(authority.kind, authority.name, authority.key) if authority else None,
    )


@dataclass(frozen=True, slots=True)
class LoginFiles:
    """Files with what the operator's own Prometheus is shown; a mounted Secret is updated while the operator runs."""

    bearer: Path | None = None
    username: Path | None = None
    password: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()
    header_files: tuple[tuple[str, Path], ...] = ()
    authority: Path | None = None

    def login(self, *, clock: Callable[[], float] = time.monotonic) -> KeptLogin:
        """The login. The files are read when it is used."""

        def kept(path: Path | None) -> Kept | None:
            return None if path is None else _of_file(path, clock)

        return KeptLogin(
            bearer=kept(self.bearer),
            username=kept(self.username),
            password=kept(self.password),
            plain=self.headers,
            secret=tuple((name, _of_file(path, clock)) for name, path in self.header_files),
            authority=kept(self.authority),
        )


def _of_file(path: Path, clock: Callable[[], float]) -> Kept:
    def read() -> str:
        with path.open(encoding="utf-8", errors="strict") as file:
            return file.read(_FILE_LIMIT).strip()

    async def read_aside() -> str | None:
        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise LoginError(error.strerror or type(error).__name__) from error
        except UnicodeDecodeError as error:
            raise LoginError("it is not UTF-8") from error

    return Kept(read_aside, where=f"the file {path}", clock=clock)


def same_name(names: Sequence[str]) -> str | None:
    """A header that is there twice, in whatever letters; None if there is none."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            return name
        seen.add(name.lower())
    return None
