"""The risk-neutral distribution of a price at a horizon, read off a pricing model, and how far off it may be.

With T the horizon, D = e^{−rT}, F = S·e^{(r−q)T} and s = σ√T, and C(K) the European call with strike K, the
distribution is in the prices (Breeden and Litzenberger, "Prices of State-Contingent Claims Implicit in Option Prices",
Journal of Business 51 (1978), 621–651):

    P(S_T > K) = −∂C/∂K / D,        density f(K) = ∂²C/∂K² / D.

A model that prices also differentiates: price is homogeneous of degree one in (S, K), so that

    −K·∂C/∂K = −(C − S·delta) = rho/T,   K²·∂²C/∂K² = S²·gamma      (Hull, Options, Futures, and Other Derivatives),

and P(S_T > K) = rho/(T·K·D), f(K) = S²·gamma/(K²·D) need no difference quotient. Quantiles invert that function.

How far off. A model bounds the error of its *price* (`error_bound`, written ε), not of its derivatives. But quotients
of prices bound them, since the exact distribution is lognormal (Black and Scholes 1973, Merton 1973), whose density is
smooth: with z = (ln(F/K) − s²/2)/s and φ the normal density

    |f'(K)|  = φ·|z − s|/(K²s²)                ≤ (0.2420 + 0.3990·s)/(K²s²),
    |f''(K)| = φ·|1 − z² + 3zs − 2s²|/(K³s³)   ≤ (0.3990 + 0.7260·s + 0.7979·s²)/(K³s³),

so that by Taylor's theorem, with the suprema over K ± h,

    |P(S_T > K) − (C(K−h) − C(K+h))/(2hD)|      ≤ h²/6·sup|f'|   + (ε₋ + ε₊)/(2hD),
    |f(K) − (C(K−h) − 2C(K) + C(K+h))/(h²D)|    ≤ h²/12·sup|f''| + (ε₋ + 2ε + ε₊)/(h²D).

h is chosen to make the right sides small: about ε^(2/3) and ε^(1/2). They hold for whatever the model does between its
prices, and are therefore much wider than its true errors.

Everything here is a generator that yields the options it needs priced and is sent their quotes, so that the same code
serves an event loop, a thread and a test; `answered` runs one with a function.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.american_domain import has_two_boundaries
from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch, Quotes

T = TypeVar("T")
Questions: TypeAlias = Generator[OptionBatch, Quotes, T]
"""Yields options, is sent their quotes in the same order, and returns a T."""

_PHI_0: Final = 0.3990  # φ(0), the largest φ(z), rounded up
_PHI_1: Final = 0.2420  # φ(1), the largest |z|·φ(z), rounded up; φ(0) is also the largest |1 − z²|·φ(z)
_WIDEST: Final = 0.25  # of the strike: h may not be larger
_ROUNDS: Final = 60
_PROOFS: Final = 6
_EPSILON: Final = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Outlooks:
    """One market seen at one horizon a row; all of shape (n,), in the units of `OptionBatch`, years > 0."""

    spot: FloatArray
    rate: FloatArray
    dividend: FloatArray
    volatility: FloatArray
    years: FloatArray

    def __len__(self) -> int:
        return len(self.spot)

    @property
    def forward(self) -> FloatArray:
        """F in currency: the mean of the distribution."""
        return self.spot * np.exp((self.rate - self.dividend) * self.years)

    @property
    def discount(self) -> FloatArray:
        """D, today's value of one unit of currency at the horizon."""
        return np.exp(-self.rate * self.years)

    @property
    def deviation(self) -> FloatArray:
        """σ√T, the standard deviation of ln S_T."""
        return self.volatility * np.sqrt(self.years)

    def take(self, rows: BoolArray | NDArray[np.intp]) -> Outlooks:
        """The chosen rows, in their order."""
        return Outlooks(*(getattr(self, column.name)[rows] for column in fields(self)))

    def repeat(self, count: int) -> Outlooks:
        """Every row `count` times, one after the other."""
        return self.take(np.repeat(np.arange(len(self)), count))

    def options(self, strike: FloatArray, *, is_call: bool = True, is_american: bool = False) -> OptionBatch:
        """One option a row that expires at the horizon."""
        return OptionBatch(
            spot=self.spot,
            strike=strike,
            maturity=self.years,
            rate=self.rate,
            dividend=self.dividend,
            volatility=self.volatility,
            is_call=np.full(len(self), is_call, dtype=np.bool_),
            is_american=np.full(len(self), is_american, dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Values with |value − exact value| ≤ error_bound, both of shape (n,) and in one unit.

    A bound is NaN where none could be proved.
    """

    value: FloatArray
    error_bound: FloatArray


@dataclass(frozen=True, slots=True)
class Likelihood:
    """P(S_T > strike) and the calls it was read off; `above` has a bound of at most 1."""

    above: Estimate
    calls: Quotes


@dataclass(frozen=True, slots=True)
class GreekBounds:
    """Bounds of |value − exact value| for a price and each Greek, in the units of `Quotes`; all of shape (n,)."""

    price: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray
    rho: FloatArray


@dataclass(frozen=True, slots=True)
class Valuations:
    """A call and a put a row, their Greeks, their bounds, and P(S_T > strike).

    The American ones are None where nobody asked for them, and NaN in rows with two exercise boundaries, of which each
    would take dozens of milliseconds.
    """

    strike: FloatArray
    above: Estimate
    call: Quotes
    call_bounds: GreekBounds
    put: Quotes
    put_bounds: GreekBounds
    american_call: Quotes | None
    american_put: Quotes | None


def answered(questions: Questions[T], price: Callable[[OptionBatch], Quotes]) -> T:
    """What the generator returns when `price` answers its questions."""
    try:
        batch = next(questions)
        while True:
            batch = questions.send(price(batch))
    except StopIteration as end:
        result: T = end.value
        return result


def likelihood_above(outlooks: Outlooks, strike: FloatArray) -> Questions[Likelihood]:
    """P(S_T > strike), one a row; a value outside [0, 1] by the model's error is moved to its end."""
    calls = yield outlooks.options(strike)
    quotient = yield from _slope_quotient(outlooks, strike, calls.error_bound)
    return Likelihood(above=_above(outlooks, strike, calls, quotient), calls=calls)


def quantiles(outlooks: Outlooks, probability: FloatArray) -> Questions[Estimate]:
    """The price K with P(S_T ≤ K) = probability, one a row, in currency; 0 < probability < 1.

    Newton's method on the model's own P(S_T > K) with the model's own density, in ln K, inside the interval that the
    signs seen so far leave. The lognormal quantile is where it starts: that saves rounds and has no part in the result.
    The bound is proved, not extrapolated: an interval around K at whose ends the quotients above show that the exact
    P(S_T > K) is on the right side.
    """
    deviation, forward = outlooks.deviation, outlooks.forward
    target = 1.0 - probability
    normal = NormalDist()
    scores = np.array([normal.inv_cdf(value) for value in probability.tolist()])
    x = deviation * (scores - 0.5 * deviation)  # ln(K/F)
    low, high = np.full_like(x, -np.inf), np.full_like(x, np.inf)
    # Below it P is the rounding of ln(F/K)/s.
    tolerance = 1e-12 + 8.0 * _EPSILON * (1.0 + np.abs(np.log(forward))) / deviation
    density, price_bound = np.zeros_like(x), np.zeros_like(x)
    rows = np.arange(len(x))
    for _ in range(_ROUNDS):
        some = outlooks.take(rows)
        strike = forward[rows] * np.exp(x[rows])
        calls = yield some.options(strike)
        miss = _model_above(some, strike, calls) - target[rows]
        slope = calls.gamma * some.spot**2 / (strike * some.discount)  # of −P in ln K
        density[rows], price_bound[rows] = slope, calls.error_bound
        low[rows] = np.where(miss > 0.0, x[rows], low[rows])
        high[rows] = np.where(miss < 0.0, x[rows], high[rows])
        left = (np.abs(miss) > tolerance[rows]) & (high[rows] - low[rows] > 4.0 * _EPSILON * (1.0 + np.abs(x[rows])))
        rows, miss, slope = rows[left], miss[left], slope[left]
        if not len(rows):
            break
        x[rows] = _next_guess(x[rows], miss, slope, low[rows], high[rows], deviation[rows])
    strike = forward * np.exp(x)
    spread = yield from _proven_spread(outlooks, strike, target, density, price_bound)
    return Estimate(value=strike, error_bound=strike * np.expm1(spread))


def valuations(outlooks: Outlooks, strike: FloatArray, *, american: bool) -> Questions[Valuations]:
    """A European call and put a row with bounds for every Greek; with `american` the American ones too, if any can be
    priced."""
    asked = [outlooks.options(strike), outlooks.options(strike, is_call=False)]
    if american:
        asked += [outlooks.options(strike, is_call=is_call, is_american=True) for is_call in (True, False)]
    kept = [~(batch.is_american & has_two_boundaries(batch)) for batch in asked]
    quotes = yield OptionBatch.concatenate([batch.take(rows) for batch, rows in zip(asked, kept, strict=True)])
    ends = np.cumsum([np.count_nonzero(rows) for rows in kept]).tolist()
    call, put, *americans = (
        _spread_out(quotes.take(slice(start, end)), rows)
        for start, end, rows in zip([0, *ends[:-1]], ends, kept, strict=True)
    )
    slope = yield from _slope_quotient(outlooks, strike, call.error_bound)
    curvature = yield from _curvature_quotient(outlooks, strike, call)
    return Valuations(
        strike=strike,
        above=_above(outlooks, strike, call, slope),
        call=call,
        call_bounds=_greek_bounds(outlooks, strike, call, slope, curvature, is_call=True),
        put=put,
        put_bounds=_greek_bounds(outlooks, strike, put, slope, curvature, is_call=False),
        american_call=americans[0] if americans else None,
        american_put=americans[1] if americans else None,
    )


def _spread_out(quotes: Quotes, rows: BoolArray) -> Quotes:
    """The quotes in the chosen rows of more, whose other rows hold NaN."""
    if rows.all():
        return quotes

    def column(values: NDArray[Any]) -> NDArray[Any]:
        whole = np.full(len(rows), np.nan) if values.dtype == np.float64 else np.zeros(len(rows), values.dtype)
        whole[rows] = values
        return whole

    return Quotes(*(column(getattr(quotes, name.name)) for name in fields(quotes)))


def _model_above(outlooks: Outlooks, strike: FloatArray, calls: Quotes) -> FloatArray:
    return calls.rho / (outlooks.years * strike * outlooks.discount)


def _above(outlooks: Outlooks, strike: FloatArray, calls: Quotes, quotient: Estimate) -> Estimate:
    """The model's P(S_T > strike) with the bound that the quotient gives it."""
    value = _model_above(outlooks, strike, calls)
    bound = np.abs(value - quotient.value) + quotient.error_bound
    inside = np.clip(value, 0.0, 1.0)
    return Estimate(value=inside, error_bound=np.minimum(bound, np.maximum(inside, 1.0 - inside)))


def _slope_quotient(outlooks: Outlooks, strike: FloatArray, price_bound: FloatArray) -> Questions[Estimate]:
    """P(S_T > strike) from the calls beside the strike, with its bound; `price_bound` only chooses how far beside."""
    step, _ = _slope_step(outlooks, strike, price_bound)
    quotient: Estimate = yield from _slope_quotient_at(outlooks, strike, step)
    return quotient


def _slope_step(outlooks: Outlooks, strike: FloatArray, price_bound: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The relative h that makes the bound smallest, and that bound if ε does not change with the strike."""
    bend = _slope_bend(outlooks)
    error = price_bound / (outlooks.discount * strike)
    step = np.clip(np.cbrt(3.0 * error / bend), _EPSILON ** (2 / 3), _WIDEST)
    return step, step * step / 6.0 * bend / (1.0 - step) ** 2 + error / step


def _slope_bend(outlooks: Outlooks) -> FloatArray:
    """sup K²|f'(K)|."""
    s = outlooks.deviation
    return (_PHI_1 + _PHI_0 * s) / (s * s)


def _slope_quotient_at(outlooks: Outlooks, strike: FloatArray, step: FloatArray) -> Questions[Estimate]:
    lower, upper = strike * (1.0 - step), strike * (1.0 + step)
    beside = OptionBatch.concatenate([outlooks.options(lower), outlooks.options(upper)])
    quotes = yield beside
    below, above = quotes.take(slice(0, len(strike))), quotes.take(slice(len(strike), None))
    width = (upper - lower) * outlooks.discount
    # f' is taken at the lower end of the interval, where its bound is largest.
    bend = step * step / 6.0 * _slope_bend(outlooks) / (1.0 - step) ** 2
    return Estimate(
        value=(below.price - above.price) / width,
        error_bound=bend + (below.error_bound + above.error_bound) / width,
    )


def _curvature_quotient(outlooks: Outlooks, strike: FloatArray, calls: Quotes) -> Questions[Estimate]:
    """K²·f(K)·D, in currency: what S²·gamma has to be."""
    s = outlooks.deviation
    bend = (_PHI_0 + 3.0 * _PHI_1 * s + 2.0 * _PHI_0 * s * s) / s**3
    error = calls.error_bound / (outlooks.discount * strike)
    step = np.clip((48.0 * error / bend) ** 0.25, np.sqrt(_EPSILON), _WIDEST)
    lower, upper = strike * (1.0 - step), strike * (1.0 + step)
    quotes = yield OptionBatch.concatenate([outlooks.options(lower), outlooks.options(upper)])
    below, above = quotes.take(slice(0, len(strike))), quotes.take(slice(len(strike), None))
    half = 0.5 * (upper - lower) / strike
    return Estimate(
        value=(below.price - 2.0 * calls.price + above.price) / (half * half),
        error_bound=half * half / 12.0 * bend / (1.0 - step) ** 3 * strike * outlooks.discount
        + (below.error_bound + 2.0 * calls.error_bound + above.error_bound) / (half * half),
    )


def _greek_bounds(
    outlooks: Outlooks,
    strike: FloatArray,
    quotes: Quotes,
    slope: Estimate,
    curvature: Estimate,
    *,
    is_call: bool,
) -> GreekBounds:
    """Every Greek once more from price, slope and curvature in the strike, with the bound of each, and how far the
    model's own is from it.

    By homogeneity and the pricing equation, with cash = K·∂V/∂K and curvature = K²·∂²V/∂K²:
    S·delta = V − cash, S²·gamma = curvature, vega = σT·curvature, rho = −T·cash,
    theta = q·S·delta + r·cash − σ²/2·curvature.
    """
    spot, years, volatility = outlooks.spot, outlooks.years, outlooks.volatility
    present_strike = strike * outlooks.discount
    cash = present_strike * (-slope.value if is_call else 1.0 - slope.value)
    cash_bound = present_strike * slope.error_bound
    asset = quotes.price - cash
    asset_bound = quotes.error_bound + cash_bound
    theta = outlooks.dividend * asset + outlooks.rate * cash - 0.5 * volatility**2 * curvature.value
    theta_bound = (
        np.abs(outlooks.dividend) * asset_bound
        + np.abs(outlooks.rate) * cash_bound
        + 0.5 * volatility**2 * curvature.error_bound
    )
    return GreekBounds(
        price=quotes.error_bound,
        delta=np.abs(quotes.delta - asset / spot) + asset_bound / spot,
        gamma=np.abs(quotes.gamma - curvature.value / spot**2) + curvature.error_bound / spot**2,
        vega=np.abs(quotes.vega - volatility * years * curvature.value) + volatility * years * curvature.error_bound,
        theta=np.abs(quotes.theta - theta) + theta_bound,
        rho=np.abs(quotes.rho + years * cash) + years * cash_bound,
    )


def _next_guess(
    x: FloatArray, miss: FloatArray, slope: FloatArray, low: FloatArray, high: FloatArray, deviation: FloatArray
) -> FloatArray:
    """Newton's next x; where that leaves (low, high) or goes far, the middle, or a step of two deviations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(slope > 0.0, miss / slope, np.inf * np.sign(miss))
        middle = 0.5 * (low + high)
    guess = x + np.clip(step, -2.0 * deviation, 2.0 * deviation)
    outside = ~((guess > low) & (guess < high))
    return np.where(outside & np.isfinite(middle), middle, guess)


def _proven_spread(
    outlooks: Outlooks, strike: FloatArray, target: FloatArray, density: FloatArray, price_bound: FloatArray
) -> Questions[FloatArray]:
    """d such that the exact quantile is in [strike·e^{−d}, strike·e^d], shown by quotients at both ends; else NaN."""
    _, slope_bound = _slope_step(outlooks, strike, price_bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.clip(1.5 * slope_bound / density, 4.0 * _EPSILON, 1.0)
    spread = np.where(np.isnan(spread), 1.0, spread)
    proven = np.full(len(strike), np.nan)
    rows = np.arange(len(strike))
    for _ in range(_PROOFS):
        some, d = outlooks.take(rows), spread[rows]
        twice = some.take(np.concatenate([np.arange(len(rows))] * 2))
        ends = np.concatenate([strike[rows] * np.exp(-d), strike[rows] * np.exp(d)])
        step, _ = _slope_step(twice, ends, np.concatenate([price_bound[rows]] * 2))
        quotient = yield from _slope_quotient_at(twice, ends, step)
        lower, upper = slice(0, len(rows)), slice(len(rows), None)
        holds = ((quotient.value - quotient.error_bound)[lower] >= target[rows]) & (
            (quotient.value + quotient.error_bound)[upper] <= target[rows]
        )
        proven[rows[holds]] = d[holds]
        rows = rows[~holds]
        if not len(rows):
            break
        spread[rows] *= 2.0
    return proven
