"""A few families out of a page of metrics (Prometheus' text format 0.0.4, OpenMetrics 1.0), as fast as Python allows.

The client library's parser takes milliseconds for a page and reads all of it. Here a line is looked at only if it
belongs to an asked family, and its labels are parsed only when the series is new: afterwards its text up to the value
is the key of a dictionary. Nothing in a page can make it slow or large: the time is linear in its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

LINE_LIMIT: Final = 2048
"""Bytes of a line; a longer one is no figure that anybody asked for."""
LABELS_LIMIT: Final = 32
_SAMPLE: Final = re.compile(rb"([A-Za-z_:][A-Za-z0-9_:]*)[ \t]*(\{)?")
_LABEL: Final = re.compile(rb'[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(,?)')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", '"': '"', "\\": "\\"}
_AFTER_NAME: Final = frozenset(b"{ \t")


def lines_of(page: bytes, families: Sequence[bytes]) -> Iterator[bytes]:
    """The lines of `page` whose sample has one of these names, without their ends."""
    text = b"\n" + page
    for family in families:
        mark, length = b"\n" + family, len(family) + 1
        place = text.find(mark)
        while place >= 0:
            end = text.find(b"\n", place + length)
            if end < 0:
                end = len(text)
            after = place + length
            if after < end and text[after] in _AFTER_NAME and end - place <= LINE_LIMIT:
                yield text[place + 1 : end].rstrip(b"\r")
            # The lines of a family follow each other, so the next find is short.
            place = text.find(mark, end)


def name_of(line: bytes) -> bytes:
    """The name at the beginning of a line, or the `#` of a comment; empty if it is neither."""
    if line.startswith(b"#"):
        return b"#"
    head = _SAMPLE.match(line)
    return head[1] if head is not None else b""


def number_of(text: bytes) -> float | None:
    """A finite number; None for anything else: NaN and infinity count nothing."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a page. `key` is its text up to the value."""

    key: bytes
    name: str
    labels: Mapping[str, str]
    value: float


def parse(line: bytes) -> Sample | None:
    """A line, that may have a time or an exemplar behind the value; None if it is none, or its value not finite."""
    head = _SAMPLE.match(line)
    if head is None:
        return None
    place, labels = head.end(), {}
    if head[2]:
        while (pair := _LABEL.match(line, place)) is not None:
            labels[pair[1].decode()] = _unescaped(pair[2])
            place = pair.end()
            if len(labels) > LABELS_LIMIT or not pair[3]:
                break
        place = _next(line, place)
        if line[place : place + 1] != b"}":
            return None
        place += 1
    else:
        place = head.end(1)
    value, *_ = line[place:].split(None, 1) or (b"",)
    number = number_of(value)
    return None if number is None else Sample(line[:place], head[1].decode(), labels, number)


def _next(line: bytes, place: int) -> int:
    while line[place : place + 1] in (b" ", b"\t"):
        place += 1
    return place


def _unescaped(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text) if "\\" in text else text
