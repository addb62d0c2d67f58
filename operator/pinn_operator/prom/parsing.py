"""The JSON of Prometheus' HTTP API as `core.samples`. Pure.

https://prometheus.io/docs/prometheus/latest/querying/api/ – values are strings, "NaN" and "+Inf" among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinn_operator.core.samples import Answer, Series, SourceError

TEXT_LIMIT = 512
_OF_QUERY = "PromQL warning"
"""Of Prometheus' package `util/annotations`."""


def parse_answer(document: Any) -> Answer:
    """The body of an answer of `/api/v1/query` or `/api/v1/query_range`. Anything unexpected is a SourceError.

    A warning makes the answer an error too, and so does `isPartial` of a VictoriaMetrics cluster: a part of the data
    could not be read, and half the requests of a revision must not be judged as all of them. A warning that begins with
    `PromQL warning` is about the query: what it gives means something else than was meant. Notes (`infos`) are only
    advice.
    """
    if not isinstance(document, Mapping):
        return SourceError("the answer is not a JSON object")
    if document.get("status") != "success":
        kind, text = document.get("errorType") or "error", document.get("error") or "no reason given"
        return SourceError(f"{kind}: {text}"[:TEXT_LIMIT])
    warnings = document.get("warnings")
    if warnings:
        texts = [str(it) for it in (warnings if isinstance(warnings, list) else [warnings])]
        of_query = all(it.startswith(_OF_QUERY) for it in texts)
        what = "fix the query" if of_query else "incomplete answer"
        return SourceError(f"{what}: {'; '.join(texts)}"[:TEXT_LIMIT])
    if document.get("isPartial"):
        return SourceError("incomplete answer: isPartial, a part of the storage did not answer")
    data = document.get("data")
    if not isinstance(data, Mapping):
        return SourceError("the answer has no data")
    return parse_result(data.get("resultType"), data.get("result"))


def parse_result(kind: Any, result: Any) -> Answer:
    """`data.resultType` and `data.result`; kind None means that it follows from the first element."""
    try:
        if kind == "scalar":
            return (Series(labels={}, points=(_point(result),)),)
        if kind not in ("vector", "matrix", None):
            return SourceError(f"the query gives a {kind}, which holds no numbers: want a vector or a scalar")
        return tuple(
            Series(
                labels={str(key): str(value) for key, value in (item.get("metric") or {}).items()}, points=_points(item)
            )
            for item in result
        )
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return SourceError(f"the answer is no valid {kind or 'result'}")


def _points(item: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    if "histogram" in item or "histograms" in item:
        raise ValueError("a native histogram is not a number")
    return tuple(_point(pair) for pair in item["values"]) if "values" in item else (_point(item["value"]),)


def _point(pair: Any) -> tuple[float, float]:
    moment, value = pair
    return float(moment), float(value)
