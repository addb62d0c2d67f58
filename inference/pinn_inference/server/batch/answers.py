"""What comes of a batch: the body of an answer, in memory that has to be freed, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from pinn_inference.server.batch.jobs import Piece
from pinn_inference.server.batch.protocol import Counts, Refused
from pinn_inference.server.errors import ServerError

PIECE_BYTES: Final = 256 * 1024
"""What the event loop copies at one time, in some 50 µs."""


class BatchError(Exception):
    """A batch ended with an exception that nobody had foreseen, or the batch process was closed before its answer."""


class RemoteError(ServerError):
    """An error from the batch process, with the status, reason, message and details that it had there."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self._refused = refused
        # Elsewhere these belong to the class.
        self.status = refused.status  # type: ignore[misc]
        self.headers = refused.headers  # type: ignore[misc]
        self.counts = refused.counts

    @property
    def reason(self) -> str:
        return self._refused.reason

    def details(self) -> dict[str, Any]:
        return self._refused.details


class BatchAnswer:
    """The body of an answer, and what it adds to the metrics; a context manager that frees its memory at the end."""

    def __init__(
        self,
        *,
        length: int,
        content_type: str,
        header_length: int | None,
        counts: Counts,
        pieces: Callable[[], Iterator[bytes]],
        release: Callable[[], None],
    ) -> None:
        self.length = length
        self.content_type = content_type
        self.header_length = header_length
        """Of the Open Inference Protocol: where binary tensors begin; None if all is JSON."""
        self.counts = counts
        self._pieces = pieces
        self._release: Callable[[], None] | None = release

    def pieces(self) -> Iterator[bytes]:
        """The body, in pieces of at most `PIECE_BYTES`, each a copy that may be kept."""
        if self._release is None:
            raise ValueError("the answer has been released")
        return self._pieces()

    def release(self) -> None:
        """Free the memory; the pieces cannot be read afterwards."""
        if self._release is not None:
            self._release()
            self._release = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def cut(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """Pieces of any size, in pieces of at most `PIECE_BYTES`."""
    for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            yield bytes(piece[start : start + PIECE_BYTES])
