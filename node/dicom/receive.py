"""The node as Storage and Verification SCP, and as the listener for storage commitment reports: pynetdicom's server.

Each connection has threads of its own, from the TLS handshake on, so nobody, however slow or hostile, can hold up
another; what is limited is the number of associations, in all and from one host, and of connections without one.
C-STORE goes the short way of streaming.py.

Internals of pynetdicom 3.0.4 that this rests on (the version is pinned), besides those of transport.py and
streaming.py: RequestHandler.handle and .local, what RequestHandler._create_association sets, Association._server.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import MODE_ACCEPTOR, Association
from pynetdicom.presentation import build_context
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.dicom.negotiation import VERIFICATION
from node.dicom.session import Arrival, Caller, Desk, Service, Session
from node.dicom.slots import Slots
from node.dicom.spool import Spool
from node.dicom.streaming import StreamingDUL
from node.dicom.tls import ServerContexts, subject, why_refused
from node.dicom.transport import Lobby, PatientSocket, handshake, prepare
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import ConfigurationError
from node.settings import Settings

__all__ = ["Arrival", "Caller", "Desk", "StorageScp"]

LOGGER = logging.getLogger(__name__)

_MOST_WAITING = 128
"""Connections without an association; beyond, the oldest of them is dropped."""
_NO_LIMIT = 1 << 30
"""pynetdicom would count silent connections as associations."""


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
        self._tls = ServerContexts(settings) if settings.tls_port is not None else None
        lobby, slots = Lobby(_MOST_WAITING), Slots(settings.max_associations)
        self._service = Service(settings, desk, Spool(spool), lobby, slots)
        self._servers: list[_Server] = []
        self._live: set[StreamingDUL] = set()
        self._ae = AE(settings.aet)
        self._ae.maximum_pdu_size = settings.max_pdu
        self._ae.maximum_associations = _NO_LIMIT
        self._ae.acse_timeout = settings.association_timeout_s
        self._ae.dimse_timeout = settings.dimse_timeout_s
        self._ae.network_timeout = settings.idle_timeout_s
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME

    def start(self) -> int:
        """Bind, listen, return the port. Raises ConfigurationError where a port or the spool cannot be used."""
        try:
            left = self._service.spool.sweep()
        except OSError as exc:
            raise ConfigurationError(f"the spool folder cannot be used ({exc.strerror})") from exc
        if left:
            LOGGER.warning("%d unfinished objects of an earlier run removed from the spool", left)
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
        for server in self._servers:
            server.shutdown()
        self._servers.clear()
        self._service.lobby.clear()
        live = set(self._live)
        for dul in live:
            dul.finish()
        _join(live, time.monotonic() + grace_s)
        for dul in live:
            dul.cut()
        _join(live, time.monotonic() + 1.0)

    def _listen(self, port: int, tls: ServerContexts | None) -> int:
        host = self._settings.host
        try:
            # some context must be there; what is supported is decided when an association is asked for
            server = self._ae.make_server(
                (host, port), contexts=[build_context(VERIFICATION)], server_class=_Server, request_handler=_Handler
            )
        except OSError as exc:
            raise ConfigurationError(f"cannot listen on {host} port {port} ({exc.strerror})") from exc
        server.service, server.tls, server.live = self._service, tls, self._live
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom-accept", daemon=True).start()
        return int(server.server_address[1])


class _Server(ThreadedAssociationServer):
    """Accepts; everything else, the TLS handshake too, is done in a thread of the connection's own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    service: Service
    tls: ServerContexts | None
    live: set[StreamingDUL]

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()
        except OSError as exc:
            if self.socket.fileno() >= 0:
                LOGGER.error("a connection could not be accepted: %s", exc)
                time.sleep(0.1)  # out of descriptors: let some connections end
            raise

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        self.service.lobby.enter(request)
        super().process_request(request, client_address)

    def handle_error(self, _: Any, client_address: Any) -> None:
        LOGGER.exception("connection of %s broken by a fault of ours", client_address[0])

    def service_actions(self) -> None:
        """pynetdicom collects garbage here, at intervals that have nothing to do with how much there is."""

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()


class _Handler(RequestHandler):
    """From an accepted connection to a running association."""

    server: _Server

    def handle(self) -> None:
        settings, lobby = self.server.service.settings, self.server.service.lobby
        host, port = str(self.client_address[0]).removeprefix("::ffff:"), int(self.client_address[1])
        sock, certificate = self.request, None
        try:
            prepare(sock)
            if self.server.tls is not None:
                lobby.leave(sock)
                sock = self.server.tls.newest().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                lobby.enter(sock)
                handshake(sock, settings.tls_handshake_timeout_s)
                certificate = sock.getpeercert()
            self._association(sock, Session(self.server.service, (host, port), subject(certificate))).start()
        except OSError as exc:
            LOGGER.info("%s port %d: no association: %s", host, port, exc)
            lobby.leave(sock)
            sock.close()
            if reason := why_refused(exc):
                self.server.service.desk.turned_away(host, reason)

    def _association(self, sock: socket.socket, session: Session) -> Any:
        """As RequestHandler._create_association, with our provider, socket and handlers, and no contexts as yet."""
        settings = self.server.service.settings
        association = Association(self.ae, MODE_ACCEPTOR)
        association.name = "dicom-AcceptorThread"  # pynetdicom knows its acceptors by this name
        association._server = self.server
        association.dul = StreamingDUL(
            association, session, linger_s=settings.connection_timeout_s, on_end=lambda dul: self._ended(dul, sock)
        )
        association.acse_timeout, association.network_timeout = self.ae.acse_timeout, self.ae.network_timeout
        wire = PatientSocket(association, patience=settings.association_timeout_s, client_socket=sock)
        wire.deadline = time.monotonic() + settings.association_timeout_s
        association.set_socket(wire)
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = self.ae.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        association.bind(evt.EVT_REQUESTED, session.requested)
        association.bind(evt.EVT_N_EVENT_REPORT, session.event_report)
        self.server.live.add(association.dul)
        return association

    def _ended(self, dul: StreamingDUL, sock: socket.socket) -> None:
        self.server.live.discard(dul)
        self.server.service.lobby.leave(sock)


def _join(live: set[StreamingDUL], deadline: float) -> None:
    for dul in live:
        if dul.ident is not None:
            dul.join(max(0.0, deadline - time.monotonic()))
