"""An unfinished training on disk, from which it goes on as if it had never stopped."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pinn_inference.pricing.types import FloatArray

CHECKPOINT_FILE: Final = "checkpoint.npz"
_COURSE: Final = ("iteration", "loss", "damping", "seconds")


class CheckpointError(Exception):
    """A checkpoint cannot be read, or belongs to another training."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands after an accepted step; `loss` is the sum of squared residuals, `damping` is μ."""

    iteration: int
    loss: float
    damping: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after an accepted step.

    `settings` are those that decide the weights, JSON-ready; `next_damping` is what the optimiser tries next;
    `course` holds every step so far and is not empty.
    """

    settings: Mapping[str, Any]
    parameters: FloatArray
    next_damping: float
    cpu_seconds: float
    course: tuple[Progress, ...]

    def require(self, settings: Mapping[str, Any]) -> None:
        """Raises CheckpointError, naming the first setting that differs from that of the training to be resumed."""
        for name, value in settings.items():
            if self.settings.get(name) != value:
                raise CheckpointError(
                    f"the unfinished training has {name} {self.settings.get(name)}, not {value}: "
                    "give the same options, or --overwrite to begin anew"
                )

    def write(self, path: Path) -> None:
        """Replaces the file at once, so that it is never found half written."""
        part = path.with_name(path.name + ".part")
        columns = {name: np.array([getattr(at, name) for at in self.course]) for name in _COURSE}
        with part.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                settings=np.array(json.dumps(dict(self.settings))),
                parameters=self.parameters,
                next_damping=np.array(self.next_damping),
                cpu_seconds=np.array(self.cpu_seconds),
                **columns,
            )
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Raises CheckpointError for a file that is none."""
        try:
            # From memory: NumPy leaves a file open that turns out to be no archive.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            columns = zip(*(arrays[name].tolist() for name in _COURSE), strict=True)
            return cls(
                settings=json.loads(str(arrays["settings"])),
                parameters=arrays["parameters"],
                next_damping=float(arrays["next_damping"]),
                cpu_seconds=float(arrays["cpu_seconds"]),
                course=tuple(Progress(*column) for column in columns),
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
