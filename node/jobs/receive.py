"""The desk behind the Storage SCP: who may come in, and what becomes of each object."""

from __future__ import annotations

import datetime as dt
import socket
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import FAILED, Action
from node.db import peers, receiving
from node.db.session import Database
from node.db.tables import AssociationRow
from node.dicom.commit import CommitmentReport
from node.dicom.header import read_header
from node.dicom.receive import Arrival, Caller
from node.errors import NodeError, OutOfResources, Refused, UnknownCaller, WrongCalledTitle, WrongClass
from node.jobs import deliver
from node.jobs.entry import Entries, Entry
from node.jobs.outage import AWAY, Outage
from node.jobs.record import now, record
from node.settings import Peer, Settings

_HIGH = 1  # DIMSE priority, PS3.7 E.1-1
_MOST_TURNED_AWAY = 1000
_OTHERS = Caller("", "", "", 0, None)
"""All beyond, together."""


@dataclass
class _Tally:
    """How often a caller was turned away."""

    since: dt.datetime
    times: int = 0


class ReceivingDesk:
    """Implements node.dicom.receive.Desk on the database and the archive. Thread safe."""

    def __init__(self, settings: Settings, database: Database, archive: Archive) -> None:
        self._settings = settings
        self._database = database
        self._archive = archive
        self._receiver = f"receive@{socket.gethostname()}:{settings.port}"
        self.spool = archive.spool_of(f"{socket.gethostname()}:{settings.port}")
        self._outage = Outage(database)
        self._turned_away: dict[Caller, _Tally] = {}
        """Who called while the database was away."""
        self._lock = threading.Lock()
        self._entries = Entries(database, self._outage, is_there=archive.holds, actor=self._receiver)
        self._senders: dict[str, Peer] = {}
        """The peer of each open association, as it was when it was admitted."""

    def open(self) -> None:
        """Clear up behind a receiver that was killed, and begin to take. (The SCP clears the spool.)"""
        self._archive.prepare()
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
        self._entries.start()

    def close(self) -> None:
        self._entries.stop()
        self._outage.close()

    # -- associations

    def admit(self, caller: Caller) -> str:
        """The id of the association. raises UnknownCaller, WrongCalledTitle, OutOfResources (all recorded)"""
        try:
            with self._outage.noticed():
                return self._admit(caller)
        except OutOfResources:
            self._turn_away(caller)
            raise

    def _turn_away(self, caller: Caller) -> None:
        """One event for each caller, however often it tries before the database is back."""
        who = replace(caller, port=0)
        with self._lock:
            if who not in self._turned_away and len(self._turned_away) >= _MOST_TURNED_AWAY:
                who = _OTHERS
            tally = self._turned_away.setdefault(who, _Tally(now()))
            tally.times += 1
            is_first = tally.times == 1
        if is_first:
            self._outage.write(partial(self._record_turned_away, who=who, tally=tally))

    def _record_turned_away(self, session: Session, *, who: Caller, tally: _Tally) -> None:
        with self._lock:
            self._turned_away.pop(who, None)
        record(
            session,
            Action.ASSOCIATION_REFUSED,
            at=tally.since,
            outcome=FAILED,
            peer=who.calling_aet,
            actor=self._receiver,
            detail={
                "host": who.host,
                "called_aet": who.called_aet,
                "tls_subject": who.tls_subject,
                "reason": AWAY,
                "times": tally.times,
            },
        )

    def _admit(self, caller: Caller) -> str:
        association = str(uuid.uuid4())
        detail = {
            "association": association,
            "host": caller.host,
            "called_aet": caller.called_aet,
            "tls_subject": caller.tls_subject,
        }
        with self._database.read() as session:
            peer = peers.peer(session, caller.calling_aet)
        refusal = self._why_not(peer, caller)  # may ask a slow name server: within no transaction
        with self._database.write() as session:
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
        if peer is not None:
            self._senders[association] = peer
        return association

    def turned_away(self, host: str, reason: str) -> None:
        at = now()
        detail = {"host": host, "reason": f"TLS: {reason}"}

        def note(session: Session) -> None:
            record(session, Action.ASSOCIATION_REFUSED, at=at, outcome=FAILED, actor=self._receiver, detail=detail)

        self._outage.write(note)

    def _why_not(self, peer: Peer | None, caller: Caller) -> Refused | None:
        if caller.called_aet != self._settings.aet:
            return WrongCalledTitle(f"called AE title {caller.called_aet!r} is not {self._settings.aet!r}")
        if peer is None:
            return UnknownCaller(f"no peer {caller.calling_aet!r} is registered")
        try:
            is_known = peer.calls_from(caller.host)
        except OSError as exc:
            return UnknownCaller(
                f"the name {peer.host} of peer {caller.calling_aet!r} could not be resolved ({exc.strerror or exc})"
            )
        if not is_known:
            return UnknownCaller(f"peer {caller.calling_aet!r} is registered for {peer.host}, not {caller.host}")
        return None

    def left(self, association: str, outcome: str, stored: int, refused: int, not_accepted: Sequence[str]) -> None:
        self._senders.pop(association, None)
        at = now()

        def close(session: Session) -> None:
            row = receiving.close_association(
                session, association, at=at, outcome=outcome, stored=stored, refused=refused
            )
            record(
                session,
                Action.ASSOCIATION_CLOSED,
                at=at,
                outcome="success" if outcome == "released" else FAILED,
                peer=row.calling_aet if row is not None else "",
                actor=self._receiver,
                detail={
                    "association": association,
                    "outcome": outcome,
                    "stored": stored,
                    "refused": refused,
                    "not_accepted": list(not_accepted),
                },
            )

        self._outage.write(close)

    def has_room(self) -> str | None:
        return self._archive.room()

    def committed(self, report: CommitmentReport) -> None:
        """A PACS says what it has taken responsibility for."""
        with self._outage.noticed():
            deliver.apply_report(self._database, self._settings, report)

    # -- objects

    def lost(self, association: str, sop_instance_uid: str, reason: str) -> None:
        """An object that was begun and not kept: on record, so that nobody need guess."""
        self._note(Action.INSTANCE_LOST, association, sop_instance_uid, reason)

    def _note(self, action: Action, association: str, sop_instance_uid: str, reason: str) -> None:
        at = now()

        def note(session: Session) -> None:
            row = session.get(AssociationRow, association)
            record(
                session,
                action,
                at=at,
                outcome=FAILED,
                peer=row.calling_aet if row is not None else "",
                actor=self._receiver,
                detail={"association": association, "sop_instance_uid": sop_instance_uid, "reason": reason},
            )

        self._outage.write(note)

    def take(self, arrival: Arrival) -> None:
        """Returns once bytes and row are durable. raises a Refused leaf (recorded)."""
        try:
            entry = self._prepare(arrival)
        except NodeError as exc:
            self._note(Action.INSTANCE_REFUSED, arrival.association, arrival.sop_instance_uid, exc.reason)
            raise
        except OSError as exc:
            reason = f"the object could not be read again ({exc.strerror})"
            self.lost(arrival.association, arrival.sop_instance_uid, reason)
            raise OutOfResources(reason) from exc
        self._entries.enter(entry)

    def _prepare(self, arrival: Arrival) -> Entry:
        peer = self._senders.get(arrival.association)
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
        return Entry(arrival, header, path, urgent)
