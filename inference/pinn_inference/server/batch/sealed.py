"""Bytes that processes share and that nobody can change any more: a memfd without a name in any file system, sealed."""

from __future__ import annotations

import fcntl
import os
from typing import Final

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def seal(content: bytes) -> int:
    """A descriptor of this content, which programs do not inherit unless they are given it. Raises OSError."""
    descriptor = os.memfd_create("pinn-models", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def content_of(descriptor: int) -> bytes:
    """All of it, whatever the position is that all processes share. Raises OSError."""
    size, pieces = os.fstat(descriptor).st_size, list[bytes]()
    while size > (done := sum(map(len, pieces))):
        pieces.append(os.pread(descriptor, size - done, done))
    return b"".join(pieces)
