"""What must hold for any option: parity, scaling, symmetry, signs, and Greeks that are derivatives of the price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pinn_inference.pricing.model import PinnModel, bundled_directory, load_numpy_model
from pinn_inference.pricing.network import evaluate, residual
from pinn_inference.pricing.reduction import reduce
from pinn_inference.pricing.types import Method, OptionBatch, Quotes
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training.saved_model import OUTPUTS

many = settings(deadline=None, max_examples=200)


@pytest.fixture(scope="module")
def model() -> PinnModel:
    return load_numpy_model(bundled_directory())


@st.composite
def options(draw: st.DrawFn, *, x_max: float = 3.0, y_max: float = 8.0) -> OptionBatch:
    """One option of the network's domain: σ²T from 1e-6 to 6.2, |ln(F/K)| ≤ 3, carry of either sign."""
    s = float(np.exp(draw(st.floats(np.log(1e-3), np.log(2.49)))))
    maturity = float(np.exp(draw(st.floats(np.log(3e-3), np.log(30.0)))))
    rate, dividend = draw(st.floats(-0.05, 0.2)), draw(st.floats(-0.05, 0.2))
    strike = float(np.exp(draw(st.floats(np.log(0.1), np.log(1e5)))))
    x = draw(st.floats(-1.0, 1.0)) * min(x_max, y_max * s)
    terms = (
        strike * np.exp(x - (rate - dividend) * maturity), strike, maturity, rate, dividend, s / np.sqrt(maturity)
    )  # fmt: skip
    return OptionBatch(*(np.array([float(term)]) for term in terms), np.array([draw(st.booleans())]))


def present_values(option: OptionBatch) -> tuple[float, float]:
    reduced = reduce(option)
    return float(reduced.asset[0]), float(reduced.cash[0])


def other_side(option: OptionBatch) -> OptionBatch:
    return replace(option, is_call=~option.is_call)


def by_network(model: PinnModel, option: OptionBatch) -> Quotes:
    quotes = model.price(option)
    assume(quotes.method[0] == Method.PINN)
    return quotes


@many
@given(option=options())
def test_call_less_put_is_the_forward_to_the_last_bits(model: PinnModel, option: OptionBatch) -> None:
    asset, cash = present_values(option)
    sign = 1.0 if option.is_call[0] else -1.0
    one, other = by_network(model, option), model.price(other_side(option))
    assert sign * (one.price[0] - other.price[0]) == pytest.approx(asset - cash, abs=4e-16 * (asset + cash))
    assert sign * (one.delta[0] - other.delta[0]) == pytest.approx(asset / option.spot[0], rel=4e-16 * 4)
    assert one.gamma[0] == other.gamma[0]
    assert one.vega[0] == other.vega[0]
    rho = option.maturity[0] * cash
    assert sign * (one.rho[0] - other.rho[0]) == pytest.approx(rho, rel=1e-15)


@many
@given(option=options(), factor=st.sampled_from([2.0**-20, 2.0**-3, 2.0, 2.0**17]))
def test_price_is_homogeneous_in_spot_and_strike(model: PinnModel, option: OptionBatch, factor: float) -> None:
    """A power of two changes no digit of a float, so that the digits must stay."""
    plain = by_network(model, option)
    scaled = model.price(replace(option, spot=factor * option.spot, strike=factor * option.strike))
    powers = {"price": 1, "delta": 0, "gamma": -1, "vega": 1, "theta": 1, "rho": 1, "error_bound": 1}
    for name, power in powers.items():
        assert getattr(scaled, name)[0] == pytest.approx(factor**power * getattr(plain, name)[0], rel=1e-15), name


@many
@given(option=options())
def test_euler_s_relation_joins_price_delta_and_rho(model: PinnModel, option: OptionBatch) -> None:
    """Price = S·∂V/∂S + K·∂V/∂K, and K·∂V/∂K = −rho/T."""
    quotes = by_network(model, option)
    asset, cash = present_values(option)
    sum_of_parts = option.spot[0] * quotes.delta[0] - quotes.rho[0] / option.maturity[0]
    assert sum_of_parts == pytest.approx(quotes.price[0], abs=2e-15 * (asset + cash))


@many
@given(option=options())
def test_a_call_is_the_put_with_spot_and_strike_rate_and_dividend_exchanged(
    model: PinnModel, option: OptionBatch
) -> None:
    quotes = by_network(model, option)
    mirrored = replace(
        other_side(option), spot=option.strike, strike=option.spot, rate=option.dividend, dividend=option.rate
    )
    dual = model.price(mirrored)
    asset, cash = present_values(option)
    # At the money delta has a step of about 1e-7, and the two sides stand above and below it.
    step = 0.0 if abs(float(reduce(option).x[0])) > 1e-12 else 1e-6
    # ln(S/K) and ln(K/S) round differently: that moves a price by the spacing of x, times the delta.
    digits = (
        1.0 + abs(float(reduce(option).x[0])) + (abs(option.rate[0]) + abs(option.dividend[0])) * option.maturity[0]
    )
    assert dual.price[0] == pytest.approx(quotes.price[0], abs=1e-15 * digits * (asset + cash))
    assert option.strike[0] * dual.delta[0] == pytest.approx(
        -quotes.rho[0] / option.maturity[0], rel=1e-9, abs=(step + 1e-12) * (asset + cash)
    )


@many
@given(option=options())
def test_signs_and_bounds(model: PinnModel, option: OptionBatch) -> None:
    quotes = by_network(model, option)
    asset, cash = present_values(option)
    carried = asset / option.spot[0]
    slack = 1e-6 * carried
    is_call = bool(option.is_call[0])
    low, high = (0.0, carried) if is_call else (-carried, 0.0)
    assert low - slack <= quotes.delta[0] <= high + slack
    assert quotes.gamma[0] >= 0.0
    assert quotes.vega[0] >= 0.0
    assert (
        quotes.rho[0] >= -1e-6 * option.maturity[0] * cash
        if is_call
        else quotes.rho[0] <= 1e-6 * cash * option.maturity[0]
    )
    intrinsic = max(asset - cash if is_call else cash - asset, 0.0)
    assert intrinsic <= quotes.price[0] <= (asset if is_call else cash) + quotes.error_bound[0]


def moved(option: OptionBatch, name: str, step: float) -> OptionBatch:
    return replace(option, **{name: getattr(option, name) + step})


@many
@given(option=options(y_max=4.0))
def test_greeks_are_the_derivatives_of_the_price(model: PinnModel, option: OptionBatch) -> None:
    """Central differences of order four, with steps fit for the width of the distribution."""
    quotes = by_network(model, option)
    s = float(option.volatility[0] * np.sqrt(option.maturity[0]))
    assume(s < 2.4)
    asset, cash = present_values(option)
    size, spot, t, v = asset + cash, option.spot[0], option.maturity[0], option.volatility[0]

    def difference(name: str, step: float, of: str = "price") -> float:
        values = [getattr(model.price(moved(option, name, k * step)), of)[0] for k in (-2, -1, 1, 2)]
        return float((values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * step))

    h = 1e-3
    width = min(s, 0.5)
    # At the money, where both halves meet, delta has a step of about 1e-7: no place for differences.
    assume(abs(float(reduce(option).x[0])) > 3.0 * h * width)
    noise = 1e-15 * size / h
    # The network is within 1e-7 of a smooth function, and so are its differences, not more.
    assert quotes.delta[0] == pytest.approx(
        difference("spot", h * width * spot), abs=2e-6 + 10 * noise / (width * spot)
    )
    assert quotes.vega[0] == pytest.approx(
        difference("volatility", h * v), abs=1e-5 * size * np.sqrt(t) + 10 * noise / v
    )
    assert quotes.rho[0] == pytest.approx(
        difference("rate", h * width / t), abs=2e-6 * size * t + 10 * noise * t / width
    )
    assert quotes.gamma[0] == pytest.approx(
        difference("spot", h * width * spot, of="delta"),
        abs=2e-5 * size / (spot * spot * s) + 1e-14 / (h * width * spot),
    )
    moment = h * min(t, width / (abs(option.rate[0] - option.dividend[0]) + 1e-9))
    later = difference("maturity", moment)
    assert quotes.theta[0] == pytest.approx(
        -later,
        abs=1e-5 * size * (v / np.sqrt(t) + abs(option.rate[0]) + abs(option.dividend[0])) + 10 * noise * h / moment,
    )


@many
@given(option=options(y_max=6.0))
def test_the_greeks_satisfy_the_black_scholes_equation(model: PinnModel, option: OptionBatch) -> None:
    """θ + ½σ²S²γ + (r − q)·S·δ − r·V = 0: to rounding, because gamma is taken from the equation."""
    quotes = by_network(model, option)
    s, v, r, q = (float(column[0]) for column in (option.spot, option.volatility, option.rate, option.dividend))
    diffusion = 0.5 * v * v * s * s * quotes.gamma[0]
    left = quotes.theta[0] + diffusion + (r - q) * s * quotes.delta[0] - r * quotes.price[0]
    asset, cash = present_values(option)
    assert left == pytest.approx(0.0, abs=1e-14 * (diffusion + (abs(r) + abs(q)) * (asset + cash)))


@many
@given(option=options(y_max=6.0))
def test_a_gamma_by_automatic_differentiation_agrees_to_the_residual(model: PinnModel, option: OptionBatch) -> None:
    """The gamma of a quote comes from the equation; this one from two derivatives of the network in y.

    Their difference is φ·|R|/s per unit of D·√(FK)/S², and so tells the residual at the option's own place.
    """
    quotes = by_network(model, option)
    reduced = reduce(option)
    jets = evaluate(model.artefact.network, reduced.y, reduced.w)
    y, s = float(reduced.y[0]), float(reduced.s[0])
    density = np.exp(-0.5 * y * y) / np.sqrt(2.0 * np.pi)
    u = s * density * jets.n[0]
    u_xx = density / s * (jets.n_yy[0] - 2.0 * y * jets.n_y[0] + (y * y - 1.0) * jets.n[0])
    twice = float(reduced.scale[0]) * (u_xx - 0.25 * u) / option.spot[0] ** 2
    left = abs(float(residual(jets, reduced.y, reduced.w)[0]))
    scale = float(reduced.scale[0]) / option.spot[0] ** 2
    assert abs(twice - quotes.gamma[0]) == pytest.approx(scale * density / s * left, rel=1e-6, abs=1e-12 * scale / s)
    assert abs(twice - quotes.gamma[0]) <= 3e-5 * scale / s


def test_tensorflow_s_own_derivatives_are_the_greeks(model: PinnModel) -> None:
    """Delta, vega, rho and theta by a gradient tape through the whole formula, from spot to price; gamma by two."""
    tf: Any = load_tensorflow()
    from pinn_inference.pricing.tensorflow_engine import Formula

    formula = Formula(tf, model.artefact.network, model.artefact.certificate)
    rng = np.random.default_rng(5)
    n = 500
    s, t = rng.uniform(0.02, 2.0, n), rng.uniform(0.1, 3.0, n)
    x = rng.uniform(0.05, 1.0, n) * np.minimum(3.0, 5.0 * s) * rng.choice([-1.0, 1.0], n)
    rate, dividend = rng.uniform(-0.02, 0.1, n), rng.uniform(0.0, 0.05, n)
    batch = OptionBatch(
        100.0 * np.exp(x - (rate - dividend) * t), np.full(n, 100.0), t, rate, dividend, s / np.sqrt(t), x > 0
    )
    columns = [
        tf.Variable(getattr(batch, name)) for name in ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    ]
    sign = tf.where(batch.is_call, np.float64(1.0), np.float64(-1.0))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            price = formula.rows(*columns, sign)[OUTPUTS.index("price")]
        spot, maturity, by_rate, volatility = inner.gradient(price, [columns[0], columns[2], columns[3], columns[5]])
    gamma = outer.gradient(spot, columns[0])
    quotes = model.price(batch)
    size = np.abs(quotes.price) + 100.0
    assert spot.numpy() == pytest.approx(quotes.delta, abs=1e-9)
    assert volatility.numpy() == pytest.approx(quotes.vega, abs=1e-9 * np.max(size))
    assert by_rate.numpy() == pytest.approx(quotes.rho, abs=1e-9 * np.max(size))
    # Time enters through the equation too: −∂V/∂T is theta up to rounding, for u_w is the network's own derivative.
    assert -maturity.numpy() == pytest.approx(quotes.theta, abs=1e-9 * np.max(size))
    assert np.max(np.abs(gamma.numpy() - quotes.gamma) * batch.spot * s) <= 3e-5 * np.max(batch.spot / 100.0)
