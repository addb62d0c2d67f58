"""The certificate: at least the true error everywhere, and hardly more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing import artefact, closed_form, defect
from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.certificate import Certificate, certify
from pinn_inference.pricing.mills import SQRT_HALF_PI, normal_density
from pinn_inference.pricing.model import PinnModel, bundled_directory, load_numpy_model
from pinn_inference.pricing.network import Architecture, Domain, Network, evaluate, residual
from pinn_inference.pricing.types import FloatArray, OptionBatch
from pinn_inference.training.accuracy import DomainGrid
from pinn_inference.training.equation import initial_parameters


@pytest.fixture(scope="module")
def bundled() -> Artefact:
    return artefact.read(bundled_directory())


@pytest.fixture(scope="module")
def model() -> PinnModel:
    return load_numpy_model(bundled_directory())


def untrained(hidden: tuple[int, ...], seed: int) -> Network:
    architecture = Architecture(hidden=hidden)
    return Network.from_vector(initial_parameters(architecture, seed=seed), architecture, Domain())


def true_error(network: Network, s: float, points: int = 1601) -> float:
    """Of the time value, in units of D·√(FK), the largest over y."""
    y = np.linspace(0.0, 8.5, points)
    width = np.full_like(y, s)
    found = s * normal_density(y) * evaluate(network, y, width * width).n
    return float(np.max(np.abs(found - closed_form.time_value(y, width))))


def test_the_bound_is_at_least_the_true_error_on_a_dense_grid(bundled: Artefact) -> None:
    s = np.linspace(0.0005, 2.5, 1500)
    true = np.array([true_error(bundled.network, float(value)) for value in s])
    assert (true <= bundled.certificate.at(s)).all()


def test_the_bound_is_hardly_more_than_the_largest_error(bundled: Artefact) -> None:
    largest = max(true_error(bundled.network, float(s)) for s in np.linspace(0.01, 2.5, 250))
    assert largest <= bundled.certificate.error_bound <= 1.2 * largest


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("carry", [(0.0, 0.0), (0.05, 0.02), (-0.02, 0.0), (0.0, 0.08)])
def test_every_quote_is_within_its_own_bound(model: PinnModel, is_call: bool, carry: tuple[float, float]) -> None:
    grid = DomainGrid.of(rows=300, columns=301, is_call=is_call, carry=carry, w_max=6.25 * (1.0 - 1e-12))
    quotes, exact = model.price(grid.batch), closed_form.price(grid.batch)
    assert (np.abs(quotes.price - exact.price) <= quotes.error_bound).all()


@settings(deadline=None, max_examples=300)
@given(
    y=st.floats(-9.0, 9.0),
    s=st.one_of(st.floats(1e-3, 2.5), st.floats(np.log(1e-7), np.log(2.5)).map(np.exp)),
    strike=st.floats(1e-3, 1e6),
    maturity=st.floats(1e-3, 30.0),
    rate=st.floats(-0.1, 0.3),
    dividend=st.floats(-0.1, 0.3),
    is_call=st.booleans(),
)
def test_no_option_is_further_from_its_exact_price_than_its_bound(
    model: PinnModel, y: float, s: float, strike: float, maturity: float, rate: float, dividend: float, is_call: bool
) -> None:
    spot = strike * np.exp(y * s - (rate - dividend) * maturity)
    terms = (spot, strike, maturity, rate, dividend, s / np.sqrt(maturity))
    batch = OptionBatch(*(np.array([term]) for term in terms), np.array([is_call]))
    quotes, exact = model.price(batch), closed_form.price(batch)
    assert abs(quotes.price[0] - exact.price[0]) <= quotes.error_bound[0] + exact.error_bound[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("hidden", [(6,), (5, 4)])
def test_the_bound_holds_even_for_an_untrained_network(hidden: tuple[int, ...], seed: int) -> None:
    network = untrained(hidden, seed)
    certificate = certify(network, per_panel=10, y_points=401)
    assert (np.diff(certificate.bound) >= 0.0).all()
    for s, bound in zip(certificate.s, certificate.bound, strict=True):
        assert true_error(network, float(s), points=801) <= bound


def test_the_bound_holds_for_weights_that_were_moved(bundled: Artefact) -> None:
    """It sees an error that no training would leave."""
    rng = np.random.default_rng(3)
    vector = bundled.network.to_vector()
    moved = vector * (1.0 + 1e-4 * rng.normal(size=len(vector)))
    network = Network.from_vector(moved, bundled.network.architecture, bundled.network.domain)
    certificate = certify(network, per_panel=10, y_points=401)
    assert certificate.error_bound > 100.0 * bundled.certificate.error_bound
    for s, bound in zip(certificate.s, certificate.bound, strict=True):
        assert true_error(network, float(s)) <= bound


def test_the_stored_certificate_is_that_of_the_stored_weights(bundled: Artefact) -> None:
    computed = certify(bundled.network)
    assert computed.s == pytest.approx(bundled.certificate.s, rel=1e-12)
    assert computed.bound == pytest.approx(bundled.certificate.bound, rel=1e-2)


def points(seed: int = 1, n: int = 400) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 8.0, n), rng.uniform(0.01, 6.25, n)


def test_the_defect_is_the_error_of_the_network(bundled: Artefact) -> None:
    """Found without any exact price, and compared with exact prices here."""
    found = defect.solve(bundled.network)
    y, w = points()
    s = np.sqrt(w)
    weight = s * normal_density(y)
    error = weight * evaluate(bundled.network, y, w).n - closed_form.time_value(y, s)
    assert weight * found.jets(y, w).n == pytest.approx(error, abs=0.05 * bundled.certificate.error_bound)


def test_the_defect_explains_all_but_a_thousandth_of_the_residual(bundled: Artefact) -> None:
    y, s = (grid.ravel() for grid in np.meshgrid(np.linspace(0.0, 10.0, 200), np.linspace(0.0, 2.5, 150)))
    w = s * s
    found = defect.solve(bundled.network).jets(y, w)
    left = residual(evaluate(bundled.network, y, w), y, w)
    remainder = left - residual(found, y, w)
    assert np.max(normal_density(y) * np.abs(remainder)) < 1e-3 * np.max(normal_density(y) * np.abs(left))
    border = np.zeros_like(w)
    slope = evaluate(bundled.network, border, w).n_y + SQRT_HALF_PI
    still = slope - defect.solve(bundled.network).jets(border, w).n_y
    assert np.max(np.abs(still)) < 0.02 * np.max(np.abs(slope))


def test_the_jets_of_the_defect_are_its_derivatives(bundled: Artefact) -> None:
    found = defect.solve(untrained((5, 4), seed=2))
    (y, w), step = points(), 1e-4
    value = lambda a, b: found.jets(a, b).n  # noqa: E731
    jets = found.jets(y, w)
    size = np.max(np.abs(jets.n))
    assert jets.n_y == pytest.approx((value(y + step, w) - value(y - step, w)) / (2 * step), abs=1e-6 * size)
    assert jets.n_w == pytest.approx((value(y, w + step) - value(y, w - step)) / (2 * step), abs=1e-6 * size)
    second = (value(y + step, w) - 2 * jets.n + value(y - step, w)) / step**2
    assert jets.n_yy == pytest.approx(second, abs=1e-4 * size)


def test_an_option_takes_the_bound_of_the_next_wider_knot() -> None:
    certificate = Certificate(s=np.array([1.0, 2.0]), bound=np.array([0.1, 0.3]))
    assert certificate.at(np.array([0.0, 1.0, 1.1, 2.0, 2.0000001])).tolist() == [0.1, 0.1, 0.3, 0.3, 0.3]
    assert certificate.error_bound == 0.3
