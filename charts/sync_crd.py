"""Writes the chart's template of the CustomResourceDefinition from crds/pinnservices.yaml, its one source.

Run it after every change of the source; `--check` only tells whether that was done.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHARTS = Path(__file__).resolve().parent
SOURCE = CHARTS.parent / "crds" / "pinnservices.yaml"
TEMPLATE = CHARTS / "pinn-operator" / "templates" / "crd.yaml"

_NAME = "  name: pinnservices.pinn.dev\n"
_HEAD = """\
{{- /* Written by charts/sync_crd.py from crds/pinnservices.yaml: change that file, not this one. */}}
{{- if .Values.crds.enabled }}
"""
_KEEP = """\
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""
_FOOT = "{{- end }}\n"


def template_of(source: str) -> str:
    """The template that gives `source` again when rendered. Raises ValueError if it has no place for annotations."""
    before, name, after = source.partition(_NAME)
    if not name or "annotations:" in before + after.partition("\nspec:")[0]:
        raise ValueError(f"{SOURCE.name}: want metadata with `{_NAME.strip()}` and without annotations")
    return _HEAD + _escaped(before) + name + _KEEP + _escaped(after) + _FOOT


def _escaped(text: str) -> str:
    """Helm must not read the braces in descriptions as its own."""
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    return "".join(lines).replace("{{", '{{ "{{" }}')


def main(arguments: list[str]) -> int:
    """0 when the template is, or now is, that of the source."""
    wanted = template_of(SOURCE.read_text(encoding="utf-8"))
    if TEMPLATE.exists() and TEMPLATE.read_text(encoding="utf-8") == wanted:
        return 0
    if "--check" in arguments:
        print(f"{TEMPLATE.relative_to(CHARTS.parent)} is out of date: run python3 charts/sync_crd.py", file=sys.stderr)
        return 1
    TEMPLATE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
