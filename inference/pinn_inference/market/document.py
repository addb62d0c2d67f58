"""YAML as a tree that remembers lines and leaves every scalar the text it is.

PyYAML's own loaders resolve scalars by YAML 1.1: the tickers ON, NO and Y become booleans, 1e-2 stays a string, the
last one counts of a key that stands twice, and some thousand open brackets overflow the C stack. So the tree is built
from parser events, and whoever reads a scalar says what it has to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import yaml

_DEPTH: Final = 8
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 20 times as fast, where PyYAML has it


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text; `quoted` if it stood in quotes or in a block. `line` counts from 1."""

    text: str
    quoted: bool
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """Keys and values in the order of the file; a key may stand twice, whoever reads the table sees that."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    entries: tuple[Node, ...]
    line: int


Node: TypeAlias = Scalar | Table | Items


class DocumentError(ValueError):
    """The text is not one YAML document of the kind that can be read; `line` counts from 1, 0 is unknown."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read_document(content: bytes) -> Node:
    """The document as a tree. Raises DocumentError for anything but one document of plain maps, lists and scalars."""
    try:
        events = _events(content)
        first = next(events, None)
        if first is None:
            raise DocumentError("is empty", 0)
        root = _node(first, events, depth=1)
        extra = next(events, None)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise DocumentError(f"is not valid YAML: {error.problem}", line) from error
    except yaml.YAMLError as error:
        raise DocumentError(f"is not valid YAML: {str(error).splitlines()[0]}", 0) from error
    if extra is not None:
        raise DocumentError("holds more than one document", _line(extra))
    return root


def _events(content: bytes) -> Iterator[yaml.NodeEvent | yaml.CollectionEndEvent]:
    """The events of nodes, without those of the stream and of the document."""
    for event in yaml.parse(content, Loader=_LOADER):
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise DocumentError("uses an anchor or an alias: write the values out", _line(event))
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise DocumentError(f"uses the tag {event.tag}: write the value alone", _line(event))
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            yield event


def _node(
    event: yaml.NodeEvent | yaml.CollectionEndEvent,
    events: Iterator[yaml.NodeEvent | yaml.CollectionEndEvent],
    *,
    depth: int,
) -> Node:
    line = _line(event)
    if depth > _DEPTH:
        raise DocumentError(f"is nested more than {_DEPTH} levels deep", line)
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(text=event.value, quoted=bool(event.style), line=line)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            items.append(_node(inner, events, depth=depth + 1))
        return Items(entries=tuple(items), line=line)
    entries = []
    while not isinstance(inner := next(events), yaml.MappingEndEvent):
        key = _node(inner, events, depth=depth + 1)
        if not isinstance(key, Scalar):
            raise DocumentError("has a key that is not a text", key.line)
        entries.append((key, _node(next(events), events, depth=depth + 1)))
    return Table(entries=tuple(entries), line=line)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0
