"""From what `decide` wants to the writes that are missing, in the order that is safe.

Traffic that the canary loses goes first, so that no other write that fails can keep it. Otherwise capacity is added
before traffic moves, and removed after. An object is written when it does not hold what we want,
because the wish changed or because someone edited it, and otherwise not at all: a pass without news writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pinn_operator.core.api import API_VERSION, KIND, Resource
from pinn_operator.core.decision import Action, Apply, Delete
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.objects.render import (
    Owner,
    canary_service_name,
    render_deployment,
    render_record,
    render_route,
    render_service,
    render_workload,
    selector_of,
    stable_service_name,
    workload_name,
)
from pinn_operator.core.observed import Observed
from pinn_operator.core.wanted.quantity import canonical_quantity
from pinn_operator.core.wanted.revision import revision_of
from pinn_operator.core.wanted.spec import ParentRef, RouterKind, Spec, Traffic

DIGEST_ANNOTATION: Final = "pinn.dev/manifest-digest"
"""Digest of the manifest that was last applied: shows that a field was taken out of it, which `covers` cannot see."""

_ATOMIC_MAPS: Final = frozenset({"selector", "matchLabels", "nodeSelector"})
"""Maps that server-side apply replaces as a whole, so that a key too many counts as a difference."""
_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that server-side apply merges by key: elements of other managers may stand beside ours."""
_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})


@dataclass(frozen=True, slots=True)
class Desired:
    """What shall be: which revisions run, and where traffic goes."""

    replicas: Mapping[str, int]
    """Every revision whose Deployment shall exist, 0 allowed. Others are left alone unless forgotten."""
    stable: str
    """The revision that `<name>-stable` selects, and with an HTTPRoute the clients' Service `<name>` too."""
    canary: str
    """The revision that `<name>-canary` selects: `stable` when there is no canary."""
    canary_weight: int
    """Percent."""
    new_revision: str | None = None
    """A revision to be recorded from the resource's own spec."""
    forget: tuple[str, ...] = ()
    """Revisions whose Deployment and record are deleted."""


def plan(resource: Resource, desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """The writes that are missing, in safe order.

    What takes traffic from the canary, records, Deployments that grow or are new, Services, the HTTPRoute, Deployments
    that shrink, deletions.
    A revision that is not `reproducible` gets no Deployment. Raises ValueError if the weight is outside 0–100 or a
    revision is both kept and forgotten, which `decide` never asks for.
    """
    _check(desired)
    owner = Owner(API_VERSION, KIND, resource.name, resource.namespace, resource.uid)
    records: list[Manifest] = []
    growing: list[Manifest] = []
    shrinking: list[Manifest] = []
    numbers = [record.number for record in observed.records.values()]
    for revision in sorted({*desired.replicas, *([desired.new_revision] if desired.new_revision else [])}):
        record = _record(resource, revision, observed)
        if record is None:
            continue
        if revision not in observed.records:
            numbers.append(max(numbers, default=0) + 1)
            records.append(render_record(owner, revision, number=numbers[-1], data=record))
        elif adopted := _adopted_record(owner, revision, observed):
            records.append(adopted)
        if revision in desired.replicas:
            replicas = desired.replicas[revision]
            manifest = render_deployment(owner, record["workload"], replicas)
            shrinks = replicas < _live_replicas(resource.name, revision, observed)
            (shrinking if shrinks else growing).append(manifest)
    traffic = traffic_in_force(resource, observed, revisions=(desired.canary, desired.stable))
    routing = _routing(owner, traffic, desired, observed) if traffic else ()
    first = list(_changed(tuple(_withdrawal(owner, desired, observed)), observed))
    writes = [*records, *_changed((*growing, *routing, *shrinking), observed)]
    writes = [*first, *(manifest for manifest in writes if manifest not in first)]
    return (*(Apply(manifest) for manifest in writes), *_deletions(owner, traffic, desired, observed))


def reproducible(resource: Resource, revision: str, observed: Observed) -> bool:
    """Whether the Deployment of a revision can be written: from its record, from the spec, or from what runs."""
    return _record(resource, revision, observed) is not None


def covers(live: Any, desired: Any, *, field: str = "") -> bool:
    """Whether `live` holds every field of `desired` with its value; what the API server adds does not matter.

    Follows the merge rules of server-side apply: lists with a key are compared by key, other lists element by element,
    atomic maps exactly. Quantities are compared by value. Empty strings and containers equal absent ones, because the
    API server leaves them out.
    """
    if live is None:
        return desired is None or desired in ("", [], {}, ())
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping) or (field in _ATOMIC_MAPS and not live.keys() <= desired.keys()):
            return False
        inner = "quantity" if field in _QUANTITY_MAPS else None
        return all(covers(live.get(key), value, field=inner or key) for key, value in desired.items())
    if isinstance(desired, (list, tuple)):
        return isinstance(live, (list, tuple)) and _covers_list(live, desired, _LIST_KEYS.get(field))
    if field == "quantity":
        return canonical_quantity(live) == canonical_quantity(desired)
    return type(live) is type(desired) and bool(live == desired)


def _covers_list(live: Sequence[Any], desired: Sequence[Any], keys: tuple[str, ...] | None) -> bool:
    if keys is None:
        return len(live) == len(desired) and all(map(covers, live, desired))
    by_key = {tuple(item.get(key) for key in keys): item for item in live}
    return all(covers(by_key.get(tuple(item.get(key) for key in keys)), item) for item in desired)


def _check(desired: Desired) -> None:
    if not 0 <= desired.canary_weight <= 100:
        raise ValueError(f"canary weight {desired.canary_weight} is outside 0–100")
    both = sorted({*desired.replicas, desired.stable, desired.canary} & set(desired.forget))
    if both:
        raise ValueError(f"revisions are both kept and forgotten: {', '.join(both)}")


def _record(resource: Resource, revision: str, observed: Observed) -> Manifest | None:
    """The data of a revision's record: as recorded, or else rendered from the spec, or else taken from what runs."""
    recorded = observed.records.get(revision)
    if recorded is not None and recorded.workload:
        return {"workload": recorded.workload}
    if isinstance(resource.spec, Spec) and revision_of(resource.spec.serving) == revision:
        workload = render_workload(resource.name, revision, resource.spec.serving)
        return {"workload": workload, "spec": resource.spec_manifest}
    live = observed.objects.get(("Deployment", workload_name(resource.name, revision)))
    if live is None:
        return None
    metadata = {"name": live["metadata"]["name"], "labels": live["metadata"].get("labels") or {}}
    spec = {key: value for key, value in live["spec"].items() if key != "replicas"}
    return {"workload": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}}


def _adopted_record(owner: Owner, revision: str, observed: Observed) -> Manifest | None:
    """The record with our owner reference, if it lost its own: the resource was deleted without its objects."""
    live = observed.objects.get(("ControllerRevision", workload_name(owner.name, revision)))
    if live is None or _belongs(live, owner):
        return None
    return render_record(owner, revision, number=live["revision"], data=live["data"])


def _live_replicas(service: str, revision: str, observed: Observed) -> int:
    live = observed.objects.get(("Deployment", workload_name(service, revision)))
    return int(live["spec"].get("replicas", 1)) if live else 0


def traffic_in_force(resource: Resource, observed: Observed, *, revisions: Sequence[str]) -> Traffic | None:
    """How clients shall reach the service. An invalid spec leaves that as it is; None if it never was.

    What is missing then is taken from the first of `revisions` whose accepted spec is recorded.
    """
    if isinstance(resource.spec, Spec):
        return resource.spec.traffic
    records = (observed.records.get(revision) for revision in revisions)
    accepted = next((record.spec.traffic for record in records if record and record.spec), None)
    service = observed.objects.get(("Service", resource.name))
    if service is None:
        return accepted
    live = _live_traffic(service, observed.objects.get(("HTTPRoute", resource.name)))
    if accepted is None or live.router is accepted.router or live.router is RouterKind.HTTP_ROUTE:
        return live
    # Somebody deleted the route.
    return replace(accepted, service_port=live.service_port, service_type=live.service_type)


def _live_traffic(service: Manifest, route: Manifest | None) -> Traffic:
    first_port: Manifest = next(iter(service["spec"].get("ports") or ()), {})
    port = int(first_port.get("port", Traffic().service_port))
    service_type = str(service["spec"].get("type", "ClusterIP"))
    if route is None:
        return Traffic(service_port=port, service_type=service_type)
    spec = route["spec"]
    return Traffic(
        router=RouterKind.HTTP_ROUTE,
        parent_refs=tuple(
            ParentRef(
                name=parent["name"],
                namespace=parent.get("namespace", service["metadata"]["namespace"]),
                section_name=parent.get("sectionName"),
                port=parent.get("port"),
            )
            for parent in spec.get("parentRefs", ())
        ),
        hostnames=tuple(spec.get("hostnames", ())),
        path_prefix=_live_path(spec),
        service_port=port,
        service_type=service_type,
    )


def _live_path(route_spec: Manifest) -> str:
    rule: Manifest = next(iter(route_spec.get("rules") or ()), {})
    match: Manifest = next(iter(rule.get("matches") or ()), {})
    return str((match.get("path") or {}).get("value", "/"))


def _withdrawal(owner: Owner, desired: Desired, observed: Observed) -> Iterator[Manifest]:
    """What lowers the canary's share and changes nothing else: a Service of a new type that a quota forbids, say, must
    not keep the traffic where it is."""
    service, route = (observed.objects.get((kind, owner.name)) for kind in ("Service", "HTTPRoute"))
    stable = observed.objects.get(("Service", stable_service_name(owner.name)))
    selector = selector_of(owner.name, desired.stable)
    if service is None or stable is None or stable["spec"].get("selector") != selector:
        # There is nowhere to lead it to yet.
        return
    live = _live_traffic(service, route)
    if route is not None:
        if _live_weight(route, canary_service_name(owner.name)) > desired.canary_weight:
            yield render_route(owner, live, canary_weight=desired.canary_weight)
    elif desired.canary_weight == 0 and service["spec"].get("selector") != selector:
        port = live.service_port
        yield render_service(owner, owner.name, selector=selector, port=port, service_type=live.service_type)


def _live_weight(route: Manifest, backend: str) -> int:
    """The largest weight that a rule gives to a Service; 1 is the Gateway API's default."""
    references = (item for rule in route["spec"].get("rules") or () for item in rule.get("backendRefs") or ())
    return max((int(item.get("weight", 1)) for item in references if item.get("name") == backend), default=0)


def _routing(owner: Owner, traffic: Traffic, desired: Desired, observed: Observed) -> Iterator[Manifest]:
    """The Services, and the HTTPRoute where the API server knows it."""
    selector = selector_of(owner.name, _clients_revision(traffic, desired))
    port = traffic.service_port
    yield render_service(owner, owner.name, selector=selector, port=port, service_type=traffic.service_type)
    backends = (stable_service_name(owner.name), desired.stable), (canary_service_name(owner.name), desired.canary)
    for name, revision in backends:
        yield render_service(owner, name, selector=selector_of(owner.name, revision), port=port)
    if traffic.router is RouterKind.HTTP_ROUTE and observed.route_kind_served:
        yield render_route(owner, traffic, canary_weight=desired.canary_weight)


def _clients_revision(traffic: Traffic, desired: Desired) -> str | None:
    """The revision that the clients' Service selects; None for both, where the ratio of replicas is the weight."""
    if traffic.router is RouterKind.HTTP_ROUTE or desired.canary_weight == 0:
        return desired.stable
    return desired.canary if desired.canary_weight == 100 else None


def _changed(manifests: Sequence[Manifest], observed: Observed) -> Iterator[Manifest]:
    for manifest in manifests:
        metadata = manifest["metadata"]
        annotations = {**(metadata.get("annotations") or {}), DIGEST_ANNOTATION: _digest(manifest)}
        stamped = {**manifest, "metadata": {**metadata, "annotations": annotations}}
        # Items of a LIST carry neither apiVersion nor kind.
        content = {key: value for key, value in stamped.items() if key not in ("apiVersion", "kind")}
        if not covers(observed.objects.get((manifest["kind"], metadata["name"])), content):
            yield stamped


def _digest(manifest: Manifest) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _deletions(owner: Owner, traffic: Traffic | None, desired: Desired, observed: Observed) -> Iterator[Delete]:
    """Deployments before their records: a revision without a record could not be written again."""
    doomed = [
        ("apps/v1", kind, workload_name(owner.name, revision))
        for revision in desired.forget
        for kind in ("Deployment", "ControllerRevision")
    ]
    if traffic is not None and traffic.router is not RouterKind.HTTP_ROUTE:
        doomed.insert(0, ("gateway.networking.k8s.io/v1", "HTTPRoute", owner.name))
    for api_version, kind, name in doomed:
        live = observed.objects.get((kind, name))
        if live is not None and _belongs(live, owner):
            yield Delete(api_version, kind, name)


def _belongs(live: Manifest, owner: Owner) -> bool:
    return any(reference.get("uid") == owner.uid for reference in live["metadata"].get("ownerReferences") or ())
