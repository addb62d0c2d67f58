"""Breaks a whole local cluster in every way and says, as JSON, what was seen; to be run in namespaces of its own.

    unshare --mount --net --propagation private python -m tests.e2e.isolated_cluster STATE

Its bridges, tables, ports and folders are then not those of the host, so it runs beside the cluster of the other tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import host
from cluster.process import marked
from cluster.render import PAUSE_IMAGE
from cluster.settings import Settings, parse_settings

NAME = "two"
SHARED_FOLDERS = ("/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/run/containerd", "/run/netns")


class Scenario:
    """One full cluster of the state folder, and what was observed of it."""

    def __init__(self, state: Path) -> None:
        self.settings: Settings = parse_settings(os.environ, state=str(state), name=NAME)
        self.command = [sys.executable, "-m", "cluster", "--state", str(state), "--name", NAME]
        self.seen: dict[str, Any] = {}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *words], capture_output=True, text=True, timeout=1800, check=False)

    def up(self) -> None:
        done = self.run("up")
        if done.returncode != 0:
            raise SystemExit(f"up failed:\n{done.stderr}")

    def kubectl(self, *words: str) -> str:
        program = subprocess.run(
            [*self.command, "tool", "kubectl"], capture_output=True, text=True, timeout=1800, check=True
        ).stdout.strip()
        whole = [program, f"--kubeconfig={self.settings.kubeconfig}", *words]
        return subprocess.run(whole, capture_output=True, text=True, timeout=180, check=True).stdout

    def pids(self) -> dict[str, int | None]:
        return {part["name"]: part["pid"] for part in json.loads(self.run("status", "--json").stdout)}

    def pods_run(self) -> bool:
        """Whether the Deployment has all its replicas, and a pod more can be started from nothing."""
        self.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
        self.kubectl("delete", "pod", "probe", "--ignore-not-found", "--grace-period=1")
        self.kubectl("run", "probe", f"--image={PAUSE_IMAGE}", "--image-pull-policy=Never", "--restart=Never")
        self.kubectl("wait", "--for=condition=Ready", "pod/probe", "--timeout=120s")
        return True

    def kill_processes(self) -> None:
        for identity in list(marked(self.settings.state)):
            os.kill(identity.pid, signal.SIGKILL)

    def reboot(self) -> None:
        """What a reboot does, short of it: everything that lives in the kernel is gone, and the boot has another id."""
        self.kill_processes()
        host.kill_pods(self.settings)
        host.unmount_below(self.settings.state)
        host.remove_network(self.settings)
        host.remove_cgroup(self.settings)
        mark = self.settings.state / "cluster.json"
        mark.write_text(json.dumps({**json.loads(mark.read_text()), "boot": "another"}))

    def killed(self, command: str, seconds: float) -> None:
        process = subprocess.Popen([*self.command, command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()

    def leftovers(self) -> dict[str, Any]:
        """All that `down` promises to take away."""
        state = self.settings.state
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=20, check=True)
        return {
            "processes": [identity.pid for identity in marked(state)],
            "mounts": [str(mount.point) for mount in host.mounts() if mount.point.is_relative_to(state)],
            "links": [link.name for link in host.links() if link.name != "lo"],
            "tables": tables.stdout.split("\n")[:-1],
            "cgroups": [str(root) for root in host.cgroup_roots() if (root / self.settings.cgroup).exists()],
            "files": [str(path) for folder in SHARED_FOLDERS for path in Path(folder).glob("*")],
            "state": [str(path) for path in state.parent.glob(f"{state.name}*")],
        }

    def sysctls(self) -> dict[str, str]:
        found = {key: Path("/proc/sys") / key for key in host.SYSCTLS}
        return {key: path.read_text().strip() for key, path in found.items() if path.exists()}

    def observe(self, name: str, observation: Callable[[], Any]) -> None:
        print(f"{name} …", file=sys.stderr, flush=True)
        self.seen[name] = observation()


def play(state: Path) -> dict[str, Any]:
    """The whole story; each entry of the result is what one test is about."""
    scenario = Scenario(state)
    before = scenario.sysctls()
    try:
        scenario.up()
        scenario.kubectl("create", "deployment", "web", f"--image={PAUSE_IMAGE}", "--replicas=3")
        scenario.observe("pods run", scenario.pods_run)
        first = scenario.pids()
        scenario.up()
        scenario.observe("second up replaces nothing", lambda: scenario.pids() == first)
        scenario.kill_processes()
        scenario.up()
        scenario.observe("pods run after all processes were killed", scenario.pods_run)
        scenario.reboot()
        scenario.up()
        scenario.observe("pods run after a reboot", scenario.pods_run)
        scenario.kill_processes()
        for seconds in (0.5, 2.0, 4.0):
            scenario.killed("up", seconds)
        scenario.up()
        scenario.observe("pods run after killed ups", scenario.pods_run)
        scenario.killed("down", 1.0)
    finally:
        down = scenario.run("down")
    scenario.seen["down"] = down.returncode, down.stderr
    scenario.observe("leftovers", scenario.leftovers)
    scenario.seen["sysctls changed"] = {k: v for k, v in scenario.sysctls().items() if before.get(k) != v}
    return scenario.seen


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=20)
    for folder in SHARED_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True, timeout=20)
    print(json.dumps(play(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
