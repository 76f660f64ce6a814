"""Run again what failed for good, because a person asks for it once the cause is mended.

A report that is not written yet is queued again where it was: nothing of its revision has been sent. A failed analysis
is told in a report, and what may be out keeps its UIDs and its bytes. So a new revision of the same images is opened:
the plan analyses in it what failed, or was left out while its analysis was not in service; what did not fail stands,
and its report replaces the earlier one. So too where an analysis broke on some images of a series: those alone are done
again.

The newest revision replaces what failed in older ones, with one exception: results of an older revision that it refers
to, since their series has not changed, are sent by the report job of that older one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import deliveries, purging, switches, work
from node.db.lifecycle import JobState, RevisionState
from node.db.session import Database
from node.db.tables import JobRow, RevisionRow, StudyRow
from node.jobs import intake
from node.jobs.record import now
from node.jobs.run import leaves_findings_out, record_job
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
    left: list[str] = field(default_factory=list)
    """What failed in older revisions and is left as it is, each with the reason."""


def retry(database: Database, settings: Settings, study_instance_uid: str, *, actor: str) -> Again:
    """Whatever failed in the study and is not replaced will be done again, the report included."""
    with database.write() as session:
        purging.lock_study(session, study_instance_uid)
        study = session.get(StudyRow, study_instance_uid)
        if study is None or not study.revisions:
            return Again(study_instance_uid, f"no study {study_instance_uid} was received here")
        *older, newest = study.revisions
        planned = next((revision for revision in reversed(study.revisions) if revision.planned_at), newest)
        found = _newest(session, newest, settings, actor)
        for revision in older:
            found = _older(session, found, revision, planned, actor)
        return replace(found, left=[*found.left, *_dead_letters(session, older, planned)])


def _newest(session: Session, revision: RevisionRow, settings: Settings, actor: str) -> Again:
    match revision.state:
        case RevisionState.RECEIVING | RevisionState.COMPLETE:
            reason = f"revision {revision.number} is not planned yet: what failed before is analysed again in it"
            return Again(revision.study_instance_uid, reason)
        case RevisionState.PLANNED:
            return _unreported(session, revision, actor)
        case _:
            return _reported(session, revision, settings, actor)


def _unreported(session: Session, revision: RevisionRow, actor: str) -> Again:
    jobs = work.jobs_of(session, revision.id)
    report = next((job for job in jobs if job.pipeline == work.REPORT), None)
    if revision.study.purged_at is not None:
        deleted = purging.deleted(session, revision.study_instance_uid)
        return Again(
            revision.study_instance_uid, f"{deleted}, so nothing of it can be reported: have the study sent again"
        )
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
    left_out, still = _left_out(session, revision)
    broken = [job for job in _failed_analyses(jobs) if switches.is_off(session, job.pipeline) is None]
    failed = list({job.id: job for job in [*broken, *left_out]}.values())
    is_bare = any(leaves_findings_out(settings, job) for job in jobs)
    here = [job for job in failed if job.series_instance_uid not in _purged(session, revision, failed)]
    if here or (is_bare and revision.study.purged_at is None):
        return _new_revision(session, revision, here, actor)
    deleted = purging.deleted(session, revision.study_instance_uid)
    if failed or is_bare:
        reason = f"{deleted}, so nothing of it can be analysed again: have the study sent again, and ask then"
        return Again(revision.study_instance_uid, reason)
    if still:
        reason = f"not in service: {', '.join(still)}; pacsnode check says why. Ask again once that is on"
        return Again(revision.study_instance_uid, reason)
    _, dead = deliveries.open_count(session, revision.id)
    hint = f"; its dead letters go out again with: pacsnode resend {revision.study_instance_uid}" if dead else ""
    if revision.state == RevisionState.UNSENT:
        hint = f"; its results, which went nowhere, go out with: pacsnode resend {revision.study_instance_uid}"
    hint = f"; {deleted}" if deleted else hint  # neither can be done again, nor sent
    return Again(revision.study_instance_uid, f"no analysis of revision {revision.number} has failed{hint}")


def _left_out(session: Session, revision: RevisionRow) -> tuple[list[JobRow], list[str]]:
    """(analyses that its report leaves out and that are in service now, by name those that are not)."""
    out = [entry for entry in revision.selection if switches.LEFT_OUT in entry]
    still = sorted({entry["pipeline"] for entry in out} & switches.not_on(session).keys())
    return [work.job(session, entry["job_id"]) for entry in out if entry["pipeline"] not in still], still


def _older(session: Session, found: Again, revision: RevisionRow, planned: RevisionRow, actor: str) -> Again:
    """With what failed in an older revision. `planned` is the newest that has a plan: what it decided replaces."""
    jobs = work.jobs_of(session, revision.id)
    of = f"of revision {revision.number}"
    left = [
        f"{job.pipeline} of series {job.series_instance_uid} {of}: {_instead(job, planned)}"
        for job in _failed_analyses(jobs)
    ]
    report = next((job for job in jobs if job.pipeline == work.REPORT), None)
    if revision.state == RevisionState.PLANNED and report is not None:
        stands = work.standing(session, revision.study_instance_uid) & work.jobs_with_results(session, revision.id)
        if planned.number > revision.number and not stands:
            left.append(f"the report {of}: that of revision {planned.number} replaces it")
        elif revision.study.purged_at is not None:
            left.append(f"the report {of}: {purging.deleted(session, revision.study_instance_uid)}")
        elif work.queue_again(session, report.id, at=now()):
            record_job(session, Action.JOB_REQUEUED, report, revision, actor=actor, reason=_ASKED)
            reason = f"{found.reason}; revision {revision.number} will be reported"
            found = replace(found, reason=reason, queued=[*found.queued, Queued(work.REPORT, "", revision.number)])
        else:
            left.append(f"the report {of}: it is being worked on")
    return replace(found, left=[*found.left, *left])


def _instead(job: JobRow, planned: RevisionRow) -> str:
    """What the newest plan made of an analysis that failed before it."""
    if planned.id == job.revision_id:
        return "the next revision analyses it again, once it is planned"
    of_series = [e for e in planned.selection if e["series_instance_uid"] == job.series_instance_uid]
    if any(entry["job_id"] for entry in of_series):
        return f"revision {planned.number} analyses the series anew"
    reason = next((entry["reason"] for entry in of_series), "it is not in the plan.")
    return f"revision {planned.number} does not analyse the series: {reason}"


def _dead_letters(session: Session, older: Sequence[RevisionRow], planned: RevisionRow) -> list[str]:
    """Deliveries are not sent again here; those of older revisions are easily overlooked."""
    said = []
    uid = planned.study_instance_uid
    letters = deliveries.dead(session, study_instance_uid=uid, peer_aet=None) if older else []
    standing = work.standing(session, uid)
    for revision in older:
        jobs = [
            deliveries.result(session, row.sop_instance_uid).job_id for row in letters if row.revision_id == revision.id
        ]
        stand = sum(job in standing for job in jobs)
        if stand:
            said.append(f"dead letters of revision {revision.number} that still stand: {stand}; pacsnode resend {uid}")
        if len(jobs) > stand:
            replaced = f"revision {planned.number} replaces them"
            said.append(f"other dead letters of revision {revision.number}: {len(jobs) - stand}; {replaced}")
    return said


def _failed_analyses(jobs: Sequence[JobRow]) -> list[JobRow]:
    analyses = [job for job in jobs if job.pipeline != work.REPORT]
    return [job for job in analyses if job.state == JobState.FAILED or job.outcome == work.FAILED_IN_PART]


def _purged(session: Session, revision: RevisionRow, failed: Sequence[JobRow]) -> Collection[str]:
    return purging.purged_of_series(session, revision.study_instance_uid, {job.series_instance_uid for job in failed})


def _new_revision(session: Session, revision: RevisionRow, failed: Sequence[JobRow], actor: str) -> Again:
    because = f"{_ASKED} after revision {revision.number}, by {actor}"
    new = intake.again(session, revision, because=because, actor=actor)
    for job in failed:
        record_job(
            session, Action.JOB_REQUEUED, job, revision, actor=actor, reason=_ASKED, again_in_revision=new.number
        )
    queued = [Queued(job.pipeline, job.series_instance_uid, new.number) for job in failed]
    reason = f"revision {new.number} is opened, and its report will replace that of revision {revision.number}"
    return Again(new.study_instance_uid, reason, [*queued, Queued(work.REPORT, "", new.number)])
