"""What the demo made, and so may take away: noted in the cluster before anything is installed in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lab.line import OPERATOR_NAMESPACE, RELEASE

MARK = "pinn-demo-made"
"""A ConfigMap in kube-system; each of its values is `yes` or `no`."""
DEFINITION = "pinnservices.pinn.dev"


class Cluster(Protocol):
    """What is needed of `lab.kube.Kube`."""

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Standard output of a command; raises KubeError."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was not there before the demo. Nothing of a cluster without a note was made by it."""

    cluster: bool = False
    operator: bool = False
    namespace: bool = False
    """The operator's."""
    definition: bool = False


def note(kube: Cluster, *, cluster: bool) -> None:
    """Write down what is not there yet; a note that is there already is the one that counts."""
    if _there(kube, "configmap", MARK, "-n", "kube-system"):
        return
    found = Made(
        cluster=cluster,
        operator=not _there(kube, "secrets", "-n", OPERATOR_NAMESPACE, "-l", f"owner=helm,name={RELEASE}"),
        namespace=not _there(kube, "namespace", OPERATOR_NAMESPACE),
        definition=not _there(kube, "customresourcedefinition", DEFINITION),
    )
    words = [f"--from-literal={name}={'yes' if getattr(found, name) else 'no'}" for name in Made.__slots__]
    kube.kubectl("create", "configmap", MARK, "-n", "kube-system", *words)


def noted(kube: Cluster) -> Made:
    """What the note says."""
    template = "go-template={{range $name, $value := .data}}{{$name}}={{$value}} {{end}}"
    words = kube.kubectl("get", "configmap", MARK, "-n", "kube-system", "--ignore-not-found", "-o", template).split()
    return Made(**{name: f"{name}=yes" in words for name in Made.__slots__})


def take_away(kube: Cluster, say: Callable[[str], None], *, demo: str, uninstall: Callable[[], None]) -> bool:
    """Remove what the demo made and say what stays; whether the whole cluster, with all in it, is to go instead.

    `demo` is the namespace of its resource, `uninstall` removes the chart's release.
    """
    made = noted(kube)
    if made.cluster:
        return True
    kube.kubectl("delete", "namespace", demo, "--ignore-not-found", "--wait=true", timeout=180)
    say(f"removed: namespace {demo}")
    stays = ["the cluster, which was there before (`make cluster-down` takes it down)"]
    if not made.operator:
        stays.append(
            f"the operator in {OPERATOR_NAMESPACE}, which was there before; the demo upgraded it "
            f"(`helm history {RELEASE} -n {OPERATOR_NAMESPACE}`, `helm rollback` goes back)"
        )
    else:
        uninstall()
        say(f"removed: the operator in {OPERATOR_NAMESPACE}")
        stays += _definition(kube, say, ours=made.definition)
        if made.namespace:
            kube.kubectl("delete", "namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait=true", timeout=180)
            say(f"removed: namespace {OPERATOR_NAMESPACE}")
        else:
            stays.append(f"namespace {OPERATOR_NAMESPACE}, which was there before")
    kube.kubectl("delete", "configmap", MARK, "-n", "kube-system", "--ignore-not-found")
    for one in stays:
        say(f"stays: {one}")
    return False


def _definition(kube: Cluster, say: Callable[[str], None], *, ours: bool) -> list[str]:
    """Remove the CustomResourceDefinition, and with it every PINNService, if there is none and it is the demo's."""
    if not _there(kube, "customresourcedefinition", DEFINITION):
        return []
    if not ours:
        return [f"the CustomResourceDefinition {DEFINITION}, which was there before"]
    others = kube.kubectl("get", "pinnservices", "--all-namespaces", "-o", "name").split()
    if others:
        return [f"the CustomResourceDefinition {DEFINITION}, and with it {len(others)} PINNServices of yours"]
    kube.kubectl("delete", "customresourcedefinition", DEFINITION, "--wait=true", timeout=120)
    say(f"removed: the CustomResourceDefinition {DEFINITION}")
    return []


def _there(kube: Cluster, *words: str) -> bool:
    return bool(kube.kubectl("get", *words, "--ignore-not-found", "-o", "name").strip())
