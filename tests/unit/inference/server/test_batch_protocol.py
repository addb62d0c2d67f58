"""Messages between the server and the batch process."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from pinn_inference.server.batch.protocol import (
    MAX_MESSAGE_BYTES,
    Counts,
    Done,
    Failed,
    FromChild,
    FromServer,
    Job,
    JobKind,
    Loaded,
    LoadTensorFlow,
    ProtocolError,
    Refused,
    Start,
    Started,
    connected_pair,
    receive_from_child,
    receive_from_server,
    send,
)
from pinn_inference.server.inflate import Coding

Pair = tuple[socket.socket, socket.socket]
COUNTS = Counts(where="numpy", options=2, methods=[2, 0, 0], moments=[[2.0, 0.5, 0.25]], evaluation_seconds=1e-3)


@pytest.fixture
def pair() -> Iterator[Pair]:
    server, child = connected_pair()
    with server, child:
        yield server, child


@pytest.mark.parametrize(
    "message",
    [
        Start("module:function", {"model_dir": None}, 65_536, 1 << 25, 1, 4, 4096, 8192, "info", "r1", "desk"),
        Job(7, JobKind.INFER, 3, 1234, "request-1", {"model": "european"}, Coding.GZIP),
        LoadTensorFlow(),
    ],
)
def test_a_message_of_the_server_arrives_as_it_was_sent(pair: Pair, message: FromServer) -> None:
    send(pair[0], message)
    assert receive_from_server(pair[1]) == message


@pytest.mark.parametrize(
    "message",
    [
        Started(),
        Done(7, 99, "application/json", None, COUNTS),
        Refused(7, 400, "InvalidRequest", "spot is -1", {"faults": [{"value": -1}]}, {"Retry-After": "1"}, COUNTS),
        Failed(7, "KeyError('x')"),
        Loaded(True, 4.5, {"status": "healthy", "devices": ["/CPU:0"]}),
    ],
)
def test_a_message_of_the_child_arrives_as_it_was_sent(pair: Pair, message: FromChild) -> None:
    send(pair[1], message)
    assert receive_from_child(pair[0]) == message


def test_messages_keep_their_bounds_and_their_order(pair: Pair) -> None:
    for number in range(3):
        send(pair[1], Failed(number, "x" * number))
    received = [receive_from_child(pair[0]) for _ in range(3)]
    assert received == [Failed(number, "x" * number) for number in range(3)]


def test_the_largest_message_passes_and_a_larger_one_is_refused_before_it_is_sent(pair: Pair) -> None:
    room = MAX_MESSAGE_BYTES - len(msgspec.msgpack.encode(Failed(1, "x" * 70_000))) + 70_000
    send(pair[1], Failed(1, "x" * room))
    assert receive_from_child(pair[0]) == Failed(1, "x" * room)
    with pytest.raises(ProtocolError, match="Failed has"):
        send(pair[1], Failed(1, "x" * (room + 1)))


def test_a_side_that_is_gone_is_none_for_the_other(pair: Pair) -> None:
    pair[1].close()
    assert receive_from_child(pair[0]) is None
    with pytest.raises(OSError):
        send(pair[0], LoadTensorFlow())


def test_nothing_to_read_does_not_block_a_server_that_must_not_wait(pair: Pair) -> None:
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive_from_child(pair[0])


@pytest.mark.parametrize("packet", [b"\xc1", b"\x80", msgspec.msgpack.encode(LoadTensorFlow())])
def test_what_is_no_message_of_the_other_side_is_refused(pair: Pair, packet: bytes) -> None:
    pair[1].send(packet)
    with pytest.raises(ProtocolError):
        receive_from_child(pair[0])
