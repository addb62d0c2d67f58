"""Memory that the server and the batch process share: slots, each with room for one request and its answer.

The memory is an anonymous file (memfd) without a name in any file system, which the child inherits as a descriptor. Its
size is virtual: a page costs memory from when it is first written until it is given back, so a slot can be as large as
the largest request without anybody paying for it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass
from typing import Final

_PAGE: Final = mmap.PAGESIZE
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # from linux/falloc.h


@dataclass(frozen=True, slots=True)
class ArenaLayout:
    """How an arena is divided; sizes in bytes, rounded up to whole pages by `of`."""

    slots: int
    request_bytes: int
    answer_bytes: int

    @classmethod
    def of(cls, *, slots: int, request_bytes: int, answer_bytes: int) -> ArenaLayout:
        return cls(slots, _whole_pages(request_bytes), _whole_pages(answer_bytes))

    @property
    def slot_bytes(self) -> int:
        return self.request_bytes + self.answer_bytes

    @property
    def total_bytes(self) -> int:
        return self.slots * self.slot_bytes

    def request_start(self, slot: int) -> int:
        return slot * self.slot_bytes

    def answer_start(self, slot: int) -> int:
        return slot * self.slot_bytes + self.request_bytes


class Arena:
    """One process's view of the shared memory. Writing past the end of a part raises ValueError."""

    def __init__(self, layout: ArenaLayout, descriptor: int) -> None:
        self.layout = layout
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, layout.total_bytes)

    @classmethod
    def create(cls, layout: ArenaLayout) -> Arena:
        """A new one, empty; its descriptor is not inherited by programs unless they are given it."""
        descriptor = os.memfd_create("pinn-batch", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, layout.total_bytes)
            return cls(layout, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def write_request(self, slot: int, offset: int, piece: bytes | bytearray | memoryview) -> None:
        """Put a piece of a request at its place."""
        self._write(self.layout.request_start(slot), self.layout.request_bytes, offset, piece)

    def write_answer(self, slot: int, offset: int, piece: bytes | bytearray | memoryview) -> None:
        """Put a piece of an answer at its place."""
        self._write(self.layout.answer_start(slot), self.layout.answer_bytes, offset, piece)

    def request(self, slot: int, length: int) -> memoryview:
        """The request itself, not a copy; the arena cannot be closed while a view of it lives."""
        start = self.layout.request_start(slot)
        return memoryview(self._memory)[start : start + length].toreadonly()

    def copy_of_request(self, slot: int, length: int) -> bytes:
        start = self.layout.request_start(slot)
        return self._memory[start : start + length]

    def copy_of_answer(self, slot: int, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of an answer."""
        origin = self.layout.answer_start(slot)
        return self._memory[origin + start : origin + end]

    def give_back(self, slot: int) -> None:
        """Return a slot's memory to the system; its content is zeros afterwards.

        Frees some thousand pages in a millisecond or two, without the interpreter's lock.
        """
        status = _libc.fallocate(
            self.descriptor,
            _KEEP_SIZE | _PUNCH_HOLE,
            self.layout.request_start(slot),
            self.layout.slot_bytes,
        )
        if status != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    @property
    def resident_bytes(self) -> int:
        """Memory that the arena costs at the moment, in all processes together."""
        return os.fstat(self.descriptor).st_blocks * 512

    def close(self) -> None:
        """Unmap; the memory is gone when every process has. Raises BufferError while a view of a request lives."""
        self._memory.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _write(self, origin: int, room: int, offset: int, piece: bytes | bytearray | memoryview) -> None:
        end = offset + len(piece)
        if end > room:
            raise ValueError(f"{end} bytes do not fit into {room}")
        self._memory[origin + offset : origin + end] = piece


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
