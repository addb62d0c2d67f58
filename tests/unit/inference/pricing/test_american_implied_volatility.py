"""Volatilities of American prices: within their bounds, and open where the option is worth its payoff."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.american import AmericanModel, load_numpy_american
from pinn_inference.pricing.american_implied_volatility import HIGHEST, AmericanSearch
from pinn_inference.pricing.artefact import bundled_directory
from pinn_inference.pricing.implied_volatility import ImpliedVolatilities, Outcome, implied_volatility
from pinn_inference.pricing.model import load_numpy_model
from pinn_inference.pricing.types import FloatArray, Method, OptionBatch, Quotes

Price = Callable[[OptionBatch], Quotes]


@pytest.fixture(scope="module")
def model() -> AmericanModel:
    return load_numpy_american(bundled_directory("american"), load_numpy_model(bundled_directory()))


def american(n: int, *, seed: int) -> OptionBatch:
    draw = np.random.default_rng(seed)
    return OptionBatch(
        100.0 * np.exp(draw.normal(0.0, 0.25, n)),
        np.full(n, 100.0),
        draw.uniform(0.1, 2.0, n),
        draw.uniform(0.01, 0.1, n),
        draw.uniform(0.0, 0.1, n),
        draw.uniform(0.15, 0.6, n),
        draw.uniform(size=n) < 0.5,
        np.ones(n, dtype=np.bool_),
    )


def one(
    spot: float, strike: float, maturity: float, rate: float, dividend: float, volatility: float, *, call: bool = False
) -> OptionBatch:
    columns = (np.array([value]) for value in (spot, strike, maturity, rate, dividend, volatility))
    return OptionBatch(*columns, np.array([call]), np.array([True]))


def searched(options: OptionBatch, price: FloatArray, model: Price) -> tuple[ImpliedVolatilities, int]:
    """The answer, and how many prices it took."""
    search, priced = AmericanSearch(options, price), 0
    while (trial := search.trial) is not None:
        assert trial.is_american.all()
        search.learn(model(trial))
        priced += len(trial)
    return search.found, priced


def test_exact_prices_have_their_volatilities_within_the_bounds(model: AmericanModel) -> None:
    options = american(400, seed=1)
    exact = integral_equation.price(options)
    found, priced = searched(options, exact.price, model.price)
    known, open_ = found.outcome == Outcome.FOUND, found.outcome == Outcome.NOT_IDENTIFIABLE
    assert (known | open_).all()
    assert known.sum() > 350
    errors = np.abs(found.volatility - options.volatility)[known]
    assert (errors <= found.error_bound[known]).all()
    assert np.median(errors) < 2e-5
    assert np.median(found.error_bound[known]) < 1e-3
    assert np.isnan(found.lowest[known]).all()
    assert (found.lowest[open_] <= options.volatility[open_]).all()
    assert (found.highest[open_] >= options.volatility[open_]).all()
    assert priced < 8 * len(options)
    assert set(found.method[known].tolist()) <= {Method.PINN, Method.INTEGRAL_EQUATION}


def test_the_vega_is_that_of_the_model_at_the_volatility_found(model: AmericanModel) -> None:
    options = american(50, seed=2)
    found, _ = searched(options, model.price(options).price, model.price)
    known = found.outcome == Outcome.FOUND
    assert found.vega[known] == pytest.approx(model.price(options).vega[known], rel=1e-3)


def test_the_integral_equation_leaves_next_to_nothing_open() -> None:
    options = american(12, seed=3)
    price = integral_equation.price(options).price
    found, _ = searched(options, price, integral_equation.price)
    known = found.outcome == Outcome.FOUND
    assert known.sum() > 8
    assert np.abs(found.volatility - options.volatility)[known].max() < 1e-6
    assert found.error_bound[known].max() < 1e-5


def test_the_volatility_behind_hulls_american_put_is_found(model: AmericanModel) -> None:
    """Hull, Options, Futures, and Other Derivatives, "Basic numerical procedures": 5 months at 40 % are worth 4.28."""
    found, _ = searched(one(50.0, 50.0, 5 / 12, 0.1, 0.0, 0.0), np.array([4.28]), model.price)
    assert found.volatility[0] == pytest.approx(0.4, abs=0.005 / found.vega[0])


def test_an_option_that_is_worth_its_payoff_leaves_every_volatility_open_at_which_it_is(model: AmericanModel) -> None:
    found, _ = searched(one(60.0, 100.0, 1.0, 0.08, 0.0, 0.0), np.array([40.0]), integral_equation.price)
    assert found.outcome.tolist() == [Outcome.NOT_IDENTIFIABLE]
    highest = float(found.highest[0])
    assert found.lowest[0] == 0.0
    prices = [
        float(integral_equation.price(one(60.0, 100.0, 1.0, 0.08, 0.0, highest * share)).price[0])
        for share in (0.5, 0.98, 1.001)
    ]
    assert prices[0] == 40.0
    assert prices[1] < 40.0 + 1e-4
    assert prices[2] > 40.0
    wider, _ = searched(one(60.0, 100.0, 1.0, 0.08, 0.0, 0.0), np.array([40.0]), model.price)
    assert wider.outcome.tolist() == [Outcome.NOT_IDENTIFIABLE]
    assert wider.highest[0] >= 0.98 * highest


@pytest.mark.parametrize("price", [-1e308, -1.0, 0.0, 39.999])
def test_less_than_the_payoff_is_below_the_intrinsic_value(price: float) -> None:
    found, priced = searched(one(60.0, 100.0, 1.0, 0.08, 0.0, 0.0), np.array([price]), integral_equation.price)
    assert found.outcome.tolist() == [Outcome.BELOW_INTRINSIC]
    assert (found.price_low[0], found.price_high[0]) == (40.0, 100.0)
    assert priced == 0


@pytest.mark.parametrize("price", [100.01, 1e308])
def test_more_than_the_strike_is_above_the_upper_bound_of_a_put(price: float) -> None:
    found, _ = searched(one(60.0, 100.0, 1.0, 0.08, 0.0, 0.0), np.array([price]), integral_equation.price)
    assert found.outcome.tolist() == [Outcome.ABOVE_UPPER_BOUND]


def test_what_no_volatility_up_to_the_highest_gives_is_out_of_range() -> None:
    found, priced = searched(one(100.0, 100.0, 1e-4, 0.05, 0.0, 0.0), np.array([50.0]), integral_equation.price)
    assert found.outcome.tolist() == [Outcome.OUT_OF_RANGE]
    assert (found.lowest[0], found.highest[0]) == (HIGHEST, np.inf)
    assert priced < 10


def test_without_time_only_the_payoff_is_possible_and_it_tells_nothing() -> None:
    outcomes = [
        searched(one(60.0, 100.0, 0.0, 0.08, 0.0, 0.0), np.array([price]), integral_equation.price)[0].outcome[0]
        for price in (39.0, 40.0, 41.0)
    ]
    assert outcomes == [Outcome.BELOW_INTRINSIC, Outcome.NOT_IDENTIFIABLE, Outcome.ABOVE_UPPER_BOUND]


def test_calls_without_dividends_are_inverted_as_the_european_ones_that_they_are() -> None:
    call = one(100.0, 110.0, 1.0, 0.05, 0.0, 0.3, call=True)
    price = closed_form.price(call).price
    found, priced = searched(call, price, integral_equation.price)
    assert priced == 0
    assert found.volatility[0] == implied_volatility(call, price).volatility[0]


def test_a_put_that_is_worth_most_between_today_and_expiry_has_that_as_its_lower_bound() -> None:
    """With r < q < 0 the payoff of a put without volatility first falls and then rises, or the other way round."""
    option = one(100.0, 100.0, 10.0, 0.1, 0.02, 1e-4)
    found, _ = searched(option, np.array([-1.0]), integral_equation.price)
    assert found.price_low[0] == pytest.approx(integral_equation.price(option).price[0], abs=1e-2)


def test_a_model_whose_prices_are_no_numbers_ends_the_search_without_an_answer() -> None:
    def broken(batch: OptionBatch) -> Quotes:
        quotes = closed_form.price(batch)
        quotes.price[:] = np.nan
        return quotes

    found, priced = searched(one(100.0, 100.0, 1.0, 0.05, 0.0, 0.0), np.array([8.0]), broken)
    assert found.outcome.tolist() == [Outcome.NOT_IDENTIFIABLE]
    assert priced <= 100
