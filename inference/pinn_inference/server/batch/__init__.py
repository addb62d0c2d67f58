"""Large batches, in a process of their own.

TensorFlow, half a gigabyte and seconds of import, belongs to this process alone, and a batch of megabytes never holds
the interpreter that answers single quotes. `supervisor` is the server's side, `child` the process itself; bodies lie in
shared memory (`arena`), messages about them go over a socket (`protocol`), and `jobs` is what both can do with a batch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinn_inference.server.batch.jobs import ModelLabels
    from pinn_inference.server.batch.protocol import Counts, JobKind
    from pinn_inference.server.batch.settings import BatchSettings
    from pinn_inference.server.batch.supervisor import (
        BatchAnswer,
        BatchError,
        BatchProcess,
        BatchState,
        BatchStatus,
        RemoteError,
    )

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

_HOMES = {"ModelLabels": "jobs", "Counts": "protocol", "JobKind": "protocol", "BatchSettings": "settings"}


def __getattr__(name: str) -> Any:
    """Import on first use: the child needs nothing of the supervisor, and starts faster without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'supervisor')}"), name)
