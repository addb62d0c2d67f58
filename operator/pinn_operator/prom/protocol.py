"""Where metrics come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pinn_operator.core.samples import Answer, Query
from pinn_operator.core.wanted.spec import Prometheus


class LoginError(Exception):
    """What a Prometheus is to be shown cannot be had: a Secret, ConfigMap or file is absent, or holds what cannot be
    used. The message names it and never what it holds."""


class Login(Protocol):
    """What one Prometheus is shown with each question, and what its certificate must be signed by."""

    async def headers(self) -> Mapping[str, str]:
        """Headers of a request; `Authorization` among them. Raises LoginError."""

    async def certificates(self) -> str | None:
        """Certificates of its authority, PEM; None for those of the system. Raises LoginError."""


class MetricSource(Protocol):
    """Something that can be asked PromQL."""

    async def ask(self, query: Query, *, namespace: str = "") -> Answer:
        """Series, or a SourceError that says what is wrong. Never raises for a fault outside this process.

        Queries of one namespace wait for each other when they are many, and for nobody else's.
        """

    async def close(self) -> None:
        """Close the connections."""


class SourceProvider(Protocol):
    """Finds the metric source that a resource asks."""

    async def source(self, prometheus: Prometheus, namespace: str) -> MetricSource:
        """For a resource of that namespace."""
