"""The short way of a single quote through aiohttp.

aiohttp makes a request object, a task, a response object and a walk through router and middlewares of every request;
that is several times the work of pricing one option. Here a protocol of ours looks at each parsed request first: a
valid `POST /v1/price` of one option that has come in whole is handed to the desk and its answer is written to the
connection, while aiohttp's own handler sleeps on. Everything else, and anything the least bit unusual about such a
request, goes the ordinary way; so does every request to an application with middlewares of its own, or to one that is
draining. HTTP is parsed by aiohttp in any case. What clients, metrics and logs see is the same on both ways.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any, Final

from aiohttp import HttpVersion11, StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage

from pinn_inference.pricing.cache import OptionKey
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.errors import NonFiniteResult, ServerError, render_error
from pinn_inference.server.logs import request_id
from pinn_inference.server.middleware import REQUEST_ID_HEADER, REVISION_HEADER, SERVER_NAME, Observer
from pinn_inference.server.parsing import read_option
from pinn_inference.server.rendering import render_quote
from pinn_inference.server.service import PricingService
from pinn_inference.server.timing import SERVER_TIMING, server_timing

log = logging.getLogger(__name__)

PATH: Final = "/v1/price"
MAX_BYTES: Final = 1024
"""One option takes some 200 bytes; those who indent theirs by a screen's width are served on the ordinary way."""

HEAD_SECONDS: Final = 5.0
"""The head of a request that has begun has to be there by then: its client sends a byte now and then on purpose."""
_TOLD_CHARACTERS: Final = 200


class Lane:
    """What the connections of one application share."""

    def __init__(self, *, service: PricingService, engine: PricingEngine, observer: Observer, is_open: bool) -> None:
        self.service = service
        self.desk = service.desk
        self.engine = engine
        self.observer = observer
        self.taken = 0
        """Quotes that came this way."""
        self._is_open = is_open
        self._fixed = f"Content-Type: application/json\r\nServer: {SERVER_NAME}\r\n"
        if observer.revision:
            self._fixed += f"{REVISION_HEADER}: {observer.revision}\r\n"
        self._second = -1
        self._heads: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether requests may come this way now."""
        return self._is_open and not self.engine.draining and self.observer.has_room

    def head(self, status: str) -> str:
        """The head of an answer but for what differs from request to request."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._heads = {}
        head = self._heads.get(status)
        if head is None:
            date = formatdate(second, usegmt=True)
            head = self._heads[status] = f"HTTP/1.1 {status}\r\n{self._fixed}Date: {date}\r\nContent-Length: "
        return head


class LaneTicket:
    """One quote that was asked for on the lane; a `desk.Ticket`. American ones come with their quote."""

    __slots__ = ("_body", "_identity", "_lane", "_made", "_parse_seconds", "_protocol", "_started", "options")

    def __init__(
        self,
        lane: Lane,
        protocol: LaneProtocol,
        option: OptionKey,
        body: bytes,
        identity: str,
        started: float,
        made: tuple[Sequence[ScalarQuote], float] | None = None,
    ) -> None:
        self._lane = lane
        self._protocol = protocol
        self.options = (option,) if made is None else ()
        self._body = body
        self._identity = identity
        self._started = started
        self._parse_seconds = time.perf_counter() - started
        self._made = made
        if made is not None:
            self._parse_seconds -= made[1]

    def deliver(self, quotes: Sequence[ScalarQuote], seconds: float) -> None:
        rendering = time.perf_counter()
        engine = self._lane.engine
        try:
            if self._made is None:
                content = render_quote(quotes[0], model=engine.label())
            else:
                quotes, seconds = self._made
                content = render_quote(quotes[0], model=engine.label(american=True))
        except NonFiniteResult as error:
            self._lane.observer.count_error(error)
            self.fail(error)
            return
        spent = time.perf_counter() - rendering
        timing = server_timing(parse=self._parse_seconds, price=seconds, render=spent)
        self._answer(200, "200 OK", content, f"{SERVER_TIMING}: {timing}\r\n")

    def fail(self, error: Exception) -> None:
        token = request_id.set(self._identity)
        try:
            status, message, reason = self._lane.observer.explain(error, PATH)
        finally:
            request_id.reset(token)
        details = error.details() if isinstance(error, ServerError) else None
        content = render_error(message, reason=reason, request_id=self._identity, details=details)
        self._answer(status, f"{status} Internal Server Error", content, "")

    def _answer(self, status: int, words: str, content: bytes, more: str) -> None:
        head = f"{self._lane.head(words)}{len(content)}\r\n{REQUEST_ID_HEADER}: {self._identity}\r\n{more}\r\n"
        gone = not self._protocol.send(head.encode("latin-1") + content)
        self._lane.observer.end(
            method=hdrs.METH_POST,
            handler=PATH,
            status=None if gone else status,
            started=self._started,
            identity=self._identity,
            body=self._body,
        )


class LaneProtocol(web.RequestHandler):
    """aiohttp's protocol with the lane before it.

    NB: it uses attributes of its base class that have no public name; aiohttp is pinned, and the tests take both ways.
    The base class puts what it has parsed into `_messages` and wakes its handler up through `_waiter`. Answers leave in
    the order of the requests: the desk answers what it has before anything is done that was woken up later.
    """

    __slots__ = ("_head_timer", "_lane", "_taking")

    def __init__(self, lane: Lane, manager: web.Server, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._lane = lane
        self._taking = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_has_come()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        waiter, lane = self._waiter, self._lane
        if waiter is None or waiter.done() or self._messages or not lane.is_open:
            self._receive_ordinarily(data)
            return
        self._waiter = None  # let the handler sleep until it is clear that it is needed
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages:
            self._await_head(data)
            return
        if self._head_timer is not None:
            self._head_has_come()
        if len(self._messages) == 1 and self._take(lane):
            return
        if not waiter.done():
            waiter.set_result(None)

    def _receive_ordinarily(self, data: bytes) -> None:
        request, count = self._current_request, len(self._messages)
        last = self._messages[-1][1] if count else None if request is None else request.content
        was_whole = last is not None and last.is_eof()
        super().data_received(data)
        if len(self._messages) > count:
            self._head_has_come()
        elif was_whole:
            self._await_head(data)

    def _await_head(self, data: bytes) -> None:
        """What has come is a part of a head; lines without anything may stand before one, and begin none."""
        if self._head_timer is None and self.transport is not None and data.strip(b"\r\n"):
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_has_come(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if self._waiter is None or self._messages:  # answers come first
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self._give_up)
            return
        self._head_timer = None
        log.debug("the head of a request did not come", extra={"seconds": HEAD_SECONDS})
        self.force_close()

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """A body that could not be read was answered already; its client must not fill the log with tracebacks."""
        if isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            log.debug("the rest of a body could not be read", extra={"error": str(kwargs["exc_info"])})
        else:
            super().log_exception(*args, **kwargs)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Spares the base class what it does for every body where a request is alone: nothing of it can be left over.

        Behind other requests the parser may have stopped for them, and this is what makes it go on.
        """
        if self._reading_paused or not self._taking:
            super().resume_reading(resume_parser)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is answered and counted as every other error is, and logged without a traceback."""
        if status != web.HTTPBadRequest.status_code or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        told = (message or str(exc)).partition("\n")[0][:_TOLD_CHARACTERS]
        log.info("bad HTTP", extra={"client": request.remote, "error": told})
        return self._lane.observer.answer_bad_http(request, told)

    def send(self, answer: bytes) -> bool:
        """Writes an answer of the lane; False if the client has gone."""
        if self.transport is None:
            return False
        self.transport.write(answer)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _take(self, lane: Lane) -> bool:
        """Hands the one request that has come to the desk if it is of the kind that the lane is for."""
        message, payload = self._messages[0]
        if (
            not isinstance(message, RawRequestMessage)
            or not isinstance(payload, StreamReader)
            or message.path != PATH
            or message.method != hdrs.METH_POST
            or not payload.is_eof()
            or payload.total_bytes > MAX_BYTES
            or message.should_close
            or message.upgrade
            or message.chunked
            or hdrs.CONTENT_ENCODING in message.headers
            or message.version != HttpVersion11
            or hdrs.EXPECT in message.headers
            or payload.exception() is not None
            or self._paused
            or self._upgraded
        ):
            return False
        started = time.perf_counter()
        self._taking = True
        body = payload.read_nowait()
        self._taking = False
        option = read_option(body)
        made = lane.service.quote_quickly((option,)) if option is not None and option[7] else None
        if option is None or (option[7] and made is None):
            # A list, or something wrong that the ordinary way explains, or an American option that takes longer.
            again = StreamReader(self, self._read_bufsize, loop=self._loop)
            again.feed_data(body)
            again.feed_eof()
            self._messages[0] = (message, again)
            return False
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._manager is not None:
            self._manager.requests_count += 1
        lane.taken += 1
        observer = lane.observer
        observer.begin()
        identity = observer.identify(message.headers.get(REQUEST_ID_HEADER))
        lane.desk.submit(LaneTicket(lane, self, option, body, identity, started, made))
        return True


class LaneServer(web.Server):
    """Makes a `LaneProtocol` for each connection."""

    def __init__(self, lane: Lane, handler: Any, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self.lane = lane

    def __call__(self) -> web.RequestHandler:
        return LaneProtocol(self.lane, self, loop=self._loop, **self._kwargs)
