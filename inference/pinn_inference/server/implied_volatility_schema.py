"""What `POST /v1/implied-volatility` takes and answers, as OpenAPI 3.1.

Its options are those of `/v1/price` as the document describes them, with `price` in the place of `volatility`.
"""

from __future__ import annotations

from typing import Any, Final

from pinn_inference.pricing.types import Method
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.implied_volatility import PATH, REASONS
from pinn_inference.server.openapi import openapi_document

_Json = dict[str, Any]
_JSON: Final = "application/json"
_PRICE: Final = {"type": "number", "description": "Of the option, in the currency of spot and strike."}


def implied_contract(config: ServerConfig) -> tuple[_Json, _Json]:
    """Paths and schemas, for `OpenApiPages`, of a server with these settings."""
    document = openapi_document(config)
    return _paths(config, document["paths"]["/v1/price"]["post"]), _schemas(config, document["components"]["schemas"])


def _paths(config: ServerConfig, pricing: _Json) -> _Json:
    option = {name: value for name, value in _example(pricing).items() if name != "volatility"} | {"price": 3.5}
    many = {"options": [option, {**option, "price": 300}]}
    columns = {"columns": {**option, "strike": [90, 95, 100], "price": [1.9, 3.5, 5.9]}}
    answer = {
        "implied_volatility": 0.2205849141822628,
        "error_bound": 6.128331328773748e-15,
        "vega": 25.122407412615434,
        "method": "closed_form",
    }
    operation = {
        "operationId": "imply",
        "tags": ["Pricing"],
        "summary": "Volatilities from prices",
        "description": f"One option, a list of at most {config.max_batch}, or columns, as for `/v1/price`, each with "
        "its `price` instead of a `volatility`. A price that no volatility gives, or that many give, is answered in "
        "its row, with a `reason`, and fails no other; what is a fault for `/v1/price` is one here.",
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {
                    "schema": _ref("ImpliedRequest"),
                    "examples": {
                        "one": {"summary": "One option", "value": option},
                        "list": {"summary": "A list, with a price that is too high", "value": many},
                        "columns": {"summary": "Columns: one expiry at three strikes", "value": columns},
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "The volatilities, in the form and the order in which the options came.",
                "headers": pricing["responses"]["200"]["headers"],
                "content": {_JSON: {"schema": _ref("ImpliedAnswer"), "example": answer}},
            },
            **{status: shared for status, shared in pricing["responses"].items() if "$ref" in shared},
        },
    }
    return {PATH: {"post": operation}}


def _example(pricing: _Json) -> _Json:
    option: _Json = pricing["requestBody"]["content"][_JSON]["examples"]["one"]["value"]
    return option


def _schemas(config: ServerConfig, priced: _Json) -> _Json:
    many = {"minItems": 1, "maxItems": config.max_batch}
    columns = priced["OptionColumns"]["properties"]["columns"]
    price_column = {"anyOf": [_PRICE, {"type": "array", "items": _PRICE, "minItems": 1}]}
    nothing = "null where there is none."
    results = {
        "implied_volatility": _maybe(f"Decimal per year; {nothing}", minimum=0),
        "error_bound": _maybe(
            "Bounds its distance from the exact one, for the very numbers of the request.", minimum=0
        ),
        "vega": _maybe(f"Of the price, per 1.00 of volatility, at the volatility found; {nothing}", minimum=0),
        "method": {
            "type": "string",
            "enum": [method.label for method in Method],
            "description": "Which formula was inverted.",
        },
    }
    why = {
        "reason": {"type": "string", "enum": list(REASONS), "description": "Why there is none; else absent."},
        "price_range": _pair(
            "What such an option is worth without volatility, and at most; only beside a reason.",
            {"type": "number"},
            {"type": "number"},
        ),
        "volatility_range": _pair(
            "Between which volatilities NotIdentifiable or OutOfRange leaves it open; null: there is no highest.",
            {"type": "number", "minimum": 0},
            {"type": ["number", "null"]},
        ),
        "maturity": priced["Quote"]["properties"]["maturity"],
    }
    in_columns = {name: _list(schema) for name, schema in results.items()} | {
        name: _list(_or_null(schema)) for name, schema in why.items()
    }
    return {
        "PricedOption": _exchanged(priced["Option"], _PRICE),
        "PricedOptions": {**priced["Options"], "properties": {"options": _list(_ref("PricedOption"), **many)}},
        "PricedOptionColumns": {
            **priced["OptionColumns"],
            "properties": {"columns": _exchanged(columns, price_column)},
        },
        "ImpliedRequest": {"oneOf": [_ref("PricedOption"), _ref("PricedOptions"), _ref("PricedOptionColumns")]},
        "ImpliedVolatility": _object({**results, **why}, required=list(results)),
        "ImpliedVolatilities": _object({"results": _list(_ref("ImpliedVolatility"), **many)}, required=["results"]),
        "ImpliedVolatilityColumns": _object(
            {"columns": _object(in_columns, required=list(results))}, required=["columns"]
        ),
        "ImpliedAnswer": {
            "oneOf": [_ref("ImpliedVolatility"), _ref("ImpliedVolatilities"), _ref("ImpliedVolatilityColumns")]
        },
    }


def _exchanged(option: _Json, price: _Json) -> _Json:
    """The schema of an option, or of columns, with a price where it has a volatility."""

    def renamed(name: str) -> str:
        return "price" if name == "volatility" else name

    properties = {renamed(name): schema for name, schema in option["properties"].items()}
    return {
        **option,
        "properties": {**properties, "price": price},
        "required": [renamed(name) for name in option["required"]],
    }


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: _Json, *, required: list[str]) -> _Json:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(items: _Json, **more: Any) -> _Json:
    return {"type": "array", "items": items, **more}


def _maybe(description: str, **more: Any) -> _Json:
    return {"type": ["number", "null"], "description": description, **more}


def _pair(description: str, first: _Json, second: _Json) -> _Json:
    return {
        "type": "array",
        "prefixItems": [first, second],
        "items": False,
        "minItems": 2,
        "maxItems": 2,
        "description": description,
    }


def _or_null(schema: _Json) -> _Json:
    words = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **words}
