"""A real control plane that is brought up, killed in every way, repaired, and taken down without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.components import answers
from cluster.process import marked
from tests.support.ports import free_offset

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]


class Cluster:
    """The command line of one cluster, with a state folder, a name and ports of its own."""

    def __init__(self, state: Path, offset: int) -> None:
        self.state = state
        self.offset = offset
        self.words = [sys.executable, "-m", "cluster", "--state", str(state)]
        self.words += ["--name", f"t-{offset}", "--ports-offset", str(offset)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=1800, check=False
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        done = self.run("up", "--only", "control-plane")
        assert done.returncode == 0, done.stderr
        return done

    def pids(self) -> dict[str, int | None]:
        return {part["name"]: part["pid"] for part in json.loads(self.run("status", "--json").stdout)}

    def serves(self) -> bool:
        return answers(f"https://127.0.0.1:{6443 + self.offset}/readyz", pki=self.state / "pki", timeout=10)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    state = Path(tempfile.mkdtemp(prefix="pinn-ct-"))
    made = Cluster(state, free_offset())
    try:
        yield made
    finally:
        down = made.run("down")
        shutil.rmtree(state, ignore_errors=True)
        assert down.returncode == 0, down.stderr


def test_up_prints_one_line_for_the_shell_and_makes_a_context_of_its_own(cluster: Cluster) -> None:
    assert cluster.up().stdout == f"export KUBECONFIG={cluster.state}/kubeconfig\n"
    kubeconfig = json.loads((cluster.state / "kubeconfig").read_text())
    assert kubeconfig["current-context"] == f"pinn-t-{cluster.offset}"
    assert cluster.serves()


def test_a_second_up_leaves_every_process_alone(cluster: Cluster) -> None:
    cluster.up()
    before = cluster.pids()
    cluster.up()
    assert cluster.pids() == before


def test_one_component_stops_and_starts_without_the_others(cluster: Cluster) -> None:
    cluster.up()
    before = cluster.pids()
    assert cluster.run("stop", "apiserver", "--kill").returncode == 0
    assert not cluster.serves()
    assert cluster.run("status").returncode == 1
    assert cluster.run("start", "apiserver").returncode == 0
    assert cluster.serves()
    after = cluster.pids()
    assert after["apiserver"] != before["apiserver"]
    assert after["etcd"] == before["etcd"]
    assert None not in after.values(), "whoever ended with the API server is back too"


def test_what_was_stopped_on_purpose_is_not_started_along_with_another(cluster: Cluster) -> None:
    cluster.up()
    assert cluster.run("stop", "kcm").returncode == 0
    assert cluster.run("stop", "apiserver").returncode == 0
    assert cluster.run("start", "apiserver").returncode == 0
    assert cluster.pids()["kcm"] is None
    assert cluster.run("start", "kcm").returncode == 0


def test_a_component_that_does_not_exist_is_refused_with_those_that_do(cluster: Cluster) -> None:
    cluster.up()
    refused = cluster.run("stop", "kubelet")
    assert refused.returncode == 1
    assert "there are: etcd, apiserver, kcm" in refused.stderr


def test_up_repairs_a_cluster_all_of_whose_processes_were_killed(cluster: Cluster) -> None:
    cluster.up()
    for identity in list(marked(cluster.state)):
        os.kill(identity.pid, signal.SIGKILL)
    assert not cluster.serves()
    cluster.up()
    assert cluster.serves()


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_up_repairs_an_up_that_was_killed_half_way(cluster: Cluster, seconds: float) -> None:
    assert cluster.run("down").returncode == 0
    killed = subprocess.Popen(
        [*cluster.words, "up", "--only", "control-plane"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    killed.kill()
    killed.wait()
    cluster.up()
    assert cluster.serves()
    running = list(marked(cluster.state))
    assert len(running) == 3, "one etcd, one API server, one controller manager"


def test_up_begins_anew_when_etcd_cannot_read_its_data(cluster: Cluster) -> None:
    cluster.up()
    assert cluster.run("stop", "apiserver").returncode == 0
    assert cluster.run("stop", "etcd", "--kill").returncode == 0
    for path in (cluster.state / "etcd").rglob("*"):
        if path.is_file():
            path.write_bytes(b"torn by a power cut")
    assert "beginning with an empty one" in cluster.up().stderr
    assert cluster.serves()


def test_a_port_that_somebody_else_uses_is_named_and_so_is_who(cluster: Cluster) -> None:
    assert cluster.run("down").returncode == 0
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        somebody.bind(("127.0.0.1", 6443 + cluster.offset))
        somebody.listen()
        refused = cluster.run("up", "--only", "control-plane")
    assert refused.returncode == 1
    assert f"apiserver needs port {6443 + cluster.offset}" in refused.stderr


def test_down_leaves_no_process_and_no_state_and_may_be_repeated(cluster: Cluster) -> None:
    cluster.up()
    assert cluster.run("down").returncode == 0
    assert list(marked(cluster.state)) == []
    assert not cluster.state.exists()
    assert not cluster.state.with_name(f"{cluster.state.name}.lock").exists()
    again = cluster.run("down")
    assert again.returncode == 0
    assert again.stdout == again.stderr == ""


def test_without_a_cluster_the_path_of_its_kubeconfig_comes_with_a_word_that_there_is_none(cluster: Cluster) -> None:
    assert cluster.run("down").returncode == 0
    told = cluster.run("kubeconfig")
    assert told.returncode == 1
    assert told.stdout == f"{cluster.state}/kubeconfig\n", "kubectl must not fall back to another cluster"
    assert "there is no cluster" in told.stderr
