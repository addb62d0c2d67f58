"""The local cluster itself: broken in every way, repaired by the next `up`, and taken down without a trace.

It runs in network and mount namespaces of its own, beside the cluster that the other tests use.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"),
]


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="pinn-lc-"))
    words = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable]
    try:
        done = subprocess.run(
            [*words, "-m", "tests.e2e.isolated_cluster", str(folder / "s")],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_pods_run_on_it(seen: dict[str, Any]) -> None:
    assert seen["pods run"]


def test_a_second_up_replaces_no_process(seen: dict[str, Any]) -> None:
    assert seen["second up replaces nothing"]


@pytest.mark.parametrize("disaster", ["after all processes were killed", "after a reboot", "after killed ups"])
def test_pods_run_again(seen: dict[str, Any], disaster: str) -> None:
    assert seen[f"pods run {disaster}"]


def test_down_finishes_what_a_killed_down_began(seen: dict[str, Any]) -> None:
    status, words = seen["down"]
    assert status == 0, words


@pytest.mark.parametrize("kind", ["processes", "mounts", "links", "tables", "cgroups", "files", "state"])
def test_down_leaves_none_of(seen: dict[str, Any], kind: str) -> None:
    assert seen["leftovers"][kind] == []


def test_down_gives_the_kernel_s_settings_back(seen: dict[str, Any]) -> None:
    assert seen["sysctls changed"] == {}
