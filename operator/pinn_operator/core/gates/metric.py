"""The seam of the gates: what a metric asks, and what it makes of the answers. Judging them is the same for all.

A metric is a file of its own with a class that has the shape of `Metric`, and a line in `core.gates.metrics.METRICS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Protocol

from pinn_operator.core.gates.evidence import Reference
from pinn_operator.core.gates.sequential import Counts
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.status.values import GateStatus
from pinn_operator.core.verification.questions import NO_QUESTIONS, OwnQuestions
from pinn_operator.core.wanted.spec import Analysis, Gate, Relative

if TYPE_CHECKING:
    from pinn_operator.core.gates.families import Answers

__all__ = ["Apart", "Evidence", "Metric", "Scope", "Side"]


@dataclass(frozen=True, slots=True)
class Side:
    """One revision: its pods that run and are to be judged, and how many of them are ready."""

    revision: str
    pods: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    """Not ready by their own doing: not those that only start, or that something beside them keeps away."""
    replicas: int = 0
    """As many pods as there should be."""
    started: Mapping[str, float] = field(default_factory=dict)
    """When the container of each pod last started, in unix seconds by its node's clock."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is judged: which revisions of which resource, since when, and by what spec."""

    name: str
    namespace: str
    analysis: Analysis
    canary: Side
    stable: Side
    weight: int
    """The canary's, in percent, since `start`."""
    start: datetime
    """When the present weight was written."""
    now: datetime
    in_force: datetime | None = None
    """When the router was first seen to have it."""
    hold_seconds: float = 0.0
    step: int = 1
    """Which step of the strategy has this weight, from 1."""
    stage: int = 0
    """How many times a weight was begun before in this rollout."""
    weighted: bool = True
    """The router divides requests by weight; else it is connections that are divided by chance."""
    memory_limit: float | None = None
    """Bytes a pod may use, as the spec has it."""
    cpu_limit: float | None = None
    """Cores a pod may use."""
    probe_paths: tuple[str, ...] = ()
    advance_due: bool = True
    """This pass asks for the whole time at this weight, which a Pass rests on."""
    prometheus_due: bool = True
    """This pass asks Prometheus: not while the pods themselves answer for the looks in between."""
    settled: datetime | None = None
    """Until then what a canary with all traffic answered is held against nobody."""
    upstream: float = -inf
    """Unix seconds. Beside stable, until then the operator's own requests told of a fault upstream."""
    own_answers: tuple[Counts, Counts] = (Counts(0, 0), Counts(0, 0))
    """Of canary and stable to what the operator asked beside stable because the canary was in doubt."""
    own_slow: tuple[Counts, Counts] = (Counts(0, 0), Counts(0, 0))
    """The same of what it asked because the canary seemed slow; bad ones are slow ones."""
    own: OwnQuestions = NO_QUESTIONS
    """What the operator itself asks the canary, which stands in the counters beside what clients ask."""
    earlier: Mapping[str, GateStatus] = field(default_factory=dict)
    """The gates as they were judged last, by name."""

    @property
    def concurrent(self) -> bool:
        """Stable has traffic too."""
        return self.weight < 100

    @property
    def seconds(self) -> float:
        """Time at this weight."""
        return max(0.0, (self.now - self.start).total_seconds())

    @property
    def since(self) -> float:
        """Unix seconds of `start`."""
        return self.start.timestamp()

    @property
    def judged_since(self) -> float:
        """Unix seconds from which on the canary's answers count."""
        return max(self.since, self.settled.timestamp()) if self.settled is not None else self.since


@dataclass(frozen=True, slots=True)
class Apart:
    """A gate's value without the stretches that speak of no revision, and the requests that it rests on."""

    value: float | None
    samples: float
    note: str
    """What was left out, in words."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """How much slower the canary's answers to clients seem than stable's."""

    bound: float
    """Seconds: longer ones are slow."""
    evidence: float
    needed: float
    """Both in nats; `needed` together with what the operator's own requests say."""
    words: str
    """What clients got."""
    clusters: float
    """The mean size of the cluster, in requests, that a slow answer of stable's belongs to."""
    relative: Relative
    """What is tolerated."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate has to judge by, whatever its metric."""

    value: float | None = None
    """Of the canary, over all of the time at this weight (levels: now)."""
    stable: float | None = None
    apart: Apart | None = None
    """The same without the stretches in which stable was outside the advance bound as well; None without any."""
    samples: float = 0.0
    """Requests of the canary that the value rests on."""
    stable_samples: float = 0.0
    own: float | None = None
    """Of `samples`, so many at most are the operator's own, in the same unit; None: as many as it has sent requests."""
    enough: bool | None = None
    """Whether `samples` suffice; None: they do from `minSamples` on."""
    recent: float | None = None
    """Of the canary, over the last minute: what an abort bound is judged by."""
    exceeded: bool | None = None
    """The abort bound is exceeded now; None when there is nothing to tell by."""
    in_a_row: int = 0
    """So many measurements in a row exceeded the bound; 0: the judgement counts them itself, one at each look."""
    worse: str | None = None
    """How the canary is significantly worse than stable, in words."""
    worse_share: float | None = None
    """The share of bad answers that those words are about, where the metric is such a share."""
    worse_shares: tuple[str, str] | None = None
    """What condemns, of the canary and of stable, in words, where the metric's value does not show it."""
    alone: bool = False
    """Stable answers no clients at the same moment: what hits everybody now would look the same."""
    slower_than: float | None = None
    """Seconds, of an abort bound that it exceeds while stable answers no clients at the same moment."""
    mounting: bool = False
    """It seems worse than stable in some window, by chance or not."""
    suspected: bool = False
    """So many of its newest answers are bad that its pods are better asked at once."""
    lateness: Lateness | None = None
    more_requests: float | None = None
    """So many more canary requests would decide, at the present effect."""
    age: float | None = None
    """Seconds since the newest sample of the canary's pod that was read least recently."""
    source: str = ""
    query: str = ""
    """What was asked."""
    collecting: str = ""
    """Why it cannot pass yet, in words."""
    held: str = ""
    """Why it cannot pass, in words, though a value may be shown."""
    absent: str = ""
    """Neither revision has this metric: what was looked for."""
    carried: tuple[Counts, Counts] | None = None
    """Requests of canary and stable that are in the samples, and that no source remembers any more."""
    inapplicable: str = ""
    """Why it cannot be judged here at all, in words."""
    excused: str = ""
    """Stable is outside the bound as well, in words: it is not the revision's doing, and does not hold."""
    reference: Reference | None = None
    """What stable did before this weight: what the canary was compared with beside stable's present answers."""
    present: Reference | None = None
    """What stable does at this weight, to be remembered for the next one."""
    said: str = ""
    """What a webhook said: it needs no value."""
    note: str = ""
    """Something worth saying beside the value."""


class Metric(Protocol):
    """One way to judge a canary. Its unit and its good side are in `core.wanted.metrics`."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """What must be asked for `evidence`; questions of several gates with the same key are asked once."""
        ...

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """What the answers of this pass say."""
        ...
