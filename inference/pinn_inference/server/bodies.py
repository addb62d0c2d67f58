"""Reading the body of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from pinn_inference.server.errors import BodyTimeout, BodyTooLarge, Fault, InvalidRequest
from pinn_inference.server.inflate import coding_of, inflate_small

BODY_SECONDS: Final = 60.0
"""A body that has not arrived by then never will: its client is gone, or sends a byte now and then on purpose."""
STALL_SECONDS: Final = 10.0
"""Nor will one of which nothing has come for so long."""
AS_SENT: Final[Mapping[str, Any]] = {"auto_decompress": False}
"""A server of aiohttp with these settings hands bodies over as they were sent, which `BodyReader` relies on: aiohttp
itself would inflate all that a packet holds, tens of megabytes, at once and on the event loop."""


class BodyReader:
    """A body as it arrives, piece by piece, compressed or not as its `coding` says.

    Raises at once UnknownCoding, and BodyTooLarge for a `Content-Length` beyond `limit` bytes. Reading raises
    BodyTimeout if it does not end, BodyTooLarge beyond `limit` bytes, and InvalidRequest if it cannot be read as its
    headers say: a 5xx would count against the revision, and could roll a good one back.
    """

    def __init__(self, request: web.Request, *, limit: int) -> None:
        if is_too_large(request, limit=limit):
            raise BodyTooLarge(limit=limit)
        self.coding = coding_of(", ".join(request.headers.getall(hdrs.CONTENT_ENCODING, [])))
        self._content = request.content
        self._limit = limit
        self._size = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def start(self, size: int) -> tuple[bytes, bool]:
        """The whole body, inflated, and True, if that has at most `size` bytes; else its beginning as it was sent."""
        pieces: list[bytes] = []
        while self._size <= size:
            piece = await self._next()
            if piece:
                pieces.append(piece)
            if not piece or (self._content.at_eof() and self._size <= size):
                sent = b"".join(pieces)
                inflated = inflate_small(sent, self.coding, size=size)
                return (sent, False) if inflated is None else (bytes(inflated), True)
        return b"".join(pieces), False

    async def rest(self, start: bytes) -> AsyncIterator[bytes]:
        """`start`, and what follows it, as it was sent."""
        yield start
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(min(self._deadline, now + STALL_SECONDS)):
                piece = await self._content.readany()
        except TimeoutError:
            stalled = self._deadline > asyncio.get_running_loop().time()
            seconds = STALL_SECONDS if stalled else BODY_SECONDS
            told = (
                f"nothing of the body came for {seconds:g} s" if stalled else f"the body took more than {seconds:g} s"
            )
            raise BodyTimeout(f"{told}: send it at once, or in smaller requests") from None
        except web.RequestPayloadError as error:
            # aiohttp's own text begins with the status, on a line of its own.
            told = str(error).rpartition("\n")[2].strip()
            fault = Fault("body", f"is not what its headers say: {told}", has_value=False)
            raise InvalidRequest([fault]) from error
        self._size += len(piece)
        if self._size > self._limit:
            raise BodyTooLarge(limit=self._limit)
        return piece


def is_too_large(request: web.BaseRequest, *, limit: int) -> bool:
    """Whether a request says itself that its body has more bytes than it may: nothing of it need be sent."""
    return (request.content_length or 0) > limit
