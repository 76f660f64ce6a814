from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy import select

from node.db import peers
from node.db.figures import Figures, Settled, figures, settle
from node.db.session import Database
from node.db.tables import InstanceRow, PurgeRow
from seeded.rows import DELIVERED, INCOMPLETE, RECEIVING, after, seed


def counted(database: Database, now: dt.datetime) -> Figures:
    with database.read() as session:
        return figures(session, Settled(), now=now)


def test_an_empty_node_counts_nothing(database: Database) -> None:
    found = counted(database, after(0))
    assert (found.objects_received, found.bytes_received, found.audit_events) == (0, 0, 0)
    assert set(found.revisions.values()) == {0}
    assert found.oldest_queued_at is None


def test_counts_what_was_received_and_by_whom(database: Database) -> None:
    seed(database)
    found = counted(database, after(400))
    assert found.associations == {"released": 4}
    assert (found.objects_received, found.bytes_received, found.objects_conflicting) == (10, 10_000, 1)
    assert found.last_image_at == {"CT1": after(302)}
    assert found.audit_events == 6


def test_counts_studies_jobs_and_deliveries_by_state(database: Database) -> None:
    seed(database)
    found = counted(database, after(400))
    assert {state: n for state, n in found.revisions.items() if n} == {
        "delivered": 1,
        "planned": 1,
        "incomplete": 1,
        "receiving": 1,
    }
    assert found.jobs == {("low_dose_ct", "done"): 2, ("low_dose_ct", "running"): 1}
    assert found.deliveries == {("PACS", "committed"): 3, ("PACS", "dead"): 3}


def test_adds_up_the_seconds_of_ended_jobs(database: Database) -> None:
    seed(database)
    count, seconds = counted(database, after(400)).job_seconds["low_dose_ct", "processed"]
    assert (count, seconds) == (2, pytest.approx(20.0, abs=0.01))


def test_counts_what_was_deleted_once_it_is_gone(database: Database) -> None:
    seed(database)
    before = counted(database, after(400))
    assert (before.studies_purged, before.files_purged, before.bytes_purged) == (0, 0, 0)
    with database.write() as session:
        for uid, ended_at in ((DELIVERED, after(500)), (DELIVERED, after(600)), (INCOMPLETE, None)):
            session.add(
                PurgeRow(
                    study_instance_uid=uid,
                    purged_at=after(450),
                    because="test",
                    actor="test",
                    files=7,
                    bytes=2**40,
                    ended_at=ended_at,
                )
            )
    found = counted(database, after(700))
    assert (found.studies_purged, found.files_purged, found.bytes_purged) == (2, 14, 2**41)


def test_a_breaker_is_open_until_its_time(database: Database) -> None:
    seed(database)
    with database.write() as session:
        peers.note_failure(session, "PACS", limit=1, open_until=after(500))
    assert counted(database, after(400)).breakers_open == {"CT1": False, "PACS": True}
    assert counted(database, after(600)).breakers_open == {"CT1": False, "PACS": False}


def test_what_is_settled_is_counted_once_and_what_is_recent_every_time(database: Database) -> None:
    seed(database)
    with database.read() as session:
        settled = settle(session, Settled(), now=after(310) + dt.timedelta(minutes=4))
        assert (settled.objects, settled.bytes) == (8, 8000)  # the two newest may have neighbours still to come
        assert settle(session, settled, now=after(310)) == settled
        found = figures(session, settled, now=after(310))
    assert (found.objects_received, found.bytes_received) == (10, 10_000)
    with database.write() as session:
        first = session.scalars(select(InstanceRow).where(InstanceRow.study_instance_uid == DELIVERED)).first()
        assert first is not None
        first.size = 5
        last = session.scalars(select(InstanceRow).where(InstanceRow.study_instance_uid == RECEIVING)).first()
        assert last is not None
        last.size = 5
    with database.read() as session:
        assert figures(session, settled, now=after(310)).bytes_received == 9_005
