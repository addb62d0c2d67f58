"""Ask pods that run but are not ready what they are waiting for.

The answer only makes a reason readable ("the checksum of the weights is wrong"); a pod that does not answer, or cannot
be reached from here, simply has none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import aiohttp

from pinn_operator.core.observed import PodReport
from pinn_operator.core.text import cut

PATH = "/health/deployment/readiness"
_TEXT_LIMIT = 512
_SIZE_LIMIT = 64 * 1024


class PodReporter:
    """HTTP to pods. `limit` bounds how many are asked in one pass, `timeout` is in seconds for each."""

    def __init__(self, *, timeout: float = 1.0, limit: int = 4) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, addresses: Mapping[str, str]) -> Mapping[str, PodReport]:
        """Pod name → its report, for those that answered. `addresses` maps pod name to `host:port`."""
        chosen = list(addresses.items())[: self._limit]
        answers = await asyncio.gather(*(self._ask_one(address) for _, address in chosen))
        return {name: report for (name, _), report in zip(chosen, answers, strict=True) if report is not None}

    async def _ask_one(self, address: str) -> PodReport | None:
        if self._session is None:
            # Every pod is asked rarely: idle connections would only hold its shutdown up.
            connector = aiohttp.TCPConnector(force_close=True, limit=32)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        try:
            async with self._session.get(f"http://{address}{PATH}", allow_redirects=False) as response:
                body = await response.content.read(_SIZE_LIMIT)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        return parse_report(body)


def parse_report(body: bytes) -> PodReport | None:
    """`{"ready": false, "reason": "ChecksumMismatch", "message": "…"}`; None for anything without a reason."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("reason"), str) or not document["reason"]:
        return None
    message = document.get("message")
    said = cut(message, _TEXT_LIMIT) if isinstance(message, str) else ""
    return PodReport(reason=document["reason"][:128], message=said)
