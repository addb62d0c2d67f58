"""Bodies that come compressed, inflated with bounds: piece by piece, never far beyond what will be refused.

A few kilobytes can hold a thousand times as much, so it is never the event loop that inflates a large body: see
`bodies` for what it does itself, and `batch.jobs` for the rest. zlib lets go of the interpreter's lock while it works.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, TypeAlias

from pinn_inference.server.errors import BodyTooLarge, Fault, InflatesTooMuch, InvalidRequest, UnknownCoding

Body: TypeAlias = bytes | bytearray | memoryview
RATIO: Final = 100
"""JSON of options that all differ shrinks to a third or a tenth. What shrinks to less is nearly all repetition."""
FREE_BYTES: Final = 1024 * 1024
"""So much any body may inflate to, however small it is."""
_PIECE_BYTES: Final = 256 * 1024
_INPUT_BYTES: Final = 64 * 1024
_MEMBERS: Final = 1024
"""Gzip files in a row that count as one: those who compress in parallel send some hundreds."""
_GZIP, _ZLIB, _RAW = 31, 15, -15  # `wbits` of zlib


class Coding(StrEnum):
    """How a body is compressed."""

    NONE = ""
    GZIP = "gzip"
    DEFLATE = "deflate"
    """In the form of zlib, as the standard has it, or without that, as some clients have it."""


_NAMES: Final = {"": Coding.NONE, "identity": Coding.NONE, "gzip": Coding.GZIP, "x-gzip": Coding.GZIP} | {
    "deflate": Coding.DEFLATE
}


def coding_of(header: str) -> Coding:
    """The coding that a `Content-Encoding` names; raises UnknownCoding."""
    coding = _NAMES.get(header.strip().lower())
    if coding is None:
        raise UnknownCoding(header)
    return coding


def inflate(body: Body, coding: Coding, *, limit: int) -> Body:
    """The body as it was before it was compressed.

    Raises InvalidRequest if it is not what it says, BodyTooLarge beyond `limit` bytes, and InflatesTooMuch beyond
    `FREE_BYTES` and `RATIO` times its size; in each case no more than a piece beyond that has been inflated.
    """
    if coding is Coding.NONE:
        return body
    allowed = min(limit, FREE_BYTES + RATIO * len(body))
    inflated = bytearray()
    for piece in _pieces(body, coding, _PIECE_BYTES):
        inflated += piece
        if len(inflated) > allowed:
            raise BodyTooLarge(limit=limit) if allowed == limit else InflatesTooMuch(ratio=RATIO)
    return inflated


def inflate_small(body: Body, coding: Coding, *, size: int) -> Body | None:
    """The same if that is no more than `size` bytes, and takes no more than some 50 µs; None if it is more."""
    if coding is Coding.NONE:
        return body
    pieces: list[bytes] = []
    for piece in _pieces(body, coding, size + 1):
        pieces.append(piece)
        if sum(map(len, pieces)) > size or len(pieces) > 4:
            return None
    return b"".join(pieces)


def _pieces(body: Body, coding: Coding, piece_bytes: int) -> Iterator[bytes]:
    """What the body inflates to, in pieces of at most `piece_bytes`; raises InvalidRequest where it goes wrong."""
    engine: Any = None
    members = 0
    try:
        for start in range(0, len(body), _INPUT_BYTES):
            rest = bytes(body[start : start + _INPUT_BYTES])
            while rest:
                if engine is None or engine.eof:
                    members += 1
                    if members > (_MEMBERS if coding is Coding.GZIP else 1):
                        raise _fault(coding, "it goes on after its end")
                    engine = zlib.decompressobj(_window(coding, rest[0]))
                yield engine.decompress(rest, piece_bytes)
                rest = engine.unused_data if engine.eof else engine.unconsumed_tail
        while engine is not None and not engine.eof and (piece := engine.decompress(b"", piece_bytes)):
            yield piece
    except zlib.error as error:
        raise _fault(coding, str(error).rpartition(": ")[2]) from None
    if engine is None or not engine.eof:
        raise _fault(coding, "it ends too early")


def _window(coding: Coding, first: int) -> int:
    if coding is Coding.GZIP:
        return _GZIP
    return _ZLIB if first & 0x0F == zlib.DEFLATED else _RAW


def _fault(coding: Coding, told: str) -> InvalidRequest:
    return InvalidRequest([Fault("body", f"is not what its headers say, {coding.value}: {told}", has_value=False)])
