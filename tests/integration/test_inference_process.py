"""The inference server as a process: real start, real signals, real sockets, the bundled model."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from lab.pricing import random_option
from pinn_inference.pricing.artefact import RECORD_FILE, WEIGHTS_FILE, bundled_directory, read, write
from tests.support.process import PATIENCE, Process, connection, serving
from tests.support.server import PUT

READINESS = "/health/deployment/readiness"
WRONG = "0" * 64


@contextmanager
def slow_volume(directory: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A model directory of which the weights can be opened but not read, and a function that lets them be read."""
    bundled = bundled_directory()
    shutil.copy(bundled / RECORD_FILE, directory / RECORD_FILE)
    os.mkfifo(directory / WEIGHTS_FILE)

    def come() -> None:
        with (directory / WEIGHTS_FILE).open("wb") as pipe:
            pipe.write((bundled / WEIGHTS_FILE).read_bytes())

    yield directory, come


def price(client: HTTPConnection, document: Any) -> tuple[int, Any, bool]:
    """Status, JSON, and whether the server announced that it closes the connection."""
    client.request("POST", "/v1/price", json.dumps(document))
    with client.getresponse() as response:
        return response.status, json.load(response), response.getheader("Connection") == "close"


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving("--revision", "9d77e0", PINN_SERVICE="eu-options") as process:
        process.wait_until_ready()
        yield process


# --- start ---


def test_http_answers_while_the_model_is_still_being_loaded_and_readiness_follows(tmp_path: Path) -> None:
    with slow_volume(tmp_path) as (directory, come), serving(PINN_MODEL_DIR=str(directory)) as process:
        status, answer = process.get(READINESS)
        assert (status, answer["ready"], answer["reason"]) == (503, False, "ModelLoading")
        with connection(process) as client:
            assert price(client, PUT)[1]["reason"] == "model_unavailable"
        come()
        process.wait_until_ready()
        status, answer = process.get(READINESS)
        assert (status, answer["ready"], answer["reason"]) == (200, True, "Ready")
        assert all(check["ok"] for check in answer["checks"])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_address_of_every_interface_is_of_both_kinds() -> None:
    with serving("--host", "::") as process:
        for address in ("127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"http://{address}:{process.port}/health", timeout=30) as response:
                assert response.status == 200


def test_the_server_is_ready_without_tensorflow_which_only_the_batch_process_imports(server: Process) -> None:
    loaded = server.logged("TensorFlow loaded")
    assert loaded["tensorflow"]["status"] == "healthy"
    assert server.logs.index(server.logged("ready")) < server.logs.index(loaded)
    assert "tensorflow" not in Path(f"/proc/{server.popen.pid}/maps").read_text()


def test_large_requests_are_priced_in_the_batch_process_and_are_right(server: Process) -> None:
    chosen = [random_option(random.Random(seed)) for seed in range(3000)]
    server.logged("batch process started")
    with connection(server) as client:
        status, answer, _ = price(client, {"options": [option.body() for option in chosen]})
    assert status == 200
    assert len(answer["results"]) == len(chosen)
    for option, row in zip(chosen, answer["results"], strict=True):
        assert abs(row["price"] - option.price()) <= row["error_bound"] + 1e-12 * option.strike


def test_where_tensorflow_is_off_batches_are_right_and_nobody_imports_it() -> None:
    chosen = [random_option(random.Random(seed)) for seed in range(3000)]
    with serving(PINN_TENSORFLOW="off") as process, connection(process) as client:
        child = process.logged("batch process started")["child"]
        status, answer, _ = price(client, {"options": [option.body() for option in chosen]})
        assert status == 200
        for option, row in zip(chosen, answer["results"], strict=True):
            assert abs(row["price"] - option.price()) <= row["error_bound"] + 1e-12 * option.strike
        client.request("GET", "/health/detailed")
        found = json.loads(client.getresponse().read())["components"]["tensorflow"]
        assert (found["status"], found["batch_process"]["state"]) == ("off", "numpy")
        assert "tensorflow" not in Path(f"/proc/{child}/maps").read_text()


def test_a_batch_process_that_is_killed_is_replaced_and_no_request_fails() -> None:
    batch = {"options": [random_option(random.Random(seed)).body() for seed in range(500)]}
    with serving() as process, connection(process) as client:
        first = int(process.logged("batch process started")["child"])
        assert price(client, batch)[0] == 200
        os.kill(first, signal.SIGKILL)
        assert price(client, batch)[0] == 200
        assert price(client, PUT)[1]["method"] == "pinn"
        process.logged("batch process ended")
        process.wait_for(lambda: process.count("batch process started") == 2)
        assert price(client, batch)[0] == 200
        assert process.get(READINESS)[0] == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=30) as response:
            text = response.read().decode()
        assert "pinn_batch_process_restarts_total 1.0" in text
        assert 'http_requests_total{handler="/v1/price",method="POST",status="500"} 0.0' in text


def test_a_process_keeps_its_models_when_others_are_put_into_their_directory(tmp_path: Path) -> None:
    directory = shutil.copytree(bundled_directory(), tmp_path / "european")
    batch = {"options": [random_option(random.Random(seed)).body() for seed in range(3000)]}
    with serving("--model-dir", str(directory)) as process, connection(process) as client:
        first = int(process.logged("batch process started")["child"])
        before = price(client, batch)[1]["results"]
        _put_another_model_into(directory)
        os.kill(first, signal.SIGKILL)
        process.wait_for(lambda: process.count("batch process started") == 2)
        after = price(client, batch)[1]["results"]
        alone = price(client, batch["options"][0])[1]
        assert process.get(READINESS)[0] == 200
    for option, old, new in zip(batch["options"], before, after, strict=True):
        assert (new["model"], new["error_bound"]) == (old["model"], pytest.approx(old["error_bound"], rel=1e-9))
        assert new["price"] == pytest.approx(old["price"], abs=1e-9 * option["strike"])
    assert alone["model"] == after[0]["model"]
    assert alone["price"] == pytest.approx(after[0]["price"], abs=1e-9 * batch["options"][0]["strike"])


def test_a_process_keeps_its_models_when_their_directories_are_gone(tmp_path: Path) -> None:
    european = shutil.copytree(bundled_directory(), tmp_path / "european")
    american = shutil.copytree(bundled_directory("american"), tmp_path / "american")
    flags = ("--model-dir", str(european), "--american-model-dir", str(american))
    batch = {"options": [{**PUT, "spot": 90 + 0.01 * row, "style": "american"} for row in range(2000)]}
    with serving(*flags) as process, connection(process) as client:
        first = int(process.logged("batch process started")["child"])
        shutil.rmtree(tmp_path)
        os.kill(first, signal.SIGKILL)
        process.wait_for(lambda: process.count("batch process started") == 2)
        status, answer, _ = price(client, batch)
    assert status == 200
    assert {(row["method"], row["model"].partition("/")[0]) for row in answer["results"]} == {("pinn", "american")}


def test_prices_come_from_the_network_and_are_right_to_a_millionth_of_the_strike(server: Process) -> None:
    chosen = [random_option(random.Random(seed)) for seed in range(200)]
    with connection(server) as client:
        status, answer, _ = price(client, {"options": [option.body() for option in chosen]})
    assert status == 200
    for option, row in zip(chosen, answer["results"], strict=True):
        assert row["method"] == "pinn"
        assert abs(row["price"] - option.price()) <= 1e-6 * option.strike
        assert abs(row["price"] - option.price()) <= row["error_bound"] + 1e-12 * option.strike


def test_the_process_tells_its_memory_its_build_and_its_model(server: Process) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as response:
        text = response.read().decode()
    assert "process_resident_memory_bytes" in text
    own, tree = (
        float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE).group(1))  # type: ignore[union-attr]
        for name in ("process_resident_memory_bytes", "pinn_process_tree_resident_memory_bytes")
    )
    assert tree > own > 10e6
    assert 'pinn_build_info{python="' in text
    assert 'revision="9d77e0",service="eu-options"' in text
    assert "pinn_ready 1.0" in text
    assert "_created" not in text


def test_detailed_health_knows_the_tensorflow_in_use(server: Process) -> None:
    server.logged("TensorFlow loaded")
    server.wait_for(lambda: server.get("/health/detailed")[1]["components"]["tensorflow"]["status"] == "healthy")
    status, answer = server.get("/health/detailed")
    assert (status, answer["status"]) == (200, "healthy")
    assert set(answer["components"]["tensorflow"]) >= {"status", "version", "gpu_available"}
    assert set(answer["components"]["pinn_cache"]) == {"status", "cache_size", "hit_rate"}
    assert answer["components"]["pinn_model"]["method"] == "pinn"


def test_the_check_command_says_alive_and_ready_by_its_exit_code(server: Process) -> None:
    command = [sys.executable, "-m", "pinn_inference", "check"]
    where = (
        ["--port", str(server.port)],
        ["--host", f"127.0.0.1:{server.port}"],
        ["--host", f"http://127.0.0.1:{server.port}/"],
    )
    for one in where:
        assert subprocess.run([*command, *one], check=False, capture_output=True).returncode == 0
        assert subprocess.run([*command, *one, "--ready"], check=False, capture_output=True).returncode == 0


# --- a start that goes wrong ---


def test_weights_with_another_checksum_leave_a_live_server_that_is_never_ready_and_says_why() -> None:
    with serving("--model-sha256", WRONG) as process:
        process.logged("model not usable: pricing in closed form")
        status, answer = process.get(READINESS)
        assert (status, answer["ready"], answer["reason"]) == (503, False, "ModelChecksumMismatch")
        assert f"expected sha256 {WRONG}, found " in answer["message"]
        assert process.get("/health") == (200, {"status": "healthy"})
        with connection(process) as client:
            row = price(client, PUT)[1]
        assert (row["method"], row["reason"]) == ("closed_form", "model_unavailable")
        command = [sys.executable, "-m", "pinn_inference", "check", "--port", str(process.port)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0
        refused = subprocess.run([*command, "--ready"], check=False, capture_output=True, text=True)
        assert refused.returncode == 1
        assert "ModelChecksumMismatch" in refused.stdout


def test_a_model_directory_that_is_not_there_is_named(tmp_path: Any) -> None:
    with serving(PINN_MODEL_DIR=str(tmp_path / "nothing")) as process:
        process.logged("model not usable: pricing in closed form")
        _, answer = process.get(READINESS)
        assert answer["reason"] == "ModelNotFound"
        assert str(tmp_path / "nothing") in answer["message"]


def test_a_bundled_model_that_there_is_not_is_never_replaced_by_another() -> None:
    with serving(PINN_MODEL="heston") as process:
        process.logged("model not usable: pricing in closed form")
        status, answer = process.get(READINESS)
        assert (status, answer["reason"]) == (503, "ModelNotFound")
        assert "no bundled model 'heston'; there is american, european" in answer["message"]


def test_wrong_settings_end_the_process_with_2_and_every_name() -> None:
    process = Process("--drain-seconds", "soon", PINN_TF_THREADS="many")
    try:
        assert process.exit_code() == 2
        assert process.popen.stderr is not None
        told = process.popen.stderr.read()
    finally:
        process.close()
    assert "--drain-seconds is 'soon': must be a number of seconds" in told
    assert "PINN_TF_THREADS is 'many': must be a whole number" in told


def test_a_port_in_use_ends_the_process_with_1_and_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with serving("--port", str(taken.getsockname()[1])) as process:
            assert process.exit_code() == 1
            assert any("cannot listen on 127.0.0.1" in entry["message"] for entry in process.logs)


def test_checking_a_server_that_is_not_there_fails() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
        command = [sys.executable, "-m", "pinn_inference", "check", "--port", port]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1


# --- the end ---


def test_sigterm_turns_readiness_off_at_once_and_serves_on_until_the_drain_delay_is_over() -> None:
    with serving("--drain-seconds", "2", "--model-sha256", WRONG) as process, connection(process) as client:
        assert price(client, PUT)[2] is False
        process.terminate()
        process.logged("SIGTERM: draining")
        status, answer = process.get(READINESS)
        assert (status, answer["reason"]) == (503, "Draining")
        assert process.get("/health")[0] == 200
        status, _, closes = price(client, PUT)
        assert (status, closes) == (200, True), "a kept-alive connection must be told to go elsewhere"
        with connection(process) as newcomer:
            assert price(newcomer, PUT)[0] == 200, "proxies that do not know yet must still be served"
        assert process.exit_code() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", process.port), timeout=5)


def test_no_request_fails_from_sigterm_to_the_end_when_clients_heed_the_announced_close() -> None:
    with serving("--drain-seconds", "1", "--model-sha256", WRONG) as process:
        told: list[int] = []

        def ask_until_told_to_go() -> None:
            with connection(process) as client:
                for _ in range(100_000):
                    status, _, closes = price(client, PUT)
                    told.append(status)
                    if closes:
                        return

        clients = [threading.Thread(target=ask_until_told_to_go) for _ in range(4)]
        for client in clients:
            client.start()
        process.logged("listening")
        process.terminate()
        for client in clients:
            client.join(PATIENCE)
        assert process.exit_code() == 0
    assert len(told) >= 4
    assert set(told) == {200}


def test_a_second_sigterm_skips_the_delay() -> None:
    with serving("--drain-seconds", "3600", "--model-sha256", WRONG) as process:
        process.logged("listening")
        process.terminate()
        process.logged("SIGTERM: draining")
        process.terminate()
        assert process.exit_code() == 0


def test_a_request_in_flight_is_finished_after_the_socket_was_closed() -> None:
    body = json.dumps(PUT).encode()
    with serving("--drain-seconds", "0", "--model-sha256", WRONG) as process, connection(process) as client:
        client.putrequest("POST", "/v1/price")
        client.putheader("Content-Length", str(len(body)))
        client.endheaders(body[:10])
        _until_counted_open(process)
        process.terminate()
        process.logged("finishing requests in flight")
        client.send(body[10:])
        with client.getresponse() as response:
            assert response.status == 200
        assert process.exit_code() == 0


def test_a_request_that_never_ends_does_not_hold_the_process_beyond_its_timeout() -> None:
    flags = ("--drain-seconds", "0", "--inflight-timeout-seconds", "0.3", "--model-sha256", WRONG)
    with serving(*flags) as process, connection(process) as client:
        client.putrequest("POST", "/v1/price")
        client.putheader("Content-Length", "1000")
        client.endheaders(b"{")
        _until_counted_open(process)
        process.terminate()
        assert process.exit_code() == 0


def test_sigterm_while_the_model_is_being_loaded_ends_with_0(tmp_path: Path) -> None:
    with (
        slow_volume(tmp_path) as (directory, _),
        serving("--drain-seconds", "0", PINN_MODEL_DIR=str(directory)) as process,
    ):
        process.logged("listening")
        process.terminate()
        assert process.exit_code() == 0


def test_more_connections_are_served_than_the_soft_limit_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Of this process, because the server inherits it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        process = Process()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        process.wait_until_ready()
        with ExitStack() as idle:
            for _ in range(100):
                idle.enter_context(connection(process))
            assert process.get("/health")[0] == 200
    finally:
        process.close()


def test_no_process_is_left_behind() -> None:
    with serving("--drain-seconds", "0") as process:
        child = int(process.logged("batch process started")["child"])
        process.terminate()
        assert process.exit_code() == 0
    assert not Path(f"/proc/{child}").exists()


def test_sighup_changes_nothing_and_is_logged(server: Process) -> None:
    server.popen.send_signal(signal.SIGHUP)
    server.logged("SIGHUP is ignored: a process keeps its model, another model comes in another pod")
    assert server.get(READINESS)[0] == 200


def _put_another_model_into(directory: Path) -> None:
    """One that is valid, right to the golden prices' digits, and yet another: prices differ from the 7th digit on."""
    model = read(directory)
    *first, last = model.network.layers
    network = replace(model.network, layers=(*first, replace(last, bias=last.bias + 5e-6)))
    write(directory, name=model.name, version="another", network=network, certificate=model.certificate, record={})


def _until_counted_open(process: Process) -> None:
    """The server has surely read what was sent before once it has answered a request that was sent after."""
    for _ in range(3):
        assert process.get("/health")[0] == 200
        time.sleep(0.05)
