"""Which American options have an exercise region that is bounded by one price, and which by two.

Exercising a put early earns rate·strike − dividend·spot a year. With dividend < rate < 0 that is a cost where the spot
is low and a gain where it is high, so the put is exercised inside a band of spots, if at all, and held below it and
above it (Battauz, De Donno and Sbuelz 2015). Neither the network nor the integral equation describes such a band; it
is solved backwards in time (`backward_induction`). A call is a put with spot and strike, rate and dividend exchanged,
so for it the condition is rate < dividend < 0.
"""

from __future__ import annotations

import numpy as np

from pinn_inference.pricing.types import BoolArray, FloatArray, OptionBatch


def has_two_boundaries(batch: OptionBatch) -> BoolArray:
    """The rows, shape (n,), that are exercised inside a band of spots if they are American; their style is not read."""
    put_rate, put_dividend = put_rates(batch)
    return (put_dividend < put_rate) & (put_rate < 0.0)


def put_rates(batch: OptionBatch) -> tuple[FloatArray, FloatArray]:
    """Rate and dividend of the puts that these options are: a call's are exchanged."""
    return np.where(batch.is_call, batch.dividend, batch.rate), np.where(batch.is_call, batch.rate, batch.dividend)
