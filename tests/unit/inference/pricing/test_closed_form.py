"""The closed form against fifty digits, its limits, and the relations every price has to satisfy."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes

GREEKS = ("delta", "gamma", "vega", "theta", "rho")


def options(
    spot: object = 100.0,
    strike: object = 100.0,
    maturity: object = 1.0,
    rate: object = 0.0,
    dividend: object = 0.0,
    volatility: object = 0.2,
    is_call: object = True,
) -> OptionBatch:
    *columns, call = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (spot, strike, maturity, rate, dividend, volatility)),
        np.atleast_1d(np.asarray(is_call, dtype=np.bool_)),
    )
    return OptionBatch(*map(np.array, columns), np.array(call))


def random_options(n: int, seed: int) -> OptionBatch:
    """Options over the range that desks quote: S/K 0.3..3, a day to five years, 3..120 % volatility."""
    rng = np.random.default_rng(seed)
    return OptionBatch(
        spot=100.0 * np.exp(rng.uniform(np.log(0.3), np.log(3.0), n)),
        strike=np.full(n, 100.0),
        maturity=np.exp(rng.uniform(np.log(1 / 365), np.log(5.0), n)),
        rate=rng.uniform(-0.02, 0.15, n),
        dividend=rng.uniform(0.0, 0.1, n),
        volatility=np.exp(rng.uniform(np.log(0.03), np.log(1.2), n)),
        is_call=rng.uniform(size=n) < 0.5,
    )


def textbook(batch: OptionBatch, row: int, *, digits: int = 50) -> dict[str, mp.mpf]:
    """Black–Scholes–Merton as in any textbook, at so many digits."""
    with mp.workdps(digits):
        s, k, t, r, q, v = (
            mp.mpf(float(getattr(batch, name)[row]))
            for name in ("spot", "strike", "maturity", "rate", "dividend", "volatility")
        )
        sign = 1 if batch.is_call[row] else -1
        std = v * mp.sqrt(t)
        d1 = (mp.log(s / k) + (r - q) * t) / std + std / 2
        d2 = d1 - std
        cdf = lambda z: mp.erfc(-z / mp.sqrt(2)) / 2  # noqa: E731
        asset, cash, density = s * mp.exp(-q * t), k * mp.exp(-r * t), mp.npdf(d1)
        return {
            "price": sign * (asset * cdf(sign * d1) - cash * cdf(sign * d2)),
            "delta": sign * asset / s * cdf(sign * d1),
            "gamma": asset * density / (s * s * std),
            "vega": asset * density * mp.sqrt(t),
            "theta": -asset * density * v / (2 * mp.sqrt(t))
            + sign * (q * asset * cdf(sign * d1) - r * cash * cdf(sign * d2)),
            "rho": sign * t * cash * cdf(sign * d2),
        }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_prices_and_greeks_equal_the_textbook_formula_at_fifty_digits(seed: int) -> None:
    batch = random_options(300, seed)
    quotes = closed_form.price(batch)
    for row in range(len(batch)):
        exact = textbook(batch, row)
        assert abs(float(exact["price"] - mp.mpf(float(quotes.price[row])))) <= quotes.error_bound[row]
        for name in GREEKS:
            value, reference = float(getattr(quotes, name)[row]), float(exact[name])
            assert value == pytest.approx(reference, rel=1e-11, abs=1e-13), (name, row)


@pytest.mark.parametrize("volatility", [1e-3, 0.02, 0.099, 0.1, 0.101, 0.3, 1.0, 2.5, 6.0, 20.0])
def test_the_time_value_keeps_eleven_digits_in_deep_wings(volatility: float) -> None:
    y = np.concatenate([np.linspace(0.0, 8.5, 18), [10.0, 15.0, 20.0, 30.0, 37.0]])
    batch = options(spot=np.exp(-y * volatility), strike=1.0, volatility=volatility)
    quotes = closed_form.price(batch)
    for row in range(len(batch)):
        exact = textbook(batch, row)["price"]
        if exact < 1e-290:  # float64 itself runs out of digits
            continue
        # x = ln(S/K) itself carries eps·|x|, which the wing magnifies by about y/s.
        magnified = 1e-11 + 4 * np.finfo(float).eps * y[row] * max(y[row], 1 / volatility)
        assert float(quotes.price[row] / exact - 1) == pytest.approx(0.0, abs=magnified), y[row]


@pytest.mark.parametrize(("maturity", "volatility"), [(0.0, 0.2), (0.0, 0.0), (1.5, 0.0)])
@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("spot", [80.0, 125.0])
def test_without_variance_an_option_is_its_discounted_forward_intrinsic(
    maturity: float, volatility: float, is_call: bool, spot: float
) -> None:
    batch = options(spot, 100.0, maturity, 0.05, 0.02, volatility, is_call)
    asset, cash = spot * np.exp(-0.02 * maturity), 100.0 * np.exp(-0.05 * maturity)
    side = 1.0 if is_call else -1.0
    worth = side * (asset - cash) > 0
    quotes = closed_form.price(batch)
    assert quotes.price[0] == pytest.approx(max(side * (asset - cash), 0.0), abs=1e-13)
    assert quotes.delta[0] == pytest.approx(side * asset / spot if worth else 0.0)
    assert quotes.gamma[0] == 0.0
    assert quotes.vega[0] == 0.0
    assert quotes.theta[0] == pytest.approx(side * (0.02 * asset - 0.05 * cash) if worth else 0.0)
    assert quotes.rho[0] == pytest.approx(side * maturity * cash if worth else 0.0)


def test_an_expiring_option_at_the_money_has_half_a_delta() -> None:
    quotes = closed_form.price(options(maturity=0.0, rate=0.05, is_call=[True, False]))
    assert quotes.price.tolist() == [0.0, 0.0]
    assert quotes.delta.tolist() == [0.5, -0.5]
    assert quotes.vega.tolist() == [0.0, 0.0]


def test_vega_at_the_money_is_continuous_as_volatility_vanishes() -> None:
    limit, near = (closed_form.price(options(volatility=v)).vega[0] for v in (0.0, 1e-7))
    assert limit == pytest.approx(near, rel=1e-12)


def test_no_input_that_a_request_may_carry_gives_nan_or_a_warning() -> None:
    edges = [1e-100, 1e-12, 1.0, 1e12, 1e100]
    maturities, volatilities = [0.0, 1e-300, 1e-9, 1.0, 100.0], [0.0, 1e-300, 1e-6, 1.0, 1e3]
    grid = np.array(np.meshgrid(edges, edges, maturities, volatilities)).reshape(4, -1)
    for rate in (-1.0, 0.0, 1.0):
        quotes = closed_form.price(options(grid[0], grid[1], grid[2], rate, 0.0, grid[3]))
        assert np.isfinite(quotes.price).all()
        assert np.isfinite(quotes.delta).all()


def test_quotes_say_that_they_come_from_the_formula_and_why() -> None:
    quotes = closed_form.price(options(), reason=FallbackReason.MODEL_UNAVAILABLE)
    assert Method(quotes.method[0]).label == "closed_form"
    assert FallbackReason(quotes.reason[0]).label == "model_unavailable"


in_range = {
    "spot": st.floats(20.0, 500.0),
    "strike": st.floats(20.0, 500.0),
    "maturity": st.floats(0.0, 10.0),
    "rate": st.floats(-0.05, 0.2),
    "dividend": st.floats(-0.02, 0.15),
    "volatility": st.floats(0.0, 2.0),
}


def both(**columns: float) -> Quotes:
    return closed_form.price(options(**columns, is_call=[True, False]))


@given(**in_range)
def test_call_minus_put_is_the_forward(**columns: float) -> None:
    quotes = both(**columns)
    t = columns["maturity"]
    asset = columns["spot"] * np.exp(-columns["dividend"] * t)
    cash = columns["strike"] * np.exp(-columns["rate"] * t)
    assert quotes.price[0] - quotes.price[1] == pytest.approx(asset - cash, abs=4e-16 * (asset + cash))
    assert quotes.delta[0] - quotes.delta[1] == pytest.approx(asset / columns["spot"], rel=1e-14)
    assert quotes.gamma[0] == quotes.gamma[1]
    assert quotes.vega[0] == quotes.vega[1]


@given(**in_range, factor=st.sampled_from([2.0**-20, 0.25, 8.0, 2.0**30]))
def test_prices_scale_with_spot_and_strike(factor: float, **columns: float) -> None:
    plain = both(**columns)
    scaled = both(**{**columns, "spot": factor * columns["spot"], "strike": factor * columns["strike"]})
    assert scaled.price == pytest.approx(factor * plain.price, rel=1e-14)
    assert scaled.delta == pytest.approx(plain.delta, rel=1e-14)
    assert scaled.gamma == pytest.approx(plain.gamma / factor, rel=1e-14)


@given(**in_range)
def test_greeks_have_their_signs_and_prices_their_bounds(**columns: float) -> None:
    quotes = both(**columns)
    t = columns["maturity"]
    asset = columns["spot"] * np.exp(-columns["dividend"] * t)
    cash = columns["strike"] * np.exp(-columns["rate"] * t)
    slack = 1e-13 * (asset + cash)
    assert 0.0 <= quotes.delta[0] <= asset / columns["spot"] * (1 + 1e-14)
    assert -asset / columns["spot"] * (1 + 1e-14) <= quotes.delta[1] <= 0.0
    assert (quotes.gamma >= 0.0).all()
    assert (quotes.vega >= 0.0).all()
    assert quotes.rho[0] >= 0.0 >= quotes.rho[1]
    assert max(asset - cash, 0.0) - slack <= quotes.price[0] <= asset + slack
    assert max(cash - asset, 0.0) - slack <= quotes.price[1] <= cash + slack


@given(**{**in_range, "maturity": st.floats(0.05, 5.0), "volatility": st.floats(0.05, 1.5)}, call=st.booleans())
def test_greeks_are_the_derivatives_of_the_price(call: bool, **columns: float) -> None:
    quotes = closed_form.price(options(**columns, is_call=call))

    def slope(name: str, step: float) -> tuple[float, float]:
        shifts = columns[name] + step * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        p = closed_form.price(options(**{**columns, name: shifts}, is_call=call)).price
        return (
            (p[0] - 8 * p[1] + 8 * p[3] - p[4]) / (12 * step),
            (-p[0] + 16 * p[1] - 30 * p[2] + 16 * p[3] - p[4]) / (12 * step**2),
        )

    size = columns["spot"] + columns["strike"]
    relative = 1e-2 * columns["volatility"] * np.sqrt(columns["maturity"])
    delta, gamma = slope("spot", relative * columns["spot"])
    assert quotes.delta[0] == pytest.approx(delta, abs=1e-5 * size / columns["spot"])
    assert quotes.gamma[0] == pytest.approx(gamma, rel=1e-3, abs=1e-4 / columns["spot"])
    assert quotes.vega[0] == pytest.approx(slope("volatility", 1e-2 * columns["volatility"])[0], abs=1e-5 * size)
    assert quotes.theta[0] == pytest.approx(-slope("maturity", 1e-2 * columns["maturity"])[0], abs=1e-4 * size)
    assert quotes.rho[0] == pytest.approx(slope("rate", 1e-3)[0], abs=1e-6 * size)


def test_rows_keep_their_order_and_do_not_depend_on_their_neighbours() -> None:
    batch = random_options(64, 9)
    together = closed_form.price(batch)
    for row in range(len(batch)):
        alone = closed_form.price(batch.take(slice(row, row + 1)))
        assert alone.price[0] == pytest.approx(together.price[row], rel=1e-14)


def test_a_column_of_another_length_is_refused_by_name() -> None:
    batch = random_options(3, 1)
    with pytest.raises(ValueError, match="rate has shape"):
        OptionBatch(
            batch.spot, batch.strike, batch.maturity, batch.rate[:2], batch.dividend, batch.volatility, batch.is_call
        )


def test_batches_concatenate_in_order() -> None:
    parts = [random_options(n, n) for n in (1, 4, 2)]
    joined = OptionBatch.concatenate(parts)
    assert joined.spot.tolist() == [v for part in parts for v in part.spot.tolist()]
    assert len(joined) == 7


def test_a_bound_is_never_more_than_the_option_can_be_worth_and_holds_wherever_a_request_may_be() -> None:
    source = np.random.default_rng(5)
    n = 150
    spot, strike = np.exp(source.uniform(np.log(1e-6), np.log(1e9), (2, n)))
    rate, dividend = source.uniform(-1, 1, (2, n))
    batch = options(
        spot, strike, source.uniform(0.1, 100, n), rate, dividend, source.uniform(0.01, 10, n), source.random(n) < 0.5
    )
    quotes = closed_form.price(batch)
    worth = np.where(batch.is_call, spot * np.exp(-dividend * batch.maturity), strike * np.exp(-rate * batch.maturity))
    assert (quotes.error_bound <= np.maximum(np.maximum(quotes.price, worth) * 1.001, strike)).all()
    assert (quotes.error_bound < 1e-3 * np.maximum(quotes.price, strike)).mean() > 0.5
    with mp.workdps(300):
        for row in range(n):
            error = abs(textbook(batch, row, digits=300)["price"] - mp.mpf(float(quotes.price[row])))
            assert error <= quotes.error_bound[row], row
