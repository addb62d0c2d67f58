"""Which slots of the arena are free, and when a slot's memory goes back to the system.

A body takes its slot while it arrives. Where slots or memory run short, the slowest of those that arrive makes room: a
client that sends a little and then nothing costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from pinn_inference.server.batch.arena import Arena
from pinn_inference.server.errors import BodyTimeout, BodyTooLarge, Overloaded

log = logging.getLogger(__name__)

KEPT_BYTES: Final = 1024 * 1024
"""A slot that never held more keeps its memory: it would be needed again at once."""
STEADY_BYTES: Final = 1024 * 1024
"""A second. Bodies that arrive faster than that make room for nobody."""
_ROOM_SECONDS: Final = 2.0
"""So long a batch waits until bodies that arrive have made room, or have arrived."""


class Slot:
    """One slot while a batch has it."""

    __slots__ = ("high_water", "number", "overdue", "since", "timeout", "timer", "used")

    def __init__(self, number: int) -> None:
        self.number = number
        self.used = 0
        self.high_water = 0
        self.timer: asyncio.TimerHandle | None = None
        self.overdue = False
        self.since = 0.0
        self.timeout: asyncio.Timeout | None = None
        """Ends the arrival of its request; None when that is over."""


class SlotPool:
    """Hands out slots, the one used last first, and bounds what they hold together. For one event loop.

    A body has `patience` seconds before it can be asked to make room.
    """

    def __init__(
        self, arena: Arena, *, max_body_bytes: int, memory_limit: int, rest_seconds: float, patience: float = 1.0
    ) -> None:
        self._arena = arena
        self._max_body_bytes = max_body_bytes
        self._memory_limit = memory_limit
        self._rest_seconds = rest_seconds
        self._patience = patience
        self._slots = [Slot(number) for number in range(arena.layout.slots)]
        self._free = deque(self._slots)
        self._used = 0
        self._returning: set[asyncio.Future[None]] = set()
        self._closed = False
        self._arriving: set[Slot] = set()
        self._released = asyncio.Event()

    @property
    def taken(self) -> int:
        return len(self._slots) - len(self._free)

    async def take(self) -> Slot:
        """A slot for one batch; raises Overloaded if there is none."""
        await self._room(lambda: bool(self._free))
        if not self._free:
            raise Overloaded(queued=self.taken, asked=1, limit=len(self._slots), what="batches")
        return self._free.popleft()

    @asynccontextmanager
    async def arrival(self, slot: Slot) -> AsyncIterator[None]:
        """Around the arrival of a slot's request; raises BodyTimeout if it has to make room."""
        slot.since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None) as slot.timeout:
                self._arriving.add(slot)
                yield
        except TimeoutError:
            if slot.timeout is None or not slot.timeout.expired():
                raise
            raise BodyTimeout("the body arrived slowly while others waited for its place: send it at once") from None
        finally:
            self._arriving.discard(slot)
            slot.timeout = None

    async def write_request(self, slot: Slot, piece: bytes | bytearray | memoryview) -> None:
        """Add a piece to the slot's request; raises BodyTooLarge or Overloaded."""
        size = len(piece)
        if slot.used + size > self._max_body_bytes:
            raise BodyTooLarge(limit=self._max_body_bytes)
        if self._used + size > self._memory_limit:
            await self._room(lambda: self._used + size <= self._memory_limit, but=slot)
            if self._used + size > self._memory_limit:
                raise Overloaded(queued=self._used, asked=size, limit=self._memory_limit, what="bytes of batches")
        self._arena.write_request(slot.number, slot.used, piece)
        self.add(slot, size)

    def add(self, slot: Slot, size: int) -> None:
        """So many bytes more lie in the slot."""
        slot.used += size
        self._used += size

    def release(self, slot: Slot) -> None:
        """The batch has been answered."""
        self._released.set()
        self._used -= slot.used
        slot.high_water = max(slot.high_water, slot.used)
        slot.used = 0
        if slot.overdue and not self._closed:
            self._give_back(slot)
            return
        self._free.appendleft(slot)
        if slot.high_water > KEPT_BYTES and slot.timer is None and not self._closed:
            slot.timer = asyncio.get_running_loop().call_later(self._rest_seconds, self._rested, slot)

    async def close(self) -> None:
        self._closed = True
        for slot in self._slots:
            if slot.timer is not None:
                slot.timer.cancel()
        if self._returning:
            await asyncio.wait(self._returning)

    async def _room(self, is_there: Callable[[], bool], *, but: Slot | None = None) -> None:
        """Returns when there is room, or will be none soon; the slowest arrivals give theirs up for it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _ROOM_SECONDS
        while not is_there() and (arriving := self._arriving - {but}) and (now := loop.time()) < end:
            slowest = min(arriving, key=lambda slot: slot.used / (now - slot.since + 1e-9))
            patience = slowest.since + self._patience - now
            if patience <= 0.0:
                if slowest.used > STEADY_BYTES * (now - slowest.since) or slowest.timeout is None:
                    return
                slowest.timeout.reschedule(now)
                self._arriving.discard(slowest)
            self._released.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(patience, 0.1)):
                    await self._released.wait()

    def _rested(self, slot: Slot) -> None:
        slot.timer = None
        if slot in self._free:
            self._free.remove(slot)
            self._give_back(slot)
        else:
            slot.overdue = True

    def _give_back(self, slot: Slot) -> None:
        slot.overdue = False
        slot.high_water = 0
        # In a thread, because it takes milliseconds and does not need the interpreter's lock.
        returning = asyncio.get_running_loop().run_in_executor(None, self._arena.give_back, slot.number)
        self._returning.add(returning)
        returning.add_done_callback(lambda done: self._returned(slot, done))

    def _returned(self, slot: Slot, returning: asyncio.Future[None]) -> None:
        self._returning.discard(returning)
        self._free.append(slot)
        self._released.set()
        if not returning.cancelled() and (error := returning.exception()) is not None:
            log.warning("memory of a batch was not given back", extra={"slot": slot.number, "error": repr(error)})
