"""Shared memory of the batch process: places, bounds, what it costs, and how it is shared and given back."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterator

import pytest

from pinn_inference.server.batch.arena import Arena, ArenaLayout
from pinn_inference.server.batch.slots import KEPT_BYTES, SlotPool
from pinn_inference.server.errors import BodyTimeout, BodyTooLarge, Overloaded
from tests.support.server import eventually

PAGE = mmap.PAGESIZE


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create(ArenaLayout.of(slots=3, request_bytes=8 * KEPT_BYTES, answer_bytes=PAGE + 1))
    yield made
    made.close()


def pool_of(
    arena: Arena, *, max_body_bytes: int = 8 * KEPT_BYTES, memory_limit: int = 2**40, patience: float = 1.0
) -> SlotPool:
    return SlotPool(
        arena, max_body_bytes=max_body_bytes, memory_limit=memory_limit, rest_seconds=0.0, patience=patience
    )


# --- the arena --------------------------------------------------------------------------------------------------------


def test_parts_are_whole_pages_and_lie_one_after_the_other() -> None:
    layout = ArenaLayout.of(slots=2, request_bytes=1, answer_bytes=PAGE + 1)
    assert (layout.request_bytes, layout.answer_bytes) == (PAGE, 2 * PAGE)
    assert (layout.request_start(1), layout.answer_start(1), layout.total_bytes) == (3 * PAGE, 4 * PAGE, 6 * PAGE)


def test_what_one_view_writes_another_reads(arena: Arena) -> None:
    other = Arena(arena.layout, os.dup(arena.descriptor))
    arena.write_request(1, 0, b"question")
    arena.write_request(1, 8, b"?")
    other.write_answer(1, 0, b"answer")
    assert bytes(other.request(1, 9)) == b"question?"
    assert arena.copy_of_answer(1, 0, 6) == b"answer"
    assert bytes(arena.request(0, 9)) == bytes(9)
    other.close()


def test_a_request_cannot_be_changed_by_its_reader(arena: Arena) -> None:
    with pytest.raises(TypeError):
        arena.request(0, 1)[0] = 1


def test_nothing_is_written_past_the_end_of_a_part(arena: Arena) -> None:
    arena.write_answer(0, arena.layout.answer_bytes - 1, b"x")
    with pytest.raises(ValueError, match=f"{arena.layout.answer_bytes + 1} bytes do not fit"):
        arena.write_answer(0, arena.layout.answer_bytes - 1, b"xx")


def test_memory_is_taken_when_written_and_free_when_given_back(arena: Arena) -> None:
    assert arena.resident_bytes == 0
    arena.write_request(1, 0, b"x" * 5 * PAGE)
    arena.write_request(2, 0, b"y")
    assert arena.resident_bytes == 6 * PAGE
    arena.give_back(1)
    assert arena.resident_bytes == PAGE
    assert bytes(arena.request(1, 2)) == b"\0\0"
    assert bytes(arena.request(2, 1)) == b"y"


def test_closing_twice_is_closing_once() -> None:
    arena = Arena.create(ArenaLayout.of(slots=1, request_bytes=1, answer_bytes=1))
    descriptor = arena.descriptor
    arena.close()
    arena.close()
    with pytest.raises(OSError):
        os.fstat(descriptor)


# --- its slots --------------------------------------------------------------------------------------------------------


async def test_the_slot_used_last_is_used_next_because_its_memory_is_there(arena: Arena) -> None:
    pool = pool_of(arena)
    first, second = await pool.take(), await pool.take()
    pool.release(first)
    pool.release(second)
    assert await pool.take() is second


async def test_no_slot_is_an_overload(arena: Arena) -> None:
    pool = pool_of(arena)
    slots = [await pool.take() for _ in range(3)]
    with pytest.raises(Overloaded):
        await pool.take()
    pool.release(slots[1])
    assert await pool.take() is slots[1]


async def stalled(pool: SlotPool, size: int) -> None:
    """An upload that sends a little and then nothing."""
    slot = await pool.take()
    try:
        async with pool.arrival(slot):
            await pool.write_request(slot, b"x" * size)
            await asyncio.sleep(60)
    finally:
        pool.release(slot)


async def test_where_places_run_short_the_slowest_body_that_arrives_makes_room(arena: Arena) -> None:
    pool = pool_of(arena, patience=0.05)
    uploads = [asyncio.create_task(stalled(pool, size)) for size in (300, 100, 200)]
    slot = await pool.take()
    done, rest = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
    assert done == {uploads[1]}
    with pytest.raises(BodyTimeout, match="others waited for its place"):
        await uploads[1]
    pool.release(slot)
    for upload in rest:
        upload.cancel()
    await asyncio.wait(rest)


async def test_where_memory_runs_short_the_slowest_body_that_arrives_makes_room(arena: Arena) -> None:
    pool = pool_of(arena, memory_limit=1000, patience=0.05)
    upload = asyncio.create_task(stalled(pool, 900))
    await asyncio.sleep(0)
    slot = await pool.take()
    async with pool.arrival(slot):
        await pool.write_request(slot, b"x" * 500)
    with pytest.raises(BodyTimeout):
        await upload
    pool.release(slot)


async def test_a_body_that_arrives_as_fast_as_it_can_makes_room_for_nobody(arena: Arena) -> None:
    pool = pool_of(arena, memory_limit=8 * KEPT_BYTES, patience=0.05)
    upload = asyncio.create_task(stalled(pool, 8 * KEPT_BYTES))
    await asyncio.sleep(0)
    slot = await pool.take()
    with pytest.raises(Overloaded):
        await pool.write_request(slot, b"x")
    assert not upload.done()
    pool.release(slot)
    upload.cancel()
    await asyncio.wait([upload])


async def test_a_body_is_bounded_alone_and_with_others(arena: Arena) -> None:
    pool = pool_of(arena, max_body_bytes=100, memory_limit=150)
    first, second = await pool.take(), await pool.take()
    await pool.write_request(first, b"x" * 100)
    with pytest.raises(BodyTooLarge):
        await pool.write_request(first, b"x")
    with pytest.raises(Overloaded):
        await pool.write_request(second, b"x" * 51)
    pool.release(first)
    await pool.write_request(second, b"x" * 100)


async def test_memory_of_a_large_batch_goes_back_and_that_of_a_small_one_stays(arena: Arena) -> None:
    pool = pool_of(arena)
    small, large = await pool.take(), await pool.take()
    await pool.write_request(small, b"x" * PAGE)
    await pool.write_request(large, b"x" * (KEPT_BYTES + PAGE))
    pool.release(large)
    pool.release(small)
    await eventually(lambda: arena.resident_bytes == PAGE)
    await eventually(lambda: pool.taken == 0)
    await pool.close()


async def test_memory_that_is_due_while_in_use_goes_back_at_the_next_release(arena: Arena) -> None:
    pool = pool_of(arena)
    slot = await pool.take()
    await pool.write_request(slot, b"x" * (KEPT_BYTES + PAGE))
    pool.release(slot)
    assert await pool.take() is slot
    await pool.write_request(slot, b"y")
    await asyncio.sleep(0.01)
    assert arena.resident_bytes > KEPT_BYTES
    assert bytes(arena.request(slot.number, 1)) == b"y"
    pool.release(slot)
    await eventually(lambda: arena.resident_bytes == 0)
    await pool.close()
