"""From Kubernetes objects as JSON to the frozen values of `core.observed`. Pure; tolerant of absent fields.

What an API server or a kubelet may leave out reads as "not yet": no status, no conditions, no container statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pinn_operator.core.api import parse_spec
from pinn_operator.core.manifest import Manifest
from pinn_operator.core.names import CONTAINER, CONTROL_TOKEN, PORT_NAME, REVISION_LABEL
from pinn_operator.core.objects.records import accepted_manifests
from pinn_operator.core.observed import (
    INIT_RUNNING,
    NODE_SILENT,
    SCHEDULING_GATED,
    ControlToken,
    DataKind,
    Pod,
    RevisionRecord,
    Termination,
    Workload,
)
from pinn_operator.core.wanted.spec import Spec

TEXT_LIMIT: Final = 1024
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_SAME_MOMENT: Final = timedelta(seconds=1)
"""Kubernetes truncates times to seconds: two that were taken together may be this far apart."""


def parse_time(text: object) -> datetime | None:
    """An RFC 3339 time as an aware datetime; None if absent or not one."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def label_of(manifest: Manifest, label: str) -> str:
    """A label's value, empty if absent."""
    return str((manifest["metadata"].get("labels") or {}).get(label, ""))


def is_terminating(manifest: Manifest) -> bool:
    """Whether the object is being deleted."""
    return bool(manifest["metadata"].get("deletionTimestamp"))


# --- pods -----------------------------------------------------------------------------------------------------------


def parse_pod(manifest: Manifest) -> Pod:
    """A pod, judged by its container `inference` alone: what an injected sidecar does is not the revision's fault.

    `was_ready` is derived from the pod alone. The kubelet writes the condition Ready=False in the same moment as
    `status.startTime`, and `lastTransitionTime` moves only when the value changes. A Ready condition that is False and
    changed later than that was therefore True in between.
    """
    status: Mapping[str, Any] = manifest.get("status") or {}
    ready = _condition(status, "Ready")
    scheduled = _condition(status, "PodScheduled")
    is_ready = ready.get("status") == "True"
    ready_changed = parse_time(ready.get("lastTransitionTime"))
    container = _container_status(status)
    waiting = (container.get("state") or {}).get("waiting") or {}
    # An evicted pod has a reason of its own, and its containers may have none.
    reason = waiting.get("reason") or status.get("reason") or ""
    message = waiting.get("message") or (status.get("message") if not waiting else "") or ""
    waits_for = ""
    if reason == "PodInitializing" and (init := _blocking_init(status)) is not None:
        waits_for, (reason, message) = str(init.get("name") or ""), _init_state(init)
    elif scheduled.get("reason") == SCHEDULING_GATED:
        reason, message = SCHEDULING_GATED, _scheduling_gates(manifest, scheduled)
    terminating, disruption = is_terminating(manifest), _disruption(status)
    return Pod(
        name=manifest["metadata"]["name"],
        revision=label_of(manifest, REVISION_LABEL),
        created=parse_time(manifest["metadata"].get("creationTimestamp")) or _EPOCH,
        phase=str(status.get("phase") or "Pending"),
        ready=is_ready,
        ready_changed=ready_changed,
        was_ready=is_ready or _was_ready(ready, ready_changed, parse_time(status.get("startTime"))),
        restarts=int(container.get("restartCount") or 0),
        waiting_reason=str(reason),
        waiting_message=str(message)[:TEXT_LIMIT],
        waits_for=waits_for,
        termination=_termination(manifest, container, deletion=disruption or ("its deletion" if terminating else "")),
        unschedulable=_unschedulable(scheduled),
        terminating=terminating,
        address=report_address(manifest) or "",
        disruption=disruption,
        unready_cause=_unready_cause(ready, container),
        node=str((manifest.get("spec") or {}).get("nodeName") or ""),
        image_id=str(container.get("imageID") or "")[:TEXT_LIMIT],
        started=_has_started(container),
        container_started=parse_time(((container.get("state") or {}).get("running") or {}).get("startedAt")),
        first_started=_first_started(container),
        token=_control_token(manifest),
        memory_limit=_memory_limit(manifest),
    )


def _control_token(manifest: Manifest) -> ControlToken:
    """By the environment of the container `inference`: the pod's UID, unless the team gives another. A pod of a
    revision from before there was a token has no such variable."""
    variables: Iterable[Mapping[str, Any]] = _container(manifest).get("env") or ()
    found = next((each for each in variables if each.get("name") == CONTROL_TOKEN), {})
    source = found.get("valueFrom") or {}
    for kind, reference in ((DataKind.SECRET, "secretKeyRef"), (DataKind.CONFIG_MAP, "configMapKeyRef")):
        if reference in source:
            return ControlToken(kind=kind, name=str(source[reference]["name"]), key=str(source[reference]["key"]))
    if "fieldRef" in source:
        return ControlToken(str(manifest["metadata"].get("uid") or ""))
    return ControlToken(str(found.get("value") or ""))


def _disruption(status: Mapping[str, Any]) -> str:
    """Who takes the pod away and why, in words (Kubernetes documentation, "Pod disruption conditions").

    A pod that restarts its containers never fails by itself: one in phase Failed was ended or refused by its node.
    """
    target = _condition(status, "DisruptionTarget")
    if target.get("status") == "True":
        return f"{target.get('reason') or 'DisruptionTarget'}: {target.get('message') or ''}".rstrip(": ")[:TEXT_LIMIT]
    if status.get("phase") != "Failed":
        return ""
    return f"{status.get('reason') or 'Failed'}: {status.get('message') or 'ended by its node'}"[:TEXT_LIMIT]


def _unready_cause(ready: Mapping[str, Any], container: Mapping[str, Any]) -> str:
    """Who keeps a pod from being ready although its container is.

    The node controller sets the Ready condition of the pods of a silent node to False and touches nothing else
    (`MarkPodsNotReady`): the reason that a kubelet gives is then absent.
    """
    if ready.get("status") == "True" or not container.get("ready"):
        return ""
    if ready.get("status") == "Unknown" or not ready.get("reason"):
        return NODE_SILENT
    return f"{ready.get('reason')}: {ready.get('message') or ''}".rstrip(": ")[:TEXT_LIMIT]


def _has_started(container: Mapping[str, Any]) -> bool:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    return any(part in found for found in (state, last) for part in ("running", "terminated"))


def _first_started(container: Mapping[str, Any]) -> datetime | None:
    state, restarts = container.get("state") or {}, int(container.get("restartCount") or 0)
    if restarts > 1:
        return None
    held = (container.get("lastState") or {}) if restarts else state
    return parse_time((held.get("running") or held.get("terminated") or {}).get("startedAt"))


def report_address(manifest: Manifest) -> str | None:
    """`host:port` at which a pod can be asked; None if its container does not run or it has no address."""
    status: Mapping[str, Any] = manifest.get("status") or {}
    host = status.get("podIP")
    if not host or status.get("phase") != "Running" or "running" not in (_container_status(status).get("state") or {}):
        return None
    ports: Iterable[Mapping[str, Any]] = _container(manifest).get("ports") or ()
    number = next((port.get("containerPort") for port in ports if port.get("name") == PORT_NAME), None)
    if number is None:
        return None
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def _was_ready(ready: Mapping[str, Any], changed: datetime | None, started: datetime | None) -> bool:
    if ready.get("status") != "False" or changed is None or started is None:
        return False
    return changed - started > _SAME_MOMENT


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((item for item in status.get("conditions") or () if item.get("type") == kind), {})


def _container(manifest: Manifest) -> Mapping[str, Any]:
    """What the pod's spec says of the container `inference`."""
    return _named_inference((manifest.get("spec") or {}).get("containers"))


def _container_status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the container `inference`."""
    return _named_inference(status.get("containerStatuses"))


def _named_inference(items: Iterable[Mapping[str, Any]] | None) -> Mapping[str, Any]:
    return next((item for item in items or () if item.get("name") == CONTAINER), {})


def _blocking_init(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The init container that the others wait for: the first that has neither ended well nor, as a sidecar, started."""
    for item in status.get("initContainerStatuses") or ():
        ended = (item.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode") != 0 and item.get("started") is not True:
            waits = ((item.get("state") or {}).get("waiting") or {}).get("reason") == "PodInitializing"
            return None if waits else item
    return None


def _init_state(init: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and message of an init container, with its last end if that was a failure."""
    state: Mapping[str, Any] = init.get("state") or {}
    ended = state.get("terminated") or (init.get("lastState") or {}).get("terminated") or {}
    how = f"it ended with exit code {ended.get('exitCode')} ({ended.get('reason') or 'Error'})" if ended else ""
    if "running" in state:
        since = (state["running"] or {}).get("startedAt")
        return INIT_RUNNING, "; ".join(filter(None, [f"it runs since {since}" if since else "it runs", how]))
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason") or ("Error" if ended else "PodInitializing")
    return str(reason), "; ".join(filter(None, [str(waiting.get("message") or ""), how]))


def _scheduling_gates(manifest: Manifest, scheduled: Mapping[str, Any]) -> str:
    gates = (manifest.get("spec") or {}).get("schedulingGates") or ()
    names = ", ".join(str(gate.get("name")) for gate in gates)
    return f"held back by {names}" if names else str(scheduled.get("message") or "held back by a scheduling gate")


_SIGNALS: Final = frozenset({130, 137, 143})
"""Exit codes of a process that was ended by SIGINT, SIGKILL or SIGTERM."""
_NODE_REASONS: Final = frozenset({"Unknown", "ContainerStatusUnknown"})
"""What a kubelet says of a container that was gone when it came back (containerd: Unknown, exit code 255)."""


def _termination(manifest: Manifest, container: Mapping[str, Any], *, deletion: str) -> Termination | None:
    """The newest end of the container: the one it is in, else the one before its restart."""
    current = (container.get("state") or {}).get("terminated")
    ended = current or (container.get("lastState") or {}).get("terminated")
    if not ended:
        return None
    reason, code = str(ended.get("reason") or ""), int(ended.get("exitCode") or 0)
    cause = ""
    if reason in _NODE_REASONS:
        cause = "its node restarted"
    elif reason == "OOMKilled":
        cause = "" if _memory_limit(manifest) else "its node ran out of memory, the container has no memory limit"
    elif current and deletion and (code == 0 or code in _SIGNALS):
        cause = deletion
    return Termination(
        reason=reason,
        exit_code=code,
        # The kubelet keeps the end of the log: the last lines say why.
        message=str(ended.get("message") or "")[-TEXT_LIMIT:],
        cause=cause,
        finished=parse_time(ended.get("finishedAt")),
    )


def _memory_limit(manifest: Manifest) -> str:
    limits = (_container(manifest).get("resources") or {}).get("limits") or {}
    return str(limits.get("memory", ""))


def _unschedulable(scheduled: Mapping[str, Any]) -> str:
    if scheduled.get("status") != "False" or scheduled.get("reason") == SCHEDULING_GATED:
        return ""
    return str(scheduled.get("message") or "no node takes it")[:TEXT_LIMIT]


# --- workloads, services, records -----------------------------------------------------------------------------------


def parse_workload(manifest: Manifest) -> Workload:
    """A Deployment. `replicas` is what it is told to have; `available` and `ready` are what it has."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    status: Mapping[str, Any] = manifest.get("status") or {}
    replicas = spec.get("replicas")
    return Workload(
        revision=label_of(manifest, REVISION_LABEL),
        replicas=1 if replicas is None else int(replicas),
        available=int(status.get("availableReplicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        settled=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0),
        failure=_replica_failure(status),
        failing_since=parse_time(_condition(status, "ReplicaFailure").get("lastTransitionTime")),
    )


def _replica_failure(status: Mapping[str, Any]) -> str:
    failure = _condition(status, "ReplicaFailure")
    if failure.get("status") != "True":
        return ""
    return str(failure.get("message") or failure.get("reason") or "pods cannot be created")[:TEXT_LIMIT]


def parse_selector(service: Manifest) -> Mapping[str, str]:
    """The label selector of a Service; empty if it has none."""
    return dict((service.get("spec") or {}).get("selector") or {})


def parse_record(manifest: Manifest) -> RevisionRecord:
    """A ControllerRevision. Its spec is what was accepted last that this operator takes; None if there is none.

    Anyone may have made one by hand: a workload that no Deployment could be written from is read as an empty one.
    """
    data = _mapping(manifest.get("data"))
    workload = _mapping(data.get("workload"))
    parts = all(isinstance(workload.get(part), Mapping) for part in ("metadata", "spec"))
    usable = parts and (workload.get("apiVersion"), workload.get("kind")) == ("apps/v1", "Deployment")
    specs = (parse_spec(accepted) for accepted in accepted_manifests(manifest))
    return RevisionRecord(
        revision=label_of(manifest, REVISION_LABEL),
        number=int(manifest.get("revision") or 0),
        workload=workload if usable else {},
        spec=next((spec for spec in specs if isinstance(spec, Spec)), None),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
