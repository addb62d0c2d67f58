"""Writes what docs say of fields and reasons from where those are defined: `python docs/generate_reference.py`.

docs/reference.md comes from the CRD, and the table of reasons in docs/troubleshooting.md from `core/reasons.py`. With
--check it writes nothing and fails when a page is not the one it would write.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "operator"))

from pinn_operator.core.reasons import Reason  # noqa: E402

CRD = DOCS.parent / "crds" / "pinnservices.yaml"
REFERENCE = DOCS / "reference.md"
TROUBLESHOOTING = DOCS / "troubleshooting.md"
BEGIN, END = "<!-- generated: reasons -->", "<!-- end of the generated part -->"

Schema = Mapping[str, Any]

_INTRODUCTION = """\
# Reference of the fields

Generated from `crds/pinnservices.yaml` by `docs/generate_reference.py`; do not edit.
`kubectl explain pinnservice.spec` shows the same texts.

- The API server checks everything on this page and tells all faults of a manifest at once (unknown fields and wrong
  types before the others).
- Thresholds are quantities in quotes: `"0.01"`, `"250m"` (= 0.25). Times are seconds, shares 0–1, weights percent.
- Serving fields make the pods: each change of one makes a new revision. Their defaults are applied when a revision is
  accepted, and stay with it when the operator is upgraded.
- All other fields are policy: a change takes effect at once.
"""


def troubleshooting() -> str:
    """The page with its table of reasons written anew; all else is written by hand."""
    before, _, rest = TROUBLESHOOTING.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{TROUBLESHOOTING.name} has no lines {BEGIN} and {END}")
    reasons = sorted(Reason, key=lambda reason: reason.value.lower())
    lines = ["| reason | what it means | what to do |", "|---|---|---|"]
    lines += [f"| `{reason.shown}` | {_cell(reason.meaning)} | {_cell(reason.advice)} |" for reason in reasons]
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def reference() -> str:
    """The whole page of fields."""
    [version] = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    root = version["schema"]["openAPIV3Schema"]
    parts = [_INTRODUCTION]
    for title, name in (("A complete resource", "minimal"), ("Every field", "complete")):
        example = (DOCS / "examples" / f"{name}.yaml").read_text()
        parts.append(f"## {title}\n\n```yaml\n{example}```\n")
    parts.append("## Name\n\n" + "".join(_rules(root)))
    seen: dict[str, str] = {}
    for name in ("spec", "status"):
        parts.extend(_objects(root["properties"][name], name, seen))
    return "\n".join(parts).rstrip() + "\n"


def _objects(schema: Schema, path: str, seen: dict[str, str]) -> Iterator[str]:
    """A section for this object and for each below it; one that was shown already is only referred to."""
    lines = [f"{'###' if '.' in path else '##'} {path}\n"]
    if schema.get("description"):
        lines.append(f"{_escaped(schema['description'])}\n")
    shape = json.dumps(schema.get("properties"), sort_keys=True)
    if shape in seen:
        yield "\n".join([*lines, f"Its fields are those of [{seen[shape]}](#{_anchor(seen[shape])}).\n"])
        return
    seen[shape] = path
    required = schema.get("required", [])
    lines.append("| field | type | default | |\n|---|---|---|---|")
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field)
        lines.append(f"| `{name}` | {_type(field)} | {default} | {_escaped(field.get('description', ''))} |")
    rules = list(_rules(schema))
    for name, field in schema["properties"].items():
        if "properties" not in field:
            rules += _rules(field, name)
            rules += _rules(field.get("items", {}), f"{name}[]") if "properties" not in field.get("items", {}) else []
    yield "\n".join(lines) + "\n" + ("\nRules:\n\n" + "".join(rules) if rules else "")
    for name, field in schema["properties"].items():
        inner, inner_path = (field["items"], f"{path}.{name}[]") if "items" in field else (field, f"{path}.{name}")
        if "properties" in inner:
            yield from _objects(inner, inner_path, seen)


def _rules(schema: Schema, name: str = "") -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        field = name or rule.get("fieldPath", "").removeprefix(".")
        yield f"- {f'`{field}` ' if field else ''}{_escaped(rule['message'])}\n"


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "items" in field:
        return f"list of {_type(field['items'])}, at most {field['maxItems']}"
    if "additionalProperties" in field:
        return f"map, at most {field['maxProperties']}"
    if field.get("format") == "date-time":
        return "time"
    if field["type"] == "integer" and "maximum" in field:
        return f"integer, {field['minimum']}–{field['maximum']}"
    if field["type"] == "string":
        return f"string, at most {field['maxLength']} characters"
    return str(field["type"])


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    return f"`{json.dumps(field['default'])}`" if not isinstance(field["default"], dict) else "see below"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_")


def main() -> int:
    """Writes the pages, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is not current")
    options = parser.parse_args()
    stale = False
    for path, page in ((REFERENCE, reference()), (TROUBLESHOOTING, troubleshooting())):
        if not options.check:
            path.write_text(page)
        elif not path.exists() or path.read_text() != page:
            print(f"{path.name} is not current: run python docs/generate_reference.py", file=sys.stderr)
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
