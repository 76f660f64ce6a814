"""The desk behind the Storage SCP: who may come in, and what becomes of each object.

Objects of all associations that complete while one transaction is being committed are entered together in the next
(group commit): with many senders the database syncs once for many objects, with one sender at once for each.
"""

from __future__ import annotations

import queue
import threading
import uuid
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import FAILED, Action
from node.db import peers, receiving
from node.db.session import Database
from node.db.tables import AssociationRow, ConflictRow, InstanceRow, SeriesRow, StudyRow
from node.dicom.commit import CommitmentReport
from node.dicom.header import InstanceHeader, read_header
from node.dicom.receive import Arrival, Caller
from node.errors import Conflict, NodeError, OutOfResources, Refused, UnknownCaller, WrongCalledTitle, WrongClass
from node.jobs import deliver
from node.jobs.record import now, process_name, record
from node.settings import Settings

_MOST_TOGETHER = 256
_RETRIES = 5
_HIGH = 1  # DIMSE priority, PS3.7 E.1-1


@dataclass
class _Entry:
    """An object whose bytes are safe, waiting for its row."""

    arrival: Arrival
    header: InstanceHeader
    path: str
    urgent: bool
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class ReceivingDesk:
    """Implements node.dicom.receive.Desk on the database and the archive. Thread safe."""

    def __init__(self, settings: Settings, database: Database, archive: Archive) -> None:
        self._settings = settings
        self._database = database
        self._archive = archive
        self._receiver = f"{process_name('receive').split(':')[0]}:{settings.port}"
        self._entries: queue.Queue[_Entry | None] = queue.Queue()
        self._writer = threading.Thread(target=self._write_entries, name="receive-writer", daemon=True)

    def open(self) -> None:
        """Clear up behind a receiver that was killed, and begin to take."""
        self._archive.prepare()
        self._archive.clear_spool()
        with self._database.write() as session:
            for row in receiving.close_abandoned_associations(session, receiver=self._receiver, at=now()):
                record(
                    session,
                    Action.ASSOCIATION_CLOSED,
                    outcome=FAILED,
                    peer=row.calling_aet,
                    actor=self._receiver,
                    detail={"association": row.id, "outcome": row.outcome},
                )
        self._writer.start()

    def close(self) -> None:
        self._entries.put(None)
        self._writer.join(timeout=30)

    # -- associations

    def admit(self, caller: Caller) -> str:
        """The id of the association. raises UnknownCaller, WrongCalledTitle (both recorded)."""
        association = str(uuid.uuid4())
        detail = {
            "association": association,
            "host": caller.host,
            "called_aet": caller.called_aet,
            "tls_subject": caller.tls_subject,
        }
        with self._database.write() as session:
            refusal = self._why_not(session, caller)
            row = AssociationRow(
                id=association,
                calling_aet=caller.calling_aet,
                called_aet=caller.called_aet,
                host=caller.host,
                port=caller.port,
                tls_subject=caller.tls_subject,
                receiver=self._receiver,
                opened_at=now(),
            )
            if refusal is not None:
                row.outcome, row.closed_at = "refused", row.opened_at
                detail["reason"] = refusal.reason
            receiving.add_association(session, row)
            record(
                session,
                Action.ASSOCIATION_ADMITTED if refusal is None else Action.ASSOCIATION_REFUSED,
                outcome="success" if refusal is None else FAILED,
                peer=caller.calling_aet,
                actor=self._receiver,
                detail=detail,
            )
        if refusal is not None:
            raise refusal
        return association

    def _why_not(self, session: Session, caller: Caller) -> Refused | None:
        if caller.called_aet != self._settings.aet:
            return WrongCalledTitle(f"called AE title {caller.called_aet!r} is not {self._settings.aet!r}")
        peer = peers.peer(session, caller.calling_aet)
        if peer is None:
            return UnknownCaller(f"no peer {caller.calling_aet!r} is registered")
        if not peer.calls_from(caller.host):
            return UnknownCaller(f"peer {caller.calling_aet!r} is registered for {peer.host}, not {caller.host}")
        return None

    def left(self, association: str, outcome: str, stored: int, refused: int) -> None:
        with self._database.write() as session:
            row = receiving.close_association(
                session, association, at=now(), outcome=outcome, stored=stored, refused=refused
            )
            record(
                session,
                Action.ASSOCIATION_CLOSED,
                outcome="success" if outcome == "released" else FAILED,
                peer=row.calling_aet if row is not None else "",
                actor=self._receiver,
                detail={"association": association, "outcome": outcome, "stored": stored, "refused": refused},
            )

    def has_room(self) -> str | None:
        return self._archive.room()

    def committed(self, report: CommitmentReport) -> None:
        """A PACS says what it has taken responsibility for."""
        deliver.apply_report(self._database, self._settings, report)

    # -- objects

    def lost(self, association: str, sop_instance_uid: str, reason: str) -> None:
        """An object that was begun and not kept: on record, so that nobody need guess."""
        self._note(Action.INSTANCE_LOST, association, sop_instance_uid, reason)

    def _note(self, action: Action, association: str, sop_instance_uid: str, reason: str) -> None:
        with self._database.write() as session:
            row = session.get(AssociationRow, association)
            record(
                session,
                action,
                outcome=FAILED,
                peer=row.calling_aet if row is not None else "",
                actor=self._receiver,
                detail={"association": association, "sop_instance_uid": sop_instance_uid, "reason": reason},
            )

    def take(self, arrival: Arrival) -> None:
        """Returns once bytes and row are durable. raises a Refused leaf (recorded)."""
        try:
            entry = self._prepare(arrival)
        except NodeError as exc:
            self._note(Action.INSTANCE_REFUSED, arrival.association, arrival.sop_instance_uid, exc.reason)
            raise
        self._entries.put(entry)
        entry.done.wait()
        if entry.error is not None:
            raise entry.error

    def _prepare(self, arrival: Arrival) -> _Entry:
        with self._database.read() as session:
            peer = peers.peer(session, arrival.caller.calling_aet)
        if peer is None or not peer.may_send:
            raise UnknownCaller(f"peer {arrival.caller.calling_aet!r} may not send images (may_send = false)")
        header = read_header(arrival.path)
        if header.sop_instance_uid != arrival.sop_instance_uid:
            raise WrongClass("the SOP Instance UID of the data set is not that of the request")
        if header.sop_class_uid != arrival.sop_class_uid:
            raise WrongClass("the SOP Class UID of the data set is not that of the request")
        path = self._archive.keep(
            arrival.path,
            study=header.study_instance_uid,
            series=header.series_instance_uid,
            instance=header.sop_instance_uid,
            sha256=arrival.sha256,
        )
        urgent = header.urgent or arrival.priority == _HIGH or peer.priority == "stat"
        return _Entry(arrival, header, path, urgent)

    def _write_entries(self) -> None:
        """The one thread that enters objects."""
        while True:
            first = self._entries.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < _MOST_TOGETHER:
                try:
                    entry = self._entries.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    self._entries.put(None)
                    break
                batch.append(entry)
            self._enter_together(batch)

    def _enter_together(self, batch: list[_Entry]) -> None:
        for attempt in range(_RETRIES):
            try:
                with self._database.write() as session:
                    for entry in batch:
                        entry.error = self._enter(session, entry)
                break
            except IntegrityError:  # another receiver entered the same study or object first: look again
                if attempt == _RETRIES - 1:
                    self._fail(batch, "the database refused the row repeatedly")
            except Exception as exc:  # noqa: BLE001  (entry point of this thread: no sender may wait for ever)
                self._fail(batch, f"the database did not take the row ({type(exc).__name__})")
                break
        for entry in batch:
            entry.done.set()

    @staticmethod
    def _fail(batch: list[_Entry], reason: str) -> None:
        for entry in batch:
            entry.error = OutOfResources(reason)

    def _enter(self, session: Session, entry: _Entry) -> Refused | None:
        known = receiving.instance(session, entry.header.sop_instance_uid)
        if known is None:
            self._enter_new(session, entry)
            return None
        if known.sha256 == entry.arrival.sha256:
            self._record(session, Action.INSTANCE_DUPLICATE, entry)
            return None
        if receiving.conflict(session, known.id, entry.arrival.sha256) is None:
            receiving.add(
                session,
                ConflictRow(
                    instance_id=known.id,
                    association_id=entry.arrival.association,
                    path=entry.path,
                    sha256=entry.arrival.sha256,
                    received_at=now(),
                ),
            )
        reason = "this SOP Instance UID is here already with other bytes; this one was kept aside"
        self._record(session, Action.INSTANCE_CONFLICT, entry, outcome=FAILED, reason=reason, kept=known.sha256)
        return Conflict(reason)

    def _enter_new(self, session: Session, entry: _Entry) -> None:
        header, at = entry.header, now()
        own = header.own_result or receiving.is_result(session, header.sop_instance_uid)
        receiving.ensure_study(session, _study_row(header, at=at))
        receiving.ensure_series(session, _series_row(header))
        revision = None
        if not own:
            revision = receiving.receiving_revision(session, header.study_instance_uid)
            revision = revision or receiving.open_revision(
                session,
                header.study_instance_uid,
                source_aet=entry.arrival.caller.calling_aet,
                urgent=entry.urgent,
                at=at,
            )
            revision.images += 1
            revision.last_image_at = at
            revision.urgent = revision.urgent or entry.urgent
        row = InstanceRow(
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            revision_id=revision.id if revision is not None else None,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=entry.arrival.transfer_syntax_uid,
            association_id=entry.arrival.association,
            path=entry.path,
            size=entry.arrival.size,
            sha256=entry.arrival.sha256,
            received_at=at,
            header=header.to_json(),
        )
        receiving.add(session, row)
        self._record(session, Action.INSTANCE_OWN_RESULT if own else Action.INSTANCE_STORED, entry)

    def _record(
        self, session: Session, action: Action, entry: _Entry, *, outcome: str = "success", **more: str
    ) -> None:
        record(
            session,
            action,
            outcome=outcome,
            peer=entry.arrival.caller.calling_aet,
            study_instance_uid=entry.header.study_instance_uid,
            patient_id=entry.header.patient_id,
            actor=self._receiver,
            detail={
                "association": entry.arrival.association,
                "sop_instance_uid": entry.header.sop_instance_uid,
                "sha256": entry.arrival.sha256,
                "bytes": entry.arrival.size,
                **more,
            },
        )


def _study_row(header: InstanceHeader, *, at: object) -> StudyRow:
    return StudyRow(
        study_instance_uid=header.study_instance_uid,
        patient_id=header.patient_id,
        patient_name=header.patient_name,
        accession_number=header.accession_number,
        study_date=header.study_date,
        description=header.study_description,
        first_received_at=at,
    )


def _series_row(header: InstanceHeader) -> SeriesRow:
    return SeriesRow(
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        modality=header.modality,
        number=header.series_number,
        description=header.series_description,
    )
