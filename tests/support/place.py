"""A namespace with a PINNService on a control plane without nodes: pods get their status from the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.kube import PINNSERVICES, Kube, Manifest, wait_until
from tests.support import crd
from tests.support.operator import Operator

NAME = "eu-options"
IMAGE = "registry.example.com/pinn-inference"


def install_crd(kube: Kube) -> None:
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd.CRD))
    path = f"{PINNSERVICES}/namespaces/default/pinnservices"
    wait_until("the API is served", lambda: kube.request("GET", path).status == 200, seconds=30)


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of its own, with its own operator."""

    kube: Kube
    namespace: str
    folder: Path

    def operator(self, name: str = "operator", **more: Any) -> Operator:
        kubeconfig = more.pop("kubeconfig", self.kube.kubeconfig)
        return Operator(kubeconfig, namespaces=[self.namespace], log=self.folder / f"{name}.log", **more)

    def apply(self, *, tag: str = "1.0.0", **spec: Any) -> None:
        """`kubectl apply` of a resource with quick steps and no gates that need many requests."""
        self.kube.apply(
            {
                "apiVersion": "pinn.dev/v1alpha1",
                "kind": "PINNService",
                "metadata": {"name": NAME, "namespace": self.namespace},
                # Without a kubelet no pod answers for prices.
                "spec": {"image": f"{IMAGE}:{tag}", "replicas": 2, "verification": {"mode": "Disabled"}, **spec},
            }
        )

    def read(self) -> Manifest:
        return self.kube.get("pinnservices", NAME, self.namespace) or {}

    @property
    def status(self) -> Manifest:
        status: Manifest = self.read().get("status", {})
        return status

    def condition(self, kind: str) -> Manifest:
        return next((item for item in self.status.get("conditions", []) if item["type"] == kind), {})

    def wait(self, what: str, check: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        return wait_until(what, check, seconds=seconds, tell=lambda: self.status)

    def children(self, kind: str) -> list[Manifest]:
        return self.kube.list(kind, self.namespace, labels=f"pinn.dev/service={NAME}")

    def pods(self, revision: str) -> list[Manifest]:
        found = self.kube.list("pods", self.namespace, labels=f"pinn.dev/service={NAME},pinn.dev/revision={revision}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def events(self, reason: str) -> list[Manifest]:
        fields = f"involvedObject.name={NAME},reason={reason}"
        return self.kube.list("events", self.namespace, fields=fields)

    # --- instead of a kubelet -----------------------------------------------------------------------------------------

    def set_status(self, pod: Manifest, status: Manifest) -> None:
        name = pod["metadata"]["name"]
        answer = self.kube.request(
            "PATCH",
            f"/api/v1/namespaces/{self.namespace}/pods/{name}/status",
            {"status": status},
            content_type="application/merge-patch+json",
        )
        assert answer.status == 200, answer.body

    def make_ready(self, revision: str) -> None:
        for pod in self.pods(revision):
            if not any(item["type"] == "Ready" for item in pod["status"].get("conditions", [])):
                self.set_status(pod, running(ready=True))

    def until(self, what: str, check: Callable[[Manifest], Any], *, seconds: float = 90.0, healthy: bool = True) -> Any:
        """Wait, and meanwhile let every new pod become ready, as on a cluster where all is well."""

        def tick() -> Any:
            status = self.status
            if healthy:
                for role in ("stable", "canary"):
                    if status.get(role):
                        self.make_ready(status[role]["revision"])
            return check(status)

        return self.wait(what, tick, seconds=seconds)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running(*, ready: bool, restarts: int = 0, **container: Any) -> Manifest:
    """The status of a pod that runs."""
    moment = now()
    value = "True" if ready else "False"
    return {
        "phase": "Running",
        "startTime": moment,
        "conditions": [
            {"type": kind, "status": value, "lastTransitionTime": moment} for kind in ("Ready", "ContainersReady")
        ],
        "containerStatuses": [
            {
                "name": "inference",
                "ready": ready,
                "started": ready,
                "restartCount": restarts,
                "image": "x",
                "imageID": "x",
                "state": {"running": {"startedAt": moment}},
                **container,
            }
        ],
    }
