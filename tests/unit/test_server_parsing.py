"""Validation of pricing requests: what is accepted, and how exactly a fault is told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.pricing import closed_form
from pinn_inference.server.errors import MAX_FAULTS, BatchTooLarge, InvalidRequest
from pinn_inference.server.parsing import FIELDS, parse_price_request
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


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
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
