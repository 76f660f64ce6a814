"""Read-only counts for monitoring: what they cost does not grow with the archive."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, case, cast, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction

from node.db.lifecycle import DeliveryState, JobState, RevisionState
from node.db.tables import (
    AssociationRow,
    AuditHeadRow,
    ConflictRow,
    DeliveryRow,
    InstanceRow,
    JobRow,
    PeerRow,
    PurgeRow,
    RevisionRow,
    SwitchRow,
)


class _SecondsBetween(GenericFunction[float]):
    """(start, end) in seconds; the two databases subtract times differently."""

    type = Float()
    name = "seconds_between"
    inherit_cache = True


@compiles(_SecondsBetween, "sqlite")
def _on_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    start, end = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"((julianday({end}) - julianday({start})) * 86400.0)"


@compiles(_SecondsBetween, "postgresql")
def _on_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    start, end = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"EXTRACT(EPOCH FROM ({end} - {start}))"


@dataclass(frozen=True)
class Figures:
    """What /metrics shows. Keys of the mappings are label values."""

    associations: Mapping[str, int]
    """By outcome."""
    objects_refused: int
    objects_received: int
    objects_conflicting: int
    bytes_received: int
    revisions: Mapping[str, int]
    """By state."""
    jobs: Mapping[tuple[str, str], int]
    """By (pipeline, state)."""
    job_seconds: Mapping[tuple[str, str], tuple[int, float]]
    """(pipeline, outcome) → (how many, seconds together) of jobs that have ended."""
    oldest_queued_at: dt.datetime | None
    analyses: Mapping[str, str]
    """State of those that are not in service."""
    deliveries: Mapping[tuple[str, str], int]
    """By (peer, state)."""
    oldest_undelivered_at: dt.datetime | None
    breakers_open: Mapping[str, bool]
    last_image_at: Mapping[str, dt.datetime]
    """By the peer that sends."""
    audit_events: int
    studies_purged: int
    """Deletions that have ended: a study that came back and was deleted again counts twice."""
    files_purged: int
    bytes_purged: int


@dataclass(frozen=True)
class Settled:
    """Objects up to an id that no transaction can add to any more: counted once, not at every scrape."""

    last_id: int = 0
    objects: int = 0
    bytes: int = 0


_OPEN_AT_MOST = dt.timedelta(minutes=5)
"""Longer than any transaction of a receiver: later ids may be committed before earlier ones."""


def settle(session: Session, before: Settled, *, now: dt.datetime) -> Settled:
    """What can be added to `before` for good; the first time this reads all instances, later only new ones."""
    last_id, objects, octets = session.execute(
        select(func.max(InstanceRow.id), func.count(), func.sum(InstanceRow.size)).where(
            InstanceRow.id > before.last_id, InstanceRow.received_at < now - _OPEN_AT_MOST
        )
    ).one()
    if last_id is None:
        return before
    return Settled(last_id, before.objects + objects, before.bytes + int(octets))


def figures(session: Session, settled: Settled, *, now: dt.datetime) -> Figures:
    peers = session.scalars(select(PeerRow)).all()
    purges, files_purged, bytes_purged = session.execute(
        select(func.count(), func.sum(PurgeRow.files), func.sum(PurgeRow.bytes)).where(PurgeRow.ended_at.is_not(None))
    ).one()
    recent, octets = session.execute(
        select(func.count(), func.sum(InstanceRow.size)).where(InstanceRow.id > settled.last_id)
    ).one()
    return Figures(
        associations=_counts(session, AssociationRow.outcome),
        objects_refused=int(session.scalar(select(func.sum(AssociationRow.refused))) or 0),
        objects_received=settled.objects + recent,
        objects_conflicting=session.scalar(select(func.count()).select_from(ConflictRow)) or 0,
        bytes_received=settled.bytes + int(octets or 0),
        revisions={**dict.fromkeys(map(str, RevisionState), 0), **_counts(session, RevisionRow.state)},
        jobs=_pairs(session, JobRow.pipeline, JobRow.state),
        job_seconds=_job_seconds(session),
        oldest_queued_at=session.scalar(select(func.min(JobRow.queued_at)).where(JobRow.state == JobState.QUEUED)),
        analyses={row.analysis: row.state for row in session.scalars(select(SwitchRow))},
        deliveries=_pairs(session, DeliveryRow.peer_aet, DeliveryRow.state),
        oldest_undelivered_at=session.scalar(
            select(func.min(DeliveryRow.created_at)).where(
                DeliveryRow.state.in_([DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT])
            )
        ),
        breakers_open={peer.aet: peer.open_until is not None and peer.open_until > now for peer in peers},
        last_image_at=_last_images(session),
        audit_events=session.scalar(select(AuditHeadRow.number).where(AuditHeadRow.id == 1)) or 0,
        studies_purged=purges,
        files_purged=int(files_purged or 0),
        bytes_purged=int(bytes_purged or 0),
    )


def _counts(session: Session, column: Any) -> dict[str, int]:
    return {str(value): count for value, count in session.execute(select(column, func.count()).group_by(column)).all()}


def _pairs(session: Session, first: Any, second: Any) -> dict[tuple[str, str], int]:
    rows = session.execute(select(first, second, func.count()).group_by(first, second)).all()
    return {(str(a), str(b)): count for a, b, count in rows}


def _job_seconds(session: Session) -> dict[tuple[str, str], tuple[int, float]]:
    took: ColumnElement[float] = _SecondsBetween(JobRow.started_at, JobRow.ended_at)
    outcome = case((JobRow.outcome != "", JobRow.outcome), else_=JobRow.state)
    rows = session.execute(
        select(JobRow.pipeline, outcome, func.count(), cast(func.sum(took), Float))
        .where(JobRow.started_at.is_not(None), JobRow.ended_at.is_not(None))
        .group_by(JobRow.pipeline, outcome)
    ).all()
    return {(pipeline, how): (count, float(seconds or 0.0)) for pipeline, how, count, seconds in rows}


def _last_images(session: Session) -> dict[str, dt.datetime]:
    rows = session.execute(
        select(RevisionRow.source_aet, func.max(RevisionRow.last_image_at)).group_by(RevisionRow.source_aet)
    ).all()
    return {str(aet): at for aet, at in rows}
