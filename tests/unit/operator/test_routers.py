"""Routers: each sees, withdraws and restores its own objects, and nothing else in the operator asks which one it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from lab.kube import REPOSITORY
from pinn_operator.core.names import Owner
from pinn_operator.core.observed import Observed, Route
from pinn_operator.core.routers.http_route import HttpRoute, parse_route, render_route
from pinn_operator.core.routers.registry import KINDS, ROUTERS, live_router
from pinn_operator.core.routers.replicas import Replicas
from pinn_operator.core.routers.router import Seen, Split
from pinn_operator.core.routers.services import render_services
from pinn_operator.core.wanted.spec import ParentRef, RouterKind, Traffic

OWNER = Owner("pinn.dev/v1alpha1", "PINNService", "eu", "pricing", "u")
TRAFFIC = Traffic(
    RouterKind.HTTP_ROUTE, (ParentRef("edge", "infra", "https", 443),), ("a.example.com",), "/v1", 8080, "NodePort"
)
SPLIT = Split("aaaa", "bbbb", 10)


def live(split: Split = SPLIT, *, route: bool = True) -> Observed:
    """What a cluster holds after `split` was written."""
    clients = split.stable if route or split.weight == 0 else None
    traffic = TRAFFIC if route else replace(TRAFFIC, router=RouterKind.REPLICAS)
    made: list[Any] = list(render_services(OWNER, traffic, split, clients=clients))
    made += [render_route(OWNER, traffic, canary_weight=split.weight)] if route else []
    parsed = parse_route(made[-1]) if route else None
    return Observed(
        objects={(item["kind"], item["metadata"]["name"]): item for item in made},
        selectors={item["metadata"]["name"]: item["spec"]["selector"] for item in made if item["kind"] == "Service"},
        route=replace(parsed, programmed=True, reason="", message="", unserved=False) if parsed else None,
    )


def test_there_is_one_router_for_each_kind_of_the_api() -> None:
    assert set(ROUTERS) == set(RouterKind)
    assert all(router.kind is kind for kind, router in ROUTERS.items())


def test_no_other_module_asks_which_router_it_is() -> None:
    core = REPOSITORY / "operator" / "pinn_operator"
    asking = [
        str(path.relative_to(core))
        for path in core.rglob("*.py")
        if "RouterKind" in path.read_text() and path.parent.name not in ("routers", "wanted")
    ]
    assert asking == []


@pytest.mark.parametrize("chart", ["default", "all-on", "namespaced"])
def test_the_chart_grants_the_kinds_of_every_router(chart: str) -> None:
    text = (REPOSITORY / "tests" / "unit" / "golden" / "chart" / f"{chart}.yaml").read_text()
    rules = [rule for item in yaml.safe_load_all(text) if item for rule in item.get("rules") or ()]
    for kind in KINDS:
        group = kind.api_version.rpartition("/")[0]
        verbs = [
            set(rule["verbs"])
            for rule in rules
            if group in rule.get("apiGroups", ()) and kind.plural in rule.get("resources", ())
        ]
        assert {"get", "list", "watch", "create", "patch", "delete"} in verbs, kind


@pytest.mark.parametrize(
    ("name", "observed", "seen"),
    [
        ("written and in force", live(), Seen(10, written=True, in_force=True)),
        ("another weight", live(replace(SPLIT, weight=50)), Seen(50, written=False, in_force=True)),
        (
            "status old",
            replace(live(), route=Route({"eu-stable": 90, "eu-canary": 10}, False, "old", "ObservedGenerationOld")),
            Seen(10, written=True, in_force=False, reason="ObservedGenerationOld", message="old"),
        ),
        (
            "deleted",
            Observed(),
            Seen(None, written=False, in_force=False, reason="RouteMissing", message="the HTTPRoute is not there yet"),
        ),
    ],
)
def test_what_is_written_is_told_apart_from_what_is_in_force(name: str, observed: Observed, seen: Seen) -> None:
    assert HttpRoute().seen("eu", SPLIT, observed) == seen, name


def test_a_cluster_without_the_gateway_api_is_named() -> None:
    seen = HttpRoute().seen("eu", SPLIT, replace(live(), route=None, route_kind_served=False))
    assert (seen.weight, seen.reason) == (None, "HTTPRouteNotServed")


@pytest.mark.parametrize("route", [True, False], ids=["HTTPRoute", "Replicas"])
def test_traffic_is_restored_as_it_was_written(route: bool) -> None:
    observed = live(route=route)
    router = live_router("eu", observed)
    wanted = TRAFFIC if route else Traffic(service_port=8080, service_type="NodePort")
    assert router.restore("eu", observed) == wanted


@pytest.mark.parametrize("route", [True, False], ids=["HTTPRoute", "Replicas"])
def test_only_a_lower_share_is_withdrawn(route: bool) -> None:
    observed = live(route=route)
    router = live_router("eu", observed)
    assert list(router.withdraw(OWNER, replace(SPLIT, weight=50), observed)) == []
    [written] = router.withdraw(OWNER, replace(SPLIT, weight=0), observed)
    assert written["kind"] == ("HTTPRoute" if route else "Service")


def test_nothing_is_withdrawn_to_where_nobody_serves() -> None:
    observed = live()
    lost = replace(observed, selectors={**observed.selectors, "eu-stable": {"pinn.dev/service": "eu"}})
    assert list(HttpRoute().withdraw(OWNER, replace(SPLIT, weight=0), lost)) == []


@pytest.mark.parametrize(
    ("router", "capacities"),
    [(Replicas(), {0: 1, 10: 1, 50: 3, 90: 3, 100: 3}), (HttpRoute(), {0: 1, 10: 1, 50: 2, 90: 3, 100: 3})],
)
def test_capacity(router: Replicas | HttpRoute, capacities: dict[int, int]) -> None:
    assert {weight: router.capacity(3, weight) for weight in capacities} == capacities
    assert [router.capacity(0, weight) for weight in capacities] == [0] * len(capacities)
