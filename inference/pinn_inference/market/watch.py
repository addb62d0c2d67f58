"""Keeps the newest good market data of a file, while the file changes under it.

A mounted ConfigMap changes by a symbolic link that is swapped, so the file's own identity is looked at, through all
links, every few seconds; its bytes are read only when that has changed and then stayed the same for one look, so that a
file being written in place is not read by halves. What cannot be used changes nothing: the last good data stays, and
logs, metrics, health page and answers say so. Looking and parsing happen in a thread; the event loop swaps one
reference.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge

from pinn_inference.market.data import MAX_BYTES, SAMPLE, DataFault, MarketData, MarketDataError, parse_market_data

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 2.0
_FAULTS_TOLD: Final = 20

_Identity: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and of inode, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The data in use, and what is wrong with a newer file that is not.

    Without `data` there never was any good; with both the data is stale.
    """

    data: MarketData | None
    fault: str | None

    @property
    def status(self) -> str:
        """healthy, stale or unavailable."""
        if self.data is None:
            return "unavailable"
        return "healthy" if self.fault is None else "stale"


class MarketDataWatcher:
    """Watches one file; None is the sample that ships with the package. Use `life`, then read `standing`."""

    def __init__(
        self, path: Path | None = None, *, registry: CollectorRegistry, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._path = SAMPLE if path is None else path
        self._poll_seconds = poll_seconds
        self._standing = Standing(data=None, fault=f"{self._path.name} has not been read yet")
        self._looked_at: _Identity | None = None
        self._settled: _Identity | None = None
        self._as_of = Gauge(
            "pinn_market_data_as_of_timestamp_seconds",
            "Moment of the market data in use, in seconds since 1970; 0 without any.",
            registry=registry,
        )
        self._symbols = Gauge("pinn_market_data_symbols", "Symbols in the market data in use.", registry=registry)
        self._stale = Gauge(
            "pinn_market_data_stale",
            "1 while the market data file cannot be used and older data, or none, answers for it.",
            registry=registry,
        )
        self._loads = Counter(
            "pinn_market_data_loads",
            "Market data files read: loaded, or refused for their faults.",
            ("result",),
            registry=registry,
        )
        for result in ("loaded", "refused"):
            self._loads.labels(result)

    @property
    def standing(self) -> Standing:
        """The data in use now; immutable, so that one request sees one file."""
        return self._standing

    async def life(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - the signature of aiohttp's cleanup_ctx
        """Loads, then watches until it is closed; for `web.Application.cleanup_ctx`."""
        await asyncio.to_thread(self.look, at_once=True)
        watching = asyncio.create_task(self._watch(), name="market-data")
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    def health(self) -> dict[str, Any]:
        """A component for the health pages; prices do not need market data, so readiness never depends on it."""
        standing = self._standing
        document: dict[str, Any] = {"status": standing.status, "source": self._path.name, "message": standing.fault}
        if standing.data is not None:
            document |= {
                "as_of": standing.data.as_of.isoformat(),
                "sample_data": standing.data.sample_data,
                "symbols": len(standing.data.instruments),
                "sha256": standing.data.sha256,
            }
        return document

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await asyncio.to_thread(self.look)
            except Exception:
                log.exception("market data could not be looked at", extra={"source": str(self._path)})

    def look(self, *, at_once: bool = False) -> None:
        """Read the file if it has changed and rested; runs in a thread, one at a time."""
        try:
            identity = _identity(_regular(self._path))
            rested = at_once or identity == self._looked_at
            self._looked_at = identity
            if identity == self._settled or not rested:
                return
            with self._path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
                # Not the file that was looked at, or one that is being written: the next look will see it at rest.
                if _identity(os.fstat(file.fileno())) != identity:
                    return
        except OSError as error:
            # Not settled, whatever was: the file may become readable without becoming another one.
            self._settled = None
            fault = f"{self._path} cannot be read: {error.strerror or error}"
            if fault != self._standing.fault:
                self._refuse(fault)
            return
        self._settled = identity
        try:
            data = parse_market_data(content, file=self._path.name)
        except MarketDataError as error:
            self._refuse(_told(error.faults))
        else:
            self._accept(data)

    def _accept(self, data: MarketData) -> None:
        self._standing = Standing(data=data, fault=None)
        self._as_of.set(data.as_of.timestamp())
        self._symbols.set(len(data.instruments))
        self._stale.set(0)
        self._loads.labels("loaded").inc()
        log.info(
            "market data loaded",
            extra={
                "source": str(self._path),
                "sha256": data.sha256,
                "as_of": data.as_of.isoformat(),
                "symbols": len(data.instruments),
                "sample_data": data.sample_data,
            },
        )

    def _refuse(self, fault: str) -> None:
        data = self._standing.data
        self._standing = Standing(data=data, fault=fault)
        self._stale.set(1)
        self._loads.labels("refused").inc()
        log.warning(
            "market data refused",
            extra={
                "source": str(self._path),
                "faults": fault,
                "in_use": None if data is None else f"as of {data.as_of.isoformat()}, sha256 {data.sha256}",
            },
        )


def _regular(path: Path) -> os.stat_result:
    """The status of a file, through all links. Raises OSError, for a pipe too: opening that would wait for a writer."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is not a file")
    return status


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _told(faults: tuple[DataFault, ...]) -> str:
    more = f"; and {len(faults) - _FAULTS_TOLD} more" if len(faults) > _FAULTS_TOLD else ""
    return "; ".join(map(str, faults[:_FAULTS_TOLD])) + more
