"""Bounds of the usual Greeks: never less than the error, and as tight as what priced the option allows."""

from __future__ import annotations

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest

from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.american import load_numpy_american
from pinn_inference.pricing.escrow import Schedule
from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.first_order import NAMES, first_order
from pinn_inference.pricing.golden import greek_scales
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.pricing.second_order import Greek
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.training.american_accuracy import sample_american, sample_domain
from tests.support.exact_greeks import LEFT, batch, exact, random_options

EUROPEAN = load_numpy_model(bundled_directory("european"))
AMERICAN = load_numpy_american(bundled_directory("american"), EUROPEAN)


def european(options: OptionBatch, quotes: Quotes, escrow: Escrow | None = None) -> dict[str, Greek]:
    all_rows = np.ones(len(options), dtype=np.bool_)
    return first_order(options, quotes, NAMES, as_european=all_rows, bounds={}, escrow=escrow)


def american(options: OptionBatch, quotes: Quotes) -> dict[str, Greek]:
    none = np.zeros(len(options), dtype=np.bool_)
    return first_order(options, quotes, NAMES, as_european=none, bounds=AMERICAN.greek_bounds)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_of_a_european_greek_is_within_its_bound_whatever_priced_the_option(name: str) -> None:
    options = random_options(60)
    of_network = EUROPEAN.price(options)
    assert set(of_network.method) == {Method.PINN, Method.CLOSED_FORM}
    with mp.workdps(90):
        truth = [exact(name, options, row) for row in range(len(options))]
        for quotes in (of_network, closed_form.price(options)):
            found = european(options, quotes)[name]
            assert np.array_equal(found.value, getattr(quotes, name))
            for row, right in enumerate(truth):
                error = abs(mp.mpf(float(found.value[row])) - right)
                assert error <= found.error_bound[row] + LEFT, row


def test_the_bounds_are_tight() -> None:
    """Those of the network are the size of its errors, those of the closed form that of rounding."""
    options = random_options(2000)
    scales, exactly = greek_scales(options), closed_form.price(options)
    for quotes, most in ((EUROPEAN.price(options), 5e-6), (exactly, 1e-12)):
        for name, found in european(options, quotes).items():
            assert np.all(found.error_bound <= most * scales[name]), name
            error = np.abs(found.value - getattr(exactly, name))
            assert np.all(found.error_bound <= error + 1e-12 * scales[name]), name


@pytest.mark.parametrize("name", NAMES)
def test_a_greek_that_is_wrong_has_a_bound_that_says_by_how_much(name: str) -> None:
    options = random_options(5)
    right = closed_form.price(options)
    wrong = replace(right, **{name: getattr(right, name) + 0.125})
    assert european(options, wrong)[name].error_bound == pytest.approx(0.125, abs=1e-9)


def test_with_dividends_of_known_amounts_theta_and_rho_are_held_against_those_by_the_true_spot() -> None:
    options = random_options(200)
    schedules = (Schedule(((0.001, 0.3), (0.2, 1.0), (0.9, 2.0))),) * len(options)
    escrow = Escrow.of(options, schedules)
    reduced = escrow.reduced(options, schedules)
    assert (escrow.present_value > 0.5).any()
    quotes, scales = escrow.settled(closed_form.price(reduced)), greek_scales(reduced)
    for name, found in european(reduced, quotes, escrow).items():
        assert np.all(found.error_bound <= 1e-11 * scales[name]), name


def test_american_greeks_of_the_networks_have_the_models_bounds_in_the_greeks_own_units() -> None:
    options = sample_american(300, AMERICAN.artefact.networks.domain, seed=3)
    quotes, scales = AMERICAN.price(options), greek_scales(options)
    assert set(quotes.method) == {Method.PINN}
    reference = integral_equation.price(options)
    for name, found in american(options, quotes).items():
        told = ~np.isnan(found.error_bound)
        assert told.mean() > 0.9
        assert found.error_bound[told] == pytest.approx(AMERICAN.greek_bounds[name] * scales[name][told])
        error = np.abs(found.value - getattr(reference, name))[told]
        assert np.all(error <= found.error_bound[told]), name


def test_at_the_exercise_boundary_where_gamma_jumps_it_has_no_bound_and_the_others_have() -> None:
    domain = AMERICAN.artefact.networks.domain
    for options in (sample_american(200, domain, seed=5), sample_domain(50, domain, seed=1)):
        boundary = AMERICAN.price(options).exercise_boundary
        root = options.volatility * np.sqrt(options.maturity)
        for shift, is_told in ((0.019, False), (-0.019, False), (0.021, True), (-0.021, True)):
            moved = replace(options, spot=boundary * np.exp(shift * root))
            found = american(moved, AMERICAN.price(moved))
            assert np.all(np.isnan(found["gamma"].error_bound) != is_told), shift
            assert not np.isnan(found["delta"].error_bound).any()


def test_american_greeks_of_other_methods_have_no_bound() -> None:
    options = sample_american(20, AMERICAN.artefact.networks.domain, seed=4)
    quotes = integral_equation.price(options, reason=FallbackReason.OUT_OF_DOMAIN)
    for found in american(options, quotes).values():
        assert np.isnan(found.error_bound).all()
        assert np.isfinite(found.value).all()


@pytest.mark.parametrize(("maturity", "volatility"), [(0.0, 0.2), (1.0, 0.0)])
def test_without_variance_there_are_values_and_no_bounds(maturity: float, volatility: float) -> None:
    options = batch(100.0, 100.0, maturity, 0.0, 0.0, volatility)
    for name, found in european(options, closed_form.price(options)).items():
        assert np.isfinite(found.value[0]), name
        assert np.isnan(found.error_bound[0]), name


@pytest.mark.parametrize("spot", [1e-10, 1e-3, 1e3, 1e10])
def test_far_from_the_strike_a_bound_is_finite_or_unknown_and_never_wrong(spot: float) -> None:
    options = batch(spot, 1.0, 0.5, 0.03, 0.01, 0.2, call=[True, False])
    quotes = closed_form.price(options)
    with mp.workdps(90):
        for name, found in european(options, quotes).items():
            for row in range(2):
                error = abs(mp.mpf(float(found.value[row])) - exact(name, options, row))
                assert not error > found.error_bound[row] + LEFT, (name, row)
