"""What the smaller benchmarks share: percentiles, the JSON document, the memory of a process tree, a server."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.server import Server, machine


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with `--output`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, help="also write the JSON here")
    return made


def emit(document: dict[str, Any], output: Path | None) -> int:
    """Print the document with date and machine, and write it if asked. Returns the exit code: 0 if it has `passed`."""
    full = {**document, "date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    text = json.dumps(full, indent=1, ensure_ascii=False)
    print(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")
    if not document["passed"]:
        print(f"{document['test']} missed its goal", file=sys.stderr)
    return 0 if document["passed"] else 1


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def milliseconds(seconds: Sequence[float], share: float) -> float:
    """A percentile in milliseconds, to a hundredth of a microsecond."""
    return round(percentile(seconds, share) * 1e3, 5)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process and its descendants, in MB.

    `own` is what they have allocated, memory that they share counted once: what can leak. `files` is program text and
    other mapped files: the kernel drops it and reads it again as it sees fit.
    """

    own: float
    files: float

    @property
    def rss(self) -> float:
        return round(self.own + self.files, 2)

    @classmethod
    def of(cls, pid: int) -> Memory:
        anonymous = shared = files = 0
        waiting = [pid]
        while waiting:
            process = Path(f"/proc/{waiting.pop()}")
            try:
                status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
                for task in (process / "task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            anonymous += _kilobytes(status, "RssAnon")
            files += _kilobytes(status, "RssFile")
            shared = max(shared, _kilobytes(status, "RssShmem"))
        return cls(own=round((anonymous + shared) / 1024, 2), files=round(files / 1024, 2))


def _kilobytes(status: dict[str, str], name: str) -> int:
    return int(status.get(name, "0 kB").split()[0])  # a process that is ending has no memory any more


@contextmanager
def serving(**environment: str) -> Iterator[Server]:
    """A server that is ready, with these variables. What it logs is read all the time: a full pipe would stop it."""
    server = Server(None, environment)
    output = server.process.stdout
    assert output is not None
    reader = threading.Thread(target=deque, args=(output, 0), daemon=True)
    reader.start()
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        reader.join(10)
        output.close()
