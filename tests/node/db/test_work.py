import datetime as dt
import threading

import pytest

from node.db import receiving, work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import JobRow, StudyRow

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(minutes=2)


@pytest.fixture
def revision_id(database: Database) -> int:
    with database.write() as session:
        study = StudyRow(
            study_instance_uid="1.2",
            patient_id="P",
            patient_name="N",
            accession_number="",
            study_date="",
            description="",
            first_received_at=NOW,
        )
        receiving.ensure_study(session, study)
        return receiving.open_revision(session, "1.2", source_aet="PACS", urgent=False, at=NOW).id


def add(database: Database, revision_id: int, series: str, *, urgent: bool = False, minutes: int = 0) -> int:
    with database.write() as session:
        queued_at = NOW + dt.timedelta(minutes=minutes)
        row = JobRow(
            revision_id=revision_id,
            pipeline="low_dose_ct",
            series_instance_uid=series,
            urgent=urgent,
            queued_at=queued_at,
        )
        assert work.add_job(session, row)
        return row.id


def claim(database: Database) -> JobRow | None:
    with database.write() as session:
        return work.claim(session, worker="w", now=NOW, lease_until=LATER)


def test_stat_goes_first_then_the_oldest(database: Database, revision_id: int) -> None:
    routine = [add(database, revision_id, str(number), minutes=number) for number in range(3)]
    stat = add(database, revision_id, "9", urgent=True, minutes=60)
    order = [job.id for job in iter(lambda: claim(database), None) if job]
    assert order == [stat, *routine]


def test_stat_is_next_behind_800_routine_studies(database: Database, revision_id: int) -> None:
    with database.write() as session:
        session.add_all(
            JobRow(revision_id=revision_id, pipeline="low_dose_ct", series_instance_uid=str(number), queued_at=NOW)
            for number in range(800)
        )
    assert claim(database)
    stat = add(database, revision_id, "stat", urgent=True, minutes=60)
    job = claim(database)
    assert job is not None
    assert job.id == stat
    following = claim(database)
    assert following is not None
    assert following.series_instance_uid == "1", "and routine goes on where it was"


def test_routine_that_has_waited_is_not_starved_by_an_endless_row_of_stat(database: Database, revision_id: int) -> None:
    waited, later = (add(database, revision_id, f"routine {number}", minutes=number) for number in (0, 1))
    fresh = add(database, revision_id, "fresh", minutes=50)
    stat = [add(database, revision_id, f"stat {number}", urgent=True, minutes=59) for number in range(8)]

    def claimed(minute: int) -> int:
        at = NOW + dt.timedelta(minutes=60, seconds=minute)
        since = at - dt.timedelta(minutes=30)
        with database.write() as session:
            job = work.claim(session, worker="w", now=at, lease_until=LATER, waiting_since=since)
        assert job is not None
        return job.id

    assert [claimed(number) for number in range(11)] == [*stat[:3], waited, *stat[3:6], later, *stat[6:], fresh]


def test_eight_workers_never_claim_one_job_twice(database: Database, revision_id: int) -> None:
    ids = [add(database, revision_id, str(number)) for number in range(12)]
    claimed: list[int] = []

    def work_on() -> None:
        while (job := claim(database)) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=work_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == ids


def test_the_result_of_a_lost_lease_is_not_kept(database: Database, revision_id: int) -> None:
    add(database, revision_id, "1")
    first = claim(database)
    assert first is not None
    with database.write() as session:
        assert work.give_back(session, first.id, 1, not_before=NOW, reason="went silent")
    second = claim(database)
    assert second is not None
    assert second.attempt == 2
    with database.write() as session:
        assert not work.finish(session, first.id, 1, JobState.DONE)
        assert not work.renew(session, first.id, 1, lease_until=LATER, progress=0.5, step="")
        assert work.finish(session, second.id, 2, JobState.DONE)


def test_a_job_that_waits_for_its_next_attempt_is_not_due(database: Database, revision_id: int) -> None:
    add(database, revision_id, "1")
    job = claim(database)
    assert job is not None
    with database.write() as session:
        work.give_back(session, job.id, 1, not_before=LATER, reason="later")
    assert claim(database) is None


def test_a_job_is_added_once(database: Database, revision_id: int) -> None:
    add(database, revision_id, "1")
    with database.write() as session:
        again = JobRow(revision_id=revision_id, pipeline="low_dose_ct", series_instance_uid="1", queued_at=NOW)
        assert not work.add_job(session, again)


def test_lapsed_leases_are_found(database: Database, revision_id: int) -> None:
    add(database, revision_id, "1")
    job = claim(database)
    assert job is not None
    with database.read() as session:
        assert not work.lapsed(session, NOW)
        assert [row.id for row in work.lapsed(session, LATER + dt.timedelta(seconds=1))] == [job.id]
