"""The pages over market data: what they answer, to the letter of their schemas, and what they refuse."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import MultiDict

from pinn_inference.market.data import SYMBOL_PATTERN
from pinn_inference.pricing import closed_form
from pinn_inference.pricing.american_domain import has_two_boundaries
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.errors import InvalidRequest, Overloaded
from pinn_inference.server.market_pages import (
    OPENAPI_PATHS,
    OPENAPI_SCHEMAS,
    REPORTS_AT_MOST,
    REPORTS_AT_ONCE,
    parse_report_request,
)
from tests.support.market import MARKET, Client, european, market_server, outlooks

Json = Any
REPORT, FORECAST = "/api/investor-report", "/api/forecast/all"
_ERROR = {
    "type": "object",
    "required": ["error", "reason", "request_id"],
    "properties": {"error": {"type": "string", "minLength": 10}, "faults": {"type": "array", "minItems": 1}},
}


@pytest.fixture
def market_file(tmp_path: Path) -> Path:
    path = tmp_path / "market.yaml"
    path.write_text(MARKET)
    return path


async def answer(client: Client, path: str, status: int = 200, **query: str) -> Json:
    """The answer's document, held to the schema that the contract has for this path and status."""
    async with client.get(path, params=query) as response:
        document = await response.json()
        assert response.status == status, document
        declared = OPENAPI_PATHS[path]["get"]["responses"][str(status)]
        schemas = {**OPENAPI_SCHEMAS, "ErrorBody": _ERROR}
        contract = {**declared["content"]["application/json"]["schema"], "components": {"schemas": schemas}}
        jsonschema.Draft202012Validator(contract).validate(document)
        for header in declared.get("headers", {}):
            assert header in response.headers
        return document


def with_american(batch: OptionBatch) -> Quotes:
    """A model of both styles: American puts are worth 1 % more and have a boundary, American calls nothing more."""
    quotes = european().price(replace(batch, is_american=np.zeros(len(batch), dtype=np.bool_)))
    more = np.where(batch.is_american & ~batch.is_call, 1.01, 1.0)
    boundary = np.where(batch.is_call, np.inf, 0.8 * batch.strike)
    return replace(quotes, price=quotes.price * more, exercise_boundary=np.where(batch.is_american, boundary, np.nan))


async def test_a_report_has_each_symbol_in_the_order_asked_for(market_file: Path) -> None:
    async with market_server(market_file) as client:
        report = await answer(client, REPORT, symbols="NOIR,ACME", user_id="desk-7")
    assert [told["symbol"] for told in report["reports"]] == ["NOIR", "ACME"]
    assert [told["currency"] for told in report["reports"]] == ["EUR", "USD"]
    assert report["user_id"] == "desk-7"
    assert report["model"] == "european/test"
    assert report["as_of"] == "2026-01-02T21:00:00+00:00"
    assert report["sample_data"] is False
    assert report["market_data"]["source"] == "market.yaml"
    assert report["market_data"]["stale"] is False
    assert "risk-neutral" in report["notice"]
    acme = report["reports"][1]
    assert [horizon["horizon"] for horizon in acme["horizons"]] == ["1m", "1y"]
    assert [pair["strike"] for pair in acme["horizons"][0]["options"]] == pytest.approx([90.0, 100.0, 110.0])


async def test_the_numbers_of_a_report_are_right_within_their_bounds(market_file: Path) -> None:
    async with market_server(market_file) as client:
        report = await answer(client, REPORT, symbols="ACME")
    year = report["reports"][0]["horizons"][1]
    assert year["forward"] == pytest.approx(100.0 * math.exp(0.02), rel=1e-15)
    assert year["discount_factor"] == pytest.approx(math.exp(-0.03), rel=1e-15)
    # d₂ of the strike 100: (ln(F/K) − σ²T/2)/(σ√T) = (0.02 − 0.02)/0.2 = 0.
    assert abs(year["probability_of_gain"] - 0.5) <= year["probability_error_bound"] < 1e-3
    assert year["probability_of_gain"] + year["probability_of_loss"] == 1.0
    for quantile, score in zip(year["quantiles"], (-1.6448536269514722, -0.6744897501960817, 0.0), strict=False):
        exact = 100.0 * math.exp(0.02 - 0.02 + 0.2 * score)
        assert abs(quantile["price"] - exact) <= quantile["error_bound"] < 0.2
        assert quantile["return"] == pytest.approx(quantile["price"] / 100.0 - 1.0)
    assert year["expected_range"]["low"] == year["quantiles"][0]["price"]
    assert year["expected_range"]["high"] == year["quantiles"][-1]["price"]
    for pair in year["options"]:
        for side, is_call in (("call", True), ("put", False)):
            leg = pair[side]
            option = outlooks().options(np.array([pair["strike"]]), is_call=is_call)
            exact_quotes = closed_form.price(option)
            for name, bound in leg["error_bounds"].items():
                assert abs(leg[name] - getattr(exact_quotes, name)[0]) <= bound
            assert leg["method"] == "pinn"
            assert "american" not in leg


async def test_a_forecast_has_quantiles_in_order_and_probabilities_that_fall(market_file: Path) -> None:
    async with market_server(market_file) as client:
        told = await answer(client, FORECAST, symbols="ACME,NOIR")
    for forecast in told["forecasts"]:
        for horizon in forecast["horizons"]:
            prices = [quantile["price"] for quantile in horizon["quantiles"]]
            assert prices == sorted(prices)
            assert [quantile["probability"] for quantile in horizon["quantiles"]] == [0.05, 0.25, 0.5, 0.75, 0.95]
            above = [level["above"] for level in horizon["probabilities"]]
            assert above == sorted(above, reverse=True)
            assert prices[0] < horizon["forward"] < prices[-1]


async def test_the_default_horizons_of_the_sample_and_its_label() -> None:
    async with market_server() as client:
        told = await answer(client, FORECAST, symbols="AAPL")
        report = await answer(client, REPORT, symbols="SPY,QQQ", user_id="u-1")
    assert told["sample_data"] is True
    assert report["sample_data"] is True
    horizons = told["forecasts"][0]["horizons"]
    assert [horizon["horizon"] for horizon in horizons] == ["1w", "1m", "3m", "6m", "1y"]
    assert told["user_id"] is None


async def test_american_values_stand_beside_the_european_where_the_model_has_them(market_file: Path) -> None:
    async with market_server(market_file, price=with_american, prices_american=True) as client:
        report = await answer(client, REPORT, symbols="ACME")
    pair = report["reports"][0]["horizons"][1]["options"][2]
    put, call = pair["put"], pair["call"]
    assert put["american"]["price"] == pytest.approx(1.01 * put["price"])
    assert put["american"]["early_exercise_premium"] == pytest.approx(0.01 * put["price"])
    assert put["american"]["exercise_boundary"] == pytest.approx(0.8 * pair["strike"])
    assert call["american"]["exercise_boundary"] is None


async def test_a_horizon_that_the_formula_priced_says_so_and_why(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_text(MARKET.replace("volatility: 0.2,", "volatility: 2.9,").replace("[1m, 1y]", "[1m, 2y]"))
    async with market_server(path) as client:
        told = await answer(client, FORECAST, symbols="ACME")
        report = await answer(client, REPORT, symbols="ACME")
    near, far = told["forecasts"][0]["horizons"]
    assert (near["method"], "reason" in near) == ("pinn", False)
    assert (far["method"], far["reason"]) == ("closed_form", "out_of_domain")
    assert report["reports"][0]["horizons"][1]["options"][0]["put"]["reason"] == "out_of_domain"


async def test_without_a_model_the_formula_answers(market_file: Path) -> None:
    def unavailable(batch: OptionBatch) -> Quotes:
        return closed_form.price(batch, reason=FallbackReason.MODEL_UNAVAILABLE)

    async with market_server(market_file, price=unavailable) as client:
        told = await answer(client, FORECAST, symbols="ACME")
    assert {horizon["reason"] for horizon in told["forecasts"][0]["horizons"]} == {"model_unavailable"}


async def test_unknown_symbols_are_a_404_that_names_them_all(market_file: Path) -> None:
    async with market_server(market_file) as client:
        for path in (REPORT, FORECAST):
            error = await answer(client, path, 404, symbols="FOO,ACME,BAR")
            assert error["reason"] == "UnknownSymbols"
            assert error["error"] == "there is no market data for FOO, BAR: known are ACME, NOIR"
            assert [fault["value"] for fault in error["faults"]] == ["FOO", "BAR"]


@pytest.mark.parametrize(
    ("query", "field", "told"),
    [
        ("", "symbols", "symbols: is required: 1 to 50 symbols separated by commas, like symbols=SPY,QQQ"),
        ("symbols=", "symbols", 'symbols is "": is not a symbol: a symbol has 1 to 16 capital letters'),
        ("symbols=acme", "symbols", 'symbols is "acme": is not a symbol: write ACME'),
        ("symbols=ACME,%20NOIR", "symbols", 'symbols is " NOIR": is not a symbol: write NOIR'),
        ("symbols=ACME,,NOIR", "symbols", 'symbols is "": is not a symbol'),
        ("symbols=AC/ME", "symbols", 'symbols is "AC/ME": is not a symbol: a symbol has 1 to 16'),
        ("symbols=" + "A" * 17, "symbols", 'symbols is "AAAAAAAAAAAAAAAAA": is not a symbol'),
        ("symbols=" + "A" * 99, "symbols", 'symbols is "' + "A" * 64 + '…": is not a symbol'),
        ("symbols=ACME,NOIR,ACME", "symbols", 'symbols is "ACME": stands 2 times: name it once'),
        ("symbols=ACME&symbols=NOIR", "symbols", "symbols: stands 2 times: separate symbols by commas"),
        (
            "symbols=" + ",".join(f"A{n}" for n in range(51)),
            "symbols",
            "symbols: has 51 symbols: at most 50 fit in one",
        ),
        ("symbols=ACME&user_id=", "user_id", 'user_id is "": must be 1 to 64 letters, digits and . _ : @ -'),
        ("symbols=ACME&user_id=a%0Ab", "user_id", 'user_id is "a\\nb": must be 1 to 64 letters'),
        ("symbols=ACME&user_id=%3Cb%3E", "user_id", 'user_id is "<b>": must be 1 to 64 letters'),
        ("symbols=ACME&user_id=a&user_id=b", "user_id", "user_id: stands 2 times: give one"),
        ("symbols=ACME&userid=a", "userid", "userid: is not a parameter: known are symbols, user_id"),
        ("symbol=ACME", "symbol", "symbol: is not a parameter: known are symbols, user_id (and 1 more)"),
    ],
)
async def test_a_wrong_parameter_is_a_400_that_says_what_is_right(query: str, field: str, told: str) -> None:
    async with market_server() as client:
        for path in (REPORT, FORECAST):
            async with client.get(f"{path}?{query}") as response:
                error = await response.json()
                assert response.status == 400, error
                assert error["reason"] == "InvalidRequest"
                assert error["error"].startswith(told)
                assert error["faults"][0]["field"] == field


def test_all_faults_of_a_query_are_told() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_report_request(MultiDict({"symbols": "spy,A B", "user_id": "ü", "x": "1"}))
    assert [(fault.field, fault.value) for fault in caught.value.faults] == [
        ("x", None),
        ("symbols", "spy"),
        ("symbols", "A B"),
        ("user_id", "ü"),
    ]


_SYMBOLS = OPENAPI_PATHS[REPORT]["get"]["parameters"][0]["schema"]
_USER = OPENAPI_PATHS[REPORT]["get"]["parameters"][1]["schema"]


@settings(deadline=None)
@given(st.lists(st.one_of(st.from_regex(f"^{SYMBOL_PATTERN}$", fullmatch=True), st.text(max_size=4)), max_size=4))
def test_what_the_contract_says_of_symbols_is_what_is_parsed(symbols: list[str]) -> None:
    allowed = jsonschema.Draft202012Validator(_SYMBOLS).is_valid(symbols) and not any("\n" in it for it in symbols)
    try:
        parsed = parse_report_request(MultiDict({"symbols": ",".join(symbols)})).symbols
    except InvalidRequest:
        assert not allowed
    else:
        assert allowed or ",".join(symbols).split(",") != symbols
        assert ",".join(parsed) == ",".join(symbols)


@settings(deadline=None)
@given(st.one_of(st.from_regex(_USER["pattern"], fullmatch=True), st.text(max_size=8)))
def test_what_the_contract_says_of_the_user_is_what_is_parsed(user: str) -> None:
    allowed = jsonschema.Draft202012Validator(_USER).is_valid(user) and "\n" not in user
    try:
        parsed = parse_report_request(MultiDict({"symbols": "SPY", "user_id": user})).user_id
    except InvalidRequest:
        assert not allowed
    else:
        assert allowed
        assert parsed == user


async def test_without_market_data_the_answer_is_a_503_with_the_faults(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_text(MARKET.replace("spot: 100", "spot: none"))
    async with market_server(path) as client:
        error = await answer(client, REPORT, 503, symbols="ACME")
    assert error["reason"] == "MarketDataUnavailable"
    assert "market.yaml line 6: symbols.ACME.spot is none: must be a number" in error["error"]


async def test_stale_data_answers_and_says_so(market_file: Path) -> None:
    async with market_server(market_file) as client:
        assert (await answer(client, FORECAST, symbols="ACME"))["market_data"]["stale"] is False
        replacement = market_file.with_name("new")
        replacement.write_text("symbols: broken")
        replacement.rename(market_file)
        async with asyncio.timeout(10):
            while True:
                source = (await answer(client, FORECAST, symbols="ACME"))["market_data"]
                if source["stale"]:
                    break
                await asyncio.sleep(0.01)
    assert "market.yaml line 1: symbols is broken: must be a map" in source["message"]


async def test_an_overload_of_the_pricer_is_passed_on(market_file: Path) -> None:
    def overloaded(batch: OptionBatch) -> Quotes:
        raise Overloaded(queued=10, asked=len(batch), limit=10)

    async with market_server(market_file, price=overloaded) as client:
        error = await answer(client, REPORT, 429, symbols="ACME")
    assert error["reason"] == "Overloaded"


@pytest.mark.parametrize("name", ["gamma", "error_bound"])
async def test_a_result_that_is_no_number_is_never_answered(market_file: Path, name: str) -> None:
    def broken(batch: OptionBatch) -> Quotes:
        return replace(european().price(batch), **{name: np.full(len(batch), np.nan)})

    async with market_server(market_file, price=broken) as client:
        error = await answer(client, FORECAST, 500, symbols="ACME")
    assert error["reason"] == "NonFiniteResult"


async def test_a_pricer_that_hangs_is_given_up(market_file: Path) -> None:
    async def hanging(batch: OptionBatch) -> Quotes:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")

    async with market_server(market_file, price=hanging, timeout_seconds=0.05) as client:
        error = await answer(client, FORECAST, 503, symbols="ACME")
    assert error["reason"] == "ReportTimeout"
    assert "not priced within 0.05 s" in error["error"]


async def test_many_reports_at_once_are_made_two_at_a_time_and_all_are_answered(market_file: Path) -> None:
    working, most = 0, 0

    async def counted(batch: OptionBatch) -> Quotes:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0.001)
        working -= 1
        return european().price(batch)

    async with market_server(market_file, price=counted) as client:
        await asyncio.gather(*(answer(client, REPORT, symbols="ACME") for _ in range(REPORTS_AT_MOST)))
    assert most == REPORTS_AT_ONCE


async def test_more_reports_than_may_wait_are_an_overload_and_so_are_those_whose_turn_never_comes(
    market_file: Path,
) -> None:
    opened = asyncio.Event()

    async def gated(batch: OptionBatch) -> Quotes:
        await opened.wait()
        return european().price(batch)

    async with market_server(market_file, price=gated, timeout_seconds=1.0) as client:
        statuses = await asyncio.gather(*(_status(client) for _ in range(REPORTS_AT_MOST + 3)))
        # Those that were worked on have taken too long; as their time ends, so does the others' patience.
        assert set(statuses) == {429, 503}
        assert REPORTS_AT_ONCE <= statuses.count(503) <= 2 * REPORTS_AT_ONCE
        opened.set()
        await answer(client, REPORT, symbols="ACME")


async def _status(client: Client) -> int:
    async with client.get(REPORT, params={"symbols": "ACME"}) as response:
        return response.status


async def test_fifty_symbols_are_answered_in_pieces_that_let_others_through(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    head = MARKET.split("symbols:")[0]
    rows = [f"  S{n}: {{name: Share {n}, spot: {50 + n}, volatility: 0.3, rate: 0.03}}\n" for n in range(50)]
    path.write_text(f"{head}symbols:\n{''.join(rows)}")
    sizes: list[int] = []

    def remembering(batch: OptionBatch) -> Quotes:
        sizes.append(len(batch))
        return european().price(batch)

    async with market_server(path, price=remembering) as client:
        report = await answer(client, REPORT, symbols=",".join(f"S{n}" for n in range(50)))
    assert len(report["reports"]) == 50
    assert max(sizes) <= 256


async def test_the_user_is_not_logged(market_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with market_server(market_file) as client:
        with caplog.at_level(logging.DEBUG, logger="pinn_inference"):
            await answer(client, REPORT, symbols="ACME", user_id="secret-user")
            await answer(client, REPORT, 404, symbols="FOO", user_id="secret-user")
    assert "secret-user" not in caplog.text


def test_every_method_and_reason_is_in_the_contract() -> None:
    option = OPENAPI_SCHEMAS["ReportOption"]["properties"]
    assert option["method"]["enum"] == [method.label for method in Method]
    assert len(option["reason"]["enum"]) == len(FallbackReason) - 1


NEGATIVE = """\
as_of: 2026-01-02T21:00:00Z
currency: CHF
horizons: [1m, 1y]
strikes: [0.9, 1, 1.1]
symbols:
  CALL: {name: Calls with two boundaries, spot: 100, volatility: 0.2, rate: -0.0075, dividend: -0.005}
  PUTS: {name: Puts with two boundaries, spot: 100, volatility: 0.2, rate: -0.005, dividend: -0.0075}
  ACME: {name: Acme, spot: 100, volatility: 0.2, rate: 0.03, dividend: 0.01}
"""


async def test_an_american_option_with_two_boundaries_is_left_out_with_its_reason_and_spoils_no_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "market.yaml"
    path.write_text(NEGATIVE)

    def one_boundary(batch: OptionBatch) -> Quotes:
        assert not (batch.is_american & has_two_boundaries(batch)).any()
        return with_american(batch)

    async with market_server(path, price=one_boundary, prices_american=True) as client:
        report = await answer(client, REPORT, symbols="CALL,ACME,PUTS")
    for told, priced in zip(report["reports"], ({"put"}, {"call", "put"}, {"call"}), strict=True):
        for pair in (pair for horizon in told["horizons"] for pair in horizon["options"]):
            for side in ("call", "put"):
                assert ("american" in pair[side]) == (side in priced)
                expected = None if side in priced else "two_exercise_boundaries"
                assert pair[side].get("american_reason") == expected
            if "put" in priced:
                assert pair["put"]["american"]["price"] == pytest.approx(1.01 * pair["put"]["price"])


async def test_an_early_exercise_premium_is_never_below_zero(market_file: Path) -> None:
    def a_little_less(batch: OptionBatch) -> Quotes:
        quotes = with_american(batch)
        return replace(quotes, price=np.where(batch.is_american, quotes.price / 1.02, quotes.price))

    async with market_server(market_file, price=a_little_less, prices_american=True) as client:
        report = await answer(client, REPORT, symbols="ACME")
    legs = [pair[side] for pair in report["reports"][0]["horizons"][1]["options"] for side in ("call", "put")]
    assert {leg["american"]["early_exercise_premium"] for leg in legs} == {0.0}
