"""What the server and the batch process say to each other.

A pair of connected sockets of type SEQPACKET carries one message a packet, so nothing has to be framed; bodies do not
travel this way, they lie in the arena. A process that is gone is an end of file for the other. The first message is the
`Start` of the server, the second the `Started` of the child.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from pinn_inference.server.inflate import Coding

MAX_MESSAGE_BYTES: Final = 160 * 1024
"""Below what Linux lets a packet have by default (208 KB with its overhead)."""


class JobKind(StrEnum):
    """What the body of a job is written in, and its answer."""

    PRICE = "price"
    """The JSON of `POST /v1/price`."""
    INFER = "infer"
    """The Open Inference Protocol's JSON and binary tensors."""
    IMPLIED = "implied"
    """The JSON of `POST /v1/implied-volatility`."""
    SCENARIOS = "scenarios"
    """The JSON of `POST /v1/scenarios`."""


class Counts(msgspec.Struct, frozen=True):
    """What a batch adds to the metrics. Seconds are those of its own parts, without waiting."""

    where: str = ""
    """Which engine priced: `tensorflow`, `numpy`, or `server` for NumPy in the server's process."""
    options: int = 0
    methods: list[int] = []
    """Options by `Method` code."""
    reasons: list[int] = []
    """Options by `FallbackReason` code; the first counts those without."""
    moments: list[list[float]] = []
    """As `moments.price_moments`."""
    failed_evaluations: dict[str, int] = {}
    """By type of the exception; the options were then priced in closed form."""
    parse_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    render_seconds: float = 0.0


class Start(msgspec.Struct, frozen=True, tag=True):
    """Settings, from the server, once; see `BatchSettings`."""

    factory: str
    options: dict[str, Any]
    max_batch: int
    max_body_bytes: int
    tf_threads: int
    slots: int
    request_bytes: int
    answer_bytes: int
    log_level: str
    revision: str
    service: str


class Job(msgspec.Struct, frozen=True, tag=True):
    """Price the request in this slot."""

    number: int
    kind: JobKind
    slot: int
    length: int
    request_id: str
    parameters: dict[str, str]
    coding: Coding


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for the answer of this job any more; it is still answered, with anything."""

    number: int


class LoadTensorFlow(msgspec.Struct, frozen=True, tag=True):
    """Import and warm TensorFlow, and price by it from then on."""


class Started(msgspec.Struct, frozen=True, tag=True):
    """The child can price, with NumPy."""


class SetAside(msgspec.Struct, frozen=True, tag=True):
    """A job has slow options: others are taken before it and between its pieces."""

    number: int


class Working(msgspec.Struct, frozen=True, tag=True):
    """A piece of a job that was set aside has been priced."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The answer of a job lies in its slot."""

    number: int
    length: int
    content_type: str
    header_length: int | None
    counts: Counts


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A job that has an error for an answer; the fields are those of `ServerError`."""

    number: int
    status: int
    reason: str
    message: str
    details: dict[str, Any]
    headers: dict[str, str]
    counts: Counts


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A job that ended with an exception which nobody had foreseen; it is in the log under the request's id."""

    number: int
    error: str


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """How loading TensorFlow ended; `description` is what the health page shows of it."""

    ok: bool
    seconds: float
    description: dict[str, Any]


FromServer: TypeAlias = Start | Job | Forget | LoadTensorFlow
FromChild: TypeAlias = Started | SetAside | Working | Done | Refused | Failed | Loaded

_encode = msgspec.msgpack.Encoder().encode
_decode_from_server: Final = msgspec.msgpack.Decoder(FromServer).decode
_decode_from_child: Final = msgspec.msgpack.Decoder(FromChild).decode


class ProtocolError(Exception):
    """A message that this side does not understand."""


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one connection; neither is inherited by programs unless they are given it."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(connection: socket.socket, message: FromServer | FromChild) -> None:
    """Send a message; raises OSError if the other side is gone, BlockingIOError if it does not read."""
    packet = _encode(message)
    if len(packet) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"{type(message).__name__} has {len(packet)} bytes, more than {MAX_MESSAGE_BYTES}")
    connection.send(packet)


def receive_from_server(connection: socket.socket) -> FromServer | None:
    """The next message, None if the server is gone; raises ProtocolError."""
    packet = _receive(connection)
    return None if packet is None else _decoded(_decode_from_server, packet)


def receive_from_child(connection: socket.socket) -> FromChild | None:
    """The next message, None if the child is gone; raises ProtocolError, and BlockingIOError if there is none yet."""
    packet = _receive(connection)
    return None if packet is None else _decoded(_decode_from_child, packet)


def _receive(connection: socket.socket) -> bytes | None:
    try:
        return connection.recv(MAX_MESSAGE_BYTES) or None
    except (ConnectionResetError, BrokenPipeError):
        return None


def _decoded(decode: Any, packet: bytes) -> Any:
    try:
        return decode(packet)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"{len(packet)} bytes are no message: {error}") from error
