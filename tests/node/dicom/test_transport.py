"""The socket, whoever is at its other end; the provider, whatever length a PDU claims."""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from node.dicom.transport import MOST_OTHER, Lobby, Lost, PatientSocket, TimedOut, hang_up, prepare

Pair = tuple[PatientSocket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    association = SimpleNamespace(dul=SimpleNamespace(event_queue=queue.Queue()))
    with ours, theirs:
        theirs.settimeout(20)
        prepare(ours)
        yield PatientSocket(association, patience=0.2, client_socket=ours), theirs


def test_silence_ends_the_wait(pair: Pair) -> None:
    with pytest.raises(TimedOut):
        pair[0].receive_into(memoryview(bytearray(10)))


def test_a_deadline_holds_however_busy_the_line_is(pair: Pair) -> None:
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


def endlessly(connection: PatientSocket) -> None:
    while True:
        connection.receive_into(memoryview(bytearray(1)))


def test_a_peer_that_takes_nothing_ends_the_sending(pair: Pair) -> None:
    with pytest.raises(TimedOut):
        pair[0].send_parts([bytes(1 << 24)])


def test_a_peer_that_closes_ends_the_reading(pair: Pair) -> None:
    pair[1].close()
    assert pair[0].receive_into(memoryview(bytearray(10))) == 0


def test_another_thread_may_interrupt_the_wait(pair: Pair) -> None:
    connection, _ = pair
    connection.patience = 20
    threading.Timer(0.1, hang_up, [connection.socket]).start()
    assert connection.receive_into(memoryview(bytearray(10))) == 0


def test_many_parts_go_out_in_order(pair: Pair) -> None:
    connection, peer = pair
    connection.patience = 20
    parts = [bytes([number % 251]) * (number % 3000) for number in range(2000)]
    heard = bytearray()

    def listen() -> None:
        while piece := peer.recv(65536):
            heard.extend(piece)

    listening = threading.Thread(target=listen)
    listening.start()
    connection.send_parts(parts)
    connection.close()
    listening.join(20)
    assert bytes(heard) == b"".join(parts)


def test_what_was_read_too_far_is_read_again_first(pair: Pair) -> None:
    connection, peer = pair
    connection.give_back(b"456")
    connection.give_back(b"123")
    assert connection.ready
    peer.sendall(b"789")
    assert connection.recv(4) == b"1234"
    assert connection.recv(5) == b"56789"
    assert not connection.ready


def test_a_pdu_that_ends_early_is_given_as_far_as_it_came(pair: Pair) -> None:
    connection, peer = pair
    peer.sendall(b"123")
    assert connection.recv(6) == b"123"
    assert isinstance(connection.failure, TimedOut)
    peer.close()
    assert connection.recv(6) == b""


def test_what_cannot_be_sent_is_a_closed_connection_to_the_state_machine(pair: Pair) -> None:
    connection, _ = pair
    connection.send(bytes(1 << 24))
    events = connection.event_queue
    assert [events.get_nowait() for _ in range(2)] == ["Evt5", "Evt17"]
    assert isinstance(connection.failure, TimedOut)


def test_a_closed_connection_is_closed_for_good(pair: Pair) -> None:
    connection, peer = pair
    connection.close()
    connection.close()
    assert not connection.ready
    with pytest.raises(Lost):
        connection.send_parts([b"x"])
    with pytest.raises(Lost):
        connection.receive_into(memoryview(bytearray(1)))
    assert peer.recv(1) == b""


def test_descriptors_above_1023_are_served(pair: Pair) -> None:
    connection, peer = pair
    descriptors = [os.dup(peer.fileno())]
    try:
        while descriptors[-1] < 1024:
            descriptors.append(os.dup(peer.fileno()))
        high = socket.socket(fileno=os.dup(connection.socket.fileno()))
        assert high.fileno() > 1023
        connection.socket, low = high, connection.socket
        with high:
            peer.sendall(b"1")
            assert connection.recv(1) == b"1"
            assert not connection.ready
        connection.socket = low
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_full_lobby_sends_the_oldest_away() -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    lobby = Lobby(2)
    try:
        for ours, _ in pairs[:2]:
            lobby.enter(ours)
        lobby.leave(pairs[0][0])
        lobby.enter(pairs[2][0])
        lobby.enter(pairs[3][0])
        assert pairs[1][1].recv(1) == b""
        for _, theirs in (pairs[0], pairs[2], pairs[3]):
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
        lobby.clear()
        assert pairs[2][1].recv(1) == b""
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_the_longest_believable_request_is_longer_than_any_real_one() -> None:
    syntaxes, one = 60, 4 + 64
    assert 128 * (8 + one + syntaxes * one) < MOST_OTHER < struct.unpack(">I", b"\xff" * 4)[0]
