"""The node as association requestor, in the calling thread: contexts, requests, responses, release.

source  PS3.8 7.1 to 7.3, PS3.7 8 and 9
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from node.dicom import messages
from node.dicom.messages import Command
from node.dicom.negotiation import Accepted, read_answer, rejection_in_words, write_request
from node.dicom.streaming import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RELEASE_RP,
    RELEASE_RQ,
    SOURCE_PROVIDER,
    SOURCE_USER,
    Connection,
    Malformed,
    Reader,
    TimedOut,
    WireError,
    p_data,
)
from node.dicom.tls import client_context
from node.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable
from node.settings import Peer, Settings

LOGGER = logging.getLogger(__name__)

MOST_CONTEXTS = 128
MOST_DATA = 1 << 25
"""Longest data set that an answer may have, in bytes."""

_BUFFER = 1 << 18
_STEP = 1 << 17
_CLOSE_WAIT_S = 1.0


@dataclass(frozen=True)
class Message:
    """A received message; `data` is empty where it has no data set."""

    context: Accepted
    command: Command
    data: bytes


class Association:
    """An established association. Its methods raise WireError; `associate` turns that into PeerUnreachable."""

    def __init__(
        self, connection: Connection, reader: Reader, contexts: Mapping[int, Accepted], *, max_length: int
    ) -> None:
        self.contexts = contexts
        self._connection = connection
        self._reader = reader
        self._step = min(_STEP, max_length - 6) if max_length else _STEP
        self._last_id = 0

    def context(self, abstract_syntax: str, transfer_syntax: str | None = None) -> Accepted | None:
        """The accepted context for this class, in this syntax where one is given."""
        for context in self.contexts.values():
            if context.abstract_syntax == abstract_syntax and transfer_syntax in (None, context.transfer_syntax):
                return context
        return None

    def request(self, context: Accepted, elements: Mapping[int, bytes], data: bytes | memoryview | None = None) -> int:
        """Send a request; returns its message id. The data set goes out as it lies in memory, uncopied."""
        self._last_id = self._last_id % 0xFFFF + 1
        self._send(context, {**elements, messages.MESSAGE_ID: messages.short(self._last_id)}, data)
        return self._last_id

    def respond(self, request: Message, status: int) -> None:
        """Answer a request of the peer's."""
        self._send(request.context, messages.response_to(request.command, status), None)

    def receive(self, *, patience_s: float | None = None) -> Message:
        """The next message, a response or a request of the peer's. Raises TimedOut where none comes within patience."""
        usual = self._connection.patience
        if patience_s is not None:
            self._connection.patience = patience_s
        try:
            self._reader.peek()
        finally:
            self._connection.patience = usual
        context_id, encoded = self._reader.command()
        context, command = self.contexts.get(context_id), Command.parse(encoded)
        if context is None:
            raise Malformed("message on a presentation context that was not agreed on")
        data = self._reader.data(context_id, most=MOST_DATA) if command.has_data_set else b""
        return Message(context, command, data)

    def response(self, message_id: int) -> Message:
        """The response to this request. Raises Malformed where another message comes."""
        message = self.receive()
        if message.command.number(messages.RESPONDED_ID) != message_id:
            raise Malformed("response to another request")
        return message

    def release(self) -> None:
        """All has been answered before: a peer that fumbles the release changes nothing."""
        self._connection.patience = _CLOSE_WAIT_S
        try:
            self._connection.send([struct.pack(">BBII", RELEASE_RQ, 0, 4, 0)])
            self._reader.pdu(expected=RELEASE_RP)
        except WireError as exc:
            LOGGER.info("release: %s", exc)

    def _send(self, context: Accepted, elements: Mapping[int, bytes], data: bytes | memoryview | None) -> None:
        kind = messages.NO_DATA_SET if data is None else messages.DATA_SET
        command = messages.encode_command({**elements, messages.DATA_SET_TYPE: messages.short(kind)})
        parts = p_data(context.context_id, command, is_command=True, step=self._step)
        if data is not None:
            parts += p_data(context.context_id, data, is_command=False, step=self._step)
        self._connection.send(parts)


@contextmanager
def associate(settings: Settings, peer: Peer, contexts: Sequence[tuple[str, Sequence[str]]]) -> Iterator[Association]:
    """An association with `peer` for these (abstract syntax, transfer syntaxes), released at the end.

    raises  PeerUnreachable   no connection, silence, or the association broke, also later in the block
            PeerBusy          rejected for now
            PeerRefused       rejected for good, not a node that is sent to, or a certificate that does not hold
    An error of the block's own aborts the association, so that nothing half said is taken as said.
    """
    connection = _connect(settings, peer)
    try:
        association = _negotiate(settings, peer, connection, contexts)
        yield association
        association.release()
    except Malformed as exc:
        connection.abort(SOURCE_PROVIDER, exc.reason)
        raise PeerUnreachable(f"{peer.aet}: association aborted: {exc}") from exc
    except WireError as exc:
        connection.abort(SOURCE_USER)
        raise PeerUnreachable(f"{peer.aet}: {exc}") from exc
    except NodeError:
        connection.abort(SOURCE_USER)
        raise
    finally:
        connection.close()


def _connect(settings: Settings, peer: Peer) -> Connection:
    if peer.port is None:
        raise PeerRefused(f"{peer.aet} has no port: it only sends")
    where = f"{peer.aet} at {peer.host} port {peer.port}"
    tls = client_context(settings) if peer.tls else None
    try:
        sock = socket.create_connection((peer.host, peer.port), timeout=settings.connection_timeout_s)
    except TimeoutError as exc:
        raise PeerUnreachable(f"{where}: no connection within {settings.connection_timeout_s:g} s") from exc
    except OSError as exc:
        raise PeerUnreachable(f"{where}: no connection ({exc.strerror or exc})") from exc
    connection = Connection(sock, settings.dimse_timeout_s)
    if tls is not None:
        try:
            connection.deadline = time.monotonic() + settings.tls_handshake_timeout_s
            connection.start_tls(tls, server_name=peer.host)
            connection.deadline = math.inf
        except ssl.SSLCertVerificationError as exc:
            connection.close()
            raise PeerRefused(f"{where}: its certificate does not hold ({exc.verify_message})") from exc
        except (OSError, WireError) as exc:
            connection.close()
            raise PeerUnreachable(f"{where}: TLS handshake failed ({exc})") from exc
    return connection


def _negotiate(
    settings: Settings, peer: Peer, connection: Connection, contexts: Sequence[tuple[str, Sequence[str]]]
) -> Association:
    reader = Reader(connection, _BUFFER)
    pdu, proposed = write_request(settings.aet, peer.aet, contexts=contexts, max_pdu=settings.max_pdu)
    connection.deadline = time.monotonic() + settings.association_timeout_s
    connection.send([pdu])
    try:
        kind = reader.peek()
    except TimedOut as exc:
        seconds = settings.association_timeout_s
        raise PeerUnreachable(
            f"{peer.aet}: connected, but no answer to the association request in {seconds:g} s"
        ) from exc
    if kind == ASSOCIATE_RJ:
        _rejected(peer, reader.pdu(expected=ASSOCIATE_RJ))
    accepted, max_length = read_answer(reader.pdu(expected=ASSOCIATE_AC), proposed)
    connection.deadline = math.inf
    if 0 < max_length < 8:
        raise Malformed(f"a maximum PDU length of {max_length}")
    return Association(connection, reader, accepted, max_length=max_length)


def _rejected(peer: Peer, pdu: bytes) -> None:
    if len(pdu) != 10:
        raise Malformed("A-ASSOCIATE-RJ of a wrong length")
    result, source, reason = pdu[7:10]
    words = f"{peer.aet} rejects the association: {rejection_in_words(result, source, reason)}"
    raise PeerRefused(words) if result == 1 else PeerBusy(words)
