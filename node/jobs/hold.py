"""Legal hold: of a study that is held nothing is deleted, by nobody, until it is released. Both are on record."""

from __future__ import annotations

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import purging
from node.db.session import Database
from node.db.tables import StudyRow
from node.errors import ConfigurationError
from node.jobs.record import now, record


def hold(database: Database, study_instance_uid: str, *, why: str, actor: str) -> str:
    """From now on; what there is to know of it, in words, "" where nothing is.

    raises   ConfigurationError   it was never received, is held already, or its files are being deleted
    """
    with database.write() as session:
        study = _locked(session, study_instance_uid)
        if study.legal_hold:
            raise ConfigurationError(f"it is held already, {in_words(study)}; release it first to give another reason")
        if purging.open_purges(session, study_instance_uid):
            raise ConfigurationError(f"too late: {purging.deleted(session, study_instance_uid)}")
        study.legal_hold, study.legal_hold_at = why, now()
        _record(session, Action.STUDY_HELD, study, actor, because=why)
        if study.purged_at is None:
            return ""
        return f"{purging.deleted(session, study_instance_uid)}: only what is sent again is kept"


def release(database: Database, study_instance_uid: str, *, why: str, actor: str) -> str:
    """Retention applies again; what it was held for. raises ConfigurationError where it is not held"""
    with database.write() as session:
        study = _locked(session, study_instance_uid)
        if not study.legal_hold:
            raise ConfigurationError(f"study {study_instance_uid} is not under a legal hold")
        held = in_words(study)
        _record(session, Action.STUDY_RELEASED, study, actor, because=why, held_because=study.legal_hold)
        study.legal_hold, study.legal_hold_at = "", None
    return held


def in_words(study: StudyRow) -> str:
    """ "since 2026-01-31: the reason that was given"."""
    return f"since {study.legal_hold_at:%Y-%m-%d}: {study.legal_hold}"


def _locked(session: Session, uid: str) -> StudyRow:
    if not purging.lock_study(session, uid):
        raise ConfigurationError(f"no study {uid} was received here")
    return session.get_one(StudyRow, uid)


def _record(session: Session, action: Action, study: StudyRow, actor: str, **detail: str) -> None:
    record(
        session,
        action,
        study_instance_uid=study.study_instance_uid,
        patient_id=study.patient_id,
        actor=actor,
        detail=detail,
    )
