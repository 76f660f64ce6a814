"""P-DATA-TF cut into fragments: bytes to messages, without a copy of what is an object's.

source  PS3.8 9.3.5 (P-DATA-TF), Annex E (presentation data values)
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass

P_DATA = 4
COMMAND_BIT, LAST_BIT = 1, 2

MOST_P_DATA = 1 << 26
"""Longest P-DATA-TF that is read at all, in bytes. Pieces are passed on as they come, so this costs no memory."""
MOST_COMMAND = 1 << 16

_HEADER = struct.Struct(">BBI")
_PDV = struct.Struct(">IBB")

Sink = Callable[[list[memoryview]], None]


class Malformed(Exception):
    """What came breaks PS3.7 or PS3.8: the association cannot go on."""


class NotData(Exception):
    """The next PDU is none of P-DATA-TF; nothing of it has been taken."""


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


class Reader:
    """Cuts what comes into fragments, in one buffer that it never grows.

    While an object is poured, views of the buffer are collected and handed to the sink in one go when the buffer is
    full or the object complete: one large write costs the file system a fraction of many small ones.
    All methods raise what `receive` raises (it fills a view, with one byte at least, and says how far).
    """

    _ROOM = 1 << 16
    """Less free space than this at the end: start again at the front."""

    def __init__(self, receive: Callable[[memoryview], int], size: int = 1 << 20) -> None:
        self._receive = receive
        self._size = size
        self._view = memoryview(mmap.mmap(-1, size))  # unlike a bytearray, costs only the pages that are used
        self._start = self._end = 0
        self._pdu_left = 0
        self._pending: list[memoryview] = []
        self._sink: Sink | None = None

    @property
    def buffered(self) -> bool:
        """Whether there are bytes that nobody has taken."""
        return self._start < self._end or self._pdu_left > 0

    def rest(self) -> bytes:
        """All that was read and not taken; the reader begins anew after it."""
        rest = bytes(self._view[self._start : self._end])
        self._start = self._end = self._pdu_left = 0
        return rest

    def release(self) -> None:
        """Give the buffer up."""
        self._view = memoryview(b"")

    def command(self) -> tuple[int, bytes]:
        """(context id, encoded command set) of the next message. Raises NotData, Malformed."""
        first = fragment = self._fragment()
        encoded = bytearray()
        while True:
            if not fragment.is_command or fragment.context_id != first.context_id:
                raise Malformed("data without a command, or commands interleaved")
            if len(encoded) + fragment.size > MOST_COMMAND:
                raise Malformed("command set too long")
            self._collect(fragment.size, encoded)
            if fragment.is_last:
                return first.context_id, bytes(encoded)
            fragment = self._fragment()

    def data(self, context_id: int, *, most: int) -> bytes:
        """A data set in memory. Raises Malformed where it is longer than `most`, else as `pour`."""
        whole = bytearray()
        while True:
            fragment = self._data_fragment(context_id)
            if len(whole) + fragment.size > most:
                raise Malformed("data set too long for this service")
            self._collect(fragment.size, whole)
            if fragment.is_last:
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

    def _fragment(self) -> Fragment:
        if not self._pdu_left:
            self._need(_HEADER.size)
            kind, _, length = _HEADER.unpack_from(self._view, self._start)
            if kind != P_DATA:
                raise NotData(f"PDU of type {kind} within the message")
            if not _PDV.size <= length <= MOST_P_DATA:
                raise Malformed(f"P-DATA-TF of {length} bytes")
            self._start += _HEADER.size
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

    def _data_fragment(self, context_id: int) -> Fragment:
        fragment = self._fragment()
        if fragment.is_command or fragment.context_id != context_id:
            raise Malformed("message interrupted by another one")
        return fragment

    def _collect(self, size: int, into: bytearray) -> None:
        self._pdu_left -= size
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
        self._end += self._receive(self._view[self._end :])

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
