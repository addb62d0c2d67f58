"""American options with known answers: what an American model has to reproduce before it may serve.

The prices are QuantLib's (1.43, `QdFpAmericanEngine`, high precision scheme: Andersen, Lake and Offengenden 2016); a
test computes them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.types import Method, OptionBatch, Quotes

AMERICAN_PRICE_TOLERANCE: Final = 5e-5
"""Largest price error allowed, per unit of strike."""


@dataclass(frozen=True, slots=True)
class AmericanGolden:
    """`terms`: spot, strike, maturity, rate, dividend, volatility; `price` in currency."""

    name: str
    terms: tuple[float, float, float, float, float, float]
    is_call: bool
    price: float


AMERICAN_GOLDEN_PRICES: Final[tuple[AmericanGolden, ...]] = (
    AmericanGolden(
        "put at the money",
        (100.0, 100.0, 1.0, 0.05, 0.0, 0.2),
        False,
        6.090370606535343,
    ),
    AmericanGolden(
        "put in the money",
        (90.0, 100.0, 0.6, 0.04, 0.02, 0.25),
        False,
        12.644473712954563,
    ),
    AmericanGolden(
        "put out of the money",
        (120.0, 100.0, 0.4, 0.03, 0.01, 0.3),
        False,
        1.7128810157951886,
    ),
    AmericanGolden(
        "put near its boundary",
        (82.0, 100.0, 1.0, 0.06, 0.0, 0.2),
        False,
        18.000000424167037,
    ),
    AmericanGolden(
        "put exercised at once",
        (70.0, 100.0, 1.0, 0.06, 0.0, 0.2),
        False,
        30.00000005279364,
    ),
    AmericanGolden(
        "call with dividend above the rate",
        (100.0, 100.0, 1.0, 0.03, 0.07, 0.25),
        True,
        8.164703064607226,
    ),
    AmericanGolden(
        "call with small dividend",
        (110.0, 100.0, 0.8, 0.05, 0.02, 0.2),
        True,
        14.924534612330284,
    ),
    AmericanGolden(
        "put with rate equal to dividend", (95.0, 100.0, 0.4986301369863014, 0.04, 0.04, 0.22), False, 8.728222888492695
    ),
    AmericanGolden(
        "short-dated put", (98.0, 100.0, 0.057534246575342465, 0.045, 0.013, 0.18), False, 2.7867628731957517
    ),
    AmericanGolden(
        "three-year put",
        (100.0, 110.0, 3.0, 0.04, 0.02, 0.35),
        False,
        26.126418033673655,
    ),
    AmericanGolden(
        "three-year call",
        (100.0, 90.0, 3.0, 0.03, 0.05, 0.3),
        True,
        20.914394570582203,
    ),
    AmericanGolden(
        "low-volatility put",
        (99.0, 100.0, 0.4, 0.03, 0.01, 0.1),
        False,
        2.6847203504501467,
    ),
    AmericanGolden(
        "high-volatility put",
        (100.0, 100.0, 0.6, 0.05, 0.0, 0.9),
        False,
        25.710215313493748,
    ),
    AmericanGolden(
        "call deep in the money", (160.0, 100.0, 0.4986301369863014, 0.02, 0.08, 0.3), True, 60.000000003552024
    ),
)


def golden_batch() -> OptionBatch:
    """The golden options as one batch of American options, in order."""
    columns = np.array([golden.terms for golden in AMERICAN_GOLDEN_PRICES]).T
    is_call = np.array([golden.is_call for golden in AMERICAN_GOLDEN_PRICES])
    spot, strike, maturity, rate, dividend, volatility = (np.ascontiguousarray(column) for column in columns)
    american = np.ones(len(is_call), dtype=np.bool_)
    return OptionBatch(spot, strike, maturity, rate, dividend, volatility, is_call, american)


def compare(quotes: Quotes, device: str) -> list[CheckResult]:
    """One result per golden option, and one that says whether the network priced them all. NaN never passes."""
    results = []
    for row, golden in enumerate(AMERICAN_GOLDEN_PRICES):
        limit = AMERICAN_PRICE_TOLERANCE * golden.terms[1]
        found = float(quotes.price[row])
        error = abs(found - golden.price)
        detail = f"price {found:.9g}, exact {golden.price:.9g} ± {limit:.1e}"
        results.append(CheckResult(f"golden: {golden.name}", bool(error <= limit), error / limit, 1.0, detail))
    fallbacks = int(np.count_nonzero(quotes.method != Method.PINN))
    detail = f"{fallbacks} of {len(quotes)} came from the integral equation, on {device}"
    results.append(CheckResult("golden: priced by the network", fallbacks == 0, float(fallbacks), 0.0, detail))
    return results
