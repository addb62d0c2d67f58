"""An OpenAPI document as one page of HTML: no scripts, nothing loaded from anywhere, readable and printable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from html import escape
from typing import Any, Final

import orjson

Json = Mapping[str, Any]
_OPERATIONS: Final = ("get", "post")
_EVERYWHERE: Final = ("X-Request-ID", "X-PINN-Revision")
"""Headers of every request or answer: the description at the top speaks of them, the operations need not."""


def render_page(document: Json) -> str:
    """The page: what there is, each operation with its parameters, bodies and answers, and the schemas."""
    return "".join(_Page(document).html())


class _Page:
    def __init__(self, document: Json) -> None:
        self._document = document
        self._schemas: Json = document["components"]["schemas"]

    def html(self) -> Iterator[str]:
        info = self._document["info"]
        yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<style>{_STYLE}</style></head><body>"
        yield "<nav>"
        yield from self._contents()
        yield f"</nav><main><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        yield _prose(info["description"])
        yield '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>'
        for tag in self._document["tags"]:
            operations = list(self._operations(tag["name"]))
            if operations:
                yield f'<h2 id="{_anchor(tag["name"])}">{escape(tag["name"])}</h2>{_prose(tag["description"])}'
                for path, method, operation in operations:
                    yield from self._operation(path, method, operation)
        yield '<h2 id="schemas">Schemas</h2>'
        for name, schema in self._schemas.items():
            yield f'<section id="schema-{escape(name)}"><h3>{escape(name)}</h3>'
            yield from self._schema(schema)
            yield "</section>"
        yield "</main></body></html>"

    def _operations(self, tag: str) -> Iterator[tuple[str, str, Json]]:
        for path, item in self._document["paths"].items():
            for method in _OPERATIONS:
                if method in item and tag in item[method].get("tags", ()):
                    yield path, method, item[method]

    def _contents(self) -> Iterator[str]:
        for tag in self._document["tags"]:
            operations = list(self._operations(tag["name"]))
            if operations:
                yield f'<b><a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a></b><ul>'
                for path, method, operation in operations:
                    yield f'<li><a href="#{escape(operation["operationId"])}">{_method(method)} '
                    yield f"<span>{_path(path)}</span></a></li>"
                yield "</ul>"
        yield '<b><a href="#schemas">Schemas</a></b><ul>'
        for name in self._schemas:
            yield f'<li><a href="#schema-{escape(name)}">{escape(name)}</a></li>'
        yield "</ul>"

    # --- operations ---------------------------------------------------------------------------------------------------

    def _operation(self, path: str, method: str, operation: Json) -> Iterator[str]:
        yield f'<section id="{escape(operation["operationId"])}">'
        yield f"<h3>{_method(method)} <code>{_path(path)}</code> <small>{escape(operation['summary'])}</small></h3>"
        yield _prose(operation.get("description", ""))
        parameters = [each for each in operation.get("parameters", ()) if each["name"] not in _EVERYWHERE]
        if parameters:
            yield "<h4>Parameters</h4><table>"
            for parameter in parameters:
                where = parameter["in"] + (", required" if parameter.get("required") else "")
                yield f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(where)}"
                yield f"<td>{self._type(parameter['schema'])}<td>{_inline(parameter.get('description', ''))}</tr>"
            yield "</table>"
        if "requestBody" in operation:
            yield "<h4>Body</h4>"
            yield from self._content(operation["requestBody"]["content"])
        yield '<h4>Answers</h4><table class="answers">'
        for status, response in sorted(operation["responses"].items()):
            yield from self._answer(status, response)
        yield "</table></section>"

    def _answer(self, status: str, response: Json) -> Iterator[str]:
        found = self._resolve(response)
        yield f'<tr><td><b class="s{escape(status[:1])}">{escape(status)}</b><td>{_inline(found["description"])}'
        own = [name for name in found.get("headers", {}) if name not in _EVERYWHERE]
        if own:
            yield "<br>Headers: " + ", ".join(f"<code>{escape(name)}</code>" for name in own)
        yield "<td>"
        if "$ref" in response:  # the same in many places: the example is folded away
            yield "<details><summary>Body</summary>"
            yield from self._content(found["content"])
            yield "</details>"
        else:
            yield from self._content(found["content"])
        yield "</tr>"

    def _content(self, content: Json) -> Iterator[str]:
        for media, described in content.items():
            yield f"<p><code>{escape(media)}</code> {self._type(described['schema'])}</p>"
            if "example" in described:
                yield _example(described["example"])
            for example in described.get("examples", {}).values():
                yield f"<p>{escape(example['summary'])}:</p>{_example(example['value'])}"

    # --- schemas ------------------------------------------------------------------------------------------------------

    def _schema(self, schema: Json) -> Iterator[str]:
        yield _prose(schema.get("description", ""))
        if "properties" not in schema:
            yield f"<p>{self._type(schema)}</p>"
            return
        yield "<table>"
        for name, property_schema in schema["properties"].items():
            need = "required" if name in schema.get("required", ()) else ""
            inner = property_schema.get("items", property_schema)
            nested = isinstance(inner, Mapping) and "properties" in inner
            kind = ("list of objects" if inner is not property_schema else "object") if nested else None
            yield f"<tr><td><code>{escape(name)}</code><td>{need}<td>{kind or self._type(property_schema)}"
            yield f"<td>{_inline(_description(property_schema))}"
            if nested:
                yield from self._schema({key: value for key, value in inner.items() if key != "description"})
            yield "</tr>"
        yield "</table>"
        if "oneOf" in schema:
            yield "<p>One of:</p><table>"
            for each in schema["oneOf"]:
                members = each.get("properties") or {name: schema["properties"][name] for name in each["required"]}
                cells = (f"<code>{escape(name)}</code> {self._type(one)}" for name, one in members.items())
                yield "<tr><td>" + "<td>".join(cells) + "</tr>"
            yield "</table>"

    def _type(self, schema: Any) -> str:
        """A schema in a few words."""
        if isinstance(schema, bool):
            return "anything" if schema else "nothing"
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
        for kind in ("oneOf", "anyOf"):
            if kind in schema:
                return " <i>or</i> ".join(self._type(each) for each in schema[kind])
        if "const" in schema:
            return f"<code>{escape(_text(schema['const']))}</code>"
        if "enum" in schema:
            return " or ".join(f"<code>{escape(_text(value))}</code>" for value in schema["enum"]) + _default(schema)
        kinds = schema.get("type", "anything")
        words = kinds if isinstance(kinds, str) else " or ".join(kinds)
        if words == "array":
            items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
            return "list of " + self._type(items) + _length(schema)
        if words == "object" and "properties" in schema:
            inner = (f"<code>{escape(name)}</code>: {self._type(each)}" for name, each in schema["properties"].items())
            return "object with " + ", ".join(inner)
        if schema.get("format") == "binary":
            return "bytes"
        return escape(words + _range(schema)) + _default(schema)

    def _resolve(self, response: Json) -> Json:
        if "$ref" not in response:
            return response
        found: Json = self._document["components"]["responses"][response["$ref"].rsplit("/", 1)[-1]]
        return found


def _range(schema: Json) -> str:
    low, high = (_decimal(schema[bound]) if bound in schema else None for bound in ("minimum", "maximum"))
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""


def _decimal(number: float) -> str:
    return f"{Decimal(repr(number)).normalize():f}"


def _length(schema: Json) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if high is not None:
        return f" ({low or 0} to {high})"
    return f" (at least {low})" if low else ""


def _default(schema: Json) -> str:
    return f", else <code>{escape(_text(schema['default']))}</code>" if "default" in schema else ""


def _description(schema: Json) -> str:
    for each in (schema, schema.get("items"), *schema.get("anyOf", ())):
        if isinstance(each, Mapping) and "description" in each:
            return str(each["description"])
    return ""


def _method(method: str) -> str:
    return f'<b class="{method}">{method.upper()}</b>'


def _path(path: str) -> str:
    return re.sub(r"(\{\w+\})", r"<i>\1</i>", escape(path))


def _anchor(text: str) -> str:
    return "tag-" + re.sub(r"\W+", "-", text.lower())


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return _decimal(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _example(value: Any) -> str:
    """JSON with one line for each field of an object, but short objects on one line."""
    return f"<pre>{escape(_lines(value, ''))}</pre>"


_LINE: Final = 100
_BETWEEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[:,]')
"""Texts, which stay as they are, and the marks that a blank follows."""


def _lines(value: Any, indent: str) -> str:
    flat = orjson.dumps(value).decode()
    if len(flat) + len(indent) <= _LINE or not isinstance(value, (dict, list)):
        return _BETWEEN.sub(lambda found: found[0] + (" " if found[0] in ":," else ""), flat)
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{inner}{orjson.dumps(key).decode()}: {_lines(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _lines(each, inner) for each in value) + f"\n{indent}]"


_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--link:light-dark(#0550ae,#79b8ff)}
*{box-sizing:border-box}
body{margin:0;display:grid;grid-template-columns:19rem minmax(0,1fr);font:15px/1.5 system-ui,sans-serif}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1.5rem 1rem;border-right:1px solid var(--line)}
nav{font-size:13px}nav ul{list-style:none;margin:.2rem 0 1rem;padding:0}
nav a{display:flex;gap:.4em;align-items:baseline}nav span{overflow-wrap:anywhere}
main{padding:1.5rem 2.5rem 6rem;max-width:72rem}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
h1 small,h3 small{font-weight:normal;opacity:.7;font-size:.75em}
h2{margin-top:3rem;border-bottom:1px solid var(--line)}h3{margin:2.2rem 0 .4rem}h4{margin:1rem 0 .3rem}
p{margin:.3rem 0}
code,pre{font:13px/1.45 ui-monospace,monospace}h3 code{font-size:1em}
pre{background:var(--soft);padding:.7rem 1rem;overflow:auto;border-radius:6px;margin:.4rem 0;max-height:28rem}
table{border-collapse:collapse;width:100%}
td{border-top:1px solid var(--line);padding:.3rem .8rem .3rem 0;vertical-align:top}
.answers{table-layout:fixed}.answers td:nth-child(1){width:4.5rem}.answers>tbody>tr>td:nth-child(2){width:38%}
td table{margin-left:1rem;width:calc(100% - 1rem)}
.get,.post{font-size:.75em;padding:.1em .45em;border-radius:4px;color:#fff;background:#1a7f37}.post{background:#8250df}
.s2{color:#1a7f37}.s4,.s5{color:#cf222e}
@media(max-width:60rem){body{display:block}nav{position:static;height:auto;border:0}main{padding:1rem}}
@media print{nav{display:none}body{display:block}}
"""
