"""`pinn-operator run`. Exit codes: 0 stopped by a signal, 1 failed, 2 wrong flags or no credentials."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from pinn_operator.kube.errors import CredentialsError
from pinn_operator.logs import configure_logging
from pinn_operator.service import Operator
from pinn_operator.settings import Settings, SettingsError, parse_settings

COLLECTOR: Final = (50_000, 20, 10)
"""Thresholds of the garbage collector. What is kept of pods and objects is large and has hardly any cycles: with
Python's own thresholds it would be searched for them again and again, a tenth of a second each time."""

_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    try:
        settings = parse_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        print(f"pinn-operator: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level, settings.log_format)
    gc.set_threshold(*COLLECTOR)
    try:
        asyncio.run(_run(settings))
    except CredentialsError as error:
        print(f"pinn-operator: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        _LOG.error("cannot start", extra={"error": str(error)})
        return 1
    except Exception:  # noqa: BLE001 – as a line of the log like the others
        _LOG.exception("failed")
        return 1
    return 0


async def _run(settings: Settings) -> None:
    operator = Operator(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await operator.run(stop)


if __name__ == "__main__":
    sys.exit(main())
