"""The command `pinn-inference`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to `serve`, `train`, `verify` or `check`; returns the exit code. Flags alone are those of `serve`."""
    _leave_on_sigterm()
    # Before NumPy is imported: its matrices are small here, a second thread only costs, and sums depend on it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pinn_inference.server import cli as server_cli

    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0].startswith("--") and words[0] != "--help":
        words.insert(0, "serve")
    parser = argparse.ArgumentParser(
        prog="pinn-inference", description="Option prices by a physics-informed neural network: serve, train, verify."
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    server_cli.add_parsers(subparsers)
    if words[:1] not in (["serve"], ["check"]):
        # The health check of a container runs every few seconds: it must not import a trainer each time.
        from pinn_inference.training import cli as training_cli

        training_cli.add_parsers(subparsers)
    arguments = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _leave_on_sigterm() -> None:
    """Until a command handles the signal itself: the first process of a container ignores what it does not handle."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


if __name__ == "__main__":
    sys.exit(main())
