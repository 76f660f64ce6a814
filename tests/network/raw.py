"""A peer made of bytes: says what the standard forbids as easily as what it asks for. Shares no code with the node."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence

from network.objects import CT, EXPLICIT

VERIFICATION = "1.2.840.10008.1.1"
PATIENCE_S = 20.0


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(
    contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,))),
    *,
    calling: str = "CALLER",
    called: str = "PACSNODE",
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
    max_length: int = 16384,
) -> bytes:
    """A-ASSOCIATE-RQ, PS3.8 9.3.2; context ids are 1, 3, 5…"""
    body = struct.pack(">HH", version, 0) + called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += item(0x10, application.encode())
    for index, (abstract, syntaxes) in enumerate(contexts):
        inner = struct.pack(">BBBB", 2 * index + 1, 0, 0, 0) + item(0x30, abstract.encode())
        body += item(0x20, inner + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes))
    body += item(0x50, item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3.4"))
    return struct.pack(">BBI", 1, 0, len(body)) + body


def associate_ac(request: bytes, *, max_length: int = 16384) -> bytes:
    """A-ASSOCIATE-AC to the body of a request: every context, in the first syntax proposed for it (PS3.8 9.3.3)."""
    body, position = request[:68] + item(0x10, b"1.2.840.10008.3.1.1.1"), 68
    while position < len(request):
        kind, _, length = struct.unpack_from(">BBH", request, position)
        if kind == 0x20:
            inner = position + 8
            inner += 4 + struct.unpack_from(">H", request, inner + 2)[0]
            syntax = request[inner + 4 : inner + 4 + struct.unpack_from(">H", request, inner + 2)[0]]
            body += item(0x21, struct.pack(">BBBB", request[position + 4], 0, 0, 0) + item(0x40, syntax))
        position += 4 + length
    body += item(0x50, item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3.4"))
    return struct.pack(">BBI", 2, 0, len(body)) + body


def associate_rj(result: int, source: int, reason: int) -> bytes:
    return struct.pack(">BBIBBBB", 3, 0, 4, 0, result, source, reason)


def command(**elements: int | str) -> bytes:
    """A command set; names are e0002=… in ascending order, numbers go as US, texts as UI."""
    rest = b""
    for name, value in sorted(elements.items()):
        encoded = struct.pack("<H", value) if isinstance(value, int) else value.encode()
        encoded += b"\0" * (len(encoded) & 1)
        rest += struct.pack("<HHI", 0, int(name[1:], 16), len(encoded)) + encoded
    return struct.pack("<HHII", 0, 0, 4, len(rest)) + rest


def store_rq(instance: str, *, sop_class: str = CT, message_id: int = 1, data: int = 1, priority: int = 0) -> bytes:
    return command(e0002=sop_class, e0100=1, e0110=message_id, e0700=priority, e0800=data, e1000=instance)


def echo_rq(message_id: int = 7) -> bytes:
    return command(e0002=VERIFICATION, e0100=0x30, e0110=message_id, e0800=0x0101)


def pdv(context_id: int, control: int, body: bytes) -> bytes:
    return struct.pack(">IBB", len(body) + 2, context_id, control) + body


def p_data(*pdvs: bytes) -> bytes:
    return struct.pack(">BBI", 4, 0, sum(map(len, pdvs))) + b"".join(pdvs)


def message(context_id: int, encoded: bytes, data: bytes | None = None, *, step: int = 16000) -> bytes:
    """A whole message, one fragment to a PDU."""
    out = p_data(pdv(context_id, 3, encoded))
    if data is not None:
        for start in range(0, max(len(data), 1), step):
            last = 2 if start + step >= len(data) else 0
            out += p_data(pdv(context_id, last, data[start : start + step]))
    return out


RELEASE_RQ = struct.pack(">BBII", 5, 0, 4, 0)
ABORT = struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0)


class RawPeer:
    """A connection to an SCP."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hear(self) -> tuple[int, bytes]:
        """(type, body) of the next PDU; (0, b"") where the connection is closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBI", head)
        return kind, self._exactly(length)

    def hear_status(self) -> int:
        """Status of a response that comes in one fragment."""
        return self.hear_response()[0x0900]

    def hear_response(self) -> dict[int, int]:
        kind, body = self.hear()
        assert kind == 4, f"PDU of type {kind} instead of a response: {body!r}"
        elements, position = {}, 6
        while position < len(body):
            _, element, length = struct.unpack_from("<HHI", body, position)
            value = body[position + 8 : position + 8 + length]
            elements[element] = struct.unpack("<H", value)[0] if length == 2 else 0
            position += 8 + length
        return elements

    def is_closed(self) -> bool:
        """Whether the peer ends the connection; waits for it."""
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass
        return True

    def _exactly(self, count: int) -> bytes:
        data = b""
        with contextlib.suppress(ConnectionError):
            while len(data) < count:
                piece = self.sock.recv(count - len(data))
                if not piece:
                    break
                data += piece
        return data


@contextlib.contextmanager
def connected(port: int) -> Iterator[RawPeer]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        yield RawPeer(sock)


@contextlib.contextmanager
def associated(port: int, **request: object) -> Iterator[RawPeer]:
    """With an accepted association: CT on context 1, Verification on context 3, unless told otherwise."""
    with connected(port) as peer:
        peer.say(associate_rq(**request))  # type: ignore[arg-type]
        kind, _ = peer.hear()
        assert kind == 2, f"not accepted: PDU of type {kind}"
        yield peer
