"""What the tests of market data share: a file of it, the real model, and the pages on a server of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry

from pinn_inference.market.distribution import Outlooks
from pinn_inference.market.watch import MarketDataWatcher
from pinn_inference.pricing.artefact import bundled_directory
from pinn_inference.pricing.model import PinnModel, load_numpy_model
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.errors import ServerError, render_error
from pinn_inference.server.market_pages import MarketPages

Client = TestClient[web.Request, web.Application]
Pricing = Callable[[OptionBatch], Quotes]

MARKET = """\
as_of: 2026-01-02T21:00:00Z
currency: USD
horizons: [1m, 1y]
strikes: [0.9, 1, 1.1]
symbols:
  ACME: {name: Acme, spot: 100, volatility: 0.2, rate: 0.03, dividend: 0.01}
  NOIR: {name: Noir, spot: 50, volatility: 0.4, rate: 0.02, currency: EUR}
"""


@cache
def european() -> PinnModel:
    """The bundled model."""
    return load_numpy_model(bundled_directory("european"))


def outlooks(
    *, spot: float = 100.0, rate: float = 0.03, dividend: float = 0.01, volatility: float = 0.2, years: float = 1.0
) -> Outlooks:
    """One outlook."""
    return Outlooks(*(np.array([value]) for value in (spot, rate, dividend, volatility, years)))


def watcher_of(path: Path | None, *, poll_seconds: float = 0.02) -> tuple[MarketDataWatcher, CollectorRegistry]:
    registry = CollectorRegistry()
    return MarketDataWatcher(path, registry=registry, poll_seconds=poll_seconds), registry


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as the server answers them."""
    try:
        return await handler(request)
    except ServerError as error:
        body = render_error(str(error), reason=error.reason, request_id="test", details=error.details())
        return web.Response(status=error.status, body=body, content_type="application/json", headers=error.headers)


@asynccontextmanager
async def market_server(
    path: Path | None = None,
    *,
    price: Pricing | Callable[[OptionBatch], Awaitable[Quotes]] | None = None,
    prices_american: bool = False,
    timeout_seconds: float = 20.0,
) -> AsyncIterator[Client]:
    """A client of the market pages alone, over a file of market data, with the real model unless `price` is given."""
    answer = price or european().price

    async def priced(batch: OptionBatch) -> Quotes:
        quotes = answer(batch)
        return quotes if isinstance(quotes, Quotes) else await quotes

    watcher, _ = watcher_of(path)
    pages = MarketPages(
        watcher=watcher,
        price=priced,
        model=lambda: "european/test",
        prices_american=lambda: prices_american,
        timeout_seconds=timeout_seconds,
    )
    app = web.Application(middlewares=[_errors])
    app.cleanup_ctx.append(watcher.life)
    app.add_routes(pages.routes())
    async with TestClient(TestServer(app, handler_cancellation=True)) as client:
        yield client
