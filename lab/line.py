"""The whole line, up: a cluster, both images and the derived one, the chart by Helm. What is there already is used."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.kube import REPOSITORY, Kube, KubeError, Manifest, is_ready, program, wait_until
from lab.prometheus import Prometheus

Say = Callable[[str], None]

OPERATOR_NAMESPACE = "pinn-system"
RELEASE = "pinn-operator"
CHART = REPOSITORY / "charts" / "pinn-operator"


@dataclass(frozen=True, slots=True)
class Images:
    """References under which the cluster's node has the images; the tags are digests of what they are built from."""

    operator: str
    inference: str
    faulty: str


@dataclass(frozen=True, slots=True)
class Line:
    """Everything a rollout needs."""

    kube: Kube
    prometheus: Prometheus
    gateway: str
    prometheus_in_pods: str
    images: Images

    def operator_pod(self) -> Manifest:
        """The operator's ready pod. Raises TimeoutError when there is none within a minute."""

        def find() -> Manifest | None:
            labels = f"app.kubernetes.io/instance={RELEASE}"
            pods = self.kube.list("pods", OPERATOR_NAMESPACE, labels=labels)
            alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and is_ready(pod)]
            return alive[0] if alive else None

        pod: Manifest = wait_until("a ready operator pod", find, seconds=60)
        return pod

    def kill_operator(self) -> int:
        """SIGKILL to the operator's process; returns the process id that died.

        A container that dies again within minutes is restarted by the kubelet after a back-off, so its pod is then
        deleted as well and the Deployment starts a new one at once.
        """
        pod = self.operator_pod()
        status = pod["status"]["containerStatuses"][0]
        processes = processes_of(status["containerID"].partition("://")[2])
        if not processes:
            raise KubeError(f"no process of {pod['metadata']['name']} on this machine")
        os.kill(processes[0], signal.SIGKILL)
        if status.get("restartCount", 0) > 0:
            name = pod["metadata"]["name"]
            self.kube.kubectl(
                "delete", "pod", name, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force", "--wait=false"
            )
        return processes[0]

    def component(self, action: str, name: str) -> None:
        """Start or stop a part of the cluster, such as `prometheus` or `apiserver`."""
        _run(["python3", "-m", "cluster", action, name], timeout=120)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A part of the cluster is down for the length of a block, and up again after it whatever happens."""
        self.component("stop", name)
        try:
            yield
        finally:
            self.component("start", name)


def bring_up(
    say: Say = lambda text: print(text, file=sys.stderr, flush=True),
    *,
    scrape_seconds: int | None = 1,
    before_install: Callable[[Kube], None] = lambda _: None,
) -> Line:
    """Make the whole line be up. One caller at a time; each long step shows progress.

    Prometheus scrapes every `scrape_seconds`; None: it does so every second, and the operator knows of no Prometheus.
    `before_install` is called once there is a cluster, before anything is installed in it.
    """
    with exclusive("line"):
        return _bring_up(say, scrape_seconds, before_install)


def _bring_up(say: Say, scrape_seconds: int | None, before_install: Callable[[Kube], None]) -> Line:
    began = time.monotonic()
    say("cluster: looking for one, making one if there is none")
    _run(["python3", "-m", "cluster", "up"], timeout=2400, CLUSTER_SCRAPE_INTERVAL=f"{scrape_seconds or 1}s")
    info = cluster_info()
    # `cluster` refuses the context in use unless it is named, so with CLUSTER=current it was named.
    named = info["context"] if os.environ.get("CLUSTER") == "current" else ""
    kube = Kube(Path(info["kubeconfig"]), allow=named)
    say(f"cluster: {kube.context} ({time.monotonic() - began:.0f} s)")
    before_install(kube)
    images = build_images(kube, say)
    install_chart(kube, images, prometheus=info["prometheus_url_in_pods"] if scrape_seconds else "")
    say(f"chart: release {RELEASE} in namespace {OPERATOR_NAMESPACE}")
    say(f"operator: serving ({time.monotonic() - began:.0f} s in all)")
    return Line(kube, Prometheus(info["prometheus_url"]), info["gateway_url"], info["prometheus_url_in_pods"], images)


def cluster_info() -> dict[str, str]:
    """What `python3 -m cluster info` says: context, kubeconfig, and addresses. Raises KubeError without a cluster."""
    done = subprocess.run(
        ["python3", "-m", "cluster", "info", "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise KubeError(f"no cluster here (`make cluster-up`): {done.stderr.strip()}")
    info: dict[str, str] = json.loads(done.stdout)
    missing = [name for name in ("gateway_url", "prometheus_url", "prometheus_url_in_pods") if not info.get(name)]
    if missing:
        raise KubeError(
            f"cluster {info.get('context')} has no {', '.join(missing)}: a Gateway and Prometheus are needed"
        )
    return info


# --- images -----------------------------------------------------------------------------------------------------------


def build_images(kube: Kube, say: Say) -> Images:
    """Build what has changed, and give it to the node; nothing is done for an image that the node has.

    Images that PINN_TEST_IMAGES names (three references: operator, inference, derived) are taken as they are.
    """
    given = os.environ.get("PINN_TEST_IMAGES", "").split()
    if given:
        say(f"images: as given, {' '.join(given)}")
        return Images(*given)
    nodes = kube.request("GET", "/api/v1/nodes").body["items"]
    known = {name for node in nodes for image in node["status"].get("images", []) for name in image.get("names") or []}
    shared = ["pyproject.toml", "README.md", "LICENSE", "requirements/build.lock"]
    operator = _image(
        known,
        "pinn-operator",
        "Dockerfile.operator",
        REPOSITORY,
        [*shared, "requirements/operator.lock", "operator/pinn_operator"],
        say,
    )
    inference = _image(
        known,
        "pinn-inference",
        "Dockerfile.inference",
        REPOSITORY,
        [
            *shared,
            "requirements/inference.lock",
            "requirements/inference-gpu.lock",
            "requirements/check_tensorflow.py",
            "inference/pinn_inference",
        ],
        say,
    )
    folder = REPOSITORY / "tests" / "e2e" / "images"
    faulty = _image(
        known, "pinn-inference-faulty", "faulty.Dockerfile", folder, ["faulty.py"], say, arguments={"BASE": inference}
    )
    return Images(operator=operator, inference=inference, faulty=faulty)


def _image(
    known: Collection[str],
    name: str,
    dockerfile: str,
    context: Path,
    sources: Sequence[str],
    say: Say,
    *,
    arguments: dict[str, str] | None = None,
) -> str:
    tag = _digest(context, [dockerfile, *sources], json.dumps(arguments or {}, sort_keys=True))
    reference = f"localhost/{name}:{tag}"
    if reference in known:
        say(f"image: {reference} is there")
        return reference
    began = time.monotonic()
    words = ["python3", "-m", "cluster", "image", "build", "--tag", reference, "--file", str(context / dockerfile)]
    words += ["--context", str(context)]
    for key, value in (arguments or {}).items():
        words += ["--build-arg", f"{key}={value}"]
    _run(words, timeout=1800)
    _run(["python3", "-m", "cluster", "image", "load", reference], timeout=600)
    say(f"image: {reference} ({time.monotonic() - began:.0f} s)")
    return reference


def _digest(folder: Path, names: Sequence[str], salt: str) -> str:
    """Twelve hex digits that change when any of the files does."""
    digest = hashlib.sha256(salt.encode())
    for name in names:
        path = folder / name
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" in file.parts:
                continue
            digest.update(f"{file.relative_to(folder)}\0{file.stat().st_mode & 0o111}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# --- chart ------------------------------------------------------------------------------------------------------------


def install_chart(kube: Kube, images: Images, *, prometheus: str, **more: Any) -> None:
    """`helm upgrade --install`, as a user does, with `more` values; waits until the operator serves."""
    repository, _, tag = images.operator.rpartition(":")
    registry, _, name = repository.partition("/")
    values = {
        "image": {"registry": registry, "repository": name, "tag": tag, "pullPolicy": "IfNotPresent"},
        "prometheus": {"address": prometheus},
        **more,
    }
    done = subprocess.run(
        [
            program("helm"), "upgrade", "--install", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE,
            "--create-namespace", "--wait", "--timeout", "180s", "--values", "-",
            "--kubeconfig", str(kube.kubeconfig), "--kube-context", kube.context,
        ],
        input=json.dumps(values), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    if done.returncode:
        raise KubeError(f"helm: {done.stderr.strip()}")


def uninstall_chart(kube: Kube) -> None:
    """`helm uninstall`; no release is fine."""
    done = subprocess.run(
        [
            program("helm"), "uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait",
            "--kubeconfig", str(kube.kubeconfig), "--kube-context", kube.context,
        ],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if done.returncode:
        raise KubeError(f"helm: {done.stderr.strip()}")


# --- processes, locks -------------------------------------------------------------------------------------------------


def processes_of(container: str) -> list[int]:
    """Process ids of a container on this machine, oldest first, found by its id in their control groups."""
    if not re.fullmatch(r"[0-9a-f]{64}", container):
        raise ValueError(f"{container!r} is not a container id")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if container in (entry / "cgroup").read_text():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return sorted(found)


@contextmanager
def exclusive(name: str, *, shared: bool = False) -> Iterator[None]:
    """A lock between processes: one holder, or any number of `shared` ones."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")) / "pinn-operator-locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def _run(words: Sequence[str], *, timeout: float, **environment: str) -> None:
    """Its progress goes to our standard error. Raises KubeError when it fails."""
    done = subprocess.run(
        words, cwd=REPOSITORY, stdout=sys.stderr.fileno(), timeout=timeout, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode:
        raise KubeError(f"{' '.join(words)}: exit status {done.returncode}")
