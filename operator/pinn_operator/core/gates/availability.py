"""Availability: the share of a revision's pods that answer their readiness probe. The kubelet asks, not a metric.

Pods that only start, and those that a node, a quota, a registry or the scheduler keeps away, are in neither part of the
share: they say nothing of the revision, and an autoscaler or the next step may make any number of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pinn_operator.core.gates.families import Answers
from pinn_operator.core.gates.metric import Evidence, Scope, Side
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate


class Availability:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """None: the pods were observed."""
        del gate, scope
        return ()

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """As the pods were seen in this pass."""
        del answers
        value, stable, bound = _share(scope.canary), _share(scope.stable), gate.abort
        outside = value < bound.below if bound and bound.below is not None and value is not None else None
        # What hits both revisions alike is not the canary's doing.
        alike = bool(outside and value is not None and stable is not None and stable <= value)
        return Evidence(
            value=value,
            stable=stable,
            recent=value,
            enough=True,
            exceeded=outside and not alike,
            excused="no fewer of stable's pods are unready" if alike else "",
            source="Kubernetes",
            note=_note(scope.canary) if value is not None else "",
        )


def _judged(side: Side) -> int:
    return len(side.ready) + len(side.failed)


def _share(side: Side) -> float | None:
    return len(side.ready) / _judged(side) if _judged(side) > 0 else None


def _note(side: Side) -> str:
    others = max(side.replicas, len(side.pods)) - _judged(side)
    text = f"{len(side.ready)} of {_judged(side)} pods ready"
    return f"{text}; {others} more start or are kept away, and do not count" if others > 0 else text
