"""The status as JSON and back.

Both directions follow the declared types of `core.status.values`, so a field cannot be forgotten in one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.status.values import (
    ANNOUNCEMENT_LIMIT,
    HISTORY_LIMIT,
    MESSAGE_LIMIT,
    ORDER_LIMIT,
    TIMELINE_LIMIT,
    Status,
)
from pinn_operator.core.status.verification import STABLE_POD_LIMIT, WORST_LIMIT
from pinn_operator.core.text import cut

GATE_STATUS_LIMIT: Final = 40
"""`GATE_LIMIT` own gates and those of a profile."""
POD_LINE_LIMIT: Final = 20
CONDITION_LIMIT: Final = 16
EXCUSED_LIMIT: Final = 50
_ABSENT_AT_REST: Final = frozenset({"dry_run", "consecutive", "stable_samples", "reference_total", "reference_bad"})
"""Of each gate; nobody misses a zero, and with forty gates they would be a tenth of the status."""
_NEWEST_LAST: Final = {"timeline": TIMELINE_LIMIT, "history": HISTORY_LIMIT, "earlier": ORDER_LIMIT}
_FIRST: Final = {
    "gates": GATE_STATUS_LIMIT,
    "pods": POD_LINE_LIMIT,
    "conditions": CONDITION_LIMIT,
    "announcements": ANNOUNCEMENT_LIMIT,
    "excused": EXCUSED_LIMIT,
    "worst": WORST_LIMIT,
    "stable_pods": STABLE_POD_LIMIT,
}


class _Unusable(Exception):
    """A JSON value that is not of the declared type; its field becomes absent."""


def status_to_manifest(status: Status) -> dict[str, Any]:
    """A status as JSON: camelCase names, UTC times with microseconds; None, "" and empty lists are left out.

    Whatever is longer than the CRD allows is cut, the same way every time: strings at `MESSAGE_LIMIT` with an ellipsis,
    `timeline`, `history` and `earlier` to their newest (last) entries, other lists to their first. Numbers that JSON
    does not have (NaN, infinity) become the default of their field.
    """
    return _encode_object(status)


def status_from_manifest(manifest: Manifest) -> Status:
    """The status in JSON. Unknown fields are ignored; absent or unusable ones take their default.

    A list item or object that lacks something without which it means nothing (a time, say) is left out as a whole.
    """
    status: Status = _decode_object(Status, manifest)
    return status


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds, like 2026-11-21T08:00:00.123456Z. `time` must know its zone."""
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} has no time zone")
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """The time of an RFC 3339 string, in UTC.

    Raises:
        ValueError: `text` is none, or has no zone.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is before the year 1 or after the year 9999") from error


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field of a dataclass is written and read. Found once: a status is written and read in every pass."""

    name: str
    json_name: str
    default: Any
    """`MISSING` if it has none."""
    decode: Callable[[object], Any]
    empty: Callable[[], Any] | None
    """What stands for an absent field without a default. Times and closed sets have nothing that could."""


@cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    types = get_type_hints(cls)
    return tuple(
        _Field(
            item.name, _json_name(item.name), item.default, _decoder(types[item.name]),
            types[item.name] if types[item.name] in (str, int, float) else None,
        )
        for item in fields(cls)
    )  # fmt: skip


def _json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _encode_object(value: Any) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for item in _fields(value.__class__):
        inner = _encode(getattr(value, item.name), item.name)
        if inner is None and isinstance(item.default, float):
            inner = item.default
        # "" is written where it is not what an absent field would be read as.
        if inner is None or (inner in ("", []) and item.default in (MISSING, None, "", ())):
            continue
        if item.name in _ABSENT_AT_REST and inner == item.default:
            continue
        encoded[item.json_name] = inner
    return encoded


def _encode(value: Any, name: str) -> Any:
    if value is None or value.__class__ in (bool, int):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return cut(value, MESSAGE_LIMIT)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple):
        if name in _NEWEST_LAST:
            value = value[-_NEWEST_LAST[name] :]
        return [_encode(item, "") for item in value[: _FIRST.get(name, len(value))]]
    return _encode_object(value)


def _decode_object(cls: type, manifest: object) -> Any:
    if not isinstance(manifest, Mapping):
        raise _Unusable
    values: dict[str, Any] = {}
    for item in _fields(cls):
        raw = manifest.get(item.json_name)
        if raw is None and item.default is not MISSING:
            continue
        try:
            values[item.name] = item.decode(raw)
        except _Unusable:
            if item.default is MISSING:
                if item.empty is None:
                    raise
                values[item.name] = item.empty()
    return cls(**values)


@cache
def _decoder(declared: Any) -> Callable[[object], Any]:
    """What reads a value of a declared type, or raises `_Unusable`."""
    if get_origin(declared) is tuple:
        return partial(_decode_items, _decoder(get_args(declared)[0]))
    optional = [item for item in get_args(declared) if item is not NoneType]
    if optional:
        return _decoder(optional[0])
    if isinstance(declared, type) and is_dataclass(declared):
        return partial(_decode_object, declared)
    if declared is float:
        return _decode_float
    if declared in (str, int, bool):
        return partial(_decode_exactly, declared)
    return partial(_decode_text, parse_time if declared is datetime else declared)


def _decode_float(raw: object) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise _Unusable
    return float(raw)


def _decode_exactly(declared: type, raw: object) -> Any:
    if not isinstance(raw, declared) or (declared is int and isinstance(raw, bool)):
        raise _Unusable
    return raw


def _decode_text(read: Callable[[str], Any], raw: object) -> Any:
    """A time or a member of a closed set."""
    if not isinstance(raw, str):
        raise _Unusable
    try:
        return read(raw)
    except ValueError:
        raise _Unusable from None


def _decode_items(decode: Callable[[object], Any], raw: object) -> tuple[Any, ...]:
    if not isinstance(raw, list | tuple):
        raise _Unusable
    found = []
    for item in raw:
        try:
            found.append(decode(item))
        except _Unusable:
            continue
    return tuple(found)
