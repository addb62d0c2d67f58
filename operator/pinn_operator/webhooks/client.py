"""Asks a webhook once, over HTTP with aiohttp."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from pinn_operator.core.gates.webhook import LONGEST_PAUSE
from pinn_operator.core.reasons import Reason
from pinn_operator.core.samples import SourceError, WebhookQuestion
from pinn_operator.webhooks.addresses import AddressRefused, CheckedResolver, refused
from pinn_operator.webhooks.parsing import Said, body_of, one_line, parse_said, signature

SecretReader = Callable[[str, str, str], Awaitable[str | None]]
"""Namespace, name and key of a Secret to its value; None if it is absent. May raise; that counts as absent."""

SIZE_LIMIT: Final = 64 * 1024
"""An answer above this many bytes is refused."""
SIGNATURE_HEADER: Final = "X-Pinn-Signature"
_AGAIN: Final = (429, 500, 502, 503, 504)
_FIRST_PAUSE: Final = 0.2


class _Retry(Exception):
    """No answer, but there may be one at the next attempt."""


class WebhookClient:
    """Asks webhooks. With `allow_local` their addresses may be loopback and link-local ones too."""

    def __init__(
        self,
        read_secret: SecretReader,
        *,
        allow_local: bool = False,
        user_agent: str = "pinn-operator",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read_secret = read_secret
        self._allow_local = allow_local
        self._user_agent = user_agent
        self._now = now
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, question: WebhookQuestion, *, namespace: str, name: str) -> Said | SourceError:
        """The answer, or what is wrong; never raises for a fault outside this process.

        Takes at most (1 + retries) · timeout and the pauses between them, 5 s each at most.
        """
        body = body_of(question, namespace=namespace, name=name, now=self._now())
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if question.secret is not None:
            key = await self._key(namespace, *question.secret)
            if isinstance(key, SourceError):
                return key
            headers[SIGNATURE_HEADER] = signature(body, key)
        last = ""
        for attempt in range(1 + question.retries):
            if attempt:
                # Jitter: many operators' questions to a server that comes back must not come at one moment.
                pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
                await self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                async with asyncio.timeout(question.timeout):
                    return await self._attempt(question.url, body, headers)
            except TimeoutError:
                last = f"no answer within {question.timeout:g} s"
            except _Retry as error:
                last = str(error)
        tries = f" ({1 + question.retries} attempts)" if question.retries else ""
        return SourceError(f"the webhook did not answer: {last}{tries}")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _attempt(self, url: str, body: bytes, headers: dict[str, str]) -> Said | SourceError:
        """Raises _Retry, TimeoutError."""
        host = urlsplit(url).hostname or ""
        # The client resolves names alone: an address in the URL is checked here.
        if not self._allow_local and refused(host):
            return SourceError(f"the webhook's address {host} is one that a webhook may not have")
        try:
            async with self._connected().post(url, data=body, headers=headers, allow_redirects=False) as response:
                if response.status in _AGAIN:
                    raise _Retry(f"HTTP {response.status}")
                if 300 <= response.status < 400:
                    return SourceError(f"HTTP {response.status}: a webhook may not redirect to another address")
                if not 200 <= response.status < 300:
                    return SourceError(f"the webhook answered HTTP {response.status}")
                answer = await response.content.read(SIZE_LIMIT + 1)
                while not response.content.at_eof() and len(answer) <= SIZE_LIMIT:
                    answer += await response.content.read(SIZE_LIMIT + 1 - len(answer))
        except AddressRefused as error:
            return SourceError(str(error))
        except aiohttp.ClientConnectorCertificateError as error:
            return SourceError(f"the webhook's certificate is not trusted: {_certificate_words(error)}")
        except (aiohttp.InvalidURL, ValueError):
            return SourceError("the webhook's url cannot be used")
        except (aiohttp.ClientError, OSError) as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, AddressRefused):
                return SourceError(str(cause))
            raise _Retry(one_line(str(error)) or type(error).__name__) from error
        if len(answer) > SIZE_LIMIT:
            return SourceError(f"the webhook's answer is larger than {SIZE_LIMIT >> 10} KiB")
        return parse_said(answer)

    async def _key(self, namespace: str, name: str, key: str) -> str | SourceError:
        where = f"the Secret {namespace}/{name}"
        try:
            value = await self._read_secret(namespace, name, key)
        except Exception as error:  # noqa: BLE001
            return SourceError(f"{where} cannot be read: {one_line(str(error))}", Reason.CREDENTIALS_UNREADABLE)
        return value or SourceError(f"{where} does not exist or has no key {key!r}", Reason.CREDENTIALS_UNREADABLE)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(allow_local=self._allow_local), limit=64, limit_per_host=4, ttl_dns_cache=10
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"User-Agent": self._user_agent},
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                max_line_size=8190,
                max_field_size=8190,
            )
        return self._session


def _certificate_words(error: aiohttp.ClientConnectorCertificateError) -> str:
    return one_line(str(error.certificate_error))
