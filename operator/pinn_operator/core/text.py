"""Texts that are shown to people and have a limit."""

from __future__ import annotations


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text, cut between words where there are any; an ellipsis says that it was cut.

    >>> cut("the registry has no image pinn:2", 20)
    'the registry has no…'
    """
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    between = limit - 1 if text[limit - 1].isspace() else max(kept.rfind(" "), kept.rfind("\n"))
    return kept[: between if between >= limit // 2 else limit - 1].rstrip(" \n,;:") + "…"
