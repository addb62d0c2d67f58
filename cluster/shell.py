"""Short-lived commands: with a time-out, and with their own words when they fail."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import ClusterError


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Standard output of a command. Raises ClusterError with the end of its standard error when it fails or hangs."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            cwd=directory,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]}: no such command") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words[:4])}: no answer within {timeout:.0f} s") from error
    if done.returncode != 0:
        tail = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ClusterError(f"{' '.join(words[:4])}: exit status {done.returncode}: {tail}")
    return done.stdout


def run_into(log: Path, argv: Sequence[str | Path], *, timeout: float) -> None:
    """Runs a command whose output goes to a file, which is written anew.

    Raises ClusterError with the end of that output when it fails or hangs.
    """
    words = [str(word) for word in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        except FileNotFoundError as error:
            raise ClusterError(f"{words[0]}: no such command") from error
        try:
            status = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise ClusterError(f"{Path(words[0]).name}: not done within {timeout:.0f} s, see {log}") from error
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status != 0:
        tail = log.read_text(errors="replace").strip()[-2000:]
        raise ClusterError(f"{Path(words[0]).name}: exit status {status}, all of its words are in {log}:\n{tail}")


def succeeds(argv: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None) -> bool:
    """Whether a command ends with status 0 in time."""
    try:
        run(argv, timeout=timeout, env=env)
    except ClusterError:
        return False
    return True


def find_program(name: str, *more: str) -> Path | None:
    """A program on PATH, in the administrator's folders, or in one of ``more``."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", *more])
    found = shutil.which(name, path=path)
    return Path(found) if found else None
