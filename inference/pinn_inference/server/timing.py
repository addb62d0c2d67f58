"""Where the time of a request went, for its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

SERVER_TIMING: Final = "Server-Timing"


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a request for `rows` options went, in seconds."""

    rows: int
    parse: float
    price: float
    render: float

    @property
    def header(self) -> str:
        return server_timing(parse=self.parse, price=self.price, render=self.render)


TIMING: Final = web.RequestKey("timing", Timing)
"""Where whoever answers a request for prices leaves it."""


def server_timing(*, parse: float, price: float, render: float) -> str:
    """The value of that header; the arguments are seconds, the header has milliseconds."""
    return f"parse;dur={parse * 1e3:.3f}, price;dur={price * 1e3:.3f}, render;dur={render * 1e3:.3f}"
