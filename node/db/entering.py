"""Statements of the hot path: objects as they come in. Core and by the batch, since this is done for every image."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, literal, null, or_, select, update
from sqlalchemy.orm import Session

from node.db.lifecycle import RevisionState
from node.db.tables import InstanceRow, ResultRow, RevisionRow, StudyRow


@dataclass(frozen=True)
class Known:
    """An object that was received before."""

    instance_id: int
    sha256: str
    study_instance_uid: str


def known_instances(session: Session, uids: Sequence[str]) -> tuple[dict[str, Known], set[str]]:
    """({SOP Instance UID: what was received under it}, UIDs that we made ourselves)."""
    received = select(
        InstanceRow.sop_instance_uid, InstanceRow.id, InstanceRow.sha256, InstanceRow.study_instance_uid
    ).where(InstanceRow.sop_instance_uid.in_(uids))
    made = select(ResultRow.sop_instance_uid, null(), literal(""), literal("")).where(
        ResultRow.sop_instance_uid.in_(uids)
    )
    found: dict[str, Known] = {}
    own: set[str] = set()
    for uid, instance_id, sha256, study in session.execute(received.union_all(made)):
        if instance_id is None:
            own.add(uid)
        else:
            found[uid] = Known(instance_id, sha256, study)
    return found, own


def touch(session: Session, study_instance_uid: str, *, at: dt.datetime) -> None:
    """Something of the study has come again: its days begin anew, and nobody deletes its files meanwhile."""
    session.execute(
        update(StudyRow)
        .where(StudyRow.study_instance_uid == study_instance_uid)
        .values(touched_at=at)
        .execution_options(synchronize_session=False)
    )


def purged_instances(session: Session, instance_ids: Sequence[int]) -> set[int]:
    """Which of them are no longer held. For sure only once their studies were touched."""
    return set(
        session.scalars(
            select(InstanceRow.id).where(InstanceRow.id.in_(instance_ids), InstanceRow.purged_at.is_not(None))
        )
    )


def hold_again(session: Session, instance_id: int, *, path: str, transfer_syntax_uid: str) -> None:
    """The same object has come again: this is its file."""
    session.execute(
        update(InstanceRow)
        .where(InstanceRow.id == instance_id)
        .values(purged_at=None, path=path, transfer_syntax_uid=transfer_syntax_uid)
        .execution_options(synchronize_session=False)
    )


def add_instances(session: Session, values: Sequence[Mapping[str, Any]]) -> None:
    session.execute(insert(InstanceRow.__table__), list(values))  # type: ignore[arg-type]


def count_images(session: Session, revision_id: int, images: int, *, at: dt.datetime, urgent: bool) -> bool:
    """The revision has so many images more; False where it was closed meanwhile."""
    done = session.execute(
        update(RevisionRow)
        .where(RevisionRow.id == revision_id, RevisionRow.state == RevisionState.RECEIVING)
        .values(
            images=RevisionRow.images + images,
            last_image_at=at,
            urgent=or_(RevisionRow.urgent, literal(urgent)),
        )
        .execution_options(synchronize_session=False)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]
