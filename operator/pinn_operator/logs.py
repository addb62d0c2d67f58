"""Log lines: one JSON object each, or text for people.

Only fields that are named here are written besides the message, so that no manifest, header or credential gets into a
log because somebody attached it.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from pinn_operator.settings import LogFormat, LogLevel

FIELDS = ("namespace", "service", "revision", "reason", "error", "query", "delay", "address", "version")


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}` and the fields of `FIELDS` that were given."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: getattr(record, key) for key in FIELDS if hasattr(record, key)},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`08:00:00.123 INFO  message  namespace=… service=…`"""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{key}={getattr(record, key)}" for key in FIELDS if hasattr(record, key))
        text = f"{moment} {record.levelname:<7} {record.getMessage()}  {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logging(level: LogLevel, form: LogFormat, *, stream: TextIO | None = None) -> None:
    """Set up the root logger of the process."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    if level is not LogLevel.DEBUG:
        # What these say at INFO is about themselves: kopf writes two lines for each event it hears.
        for name in ("aiohttp", "asyncio", "urllib3", "kopf"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # That it runs in a thread, where it sees no signals, is meant.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
