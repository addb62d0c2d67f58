"""Make the Makefile's virtual environment: `python3 -m requirements.install .venv`. Needs the standard library alone.

What pip says goes to a file in the environment; every quarter of a minute a line says how far it is.
"""

import re
import subprocess
import sys
import venv
from pathlib import Path

from cluster.errors import ClusterError
from cluster.progress import Progress
from cluster.shell import run_into

LOCKS = ("requirements/build.lock", "requirements/dev.lock")
PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--no-compile")
"""Modules are compiled when they are first imported: most of them never are."""
_LIMIT = 3600.0


def wanted(locks: list[str]) -> int:
    """How many packages the texts of lock files name; one that is in several counts once."""
    return len(
        {name for text in locks for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", text, re.MULTILINE)}
    )


def state(log: str, packages: int) -> str:
    """How far pip is by what it has said."""
    if "Installing collected packages" in log:
        return "all are there, they are being unpacked"
    found = len(re.findall(r"^\s*Collecting ", log, re.MULTILINE))
    return f"{min(found, packages)} of {packages} packages fetched"


def main(folder: str) -> int:
    """1 if it cannot be made, with the end of what pip said."""
    progress, target = Progress(), Path(folder)
    log = target / "install.log"
    packages = wanted([Path(lock).read_text() for lock in LOCKS])
    progress.say(f"{folder}: {packages} packages of Python, once; some minutes, and 3 GB of disk (log: {log})")
    try:
        with progress.step(f"{folder}: an empty one"):
            venv.create(target, symlinks=True, with_pip=True)
        python = target / "bin" / "python"
        requirements = [word for lock in LOCKS for word in ("-r", lock)]
        with progress.step(
            f"{folder}: packages",
            detail=lambda: state(log.read_text(errors="replace") if log.exists() else "", packages),
        ):
            run_into(log, [python, *PIP, "--require-hashes", *requirements], timeout=_LIMIT)
        run_into(target / "install-self.log", [python, *PIP, "--no-deps", "--no-build-isolation", "--editable", "."],
                 timeout=_LIMIT)  # fmt: skip
    except (ClusterError, subprocess.CalledProcessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
