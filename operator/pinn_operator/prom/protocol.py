"""Where metrics come from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from pinn_operator.core.samples import Answer, Query

TokenReader = Callable[[], Awaitable[str]]
"""Gives a bearer token. Raises TokenError when it cannot."""


class TokenError(Exception):
    """The Secret with the bearer token is absent, or holds none."""


class MetricSource(Protocol):
    """Something that can be asked PromQL."""

    async def ask(self, query: Query) -> Answer:
        """Series, or a SourceError that says what is wrong. Never raises for a fault outside this process."""

    async def close(self) -> None:
        """Close the connections."""
