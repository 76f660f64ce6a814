"""Statements of retention: what each study still holds on disk, what stands against deleting it, and the mark."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from node.db.lifecycle import FINISHED_DELIVERY, FINISHED_JOB, DeliveryState, JobState, RevisionState
from node.db.tables import (
    ConflictRow,
    DeliveryRow,
    InstanceRow,
    JobRow,
    PurgeRow,
    ResultRow,
    RevisionRow,
    StudyRow,
)
from node.db.work import REPORT, has_failed

UNPROVEN = "C-STORE status only"
"""The proof of a delivery to a peer that offers none: its word, and nobody has looked."""
_ABOUT_THEN = 16
"""Files that are asked whether the archive is there."""
_NEAR = 10_000
"""Objects that are looked through for them: those before may all be deleted by now, and there are millions."""
_LONG_AGO = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
_ENDED = (RevisionState.DELIVERED, RevisionState.INCOMPLETE, RevisionState.UNSENT, RevisionState.RECALLED)


@dataclass
class Held:
    """The files of one study, and all that decides whether they may go."""

    study_instance_uid: str
    source_aet: str = ""
    since: dt.datetime = _LONG_AGO
    """When the last thing happened to it: an object came, a result was proved or given up."""
    images: int = 0
    results: int = 0
    conflicts: int = 0
    bytes: int = 0
    """Of images and results; of conflicts the rows do not know."""
    under_way: list[str] = field(default_factory=list)
    """Revisions that are not finished, in words."""
    open_jobs: int = 0
    open_deliveries: int = 0
    dead_letters: int = 0
    unproven: int = 0
    failed_analyses: int = 0
    """Of the newest revision."""
    unsent: int = 0
    """Revisions of which nothing went anywhere."""
    unreported: int = 0
    """Revisions whose report was given up."""
    legal_hold: str = ""

    @property
    def files(self) -> int:
        return self.images + self.results + self.conflicts

    def happened(self, at: dt.datetime | None) -> None:
        self.since = self.since if at is None else max(self.since, at)


def holding(session: Session, *, after: str = "", most: int = 200) -> list[str]:
    """Studies that hold a file, by UID, from the one behind `after` on."""
    query = select(StudyRow.study_instance_uid).where(StudyRow.purged_at.is_(None), StudyRow.study_instance_uid > after)
    return list(session.scalars(query.order_by(StudyRow.study_instance_uid).limit(most)))


def held(session: Session, uids: Sequence[str]) -> list[Held]:
    """What is known of these studies, in their order. One statement per kind of row, however many they are."""
    found = {uid: Held(uid) for uid in uids}
    _add_revisions(session, found)
    _add_deliveries(session, found)
    _add_files(session, found)
    rows = session.execute(
        select(StudyRow.study_instance_uid, StudyRow.touched_at, StudyRow.legal_hold).where(
            StudyRow.study_instance_uid.in_(uids)
        )
    )
    for uid, touched_at, legal_hold in rows:
        found[uid].happened(touched_at)
        found[uid].legal_hold = legal_hold
    return list(found.values())


def _add_revisions(session: Session, found: dict[str, Held]) -> None:
    rows = session.execute(
        select(
            RevisionRow.study_instance_uid,
            RevisionRow.number,
            RevisionRow.state,
            RevisionRow.source_aet,
            func.coalesce(RevisionRow.delivered_at, RevisionRow.reported_at),
            select(func.count())
            .where(JobRow.revision_id == RevisionRow.id, JobRow.state.not_in(list(FINISHED_JOB)))
            .scalar_subquery(),
            select(func.count()).where(JobRow.revision_id == RevisionRow.id, has_failed()).scalar_subquery(),
            _report_was_given_up(),
            _holds_files(),
        )
        .where(RevisionRow.study_instance_uid.in_(found))
        .order_by(RevisionRow.number)
    )
    for uid, number, state, source_aet, ended_at, open_jobs, failed, is_given_up, holds in rows:
        one = found[uid]
        one.source_aet = source_aet
        one.happened(ended_at)
        if state == RevisionState.PLANNED and is_given_up:
            one.unreported += bool(holds)
        elif state not in _ENDED:
            one.under_way.append(f"revision {number} is {state}")
        one.open_jobs += open_jobs
        one.failed_analyses = failed


def _report_was_given_up() -> Any:
    report = and_(JobRow.pipeline == REPORT, JobRow.state == JobState.FAILED)
    return exists().where(JobRow.revision_id == RevisionRow.id, report)


def _holds_results() -> Any:
    """What was deleted has no failings any more: nobody can send it."""
    return exists().where(ResultRow.revision_id == RevisionRow.id, ResultRow.purged_at.is_(None))


def _holds_files() -> Any:
    images = exists().where(InstanceRow.revision_id == RevisionRow.id, InstanceRow.purged_at.is_(None))
    return or_(images, _holds_results())


def _add_deliveries(session: Session, found: dict[str, Held]) -> None:
    """A revision of which nothing was ever to go anywhere is one whose results live here alone."""
    is_held = exists().where(ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid, ResultRow.purged_at.is_(None))
    rows = session.execute(
        select(
            RevisionRow.study_instance_uid,
            DeliveryRow.state,
            DeliveryRow.proof,
            func.count(DeliveryRow.id),
            func.count(DeliveryRow.id).filter(is_held),
            func.max(DeliveryRow.committed_at),
            and_(RevisionRow.state != RevisionState.PLANNED, _holds_results()),
        )
        .outerjoin(DeliveryRow, DeliveryRow.revision_id == RevisionRow.id)
        .where(RevisionRow.study_instance_uid.in_(found))
        .group_by(RevisionRow.id, RevisionRow.study_instance_uid, DeliveryRow.state, DeliveryRow.proof)
    )
    for uid, state, proof, count, still_held, committed_at, holds in rows:
        one = found[uid]
        one.happened(committed_at)
        if state is None:
            one.unsent += bool(holds)
        elif state == DeliveryState.DEAD:
            one.dead_letters += still_held
        elif state not in FINISHED_DELIVERY:
            one.open_deliveries += count
        elif proof == UNPROVEN:
            one.unproven += still_held


def _add_files(session: Session, found: dict[str, Held]) -> None:
    images = session.execute(
        select(
            InstanceRow.study_instance_uid,
            func.count(),
            func.sum(InstanceRow.size),
            func.max(InstanceRow.received_at),
        )
        .where(InstanceRow.study_instance_uid.in_(found), InstanceRow.purged_at.is_(None))
        .group_by(InstanceRow.study_instance_uid)
    )
    for uid, count, octets, received_at in images:
        found[uid].images, found[uid].bytes = count, int(octets)
        found[uid].happened(received_at)
    results = session.execute(
        select(RevisionRow.study_instance_uid, func.count(), func.sum(ResultRow.size))
        .join(RevisionRow, RevisionRow.id == ResultRow.revision_id)
        .where(RevisionRow.study_instance_uid.in_(found), ResultRow.purged_at.is_(None))
        .group_by(RevisionRow.study_instance_uid)
    )
    for uid, count, octets in results:
        found[uid].results = count
        found[uid].bytes += int(octets)
    conflicts = session.execute(
        select(InstanceRow.study_instance_uid, func.count(), func.max(ConflictRow.received_at))
        .join(InstanceRow, InstanceRow.id == ConflictRow.instance_id)
        .where(InstanceRow.study_instance_uid.in_(found), ConflictRow.purged_at.is_(None))
        .group_by(InstanceRow.study_instance_uid)
    )
    for uid, count, received_at in conflicts:
        found[uid].conflicts = count
        found[uid].happened(received_at)


def lock_study(session: Session, uid: str, *, wait: bool = True) -> bool:
    """Against all who add anything to it, until this transaction ends; False where there is none, or others have it.

    A row that refers to the study cannot be inserted meanwhile (PostgreSQL; SQLite has one writer at a time).
    """
    query = select(StudyRow.study_instance_uid).where(StudyRow.study_instance_uid == uid)
    return session.scalar(query.with_for_update(skip_locked=not wait)) is not None


def give_up(session: Session, one: Held, *, at: dt.datetime, because: str, actor: str) -> PurgeRow:
    """From now on no file of the study is used. They are still there: `delete` them after the commit."""
    for kind, of_study in _kinds(one.study_instance_uid):
        session.execute(
            update(kind)
            .where(of_study, kind.purged_at.is_(None))
            .values(purged_at=at)
            .execution_options(synchronize_session=False)
        )
    session.execute(
        update(StudyRow)
        .where(StudyRow.study_instance_uid == one.study_instance_uid)
        .values(purged_at=at)
        .execution_options(synchronize_session=False)
    )
    row = PurgeRow(
        study_instance_uid=one.study_instance_uid,
        purged_at=at,
        because=because,
        actor=actor,
        files=one.files,
        bytes=one.bytes,
    )
    session.add(row)
    session.flush()
    return row


def _kinds(uid: str) -> Sequence[tuple[Any, Any]]:
    """(row, whose of them are of this study): all that stands for a file."""
    revisions = select(RevisionRow.id).where(RevisionRow.study_instance_uid == uid)
    instances = select(InstanceRow.id).where(InstanceRow.study_instance_uid == uid)
    return (
        (InstanceRow, InstanceRow.study_instance_uid == uid),
        (ResultRow, ResultRow.revision_id.in_(revisions)),
        (ConflictRow, ConflictRow.instance_id.in_(instances)),
    )


def paths(session: Session, uid: str) -> tuple[set[str], set[str]]:
    """(given up, held) files of a study, relative to the archive. For sure only under `lock_study`."""
    gone: set[str] = set()
    kept: set[str] = set()
    for kind, of_study in _kinds(uid):
        for path, purged_at in session.execute(select(kind.path, kind.purged_at).where(of_study)):
            (kept if purged_at is None else gone).add(path)
    # an object of this study under the UID of another study's: it lies here, and belongs there
    strangers = ConflictRow.path.startswith(f"received/{uid}/")
    kept.update(session.scalars(select(ConflictRow.path).where(strangers, ConflictRow.purged_at.is_(None))))
    return gone - kept, kept


def about_then(session: Session, uid: str) -> list[str]:
    """Files of other studies that were received just before this one and are to be there; else the next one after it.

    What came long after it may lie on a disk that was not yet there, or in a folder where one is not mounted any more.
    """
    first = session.scalar(select(func.min(InstanceRow.id)).where(InstanceRow.study_instance_uid == uid))
    if first is None:
        return []
    others = select(InstanceRow.path).where(InstanceRow.study_instance_uid != uid, InstanceRow.purged_at.is_(None))
    before = (
        others.where(InstanceRow.id.between(first - _NEAR, first)).order_by(InstanceRow.id.desc()).limit(_ABOUT_THEN)
    )
    after = others.where(InstanceRow.id.between(first, first + _NEAR)).order_by(InstanceRow.id).limit(1)
    return list(session.scalars(before)) or list(session.scalars(after))


def unfinished(session: Session, *, most: int = 100) -> Sequence[PurgeRow]:
    """Purges whose files may still be on disk, oldest first."""
    return session.scalars(select(PurgeRow).where(PurgeRow.ended_at.is_(None)).order_by(PurgeRow.id).limit(most)).all()


def open_purges(session: Session, uid: str) -> Sequence[PurgeRow]:
    """Those of one study. For sure only under `lock_study`."""
    query = select(PurgeRow).where(PurgeRow.study_instance_uid == uid, PurgeRow.ended_at.is_(None))
    return session.scalars(query.order_by(PurgeRow.id)).all()


def purges_of(session: Session, uid: str) -> Sequence[PurgeRow]:
    return session.scalars(select(PurgeRow).where(PurgeRow.study_instance_uid == uid).order_by(PurgeRow.id)).all()


def deleted(session: Session, uid: str) -> str:
    """When and why files of the study were deleted last, in words; "" where none were."""
    rows = purges_of(session, uid)
    if not rows:
        return ""
    return f"files of this study were deleted on {rows[-1].purged_at.astimezone():%Y-%m-%d} ({rows[-1].because})"


def purged_of_series(session: Session, study: str, series: Iterable[str]) -> dict[str, tuple[int, dt.datetime]]:
    """{Series Instance UID: (images that are no longer held, since when)} of those that lack any."""
    rows = session.execute(
        select(InstanceRow.series_instance_uid, func.count(), func.max(InstanceRow.purged_at))
        .where(
            InstanceRow.study_instance_uid == study,
            InstanceRow.series_instance_uid.in_(list(series)),
            InstanceRow.purged_at.is_not(None),
        )
        .group_by(InstanceRow.series_instance_uid)
    )
    return {uid: (count, at) for uid, count, at in rows if at is not None}


def rest(session: Session, uid: str, *, at: dt.datetime) -> None:
    """Nothing of the study is held, and there is nothing to give up."""
    session.execute(
        update(StudyRow)
        .where(StudyRow.study_instance_uid == uid)
        .values(purged_at=at)
        .execution_options(synchronize_session=False)
    )


def hold(session: Session, uid: str) -> None:
    """A file of the study is held again."""
    session.execute(
        update(StudyRow)
        .where(StudyRow.study_instance_uid == uid, StudyRow.purged_at.is_not(None))
        .values(purged_at=None)
        .execution_options(synchronize_session=False)
    )
