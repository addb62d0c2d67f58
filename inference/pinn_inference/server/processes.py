"""What this process and its children take, by /proc, and what they may take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric

from pinn_inference.server.exposition import Names, Textual, head, rendered

TREE_SECONDS: Final = 5.0
"""So long the children that were found are taken for all there are: to find them costs more than to look at them."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CPU: Final = "process_cpu_seconds_total"


_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NO_LIMIT: Final = 1 << 60
"""The older kind of control group has a number near 2⁶³ where there is no limit."""


def memory_limit(places: Sequence[Path] = _LIMITS) -> int | None:
    """Bytes that the container may take; None without a limit, or where it is not told."""
    for place in places:
        try:
            text = place.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _NO_LIMIT:
            return int(text)
    return None


class ProcessTree:
    """Resident memory of this process and of all its children."""

    def __init__(self, root: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._members: tuple[int, ...] = ()
        self._found_at = float("-inf")

    def resident_memory(self) -> int:
        """Bytes; 0 where there is no /proc. Pages that are shared count in each process."""
        now = self._clock()
        if now - self._found_at >= TREE_SECONDS:
            self._members, self._found_at = members(self._root), now
        return sum(map(_resident, self._members))


def members(root: int) -> tuple[int, ...]:
    """A process and all its children, and theirs."""
    found, unseen = [], [root]
    while unseen:
        process = unseen.pop()
        found.append(process)
        children = _children(process)
        if children is None:
            return tuple(_members_by_parents(root))
        unseen.extend(children)
    return tuple(found)


def _children(process: int) -> list[int] | None:
    """None where the kernel keeps no lists of children (CONFIG_PROC_CHILDREN)."""
    children: list[int] = []
    try:
        # A child is listed with the thread that started it.
        threads = os.listdir(f"/proc/{process}/task")  # noqa: PTH208
    except OSError:
        return []  # it has ended
    for thread in threads:
        place = f"/proc/{process}/task/{thread}"
        listed = _read(f"{place}/children")
        if listed is None and os.path.exists(f"{place}/stat"):  # noqa: PTH110
            return None
        children.extend(map(int, (listed or b"").split()))
    return children


def _members_by_parents(root: int) -> Iterable[int]:
    """By a look at every process there is."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        fields = (_read(f"/proc/{place.name}/stat") or b"").rpartition(b")")[2].split()
        if len(fields) > 1:
            parents[int(place.name)] = int(fields[1])
    tree, grown = {root}, True
    while grown:
        more = {process for process, parent in parents.items() if parent in tree} - tree
        grown = bool(more)
        tree |= more
    return tree


def _resident(process: int) -> int:
    """A process that has ended has nothing."""
    fields = (_read(f"/proc/{process}/statm") or b"").split()
    return int(fields[1]) * _PAGE if len(fields) > 1 else 0


def _read(path: str) -> bytes | None:
    try:
        # The least there is: `open` and `Path` take several times as long.
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(file, 65536)
    except OSError:
        return None
    finally:
        os.close(file)


class ProcessFigures(Textual):
    """What the client library says of the process. The processor time alone comes without a look at its files."""

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=None)
        self.names = frozenset(sample.name for family in self._collector.collect() for sample in family.samples)
        self._head = head(_CPU, "counter", "Total user and system CPU time spent in seconds.")

    def collect(self) -> Iterable[Metric]:
        return self._collector.collect()

    def lines(self, names: Names) -> list[str]:
        wanted = self.names if names is None else self.names & names
        if not wanted:
            return []
        if wanted == {_CPU}:
            times = os.times()
            return [f"{self._head}{_CPU} {times.user + times.system!r}\n"]
        return [rendered(self._collector.collect(), wanted).decode()]
