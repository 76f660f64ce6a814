"""Run again what failed for good, because a person asks for it once the cause is mended.

A report that is not written yet is queued again where it was: nothing of its revision has been sent. A failed analysis
is told in a report, and what may be out keeps its UIDs and its bytes. So a new revision of the same images is opened:
the plan analyses in it what failed, what did not fail stands, and its report replaces the earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import deliveries, purging, receiving, work
from node.db.lifecycle import JobState, RevisionState
from node.db.session import Database
from node.db.tables import JobRow, RevisionRow, StudyRow
from node.jobs import intake
from node.jobs.record import now
from node.jobs.run import record_job
from node.settings import Settings

_ASKED = "asked for again"


@dataclass(frozen=True)
class Queued:
    """One piece of work that will be done again."""

    pipeline: str
    series_instance_uid: str
    """Empty for a report."""
    revision: int
    """The one it is done in."""


@dataclass(frozen=True)
class Again:
    """What comes of asking."""

    study_instance_uid: str
    reason: str
    """What will happen, or why nothing will."""
    queued: list[Queued] = field(default_factory=list)


def retry(database: Database, settings: Settings, study_instance_uid: str, *, actor: str) -> Again:
    """Whatever failed in the newest revision of the study will be done again, its report included."""
    with database.write() as session:
        purging.lock_study(session, study_instance_uid)
        study = session.get(StudyRow, study_instance_uid)
        if study is None or not study.revisions:
            return Again(study_instance_uid, f"no study {study_instance_uid} was received here")
        revision = study.revisions[-1]
        match revision.state:
            case RevisionState.RECEIVING | RevisionState.COMPLETE:
                reason = f"revision {revision.number} is not planned yet: what failed before is analysed again in it"
                return Again(study_instance_uid, reason)
            case RevisionState.PLANNED:
                return _unreported(session, revision, actor)
            case _:
                return _reported(session, revision, settings, actor)


def _unreported(session: Session, revision: RevisionRow, actor: str) -> Again:
    jobs = work.jobs_of(session, revision.id)
    report = next((job for job in jobs if job.pipeline == work.REPORT), None)
    if report is None or not work.queue_again(session, report.id, at=now()):
        reason = f"revision {revision.number} is being worked on: ask again once it is reported"
        return Again(revision.study_instance_uid, reason)
    record_job(session, Action.JOB_REQUEUED, report, revision, actor=actor, reason=_ASKED)
    queued, reason = [Queued(work.REPORT, "", revision.number)], f"revision {revision.number} will be reported"
    failed = _failed_analyses(jobs)
    if failed:
        follows = _new_revision(session, revision, failed, actor)
        return Again(revision.study_instance_uid, f"{reason}; {follows.reason}", queued + follows.queued)
    return Again(revision.study_instance_uid, reason, queued)


def _reported(session: Session, revision: RevisionRow, settings: Settings, actor: str) -> Again:
    jobs = work.jobs_of(session, revision.id)
    failed = _failed_analyses(jobs)
    # so late an attempt has left out the measurements and findings: see node.jobs.report
    is_bare = any(job.pipeline == work.REPORT and job.attempt >= settings.max_attempts for job in jobs)
    here = [job for job in failed if job.series_instance_uid not in _purged(session, revision, failed)]
    if here or (is_bare and revision.study.purged_at is None):
        return _new_revision(session, revision, here, actor)
    if failed or is_bare:
        deleted = purging.deleted(session, revision.study_instance_uid)
        reason = f"{deleted}, so nothing of it can be analysed again: have the study sent again, and ask then"
        return Again(revision.study_instance_uid, reason)
    _, dead = deliveries.open_count(session, revision.id)
    hint = f"; its dead letters go out again with: pacsnode resend {revision.study_instance_uid}" if dead else ""
    return Again(revision.study_instance_uid, f"no analysis of revision {revision.number} has failed{hint}")


def _failed_analyses(jobs: Sequence[JobRow]) -> list[JobRow]:
    return [job for job in jobs if job.pipeline != work.REPORT and job.state == JobState.FAILED]


def _purged(session: Session, revision: RevisionRow, failed: Sequence[JobRow]) -> Collection[str]:
    return purging.purged_of_series(session, revision.study_instance_uid, {job.series_instance_uid for job in failed})


def _new_revision(session: Session, revision: RevisionRow, failed: Sequence[JobRow], actor: str) -> Again:
    """Open and closed in one transaction, so that no image comes into it."""
    new = receiving.open_revision(
        session,
        revision.study_instance_uid,
        source_aet=revision.source_aet,
        urgent=revision.urgent,
        at=revision.last_image_at,
    )
    because = f"{_ASKED} after revision {revision.number}, by {actor}"
    intake.close(session, new, because=because, actor=actor, patient_id=revision.study.patient_id)
    for job in failed:
        record_job(
            session, Action.JOB_REQUEUED, job, revision, actor=actor, reason=_ASKED, again_in_revision=new.number
        )
    queued = [Queued(job.pipeline, job.series_instance_uid, new.number) for job in failed]
    reason = f"revision {new.number} is opened, and its report will replace that of revision {revision.number}"
    return Again(new.study_instance_uid, reason, [*queued, Queued(work.REPORT, "", new.number)])
