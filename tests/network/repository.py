"""A syslog receiver that misbehaves on demand. Reads octet counting (RFC 5425 4.3) by itself."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

from network.certificates import Authority, Identity

_TICK_S = 0.05
_UNREAD = 8192
"""Octets that the system takes for a receiver that does not read, about."""


def mutual(identity: Identity, authority: Authority) -> ssl.SSLContext:
    """Whoever calls must show a certificate of this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Receiver:
    """Listens on the loopback until closed. `messages`: what it has read, connection by connection.

    break_after   reset a connection once so many messages came over it
    mute          read all, and never close
    absent        end in order what it would say, and read nothing
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self.break_after: int | None = None
        self.mute = False
        self.absent = False
        self.tls = tls
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(_TICK_S)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            with sock, contextlib.suppress(OSError):
                sock.settimeout(5)
                self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        """One connection. raises OSError"""
        with self.tls.wrap_socket(sock, server_side=True) if self.tls is not None else sock as stream:
            self.connections += 1
            if self.absent:
                stream.shutdown(socket.SHUT_WR)
                self._over.wait()
            else:
                self._read(stream)

    def _read(self, sock: socket.socket) -> None:
        """Until the caller has ended. raises OSError"""
        rest, count = b"", 0
        while data := self._more(sock):
            rest += data
            while (found := _first(rest)) is not None:
                message, rest = found
                self.messages.append(message)
                count += 1
                if count == self.break_after:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
        if self.mute:
            self._over.wait()
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()

    def _more(self, sock: socket.socket) -> bytes:
        if self.break_after is not None:
            return sock.recv(700)  # so that it breaks with more on its way
        return sock.recv(65536)


def _first(stream: bytes) -> tuple[bytes, bytes] | None:
    length, space, rest = stream.partition(b" ")
    if not space or len(rest) < int(length):
        return None
    return rest[: int(length)], rest[int(length) :]


class Datagrams:
    """A receiver of UDP."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(5)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next(self) -> bytes:
        return self._socket.recv(65536)
