"""The optimiser and the equation it is given."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pinn_inference.pricing.mills import SQRT_HALF_PI
from pinn_inference.pricing.network import Architecture, Domain, Network, evaluate, residual
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training.equation import Collocation, EquationResiduals, initial_parameters
from pinn_inference.training.levenberg_marquardt import LinearisedResiduals, minimise


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    return load_tensorflow()


def rosenbrock(tf: ModuleType) -> tuple[Any, Any]:
    def residuals(p: Any) -> Any:
        return tf.stack([10.0 * (p[1] - p[0] ** 2), 1.0 - p[0]])

    def linearise(p: Any) -> LinearisedResiduals:
        r, j = residuals(p), tf.convert_to_tensor([[-20.0 * p[0], 10.0], [-1.0, 0.0]], tf.float64)
        return LinearisedResiduals(r, tf.transpose(j) @ j, tf.linalg.matvec(j, r, transpose_a=True))

    return residuals, linearise


def test_it_finds_the_bottom_of_rosenbrocks_valley(tf: ModuleType) -> None:
    residuals, linearise = rosenbrock(tf)
    start = tf.constant([-1.2, 1.0], tf.float64)
    steps = []
    for step in minimise(tf, linearise=linearise, residuals=residuals, start=start):
        steps.append(step)
        assert len(steps) < 200
        if step.loss < 1e-28:
            break
    assert steps[-1].parameters.numpy() == pytest.approx([1.0, 1.0], abs=1e-12)
    assert all(later.loss < earlier.loss for earlier, later in pairwise(steps))
    assert [step.iteration for step in steps] == list(range(1, len(steps) + 1))


def test_it_ends_by_itself_where_no_step_helps(tf: ModuleType) -> None:
    def residuals(p: Any) -> Any:
        return tf.stack([p[0], tf.constant(1.0, tf.float64)])

    def linearise(p: Any) -> LinearisedResiduals:
        return LinearisedResiduals(residuals(p), tf.ones([1, 1], tf.float64), p)

    steps = list(minimise(tf, linearise=linearise, residuals=residuals, start=tf.constant([3.0], tf.float64)))
    assert steps[-1].loss == pytest.approx(1.0, abs=1e-12)


def test_it_walks_around_parameters_without_a_finite_residual(tf: ModuleType) -> None:
    def residuals(p: Any) -> Any:
        return tf.math.log(p)  # NaN for a step that overshoots zero

    def linearise(p: Any) -> LinearisedResiduals:
        return LinearisedResiduals(residuals(p), tf.reshape(p**-2.0, [1, 1]), residuals(p) / p)

    steps = []
    start = tf.constant([30.0], tf.float64)
    for step in minimise(tf, linearise=linearise, residuals=residuals, start=start, damping=1e-9):
        steps.append(step)
        if step.loss < 1e-20 or len(steps) > 100:
            break
    assert steps[-1].parameters.numpy() == pytest.approx([1.0], abs=1e-9)


def small_problem(tf: ModuleType) -> tuple[EquationResiduals, Collocation, Architecture]:
    architecture, domain = Architecture(hidden=(4, 3)), Domain()
    points = Collocation.quasi_random(domain, interior=20, boundary=4, seed=2)
    return EquationResiduals(tf, architecture, domain, points), points, architecture


def test_the_jacobian_is_the_derivative_of_the_residuals(tf: ModuleType) -> None:
    equation, _, architecture = small_problem(tf)
    parameters = initial_parameters(architecture, seed=1)
    jacobian = equation.jacobian(tf.constant(parameters)).numpy()
    step = 1e-6
    for column in range(architecture.parameter_count):
        shift = np.zeros_like(parameters)
        shift[column] = step
        up, down = (equation(tf.constant(parameters + sign * shift)).numpy() for sign in (1, -1))
        assert jacobian[:, column] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8), column


def test_gram_and_gradient_are_those_of_the_jacobian(tf: ModuleType) -> None:
    equation, _, architecture = small_problem(tf)
    parameters = tf.constant(initial_parameters(architecture, seed=1))
    jacobian, model = equation.jacobian(parameters).numpy(), equation.linearise(parameters)
    assert model.gram.numpy() == pytest.approx(jacobian.T @ jacobian, rel=1e-12, abs=1e-14)
    assert model.gradient.numpy() == pytest.approx(jacobian.T @ model.residuals.numpy(), rel=1e-12, abs=1e-14)


def test_residuals_are_the_scaled_equation_inside_and_the_flux_at_the_money(tf: ModuleType) -> None:
    equation, points, architecture = small_problem(tf)
    parameters = initial_parameters(architecture, seed=3)
    network = Network.from_vector(parameters, architecture, Domain())
    found = equation(tf.constant(parameters)).numpy()
    inside = residual(evaluate(network, points.y, points.w), points.y, points.w)
    scale = (1.0 + SQRT_HALF_PI * points.y + points.y**2) / (1.0 + points.y)
    assert found[:20] == pytest.approx(inside * scale / np.sqrt(20), rel=1e-11, abs=1e-13)
    flux = evaluate(network, np.zeros(4), points.boundary_w).n_y + SQRT_HALF_PI
    assert found[20:] == pytest.approx(np.sqrt(10.0 / 4) * flux, rel=1e-11, abs=1e-13)


def test_collocation_points_fill_the_domain_and_depend_on_the_seed_alone() -> None:
    first, again, other = (
        Collocation.quasi_random(Domain(), interior=512, boundary=9, seed=seed) for seed in (1, 1, 2)
    )
    assert first.y.tolist() == again.y.tolist()
    assert first.y.tolist() != other.y.tolist()
    assert 0.0 <= first.y.min() < 0.05
    assert 8.3 < first.y.max() <= 8.5
    counts, _ = np.histogram(np.sqrt(first.w), bins=16, range=(0.0, 2.5))
    assert counts.min() >= 28, "512 points spread evenly in s give 32 per bin"
    assert counts.max() <= 36
    assert first.boundary_w[[0, -1]].tolist() == [0.0, 6.25]
