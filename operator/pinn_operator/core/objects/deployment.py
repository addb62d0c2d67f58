"""The Deployment of a revision as a manifest for server-side apply. Pure: same arguments, same manifest.

It is rendered from the serving fields once, when its revision is first accepted, and is then kept in a
ControllerRevision (`core.objects.records`): what changes here later reaches only revisions that are accepted later.

Fields with a default of the API server are written out where a change of them must be seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import (
    CONTAINER,
    CONTROL_TOKEN,
    PORT_NAME,
    Owner,
    labels_of,
    placement,
    selector_of,
    workload_name,
)

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


def render_workload(service: str, revision: str, serving: Manifest) -> dict[str, Any]:
    """The Deployment of a revision without `spec.replicas`, namespace and owner, as it is recorded."""
    version = _version_of(serving["image"])
    labels = labels_of(service, revision, version=version)
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
    metadata = {**workload["metadata"], **placement(owner)}
    return {**workload, "metadata": metadata, "spec": {"replicas": replicas, **workload["spec"]}}


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
    # Who can read the pod knows its UID; clients of the service do not.
    token: Manifest = {
        "name": CONTROL_TOKEN,
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}},
    }
    ours: list[Manifest] = [{"name": name, "value": value} for name, value in own.items()]
    return [variable for variable in (*ours, token) if variable["name"] not in names] + [
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
