"""The host processes of a cluster: how each is started, and how one sees that it serves."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.settings import (
    NODE_IP,
    NODE_NAME,
    POD_NETWORK,
    SERVICE_NETWORK,
    Mode,
    Settings,
)
from cluster.shell import find_program, succeeds

Program = Callable[[str], Path]
"""Path of a program of the toolchain, by name."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A host process. ``reads`` are files whose change means a restart."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    reads: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    grace: float = 10.0
    patience: float = 60.0
    """Seconds to wait for readiness after a start."""


def answers(url: str, *, pki: Path | None = None, timeout: float = 2.0) -> bool:
    """Whether a GET returns 200; with ``pki`` as administrator, over TLS verified by the cluster's authority."""
    context: ssl.SSLContext | None = None
    if pki is not None:
        try:
            context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        except (OSError, ssl.SSLError):
            return False
    # No proxy of the environment may stand between this command and its own host.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])
    )
    try:
        with opener.open(url, timeout=timeout) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _etcd(settings: Settings, program: Program) -> Component:
    ports = settings.ports
    client, peer = f"http://127.0.0.1:{ports.etcd_client}", f"http://127.0.0.1:{ports.etcd_peer}"
    argv = [program("etcd"), "--name", "node0", "--data-dir", settings.state / "etcd", "--unsafe-no-fsync"]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"node0={peer}", "--log-level", "warn"]
    return Component(
        name="etcd",
        argv=tuple(map(str, argv)),
        ready=lambda: answers(f"{client}/health"),
        ports=(ports.etcd_client, ports.etcd_peer),
        # It waits for the API server's watches, which do not end by themselves.
        grace=3.0,
        patience=30.0,
    )


def _apiserver(settings: Settings, program: Program, mode: Mode) -> Component:
    ports, pki = settings.ports, settings.pki
    # Without a node there is no address that pods could reach; the loopback one may not be an endpoint.
    address = (
        [f"--advertise-address={NODE_IP}"]
        if mode is Mode.FULL
        else ["--advertise-address=127.0.0.1", "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"]
    )
    argv = [
        str(program("kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{ports.etcd_client}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--secure-port={ports.apiserver}",
        *address,
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--authorization-mode=Node,RBAC",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        # By default the node's name is asked first, which nothing resolves: exec and logs would fail.
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]
    return Component(
        name="apiserver",
        argv=tuple(argv),
        # It answers before RBAC is bootstrapped; only /readyz says that the others may start.
        ready=lambda: answers(f"https://127.0.0.1:{ports.apiserver}/readyz", pki=pki),
        reads=(pki / "apiserver.crt", pki / "sa.pub"),
        ports=(ports.apiserver,),
        patience=90.0,
    )


def _controller_manager(settings: Settings, program: Program) -> Component:
    pki, port = settings.pki, settings.ports.controller_manager
    argv = [
        str(program("kube-controller-manager")),
        *(f"--{flag}={pki}/kcm.conf" for flag in _KUBECONFIG_FLAGS),
        f"--cluster-cidr={POD_NETWORK}",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/kcm.crt",
        f"--tls-private-key-file={pki}/kcm.key",
        # Its default lies outside the state folder, and it makes it.
        f"--flex-volume-plugin-dir={settings.state}/volume-plugins",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--profiling=false",
    ]
    return Component(
        name="kcm",
        argv=tuple(argv),
        ready=lambda: answers(f"https://127.0.0.1:{port}/healthz", pki=pki),
        reads=(pki / "kcm.conf", pki / "sa.key"),
        ports=(port,),
    )


def _scheduler(settings: Settings, program: Program) -> Component:
    pki, port = settings.pki, settings.ports.scheduler
    argv = [
        str(program("kube-scheduler")),
        *(f"--{flag}={pki}/scheduler.conf" for flag in _KUBECONFIG_FLAGS),
        f"--tls-cert-file={pki}/scheduler.crt",
        f"--tls-private-key-file={pki}/scheduler.key",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--profiling=false",
    ]
    return Component(
        name="scheduler",
        argv=tuple(argv),
        ready=lambda: answers(f"https://127.0.0.1:{port}/healthz", pki=pki),
        reads=(pki / "scheduler.conf",),
        ports=(port,),
    )


_KUBECONFIG_FLAGS = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")


def _containerd(settings: Settings) -> Component:
    config = settings.config / "containerd.toml"
    program = find_program("containerd") or Path("containerd")
    ctr = find_program("ctr") or Path("ctr")
    return Component(
        name="containerd",
        argv=(str(program), "--config", str(config), "--log-level", "warn"),
        ready=lambda: succeeds([ctr, "--address", settings.containerd_socket, "version"], timeout=5),
        reads=(config, settings.config / "cni" / "10-bridge.conflist"),
    )


def _kubelet(settings: Settings, program: Program) -> Component:
    config, ports = settings.config / "kubelet.yaml", settings.ports
    argv = [
        str(program("kubelet")),
        f"--config={config}",
        f"--kubeconfig={settings.pki}/kubelet.conf",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
        f"--root-dir={settings.state}/kubelet",
        f"--cert-dir={settings.pki}",
    ]
    return Component(
        name="kubelet",
        argv=tuple(argv),
        ready=lambda: answers(f"http://127.0.0.1:{ports.kubelet_health}/healthz"),
        reads=(config, settings.pki / "kubelet.conf"),
        ports=(ports.kubelet, ports.kubelet_health),
    )


def _proxy(settings: Settings, program: Program) -> Component:
    config, ports = settings.config / "proxy.yaml", settings.ports
    return Component(
        name="proxy",
        argv=(str(program("kube-proxy")), f"--config={config}"),
        ready=lambda: answers(f"http://127.0.0.1:{ports.proxy_health}/healthz"),
        reads=(config, settings.pki / "proxy.conf"),
        ports=(ports.proxy_health, ports.proxy_metrics),
    )


def _coredns(settings: Settings, program: Program) -> Component:
    config = settings.config / "Corefile"
    return Component(
        name="coredns",
        argv=(str(program("coredns")), "-conf", str(config)),
        ready=lambda: answers(f"http://127.0.0.1:{settings.ports.dns_ready}/ready"),
        reads=(config, settings.pki / "admin.conf"),
        ports=(settings.ports.dns, settings.ports.dns_ready),
    )


def _contour(settings: Settings, program: Program) -> Component:
    ports, config, certs = settings.ports, settings.config / "contour.yaml", settings.state / "router" / "certs"
    argv = [
        str(program("contour")),
        "serve",
        f"--kubeconfig={settings.pki}/admin.conf",
        f"--config-path={config}",
        "--disable-leader-election",
        # Kinds of the experimental channel, whose CRDs are not installed; it would exit without them.
        "--disable-feature=tlsroutes",
        "--disable-feature=tcproutes",
        "--disable-feature=backendtlspolicies",
        f"--contour-cafile={certs}/cacert.pem",
        f"--contour-cert-file={certs}/contourcert.pem",
        f"--contour-key-file={certs}/contourkey.pem",
        "--xds-address=127.0.0.1",
        f"--xds-port={ports.contour_xds}",
        "--http-address=127.0.0.1",
        f"--http-port={ports.contour_http}",
        "--health-address=127.0.0.1",
        f"--health-port={ports.contour_http}",
        "--debug-http-address=127.0.0.1",
        f"--debug-http-port={ports.contour_debug}",
        f"--envoy-service-http-address={NODE_IP}",
        f"--envoy-service-https-address={NODE_IP}",
        "--stats-address=127.0.0.1",
        f"--stats-port={ports.envoy_stats}",
        "--envoy-http-access-log=/dev/null",
        f"--ingress-status-address={NODE_IP}",
    ]
    return Component(
        name="contour",
        argv=tuple(argv),
        ready=lambda: answers(f"http://127.0.0.1:{ports.contour_http}/healthz"),
        reads=(config, certs / "contourcert.pem", settings.pki / "admin.conf"),
        env={"CONTOUR_NAMESPACE": "projectcontour"},
        ports=(ports.contour_http, ports.contour_xds, ports.contour_debug),
    )


def _envoy(settings: Settings, program: Program) -> Component:
    config = settings.config / "envoy.json"
    argv = [
        str(program("envoy")),
        "-c",
        str(config),
        "--service-cluster",
        "projectcontour",
        "--service-node",
        "envoy-0",
    ]
    return Component(
        name="envoy",
        argv=(*argv, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"),
        ready=lambda: answers(f"http://127.0.0.1:{settings.ports.envoy_stats}/ready"),
        reads=(config,),
        ports=(settings.ports.envoy_stats, settings.ports.envoy_http),
    )


def _prometheus(settings: Settings, program: Program) -> Component:
    config, port = settings.config / "prometheus.yaml", settings.ports.prometheus
    argv = [
        str(program("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={settings.state}/prometheus",
        "--storage.tsdb.retention.time=6h",
        "--storage.tsdb.retention.size=512MB",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.listen-address={NODE_IP}:{port}",
        "--web.enable-lifecycle",
        "--log.level=warn",
    ]
    return Component(
        name="prometheus",
        argv=tuple(argv),
        ready=lambda: answers(f"http://127.0.0.1:{port}/-/ready"),
        reads=(config, settings.pki / "admin.conf"),
        ports=(port,),
    )


def components(settings: Settings, program: Program, mode: Mode) -> list[Component]:
    """All host processes of a mode, in the order in which they start."""
    control_plane = [
        _etcd(settings, program),
        _apiserver(settings, program, mode),
        _controller_manager(settings, program),
    ]
    if mode is Mode.CONTROL_PLANE:
        return control_plane
    return [
        *control_plane[:2],
        _containerd(settings),
        control_plane[2],
        _scheduler(settings, program),
        _kubelet(settings, program),
        _proxy(settings, program),
        _coredns(settings, program),
        _contour(settings, program),
        _envoy(settings, program),
        _prometheus(settings, program),
    ]
