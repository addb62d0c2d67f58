"""Large batches, in a process of their own.

TensorFlow, half a gigabyte and seconds of import, belongs to this process alone, and a batch of megabytes never holds
the interpreter that answers single quotes. `supervisor` is the server's side, `child` the process itself; bodies lie in
shared memory (`arena`), messages about them go over a socket (`protocol`), and `jobs` is what both can do with a batch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinn_inference.server.batch.answers import BatchAnswer, BatchError, RemoteError
    from pinn_inference.server.batch.jobs import ModelLabels
    from pinn_inference.server.batch.protocol import Counts, JobKind
    from pinn_inference.server.batch.settings import BatchSettings
    from pinn_inference.server.batch.supervisor import BatchProcess, BatchState, BatchStatus

__all__ = [
    "BatchAnswer",
    "BatchError",
    "BatchProcess",
    "BatchSettings",
    "BatchState",
    "BatchStatus",
    "Counts",
    "JobKind",
    "ModelLabels",
    "RemoteError",
]

_HOMES = {
    "answers": ("BatchAnswer", "BatchError", "RemoteError"),
    "jobs": ("ModelLabels",),
    "protocol": ("Counts", "JobKind"),
    "settings": ("BatchSettings",),
    "supervisor": ("BatchProcess", "BatchState", "BatchStatus"),
}


def __getattr__(name: str) -> Any:
    """Import on first use: the child needs nothing of the supervisor, and starts faster without it."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
