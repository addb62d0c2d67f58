"""A real Prometheus over series that a test invents: what pods would tell if there were any.

`Traffic` is the world: requests a second for each ready pod that the clients' Service selects, some of them errors.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from lab.kube import is_ready, program, wait_until
from lab.prometheus import Prometheus
from tests.support.place import NAME, Place
from tests.support.ports import free_port

TICK_SECONDS = 0.2
_BOUNDS = ("0.005", "0.01", "0.05", "0.1", "0.25", "0.5", "1.0", "2.0", "5.0", "+Inf")


class Traffic:
    """Requests to the pods of one place, counted as the inference server counts them. Times in seconds."""

    def __init__(self, place: Place, *, per_second: float = 200.0) -> None:
        self.per_second = per_second
        self.bad_revisions: dict[str, float] = {}
        """Revision to the share of its answers that are errors."""
        self._place = place
        self._counts: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def requests(self) -> list[str]:
        """Samples of the request counters of all pods."""
        with self._lock:
            counts = dict(self._counts)
        lines = []
        for (pod, status), count in counts.items():
            labels = f'namespace="{self._place.namespace}",pod="{pod}"'
            lines.append(f'http_requests_total{{{labels},handler="/v1/price",method="POST",status="{status}"}} {count}')
        return lines

    def latencies(self) -> list[str]:
        """Samples of their latency histograms: half the answers within 5 ms, all within 10."""
        totals: dict[str, float] = {}
        with self._lock:
            for (pod, _), count in self._counts.items():
                totals[pod] = totals.get(pod, 0.0) + count
        lines = []
        for pod, total in totals.items():
            labels = f'namespace="{self._place.namespace}",pod="{pod}"'
            for bound in _BOUNDS:
                share = 0.5 if bound == "0.005" else 1.0
                lines.append(f'pinn_inference_latency_seconds_bucket{{{labels},le="{bound}"}} {total * share}')
        return lines

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(TICK_SECONDS):
            now = time.monotonic()
            with contextlib.suppress(OSError):
                self._count(now - last)
            last = now

    def _count(self, seconds: float) -> None:
        service = self._place.kube.get("services", NAME, self._place.namespace)
        if service is None:
            return
        wanted = service["spec"]["selector"]
        labels = ",".join(f"{key}={value}" for key, value in wanted.items())
        found = self._place.kube.list("pods", self._place.namespace, labels=labels)
        serving = [pod for pod in found if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        with self._lock:
            for pod in serving:
                requests = self.per_second * seconds / len(serving)
                name, revision = pod["metadata"]["name"], pod["metadata"]["labels"]["pinn.dev/revision"]
                bad = self.bad_revisions.get(revision, 0.0)
                for status, share in (("200", 1.0 - bad), ("500", bad)):
                    self._counts[name, status] = self._counts.get((name, status), 0.0) + requests * share


class Exporter:
    """One address that tells what the pods of all places would."""

    def __init__(self) -> None:
        self.traffics: list[Traffic] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """host:port of its metrics."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def exposition(self) -> str:
        """What a scrape gives."""
        lines = ["# TYPE http_requests_total counter"]
        lines += [line for traffic in self.traffics for line in traffic.requests()]
        lines += ["# TYPE pinn_inference_latency_seconds histogram"]
        lines += [line for traffic in self.traffics for line in traffic.latencies()]
        return "\n".join(lines) + "\n"

    def __enter__(self) -> Exporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class PrometheusProcess:
    """A Prometheus that scrapes one address every half second. Can be stopped and started again at the same address."""

    def __init__(self, folder: Path, target: str) -> None:
        self.address = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "prometheus.yaml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 400ms}\n"
            "scrape_configs:\n"
            f"- {{job_name: pods, honor_labels: true, static_configs: [{{targets: ['{target}']}}]}}\n"
        )

    def start(self) -> None:
        """Until it answers."""
        command = [
            program("prometheus"),
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self.address.removeprefix('http://')}",
            "--log.level=warn",
        ]
        with (self._folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        client = Prometheus(self.address)
        try:
            wait_until("Prometheus scrapes", lambda: client.value("up == 1"), seconds=60)
        finally:
            client.close()

    def stop(self) -> None:
        """Ends it; nothing happens if it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def running_prometheus(folder: Path, exporter: Exporter) -> Iterator[PrometheusProcess]:
    """Running within the block."""
    process = PrometheusProcess(folder, exporter.address)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def _handler(exporter: Exporter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exporter.exposition().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not worth a line."""

    return Handler
