"""What `POST /v1/scenarios` takes and answers, as OpenAPI 3.1: the options of `/v1/price`, each with a `quantity`."""

from __future__ import annotations

from typing import Any, Final

from pinn_inference.pricing.ladders import AXES
from pinn_inference.pricing.types import FallbackReason, Method
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.openapi import openapi_document
from pinn_inference.server.scenarios import LARGEST_QUANTITY, MAX_SHIFTS, PATH, TOTALS

_Json = dict[str, Any]
_JSON: Final = "application/json"
_NUMBER: Final = {"type": "number"}
_SHIFTS: Final = {
    "spot": ("Factors of the spot: 1.1 is 10 % more.", {"type": "number", "exclusiveMinimum": 0}),
    "volatility": ("Added to the volatility: 0.01 is one point.", _NUMBER),
    "rate": ("Added to the rate: 0.0001 is one basis point.", _NUMBER),
    "time": (
        "Years that pass; an option that has expired by then is worth its payoff.",
        {"type": "number", "minimum": 0},
    ),
}


def scenarios_contract(config: ServerConfig) -> tuple[_Json, _Json]:
    """Paths and schemas, for `OpenApiPages`, of a server with these settings."""
    document = openapi_document(config)
    return _paths(config, document["paths"]["/v1/price"]["post"]), _schemas(config, document["components"]["schemas"])


def _paths(config: ServerConfig, pricing: _Json) -> _Json:
    option = pricing["requestBody"]["content"][_JSON]["examples"]["one"]["value"]
    one = {**option, "quantity": -10, "ladders": {"spot": [0.9, 1.1], "volatility": [0, 0.05]}}
    many = {
        "options": [{**option, "quantity": 10}, {**option, "strike": 100, "quantity": -5}],
        "ladders": {"spot": [0.8, 0.9, 1, 1.1, 1.2], "rate": [-0.01, 0, 0.01], "time": [0, 0.25]},
        "per_option": True,
    }
    operation = {
        "operationId": "scenarios",
        "tags": ["Pricing"],
        "summary": "A portfolio at every point of a grid",
        "description": "Options as for `/v1/price`, in the same three forms, each with its `quantity`, and `ladders` "
        "of shifts. The answer is what all positions are worth together at each combination, with their Greeks. "
        f"Options times points are at most {config.max_batch}.",
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {
                    "schema": _ref("ScenarioRequest"),
                    "examples": {
                        "one": {"summary": "Ten sold options by spot and volatility", "value": one},
                        "list": {
                            "summary": "Two positions by spot, rate and time, with each one's prices",
                            "value": many,
                        },
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "Totals at each point.",
                "headers": pricing["responses"]["200"]["headers"],
                "content": {_JSON: {"schema": _ref("ScenarioAnswer")}},
            },
            **{status: shared for status, shared in pricing["responses"].items() if "$ref" in shared},
        },
    }
    return {PATH: {"post": operation}}


def _schemas(config: ServerConfig, priced: _Json) -> _Json:
    many = {"minItems": 1, "maxItems": config.max_batch}
    quantity = {
        "type": "number",
        "minimum": -LARGEST_QUANTITY,
        "maximum": LARGEST_QUANTITY,
        "default": 1,
        "description": "How many are held; negative where they are sold.",
    }
    ladders = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            name: {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_SHIFTS, "description": told}
            for name, (told, item) in _SHIFTS.items()
        },
        "description": "What is shifted, each independently of the others. An absent one is not.",
    }
    more = {
        "ladders": _ref("Ladders"),
        "per_option": {
            "type": "boolean",
            "default": False,
            "description": "Whether to answer the price of every option at every point too.",
        },
    }
    position = _with(priced["Option"], {"quantity": quantity})
    columns = _with(
        priced["OptionColumns"]["properties"]["columns"],
        {"quantity": {"anyOf": [quantity, {"type": "array", "items": quantity, "minItems": 1}]}},
    )
    grid = _nested(_NUMBER, len(AXES))
    totals = {name: {**grid, "description": f"Σ quantity × {source}."} for name, source in TOTALS.items()}
    totals["error_bound"] = {**grid, "description": "Bounds the distance of `value` from the exact one."}
    return {
        "Ladders": ladders,
        "Position": position,
        "PositionScenarios": _with(position, more, required=["ladders"]),
        "PositionListScenarios": _with(
            {**priced["Options"], "properties": {"options": {"type": "array", "items": _ref("Position"), **many}}},
            more,
            required=["ladders"],
        ),
        "PositionColumnScenarios": _with(
            {**priced["OptionColumns"], "properties": {"columns": columns}}, more, required=["ladders"]
        ),
        "ScenarioRequest": {
            "oneOf": [_ref("PositionScenarios"), _ref("PositionListScenarios"), _ref("PositionColumnScenarios")]
        },
        "ScenarioAnswer": {
            "type": "object",
            "additionalProperties": False,
            "required": ["axes", "ladders", "models", "methods", "reasons", "totals"],
            "properties": {
                "axes": {
                    "type": "array",
                    "items": {"enum": list(AXES)},
                    "description": "How the lists of a grid are nested, the outermost first.",
                },
                "ladders": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": list(AXES),
                    "properties": {name: {"type": "array", "items": _NUMBER, "minItems": 1} for name in AXES},
                },
                "models": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["european", "american"],
                    "properties": {style: {"type": ["string", "null"]} for style in ("european", "american")},
                    "description": "The models behind the options of method `pinn`; null where there is none.",
                },
                "methods": _counts([method.label for method in Method], "Options of the grid by method."),
                "reasons": _counts(
                    [reason.label for reason in FallbackReason if reason],
                    "Options that the network should have priced and did not, by the reason.",
                ),
                "totals": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": list(totals),
                    "properties": totals,
                },
                "prices": {
                    "type": "array",
                    "items": grid,
                    "description": "Only with `per_option`: of each option, in the order in which they came.",
                },
            },
        },
    }


def _with(schema: _Json, more: _Json, *, required: list[str] | None = None) -> _Json:
    return {
        **schema,
        "properties": {**schema["properties"], **more},
        "required": [*schema.get("required", ()), *(required or ())],
    }


def _counts(names: list[str], description: str) -> _Json:
    properties = {name: {"type": "integer", "minimum": 1} for name in names}
    return {"type": "object", "properties": properties, "additionalProperties": False, "description": description}


def _nested(item: _Json, levels: int) -> _Json:
    return item if not levels else {"type": "array", "items": _nested(item, levels - 1), "minItems": 1}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}
