"""What a cluster changes on its host outside its state folder, and how each change is taken back."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.files import write_atomic
from cluster.process import Identity, identify, is_running
from cluster.progress import Progress
from cluster.settings import NODE_BRIDGE, NODE_IP, POD_BRIDGE, Settings
from cluster.shell import find_program, run, succeeds

CNI_PROGRAMS = Path("/usr/lib/cni")
CNI_CACHE = Path("/var/lib/cni/results")
_BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

# Program → Debian package.
LOCAL_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "socat": "socat",
    "openssl": "openssl",
}
IMAGE_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}

# Ours, kubelet's (setupKernelTunables) and kube-proxy's: saved before the first start, restored by `down`.
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), of which this is needed."""

    point: Path
    filesystem: str


def parse_mountinfo(text: str) -> list[Mount]:
    """Mounts in the order in which they were made; octal escapes in paths are undone."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) >= 5 and after:
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
            mounts.append(Mount(point=Path(point), filesystem=after.split()[0]))
    return mounts


def mounts() -> list[Mount]:
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def ensure_packages(wanted: dict[str, str], progress: Progress) -> None:
    """Installs the Debian packages of missing programs.

    Raises ClusterError, with their names, where there is no apt-get or where it does not help.
    """
    missing = _missing(wanted)
    if not missing:
        return
    names = sorted({*missing.values()})
    apt = find_program("apt-get")
    if apt is None:
        raise ClusterError(f"missing {', '.join(sorted(missing))}, and no apt-get to install {', '.join(names)} with")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    with progress.step("apt-get update"):
        run([apt, "update", "-qq"], timeout=300, env=env)
    with progress.step(f"install {', '.join(names)}"):
        run([apt, "install", "-y", "-qq", "--no-install-recommends", *names], timeout=900, env=env)
    if still := _missing(wanted):
        raise ClusterError(f"still missing after installing {', '.join(names)}: {', '.join(sorted(still))}")


def _missing(wanted: dict[str, str]) -> dict[str, str]:
    missing = {program: package for program, package in wanted.items() if find_program(program) is None}
    if "containerd" in wanted and not (CNI_PROGRAMS / "bridge").exists():
        missing["the CNI plugin bridge"] = "containernetworking-plugins"
    return missing


def _alias(settings: Settings) -> str:
    return f"pinn-cluster {settings.state}"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A network interface; ``alias`` says whose it is, ``master`` the bridge it hangs on."""

    name: str
    alias: str
    master: str


def parse_links(text: str) -> list[Link]:
    """Interfaces from ``ip -json link show``."""
    return [
        Link(name=str(raw["ifname"]), alias=str(raw.get("ifalias", "")), master=str(raw.get("master", "")))
        for raw in json.loads(text or "[]")
    ]


def links() -> list[Link]:
    return parse_links(run(["ip", "-json", "link", "show"], timeout=20))


def owner_of_bridges(all_links: Iterable[Link]) -> str | None:
    """State folder of the full cluster that holds this host's bridges; None when there is none."""
    for link in all_links:
        if link.name == NODE_BRIDGE:
            return link.alias.removeprefix("pinn-cluster ") or "unknown"
    return None


def ensure_network(settings: Settings) -> None:
    """The node's address on a bridge of its own, forwarding, and conntrack for bridged packets.

    Raises ClusterError when another cluster of this kind has the bridges.
    """
    owner = owner_of_bridges(links())
    if owner is not None and owner != str(settings.state):
        raise ClusterError(f"a full cluster with state folder {owner} runs on this host, and there can be but one")
    if owner is None:
        run(["ip", "link", "add", NODE_BRIDGE, "type", "bridge"], timeout=20)
        run(["ip", "link", "set", NODE_BRIDGE, "alias", _alias(settings)], timeout=20)
    run(["ip", "address", "replace", f"{NODE_IP}/32", "dev", NODE_BRIDGE], timeout=20)
    run(["ip", "link", "set", NODE_BRIDGE, "up"], timeout=20)
    if not _BRIDGE_NETFILTER.exists() and find_program("modprobe"):
        succeeds(["modprobe", "br_netfilter"], timeout=20)
    if not _BRIDGE_NETFILTER.exists():
        # Replies between two pods on one bridge would bypass conntrack, so Services would not work from pods.
        raise ClusterError("this kernel filters no bridged packets: load the module br_netfilter")
    save_sysctls(settings)
    for key in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        (Path("/proc/sys") / key).write_text("1")


def save_sysctls(settings: Settings) -> None:
    """Keeps the values of before the first start; a later call changes nothing."""
    path = settings.state / "sysctls.json"
    if not path.exists():
        found = {key: Path("/proc/sys") / key for key in SYSCTLS}
        write_atomic(path, json.dumps({key: file.read_text().strip() for key, file in found.items() if file.exists()}))


def restore_sysctls(settings: Settings) -> None:
    path = settings.state / "sysctls.json"
    if path.exists():
        for key, value in json.loads(path.read_text()).items():
            file = Path("/proc/sys") / key
            if key in SYSCTLS and file.exists() and file.read_text().strip() != value:
                file.write_text(value)


def remove_network(settings: Settings) -> None:
    """Bridges, pods' interfaces on them, kube-proxy's tables and CNI's notes; only of the cluster that made them."""
    all_links = links()
    owner = owner_of_bridges(all_links)
    if owner != str(settings.state):
        return
    for family in ("ip", "ip6"):
        if succeeds(["nft", "list", "table", family, "kube-proxy"], timeout=20):
            run(["nft", "delete", "table", family, "kube-proxy"], timeout=20)
    for link in all_links:
        if link.master == POD_BRIDGE:
            succeeds(["ip", "link", "delete", link.name], timeout=20)
    for name in (POD_BRIDGE, NODE_BRIDGE):
        if any(link.name == name for link in all_links):
            run(["ip", "link", "delete", name], timeout=20)
    for note in CNI_CACHE.glob(f"{settings.context}-*"):
        container = note.name.removeprefix(f"{settings.context}-").rpartition("-")[0]
        (CNI_CACHE / f"cni-loopback-{container}-lo").unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    remove_if_empty(CNI_CACHE, CNI_CACHE.parent)


def remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def cgroup_roots() -> list[Path]:
    """Mount points of all cgroup hierarchies, of either version."""
    return [mount.point for mount in mounts() if mount.filesystem in {"cgroup", "cgroup2"}]


def ensure_cgroup(settings: Settings) -> None:
    """The parent of all pods' cgroups, in the hierarchies that have controllers."""
    found = [mount for mount in mounts() if mount.filesystem in {"cgroup", "cgroup2"}]
    unified = not any(mount.filesystem == "cgroup" for mount in found)
    for mount in found:
        if mount.filesystem == "cgroup2" and not unified:
            continue
        folder = mount.point / settings.cgroup
        if unified:
            _delegate(mount.point)
        folder.mkdir(exist_ok=True)
        if unified:
            _delegate(folder)
        # A new cpuset is empty, and nothing can run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            file = folder / name
            if not unified and file.exists() and not file.read_text().strip():
                file.write_text((mount.point / name).read_text())


def _delegate(folder: Path) -> None:
    controllers = (folder / "cgroup.controllers").read_text().split()
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def _cgroup_folders(settings: Settings) -> list[Path]:
    """This cluster's cgroups in all hierarchies, children before parents."""
    tops = [root / settings.cgroup for root in cgroup_roots()]
    return [Path(folder) for top in tops if top.is_dir() for folder, _, _ in os.walk(top, topdown=False)]


def kill_pods(settings: Settings, *, patience: float = 15.0) -> None:
    """SIGKILL to every process in a pod's cgroup, until none is left.

    Raises ClusterError when one stays (uninterruptible sleep).
    """
    deadline = time.monotonic() + patience
    while identities := _pod_processes(settings):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of pods survive SIGKILL: {[identity.pid for identity in identities]}")
        for identity in identities:
            if is_running(identity):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(identity.pid, signal.SIGKILL)
        time.sleep(0.05)


def _pod_processes(settings: Settings) -> list[Identity]:
    pids: set[int] = set()
    for folder in _cgroup_folders(settings):
        with contextlib.suppress(OSError):
            pids.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
    return [identity for pid in sorted(pids - {0}) if (identity := identify(pid)) is not None]


def remove_cgroup(settings: Settings, *, patience: float = 10.0) -> None:
    """Removes the emptied cgroups. Raises ClusterError when the kernel still counts something in them."""
    deadline = time.monotonic() + patience
    while folders := _cgroup_folders(settings):
        remove_if_empty(*folders)
        if time.monotonic() > deadline:
            raise ClusterError(f"cgroups stay busy: {', '.join(map(str, folders[:3]))}")
        time.sleep(0.02)


def unmount_below(folder: Path) -> None:
    """Unmounts everything under ``folder``, the latest mount first, lazily where it is busy.

    Raises ClusterError when a mount stays.
    """
    for _ in range(5):
        below = [mount.point for mount in mounts() if mount.point.is_relative_to(folder)]
        if not below:
            return
        for point in reversed(below):
            if not succeeds(["umount", point], timeout=20):
                succeeds(["umount", "--lazy", point], timeout=20)
    raise ClusterError(f"still mounted below {folder}: {', '.join(map(str, below[:5]))}")


def bound_sockets(proc_net_unix: str) -> set[str]:
    """Paths of the Unix sockets that some process holds, from /proc/net/unix (proc_net(5))."""
    rows = (line.split(maxsplit=7) for line in proc_net_unix.splitlines()[1:])
    return {row[7] for row in rows if len(row) == 8}


def remove_shim_sockets() -> None:
    """Sockets of containerd's shims that nobody holds any more; they lie outside its state folder."""
    held = bound_sockets(Path("/proc/net/unix").read_text())
    folder = Path("/run/containerd/s")
    for socket in folder.iterdir() if folder.is_dir() else ():
        if str(socket) not in held:
            socket.unlink(missing_ok=True)
    remove_if_empty(folder, folder.parent)


def remove_kubelet_traces(settings: Settings) -> None:
    """What kubelet writes into folders that it lets nobody choose: links to logs, the socket for device plugins."""
    folder = Path("/var/log/containers")
    if folder.is_dir():
        for link in folder.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(settings.pod_logs):
                link.unlink()
        remove_if_empty(folder)
    plugins = Path("/var/lib/kubelet/device-plugins")
    held = bound_sockets(Path("/proc/net/unix").read_text())
    if str(plugins / "kubelet.sock") not in held:
        for name in ("kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"):
            (plugins / name).unlink(missing_ok=True)
        remove_if_empty(plugins, plugins.parent)


def remove_tree(folder: Path, *, last: str) -> None:
    """Deletes a folder in which nothing is mounted any more; the file ``last`` in it goes after all others."""
    if any(mount.point.is_relative_to(folder) for mount in mounts()):
        raise ClusterError(f"will not delete {folder}: something is still mounted in it")
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != last:
            child.unlink()
    (folder / last).unlink(missing_ok=True)
    folder.rmdir()


def listener_of(port: int) -> str | None:
    """Who listens on a TCP port of this host, in the words of ``ss``; None when nobody does."""
    for line in run(["ss", "-Hltnp", f"sport = :{port}"], timeout=20).splitlines():
        found = re.search(r'users:\(\("([^"]+)",pid=(\d+)', line)
        return f"{found[1]} (process {found[2]})" if found else "an unknown process"
    return None
