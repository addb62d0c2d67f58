"""The application: routes, the pricing handler, and the parts behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Middleware

from pinn_inference.market.watch import MarketDataWatcher
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.batch import JobKind
from pinn_inference.server.bodies import AS_SENT, BodyReader, is_too_large
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.documents import is_light
from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.health import HealthPages
from pinn_inference.server.implied_volatility import PATH as IMPLIED_PATH
from pinn_inference.server.implied_volatility import (
    ImpliedRequest,
    parse_implied_quickly,
    parse_implied_request,
    render_implied,
)
from pinn_inference.server.implied_volatility_schema import implied_contract
from pinn_inference.server.inflate import Coding
from pinn_inference.server.lane import PATH, Lane, LaneServer
from pinn_inference.server.market_pages import OPENAPI_PATHS, OPENAPI_SCHEMAS, MarketPages
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.middleware import BODY, Observer, RequestsInFlight, observing_middleware
from pinn_inference.server.more_greeks import greeks_of, parse_request, parse_request_quickly
from pinn_inference.server.oip import ModelState, OpenInferencePages
from pinn_inference.server.oip_codec import InferTarget
from pinn_inference.server.openapi import OpenApiPages
from pinn_inference.server.parsing import PriceRequest
from pinn_inference.server.rendering import render_quotes
from pinn_inference.server.scenarios import PATH as SCENARIOS_PATH
from pinn_inference.server.scenarios_schema import scenarios_contract
from pinn_inference.server.served_model import ModelLoader, load_configured_model
from pinn_inference.server.service import SMALL_BYTES, SOME_OPTIONS, PricingService
from pinn_inference.server.timing import SERVER_TIMING, server_timing

_Asked = TypeVar("_Asked", PriceRequest, ImpliedRequest)

CONFIG: Final = web.AppKey("config", ServerConfig)
ENGINE: Final = web.AppKey("engine", PricingEngine)
IN_FLIGHT: Final = web.AppKey("in_flight", RequestsInFlight)
METRICS: Final = web.AppKey("metrics", ServerMetrics)
OBSERVER: Final = web.AppKey("observer", Observer)
SERVICE: Final = web.AppKey("service", PricingService)


def create_app(
    config: ServerConfig,
    *,
    middlewares: Sequence[Middleware] = (),
    load_model: ModelLoader = load_configured_model,
) -> web.Application:
    """The server as an aiohttp application; run it with `run_app`.

    `middlewares` come inside the one that counts and times requests, and so do those appended to `app.middlewares`
    later: what they answer, raise or delay is in the metrics. `load_model` runs in a thread after start-up.
    """
    metrics = ServerMetrics(revision=config.revision, service=config.service)
    engine = PricingEngine(config, metrics=metrics, load_model=load_model)
    in_flight = RequestsInFlight()
    observer = Observer(
        metrics,
        in_flight,
        engine,
        revision=config.revision,
        limit=config.max_in_flight,
        slow_seconds=config.slow_request_seconds,
    )
    service = PricingService(
        config,
        engine=engine,
        metrics=metrics,
        observer=observer,
        has_batch_process=load_model is load_configured_model,
    )
    app = web.Application(
        middlewares=[observing_middleware(observer), *middlewares],
        client_max_size=config.max_body_bytes,
        handler_args=AS_SENT,
    )
    app[CONFIG], app[ENGINE], app[IN_FLIGHT], app[METRICS] = config, engine, in_flight, metrics
    app[OBSERVER], app[SERVICE] = observer, service
    watcher = MarketDataWatcher(config.market_data, registry=metrics.registry)
    health = HealthPages(
        engine=engine,
        service=service,
        metrics=metrics,
        tensorflow=service.tensorflow,
        others={"market_data": watcher.health},
        control_token=config.control_token,
    )
    reports = MarketPages(
        watcher=watcher,
        price=service.price_again,
        model=lambda: engine.model_label,
        prices_american=lambda: engine.prices_american,
    )
    app.add_routes(health.routes())
    app.add_routes(reports.routes())
    app.router.add_post(PATH, price)
    app.router.add_post(IMPLIED_PATH, imply)
    app.router.add_post(SCENARIOS_PATH, scenarios)
    app.add_routes(_open_inference_pages(config, engine, service).routes())
    more = [(OPENAPI_PATHS, OPENAPI_SCHEMAS), implied_contract(config), scenarios_contract(config)]
    app.add_routes(OpenApiPages(config, more=more).routes())
    app.cleanup_ctx.append(watcher.life)
    app.cleanup_ctx.append(_life)
    return app


def _open_inference_pages(config: ServerConfig, engine: PricingEngine, service: PricingService) -> OpenInferencePages:
    async def price_small(options: OptionBatch) -> Quotes:
        return (await service.price(options))[0]

    async def answer_large(
        request: web.Request, body: AsyncIterator[bytes], coding: Coding, target: InferTarget
    ) -> web.StreamResponse:
        return await service.answer_large(request, body, JobKind.INFER, target.parameters(), coding)

    def state_of(model: str) -> ModelState:
        label = engine.label(american=model == "american")
        readiness = engine.readiness()
        if not label:
            message = readiness.message if not engine.model_ready else "no model for American options is in use"
            return ModelState(ready=False, version=None, message=message)
        return ModelState(ready=readiness.ready, version=label.partition("/")[2], message=readiness.message)

    def why_not_ready() -> str | None:
        readiness = engine.readiness()
        return None if readiness.ready else readiness.message

    return OpenInferencePages(
        price=price_small,
        large=answer_large,
        state_of=state_of,
        server_ready=why_not_ready,
        max_body_bytes=config.max_body_bytes,
        max_batch=config.max_batch,
    )


class PricingRunner(web.AppRunner):
    """Runs an application from `create_app`, with the lane for single quotes where it has no middlewares of its own."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        ordinary = await super()._make_server()
        app = self.app
        lane = Lane(
            service=app[SERVICE],
            engine=app[ENGINE],
            observer=app[OBSERVER],
            is_open=len(app.middlewares) == 1 and not app.on_response_prepare,
        )
        return LaneServer(
            lane,
            _with_met_expectations(ordinary.request_handler, app[OBSERVER], limit=app[CONFIG].max_body_bytes),
            request_factory=ordinary.request_factory,
            handler_cancellation=ordinary.handler_cancellation,
            **{name: value for name, value in self._kwargs.items() if name != "handler_cancellation"},
            **AS_SENT,
        )


def _with_met_expectations(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], observer: Observer, *, limit: int
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """`handler` for requests that expect what this server does; the others are answered and counted here, before
    anything of their body is sent. `limit` is the largest body, in bytes."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        expected = request.headers.get(hdrs.EXPECT)
        if expected and expected.lower() != "100-continue" and request.version == HttpVersion11:
            return observer.answer_expectation(request)
        if expected and is_too_large(request, limit=limit):
            return observer.answer_too_large(request, limit=limit)
        return await handler(request)

    return handle


async def _life(app: web.Application) -> AsyncIterator[None]:
    engine, service = app[ENGINE], app[SERVICE]
    service.start()
    engine.start_loading()
    batches = asyncio.get_running_loop().create_task(_start_batch_process(engine, service))
    yield
    batches.cancel()
    with suppress(asyncio.CancelledError):
        await batches
    await service.close()


async def _start_batch_process(engine: PricingEngine, service: PricingService) -> None:
    await engine.settled.wait()
    if engine.model_ready:
        await service.start_batch_process()


async def price(request: web.Request) -> web.StreamResponse:
    """POST /v1/price: one option, or many; see docs/inference-server.md for the contract."""
    app = request.app
    asked = await _asked(request, JobKind.PRICE, parse_request_quickly, parse_request)
    if isinstance(asked, web.StreamResponse):
        return asked
    parsed, parse_seconds = asked
    parsed_at = time.perf_counter()
    quotes, cached = await app[SERVICE].price(parsed.options)
    quotes = parsed.settled(quotes)
    priced_at = time.perf_counter()
    engine = app[ENGINE]
    answer = render_quotes(
        quotes,
        model=engine.label(),
        american_model=engine.label(american=True),
        form=parsed.form,
        cached=cached,
        maturity=parsed.told_maturity,
        greeks=greeks_of(parsed, quotes, american_bounds=engine.greek_bounds),
    )
    timing = server_timing(parse=parse_seconds, price=priced_at - parsed_at, render=time.perf_counter() - priced_at)
    return web.Response(body=answer, content_type="application/json", headers={SERVER_TIMING: timing})


async def imply(request: web.Request) -> web.StreamResponse:
    """POST /v1/implied-volatility: as `price`, with prices and volatilities exchanged."""
    found = await _asked(request, JobKind.IMPLIED, parse_implied_quickly, parse_implied_request)
    if isinstance(found, web.StreamResponse):
        return found
    asked, parse_seconds = found
    if asked.options.is_american.any():  # priced again and again: not on the event loop
        return await request.app[SERVICE].answer_large(request, _once(request[BODY]), JobKind.IMPLIED)
    parsed_at = time.perf_counter()
    implied = asked.of_european()
    priced_at = time.perf_counter()
    answer = b"".join(render_implied(implied, form=asked.form, maturity=asked.told_maturity))
    timing = server_timing(parse=parse_seconds, price=priced_at - parsed_at, render=time.perf_counter() - priced_at)
    return web.Response(body=answer, content_type="application/json", headers={SERVER_TIMING: timing})


async def scenarios(request: web.Request) -> web.StreamResponse:
    """POST /v1/scenarios: a portfolio at every point of a grid, by the batch process: few bytes ask for thousands."""
    body = await _small_body(request, JobKind.SCENARIOS)
    if isinstance(body, web.StreamResponse):
        return body
    return await request.app[SERVICE].answer_large(request, _once(body), JobKind.SCENARIOS)


async def _asked(
    request: web.Request, kind: JobKind, quickly: Callable[..., _Asked | None], thoroughly: Callable[..., _Asked]
) -> tuple[_Asked, float] | web.StreamResponse:
    """What is asked, and the seconds it took to read that, if it can be answered on the event loop; else the answer, by
    the batch process. Few bytes can take long: thousands of short numbers, or of faults.
    """
    body = await _small_body(request, kind)
    if isinstance(body, web.StreamResponse):
        return body
    max_batch = request.app[CONFIG].max_batch
    started = time.perf_counter()
    asked = quickly(body, max_batch=max_batch)
    if asked is None and is_light(body):
        asked = thoroughly(body, max_batch=max_batch)
    if asked is None or len(asked.options) > SOME_OPTIONS:
        return await request.app[SERVICE].answer_large(request, _once(body), kind)
    return asked, time.perf_counter() - started


async def _small_body(request: web.Request, kind: JobKind) -> bytes | web.StreamResponse:
    """The body, if it is a small one; else the answer, by the batch process."""
    app = request.app
    reader = BodyReader(request, limit=app[CONFIG].max_body_bytes)
    body, is_whole = await reader.start(SMALL_BYTES)
    request[BODY] = body
    if is_whole:
        return body
    return await app[SERVICE].answer_large(request, reader.rest(body), kind, coding=reader.coding)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
