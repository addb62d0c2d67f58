"""Keeps a metric source that does not answer from costing more than one time-out at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pinn_operator.core.samples import Answer, SourceError


class Guard:
    """At most `concurrency` questions at once, each with `timeout` seconds for its turn and its answer together.

    After `failures` questions in a row without any answer, everybody is told so at once for `rest` seconds, except one
    question that tries. An answer that is an error (a bad query) shows that the source is there, and counts as one.
    """

    def __init__(
        self,
        *,
        name: str,
        timeout: float,
        concurrency: int = 8,
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
        if self._failures >= self._limit and self._clock() < self._resting_until:
            return SourceError(f"{self._name} does not answer ({self._last})")
        # Whoever comes while this question is out is still resting.
        self._resting_until = self._clock() + self._rest
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                answer = await question()
        except TimeoutError:
            return self._failed(f"no answer within {self._timeout:g} s")
        except SourceSilent as error:
            return self._failed(str(error))
        self._failures = 0
        return answer

    def _failed(self, message: str) -> SourceError:
        self._failures += 1
        self._last = message
        self._resting_until = self._clock() + self._rest
        return SourceError(f"{self._name}: {message}")


class SourceSilent(Exception):
    """No answer at all: no connection, or it was lost."""
