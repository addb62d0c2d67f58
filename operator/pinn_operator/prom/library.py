"""Prometheus through the library prometheus-api-client, which takes proxies and certificates from the environment.

The library is synchronous and returns only `data.result` of an answer; the rest is taken from its session by a hook, so
that warnings and Prometheus' own error texts are seen. A question that was given up goes on in its thread until its own
time-out: `prom.client` does not have that limit, and is what is used unless this one is chosen.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from pinn_operator.core.reasons import Reason
from pinn_operator.core.samples import Answer, Query, SourceError
from pinn_operator.prom.client import SIZE_LIMIT, SMALL, not_trusted, parameters, parse_body, shown, too_large
from pinn_operator.prom.guard import Guards, SourceSilent
from pinn_operator.prom.protocol import Login, LoginError

_THREADS = 64
"""More than one namespace may have out at once: a few slow ones leave threads for the others."""
_ONE_LARGE = threading.Lock()
"""One large answer at a time: its objects take many times its bytes."""
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
)


class LibrarySource:
    """The same contract as `HttpSource`; a thread pool of its own, so that nothing else waits for Prometheus."""

    def __init__(self, address: str, *, timeout: float, login: Login | None = None) -> None:
        self._address = address.rstrip("/")
        self._timeout = timeout
        self._login = login
        self._guards = Guards(name=f"Prometheus at {shown(address)}", timeout=timeout)
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="prometheus")
        self._trusted: tuple[str, Path] | None = None

    async def close(self) -> None:
        """See `MetricSource.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._trust(None)

    async def ask(self, query: Query, *, namespace: str = "") -> Answer:
        """See `MetricSource.ask`."""
        return await self._guards.of(namespace, query).run(lambda: self._ask(query))

    async def _ask(self, query: Query) -> Answer:
        headers, certificates = None, None
        try:
            if self._login is not None:
                headers = dict(await self._login.headers())
                certificates = self._trust(await self._login.certificates())
        except LoginError as error:
            return SourceError(str(error), Reason.CREDENTIALS_UNREADABLE)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask_library, query, headers, certificates)

    def _trust(self, pem: str | None) -> Path | None:
        """A file with these certificates, which the library wants. Certificates are no secret."""
        if self._trusted is not None and self._trusted[0] == pem:
            return self._trusted[1]
        if self._trusted is not None:
            self._trusted[1].unlink(missing_ok=True)
            self._trusted = None
        if pem is None:
            return None
        try:
            ssl.create_default_context(cadata=pem)
            with tempfile.NamedTemporaryFile("w", suffix=".crt", delete=False) as file:
                file.write(pem)
        except ssl.SSLError as error:
            raise LoginError(f"the certificates of the authority cannot be read: {error.reason}") from error
        except OSError as error:
            raise LoginError(f"the certificates of the authority cannot be kept: {error.strerror}") from error
        self._trusted = (pem, Path(file.name))
        return self._trusted[1]

    def _ask_library(self, query: Query, headers: dict[str, str] | None, certificates: Path | None) -> Answer:
        endpoint, form = parameters(query)
        form["timeout"] = f"{self._timeout:g}s"
        answers: list[Answer] = []

        def take(response: requests.Response, **_: Any) -> None:
            # Called before the library reads the body, which would be all of it.
            body = b""
            for part in response.iter_content(SMALL):
                body += part
                if len(body) > SIZE_LIMIT:
                    response.close()
                    answers.append(too_large())
                    raise _Taken
            if len(body) > SMALL:
                with _ONE_LARGE:
                    answers.append(parse_body(response.status_code, body))
            else:
                answers.append(parse_body(response.status_code, body))
            raise _Taken

        # Made anew for each question: a session of `requests` is not safe to share between threads.
        with requests.Session() as session:
            session.max_redirects = 0
            if certificates is not None:
                session.verify = str(certificates)
            session.hooks["response"].append(take)
            try:
                connection = PrometheusConnect(
                    self._address,
                    headers=headers,
                    retry=Retry(0),
                    session=session,
                    timeout=self._timeout,
                    method="POST",
                )
                if endpoint == "query":
                    connection.custom_query(query.expression, params=form)
                else:
                    # Its own start and end are rounded to whole seconds; these, to the millisecond, take precedence.
                    connection.custom_query_range(query.expression, query.start, query.end, form["step"], params=form)
            except _Taken:
                return answers[0]
            except _NO_ADDRESS as error:
                return SourceError(f"{shown(self._address)} is no valid address: {error}")
            except requests.exceptions.SSLError as error:
                raise SourceSilent(not_trusted(_cause(error))) from error
            except requests.exceptions.RequestException as error:
                raise SourceSilent(str(error)) from error
            except ValueError as error:
                return SourceError(f"the question cannot be sent: {error}")
        return SourceError("the library gave no answer")


def _cause(error: BaseException) -> str:
    """The words of the fault at the bottom of those that wrap it."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    return _cause(reason) if isinstance(reason, BaseException) else str(error)


class _Taken(Exception):
    """The answer has been read: what the library would do with it is not needed."""
