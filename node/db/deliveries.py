"""Statements about deliveries: one result on its way to one peer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, Select, and_, cast, exists, func, or_, select, update
from sqlalchemy.orm import Session

from node.db import purging, switches
from node.db.lifecycle import FINISHED_DELIVERY, DeliveryState, RevisionState, before
from node.db.tables import DeliveryRow, JobRow, PeerRow, ResultRow, RevisionRow


def add(session: Session, row: DeliveryRow) -> bool:
    """False where this result is on its way to this peer already."""
    known = session.scalar(
        select(DeliveryRow.id).where(
            DeliveryRow.sop_instance_uid == row.sop_instance_uid, DeliveryRow.peer_aet == row.peer_aet
        )
    )
    if known is not None:
        return False
    session.add(row)
    session.flush()
    return True


def get(session: Session, delivery_id: int) -> DeliveryRow:
    return session.get_one(DeliveryRow, delivery_id)


def result(session: Session, sop_instance_uid: str) -> ResultRow:
    return session.get_one(ResultRow, sop_instance_uid)


def next_alternative(session: Session, row: ResultRow, kinds: Sequence[str]) -> ResultRow | None:
    """What goes instead of this result where the peer will not have it."""
    return session.scalar(
        select(ResultRow)
        .where(
            ResultRow.revision_id == row.revision_id,
            ResultRow.alternatives == row.alternatives,
            ResultRow.fallback > row.fallback,
            ResultRow.kind.in_(kinds),
        )
        .order_by(ResultRow.fallback)
        .limit(1)
    )


def due_groups(session: Session, now: dt.datetime) -> Sequence[tuple[int, str, bool]]:
    """(revision, peer, urgent) that have something to send or to prove now, breakers respected, STAT first."""
    rows = session.execute(
        select(DeliveryRow.revision_id, DeliveryRow.peer_aet, func.max(_int(DeliveryRow.urgent)))
        .outerjoin(PeerRow, PeerRow.aet == DeliveryRow.peer_aet)
        .where(
            DeliveryRow.state.in_([DeliveryState.WAITING, DeliveryState.SENT]),
            DeliveryRow.not_before <= now,
            or_(PeerRow.open_until.is_(None), PeerRow.open_until <= now),
        )
        .group_by(DeliveryRow.revision_id, DeliveryRow.peer_aet)
        .order_by(func.max(_int(DeliveryRow.urgent)).desc(), DeliveryRow.revision_id)
    ).all()
    return [(revision_id, aet, bool(urgent)) for revision_id, aet, urgent in rows]


def _int(column: Any) -> Any:
    return cast(column, Integer)


def claim(
    session: Session, *, revision_id: int, peer_aet: str, now: dt.datetime, lease_until: dt.datetime
) -> list[DeliveryRow]:
    """All that is due for this peer, now ours: one association carries it. Empty where another has the peer's lane."""
    lane = session.scalar(select(PeerRow).where(PeerRow.aet == peer_aet).with_for_update())
    if lane is not None and lane.open_until is not None and lane.open_until > now:
        return []
    busy = session.scalar(
        select(func.count()).where(
            DeliveryRow.peer_aet == peer_aet,
            DeliveryRow.state == DeliveryState.SENDING,
            DeliveryRow.lease_until >= now,
        )
    )
    if busy:
        return []
    rows = list(
        session.scalars(
            select(DeliveryRow)
            .where(
                DeliveryRow.revision_id == revision_id,
                DeliveryRow.peer_aet == peer_aet,
                DeliveryRow.state == DeliveryState.WAITING,
                DeliveryRow.not_before <= now,
            )
            # what was not tried yet goes before what the association broke at
            .order_by(DeliveryRow.attempt, DeliveryRow.id)
            .with_for_update(skip_locked=True)
        )
    )
    for row in rows:
        row.state, row.attempt, row.lease_until = DeliveryState.SENDING, row.attempt + 1, lease_until
    session.flush()
    return rows


def renew(session: Session, delivery_ids: Sequence[int], *, lease_until: dt.datetime) -> None:
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(delivery_ids), DeliveryRow.state == DeliveryState.SENDING)
        .values(lease_until=lease_until)
    )


def move(session: Session, row: DeliveryRow, after: DeliveryState, **values: Any) -> bool:
    """One conditional UPDATE by the table of moves and by attempt; False where it is no longer ours to move."""
    done = session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id == row.id, DeliveryRow.attempt == row.attempt, DeliveryRow.state.in_(before(after)))
        .values(state=after, lease_until=None, **values)
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def hasten(session: Session, peer_aet: str, *, at: dt.datetime) -> None:
    """All that waits for this peer is due: it is back, or is looked for elsewhere from now on."""
    session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.peer_aet == peer_aet, DeliveryRow.state == DeliveryState.WAITING, DeliveryRow.not_before > at
        )
        .values(not_before=at)
        .execution_options(synchronize_session=False)
    )


def to_prove(session: Session, *, revision_id: int, peer_aet: str, now: dt.datetime) -> Sequence[DeliveryRow]:
    """Sent, and not yet known to be stored."""
    return session.scalars(
        select(DeliveryRow).where(
            DeliveryRow.revision_id == revision_id,
            DeliveryRow.peer_aet == peer_aet,
            DeliveryRow.state == DeliveryState.SENT,
            DeliveryRow.not_before <= now,
        )
    ).all()


def await_report(
    session: Session, rows: Sequence[DeliveryRow], *, transaction_uid: str, until: dt.datetime, **more: str
) -> None:
    """No proof is looked for before then, unless the peer reports on this transaction."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_([row.id for row in rows]), DeliveryRow.state == DeliveryState.SENT)
        .values(transaction_uid=transaction_uid, not_before=until, **more)
        .execution_options(synchronize_session="fetch")
    )


def of_transaction(session: Session, transaction_uid: str) -> Sequence[DeliveryRow]:
    return session.scalars(select(DeliveryRow).where(DeliveryRow.transaction_uid == transaction_uid)).all()


def waiting(session: Session, revision_id: int) -> Sequence[tuple[DeliveryRow, ResultRow]]:
    """What of a revision is to be sent, now or later, with what it is."""
    rows = session.execute(
        select(DeliveryRow, ResultRow)
        .join(ResultRow, ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid)
        .where(DeliveryRow.revision_id == revision_id, DeliveryRow.state == DeliveryState.WAITING)
        .order_by(DeliveryRow.id)
    )
    return [(delivery, result) for delivery, result in rows]


def is_recalled(session: Session, revision_id: int) -> bool:
    """Whether all of a revision that was on its way was taken back before it was sent."""
    of_it = DeliveryRow.revision_id == revision_id
    left = exists().where(of_it, or_(DeliveryRow.state != DeliveryState.REPLACED, DeliveryRow.sent_at.is_not(None)))
    return bool(session.scalar(select(and_(exists().where(of_it), ~left))))


def lapsed(session: Session, now: dt.datetime) -> Sequence[DeliveryRow]:
    return session.scalars(
        select(DeliveryRow).where(DeliveryRow.state == DeliveryState.SENDING, DeliveryRow.lease_until < now)
    ).all()


def open_count(session: Session, revision_id: int) -> tuple[int, int]:
    """(not finished, dead) of a revision. For sure only under `receiving.lock_revision`."""
    unfinished = session.scalar(
        select(func.count()).where(
            DeliveryRow.revision_id == revision_id, DeliveryRow.state.not_in(list(FINISHED_DELIVERY))
        )
    )
    dead = session.scalar(
        select(func.count()).where(DeliveryRow.revision_id == revision_id, DeliveryRow.state == DeliveryState.DEAD)
    )
    return unfinished or 0, dead or 0


def is_addressed(session: Session, revision_id: int) -> bool:
    """Whether any result of the revision was to go anywhere."""
    return bool(session.scalar(select(exists().where(DeliveryRow.revision_id == revision_id))))


def ended_unnoticed(session: Session) -> Sequence[int]:
    """Revisions whose deliveries have all ended, and that nobody has moved on, which should not be."""
    of_it = DeliveryRow.revision_id == RevisionRow.id
    is_open = exists().where(of_it, DeliveryRow.state.not_in(list(FINISHED_DELIVERY)))
    is_dead = exists().where(of_it, DeliveryRow.state == DeliveryState.DEAD)
    due = or_(
        RevisionRow.state == RevisionState.REPORTED, and_(RevisionRow.state == RevisionState.INCOMPLETE, ~is_dead)
    )
    return session.scalars(select(RevisionRow.id).where(due, ~is_open).order_by(RevisionRow.id)).all()


def dead(session: Session, *, study_instance_uid: str | None, peer_aet: str | None) -> Sequence[DeliveryRow]:
    """Those that can be sent again: their files are held, and nobody deletes them meanwhile."""
    query = select(DeliveryRow).join(RevisionRow, RevisionRow.id == DeliveryRow.revision_id)
    query = query.join(ResultRow, ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid)
    query = query.join(JobRow, JobRow.id == ResultRow.job_id)
    query = query.where(DeliveryRow.state == DeliveryState.DEAD, ResultRow.purged_at.is_(None), switches.is_shown())
    if study_instance_uid:
        query = query.where(RevisionRow.study_instance_uid == study_instance_uid)
    if peer_aet:
        query = query.where(DeliveryRow.peer_aet == peer_aet)
    _lock_studies(session, query)
    return session.scalars(query.order_by(DeliveryRow.id)).all()


def unsent(session: Session, *, study_instance_uid: str | None = None) -> Sequence[RevisionRow]:
    """Revisions whose results went nowhere and are held; nobody deletes them meanwhile."""
    is_held = exists().where(ResultRow.revision_id == RevisionRow.id, ResultRow.purged_at.is_(None))
    query = select(RevisionRow).where(RevisionRow.state == RevisionState.UNSENT, is_held)
    if study_instance_uid:
        query = query.where(RevisionRow.study_instance_uid == study_instance_uid)
    _lock_studies(session, query)
    return session.scalars(query.order_by(RevisionRow.id)).all()


def _lock_studies(session: Session, query: Select[Any]) -> None:
    for uid in sorted(set(session.scalars(query.with_only_columns(RevisionRow.study_instance_uid)))):
        purging.lock_study(session, uid)
