"""The node as Storage and Verification SCP, and as the listener for storage commitment reports.

The upper layer is our own (session.py): pynetdicom's service loop hands every fragment through two threads that poll
each other and several copies, and waits without an end for a PDU that was begun. Here each connection has one thread
that does nothing else, so nobody, however slow or hostile, can hold up another; what is limited is the number of
associations, in all and from one host, and of connections without one.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from pathlib import Path

from node.dicom.session import Arrival, Caller, Desk, Service, Session
from node.dicom.slots import Slots
from node.dicom.spool import Spool
from node.dicom.streaming import Connection
from node.dicom.tls import server_context
from node.errors import ConfigurationError
from node.settings import Settings

__all__ = ["Arrival", "Caller", "Desk", "StorageScp"]

LOGGER = logging.getLogger(__name__)

_BACKLOG = 128
_MOST_WAITING = 128
"""Connections without an association; beyond, the oldest of them is dropped."""


class StorageScp:
    """Listens until stopped.

    port       the real one once started (port 0 in the settings takes a free one)
    tls_port   likewise; None where TLS is not set up
    The spool folder must be on the archive's file system and belong to this SCP alone.
    """

    def __init__(self, settings: Settings, desk: Desk, spool: Path) -> None:
        """Raises ConfigurationError where TLS is set up wrongly."""
        self.port = settings.port
        self.tls_port = settings.tls_port
        self._settings = settings
        self._tls = server_context(settings) if settings.tls_port is not None else None
        self._service = Service(settings, desk, Spool(spool), Slots(settings.max_associations))
        self._listeners: list[socket.socket] = []
        self._sessions: dict[Session, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def start(self) -> int:
        """Bind, listen, return the port. Raises ConfigurationError where a port or the spool cannot be used."""
        try:
            left = self._service.spool.sweep()
        except OSError as exc:
            raise ConfigurationError(f"the spool folder cannot be used ({exc.strerror})") from exc
        if left:
            LOGGER.warning("%d unfinished objects of an earlier run removed from the spool", left)
        self._stopping = False
        try:
            self.port = self._listen(self._settings.port, None)
            if self._tls is not None and self._settings.tls_port is not None:
                self.tls_port = self._listen(self._settings.tls_port, self._tls)
        except ConfigurationError:
            self.stop(grace_s=0)
            raise
        return self.port

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no new connection, let objects that are coming in be completed for so long, end every association."""
        with self._lock:
            self._stopping = True
            sessions = dict(self._sessions)
        for listener in self._listeners:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError as exc:
                LOGGER.debug("listener: %s", exc)
            listener.close()
        self._listeners.clear()
        for session in sessions:
            session.finish()
        _join(sessions, time.monotonic() + grace_s)
        for session in sessions:
            session.cut()
        _join(sessions, time.monotonic() + 1.0)

    def _listen(self, port: int, tls: ssl.SSLContext | None) -> int:
        host = self._settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as exc:
            raise ConfigurationError(f"cannot listen on {host} port {port} ({exc.strerror})") from exc
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, tls), name="dicom-accept", daemon=True).start()
        return int(listener.getsockname()[1])

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as exc:
                if self._stopping or listener.fileno() < 0:
                    return
                LOGGER.error("a connection could not be accepted: %s", exc)
                time.sleep(0.1)  # out of descriptors: let some connections end
                continue
            self._begin(sock, (str(address[0]).removeprefix("::ffff:"), int(address[1])), tls)

    def _begin(self, sock: socket.socket, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        try:
            session = Session(self._service, Connection(sock, self._settings.association_timeout_s), address, tls)
        except OSError as exc:
            LOGGER.debug("%s: gone already: %s", address[0], exc)
            sock.close()
            return
        thread = threading.Thread(target=self._run, args=(session,), name="dicom-association", daemon=True)
        with self._lock:
            waiting = [other for other in self._sessions if other.expendable]
            self._sessions[session] = thread
        if len(waiting) >= _MOST_WAITING:
            waiting[0].cut()
        try:
            thread.start()
        except RuntimeError as exc:
            LOGGER.error("%s: no thread for a connection: %s", address[0], exc)
            self._forget(session)
            sock.close()
        if self._stopping:
            session.finish()

    def _run(self, session: Session) -> None:
        try:
            session.run()
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        with self._lock:
            del self._sessions[session]


def _join(sessions: dict[Session, threading.Thread], deadline: float) -> None:
    for thread in sessions.values():
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
