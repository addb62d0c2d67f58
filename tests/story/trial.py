"""Many rollouts in short: one world that stands at its first step, and what each of its pods answered drawn at random.

A `Trial` looks only when it is told to, and draws whole traces at once, so a hundred of them take seconds. What is
asked, answered, judged and decided is as in every story.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinn_operator.core.status.values import Phase, Status
from tests.story.prometheus import BOUNDS, EPOCH, HANDLER, LATENCY, REQUESTS, Key, Prometheus, SimulatedPod, key
from tests.story.reader import Reader
from tests.story.world import World, started

Shares = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Seconds since the canary got its weight, as an array, to the share of the requests that fail or are slow."""
BIN = 0.25
_QUICK, _SLOW = BOUNDS.index(0.005), BOUNDS.index(5.0)
_GOOD, _BAD = (key(REQUESTS, method="POST", handler=HANDLER, status=status) for status in ("200", "500"))


def steady(share: float) -> Shares:
    """Always this share."""
    return lambda times: np.full_like(times, share)


def during(begin: float, seconds: float, share: float, otherwise: float = 0.0) -> Shares:
    """This share from `begin` on for some seconds."""
    return lambda times: np.where((times >= begin) & (times < begin + seconds), share, otherwise)


_NONE = steady(0.0)


@cache
def _standing(weight: int, hold: int, sources: str, pods: int) -> World:
    """A world whose canary has just been seen with this weight."""
    spec: dict[str, Any] = {
        "replicas": pods,
        "strategy": {"type": "Canary", "canary": {"steps": [
            *([{"weight": weight, "holdSeconds": hold}] if weight < 100 else []),
            {"weight": 100, "holdSeconds": hold}]}},
        "analysis": {"intervalSeconds": 30, "abortIntervalSeconds": 2, "sources": [sources]},
    }  # fmt: skip
    world = started("pinn:2", spec=spec)
    world.run_until(lambda it: it.state.rollout is not None and it.state.rollout.programmed_time is not None
                    and it.state.rollout.weight == weight, tick=1)  # fmt: skip
    assert all(pod.ready for pod in world.pods)
    return world


@dataclass
class Draw:
    """What happens in a trial. Shares of the canary come on top of those that hit both revisions alike."""

    rate: float = 30.0
    both: Shares = _NONE
    canary: Shares = _NONE
    cluster: float = 0.0
    """Mean number of errors that come together, within 3 s on one pod; 0: each comes alone."""
    slow: Shares = _NONE
    canary_slow: Shares = _NONE


class Trial:
    """One rollout at a weight, for some seconds."""

    def __init__(
        self, draw: Draw, *, seed: int, seconds: float, interval: float = 15.0, weight: int = 10, hold: int = 86400,
        sources: str = "Prometheus", pods: int = 3, copies: Callable[[SimulatedPod], int] = lambda pod: 1,
    ) -> None:  # fmt: skip
        origin = _standing(weight, hold, sources, pods)
        self.world = world = copy.copy(origin)
        self.start = origin.seconds
        world.random = random.Random(seed)
        world.prometheus = Prometheus(interval=interval, seed=seed, copies=copies)
        world.reader, world.events, world.transitions, world.weights = Reader(), [], [], []
        self.random = np.random.default_rng(seed)
        self.times = np.arange(0.0, seconds, BIN)
        """Begins of the bins, in seconds since the canary got its weight."""
        self.answered: dict[str, float] = {}
        """Requests that each pod answered in the whole time."""
        self.lines: dict[str, dict[Key, NDArray[np.float64]]] = {}
        """The counters of each pod at the end of each bin."""
        assert world.state.canary is not None
        revision = world.state.canary.revision
        canaries = [pod for pod in world.pods if pod.revision == revision]
        stables = [pod for pod in world.pods if pod.revision != revision]
        for pods_of, share in ((canaries, weight / 100), (stables, 1 - weight / 100)):
            for pod in pods_of:
                self._draw(pod, draw, draw.rate * share / len(pods_of), mine=pods_of is canaries)
        self._scrape(interval, copies)
        self._read_up_to = 0.0

    def _draw(self, pod: SimulatedPod, draw: Draw, rate: float, *, mine: bool) -> None:
        times, rng = self.times, self.random
        requests = rng.poisson(rate * BIN, len(times))
        failing = draw.both(times)
        if draw.cluster:
            bad = self._clusters(rate * failing, draw.cluster)
            requests = np.maximum(requests, bad)
        else:
            bad = rng.binomial(requests, failing)
        slow = rng.binomial(requests, draw.slow(times))
        if mine:
            bad = bad + rng.binomial(requests - bad, draw.canary(times))
            slow = slow + rng.binomial(requests - slow, draw.canary_slow(times))
        total = np.cumsum(requests) + float(self.random.integers(100, 100_000))
        lines = {_BAD: np.cumsum(bad).astype(float)}
        lines[_GOOD] = total - lines[_BAD]
        late = np.cumsum(slow).astype(float)
        for place, bound in enumerate(BOUNDS):
            name = "+Inf" if bound == float("inf") else f"{bound:g}"
            count = np.zeros_like(total) if place < _QUICK else total if place >= _SLOW else total - late
            lines[key(f"{LATENCY}_bucket", le=name)] = count
        self.lines[pod.name] = lines
        self.answered[pod.name] = float(requests.sum())

    def _clusters(self, rates: NDArray[np.float64], mean: float) -> NDArray[np.int64]:
        """Errors in each bin: clusters of a geometric number within three seconds."""
        bad = np.zeros(len(rates), dtype=np.int64)
        for begin in np.repeat(np.arange(len(rates)), self.random.poisson(rates * BIN / mean)):
            places = begin + (self.random.random(self.random.geometric(1 / mean)) * 3.0 / BIN).astype(int)
            np.add.at(bad, places[places < len(bad)], 1)
        return bad

    def _scrape(self, interval: float, copies: Callable[[SimulatedPod], int]) -> None:
        [store] = self.world.prometheus.stores_of_replicas
        for pod in self.world.pods:
            for labels in self.world.prometheus.targets(pod):
                first = float(self.random.random()) * interval
                places = np.unique(np.round(np.arange(first, self.times[-1], interval) / BIN).astype(int))
                moments = [round(EPOCH + self.start + (place + 1) * BIN, 3) for place in places.tolist()]
                for line, counts in self.lines[pod.name].items():
                    series = store.get({"__name__": line[0], **dict(line[1]), **labels})
                    for moment, value in zip(moments, counts[places].tolist(), strict=True):
                        series.append(moment, value)

    def look(self, after: float) -> Status:
        """A pass so many seconds after the canary got its weight."""
        world = self.world
        world.seconds = self.start + after
        if world.reader.wanted or not self._read_up_to:
            reads = np.arange(self._read_up_to + 1, np.floor(after) + 1)
            places = np.round(reads / BIN).astype(int) - 1
            moments = (EPOCH + self.start + reads).tolist()
            for pod in world.pods:
                lines = self.lines[pod.name]
                read = np.array([counts[places] for counts in lines.values()]).T.tolist()
                for moment, values in zip(moments, read, strict=True):
                    world.reader.take(pod.name, moment, lines, values)
            self._read_up_to = float(np.floor(after))
        world.reconcile()
        return world.state

    def rolled_back(self, looks: Iterable[float]) -> str | None:
        """The reason of a rollback at one of these looks, or None."""
        for after in looks:
            state = self.look(after)
            if state.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
                assert state.last_rollback is not None
                return f"{state.last_rollback.reason} at {after} s: {state.last_rollback.message}"
        return None

    def canary_requests(self) -> float:
        """How many requests the canary really answered."""
        return sum(self.answered[pod.name] for pod in self.world.pods if pod.image == "pinn:2")
