"""The accuracy that is promised, over the whole domain for which it is: σ²T from 1e-6 to 4 and |ln(F/K)| up to 3.

Price per present value of the strike ≤ 1e-7, delta ≤ 1e-6, gamma, vega and theta ≤ 1e-5 of the largest value that each
takes at that σ²T; against mpmath at 40 digits, against QuantLib, and densely against the closed form.
"""

from __future__ import annotations

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
import QuantLib as ql

from pinn_inference.pricing import artefact, closed_form
from pinn_inference.pricing.model import PinnModel, bundled_directory, load_numpy_model
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, OptionBatch
from pinn_inference.training.accuracy import CARRY, DomainGrid, measure_domain

GREEKS = ("delta", "gamma", "vega", "theta", "rho")
LIMITS = {"price": 1e-7, "delta": 1e-6, "gamma": 1e-5, "vega": 1e-5, "theta": 1e-5, "rho": 1e-5}


@pytest.fixture(scope="module")
def model() -> PinnModel:
    return load_numpy_model(bundled_directory())


def by_mpmath(spot: float, strike: float, t: float, r: float, q: float, v: float, is_call: bool) -> tuple[float, ...]:
    """Price, delta, gamma, vega, theta and rho at 40 digits."""
    with mp.workdps(40):
        s, k, t, r, q, v = (mp.mpf(float(term)) for term in (spot, strike, t, r, q, v))
        sign, std = (1 if is_call else -1), v * mp.sqrt(t)
        d1 = (mp.log(s / k) + (r - q) * t) / std + std / 2
        asset, cash, density = s * mp.exp(-q * t), k * mp.exp(-r * t), mp.npdf(d1)
        up, down = mp.ncdf(sign * d1), mp.ncdf(sign * (d1 - std))
        answers = (
            sign * (asset * up - cash * down),
            sign * asset / s * up,
            asset * density / (s * s * std),
            asset * density * mp.sqrt(t),
            -asset * density * v / (2 * mp.sqrt(t)) + sign * (q * asset * up - r * cash * down),
            sign * t * cash * down,
        )
        return tuple(float(answer) for answer in answers)


def largest_per_row(grid: DomainGrid) -> dict[str, FloatArray]:
    """What an error is divided by: 1 for delta, and for the others the largest value at that σ²T, on a fine grid."""
    exact = closed_form.price(grid.batch)
    largest = {name: np.max(np.abs(grid.table(getattr(exact, name))), axis=1) for name in GREEKS}
    return largest | {"delta": np.ones(len(grid.s))}


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("carry", CARRY)
def test_prices_and_greeks_agree_with_forty_digits(model: PinnModel, is_call: bool, carry: tuple[float, float]) -> None:
    grid = DomainGrid.of(rows=24, columns=401, is_call=is_call, carry=carry)
    largest = largest_per_row(grid)
    rows = np.concatenate([row * 401 + np.arange(0, 401, 16) for row in range(24)])
    options = grid.batch.take(rows)
    quotes = model.price(options)
    assert (quotes.method == Method.PINN).all()
    columns = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    terms = zip(*(getattr(options, name) for name in columns), strict=True)
    exact = np.array([by_mpmath(*term, is_call) for term in terms]).T
    for name, answers in zip(("price", *GREEKS), exact, strict=True):
        error = np.abs(getattr(quotes, name) - answers)
        scale = options.strike * np.exp(-options.rate) if name == "price" else largest[name][rows // 401]
        assert np.max(error / scale) <= LIMITS[name], name
    assert (np.abs(quotes.price - exact[0]) <= quotes.error_bound).all()


def test_prices_and_greeks_agree_with_quantlib(model: PinnModel) -> None:
    """2,000 random options with rates and dividends of either sign, by QuantLib's own formula."""
    rng = np.random.default_rng(8)
    n = 2000
    s, maturity = np.exp(rng.uniform(np.log(1e-3), np.log(2.0), n)), np.exp(rng.uniform(np.log(1e-2), np.log(20.0), n))
    rate, dividend = rng.uniform(-0.03, 0.12, n), rng.uniform(-0.02, 0.1, n)
    x = rng.uniform(-1.0, 1.0, n) * np.minimum(3.0, 8.0 * s)
    strike = rng.uniform(1.0, 5000.0, n)
    batch = OptionBatch(
        spot=strike * np.exp(x - (rate - dividend) * maturity),
        strike=strike,
        maturity=maturity,
        rate=rate,
        dividend=dividend,
        volatility=s / np.sqrt(maturity),
        is_call=rng.uniform(size=n) < 0.5,
    )
    quotes = model.price(batch)
    assert (quotes.method == Method.PINN).all()
    cash = strike * np.exp(-rate * maturity)
    for row in range(n):
        side = ql.Option.Call if batch.is_call[row] else ql.Option.Put
        forward = strike[row] * np.exp(x[row])
        discount = np.exp(-rate[row] * maturity[row])
        calculator = ql.BlackCalculator(ql.PlainVanillaPayoff(side, strike[row]), forward, s[row], discount)
        assert abs(quotes.price[row] - calculator.value()) <= 1e-7 * cash[row] + 1e-12 * batch.spot[row]
        assert abs(quotes.delta[row] - calculator.delta(batch.spot[row])) <= 1e-6 * max(
            1.0, np.exp(-dividend[row] * maturity[row])
        )
        spot, root = batch.spot[row], np.sqrt(maturity[row])
        # The largest gamma lies at d₁ = −s, the largest vega below the money's at d₁ = 0.
        gamma_scale = discount * forward * ql.NormalDistribution()(0.0) / (spot * spot * s[row]) * max(1.0, spot)
        assert abs(quotes.gamma[row] - calculator.gamma(spot)) <= 1e-5 * gamma_scale
        assert abs(quotes.vega[row] - calculator.vega(maturity[row])) <= 1e-5 * discount * forward * root
        assert abs(quotes.rho[row] - calculator.rho(maturity[row])) <= 1e-5 * cash[row] * maturity[row]


def test_a_dense_grid_of_the_domain_is_within_the_promise(model: PinnModel) -> None:
    measured = measure_domain(model, rows=300, columns=601)
    assert measured.options > 700_000
    for name, limit in LIMITS.items():
        assert getattr(measured, name) <= limit, name
    assert measured.share_of_bound <= 1.0


def test_the_record_tells_what_was_measured(model: PinnModel) -> None:
    record = artefact.read(bundled_directory()).record["measured_domain"]
    measured = measure_domain(model).record()
    assert record.keys() == measured.keys()
    for name, value in record.items():
        assert measured[name] == pytest.approx(value, rel=0.02), name


def limit(is_call: bool, **changes: float) -> OptionBatch:
    terms = {"spot": 100.0, "strike": 90.0, "maturity": 0.5, "rate": 0.04, "dividend": 0.01, "volatility": 0.2}
    return OptionBatch(*(np.array([value]) for value in (terms | changes).values()), np.array([is_call]))


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize(
    "changes",
    [{"maturity": 0.0}, {"volatility": 0.0}, {"maturity": 0.0, "strike": 110.0}, {"volatility": 0.0, "strike": 140.0}],
)
def test_without_maturity_or_volatility_the_price_is_the_intrinsic_value_to_the_last_bit(
    model: PinnModel, is_call: bool, changes: dict[str, float]
) -> None:
    batch = limit(is_call, **changes)
    quotes = model.price(batch)
    asset = batch.spot * np.exp(-batch.dividend * batch.maturity)
    cash = batch.strike * np.exp(-batch.rate * batch.maturity)
    intrinsic = np.maximum(asset - cash if is_call else cash - asset, 0.0)
    assert quotes.price.tolist() == intrinsic.tolist()
    assert quotes.reason.tolist() == [FallbackReason.ZERO_VARIANCE]
    assert quotes.method.tolist() == [Method.CLOSED_FORM]


@pytest.mark.parametrize("is_call", [True, False])
def test_the_price_goes_over_into_its_limits_without_a_step(model: PinnModel, is_call: bool) -> None:
    """From the network's smallest variance to none, and from its largest to the closed form's."""
    for low, high in ((0.99e-8, 1.01e-8), (2.5 - 1e-9, 2.5 + 1e-9)):
        for spot in (99.0, 100.0, 101.0):
            batch = limit(is_call, spot=spot, strike=100.0, maturity=1.0, rate=0.0, dividend=0.0)
            sides = [model.price(replace(batch, volatility=np.array([s]))) for s in (low, high)]
            assert sides[0].method[0] != sides[1].method[0]
            bound = sides[0].error_bound[0] + sides[1].error_bound[0] + 100.0 * (high - low)
            assert abs(sides[0].price[0] - sides[1].price[0]) <= bound
