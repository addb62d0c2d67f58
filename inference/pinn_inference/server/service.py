"""Who prices what: the event loop small requests, the batch process whole large ones, a thread what is between.

Handlers of every protocol come here with options or with a request's body, and get quotes or the body of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pinn_inference.pricing.types import BoolArray, OptionBatch, Quotes
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.desk import QuoteDesk
from pinn_inference.server.engine import PricingEngine
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.served_model import options_of, quotes_of, scalars_of
from pinn_inference.server.worker import PricingWorker

SMALL_BYTES = 16 * 1024
"""Bodies up to here are parsed, priced and rendered on the event loop; that takes a millisecond at most."""
FEW_OPTIONS = 8
"""Up to here the cache is asked for each option of a request."""
SOME_OPTIONS = 512
"""Up to here a batch is priced on the event loop."""


class PricingService:
    """For one event loop."""

    def __init__(self, config: ServerConfig, *, engine: PricingEngine, metrics: ServerMetrics) -> None:
        self._engine = engine
        self.desk = QuoteDesk(engine, capacity=config.queue_options, metrics=metrics)
        self.worker = PricingWorker(engine.price, capacity=config.queue_options, metrics=metrics)

    @property
    def waiting(self) -> int:
        """Options that wait or are being priced."""
        return self.desk.waiting + self.worker.outstanding

    def tensorflow(self) -> Mapping[str, Any]:
        """TensorFlow's state, for the health pages."""
        return {"status": "not_loaded", "gpu_available": False}

    async def price(self, options: OptionBatch) -> tuple[Quotes, BoolArray]:
        """Price a batch; also says which rows came from the cache.

        Raises Overloaded.
        """
        rows = len(options)
        if rows <= FEW_OPTIONS:
            known, _ = await self.desk.quote(options_of(options))
            return quotes_of(known)
        if rows <= SOME_OPTIONS:
            quotes, _ = await self.desk.price(options)
            return quotes, np.zeros(rows, dtype=np.bool_)
        return await self.worker.price(options), np.zeros(rows, dtype=np.bool_)

    async def price_again(self, options: OptionBatch) -> Quotes:
        """Price a batch that is asked for again and again, as reports are: every option is looked up in the cache.

        Raises Overloaded.
        """
        cache = self._engine.cache
        if cache is None:
            return (await self.price(options))[0]
        keys = options_of(options)
        found = [cache.lookup(key) for key in keys]
        known = [quote for quote in found if quote is not None]
        if len(known) == len(found):
            return quotes_of(known)[0]
        missing = np.array([quote is None for quote in found])
        made, _ = await self.price(options.take(missing))
        fresh = iter(scalars_of(made))
        for row in np.flatnonzero(missing).tolist():
            quote = found[row] = next(fresh)
            cache.store(keys[row], quote)
        return quotes_of([quote for quote in found if quote is not None])[0]

    async def close(self) -> None:
        """Finish what was accepted."""
        await self.worker.close()
