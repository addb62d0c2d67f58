"""CPU: the share of its CPU limit that the canary's busiest pod used in the last minute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pinn_operator.core.gates.comparison import LEVEL_SECONDS
from pinn_operator.core.gates.families import (
    Answers,
    Family,
    Readings,
    age_of,
    expression,
    questions,
    requests_family,
    stale,
)
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.gates.tracks import Track
from pinn_operator.core.gates.windows import INTERVALS
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate, MetricNames

_SECONDS = "seconds"


def cpu_family(names: MetricNames) -> Family:
    """CPU seconds by pod."""
    return Family(names.cpu, classify=_all_seconds, sparse=True)


def _all_seconds(_labels: Mapping[str, str]) -> str:
    return _SECONDS


class CpuUsage:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The counter; and the requests, whose moments are its too."""
        del gate
        if scope.cpu_limit is None:
            return ()
        return questions([requests_family(scope), cpu_family(scope.analysis.names)], scope)

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """The rate over the last minute."""
        if scope.cpu_limit is None:
            return Evidence(absent="spec.resources.limits.cpu")
        family = cpu_family(scope.analysis.names)
        found = answers.readings(family)
        if not isinstance(found, Readings):
            return found
        value, bound = _busiest(found.fast.canary, scope.cpu_limit), gate.abort
        return Evidence(
            value=value,
            stable=_busiest(found.fast.stable, scope.cpu_limit),
            recent=value,
            enough=value is not None,
            exceeded=value > bound.above if bound and bound.above is not None and value is not None else None,
            age=age_of(found.fast, scope),
            source=found.fast.source,
            query=expression(family, scope),
            held=stale(found.fast, scope),
        )


def _busiest(tracks: Iterable[Track], limit: float) -> float | None:
    rates = []
    for track in tracks:
        end = len(track.times) - 1
        begin = max(0, track.at_or_before(track.times[-1] - max(LEVEL_SECONDS, INTERVALS * (track.interval or 0.0))))
        seconds = track.times[end] - track.times[begin]
        if seconds > 0:
            rates.append(track.count((_SECONDS,), begin, end) / seconds / limit)
    return max(rates, default=None)
