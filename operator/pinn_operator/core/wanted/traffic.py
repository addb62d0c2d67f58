"""The block `spec.traffic`."""

from __future__ import annotations

import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.serving import DNS_LABEL, DNS_SUBDOMAIN
from pinn_operator.core.wanted.spec import (
    ParentRef,
    RouterKind,
    Traffic,
)

SERVICE_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer")
HOSTNAME: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PATH_PREFIX: Final = re.compile(r"/|(/[-A-Za-z0-9_~!$&()*+,;=:@][-A-Za-z0-9._~!$&()*+,;=:@]*)+/?")


def parse_traffic(traffic: Fields) -> Traffic:
    router = traffic.choice("router", RouterKind, default=RouterKind.REPLICAS)
    parents = []
    for item in traffic.children("parentRefs", items=8):
        parents.append(
            ParentRef(
                name=item.text("name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a Gateway, like edge"),
                namespace=item.text(
                    "namespace", limit=63, pattern=DNS_LABEL, expected="the namespace of the Gateway, always written"
                ),
                section_name=item.optional_text(
                    "sectionName", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a listener, like https"
                ),
                port=item.optional_integer("port", minimum=1, maximum=65535),
            )
        )
        item.close()
    parsed = Traffic(
        router=router,
        parent_refs=tuple(parents),
        hostnames=traffic.texts(
            "hostnames",
            items=16,
            limit=253,
            pattern=HOSTNAME,
            expected="a DNS name in lower case, like pricing.example.com or *.example.com",
        ),
        path_prefix=traffic.text(
            "pathPrefix",
            limit=1024,
            pattern=PATH_PREFIX,
            default="/",
            expected="a path like /pricing: it starts with /, has no empty part, and no part that starts with a dot",
        ),
        service_port=traffic.integer("servicePort", minimum=1, maximum=65535, default=80),
        service_type=traffic.one_of("serviceType", SERVICE_TYPES, default="ClusterIP") or "ClusterIP",
    )
    traffic.close()
    if router is RouterKind.HTTP_ROUTE:
        if not parsed.parent_refs:
            traffic.fault("parentRefs", "router HTTPRoute needs at least one Gateway: {name: edge, namespace: edge}")
        return parsed
    for name, value, absent in (
        ("parentRefs", parsed.parent_refs, ()),
        ("hostnames", parsed.hostnames, ()),
        ("pathPrefix", parsed.path_prefix, "/"),
    ):
        if value != absent:
            traffic.fault(name, f"router {router} has no use for it: remove it, or set router to HTTPRoute")
    return parsed
