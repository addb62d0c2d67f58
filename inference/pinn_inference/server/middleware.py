"""The outermost middleware: every request is counted once, with its status and its whole time, however it ends.

Whatever another middleware or a handler does inside, answer, sleep, raise, is seen here. So a revision's failures are
in its own counters even when they come from code this package knows nothing of.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from contextlib import suppress
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.errors import ServerError, error_response
from pinn_inference.server.logs import request_id
from pinn_inference.server.metrics import CLIENT_CLOSED_REQUEST, ServerMetrics

log = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
REVISION_HEADER: Final = "X-PINN-Revision"
"""Which revision answered, so that a client can count the shares of a rollout itself; absent without PINN_REVISION."""
PRICING_HANDLERS: Final = frozenset(("/v1/price",))
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")


class RequestsInFlight:
    """How many requests are being served, from head to answer, so that the end of the process can wait for them."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        self._count += 1
        self._idle.clear()

    def end(self) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    async def finished(self, *, within: float) -> int:
        """Waits until no request is in flight, `within` seconds at most; returns how many still are."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within)
        return self._count


def observing_middleware(
    metrics: ServerMetrics, engine: PricingEngine, in_flight: RequestsInFlight, *, revision: str = ""
) -> Middleware:
    """Counts, times, names request and revision, answers exceptions in JSON, closes connections while draining."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        given = request.headers.get(REQUEST_ID_HEADER, "")
        identity = given if _ACCEPTABLE_ID.fullmatch(given) else os.urandom(16).hex()
        token = request_id.set(identity)
        status = CLIENT_CLOSED_REQUEST
        in_flight.begin()
        try:
            response = await _answer(request, handler, identity)
        except web.HTTPException as redirect:
            status = redirect.status
            raise
        else:
            status = response.status
            if not response.prepared:
                response.headers[REQUEST_ID_HEADER] = identity
                if revision:
                    response.headers[REVISION_HEADER] = revision
                response.headers[hdrs.SERVER] = "pinn-inference"
                if engine.draining:
                    # The client must not send its next request on this connection: it will be gone. A new connection
                    # is routed to a pod that stays, or still answered here.
                    response.force_close()
            return response
        finally:
            in_flight.end()
            resource = request.match_info.route.resource
            name = resource.canonical if resource is not None else "unmatched"
            metrics.observe_request(
                method=request.method,
                handler=name,
                status=status,
                seconds=time.perf_counter() - started,
                prices=name in PRICING_HANDLERS,
            )
            request_id.reset(token)

    return observe


async def _answer(request: web.Request, handler: Handler, identity: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except ServerError as error:
        if error.status >= web.HTTPInternalServerError.status_code:
            log.warning("request refused", extra={"status": error.status, "reason": error.reason, "error": str(error)})
        return error_response(
            error.status,
            str(error),
            reason=error.reason,
            request_id=identity,
            details=error.details(),
            headers=error.headers,
        )
    except web.HTTPRequestEntityTooLarge as error:
        return error_response(413, error.text or "the body is too large", reason="BodyTooLarge", request_id=identity)
    except web.HTTPException as error:
        if error.status < web.HTTPBadRequest.status_code:
            raise
        headers = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else None
        message = f"{request.method} {request.path}: {error.reason}"
        reason = type(error).__name__.removeprefix("HTTP")
        return error_response(error.status, message, reason=reason, request_id=identity, headers=headers)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("unhandled error", extra={"status": 500, "path": request.path})
        message = "the server failed to answer this request; its log has the details under the request id"
        return error_response(500, message, reason="InternalError", request_id=identity)
