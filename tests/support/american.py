"""American options for the tests: QuantLib's prices of them, and networks that nobody has trained."""

from __future__ import annotations

import numpy as np
import QuantLib as ql

from pinn_inference.pricing.american_artefact import PERCEPTRONS
from pinn_inference.pricing.american_network import (
    AmericanDomain,
    AmericanNetworks,
    layers_from_vector,
    parameter_count,
)
from pinn_inference.pricing.types import FloatArray, OptionBatch


def quantlib_prices(batch: OptionBatch) -> FloatArray:
    """By QuantLib's QdFp engine, high precision scheme; maturities must be whole days of a 365-day year."""
    today = ql.Date(1, 1, 2026)
    ql.Settings.instance().evaluationDate = today
    days, calendar = ql.Actual365Fixed(), ql.NullCalendar()

    def curve(rate: float) -> ql.YieldTermStructureHandle:
        return ql.YieldTermStructureHandle(ql.FlatForward(today, rate, days))

    prices = np.empty(len(batch))
    columns = (batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend, batch.volatility, batch.is_call)
    for row, terms in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        spot, strike, maturity, rate, dividend, volatility, is_call = terms
        length = round(maturity * 365)
        assert length / 365 == maturity
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(spot)),
            curve(dividend),
            curve(rate),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, calendar, volatility, days)),
        )
        option = ql.VanillaOption(
            ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, strike),
            ql.AmericanExercise(today, today + length),
        )
        option.setPricingEngine(ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.highPrecisionScheme()))
        prices[row] = option.NPV()
    return prices


def in_whole_days(batch: OptionBatch) -> OptionBatch:
    """The same options with maturities rounded down to whole days of a 365-day year, one at least."""
    days = np.maximum(np.floor(batch.maturity * 365.0), 1.0)
    return OptionBatch(
        batch.spot,
        batch.strike,
        days / 365.0,
        batch.rate,
        batch.dividend,
        batch.volatility,
        batch.is_call,
        batch.is_american,
    )


def random_networks(seed: int, width: int = 6) -> AmericanNetworks:
    """Perceptrons of random weights: whatever is exact by the form of the model is exact for these."""
    rng = np.random.default_rng(seed)
    hidden = (width, width)
    perceptrons = {
        name: layers_from_vector(0.4 * rng.normal(size=parameter_count(inputs, hidden)), inputs, hidden)
        for name, inputs in PERCEPTRONS.items()
    }
    return AmericanNetworks(**perceptrons, domain=AmericanDomain())
