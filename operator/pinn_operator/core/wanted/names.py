"""The block `spec.analysis.metrics`: what the judged server calls its metrics and labels."""

from __future__ import annotations

import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.spec import MetricNames

METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
RESERVED_LABELS: Final = ("le", "quantile", "__name__")

METRIC_FIELDS: Final = {
    "requests": "requests",
    "latency": "latency",
    "cacheHits": "cache_hits",
    "cacheMisses": "cache_misses",
    "fallbacks": "fallbacks",
    "options": "options",
    "memory": "memory",
    "cpu": "cpu",
    "priceCount": "price_count",
    "priceSum": "price_sum",
    "priceSquares": "price_squares",
}
LABEL_FIELDS: Final = {
    "podLabel": "pod_label",
    "namespaceLabel": "namespace_label",
    "statusLabel": "status_label",
    "handlerLabel": "handler_label",
}


def parse_names(fields: Fields) -> MetricNames:
    found: dict[str, str] = {}
    for field, attribute in METRIC_FIELDS.items():
        name = fields.optional_text(
            field, limit=128, pattern=METRIC_NAME, expected="the name of a metric like http_requests_total"
        )
        if field == "latency" and name is not None and name.endswith("_bucket"):
            fields.fault(field, f"is the name of a histogram without _bucket: {name.removesuffix('_bucket')}")
        if name is not None:
            found[attribute] = name
    for field, attribute in LABEL_FIELDS.items():
        name = fields.optional_text(field, limit=128, pattern=LABEL_NAME, expected="the name of a label like status")
        if name in RESERVED_LABELS:
            fields.fault(field, "le, quantile and __name__ are Prometheus' own: choose another label")
        if name is not None:
            found[attribute] = name
    names = MetricNames(**found)
    labels = [getattr(names, attribute) for attribute in LABEL_FIELDS.values()]
    if len(set(labels)) < len(labels):
        fields.fault("", "uses one label for two things: podLabel, namespaceLabel, statusLabel, handlerLabel differ")
    fields.close()
    return names
