"""What the server's tests share: models that behave in a chosen way, and a running app with its client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.cache import OptionKey
from pinn_inference.pricing.model_set import StyleModel
from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import Method, OptionBatch, Quotes
from pinn_inference.server import ServerConfig, create_app
from pinn_inference.server.app import CONFIG, ENGINE, METRICS, PricingRunner
from pinn_inference.server.served_model import PricingModel, quotes_by_batch

PUT = {
    "spot": 100,
    "strike": 95,
    "maturity": 0.5,
    "rate": 0.03,
    "dividend": 0.01,
    "volatility": 0.22,
    "option_type": "put",
    "style": "european",
}
Client = TestClient[web.Request, web.Application]


@dataclass
class ExactModel:
    """Prices by the closed form and says it was the network; each step of its life can be made to wait or to fail."""

    name: str = "european"
    version: str = "test"
    sha256: str = "ab" * 32
    error_bound: float = 1e-6
    greek_bounds: Mapping[str, float] = field(default_factory=dict)
    american: StyleModel | None = None
    american_label: str = ""
    on_warm_up: Callable[[], None] = lambda: None
    on_self_check: Callable[[], None] = lambda: None
    on_price: Callable[[OptionBatch], None] = lambda batch: None
    batches: list[int] = field(default_factory=list)

    def warm_up(self) -> None:
        self.on_warm_up()

    def self_check(self) -> None:
        self.on_self_check()

    @property
    def cache(self) -> None:
        """It remembers nothing."""

    @property
    def sources(self) -> None:
        """It exists in this process alone."""

    def quote(self, options: Sequence[OptionKey]) -> list[ScalarQuote]:
        return quotes_by_batch(self.price, options)

    def quote_american(self, option: OptionKey) -> ScalarQuote | None:
        return None

    def price(self, batch: OptionBatch) -> Quotes:
        self.batches.append(len(batch))
        self.on_price(batch)
        quotes = closed_form.price(batch)
        return replace(quotes, method=np.full(len(batch), Method.PINN, dtype=np.int8))


def column(*values: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


def options(*spots: float) -> OptionBatch:
    """One-year calls, strike 100, of the given spots."""
    n = len(spots)
    full = np.ones(n)
    return OptionBatch(
        spot=column(*spots),
        strike=100 * full,
        maturity=full,
        rate=0.03 * full,
        dividend=0 * full,
        volatility=0.2 * full,
        is_call=np.ones(n, dtype=bool),
    )


class Gate:
    """Lets the pricing thread wait until the test opens it, and tells the test that the thread has arrived."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def __call__(self, batch: OptionBatch | None = None) -> None:
        self.arrived.set()
        if not self.opened.wait(timeout=30):
            raise TimeoutError("the test never opened the gate")


class _Server(TestServer):
    """Serves as `run_app` does, with the lane for single quotes."""

    async def _make_runner(self, **kwargs: Any) -> PricingRunner:
        return PricingRunner(self.app, keepalive_timeout=self.app[CONFIG].keep_alive_seconds, **kwargs)


@asynccontextmanager
async def running(
    model: PricingModel | Exception | Callable[[], PricingModel] | None = None,
    *,
    settled: bool = True,
    has_lane: bool = True,
    **settings: Any,
) -> AsyncIterator[Client]:
    """A client of a real server with `model`, or with what a function makes; an exception is raised by the loader.

    Without the lane it is aiohttp alone that serves.
    """
    chosen = ExactModel() if model is None else model

    def load(config: ServerConfig) -> PricingModel:
        if isinstance(chosen, Exception):
            raise chosen
        return chosen() if callable(chosen) else chosen

    middlewares = settings.pop("middlewares", ())
    app = create_app(ServerConfig(**settings), middlewares=middlewares, load_model=load)
    server = (_Server if has_lane else TestServer)(app, handler_cancellation=True)
    async with TestClient(server) as client:
        if settled:
            await app[ENGINE].settled.wait()
        yield client


def sample(client: Client, name: str, /, **labels: str) -> float | None:
    """One sample of the app's metrics, None if there is no such series."""
    assert client.app is not None
    return client.app[METRICS].registry.get_sample_value(name, labels)


async def eventually(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Returns when the condition holds; raises TimeoutError if it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
