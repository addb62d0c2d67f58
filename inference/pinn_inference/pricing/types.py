"""What goes into a pricing function and what comes out: columns of float64, one row per option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]
CodeArray: TypeAlias = NDArray[np.int8]


class Method(IntEnum):
    """Which formula produced a quote."""

    PINN = 0
    CLOSED_FORM = 1
    INTEGRAL_EQUATION = 2
    """American options outside the trained domain, which have no closed form."""
    BACKWARD_INDUCTION = 3
    """American options with two exercise boundaries, or with dividends of known amounts."""

    @property
    def label(self) -> str:
        """The name used in JSON and in metric labels."""
        return self.name.lower()


class FallbackReason(IntEnum):
    """Why a quote came from the closed form although the network was asked."""

    NONE = 0
    OUT_OF_DOMAIN = 1
    ZERO_VARIANCE = 2
    MODEL_UNAVAILABLE = 3
    NOT_FINITE = 4
    DEVICE_ERROR = 5

    @property
    def label(self) -> str:
        """The name used in JSON and in metric labels."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class OptionBatch:
    """Options as columns, all of shape (n,), float64 but for `is_call` and `is_american` (bool).

    `spot` and `strike` are positive and in one currency; `maturity` is in years, at least 0; `rate` and `dividend` are
    decimals per year, continuously compounded, of either sign; `volatility` is a decimal per √year, at least 0.
    Values are not checked here: whoever parses a request does that and names the field. Answers are finite for spot and
    strike within 1e-100..1e100, |rate·maturity| and |dividend·maturity| up to 100, and any maturity and volatility.
    Without `is_american` every option is European. `schedules`, one for each row or none at all, has the dividends of
    known amounts that American options wait for; `spot` is the share without them, see `escrow`.

    Raises ValueError when a column has another shape or dtype.
    """

    spot: FloatArray
    strike: FloatArray
    maturity: FloatArray
    rate: FloatArray
    dividend: FloatArray
    volatility: FloatArray
    is_call: BoolArray
    is_american: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    schedules: tuple[Schedule, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        expected = (len(self.spot),) if self.spot.ndim == 1 else None
        if self.is_american.size == 0 and self.is_american.dtype == np.bool_:
            object.__setattr__(self, "is_american", np.zeros(self.spot.shape, dtype=np.bool_))
        for name in COLUMNS:
            column = getattr(self, name)
            dtype = np.bool_ if name in ("is_call", "is_american") else np.float64
            if column.dtype != dtype:
                raise ValueError(f"{name} has dtype {column.dtype}, it must be {np.dtype(dtype)}")
            if column.shape != expected:
                raise ValueError(f"{name} has shape {column.shape}, every column must have shape (n,) with one n")
        if self.schedules and len(self.schedules) != len(self.spot):
            raise ValueError(f"{len(self.schedules)} schedules for {len(self.spot)} options")

    def __len__(self) -> int:
        return len(self.spot)

    def take(self, rows: slice | BoolArray | NDArray[np.intp]) -> OptionBatch:
        """The chosen rows, in their order."""
        taken = OptionBatch(*(getattr(self, name)[rows] for name in COLUMNS))
        if not self.schedules:
            return taken
        return replace(taken, schedules=tuple(self.schedules[row] for row in np.arange(len(self))[rows].tolist()))

    @classmethod
    def concatenate(cls, batches: Sequence[OptionBatch]) -> OptionBatch:
        """One batch with the rows of all, in order; raises ValueError for an empty sequence."""
        whole = cls(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in COLUMNS))
        if not any(batch.schedules for batch in batches):
            return whole
        schedules = (batch.schedules or (NO_DIVIDENDS,) * len(batch) for batch in batches)
        return replace(whole, schedules=tuple(schedule for some in schedules for schedule in some))

    @property
    def waits_for_dividends(self) -> BoolArray:
        """The American rows whose payoff depends on dividends to come, shape (n,)."""
        if not self.schedules:
            return np.zeros(len(self), dtype=np.bool_)
        return self.is_american & np.array([bool(schedule.dividends) for schedule in self.schedules], dtype=np.bool_)


COLUMNS: Final = tuple(column.name for column in fields(OptionBatch) if column.name != "schedules")
"""The names of a batch's columns, in their order."""


@dataclass(frozen=True, slots=True)
class Quotes:
    """Prices and Greeks of a batch, all of shape (n,), in the batch's order.

    `price` and `error_bound` are in currency; `delta` is per unit of spot, `gamma` per unit of spot squared, `vega` and
    `rho` per 1.00 (not per percentage point), `theta` per year of calendar time (negative when the option decays).
    `error_bound` bounds |price − exact price|. `method` and `reason` hold `Method` and `FallbackReason` codes.
    `exercise_boundary` is the spot, in currency, at which an American option is exercised today: a put at or below it,
    a call at or above it; infinite for an American call that is never exercised early, 0 for such a put, and NaN for
    European options.
    """

    price: FloatArray
    delta: FloatArray
    gamma: FloatArray
    vega: FloatArray
    theta: FloatArray
    rho: FloatArray
    error_bound: FloatArray
    method: CodeArray
    reason: CodeArray
    exercise_boundary: FloatArray = field(default_factory=lambda: np.zeros(0))
    far_boundary: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Of two exercise boundaries the one that is farther from the strike, beyond which the option is held again; else
    NaN."""

    def __post_init__(self) -> None:
        for name in ("exercise_boundary", "far_boundary"):
            if getattr(self, name).size == 0:
                object.__setattr__(self, name, np.full(self.price.shape, np.nan))

    def __len__(self) -> int:
        return len(self.price)

    def take(self, rows: slice | BoolArray | NDArray[np.intp]) -> Quotes:
        """The chosen rows, in their order."""
        return Quotes(*(getattr(self, column.name)[rows] for column in fields(self)))

    @classmethod
    def assembled(cls, size: int, parts: Sequence[tuple[BoolArray | NDArray[np.intp], Quotes]]) -> Quotes:
        """Quotes of `size` rows from parts, each with the rows that it is of; together they are of every row."""
        columns = []
        for column in fields(cls):
            made = np.empty(size, dtype=getattr(parts[0][1], column.name).dtype)
            for rows, part in parts:
                made[rows] = getattr(part, column.name)
            columns.append(made)
        return cls(*columns)

    @classmethod
    def concatenate(cls, quotes: Sequence[Quotes]) -> Quotes:
        """One set of quotes with the rows of all, in order; raises ValueError for an empty sequence."""
        return cls(*(np.concatenate([getattr(part, column.name) for part in quotes]) for column in fields(cls)))
