"""The JSON of answers, byte for byte where it matters: one quote, lists, columns, both styles."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import FallbackReason, Method, Quotes
from pinn_inference.server.errors import NonFiniteResult
from pinn_inference.server.parsing import Form
from pinn_inference.server.rendering import render_parts, render_quote, render_quotes
from tests.support.server import column, options

NUMBERS = ("price", "delta", "gamma", "vega", "theta", "rho")
NAMES = [*NUMBERS, "method", "model", "error_bound", "cached"]
MANY = 2500


def quotes_of(n: int, *, method: Method = Method.PINN) -> Quotes:
    quotes = closed_form.price(options(*np.linspace(60, 140, n)))
    return replace(quotes, method=np.full(n, method, dtype=np.int8))


def mixed() -> Quotes:
    """European and American rows, by network, closed form and integral equation."""
    return replace(
        quotes_of(5),
        method=np.array([Method.PINN, Method.CLOSED_FORM, Method.PINN, Method.INTEGRAL_EQUATION, Method.PINN], np.int8),
        reason=np.array([0, FallbackReason.ZERO_VARIANCE, 0, FallbackReason.OUT_OF_DOMAIN, 0], dtype=np.int8),
        exercise_boundary=column(math.nan, math.nan, 81.5, math.inf, 0.0),
    )


def rows_of(quotes: Quotes, **arguments: Any) -> list[dict[str, Any]]:
    rows = json.loads(render_quotes(quotes, model="european/1", american_model="american/2", **arguments))["results"]
    assert isinstance(rows, list)
    return rows


def test_a_row_has_its_fields_in_their_order_and_every_digit() -> None:
    quotes = quotes_of(3)
    rows = rows_of(quotes)
    assert [list(row) for row in rows] == [NAMES] * 3
    for name in (*NUMBERS, "error_bound"):
        assert [row[name] for row in rows] == getattr(quotes, name).tolist()
    assert {(row["method"], row["model"], row["cached"]) for row in rows} == {("pinn", "european/1", False)}


def test_a_list_of_many_pieces_is_one_valid_list_in_order() -> None:
    quotes = quotes_of(MANY)
    assert [row["price"] for row in rows_of(quotes)] == quotes.price.tolist()
    assert len(list(render_parts(quotes, model="m"))) > 3


def test_a_single_quote_is_an_object_and_the_same_by_either_way() -> None:
    quotes = quotes_of(1)
    by_batch = render_quotes(quotes, model="m", form=Form.SINGLE)
    assert list(json.loads(by_batch)) == NAMES
    assert render_quote(ScalarQuote.of(quotes), model="m") == by_batch


def test_no_number_of_an_answer_is_minus_zero() -> None:
    quotes = replace(quotes_of(1), **{name: column(-0.0) for name in NUMBERS})
    answers = [render_quotes(quotes, model="m", form=form) for form in Form]
    for text in (*answers, render_quote(ScalarQuote.of(quotes), model="m")):
        assert b"-0.0" not in text


def test_rows_say_what_is_special_about_them_and_only_that() -> None:
    rows = rows_of(mixed())
    assert [(row["method"], row["model"]) for row in rows] == [
        ("pinn", "european/1"),
        ("closed_form", None),
        ("pinn", "american/2"),
        ("integral_equation", None),
        ("pinn", "american/2"),
    ]
    assert [list(row)[len(NAMES) :] for row in rows] == [
        [],
        ["reason"],
        ["exercise_boundary"],
        ["reason", "exercise_boundary"],
        ["exercise_boundary"],
    ]
    assert [row.get("reason") for row in rows] == [None, "zero_variance", None, "out_of_domain", None]
    assert [row.get("exercise_boundary") for row in rows] == [None, None, 81.5, None, None]


def test_each_row_of_either_way_is_the_same() -> None:
    quotes = mixed()
    for index, row in enumerate(rows_of(quotes)):
        model = "american/2" if index > 1 else "european/1"
        assert json.loads(render_quote(ScalarQuote.of(quotes, index), model=model)) == row


def test_rows_from_the_cache_are_marked() -> None:
    cached = np.arange(MANY) % 2 == 0
    assert [row["cached"] for row in rows_of(quotes_of(MANY), cached=cached)] == cached.tolist()
    quote = ScalarQuote.of(quotes_of(1)).as_cached()
    assert json.loads(render_quote(quote, model="m"))["cached"] is True


@pytest.mark.parametrize("cached", [None, np.array([True, False, True, False, False])])
def test_columns_hold_what_the_rows_hold(cached: Any) -> None:
    quotes = mixed()
    text = render_quotes(quotes, model="european/1", american_model="american/2", form=Form.COLUMNS, cached=cached)
    columns = json.loads(text)["columns"]
    rows = rows_of(quotes, cached=cached)
    assert set(columns) == {*NAMES, "reason", "exercise_boundary"}
    for name, values in columns.items():
        assert values == [row.get(name) for row in rows], name


def test_columns_without_anything_special_have_no_columns_for_it() -> None:
    columns = json.loads(render_quotes(quotes_of(3), model="m", form=Form.COLUMNS))["columns"]
    assert set(columns) == set(NAMES)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*NUMBERS, "error_bound"])
def test_a_number_that_json_has_not_is_an_error_with_its_index(form: Form, bad: float, name: str) -> None:
    quotes = quotes_of(3)
    getattr(quotes, name)[1] = bad
    with pytest.raises(NonFiniteResult, match=r"options\[1\]"):
        render_quotes(quotes, model="m", form=form)
    with pytest.raises(NonFiniteResult):
        render_quote(ScalarQuote.of(quotes, 1), model="m")


def test_numbers_whose_sum_is_too_large_for_a_float_are_no_error() -> None:
    quotes = replace(quotes_of(1), price=column(1.5e308), vega=column(1.5e308))
    assert render_quote(ScalarQuote.of(quotes), model="m") == render_quotes(quotes, model="m", form=Form.SINGLE)
