"""Statements about jobs: claim by one conditional UPDATE, with a lease and an attempt number."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from node.db.lifecycle import FINISHED_JOB, JobState, RevisionState
from node.db.tables import FindingRow, InstanceRow, JobRow, ModelVersionRow, ResultRow, RevisionRow

REPORT = "report"
"""The pipeline name of the job that writes the report of a revision."""
FAILED_IN_PART = "failed in part"
"""The outcome of an analysis that is done, and that broke on some of its images."""
URGENT_IN_A_ROW = 3
"""Jobs, while routine ones have waited for long."""


def add_job(session: Session, row: JobRow) -> bool:
    """Queue it; False where this job is there already (unique: revision, pipeline, series)."""
    known = session.scalar(
        select(JobRow.id).where(
            JobRow.revision_id == row.revision_id,
            JobRow.pipeline == row.pipeline,
            JobRow.series_instance_uid == row.series_instance_uid,
        )
    )
    if known is not None:
        return False
    session.add(row)
    session.flush()
    return True


def job(session: Session, job_id: int) -> JobRow:
    return session.get_one(JobRow, job_id)


def _due(now: dt.datetime) -> Select[JobRow]:
    return select(JobRow).where(
        JobRow.state == JobState.QUEUED, or_(JobRow.not_before.is_(None), JobRow.not_before <= now)
    )


def claim(
    session: Session,
    *,
    worker: str,
    now: dt.datetime,
    lease_until: dt.datetime,
    waiting_since: dt.datetime | None = None,
) -> JobRow | None:
    """The most urgent, then oldest, queued job, now ours; None where there is none.

    Two workers may choose the same one; the UPDATE's row count says who has it.

    waiting_since   a routine job that was queued before this takes the turn after `URGENT_IN_A_ROW` urgent ones
    """
    urgency = JobRow.urgent.desc()
    if waiting_since is not None and _routine_has_waited(session, now, waiting_since):
        urgency = JobRow.urgent.asc()
    for candidate in session.scalars(
        _due(now).order_by(urgency, JobRow.queued_at, JobRow.id).limit(8).with_for_update(skip_locked=True)
    ).all():
        done = session.execute(
            update(JobRow)
            .where(JobRow.id == candidate.id, JobRow.state == JobState.QUEUED, JobRow.attempt == candidate.attempt)
            .values(
                state=JobState.RUNNING,
                attempt=candidate.attempt + 1,
                worker=worker,
                lease_until=lease_until,
                started_at=now,
                progress=0.0,
                step="",
                reason="",
            )
            .execution_options(synchronize_session="fetch")
        )
        if done.rowcount:  # type: ignore[attr-defined]
            return candidate
    return None


def _routine_has_waited(session: Session, now: dt.datetime, since: dt.datetime) -> bool:
    """Whether a routine job waits since before then, and those begun of late were all urgent."""
    waits = _due(now).where(JobRow.urgent.is_(False), JobRow.queued_at < since).limit(1)
    if session.scalars(waits).first() is None:
        return False
    begun = (
        select(JobRow.urgent).where(JobRow.started_at.is_not(None)).order_by(JobRow.started_at.desc(), JobRow.id.desc())
    )
    late = session.scalars(begun.limit(URGENT_IN_A_ROW)).all()
    return len(late) == URGENT_IN_A_ROW and all(late)


def _mine(job_id: int, attempt: int) -> Any:
    return and_(JobRow.id == job_id, JobRow.attempt == attempt, JobRow.state == JobState.RUNNING)


def renew(session: Session, job_id: int, attempt: int, *, lease_until: dt.datetime, progress: float, step: str) -> bool:
    """Still working; False where the job is no longer ours."""
    done = session.execute(
        update(JobRow).where(_mine(job_id, attempt)).values(lease_until=lease_until, progress=progress, step=step)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def finish(session: Session, job_id: int, attempt: int, state: JobState, **values: Any) -> bool:
    """RUNNING → DONE or FAILED; False where the job is no longer ours (then nothing of this attempt may be kept)."""
    done = session.execute(
        update(JobRow)
        .where(_mine(job_id, attempt))
        .values(state=state, lease_until=None, **values)
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def give_back(
    session: Session, job_id: int, attempt: int, *, not_before: dt.datetime, reason: str, counted: bool = True
) -> bool:
    """RUNNING → QUEUED for another attempt. Not counted: the next one has the same number.

    Only the holder of an attempt may not count it: the number is what tells a worker that lost its lease from the next.
    """
    done = session.execute(
        update(JobRow)
        .where(_mine(job_id, attempt))
        .values(
            state=JobState.QUEUED,
            attempt=attempt if counted else attempt - 1,
            lease_until=None,
            not_before=not_before,
            woken_at=None,
            reason=reason,
        )
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def queue_again(session: Session, job_id: int, *, at: dt.datetime) -> bool:
    """FAILED → QUEUED, or QUEUED for later → QUEUED for now: with all its attempts before it.

    They are numbered from the start, though a worker that was silent all the while could still hold one of the same
    number: only for jobs of which either writes the same bytes, and only what ends first is entered.
    """
    waits = and_(JobRow.state == JobState.QUEUED, JobRow.not_before > at)
    done = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, or_(JobRow.state == JobState.FAILED, waits))
        .values(
            state=JobState.QUEUED,
            attempt=0,
            queued_at=at,
            not_before=None,
            woken_at=None,
            started_at=None,
            ended_at=None,
            outcome="",
            reason="",
        )
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def lapsed(session: Session, now: dt.datetime) -> Sequence[JobRow]:
    """Running jobs whose worker has gone silent."""
    return session.scalars(select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.lease_until < now)).all()


def running(session: Session) -> Sequence[JobRow]:
    return session.scalars(select(JobRow).where(JobRow.state == JobState.RUNNING)).all()


def due(session: Session, now: dt.datetime) -> Sequence[JobRow]:
    return session.scalars(_due(now).order_by(JobRow.id)).all()


def mark_woken(session: Session, job_ids: Sequence[int], *, at: dt.datetime) -> None:
    session.execute(update(JobRow).where(JobRow.id.in_(job_ids)).values(woken_at=at))


def jobs_of(session: Session, revision_id: int) -> Sequence[JobRow]:
    return session.scalars(select(JobRow).where(JobRow.revision_id == revision_id).order_by(JobRow.id)).all()


def _open_analysis() -> Any:
    return and_(
        JobRow.revision_id == RevisionRow.id, JobRow.pipeline != REPORT, JobRow.state.not_in(list(FINISHED_JOB))
    )


def all_analysed(session: Session, revision_id: int) -> bool:
    """Whether every analysis of the revision has ended. For sure only under `receiving.lock_revision`."""
    query = select(RevisionRow.id).where(RevisionRow.id == revision_id, ~exists().where(_open_analysis()))
    return session.scalar(query) is not None


def without_report(session: Session) -> Sequence[int]:
    """Planned revisions whose analyses have ended and that have no report job, which should not be."""
    query = select(RevisionRow.id).where(
        RevisionRow.state == RevisionState.PLANNED,
        ~exists().where(_open_analysis()),
        ~exists().where(JobRow.revision_id == RevisionRow.id, JobRow.pipeline == REPORT),
    )
    return session.scalars(query.order_by(RevisionRow.id)).all()


def earlier_job(session: Session, revision: RevisionRow, *, pipeline: str, series_instance_uid: str) -> JobRow | None:
    """The finished job of an earlier revision whose series has not changed since: its results still stand."""
    found = session.scalar(
        select(JobRow)
        .join(RevisionRow, RevisionRow.id == JobRow.revision_id)
        .where(
            RevisionRow.study_instance_uid == revision.study_instance_uid,
            RevisionRow.number < revision.number,
            JobRow.pipeline == pipeline,
            JobRow.series_instance_uid == series_instance_uid,
        )
        .order_by(RevisionRow.number.desc())
        .limit(1)
    )
    if found is None or found.state != JobState.DONE:
        return None
    since = session.scalar(
        select(func.count())
        .select_from(InstanceRow)
        .join(RevisionRow, RevisionRow.id == InstanceRow.revision_id)
        .where(
            InstanceRow.series_instance_uid == series_instance_uid,
            InstanceRow.study_instance_uid == revision.study_instance_uid,
            RevisionRow.number > found.revision.number,
            RevisionRow.number <= revision.number,
        )
    )
    return None if since else found


def has_failed() -> Any:
    """Of an analysis: whole, or some of its images."""
    return and_(JobRow.pipeline != REPORT, or_(JobRow.state == JobState.FAILED, JobRow.outcome == FAILED_IN_PART))


def rests_on(revision: RevisionRow, job_id: int) -> list[int]:
    """Earlier jobs that told of those images of this job, of that revision, which it does not analyse again."""
    [found] = [entry.get("rests_on", []) for entry in revision.selection if entry["job_id"] == job_id]
    return list(found)


def standing(session: Session, study_instance_uid: str) -> set[int]:
    """The jobs that the newest plan of a study refers to, those of older revisions too: nothing replaces them."""
    selection = session.scalar(
        select(RevisionRow.selection)
        .where(RevisionRow.study_instance_uid == study_instance_uid, RevisionRow.planned_at.is_not(None))
        .order_by(RevisionRow.number.desc())
        .limit(1)
    )
    return {job for entry in selection or [] for job in (entry["job_id"], *entry.get("rests_on", []))} - {None}


def add_finding(session: Session, job_id: int, body: dict[str, Any]) -> None:
    session.add(FindingRow(job_id=job_id, body=body))


def finding(session: Session, job_id: int) -> dict[str, Any] | None:
    return session.scalar(select(FindingRow.body).where(FindingRow.job_id == job_id))


def add_results(session: Session, rows: Sequence[ResultRow]) -> None:
    session.add_all(rows)
    session.flush()


def results_of_job(session: Session, job_id: int) -> Sequence[ResultRow]:
    return session.scalars(
        select(ResultRow).where(ResultRow.job_id == job_id).order_by(ResultRow.kind, ResultRow.path)
    ).all()


def results(session: Session, uids: Sequence[str]) -> Sequence[ResultRow]:
    """Of whatever revision, in the order of `results_of_job`."""
    query = select(ResultRow).where(ResultRow.sop_instance_uid.in_(uids))
    return session.scalars(query.order_by(ResultRow.kind, ResultRow.path)).all()


def results_of_revision(session: Session, revision_id: int) -> Sequence[ResultRow]:
    return session.scalars(
        select(ResultRow)
        .where(ResultRow.revision_id == revision_id)
        .order_by(ResultRow.job_id, ResultRow.alternatives, ResultRow.fallback, ResultRow.path)
    ).all()


def jobs_with_results(session: Session, revision_id: int) -> set[int]:
    return set(session.scalars(select(ResultRow.job_id).where(ResultRow.revision_id == revision_id)))


def note_model(session: Session, *, name: str, version: str, weights_sha256: str, at: dt.datetime) -> None:
    if session.get(ModelVersionRow, (name, version, weights_sha256)) is None:
        session.add(ModelVersionRow(name=name, version=version, weights_sha256=weights_sha256, first_used_at=at))
        session.flush()
