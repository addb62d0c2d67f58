"""The field `greeks` of a request for prices: what it adds to an answer, and that nothing changes without it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.second_order import second_order
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.errors import BatchTooLarge, InvalidRequest
from pinn_inference.server.more_greeks import NAMES, greeks_of, parse_request
from pinn_inference.server.parsing import PriceRequest, parse_price_request
from pinn_inference.server.served_model import load_configured_model
from tests.support.server import PUT, Client, running

ASKED = ["vanna", "volga", "charm"]


async def post(client: Client, document: Any) -> tuple[int, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    async with client.post("/v1/price", data=data) as response:
        return response.status, orjson.loads(await response.read())


async def get(client: Client, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        return response.status, orjson.loads(await response.read())


def exact(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    options = parse_price_request(json.dumps({"options": rows}).encode(), max_batch=10).options
    found = second_order(options, ASKED)
    return [
        {name: {"value": each.value[row], "error_bound": each.error_bound[row]} for name, each in found.items()}
        for row in range(len(rows))
    ]


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_single_option_is_answered_with_the_greeks_asked_for_and_otherwise_as_without() -> None:
    async with running() as client:
        _, plain = await post(client, PUT)
        status, answer = await post(client, {**PUT, "greeks": ASKED})
    assert status == 200
    greeks = answer.pop("greeks")
    assert answer == plain
    assert list(greeks) == ASKED
    assert greeks == exact(PUT)[0]


async def test_each_option_of_a_list_has_them() -> None:
    other = {**PUT, "strike": 110, "option_type": "call"}
    async with running() as client:
        _, plain = await post(client, {"options": [PUT, other]})
        _, answer = await post(client, {"options": [PUT, other], "greeks": ASKED})
    assert [row.pop("greeks") for row in answer["results"]] == exact(PUT, other)
    assert answer == plain


async def test_columns_have_them_in_columns() -> None:
    async with running() as client:
        _, plain = await post(client, {"columns": {**PUT, "strike": [95, 110]}})
        _, answer = await post(client, {"columns": {**PUT, "strike": [95, 110]}, "greeks": ASKED})
    greeks = answer["columns"].pop("greeks")
    assert answer == plain
    wanted = exact(PUT, {**PUT, "strike": 110})
    for name in ASKED:
        for part in ("value", "error_bound"):
            assert greeks[name][part] == [row[name][part] for row in wanted]


async def test_a_large_request_has_them_in_every_row() -> None:
    rows = [{**PUT, "strike": 50 + row / 50} for row in range(3000)]
    async with running() as client:
        _, answer = await post(client, {"options": rows, "greeks": ["vanna"]})
        _, alone = await post(client, {**rows[2048], "greeks": ["vanna"]})
    assert len(answer["results"]) == 3000
    assert answer["results"][2048]["greeks"] == alone["greeks"]


async def test_they_are_null_without_variance_and_for_american_options_that_can_be_exercised_early() -> None:
    american = {**PUT, "style": "american"}
    never = {**american, "option_type": "call", "dividend": 0}
    dead = {**PUT, "maturity": 0}
    async with running() as client:
        _, answer = await post(client, {"options": [american, never, dead], "greeks": ["vanna"]})
        _, columns = await post(client, {"columns": {**PUT, "maturity": [0, 1]}, "greeks": ["vanna"]})
    first, second, third = (row["greeks"]["vanna"] for row in answer["results"])
    assert first is third is None
    assert second == exact({**never, "style": "european"})[0]["vanna"]
    assert columns["columns"]["greeks"]["vanna"]["value"][0] is None
    assert columns["columns"]["greeks"]["vanna"]["error_bound"][0] is None


async def test_the_usual_greeks_come_with_their_bounds_and_are_those_beside_the_price() -> None:
    american = {**PUT, "style": "american"}
    beyond = {**american, "maturity": 30}
    dead = {**PUT, "maturity": 0}
    names = ["rho", "vanna", "delta"]
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        _, answer = await post(client, {"options": [PUT, american, beyond, dead], "greeks": names})
        _, large = await post(client, {"options": [PUT, american, beyond, dead] * 200, "greeks": names})
        _, health = await get(client, "/health/pinn")
    of_model = health["model"]["american"]["greek_bounds"]
    for rows in (answer["results"], large["results"][:4]):
        for row in rows:
            assert list(row["greeks"]) == names
            assert all(row["greeks"][name]["value"] == row[name] for name in ("rho", "delta"))
        european, by_network, by_equation, without_variance = (row["greeks"]["rho"]["error_bound"] for row in rows)
        assert 0.0 < european < 1e-5
        assert by_network == pytest.approx(of_model["rho"] * PUT["strike"] * PUT["maturity"])
        assert by_equation is without_variance is None


async def test_in_columns_a_bound_that_nobody_knows_is_null() -> None:
    async with running() as client:
        _, answer = await post(client, {"columns": {**PUT, "maturity": [0.5, 0]}, "greeks": ["delta"]})
    columns = answer["columns"]
    assert columns["greeks"]["delta"]["value"] == columns["delta"]
    first, second = columns["greeks"]["delta"]["error_bound"]
    assert 0.0 < first < 1e-6
    assert second is None


async def test_without_the_field_answers_are_byte_for_byte_what_they_were() -> None:
    async with running() as client, client.post("/v1/price", json=PUT) as response:
        text = await response.text()
    assert list(json.loads(text)) == [
        "price", "delta", "gamma", "vega", "theta", "rho", "method", "model", "error_bound", "cached",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "of", "by"), [
    ("vanna", "delta", "volatility"), ("charm", "delta", "time"), ("veta", "vega", "time"), ("color", "gamma", "time"),
])  # fmt: skip
def test_with_dividends_of_known_amounts_they_are_by_the_true_spot(name: str, of: str, by: str) -> None:
    """As what becomes of the first order when a moment has passed: the dividends have come nearer, too."""

    def request(step: float, *greeks: str) -> PriceRequest:
        moved = {"volatility": PUT["volatility"] + step} if by == "volatility" else {}
        passed = step if by == "time" else 0.0
        paid = [{"time": time - passed, "amount": 4.0} for time in (0.1, 0.3)]
        document = {**PUT, **moved, "maturity": PUT["maturity"] - passed, "dividends": paid, "greeks": list(greeks)}
        return parse_request(json.dumps(document).encode(), max_batch=10)

    def first(step: float) -> float:
        asked = request(step, "vanna")
        return float(getattr(asked.settled(closed_form.price(asked.options)), of)[0])

    asked = request(0.0, name)
    greeks = greeks_of(asked, closed_form.price(asked.options), american_bounds={})
    assert greeks is not None
    assert greeks[name].value[0] == pytest.approx((first(1e-5) - first(-1e-5)) / 2e-5, rel=1e-6, abs=1e-8)
    assert greeks[name].error_bound[0] < 1e-9


# --- what is read -----------------------------------------------------------------------------------------------------

TEXTS = {
    "first": '{"greeks": ["volga", "vanna"], %s}',
    "last": '{%s, "greeks" : [ "volga","vanna" ] }\n',
    "escaped": '{%s, "gr\\u0065eks": ["volga", "vanna"]}',
}


@pytest.mark.parametrize("where", TEXTS)
@pytest.mark.parametrize("rest", [PUT, {"options": [PUT, PUT]}, {"columns": {**PUT, "spot": [90, 100]}}])
def test_it_may_stand_anywhere_and_the_rest_is_read_as_without_it(where: str, rest: dict[str, Any]) -> None:
    inner = json.dumps(rest)[1:-1]
    found = parse_request((TEXTS[where] % inner).encode(), max_batch=10)
    plain = parse_price_request(json.dumps(rest).encode(), max_batch=10)
    assert found.greeks == ("volga", "vanna")
    assert found.form is plain.form
    assert np.array_equal(found.options.spot, plain.options.spot)


def test_it_may_stand_between_other_fields() -> None:
    text = json.dumps({"spot": 100, "greeks": ["speed"], **{name: PUT[name] for name in PUT if name != "spot"}})
    assert parse_request(text.encode(), max_batch=10).greeks == ("speed",)


def test_all_that_there_are_can_be_asked_for() -> None:
    text = json.dumps({**PUT, "greeks": list(NAMES)}).encode()
    assert parse_request(text, max_batch=10).greeks == NAMES


# --- what is refused --------------------------------------------------------------------------------------------------


def faults_of(text: bytes) -> list[tuple[str, int | None]]:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(text, max_batch=10)
    return [(fault.field, fault.index) for fault in caught.value.faults]


@pytest.mark.parametrize(
    "asked", [[], "vanna", None, {}, 1, ["price"], ["vanna", "vanna"], [["vanna"]], [1], ["Vanna"]]
)
def test_anything_but_a_list_of_known_names_is_a_fault(asked: Any) -> None:
    assert faults_of(json.dumps({**PUT, "greeks": asked}).encode()) == [("greeks", None)]


def test_its_fault_comes_with_all_others() -> None:
    document = {"greeks": ["foo"], "options": [PUT, {**PUT, "spot": -1}]}
    assert faults_of(json.dumps(document).encode()) == [("greeks", None), ("spot", 1)]


def test_inside_an_option_of_a_list_or_among_columns_it_is_a_stranger() -> None:
    inside = {**PUT, "greeks": ["vanna"]}
    assert faults_of(json.dumps({"options": [inside]}).encode()) == [("greeks", 0)]
    assert faults_of(json.dumps({"options": [inside], "greeks": ["vanna"]}).encode()) == [("greeks", 0)]
    assert faults_of(json.dumps({"columns": {**inside, "spot": [1, 2]}}).encode())[0][0] == "greeks"


@pytest.mark.parametrize("text", ['{"greeks":["vanna"],"greeks":["volga"],%s}', '{%s,"greeks":[],"greeks":["volga"]}'])
def test_twice_it_is_refused(text: str) -> None:
    assert faults_of((text % json.dumps(PUT)[1:-1]).encode()) == [("greeks", None)]


@pytest.mark.parametrize(
    "text",
    [
        b'{"greeks":[],',
        b'{"greeks":',
        b'"greeks"',
        b'["greeks"]',
        b'{"greeks":["vanna"],}',
        b'{"spot":NaN,"greeks":["vanna"]}',
        b'{"greeks":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"greeks":["vanna"],"options":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"greeks":["vanna"],"options":[' + b"[]," * 1_000_000 + b"[]]}",
        b'{"greeks":["' + b"a" * 1_000_000 + b'"]}',
        b'{"greeks":["\xff"],"spot":1}',
    ],
)
def test_hostile_bodies_are_refused(text: bytes) -> None:
    assert faults_of(text)


def test_too_many_options_are_too_many_with_it_too() -> None:
    with pytest.raises(BatchTooLarge):
        parse_request(json.dumps({"options": [PUT] * 11, "greeks": ["vanna"]}).encode(), max_batch=10)
