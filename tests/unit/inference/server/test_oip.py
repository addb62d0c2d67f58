"""The Open Inference Protocol over real HTTP, without the rest of the server: pages, paths, headers."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.bodies import AS_SENT
from pinn_inference.server.errors import ServerError, render_error
from pinn_inference.server.inflate import Coding, inflate
from pinn_inference.server.oip import INLINE_BYTES, ModelState, OpenInferencePages, infer_response
from pinn_inference.server.oip_codec import (
    AMERICAN_OUTPUTS,
    INPUTS,
    OUTPUTS,
    InferTarget,
    parse_infer_request,
    render_infer_answer,
)
from pinn_inference.server.timing import TIMING, Timing
from tests.support.oip import (
    PUT_COLUMNS,
    binary_request,
    bytes_elements,
    json_request,
    random_columns,
    tensor,
    with_input,
)

Client = TestClient[web.Request, web.Application]
LOADED = {"european": ModelState(True, "7f", ""), "american": ModelState(True, "a1", "")}
LOADING = {name: ModelState(False, None, "waiting for weights_loaded") for name in LOADED}


async def price(options: OptionBatch) -> Quotes:
    """Closed form for both styles, with a boundary for American ones: what is tested here is the way there and back."""
    european = replace(options, is_american=np.zeros(len(options), dtype=bool))
    boundary = np.where(options.is_american, 80.0, np.nan)
    return replace(closed_form.price(european), exercise_boundary=boundary)


async def large(
    request: web.Request, pieces: AsyncIterator[bytes], coding: Coding, target: InferTarget
) -> web.StreamResponse:
    body = inflate(b"".join([piece async for piece in pieces]), coding, limit=900_000)
    parsed = parse_infer_request(body, target=target, max_batch=100_000)
    response = infer_response(render_infer_answer(parsed, await price(parsed.options), target=target, version="7f"))
    response.headers["X-Large"] = "yes"
    request[TIMING] = Timing(len(parsed.options), 0.001, 0.002, 0.003)
    return response


@web.middleware
async def errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except ServerError as error:
        body = render_error(str(error), reason=error.reason, request_id="1", details=error.details())
        return web.Response(status=error.status, body=body, content_type="application/json")
    return response


@asynccontextmanager
async def serving(states: dict[str, ModelState] = LOADED, *, max_batch: int = 1000) -> AsyncIterator[Client]:
    pages = OpenInferencePages(
        price=price,
        large=large,
        state_of=states.__getitem__,
        server_ready=lambda: None if states["european"].ready else states["european"].message,
        max_body_bytes=900_000,
        max_batch=max_batch,
    )
    app = web.Application(middlewares=[errors], handler_args=AS_SENT)
    app.add_routes(pages.routes())
    async with TestClient(TestServer(app)) as client:
        yield client


async def get(client: Client, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        return response.status, await response.json()


async def infer(client: Client, document: Any, path: str = "/v2/models/european/infer", **how: Any) -> tuple[int, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    async with client.post(path, data=data, **how) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_says_its_name_and_what_it_can_beyond_the_protocol(path: str) -> None:
    async with serving() as client:
        status, document = await get(client, path)
    assert (status, document["name"]) == (200, "pinn-inference")
    assert document["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]


async def test_health_is_told_by_status_and_body() -> None:
    async with serving() as client:
        assert await get(client, "/v2/health/live") == (200, {"live": True})
        assert await get(client, "/v2/health/ready") == (200, {"live": True, "ready": True})
        assert await get(client, "/v2/models/american/ready") == (200, {"name": "american", "ready": True})
        assert (await get(client, "/v2/models/american/versions/a1/ready"))[0] == 200
    async with serving(LOADING) as client:
        assert (await get(client, "/v2/health/live"))[0] == 200
        status, document = await get(client, "/v2/health/ready")
        assert (status, document["ready"], document["error"]) == (503, False, "waiting for weights_loaded")
        status, document = await get(client, "/v2/models/european/ready")
        assert (status, document["ready"], document["error"]) == (503, False, "waiting for weights_loaded")


@pytest.mark.parametrize(("model", "outputs"), [("european", OUTPUTS), ("american", AMERICAN_OUTPUTS)])
async def test_a_model_lists_its_tensors(model: str, outputs: tuple[str, ...]) -> None:
    async with serving() as client:
        status, document = await get(client, f"/v2/models/{model}")
        assert (await get(client, f"/v2/models/{model}/versions/{LOADED[model].version}"))[1] == document
    assert (status, document["name"], document["versions"]) == (200, model, [LOADED[model].version])
    assert [each["name"] for each in document["inputs"]] == list(INPUTS)
    assert [each["name"] for each in document["outputs"]] == list(outputs)
    assert document["inputs"][0] == {"name": "spot", "datatype": "FP64", "shape": [-1]}
    assert document["inputs"][-1]["datatype"] == "BYTES"


@pytest.mark.parametrize("model", LOADED)
async def test_the_configuration_has_the_tensors_of_the_metadata(model: str) -> None:
    async with serving() as client:
        _, metadata = await get(client, f"/v2/models/{model}")
        status, document = await get(client, f"/v2/models/{model}/config")
        assert (await get(client, f"/v2/models/{model}/versions/{LOADED[model].version}/config"))[1] == document
    assert (status, document["name"], document["max_batch_size"]) == (200, model, 0)
    for kind in ("input", "output"):
        assert [it["name"] for it in document[kind]] == [it["name"] for it in metadata[f"{kind}s"]]
        assert all(it["dims"] == [-1] for it in document[kind])
    types = {it["name"]: it["data_type"] for it in (*document["input"], *document["output"])}
    assert (types["spot"], types["option_type"], types["method"]) == ("TYPE_FP64", "TYPE_STRING", "TYPE_STRING")
    assert [it["name"] for it in document["input"] if it["optional"]] == ["dividend", "option_type"]


async def test_statistics_count_requests_options_and_failures_of_each_model() -> None:
    async with serving() as client:
        before = (await get(client, "/v2/models/european/stats"))[1]["model_stats"]
        await infer(client, json_request(3))
        await infer(client, json_request(2))
        await infer(client, with_input(json_request(), "spot", data=[-1]))
        await infer(client, json_request(1), "/v2/models/american/infer")
        _, both = await get(client, "/v2/models/stats")
        _, one = await get(client, "/v2/models/european/versions/7f/stats")
    assert [(it["name"], it["inference_count"], it["last_inference"]) for it in before] == [("european", 0, 0)]
    assert [it["name"] for it in both["model_stats"]] == ["european", "american"]
    [found] = one["model_stats"]
    assert found == both["model_stats"][0]
    assert (found["version"], found["inference_count"], found["execution_count"]) == ("7f", 5, 2)
    spent = found["inference_stats"]
    assert (spent["success"]["count"], spent["fail"]["count"], spent["compute_infer"]["count"]) == (2, 1, 2)
    parts = sum(spent[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < parts == pytest.approx(spent["success"]["ns"], abs=8)
    assert abs(found["last_inference"] / 1e3 - time.time()) < 60
    assert both["model_stats"][1]["inference_count"] == 1


async def test_statistics_have_large_requests_and_the_times_that_they_took_elsewhere() -> None:
    request = json_request(999)
    assert len(json.dumps(request)) > INLINE_BYTES
    async with serving() as client:
        await infer(client, request)
        _, document = await get(client, "/v2/models/european/stats")
    [found] = document["model_stats"]
    assert found["inference_count"] == 999
    assert found["inference_stats"]["compute_infer"]["ns"] == 2_000_000


@pytest.mark.parametrize("rest", ["", "/ready", "/infer", "/config", "/stats"])
async def test_a_model_or_version_that_is_not_served_is_404_and_named(rest: str) -> None:
    async with serving() as client:
        for path, named in ((f"/v2/models/bermudan{rest}", "bermudan"), (f"/v2/models/european/versions/2{rest}", "2")):
            asked = infer(client, json_request(), path) if rest == "/infer" else get(client, path)
            status, document = await asked
            assert (status, document["reason"]) == (404, "UnknownModel")
            assert f'"{named}"' in document["error"]


@pytest.mark.parametrize("path", ["/v2/models/european/infer", "/v2/models/european/versions/7f/infer"])
async def test_a_request_is_answered_with_its_id_model_and_version(path: str) -> None:
    async with serving() as client:
        status, answer = await infer(client, json_request(2, id="desk-7"), path)
    assert status == 200
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("desk-7", "european", "7f")
    assert answer["outputs"][0]["data"] == pytest.approx([3.4853084452972327] * 2, abs=1e-12)


async def test_prices_are_answered_before_a_model_is_loaded_and_name_no_version() -> None:
    async with serving(LOADING) as client:
        status, answer = await infer(client, json_request())
    assert status == 200
    assert "model_version" not in answer
    assert answer["outputs"][-1] == {"name": "method", "datatype": "BYTES", "shape": [1], "data": ["closed_form"]}


async def test_the_american_model_answers_with_the_boundary() -> None:
    async with serving() as client:
        _, answer = await infer(client, json_request(), "/v2/models/american/infer")
    assert answer["outputs"][-1]["name"] == "exercise_boundary"
    assert answer["outputs"][-1]["data"] == [80.0]


async def test_binary_goes_in_and_out_with_both_headers() -> None:
    columns = random_columns(5, seed=1)
    raw = {**{name: column.tobytes() for name, column in columns.items()}, "option_type": bytes_elements(["call"] * 5)}
    body, length = binary_request(raw, shape=[5], outputs=[{"name": "price", "parameters": {"binary_data": True}}])
    headers = {"Inference-Header-Content-Length": length}
    async with serving() as client, client.post("/v2/models/european/infer", data=body, headers=headers) as response:
        answered = await response.read()
        start = int(response.headers["Inference-Header-Content-Length"])
        assert response.content_type == "application/octet-stream"
    assert json.loads(answered[:start])["outputs"][0]["parameters"] == {"binary_data_size": 40}
    expected = closed_form.price(OptionBatch(**columns, is_call=np.ones(5, dtype=bool))).price
    assert np.array_equal(np.frombuffer(answered[start:]), expected)


async def test_a_bad_row_is_400_and_named() -> None:
    async with serving() as client:
        status, answer = await infer(client, {"inputs": [tensor("spot", [100.0, -1.0])]})
    assert status == 400
    assert answer["error"].startswith("volatility") or "required" in answer["error"]
    assert {"field": "spot", "index": 1, "value": -1.0}.items() <= answer["faults"][-1].items()


async def test_a_length_header_that_stands_twice_is_refused() -> None:
    headers = [("Inference-Header-Content-Length", "10"), ("Inference-Header-Content-Length", "20")]
    async with serving() as client:
        status, answer = await infer(client, json_request(), headers=headers)
    assert (status, answer["faults"][0]["field"]) == (400, "Inference-Header-Content-Length")


@pytest.mark.parametrize("how", ["plain", "gzip", "chunked"])
@pytest.mark.parametrize("rows", [1, INLINE_BYTES])
async def test_large_bodies_take_the_other_way_however_they_come(rows: int, how: str) -> None:
    columns = {name: np.full(rows, value).tobytes() for name, value in PUT_COLUMNS.items()}
    datatypes = {"option_type": "BOOL"}
    body, length = binary_request({**columns, "option_type": bytes(rows)}, datatypes=datatypes, shape=[rows])

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:100]
        yield body[100:]

    headers = {"Inference-Header-Content-Length": length}
    if how == "gzip":
        headers["Content-Encoding"] = "gzip"
    data: Any = {"plain": body, "gzip": gzip.compress(body), "chunked": pieces()}[how]
    path = "/v2/models/european/infer"
    async with serving(max_batch=INLINE_BYTES) as client, client.post(path, data=data, headers=headers) as response:
        answer = await response.json()
        assert (response.status, "X-Large" in response.headers) == (200, rows > 1)
    assert answer["outputs"][0]["data"] == pytest.approx([3.4853084452972327] * rows, abs=1e-12)


async def test_a_body_over_the_limit_is_413_whatever_its_size_on_the_way() -> None:
    async with serving() as client:
        for data, headers in ((b" " * 1_000_000, {}), (gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"})):
            status, answer = await infer(client, data, headers=headers)
            assert (status, answer["reason"]) == (413, "BodyTooLarge")
