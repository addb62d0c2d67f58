"""The operator as a process, as a pod would run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from lab.kube import wait_until
from tests.support.ports import free_port


class Operator:
    """`pinn-operator run` for some namespaces. Ends with the `with` block, by SIGKILL if it must."""

    def __init__(
        self,
        kubeconfig: Path,
        *,
        namespaces: Sequence[str] = (),
        log: Path,
        prometheus: str = "http://127.0.0.1:9",
        flags: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", "pinn_operator", "run", "--kubeconfig", str(kubeconfig)]
        self._command += [f"--namespace={namespace}" for namespace in namespaces]
        self._command += [f"--health-port={self.port}", "--health-host=127.0.0.1", f"--prometheus-address={prometheus}"]
        self._command += flags
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Operator:
        """Start it; it may take seconds until it is ready."""
        environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        return self

    def wait_ready(self, *, seconds: float = 60.0) -> Operator:
        """Until /readyz says so; it is started if it was not."""
        if self._process is None:
            self.start()
        wait_until("the operator is ready", self.is_ready, seconds=seconds, tell=self.tail)
        return self

    def is_ready(self) -> bool:
        """Whether /readyz says so now. Raises AssertionError if the process has ended."""
        assert self.is_running(), f"the operator has ended: {self.tail()}"
        return self.answers("/readyz")

    def answers(self, path: str) -> bool:
        """Whether an endpoint answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels; 0 if there is none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def terminate(self) -> int:
        """SIGTERM, as the kubelet sends it; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        if not self._log.exists():
            return []
        found = []
        for line in self._log.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"message": line})
        return found

    def tail(self) -> str:
        """The end of the log."""
        return "\n".join(json.dumps(line)[:400] for line in self.lines()[-12:])

    def __enter__(self) -> Operator:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_running():
            assert self._process is not None
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def pause(seconds: float) -> None:
    """Let time pass in which nothing should happen."""
    time.sleep(seconds)
