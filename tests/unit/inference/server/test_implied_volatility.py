"""`POST /v1/implied-volatility`: what it answers, what it refuses, and what one wrong price does to the others."""

from __future__ import annotations

import json
import math
from typing import Any

import mpmath as mp
import numpy as np
import orjson
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.server.errors import BatchTooLarge, InvalidRequest
from pinn_inference.server.implied_volatility import PATH, ImpliedRequest, parse_implied_request
from pinn_inference.server.parsing import Form, parse_price_request
from tests.support.server import PUT, Client, running, sample

TERMS = {name: value for name, value in PUT.items() if name != "volatility"}
PRICED = {**TERMS, "price": 3.5}


async def post(client: Client, document: Any, **kwargs: Any) -> tuple[int, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    async with client.post(PATH, data=data, **kwargs) as response:
        return response.status, orjson.loads(await response.read())


def parsed(document: Any, max_batch: int = 100) -> ImpliedRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_implied_request(body, max_batch=max_batch)


def faults_of(document: Any) -> list[tuple[str, int | None]]:
    with pytest.raises(InvalidRequest) as caught:
        parsed(document)
    assert caught.value.count == len(caught.value.faults)
    return [(fault.field, fault.index) for fault in caught.value.faults]


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_one_option_is_answered_with_its_volatility_a_bound_and_its_vega() -> None:
    async with running() as client:
        status, answer = await post(client, PRICED)
    assert status == 200
    assert list(answer) == ["implied_volatility", "error_bound", "vega", "method"]
    assert answer["implied_volatility"] == pytest.approx(0.2205849141822628, rel=1e-14)
    assert 0.0 < answer["error_bound"] < 1e-13
    assert answer["vega"] == pytest.approx(25.12240741, rel=1e-8)
    assert answer["method"] == "closed_form"


async def test_the_volatility_gives_the_price_again() -> None:
    async with running() as client:
        _, found = await post(client, PRICED)
        async with client.post("/v1/price", json={**TERMS, "volatility": found["implied_volatility"]}) as response:
            priced = await response.json()
    assert priced["price"] == pytest.approx(3.5, rel=1e-13)
    assert priced["vega"] == pytest.approx(found["vega"], rel=1e-12)


DIVIDENDS = [{"time": 0.1, "amount": 1.5}, {"time": 0.4, "amount": 1.5}, {"time": 0.9, "amount": 9.0}]


@pytest.mark.parametrize("style", ["european", "american"])
async def test_with_dividends_of_known_amounts_the_volatility_gives_the_price_again(style: str) -> None:
    after_expiry = DIVIDENDS[2:]
    option = {**PRICED, "style": style, "dividends": DIVIDENDS if style == "european" else after_expiry}
    terms = {name: value for name, value in option.items() if name != "price"}
    async with running() as client:
        _, found = await post(client, option)
        async with client.post("/v1/price", json={**terms, "volatility": found["implied_volatility"]}) as response:
            priced = await response.json()
        _, listed = await post(client, {"options": [PRICED, option] * 20})
    assert priced["price"] == pytest.approx(3.5, rel=1e-10)
    assert listed["results"][1]["implied_volatility"] == pytest.approx(found["implied_volatility"], rel=1e-12)
    assert listed["results"][0]["implied_volatility"] == pytest.approx(0.2205849141822628, rel=1e-12)


def exact_volatility(option: dict[str, Any], near: float) -> Any:
    """To 30 digits, for the very numbers of a European put with dividends."""
    names = ("spot", "strike", "maturity", "rate", "dividend")
    spot, strike, time, rate, carry = (mp.mpf(option[name]) for name in names)
    paid = sum((mp.mpf(it["amount"]) * mp.exp(-rate * mp.mpf(it["time"])) for it in option["dividends"]), mp.mpf(0))
    asset, cash = (spot - paid) * mp.exp(-carry * time), strike * mp.exp(-rate * time)

    def price(volatility: Any) -> Any:
        total = volatility * mp.sqrt(time)
        upper = mp.log(asset / cash) / total + total / 2
        return cash * mp.ncdf(total - upper) - asset * mp.ncdf(-upper)

    return mp.findroot(lambda it: price(it) - mp.mpf(option["price"]), mp.mpf(near))


@pytest.mark.parametrize("share", [0.02, 0.9, 0.999999])
def test_the_bound_holds_however_little_the_dividends_leave_of_the_spot(share: float) -> None:
    draw = np.random.default_rng(5)
    for _ in range(12):
        spot, rate = float(draw.uniform(50, 150)), float(draw.uniform(-0.05, 0.1))
        number = int(draw.integers(1, 40))
        times = np.sort(draw.uniform(0.0, 0.75, number)).tolist()
        amounts = (draw.dirichlet(np.ones(number)) * spot * share * 0.95).tolist()
        schedule = [{"time": time, "amount": amount} for time, amount in zip(times, amounts, strict=True)]
        left = spot - sum(amount * math.exp(-rate * time) for time, amount in zip(times, amounts, strict=True))
        option = {**TERMS, "spot": spot, "rate": rate, "maturity": 0.75, "strike": left, "dividends": schedule}
        option["price"] = 0.08 * left
        found = parsed(option).of_european()
        volatility, bound = float(found.volatility[0]), float(found.error_bound[0])
        with mp.workdps(40):
            assert abs(mp.mpf(volatility) - exact_volatility(option, volatility)) <= mp.mpf(bound)


async def test_an_impossible_price_is_answered_in_its_row_and_fails_no_other() -> None:
    rows = [PRICED, {**PRICED, "price": 300}, {**PRICED, "price": -1}, {**PRICED, "price": 0}, PRICED]
    async with running() as client:
        status, answer = await post(client, {"options": rows})
    assert status == 200
    first, high, low, zero, last = answer["results"]
    assert first == last
    assert [row.get("reason") for row in answer["results"]] == [
        None, "AboveUpperBound", "BelowIntrinsic", "NotIdentifiable", None,
    ]  # fmt: skip
    for row in (high, low, zero):
        assert row["implied_volatility"] is row["error_bound"] is row["vega"] is None
        assert row["price_range"] == [0.0, pytest.approx(95 * math.exp(-0.015), rel=1e-15)]
    assert "volatility_range" not in high
    assert zero["volatility_range"] == [0.0, pytest.approx(0.0024, abs=1e-4)]


async def test_american_options_are_answered_beside_european_ones_in_their_order() -> None:
    american = {**PRICED, "style": "american"}
    worth_its_payoff = {**american, "spot": 40, "price": 55}
    async with running() as client:
        status, answer = await post(
            client, {"options": [american, PRICED, worth_its_payoff, {**american, "price": 96}]}
        )
        _, alone = await post(client, american)
        again = {**TERMS, "style": "american", "volatility": alone["implied_volatility"]}
        async with client.post("/v1/price", json=again) as response:
            assert (await response.json())["price"] == pytest.approx(3.5, rel=1e-10)
    assert status == 200
    first, european, payoff, high = answer["results"]
    assert first["implied_volatility"] == pytest.approx(alone["implied_volatility"], rel=1e-12)
    assert first["method"] == "integral_equation"
    assert first["implied_volatility"] < european["implied_volatility"]
    assert 0.0 < first["error_bound"] < 1e-6
    assert payoff["reason"] == "NotIdentifiable"
    assert payoff["price_range"] == [55.0, 95.0]
    assert payoff["volatility_range"][0] == 0.0
    assert 0.2 < payoff["volatility_range"][1] < 1.5
    assert high["reason"] == "AboveUpperBound"


async def test_a_volatility_above_ten_is_not_looked_for_in_american_options() -> None:
    async with running() as client:
        _, answer = await post(client, {**PRICED, "style": "american", "maturity": 0.001, "price": 90})
    assert answer["reason"] == "OutOfRange"
    assert answer["volatility_range"] == [10.0, None]


async def test_american_options_that_no_network_prices_are_limited_because_each_is_priced_many_times() -> None:
    async with running() as client:
        status, answer = await post(client, {"options": [{**PRICED, "style": "american"}] * 101})
    assert (status, answer["reason"]) == (413, "TooManySlowOptions")
    assert "at most 100 fit" in answer["error"]


async def test_columns_are_answered_in_columns() -> None:
    columns = {"columns": {**TERMS, "strike": [90, 95, 100], "price": [1.9, 3.5, 500]}}
    async with running() as client:
        _, answer = await post(client, columns)
        _, alone = await post(client, {"options": [{**TERMS, "strike": 90, "price": 1.9}, PRICED]})
    found = answer["columns"]
    assert found["implied_volatility"] == [*(row["implied_volatility"] for row in alone["results"]), None]
    assert found["reason"] == [None, None, "AboveUpperBound"]
    assert found["price_range"][:2] == [None, None]
    assert found["volatility_range"] == [None] * 3


@pytest.mark.parametrize("size", [1, 2, 1500])
async def test_maturities_that_were_counted_from_dates_are_told(size: int) -> None:
    dated = {name: value for name, value in PRICED.items() if name != "maturity"}
    dated |= {"valuation_time": "2026-03-19", "expiry": "2027-03-19"}
    async with running() as client:
        _, alone = await post(client, {**PRICED, "maturity": 1})
        _, answer = await post(client, dated if size == 1 else {"options": [dated] * (size - 1) + [PRICED]})
        _, columns = await post(client, {"columns": {**dated, "price": [3.5, 3.6]}})
    rows = [answer] if size == 1 else answer["results"]
    assert rows[0] == {**alone, "maturity": 1.0}
    assert size == 1 or "maturity" not in rows[-1]
    assert columns["columns"]["maturity"] == [1.0, 1.0]


async def test_a_large_request_is_answered_by_the_batch_process_as_a_small_one_is_by_the_server() -> None:
    rows = [{**PRICED, "price": 3.5 + 1e-4 * row} for row in range(3000)]
    async with running() as client:
        _, many = await post(client, {"options": rows})
        _, few = await post(client, {"options": rows[:20]})
        assert sample(client, "http_requests_total", method="POST", handler=PATH, status="200") == 2
    assert len(many["results"]) == 3000
    assert many["results"][:20] == few["results"]


async def test_volatilities_are_neither_counted_nor_averaged_as_prices() -> None:
    async with running() as client:
        await post(client, PRICED)
        assert sample(client, "pinn_options_priced_total", method="closed_form") in (0, None)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", Form)
def test_everything_but_the_price_is_read_as_a_request_for_prices_is(form: Form) -> None:
    rows = [PRICED, {"spot": 90, "strike": 100, "maturity": 2, "rate": -0.01, "price": 7, "style": "european"}]
    documents = {
        Form.SINGLE: rows[0],
        Form.LIST: {"options": rows},
        Form.COLUMNS: {"columns": {**TERMS, "spot": [90, 110], "price": [1, 2.5]}},
    }
    text = json.dumps(documents[form])
    asked = parsed(documents[form])
    priced = parse_price_request(text.replace('"price"', '"volatility"').encode(), max_batch=10)
    assert asked.form is priced.form is form
    assert np.array_equal(asked.price, priced.options.volatility)
    for name in ("spot", "strike", "maturity", "rate", "dividend", "is_call", "is_american"):
        assert np.array_equal(getattr(asked.options, name), getattr(priced.options, name)), name


def test_a_list_is_read_alike_by_the_quick_way_and_by_the_thorough_one() -> None:
    rows = [{**PRICED, "price": 3 + row, "option_type": "call" if row % 2 else "put"} for row in range(5)]
    rows[3].pop("dividend")
    rows[2].pop("option_type")
    quick = parsed({"options": rows})
    thorough = parsed(json.dumps({"options": rows}).replace('"spot"', '"\\u0073pot"').encode())
    assert np.array_equal(quick.price, thorough.price)
    for name in ("spot", "strike", "maturity", "rate", "dividend", "is_call", "is_american"):
        assert np.array_equal(getattr(quick.options, name), getattr(thorough.options, name)), name


def test_no_volatility_is_looked_for_where_there_are_two_exercise_boundaries() -> None:
    put = {name: value for name, value in PUT.items() if name != "volatility"} | {"price": 5, "style": "american"}
    two_sided = {**put, "rate": -0.01, "dividend": -0.02}
    assert faults_of(two_sided) == [("rate", None)]
    assert faults_of({"options": [put, two_sided]}) == [("rate", 1)]
    assert faults_of({"columns": {**two_sided, "price": [5, 6]}}) == [("rate", 0), ("rate", 1)]
    assert len(parsed({**two_sided, "style": "european"}).options) == 1


def test_one_price_stands_for_every_row_of_columns() -> None:
    assert parsed({"columns": {**TERMS, "strike": [90, 95], "price": 2}}).price.tolist() == [2.0, 2.0]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", ["3", None, True, [], {}, math.nan, math.inf, -math.inf, 10**400])
def test_a_price_that_is_no_finite_number_is_a_fault_that_names_it(price: Any) -> None:
    assert faults_of({**TERMS, "price": price}) == [("price", None)]
    assert faults_of({"options": [PRICED, {**TERMS, "price": price}]}) == [("price", 1)]
    if price != []:
        assert faults_of({"columns": {**TERMS, "spot": [1, 2], "price": [1, price]}}) == [("price", 1)]


@pytest.mark.parametrize("price", [1e308, -1e308, 0, -0.0, 5e-324, 1])
def test_any_finite_price_is_read(price: float) -> None:
    for document in ({**TERMS, "price": price}, {"options": [{**TERMS, "price": price}]}):
        assert parsed(document).price.tolist() == [price]


def test_no_volatility_is_looked_for_where_an_american_option_waits_for_dividends() -> None:
    american = {**PRICED, "style": "american"}
    waiting = {**american, "dividends": DIVIDENDS}
    assert faults_of(waiting) == [("dividends", None)]
    assert faults_of({"options": [{**PRICED, "dividends": DIVIDENDS}, waiting]}) == [("dividends", 1)]
    for none in ([], DIVIDENDS[2:]):
        assert len(parsed({**american, "dividends": none}).options) == 1


def test_dividends_are_read_as_for_prices() -> None:
    assert faults_of({**PRICED, "dividends": [{"time": 0.1}]}) == [("dividends[0].amount", None)]
    assert faults_of({**PRICED, "dividends": [{"time": 0.1, "amount": 101}]}) == [("dividends", None)]


def test_a_volatility_is_a_fault_because_it_is_what_is_asked() -> None:
    assert faults_of({**PRICED, "volatility": 0.2}) == [("volatility", None)]
    assert faults_of({"options": [{**PRICED, "volatility": 0.2}]}) == [("volatility", 0)]


def test_an_absent_price_is_a_fault_and_so_is_every_other_one() -> None:
    rows: list[Any] = [TERMS, {**PRICED, "spot": -1, "foo": 2}, 7, {**PRICED, "price": "x", "style": "bermudan"}]
    assert faults_of({"options": rows}) == [
        ("price", 0), ("spot", 1), ("foo", 1), ("", 2), ("price", 3), ("style", 3),
    ]  # fmt: skip


def test_a_key_that_stands_twice_is_refused() -> None:
    assert faults_of(b'{"options":[{"price":1,"price":2}]}') == [("price", 0)]
    whole = json.dumps({"options": [PRICED]})
    assert faults_of(whole.replace('"price"', '"price": 1, "price"').encode()) == [("price", 0)]
    assert faults_of(whole.replace('"spot"', '"spot": 1, "spot"').encode()) == [("spot", 0)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[1]", "body"),
        (b"nonsense", "body"),
        (b'{"options": 3}', "options"),
        (b'{"options": []}', "options"),
        (b'{"columns": []}', "columns"),
        (b'{"options":[' + b"[" * 900 + b"]" * 900 + b"]}", ""),
        (b'{"spot":' + b"[" * 900 + b"]" * 900 + b',"price":1}', "spot"),
        (b'{"columns":{"spot":[' + b"[" * 900 + b"]" * 900 + b'],"price":1}}', "spot"),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b',"options":[1]}', "a"),
        (b"[" * 100_000, "body"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", "body"),
        (b'{"price": 1, "spot": "\\ud800"}', "spot"),
    ],
)
def test_a_hostile_body_is_refused_by_name(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed(body)
    assert caught.value.faults[0].field == field


def test_columns_of_different_lengths_are_refused_by_the_name_of_the_price() -> None:
    assert faults_of({"columns": {**TERMS, "strike": [90, 95, 100], "price": [1, 2]}}) == [("price", None)]


def test_too_many_options_are_too_many() -> None:
    with pytest.raises(BatchTooLarge):
        parsed({"options": [PRICED] * 11}, max_batch=10)
    with pytest.raises(BatchTooLarge):
        parsed({"columns": {**TERMS, "price": [1.0] * 11}}, max_batch=10)


def test_of_very_many_faults_a_hundred_are_listed_and_all_are_counted() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed({"options": [{**TERMS, "price": None, "spot": -1}] * 300}, max_batch=400)
    assert (len(caught.value.faults), caught.value.count) == (100, 600)


async def test_limits_of_bytes_and_options_are_those_of_prices() -> None:
    async with running(max_batch=5, max_body_bytes=50_000) as client:
        status, answer = await post(client, {"options": [PRICED] * 6})
        assert (status, answer["reason"]) == (413, "BatchTooLarge")
        status, answer = await post(client, b" " * 60_000)
        assert (status, answer["reason"]) == (413, "BodyTooLarge")
        status, answer = await post(client, {"options": [PRICED] * 200})
        assert (status, answer["reason"]) == (413, "BatchTooLarge")


async def test_what_is_found_is_what_the_formula_was_given() -> None:
    draw = np.random.default_rng(1)
    rows = [
        {"spot": 100, "strike": float(k), "maturity": 1, "rate": 0.02, "volatility": float(v)}
        for k, v in zip(draw.uniform(70, 140, 300), draw.uniform(0.1, 0.6, 300), strict=True)
    ]
    exact = closed_form.price(parse_price_request(json.dumps({"options": rows}).encode(), max_batch=300).options)
    for row, price in zip(rows, exact.price.tolist(), strict=True):
        row["price"] = price
    asked = [{name: value for name, value in row.items() if name != "volatility"} for row in rows]
    async with running() as client:
        _, answer = await post(client, {"options": asked})
    for row, found in zip(rows, answer["results"], strict=True):
        assert abs(found["implied_volatility"] - row["volatility"]) <= 1e-12
