"""One task for each PINNService: a pass, then sleep until something is heard of it or its time has come.

Tasks of our own instead of kopf's daemons, because a daemon puts a finalizer on the object, and with it a deletion
hangs when the operator is gone. A task begins with the first event of its object and ends by itself
with the pass that no longer finds it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pinn_operator.kube.errors import ApiError, ClusterError, Unreachable
from pinn_operator.reconciler import Outcome, PassResult

Reconcile = Callable[[str, str], Awaitable[PassResult]]
Key = tuple[str, str]
_PATIENCE_SECONDS = 0.5

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds."""

    spacing: float = 0.1
    """Between the starts of two passes over the same object: what is heard in between is one wake."""
    stagger: float = 0.02
    """Between the first passes over different objects, so that a start with a thousand of them is no storm."""
    first_backoff: float = 1.0
    longest_backoff: float = 30.0
    outage_backoff: float = 3.0
    """Longest while the API server is away and few objects wait for it; it grows with their number."""
    outage_share: float = 0.1
    """So much longer for each object that waits: together they try no more than ten times a second."""
    at_once: int = 8
    """Passes at the same time. More would not be quicker: all would wait for the API server, until they time out."""
    urgent_at_once: int = 32
    """Passes over objects with a rollout in flight at the same time, beside those: they wait for nobody at rest."""


@dataclass(slots=True)
class _Loop:
    urgent: bool = False
    retry_after: float = 0.0
    """Seconds that the API server asked us to stay away after the last pass."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: a cancellation that meets a time-out of the same moment becomes that time-out (aiohttp's timer
    does so), and the task goes on with its next attempt. Whatever they end with is not of interest any more.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_PATIENCE_SECONDS)
        await asyncio.gather(*done, return_exceptions=True)


class Loops:
    """Starts, wakes and ends the tasks. Used from one event loop only."""

    def __init__(self, reconcile: Reconcile, *, rhythm: Rhythm | None = None) -> None:
        self._reconcile = reconcile
        self._rhythm = rhythm or Rhythm()
        self._loops: dict[Key, _Loop] = {}
        self._waiting_for_api: set[Key] = set()
        self._next_start = float("-inf")
        self._stopping = False
        self._turns = asyncio.Semaphore(self._rhythm.at_once)
        self._urgent_turns = asyncio.Semaphore(self._rhythm.urgent_at_once)

    def __len__(self) -> int:
        return len(self._loops)

    def wake(self, namespace: str, name: str, *, urgent: bool = False) -> None:
        """Something was heard of the object itself. An `urgent` one has a rollout in flight, and does not queue."""
        if self._stopping:
            return
        key = (namespace, name)
        loop = self._loops.get(key)
        if loop is None:
            loop = self._loops[key] = _Loop()
            delay = 0.0 if urgent else self._turn()
            loop.task = asyncio.create_task(self._run(key, loop, delay), name=f"pinnservice {namespace}/{name}")
        loop.urgent = urgent
        loop.wake.set()

    def ensure(self, namespace: str, name: str) -> None:
        """There is such an object. Nothing happens if that is known."""
        if (namespace, name) not in self._loops:
            self.wake(namespace, name)

    def wake_known(self, namespace: str, name: str) -> None:
        """Something was heard of one of its children. A label alone does not make a PINNService."""
        loop = self._loops.get((namespace, name))
        if loop is not None:
            loop.wake.set()

    def wake_all(self) -> None:
        """Something may have been missed: all are looked at, one after the other."""
        scheduler = asyncio.get_running_loop()
        for number, loop in enumerate(self._loops.values()):
            scheduler.call_later(number * self._rhythm.stagger, loop.wake.set)

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end. A pass that is cut short is repeated after the next start."""
        self._stopping = True
        await end_tasks(loop.task for loop in self._loops.values() if loop.task is not None)
        self._loops.clear()

    def _turn(self) -> float:
        """Seconds until the next free start."""
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self._rhythm.stagger * random.uniform(0.5, 1.5)  # noqa: S311
        return start - now

    async def _run(self, key: Key, loop: _Loop, delay: float) -> None:
        await asyncio.sleep(delay)
        failures = 0
        try:
            while True:
                async with self._urgent_turns if loop.urgent else self._turns:
                    # Before reading, or a change that is heard during the pass would be lost.
                    loop.wake.clear()
                    started = time.monotonic()
                    result = await self._pass(key, loop)
                if result is not None and result.delay is None:
                    if loop.wake.is_set():
                        continue
                    return
                failures = failures + 1 if result is None or result.outcome is Outcome.FAILED else 0
                await self._rest(key, loop, started, result, failures)
        finally:
            self._waiting_for_api.discard(key)
            if self._loops.get(key) is loop:
                del self._loops[key]

    async def _pass(self, key: Key, loop: _Loop) -> PassResult | None:
        """The result; None when it could not be carried through, which is logged here."""
        loop.retry_after = 0.0
        about = {"namespace": key[0], "service": key[1]}
        try:
            result = await self._reconcile(*key)
        except Unreachable as error:
            if key not in self._waiting_for_api:
                _LOG.warning("the API server is away", extra={**about, "error": str(error)})
                self._waiting_for_api.add(key)
            return None
        except ClusterError as error:
            _LOG.warning("pass failed", extra={**about, "error": str(error)})
            if isinstance(error, ApiError):
                loop.retry_after = error.retry_after or 0.0
            return None
        except Exception:  # noqa: BLE001
            # A fault of ours must not end the watch over this object, or over the others.
            _LOG.exception("pass failed", extra=about)
            return None
        self._api_is_back(key)
        return result

    async def _rest(self, key: Key, loop: _Loop, started: float, result: PassResult | None, failures: int) -> None:
        rhythm = self._rhythm
        delay = result.delay if result is not None else None
        spacing = rhythm.spacing
        if failures:
            backoff = self._backoff(key, failures)
            delay = backoff if delay is None else min(backoff, delay)
            # News may end the wait early, but a fault that news brings about itself must not spin.
            spacing = max(min(rhythm.first_backoff, backoff), loop.retry_after)
        try:
            async with asyncio.timeout(delay):
                await loop.wake.wait()
        except TimeoutError:
            pass
        rest = started + spacing - time.monotonic()
        if rest > 0:
            await asyncio.sleep(rest)

    def _backoff(self, key: Key, failures: int) -> float:
        rhythm = self._rhythm
        longest = rhythm.longest_backoff
        if key in self._waiting_for_api:
            longest = min(longest, max(rhythm.outage_backoff, rhythm.outage_share * len(self._waiting_for_api)))
        delay: float = min(longest, rhythm.first_backoff * 2 ** min(failures - 1, 16))
        return delay * random.uniform(0.5, 1.0)  # noqa: S311

    def _api_is_back(self, reached_by: Key) -> None:
        """Whoever waits for the API server learns from the first who reached it."""
        if not self._waiting_for_api:
            return
        waiting, self._waiting_for_api = self._waiting_for_api, set()
        _LOG.info("the API server is back")
        spread = self._rhythm.stagger * len(waiting)
        scheduler = asyncio.get_running_loop()
        for key in waiting - {reached_by}:
            loop = self._loops.get(key)
            if loop is not None:
                scheduler.call_later(random.uniform(0.0, spread), loop.wake.set)  # noqa: S311
