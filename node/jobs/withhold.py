"""Analyses that are not in service: nothing of them is shown to a reader, and nothing of them leaves.

What the site file says counts at three moments: when a job would begin (`Worker`), when a report is written (`settle`),
and when an object would be sent (`recall`). A report keeps to what it was written by: a result that it leaves out is
never sent, and where it tells of one that must not be sent any more it is called back, and another is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import deliveries, purging, receiving, switches, work
from node.db.lifecycle import DeliveryState
from node.db.session import Database
from node.db.switches import LEFT_OUT
from node.db.tables import DeliveryRow, RevisionRow, SwitchRow
from node.jobs import intake
from node.jobs.record import record
from node.jobs.run import record_job


def settle(database: Database, revision_id: int, *, actor: str) -> None:
    """Decide, for good, which analyses the report of this revision leaves out. Before it is written."""
    with database.write() as session:
        receiving.lock_revision(session, revision_id)
        revision = receiving.revision(session, revision_id)
        not_on = switches.not_on(session)
        revision.selection = [_settled(session, revision, entry, not_on, actor) for entry in revision.selection]


def _settled(
    session: Session,
    revision: RevisionRow,
    entry: dict[str, Any],
    not_on: Mapping[str, SwitchRow],
    actor: str,
) -> dict[str, Any]:
    if entry["job_id"] is None or LEFT_OUT in entry:
        return entry
    job, row = work.job(session, entry["job_id"]), not_on.get(entry["pipeline"])
    if row is None:
        return {**entry, LEFT_OUT: job.reason} if job.outcome in switches.WITHHELD else entry
    reason, outcome = switches.in_words(row), switches.outcome(row)
    for each in (job.id, *entry.get("rests_on", [])):
        if switches.withhold(session, each, outcome=outcome, reason=reason):
            kept = work.job(session, each)
            record_job(session, Action.JOB_WITHHELD, kept, revision, actor=actor, result=outcome, reason=reason)
    return {**entry, LEFT_OUT: reason}


def recall(database: Database, revision_id: int, *, actor: str) -> bool:
    """Before anything of the revision is sent: what must not leave any more is taken back, and so is its report.

    Another report is then written, of a new revision of the same images, which says so: where the earlier one has
    arrived, it tells of objects that never will. What is on the wire, or has arrived, is not called back. False where
    there was nothing to take back.
    """
    with database.read() as session:
        if not _to_recall(session, receiving.revision(session, revision_id)):
            return False
    with database.write() as session:
        revision = receiving.revision(session, revision_id)
        purging.lock_study(session, revision.study_instance_uid)
        receiving.lock_revision(session, revision_id)
        why = _why(session, revision)
        rows = _to_recall(session, revision)
        taken = [row for row in rows if deliveries.move(session, row, DeliveryState.REPLACED, reason=why)]
        for aet in sorted({row.peer_aet for row in taken}):
            _record(session, revision, aet, [row for row in taken if row.peer_aet == aet], actor)
        if taken and _may_be_told_anew(revision):
            intake.again(session, revision, because=why, actor=actor)
    return bool(taken)


def _to_recall(session: Session, revision: RevisionRow) -> list[DeliveryRow]:
    """What waits to be sent, and must not be."""
    waiting = deliveries.waiting(session, revision.id)
    if not waiting:
        return []
    left_out = _left_out(session, {result.job_id for _, result in waiting})
    if _left_out(session, _told(session, revision)):
        left_out.add(_report(session, revision))
    return [row for row, result in waiting if result.job_id in left_out]


def _left_out(session: Session, jobs: set[int]) -> set[int]:
    """Those of these analyses that nothing may be shown of now."""
    not_on = switches.not_on(session)
    rows = [work.job(session, job) for job in sorted(jobs)]
    return {row.id for row in rows if row.pipeline in not_on or row.outcome in switches.WITHHELD}


def _told(session: Session, revision: RevisionRow) -> set[int]:
    """The analyses whose findings stand in the report of this revision."""
    told = {entry["job_id"] for entry in revision.selection if LEFT_OUT not in entry} - {None}
    return {job for job in told if switches.is_told_of(work.job(session, job))}


def _report(session: Session, revision: RevisionRow) -> int:
    return next((job.id for job in work.jobs_of(session, revision.id) if job.pipeline == work.REPORT), 0)


def _why(session: Session, revision: RevisionRow) -> str:
    analyses = sorted({work.job(session, job).pipeline for job in _left_out(session, _told(session, revision))})
    return f"not in service any more: {', '.join(analyses)}"


def _may_be_told_anew(revision: RevisionRow) -> bool:
    """A newer revision has a report of its own, or will have; and nothing can be written of images that are gone."""
    newest = revision.study.revisions[-1]
    return newest.id == revision.id and revision.study.purged_at is None


def _record(session: Session, revision: RevisionRow, aet: str, rows: Sequence[DeliveryRow], actor: str) -> None:
    """One event, however many objects are taken back."""
    record(
        session,
        Action.DELIVERY_RECALLED,
        peer=aet,
        study_instance_uid=revision.study_instance_uid,
        patient_id=revision.study.patient_id,
        actor=actor,
        detail={"revision": revision.number, "objects": len(rows), "reason": rows[0].reason},
    )
