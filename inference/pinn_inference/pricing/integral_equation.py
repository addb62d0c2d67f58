"""American options without a network: the integral equation of the exercise boundary, solved by Newton's method.

For a put in units of its strike, with x = ln(S/K), w = σ²T, s = √w, κ = 2r/σ² and λ = 2q/σ², the value in the
continuation region x > b(w) is the European value plus the early exercise premium (Kim 1990; Carr, Jarrow and Myneni
1992)

    e(x, w) = ∫₀ʷ [κ/2·e^{−κu/2}·Φ(−d₂(x − b(w−u), u)) − λ/2·e^{x−λu/2}·Φ(−d₁(x − b(w−u), u))] du,
    d₁,₂(y, u) = (y + (κ − λ)·u/2 ± u/2)/√u.

On the boundary the value is the payoff 1 − e^b, which gives an equation for b alone: N = e^b·D for every w, with

    N = e^{−κw/2}·Φ(d₂(b, w)) + κ/2·∫₀ʷ e^{−κu/2}·Φ(d₂(b − b(w−u), u)) du,
    D = e^{−λw/2}·Φ(d₁(b, w)) + λ/2·∫₀ʷ e^{−λu/2}·Φ(d₁(b − b(w−u), u)) du

(Andersen, Lake and Offengenden 2016, who call it FP-B and whose transform H = (ln X − b)², X = min(1, κ/λ), is used
here too). H is a polynomial through Chebyshev–Lobatto nodes. ln N = b + ln D is solved at all nodes at once by Newton's
method, four or five steps, from the boundary of Barone-Adesi and Whaley (1987). Linearised at its solution it gives
∂b/∂κ and ∂b/∂λ too, so that every Greek is a derivative of the formula: no step size, and no digit lost to one.

Two substitutions keep the work small where scales differ widely. Integrals run over θ with u = w·sin²θ, which takes the
square roots out of both ends. The boundary moves by ln X − b(∞) within a time of about that squared, be it days or a
millionth of them; nodes and θ are packed towards 0 by sinh(a·t)/sinh(a) with a chosen from s/(ln X − b(∞)).

Error bound. A computed boundary that satisfies its equation up to m misses the price by at most m: the price it gives,
minus what exercising at it earns, solves the pricing equation with that mismatch on the boundary; and raised by m it
dominates the payoff. The mismatch is taken between the nodes, where it is largest, with twice the quadrature points.
Rows whose bound is above `_GOAL` are solved again on finer grids and the best solution is kept.

Calls are puts with spot and strike, rate and dividend exchanged (McDonald and Schroder 1998).

Measured, over options of a week to five years with 5 to 80 % volatility: half of the prices are right to 1e-12 of the
strike and all to 5e-9, delta to 1e-7, boundaries to 1e-5 of themselves; the bound, 1e-7 or less, is mostly a thousand
times the error. A thousand such options take a second on one core; the wildest that a request may ask for take 10 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray

from pinn_inference.pricing import backward_induction, closed_form
from pinn_inference.pricing.american_domain import has_two_boundaries, put_rates
from pinn_inference.pricing.mills import normal_density, normal_distribution
from pinn_inference.pricing.reduction import ROUNDING
from pinn_inference.pricing.types import BoolArray, FallbackReason, FloatArray, Method, OptionBatch, Quotes

_GOAL: Final = 1e-7
"""A row whose error bound is above this share of the strike is solved again on a finer grid."""
_NO_VARIANCE: Final = 1e-8
"""Below this σ√T the boundary is nearer to its limit than float64 can say: the option is priced without variance."""
_NEWTON_STEPS: Final = 14
_CHUNK_POINTS: Final = 16_384  # of an integrand: what the processor's cache holds
_PREMIUM_POINTS: Final = 96
_PREMIUM_PACKING: Final = 6.0
_NEAREST: Final = 1e-7
"""Distances from the boundary, in units of s, below which the premium is that at the boundary."""
_TINY: Final = 1e-300
_MAX_STRETCH: Final = 24


@dataclass(frozen=True, slots=True)
class PutTerms:
    """American puts in units of their strikes; all of shape (n,): x = ln(S/K), s = σ√T > 0, `kappa` = 2r/σ² ≥ 0 and
    `lambda_` = 2q/σ², not both 0 and, where `kappa` is 0, `lambda_` < 0: others are never exercised early.
    """

    x: FloatArray
    s: FloatArray
    kappa: FloatArray
    lambda_: FloatArray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: slice | BoolArray | NDArray[np.intp]) -> PutTerms:
        return PutTerms(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class Premium:
    """Early exercise premium in units of the strike and its derivatives, each of shape (n,).

    `value` and its derivatives `by_x`, `by_w`, `by_kappa` and `by_lambda`, each with the other three held, at x or, for
    a put below it, at `boundary` = ln(exercise boundary/strike). `error_bound` bounds |error of `value`|.
    """

    value: FloatArray
    by_x: FloatArray
    by_w: FloatArray
    by_kappa: FloatArray
    by_lambda: FloatArray
    boundary: FloatArray
    error_bound: FloatArray


def price(batch: OptionBatch, *, reason: FallbackReason = FallbackReason.NONE) -> Quotes:
    """Prices, Greeks and exercise boundaries; every row is taken as American. `reason` is written into every row.

    Where exercise at once is optimal the price is the intrinsic value, delta ±1 and every other Greek 0. Rows that are
    never exercised early are European and say so: method CLOSED_FORM, boundary 0 (put) or infinite (call). Without
    variance the price is the best that exercising on the forward path earns. At maturity 0 the boundary is the strike.
    Rows with two boundaries, and those that wait for dividends of known amounts, are left to `backward_induction`.
    """
    spread = batch.volatility * np.sqrt(batch.maturity)
    moving = batch.waits_for_dividends | (has_two_boundaries(batch) & (spread >= _NO_VARIANCE))
    if moving.any():
        parts = [(moving, backward_induction.price(batch.take(moving), reason=reason))]
        if not moving.all():
            parts.append((~moving, price(batch.take(~moving), reason=reason)))
        return Quotes.assembled(len(batch), parts)
    quotes = _writable(closed_form.price(batch, reason=reason))
    put_rate, put_dividend = put_rates(batch)
    early = (batch.maturity > 0.0) & ((put_rate > 0.0) | (put_dividend < put_rate))
    ended = batch.maturity == 0.0
    quotes.exercise_boundary[:] = np.where(ended, batch.strike, np.where(batch.is_call, np.inf, 0.0))
    quotes.method[ended] = Method.INTEGRAL_EQUATION
    quotes.theta[ended] = np.minimum(quotes.theta[ended], 0.0)  # what would gain by ending later is exercised instead
    for rows, pricer in (
        (early & (spread < _NO_VARIANCE), _without_variance),
        (early & (spread >= _NO_VARIANCE), _early),
    ):
        if rows.any():
            chosen = quotes.take(rows)
            with np.errstate(all="ignore"):
                pricer(batch.take(rows), chosen)
            for column in fields(Quotes):
                getattr(quotes, column.name)[rows] = getattr(chosen, column.name)
            quotes.method[rows] = Method.INTEGRAL_EQUATION
    return quotes


def early_exercise(puts: PutTerms, *, goal: float = _GOAL) -> Premium:
    """Early exercise premiums, to a bound of `goal` or the lowest that the grids give: `error_bound` says which."""
    with np.errstate(all="ignore"):
        return _early_exercise(puts, goal)


def _early_exercise(puts: PutTerms, goal: float) -> Premium:
    result = Premium(*(np.zeros(len(puts)) for _ in fields(Premium)))
    result.error_bound[:] = np.inf
    stretches = _Scales.of(puts).stretch(puts.s)
    for resolution in _LADDER:
        bound = result.error_bound
        open_rows = np.flatnonzero(~(bound <= goal) & ~(bound > resolution.reach))
        for stretch, rows in _chunks(open_rows, stretches[open_rows], resolution):
            found = _premium(puts.take(rows), resolution, stretch)
            better = ~(found.error_bound >= bound[rows])
            for column in fields(Premium):
                getattr(result, column.name)[rows[better]] = getattr(found, column.name)[better]
    return replace(result, error_bound=np.minimum(result.error_bound, 1.0))


# --- grids ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Resolution:
    """Nodes of the boundary and quadrature points of its equation, and from which error bound it reaches `_GOAL`."""

    nodes: int
    points: int
    reach: float = np.inf


_LADDER: Final = (_Resolution(16, 24), _Resolution(24, 32, 1e-6), _Resolution(32, 48, 1e-5), _Resolution(48, 64))


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where p equations are posed and how their integrals are summed, for w = 1 and a boundary held at n nodes.

    `root` (p,) = √w of each equation. Its integral over u has m points √u = root·`sine` and weights root²·`weight`,
    both (m,) or, where each option has points of its own, (options, 1, m). The boundary is needed at √(w − u) =
    `before` (…, p, m). From the values of H at the nodes `at` (p, n) makes those at the equations and `at_before`
    (…, p, m, n) those at `before`.
    """

    root: FloatArray
    sine: FloatArray
    weight: FloatArray
    before: FloatArray
    at: FloatArray
    at_before: FloatArray

    def along(self, at_nodes: FloatArray) -> FloatArray:
        """The polynomial through (options, n) values at the nodes, at the points: (options, p, m)."""
        if self.at_before.ndim == 4:
            own: FloatArray = np.matmul(self.at_before, at_nodes[:, None, :, None])
            return own[..., 0]
        equations, points, nodes = self.at_before.shape
        return (at_nodes @ self.at_before.reshape(-1, nodes).T).reshape(-1, equations, points)

    def gather(self, by_point: FloatArray) -> FloatArray:
        """From derivatives by the polynomial at each point (options, p, m) to those by its nodes (options, p, n)."""
        if self.at_before.ndim == 4:
            own: FloatArray = np.matmul(by_point[:, :, None, :], self.at_before)
            return own[:, :, 0]
        by_node: FloatArray = np.matmul(by_point.transpose(1, 0, 2), self.at_before)
        return by_node.transpose(1, 0, 2)


@lru_cache(maxsize=256)
def _rule(nodes: int, stretch: int, points: int, *, between: bool = False) -> _Rule:
    """Equations at the nodes, or `between` them and at w = 1; points packed towards u = 0."""
    k = np.arange(nodes)
    t = 0.5 + 0.5 * np.cos(np.pi * k / nodes)
    if between:
        t = np.append(0.5 + 0.5 * np.cos(np.pi * (k + 0.5) / nodes), 1.0)
    theta, d_theta = _packed(points, np.zeros(1), 0.5 * np.pi / np.sinh(_packing(stretch)))
    return _rule_of(nodes, stretch, t, theta[0], d_theta[0])


def _rule_of(nodes: int, stretch: int, t: FloatArray, theta: FloatArray, d_theta: FloatArray) -> _Rule:
    root = np.sinh(stretch * t) / np.sinh(stretch)
    before = root[:, None] * np.cos(theta)
    t_before = np.arcsinh(before * np.sinh(stretch)) / stretch
    return _Rule(
        root=root,
        sine=np.sin(theta),
        weight=2.0 * np.sin(theta) * np.cos(theta) * d_theta,
        before=before,
        at=_polynomial(nodes, t),
        at_before=_polynomial(nodes, t_before),
    )


def _polynomial(nodes: int, t: FloatArray) -> FloatArray:
    """From values at the nodes to values at t, shape (…,): (…, nodes)."""
    return chebyshev.chebvander(2.0 * t - 1.0, nodes) @ _to_coefficients(nodes)


@lru_cache
def _to_coefficients(nodes: int) -> FloatArray:
    """From values at the nodes to Chebyshev coefficients. The last node, t = 0, has no column: H is 0 there."""
    t = np.cos(np.pi * np.arange(nodes + 1) / nodes)
    return np.linalg.inv(chebyshev.chebvander(t, nodes))[:, :-1].astype(np.float64)


@lru_cache
def _gauss(points: int) -> tuple[FloatArray, FloatArray]:
    """Gauss–Legendre points and weights on [0, 1], (points,)."""
    abscissas, weights = legendre.leggauss(points)
    return 0.5 + 0.5 * abscissas, 0.5 * weights


def _packed(points: int, centre: FloatArray, width: FloatArray | float) -> tuple[FloatArray, FloatArray]:
    """Points θ in (0, π/2) and weights, (n, points), packed about `centre` (n,) as a step of that `width` needs.

    Gauss–Legendre in t with θ = centre + width·sinh(low + (high − low)·t) (Johnston and Elliott 2005).
    """
    fraction, weight = _gauss(points)
    low, high = np.arcsinh(-centre / width)[:, None], np.arcsinh((0.5 * np.pi - centre) / width)[:, None]
    inner = low + (high - low) * fraction
    scale = np.reshape(width, (-1, 1))
    return centre[:, None] + scale * np.sinh(inner), scale * np.cosh(inner) * (high - low) * weight


def _packing(stretch: int) -> float:
    """How quadrature points are packed for boundaries stretched by `stretch`: measured, and not critical."""
    return max(1.0, 0.75 * stretch)


def _chunks(
    rows: NDArray[np.intp], stretches: NDArray[np.intp], resolution: _Resolution
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """The rows by their stretch, in pieces small enough for the cache."""
    size = max(1, _CHUNK_POINTS // (resolution.nodes * resolution.points))
    for stretch in np.unique(stretches).tolist():
        members = rows[stretches == stretch]
        for start in range(0, len(members), size):
            yield stretch, members[start : start + size]


# --- the boundary -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scales:
    """What is known of a boundary beforehand, all of shape (n,).

    It falls from `top` = ln min(1, κ/λ) at w = 0 to top − `depth` at w = ∞, the perpetual option's.
    """

    top: FloatArray
    depth: FloatArray

    @classmethod
    def of(cls, puts: PutTerms) -> _Scales:
        kappa, lambda_ = puts.kappa, puts.lambda_
        below = kappa < lambda_
        top = np.log(np.where(below, np.maximum(kappa, _TINY) / np.where(below, lambda_, 1.0), 1.0))
        theta = np.minimum(_negative_root(kappa - lambda_ - 1.0, kappa), -_TINY)
        # ln X − ln(θ/(θ − 1)), by the quadratic equation of θ, so that no digit is lost where both are nearly equal.
        depth = np.log1p(np.where(below, (1.0 - theta) / np.where(below, lambda_, 1.0), -1.0 / theta))
        return cls(top, depth)

    def take(self, rows: slice | BoolArray | NDArray[np.intp]) -> _Scales:
        return _Scales(self.top[rows], self.depth[rows])

    def top_sensitivities(self, puts: PutTerms) -> tuple[FloatArray, FloatArray]:
        """∂top/∂κ and ∂top/∂λ."""
        below = puts.kappa < puts.lambda_
        kappa, lambda_ = np.maximum(puts.kappa, _TINY), np.where(below, puts.lambda_, 1.0)
        return np.where(below, 1.0 / kappa, 0.0), np.where(below, -1.0 / lambda_, 0.0)

    def stretch(self, s: FloatArray) -> NDArray[np.intp]:
        """The even number that packs the nodes where the boundary moves; fitted to the least error over a wide grid."""
        decades = np.log10(np.maximum(s / self.depth, 1.0))
        stretch: NDArray[np.intp] = np.minimum(2.0 * np.rint(1.2 + 1.05 * decades), _MAX_STRETCH).astype(np.intp)
        return stretch


def _negative_root(m: FloatArray, product: FloatArray) -> FloatArray:
    """The root ≤ 0 of θ² + m·θ − product = 0, for product ≥ 0, without cancellation."""
    root = np.sqrt(m * m + 4.0 * product)
    return np.where(m >= 0.0, -0.5 * (m + root), -2.0 * product / np.maximum(root - m, _TINY))


@dataclass(frozen=True, slots=True)
class _Kernels:
    """What every integral is made of; arrays (n, p, m) for p equations posed at x (n, p) with m points each.

    `fall` = √H(w − u) = ln X − b(w − u), and `on_polynomial` where that is the polynomial's value, not the floor's;
    `root` = √u; `d2`, `d1` at (x − b(w−u), u); `cash` = e^{−κu/2}·du/2 and `asset` = e^{−λu/2}·du/2;
    `asset_flow` = λ·e^{b(w−u)} and `flow` = κ less that, what exercise earns; `density` = e^{−κu/2}·φ(d₂)/√u·du/2,
    which is also e^{x−b(w−u)}·e^{−λu/2}·φ(d₁)/√u·du/2. `end_…` (n, p) belong to the European part: u = w and strike 1.
    """

    fall: FloatArray
    on_polynomial: BoolArray
    root: FloatArray
    d1: FloatArray
    d2: FloatArray
    cash: FloatArray
    asset: FloatArray
    flow: FloatArray
    asset_flow: FloatArray
    density: FloatArray
    end_w: FloatArray
    end_d1: FloatArray
    end_d2: FloatArray
    end_cash: FloatArray
    end_asset: FloatArray


def _kernels(
    puts: PutTerms, scales: _Scales, rule: _Rule, falls: FloatArray, below_top: FloatArray, x: FloatArray
) -> _Kernels:
    """`falls` (n, nodes) = √H at the nodes; the equations are posed at `x` = ln X − `below_top`, both (n, p)."""
    raw = rule.along(falls * falls)
    # Between nodes a polynomial may fall below what any boundary is; there a floor stands in for it.
    floor = 0.05 * np.minimum(puts.s[:, None, None] * rule.before, scales.depth[:, None, None])
    floor = np.maximum(floor * floor, _TINY)
    fall = np.sqrt(np.maximum(raw, floor))
    kappa, lambda_ = puts.kappa[:, None, None], puts.lambda_[:, None, None]
    asset_flow = lambda_ * np.exp(scales.top[:, None, None] - fall)
    drift = 0.5 * (kappa - lambda_ - 1.0)
    end_root = puts.s[:, None] * rule.root
    end_w = end_root * end_root
    root = end_root[:, :, None] * rule.sine
    u = root * root
    half_du = 0.5 * end_w[:, :, None] * rule.weight
    d2 = (fall - below_top[:, :, None]) / root + drift * root
    cash = np.exp(-0.5 * kappa * u) * half_du
    end_d2 = x / end_root + drift[:, :, 0] * end_root
    return _Kernels(
        fall=fall,
        on_polynomial=raw > floor,
        root=root,
        d1=d2 + root,
        d2=d2,
        cash=cash,
        asset=np.exp(-0.5 * lambda_ * u) * half_du,
        flow=kappa - asset_flow,
        asset_flow=asset_flow,
        density=cash * normal_density(d2) / root,
        end_w=end_w,
        end_d1=end_d2 + end_root,
        end_d2=end_d2,
        end_cash=np.exp(-0.5 * puts.kappa[:, None] * end_w),
        end_asset=np.exp(-0.5 * puts.lambda_[:, None] * end_w),
    )


@dataclass(frozen=True, slots=True)
class _Balance:
    """How far a boundary is from its equation, at p of its points; (n, p): N, `logarithm` = ln(e^b·D/N) and
    `mismatch` = e^b·D − N, by which the value exceeds the payoff there.
    """

    n: FloatArray
    logarithm: FloatArray
    mismatch: FloatArray


def _balance(puts: PutTerms, kernels: _Kernels, b: FloatArray) -> _Balance:
    # N and D are 1 minus the same with Φ(−d) for Φ(d); whichever is free of cancellation is summed. λ < 0 needs the
    # second form, a boundary far below the strike the first.
    whole_d = (puts.kappa < puts.lambda_)[:, None]
    whole_n = whole_d | (puts.kappa * puts.s * puts.s < 1e-4)[:, None]
    side_n, side_d = np.where(whole_n, 1.0, -1.0), np.where(whole_d, 1.0, -1.0)
    n = kernels.end_cash * normal_distribution(side_n * kernels.end_d2) + puts.kappa[:, None] * np.sum(
        kernels.cash * normal_distribution(side_n[:, :, None] * kernels.d2), axis=2
    )
    d = kernels.end_asset * normal_distribution(side_d * kernels.end_d1) + puts.lambda_[:, None] * np.sum(
        kernels.asset * normal_distribution(side_d[:, :, None] * kernels.d1), axis=2
    )
    log_n = np.where(whole_n, np.log(np.maximum(n, _TINY)), np.log1p(-np.minimum(n, 1.0 - 1e-15)))
    log_d = np.where(whole_d, np.log(np.maximum(d, _TINY)), np.log1p(-np.minimum(d, 1.0 - 1e-15)))
    exercised = np.exp(b)
    return _Balance(
        n=np.exp(log_n),
        logarithm=b + log_d - log_n,
        mismatch=np.where(
            whole_n,
            exercised * np.where(whole_d, d, 1.0 - d) - n,
            n - exercised * d + np.expm1(b),
        ),
    )


def _solve(puts: PutTerms, scales: _Scales, rule: _Rule) -> FloatArray:
    """√H = ln X − b at the nodes (n, nodes), as near to the equation's solution as Newton's method comes."""
    falls = _first_guess(puts, scales, rule.root)
    rows = np.arange(len(puts))
    for _ in range(_NEWTON_STEPS):
        chosen, chosen_scales, fall = puts.take(rows), scales.take(rows), falls[rows]
        b = chosen_scales.top[:, None] - fall
        kernels = _kernels(chosen, chosen_scales, rule, fall, fall, b)
        balance = _balance(chosen, kernels, b)
        step = _newton_step(chosen, kernels, balance, rule, fall)
        # Halve no boundary's distance from its top in one step, nor double it.
        shorten = np.minimum(1.0, 0.6 / np.maximum(np.max(np.abs(step) / fall, axis=1), _TINY))
        falls[rows] = np.minimum(fall + shorten[:, None] * step, chosen_scales.depth[:, None])
        # Convergence is quadratic: the step just made took an error of 1e-9 to 1e-18.
        error = np.abs(balance.logarithm).max(axis=1)
        rows = rows[
            (error > 1e-9 * np.minimum(1.0, chosen_scales.depth)) & (np.abs(balance.mismatch).max(axis=1) > 1e-15)
        ]
        if len(rows) == 0:
            break
    return falls


def _newton_step(puts: PutTerms, kernels: _Kernels, balance: _Balance, rule: _Rule, falls: FloatArray) -> FloatArray:
    kappa = puts.kappa[:, None, None]
    inverse_n = 1.0 / np.maximum(balance.n, _TINY)
    inverse_a = inverse_n * np.exp(-balance.logarithm)  # 1/(e^b·D)
    by_before = kernels.density * (kappa * inverse_n[:, :, None] - kernels.asset_flow * inverse_a[:, :, None])
    end = kernels.end_cash * normal_density(kernels.end_d2) / np.sqrt(kernels.end_w)
    by_own = 1.0 + end * (inverse_a - inverse_n) - by_before.sum(axis=2)
    jacobian = -_through_nodes(by_before, kernels, rule, falls)
    diagonal = np.arange(falls.shape[1])
    jacobian[:, diagonal, diagonal] -= by_own
    return _linear_solve(jacobian, -balance.logarithm[:, :, None])[:, :, 0]


def _through_nodes(by_before: FloatArray, kernels: _Kernels, rule: _Rule, falls: FloatArray) -> FloatArray:
    """From derivatives by √H(w − u) at every point, (n, p, m), to derivatives by √H at the nodes, (n, p, nodes)."""
    per_square = np.where(kernels.on_polynomial, by_before / kernels.fall, 0.0)
    return rule.gather(per_square) * falls[:, None, :]


def _linear_solve(matrices: FloatArray, right: FloatArray) -> FloatArray:
    """Solutions of n linear systems; 0 where a system has none or is not finite: its option then keeps what it has."""
    sound = np.isfinite(matrices.sum(axis=(1, 2)) + right.sum(axis=(1, 2)))[:, None, None]
    matrices = np.where(sound, matrices, np.eye(matrices.shape[1]))
    right = np.where(sound, right, 0.0)
    try:
        solution = np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        solution = np.linalg.pinv(matrices) @ right
    return np.where(np.isfinite(solution), solution, 0.0)


def _first_guess(puts: PutTerms, scales: _Scales, root: FloatArray) -> FloatArray:
    """√H of the boundary of Barone-Adesi and Whaley at √w = s·`root` (nodes,), by bisection; (n, nodes)."""
    end_root = puts.s[:, None] * root
    w = end_root * end_root
    kappa, lambda_ = puts.kappa[:, None], puts.lambda_[:, None]
    drift = 0.5 * (kappa - lambda_ - 1.0)
    cash, asset = np.exp(-0.5 * kappa * w), np.exp(-0.5 * lambda_ * w)
    interest = -np.expm1(-0.5 * kappa * w)
    theta = _negative_root(2.0 * drift, np.where(interest > 0.0, kappa / np.maximum(interest, _TINY), 2.0 / w))
    per_theta = 1.0 / np.minimum(theta, -_TINY)
    low, high = np.zeros_like(w), np.broadcast_to(scales.depth[:, None], w.shape)
    for _ in range(16):
        fall = 0.5 * (low + high)
        b = scales.top[:, None] - fall
        d2 = b / end_root + drift * end_root
        held = asset * normal_distribution(-(d2 + end_root))
        gain = -np.expm1(b) - cash * normal_distribution(-d2) + np.exp(b) * (held + (1.0 - held) * per_theta)
        low, high = np.where(gain > 0.0, low, fall), np.where(gain > 0.0, fall, high)
    return 0.5 * (low + high)


# --- the premium ------------------------------------------------------------------------------------------------------


def _premium(puts: PutTerms, resolution: _Resolution, stretch: int) -> Premium:
    """The premium on one grid, whatever its error bound."""
    scales = _Scales.of(puts)
    rule = _rule(resolution.nodes, stretch, resolution.points)
    falls = _solve(puts, scales, rule)
    by_kappa, by_lambda = _boundary_sensitivities(puts, scales, rule, falls)

    between = _rule(resolution.nodes, stretch, 2 * resolution.points, between=True)
    fall = np.sqrt(np.maximum((falls * falls) @ between.at.T, _TINY))
    b = scales.top[:, None] - fall
    mismatch = _balance(puts, _kernels(puts, scales, between, falls, fall, b), b).mismatch

    # Below the boundary the formula means nothing: there the put is taken at it, and no quadrature enters the payoff.
    below_top = np.minimum(scales.top - puts.x, falls[:, 0])
    distance = falls[:, 0] - below_top
    centre, width = _step(puts, distance, stretch)
    fine, coarse = (
        _premium_from(
            puts,
            scales,
            _rule_of(resolution.nodes, stretch, np.ones(1), *(a[:, None] for a in _packed(points, centre, width))),
            falls,
            below_top[:, None],
            by_kappa,
            by_lambda,
        )
        for points in (_PREMIUM_POINTS, _PREMIUM_POINTS // 2)
    )
    bound = np.abs(mismatch).max(axis=1) + np.where(distance > 0.0, np.abs(fine.value - coarse.value), 0.0)
    half_w = 0.5 * puts.s * puts.s
    bound += ROUNDING * (1.0 + puts.kappa * half_w)
    # Exercise earns no more than the interest on the strike and what a negative dividend takes from a spot below it.
    most = -np.expm1(-puts.kappa * half_w) + np.maximum(-puts.lambda_, 0.0) * half_w
    return replace(
        fine,
        value=np.clip(np.nan_to_num(fine.value), 0.0, most),
        error_bound=np.where(np.isnan(bound), most, np.minimum(bound, most)),
    )


def _step(puts: PutTerms, distance: FloatArray, stretch: int) -> tuple[FloatArray, FloatArray]:
    """Where in θ the premium's integrand changes fastest, and within what width; (n,) each.

    Close to the boundary that is at u = 0, within √u of the `distance` x − b. Where the forward falls, λ + 1 > κ, it is
    at the time when the forward meets the boundary, within what the volatility moves it by then.
    """
    w = puts.s * puts.s
    fall = 0.5 * (puts.lambda_ + 1.0 - puts.kappa)
    meeting = np.clip(distance / np.where(fall > 0.0, fall, np.inf) / w, 0.0, 1.0)
    centre = np.arcsin(np.sqrt(meeting))
    steep = (meeting > 0.0) & (fall * puts.s * np.sqrt(meeting) > 3.0)
    # In u the width is √u/fall; u = w·sin²θ.
    width = np.sqrt(meeting) / (fall * puts.s) / np.maximum(np.sin(2.0 * centre), 0.05)
    packed = 0.5 * np.pi / np.sinh(max(_packing(stretch), _PREMIUM_PACKING))
    near = np.clip(0.5 * distance / puts.s, _NEAREST, packed)
    return np.where(steep, centre, 0.0), np.where(steep, width, near)


def _premium_from(
    puts: PutTerms,
    scales: _Scales,
    rule: _Rule,
    falls: FloatArray,
    below_top: FloatArray,
    falls_by_kappa: FloatArray,
    falls_by_lambda: FloatArray,
) -> Premium:
    """The premium at ln X − `below_top` of a boundary given by √H at the nodes and its derivatives there.

    `error_bound` is left at 0.
    """
    x = scales.top[:, None] - below_top
    kernels = _kernels(puts, scales, rule, falls, below_top, x)
    at_fixed = _at_fixed_boundary(puts, kernels, x)
    by_before = kernels.density * kernels.flow
    weights = _through_nodes(by_before, kernels, rule, falls)[:, 0]
    whole = by_before.sum(axis=(1, 2))

    def through(falls_change: FloatArray, top_change: FloatArray) -> FloatArray:
        """What a change of the boundary adds."""
        change: FloatArray = whole * top_change - np.sum(weights * falls_change, axis=1)
        return change

    value, by_x = at_fixed.value[:, 0], at_fixed.by_x[:, 0]
    bend = kernels.density * (kernels.flow * kernels.d2 / kernels.root + kernels.asset_flow)
    by_xx = by_x + whole + bend.sum(axis=(1, 2))
    top_by_kappa, top_by_lambda = scales.top_sensitivities(puts)
    return Premium(
        value=value,
        by_x=by_x,
        # The premium solves the pricing equation.
        by_w=0.5 * (by_xx + (puts.kappa - puts.lambda_ - 1.0) * by_x - puts.kappa * value),
        by_kappa=at_fixed.by_kappa[:, 0] + through(falls_by_kappa, top_by_kappa),
        by_lambda=at_fixed.by_lambda[:, 0] + through(falls_by_lambda, top_by_lambda),
        boundary=scales.top - falls[:, 0],
        error_bound=np.zeros_like(value),
    )


@dataclass(frozen=True, slots=True)
class _AtFixedBoundary:
    """The premium at p points and its derivatives while the boundary stays where it is, (n, p) each."""

    value: FloatArray
    by_x: FloatArray
    by_kappa: FloatArray
    by_lambda: FloatArray


def _at_fixed_boundary(puts: PutTerms, kernels: _Kernels, x: FloatArray) -> _AtFixedBoundary:
    kappa, lambda_ = puts.kappa[:, None], puts.lambda_[:, None]
    half_u = 0.5 * kernels.root * kernels.root
    cash = kernels.cash * normal_distribution(-kernels.d2)
    asset = np.exp(x)[:, :, None] * kernels.asset * normal_distribution(-kernels.d1)
    by_before = kernels.density * kernels.flow
    drift = np.sum(by_before * half_u, axis=2)
    return _AtFixedBoundary(
        value=kappa * cash.sum(axis=2) - lambda_ * asset.sum(axis=2),
        by_x=-by_before.sum(axis=2) - lambda_ * asset.sum(axis=2),
        by_kappa=np.sum(cash * (1.0 - kappa[:, :, None] * half_u), axis=2) - drift,
        by_lambda=drift - np.sum(asset * (1.0 - lambda_[:, :, None] * half_u), axis=2),
    )


def _boundary_sensitivities(
    puts: PutTerms, scales: _Scales, rule: _Rule, falls: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """∂√H/∂κ and ∂√H/∂λ at the nodes, (n, nodes) each: the mismatch stays 0 when κ or λ moves."""
    b = scales.top[:, None] - falls
    kernels = _kernels(puts, scales, rule, falls, falls, b)
    at_fixed = _at_fixed_boundary(puts, kernels, b)
    by_before = kernels.density * kernels.flow
    # Smooth pasting, N = Σ by_before, makes the derivative by the boundary's own value 0.
    jacobian = -_through_nodes(by_before, kernels, rule, falls)
    n = by_before.sum(axis=2)
    half_w = 0.5 * kernels.end_w
    european_by_kappa = -half_w * kernels.end_cash * normal_distribution(-kernels.end_d2)
    european_by_lambda = half_w * np.exp(b) * kernels.end_asset * normal_distribution(-kernels.end_d1)
    top_by_kappa, top_by_lambda = scales.top_sensitivities(puts)
    right = (
        european_by_kappa + at_fixed.by_kappa + n * top_by_kappa[:, None],
        european_by_lambda + at_fixed.by_lambda + n * top_by_lambda[:, None],
    )
    solution = _linear_solve(jacobian, -np.stack(right, axis=2))
    return solution[:, :, 0], solution[:, :, 1]


# --- quotes -----------------------------------------------------------------------------------------------------------


def _writable(quotes: Quotes) -> Quotes:
    return Quotes(*(np.array(getattr(quotes, column.name)) for column in fields(Quotes)))


def _early(batch: OptionBatch, quotes: Quotes) -> None:
    """Adds the premium to European `quotes`, in place; every row must have variance and be worth exercising early."""
    put_rate, put_dividend = put_rates(batch)
    variance_rate = batch.volatility * batch.volatility
    side = np.where(batch.is_call, -1.0, 1.0)
    unit = np.where(batch.is_call, batch.spot, batch.strike)
    puts = PutTerms(
        x=side * np.log(batch.spot / batch.strike),
        s=batch.volatility * np.sqrt(batch.maturity),
        kappa=2.0 * put_rate / variance_rate,
        lambda_=2.0 * put_dividend / variance_rate,
    )
    premium = early_exercise(puts)
    kappa, lambda_ = puts.kappa, puts.lambda_
    curvature = 2.0 * premium.by_w - (kappa - lambda_ - 1.0) * premium.by_x + kappa * premium.value
    by_log_volatility = 2.0 * (puts.s**2 * premium.by_w - kappa * premium.by_kappa - lambda_ * premium.by_lambda)
    by_rate = np.where(batch.is_call, premium.by_lambda, premium.by_kappa) * 2.0 / variance_rate
    by_log_spot = np.where(batch.is_call, premium.value - premium.by_x, premium.by_x)
    intrinsic = side * (batch.strike - batch.spot)
    low, high = np.where(batch.is_call, 0.0, -1.0), np.where(batch.is_call, 1.0, 0.0)
    # A call is worth at most the spot and a put the strike, and both at least the European value and the payoff.
    least = np.minimum(np.maximum(quotes.price, np.maximum(intrinsic, 0.0)), unit)

    # A boundary that is wrong must not make an option cheaper than its European twin.
    rounding = _rounding(batch, unit)
    exercised = (puts.x <= premium.boundary) & (quotes.price <= intrinsic + rounding)

    def settle(name: str, value: FloatArray, at_once: FloatArray | float) -> None:
        getattr(quotes, name)[:] = np.where(exercised, at_once, np.where(np.isfinite(value), value, 0.0))

    settle("price", np.clip(quotes.price + unit * premium.value, least, unit), intrinsic)
    settle("delta", np.clip(quotes.delta + unit / batch.spot * by_log_spot, low, high), -side)
    settle("gamma", np.maximum(quotes.gamma + unit * (curvature - premium.by_x) / batch.spot**2, 0.0), 0.0)
    settle("vega", np.maximum(quotes.vega + unit * by_log_volatility / batch.volatility, 0.0), 0.0)
    settle("theta", np.minimum(quotes.theta - unit * variance_rate * premium.by_w, 0.0), 0.0)
    settle("rho", quotes.rho + unit * by_rate, 0.0)
    quotes.error_bound[:] = np.minimum(unit * premium.error_bound, unit - least) + rounding
    quotes.exercise_boundary[:] = batch.strike * np.exp(side * premium.boundary)


def _rounding(batch: OptionBatch, unit: FloatArray) -> FloatArray:
    """Float64's part in the error of a European price that is below `unit`, as in `reduction.rounding_bound`."""
    digits = (
        1.0 + np.abs(np.log(batch.spot / batch.strike)) + (np.abs(batch.rate) + np.abs(batch.dividend)) * batch.maturity
    )
    return 2.0 * ROUNDING * unit * digits


def _without_variance(batch: OptionBatch, quotes: Quotes) -> None:
    """Writes into `quotes` the best that exercise at one time t in [0, T] earns on the forward path.

    h(t) = ±(K·e^{−rt} − S·e^{−qt}) is stationary where e^{(r−q)t} = rK/(qS). Volatility can add no more than a forward
    moves, 2s of the spot or of the strike by Doob's inequality.
    """
    spot, strike, maturity, rate, dividend = batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend
    side = np.where(batch.is_call, -1.0, 1.0)
    stationary = np.log(rate * strike / (dividend * spot)) / (rate - dividend)
    times = np.stack([np.zeros_like(spot), np.clip(np.nan_to_num(stationary, posinf=0.0), 0.0, maturity), maturity])
    cash, asset = strike * np.exp(-rate * times), spot * np.exp(-dividend * times)
    values = side * (cash - asset)
    best = np.argmax(values, axis=0)[None, :]
    time, cash, asset, value = (np.take_along_axis(column, best, 0)[0] for column in (times, cash, asset, values))
    alive = value > 0.0
    to_the_end = alive & (time == maturity)
    quotes.price[:] = np.maximum(value, 0.0)
    quotes.delta[:] = np.where(alive, -side * asset / spot, 0.0)
    quotes.gamma[:] = 0.0
    quotes.vega[:] = 0.0
    quotes.theta[:] = np.where(to_the_end, side * (rate * cash - dividend * asset), 0.0)
    quotes.rho[:] = np.where(alive, -side * time * cash, 0.0)
    spread = batch.volatility * np.sqrt(maturity)
    growth = np.minimum(
        spot * np.exp(np.maximum(-dividend * maturity, 0.0)), strike * np.exp(np.maximum(-rate * maturity, 0.0))
    )
    unit = np.where(batch.is_call, spot, strike)
    quotes.error_bound[:] = np.minimum(2.0 * spread * growth, unit) + _rounding(batch, unit)
    put_rate, put_dividend = put_rates(batch)
    ratio = np.where(put_dividend > put_rate, put_rate / np.where(put_dividend > put_rate, put_dividend, 1.0), 1.0)
    quotes.exercise_boundary[:] = np.where(batch.is_call, strike / ratio, strike * ratio)
