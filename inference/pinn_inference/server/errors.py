"""What can go wrong with a request, and the one table from it to an HTTP answer.

ServerError
├── InvalidRequest        400  the body is wrong; carries every fault found
├── BadQuery              400  the query of the URL is wrong
├── TokenRequired         401  a page that changes something, for those who have its token
├── BodyTimeout           408  the body did not arrive
├── BodyTooLarge          413  more bytes than one request may have
├── InflatesTooMuch       413  a compressed body that is nearly all repetition
├── UnknownCoding         415  a body that is compressed in another way than gzip and deflate
├── BatchTooLarge         413  more options than one request may hold
├── Overloaded            429  too much waits here already
├── TooOften              429  a page that changes something was asked for a moment ago
├── EngineFailed          500  an engine failed, and there is too much to do without it
└── NonFiniteResult       500  a price or Greek came out as NaN or infinity, even by the closed form

Every error body is `{"error": sentence, "reason": CamelCase, "request_id": …}`, plus `faults` if the request is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

MAX_FAULTS = 100
"""Faults listed in one answer; `fault_count` says how many there were."""
CONTROL_PAUSE = 10
"""Seconds between two uses of a page that changes something and that anybody may use."""
_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a request: where, what was found (`value`, already safe for JSON), what would be right."""

    field: str
    message: str
    index: int | None = None
    value: Any = None
    has_value: bool = True

    def __str__(self) -> str:
        where = (
            self.field if self.index is None else f"options[{self.index}]" + (f".{self.field}" if self.field else "")
        )
        found = f" is {orjson.dumps(self.value).decode()}" if self.has_value else ""
        return f"{where}{found}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"field": self.field, "message": self.message}
        if self.index is not None:
            document["index"] = self.index
        if self.has_value:
            document["value"] = self.value
        return document


class ServerError(Exception):
    """A request that cannot be answered as wished."""

    status: ClassVar[int] = 500
    headers: ClassVar[Mapping[str, str]] = {}

    @property
    def reason(self) -> str:
        return type(self).__name__

    def details(self) -> dict[str, Any]:
        return {}


class InvalidRequest(ServerError):
    """The request is wrong; `faults` lists what is, in order of the options.

    `count` is how many faults there are, if not all are listed.
    """

    status = 400

    def __init__(self, faults: Sequence[Fault], *, count: int | None = None) -> None:
        self.count = len(faults) if count is None else count
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        super().__init__(f"{faults[0]}{more}")
        self.faults = tuple(faults)

    def details(self) -> dict[str, Any]:
        return {"fault_count": self.count, "faults": [fault.as_json() for fault in self.faults[:MAX_FAULTS]]}


class BadQuery(ServerError):
    """The query of the URL is wrong."""

    status = 400


class TokenRequired(ServerError):
    """A page that changes something, asked for without its token."""

    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("this page changes something: send Authorization: Bearer with the PINN_CONTROL_TOKEN")


class TooOften(ServerError):
    """A page that changes something, asked for again too soon."""

    status = 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": f"{CONTROL_PAUSE}"}

    def __init__(self) -> None:
        super().__init__("this page was asked for a moment ago, and changes something: it is served now and then only")


class BodyTimeout(ServerError):
    """The head of a request came, its body did not, or too slowly."""

    status = 408


class BodyTooLarge(ServerError):
    """More bytes than one request may have."""

    status = 413

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"the body has more than {limit} bytes: send several requests")


class InflatesTooMuch(ServerError):
    """A small body that becomes a large one."""

    status = 413

    def __init__(self, *, ratio: int) -> None:
        super().__init__(f"the body inflates to more than {ratio} times its size: send it without Content-Encoding")


class UnknownCoding(ServerError):
    """A body that is compressed in a way that the server does not know."""

    status = 415
    headers: ClassVar[Mapping[str, str]] = {"Accept-Encoding": "gzip, deflate"}

    def __init__(self, coding: str) -> None:
        shown = coding if len(coding) <= _SHOWN_CHARACTERS else coding[:_SHOWN_CHARACTERS] + "…"
        super().__init__(f"Content-Encoding is {shown!r}: must be gzip, deflate or absent")


class BatchTooLarge(ServerError):
    """More options than one request may hold."""

    status = 413

    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(f"options holds {size} options: at most {limit} fit in one request, send several")


class Overloaded(ServerError):
    """Too many requests in flight, or too many options waiting.

    A 429 and not a 503, because of who reads it. A client hears the same from both: later, after `Retry-After`. A proxy
    repeats a 503 on its own, which is the last thing an overloaded server needs. And a rollout's gates count 5xx as
    faults of the revision: a burst from one client would roll a good revision back. A revision that is overloaded
    because it is slow is found by its latency, which every answered request adds to.
    """

    status = 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}

    def __init__(self, *, queued: int, asked: int, limit: int, what: str = "options") -> None:
        super().__init__(
            f"{queued} {what} wait or are being priced: {asked} more would exceed the limit of {limit}, try later"
        )


class NonFiniteResult(ServerError):
    """A result that JSON cannot carry and nobody should trade on."""

    def __init__(self, index: int) -> None:
        super().__init__(f"options[{index}]: the result is not a finite number")


def let_go(error: BaseException) -> None:
    """Drop an error's traceback, and the errors that it came from.

    Their frames hold the request and all that was made of it, in circles that only the collector finds, and it looks
    seldom: megabytes for each request that was refused.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def render_error(message: str, *, reason: str, request_id: str, details: Mapping[str, Any] | None = None) -> bytes:
    """The body of every answer to a request that failed."""
    return orjson.dumps({"error": message, "reason": reason, "request_id": request_id, **(details or {})})
