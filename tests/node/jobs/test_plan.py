from collections.abc import Callable

import pytest
from sqlalchemy import select

from node.db import work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import JobRow, RevisionRow
from node.dicom.receive import Arrival
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now

from .conftest import ct_slice

Take = Callable[..., list[int]]


@pytest.fixture
def take(database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]) -> Take:
    """Take objects, close the revision and plan it; its id."""

    def do(*objects: object) -> list[int]:
        for ds in objects:
            desk.take(arrive(ds))
        closed = complete_due(database, actor="test")
        for revision_id in closed:
            assert plan(database, revision_id, actor="test")
        return closed

    return do


def jobs(database: Database) -> list[JobRow]:
    with database.read() as session:
        return list(session.scalars(select(JobRow).order_by(JobRow.id)))


def selection(database: Database, revision_id: int) -> list[dict[str, object]]:
    with database.read() as session:
        return session.get_one(RevisionRow, revision_id).selection


def test_an_axial_ct_is_analysed(database: Database, take: Take) -> None:
    take(ct_slice(number=1), ct_slice(number=2))
    assert [(job.pipeline, job.state) for job in jobs(database)] == [("low_dose_ct", "queued")]


def test_a_study_with_nothing_eligible_still_gets_its_report(database: Database, take: Take) -> None:
    scout = ct_slice()
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    [revision] = take(scout)
    assert [job.pipeline for job in jobs(database)] == ["report"]
    [entry] = selection(database, revision)
    assert entry["decision"] == "not eligible"
    assert entry["reason"]


def test_planning_twice_makes_no_second_job(database: Database, take: Take) -> None:
    [revision] = take(ct_slice())
    assert not plan(database, revision, actor="test")
    assert len(jobs(database)) == 1


def test_a_late_image_of_another_series_does_not_repeat_the_finished_one(database: Database, take: Take) -> None:
    take(ct_slice(series="1.2.3.1"))
    finish_all(database)
    [second] = take(ct_slice(series="1.2.3.2"))
    by_series = {entry["series_instance_uid"]: entry["decision"] for entry in selection(database, second)}
    assert by_series == {"1.2.3.1": "unchanged since revision 1", "1.2.3.2": "analysed"}
    assert [job.series_instance_uid for job in jobs(database) if job.revision_id == second] == ["1.2.3.2"]


def test_a_late_image_of_the_same_series_analyses_it_again(database: Database, take: Take) -> None:
    take(ct_slice(number=1))
    finish_all(database)
    [second] = take(ct_slice(number=2))
    assert [entry["decision"] for entry in selection(database, second)] == ["analysed"]


def test_a_localiser_in_the_series_is_not_among_the_analysed_images(database: Database, take: Take) -> None:
    scout = ct_slice(number=1)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    [revision] = take(scout, ct_slice(number=2), ct_slice(number=3))
    chosen = {entry["decision"]: entry["sop_instance_uids"] for entry in selection(database, revision)}
    assert chosen == {"analysed": ["1.2.3.1.2", "1.2.3.1.3"], "not eligible": ["1.2.3.1.1"]}


def test_no_report_is_queued_while_analyses_are_open(database: Database, take: Take) -> None:
    take(ct_slice(series="1.2.3.1"), ct_slice(series="1.2.3.2"))
    assert [job.pipeline for job in jobs(database)] == ["low_dose_ct", "low_dose_ct"]


def finish_all(database: Database) -> None:
    with database.write() as session:
        while job := work.claim(session, worker="test", now=now(), lease_until=now()):
            work.finish(session, job.id, job.attempt, JobState.DONE, outcome="processed", ended_at=now())
