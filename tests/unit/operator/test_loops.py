"""When a resource is looked at. Rhythms are shortened; nothing here measures time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from pinn_operator.kube.errors import Forbidden, TooManyRequests, Unreachable
from pinn_operator.loops import Loops, Rhythm
from pinn_operator.reconciler import Outcome, PassResult

QUICK = Rhythm(spacing=0.001, stagger=0.0001, first_backoff=0.01, longest_backoff=0.05, outage_backoff=0.02)
QUIET = PassResult(Outcome.QUIET, 1000.0)
GONE = PassResult(Outcome.GONE, None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Passes:
    """A reconciler that returns or raises what it is told, by turns; the last for ever."""

    def __init__(self, *script: PassResult | Exception) -> None:
        self.script = list(script) or [QUIET]
        self.seen: list[tuple[str, str]] = []
        self.at_once: dict[tuple[str, str], int] = {}
        self.most = 0
        self.during: Callable[[], None] | None = None

    async def once(self, namespace: str, name: str) -> PassResult:
        key = (namespace, name)
        self.seen.append(key)
        self.at_once[key] = self.at_once.get(key, 0) + 1
        self.most = max(self.most, self.at_once[key])
        await asyncio.sleep(0)
        during, self.during = self.during, None
        if during is not None:
            during()
        self.at_once[key] -= 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step

    async def reach(self, count: int) -> None:
        await until(lambda: len(self.seen) >= count)


Start = Callable[..., tuple[Loops, Passes]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    made: list[Loops] = []

    def build(*script: PassResult | Exception, rhythm: Rhythm = QUICK) -> tuple[Loops, Passes]:
        passes = Passes(*script)
        made.append(Loops(passes.once, rhythm=rhythm))
        return made[-1], passes

    yield build
    for loops in made:
        await loops.stop()


async def settle() -> None:
    await asyncio.sleep(0.03)


async def test_the_first_news_of_a_resource_starts_its_loop(start: Start) -> None:
    loops, passes = start()
    loops.wake("pricing", "eu")
    await passes.reach(1)
    await settle()
    assert passes.seen == [("pricing", "eu")]


async def test_each_later_news_is_a_pass(start: Start) -> None:
    loops, passes = start()
    loops.wake("pricing", "eu")
    await passes.reach(1)
    loops.wake("pricing", "eu")
    await passes.reach(2)
    loops.wake_known("pricing", "eu")
    await passes.reach(3)


async def test_news_during_a_pass_is_not_lost(start: Start) -> None:
    loops, passes = start()
    passes.during = lambda: loops.wake_known("pricing", "eu")
    loops.wake("pricing", "eu")
    await passes.reach(2)


async def test_much_news_at_once_is_one_pass(start: Start) -> None:
    loops, passes = start(rhythm=Rhythm(spacing=0.02, stagger=0))
    loops.wake("pricing", "eu")
    await passes.reach(1)
    for _ in range(100):
        loops.wake("pricing", "eu")
    await passes.reach(2)
    await settle()
    assert len(passes.seen) <= 3


async def test_a_resource_is_never_in_two_passes_at_once(start: Start) -> None:
    loops, passes = start()
    for _ in range(20):
        loops.wake("pricing", "eu")
        await asyncio.sleep(0.001)
    assert passes.most == 1


async def test_the_decided_delay_brings_the_next_pass(start: Start) -> None:
    loops, passes = start(PassResult(Outcome.QUIET, 0.002))
    loops.wake("pricing", "eu")
    await passes.reach(5)


async def test_a_label_alone_does_not_make_a_resource(start: Start) -> None:
    loops, passes = start()
    loops.wake_known("pricing", "somebody-s-pod")
    await settle()
    assert passes.seen == []


async def test_a_resource_that_is_gone_has_no_loop_any_more(start: Start) -> None:
    loops, passes = start(GONE)
    loops.wake("pricing", "eu")
    await passes.reach(1)
    await settle()
    assert len(loops) == 0
    loops.wake("pricing", "eu")
    await passes.reach(2)


async def test_a_resource_that_was_made_again_while_it_was_seen_to_be_gone_is_looked_at_again(start: Start) -> None:
    loops, passes = start(GONE, QUIET)
    passes.during = lambda: loops.wake("pricing", "eu")
    loops.wake("pricing", "eu")
    await passes.reach(2)
    await settle()
    assert len(loops) == 1


@pytest.mark.parametrize(
    "fault",
    [Unreachable("refused"), Forbidden(403, "Forbidden", "no", request="GET"), RuntimeError("a fault of ours")],
    ids=["away", "refused", "a bug"],
)
async def test_a_pass_that_fails_is_repeated(start: Start, fault: Exception) -> None:
    loops, passes = start(fault, fault, QUIET)
    loops.wake("pricing", "eu")
    await passes.reach(3)
    await settle()
    assert len(passes.seen) == 3


async def test_a_write_that_fails_is_repeated_no_later_than_decided(start: Start) -> None:
    rhythm = Rhythm(spacing=0.001, stagger=0, first_backoff=0.002, longest_backoff=1000.0)
    loops, passes = start(PassResult(Outcome.FAILED, 0.005), rhythm=rhythm)
    loops.wake("pricing", "eu")
    await passes.reach(20)


async def test_news_that_a_fault_brings_about_itself_does_not_make_it_spin(start: Start) -> None:
    loops, passes = start(PassResult(Outcome.FAILED, 1000.0), rhythm=Rhythm(spacing=0, stagger=0, first_backoff=10.0))
    loops.wake("pricing", "eu")
    await passes.reach(1)
    for _ in range(20):
        loops.wake("pricing", "eu")
        await asyncio.sleep(0.001)
    assert len(passes.seen) == 1


async def test_an_api_server_that_asks_for_time_gets_it(start: Start) -> None:
    busy = TooManyRequests(429, "TooManyRequests", "slow down", request="GET", retry_after=1000.0)
    loops, passes = start(busy)
    loops.wake("pricing", "eu")
    await passes.reach(1)
    for _ in range(20):
        loops.wake("pricing", "eu")
        await asyncio.sleep(0.001)
    assert len(passes.seen) == 1


async def test_when_something_may_have_been_missed_all_are_looked_at(start: Start) -> None:
    loops, passes = start()
    for name in ("a", "b", "c"):
        loops.wake("pricing", name)
    await passes.reach(3)
    loops.wake_all()
    await passes.reach(6)


async def test_a_resync_starts_only_what_is_not_known(start: Start) -> None:
    loops, passes = start()
    loops.wake("pricing", "known")
    await passes.reach(1)
    loops.ensure("pricing", "known")
    loops.ensure("pricing", "missed")
    await passes.reach(2)
    await settle()
    assert passes.seen == [("pricing", "known"), ("pricing", "missed")]


async def test_whoever_waits_for_the_api_server_learns_from_the_first_who_reached_it() -> None:
    away = True
    seen: list[str] = []

    async def reconcile(namespace: str, name: str) -> PassResult:
        seen.append(name)
        if away:
            raise Unreachable("refused")
        return QUIET

    rhythm = Rhythm(spacing=0.001, stagger=0.0001, first_backoff=1000.0, longest_backoff=1000.0, outage_backoff=1000.0)
    loops = Loops(reconcile, rhythm=rhythm)
    for name in ("a", "b", "c"):
        loops.wake("pricing", name)
    await until(lambda: len(seen) >= 3)
    away = False
    loops.wake("pricing", "new")
    await until(lambda: len(seen) >= 4)
    await loops.stop()
    assert seen[3] == "new"


async def test_stopping_ends_all_loops_and_starts_no_more(start: Start) -> None:
    loops, passes = start()
    for number in range(20):
        loops.wake("pricing", f"s{number}")
    await passes.reach(20)
    await loops.stop()
    loops.wake("pricing", "late")
    await settle()
    assert len(passes.seen) == 20
    assert len(loops) == 0


async def test_many_resources_at_a_start_are_spread_but_a_rollout_in_flight_is_not_put_off(start: Start) -> None:
    loops, passes = start(rhythm=Rhythm(stagger=100.0))
    loops.wake("pricing", "first")
    loops.wake("pricing", "second")
    loops.wake("pricing", "rolling-out", urgent=True)
    await passes.reach(2)
    await settle()
    assert {name for _, name in passes.seen} == {"first", "rolling-out"}


async def test_few_passes_run_at_once_and_a_rollout_in_flight_does_not_wait_for_them() -> None:
    running: set[str] = set()
    most = 0
    let_go = asyncio.Event()

    async def reconcile(namespace: str, name: str) -> PassResult:
        nonlocal most
        running.add(name)
        most = max(most, len(running))
        await let_go.wait()
        running.discard(name)
        return QUIET

    loops = Loops(reconcile, rhythm=Rhythm(stagger=0.0, at_once=3, urgent_at_once=2))
    for number in range(20):
        loops.wake("pricing", f"s{number}")
    await until(lambda: len(running) == 3)
    loops.wake("pricing", "rolling-out", urgent=True)
    await until(lambda: "rolling-out" in running)
    assert most == 4
    let_go.set()
    await until(lambda: not running)
    await loops.stop()
    assert most == 4


async def test_a_pass_that_takes_its_cancellation_for_a_time_out_is_ended_all_the_same() -> None:
    swallowed = asyncio.Event()

    async def reconcile(namespace: str, name: str) -> PassResult:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            # What aiohttp makes of a cancellation that meets a time-out of the same moment.
            if swallowed.is_set():
                raise
            swallowed.set()
            raise Unreachable("no answer in time") from None
        return QUIET

    loops = Loops(reconcile, rhythm=QUICK)
    loops.wake("pricing", "eu")
    await settle()
    await asyncio.wait_for(loops.stop(), 30)
    assert swallowed.is_set()
    assert len(loops) == 0
