"""Audit messages to a repository, by syslog.

A repository says nothing to a message. So each batch has a connection of its own, and counts as taken only once the
repository has closed its end in order after us: then it has read everything (a system that goes away with unread bytes
resets the connection). With UDP nobody knows.

source  RFC 5424 (message), RFC 5425 (TLS), RFC 6587 3.4.1 (TCP, octet counting), RFC 5426 (UDP), PS3.15 A.6 and A.7
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from node.errors import PeerUnreachable

Scheme = Literal["tls", "tcp", "udp"]

_PORTS: dict[Scheme, int] = {"tls": 6514, "tcp": 601, "udp": 514}
_FACILITY = 10
"""Security and authorization messages."""
_NOTICE, _WARNING = 5, 4
_MESSAGE_ID = "DICOM+RFC3881"
_APPLICATION = "pacsnode"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CONNECT_S = 10.0
_SEND_S = 30.0
_MOST_HOST = 255


@dataclass(frozen=True)
class Repository:
    """Where audit messages go."""

    scheme: Scheme
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Repository:
        """That of Settings.audit_url, which says what it may be."""
        parts = urlsplit(url)
        scheme: Scheme = parts.scheme  # type: ignore[assignment]
        return cls(scheme, parts.hostname or "", parts.port or _PORTS[scheme])

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.scheme})"


def syslog_message(xml: bytes, *, at: str, success: bool) -> bytes:
    """RFC 5424 header and an audit message. `at`: ISO 8601 with microseconds at most."""
    priority = 8 * _FACILITY + (_NOTICE if success else _WARNING)
    host = "".join(c for c in socket.gethostname() if "!" <= c <= "~")[:_MOST_HOST] or "-"
    header = f"<{priority}>1 {at} {host} {_APPLICATION} {os.getpid()} {_MESSAGE_ID} - "
    return header.encode("ascii") + _BYTE_ORDER_MARK + xml


def deliver(repository: Repository, messages: Sequence[bytes], *, tls: ssl.SSLContext | None) -> None:
    """All of them, in order; returns once they have been taken.

    raises   PeerUnreachable   not all were taken, or nobody knows; says why
    """
    try:
        if repository.scheme == "udp":
            _deliver_datagrams(repository, messages)
        else:
            _deliver_stream(repository, messages, tls)
    except OSError as exc:
        raise PeerUnreachable(f"{repository}: {_why(exc)}") from exc


def probe(repository: Repository, *, tls: ssl.SSLContext | None) -> None:
    """Connect, shake hands, and leave without a word. raises PeerUnreachable"""
    deliver(repository, [], tls=tls)


def _deliver_datagrams(repository: Repository, messages: Sequence[bytes]) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(repository.host, repository.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(_SEND_S)
        sock.connect(address)
        for message in messages:
            sock.send(message)


def _deliver_stream(repository: Repository, messages: Sequence[bytes], tls: ssl.SSLContext | None) -> None:
    address = (repository.host, repository.port)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(address, timeout=_CONNECT_S))
        if repository.scheme == "tls":
            if tls is None:
                raise ValueError("TLS without its certificates")
            sock = stack.enter_context(tls.wrap_socket(sock, server_hostname=repository.host))
        sock.settimeout(_SEND_S)
        sock.sendall(b"".join(b"%d %b" % (len(message), message) for message in messages))
        _await_end(sock)


def _await_end(sock: socket.socket) -> None:
    """Say that no more comes, and wait for the other side to have read that. raises OSError where it has not"""
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(ssl.SSLEOFError):  # closed without a word, which is in order once all was read
            sock.unwrap()  # our close_notify, and theirs
        _demand_receipt(sock)
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(4096):
        pass
    _demand_receipt(sock)


def _demand_receipt(sock: socket.socket) -> None:
    """Whoever closes before our last byte has come never acknowledges it. raises OSError"""
    (unacknowledged,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, struct.pack("i", 0)))
    if unacknowledged:
        raise ConnectionResetError


def _why(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted here ({exc.verify_message})"
    if isinstance(exc, ssl.SSLEOFError | ConnectionError) and not isinstance(exc, ConnectionRefusedError):
        return "the connection was closed before all was read"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed ({(exc.reason or type(exc).__name__).replace('_', ' ').lower()})"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if exc.errno == errno.ENOTCONN:
        return "the connection was closed before all was read"
    return exc.strerror or type(exc).__name__
