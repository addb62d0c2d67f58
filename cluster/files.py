"""Files that are either whole or not there, and locks between commands."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, text: str, *, mode: int = 0o600) -> bool:
    """Writes ``text`` by rename, so that a killed writer leaves no half file; True when the content changed."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


@contextmanager
def locked(path: Path, *, waiting: Callable[[str], None] | None = None) -> Iterator[Path]:
    """Holds an exclusive flock on ``path``; ``waiting`` is called once when someone else holds it.

    The file may be unlinked by its holder (``down`` does); whoever waited on the old inode then opens the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting and not told:
                    waiting(f"another command holds {path}: waiting")
                    told = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                yield path
                return
        finally:
            os.close(descriptor)
