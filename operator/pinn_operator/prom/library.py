"""Prometheus through the library prometheus-api-client, which takes proxies and certificates from the environment.

The library is synchronous and returns only `data.result` of an answer; the rest is taken from its session by a hook, so
that warnings and Prometheus' own error texts are seen. A question that was given up goes on in its thread until its own
time-out: `prom.client` does not have that limit, and is what is used unless this one is chosen.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from pinn_operator.core.samples import Answer, Query, SourceError
from pinn_operator.prom.client import parameters, parse_body, shown
from pinn_operator.prom.guard import Guard, SourceSilent
from pinn_operator.prom.protocol import TokenError, TokenReader

_CONCURRENCY = 8
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
)


class LibrarySource:
    """The same contract as `HttpSource`; a thread pool of its own, so that nothing else waits for Prometheus."""

    def __init__(self, address: str, *, timeout: float, token: TokenReader | None = None) -> None:
        self._address = address.rstrip("/")
        self._timeout = timeout
        self._token = token
        self._guard = Guard(name=f"Prometheus at {shown(address)}", timeout=timeout, concurrency=_CONCURRENCY)
        self._threads = ThreadPoolExecutor(max_workers=_CONCURRENCY, thread_name_prefix="prometheus")

    async def close(self) -> None:
        """See `MetricSource.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, query: Query) -> Answer:
        """See `MetricSource.ask`."""
        return await self._guard.run(lambda: self._ask(query))

    async def _ask(self, query: Query) -> Answer:
        try:
            headers = {"Authorization": f"Bearer {await self._token()}"} if self._token is not None else None
        except TokenError as error:
            return SourceError(str(error))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask_library, query, headers)

    def _ask_library(self, query: Query, headers: dict[str, str] | None) -> Answer:
        endpoint, form = parameters(query)
        form["timeout"] = f"{self._timeout:g}s"
        answers: list[Answer] = []

        def take(response: requests.Response, **_: Any) -> None:
            answers.append(parse_body(response.status_code, response.content))
            raise _Taken

        # Made anew for each question: a session of `requests` is not safe to share between threads.
        with requests.Session() as session:
            session.max_redirects = 0
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
            except requests.exceptions.RequestException as error:
                raise SourceSilent(str(error)) from error
            except ValueError as error:
                return SourceError(f"the question cannot be sent: {error}")
        return SourceError("the library gave no answer")


class _Taken(Exception):
    """The answer has been read: what the library would do with it is not needed."""
