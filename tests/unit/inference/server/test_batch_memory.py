"""Giving memory back: what may be dropped, and that the process is smaller and as well afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pinn_inference.server.batch.memory import droppable_mappings, give_back_unused_memory

REST = (
    "Rss:  8 kB\nPss: 8 kB\nPrivate_Dirty: {dirty} kB\nAnonymous: {anonymous} kB\nSwap: {swap} kB\nVmFlags: rd mr mw\n"
)


def entry(
    permissions: str = "r-xp", path: str = "/lib/libx y.so", *, dirty: int = 0, anonymous: int = 0, swap: int = 0
) -> str:
    head = f"7f0000001000-7f0000003000 {permissions} 00000000 fe:00 1234    {path}".rstrip() + "\n"
    return head + REST.format(dirty=dirty, anonymous=anonymous, swap=swap)


def test_code_and_constants_as_they_are_in_their_file_may_be_dropped() -> None:
    mapping = (0x7F0000001000, 0x7F0000003000)
    assert droppable_mappings(entry("r-xp") + entry("r--p")) == [mapping, mapping]


@pytest.mark.parametrize(
    "kept",
    [
        entry("rw-p"),
        entry("r--s"),
        entry("r--p", ""),
        entry("r-xp", "[vdso]"),
        entry("r--p", dirty=4),
        entry("r--p", anonymous=4),
        entry("r--p", swap=4),
    ],
    ids=["writable", "shared", "no file", "of the kernel", "relocated", "written", "swapped"],
)
def test_what_would_come_back_different_is_kept(kept: str) -> None:
    assert droppable_mappings(kept) == []
    assert len(droppable_mappings(kept + entry())) == 1


def test_a_process_is_smaller_afterwards_and_works_as_before() -> None:
    program = (
        "import numpy, orjson, ssl, sqlite3, ctypes\n"
        "from pinn_inference.server.batch.memory import give_back_unused_memory\n"
        "def resident():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('RssFile'))\n"
        "before = resident()\n"
        "give_back_unused_memory()\n"
        "after = resident()\n"
        "assert numpy.linalg.solve(numpy.eye(3), numpy.ones(3)).tolist() == [1, 1, 1]\n"
        "assert sqlite3.connect(':memory:').execute('select 6*7').fetchone() == (42,)\n"
        "ssl.create_default_context()\n"
        "print(before, after)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 2


def test_a_system_without_that_knowledge_is_an_error_to_its_caller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pinn_inference.server.batch.memory._SMAPS", tmp_path / "smaps")
    with pytest.raises(OSError):
        give_back_unused_memory()
