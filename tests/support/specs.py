"""Hypothesis strategies: specs that the CRD accepts, specs with one thing wrong or odd, and statuses."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import EnumType
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from lab.kube import Manifest
from pinn_operator.core.status.json import CONDITION_LIMIT, EXCUSED_LIMIT, GATE_STATUS_LIMIT, POD_LINE_LIMIT
from pinn_operator.core.status.values import (
    ANNOUNCEMENT_LIMIT,
    HISTORY_LIMIT,
    MESSAGE_LIMIT,
    ORDER_LIMIT,
    TIMELINE_LIMIT,
    Status,
)
from pinn_operator.core.status.verification import STABLE_POD_LIMIT, WORST_LIMIT

BUILT_IN = {"Standard": {"error-rate", "latency-p95", "latency-p99"}, "Strict": {"error-rate", "latency-p95"}}
BUILT_IN["Flash"] = {"error-rate", "latency-p99"}
# Not router-errors: it needs routerMetrics, see `analysis`.
METRICS = ["error-rate", "latency-p50", "latency-p95", "latency-p99", "cache-hit-rate", "fallback-rate", "memory"]
METRICS += ["memory-usage", "memory-growth", "availability", "cpu-usage", "prediction-spread"]
MORE_IS_BETTER = {"cache-hit-rate", "availability", "prediction-spread"}
SHARES = {"cache-hit-rate", "fallback-rate", "memory-usage", "availability", "cpu-usage", "router-errors"}
NOT_COMPARED = {*METRICS[6:], "cache-hit-rate"}
QUERY = 'rate(x{ns="{{namespace}}",pod=~"{{ name }}-({{canary}}|{{ stable }})|{{ canaryPods }}|{{stablePods}}"}[{{ window }}])'  # noqa: E501

_LABEL = st.sampled_from(["a", "edge", "pinn-models", "0", "9-9", "a" * 63])
_SUBDOMAIN = st.sampled_from(["a", "edge", "pinn-models", "a.b-c.9", "0.0", ".".join(["a" * 63, "b" * 63])])
_KEY = st.sampled_from(["token", "ca.crt", "_", "-", "A.b-C_9", "k" * 253])
_QUALIFIED = st.sampled_from(["disk", "example.com/disk", "a.b-c/D_9.x", "A", "0/0", f"{'a' * 60}.b/{'N' * 63}"])
_LABEL_VALUE = st.sampled_from(["", "ssd", "A_b.C-9", "v" * 63])
_TEXT = st.sampled_from(["", "x", "--workers=2", "é 😀\n", "$(HOME)", "t" * 4096])
_DIGEST = st.sampled_from(["0" * 64, "9f2c" * 16])
_IMAGE = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "localhost/", "registry.example.com/", "registry.example.com:5000/", "[::1]:5000/"]),
        st.sampled_from(["a", "team/pinn-inference", "a/b/c", "a__b.c--d_e", "0"]),
        st.sampled_from(["", ":1.4.0", ":_A-b.C", ":" + "t" * 128]),
        st.sampled_from(["", "@sha256:" + "0a" * 32]),
    ),
)
_AMOUNTS = ["0", "1", "2", "250m", "1.5", "1e3", "2Gi", "768Mi", ".5", "+3", "100k", 0, 4]


def optional(required: dict[str, Any] | None = None, /, **fields_: Any) -> st.SearchStrategy[Manifest]:
    """An object with these fields, each there or not."""
    return st.fixed_dictionaries(required or {}, optional=fields_)


@cache
def resources() -> st.SearchStrategy[Manifest]:
    """Requests, and limits of other names, or the same amount for both."""
    names = st.sampled_from(["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "nvidia.com/gpu"])
    amounts = st.dictionaries(names, st.sampled_from(_AMOUNTS), max_size=4)
    return st.one_of(
        st.builds(lambda both: {"requests": both, "limits": both}, amounts),
        st.builds(lambda one: {"requests": one}, amounts),
        st.builds(lambda one: {"limits": one, "requests": {}}, amounts),
    )


@cache
def environment() -> st.SearchStrategy[list[Manifest]]:
    """Variables with a value, a source, or neither."""
    reference = optional({"name": _SUBDOMAIN, "key": _KEY}, optional=st.booleans())
    source = st.one_of(
        st.builds(lambda it: {"secretKeyRef": it}, reference), st.builds(lambda it: {"configMapKeyRef": it}, reference)
    )
    name = st.sampled_from(["A", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "a.b-c", "_", "PINN_CACHE_SIZE"])
    variable = st.one_of(
        optional({"name": name}, value=_TEXT), st.fixed_dictionaries({"name": name, "valueFrom": source})
    )
    return st.lists(variable, max_size=4, unique_by=lambda it: it["name"])


@cache
def steps() -> st.SearchStrategy[list[Manifest]]:
    """Rising weights, the last one 100."""
    rising = st.sets(st.integers(1, 99), max_size=19).map(sorted)
    return rising.flatmap(
        lambda weights: st.tuples(*[st.integers(0, 604800)] * (len(weights) + 1)).map(
            lambda holds: [
                {"weight": weight, "holdSeconds": hold} for weight, hold in zip([*weights, 100], holds, strict=True)
            ]
        )
    )


@cache
def traffic() -> st.SearchStrategy[Manifest]:
    """Either router with what belongs to it."""
    common = {
        "servicePort": st.integers(1, 65535),
        "serviceType": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
    }
    parent = optional({"name": _SUBDOMAIN, "namespace": _LABEL}, sectionName=_SUBDOMAIN, port=st.integers(1, 65535))
    prefix = st.builds(
        lambda parts, slash: "/" + "/".join(parts) + ("/" if parts and slash else ""),
        st.lists(st.sampled_from(["pricing", "v1", "A-b_c~9", "!$&()*+,;=:@", "a..b", "a."]), max_size=3),
        st.booleans(),
    )
    hostname = st.builds(lambda star, name: f"{star}{name}", st.sampled_from(["", "*."]), _SUBDOMAIN)
    return st.one_of(
        optional(router=st.just("Replicas"), parentRefs=st.just([]), pathPrefix=st.just("/"), **common),
        optional(
            {"router": st.just("HTTPRoute"), "parentRefs": st.lists(parent, min_size=1, max_size=8)},
            hostnames=st.lists(hostname, max_size=3), pathPrefix=prefix, **common,
        ),
    )  # fmt: skip


@cache
def gate(profile: str) -> st.SearchStrategy[Manifest]:
    """A change of a built-in gate, or an own one."""
    low_share, share = st.sampled_from(["0", "1m", "0.01"]), st.sampled_from(["0.02", "500m", "1"])
    small, large = st.sampled_from(["1M", "1e6", "2000k"]), st.sampled_from(["1800M", "2Gi", "1e15"])
    low, high = (
        st.sampled_from(["0", "1m", "0.01", "100u", "-1"]),
        st.sampled_from(["0.02", "500m", "1", "2", "1k", "1e2"]),
    )
    lasting = {"forSeconds": st.integers(0, 86400), "consecutive": st.integers(1, 100)}
    severity = st.sampled_from(["P0", "P1", "P2"])
    common = {
        "severity": severity,
        "action": st.sampled_from(["RollBack", "Hold", "ResetCaches", "Warn"]),
        "dryRun": st.booleans(),
    }
    relative = {
        "enabled": st.booleans(),
        "margin": st.sampled_from(["0", "0.01", "10m", "0.5", "1n"]),
        "tolerance": st.sampled_from(["1", "1.5", "99"]),
    }
    latency = relative | {"ratio": st.sampled_from(["2", "1.5", "99"]), "floor": st.sampled_from(["100m", "1", "3599"])}

    reset = {"action": st.just("ResetCaches"), "recheckSeconds": st.integers(10, 3600)}

    def built_in(name: str) -> st.SearchStrategy[Manifest]:
        kwargs = {
            "advance": optional({"below": low}),
            "abort": optional({"above": high}, **lasting),
            "relative": optional(**(latency if name.startswith("latency") else relative)),
            "minSamples": st.integers(1, 1_000_000),
            "required": st.booleans(),
            **common,
        }
        if name in MORE_IS_BETTER:
            kwargs["advance"], kwargs["abort"] = optional({"above": share}), optional({"below": low_share}, **lasting)
        if name in SHARES - MORE_IS_BETTER:
            kwargs["advance"], kwargs["abort"] = optional({"below": low_share}), optional({"above": share}, **lasting)
        if name in ("memory", "memory-growth"):
            kwargs["advance"], kwargs["abort"] = optional({"below": small}), optional({"above": large}, **lasting)
        if name in NOT_COMPARED:
            del kwargs["relative"]
        # A gate that the profile does not have must bring a bound.
        required = {"name": st.just(name)}
        if name not in BUILT_IN[profile]:
            required["abort"] = kwargs.pop("abort")
        return optional(required, **kwargs) | optional({**required, **reset}, advance=kwargs["advance"])

    query = st.sampled_from(["up", 'max(drift{revision="{{ canary }}"})', "vector(1) > 0", "up{a=~'x{2}'}", QUERY])
    own_name = st.sampled_from(["desk-drift", "latency-p96", "a", "0", "g" * 63])
    own = {"name": own_name, "query": query}
    webhook = optional(
        {"url": st.sampled_from(["https://checks.example.com/canary?desk=eu&x=%20", "http://[::1]:8080", "http://a/"])},
        secretRef=st.fixed_dictionaries({"name": _SUBDOMAIN, "key": _KEY}),
        timeoutSeconds=st.integers(1, 30),
        retries=st.integers(0, 5),
    )
    own_gate = st.one_of(
        optional({**own, "advance": optional({"below": low})}, abort=optional({"above": high}, **lasting)),
        optional({**own, "advance": optional({"above": high})}, abort=optional({"below": low})),
        optional({**own, "abort": optional({"below": low}, **lasting), **common}),
        optional({**own, "abort": optional({"below": low}), **reset}),
        optional({"name": own_name, "webhook": webhook}, abort=optional(**lasting), **common),
        optional({"name": own_name, "webhook": webhook, **reset}),
    )  # fmt: skip
    return st.sampled_from(METRICS).flatmap(built_in) | own_gate


@cache
def analysis() -> st.SearchStrategy[Manifest]:
    """Any profile, with changed gates."""
    address = st.sampled_from(
        ["http://prometheus:9090", "https://prometheus.example.com/eu/", "http://[::1]:9090", "http://10.0.0.1"]
    )
    token = st.fixed_dictionaries({"name": _SUBDOMAIN, "key": _KEY})
    certificates = optional({"name": _SUBDOMAIN, "key": _KEY}, kind=st.sampled_from(["ConfigMap", "Secret"]))
    plain = optional({"name": st.just("X-Scope-OrgID"), "value": st.sampled_from(["a", "a b|~", "v" * 1024])})
    secret = optional({"name": st.sampled_from(["0", "h" * 64, "Proxy-Authorization"]), "secretRef": token})
    headers = st.lists(plain | secret, max_size=4, unique_by=lambda it: it["name"])
    prometheus = st.one_of(
        optional(timeoutSeconds=st.integers(1, 60)),
        optional({"address": address}, bearerTokenSecretRef=token, headers=headers),
        optional(
            {"address": st.just("https://prometheus.example.com")},
            basicAuth=st.fixed_dictionaries({"usernameSecretRef": token, "passwordSecretRef": token}),
            headers=headers,
            caRef=certificates,
        ),
        st.fixed_dictionaries(
            {
                "address": address,
                "headers": st.just([{"name": "Authorization", "secretRef": {"name": "a", "key": "b"}}]),
            }
        ),
    )
    names = optional(
        requests=st.sampled_from(["a", "_", ":", "job:requests_total:rate", "M" * 128]),
        latency=st.just("request_seconds"), memory=st.just("rss"), priceSum=st.just("_0"),
        statusLabel=st.sampled_from(["code", "_", "L" * 128]), podLabel=st.sampled_from(["kubernetes_pod", "instance"]),
    )  # fmt: skip
    cadence = st.one_of(
        st.just({}),
        st.integers(2, 3600).map(lambda it: {"intervalSeconds": it}),
        st.integers(1, 30).map(lambda it: {"abortIntervalSeconds": it}),
        st.tuples(st.integers(1, 60), st.integers(60, 3600)).map(
            lambda both: {"abortIntervalSeconds": both[0], "intervalSeconds": both[1]}
        ),
    )
    base = st.sampled_from(["Standard", "Strict", "Flash", None]).flatmap(
        lambda profile: st.fixed_dictionaries(
            {"profile": st.just(profile)} if profile else {},
            optional={
                "prometheus": prometheus,
                "deadlineSeconds": st.integers(60, 604800),
                "sources": st.sampled_from([["Pods"], ["Prometheus"], ["Prometheus", "Pods"], ["Pods", "Prometheus"]]),
                "metrics": names,
                "confidence": st.sampled_from(["0.999", "950m", "0.500001"]),
                "gates": st.lists(gate(profile or "Standard"), max_size=5, unique_by=lambda it: it["name"]),
            },
        )
    )
    router_gate = optional(
        {"name": st.just("router-errors"), "abort": optional({"above": st.sampled_from(["0", "1", "50m"])})},
        relative=optional(margin=st.just("0.01")),
    )
    routed = st.one_of(
        st.just({}),
        optional({"routerMetrics": st.sampled_from(["Contour", "EnvoyGateway", "Istio", "NginxIngress"])}),
        st.fixed_dictionaries({"routerMetrics": st.just("Contour"), "gates": st.lists(router_gate, max_size=1)}),
    )
    return st.builds(lambda *parts: {**parts[0], **parts[1], **parts[2]}, base, cadence, routed)


@cache
def valid_specs() -> st.SearchStrategy[Manifest]:
    """Specs as a team may write them: every field there or not, and all rules kept."""
    probe = optional(
        path=st.sampled_from(["/", "/health", "/health?deep=1"]), periodSeconds=st.integers(1, 300),
        timeoutSeconds=st.integers(1, 60), failureThreshold=st.integers(1, 1000),
    )  # fmt: skip
    toleration = st.one_of(
        optional(
            {"operator": st.just("Exists")}, key=_QUALIFIED, effect=st.sampled_from(["NoSchedule", "PreferNoSchedule"])
        ),
        optional({"key": _QUALIFIED}, operator=st.just("Equal"), value=_LABEL_VALUE),
        st.just({"key": "a", "effect": "NoExecute", "tolerationSeconds": 5}),
    )
    path = st.sampled_from(["a", "european/2026-11", "A_b-c.9/x..y/_"])
    model = st.one_of(
        optional({"bundled": st.sampled_from(["european", "american.v2", "m" * 63])}, sha256=_DIGEST),
        optional({"persistentVolumeClaim": optional({"claimName": _SUBDOMAIN}, path=path)}, sha256=_DIGEST),
    )
    rollback = optional(
        mode=st.sampled_from(["Auto", "Hold"]), scaleDownDelaySeconds=st.integers(0, 86400),
        drainSeconds=st.integers(1, 3600), readyDeadlineSeconds=st.integers(10, 86400),
        unreadySeconds=st.integers(1, 3600), revisionHistoryLimit=st.integers(1, 20),
    )  # fmt: skip
    verification = optional(
        mode=st.sampled_from(["Required", "Auto", "Disabled"]), options=st.integers(8, 2000),
        tolerance=st.sampled_from(["1e-6", "1u", "0.1", "1n"]), timeoutSeconds=st.integers(5, 600),
        acknowledgedRevision=st.sampled_from(["9d77e0aa", "00000000"]),
    )  # fmt: skip
    strategy = optional(type=st.just("Canary"), canary=optional(steps=steps()))
    return optional(
        {"image": _IMAGE},
        imagePullPolicy=st.sampled_from(["Always", "IfNotPresent", "Never"]),
        imagePullSecrets=st.lists(optional({"name": _SUBDOMAIN}), max_size=3, unique_by=lambda it: it["name"]),
        args=st.lists(_TEXT, max_size=4), resources=resources(), env=environment(), port=st.integers(1024, 65535),
        probes=optional(readiness=probe, liveness=probe, startup=probe), serviceAccountName=_SUBDOMAIN,
        nodeSelector=st.dictionaries(_QUALIFIED, _LABEL_VALUE, max_size=3),
        tolerations=st.lists(toleration, max_size=3),
        podAnnotations=st.dictionaries(_QUALIFIED, _TEXT, max_size=3),
        terminationGracePeriodSeconds=st.integers(10, 3600), model=model, replicas=st.integers(0, 1000),
        strategy=strategy, traffic=traffic(), analysis=analysis(), rollback=rollback, paused=st.booleans(),
        verification=verification,
    )  # fmt: skip


_ODD = st.sampled_from(
    ["", " ", "0", "-1", "1Gi", "P1", "Hold", "a\n", "é", "/", "//", 0, 1, -1, 101, 3601, 2**40, 0.5, 1.0, True, False,
     None, [], {}, ["a"], {"a": "b"}, [{"name": "a"}], [{"weight": 100, "holdSeconds": 0}], "1e-30",
     "99999999999999999999"]
)  # fmt: skip


@st.composite
def odd_specs(draw: st.DrawFn) -> Manifest:
    """A valid spec in which one value, somewhere, was replaced, removed or added."""
    # Constants of a strategy are shared by all its examples.
    spec: Manifest = deepcopy(draw(valid_specs()))
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                collect(value)

    collect(spec)
    node, key = draw(st.sampled_from(places))
    match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
        case "replace":
            node[key] = deepcopy(draw(_ODD))
        case "remove":
            del node[key]
        case _ if isinstance(node, dict):
            node[draw(st.sampled_from(["extra", "name", "value", "port", "above", "below", "query"]))] = deepcopy(
                draw(_ODD)
            )
        case _:
            node.append(deepcopy(draw(_ODD)))
    return spec


_LIMITS = {
    "timeline": TIMELINE_LIMIT, "history": HISTORY_LIMIT, "gates": GATE_STATUS_LIMIT, "pods": POD_LINE_LIMIT,
    "conditions": CONDITION_LIMIT, "excused": EXCUSED_LIMIT, "worst": WORST_LIMIT,
    "stable_pods": STABLE_POD_LIMIT, "earlier": ORDER_LIMIT, "announcements": ANNOUNCEMENT_LIMIT,
}  # fmt: skip
_TIMES = st.integers(0, 3_000_000_000_000_000).map(
    lambda microseconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


@cache
def statuses(*, bounded: bool = True) -> st.SearchStrategy[Status]:
    """Statuses; without `bounded` also with strings and lists that are longer than allowed, NaN and infinity."""
    return _instances(Status, bounded)


@cache
def _instances(cls: Any, bounded: bool) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    kwargs = {item.name: _values(hints[item.name], cls, item.name, bounded) for item in fields(cls)}
    required = {name: kwargs.pop(name) for name in [item.name for item in fields(cls) if item.default is MISSING]}
    return st.fixed_dictionaries(required, optional=kwargs).map(lambda values: cls(**values))


@cache
def _values(declared: Any, cls: type, name: str, bounded: bool) -> st.SearchStrategy[Any]:
    if get_origin(declared) is tuple:
        limit = _LIMITS[name]
        items = _values(get_args(declared)[0], cls, name, bounded)
        if name == "conditions":
            return st.lists(items, max_size=2, unique_by=lambda it: it.type).map(tuple)
        counts = st.sampled_from([0, 1, 1, 1, limit if bounded else limit + 5])
        return st.builds(lambda item, count: (item,) * count, items, counts)
    if NoneType in get_args(declared):
        return st.none() | _values(get_args(declared)[0], cls, name, bounded)
    if is_dataclass(declared):
        return _instances(declared, bounded)
    if isinstance(declared, EnumType):
        return st.sampled_from(declared)
    if declared is datetime:
        return _TIMES
    if declared is float:
        return st.floats(allow_nan=not bounded, allow_infinity=not bounded)
    if declared is bool:
        return st.booleans()
    if declared is int:
        return st.integers(0, 100) if name in ("weight", "weight_in_force") else st.integers(0, 2**31 - 1)
    if cls.__name__ == "Condition" and name == "status":
        return st.sampled_from(["True", "False", "Unknown"])
    smallest = 1 if cls.__name__ == "Condition" and name in ("type", "reason") else 0
    long = "x" * (MESSAGE_LIMIT if bounded else MESSAGE_LIMIT + 7)
    return st.sampled_from(["P95", "–", "é 😀", '"\\\n', long, *([] if smallest else [""])])
