"""The worker around an analysis: claim, lease, retries, one transaction at the end."""

import datetime as dt
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import select
from sqlalchemy.event import listen
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import Action
from node.db import work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import AuditEventRow, JobRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.dicom.write import Produced
from node.errors import NotEligible, NotUnderstood, OutOfResources, PeerBusy
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.purge import Housekeeping
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now, process_name
from node.jobs.run import Attempt, Outcome, Worker, keep_produced
from node.jobs.sweep import Clock, release_dead
from node.jobs.wake import Waker
from node.settings import Settings

from .conftest import SilentBroker, ct_slice


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"retry_first_s": 0.01, "max_attempts": 2, "lease_s": 0.4})


@pytest.fixture
def planned(database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]) -> int:
    """A revision with one analysis job queued."""
    desk.take(arrive(ct_slice()))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    return revision_id


def worker(
    settings: Settings, database: Database, analyse: Callable[[Attempt], Outcome], actor: str = "worker"
) -> Worker:
    return Worker(
        settings,
        database,
        actor=actor,
        analyse=analyse,
        report=lambda _attempt: Outcome("processed", ""),
        after_report=lambda _session, _attempt: None,
    )


def jobs(database: Database) -> list[JobRow]:
    with database.read() as session:
        return list(session.scalars(select(JobRow).order_by(JobRow.id)))


def actions(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(AuditEventRow.action).order_by(AuditEventRow.number)))


def processed(_attempt: Attempt) -> Outcome:
    return Outcome("processed", "", body={"findings": {}})


def test_a_finished_analysis_queues_the_report(settings: Settings, database: Database, planned: int) -> None:
    assert worker(settings, database, processed).run_next()
    assert [(job.pipeline, job.state) for job in jobs(database)] == [("low_dose_ct", "done"), ("report", "queued")]
    assert actions(database)[-2:] == [Action.JOB_STARTED, Action.JOB_DONE]


def test_nothing_to_do_is_said(settings: Settings, database: Database, archive: Archive) -> None:
    assert not worker(settings, database, processed).run_next()


def test_not_eligible_ends_the_job_with_the_reason_for_the_reader(
    settings: Settings, database: Database, planned: int
) -> None:
    def analyse(_attempt: Attempt) -> Outcome:
        raise NotEligible("The slices lie in two orientations.")

    worker(settings, database, analyse).run_next()
    job = jobs(database)[0]
    assert (job.state, job.outcome, job.reason) == (
        "done",
        "not eligible",
        "The slices lie in two orientations.",
    )


def test_a_broken_analysis_is_tried_again_and_then_told(settings: Settings, database: Database, planned: int) -> None:
    def analyse(_attempt: Attempt) -> Outcome:
        raise ZeroDivisionError("secret text that may hold anything")

    run = worker(settings, database, analyse)
    run.run_next()
    assert jobs(database)[0].state == "queued"
    time.sleep(0.02)
    run.run_next()
    assert [(job.pipeline, job.state) for job in jobs(database)] == [("low_dose_ct", "failed"), ("report", "queued")]
    assert "ZeroDivisionError" in jobs(database)[0].reason
    assert "secret" not in jobs(database)[0].reason
    assert actions(database)[-1] == Action.JOB_FAILED


def unreadable() -> NotUnderstood:
    """As the writer says that a source file cannot be read again."""
    error = NotUnderstood("a source file cannot be read again")
    error.__cause__ = OSError(5, "Input/output error")
    return error


@pytest.mark.parametrize(
    "error", [PeerBusy("later"), OutOfResources("disk full"), OSError(116, "Stale file handle"), unreadable()]
)
def test_what_passes_is_waited_for_longer_each_time_and_is_no_attempt(
    settings: Settings, database: Database, planned: int, error: Exception
) -> None:
    patient = settings.model_copy(update={"retry_first_s": 40.0, "retry_most_s": 1000.0})
    troubled = [error] * 8

    def analyse(attempt: Attempt) -> Outcome:
        assert attempt.job.attempt == 1
        if troubled:
            raise troubled.pop()
        return processed(attempt)

    waits = [wait_of_one_attempt(patient, database, analyse) for _ in range(len(troubled))]
    assert waits == pytest.approx([40, 40, 80, 160, 320, 640, 1000, 1000], abs=35)
    assert {job.state for job in jobs(database)} == {"queued"}
    wait_of_one_attempt(patient, database, analyse)
    assert [(job.pipeline, job.state) for job in jobs(database)] == [("low_dose_ct", "done"), ("report", "queued")]


def wait_of_one_attempt(settings: Settings, database: Database, analyse: Callable[[Attempt], Outcome]) -> float:
    """Let the first job be tried, and so much time go by as it then has to wait; the seconds."""
    worker(settings, database, analyse).run_next()
    with database.write() as session:
        row = session.scalars(select(JobRow).order_by(JobRow.id)).first()
        assert row is not None
        wait = (row.not_before - now()) if row.not_before else dt.timedelta(0)
        row.queued_at -= wait
        row.not_before = None
    return wait.total_seconds()


@pytest.mark.parametrize(
    "error", [OSError("a damaged sequence"), OSError(2, "No such file or directory")], ids=["no disk's", "lost"]
)
def test_a_file_that_stays_unreadable_is_told(
    settings: Settings, database: Database, planned: int, error: OSError
) -> None:
    def analyse(_attempt: Attempt) -> Outcome:
        raise error

    if error.errno is not None:
        with database.write() as session:
            session.scalars(select(JobRow)).one().queued_at -= dt.timedelta(days=2)
    for _ in range(settings.max_attempts):
        time.sleep(0.03)
        worker(settings, database, analyse).run_next()
    assert [(job.pipeline, job.state) for job in jobs(database)] == [("low_dose_ct", "failed"), ("report", "queued")]


@pytest.fixture
def reporting(settings: Settings, database: Database, planned: int) -> int:
    """A revision with its report queued; the job's id."""
    worker(settings, database, processed).run_next()
    return jobs(database)[1].id


def test_a_report_that_cannot_be_written_is_never_given_up(
    settings: Settings, database: Database, reporting: int
) -> None:
    def broken(_attempt: Attempt) -> Outcome:
        raise ZeroDivisionError

    capped = settings.model_copy(update={"retry_most_s": 0.02})
    run = Worker(
        capped, database, actor="worker", analyse=processed, report=broken, after_report=lambda _session, _attempt: None
    )
    for attempt in range(1, 7):
        assert run.run_next()
        job = jobs(database)[1]
        assert (job.state, job.attempt) == ("queued", attempt)
        assert job.not_before is not None
        assert job.not_before - now() < dt.timedelta(seconds=0.02)
        time.sleep(0.03)


def test_a_report_that_kills_its_workers_is_put_back_and_not_at_once(
    settings: Settings, database: Database, reporting: int
) -> None:
    patient = settings.model_copy(update={"retry_first_s": 100.0, "retry_most_s": 150.0})
    for waits in (0, 150, 150):  # max_attempts is 2
        with database.write() as session:
            session.get_one(JobRow, reporting).not_before = None
        with database.write() as session:
            gone = now() - dt.timedelta(seconds=1)
            assert work.claim(session, worker="infer@gone:1", now=now(), lease_until=gone) is not None
        clock(patient, database).tick()
        job = jobs(database)[1]
        assert job.state == "queued"
        assert job.not_before is not None
        assert (job.not_before - now()).total_seconds() == pytest.approx(waits, abs=5)


def test_a_worker_that_lost_its_lease_keeps_nothing(
    settings: Settings, database: Database, planned: int, archive: Archive
) -> None:
    def slow(attempt: Attempt) -> Outcome:
        produced = Produced("sc", "1.2", "2.25.7", "2.25.8", "1.2.840.10008.1.2.1", b"x" * 8, "label", "group")
        row = keep_produced(archive, attempt, produced)
        with database.write() as session:  # as the clock does with a silent worker
            work.give_back(session, attempt.job.id, attempt.job.attempt, not_before=now(), reason="silent")
        return Outcome("processed", "", (row,))

    worker(settings, database, slow).run_next()
    with database.read() as session:
        assert session.scalars(select(ResultRow)).all() == []
    assert jobs(database)[0].state == "queued"


def test_a_long_job_renews_its_lease_and_shows_its_progress(
    settings: Settings, database: Database, planned: int
) -> None:
    seen: list[tuple[float, str]] = []

    def slow(attempt: Attempt) -> Outcome:
        with attempt.step("analyse") as progress:
            progress(1, 4)
            deadline = time.monotonic() + 5
            while not seen and time.monotonic() < deadline:
                time.sleep(0.05)
                with database.read() as session:
                    row = session.get_one(JobRow, attempt.job.id)
                    if row.step:
                        seen.append((row.progress, row.step))
        return Outcome("processed", "")

    worker(settings, database, slow).run_next()
    assert seen == [(0.25, "analyse")]
    assert [step["name"] for step in jobs(database)[0].steps] == ["analyse"]


def test_a_database_that_is_away_for_a_moment_costs_no_lease(
    settings: Settings, database: Database, planned: int
) -> None:
    """As when its server is restarted: one renewal fails, the next ones do not."""
    leases: list[dt.datetime] = []
    failures = [OperationalError("UPDATE job", {}, Exception("server restarted"))]

    def fail(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        is_renewal = threading.current_thread().name.startswith("lease-") and statement.startswith("UPDATE job")
        if is_renewal and failures:
            raise failures.pop()

    def slow(attempt: Attempt) -> Outcome:
        deadline = time.monotonic() + 20
        while (failures or len(leases) < 2) and time.monotonic() < deadline:
            time.sleep(0.05)
            with database.read() as session:
                until = session.get_one(JobRow, attempt.job.id).lease_until
            if until is not None and not failures and until not in leases:
                leases.append(until)
        return processed(attempt)

    listen(database.engine, "before_cursor_execute", fail)
    worker(settings, database, slow).run_next()
    assert len(leases) == 2, "renewed after the failure"


def clock(settings: Settings, database: Database) -> Clock:
    housekeeping = Housekeeping(settings, database, Archive(settings.archive_dir), actor="clock")
    return Clock(settings, database, Waker(database, SilentBroker()), housekeeping, actor="clock")  # type: ignore[arg-type]


def test_the_job_of_a_killed_worker_comes_back_and_in_the_end_fails_in_words(
    settings: Settings, database: Database, planned: int
) -> None:
    for _ in range(2):
        with database.write() as session:
            gone = now() - dt.timedelta(seconds=1)
            assert work.claim(session, worker="infer@gone:1", now=now(), lease_until=gone) is not None
        clock(settings, database).tick()
    job, report = jobs(database)
    assert job.state == JobState.FAILED
    assert "infer@gone:1" in job.reason
    assert report.pipeline == work.REPORT
    assert [action for action in actions(database) if action.startswith("job")] == ["job.requeued", "job.failed"]


def test_a_new_worker_takes_back_what_a_dead_one_of_this_host_held_at_once(
    settings: Settings, database: Database, planned: int
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for worker_name, expected in (
        (process_name("infer"), "running"),
        ("infer@another-host:1", "running"),
        (f"infer@{socket.gethostname()}:{gone.pid}", "queued"),
    ):
        with database.write() as session:
            session.get_one(JobRow, jobs(database)[0].id).worker = worker_name
            session.get_one(JobRow, jobs(database)[0].id).state = "running"
        release_dead(database, settings, actor="infer")
        assert jobs(database)[0].state == expected, worker_name


def test_the_clock_wakes_a_job_once_and_again_when_the_call_was_lost(
    settings: Settings, database: Database, planned: int
) -> None:
    calls: list[int] = []

    class CountingBroker(SilentBroker):
        def run_job(self, job_id: int, *, urgent: bool) -> None:
            calls.append(job_id)

    waker = Waker(database, CountingBroker())  # type: ignore[arg-type]
    waker.wake()
    waker.wake()
    assert len(calls) == 1
    with database.write() as session:
        session.get_one(JobRow, calls[0]).woken_at = now() - dt.timedelta(minutes=1)
    waker.wake()
    assert len(calls) == 2


def test_a_revision_is_reported_once_even_when_two_workers_finish_together(
    settings: Settings, database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice(series="1.2.3.1")))
    desk.take(arrive(ct_slice(series="1.2.3.2")))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    for _ in range(2):
        worker(settings, database, processed).run_next()
    assert [job.pipeline for job in jobs(database)].count(work.REPORT) == 1
    with database.read() as session:
        assert session.get_one(RevisionRow, revision_id).state == "planned"


@pytest.fixture
def planned_twice(database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]) -> int:
    """A revision with two analysis jobs queued."""
    desk.take(arrive(ct_slice(series="1.2.3.1")))
    desk.take(arrive(ct_slice(series="1.2.3.2")))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    return revision_id


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_of_two_transactions_that_end_the_last_analyses_at_once_one_queues_the_report(
    settings: Settings, database: Database, planned_twice: int, archive: Archive
) -> None:
    both, asked = threading.Barrier(2, timeout=30), threading.Barrier(2, timeout=2)

    def analyse(attempt: Attempt) -> Outcome:
        uid = f"2.25.{attempt.job.id}"
        produced = Produced("sc", "1.2", uid, "2.25.8", "1.2.840.10008.1.2.1", b"x" * 8, "label", uid)
        return Outcome("processed", "", (keep_produced(archive, attempt, produced),))

    class Late(Worker):
        """Meets the other one before it asks whether it was the last, and before it commits if both may ask at once."""

        def _after(self, session: Session, attempt: Attempt) -> None:
            both.wait()
            super()._after(session, attempt)
            with suppress(threading.BrokenBarrierError):
                asked.wait()

    def run(actor: str) -> None:
        late = Late(
            settings,
            database,
            actor=actor,
            analyse=analyse,
            report=lambda _attempt: Outcome("processed", ""),
            after_report=lambda _session, _attempt: None,
        )
        while not late.run_next():
            time.sleep(0.01)  # while one looks for a job, it holds all of them

    workers = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert sorted((job.pipeline, job.state) for job in jobs(database)) == [
        ("low_dose_ct", "done"),
        ("low_dose_ct", "done"),
        ("report", "queued"),
    ]


def test_the_clock_queues_the_report_that_nobody_has_queued(
    settings: Settings, database: Database, planned_twice: int
) -> None:
    clock(settings, database).tick()
    assert [job.pipeline for job in jobs(database)] == ["low_dose_ct", "low_dose_ct"]
    with database.write() as session:  # as two workers did that each saw the other one still at work
        for row in session.scalars(select(JobRow)):
            row.state = JobState.DONE
    clock(settings, database).tick()
    clock(settings, database).tick()
    assert [job.pipeline for job in jobs(database)] == ["low_dose_ct", "low_dose_ct", "report"]
