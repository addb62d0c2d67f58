"""Memory: resident bytes, and the share of the limit; of the canary's fullest pod."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from statistics import median

from pinn_operator.core.gates.families import Answers, Family, expression, of_revision, questions, requests_family
from pinn_operator.core.gates.metric import Evidence, Scope, Side
from pinn_operator.core.gates.tracks import Points
from pinn_operator.core.gates.windows import INTERVALS, LATENESS_SECONDS
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate, MetricNames

LEVEL_SAMPLES = 5
"""A level is the median of the newest samples: one odd one is no level."""


def memory_family(names: MetricNames) -> Family:
    """Resident bytes by pod."""
    return Family(names.memory, gauge=True, sparse=True)


@dataclass(frozen=True, slots=True)
class Memory:
    """`relative_to_limit`: as a share of `spec.resources.limits.memory`."""

    relative_to_limit: bool = False

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The gauge; and the requests, whose moments are its too."""
        del gate
        if self.relative_to_limit and scope.memory_limit is None:
            return ()
        return questions([requests_family(scope), memory_family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """The level now."""
        if self.relative_to_limit and scope.memory_limit is None:
            return Evidence(absent="spec.resources.limits.memory")
        unit = (scope.memory_limit or 1.0) if self.relative_to_limit else 1.0
        family = memory_family(scope.analysis.names)
        source, found, error = answers.levels(family)
        if source is None:
            return error or Evidence()
        canary, stable = of_side(found, scope.canary, scope), of_side(found, scope.stable, scope)
        if not canary and not stable:
            return error or Evidence(absent=family.sample, source=source, query=expression(family, scope))
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
            age=oldest_age(canary, scope),
            source=source,
            query=expression(family, scope),
            held=gauge_stale(canary, scope),
            note=f"pod {fullest}" if len(canary) > 1 else "",
        )


def of_side(found: dict[str, Points], side: Side, scope: Scope) -> dict[str, Points]:
    """The samples of the pods of one revision."""
    return {pod: found[pod] for pod in of_revision(found, side, scope)}


def level(points: Points) -> float:
    """What a gauge stands at."""
    return median(value for _, value in points[-LEVEL_SAMPLES:] if isfinite(value))


def oldest_age(found: dict[str, Points], scope: Scope) -> float | None:
    """Seconds since the newest sample of the pod that was read least recently."""
    now = scope.now.timestamp()
    return max((max(0.0, now - points[-1][0]) for points in found.values()), default=None)


def gauge_stale(found: dict[str, Points], scope: Scope) -> str:
    """Why the samples do not speak of the present; empty if they do."""
    now = scope.now.timestamp()
    for pod in scope.canary.ready or tuple(found):
        points = found.get(pod)
        if points is None:
            return f"no sample of pod {pod} yet"
        gap = points[-1][0] - points[-2][0] if len(points) > 1 else 0.0
        if now - points[-1][0] > max(LATENESS_SECONDS, INTERVALS * gap):
            return f"the newest sample of pod {pod} is {now - points[-1][0]:.0f} s old"
    return ""
