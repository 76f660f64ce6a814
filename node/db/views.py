"""Read-only statements for people: which studies there are, how far each is, what waits too long and what failed."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from node.db import peers, receiving, switches, work
from node.db.lifecycle import FINISHED_JOB, DeliveryState, JobState, RevisionState
from node.db.tables import (
    DeliveryRow,
    JobRow,
    ResultRow,
    RevisionRow,
    SeriesRow,
    StudyRow,
)
from node.db.work import REPORT
from node.settings import Completion

UNFINISHED = (RevisionState.RECEIVING, RevisionState.COMPLETE, RevisionState.PLANNED, RevisionState.REPORTED)


@dataclass(frozen=True)
class StudyLine:
    """One study in its newest revision, as a list shows it."""

    study_instance_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    description: str
    source_aet: str
    revision: int
    state: str
    urgent: bool
    images: int
    """Of all revisions."""
    progress: float
    """0 to 1 over the jobs of this revision."""
    step: str
    deliveries: int
    delivered: int
    first_received_at: dt.datetime
    last_image_at: dt.datetime
    reason: str
    """The newest thing that went wrong or was not eligible, in words; empty where nothing was."""
    purged_at: dt.datetime | None
    """When its files were deleted, where none is held."""
    legal_hold: str
    """Why nothing of it may be deleted; empty where it may."""


def studies(
    session: Session,
    *,
    state: str = "",
    search: str = "",
    held: bool = False,
    among: Collection[str] | None = None,
    limit: int = 50,
) -> list[StudyLine]:
    """The newest first.

    search      part of a UID, or a whole patient id or accession number
    held        only those under a legal hold
    among       only these, by Study Instance UID
    """
    newest = (
        select(RevisionRow.study_instance_uid, func.max(RevisionRow.number).label("number"))
        .group_by(RevisionRow.study_instance_uid)
        .subquery()
    )
    query = (
        select(StudyRow, RevisionRow)
        .join(RevisionRow, RevisionRow.study_instance_uid == StudyRow.study_instance_uid)
        .join(
            newest,
            and_(newest.c.study_instance_uid == RevisionRow.study_instance_uid, newest.c.number == RevisionRow.number),
        )
        .order_by(RevisionRow.last_image_at.desc())
        .limit(limit)
    )
    if state:
        query = query.where(RevisionRow.state == state)
    if search:
        query = query.where(_named(search))
    if held:
        query = query.where(StudyRow.legal_hold != "")
    if among is not None:
        query = query.where(StudyRow.study_instance_uid.in_(among))
    return [_line(session, study, revision) for study, revision in session.execute(query).all()]


def _named(search: str) -> Any:
    return or_(
        StudyRow.study_instance_uid.contains(search, autoescape=True),
        StudyRow.patient_id == search,
        StudyRow.accession_number == search,
    )


def find_studies(session: Session, search: str, *, limit: int = 20) -> list[str]:
    """Study Instance UIDs that `search` may mean: itself where it is one, else those that `studies` would list."""
    if session.get(StudyRow, search) is not None:
        return [search]
    return list(session.scalars(select(StudyRow.study_instance_uid).where(_named(search)).limit(limit)))


def _line(session: Session, study: StudyRow, revision: RevisionRow) -> StudyLine:
    uid = study.study_instance_uid
    images = session.scalar(select(func.sum(RevisionRow.images)).where(RevisionRow.study_instance_uid == uid))
    jobs = session.scalars(select(JobRow).where(JobRow.revision_id == revision.id).order_by(JobRow.id)).all()
    states = session.execute(
        select(DeliveryRow.state, func.count())
        .where(DeliveryRow.revision_id == revision.id)
        .group_by(DeliveryRow.state)
    ).all()
    deliveries: Mapping[str, int] = {str(state): count for state, count in states}
    running = [job for job in jobs if job.state == JobState.RUNNING]
    return StudyLine(
        study_instance_uid=uid,
        patient_id=study.patient_id,
        accession_number=study.accession_number,
        study_date=study.study_date,
        description=study.description,
        source_aet=revision.source_aet,
        revision=revision.number,
        state=revision.state,
        urgent=revision.urgent,
        images=int(images or 0),
        progress=_progress(jobs),
        step=running[0].step if running else "",
        deliveries=sum(n for s, n in deliveries.items() if s != DeliveryState.REPLACED),
        delivered=deliveries.get(DeliveryState.COMMITTED, 0),
        first_received_at=study.first_received_at,
        last_image_at=revision.last_image_at,
        reason=_last_reason(session, revision, jobs),
        purged_at=study.purged_at,
        legal_hold=study.legal_hold,
    )


def _progress(jobs: Sequence[JobRow]) -> float:
    done = sum(1.0 if job.state in FINISHED_JOB else job.progress for job in jobs)
    return done / len(jobs) if jobs else 0.0


def _last_reason(session: Session, revision: RevisionRow, jobs: Sequence[JobRow]) -> str:
    if revision.state == RevisionState.UNSENT:
        return f"{nowhere(revision.source_aet)}; once there is: pacsnode resend {revision.study_instance_uid}"
    undelivered = session.scalar(
        select(DeliveryRow.reason)
        .where(DeliveryRow.revision_id == revision.id, DeliveryRow.reason != "")
        .where(DeliveryRow.state.not_in([DeliveryState.COMMITTED, DeliveryState.REPLACED]))
        .order_by(DeliveryRow.id.desc())
        .limit(1)
    )
    if undelivered:
        return undelivered
    for job in reversed(jobs):
        if job.reason:
            return job.reason
    left_out = next((e[switches.LEFT_OUT] for e in revision.selection if switches.LEFT_OUT in e), "")
    if left_out:
        return str(left_out)
    undone = ("no longer held", "not eligible")
    return next((e["reason"] for what in undone for e in revision.selection if e.get("decision") == what), "")


def nowhere(source_aet: str) -> str:
    """Why a revision is unsent."""
    return f"its results went nowhere: no route of {source_aet} to a peer that takes any"


def derived_series(session: Session, modality: str) -> dict[str, str]:
    """Series of derived images that we made → the received series of this modality that each was made from."""
    rows = session.execute(
        select(ResultRow.series_instance_uid, JobRow.series_instance_uid)
        .join(JobRow, JobRow.id == ResultRow.job_id)
        .join(SeriesRow, SeriesRow.series_instance_uid == JobRow.series_instance_uid)
        .where(ResultRow.kind == "derived", SeriesRow.modality == modality)
        .distinct()
    ).all()
    return {str(derived): str(source) for derived, source in rows}


class Stage(StrEnum):
    """What work may wait for, in words."""

    CLOSE = "studies to be closed"
    PLAN = "studies to be planned"
    RUN = "jobs to be run"
    TAKE_BACK = "jobs to be taken back from a silent worker"
    DELIVER = "results to be delivered"


@dataclass(frozen=True)
class Overdue:
    """Work of one stage that has waited past the limit."""

    stage: Stage
    count: int
    since: dt.datetime
    """When the oldest of it was due."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.count}, the oldest due since {self.since:%Y-%m-%d %H:%M} UTC"


def overdue(session: Session, *, before: dt.datetime) -> list[Overdue]:
    """Stages with work that was due before then, and is still not done."""
    undelivered = [DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT]
    found = [
        _overdue_to_close(session, before),
        _oldest(session, Stage.PLAN, RevisionRow.completed_at, RevisionRow.state == RevisionState.COMPLETE, before),
        _oldest(session, Stage.RUN, JobRow.queued_at, JobRow.state == JobState.QUEUED, before),
        _oldest(session, Stage.TAKE_BACK, JobRow.lease_until, JobRow.state == JobState.RUNNING, before),
        _oldest(session, Stage.DELIVER, DeliveryRow.created_at, DeliveryRow.state.in_(undelivered), before),
    ]
    return [one for one in found if one is not None]


def _oldest(
    session: Session, stage: Stage, since: Any, waits: ColumnElement[bool], before: dt.datetime
) -> Overdue | None:
    count, first = session.execute(select(func.count(), func.min(since)).where(waits, since < before)).one()
    return Overdue(stage, count, first) if count else None


def _overdue_to_close(session: Session, before: dt.datetime) -> Overdue | None:
    """The completion rule of its peer says when a revision is due."""
    rules = {peer.aet: peer.completion for peer in peers.peers(session)}
    due = []
    for row in receiving.revisions_in(session, RevisionState.RECEIVING):
        rule = rules.get(row.source_aet, Completion())
        quiet, deadline = dt.timedelta(seconds=rule.quiet_s), dt.timedelta(seconds=rule.deadline_s)
        due.append(min(row.last_image_at + quiet, row.first_image_at + deadline))
    late = [at for at in due if at < before]
    return Overdue(Stage.CLOSE, len(late), min(late)) if late else None


@dataclass(frozen=True)
class Failures:
    """What has failed for good and still stands, so that somebody should do something.

    It stands until a newer revision is planned, and after that where the newest plan refers to it. Where the files were
    deleted since, nobody can do anything.
    """

    reports: Sequence[str]
    """Study Instance UIDs: nothing was sent for a revision of these."""
    analyses: Sequence[str]
    """Study Instance UIDs: their reports say that an analysis failed."""
    dead_letters: Mapping[str, Mapping[str, int]]
    """How many by peer and Study Instance UID; what a peer is no longer to be given is not missed."""
    unsent: Sequence[str] = field(default_factory=list)
    """Study Instance UIDs: nobody was to get the results of these."""

    @property
    def studies(self) -> set[str]:
        """All of them, by Study Instance UID."""
        letters = (uid for of_peer in self.dead_letters.values() for uid in of_peer)
        return {*self.reports, *self.analyses, *self.unsent, *letters}


def failures(session: Session) -> Failures:
    jobs = session.execute(
        select(RevisionRow.study_instance_uid, RevisionRow.id, JobRow.pipeline, _is_last_planned())
        .join(JobRow, JobRow.revision_id == RevisionRow.id)
        .join(StudyRow, StudyRow.study_instance_uid == RevisionRow.study_instance_uid)
        .where(or_(JobRow.state == JobState.FAILED, work.has_failed()), StudyRow.purged_at.is_(None))
        .where(or_(_is_last_planned(), JobRow.pipeline == REPORT))
        .order_by(RevisionRow.id)
    ).all()
    reports = [
        uid
        for uid, revision, pipeline, is_last in jobs
        if pipeline == REPORT and (is_last or work.jobs_with_results(session, revision) & work.standing(session, uid))
    ]
    return Failures(
        reports=list(dict.fromkeys(reports)),
        analyses=list(dict.fromkeys(uid for uid, _, pipeline, _ in jobs if pipeline != REPORT)),
        dead_letters=_dead_letters(session),
        unsent=_unsent(session),
    )


def _unsent(session: Session) -> list[str]:
    rows = session.execute(
        select(RevisionRow.study_instance_uid, RevisionRow.id, _is_last_planned())
        .join(StudyRow, StudyRow.study_instance_uid == RevisionRow.study_instance_uid)
        .where(RevisionRow.state == RevisionState.UNSENT, StudyRow.purged_at.is_(None))
        .order_by(RevisionRow.id)
    ).all()
    return list(
        dict.fromkeys(
            uid
            for uid, revision, is_last in rows
            if is_last or work.jobs_with_results(session, revision) & work.standing(session, uid)
        )
    )


def _is_last_planned() -> ColumnElement[bool]:
    later = aliased(RevisionRow)
    return ~(
        select(later.id)
        .where(later.study_instance_uid == RevisionRow.study_instance_uid, later.number > RevisionRow.number)
        .where(later.planned_at.is_not(None))
        .exists()
    )


def _dead_letters(session: Session) -> Mapping[str, Mapping[str, int]]:
    takes = {peer.aet: peer.takes for peer in peers.peers(session) if peer.may_receive}
    rows = session.execute(
        select(
            DeliveryRow.peer_aet,
            ResultRow.kind,
            RevisionRow.study_instance_uid,
            ResultRow.job_id,
            _is_last_planned(),
        )
        .join(ResultRow, ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid)
        .join(RevisionRow, RevisionRow.id == DeliveryRow.revision_id)
        .join(JobRow, JobRow.id == ResultRow.job_id)
        .where(DeliveryRow.state == DeliveryState.DEAD, ResultRow.purged_at.is_(None), switches.is_shown())
        .order_by(DeliveryRow.peer_aet, RevisionRow.id)
    ).all()
    older = {uid for _, _, uid, _, is_last in rows if not is_last}
    standing = {uid: work.standing(session, uid) for uid in older}
    missed: dict[str, Counter[str]] = defaultdict(Counter)
    for aet, kind, uid, job_id, is_last in rows:
        if kind in takes.get(aet, ()) and (is_last or job_id in standing[uid]):
            missed[aet][uid] += 1
    return missed
