"""``CLUSTER=kind``: the same where there is a Docker engine, with public images for router and Prometheus."""

import json
import shutil
from pathlib import Path

from cluster import kind_objects
from cluster.backend import Access, ComponentStatus
from cluster.errors import ClusterError
from cluster.files import locked, write_atomic
from cluster.images import Build, build_log
from cluster.progress import Progress
from cluster.settings import Mode, Settings
from cluster.shell import find_program, run, run_into, succeeds
from cluster.toolchain import Toolchain

_NODE = f"{kind_objects.CLUSTER_NAME}-control-plane"
_APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=pinn-cluster")
# Component → namespace of its Deployment.
_DEPLOYMENTS = {"prometheus": "monitoring", "contour": "projectcontour"}
# Component → static pod, which runs for as long as its manifest lies in kubelet's folder.
_STATIC_PODS = {"apiserver": "kube-apiserver", "kcm": "kube-controller-manager", "scheduler": "kube-scheduler"}
_PUBLIC_BASE = "docker.io/library/python:3.13-slim"


def docker_answers() -> bool:
    """Whether a Docker engine can be used by this user."""
    return find_program("docker") is not None and succeeds(["docker", "info"], timeout=20)


class KindCluster:
    """A kind cluster named ``pinn``; its kubeconfig lies in the state folder, never in the home folder's."""

    def __init__(self, *, settings: Settings, progress: Progress) -> None:
        self._cache = settings.cache
        self._state = settings.state.with_name(f"{settings.state.name}-kind")
        self._kubeconfig = self._state / "kubeconfig"
        self._progress = progress
        self._toolchain = Toolchain(cache=settings.cache, progress=progress)

    def _program(self, name: str) -> Path:
        """A program on PATH, else compiled as for the local cluster."""
        found = find_program(name)
        if found is not None:
            return found
        self._toolchain.ensure((Toolchain.tool_of(name),))
        return self._toolchain.program(name)

    def _kind(self, *words: str | Path, timeout: float = 60.0) -> str:
        return run([self._program("kind"), *words], timeout=timeout)

    def _kubectl(self, *words: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        program = self._program("kubectl")
        return run([program, f"--kubeconfig={self._kubeconfig}", *words], timeout=timeout, stdin=stdin)

    def _exists(self) -> bool:
        return kind_objects.CLUSTER_NAME in self._kind("get", "clusters").split()

    def up(self, mode: Mode) -> None:
        """Makes the cluster, or starts and completes what there is of it; one that does not come back is made anew."""
        if mode is Mode.CONTROL_PLANE:
            raise ClusterError("--only control-plane has no kind: use CLUSTER=local, which needs no Docker")
        if not docker_answers():
            raise ClusterError("CLUSTER=kind wants a Docker engine that answers `docker info`")
        with locked(self._state.with_name(f"{self._state.name}.lock"), waiting=self._progress.say):
            self._state.mkdir(parents=True, exist_ok=True)
            if self._exists() and not self._comes_back():
                with self._progress.step("delete a kind cluster that does not come back"):
                    self._delete()
            if not self._exists():
                config = self._state / "kind.json"
                write_atomic(config, kind_objects.kind_config())
                with self._progress.step("kind create cluster"):
                    words: list[str | Path] = ["create", "cluster", "--wait", "180s", "--kubeconfig", self._kubeconfig]
                    self._kind(*words, "--config", config, timeout=900)
            with self._progress.step("router and Prometheus"):
                self._install()

    def _comes_back(self) -> bool:
        """Starts the node's container after a reboot, and waits for its API server."""
        if not succeeds(["docker", "start", _NODE], timeout=60):
            return False
        words: list[str | Path] = ["--name", kind_objects.CLUSTER_NAME, "--kubeconfig", self._kubeconfig]
        try:
            self._kind("export", "kubeconfig", *words)
            self._kubectl("wait", "--for=condition=Ready", f"node/{_NODE}", "--timeout=120s", timeout=150)
        except ClusterError as error:
            self._progress.say(str(error))
            return False
        return True

    def _install(self) -> None:
        """Router and Prometheus; Contour only when another version of it is there, as its pods restart thereby."""
        if self._installed_version() != kind_objects.installed_version():
            self._kubectl(*_APPLY, "-f", kind_objects.GATEWAY_API_MANIFEST)
            self._kubectl(*_APPLY, "-f", kind_objects.CONTOUR_MANIFEST)
            self._kubectl(*_APPLY, "-f", "-", stdin=kind_objects.contour_settings())
            for crd in ("gateways", "gatewayclasses", "httproutes"):
                name = f"crd/{crd}.gateway.networking.k8s.io"
                self._kubectl("wait", "--for=condition=Established", "--timeout=60s", name)
            contour = ("deployment/contour", "--namespace=projectcontour")
            self._kubectl("patch", *contour, "--type=json", f"--patch={kind_objects.contour_patch()}")
        self._kubectl(*_APPLY, "-f", "-", stdin=kind_objects.cluster_objects())
        for namespace, name in (
            ("projectcontour", "deployment/contour"),
            ("projectcontour", "daemonset/envoy"),
            ("monitoring", "deployment/prometheus"),
        ):
            self._kubectl("rollout", "status", name, f"--namespace={namespace}", "--timeout=300s", timeout=330)
        self._kubectl(*_APPLY, "-f", "-", stdin=kind_objects.version_marker())

    def _installed_version(self) -> str:
        """What the last completed installation left; empty when there was none."""
        name, namespace = kind_objects.MARKER
        words = ("get", "configmap", name, f"--namespace={namespace}", "--ignore-not-found")
        return self._kubectl(*words, "--output=jsonpath={.data.version}").strip()

    def _delete(self) -> None:
        self._kind(
            "delete", "cluster", "--name", kind_objects.CLUSTER_NAME, "--kubeconfig", self._kubeconfig, timeout=180
        )

    def down(self) -> None:
        """Deletes the kind cluster and the state folder."""
        if not self._state.exists() and not docker_answers():
            return
        with locked(self._state.with_name(f"{self._state.name}.lock"), waiting=self._progress.say) as lock:
            if self._exists():
                with self._progress.step("kind delete cluster"):
                    self._delete()
            shutil.rmtree(self._state, ignore_errors=True)
            lock.unlink()

    def access(self) -> Access:
        return Access(
            context=f"kind-{kind_objects.CLUSTER_NAME}",
            kubeconfig=self._kubeconfig,
            kubectl=self._program("kubectl"),
            gateway_url=f"http://127.0.0.1:{kind_objects.GATEWAY_HOST_PORT}",
            gateway_url_in_pods="http://envoy.edge",
            prometheus_url=f"http://127.0.0.1:{kind_objects.PROMETHEUS_HOST_PORT}",
            prometheus_url_in_pods="http://prometheus.monitoring:9090",
        )

    def status(self) -> list[ComponentStatus]:
        if not self._kubeconfig.exists():
            return []
        found = [ComponentStatus(name="apiserver", ready=self._answers())]
        for name, namespace in _DEPLOYMENTS.items():
            found.append(ComponentStatus(name=name, ready=self._available(name, namespace)))
        return found

    def _answers(self) -> bool:
        try:
            return self._kubectl("get", "--raw", "/readyz", timeout=20).strip() == "ok"
        except ClusterError:
            return False

    def _available(self, name: str, namespace: str) -> bool:
        try:
            raw = self._kubectl("get", "deployment", name, f"--namespace={namespace}", "--output=json", timeout=20)
            return int(json.loads(raw)["status"].get("availableReplicas", 0)) > 0
        except (ClusterError, ValueError, KeyError, TypeError):
            return False

    def start(self, name: str) -> None:
        self._switch(name, on=True)

    def stop(self, name: str, *, kill: bool) -> None:  # noqa: ARG002 - a pod of kind is always stopped gracefully
        self._switch(name, on=False)

    def _switch(self, name: str, *, on: bool) -> None:
        if name in _DEPLOYMENTS:
            target = (f"deployment/{name}", f"--namespace={_DEPLOYMENTS[name]}")
            self._kubectl("scale", *target, f"--replicas={1 if on else 0}")
            if on:
                self._kubectl("rollout", "status", *target, "--timeout=120s", timeout=150)
        elif name in _STATIC_PODS:
            manifest = f"{_STATIC_PODS[name]}.yaml"
            folders = ("/etc/kubernetes", "/etc/kubernetes/manifests")
            source, target_folder = folders if on else folders[::-1]
            run(["docker", "exec", _NODE, "mv", f"{source}/{manifest}", f"{target_folder}/{manifest}"], timeout=60)
        else:
            known = ", ".join([*_DEPLOYMENTS, *_STATIC_PODS])
            raise ClusterError(f"kind cannot switch {name!r}; it can switch: {known}")

    def base(self) -> str:
        return _PUBLIC_BASE

    def build(self, wanted: Build) -> None:
        words: list[str | Path] = ["docker", "build", "--tag", wanted.tag, "--file", wanted.dockerfile]
        for name, value in wanted.build_args.items():
            words += ["--build-arg", f"{name}={value}"]
        if wanted.target is not None:
            words += ["--target", wanted.target]
        log = build_log(self._cache, wanted.tag)
        with self._progress.step(f"build {wanted.tag} (log: {log})"):
            run_into(log, [*words, wanted.context], timeout=3600)

    def load(self, tag: str) -> bool:
        """kind itself skips an image that the node has."""
        with self._progress.step(f"load {tag}"):
            self._kind("load", "docker-image", tag, "--name", kind_objects.CLUSTER_NAME, timeout=900)
        return True
