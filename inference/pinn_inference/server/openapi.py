"""The contract as an OpenAPI 3.1 document at /openapi.json, and as a page for people at /docs.

Ranges, names and limits come from the tables that the parsers and the settings use, so they cannot differ from what the
server does; the rest is held to it by tests, which send what the document says and compare what comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from typing import Any, Final

import orjson
from aiohttp import web

from pinn_inference.pricing import first_order, second_order
from pinn_inference.pricing.types import FallbackReason, Method
from pinn_inference.server.bodies import BODY_SECONDS
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.dates import PATTERN
from pinn_inference.server.dividends import DIVIDENDS, LARGEST_AMOUNT, LATEST, MAX_DIVIDENDS
from pinn_inference.server.errors import MAX_FAULTS
from pinn_inference.server.inflate import RATIO
from pinn_inference.server.more_greeks import NAMES as GREEK_NAMES
from pinn_inference.server.oip import EXTENSIONS, PLATFORM
from pinn_inference.server.oip_codec import (
    AMERICAN_OUTPUTS,
    HEADER_LENGTH,
    INPUTS,
    MODELS,
    NUMBER_TYPES,
    OPTION_TYPE_TYPES,
)
from pinn_inference.server.oip_statistics import KINDS
from pinn_inference.server.openapi_page import render_page
from pinn_inference.server.parsing import FIELDS, OPTION_TYPES, STYLES, NumberField

Json = dict[str, Any]

DOCUMENT_PATH: Final = "/openapi.json"
PAGE_PATH: Final = "/docs"
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_METHODS: Final = [method.label for method in Method]
_REASONS: Final = [reason.label for reason in FallbackReason if reason != FallbackReason.NONE]


class OpenApiPages:
    """The handlers of the document and of its page; both are made once. `more` adds paths and schemas to it."""

    def __init__(self, config: ServerConfig, *, more: Sequence[tuple[Json, Json]] = ()) -> None:
        document = openapi_document(config, more=more)
        self.text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        self._page = render_page(document).encode()

    def routes(self) -> list[web.RouteDef]:
        return [web.get(DOCUMENT_PATH, self.document), web.get(PAGE_PATH, self.page)]

    async def document(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.Response(body=self.text, content_type=_JSON)

    async def page(self, request: web.Request) -> web.Response:  # noqa: ARG002
        # The page needs nothing from anywhere, and the browser is told so.
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        headers = {"Content-Security-Policy": policy, "Content-Type": "text/html; charset=utf-8"}
        return web.Response(body=self._page, headers=headers)


def openapi_document(config: ServerConfig, *, more: Sequence[tuple[Json, Json]] = ()) -> Json:
    """The document of a server with these settings. `more` holds (paths, schemas) of other parts of the server."""
    paths, schemas = _paths(config), _schemas(config)
    for other_paths, other_schemas in more:
        paths |= deepcopy(other_paths)
        schemas |= other_schemas
    for operations in paths.values():
        for method, operation in operations.items():
            if method in ("get", "post"):
                _complete(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PINN option pricing",
            "version": version("pinn-operator"),
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            "description": _DESCRIPTION.format(bytes=config.max_body_bytes, ratio=RATIO, seconds=BODY_SECONDS),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": schemas, "headers": _HEADERS, "responses": _responses()},
    }


_DESCRIPTION: Final = """\
Prices European and American options with all Greeks, by a physics-informed neural network; what it cannot price, a \
formula does, and the answer says so in `method`.

Times are in years, rates and volatilities decimals per year, continuously compounded (0.03 is 3 %). `vega` and `rho` \
are per 1.00, `theta` is per year of calendar time.

A body may have {bytes} bytes, counted after decompression, may be compressed (`Content-Encoding: gzip` or `deflate`; \
beyond a megabyte it may inflate to {ratio} times its size), and has to arrive within {seconds:g} seconds. Its \
`Content-Type` is not looked at. Every GET may be a HEAD. Every \
answer has the headers `X-Request-ID` and `Server`, and `X-PINN-Revision` where the server was given a revision. A \
request may bring an `X-Request-ID` of 1 to 128 of the characters `A-Z a-z 0-9 . _ : @ / + = -`: it comes back and \
stands in the log. Every error has a JSON body. While a server shuts down its answers say `Connection: close`."""

_TAGS: Final[Mapping[str, str]] = {
    "Pricing": "For applications: JSON in, JSON out.",
    "Open Inference Protocol": "Version 2 over REST, with binary tensors, for clients of any inference server.",
    "Reports": "Option values and forecasts by symbol, from a file of market data.",
    "Health": "For probes, load balancers and people.",
    "Operations": "Cache and metrics.",
    "Documentation": "This contract.",
}


# --- pieces -----------------------------------------------------------------------------------------------------------


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(properties: Json, *, optional: Sequence[str] = (), is_open: bool = False, **more: Any) -> Json:
    required = [name for name in properties if name not in optional]
    closed = {} if is_open else {"additionalProperties": False}
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        **closed,
        **more,
    }


def _string(description: str = "", **more: Any) -> Json:
    return {"type": "string", **({"description": description} if description else {}), **more}


def _number(description: str = "", **more: Any) -> Json:
    return {"type": "number", **({"description": description} if description else {}), **more}


def _list(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def _operation(
    identity: str,
    tag: str,
    summary: str,
    answer: Json,
    *,
    description: str = "",
    errors: Mapping[int, str] | None = None,
    **more: Any,
) -> Json:
    """An operation with its answer to success and the shared answers to failures, by status."""
    responses: Json = {"200": answer}
    for status, name in (errors or {}).items():
        responses[str(status)] = _ref(name, "responses")
    text = {"description": description} if description else {}
    return {"operationId": identity, "tags": [tag], "summary": summary, **text, **more, "responses": responses}


def _answer(schema: Json, description: str, *, example: Any = None, headers: Sequence[str] = ()) -> Json:
    media: Json = {"schema": schema} if example is None else {"schema": schema, "example": example}
    named = {"headers": {name: _ref(name, "headers") for name in headers}} if headers else {}
    return {"description": description, **named, "content": {_JSON: media}}


def _complete(operation: Json) -> None:
    """What every operation has: a request id that may come with it, headers of every answer, an answer to the rest."""
    operation["parameters"] = [*operation.get("parameters", ()), _REQUEST_ID]
    operation["responses"].setdefault("default", _ref("Error", "responses"))
    for response in operation["responses"].values():
        if "$ref" not in response:
            common = {name: _ref(name, "headers") for name in ("X-Request-ID", "X-PINN-Revision")}
            response["headers"] = {**response.get("headers", {}), **common}


_REQUEST_ID: Final[Json] = {
    "name": "X-Request-ID",
    "in": "header",
    "schema": {"type": "string"},
    "description": "Comes back and stands in the log, if it is as described above; else the server makes one.",
}

_HEADERS: Final[Json] = {
    "X-Request-ID": {
        "description": "The request's id: the one that came with it, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:@/+=-]{1,128}$"},
    },
    "X-PINN-Revision": {
        "description": "The revision that answered, where the server was given one.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds of parsing, pricing and rendering.",
        "schema": {"type": "string", "examples": ["parse;dur=0.004, price;dur=0.012, render;dur=0.002"]},
    },
    "Accept-Encoding": {
        "description": "What a request may be compressed by.",
        "required": True,
        "schema": {"type": "string", "const": "gzip, deflate"},
    },
    "WWW-Authenticate": {"description": "How to show the token.", "required": True, "schema": {"const": "Bearer"}},
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}},
    HEADER_LENGTH: {
        "description": "Bytes of the JSON before the binary tensors, there if any output is binary.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


# --- errors -----------------------------------------------------------------------------------------------------------

_PRICING_ERRORS: Final = {
    400: "InvalidRequest",
    408: "BodyTimeout",
    413: "TooLarge",
    415: "UnknownCoding",
    429: "Overloaded",
    500: "Failed",
    503: "AmericanUnavailable",
}


def _responses() -> Json:
    def response(description: str, error: str, reason: str, *, headers: Sequence[str] = (), **details: Any) -> Json:
        example = {"error": error, "reason": reason, "request_id": "0f6a5c2e", **details}
        return _answer(_ref("ErrorBody"), description, example=example, headers=("X-Request-ID", *headers))

    volatility = next(field for field in FIELDS if field.name == "volatility")
    return {
        "InvalidRequest": response(
            "The request is wrong. Every fault is told, and nothing was priced.",
            f"options[0].volatility is -0.2: {volatility.expected}",
            "InvalidRequest",
            fault_count=1,
            faults=[{"field": "volatility", "message": volatility.expected, "index": 0, "value": -0.2}],
        ),
        "TokenRequired": response(
            "The server has a token for pages that change something, and the request does not.",
            "this page changes something: send Authorization: Bearer with the PINN_CONTROL_TOKEN",
            "TokenRequired",
            headers=("WWW-Authenticate",),
        ),
        "TooOften": response(
            "The server has no token for pages that change something, so they are served now and then only.",
            "this page was asked for a moment ago, and changes something: it is served now and then only",
            "TooOften",
            headers=("Retry-After",),
        ),
        "NotFound": response("No such thing here.", "GET /v1/prices: Not Found", "NotFound"),
        "UnknownModel": response(
            "No such model, or no such version of it.",
            f'model is "bermudan": must be {" or ".join(MODELS)}',
            "UnknownModel",
        ),
        "BodyTimeout": response(
            "The body did not arrive in time.",
            f"the body took more than {BODY_SECONDS:g} s: send it at once, or in smaller requests",
            "BodyTimeout",
        ),
        "TooLarge": response(
            "More bytes (`BodyTooLarge`) or more options (`BatchTooLarge`) than one request may have, or "
            "nearly nothing but repetition, compressed (`InflatesTooMuch`).",
            "options holds 70000 options: at most 65536 fit in one request, send several",
            "BatchTooLarge",
        ),
        "UnknownCoding": response(
            "A body that is compressed in another way than gzip and deflate.",
            "Content-Encoding is 'br': must be gzip, deflate or absent",
            "UnknownCoding",
            headers=("Accept-Encoding",),
        ),
        "Overloaded": response(
            "Too many requests or options are waiting.",
            "262144 options wait or are being priced: 1 more would exceed the limit of 262144, try later",
            "Overloaded",
            headers=("Retry-After",),
        ),
        "Failed": response(
            "A result was no finite number (`NonFiniteResult`), or the server has a fault (`InternalError`).",
            "options[3]: the result is not a finite number",
            "NonFiniteResult",
        ),
        "AmericanUnavailable": response(
            "American options were asked for, and the model for them cannot be used; European ones go on.",
            "American options cannot be priced at the moment: the model for them is not in use",
            "AmericanUnavailable",
            headers=("Retry-After",),
        ),
        "Error": response("Any other error.", "PUT /v1/price: Method Not Allowed", "MethodNotAllowed"),
    }


# --- schemas ----------------------------------------------------------------------------------------------------------


def _schemas(config: ServerConfig) -> Json:
    return {
        **_pricing_schemas(config.max_batch),
        **_infer_schemas(config.max_batch),
        **_health_schemas(),
        "ErrorBody": _object(
            {
                "error": _string("A sentence: what is wrong, and what would be right."),
                "reason": _string("For programs.", pattern="^[A-Z][A-Za-z]+$"),
                "request_id": _string("As in the header X-Request-ID."),
                "fault_count": {"type": "integer", "minimum": 1},
                "faults": _list(_ref("Fault"), maxItems=MAX_FAULTS, minItems=1),
            },
            optional=("fault_count", "faults"),
            is_open=True,
        ),
        "Fault": _object(
            {
                "field": _string("Which field or tensor; empty where a whole option is wrong."),
                "message": _string("What would be right."),
                "index": {"type": "integer", "minimum": 0, "description": "Which option of a list, or which row."},
                "value": {
                    "type": ["string", "number", "boolean", "null"],
                    "description": "What was found, shortened; absent where nothing was.",
                },
            },
            optional=("index", "value"),
            description=f"One thing that is wrong; at most {MAX_FAULTS} are listed.",
        ),
    }


def _field_schema(field: NumberField) -> Json:
    schema = _number(field.unit, minimum=field.low, maximum=field.high)
    return schema if field.default is None else {**schema, "default": field.default}


def _words(words: Sequence[str]) -> Json:
    return {"type": "string", "enum": list(words), "default": words[0]}


_DATES: Final[Mapping[str, str]] = {
    "expiry": "Instead of maturity: an ISO 8601 date, the end of that day in UTC, or a date-time with its zone. Years "
    "are counted ACT/365F.",
    "valuation_time": "The moment that expiry is counted from, a date or date-time alike; else the moment at which the "
    "server reads the request.",
}


def _pricing_schemas(max_batch: int) -> Json:
    fields = {field.name: _field_schema(field) for field in FIELDS}
    fields |= {"option_type": _words(OPTION_TYPES), "style": _words(STYLES)}
    fields |= {name: _string(text, pattern=PATTERN) for name, text in _DATES.items()}
    dividends = _list(_ref("Dividend"), maxItems=MAX_DIVIDENDS)
    absent = (*_DATES, "maturity", DIVIDENDS)
    fields[DIVIDENDS] = {**dividends, "description": "What the share pays until expiry, by the escrowed model."}
    optional = [name for name, schema in fields.items() if "default" in schema or name in absent]
    by_time = [{"required": ["maturity"]}, {"required": ["expiry"]}]
    columns: Json = {
        name: {"anyOf": [schema, _list({key: schema[key] for key in schema if key != "default"}, minItems=1)]}
        for name, schema in fields.items()
    }
    columns[DIVIDENDS] = {
        "anyOf": [dividends, _list(dividends, minItems=1)],
        "description": "Those of every option, or a list of them for each.",
    }
    results: Json = {
        "price": _number("In the currency of spot and strike."),
        "delta": _number("Per unit of spot."),
        "gamma": _number("Per unit of spot squared."),
        "vega": _number("Per 1.00 of volatility."),
        "theta": _number("Per year of calendar time."),
        "rho": _number("Per 1.00 of rate."),
        "method": {"type": "string", "enum": _METHODS},
        "model": {
            "type": ["string", "null"],
            "pattern": "^[^/]+/[^/]+$",
            "description": "Name and version of the network; null where another method priced.",
        },
        "error_bound": _number("Bounds the price's error, in currency.", minimum=0),
        "cached": {"type": "boolean", "description": "Whether a cache knew the answer; it is the same either way."},
        "reason": {"type": "string", "enum": _REASONS, "description": "Why the network did not price; else absent."},
        "exercise_boundary": {
            "type": ["number", "null"],
            "description": "For American options: the spot at which to exercise today, null where there is none.",
        },
    }
    results["maturity"] = _number(
        "The years that were counted from valuation_time to expiry, ACT/365F; absent where the request said them.",
        minimum=0,
    )
    results["far_exercise_boundary"] = _number(
        "Only where there are two boundaries: the one farther from the strike, beyond which the option is held again.",
        minimum=0,
    )
    sometimes = ("reason", "exercise_boundary", "far_exercise_boundary", "maturity", "greeks")
    in_columns = {
        name: _list({**schema, "type": ["string", "null"], "enum": [*_REASONS, None]} if name == "reason" else
                    {**schema, "type": ["number", "null"]} if name.endswith("exercise_boundary") else schema)
        for name, schema in results.items()
    }  # fmt: skip
    results["greeks"], in_columns["greeks"] = _ref("MoreGreeks"), _ref("MoreGreeksColumns")
    names = _list(
        {"enum": list(GREEK_NAMES)},
        minItems=1,
        uniqueItems=True,
        description="Greeks with bounds of their errors, answered for every option.",
    )
    return {
        "Option": _object(fields, optional=optional, oneOf=by_time),
        "Dividend": _object(
            {
                "amount": _number("Per share, in currency.", minimum=0, maximum=LARGEST_AMOUNT),
                "time": _number("Years until the share trades without it.", minimum=0, maximum=LATEST),
                "ex_date": _string(
                    "Instead of time: an ISO 8601 date, the beginning of that day in UTC, or a date-time with zone.",
                    minLength=1,
                ),
            },
            optional=("time", "ex_date"),
            oneOf=[{"required": ["time"]}, {"required": ["ex_date"]}],
        ),
        "Options": _object(
            {"options": _list(_ref("Option"), minItems=1, maxItems=max_batch), "greeks": names},
            optional=("greeks",),
            description="Answered in this order.",
        ),
        "OptionColumns": _object(
            {"columns": _object(columns, optional=optional, oneOf=by_time), "greeks": names},
            optional=("greeks",),
            description="Lists of one length, one value for each option; a value that is no list stands for every "
            f"option. At least one is a list, of at most {max_batch}.",
        ),
        "OptionWithGreeks": _object({**fields, "greeks": names}, optional=optional, oneOf=by_time),
        "PriceRequest": {"oneOf": [_ref("Option"), _ref("OptionWithGreeks"), _ref("Options"), _ref("OptionColumns")]},
        **_greek_schemas(),
        "Quote": _object(results, optional=sometimes),
        "Quotes": _object({"results": _list(_ref("Quote"), minItems=1, maxItems=max_batch)}),
        "QuoteColumns": _object({"columns": _object(in_columns, optional=sometimes)}),
        "PriceAnswer": {"oneOf": [_ref("Quote"), _ref("Quotes"), _ref("QuoteColumns")]},
    }


def _greek_schemas() -> Json:
    bound = "Bounds the value's error, for the very numbers of the request."
    maybe = {"type": ["number", "null"]}
    known = _object({"value": _number(), "error_bound": _number(bound, minimum=0)})
    usual = _object({"value": _number(), "error_bound": {**maybe, "minimum": 0, "description": f"{bound} Or null."}})
    many = _object({"value": _list(maybe), "error_bound": _list({**maybe, "minimum": 0})})
    description = (
        "Those that were asked for: delta, gamma, vega, theta and rho as beside the price, with bounds; vanna "
        "∂²V/∂S∂σ, volga ∂²V/∂σ², charm −∂Δ/∂T, veta −∂vega/∂T, speed ∂Γ/∂S, zomma ∂Γ/∂σ, color −∂Γ/∂T and ultima "
        "∂³V/∂σ³, per 1.00 of volatility and per year, null without variance and for American options that can be "
        "exercised early."
    )
    nullable = {"anyOf": [known, {"type": "null"}]}
    each = {**dict.fromkeys(first_order.NAMES, usual), **dict.fromkeys(second_order.NAMES, nullable)}
    return {
        "MoreGreeks": _object(each, optional=GREEK_NAMES, description=description),
        "MoreGreeksColumns": _object(dict.fromkeys(GREEK_NAMES, many), optional=GREEK_NAMES, description=description),
    }


def _infer_schemas(max_batch: int) -> Json:
    shape = {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 1, "maximum": max_batch}, {"const": 1}],
        "items": False,
        "minItems": 1,
        "description": "[n] or [n, 1], the same for every input.",
    }
    parameters = _object(
        {
            "binary_data_size": {
                "type": "integer",
                "minimum": 0,
                "description": f"Bytes of the tensor after the JSON, instead of data; needs {HEADER_LENGTH}.",
            }
        },
        optional=("binary_data_size",),
        is_open=True,
    )

    def tensor(name: str, datatypes: Sequence[str], element: Json) -> Json:
        data = _list({"anyOf": [element, _list(element, minItems=1, maxItems=1)]})
        return {"properties": {"name": {"const": name}, "datatype": {"enum": list(datatypes)}, "data": data}}

    kind = {"enum": [*OPTION_TYPES, 1, 0, True, False]}
    numbers = {
        field: {key: value for key, value in _field_schema(field).items() if key != "default"} for field in FIELDS
    }
    tensors = [tensor(field.name, NUMBER_TYPES, schema) for field, schema in numbers.items()]
    tensors.append(tensor("option_type", OPTION_TYPE_TYPES, kind))
    flag = {"type": "boolean", "default": False}
    return {
        "InferRequest": _object(
            {
                "id": _string("Comes back."),
                "model_name": _string("If there, that of the path."),
                "model_version": _string("If there, the version in use."),
                "parameters": _object(
                    {"binary_data_output": {**flag, "description": "Whether outputs are binary."}},
                    optional=("binary_data_output",),
                    is_open=True,
                    description="Others are let pass.",
                ),
                "inputs": _list(_ref("InferInput"), minItems=1, maxItems=len(INPUTS)),
                "outputs": _list(_ref("InferRequestedOutput"), maxItems=len(AMERICAN_OUTPUTS)),
            },
            optional=("id", "model_name", "model_version", "parameters", "outputs"),
            description="Inputs and outputs stand once each; dividend and option_type may be absent (0, call). "
            "Without outputs all are answered.",
        ),
        "InferInput": _object(
            {
                "name": {"enum": list(INPUTS)},
                "shape": shape,
                "datatype": {"enum": list(dict.fromkeys((*NUMBER_TYPES, *OPTION_TYPE_TYPES)))},
                "parameters": parameters,
                "data": {"type": "array", "minItems": 1, "description": "n elements; or n lists of one, for [n, 1]."},
            },
            optional=("parameters", "data"),
            oneOf=tensors,
            description="The elements are in data or come as bytes after the JSON, "
            "little-endian: the length of each BYTES element in four bytes before it. FP32 and whole numbers are "
            "widened exactly. An option_type of type BYTES is call or put; of INT8, 1 is a call and 0 a put; of BOOL, "
            "true is a call.",
        ),
        "InferRequestedOutput": _object(
            {
                "name": {"enum": list(AMERICAN_OUTPUTS), "description": "exercise_boundary: american only."},
                "parameters": _object(
                    {"binary_data": {**flag, "description": "Overrides binary_data_output for this one."}},
                    optional=("binary_data",),
                    is_open=True,
                ),
            },
            optional=("parameters",),
        ),
        "InferAnswer": _object(
            {
                "model_name": {"enum": list(MODELS)},
                "model_version": _string("Absent while no model can be used."),
                "id": _string("That of the request; absent if it had none."),
                "outputs": _list(_ref("InferOutput"), minItems=1),
            },
            optional=("model_version", "id"),
        ),
        "InferOutput": _object(
            {
                "name": {"enum": list(AMERICAN_OUTPUTS)},
                "datatype": {"enum": ["FP64", "BYTES"]},
                "shape": shape,
                "parameters": _object({"binary_data_size": {"type": "integer", "minimum": 0}}),
                "data": {
                    "anyOf": [
                        _list({"type": ["number", "null"]}),
                        _list({"enum": _METHODS}),
                    ],
                    "description": "null only for an exercise_boundary that does not exist; as bytes it is 0 or "
                    "infinite.",
                },
            },
            optional=("parameters", "data"),
        ),
        "ServerMetadata": _object(
            {
                "name": {"const": "pinn-inference"},
                "version": _string(),
                "extensions": {"const": list(EXTENSIONS)},
            }
        ),
        "ModelMetadata": _object(
            {
                "name": {"enum": list(MODELS)},
                "versions": _list(_string(), description="The version in use; none while no model can be used."),
                "platform": {"const": PLATFORM},
                "inputs": _list(_ref("TensorMetadata")),
                "outputs": _list(_ref("TensorMetadata")),
            }
        ),
        "TensorMetadata": _object(
            {
                "name": {"enum": sorted({*INPUTS, *AMERICAN_OUTPUTS})},
                "datatype": {"enum": ["FP64", "BYTES"]},
                "shape": {"const": [-1]},
            }
        ),
        **_extension_schemas(),
    }


def _extension_schemas() -> Json:
    """What Triton's extensions for the configuration and the statistics of a model answer."""
    count = {"type": "integer", "minimum": 0}
    tensor = {
        "name": {"enum": sorted({*INPUTS, *AMERICAN_OUTPUTS})},
        "data_type": {"enum": ["TYPE_FP64", "TYPE_STRING"]},
        "dims": {"const": [-1]},
    }
    spent = _object({"count": count, "ns": count})
    one = _object(
        {
            "name": {"enum": list(MODELS)},
            "version": _string("The one in use; empty where none is."),
            "last_inference": {**count, "description": "Milliseconds since 1970, 0 before the first."},
            "inference_count": {**count, "description": "Options."},
            "execution_count": {**count, "description": "Requests that were answered."},
            "inference_stats": _object(dict.fromkeys(KINDS, spent)),
            "batch_stats": {"const": []},
        },
        description="Since the start of the process.",
    )
    return {
        "ModelConfiguration": _object(
            {
                "name": {"enum": list(MODELS)},
                "platform": {"const": PLATFORM},
                "version_policy": _object({"latest": _object({"num_versions": {"const": 1}})}),
                "max_batch_size": {"const": 0, "description": "The number of options is the tensors' first dimension."},
                "input": _list(_object({**tensor, "optional": {"type": "boolean"}})),
                "output": _list(_object(tensor)),
            }
        ),
        "ModelStatistics": _object({"model_stats": _list(one, minItems=1, maxItems=len(MODELS))}),
    }


def _health_schemas() -> Json:
    count = {"type": "integer", "minimum": 0}
    level = {
        "hits": count,
        "misses": count,
        "hit_rate": _number(minimum=0, maximum=1),
        "size": count,
        "max_size": count,
        "evictions": count,
    }
    overall = {"enum": ["healthy", "starting", "degraded", "draining"]}
    counts = {
        "options_priced": _object(dict.fromkeys(_METHODS, count)),
        "fallbacks": _object(dict.fromkeys(_REASONS, count)),
        "queue": _object({"options": count}),
    }
    time = _string("UTC.", format="date-time")
    return {
        "CacheStats": _object(
            {**level, "levels": _object({"quotes": _object(level), "cells": _object(level)})},
            description="Counts since the start or the last reset. `quotes` are remembered by their exact inputs, "
            "`cells` are parts of the network's domain.",
        ),
        "Model": {
            "type": "object",
            "properties": {
                "name": _string(),
                "version": _string(),
                "sha256": _string(),
                "error_bound": _number("Of the price, in strikes."),
                "greek_bounds": {
                    "type": "object",
                    "additionalProperties": _number(minimum=0),
                    "description": "Of the American model's Greeks: delta in 1, gamma in 1/(S·σ√T), vega in S·√T, "
                    "theta in S·(σ/√T + |r| + |q|), rho in K·T.",
                },
                "expected_sha256": _string(),
            },
            "description": "The model that was loaded; empty before.",
        },
        "Readiness": _object(
            {
                "ready": {"type": "boolean"},
                "reason": _string("Ready, or why not, for programs."),
                "message": _string(),
                "model": _ref("Model"),
                "checks": _list(_object({"name": _string(), "ok": {"type": "boolean"}, "message": _string()})),
            }
        ),
        "QuickHealth": _object({"overall_status": overall, "ready": {"type": "boolean"}, "reason": _string()}),
        "PinnHealth": _object(
            {
                "overall_status": overall,
                "timestamp": time,
                "ready": {"type": "boolean"},
                "reason": _string(),
                "message": _string(),
                "model": _ref("Model"),
                "tensorflow": _ref("TensorFlow"),
                **counts,
            }
        ),
        "TensorFlow": _object(
            {"status": _string(), "version": {"type": ["string", "null"]}, "gpu_available": {"type": "boolean"}},
            is_open=True,
            description="In the process that prices large batches.",
        ),
        "PinnMetrics": _object(
            {
                "timestamp": time,
                "cache": _ref("CacheStats"),
                "requests": count,
                "mean_latency_ms": {"type": ["number", "null"]},
                **counts,
            }
        ),
        "DetailedHealth": _object(
            {
                "status": overall,
                "timestamp": time,
                "reason": _string(),
                "message": _string(),
                "components": _object(
                    {
                        "pinn_cache": _object(
                            {"status": _string(), "cache_size": count, "hit_rate": _number(minimum=0, maximum=1)}
                        ),
                        "pinn_model": _object(
                            {
                                "status": {"enum": ["healthy", "unhealthy", "starting"]},
                                "prediction_test": {"enum": ["passed", "failed"]},
                                "method": {"enum": _METHODS},
                                "latency_ms": _number(minimum=0),
                                "message": _string(),
                            },
                            optional=("method", "latency_ms", "message"),
                        ),
                        "tensorflow": _ref("TensorFlow"),
                    },
                    is_open=True,
                ),
            }
        ),
        "WarmUp": _object(
            {
                "status": {"const": "warm"},
                "cells": count,
                "latency_ms": _number(minimum=0),
                "cache": _ref("CacheStats"),
            }
        ),
        "NoModel": _object({"status": {"const": "unavailable"}, "reason": _string(), "message": _string()}),
    }


# --- paths ------------------------------------------------------------------------------------------------------------


def _paths(config: ServerConfig) -> Json:
    return {**_pricing_paths(config), **_infer_paths(config), **_health_paths(), **_operation_paths(), **_own_paths()}


_OPTION: Final[Json] = {
    "spot": 100,
    "strike": 95,
    "maturity": 0.5,
    "rate": 0.03,
    "dividend": 0.01,
    "volatility": 0.22,
    "option_type": "put",
    "style": "european",
}
_QUOTE: Final[Json] = {
    "price": 3.4853074480420374,
    "delta": -0.31694961383527337,
    "gamma": 0.022829531916197646,
    "vega": 25.11248510781741,
    "theta": -4.786288272608022,
    "rho": -17.590134415784686,
    "method": "pinn",
    "model": "european/3819949f9c93",
    "error_bound": 0.0000011274464698185145,
    "cached": False,
}


def _pricing_paths(config: ServerConfig) -> Json:
    many = {"options": [_OPTION, {**_OPTION, "option_type": "call"}]}
    columns = {"columns": {**_OPTION, "strike": [90, 95, 100]}}
    greeks = {**_OPTION, "greeks": ["vanna", "volga"]}
    answer = _answer(
        _ref("PriceAnswer"),
        "The quotes, in the form and the order in which the options came.",
        example=_QUOTE,
        headers=("Server-Timing",),
    )
    body = {
        "required": True,
        "content": {
            _JSON: {
                "schema": _ref("PriceRequest"),
                "examples": {
                    "one": {"summary": "One option", "value": _OPTION},
                    "list": {"summary": "A list", "value": many},
                    "columns": {"summary": "Columns: one option at three strikes", "value": columns},
                    "greeks": {"summary": "One option, with more Greeks", "value": greeks},
                },
            }
        },
    }
    description = (
        f"One option, a list of at most {config.max_batch}, or columns. Unknown and absent fields, NaN, infinity, "
        "numbers in quotes and values out of range are faults; one faulty option fails the whole request and is named "
        "by its index. Nothing is rounded. A key that stands twice in one object is a fault."
    )
    operation = _operation(
        "price", "Pricing", "Price options", answer, description=description, errors=_PRICING_ERRORS, requestBody=body
    )
    return {"/v1/price": {"post": operation}}


def _infer_paths(config: ServerConfig) -> Json:
    tag = "Open Inference Protocol"
    model = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"enum": list(MODELS)},
        "description": "The exercise style.",
    }
    one_version = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "The version in use, as the model's metadata names it.",
    }
    length = {
        "name": HEADER_LENGTH,
        "in": "header",
        "schema": {"type": "integer", "minimum": 2},
        "description": "Bytes of the JSON before the binary tensors; required if there are any.",
    }
    example = {
        "id": "42",
        "inputs": [
            *(
                {"name": field.name, "shape": [2], "datatype": "FP64", "data": [_OPTION[field.name]] * 2}
                for field in FIELDS
            ),
            {"name": "option_type", "shape": [2], "datatype": "BYTES", "data": ["put", "call"]},
        ],
        "outputs": [{"name": "price"}, {"name": "method"}],
    }
    answer_example = {
        "model_name": "european",
        "model_version": "3819949f9c93",
        "id": "42",
        "outputs": [
            {"name": "price", "datatype": "FP64", "shape": [2], "data": [3.4853074480420374, 9.400921105019323]},
            {"name": "method", "datatype": "BYTES", "shape": [2], "data": ["pinn", "pinn"]},
        ],
    }
    answer = _answer(
        _ref("InferAnswer"),
        "The outputs asked for, in their order.",
        example=answer_example,
        headers=(HEADER_LENGTH, "Server-Timing"),
    )
    binary = {"schema": {"type": "string", "format": "binary"}}
    answer["content"][_BINARY] = binary
    body = {
        "required": True,
        "content": {_JSON: {"schema": _ref("InferRequest"), "example": example}, _BINARY: binary},
    }
    description = (
        f"At most {config.max_batch} rows. A faulty row fails the whole request; the first of each tensor is named by "
        "its index. Binary bodies are the JSON, followed by the binary tensors in the order of the inputs."
    )
    paths: Json = {
        "/v2": {
            "get": _operation(
                "v2_server", tag, "Server metadata", _answer(_ref("ServerMetadata"), "Name, version and extensions.")
            )
        },
        "/v2/": {
            "get": _operation(
                "v2_server_slash", tag, "The same", _answer(_ref("ServerMetadata"), "Name, version and extensions.")
            )
        },
        "/v2/health/live": {
            "get": _operation("v2_live", tag, "Alive?", _answer(_object({"live": {"const": True}}), "It lives."))
        },
        "/v2/health/ready": {"get": _ready_operation("v2_ready", tag, "Ready?", "live")},
        "/v2/models/stats": {
            "get": _operation("v2_stats", tag, "Statistics of both models", _answer(_ref("ModelStatistics"), "Counts."))
        },
    }
    for prefix, suffix, path_parameters in (
        ("/v2/models/{model}", "", [model]),
        ("/v2/models/{model}/versions/{version}", "_version", [model, one_version]),
    ):
        metadata = _operation(
            f"v2_model{suffix}",
            tag,
            "Model metadata",
            _answer(_ref("ModelMetadata"), "Its versions and tensors."),
            errors={404: "UnknownModel"},
            parameters=path_parameters,
        )
        ready = _ready_operation(f"v2_model_ready{suffix}", tag, "Model ready?", "name")
        ready["parameters"] = path_parameters
        ready["responses"]["404"] = _ref("UnknownModel", "responses")
        infer = _operation(
            f"v2_infer{suffix}",
            tag,
            "Price options",
            answer,
            description=description,
            errors={**_PRICING_ERRORS, 404: "UnknownModel"},
            parameters=[*path_parameters, length],
            requestBody=body,
        )
        for page, summary, schema in (
            ("config", "Model configuration", "ModelConfiguration"),
            ("stats", "Statistics", "ModelStatistics"),
        ):
            told = _answer(_ref(schema), "As Triton's extension has it.")
            page_of_model = _operation(
                f"v2_{page}_of_model{suffix}",
                tag,
                summary,
                told,
                errors={404: "UnknownModel"},
                parameters=path_parameters,
            )
            paths[f"{prefix}/{page}"] = {"get": page_of_model}
        paths[prefix] = {"get": metadata}
        paths[f"{prefix}/ready"] = {"get": ready}
        paths[f"{prefix}/infer"] = {"post": infer}
    return paths


def _ready_operation(identity: str, tag: str, summary: str, other: str) -> Json:
    named = {"enum": list(MODELS)} if other == "name" else {"type": "boolean"}
    ready = _object({other: named, "ready": {"const": True}})
    unready = _object({other: named, "ready": {"const": False}, "error": _string("Why.")})
    operation = _operation(identity, tag, summary, _answer(ready, "Ready."))
    operation["responses"]["503"] = _answer(unready, "Not ready.")
    return operation


def _health_paths() -> Json:
    def page(identity: str, summary: str, schema: Json, *, unwell: str = "") -> Json:
        operation = _operation(identity, "Health", summary, _answer(schema, "All is well." if unwell else "As it is."))
        if unwell:
            operation["responses"]["503"] = _answer(schema, unwell)
        return {"get": operation}

    return {
        "/health": page("live", "Liveness", _object({"status": {"const": "healthy"}})),
        "/health/deployment/readiness": page("readiness", "Readiness", _ref("Readiness"), unwell="Not ready."),
        "/health/detailed": page(
            "detailed", "Everything, and a test price", _ref("DetailedHealth"), unwell="Not everything is well."
        ),
        "/health/pinn": page("pinn", "State and counts", _ref("PinnHealth")),
        "/health/pinn/quick": page("quick", "State", _ref("QuickHealth")),
        "/health/pinn/metrics": page("pinn_metrics", "Cache and counts as JSON", _ref("PinnMetrics")),
    }


def _operation_paths() -> Json:
    tag = "Operations"
    warm_up = _operation(
        "warm_up",
        tag,
        "Fill the cache's cells",
        _answer(_ref("WarmUp"), "The cells are there; latency_ms says how long."),
    )
    warm_up["responses"]["503"] = _answer(_ref("NoModel"), "No model can be used, so there is no cache.")
    reset = _object({"status": {"const": "reset"}, "cache": _ref("CacheStats")})
    metrics = _operation(
        "metrics",
        tag,
        "Prometheus metrics",
        {"description": "Text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        parameters=[
            {
                "name": "name[]",
                "in": "query",
                "description": "Answer the samples with this name alone; may be repeated.",
                "schema": {"type": "array", "items": {"type": "string", "maxLength": 256}, "maxItems": 64},
                "example": ["http_requests_total", "pinn_inference_latency_seconds_bucket"],
            }
        ],
    )
    stats = _operation(
        "cache_stats", tag, "Hits, misses and size", _answer(_ref("CacheStats"), "Both levels and their sum.")
    )
    empty = _operation("cache_reset", tag, "Empty the cache", _answer(reset, "It is empty."))
    for control in (warm_up, empty):
        control["responses"].update({"401": _ref("TokenRequired", "responses"), "429": _ref("TooOften", "responses")})
    return {
        "/cache/stats": {"get": stats},
        "/cache/reset": {"post": empty},
        "/health/pinn/warmup": {"post": warm_up},
        "/metrics": {"get": metrics},
    }


def _own_paths() -> Json:
    tag = "Documentation"
    page = {"description": "HTML that needs nothing else.", "content": {"text/html": {"schema": {"type": "string"}}}}
    return {
        DOCUMENT_PATH: {
            "get": _operation("openapi", tag, "This document", _answer({"type": "object"}, "OpenAPI 3.1."))
        },
        PAGE_PATH: {"get": _operation("docs", tag, "The document as a page", page)},
    }
