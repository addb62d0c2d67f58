"""The block `spec.analysis.prometheus`."""

from __future__ import annotations

import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.references import certificate_ref, headers_of, required_secret_key, secret_key
from pinn_operator.core.wanted.spec import BasicAuth, Prometheus

# The path by RFC 3986, without the apostrophe: tenants (`/select/0:1/prometheus`) and projects have colons.
PROMETHEUS_ADDRESS: Final = re.compile(
    r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/([A-Za-z0-9._~:@!$&()*+,;=/-]|%[0-9A-Fa-f]{2})*)?"
)
_WITH_ADDRESS: Final = (
    ("bearerTokenSecretRef", "the token is only ever sent to that server"),
    ("basicAuth", "the password is only ever sent to that server"),
    ("headers", "they are only ever sent to that server"),
    ("caRef", "only that server is trusted by it"),
)


def parse_prometheus(prometheus: Fields) -> Prometheus:
    address = prometheus.optional_text(
        "address",
        limit=1024,
        pattern=PROMETHEUS_ADDRESS,
        expected="the address of a Prometheus server like http://prometheus.monitoring:9090, no credentials, no query",
    )
    token = secret_key(prometheus, "bearerTokenSecretRef")
    parsed = Prometheus(
        address=address,
        timeout_seconds=prometheus.integer("timeoutSeconds", minimum=1, maximum=60, default=5),
        bearer_token_secret=(token.name, token.key) if token else None,
        basic_auth=_basic_auth(prometheus.child("basicAuth")),
        headers=headers_of(prometheus),
        certificate_authority=certificate_ref(prometheus, "caRef"),
    )
    for name, why in _WITH_ADDRESS:
        if prometheus.has(name) and not prometheus.has("address"):
            prometheus.fault(name, f"needs an address: {why}")
    if prometheus.has("basicAuth") and prometheus.has("bearerTokenSecretRef"):
        prometheus.fault("basicAuth", "must not be set together with bearerTokenSecretRef: keep one of the two")
    if any(header.name.lower() == "authorization" for header in parsed.headers) and (
        prometheus.has("basicAuth") or prometheus.has("bearerTokenSecretRef")
    ):
        prometheus.fault("headers", "must not hold Authorization beside basicAuth or bearerTokenSecretRef")
    if prometheus.has("caRef") and address is not None and not address.startswith("https:"):
        prometheus.fault("caRef", "is for an address that starts with https://")
    prometheus.close()
    return parsed


def _basic_auth(fields: Fields | None) -> BasicAuth | None:
    if fields is None:
        return None
    parsed = BasicAuth(
        username=required_secret_key(fields, "usernameSecretRef"),
        password=required_secret_key(fields, "passwordSecretRef"),
    )
    fields.close()
    return parsed
