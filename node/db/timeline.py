"""One study from the first image to the last proof, as rows tell it. Read-only, for people."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.db import purging, switches, work
from node.db.lifecycle import DeliveryState
from node.db.tables import (
    AssociationRow,
    AuditEventRow,
    ConflictRow,
    DeliveryRow,
    InstanceRow,
    JobRow,
    PurgeRow,
    ResultRow,
    RevisionRow,
    StudyRow,
)

_PLACE = re.compile(r" \d+/\d+$")
_RECONCILED = ("delivery.reconciled", "delivery.unreconciled")
"""Events of the trail, where alone this stands."""


@dataclass(frozen=True)
class AssociationLine:
    calling_aet: str
    host: str
    opened_at: dt.datetime
    closed_at: dt.datetime | None
    outcome: str
    images: int
    """Of this revision."""
    bytes: int
    first_image_at: dt.datetime
    last_image_at: dt.datetime


@dataclass(frozen=True)
class JobLine:
    id: int
    pipeline: str
    series_instance_uid: str
    state: str
    attempt: int
    worker: str
    queued_at: dt.datetime
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    progress: float
    step: str
    steps: list[dict[str, Any]]
    outcome: str
    reason: str
    kept: dict[str, Any] | None = None
    """What it found, of one whose results are shown to nobody else."""


@dataclass(frozen=True)
class ResultLine:
    """Results of one kind and series together: a derived series is one line, not three hundred."""

    kind: str
    label: str
    series_instance_uid: str
    sop_class_uid: str
    fallback: int
    """0: what is sent; above: what would go instead where a peer lacks the class."""
    objects: int
    bytes: int
    made_at: dt.datetime
    folder: str
    """Where the files are, in the archive."""
    withheld: str = ""
    """Why they are for nobody: the outcome of their analysis; empty where they are for those whom they went to."""


@dataclass(frozen=True)
class DeliveryLine:
    """Deliveries of one kind to one peer that stand in the same state for the same reason."""

    peer_aet: str
    kind: str
    label: str
    state: str
    objects: int
    attempts: int
    proof: str
    reason: str
    created_at: dt.datetime
    sent_at: dt.datetime | None
    committed_at: dt.datetime | None
    not_before: dt.datetime | None
    """When the next attempt is due, where one is."""


@dataclass(frozen=True)
class ReconciledLine:
    """Results that a peer got with its own values of patient and order, or, where there is a reason, without."""

    peer_aet: str
    at: dt.datetime
    objects: int
    attributes: list[str]
    """By keyword, those that the peer had otherwise."""
    reason: str


@dataclass(frozen=True)
class PurgeLine:
    """Files of the study that were deleted together."""

    purged_at: dt.datetime
    """From then on they were not used."""
    ended_at: dt.datetime | None
    """When they were gone from disk."""
    because: str
    actor: str
    files: int
    bytes: int


@dataclass(frozen=True)
class RevisionLine:
    number: int
    state: str
    source_aet: str
    urgent: bool
    images: int
    first_image_at: dt.datetime
    last_image_at: dt.datetime
    completed_at: dt.datetime | None
    completed_because: str
    planned_at: dt.datetime | None
    reported_at: dt.datetime | None
    delivered_at: dt.datetime | None
    selection: list[dict[str, Any]]
    associations: list[AssociationLine] = field(default_factory=list)
    jobs: list[JobLine] = field(default_factory=list)
    results: list[ResultLine] = field(default_factory=list)
    deliveries: list[DeliveryLine] = field(default_factory=list)
    reconciled: list[ReconciledLine] = field(default_factory=list)


@dataclass(frozen=True)
class Timeline:
    """All that is known of a study, oldest first."""

    study_instance_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    description: str
    first_received_at: dt.datetime
    conflicts: int
    own_results_back: int
    revisions: list[RevisionLine]
    purges: list[PurgeLine]
    legal_hold: str
    """Why nothing of it may be deleted; empty where it may."""
    legal_hold_at: dt.datetime | None
    images_held: int
    """Objects received, ours among them, whose files are here; the rows of the others live on."""


def timeline(session: Session, study_instance_uid: str) -> Timeline | None:
    """None where this study was never received."""
    study = session.get(StudyRow, study_instance_uid)
    if study is None:
        return None
    of_study = InstanceRow.study_instance_uid == study_instance_uid
    conflicts = session.scalar(
        select(func.count())
        .select_from(ConflictRow)
        .join(InstanceRow, InstanceRow.id == ConflictRow.instance_id)
        .where(of_study)
    )
    own = session.scalar(
        select(func.count()).select_from(InstanceRow).where(of_study, InstanceRow.revision_id.is_(None))
    )
    return Timeline(
        study_instance_uid=study_instance_uid,
        patient_id=study.patient_id,
        accession_number=study.accession_number,
        study_date=study.study_date,
        description=study.description,
        first_received_at=study.first_received_at,
        conflicts=conflicts or 0,
        own_results_back=own or 0,
        revisions=[_revision(session, row) for row in study.revisions],
        legal_hold=study.legal_hold,
        legal_hold_at=study.legal_hold_at,
        purges=[_purge(row) for row in purging.purges_of(session, study_instance_uid)],
        images_held=session.scalar(
            select(func.count()).select_from(InstanceRow).where(of_study, InstanceRow.purged_at.is_(None))
        )
        or 0,
    )


def _purge(row: PurgeRow) -> PurgeLine:
    return PurgeLine(**{name: getattr(row, name) for name in PurgeLine.__dataclass_fields__})


def _revision(session: Session, row: RevisionRow) -> RevisionLine:
    shared = {name: getattr(row, name) for name in RevisionLine.__dataclass_fields__ if hasattr(RevisionRow, name)}
    return RevisionLine(
        **{
            **shared,
            "associations": _associations(session, row.id),
            "jobs": [_job(session, job) for job in row.jobs],
            "results": _results(session, row.id),
            "deliveries": _deliveries(session, row.id),
            "reconciled": _reconciled(session, row),
        }
    )


def _job(session: Session, row: JobRow) -> JobLine:
    shared = {name: getattr(row, name) for name in JobLine.__dataclass_fields__ if hasattr(JobRow, name)}
    return JobLine(**shared, kept=work.finding(session, row.id) if row.outcome in switches.WITHHELD else None)


def _associations(session: Session, revision_id: int) -> list[AssociationLine]:
    query = (
        select(
            AssociationRow,
            func.count(InstanceRow.id),
            func.sum(InstanceRow.size),
            func.min(InstanceRow.received_at),
            func.max(InstanceRow.received_at),
        )
        .join(InstanceRow, InstanceRow.association_id == AssociationRow.id)
        .where(InstanceRow.revision_id == revision_id)
        .group_by(AssociationRow.id)
        .order_by(AssociationRow.opened_at)
    )
    return [
        AssociationLine(
            calling_aet=row.calling_aet,
            host=row.host,
            opened_at=row.opened_at,
            closed_at=row.closed_at,
            outcome=row.outcome,
            images=images,
            bytes=int(octets or 0),
            first_image_at=first,
            last_image_at=last,
        )
        for row, images, octets, first, last in session.execute(query).all()
    ]


def _results(session: Session, revision_id: int) -> list[ResultLine]:
    key = (
        ResultRow.job_id,
        ResultRow.kind,
        ResultRow.series_instance_uid,
        ResultRow.sop_class_uid,
        ResultRow.fallback,
    )
    rows = session.execute(
        select(
            *key,
            func.min(ResultRow.label).label("label"),
            func.count().label("objects"),
            func.sum(ResultRow.size).label("octets"),
            func.max(ResultRow.made_at).label("made_at"),
            func.min(ResultRow.path).label("path"),
            func.min(JobRow.outcome).label("outcome"),
        )
        .join(JobRow, JobRow.id == ResultRow.job_id)
        .where(ResultRow.revision_id == revision_id)
        .group_by(*key)
        .order_by(ResultRow.job_id, ResultRow.fallback, ResultRow.kind, ResultRow.series_instance_uid)
    ).all()
    return [
        ResultLine(
            kind=row.kind,
            label=_together(row.label),
            series_instance_uid=row.series_instance_uid,
            sop_class_uid=row.sop_class_uid,
            fallback=row.fallback,
            objects=row.objects,
            bytes=int(row.octets),
            made_at=row.made_at,
            folder=row.path.rpartition("/")[0],
            withheld=row.outcome if row.outcome in switches.WITHHELD else "",
        )
        for row in rows
    ]


def _together(label: str) -> str:
    """ "AI denoised 7/300" is one of "AI denoised"."""
    return _PLACE.sub("", label)


def _deliveries(session: Session, revision_id: int) -> list[DeliveryLine]:
    rows = session.execute(
        select(DeliveryRow, ResultRow.kind, ResultRow.label, ResultRow.series_instance_uid)
        .join(ResultRow, ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid)
        .where(DeliveryRow.revision_id == revision_id)
        .order_by(DeliveryRow.peer_aet, DeliveryRow.id)
    ).all()
    groups: dict[tuple[str, ...], list[DeliveryRow]] = defaultdict(list)
    for row, kind, label, series in rows:
        groups[(row.peer_aet, kind, _together(label), row.state, row.proof, row.reason, series)].append(row)
    return [_delivery(key, members) for key, members in groups.items()]


def _delivery(key: tuple[str, ...], members: Sequence[DeliveryRow]) -> DeliveryLine:
    peer_aet, kind, label, state, proof, reason, _ = key
    return DeliveryLine(
        peer_aet=peer_aet,
        kind=kind,
        label=label,
        state=state,
        objects=len(members),
        attempts=max(row.attempt for row in members),
        proof=proof,
        reason=reason,
        created_at=min(row.created_at for row in members),
        sent_at=max((row.sent_at for row in members if row.sent_at), default=None),
        committed_at=max((row.committed_at for row in members if row.committed_at), default=None),
        not_before=min(row.not_before for row in members) if state == DeliveryState.WAITING else None,
    )


def _reconciled(session: Session, row: RevisionRow) -> list[ReconciledLine]:
    events = session.scalars(
        select(AuditEventRow)
        .where(AuditEventRow.study_instance_uid == row.study_instance_uid, AuditEventRow.action.in_(_RECONCILED))
        .order_by(AuditEventRow.number)
    )
    return [
        ReconciledLine(
            peer_aet=event.peer,
            at=dt.datetime.fromisoformat(event.at),
            objects=event.detail["objects"],
            attributes=event.detail.get("attributes", []),
            reason=event.detail.get("reason", ""),
        )
        for event in events
        if event.detail["revision"] == row.number
    ]
