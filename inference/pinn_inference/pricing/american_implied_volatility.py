"""The volatilities that American prices imply: a safeguarded Newton search on a model's own prices.

A model's price P(σ) has a bound ε(σ) of its error, and the exact price grows with the volatility. So once σ is found
with P(σ) = price, a σ₊ above it with P(σ₊) − ε(σ₊) ≥ price and a σ₋ below it with P(σ₋) + ε(σ₋) ≤ price hold the exact
volatility between them, whatever the model's vega is worth: that is the error bound. The first tried are at ε/vega.
Where there is no σ₋ down to the half of σ the price does not tell the volatility. That is so in particular for an
option that is worth its payoff: every volatility up to σ₊ has it exercised at once.

All options are searched for together, a volatility each at a time, so that whoever prices them can take batches.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.american import never_exercised
from pinn_inference.pricing.implied_volatility import ImpliedVolatilities, Outcome, implied_volatility
from pinn_inference.pricing.reduction import ROUNDING
from pinn_inference.pricing.types import FloatArray, OptionBatch, Quotes

HIGHEST: Final = 10.0
"""A volatility above it is not looked for."""
_START: Final = 0.3
_NEAR: Final = 1e-3
"""Share of the error bound that the price at the volatility found may be off by."""
_NARROWEST: Final = 1e-10
"""Relative width of a bracket that is not narrowed any more."""
_WIDER: Final = 1.25
"""The first ends that are tried, in ε/vega."""
_MOST_ROUNDS: Final = 80


class _Phase(IntEnum):
    SOLVE = 0
    UPPER = 1
    LOWER = 2
    DONE = 3


class AmericanSearch:
    """Volatilities of American options of these prices, in currency, shape (n,); `options.volatility` is not read.

    While there is a `trial`, price it and tell by `learn`; then `found` is the answer. `is_american` is not looked at.
    """

    def __init__(self, options: OptionBatch, price: FloatArray) -> None:
        n = len(options)
        self._options, self._price = options, price
        self.found = _exercised_never(options, price)
        found = self.found
        low, high = _price_range(options)
        rounding = 2.0 * ROUNDING * (options.spot + options.strike)
        open_ = ~never_exercised(options)
        found.price_low[open_], found.price_high[open_] = low[open_], high[open_]
        found.outcome[open_ & (price < low - rounding)] = Outcome.BELOW_INTRINSIC
        found.outcome[open_ & (price > high + rounding)] = Outcome.ABOVE_UPPER_BOUND
        ended = open_ & (options.maturity == 0.0) & (found.outcome == Outcome.NOT_IDENTIFIABLE)
        found.lowest[ended], found.highest[ended] = 0.0, np.inf
        asked = open_ & (found.outcome == Outcome.NOT_IDENTIFIABLE) & ~ended
        self._phase = np.where(asked, _Phase.SOLVE, _Phase.DONE).astype(np.int8)
        self._is_worth_payoff = asked & (price <= low + rounding)
        self._rounding = rounding
        self._below, self._above = np.zeros(n), np.full(n, np.inf)
        """Volatilities with lower and higher prices."""
        self._sigma, self._reach, self._top = np.full(n, np.nan), np.zeros(n), np.full(n, np.inf)
        self._vega = np.zeros(n)
        self._trial = self._first(asked)
        self._rounds = 0

    def _first(self, asked: FloatArray) -> FloatArray:
        """The European price's volatility, which is an upper bound of the American one's; where there is none, any."""
        start = np.full(len(asked), _START)
        rows = np.flatnonzero(asked)
        european = implied_volatility(self._options.take(rows), self._price[rows])
        known = european.outcome == Outcome.FOUND
        start[rows[known]] = np.clip(european.volatility[known], 1e-3, HIGHEST)
        return start

    @property
    def rows(self) -> NDArray[np.intp]:
        """Of the options that are still searched for."""
        return np.flatnonzero(self._phase != _Phase.DONE)

    @property
    def trial(self) -> OptionBatch | None:
        """Those options, each with the volatility at which its price is wanted; None when all are answered."""
        rows = self.rows
        if not len(rows):
            return None
        options = self._options.take(rows)
        columns = options.spot, options.strike, options.maturity, options.rate, options.dividend
        return OptionBatch(*columns, self._trial[rows], options.is_call, np.ones(len(rows), dtype=np.bool_))

    def learn(self, quotes: Quotes) -> None:
        """The quotes of `trial`, in its order."""
        self._rounds += 1
        rows = self.rows
        unusable = ~np.isfinite(quotes.price + quotes.error_bound + quotes.vega)
        self._answer(rows[unusable], Outcome.NOT_IDENTIFIABLE)
        phase = self._phase[rows]
        with np.errstate(all="ignore"):
            for one, step in (
                (_Phase.SOLVE, self._solve),
                (_Phase.UPPER, self._widen_upwards),
                (_Phase.LOWER, self._widen_downwards),
            ):
                chosen = np.flatnonzero(phase == one)
                if len(chosen):
                    step(rows[chosen], quotes.take(chosen))
        if self._rounds >= _MOST_ROUNDS:
            self._answer(self.rows, Outcome.NOT_IDENTIFIABLE)

    def _solve(self, rows: NDArray[np.intp], quotes: Quotes) -> None:
        trial, error = self._trial[rows], quotes.error_bound
        # An option that is worth its payoff is taken to the first price that is surely above it.
        allowance = np.where(self._is_worth_payoff[rows], error + 4.0 * self._rounding[rows], 0.0)
        miss = quotes.price - allowance - self._price[rows]
        over = miss > 0.0
        self._above[rows[over]] = np.minimum(self._above[rows[over]], trial[over])
        self._below[rows[~over]] = np.maximum(self._below[rows[~over]], trial[~over])
        below, above = self._below[rows], self._above[rows]
        near = np.abs(miss) <= _NEAR * error + self._rounding[rows]
        near |= np.isfinite(above) & (above - below <= _NARROWEST * above)
        beyond = ~near & ~over & (trial >= HIGHEST)
        newton = trial - miss / quotes.vega
        middle = np.where(np.isinf(above), np.minimum(2.0 * trial, HIGHEST), 0.5 * (below + above))
        inside = (newton > below) & (newton < np.minimum(above, 4.0 * trial)) & (newton <= HIGHEST)
        self._trial[rows] = np.where(inside, newton, middle)
        self._found_there(rows[near], trial[near], quotes.take(near))
        if beyond.any():
            self.found.lowest[rows[beyond]] = HIGHEST
            self._answer(rows[beyond], Outcome.OUT_OF_RANGE)

    def _found_there(self, rows: NDArray[np.intp], trial: FloatArray, quotes: Quotes) -> None:
        self._sigma[rows], self._vega[rows] = trial, quotes.vega
        self.found.method[rows] = quotes.method
        payoff = self._is_worth_payoff[rows]
        self._top[rows[payoff]] = self._above[rows[payoff]]
        self._answer(rows[payoff], Outcome.NOT_IDENTIFIABLE)
        rows, reach = rows[~payoff], ((quotes.error_bound + self._rounding[rows]) / quotes.vega)[~payoff]
        sigma = self._sigma[rows]
        self._reach[rows] = np.where(reach < sigma, np.maximum(_WIDER * reach, 1e-12 * sigma), sigma)
        self._phase[rows] = _Phase.UPPER
        self._trial[rows] = sigma + self._reach[rows]

    def _widen_upwards(self, rows: NDArray[np.intp], quotes: Quotes) -> None:
        surely = quotes.price - quotes.error_bound >= self._price[rows]
        self._top[rows[surely]] = self._trial[rows[surely]]
        endless = ~surely & (self._trial[rows] > HIGHEST)
        on = surely | endless
        self._phase[rows[on]] = _Phase.LOWER
        first = np.minimum(self._reach[rows], 0.5 * self._sigma[rows])
        self._trial[rows[on]] = self._sigma[rows[on]] - first[on]
        wider = rows[~on]
        self._reach[wider] *= 2.0
        self._trial[wider] = self._sigma[wider] + self._reach[wider]

    def _widen_downwards(self, rows: NDArray[np.intp], quotes: Quotes) -> None:
        surely = quotes.price + quotes.error_bound <= self._price[rows]
        bounded = surely & np.isfinite(self._top[rows])
        sigma, trial = self._sigma[rows], self._trial[rows]
        bound = np.maximum(self._top[rows] - sigma, sigma - trial)
        vague = ~surely & (trial <= 0.5 * sigma) | (surely & ~bounded)
        self.found.lowest[rows[surely]] = trial[surely]
        known = rows[bounded]
        self.found.volatility[known], self.found.vega[known] = sigma[bounded], self._vega[known]
        self.found.error_bound[known] = bound[bounded]
        self._answer(known, Outcome.FOUND)
        self._answer(rows[vague], Outcome.NOT_IDENTIFIABLE)
        wider = ~bounded & ~vague
        self._trial[rows[wider]] = np.maximum(sigma - 2.0 * (sigma - trial), 0.5 * sigma)[wider]

    def _answer(self, rows: NDArray[np.intp], outcome: Outcome) -> None:
        found = self.found
        found.outcome[rows] = outcome
        self._phase[rows] = _Phase.DONE
        if outcome is Outcome.FOUND:
            found.lowest[rows] = np.nan
            return
        found.lowest[rows] = np.where(np.isnan(found.lowest[rows]), 0.0, found.lowest[rows])
        found.highest[rows] = self._top[rows]


def _exercised_never(options: OptionBatch, price: FloatArray) -> ImpliedVolatilities:
    """The answer for those that are worth as much as European ones, exactly; nothing for the others."""
    found = ImpliedVolatilities.empty(len(options))
    rows = np.flatnonzero(never_exercised(options))
    if len(rows):
        found.put(rows, implied_volatility(options.take(rows), price[rows]))
    return found


def _price_range(options: OptionBatch) -> tuple[FloatArray, FloatArray]:
    """What American options are worth without volatility and at most, in currency, each of shape (n,).

    Without volatility the best moment is today, expiry, or where the payoff S·e^{−qt} − K·e^{−rt} is stationary.
    """
    spot, strike, maturity = options.spot, options.strike, options.maturity
    rate, dividend, sign = options.rate, options.dividend, np.where(options.is_call, 1.0, -1.0)

    def payoff(time: FloatArray) -> FloatArray:
        return np.maximum(sign * (spot * np.exp(-dividend * time) - strike * np.exp(-rate * time)), 0.0)

    with np.errstate(all="ignore"):
        between = np.log(rate * strike / (dividend * spot)) / (rate - dividend)
    between = np.where((between > 0.0) & (between < maturity), between, 0.0)
    low = np.maximum(np.maximum(payoff(np.zeros_like(maturity)), payoff(maturity)), payoff(between))
    yields = np.where(options.is_call, dividend, rate)
    high = np.where(options.is_call, spot, strike) * np.exp(np.maximum(-yields * maturity, 0.0))
    return low, np.where(maturity > 0.0, high, low)
