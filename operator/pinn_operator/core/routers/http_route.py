"""The Gateway API: one HTTPRoute, owned whole, whose two weights are percents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import (
    ObjectKind,
    Owner,
    canary_service_name,
    labels_of,
    placement,
    stable_service_name,
)
from pinn_operator.core.observed import Observed, Route
from pinn_operator.core.routers.router import Seen, Split
from pinn_operator.core.routers.services import leads_to_stable, render_services, restore_services
from pinn_operator.core.text import cut
from pinn_operator.core.wanted.spec import ParentRef, RouterKind, Traffic

_GROUP: Final = "gateway.networking.k8s.io"
HTTP_ROUTE: Final = ObjectKind(f"{_GROUP}/v1", "HTTPRoute", "httproutes")
_TEXT_LIMIT: Final = 1024


class HttpRoute:
    """See `Router`."""

    kind = RouterKind.HTTP_ROUTE
    kinds = (HTTP_ROUTE,)
    by_replicas = False

    def capacity(self, replicas: int, weight: int) -> int:
        """Capacity follows the share: ceil(n·w/100), at least 1, n at 100 %.

        >>> [HttpRoute().capacity(3, weight) for weight in (10, 50, 100)]
        [1, 2, 3]
        """
        return min(replicas, max(1, ceil(replicas * weight / 100)))

    def clients_revision(self, split: Split) -> str | None:
        return split.stable

    def objects(self, owner: Owner, traffic: Traffic, split: Split, observed: Observed) -> Iterator[Manifest]:
        """The Services, and the HTTPRoute where the API server knows it."""
        yield from render_services(owner, traffic, split, clients=split.stable)
        if observed.route_kind_served:
            yield render_route(owner, traffic, canary_weight=split.weight)

    def withdraw(self, owner: Owner, split: Split, observed: Observed) -> Iterator[Manifest]:
        live = self.restore(owner.name, observed)
        if live is None or observed.route is None or not leads_to_stable(owner.name, split, observed):
            return
        if observed.route.weights.get(canary_service_name(owner.name), 0) > split.weight:
            yield render_route(owner, live, canary_weight=split.weight)

    def seen(self, name: str, split: Split, observed: Observed) -> Seen:
        if not observed.route_kind_served:
            text = "the cluster has no Gateway API: install it, or use router Replicas"
            return Seen(None, written=False, in_force=False, reason="HTTPRouteNotServed", message=text, unserved=True)
        route = observed.route
        if route is None:
            text = "the HTTPRoute is not there yet"
            return Seen(None, written=False, in_force=False, reason="RouteMissing", message=text)
        wanted = {stable_service_name(name): 100 - split.weight, canary_service_name(name): split.weight}
        return Seen(
            route.weights.get(canary_service_name(name), 0),
            written=dict(route.weights) == wanted,
            in_force=route.programmed,
            reason="" if route.programmed else route.reason or "RouteNotAccepted",
            message=route.message,
            unserved=route.unserved,
        )

    def restore(self, name: str, observed: Observed) -> Traffic | None:
        service, route = restore_services(name, observed), observed.objects.get((HTTP_ROUTE.kind, name))
        if service is None or route is None:
            return None
        spec = route["spec"]
        return replace(
            service,
            router=self.kind,
            parent_refs=tuple(
                ParentRef(
                    name=parent["name"],
                    namespace=parent.get("namespace", route["metadata"].get("namespace")),
                    section_name=parent.get("sectionName"),
                    port=parent.get("port"),
                )
                for parent in spec.get("parentRefs", ())
            ),
            hostnames=tuple(spec.get("hostnames", ())),
            path_prefix=_live_path(spec),
        )


def render_route(owner: Owner, traffic: Traffic, *, canary_weight: int) -> dict[str, Any]:
    """The HTTPRoute: one rule whose weights, in percent, sum to 100.

    Empty lists are written too, so that a hostname or filter that someone adds by hand is seen as a difference.
    Raises ValueError if the weight is outside 0–100.
    """
    if not 0 <= canary_weight <= 100:
        raise ValueError(f"canary weight {canary_weight} is outside 0–100")
    weights = (
        (stable_service_name(owner.name), 100 - canary_weight),
        (canary_service_name(owner.name), canary_weight),
    )
    return {
        "apiVersion": HTTP_ROUTE.api_version,
        "kind": HTTP_ROUTE.kind,
        "metadata": {"name": owner.name, "labels": labels_of(owner.name), **placement(owner)},
        "spec": {
            "parentRefs": [_parent(parent) for parent in traffic.parent_refs],
            "hostnames": list(traffic.hostnames),
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": traffic.path_prefix}}],
                    "filters": [],
                    "backendRefs": [
                        {"group": "", "kind": "Service", "name": name, "port": traffic.service_port, "weight": weight}
                        for name, weight in weights
                    ],
                }
            ],
        },
    }


def parse_route(manifest: Manifest) -> Route:
    """An HTTPRoute. A backend that several rules name counts with its largest weight: that is what it may receive."""
    weights: dict[str, int] = {}
    spec: Mapping[str, Any] = manifest.get("spec") or {}
    for rule in spec.get("rules") or ():
        for backend in rule.get("backendRefs") or ():
            if backend.get("kind", "Service") == "Service":
                weight = backend.get("weight")
                name = str(backend.get("name"))
                # 1 is the Gateway API's default.
                weights[name] = max(weights.get(name, 0), 1 if weight is None else int(weight))
    faults = list(_route_faults(manifest))
    parents = len(spec.get("parentRefs") or ())
    return Route(
        weights=weights,
        programmed=not faults,
        reason=faults[0].reason if faults else "",
        message=cut("; ".join(fault.text for fault in faults), _TEXT_LIMIT),
        unserved=len(faults) >= max(parents, 1) and all(fault.unserved for fault in faults),
    )


def _parent(parent: ParentRef) -> dict[str, Any]:
    reference: dict[str, Any] = {
        "group": _GROUP,
        "kind": "Gateway",
        "namespace": parent.namespace,
        "name": parent.name,
    }
    if parent.section_name:
        reference["sectionName"] = parent.section_name
    if parent.port:
        reference["port"] = parent.port
    return reference


def _live_path(route_spec: Manifest) -> str:
    rule: Manifest = next(iter(route_spec.get("rules") or ()), {})
    match: Manifest = next(iter(rule.get("matches") or ()), {})
    return str((match.get("path") or {}).get("value", "/"))


@dataclass(frozen=True, slots=True)
class _Fault:
    """What a parent still lacks; `unserved` if it sends nobody by the route."""

    reason: str
    text: str
    unserved: bool = False


def _route_faults(manifest: Manifest) -> Iterable[_Fault]:
    """What each wanted parent still lacks (Gateway API, RouteParentStatus).

    Wanted is what the route's own spec names: after a route has moved, the old Gateway's entry stays in the status.
    """
    metadata = manifest["metadata"]
    namespace, generation = metadata.get("namespace"), int(metadata.get("generation") or 0)
    wanted = (manifest.get("spec") or {}).get("parentRefs") or ()
    entries = (manifest.get("status") or {}).get("parents") or ()
    if not wanted:
        yield _Fault("RouteNotAccepted", "the route names no parent", unserved=True)
    for parent in wanted:
        name = f"{parent.get('namespace', namespace)}/{parent.get('name')}"
        matching = [item for item in entries if _same_parent(item.get("parentRef") or {}, parent, namespace)]
        if not matching:
            yield _Fault("RouteStatusAbsent", f"gateway {name} has not taken the route up", unserved=True)
            continue
        # Several controllers may report on one parent; one that serves it is enough.
        faults = [list(_parent_faults(item, generation)) for item in matching]
        if all(faults):
            first = faults[0][0]
            unserved = all(fault.unserved for fault, *_ in faults)
            yield _Fault(first.reason, f"gateway {name}: {first.text}", unserved)


def _same_parent(left: Mapping[str, Any], right: Mapping[str, Any], namespace: str | None) -> bool:
    def identity(parent: Mapping[str, Any]) -> tuple[object, ...]:
        return (
            parent.get("group", _GROUP),
            parent.get("kind", "Gateway"),
            parent.get("namespace", namespace),
            parent.get("name"),
            parent.get("sectionName"),
            parent.get("port"),
        )

    return identity(left) == identity(right)


def _parent_faults(entry: Mapping[str, Any], generation: int) -> Iterable[_Fault]:
    conditions = {item.get("type"): item for item in entry.get("conditions") or ()}
    for kind, refused in (("Accepted", "RouteNotAccepted"), ("ResolvedRefs", "RouteNotResolved")):
        condition = conditions.get(kind)
        if condition is None:
            yield _Fault("RouteStatusAbsent", f"{kind} is not reported yet")
        elif condition.get("observedGeneration") is None:
            yield _Fault("ObservedGenerationAbsent", f"{kind} does not say which generation of the route it is about")
        elif int(condition["observedGeneration"]) != generation:
            yield _Fault("ObservedGenerationOld", f"{kind} is of an older generation of the route")
        elif condition.get("status") != "True":
            reason, message = condition.get("reason", ""), condition.get("message", "")
            text = f"{kind} is {condition.get('status')}: {reason} {message}".strip()
            yield _Fault(refused, text, unserved=kind == "Accepted")
