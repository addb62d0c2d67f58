"""Thousands of bad requests, each wrong in one known way, against a real server process.

Never a 5xx, never a hang, never a price; the answer names what was wrong, and afterwards the server prices as before.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from tests.support.bad_requests import INFER, MAX_BATCH, MAX_BODY_BYTES, PRICE, BadRequest, bad_requests
from tests.support.oip import json_request
from tests.support.process import Process, serving
from tests.support.server import PUT

COUNT = 7200
CONNECTIONS = 8
SEED = 20261126
ANSWER_SECONDS = 20.0
"""Longer than any answer may take, but less than the minute after which the server gives up on a body."""


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    limits = ("--max-body-bytes", str(MAX_BODY_BYTES), "--max-batch", str(MAX_BATCH))
    with serving(*limits) as process:
        process.wait_until_ready()
        yield process


def test_no_bad_request_gets_a_price_a_5xx_or_no_answer(server: Process, capsys: pytest.CaptureFixture[str]) -> None:
    before = _good_prices(server)
    requests = list(bad_requests(SEED, COUNT))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = [requests[start::CONNECTIONS] for start in range(CONNECTIONS)]
        outcomes = [
            outcome for share in pool.map(lambda share: _send_all(server.port, share), shares) for outcome in share
        ]
    sent: Counter[str] = Counter(request.kind for request in requests)
    wrong = [complaint for complaint in outcomes if complaint is not None]
    with capsys.disabled():
        print(f"\n{len(requests)} bad requests in {len(sent)} kinds over {CONNECTIONS} connections: {len(wrong)} wrong")
    assert not wrong, f"{len(wrong)} of {len(requests)}:\n" + "\n".join(wrong[:20])
    assert _good_prices(server) == before
    assert [entry for entry in server.logs if entry.get("level") == "error"] == []
    assert _answers_by_status(server, "5") == 0


def _send_all(port: int, requests: Sequence[BadRequest]) -> list[str | None]:
    """Sends them one after the other on one connection, which is made anew where the server has closed it."""
    outcomes: list[str | None] = []
    client = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        for request in requests:
            try:
                if request.raw is not None:
                    outcomes.append(_complaint(request, *_send_raw(port, request.raw)))
                else:
                    outcomes.append(_complaint(request, *_send(client, request)))
            except (OSError, HTTPException) as error:
                client.close()
                gone = isinstance(error, (ConnectionError, HTTPException)) and not isinstance(error, TimeoutError)
                outcomes.append(None if request.may_close and gone else f"{_described(request)}: {error!r}")
    finally:
        client.close()
    return outcomes


def _send(client: HTTPConnection, request: BadRequest) -> tuple[int, bytes]:
    client.putrequest(request.method, request.path, skip_accept_encoding=True)
    client.putheader("Content-Length", str(len(request.body)))
    for name, value in request.headers.items():
        client.putheader(name, value)
    client.endheaders(request.body)
    response = client.getresponse()
    return response.status, response.read()


def _send_raw(port: int, raw: bytes) -> tuple[int | None, bytes]:
    """Writes the bytes, says that no more will come, and reads to the end; no status if nothing comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    if not received:
        return None, b""
    return int(received.split(b" ", 2)[1]), received.partition(b"\r\n\r\n")[2]


def _complaint(request: BadRequest, status: int | None, body: bytes) -> str | None:
    """What is wrong with an answer, None if nothing is."""
    if status is None:
        return None if request.may_close else f"{_described(request)}: no answer"
    if status not in request.statuses:
        return f"{_described(request)}: status {status}, not {sorted(request.statuses)}: {body[:300]!r}"
    if request.raw is not None or request.method == "HEAD":
        return None
    try:
        answer = json.loads(body)
    except ValueError:
        return f"{_described(request)}: the body is no JSON: {body[:300]!r}"
    if not isinstance(answer.get("error"), str) or not answer["error"] or "reason" not in answer:
        return f"{_described(request)}: no error in {answer}"
    if {"price", "implied_volatility", "results", "outputs", "columns", "totals"} & set(answer):
        return f"{_described(request)}: a price for a bad request: {answer}"
    named = [fault["field"] for fault in answer.get("faults", ())]
    if request.names is not None and not any(request.names in each for each in (*named, answer["error"])):
        return f"{_described(request)}: {request.names!r} is not named in {answer}"
    return None


def _described(request: BadRequest) -> str:
    shown = request.raw if request.raw is not None else request.body
    return f"[{request.kind}] {request.method} {request.path} {dict(request.headers)} {shown[:400]!r}"


def _good_prices(server: Process) -> list[Any]:
    """What the server answers to requests that are right."""
    client = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)
    try:
        answers = []
        for path, document in (
            (PRICE, PUT),
            (PRICE, {"options": [PUT] * 50}),
            *((path, json_request(3)) for path in INFER),
        ):
            client.request("POST", path, json.dumps(document).encode())
            response = client.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200, answer
            answers.append(answer)
    finally:
        client.close()
    assert answers[0]["price"] == pytest.approx(3.4853084452972327, abs=answers[0]["error_bound"])
    for row in (answers[0], *answers[1]["results"]):
        row.pop("cached")
    return answers


def _answers_by_status(server: Process, first_digit: str) -> float:
    """How many answers of the counters had a status with this first digit."""
    client = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)
    try:
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
    finally:
        client.close()
    lines = [line for line in text.splitlines() if line.startswith("http_requests_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'status="{first_digit}' in line)
