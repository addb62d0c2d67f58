"""Host processes that outlive this command, known by pid *and* start time so that a recycled pid is never touched."""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.files import write_atomic

PROC = Path("/proc")
MARKER = "PINN_CLUSTER_STATE"
"""Environment variable of every process started here, and of containerd's children; its value is the state folder."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What distinguishes a process from any other there ever was: pid, start time in clock ticks since boot, boot."""

    pid: int
    start: int
    boot: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A process as it was started; ``fingerprint`` tells whether command line or configuration have changed since."""

    name: str
    identity: Identity
    fingerprint: str


def boot_id() -> str:
    """The kernel's random id of this boot (random(4), /proc/sys/kernel/random/boot_id)."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def parse_start_time(stat: str) -> int:
    """Field 22 of /proc/PID/stat; field 2 is the command in brackets and may itself hold spaces and brackets."""
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def parse_state(stat: str) -> str:
    """Field 3 of /proc/PID/stat: ``Z`` and ``X`` are threads that have ended, for PID its first one."""
    return stat[stat.rindex(")") + 2]


def identify(pid: int) -> Identity | None:
    """The identity of a running process; None when there is none, or only its zombie.

    A process whose first thread alone has ended looks like a zombie, but keeps its ports and files until the last
    thread has gone too: a killed program of many threads is in that state for a moment.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        if parse_state(stat) in "ZX" and len(list((PROC / str(pid) / "task").iterdir())) <= 1:
            return None
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Identity(pid=pid, start=parse_start_time(stat), boot=boot_id())


def is_running(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def fingerprint(argv: Sequence[str], env: Mapping[str, str], files: Iterable[Path]) -> str:
    """Digest of a command line, what is added to its environment, and the files it reads at start."""
    digest = hashlib.sha256(json.dumps([list(argv), dict(env)], sort_keys=True).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def parse_record(text: str) -> Record:
    """Raises ClusterError when the text is no record."""
    try:
        raw = json.loads(text)
        identity = Identity(pid=int(raw["pid"]), start=int(raw["start"]), boot=str(raw["boot"]))
        return Record(name=str(raw["name"]), identity=identity, fingerprint=str(raw["fingerprint"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"not a process record: {text[:80]!r}") from error


def render_record(record: Record) -> str:
    identity = record.identity
    return json.dumps(
        {
            "name": record.name,
            "pid": identity.pid,
            "start": identity.start,
            "boot": identity.boot,
            "fingerprint": record.fingerprint,
        }
    )


class ProcessTable:
    """Records of the processes of one cluster, one file each, written by the process itself before its exec."""

    def __init__(self, *, records: Path, logs: Path, state: Path) -> None:
        self._records = records
        self._logs = logs
        self._state = state

    def find(self, name: str) -> Record | None:
        """The record of a process that is running; None when it was never started or has ended."""
        try:
            record = parse_record((self._records / f"{name}.json").read_text())
        except (FileNotFoundError, ClusterError):
            return None
        return record if is_running(record.identity) else None

    def names(self) -> list[str]:
        """Names of all records, running or not."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], fingerprint: str, directory: Path
    ) -> None:
        """Starts a daemon, detached twice: init is its parent before it runs.

        Envoy asks the kernel for SIGTERM at its parent's end, so this command must not be the parent. The log is
        truncated and then appended to. Raises ClusterError when the program cannot be executed.
        """
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        whole_env = {**os.environ, **env, MARKER: str(self._state)}
        sys.stdout.flush()
        sys.stderr.flush()
        receiver, sender = os.pipe2(os.O_CLOEXEC)
        middle = os.fork()
        if middle == 0:
            try:
                os.setsid()
                middle_pid = os.getpid()
                if os.fork() != 0:
                    os._exit(0)
                while os.getppid() == middle_pid:
                    time.sleep(0.001)
                self._exec(name, argv, whole_env, fingerprint, directory)
            except BaseException as error:  # noqa: BLE001 - nothing may escape into the caller's copy of the program
                (self._records / f"{name}.json").unlink(missing_ok=True)
                os.write(sender, str(error).encode()[:500])
            os._exit(127)
        os.close(sender)
        os.waitpid(middle, 0)
        with os.fdopen(receiver, "rb") as pipe:
            failure = pipe.read().decode(errors="replace")
        if failure:
            raise ClusterError(f"{name} did not start ({argv[0]}): {failure}")

    def _exec(self, name: str, argv: Sequence[str], env: Mapping[str, str], fingerprint: str, directory: Path) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(directory)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_DFL)
        identity = identify(os.getpid())
        if identity is None:
            raise ClusterError("cannot read its own /proc entry")
        record = Record(name=name, identity=identity, fingerprint=fingerprint)
        write_atomic(self._records / f"{name}.json", render_record(record))
        os.execvpe(argv[0], list(argv), dict(env))

    def stop(self, name: str, *, grace: float = 10.0) -> bool:
        """Ends a recorded process if it still is the one that was started; True when there was one to end."""
        record = self.find(name)
        if record is not None:
            terminate([record.identity], grace=grace)
        (self._records / f"{name}.json").unlink(missing_ok=True)
        return record is not None

    def signal(self, name: str, signum: int) -> None:
        """Sends a signal to a recorded process. Raises ClusterError when it is not running."""
        record = self.find(name)
        if record is None:
            raise ClusterError(f"{name} is not running")
        os.kill(record.identity.pid, signum)

    def strays(self) -> list[Identity]:
        """Running processes that carry this cluster's marker, recorded or not: also containerd's shims."""
        return list(marked(self._state))


def marked(state: Path) -> Iterator[Identity]:
    """Processes whose environment at exec held the marker of ``state``, this one excepted."""
    wanted = f"{MARKER}={state}".encode()
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if wanted in environment:
            identity = identify(int(entry.name))
            if identity is not None:
                yield identity


def terminate(identities: Iterable[Identity], *, grace: float) -> None:
    """SIGTERM, then SIGKILL to whoever is left after ``grace`` seconds; waits until all have ended.

    Raises ClusterError when one survives SIGKILL for ten seconds (uninterruptible sleep).
    """
    left = [identity for identity in identities if is_running(identity)]
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if patience <= 0:
            continue
        for identity in left:
            if is_running(identity):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(identity.pid, signum)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            left = [identity for identity in left if is_running(identity)]
            if left:
                time.sleep(0.02)
    if left:
        pids = ", ".join(str(identity.pid) for identity in left)
        raise ClusterError(f"processes survive SIGKILL: {pids}")
