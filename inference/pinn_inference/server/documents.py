"""JSON documents of strangers, read for the sake of a good answer: what is wrong with them can be named.

The quick readers of requests say only yes or no, and what they refuse is read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from pinn_inference.server.errors import Fault, InvalidRequest

Body: TypeAlias = bytes | bytearray | memoryview
Step: TypeAlias = str | int
_NAMED: Final = 1000
"""Keys too many that are looked for: the pairs of an object take ten times the memory of its text."""
_ESCAPED_COLON: Final = b"\\u003"

_FEW_COMMAS: Final = 100


def is_light(body: Body) -> bool:
    """Whether a body can be read as a document in a millisecond or two, whatever is wrong with it."""
    return bytes(body).count(b",") <= _FEW_COMMAS


@dataclass(frozen=True, slots=True)
class Repeated:
    """A key that an object has more than once: no reader knows which of its values was meant."""

    path: tuple[Step, ...]
    """To the object, from the document."""
    key: str
    """Empty: there are so many that none is named."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a body holds."""

    content: Any
    complaint: str | None
    """What a strict reader says against it. The standard library accepts NaN and Infinity, so that the answer can name
    the field that holds them; a document that only it accepts is never answered with prices."""
    repeated: tuple[Repeated, ...]


class _Object(dict[str, Any]):
    """An object that knows which of its keys it was given more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen = set[str]()
        again = dict[str, None]()
        for key, _ in pairs:
            if key in seen:
                again[key] = None
            seen.add(key)
        self.repeated = tuple(again)


def read_document(body: Body) -> Document:
    """Read a body.

    Raises InvalidRequest for what is no JSON at all. Keys that stand more than once are left to the caller, who knows
    how to name the place.
    """
    text, complaint = bytes(body), None
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as strict:
        complaint = str(strict)
        try:
            content = json.loads(str(text, "utf-8"))
        except (ValueError, RecursionError):
            raise InvalidRequest([not_json(complaint)]) from None
    more = text.count(b":") - _colons(content)
    if more > _NAMED:
        return Document(content, complaint, (Repeated((), ""),))
    if not more and _ESCAPED_COLON not in text:
        return Document(content, complaint, ())
    try:
        content = json.loads(str(text, "utf-8"), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest([not_json(str(error))]) from None
    return Document(content, complaint, tuple(_repeated(content)))


def not_json(complaint: str) -> Fault:
    """The fault of a body of which a strict reader says this."""
    return Fault("body", f"is not valid JSON: {complaint}", has_value=False)


def _colons(content: Any) -> int:
    """How many colons its text has if no key stands twice: one for each key, and those in its texts.

    Lists of numbers are long, and are not searched: of an object behind a number the colons are missing here. The
    document is then read once more.
    """
    count, left = 0, [content]
    while left:
        one = left.pop()
        if type(one) is dict:
            count += len(one)
            left += [*one, *one.values()]
        elif type(one) is list:
            if one and type(one[0]) in (dict, list):
                left += one
        elif type(one) is str:
            count += one.count(":")
    return count


def _repeated(content: Any) -> Iterator[Repeated]:
    """In the order of the document."""
    left: list[tuple[tuple[Step, ...], Any]] = [((), content)]
    while left:
        path, one = left.pop()
        if isinstance(one, _Object):
            yield from (Repeated(path, key) for key in one.repeated)
            inner: list[tuple[Step, Any]] = list(one.items())
        else:
            inner = list(enumerate(one)) if isinstance(one, list) else []
        left += [((*path, step), value) for step, value in reversed(inner) if isinstance(value, _Object | list)]
