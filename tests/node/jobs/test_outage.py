"""The database goes away in the middle of an association, and comes back: what is said, and what the trail knows."""

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from node.archive import Archive
from node.db.session import Database
from node.db.tables import AssociationRow, AuditEventRow, InstanceRow, JobRow, PeerRow, ResultRow, RevisionRow
from node.dicom.commit import CommitmentReport
from node.dicom.receive import Arrival
from node.dicom.write import Produced
from node.errors import OutOfResources
from node.jobs import outage
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.purge import Housekeeping
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now, seal_pending
from node.jobs.run import Attempt, Outcome, Worker, keep_produced
from node.jobs.sweep import Clock
from node.jobs.trail import verify
from node.jobs.wake import Waker
from node.settings import Settings

from .conftest import CALLER, SilentBroker, ct_slice


@contextmanager
def away(database: Database) -> Iterator[None]:
    def refuse(_connection: Any) -> None:
        raise OperationalError("SELECT 'P-1'", {}, Exception("connection refused\nfor P-1"))

    event.listen(database.engine, "begin", refuse)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", refuse)


def events(database: Database, action: str) -> list[AuditEventRow]:
    with database.read() as session:
        return list(session.scalars(select(AuditEventRow).where(AuditEventRow.action == action)))


def wait_until(met: Callable[[], Any]) -> None:
    for _ in range(600):
        if met():
            return
        time.sleep(0.05)
    pytest.fail("never")


def test_an_association_that_the_outage_meets_is_answered_and_recorded_once_it_is_over(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival], caplog: pytest.LogCaptureFixture
) -> None:
    association = desk.admit(CALLER)
    desk.take(arrive(ct_slice(number=1), association=association))
    with away(database):
        for _ in range(2):
            with pytest.raises(OutOfResources):
                desk.take(arrive(ct_slice(number=2), association=association))
        desk.lost(association, "1.2.3.1.3", "the sender went away")
        with pytest.raises(OutOfResources):
            desk.committed(CommitmentReport("1.2.9", frozenset(), {}))
        desk.left(association, "released", 1, 2, [])
        before = time.time()
    wait_until(lambda: events(database, "association.closed"))
    with database.read() as session:
        row = session.get_one(AssociationRow, association)
        held = session.scalars(select(InstanceRow.sop_instance_uid)).all()
    assert (row.outcome, row.stored, row.refused) == ("released", 1, 2)
    assert row.closed_at is not None
    assert row.closed_at.timestamp() < before, "when it was, not when it could be written"
    assert held == ["1.2.3.1.1"]
    assert [e.detail["sop_instance_uid"] for e in events(database, "instance.refused")] == ["1.2.3.1.2"] * 2
    assert [e.detail["sop_instance_uid"] for e in events(database, "instance.lost")] == ["1.2.3.1.3"]
    assert verify(database).complaints == []
    wait_until(lambda: "the database is back" in caplog.text)
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2, "one line when it goes, one when it is back"
    assert said[0].getMessage().startswith("the database is away (connection refused)")
    assert not any(record.exc_info for record in said)
    assert "P-1" not in caplog.text
    desk.take(arrive(ct_slice(number=2)))


def test_callers_are_turned_away_for_now_and_each_is_an_event(database: Database, desk: ReceivingDesk) -> None:
    with away(database):
        for _ in range(3):
            with pytest.raises(OutOfResources):
                desk.admit(CALLER)
    wait_until(lambda: events(database, "association.refused"))
    [refused] = events(database, "association.refused")
    assert (refused.peer, refused.detail["host"], refused.detail["times"]) == ("PACS", "127.0.0.1", 3)
    assert desk.admit(CALLER)


def test_who_calls_under_many_names_in_an_outage_fills_no_memory(
    database: Database, desk: ReceivingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.jobs.receive._MOST_TURNED_AWAY", 2)
    with away(database):
        for number in range(5):
            with pytest.raises(OutOfResources):
                desk.admit(CALLER.__class__(f"AET{number}", "PACSNODE", "127.0.0.1", 1, None))
    wait_until(lambda: len(events(database, "association.refused")) == 3)
    assert [(e.peer, e.detail["times"]) for e in events(database, "association.refused")] == [
        ("AET0", 1),
        ("AET1", 1),
        ("", 3),
    ]


def test_what_is_owed_is_written_at_the_stop(
    database: Database, desk: ReceivingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_LOOK_S", 3600.0)
    association = desk.admit(CALLER)
    with away(database):
        desk.lost(association, "1.2.3", "the sender went away")
    desk.close()
    assert len(events(database, "instance.lost")) == 1


def test_what_an_analysis_made_is_entered_once_the_database_is_back(
    settings: Settings, database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice()))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    outages = iter([away(database)])

    def analyse(_attempt: Attempt) -> Outcome:
        """The database goes as the analysis ends, and is back a little later."""
        going = next(outages)
        going.__enter__()
        threading.Timer(0.3, going.__exit__, (None, None, None)).start()
        return Outcome("processed", "", body={"findings": {}})

    nothing = Outcome("processed", "")
    worker = Worker(
        settings,
        database,
        actor="w",
        analyse=analyse,
        report=lambda _attempt: nothing,
        after_report=lambda _session, _attempt: None,
    )
    assert worker.run_next()
    with database.read() as session:
        job = session.scalars(select(JobRow)).first()
    assert job is not None
    assert (job.state, job.attempt) == ("done", 1)


def test_an_outage_under_an_analysis_is_no_attempt(
    settings: Settings, database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice()))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")

    def analyse(_attempt: Attempt) -> Outcome:
        with away(database):
            database.ping()
        raise AssertionError

    def unused(*_given: Any) -> Any:
        raise AssertionError

    Worker(settings, database, actor="w", analyse=analyse, report=unused, after_report=unused).run_next()
    with database.read() as session:
        job = session.scalars(select(JobRow)).first()
    assert job is not None
    assert (job.state, job.attempt) == ("queued", 0)


def test_the_clock_says_an_outage_in_a_line(
    settings: Settings, database: Database, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.model_copy(update={"clock_interval_s": 0.05})
    housekeeping = Housekeeping(settings, database, archive, actor="clock")
    waker = Waker(database, SilentBroker())
    stop = threading.Event()
    clock = Clock(settings, database, waker, housekeeping, actor="clock")
    caplog.set_level(logging.INFO)
    with away(database):
        threading.Timer(0.5, stop.set).start()
        clock.run(stop)
    said = [record for record in caplog.records if record.name == "node.jobs.sweep"]
    assert [record.getMessage() for record in said] == ["the database is away (connection refused): the clock waits"]
    assert said[0].exc_info is None


def test_a_time_in_which_nobody_could_send_was_not_quiet(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    with database.write() as session:
        row = session.get_one(PeerRow, "PACS")
        row.config = {**row.config, "completion": {"quiet_s": 1.0, "deadline_s": 3600}}
    desk.take(arrive(ct_slice()))
    with database.write() as session:
        session.scalars(select(RevisionRow)).one().last_image_at -= dt.timedelta(seconds=30)
    housekeeping = Housekeeping(settings, database, archive, actor="clock")
    clock = Clock(settings, database, Waker(database, SilentBroker()), housekeeping, actor="clock")
    clock._since = now() - dt.timedelta(minutes=1)
    with away(database), pytest.raises(OperationalError) as outage_of_a_tick:
        clock.tick()
    clock._failed(outage_of_a_tick.value)

    def state() -> str:
        clock.tick()
        with database.read() as session:
            return session.scalars(select(RevisionRow.state)).one()

    assert state() == "receiving", "the first tick after it"
    time.sleep(1.1)
    assert state() == "complete"


def test_a_standby_that_takes_no_writes_yet_is_a_database_that_is_away(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival], caplog: pytest.LogCaptureFixture
) -> None:
    association = desk.admit(CALLER)
    is_postgres = database.engine.dialect.name == "postgresql"

    def only_read(connection: Any) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY" if is_postgres else "PRAGMA query_only = ON")

    event.listen(database.engine, "begin", only_read)
    with pytest.raises(OutOfResources):
        desk.take(arrive(ct_slice(), association=association))
    with pytest.raises(OutOfResources):
        desk.admit(CALLER)
    event.remove(database.engine, "begin", only_read)
    if not is_postgres:
        event.listen(database.engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA query_only = OFF"))
    wait_until(lambda: events(database, "instance.refused") and events(database, "association.refused"))
    assert not [record for record in caplog.records if record.exc_info]


def test_results_are_entered_whole_though_the_database_went_as_they_were(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice()))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    goes = iter([False, True, False, False])  # at the claim, as the results are entered, and again

    def seal(session: Any) -> None:
        if next(goes):
            raise OperationalError("INSERT", {}, Exception("server closed the connection unexpectedly"))
        seal_pending(session)

    def analyse(attempt: Attempt) -> Outcome:
        kept = keep_produced(archive, attempt, Produced("sc", "1.2", "2.25.7", "2.25.8", "1.2.840", b"x", "page", "g"))
        return Outcome("processed", "", results=(kept,), body={"findings": {}})

    def unused(*_given: Any) -> Any:
        raise AssertionError

    flaky = Database(database.url, before_commit=seal)
    settings = settings.model_copy(update={"lease_s": 3600.0})
    Worker(settings, flaky, actor="w", analyse=analyse, report=unused, after_report=unused).run_next()
    flaky.close()
    with database.read() as session:
        assert session.scalars(select(ResultRow.sop_instance_uid)).all() == ["2.25.7"]
        assert session.scalars(select(JobRow.state).order_by(JobRow.id)).all() == ["done", "queued"]
    assert verify(database).complaints == []
