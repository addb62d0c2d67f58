"""European options, and their Greeks in 90 digits: derivatives of the exact price, by mpmath's own differences."""

from __future__ import annotations

from typing import Any, Final

import mpmath as mp
import numpy as np

from pinn_inference.pricing.types import OptionBatch

ORDERS: Final = {  # of spot, maturity, rate and volatility
    "delta": (1, 0, 0, 0),
    "gamma": (2, 0, 0, 0),
    "vega": (0, 0, 0, 1),
    "theta": (0, 1, 0, 0),
    "rho": (0, 0, 1, 0),
    "vanna": (1, 0, 0, 1),
    "volga": (0, 0, 0, 2),
    "charm": (1, 1, 0, 0),
    "veta": (0, 1, 0, 1),
    "speed": (3, 0, 0, 0),
    "zomma": (2, 0, 0, 1),
    "color": (2, 1, 0, 0),
    "ultima": (0, 0, 0, 3),
}
LEFT: Final = 1e-60
"""What mpmath's differences leave."""


def batch(
    spot: Any, strike: Any, maturity: Any, rate: Any, dividend: Any, volatility: Any, *, call: Any = True
) -> OptionBatch:
    """Options from numbers or lists of them."""
    columns = np.broadcast_arrays(*np.atleast_1d(spot, strike, maturity, rate, dividend, volatility, call))
    return OptionBatch(*(column.astype(np.float64) for column in columns[:6]), columns[6].astype(np.bool_))


def random_options(n: int) -> OptionBatch:
    """Days to ten years, volatilities of 6 to 200 %, rates and dividends of either sign."""
    draw = np.random.default_rng(7)
    return batch(
        100.0 * np.exp(draw.normal(0.0, 0.3, n)),
        100.0,
        10 ** draw.uniform(-2.5, 1.0, n),
        draw.uniform(-0.05, 0.15, n),
        draw.uniform(-0.05, 0.15, n),
        10 ** draw.uniform(-1.2, 0.3, n),
        call=draw.uniform(size=n) < 0.5,
    )


def exact(name: str, options: OptionBatch, row: int) -> Any:
    """The derivative of the price; what depends on time falls with it. Needs `mp.workdps(90)` around it."""
    spot, strike, maturity, rate, dividend, volatility = (
        mp.mpf(float(getattr(options, field)[row]))
        for field in ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    )
    sign = 1 if options.is_call[row] else -1

    def price(s: Any, t: Any, r: Any, v: Any) -> Any:
        return _price(s, strike, t, r, dividend, v, sign)

    order = ORDERS[name]
    derivative = mp.diff(price, (spot, maturity, rate, volatility), order)
    return -derivative if order[1] else derivative


def _price(spot: Any, strike: Any, maturity: Any, rate: Any, dividend: Any, volatility: Any, sign: int) -> Any:
    s = volatility * mp.sqrt(maturity)
    d1 = (mp.log(spot / strike) + (rate - dividend) * maturity) / s + s / 2
    asset, cash = spot * mp.exp(-dividend * maturity), strike * mp.exp(-rate * maturity)
    return sign * (asset * mp.ncdf(sign * d1) - cash * mp.ncdf(sign * (d1 - s)))
