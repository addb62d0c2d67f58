"""How fast single quotes are, as JSON: latency at a steady rate in an open loop, alone and beside large batches, and
the rate at which the server is full.

    python -m benchmarks.single_quotes --output benchmarks/results/single_quotes.json

The server runs as a process of its own on one core, the client on another where there are two. Latency counts from the
moment a request was due, not from when it was sent, so that a slow server cannot hide by slowing its client down. The
client is a bare loop over `select`: the timers of epoll and of libuv are too coarse, a millisecond, for latencies of a
few hundred microseconds. Processor time per request is given too; unlike the rest it hardly depends on what else the
machine does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import orjson

from benchmarks.server import Latencies, Server, machine, options

_PATIENCE = 30.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(slots=True)
class Connection:
    """One kept-alive connection with at most one request on its way; `due` is when that should have been sent."""

    socket: socket.socket
    due: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        if self.socket.send(request) != len(request):
            raise RuntimeError("a request of a few hundred bytes did not fit into the socket's buffer")

    def take(self) -> int | None:
        """Reads what came; the status when an answer is complete."""
        part = self.socket.recv(65536)
        if not part:
            raise RuntimeError(f"the server closed a connection after {bytes(self.received)!r}")
        received = self.received
        received += part
        end = received.find(_HEAD_END)
        if end < 0:
            return None
        head = bytes(received[:end]).lower()
        start = head.index(_LENGTH) + len(_LENGTH)
        if len(received) < end + len(_HEAD_END) + int(head[start:].split(b"\r", 1)[0]):
            return None
        received.clear()
        return int(head[9:12])


class Client:
    """Requests over a fixed set of connections."""

    def __init__(self, port: int, connections: int) -> None:
        self._connections = [Connection(self._connect(port)) for _ in range(connections)]
        self._by_socket = {connection.socket: connection for connection in self._connections}

    @staticmethod
    def _connect(port: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.socket.close()

    def open_loop(self, requests: Iterator[bytes], *, rate: float, seconds: float) -> Latencies:
        """Sends each request when it is due, on a free connection, or on the first that becomes free."""
        free = deque(self._connections)
        busy: dict[socket.socket, Connection] = {}
        waiting: deque[float] = deque()
        times: list[float] = []
        failed, index, count = 0, 0, int(rate * seconds)
        start = time.perf_counter() + 0.05
        while len(times) < count:
            now = time.perf_counter()
            if now > start + seconds + _PATIENCE:
                raise RuntimeError(f"{count - len(times)} requests were not answered within {_PATIENCE:g} s")
            while index < count and (due := start + index / rate) <= now:
                waiting.append(due)
                index += 1
            while waiting and free:
                connection = free.popleft()
                connection.send(next(requests), waiting.popleft())
                busy[connection.socket] = connection
            patience = max(0.0, start + index / rate - time.perf_counter()) if index < count else 1.0
            readable, _, _ = select.select(list(busy), (), (), patience)
            for one in readable:
                connection = busy[one]
                status = connection.take()
                if status is not None:
                    times.append(time.perf_counter() - connection.due)
                    failed += status != 200
                    del busy[one]
                    free.append(connection)
        return Latencies.of(times, failed=failed)

    def closed_loop(self, requests: Iterator[bytes], *, seconds: float) -> tuple[Latencies, float]:
        """Every connection asks again as soon as it has its answer; also returns answers per second."""
        times: list[float] = []
        failed = 0
        start = time.perf_counter()
        for connection in self._connections:
            connection.send(next(requests), time.perf_counter())
        sockets = list(self._by_socket)
        end = start + seconds
        open_requests = len(sockets)
        while open_requests:
            readable, _, _ = select.select(sockets, (), (), _PATIENCE)
            if not readable:
                raise RuntimeError(f"{open_requests} requests were not answered within {_PATIENCE:g} s")
            now = time.perf_counter()
            for one in readable:
                connection = self._by_socket[one]
                status = connection.take()
                if status is None:
                    continue
                times.append(now - connection.due)
                failed += status != 200
                if now < end:
                    connection.send(next(requests), now)
                else:
                    open_requests -= 1
        return Latencies.of(times, failed=failed), len(times) / (time.perf_counter() - start)


def requests_of(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Complete HTTP requests, over and over."""
    head = b"POST /v1/price HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return cycle([head % len(body) + body for body in bodies])


@contextmanager
def batches_beside(port: int, size: int, *, seed: int) -> Iterator[Callable[[], int]]:
    """A process that asks for one large batch after the other; the function says how many were answered so far."""
    answered = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=_ask_for_batches, args=(port, size, seed, answered), daemon=True)
    process.start()
    try:
        end = time.monotonic() + _PATIENCE
        while answered.value == 0:
            if time.monotonic() > end:
                raise RuntimeError(f"no batch was answered within {_PATIENCE:g} s")
            time.sleep(0.02)
        answered.value = 0
        yield lambda: answered.value
    finally:
        process.kill()
        process.join()


def _ask_for_batches(port: int, size: int, seed: int, answered: Any) -> None:
    body = orjson.dumps({"options": options(size, seed)})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    while True:
        connection.request("POST", "/v1/price", body)
        with connection.getresponse() as response:
            response.read()
            if response.status == 200:
                answered.value += 1


def measure(server: Server, arguments: argparse.Namespace, *, seed: int) -> dict[str, Any]:
    """One run: open loop, the same beside batches, then full load."""
    requests = requests_of([orjson.dumps(option) for option in options(arguments.distinct, seed)])
    port = int(server.url.rsplit(":", 1)[1])
    answer: dict[str, Any] = {}
    client = Client(port, arguments.open_connections)
    try:
        client.open_loop(requests, rate=arguments.rate, seconds=1)
        spent = server.cpu_seconds()
        latencies = client.open_loop(requests, rate=arguments.rate, seconds=arguments.seconds)
        spent = server.cpu_seconds() - spent
        answer["open_loop"] = {
            "rate": arguments.rate,
            **asdict(latencies),
            "server_cpu_us_per_request": round(spent / latencies.count * 1e6, 1),
        }
        with batches_beside(port, arguments.batch, seed=seed) as answered:
            beside = client.open_loop(requests, rate=arguments.rate, seconds=arguments.seconds)
            answer["beside_batches"] = {
                "rate": arguments.rate,
                **asdict(beside),
                "options_in_a_batch": arguments.batch,
                "batches_answered": answered(),
            }
    finally:
        client.close()
    client = Client(port, arguments.connections)
    try:
        client.closed_loop(requests, seconds=0.5)
        spent = server.cpu_seconds()
        latencies, rate = client.closed_loop(requests, seconds=arguments.seconds)
        spent = server.cpu_seconds() - spent
        answer["saturation"] = {
            "connections": arguments.connections,
            "requests_per_second": round(rate),
            **asdict(latencies),
            "server_cpu_us_per_request": round(spent / latencies.count * 1e6, 1),
        }
    finally:
        client.close()
    answer["server_memory_mb"] = server.memory_megabytes()
    return answer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests per second of the open loop")
    parser.add_argument("--open-connections", type=int, default=16)
    parser.add_argument("--connections", type=int, default=64, help="of the full load")
    parser.add_argument("--distinct", type=int, default=50_000, help="options, no two alike, before they repeat")
    parser.add_argument("--batch", type=int, default=65_536, help="options in a batch")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    arguments = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    two = len(cores) > 1
    if two:
        os.sched_setaffinity(0, {cores[1]})
    server = Server(cores[0] if two else None)
    try:
        server.wait_for("TensorFlow loaded")
        runs = []
        for seed in range(arguments.runs):
            runs.append(measure(server, arguments, seed=seed))
            print(json.dumps(runs[-1]), file=sys.stderr)
    finally:
        server.stop()
    document = {
        "benchmark": "single_quotes",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "server_and_client_on_cores_of_their_own": two},
        "seconds_to_ready": server.ready_seconds,
        "runs": runs,
    }
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
