"""Configuration files as text: pure functions of the settings. Where YAML is wanted, JSON is written, which is YAML."""

import json
from pathlib import Path
from typing import Any

from cluster.settings import (
    CLUSTER_DOMAIN,
    DNS_SERVICE_IP,
    NODE_IP,
    NODE_NAME,
    NODE_POD_NETWORK,
    POD_BRIDGE,
    POD_NETWORK,
    Settings,
)

PAUSE_IMAGE = "localhost/pinn-pause:1"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def containerd_config(settings: Settings) -> str:
    """containerd 1.6, all of it inside the state folder.

    Registries: every host but localhost is sent to a closed port, so that an image which is not here is
    ``ErrImagePull`` at once instead of after a minute of name look-ups.
    """
    state = settings.state
    return f"""version = 2
root = "{state}/containerd"
state = "{state}/containerd-run"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{settings.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Root in a sandbox may not lower oom_score_adj; runc dies of it.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{settings.config}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{settings.config}/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{state}/runc"
"""


def registries_config() -> str:
    """hosts.toml of containerd for every registry: a port on which nobody listens."""
    return 'server = "http://127.0.0.1:1"\n[host."http://127.0.0.1:1"]\n  capabilities = ["pull", "resolve"]\n'


def cni_config(settings: Settings) -> str:
    """Bridge without masquerading and host ports: those two would write iptables rules that nobody takes down."""
    bridge = {
        "type": "bridge",
        "bridge": POD_BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{settings.state}/cni-addresses",
            "ranges": [[{"subnet": NODE_POD_NETWORK}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return _json({"cniVersion": "1.0.0", "name": settings.context, "plugins": [bridge]})


def kubelet_config(settings: Settings) -> str:
    """KubeletConfiguration for a host that may have cgroup v1, swap and little disk."""
    state = settings.state
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{settings.cgroup}",
            "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": f"{settings.pki}/ca.crt"},
                "webhook": {"enabled": True},
            },
            "authorization": {"mode": "Webhook"},
            "address": NODE_IP,
            "port": settings.ports.kubelet,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": settings.ports.kubelet_health,
            "clusterDNS": [DNS_SERVICE_IP],
            "clusterDomain": CLUSTER_DOMAIN,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "serializeImagePulls": False,
            "tlsCertFile": f"{settings.pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{settings.pki}/kubelet.key",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(settings.pod_logs),
            "volumePluginDir": f"{state}/volume-plugins",
            "maxPods": 110,
            "enableProfilingHandler": False,
        }
    )


def proxy_config(settings: Settings) -> str:
    """KubeProxyConfiguration; conntrack limits are the host's and stay as they are."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_NETWORK,
            "hostnameOverride": NODE_NAME,
            "clientConnection": {"kubeconfig": f"{settings.pki}/proxy.conf"},
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "healthzBindAddress": f"127.0.0.1:{settings.ports.proxy_health}",
            "metricsBindAddress": f"127.0.0.1:{settings.ports.proxy_metrics}",
            "nftables": {"minSyncPeriod": "100ms"},
        }
    )


def contour_config() -> str:
    return _json({"gateway": {"gatewayRef": {"namespace": "edge", "name": "edge"}}})


def envoy_bootstrap(bootstrap: str) -> str:
    """Contour's bootstrap with counters and histograms flushed each second instead of every five."""
    parsed = json.loads(bootstrap)
    parsed["stats_flush_interval"] = "1s"
    return _json(parsed)


def corefile(settings: Settings) -> str:
    """CoreDNS on the node address; no ``forward``: nothing outside the cluster is resolved for pods."""
    ports = settings.ports
    return f""".:{ports.dns} {{
    bind {NODE_IP}
    errors
    ready 127.0.0.1:{ports.dns_ready}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {settings.pki}/admin.conf
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


_POD = "__meta_kubernetes_pod"


def _pod_relabelling() -> list[dict[str, Any]]:
    """Keeps annotated pods, one target per wanted port, and gives them their labels."""
    annotation, number = f"{_POD}_annotation_prometheus_io_port", f"{_POD}_container_port_number"
    return [
        {"source_labels": [f"{_POD}_annotation_prometheus_io_scrape"], "regex": "true", "action": "keep"},
        {"source_labels": [f"{_POD}_phase"], "regex": "Succeeded|Failed", "action": "drop"},
        {"source_labels": [f"{_POD}_container_init"], "regex": "true", "action": "drop"},
        # Without the annotation every declared port counts.
        {"source_labels": [annotation, number], "regex": ";(.+)", "target_label": annotation},
        {"source_labels": [number], "target_label": annotation, "action": "keepequal"},
        {
            "source_labels": [f"{_POD}_annotation_prometheus_io_path"],
            "regex": "(.+)",
            "target_label": "__metrics_path__",
        },
        *(
            {"source_labels": [source], "target_label": label}
            for source, label in (
                ("__meta_kubernetes_namespace", "namespace"),
                (f"{_POD}_name", "pod"),
                (f"{_POD}_node_name", "node"),
                (f"{_POD}_container_name", "container"),
            )
        ),
        {"regex": f"{_POD}_label_(pinn_dev_.+)", "action": "labelmap"},
    ]


def prometheus_config(*, kubeconfig: Path | None, envoy: str, interval: str = "1s") -> str:
    """Scrapes pods annotated ``prometheus.io/scrape: "true"`` every ``interval``, and Envoy at ``envoy`` (host:port).

    The scraped container port is the one named by ``prometheus.io/port`` (a number that the pod declares), or every
    declared one when there is no such annotation. Without a ``kubeconfig`` it runs in a pod, by its service account.
    """
    discovery = {"role": "pod", **({"kubeconfig_file": str(kubeconfig)} if kubeconfig else {})}
    return _json(
        {
            "global": {"scrape_interval": interval, "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "pods",
                    # For applications that send no Content-Type.
                    "fallback_scrape_protocol": "PrometheusText0.0.4",
                    "kubernetes_sd_configs": [discovery],
                    "relabel_configs": _pod_relabelling(),
                },
                {
                    "job_name": "envoy",
                    "metrics_path": "/stats/prometheus",
                    "static_configs": [{"targets": [envoy]}],
                },
            ],
        }
    )


def _service(namespace: str, name: str, ports: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": ports, **spec},
    }


def _host_endpoints(namespace: str, service: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-host",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
    }


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def as_list(objects: list[dict[str, Any]]) -> str:
    """Several objects as one document for ``kubectl apply``."""
    return _json({"apiVersion": "v1", "kind": "List", "items": objects})


def gateway_objects() -> list[dict[str, Any]]:
    """GatewayClass ``contour``, and Gateway ``edge`` in namespace ``edge`` that takes routes from everywhere."""
    listener = {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "contour"},
            "spec": {"controllerName": "projectcontour.io/gateway-controller"},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "edge"},
            "spec": {"gatewayClassName": "contour", "listeners": [listener]},
        },
    ]


def cluster_objects(settings: Settings) -> str:
    """What the cluster offers beyond Kubernetes: DNS, the Gateway ``edge`` and Prometheus, all host processes."""
    ports = settings.ports
    dns = [("dns", 53, ports.dns, "UDP"), ("dns-tcp", 53, ports.dns, "TCP")]
    objects: list[dict[str, Any]] = [
        namespace("edge"),
        namespace("monitoring"),
        _service(
            "kube-system",
            "kube-dns",
            [{"name": n, "port": p, "targetPort": t, "protocol": proto} for n, p, t, proto in dns],
            clusterIP=DNS_SERVICE_IP,
        ),
        _host_endpoints("kube-system", "kube-dns", [{"name": n, "port": t, "protocol": p} for n, _, t, p in dns]),
        _service("edge", "envoy", [{"name": "http", "port": 80, "targetPort": ports.envoy_http, "protocol": "TCP"}]),
        _host_endpoints("edge", "envoy", [{"name": "http", "port": ports.envoy_http, "protocol": "TCP"}]),
        _service(
            "monitoring",
            "prometheus",
            [{"name": "http", "port": 9090, "targetPort": ports.prometheus, "protocol": "TCP"}],
        ),
        _host_endpoints("monitoring", "prometheus", [{"name": "http", "port": ports.prometheus, "protocol": "TCP"}]),
        *gateway_objects(),
    ]
    return as_list(objects)
