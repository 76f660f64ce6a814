"""One association as acceptor, in one thread: agreed on, served, and brought to its end.

source  PS3.8 9.2 (states), PS3.7 9.3 and 10.3 (messages), PS3.4 Annex A, B and J (services)
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.dicom import messages, status
from node.dicom.commit import MOST_REPORT, CommitmentReport, read_report
from node.dicom.messages import Command
from node.dicom.negotiation import (
    APPLICATION_CONTEXT,
    STORAGE_COMMITMENT,
    Accepted,
    Request,
    accept,
    is_storage,
    read_request,
    rejection,
    rejection_in_words,
)
from node.dicom.slots import Slots
from node.dicom.spool import Spool, SpoolFile
from node.dicom.streaming import (
    ASSOCIATE_RQ,
    RELEASE_RP,
    SOURCE_PROVIDER,
    SOURCE_USER,
    Aborted,
    Connection,
    Lost,
    Malformed,
    Reader,
    Released,
    TimedOut,
    WireError,
    p_data,
)
from node.dicom.tls import subject
from node.errors import NodeError, NotUnderstood, OutOfResources, Refused, WrongClass
from node.settings import Settings

LOGGER = logging.getLogger(__name__)

_RELEASE_RP = struct.pack(">BBII", RELEASE_RP, 0, 4, 0)
_RESPONSE_STEP = 1 << 14
_LAST_WORDS_S = 0.5


@dataclass(frozen=True)
class Caller:
    """Who calls. `tls_subject` is of the verified certificate, None on the plain port."""

    calling_aet: str
    called_aet: str
    host: str
    port: int
    tls_subject: str | None


@dataclass(frozen=True)
class Arrival:
    """One complete object, durable in the spool.

    path        Part 10 file; take() moves it away, and what is still there afterwards is removed
    size        bytes of the data set as received, without the file meta
    sha256      of exactly these bytes
    priority    DIMSE: 0 medium, 1 high, 2 low
    The UIDs are those of the command set; nobody has looked into the data set yet.
    """

    association: str
    caller: Caller
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int
    sha256: str
    priority: int


class Desk(Protocol):
    """What the rest of the node answers. Called from many threads at once."""

    def admit(self, caller: Caller) -> str:
        """The association's id. Raises UnknownCaller, WrongCalledTitle, OutOfResources (come back later)."""

    def take(self, arrival: Arrival) -> None:
        """Keep it, row and all, before returning: the sender is told success then. Raises a leaf of Refused."""

    def lost(self, association: str, sop_instance_uid: str, reason: str) -> None:
        """An object was begun but never offered to take(). The UID is empty where the sender gave none that is one."""

    def left(self, association: str, outcome: str, stored: int, refused: int) -> None:
        """The association is over: "released", "aborted", "lost" or "timed out"."""

    def committed(self, report: CommitmentReport) -> None:
        """A PACS reports on a commitment that was asked of it."""

    def has_room(self) -> str | None:
        """None, or in words why no object can be kept now."""


@dataclass(frozen=True)
class Service:
    """What all associations of one SCP share."""

    settings: Settings
    desk: Desk
    spool: Spool
    slots: Slots


class Session:
    """One connection from accept to close.

    expendable   there is no association on it (yet, or any more): it may be dropped to make room
    """

    def __init__(
        self, service: Service, connection: Connection, address: tuple[str, int], tls: ssl.SSLContext | None
    ) -> None:
        self.expendable = True
        self._service = service
        self._connection = connection
        self._host, self._port = address
        self._tls = tls
        self._reader = Reader(connection)
        self._stopping = self._busy = False
        self._caller = Caller("", "", self._host, self._port, None)
        self._association = ""
        self._contexts: dict[int, Accepted] = {}
        self._step = _RESPONSE_STEP
        self._stored = self._refused = 0

    def finish(self) -> None:
        """From another thread: end after the object that is coming in, or at once where there is none."""
        self._stopping = True
        if not self._busy:
            self._connection.interrupt()

    def cut(self) -> None:
        """From another thread: end now, whatever is under way."""
        self._connection.interrupt(socket.SHUT_RDWR)

    def run(self) -> None:
        """Entry point of the thread."""
        try:
            self._serve()
        except WireError as exc:
            LOGGER.info("%s port %d: no association: %s", self._host, self._port, exc)
        except Exception:
            LOGGER.exception("%s port %d: association broken by a fault of ours", self._host, self._port)
            self._connection.abort(SOURCE_USER)
        self._connection.close()

    def _serve(self) -> None:
        settings, connection = self._service.settings, self._connection
        certificate = None
        if self._tls is not None:
            connection.deadline = time.monotonic() + settings.tls_handshake_timeout_s
            try:
                certificate = connection.start_tls(self._tls)
            except OSError as exc:
                raise Lost(f"TLS handshake failed: {exc}") from exc
        connection.deadline = time.monotonic() + settings.association_timeout_s
        try:
            request = read_request(self._reader.pdu(expected=ASSOCIATE_RQ))
        except Malformed as exc:
            LOGGER.warning("%s port %d: %s", self._host, self._port, exc)
            connection.abort(SOURCE_PROVIDER, exc.reason)
            return connection.linger(settings.connection_timeout_s)
        self._caller = Caller(request.calling_aet, request.called_aet, self._host, self._port, subject(certificate))
        refusal: tuple[int, int, int] | None = status.REJECT_LOCAL_LIMIT
        with self._service.slots.one(self._host) as free:
            if free:
                refusal = self._admission(request)
            if refusal is None:
                self._converse(request)
        self.expendable = True
        if refusal is not None:
            why = rejection_in_words(*refusal)
            LOGGER.warning("%s port %d: %s rejected: %s", self._host, self._port, request.calling_aet, why)
            connection.send([rejection(*refusal)])
        return connection.linger(_LAST_WORDS_S if self._stopping else settings.connection_timeout_s)

    def _admission(self, request: Request) -> tuple[int, int, int] | None:
        """None: admitted, and `left` is owed. Else why not, in the terms of PS3.8 Table 9-21."""
        if not request.protocol_version & 1:
            return status.REJECT_PROTOCOL_VERSION
        if request.application_context != APPLICATION_CONTEXT:
            return status.REJECT_APPLICATION_CONTEXT
        try:
            self._association = self._service.desk.admit(self._caller)
        except Refused as exc:
            return status.rejection_of(exc)
        except Exception:
            LOGGER.exception("admission failed")
            return status.REJECT_FOR_NOW
        return None

    def _converse(self, request: Request) -> None:
        """From A-ASSOCIATE-AC to the end."""
        connection, outcome = self._connection, "aborted"
        try:
            self.expendable = False
            connection.deadline, connection.patience = math.inf, self._service.settings.dimse_timeout_s
            answer, self._contexts = accept(request, max_pdu=self._service.settings.max_pdu)
            self._step = max(1, min(_RESPONSE_STEP, (request.max_length or _RESPONSE_STEP) - 6))
            connection.send([answer])
            while True:
                self._message()
        except Released:
            outcome = "released"
            connection.send([_RELEASE_RP])
        except Aborted as exc:
            LOGGER.info("association %s: %s", self._association, exc)
            connection.close()  # PS3.8 9.2.1, AA-3: nothing is left to be said
        except TimedOut as exc:
            outcome = "timed out"
            LOGGER.warning("association %s: %s", self._association, exc)
            connection.abort(SOURCE_PROVIDER)
        except Malformed as exc:
            LOGGER.warning("association %s: %s", self._association, exc)
            connection.abort(SOURCE_PROVIDER, exc.reason)
        except Lost as exc:
            if self._stopping:
                connection.abort(SOURCE_USER)
            else:
                outcome = "lost"
                LOGGER.warning("association %s: %s", self._association, exc)
        finally:
            self._service.desk.left(self._association, outcome, self._stored, self._refused)

    def _message(self) -> None:
        """Wait for one message and answer it."""
        settings, connection = self._service.settings, self._connection
        self._busy = False
        if self._stopping:
            raise Lost("the node stops")
        connection.patience = settings.idle_timeout_s
        self._reader.peek()
        self._busy = True
        connection.patience = settings.dimse_timeout_s
        connection.deadline = time.monotonic() + settings.dimse_timeout_s  # nobody needs longer for a command
        context_id, encoded = self._reader.command()
        connection.deadline = math.inf
        if context_id not in self._contexts:
            raise Malformed(f"message on presentation context {context_id}, which was not accepted")
        context, command = self._contexts[context_id], Command.parse(encoded)
        operation = command.need(messages.COMMAND_FIELD)
        if operation == messages.C_CANCEL_RQ:
            return  # nothing of ours takes long enough to be cancelled
        if operation & messages.RESPONSE:
            raise Malformed("response to a request that was never made")
        command.need(messages.MESSAGE_ID)  # before anything is kept that could not be answered for
        services: dict[int, Callable[[Accepted, Command], tuple[int, str]]] = {
            messages.C_STORE_RQ: self._store,
            messages.C_ECHO_RQ: self._echo,
            messages.N_EVENT_REPORT_RQ: self._event_report,
        }
        code, comment = services.get(operation, self._unknown)(context, command)
        answer = messages.encode_command(messages.response_to(command, code, comment=comment))
        connection.send(p_data(context_id, answer, is_command=True, step=self._step))

    def _echo(self, context: Accepted, command: Command) -> tuple[int, str]:
        self._skip(context, command)
        return status.SUCCESS, ""

    def _unknown(self, context: Accepted, command: Command) -> tuple[int, str]:
        self._skip(context, command)
        return status.UNRECOGNISED_OPERATION, ""

    def _event_report(self, context: Accepted, command: Command) -> tuple[int, str]:
        """PS3.4 J.3.3: the report on a commitment, on an association that the PACS has opened."""
        if context.abstract_syntax != STORAGE_COMMITMENT or not command.has_data_set:
            return self._unknown(context, command)
        encoded = self._reader.data(context.context_id, most=MOST_REPORT)
        try:
            self._service.desk.committed(read_report(encoded, context.transfer_syntax))
        except (Malformed, NodeError) as exc:
            return status.PROCESSING_FAILURE, str(exc)
        except Exception:
            LOGGER.exception("association %s: commitment report failed", self._association)
            return status.PROCESSING_FAILURE, ""
        return status.SUCCESS, ""

    def _skip(self, context: Accepted, command: Command) -> None:
        if command.has_data_set:
            self._reader.pour(context.context_id, _let_go)

    def _store(self, context: Accepted, command: Command) -> tuple[int, str]:
        """PS3.4 B.2: success only once the object is synced and the desk has committed its row."""
        instance = command.text(messages.AFFECTED_INSTANCE)
        known = instance if messages.is_uid(instance) else ""
        error: NodeError | None = self._objection(context, command)
        file: SpoolFile | None = None
        if error is None:
            caller = self._caller.calling_aet
            meta = messages.file_meta(context.abstract_syntax, instance, context.transfer_syntax, caller)
            file = self._service.spool.file(meta)
        try:
            if command.has_data_set:
                self._reader.pour(context.context_id, file.write if file else _let_go)
        except WireError as exc:
            if file is not None:
                file.discard()
            self._service.desk.lost(self._association, known, str(exc))
            raise
        if file is not None:
            file.sync()
            error = OutOfResources(file.failure) if file.failure else self._offer(context, command, file)
        if error is None:
            self._stored += 1
            return status.SUCCESS, ""
        self._refused += 1
        if file is None or file.failure:
            self._service.desk.lost(self._association, known, error.reason)
        return status.status_of(error), error.reason

    def _objection(self, context: Accepted, command: Command) -> Refused | None:
        """Why this object is not even written down."""
        if not messages.is_uid(command.text(messages.AFFECTED_INSTANCE)):
            return NotUnderstood("the affected SOP instance UID is not a UID")
        if not is_storage(context.abstract_syntax) or command.text(messages.AFFECTED_CLASS) != context.abstract_syntax:
            return WrongClass("the affected SOP class is not that of the presentation context")
        if not command.has_data_set:
            return NotUnderstood("a C-STORE request without a data set")
        reason = self._service.desk.has_room()
        return OutOfResources(reason) if reason else None

    def _offer(self, context: Accepted, command: Command, file: SpoolFile) -> NodeError | None:
        priority = command.number(messages.PRIORITY)
        arrival = Arrival(
            association=self._association,
            caller=self._caller,
            path=file.path,
            sop_class_uid=context.abstract_syntax,
            sop_instance_uid=command.text(messages.AFFECTED_INSTANCE),
            transfer_syntax_uid=context.transfer_syntax,
            size=file.size,
            sha256=file.sha256,
            priority=priority if priority in (1, 2) else 0,
        )
        try:
            self._service.desk.take(arrival)
        except NodeError as exc:
            return exc
        except Exception:
            LOGGER.exception("association %s: an object could not be taken", self._association)
            return NodeError("internal fault")
        finally:
            file.discard()
        return None


def _let_go(pieces: list[memoryview]) -> None:
    """Sink for what is refused: the sender must get rid of it before it can be told."""
    del pieces
