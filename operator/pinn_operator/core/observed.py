"""What one pass saw of the cluster, as frozen values. Produced by `pinn_operator.kube`, read by `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pinn_operator.core.manifest import Manifest
from pinn_operator.core.wanted.spec import Spec


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container last ended (`lastState.terminated` or `state.terminated`)."""

    reason: str
    exit_code: int
    message: str = ""
    cause: str = ""
    """Who ended it, in words, if it was not the container itself: its node, or the deletion of its pod."""
    finished: datetime | None = None
    """When, by its node's clock."""


@dataclass(frozen=True, slots=True)
class PodReport:
    """What the pod itself says of its readiness (`/health/deployment/readiness`), asked only while it is not ready."""

    reason: str
    message: str


class DataKind(StrEnum):
    """What holds data by name and key."""

    SECRET = "Secret"  # noqa: S105 - a kind
    CONFIG_MAP = "ConfigMap"


@dataclass(frozen=True, slots=True)
class ControlToken:
    """What a pod asks of those who use its pages that change something (`PINN_CONTROL_TOKEN`), or where it is kept."""

    value: str = field(default="", repr=False)
    """Empty: it asks for none, or it is kept elsewhere."""
    kind: DataKind | None = None
    name: str = ""
    key: str = ""


INIT_RUNNING = "InitContainerRunning"
SCHEDULING_GATED = "SchedulingGated"
NODE_SILENT = "its node does not report"
READINESS_GATES = "ReadinessGatesNotReady"
"""How the kubelet begins to say that a readiness gate keeps a pod from being ready."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a revision."""

    name: str
    revision: str
    created: datetime
    phase: str
    ready: bool
    ready_changed: datetime | None = None
    """`lastTransitionTime` of the Ready condition."""
    was_ready: bool = False
    """True when the pod is ready, or the Ready condition changed after the container first started to serve."""
    restarts: int = 0
    waiting_reason: str = ""
    """Why the container does not run, as the kubelet or the scheduler has it; `INIT_RUNNING` while it waits for an init
    container that runs."""
    waiting_message: str = ""
    waits_for: str = ""
    """The init container that the two above are of; empty if they are of the pod's own container."""
    termination: Termination | None = None
    unschedulable: str = ""
    terminating: bool = False
    report: PodReport | None = None
    disruption: str = ""
    """Who takes the pod away and why (condition DisruptionTarget): an eviction, a preemption, a lost node."""
    unready_cause: str = ""
    """Who keeps the pod from being ready although its container is: a silent node, a sidecar, a readiness gate."""
    node: str = ""
    image_id: str = ""
    """What the image was resolved to, as the node reports it."""
    started: bool = False
    """The container runs, or has run."""
    container_started: datetime | None = None
    """When the container that runs was started, by its node's clock; None while none runs."""
    first_started: datetime | None = None
    """When its container was started for the first time, by its node's clock; None if it was not, or more than once
    since."""
    token: ControlToken = ControlToken()
    memory_limit: str = ""
    """Of its container, as a quantity; empty if it has none."""
    trouble: str = ""
    """The newest warning about a pod whose container has not started, such as a volume that cannot be attached."""
    address: str = ""
    """`host:port` of its metrics and prices, an IPv6 host in brackets; empty while its container does not run."""
    seen: float | None = None
    """For how many seconds this operator has itself seen it started and as ready as it is, by its own clock; None if
    that is not known.
    The times in a pod are by other clocks, which may be far from the operator's."""

    @property
    def ends(self) -> int:
        """How many times its container has ended, with the one that it has not been started again after."""
        return self.restarts + (self.termination is not None and self.container_started is None)

    @property
    def over(self) -> bool:
        """It will never run again, such as an evicted one: a record that stays until somebody clears it away."""
        return self.phase in ("Failed", "Succeeded")


@dataclass(frozen=True, slots=True)
class Workload:
    """The Deployment of a revision."""

    revision: str
    replicas: int
    available: int
    ready: int
    settled: bool
    """`status.observedGeneration` has reached `metadata.generation`."""
    failure: str = ""
    """Why pods cannot be created (condition ReplicaFailure), such as a full quota."""
    failing_since: datetime | None = None
    """Since when that is so."""


@dataclass(frozen=True, slots=True)
class Route:
    """The HTTPRoute this operator owns, as read back.

    `weights` maps backend Service name to weight. `programmed` is True when every wanted parent reports Accepted and
    ResolvedRefs at the route's current generation (Gateway API, RouteParentStatus).
    """

    weights: Mapping[str, int]
    programmed: bool
    message: str = ""
    reason: str = ""
    """Why it is not programmed, as the reason of a condition."""
    unserved: bool = False
    """No wanted parent has taken it up, or all refuse it: no client reaches the pods by it."""


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """A ControllerRevision: the revision as it was first accepted.

    `workload` is the rendered Deployment without `spec.replicas`: an operator upgrade never changes running pods.
    `spec` is the spec that was accepted last, which keeps the gates armed if a later one is invalid; None if it no
    longer parses.
    """

    revision: str
    number: int
    workload: Manifest
    spec: Spec | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything one pass saw."""

    workloads: Mapping[str, Workload] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    selectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Service name to its label selector."""
    route: Route | None = None
    route_kind_served: bool = True
    """False when the API server does not know HTTPRoute."""
    records: Mapping[str, RevisionRecord] = field(default_factory=dict)
    objects: Mapping[tuple[str, str], Manifest] = field(default_factory=dict)
    """Every owned object as read, by (kind, name)."""

    def pods_of(self, revision: str) -> tuple[Pod, ...]:
        """The pods of one revision that are not being deleted."""
        return tuple(pod for pod in self.pods if pod.revision == revision and not pod.terminating)

    def living(self, revision: str) -> tuple[Pod, ...]:
        """The pods of one revision that run or may yet run."""
        return tuple(pod for pod in self.pods_of(revision) if not pod.over)

    def can_answer(self, revision: str) -> bool:
        """Whether a pod of a revision can: one is available, or ready though its Deployment does not count it yet.

        A Deployment that was deleted and made anew has no figures for some seconds, while its pods go on.
        """
        return self.available(revision) > 0 or any(pod.ready and not pod.terminating for pod in self.living(revision))

    def available(self, revision: str | None) -> int:
        """Available replicas of a revision; 0 when it has no Deployment."""
        workload = self.workloads.get(revision) if revision else None
        return workload.available if workload else 0
