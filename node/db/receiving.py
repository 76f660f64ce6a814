"""Statements of receive and intake: associations, instances, studies, revisions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from node.db import purging
from node.db.lifecycle import RevisionState, before
from node.db.tables import (
    OPEN,
    AssociationRow,
    ConflictRow,
    InstanceRow,
    ResultRow,
    RevisionRow,
    SeriesRow,
    StudyRow,
)

_ABOUT_THEN = 32
"""Files that are asked whether the archive is there."""
_TOGETHER = 1000
"""Studies in one statement."""


def add_association(session: Session, row: AssociationRow) -> None:
    session.add(row)


def close_association(
    session: Session, association_id: str, *, at: dt.datetime, outcome: str, stored: int, refused: int
) -> AssociationRow | None:
    row = session.get(AssociationRow, association_id)
    if row is not None:
        row.closed_at, row.outcome, row.stored, row.refused = at, outcome, stored, refused
    return row


def close_abandoned_associations(session: Session, *, receiver: str, at: dt.datetime) -> list[AssociationRow]:
    """Associations of a receiver that was killed: it alone knew of their end."""
    rows = list(
        session.scalars(
            select(AssociationRow).where(AssociationRow.outcome == OPEN, AssociationRow.receiver == receiver)
        )
    )
    for row in rows:
        row.closed_at, row.outcome = at, "receiver stopped"
    return rows


def received(session: Session, sop_instance_uid: str) -> InstanceRow:
    """The one that came first. raises sqlalchemy.exc.NoResultFound"""
    return session.scalars(select(InstanceRow).where(InstanceRow.sop_instance_uid == sop_instance_uid)).one()


def conflict(session: Session, instance_id: int, sha256: str) -> ConflictRow | None:
    return session.scalar(
        select(ConflictRow).where(ConflictRow.instance_id == instance_id, ConflictRow.sha256 == sha256)
    )


def kept_aside(session: Session, study_instance_uid: str) -> dict[str, int]:
    """{SOP Instance UID: objects of other bytes that came under it and are held}, of the images of a study."""
    found = session.execute(
        select(InstanceRow.sop_instance_uid, func.count())
        .join(ConflictRow, ConflictRow.instance_id == InstanceRow.id)
        .where(InstanceRow.study_instance_uid == study_instance_uid, ConflictRow.purged_at.is_(None))
        .group_by(InstanceRow.sop_instance_uid)
    )
    return dict(found.all())


def add(session: Session, row: InstanceRow | ConflictRow) -> None:
    session.add(row)
    session.flush()


def is_result(session: Session, sop_instance_uid: str) -> bool:
    """Whether we made this object ourselves."""
    return session.get(ResultRow, sop_instance_uid) is not None


def ensure_study(session: Session, row: StudyRow) -> StudyRow:
    """The study as first received; its patient and order are those of the first image."""
    found = session.get(StudyRow, row.study_instance_uid)
    if found is None:
        session.add(row)
        session.flush()
        return row
    return found


def ensure_series(session: Session, row: SeriesRow) -> None:
    if session.get(SeriesRow, (row.series_instance_uid, row.study_instance_uid)) is None:
        session.add(row)
        session.flush()


def revision(session: Session, revision_id: int) -> RevisionRow:
    return session.get_one(RevisionRow, revision_id)


def lock_revision(session: Session, revision_id: int) -> None:
    """Ours until this transaction ends: who counts what belongs to it sees what others have committed, or they wait.

    Not against those who only refer to it: two transactions that have both just added a row of it, and each want it
    then, would wait for each other (PostgreSQL; SQLite has one writer at a time).
    """
    session.execute(select(RevisionRow.id).where(RevisionRow.id == revision_id).with_for_update(key_share=True))


def receiving_revision(session: Session, study_instance_uid: str) -> RevisionRow | None:
    """The revision that still takes images, locked against being closed meanwhile."""
    return session.scalar(
        select(RevisionRow)
        .where(RevisionRow.study_instance_uid == study_instance_uid, RevisionRow.state == RevisionState.RECEIVING)
        .with_for_update()
    )


def open_revision(
    session: Session, study_instance_uid: str, *, source_aet: str, urgent: bool, at: dt.datetime
) -> RevisionRow:
    last = session.scalar(
        select(func.max(RevisionRow.number)).where(RevisionRow.study_instance_uid == study_instance_uid)
    )
    row = RevisionRow(
        study_instance_uid=study_instance_uid,
        number=(last or 0) + 1,
        state=RevisionState.RECEIVING,
        source_aet=source_aet,
        urgent=urgent,
        images=0,
        first_image_at=at,
        last_image_at=at,
    )
    session.add(row)
    session.flush()
    purging.hold(session, study_instance_uid)  # behind the insert, which waits for whoever gives the study up
    return row


def newest_revision(session: Session, study_instance_uid: str) -> RevisionRow | None:
    """Locked, and as it stands now: its plan is made, or waits for this transaction."""
    row = session.scalar(
        select(RevisionRow)
        .where(RevisionRow.study_instance_uid == study_instance_uid)
        .order_by(RevisionRow.number.desc())
        .limit(1)
    )
    if row is not None:
        lock_revision(session, row.id)
        session.refresh(row)
    return row


def revisions_in(session: Session, state: RevisionState) -> Sequence[RevisionRow]:
    return session.scalars(select(RevisionRow).where(RevisionRow.state == state).order_by(RevisionRow.id)).all()


def move_revision(session: Session, revision_id: int, after: RevisionState, **values: Any) -> bool:
    """One conditional UPDATE; False where the revision is not in a state that may become `after`."""
    done = session.execute(
        update(RevisionRow)
        .where(RevisionRow.id == revision_id, RevisionRow.state.in_(before(after)))
        .values(state=after, **values)
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def close_revision(session: Session, row: RevisionRow, *, at: dt.datetime, because: str) -> bool:
    """RECEIVING → COMPLETE, only if no image came since `row` was read, be it one that was here before."""
    done = session.execute(
        update(RevisionRow)
        .where(
            RevisionRow.id == row.id,
            RevisionRow.state == RevisionState.RECEIVING,
            RevisionRow.images == row.images,
            RevisionRow.last_image_at == row.last_image_at,
        )
        .values(state=RevisionState.COMPLETE, completed_at=at, completed_because=because)
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def instances_up_to(session: Session, row: RevisionRow) -> Sequence[InstanceRow]:
    """The set of a revision: its own images and those of all earlier ones, be their files held or not."""
    return session.scalars(
        select(InstanceRow)
        .join(RevisionRow, RevisionRow.id == InstanceRow.revision_id)
        .where(RevisionRow.study_instance_uid == row.study_instance_uid, RevisionRow.number <= row.number)
        .order_by(InstanceRow.series_instance_uid, InstanceRow.sop_instance_uid)
    ).all()


def kept_about_then(session: Session, row: InstanceRow) -> Sequence[InstanceRow]:
    """Others whose files were put down at the same time as that of this one, or just before, and are to be there."""
    others = select(InstanceRow).where(InstanceRow.id != row.id, InstanceRow.purged_at.is_(None))
    of_revision = others.where(InstanceRow.revision_id == row.revision_id).limit(_ABOUT_THEN)
    before = others.where(InstanceRow.id < row.id).order_by(InstanceRow.id.desc()).limit(_ABOUT_THEN)
    return [*session.scalars(of_revision), *session.scalars(before)]


def unknown(session: Session, studies: Iterable[str]) -> Iterator[str]:
    """Those that were never received, as far as this database knows."""
    left = iter(studies)
    while some := list(islice(left, _TOGETHER)):
        query = select(StudyRow.study_instance_uid).where(StudyRow.study_instance_uid.in_(some))
        known = set(session.scalars(query))
        yield from (uid for uid in some if uid not in known)


def first_and_last_held(session: Session) -> list[tuple[str, Sequence[str]]]:
    """("the first", paths) and ("the last", paths) of what is to be in the archive; empty where nothing is."""
    held = select(InstanceRow.path).where(InstanceRow.purged_at.is_(None)).limit(_ABOUT_THEN)
    found = [
        ("the first", session.scalars(held.order_by(InstanceRow.id)).all()),
        ("the last", session.scalars(held.order_by(InstanceRow.id.desc())).all()),
    ]
    return [(which, paths) for which, paths in found if paths]


def content_of(session: Session, study_instance_uid: str) -> tuple[int, set[str], set[str]]:
    """(images, modalities, series descriptions) that a study has so far, for content rules."""
    images = session.scalar(
        select(func.count()).where(
            InstanceRow.study_instance_uid == study_instance_uid, InstanceRow.revision_id.is_not(None)
        )
    )
    rows = session.scalars(select(SeriesRow).where(SeriesRow.study_instance_uid == study_instance_uid)).all()
    return images or 0, {row.modality for row in rows}, {row.description for row in rows}


def earlier_revisions(session: Session, row: RevisionRow) -> Sequence[RevisionRow]:
    """Revisions before this one, newest first."""
    return session.scalars(
        select(RevisionRow)
        .where(RevisionRow.study_instance_uid == row.study_instance_uid, RevisionRow.number < row.number)
        .order_by(RevisionRow.number.desc())
    ).all()
