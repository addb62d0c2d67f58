"""From the bytes of a pricing request to columns of float64, or to a list of everything that is wrong with them.

A request is one option, a list `{"options": [option, …]}`, or columns `{"columns": {"spot": [100, 101], "strike": 95,
…}}`, where a single value stands for every row. The rules are those of `FIELDS`, `OPTION_TYPES` and `STYLES`.

Two ways check the same rules. The quick one decodes straight into typed structures, which check as they are filled; it
takes half a microsecond an option and says only yes or no. What it refuses goes the thorough way, option by option,
which finds each fault with its index, its field and its value. A list is decoded in pieces: a few hundred options stay
in the processor's cache, and where a thread parses beside an event loop it lets go of the interpreter between pieces.
Pieces lose nothing: texts that are valid lists each are, joined by commas, one valid list.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import chain, islice
from struct import Struct as PackedRow
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule
from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch, Quotes
from pinn_inference.server.dates import (
    DATE_FIELDS,
    YEAR_SECONDS,
    Complaint,
    NotAMoment,
    is_dated,
    seconds_of,
    undated,
)
from pinn_inference.server.dividends import DIVIDENDS, has_ex_date, read_dividends
from pinn_inference.server.documents import Body, Repeated, not_json, read_document
from pinn_inference.server.errors import MAX_FAULTS, BatchTooLarge, Fault, InvalidRequest

OptionTuple: TypeAlias = tuple[float, float, float, float, float, float, bool, bool]
"""spot, strike, maturity, rate, dividend, volatility, is_call, is_american; units as in `OptionBatch`."""


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

    @property
    def type(self) -> Any:
        """The type that the quick way decodes into."""
        return Annotated[float, msgspec.Meta(ge=self.low, le=self.high)]


FIELDS: Final = (
    NumberField("spot", 1e-6, 1e9, "currency"),
    NumberField("strike", 1e-6, 1e9, "currency"),
    NumberField("maturity", 0.0, 100.0, "years"),
    NumberField("rate", -1.0, 1.0, "decimal per year, continuously compounded: 0.03 is 3 %"),
    NumberField("dividend", -1.0, 1.0, "decimal per year, continuously compounded: 0.01 is 1 %", default=0.0),
    NumberField("volatility", 0.0, 10.0, "decimal per year: 0.2 is 20 %"),
)
OPTION_TYPES: Final = ("call", "put")
STYLES: Final = ("european", "american")
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {"option_type": OPTION_TYPES, "style": STYLES}
"""The first word of each is what an absent field means."""
_NAMES: Final = tuple(field.name for field in FIELDS)
_FIELD_OF_NAME: Final = {field.name: field for field in FIELDS}
_LONGEST: Final = _FIELD_OF_NAME["maturity"].high
_KNOWN: Final = frozenset((*_NAMES, *_WORDS))
UNKNOWN_FIELD: Final = "is not a field of an option: known are "
_UNKNOWN: Final = UNKNOWN_FIELD + ", ".join((*_NAMES, *DATE_FIELDS, DIVIDENDS, *_WORDS))
_NUMBERS: Final = frozenset((int, float))
REPEATED: Final = "must not have a key more than once: which of its values is meant?"
_SHOWN_CHARACTERS: Final = 64
_MARKS: Final = 1000
_MARKS_PER_OPTION: Final = 32
"""Of commas and brackets a valid option has nine."""


class Form(Enum):
    """How the options of a request were written; its answer is written in the same form."""

    SINGLE = "single"
    LIST = "list"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class PriceRequest:
    """A valid request: its options, and how they were written."""

    options: OptionBatch
    form: Form
    dated: BoolArray | None = None
    """Rows whose maturity was given by dates, shape (n,); None where there are none."""
    escrow: Escrow | None = None
    """What was taken off the spots of `options` for their dividends; None where there are none."""
    schedules: tuple[Schedule, ...] = ()
    """These dividends, one schedule for each option, or none at all."""
    greeks: tuple[str, ...] = ()
    """Names of those that are asked for beyond the usual ones, see `more_greeks`."""

    @property
    def told_maturity(self) -> FloatArray | None:
        """The maturities that an answer has to say, NaN in other rows, shape (n,); None where there are none."""
        return None if self.dated is None else np.where(self.dated, self.options.maturity, np.nan)

    @property
    def unreduced(self) -> OptionBatch:
        """The options with their true spots, as they were sent."""
        if self.escrow is None:
            return self.options
        return replace(self.options, spot=self.options.spot + self.escrow.present_value, schedules=())

    def settled(self, quotes: Quotes) -> Quotes:
        """The answer to what was asked, from the quotes of `options`."""
        return quotes if self.escrow is None else self.escrow.settled(quotes)

    @property
    def many(self) -> bool:
        return self.form is Form.LIST


def parse_price_request(body: Body, *, max_batch: int, now: float | None = None) -> PriceRequest:
    """Parse the body of `POST /v1/price`.

    `now`, in seconds from 1970 on, is the valuation time of options that have an expiry and no valuation time; without
    it that is this very moment.

    Raises InvalidRequest with every fault found, BatchTooLarge for more than `max_batch` options.
    """
    now = time.time() if now is None else now
    return parse_quickly(body, max_batch=max_batch, now=now) or _parse_thoroughly(body, max_batch, now)


def parse_quickly(body: Body, *, max_batch: int, now: float | None = None) -> PriceRequest | None:
    """As `parse_price_request`, for valid requests in their usual forms; None sends a body the thorough way.

    Raises BatchTooLarge, and InvalidRequest for what no document shall be made of.
    """
    quick = _parse_list(body, max_batch, time.time() if now is None else now)
    if quick is not None:
        return quick
    single = read_option(body)
    if single is not None:
        return PriceRequest(_batch_of_one(single), Form.SINGLE)
    demand_simple(body, max_batch)
    columns = _parse_columns(body, max_batch)
    return None if columns is None else PriceRequest(columns, Form.COLUMNS)


def read_option(body: Body) -> OptionTuple | None:
    """The option, if the body is a single valid one, in a microsecond; None sends it the thorough way."""
    try:
        option = _option_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    dividend, kind, style = option.dividend, option.option_type, option.style
    given = _REQUIRED + (dividend is not UNSET) + (kind is not UNSET) + (style is not UNSET)
    if (body if type(body) is bytes else bytes(body)).count(b":") != given:  # see _options_of
        return None
    rate, dividend = option.rate, 0.0 if dividend is UNSET else dividend
    is_call, is_american = kind is UNSET or kind == "call", style == "american"
    return option.spot, option.strike, option.maturity, rate, dividend, option.volatility, is_call, is_american


def demand_simple(body: Body, max_batch: int) -> None:
    """Refuse a text of which the document would take a hundred times its memory, `[[],[],[],…`."""
    limit = _MARKS + _MARKS_PER_OPTION * max_batch
    text = bytes(body) if len(body) > limit else b""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > limit:
        message = (
            f"holds more than {limit} commas and brackets: send fewer options, or fewer dividends, in each request"
        )
        raise InvalidRequest([Fault("body", message, has_value=False)])


# --- the quick way ----------------------------------------------------------------------------------------------------


_DEFAULTS: Final[Mapping[str, Any]] = {
    **{field.name: field.default for field in FIELDS if field.default is not None},
    **{name: words[0] for name, words in _WORDS.items()},
}
_REQUIRED: Final = len(_KNOWN) - len(_DEFAULTS)
_TYPES: Final[Mapping[str, Any]] = {
    **{field.name: field.type for field in FIELDS},
    **{name: Literal[words] for name, words in _WORDS.items()},
}


def _struct(name: str, fields: Iterable[tuple[str, Any] | tuple[str, Any, Any]], **absent: Any) -> Any:
    """A structure of these fields and no others; `absent` are the values of what its texts do not have."""
    # gc=False: the collector need not watch what cannot hold a reference back.
    return msgspec.defstruct(name, fields, namespace=absent, forbid_unknown_fields=True, kw_only=True, gc=False)


def _value_or_list(value: Any) -> Any:
    return value | list[value]


def _maybe(types: Mapping[str, Any]) -> Iterator[tuple[str, Any] | tuple[str, Any, Any]]:
    """Fields of these types; one that has a default is UNSET where it is absent."""
    for name, type_ in types.items():
        yield (name, type_ | UnsetType, UNSET) if name in _DEFAULTS else (name, type_)


_Option: Final[Any] = _struct("_Option", _maybe(_TYPES))
_Defaulted: Final[Any] = _struct(
    "_Defaulted",
    [
        *((name, type_) for name, type_ in _TYPES.items() if name not in _DEFAULTS),
        *((name, _TYPES[name], default) for name, default in _DEFAULTS.items()),
    ],
)
_Columns: Final[Any] = _struct("_Columns", _maybe({name: _value_or_list(type_) for name, type_ in _TYPES.items()}))
_ColumnsRequest: Final[Any] = _struct("_ColumnsRequest", [("columns", _Columns)])
_option_decoder: Final = msgspec.json.Decoder(_Option)
_options_decoder: Final = msgspec.json.Decoder(list[_Option])
_DatedOption: Final[Any] = _struct(
    "_DatedOption",
    [
        ("expiry", str),
        ("valuation_time", str | UnsetType, UNSET),
        ("maturity", UnsetType, UNSET),
        *_maybe({name: type_ for name, type_ in _TYPES.items() if name != "maturity"}),
    ],
)
_dated_decoder: Final = msgspec.json.Decoder(list[_DatedOption])
_defaulted_decoder: Final = msgspec.json.Decoder(list[_Defaulted])
_columns_decoder: Final = msgspec.json.Decoder(_ColumnsRequest)


@cache
def _alike_decoder(given: tuple[bool, ...]) -> msgspec.json.Decoder[list[Any]]:
    """Reads options that all have the required fields and, of those with a default, exactly these."""
    absent = {name: value for (name, value), there in zip(_DEFAULTS.items(), given, strict=True) if not there}
    fields = [(name, type_) for name, type_ in _TYPES.items() if name not in absent]
    alike: Any = _struct("_Alike", fields, **absent)
    return msgspec.json.Decoder(list[alike])


def _given(option: Any) -> tuple[bool, ...]:
    """Which of the fields that have a default an `_Option` was given."""
    return tuple(getattr(option, name) is not UNSET for name in _DEFAULTS)


_LIST_HEAD: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"options"[ \t\r\n]*:[ \t\r\n]*\[')
_LIST_TAIL: Final = re.compile(rb"\][ \t\r\n]*\}[ \t\r\n]*\Z")
_TAIL_BYTES: Final = 64
_EXPIRY: Final = re.compile(rb'"expiry"')
_FIRST_BYTES: Final = 1024
"""Where the first option of a list is looked for."""
_BETWEEN: Final = re.compile(rb"\}[ \t\r\n]*,")
_PIECE_BYTES: Final = 64 * 1024
_ROW: Final = np.dtype([*((name, np.float64) for name in _NAMES), ("is_call", np.bool_), ("is_american", np.bool_)])
_pack_row: Final = PackedRow("6d2?").pack


def _parse_list(body: Body, max_batch: int, now: float) -> PriceRequest | None:
    """A valid list of options that all have maturities, or all expiries; None if it is anything else.

    Raises BatchTooLarge for more than `max_batch`, of which it keeps none.
    """
    head = _LIST_HEAD.match(body)
    if head is None:
        return None
    tail_start = max(head.end(), len(body) - _TAIL_BYTES)
    tail = _LIST_TAIL.search(body[tail_start:])
    if tail is None:
        return None
    packed: list[bytes] = []
    count = 0
    dated = _EXPIRY.search(body, head.end(), head.end() + _FIRST_BYTES) is not None
    for piece in _pieces(body, head.end(), tail_start + tail.start()):
        rows = _dated_options_of(piece, now) if dated else _options_of(piece)
        if rows is None:
            return None
        count += len(rows)
        if count <= max_batch:
            packed.append(_pack(rows))
    if count > max_batch:
        raise BatchTooLarge(size=count, limit=max_batch)
    table = np.frombuffer(b"".join(packed), dtype=_ROW)
    options = OptionBatch(*(np.ascontiguousarray(table[name]) for name in _ROW.names or ()))
    return PriceRequest(options, Form.LIST, np.ones(count, dtype=np.bool_) if dated else None)


def _dated_options_of(piece: bytes, now: float) -> list[Any] | None:
    """As `_options_of`, where every option has an expiry. Colons of dates are counted: none may hide in an escape."""
    if b"\\" in piece:
        return None
    try:
        rows = _dated_decoder.decode(b"[%b]" % piece)
        colons = _REQUIRED * len(rows)
        for row in rows:
            since = now
            colons += row.expiry.count(":")
            if row.valuation_time is not UNSET:
                since = seconds_of(row.valuation_time)
                colons += 1 + row.valuation_time.count(":")
            row.maturity = (seconds_of(row.expiry) - since) / YEAR_SECONDS
            if not 0.0 <= row.maturity <= _LONGEST:
                return None
            for name, default in _DEFAULTS.items():
                if getattr(row, name) is UNSET:
                    setattr(row, name, default)
                else:
                    colons += 1
    except (msgspec.MsgspecError, UnicodeDecodeError, NotAMoment):
        return None
    return rows if rows and colons == piece.count(b":") else None


def _options_of(piece: bytes) -> list[Any] | None:
    """Options that are divided by commas; None if one is not valid, or there is none.

    Nearly always all have the same fields. Neither the names nor the values of an option have colons in them, so a text
    has one for each field, unless a field stands twice: a decoder says nothing of that, and takes the last.
    """
    text, colons = b"[%b]" % piece, piece.count(b":")
    try:
        given = _given(_option_decoder.decode(piece[: piece.find(b"}") + 1]))
        try:
            rows = _alike_decoder(given).decode(text)
        except msgspec.ValidationError:
            different = _options_decoder.decode(text)
            fields = sum(_REQUIRED + sum(_given(option)) for option in different)
            return _defaulted_decoder.decode(text) if colons == fields else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return rows if colons == (_REQUIRED + sum(given)) * len(rows) else None


def _pieces(body: Body, start: int, end: int) -> Iterator[bytes]:
    """The text from `start` to `end`, cut at commas after closing braces, which are left out."""
    while (cut := _BETWEEN.search(body, start + _PIECE_BYTES, end)) is not None:
        yield bytes(body[start : cut.start() + 1])
        start = cut.end()
    yield bytes(body[start:end])


def _pack(rows: list[Any]) -> bytes:
    """Options, as decoded, in the layout of `_ROW`."""
    return b"".join(
        [
            _pack_row(
                row.spot,
                row.strike,
                row.maturity,
                row.rate,
                row.dividend,
                row.volatility,
                row.option_type == "call",
                row.style == "american",
            )
            for row in rows
        ]
    )


def _parse_columns(body: Body, max_batch: int) -> OptionBatch | None:
    """The options of valid columns of up to `max_batch` rows; None if the body is anything else."""
    try:
        columns = _columns_decoder.decode(body).columns
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    given = {name: column for name in _TYPES if (column := getattr(columns, name)) is not UNSET}
    if bytes(body).count(b":") != 1 + len(given):
        return None
    sizes = {len(column) for column in given.values() if type(column) is list}
    if len(sizes) != 1 or not 0 < min(sizes) <= max_batch:
        return None
    return _batch_of_columns(given, sizes.pop())


def _batch_of_columns(given: Mapping[str, Any], size: int) -> OptionBatch:
    """Valid columns, each a list of `size` values or one value for every row; absent ones have their default."""

    def numbers(field: NumberField) -> FloatArray:
        column = given.get(field.name, field.default)
        return np.fromiter(column, np.float64, size) if type(column) is list else np.full(size, float(column))

    def is_word(name: str, word: str) -> BoolArray:
        column = given.get(name, _WORDS[name][0])
        return np.array([value == word for value in column]) if type(column) is list else np.full(size, column == word)

    spot, strike, maturity, rate, dividend, volatility = map(numbers, FIELDS)
    is_call, is_american = is_word("option_type", "call"), is_word("style", "american")
    return OptionBatch(spot, strike, maturity, rate, dividend, volatility, is_call, is_american)


def _batch_of_one(option: OptionTuple) -> OptionBatch:
    return OptionBatch(*(np.array([value]) for value in option))


# --- the thorough way -------------------------------------------------------------------------------------------------


def _parse_thoroughly(body: Body, max_batch: int, now: float) -> PriceRequest:
    read = read_document(body)
    document, complaint = read.content, read.complaint
    _refuse(map(_repeated_fault, read.repeated))
    if not isinstance(document, dict):
        message = 'must be an object: one option, {"options": [option, …]} or {"columns": {…}}'
        raise InvalidRequest([Fault("body", message, value=shown(document))])
    if "options" in document:
        request = _list_of(document, max_batch, now)
    elif "columns" in document:
        request = _columns_of(document, max_batch, now)
    else:
        option = _plain(document, now)
        _refuse(_plain_faults(option, None))
        request = _request_of_rows([option], Form.SINGLE)
    if complaint is not None:  # what is not JSON was in a place that no rule reads
        raise InvalidRequest([not_json(complaint)])
    return request


def _refuse(faults: Iterator[Fault]) -> None:
    """Raises InvalidRequest if there are any; keeps only those that will be shown."""
    shown_faults = list(islice(faults, MAX_FAULTS))
    if shown_faults:
        raise InvalidRequest(shown_faults, count=len(shown_faults) + sum(1 for _ in faults))


def _repeated_fault(repeated: Repeated) -> Fault:
    match repeated.path:
        case ("options", int(index), *_):
            return Fault(shown_text(repeated.key), REPEATED, index=index, has_value=False)
    return Fault(shown_text(repeated.key) or "body", REPEATED, has_value=False)


def _list_of(document: dict[str, Any], max_batch: int, now: float) -> PriceRequest:
    rows = document["options"]
    faults = _strangers(document, "options", "is not a field of a list request: it belongs inside each option")
    if not isinstance(rows, list) or not rows:
        faults.append(Fault("options", f"must be a list of 1 to {max_batch} options", value=shown(rows)))
    _refuse(iter(faults))
    if len(rows) > max_batch:
        raise BatchTooLarge(size=len(rows), limit=max_batch)
    options = [_plain(row, now) for row in rows]
    _refuse(fault for index, option in enumerate(options) for fault in _plain_faults(option, index))
    return _request_of_rows(options, Form.LIST)


@dataclass(frozen=True, slots=True)
class _Plain:
    """An option with years instead of dates, and its dividends apart from it."""

    option: Any
    dated: bool = False
    schedule: Schedule = NO_DIVIDENDS
    complaints: tuple[Complaint, ...] = ()


def _plain(option: Any, now: float) -> _Plain:
    if not isinstance(option, dict) or not (DIVIDENDS in option or is_dated(option)):
        return _Plain(option)
    schedule, since = NO_DIVIDENDS, now
    complaints: tuple[Complaint, ...] = ()
    plain: dict[str, Any] = {name: value for name, value in option.items() if name != DIVIDENDS}
    if is_dated(option):
        read = undated(plain, now=now, longest=_LONGEST, has_ex_date=has_ex_date(option.get(DIVIDENDS)))
        plain, complaints, since = read.option, read.complaints, read.since
    if DIVIDENDS in option:
        schedule, more = read_dividends(option[DIVIDENDS], since=since)
        complaints = (*complaints, *more)
    return _Plain(plain, "expiry" in option, schedule, complaints)


def _plain_faults(option: _Plain, index: int | None) -> Iterator[Fault]:
    """Everything wrong with one option."""
    for found in option.complaints:
        yield _fault_of(found, index)
    yield from _row_faults(option.option, index)


def _fault_of(found: Complaint, index: int | None) -> Fault:
    value = shown(found.value) if found.has_value else None
    return Fault(shown_text(found.field), found.message, index=index, value=value, has_value=found.has_value)


def _columns_of(document: dict[str, Any], max_batch: int, now: float) -> PriceRequest:
    columns = document["columns"]
    faults = _strangers(document, "columns", "is not a field of a request in columns: it belongs inside columns")
    if not isinstance(columns, dict):
        message = 'must be an object of columns, such as {"spot": [100, 101], "strike": 95, …}'
        raise InvalidRequest([*faults, Fault("columns", message, value=shown(columns))])
    lists = {name: column for name, column in columns.items() if _is_list(name, column)}
    if not lists:
        message = "must hold at least one list: a single option is written without columns"
        raise InvalidRequest([*faults, Fault("columns", message, value=shown(columns))])
    first, *others = lists
    size = len(lists[first])
    for name in others:
        if len(lists[name]) != size:
            message = f"must be as long as the other lists: {shown_text(first)} is a list of {size}"
            faults.append(Fault(shown_text(name), message, value=shown(lists[name])))
    if not size:
        faults.append(Fault(shown_text(first), f"must be a list of 1 to {max_batch} values", value=shown([])))
    if not faults and size > max_batch:
        raise BatchTooLarge(size=size, limit=max_batch)
    rows: list[_Plain] = []
    if DIVIDENDS in columns or is_dated(columns):  # lists of different lengths have no rows to count years for
        columns, rows, more = _plain_columns(columns, 0 if faults else size, now)
        faults.extend(more)
    _refuse(chain(faults, _column_faults(columns)))
    batch = _batch_of_columns(columns, size)
    return _request(batch, Form.COLUMNS, rows * size if len(rows) == 1 else rows)


def _is_list(name: str, column: Any) -> bool:
    """Whether a column has a value for each row. One schedule of dividends is a list, and stands for every row."""
    return isinstance(column, list) and (name != DIVIDENDS or any(isinstance(one, list) for one in column))


def _plain_columns(columns: dict[str, Any], size: int, now: float) -> tuple[dict[str, Any], list[_Plain], list[Fault]]:
    """The columns with `maturity` instead of dates and without dividends; what these are in each row, or in one that
    stands for all; and what is wrong with them, where a value stands for every row told once.
    """
    special = {name: columns[name] for name in ("maturity", *DATE_FIELDS, DIVIDENDS) if name in columns}
    lists = {name for name, column in special.items() if name != "maturity" and _is_list(name, column)}
    faults: dict[Fault, None] = {}
    rows = []
    for row in range(size if lists else 1):
        option = _plain({name: value[row] if name in lists else value for name, value in special.items()}, now)
        for found in option.complaints:
            everywhere = found.field.partition("[")[0] not in lists
            faults[_fault_of(found, None if everywhere else row)] = None
        rows.append(option)
    others = {name: column for name, column in columns.items() if name not in (*DATE_FIELDS, DIVIDENDS)}
    if "expiry" in columns:
        maturities = [row.option.get("maturity") for row in rows]
        others["maturity"] = maturities[0] if not lists else maturities or 0.0
    return others, rows, list(faults)


def _column_faults(columns: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with the values of columns; one that stands for every row has no index."""
    for name in (*_NAMES, *_WORDS, *(name for name in columns if name not in _KNOWN)):
        column = columns.get(name)
        if isinstance(column, list) and name in _KNOWN:
            for index, value in enumerate(column):
                yield from _faults(name, {name: value}, index)
        else:
            yield from _faults(name, columns, None)


def _strangers(document: dict[str, Any], own: str, message: str) -> list[Fault]:
    named = [(name, value) for name, value in document.items() if name != own]
    return [Fault(shown_text(name), message, value=shown(value)) for name, value in named]


def _request_of_rows(rows: Sequence[_Plain], form: Form) -> PriceRequest:
    """Valid rows as columns."""
    columns = {name: [row.option.get(name, _DEFAULTS.get(name)) for row in rows] for name in _TYPES}
    return _request(_batch_of_columns(columns, len(rows)), form, rows)


def _request(options: OptionBatch, form: Form, rows: Sequence[_Plain]) -> PriceRequest:
    """Valid options, and what was apart from them: nothing, or one of `rows` for each.

    Raises InvalidRequest for dividends that leave nothing of a spot.
    """
    dated = np.array([row.dated for row in rows]) if any(row.dated for row in rows) else None
    if not any(row.schedule.dividends for row in rows):
        return PriceRequest(options, form, dated)
    schedules = [row.schedule for row in rows]
    escrow = Escrow.of(options, schedules)
    short = np.flatnonzero(~(escrow.present_value < options.spot)).tolist()
    _refuse(
        Fault(
            DIVIDENDS,
            f"have a present value of {escrow.present_value[row]:.6g} until expiry: it must be less than the spot",
            index=None if form is Form.SINGLE else row,
            has_value=False,
        )
        for row in short
    )
    return PriceRequest(escrow.reduced(options, schedules), form, dated, escrow, tuple(schedules))


def _row_faults(row: Any, index: int | None) -> Iterator[Fault]:
    """Everything wrong with one option."""
    if not isinstance(row, dict):
        yield Fault("", "must be an object with the fields of one option", index=index, value=shown(row))
        return
    for name in (*_NAMES, *_WORDS, *(name for name in row if name not in _KNOWN)):
        yield from _faults(name, row, index)


def _faults(name: str, row: Mapping[str, Any], index: int | None) -> Iterator[Fault]:
    """What is wrong with one field of an option, which may be absent."""
    if name in _WORDS:
        if name in row and row[name] not in _WORDS[name]:
            expected = "must be " + " or ".join(f'"{word}"' for word in _WORDS[name])
            yield Fault(name, expected, index=index, value=shown(row[name]))
    elif name not in _FIELD_OF_NAME:
        yield Fault(shown_text(name), _UNKNOWN, index=index, value=shown(row[name]))
    elif name in row:
        field, value = _FIELD_OF_NAME[name], row[name]
        if type(value) not in _NUMBERS or not field.low <= value <= field.high:
            yield Fault(name, field.expected, index=index, value=shown(value))
    elif _FIELD_OF_NAME[name].default is None:
        instead = ", or give expiry instead" if name == "maturity" else ""
        yield Fault(name, f"is required: it {_FIELD_OF_NAME[name].expected}{instead}", index=index, has_value=False)


def shown(value: Any) -> Any:
    """The value as the answer shows it: short, and nothing that JSON cannot carry."""
    if isinstance(value, str):
        return shown_text(value)
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


def shown_text(text: str) -> str:
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no UTF-8
