"""From an option to the two variables its time value depends on, and back to price and Greeks.

With D = e^{−rT}, F = S·e^{(r−q)T}, x = ln(F/K), w = σ²T, s = √w and y = |x|/s every European price is

    price = intrinsic + D·√(FK)·u(|x|, w),   intrinsic = (±(S·e^{−qT} − K·e^{−rT}))⁺,

with one and the same u for call and put, so that put-call parity holds by construction. u solves u_w = u_xx/2 − u/8 and
is written u = s·φ(y)·N(y, w), φ the normal density; N is smooth and is what the network learns.
The intrinsic value, x and the exponentials stay in float64 outside the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pinn_inference.pricing.mills import INV_SQRT_2PI, normal_density
from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch

MOST: Final = 1.0 + 1e-9
"""For the rounding of what an option is worth at most."""
ROUNDING: Final = 8.0 * float(np.finfo(np.float64).eps)
"""Share of the present values that float64's rounding may take, see `rounding_bound`."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """A batch in reduced variables; all of shape (n,).

    `asset` = S·e^{−qT} and `cash` = K·e^{−rT} are present values in currency, `scale` = D·√(FK) = √(asset·cash);
    `x` = ln(F/K), `w` = σ²T, `s` = √w and `y` = |x|/s are dimensionless; y is infinite, or 0 at the money, where w = 0.
    `exercised` is True where the intrinsic value belongs to the option's own side (call with x ≥ 0, put with x < 0).
    """

    asset: FloatArray
    cash: FloatArray
    scale: FloatArray
    x: FloatArray
    w: FloatArray
    s: FloatArray
    y: FloatArray
    exercised: BoolArray


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """Price in currency and Greeks in the units of `Quotes`, all of shape (n,)."""

    price: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray
    rho: FloatArray


_NO_VARIANCE = 1e-100
"""A σ√T below this moves no price by as much as float64 can show, and a gamma of 1/(S·σ√T) would overflow."""


def reduce(batch: OptionBatch) -> Reduced:
    """The reduced variables of a batch. Exact: no rounding beyond float64's own."""
    maturity = batch.maturity
    s = batch.volatility * np.sqrt(maturity)
    s = np.where(s < _NO_VARIANCE, 0.0, s)
    x = np.log(batch.spot / batch.strike) + (batch.rate - batch.dividend) * maturity
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y = np.abs(x) / s
    with np.errstate(under="ignore", over="ignore"):
        asset = batch.spot * np.exp(-batch.dividend * maturity)
        cash = batch.strike * np.exp(-batch.rate * maturity)
        w = s * s
    return Reduced(
        asset=asset,
        cash=cash,
        scale=np.sqrt(asset) * np.sqrt(cash),
        x=x,
        w=w,
        s=s,
        y=np.where(np.isnan(y), 0.0, y),
        exercised=(x >= 0.0) == batch.is_call,
    )


def rounding_bound(batch: OptionBatch, reduced: Reduced) -> FloatArray:
    """How far float64 rounding alone may move a price, in currency.

    Present values carry a few units in the last place; d price/dx is at most `asset`, and x has an error of a few
    eps·(1 + |ln(S/K)| + |rT| + |qT|).
    """
    digits = 1.0 + np.abs(reduced.x) + (np.abs(batch.rate) + np.abs(batch.dividend)) * batch.maturity
    return ROUNDING * (reduced.asset + reduced.cash) * digits


def cap_bound(batch: OptionBatch, price: FloatArray, error_bound: FloatArray) -> None:
    """Lower bounds that say nothing, in place; all of shape (n,), in currency.

    Present values that differ by dozens of orders of magnitude leave a rounding bound far above what the option can be
    worth. A call is worth no more than A = S·e^{−qT} and a put no more than B = K·e^{−rT}, so no price within that is
    wrong by more.
    """
    wide = (error_bound > batch.strike) & (error_bound > price)
    if wide.any():
        with np.errstate(over="ignore"):
            asset = batch.spot[wide] * np.exp(-batch.dividend[wide] * batch.maturity[wide])
            cash = batch.strike[wide] * np.exp(-batch.rate[wide] * batch.maturity[wide])
        most = np.maximum(price[wide], np.where(batch.is_call[wide], asset, cash)) * MOST
        error_bound[wide] = np.minimum(error_bound[wide], most)


def assemble(
    batch: OptionBatch,
    reduced: Reduced,
    *,
    time_value: FloatArray,
    asset_part: FloatArray,
    cash_part: FloatArray,
    time_part: FloatArray,
) -> Sensitivities:
    """The chain rule from the time value V = √(AB)·u(ln(A/B), w), A = S·e^{−qT}, B = K·e^{−rT}, to price and Greeks.

    `asset_part` = A·∂V/∂A = √(AB)·(u/2 + u_x), `cash_part` = B·∂V/∂B = √(AB)·(u/2 − u_x) and
    `time_part` = ∂V/∂w = √(AB)·u_w; all of shape (n,), in currency.
    """
    side = np.where(batch.is_call, 1.0, -1.0) * reduced.exercised
    asset_value = asset_part + side * reduced.asset
    cash_value = cash_part - side * reduced.cash
    return Sensitivities(
        price=np.maximum(side * (reduced.asset - reduced.cash), 0.0) + time_value,
        delta=asset_value / batch.spot,
        # S²·∂²V/∂S² = √(AB)·(u_xx − u/4), and the equation makes that 2·√(AB)·u_w.
        gamma=2.0 * time_part / (batch.spot * batch.spot),
        vega=2.0 * batch.volatility * batch.maturity * time_part,
        theta=batch.dividend * asset_value + batch.rate * cash_value - batch.volatility**2 * time_part,
        rho=-batch.maturity * cash_value,
    )


def from_network(
    batch: OptionBatch, reduced: Reduced, *, n: FloatArray, n_y: FloatArray, n_w: FloatArray
) -> Sensitivities:
    """Price and Greeks from N and its first derivatives at (y, w); needs w > 0.

    u_x = sgn(x)·φ·(N_y − y·N),  u_w = φ/(2s)·[N + 2w·N_w − y·(N_y − y·N)],  u_xx = 2u_w + u/4.
    Taking u_xx from the equation makes gamma ten times more accurate than a second differentiation of the network.
    """
    slope = n_y - reduced.y * n
    density = normal_density(reduced.y)
    u = reduced.s * density * n
    u_x = np.where(reduced.x >= 0.0, density, -density) * slope
    u_w = density / (2.0 * reduced.s) * (n + 2.0 * reduced.w * n_w - reduced.y * slope)
    return assemble(
        batch,
        reduced,
        time_value=reduced.scale * u,
        asset_part=reduced.scale * (0.5 * u + u_x),
        cash_part=reduced.scale * (0.5 * u - u_x),
        time_part=reduced.scale * u_w,
    )


def intrinsic_only(batch: OptionBatch, reduced: Reduced) -> Sensitivities:
    """Price and Greeks without variance: the limit w → 0 from above.

    At the money forward (x = 0) delta, theta and rho are the means of both sides and vega is its limit √(AB)·√T·φ(0).
    Gamma, a point mass there, and the decay in theta, unbounded there, are given the values they have beside it.
    """
    at_kink = reduced.x == 0.0
    half = np.where(batch.is_call, 0.5, -0.5)
    # Half the difference between the two sides, to be taken from the side that `exercised` chose.
    shift = np.where(at_kink, half - np.where(batch.is_call, 1.0, -1.0) * reduced.exercised, 0.0)
    zero = np.zeros_like(reduced.x)
    values = assemble(
        batch,
        reduced,
        time_value=zero,
        asset_part=shift * reduced.asset,
        cash_part=-shift * reduced.cash,
        time_part=zero,
    )
    return replace(values, vega=np.where(at_kink, INV_SQRT_2PI * reduced.scale * np.sqrt(batch.maturity), values.vega))
