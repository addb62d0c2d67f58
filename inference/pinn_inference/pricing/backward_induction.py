"""American options that neither a network nor one boundary describes, solved backwards in time from expiry.

Two kinds come here: those with two exercise boundaries (`american_domain`), and those on a share that pays dividends of
known amounts (`escrow`), whose payoff moves with time. Both are puts in the form

    v(x, t) ≥ (a(t) − b(t)·eˣ)⁺,    x = ln Y,    dY = (R − Q)·Y·dt + σ·Y·dW,    discounted at R.

A put has Y = S/K in units of K, R = r, Q = q, b = 1 and a = 1 − P(t)/K, P being the present value of the dividends that
are still to come; a call Y = K/S in units of S, R = q, Q = r, a = 1 and b = 1 − P(t)/K: counted in shares it is a put.

Exercise is allowed at a number of dates, of which those before and after each dividend are always some. Between two of
them the value is carried over exactly, by a fast Fourier transform (Lord, Fang, Bervoets and Oosterlee 2008), on a grid
that moves with the drift. Halving all steps gives two values, and from these Richardson's extrapolation the one for
exercise at any time. The same grid prices the European option, whose exact price is known: only the difference, the
premium, is taken from the grid, and what the grid gets wrong of the European price is a measure of its error.

∂v/∂σ and ∂v/∂r are carried along, differentiated step by step: where the option is exercised they are those of the
payoff. (That the boundary moves too changes nothing there: the value is continuous.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final

import numpy as np

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, OptionBatch, Quotes

_HALF_WIDTH: Final = 10.0
"""Of the grid, in σ√T: nothing comes back from there."""
_TAPER: Final = 7.5
"""From here on, in σ√T, values are let fall to 0, so that the grid's two ends meet without a jump."""
_POINTS: Final = 1024
_POINTS_AT_MOST: Final = 8192
_FINEST: Final = 0.05
"""Largest distance of two points in ln S: more points where the volatility is large."""
_DATES: Final = 64
"""Of exercise, on the coarser of the two sets."""
_FEWEST: Final = 6
"""Of these, between two dividends."""
_GRADED: Final = 0.8
"""How much smaller the steps are at both ends of a time between dividends, where boundaries move fastest."""
_LEAST_SPREAD: Final = 1e-6
"""A smaller σ√T is taken as this one: it is worth less than half of it."""
_SAME: Final = 1e-6
"""Of the option's unit: a premium over the payoff that only the extrapolation leaves."""
_LARGEST_EXPONENT: Final = 700.0
_SAFETY: Final = 2.0
"""By so much more than its two parts is an error bound: they are estimates."""
_KINKS: Final = 3e-7
"""Of the option's unit: what exercise between two places of the grid costs, twice as much as was ever measured."""
_FIRST: Final = np.array([-1.0, 9.0, -45.0, 0.0, 45.0, -9.0, 1.0]) / 60.0
_SECOND: Final = np.array([2.0, -27.0, 270.0, -490.0, 270.0, -27.0, 2.0]) / 180.0
"""Derivatives from seven neighbours, to the sixth order."""


@dataclass(frozen=True, slots=True)
class _Put:
    """One option in the form above: `rate` is R and `dividend` Q, `spread` σ√T."""

    x: float
    maturity: float
    spread: float
    rate: float
    dividend: float
    strike: float
    schedule: Schedule
    discount: float
    """The rate at which dividends are discounted, r."""
    is_call: bool

    @property
    def drift(self) -> float:
        return self.rate - self.dividend - 0.5 * self.spread**2 / self.maturity


@dataclass(frozen=True, slots=True)
class _Solution:
    """At x and t = 0, where the option is held: v, v_x, v_xx, v_σ·σ and v_r. `near` and `far` are the x between which
    it is exercised, the one nearer to the strike first; NaN where there is none."""

    jets: FloatArray
    near: float
    far: float


def price(batch: OptionBatch, *, reason: FallbackReason = FallbackReason.NONE) -> Quotes:
    """Prices, Greeks and exercise boundaries; every row is taken as American, and takes some ten milliseconds.

    Greeks are by `batch.spot`, the share without its dividends, with that spot held: `Escrow.settled` makes those by
    the true spot of them. Boundaries are true spots.
    `reason` is written into every row.
    """
    quotes = closed_form.price(batch, reason=reason)
    quotes = Quotes(*(np.array(getattr(quotes, column.name)) for column in fields(Quotes)))
    quotes.method[:] = Method.BACKWARD_INDUCTION
    with np.errstate(all="ignore"):
        for row in range(len(batch)):
            schedule = batch.schedules[row].until(float(batch.maturity[row])) if batch.schedules else NO_DIVIDENDS
            _price_row(batch, row, schedule, quotes)
    return quotes


def _price_row(batch: OptionBatch, row: int, schedule: Schedule, quotes: Quotes) -> None:
    """Writes one row into `quotes`, which holds its European twin."""
    spot, strike, maturity = float(batch.spot[row]), float(batch.strike[row]), float(batch.maturity[row])
    rate, dividend = float(batch.rate[row]), float(batch.dividend[row])
    volatility, is_call = float(batch.volatility[row]), bool(batch.is_call[row])
    side = 1.0 if is_call else -1.0
    to_come = schedule.present_value(rate)
    intrinsic = side * (spot + to_come - strike)
    unit = spot if is_call else strike
    european = float(quotes.price[row])
    spread = max(volatility * np.sqrt(maturity), _LEAST_SPREAD)
    growth = np.exp(max(-(dividend if is_call else rate), 0.0) * maturity)
    most = max(unit * growth + (to_come if is_call else 0.0), european)
    least = max(european, intrinsic, 0.0)
    value, bound, solved = european, 0.0, None
    exercised = maturity == 0.0 and intrinsic > 0.0
    if maturity > 0.0:
        put = _Put(
            x=float(np.log(strike / spot if is_call else spot / strike)),
            maturity=maturity,
            spread=spread,
            rate=dividend if is_call else rate,
            dividend=rate if is_call else dividend,
            strike=strike,
            schedule=schedule,
            discount=rate,
            is_call=is_call,
        )
        solved, wrong, late = _premium(put)
        value = european + unit * float(solved.jets[0])
        exercised = european + unit * late <= intrinsic and value <= intrinsic + _SAME * unit
        # The best moment may lie between two dates: what is lost by that is of second order.
        pause = 2.0 * maturity / _DATES
        wrong += growth * ((abs(rate) + abs(dividend)) * pause) ** 2 / 8.0
        bound = unit * wrong + (_LEAST_SPREAD * unit if spread == _LEAST_SPREAD else 0.0)
    if solved is None or not np.isfinite(value + bound) or not np.isfinite(solved.jets).all():
        value, bound = least, most - least
        solved, exercised = None, False
    quotes.price[row] = least if exercised else min(max(value, least), most)
    quotes.error_bound[row] = min(float(quotes.error_bound[row]) + bound, max(most - least, 0.0)) + _rounding(unit)
    if maturity == 0.0:
        quotes.exercise_boundary[row] = strike
    elif solved is None:
        quotes.exercise_boundary[row] = np.inf if is_call else 0.0
    else:
        edge = solved.near
        quotes.far_boundary[row] = to_come + strike * np.exp(-solved.far if is_call else solved.far)
        quotes.exercise_boundary[row] = (
            (np.inf if is_call else 0.0)
            if np.isnan(edge)
            else to_come + (strike * np.exp(-edge) if is_call else strike * np.exp(edge))
        )
    if exercised:
        quotes.delta[row], quotes.gamma[row], quotes.vega[row] = side, 0.0, 0.0
        quotes.theta[row] = side * rate * to_come
        quotes.rho[row] = side * schedule.by_rate(rate)
    elif solved is not None:
        _add_greeks(quotes, row, solved.jets, put, spot=spot, unit=unit, volatility=volatility)


def _add_greeks(
    quotes: Quotes, row: int, jets: FloatArray, put: _Put, *, spot: float, unit: float, volatility: float
) -> None:
    e, e_x, e_xx, e_log_sigma, e_rate = jets.tolist()
    quotes.delta[row] += (e - e_x) if put.is_call else unit * e_x / spot
    quotes.gamma[row] = max(quotes.gamma[row] + unit * (e_xx - e_x) / spot**2, 0.0)
    if volatility > 0.0:
        quotes.vega[row] += unit * e_log_sigma / volatility
    # The premium solves the pricing equation.
    variance = put.spread**2 / put.maturity
    quotes.theta[row] -= unit * (0.5 * variance * e_xx + put.drift * e_x - put.rate * e)
    if not put.schedule.dividends:  # a longer option has every right of a shorter one
        quotes.theta[row] = min(quotes.theta[row], 0.0)
    quotes.rho[row] += unit * e_rate


def _rounding(unit: float) -> float:
    return 1e-13 * unit


def _premium(put: _Put) -> tuple[_Solution, float, float]:
    """The premium's jets with the boundary, how wrong its value may be, in units of the option's, and its value with
    the finer dates alone: an option that even so is not worth holding to the first of them is exercised at once."""
    grid = _Grid.of(put)
    coarse, fine = (_solve(put, grid, _DATES * times) for times in (1, 2))
    twin = _european(put, grid)
    jets = 2.0 * fine.jets - coarse.jets - twin
    step = abs(float(fine.jets[0] - coarse.jets[0]))
    # A boundary of exercise at a few dates is wrong by a multiple of √dt (Broadie, Glasserman and Kou 1997).
    near, far = (b + (b - a) / (np.sqrt(2.0) - 1.0) for a, b in ((coarse.near, fine.near), (coarse.far, fine.far)))
    wrong = abs(float(twin[0]) - _exact_european(put))
    return _Solution(jets, near, far), _SAFETY * (step + wrong) + _KINKS, float(fine.jets[0] - twin[0])


def _exact_european(put: _Put) -> float:
    """The European put of the same form, by the closed form."""
    one = np.ones(1)
    quotes = closed_form.price(
        OptionBatch(
            np.exp(put.x) * one,
            one,
            put.maturity * one,
            put.rate * one,
            put.dividend * one,
            put.spread / np.sqrt(put.maturity) * one,
            np.zeros(1, dtype=np.bool_),
        )
    )
    return float(quotes.price[0])


@dataclass(frozen=True, slots=True)
class _Grid:
    """Places z = x(t) − x − drift·t, of shape (n,), and what a step needs of them."""

    z: FloatArray
    window: FloatArray
    frequency: FloatArray

    @classmethod
    def of(cls, put: _Put) -> _Grid:
        points = _POINTS
        while points < _POINTS_AT_MOST and 2.0 * _HALF_WIDTH * put.spread > _FINEST * points:
            points *= 2
        step = 2.0 * _HALF_WIDTH * put.spread / points
        z = (np.arange(points, dtype=np.float64) - points // 2) * step
        outside = np.clip((np.abs(z) / put.spread - _TAPER) / (_HALF_WIDTH - _TAPER), 0.0, 1.0)
        window = 1.0 - outside**3 * (10.0 - 15.0 * outside + 6.0 * outside**2)
        frequency = 2.0 * np.pi / (points * step) * np.arange(points // 2 + 1, dtype=np.float64)
        return cls(z, window, frequency)

    @property
    def step(self) -> float:
        return float(self.z[1] - self.z[0])


def _payoff(put: _Put, grid: _Grid, t: float, to_come: float, to_come_by_rate: float) -> FloatArray:
    """What exercise earns, and its derivatives by ln σ and by the rate r at a place of the moving grid: (3, n)."""
    asset = np.exp(np.minimum(put.x + put.drift * t + grid.z, _LARGEST_EXPONENT))
    share, share_by_rate = 1.0 - to_come / put.strike, -to_come_by_rate / put.strike
    variance = put.spread**2 / put.maturity
    if put.is_call:  # its r is Q: the drift falls with it
        asset_part = share * asset
        return np.stack([1.0 - asset_part, asset_part * variance * t, asset_part * t - share_by_rate * asset])
    return np.stack([share - asset, asset * variance * t, share_by_rate - asset * t])


def _solve(put: _Put, grid: _Grid, dates: int) -> _Solution:
    """By exercise at so many dates, spread over the times between dividends, and before and after each of these."""
    events = sorted({0.0, put.maturity, *(time for time, _ in put.schedule.dividends)})
    v = _at_expiry(put, grid)
    for start, end in reversed(list(pairwise(events))):
        v = _exercise_around(put, grid, end, v) if end < put.maturity or put.schedule.paid_at(end) else v
        count = max(round(dates * (end - start) / put.maturity), _FEWEST * dates // _DATES)
        part = np.arange(count + 1) / count
        times = start + (end - start) * (part - _GRADED * np.sin(2.0 * np.pi * part) / (2.0 * np.pi))
        for number in range(count - 1, -1, -1):
            v = _carry(put, grid, v, float(times[number + 1] - times[number]))
            if number:
                t = float(times[number])
                v = _exercise(put, grid, t, v, *put.schedule.after(t, put.discount))
    if put.schedule.paid_at(0.0):
        v = _exercise(put, grid, 0.0, v, *put.schedule.after(0.0, put.discount))
    return _Solution(_jets(grid, v), *_boundaries(put, grid, v[0]))


def _at_expiry(put: _Put, grid: _Grid) -> FloatArray:
    payoff = _payoff(put, grid, put.maturity, 0.0, 0.0)
    return _larger(payoff, np.zeros_like(payoff))


def _european(put: _Put, grid: _Grid) -> FloatArray:
    return _jets(grid, _carry(put, grid, _at_expiry(put, grid), put.maturity))


def _exercise(put: _Put, grid: _Grid, t: float, v: FloatArray, to_come: float, by_rate: float) -> FloatArray:
    return _larger(_payoff(put, grid, t, to_come, by_rate), v)


def _larger(payoff: FloatArray, held: FloatArray) -> FloatArray:
    """Of two values with their derivatives, (3, n) each, the larger one at every place.

    Where one overtakes the other, at a part θ of the way between two places, the value has a kink and the derivatives
    jump. Sums over the grid take a jump to be half-way and a kink to be anywhere; both places are given what is missing
    to the integral, by the formula of Euler and Maclaurin on either side.
    """
    gain = payoff[0] - held[0]
    pays = gain > 0.0
    result = np.where(pays, payoff, held)
    for place in np.flatnonzero(pays[1:] != pays[:-1]).tolist():
        bend = abs(gain[place + 1] - gain[place])
        part = gain[place] / (gain[place] - gain[place + 1])
        left, right = (payoff, held) if pays[place] else (held, payoff)
        ends = slice(place, place + 2)
        shares = np.array([1.0 - part, part])
        missing = (0.5 - part) * ((right - left)[:, ends] @ shares)
        missing[0] = bend * (1.0 / 12.0 - 0.5 * part * (1.0 - part))
        result[:, ends] += missing[:, None] * shares
    return result


def _exercise_around(put: _Put, grid: _Grid, t: float, v: FloatArray) -> FloatArray:
    """After the dividend of this moment and, earlier, before it."""
    v = _exercise(put, grid, t, v, *put.schedule.after(t, put.discount))
    return _exercise(put, grid, t, v, *put.schedule.before(t, put.discount))


def _carry(put: _Put, grid: _Grid, v: FloatArray, dt: float) -> FloatArray:
    """Values a time dt earlier, with their derivatives."""
    spread = put.spread**2 * (dt / put.maturity) * grid.frequency**2
    transformed = np.fft.rfft(v * grid.window) * np.exp(-0.5 * spread - put.rate * dt)
    transformed[1] -= spread * transformed[0]
    if not put.is_call:
        transformed[2] -= dt * transformed[0]
    carried: FloatArray = np.fft.irfft(transformed, len(grid.z))
    return carried


def _jets(grid: _Grid, v: FloatArray) -> FloatArray:
    middle = len(grid.z) // 2
    near = v[0, middle - 3 : middle + 4]
    slope, bend = _FIRST @ near / grid.step, _SECOND @ near / grid.step**2
    return np.array([near[3], slope, bend, v[1, middle], v[2, middle]])


def _boundaries(put: _Put, grid: _Grid, held: FloatArray) -> tuple[float, float]:
    """The largest and the smallest x at which the option is exercised at once; NaN where the grid does not reach it."""
    gain = _payoff(put, grid, 0.0, *put.schedule.before(0.0, put.discount))[0] - held
    inner = np.abs(grid.z) < (_TAPER - 1.0) * put.spread
    exercised = np.flatnonzero((gain > 0.0) & inner)
    if not len(exercised):
        return float("nan"), float("nan")
    first, last = int(exercised[0]), int(exercised[-1])

    def crossing(place: int) -> float:
        """Between this place and the next."""
        if not inner[place] or not inner[place + 1]:
            return float("nan")
        return put.x + float(grid.z[place]) + grid.step * float(gain[place] / (gain[place] - gain[place + 1]))

    return crossing(last), crossing(first - 1)
