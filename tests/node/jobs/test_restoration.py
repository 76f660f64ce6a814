"""A radiograph through reception, plan, analysis and report: the restored image beside the original, which stays."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from sqlalchemy import select

from gate import made
from gate.gate import complaints
from images import chest
from models.contract import ModelError
from node.archive import Archive
from node.db import views, work
from node.db.session import Database
from node.db.tables import DeliveryRow, InstanceRow, ModelVersionRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.jobs import again
from node.jobs.analyse import Analyst, read_one_radiograph
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.report import Reporter
from node.jobs.run import Worker
from node.pipelines.chest_xray import chest_xray
from node.pipelines.models import Models
from node.settings import Settings


@pytest.fixture
def treat(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> Callable[..., list[Any]]:
    """Takes images, plans and works until nothing is left; the results of the newest revision, parsed."""

    def run(paths: list[Path], restorer: Any, **policy: int) -> list[Any]:
        told = settings.model_copy(update=policy)
        for path in paths:
            desk.take(arrive(pydicom.dcmread(path)))
        complete_due(database, actor="test")
        with database.read() as session:
            [revision_id] = session.scalars(select(RevisionRow.id).where(RevisionRow.state == "complete"))
        plan(database, revision_id, actor="test")
        pipeline = partial(chest_xray, maps=True)
        analyst = Analyst(
            told,
            database,
            archive,
            models=lambda: Models(restorer=restorer),
            pipelines={"chest_xray": (read_one_radiograph, pipeline)},
        )
        reporter = Reporter(told, database, archive, "worker")
        worker = Worker(
            told,
            database,
            actor="worker",
            analyse=analyst.analyse,
            report=reporter.report,
            after_report=reporter.hand_over,
        )
        while worker.run_next():
            pass
        with database.read() as session:
            rows = [row for row in session.scalars(select(ResultRow)) if row.revision_id == revision_id]
            return [pydicom.dcmread(io.BytesIO(archive.path(row.path).read_bytes())) for row in rows]

    return run


@pytest.fixture
def done(treat: Callable[..., list[Any]], tmp_path: Path) -> Callable[..., list[Any]]:
    """Runs one radiograph to its report; the results, parsed."""

    def run(restorer: Any, **elements: Any) -> list[Any]:
        return treat(made.chest(tmp_path / "sent", SOPInstanceUID="1.2.3.9", **elements), restorer)

    return run


def frontal(folder: Path, number: int, **elements: Any) -> Path:
    """One of several in a series."""
    given = {"SOPInstanceUID": f"1.2.3.{number}", "InstanceNumber": number, "AcquisitionTime": f"09153{number}.25"}
    [path] = made.chest(folder / str(number), **{**given, **elements})
    return path


def of_class(results: list[Any], sop_class: str) -> list[Any]:
    return [ds for ds in results if ds.SOPClassUID == sop_class]


SR = "1.2.840.10008.5.1.4.1.1.88.34"


def test_the_restored_image_and_its_maps_stand_beside_an_untouched_original(
    done: Callable[..., list[Any]], database: Database, archive: Archive, tmp_path: Path
) -> None:
    results = done(chest.restorer())
    described = [str(ds.SeriesDescription).split(" DX")[0] for ds in results]
    assert [description for description in described if "report" not in description] == [
        "AI restored",
        "AI maps",
        "AI maps",
        "AI summary",
    ]
    with database.read() as session:
        [received] = session.scalars(select(InstanceRow)).all()
        [used] = session.scalars(select(ModelVersionRow)).all()
    assert used.name == "filter"
    content = archive.path(received.path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == received.sha256
    files = []
    for number, ds in enumerate(results):
        files.append(tmp_path / f"{number}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    assert complaints(files, [archive.path(received.path)], checks=("iod", "identity", "refs", "derived")) == []
    report = next(ds for ds in results if ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34")
    said = report.to_json()
    assert "Restoration done" in said
    assert "No finding rests on the restored image" in said
    assert "Change: restored minus received, as a map" in said


def test_a_child_is_reported_as_not_restored(done: Callable[..., list[Any]]) -> None:
    results = done(chest.restorer(), PatientAge="009Y")
    assert not [ds for ds in results if "restored" in str(ds.SeriesDescription) or "maps" in str(ds.SeriesDescription)]
    report = next(ds for ds in results if ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34")
    assert "Restoration not done. It was made for adults" in report.to_json()


def test_two_frontal_images_of_a_series_are_restored_and_told_one_by_one(
    treat: Callable[..., list[Any]], tmp_path: Path, database: Database, archive: Archive
) -> None:
    sent = [frontal(tmp_path, 2), frontal(tmp_path, 1, ViewPosition="AP")]
    results = treat(sent, chest.restorer())
    restored = of_class(results, made.DX)
    sources = sorted(str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID) for ds in restored)
    assert sources == ["1.2.3.1", "1.2.3.2"]
    assert len({ds.SeriesInstanceUID for ds in restored}) == 1
    pages = [str(ds.SeriesDescription).split(" DX")[0] for ds in results if ds.Modality == "OT"]
    assert sorted(pages) == ["AI maps"] * 4 + ["AI report page"] + ["AI summary"] * 2
    maps = [ds for ds in results if str(ds.SeriesDescription).startswith("AI maps")]
    assert sorted(ds.InstanceNumber for ds in maps) == [1, 2, 3, 4]
    with database.read() as session:
        rows = session.scalars(select(ResultRow)).all()
    assert len({row.sop_instance_uid for row in rows}) == len(rows) == 12
    sent_out = [row for row in rows if not row.fallback]
    assert len({(row.job_id, row.alternatives) for row in sent_out}) == len(sent_out), "none is taken for a fallback"
    [report] = of_class(results, SR)
    said = report.to_json()
    for words in (
        ", image 1 at 09:15:31 (DX, 1 image, radiograph): processed",
        ", image 2 at 09:15:32 (DX, 1 image, radiograph): processed",
        "AI measurements of image 1 at 09:15:31 of series 7, restored",
        "AI measurements of image 2 at 09:15:32 of series 7, restored",
    ):
        assert words in said
    assert said.count("Restoration done") == 2
    files = []
    for number, ds in enumerate(results):
        files.append(tmp_path / f"{number}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    assert complaints(files, sent, checks=("iod", "identity", "refs", "derived")) == []


def test_one_image_that_is_unfit_or_unreadable_keeps_no_other_back(
    treat: Callable[..., list[Any]], tmp_path: Path
) -> None:
    empty = frontal(tmp_path, 2)
    ds = pydicom.dcmread(empty)
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(empty)
    results = treat([frontal(tmp_path, 1), empty, frontal(tmp_path, 3, ViewPosition="LL")], chest.restorer())
    [restored] = of_class(results, made.DX)
    assert restored.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    said = of_class(results, SR)[0].to_json()
    assert "image 2 at 09:15:32 (DX, 1 image, radiograph): Not processed. All pixels have the same value" in said
    assert "(DX, 1 image, radiograph): Not processed. A lateral view" in said


def breaks_on_the_second(image: Any, on_progress: Any, with_spread: bool) -> Any:
    if image.source.instance_uid == "1.2.3.2":
        raise ModelError("a network broke")
    return chest.smoothed(image, on_progress, with_spread)


def test_one_image_that_the_network_breaks_on_keeps_no_other_back_at_the_last_attempt(
    treat: Callable[..., list[Any]], tmp_path: Path
) -> None:
    sent = [frontal(tmp_path, 1), frontal(tmp_path, 2)]
    results = treat(sent, chest.restorer(breaks_on_the_second), max_attempts=1)
    [restored] = of_class(results, made.DX)
    assert restored.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    [report] = of_class(results, SR)
    said = report.to_json()
    assert ", image 1 at 09:15:31 (DX, 1 image, radiograph): processed" in said
    assert "image 2 at 09:15:32 (DX, 1 image, radiograph): AI processing failed. ModelError in step 'analyse'" in said
    assert report.CompletionFlag == "PARTIAL"


def test_the_image_that_broke_is_done_again_when_asked_and_no_other(
    treat: Callable[..., list[Any]], tmp_path: Path, database: Database, settings: Settings
) -> None:
    first = treat([frontal(tmp_path, 1), frontal(tmp_path, 2)], chest.restorer(breaks_on_the_second), max_attempts=1)
    with database.read() as session:
        assert views.failures(session).analyses == [made.STUDY]
    asked = again.retry(database, settings, made.STUDY, actor="ada@ward")
    assert [one.pipeline for one in asked.queued] == ["chest_xray", "report"]

    results = treat([], chest.restorer())
    [restored] = of_class(results, made.DX)
    assert restored.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.2", "the other stands"
    [report] = of_class(results, SR)
    said = report.to_json()
    assert "image 1 at 09:15:31 (DX, 1 image, radiograph): processed. Image unchanged since revision 1" in said
    assert "image 2 at 09:15:32 (DX, 1 image, radiograph): processed" in said
    assert "AI processing failed" not in said
    both = {ds.SOPInstanceUID for ds in [*of_class(first, made.DX), restored]}
    assert all(uid in said for uid in both), "it refers to the earlier result too"
    assert again.retry(database, settings, made.STUDY, actor="ada@ward").queued == []
    with database.read() as session:
        assert views.failures(session).analyses == []
        sent = session.scalars(select(DeliveryRow.sop_instance_uid)).all()
    assert both <= {*sent}
    assert len(sent) == len({*sent})


def test_an_image_that_breaks_once_more_leaves_what_was_told_of_the_others(
    treat: Callable[..., list[Any]], tmp_path: Path, database: Database, settings: Settings
) -> None:
    broken = chest.restorer(breaks_on_the_second)
    treat([frontal(tmp_path, 1), frontal(tmp_path, 2)], broken, max_attempts=1)
    for revision in (2, 3):
        assert again.retry(database, settings, made.STUDY, actor="ada@ward").queued
        results = treat([], broken, max_attempts=1)
        assert of_class(results, made.DX) == []
        said = of_class(results, SR)[0].to_json()
        assert "image 1 at 09:15:31 (DX, 1 image, radiograph): processed. Image unchanged since revision 1" in said
        assert "image 2 at 09:15:32 (DX, 1 image, radiograph): AI processing failed" in said, revision
    with database.read() as session:
        jobs = session.scalars(select(ResultRow.job_id).where(ResultRow.kind == "derived")).all()
        assert {*jobs} <= work.standing(session, made.STUDY), "what a report refers to is not taken for replaced"


def test_while_a_job_may_be_tried_again_nothing_is_told_of_images_that_broke(
    treat: Callable[..., list[Any]], tmp_path: Path
) -> None:
    assert treat([frontal(tmp_path, 1), frontal(tmp_path, 2)], chest.restorer(breaks_on_the_second)) == []


def test_a_series_of_which_every_image_breaks_has_failed(treat: Callable[..., list[Any]], tmp_path: Path) -> None:
    def breaks(*_given: Any) -> Any:
        raise ModelError("a network broke")

    results = treat([frontal(tmp_path, 1), frontal(tmp_path, 2)], chest.restorer(breaks), max_attempts=1)
    assert "(DX, 2 images, radiograph): AI processing failed. ModelError" in of_class(results, SR)[0].to_json()


def test_more_frontal_images_than_a_course_of_one_visit_are_refused(
    treat: Callable[..., list[Any]], tmp_path: Path
) -> None:
    results = treat([frontal(tmp_path, number) for number in range(1, 6)], chest.restorer())
    assert of_class(results, made.DX) == []
    said = of_class(results, SR)[0].to_json()
    assert "The series holds 5 frontal chest radiographs; at most 4 are processed" in said


def test_a_repeat_that_comes_late_makes_both_anew_and_an_unchanged_series_stands_image_by_image(
    treat: Callable[..., list[Any]], tmp_path: Path
) -> None:
    first = treat([frontal(tmp_path, 1)], chest.restorer())
    assert ", image 1 at" not in of_class(first, SR)[0].to_json(), "one image needs no name"
    second = treat([frontal(tmp_path, 2)], chest.restorer())
    assert len(of_class(second, made.DX)) == 2
    elsewhere = {"SeriesInstanceUID": "1.2.3.8", "SeriesNumber": 8, "ViewPosition": "LL"}
    third = treat([frontal(tmp_path, 3, **elsewhere)], chest.restorer())
    assert of_class(third, made.DX) == []
    said = of_class(third, SR)[0].to_json()
    for number in (1, 2):
        assert f"image {number} at 09:15:3{number} (DX, 1 image, radiograph): processed. Series unchanged since" in said


def test_of_one_exposure_only_the_image_for_presentation_is_restored_though_it_comes_late(
    treat: Callable[..., list[Any]], tmp_path: Path
) -> None:
    raw = {"sop_class": made.DX_PROCESSING, "SeriesInstanceUID": "1.2.3.6", "SeriesNumber": 6}
    both = [frontal(tmp_path, number, IrradiationEventUID=f"1.2.3.5.{number}", **raw) for number in (1, 2)]
    assert len(of_class(treat(both, chest.restorer()), made.DX_PROCESSING)) == 2
    results = treat([frontal(tmp_path, 3, IrradiationEventUID="1.2.3.5.1")], chest.restorer())
    [shown] = of_class(results, made.DX)
    [other] = of_class(results, made.DX_PROCESSING)
    assert shown.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.3"
    assert other.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.2", "its own presentation has not come"
    said = of_class(results, SR)[0].to_json()
    assert "the image for presentation of the same exposure is in series 7 (same irradiation event)" in said
