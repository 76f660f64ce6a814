"""Statements about the image quality of series: entered by jobs, read by the watch."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session, aliased

from node.db.tables import JobRow, QualityRow, RevisionRow


def add(session: Session, row: QualityRow) -> None:
    """What one job found out. raises   IntegrityError   this job has said it before"""
    session.add(row)


@dataclass(frozen=True)
class SeriesQuality:
    """One series as the last job on it saw it."""

    job_id: int
    study_instance_uid: str
    scanner: str
    protocol: str
    model: str
    acquired_on: dt.date
    median: float | None
    """None where it was not scored."""
    poor: int
    reason: str


def series_between(session: Session, first: dt.date, last: dt.date) -> list[SeriesQuality]:
    """Series acquired on these days or between them, each in its newest row, in the order of their jobs."""
    rows = session.execute(
        select(
            QualityRow.job_id,
            RevisionRow.study_instance_uid,
            QualityRow.scanner,
            QualityRow.protocol,
            QualityRow.model,
            QualityRow.acquired_on,
            QualityRow.median,
            QualityRow.poor,
            QualityRow.reason,
        )
        .join(JobRow, JobRow.id == QualityRow.job_id)
        .join(RevisionRow, RevisionRow.id == JobRow.revision_id)
        .where(QualityRow.acquired_on.between(first, last), _newest())
        .order_by(QualityRow.job_id)
    )
    return [SeriesQuality(*row) for row in rows]


def _newest() -> ColumnElement[bool]:
    # late images make a new job, which sees the series whole
    later = aliased(QualityRow)
    return ~exists().where(
        later.series_instance_uid == QualityRow.series_instance_uid, later.job_id > QualityRow.job_id
    )


def of_series(session: Session, series_instance_uid: str) -> QualityRow | None:
    """The newest row of one series; None where no job has scored it, or said why not."""
    return session.scalar(
        select(QualityRow)
        .where(QualityRow.series_instance_uid == series_instance_uid)
        .order_by(QualityRow.job_id.desc())
        .limit(1)
    )


def last_acquired(session: Session) -> dt.date | None:
    """The day of the newest series of all."""
    return session.scalar(select(func.max(QualityRow.acquired_on)))
