"""Prometheus over HTTP with aiohttp."""

from __future__ import annotations

import asyncio
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import urlsplit

import aiohttp

from pinn_operator.core.reasons import Reason
from pinn_operator.core.samples import Answer, Query, SourceError
from pinn_operator.core.text import cut
from pinn_operator.prom.guard import Guards, SourceSilent
from pinn_operator.prom.parsing import parse_answer
from pinn_operator.prom.protocol import Login, LoginError

SIZE_LIMIT = 8 * 1024 * 1024
"""An answer above this many bytes is refused: a gate needs a few series, not the whole database."""
VALUES_LIMIT = 500_000
"""An answer of more than about this many JSON values is refused; a point of a series is three of them."""
SMALL = 64 * 1024
"""Up to so many bytes are read without handing them to another thread."""
CHECK_LOGIN = (
    "check bearerTokenSecretRef, basicAuth and headers in spec.analysis.prometheus, or the prometheus.* values "
    "of the chart"
)
"""What to do when a login is refused."""
_LOGIN_REFUSED = (401, 403)
_PARSER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
"""One large answer at a time: its objects take many times its bytes."""


def unix_seconds(moment: datetime) -> str:
    """A time as Prometheus takes it, to the millisecond that it keeps."""
    return f"{moment.timestamp():.3f}"


def parameters(query: Query) -> tuple[str, dict[str, str]]:
    """The endpoint of a query below `/api/v1/`, and its parameters."""
    if query.start is None:
        return "query", {"query": query.expression, "time": unix_seconds(query.end)}
    return "query_range", {
        "query": query.expression,
        "start": unix_seconds(query.start),
        "end": unix_seconds(query.end),
        "step": f"{query.step:.3f}",
    }


class HttpSource:
    """One Prometheus. `address` may have a path (`http://host:9090/prometheus`); `timeout` is in seconds."""

    def __init__(self, address: str, *, timeout: float, login: Login | None = None) -> None:
        self._address = address.rstrip("/")
        self._login = login
        self._timeout = timeout
        self._guards = Guards(name=f"Prometheus at {shown(address)}", timeout=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._trusted: tuple[str, ssl.SSLContext] | None = None

    async def close(self) -> None:
        """See `MetricSource.close`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, query: Query, *, namespace: str = "") -> Answer:
        """See `MetricSource.ask`."""
        return await self._guards.of(namespace, query).run(lambda: self._ask(query))

    async def _ask(self, query: Query) -> Answer:
        endpoint, form = parameters(query)
        # Prometheus gives up when nobody waits for the answer any more.
        form["timeout"] = f"{self._timeout:g}s"
        headers = {"Accept": "application/json"}
        try:
            context = True if self._login is None else self._context(await self._login.certificates())
            if self._login is not None:
                headers |= await self._login.headers()
            url = f"{self._address}/api/v1/{endpoint}"
            # A redirect leads to a login page, or takes the token to another host.
            async with self._connected().post(
                url, data=form, headers=headers, allow_redirects=False, ssl=context
            ) as response:
                body = await response.content.read(SIZE_LIMIT + 1)
                while not response.content.at_eof() and len(body) <= SIZE_LIMIT:
                    body += await response.content.read(SIZE_LIMIT + 1 - len(body))
        except LoginError as error:
            return SourceError(str(error), Reason.CREDENTIALS_UNREADABLE)
        except aiohttp.InvalidURL as error:
            return SourceError(f"{shown(self._address)} is no valid address: {error}")
        except aiohttp.ClientConnectorCertificateError as error:
            # It is a ValueError too, but no answer: whoever it was, it was not asked.
            raise SourceSilent(not_trusted(str(error.certificate_error))) from error
        except ValueError as error:
            return SourceError(f"the question cannot be sent: {error}")
        except (aiohttp.ClientError, OSError) as error:
            raise SourceSilent(str(error) or type(error).__name__) from error
        if len(body) > SIZE_LIMIT:
            return too_large()
        if len(body) > SMALL:
            return await asyncio.get_running_loop().run_in_executor(_PARSER, parse_body, response.status, body)
        return parse_body(response.status, body)

    def _context(self, pem: str | None) -> ssl.SSLContext | bool:
        """Raises LoginError."""
        if pem is None:
            return True
        if self._trusted is None or self._trusted[0] != pem:
            try:
                # With certificates of its own it trusts no other.
                self._trusted = (pem, ssl.create_default_context(cadata=pem))
            except ssl.SSLError as error:
                raise LoginError(f"the certificates of the authority cannot be read: {error.reason}") from error
        return self._trusted[1]

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Each namespace has its own limit; one of them all would let one team's slow queries stop the others.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def too_large() -> SourceError:
    """The answer when there are more bytes than anybody needs."""
    return SourceError(f"the answer is larger than {SIZE_LIMIT >> 20} MiB: the query selects too much")


def not_trusted(words: str) -> str:
    """What a certificate that was refused is told as."""
    return (
        f"its certificate is not trusted ({words.strip()}): name its authority in spec.analysis.prometheus.caRef, or "
        "with --prometheus-ca-file for the operator's own"
    )


def shown(address: str) -> str:
    """An address as it may be told: without a user name and password."""
    try:
        parts = urlsplit(address)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return "an address that cannot be read"


def parse_body(status: int, body: bytes) -> Answer:
    """An HTTP answer, whatever it holds."""
    # Counted before any object is made of it: a few bytes of JSON are a hundred in memory.
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > VALUES_LIMIT:
        return SourceError(f"the answer has more than {VALUES_LIMIT} values: the query selects too much")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:200].decode(errors="replace").strip()
        if status in _LOGIN_REFUSED:
            return _login_refused(status, text)
        return SourceError(f"HTTP {status} with an answer that is not JSON: {text!r}")
    answer = parse_answer(document)
    if status in _LOGIN_REFUSED:
        said = document.get("error") if isinstance(document, dict) else None
        return _login_refused(status, str(said or ""))
    if status >= 300 and not isinstance(answer, SourceError):
        return SourceError(f"HTTP {status}")
    return answer


def _login_refused(status: int, text: str) -> SourceError:
    words = f": {cut(text, 200)}" if text else ""
    return SourceError(f"Prometheus refused the login (HTTP {status}){words}; {CHECK_LOGIN}")
