"""A C-STORE sender that costs next to nothing and waits for no timer: it shows what the receiver alone can do.

Encoded objects go from memory to the socket, Nagle's algorithm is off, and what comes is acknowledged at once. It does
wait for each response, as PS3.7 demands without asynchronous operations.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
OUR_MAXIMUM_PDU = 131072
CONTEXT_ID = 1


@dataclass(frozen=True)
class Encoded:
    """One object ready for the wire."""

    sop_instance_uid: str
    data_set: bytes


class NotAccepted(ConnectionError):
    """The association was rejected, or its only presentation context was."""


class RawSender:
    """One association with one presentation context. Raises NotAccepted."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        called: str,
        calling: str,
        sop_class: str = CT_IMAGE_STORAGE,
        transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN,
    ) -> None:
        self.sop_class = sop_class
        self.socket = socket.create_connection((host, port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_associate_request(called, calling, sop_class, transfer_syntax))
        kind, body = self._read_pdu()
        if kind != 2:
            self.socket.close()
            raise NotAccepted(f"association not accepted (PDU type {kind}, {body.hex()})")
        try:
            self.maximum_pdu = _maximum_length(body) or OUR_MAXIMUM_PDU
        except NotAccepted:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> RawSender:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.socket.sendall(struct.pack(">BxIxxxx", 5, 4))  # A-RELEASE-RQ
            self._read_pdu()
        self.socket.close()

    def send(self, objects: Iterable[Encoded]) -> list[int]:
        """Status of each C-STORE."""
        statuses = []
        for message_id, item in enumerate(objects, 1):
            self._write(_store_request(self.sop_class, item.sop_instance_uid, message_id % 65536), command=True)
            self._write(item.data_set, command=False)
            statuses.append(self._read_status())
        return statuses

    def _write(self, content: bytes, *, command: bool) -> None:
        step = min(self.maximum_pdu, 1 << 20) - 6
        view = memoryview(content)
        pieces: list[bytes | memoryview] = []
        for start in range(0, max(len(content), 1), step):
            piece = view[start : start + step]
            last = start + step >= len(content)
            flags = int(command) | (2 if last else 0)
            pieces += [struct.pack(">BxIIBB", 4, len(piece) + 6, len(piece) + 2, CONTEXT_ID, flags), piece]
        self.socket.sendall(b"".join(pieces))

    def _read_status(self) -> int:
        kind, body = self._read_pdu()
        if kind != 4:
            raise ConnectionError(f"PDU type {kind} in place of a response")
        command = body[6:]
        at = 0
        while at < len(command):
            group, element, length = struct.unpack_from("<HHI", command, at)
            if (group, element) == (0x0000, 0x0900):
                return int(struct.unpack_from("<H", command, at + 8)[0])
            at += 8 + length
        raise ConnectionError("a response without status")

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._read(6))
        return int(kind), self._read(length)

    def _read(self, number: int) -> bytes:
        content = b""
        while len(content) < number:
            # a peer with Nagle's algorithm on holds the second half of its response until the first is acknowledged
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            piece = self.socket.recv(number - len(content))
            if not piece:
                raise ConnectionError("the peer closed the connection")
            content += piece
        return content


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _associate_request(called: str, calling: str, sop_class: str, transfer_syntax: str) -> bytes:
    context = bytes([CONTEXT_ID, 0, 0, 0]) + _item(0x30, sop_class.encode()) + _item(0x40, transfer_syntax.encode())
    user = _item(0x51, struct.pack(">I", OUR_MAXIMUM_PDU)) + _item(0x52, b"2.25.1") + _item(0x55, b"RAW")
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += _item(0x10, APPLICATION_CONTEXT.encode()) + _item(0x20, context) + _item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def _maximum_length(accept: bytes) -> int:
    """From the user information of an A-ASSOCIATE-AC; 0 means no limit. Refuses a refused presentation context."""
    at = 68
    found = 0
    while at + 4 <= len(accept):
        kind, length = struct.unpack_from(">BxH", accept, at)
        if kind == 0x21 and accept[at + 6] != 0:
            raise NotAccepted(f"the presentation context was not accepted (reason {accept[at + 6]})")
        if kind == 0x50:
            at, length = at + 4, 0  # its sub-items follow
            continue
        if kind == 0x51:
            found = int(struct.unpack_from(">I", accept, at + 4)[0])
        at += 4 + length
    return found


def _store_request(sop_class: str, uid: str, message_id: int) -> bytes:
    """C-STORE-RQ command set, Implicit VR Little Endian (PS3.7 9.3.1.1)."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    body = element(0x0002, sop_class.encode()) + element(0x0100, struct.pack("<H", 1))
    body += element(0x0110, struct.pack("<H", message_id)) + element(0x0700, struct.pack("<H", 0))
    body += element(0x0800, struct.pack("<H", 1)) + element(0x1000, uid.encode())
    return element(0x0000, struct.pack("<I", len(body))) + body
