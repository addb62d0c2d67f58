"""What a pass starts from: the resource, its children, and the spec that is in force. Built once per pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pinn_operator.core.api import Resource
from pinn_operator.core.names import REVISION_LABEL, canary_service_name, stable_service_name
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.registry import restore_traffic
from pinn_operator.core.wanted.parsing import REPLICA_LIMIT
from pinn_operator.core.wanted.revision import revision_of
from pinn_operator.core.wanted.spec import InvalidSpec, SourceKind, Spec, Traffic


@dataclass(frozen=True, slots=True)
class Situation:
    """What the questions are asked for and what is decided by."""

    resource: Resource
    observed: Observed
    spec: Spec | None
    """The spec in force: the resource's own, or the last valid one; None if there has never been one."""
    target: str | None
    """Revision of the resource's spec; None while that is invalid."""


def situation_of(resource: Resource, observed: Observed, *, has_prometheus: bool = True) -> Situation:
    """From what was read in this pass.

    Without a Prometheus of the operator's, and none in the spec, the pods' own counters alone judge, if the spec lets
    them: `spec.analysis.sources` of the result says so.
    """
    spec = accepted_spec(resource, observed)
    return Situation(
        resource=resource,
        observed=observed,
        spec=spec if has_prometheus or spec is None else _without_prometheus(spec),
        target=None if isinstance(resource.spec, InvalidSpec) else revision_of(resource.spec.serving),
    )


def _without_prometheus(spec: Spec) -> Spec:
    analysis = spec.analysis
    if analysis.prometheus.address is not None or SourceKind.PODS not in analysis.sources:
        return spec
    return replace(spec, analysis=replace(analysis, sources=(SourceKind.PODS,)))


def accepted_spec(resource: Resource, observed: Observed) -> Spec | None:
    """The spec whose gates are armed, or None if there has never been a valid one.

    An invalid new spec must not disarm the rollout in flight, so the newest valid one stays in force until the fault is
    fixed: it is recorded with the revision that it asked for. Where that has no record, the one of the canary, or else
    of the stable revision, or else the newest that is left. A record follows every valid edit; whoever scaled since, or
    changed what it could not be told of, is heeded by keeping what is there and holding the weight. Without a status,
    it is the Services that tell which revisions these are, as for the status that is written next.
    """
    if not isinstance(resource.spec, InvalidSpec):
        return resource.spec
    status = resource.status
    serving = [known.revision for known in (status.canary, status.stable) if known]
    if status.stable is None:
        services = canary_service_name(resource.name), stable_service_name(resource.name)
        serving = [found for service in services if (found := serving_revision(observed, service))]
    spec = next(_recorded(observed, [status.target, *serving]), None)
    if spec is None:
        return None
    traffic = restore_traffic(resource.name, observed, accepted=spec.traffic)
    replicas = _replicas(resource, observed, spec)
    return replace(spec, replicas=replicas, paused=True, traffic=traffic or spec.traffic)


def serving_revision(observed: Observed, service: str) -> str | None:
    """The revision that a Service selects, if it serves and its Deployment could be written again."""
    revision = observed.selectors.get(service, {}).get(REVISION_LABEL, "")
    return revision if revision in observed.records and observed.available(revision) > 0 else None


def _recorded(observed: Observed, revisions: Sequence[str]) -> Iterator[Spec]:
    """The accepted specs that are recorded: of these revisions first, then of all others, the newest first."""
    newest_first = sorted(observed.records.values(), key=lambda record: -record.number)
    for record in (*map(observed.records.get, revisions), *newest_first):
        if record is not None and record.spec is not None:
            yield record.spec


def traffic_in_force(resource: Resource, observed: Observed, *, revisions: Sequence[str]) -> Traffic | None:
    """How clients reach the service. An invalid spec leaves that as it is; None if it never was.

    What is missing then is taken from the accepted spec of the first of `revisions` that has a record, or else from the
    newest record that is left.
    """
    if isinstance(resource.spec, Spec):
        return resource.spec.traffic
    accepted = next((spec.traffic for spec in _recorded(observed, revisions)), None)
    return restore_traffic(resource.name, observed, accepted=accepted)


def _replicas(resource: Resource, observed: Observed, recorded: Spec) -> int:
    """As written, if that much of the spec can be used (an autoscaler writes it), or as they are."""
    written = resource.spec_manifest.get("replicas")
    if isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= REPLICA_LIMIT:
        return written
    stable = resource.status.stable
    workload = observed.workloads.get(stable.revision) if stable else None
    return workload.replicas if workload else recorded.replicas
