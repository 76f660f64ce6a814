"""pynetdicom's socket and upper layer provider, with an end to every wait.

pynetdicom blocks without limit where a peer stops in mid-PDU or takes nothing, and believes any PDU length. Here each
wait is bounded by `patience` and `deadline`, and a length that cannot be is an invalid PDU. What is said, and when, is
decided by pynetdicom's state machine.

Internals of pynetdicom 3.0.4 that this rests on (the version is pinned, tests hold them):
  AssociationSocket   ._is_connected, ._shutdown_socket; that its users call recv, send, ready and close
  DULServiceProvider  .run, ._read_pdu_data, ._process_recv_primitive, .event_queue, .to_provider_queue,
                      .to_user_queue; DIMSEServiceProvider.msg_queue
"""

from __future__ import annotations

import logging
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

from pynetdicom import _config
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

from node.dicom.fragments import P_DATA

LOGGER = logging.getLogger(__name__)

# pynetdicom's own log lines would show query keys and matches, which name patients
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False

MOST_P_DATA = 1 << 24
"""Longest P-DATA-TF that pynetdicom may read whole, in bytes; an object that is streamed has its own limit."""
MOST_OTHER = 1 << 20
"""Longest PDU of another kind (an A-ASSOCIATE-RQ with 128 contexts and every transfer syntax has some 200 kB)."""

_SHORT = frozenset({b"\x03", b"\x05", b"\x06", b"\x07"})
"""A-ASSOCIATE-RJ, A-RELEASE-RQ and -RP, A-ABORT: always four bytes."""
_PARTS_AT_ONCE = 512
_PIECE = 1 << 16


class Lost(ConnectionError):
    """The connection is gone."""


class TimedOut(TimeoutError):
    """The peer kept silent for too long, or took nothing from us."""


def wait_for(sock: socket.socket, event: int, seconds: float) -> None:
    """Until the socket can be read or written. Raises Lost, TimedOut."""
    poll = select.poll()  # not select: descriptors above 1023 are nothing special
    try:
        poll.register(sock, event)
    except ValueError as exc:
        raise Lost("connection closed by another thread") from exc
    if seconds <= 0 or not poll.poll(math.ceil(seconds * 1000)):
        raise TimedOut("the peer kept silent for too long")


def prepare(sock: socket.socket) -> None:
    """For use by a PatientSocket. Raises OSError where the connection is gone again."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def hang_up(sock: socket.socket) -> None:
    """From another thread: let whoever waits on this socket come to an end."""
    try:
        # not SSLSocket.shutdown, which would forget the session that the other thread is using
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError as exc:
        LOGGER.debug("already closed: %s", exc)


def handshake(sock: ssl.SSLSocket, seconds: float) -> None:
    """TLS handshake on a prepared socket that was wrapped without one. Raises OSError, TimedOut."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            wait_for(sock, select.POLLIN, deadline - time.monotonic())
        except ssl.SSLWantWriteError:
            wait_for(sock, select.POLLOUT, deadline - time.monotonic())


class PatientSocket(AssociationSocket):
    """An AssociationSocket on which nobody waits for ever, and which takes back what was read too far.

    patience  longest silence to wait through, in seconds
    deadline  on the monotonic clock: nothing is waited for after it, however busy the peer keeps the line
    failure   what ended the connection, where it was not the peer closing it
    """

    def __init__(self, assoc: Any, *, patience: float, **given: Any) -> None:
        self.patience = patience
        self.deadline = math.inf
        self.failure: OSError | None = None
        self._ahead = b""
        super().__init__(assoc, **given)

    @property
    def has_ahead(self) -> bool:
        return bool(self._ahead)

    def give_back(self, data: bytes) -> None:
        """To be read again, before all that the line brings."""
        self._ahead = data + self._ahead

    def receive_into(self, view: memoryview) -> int:
        """How many bytes came; 0 where the peer has closed. Raises Lost, TimedOut."""
        while True:
            sock = self._open()
            try:
                return int(sock.recv_into(view))
            except (BlockingIOError, ssl.SSLWantReadError):
                self._acknowledge(sock)
                self._wait(sock, select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(sock, select.POLLOUT)
            except OSError as exc:
                raise Lost(f"connection lost: {exc}") from exc

    def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Every byte of every part. Raises Lost, TimedOut."""
        queue = [memoryview(part) for part in parts if len(part)]
        first = 0
        while first < len(queue):
            sock = self._open()
            try:
                if isinstance(sock, ssl.SSLSocket):
                    sent = sock.send(queue[first])
                else:
                    sent = sock.sendmsg(queue[first : first + _PARTS_AT_ONCE])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(sock, select.POLLOUT)
                continue
            except ssl.SSLWantReadError:
                self._wait(sock, select.POLLIN)
                continue
            except OSError as exc:
                raise Lost(f"connection lost: {exc}") from exc
            while first < len(queue) and sent >= len(queue[first]):
                sent -= len(queue[first])
                first += 1
            if sent:
                queue[first] = queue[first][sent:]

    # what pynetdicom calls

    @property
    def ready(self) -> bool:
        """Whether something can be read."""
        if self._ahead:
            return True
        sock = self.socket
        if sock is None or sock.fileno() < 0 or not self._is_connected:
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def recv(self, nr_bytes: int) -> bytearray:
        """So many bytes; fewer where the connection ends or a whole PDU is not there within patience."""
        data = bytearray(self._ahead[:nr_bytes])
        self._ahead = self._ahead[nr_bytes:]
        scrap = memoryview(bytearray(min(_PIECE, nr_bytes)))
        until, self.deadline = self.deadline, min(self.deadline, time.monotonic() + self.patience)
        try:
            while len(data) < nr_bytes:
                count = self.receive_into(scrap[: nr_bytes - len(data)])
                if not count:
                    break
                data += scrap[:count]
        except OSError as exc:
            self.failure = exc
        finally:
            self.deadline = until
        return data

    def send(self, bytestream: bytes) -> None:
        """Evt17 (connection closed) where that is not possible."""
        try:
            self.send_parts([bytestream])
        except OSError as exc:
            self.failure = exc
            self.event_queue.put("Evt17")

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            hang_up(self.socket)
            self.socket.close()

    def _open(self) -> socket.socket:
        sock: socket.socket | None = self.socket
        if sock is None:
            raise Lost("connection closed")
        return sock

    def _wait(self, sock: socket.socket, event: int) -> None:
        wait_for(sock, event, min(self.patience, self.deadline - time.monotonic()))

    @staticmethod
    def _acknowledge(sock: socket.socket) -> None:
        """Send a delayed acknowledgement now.

        Peers that leave Nagle's algorithm on hold back the last, short piece of a message until the rest of it is
        acknowledged: up to 40 ms for every object against a delayed acknowledgement.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Lobby:
    """Connections without an association, yet or any more. Where there are too many, the oldest has to go."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[socket.socket, None] = {}
        self._lock = threading.Lock()

    def enter(self, sock: socket.socket | None) -> None:
        """None is a connection that has gone already."""
        if sock is None:
            return
        with self._lock:
            self._waiting[sock] = None
            oldest = next(iter(self._waiting)) if len(self._waiting) > self._most else None
            if oldest is not None:
                del self._waiting[oldest]
        if oldest is not None:
            hang_up(oldest)

    def leave(self, sock: socket.socket | None) -> None:
        if sock is not None:
            with self._lock:
                self._waiting.pop(sock, None)

    def clear(self) -> None:
        """Hang up on everybody in it."""
        with self._lock:
            waiting = list(self._waiting)
        for sock in waiting:
            hang_up(sock)


class PatientDUL(DULServiceProvider):
    """Upper layer provider that believes no absurd length, and whose end nobody has to wait out a timeout for."""

    def __init__(self, assoc: Any) -> None:
        super().__init__(assoc)
        self.daemon = True

    def run(self) -> None:
        """Entry point of the thread."""
        try:
            super().run()
        except Exception:
            # an event that its table does not know, or a PDU that decodes into nonsense
            LOGGER.exception("association ended by something unforeseen")
        finally:
            self.socket.close()  # told to stop, the thread does so in any state
            self.to_user_queue.put(None)
            self.assoc.dimse.msg_queue.put((None, None))

    def _process_recv_primitive(self) -> bool:
        if self.state_machine.current_state == "Sta13":
            # the association has ended while its thread was still about to say something, for which there is no event
            self.to_provider_queue.queue.clear()
            return False
        return bool(super()._process_recv_primitive())

    def _read_pdu_data(self) -> None:
        header = bytes(self.socket.recv(6))
        self.socket.give_back(header)
        kind, length = header[:1], int.from_bytes(header[2:], "big")
        most = MOST_P_DATA if kind == bytes([P_DATA]) else MOST_OTHER
        if length > most or (len(header) == 6 and kind in _SHORT and length != 4):
            LOGGER.warning("PDU of type %d with %d bytes", header[0], length)
            self.event_queue.put("Evt19")
            return
        super()._read_pdu_data()
