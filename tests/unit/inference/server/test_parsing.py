"""Validation of pricing requests: what is accepted, and how exactly a fault is told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import COLUMNS, OptionBatch
from pinn_inference.server import parsing
from pinn_inference.server.errors import MAX_FAULTS, BatchTooLarge, InvalidRequest
from pinn_inference.server.parsing import FIELDS, Form, parse_price_request, read_option
from tests.support.server import PUT

Json = Any
_number = {field.name: st.floats(field.low, field.high) for field in FIELDS}


_valid = st.fixed_dictionaries(
    {name: value for name, value in _number.items() if name != "dividend"},
    optional={
        "dividend": _number["dividend"],
        "option_type": st.sampled_from(["call", "put"]),
        "style": st.sampled_from(["european", "american"]),
    },
)
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def faults(document: Json | bytes, **limits: int) -> list[dict[str, Any]]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse_price_request(body, **{"max_batch": 1000, **limits})
    found = caught.value.details()["faults"]
    assert isinstance(found, list)
    return found


def test_one_option_becomes_a_batch_of_one() -> None:
    request = parse_price_request(json.dumps(PUT).encode(), max_batch=1)
    assert not request.many
    assert request.options.strike.tolist() == [95.0]
    assert request.options.is_call.tolist() == [False]


def test_dividend_type_and_style_have_defaults() -> None:
    bare = {name: PUT[name] for name in ("spot", "strike", "maturity", "rate", "volatility")}
    request = parse_price_request(json.dumps({"options": [bare]}).encode(), max_batch=1)
    assert request.many
    assert request.options.dividend.tolist() == [0.0]
    assert request.options.is_call.tolist() == [True]


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), "100", True, None, [], {}, -1e300, 10**400])
def test_a_value_that_is_no_usable_number_is_named_with_its_field(name: str, bad: Json) -> None:
    body = json.dumps({**PUT, name: 0}).replace(
        f'"{name}": 0', f'"{name}": {json.dumps(bad) if bad != 10**400 else "1" + "0" * 400}'
    )
    found = faults(body.encode())
    assert [fault["field"] for fault in found] == [name]
    assert "must be a number from" in found[0]["message"]
    assert "index" not in found[0]


@pytest.mark.parametrize("name", ["spot", "strike", "maturity", "volatility"])
def test_a_negative_value_is_refused_and_shown(name: str) -> None:
    assert faults({**PUT, name: -0.5})[0]["value"] == -0.5


def test_rates_may_be_negative() -> None:
    assert parse_price_request(json.dumps({**PUT, "rate": -0.02}).encode(), max_batch=1).options.rate[0] == -0.02


@pytest.mark.parametrize("name", ["spot", "strike", "maturity", "rate", "volatility"])
def test_an_absent_field_is_named_as_required(name: str) -> None:
    found = faults({key: value for key, value in PUT.items() if key != name})
    assert found[0]["field"] == name
    assert found[0]["message"].startswith("is required")
    assert "value" not in found[0]


def test_an_unknown_field_is_an_error_that_lists_the_known_ones() -> None:
    found = faults({**PUT, "vol": 0.2})
    assert (found[0]["field"], found[0]["value"]) == ("vol", 0.2)
    assert "volatility" in found[0]["message"]


@pytest.mark.parametrize(
    ("name", "bad"), [("option_type", "Put"), ("option_type", 1), ("style", "bermudan"), ("style", [])]
)
def test_type_and_style_must_be_one_of_their_words(name: str, bad: Json) -> None:
    found = faults({**PUT, name: bad})
    assert found[0]["field"] == name
    assert found[0]["message"].startswith('must be "')


def test_every_fault_of_every_option_is_reported_with_its_index() -> None:
    rows = [PUT, {**PUT, "spot": -1, "volatility": "x"}, PUT, 7, {**PUT, "strike": None}]
    found = faults({"options": rows})
    assert [(fault["index"], fault["field"]) for fault in found] == [
        (1, "spot"),
        (1, "volatility"),
        (3, ""),
        (4, "strike"),
    ]


def test_a_flood_of_faults_is_counted_but_not_listed_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_price_request(json.dumps({"options": [{}] * 500}).encode(), max_batch=1000)
    assert caught.value.details()["fault_count"] == 2500
    assert len(caught.value.details()["faults"]) == MAX_FAULTS


def test_the_message_names_index_field_value_and_what_would_be_right() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_price_request(json.dumps({"options": [PUT, {**PUT, "volatility": -0.2}]}).encode(), max_batch=10)
    expected = "options[1].volatility is -0.2: must be a number from 0 to 10 (decimal per year: 0.2 is 20 %)"
    assert str(caught.value) == expected


def test_fields_beside_a_list_of_options_are_an_error() -> None:
    found = faults({"options": [PUT], "spot": 100})
    assert found[0]["field"] == "spot"
    assert "inside each option" in found[0]["message"]


@pytest.mark.parametrize("rows", [[], None, {}, "x", 3])
def test_options_must_be_a_list_that_is_not_empty(rows: Json) -> None:
    assert faults({"options": rows})[0]["message"] == "must be a list of 1 to 1000 options"


def test_a_list_longer_than_the_limit_is_too_large() -> None:
    with pytest.raises(BatchTooLarge, match="holds 3 options: at most 2"):
        parse_price_request(json.dumps({"options": [PUT] * 3}).encode(), max_batch=2)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000, json.dumps(PUT).encode("utf-16")])
def test_what_is_not_a_json_object_is_said_to_be_so(body: bytes) -> None:
    assert faults(body)[0]["field"] == "body"


def test_long_and_broken_text_is_shown_short_and_clean() -> None:
    found = faults(b'{"spot": "' + b"x" * 1000 + b'", "\\ud800": NaN}')
    assert len(found[0]["value"]) == 65
    assert found[-1]["field"] == "?"


@given(st.lists(_valid, min_size=1, max_size=5))
def test_whatever_is_accepted_has_finite_prices_and_greeks(rows: list[dict[str, Json]]) -> None:
    quotes = closed_form.price(parse_price_request(json.dumps({"options": rows}).encode(), max_batch=5).options)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound"):
        assert np.isfinite(getattr(quotes, name)).all(), name


def _refusals(document: Json) -> list[Any]:
    try:
        parse_price_request(json.dumps({"options": document}).encode(), max_batch=5)
    except InvalidRequest as error:
        return [fault.as_json() for fault in error.faults]
    return []


_spoilt = _valid.flatmap(
    lambda row: st.builds(lambda name, value: {**row, name: value}, st.sampled_from([*row]), _anything)
)


@given(st.lists(_valid | _anything | _spoilt, min_size=1, max_size=4))
def test_a_list_is_refused_for_exactly_the_faults_of_its_options(rows: list[Json]) -> None:
    alone = [{**fault, "index": index} for index, row in enumerate(rows) for fault in _refusals([row])]
    together = _refusals(rows)
    assert json.dumps(together, allow_nan=False) == json.dumps(alone, allow_nan=False)


# --- styles and columns -----------------------------------------------------------------------------------------------


def columns_of(rows: list[dict[str, Json]]) -> dict[str, list[Json]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_american_options_are_marked_as_such() -> None:
    rows = [PUT, {**PUT, "style": "american"}]
    assert parse_price_request(json.dumps({"options": rows}).encode(), max_batch=2).options.is_american.tolist() == [
        False,
        True,
    ]


def test_columns_are_the_same_options_as_rows() -> None:
    rows = [{**PUT, "spot": 90 + index, "option_type": ("call", "put")[index % 2]} for index in range(5)]
    by_rows = parse_price_request(json.dumps({"options": rows}).encode(), max_batch=5)
    by_columns = parse_price_request(json.dumps({"columns": columns_of(rows)}).encode(), max_batch=5)
    assert (by_rows.form, by_columns.form) == (Form.LIST, Form.COLUMNS)
    assert_same(by_rows.options, by_columns.options)


def test_a_single_value_stands_for_every_row_of_the_columns() -> None:
    columns = {"spot": [90, 100], "strike": 95, "maturity": 1, "rate": 0.03, "volatility": 0.2, "style": "american"}
    batch = parse_price_request(json.dumps({"columns": columns}).encode(), max_batch=2).options
    assert batch.strike.tolist() == [95.0, 95.0]
    assert batch.dividend.tolist() == [0.0, 0.0]
    assert batch.is_call.tolist() == [True, True]
    assert batch.is_american.tolist() == [True, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"spot": [100, -1]}, "options[1].spot is -1: must be a number from 0.000001"),
        ({"rate": "x"}, 'rate is "x": must be a number from -1 to 1'),
        ({"strike": [1, 2, 3]}, 'strike is "a list of 3": must be as long as the other lists: spot is a list of 2'),
        ({"option_type": ["put", "Put"]}, 'options[1].option_type is "Put": must be "call" or "put"'),
        ({"vol": 0.2}, "vol is 0.2: is not a field of an option"),
        ({"vol": [0.2, 0.2]}, 'vol is "a list of 2": is not a field of an option'),
        ({"spot": 100}, 'columns is "an object of 8 fields": must hold at least one list'),
        ({"spot": []}, 'spot is "a list of 0": must be a list of 1 to 1000 values'),
    ],
)
def test_what_is_wrong_with_columns_is_named(change: dict[str, Json], expected: str) -> None:
    document = {"columns": {**PUT, "spot": [100, 101], **change}}
    with pytest.raises(InvalidRequest) as caught:
        parse_price_request(json.dumps(document).encode(), max_batch=1000)
    assert str(caught.value).startswith(expected)


def test_columns_need_every_required_field_and_nothing_beside_them() -> None:
    assert [fault["field"] for fault in faults({"columns": {"spot": [100]}, "spot": 1})] == [
        "spot",
        "strike",
        "maturity",
        "rate",
        "volatility",
    ]
    assert faults({"columns": [PUT]})[0]["field"] == "columns"


def test_columns_longer_than_the_limit_are_too_large() -> None:
    with pytest.raises(BatchTooLarge, match="holds 3 options: at most 2"):
        parse_price_request(json.dumps({"columns": {**PUT, "spot": [1, 2, 3]}}).encode(), max_batch=2)


@pytest.mark.parametrize(("kind", "rate", "dividend"), [("put", -0.01, -0.02), ("call", -0.02, -0.01)])
def test_american_options_with_two_exercise_boundaries_are_options_like_others_in_every_form(
    kind: str, rate: float, dividend: float
) -> None:
    option = {**PUT, "option_type": kind, "rate": rate, "dividend": dividend}
    american = {**option, "style": "american"}
    columns = {**columns_of([option, american]), "spot": [100, 100]}
    for document in (american, {"options": [option, american]}, {"columns": columns}):
        body = json.dumps(document).encode()
        assert_both_ways_agree(body)
        assert parse_price_request(body, max_batch=2).options.is_american[-1]


# --- two ways, one rule -----------------------------------------------------------------------------------------------


def assert_same(one: OptionBatch, other: OptionBatch) -> None:
    for name in OptionBatch.__dataclass_fields__:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def _outcome(parse: Any, body: bytes) -> Any:
    try:
        request = parse(body, max_batch=4)
    except (InvalidRequest, BatchTooLarge) as error:
        return type(error), str(error), error.details()
    return request


def assert_both_ways_agree(body: bytes) -> None:
    def thoroughly(body: bytes, *, max_batch: int) -> Any:
        return parsing._parse_thoroughly(body, max_batch, 0.0)

    quick, thorough = _outcome(parse_price_request, body), _outcome(thoroughly, body)
    if isinstance(thorough, tuple):
        assert quick == thorough
    else:
        assert quick.form is thorough.form
        assert_same(quick.options, thorough.options)


_documents = st.one_of(
    _valid | _spoilt,
    st.builds(lambda rows: {"options": rows}, st.lists(_valid | _spoilt | _anything, max_size=5)),
    st.builds(lambda rows: {"columns": columns_of(rows)}, st.lists(st.just(PUT), min_size=1, max_size=5)),
    st.builds(lambda spot, more: {"columns": {**PUT, "spot": spot, **more}}, st.lists(_anything, max_size=5), _spoilt),
    _anything,
)


@given(_documents, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_both_ways_to_read_a_request_agree(document: Json, indent: Any, escaped: bool) -> None:
    text = json.dumps(document, indent=indent)
    if escaped:  # the same document in other letters
        text = text.replace("spot", "sp\\u006ft").replace("put", "\\u0070ut")
    assert_both_ways_agree(text.encode())


@given(
    st.sampled_from(
        [json.dumps(PUT), json.dumps({"options": [PUT, PUT]}), json.dumps({"columns": {**PUT, "spot": [1, 2]}})]
    ),
    st.data(),
)
def test_both_ways_agree_on_text_with_anything_put_in_or_taken_out(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    put_in = data.draw(st.text('{}[],:"0123456789.eE+-\\ \tnulltruefalse', max_size=8) | st.binary(max_size=3))
    new = put_in if isinstance(put_in, bytes) else put_in.encode()
    assert_both_ways_agree(text[:start].encode() + new + text[end:].encode())


@pytest.mark.parametrize(
    "number",
    ["1", "1.0", "1e0", "1E+2", "-1", "-0", "0", "01", "1.", ".5", "+1", "0x1", "1e", "1e400", "1e-400", "NaN",
     "Infinity", "-Infinity", "123456789012345678901234567890", "0.1e1", "1_0", "true", "null", '"1"',
     "0.30000000000000004"],
)  # fmt: skip
def test_both_ways_read_the_same_numbers(number: str) -> None:
    for text in (
        json.dumps(PUT),
        json.dumps({"options": [PUT, PUT]}),
        json.dumps({"columns": {**PUT, "rate": [0, 0]}}),
    ):
        assert_both_ways_agree(text.replace("100", number, 1).encode())
        assert_both_ways_agree(text.replace("0.22", number, 1).encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"spot": 1, "spot": -1}', '{"options": [], "options": [PUT]}', '{"options": [PUT], "options": []}',
        '{"options": [PUT,]}', '{"options": [PUT PUT]}', '{"options": [PUT,,PUT]}', '{"options": [PUT}, {PUT]}',
        '{"options": [PUT]} x', '{"options": [PUT]}}', '{"options": [PUT]', '{"options": PUT]}', '{"options": []]}',
        ' \n{ "options" :\t[ PUT , \r\n PUT ] } \n', '{"options": [PUT, ]}', '{"columns": {}, "options": [PUT]}',
        '{"options": [PUT, [PUT]]}', '\ufeff{"options": [PUT]}', '{"options": [{"spot": NaN, "spot": 1}]}',
    ],
)  # fmt: skip
def test_both_ways_agree_on_texts_that_are_nearly_lists(text: str) -> None:
    assert_both_ways_agree(text.replace("PUT", json.dumps(PUT)).encode())


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_many_pieces_is_read_whole_and_in_order(indent: int | None) -> None:
    rows = [{**PUT, "spot": 1 + index, "style": "american" if index % 3 else "european"} for index in range(5000)]
    body = json.dumps({"options": rows}, indent=indent).encode()
    batch = parse_price_request(memoryview(body), max_batch=5000).options
    assert batch.spot.tolist() == [1.0 + index for index in range(5000)]
    assert batch.is_american.tolist() == [index % 3 != 0 for index in range(5000)]


def test_a_bad_row_of_a_late_piece_is_named() -> None:
    rows: list[Json] = [PUT] * 5000
    rows[4321] = {**PUT, "spot": None}
    assert faults({"options": rows}, max_batch=5000)[0]["index"] == 4321


def test_a_nan_before_a_good_value_of_the_same_field_is_refused() -> None:
    text = json.dumps(PUT)[1:-1]
    assert [fault["field"] for fault in faults(f'{{"spot": NaN, {text}}}'.encode())] == ["spot"]


def test_a_list_over_the_limit_is_counted_to_its_end() -> None:
    body = json.dumps({"options": [PUT] * 3000}).encode()
    with pytest.raises(BatchTooLarge, match="holds 3000 options: at most 100"):
        parse_price_request(body, max_batch=100)


@pytest.mark.parametrize("text", ['{"options": [%s]}', "[%s]", '{"columns": {"spot": [%s]}}', '{"spot": [%s'])
@pytest.mark.parametrize("grain", ["[],", "{},", "1,", '{"options":'])
def test_a_text_that_would_fill_the_memory_is_refused_before_it_is_read(text: str, grain: str) -> None:
    found = faults((text % (grain * 5000)).encode(), max_batch=10)
    assert [fault["field"] for fault in found] == ["body"]
    assert found[0]["message"].startswith("holds more than 1320 commas and brackets")


# --- one option -------------------------------------------------------------------------------------------------------


def test_one_option_is_read_as_plain_numbers() -> None:
    assert read_option(json.dumps(PUT).encode()) == (100.0, 95.0, 0.5, 0.03, 0.01, 0.22, False, False)
    assert read_option(orjson.dumps({**PUT, "style": "american"}))[7] is True  # type: ignore[index]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", json.dumps({"options": [PUT]}).encode()])
def test_what_is_not_one_valid_option_is_left_to_the_thorough_way(body: bytes) -> None:
    assert read_option(body) is None


# --- keys that stand more than once -----------------------------------------------------------------------------------

_FIELDS_OF_A_PUT = ("spot", "strike", "maturity", "rate", "dividend", "volatility", "option_type", "style")
_FULL = {**PUT, "dividend": 0.01, "style": "european"}


def _text(pairs: list[tuple[str, Json]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"


def _twice(name: str, *, but: str = "") -> str:
    """An option with a field that stands twice, and without another one."""
    return _text([*((key, value) for key, value in _FULL.items() if key != but), (name, _FULL[name])])


@pytest.mark.parametrize("name", _FIELDS_OF_A_PUT)
@pytest.mark.parametrize("but", ["", "dividend", "style"])
def test_a_field_that_stands_twice_is_named_whatever_else_is_there(name: str, but: str) -> None:
    if name == but:
        return
    good, bad = _text(list(_FULL.items())), _twice(name, but=but)
    bare = _text([(key, value) for key, value in PUT.items() if key != "option_type"])
    columns = _text([(key, [value]) for key, value in _FULL.items()])
    for body, index in (
        (bad, None),
        (f'{{"options": [{bad}]}}', 0),
        (f'{{"options": [{good}, {bad}, {bare}]}}', 1),
        (f'{{"options": [{bare}, {bare}, {bad}]}}', 2),
        (f'{{"columns": {columns[:-1]}, {json.dumps(name)}: 1}}}}', None),
    ):
        [found] = faults(body.encode())
        assert (found["field"], found.get("index")) == (name, index), body
        assert found["message"] == "must not have a key more than once: which of its values is meant?"


def test_one_that_stands_twice_is_not_hidden_by_one_that_is_absent_elsewhere() -> None:
    two, none = _twice("dividend"), _text([(key, value) for key, value in _FULL.items() if key != "dividend"])
    for options in (f"{two},{none}", f"{none},{two}", f"{_text(list(_FULL.items()))},{two},{none}"):
        [found] = faults(f'{{"options": [{options}]}}'.encode())
        assert found["field"] == "dividend"


@pytest.mark.parametrize("whole", ["options", "columns"])
def test_a_body_with_two_lists_is_refused(whole: str) -> None:
    inner = json.dumps([PUT] if whole == "options" else {key: [value] for key, value in PUT.items()})
    [found] = faults(f'{{"{whole}": {inner}, "{whole}": {inner}}}'.encode())
    assert found["field"] == whole


def test_an_escaped_name_is_the_same_name() -> None:
    [found] = faults(_text(list(PUT.items())).replace("{", '{"\\u0073pot": 1,').encode())
    assert found["field"] == "spot"


def test_so_many_that_stand_twice_are_refused_without_being_named() -> None:
    [found] = faults(("{" + '"spot":1,' * 5000 + '"spot":1}').encode())
    assert found["field"] == "body"


@given(st.lists(_valid, min_size=1, max_size=6), st.data())
def test_options_with_different_fields_are_read_as_each_alone_and_no_repeated_one_passes(
    options: list[dict[str, Any]], data: st.DataObject
) -> None:
    body = json.dumps({"options": options}).encode()
    request = parse_price_request(body, max_batch=10)
    columns = (getattr(request.options, name).tolist() for name in COLUMNS)
    assert list(zip(*columns, strict=True)) == [read_option(json.dumps(option).encode()) for option in options]
    index = data.draw(st.integers(0, len(options) - 1))
    name = data.draw(st.sampled_from(sorted(options[index])))
    texts = [_text(list(option.items())) for option in options]
    texts[index] = _text([*options[index].items(), (name, options[index][name])])
    [found] = faults(f'{{"options": [{",".join(texts)}]}}'.encode())
    assert (found["field"], found["index"]) == (name, index)
