"""Who looked at patients' data, by which command or page: in the trail, and once an hour for the same look.

A list is recorded as the question that was asked, as PS3.15 A.5.3.10 records a query; a study by its UID and patient.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from node.audit.events import Action
from node.db import trail
from node.db.session import Database, is_away
from node.jobs.record import now, record

SAME_LOOK = dt.timedelta(hours=1)
"""An event stands for all that the same one looked at in the same way for so long: scripts ask every minute."""


def note(
    database: Database,
    action: Action,
    *,
    actor: str,
    study_instance_uid: str = "",
    patient_id: str = "",
    question: Mapping[str, Any] | None = None,
) -> bool:
    """False where the trail cannot be written now: then nothing that names a patient is to be shown."""
    look: dict[str, Any] = {"actor": actor, "study_instance_uid": study_instance_uid, "patient_id": patient_id}
    detail = {"question": dict(question)} if question is not None else {}
    since = (now() - SAME_LOOK).isoformat(timespec="microseconds")
    try:
        with database.read() as session:
            if trail.is_told(session, action, since=since, detail=detail, **look):
                return True
        with database.write() as session:
            record(session, action, detail=detail, **look)
    except SQLAlchemyError as exc:
        if not is_away(exc):
            raise
        return False
    return True
