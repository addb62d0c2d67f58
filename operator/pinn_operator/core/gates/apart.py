"""What a canary did apart from the stretches in which stable was outside the bound as well.

A database that is away for half a minute is 2 % of half an hour: for hours the canary's whole share of errors would be
above 1 %, and no patience of anybody would help. What stable suffered at the same moment speaks of no revision, so it
is left out of what an advance bound is judged by. Which stretches these are is told by stable's answers alone: the
canary's have no say in it, so leaving them out cannot favour it. That it did worse in them than stable did is seen by
the comparison, which leaves out nothing.

A stretch is a number of bins, each at least as long as the time between two reads of a pod. Requests are counted with
the first read after them, so a bin before and a bin after belong to it as well: whatever the moments at which the pods
are read, no part of the fault is left in the canary's counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from pinn_operator.core.gates.comparison import BIN_SECONDS, MOST_BINS, Classes, bins
from pinn_operator.core.gates.evidence import exceeds_limit
from pinn_operator.core.gates.families import Reading
from pinn_operator.core.gates.metric import Apart, Scope
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.gates.windows import Part
from pinn_operator.core.wanted.spec import Gate

MOST_LEFT_OUT = 0.5
"""Of the canary's requests: what lasts longer is how stable is, and no fault of a moment."""


@dataclass(frozen=True, slots=True)
class Remainder:
    """The canary's stretches without those in which stable was outside the bound, and how many seconds these had."""

    parts: tuple[Part, ...]
    seconds: float

    def counts(self, total: Classes, bad: Classes) -> Counts:
        """Requests of the classes `total` and, among them, of the classes `bad`."""
        all_of = sum(part.count(total) for part in self.parts)
        return Counts(all_of, min(all_of, sum(part.count(bad) for part in self.parts)))

    @property
    def note(self) -> str:
        """In words."""
        return f"without {self.seconds:.0f} s in which stable was outside the bound as well"


def looks_apart(scope: Scope) -> bool:
    """Stable answers at the same moment, and this pass judges the whole time."""
    return scope.concurrent and scope.advance_due


def share_apart(
    gate: Gate, reading: Reading, scope: Scope, total: Classes, bad: Classes,
    carried: tuple[Counts, Counts] | None = None,
) -> Apart | None:  # fmt: skip
    """The canary's share of bad requests without the faults that stable had too, if the advance bound needs that.

    `carried` is what the whole has lost: nobody knows any more when it was, so all of it counts.
    """
    bound, whole = gate.advance.below if gate.advance is not None else None, reading.windows.whole
    if bound is None or whole is None or not looks_apart(scope):
        return None
    share = whole.canary_counts(total, bad).share
    left = remainder(reading, total, bad, limit=bound) if share is not None and share >= bound else None
    if left is None:
        return None
    counts = left.counts(total, bad) + (carried[0] if carried else Counts(0, 0))
    return Apart(counts.share, counts.total, left.note)


def remainder(reading: Reading, total: Classes, bad: Classes, *, limit: float) -> Remainder | None:
    """The canary's whole time without the faults that stable had too; None without such a fault.

    Args:
        reading: of a canary that is judged beside a stable revision with traffic.
        total: the classes that are counted.
        bad: those of them that are bad.
        limit: the share of bad requests beyond which stable is outside the bound too, in (0, 1).
    """
    whole = reading.windows.whole
    if whole is None or not whole.stable or not 0 < limit < 1:
        return None
    if not any(part.count(bad) > 0 for part in whole.stable):
        return None
    stable = [part.track for part in whole.stable]
    begin = min(part.track.times[part.begin] for part in whole.canary)
    end = max(part.track.times[part.end] for part in whole.canary)
    intervals = [track.interval or 0.0 for track in (*reading.canary, *stable)]
    seconds = max(BIN_SECONDS, (end - begin) / MOST_BINS, *intervals)
    edges = [begin + index * seconds for index in range(int((end - begin) / seconds) + 1)]
    of_pods = [bins(track, [*edges, end], total, bad) for track in stable]
    columns = [sum(column, Counts(0, 0)) for column in zip(*of_pods, strict=True)]
    outside = [exceeds_limit(counts, limit=limit) for counts in columns]
    around = [any(outside[max(0, index - 1) : index + 2]) for index in range(len(outside))]
    if not any(around):
        return None
    limits = list(zip(edges, [*edges[1:], end], strict=True))
    kept = [
        [limits[index] for index in run]
        for left_out, run in groupby(range(len(around)), key=around.__getitem__)
        if not left_out
    ]
    parts = tuple(
        Part(part.track, first, last)
        for run in kept
        for part in whole.canary
        if (first := max(part.begin, part.track.at_or_after(run[0][0])))
        < (last := min(part.end, part.track.at_or_before(run[-1][1])))
    )
    left = Remainder(parts, sum(high - low for (low, high), out in zip(limits, around, strict=True) if out))
    if left.counts(total, ()).total < (1 - MOST_LEFT_OUT) * sum(part.count(total) for part in whole.canary):
        return None
    return left
