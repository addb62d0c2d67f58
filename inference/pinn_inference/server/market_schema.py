"""What the market pages take and answer, as OpenAPI 3.1: paths, and the schemas of their answers.

Errors refer to the schema `ErrorBody` of the document they are put into.
"""

from __future__ import annotations

from typing import Any, Final

from pinn_inference.market.data import SYMBOL_PATTERN
from pinn_inference.market.report import PROBABILITIES, TWO_BOUNDARIES_REASON
from pinn_inference.pricing.types import FallbackReason, Method

MAX_REPORT_SYMBOLS: Final = 50
USER_PATTERN: Final = r"[A-Za-z0-9._:@-]{1,64}"

_Json = dict[str, Any]


def _object(required: _Json, optional: _Json | None = None, *, description: str = "") -> _Json:
    return {
        "type": "object",
        **({"description": description} if description else {}),
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _number(description: str, **more: Any) -> _Json:
    return {"type": "number", "description": description, **more}


def _text(description: str, **more: Any) -> _Json:
    return {"type": "string", "description": description, **more}


def _list(items: _Json, description: str, **more: Any) -> _Json:
    return {"type": "array", "items": items, "description": description, **more}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _probability(description: str) -> _Json:
    return _number(description, minimum=0, maximum=1)


def _bound(description: str) -> _Json:
    return _number(description, minimum=0)


_METHOD: Final = _text("Which formula priced it.", enum=[method.label for method in Method])
_REASON: Final = _text(
    "Why it was not the network; absent where it was.",
    enum=[reason.label for reason in FallbackReason if reason != FallbackReason.NONE],
)
_GREEKS: Final = {
    "price": _number("In currency, for one share."),
    "delta": _number("Per 1.00 of spot."),
    "gamma": _number("Per 1.00 of spot, squared."),
    "vega": _number("Per 1.00 of volatility: divide by 100 for a percentage point."),
    "theta": _number("Per year of calendar time: divide by 365 for a day."),
    "rho": _number("Per 1.00 of rate: divide by 100 for a percentage point."),
}
_HORIZON: Final = {
    "horizon": _text("Label of the horizon.", pattern=r"^[1-9]\d{0,3}[dwmy]$"),
    "years": _number("The horizon in years: a week is 7/365, a month 1/12.", exclusiveMinimum=0),
    "forward": _number("Risk-neutral mean of the price, in currency.", exclusiveMinimum=0),
    "discount_factor": _number("Today's value of 1.00 at the horizon.", exclusiveMinimum=0),
    "probability_of_gain": _probability("Risk-neutral probability that the price ends above today's spot."),
    "probability_of_loss": _probability("The other side of it, 1 − probability_of_gain."),
    "probability_error_bound": _bound("Bound of the error of both, from the model's certificate."),
    "expected_range": _object(
        {
            "probability": _probability("Risk-neutral probability that the price ends in the range."),
            "low": _number("In currency.", exclusiveMinimum=0),
            "high": _number("In currency.", exclusiveMinimum=0),
        },
        description="The range between the outer quantiles.",
    ),
    "quantiles": _list(_ref("PriceQuantile"), "In ascending order.", minItems=len(PROBABILITIES)),
    "method": _METHOD,
}

_INSTRUMENT: Final = {
    "symbol": _text("As asked for.", pattern=f"^{SYMBOL_PATTERN}$"),
    "name": _text("From the market data.", minLength=1),
    "currency": _text("Of every amount of this symbol.", pattern="^[A-Z]{3}$"),
    "spot": _number("Price of one share, in currency.", exclusiveMinimum=0),
    "volatility": _number("Decimal per year.", exclusiveMinimum=0),
    "rate": _number("Decimal per year, continuously compounded."),
    "dividend": _number("Decimal per year, continuously compounded."),
}

_HEAD: Final = {
    "as_of": _text("Moment of the market data.", format="date-time"),
    "sample_data": {"type": "boolean", "description": "True: the numbers are invented and not the market's."},
    "market_data": _object(
        {
            "source": _text("Name of the file."),
            "sha256": _text("Its checksum.", pattern="^[0-9a-f]{64}$"),
            "stale": {"type": "boolean", "description": "True: there is a newer file, and it cannot be used."},
            "message": {"type": ["string", "null"], "description": "What is wrong with the newer file."},
        },
        description="Where the numbers come from.",
    ),
    "model": {"type": ["string", "null"], "description": "name/version of the model behind `pinn`; null without."},
    "user_id": {"type": ["string", "null"], "description": "As given."},
    "notice": _text("What risk-neutral means."),
}

OPENAPI_SCHEMAS: Final[_Json] = {
    "InvestorReport": _object(
        {**_HEAD, "reports": _list(_ref("SymbolReport"), "One for each symbol, in the order asked for.", minItems=1)}
    ),
    "Forecast": _object(
        {
            **_HEAD,
            "forecasts": _list(_ref("SymbolForecast"), "One for each symbol, in the order asked for.", minItems=1),
        }
    ),
    "SymbolReport": _object(
        {**_INSTRUMENT, "horizons": _list(_ref("ReportHorizon"), "In ascending order.", minItems=1)}
    ),
    "SymbolForecast": _object(
        {**_INSTRUMENT, "horizons": _list(_ref("ForecastHorizon"), "In ascending order.", minItems=1)}
    ),
    "ReportHorizon": _object(
        {**_HORIZON, "options": _list(_ref("OptionPair"), "By ascending strike.", minItems=1)}, {"reason": _REASON}
    ),
    "ForecastHorizon": _object(
        {**_HORIZON, "probabilities": _list(_ref("PriceProbability"), "By ascending price.", minItems=1)},
        {"reason": _REASON},
    ),
    "PriceQuantile": _object(
        {
            "probability": _probability("Risk-neutral probability that the price ends at or below `price`."),
            "price": _number("In currency.", exclusiveMinimum=0),
            "return": _number("price / spot − 1.", exclusiveMinimum=-1),
            "error_bound": {
                "type": ["number", "null"],
                "minimum": 0,
                "description": "Bound of the error of `price`, in currency; null where none could be proved.",
            },
        }
    ),
    "PriceProbability": _object(
        {
            "price": _number("In currency.", exclusiveMinimum=0),
            "price_over_spot": _number("price / spot.", exclusiveMinimum=0),
            "above": _probability("Risk-neutral probability that the price ends above `price`."),
            "below": _probability("1 − above."),
            "error_bound": _bound("Bound of the error of both."),
        }
    ),
    "OptionPair": _object(
        {
            "strike": _number("In currency.", exclusiveMinimum=0),
            "strike_over_spot": _number("strike / spot.", exclusiveMinimum=0),
            "probability_above": _probability("Risk-neutral probability that the price ends above the strike."),
            "probability_below": _probability("1 − probability_above."),
            "probability_error_bound": _bound("Bound of the error of both."),
            "call": _ref("ReportOption"),
            "put": _ref("ReportOption"),
        },
        description="The call and the put with one strike that expire at the horizon.",
    ),
    "ReportOption": _object(
        {
            **_GREEKS,
            "error_bounds": _object(
                {name: _bound(schema["description"]) for name, schema in _GREEKS.items()},
                description="Bound of the error of each number, from the model's certificate.",
            ),
            "method": _METHOD,
        },
        {
            "reason": _REASON,
            "american": _ref("ReportAmerican"),
            "american_reason": {
                "type": "string",
                "enum": [TWO_BOUNDARIES_REASON],
                "description": "Why there is no `american`: rate and dividend are negative and the option would be "
                "exercised inside a band of spots.",
            },
        },
        description="European option on one share; `american` where the server's model prices that too.",
    ),
    "ReportAmerican": _object(
        {
            **_GREEKS,
            "error_bound": _bound("Bound of the error of `price`, in currency."),
            "early_exercise_premium": _number("price − European price, in currency; never negative.", minimum=0),
            "exercise_boundary": {
                "type": ["number", "null"],
                "description": "Spot at which to exercise today, in currency; null where that is never right.",
            },
            "method": _METHOD,
        },
        {"reason": _REASON},
        description="The same option with early exercise.",
    ),
}

_PARAMETERS: Final = [
    {
        "name": "symbols",
        "in": "query",
        "required": True,
        "style": "form",
        "explode": False,
        "schema": {
            "type": "array",
            "items": {"type": "string", "pattern": f"^{SYMBOL_PATTERN}$"},
            "minItems": 1,
            "maxItems": MAX_REPORT_SYMBOLS,
            "uniqueItems": True,
        },
        "description": "Symbols of the market data file, separated by commas, in capital letters, each once.",
        "example": ["SPY", "QQQ"],
    },
    {
        "name": "user_id",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "pattern": f"^{USER_PATTERN}$"},
        "description": "A mark of the caller's own, echoed; neither stored nor logged.",
    },
]


def _responses(schema: str, description: str) -> _Json:
    def answer(text: str, name: str, **more: Any) -> _Json:
        return {"description": text, "content": {"application/json": {"schema": _ref(name)}}, **more}

    retry = {
        "Retry-After": {
            "description": "Seconds to wait.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    }
    return {
        "200": answer(description, schema),
        "400": answer("A parameter is wrong; `faults` has them all.", "ErrorBody"),
        "404": answer("Some symbols have no market data; `faults` names them all.", "ErrorBody"),
        "429": answer("Too much waits to be priced.", "ErrorBody", headers=retry),
        "500": answer("A result was no finite number, or the server has a fault.", "ErrorBody"),
        "503": answer("There is no market data, or pricing took too long.", "ErrorBody", headers=retry),
    }


OPENAPI_PATHS: Final[_Json] = {
    "/api/investor-report": {
        "get": {
            "operationId": "investorReport",
            "tags": ["Reports"],
            "summary": "Option values, Greeks, probabilities and quantiles",
            "description": "For each symbol and horizon a ladder of options with Greeks, the risk-neutral "
            "probabilities of gain and loss, and quantiles of the price; every number with a bound of its error.",
            "parameters": _PARAMETERS,
            "responses": _responses("InvestorReport", "The report."),
        }
    },
    "/api/forecast/all": {
        "get": {
            "operationId": "forecastAll",
            "tags": ["Reports"],
            "summary": "Quantiles and probabilities at every horizon",
            "description": "The risk-neutral distribution of each symbol's price at every horizon.",
            "parameters": _PARAMETERS,
            "responses": _responses("Forecast", "The forecast."),
        }
    },
}
