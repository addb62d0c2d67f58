"""How `rivals.py` takes the time of a call.

It needs the standard library alone: the environment of one rival has nothing of ours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUND_SECONDS = 0.25


def calls_per_round(call: Callable[[], object], *, most: int = 20_000) -> int:
    """How many calls fill a round, by one call after a first that warms up."""
    call()
    began = time.perf_counter()
    call()
    return max(1, min(most, int(ROUND_SECONDS / (time.perf_counter() - began))))


def median_seconds(call: Callable[[], object], calls: int) -> float:
    """The median time of `calls` calls."""
    walls = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        walls.append(time.perf_counter() - began)
    return statistics.median(walls)
