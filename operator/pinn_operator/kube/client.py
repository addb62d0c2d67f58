"""One HTTP client for the API server: raw JSON, time limits on everything, retries with jitter.

Built on `kubernetes.aio`, of which only the transport, the TLS set-up and the login are used: its generated models cost
five times the CPU of plain dictionaries and are regenerated from release to release.

Retried here, because they pass: no connection, time-out, 5xx, 429. Every call of this operator may be repeated: reads,
server-side apply, deletes, a status write with its resourceVersion, and creates of objects whose name is fixed.
401 is retried once, after the credentials were read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import MANAGER, ObjectKind
from pinn_operator.kube.errors import (
    ApiError,
    CredentialsError,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    error_from_answer,
)

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
SILENCE_SECONDS = 90.0
"""A watch that brings nothing for so long is dead: a bookmark comes every minute."""

CallObserver = Callable[[str, str, str, float], None]
"""Told of every call: verb, resource, HTTP status or "error", seconds."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retries:
    """Waiting grows from `first` seconds by doubling to `longest`, each time by half to one and a half of it."""

    attempts: int = 4
    first: float = 0.2
    longest: float = 3.0
    patience: float = 5.0
    """A `Retry-After` above this many seconds is not waited for here: the caller gets the error, and comes later."""

    def delay(self, attempt: int, minimum: float | None = None) -> float:
        """Seconds after the failed attempt number `attempt`, counted from 0."""
        delay: float = min(self.longest, self.first * 2**attempt) * random.uniform(0.5, 1.5)  # noqa: S311
        return max(delay, minimum or 0.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object by the path it has in the API."""

    api_version: str
    kind: str
    plural: str

    @classmethod
    def of(cls, kind: ObjectKind) -> Kind:
        """The same kind as the core names it."""
        return cls(kind.api_version, kind.kind, kind.plural)

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Of one object, or of the collection when `name` is None, in all namespaces when `namespace` is None."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        place = [] if namespace is None else ["namespaces", quote(namespace, safe="")]
        parts = [root + self.api_version, *place, self.plural]
        parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class _Call:
    """What is sent. `method` WATCH is a GET whose answer does not end."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: Mapping[str, Any] | None
    content_type: str
    accept: str
    timeout: aiohttp.ClientTimeout

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def http_method(self) -> str:
        return "GET" if self.method == "WATCH" else self.method


class Client:
    """Calls that return parsed JSON and raise `ClusterError`.

    `load` gives the configuration; it is called again after a 401. `connections` at the same time; 0 for any number,
    None as configured.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Configuration]],
        *,
        retries: Retries | None = None,
        connect_timeout: float = 5.0,
        total_timeout: float = 20.0,
        connections: int | None = None,
        observer: CallObserver | None = None,
        user_agent: str = MANAGER,
    ) -> None:
        self._load = load
        self._retries = retries or Retries()
        self._timeout = aiohttp.ClientTimeout(total=total_timeout, sock_connect=connect_timeout)
        self._observe = observer or (lambda _verb, _resource, _code, _seconds: None)
        self._connections = connections
        self._user_agent = user_agent
        self._api: ApiClient | None = None
        self._renewing = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._api is not None:
            api, self._api = self._api, None
            await api.close()

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """One object, fresh. Raises NotFound."""
        return await self.request("GET", kind.path(namespace, name), resource=kind.plural)

    async def list_matching(
        self, kind: Kind, namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> list[dict[str, Any]]:
        """The newest state of the objects that match, each with its apiVersion and kind, which lists leave out."""
        selectors = (("labelSelector", label_selector), ("fieldSelector", field_selector))
        query = [(name, selector) for name, selector in selectors if selector]
        answer = await self.request("GET", kind.path(namespace), resource=kind.plural, query=query, verb="LIST")
        return [{**item, "apiVersion": kind.api_version, "kind": kind.kind} for item in answer.get("items") or ()]

    async def list_metadata(self, kind: Kind, namespace: str | None = None) -> list[dict[str, Any]]:
        """The metadata of all objects of a kind in one namespace or in all, read in pages."""
        path = kind.path(namespace)
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            query = [("limit", "250"), *([("continue", token)] if token else [])]
            answer = await self.request(
                "GET", path, resource=kind.plural, query=query, verb="LIST", accept=METADATA_LIST
            )
            items.extend(answer.get("items") or ())
            token = (answer.get("metadata") or {}).get("continue") or ""
            if not token:
                return items

    async def apply(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Server-side apply of a whole object; unknown fields are an error."""
        query = [("fieldManager", MANAGER), ("force", "true"), ("fieldValidation", "Strict")]
        path = kind.path(namespace, manifest["metadata"]["name"])
        return await self.request(
            "PATCH", path, resource=kind.plural, query=query, body=manifest, content_type=APPLY, verb="APPLY"
        )

    async def replace_status(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Replace the status as a whole. Raises Conflict unless metadata.resourceVersion is the newest."""
        # Where the CRD is older than the operator, a field it does not know is dropped; refusing the whole status would
        # leave an operator that can decide a rollback and not commit it.
        query = [("fieldManager", MANAGER), ("fieldValidation", "Warn")]
        path = kind.path(namespace, manifest["metadata"]["name"], "status")
        return await self.request("PUT", path, resource=f"{kind.plural}/status", query=query, body=manifest)

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Raises AlreadyExists."""
        return await self.request("POST", kind.path(namespace), resource=kind.plural, body=manifest)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest:
        """JSON merge patch."""
        return await self.request(
            "PATCH", kind.path(namespace, name), resource=kind.plural, body=patch, content_type=MERGE
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """Delete that very object; its dependants go in the background. Raises NotFound, Conflict if it is another."""
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        await self.request("DELETE", kind.path(namespace, name), resource=kind.plural, body=body)

    # --- watching -----------------------------------------------------------------------------------------------------

    async def newest_version(self, kind: Kind, namespace: str | None, *, label_selector: str = "") -> str:
        """The version of a collection at this moment, to watch it from. Raises NotFound if the kind is not served."""
        query = [("limit", "1"), *([("labelSelector", label_selector)] if label_selector else [])]
        answer = await self.request(
            "GET", kind.path(namespace), resource=kind.plural, query=query, verb="LIST", accept=METADATA_LIST
        )
        return str((answer.get("metadata") or {}).get("resourceVersion") or "0")

    async def watch(
        self, kind: Kind, namespace: str | None, *, label_selector: str, version: str
    ) -> AsyncIterator[dict[str, Any]]:
        """`{"type": …, "object": {"metadata": …}}` for each change since `version`, until the server ends the stream.

        Raises Gone when the version is too old. Credentials are read anew after a 401, which is raised all the same.
        """
        query = [("watch", "true"), ("allowWatchBookmarks", "true")]
        query += [("labelSelector", label_selector), ("resourceVersion", version)]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.sock_connect, sock_read=SILENCE_SECONDS)
        call = _Call("WATCH", kind.path(namespace), tuple(query), None, JSON, METADATA, timeout)
        api = await self._connected()
        response, code = None, "error"
        try:
            response = await self._send(api, call)
            code = str(response.status)
            with _reaching(str(call)):
                if response.status >= 300:
                    raise error_from_answer(response.status, await response.read(), request=str(call))
                async for line in response.response.content:
                    yield _event(line, str(call))
        except Unauthorized:
            await self._renew(api)
            raise
        finally:
            self._observe("WATCH", kind.plural, code, 0.0)
            if response is not None:
                response.response.close()

    # --- transport ----------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        resource: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        verb: str | None = None,
    ) -> dict[str, Any]:
        """One call with its retries. Raises `ClusterError`."""
        call = _Call(method, path, tuple(query), body, content_type, accept, self._timeout)
        renewed = False
        for attempt in range(self._retries.attempts):
            last = attempt == self._retries.attempts - 1
            started = time.monotonic()
            code = "error"
            try:
                api = await self._connected()
                code, answer = await self._once(api, call)
                return answer
            except Unauthorized as error:
                code = str(error.status)
                if renewed or last:
                    raise
                renewed = True
                await self._renew(api)
            except (Unreachable, ServerError, TooManyRequests) as error:
                code = str(error.status) if isinstance(error, ApiError) else "error"
                minimum = error.retry_after if isinstance(error, ApiError) else None
                if last or (minimum or 0.0) > self._retries.patience:
                    raise
                delay = self._retries.delay(attempt, minimum)
                _LOG.debug("call failed, repeated soon", extra={"error": str(error), "delay": round(delay, 3)})
                await asyncio.sleep(delay)
            except ApiError as error:
                code = str(error.status)
                raise
            finally:
                self._observe(verb or method, resource, code, time.monotonic() - started)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, api: ApiClient, call: _Call) -> tuple[str, dict[str, Any]]:
        response = await self._send(api, call)
        with _reaching(str(call)):
            data: bytes = await response.read()
        status: int = response.status
        if status >= 300:
            raise error_from_answer(status, data, request=str(call), retry_after=response.headers.get("Retry-After"))
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise Unreachable(f"{call}: the answer is not JSON") from error
        return str(status), answer

    async def _send(self, api: ApiClient, call: _Call) -> Any:
        """The answer, not read yet. Raises Unreachable."""
        headers = {"Accept": call.accept, "User-Agent": self._user_agent}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        url = api.configuration.host + call.path + (f"?{urlencode(call.query)}" if call.query else "")
        with _reaching(str(call)):
            try:
                await api.update_params_for_auth(headers, None, ["BearerToken"], call.path, call.http_method, None)
                return await api.call_api(call.http_method, url, headers, call.body, _request_timeout=call.timeout)
            except RuntimeError as error:
                # aiohttp says so of a session that was closed because the credentials were renewed meanwhile.
                if api is self._api:
                    raise
                raise Unreachable(f"{call}: the connection was closed") from error

    async def _connected(self) -> ApiClient:
        if self._api is None:
            async with self._renewing:
                if self._api is None:
                    self._api = await self._log_in()
        return self._api

    async def _renew(self, failed: ApiClient | None) -> None:
        """Log in again, once however many calls failed together."""
        async with self._renewing:
            if self._api is not failed:
                return
            _LOG.warning("the API server does not accept the credentials: reading them again")
            self._api = await self._log_in()
            if failed is not None:
                with contextlib.suppress(aiohttp.ClientError):
                    await failed.close()

    async def _log_in(self) -> ApiClient:
        configuration = await self._load()
        if self._connections is not None:
            configuration.connection_pool_maxsize = self._connections
        return ApiClient(configuration)


@contextlib.contextmanager
def _reaching(request: str) -> Iterator[None]:
    """Faults on the way to the API server and back, as ours."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"{request}: no answer in time") from error
    except ConfigException as error:
        raise CredentialsError(f"{request}: cannot log in: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(f"{request}: {error or type(error).__name__}") from error


def _event(line: bytes, request: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
        kind, content = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{request}: the stream holds something else than events") from error
    if kind == "ERROR":
        code = content.get("code") if isinstance(content, dict) else None
        raise error_from_answer(code or 500, json.dumps(content).encode(), request=request)
    return event
