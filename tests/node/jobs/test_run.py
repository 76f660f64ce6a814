"""The worker around an analysis: claim, lease, retries, one transaction at the end."""

import datetime as dt
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select

from node.archive import Archive
from node.audit.events import Action
from node.db import work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import AuditEventRow, JobRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.dicom.write import Produced
from node.errors import NotEligible, OutOfResources, PeerBusy
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now, process_name
from node.jobs.run import Attempt, Outcome, Worker, keep_produced
from node.jobs.sweep import Clock, release_dead
from node.jobs.wake import Waker
from node.settings import Settings

from .conftest import ct_slice


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


@pytest.mark.parametrize("error", [PeerBusy("later"), OutOfResources("disk full")])
def test_what_passes_is_waited_for(settings: Settings, database: Database, planned: int, error: Exception) -> None:
    def analyse(_attempt: Attempt) -> Outcome:
        raise error

    worker(settings, database, analyse).run_next()
    assert jobs(database)[0].state == "queued"


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


class SilentBroker:
    """A broker that loses every call: the clock must do without."""

    def waiting(self, _queue: str) -> int:
        return 0

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


def clock(settings: Settings, database: Database) -> Clock:
    return Clock(settings, database, Waker(database, SilentBroker()), actor="clock")  # type: ignore[arg-type]


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
