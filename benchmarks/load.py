"""Starts a server and loads it with Locust; the verdict as JSON, and as the exit code.

    python -m benchmarks.load --users 10 --minutes 5 --output benchmarks/results/load-10.json
    python -m benchmarks.load --users 100 --minutes 30 --output benchmarks/results/load-100.json

What the users do, and what the server has to reach, is in `locustfile.py`. Server and users share this machine.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import until_tensorflow_is_loaded
from benchmarks.report import emit, parser, serving

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_START_SECONDS = 10.0
"""How long it takes until all users are there."""


def main() -> int:
    command = parser(__doc__ or "")
    command.add_argument("--users", type=int, default=10)
    command.add_argument("--minutes", type=float, default=5.0)
    arguments = command.parse_args()
    seconds = round(arguments.minutes * 60.0)
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        report = Path(folder) / "report.json"
        asyncio.run(until_tensorflow_is_loaded(server.url))  # or its import would look like a leak
        subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--host", server.url),
                *("--users", str(arguments.users), "--spawn-rate", str(max(1.0, arguments.users / _START_SECONDS))),
                *("--run-time", f"{seconds}s", "--stop-timeout", "10s", "--only-summary", "--report", str(report)),
            ],
            check=False,  # it fails when the server does; the report says why
            stdout=sys.stderr,
            timeout=seconds + 120.0,
        )
        if not report.exists():
            print("Locust ended without a report", file=sys.stderr)
            return 1
        document = json.loads(report.read_text())
    return emit({**document, "test": "load", "users": arguments.users, "seconds": seconds}, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
