"""`POST /v1/scenarios`: a portfolio over a grid is the sum of what `/v1/price` says of each option at each point."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing.american import SLOW_OPTIONS_AT_MOST
from pinn_inference.pricing.escrow import Schedule
from pinn_inference.pricing.ladders import AXES, NEUTRAL, Ladders
from pinn_inference.pricing.types import OptionBatch
from pinn_inference.server import ServerConfig
from pinn_inference.server.errors import BatchTooLarge, InvalidRequest
from pinn_inference.server.scenarios import TOTALS, ScenarioRequest, TooManyScenarios, parse_scenarios
from pinn_inference.server.served_model import load_configured_model
from tests.support.server import PUT, Client, ExactModel, running

CALL = {**PUT, "option_type": "call", "strike": 105, "maturity": 0.25}
LADDERS = {"spot": [0.9, 1.0, 1.15], "volatility": [-0.05, 0.0], "rate": [0.0, 0.01], "time": [0.0, 0.1, 0.4]}
UNDATED = {name: value for name, value in PUT.items() if name != "maturity"}


def parsed(document: Any, max_batch: int = 1000) -> ScenarioRequest:
    return parse_scenarios(json.dumps(document).encode(), max_batch=max_batch)


def faults(document: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parsed(document)
    return [(fault.field, fault.message) for fault in caught.value.faults]


async def ask(client: Client, document: Any, path: str = "/v1/scenarios") -> Any:
    async with client.post(path, json=document) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer


async def told(document: Any) -> Any:
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        return await ask(client, document)


def shifted(option: dict[str, Any], spot: float, volatility: float, rate: float, time: float) -> dict[str, Any]:
    """The option at one point, by hand."""
    return {
        **{name: value for name, value in option.items() if name != "quantity"},
        "spot": option["spot"] * spot,
        "volatility": option["volatility"] + volatility,
        "rate": option["rate"] + rate,
        "maturity": max(option["maturity"] - time, 0.0),
        "dividends": [
            {"time": paid["time"] - time, "amount": paid["amount"]}
            for paid in option.get("dividends", ())
            if paid["time"] >= time
        ],
    }


# --- the answer -------------------------------------------------------------------------------------------------------


async def test_every_point_is_the_sum_of_the_quotes_of_its_options() -> None:
    paying = {**CALL, "dividends": [{"time": 0.05, "amount": 1.5}, {"time": 0.2, "amount": 1.0}], "quantity": 3}
    positions = [{**PUT, "quantity": -10}, paying, {**CALL, "style": "american", "quantity": 2.5}, CALL]
    async with running(ExactModel(error_bound=1e-6)) as client:
        answer = await ask(client, {"options": positions, "ladders": LADDERS, "per_option": True})
        points = list(itertools.product(*(LADDERS[axis] for axis in AXES)))
        rows = [shifted(option, *point) for point in points for option in positions]
        quotes = (await ask(client, {"options": rows}, "/v1/price"))["results"]
    assert answer["axes"] == list(AXES)
    assert answer["ladders"] == LADDERS
    quantity = np.array([option.get("quantity", 1.0) for option in positions])
    shape = tuple(len(LADDERS[axis]) for axis in AXES)
    for name, column in TOTALS.items():
        each = np.array([row[column] for row in quotes]).reshape(len(points), len(positions))
        if name == "theta":  # 0 once the last moment has passed, where `/v1/price` says what it was
            each[[[option["maturity"] < point[3] for option in positions] for point in points]] = 0.0
        assert np.array(answer["totals"][name]).shape == shape
        assert np.array(answer["totals"][name]).ravel() == pytest.approx(each @ quantity, rel=1e-11, abs=1e-9), name
        if name == "value":
            prices = np.array(answer["prices"])
            assert prices.shape == (len(positions), *shape)
            assert pytest.approx(each, rel=1e-12, abs=1e-12) == prices.reshape(len(positions), -1).T
    bounds = np.array([row["error_bound"] for row in quotes]).reshape(len(points), len(positions))
    assert np.array(answer["totals"]["error_bound"]).ravel() == pytest.approx(bounds @ np.abs(quantity), rel=1e-6)
    counted = [row["method"] for row in quotes]
    assert answer["methods"] == {method: counted.count(method) for method in set(counted)}


async def test_one_option_and_columns_are_answered_in_the_same_form_as_a_list() -> None:
    ladders = {"spot": [0.9, 1.1]}
    async with running() as client:
        one = await ask(client, {**PUT, "quantity": -2, "ladders": ladders})
        listed = await ask(client, {"options": [{**PUT, "quantity": -2}], "ladders": ladders})
        columns = {**PUT, "strike": [95, 105], "quantity": [-2, 0]}
        assert one == listed
        whole = await ask(client, {"columns": columns, "ladders": ladders})
        assert np.array(whole["totals"]["value"]) == pytest.approx(np.array(one["totals"]["value"]))
        alike = await ask(client, {"columns": {**columns, "quantity": 3}, "ladders": ladders, "per_option": True})
        assert np.array(alike["totals"]["value"]) == pytest.approx(3 * np.array(alike["prices"]).sum(axis=0))
    assert one["ladders"] == {**{axis: [NEUTRAL[axis]] for axis in AXES}, "spot": [0.9, 1.1]}
    assert "prices" not in one


async def test_an_expired_option_is_worth_its_payoff_at_the_spot_of_the_ladder() -> None:
    async with running(ExactModel(american=ExactModel())) as client:
        for style in ("european", "american"):
            answer = await ask(client, {**PUT, "style": style, "ladders": {"spot": [0.8, 1.2], "time": [0.5, 7]}})
            value = np.array(answer["totals"]["value"])[:, 0, 0, :]
            assert value == pytest.approx(np.array([[15.0, 15.0], [0.0, 0.0]]), abs=1e-12)


async def test_american_options_that_have_expired_are_no_slow_ones() -> None:
    document = {**PUT, "style": "american", "ladders": {"spot": [0.9, 1.1] * 400, "time": [0.5, 1, 2]}}
    answer = await told(document)
    assert SLOW_OPTIONS_AT_MOST < 2400
    assert answer["totals"]["value"][:2] == [[[[5.0] * 3]], [[[0.0] * 3]]]


async def test_who_priced_is_said_and_is_the_model_of_the_answer() -> None:
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        quote = await ask(client, PUT, "/v1/price")
        answer = await ask(client, {**PUT, "ladders": {"spot": [1.0], "time": [0.0, 0.5]}})
    assert answer["models"]["european"] == quote["model"]
    assert (answer["methods"], answer["reasons"]) == ({"closed_form": 1, "pinn": 1}, {"zero_variance": 1})
    assert answer["totals"]["value"][0][0][0][0] == pytest.approx(quote["price"], rel=1e-12)
    assert answer["totals"]["error_bound"][0][0][0][0] == pytest.approx(quote["error_bound"], rel=1e-2)


async def test_a_grid_moves_no_metric_that_gates_compare() -> None:
    document = {**PUT, "ladders": {"spot": [0.2, 5.0] * 500}}
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        answer = await ask(client, document)
        assert sum(answer["methods"].values()) == 1000
        async with client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
    told = [line for line in lines if re.match(r"pinn_(options_priced|fallback|price_to_strike)_", line)]
    assert told
    assert [line for line in told if float(line.rpartition(" ")[2])] == []


async def test_dates_are_counted_before_time_passes() -> None:
    document = {**UNDATED, "expiry": "2027-06-01", "valuation_time": "2026-06-01", "ladders": {"time": [0.0, 0.5]}}
    async with running() as client:
        dated = await ask(client, document)
        assert dated["totals"] == (await ask(client, {**PUT, "maturity": 1, "ladders": {"time": [0.0, 0.5]}}))["totals"]


# --- grids ------------------------------------------------------------------------------------------------------------


def one_option(spot: float, maturity: float) -> OptionBatch:
    columns = [np.array([value]) for value in (spot, 100.0, maturity, 0.03, 0.01, 0.2)]
    return OptionBatch(*columns, np.array([True]), np.array([True]))


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    spots=st.lists(st.floats(50, 150), min_size=1, max_size=3),
    paid=st.floats(0, 2),
)
@settings(max_examples=60)
def test_each_option_stands_at_its_place_of_the_grid(sizes: tuple[int, ...], spots: list[float], paid: float) -> None:
    spot, volatility, rate, time = (np.linspace(0.5, 1.5, size) for size in sizes)
    ladders = Ladders(spot, volatility, rate, time)
    options = OptionBatch.concatenate([one_option(each, 1.0 + each / 100) for each in spots])
    made, schedules = ladders.expanded(options, [Schedule(((paid, each),)) for each in spots])
    assert len(made) == len(schedules) == len(spots) * ladders.size
    for number, (option, *point) in enumerate(itertools.product(range(len(spots)), *map(range, ladders.shape))):
        assert made.spot[number] == options.spot[option] * spot[point[0]]
        assert made.volatility[number] == options.volatility[option] + volatility[point[1]]
        assert made.rate[number] == options.rate[option] + rate[point[2]]
        assert made.maturity[number] == max(options.maturity[option] - time[point[3]], 0.0)
        left = ((paid - time[point[3]], spots[option]),) if paid >= time[point[3]] else ()
        assert schedules[number].dividends == left


def test_what_waits_for_dividends_waits_for_those_that_are_left() -> None:
    paying = {**PUT, "style": "american", "dividends": [{"time": 0.1, "amount": 1}, {"time": 0.3, "amount": 2}]}
    request = parsed({**paying, "ladders": {"time": [0.0, 0.2, 0.4]}})
    assert [len(schedule.dividends) for schedule in request.options.schedules] == [2, 1, 0]
    assert request.options.spot[2] == 100.0


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"ladders": None}, "ladders", "an object of lists"),
        ({"ladders": {}}, "ladders", "an object of lists"),
        ({"ladders": [1]}, "ladders", "an object of lists"),
        ({"ladders": {"vol": [0.1]}}, "ladders.vol", "known are spot, volatility, rate, time"),
        ({"ladders": {"spot": []}}, "ladders.spot", "1 to 1000"),
        ({"ladders": {"spot": 1.1}}, "ladders.spot", "1 to 1000"),
        ({"ladders": {"spot": [1] * 1001}}, "ladders.spot", "1 to 1000"),
        ({"ladders": {"spot": [1, 0]}}, "ladders.spot[1]", "above 0"),
        ({"ladders": {"spot": [True]}}, "ladders.spot[0]", "above 0"),
        ({"ladders": {"rate": ["1"]}}, "ladders.rate[0]", "basis point"),
        ({"ladders": {"rate": [10**400]}}, "ladders.rate[0]", "basis point"),
        ({"ladders": {"time": [-0.1]}}, "ladders.time[0]", "from 0 to 1e+12"),
        ({"ladders": {"volatility": [0, -0.3]}}, "ladders.volatility[1]", "from 0 to 10"),
        ({"ladders": {"rate": [0.99]}}, "ladders.rate[0]", "from -1 to 1"),
        ({"ladders": {"spot": [1e9]}}, "ladders.spot[0]", "takes the spot"),
        ({"quantity": "3"}, "quantity", "must be a number"),
        ({"quantity": 1e13}, "quantity", "must be a number"),
        ({"quantity": [1]}, "quantity", "must be a number"),
        ({"per_option": 1}, "per_option", "true or false"),
        ({"greeks": ["vanna"]}, "greeks", "not a field"),
        ({"quantities": 2}, "quantities", "known are quantity, spot,"),
        ({"spot": -1}, "spot", "must be a number"),
        ({"dividends": [{"time": 0.1, "amount": 60}], "ladders": {"spot": [1, 0.5]}}, "ladders.spot[1]", "dividends"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_what_is_wrong(changes: Any, field: str, words: str) -> None:
    (found, message), *others = faults({**PUT, "ladders": {"spot": [1.0]}, **changes})
    assert found == field
    assert words in message
    assert others == []


def test_all_faults_are_told_at_once_and_with_their_option() -> None:
    document = {
        "options": [PUT, {**PUT, "quantity": None, "spot": "x"}, 7],
        "ladders": {"spot": [0], "time": []},
    }
    with pytest.raises(InvalidRequest) as caught:
        parsed(document)
    told = [(fault.field, fault.index) for fault in caught.value.faults]
    assert told == [
        ("ladders.spot[0]", None), ("ladders.time", None), ("quantity", 1), ("spot", 1), ("", 2),
    ]  # fmt: skip


def test_a_column_of_quantities_is_as_long_as_the_others() -> None:
    columns = {**PUT, "strike": [90, 95, 100], "quantity": [1, 2]}
    told = [("quantity", "must be as long as the other lists: these are of 3")]
    assert faults({"columns": columns, "ladders": {"spot": [1]}}) == told
    paying = {**PUT, "dividends": [[{"time": 0.1, "amount": 1}], [], []], "quantity": [1, 2]}
    assert faults({"columns": paying, "ladders": {"spot": [1]}}) == told
    wrong = {**columns, "quantity": [1, "x", 2]}
    with pytest.raises(InvalidRequest) as caught:
        parsed({"columns": wrong, "ladders": {"spot": [1]}})
    assert [(fault.field, fault.index) for fault in caught.value.faults] == [("quantity", 1)]


def test_a_key_that_stands_twice_is_refused() -> None:
    text = json.dumps({**PUT, "ladders": {"spot": [1]}}).replace('"ladders"', '"ladders": {"time": [1]}, "ladders"')
    with pytest.raises(InvalidRequest, match="ladders"):
        parse_scenarios(text.encode(), max_batch=10)


def test_more_options_than_fit_are_refused_before_they_are_made() -> None:
    ladders = {axis: [NEUTRAL[axis]] * 1000 for axis in AXES}
    with pytest.raises(TooManyScenarios, match="1 options at 1000000000000 points"):
        parsed({**PUT, "ladders": ladders})
    with pytest.raises(BatchTooLarge):
        parsed({"options": [PUT] * 11, "ladders": {"spot": [1]}}, max_batch=10)
    assert len(parsed({"options": [PUT] * 10, "ladders": {"spot": [1]}}, max_batch=10).options) == 10


# --- the end of an option's life --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maturity", "times"),
    [(0.1, np.linspace(0, 0.3, 4)), (0.5, np.cumsum([1 / 52] * 26)), (0.8, [0.1 + 0.7]), (0.3, [0.1 + 0.2])],
)
@pytest.mark.parametrize("style", ["european", "american"])
async def test_what_a_sum_of_years_is_off_by_is_no_time_that_is_left(maturity: float, times: Any, style: str) -> None:
    """An option at the money has an enormous gamma in its last microsecond."""
    option = {**PUT, "strike": PUT["spot"], "maturity": maturity, "style": style}
    answer = await told({**option, "ladders": {"time": list(map(float, times))}})
    for name, most in (("gamma", 1.0), ("theta", 100.0)):
        assert np.max(np.abs(answer["totals"][name])) < most


async def test_a_dividend_of_this_very_moment_counts_whatever_its_time_is_the_sum_of() -> None:
    option = {**PUT, "dividends": [{"time": 0.3, "amount": 5.0}]}
    answer = await told({**option, "ladders": {"time": [0.3, 0.1 + 0.2]}})
    first, second = np.ravel(answer["totals"]["value"])
    assert first == pytest.approx(second, rel=1e-12)


@pytest.mark.parametrize("style", ["european", "american"])
@pytest.mark.parametrize("kind", ["call", "put"])
async def test_time_changes_an_option_no_more_once_its_last_moment_has_passed(style: str, kind: str) -> None:
    option = {**PUT, "strike": 95 if kind == "call" else 105, "option_type": kind, "style": style}
    answer = await told({**option, "ladders": {"time": [0.6, 0.7], "spot": [0.95, 1.0]}})
    assert np.ravel(answer["totals"]["theta"]).tolist() == [0.0] * 4
    value, delta = (np.array(answer["totals"][name]) for name in ("value", "delta"))
    assert np.array_equal(value[..., 0], value[..., 1])
    sign = 1.0 if kind == "call" else -1.0
    assert np.ravel(delta)[-1] == pytest.approx(sign, abs=1e-12)
