"""American options by QuantLib: what the prices of this project are compared with.

`python -m tests.support.american_reference` writes tests/data/american_golden.json again.
"""

from __future__ import annotations

import json
import sys
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import QuantLib as ql

from pinn_inference.pricing.types import FloatArray, OptionBatch

GOLDEN_PATH: Final = Path(__file__).parent.parent / "data" / "american_golden.json"
_TODAY: Final = ql.Date(2, 1, 2023)
_YEAR: Final = 365
_COLUMNS: Final = ("spot", "strike", "maturity", "rate", "dividend", "volatility", "is_call")


def quantlib_american(batch: OptionBatch, *, fine: bool = False) -> FloatArray:
    """Prices, shape (n,), every row taken as American; each row is priced once per process.

    `QdFpAmericanEngine` by Andersen, Lake and Offengenden (2016) with its high precision scheme. Close to the boundary
    that is wrong by up to 1e-7 of the strike, elsewhere by 1e-9; `fine` takes 40 nodes instead of 10, which is four
    times slower and right to 5e-9 everywhere. Needs maturities and volatilities above 0; raises RuntimeError for
    options with two exercise boundaries.
    """
    rows = zip(*(getattr(batch, name).tolist() for name in _COLUMNS), strict=True)
    return np.array([_price(*row, fine) for row in rows])


def quantlib_boundary(batch: OptionBatch) -> FloatArray:
    """Exercise boundaries in currency, shape (n,), from QuantLib's prices alone, right to about 5e-6 of themselves.

    Close above a put's boundary B its price exceeds the payoff by c·(S − B)²·(1 + …), so that S is a smooth function of
    the square root of that excess, and B its value at 0. For options that are worth exercising early.
    """
    return np.array([_boundary(batch.take(slice(row, row + 1))) for row in range(len(batch))])


@cache
def _price(
    spot: float,
    strike: float,
    maturity: float,
    rate: float,
    dividend: float,
    volatility: float,
    is_call: bool,
    fine: bool,
) -> float:
    quotes, option = _option(strike, is_call, fine)
    ql.Settings.instance().evaluationDate = _TODAY  # others may have set theirs, and options expire by it
    # The price depends on rates and variance over the maturity only, so that a year serves for every maturity.
    values = spot, rate * maturity, dividend * maturity, volatility * maturity**0.5
    for quote, value in zip(quotes, values, strict=True):
        quote.setValue(value)
    return float(option.NPV())


@lru_cache(maxsize=64)
def _option(strike: float, is_call: bool, fine: bool) -> tuple[tuple[Any, ...], Any]:
    """An option over one year, and the quotes of its spot, rate, dividend and volatility."""
    day_count = ql.Actual365Fixed()
    spot, rate, dividend, volatility = quotes = tuple(ql.SimpleQuote(value) for value in (strike, 0.02, 0.01, 0.2))

    def curve(quote: Any) -> Any:
        return ql.YieldTermStructureHandle(ql.FlatForward(_TODAY, ql.QuoteHandle(quote), day_count))

    surface = ql.BlackConstantVol(_TODAY, ql.NullCalendar(), ql.QuoteHandle(volatility), day_count)
    process = ql.GeneralizedBlackScholesProcess(
        ql.QuoteHandle(spot), curve(dividend), curve(rate), ql.BlackVolTermStructureHandle(surface)
    )
    high_precision, finer = ql.QdFpAmericanEngine.highPrecisionScheme(), ql.QdFpTanhSinhIterationScheme(30, 40, 1e-12)
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, strike)
    option = ql.VanillaOption(payoff, ql.AmericanExercise(_TODAY, _TODAY + _YEAR))
    option.setPricingEngine(ql.QdFpAmericanEngine(process, finer if fine else high_precision))
    return quotes, option


def _boundary(option: OptionBatch) -> float:
    strike, side = float(option.strike[0]), 1.0 if option.is_call[0] else -1.0
    spread = float(option.volatility[0] * np.sqrt(option.maturity[0]))

    def excess(spots: FloatArray, *, fine: bool) -> FloatArray:
        columns = {name: np.repeat(getattr(option, name), len(spots)) for name in _COLUMNS}
        prices = quantlib_american(OptionBatch(**{**columns, "spot": spots}), fine=fine)
        return prices - side * (spots - strike)

    # In logarithms, `low` is exercised and `high` is not.
    low, high = np.log(strike) + side * 50.0 * spread, np.log(strike)
    for _ in range(20):
        middle = 0.5 * (low + high)
        if excess(np.exp([middle]), fine=False)[0] > 1e-6 * strike:
            high = middle
        else:
            low = middle
    spots = np.exp(high - side * spread * np.array([0.02, 0.04, 0.06, 0.08, 0.1, 0.12]))
    roots = np.sqrt(excess(spots, fine=True))
    return float(np.polynomial.Polynomial.fit(roots, spots, len(spots) - 1)(0.0))


def golden_options() -> OptionBatch:
    """Thirty options: a week to five years, 8 to 90 % volatility, S/K 0.7 to 1.4, rates and dividends 0 to 12 %."""
    source = np.random.default_rng(2016)
    n = 30

    def even_in_logarithm(low: float, high: float) -> FloatArray:
        values: FloatArray = np.exp(source.uniform(np.log(low), np.log(high), n))
        return np.round(values, 3)

    spot, maturity, volatility = even_in_logarithm(70, 140), even_in_logarithm(0.02, 5), even_in_logarithm(0.08, 0.9)
    rate = np.round(source.uniform(0.002, 0.12, n), 3)
    dividend = np.round(source.uniform(0.002, 0.12, n), 3)
    is_call = np.arange(n) % 3 == 0
    dividend[[1, 2, 4, 5]] = 0.0
    rate[[7, 8]] = dividend[[7, 8]]
    return OptionBatch(
        spot, np.full(n, 100.0), maturity, rate, dividend, volatility, is_call, np.ones(n, dtype=np.bool_)
    )


def read_golden() -> tuple[OptionBatch, FloatArray, FloatArray]:
    """The stored options, their prices and their exercise boundaries."""
    rows = json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))["options"]
    columns = {name: np.array([row[name] for row in rows]) for name in (*_COLUMNS, "price", "exercise_boundary")}
    price, boundary = columns.pop("price"), columns.pop("exercise_boundary")
    return OptionBatch(**columns, is_american=np.ones(len(rows), dtype=np.bool_)), price, boundary


def write_golden() -> None:
    options = golden_options()
    price, boundary = quantlib_american(options, fine=True), quantlib_boundary(options)
    rows = [
        {name: getattr(options, name)[row].item() for name in _COLUMNS}
        | {"price": float(price[row]), "exercise_boundary": round(float(boundary[row]), 6)}
        for row in range(len(options))
    ]
    document = {
        "made_by": "python -m tests.support.american_reference",
        "price": f"QuantLib {ql.__version__}, QdFpAmericanEngine, tanh-sinh scheme of 40 nodes; to 5e-9 of the strike",
        "exercise_boundary": "where those prices meet the payoff, by extrapolation; to 5e-6 of itself",
        "options": rows,
    }
    GOLDEN_PATH.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()
    sys.stdout.write(f"{GOLDEN_PATH} written\n")
