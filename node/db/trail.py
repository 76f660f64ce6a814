"""Statements of the audit trail: append under the lock of its head, and query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, insert, select, update
from sqlalchemy.orm import Session

from node.db.tables import AuditEventRow, AuditHeadRow, StudyRow

_TOGETHER = 10_000
"""Studies in one statement: a statement takes only so many values."""


def lock_head(session: Session) -> tuple[int, str]:
    """(number, digest) at the end of the chain, ours until this transaction ends. The migration laid the first one."""
    row = session.execute(
        select(AuditHeadRow.number, AuditHeadRow.digest).where(AuditHeadRow.id == 1).with_for_update()
    )
    number, digest = row.one()
    return number, digest


def head(session: Session) -> AuditHeadRow | None:
    return session.get(AuditHeadRow, 1)


def rewrite_head(session: Session) -> None:
    """As it is: the least that shows whether rows can be written."""
    session.execute(update(AuditHeadRow).values(number=AuditHeadRow.number))


def append(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add sealed events, in order, and move the head to the last of them."""
    session.execute(insert(AuditEventRow.__table__), list(rows))  # type: ignore[arg-type]
    last = rows[-1]
    session.execute(
        update(AuditHeadRow)
        .where(AuditHeadRow.id == 1)
        .values(number=last["number"], digest=last["digest"])
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True)
class Question:
    """What an auditor asks. Empty fields do not restrict."""

    since: str = ""
    """Not before, as the trail writes times."""
    until: str = ""
    """Before."""
    patient_id: str = ""
    """Also finds what names no patient, but a study of this one."""
    study_instance_uid: str = ""
    peer: str = ""
    entity: str = ""
    """A study by its UID, or a patient as above."""
    agent: str = ""
    """AE title of a peer, or the process or person that acted."""
    outcome: str = ""
    action: str = ""
    """Exact, or the first part: "instance" finds instance.stored, instance.conflict…"""
    after: int | None = None
    """Only events behind this one, and of these the first instead of the newest."""
    up_to: int | None = None
    limit: int = 1000


def find(session: Session, question: Question) -> list[AuditEventRow]:
    """Of the events that fit the newest `limit`, or the first behind `after`; oldest first.

    Each statement is answered by one index of the trail.
    """
    number = AuditEventRow.number
    order = number.desc() if question.after is None else number.asc()
    found: dict[int, AuditEventRow] = {}
    for ways in product(*_ways(session, question)):
        query = _query(question).where(*ways).order_by(order).limit(question.limit)
        found.update((row.number, row) for row in session.scalars(query))
    rows = [found[one] for one in sorted(found)]
    return rows[-question.limit :] if question.after is None else rows[: question.limit]


def _ways(session: Session, question: Question) -> Iterator[Sequence[ColumnElement[bool]]]:
    """For each restriction that an event may fit in several ways, these: one statement with an OR has no index."""
    if question.patient_id:
        yield _of_patient(session, question.patient_id)
    if question.entity:
        yield [AuditEventRow.study_instance_uid == question.entity, *_of_patient(session, question.entity)]
    if question.agent:
        yield [AuditEventRow.peer == question.agent, AuditEventRow.actor == question.agent]


def _of_patient(session: Session, patient_id: str) -> list[ColumnElement[bool]]:
    studies = sorted(_studies_of(session, patient_id))
    parts = [studies[start : start + _TOGETHER] for start in range(0, len(studies), _TOGETHER)]
    nameless = AuditEventRow.patient_id == ""
    of_studies = [and_(nameless, AuditEventRow.study_instance_uid.in_(part)) for part in parts]
    return [AuditEventRow.patient_id == patient_id, *of_studies]


def _studies_of(session: Session, patient_id: str) -> set[str]:
    """As received, and as events name them: the row of a study may be gone, or say another patient since."""
    received = select(StudyRow.study_instance_uid).where(StudyRow.patient_id == patient_id)
    told = select(AuditEventRow.study_instance_uid).where(AuditEventRow.patient_id == patient_id).distinct()
    return {*session.scalars(received), *session.scalars(told)} - {""}


def _query(question: Question) -> Select[AuditEventRow]:
    """All but what an event may fit in several ways."""
    query = select(AuditEventRow)
    if question.since:
        query = query.where(AuditEventRow.at >= question.since)
    if question.until:
        query = query.where(AuditEventRow.at < question.until)
    if question.after is not None:
        query = query.where(AuditEventRow.number > question.after)
    if question.up_to is not None:
        query = query.where(AuditEventRow.number <= question.up_to)
    for name in ("study_instance_uid", "peer", "outcome"):
        value = getattr(question, name)
        if value:
            query = query.where(getattr(AuditEventRow, name) == value)
    if question.action:
        query = query.where(
            (AuditEventRow.action == question.action) | AuditEventRow.action.startswith(question.action + ".")
        )
    return query


def is_told(session: Session, action: str, *, since: str, detail: Mapping[str, Any], **fields: str) -> bool:
    """Whether there is such an event that happened since."""
    query = select(AuditEventRow.detail).where(AuditEventRow.action == action, AuditEventRow.at >= since)
    return any(told == detail for told in session.scalars(query.filter_by(**fields)))


def walk(session: Session, *, up_to: int) -> Iterator[AuditEventRow]:
    """The chain in order, up to this event: on PostgreSQL each statement sees what was committed before it began."""
    query = select(AuditEventRow).where(AuditEventRow.number <= up_to).order_by(AuditEventRow.number)
    yield from session.scalars(query.execution_options(yield_per=1000))


def behind_head(session: Session) -> int:
    """Events behind the head, where there can be none: one statement, so head and events are of one moment."""
    head_number = select(AuditHeadRow.number).where(AuditHeadRow.id == 1).scalar_subquery()
    query = select(func.count()).select_from(AuditEventRow).where(AuditEventRow.number > head_number)
    return session.scalar(query) or 0


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(AuditEventRow)) or 0
