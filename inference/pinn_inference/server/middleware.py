"""Every request is counted once, with its status, and with the time from its last byte to its answer, however it ends.

`Observer` does it; the outermost middleware tells it of all requests but those on the `lane`, which tell of themselves.
Whatever another middleware or a handler does inside, answer, sleep, raise, is seen. So a revision's failures are in its
own counters even when they come from code this package knows nothing of.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.errors import BodyTooLarge, NonFiniteResult, Overloaded, ServerError, let_go, render_error
from pinn_inference.server.logs import request_id
from pinn_inference.server.metrics import CLIENT_CLOSED_REQUEST, ServerMetrics

log = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
REVISION_HEADER: Final = "X-PINN-Revision"
"""Which revision answered, so that a client can count the shares of a rollout itself; absent without PINN_REVISION."""
SERVER_NAME: Final = "pinn-inference"
PRICING_HANDLERS: Final = frozenset(
    (
        "/v1/price",
        "/v1/implied-volatility",
        "/v1/scenarios",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
    )
)
BODY: Final = web.RequestKey("body", bytes)
"""Where a handler leaves the beginning of the request's body for the log of slow requests."""
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
UNMATCHED: Final = "unmatched"
"""How requests are counted that no handler is for."""
_IDENTITY: Final = web.RequestKey("identity", str)
_READY: Final = web.RequestKey("ready", float)
_GONE: Final = web.RequestKey("gone", bool)
_LOGGED_BYTES: Final = 2048
_TOLD_CHARACTERS: Final = 64


class RequestsInFlight:
    """How many requests are being served, from head to answer, so that the end of the process can wait for them."""

    def __init__(self) -> None:
        self.count = 0
        self._idle: asyncio.Event | None = None

    def begin(self) -> None:
        self.count += 1

    def end(self) -> None:
        self.count -= 1
        if self.count == 0 and self._idle is not None:
            self._idle.set()

    async def finished(self, *, within: float) -> int:
        """Waits until no request is in flight, `within` seconds at most; returns how many still are."""
        if self.count:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), within)
        return self.count


class Observer:
    """Counts, times and names requests; logs those that were slow or failed.

    `limit` bounds the requests in flight, `slow_seconds` is from when on a request is logged.
    """

    def __init__(
        self,
        metrics: ServerMetrics,
        in_flight: RequestsInFlight,
        engine: PricingEngine,
        *,
        revision: str = "",
        limit: int = 4096,
        slow_seconds: float = 0.25,
    ) -> None:
        self._metrics = metrics
        self._in_flight = in_flight
        self._engine = engine
        self.revision = revision
        self._limit = limit
        self._slow_seconds = slow_seconds
        # Ids for requests that bring none: random once, then counted.
        self._own_ids = map("{:032x}".format, itertools.count(int.from_bytes(os.urandom(15)) << 8))

    @property
    def has_room(self) -> bool:
        """Whether one more request may be in flight."""
        return self._in_flight.count < self._limit

    def identify(self, given: str | None) -> str:
        """The id of a request: what it brought, if that is fit for a header and a log, or a new one."""
        if given is not None and _ACCEPTABLE_ID.fullmatch(given):
            return given
        return next(self._own_ids)

    def begin(self) -> None:
        """A request has come."""
        self._in_flight.begin()

    def refuse_beyond_limit(self) -> None:
        """Raises Overloaded if the request that has just begun is one too many."""
        if self._in_flight.count > self._limit:
            raise Overloaded(queued=self._in_flight.count - 1, asked=1, limit=self._limit, what="requests")

    def end(
        self,
        *,
        method: str,
        handler: str,
        status: int | None,
        started: float,
        identity: str,
        body: bytes = b"",
        ready: float | None = None,
        is_whole: bool = True,
    ) -> None:
        """A request was answered; `status` is None if its client had gone.

        It came at `started` and its answer was there at `ready`, by default now, both of `time.perf_counter`. One that
        did not come whole says nothing about the server's latency.
        """
        seconds = (time.perf_counter() if ready is None else ready) - started
        self._in_flight.end()
        self._metrics.observe_request(
            method=method,
            handler=handler,
            status=CLIENT_CLOSED_REQUEST if status is None else status,
            seconds=seconds if is_whole else None,
            prices=handler in PRICING_HANDLERS,
        )
        if seconds >= self._slow_seconds:
            self._log_slow(handler, status, seconds, identity, body)

    def count_error(self, error: ServerError) -> None:
        """Count a prediction that gave no answer."""
        self._metrics.prediction_errors.labels(error.reason).inc()

    def explain(self, error: Exception, path: str) -> tuple[int, str, str]:
        """Status, message and reason for the client; what it need not know goes to the log."""
        if isinstance(error, ServerError):
            if error.reason == Overloaded.__name__:
                self._metrics.overloads.inc()
            if error.status >= web.HTTPInternalServerError.status_code:
                extra = {"status": error.status, "reason": error.reason, "error": str(error)}
                log.warning("request failed", extra=extra)
            return error.status, str(error), error.reason
        log.error("unhandled error", extra={"status": 500, "path": path}, exc_info=error)
        message = "the server failed to answer this request; its log has the details under the request id"
        return 500, message, "InternalError"

    def name_answer(self, request: web.Request, response: web.StreamResponse) -> None:
        """The headers that every answer has. A handler that sends its answer itself calls this before."""
        self._name(response, request[_IDENTITY])
        # While draining the client must not send its next request on this connection: it will be gone; a new one is
        # routed to a pod that stays, or still answered here. After a body that was not read to its end the connection
        # cannot go on either, and the client had better be told.
        content = request.content
        if self._engine.draining or not content.is_eof() or content.exception() is not None:
            response.force_close()

    def answer_bad_http(self, request: web.BaseRequest, message: str) -> web.Response:
        """The answer to something that is no HTTP request, counted like any other."""
        return self._refuse(request, 400, f"this cannot be read as an HTTP request: {message}", reason="BadHttp")

    def answer_expectation(self, request: web.BaseRequest) -> web.Response:
        """The answer to an `Expect` that is not 100-continue; routers answer it before any middleware sees it."""
        shown = request.headers[hdrs.EXPECT][:_TOLD_CHARACTERS]
        return self._refuse(request, 417, f"Expect is {shown!r}: must be 100-continue", reason="ExpectationFailed")

    def answer_too_large(self, request: web.BaseRequest, *, limit: int) -> web.Response:
        """The answer to a client that asks whether it may send a body which is larger than any may be."""
        error = BodyTooLarge(limit=limit)
        return self._refuse(request, error.status, str(error), reason=error.reason)

    def _refuse(self, request: web.BaseRequest, status: int, message: str, *, reason: str) -> web.Response:
        """An answer from below the middlewares; its connection ends, because the body has not been read."""
        started = time.perf_counter()
        identity = self.identify(request.headers.get(REQUEST_ID_HEADER))
        self.begin()
        response = error_response(status, message, reason=reason, request_id=identity)
        self._name(response, identity)
        response.force_close()
        self.end(method=request.method, handler=UNMATCHED, status=status, started=started, identity=identity)
        return response

    def answer_ready(self, request: web.Request) -> None:
        """A handler that sends its answer itself is about to: how fast its client takes it is the client's matter."""
        request[_READY] = time.perf_counter()

    def client_gone(self, request: web.Request) -> None:
        """A handler that sends its answer itself found nobody there to take it."""
        request[_GONE] = True

    def _name(self, response: web.StreamResponse, identity: str) -> None:
        headers = response.headers
        headers[REQUEST_ID_HEADER] = identity
        if self.revision:
            headers[REVISION_HEADER] = self.revision
        headers[hdrs.SERVER] = SERVER_NAME

    def _log_slow(self, handler: str, status: int | None, seconds: float, identity: str, body: bytes) -> None:
        shown = body[:_LOGGED_BYTES].decode("utf-8", "replace")
        token = request_id.set(identity)
        try:
            extra = {"handler": handler, "status": status, "seconds": round(seconds, 4)}
            log.warning("slow request", extra={**extra, "body": shown, "body_bytes": len(body)})
        finally:
            request_id.reset(token)


def observing_middleware(observer: Observer) -> Middleware:
    """Tells the observer, names request and revision, answers exceptions in JSON, closes connections while draining."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        identity = request[_IDENTITY] = observer.identify(request.headers.get(REQUEST_ID_HEADER))
        token = request_id.set(identity)
        status: int | None = None
        observer.begin()
        came = [started]
        content = request.content
        if not (is_whole := content.is_eof()):
            content.on_eof(lambda: came.append(time.perf_counter()))
        resource = request.match_info.route.resource
        name = resource.canonical if resource is not None else UNMATCHED
        try:
            response = await _answer(request, handler, observer, name, identity)
        except web.HTTPException as redirect:
            status = redirect.status
            raise
        else:
            if not response.prepared:
                observer.name_answer(request, response)
            if not request.get(_GONE, False):
                status = response.status
            return response
        finally:
            observer.end(
                method=request.method,
                handler=name,
                status=status,
                started=came[-1],
                identity=identity,
                body=request.get(BODY, b""),
                ready=request.get(_READY),
                is_whole=is_whole or len(came) > 1,
            )
            request_id.reset(token)

    return observe


def error_response(
    status: int,
    message: str,
    *,
    reason: str,
    request_id: str,
    details: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """The JSON answer to a request that failed."""
    body = render_error(message, reason=reason, request_id=request_id, details=details)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def _answer(
    request: web.Request, handler: Handler, observer: Observer, name: str, identity: str
) -> web.StreamResponse:
    try:
        if name in PRICING_HANDLERS:
            observer.refuse_beyond_limit()
        return await handler(request)
    except web.HTTPRequestEntityTooLarge as error:
        return error_response(413, error.text or "the body is too large", reason="BodyTooLarge", request_id=identity)
    except web.HTTPException as error:
        if error.status < web.HTTPBadRequest.status_code:
            raise
        headers = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else None
        message = f"{request.method} {request.path}: {error.reason}"
        reason = type(error).__name__.removeprefix("HTTP")
        return error_response(error.status, message, reason=reason, request_id=identity, headers=headers)
    except Exception as error:  # noqa: BLE001 - explained to the client or to the log
        if isinstance(error, NonFiniteResult):
            observer.count_error(error)
        status, message, reason = observer.explain(error, request.path)
        details = error.details() if isinstance(error, ServerError) else None
        headers = dict(error.headers) if isinstance(error, ServerError) else None
        let_go(error)
        return error_response(status, message, reason=reason, request_id=identity, details=details, headers=headers)
