"""From the bytes of a pricing request to columns of float64, or to a list of everything that is wrong with them.

A request is one option or `{"options": [option, …]}`. The rules are those of `FIELDS`, `OPTION_TYPES` and `STYLES`.
Two paths check the same rules: columns at once (microseconds for thousands of options) when all is well, and option by
option when it is not, which finds each fault with its index, its field and its value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from pinn_inference.pricing.types import OptionBatch
from pinn_inference.server.errors import BatchTooLarge, Fault, InvalidRequest


@dataclass(frozen=True, slots=True)
class NumberField:
    """A number of an option: the closed range it must lie in, its unit, and what it is when absent."""

    name: str
    low: float
    high: float
    unit: str
    default: float | None = None

    @property
    def expected(self) -> str:
        low, high = (np.format_float_positional(bound, trim="-") for bound in (self.low, self.high))
        return f"must be a number from {low} to {high} ({self.unit})"


FIELDS: Final = (
    NumberField("spot", 1e-6, 1e9, "currency"),
    NumberField("strike", 1e-6, 1e9, "currency"),
    NumberField("maturity", 0.0, 100.0, "years"),
    NumberField("rate", -1.0, 1.0, "decimal per year, continuously compounded: 0.03 is 3 %"),
    NumberField("dividend", -1.0, 1.0, "decimal per year, continuously compounded: 0.01 is 1 %", default=0.0),
    NumberField("volatility", 0.0, 10.0, "decimal per year: 0.2 is 20 %"),
)
OPTION_TYPES: Final = ("call", "put")
STYLES: Final = ("european",)
_NAMES: Final = tuple(field.name for field in FIELDS)
_KNOWN: Final = frozenset((*_NAMES, "option_type", "style"))
_UNKNOWN: Final = "is not a field of an option: known are " + ", ".join((*_NAMES, "option_type", "style"))
_NUMBERS: Final = frozenset((int, float))
_SHOWN_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class PriceRequest:
    """A valid request: its options, and whether it came as a list (then the answer is one too)."""

    options: OptionBatch
    many: bool


def parse_price_request(body: bytes, *, max_batch: int) -> PriceRequest:
    """Parse the body of `POST /v1/price`.

    Raises InvalidRequest with every fault found, BatchTooLarge for a list longer than `max_batch`.
    """
    document = _load(body)
    if not isinstance(document, dict):
        raise InvalidRequest(
            [Fault("body", 'must be an object: one option, or {"options": [option, …]}', value=_shown(document))]
        )
    if "options" not in document:
        return PriceRequest(_parse_rows([document], many=False), many=False)
    rows = document["options"]
    faults = [
        Fault(_text(name), "is not a field of a list request: it belongs inside each option", value=_shown(value))
        for name, value in document.items()
        if name != "options"
    ]
    if not isinstance(rows, list) or not rows:
        faults.append(Fault("options", f"must be a list of 1 to {max_batch} options", value=_shown(rows)))
    if faults:
        raise InvalidRequest(faults)
    if len(rows) > max_batch:
        raise BatchTooLarge(size=len(rows), limit=max_batch)
    return PriceRequest(_parse_rows(rows, many=True), many=True)


def _load(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as strict:
        # The standard library accepts NaN and Infinity, so that the answer can name the field that holds them.
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise InvalidRequest([Fault("body", f"is not valid JSON: {strict}", has_value=False)]) from None


def _parse_rows(rows: list[Any], *, many: bool) -> OptionBatch:
    columns = _columns(rows)
    if columns is None:
        faults = [fault for index, row in enumerate(rows) for fault in _faults(row, index if many else None)]
        raise InvalidRequest(faults)
    return columns


def _columns(rows: list[Any]) -> OptionBatch | None:
    """The rows as columns, or None if any rule is broken."""
    if not all(type(row) is dict and row.keys() <= _KNOWN for row in rows):
        return None
    columns = []
    for field in FIELDS:
        values = [row.get(field.name, field.default) for row in rows]
        if not set(map(type, values)) <= _NUMBERS:  # bool is a type of its own here, and absent is NoneType
            return None
        try:
            column = np.array(values, dtype=np.float64)
        except OverflowError:
            return None
        if not bool(np.all((column >= field.low) & (column <= field.high))):  # False for NaN
            return None
        columns.append(column)
    kinds = [row.get("option_type", "call") for row in rows]
    styles = [row.get("style", "european") for row in rows]
    if not (all(kind in OPTION_TYPES for kind in kinds) and all(style in STYLES for style in styles)):
        return None
    spot, strike, maturity, rate, dividend, volatility = columns
    return OptionBatch(
        spot=spot,
        strike=strike,
        maturity=maturity,
        rate=rate,
        dividend=dividend,
        volatility=volatility,
        is_call=np.array([kind == "call" for kind in kinds], dtype=np.bool_),
    )


def _faults(row: Any, index: int | None) -> Iterator[Fault]:
    """Everything wrong with one option; the same rules as `_columns`."""
    if not isinstance(row, dict):
        yield Fault("", "must be an object with the fields of one option", index=index, value=_shown(row))
        return
    for field in FIELDS:
        if field.name not in row:
            if field.default is None:
                yield Fault(field.name, f"is required: it {field.expected}", index=index, has_value=False)
            continue
        value = row[field.name]
        if type(value) not in _NUMBERS or not field.low <= value <= field.high:
            yield Fault(field.name, field.expected, index=index, value=_shown(value))
    for name, choices in (("option_type", OPTION_TYPES), ("style", STYLES)):
        if name in row and row[name] not in choices:
            expected = "must be " + " or ".join(f'"{choice}"' for choice in choices)
            yield Fault(name, expected, index=index, value=_shown(row[name]))
    for name in row:
        if name not in _KNOWN:
            yield Fault(_text(name), _UNKNOWN, index=index, value=_shown(row[name]))


def _shown(value: Any) -> Any:
    """The value as the answer shows it: short, and nothing that JSON cannot carry."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        # Beyond float64's own integers; Python refuses to print very long ones.
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    return value


def _text(text: str) -> str:
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no UTF-8
