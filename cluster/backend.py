"""What every kind of cluster offers to the command line, the demo and the tests."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from cluster.images import Build
from cluster.settings import Mode


@dataclass(frozen=True, kw_only=True)
class ComponentStatus:
    """What is known of one part of a cluster; ``log`` is a file on this host where there is one."""

    name: str
    ready: bool
    pid: int | None = None
    log: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a cluster is reached: from this host, and from its pods. None where this command does not know."""

    context: str
    kubeconfig: Path
    kubectl: Path
    gateway_url: str | None = None
    gateway_url_in_pods: str | None = None
    prometheus_url: str | None = None
    prometheus_url_in_pods: str | None = None

    def render_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    def render_text(self) -> str:
        rows = [("context", self.context), ("kubectl", str(self.kubectl))]
        if self.gateway_url:
            rows.append(("Gateway", f"edge/edge at {self.gateway_url} (in pods {self.gateway_url_in_pods})"))
        if self.prometheus_url:
            rows.append(("Prometheus", f"{self.prometheus_url} (in pods {self.prometheus_url_in_pods})"))
        return "\n".join(f"{name:12}{value}" for name, value in rows)


class Backend(Protocol):
    """A way to have a cluster. Every method raises ClusterError with what the user can do about it."""

    def up(self, mode: Mode) -> None: ...

    def down(self) -> None: ...

    def access(self) -> Access: ...

    def status(self) -> list[ComponentStatus]: ...

    def start(self, name: str) -> None: ...

    def stop(self, name: str, *, kill: bool) -> None: ...

    def base(self) -> str: ...

    def build(self, wanted: Build) -> None: ...

    def load(self, tag: str) -> bool: ...
