"""Entering received objects: one transaction for all that are waiting, each sender told once it is committed."""

from __future__ import annotations

import datetime as dt
import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from node.audit.events import FAILED, Action
from node.db import entering, purging, receiving
from node.db.entering import Known
from node.db.lifecycle import RevisionState
from node.db.session import Database, is_away
from node.db.tables import ConflictRow, SeriesRow, StudyRow
from node.dicom.header import InstanceHeader
from node.dicom.receive import Arrival
from node.errors import Conflict, OutOfResources, Refused
from node.jobs.outage import AWAY, Outage
from node.jobs.record import now, record

log = logging.getLogger(__name__)

_MOST_TOGETHER = 256
_RETRIES = 5
_MOST_REMEMBERED = 100_000

CONFLICT = "this SOP Instance UID is here already with other bytes; this one was kept aside"
GOING = "its file was being deleted by the retention policy as it came: send it again"


@dataclass
class Entry:
    """An object whose bytes are safe, waiting for its row."""

    arrival: Arrival
    header: InstanceHeader
    path: str
    urgent: bool
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Entries:
    """The one thread that enters objects; what arrives while it commits goes into its next transaction."""

    def __init__(self, database: Database, outage: Outage, *, is_there: Callable[[str], bool], actor: str) -> None:
        """is_there     whether the archive holds a file, by its path"""
        self._database = database
        self._outage = outage
        self._is_there = is_there
        self._actor = actor
        self._waiting: queue.Queue[Entry | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="receive-writer", daemon=True)
        self._series: set[tuple[str, str]] = set()
        """(study, series) known to be in the database; rows of both are never removed."""
        self._receiving: dict[str, int] = {}
        """Study → the revision that took its last image; asked before it is believed."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._waiting.put(None)
        self._thread.join(timeout=30)

    def enter(self, entry: Entry) -> None:
        """Returns once the row is committed. raises Conflict, OutOfResources"""
        self._waiting.put(entry)
        entry.done.wait()
        if entry.error is not None:
            raise entry.error

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < _MOST_TOGETHER:
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    self._waiting.put(None)
                    break
                batch.append(entry)
            self._commit(batch)

    def _commit(self, batch: list[Entry]) -> None:
        for attempt in range(_RETRIES):
            try:
                with self._database.write() as session:
                    errors = self._enter_all(session, batch)
                for entry, error in zip(batch, errors, strict=True):
                    entry.error = error
                break
            except IntegrityError:  # another receiver entered the same study or object first: look again
                self._forget()
                if attempt == _RETRIES - 1:
                    self._fail(batch, "the database refused the row repeatedly")
            except Exception as exc:  # noqa: BLE001  (entry point of this thread: no sender may wait for ever)
                self._forget()
                self._not_taken(batch, exc)
                break
        for entry in batch:
            entry.done.set()

    def _not_taken(self, batch: list[Entry], exc: Exception) -> None:
        if not (isinstance(exc, SQLAlchemyError) and is_away(exc)):
            log.error("objects could not be entered: %d", len(batch), exc_info=exc)
            self._fail(batch, f"the database did not take the row ({type(exc).__name__})")
            return
        self._outage.begin(exc)
        self._fail(batch, AWAY)
        for entry in batch:
            self._outage.write(partial(self._record_refused, entry=entry, at=now()))

    def _record_refused(self, session: Session, *, entry: Entry, at: dt.datetime) -> None:
        self._record(session, Action.INSTANCE_REFUSED, entry, outcome=FAILED, at=at, reason=AWAY)

    def _forget(self) -> None:
        self._series.clear()
        self._receiving.clear()

    @staticmethod
    def _fail(batch: list[Entry], reason: str) -> None:
        for entry in batch:
            entry.error = OutOfResources(reason)

    def _enter_all(self, session: Session, batch: Sequence[Entry]) -> list[Refused | None]:
        """One outcome per entry, in order; the same object twice in one batch is entered once."""
        found, own = entering.known_instances(session, [entry.header.sop_instance_uid for entry in batch])
        fresh: dict[str, Entry] = {}
        again: list[tuple[Entry, str]] = []
        for entry in batch:
            uid = entry.header.sop_instance_uid
            if uid in found:
                again.append((entry, found[uid].sha256))
            elif uid in fresh:
                again.append((entry, fresh[uid].arrival.sha256))
            else:
                fresh[uid] = entry
        self._touch(session, found.values(), fresh.values())
        back, errors = self._come_back(session, again, found)
        self._enter_fresh(session, list(fresh.values()), own, back)
        done = {*map(id, back), *errors}
        for entry, sha256 in again:
            if id(entry) not in done and (error := self._enter_again(session, entry, sha256)) is not None:
                errors[id(entry)] = error
        return [errors.get(id(entry)) for entry in batch]

    def _touch(self, session: Session, known: Iterable[Known], fresh: Iterable[Entry]) -> None:
        """Studies first and in one order, then revisions likewise: so two receivers never wait for each other."""
        begun = {entry.header.study_instance_uid for entry in fresh} - self._receiving.keys()
        for study in sorted(begun | {one.study_instance_uid for one in known}):
            entering.touch(session, study, at=now())

    def _come_back(
        self, session: Session, again: Sequence[tuple[Entry, str]], found: Mapping[str, Known]
    ) -> tuple[list[Entry], dict[int, Refused]]:
        """The same bytes as those that were deleted here: held again; or why not, by the id of the entry."""
        purged = entering.purged_instances(session, [known.instance_id for known in found.values()])
        back: list[Entry] = []
        errors: dict[int, Refused] = {}
        for entry, sha256 in again:
            known = found.get(entry.header.sop_instance_uid)
            if known is None or known.instance_id not in purged or sha256 != entry.arrival.sha256:
                continue
            if not self._is_there(entry.path):
                errors[id(entry)] = OutOfResources(GOING)
                self._record(session, Action.INSTANCE_REFUSED, entry, outcome=FAILED, reason=GOING)
                continue
            entering.hold_again(
                session, known.instance_id, path=entry.path, transfer_syntax_uid=entry.arrival.transfer_syntax_uid
            )
            purging.hold(session, known.study_instance_uid)
            self._record(session, Action.INSTANCE_HELD_AGAIN, entry)
            back.append(entry)
        return back, errors

    def _enter_fresh(self, session: Session, fresh: Sequence[Entry], own: set[str], back: Sequence[Entry]) -> None:
        ours = {e.header.sop_instance_uid for e in fresh if e.header.own_result or e.header.sop_instance_uid in own}
        by_study: dict[str, list[Entry]] = defaultdict(list)
        for entry in fresh:
            self._ensure_series(session, entry.header)
            if entry.header.sop_instance_uid not in ours:
                by_study[entry.header.study_instance_uid].append(entry)
        revisions = self._revisions(session, by_study, back)
        at = now()
        values = []
        for entry in fresh:
            is_own = entry.header.sop_instance_uid in ours
            revision_id = None if is_own else revisions[entry.header.study_instance_uid]
            values.append({**_instance(entry), "revision_id": revision_id, "received_at": at})
            self._record(session, Action.INSTANCE_OWN_RESULT if is_own else Action.INSTANCE_STORED, entry)
        if values:
            entering.add_instances(session, values)
        for study in sorted({e.header.study_instance_uid for e in fresh if e.header.sop_instance_uid in ours}):
            purging.hold(session, study)  # behind the insert, as receiving.open_revision does

    def _revisions(
        self, session: Session, by_study: Mapping[str, Sequence[Entry]], back: Sequence[Entry]
    ) -> dict[str, int]:
        """The revision of each study that takes what is new; what has come back belongs to the one it had."""
        returned: dict[str, list[Entry]] = defaultdict(list)
        for entry in back:
            returned[entry.header.study_instance_uid].append(entry)
        revisions = {}
        for study in sorted({*by_study, *returned}):
            if study in by_study:
                revisions[study] = self._revision(session, study, by_study[study])
            else:
                self._go_on(session, study, returned[study])
        return revisions

    def _go_on(self, session: Session, study: str, back: Sequence[Entry]) -> None:
        """Images that a revision had to do without have come back: the next one is to have them.

        Where none did without them, what was reported stands, and a second result would say nothing new.
        """
        newest = receiving.newest_revision(session, study)
        if newest is None:
            return
        missed = {entry["series_instance_uid"] for entry in newest.selection if entry.get("missing")}
        if newest.state == RevisionState.RECEIVING or missed & {entry.header.series_instance_uid for entry in back}:
            self._revision(session, study, back, new=0)

    def _ensure_series(self, session: Session, header: InstanceHeader) -> None:
        key = (header.study_instance_uid, header.series_instance_uid)
        if key in self._series:
            return
        receiving.ensure_study(session, _study_row(header))
        receiving.ensure_series(session, _series_row(header))
        if len(self._series) >= _MOST_REMEMBERED:
            self._forget()
        self._series.add(key)  # forgotten again should this transaction fail

    def _revision(self, session: Session, study: str, entries: Sequence[Entry], *, new: int | None = None) -> int:
        """The revision that takes these images, counted in: all of them, or so many as are new."""
        urgent, at = any(entry.urgent for entry in entries), now()
        images = len(entries) if new is None else new
        known = self._receiving.get(study)
        if known is not None and entering.count_images(session, known, images, at=at, urgent=urgent):
            return known
        row = receiving.receiving_revision(session, study) or receiving.open_revision(
            session, study, source_aet=entries[0].arrival.caller.calling_aet, urgent=urgent, at=at
        )
        if not entering.count_images(session, row.id, images, at=at, urgent=urgent):
            raise OutOfResources("the revision was closed while its row was locked")
        self._receiving[study] = row.id
        return row.id

    def _enter_again(self, session: Session, entry: Entry, sha256: str) -> Conflict | None:
        """An object whose UID is here already: the same bytes are a success, others are kept aside."""
        if sha256 == entry.arrival.sha256:
            self._record(session, Action.INSTANCE_DUPLICATE, entry)
            return None
        first = receiving.received(session, entry.header.sop_instance_uid)
        aside = receiving.conflict(session, first.id, entry.arrival.sha256)
        if aside is None:
            receiving.add(
                session,
                ConflictRow(
                    instance_id=first.id,
                    association_id=entry.arrival.association,
                    path=entry.path,
                    sha256=entry.arrival.sha256,
                    received_at=now(),
                ),
            )
        elif aside.purged_at is not None and self._is_there(entry.path):
            aside.purged_at, aside.path, aside.received_at = None, entry.path, now()
        purging.hold(session, first.study_instance_uid)
        self._record(session, Action.INSTANCE_CONFLICT, entry, outcome=FAILED, reason=CONFLICT, kept=sha256)
        return Conflict(CONFLICT)

    def _record(
        self,
        session: Session,
        action: Action,
        entry: Entry,
        *,
        outcome: str = "success",
        at: dt.datetime | None = None,
        **more: str,
    ) -> None:
        record(
            session,
            action,
            at=at,
            outcome=outcome,
            peer=entry.arrival.caller.calling_aet,
            study_instance_uid=entry.header.study_instance_uid,
            patient_id=entry.header.patient_id,
            actor=self._actor,
            detail={
                "association": entry.arrival.association,
                "sop_instance_uid": entry.header.sop_instance_uid,
                "sha256": entry.arrival.sha256,
                "bytes": entry.arrival.size,
                **more,
            },
        )


def _instance(entry: Entry) -> Mapping[str, Any]:
    return {
        "sop_instance_uid": entry.header.sop_instance_uid,
        "series_instance_uid": entry.header.series_instance_uid,
        "study_instance_uid": entry.header.study_instance_uid,
        "sop_class_uid": entry.header.sop_class_uid,
        "transfer_syntax_uid": entry.arrival.transfer_syntax_uid,
        "association_id": entry.arrival.association,
        "path": entry.path,
        "size": entry.arrival.size,
        "sha256": entry.arrival.sha256,
        "header": entry.header.to_json(),
    }


def _study_row(header: InstanceHeader) -> StudyRow:
    return StudyRow(
        study_instance_uid=header.study_instance_uid,
        patient_id=header.patient_id,
        patient_name=header.patient_name,
        accession_number=header.accession_number,
        study_date=header.study_date,
        description=header.study_description,
        first_received_at=now(),
    )


def _series_row(header: InstanceHeader) -> SeriesRow:
    return SeriesRow(
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        modality=header.modality,
        number=header.series_number,
        description=header.series_description,
    )
