"""Dividends of known amounts in requests: what is read, what is refused, and that slow options wait in their lane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.escrow import Schedule
from pinn_inference.pricing.types import BoolArray, FallbackReason, OptionBatch, Quotes
from pinn_inference.server.batch.jobs import (
    SLOW_PIECE,
    Answered,
    ModelLabels,
    Refusal,
    Work,
    perform,
    price_without_model,
    slow_pieces,
    slow_rows,
    slow_weights,
)
from pinn_inference.server.batch.protocol import JobKind
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.dividends import MAX_DIVIDENDS
from pinn_inference.server.documents import is_light
from pinn_inference.server.errors import InvalidRequest
from pinn_inference.server.implied_volatility import parse_implied_request
from pinn_inference.server.parsing import PriceRequest, parse_price_request
from pinn_inference.server.served_model import load_configured_model
from tests.support.server import PUT, running


class BarePricer:
    """Without a model."""

    where = "server"
    labels = ModelLabels()

    def price(self, options: OptionBatch) -> Quotes:
        return price_without_model(options, FallbackReason.OUT_OF_DOMAIN)

    def slow_rows(self, options: OptionBatch) -> BoolArray:
        return slow_rows(options, None)


AMERICAN = {**PUT, "style": "american"}
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
PAID = [{"time": 0.2, "amount": 1.5}, {"time": 0.4, "amount": 1.0}]


def parsed(document: Any, max_batch: int = 1000) -> PriceRequest:
    return parse_price_request(json.dumps(document).encode(), max_batch=max_batch, now=NOW)


def faults(document: Any) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRequest) as caught:
        parsed(document)
    found: list[dict[str, Any]] = caught.value.details()["faults"]
    return found


def taken_off(request: PriceRequest) -> Any:
    assert request.escrow is not None
    return request.escrow.present_value.tolist()


def test_the_spot_is_reduced_by_what_is_paid_until_expiry() -> None:
    request = parsed({**PUT, "dividends": [*PAID, {"time": 0.6, "amount": 50}]})
    value = 1.5 * np.exp(-0.03 * 0.2) + 1.0 * np.exp(-0.03 * 0.4)
    assert request.options.spot[0] == pytest.approx(100.0 - value, rel=1e-15)
    assert request.options.schedules == ()


def test_an_american_option_keeps_its_schedule_in_order_of_time() -> None:
    request = parsed({**AMERICAN, "dividends": PAID[::-1]})
    assert request.options.schedules == (Schedule(((0.2, 1.5), (0.4, 1.0))),)
    assert parsed({**AMERICAN, "dividends": [{"time": 0.6, "amount": 1}]}).options.schedules == ()


@pytest.mark.parametrize("dividends", [[], [{"time": 0.2, "amount": 0}], [{"ex_date": "2026-11-28", "amount": 1}]])
def test_no_dividends_and_those_that_have_passed_change_nothing(dividends: Any) -> None:
    request = parsed({**PUT, "dividends": dividends})
    assert request.escrow is None
    assert request.options.spot.tolist() == [100.0]


def test_an_ex_date_is_the_beginning_of_its_day() -> None:
    request = parsed({**PUT, "dividends": [{"ex_date": "2026-11-29", "amount": 1.0}]})
    assert taken_off(request) == [pytest.approx(np.exp(-0.03 * 0.5 / 365), rel=1e-12)]
    at_close = {**PUT, "valuation_time": "2026-11-28", "dividends": [{"ex_date": "2026-11-29", "amount": 1.0}]}
    assert taken_off(parsed(at_close)) == [1.0]  # the share's last price has the dividend in it


def test_dates_and_dividends_go_together() -> None:
    option = {name: value for name, value in PUT.items() if name != "maturity"}
    option |= {"expiry": "2027-05-14", "valuation_time": "2026-11-28T12:00:00Z"}
    ex_day = {**option, "dividends": [{"ex_date": "2027-05-14", "amount": 2.0}]}
    assert taken_off(parsed(ex_day))[0] == pytest.approx(2.0, rel=0.02)
    day_after = {**option, "dividends": [{"ex_date": "2027-05-15T00:00:01Z", "amount": 2.0}]}
    assert parsed(day_after).options.spot.tolist() == [100.0]


@pytest.mark.parametrize(
    ("dividends", "field", "words"),
    [
        ({}, "dividends", "must be a list of at most 100"),
        (None, "dividends", "must be a list"),
        (1.5, "dividends", "must be a list"),
        (PAID * (MAX_DIVIDENDS // 2 + 1), "dividends", "at most 100"),
        ([1.5], "dividends[0]", "must be an object"),
        ([*PAID, {"time": 0.1}], "dividends[2].amount", "is required"),
        ([{"amount": 1}], "dividends[0].time", "ex_date"),
        ([{"time": 0.1, "ex_date": "2027-01-01", "amount": 1}], "dividends[0].ex_date", "which of both"),
        ([{"time": 0.1, "amount": -1}], "dividends[0].amount", "from 0 to 1000000000"),
        ([{"time": 0.1, "amount": "1"}], "dividends[0].amount", "must be a number"),
        ([{"time": 0.1, "amount": True}], "dividends[0].amount", "must be a number"),
        ([{"time": 0.1, "amount": 2e9}], "dividends[0].amount", "must be a number"),
        ([{"time": -0.1, "amount": 1}], "dividends[0].time", "from 0 to 100"),
        ([{"time": 101, "amount": 1}], "dividends[0].time", "from 0 to 100"),
        ([{"ex_date": "10000-01-01", "amount": 1}], "dividends[0].ex_date", "years 0001 to 9999"),
        ([{"ex_date": "2027-02-30", "amount": 1}], "dividends[0].ex_date", "calendar"),
        ([{"ex_date": "2027-02-03T10:00", "amount": 1}], "dividends[0].ex_date", "zone"),
        ([{"ex_date": 20270101, "amount": 1}], "dividends[0].ex_date", "the beginning of that day"),
        ([{"time": 0.1, "amount": 1, "currency": "EUR"}], "dividends[0].currency", "known are time, ex_date, amount"),
        ([{"time": 0.1, "amount": 100}, {"time": 0.2, "amount": 1}], "dividends", "less than the spot"),
    ],
)
def test_a_wrong_dividend_is_named_with_its_place(dividends: Any, field: str, words: str) -> None:
    for document, index in (
        ({**PUT, "dividends": dividends}, None),
        ({"options": [PUT, {**PUT, "dividends": dividends}]}, 1),
    ):
        (fault,) = faults(document)
        assert (fault["field"], fault.get("index")) == (field, index)
        assert words in fault["message"]


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
def test_an_amount_that_is_no_usable_number_is_named(amount: str) -> None:
    body = json.dumps({**PUT, "dividends": [{"time": 0.1, "amount": 7.25}]}).replace("7.25", amount).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse_price_request(body, max_batch=1)
    assert [fault.field for fault in caught.value.faults] == ["dividends[0].amount"]


def test_a_million_dividends_are_refused_before_they_are_read() -> None:
    body = b'{"spot":100,"dividends":[' + b",".join([b'{"time":1,"amount":1}'] * 1_000_000) + b"]}"
    with pytest.raises(InvalidRequest, match="fewer dividends") as caught:
        parse_price_request(body, max_batch=1000)
    assert len(str(caught.value)) < 200
    (fault,) = faults({**PUT, "dividends": [{"time": 0.1, "amount": 1}] * 300})
    assert fault["value"] == "a list of 300"


def test_a_key_of_a_dividend_that_stands_twice_is_refused() -> None:
    body = json.dumps({**PUT, "dividends": [{"time": 0.1, "amount": 1}]}).replace(
        '"time": 0.1', '"time": 0.1, "time": 0.2'
    )
    with pytest.raises(InvalidRequest, match="more than once"):
        parse_price_request(body.encode(), max_batch=1)


def test_columns_take_one_schedule_for_all_rows_or_one_for_each() -> None:
    shared = parsed({"columns": {**PUT, "spot": [100, 110], "dividends": PAID}})
    assert shared.options.spot[1] - shared.options.spot[0] == pytest.approx(10.0)
    each = parsed({"columns": {**PUT, "dividends": [[], PAID]}})
    assert taken_off(each) == [0.0, pytest.approx(taken_off(shared)[0])]
    american = parsed({"columns": {**AMERICAN, "dividends": [[], PAID, []]}})
    assert american.options.waits_for_dividends.tolist() == [False, True, False]
    assert [
        (fault["field"], fault.get("index")) for fault in faults({"columns": {**PUT, "dividends": [[], 1, [2]]}})
    ] == [
        ("dividends", 1),
        ("dividends[0]", 2),
    ]
    (fault,) = faults({"columns": {**PUT, "spot": [1, 2, 3], "dividends": [[], []]}})
    assert (fault["field"], "as long as" in fault["message"]) == ("dividends", True)
    found = faults({"columns": {**PUT, "spot": [100, 1], "dividends": PAID}})
    assert [(fault["field"], fault["index"]) for fault in found] == [("dividends", 1)]


def test_options_with_dividends_weigh_as_much_as_they_take() -> None:
    many = [{"time": 0.01 * place, "amount": 0.1} for place in range(1, 41)]
    rows = [PUT, AMERICAN, {**AMERICAN, "dividends": PAID}, {**AMERICAN, "dividends": many}, {**PUT, "dividends": PAID}]
    options = parsed({"options": rows}).options
    slow = np.array([False, True, True, True, False])
    weights = slow_weights(options, slow)
    assert weights.tolist() == [0, 1, SLOW_PIECE, 6 * SLOW_PIECE, 0]
    assert list(slow_pieces(weights[slow])) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_where_a_volatility_is_asked_dividends_are_taken_off_the_spot_in_every_form() -> None:
    priced = {name: value for name, value in PUT.items() if name != "volatility"} | {"price": 6.0, "dividends": PAID}
    for document in (priced, {"options": [priced]}, {"columns": {**priced, "price": [6]}}):
        found = parse_implied_request(json.dumps(document).encode(), max_batch=1)
        reduced = parse_price_request(json.dumps({**PUT, "dividends": PAID}).encode(), max_batch=1)
        assert found.options.spot.tolist() == reduced.options.spot.tolist()


_anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["2027-01-01", "x", "9999-12-31", "0.1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["time", "amount", "ex_date", "more"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["expiry", "valuation_time", "dividends", "maturity", "spot"]), _anything))
def test_whatever_stands_for_dates_and_dividends_is_read_or_refused_by_name(values: dict[str, Any]) -> None:
    option = {**PUT, **values}
    for document in (option, {"options": [PUT, option]}, {"columns": {**option, "strike": [90, 100]}}):
        try:
            request = parsed(document)
        except InvalidRequest:
            continue
        assert (request.options.spot > 0.0).all()
        assert len(request.options) == (1 if document is option else 2)


def test_a_batch_of_both_styles_is_priced_in_pieces_and_settled_as_a_whole() -> None:
    paying = {**AMERICAN, "dividends": PAID}
    rows = [{**PUT, "dividends": PAID}, paying, PUT, {**paying, "spot": 90}]
    document = {"options": rows}
    request = parsed(document)
    written: list[bytes | memoryview] = []
    steps = perform(
        Work(JobKind.PRICE, json.dumps(document).encode(), {}, max_batch=10, max_body_bytes=10_000),
        BarePricer(),
        written.append,
        lambda _: None,
    )
    outcome: list[Answered | Refusal] = []

    def run() -> Iterator[int]:
        outcome.append((yield from steps))

    left = list(run())
    assert isinstance(outcome[0], Answered)
    assert left == [2 * SLOW_PIECE, SLOW_PIECE]
    answers = json.loads(b"".join(written))["results"]
    expected = request.settled(price_without_model(request.options, FallbackReason.OUT_OF_DOMAIN))
    for name in ("price", "delta", "theta", "rho"):
        assert [row[name] for row in answers] == pytest.approx(getattr(expected, name).tolist(), rel=1e-12)
    assert [row["method"] == "backward_induction" for row in answers] == [False, True, False, True]


async def test_quotes_have_greeks_by_the_true_spot_in_every_form_and_both_styles() -> None:
    european, american = {**PUT, "dividends": PAID}, {**AMERICAN, "dividends": PAID}
    reduced = parsed(european)
    expected = reduced.settled(closed_form.price(reduced.options))
    async with running(lambda: load_configured_model(ServerConfig())) as client:

        async def answer(document: Any) -> Any:
            async with client.post("/v1/price", json=document) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        single = await answer(european)
        for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
            assert single[name] == pytest.approx(getattr(expected, name)[0], abs=1e-4)
        assert single["method"] == "pinn"
        early = await answer(american)
        assert early["method"] == "backward_induction"
        assert early["price"] > single["price"]
        rows = (await answer({"options": [european, american, PUT]}))["results"]
        assert [row["price"] for row in rows[:2]] == [pytest.approx(single["price"]), early["price"]]
        columns = (await answer({"columns": {**european, "style": ["european", "american"]}}))["columns"]
        assert columns["price"][1] == early["price"]


async def test_a_small_body_is_answered_alike_wherever_that_is_done() -> None:
    spots = [90.0 + row / 20 for row in range(400)]
    async with running() as client:

        async def answer(count: int) -> Any:
            document = {"columns": {**PUT, "spot": spots[:count], "dividends": PAID}}
            assert is_light(json.dumps(document).encode()) is (count < 90)
            async with client.post("/v1/price", json=document) as response:
                assert response.status == 200, await response.text()
                return (await response.json())["columns"]

        few, many = await answer(50), await answer(400)
    assert few["price"] == pytest.approx(many["price"][:50], rel=1e-13)
    assert few["rho"] == pytest.approx(many["rho"][:50], rel=1e-13)


async def test_what_is_remembered_of_an_american_option_never_answers_one_with_dividends() -> None:
    without = {**AMERICAN, "spot": 98.0}
    async with running(lambda: load_configured_model(ServerConfig())) as client:

        async def answer(document: Any) -> Any:
            async with client.post("/v1/price", json=document) as response:
                return await response.json()

        spot = 98.0 + parsed({**AMERICAN, "dividends": PAID}).escrow.present_value[0]  # type: ignore[union-attr]
        plain = await answer(without)
        paying = [await answer({**without, "spot": spot, "dividends": PAID}) for _ in range(2)]
        assert paying[0]["price"] != plain["price"]
        assert paying[0] == paying[1]
        assert (await answer(without))["price"] == plain["price"]
