"""Where the time of a request went, for its client."""

from __future__ import annotations

from typing import Final

SERVER_TIMING: Final = "Server-Timing"


def server_timing(*, parse: float, price: float, render: float) -> str:
    """The value of that header; the arguments are seconds, the header has milliseconds."""
    return f"parse;dur={parse * 1e3:.3f}, price;dur={price * 1e3:.3f}, render;dur={render * 1e3:.3f}"
