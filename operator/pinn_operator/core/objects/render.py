"""The objects of a PINNService as manifests for server-side apply. Pure: same arguments, same manifests.

A Deployment is rendered from the serving fields once, when its revision is first accepted, and is then kept in a
ControllerRevision: what changes here later reaches only revisions that are accepted later. Services and the HTTPRoute
hold no pods and are rendered anew in every pass.

Fields with a default of the API server are written out where a change of them must be seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.wanted.spec import ParentRef, Traffic

MANAGER: Final = "pinn-operator"
SERVICE_LABEL: Final = "pinn.dev/service"
REVISION_LABEL: Final = "pinn.dev/revision"

CONTAINER: Final = "inference"
PORT_NAME: Final = "http"
DEFAULT_PORT: Final = 8000
DEFAULT_RESOURCES: Final[Manifest] = {
    "requests": {"cpu": "250m", "memory": "768Mi"},
    "limits": {"cpu": "2", "memory": "2Gi"},
}
"""Taken whole when the team gives neither requests nor limits. The bundled server needs about 0.6 GiB."""
DEFAULT_TERMINATION_SECONDS: Final = 45
"""More than the server takes: it drains for 5 s after SIGTERM and then lets requests in flight end."""
DEFAULT_PROBES: Final[Mapping[str, Manifest]] = {
    "readinessProbe": {
        "path": "/health/deployment/readiness",
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 3,
    },
    "livenessProbe": {"path": "/health", "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3},
    # TensorFlow takes seconds to import and to warm up, much longer on a busy node.
    "startupProbe": {"path": "/health", "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 60},
}
MODEL_MOUNT: Final = "/app/models"
_METRICS_PATH: Final = "/metrics"
_USER: Final = 65532
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Owner:
    """The PINNService that an object belongs to."""

    api_version: str
    kind: str
    name: str
    namespace: str
    uid: str


def workload_name(service: str, revision: str) -> str:
    """Name of the Deployment and of the ControllerRevision of a revision."""
    return f"{service}-{revision}"


def stable_service_name(service: str) -> str:
    """Name of the Service that selects the stable revision."""
    return f"{service}-stable"


def canary_service_name(service: str) -> str:
    """Name of the Service that selects the canary revision."""
    return f"{service}-canary"


def selector_of(service: str, revision: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a service, or of one of its revisions."""
    return {SERVICE_LABEL: service} | ({REVISION_LABEL: revision} if revision else {})


def render_workload(service: str, revision: str, serving: Manifest) -> dict[str, Any]:
    """The Deployment of a revision without `spec.replicas`, namespace and owner, as it is recorded."""
    version = _version_of(serving["image"])
    labels = _labels(service, revision, version=version)
    pod_labels = {"app": service, "version": version or revision, **labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": workload_name(service, revision), "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector_of(service, revision)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 1,
            "template": {
                "metadata": {"labels": pod_labels, "annotations": _pod_annotations(serving)},
                "spec": _pod(service, revision, serving),
            },
        },
    }


def render_deployment(owner: Owner, workload: Manifest, replicas: int) -> dict[str, Any]:
    """The Deployment to apply: the recorded workload, byte for byte, with an owner and a number of replicas."""
    metadata = {**workload["metadata"], **_placement(owner)}
    return {**workload, "metadata": metadata, "spec": {"replicas": replicas, **workload["spec"]}}


def render_record(owner: Owner, revision: str, *, number: int, data: Manifest) -> dict[str, Any]:
    """The ControllerRevision of a revision. The API server never lets its `data` change."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": workload_name(owner.name, revision),
            "labels": _labels(owner.name, revision),
            **_placement(owner),
        },
        "data": data,
        "revision": number,
    }


def render_service(
    owner: Owner, name: str, *, selector: Mapping[str, str], port: int, service_type: str = "ClusterIP"
) -> dict[str, Any]:
    """A Service from `port` to the pods' http port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": _labels(owner.name), **_placement(owner)},
        "spec": {
            "type": service_type,
            "selector": dict(selector),
            "ports": [{"name": PORT_NAME, "port": port, "targetPort": PORT_NAME, "protocol": "TCP"}],
        },
    }


def render_route(owner: Owner, traffic: Traffic, *, canary_weight: int) -> dict[str, Any]:
    """The HTTPRoute: one rule whose weights, in percent, sum to 100.

    Empty lists are written too, so that a hostname or filter that someone adds by hand is seen as a difference.
    """
    if not 0 <= canary_weight <= 100:
        raise ValueError(f"canary weight {canary_weight} is outside 0–100")
    weights = (
        (stable_service_name(owner.name), 100 - canary_weight),
        (canary_service_name(owner.name), canary_weight),
    )
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": owner.name, "labels": _labels(owner.name), **_placement(owner)},
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


def _placement(owner: Owner) -> dict[str, Any]:
    # blockOwnerDeletion would need the right to update finalizers, and nothing here must hold a deletion up.
    reference = {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {"namespace": owner.namespace, "ownerReferences": [reference]}


def _labels(service: str, revision: str | None = None, *, version: str | None = None) -> dict[str, str]:
    return {
        **selector_of(service, revision),
        "app.kubernetes.io/name": "pinn-inference",
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/component": "inference",
        "app.kubernetes.io/managed-by": MANAGER,
    } | ({"app.kubernetes.io/version": version} if version else {})


def _version_of(image: str) -> str | None:
    """The tag of an image reference, if there is one that may be a label.

    >>> _version_of("registry.example.com:5000/team/pinn:1.4.0@sha256:0123"), _version_of("registry:5000/pinn")
    ('1.4.0', None)
    """
    _, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    return tag if _LABEL_VALUE.fullmatch(tag) else None


def _pod_annotations(serving: Manifest) -> dict[str, str]:
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(_port(serving)),
        "prometheus.io/path": _METRICS_PATH,
        **(serving.get("podAnnotations") or {}),
    }


def _pod(service: str, revision: str, serving: Manifest) -> dict[str, Any]:
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {}}]
    claim = (serving.get("model") or {}).get("persistentVolumeClaim")
    if claim:
        source = {"claimName": claim["claimName"], "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": source})
    grace = serving.get("terminationGracePeriodSeconds")
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        # Else a Service called "pinn" would put PINN_PORT=tcp://… into the environment.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DEFAULT_TERMINATION_SECONDS if grace is None else grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, revision, serving)],
        "volumes": volumes,
    }
    for key in ("imagePullSecrets", "serviceAccountName", "nodeSelector", "tolerations"):
        if serving.get(key):
            pod[key] = serving[key]
    return pod


def _container(service: str, revision: str, serving: Manifest) -> dict[str, Any]:
    # A read-only root leaves TensorFlow no temporary directory, and its import fails without one.
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    if (serving.get("model") or {}).get("persistentVolumeClaim"):
        mounts.append({"name": "models", "mountPath": MODEL_MOUNT, "readOnly": True})
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": serving["image"],
        "ports": [{"name": PORT_NAME, "containerPort": _port(serving), "protocol": "TCP"}],
        "env": _environment(service, revision, serving),
        "resources": _resources(serving),
        **{kind: _probe(kind, serving) for kind in DEFAULT_PROBES},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    for key in ("imagePullPolicy", "args"):
        if serving.get(key):
            container[key] = serving[key]
    return container


def _port(serving: Manifest) -> int:
    port = serving.get("port")
    return DEFAULT_PORT if port is None else int(port)


def _resources(serving: Manifest) -> Manifest:
    given = serving.get("resources") or {}
    return {key: given[key] for key in ("requests", "limits") if given.get(key)} or DEFAULT_RESOURCES


def _environment(service: str, revision: str, serving: Manifest) -> list[Manifest]:
    """The operator's variables, then the team's, which replace ours of the same name."""
    own = {
        "ENVIRONMENT": "production",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PINN_SERVICE": service,
        "PINN_REVISION": revision,
        "PINN_PORT": str(_port(serving)),
        **_model_environment(serving.get("model") or {}),
    }
    given: Sequence[Manifest] = serving.get("env") or []
    names = {variable["name"] for variable in given}
    return [{"name": name, "value": value} for name, value in own.items() if name not in names] + [
        # The API server leaves an empty value out.
        {key: value for key, value in variable.items() if value not in ("", None)}
        for variable in given
    ]


def _model_environment(model: Manifest) -> dict[str, str]:
    environment = {}
    if model.get("bundled"):
        environment["PINN_MODEL"] = str(model["bundled"])
    claim = model.get("persistentVolumeClaim")
    if claim:
        path = str(claim.get("path") or "").strip("/")
        environment["PINN_MODEL_DIR"] = f"{MODEL_MOUNT}/{path}" if path else MODEL_MOUNT
    if model.get("sha256"):
        environment["PINN_MODEL_SHA256"] = str(model["sha256"])
    return environment


def _probe(kind: str, serving: Manifest) -> dict[str, Any]:
    given = (serving.get("probes") or {}).get(kind.removesuffix("Probe")) or {}
    probe = {**DEFAULT_PROBES[kind], **{key: value for key, value in given.items() if value is not None}}
    path = probe.pop("path")
    return {"httpGet": {"path": path, "port": PORT_NAME, "scheme": "HTTP"}, **probe}


def _parent(parent: ParentRef) -> dict[str, Any]:
    reference: dict[str, Any] = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": parent.namespace,
        "name": parent.name,
    }
    if parent.section_name:
        reference["sectionName"] = parent.section_name
    if parent.port:
        reference["port"] = parent.port
    return reference
