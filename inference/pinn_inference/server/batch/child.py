"""The batch process: `python -m pinn_inference.server.batch.child`, started by `supervisor`.

It parses, prices and renders one batch after the other, with NumPy until it is told to load TensorFlow and has done so.
Batches with slow options are set aside, and go on piece by piece when no other waits.
It runs at a lower priority than the server, so that a batch takes what single quotes leave over, and loading TensorFlow
takes what batches leave over. It ends when the server does, or closes the connection; signals meant for the server's
group leave it alone, because the server decides when the last batch has been answered.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from pinn_inference.server.batch.arena import Arena, ArenaLayout
from pinn_inference.server.batch.jobs import Answered, Piece, Pricer, Refusal, SlowBatches, Work, perform, refused
from pinn_inference.server.batch.memory import give_back_unused_memory
from pinn_inference.server.batch.protocol import (
    Done,
    Failed,
    Forget,
    FromChild,
    Job,
    Loaded,
    LoadTensorFlow,
    Refused,
    SetAside,
    Start,
    Started,
    Working,
    receive_from_server,
    send,
)
from pinn_inference.server.batch.sealed import content_of
from pinn_inference.server.logs import configure_logging, request_id

log = logging.getLogger("pinn_inference.server.batch.child")  # its `__name__` is `__main__`

BATCH_NICENESS: Final = 2
LOADING_NICENESS: Final = 8
"""In steps below the server, and once more below batches."""
_LIFE_SECONDS: Final = 1.0
"""The server hears so often at most that a batch of slow options goes on."""
_OOM_SCORE: Final = "500"  # whoever has to free memory should take the child first: it can be started again
_DEATH_SIGNAL, _NAME = 1, 15  # PR_SET_PDEATHSIG and PR_SET_NAME, linux/prctl.h
EXIT_OK, EXIT_FAILED, EXIT_ORPHANED, EXIT_NO_MEMORY = 0, 1, 3, 4


class LoadablePricer(Pricer, Protocol):
    """A pricer that can change from NumPy to TensorFlow."""

    def load_tensorflow(self, *, threads: int) -> dict[str, Any]:
        """Import TensorFlow and price by it from then on; called once, in a thread, while `price` goes on.

        Returns what the health page shows: version, whether there is a GPU. What it raises leaves NumPy in charge.
        """


PricerFactory = Callable[[dict[str, Any], bytes], LoadablePricer]
"""Makes a pricer from the settings' `options` and the models, without TensorFlow and within a second."""


class _Asked:
    """A job, and how much of its answer has been written."""

    def __init__(self, job: Job, arena: Arena) -> None:
        self.job = job
        self._arena = arena
        self._length = 0

    def write(self, piece: Piece) -> None:
        self._arena.write_answer(self.job.slot, self._length, piece)
        self._length += len(piece)

    def answer(self, outcome: Answered | Refusal) -> Done | Refused:
        if isinstance(outcome, Answered):
            return Done(self.job.number, self._length, outcome.content_type, outcome.header_length, outcome.counts)
        return refused(self.job.number, outcome)


class Child:
    """Answers what comes over the connection until it is closed."""

    def __init__(self, connection: socket.socket, arena: Arena, start: Start, pricer: LoadablePricer) -> None:
        self._connection = connection
        self._arena = arena
        self._start = start
        self._pricer = pricer
        self._slow: SlowBatches[_Asked] = SlowBatches()
        self._shown_at = 0.0

    def run(self) -> None:
        """Returns when the server has closed the connection."""
        with suppress(OSError):  # the server may have gone meanwhile: the next line finds that out
            self._send(Started())
        while True:
            if self._slow and (self._slow.is_due or not self._is_readable()):
                batch = self._slow.take()
                self._advance(batch.job, partial(self._slow.go_on, batch))
                continue
            message = receive_from_server(self._connection)
            if message is None:
                return
            if isinstance(message, Job):
                self._take(message)
            elif isinstance(message, Forget):
                self._forget(message.number)
            elif isinstance(message, LoadTensorFlow):
                # Daemon: nobody waits for an import that cannot be interrupted when the server has gone.
                threading.Thread(target=self._load, name="tensorflow-loader", daemon=True).start()

    def _forget(self, number: int) -> None:
        if self._slow.drop(lambda asked: asked.job.number == number):
            self._send(Failed(number, "its client has gone"))

    def _is_readable(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def _take(self, job: Job) -> None:
        asked = _Asked(job, self._arena)
        body = self._arena.request(job.slot, job.length)
        work = Work(job.kind, body, job.parameters, self._start.max_batch, self._start.max_body_bytes, job.coding)
        steps = perform(work, self._pricer, asked.write, self._slow.admit)
        if not self._advance(asked, partial(self._slow.begin, asked, steps)):
            self._send(SetAside(job.number))

    def _advance(self, asked: _Asked, step: Callable[[], Answered | Refusal | None]) -> bool:
        """Does a step of a job and sends its answer if that was the last; False if it was not."""
        job = asked.job
        token = request_id.set(job.request_id)
        answer: FromChild
        try:
            outcome = step()
            if outcome is None:
                self._show_life()
                return False
            answer = asked.answer(outcome)
        except MemoryError:
            # A process that has once had too little has it again and again; a fresh one starts with what this one kept.
            log.exception("out of memory: the batch process ends", extra={"kind": job.kind, "bytes": job.length})
            sys.stdout.flush()
            os._exit(EXIT_NO_MEMORY)
        except Exception as unforeseen:
            log.exception("unhandled error", extra={"kind": job.kind, "bytes": job.length})
            answer = Failed(job.number, repr(unforeseen)[:1000])
        finally:
            request_id.reset(token)
        self._send(answer)
        return True

    def _show_life(self) -> None:
        now = time.monotonic()
        if now - self._shown_at >= _LIFE_SECONDS:
            self._shown_at = now
            self._send(Working())

    def _load(self) -> None:
        _step_back(LOADING_NICENESS)
        started = time.monotonic()
        try:
            description = self._pricer.load_tensorflow(threads=self._start.tf_threads)
            # What was imported stays for good: the collector need not walk its million objects again and again.
            gc.collect()
            gc.freeze()
            ok = True
        except Exception as error:
            log.exception("TensorFlow not usable: batches are priced with NumPy")
            description, ok = {"status": "unhealthy", "message": f"{type(error).__name__}: {error}"[:1000]}, False
        try:
            give_back_unused_memory()
        except OSError as error:
            log.info("memory of the load is kept", extra={"error": str(error)})
        seconds = round(time.monotonic() - started, 3)
        if ok:
            log.info("TensorFlow loaded", extra={"seconds": seconds, "tensorflow": description})
        try:
            self._send(Loaded(ok, seconds, description))
        except OSError:
            log.debug("the server is gone: nobody waits for TensorFlow any more")

    def _send(self, message: FromChild) -> None:
        send(self._connection, message)


def make_pricer(factory: str, options: dict[str, Any], models: bytes) -> LoadablePricer:
    """The pricer of a factory named `module:function`."""
    module, _, name = factory.partition(":")
    make: PricerFactory = getattr(import_module(module), name)
    return make(options, models)


def main() -> int:
    parser = argparse.ArgumentParser(description="The batch process of the inference server, which starts it.")
    parser.add_argument("--connection", type=int, required=True, help="descriptor of the socket to the server")
    parser.add_argument("--arena", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--models", type=int, required=True, help="descriptor of the models, in sealed memory")
    parser.add_argument("--parent", type=int, required=True, help="process id of the server")
    arguments = parser.parse_args()
    if not _tie_to_parent(arguments.parent):
        return EXIT_ORPHANED
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _step_back(BATCH_NICENESS)
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    except OSError as error:
        log.debug("cannot offer itself to the out-of-memory killer", extra={"error": str(error)})
    with socket.socket(fileno=arguments.connection) as connection:
        start = receive_from_server(connection)
        if not isinstance(start, Start):
            return EXIT_ORPHANED
        configure_logging(level=start.log_level, revision=start.revision, service=start.service)
        arena = Arena(ArenaLayout(start.slots, start.request_bytes, start.answer_bytes), arguments.arena)
        try:
            pricer = make_pricer(start.factory, start.options, content_of(arguments.models))
        except Exception:
            log.exception("the batch process cannot price", extra={"factory": start.factory})
            return EXIT_FAILED
        Child(connection, arena, start, pricer).run()
    sys.stdout.flush()
    # Neither threads inside TensorFlow nor views of the arena are waited for.
    os._exit(EXIT_OK)


def _tie_to_parent(parent: int) -> bool:
    """Have the kernel end this process with its parent, whatever it is doing then; False if the parent is gone."""
    libc = ctypes.CDLL(None)
    libc.prctl(_NAME, b"pinn-batch")  # what `top` shows
    libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
    return os.getppid() == parent


def _step_back(niceness: int) -> None:
    """Lower the priority of the calling thread, and of threads that it starts; Linux has one for each thread."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)


if __name__ == "__main__":
    sys.exit(main())
