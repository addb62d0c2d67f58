"""European options, their exact prices, and their Greeks: derivatives of these, by mpmath's own differences."""

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
    spot: Any, strike: Any, maturity: Any, rate: Any = 0.0, dividend: Any = 0.0, volatility: Any = 0.0, call: Any = True
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


def exact_price(option: OptionBatch, row: int, **instead: Any) -> Any:
    """The price of an option, with other numbers for some of its columns if they are given."""
    fields = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    numbers = {name: mp.mpf(float(getattr(option, name)[row])) for name in fields} | instead
    spot, strike, maturity, rate, dividend, volatility = (numbers[name] for name in fields)
    asset, cash = spot * mp.exp(-dividend * maturity), strike * mp.exp(-rate * maturity)
    s = volatility * mp.sqrt(maturity)
    d1 = mp.log(asset / cash) / s + s / 2
    sign = 1 if option.is_call[row] else -1
    return sign * (asset * mp.ncdf(sign * d1) - cash * mp.ncdf(sign * (d1 - s)))


def exact(name: str, options: OptionBatch, row: int) -> Any:
    """The derivative of the price; what depends on time falls with it. Needs `mp.workdps(90)` around it."""
    by = ("spot", "maturity", "rate", "volatility")
    at = tuple(mp.mpf(float(getattr(options, field)[row])) for field in by)
    order = ORDERS[name]
    derivative = mp.diff(lambda *moved: exact_price(options, row, **dict(zip(by, moved, strict=True))), at, order)
    return -derivative if order[1] else derivative
