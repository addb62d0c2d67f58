"""The application over real HTTP: prices, errors, readiness, metrics, and what an added middleware may do."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
from aiohttp import web

from pinn_inference.pricing import closed_form
from pinn_inference.server import ServerConfig
from pinn_inference.server import app as application
from pinn_inference.server.app import ENGINE, SERVICE
from pinn_inference.server.logs import configure_logging
from pinn_inference.server.served_model import load_configured_model
from pinn_inference.server.service import SMALL_BYTES
from tests.support.server import PUT, Client, ExactModel, Gate, eventually, options, running, sample

READINESS = "/health/deployment/readiness"


class ChecksumMismatch(Exception):
    reason = "ModelChecksumMismatch"


async def post(client: Client, document: Any, **kwargs: Any) -> tuple[int, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    async with client.post("/v1/price", data=data, **kwargs) as response:
        return response.status, orjson.loads(await response.read())


# --- prices -----------------------------------------------------------------------------------------------------------


async def test_one_option_is_answered_with_price_greeks_and_how_they_were_made() -> None:
    async with running() as client:
        status, answer = await post(client, PUT)
    assert status == 200
    assert list(answer) == [
        "price", "delta", "gamma", "vega", "theta", "rho", "method", "model", "error_bound", "cached",
    ]  # fmt: skip
    assert (answer["method"], answer["model"], answer["cached"]) == ("pinn", "european/test", False)
    assert answer["price"] == pytest.approx(3.4853084452972327, abs=1e-12)


async def test_many_options_are_answered_in_their_order() -> None:
    spots = [float(spot) for spot in np.random.default_rng(3).uniform(50, 150, 700)]
    rows = [{"spot": s, "strike": 100, "maturity": 1, "rate": 0.03, "volatility": 0.2} for s in spots]
    async with running() as client:
        status, answer = await post(client, {"options": rows})
    assert status == 200
    prices = [row["price"] for row in answer["results"]]
    assert np.allclose(prices, closed_form.price(options(*spots)).price, rtol=1e-14)


async def test_a_call_and_its_put_differ_by_the_forward() -> None:
    call = {**PUT, "option_type": "call"}
    async with running() as client:
        _, answer = await post(client, {"options": [call, PUT]})
    forward = 100 * np.exp(-0.01 * 0.5) - 95 * np.exp(-0.03 * 0.5)
    assert answer["results"][0]["price"] - answer["results"][1]["price"] == pytest.approx(forward, abs=1e-12)


async def test_a_model_that_cannot_be_loaded_leaves_the_closed_form_with_the_reason_counted() -> None:
    async with running(ChecksumMismatch("expected aa, found bb")) as client:
        _, answer = await post(client, {"options": [PUT, PUT]})
        assert [(row["method"], row["reason"], row["model"]) for row in answer["results"]] == [
            ("closed_form", "model_unavailable", None)
        ] * 2
        assert sample(client, "pinn_fallback_total", reason="model_unavailable") == 2
        assert sample(client, "pinn_options_priced_total", method="closed_form") == 2


async def test_a_model_that_fails_at_run_time_is_replaced_by_the_closed_form_for_that_request() -> None:
    def lost(batch: object) -> None:
        raise MemoryError("device")

    async with running(ExactModel(on_price=lost)) as client:
        status, answer = await post(client, PUT)
        assert (status, answer["method"], answer["reason"]) == (200, "closed_form", "device_error")
        assert sample(client, "pinn_prediction_errors_total", error_type="MemoryError") == 1
        assert sample(client, "pinn_fallback_total", reason="device_error") == 1


async def test_a_result_that_is_not_finite_is_an_error_and_never_a_null() -> None:
    class Broken(ExactModel):
        def price(self, batch: Any) -> Any:
            quotes = super().price(batch)
            quotes.gamma[1] = np.nan
            return quotes

    async with running(Broken()) as client:
        status, answer = await post(client, {"options": [PUT, PUT]})
        assert (status, answer["reason"]) == (500, "NonFiniteResult")
        assert answer["error"] == "options[1]: the result is not a finite number"
        assert sample(client, "pinn_prediction_errors_total", error_type="NonFiniteResult") == 1


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_a_bad_row_is_an_error_with_its_index_and_no_row_is_dropped() -> None:
    async with running() as client:
        status, answer = await post(client, {"options": [PUT, {**PUT, "spot": -1}]})
    assert status == 400
    assert answer["reason"] == "InvalidRequest"
    assert answer["faults"][0]["index"] == 1
    assert "results" not in answer


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"columns": {**PUT, "spot": [9] * 4000}}, 200),
        ({"columns": {**PUT, "spot": [100] * 60, "dividends": [{"time": 0.1, "amount": 0.1}] * 100}}, 200),
        ({"columns": {**PUT, "spot": ["9"] * 1500}}, 400),
        ({"options": [{}] * 1500}, 400),
        ({str(field): 1 for field in range(1000)}, 400),
    ],
    ids=["short-numbers", "rows-times-dividends", "wrong-columns", "empty-options", "unknown-fields"],
)
async def test_small_bodies_that_take_long_to_read_are_not_read_on_the_event_loop(
    document: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(body: bytes, *, max_batch: int) -> None:
        raise AssertionError("read on the event loop")

    monkeypatch.setattr(application, "parse_request", never)
    monkeypatch.setattr(application, "parse_implied_request", never)
    data = json.dumps(document, separators=(",", ":")).encode()
    assert len(data) < SMALL_BYTES
    async with running() as client:
        assert (await post(client, data))[0] == status
        priced = data.replace(b'"volatility":0.2', b'"price":2.5')
        async with client.post("/v1/implied-volatility", data=priced) as response:
            assert response.status == status


async def test_a_nan_literal_is_named_by_its_field() -> None:
    async with running() as client:
        status, answer = await post(client, json.dumps({**PUT, "volatility": float("nan")}).encode())
    assert (status, answer["faults"][0]["field"], answer["faults"][0]["value"]) == (400, "volatility", "NaN")


async def test_a_body_over_the_limit_is_413_in_json() -> None:
    async with running(max_body_bytes=2000) as client:
        status, answer = await post(client, b" " * 3000)
        assert (status, answer["reason"]) == (413, "BodyTooLarge")
        assert sample(client, "http_requests_total", method="POST", handler="/v1/price", status="413") == 1


@pytest.mark.parametrize("path", ["/v1/price", "/v1/implied-volatility", "/v1/scenarios", "/v2/models/european/infer"])
@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["sends at once", "asks first"])
async def test_a_body_that_is_said_to_be_over_the_limit_is_refused_before_any_of_it_is_sent(
    path: str, expect: str
) -> None:
    async with running(max_body_bytes=2000) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{expect}Content-Length: 99999999999\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"BodyTooLarge" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()


async def test_a_compressed_body_is_accepted_and_its_inflated_size_counts() -> None:
    async with running(max_body_bytes=2000) as client:
        headers = {"Content-Encoding": "gzip"}
        status, _ = await post(client, gzip.compress(json.dumps(PUT).encode()), headers=headers)
        assert status == 200
        status, answer = await post(client, gzip.compress(b" " * 1_000_000), headers=headers)
        assert (status, answer["reason"]) == (413, "BodyTooLarge")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_compressed_as_it_says_is_the_client_s_fault(encoding: str) -> None:
    async with running() as client:
        status, answer = await post(client, b"\xff\xff\xff\xff", headers={"Content-Encoding": encoding})
        assert (status, answer["reason"], answer["faults"][0]["field"]) == (400, "InvalidRequest", "body")
        assert sample(client, "http_requests_total", method="POST", handler="/v1/price", status="500") == 0


async def test_a_body_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinn_inference.server.bodies.BODY_SECONDS", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with running() as client, client.post("/v1/price", data=slowly()) as response:
        assert (response.status, (await response.json())["reason"]) == (408, "BodyTimeout")


async def test_a_body_of_which_nothing_comes_any_more_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinn_inference.server.bodies.STALL_SECONDS", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b" " * 40_000
        await asyncio.sleep(30)

    async with running() as client, client.post("/v1/price", data=slowly()) as response:
        answer = await response.json()
        assert (response.status, answer["reason"]) == (408, "BodyTimeout")
        assert answer["error"].startswith("nothing of the body came for 0.05 s")


async def test_too_many_options_are_413_and_say_the_limit() -> None:
    async with running(max_batch=2) as client:
        status, answer = await post(client, {"options": [PUT] * 3})
    assert (status, answer["reason"]) == (413, "BatchTooLarge")
    assert "at most 2" in answer["error"]


async def test_one_large_request_too_many_is_a_429_that_says_when_to_come_back() -> None:
    gate = Gate()
    async with running(ExactModel(on_price=gate), max_batches=1) as client:
        first = asyncio.create_task(post(client, {"options": [PUT] * 600}))
        await asyncio.to_thread(gate.arrived.wait, 10)
        async with client.post("/v1/price", json={"options": [PUT] * 600}) as response:
            answer = await response.json()
            assert (response.status, answer["reason"]) == (429, "Overloaded")
            assert "exceed the limit of 1" in answer["error"]
            assert response.headers["Retry-After"] == "1"
        gate.opened.set()
        assert (await first)[0] == 200
        assert sample(client, "pinn_overloaded_requests_total") == 1
        assert sample(client, "http_requests_total", method="POST", handler="/v1/price", status="429") == 1


async def test_a_pricing_request_beyond_those_that_may_be_in_flight_is_a_429_and_probes_are_none() -> None:
    gate = Gate()
    async with running(ExactModel(on_price=gate), max_in_flight=1) as client:
        first = asyncio.create_task(post(client, {"options": [PUT] * 600}))
        await asyncio.to_thread(gate.arrived.wait, 10)
        status, answer = await post(client, PUT)
        assert (status, answer["reason"]) == (429, "Overloaded")
        assert (await ready(client))[0] == 200
        gate.opened.set()
        assert (await first)[0] == 200
        gate.opened.set()
        assert (await post(client, PUT))[0] == 200


async def test_unknown_paths_and_methods_are_json_errors_too() -> None:
    async with running() as client:
        async with client.get("/nothing") as response:
            assert (response.status, (await response.json())["reason"]) == (404, "NotFound")
        async with client.get("/v1/price") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert sample(client, "http_requests_total", method="GET", handler="unmatched", status="404") == 1


# --- request ids ------------------------------------------------------------------------------------------------------


async def test_a_request_id_is_echoed_on_answers_and_errors_and_made_when_absent_or_unfit() -> None:
    async with running() as client:
        async with client.post("/v1/price", json=PUT, headers={"X-Request-ID": "desk-7"}) as response:
            assert response.headers["X-Request-ID"] == "desk-7"
        async with client.post("/v1/price", json={}, headers={"X-Request-ID": "desk-8"}) as response:
            assert response.headers["X-Request-ID"] == (await response.json())["request_id"] == "desk-8"
        async with client.get("/health", headers={"X-Request-ID": "a b" * 100}) as response:
            assert len(response.headers["X-Request-ID"]) == 32


# --- health -----------------------------------------------------------------------------------------------------------


async def ready(client: Client) -> tuple[int, Any]:
    async with client.get(READINESS) as response:
        return response.status, await response.json()


async def test_liveness_is_exactly_what_probes_expect() -> None:
    async with running() as client, client.get("/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "healthy"})


async def test_the_server_answers_but_is_not_ready_while_the_model_loads_warms_up_and_is_checked() -> None:
    warm, check = Gate(), Gate()
    model = ExactModel(on_warm_up=warm, on_self_check=check)
    async with running(model, settled=False) as client:
        await asyncio.to_thread(warm.arrived.wait, 10)
        status, answer = await ready(client)
        assert (status, answer["ready"], answer["reason"]) == (503, False, "ModelWarmingUp")
        assert [one["ok"] for one in answer["checks"]] == [True, False, False, True]
        assert (await post(client, PUT))[1]["reason"] == "model_unavailable"
        warm.opened.set()
        await asyncio.to_thread(check.arrived.wait, 10)
        assert (await ready(client))[0] == 503
        assert sample(client, "pinn_ready") == 0
        check.opened.set()
        assert client.app is not None
        await client.app[ENGINE].settled.wait()
        status, answer = await ready(client)
        assert (status, answer["ready"], answer["reason"]) == (200, True, "Ready")
        assert answer["model"]["sha256"] == "ab" * 32
        assert sample(client, "pinn_ready") == 1
        assert sample(client, "pinn_model_info", name="european", version="test", sha256="ab" * 32) == 1


async def test_a_wrong_checksum_is_told_with_reason_and_message_and_the_server_stays_alive() -> None:
    async with running(ChecksumMismatch("expected aa, found bb"), model_sha256="a" * 64) as client:
        status, answer = await ready(client)
        assert (status, answer["ready"]) == (503, False)
        assert (answer["reason"], answer["message"]) == ("ModelChecksumMismatch", "expected aa, found bb")
        assert answer["model"] == {"expected_sha256": "a" * 64}
        async with client.get("/health") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("step", "reason"), [("on_warm_up", "ModelWarmUpFailed"), ("on_self_check", "ModelSelfCheckFailed")]
)
async def test_a_model_that_fails_before_it_is_ready_is_never_used(step: str, reason: str) -> None:
    def fail() -> None:
        raise ArithmeticError("golden price 3 is off by 0.2")

    async with running(ExactModel(**{step: fail})) as client:
        status, answer = await ready(client)
        assert (status, answer["reason"]) == (503, reason)
        assert "off by 0.2" in answer["message"]
        assert (await post(client, PUT))[1]["method"] == "closed_form"


async def test_detailed_health_prices_an_option_and_shows_each_component() -> None:
    async with running() as client, client.get("/health/detailed") as response:
        answer = await response.json()
        assert (response.status, answer["status"]) == (200, "healthy")
        model = answer["components"]["pinn_model"]
        assert (model["status"], model["prediction_test"], model["method"]) == ("healthy", "passed", "pinn")
        assert model["latency_ms"] > 0
        assert set(answer["components"]["tensorflow"]) >= {"status", "gpu_available"}


async def test_detailed_health_sees_a_model_whose_prices_are_wrong() -> None:
    class Wrong(ExactModel):
        def price(self, batch: Any) -> Any:
            quotes = super().price(batch)
            quotes.price[:] += 0.01
            return quotes

    async with running(Wrong()) as client, client.get("/health/detailed") as response:
        answer = await response.json()
        assert (response.status, answer["components"]["pinn_model"]["prediction_test"]) == (503, "failed")


@pytest.mark.parametrize(("model", "overall"), [(ExactModel(), "healthy"), (OSError("gone"), "degraded")])
async def test_the_health_of_the_model_has_an_overall_status(model: Any, overall: str) -> None:
    async with running(model) as client:
        for path in ("/health/pinn", "/health/pinn/quick"):
            async with client.get(path) as response:
                assert (response.status, (await response.json())["overall_status"]) == (200, overall)


async def test_draining_turns_readiness_off_keeps_serving_and_sends_clients_elsewhere() -> None:
    async with running() as client:
        assert client.app is not None
        client.app[ENGINE].begin_draining()
        status, answer = await ready(client)
        assert (status, answer["reason"]) == (503, "Draining")
        assert sample(client, "pinn_ready") == 0
        async with client.post("/v1/price", json=PUT) as response:
            assert (response.status, response.headers["Connection"]) == (200, "close")
        async with client.get("/health") as response:
            assert response.status == 200


@pytest.fixture
async def shipped() -> AsyncIterator[Client]:
    """A server with the shipped model."""
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        yield client


async def get(client: Client, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        return response.status, await response.json()


async def test_detailed_health_has_what_the_operating_guide_names(shipped: Client) -> None:
    status, answer = await get(shipped, "/health/detailed")
    assert (status, answer["status"]) == (200, "healthy")
    assert {"status", "timestamp", "components"} <= set(answer)
    assert set(answer["components"]) == {"pinn_cache", "pinn_model", "tensorflow", "market_data"}
    assert set(answer["components"]["pinn_cache"]) == {"status", "cache_size", "hit_rate"}
    assert {"status", "prediction_test", "latency_ms"} <= set(answer["components"]["pinn_model"])
    assert {"status", "version", "gpu_available"} <= set(answer["components"]["tensorflow"])


async def test_the_cache_is_shown_warmed_up_and_emptied(shipped: Client) -> None:
    await post(shipped, PUT)
    assert (await post(shipped, PUT))[1]["cached"] is True
    _, stats = await get(shipped, "/cache/stats")
    assert stats["hits"] >= 1
    assert stats["size"] > 0
    assert (await get(shipped, "/health/pinn/metrics"))[1]["cache"] == stats
    async with shipped.post("/cache/reset") as response:
        assert (await response.json())["cache"]["size"] == 0
    assert (await get(shipped, "/cache/stats"))[1]["hits"] == 0
    assert (sample(shipped, "pinn_cache_hits_total") or 0) >= 1, "counters never go down"
    async with shipped.post("/health/pinn/warmup") as response:
        answer = await response.json()
        assert (response.status, answer["status"]) == (200, "warm")
        assert answer["cells"] == answer["cache"]["size"] > 0


async def test_reports_keep_out_of_the_cache_of_client_s_quotes(shipped: Client) -> None:
    await post(shipped, PUT)
    _, before = await get(shipped, "/cache/stats")
    for _ in range(2):
        status, _ = await get(shipped, "/api/investor-report?symbols=SPY,QQQ,AAPL")
        assert status == 200
    _, after = await get(shipped, "/cache/stats")
    assert after["levels"]["quotes"] == before["levels"]["quotes"]
    assert shipped.app is not None
    cache = shipped.app[ENGINE].cache
    assert cache is not None
    reports = cache.reports.stats()
    assert reports.hits >= reports.size > 0, "the second report is remembered"
    assert (await post(shipped, PUT))[1]["cached"] is True


async def test_a_server_that_is_held_back_is_unready_and_says_why_and_prices_all_the_same() -> None:
    async with running() as client:
        assert client.app is not None
        engine = client.app[ENGINE]
        engine.hold_back("the batch process cannot start: the container's memory limit is 72 MiB")
        status, answer = await get(client, READINESS)
        assert (status, answer["ready"], answer["reason"]) == (503, False, "BatchProcessFailed")
        assert "72 MiB" in answer["message"]
        assert [check["name"] for check in answer["checks"] if not check["ok"]] == ["batch_process"]
        assert sample(client, "pinn_ready") == 0
        assert (await get(client, "/health/pinn/quick"))[1]["overall_status"] == "degraded"
        assert (await post(client, PUT))[0] == 200
        engine.hold_back("")
        assert (await get(client, READINESS))[0] == 200
        assert sample(client, "pinn_ready") == 1


@pytest.mark.parametrize("path", ["/cache/reset", "/health/pinn/warmup"])
async def test_pages_that_change_something_are_for_those_who_have_the_token(path: str) -> None:
    async with running(lambda: load_configured_model(ServerConfig()), control_token="0b1c") as client:
        for wrong in ({}, {"Authorization": "Bearer 0b1"}, {"Authorization": "Bearer ü"}):
            async with client.post(path, headers=wrong) as response:
                assert (response.status, (await response.json())["reason"]) == (401, "TokenRequired")
                assert response.headers["WWW-Authenticate"] == "Bearer"
        for _ in range(3):
            async with client.post(path, headers={"Authorization": "Bearer 0b1c"}) as response:
                assert response.status == 200


HEADERS_OF_ANY_BYTES = [
    ("POST /cache/reset", "Authorization", 401),
    ("POST /v1/price", "Content-Encoding", 415),
    ("POST /v1/price", "Content-Type", 200),
    ("POST /v1/price", "Expect", 417),
    ("POST /v1/price", "X-Request-ID", 200),
    ("POST /v1/price", "traceparent", 200),
    ("POST /v2/models/european/infer", "Inference-Header-Content-Length", 400),
    ("GET /metrics", "Accept", 200),
    ("GET /metrics", "Accept-Encoding", 200),
    ("GET /%ff", "Cookie", 404),
    ("GET /metrics?name[]=%ff", "Cookie", 200),
    ("GET /api/investor-report?symbols=%ff", "Cookie", 400),
]


@pytest.mark.parametrize(("line", "name", "status"), HEADERS_OF_ANY_BYTES, ids=lambda value: ascii(value))
async def test_bytes_that_are_no_text_are_a_wrong_value_and_no_failure(line: str, name: str, status: int) -> None:
    body = orjson.dumps(PUT)
    head = f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{name}: "
    async with running(control_token="0b1c") as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        writer.write(head.encode("utf-8", "surrogateescape") + b"\xff\xfe\x80\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:600]


@pytest.mark.parametrize("path", ["/cache/reset", "/health/pinn/warmup"])
async def test_without_a_token_pages_that_change_something_are_served_now_and_then_only(path: str) -> None:
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        async with client.post(path) as response:
            assert response.status == 200
        async with client.post(path) as response:
            assert (response.status, (await response.json())["reason"]) == (429, "TooOften")
            assert 1 <= int(response.headers["Retry-After"]) <= 10


async def test_a_cached_answer_is_the_uncached_one(shipped: Client) -> None:
    _, first = await post(shipped, {**PUT, "spot": 101.23456})
    _, again = await post(shipped, {**PUT, "spot": 101.23456})
    assert {**first, "cached": None} == {**again, "cached": None}


# --- slow requests and timing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 700], ids=["on the lane", "small", "large"])
async def test_a_slow_request_is_logged_with_its_inputs_which_are_bounded(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="pinn_inference")
    async with running(slow_request_seconds=0) as client:
        document = {"options": [PUT] * count} if count > 1 else PUT
        async with client.post("/v1/price", json=document, headers={"X-Request-ID": "desk-7"}) as response:
            assert response.status == 200
            steps = [step.partition(";dur=")[0] for step in response.headers["Server-Timing"].split(", ")]
            assert steps == ["parse", "price", "render"]
    (record,) = (vars(one) for one in caplog.records if one.message == "slow request")
    assert (record["handler"], record["status"]) == ("/v1/price", 200)
    assert record["body"].startswith(json.dumps(document)[:100])
    assert len(record["body"]) <= 2048


async def test_the_log_of_a_slow_request_names_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []  # pytest's own: configuring would close them
    configure_logging(level="info", revision="9d77e0", service="")
    try:
        async with running(slow_request_seconds=0) as client:
            await post(client, PUT, headers={"X-Request-ID": "desk-7"})
            async with client.get("/api/investor-report?symbols=XXXX&user_id=secret") as response:
                assert response.status == 404
    finally:
        root.handlers = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    slow = [line for line in lines if line["message"] == "slow request"]
    assert [line["handler"] for line in slow] == ["/v1/price", "/api/investor-report"]
    assert slow[0]["request_id"] == "desk-7"
    own = [line for line in lines if line["logger"] != "aiohttp.access"]  # which `run_app` has not
    assert not any("secret" in json.dumps(line) for line in own)


async def test_a_request_that_is_not_slow_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running(slow_request_seconds=3600) as client:
        await post(client, PUT)
    assert not [record for record in caplog.records if record.message == "slow request"]


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_the_series_that_gates_read_are_born_at_zero() -> None:
    async with running() as client:
        for status in ("200", "400", "413", "429", "500", "503"):
            assert sample(client, "http_requests_total", method="POST", handler="/v1/price", status=status) == 0
            assert sample(client, "pinn_inference_requests_total", status=status) == 0
        assert sample(client, "pinn_inference_latency_seconds_bucket", le="0.5") == 0
        assert sample(client, "pinn_fallback_total", reason="out_of_domain") == 0
        assert sample(client, "pinn_batch_detours_total", reason="restarting") == 0


async def test_buckets_hold_every_limit_that_gates_and_alerts_use() -> None:
    async with running() as client:
        for limit in ("2.5e-05", "0.2", "0.26", "0.3", "0.5", "1.0", "2.0", "5.0", "10.0"):
            assert sample(client, "pinn_inference_latency_seconds_bucket", le=limit) == 0
            assert sample(client, "pinn_prediction_latency_seconds_bucket", method="pinn", le=limit) == 0


async def test_the_exposition_has_the_process_the_build_and_the_model() -> None:
    async with running(revision="9d77e0", service="eu-options") as client, client.get("/metrics") as response:
        text = await response.text()
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    for name in ("process_resident_memory_bytes", "pinn_build_info", "pinn_model_info", "pinn_queued_options"):
        assert f"\n{name}" in text
    assert 'revision="9d77e0",service="eu-options"' in text


async def test_two_apps_in_one_process_do_not_share_a_counter() -> None:
    async with running() as one, running() as other:
        await post(one, PUT)
        assert sample(one, "pinn_inference_requests_total", status="200") == 1
        assert sample(other, "pinn_inference_requests_total", status="200") == 0


@web.middleware
async def raising(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path == "/v1/price":
        raise KeyError("this revision is bad")
    return await handler(request)


@web.middleware
async def sleeping(request: web.Request, handler: Any) -> web.StreamResponse:
    await asyncio.sleep(0.06)
    return await handler(request)


async def test_an_added_middleware_that_raises_is_a_counted_500_with_a_json_body() -> None:
    async with running(middlewares=[raising]) as client:
        status, answer = await post(client, PUT)
        assert (status, answer["reason"]) == (500, "InternalError")
        assert "this revision" not in answer["error"]
        assert sample(client, "http_requests_total", method="POST", handler="/v1/price", status="500") == 1
        assert sample(client, "pinn_inference_requests_total", status="500") == 1
        assert sample(client, "pinn_inference_latency_seconds_count") == 1


async def test_the_time_an_added_middleware_takes_is_in_the_latency() -> None:
    async with running(middlewares=[sleeping]) as client:
        await post(client, PUT)
        assert sample(client, "pinn_inference_latency_seconds_bucket", le="0.05") == 0
        assert sample(client, "pinn_inference_latency_seconds_count") == 1


@pytest.mark.parametrize("count", [1, 2000], ids=["small", "large"])
async def test_the_time_in_which_a_client_sends_its_body_is_not_in_the_latency(count: int) -> None:
    body = json.dumps({"options": [PUT] * count}).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:40_000]
        await asyncio.sleep(2.0)
        yield body[40_000:] or b" "

    async with running() as client:
        async with client.post("/v1/price", data=slowly()) as response:
            assert response.status == 200
        await eventually(lambda: sample(client, "pinn_inference_latency_seconds_count") == 1)
        assert (sample(client, "pinn_inference_latency_seconds_sum") or 0) < 1.8


async def test_requests_that_did_not_come_whole_are_counted_but_not_in_the_latency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pinn_inference.server.bodies.STALL_SECONDS", 0.05)

    async def half(size: int = 1) -> AsyncIterator[bytes]:
        yield b" " * size
        await asyncio.sleep(30)

    async with running(max_body_bytes=50_000) as client:
        for data, status in ((half(), 408), (half(60_000), 413)):
            async with client.post("/v1/price", data=data) as response:
                assert response.status == status
        monkeypatch.setattr("pinn_inference.server.bodies.STALL_SECONDS", 30)
        with pytest.raises(TimeoutError):
            await client.post("/v1/price", data=half(), timeout=aiohttp.ClientTimeout(total=0.1))
        for status in ("408", "413", "499"):
            await eventually(lambda text=status: sample(client, "pinn_inference_requests_total", status=text) == 1)
        assert sample(client, "pinn_inference_latency_seconds_count") == 0


async def test_a_client_that_goes_away_is_counted_as_499_and_leaves_nothing_behind() -> None:
    gate = Gate()
    async with running(ExactModel(on_price=gate)) as client:
        assert client.app is not None
        patience = aiohttp.ClientTimeout(total=0.2)
        with pytest.raises(TimeoutError):
            await post(client, {"options": [PUT] * 600}, timeout=patience)
        labels = {"method": "POST", "handler": "/v1/price", "status": "499"}
        await eventually(lambda: sample(client, "http_requests_total", **labels) == 1)
        # It waited for so long: a revision that never answers is seen.
        assert 0.1 < (sample(client, "pinn_inference_latency_seconds_sum") or 0) < 20
        gate.opened.set()
        assert (await post(client, PUT))[0] == 200
        assert client.app[SERVICE].waiting == 0


async def test_a_client_that_does_not_take_a_large_answer_is_cut_off_and_counted_as_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pinn_inference.server.service.ANSWER_SECONDS", 0.5)
    body = json.dumps({"options": [PUT] * 40_000}).encode()
    head = f"POST /v1/price HTTP/1.1\r\nHost: pinn\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with running(max_batches=1) as client:
        with socket.socket() as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.to_thread(idle.connect, ("127.0.0.1", client.server.port))
            await asyncio.to_thread(idle.sendall, head + body)
            labels = {"method": "POST", "handler": "/v1/price", "status": "499"}
            await eventually(lambda: sample(client, "http_requests_total", **labels) == 1, seconds=60)
        assert (await post(client, {"options": [PUT] * 600}))[0] == 200, "its place is free again"
