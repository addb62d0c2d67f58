"""What a kind cluster is made of: kind's own configuration, and Prometheus as a Deployment."""

import hashlib
import json
from typing import Any

from cluster import render

CLUSTER_NAME = "pinn"
NODE_IMAGE = "kindest/node:v1.35.0"
CONTOUR_VERSION = "v1.33.8"
GATEWAY_API_VERSION = "v1.3.0"
PROMETHEUS_IMAGE = "docker.io/prom/prometheus:v3.5.0"

GATEWAY_API_MANIFEST = (
    f"https://github.com/kubernetes-sigs/gateway-api/releases/download/{GATEWAY_API_VERSION}/standard-install.yaml"
)
CONTOUR_MANIFEST = (
    f"https://raw.githubusercontent.com/projectcontour/contour/{CONTOUR_VERSION}/examples/render/contour.yaml"
)

GATEWAY_HOST_PORT = 8080
PROMETHEUS_HOST_PORT = 9090
_ENVOY_NODE_PORT = 80  # hostPort of Contour's Envoy DaemonSet
_PROMETHEUS_NODE_PORT = 30090


MARKER = ("pinn-cluster", "edge")
"""Name and namespace of the ConfigMap that a completed installation leaves."""


def installed_version() -> str:
    """What decides whether Contour has to be installed again."""
    return f"{GATEWAY_API_VERSION} {CONTOUR_VERSION} {hashlib.sha256(contour_patch().encode()).hexdigest()[:12]}"


def version_marker() -> str:
    name, namespace = MARKER
    marker = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"version": installed_version()},
    }
    return render.as_list([marker])


def kind_config() -> str:
    """One node; the Gateway's and Prometheus' ports on the loopback address of the host."""

    def mapping(node: int, host: int) -> dict[str, Any]:
        return {"containerPort": node, "hostPort": host, "listenAddress": "127.0.0.1", "protocol": "TCP"}

    ports = [mapping(_ENVOY_NODE_PORT, GATEWAY_HOST_PORT), mapping(_PROMETHEUS_NODE_PORT, PROMETHEUS_HOST_PORT)]
    return json.dumps(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "name": CLUSTER_NAME,
            "nodes": [{"role": "control-plane", "image": NODE_IMAGE, "extraPortMappings": ports}],
        }
    )


def contour_settings() -> str:
    """Contour's ConfigMap: it serves Gateway ``edge``, and nothing else of the Gateway API."""
    return render.as_list(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "contour", "namespace": "projectcontour"},
                "data": {"contour.yaml": render.contour_config()},
            }
        ]
    )


def contour_patch() -> str:
    """JSON patch of Contour's Deployment: one replica, and without kinds whose CRDs are not in the standard channel."""
    arguments = "/spec/template/spec/containers/0/args/-"
    disabled = ("tlsroutes", "tcproutes", "backendtlspolicies")
    return json.dumps(
        [
            {"op": "replace", "path": "/spec/replicas", "value": 1},
            *({"op": "add", "path": arguments, "value": f"--disable-feature={name}"} for name in disabled),
        ]
    )


def _prometheus_rbac() -> list[dict[str, Any]]:
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "prometheus", "namespace": "monitoring"},
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "pinn-cluster-prometheus"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "pinn-cluster-prometheus"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "pinn-cluster-prometheus"},
            "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"}],
        },
    ]


def _prometheus_deployment() -> dict[str, Any]:
    labels = {"app": "prometheus"}
    container = {
        "name": "prometheus",
        "image": PROMETHEUS_IMAGE,
        "args": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=6h",
            "--web.enable-lifecycle",
        ],
        "ports": [{"name": "http", "containerPort": 9090}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "http"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/prometheus"},
            {"name": "data", "mountPath": "/prometheus"},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "prometheus", "namespace": "monitoring"},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "prometheus",
                    "terminationGracePeriodSeconds": 5,
                    "containers": [container],
                    "volumes": [
                        {"name": "config", "configMap": {"name": "prometheus"}},
                        {"name": "data", "emptyDir": {}},
                    ],
                },
            },
        },
    }


def cluster_objects() -> str:
    """Gateway ``edge``, Service ``envoy`` beside it, and Prometheus, under the names that the local cluster uses."""
    # Contour's Envoy pods have no Service for their statistics; this one makes a name for them.
    stats = {"name": "stats", "port": 8002, "targetPort": 8002}
    port: dict[str, Any] = {"name": "http", "port": 9090, "targetPort": "http", "nodePort": _PROMETHEUS_NODE_PORT}
    objects = [
        render.namespace("edge"),
        render.namespace("monitoring"),
        *render.gateway_objects(),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "envoy", "namespace": "edge"},
            "spec": {"type": "ExternalName", "externalName": "envoy.projectcontour.svc.cluster.local"},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "envoy-stats", "namespace": "projectcontour"},
            "spec": {"selector": {"app": "envoy"}, "ports": [stats]},
        },
        *_prometheus_rbac(),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "prometheus", "namespace": "monitoring"},
            "data": {
                "prometheus.yml": render.prometheus_config(kubeconfig=None, envoy="envoy-stats.projectcontour:8002")
            },
        },
        _prometheus_deployment(),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "prometheus", "namespace": "monitoring"},
            "spec": {"type": "NodePort", "selector": {"app": "prometheus"}, "ports": [port]},
        },
    ]
    return render.as_list(objects)
