"""Statements of what leaves the trail: how far a repository has been told, and what rows say of events."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from node.db import trail
from node.db.tables import (
    AssociationRow,
    AuditEventRow,
    AuditFeedRow,
    DeliveryRow,
    InstanceRow,
    PeerRow,
    ResultRow,
    RevisionRow,
    StudyRow,
)

Counts = dict[str, int]
_Value = TypeVar("_Value")


def position(session: Session) -> AuditFeedRow:
    """The migration laid the one row."""
    return session.get_one(AuditFeedRow, 1)


def claim(session: Session, holder: str, *, at: dt.datetime, until: dt.datetime, dead: str = "") -> bool:
    """Be the one who tells the repository, until then; False while another is who is not the one known to be dead."""
    is_free = or_(AuditFeedRow.lease_until.is_(None), AuditFeedRow.lease_until < at)
    done = session.execute(
        update(AuditFeedRow)
        .where(or_(is_free, AuditFeedRow.holder.in_([holder, dead])))
        .values(holder=holder, lease_until=until)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def release(session: Session, holder: str) -> None:
    session.execute(update(AuditFeedRow).where(AuditFeedRow.holder == holder).values(lease_until=None))


def advance(session: Session, holder: str, number: int, *, at: dt.datetime, until: dt.datetime) -> bool:
    """Events up to this one have been told; False where another has taken over."""
    done = session.execute(
        update(AuditFeedRow)
        .where(AuditFeedRow.holder == holder)
        .values(number=number, told_at=at, lease_until=until, trouble="", trouble_since=None)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def go_back(session: Session, holder: str, number: int) -> None:
    """Events behind this one are told again."""
    session.execute(update(AuditFeedRow).where(AuditFeedRow.holder == holder).values(number=number))


def note_trouble(session: Session, holder: str, reason: str, *, at: dt.datetime) -> None:
    session.execute(
        update(AuditFeedRow)
        .where(AuditFeedRow.holder == holder)
        .values(trouble=reason, trouble_since=func.coalesce(AuditFeedRow.trouble_since, at))
    )


@dataclass(frozen=True)
class Lag:
    """What a repository has not been told yet."""

    events: int
    oldest: str
    """When the first of them happened; empty where there is none."""


def lag(session: Session) -> Lag:
    told = position(session).number
    oldest = session.scalar(
        select(AuditEventRow.at).where(AuditEventRow.number > told).order_by(AuditEventRow.number).limit(1)
    )
    newest = trail.head(session)
    return Lag(max((newest.number if newest is not None else 0) - told, 0), oldest or "")


# -- what rows say of events


def callers(session: Session, associations: Collection[str]) -> dict[str, tuple[str, str]]:
    """{association: (address, TLS subject)}"""
    found: dict[str, tuple[str, str]] = {}
    for part in _parts(associations):
        query = select(AssociationRow.id, AssociationRow.host, AssociationRow.tls_subject)
        for name, host, subject in session.execute(query.where(AssociationRow.id.in_(part))):
            found[name] = (host, subject or "")
    return found


def classes(session: Session, instances: Collection[str]) -> dict[str, str]:
    """{SOP Instance UID: SOP Class UID} of objects that were received or made here."""
    found: dict[str, str] = {}
    for part in _parts(instances):
        for kind in (ResultRow, InstanceRow):
            query = select(kind.sop_instance_uid, kind.sop_class_uid).where(kind.sop_instance_uid.in_(part))
            found.update((uid, sop_class) for uid, sop_class in session.execute(query))
    return found


def names(session: Session, studies: Collection[str]) -> dict[str, str]:
    """{Study Instance UID: patient's name}"""
    found: dict[str, str] = {}
    for part in _parts(studies):
        query = select(StudyRow.study_instance_uid, StudyRow.patient_name)
        found.update((uid, name) for uid, name in session.execute(query.where(StudyRow.study_instance_uid.in_(part))))
    return found


def hosts(session: Session) -> dict[str, str]:
    """{AE title: host} of the peers that are known."""
    return {aet: str(config.get("host", "")) for aet, config in session.execute(select(PeerRow.aet, PeerRow.config))}


def made(session: Session, jobs: Collection[int]) -> dict[int, Counts]:
    """{job: {SOP Class UID: objects that it made}}"""
    found: dict[int, Counts] = defaultdict(dict)
    for part in _parts(jobs):
        query = select(ResultRow.job_id, ResultRow.sop_class_uid, func.count()).where(ResultRow.job_id.in_(part))
        for job, sop_class, count in session.execute(query.group_by(ResultRow.job_id, ResultRow.sop_class_uid)):
            found[job][sop_class] = count
    return found


def on_their_way(session: Session, study_instance_uid: str, revision: int) -> dict[str, Counts]:
    """{AE title: {SOP Class UID: objects that are to go there}} of one revision."""
    query = (
        select(DeliveryRow.peer_aet, ResultRow.sop_class_uid, func.count())
        .join(ResultRow, ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid)
        .join(RevisionRow, RevisionRow.id == DeliveryRow.revision_id)
        .where(RevisionRow.study_instance_uid == study_instance_uid, RevisionRow.number == revision)
        .group_by(DeliveryRow.peer_aet, ResultRow.sop_class_uid)
    )
    found: dict[str, Counts] = defaultdict(dict)
    for aet, sop_class, count in session.execute(query):
        found[aet][sop_class] = count
    return found


_TOGETHER = 10_000
"""Values in one statement, which takes only so many."""


def _parts(values: Collection[_Value]) -> Iterator[list[_Value]]:
    listed = list(values)
    for start in range(0, len(listed), _TOGETHER):
        yield listed[start : start + _TOGETHER]
