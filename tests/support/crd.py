"""The CRD as JSON Schema, its structural defaults, and the manifests that it must refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import jsonschema
import yaml

from lab.kube import REPOSITORY, Manifest

CRD = REPOSITORY / "crds" / "pinnservices.yaml"
INVALID = REPOSITORY / "tests" / "data" / "invalid_pinnservices.yaml"


_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    """RFC 3339, as far as we write it."""
    return not isinstance(value, str) or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value) is not None


@cache
def definition() -> Manifest:
    """The CustomResourceDefinition."""
    document: Manifest = yaml.safe_load(CRD.read_text())
    return document


def schema(part: str) -> Manifest:
    """The schema of `spec` or `status`."""
    [version] = definition()["spec"]["versions"]
    found: Manifest = version["schema"]["openAPIV3Schema"]["properties"][part]
    return found


@cache
def validator(part: str) -> jsonschema.Draft202012Validator:
    """Checks the structure of `spec` or `status` as the API server does with strict field validation; no CEL."""
    return jsonschema.Draft202012Validator(_closed(schema(part)), format_checker=_FORMATS)


def with_defaults(part: str, value: Manifest) -> Manifest:
    """A copy with the defaults filled in as the API server does: only in objects that are there."""
    filled = deepcopy(value)
    _fill(schema(part), filled)
    return filled


def invalid_cases() -> list[Manifest]:
    """The manifests that must be refused, each with a path and words of what would be right."""
    cases: list[Manifest] = yaml.safe_load(INVALID.read_text())
    return cases


def walk(node: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    """Every schema below and including `node`, with its field path; items of a list are `[]`, of a map `{}`."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walk(node["additionalProperties"], f"{path}{{}}")


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {
        name: {key: _closed(inner) for key, inner in item.items()} if name == "properties" else _closed(item)
        for name, item in node.items()
        if not name.startswith("x-kubernetes-") and name not in ("default", "description")
    }
    if "properties" in node and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed


def _fill(node: Manifest, value: Any) -> None:
    if isinstance(value, dict):
        for name, inner in node.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = deepcopy(inner["default"])
            if name in value:
                _fill(inner, value[name])
    elif isinstance(value, list) and "items" in node:
        for item in value:
            _fill(node["items"], item)
