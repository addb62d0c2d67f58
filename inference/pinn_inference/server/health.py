"""Liveness, readiness and the health pages for people."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from pinn_inference.pricing.cache import CacheStats, LevelStats
from pinn_inference.server.engine import PricingEngine, Readiness
from pinn_inference.server.errors import CONTROL_PAUSE, BadQuery, ServerError, TokenRequired, TooOften
from pinn_inference.server.exposition import BadFilter
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.service import PricingService

_EMPTY: Final = LevelStats(hits=0, misses=0, size=0, max_size=0, evictions=0)
_NO_CACHE: Final = CacheStats(quotes=_EMPTY, cells=_EMPTY)

TensorFlowState = Callable[[], Mapping[str, Any]]
"""Says how TensorFlow is in the batch process: `status`, `version`, `gpu_available` and whatever helps."""
Component = Callable[[], Mapping[str, Any]]
"""Says how a part is that pricing does not need: `status`, and whatever helps."""


class HealthPages:
    """The handlers under /health, /cache and /metrics.

    Liveness is about the process and stays 200 to its end. Readiness is about the model and about draining. Neither
    waits for anything; only /health/detailed prices something. `tensorflow` and `others` are shown and decide nothing:
    without them quotes are as right and single ones as fast.
    """

    def __init__(
        self,
        *,
        engine: PricingEngine,
        service: PricingService,
        metrics: ServerMetrics,
        tensorflow: TensorFlowState,
        others: Mapping[str, Component] | None = None,
        control_token: str = "",
    ) -> None:
        self._engine = engine
        self._service = service
        self._metrics = metrics
        self._tensorflow = tensorflow
        self._others = others or {}
        self._token = control_token.encode()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.live),
            web.get("/health/detailed", self.detailed),
            web.get("/health/pinn", self.pinn),
            web.get("/health/pinn/quick", self.quick),
            web.get("/health/pinn/metrics", self.pinn_metrics),
            web.post("/health/pinn/warmup", _Control(self.warm_up, self._token).serve),
            web.get("/health/deployment/readiness", self.readiness),
            web.get("/cache/stats", self.cache_stats),
            web.post("/cache/reset", _Control(self.cache_reset, self._token).serve),
            web.get("/metrics", self.metrics),
        ]

    async def live(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _json({"status": "healthy"})

    async def readiness(self, request: web.Request) -> web.Response:  # noqa: ARG002
        state = self._engine.readiness()
        document = {
            "ready": state.ready,
            "reason": state.reason,
            "message": state.message,
            "model": dict(state.model),
            "checks": [{"name": check.name, "ok": check.ok, "message": check.message} for check in state.checks],
        }
        return _json(document, status=200 if state.ready else 503)

    async def quick(self, request: web.Request) -> web.Response:  # noqa: ARG002
        state = self._engine.readiness()
        return _json({"overall_status": _overall(self._engine, state), "ready": state.ready, "reason": state.reason})

    async def pinn(self, request: web.Request) -> web.Response:  # noqa: ARG002
        state = self._engine.readiness()
        document = {
            "overall_status": _overall(self._engine, state),
            "timestamp": _now(),
            "ready": state.ready,
            "reason": state.reason,
            "message": state.message,
            "model": dict(state.model),
            "tensorflow": dict(self._tensorflow()),
            **self._counts(),
        }
        return _json(document)

    async def pinn_metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """What /metrics says of pricing and of the cache, as JSON."""
        value = self._metrics.registry.get_sample_value
        requests = value("pinn_inference_latency_seconds_count") or 0.0
        seconds = value("pinn_inference_latency_seconds_sum") or 0.0
        document = {
            "timestamp": _now(),
            "cache": self._cache_stats(),
            "requests": int(requests),
            "mean_latency_ms": round(seconds / requests * 1e3, 3) if requests else None,
            **self._counts(),
        }
        return _json(document)

    async def warm_up(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Fills the cache anew with what every quote needs; 503 while there is no usable model."""
        cache = self._engine.cache
        if cache is None:
            state = self._engine.readiness()
            return _json({"status": "unavailable", "reason": state.reason, "message": state.message}, status=503)
        started = time.perf_counter()
        cells = await asyncio.to_thread(cache.warm_up)
        return _json(
            {
                "status": "warm",
                "cells": cells,
                "latency_ms": round((time.perf_counter() - started) * 1e3, 3),
                "cache": self._cache_stats(),
            }
        )

    async def cache_stats(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _json(self._cache_stats())

    async def cache_reset(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Empties the cache; the counters under /metrics go on."""
        self._metrics.reset_cache()
        return _json({"status": "reset", "cache": self._cache_stats()})

    async def detailed(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Prices one option on the way of a client's; 503 unless everything that pricing needs is well."""
        state = self._engine.readiness()
        model = await self._prediction_test()
        if not self._engine.model_ready:
            model["status"] = "unhealthy" if self._engine.failure is not None else "starting"
        healthy = state.ready and model["status"] == "healthy"
        stats = self._cache_stats()
        overall = _overall(self._engine, state)
        document = {
            "status": "unhealthy" if overall == "healthy" and not healthy else overall,
            "timestamp": _now(),
            "reason": state.reason,
            "message": state.message,
            "components": {
                "pinn_cache": {
                    "status": "healthy" if self._engine.cache is not None else model["status"],
                    "cache_size": stats["size"],
                    "hit_rate": stats["hit_rate"],
                },
                "pinn_model": model,
                "tensorflow": dict(self._tensorflow()),
                **{name: dict(component()) for name, component in self._others.items()},
            },
        }
        return _json(document, status=200 if healthy else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """All metrics, or the samples that are named: `?name[]=http_requests_total&name[]=…`."""
        try:
            page = self._metrics.exposition(request.query_string)
        except BadFilter as error:
            raise BadQuery(str(error)) from error
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    def _counts(self) -> dict[str, Any]:
        return {
            "options_priced": dict(self._metrics.quotes.priced),
            "fallbacks": dict(self._metrics.quotes.fallbacks),
            "queue": {"options": self._service.waiting},
        }

    def _cache_stats(self) -> dict[str, Any]:
        cache = self._engine.cache
        return cache.stats().as_dict() if cache is not None else _NO_CACHE.as_dict()

    async def _prediction_test(self) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            quote = (await self._service.desk.quote([_TEST_OPTION]))[0][0]
        except ServerError as error:
            return {"status": "unhealthy", "prediction_test": "failed", "message": str(error)}
        right = abs(quote.price - _TEST_PRICE) <= _TEST_TOLERANCE
        return {
            "status": "healthy" if right else "unhealthy",
            "prediction_test": "passed" if right else "failed",
            "method": quote.method.label,
            "latency_ms": round((time.perf_counter() - started) * 1e3, 3),
        }


class _Control:
    """A page that changes something: for those who have the token, one at a time.

    Without a token anybody may use it, but not so often that single quotes would suffer.
    """

    def __init__(self, page: Handler, token: bytes) -> None:
        self._page, self._token = page, token
        self._turn = asyncio.Lock()
        self._again_at = 0.0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        given = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ").strip()
        # Bytes that are no UTF-8 come as surrogates.
        if self._token and not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token):
            raise TokenRequired
        async with self._turn:
            now = time.monotonic()
            if not self._token and now < self._again_at:
                raise TooOften
            self._again_at = now + CONTROL_PAUSE
            return await self._page(request)


_TEST_OPTION: Final = (100.0, 100.0, 1.0, 0.05, 0.0, 0.2, True, False)
_TEST_PRICE: Final = 10.450583572185568
"""Black–Scholes, computed with 50 digits."""
_TEST_TOLERANCE: Final = 1e-4


def _overall(engine: PricingEngine, state: Readiness) -> str:
    """healthy: ready. starting: will be. draining: was. degraded: answers, but without a model or batch process."""
    if engine.draining:
        return "draining"
    if state.ready:
        return "healthy"
    return "starting" if engine.failure is None and not engine.model_ready else "degraded"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
