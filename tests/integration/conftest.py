"""A control plane of its own for the integration tests: etcd, kube-apiserver and controller-manager, no nodes.

With `-n 2 --dist loadfile` each worker has one, and the tests of a file stay together.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lab.kube import REPOSITORY, Kube
from tests.support.ports import free_offset

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
    offset = free_offset()
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
