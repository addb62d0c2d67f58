"""HTTP/1.1 to pods, as little of it as a read of metrics needs.

With two hundred pods read every second, aiohttp's client makes the whole of reading take more than twice the processor
time (`benchmarks/pod_reads.py`). A pod is asked one question at a time on a connection that is kept. Whatever it
answers, the memory for it is bounded, and it has no more than its time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final

HEAD_LIMIT: Final = 16 * 1024
METRICS: Final = "text/plain;version=0.0.4"
"""What is asked for where nothing else is said."""
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_CHUNK_LINE_LIMIT: Final = 256
_HEAD_END: Final = b"\r\n\r\n"


class PodSilent(Exception):
    """The pod gave no answer that can be used; the message says why."""


class _Lost(Exception):
    """The connection ended before the first byte of an answer."""


Answer = asyncio.Future["Page"]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. `kind` is its Content-Type without parameters, in lower case."""

    status: int
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """A GET. `done` is called with the answer, or with what is said of a pod that gives none."""

    address: str
    path: str
    done: Callable[[Page | PodSilent], None]


class PodClient:
    """Asks pods. `timeout` is in seconds, for connecting and answering together; `size` in bytes, of an answer's body;
    `at_once` bounds the questions under way."""

    def __init__(self, *, timeout: float = 0.5, size: int = 256 * 1024, at_once: int = 64) -> None:
        self._timeout = timeout
        self._size = size
        self._turns = asyncio.Semaphore(at_once)
        self._idle: dict[str, _Connection] = {}

    async def get(self, address: str, path: str, *, accept: str = METRICS) -> Page:
        """The answer to a GET. `address` is `host:port`, the host an IP address. Raises PodSilent."""
        return await self._ask(address, _get(address, path, accept), self._timeout)

    async def get_all(self, questions: Iterable[Question]) -> None:
        """Ask many pods at once, and return when each has answered or has had its time.

        A pod to which a connection is kept is asked without a task of its own, and all of them have one clock: a task
        and a clock for each take more processor time.
        """
        answers, others, lost = list[asyncio.Future[Page]](), list[Question](), list[Question]()
        for question in questions:
            kept = self._idle.get(question.address)
            if kept is None or not kept.usable or self._turns.locked():
                others.append(question)
                continue
            await self._turns.acquire()  # without waiting
            del self._idle[question.address]
            answer = kept.begin(_get(question.address, question.path))
            answer.add_done_callback(partial(self._done, question, kept, lost))
            answers.append(answer)
        slow = asyncio.gather(*map(self._get_one, others))
        try:
            if answers:
                _, late = await asyncio.wait(answers, timeout=self._timeout)
                for answer in late:
                    answer.set_exception(_late(self._timeout))
                await asyncio.sleep(0)  # until those who asked have been told
            await slow
            await asyncio.gather(*map(self._get_one, lost))
        finally:
            slow.cancel()
            for answer in answers:
                answer.cancel()

    def _done(self, question: Question, connection: _Connection, lost: list[Question], answer: Answer) -> None:
        """What becomes of a question that was asked on a connection that was kept."""
        self._turns.release()
        if answer.cancelled():
            connection.close()  # nobody waits any more
            return
        error = answer.exception()
        if error is None:
            self._keep(connection, question.address)
            question.done(answer.result())
            return
        connection.close()
        if isinstance(error, PodSilent):
            question.done(error)
        else:
            lost.append(question)  # it was closed while it was idle

    async def _get_one(self, question: Question) -> None:
        answer: Page | PodSilent
        try:
            answer = await self.get(question.address, question.path)
        except PodSilent as error:
            answer = error
        question.done(answer)

    async def post(
        self, address: str, path: str, body: bytes = b"", *, kind: str = "application/json",
        seconds: float | None = None, token: str = ""
    ) -> Page:  # fmt: skip
        """The answer to a POST that may be repeated, within `seconds`. Raises PodSilent."""
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nUser-Agent: pinn-operator\r\n"
            f"{authorization}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return await self._ask(address, head.encode("latin-1") + body, seconds or self._timeout)

    def forget(self, address: str) -> None:
        """Close the connection to a pod that is not asked any more."""
        connection = self._idle.pop(address, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for address in list(self._idle):
            self.forget(address)

    async def _ask(self, address: str, request: bytes, seconds: float) -> Page:
        try:
            # The pod's time does not begin before its turn.
            async with self._turns:
                async with asyncio.timeout(seconds):
                    return await self._ask_now(address, request)
        except TimeoutError:
            raise _late(seconds) from None
        except _Lost:
            raise PodSilent("the connection was closed without an answer") from None
        except ConnectionRefusedError:
            raise PodSilent(f"nothing listens at {address}") from None
        except OSError as error:
            raise PodSilent(error.strerror or str(error) or type(error).__name__) from error

    async def _ask_now(self, address: str, request: bytes) -> Page:
        kept = self._idle.pop(address, None)
        if kept is not None and kept.usable:
            with suppress(_Lost):  # it was closed while it was idle
                return await self._on(kept, address, request)
        host, port = _parts(address)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._size), host, port)
        return await self._on(connection, address, request)

    async def _on(self, connection: _Connection, address: str, request: bytes) -> Page:
        try:
            page = await connection.begin(request)
        except BaseException:
            connection.close()
            raise
        self._keep(connection, address)
        return page

    def _keep(self, connection: _Connection, address: str) -> None:
        if connection.usable and address not in self._idle:
            self._idle[address] = connection
        else:
            connection.close()


def _get(address: str, path: str, accept: str = METRICS) -> bytes:
    return (f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nUser-Agent: pinn-operator\r\n\r\n").encode(
        "latin-1"
    )


def _late(seconds: float) -> PodSilent:
    return PodSilent(f"no answer within {seconds:g} s")


def _parts(address: str) -> tuple[str, int]:
    """Raises PodSilent unless it is an IP address and a port: no name of a pod's choice is ever looked up."""
    host, _, port = address.rpartition(":")
    try:
        return str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        raise PodSilent(f"{address!r} is no address") from None


class _Connection(asyncio.Protocol):
    """One connection: a question, its answer, and again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._status = 0
        self._kind = ""
        self._length: int | None = None
        self._chunks: bytearray | None = None
        self._keep = False

    @property
    def usable(self) -> bool:
        free = self._answer is None or self._answer.done()
        return free and self._transport is not None and not self._transport.is_closing()

    def begin(self, request: bytes) -> Answer:
        """What will be the answer. It raises _Lost or PodSilent."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            answer.set_exception(_Lost())
        else:
            self._reset()
            self._transport.write(request)
        return answer

    def close(self) -> None:
        if self._transport is not None:
            # Not close(): what a pod does not take must not be kept for it.
            self._transport.abort()

    # --- what the event loop calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody has asked for this
            return
        self._buffer += data
        try:
            page = self._parsed()
        except PodSilent as error:
            self._answer.set_exception(error)
            self.close()
            return
        if page is not None:
            if not self._keep:
                self.close()
            self._answer.set_result(page)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        answer = self._answer
        if answer is None or answer.done():
            return
        if not self._status:
            answer.set_exception(_Lost() if not self._buffer else PodSilent("the answer ends in its head"))
        elif self._length is None and self._chunks is None and error is None:
            answer.set_result(Page(self._status, self._kind, bytes(self._buffer)))
        else:
            answer.set_exception(PodSilent("the answer ends before its end"))

    # --- parsing ------------------------------------------------------------------------------------------------------

    def _parsed(self) -> Page | None:
        """The answer once it is there as a whole."""
        while not self._status:
            end = self._buffer.find(_HEAD_END)
            if end < 0 or end > HEAD_LIMIT:
                if len(self._buffer) > HEAD_LIMIT:
                    raise PodSilent(f"the head of the answer is larger than {HEAD_LIMIT >> 10} KiB")
                return None
            head = bytes(self._buffer[:end])
            del self._buffer[: end + len(_HEAD_END)]
            self._take_head(head)
        if self._chunks is not None:
            return self._take_chunks(self._chunks)
        if len(self._buffer) > self._size:
            raise self._too_large()
        if self._length is None or len(self._buffer) < self._length:
            return None
        if len(self._buffer) > self._length:
            self._keep = False
        return Page(self._status, self._kind, bytes(self._buffer[: self._length]))

    def _take_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        if status_line is None:
            raise PodSilent("the answer is not HTTP/1.1")
        status = int(status_line[2])
        if 100 <= status < 200:
            if status == 101:
                raise PodSilent("HTTP 101 was not asked for")
            return  # another head follows
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise PodSilent("the answer is compressed, though that was not asked for")
        self._kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")[:64]
        self._keep = status_line[1] == b"1" and b"close" not in headers.get(b"connection", b"").lower()
        if b"transfer-encoding" in headers:
            if headers[b"transfer-encoding"].lower() != b"chunked":
                raise PodSilent("the answer's Transfer-Encoding is not chunked")
            self._chunks = bytearray()
        elif status in (204, 304):
            self._length = 0
        elif b"content-length" in headers:
            text = headers[b"content-length"]
            if not text.isdigit() or len(text) > 12:
                raise PodSilent("the answer's Content-Length is no number")
            self._length = int(text)
            if self._length > self._size:
                raise self._too_large()
        else:
            self._keep = False
        self._status = status

    def _take_chunks(self, body: bytearray) -> Page | None:
        buffer, place = self._buffer, 0
        try:
            while True:
                end = buffer.find(b"\r\n", place)
                if end < 0:
                    if len(buffer) - place > _CHUNK_LINE_LIMIT:
                        raise PodSilent("the answer's chunks cannot be read")
                    return None
                line = _CHUNK_SIZE.fullmatch(bytes(buffer[place:end]))
                if line is None:
                    raise PodSilent("the answer's chunks cannot be read")
                size = int(line[1], 16)
                if len(body) + size > self._size:
                    raise self._too_large()
                if size == 0:
                    return self._after_chunks(body, end)
                if len(buffer) < end + 2 + size + 2:
                    return None
                body += buffer[end + 2 : end + 2 + size]
                place = end + 2 + size + 2
        finally:
            del buffer[:place]

    def _after_chunks(self, body: bytearray, end: int) -> Page | None:
        """The page, once the trailer is there: usually an empty line."""
        if self._buffer[end + 2 : end + 4] == b"\r\n":
            if len(self._buffer) > end + 4:
                self._keep = False
        elif self._buffer.find(_HEAD_END, end) < 0:
            if len(self._buffer) - end > HEAD_LIMIT:
                raise PodSilent("the answer's trailer is too large")
            return None
        else:
            self._keep = False
        return Page(self._status, self._kind, bytes(body))

    def _too_large(self) -> PodSilent:
        return PodSilent(f"the answer is larger than {self._size >> 10} KiB")
