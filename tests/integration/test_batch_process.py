"""The batch process as a process: real shared memory, real signals, and a child that dies at the worst moment."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.loading import read_sources
from pinn_inference.pricing.model import bundled_directory
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.batch import BatchError, BatchSettings, BatchState, JobKind, RemoteError
from pinn_inference.server.errors import BodyTimeout, BodyTooLarge, Overloaded
from pinn_inference.server.inflate import Coding
from pinn_inference.server.parsing import parse_price_request
from tests.support.batch import PATIENCE, REPOSITORY, ask, batch_process, exact, is_alive, reaches, rows
from tests.support.server import eventually, options

BUNDLED = read_sources(bundled_directory(), bundled_directory("american"))


@pytest.fixture(autouse=True)
def _child_finds_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's pricer lives in the tests, and it does not look into the working directory by itself."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY / 'inference'}")


def right_prices(request: list[dict[str, Any]]) -> list[float]:
    parsed = parse_price_request(json.dumps({"options": request}).encode(), max_batch=len(request))
    prices: list[float] = closed_form.price(parsed.options).price.tolist()
    return prices


def prices_of(document: Any) -> list[float]:
    return [row["price"] for row in document["results"]]


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_batch_is_priced_in_its_order_and_counted() -> None:
    request = rows(5000)
    async with batch_process() as process:
        taken = await ask(process, {"options": request})
    assert prices_of(taken.document) == right_prices(request)
    assert {row["model"] for row in taken.document["results"]} == {"european/test"}
    assert taken.content_type == "application/json"
    counts = taken.counts
    assert (counts.where, counts.options, counts.methods[Method.PINN]) == ("numpy", 5000, 5000)
    assert counts.reasons[FallbackReason.NONE] == 5000
    assert sum(bucket[0] for bucket in counts.moments) == 5000
    assert min(counts.parse_seconds, counts.evaluation_seconds, counts.render_seconds) > 0


async def test_a_body_is_taken_as_it_arrives() -> None:
    request = rows(2000)
    body = json.dumps({"options": request}).encode()

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]
            await asyncio.sleep(0)

    async with batch_process() as process:
        assert prices_of((await ask(process, slowly())).document) == right_prices(request)


async def test_a_compressed_body_is_inflated_by_the_child_within_its_bounds() -> None:
    request = rows(2000)
    async with batch_process() as process:
        taken = await ask(process, gzip.compress(json.dumps({"options": request}).encode()), coding=Coding.GZIP)
        with pytest.raises(RemoteError, match="inflates to more than 100 times its size") as caught:
            await ask(process, gzip.compress(b" " * (31 << 20)), coding=Coding.GZIP)
    assert (prices_of(taken.document), taken.counts.where) == (right_prices(request), "numpy")
    assert (caught.value.status, caught.value.reason) == (413, "InflatesTooMuch")


async def test_columns_are_answered_in_columns() -> None:
    request = rows(300)
    columns = {name: [row[name] for row in request] for name in request[0]}
    async with batch_process() as process:
        taken = await ask(process, {"columns": columns})
    assert taken.document["columns"]["price"] == right_prices(request)


async def test_binary_tensors_are_answered_in_binary_tensors() -> None:
    spot = np.linspace(80, 120, 1000)
    inputs, tail = [], b""
    for name, column in {
        "spot": spot,
        "strike": np.full(1000, 100.0),
        "maturity": np.ones(1000),
        "rate": np.full(1000, 0.03),
        "volatility": np.full(1000, 0.2),
    }.items():
        inputs.append({"name": name, "shape": [1000], "datatype": "FP64", "parameters": {"binary_data_size": 8000}})
        tail += column.tobytes()
    header = json.dumps({"id": "7", "inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    parameters = {"model": "european", "header_length": str(len(header))}
    async with batch_process() as process:
        taken = await ask(process, header + tail, JobKind.INFER, parameters=parameters)
    assert taken.content_type == "application/octet-stream"
    assert taken.document["id"] == "7"
    assert taken.document["model_version"] == "test"  # that of what priced, see `SteeredPricer`
    assert taken.document["outputs"][0]["name"] == "price"
    price = np.frombuffer(taken.body, offset=taken.header_length or 0, count=1000)
    assert np.array_equal(price, closed_form.price(options(*spot)).price)


async def test_a_bad_row_among_65536_is_named_by_its_index_and_nothing_is_priced() -> None:
    request = [dict(row) for row in rows(1)] * 65_536
    request[54_321] = {**request[0], "volatility": -0.2}
    async with batch_process() as process:
        with pytest.raises(RemoteError) as caught:
            await ask(process, {"options": request})
    assert (caught.value.status, caught.value.reason) == (400, "InvalidRequest")
    assert str(caught.value).startswith("options[54321].volatility is -0.2: must be a number from 0 to 10")
    assert caught.value.details()["faults"][0]["index"] == 54_321
    assert sum(caught.value.counts.methods) == 0


async def test_a_flood_of_faults_is_counted_but_not_carried_whole() -> None:
    async with batch_process() as process:
        with pytest.raises(RemoteError) as caught:
            await ask(process, {"options": [{"é" * 500: "é" * 500}] * 10_000})
    details = caught.value.details()
    assert (details["fault_count"], len(details["faults"])) == (60_000, 100)


async def test_an_evaluation_that_raises_is_answered_in_closed_form_and_counted() -> None:
    async with batch_process(options={"raises": "device"}) as process:
        taken = await ask(process, {"options": rows(3)})
    assert {(row["method"], row["reason"]) for row in taken.document["results"]} == {("closed_form", "device_error")}
    assert taken.counts.failed_evaluations == {"MemoryError": 1}


async def test_american_options_are_never_priced_as_european_ones() -> None:
    european = {**rows(1)[0], "rate": 0.08, "option_type": "put"}
    american = {**european, "style": "american"}
    async with batch_process(options={"raises": "device"}) as process:
        results = (await ask(process, {"options": [american, european, american]})).document["results"]
    assert [row["method"] for row in results] == ["integral_equation", "closed_form", "integral_equation"]
    assert {row["reason"] for row in results} == {"device_error"}
    assert results[0]["price"] == results[2]["price"] > results[1]["price"]
    assert 0 < results[0]["exercise_boundary"] < 100
    assert "exercise_boundary" not in results[1]


async def test_options_that_would_hold_up_others_for_minutes_are_refused() -> None:
    american = {**rows(1)[0], "style": "american"}
    async with batch_process() as process:
        with pytest.raises(RemoteError) as caught:
            await ask(process, {"options": [american] * 1001})
    assert (caught.value.status, caught.value.reason) == (413, "TooManySlowOptions")
    assert str(caught.value).startswith("options holds 1001 American options outside the domain")


async def test_the_bundled_models_price_both_styles_in_one_batch() -> None:
    european = {**rows(1)[0], "rate": 0.08, "volatility": 0.3, "maturity": 1, "option_type": "put"}
    american = {**european, "style": "american"}
    async with batch_process(factory=BatchSettings().factory, models=BUNDLED.packed()) as process:
        results = (await ask(process, {"options": [american, european] * 3000})).document["results"]
    assert {(row["method"], row["model"].split("/")[0]) for row in results[::2]} == {("pinn", "american")}
    assert {(row["method"], row["model"].split("/")[0]) for row in results[1::2]} == {("pinn", "european")}
    assert results[0]["price"] > results[1]["price"]


# --- slow options -----------------------------------------------------------------------------------------------------


def slow_request(count: int = 1000) -> dict[str, Any]:
    return {"options": [{**rows(1)[0], "style": "american"}] * count}


async def test_slow_batches_hold_up_no_quick_one() -> None:
    async with batch_process(options={"slow_seconds": 0.2}, slots=8) as process:
        slow = [asyncio.create_task(ask(process, slow_request())) for _ in range(4)]
        await eventually(lambda: process.status.waiting == 4)
        for _ in range(3):
            await ask(process, {"options": rows(5000)})
        assert process.status.waiting == 4
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_slow_batches_hold_up_no_quick_one_while_the_child_is_away_either() -> None:
    priced: list[bool] = []

    def price(batch: OptionBatch) -> Quotes:
        priced.append(bool(batch.is_american.any()))
        time.sleep(0.02 if priced[-1] else 0)
        return exact(batch)

    body = json.dumps({"options": rows(5000)}).encode()
    async with batch_process(started=False, options={"starting": "raises"}, price=price) as process:
        slow = [asyncio.create_task(ask(process, slow_request())) for _ in range(2)]
        await eventually(lambda: True in priced, seconds=PATIENCE)
        await ask(process, body)
        for taken in await asyncio.gather(*slow):
            assert len(taken.document["results"]) == 1000
    assert priced.count(False) == 1
    assert priced.index(False) < priced.count(True) - 10


async def test_a_slow_batch_that_goes_on_is_not_taken_for_a_child_that_hangs() -> None:
    ends: list[str] = []
    async with batch_process(options={"slow_seconds": 0.05}, job_seconds=2.0, ends=ends) as process:
        taken = await ask(process, slow_request())
    assert len(taken.document["results"]) == 1000
    assert taken.counts.evaluation_seconds > 2.0
    assert not ends


async def test_more_slow_options_than_may_wait_are_an_overload_and_a_client_that_goes_makes_room() -> None:
    async with batch_process(options={"slow_seconds": 0.05}, slots=8) as process:
        slow = [asyncio.create_task(ask(process, slow_request())) for _ in range(4)]
        await eventually(lambda: process.status.waiting == 4)
        with pytest.raises(RemoteError) as caught:
            await ask(process, slow_request())
        assert (caught.value.status, caught.value.reason) == (429, "Overloaded")
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await eventually(lambda: process.status.waiting == 0)
        assert len((await ask(process, slow_request(100))).document["results"]) == 100


async def test_slow_batches_that_a_dead_child_had_begun_are_priced_by_the_server() -> None:
    ends: list[str] = []
    async with batch_process(options={"slow_seconds": 0.05}, ends=ends) as process:
        slow = [asyncio.create_task(ask(process, slow_request())) for _ in range(2)]
        await asyncio.sleep(0.3)
        assert process.status.pid is not None
        os.kill(process.status.pid, signal.SIGKILL)
        assert [taken.counts.where for taken in await asyncio.gather(*slow)] == ["server"] * 2
        await eventually(lambda: len(ends) == 1)


# --- the child's end --------------------------------------------------------------------------------------------------


async def test_a_child_killed_over_a_batch_costs_nothing_but_time(tmp_path: Path) -> None:
    request, ends = rows(3000), list[str]()
    steering = {"arrived": str(tmp_path / "arrived"), "until": str(tmp_path / "never")}
    async with batch_process(options=steering, ends=ends) as process:
        first = process.status.pid
        assert first is not None
        asked = [asyncio.create_task(ask(process, {"options": request})) for _ in range(3)]
        await eventually((tmp_path / "arrived").exists)
        os.kill(first, signal.SIGKILL)
        (tmp_path / "never").touch()
        answers = await asyncio.gather(*asked)
        assert [prices_of(taken.document) for taken in answers] == [right_prices(request)] * 3
        assert answers[0].counts.where == "server"
        assert {row["model"] for row in answers[0].document["results"]} == {"european/server"}
        await reaches(process, BatchState.NUMPY)
        assert (await ask(process, {"options": request})).counts.where == "numpy"
        status = process.status
    assert ends == ["was ended by SIGKILL"]
    assert status.restarts == 1
    assert status.pid != first
    assert status.message == "the last batch process was ended by SIGKILL"


async def test_a_batch_that_ends_every_child_is_answered_once_and_for_all(tmp_path: Path) -> None:
    (tmp_path / "dies").touch()
    ends = list[str]()
    async with batch_process(options={"dies": str(tmp_path / "dies")}, ends=ends) as process:
        assert (await ask(process, {"options": rows(2)})).counts.where == "server"
        await eventually(lambda: len(ends) == 1)


async def test_a_child_without_memory_left_makes_room_for_a_fresh_one() -> None:
    request, ends = rows(3), list[str]()
    async with batch_process(options={"no_memory": "rendering"}, ends=ends) as process:
        taken = await ask(process, {"options": request})
        await eventually(lambda: len(ends) == 1)
    assert prices_of(taken.document) == right_prices(request)
    assert taken.counts.where == "server"
    assert ends == ["ended with exit code 4"]


async def test_a_wrong_request_is_refused_in_the_same_words_while_the_child_is_away() -> None:
    async with batch_process(started=False, options={"starting": "raises"}) as process:
        await eventually(lambda: process.status.state is BatchState.RESTARTING)
        with pytest.raises(RemoteError, match=r"options\[1\].spot is -1: must be"):
            await ask(process, {"options": [rows(1)[0], {**rows(1)[0], "spot": -1}]})


async def test_a_child_that_cannot_start_is_tried_again_and_batches_are_priced_here() -> None:
    request, ends = rows(10), list[str]()
    async with batch_process(started=False, options={"starting": "raises"}, ends=ends) as process:
        await eventually(lambda: len(ends) >= 2, seconds=PATIENCE)
        taken = await ask(process, {"options": request})
        message = process.status.message
    assert prices_of(taken.document) == right_prices(request)
    assert taken.counts.where == "server"
    assert message == "the last batch process ended with exit code 1"


async def test_where_no_child_can_ever_start_the_server_is_told_with_the_memory_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pinn_inference.server.batch.supervisor.memory_limit", lambda: 72 << 20)
    troubles: list[str] = []
    async with batch_process(started=False, options={"starting": "killed"}, troubles=troubles):
        await eventually(lambda: bool(troubles), seconds=PATIENCE)
    assert troubles[0] == (
        "the batch process cannot start, the last of 3 was ended by SIGKILL: the container's memory limit is 72 MiB"
    )


async def test_a_child_that_has_started_once_is_no_reason_to_take_no_traffic(tmp_path: Path) -> None:
    ends: list[str] = []
    troubles: list[str] = []
    (tmp_path / "dies").touch()
    async with batch_process(options={"dies": str(tmp_path / "dies")}, ends=ends, troubles=troubles) as process:
        for number in range(1, 5):
            await ask(process, {"options": rows(2)})
            await eventually(lambda count=number: len(ends) == count, seconds=PATIENCE)
            await reaches(process, BatchState.NUMPY)
    assert set(troubles) == {""}


async def test_a_child_that_hangs_is_replaced(tmp_path: Path) -> None:
    ends = list[str]()
    async with batch_process(options={"until": str(tmp_path / "never")}, job_seconds=0.2, ends=ends) as process:
        hanging = process.status.pid
        assert hanging is not None
        assert (await ask(process, {"options": rows(2)})).counts.where == "server"
        await eventually(lambda: not is_alive(hanging))
    assert ends[0] == "has not answered a batch within 0.2 s"


async def test_signals_for_the_server_s_group_leave_the_child_alone() -> None:
    async with batch_process() as process:
        pid = process.status.pid
        assert pid is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        await ask(process, {"options": rows(2)})
        assert process.status.pid == pid
        assert os.getsid(pid) == pid


async def test_the_child_has_a_name_and_yields_to_the_server_in_everything() -> None:
    async with batch_process() as process:
        pid = process.status.pid
        assert pid is not None
        about = Path(f"/proc/{pid}")
        assert (about / "comm").read_text() == "pinn-batch\n"
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 2)
        assert int((about / "oom_score_adj").read_text()) == 500


async def test_closing_answers_what_was_accepted_and_ends_the_child(tmp_path: Path) -> None:
    steering = {"arrived": str(tmp_path / "arrived"), "until": str(tmp_path / "until")}
    async with batch_process(options=steering) as process:
        pid = process.status.pid
        assert pid is not None
        asked = [asyncio.create_task(ask(process, {"options": rows(2)})) for _ in range(4)]
        await eventually((tmp_path / "arrived").exists)
        closing = asyncio.create_task(process.close(within=PATIENCE))
        await asyncio.sleep(0)
        with pytest.raises(BatchError, match="closed"):
            await process.run(JobKind.PRICE, b"{}")
        (tmp_path / "until").touch()
        assert len(await asyncio.gather(*asked)) == 4
        await closing
        assert not is_alive(pid)


async def test_a_body_that_arrives_after_the_closing_is_not_left_waiting() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        arrived.set()
        await go_on.wait()
        yield b"}"

    async with batch_process() as process:
        asked = asyncio.create_task(process.run(JobKind.PRICE, slowly()))
        await arrived.wait()
        closing = asyncio.create_task(process.close(within=PATIENCE))
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(BatchError, match="closed"):
            await asked
        await closing


async def test_closing_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with batch_process(options={"until": str(tmp_path / "never")}) as process:
        pid = process.status.pid
        assert pid is not None
        asked = asyncio.create_task(ask(process, {"options": rows(2)}))
        await eventually(lambda: process.status.waiting == 1)
        await process.close(within=0.05)
        with pytest.raises(BatchError, match="closed before the answer"):
            await asked
        assert not is_alive(pid)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "pricing"])
def test_the_child_does_not_outlive_a_server_that_is_killed(tmp_path: Path, busy: bool) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import asyncio, sys\n"
        "from tests.support.batch import ask, batch_process, rows\n"
        "async def main():\n"
        "    async with batch_process(options={'arrived': sys.argv[1], 'until': sys.argv[2]}) as process:\n"
        "        print(process.status.pid, flush=True)\n"
        "        await (ask(process, {'options': rows(2)}) if sys.argv[3] == 'True' else asyncio.sleep(60))\n"
        "asyncio.run(main())\n"
    )
    arrived = tmp_path / "arrived"
    command = [sys.executable, str(program), str(arrived), str(tmp_path / "never"), str(busy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        deadline = time.monotonic() + PATIENCE
        while busy and not arrived.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert is_alive(child)
        server.kill()
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not is_alive(child)


# --- TensorFlow -------------------------------------------------------------------------------------------------------


async def test_tensorflow_takes_over_when_it_is_loaded_and_again_after_a_restart() -> None:
    async with batch_process(tf_threads=3) as process:
        process.load_tensorflow()
        await reaches(process, BatchState.TENSORFLOW)
        assert (await ask(process, {"options": rows(2)})).counts.where == "tensorflow"
        assert process.status.tensorflow == {
            "status": "healthy",
            "version": "none",
            "gpu_available": False,
            "threads": 3,
        }
        pid = process.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: process.status.restarts == 1)
        await reaches(process, BatchState.TENSORFLOW)


async def test_without_tensorflow_batches_are_priced_with_numpy_and_the_status_says_why() -> None:
    async with batch_process(options={"loading": "raises"}) as process:
        process.load_tensorflow()
        await eventually(lambda: process.status.message != "", seconds=PATIENCE)
        status = process.status
        assert (await ask(process, {"options": rows(2)})).counts.where == "numpy"
    assert status.state is BatchState.NUMPY
    assert status.message == "ImportError: no module named tensorflow"
    assert status.tensorflow["status"] == "unhealthy"


async def test_a_tensorflow_that_ends_the_process_again_and_again_is_left_alone() -> None:
    ends = list[str]()
    async with batch_process(options={"loading": "dies"}, ends=ends) as process:
        process.load_tensorflow()
        await eventually(lambda: len(ends) == 3, seconds=PATIENCE)
        await reaches(process, BatchState.NUMPY)
        assert (await ask(process, {"options": rows(2)})).counts.where == "numpy"
        status = process.status
    assert ends == ["was ended by SIGABRT"] * 3
    assert status.message.endswith("3 ended while they loaded TensorFlow, so it is left alone")


async def test_the_bundled_model_prices_the_same_with_numpy_and_with_tensorflow() -> None:
    request = rows(5000)
    async with batch_process(factory=BatchSettings().factory, models=BUNDLED.packed()) as process:
        by_numpy = await ask(process, {"options": request})
        process.load_tensorflow()
        await eventually(lambda: process.status.state is BatchState.TENSORFLOW, seconds=120)
        by_tensorflow = await ask(process, {"options": request})
    assert (by_numpy.counts.where, by_tensorflow.counts.where) == ("numpy", "tensorflow")
    assert by_tensorflow.counts.methods[Method.PINN] == 5000
    assert np.allclose(prices_of(by_numpy.document), prices_of(by_tensorflow.document), rtol=0, atol=1e-10)
    assert np.allclose(prices_of(by_numpy.document), right_prices(request), rtol=0, atol=1e-5)


# --- limits, cancellation, memory -------------------------------------------------------------------------------------


async def test_a_body_over_the_limit_is_refused_while_it_arrives() -> None:
    async with batch_process(max_body_bytes=10_000) as process:
        with pytest.raises(BodyTooLarge, match="more than 10000 bytes"):
            await process.run(JobKind.PRICE, b" " * 10_001)
        await ask(process, {"options": rows(2)})


async def test_more_batches_than_places_are_refused_and_places_come_back(tmp_path: Path) -> None:
    async with batch_process(options={"until": str(tmp_path / "until")}, slots=3) as process:
        asked = [asyncio.create_task(ask(process, {"options": rows(2)})) for _ in range(3)]
        await eventually(lambda: process.status.waiting == 3)
        with pytest.raises(Overloaded, match="3 batches wait or are being priced"):
            await process.run(JobKind.PRICE, b"{}")
        (tmp_path / "until").touch()
        await asyncio.gather(*asked)
        await ask(process, {"options": rows(2)})


async def test_bodies_that_take_too_much_memory_together_are_refused(tmp_path: Path) -> None:
    body = json.dumps({"options": rows(2)}).encode().ljust(90_000)
    steering = {"until": str(tmp_path / "until")}
    async with batch_process(max_body_bytes=100_000, memory_bytes=1, options=steering) as process:
        asked = [asyncio.create_task(ask(process, body)) for _ in range(2)]
        await eventually(lambda: process.status.waiting == 2)
        with pytest.raises(Overloaded, match="180000 bytes of batches"):
            await process.run(JobKind.PRICE, b" " * 90_000)
        (tmp_path / "until").touch()
        await asyncio.gather(*asked)
        await ask(process, {"options": rows(2)})


async def test_uploads_that_stall_keep_no_batch_waiting() -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b" " * 20_000
        await asyncio.sleep(PATIENCE)

    async with batch_process(slots=8, arrival_seconds=0.1) as process:
        stalled = [asyncio.create_task(process.run(JobKind.PRICE, stalling())) for _ in range(8)]
        await asyncio.sleep(0.05)
        for _ in range(3):
            assert len((await ask(process, {"options": rows(3)})).document["results"]) == 3
        given_up = [task.exception() for task in stalled if task.done()]
        assert given_up
        assert {type(error) for error in given_up} == {BodyTimeout}
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)


async def test_a_client_that_goes_frees_its_place_wherever_its_batch_is(tmp_path: Path) -> None:
    async def half_a_body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(PATIENCE)

    steering = {"arrived": str(tmp_path / "arrived"), "until": str(tmp_path / "until")}
    async with batch_process(options=steering, slots=5) as process:
        body = {"options": rows(2)}
        asked = [asyncio.create_task(ask(process, body)) for _ in range(4)]  # priced, sent ahead, and two that wait
        asked.append(asyncio.create_task(ask(process, half_a_body())))
        await eventually((tmp_path / "arrived").exists)
        await eventually(lambda: process.status.waiting == 4)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert process.status.waiting == 2
        (tmp_path / "until").touch()
        await eventually(lambda: process.status.waiting == 0)
        assert len(await asyncio.gather(*(ask(process, body) for _ in range(5)))) == 5


async def test_the_memory_of_a_large_batch_is_given_back() -> None:
    body = {"options": rows(1) * 30_000}
    async with batch_process(rest_seconds=0.05) as process:
        await ask(process, body)
        await eventually(lambda: process.status.shared_bytes == 0)
        assert len(prices_of((await ask(process, body)).document)) == 30_000


async def test_refusing_megabytes_that_are_no_json_again_and_again_takes_no_memory() -> None:
    body = b"x" * (8 << 20)
    sizes: list[int] = []
    async with batch_process() as process:
        for _ in range(12):
            with pytest.raises(RemoteError, match="is not valid JSON"):
                await ask(process, body)
            sizes.append(process.status.resident_bytes or 0)
    assert max(sizes[4:]) - max(sizes[:4]) <= 12 << 20, sizes


async def test_an_answer_cannot_be_read_after_its_release() -> None:
    async with batch_process() as process:
        answer = await process.run(JobKind.PRICE, json.dumps({"options": rows(2)}).encode())
        answer.release()
        answer.release()
        with pytest.raises(ValueError, match="released"):
            answer.pieces()


# --- beside the event loop --------------------------------------------------------------------------------------------


async def test_quotes_are_answered_all_the_while_a_large_batch_is() -> None:
    body = json.dumps({"options": rows(1) * 65_536}).encode()
    async with batch_process() as process:
        batch = asyncio.create_task(ask(process, body))
        quotes = 0
        while not batch.done():
            exact(options(100.0))
            quotes += 1
            await asyncio.sleep(0)
        assert len(prices_of((await batch).document)) == 65_536
    assert quotes > 100


async def test_the_child_logs_lines_of_json_with_the_server_s_constants_and_the_request_s_id(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with batch_process(options={"raises": "device"}, revision="r7", service="desk") as process:
        await ask(process, {"options": rows(2)}, request_id="abc-1")
    entry = json.loads(capfd.readouterr().out)
    assert (entry["service"], entry["revision"], entry["request_id"]) == ("desk", "r7", "abc-1")
    assert entry["message"] == "evaluation failed: priced without the model"
    assert entry["error"] == "MemoryError('device')"


async def test_the_end_of_a_child_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with batch_process() as process:
        pid = process.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: "batch process ended" in caplog.messages)
    record = next(record for record in caplog.records if record.message == "batch process ended")
    assert (vars(record)["child"], vars(record)["ended"]) == (pid, "was ended by SIGKILL")
