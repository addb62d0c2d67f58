"""All routers. Another one is one more line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pinn_operator.core.names import ObjectKind
from pinn_operator.core.observed import Observed
from pinn_operator.core.routers.http_route import HttpRoute
from pinn_operator.core.routers.replicas import Replicas
from pinn_operator.core.routers.router import Router
from pinn_operator.core.wanted.spec import RouterKind, Traffic

_ALL: Final[tuple[Router, ...]] = (HttpRoute(), Replicas())
"""Those with objects of their own first: Replicas needs none, so it is what is left when nothing else is found."""

ROUTERS: Final[Mapping[RouterKind, Router]] = MappingProxyType({router.kind: router for router in _ALL})

KINDS: Final[tuple[ObjectKind, ...]] = tuple(kind for router in _ALL for kind in router.kinds)
"""The kinds of all routers: what is watched and may be written beside Services."""


def router_of(traffic: Traffic) -> Router:
    """The router that a spec asks for."""
    return ROUTERS[traffic.router]


def live_router(name: str, observed: Observed) -> Router:
    """The router whose objects divide traffic now, whatever the spec asks for by now."""
    return next((router for router in _ALL if router.restore(name, observed) is not None), ROUTERS[RouterKind.REPLICAS])


def restore_traffic(name: str, observed: Observed, *, accepted: Traffic | None) -> Traffic | None:
    """`spec.traffic` as the live objects have it, for the time in which the spec cannot be read.

    `accepted` is what was wanted when it could: it holds where the objects are missing.
    """
    live = live_router(name, observed).restore(name, observed)
    if live is None or accepted is None:
        return live or accepted
    if live.router is accepted.router or router_of(live).kinds:
        return live
    # Somebody deleted the objects of the router.
    return replace(accepted, service_port=live.service_port, service_type=live.service_type)
