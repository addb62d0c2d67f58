"""Levenberg–Marquardt on a sum of squares in float64, with TensorFlow doing the linear algebra.

Small networks on smooth equations are limited by the optimiser, not by their size: first-order methods stall four
digits short of what the same weights can represent, and float32 three digits short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from pinn_inference.tensorflow_runtime import Tensor

_MAX_REJECTIONS: Final = 20
_SHRINK: Final = 3.0
_GROW: Final = 4.0
_MIN_DAMPING: Final = 1e-16
_MIN_DAMPING_AFTER_FAILURE: Final = 1e-14


@dataclass(frozen=True, slots=True)
class LinearisedResiduals:
    """Residuals r of shape (m,) at some parameters, JᵀJ of shape (p, p) and Jᵀr of shape (p,), J = ∂r/∂parameters."""

    residuals: Tensor
    gram: Tensor
    gradient: Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """An accepted step: parameters of shape (p,) after it, the sum of squares there and the damping that led to it."""

    iteration: int
    parameters: Tensor
    loss: float
    damping: float

    @property
    def next_damping(self) -> float:
        """The damping that is tried first after this step."""
        return max(self.damping / _SHRINK, _MIN_DAMPING)


def minimise(
    tf: ModuleType,
    *,
    linearise: Callable[[Tensor], LinearisedResiduals],
    residuals: Callable[[Tensor], Tensor],
    start: Tensor,
    damping: float = 1.0,
    iteration: int = 0,
) -> Iterator[Step]:
    """Yields accepted steps, each with a smaller sum of squares than the one before, until none can be found.

    Solves (JᵀJ + μI)·δ = −Jᵀr with the unscaled identity; μ is divided by 3 after an accepted step and multiplied by 4
    after a rejected one. The iterator ends when 20 dampings in a row give no smaller sum, that is at a minimum to the
    last digit. The caller bounds the number of iterations.

    From the parameters, the iteration and the `next_damping` of a step it goes on exactly as it would have without a
    break.
    """
    parameters = start
    model = linearise(parameters)
    loss = float(tf.reduce_sum(residuals(parameters) ** 2))
    identity = tf.eye(int(start.shape[0]), dtype=start.dtype)
    while True:
        for _ in range(_MAX_REJECTIONS):
            try:
                factor = tf.linalg.cholesky(model.gram + damping * identity)
            except tf.errors.InvalidArgumentError:  # not positive definite at this damping
                damping = max(damping * _GROW, _MIN_DAMPING_AFTER_FAILURE)
                continue
            delta = tf.linalg.cholesky_solve(factor, model.gradient[:, None])[:, 0]
            candidate = parameters - delta
            candidate_loss = float(tf.reduce_sum(residuals(candidate) ** 2))
            if candidate_loss < loss:  # False for NaN
                break
            damping *= _GROW
        else:
            return
        parameters, loss, iteration = candidate, candidate_loss, iteration + 1
        step = Step(iteration=iteration, parameters=parameters, loss=loss, damping=damping)
        yield step
        damping = step.next_damping
        model = linearise(parameters)
