"""The upper layer's bytes: a socket on which nobody waits for ever, and the reader that cuts what it brings.

One thread serves one association from accept to close. It alone touches the socket, so there is nothing to hand
over, nothing to poll and nothing to lock: P-DATA goes from the socket into one buffer, and from there in large
pieces to where it belongs. Whoever wants the thread to come to an end shuts the socket down.

source  PS3.8 9.3 (PDU structure), Annex E (PDV)
"""

from __future__ import annotations

import logging
import math
import mmap
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LOGGER = logging.getLogger(__name__)

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND_BIT, LAST_BIT = 1, 2

MOST_P_DATA = 1 << 26
"""Longest P-DATA-TF that is read at all, in bytes. Pieces are passed on as they come, so this costs no memory."""
MOST_OTHER = 1 << 20
"""Longest PDU of another kind (an A-ASSOCIATE-RQ with 128 contexts and every transfer syntax has some 200 kB)."""
MOST_COMMAND = 1 << 16

SOURCE_USER, SOURCE_PROVIDER = 0, 2
REASON_NONE, REASON_UNRECOGNISED, REASON_UNEXPECTED, REASON_INVALID = 0, 1, 2, 6  # PS3.8 Table 9-26

_HEADER = struct.Struct(">BBI")
_PDV = struct.Struct(">IBB")
_PARTS_AT_ONCE = 512
_ABORT_PATIENCE_S = 1.0

PeerCertificate = Mapping[str, object] | None
Sink = Callable[[list[memoryview]], None]


class WireError(Exception):
    """The association cannot go on."""


class Lost(WireError):
    """The connection is gone."""


class TimedOut(WireError):
    """The peer kept silent for too long, or took nothing from us."""


class Malformed(WireError):
    """What came breaks PS3.7 or PS3.8; the answer is an A-ABORT with `reason` of PS3.8 Table 9-26."""

    def __init__(self, words: str, reason: int = REASON_INVALID) -> None:
        super().__init__(words)
        self.reason = reason


class Released(WireError):
    """The peer asks for release."""


class Aborted(WireError):
    """The peer has aborted."""


@dataclass(frozen=True)
class Fragment:
    """Header of a presentation data value; `size` bytes follow."""

    context_id: int
    control: int
    size: int

    @property
    def is_command(self) -> bool:
        return bool(self.control & COMMAND_BIT)

    @property
    def is_last(self) -> bool:
        return bool(self.control & LAST_BIT)


class Connection:
    """A TCP or TLS socket.

    patience  longest silence to wait through, in seconds
    deadline  on the monotonic clock: nothing is waited for after it, however busy the peer keeps the line
    """

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self.sock = sock
        self.patience = patience
        self.deadline = math.inf
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start_tls(self, context: ssl.SSLContext, *, server_name: str | None = None) -> PeerCertificate:
        """Handshake within the deadline, as server where no server name is given. Raises ssl.SSLError, WireError."""
        wrapped = context.wrap_socket(
            self.sock, server_side=server_name is None, server_hostname=server_name, do_handshake_on_connect=False
        )
        self.sock = wrapped
        while True:
            try:
                wrapped.do_handshake()
                return wrapped.getpeercert()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def recv_into(self, view: memoryview) -> int:
        """At least one byte. Raises Lost, TimedOut."""
        while True:
            try:
                count = self.sock.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._acknowledge()
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except OSError as exc:
                raise Lost(f"connection lost: {exc}") from exc
            else:
                if not count:
                    raise Lost("connection closed by the peer")
                return count

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Every byte of every part. Raises Lost, TimedOut."""
        queue = [memoryview(part) for part in parts if len(part)]
        first = 0
        while first < len(queue):
            try:
                if isinstance(self.sock, ssl.SSLSocket):
                    sent = self.sock.send(queue[first])
                else:
                    sent = self.sock.sendmsg(queue[first : first + _PARTS_AT_ONCE])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT)
                continue
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
                continue
            except OSError as exc:
                raise Lost(f"connection lost: {exc}") from exc
            while first < len(queue) and sent >= len(queue[first]):
                sent -= len(queue[first])
                first += 1
            if sent:
                queue[first] = queue[first][sent:]

    def abort(self, source: int, reason: int = REASON_NONE) -> None:
        """A-ABORT, as far as the line still carries it."""
        self.patience = min(self.patience, _ABORT_PATIENCE_S)
        try:
            self.send([struct.pack(">BBIBBBB", ABORT, 0, 4, 0, 0, source, reason)])
        except WireError as exc:
            LOGGER.debug("A-ABORT could not be sent: %s", exc)

    def linger(self, seconds: float) -> None:
        """Wait for the peer to close (PS3.8 Sta13), so that our last words are not lost to a reset; then close."""
        self.deadline = time.monotonic() + seconds
        scrap = memoryview(bytearray(1 << 16))
        try:
            while time.monotonic() < self.deadline:
                self.recv_into(scrap)
        except WireError as exc:
            LOGGER.debug("closing: %s", exc)
        self.close()

    def close(self) -> None:
        self.sock.close()

    def interrupt(self, how: int = socket.SHUT_RD) -> None:
        """From another thread: let the thread that waits on this socket come to its end."""
        try:
            # not SSLSocket.shutdown, which would forget the session that the other thread is using
            socket.socket.shutdown(self.sock, how)
        except OSError as exc:
            LOGGER.debug("already closed: %s", exc)

    def _wait(self, event: int) -> None:
        seconds = min(self.patience, self.deadline - time.monotonic())
        poll = select.poll()
        poll.register(self.sock, event)
        if seconds <= 0 or not poll.poll(math.ceil(seconds * 1000)):
            raise TimedOut("the peer kept silent for too long")

    def _acknowledge(self) -> None:
        """Send a delayed acknowledgement now.

        Peers that leave Nagle's algorithm on hold back the last, short piece of a message until the rest of it is
        acknowledged: up to 40 ms for every object against a delayed acknowledgement.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            try:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError as exc:
                raise Lost(f"connection lost: {exc}") from exc


class Reader:
    """Cuts what comes into PDUs and fragments, in one buffer that it never grows.

    While an object is poured, views of the buffer are collected and handed to the sink in one go when the buffer is
    full or the object complete: one large write costs the file system a fraction of many small ones.
    """

    _ROOM = 1 << 16
    """Less free space than this at the end: start again at the front."""

    def __init__(self, connection: Connection, size: int = 1 << 20) -> None:
        self._connection = connection
        self._size = size
        self._view = memoryview(mmap.mmap(-1, size))  # unlike a bytearray, costs only the pages that are used
        self._start = self._end = 0
        self._pdu_left = 0
        self._pending: list[memoryview] = []
        self._sink: Sink | None = None

    def pdu(self, *, expected: int) -> bytes:
        """A whole PDU that is not P-DATA-TF. Raises Malformed where it is another one, Aborted, WireError."""
        kind, length = self._header()
        self._outside(kind, length, expected=expected)
        body = bytearray()
        self._collect(length, body)
        return _HEADER.pack(kind, 0, length) + bytes(body)

    def peek(self) -> int:
        """The kind of the next PDU, which stays where it is."""
        self._need(_HEADER.size)
        return self._view[self._start]

    def fragment(self) -> Fragment:
        """The next fragment's header; its bytes must be taken next. Raises Released, Aborted, Malformed, WireError."""
        if not self._pdu_left:
            kind, length = self._header()
            if kind != P_DATA:
                self._outside(kind, length, expected=P_DATA)
            if not _PDV.size <= length <= MOST_P_DATA:
                raise Malformed(f"P-DATA-TF of {length} bytes")
            self._pdu_left = length
        if self._pdu_left < _PDV.size:
            raise Malformed("P-DATA-TF ends within a fragment header")
        self._need(_PDV.size)
        size, context_id, control = _PDV.unpack_from(self._view, self._start)
        self._start += _PDV.size
        self._pdu_left -= _PDV.size
        if size < 2 or size - 2 > self._pdu_left:
            raise Malformed("fragment longer than the P-DATA-TF around it")
        return Fragment(context_id, control, size - 2)

    def command(self) -> tuple[int, bytes]:
        """(context id, encoded command set) of the next message. Raises Released, Aborted, Malformed, WireError."""
        first = fragment = self.fragment()
        encoded = bytearray()
        while True:
            if not fragment.is_command or fragment.context_id != first.context_id:
                raise Malformed("data without a command, or commands interleaved", REASON_UNEXPECTED)
            if len(encoded) + fragment.size > MOST_COMMAND:
                raise Malformed("command set too long")
            self._take(fragment.size, encoded)
            if fragment.is_last:
                return first.context_id, bytes(encoded)
            fragment = self.fragment()

    def data(self, context_id: int, *, most: int) -> bytes:
        """A data set in memory. Raises Malformed where it is longer than `most`, else as `pour`."""
        whole = bytearray()
        for fragment in iter(lambda: self._data_fragment(context_id), None):
            if len(whole) + fragment.size > most:
                raise Malformed("data set too long for this service")
            self._take(fragment.size, whole)
            if fragment.is_last:
                break
        return bytes(whole)

    def pour(self, context_id: int, sink: Sink) -> None:
        """A data set piece by piece. The views hold only during the call of the sink. Raises as `command`."""
        self._sink = sink
        try:
            while True:
                fragment = self._data_fragment(context_id)
                left = fragment.size
                while left:
                    if self._start == self._end:
                        self._more()
                    piece = min(left, self._end - self._start)
                    self._pending.append(self._view[self._start : self._start + piece])
                    self._start += piece
                    left -= piece
                self._pdu_left -= fragment.size
                if fragment.is_last:
                    self._flush()
                    return
        finally:
            self._sink = None
            self._pending = []

    def _data_fragment(self, context_id: int) -> Fragment:
        fragment = self.fragment()
        if fragment.is_command or fragment.context_id != context_id:
            raise Malformed("message interrupted by another one", REASON_UNEXPECTED)
        return fragment

    def _outside(self, kind: int, length: int, *, expected: int) -> None:
        """PDUs that may stand where `expected` was looked for."""
        if kind in (RELEASE_RQ, ABORT) and length != 4:
            raise Malformed(f"PDU of type {kind} with {length} bytes")
        if kind == ABORT:
            self._collect(length, aborted := bytearray())
            raise Aborted("the peer aborted (source {2}, reason {3})".format(*aborted))
        if kind == expected:
            if length > MOST_OTHER:
                raise Malformed(f"PDU of type {kind} with {length} bytes")
            return
        if kind == RELEASE_RQ and expected == P_DATA:
            self._collect(length, bytearray())
            raise Released("the peer releases")
        if not ASSOCIATE_RQ <= kind <= ABORT:
            raise Malformed(f"unknown PDU type 0x{kind:02X}", REASON_UNRECOGNISED)
        raise Malformed(f"PDU of type {kind} out of place", REASON_UNEXPECTED)

    def _header(self) -> tuple[int, int]:
        self._need(_HEADER.size)
        kind, _, length = _HEADER.unpack_from(self._view, self._start)
        self._start += _HEADER.size
        return kind, length

    def _take(self, size: int, into: bytearray) -> None:
        self._collect(size, into)
        self._pdu_left -= size

    def _collect(self, size: int, into: bytearray) -> None:
        while size:
            if self._start == self._end:
                self._more()
            piece = min(size, self._end - self._start)
            into += self._view[self._start : self._start + piece]
            self._start += piece
            size -= piece

    def _need(self, count: int) -> None:
        while self._end - self._start < count:
            self._more()

    def _more(self) -> None:
        if self._start == self._end and not self._pending:
            self._start = self._end = 0
        elif self._end > self._size - self._ROOM:
            self._flush()
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        self._end += self._connection.recv_into(self._view[self._end :])

    def _flush(self) -> None:
        pieces, self._pending = self._pending, []
        if pieces and self._sink is not None:
            self._sink(pieces)


def p_data(context_id: int, encoded: bytes | memoryview, *, is_command: bool, step: int) -> list[bytes | memoryview]:
    """P-DATA-TF PDUs of one fragment each, `step` bytes at most (the receiver's maximum length less 6), uncopied."""
    parts: list[bytes | memoryview] = []
    view = memoryview(encoded)
    kind = COMMAND_BIT if is_command else 0
    for start in range(0, max(len(view), 1), step):
        piece = view[start : start + step]
        control = kind | (LAST_BIT if start + step >= len(view) else 0)
        parts.append(struct.pack(">BBIIBB", P_DATA, 0, len(piece) + 6, len(piece) + 2, context_id, control))
        parts.append(piece)
    return parts
