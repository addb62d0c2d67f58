"""The traffic generator is what proves "no failed request", so it has to see every kind of failure itself."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lab.pricing import Option, random_option
from lab.traffic import Record, Traffic, summarize

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server on a free loopback port that answers pricing requests by a function."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, document = answer(request)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-PINN-Revision", f"rev-{request['option_type']}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away before the answer is what one test is about."""

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(url: str, **arguments: Any) -> Traffic:
    traffic = Traffic(url, host="x.example", **{"rate": 400.0, "seconds": 0.1, **arguments}).start()
    traffic.wait()
    return traffic


def test_right_prices_are_successes_and_are_counted_by_the_revision_that_gave_them(
    serve: Callable[[Answer], str],
) -> None:
    summary = run(serve(lambda request: (200, {"price": Option(**request).price()}))).summary()
    assert (summary.requests, summary.failed) == (40, 0)
    assert set(summary.revisions) == {"rev-call", "rev-put"}
    assert math.isclose(sum(summary.shares.values()), 100.0)


def test_a_wrong_price_with_a_200_is_a_failure(serve: Callable[[Answer], str]) -> None:
    summary = run(
        serve(lambda request: (200, {"price": Option(**request).price() + 1e-4 * request["strike"]}))
    ).summary()
    assert summary.failures == {"wrong-price": 40}


def test_an_answer_without_a_price_is_a_failure(serve: Callable[[Answer], str]) -> None:
    assert run(serve(lambda _: (200, {"value": 1.0}))).summary().failures == {"malformed": 40}


def test_errors_are_counted_by_status(serve: Callable[[Answer], str]) -> None:
    assert run(serve(lambda _: (503, {}))).summary().failures == {"503": 40}


def test_a_server_that_does_not_answer_in_time_is_a_failure(serve: Callable[[Answer], str]) -> None:
    gate = threading.Event()

    def slow(_: dict[str, Any]) -> tuple[int, Any]:
        gate.wait(5)
        return 200, {}

    url = serve(slow)
    summary = run(url, rate=50.0, timeout=0.1).summary()
    gate.set()
    assert summary.failures == {"timeout": 5}


def test_a_refused_connection_is_a_failure() -> None:
    summary = run("http://127.0.0.1:9").summary()
    assert summary.requests == summary.failed == 40


@pytest.mark.parametrize("url", ["http://example.com", "http://8.8.8.8:80", "http://198.51.100.1", "http://10.0.0.1"])
def test_only_loopback_and_our_own_clusters_are_ever_loaded(url: str) -> None:
    with pytest.raises(ValueError, match="only loads a loopback address"):
        Traffic(url, host="x", rate=1, seconds=1)


def test_shares_are_of_the_answers_that_name_a_revision() -> None:
    records = [Record(0.0, 0.1, 200, "a", "")] * 9 + [
        Record(0.0, 0.1, 500, "b", "500"),
        Record(0.0, 0.1, 503, "", "503"),
    ]
    summary = summarize(records)
    assert summary.share("a") == 90.0
    assert summary.share("b") == 10.0
    assert summary.failed_by_revision == {"b": 1, "router": 1}


def test_the_closed_form_of_the_tests_agrees_with_put_call_parity() -> None:
    source = random.Random(7)
    for _ in range(200):
        option = random_option(source)
        call = Option(**{**option.body(), "option_type": "call"}).price()
        put = Option(**{**option.body(), "option_type": "put"}).price()
        forward = option.spot * math.exp(-option.dividend * option.maturity) - option.strike * math.exp(
            -option.rate * option.maturity
        )
        assert math.isclose(call - put, forward, abs_tol=1e-9 * option.strike)
