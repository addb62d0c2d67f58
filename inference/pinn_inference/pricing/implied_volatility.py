"""The volatility that a European price implies: the exact formula, inverted for whole columns in float64.

In the variables of `reduction`, with k = |x|, s = σ√T, y = k/s and h = s/2, the out-of-the-money option of a pair is
worth u = b′·D in units of √(AB), and what it lacks of its largest value e^{−k/2} is b′·G:

    b′ = ∂u/∂s = φ(y)·e^{−h²/2},   D = m(y − h) − m(y + h),   G = m(h − y) + m(h + y),   m the Mills ratio.

Solved is ln u(s) = ln β for prices in the lower half, ln(e^{−k/2} − u(s)) = ln γ for the others, in ln s, by
Householder's method of third order: no digit is lost in either wing. The start of the lower half is the normal
model's volatility (a fit of its own inverse) with Hagan's series between the two models; that of the upper half the
inverse normal distribution, or the tangent at the inflection s² = 2k where that is further up. The order of the method,
the two objectives and the role of the inflection are those of Jäckel, "Let's be rational" (2015); the variables and the
starts are not. Two steps are enough for s up to one, and more are made where they are not.

The bound: ln u is concave in ln s and ln(e^{−k/2} − u) in s, so that a price off by ε moves σ by at most
ε/vega/(1 − ε/min(β, γ)) (in the same units). ε is what float64 leaves open: A, B and x have a few eps of error each.
Where it is more than half of β or of γ the price does not tell the volatility.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.mills import INV_SQRT_2PI, SQRT_HALF_PI, mills_ratio
from pinn_inference.pricing.reduction import ROUNDING
from pinn_inference.pricing.types import BoolArray, CodeArray, FloatArray, Method, OptionBatch

_CHUNK: Final = 8192
"""Options inverted together: their columns stay in the second-level cache."""
_EPS: Final = float(np.finfo(np.float64).eps)
_SQRT_2PI: Final = 2.5066282746310002
_LEAST: Final = 1e-290
"""In units of √(AB): a time value below it is none."""
_NARROW: Final = ((0.2, 13), (0.6, 21))
"""Of h·(1 + y): below it the difference of two Mills ratios is a Taylor series to such an order."""
_FAR: Final = 1.0
"""From this k on the start of the lower half is held against the tangent at the inflection."""
_STEPS: Final = 2
_MOST_STEPS: Final = 40
_LARGEST_STEP: Final = 1.0
_CONVERGED: Final = 1e-4
"""After a last step below it the error is of its fourth power."""
_SOLVER_ERROR: Final = 16.0 * _EPS
"""Relative, of the volatility: what rounding leaves of the last step."""
_MOST_DOUBT: Final = 0.5
"""Share of a time value that may be rounding."""

# Two one-dimensional inverses: Chebyshev coefficients in t = (L − 10)/(L + 10), fitted on 10,000 points;
# tests/unit/inference/pricing/test_implied_volatility.py holds them to half a thousandth.
_FIT_CENTRE: Final = 10.0
_NORMAL_MODEL: Final = (
    0.9909971443,
    0.4917472803,
    -0.08732178453,
    0.01361319913,
    0.002501992476,
    0.0007671869802,
    -0.0004559022387,
    0.00064663963,
    8.326836906e-06,
)
"""y/L·√(1 + L) with L = ln(1 + 1/Q), Q = φ(y)/y − Φ(−y): the normal model's price in units of its moneyness."""
_DISTRIBUTION: Final = (
    1.341850603,
    0.07812074803,
    -0.01038282195,
    0.003282352172,
    0.0009202903404,
    -0.0006252463487,
    0.000881571492,
    -0.0004119350427,
    0.0003539922265,
)
"""h/L·√(1 + L) with L = −ln(2·Φ(−h))."""


class Outcome(IntEnum):
    """What became of one price."""

    FOUND = 0
    BELOW_INTRINSIC = 1
    """Less than the option is worth without any volatility."""
    ABOVE_UPPER_BOUND = 2
    """More than the option is worth at any volatility."""
    NOT_IDENTIFIABLE = 3
    """Of a whole range of volatilities each gives this price, as far as numbers and bounds can tell."""
    OUT_OF_RANGE = 4
    """It is above the highest that is looked for; American options only."""

    @property
    def label(self) -> str:
        """The name used in JSON: `BelowIntrinsic`."""
        return self.name.title().replace("_", "")


@dataclass(frozen=True, slots=True)
class ImpliedVolatilities:
    """Implied volatilities of a batch, all of shape (n,), in its order.

    `volatility` is a decimal per √year, and `error_bound` bounds |volatility − exact volatility| for the very numbers
    that were given; `vega` is in currency per 1.00 of volatility, at the volatility found. All three are NaN where
    `outcome` is not FOUND; `method` and `outcome` hold `Method` and `Outcome` codes. `lowest` and `highest` are the
    volatilities between which a price that is not identifiable, or out of range, leaves the answer open, `highest`
    infinite where there is no end; elsewhere NaN. `price_low` and `price_high` are what the option is worth without
    volatility and at most, in currency.
    """

    volatility: FloatArray
    error_bound: FloatArray
    vega: FloatArray
    method: CodeArray
    outcome: CodeArray
    lowest: FloatArray
    highest: FloatArray
    price_low: FloatArray
    price_high: FloatArray

    def __len__(self) -> int:
        return len(self.volatility)

    @classmethod
    def empty(cls, n: int) -> ImpliedVolatilities:
        """Nothing found for n options."""
        volatility, error_bound, vega, lowest, highest, price_low, price_high = np.full((7, n), np.nan)
        return cls(
            volatility,
            error_bound,
            vega,
            np.full(n, Method.CLOSED_FORM, dtype=np.int8),
            np.full(n, Outcome.NOT_IDENTIFIABLE, dtype=np.int8),
            lowest,
            highest,
            price_low,
            price_high,
        )

    def put(self, rows: NDArray[np.intp], others: ImpliedVolatilities) -> None:
        """Overwrite these rows, in place, by the rows of `others`."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(others, field.name)

    def take(self, rows: slice | BoolArray | NDArray[np.intp]) -> ImpliedVolatilities:
        """The chosen rows, in their order; of a slice they are views."""
        return ImpliedVolatilities(*(getattr(self, field.name)[rows] for field in fields(self)))


def implied_volatility(
    options: OptionBatch, price: FloatArray, spot_share: FloatArray | None = None
) -> ImpliedVolatilities:
    """The volatilities of European options of these prices, in currency, shape (n,); `options.volatility` is not read.

    Prices may be any finite float64; see `Outcome` for what has no answer. `is_american` is not looked at.
    `spot_share`, shape (n,), is how far each spot may be from the exact one, relative, where it was calculated.
    """
    n = len(options)
    answer = ImpliedVolatilities.empty(n)
    with np.errstate(all="ignore"):
        for start in range(0, n, _CHUNK):
            rows = slice(start, start + _CHUNK)
            asked = _Asked.of(options.take(rows), price[rows], None if spot_share is None else spot_share[rows])
            _invert(asked, price[rows], answer.take(rows))
    return answer


def total_volatility(k: FloatArray, beta: FloatArray, gamma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """σ√T and ∂u/∂s of out-of-the-money options, all of shape (n,), see the module's docstring.

    `k` = |ln(F/K)|; `beta` is the price and `gamma` = e^{−k/2} − β what it lacks of its largest value, in units of
    √(AB); both are positive.
    """
    s = np.empty_like(k)
    start = _start_low(k, beta)
    kind = np.searchsorted(_WIDTHS, 0.5 * (start + k), side="right")
    kind[beta > gamma] = len(_OBJECTIVES) - 1
    for number, find in enumerate(_OBJECTIVES):
        rows = np.flatnonzero(kind == number)
        if len(rows):
            s[rows] = _solved(find, k[rows], beta[rows], gamma[rows], start[rows])
    return s, _slope(k, s)


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """Prices in normalised variables, all of shape (n,). `beta` and `gamma` as in `total_volatility`, of any sign.

    `scale` = √(AB) and `low`, `high` are in currency. `share` is how far float64 may move A and B, relative; `parity`,
    in currency, what that does to the difference between the price and that of the out-of-the-money option.
    """

    k: FloatArray
    scale: FloatArray
    beta: FloatArray
    gamma: FloatArray
    root: FloatArray
    low: FloatArray
    high: FloatArray
    share: FloatArray
    parity: FloatArray

    @classmethod
    def of(cls, options: OptionBatch, price: FloatArray, spot_share: FloatArray | None) -> _Asked:
        maturity, is_call = options.maturity, options.is_call
        carried, financed = options.dividend * maturity, options.rate * maturity
        x = np.log(options.spot / options.strike) + (financed - carried)
        asset, cash = options.spot * np.exp(-carried), options.strike * np.exp(-financed)
        scale = np.sqrt(asset) * np.sqrt(cash)
        exercised = (x >= 0.0) == is_call
        low = np.where(exercised, np.abs(asset - cash), 0.0)
        high = np.where(is_call, asset, cash)
        k = np.abs(x)
        share = ROUNDING * (1.0 + k + np.abs(carried) + np.abs(financed))
        if spot_share is not None:
            share += spot_share
        return cls(
            k=k,
            scale=scale,
            beta=(price - low) / scale,
            gamma=(high - price) / scale,
            root=np.sqrt(maturity),
            low=low,
            high=high,
            share=share,
            parity=np.where(exercised, share * (asset + cash), 0.0),
        )

    def take(self, rows: NDArray[np.intp]) -> _Asked:
        return _Asked(*(getattr(self, field.name)[rows] for field in fields(self)))


def _invert(asked: _Asked, price: FloatArray, answer: ImpliedVolatilities) -> None:
    """Fills `answer`, in place."""
    alive = asked.root > 0.0
    high = np.where(alive, asked.high, asked.low)
    answer.price_low[:], answer.price_high[:] = asked.low, high
    below, above = price < asked.low - asked.parity, price > high + asked.share * (high + asked.low)
    solvable = alive & (asked.beta >= _LEAST) & (asked.gamma >= _LEAST) & ~(below | above)
    rows = np.flatnonzero(solvable)
    part = asked.take(rows)
    s, slope = total_volatility(part.k, part.beta, part.gamma)
    # What float64 leaves open in units of √(AB): the relative error of A and B, times A·∂u/∂A − B·∂u/∂B = u + 2b′·m.
    upper = part.k / s + 0.5 * s
    error = part.share * (part.beta + 8.0 * slope / (3.0 * upper + np.sqrt(upper * upper + 8.0)))
    error += part.parity / part.scale
    doubt = error / np.minimum(part.beta, part.gamma)
    bound = (error / slope / (1.0 - doubt) + _SOLVER_ERROR * s) / part.root
    clear = (doubt < _MOST_DOUBT) & np.isfinite(bound)
    answer.volatility[rows] = np.where(clear, s / part.root, np.nan)
    answer.error_bound[rows] = np.where(clear, bound, np.nan)
    answer.vega[rows] = np.where(clear, part.scale * slope * part.root, np.nan)
    answer.outcome[rows] = np.where(clear, Outcome.FOUND, Outcome.NOT_IDENTIFIABLE)
    answer.outcome[below] = Outcome.BELOW_INTRINSIC
    answer.outcome[above] = Outcome.ABOVE_UPPER_BOUND
    unclear = np.flatnonzero(answer.outcome == Outcome.NOT_IDENTIFIABLE)
    if len(unclear):
        answer.lowest[unclear], answer.highest[unclear] = _open_range(asked.take(unclear))


def _open_range(asked: _Asked) -> tuple[FloatArray, FloatArray]:
    """Between which volatilities prices are that differ by no more than they are uncertain, each of shape (n,)."""
    at_low = asked.beta < asked.gamma
    parity = 2.0 * asked.parity / asked.scale
    ceiling = 4.0 * asked.share * asked.high / asked.scale
    beta, gamma = np.maximum(asked.beta, 0.0), np.maximum(asked.gamma, 0.0)
    beta += np.maximum(np.maximum(beta, parity), _LEAST)
    gamma += np.maximum(np.maximum(gamma, ceiling), _LEAST)
    most = np.exp(-0.5 * asked.k)
    beta, gamma = np.where(at_low, beta, most - gamma), np.where(at_low, most - beta, gamma)
    known = (beta >= _LEAST) & (gamma >= _LEAST) & (asked.root > 0.0)
    edge = np.full_like(asked.k, np.nan)
    edge[known] = total_volatility(asked.k[known], beta[known], gamma[known])[0] / asked.root[known]
    return np.where(known & ~at_low, edge, 0.0), np.where(known & at_low, edge, np.inf)


# --- starts -----------------------------------------------------------------------------------------------------------


def _fitted(coefficients: tuple[float, ...], distance: FloatArray) -> FloatArray:
    """L/√(1 + L)·(the series at L), for L ≥ 0 of shape (n,)."""
    t2 = 2.0 - 4.0 * _FIT_CENTRE / (distance + _FIT_CENTRE)
    b1, b2 = np.full_like(t2, coefficients[-1]), np.zeros_like(t2)
    for coefficient in coefficients[-2:0:-1]:
        b1, b2 = t2 * b1 - b2 + coefficient, b1
    return (0.5 * t2 * b1 - b2 + coefficients[0]) * distance / np.sqrt(1.0 + distance)


def _start_low(k: FloatArray, beta: FloatArray) -> FloatArray:
    """The normal model's total volatility s_N, d/s_N·… inverted, and from it s = s_N·k/d·(1 + s²/24·(1 − k²/120) + …).

    d = 2·sinh(k/2) is the forward's distance from the strike in units of √(FK), Hagan and Woodward (1999).
    """
    k = np.maximum(k, 1e-200)
    distance = 2.0 * np.sinh(0.5 * k)
    s = k / _fitted(_NORMAL_MODEL, np.log1p(distance / beta))
    w = s * s
    return s * (1.0 + w * (np.maximum(1.0 - k * k / 120.0, 0.0) / 24.0 + w / 5760.0))


def _inflection(k: FloatArray, beta: FloatArray) -> FloatArray:
    """Where the tangent at s² = 2k, at which u has its inflection, has the price β: above s below it, and below above.

    There u = b′·(m(0) − m(√(2k))) with b′ = φ(0)·e^{−k/2}.
    """
    s = np.sqrt(2.0 * k)
    return s + beta * (_SQRT_2PI * np.exp(0.5 * k)) - (SQRT_HALF_PI - mills_ratio(s))


def _start_high(k: FloatArray, beta: FloatArray, gamma: FloatArray) -> FloatArray:
    """The larger of two lower estimates: 2·Φ(−h)·e^{−y²/2} ≈ γ, that is h² + y² = H² with H of Φ, and the tangent."""
    square = _fitted(_DISTRIBUTION, -np.log(gamma)) ** 2
    normal = np.sqrt(2.0 * (square + np.sqrt(np.maximum(square * square - k * k, 0.0))))
    return np.maximum(normal, _inflection(k, beta))


# --- steps ------------------------------------------------------------------------------------------------------------


def _solved(find: _Objective, k: FloatArray, beta: FloatArray, gamma: FloatArray, start: FloatArray) -> FloatArray:
    """s of options of one kind, shape (n,)."""
    if find is _high:
        s, target = _start_high(k, beta, gamma), _SQRT_2PI * gamma
    else:
        s, target = start, _SQRT_2PI * beta
        far = np.flatnonzero(k > _FAR)
        if len(far):
            tangent = _inflection(k[far], beta[far])
            s[far] = np.where((tangent > 0.0) & ~(s[far] < tangent), tangent, s[far])
    step = np.empty_like(s)
    for _ in range(_STEPS):
        step = _step(find, k, s, target)
        s *= np.exp(step)
    left = np.flatnonzero(~(np.abs(step) < _CONVERGED))
    for _ in range(_MOST_STEPS):
        if not len(left):
            break
        step = _step(find, k[left], s[left], target[left])
        s[left] *= np.exp(step)
        left = left[~(np.abs(step) < _CONVERGED)]
    return s


def _slope(k: FloatArray, s: FloatArray) -> FloatArray:
    """b′ = ∂u/∂s, shape (n,)."""
    y = k / s
    return INV_SQRT_2PI * np.exp(-0.5 * (y * y + 0.25 * s * s))


def _step(find: _Objective, k: FloatArray, s: FloatArray, target: FloatArray) -> FloatArray:
    """Householder's step of third order for ln s, shape (n,), at most `_LARGEST_STEP`.

    `target` is √(2π)·β or √(2π)·γ. With R = D or −G, g = s/R and f = ln(√(2π)·b′·|R|/target):
    f′ = g, f″/f′ = 1 + y² − h² − g =: a, and f‴/f′ = a·(a − g) − 2·(y² + h²).
    """
    y, h = k / s, 0.5 * s
    ratio = find(y, h)
    yy, hh = y * y, h * h
    g = s / ratio
    newton = (0.5 * (yy + hh) - np.log(np.abs(ratio) / target)) / g
    bend = 1.0 + yy - hh - g
    third = bend * (bend - g) - 2.0 * (yy + hh)
    step = newton * (1.0 + 0.5 * bend * newton) / (1.0 + newton * (bend + third * newton / 6.0))
    # Far from the root the step of third order can point anywhere; Newton's has the right sign.
    step = np.where((step * newton > 0.0) & (np.abs(step) < 4.0 * np.abs(newton)), step, newton)
    return np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)


_Objective: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]


def _narrow(y: FloatArray, h: FloatArray, *, order: int) -> FloatArray:
    """D by Taylor's series about y, as `mills.narrow_difference` has it for differences that are narrower still."""
    before = mills_ratio(y)
    derivative = y * before - 1.0
    h2 = h * h
    total, factor = derivative.copy(), np.ones_like(h)
    for number in range(1, order, 2):
        before, derivative = derivative, y * derivative + number * before
        before, derivative = derivative, y * derivative + (number + 1.0) * before
        factor *= h2 / ((number + 1.0) * (number + 2.0))
        total += factor * derivative
    return -2.0 * h * total


def _wide(y: FloatArray, h: FloatArray) -> FloatArray:
    """D for other prices of the lower half."""
    n = len(y)
    gap = y - h
    ratios = mills_ratio(np.concatenate([np.abs(gap), y + h]))
    near, far = ratios[:n], ratios[n:]
    inside = np.flatnonzero(gap < 0.0)
    if len(inside):
        near[inside] = _SQRT_2PI * np.exp(0.5 * gap[inside] ** 2) - near[inside]
    return near - far


def _high(y: FloatArray, h: FloatArray) -> FloatArray:
    """−G for prices of the upper half; they have s² > 2k, hence h > y."""
    n = len(y)
    ratios = mills_ratio(np.concatenate([np.abs(h - y), h + y]))
    return -(ratios[:n] + ratios[n:])


_WIDTHS: Final = np.array([width for width, _ in _NARROW])
_OBJECTIVES: Final[tuple[_Objective, ...]] = (*(partial(_narrow, order=order) for _, order in _NARROW), _wide, _high)
