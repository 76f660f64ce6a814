"""One association as acceptor: who calls, what is done with each message, and that its end is told once.

source  PS3.7 9.3 and 10.3 (messages), PS3.4 Annex A, B and J (services)
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from node.dicom import messages, status
from node.dicom.commit import MOST_REPORT, CommitmentReport, read_report
from node.dicom.fragments import Malformed, NotData, Reader, p_data
from node.dicom.messages import Command
from node.dicom.negotiation import (
    APPLICATION_CONTEXT,
    STORAGE_COMMITMENT,
    VERIFICATION,
    Accepted,
    accepted,
    is_storage,
    rejection_in_words,
    settle,
)
from node.dicom.slots import Slots
from node.dicom.spool import Spool, SpoolFile
from node.dicom.streaming import Foreign
from node.dicom.transport import Lobby
from node.errors import NodeError, NotUnderstood, OutOfResources, Refused, WrongClass
from node.settings import Settings

LOGGER = logging.getLogger(__name__)

_RESPONSE_STEP = 1 << 14


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

    def turned_away(self, host: str, reason: str) -> None:
        """Somebody came no further than the TLS handshake, so that nobody knows as whom it would have called."""

    def take(self, arrival: Arrival) -> None:
        """Keep it, row and all, before returning: the sender is told success then. Raises a leaf of Refused."""

    def lost(self, association: str, sop_instance_uid: str, reason: str) -> None:
        """An object was begun but never offered to take(). The UID is empty where the sender gave none that is one."""

    def left(self, association: str, outcome: str, stored: int, refused: int, not_accepted: Sequence[str]) -> None:
        """The association is over: "released", "aborted", "lost" or "timed out".

        not_accepted    SOP classes that were proposed and got no presentation context: what was never sent
        """

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
    lobby: Lobby
    slots: Slots


class Session:
    """What an association is to the node. One thread serves its messages; admission and end may come from others."""

    def __init__(self, service: Service, address: tuple[str, int], tls_subject: str | None) -> None:
        self._service = service
        self._address = address
        self._tls_subject = tls_subject
        self._caller = Caller("", "", *address, tls_subject)
        self._association: str | None = None
        self._wire: Any = None
        self._not_accepted: Callable[[], list[str]] = list
        self._contexts: dict[int, Accepted] = {}
        self._step = _RESPONSE_STEP
        self._stored = self._refused = 0
        self._over = False
        self._slot = ExitStack()
        self._lock = threading.Lock()

    # admission, and the end

    def requested(self, event: Any) -> None:
        """Handler of EVT_REQUESTED, in the association's own thread: reject, or say what is supported."""
        association, request = event.assoc, event.assoc.requestor.primitive
        self._wire = association.dul.socket
        self._not_accepted = lambda: sorted({str(cx.abstract_syntax) for cx in association.rejected_contexts})
        self._wire.deadline = math.inf
        association.acceptor.supported_contexts = settle(request.presentation_context_definition_list)
        titles = str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()
        self._caller = Caller(*titles, *self._address, self._tls_subject)
        refusal = self._admission(str(request.application_context_name or ""))
        if refusal is not None:
            why = rejection_in_words(*refusal)
            LOGGER.warning("%s port %d: %s rejected: %s", *self._address, self._caller.calling_aet, why)
            association.acse.send_reject(*refusal)
            association.kill()

    def _admission(self, application_context: str) -> tuple[int, int, int] | None:
        """None: admitted, and `left` is owed. Else why not, in the terms of PS3.8 Table 9-21."""
        if application_context != APPLICATION_CONTEXT:
            return status.REJECT_APPLICATION_CONTEXT
        if not self._slot.enter_context(self._service.slots.one(self._caller.host)):
            return status.REJECT_LOCAL_LIMIT
        association, refusal = None, status.REJECT_FOR_NOW
        try:
            association = self._service.desk.admit(self._caller)
        except Refused as exc:
            refusal = status.rejection_of(exc)
        except Exception:
            LOGGER.exception("admission failed")
        if association is None:
            self._slot.close()
            return refusal
        self._service.lobby.leave(self._wire.socket)
        with self._lock:
            self._association = association
            gone, self._over = self._over, False
        if gone:  # while the desk was thinking
            self.leave("lost")
        return None

    def leave(self, outcome: str) -> None:
        """No more messages. Only the first call counts."""
        with self._lock:
            if self._over:
                return
            self._over = True
        if self._association is None:
            return
        self._slot.close()
        self._service.lobby.enter(self._wire.socket)
        self._service.desk.left(self._association, outcome, self._stored, self._refused, self._not_accepted())

    # messages

    def serve(self, association: Any, reader: Reader) -> list[bytes | memoryview] | Foreign:
        """One message: its answer as PDUs, or its fragments where pynetdicom is to answer. Raises as Reader."""
        if not self._contexts:
            self._contexts = accepted(association)
            self._step = max(1, min(_RESPONSE_STEP, (association.requestor.maximum_length or _RESPONSE_STEP) - 6))
        patience = self._service.settings.dimse_timeout_s
        self._wire.patience = patience
        self._wire.deadline = time.monotonic() + patience  # nobody needs longer for a command
        context_id, encoded = reader.command()
        self._wire.deadline = math.inf
        if context_id not in self._contexts:
            raise Malformed(f"message on presentation context {context_id}, which was not accepted")
        context, command = self._contexts[context_id], Command.parse(encoded)
        operation = command.need(messages.COMMAND_FIELD)
        if operation == messages.C_CANCEL_RQ:
            return []  # nothing of ours takes long enough to be cancelled
        if operation & messages.RESPONSE:
            raise Malformed("response to a request that was never made")
        command.need(messages.MESSAGE_ID)  # before anything is kept that could not be answered for
        if operation == messages.C_STORE_RQ:
            code, comment = self._store(context, command, reader)
        elif _is_pynetdicoms(context, command):
            fragments = [(context_id, b"\x03" + encoded)]
            if command.has_data_set:
                fragments.append((context_id, b"\x02" + reader.data(context_id, most=MOST_REPORT)))
            return Foreign(fragments)
        else:
            if command.has_data_set:
                reader.pour(context_id, _let_go)
            code, comment = status.UNRECOGNISED_OPERATION, ""
        answer = messages.encode_command(messages.response_to(command, code, comment=comment))
        return p_data(context_id, answer, is_command=True, step=self._step)

    def event_report(self, event: Any) -> tuple[int, None]:
        """Handler of EVT_N_EVENT_REPORT, PS3.4 J.3.3: a commitment reported on an association that the PACS opened."""
        encoded = event.request.EventInformation
        if encoded is None:
            return status.MISTYPED_ARGUMENT, None
        try:
            self._service.desk.committed(read_report(encoded.getvalue(), str(event.context.transfer_syntax)))
        except (Malformed, NodeError) as exc:
            LOGGER.warning("association %s: commitment report not taken: %s", self._association, exc)
            return status.PROCESSING_FAILURE, None
        except Exception:
            LOGGER.exception("association %s: commitment report failed", self._association)
            return status.PROCESSING_FAILURE, None
        return status.SUCCESS, None

    def _store(self, context: Accepted, command: Command, reader: Reader) -> tuple[int, str]:
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
                reader.pour(context.context_id, file.write if file else _let_go)
        except (OSError, Malformed, NotData) as exc:
            if file is not None:
                file.discard()
            self._service.desk.lost(self._association or "", known, str(exc))
            raise
        if file is not None:
            file.sync()
            error = OutOfResources(file.failure) if file.failure else self._offer(context, command, file)
        if error is None:
            self._stored += 1
            return status.SUCCESS, ""
        self._refused += 1
        if file is None or file.failure:
            self._service.desk.lost(self._association or "", known, error.reason)
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
            association=self._association or "",
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


def _is_pynetdicoms(context: Accepted, command: Command) -> bool:
    """Whether this is a request of a service that pynetdicom answers, whole enough that it will."""
    operation, kind = command.number(messages.COMMAND_FIELD), context.abstract_syntax
    if command.text(messages.AFFECTED_CLASS) != kind:
        return False
    if operation == messages.C_ECHO_RQ:
        return kind == VERIFICATION
    named = (
        messages.is_uid(command.text(messages.AFFECTED_INSTANCE)) and command.number(messages.EVENT_TYPE) is not None
    )
    return operation == messages.N_EVENT_REPORT_RQ and kind == STORAGE_COMMITMENT and named


def _let_go(pieces: list[memoryview]) -> None:
    """Sink for what is refused: the sender must get rid of it before it can be told."""
    del pieces
