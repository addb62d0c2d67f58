"""A control plane of its own for the integration tests: etcd, kube-apiserver and controller-manager, no nodes.

With `-n 2 --dist loadfile` each worker has one, and the tests of a file stay together.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lab.kube import REPOSITORY, Kube

_PORTS = (6443, 2379, 2380, 10257)
"""Of the API server, etcd and the controller-manager, before the offset is added (cluster/settings.py)."""


_LONGEST = "test_operator_rollouts.py"
"""Begun last, it would run alone for minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the control plane is an integration test."""
    items.sort(key=lambda item: item.path.name != _LONGEST)
    for item in items:
        if item.path.parent == Path(__file__).parent and "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The kubeconfig of a control plane that was started for this run alone and ends with it.

    `lab.kube.Kube` refuses any context that `cluster/` did not make; this one is also checked by name, so
    that a kubeconfig left behind by something else is never used.
    """
    offset = _free_offset()
    name = f"it-{offset}"
    state = Path(tempfile.mkdtemp(prefix="pinn-it-"))
    command = [
        sys.executable, "-m", "cluster", "--state", str(state), "--name", name, "--ports-offset", str(offset),
    ]  # fmt: skip
    capture = request.config.pluginmanager.getplugin("capturemanager")
    shown: AbstractContextManager[None] = capture.global_and_fixture_disabled()
    try:
        with shown:  # the first time the programs are built, which takes minutes: its progress is to be seen
            subprocess.run(
                [*command, "up", "--only", "control-plane"], cwd=REPOSITORY, timeout=1800, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        kubeconfig = state / "kubeconfig"
        context = Kube(kubeconfig).context
        if context != f"pinn-{name}":
            pytest.fail(f"{kubeconfig} has context {context!r}, not the one that was just made, pinn-{name}")
        yield kubeconfig
    finally:
        subprocess.run([*command, "down"], cwd=REPOSITORY, timeout=120, check=True)
        shutil.rmtree(state, ignore_errors=True)


def _free_offset() -> int:
    """An offset at which nobody listens on any of the control plane's ports."""
    for _ in range(100):
        offset = random.randrange(12000, 40000, 10)
        if all(_is_free(port + offset) for port in _PORTS):
            return offset
    raise AssertionError("no free ports for a control plane")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
