"""Checks the serving fields of a `spec`: those a pod is made from. They stay JSON: they are hashed as written."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from pinn_operator.core.wanted.fields import Fields, as_stored
from pinn_operator.core.wanted.quantity import parse_quantity

DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

IMAGE: Final = re.compile(
    r"((\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_DATA_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_QUALIFIED_NAME: Final = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_RESOURCE_NAME: Final = re.compile(
    r"cpu|memory|ephemeral-storage|hugepages-[A-Za-z0-9]{1,16}"
    r"|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
PROBE_PATH: Final = re.compile(r"/[-A-Za-z0-9._~!$&()*+,;=:@%/?]*")
_MODEL_NAME: Final = DNS_SUBDOMAIN
VOLUME_PATH: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_OWN_ENVIRONMENT: Final = (
    "PINN_SERVICE", "PINN_REVISION", "PINN_PORT", "PINN_MODEL", "PINN_MODEL_DIR", "PINN_MODEL_SHA256",
)  # fmt: skip
_OWN_ANNOTATIONS: Final = "pinn.dev/"


def check_serving(spec: Fields) -> None:
    """Records every fault of the serving fields of `spec`."""
    spec.text(
        "image",
        limit=512,
        pattern=IMAGE,
        expected="an image reference like registry.example.com/pinn-inference:1.4.0, its repository in lower case",
    )
    spec.one_of("imagePullPolicy", ("Always", "IfNotPresent", "Never"))
    for item in spec.children("imagePullSecrets", items=16, key="name"):
        item.text("name", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a Secret in this namespace")
        item.close()
    spec.texts("args", items=64, limit=4096)
    _resources(spec.child_or_empty("resources"))
    for item in spec.children("env", items=128, key="name"):
        _environment(item)
    spec.optional_integer("port", minimum=1024, maximum=65535)
    probes = spec.child_or_empty("probes")
    for name in ("readiness", "liveness", "startup"):
        _probe(probes.child_or_empty(name))
    probes.close()
    spec.optional_text(
        "serviceAccountName",
        limit=253,
        pattern=DNS_SUBDOMAIN,
        expected="the name of a ServiceAccount in this namespace",
    )
    _names(spec, "nodeSelector", items=32, limit=63, pattern=_LABEL_VALUE)
    for item in spec.children("tolerations", items=32):
        _toleration(item)
    _names(spec, "podAnnotations", items=64, limit=4096, pattern=None)
    spec.optional_integer("terminationGracePeriodSeconds", minimum=10, maximum=3600)
    _model(spec.child("model"))


def _resources(resources: Fields) -> None:
    amounts: dict[str, dict[str, Decimal]] = {}
    for kind in ("requests", "limits"):
        amounts[kind] = {}
        for name, value in resources.mapping(kind, items=16):
            path = f"{kind}[{name}]"
            if _RESOURCE_NAME.fullmatch(str(name)) is None:
                resources.fault(path, "must be cpu, memory, ephemeral-storage, hugepages-<size> or <domain>/<name>")
            amount = _amount(value)
            if amount is None or amount < 0 or len(str(value)) > 32:
                resources.fault(path, f"must be a quantity of 0 or more, like 500m or 2Gi, not {value!r}")
            else:
                amounts[kind][str(name)] = amount
    for name, amount in amounts["requests"].items():
        limit = amounts["limits"].get(name, amount)
        if amount > limit:
            resources.fault(f"requests[{name}]", f"must not be more than limits[{name}]")
    resources.close()


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return as_stored(parse_quantity(str(value)))
    except ValueError:
        return None


def _environment(item: Fields) -> None:
    name = item.text("name", limit=253, pattern=ENV_NAME, expected="a name like OMP_NUM_THREADS")
    if name in _OWN_ENVIRONMENT:
        item.fault("name", f"{name} is set by the operator: choose another name")
    item.optional_text("value", limit=8192)
    source = item.child("valueFrom")
    if source is not None:
        if item.has("value"):
            item.fault("valueFrom", "must not be set together with value: keep one of the two")
        if source.has("secretKeyRef") == source.has("configMapKeyRef"):
            source.fault("", "must have exactly one of secretKeyRef and configMapKeyRef")
        for kind in ("secretKeyRef", "configMapKeyRef"):
            reference = source.child(kind)
            if reference is not None:
                reference.text("name", limit=253, pattern=DNS_SUBDOMAIN, expected="a name in this namespace")
                reference.text("key", limit=253, pattern=_DATA_KEY, expected="a key of its data")
                reference.boolean("optional", default=False)
                reference.close()
        source.close()
    item.close()


def _probe(probe: Fields) -> None:
    probe.optional_text("path", limit=256, pattern=PROBE_PATH, expected="a path like /health")
    probe.optional_integer("periodSeconds", minimum=1, maximum=300)
    probe.optional_integer("timeoutSeconds", minimum=1, maximum=60)
    probe.optional_integer("failureThreshold", minimum=1, maximum=1000)
    probe.close()


def _names(spec: Fields, field: str, *, items: int, limit: int, pattern: re.Pattern[str] | None) -> None:
    for name, value in spec.mapping(field, items=items):
        path = f"{field}[{name}]"
        if _QUALIFIED_NAME.fullmatch(str(name)) is None or len(str(name)) > 317:
            spec.fault(path, "must have a key like example.com/name or name")
        if field == "podAnnotations" and str(name).startswith(_OWN_ANNOTATIONS):
            spec.fault(path, f"keys that start with {_OWN_ANNOTATIONS} are the operator's: choose another one")
        if not isinstance(value, str):
            spec.fault(path, f"must be a string, not {value!r}: put it in quotes")
        elif len(value) > limit:
            spec.fault(path, f"must have at most {limit} characters, not {len(value)}")
        elif pattern is not None and pattern.fullmatch(value) is None:
            spec.fault(path, "must be a label value: letters, digits, '-', '_' and '.', or empty")


def _toleration(item: Fields) -> None:
    key = item.optional_text("key", limit=317, pattern=_QUALIFIED_NAME, expected="a taint key like nvidia.com/gpu")
    operator = item.one_of("operator", ("Exists", "Equal"), default="Equal")
    value = item.optional_text("value", limit=63, pattern=_LABEL_VALUE, expected="a taint value")
    effect = item.one_of("effect", ("NoSchedule", "PreferNoSchedule", "NoExecute"))
    seconds = item.optional_integer("tolerationSeconds", minimum=0, maximum=604800)
    if operator == "Exists" and value:
        item.fault("value", "must not be set with operator Exists, which tolerates every value")
    if key is None and operator == "Equal":
        item.fault("key", "is required: only operator Exists tolerates every taint")
    if seconds is not None and effect != "NoExecute":
        item.fault("tolerationSeconds", "is for effect NoExecute only")
    item.close()


def _model(model: Fields | None) -> None:
    if model is None:
        return
    if model.has("bundled") == model.has("persistentVolumeClaim"):
        model.fault("", "must have exactly one of bundled and persistentVolumeClaim")
    model.optional_text("bundled", limit=63, pattern=_MODEL_NAME, expected="the name of a model in the image")
    model.optional_text("sha256", limit=64, pattern=DIGEST, expected="64 hexadecimal digits in lower case")
    claim = model.child("persistentVolumeClaim")
    if claim is not None:
        claim.text("claimName", limit=253, pattern=DNS_SUBDOMAIN, expected="the name of a claim in this namespace")
        claim.optional_text(
            "path",
            limit=1024,
            pattern=VOLUME_PATH,
            expected="a folder inside the volume like european/2026-11, without a leading slash and without ..",
        )
        claim.close()
    model.close()
