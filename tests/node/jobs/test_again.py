"""What failed is done again because somebody asks: from the failure to the report that replaces the first."""

import datetime as dt
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from node.archive import Archive
from node.db import views, work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import AuditEventRow, DeliveryRow, JobRow, ResultRow, RevisionRow
from node.db.views import Failures
from node.dicom.receive import Arrival
from node.jobs.again import Again, Queued, retry
from node.jobs.analyse import Analyst, read_one_volume
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.report import Reporter
from node.jobs.run import Attempt, Outcome, Worker
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Models
from node.settings import Settings

from .conftest import ct_slice

STUDY, HEAD, CHEST = "1.2.3", "1.2.3.1", "1.2.3.2"
PERSON = "ada@ward"
Do = Callable[[Attempt], Outcome]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"retry_first_s": 0.001})


def image(series: str) -> Dataset:
    ds = ct_slice(series)
    ds.Rows = ds.Columns = 64
    stored = np.full((64, 64), 24)
    stored[16:48, 16:48] = 1064 + np.random.default_rng(7).normal(0, 10, (32, 32))
    ds.PixelData = stored.astype(np.uint16).tobytes()
    return ds


class House:
    """The node's work without its processes. What is in `broken` fails: pipelines, series, or "report"."""

    def __init__(self, settings: Settings, database: Database, archive: Archive) -> None:
        self.settings, self.database, self.archive = settings, database, archive
        self.broken: set[str] = set()
        pipelines = {"low_dose_ct": (read_one_volume, low_dose_ct)}
        analyst = Analyst(settings, database, archive, models=Models, pipelines=pipelines)
        reporter = Reporter(settings, database, archive, "test")
        self._worker = Worker(
            settings,
            database,
            actor="test",
            analyse=self._may_break(analyst.analyse),
            report=self._may_break(reporter.report),
            after_report=reporter.hand_over,
        )

    def _may_break(self, do: Do) -> Do:
        def carefully(attempt: Attempt) -> Outcome:
            if {attempt.job.pipeline, attempt.job.series_instance_uid} & self.broken:
                raise ZeroDivisionError
            return do(attempt)

        return carefully

    def close_and_plan(self) -> None:
        complete_due(self.database, actor="test")
        for row in self.revisions():
            plan(self.database, row.id, actor="test")

    def work_until(self, met: Callable[[], bool]) -> None:
        for _ in range(400):
            if met():
                return
            self._worker.run_next()
        pytest.fail(f"never: {self.states()}")

    def revisions(self) -> list[RevisionRow]:
        with self.database.read() as session:
            return list(session.scalars(select(RevisionRow).order_by(RevisionRow.number)))

    def states(self) -> list[str]:
        return [row.state for row in self.revisions()]

    def jobs(self, revision: int) -> list[JobRow]:
        with self.database.read() as session:
            query = select(JobRow).join(RevisionRow).where(RevisionRow.number == revision).order_by(JobRow.id)
            return list(session.scalars(query))

    def report_waits(self) -> bool:
        return any(job.pipeline == work.REPORT and job.attempt and job.reason for job in self.jobs(1))

    def results(self, revision: int) -> dict[str, str]:
        """SOP Instance UID → sha256."""
        with self.database.read() as session:
            query = select(ResultRow).join(RevisionRow).where(RevisionRow.number == revision)
            return {row.sop_instance_uid: row.sha256 for row in session.scalars(query)}

    def report(self, revision: int) -> str:
        with self.database.read() as session:
            query = select(ResultRow).join(RevisionRow).where(RevisionRow.number == revision, ResultRow.kind == "sr")
            row = session.scalars(query.order_by(ResultRow.fallback)).first()
        assert row is not None
        return words(pydicom.dcmread(io.BytesIO(self.archive.path(row.path).read_bytes())))

    def retry(self, settings: Settings | None = None) -> Again:
        return retry(self.database, settings or self.settings, STUDY, actor=PERSON)

    def failures(self) -> Failures:
        with self.database.read() as session:
            return views.failures(session)

    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """What the trail says that the person did."""
        with self.database.read() as session:
            query = select(AuditEventRow).where(AuditEventRow.actor == PERSON).order_by(AuditEventRow.number)
            return [(row.action, row.detail) for row in session.scalars(query)]


def words(report: Any) -> str:
    found = []
    for item in report.get("ContentSequence", []):
        found += [str(item.get("TextValue", "")), words(item)]
    return " ".join(found)


@pytest.fixture
def house(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> House:
    """A study of two series has come in and is planned."""
    for series in (HEAD, CHEST):
        desk.take(arrive(image(series)))
    house = House(settings, database, archive)
    house.close_and_plan()
    return house


def test_a_failed_analysis_is_done_again_and_a_report_that_replaces_the_first_goes_out(house: House) -> None:
    house.broken = {CHEST}
    house.work_until(lambda: house.states() == ["reported"])
    assert "AI processing failed" in house.report(1)
    first = house.results(1)

    house.broken = set()
    again = house.retry()
    assert again.queued == [Queued("low_dose_ct", CHEST, 2), Queued(work.REPORT, "", 2)]
    assert "its report will replace that of revision 1" in again.reason
    house.close_and_plan()
    house.work_until(lambda: house.states() == ["reported", "reported"])

    assert [(job.pipeline, job.series_instance_uid, job.state) for job in house.jobs(2)] == [
        ("low_dose_ct", CHEST, "done"),
        (work.REPORT, "", "done"),
    ], "what did not fail is not done again"
    assert "AI processing failed" not in house.report(2)
    assert "replaces revision 1" in house.report(2)
    assert house.results(1) == first
    assert not first.keys() & house.results(2).keys(), "a UID that may be out stands for one content for ever"
    with house.database.read() as session:
        sent = {uid for (uid,) in session.execute(select(DeliveryRow.sop_instance_uid))}
    assert sent & house.results(2).keys()


def test_the_trail_names_who_asked_and_for_what(house: House) -> None:
    house.broken = {CHEST}
    house.work_until(lambda: house.states() == ["reported"])
    house.retry()
    (opened, opening), (requeued, asked) = house.asked()
    assert (opened, opening["revision"], opening["images"]) == ("revision.completed", 2, 0)
    assert (requeued, asked["series_instance_uid"], asked["again_in_revision"]) == ("job.requeued", CHEST, 2)
    assert PERSON in house.revisions()[1].completed_because


def test_the_new_revision_is_as_urgent_and_as_old_and_takes_no_image(
    house: House, database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    house.broken = {CHEST}
    house.work_until(lambda: house.states() == ["reported"])
    with database.write() as session:
        session.get_one(RevisionRow, house.revisions()[0].id).urgent = True
    house.retry()
    desk.take(arrive(ct_slice(HEAD, 2)))
    first, again, late = house.revisions()
    assert (again.urgent, again.source_aet, again.images) == (True, "PACS", 0)
    assert again.last_image_at == first.last_image_at
    assert (late.state, late.images) == ("receiving", 1)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FAILED])
def test_a_report_that_failed_or_waits_is_written_where_it_was_and_whole(
    house: House, database: Database, state: JobState
) -> None:
    house.broken = {work.REPORT}
    house.work_until(house.report_waits)
    with database.write() as session:
        report = session.get_one(JobRow, house.jobs(1)[-1].id)
        report.state, report.attempt, report.not_before = state, 7, now() + dt.timedelta(hours=1)

    house.broken = set()
    assert house.retry().queued == [Queued(work.REPORT, "", 1)]
    house.work_until(lambda: house.states() == ["reported"])
    assert "leaves out its measurements and findings" not in house.report(1)
    ((action, asked),) = house.asked()
    assert (action, asked["pipeline"], asked["revision"]) == ("job.requeued", work.REPORT, 1)


def test_where_both_failed_the_first_report_goes_out_and_the_next_replaces_it(house: House, database: Database) -> None:
    house.broken = {CHEST, work.REPORT}
    house.work_until(house.report_waits)
    with database.write() as session:
        session.get_one(JobRow, house.jobs(1)[-1].id).state = JobState.FAILED
    house.broken = set()
    again = house.retry()
    assert [(one.pipeline, one.revision) for one in again.queued] == [("report", 1), ("low_dose_ct", 2), ("report", 2)]
    house.close_and_plan()
    house.work_until(lambda: house.states() == ["reported", "reported"])
    assert "AI processing failed" in house.report(1)
    assert "AI processing failed" not in house.report(2)


def test_a_report_that_left_out_the_findings_is_written_again_in_a_new_revision(house: House) -> None:
    impatient = house.settings.model_copy(update={"max_attempts": 1})
    bare = House(impatient, house.database, house.archive)
    bare.broken = {work.REPORT}
    bare.work_until(bare.report_waits)
    bare.broken = set()
    bare.work_until(lambda: bare.states() == ["reported"])
    assert "leaves out its measurements and findings" in house.report(1)
    assert house.retry(impatient).queued == [Queued(work.REPORT, "", 2)]
    house.close_and_plan()
    house.work_until(lambda: house.states() == ["reported", "reported"])
    assert "leaves out its measurements and findings" not in house.report(2)


def test_where_nothing_can_be_done_again_the_reason_is_said(house: House, database: Database) -> None:
    assert retry(database, house.settings, "9.9", actor=PERSON).reason == "no study 9.9 was received here"
    assert "is being worked on" in house.retry().reason
    house.broken = {CHEST}
    house.work_until(lambda: house.jobs(1)[-1].pipeline == work.REPORT)
    assert "is being worked on" in house.retry().reason, "its report is about to be written"
    house.work_until(lambda: house.states() == ["reported"])
    assert house.retry().queued
    assert "revision 2 is not planned yet" in house.retry().reason
    house.broken = set()
    house.close_and_plan()
    house.work_until(lambda: house.states() == ["reported", "reported"])
    left = [f"low_dose_ct of series {CHEST} of revision 1: revision 2 analyses the series anew"]
    assert house.retry() == Again(STUDY, "no analysis of revision 2 has failed", left=left)
    assert len(house.revisions()) == 2


def test_dead_letters_are_left_to_resend(house: House, database: Database) -> None:
    house.work_until(lambda: house.states() == ["reported"])
    with database.write() as session:
        session.scalars(select(DeliveryRow)).first().state = "dead"
    assert "pacsnode resend 1.2.3" in house.retry().reason


@pytest.fixture
def unsent(house: House, database: Database) -> House:
    """Revision 1 is analysed, and its report has failed for good."""
    house.broken = {work.REPORT}
    house.work_until(house.report_waits)
    with database.write() as session:
        session.get_one(JobRow, house.jobs(1)[-1].id).state = JobState.FAILED
    house.broken = set()
    return house


def late_images(house: House, desk: ReceivingDesk, arrive: Callable[..., Arrival], *series: str) -> None:
    for uid in series:
        late = image(uid)
        late.SOPInstanceUID, late.InstanceNumber = f"{uid}.2", 2
        late.ImagePositionPatient = [0, 0, 2]
        desk.take(arrive(late))
    house.close_and_plan()
    house.work_until(lambda: house.states()[1] == "reported")


def test_an_older_report_is_written_where_its_results_still_stand(
    unsent: House, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    late_images(unsent, desk, arrive, HEAD)
    assert unsent.states() == ["planned", "reported"], "what was made of the chest is not on its way"
    assert unsent.failures().reports == [STUDY]
    again = unsent.retry()
    assert again.queued == [Queued(work.REPORT, "", 1)]
    assert again.reason == "no analysis of revision 2 has failed; revision 1 will be reported"
    assert again.left == []
    unsent.work_until(lambda: unsent.states() == ["reported", "reported"])
    with unsent.database.read() as session:
        sent = set(session.scalars(select(DeliveryRow.sop_instance_uid)))
    assert sent & unsent.results(1).keys()


def test_what_the_newest_revision_replaces_is_left_and_named(
    unsent: House, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    with unsent.database.write() as session:
        session.get_one(JobRow, unsent.jobs(1)[0].id).state = JobState.FAILED
    assert unsent.failures() == Failures([STUDY], [STUDY], {})
    late_images(unsent, desk, arrive, HEAD, CHEST)
    assert unsent.failures() == Failures([], [], {})
    again = unsent.retry()
    assert again.queued == []
    assert again.left == [
        f"low_dose_ct of series {HEAD} of revision 1: revision 2 analyses the series anew",
        "the report of revision 1: that of revision 2 replaces it",
    ]
    assert unsent.states() == ["planned", "reported"]


def test_a_failed_report_is_written_while_late_images_are_still_coming(
    unsent: House, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice(HEAD, 2)))
    again = unsent.retry()
    assert again.queued == [Queued(work.REPORT, "", 1)]
    assert "revision 2 is not planned yet" in again.reason


def test_dead_letters_of_older_revisions_are_named(
    house: House, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    house.work_until(lambda: house.states() == ["reported"])
    late_images(house, desk, arrive, HEAD)
    with house.database.write() as session:
        first = house.revisions()[0].id
        for row in session.scalars(select(DeliveryRow).where(DeliveryRow.revision_id == first)):
            row.state = "dead"
        dead = session.scalars(select(DeliveryRow).where(DeliveryRow.state == "dead")).all()
        jobs = {job.id: job.series_instance_uid for job in house.jobs(1)}
        stand = sum(jobs[session.get_one(ResultRow, row.sop_instance_uid).job_id] == CHEST for row in dead)
    assert 0 < stand < len(dead)
    assert [*house.failures().dead_letters.values()] == [{STUDY: stand}]
    assert house.retry().left == [
        f"dead letters of revision 1 that still stand: {stand}; pacsnode resend {STUDY}",
        f"other dead letters of revision 1: {len(dead) - stand}; revision 2 replaces them",
    ]
