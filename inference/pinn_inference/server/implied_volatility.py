"""`POST /v1/implied-volatility`: the options of `/v1/price` with a `price` instead of a `volatility`, and the answer.

A request is read by the rules of `/v1/price` itself: its prices are taken out of the document and a volatility is put
in their place, so every other field, every form and every fault is as there. An option whose price no volatility has is
answered in its row and fails no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, UnsetType

from pinn_inference.pricing.american_domain import has_two_boundaries
from pinn_inference.pricing.implied_volatility import ImpliedVolatilities, Outcome, implied_volatility
from pinn_inference.pricing.types import BoolArray, FloatArray, Method, OptionBatch
from pinn_inference.server.dividends import DIVIDENDS
from pinn_inference.server.documents import Body
from pinn_inference.server.errors import MAX_FAULTS, BatchTooLarge, Fault, InvalidRequest
from pinn_inference.server.parsing import (
    FIELDS,
    OPTION_TYPES,
    STYLES,
    Form,
    PriceRequest,
    shown,
)
from pinn_inference.server.rendering import Part, results_in_parts
from pinn_inference.server.rewriting import parse_rest, read_object

PATH: Final = "/v1/implied-volatility"
REASONS: Final = tuple(outcome.label for outcome in Outcome if outcome is not Outcome.FOUND)
_METHODS: Final = tuple(method.label for method in sorted(Method))
_LABELS: Final = tuple(outcome.label if outcome else UNSET for outcome in sorted(Outcome))
_OPEN: Final = (Outcome.NOT_IDENTIFIABLE, Outcome.OUT_OF_RANGE)
"""Outcomes with a range of volatilities."""
_STAND_IN: Final = 0.2
"""The volatility that stands where a price was; nothing is made of it."""
_LARGEST: Final = float(np.finfo(np.float64).max)
_PRICE_RULE: Final = "must be a finite number (the price of the option, in the currency of spot and strike)"
_ASKED_FOR: Final = "is not a field of an option here: it is what the answer says"


@dataclass(frozen=True, slots=True)
class ImpliedRequest:
    """A valid request: `price` has shape (n,); the volatility of `options` is not theirs."""

    options: OptionBatch
    price: FloatArray
    form: Form
    told_maturity: FloatArray | None = None
    """As `PriceRequest.told_maturity`."""
    spot_share: FloatArray | None = None
    """How exact the spots of `options` are, see `implied_volatility`; None where they are those of the request."""

    def of_european(self, rows: BoolArray | slice = slice(None)) -> ImpliedVolatilities:
        """The answer for these rows, all of which are European."""
        share = None if self.spot_share is None else self.spot_share[rows]
        return implied_volatility(self.options.take(rows), self.price[rows], share)


def parse_implied_request(body: Body, *, max_batch: int) -> ImpliedRequest:
    """Parse the body of `POST /v1/implied-volatility`.

    Raises InvalidRequest with every fault found, BatchTooLarge for more than `max_batch` options.
    """
    return parse_implied_quickly(body, max_batch=max_batch) or _parse_thoroughly(body, max_batch)


def _parse_thoroughly(body: Body, max_batch: int) -> ImpliedRequest:
    read = read_object(body, max_batch=max_batch)
    taken = _Prices(read.content)
    parsed = parse_rest(read, taken.document, taken.faults, max_batch=max_batch, reword=_of_prices)
    _demand_searchable(parsed)
    share = None if parsed.escrow is None else parsed.escrow.rounding(parsed.options)
    prices = taken.column(len(parsed.options))
    return ImpliedRequest(parsed.options, prices, parsed.form, parsed.told_maturity, share)


def _demand_searchable(parsed: PriceRequest) -> None:
    """Refuse what takes dozens of milliseconds for each price that a search has to try."""
    options = parsed.options
    waiting = options.waits_for_dividends
    rows = np.flatnonzero(waiting | (options.is_american & has_two_boundaries(options))).tolist()
    if rows:
        shown_rows = [(None if parsed.form is Form.SINGLE else row, row) for row in rows[:MAX_FAULTS]]
        faults = [
            Fault(DIVIDENDS, _WAITING, index=index, has_value=False)
            if waiting[row]
            else Fault("rate", _TWO_BOUNDARIES, index=index, value=float(options.rate[row]))
            for index, row in shown_rows
        ]
        raise InvalidRequest(faults, count=len(rows))


_WAITING: Final = (
    "must be absent or after expiry: no volatility is looked for where an American option may be exercised about them"
)
_TWO_BOUNDARIES: Final = (
    "must be at most the dividend or at least 0 for an American put, and at least a negative dividend for an American "
    "call: no volatility is looked for where there are two exercise boundaries"
)
_WORDS: Final = {"option_type": OPTION_TYPES, "style": STYLES}
_TYPES: Final[dict[str, Any]] = {
    **{field.name: field.type for field in FIELDS if field.name != "volatility"},
    "price": float,
    **{name: Literal[words] for name, words in _WORDS.items()},
}
_OPTIONAL: Final = (*(field.name for field in FIELDS if field.default is not None), *_WORDS)
_REQUIRED: Final = len(_TYPES) - len(_OPTIONAL)
_PricedOption: Final[Any] = msgspec.defstruct(
    "_PricedOption",
    [(name, type_ | UnsetType, UNSET) if name in _OPTIONAL else (name, type_) for name, type_ in _TYPES.items()],
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
)
_List: Final[Any] = msgspec.defstruct("_List", [("options", list[_PricedOption])], forbid_unknown_fields=True)
_decoder: Final = msgspec.json.Decoder(_List)


def parse_implied_quickly(body: Body, *, max_batch: int) -> ImpliedRequest | None:
    """A valid list, in a tenth of the time that documents take; None if it is anything else.

    Raises BatchTooLarge for more than `max_batch`.
    """
    try:
        rows = _decoder.decode(body).options
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    size = len(rows)
    if size > max_batch:
        raise BatchTooLarge(size=size, limit=max_batch)
    given = {name: [getattr(row, name) for row in rows] for name in _TYPES}
    # Of a key that stands twice a decoder says nothing; there is a colon for each field, and in no value.
    fields = 1 + _REQUIRED * size + sum(size - given[name].count(UNSET) for name in _OPTIONAL)
    if not size or bytes(body).count(b":") != fields:
        return None
    spot, strike, maturity, rate, dividend = (
        np.array([field.default if value is UNSET else value for value in given[field.name]], dtype=np.float64)
        for field in FIELDS
        if field.name in given
    )
    is_call = np.array([value != "put" for value in given["option_type"]])
    is_american = np.array([value == "american" for value in given["style"]])
    options = OptionBatch(spot, strike, maturity, rate, dividend, np.full(size, _STAND_IN), is_call, is_american)
    if (is_american & has_two_boundaries(options)).any():
        return None
    return ImpliedRequest(options, np.array(given["price"]), Form.LIST)


class _Prices:
    """The prices of a document, the document with volatilities instead, and what is wrong with either."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.faults: list[Fault] = []
        self._prices: list[Any] | Any
        if "options" in content and isinstance(rows := content["options"], list):
            self._prices, options = [], []
            for index, row in enumerate(rows):
                options.append(self._exchanged(row, index) if isinstance(row, dict) else row)
                self._prices.append(row.get("price") if isinstance(row, dict) else None)
            self.document = {**content, "options": options}
        elif "columns" in content and isinstance(columns := content["columns"], dict):
            self._prices = columns.get("price")
            self.document = {**content, "columns": self._exchanged(columns, None)}
        elif "options" in content or "columns" in content:
            self._prices, self.document = None, content
        else:
            self._prices, self.document = content.get("price"), self._exchanged(content, None)

    def column(self, size: int) -> FloatArray:
        """The prices of a document without faults, shape (size,)."""
        if isinstance(self._prices, list):
            return np.array(self._prices, dtype=np.float64)
        return np.full(size, float(self._prices))

    def _exchanged(self, option: dict[str, Any], index: int | None) -> dict[str, Any]:
        """An option, or columns, with a volatility for each price."""
        if "volatility" in option:
            self.faults.append(Fault("volatility", _ASKED_FOR, index=index, value=shown(option["volatility"])))
        stand_in: Any = _STAND_IN
        if "price" not in option:
            self.faults.append(Fault("price", f"is required: it {_PRICE_RULE}", index=index, has_value=False))
        elif isinstance(price := option["price"], list) and index is None:
            for row, value in enumerate(price):
                self._look_at(value, row)
            stand_in = [_STAND_IN] * len(price)
        else:
            self._look_at(price, index)
        rest = {name: value for name, value in option.items() if name != "price"}
        return {**rest, "volatility": stand_in}

    def _look_at(self, price: Any, index: int | None) -> None:
        if type(price) not in (int, float) or not abs(price) <= _LARGEST:
            self.faults.append(Fault("price", _PRICE_RULE, index=index, value=shown(price)))


def _of_prices(fault: Fault) -> Fault:
    """A fault as found in the document with volatilities, in the words of the one with prices."""
    field = "price" if fault.field == "volatility" else fault.field
    return replace(fault, field=field, message=fault.message.replace("volatility", "price"))


# --- the answer -------------------------------------------------------------------------------------------------------


class _Row(msgspec.Struct, gc=False):
    """One row of an answer; the fields' order is that of the JSON. The first three are null without a volatility."""

    implied_volatility: float | None
    error_bound: float | None
    vega: float | None
    method: str
    reason: str | UnsetType = UNSET
    price_range: tuple[float, float] | UnsetType = UNSET
    volatility_range: tuple[float, float | None] | UnsetType = UNSET
    maturity: float | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode


def render_implied(found: ImpliedVolatilities, *, form: Form, maturity: FloatArray | None = None) -> Iterator[Part]:
    """The JSON of an answer in parts. A row without a volatility says why, and which prices the option can have.

    `maturity`, of shape (n,), is said in rows where it is not NaN: those whose dates it was counted from.
    """
    if form is Form.SINGLE:
        return iter((_encode(_rows(found, maturity)[0]),))
    return _columns(found, maturity) if form is Form.COLUMNS else _list(found, maturity)


def _list(found: ImpliedVolatilities, maturity: FloatArray | None) -> Iterator[Part]:
    def encoded(rows: slice) -> bytes:
        return _encode(_rows(found.take(rows), None if maturity is None else maturity[rows]))

    return results_in_parts(len(found), encoded)


def _rows(found: ImpliedVolatilities, maturity: FloatArray | None) -> list[_Row]:
    columns = (found.volatility, found.error_bound, found.vega, found.method, found.outcome)
    rows = []
    for row, (volatility, bound, vega, method, outcome) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        if outcome == Outcome.FOUND:
            rows.append(_Row(volatility, bound, vega, _METHODS[method]))
            continue
        made = _Row(None, None, None, _METHODS[method], _LABELS[outcome], _price_range(found, row))
        if outcome in _OPEN:
            made.volatility_range = _volatility_range(found, row)
        rows.append(made)
    if maturity is not None:
        for made, years in zip(rows, maturity.tolist(), strict=True):
            made.maturity = UNSET if math.isnan(years) else years
    return rows


def _price_range(found: ImpliedVolatilities, row: int) -> tuple[float, float]:
    return float(found.price_low[row]) + 0.0, float(found.price_high[row]) + 0.0


def _volatility_range(found: ImpliedVolatilities, row: int) -> tuple[float, float | None]:
    highest = float(found.highest[row])
    return float(found.lowest[row]), highest if math.isfinite(highest) else None


def _columns(found: ImpliedVolatilities, maturity: FloatArray | None) -> Iterator[Part]:
    failed = found.outcome != Outcome.FOUND
    names = ("implied_volatility", "error_bound", "vega")
    yield b'{"columns":{'
    for name, column in zip(names, (found.volatility, found.error_bound, found.vega), strict=True):
        # A NaN becomes null.
        yield b'"%b":%b,' % (name.encode(), orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY))
    yield b'"method":' + _encode(list(map(_METHODS.__getitem__, found.method.tolist())))
    if failed.any():
        open_ = np.isin(found.outcome, _OPEN)
        prices = [_price_range(found, row) if no else None for row, no in enumerate(failed.tolist())]
        volatilities = [_volatility_range(found, row) if no else None for row, no in enumerate(open_.tolist())]
        yield b',"reason":' + _encode([_LABELS[code] or None for code in found.outcome.tolist()])
        yield b',"price_range":' + _encode(prices)
        yield b',"volatility_range":' + _encode(volatilities)
    if maturity is not None:
        yield b',"maturity":' + orjson.dumps(maturity, option=orjson.OPT_SERIALIZE_NUMPY)
    yield b"}}"
