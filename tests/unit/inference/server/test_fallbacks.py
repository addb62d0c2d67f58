"""What the server answers when the network cannot: the shipped model, and models that are broken in chosen ways."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from pinn_inference.pricing import artefact as artefacts
from pinn_inference.pricing.artefact import RECORD_FILE, WEIGHTS_FILE, bundled_directory
from pinn_inference.pricing.cache import QuoteCache
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.model import PinnModel, load_numpy_model
from pinn_inference.pricing.model_set import ModelSet
from pinn_inference.pricing.types import OptionBatch
from pinn_inference.server import ServerConfig
from pinn_inference.server.served_model import CachedModel, load_configured_model
from tests.support.server import PUT, Client, ExactModel, running, sample

AMERICAN = {**PUT, "style": "american"}


async def price(client: Client, document: Any, path: str = "/v1/price") -> tuple[int, Any]:
    async with client.post(path, data=json.dumps(document).encode()) as response:
        return response.status, orjson.loads(await response.read())


@pytest.mark.parametrize("count", [1, 5, 40, 700], ids=["scalar", "few", "array", "large"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"volatility": 3.0, "maturity": 5}, "out_of_domain"),
        ({"volatility": 0}, "zero_variance"),
        ({"maturity": 0}, "zero_variance"),
    ],
    ids=["outside the domain", "no volatility", "expired"],
)
async def test_what_the_network_does_not_price_says_why_on_every_path(
    count: int, change: dict[str, float], reason: str
) -> None:
    row = {**PUT, **change}
    async with running(load_configured_model(ServerConfig())) as client:
        status, answer = await price(client, {"options": [row] * count} if count > 1 else row)
        assert status == 200
        rows = answer["results"] if count > 1 else [answer]
        assert [(one["method"], one["reason"], one["model"]) for one in rows] == [("closed_form", reason, None)] * count
        assert sample(client, "pinn_fallback_total", reason=reason) == count
        assert sample(client, "pinn_options_priced_total", method="closed_form") == count


async def test_one_row_outside_the_domain_leaves_the_others_to_the_network() -> None:
    rows = [PUT, {**PUT, "volatility": 9}, PUT] * 12
    async with running(load_configured_model(ServerConfig())) as client:
        _, answer = await price(client, {"options": rows})
    assert [row["method"] for row in answer["results"]] == ["pinn", "closed_form", "pinn"] * 12


async def test_every_path_gives_the_same_price() -> None:
    async with running(load_configured_model(ServerConfig())) as client:
        _, alone = await price(client, PUT)
        _, again = await price(client, PUT)
        prices = [alone["price"], again["price"]]
        for count in (2, 40, 700):
            _, answer = await price(client, {"options": [PUT] * count})
            prices += [row["price"] for row in answer["results"]]
    assert np.ptp(prices) <= 1e-9 * PUT["strike"]


def write_model(directory: Path, *, weights: bytes | None = None, sha256: str | None = None) -> Path:
    """The shipped model with other weights, and a record that says they are right unless `sha256` says otherwise."""
    shutil.copytree(bundled_directory(), directory, dirs_exist_ok=True)
    if weights is not None:
        (directory / WEIGHTS_FILE).write_bytes(weights)
    record = json.loads((directory / RECORD_FILE).read_text())
    record["sha256"] = sha256 or hashlib.sha256((directory / WEIGHTS_FILE).read_bytes()).hexdigest()
    (directory / RECORD_FILE).write_text(json.dumps(record))
    return directory


def scaled(factor: float, directory: Path) -> Path:
    """A model that is well formed and wrong: the last layer's weights times `factor`."""
    model = artefacts.read(bundled_directory())
    *first, last = model.network.layers
    network = replace(model.network, layers=(*first, replace(last, kernel=last.kernel * factor)))
    artefacts.write(directory, name="european", version=None, network=network, certificate=model.certificate, record={})
    return directory


@pytest.mark.parametrize("kind", ["flipped", "cut", "no archive", "empty", "wrong", "absent"])
async def test_a_file_that_is_not_right_never_becomes_ready_and_is_never_priced_by(kind: str, tmp_path: Path) -> None:
    good = (bundled_directory() / WEIGHTS_FILE).read_bytes()
    flipped = good[:-100] + bytes([good[-100] ^ 1]) + good[-99:]
    makers = {
        "flipped": (lambda: write_model(tmp_path, weights=flipped, sha256="0" * 64), "ModelChecksumMismatch"),
        "cut": (lambda: write_model(tmp_path, weights=good[: len(good) // 2]), "ModelFormatInvalid"),
        "no archive": (lambda: write_model(tmp_path, weights=b"weights"), "ModelFormatInvalid"),
        "empty": (lambda: write_model(tmp_path, weights=b""), "ModelFormatInvalid"),
        "wrong": (lambda: scaled(1.001, tmp_path), "ModelSelfCheckFailed"),
        "absent": (lambda: tmp_path, "ModelNotFound"),
    }
    make, reason = makers[kind]
    config = ServerConfig(model_dir=make())
    async with running(lambda: load_configured_model(config)) as client:
        async with client.get("/health/deployment/readiness") as response:
            answer = await response.json()
            assert (response.status, answer["ready"], answer["reason"]) == (503, False, reason)
        async with client.get("/health") as response:
            assert response.status == 200
        async with client.get("/health/detailed") as response:
            components = (await response.json())["components"]
            assert (response.status, components["pinn_model"]["status"]) == (503, "unhealthy")
        async with client.get("/v2/health/ready") as response:
            assert response.status == 503
        _, single = await price(client, PUT)
        _, many = await price(client, {"options": [PUT] * 300})
        for row in (single, *many["results"]):
            assert (row["method"], row["reason"], row["model"]) == ("closed_form", "model_unavailable", None)
        assert sample(client, "pinn_ready") == 0
        async with client.post("/health/pinn/warmup") as response:
            assert (response.status, (await response.json())["reason"]) == (503, reason)


class Broken(ExactModel):
    """Gives a chosen number where a price should be."""

    value = np.nan

    def price(self, batch: OptionBatch) -> Any:
        quotes = super().price(batch)
        quotes.price[0] = self.value
        return quotes


@pytest.mark.parametrize("count", [1, 5, 40, 700], ids=["scalar", "few", "array", "large"])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["NaN", "infinite"])
async def test_a_model_that_answers_what_is_no_number_is_an_error_and_never_a_price(count: int, value: float) -> None:
    model = Broken()
    model.value = value
    async with running(model) as client:
        status, answer = await price(client, {"options": [PUT] * count} if count > 1 else PUT)
        assert (status, answer["reason"]) == (500, "NonFiniteResult")
        assert sample(client, "pinn_prediction_errors_total", error_type="NonFiniteResult") == 1
        async with client.get("/health/detailed") as response:
            assert (response.status, (await response.json())["status"]) == (503, "unhealthy")


class Unchecked(CachedModel):
    """Comes into use however wrong it is."""

    def self_check(self) -> None:
        """Finds nothing."""


async def test_a_network_that_gives_nan_is_replaced_by_the_closed_form_on_every_path() -> None:
    good = load_numpy_model(bundled_directory()).artefact
    *first, last = good.network.layers
    network = replace(good.network, layers=(*first, replace(last, bias=np.full_like(last.bias, np.nan))))
    sick = replace(good, network=network)
    engine = NumPyEngine(network, good.certificate)
    served = Unchecked(ModelSet(PinnModel(sick, (engine,))), QuoteCache(sick))
    async with running(served) as client:
        for count in (1, 5, 40, 700):
            _, answer = await price(client, {"options": [PUT] * count} if count > 1 else PUT)
            rows = answer["results"] if count > 1 else [answer]
            assert {(row["method"], row["reason"]) for row in rows} == {("closed_form", "not_finite")}
        assert sample(client, "pinn_fallback_total", reason="not_finite") == 1 + 5 + 40 + 700


async def test_an_american_option_is_priced_by_its_own_network_alone_and_among_others() -> None:
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        _, european = await price(client, PUT)
        _, alone = await price(client, AMERICAN)
        assert alone["method"] == "pinn"
        assert alone["model"].startswith("american/")
        assert 0 < alone["exercise_boundary"] < PUT["strike"]
        assert alone["price"] > european["price"]
        assert (await price(client, AMERICAN))[1] == {**alone, "cached": True}
        for count in (1, 40, 700):
            _, answer = await price(client, {"options": [PUT] * count + [AMERICAN]})
            *others, last = answer["results"]
            assert {row["model"] for row in others} == {european["model"]}
            assert (last["model"], last["exercise_boundary"]) == (alone["model"], alone["exercise_boundary"])
            assert abs(last["price"] - alone["price"]) <= 1e-9 * PUT["strike"]
        async with client.get("/health/deployment/readiness") as response:
            assert (await response.json())["model"]["american"]["name"] == "american"


async def test_an_american_option_outside_the_domain_is_priced_by_the_integral_equation_beside_the_loop() -> None:
    outside = {**AMERICAN, "volatility": 1.5, "maturity": 5}
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        _, answer = await price(client, outside)
        assert (answer["method"], answer["reason"], answer["model"]) == ("integral_equation", "out_of_domain", None)
        assert sample(client, "pinn_options_priced_total", method="integral_equation") == 1
        assert sample(client, "pinn_fallback_total", reason="out_of_domain") == 1
        _, european = await price(client, {**outside, "style": "european"})
        assert answer["price"] > european["price"]


async def test_without_an_american_model_no_american_option_gets_a_european_price() -> None:
    async with running(ExactModel()) as client:
        _, european = await price(client, PUT)
        for count in (0, 1, 40, 700):
            status, answer = await price(client, {"options": [PUT] * count + [AMERICAN]})
            if status == 503:
                assert answer["reason"] == "AmericanUnavailable"
            else:
                assert answer["results"][-1]["method"] == "integral_equation"
                assert answer["results"][-1]["price"] > european["price"]
        assert (await price(client, PUT))[0] == 200
