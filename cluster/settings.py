"""Where things lie and which addresses they use: parsed once from the command line and the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cluster.errors import ClusterError

# Pods and Services live in the benchmark range 198.18.0.0/15 (RFC 2544): no packet can leave the machine by accident.
NODE_NAME = "node0"
NODE_IP = "198.18.255.1"
POD_NETWORK = "198.18.0.0/17"
NODE_POD_NETWORK = "198.18.0.0/24"
SERVICE_NETWORK = "198.18.128.0/18"
API_SERVICE_IP = "198.18.128.1"
DNS_SERVICE_IP = "198.18.128.10"
CLUSTER_DOMAIN = "cluster.local"

NODE_BRIDGE = "pinn-node0"
POD_BRIDGE = "pinn-cni0"

PACKAGE = Path(__file__).resolve().parent

# sockaddr_un.sun_path holds 108 bytes, one of them the terminating zero (unix(7)).
MAX_SOCKET_PATH = 107
_LONGEST_SOCKET = "kubelet/pod-resources/kubelet.sock"
STATE_PARENT = "pinn-operator"
"""Folder of all state folders, made here too unless ``--state`` names another place."""

SCRAPE_VARIABLE = "CLUSTER_SCRAPE_INTERVAL"
_SECONDS = re.compile(r"[1-9][0-9]{0,2}s")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")


class Mode(StrEnum):
    """How much of a cluster runs."""

    FULL = "full"
    CONTROL_PLANE = "control-plane"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TCP ports on the host; ``offset`` moves all of them, so that a control plane can run beside the full cluster."""

    offset: int = 0

    @property
    def apiserver(self) -> int:
        return 6443 + self.offset

    @property
    def etcd_client(self) -> int:
        return 2379 + self.offset

    @property
    def etcd_peer(self) -> int:
        return 2380 + self.offset

    @property
    def controller_manager(self) -> int:
        return 10257 + self.offset

    @property
    def scheduler(self) -> int:
        return 10259 + self.offset

    @property
    def kubelet(self) -> int:
        return 10250 + self.offset

    @property
    def kubelet_health(self) -> int:
        return 10248 + self.offset

    @property
    def proxy_health(self) -> int:
        return 10256 + self.offset

    @property
    def proxy_metrics(self) -> int:
        return 10249 + self.offset

    @property
    def prometheus(self) -> int:
        return 9090 + self.offset

    @property
    def contour_http(self) -> int:
        return 18000 + self.offset

    @property
    def contour_xds(self) -> int:
        return 18001 + self.offset

    @property
    def envoy_stats(self) -> int:
        return 18002 + self.offset

    @property
    def contour_debug(self) -> int:
        return 16060 + self.offset

    @property
    def dns(self) -> int:
        return 1053 + self.offset

    @property
    def dns_ready(self) -> int:
        return 8182 + self.offset

    @property
    def envoy_http(self) -> int:
        # Contour maps listener port 80 to 80 + 8000 by itself; it cannot be moved.
        return 8080


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One cluster: its name, its folders and its ports."""

    name: str
    state: Path
    cache: Path
    ports: Ports
    scrape_interval: str = "1s"
    """How often Prometheus scrapes pods."""

    def check_socket_paths(self) -> None:
        """Raises ClusterError when the state folder lies so deep that a Unix socket of a node in it cannot be bound."""
        excess = len(os.fsencode(self.state / _LONGEST_SOCKET)) - MAX_SOCKET_PATH
        if excess > 0:
            raise ClusterError(
                f"state folder {self.state} is {excess} bytes too deep for Unix sockets in it: name one with --state"
            )

    @property
    def context(self) -> str:
        """Name of the kubeconfig context, recognisable as made here."""
        return f"pinn-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """Parent of every pod's cgroup, so that ``down`` finds all of them and nothing else."""
        return f"pinn-{self.name}"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def pod_logs(self) -> Path:
        return self.state / "pods"

    @property
    def records(self) -> Path:
        return self.state / "run"


def parse_settings(
    environ: Mapping[str, str], *, state: str | None = None, name: str = "local", ports_offset: int = 0
) -> Settings:
    """Folders by the XDG base directory specification; ``state`` overrides the state folder.

    Raises ClusterError when the name is no DNS label, an offset leaves the port range or the scrape interval is none.
    """
    if not _NAME.fullmatch(name):
        raise ClusterError(f"--name {name!r}: want a lower-case DNS label of at most 20 characters, such as 'local'")
    if not 0 <= ports_offset <= 40000:
        raise ClusterError(f"--ports-offset {ports_offset}: want 0 to 40000")
    scrape = environ.get(SCRAPE_VARIABLE) or "1s"
    if not _SECONDS.fullmatch(scrape):
        raise ClusterError(f"{SCRAPE_VARIABLE}={scrape!r}: want whole seconds, such as 1s or 15s")
    home = Path(environ.get("HOME") or "/root")
    state_home = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    cache_home = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    folder = "cluster" if name == "local" else f"cluster-{name}"
    chosen = Path(state).expanduser().absolute() if state else state_home / STATE_PARENT / folder
    return Settings(
        name=name,
        state=chosen,
        cache=cache_home / "pinn-operator",
        ports=Ports(offset=ports_offset),
        scrape_interval=scrape,
    )
