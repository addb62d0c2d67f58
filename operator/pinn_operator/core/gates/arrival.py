"""Whether the traffic that the router was told to send to the canary arrives there.

A canary that answers nothing has no errors. Its pods may be cut off by a network policy, refuse the router's TLS, or
listen at another port; or they accept requests and never answer. If stable answered enough requests meanwhile, so that
the canary should have answered many, none at all is no chance: of N requests, each is the canary's with probability w,
and none is with probability (1 − w)^N.

That holds if all of stable's requests come by the route. Clients that use the Service meet stable alone. As soon as the
canary has answered anything at this weight, its share until then says how many of the requests come by the route; until
it has, the two cannot be told apart, and traffic is made safe.

Without a router it is connections that are divided, and clients that keep theirs never meet a new pod: then the same
silence says that nobody has made a new connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Final

from pinn_operator.core.gates.families import Answers, requests_family, stale
from pinn_operator.core.gates.metric import Scope
from pinn_operator.core.gates.windows import Span

ENOUGH: Final = 100.0
"""So many requests of the canary are expected before their absence proves anything: chance leaves e⁻¹⁰⁰."""
GRACE_SECONDS: Final = 30.0
"""Routers follow endpoints and weights late; what was expected before proves nothing."""
KEPT_SECONDS: Final = 60.0
"""Clients that make a new connection now and then have some time for it."""
EVERY: Final = ("1", "2", "3", "4", "5", "u1", "u2", "u3", "u4", "u5", "?", "u?")


@dataclass(frozen=True, slots=True)
class Arrival:
    """Requests that the canary should have answered by its share, and those that it did, in the last `seconds`."""

    expected: float
    counted: float
    seconds: float
    by_weight: bool = True
    """The router divides requests by weight; else connections were expected in proportion to the ready pods."""

    @property
    def missing(self) -> bool:
        """Nothing arrives, beyond chance."""
        return self.by_weight and self._silent

    @property
    def kept_away(self) -> bool:
        """Nothing arrives, because clients keep the connections that they have."""
        return not self.by_weight and self._silent and self.seconds >= KEPT_SECONDS

    @property
    def _silent(self) -> bool:
        return self.counted <= 0 and self.expected >= ENOUGH

    def __str__(self) -> str:
        return f"{self.counted:.0f} of about {self.expected:.0f} expected requests in {self.seconds:.0f} s"


def arrival(answers: Answers, scope: Scope) -> Arrival | None:
    """The longest time without a request of the canary, or the whole; None if it cannot be told."""
    odds = _odds(scope)
    if not (odds > 0 and scope.concurrent and scope.weight > 0 and scope.in_force is not None):
        return None
    reading = answers.find(requests_family(scope)).fast
    if reading is None or not reading.canary or stale(reading, scope):
        return None
    earliest = scope.in_force.timestamp() + GRACE_SECONDS
    longest = None
    for span in chain(reading.windows.each(), filter(None, (reading.windows.whole,))):
        if any(part.track.times[part.begin] < earliest for part in span.canary):
            break
        if longest is not None and span.canary_counts(EVERY, ()).total > 0:
            break
        longest = span
    if longest is None:
        return None
    silent = longest.stable_counts(EVERY, ()).total
    if reading.windows.whole is not None and scope.weighted:
        odds = min(odds, _odds_before(reading.windows.whole, silent))
    expected = silent * odds
    return Arrival(expected, longest.canary_counts(EVERY, ()).total, longest.seconds, by_weight=scope.weighted)


def _odds_before(whole: Span, silent: float) -> float:
    """How many requests the canary had for each of stable's before the last `silent` ones of stable; infinite if none:
    that may be for any reason."""
    answered = whole.canary_counts(EVERY, ()).total
    before = whole.stable_counts(EVERY, ()).total - silent
    return answered / before if answered > 0 and before > 0 else inf


def _odds(scope: Scope) -> float:
    """How many requests the canary should get for each of stable's; 0 if that cannot be told."""
    if scope.weighted:
        return scope.weight / (100.0 - scope.weight) if scope.concurrent else 0.0
    return len(scope.canary.ready) / len(scope.stable.ready) if scope.stable.ready else 0.0


def observed_share(answers: Answers, scope: Scope) -> tuple[float | None, float]:
    """Percent of the requests at this weight that the canary answered, and how many requests both answered."""
    reading = answers.find(requests_family(scope)).whole
    whole = reading.windows.whole if reading else None
    if whole is None:
        return None, 0.0
    canary = whole.canary_counts(EVERY, ()).total
    total = canary + (whole.stable_counts(EVERY, ()).total if scope.concurrent else 0.0)
    return (100.0 * canary / total if total > 0 else None), total
