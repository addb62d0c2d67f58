"""How the resident memory of a healthy server moves, and leaks to put on top of it.

A shape is drawn once for each pod: bytes by the seconds since its container started. The figures are those of a server
with TensorFlow: 550 MB at rest, 840 MB while XLA compiles.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

Shape = Callable[[float], float]
MB = 1e6
REST = 550 * MB
PEAK = 840 * MB


def plateau(rng: random.Random) -> Shape:
    """Nothing but the noise of small allocations."""
    rest = REST + rng.uniform(-30, 30) * MB
    return lambda at: rest


def compiling(rng: random.Random) -> Shape:
    """XLA compiles at the start, and again whenever a batch has a new size: a peak of half a minute, and a fall."""
    moments = [10.0]
    while moments[-1] < 86_400:
        moments.append(moments[-1] + rng.expovariate(1 / 420) + 60)

    def shape(at: float) -> float:
        begun = next((moment for moment in reversed(moments) if moment <= at), None)
        if begun is None:
            return 60 * MB + (REST - 60 * MB) * at / 10
        return PEAK if at - begun < 30 else REST

    return shape


def filling(rng: random.Random) -> Shape:
    """Caches that fill: up to 200 MB, ever slower."""
    size, time = rng.uniform(50, 200) * MB, rng.uniform(120, 600)
    return lambda at: REST + size * (1 - math.exp(-at / time))


def jumping(rng: random.Random) -> Shape:
    """Caches that are filled by a client's morning run: up to three jumps, of at most 120 MB each."""
    jumps = [(rng.uniform(300, 7200), rng.uniform(20, 120) * MB) for _ in range(rng.randint(1, 3))]
    return lambda at: REST + sum(size for moment, size in jumps if at >= moment)


def sawtooth(rng: random.Random) -> Shape:
    """Garbage that is collected every now and then."""
    period, height, phase = rng.uniform(5, 1200), rng.uniform(5, 80) * MB, rng.random()
    return lambda at: REST + height * ((at / period + phase) % 1)


def arenas(rng: random.Random) -> Shape:
    """TensorFlow takes memory in pieces of 16 to 64 MB as it meets larger batches, and keeps them: ever more rarely."""
    pieces = [(rng.expovariate(1 / 1500), rng.choice((16, 32, 64)) * MB) for _ in range(5)]
    return lambda at: REST + sum(size for moment, size in pieces if at >= moment)


def breathing(rng: random.Random) -> Shape:
    """With the load of the day."""
    period, height, phase = rng.uniform(3600, 86_400), rng.uniform(5, 40) * MB, rng.uniform(0, 2 * math.pi)
    return lambda at: REST + height * math.sin(2 * math.pi * at / period + phase)


HEALTHY: dict[str, Callable[[random.Random], Shape]] = {
    shape.__name__: shape for shape in (plateau, compiling, filling, jumping, sawtooth, arenas, breathing)
}


def leaking(shape: Shape, bytes_per_hour: float, *, since: float = 0.0) -> Shape:
    """The same, with a leak on top that begins some seconds after the start."""
    return lambda at: shape(at) + bytes_per_hour * max(0.0, at - since) / 3600


def samples(
    shape: Shape, rng: random.Random, begin: float, end: float, *, step: float = 15.0, noise: float = 1.0
) -> list[tuple[float, float]]:  # fmt: skip
    """What is read every `step` seconds from `begin` to `end`, with so many MB of noise."""
    count = int((end - begin) / step)
    moments = (begin + index * step for index in range(count + 1))
    return [(at, shape(at) + rng.gauss(0, noise) * MB) for at in moments]
