"""The American model's networks: the exercise boundary, the early exercise premium above it, what it owes to rates.

A put in units of its strike, with x = ln(S/K), s = σ√T, w = s², κ = 2r/σ² and λ = 2q/σ², is worth 1 − eˣ for x ≤ b and
the European value plus a premium e(x, s, κ, λ) above. The forms carry what is known exactly, so that the networks learn
only what is not:

    b = −s·softplus(ln(λ/κ)/s) − s·exp(B),              B = perceptron of five features of (s, κ, λ);
    e = e_b·exp(−z·[R₀ + z·(G₀·(1 − t) + t/2) + t·P]),   z = (x − b)/s, t = z/(1 + z), P = perceptron of eight features.

    e_κ = w/2·Φ(n₂ − z)/Φ(n₂)·(c + t·P_κ),   e_λ = −w/2·eˣ·Φ(n₁ − z)/Φ(n₁)·(a + t·P_λ).

The first term of b is, smoothed over a width of s, the boundary at expiry ln min(1, κ/λ). e_b = 1 − eᵇ − v(b) makes the
value meet the payoff at b; R₀ makes its slope meet the payoff's (smooth pasting), and G₀ gives it the curvature
κ − λeᵇ − eᵇ − v_xx(b) that the pricing equation demands there; v is the European value. Far out the premium decays
like exp(−z²/2).

The derivatives by κ and λ, on which rho and a part of vega rest, have perceptrons P_κ and P_λ of the premium's
features. A short or lightly carried option owes little to its rates: an error of its value that means nothing is,
divided by that little, an error of its rho that does. What they start from at the boundary is exact: the whole value
there is the payoff, which no rate moves, so that e_κ = −v_κ and e_λ = −v_λ, with c = e^{−κw/2}·Φ(−d₂) and
a = e^{−λw/2}·Φ(−d₁) at b. Far out both fade with the chance to come down to where the boundary ends:
n₂ = L − s·(κ − λ − 1)/2 and n₁ = n₂ − s, with L = exp(B). For the same reason they have a perceptron of their own for
B: a boundary that is right to some 1e-4 of the strike is right enough for a value, which is flat there, and not for
what changes over a width of s.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from pinn_inference.pricing.algebra import Algebra, Number
from pinn_inference.pricing.mills import INV_SQRT_2PI
from pinn_inference.pricing.network import Layer
from pinn_inference.pricing.types import FloatArray

BOUNDARY_INPUTS: Final = 5
PREMIUM_INPUTS: Final = 8
_NO_DIVIDEND: Final = 1e-6
"""Added to λ/κ in the boundary's first term, whose slope vanishes with λ."""
_SMALL_RATIO: Final = 0.005
"""Added to λ/κ in the feature of it: what is smaller makes no difference, and must have no steep slope."""


@dataclass(frozen=True, slots=True)
class AmericanDomain:
    """Where the networks were trained, in the variables of this module: s_min ≤ s ≤ s_max, κ_min ≤ κ ≤ κ_max,
    0 ≤ λ ≤ κ_max, and κw/2 = rT and λw/2 = qT at most `carry_max`. Beyond z_max the premium is nothing.

    With σ = 20 % κ = 50·r: rates from 0.04 % to 32 %, maturities from four days to 27 years.
    """

    s_min: float = 0.02
    s_max: float = 1.05
    kappa_min: float = 0.02
    kappa_max: float = 16.0
    carry_max: float = 0.4
    z_max: float = 8.0


@dataclass(frozen=True, slots=True)
class AmericanNetworks:
    """Weights of the perceptrons and the domain they were trained on."""

    boundary: tuple[Layer, ...]
    premium: tuple[Layer, ...]
    lag: tuple[Layer, ...]
    rate: tuple[Layer, ...]
    dividend: tuple[Layer, ...]
    domain: AmericanDomain


@dataclass(frozen=True, slots=True)
class AtBoundary:
    """What is known at x = b: the premium e_b there and the first two coefficients of −ln(e/e_b) in powers of z."""

    premium: Number
    slope: Number
    curvature: Number


def shapes(inputs: int, hidden: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of every layer of a perceptron with one output."""
    return tuple(pairwise((inputs, *hidden, 1)))


def parameter_count(inputs: int, hidden: tuple[int, ...]) -> int:
    return sum((rows + 1) * columns for rows, columns in shapes(inputs, hidden))


def layers_from_vector(vector: FloatArray, inputs: int, hidden: tuple[int, ...]) -> tuple[Layer, ...]:
    """The layers whose parameters lie in `vector`, each kernel row-major before its bias."""
    layers, start = [], 0
    for rows, columns in shapes(inputs, hidden):
        end = start + rows * columns
        layers.append(Layer(vector[start:end].reshape(rows, columns).copy(), vector[end : end + columns].copy()))
        start = end + columns
    return tuple(layers)


def boundary_features(algebra: Algebra, s: Number, kappa: Number, lambda_: Number) -> tuple[list[Number], Number]:
    """The five inputs of the boundary's perceptron, each about within [−1, 1], and ln(λ/κ).

    The fourth tells on which side of κ = λ an option is, on the scale s over which the boundary changes there.
    """
    log_kappa = algebra.log(kappa)
    share = lambda_ / kappa
    side = algebra.log(share + _SMALL_RATIO) / (2.0 * s)
    features = [
        (algebra.log(s) + 3.4) / 3.5,
        (log_kappa + 0.35) / 3.6,
        2.0 * lambda_ / (lambda_ + kappa) - 1.0,
        side / algebra.sqrt(side * side + 1.0),
        algebra.log(lambda_ + 1.0) / 1.6 - 1.0,
    ]
    return features, algebra.log(share + _NO_DIVIDEND)


def boundary_from_output(algebra: Algebra, s: Number, ratio: Number, output: Number) -> Number:
    """b from the perceptron's output B."""
    return -s * algebra.softplus(ratio / s) - s * algebra.exp(output)


def at_boundary(algebra: Algebra, b: Number, s: Number, kappa: Number, lambda_: Number) -> AtBoundary:
    """Value matching, smooth pasting and the pricing equation at x = b, see the module's docstring."""
    w = s * s
    upper = b / s + 0.5 * s * (kappa - lambda_ + 1.0)
    payoff_asset = algebra.exp(b)
    asset = payoff_asset * algebra.exp(-0.5 * lambda_ * w)
    cash = algebra.exp(-0.5 * kappa * w)
    slope = -asset * algebra.normal_distribution(-upper)
    value = cash * algebra.normal_distribution(s - upper) + slope
    density = algebra.exp(-0.5 * upper * upper) * INV_SQRT_2PI
    curvature = slope + asset * density / s
    premium = 1.0 - payoff_asset - value
    first = s * (payoff_asset + slope) / premium
    second = kappa - (lambda_ + 1.0) * payoff_asset - curvature
    return AtBoundary(premium, first, 0.5 * (first * first - w * second / premium))


def european_put(algebra: Algebra, x: Number, s: Number, kappa: Number, lambda_: Number) -> Number:
    """The European put in units of its strike (Black and Scholes 1973, Merton 1973)."""
    w = s * s
    upper = x / s + 0.5 * s * (kappa - lambda_ + 1.0)
    cash = algebra.exp(-0.5 * kappa * w) * algebra.normal_distribution(s - upper)
    return cash - algebra.exp(x - 0.5 * lambda_ * w) * algebra.normal_distribution(-upper)


def premium_features(
    algebra: Algebra, features: list[Number], b: Number, t: Number, s: Number, kappa: Number, lambda_: Number
) -> list[Number]:
    """The eight inputs of the premium's perceptron."""
    drift = 0.25 * s * (kappa - lambda_)
    return [*features, 2.0 * t - 1.0, algebra.log(-b / s) / 1.5, drift / algebra.sqrt(drift * drift + 1.0)]


def boundary(algebra: Algebra, networks: AmericanNetworks, s: Number, kappa: Number, lambda_: Number) -> Number:
    """b(s, κ, λ) = ln(boundary/strike), negative."""
    features, ratio = boundary_features(algebra, s, kappa, lambda_)
    return boundary_from_output(algebra, s, ratio, algebra.perceptron(networks.boundary, features))


def premium(
    algebra: Algebra, networks: AmericanNetworks, x: Number, s: Number, kappa: Number, lambda_: Number
) -> tuple[Number, Number]:
    """(e, b): the premium in units of the strike and the boundary; e is meaningful for x ≥ b only."""
    features, ratio = boundary_features(algebra, s, kappa, lambda_)
    b = boundary_from_output(algebra, s, ratio, algebra.perceptron(networks.boundary, features))
    known = at_boundary(algebra, b, s, kappa, lambda_)
    z = (x - b) / s
    t = z / (z + 1.0)
    output = algebra.perceptron(networks.premium, premium_features(algebra, features, b, t, s, kappa, lambda_))
    decay = z * (known.slope + z * (known.curvature * (1.0 - t) + 0.5 * t) + t * output)
    return known.premium * algebra.exp(-decay), b


def premium_gradient(
    algebra: Algebra, networks: AmericanNetworks, x: Number, s: Number, kappa: Number, lambda_: Number
) -> tuple[Number, Number, Number, Number, Number, Number]:
    """(e, e_x, e_s, e_κ, e_λ, b): `premium` with its first derivatives; those by κ and λ have perceptrons of their own.

    By x and s it is the chain rule written out: forward over s, on which everything at the boundary depends, with the
    perceptrons' own gradients taken backwards. A name with an underscore at its end and a letter is a derivative: b_s
    is ∂b/∂s.
    """
    exp, sqrt, distribution = algebra.exp, algebra.sqrt, algebra.normal_distribution
    features, ratio = boundary_features(algebra, s, kappa, lambda_)
    side = algebra.log(lambda_ / kappa + _SMALL_RATIO) / (2.0 * s)
    root = 1.0 / (side * side + 1.0)
    # Derivatives by s of the features that have one.
    first_s, fourth_s = (1.0 / 3.5) / s, -side * root * sqrt(root) / s

    output, of = algebra.perceptron_gradient(networks.boundary, features)
    scaled = ratio / s
    reach = s * exp(output)
    b = -s * algebra.softplus(scaled) - reach
    b_s = b / s + algebra.sigmoid(scaled) * scaled - reach * (of[0] * first_s + of[3] * fourth_s)

    w = s * s
    tilt = kappa - lambda_ + 1.0
    upper = b / s + 0.5 * s * tilt
    payoff_asset = exp(b)
    asset = payoff_asset * exp(-0.5 * lambda_ * w)
    spread = asset * exp(-0.5 * upper * upper) * INV_SQRT_2PI
    tail = asset * distribution(-upper)
    cash = exp(-0.5 * kappa * w) * distribution(s - upper)
    peak = spread / s
    known = 1.0 - payoff_asset - cash + tail
    inverse = 1.0 / known
    pasting = payoff_asset - tail
    bending = kappa - (lambda_ + 1.0) * payoff_asset + tail - peak
    slope = s * pasting * inverse
    bulge = w * bending * inverse
    curvature = 0.5 * (slope * slope - bulge)

    z = (x - b) / s
    t = z / (z + 1.0)
    drift = 0.25 * s * (kappa - lambda_)
    drift_root = 1.0 / (drift * drift + 1.0)
    drift_s = 0.25 * drift_root * sqrt(drift_root) * (kappa - lambda_)
    inputs = [*features, 2.0 * t - 1.0, algebra.log(-b / s) * (1.0 / 1.5), drift * sqrt(drift_root)]
    output, of = algebra.perceptron_gradient(networks.premium, inputs)
    rest = 1.0 - t
    level = curvature * rest + 0.5 * t
    decay = z * (slope + z * level + t * output)
    e = known * exp(-decay)
    decay_z = (
        slope + t * output + 2.0 * z * level + rest * rest * z * (z * (0.5 - curvature) + output + 2.0 * t * of[5])
    )
    e_x = -e * decay_z / s

    upper_s = b_s / s + 0.5 * tilt - b / w
    exponent_s = b_s - lambda_ * s
    tail_s = tail * exponent_s - spread * upper_s
    cash_s = -cash * kappa * s - spread * (upper_s - 1.0)
    payoff_s = payoff_asset * b_s
    known_s = (tail_s - payoff_s - cash_s) * inverse
    peak_s = peak * (exponent_s - upper * upper_s - 1.0 / s)
    slope_s = slope * (1.0 / s - known_s) + s * inverse * (payoff_s - tail_s)
    bending_s = tail_s - (lambda_ + 1.0) * payoff_s - peak_s
    bulge_s = bulge * (2.0 / s - known_s) + w * inverse * bending_s
    curvature_s = slope * slope_s - 0.5 * bulge_s
    z_s = -(b_s + z) / s
    output_s = of[0] * first_s + of[3] * fourth_s + of[6] * (1.0 / 1.5) * (b_s / b - 1.0 / s) + of[7] * drift_s
    e_s = e * (known_s - decay_z * z_s - z * (slope_s + z * rest * curvature_s + t * output_s))

    lag = exp(algebra.perceptron(networks.lag, features))
    carried = carry_form(algebra, features, ratio, lag, x, s, kappa, lambda_)
    by_rate = algebra.perceptron(networks.rate, carried.inputs)
    by_dividend = algebra.perceptron(networks.dividend, carried.inputs)
    e_kappa = 0.5 * w * carried.cash_fade * (carried.cash + carried.t * by_rate)
    e_lambda = -0.5 * w * exp(x) * carried.asset_fade * (carried.asset + carried.t * by_dividend)
    return e, e_x, e_s, e_kappa, e_lambda, b


@dataclass(frozen=True, slots=True)
class CarryForm:
    """What e_κ and e_λ are made of beside the outputs of their perceptrons: the inputs of these, t, c, a and the two
    quotients of Φ.
    """

    inputs: list[Number]
    t: Number
    cash: Number
    asset: Number
    cash_fade: Number
    asset_fade: Number


def carry_form(
    algebra: Algebra,
    features: list[Number],
    ratio: Number,
    lag: Number,
    x: Number,
    s: Number,
    kappa: Number,
    lambda_: Number,
) -> CarryForm:
    """The form of e_κ and e_λ at x, for a boundary at −s·softplus(ratio/s) − s·lag, or at x if that is lower."""
    exp, distribution = algebra.exp, algebra.normal_distribution
    b = -s * algebra.softplus(ratio / s) - s * lag
    z = (x - b) / s
    z = 0.5 * (z + abs(z))
    t = z / (z + 1.0)
    half_w = 0.5 * s * s
    upper = x / s - z + 0.5 * s * (kappa - lambda_ + 1.0)
    middle = lag - 0.5 * s * (kappa - lambda_)
    cash_near, asset_near = middle + 0.5 * s, middle - 0.5 * s
    return CarryForm(
        inputs=premium_features(algebra, features, b, t, s, kappa, lambda_),
        t=t,
        cash=exp(-kappa * half_w) * distribution(s - upper),
        asset=exp(-lambda_ * half_w) * distribution(-upper),
        cash_fade=distribution(cash_near - z) / distribution(cash_near),
        asset_fade=distribution(asset_near - z) / distribution(asset_near),
    )


def inside(domain: AmericanDomain, s: Number, kappa: Number, lambda_: Number) -> Any:
    """Which options lie in the trained domain: booleans of shape (n,) for columns, one for floats."""
    half = 0.5 * s * s
    with np.errstate(invalid="ignore", over="ignore"):
        carried = (kappa * half <= domain.carry_max) & (lambda_ * half <= domain.carry_max)
    return (
        carried
        & (s >= domain.s_min)
        & (s <= domain.s_max)
        & (kappa >= domain.kappa_min)
        & (kappa <= domain.kappa_max)
        & (lambda_ >= 0.0)
        & (lambda_ <= domain.kappa_max)
    )
