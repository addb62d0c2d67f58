"""Investor reports and forecasts: which options they need, and the documents that come of the answers.

A forecast tells, for each symbol and horizon, the risk-neutral distribution of the price: forward, quantiles, and the
probability of ending above a price. An investor report adds a ladder of options with Greeks. Both are built as columns
over all symbols at once, and rendered symbol by symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Final

import numpy as np

from pinn_inference.market.data import Horizon, Instrument, MarketData
from pinn_inference.market.distribution import (
    Estimate,
    GreekBounds,
    Likelihood,
    Outlooks,
    Questions,
    Valuations,
    likelihood_above,
    quantiles,
    valuations,
)
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, Quotes

PROBABILITIES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles; the range between the outer two is the expected range."""
NOTICE: Final = (
    "Probabilities and quantiles are risk-neutral: they are what option prices imply when every asset is expected to "
    "earn the risk-free rate, not a prediction of what will happen, and no advice."
)
_RANGE: Final = 0.9
_POINTS: Final = len(PROBABILITIES)
_GREEKS: Final = tuple(field.name for field in fields(GreekBounds))
_METHODS: Final = {int(method): method.label for method in Method}
TWO_BOUNDARIES_REASON: Final = "two_exercise_boundaries"
"""Why an American option is left out, see `american_domain`."""
_REASONS: Final = {int(reason): reason.label for reason in FallbackReason}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a report is about: rows of `outlooks` are the instruments, each with every horizon."""

    instruments: tuple[Instrument, ...]
    horizons: tuple[Horizon, ...]
    strikes: tuple[float, ...]
    outlooks: Outlooks

    @classmethod
    def of(cls, data: MarketData, symbols: Sequence[str]) -> Scope:
        """The scope for some symbols of the data. Raises KeyError for a symbol that it does not have."""
        instruments = tuple(data.instruments[symbol] for symbol in symbols)
        count = len(data.horizons)

        def column(name: str) -> FloatArray:
            return np.repeat(np.array([getattr(instrument, name) for instrument in instruments]), count)

        outlooks = Outlooks(
            spot=column("spot"),
            rate=column("rate"),
            dividend=column("dividend"),
            volatility=column("volatility"),
            years=np.tile(np.array([horizon.years for horizon in data.horizons]), len(instruments)),
        )
        return cls(instruments=instruments, horizons=data.horizons, strikes=data.strikes, outlooks=outlooks)

    @property
    def ladder(self) -> tuple[Outlooks, FloatArray]:
        """Every outlook with every strike, and the strikes in currency."""
        outlooks = self.outlooks.repeat(len(self.strikes))
        return outlooks, outlooks.spot * np.tile(np.array(self.strikes), len(self.outlooks))


@dataclass(frozen=True, slots=True)
class Forecast:
    """The distribution at every outlook: `gain` = P(S_T > spot), `quantiles` in the order of PROBABILITIES, and
    `above` = P(S_T > strike) for each strike."""

    scope: Scope
    gain: Likelihood
    quantiles: Estimate
    above: Estimate


@dataclass(frozen=True, slots=True)
class InvestorReport:
    """A forecast and the options of its ladder, one row of `valuations` for each outlook and strike."""

    forecast: Forecast
    valuations: Valuations


def forecast(scope: Scope) -> Questions[Forecast]:
    """The forecast for a scope; see `distribution` for what is asked and how far off the answers may be."""
    ladder = yield from likelihood_above(*scope.ladder)
    gain, points = yield from _distribution(scope)
    return Forecast(scope=scope, gain=gain, quantiles=points, above=ladder.above)


def investor_report(scope: Scope, *, american: bool) -> Questions[InvestorReport]:
    """The report for a scope; `american` adds the values with early exercise."""
    outlooks, strike = scope.ladder
    values = yield from valuations(outlooks, strike, american=american)
    gain, points = yield from _distribution(scope)
    told = Forecast(scope=scope, gain=gain, quantiles=points, above=values.above)
    return InvestorReport(forecast=told, valuations=values)


def _distribution(scope: Scope) -> Questions[tuple[Likelihood, Estimate]]:
    gain = yield from likelihood_above(scope.outlooks, scope.outlooks.spot)
    outlooks = scope.outlooks.repeat(len(PROBABILITIES))
    points = yield from quantiles(outlooks, np.tile(np.array(PROBABILITIES), len(scope.outlooks)))
    return gain, points


def forecast_document(told: Forecast, index: int) -> dict[str, Any]:
    """The JSON document of the instrument at `index`; docs/market-data.md explains its fields."""
    scope = told.scope
    horizons = []
    for row, document in _horizon_documents(told, index):
        rows = _span(row, len(scope.strikes))
        document["probabilities"] = [
            {
                "price": price,
                "price_over_spot": multiple,
                "above": above,
                "below": 1.0 - above,
                "error_bound": bound,
            }
            for price, multiple, above, bound in zip(
                (scope.outlooks.spot[row] * np.array(scope.strikes)).tolist(),
                scope.strikes,
                told.above.value[rows].tolist(),
                told.above.error_bound[rows].tolist(),
                strict=True,
            )
        ]
        horizons.append(document)
    return {**_instrument_document(scope.instruments[index]), "horizons": horizons}


def report_document(report: InvestorReport, index: int) -> dict[str, Any]:
    """The JSON document of the instrument at `index`; docs/market-data.md explains its fields."""
    told, values = report.forecast, report.valuations
    scope = told.scope
    horizons = []
    for row, document in _horizon_documents(told, index):
        rows = _span(row, len(scope.strikes))
        calls = _leg_documents(values.call, values.call_bounds, values.american_call, rows)
        puts = _leg_documents(values.put, values.put_bounds, values.american_put, rows)
        document["options"] = [
            {
                "strike": strike,
                "strike_over_spot": multiple,
                "probability_above": above,
                "probability_below": 1.0 - above,
                "probability_error_bound": bound,
                "call": call,
                "put": put,
            }
            for strike, multiple, above, bound, call, put in zip(
                values.strike[rows].tolist(),
                scope.strikes,
                told.above.value[rows].tolist(),
                told.above.error_bound[rows].tolist(),
                calls,
                puts,
                strict=True,
            )
        ]
        horizons.append(document)
    return {**_instrument_document(scope.instruments[index]), "horizons": horizons}


def _span(row: int, count: int) -> slice:
    return slice(row * count, (row + 1) * count)


def _instrument_document(instrument: Instrument) -> dict[str, Any]:
    return {field.name: getattr(instrument, field.name) for field in fields(instrument)}


def _horizon_documents(told: Forecast, index: int) -> list[tuple[int, dict[str, Any]]]:
    """For each horizon of one instrument: its row among the outlooks, and what forecast and report say alike."""
    scope, count = told.scope, len(told.scope.horizons)
    first = index * count
    outlooks = scope.outlooks.take(np.arange(first, first + count))
    spot = scope.instruments[index].spot
    columns = zip(
        scope.horizons,
        outlooks.forward.tolist(),
        outlooks.discount.tolist(),
        told.gain.above.value[first : first + count].tolist(),
        told.gain.above.error_bound[first : first + count].tolist(),
        told.quantiles.value[first * _POINTS : (first + count) * _POINTS].reshape(count, _POINTS).tolist(),
        told.quantiles.error_bound[first * _POINTS : (first + count) * _POINTS].reshape(count, _POINTS).tolist(),
        told.gain.calls.method[first : first + count].tolist(),
        told.gain.calls.reason[first : first + count].tolist(),
        strict=True,
    )
    documents = []
    for row, (horizon, forward, discount, gain, bound, prices, widths, method, reason) in enumerate(columns, first):
        document: dict[str, Any] = {
            "horizon": horizon.label,
            "years": horizon.years,
            "forward": forward,
            "discount_factor": discount,
            "probability_of_gain": gain,
            "probability_of_loss": 1.0 - gain,
            "probability_error_bound": bound,
            "expected_range": {
                "probability": _RANGE,
                "low": prices[0],
                "high": prices[-1],
            },
            "quantiles": [
                {
                    "probability": probability,
                    "price": price,
                    "return": price / spot - 1.0,
                    "error_bound": width if isfinite(width) else None,
                }
                for probability, price, width in zip(PROBABILITIES, prices, widths, strict=True)
            ],
            **_origin(method, reason),
        }
        documents.append((row, document))
    return documents


def _leg_documents(quotes: Quotes, bounds: GreekBounds, american: Quotes | None, rows: slice) -> list[dict[str, Any]]:
    """The options of some rows: price and Greeks, the bounds of each, and the American option beside it."""
    # + 0.0 makes 0.0 of −0.0, here and below.
    columns = zip(*((getattr(quotes, name)[rows] + 0.0).tolist() for name in _GREEKS), strict=True)
    widths = zip(*(getattr(bounds, name)[rows].tolist() for name in _GREEKS), strict=True)
    origins = zip(quotes.method[rows].tolist(), quotes.reason[rows].tolist(), strict=True)
    legs: list[dict[str, Any]] = [
        {
            **dict(zip(_GREEKS, values, strict=True)),
            "error_bounds": dict(zip(_GREEKS, errors, strict=True)),
            **_origin(*origin),
        }
        for values, errors, origin in zip(columns, widths, origins, strict=True)
    ]
    if american is not None:
        for leg, document in zip(legs, _american_documents(american, rows), strict=True):
            if isfinite(document["price"]):
                # Both prices have errors: one that is below the other by less has no premium.
                leg["american"] = {**document, "early_exercise_premium": max(0.0, document["price"] - leg["price"])}
            else:
                leg["american_reason"] = TWO_BOUNDARIES_REASON
    return legs


def _american_documents(quotes: Quotes, rows: slice) -> list[dict[str, Any]]:
    names = (*_GREEKS, "error_bound")
    columns = zip(*((getattr(quotes, name)[rows] + 0.0).tolist() for name in names), strict=True)
    boundaries = quotes.exercise_boundary[rows].tolist()
    origins = zip(quotes.method[rows].tolist(), quotes.reason[rows].tolist(), strict=True)
    return [
        {
            **dict(zip(names, values, strict=True)),
            "exercise_boundary": boundary if isfinite(boundary) and boundary > 0.0 else None,
            **_origin(*origin),
        }
        for values, boundary, origin in zip(columns, boundaries, origins, strict=True)
    ]


def _origin(method: int, reason: int) -> dict[str, str]:
    """Which formula it was, and why not the network, where it was not."""
    origin = {"method": _METHODS[method]}
    if reason != FallbackReason.NONE:
        origin["reason"] = _REASONS[reason]
    return origin
