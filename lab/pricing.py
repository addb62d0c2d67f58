"""Random European options and a closed form of their own, so that a wrong price is seen whatever the server says."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from typing import Any

PRICE_TOLERANCE = 5e-6
"""In units of the strike. The server promises 1e-6 over its domain; the rest is for prices near the edge of it."""


@dataclass(frozen=True, slots=True)
class Option:
    """One European option as `POST /v1/price` takes it: years, and decimals per year."""

    spot: float
    strike: float
    maturity: float
    rate: float
    dividend: float
    volatility: float
    option_type: str

    def body(self) -> dict[str, Any]:
        """The JSON of the request."""
        return asdict(self)

    def price(self) -> float:
        """Black, Scholes and Merton (1973); the error is a few ulp of spot and strike, far below the tolerance."""
        spread = self.volatility * math.sqrt(self.maturity)
        d1 = (math.log(self.spot / self.strike) + (self.rate - self.dividend) * self.maturity) / spread + spread / 2
        sign = 1.0 if self.option_type == "call" else -1.0
        paid = self.spot * math.exp(-self.dividend * self.maturity) * _normal(sign * d1)
        received = self.strike * math.exp(-self.rate * self.maturity) * _normal(sign * (d1 - spread))
        return sign * (paid - received)

    def is_price(self, answered: float) -> bool:
        """Whether an answer is this option's price."""
        return math.isfinite(answered) and abs(answered - self.price()) <= PRICE_TOLERANCE * self.strike


def random_option(source: random.Random) -> Option:
    """An option of the kind a desk quotes: a week to two years, 60 to 160 % moneyness, 10 to 60 % volatility."""
    strike = source.choice((50.0, 100.0, 250.0, 4000.0))
    return Option(
        spot=round(strike * source.uniform(0.6, 1.6), 4),
        strike=strike,
        maturity=round(source.uniform(0.02, 2.0), 4),
        rate=round(source.uniform(0.0, 0.06), 4),
        dividend=round(source.uniform(0.0, 0.04), 4),
        volatility=round(source.uniform(0.1, 0.6), 4),
        option_type=source.choice(("call", "put")),
    )


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
