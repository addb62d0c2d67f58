"""The application: routes, the pricing handler, and the parts behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from pinn_inference.server.config import ServerConfig
from pinn_inference.server.engine import ModelLoader, PricingEngine, load_configured_model
from pinn_inference.server.errors import BodyTimeout, Fault, InvalidRequest, NonFiniteResult
from pinn_inference.server.health import HealthPages
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.middleware import RequestsInFlight, observing_middleware
from pinn_inference.server.parsing import parse_price_request
from pinn_inference.server.rendering import render_quotes
from pinn_inference.server.worker import PricingWorker

CONFIG: Final = web.AppKey("config", ServerConfig)
ENGINE: Final = web.AppKey("engine", PricingEngine)
IN_FLIGHT: Final = web.AppKey("in_flight", RequestsInFlight)
METRICS: Final = web.AppKey("metrics", ServerMetrics)
WORKER: Final = web.AppKey("worker", PricingWorker)

BODY_SECONDS: Final = 60.0
"""A body that has not arrived by then never will: its client is gone, or sends a byte now and then on purpose."""
_INLINE_BYTES = 32 * 1024
_INLINE_OPTIONS = 128


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
    worker = PricingWorker(engine.price, capacity=config.queue_options, metrics=metrics)
    app = web.Application(
        middlewares=[observing_middleware(metrics, engine, in_flight, revision=config.revision), *middlewares],
        client_max_size=config.max_body_bytes,
    )
    app[CONFIG], app[ENGINE], app[IN_FLIGHT], app[METRICS], app[WORKER] = config, engine, in_flight, metrics, worker
    app.add_routes(HealthPages(engine=engine, worker=worker, metrics=metrics).routes())
    app.router.add_post("/v1/price", price)
    app.cleanup_ctx.append(_life)
    return app


async def _life(app: web.Application) -> AsyncIterator[None]:
    app[ENGINE].start_loading()
    yield
    await app[WORKER].close()


async def _read_body(request: web.Request) -> bytes:
    """The body. Raises InvalidRequest if it cannot be decoded as its headers say, BodyTimeout if it does not end."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise BodyTimeout(seconds=BODY_SECONDS) from None
    except web.RequestPayloadError as error:
        # The client's fault: as a 5xx it would count against the revision and could roll a good one back.
        raise InvalidRequest([Fault("body", f"is not what its headers say: {error}", has_value=False)]) from error


async def price(request: web.Request) -> web.Response:
    """POST /v1/price: one option, or a list of them; see docs/inference-server.md for the contract."""
    app = request.app
    body = await _read_body(request)
    # Thousands of options take tens of milliseconds to parse; other requests and the probes must not wait for them.
    if len(body) <= _INLINE_BYTES:
        parsed = parse_price_request(body, max_batch=app[CONFIG].max_batch)
    else:
        parsed = await asyncio.to_thread(parse_price_request, body, max_batch=app[CONFIG].max_batch)
    quotes = await app[WORKER].price(parsed.options)
    model = app[ENGINE].model_label or ""
    try:
        if len(quotes) <= _INLINE_OPTIONS:
            answer = render_quotes(quotes, model=model, form=parsed.form)
        else:
            answer = await asyncio.to_thread(render_quotes, quotes, model=model, form=parsed.form)
    except NonFiniteResult as error:
        app[METRICS].prediction_errors.labels(error.reason).inc()
        raise
    return web.Response(body=answer, content_type="application/json")
