"""Cache-hit rate: the share of single quotes that the cache knew.

A new pod's cache is empty, and each of its first lookups misses: they say nothing of the revision. So the lookups of a
new pod count from its two hundredth on, or a minute after its first (without those before it had weight: the operator
asks for single prices then, which are not what clients ask); and the abort bound is held against a pod only
after 800 more, or four minutes more, in which its cache may fill. Where stable misses as often, it is what clients ask.
"""

from __future__ import annotations

from typing import Final

from pinn_operator.core.gates.families import WarmUp
from pinn_operator.core.gates.shares import CounterShare, counters

WARM_UP_LOOKUPS: Final = 200.0
WARM_UP_SECONDS: Final = 60.0

CACHE_HITS: Final = CounterShare(
    family=lambda names: counters(
        names.cache_misses,
        names.cache_hits,
        warm_up=WarmUp(WARM_UP_LOOKUPS, WARM_UP_SECONDS, (names.cache_hits, names.cache_misses), by_clients=True),
    ),
    part=lambda names: (names.cache_hits,),
    total=lambda names: (names.cache_hits, names.cache_misses),
    unit="lookups",
)
