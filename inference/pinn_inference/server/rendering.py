"""From quotes to the bytes of an answer, in the form in which the options came.

Rows are encoded from typed structures, some thousand at a time, which costs half of what dictionaries would. What only
some rows have, a `reason`, an `exercise_boundary` or two and a `maturity`, is left out of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import orjson

from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.second_order import Greek
from pinn_inference.pricing.types import BoolArray, FallbackReason, FloatArray, Method, Quotes
from pinn_inference.server.errors import NonFiniteResult
from pinn_inference.server.parsing import Form

Part: TypeAlias = bytes | memoryview
_NUMBERS: Final = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")
_METHODS: Final = tuple(method.label for method in sorted(Method))
_REASONS: Final = tuple(reason.label if reason else msgspec.UNSET for reason in sorted(FallbackReason))
_PIECE_ROWS: Final = 1024


class _Row(msgspec.Struct, gc=False):
    """One row of an answer; the fields' order is that of the JSON.

    `method` is more than its name says: the texts of `method` and `model`, which only a handful of ways differ, are
    written as one.
    """

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float
    method: msgspec.Raw
    error_bound: float
    cached: bool
    reason: str | msgspec.UnsetType = msgspec.UNSET
    exercise_boundary: float | msgspec.UnsetType | None = msgspec.UNSET
    maturity: float | msgspec.UnsetType = msgspec.UNSET
    greeks: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    far_exercise_boundary: float | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode


def render_quotes(
    quotes: Quotes,
    *,
    model: str,
    form: Form = Form.LIST,
    american_model: str = "",
    cached: BoolArray | None = None,
    maturity: FloatArray | None = None,
    greeks: Mapping[str, Greek] | None = None,
) -> bytes:
    """The JSON of an answer to `POST /v1/price`; arguments and errors as in `render_parts`."""
    parts = render_parts(
        quotes, model=model, form=form, american_model=american_model, cached=cached, maturity=maturity, greeks=greeks
    )
    return b"".join(parts)


def render_parts(
    quotes: Quotes,
    *,
    model: str,
    form: Form = Form.LIST,
    american_model: str = "",
    cached: BoolArray | None = None,
    maturity: FloatArray | None = None,
    greeks: Mapping[str, Greek] | None = None,
) -> Iterator[Part]:
    """The JSON of an answer in parts, to be sent one after the other.

    `model` and `american_model` name the models behind the rows of method `pinn`; other rows have `model` null, and say
    in `reason` why if the network should have priced them. `cached`, of shape (n,), marks rows that came from a cache.
    American rows have `exercise_boundary`, null if there is none at which the option would be exercised. `maturity`, of
    shape (n,), is said in rows where it is not NaN: those whose dates it was counted from. `greeks` are more of them,
    by name, null in rows where they have no answer.
    Raises NonFiniteResult before the first part, because JSON has no NaN and a silent null would be traded on.
    """
    finite = np.isfinite([getattr(quotes, name) for name in _NUMBERS]).all(axis=0)
    if not finite.all():
        raise NonFiniteResult(int(np.argmin(finite)))
    if form is Form.COLUMNS:
        return _columns(quotes, model, american_model, cached, maturity, greeks)
    if form is Form.SINGLE:
        rows = _rows(quotes, model, american_model, cached, maturity)
        _add(greeks, rows, 0)
        return iter((_encode(rows[0]),))
    return _list(quotes, model, american_model, cached, maturity, greeks)


def render_quote(quote: ScalarQuote, *, model: str) -> bytes:
    """The JSON of one quote, in about a microsecond; `model` names the model of its style.

    Raises NonFiniteResult like `render_parts`.
    """
    price, delta, gamma, vega, theta, rho, error_bound, boundary, method, reason, cached, far = quote
    total = price + delta + gamma + vega + theta + rho + error_bound
    # One subtraction tells for nearly every quote that all seven are finite.
    if total - total != 0.0 and not all(map(math.isfinite, quote[:7])):
        raise NonFiniteResult(0)
    return _encode(
        _Row(
            price + 0.0,  # as in `_unsigned_zeros`
            delta + 0.0,
            gamma + 0.0,
            vega + 0.0,
            theta + 0.0,
            rho + 0.0,
            _method_and_model(method, model),
            error_bound,
            cached,
            _REASONS[reason],
            _boundary(boundary),
            far_exercise_boundary=msgspec.UNSET if far != far else far,  # NaN
        )
    )


def _list(
    quotes: Quotes,
    model: str,
    american_model: str,
    cached: BoolArray | None,
    maturity: FloatArray | None,
    greeks: Mapping[str, Greek] | None,
) -> Iterator[Part]:
    def encoded(rows: slice) -> bytes:
        known = None if cached is None else cached[rows]
        told = None if maturity is None else maturity[rows]
        made = _rows(quotes.take(rows), model, american_model, known, told)
        _add(greeks, made, rows.start)
        return _encode(made)

    return results_in_parts(len(quotes), encoded)


def results_in_parts(size: int, encoded: Callable[[slice], bytes]) -> Iterator[Part]:
    """The JSON of a list answer of `size` rows; `encoded` gives some of the rows as a JSON list."""
    yield b'{"results":['
    for start in range(0, size, _PIECE_ROWS):
        if start:
            yield b","
        yield memoryview(encoded(slice(start, start + _PIECE_ROWS)))[1:-1]
    yield b"]}"


def _rows(
    quotes: Quotes, model: str, american_model: str, cached: BoolArray | None, maturity: FloatArray | None
) -> list[_Row]:
    price, delta, gamma, vega, theta, rho, error_bound = (
        _unsigned_zeros(getattr(quotes, name)).tolist() for name in _NUMBERS
    )
    american = ~np.isnan(quotes.exercise_boundary)
    any_american = bool(american.any())
    by_network = quotes.method == Method.PINN
    origins: Iterable[msgspec.Raw]
    if by_network.all() and not any_american:
        origins = repeat(_method_and_model(Method.PINN, model))
    else:
        known = [_method_and_model(method, model) for method in sorted(Method)]
        known.append(_method_and_model(Method.PINN, american_model))
        origins = map(known.__getitem__, np.where(by_network & american, len(Method), quotes.method).tolist())
    columns: list[Iterable[Any]] = [price, delta, gamma, vega, theta, rho, origins, error_bound]
    columns.append(repeat(False) if cached is None else cached.tolist())
    if any_american or quotes.reason.any() or maturity is not None:
        columns.append(map(_REASONS.__getitem__, quotes.reason.tolist()))
        columns.append(map(_boundary, quotes.exercise_boundary.tolist()))
    if maturity is not None:
        columns.append(msgspec.UNSET if years != years else years for years in maturity.tolist())  # NaN is not said
    rows = list(map(_Row, *columns))
    for row in np.flatnonzero(~np.isnan(quotes.far_boundary)).tolist():
        rows[row].far_exercise_boundary = float(quotes.far_boundary[row])
    return rows


@lru_cache(maxsize=64)
def _method_and_model(method: int, model: str) -> msgspec.Raw:
    named = _encode(model) if method == Method.PINN else b"null"
    return msgspec.Raw(b'%b,"model":%b' % (_encode(_METHODS[method]), named))


def _models(by_network: BoolArray, american: BoolArray, model: str, american_model: str) -> list[str | None]:
    labels = (None, model, american_model)
    return [labels[code] for code in np.where(by_network, 1 + american, 0).tolist()]


def _boundary(value: float) -> float | msgspec.UnsetType | None:
    """As JSON has it: absent for European options (NaN), null where no spot is one to exercise at (0 or infinite)."""
    if value != value:  # NaN
        return msgspec.UNSET
    return value if 0.0 < value < np.inf else None


def _add(greeks: Mapping[str, Greek] | None, rows: Sequence[_Row], start: int) -> None:
    """Say them in rows of an answer, of which the first is row `start` of all."""
    if greeks is None:
        return
    part = slice(start, start + len(rows))
    columns = {name: (_unsigned_zeros(each.value[part]).tolist(), each.error_bound[part].tolist())
               for name, each in greeks.items()}  # fmt: skip
    for number, row in enumerate(rows):
        row.greeks = {
            name: None if math.isnan(value[number]) else {"value": value[number], "error_bound": bound[number]}
            for name, (value, bound) in columns.items()
        }


def _columns(
    quotes: Quotes,
    model: str,
    american_model: str,
    cached: BoolArray | None,
    maturity: FloatArray | None,
    greeks: Mapping[str, Greek] | None,
) -> Iterator[Part]:
    american = ~np.isnan(quotes.exercise_boundary)
    yield b'{"columns":{'
    for name in _NUMBERS:
        yield b'"%b":%b,' % (name.encode(), _numbers(getattr(quotes, name)))
    yield b'"method":' + _encode(list(map(_METHODS.__getitem__, quotes.method.tolist())))
    yield b',"model":' + _encode(_models(quotes.method == Method.PINN, american, model, american_model))
    yield b',"cached":' + _encode([False] * len(quotes) if cached is None else cached.tolist())
    if quotes.reason.any():
        yield b',"reason":' + _encode([reason or None for reason in map(_REASONS.__getitem__, quotes.reason.tolist())])
    if american.any():
        has_boundary = american & (quotes.exercise_boundary > 0.0)
        # An infinity or NaN becomes null: no row has another boundary, and European rows have none.
        yield b',"exercise_boundary":' + _numbers(np.where(has_boundary, quotes.exercise_boundary, np.nan))
    if not np.isnan(quotes.far_boundary).all():
        yield b',"far_exercise_boundary":' + _numbers(quotes.far_boundary)
    if maturity is not None:
        yield b',"maturity":' + _numbers(maturity)
    for number, (name, each) in enumerate((greeks or {}).items()):
        yield b"," if number else b',"greeks":{'
        parts = (name.encode(), _numbers(each.value), _numbers(each.error_bound))  # a NaN becomes null
        yield b'"%b":{"value":%b,"error_bound":%b}' % parts
    if greeks:
        yield b"}"
    yield b"}}"


def _unsigned_zeros(column: FloatArray) -> FloatArray:
    """The column with 0.0 for −0.0, which an answer would show as a number below zero."""
    return column + 0.0


def _numbers(column: FloatArray) -> bytes:
    return orjson.dumps(np.ascontiguousarray(_unsigned_zeros(column)), option=orjson.OPT_SERIALIZE_NUMPY)
