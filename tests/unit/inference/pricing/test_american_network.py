"""The form of the American model: one formula in three algebras, its derivatives, what is exact for any weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing.algebra import NumPyAlgebra, ScalarAlgebra
from pinn_inference.pricing.american_engine import (
    NumPyAmericanEngine,
    PremiumJets,
    TensorFlowAlgebra,
    TensorFlowAmericanEngine,
    boundary_of,
)
from pinn_inference.pricing.american_integral import Places, places, premium_integral, quadrature, quasi_random
from pinn_inference.pricing.american_network import (
    AmericanDomain,
    AmericanNetworks,
    boundary,
    european_put,
    inside,
    premium,
    premium_gradient,
)
from pinn_inference.pricing.types import FloatArray
from pinn_inference.tensorflow_runtime import load_tensorflow
from tests.support.american import random_networks

NUMPY = NumPyAlgebra()
Variables = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def above_boundary(networks: AmericanNetworks, n: int, seed: int, *, z_min: float = 0.05) -> Variables:
    """(x, s, κ, λ) of n places from z_min to 4 widths above the boundary."""
    unit = quasi_random(4, n, seed=seed)
    at = places(unit[:, :3], networks.domain, s_min=networks.domain.s_min)
    b = boundary_of(networks, at.s, at.kappa, at.lambda_)
    return b + at.s * (z_min + 4.0 * unit[:, 3]), at.s, at.kappa, at.lambda_


@pytest.mark.parametrize("seed", range(3))
def test_numpy_floats_and_tensors_give_the_same_premium_and_gradient(seed: int) -> None:
    networks = random_networks(seed)
    variables = above_boundary(networks, 300, seed)
    expected = np.stack(premium_gradient(NUMPY, networks, *variables))
    scalars = ScalarAlgebra()
    rows = zip(*(column.tolist() for column in variables), strict=True)
    alone = np.array([premium_gradient(scalars, networks, *row) for row in rows]).T
    tf = load_tensorflow()
    tensors = premium_gradient(TensorFlowAlgebra(tf), networks, *map(tf.constant, variables))
    together = np.stack([tensor.numpy() for tensor in tensors])
    for found in (alone, together):
        assert np.max(np.abs(found - expected) / (1.0 + np.abs(expected))) < 1e-10


def test_the_engines_agree_whatever_the_number_of_options() -> None:
    networks = random_networks(4)
    numpy_engine = NumPyAmericanEngine(networks)
    compiled = TensorFlowAmericanEngine(networks, sizes=(256, 1024), tile=128, smallest=1)
    compiled.warm_up()
    for n in (1, 7, 8, 200, 1024, 1500):
        variables = above_boundary(networks, n, n)
        expected, found = numpy_engine.evaluate(*variables), compiled.evaluate(*variables)
        for name in PremiumJets.__slots__:
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-8, abs=1e-9), name


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_what_finite_differences_give(seed: int) -> None:
    networks = random_networks(seed)
    variables = above_boundary(networks, 200, seed)
    value, *gradient, b = premium_gradient(NUMPY, networks, *variables)
    again, b_again = premium(NUMPY, networks, *variables)
    assert value == pytest.approx(again, rel=1e-12, abs=1e-15)
    assert b == pytest.approx(b_again, rel=1e-12)
    for position, derivative in enumerate(gradient[:2]):
        step = np.maximum(1e-5 * np.abs(variables[position]), 1e-9)
        moved = [
            premium(NUMPY, networks, *(c + d * step * (i == position) for i, c in enumerate(variables)))[0]
            for d in (-1.0, 1.0)
        ]
        difference = (moved[1] - moved[0]) / (2.0 * step)
        scale = np.max(np.abs(derivative))
        assert np.max(np.abs(derivative - difference)) < 1e-5 * scale, position


def test_the_gradient_is_what_automatic_differentiation_gives() -> None:
    tf, networks = load_tensorflow(), random_networks(5)
    variables = [tf.constant(column) for column in above_boundary(networks, 200, 5)]
    with tf.GradientTape() as tape:
        tape.watch(variables[:2])
        value, _ = premium(TensorFlowAlgebra(tf), networks, *variables)
    expected = [gradient.numpy() for gradient in tape.gradient(value, variables[:2])]
    _, *found, _, _, _ = premium_gradient(NUMPY, networks, *(column.numpy() for column in variables))
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_value_and_slope_meet_the_payoff_at_the_boundary_for_any_weights(seed: int) -> None:
    networks = random_networks(seed)
    unit = quasi_random(3, 500, seed=seed)
    at = places(unit, networks.domain, s_min=networks.domain.s_min)
    b = boundary_of(networks, at.s, at.kappa, at.lambda_)
    e, e_x, *_ = premium_gradient(NUMPY, networks, b, at.s, at.kappa, at.lambda_)
    value = european_put(NUMPY, b, at.s, at.kappa, at.lambda_) + e
    assert value == pytest.approx(1.0 - np.exp(b), abs=1e-13)
    h = 1e-6 * at.s
    slope = (european_put(NUMPY, b + h, *astuple(at)) - european_put(NUMPY, b - h, *astuple(at))) / (2.0 * h)
    assert slope + e_x == pytest.approx(-np.exp(b), abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_at_the_boundary_no_rate_moves_the_option_for_any_weights(seed: int) -> None:
    networks = random_networks(seed)
    at = places(quasi_random(3, 500, seed=seed), networks.domain, s_min=networks.domain.s_min)
    # The rates have a boundary of their own; below it they move nothing either.
    x = boundary_of(replace(networks, boundary=networks.lag), *astuple(at)) - np.linspace(0.0, 0.1, 500) * at.s
    with np.errstate(all="ignore"):
        jets = premium_gradient(NUMPY, networks, x, *astuple(at))
    h = 1e-6
    for position, found in ((1, jets[3]), (2, jets[4])):
        up, down = (
            european_put(NUMPY, x, *(column + side * h * (i == position) for i, column in enumerate(astuple(at))))
            for side in (1.0, -1.0)
        )
        scale = 0.5 * at.s**2
        assert (up - down) / (2.0 * h) / scale + found / scale == pytest.approx(np.zeros(500), abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1000),
    s=st.floats(0.02, 1.05),
    kappa=st.floats(0.02, 16.0),
    lambda_=st.floats(0.0, 16.0),
)
def test_the_boundary_lies_below_the_strike_and_below_where_the_dividend_outweighs_the_interest(
    seed: int, s: float, kappa: float, lambda_: float
) -> None:
    b = boundary(ScalarAlgebra(), random_networks(seed), s, kappa, lambda_)
    assert b < 0.0
    # λ/κ is enlarged by a millionth, so that λ = 0 has a logarithm.
    assert np.exp(b) * lambda_ < kappa * (1.0 + 1e-5)


def astuple(at: Places) -> tuple[FloatArray, FloatArray, FloatArray]:
    return at.s, at.kappa, at.lambda_


def test_the_domain_is_the_same_for_columns_and_floats_and_has_its_borders_inside() -> None:
    domain = AmericanDomain()
    s = np.array([domain.s_min, domain.s_max, 0.2, 0.2, 0.2, 0.2, 0.019, 1.06, 0.2, 0.2, np.nan])
    kappa = np.array([1.0, 0.1, domain.kappa_min, domain.kappa_max, 1.0, 1.0, 1.0, 0.1, 0.01, 16.1, 1.0])
    lambda_ = np.array([1.0, 0.1, 0.0, domain.kappa_max, 0.0, -0.1, 1.0, 0.1, 1.0, 1.0, 1.0])
    expected = [True] * 5 + [False] * 6
    assert inside(domain, s, kappa, lambda_).tolist() == expected
    assert [
        bool(inside(domain, *row)) for row in zip(s.tolist(), kappa.tolist(), lambda_.tolist(), strict=True)
    ] == expected


def test_quasi_random_places_fill_the_domain_and_stay_in_it() -> None:
    domain = AmericanDomain()
    at = places(quasi_random(3, 5_000, seed=3), domain, s_min=domain.s_min)
    half = 0.5 * at.s * at.s
    for column, low, high in ((at.s, domain.s_min, domain.s_max), (at.kappa, domain.kappa_min, domain.kappa_max)):
        assert low <= column.min() < 1.02 * low
        assert 0.95 * high < column.max() <= high * (1.0 + 1e-12)
    assert np.max(np.maximum(at.kappa, at.lambda_) * half) <= domain.carry_max * (1.0 + 1e-12)
    assert np.min(at.lambda_) == 0.0
    assert 0.1 < np.mean(at.lambda_ == 0.0) < 0.25


def test_the_premium_s_integral_does_not_depend_on_its_quadrature() -> None:
    networks = random_networks(6)
    x, s, kappa, lambda_ = above_boundary(networks, 400, 6)
    at = Places(s, kappa, lambda_)
    rough, fine = (premium_integral(networks.boundary, x, at, nodes=nodes) for nodes in (40, 120))
    assert rough == pytest.approx(fine, abs=1e-5)
    angle, weights = quadrature(12)
    assert np.sum(weights * np.sin(angle)) == pytest.approx(1.0, abs=1e-14)
