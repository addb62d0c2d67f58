"""The contract: a valid document of the parsers' own rules, that names every route and gives examples that hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from pinn_inference.server import ServerConfig, create_app
from pinn_inference.server.errors import InvalidRequest
from pinn_inference.server.openapi import DOCUMENT_PATH, PAGE_PATH, OpenApiPages, openapi_document
from pinn_inference.server.parsing import FIELDS, OPTION_TYPES, STYLES, parse_price_request
from tests.support.oip import json_request
from tests.support.server import PUT, Client, ExactModel, running

Json = dict[str, Any]
PRICED = {**{name: value for name, value in PUT.items() if name != "volatility"}, "price": 3.5}


async def served(client: Client) -> Json:
    async with client.get(DOCUMENT_PATH) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        document: Json = await response.json()
        return document


def validator(document: Json, schema: Json) -> Draft202012Validator:
    """For a schema that may refer to the document's components."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:openapi", resource)
    absolute = json.loads(json.dumps(schema).replace('"#/components', '"urn:openapi#/components'))
    return Draft202012Validator(absolute, registry=registry)


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in ("get", "post"):
            if method in item:
                yield method, path, item[method]


def examples(document: Json) -> Iterator[tuple[str, Json, Any]]:
    """Every example with its schema and the place where it stands."""

    def of_content(where: str, content: Json) -> Iterator[tuple[str, Json, Any]]:
        for media in content.values():
            if "example" in media:
                yield where, media["schema"], media["example"]
            for name, example in media.get("examples", {}).items():
                yield f"{where} {name}", media["schema"], example["value"]

    for method, path, operation in operations(document):
        yield from of_content(f"{method} {path}", operation.get("requestBody", {}).get("content", {}))
        for status, response in operation["responses"].items():
            yield from of_content(f"{method} {path} {status}", response.get("content", {}))
    for name, response in document["components"]["responses"].items():
        yield from of_content(name, response["content"])


async def test_the_document_is_valid_and_every_reference_in_it_leads_somewhere() -> None:
    async with running() as client:
        document = await served(client)
    OpenAPIV31SpecValidator(document).validate()
    identities = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(identities) == len(set(identities))
    for reference in re.findall(r'"#/([^"]+)"', json.dumps(document)):
        found: Any = document
        for step in reference.split("/"):
            found = found[step]


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    document = openapi_document_of_app()
    app = create_app(ServerConfig())
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    assert {(method, path) for method, path, _ in operations(document)} == routes


def openapi_document_of_app() -> Json:
    app = create_app(ServerConfig())
    for route in app.router.routes():
        pages = getattr(route.handler, "__self__", None)
        if isinstance(pages, OpenApiPages):
            document: Json = json.loads(pages.text)
            return document
    raise AssertionError("the application does not serve the document")


def test_ranges_words_and_limits_are_those_of_the_parsers_and_the_settings() -> None:
    document = openapi_document(ServerConfig(max_batch=77, max_body_bytes=4242))
    option = document["components"]["schemas"]["Option"]
    for field in FIELDS:
        schema = option["properties"][field.name]
        assert (schema["minimum"], schema["maximum"]) == (field.low, field.high)
        assert schema.get("default") == field.default
        assert (field.name in option["required"]) == (field.default is None and field.name != "maturity")
    assert option["oneOf"] == [{"required": ["maturity"]}, {"required": ["expiry"]}]
    assert option["properties"]["option_type"]["enum"] == list(OPTION_TYPES)
    assert option["properties"]["style"]["enum"] == list(STYLES)
    assert document["components"]["schemas"]["Options"]["properties"]["options"]["maxItems"] == 77
    assert "4242 bytes" in document["info"]["description"]


def test_every_example_fits_its_schema() -> None:
    document = openapi_document_of_app()
    found = list(examples(document))
    assert len(found) >= 12
    for where, schema, example in found:
        assert [error.message for error in validator(document, schema).iter_errors(example)] == [], where


async def test_the_examples_of_requests_are_answered_as_the_examples_of_answers_say() -> None:
    async with running(ExactModel(error_bound=1e-6)) as client:
        document = await served(client)
        for path in ("/v1/price", "/v1/implied-volatility", "/v2/models/{model}/infer"):
            operation = document["paths"][path]["post"]
            bodies = operation["requestBody"]["content"]["application/json"]
            requests = [bodies["example"]] if "example" in bodies else [e["value"] for e in bodies["examples"].values()]
            ok = operation["responses"]["200"]["content"]["application/json"]
            for index, request in enumerate(requests):
                async with client.post(path.replace("{model}", "european"), json=request) as response:
                    answer = await response.json()
                    assert response.status == 200, answer
                assert list(validator(document, ok["schema"]).iter_errors(answer)) == []
                if index == 0:
                    assert same(answer, ok["example"])


def same(answer: Any, example: Any) -> bool:
    """Equal but for versions, for bounds and in the last digits of numbers."""
    if isinstance(example, dict):
        loose = {"model", "model_version", "error_bound"}
        return answer.keys() == example.keys() and all(
            same(answer[key], example[key]) for key in example.keys() - loose
        )
    if isinstance(example, list):
        return len(answer) == len(example) and all(map(same, answer, example))
    if isinstance(example, float):
        return bool(answer == pytest.approx(example, rel=1e-5))
    return bool(answer == example)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/price", PUT),
        ("/v1/price", {"options": [PUT, {**PUT, "volatility": 0}]}),
        ("/v1/price", {"columns": {**PUT, "strike": [90, 100]}}),
        ("/v1/price", {**{name: PUT[name] for name in PUT if name != "maturity"}, "expiry": "2100-01-01"}),
        ("/v1/price", {**PUT, "spot": -1}),
        ("/v1/price", {"options": [7]}),
        ("/v1/price", {**PUT, "greeks": ["vanna", "ultima"]}),
        ("/v1/price", {"options": [PUT, {**PUT, "maturity": 0}], "greeks": ["charm"]}),
        ("/v1/price", {"columns": {**PUT, "maturity": [0, 1]}, "greeks": ["charm", "color"]}),
        ("/v1/price", {**PUT, "greeks": ["delta", "vanna"]}),
        ("/v1/price", {"columns": {**PUT, "maturity": [0, 1]}, "greeks": ["gamma", "rho"]}),
        ("/v1/price", {**PUT, "greeks": ["price"]}),
        ("/v1/implied-volatility", PRICED),
        ("/v1/implied-volatility", {"options": [PRICED, {**PRICED, "price": 0}, {**PRICED, "price": 1e300}]}),
        ("/v1/implied-volatility", {"columns": {**PRICED, "price": [3, 0, 1e300]}}),
        ("/v1/implied-volatility", {**PRICED, "price": "3"}),
        ("/v1/scenarios", {**PUT, "ladders": {"spot": [0.9, 1.1]}}),
        ("/v1/scenarios", {"options": [PUT, {**PUT, "quantity": -2}], "ladders": {"time": [0, 1]}, "per_option": True}),
        ("/v1/scenarios", {"columns": {**PUT, "strike": [90, 95]}, "ladders": {"rate": [0, 0.01], "volatility": [0]}}),
        ("/v1/scenarios", {**PUT, "ladders": {"spot": [1] * 1000, "time": [0] * 1000}}),
        ("/v1/scenarios", {**PUT, "ladders": {}}),
        ("/v2/models/european/infer", json_request(3, id="7")),
        ("/v2/models/european/infer", {"inputs": []}),
        ("/v2/models/bermudan/infer", json_request()),
        ("/health/pinn/warmup", None),
        ("/cache/reset", None),
    ],
)
async def test_answers_to_posts_fit_the_schema_of_their_status(path: str, body: Any) -> None:
    template = re.sub(r"/v2/models/\w+/", "/v2/models/{model}/", path)
    async with running() as client:
        document = await served(client)
        async with client.post(path, json=body) as response:
            answer, status = await response.json(), str(response.status)
    assert describes(document, document["paths"][template]["post"], status, answer) == []


async def test_answers_to_gets_fit_the_schema_of_their_status_ready_or_not() -> None:
    for model in (ExactModel(), RuntimeError("broken")):
        async with running(model) as client:
            document = await served(client)
            for method, path, operation in operations(document):
                if method == "get" and "{version}" not in path and operation["tags"] != ["Reports"]:
                    async with client.get(path.replace("{model}", "european")) as response:
                        if response.content_type == "application/json":
                            found = describes(document, operation, str(response.status), await response.json())
                            assert found == [], path
                        else:
                            assert response.content_type in operation["responses"]["200"]["content"]


def describes(document: Json, operation: Json, status: str, answer: Any) -> list[str]:
    """What an answer breaks of the schema for its status; the status has to be named."""
    response = operation["responses"][status]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    schema = response["content"]["application/json"]["schema"]
    return [error.message for error in validator(document, schema).iter_errors(answer)]


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_the_schema_and_the_parser_draw_the_same_line(name: str) -> None:
    document = openapi_document(ServerConfig())
    checked = validator(document, {"$ref": "#/components/schemas/PriceRequest"})
    field = next(each for each in FIELDS if each.name == name)
    for value in (field.low, field.high, field.low - 1e-9, field.high * (1 + 1e-9), True, "1", None, [], 1):
        option = {**PUT, name: value}
        try:
            parse_price_request(json.dumps(option).encode(), max_batch=10)
            accepted = True
        except InvalidRequest:
            accepted = False
        assert checked.is_valid(option) == accepted, value


# --- the page ---------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """What a page refers to, and the anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.add(value)
            if name == "id" and value is not None:
                self.anchors.add(value)


async def test_the_page_names_everything_and_needs_nothing_from_anywhere() -> None:
    async with running() as client:
        document = await served(client)
        async with client.get(PAGE_PATH) as response:
            page = await response.text()
            assert response.content_type == "text/html"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    links = Links()
    links.feed(page)
    outside = {link for link in links.links if not link.startswith("#")}
    assert outside == {"openapi.json"}
    assert {link[1:] for link in links.links - outside} <= links.anchors
    assert not links.tags & {"script", "link", "img", "iframe"}
    assert "url(" not in page
    assert "@import" not in page
    for _, path, operation in operations(document):
        assert operation["operationId"] in links.anchors, path
    for name in document["components"]["schemas"]:
        assert f"schema-{name}" in links.anchors
