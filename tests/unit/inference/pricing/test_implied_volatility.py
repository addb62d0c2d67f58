"""Implied volatilities: exact to a few units in the last place, bounded, and clear where there is none."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest
from lets_be_rational.lets_be_rational import (
    normalised_implied_volatility_from_a_transformed_rational_guess as reference,
)

from pinn_inference.pricing import closed_form
from pinn_inference.pricing import implied_volatility as starts
from pinn_inference.pricing.implied_volatility import Outcome, implied_volatility, total_volatility
from pinn_inference.pricing.types import FloatArray, OptionBatch
from tests.support.exact_greeks import batch, exact_price

EPS = float(np.finfo(np.float64).eps)


# --- exact values -----------------------------------------------------------------------------------------------------


def exact_u(k: Any, s: Any) -> Any:
    """The out-of-the-money option in units of √(AB)."""
    return mp.ncdf(-k / s + s / 2) * mp.exp(-k / 2) - mp.ncdf(-k / s - s / 2) * mp.exp(k / 2)


class Points:
    """Prices in normalised variables with the total volatilities that they have, to 40 digits."""

    def __init__(self, number: int, *, seed: int, largest_k: float = 1.2) -> None:
        draw = np.random.default_rng(seed)
        rows = []
        while len(rows) < number:
            k, s = float(10 ** draw.uniform(-6, largest_k)), float(10 ** draw.uniform(-3, 1.0))
            if k / s > 36.0:
                continue
            with mp.workdps(40):
                beta = exact_u(mp.mpf(k), mp.mpf(s))
                gamma = mp.exp(-mp.mpf(k) / 2) - beta
                if beta < 1e-280 or gamma < 1e-15:
                    continue
                given = mp.mpf(float(beta)) if beta < gamma else mp.exp(-mp.mpf(k) / 2) - mp.mpf(float(gamma))
                slope = mp.npdf(mp.mpf(k) / s) * mp.exp(-(mp.mpf(s) ** 2) / 8)
                rows.append((k, float(beta), float(gamma), mp.mpf(s) + (given - beta) / slope))
        self.k, self.beta, self.gamma = (np.array([row[i] for row in rows], dtype=np.float64) for i in range(3))
        self.exact = [row[3] for row in rows]

    def errors(self, found: FloatArray) -> FloatArray:
        """Relative, in units of float64's last place."""
        with mp.workdps(40):
            pairs = zip(found.tolist(), self.exact, strict=True)
            return np.array([abs(float(mp.mpf(one) / exact - 1)) for one, exact in pairs]) / EPS


def test_total_volatilities_are_exact_to_a_few_units_in_the_last_place() -> None:
    points = Points(400, seed=1)
    errors = points.errors(total_volatility(points.k, points.beta, points.gamma)[0])
    assert errors.max() < 8.0
    assert errors.mean() < 1.0


def test_they_are_as_exact_as_those_of_lets_be_rational() -> None:
    points = Points(300, seed=2)
    lower = (
        points.beta < points.gamma
    )  # the reference is given β alone, which has no digits left near its largest value
    ours = points.errors(total_volatility(points.k, points.beta, points.gamma)[0])[lower]
    pairs = zip(points.k.tolist(), points.beta.tolist(), strict=True)
    theirs = points.errors(np.array([reference(beta, -k, 1.0) for k, beta in pairs]))[lower]
    assert ours.max() <= theirs.max() + 4.0
    assert ours.mean() <= theirs.mean() + 0.5


@pytest.mark.parametrize("k", [0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 60.0])
def test_the_method_converges_everywhere(k: float) -> None:
    s = np.geomspace(max(k / 35.0, 1e-3), 15.0, 60)
    with mp.workdps(50):
        beta = [exact_u(mp.mpf(k), mp.mpf(one)) for one in s.tolist()]
        gamma = [mp.exp(-mp.mpf(k) / 2) - one for one in beta]
        columns = [np.array([float(one) for one in column]) for column in (beta, gamma)]
    found, _ = total_volatility(np.full_like(s, k), *columns)
    assert np.abs(found / s - 1.0).max() < 30 * EPS


def test_the_functions_behind_the_bound_are_concave() -> None:
    with mp.workdps(30):
        for k in (0.0, 0.01, 0.3, 2.0, 12.0):
            for s in np.geomspace(max(k / 30, 0.01), 8.0, 25).tolist():
                price = mp.diff(lambda t, k=k: mp.log(exact_u(mp.mpf(k), mp.exp(t))), mp.log(s), 2)
                rest = mp.diff(lambda t, k=k: mp.log(mp.exp(-mp.mpf(k) / 2) - exact_u(mp.mpf(k), t)), mp.mpf(s), 2)
                assert price < 1e-15
                assert rest < 1e-15


def test_every_error_is_within_its_bound_and_the_bound_is_no_wider_than_a_hundred_errors_of_float64() -> None:
    draw, n = np.random.default_rng(3), 400
    options = batch(
        100.0 * np.exp(draw.normal(0.0, 0.4, n)),
        100.0,
        10 ** draw.uniform(-2.5, 1.0, n),
        draw.uniform(-0.05, 0.15, n),
        draw.uniform(-0.05, 0.15, n),
        10 ** draw.uniform(-1.5, 0.3, n),
        draw.uniform(size=n) < 0.5,
    )
    with mp.workdps(40):
        price = np.array([float(exact_price(options, row)) for row in range(n)])
        found = implied_volatility(options, price)
        known = np.flatnonzero(found.outcome == Outcome.FOUND)
        assert len(known) > 0.6 * n
        for row in known.tolist():
            # The exact volatility of the price as it was rounded, by two steps of Newton's method from beside it.
            exact = mp.mpf(float(options.volatility[row]))
            for _ in range(3):
                slope = mp.diff(lambda v, row=row: exact_price(options, row, volatility=v), exact)
                exact += (mp.mpf(float(price[row])) - exact_price(options, row, volatility=exact)) / slope
            error = abs(float(mp.mpf(float(found.volatility[row])) - exact))
            assert error <= found.error_bound[row], row
            assert float(slope) == pytest.approx(found.vega[row], rel=1e-6 + 100 * error / float(exact))
            assert found.error_bound[row] < 100 * EPS * (options.spot[row] + options.strike[row]) * 2 / found.vega[
                row
            ] + (100 * EPS * options.volatility[row])


def test_the_starts_come_from_inverses_that_are_right_to_half_a_thousandth() -> None:
    with mp.workdps(30):
        for place in [*np.geomspace(1e-8, 1.0, 40), *np.linspace(1.1, 36.0, 60)]:
            y = mp.mpf(float(place))
            price = mp.npdf(y) / y - mp.ncdf(-y)
            for coefficients, distance in (
                (starts._NORMAL_MODEL, mp.log(1 + 1 / price)),
                (starts._DISTRIBUTION, -mp.log(2 * mp.ncdf(-y))),
            ):
                found = starts._fitted(coefficients, np.array([float(distance)]))[0]
                assert found == pytest.approx(place, rel=5e-4)


# --- published values -------------------------------------------------------------------------------------------------


def test_the_volatility_in_hulls_chapter_on_black_scholes_is_found() -> None:
    """Hull, Options, Futures, and Other Derivatives, "Implied volatilities": a call at 1.875 implies 0.235."""
    found = implied_volatility(batch(21.0, 20.0, 0.25, 0.1), np.array([1.875]))
    assert found.volatility[0] == pytest.approx(0.235, abs=5e-4)


def test_volatilities_behind_the_prices_of_haugs_tables_are_found() -> None:
    """Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., chapter 1: options priced there to four digits."""
    stock_call = implied_volatility(batch(60.0, 65.0, 0.25, 0.08, 0.0), np.array([2.1334]))
    index_put = implied_volatility(batch(100.0, 95.0, 0.5, 0.10, 0.05, call=False), np.array([2.4648]))
    currency_call = implied_volatility(batch(1.56, 1.6, 0.5, 0.06, 0.08), np.array([0.0291]))
    for found, volatility in ((stock_call, 0.30), (index_put, 0.20), (currency_call, 0.12)):
        assert found.volatility[0] == pytest.approx(volatility, abs=5e-5 / found.vega[0])


# --- both sides of a pair, and one row at a time ----------------------------------------------------------------------


def test_a_call_and_its_put_imply_the_same_volatility() -> None:
    terms = (100.0, np.array([70.0, 95.0, 100.0, 130.0]), 0.7, 0.03, 0.01, 0.25)
    call, put = (batch(*terms, call=is_call) for is_call in (True, False))
    found = [implied_volatility(one, closed_form.price(one).price) for one in (call, put)]
    assert np.abs(found[0].volatility - found[1].volatility).max() < 1e-12


def test_a_row_is_answered_as_it_would_be_alone() -> None:
    draw, n = np.random.default_rng(4), 9000
    options = batch(
        draw.uniform(50, 150, n), 100.0, draw.uniform(0.01, 2, n), 0.02, volatility=draw.uniform(0.05, 1, n)
    )
    price = closed_form.price(options).price
    together = implied_volatility(options, price)
    for row in (0, 17, 8191, 8192, 8999):
        alone = implied_volatility(options.take(slice(row, row + 1)), price[row : row + 1])
        assert alone.outcome[0] == together.outcome[row]
        assert np.array_equal(alone.volatility, together.volatility[row : row + 1], equal_nan=True)


def test_no_options_have_no_volatilities() -> None:
    assert len(implied_volatility(batch(*np.zeros((3, 0))), np.zeros(0))) == 0


# --- without an answer ------------------------------------------------------------------------------------------------

CALL = batch(100.0, 80.0, 1.0, 0.05)
"""Worth at least 100 − 80·e^{−0.05} = 23.90 and at most 100."""


def outcome_of(option: OptionBatch, price: float) -> Outcome:
    found = implied_volatility(option, np.array([price]))
    outcome = Outcome(int(found.outcome[0]))
    nothing = [np.isnan(column[0]) for column in (found.volatility, found.error_bound, found.vega)]
    assert nothing == [outcome is not Outcome.FOUND] * 3
    return outcome


@pytest.mark.parametrize("price", [-1e308, -1.0, 0.0, 5e-324, 1e-30, 23.8, 23.90164])
def test_a_price_below_the_intrinsic_value_is_told_as_such(price: float) -> None:
    assert outcome_of(CALL, price) is Outcome.BELOW_INTRINSIC


@pytest.mark.parametrize("price", [100.001, 1e6, 1e308, float(np.finfo(np.float64).max)])
def test_a_price_above_what_the_option_can_be_worth_is_told_as_such(price: float) -> None:
    assert outcome_of(CALL, price) is Outcome.ABOVE_UPPER_BOUND


def test_the_range_of_prices_is_that_of_the_option() -> None:
    found = implied_volatility(CALL, np.array([1.0]))
    assert found.price_low[0] == pytest.approx(100.0 - 80.0 * np.exp(-0.05), rel=1e-15)
    assert found.price_high[0] == 100.0


def test_a_price_of_intrinsic_value_alone_leaves_all_small_volatilities_open() -> None:
    option = batch(100.0, 80.0, 1.0, 0.05)
    price = closed_form.price(option).price  # of no volatility
    assert outcome_of(option, float(price[0])) is Outcome.NOT_IDENTIFIABLE
    found = implied_volatility(option, price)
    assert found.lowest[0] == 0.0
    assert 0.02 < found.highest[0] < 0.06
    inside = batch(100.0, 80.0, 1.0, 0.05, volatility=0.9 * found.highest[0])
    assert closed_form.price(inside).price[0] == pytest.approx(price[0], abs=1e-12)


def test_a_price_of_zero_out_of_the_money_leaves_all_small_volatilities_open() -> None:
    option = batch(80.0, 100.0, 1.0)
    assert outcome_of(option, 0.0) is Outcome.NOT_IDENTIFIABLE
    found = implied_volatility(option, np.zeros(1))
    assert found.lowest[0] == 0.0
    assert closed_form.price(batch(80.0, 100.0, 1.0, volatility=found.highest[0])).price[0] < 1e-280


def test_the_highest_price_leaves_all_large_volatilities_open() -> None:
    assert outcome_of(CALL, 100.0) is Outcome.NOT_IDENTIFIABLE
    found = implied_volatility(CALL, np.array([100.0]))
    assert found.highest[0] == np.inf
    assert closed_form.price(batch(100.0, 80.0, 1.0, 0.05, volatility=found.lowest[0])).price[0] == pytest.approx(100.0)


def test_at_expiry_no_price_tells_a_volatility() -> None:
    option = batch(100.0, 80.0, 0.0)
    assert outcome_of(option, 20.0) is Outcome.NOT_IDENTIFIABLE
    assert outcome_of(option, 21.0) is Outcome.ABOVE_UPPER_BOUND
    assert outcome_of(option, 19.0) is Outcome.BELOW_INTRINSIC
    found = implied_volatility(option, np.array([20.0]))
    assert (found.lowest[0], found.highest[0], found.price_high[0]) == (0.0, np.inf, 20.0)


def test_a_price_that_is_mostly_rounding_is_not_answered_with_a_number() -> None:
    option = batch(100.0, 50.0, 1.0, volatility=0.09)
    price = closed_form.price(option).price
    assert outcome_of(option, float(price[0])) is Outcome.NOT_IDENTIFIABLE
    found = implied_volatility(option, price)
    assert found.lowest[0] <= 0.09 <= found.highest[0]


def test_far_out_of_the_money_even_a_price_without_meaning_to_anybody_is_inverted() -> None:
    option = batch(50.0, 100.0, 1.0, volatility=0.05)
    price = closed_form.price(option).price
    assert 0.0 < price[0] < 1e-40
    assert implied_volatility(option, price).volatility[0] == pytest.approx(0.05, rel=1e-13)


@pytest.mark.parametrize("spot", [1e-6, 1e9])
@pytest.mark.parametrize("strike", [1e-6, 1e9])
@pytest.mark.parametrize("maturity", [0.0, 5e-324, 1e-12, 100.0])
@pytest.mark.parametrize("rates", [(-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)])
def test_the_ends_of_all_ranges_give_a_finite_volatility_or_a_reason(
    spot: float, strike: float, maturity: float, rates: tuple[float, float]
) -> None:
    price = np.array([-1e308, -1.0, 0.0, 5e-324, 1e-300, 1e-6, 1.0, 1e9, 1e50, 1e308])
    for is_call in (True, False):
        options = batch(np.full_like(price, spot), strike, maturity, *rates, call=is_call)
        found = implied_volatility(options, price)
        known = found.outcome == Outcome.FOUND
        for column in (found.volatility, found.error_bound, found.vega):
            assert (np.isfinite(column) == known).all()
            assert (column[known] >= 0.0).all()
        assert np.isfinite(found.price_low).all()
        assert np.isfinite(found.price_high).all()
        vague = found.outcome == Outcome.NOT_IDENTIFIABLE
        assert (found.lowest[vague] <= found.highest[vague]).all()
