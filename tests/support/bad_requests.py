"""A seeded generator of requests that are wrong in one known way each, for every endpoint that takes a POST.

Each request says what must come back: the statuses that are right for it, and the field that the answer has to name.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import string
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from pinn_inference.server.dividends import MAX_DIVIDENDS
from pinn_inference.server.implied_volatility import PATH as IMPLIED
from pinn_inference.server.parsing import FIELDS
from pinn_inference.server.scenarios import PATH as SCENARIOS
from tests.support.oip import PUT_COLUMNS, binary_request, bytes_elements, json_request, with_input
from tests.support.server import PUT

Draw = random.Random
MAX_BODY_BYTES: Final = 200_000
MAX_BATCH: Final = 1000
"""Settings of the server that the requests are for: small, so that too large is soon reached."""

PRICE: Final = "/v1/price"
INFER: Final = ("/v2/models/european/infer", "/v2/models/american/infer")
BODYLESS: Final = ("/cache/reset", "/health/pinn/warmup")
_NUMBERS: Final = [field.name for field in FIELDS]
_REQUIRED: Final = [field.name for field in FIELDS if field.default is None]


@dataclass(frozen=True, slots=True)
class BadRequest:
    """What is sent, and what may come back. `raw` replaces everything else: it is written to the socket as it is."""

    kind: str
    path: str = PRICE
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: frozenset[int] = frozenset((400,))
    names: str | None = None
    """What `faults[].field` or the error's text has to contain."""
    raw: bytes | None = None
    may_close: bool = False
    """The server may close the connection without an answer."""


class Raw(str):
    """Text that stands in the JSON as it is, such as NaN or a number of 400 digits."""

    __slots__ = ()


def dumps(document: Any) -> bytes:
    """JSON in which a `Raw` is no string."""
    raws: list[str] = []

    def replaced(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(value)
            return f"@raw{len(raws) - 1}@"
        if isinstance(value, dict):
            return {key: replaced(each) for key, each in value.items()}
        return [replaced(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(replaced(document))
    for index, raw in enumerate(raws):
        text = text.replace(f'"@raw{index}@"', raw)
    return text.encode("utf-8", "surrogatepass")


def bad_requests(seed: int, count: int) -> Iterator[BadRequest]:
    """`count` requests, every kind in turn; the same for the same seed."""
    for index in range(count):
        yield _KINDS[index % len(_KINDS)](random.Random(f"{seed}/{index}"))


# --- values -----------------------------------------------------------------------------------------------------------


def _word(draw: Draw) -> str:
    letters = string.ascii_letters + "éπ雪\u2028\x7f🙂"
    return "".join(draw.choices(letters, k=draw.randint(1, 12)))


def _no_number(draw: Draw, name: str) -> Any:
    """A value that is wrong for a number of this name."""
    bounds = next(each for each in FIELDS if each.name == name)
    return draw.choice(
        [
            Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"), Raw("-1e999"), Raw("1" + "0" * 400),
            Raw("-" + "9" * 30), None, True, False, "", "100", "NaN", _word(draw), [], [1.0], {}, {"value": 1.0},
            [[[[]]]], math.nextafter(bounds.low, -math.inf), math.nextafter(bounds.high, math.inf),
            bounds.high * 10 ** draw.uniform(0.1, 200), bounds.low - 10 ** draw.uniform(-2, 200), 2**63, -(2**64),
        ]
    )  # fmt: skip


def _no_word(draw: Draw) -> Any:
    return draw.choice(["Call", "PUT", "", " call", "straddle", "europeen", 1, 0, True, None, [], ["call"], {}, 1.5,
                        Raw("NaN"), _word(draw) + "!"])  # fmt: skip


def _option(draw: Draw) -> dict[str, Any]:
    return {**PUT, "spot": draw.uniform(50, 150), "volatility": draw.uniform(0.05, 0.8)}


def _infer_path(draw: Draw) -> str:
    return draw.choice(INFER)


# --- POST /v1/price ---------------------------------------------------------------------------------------------------


def _in_some_form(
    draw: Draw,
    option: dict[str, Any],
    kind: str,
    names: str,
    *,
    good: Callable[[Draw], dict[str, Any]] = _option,
    path: str = PRICE,
) -> BadRequest:
    """The option alone, or one bad row among good ones."""
    document: Any = option
    if draw.random() < 0.5:
        rows = [good(draw) for _ in range(draw.randint(1, 40))]
        rows.insert(draw.randint(0, len(rows)), option)
        document = {"options": rows}
    return BadRequest(kind, path, dumps(document), names=names)


def bad_value(draw: Draw) -> BadRequest:
    name = draw.choice(_NUMBERS)
    return _in_some_form(draw, {**_option(draw), name: _no_number(draw, name)}, "value", name)


def bad_word(draw: Draw) -> BadRequest:
    name = draw.choice(["option_type", "style"])
    return _in_some_form(draw, {**_option(draw), name: _no_word(draw)}, "word", name)


def absent_field(draw: Draw) -> BadRequest:
    name = draw.choice(_REQUIRED)
    option = {key: value for key, value in _option(draw).items() if key != name}
    return _in_some_form(draw, option, "absent field", name)


def unknown_field(draw: Draw) -> BadRequest:
    name = draw.choice(["vol", "Spot", "spot ", "\ud800", "", "__proto__", _word(draw) + "x"])
    shown = name.encode("utf-8", "replace").decode()
    return _in_some_form(draw, {**_option(draw), name: draw.choice([1.0, None, "x"])}, "unknown field", shown)


def bad_list(draw: Draw) -> BadRequest:
    rows = draw.choice([[], None, {}, "x", 3, True, [1], [None], [[]], ["spot"], [_option(draw), 7]])
    return BadRequest("list", body=dumps({"options": rows}), names="options")


def bad_column(draw: Draw) -> BadRequest:
    size = draw.randint(2, 30)
    columns = {name: [value] * size for name, value in PUT_COLUMNS.items()}
    name = draw.choice(_NUMBERS)
    how = draw.randrange(4)
    if how == 0:
        columns[name][draw.randrange(size)] = _no_number(draw, name)
    elif how == 1:
        columns[name] = columns[name][:-1]
        name = ""  # which of the lists is the wrong one, nobody knows
    elif how == 2:
        name = draw.choice(_REQUIRED)
        del columns[name]
    else:
        name = draw.choice(["vol", _word(draw) + "x"])
        columns[name] = [1.0] * size
    return BadRequest("column", body=dumps({"columns": columns}), names=name)


def too_many(draw: Draw) -> BadRequest:
    size = MAX_BATCH + draw.randint(1, 50)
    if draw.random() < 0.5:
        body = dumps({"columns": {**PUT_COLUMNS, "strike": [95] * size}})
        return BadRequest("too many", body=body, statuses=frozenset((413,)))
    body = dumps({**json_request(), "inputs": [{"name": "spot", "shape": [size], "datatype": "FP64", "data": [1.0]}]})
    return BadRequest("too many", path=_infer_path(draw), body=body, statuses=frozenset((413,)))


# --- dates, dividends, more Greeks, and POST /v1/implied-volatility ---------------------------------------------------


def bad_moment(draw: Draw) -> BadRequest:
    """An expiry, or a valuation time, that is no moment, or that nothing can be made of."""
    option = {name: value for name, value in _option(draw).items() if name != "maturity"}
    field, more = draw.choice(
        [
            ("expiry", {"expiry": draw.choice([
                "", "soon", "2030-02-30", "2030-13-01", "2030-1-1", "2030-01-01T10:00", "2030-01-01T25:00Z", "20300101",
                "2030-01-01T10:00:60Z", "2030-01-01 10:00+99:00", "１０３０-01-01", "2030-01-01\n", " 2030-01-01",
                "-2030-01-01", "0000-01-01", "9999-12-31", "1999-01-01", "2030-01-01T" + "1" * 5000 + "Z", 20300101,
                1893456000.0, None, True, [], {}, Raw("NaN"), _word(draw),
            ])}),
            ("expiry", {"expiry": "2030-01-01", "maturity": 1.0}),
            ("expiry", {"expiry": "2030-01-01", "valuation_time": "2030-01-02"}),
            ("valuation_time", {"maturity": 1.0, "valuation_time": "2026-01-01"}),
            ("valuation_time", {"expiry": "2030-01-01", "valuation_time": draw.choice(["now", 0, None, {}, "12:00"])}),
        ]
    )  # fmt: skip
    return _in_some_form(draw, {**option, **more}, "moment", field)


def bad_dividend(draw: Draw) -> BadRequest:
    good = {"time": 0.25, "amount": 0.5}
    number = draw.choice([Raw("NaN"), Raw("1e999"), -1.0, -1e-300, 1e300, "1", None, True, [], {}, 2**70])
    dividends = draw.choice(
        [
            None, {}, "x", 1.5, True, good, [1], [None], [[good]], ["x"], [{}], [{"time": 0.25}], [{"amount": 0.5}],
            [{**good, "amount": number}], [{**good, "time": number}], [good, {**good, "ex_date": "2030-01-01"}],
            [{"ex_date": draw.choice(["x", 5, None, "2030-02-30"]), "amount": 0.5}], [{**good, "date": "2030-01-01"}],
            [{**good, _word(draw) + "x": 1}], [good] * (MAX_DIVIDENDS + 1), [{**good, "amount": 1e6}], [good, []],
        ]
    )  # fmt: skip
    return _in_some_form(draw, {**_option(draw), "dividends": dividends}, "dividend", "dividends")


def bad_greeks(draw: Draw) -> BadRequest:
    names = draw.choice(
        [None, [], {}, "vanna", 1, True, ["delta2"], ["vanna", "vanna"], ["Vanna"], [None], [[]], ["vanna", 1], [""],
         [_word(draw) + "x"], ["vanna"] * 500]
    )  # fmt: skip
    bad = _in_some_form(draw, _option(draw), "greeks", "greeks")
    return replace(bad, body=dumps({**json.loads(bad.body), "greeks": names}))


def _priced_option(draw: Draw) -> dict[str, Any]:
    option = _option(draw)
    del option["volatility"]
    return {**option, "price": draw.uniform(1.0, 20.0)}


def bad_priced_option(draw: Draw) -> BadRequest:
    """One that no volatility is looked for."""
    option = _priced_option(draw)
    no_price = [
        Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 400), None, True, "", "3.5", [], {}, [1.0], [[]], 10**400,
    ]  # fmt: skip
    number = draw.choice([name for name in _NUMBERS if name != "volatility"])
    field, changes = draw.choice(
        [
            ("price", {"price": draw.choice(no_price)}),
            ("price", {"price": draw.choice(no_price)}),
            (number, {number: _no_number(draw, number)}),
            ("volatility", {"volatility": draw.choice([0.2, None, "x"])}),
            ("dividends", {"dividends": draw.choice([None, {}, [1], [{"time": 0.1, "amount": -1.0}]])}),
            ("dividends", {"style": "american", "dividends": [{"time": 0.1, "amount": 1.0}]}),
            ("style", {"style": _no_word(draw)}),
            ("expiry", {"expiry": "2030-01-01"}),
            ("rate", {"style": "american", "rate": -0.01, "dividend": -0.05}),
            ("greeks", {"greeks": ["vanna"]}),
        ]
    )
    return _in_some_form(draw, {**option, **changes}, "priced option", field, good=_priced_option, path=IMPLIED)


def bad_scenario(draw: Draw) -> BadRequest:
    """A grid that nothing can be made of, or a position that is none."""
    number = draw.choice([Raw("NaN"), Raw("-Infinity"), Raw("9" * 400), None, True, "1", [], {}, 1e300])
    axis = draw.choice(["spot", "volatility", "rate", "time"])
    field, more = draw.choice(
        [
            ("ladders", {"ladders": draw.choice([None, {}, [], "x", 1, [[1]]])}),
            ("ladders", {}),
            ("ladders", {"ladders": {axis: [1], _word(draw) + "x": [1]}}),
            (f"ladders.{axis}", {"ladders": {axis: draw.choice([[], None, 1, "x", {}, [1] * 1001])}}),
            (f"ladders.{axis}", {"ladders": {axis: [1, number]}}),
            ("ladders.spot[0]", {"ladders": {"spot": [draw.choice([0, -1, 1e12])]}}),
            ("ladders.time[0]", {"ladders": {"time": [-1e-9]}}),
            ("ladders.volatility[1]", {"ladders": {"volatility": [0, draw.choice([-1, 11])]}}),
            ("per_option", {"ladders": {"spot": [1]}, "per_option": draw.choice([0, 1, None, "true", []])}),
            ("greeks", {"ladders": {"spot": [1]}, "greeks": ["vanna"]}),
        ]
    )
    positions = _in_some_form(draw, _option(draw), "scenario", field)
    if draw.random() < 0.2:
        wrong = {**_option(draw), "quantity": draw.choice([Raw("NaN"), None, "1", True, 1e13, [], {}])}
        positions, more = _in_some_form(draw, wrong, "scenario", "quantity"), {"ladders": {"spot": [1]}}
    document = json.loads(positions.body, parse_constant=Raw)
    return replace(positions, path=SCENARIOS, body=dumps({**document, **more}))


# --- the Open Inference Protocol --------------------------------------------------------------------------------------


def bad_element(draw: Draw) -> BadRequest:
    rows, name = draw.randint(1, 30), draw.choice(_NUMBERS)
    data: list[Any] = [PUT_COLUMNS[name]] * rows
    data[draw.randrange(rows)] = _no_number(draw, name)
    body = dumps(with_input(json_request(rows), name, data=data))
    return BadRequest("element", path=_infer_path(draw), body=body, names=name)


def bad_binary_element(draw: Draw) -> BadRequest:
    rows, name = draw.randint(1, 200), draw.choice(_NUMBERS)
    columns = _raw_columns(rows)
    column = np.frombuffer(columns[name]).copy()
    column[draw.randrange(rows)] = draw.choice([np.nan, np.inf, -np.inf, 1e300, -1e300])
    body, length = binary_request({**columns, name: column.tobytes()}, shape=[rows])
    return BadRequest("binary element", _infer_path(draw), body, headers=_length(length), names=name)


def bad_kind(draw: Draw) -> BadRequest:
    rows = draw.randint(2, 20)
    datatype = draw.choice(["BYTES", "INT8", "BOOL"])
    good: Any = {"BYTES": "put", "INT8": 1, "BOOL": True}[datatype]
    data: list[Any] = [good] * rows
    wrong = {"BYTES": ["Put", "", 1, None, []], "INT8": [2, -1, 1.0, True, "1"], "BOOL": [1, 0, "true", None]}
    data[draw.randrange(rows)] = draw.choice(wrong[datatype])
    body = dumps(with_input(json_request(rows), "option_type", datatype=datatype, data=data))
    return BadRequest("kind", path=_infer_path(draw), body=body, names="option_type")


def bad_binary_kind(draw: Draw) -> BadRequest:
    rows = draw.randint(2, 60)
    good = bytearray(bytes_elements(draw.choices(["call", "put"], k=rows)))
    spoilt = bytearray(good)
    while spoilt == good:
        spoilt[draw.randrange(len(good))] = draw.randrange(256)
    body, length = binary_request({**_raw_columns(rows), "option_type": bytes(spoilt)}, shape=[rows])
    return BadRequest("binary kind", _infer_path(draw), body, headers=_length(length), names="option_type")


def bad_frame(draw: Draw) -> BadRequest:
    """A field of one input is wrong."""
    name = draw.choice(_REQUIRED)
    key = draw.choice(["shape", "datatype", "data", "parameters"])
    values: dict[str, list[Any]] = {
        "shape": [..., [], [0], [-1], [1.0], [True], [2], [1, 2], [1, 1, 1], "1", 1, None, {}, [2**63], [10**300]],
        "datatype": [..., "FP16", "fp64", "BYTES", "INT128", "", 64, None, [], {}],
        "data": [..., [], [1.0, 1.0], 1.0, "1.0", None, {}, [[1.0]], [[[1.0]]]],
        "parameters": [
            [], 7, None, "x", {"binary_data_size": 8}, {"binary_data_size": -1}, {"binary_data_size": "8"},
            {"shared_memory_region": "r", "shared_memory_byte_size": 8},
        ],
    }  # fmt: skip
    body = dumps(with_input(json_request(), name, **{key: draw.choice(values[key])}))
    return BadRequest("frame", path=_infer_path(draw), body=body, names=name)


def bad_request_field(draw: Draw) -> BadRequest:
    """A field at the top of an infer request is wrong."""
    key, value = draw.choice(
        [
            ("id", 42), ("id", []), ("id", True), ("inputs", None), ("inputs", []), ("inputs", {}), ("inputs", [None]),
            ("inputs", [7]), ("inputs", [{}]), ("inputs", [{"name": "tau"}]), ("inputs", [{}] * 300),
            ("outputs", "price"), ("outputs", {}), ("outputs", ["price"]), ("outputs", [{}]),
            ("outputs", [{"name": "vanna"}]), ("outputs", [{"name": "price"}] * 2),
            ("outputs", [{"name": "price", "parameters": {"binary_data": "yes"}}]), ("parameters", []),
            ("parameters", {"binary_data_output": 1}), ("model_name", "other"), ("model_version", "other"),
            ("request", {}), ("Inputs", []),
        ]
    )  # fmt: skip
    return BadRequest("request field", _infer_path(draw), dumps({**json_request(), key: value}), names=key)


def absent_input(draw: Draw) -> BadRequest:
    name, request = draw.choice(_REQUIRED), json_request()
    request["inputs"] = [each for each in request["inputs"] if each["name"] != name]
    return BadRequest("absent input", path=_infer_path(draw), body=dumps(request), names=name)


def bad_length(draw: Draw) -> BadRequest:
    rows = draw.randint(1, 30)
    body, length = binary_request(_raw_columns(rows), shape=[rows])
    wrong = draw.choice(["", "x", "-1", "1.5", "0", str(len(body) + 1), "9" * 40, str(int(length) - 1), "1e2",
                         str(int(length) + draw.randint(1, 7)), f"{length}, {length}", "0x10"])  # fmt: skip
    return BadRequest("length header", _infer_path(draw), body, headers=_length(wrong))


def no_length(draw: Draw) -> BadRequest:
    body, _ = binary_request(_raw_columns(2), shape=[2])
    return BadRequest("no length header", _infer_path(draw), body)


def truncated_tensors(draw: Draw) -> BadRequest:
    rows = draw.randint(1, 300)
    body, length = binary_request(_raw_columns(rows), shape=[rows])
    cut = draw.randint(int(length), len(body) - 1)
    names = "binary_data_size"
    if draw.random() < 0.3:
        return BadRequest("surplus bytes", _infer_path(draw), body + b"\0" * draw.randint(1, 99), names="body",
                          headers=_length(length))  # fmt: skip
    return BadRequest("truncated tensors", _infer_path(draw), body[:cut], headers=_length(length), names=names)


def wrong_model(draw: Draw) -> BadRequest:
    path = draw.choice(
        [f"/v2/models/{_name(draw)}x/infer", f"/v2/models/european/versions/{_name(draw)}/infer",
         "/v2/models/European/infer", "/v2/models/%00/infer", "/v2/models/european%2F/infer",
         "/v2/models/%ff/infer", "/v2/models/american/versions/-1/infer"]
    )  # fmt: skip
    return BadRequest("model", path, dumps(json_request()), statuses=frozenset((404,)))


# --- any body ---------------------------------------------------------------------------------------------------------


def _valid(draw: Draw) -> tuple[str, bytes]:
    """A path and a body that would be right."""
    path, option = draw.choice([(PRICE, _option), (IMPLIED, _priced_option), (INFER[0], _option), (INFER[0], _option)])
    if path in (PRICE, IMPLIED):
        many = {"options": [option(draw) for _ in range(draw.randint(1, 30))]}
        return path, json.dumps(draw.choice([option(draw), many])).encode()
    return _infer_path(draw), json.dumps(json_request(draw.randint(1, 30))).encode()


def broken_json(draw: Draw) -> BadRequest:
    path, body = _valid(draw)
    text = body.decode()
    cut = draw.randint(0, len(body) - 1)
    broken = draw.choice(
        [
            body[:cut],
            body + draw.choice([b"}", b",", b"{}", b"x", b"\0", b"//"]),
            draw.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b"#", b"\xef\xbb\xbf", b"\x80"]) + body,
            text.replace('"', "'").encode(),
            text.encode("utf-16"),
            text.encode("utf-32-le"),
            text.replace(",", ",,", 1).encode(),
            text.replace(":", "=", 1).encode(),
            body[:-1] + b",}",
            body.replace(b'"spot"', b"spot", 1) if path not in INFER else body.replace(b'"name"', b"name", 1),
            draw.randbytes(draw.randint(1, 2000)),
        ]
    )
    return BadRequest("broken json", path, broken, names="body")


def no_object(draw: Draw) -> BadRequest:
    body = draw.choice([b"", b" ", b"null", b"1", b'"x"', b"[]", b"true", b"[{}]", b"-0", b"1e400"])
    return BadRequest("no object", draw.choice([PRICE, IMPLIED, SCENARIOS, *INFER]), body, names="body")


def empty_object(draw: Draw) -> BadRequest:
    path = draw.choice([PRICE, IMPLIED, SCENARIOS, *INFER])
    return BadRequest("empty object", path, b"{}", names="inputs" if path in INFER else "spot")


def deep_nesting(draw: Draw) -> BadRequest:
    depth = draw.choice([100, 900, 1100, 5000, 60_000])
    path = draw.choice([PRICE, IMPLIED, SCENARIOS, *INFER])
    nested = draw.choice([b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth])
    if len(nested) > MAX_BODY_BYTES - 1000:
        nested = b"[" * 50_000 + b"]" * 50_000
    wrapped = draw.choice([nested, b'{"spot":' + nested + b"}", b'{"inputs":' + nested + b"}",
                           b'{"options":' + nested + b"}", b'{"columns":' + nested + b"}"])  # fmt: skip
    return BadRequest("deep nesting", path, wrapped)


def bad_compression(draw: Draw) -> BadRequest:
    path, body = _valid(draw)
    packed = gzip.compress(body)
    encoding, data = draw.choice(
        [
            ("gzip", body), ("gzip", packed[: len(packed) // 2]), ("gzip", b"\x1f\x8b"),
            ("deflate", packed), ("gzip", packed[:30] + draw.randbytes(20) + packed[50:]), ("gzip", b""),
            ("deflate", zlib.compress(body)[:-9]), ("gzip", gzip.compress(b"{}")), ("deflate", draw.randbytes(100)),
        ]
    )  # fmt: skip
    return BadRequest("compression", path, data, headers={"Content-Encoding": encoding})


def bomb(draw: Draw) -> BadRequest:
    inflated = draw.choice([b" ", b"[", b'{"a":', b"1,"]) * draw.choice([MAX_BODY_BYTES + 1, 4_000_000])
    packed = _bomb(inflated, draw.choice(["gzip", "deflate"]))
    path = draw.choice([PRICE, IMPLIED, SCENARIOS, *INFER])
    return BadRequest("bomb", path, packed[1], headers={"Content-Encoding": packed[0]}, statuses=frozenset((413,)))


_bombs: dict[tuple[bytes, int, str], bytes] = {}


def _bomb(inflated: bytes, encoding: str) -> tuple[str, bytes]:
    key = (inflated[:5], len(inflated), encoding)
    if key not in _bombs:
        _bombs[key] = gzip.compress(inflated) if encoding == "gzip" else zlib.compress(inflated)
    return encoding, _bombs[key]


def too_large(draw: Draw) -> BadRequest:
    path, body = _valid(draw)
    padded = b" " * (MAX_BODY_BYTES + draw.randint(1, 5000)) + body
    return BadRequest("too large", path, padded, statuses=frozenset((413,)), may_close=True)


# --- methods, paths, HTTP itself --------------------------------------------------------------------------------------


def _name(draw: Draw) -> str:
    return "".join(draw.choices(string.ascii_lowercase + string.digits + "-_.~", k=draw.randint(1, 30)))


def wrong_method(draw: Draw) -> BadRequest:
    path, body = _valid(draw)
    path = draw.choice([path, path, *BODYLESS])
    method = draw.choice(["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"])
    # A method that HTTP does not know is refused before anything looks at the path.
    statuses = frozenset((400 if method == "BREW" else 405,))
    return BadRequest("method", path, body, method=method, statuses=statuses)


def wrong_path(draw: Draw) -> BadRequest:
    path = draw.choice(
        [f"/{_name(draw)}", "/v1/price/", "/v1//price", "//v1/price", "/v1/prices", "/V1/price", "/v1/price%20",
         "/v1/../v1/prices", f"/v1/price/{_name(draw)}", "/v2/models", "/v2/models/european/infer/", "/v1/price;x=1",
         "/v2/models//infer", "/%2e%2e/%2e%2e/etc/passwd", "/" + "a" * 3000, "/v1/%ff", "/v1/%7f", "/v1/price/%00",
         f"/cache/{_name(draw)}"]
    )  # fmt: skip
    return BadRequest("path", path, dumps(_option(draw)), statuses=frozenset((404,)))


def bad_http(draw: Draw) -> BadRequest:
    """Broken below the level at which a handler is asked; an answer, if one comes, is a 4xx."""
    body = json.dumps(_option(draw)).encode()
    size = len(body)
    head = b"POST /v1/price HTTP/1.1\r\nHost: t\r\n"
    raw = draw.choice(
        [
            head + b"Content-Length: -5\r\n\r\n" + body,
            head + b"Content-Length: ten\r\n\r\n" + body,
            head + b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (size, size + 1) + body,
            head + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % size + body,
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body + b"\r\n0\r\n\r\n",
            head + b"Transfer-Encoding: gzip, banana\r\n\r\n" + body,
            head + b"Content-Length: %d\r\n\r\n" % (size + 50) + body,  # the rest never comes
            head + b"Content-Length: %d\r\n\r\n" % (size - 9) + body,  # the rest is no request
            head + b"Bad Header\r\n\r\n",
            head + b": empty\r\n\r\n",
            head + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
            b"POST  /v1/price HTTP/1.1\r\n\r\n",
            b"POST /v1/price HTTP/9.9\r\nHost: t\r\n\r\n",
            b"POST /v1/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
            b"GARBAGE\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(200),  # TLS
            b"\0" * 100 + b"\r\n\r\n",
            draw.randbytes(300) + b"\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    )
    return BadRequest("http", raw=raw, statuses=frozenset((400, 404, 405, 408, 411, 413, 414, 431)), may_close=True)


def _raw_columns(rows: int) -> dict[str, bytes]:
    columns = {name: np.full(rows, value).tobytes() for name, value in PUT_COLUMNS.items()}
    return {**columns, "option_type": bytes_elements(["put"] * rows)}


def _length(text: str) -> dict[str, str]:
    return {"Inference-Header-Content-Length": text}


_KINDS: Final[list[Callable[[Draw], BadRequest]]] = [
    bad_value, bad_word, absent_field, unknown_field, bad_list, bad_column, bad_element, bad_binary_element, bad_kind,
    bad_binary_kind, bad_frame, bad_request_field, absent_input, bad_length, no_length, truncated_tensors, wrong_model,
    broken_json, no_object, empty_object, deep_nesting, bad_compression, wrong_method, wrong_path, bad_http, too_many,
    bad_value, bad_element, bad_frame, broken_json, bomb, too_large, bad_moment, bad_dividend, bad_greeks,
    bad_priced_option, bad_scenario,
]  # fmt: skip
