"""Router errors: the share of requests to a revision that its router answers with a 5xx.

The pods count what they answer. What never reaches them, a refused connection or a time-out, only the router sees.
`analysis.routerMetrics` says whose series tell it; they are read from Prometheus alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pinn_operator.core.gates.apart import share_apart
from pinn_operator.core.gates.comparison import compared, last_minute, outside_abort, window_of, with_comparison
from pinn_operator.core.gates.error_rate import ANSWERED, FAILED
from pinn_operator.core.gates.families import (
    Answers,
    Family,
    Readings,
    Slice,
    expression,
    questions,
    router_age,
    router_stale,
)
from pinn_operator.core.gates.metric import Evidence, Scope
from pinn_operator.core.names import canary_service_name, stable_service_name
from pinn_operator.core.samples import Question, SourceError
from pinn_operator.core.wanted.spec import Gate, RouterMetricsKind, SourceKind


@dataclass(frozen=True, slots=True)
class _Series:
    """Where a router counts: the sample, the label with the status, and the matchers of a Service's requests."""

    sample: str
    status: str
    matchers: str
    """`{namespace}`, `{name}` and `{service}` are those of the resource; `{index}` is that of the backend."""


_SERIES: Final = {
    # Contour names an Envoy cluster after its Service: <namespace>_<service>_<port>.
    RouterMetricsKind.CONTOUR: _Series(
        "envoy_cluster_upstream_rq_xx", "envoy_response_code_class",
        'envoy_cluster_name=~"{namespace}_{service}_[0-9]+"',
    ),
    # Envoy Gateway has a cluster for each backend only where backends differ in their filters.
    RouterMetricsKind.ENVOY_GATEWAY: _Series(
        "envoy_cluster_upstream_rq_xx", "envoy_response_code_class",
        'envoy_cluster_name="httproute/{namespace}/{name}/rule/0/backend/{index}"',
    ),
    RouterMetricsKind.ISTIO: _Series(
        "istio_requests_total", "response_code",
        'reporter="source",destination_service_namespace="{namespace}",destination_service_name="{service}"',
    ),
    RouterMetricsKind.NGINX_INGRESS: _Series(
        "nginx_ingress_controller_requests", "status", 'exported_namespace="{namespace}",exported_service="{service}"',
    ),
}  # fmt: skip


def router_family(scope: Scope, kind: RouterMetricsKind) -> Family:
    """What the router counts for both Services, by the first digit of the status."""
    series = _SERIES[kind]

    def classify(labels: Mapping[str, str]) -> str | None:
        return labels.get(series.status, "")[:1] or None

    def part(side: str, service: str, index: int) -> Slice:
        matchers = series.matchers.format(
            namespace=scope.namespace, name=scope.name, service=service, index=index
        )  # fmt: skip
        return Slice(side, matchers, {"side": side})

    return Family(
        series.sample, (series.status,), classify,
        (part("canary", canary_service_name(scope.name), 1), part("stable", stable_service_name(scope.name), 0)),
        of_router=True,
    )  # fmt: skip


class RouterErrors:
    """See the text of this module."""

    def questions(self, gate: Gate, scope: Scope) -> Iterable[Question]:
        """The router's counters, where the spec says whose."""
        del gate
        kind = scope.analysis.router_metrics
        return questions([router_family(scope, kind)], scope) if kind is not None else ()

    def evidence(self, gate: Gate, answers: Answers, scope: Scope) -> Evidence | SourceError:
        """As the error rate, by what the router saw."""
        kind = scope.analysis.router_metrics
        if kind is None:
            return Evidence(absent="spec.analysis.routerMetrics, which says whose series are read")
        if SourceKind.PROMETHEUS not in scope.analysis.sources:
            return Evidence(inapplicable="the router's series are read from Prometheus, and there is none to ask")
        family = router_family(scope, kind)
        found = answers.readings(family)
        if isinstance(found, Evidence) and found.absent:
            # The team asked for this gate: that nothing is found is a fault of names, and no reason to pass it.
            looked_for = f"{family.sample}{{{family.slices[0].matchers}}}"
            return Evidence(held=f"no series match {looked_for}", source=found.source, query=found.query)
        if not isinstance(found, Readings):
            return found
        whole = found.whole.windows.whole
        window = window_of(whole, ANSWERED, FAILED, concurrent=scope.concurrent) if whole else None
        minute = last_minute(found.fast, scope)
        worse = compared(gate, found.fast, found.whole, ANSWERED, FAILED, scope, None)
        evidence = Evidence(
            value=window.canary.share if window else None,
            apart=share_apart(gate, found.whole, scope, ANSWERED, FAILED),
            stable=window.stable.share if window else None,
            samples=window.canary.total if window else 0.0,
            own=0.0,  # samples of prices go past the router
            stable_samples=window.stable.total if window else 0.0,
            recent=minute.canary_counts(ANSWERED, FAILED).share,
            exceeded=outside_abort(gate.abort, minute, ANSWERED, FAILED),
            age=router_age(found.fast, scope),
            source=found.whole.source,
            query=expression(family, scope, family.slices[0]),
            held=router_stale(found.fast, scope),
        )
        return with_comparison(evidence, worse)
