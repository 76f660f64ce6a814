"""Statements of the hot path: objects as they come in. Core and by the batch, since this is done for every image."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, literal, null, or_, select, update
from sqlalchemy.orm import Session

from node.db.lifecycle import RevisionState
from node.db.tables import InstanceRow, ResultRow, RevisionRow


def known_instances(session: Session, uids: Sequence[str]) -> tuple[dict[str, tuple[int, str]], set[str]]:
    """({SOP Instance UID: (instance id, sha256)} that were received, UIDs that we made ourselves)."""
    received = select(InstanceRow.sop_instance_uid, InstanceRow.id, InstanceRow.sha256).where(
        InstanceRow.sop_instance_uid.in_(uids)
    )
    made = select(ResultRow.sop_instance_uid, null(), literal("")).where(ResultRow.sop_instance_uid.in_(uids))
    found: dict[str, tuple[int, str]] = {}
    own: set[str] = set()
    for uid, instance_id, sha256 in session.execute(received.union_all(made)):
        if instance_id is None:
            own.add(uid)
        else:
            found[uid] = (instance_id, sha256)
    return found, own


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
