"""The status as JSON and back.

Both directions follow the declared types of `core.status.values`, so a field cannot be forgotten in one of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Final, Protocol, get_args, get_origin, get_type_hints

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.status.values import HISTORY_LIMIT, MESSAGE_LIMIT, TIMELINE_LIMIT, Status
from pinn_operator.core.status.verification import STABLE_POD_LIMIT, WORST_LIMIT

GATE_STATUS_LIMIT: Final = 40
"""`GATE_LIMIT` own gates and those of a profile."""
POD_LINE_LIMIT: Final = 20
CONDITION_LIMIT: Final = 16
EXCUSED_LIMIT: Final = 50
_ABSENT_AT_REST: Final = frozenset({"dry_run", "consecutive", "stable_samples", "reference_total", "reference_bad"})
"""Of each gate; nobody misses a zero, and with forty gates they would be a tenth of the status."""
_NEWEST_LAST: Final = {"timeline": TIMELINE_LIMIT, "history": HISTORY_LIMIT}
_FIRST: Final = {
    "gates": GATE_STATUS_LIMIT,
    "pods": POD_LINE_LIMIT,
    "conditions": CONDITION_LIMIT,
    "excused": EXCUSED_LIMIT,
    "worst": WORST_LIMIT,
    "stable_pods": STABLE_POD_LIMIT,
}


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class _Unusable(Exception):
    """A JSON value that is not of the declared type; its field becomes absent."""


def status_to_manifest(status: Status) -> dict[str, Any]:
    """A status as JSON: camelCase names, UTC times with microseconds; None, "" and empty lists are left out.

    Whatever is longer than the CRD allows is cut, the same way every time: strings at `MESSAGE_LIMIT` with an ellipsis,
    `timeline` and `history` to their newest (last) entries, other lists to their first. Numbers that JSON does not have
    (NaN, infinity) become the default of their field.
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


@cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


@cache
def _json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _encode_object(value: _Dataclass) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for item in fields(value):
        inner = _encode(getattr(value, item.name), item.name)
        if inner is None and isinstance(item.default, float):
            inner = item.default
        # "" is written where it is not what an absent field would be read as.
        if inner is None or (inner in ("", []) and item.default in (MISSING, None, "", ())):
            continue
        if item.name in _ABSENT_AT_REST and inner == item.default:
            continue
        encoded[_json_name(item.name)] = inner
    return encoded


def _encode(value: Any, name: str) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value if len(value) <= MESSAGE_LIMIT else value[: MESSAGE_LIMIT - 1] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple):
        if name in _NEWEST_LAST:
            value = value[-_NEWEST_LAST[name] :]
        return [_encode(item, "") for item in value[: _FIRST.get(name, len(value))]]
    if is_dataclass(value) and not isinstance(value, type):
        return _encode_object(value)
    return value


def _decode_object(cls: Any, manifest: object) -> Any:
    if not isinstance(manifest, Mapping):
        raise _Unusable
    values: dict[str, Any] = {}
    for item in fields(cls):
        raw = manifest.get(_json_name(item.name))
        declared = _types(cls)[item.name]
        try:
            values[item.name] = _decode(declared, raw)
        except _Unusable:
            if item.default is MISSING:
                values[item.name] = _empty(declared)
    return cls(**values)


def _empty(declared: Any) -> Any:
    """What stands for an absent field without a default. Times and closed sets have nothing that could."""
    if declared in (str, int, float):
        return declared()
    raise _Unusable


def _decode(declared: Any, raw: object) -> Any:
    if get_origin(declared) is tuple:
        return _decode_items(get_args(declared)[0], raw)
    optional = [item for item in get_args(declared) if item is not NoneType]
    if optional:
        return _decode(optional[0], raw)
    if is_dataclass(declared):
        return _decode_object(declared, raw)
    if declared is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if declared is int and isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if declared in (str, bool) and isinstance(raw, declared):
        return raw
    if isinstance(raw, str) and (declared is datetime or issubclass(declared, Enum)):
        try:
            return parse_time(raw) if declared is datetime else declared(raw)
        except ValueError:
            raise _Unusable from None
    raise _Unusable


def _decode_items(declared: Any, raw: object) -> tuple[Any, ...]:
    if not isinstance(raw, list | tuple):
        raise _Unusable
    found = []
    for item in raw:
        try:
            found.append(_decode(declared, item))
        except _Unusable:
            continue
    return tuple(found)
