"""American options by the integral equation: against QuantLib, against itself on finer grids, and against what every
price of an American option has to satisfy.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.american_domain import has_two_boundaries, put_rates
from pinn_inference.pricing.integral_equation import PutTerms, early_exercise, price
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, OptionBatch, Quotes
from tests.support.american_reference import quantlib_american, read_golden

slow = settings(max_examples=60, deadline=None)
COLUMNS = ("spot", "strike", "maturity", "rate", "dividend", "volatility")


def options(
    spot: object = 100.0,
    strike: object = 100.0,
    maturity: object = 1.0,
    rate: object = 0.05,
    dividend: object = 0.0,
    volatility: object = 0.2,
    is_call: object = False,
) -> OptionBatch:
    *columns, call = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (spot, strike, maturity, rate, dividend, volatility)),
        np.atleast_1d(np.asarray(is_call, dtype=np.bool_)),
    )
    spots, strikes, maturities, rates, dividends, volatilities = map(np.array, columns)
    american = np.ones(call.shape, dtype=np.bool_)
    return OptionBatch(spots, strikes, maturities, rates, dividends, volatilities, np.array(call), american)


def desk_options(n: int, seed: int) -> OptionBatch:
    """A week to five years, 5 to 80 % volatility, S/K 0.6 to 1.6, rates 0.1 to 12 %, dividends −3 to 12 %; for a call
    the two are exchanged.
    """
    source = np.random.default_rng(seed)
    is_call = source.uniform(size=n) < 0.5
    ahead, behind = source.uniform(0.001, 0.12, n), source.uniform(-0.03, 0.12, n)
    return options(
        spot=100.0 * np.exp(source.uniform(-0.5, 0.5, n)),
        maturity=np.exp(source.uniform(np.log(0.02), np.log(5.0), n)),
        rate=np.where(is_call, behind, ahead),
        dividend=np.where(is_call, ahead, behind),
        volatility=np.exp(source.uniform(np.log(0.05), np.log(0.8), n)),
        is_call=is_call,
    )


def with_column(batch: OptionBatch, name: str, values: FloatArray) -> OptionBatch:
    columns = {column: getattr(batch, column) for column in (*COLUMNS, "is_call", "is_american")}
    return OptionBatch(**{**columns, name: values})


def payoff(batch: OptionBatch) -> FloatArray:
    return np.maximum(np.where(batch.is_call, batch.spot - batch.strike, batch.strike - batch.spot), 0.0)


def put_terms(batch: OptionBatch) -> PutTerms:
    put_rate, put_dividend = put_rates(batch)
    variance_rate = batch.volatility**2
    return PutTerms(
        x=np.where(batch.is_call, -1.0, 1.0) * np.log(batch.spot / batch.strike),
        s=batch.volatility * np.sqrt(batch.maturity),
        kappa=2.0 * put_rate / variance_rate,
        lambda_=2.0 * put_dividend / variance_rate,
    )


# --- accuracy ---------------------------------------------------------------------------------------------------------


def test_golden_prices_and_boundaries_come_out() -> None:
    batch, expected, boundary = read_golden()
    quotes = price(batch)
    assert np.abs(quotes.price - expected).max() < 5e-9 * 100.0
    assert quotes.exercise_boundary == pytest.approx(boundary, rel=5e-6)
    assert quotes.error_bound.max() < 1e-7 * 100.0
    assert (quotes.method == Method.INTEGRAL_EQUATION).all()


def test_prices_agree_with_quantlib_over_a_grid() -> None:
    """Spots 80 to 125, a month and two years, volatilities 12 and 50 %, six pairs of rate and dividend, both kinds."""
    pairs = np.array([(0.05, 0.0), (0.03, 0.06), (0.04, 0.04), (0.06, -0.01), (0.001, 0.05), (0.11, 0.02)])
    grid = np.meshgrid([80.0, 100.0, 125.0], [1.0 / 12.0, 2.0], [0.12, 0.5], np.arange(len(pairs)), [False, True])
    spot, maturity, volatility, pair, is_call = (axis.ravel() for axis in grid)
    rate, dividend = pairs[pair].T
    batch = options(spot, 100.0, maturity, rate, dividend, volatility, is_call)
    batch = batch.take(~has_two_boundaries(batch))
    quotes = price(batch)
    # QuantLib's own boundary, on 10 nodes, accounts for most of it.
    assert np.abs(quotes.price - quantlib_american(batch)).max() < 1e-7 * 100.0
    assert np.median(np.abs(quotes.price - quantlib_american(batch))) < 1e-10 * 100.0


@pytest.mark.parametrize("name", ["spot", "volatility", "maturity", "rate"])
def test_greeks_are_the_differences_of_quantlibs_prices(name: str) -> None:
    batch = options(
        spot=[95.0, 110.0, 104.0, 90.0],
        maturity=[1.0, 0.25, 3.0, 0.5],
        rate=[0.05, 0.03, 0.02, 0.06],
        dividend=[0.0, 0.06, 0.05, 0.06],
        volatility=[0.2, 0.35, 0.25, 0.4],
        is_call=[False, False, True, True],
    )
    quotes = price(batch)
    column = getattr(batch, name)
    step = (0.01 if name in ("spot", "maturity") else 0.02) * column
    below, at, above = (quantlib_american(with_column(batch, name, column + k * step)) for k in (-1.0, 0.0, 1.0))
    far_below, far_above = (quantlib_american(with_column(batch, name, column + k * step)) for k in (-2.0, 2.0))
    slope = (far_below - 8.0 * below + 8.0 * above - far_above) / (12.0 * step)
    greek = {"spot": "delta", "volatility": "vega", "maturity": "theta", "rate": "rho"}[name]
    expected = -slope if greek == "theta" else slope
    assert getattr(quotes, greek) == pytest.approx(expected, rel=2e-5, abs=1e-6)
    if name == "spot":
        bend = (-far_below + 16.0 * below - 30.0 * at + 16.0 * above - far_above) / (12.0 * step**2)
        assert quotes.gamma == pytest.approx(bend, rel=1e-4)


def test_greeks_are_the_differences_of_its_own_prices() -> None:
    batch = desk_options(150, seed=4)
    quotes = price(batch)
    spread = batch.volatility * np.sqrt(batch.maturity)
    # Differences must not reach over the boundary, where gamma jumps, nor over rate 0 or rate = dividend.
    put_rate, put_dividend = put_rates(batch)
    smooth = (np.abs(np.log(batch.spot / quotes.exercise_boundary)) > 0.1 * spread) & (quotes.vega > 0.0)
    smooth &= np.abs(put_rate - put_dividend) > 0.01
    smooth &= np.minimum(put_rate, np.abs(put_dividend)) > 0.01

    def slope(name: str, step: FloatArray) -> FloatArray:
        column = getattr(batch, name)
        prices = [price(with_column(batch, name, column + k * step)).price for k in (-2.0, -1.0, 1.0, 2.0)]
        difference: FloatArray = (prices[0] - 8.0 * prices[1] + 8.0 * prices[2] - prices[3]) / (12.0 * step)
        return difference[smooth]

    assert smooth.sum() > 50
    assert quotes.delta[smooth] == pytest.approx(slope("spot", 5e-3 * spread * batch.spot), abs=1e-7)
    assert quotes.vega[smooth] == pytest.approx(slope("volatility", 5e-3 * batch.volatility), abs=1e-4)
    assert quotes.theta[smooth] == pytest.approx(-slope("maturity", 5e-3 * batch.maturity), abs=1e-4)
    rho = slope("rate", np.full(len(batch), 2e-4))
    assert quotes.rho[smooth] == pytest.approx(rho, abs=2e-4)


def test_the_error_bound_holds_on_finer_grids() -> None:
    puts = put_terms(desk_options(120, seed=7))
    usual, finest = early_exercise(puts), early_exercise(puts, goal=0.0)
    assert usual.error_bound.max() <= 1e-7
    assert (finest.error_bound <= usual.error_bound).all()
    above = puts.x > np.maximum(usual.boundary, finest.boundary)
    difference = np.abs(usual.value - finest.value)[above]
    assert (difference <= usual.error_bound[above]).all()
    assert np.median(difference) < 1e-11
    assert difference.max() < 5e-9
    assert np.abs(usual.boundary - finest.boundary).max() < 1e-4
    assert np.median(np.abs(usual.boundary - finest.boundary)) < 1e-7


@pytest.mark.parametrize("distance", [1e-7, 1e-5, 1e-3])
def test_close_to_the_boundary_the_price_leaves_the_payoff_smoothly(distance: float) -> None:
    market = {"rate": [0.05, 0.05, 0.03, 0.08], "dividend": [0.0, 0.02, 0.06, 0.07], "volatility": [0.2, 0.3, 0.2, 0.4]}
    boundary = price(options(**market)).exercise_boundary
    batch = options(spot=boundary * (1.0 + distance), **market)
    quotes = price(batch)
    assert quotes.delta == pytest.approx(-1.0, abs=20.0 * distance)
    # Where time stops to matter, σ²S²Γ/2 = rK − qS.
    flow = batch.rate * batch.strike - batch.dividend * batch.spot
    assert quotes.gamma == pytest.approx(2.0 * flow / (batch.volatility * batch.spot) ** 2, rel=1e-4 + 10.0 * distance)
    assert np.abs(quotes.theta).max() < 20.0 * distance
    assert quotes.vega.max() < 500.0 * distance


def test_stiff_options_keep_their_bound() -> None:
    """Volatilities down to a thousandth of a percent, and 1000 % over a century."""
    calm = options(
        [90.0, 99.9, 120.0, 150.0],
        100.0,
        [0.1, 5.0, 30.0, 80.0],
        [0.001, 0.1, 0.03, 0.2],
        [0.0, 0.05, 0.15, -0.1],
        1e-5,
    )
    wild = options([1.0, 50.0, 100.0, 300.0], 100.0, 100.0, [0.01, 0.1, 0.5, 0.9], [0.0, 0.2, -0.3, 0.01], 10.0)
    for batch in (calm, wild):
        quotes = price(batch)
        assert (quotes.error_bound < 1e-6 * batch.strike).all()
        assert (quotes.price >= payoff(batch)).all()


# --- special cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_call", [False, True])
def test_at_maturity_the_price_is_the_payoff(is_call: bool) -> None:
    batch = options([80.0, 100.0, 125.0], maturity=0.0, is_call=is_call)
    quotes = price(batch)
    assert quotes.price.tolist() == payoff(batch).tolist()
    assert quotes.delta.tolist() == ([0.0, 0.5, 1.0] if is_call else [-1.0, -0.5, 0.0])
    assert quotes.exercise_boundary.tolist() == [100.0] * 3
    assert (quotes.theta <= 0.0).all()


@slow
@given(
    spot=st.floats(50.0, 200.0),
    maturity=st.floats(0.01, 30.0),
    rate=st.floats(-0.2, 0.2),
    dividend=st.floats(-0.2, 0.2),
    is_call=st.booleans(),
)
def test_without_volatility_the_price_is_the_best_exercise_on_the_forward_path(
    spot: float, maturity: float, rate: float, dividend: float, is_call: bool
) -> None:
    batch = options(spot, 100.0, maturity, rate, dividend, 0.0, is_call)
    times = np.linspace(0.0, maturity, 20_001)
    earned = (spot * np.exp(-dividend * times) - 100.0 * np.exp(-rate * times)) * (1.0 if is_call else -1.0)
    quotes = price(batch)
    scale = max(1.0, np.exp(-rate * maturity), np.exp(-dividend * maturity))
    assert quotes.price[0] == pytest.approx(max(earned.max(), 0.0), abs=1e-4 * scale)
    assert quotes.gamma[0] == 0.0
    assert quotes.vega[0] == 0.0


def test_a_vanishing_volatility_makes_no_difference() -> None:
    spots = np.array([70.0, 95.0, 101.0, 130.0, 190.0])
    for rate, dividend in ((0.05, 0.0), (0.03, 0.06), (0.05, 0.05), (0.04, -0.02), (0.01, 0.2)):
        still, moving = (price(options(spots, 100.0, 5.0, rate, dividend, v)) for v in (0.0, 1e-7))
        assert moving.price == pytest.approx(still.price, abs=1e-5)
        assert moving.delta == pytest.approx(still.delta, abs=1e-5)
        assert moving.exercise_boundary == pytest.approx(still.exercise_boundary, rel=1e-4)


@pytest.mark.parametrize(
    ("rate", "dividend", "is_call"),
    [
        (0.05, 0.0, True),
        (0.05, -0.01, True),
        (0.0, 0.0, True),
        (0.0, 0.0, False),
        (0.0, 0.03, False),
        (-0.02, -0.01, False),
    ],
)
def test_options_never_exercised_early_are_european(rate: float, dividend: float, is_call: bool) -> None:
    batch = options([60.0, 100.0, 170.0], 100.0, 2.0, rate, dividend, 0.3, is_call)
    quotes, european = price(batch), closed_form.price(batch)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound"):
        assert getattr(quotes, name).tolist() == getattr(european, name).tolist()
    assert quotes.exercise_boundary.tolist() == [np.inf if is_call else 0.0] * 3
    assert (quotes.method == Method.CLOSED_FORM).all()


def test_a_call_under_a_negative_rate_is_exercised_early_even_without_dividends() -> None:
    batch = options([100.0, 200.0], 100.0, 1.0, -0.02, 0.0, 0.2, is_call=True)
    quotes = price(batch)
    assert quotes.price[0] > closed_form.price(batch).price[0] + 0.01
    assert quotes.price[1] == 100.0
    assert quotes.price == pytest.approx(quantlib_american(batch), abs=1e-5)


@pytest.mark.parametrize("is_call", [False, True])
def test_where_exercise_is_optimal_the_option_is_its_payoff(is_call: bool) -> None:
    batch = options(180.0 if is_call else 55.0, 100.0, 1.0, 0.06, 0.06, 0.2, is_call)
    quotes = price(batch)
    greeks = [getattr(quotes, name)[0] for name in ("delta", "gamma", "vega", "theta", "rho")]
    assert quotes.price[0] == payoff(batch)[0]
    assert greeks == [1.0 if is_call else -1.0, 0.0, 0.0, 0.0, 0.0]


def test_long_after_its_start_a_boundary_is_the_perpetual_options() -> None:
    rate, volatility = 0.06, 0.3
    theta = -2.0 * rate / volatility**2
    boundary = price(options(maturity=100.0, rate=0.06, volatility=0.3)).exercise_boundary[0]
    assert boundary == pytest.approx(100.0 * theta / (theta - 1.0), rel=1e-4)


def test_options_with_two_boundaries_are_solved_backwards_in_time_and_others_of_their_batch_are_not() -> None:
    batch = options(rate=[-0.01, 0.03, -0.02], dividend=[-0.02, 0.01, -0.01], is_call=[False, False, True])
    methods = [Method.BACKWARD_INDUCTION, Method.INTEGRAL_EQUATION, Method.BACKWARD_INDUCTION]
    quotes = price(batch)
    assert quotes.method.tolist() == methods
    alone = [price(batch.take(slice(row, row + 1))).price[0] for row in range(3)]
    assert quotes.price.tolist() == alone


def test_quotes_say_why_they_were_asked_for() -> None:
    quotes = price(options(is_call=[False, True]), reason=FallbackReason.OUT_OF_DOMAIN)
    assert quotes.reason.tolist() == [FallbackReason.OUT_OF_DOMAIN] * 2


def test_rows_keep_their_order_and_do_not_depend_on_their_neighbours() -> None:
    batch = OptionBatch.concatenate([desk_options(60, seed=2), options(maturity=0.0), options(volatility=0.0)])
    together = price(batch)
    for row in range(len(batch)):
        alone = price(batch.take(slice(row, row + 1)))
        for name in ("price", "delta", "vega", "exercise_boundary"):
            assert getattr(alone, name)[0] == pytest.approx(getattr(together, name)[row], rel=1e-9, abs=1e-9), name


def test_no_options_have_no_quotes() -> None:
    assert len(price(options().take(slice(0, 0)))) == 0


# --- what every American price satisfies ------------------------------------------------------------------------------

anything = {
    "strike": st.floats(1e-6, 1e9),
    "maturity": st.floats(0.0, 100.0),
    "rate": st.floats(-1.0, 1.0),
    "dividend": st.floats(-1.0, 1.0),
    "volatility": st.floats(0.0, 10.0),
    "is_call": st.booleans(),
}
rates = st.integers(-50_000, 200_000).map(lambda millionths: millionths * 1e-6)
market = {
    "strike": st.sampled_from([1.0, 100.0, 4000.0]),
    "maturity": st.floats(0.0, 10.0),
    "rate": rates,
    "dividend": rates,
    "volatility": st.floats(0.0, 2.0),
    "is_call": st.booleans(),
}
MONEYNESS = np.exp(np.linspace(-1.2, 1.2, 9))


def along_spots(**columns: float) -> tuple[OptionBatch, Quotes] | None:
    """The option at nine spots around its strike, and their quotes; None where it has two boundaries, which other tests
    are for."""
    batch = options(spot=columns["strike"] * MONEYNESS, **columns)
    return None if has_two_boundaries(batch).any() else (batch, price(batch))


@slow
@given(**anything, spot=st.floats(1e-6, 1e9))
def test_whatever_a_request_may_ask_is_answered_with_numbers_within_bounds(**columns: float) -> None:
    batch = options(**columns)
    quotes = price(batch)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound"):
        assert np.isfinite(getattr(quotes, name)[0]), name
    assert not np.isnan(quotes.exercise_boundary[0])
    assert quotes.price[0] >= 0.0
    assert quotes.error_bound[0] >= 0.0
    if quotes.method[0] == Method.INTEGRAL_EQUATION:
        assert quotes.price[0] >= payoff(batch)[0]
        side = 1.0 if batch.is_call[0] else -1.0
        assert 0.0 <= side * quotes.delta[0] <= 1.0
        assert quotes.gamma[0] >= 0.0
        assert quotes.theta[0] <= 0.0


@slow
@given(**market)
def test_an_american_option_is_worth_its_payoff_its_european_twin_and_no_more_than_it_can_pay(**columns: float) -> None:
    found = along_spots(**columns)
    if found is None:
        return
    batch, quotes = found
    european = closed_form.price(batch)
    slack = quotes.error_bound + european.error_bound
    assert (quotes.price >= payoff(batch) - slack).all()
    assert (quotes.price >= european.price - slack).all()
    early = quotes.method == Method.INTEGRAL_EQUATION
    most = np.where(batch.is_call, batch.spot, batch.strike)
    assert (quotes.price <= most + slack)[early].all()


@slow
@given(**market)
def test_prices_are_monotone_and_convex_in_the_spot(**columns: float) -> None:
    found = along_spots(**columns)
    if found is None:
        return
    batch, quotes = found
    slopes = np.diff(quotes.price) / np.diff(batch.spot)
    slack = (quotes.error_bound[1:] + quotes.error_bound[:-1]) / np.diff(batch.spot) + 1e-12
    signed = slopes if columns["is_call"] else -slopes
    assert (signed >= -slack).all()
    assert (np.diff(slopes) >= -(slack[1:] + slack[:-1])).all()


@slow
@given(**market)
def test_a_call_is_a_put_with_spot_and_strike_rate_and_dividend_exchanged(**columns: float) -> None:
    found = along_spots(**columns)
    if found is None:
        return
    batch, quotes = found
    twin = OptionBatch(
        batch.strike, batch.spot, batch.maturity, batch.dividend, batch.rate, batch.volatility, ~batch.is_call
    )
    mirrored = price(twin)
    assert mirrored.price == pytest.approx(quotes.price, abs=1e-12 * float(batch.spot.max() + batch.strike.max()) * 10)
    # Only the ratio to the strike matters, and the twin's is reciprocal.
    with np.errstate(divide="ignore"):
        reciprocal = batch.strike / quotes.exercise_boundary
    assert mirrored.exercise_boundary / twin.strike == pytest.approx(reciprocal, rel=1e-9)


@slow
@given(**{**market, "maturity": st.floats(0.0, 5.0)}, longer=st.floats(0.01, 5.0))
def test_a_longer_option_is_worth_no_less(longer: float, **columns: float) -> None:
    found = along_spots(**columns)
    if found is None:
        return
    batch, quotes = found
    later = price(with_column(batch, "maturity", batch.maturity + longer))
    assert (later.price >= quotes.price - quotes.error_bound - later.error_bound).all()
