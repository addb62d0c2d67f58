"""Which slots of the arena are free, and when a slot's memory goes back to the system."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from pinn_inference.server.batch.arena import Arena
from pinn_inference.server.errors import BodyTooLarge, Overloaded

log = logging.getLogger(__name__)

KEPT_BYTES: Final = 1024 * 1024
"""A slot that never held more keeps its memory: it would be needed again at once."""


class Slot:
    """One slot while a batch has it."""

    __slots__ = ("high_water", "number", "overdue", "timer", "used")

    def __init__(self, number: int) -> None:
        self.number = number
        self.used = 0
        self.high_water = 0
        self.timer: asyncio.TimerHandle | None = None
        self.overdue = False


class SlotPool:
    """Hands out slots, the one used last first, and bounds what they hold together. For one event loop."""

    def __init__(self, arena: Arena, *, max_body_bytes: int, memory_limit: int, rest_seconds: float) -> None:
        self._arena = arena
        self._max_body_bytes = max_body_bytes
        self._memory_limit = memory_limit
        self._rest_seconds = rest_seconds
        self._slots = [Slot(number) for number in range(arena.layout.slots)]
        self._free = deque(self._slots)
        self._used = 0
        self._returning: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def taken(self) -> int:
        return len(self._slots) - len(self._free)

    def take(self) -> Slot:
        """A slot for one batch; raises Overloaded if there is none."""
        if not self._free:
            raise Overloaded(queued=self.taken, asked=1, limit=len(self._slots), what="batches")
        return self._free.popleft()

    def write_request(self, slot: Slot, piece: bytes | bytearray | memoryview) -> None:
        """Add a piece to the slot's request; raises BodyTooLarge or Overloaded."""
        if slot.used + len(piece) > self._max_body_bytes:
            raise BodyTooLarge(limit=self._max_body_bytes)
        if self._used + len(piece) > self._memory_limit:
            raise Overloaded(queued=self._used, asked=len(piece), limit=self._memory_limit, what="bytes of batches")
        self._arena.write_request(slot.number, slot.used, piece)
        self.add(slot, len(piece))

    def add(self, slot: Slot, size: int) -> None:
        """So many bytes more lie in the slot."""
        slot.used += size
        self._used += size

    def release(self, slot: Slot) -> None:
        """The batch has been answered."""
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
        if not returning.cancelled() and (error := returning.exception()) is not None:
            log.warning("memory of a batch was not given back", extra={"slot": slot.number, "error": repr(error)})
