"""`pinn-inference serve` as a process of its own, for tests: real start, real signals, real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

PATIENCE = 240.0
"""Seconds after which something that should have happened counts as never happening; no test measures time."""


class Process:
    """`pinn-inference serve` on a free port of the loopback, and what it logged."""

    def __init__(self, *flags: str, **environment: str) -> None:
        self.logs: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._ended = False
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "pinn_inference", "serve", "--host", "127.0.0.1", "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.logged("listening")["port"])

    def logged(self, message: str) -> dict[str, Any]:
        """The first log entry with this message, waiting for it."""

        def found() -> dict[str, Any] | None:
            return next((entry for entry in self.logs if entry["message"] == message), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._ended, PATIENCE)
            entry = found()
        assert entry is not None, f"never logged {message!r}: {self.logs} {self.popen.poll()}"
        return entry

    def count(self, message: str) -> int:
        """How many log entries with this message there are by now."""
        return sum(entry["message"] == message for entry in self.logs)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds; raises TimeoutError if it never does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"it never came to hold: {self.logs[-5:]}")
            time.sleep(0.02)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET on a new connection."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait_until_ready(self) -> None:
        self.logged("ready")

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self.popen.wait(PATIENCE)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self._reader.join(10)
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.popen.stdout.close()
        self.popen.stderr.close()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._news:
                self.logs.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextmanager
def serving(*flags: str, **environment: str) -> Iterator[Process]:
    process = Process(*flags, **environment)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def connection(process: Process) -> Iterator[HTTPConnection]:
    client = HTTPConnection("127.0.0.1", process.port, timeout=30)
    client.connect()
    try:
        yield client
    finally:
        client.close()
