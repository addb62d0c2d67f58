"""Greeks of second order: those of the books, the derivatives of the price, and never further off than their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.bounded import Bounded
from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.second_order import NAMES, second_order
from pinn_inference.pricing.types import OptionBatch
from tests.support.exact_greeks import LEFT, batch, exact, random_options


def value(name: str, options: OptionBatch) -> float:
    return float(second_order(options, [name])[name].value[0])


# --- published values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "published", "digits"),
    [
        ("volga", batch(90.0, 130.0, 0.75, 0.05, 0.05, 0.28), 92.3444, 4),
        ("zomma", batch(100.0, 80.0, 0.25, 0.05, 0.05, 0.26), 0.0463, 4),
        ("speed", batch(50.0, 48.0, 1 / 12, 0.06, 0.05, 0.20), -0.0291, 4),
        ("charm", batch(105.0, 90.0, 0.25, 0.14, 0.14, 0.24, call=False), 0.3700, 4),
    ],
)
def test_the_examples_in_haugs_book_come_out(name: str, options: OptionBatch, published: float, digits: int) -> None:
    """Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., chapter 2; futures have dividend = rate."""
    assert round(value(name, options), digits) == published


# --- exact values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_is_the_derivative_that_it_is_named_for_within_its_bound(name: str) -> None:
    options = random_options(60)
    found = second_order(options, [name])[name]
    with mp.workdps(90):
        for row in range(len(options)):
            truth = exact(name, options, row)
            error = abs(mp.mpf(float(found.value[row])) - truth)
            assert error <= found.error_bound[row] + LEFT, row
    size = np.abs(found.value)
    assert np.median(found.error_bound[size > 1e-6] / size[size > 1e-6]) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_each_is_what_differences_of_the_first_order_give(name: str) -> None:
    terms = {"spot": 100.0, "strike": 95.0, "maturity": 0.7, "rate": 0.03, "dividend": 0.01, "volatility": 0.25}
    of, by, step = {
        "vanna": ("delta", "volatility", 1e-5), "volga": ("vega", "volatility", 1e-5),
        "charm": ("delta", "maturity", 1e-5), "veta": ("vega", "maturity", 1e-5),
        "speed": ("gamma", "spot", 1e-3), "zomma": ("gamma", "volatility", 1e-5),
        "color": ("gamma", "maturity", 1e-5), "ultima": ("volga", "volatility", 1e-5),
    }[name]  # fmt: skip

    def first(shift: float) -> float:
        options = batch(**{**terms, by: terms[by] + shift})
        return value(of, options) if of == "volga" else float(getattr(closed_form.price(options), of)[0])

    slope = (first(step) - first(-step)) / (2.0 * step)
    assert value(name, batch(**terms)) == pytest.approx(-slope if by == "maturity" else slope, rel=1e-6, abs=1e-8)


def test_a_call_and_its_put_have_the_same_but_for_charm() -> None:
    call, put = (batch(100.0, 90.0, 1.0, 0.04, 0.02, 0.3, call=is_call) for is_call in (True, False))
    for name in NAMES:
        difference = value(name, call) - value(name, put)
        assert difference == pytest.approx(0.02 * np.exp(-0.02) if name == "charm" else 0.0, abs=1e-12)


# --- without an answer, and at the ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("maturity", "volatility"), [(0.0, 0.2), (1.0, 0.0), (0.0, 0.0)])
def test_without_variance_there_is_no_answer(name: str, maturity: float, volatility: float) -> None:
    found = second_order(batch(100.0, 100.0, maturity, 0.0, 0.0, volatility), [name])[name]
    assert np.isnan(found.value[0])
    assert np.isnan(found.error_bound[0])


def test_what_the_formulas_say_nothing_of_has_no_answer() -> None:
    options = batch(np.array([100.0, 110.0]), 100.0, 1.0, 0.02, 0.0, 0.2)
    found = second_order(options, NAMES, known=np.array([True, False]))
    for greek in found.values():
        assert np.isfinite(greek.value).tolist() == np.isfinite(greek.error_bound).tolist() == [True, False]


@pytest.mark.parametrize("spot", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("strike", [1e-6, 1.0, 1e9])
def test_the_ends_of_all_ranges_have_answers_with_finite_bounds_or_none(spot: float, strike: float) -> None:
    grid = np.meshgrid([1e-9, 1 / 365, 1.0, 100.0], [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], [1e-9, 0.01, 10.0], [0.0, 1.0])
    maturity, rate, dividend, volatility, call = (column.ravel() for column in grid)
    found = second_order(batch(spot, strike, maturity, rate, dividend, volatility, call=call > 0.5), NAMES)
    for greek in found.values():
        assert (np.isnan(greek.value) == np.isnan(greek.error_bound)).all()
        assert (greek.error_bound[np.isfinite(greek.error_bound)] >= 0.0).all()
        usual = (maturity >= 1 / 365) & (volatility >= 0.01)
        assert np.isfinite(greek.value[usual]).all()


def test_far_from_the_money_nothing_is_left() -> None:
    for name in NAMES:
        assert value(name, batch(1e9, 1e-6, 0.01, 0.0, 0.0, 0.01)) == 0.0


# --- bounds -----------------------------------------------------------------------------------------------------------

Operation = Callable[[Any, Any], Any]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda a, b: a + b, lambda a, b: a + b),
        (lambda a, b: a - b, lambda a, b: a - b),
        (lambda a, b: a * b, lambda a, b: a * b),
        (lambda a, b: a / b, lambda a, b: a / b),
        (lambda a, b: -a * 3.0 + 1.0, lambda a, b: -a * 3 + 1),
        (lambda a, b: a.exp(), lambda a, b: mp.exp(a)),
        (lambda a, b: b.log(), lambda a, b: mp.log(b)),
        (lambda a, b: a.normal_distribution(), lambda a, b: mp.ncdf(a)),
        (lambda a, b: a.clipped(2.0), lambda a, b: max(min(a, mp.mpf(2)), mp.mpf(-2))),
    ],
)
def test_bounds_cover_operands_that_are_off_by_all_that_theirs_allow(ours: Operation, theirs: Operation) -> None:
    draw, n = np.random.default_rng(5), 200
    a, b = draw.uniform(-8.0, 8.0, n), draw.uniform(0.1, 9.0, n)
    errors = 10 ** draw.uniform(-16, -3, (2, n))
    found = ours(Bounded(a, errors[0]), Bounded(b, errors[1]))
    with mp.workdps(40):
        for row in range(n):
            for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                moved = [
                    mp.mpf(float(one[row])) + sign * mp.mpf(float(error[row]))
                    for one, sign, error in zip((a, b), signs, errors, strict=True)
                ]
                assert abs(mp.mpf(float(found.value[row])) - theirs(*moved)) <= found.error[row] * (1 + 1e-12)


@pytest.mark.parametrize("error", [0.5, 1.0, 2.0])
def test_what_may_be_divided_by_nothing_has_no_finite_bound(error: float) -> None:
    divisor = Bounded(np.array([0.5, -0.5]), np.full(2, error))
    with np.errstate(all="ignore"):
        quotient = Bounded.exact(np.ones(2)) / divisor
        logarithm = divisor.log()
    assert not np.isfinite(quotient.error).any()
    assert not np.isfinite(logarithm.error).any()


def test_a_spot_that_is_nearly_all_dividends_has_no_greeks_rather_than_wrong_ones() -> None:
    options = batch(1e-11, 100.0, 1.0, 0.02, 0.0, 0.2)
    escrow = Escrow(np.array([1e4]), np.zeros(1), np.array([200.0]))
    for greek in second_order(options, NAMES, escrow=escrow).values():
        assert np.isnan(greek.value[0])
