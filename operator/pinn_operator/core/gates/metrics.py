"""How each built-in metric is measured. A new one is a file, a line here, and one in `core.wanted.metrics`."""

from __future__ import annotations

from typing import Final

from pinn_operator.core.gates.availability import Availability
from pinn_operator.core.gates.cache_hits import CACHE_HITS
from pinn_operator.core.gates.cpu import CpuUsage
from pinn_operator.core.gates.custom_query import CustomQuery
from pinn_operator.core.gates.error_rate import ErrorRate
from pinn_operator.core.gates.fallbacks import FALLBACKS
from pinn_operator.core.gates.latency import Latency
from pinn_operator.core.gates.memory import Memory
from pinn_operator.core.gates.memory_growth import MemoryGrowth
from pinn_operator.core.gates.metric import Metric
from pinn_operator.core.gates.prediction_spread import PredictionSpread
from pinn_operator.core.gates.router_errors import RouterErrors
from pinn_operator.core.gates.webhook import WebhookGate
from pinn_operator.core.wanted.spec import Gate

METRICS: Final[dict[str, Metric]] = {
    "error-rate": ErrorRate(),
    "latency-p50": Latency(0.50),
    "latency-p95": Latency(0.95),
    "latency-p99": Latency(0.99),
    "cache-hit-rate": CACHE_HITS,
    "fallback-rate": FALLBACKS,
    "memory": Memory(),
    "memory-usage": Memory(relative_to_limit=True),
    "memory-growth": MemoryGrowth(),
    "availability": Availability(),
    "cpu-usage": CpuUsage(),
    "prediction-spread": PredictionSpread(),
    "router-errors": RouterErrors(),
}
_CUSTOM_QUERY: Final = CustomQuery()
_WEBHOOK: Final = WebhookGate()


def metric_of(gate: Gate) -> Metric:
    """What measures a gate."""
    if gate.metric is not None:
        return METRICS[gate.metric]
    return _CUSTOM_QUERY if gate.query is not None else _WEBHOOK
