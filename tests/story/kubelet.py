"""Pods as a kubelet reports them: JSON that is read by the operator's own parsing.

A pod is scheduled, gets its image and its configuration, starts, is probed, and can be taken away: evicted, deleted,
lost with its node, started again by it. What each of these leaves in the pod is what a kubelet (1.30 and later), the
scheduler and the node controller write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pinn_operator.core.observed import Pod
from pinn_operator.kube.parsing import parse_pod
from tests.story.prometheus import START, SimulatedPod

NO_ROOM = (
    "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption victims found "
    "for incoming pod."
)
QUOTA = 'pods "{name}" is forbidden: exceeded quota: team, requested: pods=1, used: pods={used}, limited: pods={used}'
IMAGE_ABSENT = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": failed to resolve reference '
    '"{image}": {image}: not found'
)
REGISTRY_AWAY = (
    'rpc error: code = Unknown desc = failed to pull and unpack image "{image}": failed to resolve reference '
    '"{image}": '
    "failed to do request: Head: dial tcp 10.9.8.7:443: i/o timeout"
)
NO_CREDENTIALS = (
    'rpc error: code = Unknown desc = failed to pull and unpack image "{image}": failed to resolve reference '
    '"{image}": '
    "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: "
    "authorization failed"
)
TOO_MANY = (
    'rpc error: code = Unknown desc = failed to pull and unpack image "{image}": failed to copy: httpReadSeeker: '
    "failed open: unexpected status code 429 Too Many Requests - toomanyrequests: You have reached your pull rate "
    "limit."
)
NO_KEY = "couldn't find key rate-url in Secret pricing/desk"
MULTI_ATTACH = (
    'FailedAttachVolume: Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) eu-options-1 on '
    "another node"
)
NODE_SILENT_SECONDS = 40.0
"""Until the node controller marks the pods of a silent node as not ready."""
NODE_GONE_SECONDS = 340.0
"""Until it deletes them (the default toleration is 300 s)."""


def moment(seconds: float) -> str:
    """A time as Kubernetes writes it: whole seconds."""
    return (START + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class StoryPod(SimulatedPod):
    """A pod with everything that a kubelet says of it."""

    phase: str = "Pending"
    node: str = ""
    unscheduled: str = ""
    """Why no node takes it."""
    waiting_message: str = ""
    started: float | None = None
    """When its container last started."""
    container_ready: bool = False
    disruption: tuple[str, str] | None = None
    """Reason and message of the condition DisruptionTarget."""
    deleted: float | None = None
    grace: float = 2.0
    """Seconds that it takes to end."""
    unready_until: float = 0.0
    """Its probe fails until then."""
    failed: tuple[str, str] = ("", "")
    """Reason and message of a pod that is over."""
    event: str = ""
    """The newest warning about it."""
    ended: bool = False
    """The container does not run: `termination` is the state it is in."""
    crashes: int = 0
    init: Mapping[str, Any] = field(default_factory=dict)
    """The state of an injected init container; empty when it has ended well."""
    gated: bool = False
    """A scheduling gate holds it back."""
    _shown: tuple[object, Pod] | None = None

    @property
    def answers(self) -> bool:
        """Whether a request that reaches it is answered."""
        return self.phase == "Running" and self.started is not None and not self.ended and not self.gone

    def seen(self) -> Pod:
        """What the operator reads of it."""
        state = (
            self.phase, self.node, self.unscheduled, self.waiting, self.waiting_message, self.started, self.ready,
            self.container_ready, self.ready_changed, self.restarts, self.disruption, self.deleted, self.failed,
            self.termination, self.ended, self.was_ready, str(self.init), self.gated,
        )  # fmt: skip
        if self._shown is None or self._shown[0] != state:
            self._shown = (state, parse_pod(self.manifest()))
        return self._shown[1]

    def manifest(self) -> dict[str, Any]:
        """The pod as the API server has it."""
        metadata: dict[str, Any] = {
            "name": self.name, "creationTimestamp": moment(self.created),
            "labels": {"pinn.dev/revision": self.revision},
        }  # fmt: skip
        if self.deleted is not None:
            metadata["deletionTimestamp"] = moment(self.deleted)
        container = {
            "name": "inference", "ports": [{"name": "http", "containerPort": 8000}],
            "resources": {"limits": {"memory": "2Gi"}},
        }  # fmt: skip
        spec: dict[str, Any] = {"containers": [container]}
        status: dict[str, Any] = {"phase": self.phase, "conditions": list(self._conditions())}
        if self.gated:
            spec["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
        if self.init:
            status["initContainerStatuses"] = [{"name": "istio-init", "started": False, **self.init}]
        if self.node:
            spec["nodeName"] = self.node
            status |= {"startTime": moment(self.created), "podIP": "10.0.0.1"}
            status["containerStatuses"] = [self._container()]
        if self.failed[0]:
            status |= {"reason": self.failed[0], "message": self.failed[1]}
        return {"metadata": metadata, "spec": spec, "status": status}

    def _conditions(self) -> list[dict[str, Any]]:
        if self.gated:
            message = "Scheduling is blocked due to non-empty scheduling gates"
            return [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message}]
        if not self.node:
            return [
                {
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": self.unscheduled,
                    "lastTransitionTime": moment(self.created),
                }
            ] if self.unscheduled else []  # fmt: skip
        changed = moment(self.ready_changed if self.was_ready or self.ready else self.created)
        ready = {"type": "Ready", "status": str(self.ready), "lastTransitionTime": changed}
        if not self.ready and not self.container_ready:
            ready |= {"reason": "ContainersNotReady", "message": "containers with unready status: [inference]"}
        found = [ready, {"type": "ContainersReady", "status": str(self.container_ready), "lastTransitionTime": changed}]
        if self.disruption is not None:
            reason, message = self.disruption
            found.append({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message})
        return found

    def _container(self) -> dict[str, Any]:
        status: dict[str, Any] = {"name": "inference", "ready": self.container_ready, "restartCount": self.restarts}
        last = None
        if self.termination is not None:
            last = {
                "reason": self.termination.reason, "exitCode": self.termination.exit_code,
                "message": self.termination.message,
            }  # fmt: skip
            if self.termination.finished is not None:
                last["finishedAt"] = self.termination.finished.isoformat()
        if self.ended and last is not None:
            return {**status, "state": {"terminated": last}}
        if last is not None:
            status["lastState"] = {"terminated": last}
        if self.init:
            return {**status, "state": {"waiting": {"reason": "PodInitializing"}}}
        if self.waiting:
            waiting = {"reason": self.waiting, "message": self.waiting_message}
            return {**status, "state": {"waiting": waiting}}
        if self.started is None:
            return {**status, "state": {"waiting": {"reason": "ContainerCreating"}}}
        return {**status, "imageID": f"sha256:{self.image}", "state": {"running": {"startedAt": moment(self.started)}}}
