"""Keeps a metric source that does not answer from costing more than one time-out at a time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from pinn_operator.core.samples import GATE_KEY, Answer, Query, SourceError

AT_ONCE: Final = 8
"""Questions of one guard that are out at once."""
_REMEMBERED: Final = 2048
"""Guards; of more, those that were asked last."""


class Guard:
    """At most `concurrency` questions at once, each with `timeout` seconds for its turn and as many for its answer.

    After `failures` questions in a row without any answer, everybody is told so at once for `rest` seconds, except one
    question that tries. An answer that is an error (a bad query) shows that the source is there, and counts as one.
    That a turn did not come says nothing about the source: the questions before it may only be slow.
    """

    def __init__(
        self,
        *,
        name: str,
        timeout: float,
        concurrency: int = AT_ONCE,
        failures: int = 5,
        rest: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._timeout = timeout
        self._turns = asyncio.Semaphore(concurrency)
        self._limit = failures
        self._rest = rest
        self._clock = clock
        self._failures = 0
        self._resting_until = float("-inf")
        self._last = ""

    async def run(self, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `question()`, which raises `SourceSilent` when there was none."""
        tries = self._failures >= self._limit
        if tries and self._clock() < self._resting_until:
            return self._silent()
        if tries:
            # Whoever comes while this question is out is still resting.
            self._resting_until = self._clock() + self._rest
        try:
            async with asyncio.timeout(self._timeout):
                await self._turns.acquire()
        except TimeoutError:
            return SourceError(f"{self._name}: no turn within {self._timeout:g} s, the queries before it are slow")
        try:
            if self._failures >= self._limit and not tries:
                # It fell silent while this question waited.
                return self._silent()
            async with asyncio.timeout(self._timeout):
                answer = await question()
        except TimeoutError:
            return self._failed(f"no answer within {self._timeout:g} s")
        except SourceSilent as error:
            return self._failed(str(error))
        finally:
            self._turns.release()
        self._failures = 0
        return answer

    def _silent(self) -> SourceError:
        return SourceError(f"{self._name} does not answer ({self._last})")

    def _failed(self, message: str) -> SourceError:
        self._failures += 1
        self._last = message
        self._resting_until = self._clock() + self._rest
        return SourceError(f"{self._name}: {message}")


class Guards:
    """Two guards for each namespace: the slow queries of one team take no turn from another's, and end no other's; nor
    do those of custom gates take one from the built-in gates."""

    def __init__(self, *, name: str, timeout: float) -> None:
        self._name = name
        self._timeout = timeout
        self._guards: OrderedDict[tuple[str, bool], Guard] = OrderedDict()

    def of(self, namespace: str, query: Query) -> Guard:
        """The guard of a question of a namespace."""
        key = namespace, query.key.startswith(GATE_KEY)
        guard = self._guards.get(key)
        if guard is None:
            guard = self._guards[key] = Guard(name=self._name, timeout=self._timeout)
        self._guards.move_to_end(key)
        if len(self._guards) > _REMEMBERED:
            self._guards.popitem(last=False)
        return guard


class SourceSilent(Exception):
    """No answer at all: no connection, or it was lost."""
