"""What the commands of both styles do: claim the output, show progress, print what came out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pinn_inference.pricing.artefact import RECORD_FILE
from pinn_inference.training import report as reports
from pinn_inference.training.checkpoint import CHECKPOINT_FILE, Checkpoint, Progress
from pinn_inference.training.checks import VerificationReport

LOSS_FILE: Final = "loss.png"
_PROGRESS_SECONDS: Final = 5.0
_INTERRUPTED: Final = 130


def claim(output: Path, settings: Mapping[str, Any], *, overwrite: bool, resume: bool) -> Checkpoint | None:
    """Finds out before a training whether its result can be written, and where it starts.

    Raises OSError, and CheckpointError for an unfinished training with other settings.
    """
    path = output / CHECKPOINT_FILE
    if path.exists() and not overwrite:
        if not resume:
            raise FileExistsError(f"{output} holds an unfinished training: --resume continues it, --overwrite drops it")
        checkpoint = Checkpoint.read(path)
        checkpoint.require(settings)
        return checkpoint
    if (output / RECORD_FILE).exists() and not overwrite:
        raise FileExistsError(f"{output} already holds a model; give another --output, or --overwrite")
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise PermissionError(f"{output} is not writable")
    return None


def progress_printer(iterations: int) -> Callable[[str, Progress], None]:
    """Prints the first steps, then one line every five seconds and the last; the first argument is the stage's name."""
    printed_at = -_PROGRESS_SECONDS

    def report(stage: str, progress: Progress) -> None:
        nonlocal printed_at
        if progress.seconds - printed_at < _PROGRESS_SECONDS and progress.iteration not in (1, iterations):
            return
        printed_at = progress.seconds
        print(
            f"{stage}iteration {progress.iteration:5d}/{iterations}  {progress.seconds:6.1f} s  "
            f"loss {progress.loss:.3e}  damping {progress.damping:.1e}",
            flush=True,
        )

    return report


def interrupted(interruption: KeyboardInterrupt | SystemExit, output: Path) -> int:
    """Says how to go on after an interruption; returns the exit code."""
    path = output / CHECKPOINT_FILE
    if path.exists():
        print(f"\ninterrupted; the same command with --resume goes on from {path}", file=sys.stderr)
    code = interruption.code if isinstance(interruption, SystemExit) else _INTERRUPTED
    return code if isinstance(code, int) else _INTERRUPTED


def print_accuracy(options: str, record: Mapping[str, float]) -> None:
    """What was measured, a number a line; `options` says over what."""
    print(f"  measured over {record['options']} {options}:")
    for name, value in record.items():
        if name != "options":
            print(f"    {name:15s} {value:g}")


def print_report(report: VerificationReport, *, as_json: bool, directory: Path | None) -> int:
    """Prints a verification's report, writes it into a directory where one is given, and returns the exit code."""
    print(reports.as_json(report) if as_json else reports.as_text(report))
    if directory is not None:
        try:
            paths = reports.write(report, directory)
        except OSError as error:
            print(f"pinn-inference verify: no report was written: {error}", file=sys.stderr)
            return 1
        print(f"wrote {', '.join(map(str, paths))}", file=sys.stderr)
    return 0 if report.passed else 1
