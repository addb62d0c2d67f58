"""Fallback rate: the share of priced options that the model did not price itself."""

from __future__ import annotations

from typing import Final

from pinn_operator.core.gates.shares import CounterShare, counters

FALLBACKS: Final = CounterShare(
    family=lambda names: counters(names.options, names.fallbacks),
    part=lambda names: (names.fallbacks,),
    total=lambda names: (names.options,),
    unit="options",
    by_option=True,
)
