"""What is done inside a pod of the real image: its commands, its files, its processes."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.kube import Kube, Manifest, program

CLAIM = "models"
MOUNT = "/app/models"
PACKAGE = "/opt/app/pinn_inference"
"""Where the image has the package."""

_BATCH_PROCESSES = """
import contextlib, os, pathlib
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):  # it has ended meanwhile
        command = (entry / "cmdline").read_bytes()
        if b"pinn_inference.server.batch" in command and int(entry.name) != os.getpid():
            print(entry.name)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Inside:
    """One pod, by its name."""

    kube: Kube
    namespace: str
    pod: str

    def run(self, *words: str, stdin: str = "", timeout: float = 120.0) -> Done:
        """`kubectl exec`; any exit code is an answer."""
        done = subprocess.run(
            [
                program("kubectl"), "--kubeconfig", str(self.kube.kubeconfig), "--context", self.kube.context,
                "exec", "-i", "-n", self.namespace, self.pod, "--", *words,
            ],
            input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *words: str, stdin: str = "", timeout: float = 120.0) -> str:
        """The output of a command that has to succeed."""
        done = self.run(*words, stdin=stdin, timeout=timeout)
        assert done.code == 0, f"{words}: exit code {done.code}: {done.errors}{done.output}"
        return done.output

    def replace(self, path: str, text: str) -> None:
        """A whole new file takes the place of what was there, by one rename."""
        self.must("sh", "-c", f"cat > {path}.new && mv {path}.new {path}", stdin=text)

    def batch_process(self) -> int:
        """Process id of the batch process, as the container numbers it."""
        (found,) = self.must("python3", "-c", _BATCH_PROCESSES).split()
        return int(found)


@contextmanager
def volume(kube: Kube, namespace: str, image: str, folder: Path) -> Iterator[Inside]:
    """A claim named CLAIM on a folder of the node, and a pod beside the service's that may write there (MOUNT)."""
    # One of the last run may still be on its way out.
    name = f"{namespace}-{secrets.token_hex(4)}"
    kube.apply(*_volume(name, namespace, folder), _keeper(namespace, image))
    kube.kubectl("wait", "--for=condition=Ready", "pod/keeper", "-n", namespace, "--timeout=90s", timeout=100)
    keeper = Inside(kube, namespace, "keeper")
    keeper.must("chmod", "755", MOUNT)
    try:
        yield keeper
    finally:
        keeper.run("sh", "-c", f"rm -rf {MOUNT}/*")
        # A volume belongs to no namespace, so it does not go with it.
        kube.kubectl("delete", "persistentvolume", name, "--wait=false")


def _volume(name: str, namespace: str, folder: Path) -> tuple[Manifest, Manifest]:
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **common,
                "capacity": {"storage": "100Mi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
                "claimRef": {"name": CLAIM, "namespace": namespace},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "100Mi"}}},
        },
    )


def _keeper(namespace: str, image: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "keeper", "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 0},
            "containers": [
                {
                    "name": "keeper",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"],
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
                    "volumeMounts": [{"name": "models", "mountPath": MOUNT}],
                }
            ],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }
