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
from pinn_inference.training.checkpoint import Checkpoint, Progress
from pinn_inference.training.equation import Collocation, EquationResiduals, initial_parameters
from pinn_inference.training.levenberg_marquardt import minimise

_CURVE_POINTS: Final = 150
_CHECKPOINT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What is trained and for how long; each value is checked, ValueError names the field.

    Equal values give equal weights on one kind of processor; with `seconds` set the machine's speed counts too.
    """

    seed: int = 0
    iterations: int = 5000
    """Upper limit of accepted steps; some 15 ms each on one core."""
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

    def settings(self) -> dict[str, Any]:
        """What decides the weights after a given number of steps, JSON-ready."""
        return {
            "seed": self.seed,
            "hidden": list(self.architecture.hidden),
            "y_max": self.domain.y_max,
            "w_max": self.domain.w_max,
            "interior_points": self.interior_points,
            "boundary_points": self.boundary_points,
            "threads": self.threads,
        }


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


def train(
    config: TrainingConfig,
    *,
    report: Callable[[Progress], None],
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] | None = None,
) -> TrainingResult:
    """Solves the equation with a network; `report` is called after every accepted step.

    `save` gets a checkpoint every ten seconds, at the end, and when the training is interrupted by an exception; with
    that checkpoint as `resume` it goes on to the same weights as if it had not been. Raises CheckpointError when
    `resume` belongs to other settings.
    """
    tf = load_tensorflow(threads=config.threads)
    points = Collocation.quasi_random(
        config.domain, interior=config.interior_points, boundary=config.boundary_points, seed=config.seed
    )
    equation = EquationResiduals(tf, config.architecture, config.domain, points)
    settings = config.settings()
    course: list[Progress] = []
    before, cpu_before, damping = 0.0, 0.0, 1.0
    parameters = initial_parameters(config.architecture, seed=config.seed)
    if resume is not None:
        resume.require(settings)
        course.extend(resume.course)
        before, cpu_before, damping = course[-1].seconds, resume.cpu_seconds, resume.next_damping
        parameters = resume.parameters
    began, cpu_began = time.monotonic() - before, time.process_time() - cpu_before
    steps = minimise(
        tf,
        linearise=equation.linearise,
        residuals=equation,
        start=tf.constant(parameters),
        damping=damping,
        iteration=course[-1].iteration if course else 0,
    )
    saved_at = time.monotonic()
    state = resume
    converged = True

    def keep() -> None:
        if save is not None and state is not None:
            save(state)

    try:
        while not _finished(course, config):
            step = next(steps, None)
            if step is None:
                break
            progress = Progress(
                iteration=step.iteration, loss=step.loss, damping=step.damping, seconds=time.monotonic() - began
            )
            course.append(progress)
            state = Checkpoint(
                settings=settings,
                parameters=step.parameters.numpy(),
                next_damping=step.next_damping,
                cpu_seconds=time.process_time() - cpu_began,
                course=tuple(course),
            )
            report(progress)
            if time.monotonic() - saved_at >= _CHECKPOINT_SECONDS:
                saved_at = time.monotonic()
                keep()
        else:
            converged = False
    finally:
        keep()
    if state is None:
        raise ArithmeticError("no step reduced the residual: the start is not finite")
    return TrainingResult(
        network=Network.from_vector(state.parameters, config.architecture, config.domain),
        config=config,
        course=tuple(course),
        converged=converged,
        cpu_seconds=state.cpu_seconds,
    )


def _finished(course: list[Progress], config: TrainingConfig) -> bool:
    if not course:
        return False
    last = course[-1]
    return last.iteration >= config.iterations or (config.seconds is not None and last.seconds >= config.seconds)


def thin(course: tuple[Progress, ...], count: int) -> list[Progress]:
    """At most `count` points of the course, even in the logarithm of the iteration, first and last included."""
    positions = np.unique(np.geomspace(1, len(course), count).round().astype(int)) - 1
    return [course[position] for position in positions]
