"""A batch of options on shares that pay dividends of known amounts, by the model of `escrow`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule
from pinn_inference.pricing.types import FloatArray, OptionBatch, Quotes

_EPS: Final = float(np.finfo(np.float64).eps)
_SUMMED: Final = 16.0
"""Units of the last place that a sum of many present values may lose, with their factors and the difference."""
_PIECE: Final = 4096
"""Options of one schedule that are looked at together: a hundred dividends of each take some megabytes."""


@dataclass(frozen=True, slots=True)
class Escrow:
    """What is put by for the dividends of n options; all of shape (n,).

    `present_value` = P(0) of those paid until expiry, in currency; `by_rate` = ∂P(0)/∂r; `growth` = r·P(0), by which it
    grows in a year.
    """

    present_value: FloatArray
    by_rate: FloatArray
    growth: FloatArray

    @classmethod
    def of(cls, batch: OptionBatch, schedules: Sequence[Schedule]) -> Escrow:
        """For options with these dividends, one schedule each; many options may share one."""
        value, slope = np.zeros(len(batch)), np.zeros(len(batch))
        rows_of: dict[int, list[int]] = {}
        for row, schedule in enumerate(schedules):
            if schedule.dividends:
                rows_of.setdefault(id(schedule), []).append(row)
        pieces = (
            all_of[start : start + _PIECE] for all_of in rows_of.values() for start in range(0, len(all_of), _PIECE)
        )
        for rows in pieces:
            time, amount = np.array(schedules[rows[0]].dividends).T
            paid = np.where(time <= batch.maturity[rows, None], amount * np.exp(-batch.rate[rows, None] * time), 0.0)
            value[rows], slope[rows] = paid.sum(axis=1), -(paid * time).sum(axis=1)
        return cls(value, slope, batch.rate * value)

    def reduced(self, batch: OptionBatch, schedules: Sequence[Schedule]) -> OptionBatch:
        """The options on the share without its dividends; American ones keep the schedule that they wait for."""
        waits = batch.is_american & (self.present_value > 0.0)
        kept: tuple[Schedule, ...] = ()
        if waits.any():
            kept = tuple(
                schedule if waiting else NO_DIVIDENDS
                for schedule, waiting in zip(schedules, waits.tolist(), strict=True)
            )
        return replace(batch, spot=batch.spot - self.present_value, schedules=kept)

    def rounding(self, reduced: OptionBatch) -> FloatArray:
        """How far the spots of `reduced` options may be from the exact ones by float64, relative, shape (n,).

        Of each dividend's present value e^{−rt} takes |r|t and a few units of the last place, their sum some more.
        """
        places = _SUMMED + np.abs(reduced.rate) * reduced.maturity
        return _EPS * (places * self.present_value + reduced.spot) / reduced.spot

    def settled(self, quotes: Quotes) -> Quotes:
        """Quotes of `reduced` options with Greeks by the true spot, see `escrow`."""
        return replace(
            quotes,
            theta=quotes.theta - quotes.delta * self.growth,
            rho=quotes.rho - quotes.delta * self.by_rate,
        )
