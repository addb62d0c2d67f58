"""Availability: the share of a revision's pods that answer their readiness probe. The kubelet asks, not a metric."""

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
        value, bound = _share(scope.canary), gate.abort
        return Evidence(
            value=value,
            stable=_share(scope.stable),
            recent=value,
            enough=True,
            exceeded=value < bound.below if bound and bound.below is not None and value is not None else None,
            source="Kubernetes",
            note=f"{len(scope.canary.ready)} of {_wanted(scope.canary)} pods ready" if value is not None else "",
        )


def _wanted(side: Side) -> int:
    return max(side.replicas, len(side.pods))


def _share(side: Side) -> float | None:
    return len(side.ready) / _wanted(side) if _wanted(side) > 0 else None
