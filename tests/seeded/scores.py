"""Scored series with the rows they rest on: study, revision, job."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from node.db import quality, receiving, work
from node.db.tables import JobRow, QualityRow, SeriesRow, StudyRow

FORCE = "SIEMENS SOMATOM Force CT01"
CHEST = "Chest low dose Br40"
MODEL = "clinreadnet-fast 0.1.0"
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def add_score(
    session: Session,
    uid: str,
    day: dt.date,
    median: float | None,
    *,
    study: str = "",
    scanner: str = FORCE,
    protocol: str = CHEST,
    model: str = MODEL,
    poor: int = 0,
    reason: str = "",
    detail: Sequence[dict[str, Any]] = (),
) -> int:
    """One job on the series `uid` of its own study (or of `study`) says so; the job's id."""
    study = study or f"{uid}.0"
    receiving.ensure_study(
        session,
        StudyRow(
            study_instance_uid=study,
            patient_id="P-77",
            patient_name="SECRET^NAME",
            accession_number="ACC-77",
            study_date=f"{day:%Y%m%d}",
            description="Chest",
            first_received_at=NOON,
        ),
    )
    receiving.ensure_series(
        session, SeriesRow(series_instance_uid=uid, study_instance_uid=study, modality="CT", number=1, description="")
    )
    revision = receiving.open_revision(session, study, source_aet="CT1", urgent=False, at=NOON)
    session.flush()
    job = JobRow(revision_id=revision.id, pipeline="low_dose_ct", series_instance_uid=uid, queued_at=NOON)
    work.add_job(session, job)
    row = QualityRow(
        job_id=job.id,
        series_instance_uid=uid,
        scanner=scanner,
        protocol=protocol,
        acquired_on=day,
        model=model,
        slices=0 if median is None else 100,
        median=median,
        low=None if median is None else max(median - 0.4, 0.0),
        poor=poor,
        reason=reason,
        levels=[0.2 * level for level in range(21)],
        detail=list(detail),
    )
    quality.add(session, row)
    return job.id


def add_weeks(
    session: Session,
    prefix: str,
    today: dt.date,
    *,
    level: float,
    recent_level: float | None = None,
    days_apart: int = 2,
    until_days_ago: int = 0,
    from_days_ago: int = 111,
    spread: float = 0.25,
    **named: Any,
) -> None:
    """A study every few days; those of the last 28 days around `recent_level`."""
    rng = random.Random(prefix)
    for ago in range(from_days_ago, until_days_ago - 1, -days_apart):
        centre = recent_level if recent_level is not None and ago < 28 else level
        score = min(max(rng.gauss(centre, spread), 0.0), 4.0)
        add_score(
            session, f"{prefix}.{ago + 1}", today - dt.timedelta(days=ago), score, poor=int(score < 1.5) * 9, **named
        )
