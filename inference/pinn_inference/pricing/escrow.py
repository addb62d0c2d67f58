"""Dividends of known amounts at known times, by the escrowed model.

The dividends that a share pays before an option expires are as good as paid: only what is left of the spot without
their present value moves, with the option's volatility. So with P(t) = Σ D·e^{−r(tᵢ − t)} over the dividends after t

    S*(t) = S(t) − P(t)   is lognormal,

a European option is the formula's at S*(0), and exercise at t earns ±(S* + P(t) − K). A known weakness (Haug, Haug and
Lewis 2003): the volatility is that of S*, so one share has another one in each option that expires around a dividend,
and prices of different expiries are not of one model.

Greeks by the true spot, from those by S* with the schedule held: delta and gamma are the same, since S* moves with S;
P grows at the rate r as time passes, and shrinks as r rises:

    theta = theta* − delta·r·P(0),    rho = rho* − delta·∂P(0)/∂r = rho* + delta·Σ tᵢ·D·e^{−r·tᵢ}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Schedule:
    """Dividends, each (time in years, amount in currency), in order of time."""

    dividends: tuple[tuple[float, float], ...] = ()

    def until(self, maturity: float) -> Schedule:
        """Those that are paid by then, what falls on that moment included."""
        return Schedule(tuple((time, amount) for time, amount in self.dividends if time <= maturity))

    def paid_at(self, t: float) -> bool:
        """Whether there is a dividend at this very moment."""
        return any(time == t for time, _ in self.dividends)

    def present_value(self, rate: float) -> float:
        """P(0)."""
        return self.before(0.0, rate)[0]

    def by_rate(self, rate: float) -> float:
        """∂P(0)/∂r."""
        return self.before(0.0, rate)[1]

    def after(self, t: float, rate: float) -> tuple[float, float]:
        """P and ∂P/∂r at t, once a dividend of that moment is paid."""
        return self._value([each for each in self.dividends if each[0] > t], t, rate)

    def before(self, t: float, rate: float) -> tuple[float, float]:
        """P and ∂P/∂r at t, while a dividend of that moment is still to be paid."""
        return self._value([each for each in self.dividends if each[0] >= t], t, rate)

    @staticmethod
    def _value(dividends: list[tuple[float, float]], t: float, rate: float) -> tuple[float, float]:
        value = slope = 0.0
        for time, amount in dividends:
            now = amount * math.exp(-rate * (time - t))
            value += now
            slope -= (time - t) * now
        return value, slope


NO_DIVIDENDS: Final = Schedule()
