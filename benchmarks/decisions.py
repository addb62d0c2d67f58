"""Who promotes bad revisions, and who rolls back good ones: simulated rollouts, judged by three sets of rules.

Each rollout is 30 minutes at 10 %, 10 at 50 % and 10 at 100 % of 30 requests a second over ten pods, after a quarter
of an hour of the stable revision alone. What the pods count is simulated in steps of half a second and read at each
pod's own moments; the windows are cut as the operator cuts them, and its own `compare`, `tails` and, in the bake,
`against_reference` with the answers of both revisions' pods to a few direct requests decide. Beside it
stand models of Argo Rollouts (an analysis that ends with more failed measurements than `failureLimit`) and of Flagger
(a rollback after `threshold` failed checks): share of good answers and a quantile of the latency in a window as long
as the interval, against fixed limits; at the defaults of their manuals and at the settings that decide best over all
of these scenarios.

    python -m benchmarks.decisions --rollouts 10000 --output benchmarks/results/decisions.json --plot decisions.png

That takes hours. With `--parts FOLDER` what is simulated is kept there after every batch, and the same command goes on
where it ended; with `--seconds` it ends by itself. The table is written after every scenario.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import emit, parser
from pinn_operator.core.gates import evidence
from pinn_operator.core.gates.apart import MOST_LEFT_OUT
from pinn_operator.core.gates.comparison import against_reference
from pinn_operator.core.gates.dispersion import dispersion
from pinn_operator.core.gates.evidence import (
    Budget,
    Counts,
    Reference,
    Window,
    compare,
    exceeds_limit,
    log_evidence_of_tails,
    tails,
)
from pinn_operator.core.gates.families import BEFORE_SECONDS
from pinn_operator.core.gates.latency import ASKED
from pinn_operator.core.rollout.doubt import UNEXPLAINED, Heard, heard, is_steady
from pinn_operator.core.rollout.slowness import AGAIN, FEWEST_ROUNDS, MOST_ROUNDS, SAYS, SEEMS_SLOW, said_by
from pinn_operator.core.status.values import DoubtStatus
from pinn_operator.core.verification.questions import BAKE_ANSWERS
from pinn_operator.core.wanted.profiles import gates_of
from pinn_operator.core.wanted.spec import Profile, Relative

Array = np.ndarray[Any, Any]

STEP = 0.5
PODS = 10
STAGES = ((10, 1800), (50, 600), (100, 600))
BEFORE = 60
"""Seconds before a stage of which stable's counters are known too: an interval that covers may begin there."""
HISTORY_SECONDS = 30.0
MEMORY_SECONDS = 15.0
BATCH = 50
OPINION_SECONDS, ROUND_SECONDS = 0.3, 0.5
"""Until pods that are asked directly have answered."""
WARM_UP_REQUESTS, WARM_UP_SECONDS = 20.0, 30.0
UNFINISHED = 75
"""Exit code of a run that ended before all was simulated."""
DEADLINE_SECONDS = 3600.0
"""How long after its hold a step that may not pass is watched before it is `Stalled`."""

_GATES = {gate.name: gate for gate in gates_of(Profile.STANDARD)}
ERRORS_PART = 0.9
"""The gate spends the rest on answers that are refused or redirected."""
CONFIDENCE = 0.999
"""`spec.analysis.confidence` as it is unless it is set."""


def _relative(name: str) -> Relative:
    found = _GATES[name].relative
    assert found is not None
    return found


@dataclass(frozen=True)
class Scenario:
    """What happens. `slow` and `very_slow` are shares of answers beyond 250 and 500 ms: of stable, of the canary."""

    name: str
    bad: bool
    ratio: float = 1.0
    base: float = 0.005
    rps: float = 30.0
    middle: bool = False
    """The canary turns bad at a random moment of the first step, not at its start."""
    upstream: float = 0.0
    """Requests of every pod fail for so many seconds, once, at a random moment of the first step."""
    upstream_share: float = 1.0
    """Of the requests that fail then."""
    in_bake: bool = False
    """The fault upstream, or the canary's, comes at a random moment of the last step, when stable has no traffic."""
    noise: bool = False
    """Three times an hour 3 % of all requests fail for a minute."""
    diurnal: bool = False
    """Traffic and errors of both go up and down by half, within two hours."""
    cluster: float = 1.0
    """Errors come in clusters of so many on average (geometric), one pod's next requests."""
    scrape: float = 0.5
    """Seconds between two reads of a pod: half a second is the operator's own, the others are Prometheus'."""
    slow: tuple[float, float] = (0.00097, 0.00097)
    very_slow: tuple[float, float] = (4e-6, 4e-6)
    cold: bool = False
    """In its first 5 s, 15 requests, each new canary pod answers a third of its requests slowly."""
    leak: float = 0.0
    """Growth of the canary's memory in MB/h; 1 MB of noise."""
    churn: bool = False
    """A stable pod is replaced every two minutes, and is away for 30 s; half as many pods join for ten minutes."""


# Latencies are lognormal, median 53 ms and sigma 0.5: p95 120 ms, p99 170 ms.
_ONE_IN_TEN = {"slow": (0.00097, 0.1009), "very_slow": (4e-6, 0.1)}
SCENARIOS = (
    Scenario("healthy", bad=False),
    Scenario("errors x2", bad=True, ratio=2),
    Scenario("errors x4", bad=True, ratio=4),
    Scenario("errors x10", bad=True, ratio=10),
    Scenario("all answers are errors, from a random moment", bad=True, ratio=200, middle=True),
    Scenario("p95 +20 %", bad=False, slow=(0.00097, 0.0031), very_slow=(4e-6, 1.9e-5)),
    Scenario("p95 +100 %", bad=True, slow=(0.00097, 0.0431), very_slow=(4e-6, 0.00096)),
    Scenario("one in ten slow", bad=True, **_ONE_IN_TEN),  # type: ignore[arg-type]
    Scenario("memory leak 20 MB/h", bad=True, leak=20.0),
    Scenario("cold caches", bad=False, cold=True),
    Scenario("low traffic, healthy", bad=False, rps=1.0),
    Scenario("low traffic, errors x10", bad=True, rps=1.0, ratio=10),
    Scenario("diurnal, healthy", bad=False, diurnal=True),
    Scenario("diurnal, errors x4", bad=True, diurnal=True, ratio=4),
    Scenario("noise that hits both", bad=False, noise=True),
    *(Scenario(f"upstream fault of {it} s", bad=False, upstream=it) for it in (5, 10, 30)),
    *(Scenario(f"clusters of mean {it}", bad=False, cluster=it) for it in (2, 5, 10)),
    Scenario("clusters of mean 5, errors x10", bad=True, cluster=5, ratio=10),
    *(Scenario(f"scrape every {it} s, healthy", bad=False, scrape=it) for it in (15, 30, 60)),
    *(
        Scenario(f"scrape every {scrape} s, upstream fault of {seconds} s", bad=False, scrape=scrape, upstream=seconds)
        for scrape in (15, 30, 60)
        for seconds in (5, 30)
    ),
    *(Scenario(f"scrape every {it} s, errors x10", bad=True, scrape=it, ratio=10) for it in (15, 30, 60)),
    *(
        Scenario(
            f"scrape every {scrape} s, upstream fault of {seconds} s in the bake",
            bad=False,
            scrape=scrape,
            upstream=seconds,
            in_bake=True,
        )
        for scrape in (0.5, 15, 60)
        for seconds in (5, 10, 30)
    ),
    *(
        Scenario(
            f"upstream fault of {seconds} s that fails {share:.0%} of the requests in the bake",
            bad=False,
            upstream=seconds,
            upstream_share=share,
            in_bake=True,
        )
        for share, seconds in ((0.12, 40), (0.3, 20), (0.5, 20))
    ),
    Scenario("all answers are errors, from a random moment of the bake", bad=True, ratio=200, in_bake=True),
    Scenario("pods that come and go, healthy", bad=False, churn=True),
    Scenario("pods that come and go, errors x4", bad=True, churn=True, ratio=4),
)


OFTEN = ("healthy", "errors x4", "errors x10")


@dataclass
class Stage:
    """A batch at one weight: cumulative counts by rollout, pod and step of time; the first `BEFORE` are before it."""

    weight: int
    seconds: int
    canary_pods: int
    requests: Array  # pod, time
    errors: Array  # rollout, pod, time
    slow: Array
    very_slow: Array
    memory: Array  # rollout, quarter minutes of this stage
    onset: Array  # rollout: seconds from the start of the rollout; the canary's fault's
    begin: float
    """Seconds from the start of the rollout."""
    fault: Array  # rollout: as `onset`, of the fault upstream


@dataclass
class Batch:
    scenario: Scenario
    stages: list[Stage]
    history: Array  # rollout, pod, bin of 30 s: errors
    history_slow: Array
    history_requests: Array  # bin: of one pod


def simulate(scenario: Scenario, rollouts: int, rng: np.random.Generator, minutes: int = 60) -> Batch:
    """`minutes`: of the stable revision alone, before the rollout."""
    onset = rng.uniform(60, STAGES[0][1] - 120, rollouts) if scenario.middle else np.zeros(rollouts)
    fault = rng.uniform(30, STAGES[0][1] - 60, rollouts)
    if scenario.in_bake:
        fault = sum(it[1] for it in STAGES[:-1]) + rng.uniform(30, STAGES[-1][1] - 120, rollouts)
        onset = onset if scenario.upstream else fault
    phase = rng.uniform(0, 2 * np.pi)
    bursts = rng.uniform(-3600, sum(it[1] for it in STAGES), (rollouts, 6))

    def level(times: Array) -> Array:
        return 1 + 0.5 * np.sin(2 * np.pi * times / 7200 + phase) if scenario.diurnal else np.ones_like(times)

    def shares(times: Array) -> Array:
        """Share of errors of a healthy pod: rollout, time."""
        share = np.broadcast_to(scenario.base * level(times), (rollouts, len(times))).copy()
        if scenario.noise:
            for burst in bursts.T:
                inside = (times >= burst[:, None]) & (times < burst[:, None] + 60)
                share[inside] = 0.03
        return share

    bins = round(60 * minutes / HISTORY_SECONDS)
    middles = HISTORY_SECONDS * (np.arange(-bins, 0) + 0.5)
    each = scenario.rps / PODS * level(middles) * HISTORY_SECONDS
    past = shares(middles)
    history = _scatter(rng, rollouts, np.repeat(each[None], PODS, 0), 0, past, past, scenario.cluster)
    history_slow = rng.poisson(scenario.slow[0] * each, (rollouts, PODS, bins)).astype(float)
    stages, begin = [], 0.0
    for weight, seconds in STAGES:
        times = begin + STEP * np.arange(-BEFORE / STEP, seconds / STEP) + STEP / 2
        canary_pods = max(1, PODS * weight // 100)
        present = np.ones((PODS, len(times)))
        if scenario.churn and canary_pods < PODS:
            for index, start in enumerate(np.arange(0, seconds, 120)):
                pod = canary_pods + index % (PODS - canary_pods)
                present[pod, (times >= begin + start) & (times < begin + start + 30)] = 0
            extra = (times >= begin + 300) & (times < begin + 900)
            present[-(PODS - canary_pods) // 2 :, ~extra] = 0
        present[:canary_pods, : int(BEFORE / STEP)] = 0
        sides = np.arange(PODS) < canary_pods
        rate = np.zeros_like(present)
        for side, part in ((sides, weight / 100), (~sides, 1 - weight / 100)):
            here = present[side].sum(0)
            rate[side] = np.where(here > 0, part * scenario.rps / np.maximum(here, 1), 0) * present[side]
        amount = rate * level(times) * STEP
        healthy = shares(times)
        worse = np.where(times >= onset[:, None], np.minimum(1.0, healthy * scenario.ratio), healthy)
        # Where everything fails nothing is left to chance.
        chance = np.where(worse < 1, worse, 0.0)
        errors = _scatter(rng, rollouts, amount, canary_pods, healthy, chance, scenario.cluster)
        if (worse >= 1).any():
            errors[:, :canary_pods] += (worse >= 1)[:, None, :] * amount[:canary_pods]
        if scenario.upstream:
            hit = (times >= fault[:, None]) & (times < fault[:, None] + scenario.upstream)
            failed = amount
            if scenario.upstream_share < 1:
                failed = np.minimum(amount, errors + rng.poisson(scenario.upstream_share * amount, errors.shape))
            errors = np.where(hit[:, None, :], failed, errors)
        slow_share = [np.full((rollouts, len(times)), it) for it in scenario.slow]
        if scenario.cold:
            slow_share[1][:, (times >= begin) & (times < begin + 5)] = 0.33
        slow = _scatter(rng, rollouts, amount, canary_pods, slow_share[0], slow_share[1], 1.0)
        very = np.zeros_like(slow)
        where = np.nonzero(slow)
        ratio = np.where(sides, scenario.very_slow[1] / scenario.slow[1], scenario.very_slow[0] / scenario.slow[0])
        very[where] = rng.binomial(slow[where].astype(int), np.minimum(1, ratio)[where[1]])
        moments = begin + np.arange(0, seconds, MEMORY_SECONDS)
        memory = 500 + scenario.leak * moments / 3600 + rng.normal(0, 1, (rollouts, len(moments)))
        stages.append(
            Stage(
                weight, seconds, canary_pods, np.cumsum(amount, -1), np.cumsum(errors, -1), np.cumsum(slow, -1),
                np.cumsum(very, -1), memory, onset, begin, fault,
            )
        )  # fmt: skip
        begin += seconds
    return Batch(scenario, stages, history, history_slow, each)


def _scatter(
    rng: np.random.Generator, rollouts: int, amount: Array, canary_pods: int, stable: Array, canary: Array,
    cluster: float,
) -> Array:  # fmt: skip
    """Bad requests by rollout, pod and time, of shares by rollout and time: a Poisson process, thinned."""
    out = np.zeros((rollouts, *amount.shape), np.float32)
    for pods, shares in ((slice(0, canary_pods), canary), (slice(canary_pods, PODS), stable)):
        here = amount[pods]
        if not here.size:
            continue
        top = float(shares.max() * here.max()) / cluster
        cells = rng.integers(0, rollouts * here.size, rng.poisson(top * rollouts * here.size))
        rollout, pod, moment = np.unravel_index(cells, (rollouts, *here.shape))
        rate = shares[rollout, moment] * here[pod, moment] / cluster
        kept = rng.random(len(cells)) * top < rate
        where = rollout[kept], pod[kept] + (pods.start or 0), moment[kept]
        if cluster <= 1:
            np.add.at(out, where, 1)
        else:
            _grow(rng, out, amount, zip(*(it.tolist() for it in where), strict=True), cluster)
    return out


def _grow(
    rng: np.random.Generator, out: Array, amount: Array, where: Iterable[tuple[int, int, int]], cluster: float
) -> None:  # fmt: skip
    """Clusters that take a pod's next requests until they are used up."""
    for rollout, pod, start in where:
        size, at = float(rng.geometric(1 / cluster)), start
        while size > 0 and at < amount.shape[1]:
            taken = min(size, max(0.0, amount[pod, at] - out[rollout, pod, at]))
            out[rollout, pod, at] += taken
            size -= taken
            at += 1


# The operator.


@dataclass
class Verdicts:
    """Of each rollout: when it was rejected (seconds since the fault), after how many canary requests; or held."""

    seconds: Array
    requests: Array
    held: Array

    @classmethod
    def none(cls, rollouts: int) -> Verdicts:
        return cls(np.full(rollouts, np.inf), np.full(rollouts, np.inf), np.zeros(rollouts, bool))

    def sooner(self, rollout: int, seconds: float, requests: float) -> None:
        """It was rejected then, if it was not before."""
        if seconds < self.seconds[rollout]:
            self.seconds[rollout], self.requests[rollout] = seconds, requests

    def first(self, rollouts: int) -> Verdicts:
        """Those of the first so many rollouts."""
        return Verdicts(self.seconds[:rollouts], self.requests[:rollouts], self.held[:rollouts])


class Operator:
    """The rules of this project: `compare`, `tails`, and the bounds of the profile Standard that let a step pass."""

    def judge(self, batch: Batch, rng: np.random.Generator) -> Verdicts:
        rollouts = batch.history.shape[0]
        verdicts = Verdicts.none(rollouts)
        begin = 0.0
        first, other = Budget.gate_share(errors=True, others=1)
        for number, stage in enumerate(batch.stages):
            grid = _Grid(stage, batch.scenario.scrape, rng)
            waiting = np.isinf(verdicts.seconds) & ~verdicts.held
            for kind, series, history, share, judge, name in (
                ("errors", stage.errors, batch.history, ERRORS_PART * first, compare, "error-rate"),
                ("slow", stage.slow, batch.history_slow, (1 - ASKED) * other, tails, "latency-p95"),
            ):
                budget = Budget(alpha=1 - CONFIDENCE, gate=share, stage=number, hold_seconds=stage.seconds)
                if kind == "slow" and not grid.stable:
                    continue  # how slow is slow, only stable of the same moment tells
                each = batch.scenario.rps * stage.weight / 100 / stage.canary_pods
                skip = min(WARM_UP_SECONDS, WARM_UP_REQUESTS / each) if kind == "slow" else 0.0
                judge = judge if grid.stable else _in_the_bake
                for rollout, seconds, requests in _rejections(
                    grid, series, history, batch, budget, judge, _relative(name), waiting, skip
                ):
                    verdicts.sooner(rollout, begin + seconds - stage.onset[rollout], requests)
                if kind == "slow":
                    for rollout, seconds, requests in _asked(grid, batch, budget, _relative(name), waiting, skip):
                        verdicts.sooner(rollout, begin + seconds - stage.onset[rollout], requests)
            waiting = np.isinf(verdicts.seconds) & ~verdicts.held
            verdicts.held |= waiting & ~_may_advance(stage, batch, number)
            begin += stage.seconds
        return verdicts


def _may_advance(stage: Stage, batch: Batch, number: int) -> Array:
    """The bounds of the profile that let a step pass: the share of errors, and the memory's growth.

    A step whose share is too high is watched on; whether it comes down in time is foretold from the scenario's rate.
    """
    canary = slice(0, stage.canary_pods)
    total = stage.requests[canary, -1].sum()
    bound = _GATES["error-rate"].advance
    assert bound is not None
    assert bound.below is not None
    excess = stage.errors[:, canary, -1].sum(1) - bound.below * total
    room = max(0.0, bound.below - min(1.0, batch.scenario.base * batch.scenario.ratio))
    good = excess < room * DEADLINE_SECONDS * total / stage.seconds
    for rollout in np.flatnonzero(~good).tolist():
        counts = _apart(stage, rollout, batch.scenario, bound.below)
        over = counts.bad - bound.below * counts.total
        good[rollout] = counts.total > 0 and over < room * DEADLINE_SECONDS * total / stage.seconds
    if number == 0 and batch.scenario.leak:
        for rollout, values in enumerate(stage.memory):
            # The median of all pairs' slopes (Theil and Sen), as the gate has it, after five minutes of warm-up.
            kept = values[20::5]
            first, second = np.triu_indices(len(kept), 1)
            slopes = (kept[second] - kept[first]) / ((second - first) * 5 * MEMORY_SECONDS)
            good[rollout] &= np.median(slopes) * 3600 < 10.0
    return np.asarray(good)


def _apart(stage: Stage, rollout: int, scenario: Scenario, limit: float) -> Counts:
    """The canary's requests of a stage outside of the stretches in which stable was above the limit as well; of the
    bake, since a fault upstream in which pods of stable failed the operator's own requests."""
    size = round(max(10.0, scenario.scrape) / STEP)
    edges = np.append(np.arange(round(BEFORE / STEP), stage.requests.shape[1] - 1, size), stage.requests.shape[1] - 1)
    canary, stable = slice(0, stage.canary_pods), slice(stage.canary_pods, PODS)

    def binned(pods: slice) -> tuple[Array, Array]:
        requests = np.diff(stage.requests[pods].sum(0)[edges])
        return requests, np.minimum(np.diff(stage.errors[rollout, pods].sum(0)[edges]), requests)

    total, bad = binned(canary)
    if stage.canary_pods == PODS:
        over = stage.fault[rollout] + scenario.upstream - stage.begin if scenario.upstream else 0.0
        kept = edges[:-1] * STEP - BEFORE >= over
        return Counts(float(total[kept].sum()), float(bad[kept].sum()))
    beside = zip(*binned(stable), strict=True)
    outside = [exceeds_limit(Counts(float(n), float(k)), limit=limit) for n, k in beside]
    kept = np.array([not any(outside[max(0, index - 1) : index + 2]) for index in range(len(outside))])
    if total[kept].sum() < (1 - MOST_LEFT_OUT) * total.sum():
        return Counts(0, 0)
    return Counts(float(total[kept].sum()), float(bad[kept].sum()))


def _in_the_bake(windows: Sequence[Window], whole: Window, *, budget: Budget, reference: Reference, **_: Any) -> Any:
    return against_reference(_GATES["error-rate"], windows, whole, reference, budget)


class _Grid:
    """At which moments each pod is read, and what that makes of each look's windows; all in steps of time."""

    def __init__(self, stage: Stage, scrape: float, rng: np.random.Generator) -> None:
        self.stage = stage
        self.rng = rng
        self.every = round(scrape / STEP)
        self.offsets = rng.integers(0, self.every, PODS)
        self.canary = list(range(stage.canary_pods))
        self.stable = list(range(stage.canary_pods, PODS))
        self.before = round(BEFORE / STEP)
        self.looks = np.arange(self.every, round(stage.seconds / STEP), max(1, self.every // 4))
        newest = [self.last(self.looks, pod) for pod in (self.stable or self.canary)]
        end = np.min(newest, axis=0)
        self.ends = {pod: self.last(end, pod) for pod in self.canary}
        self.least = max(1.5, 4 * scrape)

    def last(self, moments: Array, pod: int) -> Array:
        return np.asarray(self.offsets[pod] + (moments - self.offsets[pod]) // self.every * self.every)

    def next(self, moments: Array, pod: int) -> Array:
        return np.asarray(-(-(moments - self.offsets[pod]) // self.every) * self.every + self.offsets[pod])

    def window(
        self, series: Array, rollouts: Array, looks: Array, seconds: float | None, skip: float
    ) -> tuple[Array, ...]:  # fmt: skip
        """Length in steps, canary's total and bad, stable's total and bad, of looks; `seconds` None: the whole."""
        n, a, m, b = np.zeros((4, len(looks)))
        begins, ends = [], []
        for pod in self.canary:
            first = self.offsets[pod] + -(-round(skip / STEP) // self.every) * self.every
            end = np.maximum(self.ends[pod][looks], first)
            begin = np.full_like(end, first)
            if seconds is not None:
                begin = np.maximum(first, self.last(end - round(seconds / STEP), pod))
            begins.append(begin)
            ends.append(end)
            n = n + self._at(self.stage.requests, pod, end) - self._at(self.stage.requests, pod, begin)
            a = a + self._of(series, rollouts, pod, end) - self._of(series, rollouts, pod, begin)
        begin, end = np.min(begins, 0), np.max(ends, 0)
        for pod in self.stable:
            low, high = self.last(begin, pod), self.next(end, pod)
            b = b + self._of(series, rollouts, pod, high) - self._of(series, rollouts, pod, low)
            m = m + self._at(self.stage.requests, pod, np.mean(ends, 0).astype(int))
            m = m - self._at(self.stage.requests, pod, np.mean(begins, 0).astype(int))
        return end - begin, n, np.minimum(a, n), m, np.minimum(b, m)

    def bad(self, series: Array, skip: float) -> Array:
        """The canary's bad requests of the whole stage, by rollout and look."""
        found = np.zeros((len(series), len(self.looks)))
        for pod in self.canary:
            first = self.offsets[pod] + -(-round(skip / STEP) // self.every) * self.every
            first = min(first, series.shape[2] - self.before)
            ends = np.maximum(self.ends[pod], first)
            found += series[:, pod, self.before + ends - 1] - series[:, pod, self.before + first - 1][:, None]
        return found

    def _at(self, requests: Array, pod: int, moment: Array) -> Array:
        return np.asarray(requests[pod, np.clip(self.before + moment - 1, 0, requests.shape[1] - 1)])

    def _of(self, series: Array, rollouts: Array, pod: int, moment: Array) -> Array:
        return np.asarray(series[rollouts, pod, np.clip(self.before + moment - 1, 0, series.shape[2] - 1)])


def _rejections(
    grid: _Grid, series: Array, history: Array, batch: Batch, budget: Budget, judge: Any,
    relative: Relative, waiting: Array, skip: float, unexplained: int = 0,
) -> Iterator[tuple[int, float, float]]:  # fmt: skip
    """Rollout, second and canary requests of each rejection.

    Evidence grows with the canary's bad requests alone, so only looks that see a new one are judged; and of those only
    the ones that a bound on the evidence (the likelihood ratio at the best parameters) does not rule out.
    """
    candidates = np.flatnonzero(waiting)
    if not len(candidates):
        return
    bad = grid.bad(series[candidates], skip)
    fresh = np.diff(bad, axis=1, prepend=0) > 0
    fresh[:, 1:] |= fresh[:, :-1]
    rows, looks = np.nonzero(fresh & (bad >= 2))
    rollouts = candidates[rows]
    if not len(rollouts):
        return
    whole = grid.window(series, rollouts, looks, None, skip)
    lengths = [it for it in (1.5, 3.0, *(6.0 * 2**i for i in range(9))) if it >= grid.least]
    recent = [(it, grid.window(series, rollouts, looks, it, skip)) for it in lengths]
    prior_bad, prior_requests = history.sum((1, 2)), batch.history_requests.sum() * PODS
    # How many times as much as needed the evidence can be at most: it is divided by the dispersion yet.
    at_most = _bound(whole, prior_bad[rollouts], prior_requests) / budget.whole()
    for length, window in recent:
        needed = budget.recent(length, dead=length <= 3)
        bound = np.where(window[2] >= 3, _bound(window, prior_bad[rollouts], prior_requests), 0)
        at_most = np.maximum(at_most, bound / needed)
    remembered: dict[int, tuple[float, Reference | None]] = {}
    done: set[int] = set()
    for index in np.flatnonzero(at_most >= 1).tolist():
        rollout = int(rollouts[index])
        if rollout in done:
            continue
        if rollout not in remembered:
            clusters, reference = _memory(history[rollout], batch.history_requests)
            remembered[rollout] = clusters, reference
        clusters, reference = remembered[rollout]
        if at_most[index] < clusters:
            continue
        everything = _window(whole, index)
        windows = [
            _window(window, index)
            for length, window in recent
            if window[0][index] * STEP < 0.75 * everything.seconds and window[0][index] > 0
        ]
        seconds = float(grid.looks[looks[index]] * STEP)
        found = judge(
            windows, everything, relative=relative, budget=replace(budget, spent_seconds=seconds),
            # Of latencies the operator has none before a rollout.
            dispersion=clusters, reference=None if judge is tails else reference,
        )  # fmt: skip
        if found.worse:
            done.add(rollout)
            if not grid.stable:
                clients = found.window.canary.share if found.window else None
                before = unexplained if is_steady(clients, everything.canary.share) else 0
                settled = _settled(grid, batch.scenario, rollout, seconds, before, clients or 1.0)
                if settled is not None:
                    since, times = settled
                    alone = np.arange(len(waiting)) == rollout
                    yield from _rejections(grid, series, history, batch, budget, judge, relative, alone, since, times)
                    continue
                seconds += OPINION_SECONDS
            yield rollout, seconds, _requests_since(batch, grid.stage, rollout, seconds, everything)


def _asked(
    grid: _Grid, batch: Batch, budget: Budget, relative: Relative, waiting: Array, skip: float
) -> Iterator[tuple[int, float, float]]:  # fmt: skip
    """As `_rejections`, by what clients and the operator's own requests tell of slow answers together.

    As with a server that counts no request that nobody waits for: the slow ones of them are taken off clients' all the
    same.
    """
    series, shares, nobody = grid.stage.slow, batch.scenario.slow[::-1], DoubtStatus(datetime.min.replace(tzinfo=UTC))
    candidates = np.flatnonzero(waiting)
    rows, looks = np.nonzero(grid.bad(series[candidates], skip) >= 2) if len(candidates) else ((), ())
    if not len(rows):
        return
    rollouts = candidates[rows]
    whole = grid.window(series, rollouts, looks, None, skip)
    likely = _bound(whole, np.zeros(len(rollouts)), 0.0) >= SEEMS_SLOW
    needed = budget.whole() + log((1 - ASKED) / ASKED)
    doubts: dict[int, tuple[float, DoubtStatus, bool]] = {}
    for index in np.flatnonzero(likely).tolist():
        rollout, seconds = int(rollouts[index]), float(grid.looks[looks[index]] * STEP)
        after, doubt, done = doubts.get(rollout, (0.0, nobody, False))
        if done or seconds < after:
            continue
        everything = _window(whole, index)
        if log_evidence_of_tails(_less(everything, doubt), relative=relative) < SEEMS_SLOW:
            continue
        for number in range(1, MOST_ROUNDS + 1):
            seconds += ROUND_SECONDS
            ours, theirs = (int(grid.rng.binomial(BAKE_ANSWERS, share)) for share in shares)
            doubt = replace(
                doubt, canary_requests=doubt.canary_requests + BAKE_ANSWERS, canary_bad=doubt.canary_bad + ours,
                canary_scattered=doubt.canary_scattered + ours,
                stable_requests=doubt.stable_requests + BAKE_ANSWERS, stable_bad=doubt.stable_bad + theirs,
                stable_scattered=doubt.stable_scattered + theirs,
            )  # fmt: skip
            own = said_by(doubt, relative)
            clients = log_evidence_of_tails(_less(everything, doubt), relative=relative)
            if number >= FEWEST_ROUNDS and own >= SAYS and clients + own >= needed:
                done = True
                yield rollout, seconds, _requests_since(batch, grid.stage, rollout, seconds, everything)
                break
            if number >= FEWEST_ROUNDS and own <= 0:
                break
        doubts[rollout] = seconds + AGAIN.total_seconds(), doubt, done


def _less(window: Window, doubt: DoubtStatus) -> Window:
    """Clients' requests, without the slow ones of the operator's own."""
    bad = max(0.0, window.canary.bad - doubt.canary_bad), max(0.0, window.stable.bad - doubt.stable_bad)
    return Window(window.seconds, Counts(window.canary.total, bad[0]), Counts(window.stable.total, bad[1]))


def _requests_since(batch: Batch, now: Stage, rollout: int, seconds: float, whole: Window) -> float:
    """The canary's requests from its fault to a moment of a stage; within the first one, as far as they were read."""
    onset = float(now.onset[rollout])
    if now is batch.stages[0]:
        return whole.canary.total * (1 - onset / max(seconds, onset, 1.0))
    found = 0.0
    for stage in batch.stages[: batch.stages.index(now) + 1]:
        end = seconds if stage is now else stage.seconds
        rate = float(stage.requests[: stage.canary_pods, -1].sum()) / stage.seconds
        found += rate * max(0.0, end - max(0.0, onset - stage.begin))
    return found


def _settled(
    grid: _Grid, scenario: Scenario, rollout: int, seconds: float, unexplained: int, clients: float
) -> tuple[float, int] | None:  # fmt: skip
    """If the operator's own requests to pods of both revisions speak for the canary: since when its answers count then,
    and how often in a row its clients' bad ones (of the share `clients`) were left unexplained. None if it goes."""
    stage = grid.stage
    doubt, found = DoubtStatus(datetime.min.replace(tzinfo=UTC)), Heard.TOO_LITTLE
    while found is Heard.TOO_LITTLE:
        moment, begin = stage.begin + seconds, stage.fault[rollout]
        away = scenario.upstream_share if scenario.upstream and begin <= moment < begin + scenario.upstream else 0.0
        own = min(1.0, scenario.base * (scenario.ratio if moment >= stage.onset[rollout] else 1.0))
        ours, theirs = (
            int(grid.rng.binomial(BAKE_ANSWERS, 1.0 - (1.0 - away) * (1.0 - it))) for it in (own, scenario.base)
        )
        doubt = replace(
            doubt, rounds=doubt.rounds + 1,
            canary_bad=doubt.canary_bad + ours, canary_requests=doubt.canary_requests + BAKE_ANSWERS,
            stable_bad=doubt.stable_bad + theirs, stable_requests=doubt.stable_requests + BAKE_ANSWERS,
        )  # fmt: skip
        seconds += OPINION_SECONDS
        found = heard(doubt, clients)
    if found is Heard.AGAINST:
        return None
    if found is Heard.UPSTREAM:
        return seconds, 0
    return None if unexplained + 1 >= UNEXPLAINED else (seconds, unexplained + 1)


def _window(arrays: tuple[Array, ...], index: int) -> Window:
    length, n, a, m, b = (float(it[index]) for it in arrays)
    return Window(max(length * STEP, STEP), Counts(n, max(0.0, a)), Counts(max(0.0, m), max(0.0, b)))


def _bound(window: tuple[Array, ...], prior_bad: Array, prior_requests: float) -> Array:
    """No less than the evidence of these counts: the likelihood ratio at its largest."""
    _, n, a, m, b = window
    best = np.zeros(len(n))
    for bad, total in ((b, m), (b + prior_bad, m + prior_requests)):
        pooled = (a + bad + 0.5) / np.maximum(n + total, 1e-9)
        own, others = np.maximum(a, 1e-9) / np.maximum(n, 1e-9), (bad + 0.5) / np.maximum(total, 1e-9)
        ratio = a * np.log(own / pooled) + (bad + 0.5) * np.log(np.maximum(others, 1e-12) / pooled)
        best = np.maximum(best, np.where((own > others) & (total > 0), ratio, 0))
    return best


def _memory(history: Array, requests: Array) -> tuple[float, Reference | None]:
    """Dispersion of stable's hour before the rollout, and the hour as a reference."""
    pods = {
        str(pod): [Counts(float(n), min(float(n), float(bad))) for n, bad in zip(requests, bins, strict=True)]
        for pod, bins in enumerate(history)
    }
    minutes = zip(requests.reshape(-1, 2).sum(1) * PODS, history.sum(0).reshape(-1, 2).sum(1), strict=True)
    return dispersion(pods, bin_seconds=HISTORY_SECONDS), Reference.of([Counts(float(n), float(k)) for n, k in minutes])


# The rivals.


@dataclass(frozen=True)
class Rules:
    """Fixed limits, checked every `interval` seconds on the canary's last `interval`; rejected when `failures` failed.

    `success` is the least share of good answers; `slow` the most that may take longer than `milliseconds`; `growth`
    the most that memory may grow over ten minutes, in MB/h, or 0: not looked at.
    """

    interval: int
    success: float
    failures: int
    milliseconds: int
    slow: float
    growth: float = 0.0


DEFAULTS = {
    "Argo Rollouts, defaults": Rules(60, 0.95, 1, 500, 0.05),
    "Flagger, defaults": Rules(60, 0.99, 5, 500, 0.01),
}
GRID = {
    "Argo Rollouts": [
        Rules(interval, success, failures, ms, slow, growth)
        for interval, success, failures, (ms, slow), growth in product(
            (10, 30, 60, 120, 300), (0.95, 0.97, 0.98, 0.985, 0.99), (1, 2, 3, 4, 6),
            ((500, 0.05), (500, 0.01), (250, 0.05), (250, 0.02)), (0.0, 10.0, 15.0),
        )
    ],
}  # fmt: skip
GRID["Flagger"] = [it for it in GRID["Argo Rollouts"] if it.interval >= 10]


class Rival:
    """Counts failed measurements over the whole rollout, as both do."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def judge(self, batch: Batch, checks: dict[Any, list[Array]] | None = None) -> Verdicts:
        rules, rollouts = self.rules, batch.history.shape[0]
        verdicts = Verdicts.none(rollouts)
        failed = np.zeros(rollouts)
        begin = sent = 0.0
        onset = batch.stages[0].onset
        cache: dict[Any, list[Array]] = {} if checks is None else checks
        for number, stage in enumerate(batch.stages):
            bad = self._failures(cache, number, stage, batch.scenario)
            count = failed[:, None] + np.cumsum(bad, 1)
            late = count >= rules.failures
            first = np.argmax(late, 1)
            hit = late.any(1) & np.isinf(verdicts.seconds)
            at = (first + 1) * rules.interval
            rate = stage.requests[: stage.canary_pods, -1].sum() / stage.seconds
            verdicts.seconds[hit] = begin + at[hit] - onset[hit]
            verdicts.requests[hit] = (sent + rate * at)[hit] - onset[hit] * batch.scenario.rps / PODS
            failed = count[:, -1] if count.shape[1] else failed
            begin += stage.seconds
            sent += rate * stage.seconds
        return verdicts

    def _failures(self, cache: dict[Any, list[Array]], number: int, stage: Stage, scenario: Scenario) -> Array:
        rules = self.rules
        key = (number, rules.interval)
        if key not in cache:
            canary = slice(0, stage.canary_pods)
            window = max(rules.interval, round(4 * scenario.scrape))
            ends = BEFORE + np.arange(rules.interval, stage.seconds + 1, rules.interval)
            high = np.minimum((ends / STEP).astype(int) - 1, stage.requests.shape[1] - 1)
            low = np.maximum(high - round(window / STEP), round(BEFORE / STEP) - 1)
            total = stage.requests[canary].sum(0)
            n = np.maximum(total[high] - total[low], 1e-9)
            parts = [(it[:, canary, :].sum(1)) for it in (stage.errors, stage.slow, stage.very_slow)]
            growth = [_slope(stage.memory, float(end - BEFORE)) for end in ends] if scenario.leak else None
            cache[key] = [
                *((part[:, high] - part[:, low]) / n for part in parts),
                np.stack(growth, 1) if growth else np.zeros((parts[0].shape[0], len(ends))),
            ]
        errors, slow, very, growth_of = cache[key]
        bad = 1 - errors < rules.success
        bad = bad | ((very if rules.milliseconds == 500 else slow) > rules.slow)
        return bad | (growth_of > rules.growth) if rules.growth else bad


def _slope(memory: Array, end: float) -> Array:
    """MB/h over the last ten minutes, by least squares, as PromQL's `deriv`; 0 before there are ten."""
    last = int(end / MEMORY_SECONDS)
    if end < 600:
        return np.zeros(len(memory))
    values = memory[:, last - 40 : last]
    times = np.arange(values.shape[1]) * MEMORY_SECONDS
    times = times - times.mean()
    return np.asarray(values @ times / (times @ times) * 3600)


# The table.


def wrong(scenario: Scenario, verdicts: Verdicts) -> float:
    """Share of rollouts decided wrongly: bad and promoted, good and rolled back."""
    rejected = np.isfinite(verdicts.seconds)
    return float((~rejected & ~verdicts.held).mean() if scenario.bad else rejected.mean())


def row(scenario: Scenario, verdicts: Verdicts) -> dict[str, Any]:
    rejected = np.isfinite(verdicts.seconds)
    found: dict[str, Any] = {
        "badPromoted" if scenario.bad else "goodRolledBack": round(wrong(scenario, verdicts), 5),
        "held": round(float(verdicts.held.mean()), 5),
    }
    if scenario.bad and rejected.any():
        for key, values in (("seconds", verdicts.seconds), ("requests", verdicts.requests)):
            # Of all rollouts: one that is not rejected took forever.
            half, most = (float(np.quantile(values, it, method="higher")) for it in (0.5, 0.95))
            found[key] = {"median": _finite(half), "p95": _finite(most)}
    return found


def _finite(value: float) -> float | None:
    return round(value, 1) if np.isfinite(value) else None


def _joined(parts: Sequence[Verdicts]) -> Verdicts:
    return Verdicts(*(np.concatenate([getattr(it, name) for it in parts]) for name in ("seconds", "requests", "held")))


def best_rules(scenarios: Sequence[Scenario], rollouts: int, seed: int) -> dict[str, Rules]:
    """Of each rival's settings the one with the fewest wrong decisions over all scenarios, each counted alike."""
    scores = {rules: 0.0 for grid in GRID.values() for rules in grid}
    for index, scenario in enumerate(scenarios):
        batch = simulate(scenario, rollouts, np.random.default_rng([seed, index, 1]))
        cache: dict[Any, list[Array]] = {}
        for rules in scores:
            scores[rules] += wrong(scenario, Rival(rules).judge(batch, cache))
    return {f"{name}, best": min(grid, key=lambda it: scores[it]) for name, grid in GRID.items()}


@dataclass
class Parts:
    """What was simulated so far: of each scenario the verdicts of all rules, kept in a folder if there is one."""

    folder: Path | None
    seed: int
    minutes: int

    def settings(self, rollouts: int) -> dict[str, Rules]:
        """The rules that are compared; the best ones are looked for once.

        Raises:
            SystemExit: the folder was begun by other code or with other arguments.
        """
        kept = self.folder / "settings.json" if self.folder else None
        begun = {"seed": self.seed, "minutes": self.minutes, "code": _code()}
        if kept is not None and kept.exists():
            found = json.loads(kept.read_text())
            if found["begun"] != begun:
                raise SystemExit(f"{self.folder} was begun by other code or with other arguments: remove it")
            return {name: Rules(**rules) for name, rules in found["settings"].items()}
        settings = {**DEFAULTS, **best_rules(SCENARIOS, rollouts, self.seed)}
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            document = {"begun": begun, "settings": {name: asdict(rules) for name, rules in settings.items()}}
            kept.write_text(json.dumps(document))
        return settings

    def verdicts(
        self, index: int, settings: dict[str, Rules], rollouts: int, until: float
    ) -> tuple[dict[str, Verdicts], float]:  # fmt: skip
        """The verdicts of a scenario by rules, and the seconds that they took; fewer than `rollouts` if time is up."""
        scenario, found, spent = SCENARIOS[index], self._load(index), self._spent(index)
        done = len(next(iter(found.values())).held) if found else 0
        while done < rollouts and time.monotonic() < until:
            started = time.monotonic()
            rng = np.random.default_rng([self.seed, index, 0, done // BATCH])
            batch = simulate(scenario, min(BATCH, rollouts - done), rng, self.minutes)
            fresh = {"operator": Operator().judge(batch, rng)}
            fresh |= {name: Rival(rules).judge(batch) for name, rules in settings.items()}
            found = {name: _joined([found[name], it]) if found else it for name, it in fresh.items()}
            done = len(found["operator"].held)
            spent += time.monotonic() - started
            self._save(index, found, spent)
        return {name: it.first(rollouts) for name, it in found.items()}, spent * min(1.0, rollouts / max(1, done))

    def _path(self, index: int) -> Path | None:
        return self.folder / f"{index:02}.npz" if self.folder else None

    def _load(self, index: int) -> dict[str, Verdicts]:
        path = self._path(index)
        if path is None or not path.exists():
            return {}
        with np.load(path) as kept:
            names = [str(name) for name in kept["names"]]
            columns = zip(kept["seconds"], kept["requests"], kept["held"], strict=True)
            found = {name: Verdicts(*column) for name, column in zip(names, columns, strict=True)}
        # Batches are whole, but for the last one of a run that asked for fewer.
        return {name: it.first(len(it.held) // BATCH * BATCH) for name, it in found.items()}

    def _spent(self, index: int) -> float:
        path = self._path(index)
        if path is None or not path.exists():
            return 0.0
        with np.load(path) as kept:
            return float(kept["spent"])

    def _save(self, index: int, found: dict[str, Verdicts], spent: float) -> None:
        path = self._path(index)
        if path is None:
            return
        written = path.with_suffix(".new.npz")
        np.savez_compressed(
            written, names=np.array(list(found)), spent=np.array(spent),
            seconds=np.stack([it.seconds for it in found.values()]),
            requests=np.stack([it.requests for it in found.values()]),
            held=np.stack([it.held for it in found.values()]),
        )  # fmt: skip
        written.replace(path)


def _code() -> str:
    """Which rules are simulated: a fingerprint of this file and of the operator's statistics."""
    gates = Path(evidence.__file__).parent
    files = [Path(__file__), *sorted(gates.glob("*.py"))]
    return hashlib.sha256(b"".join(it.read_bytes() for it in files)).hexdigest()[:16]


def main() -> int:
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--rollouts", type=int, default=10000)
    options.add_argument("--often", type=int, help="rollouts of the scenarios whose goals are the narrowest")
    options.add_argument(
        "--minutes", type=int, default=round(BEFORE_SECONDS / 60), help="how long stable is known before the rollout"
    )
    options.add_argument("--seed", type=int, default=20261127)
    options.add_argument("--only", help="scenarios whose name contains this")
    options.add_argument("--parts", type=Path, help="keep what is done in this folder, and go on from it")
    options.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing more after so long")
    options.add_argument("--plot", type=Path, help="also draw the table here (PNG)")
    arguments = options.parse_args()
    until = time.monotonic() + arguments.seconds
    parts = Parts(arguments.parts, arguments.seed, arguments.minutes)
    settings = parts.settings(min(200, arguments.rollouts))
    rows: list[dict[str, Any]] = []
    unfinished = []
    for index, scenario in enumerate(SCENARIOS):
        if arguments.only and arguments.only not in scenario.name:
            continue
        rollouts = (arguments.often if scenario.name in OFTEN else None) or arguments.rollouts
        found, spent = parts.verdicts(index, settings, rollouts, until)
        done = len(found["operator"].held) if found else 0
        if done < rollouts:
            unfinished.append(f"{scenario.name}: {done} of {rollouts}")
            continue
        result = {name: row(scenario, it) for name, it in found.items()}
        speed = round(rollouts / spent, 2) if spent else None
        rows.append(
            {
                "scenario": scenario.name, "bad": scenario.bad, "rollouts": rollouts, "rolloutsPerSecond": speed,
                "rules": result,
            }
        )  # fmt: skip
        print(f"{scenario.name}: {rollouts} in {spent:.0f} s {result}", file=sys.stderr, flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps(table(arguments, settings, rows), indent=1) + "\n")
    if unfinished:
        print("not finished, the same command goes on: " + "; ".join(unfinished), file=sys.stderr)
        return UNFINISHED
    if arguments.plot:
        plot(rows, arguments.plot)
    return emit(table(arguments, settings, rows), arguments.output)


def table(arguments: argparse.Namespace, settings: dict[str, Rules], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document of the scenarios that are finished."""
    return {
        "test": "decisions", "seed": arguments.seed, "minutesBefore": arguments.minutes,
        "stages": [{"weight": weight, "seconds": seconds} for weight, seconds in STAGES],
        "settings": {name: asdict(rules) for name, rules in settings.items()},
        "rows": list(rows),
        "goals": goals(rows),
        "worseInBoth": worse_in_both(rows),
        "passed": all(goals(rows).values()),
    }  # fmt: skip


def goals(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What is wanted of the operator."""
    of = {it["scenario"]: it["rules"] for it in rows}

    good = [name for name in of if "goodRolledBack" in of[name]["operator"]]

    def rolled_back(*names: str) -> float:
        return max((of[name]["operator"]["goodRolledBack"] for name in good if name.startswith(names)), default=0.0)

    def requests(name: str) -> tuple[float, float]:
        found = of[name]["operator"]["requests"] if name in of else {"median": 0, "p95": 0}
        return (found["median"] or float("inf"), found["p95"] or float("inf"))

    return {
        "healthy rolled back at most 0.1 %": rolled_back("healthy") <= 0.001,
        "clusters and upstream faults, at every interval, at most 1 %": max(
            (rolled_back(name) for name in good if "clusters" in name or "upstream" in name), default=0.0
        )
        <= 0.01,
        "errors x4 within 712 canary requests, 1732 at 95 %": requests("errors x4") <= (712, 1732)
        and requests("errors x4")[1] <= 1732,
        "errors x10 within 143 canary requests, 371 at 95 %": requests("errors x10") <= (143, 371)
        and requests("errors x10")[1] <= 371,
        "one in ten slow within 60 canary requests": requests("one in ten slow")[0] <= 60,
        "nowhere worse than a rival in both columns": not worse_in_both(rows),
    }


def twin_of(name: str, rows: Sequence[dict[str, Any]]) -> str | None:
    """The scenario of the other kind in the same surroundings: of a bad revision the good one, and the reverse."""
    bad = {it["scenario"]: it["bad"] for it in rows}
    around = name.split(",")[0] if "," in name else name
    pairs = {
        "clusters of mean 5, errors x10": "clusters of mean 5",
        "clusters of mean 5": "clusters of mean 5, errors x10",
    }
    near = [it for it in bad if bad[it] != bad[name] and "," in it and it.split(",")[0] == around and "," in name]
    usual = "healthy" if bad[name] else "errors x4"
    return next((it for it in (pairs.get(name), *near, usual) if it in bad), None)


def worse_in_both(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Scenarios in which a rival promotes fewer bad ones and, in the same surroundings, rolls fewer good ones back."""
    of, found = {it["scenario"]: it["rules"] for it in rows}, []
    for it in rows:
        twin = twin_of(it["scenario"], rows)
        if twin is None:
            continue
        bad, good = (it["scenario"], twin) if it["bad"] else (twin, it["scenario"])
        for name in it["rules"]:
            worse = [of[bad]["operator"]["badPromoted"] > of[bad][name]["badPromoted"]]
            worse.append(of[good]["operator"]["goodRolledBack"] > of[good][name]["goodRolledBack"])
            if all(worse):
                found.append(f"{it['scenario']}: {name}")
    return found


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Wrong decisions, and seconds to reject, of each scenario and each set of rules."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(rows[0]["rules"])
    colors = dict(zip(names, ("#1b6ca8", "#d9822b", "#c23030", "#f2b824", "#e58a8a"), strict=False))
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 0.32 * len(rows) + 2), sharey=True)
    places = np.arange(len(rows))[::-1]
    for index, name in enumerate(names):
        shift = 0.3 - 0.15 * index
        wrongs = [100 * it["rules"][name]["badPromoted" if it["bad"] else "goodRolledBack"] for it in rows]
        style = {"color": colors[name], "s": 34 if index == 0 else 20, "marker": "D" if index == 0 else "o"}
        left.scatter(wrongs, places + shift, label=name, zorder=3, **style)
        seconds = [it["rules"][name].get("seconds", {}).get("median") for it in rows]
        points = [(it, place + shift) for it, place in zip(seconds, places, strict=True) if it]
        right.scatter([it for it, _ in points], [it for _, it in points], zorder=3, **style)
    left.set_xscale("symlog", linthresh=0.01)
    left.set_xlim(-0.003, 130)
    left.set_xlabel("wrong decisions, % of rollouts (bad ones promoted, good ones rolled back)")
    right.set_xscale("log")
    right.set_xlabel("seconds from fault to rejection, median")
    left.set_ylim(-0.6, len(rows) - 0.4)
    left.set_yticks(places, [f"{it['scenario']}{' (bad)' if it['bad'] else ''}" for it in rows], fontsize=8)
    for axes in (left, right):
        for place in places:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.5)
        axes.grid(axis="x", color="#eeeeee")
    figure.legend(*left.get_legend_handles_labels(), loc="upper center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.975))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
