"""What an American option owes to its rates: right everywhere, at no rate at all, and where networks hand over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pinn_inference.pricing import integral_equation
from pinn_inference.pricing.american import load_numpy_american, never_exercised, put_terms
from pinn_inference.pricing.american_network import inside
from pinn_inference.pricing.golden import greek_scales
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.pricing.types import FloatArray, Method, OptionBatch, Quotes
from pinn_inference.training.american_accuracy import (
    american,
    exchanged,
    measure_american,
    sample_american,
    sample_domain,
)
from tests.support.american import in_whole_days, quantlib_prices

MODEL = load_numpy_american(bundled_directory("american"), load_numpy_model(bundled_directory()))
DOMAIN = MODEL.artefact.networks.domain
TRACES = (0.0, 1e-12, 1e-6, 1e-4)
"""Rates that are nothing or all but nothing."""


def with_a_trace_of_carry(n: int, *, is_call: bool, seed: int) -> OptionBatch:
    """Calls with next to no rate, or puts with next to no dividend, that the networks price."""
    rng = np.random.default_rng(seed)
    size = 4 * n
    trace, other = rng.choice(TRACES, size), rng.uniform(0.005, 0.15, size)
    batch = american(
        spot=100.0 * np.exp(rng.uniform(-0.5, 0.5, size)),
        strike=np.full(size, 100.0),
        maturity=np.exp(rng.uniform(np.log(5.0 / 365.0), np.log(4.0), size)),
        rate=trace if is_call else other,
        dividend=other if is_call else trace,
        volatility=rng.uniform(0.1, 0.7, size),
        is_call=np.full(size, is_call),
    )
    put = put_terms(batch)
    return batch.take(np.flatnonzero(inside(DOMAIN, put.s, put.kappa, put.lambda_))[:n])


def off(quotes: Quotes, exact: Quotes, batch: OptionBatch, greek: str) -> float:
    """The largest error of a Greek, in units of its natural size."""
    error: FloatArray = np.abs(getattr(quotes, greek) - getattr(exact, greek)) / greek_scales(batch)[greek]
    return float(np.max(error))


def test_a_call_without_a_rate_has_its_rho() -> None:
    known = american(
        spot=np.array([100.0]),
        strike=np.array([104.005831]),
        maturity=np.array([2.722983]),
        rate=np.array([0.0]),
        dividend=np.array([0.112047]),
        volatility=np.array([0.5485]),
        is_call=np.array([True]),
    )
    assert MODEL.price(known).rho[0] == pytest.approx(44.6574, abs=1e-3 * 104.005831 * 2.722983)


@pytest.mark.parametrize("is_call", [True, False])
def test_with_no_carry_to_speak_of_rho_and_vega_are_right(is_call: bool) -> None:
    batch = with_a_trace_of_carry(400, is_call=is_call, seed=3)
    quotes, exact = MODEL.price(batch), integral_equation.price(batch)
    assert np.all(quotes.method == Method.PINN)
    for greek in ("rho", "vega", "theta"):
        assert off(quotes, exact, batch, greek) <= 1e-3, greek


def test_rho_is_the_slope_of_quantlib_s_prices() -> None:
    batch = in_whole_days(with_a_trace_of_carry(60, is_call=True, seed=5))
    step = 2e-4
    at, once, twice = (quantlib_prices(replace(batch, rate=batch.rate + count * step)) for count in range(3))
    slope = (4.0 * once - 3.0 * at - twice) / (2.0 * step)
    assert np.max(np.abs(MODEL.price(batch).rho - slope) / (batch.strike * batch.maturity)) <= 1.1e-3


@pytest.mark.parametrize("sample", ["puts", "calls", "random"])
def test_each_greek_is_within_its_bound_in_the_whole_domain(sample: str) -> None:
    batch = {
        "puts": lambda: sample_domain(1_500, DOMAIN, seed=7),
        "calls": lambda: exchanged(sample_domain(1_500, DOMAIN, seed=9)),
        "random": lambda: sample_american(1_500, DOMAIN, seed=11),
    }[sample]()
    accuracy = measure_american(MODEL, batch)
    for greek, bound in MODEL.greek_bounds.items():
        assert getattr(accuracy, greek) <= bound, greek
    assert MODEL.greek_bounds["rho"] <= 1.2e-2


def test_rho_does_not_jump_where_the_networks_hand_over() -> None:
    spot = np.linspace(70.0, 130.0, 61)
    for is_call in (True, False):
        edge = 0.02 * 0.5 * 0.25**2  # κ of the domain's end
        sides = []
        for factor in (0.999, 1.001):
            small, other = np.full(len(spot), factor * edge), np.full(len(spot), 2e-4)
            batch = american(
                spot=spot,
                strike=np.full(len(spot), 100.0),
                maturity=np.full(len(spot), 1.0),
                rate=other if is_call else small,
                dividend=small if is_call else other,
                volatility=np.full(len(spot), 0.25),
                is_call=np.full(len(spot), is_call),
            )
            assert not never_exercised(batch).any()
            sides.append(MODEL.price(batch))
        assert set(sides[0].method) == {Method.INTEGRAL_EQUATION}
        assert set(sides[1].method) == {Method.PINN}
        assert np.max(np.abs(sides[0].rho - sides[1].rho)) <= 1.5e-3 * 100.0
