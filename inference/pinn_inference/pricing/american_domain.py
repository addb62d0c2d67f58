"""Which American options can be priced at all: those whose exercise region is bounded by one price.

Exercising a put early earns rate·strike − dividend·spot a year. With dividend < rate < 0 that is a cost where the spot
is low and a gain where it is high, so the put is exercised inside a band of spots, if at all, and held below it and
above it (Battauz, De Donno and Sbuelz 2015). Neither the network nor the integral equation describes such a band. A
call is a put with spot and strike, rate and dividend exchanged, so for it the condition is rate < dividend < 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch

TWO_BOUNDARIES: Final = (
    "must be at most the dividend or at least 0 for an American put, and at least a negative dividend for an American "
    "call: others have two exercise boundaries and are not supported"
)
"""What is wrong with such a row, for whoever refuses it; the field to name is `rate`."""


def is_two_sided(rate: float, dividend: float, is_call: bool) -> bool:
    """Whether an American option with these rates is exercised inside a band of spots."""
    return rate < dividend < 0.0 if is_call else dividend < rate < 0.0


def has_two_boundaries(batch: OptionBatch) -> BoolArray:
    """The rows, shape (n,), that are exercised inside a band of spots if they are American; their style is not read."""
    put_rate, put_dividend = put_rates(batch)
    return (put_dividend < put_rate) & (put_rate < 0.0)


def put_rates(batch: OptionBatch) -> tuple[FloatArray, FloatArray]:
    """Rate and dividend of the puts that these options are: a call's are exchanged."""
    return np.where(batch.is_call, batch.dividend, batch.rate), np.where(batch.is_call, batch.rate, batch.dividend)
