"""Results to peers: send, prove, and only then say "delivered".

Passing failures wait, each time longer; a peer that cannot be reached opens its breaker and disturbs nobody else;
permanent failures become dead letters that `pacsnode resend` puts back.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import FAILED, FAILED_FOR_NOW, Action
from node.db import deliveries, peers, receiving
from node.db.lifecycle import DeliveryState, RevisionState
from node.db.session import Database
from node.db.tables import DeliveryRow, ResultRow
from node.dicom.commit import CommitmentReport, request_commitment
from node.dicom.query import find_instances
from node.dicom.send import Outgoing, Sent, send
from node.errors import (
    ConfigurationError,
    NoCommonContext,
    NodeError,
    PeerBusy,
    PeerUnreachable,
    Permanent,
    ResultLost,
    Transient,
)
from node.jobs import patience, withhold
from node.jobs.reconcile import note, reconcile
from node.jobs.record import now, record
from node.settings import Peer, Settings

_PROOF_GRACE_S = 30.0
"""Between "sent" and the request for proof; only a deliverer that dies there leaves it to the clock."""

_MOST_BREAKS = 5
"""Associations in one go to a peer that breaks them."""


@dataclass(frozen=True)
class Deliverer:
    """Carries what is due for one peer and revision over one association."""

    settings: Settings
    database: Database
    archive: Archive
    actor: str

    def deliver(self, revision_id: int, peer_aet: str) -> None:
        """Send what is due, then ask for proof of what was sent. Harmless when called twice."""
        if withhold.recall(self.database, revision_id, actor=self.actor):
            with self.database.write() as session:
                self._finish(session, revision_id)
        with self.database.write() as session:
            peer = peers.peer(session, peer_aet)
            rows = deliveries.claim(
                session,
                revision_id=revision_id,
                peer_aet=peer_aet,
                now=now(),
                lease_until=self._lease(),
            )
            results = {row.sop_instance_uid: deliveries.result(session, row.sop_instance_uid) for row in rows}
            if peer is None or peer.port is None:
                unproved = deliveries.to_prove(session, revision_id=revision_id, peer_aet=peer_aet, now=now())
                reason = f"peer {peer_aet} is no longer configured to receive"
                for row in rows:
                    self._bury(session, row, reason)
                for row in unproved:
                    self._bury(session, row, f"sent, but never proved to be stored: {reason}", status=row.status)
                self._finish(session, revision_id)
                return
        if rows:
            self._send(peer, rows, results)
        self._prove(peer, revision_id)

    def _lease(self) -> dt.datetime:
        return now() + dt.timedelta(seconds=self.settings.lease_s)

    # -- send

    def _send(self, peer: Peer, rows: Sequence[DeliveryRow], results: dict[str, ResultRow]) -> None:
        readable, outcomes = self._readable(rows, results)
        ids = [row.id for row in rows]
        if peer.reconcile:
            self._renew(ids)
        this_round = reconcile(self.settings, self.database, peer, rows[0].revision_id, readable)
        sent, unreachable = self._send_all(peer, this_round.objects, ids)
        outcomes.update({item.sop_instance_uid: item for item in sent})
        taken = {item.sop_instance_uid for item in sent if item.error is None}
        with self.database.write() as session:
            untried = [row for row in rows if _is_untried(outcomes[row.sop_instance_uid], unreachable)]
            if unreachable is not None and untried:
                self._put_all_back(session, untried, unreachable)
            for row in rows:
                outcome = outcomes[row.sop_instance_uid]
                if row in untried:
                    continue
                if isinstance(outcome.error, PeerUnreachable):  # one of several breaks in one go
                    self._put_back(session, row, outcome.error, dt.timedelta(seconds=self.settings.retry_first_s))
                else:
                    self._settle(session, row, results[row.sop_instance_uid], outcome, peer)
            note(session, peer, rows[0].revision_id, taken, this_round, self.actor)
            self._note_peer(session, peer, unreachable)
            self._finish(session, rows[0].revision_id)

    def _send_all(
        self, peer: Peer, outgoing: Sequence[Outgoing], ids: Sequence[int]
    ) -> tuple[list[Sent], NodeError | None]:
        """(one outcome per object, why no association could be had: refused for good too, since people mend that).

        Where a standing association breaks, the object at which it broke has failed (PeerBusy), and those behind it
        go over another association, a few times; what is then still untried has PeerUnreachable.
        """
        answers: list[Sent] = []
        rest = list(outgoing)
        for _ in range(_MOST_BREAKS):
            if not rest:
                break
            self._renew(ids)
            try:
                sent = send(self.settings, peer, rest, on_progress=self._renewal(ids))
            except (Transient, Permanent, ConfigurationError) as exc:
                return answers + [Sent(item.sop_instance_uid, None, exc) for item in rest], exc
            broken = [place for place, item in enumerate(sent) if isinstance(item.error, PeerUnreachable)]
            place = broken[0] if broken else len(sent)
            answers += sent[:place]
            if broken and sent[place].error is not None:
                error = PeerBusy(f"the association broke while this object was sent: {sent[place].error}")
                answers.append(Sent(sent[place].sop_instance_uid, None, error))
            rest = rest[place + 1 :]
        untried = PeerUnreachable("not tried: the association broke at the objects before it")
        return answers + [Sent(item.sop_instance_uid, None, untried) for item in rest], None

    def _renew(self, ids: Sequence[int]) -> None:
        with self.database.write() as session:
            deliveries.renew(session, ids, lease_until=self._lease())

    def _renewal(self, ids: Sequence[int]) -> Callable[[int, int], None]:
        """A progress callback that keeps the lease alive."""
        renewed = now()

        def renew(_done: int, _total: int) -> None:
            nonlocal renewed
            if now() - renewed > dt.timedelta(seconds=self.settings.lease_s / 4):
                renewed = now()
                self._renew(ids)

        return renew

    def _readable(
        self, rows: Sequence[DeliveryRow], results: dict[str, ResultRow]
    ) -> tuple[list[Outgoing], dict[str, Sent]]:
        """What can go out; a result whose file is not what was written never leaves."""
        outgoing, outcomes = [], {}
        for row in rows:
            result = results[row.sop_instance_uid]
            try:
                self.archive.verify(result.path, result.sha256)
            except ResultLost as exc:
                outcomes[row.sop_instance_uid] = Sent(row.sop_instance_uid, None, exc)
                continue
            outgoing.append(
                Outgoing(
                    path=self.archive.path(result.path),
                    sop_class_uid=result.sop_class_uid,
                    sop_instance_uid=result.sop_instance_uid,
                    transfer_syntax_uid=result.transfer_syntax_uid,
                )
            )
        return outgoing, outcomes

    def _settle(self, session: Session, row: DeliveryRow, result: ResultRow, sent: Sent, peer: Peer) -> None:
        """One outcome of one object."""
        if sent.error is None:
            grace = now() + dt.timedelta(seconds=_PROOF_GRACE_S)
            moved = deliveries.move(
                session, row, DeliveryState.SENT, sent_at=now(), status=sent.status, reason=_remark(sent.status),
                not_before=grace, transaction_uid=None,
            )  # fmt: skip
            if moved:
                self._record(session, Action.DELIVERY_SENT, row, status=sent.status)
        elif isinstance(sent.error, Transient):
            self._defer(session, row, sent.error, status=sent.status)
        elif isinstance(sent.error, NoCommonContext) and self._replace(session, row, result, peer, sent.error.reason):
            return
        else:
            self._bury(session, row, sent.error.reason, status=sent.status)

    def _defer(self, session: Session, row: DeliveryRow, error: NodeError, *, status: int | None = None) -> None:
        """Try again later, but not for ever: the peer was there, and did not take or keep the object."""
        if row.attempt >= self.settings.delivery_attempts:
            self._bury(session, row, f"{error.reason} (gave up after {row.attempt} attempts)", status=status)
            return
        wait = patience.after_failures(self.settings, row.attempt)
        self._wait(session, row, error, wait, attempt=row.attempt, status=status)

    def _put_all_back(self, session: Session, rows: Sequence[DeliveryRow], error: NodeError) -> None:
        """No association was to be had, which says nothing about an object: one event, however many wait for it."""
        waits = {row.id: patience.after_trouble(self.settings, row.created_at) for row in rows}
        for row in rows:
            deliveries.move(
                session, row, DeliveryState.WAITING, not_before=now() + waits[row.id], attempt=row.attempt - 1,
                status=row.status, reason=error.reason,
            )  # fmt: skip
        revision = receiving.revision(session, rows[0].revision_id)
        record(
            session,
            Action.DELIVERY_DEFERRED,
            outcome=FAILED_FOR_NOW,
            peer=rows[0].peer_aet,
            study_instance_uid=revision.study_instance_uid,
            patient_id=revision.study.patient_id,
            actor=self.actor,
            detail={
                "objects": len(rows),
                "reason": error.reason,
                "again_in_s": round(min(waits.values()).total_seconds()),
            },
        )

    def _put_back(self, session: Session, row: DeliveryRow, error: NodeError, wait: dt.timedelta) -> None:
        """It was not tried: no attempt is counted, however long the peer is away, and it goes first the next time."""
        self._wait(session, row, error, wait, attempt=row.attempt - 1, status=row.status)

    def _wait(
        self,
        session: Session,
        row: DeliveryRow,
        error: NodeError,
        wait: dt.timedelta,
        *,
        attempt: int,
        status: int | None,
    ) -> None:
        moved = deliveries.move(
            session, row, DeliveryState.WAITING, not_before=now() + wait, attempt=attempt, status=status,
            reason=error.reason,
        )  # fmt: skip
        if moved:
            self._record(
                session, Action.DELIVERY_DEFERRED, row, outcome=FAILED_FOR_NOW, status=status, reason=error.reason,
                again_in_s=wait.total_seconds(),
            )  # fmt: skip

    def _bury(self, session: Session, row: DeliveryRow, reason: str, *, status: int | None = None) -> None:
        if deliveries.move(session, row, DeliveryState.DEAD, status=status, reason=reason):
            self._record(session, Action.DELIVERY_DEAD, row, outcome=FAILED, status=status, reason=reason)

    def _replace(self, session: Session, row: DeliveryRow, result: ResultRow, peer: Peer, reason: str) -> bool:
        """Send the next alternative instead; False where there is none."""
        other = deliveries.next_alternative(session, result, peer.takes)
        if other is None or not deliveries.move(session, row, DeliveryState.REPLACED, reason=reason):
            return False
        deliveries.add(session, new_delivery(other, row.peer_aet, urgent=row.urgent))
        self._record(session, Action.DELIVERY_REPLACED, row, reason=reason, instead=other.sop_instance_uid)
        return True

    def _note_peer(self, session: Session, peer: Peer, error: NodeError | None) -> None:
        if error is None:
            if peers.note_success(session, peer.aet):
                deliveries.hasten(session, peer.aet, at=now())
            return
        until = now() + dt.timedelta(seconds=self.settings.breaker_open_s)
        if peers.note_failure(session, peer.aet, limit=self.settings.breaker_failures, open_until=until):
            record(
                session,
                Action.PEER_BREAKER_OPENED,
                outcome=FAILED_FOR_NOW,
                peer=peer.aet,
                actor=self.actor,
                detail={"until": until.isoformat(), "reason": error.reason},
            )

    # -- prove

    def _prove(self, peer: Peer, revision_id: int) -> None:
        with self.database.read() as session:
            # what was sent a moment ago is still in its grace time: look from its end
            later = now() + dt.timedelta(seconds=_PROOF_GRACE_S)
            rows = deliveries.to_prove(session, revision_id=revision_id, peer_aet=peer.aet, now=later)
        fresh = [row for row in rows if row.transaction_uid is None]
        overdue = [row for row in rows if row.transaction_uid is not None and row.not_before <= now()]
        if fresh and peer.commitment != "never":
            self._ask_commitment(peer, fresh)
        elif fresh:
            self._query(peer, fresh)
        if overdue:
            self._query(peer, overdue)

    def _ask_commitment(self, peer: Peer, rows: Sequence[DeliveryRow]) -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        with self.database.write() as session:
            # first the row, then the request: the report may come before the request returns
            self._await(session, rows, transaction_uid)
            classes = {row.sop_instance_uid: deliveries.result(session, row.sop_instance_uid) for row in rows}
        references = [(result.sop_class_uid, uid) for uid, result in classes.items()]
        try:
            report = request_commitment(self.settings, peer, transaction_uid, references)
        except (NoCommonContext, Permanent):
            self._query(peer, rows)
            return
        except Transient:
            return  # the wait runs out, and the query decides
        if report is not None:
            apply_report(self.database, self.settings, report, actor=self.actor)

    def _await(self, session: Session, rows: Sequence[DeliveryRow], transaction_uid: str, **more: str) -> None:
        until = now() + dt.timedelta(seconds=self.settings.commitment_wait_s)
        deliveries.await_report(session, rows, transaction_uid=transaction_uid, until=until, **more)

    def _query(self, peer: Peer, rows: Sequence[DeliveryRow]) -> None:
        """Where commitment is not to be had: ask whether the objects are there."""
        with self.database.read() as session:
            revision = receiving.revision(session, rows[0].revision_id)
            results = {row.sop_instance_uid: deliveries.result(session, row.sop_instance_uid) for row in rows}
        series = sorted({result.series_instance_uid for result in results.values()})
        proof = "query"
        try:
            found = find_instances(self.settings, peer, revision.study_instance_uid, series)
        except NoCommonContext:
            # neither service: the C-STORE status is all there will ever be, and the timeline says so
            proof, found = "C-STORE status only", set(results)
        except (Transient, Permanent) as exc:  # it offers the service and did not answer: nothing is proved
            with self.database.write() as session:
                self._await(session, rows, f"2.25.{uuid.uuid4().int}", reason=f"not proved to be stored: {exc.reason}")
            return
        with self.database.write() as session:
            for row in rows:
                if row.sop_instance_uid in found:
                    _commit(session, row, proof, self.actor)
                else:
                    missing = PeerBusy("sent with success, but the peer does not have it")
                    self._defer(session, row, missing)
            self._finish(session, revision.id)

    def _finish(self, session: Session, revision_id: int) -> None:
        finish_revision(session, revision_id, self.actor)

    def _record(
        self, session: Session, action: Action, row: DeliveryRow, *, outcome: str = "success", **more: object
    ) -> None:
        record_delivery(session, action, row, self.actor, outcome=outcome, **more)


def _is_untried(sent: Sent, unreachable: NodeError | None) -> bool:
    """Not where the peer takes none of the classes: another form of the object may be taken."""
    return sent.error is not None and sent.error is unreachable and not isinstance(unreachable, NoCommonContext)


def new_delivery(result: ResultRow, peer_aet: str, *, urgent: bool) -> DeliveryRow:
    at = now()
    return DeliveryRow(
        sop_instance_uid=result.sop_instance_uid,
        peer_aet=peer_aet,
        revision_id=result.revision_id,
        state=DeliveryState.WAITING,
        urgent=urgent,
        not_before=at,
        created_at=at,
    )


def record_delivery(
    session: Session, action: Action, row: DeliveryRow, actor: str, *, outcome: str = "success", **more: object
) -> None:
    revision = receiving.revision(session, row.revision_id)
    record(
        session,
        action,
        outcome=outcome,
        peer=row.peer_aet,
        study_instance_uid=revision.study_instance_uid,
        patient_id=revision.study.patient_id,
        actor=actor,
        detail={"sop_instance_uid": row.sop_instance_uid, "attempt": row.attempt, **more},
    )


def _commit(session: Session, row: DeliveryRow, proof: str, actor: str) -> None:
    remark = _remark(row.status)  # why it was not proved before is over
    if deliveries.move(session, row, DeliveryState.COMMITTED, committed_at=now(), proof=proof, reason=remark):
        record_delivery(session, Action.DELIVERY_COMMITTED, row, actor, proof=proof)


def _remark(status: int | None) -> str:
    return f"accepted with warning 0x{status:04X}" if status else ""


def apply_report(
    database: Database, settings: Settings, report: CommitmentReport, *, actor: str = "storage commitment"
) -> None:
    """What the PACS says of a commitment transaction: kept for good, or to be sent again."""
    with database.write() as session:
        rows = deliveries.of_transaction(session, report.transaction_uid)
        for row in rows:
            if row.sop_instance_uid in report.committed:
                _commit(session, row, "storage commitment", actor)
            elif row.sop_instance_uid in report.failed:
                reason = f"commitment refused: {report.failed[row.sop_instance_uid]}"
                wait = now() + dt.timedelta(seconds=settings.retry_first_s)
                after = DeliveryState.DEAD if row.attempt >= settings.delivery_attempts else DeliveryState.WAITING
                if deliveries.move(session, row, after, reason=reason, not_before=wait):
                    action = Action.DELIVERY_DEAD if after == DeliveryState.DEAD else Action.DELIVERY_DEFERRED
                    record_delivery(session, action, row, actor, outcome=FAILED_FOR_NOW, reason=reason)
        for revision_id in sorted({row.revision_id for row in rows}):
            finish_revision(session, revision_id, actor)


def finish_revision(session: Session, revision_id: int, actor: str) -> None:
    """REPORTED → DELIVERED, INCOMPLETE, UNSENT or RECALLED, once nothing of it is on its way."""
    receiving.lock_revision(session, revision_id)  # of two peers that commit the last two objects one sees both
    unfinished, dead = deliveries.open_count(session, revision_id)
    if unfinished:
        return
    if not deliveries.is_addressed(session, revision_id):
        after, action, at = RevisionState.UNSENT, Action.REVISION_UNSENT, None
    elif deliveries.is_recalled(session, revision_id):
        receiving.move_revision(session, revision_id, RevisionState.RECALLED, delivered_at=now())
        return  # the trail has it: what was taken back, from whom, and why
    elif dead:
        after, action, at = RevisionState.INCOMPLETE, Action.REVISION_INCOMPLETE, now()
    else:
        after, action, at = RevisionState.DELIVERED, Action.REVISION_DELIVERED, now()
    if receiving.move_revision(session, revision_id, after, delivered_at=at):
        revision = receiving.revision(session, revision_id)
        record(
            session,
            action,
            outcome=FAILED if dead else "success",
            peer=revision.source_aet,
            study_instance_uid=revision.study_instance_uid,
            patient_id=revision.study.patient_id,
            actor=actor,
            detail={"revision": revision.number, "dead_letters": dead},
        )


def resend(database: Database, *, study_instance_uid: str | None, peer_aet: str | None, actor: str) -> int:
    """Dead letters back to waiting; how many."""
    with database.write() as session:
        rows = deliveries.dead(session, study_instance_uid=study_instance_uid, peer_aet=peer_aet)
        count = 0
        for row in rows:
            if deliveries.move(
                session, row, DeliveryState.WAITING, not_before=now(), attempt=0, transaction_uid=None, reason=""
            ):
                count += 1
                record_delivery(session, Action.DELIVERY_RESENT, row, actor)
        for aet in {row.peer_aet for row in rows}:
            peers.note_success(session, aet)
    return count
