from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.event import listen

from node.audit.events import Action
from node.db import migrate, trail
from node.db.session import Database
from node.db.tables import StudyRow
from node.db.trail import Question
from node.jobs.record import now, record, seal_pending

A, B = "1.2.1", "1.2.2"


@pytest.fixture
def told(database: Database) -> Database:
    """Two patients with a study each, and events that name patient and study, the study alone, or neither."""
    for uid, patient in ((A, "P-1"), (B, "P-2")):
        with database.write() as session:
            session.add(
                StudyRow(
                    study_instance_uid=uid,
                    patient_id=patient,
                    patient_name="",
                    accession_number="",
                    study_date="",
                    description="",
                    first_received_at=now(),
                )
            )
            record(session, Action.INSTANCE_STORED, study_instance_uid=uid, patient_id=patient, peer="CT1")
            record(session, Action.REVISION_COMPLETED, study_instance_uid=uid)
            record(session, Action.NODE_STARTED)
            record(session, Action.DELIVERY_DEFERRED, study_instance_uid=uid, peer="PACS")
    return database


def found(database: Database, **question: Any) -> list[tuple[str, str, str]]:
    with database.read() as session:
        rows = trail.find(session, Question(**question))
        return [(row.action, row.study_instance_uid, row.patient_id) for row in rows]


def test_a_patient_has_the_events_that_name_only_a_study(told: Database) -> None:
    assert found(told, patient_id="P-2") == [
        ("instance.stored", B, "P-2"),
        ("revision.completed", B, ""),
        ("delivery.deferred", B, ""),
    ]
    assert found(told, patient_id="P-3") == []


def test_other_filters_narrow_them_and_the_newest_are_kept(told: Database) -> None:
    assert found(told, patient_id="P-1", action="delivery") == [("delivery.deferred", A, "")]
    assert found(told, patient_id="P-1", peer="CT1") == [("instance.stored", A, "P-1")]
    assert found(told, patient_id="P-1", study_instance_uid=B) == []
    assert found(told, patient_id="P-1", limit=2) == [("revision.completed", A, ""), ("delivery.deferred", A, "")]


def test_a_study_is_known_by_its_row_or_by_other_events(told: Database) -> None:
    with told.write() as session:
        record(session, Action.INSTANCE_STORED, study_instance_uid="1.2.9", patient_id="P-9")
        record(session, Action.REVISION_REPORTED, study_instance_uid="1.2.9")
        session.get_one(StudyRow, A).patient_id = "P-9"  # another id came with later images
    assert [study for _, study, _ in found(told, patient_id="P-9")] == [A, A, "1.2.9", "1.2.9"]
    assert len(found(told, patient_id="P-1")) == 3, "events told of the study under the earlier id"


def test_an_entity_is_a_study_or_a_patient_known_in_the_same_ways(told: Database) -> None:
    with told.write() as session:
        session.get_one(StudyRow, A).patient_id = "P-9"
    assert found(told, entity="P-1") == found(told, patient_id="P-1") != []
    assert found(told, entity="P-9") == found(told, patient_id="P-9") != []
    assert found(told, entity=B) == found(told, study_instance_uid=B) != []
    assert found(told, entity="P-2", agent="PACS") == [("delivery.deferred", B, "")]
    assert found(told, entity="P-2", outcome="failure") == []


def test_an_id_that_stands_for_whole_archives_is_answered_too(told: Database) -> None:
    """ "ANONYMOUS" has more studies than a statement may have values."""
    with told.write() as session:
        fields = {"patient_name": "", "accession_number": "", "study_date": "", "description": ""}
        session.execute(
            insert(StudyRow.__table__),  # type: ignore[arg-type]
            [
                {"study_instance_uid": f"1.9.{n}", "patient_id": "ANONYMOUS", "first_received_at": now(), **fields}
                for n in range(70_000)
            ],
        )
        for n in (0, 69_999, 35_000):
            record(session, Action.REVISION_COMPLETED, study_instance_uid=f"1.9.{n}")
    asked = found(told, patient_id="ANONYMOUS", limit=2)
    assert [study for _, study, _ in asked] == ["1.9.69999", "1.9.35000"]


def test_what_names_another_patient_is_never_among_them(told: Database) -> None:
    with told.write() as session:
        record(session, Action.INSTANCE_CONFLICT, study_instance_uid=A, patient_id="P-7")
    assert {patient for _, _, patient in found(told, patient_id="P-1")} == {"P-1", ""}
    assert found(told, patient_id="P-7")[-1] == ("instance.conflict", A, "P-7")


def test_every_statement_is_answered_by_an_index(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'one.sqlite'}", before_commit=seal_pending)
    migrate.upgrade(database)
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_more: object) -> None:
        asked.append((statement, values))

    listen(database.engine, "before_cursor_execute", note)
    with database.write() as session:
        record(session, Action.INSTANCE_STORED, study_instance_uid=A, patient_id="P-1")
    asked.clear()
    found(database, patient_id="P-1", limit=5)
    queries = [(statement, values) for statement, values in asked if statement.startswith("SELECT")]
    with database.engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in queries]
    steps = [row[3] for plan in plans for row in plan if row[3].startswith(("SCAN", "SEARCH"))]
    assert len(steps) == 4
    assert all(step.startswith("SEARCH") and "INDEX ix_" in step for step in steps), steps
    database.close()


def numbers(database: Database, **question: Any) -> list[int]:
    with database.read() as session:
        return [row.number for row in trail.find(session, Question(**question))]


def test_page_by_page_every_event_comes_once_and_what_is_recorded_meanwhile_comes_too(told: Database) -> None:
    for question in ({}, {"patient_id": "P-2"}, {"action": "instance"}):
        whole = numbers(told, **question)
        seen: list[int] = []
        while page := numbers(told, after=seen[-1] if seen else 0, limit=2, **question):
            seen += page
            if len(seen) == 2:
                with told.write() as session:
                    record(session, Action.INSTANCE_STORED, study_instance_uid=B, patient_id="P-2", peer="CT1")
        assert seen == [*whole, seen[-1]], question
        assert numbers(told, up_to=whole[-1], after=0, **question) == whole
