"""Memory: resident bytes, and the share of the limit; of the canary's fullest pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import median

from pinn_operator.core.gates.families import Answers, Family, expression, of_revision, questions, requests_family
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.tracks import Points
from pinn_operator.core.gates.windows import INTERVALS, LATENESS_SECONDS
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate, MetricNames, SourceKind

LEVEL_SAMPLES = 5
"""A level is the median of the newest samples: one odd one is no level."""


def memory_family(names: MetricNames) -> Family:
    """Resident bytes by pod. Not sparse: a slope over an hour needs more than a sample in a quarter of it."""
    return Family(names.memory, gauge=True)


@dataclass(frozen=True, slots=True)
class Gauge:
    """The resident bytes of all pods: samples at ascending moments (unix seconds), by pod."""

    family: Family
    source: SourceKind
    canary: Mapping[str, Points]
    stable: Mapping[str, Points]

    def age(self, scope: Scope) -> float | None:
        """Seconds since the newest sample of the canary's pod that was read least recently."""
        now = scope.now.timestamp()
        return max((max(0.0, now - points[-1][0]) for points in self.canary.values()), default=None)

    def stale(self, scope: Scope) -> str:
        """Why the samples do not speak of the present; empty if they do."""
        now = scope.now.timestamp()
        for pod in scope.canary.ready or tuple(self.canary):
            points = self.canary.get(pod)
            if points is None:
                return f"no sample of pod {pod} yet"
            gap = points[-1][0] - points[-2][0] if len(points) > 1 else 0.0
            if now - points[-1][0] > max(LATENESS_SECONDS, INTERVALS * gap):
                return f"the newest sample of pod {pod} is {now - points[-1][0]:.0f} s old"
        return ""


def gauge_questions(scope: Scope) -> Iterable[Question]:
    """The gauge; and the requests, whose moments are its too."""
    return questions([requests_family(scope), memory_family(scope.analysis.names)], scope)


def gauge_of(answers: Answers, scope: Scope) -> Gauge | Evidence | SourceError:
    """The samples of all pods; or what there is to say instead of them."""
    family = memory_family(scope.analysis.names)
    source, found, error = answers.levels(family)
    if source is None:
        return error or Evidence()
    canary, stable = (
        {pod: found[pod] for pod in of_revision(found, side, scope)} for side in (scope.canary, scope.stable)
    )
    if not canary and not stable:
        return error or Evidence(absent=family.sample, source=source, query=expression(family, scope))
    return Gauge(family, source, canary, stable)


@dataclass(frozen=True, slots=True)
class Memory:
    """`relative_to_limit`: as a share of `spec.resources.limits.memory`."""

    relative_to_limit: bool = False

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The gauge; and the requests, whose moments are its too."""
        del gate
        return () if self.relative_to_limit and scope.memory_limit is None else gauge_questions(scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """The level now."""
        if self.relative_to_limit and scope.memory_limit is None:
            return Evidence(absent="spec.resources.limits.memory")
        unit = (scope.memory_limit or 1.0) if self.relative_to_limit else 1.0
        gauge = gauge_of(answers, scope)
        if not isinstance(gauge, Gauge):
            return gauge
        canary, stable = gauge.canary, gauge.stable
        levels = {pod: level(points) / unit for pod, points in canary.items()}
        fullest = max(levels, key=lambda pod: (levels[pod], pod), default=None)
        value = levels[fullest] if fullest is not None else None
        bound = gate.abort
        return Evidence(
            value=value,
            stable=max((level(points) / unit for points in stable.values()), default=None),
            recent=value,
            enough=True,
            exceeded=value > bound.above if bound and bound.above is not None and value is not None else None,
            age=gauge.age(scope),
            source=gauge.source,
            query=expression(gauge.family, scope),
            held=gauge.stale(scope),
            note=f"pod {fullest}" if len(canary) > 1 else "",
        )


def level(points: Points) -> float:
    """What a gauge stands at."""
    return median(value for _, value in points[-LEVEL_SAMPLES:] if isfinite(value))
