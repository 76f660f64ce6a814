"""What `check` says of where the node listens: its ports, and the certificates of DICOM TLS."""

from __future__ import annotations

import datetime as dt
import errno
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from node.cli import home as homes
from node.cli.check import Tried
from node.errors import NodeError

if TYPE_CHECKING:
    from node.settings import Settings

_SOON = dt.timedelta(days=30)


def port(what: str, host: str, number: int, *, running: bool) -> Tried:
    if not running:
        return _free(what, host, number)
    address = (homes.own_address(host), number)
    where = f"{address[0]}:{number}"
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError:
        return Tried(what, "fault", f"{where} does not answer", "see HOME/log")
    return Tried(what, "ok", f"{where} answers")


def _free(what: str, host: str, port: int) -> Tried:
    """Whether `up` could listen there: tried, since an address may be another machine's and a port the system's."""
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            return Tried(what, "fault", f"nobody can listen at {where} here ({exc.strerror})", "choose another")
        found = f"{where} is in use by a program that is not the `up` of this home"
        return Tried(what, "note", found, "choose another port")
    return Tried(what, "ok", f"{where} is free")


def tls(settings: Settings, *, sends: bool, running: bool) -> Iterator[Tried]:
    """A certificate without a port serves for sending alone, where a peer takes results over TLS."""
    from node.dicom.tls import ends

    if settings.tls_certificate is None:
        if settings.tls_port is not None:
            yield Tried(
                "TLS",
                "fault",
                f"TLS port {settings.tls_port} without a certificate: `receive` does not start",
                "set PACSNODE_TLS_CERTIFICATE, _KEY and _AUTHORITIES too, or take PACSNODE_TLS_PORT away",
            )
        return
    try:
        found = ends(settings)
    except NodeError as exc:
        yield Tried("TLS", "fault", exc.reason, "mend the files named by PACSNODE_TLS_CERTIFICATE, _KEY, _AUTHORITIES")
        return
    yield from endings(found)
    if settings.tls_port is None:
        yield Tried(
            "TLS",
            "note" if sends else "fault",
            "certificate, key and authorities fit, but without a TLS port nothing listens for TLS",
            "set PACSNODE_TLS_PORT, unless TLS is for sending alone",
        )
        return
    yield Tried("TLS", "ok", "certificate, key and authorities fit")
    yield port("TLS port", settings.host, settings.tls_port, running=running)


def endings(found: Sequence[tuple[str, dt.datetime]]) -> Iterator[Tried]:
    """What ends soon, or has ended."""
    now = dt.datetime.now(dt.UTC)
    for whose, at in found:
        if at < now + _SOON:
            when = "has ended" if at < now else "ends"
            change = "put the new file in its place: running processes take it up by themselves"
            yield Tried("TLS certificate", "note", f"{whose} {when} on {at:%Y-%m-%d %H:%M} UTC", change)
