"""The node as association requestor: pynetdicom's AE, with an end to every wait and failures as errors of ours.

Internals of pynetdicom 3.0.4 that this rests on (the version is pinned), besides those of transport.py:
  AE                   ._create_socket, called before the association starts
  AssociationSocket    .connect, ._create_socket, .provider_queue, ._ready
  DULServiceProvider   ._is_transport_event
  Association          ._reactor_checkpoint, ._is_paused; .dul and .dimse may be replaced before its start
  DIMSEServiceProvider .get_msg, .msg_queue
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE
from pynetdicom.presentation import build_context, build_role

from node.dicom.fragments import Malformed
from node.dicom.negotiation import rejection_in_words
from node.dicom.tls import client_context
from node.dicom.transport import PatientDUL, PatientSocket, handshake, prepare
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import NoCommonContext, NodeError, PeerBusy, PeerRefused, PeerUnreachable
from node.settings import Peer, Settings

LOGGER = logging.getLogger(__name__)

MOST_CONTEXTS = 128

_CLOSE_WAIT_S = 1.0
_PAUSE_WAIT_S = 0.1


class Broken(Exception):
    """pynetdicom has no answer to give: the association broke, or the peer kept silent."""


class CallingSocket(PatientSocket):
    """Connects as the peer is configured to be reached.

    reached      there was a TCP connection to begin a TLS handshake on
    established  there was a connection to talk DICOM on
    """

    def __init__(self, assoc: Any, settings: Settings, peer: Peer) -> None:
        self._settings = settings
        self._peer = peer
        self.reached = self.established = False
        super().__init__(assoc, patience=settings.dimse_timeout_s, address=assoc.acceptor.address_info)

    def _create_socket(self, address: Any) -> None:
        """Nothing to bind before it is known where to."""

    def connect(self, primitive: Any) -> None:
        """What happened is in `failure`."""
        try:
            self.socket = self._connected()
            self._is_connected = self.established = True
            primitive.result = "Evt2"
        except OSError as exc:
            self.failure = exc
            primitive.result = "Evt17"
        self.provider_queue.put(primitive)
        self._ready.set()

    def _connected(self) -> socket.socket:
        settings, peer = self._settings, self._peer
        sock: socket.socket = socket.create_connection((peer.host, peer.port), timeout=settings.connection_timeout_s)
        try:
            prepare(sock)
            if not peer.tls:
                return sock
            context = client_context(settings)
            sock = wrapped = context.wrap_socket(sock, server_hostname=peer.host, do_handshake_on_connect=False)
            self.reached = True
            handshake(wrapped, settings.tls_handshake_timeout_s)
        except BaseException:
            sock.close()
            raise
        return sock


class YieldingDUL(PatientDUL):
    """Leaves the socket alone while `direct` is set."""

    def __init__(self, assoc: Any) -> None:
        super().__init__(assoc)
        self.direct = threading.Event()
        self.yielded = threading.Event()
        self.resume = threading.Event()

    def _is_transport_event(self) -> bool:
        if self.direct.is_set():
            self.yielded.set()
            self.resume.wait(0.1)
            return False
        return bool(super()._is_transport_event())


class SafeDIMSE(DIMSEServiceProvider):
    """Keeps the association's own thread from taking a response that a send_*() call is waiting for.

    That thread marks itself paused just before it waits on its checkpoint, also when the checkpoint is open. A send_*()
    call that closes the checkpoint in that instant believes it paused while it is about to read the message queue.
    """

    def get_msg(self, block: bool = False) -> tuple[Any, Any]:
        if block:
            return tuple(super().get_msg(True))
        is_open = self.assoc._reactor_checkpoint.is_set
        if not is_open():
            return None, None
        item = super().get_msg(False)
        if item[1] is not None and not is_open():
            with self.msg_queue.mutex:
                self.msg_queue.queue.appendleft(item)
                self.msg_queue.not_empty.notify()
            return None, None
        return tuple(item)


class Requestor(AE):
    """Application entity that calls one peer."""

    def __init__(self, settings: Settings, peer: Peer) -> None:
        super().__init__(settings.aet)
        self._settings = settings
        self._peer = peer
        self.acse_timeout = settings.association_timeout_s
        self.dimse_timeout = settings.dimse_timeout_s
        self.network_timeout = None  # nobody but us makes pauses
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME

    def _create_socket(self, assoc: Any, address: Any, _: Any) -> CallingSocket:
        assoc.dul, assoc.dimse = YieldingDUL(assoc), SafeDIMSE(assoc)
        assoc.acse_timeout, assoc.network_timeout = self.acse_timeout, self.network_timeout
        assoc.acceptor.address_info = address
        return CallingSocket(assoc, self._settings, self._peer)


@contextmanager
def associate(
    settings: Settings,
    peer: Peer,
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    handlers: Sequence[tuple[Any, ...]] = (),
    stores_here: Sequence[str] = (),
) -> Iterator[Any]:
    """A pynetdicom association with `peer` for these (abstract syntax, transfer syntaxes), released at the end.

    stores_here   classes that the peer is to store with us over this association: role selection, as C-GET needs it
    raises  PeerUnreachable   no connection, silence, or the association broke (Broken, OSError, Malformed in the block)
            PeerBusy          rejected for now
            PeerRefused       rejected for good, not a node that is sent to, or a certificate that does not hold
            NoCommonContext   accepted, but none of the contexts
    An error of the block's own aborts the association, so that nothing half said is taken as said.
    """
    association = _associated(settings, peer, contexts, handlers, stores_here)
    try:
        yield association
        _release(association)
    except (Broken, OSError, Malformed) as exc:
        raise PeerUnreachable(f"{peer.aet}: {_words(association, exc)}") from exc
    finally:
        if not association.is_released:
            association.dul.socket.patience = _CLOSE_WAIT_S
            association.abort()


def _associated(
    settings: Settings,
    peer: Peer,
    contexts: Sequence[tuple[str, Sequence[str]]],
    handlers: Sequence[tuple[Any, ...]],
    stores_here: Sequence[str],
) -> Any:
    if peer.port is None:
        raise PeerRefused(f"{peer.aet} has no port: it only sends")
    if peer.tls:
        client_context(settings)  # what is wrong with it is ours, not the peer's
    heard: list[Any] = []
    try:
        association = Requestor(settings, peer).associate(
            peer.host,
            peer.port,
            contexts=[build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts],
            ae_title=peer.aet,
            max_pdu=settings.max_pdu,
            ext_neg=[build_role(uid, scp_role=True) for uid in stores_here],
            evt_handlers=[(evt.EVT_ACSE_RECV, lambda event: heard.append(event.primitive)), *handlers],
        )
    except OSError as exc:  # the name is not known
        raise PeerUnreachable(f"{peer.aet} at {peer.host}: no connection ({exc.strerror or exc})") from exc
    if not association.is_established:
        raise _why_not(settings, peer, association, heard)
    return association


def _why_not(settings: Settings, peer: Peer, association: Any, heard: list[Any]) -> NodeError:
    where, wire = f"{peer.aet} at {peer.host} port {peer.port}", association.dul.socket
    # a peer that rejects and closes at once may have done so before pynetdicom looked whether there is a connection
    while association.dul.receive_pdu() is not None:
        continue
    for answer in heard:
        if isinstance(answer, A_ASSOCIATE) and answer.result:
            words = rejection_in_words(answer.result, answer.result_source, answer.diagnostic)
            kind = PeerRefused if answer.result == 1 else PeerBusy
            return kind(f"{peer.aet} rejects the association: {words}")
    if isinstance(wire.failure, ssl.SSLCertVerificationError):
        return PeerRefused(f"{where}: its certificate does not hold ({wire.failure.verify_message})")
    if not wire.established:
        return PeerUnreachable(f"{where}: {_connection_words(settings, wire)}")
    if association.acceptor.primitive is not None and not association.accepted_contexts:
        return NoCommonContext(f"{peer.aet} accepts none of the presentation contexts")
    if any(isinstance(primitive, A_ABORT) for primitive in heard):
        return PeerUnreachable(f"{where}: the peer aborted instead of answering the association request")
    if heard:
        return PeerUnreachable(f"{where}: {_words(association, 'no valid answer to the association request')}")
    seconds = settings.association_timeout_s
    return PeerUnreachable(f"{where}: connected, but no answer to the association request in {seconds:g} s")


def _connection_words(settings: Settings, wire: CallingSocket) -> str:
    failure = wire.failure
    if wire.reached:
        return f"TLS handshake failed ({failure})"
    if isinstance(failure, TimeoutError):
        return f"no connection within {settings.connection_timeout_s:g} s"
    return f"no connection ({getattr(failure, 'strerror', None) or failure})"


def _words(association: Any, otherwise: object) -> str:
    return str(association.dul.socket.failure or otherwise)


def _release(association: Any) -> None:
    """All has been answered before: a peer that fumbles the release changes nothing."""
    if not association.is_established:
        return
    association.acse_timeout = association.dul.socket.patience = _CLOSE_WAIT_S
    association._reactor_checkpoint.clear()
    # not Association.release: it waits without end where a thread that serves an event has said "not paused" last
    until = time.monotonic() + _PAUSE_WAIT_S
    while not association._is_paused and time.monotonic() < until:
        time.sleep(0.001)
    association.acse.negotiate_release()
    association._reactor_checkpoint.set()
