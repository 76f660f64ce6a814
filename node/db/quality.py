"""The watch over image quality: what the scores of each scanner and protocol say, week by week."""

from __future__ import annotations

from sqlalchemy.orm import Session

from node.db.tables import QualityRow


def add(session: Session, row: QualityRow) -> None:
    """What one job found out. raises   IntegrityError   this job has said it before"""
    session.add(row)
