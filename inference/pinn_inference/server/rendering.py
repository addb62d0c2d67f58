"""From quotes to the bytes of an answer."""

from __future__ import annotations

import numpy as np
import orjson

from pinn_inference.pricing.types import FallbackReason, Method, Quotes
from pinn_inference.server.errors import NonFiniteResult

_NUMBERS = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")
_METHODS = {int(method): method.label for method in Method}
_REASONS = {int(reason): reason.label for reason in FallbackReason}


def render_quotes(quotes: Quotes, *, model: str, many: bool) -> bytes:
    """The JSON of an answer to `POST /v1/price`.

    `model` names the model behind the rows of method `pinn`; rows priced in closed form have `model` null and say in
    `reason` why. Raises NonFiniteResult, because JSON has no NaN and a silent null would be traded on.
    """
    columns = [getattr(quotes, name) for name in _NUMBERS]
    finite = np.isfinite(columns).all(axis=0)
    if not finite.all():
        raise NonFiniteResult(int(np.argmin(finite)))
    rows = []
    for price, delta, gamma, vega, theta, rho, bound, method, reason in zip(
        *(column.tolist() for column in columns), quotes.method.tolist(), quotes.reason.tolist(), strict=True
    ):
        row = {
            "price": price,
            "delta": delta,
            "gamma": gamma,
            "vega": vega,
            "theta": theta,
            "rho": rho,
            "method": _METHODS[method],
            "model": model if method == Method.PINN else None,
            "error_bound": bound,
            "cached": False,
        }
        if reason != FallbackReason.NONE:
            row["reason"] = _REASONS[reason]
        rows.append(row)
    return orjson.dumps({"results": rows} if many else rows[0])
