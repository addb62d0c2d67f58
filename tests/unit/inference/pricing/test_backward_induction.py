"""American options with two exercise boundaries, or with dividends of known amounts, against methods of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.backward_induction import price
from pinn_inference.pricing.escrow import Schedule
from pinn_inference.pricing.types import Method, OptionBatch, Quotes
from tests.support.finite_differences import Terms, price_by_differences

GREEKS = ("delta", "gamma", "vega", "theta", "rho")


def batch_of(terms: Terms) -> OptionBatch:
    """The option as the pricing functions take it, its dividends taken off the spot."""
    schedule = Schedule(terms.dividends).until(terms.maturity)
    names = ("strike", "maturity", "rate", "dividend", "volatility")
    columns = {name: np.array([float(getattr(terms, name))]) for name in names}
    return OptionBatch(
        spot=np.array([terms.spot - schedule.present_value(terms.rate)]),
        is_call=np.array([terms.is_call]),
        is_american=np.array([True]),
        schedules=(schedule,) if schedule.dividends else (),
        **columns,
    )


def quote(terms: Terms) -> Quotes:
    return price(batch_of(terms))


def two_sided(**changes: Any) -> Terms:
    """A put whose share yields less than the strike earns, both negative (rates as in Andersen and Lake 2021)."""
    return replace(Terms(100.0, 100.0, 1.0, -0.005, -0.01, 0.08, is_call=False), **changes)


TWO_SIDED = [
    two_sided(),
    two_sided(maturity=10.0),
    two_sided(rate=-0.0075, dividend=-0.0125, volatility=0.1),
    two_sided(spot=1.1, strike=1.12, maturity=2.0, rate=-0.0075, dividend=-0.005, is_call=True),
    two_sided(maturity=0.5, rate=-0.02, dividend=-0.05, volatility=0.1),
    two_sided(spot=60.0, maturity=3.0, rate=-0.02, dividend=-0.08, volatility=0.3),
    two_sided(rate=-0.0075, dividend=-0.005, volatility=0.1, is_call=True),
]


@pytest.mark.parametrize("terms", TWO_SIDED, ids=range(len(TWO_SIDED)))
def test_an_option_with_two_boundaries_agrees_with_finite_differences(terms: Terms) -> None:
    quotes = quote(terms)
    error = abs(quotes.price[0] - price_by_differences(terms, points=2400, steps=1200))
    assert error < 2e-6 * terms.strike
    assert quotes.error_bound[0] < 3e-4 * terms.strike


@pytest.mark.parametrize("terms", TWO_SIDED, ids=range(len(TWO_SIDED)))
def test_an_option_with_two_boundaries_agrees_with_quantlib(terms: Terms) -> None:
    assert quote(terms).price[0] == pytest.approx(quantlib_by_differences(terms), abs=1e-5 * terms.strike)


def quantlib_by_differences(terms: Terms) -> float:
    """`FdBlackScholesVanillaEngine`; QuantLib's faster engines refuse two boundaries."""
    today = ql.Date(2, 1, 2023)
    ql.Settings.instance().evaluationDate = today
    days = ql.Actual365Fixed()
    year = round(365 * terms.maturity)
    scale = terms.maturity * 365 / year
    rates = [
        ql.YieldTermStructureHandle(ql.FlatForward(today, value * scale, days))
        for value in (terms.dividend, terms.rate)
    ]
    volatility = ql.BlackConstantVol(today, ql.NullCalendar(), terms.volatility * scale**0.5, days)
    process = ql.GeneralizedBlackScholesProcess(
        ql.QuoteHandle(ql.SimpleQuote(terms.spot)), *rates, ql.BlackVolTermStructureHandle(volatility)
    )
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if terms.is_call else ql.Option.Put, terms.strike)
    option = ql.VanillaOption(payoff, ql.AmericanExercise(today, today + year))
    option.setPricingEngine(ql.FdBlackScholesVanillaEngine(process, 2000, 1200, 10))
    return float(option.NPV())


def test_the_option_is_exercised_inside_a_band_of_spots_and_held_on_both_sides_of_it() -> None:
    """The lower boundary begins at r/q of the strike at expiry, and both move towards each other."""
    band = two_sided(maturity=0.25, rate=-0.02, dividend=-0.04, volatility=0.1)
    spots = [30.0, 45.0, 60.0, 75.0, 85.0, 97.0]
    quotes = [quote(replace(band, spot=spot)) for spot in spots]
    held = [float(one.price[0]) > 100.0 - spot + 1e-9 for spot, one in zip(spots, quotes, strict=True)]
    assert held == [True, True, False, False, False, True]
    inside = quotes[3]
    assert inside.price[0] == 25.0
    assert [getattr(inside, name)[0] for name in GREEKS] == [-1.0, 0.0, 0.0, 0.0, 0.0]
    edges = [quote(replace(band, spot=spot)) for spot in (60.0, 97.0)]
    assert 85.0 < edges[1].exercise_boundary[0] < 97.0
    # What is exercised and what is held lies on the right side of either boundary.
    far = edges[0].far_boundary[0]
    assert 50.0 < far < 60.0
    assert quote(replace(band, spot=far * 1.01)).price[0] == pytest.approx(100.0 - far * 1.01, abs=1e-9)
    assert quote(replace(band, spot=far * 0.99)).price[0] > 100.0 - far * 0.99 + 1e-5
    mirrored = quote(replace(band, spot=100.0, strike=60.0, rate=-0.04, dividend=-0.02, is_call=True))
    assert mirrored.far_boundary[0] == pytest.approx(100.0 * 60.0 / far, rel=1e-9)


def test_with_one_boundary_there_is_no_other() -> None:
    assert np.isnan(price(random_options(12)).far_boundary).all()


def test_a_call_is_the_put_with_spot_and_strike_rate_and_dividend_exchanged() -> None:
    put = two_sided(spot=96.0, maturity=2.0)
    call = two_sided(spot=100.0, strike=96.0, maturity=2.0, rate=-0.01, dividend=-0.005, is_call=True)
    assert quote(put).price[0] == pytest.approx(quote(call).price[0], rel=1e-10)


def random_options(count: int) -> OptionBatch:
    """With one boundary, so that the integral equation knows them to many digits."""
    draw = np.random.default_rng(7)
    return OptionBatch(
        spot=100.0 * np.exp(draw.uniform(-0.3, 0.3, count)),
        strike=np.full(count, 100.0),
        maturity=np.exp(draw.uniform(np.log(0.05), np.log(3.0), count)),
        rate=draw.uniform(0.005, 0.1, count),
        dividend=draw.uniform(0.0, 0.1, count),
        volatility=draw.uniform(0.1, 0.5, count),
        is_call=draw.random(count) < 0.5,
        is_american=np.ones(count, dtype=np.bool_),
    )


def test_where_the_integral_equation_answers_too_both_agree_in_prices_and_greeks() -> None:
    batch = random_options(40)
    quotes, exact = price(batch), integral_equation.price(batch)
    error = np.abs(quotes.price - exact.price)
    assert error.max() < 2e-5 * 100.0
    assert np.median(error) < 1e-7 * 100.0
    assert (error <= quotes.error_bound + exact.error_bound).all()
    root = np.sqrt(batch.maturity)
    sizes = {
        "delta": 1.0,
        "vega": batch.spot * root,
        "rho": batch.strike * batch.maturity,
    }
    for name, size in sizes.items():
        assert (np.abs(getattr(quotes, name) - getattr(exact, name)) / size).max() < 3e-3, name
    near = np.abs(np.log(batch.spot / exact.exercise_boundary)) < 0.15 * batch.volatility * root
    for name, size in (("gamma", 1.0 / (batch.spot * batch.volatility * root)), ("theta", batch.spot / root)):
        assert (np.abs(getattr(quotes, name) - getattr(exact, name)) / size)[~near].max() < 2e-3, name
    known = np.isfinite(exact.exercise_boundary) & (exact.exercise_boundary > 0.0) & (quotes.exercise_boundary > 0.0)
    known &= np.isfinite(quotes.exercise_boundary)
    assert known.sum() > 25
    assert np.abs(quotes.exercise_boundary / exact.exercise_boundary - 1.0)[known].max() < 1e-2


@pytest.mark.parametrize("spread", [1e-3, 0.05, 2.5, 20.0])
def test_far_from_what_desks_quote_prices_are_right_to_a_ten_thousandth_and_bounds_hold(spread: float) -> None:
    draw = np.random.default_rng(3)
    count = 6
    maturity = np.exp(draw.uniform(np.log(0.1), np.log(20.0), count))
    batch = replace(
        random_options(count),
        spot=100.0 * np.exp(draw.uniform(-1.0, 1.0, count) * min(max(spread, 0.02), 1.0)),
        maturity=maturity,
        volatility=spread / np.sqrt(maturity),
    )
    quotes, exact = price(batch), integral_equation.price(batch)
    error = np.abs(quotes.price - exact.price)
    assert (error < 1.5e-4 * np.where(batch.is_call, batch.spot, batch.strike)).all()
    assert (error <= quotes.error_bound + exact.error_bound).all()


DIVIDENDS = ((0.25, 1.0), (0.5, 1.5), (0.75, 1.0))
WITH_DIVIDENDS = [
    Terms(100.0, 100.0, 1.0, 0.05, 0.0, 0.25, is_call=True, dividends=DIVIDENDS),
    Terms(100.0, 100.0, 1.0, 0.05, 0.0, 0.25, is_call=False, dividends=DIVIDENDS),
    Terms(120.0, 100.0, 1.0, 0.05, 0.0, 0.25, is_call=True, dividends=DIVIDENDS),
    Terms(80.0, 100.0, 1.0, 0.05, 0.0, 0.25, is_call=False, dividends=DIVIDENDS),
    Terms(100.0, 100.0, 1.0, 0.02, 0.01, 0.3, is_call=True, dividends=((0.3, 6.0),)),
    Terms(100.0, 100.0, 1.0, 0.02, 0.01, 0.3, is_call=False, dividends=((0.3, 6.0), (1.0, 2.0))),
    Terms(100.0, 100.0, 3.0, 0.03, 0.0, 0.3, is_call=False, dividends=tuple((0.1 + 0.25 * k, 1.0) for k in range(12))),
    Terms(100.0, 20.0, 1.0, 0.03, 0.0, 0.4, is_call=True, dividends=((0.2, 40.0),)),
    Terms(100.0, 100.0, 1.0, 0.05, 0.0, 0.25, is_call=True, dividends=((0.0, 3.0),)),
    Terms(100.0, 100.0, 1.0, 0.05, 0.0, 0.25, is_call=False, dividends=((0.0, 3.0), (0.5, 2.0))),
    Terms(100.0, 100.0, 1.0, -0.01, 0.0, 0.2, is_call=False, dividends=((0.4, 2.0),)),
]


@pytest.mark.parametrize("terms", WITH_DIVIDENDS, ids=range(len(WITH_DIVIDENDS)))
def test_an_option_with_dividends_agrees_with_finite_differences_of_the_same_model(terms: Terms) -> None:
    quotes = quote(terms)
    error = abs(quotes.price[0] - price_by_differences(terms, points=2400, steps=1200))
    assert error < 5e-6 * terms.strike
    assert error <= quotes.error_bound[0] + 2e-6 * terms.strike
    assert quotes.method[0] == Method.BACKWARD_INDUCTION


def roll_geske_whaley(terms: Terms) -> float:
    """An American call with one dividend and no yield, in closed form: the very model (Whaley 1981)."""
    ((time, amount),) = terms.dividends
    rate, volatility, maturity = terms.rate, terms.volatility, terms.maturity
    start = terms.spot - amount * np.exp(-rate * time)

    def european(spot: float) -> float:
        d1 = (np.log(spot / terms.strike) + (rate + volatility**2 / 2) * (maturity - time)) / (
            volatility * np.sqrt(maturity - time)
        )
        d2 = d1 - volatility * np.sqrt(maturity - time)
        return float(spot * norm.cdf(d1) - terms.strike * np.exp(-rate * (maturity - time)) * norm.cdf(d2))

    low, high = 1e-6, 1e4
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if european(middle) < middle + amount - terms.strike else (middle, high)

    def d(level: float, until: float) -> tuple[float, float]:
        first = (np.log(start / level) + (rate + volatility**2 / 2) * until) / (volatility * np.sqrt(until))
        return first, first - volatility * np.sqrt(until)

    def both(one: float, other: float) -> float:
        correlation = -np.sqrt(time / maturity)
        return float(multivariate_normal(cov=[[1.0, correlation], [correlation, 1.0]]).cdf([one, other]))

    (a1, a2), (b1, b2) = d(terms.strike, maturity), d(low, time)
    return float(
        start * norm.cdf(b1)
        + start * both(a1, -b1)
        - terms.strike * np.exp(-rate * maturity) * both(a2, -b2)
        - (terms.strike - amount) * np.exp(-rate * time) * norm.cdf(b2)
    )


@pytest.mark.parametrize(
    "terms",
    [
        Terms(80.0, 82.0, 1 / 3, 0.06, 0.0, 0.3, is_call=True, dividends=((0.25, 4.0),)),
        Terms(100.0, 90.0, 1.0, 0.03, 0.0, 0.2, is_call=True, dividends=((0.6, 5.0),)),
        Terms(100.0, 110.0, 2.0, 0.02, 0.0, 0.4, is_call=True, dividends=((1.9, 8.0),)),
    ],
)
def test_a_call_with_one_dividend_agrees_with_the_formula_of_roll_geske_and_whaley(terms: Terms) -> None:
    assert quote(terms).price[0] == pytest.approx(roll_geske_whaley(terms), abs=3e-7 * terms.strike)


def test_a_textbook_call_with_one_dividend_has_its_textbook_price() -> None:
    """Haug, The Complete Guide to Option Pricing Formulas, on Roll, Geske and Whaley: 4.3860, European 3.5107."""
    terms = Terms(80.0, 82.0, 1 / 3, 0.06, 0.0, 0.3, is_call=True, dividends=((0.25, 4.0),))
    assert quote(terms).price[0] == pytest.approx(4.3860, abs=6e-5)
    assert closed_form.price(batch_of(terms)).price[0] == pytest.approx(3.5107, abs=6e-5)


@pytest.mark.parametrize("terms", [TWO_SIDED[0], TWO_SIDED[3], *WITH_DIVIDENDS[:3], WITH_DIVIDENDS[5]], ids=range(6))
def test_greeks_are_the_derivatives_of_the_price_at_a_held_spot_without_dividends(terms: Terms) -> None:
    batch = batch_of(terms)
    quotes = price(batch)
    # Later by dt, all times are shorter; the share without its dividends stands still.
    h = {"spot": 0.01 * terms.spot, "volatility": 2e-3, "rate": 5e-4}

    def moved(name: str, by: float) -> Quotes:
        return price(replace(batch, **{name: getattr(batch, name) + by}))

    for name, greek, size in (
        ("spot", "delta", 1.0),
        ("volatility", "vega", terms.spot * terms.maturity**0.5),
        ("rate", "rho", terms.strike * terms.maturity),
    ):
        slope = (moved(name, h[name]).price[0] - moved(name, -h[name]).price[0]) / (2.0 * h[name])
        assert getattr(quotes, greek)[0] == pytest.approx(slope, abs=2e-3 * size), greek
    bend = (moved("spot", h["spot"]).delta[0] - moved("spot", -h["spot"]).delta[0]) / (2.0 * h["spot"])
    assert quotes.gamma[0] == pytest.approx(bend, abs=2e-3 / (terms.spot * terms.volatility * terms.maturity**0.5))
    dt = 2e-3

    def later(by: float) -> float:
        shifted = tuple((time - by, amount) for time, amount in terms.dividends)
        schedules = (Schedule(shifted),) if shifted else ()
        return float(price(replace(batch, maturity=batch.maturity - by, schedules=schedules)).price[0])

    assert quotes.theta[0] == pytest.approx((later(dt) - later(-dt)) / (2.0 * dt), abs=2e-3 * terms.spot)


def test_a_call_is_exercised_just_before_a_dividend_that_is_worth_more_than_waiting() -> None:
    deep = Terms(150.0, 100.0, 1.0, 0.01, 0.0, 0.1, is_call=True, dividends=((0.5, 10.0),))
    (time, amount), discount = deep.dividends[0], np.exp(-0.01 * 0.5)
    spot = 150.0 - amount * discount
    # Exercise at 0.5 gets the whole share for the strike: hardly ever is that regretted.
    assert quote(deep).price[0] == pytest.approx(spot + amount * discount - 100.0 * discount, abs=0.01)
    assert time == 0.5
    assert quote(deep).price[0] > closed_form.price(batch_of(deep)).price[0] + 5.0


def test_at_expiry_the_option_is_its_payoff() -> None:
    quotes = quote(Terms(90.0, 100.0, 0.0, 0.05, 0.0, 0.2, is_call=False))
    assert (quotes.price[0], quotes.delta[0], quotes.exercise_boundary[0]) == (10.0, -1.0, 100.0)
    with_its_dividend = quote(Terms(90.0, 85.0, 0.0, 0.05, 0.0, 0.2, is_call=True, dividends=((0.0, 3.0),)))
    assert with_its_dividend.price[0] == pytest.approx(5.0)


@settings(deadline=None, max_examples=25)
@given(
    spot=st.floats(1e-3, 1e6),
    strike=st.floats(1e-3, 1e6),
    maturity=st.floats(0.0, 100.0),
    rate=st.floats(-1.0, 1.0),
    dividend=st.floats(-1.0, 1.0),
    volatility=st.floats(0.0, 10.0),
    is_call=st.booleans(),
    share=st.floats(0.0, 0.99),
    at=st.floats(0.0, 1.0),
)
def test_whatever_is_asked_is_answered_with_numbers_within_bounds(
    share: float, at: float, spot: float, strike: float, maturity: float, rate: float, is_call: bool, **more: float
) -> None:
    amount = share * spot * float(np.exp(np.minimum(rate * at * maturity, 50.0)))
    dividends = ((at * maturity, amount),) if amount > 0.0 else ()
    terms = Terms(spot, strike, maturity, rate, is_call=is_call, dividends=dividends, **more)
    batch = batch_of(terms)
    if batch.spot[0] <= 0.0:
        return
    quotes = price(batch)
    for name in ("price", *GREEKS, "error_bound"):
        assert np.isfinite(getattr(quotes, name)[0]), name
    assert not np.isnan(quotes.exercise_boundary[0])
    payoff = (spot - strike) * (1.0 if is_call else -1.0)
    assert quotes.price[0] >= max(payoff, 0.0) * (1.0 - 1e-9)
    assert quotes.error_bound[0] >= 0.0
