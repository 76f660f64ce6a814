"""The reader, whatever way its bytes are cut; the connection, whoever is at its other end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from network.raw import ABORT, RELEASE_RQ, message, p_data, pdv
from node.dicom import streaming
from node.dicom.streaming import Aborted, Connection, Lost, Malformed, Reader, Released, TimedOut, WireError


class Script(Connection):
    """A connection that brings these bytes, so many at a time, and then ends."""

    def __init__(self, data: bytes, steps: list[int]) -> None:
        self.data, self.steps = data, steps

    def recv_into(self, view: memoryview) -> int:
        step = min(self.steps[0] if self.steps else len(self.data), len(view), len(self.data))
        if not step:
            raise Lost("the script has ended")
        self.steps = self.steps[1:] + self.steps[:1]
        view[:step], self.data = self.data[:step], self.data[step:]
        return step


steps = st.lists(st.integers(1, 5000), min_size=1, max_size=5)


@given(st.binary(max_size=300), st.binary(max_size=20_000), st.integers(1, 9000), steps)
@settings(max_examples=150)
def test_a_message_comes_out_as_it_went_in(command: bytes, data: bytes, step: int, cuts: list[int]) -> None:
    stream = message(5, command, data, step=step) + message(7, b"next") + RELEASE_RQ
    reader = Reader(Script(stream, cuts), size=1 << 17)
    assert reader.command() == (5, command)
    poured: list[bytes] = []
    reader.pour(5, lambda pieces: poured.extend(bytes(piece) for piece in pieces))
    assert b"".join(poured) == data
    assert reader.command() == (7, b"next")
    with pytest.raises(Released):
        reader.command()


@given(st.binary(max_size=3000), st.integers(1, 700), steps)
def test_a_data_set_in_memory_is_the_same(data: bytes, step: int, cuts: list[int]) -> None:
    reader = Reader(Script(message(1, b"c", data, step=step), cuts), size=1 << 17)
    reader.command()
    assert reader.data(1, most=3000) == data


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_end_in_a_message_or_a_wire_error(rubbish: bytes) -> None:
    reader = Reader(Script(b"\x04\x00" + rubbish, []), size=1 << 17)
    try:
        context_id, _ = reader.command()
        reader.pour(context_id, lambda pieces: None)
    except WireError:
        return


def test_what_we_cut_reads_back() -> None:
    data = bytes(range(256)) * 40
    for step in (1, 6, 1000, 100_000):
        parts = streaming.p_data(3, b"command", is_command=True, step=step)
        parts += streaming.p_data(3, data, is_command=False, step=step)
        reader = Reader(Script(b"".join(parts), []), size=1 << 17)
        assert reader.command() == (3, b"command")
        assert reader.data(3, most=len(data)) == data


def test_a_data_set_too_long_for_its_service_is_malformed() -> None:
    reader = Reader(Script(message(1, b"c", bytes(1000), step=400), []), size=1 << 17)
    reader.command()
    with pytest.raises(Malformed, match="too long"):
        reader.data(1, most=999)


def test_an_abort_within_an_object_is_told() -> None:
    reader = Reader(Script(message(1, b"c") + p_data(pdv(1, 0, b"1234")) + ABORT, []), size=1 << 17)
    reader.command()
    with pytest.raises(Aborted):
        reader.pour(1, lambda pieces: None)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        theirs.settimeout(20)
        yield Connection(ours, patience=0.2), theirs


def test_silence_ends_the_wait(pair: tuple[Connection, socket.socket]) -> None:
    with pytest.raises(TimedOut):
        pair[0].recv_into(memoryview(bytearray(10)))


def test_a_deadline_holds_however_busy_the_line_is(pair: tuple[Connection, socket.socket]) -> None:
    connection, peer = pair
    connection.patience = 20
    connection.deadline = time.monotonic() + 0.3
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            peer.send(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimedOut):
            endlessly(connection)
    finally:
        stop.set()
        dripping.join()


def endlessly(connection: Connection) -> None:
    while True:
        connection.recv_into(memoryview(bytearray(1)))


def test_a_peer_that_takes_nothing_ends_the_sending(pair: tuple[Connection, socket.socket]) -> None:
    with pytest.raises(TimedOut):
        pair[0].send([bytes(1 << 24)])


def test_a_peer_that_closes_ends_the_reading(pair: tuple[Connection, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises(Lost):
        pair[0].recv_into(memoryview(bytearray(10)))


def test_another_thread_may_interrupt_the_wait(pair: tuple[Connection, socket.socket]) -> None:
    connection, _ = pair
    connection.patience = 20
    threading.Timer(0.1, connection.interrupt).start()
    with pytest.raises(Lost):
        connection.recv_into(memoryview(bytearray(10)))


def test_many_parts_go_out_in_order(pair: tuple[Connection, socket.socket]) -> None:
    connection, peer = pair
    connection.patience = 20
    parts = [bytes([number % 251]) * (number % 3000) for number in range(2000)]
    heard = bytearray()

    def listen() -> None:
        while piece := peer.recv(65536):
            heard.extend(piece)

    listening = threading.Thread(target=listen)
    listening.start()
    connection.send(parts)
    connection.close()
    listening.join(20)
    assert bytes(heard) == b"".join(parts)
