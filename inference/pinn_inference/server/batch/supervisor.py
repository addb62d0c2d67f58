"""The server's side of the batch process: starts it, gives it batches, and does without it while it is away.

Batches wait here and are sent one ahead, so that the child always has something to do and little is lost with it; those
with slow options it sets aside, and they hold up no other. A child that ends, whoever ended it, is started again after
a pause; what it was working on is priced in this process by NumPy, once, in a thread, and so is whatever else arrives
until the next child can price. Nothing is lost but speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from pinn_inference.pricing.types import BoolArray, OptionBatch, Quotes
from pinn_inference.server.batch.answers import PIECE_BYTES, BatchAnswer, BatchError, RemoteError, cut
from pinn_inference.server.batch.arena import Arena
from pinn_inference.server.batch.jobs import (
    Answered,
    ModelLabels,
    Piece,
    Refusal,
    SlowBatches,
    Steps,
    Work,
    perform,
    refused,
)
from pinn_inference.server.batch.protocol import (
    Done,
    Failed,
    Forget,
    FromChild,
    Job,
    JobKind,
    Loaded,
    LoadTensorFlow,
    ProtocolError,
    Refused,
    SetAside,
    Start,
    Started,
    Working,
    connected_pair,
    receive_from_child,
    send,
)
from pinn_inference.server.batch.sealed import seal
from pinn_inference.server.batch.settings import BatchSettings
from pinn_inference.server.batch.slots import Slot, SlotPool
from pinn_inference.server.inflate import Coding
from pinn_inference.server.logs import request_id as request_id_of_logs
from pinn_inference.server.processes import memory_limit

log = logging.getLogger(__name__)

_MEBIBYTE: Final = 1024 * 1024
Body: TypeAlias = bytes | bytearray | memoryview
SENT_AHEAD: Final = 2
STARTING_ATTEMPTS: Final = 3
"""So many children may end before the first that can price; then the server had better take no traffic."""
LOADING_ATTEMPTS: Final = 3
"""So many children may end while they load TensorFlow; the next one is left without."""


class BatchState(StrEnum):
    """What the batch process is doing, as the health pages show it."""

    NOT_STARTED = "not_started"
    STARTING = "starting"
    NUMPY = "numpy"
    LOADING = "loading"
    TENSORFLOW = "tensorflow"
    RESTARTING = "restarting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The batch process at one moment. `tensorflow` is its own description of it; `message` says what is wrong."""

    state: BatchState
    pid: int | None
    restarts: int
    waiting: int
    tensorflow: Mapping[str, Any]
    message: str
    resident_bytes: int | None
    shared_bytes: int


@dataclass(slots=True, eq=False)
class _Job:
    """A batch whose request has arrived."""

    number: int
    kind: JobKind
    slot: Slot
    length: int
    request_id: str
    parameters: Mapping[str, str]
    coding: Coding
    answer: asyncio.Future[BatchAnswer]
    pieces: list[Piece] = field(default_factory=list)
    """Its answer, if it is priced in this process."""


@dataclass(slots=True, eq=False)
class _Child:
    """One life of the batch process."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    started_at: float
    timer: asyncio.TimerHandle
    """Runs out when the child has not started, or not answered, in time."""
    state: BatchState = BatchState.STARTING
    jobs: dict[int, _Job] = field(default_factory=dict)
    """Sent and not answered, oldest first."""
    aside: set[int] = field(default_factory=set)
    """Numbers of those that the child has set aside."""


@dataclass(frozen=True, slots=True)
class _ServersOwnPricer:
    price: Callable[[OptionBatch], Quotes]
    slow_rows: Callable[[OptionBatch], BoolArray]
    name_models: Callable[[], ModelLabels]
    where: str = "server"

    @property
    def labels(self) -> ModelLabels:
        return self.name_models()


class BatchProcess:
    """The batch process and what waits for it. For one event loop, that of the process's main thread.

    `price` prices by NumPy in a thread of this process; `labels` names its models at the moment, and `slow_rows`
    says which options would take milliseconds each, see `jobs.Pricer`. `on_restart` is called with the reason when a
    child has ended that should not have; `on_trouble` with a sentence when no child has ever been able to price, and
    with an empty one when one is.
    """

    def __init__(
        self,
        settings: BatchSettings,
        *,
        price: Callable[[OptionBatch], Quotes],
        labels: Callable[[], ModelLabels] = ModelLabels,
        slow_rows: Callable[[OptionBatch], BoolArray] = lambda options: options.is_american,
        on_restart: Callable[[str], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._own_pricer = _ServersOwnPricer(price, slow_rows, labels)
        self._on_restart = on_restart
        self._on_trouble = on_trouble
        self._has_started = False
        """A child has been able to price."""
        self._arena = Arena.create(settings.layout)
        self._models = -1
        """Descriptor of what the children make their pricers of, -1 before the start."""
        self._slots = SlotPool(
            self._arena,
            max_body_bytes=settings.max_body_bytes,
            memory_limit=settings.memory_limit,
            rest_seconds=settings.rest_seconds,
            patience=settings.arrival_seconds,
        )
        self._numbers = itertools.count(1)
        self._waiting: deque[_Job] = deque()
        self._orphans: deque[_Job] = deque()
        """Sent to a child that has ended."""
        self._child: _Child | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._restarts = 0
        self._early_ends = 0
        self._failed_loads = 0
        self._wants_tensorflow = False
        self._message = ""
        self._tensorflow: Mapping[str, Any] = {"status": "not_loaded"}
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch-rescue")
        self._tasks: set[asyncio.Task[None]] = set()
        self._rescuing = False
        self._slow: SlowBatches[_Job] = SlowBatches()
        """Being priced in this process."""

    # --- for the server ---------------------------------------------------------------------------------------------

    async def start(self, models: bytes = b"") -> None:
        """Start the child; returns before it can price. `models` is what every child makes its pricer of.

        Raises OSError.
        """
        self._models = seal(models)
        self._spawn()

    def load_tensorflow(self) -> None:
        """Let the child, and every later one, import TensorFlow: call it when the server itself is ready."""
        self._wants_tensorflow = True
        if self._child is not None and self._child.state is BatchState.NUMPY:
            self._send_load(self._child)

    async def run(
        self,
        kind: JobKind,
        body: Body | AsyncIterable[Body],
        *,
        parameters: Mapping[str, str] | None = None,
        coding: Coding = Coding.NONE,
        request_id: str | None = None,
    ) -> BatchAnswer:
        """Price the batch whose request `body` is, compressed as `coding` says; it is put into shared memory as it
        arrives.

        Raises BodyTooLarge, Overloaded, RemoteError for what the batch process has to say against the request,
        BatchError, and whatever `body` raises. Cancelling frees the batch's place.
        """
        if self._closing:
            raise BatchError("the batch process is closed")
        slot = await self._slots.take()
        job: _Job | None = None
        try:
            async with self._slots.arrival(slot):
                await self._receive(slot, body)
            if self._closing:  # meanwhile
                raise BatchError("the batch process is closed")
            job = _Job(
                number=next(self._numbers),
                kind=kind,
                slot=slot,
                length=slot.used,
                request_id=request_id_of_logs.get() if request_id is None else request_id,
                parameters=parameters or {},
                coding=coding,
                answer=asyncio.get_running_loop().create_future(),
            )
        finally:
            if job is None:
                self._slots.release(slot)
        self._waiting.append(job)
        self._pump()
        try:
            return await job.answer
        except asyncio.CancelledError:
            if job in self._waiting:
                self._waiting.remove(job)
                self._slots.release(slot)
            elif self._child is not None and job.number in self._child.aside:
                with contextlib.suppress(OSError):  # gone: the reader will see it
                    send(self._child.connection, Forget(job.number))
            elif job.answer.done() and not job.answer.cancelled() and job.answer.exception() is None:
                job.answer.result().release()  # it came in the very moment of the cancellation
            raise

    @property
    def status(self) -> BatchStatus:
        """For health pages."""
        child = self._child
        return BatchStatus(
            state=self._state,
            pid=None if child is None else child.process.pid,
            restarts=self._restarts,
            waiting=len(self._accepted()),
            tensorflow=self._tensorflow,
            message=self._message,
            resident_bytes=None if child is None else _resident_bytes(child.process.pid),
            shared_bytes=self._arena.resident_bytes,
        )

    async def close(self, *, within: float = 20.0) -> None:
        """Answer what was accepted, `within` seconds at most, and end the child. Answers have to be released first."""
        if self._closing:
            return
        self._closing = True
        await self._finish(within)
        if self._restart is not None:
            self._restart.cancel()
        child, self._child = self._child, None
        if child is not None:
            self._disconnect(child)
            await self._reap(child, patience=2.0)
        if self._models >= 0:
            os.close(self._models)
        self._orphans.extend(self._slow.drop(lambda _job: True))
        for job in (*self._waiting, *self._orphans, *(child.jobs.values() if child is not None else ())):
            self._fail(job, BatchError("the batch process was closed before the answer"))
        self._waiting.clear()
        self._orphans.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._slots.close()
        # A thread that still prices keeps the memory that it reads until the process ends.
        with contextlib.suppress(BufferError):
            self._arena.close()

    # --- requests and answers ---------------------------------------------------------------------------------------

    async def _receive(self, slot: Slot, body: Body | AsyncIterable[Body]) -> None:
        if isinstance(body, bytes | bytearray | memoryview):
            view = memoryview(body)
            for start in range(0, len(view), PIECE_BYTES):
                await self._slots.write_request(slot, view[start : start + PIECE_BYTES])
                await asyncio.sleep(0)  # let others have the loop
            return
        async for piece in body:
            await self._slots.write_request(slot, piece)

    def _pump(self) -> None:
        """Give the child what it can take, or this process what the child is not there for."""
        while self._waiting:
            child = self._child
            if child is None:
                self._rescue()
                return
            if child.state is BatchState.STARTING or len(child.jobs) - len(child.aside) >= SENT_AHEAD:
                return
            job = self._waiting.popleft()
            message = Job(
                job.number, job.kind, job.slot.number, job.length, job.request_id, dict(job.parameters), job.coding
            )
            child.jobs[job.number] = job
            try:
                send(child.connection, message)
            except (OSError, ProtocolError) as error:
                self._ended(child, f"cannot be written to: {error!r}")
                return
            if len(child.jobs) == 1:
                self._watch(child)

    def _watch(self, child: _Child) -> None:
        """Allow the child its time for the batch that it works on."""
        child.timer.cancel()
        if child.jobs:
            seconds = self._settings.job_seconds
            child.timer = asyncio.get_running_loop().call_later(
                seconds, self._ended, child, f"has not answered a batch within {seconds:g} s"
            )

    def _answered(self, child: _Child, message: Done | Refused | Failed) -> None:
        job = child.jobs.pop(message.number, None)
        child.aside.discard(message.number)
        if job is None:
            raise ProtocolError(f"an answer to a batch that nobody asked for: {message.number}")
        self._watch(child)
        if isinstance(message, Done):
            self._deliver(job, message)
        elif isinstance(message, Refused):
            self._fail(job, RemoteError(message))
        else:
            self._fail(job, BatchError(f"in the batch process: {message.error}"))
        self._pump()

    def _deliver(self, job: _Job, done: Done) -> None:
        slot = job.slot
        self._slots.add(slot, done.length)
        if job.answer.done():  # cancelled
            self._slots.release(slot)
            return

        def pieces() -> Iterator[bytes]:
            for start in range(0, done.length, PIECE_BYTES):
                yield self._arena.copy_of_answer(slot.number, start, min(start + PIECE_BYTES, done.length))

        job.answer.set_result(
            BatchAnswer(
                length=done.length,
                content_type=done.content_type,
                header_length=done.header_length,
                counts=done.counts,
                pieces=pieces,
                release=lambda: self._slots.release(slot),
            )
        )

    def _fail(self, job: _Job, error: Exception) -> None:
        self._slots.release(job.slot)
        if not job.answer.done():
            job.answer.set_exception(error)

    # --- without the child ------------------------------------------------------------------------------------------

    def _rescue(self) -> None:
        if not self._rescuing:
            self._rescuing = True
            self._spawn_task(self._price_here())

    async def _price_here(self) -> None:
        """One after the other: what a child left behind, and, for as long as there is none, what waits."""
        try:
            while (quick := self._orphans or (self._child is None and self._waiting)) or self._slow:
                for job in self._slow.drop(lambda job: job.answer.done()):
                    self._slots.release(job.slot)
                if quick and not self._slow.is_due:
                    job = quick.popleft()
                    if job.answer.done():
                        self._slots.release(job.slot)
                        continue
                    step = partial(self._slow.begin, job, self._steps_here(job))
                elif self._slow:
                    batch = self._slow.take()
                    job, step = batch.job, partial(self._slow.go_on, batch)
                else:
                    continue
                try:
                    outcome = await asyncio.get_running_loop().run_in_executor(self._thread, step)
                except Exception as error:
                    log.exception("unhandled error", extra={"kind": job.kind, "request_id": job.request_id})
                    self._fail(job, BatchError(repr(error)))
                    continue
                finally:
                    del step
                if outcome is not None:
                    self._settle_here(job, outcome)
        finally:
            self._rescuing = False
        self._pump()

    def _steps_here(self, job: _Job) -> Steps:
        work = Work(
            job.kind,
            self._arena.request(job.slot.number, job.length),
            job.parameters,
            self._settings.max_batch,
            self._settings.max_body_bytes,
            job.coding,
        )
        return perform(work, self._own_pricer, job.pieces.append, self._slow.admit)

    def _settle_here(self, job: _Job, outcome: Answered | Refusal) -> None:
        pieces = job.pieces
        if isinstance(outcome, Refusal):
            self._fail(job, RemoteError(refused(job.number, outcome)))
            return
        self._slots.release(job.slot)
        if job.answer.done():
            return
        job.answer.set_result(
            BatchAnswer(
                length=sum(map(len, pieces)),
                content_type=outcome.content_type,
                header_length=outcome.header_length,
                counts=outcome.counts,
                pieces=lambda: cut(pieces),
                release=pieces.clear,
            )
        )

    # --- the child's life -------------------------------------------------------------------------------------------

    @property
    def _state(self) -> BatchState:
        if self._closing:
            return BatchState.CLOSED
        if self._child is not None:
            return self._child.state
        return BatchState.NOT_STARTED if self._restart is None else BatchState.RESTARTING

    def _spawn(self) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        ours, theirs = connected_pair()
        ours.setblocking(False)
        with theirs:
            command = [sys.executable, "-P", "-m", "pinn_inference.server.batch.child"]
            command += ["--connection", str(theirs.fileno()), "--arena", str(self._arena.descriptor)]
            command += ["--models", str(self._models), "--parent", str(os.getpid())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._arena.descriptor, self._models),
                # Ctrl-C at a terminal is for the server, which ends the child when the last batch is answered.
                start_new_session=True,
                env={"OPENBLAS_NUM_THREADS": str(settings.tf_threads), **os.environ},
            )
        child = _Child(
            process=process,
            connection=ours,
            started_at=loop.time(),
            timer=loop.call_later(settings.start_seconds, self._late, settings.start_seconds),
        )
        self._child = child
        layout = settings.layout
        loop.add_reader(ours, self._readable, child)
        start = Start(
            factory=settings.factory,
            options=dict(settings.options),
            max_batch=settings.max_batch,
            max_body_bytes=settings.max_body_bytes,
            tf_threads=settings.tf_threads,
            slots=layout.slots,
            request_bytes=layout.request_bytes,
            answer_bytes=layout.answer_bytes,
            log_level=settings.log_level,
            revision=settings.revision,
            service=settings.service,
        )
        with contextlib.suppress(OSError):  # gone already: the reader will see it
            send(ours, start)

    def _late(self, seconds: float) -> None:
        if self._child is not None:
            self._ended(self._child, f"has not started within {seconds:g} s")

    def _readable(self, child: _Child) -> None:
        try:
            while child is self._child:
                message = receive_from_child(child.connection)
                if message is None:
                    self._ended(child, "")
                    return
                self._handle(child, message)
        except BlockingIOError:
            return
        except (OSError, ProtocolError) as error:
            self._ended(child, f"cannot be understood: {error}")

    def _handle(self, child: _Child, message: FromChild) -> None:
        if isinstance(message, Started):
            child.timer.cancel()
            child.state = BatchState.NUMPY
            self._has_started = True
            if self._on_trouble is not None:
                self._on_trouble("")
            log.info("batch process started", extra={"child": child.process.pid})
            if self._wants_tensorflow:
                self._send_load(child)
            self._pump()
        elif isinstance(message, Loaded):
            child.state = BatchState.TENSORFLOW if message.ok else BatchState.NUMPY
            self._tensorflow = message.description
            self._message = "" if message.ok else str(message.description.get("message", ""))
            self._failed_loads = 0
        elif isinstance(message, SetAside):
            child.aside.add(message.number)
            self._watch(child)
            self._pump()
        elif isinstance(message, Working):
            self._watch(child)
        else:
            self._answered(child, message)

    def _send_load(self, child: _Child) -> None:
        if self._failed_loads >= LOADING_ATTEMPTS:
            return
        child.state = BatchState.LOADING
        with contextlib.suppress(OSError):  # gone: the reader will see it
            send(child.connection, LoadTensorFlow())

    def _ended(self, child: _Child, complaint: str) -> None:
        """The child has ended, or has to. `complaint` is empty if it ended by itself."""
        if child is not self._child:
            return
        self._child = None
        if child.state is BatchState.LOADING:
            self._failed_loads += 1
        self._tensorflow = {"status": "not_loaded"}
        self._disconnect(child)
        if complaint:
            child.process.kill()
        self._orphans.extend(child.jobs.values())
        child.jobs.clear()
        child.aside.clear()
        loop = asyncio.get_running_loop()
        if loop.time() - child.started_at >= self._settings.steady_seconds:
            self._early_ends = 0
        pause = min(
            self._settings.first_pause_seconds * 2.0**self._early_ends, self._settings.longest_pause_seconds
        ) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        self._early_ends += 1
        self._restarts += 1
        if not self._closing:
            self._restart = loop.call_later(pause, self._start_again)
        self._spawn_task(self._tell_end(child, complaint, pause))
        if self._orphans or self._waiting:
            self._rescue()

    def _start_again(self) -> None:
        self._restart = None
        try:
            self._spawn()
        except OSError as error:  # no process, no memory, no descriptors left
            log.error("the batch process cannot be started", extra={"error": str(error)})  # noqa: TRY400 - no traceback needed
            pause = self._settings.longest_pause_seconds
            self._restart = asyncio.get_running_loop().call_later(pause, self._start_again)

    async def _tell_end(self, child: _Child, complaint: str, pause: float) -> None:
        await self._reap(child, patience=5.0)
        reason = complaint or _how_it_ended(child.process.returncode)
        self._message = f"the last batch process {reason}"
        if self._failed_loads >= LOADING_ATTEMPTS:
            self._message += (
                f"; {self._failed_loads} ended while they loaded TensorFlow, so it is left alone{_perhaps_why(child)}"
            )
        log.error(
            "batch process ended",
            extra={"child": child.process.pid, "ended": reason, "restart_in_seconds": round(pause, 3)},
        )
        if self._on_restart is not None:
            self._on_restart(reason)
        if self._on_trouble is not None and not self._has_started and self._restarts >= STARTING_ATTEMPTS:
            self._on_trouble(
                f"the batch process cannot start, the last of {self._restarts} {reason}{_perhaps_why(child)}"
            )

    def _disconnect(self, child: _Child) -> None:
        child.timer.cancel()
        asyncio.get_running_loop().remove_reader(child.connection)
        child.connection.close()

    async def _reap(self, child: _Child, *, patience: float) -> None:
        """Wait until the process is gone; one that does not go by itself is killed."""
        try:
            await asyncio.to_thread(child.process.wait, patience)
        except subprocess.TimeoutExpired:
            child.process.kill()
            await asyncio.to_thread(child.process.wait)

    async def _finish(self, within: float) -> None:
        """Wait for every accepted batch, answered or failed."""
        if accepted := self._accepted():
            await asyncio.wait([job.answer for job in accepted], timeout=within)

    def _accepted(self) -> list[_Job]:
        """Batches that wait or are being priced, but for the one that is in this process's thread at the moment."""
        sent = () if self._child is None else self._child.jobs.values()
        return [*self._waiting, *self._orphans, *self._slow.jobs, *sent]

    def _spawn_task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _perhaps_why(child: _Child) -> str:
    """What the kernel kills for, where that may be it."""
    limit = memory_limit() if child.process.returncode == -signal.SIGKILL else None
    return "" if limit is None else f": the container's memory limit is {limit / _MEBIBYTE:.0f} MiB"


def _resident_bytes(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None
