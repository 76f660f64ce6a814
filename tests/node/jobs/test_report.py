"""From received images to the report and its deliveries, with the real reader and writer and no network."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from node.archive import Archive
from node.db import work
from node.db.session import Database
from node.db.tables import DeliveryRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.errors import Conflict
from node.jobs.analyse import Analyst, read_one_radiograph, read_one_volume
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.report import Reporter
from node.jobs.run import Attempt, Worker
from node.pipelines.chest_xray import chest_xray
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Models
from node.settings import Settings

from .conftest import ct_slice

Run = Callable[..., int]


def slice_of_air_and_tissue(series: str = "1.2.3.1", number: int = 1) -> Dataset:
    """Enough like a CT image to be read: air around a square of tissue with noise."""
    ds = ct_slice(series, number)
    rng = np.random.default_rng(number)
    stored = np.full((64, 64), 24)
    stored[16:48, 16:48] = 1024 + 40 + rng.normal(0, 10, (32, 32))
    ds.Rows = ds.Columns = 64
    ds.PixelData = stored.astype(np.uint16).tobytes()
    return ds


@pytest.fixture
def run(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> Run:
    """Take objects, plan, and work until nothing is left; the revision's id."""

    def do(*objects: Dataset, models: Callable[[], Models] = Models, max_attempts: int = 3) -> int:
        for ds in objects:
            desk.take(arrive(ds))
        [revision_id] = complete_due(database, actor="test")
        plan(database, revision_id, actor="test")
        quick = settings.model_copy(update={"retry_first_s": 0.001, "max_attempts": max_attempts})
        analyst = Analyst(
            quick,
            database,
            archive,
            models=models,
            pipelines={
                "low_dose_ct": (read_one_volume, low_dose_ct),
                "chest_xray": (read_one_radiograph, chest_xray),
            },
        )
        reporter = Reporter(quick, database, archive, "test")
        worker = Worker(
            quick,
            database,
            actor="test",
            analyse=analyst.analyse,
            report=reporter.report,
            after_report=reporter.hand_over,
        )
        with_deadline = 400
        while with_deadline and state(database, revision_id) == "planned":
            worker.run_next()
            with_deadline -= 1
        return revision_id

    return do


def state(database: Database, revision_id: int) -> str:
    with database.read() as session:
        return session.get_one(RevisionRow, revision_id).state


def results(database: Database, archive: Archive) -> list[Any]:
    with database.read() as session:
        rows = session.scalars(select(ResultRow).order_by(ResultRow.kind, ResultRow.fallback)).all()
    return [pydicom.dcmread(io.BytesIO(archive.path(row.path).read_bytes())) for row in rows]


def words(report: Any) -> str:
    """All text of an SR."""
    found = []
    for item in report.get("ContentSequence", []):
        found.append(str(item.get("TextValue", "")))
        found.append(words(item))
    return " ".join(found)


def report_of(database: Database, archive: Archive) -> str:
    return words([ds for ds in results(database, archive) if ds.Modality == "SR"][-1])


def test_an_eligible_study_is_reported_and_on_its_way(database: Database, archive: Archive, run: Run) -> None:
    revision = run(*(slice_of_air_and_tissue(number=number) for number in (1, 2, 3)))
    assert state(database, revision) == "reported"
    assert "Denoising not done" in report_of(database, archive)
    with database.read() as session:
        deliveries = session.scalars(select(DeliveryRow)).all()
        kinds = [session.get_one(ResultRow, row.sop_instance_uid).kind for row in deliveries]
    assert sorted(kinds) == ["sc", "sr"], "of a group of alternatives only the preferred one goes out"


def test_a_study_that_is_not_eligible_is_told_why(database: Database, archive: Archive, run: Run) -> None:
    scout = slice_of_air_and_tissue()
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    run(scout)
    assert "Not processed." in report_of(database, archive)


def other_object(sop_class_uid: str, modality: str, *, pixels: bool = False) -> Dataset:
    ds = slice_of_air_and_tissue()
    ds.SOPClassUID, ds.Modality = sop_class_uid, modality
    if not pixels:
        for keyword in ("PixelData", "Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "ImageType"):
            delattr(ds, keyword)
    return ds


@pytest.mark.parametrize(
    ("ds", "said"),
    [
        (other_object("1.2.840.10008.5.1.4.1.1.4", "MR", pixels=True), "MR"),
        (other_object("1.2.840.10008.5.1.4.1.1.88.33", "SR"), "report"),
        (other_object("1.2.840.10008.5.1.4.1.1.88.67", "SR"), "ose report"),
    ],
    ids=["MR", "SR only", "dose report"],
)
def test_of_a_study_that_is_none_of_ours_there_is_one_report_with_the_reason_and_nothing_odd(
    database: Database, archive: Archive, run: Run, ds: Dataset, said: str
) -> None:
    revision = run(ds)
    assert state(database, revision) == "reported"
    made = results(database, archive)
    assert sorted(one.Modality for one in made) == ["OT", "SR", "SR", "SR"], "forms of one report"
    assert {int(one.SeriesNumber) for one in made} == {9000}
    text = report_of(database, archive)
    assert text.count("Not processed.") == 1
    assert said in text
    with database.read() as session:
        assert len(session.scalars(select(DeliveryRow)).all()) == 1


def test_an_image_that_came_again_with_other_pixels_is_told_as_kept_aside(
    database: Database, archive: Archive, run: Run, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    run(slice_of_air_and_tissue(number=1))
    assert "kept aside" not in report_of(database, archive)
    other = slice_of_air_and_tissue(number=1)
    other.PixelData = bytes(len(other.PixelData))
    with pytest.raises(Conflict):
        desk.take(arrive(other))
    run(slice_of_air_and_tissue(number=2))
    said = " ".join(words(ds) for ds in results(database, archive) if ds.Modality == "SR")
    assert "under the same SOP Instance UID: 1, of series 2. They were kept aside and not looked at." in said


def test_what_only_the_reader_can_see_is_told_too(database: Database, archive: Archive, run: Run) -> None:
    turned = slice_of_air_and_tissue(number=2)
    turned.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    run(slice_of_air_and_tissue(number=1), turned)
    assert "Not processed." in report_of(database, archive)
    assert "two or more angles" in report_of(database, archive)


def test_a_failed_analysis_is_told(database: Database, archive: Archive, run: Run) -> None:
    def broken() -> Models:
        raise MemoryError

    run(slice_of_air_and_tissue(), models=broken)
    assert "AI processing failed" in report_of(database, archive)
    assert "MemoryError" in report_of(database, archive)


def test_late_images_make_a_report_that_names_the_one_it_replaces(
    database: Database, archive: Archive, run: Run
) -> None:
    run(slice_of_air_and_tissue(number=1))
    run(slice_of_air_and_tissue(number=2))
    reports = [ds for ds in results(database, archive) if ds.Modality == "SR"]
    second = [ds for ds in reports if "replaces revision 1" in words(ds)]
    assert second
    first = {ds.SOPInstanceUID for ds in reports} - {ds.SOPInstanceUID for ds in second}
    named = second[0].PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID in first


def test_the_last_attempt_at_a_report_leaves_out_what_may_break_it(
    database: Database, archive: Archive, run: Run, settings: Settings
) -> None:
    revision_id = run(slice_of_air_and_tissue())
    with database.read() as session:
        job = session.scalars(select(work.JobRow).where(work.JobRow.pipeline == work.REPORT)).one()
        revision = session.get_one(RevisionRow, revision_id)
    job.attempt = settings.max_attempts
    last = Reporter(settings, database, archive, "test").report(Attempt(job, revision, database, 60.0))
    made = [pydicom.dcmread(io.BytesIO(archive.path(row.path).read_bytes())) for row in last.results]
    (report, *_) = [ds for ds in made if ds.Modality == "SR"]
    assert "leaves out its measurements and findings" in words(report)
    assert report.CompletionFlag == "PARTIAL"
    assert "AI processing failed for series 2. Read the images as received." in words(report)
    assert "no such analysis was run" not in words(report)


def test_the_first_attempt_at_a_report_has_findings_where_analyses_have_one_attempt(
    database: Database, archive: Archive, run: Run
) -> None:
    run(slice_of_air_and_tissue(), max_attempts=1)
    assert "leaves out its measurements and findings" not in report_of(database, archive)


def test_the_same_images_make_the_same_objects_bit_for_bit(
    database: Database, archive: Archive, run: Run, settings: Settings
) -> None:
    revision_id = run(*(slice_of_air_and_tissue(number=number) for number in (1, 2)))
    with database.read() as session:
        digests = dict(session.execute(select(ResultRow.sop_instance_uid, ResultRow.sha256)).all())
        job = session.scalars(select(work.JobRow).where(work.JobRow.pipeline == work.REPORT)).one()
        revision = session.get_one(RevisionRow, revision_id)
    again = Reporter(settings, database, archive, "test").report(Attempt(job, revision, database, 60.0))
    assert {row.sop_instance_uid: row.sha256 for row in again.results}.items() <= digests.items()
