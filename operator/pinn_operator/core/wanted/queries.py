"""The PromQL of a custom gate: its placeholders."""

from __future__ import annotations

import difflib
import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields

QUERY_LIMIT: Final = 4096
PLACEHOLDERS: Final = ("canary", "stable", "canaryPods", "stablePods", "name", "namespace", "window")
KNOWN_PLACEHOLDERS: Final = ", ".join(f"{{{{ {name} }}}}" for name in PLACEHOLDERS)
_NAMES: Final = "|".join(PLACEHOLDERS)
QUERY: Final = re.compile(r"([^{]|[{]([^{]|$)|[{][{]( (" + _NAMES + r") |" + _NAMES + r")[}][}])*")
"""Text in which every `{{` begins a known placeholder, with one space inside on both sides or none."""
_ANY_PLACEHOLDER: Final = re.compile(r"\{\{([^{}]*)\}\}")


def parse_query(item: Fields) -> str | None:
    """The field `query` of a gate; None when it is absent."""
    query = item.optional_text("query", limit=QUERY_LIMIT)
    if query is None or not isinstance(item.raw("query"), str):
        return query
    if not query.strip():
        item.fault("query", "must be PromQL that gives one number, not an empty string")
    elif QUERY.fullmatch(query) is None:
        item.fault("query", _unknown(query))
    return query


def filled_for_checking(query: str) -> str:
    """A query as it would be sent, with made-up values: as long as real ones are, so that places are about right."""
    values = {"canary": "0a1b2c3d", "stable": "4e5f6a7b", "name": "eu-options", "namespace": "pricing", "window": "90s"}
    values |= {f"{side}Pods": f"{values['name']}-{values[side]}-[^-]+-[^-]+" for side in ("canary", "stable")}
    for name, value in values.items():
        query = query.replace(f"{{{{ {name} }}}}", value).replace(f"{{{{{name}}}}}", value)
    return query


def _unknown(query: str) -> str:
    known = f"known placeholders are {KNOWN_PLACEHOLDERS}"
    for match in _ANY_PLACEHOLDER.finditer(query):
        if QUERY.fullmatch(match[0]) is None:
            near = difflib.get_close_matches(match[1].strip(), PLACEHOLDERS, n=1)
            meant = f" (is {near[0]} meant?)" if near else ""
            return f"{known}, not {match[0][:64]!r}{meant}"
    return f"{known}; a {{{{ without }}}} is none"
