"""Grids of scenarios: the options of a portfolio at every combination of shifted market data.

A ladder is a list of shifts of one number: factors of the spot, and what is added to the volatility, to the rate, or to
the time that has passed. A grid has one axis for each ladder, in the order of `AXES`, and one of length 1 where a
number is not shifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule
from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch

AXES: Final = ("spot", "volatility", "rate", "time")
NEUTRAL: Final = {"spot": 1.0, "volatility": 0.0, "rate": 0.0, "time": 0.0}
"""The shift that changes nothing."""
MOMENT: Final = 1e-12
"""Years, thirty millionths of a second: what sums like 0.1 + 0.2 are off by is no time that is left."""


@dataclass(frozen=True, slots=True)
class Ladders:
    """The shifts of each axis, none of them empty: `spot` are factors, `volatility` and `rate` are added, per 1.00, and
    `time` is in years that pass while spot, volatility and rate stay what the other ladders say.
    """

    spot: FloatArray
    volatility: FloatArray
    rate: FloatArray
    time: FloatArray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a grid: shifts of spot, volatility, rate and time."""
        return len(self.spot), len(self.volatility), len(self.rate), len(self.time)

    @property
    def size(self) -> int:
        """Points of a grid."""
        return int(np.prod(self.shape))

    def expanded(self, options: OptionBatch, schedules: Sequence[Schedule] = ()) -> tuple[OptionBatch, list[Schedule]]:
        """Every option at every point of the grid, those of one option after each other, the last axis fastest.

        `options`, n of them, have their true spots; `schedules` are their dividends, one each or none at all. Returned
        are n·size options with what is still to be paid of theirs, which is nothing at all without `schedules`.
        An option that has expired by then is at expiry. No number is checked.
        """
        n, shape = len(options), self.shape

        def axis(values: FloatArray, position: int) -> FloatArray:
            """A ladder, or the options' own column at position 0, along one of five axes."""
            return values.reshape([-1 if each == position else 1 for each in range(5)])

        def grid(values: FloatArray) -> FloatArray:
            return np.broadcast_to(values, (n, *shape)).reshape(-1).copy()

        maturity = axis(options.maturity, 0) - axis(self.time, 4)
        maturity = np.where(maturity > MOMENT, maturity, 0.0)
        made = OptionBatch(
            spot=grid(axis(options.spot, 0) * axis(self.spot, 1)),
            strike=np.repeat(options.strike, self.size),
            maturity=grid(maturity),
            rate=grid(axis(options.rate, 0) + axis(self.rate, 3)),
            dividend=np.repeat(options.dividend, self.size),
            volatility=grid(axis(options.volatility, 0) + axis(self.volatility, 2)),
            is_call=np.repeat(options.is_call, self.size),
            is_american=np.repeat(options.is_american, self.size),
        )
        others = self.size // len(self.time)
        left = [[_after(schedule, float(time)) for time in self.time] for schedule in schedules]
        return made, [schedule for row in left for schedule in row * others]

    def past(self, maturity: FloatArray) -> BoolArray:
        """Which of the options of `expanded` have expired before; `maturity`, shape (n,), is that of the options."""
        over = maturity[:, None] - self.time < -MOMENT
        return np.repeat(over[:, None, :], self.size // len(self.time), axis=1).reshape(-1)


def _after(schedule: Schedule, time: float) -> Schedule:
    """What is still to be paid once so many years have passed, counted from then on."""
    if time == 0.0 or not schedule.dividends:
        return schedule
    left = tuple((max(paid - time, 0.0), amount) for paid, amount in schedule.dividends if paid >= time - MOMENT)
    return Schedule(left) if left else NO_DIVIDENDS
