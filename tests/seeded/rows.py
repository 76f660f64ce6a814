"""Four studies in four states, put in by the service's own statements: what views, pages and commands are shown."""

from __future__ import annotations

import datetime as dt

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import deliveries, receiving, work
from node.db.lifecycle import DeliveryState, JobState, RevisionState
from node.db.session import Database
from node.db.tables import (
    AssociationRow,
    ConflictRow,
    DeliveryRow,
    InstanceRow,
    JobRow,
    ResultRow,
    RevisionRow,
    SeriesRow,
    StudyRow,
)
from node.jobs.record import record
from node.jobs.site import apply_site
from node.settings import Site

T0 = dt.datetime(2026, 1, 15, 7, 10, tzinfo=dt.UTC)
DELIVERED, RUNNING, INCOMPLETE, RECEIVING = "1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"
REFUSAL = "PACS: C-STORE answered 0xA900 (data set does not match SOP class)"
SITE = Site.model_validate(
    {
        "peer": [{"aet": "CT1", "host": "127.0.0.1"}, {"aet": "PACS", "host": "127.0.0.1", "port": 11113}],
        "route": [{"from": "*", "to": ["PACS"]}],
    }
)


def after(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


def seed(database: Database) -> None:
    apply_site(database, SITE, actor="test")
    with database.write() as session:
        _delivered(session)
        _running(session)
        _incomplete(session)
        _study(session, RECEIVING, images=2, at=300)


def _study(session: Session, uid: str, *, images: int, at: float, urgent: bool = False) -> RevisionRow:
    """One association with some images of one series."""
    association = AssociationRow(
        id=f"association-{uid}",
        calling_aet="CT1",
        called_aet="PACSNODE",
        host="127.0.0.1",
        port=50000,
        receiver="receive@test",
        opened_at=after(at),
        closed_at=after(at + images),
        outcome="released",
        stored=images,
    )
    receiving.add_association(session, association)
    session.flush()
    receiving.ensure_study(
        session,
        StudyRow(
            study_instance_uid=uid,
            patient_id=f"P-{uid[-1]}",
            patient_name="PHANTOM^TEST",
            accession_number=f"ACC{uid[-1]}",
            study_date="20260115",
            description="Chest [CT]",
            first_received_at=after(at),
        ),
    )
    series = f"{uid}.1"
    receiving.ensure_series(
        session,
        SeriesRow(series_instance_uid=series, study_instance_uid=uid, modality="CT", number=2, description="AXIAL"),
    )
    revision = receiving.open_revision(session, uid, source_aet="CT1", urgent=urgent, at=after(at))
    for number in range(1, images + 1):
        _instance(session, revision, series, number, at=after(at + number))
    revision.images, revision.last_image_at = images, after(at + images)
    session.flush()
    record(session, Action.INSTANCE_STORED, peer="CT1", study_instance_uid=uid, patient_id=f"P-{uid[-1]}")
    return revision


def _instance(session: Session, revision: RevisionRow, series: str, number: int, *, at: dt.datetime) -> InstanceRow:
    row = InstanceRow(
        sop_instance_uid=f"{series}.{number}",
        series_instance_uid=series,
        study_instance_uid=revision.study_instance_uid,
        revision_id=revision.id,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        association_id=f"association-{revision.study_instance_uid}",
        path=f"received/{series}.{number}.dcm",
        size=1000,
        sha256="0" * 64,
        received_at=at,
        header={},
    )
    receiving.add(session, row)
    return row


def _plan(session: Session, revision: RevisionRow, at: float) -> JobRow:
    series = f"{revision.study_instance_uid}.1"
    receiving.close_revision(session, revision, at=after(at), because="no new image for 30 s")
    job = JobRow(revision_id=revision.id, pipeline="low_dose_ct", series_instance_uid=series, queued_at=after(at + 1))
    work.add_job(session, job)
    chosen = {
        "series_instance_uid": series,
        "role": "ct",
        "number": 2,
        "description": "AXIAL",
        "modality": "CT",
        "images": revision.images,
        "pipeline": "low_dose_ct",
        "decision": "analysed",
        "reason": "Original CT images, axial.",
        "job_id": job.id,
    }
    left_out = {
        **chosen,
        "series_instance_uid": f"{series}9",
        "role": "localiser",
        "description": "SCOUT",
        "pipeline": None,
        "decision": "not eligible",
        "reason": "A localiser (scout, topogram), not a cross-section.",
        "job_id": None,
    }
    receiving.move_revision(
        session, revision.id, RevisionState.PLANNED, planned_at=after(at + 1), selection=[chosen, left_out]
    )
    return job


def _claim(session: Session, at: float) -> JobRow:
    job = work.claim(session, worker="infer@test:7", now=after(at), lease_until=after(at + 120))
    assert job is not None
    return job


def _report(session: Session, revision: RevisionRow, job: JobRow, at: float) -> list[ResultRow]:
    """The job ends, and its results and the report's are there."""
    work.finish(
        session,
        job.id,
        1,
        JobState.DONE,
        ended_at=after(at),
        outcome="processed",
        steps=[{"name": "read", "started_at": "", "seconds": 1.5}, {"name": "analyse", "started_at": "", "seconds": 8}],
    )
    uid = revision.study_instance_uid
    rows = [_result(revision, job, f"{uid}.8.{n}", "derived", "AI denoised", fallback=0, at=at) for n in (1, 2)]
    rows.append(_result(revision, job, f"{uid}.9.1", "sr", "AI report", fallback=0, at=at))
    rows.append(_result(revision, job, f"{uid}.9.2", "sr-text", "AI report (text)", fallback=1, at=at))
    work.add_results(session, rows)
    receiving.move_revision(session, revision.id, RevisionState.REPORTED, reported_at=after(at))
    return rows[:3]


def _result(
    revision: RevisionRow, job: JobRow, uid: str, kind: str, label: str, *, fallback: int, at: float
) -> ResultRow:
    return ResultRow(
        sop_instance_uid=uid,
        series_instance_uid=uid.rsplit(".", 1)[0],
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        revision_id=revision.id,
        job_id=job.id,
        kind=kind,
        label=label,
        alternatives=kind if kind == "derived" else "report",
        fallback=fallback,
        path=f"results/{uid}.dcm",
        size=2048,
        sha256="1" * 64,
        made_at=after(at),
    )


def _deliver(session: Session, row: ResultRow, at: float) -> DeliveryRow:
    delivery = DeliveryRow(
        sop_instance_uid=row.sop_instance_uid,
        peer_aet="PACS",
        revision_id=row.revision_id,
        not_before=after(at),
        created_at=after(at),
    )
    deliveries.add(session, delivery)
    (claimed,) = deliveries.claim(
        session, revision_id=row.revision_id, peer_aet="PACS", now=after(at), lease_until=after(at + 60)
    )
    return claimed


def _delivered(session: Session) -> None:
    revision = _study(session, DELIVERED, images=3, at=0)
    first = session.get_one(InstanceRow, 1)
    receiving.add(
        session,
        ConflictRow(
            instance_id=first.id,
            association_id=first.association_id,
            path="aside/x.dcm",
            sha256="2" * 64,
            received_at=after(4),
        ),
    )
    _plan(session, revision, 33)
    job = _claim(session, 36)
    for result in _report(session, revision, job, 46):
        row = _deliver(session, result, 47)
        deliveries.move(session, row, DeliveryState.SENT, sent_at=after(48), status=0)
        deliveries.move(session, row, DeliveryState.COMMITTED, committed_at=after(50), proof="storage commitment")
    receiving.move_revision(session, revision.id, RevisionState.DELIVERED, delivered_at=after(50))


def _running(session: Session) -> None:
    revision = _study(session, RUNNING, images=4, at=100, urgent=True)
    _plan(session, revision, 134)
    job = _claim(session, 140)
    work.renew(session, job.id, 1, lease_until=after(260), progress=0.4, step="analyse")


def _incomplete(session: Session) -> None:
    revision = _study(session, INCOMPLETE, images=1, at=200)
    _plan(session, revision, 231)
    job = _claim(session, 240)
    for result in _report(session, revision, job, 250):
        row = _deliver(session, result, 251)
        deliveries.move(session, row, DeliveryState.DEAD, status=0xA900, reason=REFUSAL)
    receiving.move_revision(session, revision.id, RevisionState.INCOMPLETE, delivered_at=after(252))
    record(session, Action.DELIVERY_DEAD, outcome="serious failure", peer="PACS", study_instance_uid=INCOMPLETE)
