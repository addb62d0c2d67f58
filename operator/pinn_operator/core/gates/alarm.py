"""Whether new bad answers of a canary are worth a pass at once.

The reader of the pods asks this each time the canary has given another bad answer, several times a second at worst. So
it only compares two shares: if stable's requests fail as often, nothing is lost by waiting for the next look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from pinn_operator.core.gates.families import handler_classes
from pinn_operator.core.samples import FAMILY_LABEL, Series
from pinn_operator.core.wanted.spec import MetricNames

CLASSES: Final = ("5", "4")
"""First digits of the statuses that are bad."""
WORSE: Final = 1.2
"""A share that is this many times stable's is worth a look."""

Alarm = Callable[[Sequence[Series], Sequence[Series]], bool]


@lru_cache(maxsize=64)
def alarm_of(names: MetricNames, probe_paths: tuple[str, ...] = ()) -> Alarm:
    """The predicate for a server that calls its metrics so; the series are those of the newest reads of all pods."""
    probes = re.compile("|".join(handler_classes(probe_paths)))

    def counts(series: Sequence[Series]) -> tuple[float, dict[str, float]]:
        total, bad = 0.0, dict.fromkeys(CLASSES, 0.0)
        for one in series:
            if one.labels.get(FAMILY_LABEL, names.requests) != names.requests or len(one.points) < 2:
                continue
            if probes.fullmatch(one.labels.get(names.handler_label, "")):
                continue
            first, last = one.points[0][1], one.points[-1][1]
            # A restarted container counts from zero.
            grown = last - first if last >= first else last
            total += grown
            status = one.labels.get(names.status_label, "")[:1]
            if status in bad:
                bad[status] += grown
        return total, bad

    def alarm(canary: Sequence[Series], stable: Sequence[Series]) -> bool:
        total, bad = counts(canary)
        beside, usual = counts(stable)
        return any(bad[status] > 0 and bad[status] * beside >= WORSE * usual[status] * total for status in CLASSES)

    return alarm
