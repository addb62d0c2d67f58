"""Trains a network: fixed points, seeded start, Levenberg–Marquardt, a record of how it went."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

import pinn_inference
from pinn_inference.pricing.network import Architecture, Domain, Network
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training.equation import Collocation, EquationResiduals, initial_parameters
from pinn_inference.training.levenberg_marquardt import Step, minimise

_CURVE_POINTS: Final = 150


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What is trained and for how long; each value is checked, ValueError names the field.

    Equal values give equal weights on one kind of processor; with `seconds` set the machine's speed counts too.
    """

    seed: int = 0
    iterations: int = 4000
    """Upper limit of accepted steps; 25 ms each on one core."""
    seconds: float | None = None
    """Stop after this many seconds even if iterations are left; None means no such limit."""
    architecture: Architecture = field(default_factory=Architecture)
    domain: Domain = field(default_factory=Domain)
    interior_points: int = 2048
    boundary_points: int = 128
    threads: int = 1
    """More do not help a network this small, and change the last digits of every sum."""

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 2**32 - 1),
            "iterations": (1, 1_000_000),
            "interior_points": (16, 100_000),
            "boundary_points": (2, 10_000),
            "threads": (1, 256),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, it must be within {low}..{high}")
        if self.seconds is not None and not self.seconds > 0.0:
            raise ValueError(f"seconds is {self.seconds}, it must be positive")
        hidden = self.architecture.hidden
        if not 1 <= len(hidden) <= 4 or not all(1 <= width <= 64 for width in hidden):
            raise ValueError(f"hidden is {hidden}, it must be one to four widths within 1..64")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands after an accepted step; `loss` is the sum of squared residuals, `damping` is μ."""

    iteration: int
    loss: float
    damping: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The trained network, the whole course of the loss, and whether the iteration ended by itself at a minimum."""

    network: Network
    config: TrainingConfig
    course: tuple[Progress, ...]
    converged: bool
    cpu_seconds: float
    """Time on all cores together: what the training costs, whoever else uses the machine."""

    def record(self) -> dict[str, Any]:
        """The training part of `model.json`, JSON-ready; the loss curve is thinned to 150 points."""
        last = self.course[-1]
        config = self.config
        return {
            "method": "Levenberg-Marquardt on the equation's residual, float64, no price labels",
            "seed": config.seed,
            "iterations": last.iteration,
            "seconds": round(last.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "converged": self.converged,
            "loss": last.loss,
            "interior_points": config.interior_points,
            "boundary_points": config.boundary_points,
            "versions": {
                "pinn-inference": pinn_inference.__version__,
                "tensorflow": load_tensorflow().__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "threads": config.threads},
            "loss_curve": [
                {"iteration": at.iteration, "seconds": round(at.seconds, 2), "loss": at.loss}
                for at in thin(self.course, _CURVE_POINTS)
            ],
        }


def train(config: TrainingConfig, *, report: Callable[[Progress], None]) -> TrainingResult:
    """Solves the equation with a network; `report` is called after every accepted step.

    Takes about 25 ms per iteration for 337 parameters and 2,176 points on one core.
    """
    tf = load_tensorflow(threads=config.threads)
    points = Collocation.quasi_random(
        config.domain, interior=config.interior_points, boundary=config.boundary_points, seed=config.seed
    )
    equation = EquationResiduals(tf, config.architecture, config.domain, points)
    start = tf.constant(initial_parameters(config.architecture, seed=config.seed))
    began, cpu_began = time.monotonic(), time.process_time()
    course: list[Progress] = []
    step: Step | None = None
    converged = True
    for step in minimise(tf, linearise=equation.linearise, residuals=equation, start=start):
        progress = Progress(
            iteration=step.iteration, loss=step.loss, damping=step.damping, seconds=time.monotonic() - began
        )
        course.append(progress)
        report(progress)
        if step.iteration >= config.iterations or (config.seconds is not None and progress.seconds >= config.seconds):
            converged = False
            break
    if step is None:
        raise ArithmeticError("no step reduced the residual: the start is not finite")
    network = Network.from_vector(step.parameters.numpy(), config.architecture, config.domain)
    return TrainingResult(
        network=network,
        config=config,
        course=tuple(course),
        converged=converged,
        cpu_seconds=time.process_time() - cpu_began,
    )


def thin(course: tuple[Progress, ...], count: int) -> list[Progress]:
    """At most `count` points of the course, even in the logarithm of the iteration, first and last included."""
    positions = np.unique(np.geomspace(1, len(course), count).round().astype(int)) - 1
    return [course[position] for position in positions]
