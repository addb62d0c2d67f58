"""The block `spec.analysis` but for its gates."""

from __future__ import annotations

import re
from typing import Final

from pinn_operator.core.wanted.fields import Fields
from pinn_operator.core.wanted.gates import parse_gates
from pinn_operator.core.wanted.serving import DNS_SUBDOMAIN
from pinn_operator.core.wanted.spec import (
    Analysis,
    Profile,
    Prometheus,
)

PROMETHEUS_ADDRESS: Final = re.compile(
    r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")


def parse_analysis(analysis: Fields) -> Analysis:
    profile = analysis.choice("profile", Profile, default=Profile.STANDARD)
    interval = analysis.integer("intervalSeconds", minimum=1, maximum=3600, default=30)
    abort_interval = analysis.integer("abortIntervalSeconds", minimum=1, maximum=60, default=2)
    if abort_interval > interval:
        analysis.fault(
            "abortIntervalSeconds", f"must be at most intervalSeconds, which is {interval}, not {abort_interval}"
        )
    parsed = Analysis(
        prometheus=_prometheus(analysis.child_or_empty("prometheus")),
        profile=profile,
        gates=parse_gates(analysis, profile),
        interval_seconds=interval,
        abort_interval_seconds=abort_interval,
        deadline_seconds=analysis.integer("deadlineSeconds", minimum=60, maximum=604800, default=3600),
    )
    analysis.close()
    return parsed


def _prometheus(prometheus: Fields) -> Prometheus:
    address = prometheus.optional_text(
        "address",
        limit=1024,
        pattern=PROMETHEUS_ADDRESS,
        expected="the address of a Prometheus server like http://prometheus.monitoring:9090, no credentials, no query",
    )
    token = prometheus.child("bearerTokenSecretRef")
    secret = None
    if token is not None:
        secret = (
            token.text("name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a Secret in this namespace"),
            token.text("key", limit=253, pattern=_SECRET_KEY, expected="a key of that Secret, like token"),
        )
        token.close()
        if address is None:
            prometheus.fault("bearerTokenSecretRef", "needs an address: the token is only ever sent to that server")
    parsed = Prometheus(
        address=address,
        timeout_seconds=prometheus.integer("timeoutSeconds", minimum=1, maximum=60, default=5),
        bearer_token_secret=secret,
    )
    prometheus.close()
    return parsed
