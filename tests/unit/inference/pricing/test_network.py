"""The network in NumPy, in TensorFlow, and the reduction around it."""

from __future__ import annotations

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.mills import SQRT_HALF_PI
from pinn_inference.pricing.network import Architecture, Domain, Jets, Network, evaluate, residual
from pinn_inference.pricing.reduction import from_network, reduce
from pinn_inference.pricing.types import FloatArray
from pinn_inference.training.accuracy import sample_options
from pinn_inference.training.equation import initial_parameters


def untrained(hidden: tuple[int, ...] = (7, 5), seed: int = 4) -> Network:
    architecture = Architecture(hidden=hidden)
    return Network.from_vector(initial_parameters(architecture, seed=seed), architecture, Domain())


def engine_of(network: Network) -> NumPyEngine:
    return NumPyEngine(network, Certificate(s=np.array([2.5]), bound=np.array([1.0])))


def points(n: int = 200, seed: int = 1) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 8.5, n), rng.uniform(0.01, 6.25, n)


@pytest.mark.parametrize("hidden", [(16, 16), (3,), (4, 5, 6)])
def test_parameters_survive_the_way_to_a_vector_and_back(hidden: tuple[int, ...]) -> None:
    network = untrained(hidden)
    again = Network.from_vector(network.to_vector(), network.architecture, network.domain)
    assert again.architecture.hidden == hidden
    assert again.to_vector().tolist() == network.to_vector().tolist()


def test_the_proposed_architecture_has_337_parameters() -> None:
    assert Architecture().parameter_count == 337


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 337"):
        Network.from_vector(np.zeros(336), Architecture(), Domain())


def test_the_jets_are_the_derivatives_of_the_network() -> None:
    network, (y, w), step = untrained(), points(), 1e-4
    jets = evaluate(network, y, w)
    value = lambda a, b: evaluate(network, a, b).n  # noqa: E731
    assert jets.n_y == pytest.approx((value(y + step, w) - value(y - step, w)) / (2 * step), rel=1e-5, abs=1e-8)
    assert jets.n_w == pytest.approx((value(y, w + step) - value(y, w - step)) / (2 * step), rel=1e-5, abs=1e-8)
    second = (value(y + step, w) - 2 * jets.n + value(y - step, w)) / step**2
    assert jets.n_yy == pytest.approx(second, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("hidden", [(16, 16), (3,), (4, 5, 6), (6, 5, 4)])
@pytest.mark.parametrize("n", [1, 2047, 2048, 2049, 5000])
def test_the_tiled_evaluation_gives_the_jets_for_any_number_of_points(hidden: tuple[int, ...], n: int) -> None:
    network, (y, w) = untrained(hidden), points(n)
    jets = evaluate(network, y, w)
    for found, exact in zip(engine_of(network).jets(y, w), (jets.n, jets.n_y, jets.n_w), strict=True):
        assert found == pytest.approx(exact, rel=1e-12, abs=1e-13)


def exact_jets(y: FloatArray, s: FloatArray) -> Jets:
    """The exact N and its derivatives, by differences of order four."""

    def target(a: FloatArray, b: FloatArray) -> FloatArray:
        return closed_form.time_value(a, b) / (b * np.exp(-0.5 * a * a) / np.sqrt(2.0 * np.pi))

    h = 2e-3
    around = [target(y + k * h, s) for k in (-2, -1, 0, 1, 2)]
    w = s * s
    in_w = [target(y, np.sqrt(w + k * h * w)) for k in (-2, -1, 0, 1, 2)]

    def first(values: list[FloatArray]) -> FloatArray:
        return (values[0] - 8 * values[1] + 8 * values[3] - values[4]) / (12 * h)

    second = (-around[0] + 16 * around[1] - 30 * around[2] + 16 * around[3] - around[4]) / (12 * h * h)
    return Jets(n=around[2], n_y=first(around), n_w=first(in_w) / w, n_yy=second)


def test_the_exact_solution_satisfies_the_equation_and_its_boundary_condition() -> None:
    y, s = (grid.ravel() for grid in np.meshgrid(np.linspace(0.01, 5.0, 40), np.linspace(0.15, 2.5, 30)))
    assert residual(exact_jets(y, s), y, s * s) == pytest.approx(0.0, abs=1e-7)
    at_the_money = exact_jets(np.full(20, 4e-3), np.linspace(0.1, 2.5, 20))
    slope_at_zero = at_the_money.n_y - 4e-3 * at_the_money.n_yy
    assert slope_at_zero == pytest.approx(-SQRT_HALF_PI, abs=1e-4)


def test_the_exact_solution_put_through_the_network_formulas_gives_the_closed_form() -> None:
    batch = sample_options(2000, seed=8)
    reduced = reduce(batch)
    rows = (reduced.y < 6.0) & (reduced.y > 0.01) & (reduced.s > 0.15)
    batch = batch.take(rows)
    reduced = reduce(batch)
    jets = exact_jets(reduced.y, reduced.s)
    values = from_network(batch, reduced, n=jets.n, n_y=jets.n_y, n_w=jets.n_w)
    exact = closed_form.price(batch)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
        reference = getattr(exact, name)
        assert getattr(values, name) == pytest.approx(reference, rel=1e-6, abs=1e-9 * np.max(np.abs(reference))), name
