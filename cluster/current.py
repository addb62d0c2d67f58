"""The cluster of the context in use. Nothing in it is made, changed or taken down here."""

import os
from pathlib import Path

from cluster.backend import Access, ComponentStatus
from cluster.errors import ClusterError
from cluster.images import Build
from cluster.progress import Progress
from cluster.settings import Mode
from cluster.shell import find_program, run, succeeds

_PUBLIC_BASE = "docker.io/library/python:3.13-slim"


def named_kubeconfig() -> Path:
    """The kubeconfig that kubectl would use: the first of ``KUBECONFIG``, or the one in the home folder."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


class CurrentCluster:
    """``CLUSTER=current``: checks that the cluster can be used, and says how."""

    def __init__(self, *, progress: Progress) -> None:
        self._progress = progress

    def _kubectl(self) -> Path:
        program = find_program("kubectl")
        if program is None:
            raise ClusterError("CLUSTER=current wants kubectl on PATH")
        return program

    def up(self, mode: Mode) -> None:
        """Raises ClusterError when the API server does not answer or the Gateway API is not installed."""
        if mode is Mode.CONTROL_PLANE:
            raise ClusterError("--only control-plane makes a cluster of its own: use CLUSTER=local")
        kubectl = self._kubectl()
        run([kubectl, "get", "--raw", "/readyz"], timeout=30)
        if not succeeds([kubectl, "get", "httproutes.gateway.networking.k8s.io", "--all-namespaces"], timeout=30):
            self._progress.say("this cluster has no HTTPRoute: install a Gateway API router to shift traffic by weight")

    def down(self) -> None:
        raise ClusterError("the current context was not made here, so it is not taken down")

    def access(self) -> Access:
        kubectl = self._kubectl()
        context = run([kubectl, "config", "current-context"], timeout=30).strip()
        return Access(context=context, kubeconfig=named_kubeconfig(), kubectl=kubectl)

    def status(self) -> list[ComponentStatus]:
        ready = succeeds([self._kubectl(), "get", "--raw", "/readyz"], timeout=30)
        return [ComponentStatus(name="apiserver", ready=ready)]

    def start(self, name: str) -> None:
        raise ClusterError(f"{name} of the current context was not started here")

    def stop(self, name: str, *, kill: bool) -> None:  # noqa: ARG002 - the protocol's parameters
        raise ClusterError(f"{name} of the current context was not started here, so it is not stopped")

    def base(self) -> str:
        return _PUBLIC_BASE

    def build(self, wanted: Build) -> None:
        raise ClusterError(
            f"build {wanted.tag} with the tools of this cluster's owner and push it to a registry that it reads"
        )

    def load(self, tag: str) -> bool:
        raise ClusterError(f"push {tag} to a registry that the current context's cluster reads")
