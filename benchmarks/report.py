"""What the smaller benchmarks share: percentiles, the JSON document, and the memory of a process with its children."""

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


def tree_rss_megabytes(pid: int) -> float:
    """Resident memory of a process and all its descendants; pages that they share count once for each."""
    total = 0
    waiting = [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            status = (process / "status").read_text()
            children = [
                child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()
            ]
        except FileNotFoundError:  # it has just ended
            continue
        waiting += map(int, children)
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return round(total / 1024, 2)


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is ready. What it logs is read all the time: a full pipe would stop it."""
    server = Server(None)
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
