"""Trains the American networks: the boundary first, then the premium above it, each refined where it is worst, then
what the premium owes to rate and dividend.

Every stage is Levenberg–Marquardt on fixed places. Between two stages the residual is looked at in many more places
and the worst of them are added (residual-based adaptive refinement, Lu, Meng, Mao and Karniadakis 2021): what counts is
the largest error, not the mean.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from types import ModuleType
from typing import Any, Final, TypeAlias

import numpy as np

import pinn_inference
from pinn_inference.pricing.american_artefact import PERCEPTRONS
from pinn_inference.pricing.american_integral import HISTORY_S_MIN, Places, places, quasi_random
from pinn_inference.pricing.american_network import (
    BOUNDARY_INPUTS,
    PREMIUM_INPUTS,
    AmericanDomain,
    AmericanNetworks,
    layers_from_vector,
    parameter_count,
    shapes,
)
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training.american_equation import (
    BoundaryResiduals,
    CarryResiduals,
    Fit,
    PremiumResiduals,
    carry_fits,
)
from pinn_inference.training.checkpoint import Checkpoint, Progress
from pinn_inference.training.levenberg_marquardt import minimise
from pinn_inference.training.trainer import thin

_CURVE_POINTS: Final = 150
_CHECKPOINT_SECONDS: Final = 10.0
_NODES_BOUNDARY: Final = 14
_NODES_PREMIUM: Final = 32
_CANDIDATES: Final = 30_000
_MARGIN: Final = 1.1
"""Networks are worst at the border of where they were trained: that is this much farther out than where they serve."""
_REFINED_DAMPING: Final = 1e-7
"""A refined problem is nearly solved when it begins."""
_Residuals: TypeAlias = BoundaryResiduals | PremiumResiduals | CarryResiduals
_Equation: TypeAlias = Callable[[FloatArray], _Residuals]
ITERATIONS: Final = ("boundary_iterations", "premium_iterations", "carry_iterations")
_CARRY: Final = ("lag", "rate", "dividend")
_FIRST_EXPONENT: Final = 0.4054651081081644
"""Output of the boundary's perceptron to begin with: b = −1.5·s."""


@dataclass(frozen=True, slots=True)
class AmericanTrainingConfig:
    """What is trained and for how long; ValueError names a field that is wrong.

    Equal values give equal weights on one kind of processor. `boundary_iterations` and `premium_iterations` hold one
    number of accepted steps for each stage; each stage after the first adds `refine` places to those it had.
    `carry_iterations` are those of the boundary for the rates, which goes on from the one before, and of the
    perceptrons of rate and dividend.
    """

    seed: int = 0
    boundary_hidden: tuple[int, ...] = (20, 20)
    premium_hidden: tuple[int, ...] = (20, 20)
    carry_hidden: tuple[int, ...] = (16, 16)
    domain: AmericanDomain = field(default_factory=AmericanDomain)
    boundary_points: int = 3000
    premium_points: int = 8000
    carry_points: int = 9000
    boundary_iterations: tuple[int, ...] = (1200, 800, 800)
    premium_iterations: tuple[int, ...] = (140, 110, 110, 110)
    carry_iterations: tuple[int, ...] = (40, 120, 150)
    refine: int = 800
    threads: int = 2

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 2**32 - 1),
            "boundary_points": (64, 100_000),
            "premium_points": (64, 100_000),
            "carry_points": (64, 100_000),
            "refine": (0, 10_000),
            "threads": (1, 256),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, it must be within {low}..{high}")
        if len(self.carry_iterations) != len(_CARRY):
            raise ValueError(f"carry_iterations is {self.carry_iterations}, it must be one number for each of {_CARRY}")
        for name in ITERATIONS:
            if not getattr(self, name) or not all(1 <= count <= 100_000 for count in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, it must be numbers within 1..100000")
        for name in ("boundary_hidden", "premium_hidden", "carry_hidden"):
            hidden = getattr(self, name)
            if not 1 <= len(hidden) <= 4 or not all(1 <= width <= 64 for width in hidden):
                raise ValueError(f"{name} is {hidden}, it must be one to four widths within 1..64")

    @property
    def iterations(self) -> int:
        """All stages together."""
        return sum(sum(getattr(self, name)) for name in ITERATIONS)

    def settings(self) -> dict[str, Any]:
        """What decides the weights, JSON-ready."""
        domain = self.domain
        return {
            "style": "american",
            "seed": self.seed,
            "boundary_hidden": list(self.boundary_hidden),
            "premium_hidden": list(self.premium_hidden),
            "carry_hidden": list(self.carry_hidden),
            "domain": [
                domain.s_min,
                domain.s_max,
                domain.kappa_min,
                domain.kappa_max,
                domain.carry_max,
                domain.z_max,
            ],
            "boundary_points": self.boundary_points,
            "premium_points": self.premium_points,
            "carry_points": self.carry_points,
            "boundary_iterations": list(self.boundary_iterations),
            "premium_iterations": list(self.premium_iterations),
            "carry_iterations": list(self.carry_iterations),
            "refine": self.refine,
            "threads": self.threads,
        }


@dataclass(frozen=True, slots=True)
class AmericanTrainingResult:
    """The trained networks and the course of the loss over all stages; each stage begins with a loss of its own."""

    networks: AmericanNetworks
    config: AmericanTrainingConfig
    course: tuple[Progress, ...]
    cpu_seconds: float

    def record(self) -> dict[str, Any]:
        """The training part of `model.json`, JSON-ready."""
        last = self.course[-1]
        return {
            "method": "Levenberg-Marquardt in float64 on both integral equations' residuals, without price labels; "
            "rate and dividend on the derivatives of the integral equation's solution",
            **self.config.settings(),
            "iterations": last.iteration,
            "seconds": round(last.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "loss": last.loss,
            "versions": {
                "pinn-inference": pinn_inference.__version__,
                "tensorflow": load_tensorflow().__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
            "loss_curve": [
                {"iteration": at.iteration, "seconds": round(at.seconds, 2), "loss": at.loss}
                for at in thin(self.course, _CURVE_POINTS)
            ],
        }


def train_american(
    config: AmericanTrainingConfig,
    *,
    report: Callable[[str, Progress], None],
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] | None = None,
) -> AmericanTrainingResult:
    """Solves both equations; `report` gets the stage's name and the progress after every accepted step.

    `save` and `resume` as in `trainer.train`. Raises CheckpointError when `resume` belongs to other settings.
    """
    tf = load_tensorflow(threads=config.threads)
    settings = config.settings()
    stages = _Stages(tf, config)
    course: list[Progress] = []
    before, cpu_before, damping = 0.0, 0.0, 1.0
    done, current = _Done((), ()), None
    state = resume
    if resume is not None:
        resume.require(settings)
        course.extend(resume.course)
        before, cpu_before, damping = course[-1].seconds, resume.cpu_seconds, resume.next_damping
        done, current = stages.unpack(resume.parameters)
    began, cpu_began = time.monotonic() - before, time.process_time() - cpu_before
    saved_at = time.monotonic()
    try:
        while len(done.finals) < stages.count:
            stage = len(done.finals)
            equation, start = stages.problem(done.finals)
            current = start if current is None else current
            left = stages.iterations[stage] - (_reached(course) - (done.ends[-1] if done.ends else 0))
            steps = minimise(
                tf,
                linearise=equation.linearise,
                residuals=equation,
                start=tf.constant(current),
                damping=damping,
                iteration=_reached(course),
            )
            for step in islice(steps, left):
                current = step.parameters.numpy()
                course.append(Progress(step.iteration, step.loss, step.damping, time.monotonic() - began))
                state = Checkpoint(
                    settings=settings,
                    parameters=stages.pack(done, current),
                    next_damping=step.next_damping,
                    cpu_seconds=time.process_time() - cpu_began,
                    course=tuple(course),
                )
                report(stages.name(stage), course[-1])
                if save is not None and time.monotonic() - saved_at >= _CHECKPOINT_SECONDS:
                    saved_at = time.monotonic()
                    save(state)
            done = _Done((*done.finals, current), (*done.ends, _reached(course)))
            current, damping = None, stages.first_damping(len(done.finals))
    finally:
        if save is not None and state is not None:
            save(state)
    if not course:
        raise ArithmeticError("no step reduced the residual: the start is not finite")
    return AmericanTrainingResult(
        networks=stages.networks(done.finals),
        config=config,
        course=tuple(course),
        cpu_seconds=time.process_time() - cpu_began,
    )


def _reached(course: list[Progress]) -> int:
    return course[-1].iteration if course else 0


@dataclass(frozen=True, slots=True)
class _Done:
    """Finished stages: the parameters each ended with, and its last iteration."""

    finals: tuple[FloatArray, ...]
    ends: tuple[int, ...]


class _Stages:
    """What is minimised in which stage; depends on the configuration and on what the stages before ended with alone."""

    def __init__(self, tf: ModuleType, config: AmericanTrainingConfig) -> None:
        self._tf = tf
        self._config = config
        served = config.domain
        self._domain = AmericanDomain(
            s_min=served.s_min / _MARGIN,
            s_max=served.s_max * _MARGIN,
            kappa_min=served.kappa_min / _MARGIN,
            kappa_max=served.kappa_max * _MARGIN,
            carry_max=served.carry_max * _MARGIN**2,
            z_max=served.z_max,
        )
        self._boundary_stages = len(config.boundary_iterations)
        self._value_stages = self._boundary_stages + len(config.premium_iterations)
        self.iterations = (*config.boundary_iterations, *config.premium_iterations, *config.carry_iterations)
        self.count = len(self.iterations)
        self._fits: dict[str, Fit] = {}

    def name(self, stage: int) -> str:
        """For progress lines."""
        if stage < self._boundary_stages:
            return f"boundary {stage + 1}/{self._boundary_stages}"
        if stage < self._value_stages:
            return f"premium {stage - self._boundary_stages + 1}/{self._value_stages - self._boundary_stages}"
        return f"{_CARRY[stage - self._value_stages]} 1/1"

    def first_damping(self, stage: int) -> float:
        """1 where a network begins, little where it is refined."""
        begins = stage in (0, self._boundary_stages) or stage > self._value_stages
        return 1.0 if begins else _REFINED_DAMPING

    def problem(self, finals: tuple[FloatArray, ...]) -> tuple[_Residuals, FloatArray]:
        """The equation of the stage after these, and where it starts."""
        stage, config = len(finals), self._config
        if stage >= self._value_stages:
            return self._carry(finals, _CARRY[stage - self._value_stages])
        if stage < self._boundary_stages:
            unit = self._refined(quasi_random(3, config.boundary_points, seed=config.seed), finals, self._boundary)
            if stage > 0:
                return self._boundary(unit), finals[-1]
            return self._boundary(unit), initial_vector(
                BOUNDARY_INPUTS, config.boundary_hidden, seed=config.seed, output=_FIRST_EXPONENT
            )
        premium = self._premium_of(finals)
        unit = quasi_random(4, config.premium_points, seed=config.seed + 1)
        equation = premium(self._refined(unit, finals[self._boundary_stages :], premium))
        if stage > self._boundary_stages:
            return equation, finals[-1]
        return equation, initial_vector(PREMIUM_INPUTS, config.premium_hidden, seed=config.seed + 1, output=0.0)

    def networks(self, finals: tuple[FloatArray, ...]) -> AmericanNetworks:
        config = self._config
        return AmericanNetworks(
            boundary=self._boundary_layers(finals),
            premium=layers_from_vector(finals[self._value_stages - 1], PREMIUM_INPUTS, config.premium_hidden),
            domain=config.domain,
            **{
                name: layers_from_vector(final, PERCEPTRONS[name], self._carry_hidden(name))
                for name, final in zip(_CARRY, finals[self._value_stages :], strict=True)
            },
        )

    def pack(self, done: _Done, current: FloatArray) -> FloatArray:
        """Everything a later run needs, in one vector."""
        return np.concatenate([[len(done.finals)], np.array(done.ends, dtype=np.float64), *done.finals, current])

    def unpack(self, vector: FloatArray) -> tuple[_Done, FloatArray]:
        count = int(vector[0])
        ends = tuple(int(end) for end in vector[1 : 1 + count])
        finals, start = [], 1 + count
        for stage in range(count):
            size = self._size(stage)
            finals.append(vector[start : start + size])
            start += size
        return _Done(tuple(finals), ends), vector[start:]

    def _size(self, stage: int) -> int:
        config = self._config
        if stage < self._boundary_stages:
            return parameter_count(BOUNDARY_INPUTS, config.boundary_hidden)
        if stage < self._value_stages:
            return parameter_count(PREMIUM_INPUTS, config.premium_hidden)
        name = _CARRY[stage - self._value_stages]
        return parameter_count(PERCEPTRONS[name], self._carry_hidden(name))

    def _carry_hidden(self, name: str) -> tuple[int, ...]:
        return self._config.boundary_hidden if name == "lag" else self._config.carry_hidden

    def _boundary(self, unit: FloatArray) -> BoundaryResiduals:
        at = places(unit, self._domain, s_min=HISTORY_S_MIN)
        return BoundaryResiduals(self._tf, self._config.boundary_hidden, at, nodes=_NODES_BOUNDARY)

    def _boundary_layers(self, finals: tuple[FloatArray, ...]) -> tuple[Layer, ...]:
        return layers_from_vector(finals[self._boundary_stages - 1], BOUNDARY_INPUTS, self._config.boundary_hidden)

    def _above(self, unit: FloatArray) -> tuple[FloatArray, Places]:
        """z and places for points of the unit cube, shape (n, 4)."""
        return self._domain.z_max * unit[:, 3] ** 2, places(unit[:, :3], self._domain, s_min=self._domain.s_min)

    def _premium_of(self, finals: tuple[FloatArray, ...]) -> Callable[[FloatArray], PremiumResiduals]:
        boundary, hidden = self._boundary_layers(finals), self._config.premium_hidden
        return lambda unit: PremiumResiduals(self._tf, hidden, boundary, *self._above(unit), nodes=_NODES_PREMIUM)

    def _carry(self, finals: tuple[FloatArray, ...], name: str) -> tuple[CarryResiduals, FloatArray]:
        config = self._config
        seed = config.seed + 1
        if not self._fits:  # once for all three: every point is a solution of the integral equation
            unit = quasi_random(4, config.carry_points, seed=seed)
            self._fits = carry_fits(self._boundary_layers(finals), *self._above(unit))
        equation = CarryResiduals(self._tf, self._carry_hidden(name), self._fits[name])
        if name == "lag":
            return equation, finals[self._boundary_stages - 1]
        return equation, initial_vector(PREMIUM_INPUTS, config.carry_hidden, seed=seed, output=0.0)

    def _refined(self, unit: FloatArray, finals: tuple[FloatArray, ...], equation: _Equation) -> FloatArray:
        """The points of the unit cube, and after each finished stage the worst of many candidates."""
        config = self._config
        for stage, final in enumerate(finals):
            candidates = quasi_random(unit.shape[1], _CANDIDATES, seed=config.seed + 1000 * (stage + 1))
            # In parts: the boundary's residuals hold fifteen evaluations of the network each.
            residuals = np.concatenate(
                [
                    np.abs(equation(part)(self._tf.constant(final)).numpy()) * np.sqrt(len(part))
                    for part in np.array_split(candidates, 5)
                ]
            )
            worst = np.argsort(-residuals, kind="stable")[: config.refine]
            unit = np.concatenate([unit, candidates[np.sort(worst)]])
        return unit


def initial_vector(inputs: int, hidden: tuple[int, ...], *, seed: int, output: float) -> FloatArray:
    """Kernels normal with variance 1/inputs (a tenth of that deviation in the last), hidden biases uniform in ±1/2."""
    rng = np.random.default_rng([seed, inputs])
    parts: list[FloatArray] = []
    for rows, columns in shapes(inputs, hidden):
        kernel = rng.normal(0.0, np.sqrt(1.0 / rows), rows * columns)
        parts.append(0.1 * kernel if columns == 1 else kernel)
        parts.append(np.full(1, output) if columns == 1 else rng.uniform(-0.5, 0.5, columns))
    return np.concatenate(parts)
