"""Processes of the local cluster: known by pid and start time, started detached, ended for certain."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.process import (
    MARKER,
    Identity,
    ProcessTable,
    Record,
    fingerprint,
    identify,
    is_running,
    marked,
    parse_record,
    parse_start_time,
    parse_state,
    render_record,
    terminate,
)

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
)


def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"waited ten seconds in vain: {what}")


@pytest.fixture
def table(tmp_path: Path) -> ProcessTable:
    return ProcessTable(records=tmp_path / "run", logs=tmp_path / "log", state=tmp_path)


def start(table: ProcessTable, directory: Path, name: str = "one", argv: tuple[str, ...] = SLEEP) -> Record:
    table.start(name, argv, env={}, fingerprint="f", directory=directory)
    record = table.find(name)
    assert record is not None, "the record is written before the program runs"
    return record


def test_the_start_time_is_read_past_a_command_that_holds_spaces_and_brackets() -> None:
    fields = [str(number) for number in range(3, 53)]
    fields[0] = "S"
    assert parse_start_time(f"7 (a) b) ({' '.join(fields)}".replace("(a) b) (", "(a b) c) ")) == 22


def test_the_state_is_the_field_after_the_command() -> None:
    assert parse_state("7 (Z) S) R 1 2") == "R"


def test_this_process_is_running_and_one_of_another_start_time_or_boot_is_not() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert is_running(me)
    assert not is_running(replace(me, start=me.start + 1)), "a recycled pid has another start time"
    assert not is_running(replace(me, boot="another")), "ticks since boot begin anew with each boot"


def test_a_zombie_counts_as_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: identify(child.pid) is None, "a child that has exited but was not waited for")
    child.wait()


FIRST_THREAD_ENDS = """
import ctypes, socket, threading, time
held = socket.create_server(("127.0.0.1", 0))
print(held.getsockname()[1], flush=True)
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_runs_until_its_last_thread_has_ended_for_it_keeps_its_ports_so_long() -> None:
    child = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        until(lambda: parse_state(Path(f"/proc/{child.pid}/stat").read_text()) == "Z", "the end of its first thread")
        identity = identify(child.pid)
        assert identity is not None
        terminate([identity], grace=5.0)
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_record_survives_writing_and_reading() -> None:
    record = Record(name="etcd", identity=Identity(pid=1, start=2, boot="b"), fingerprint="f")
    assert parse_record(render_record(record)) == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', '{"name": "x", "pid": "p", "start": 1, "boot": ""}'])
def test_half_a_record_is_an_error_and_not_a_process(text: str) -> None:
    with pytest.raises(ClusterError, match="not a process record"):
        parse_record(text)


def test_a_fingerprint_changes_with_command_environment_and_files(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("a")
    before = fingerprint(["x"], {}, [file])
    assert fingerprint(["x"], {}, [file]) == before
    assert fingerprint(["y"], {}, [file]) != before
    assert fingerprint(["x"], {"A": "b"}, [file]) != before
    file.write_text("b")
    assert fingerprint(["x"], {}, [file]) != before


def test_a_started_process_is_no_child_of_its_starter_and_leads_to_its_state_folder(
    table: ProcessTable, tmp_path: Path
) -> None:
    record = start(table, tmp_path)
    try:
        status = Path(f"/proc/{record.identity.pid}/status").read_text()
        assert f"PPid:\t{os.getpid()}\n" not in status
        until(lambda: record.identity in list(marked(tmp_path)), "the marker in the environment after exec")
        environment = Path(f"/proc/{record.identity.pid}/environ").read_bytes()
        assert f"{MARKER}={tmp_path}".encode() in environment.split(b"\0")
    finally:
        terminate([record.identity], grace=1.0)


def test_what_a_process_writes_is_in_its_log(table: ProcessTable, tmp_path: Path) -> None:
    record = start(table, tmp_path, argv=(sys.executable, "-c", "print('hello')"))
    until(lambda: not is_running(record.identity), "the end of a short program")
    assert table.log("one").read_text() == "hello\n"


def test_a_program_that_is_not_there_is_said_at_once(table: ProcessTable, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="one did not start"):
        table.start("one", ["/nonexistent"], env={}, fingerprint="f", directory=tmp_path)
    assert table.find("one") is None


def test_stop_ends_the_process_and_forgets_it(table: ProcessTable, tmp_path: Path) -> None:
    record = start(table, tmp_path)
    assert table.stop("one")
    assert not is_running(record.identity)
    assert table.names() == []
    assert not table.stop("one"), "the second time there is nothing to stop"


def test_stop_kills_what_ignores_sigterm(table: ProcessTable, tmp_path: Path) -> None:
    record = start(table, tmp_path, argv=STUBBORN)
    until(lambda: table.log("one").read_text() == "deaf\n", "the program to ignore SIGTERM")
    assert table.stop("one", grace=0.2)
    assert not is_running(record.identity)


def test_stop_never_touches_a_process_that_got_the_recorded_pid_later(table: ProcessTable, tmp_path: Path) -> None:
    bystander = subprocess.Popen(SLEEP)
    try:
        identity = identify(bystander.pid)
        assert identity is not None
        recycled = Record(name="one", identity=replace(identity, start=identity.start - 1), fingerprint="f")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "one.json").write_text(render_record(recycled))
        assert not table.stop("one")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_signal_reaches_a_recorded_process(table: ProcessTable, tmp_path: Path) -> None:
    record = start(table, tmp_path)
    table.signal("one", signal.SIGKILL)
    until(lambda: not is_running(record.identity), "the end of a killed process")
    with pytest.raises(ClusterError, match="one is not running"):
        table.signal("one", signal.SIGKILL)


def test_a_process_without_a_record_is_found_as_a_stray(table: ProcessTable, tmp_path: Path) -> None:
    record = start(table, tmp_path)
    (tmp_path / "run" / "one.json").unlink()
    until(lambda: table.strays() == [record.identity], "the stray with our marker")
    terminate(table.strays(), grace=1.0)
    assert table.strays() == []
