"""References to Secrets and ConfigMaps of the resource's namespace, and what may be sent to a server with them."""

from __future__ import annotations

import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.serving import DNS_SUBDOMAIN
from pinn_operator.core.wanted.spec import CertificateRef, Header, SecretKey

DATA_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?")
HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
HEADER_LIMIT: Final = 16
CERTIFICATE_KINDS: Final = ("ConfigMap", "Secret")
RESERVED_HEADERS: Final = (
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "te", "trailer", "transfer-encoding", "upgrade",
)  # fmt: skip
"""Headers that the HTTP client sets itself: another value would change what is sent, or to whom."""


def secret_key(fields: Fields, name: str) -> SecretKey | None:
    """The reference `name` to a key of a Secret; None when it is absent."""
    reference = fields.child(name)
    if reference is None:
        return None
    parsed = SecretKey(
        name=reference.text(
            "name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a Secret in this namespace"
        ),
        key=reference.text("key", limit=253, pattern=DATA_KEY, expected="a key of its data, like token"),
    )
    reference.close()
    return parsed


def required_secret_key(fields: Fields, name: str) -> SecretKey:
    """As `secret_key`; a fault when it is absent."""
    fields.require(name, "a key of a Secret, like {name: metrics, key: password}")
    return secret_key(fields, name) or SecretKey("", "")


def headers_of(fields: Fields) -> tuple[Header, ...]:
    """The list `headers`; no name twice, in whatever letters."""
    found = []
    names: set[str] = set()
    for item in fields.children("headers", items=HEADER_LIMIT):
        name = item.text("name", limit=64, pattern=HEADER_NAME, expected="the name of a header like X-Scope-OrgID")
        value = item.optional_text(
            "value", limit=1024, pattern=HEADER_VALUE, expected="one line of ASCII without spaces around it"
        )
        secret = secret_key(item, "secretRef")
        if item.has("value") == item.has("secretRef"):
            item.fault("", "must have exactly one of value and secretRef")
        if name.lower() in RESERVED_HEADERS:
            item.fault("name", f"{name} is set by the operator: remove it")
        if name.lower() == "authorization" and item.has("value"):
            item.fault("value", "Authorization is a secret: use secretRef")
        if name.lower() in names:
            item.fault("name", f"{name!r} is there twice; each header may be sent once")
        names.add(name.lower())
        item.close()
        found.append(Header(name, value, secret))
    return tuple(found)


def certificate_ref(fields: Fields, name: str) -> CertificateRef | None:
    """The reference `name` to PEM certificates; None when it is absent."""
    reference = fields.child(name)
    if reference is None:
        return None
    kind = reference.one_of("kind", CERTIFICATE_KINDS, default="ConfigMap") or "ConfigMap"
    parsed = CertificateRef(
        kind=kind,
        name=reference.text(
            "name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a ConfigMap or Secret in this namespace"
        ),
        key=reference.text("key", limit=253, pattern=DATA_KEY, expected="a key of its data, like ca.crt"),
    )
    reference.close()
    return parsed
