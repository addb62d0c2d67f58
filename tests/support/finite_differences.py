"""American options by finite differences: what shares nothing with the methods of this project but the equation.

Crank and Nicolson's scheme in ln S* with Rannacher's four implicit half-steps after every kink in time; the obstacle is
met by policy iteration (Reisinger and Witte 2012): each step is solved with the rows that are exercised held at the
payoff, until these rows no longer change.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_banded

from pinn_inference.pricing.types import FloatArray

_ROUNDS = 40


@dataclass(frozen=True)
class Terms:
    """One option; `spot` is the share's with all its dividends, each (time, amount)."""

    spot: float
    strike: float
    maturity: float
    rate: float
    dividend: float
    volatility: float
    is_call: bool
    dividends: tuple[tuple[float, float], ...] = ()
    american: bool = True

    def to_come(self, t: float, *, after: bool) -> float:
        """Present value at t of what is paid from then on until expiry."""
        return sum(
            amount * float(np.exp(-self.rate * (time - t)))
            for time, amount in self.dividends
            if (time > t if after else time >= t) and time <= self.maturity
        )


def price_by_differences(terms: Terms, *, points: int = 1200, steps: int = 600, widths: float = 7.0) -> float:
    """The price at spot and time 0, of second order in both steps."""
    start = terms.spot - terms.to_come(0.0, after=False)
    spread = terms.volatility * np.sqrt(terms.maturity)
    reach = widths * spread + abs(terms.rate - terms.dividend) * terms.maturity
    x = np.log(start) + np.linspace(-reach, reach, 2 * (points // 2) + 1)
    asset = np.exp(x)
    side = 1.0 if terms.is_call else -1.0

    def payoff(t: float, *, after: bool) -> FloatArray:
        return side * (asset + terms.to_come(t, after=after) - terms.strike)

    h = float(x[1] - x[0])
    variance = terms.volatility**2
    up = 0.5 * variance / h**2 + 0.5 * (terms.rate - terms.dividend - 0.5 * variance) / h
    down = 0.5 * variance / h**2 - 0.5 * (terms.rate - terms.dividend - 0.5 * variance) / h
    middle = -variance / h**2 - terms.rate

    # Averaged over each cell, the kink of the payoff costs no order.
    inner = np.exp(x[:, None] + h * (np.arange(32) + 0.5 - 16) / 32)
    v = np.maximum(side * (inner - terms.strike), 0.0).mean(axis=1)
    times = sorted({0.0, terms.maturity, *(time for time, _ in terms.dividends if 0.0 < time < terms.maturity)})
    for begin, end in reversed(list(pairwise(times))):
        if terms.american and any(time == end for time, _ in terms.dividends):
            v = np.maximum(v, np.maximum(payoff(end, after=True), payoff(end, after=False)))
        count = max(round(steps * (end - begin) / terms.maturity), 20)
        # Dense at both ends, where boundaries move fastest.
        part = np.arange(count + 1) / count
        grid = begin + (end - begin) * 0.5 * (1.0 - np.cos(np.pi * part))
        left = [(float(a), float(b), 0.5) for a, b in pairwise(grid)][::-1]
        halved = [(0.5 * (a + b), b, 1.0) for a, b, _ in left[:2]] + [(a, 0.5 * (a + b), 1.0) for a, b, _ in left[:2]]
        for a, b, implicit in [*sorted(halved, reverse=True), *left[2:]]:
            dt = b - a
            known = v.copy()
            known[1:-1] += (1.0 - implicit) * dt * (up * v[2:] + middle * v[1:-1] + down * v[:-2])
            obstacle = payoff(a, after=True)
            edge = obstacle if terms.american else _forward(terms, asset, a, side)
            known[[0, -1]] = np.maximum(edge, 0.0)[[0, -1]]
            v = _step(known, implicit * dt, up, middle, down, obstacle if terms.american else None)
    if terms.american and any(time == 0.0 for time, _ in terms.dividends):
        v = np.maximum(v, payoff(0.0, after=True))
    value = float(CubicSpline(x, v)(np.log(start)))
    return max(value, side * (terms.spot - terms.strike)) if terms.american else value


def _forward(terms: Terms, asset: FloatArray, t: float, side: float) -> FloatArray:
    left = terms.maturity - t
    return side * (asset * np.exp(-terms.dividend * left) - terms.strike * np.exp(-terms.rate * left))


def _step(
    known: FloatArray, dt: float, up: float, middle: float, down: float, obstacle: FloatArray | None
) -> FloatArray:
    n = len(known)
    bands = np.zeros((3, n))
    bands[0, 2:], bands[1], bands[2, :-2] = -dt * up, 1.0 - dt * middle, -dt * down
    bands[1, [0, -1]] = 1.0
    v: FloatArray = solve_banded((1, 1), bands, known)
    if obstacle is None:
        return v
    held = np.zeros(n, dtype=bool)
    for _ in range(_ROUNDS):
        residual = known - (bands[1] * v)
        residual[:-1] -= bands[0, 1:] * v[1:]
        residual[1:] -= bands[2, :-1] * v[:-1]
        # Where waiting earns less than the payoff does, or the payoff is above the value, the row is exercised.
        stopped = (v - obstacle < -residual) if held.any() else (v < obstacle)
        stopped[[0, -1]] = False
        if (stopped == held).all():
            break
        held = stopped
        chosen, right = bands.copy(), np.where(held, obstacle, known)
        chosen[1, held] = 1.0
        chosen[0, 1:][held[:-1]] = 0.0
        chosen[2, :-1][held[1:]] = 0.0
        v = solve_banded((1, 1), chosen, right)
    return v
