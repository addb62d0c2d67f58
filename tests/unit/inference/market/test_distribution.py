"""Probabilities, quantiles and Greeks of a model against the exact lognormal, and bounds that hold for any model."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pinn_inference.market.distribution import (
    GreekBounds,
    Outlooks,
    answered,
    likelihood_above,
    quantiles,
    valuations,
)
from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import FloatArray, Method, OptionBatch, Quotes
from tests.support.market import Pricing, european, outlooks

PROBABILITIES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_outlooks = st.builds(
    outlooks,
    spot=st.floats(-6, 9).map(lambda power: 10.0**power),
    rate=st.floats(-1, 1),
    dividend=st.floats(-1, 1),
    volatility=st.floats(-3, np.log10(3.0)).map(lambda power: 10.0**power),
    years=st.sampled_from([1 / 365, 7 / 365, 1 / 12, 0.25, 0.5, 1.0, 2.0]),
)
_scores = st.floats(-3, 3)


def at_score(market: Outlooks, score: float) -> FloatArray:
    """The exact quantile at Φ(score)."""
    return market.forward * np.exp(market.deviation * (score - 0.5 * market.deviation))


def exactly_above(market: Outlooks, strike: FloatArray) -> FloatArray:
    result: FloatArray = norm.cdf(np.log(market.forward / strike) / market.deviation - 0.5 * market.deviation)
    return result


def misjudging(factor: float) -> Pricing:
    """A model whose volatility is wrong by a factor, and whose bound admits exactly that."""

    def price(batch: OptionBatch) -> Quotes:
        exact = closed_form.price(batch)
        wrong = closed_form.price(replace(batch, volatility=batch.volatility * factor))
        bound = np.abs(wrong.price - exact.price) + wrong.error_bound + exact.error_bound
        return replace(wrong, error_bound=bound)

    return price


def errors_of(market: Outlooks, strike: FloatArray, price: Pricing) -> list[tuple[str, float, float]]:
    """(what, error, bound) of every number of a valuation."""
    told = answered(valuations(market, strike, american=False), price)
    found = [("above", float(abs(told.above.value - exactly_above(market, strike))[0]), told.above.error_bound[0])]
    sides = ((told.call, told.call_bounds, True), (told.put, told.put_bounds, False))
    for quotes, bounds, is_call in sides:
        exact = closed_form.price(market.options(strike, is_call=is_call))
        for field in fields(GreekBounds):
            error = abs(getattr(quotes, field.name)[0] - getattr(exact, field.name)[0])
            found.append((f"{'call' if is_call else 'put'} {field.name}", error, getattr(bounds, field.name)[0]))
    return found


@settings(deadline=None)
@given(_outlooks, _scores)
def test_every_number_of_a_valuation_is_within_its_bound(market: Outlooks, score: float) -> None:
    strike = at_score(market, score)
    for what, error, bound in errors_of(market, strike, european().price):
        assert error <= bound, what


@settings(deadline=None)
@given(_outlooks, _scores, st.floats(0.8, 1.25))
def test_the_bounds_hold_for_a_bad_model_that_is_honest_about_its_prices(
    market: Outlooks, score: float, factor: float
) -> None:
    strike = at_score(market, score)
    for what, error, bound in errors_of(market, strike, misjudging(factor)):
        assert error <= bound, what


@pytest.mark.parametrize("name", ["delta", "gamma", "vega", "theta", "rho"])
def test_a_greek_that_does_not_fit_the_prices_is_found_out(name: str) -> None:
    market, strike = outlooks(), np.array([105.0])

    def price(batch: OptionBatch) -> Quotes:
        quotes = european().price(batch)
        return replace(quotes, **{name: getattr(quotes, name) * 1.5})

    for what, error, bound in errors_of(market, strike, price):
        assert error <= bound, what
        if what == f"call {name}":
            assert bound > 0.3 * error


def test_bounds_are_of_use_for_the_bundled_model() -> None:
    """A one-month and a one-year outlook: probabilities to 2e-4, delta and vega to a fraction of a percent."""
    for years in (1 / 12, 1.0):
        market = outlooks(years=years)
        told = answered(valuations(market, market.spot, american=False), european().price)
        assert told.above.error_bound[0] < 2e-4
        assert told.call_bounds.delta[0] < 4e-4
        assert told.call_bounds.vega[0] < 0.01 * told.call.vega[0]


@settings(deadline=None)
@given(_outlooks)
def test_quantiles_are_the_lognormals_within_their_bounds_and_in_order(market: Outlooks) -> None:
    told = answered(quantiles(market.repeat(5), PROBABILITIES), european().price)
    exact = np.array([at_score(market, score)[0] for score in norm.ppf(PROBABILITIES)])
    proved = np.isfinite(told.error_bound)
    assert proved.all() or market.deviation[0] > 2.5 or market.deviation[0] < 1e-3
    slack = 1e-13 * (1.0 + abs(np.log(market.forward)[0])) * exact
    assert np.all(np.abs(told.value - exact)[proved] <= (told.error_bound + slack)[proved])
    assert np.all(np.diff(told.value) > 0.0)


@settings(deadline=None)
@given(_outlooks, st.lists(_scores, min_size=2, max_size=8, unique=True))
def test_probabilities_fall_with_the_price_within_the_bound(market: Outlooks, scores: list[float]) -> None:
    strikes = np.array([at_score(market, score)[0] for score in sorted(scores)])
    told = answered(likelihood_above(market.repeat(len(scores)), strikes), european().price)
    above, bound = told.above.value, told.above.error_bound
    assert np.all(np.diff(above) <= bound[1:] + bound[:-1])
    assert np.all((above >= 0.0) & (above <= 1.0) & (bound >= 0.0) & (bound <= 1.0))


@settings(deadline=None)
@given(_outlooks, st.floats(0.9, 1.1))
def test_quantiles_are_those_of_the_model_not_of_the_formula(market: Outlooks, factor: float) -> None:
    told = answered(quantiles(market.repeat(5), PROBABILITIES), misjudging(factor))
    believed = replace(market, volatility=market.volatility * factor)
    exact = np.array([at_score(believed, score)[0] for score in norm.ppf(PROBABILITIES)])
    assert told.value == pytest.approx(exact, rel=1e-9)


def test_a_quantile_inverts_the_models_probability_to_the_last_digits() -> None:
    market = outlooks(volatility=0.35, years=0.5).repeat(5)
    told = answered(quantiles(market, PROBABILITIES), european().price)
    back = answered(likelihood_above(market, told.value), european().price)
    assert np.abs(1.0 - back.above.value - PROBABILITIES).max() < 1e-12


def test_a_quantile_in_the_jump_that_a_model_has_at_the_forward_is_the_forward() -> None:
    """The network meets its condition at y = 0 to some 1e-8: P(S_T > K) jumps by that at K = F."""
    market = outlooks()

    def jumping(batch: OptionBatch) -> Quotes:
        quotes = closed_form.price(batch)
        shift = np.where(batch.strike < market.forward, 1e-6, -1e-6)
        return replace(quotes, rho=quotes.rho + shift * batch.strike)

    at_forward = 1.0 - exactly_above(market, market.forward)
    told = answered(quantiles(market, at_forward), jumping)
    assert told.value[0] == pytest.approx(market.forward[0], rel=1e-12)


def test_a_model_without_a_density_is_inverted_by_halving() -> None:
    market = outlooks().repeat(5)

    def flat(batch: OptionBatch) -> Quotes:
        quotes = closed_form.price(replace(batch, volatility=batch.volatility * 1.05))
        return replace(quotes, gamma=np.zeros(len(batch)))

    told = answered(quantiles(market, PROBABILITIES), flat)
    believed = replace(outlooks(), volatility=np.array([0.21]))
    exact = [at_score(believed, score)[0] for score in norm.ppf(PROBABILITIES)]
    assert told.value == pytest.approx(exact, rel=1e-10)


def test_a_bound_that_cannot_be_proved_is_nan_and_never_a_guess() -> None:
    def vague(batch: OptionBatch) -> Quotes:
        quotes = closed_form.price(batch)
        return replace(quotes, error_bound=0.5 * batch.strike)

    told = answered(quantiles(outlooks().repeat(5), PROBABILITIES), vague)
    assert np.isnan(told.error_bound).all()
    assert np.isfinite(told.value).all()


def test_few_rounds_are_asked() -> None:
    asked: list[int] = []

    def counting(batch: OptionBatch) -> Quotes:
        asked.append(len(batch))
        return european().price(batch)

    answered(quantiles(outlooks().repeat(5), PROBABILITIES), counting)
    assert len(asked) <= 4


def test_american_options_are_asked_for_only_where_wanted() -> None:
    asked: list[OptionBatch] = []

    def remembering(batch: OptionBatch) -> Quotes:
        asked.append(batch)
        return european().price(replace(batch, is_american=np.zeros(len(batch), dtype=np.bool_)))

    market, strike = outlooks(), np.array([100.0])
    without = answered(valuations(market, strike, american=False), remembering)
    assert without.american_call is None
    assert not any(batch.is_american.any() for batch in asked)
    asked.clear()
    told = answered(valuations(market, strike, american=True), remembering)
    assert told.american_put is not None
    assert asked[0].is_american.tolist() == [False, False, True, True]
    assert asked[0].is_call.tolist() == [True, False, True, False]


def test_the_method_of_a_valuation_is_the_models() -> None:
    near, far = outlooks(), outlooks(volatility=2.9, years=2.0)
    for market, method in ((near, Method.PINN), (far, Method.CLOSED_FORM)):
        told = answered(valuations(market, market.spot, american=False), european().price)
        assert told.call.method.tolist() == [method]
