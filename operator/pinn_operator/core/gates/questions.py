"""What a pass asks. Pure: the same state and moment give the same questions.

Revisions are told apart by pod name (`<name>-<revision>-…`), so the usual `namespace` and `pod` target labels suffice
and no relabelling is asked of the team's Prometheus.
"""

from __future__ import annotations

from datetime import datetime

from pinn_operator.core.gates.families import questions, requests_family
from pinn_operator.core.gates.metric import Scope
from pinn_operator.core.gates.metrics import metric_of
from pinn_operator.core.gates.scope import probe_paths, scope_of
from pinn_operator.core.gates.silence import silence_questions
from pinn_operator.core.samples import POD_KEY, Question
from pinn_operator.core.situation import Situation
from pinn_operator.core.status.values import Phase
from pinn_operator.core.wanted.spec import SourceKind


def due(situation: Situation, now: datetime) -> tuple[Question, ...]:
    """The questions of this pass: gates while the canary has weight, proof of silence after it has lost it.

    They are asked from the moment the weight is written: what is counted then can condemn, though it can pass nothing
    until the weight was seen in force. Before there is any weight, the pods are read already: what stable does when
    nothing is tried is the reference for a canary that gets all traffic at once.
    """
    resource, observed, spec = situation.resource, situation.observed, situation.spec
    status, rollout = resource.status, resource.status.rollout
    if spec is None or rollout is None or status.stable is None:
        return ()
    if status.phase is Phase.PROMOTING and status.previous is not None:
        leaving = status.previous.revision
    elif status.phase is Phase.ROLLING_BACK and status.canary is not None:
        never_had_traffic = rollout.still_time is not None and rollout.still_time <= rollout.weight_time
        leaving = "" if never_had_traffic else status.canary.revision
    else:
        leaving = ""
    if status.phase in (Phase.PROMOTING, Phase.ROLLING_BACK):
        start = rollout.programmed_time
        if not leaving or start is None or now <= start:
            return ()
        pods = tuple(pod.name for pod in observed.living(leaving))
        chosen = f"{resource.name}-{leaving}-[^-]+-[^-]+"
        names = spec.analysis.names
        matchers = f'{names.namespace_label}="{resource.namespace}",{names.pod_label}=~"{chosen}"'
        return silence_questions(spec.analysis, matchers, pods, start, now, probe_paths(spec))
    scope = scope_of(resource, spec, observed, now)
    if scope is None or scope.seconds <= 0:
        return ()
    if scope.weight == 0:
        return _before_weight(scope)
    asked = {question.key: question for question in questions([requests_family(scope)], scope)}
    for gate in spec.analysis.gates:
        for question in metric_of(gate).questions(gate, scope):
            asked.setdefault(question.key, question)
    return tuple(asked.values())


def _before_weight(scope: Scope) -> tuple[Question, ...]:
    if SourceKind.PODS not in scope.analysis.sources:
        return ()
    return tuple(it for it in questions([requests_family(scope)], scope) if it.key.startswith(POD_KEY))
