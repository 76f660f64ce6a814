"""When is a study complete? After a quiet time, at a deadline, or when a content rule is met; each peer has its own.

The end of an association says nothing: one study may come over several, or one may carry many.
"""

from __future__ import annotations

import datetime as dt

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import peers, receiving
from node.db.lifecycle import RevisionState
from node.db.session import Database
from node.db.tables import RevisionRow
from node.jobs.record import now, record
from node.settings import Completion


def complete_due(database: Database, *, actor: str, since: dt.datetime | None = None) -> list[int]:
    """Close every revision whose time has come; their ids.

    since       when images could come again: a time in which nobody could send was not quiet
    """
    with database.read() as session:
        due = [
            (row, because)
            for row in receiving.revisions_in(session, RevisionState.RECEIVING)
            if (because := _why_complete(session, row, now(), since or row.last_image_at))
        ]
    closed = []
    for row, because in due:
        with database.write() as session:
            if not close(session, row, because=because, actor=actor):
                continue  # an image came in between: look again at the next tick
        closed.append(row.id)
    return closed


def close(session: Session, row: RevisionRow, *, because: str, actor: str, patient_id: str = "") -> bool:
    """RECEIVING → COMPLETE, recorded; False where an image came in between."""
    if not receiving.close_revision(session, row, at=now(), because=because):
        return False
    record(
        session,
        Action.REVISION_COMPLETED,
        peer=row.source_aet,
        study_instance_uid=row.study_instance_uid,
        patient_id=patient_id,
        actor=actor,
        detail={"revision": row.number, "images": row.images, "because": because},
    )
    return True


def again(session: Session, row: RevisionRow, *, because: str, actor: str) -> RevisionRow:
    """The images of a revision once more, as the next one: opened and closed in one transaction, so that none comes in.

    Only under `purging.lock_study`, and of the newest revision, which takes no more images.
    """
    new = receiving.open_revision(
        session, row.study_instance_uid, source_aet=row.source_aet, urgent=row.urgent, at=row.last_image_at
    )
    close(session, new, because=because, actor=actor, patient_id=row.study.patient_id)
    return new


def _why_complete(session: Session, row: RevisionRow, at: dt.datetime, since: dt.datetime) -> str:
    peer = peers.peer(session, row.source_aet)
    rule = peer.completion if peer is not None else Completion()
    content = _content_met(session, row, rule)
    if content:
        return content
    if at - max(row.last_image_at, since) >= dt.timedelta(seconds=rule.quiet_s):
        return f"no new image for {rule.quiet_s:g} s"
    if at - row.first_image_at >= dt.timedelta(seconds=rule.deadline_s):
        return f"deadline: {rule.deadline_s:g} s after the first image"
    return ""


def _content_met(session: Session, row: RevisionRow, rule: Completion) -> str:
    if row.number > 1 or not (rule.when_images or rule.when_modality or rule.when_series_description):
        return ""  # a late image would meet the rule at once, and each late image would make its own revision
    images, modalities, descriptions = receiving.content_of(session, row.study_instance_uid)
    if rule.when_images and images >= rule.when_images:
        return f"content rule: {images} images (rule: {rule.when_images})"
    if rule.when_modality and rule.when_modality in modalities:
        return f"content rule: an instance of modality {rule.when_modality} is there"
    if rule.when_series_description and rule.when_series_description in descriptions:
        return f"content rule: series {rule.when_series_description!r} is there"
    return ""
