"""Looking at patients' data is recorded, once an hour for the same look; nothing is shown that cannot be recorded."""

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from node.audit.events import Action
from node.db.session import Database
from node.db.tables import AuditEventRow
from node.jobs.trail import verify
from node.jobs.viewing import note


def looks(database: Database) -> list[AuditEventRow]:
    with database.read() as session:
        return list(session.scalars(select(AuditEventRow).order_by(AuditEventRow.number)))


def test_a_look_is_an_event_with_who_and_at_whom(database: Database) -> None:
    assert note(database, Action.STUDY_VIEWED, actor="ada@ward", study_instance_uid="1.2", patient_id="P-1")
    [seen] = looks(database)
    assert (seen.action, seen.actor, seen.study_instance_uid, seen.patient_id) == (
        "study.viewed",
        "ada@ward",
        "1.2",
        "P-1",
    )


def test_a_script_that_asks_every_minute_makes_one_event_an_hour(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for minute in range(150):
        monkeypatch.setattr("node.jobs.viewing.now", lambda: at + dt.timedelta(minutes=minute))  # noqa: B023
        monkeypatch.setattr("node.jobs.record.now", lambda: at + dt.timedelta(minutes=minute))  # noqa: B023
        note(database, Action.STUDIES_LISTED, actor="monitor@ward", question={"limit": 50})
    assert [one.at[11:16] for one in looks(database)] == ["00:00", "01:01", "02:02"]
    assert verify(database).complaints == []


@pytest.mark.parametrize(
    "other",
    [
        {"actor": "bob"},
        {"study_instance_uid": "1.3"},
        {"patient_id": "P-2"},
        {"question": {"state": "incomplete"}},
        {"action": Action.STUDY_VIEWED},
    ],
)
def test_another_look_is_another_event(database: Database, other: dict[str, Any]) -> None:
    look: dict[str, Any] = {"action": Action.STUDIES_LISTED, "actor": "ada", "question": {"limit": 50}}
    note(database, **look)
    note(database, **look)
    note(database, **{**look, **other})
    assert len(looks(database)) == 2


def test_what_cannot_be_recorded_is_said(database: Database) -> None:
    def refuse(_session: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    full = Database(database.url, before_commit=refuse)
    assert not note(full, Action.STUDY_VIEWED, actor="ada", study_instance_uid="1.2", patient_id="P-1")
    assert looks(database) == []
    full.close()
