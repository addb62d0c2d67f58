"""Liveness, readiness and the health pages for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch
from pinn_inference.server.engine import PricingEngine, Readiness
from pinn_inference.server.errors import ServerError
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.worker import PricingWorker


class HealthPages:
    """The handlers under /health and /metrics.

    Liveness is about the process and stays 200 to its end. Readiness is about the model and about draining. Neither
    waits for the pricing thread; only /health/detailed prices something.
    """

    def __init__(self, *, engine: PricingEngine, worker: PricingWorker, metrics: ServerMetrics) -> None:
        self._engine = engine
        self._worker = worker
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.live),
            web.get("/health/detailed", self.detailed),
            web.get("/health/pinn", self.pinn),
            web.get("/health/pinn/quick", self.quick),
            web.get("/health/deployment/readiness", self.readiness),
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
        value = self._metrics.registry.get_sample_value
        document = {
            "overall_status": _overall(self._engine, state),
            "timestamp": _now(),
            "ready": state.ready,
            "reason": state.reason,
            "message": state.message,
            "model": dict(state.model),
            "tensorflow": self._engine.tensorflow,
            "options_priced": {
                method.label: int(value("pinn_options_priced_total", {"method": method.label}) or 0)
                for method in Method
            },
            "fallbacks": {
                reason.label: int(value("pinn_fallback_total", {"reason": reason.label}) or 0)
                for reason in FallbackReason
                if reason != FallbackReason.NONE
            },
            "queue": {"options": self._worker.outstanding},
        }
        return _json(document)

    async def detailed(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Prices one option through the queue, as a client's would be; 503 unless everything is well."""
        state = self._engine.readiness()
        model = await self._prediction_test()
        if not self._engine.model_ready:
            model["status"] = "unhealthy" if self._engine.failure is not None else "starting"
        healthy = state.ready and model["status"] == "healthy"
        document = {
            "status": "healthy" if healthy else _overall(self._engine, state),
            "timestamp": _now(),
            "reason": state.reason,
            "message": state.message,
            "components": {"pinn_model": model, "tensorflow": self._engine.tensorflow},
        }
        return _json(document, status=200 if healthy else 503)

    async def metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _prediction_test(self) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            quotes = await self._worker.price(_test_option())
        except ServerError as error:
            return {"status": "unhealthy", "prediction_test": "failed", "message": str(error)}
        right = bool(abs(quotes.price[0] - _TEST_PRICE) <= _TEST_TOLERANCE)
        return {
            "status": "healthy" if right else "unhealthy",
            "prediction_test": "passed" if right else "failed",
            "method": Method(int(quotes.method[0])).label,
            "latency_ms": round((time.perf_counter() - started) * 1e3, 3),
        }


# Black–Scholes price of `_test_option`, computed with 50 digits.
_TEST_PRICE = 10.450583572185568
_TEST_TOLERANCE = 1e-4


def _test_option() -> OptionBatch:
    def column(value: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([value])

    return OptionBatch(
        spot=column(100.0),
        strike=column(100.0),
        maturity=column(1.0),
        rate=column(0.05),
        dividend=column(0.0),
        volatility=column(0.2),
        is_call=np.array([True]),
    )


def _overall(engine: PricingEngine, state: Readiness) -> str:
    """healthy: ready. starting: will be. draining: was. degraded: answers, but in closed form."""
    if engine.draining:
        return "draining"
    if state.ready:
        return "healthy"
    return "degraded" if engine.failure is not None else "starting"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
