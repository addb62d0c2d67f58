"""Reading the body of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from pinn_inference.server.errors import BodyTimeout, BodyTooLarge, Fault, InvalidRequest

BODY_SECONDS: Final = 60.0
"""A body that has not arrived by then never will: its client is gone, or sends a byte now and then on purpose."""


async def read_body(request: web.Request) -> bytes:
    """The whole body.

    Raises InvalidRequest if it cannot be decoded as its headers say, BodyTimeout if it does not end, and
    HTTPRequestEntityTooLarge.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise BodyTimeout(seconds=BODY_SECONDS) from None
    except web.RequestPayloadError as error:
        # The client's fault: as a 5xx it would count against the revision and could roll a good one back.
        raise _undecodable(error) from error


class BodyReader:
    """A body as it arrives, piece by piece, with the same errors as `read_body`, and BodyTooLarge."""

    def __init__(self, request: web.Request, *, limit: int) -> None:
        self._content = request.content
        self._limit = limit
        self._size = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def start(self, size: int) -> tuple[bytes, bool]:
        """The beginning of the body, and whether that is all of it, in at most `size` bytes."""
        pieces: list[bytes] = []
        while self._size <= size:
            piece = await self._next()
            if piece:
                pieces.append(piece)
            if not piece or (self._content.at_eof() and self._size <= size):
                return b"".join(pieces), True
        return b"".join(pieces), False

    async def rest(self, start: bytes) -> AsyncIterator[bytes]:
        """`start`, and what follows it."""
        yield start
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._deadline):
                piece = await self._content.readany()
        except TimeoutError:
            raise BodyTimeout(seconds=BODY_SECONDS) from None
        except web.RequestPayloadError as error:
            raise _undecodable(error) from error
        self._size += len(piece)
        if self._size > self._limit:
            raise BodyTooLarge(limit=self._limit)
        return piece


def _undecodable(error: web.RequestPayloadError) -> InvalidRequest:
    # aiohttp's own text begins with the status, on a line of its own.
    told = str(error).rpartition("\n")[2].strip()
    return InvalidRequest([Fault("body", f"is not what its headers say: {told}", has_value=False)])
