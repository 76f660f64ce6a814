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
from node.archive import Archive
from node.db.session import Database
from node.db.tables import InstanceRow, ModelVersionRow, ResultRow
from node.dicom.receive import Arrival
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
def done(
    settings: Settings,
    database: Database,
    archive: Archive,
    desk: ReceivingDesk,
    arrive: Callable[..., Arrival],
    tmp_path: Path,
) -> Callable[..., list[Any]]:
    """Runs one radiograph to its report; the results, parsed."""

    def run(restorer: Any, **elements: Any) -> list[Any]:
        [path] = made.chest(tmp_path / "sent", SOPInstanceUID="1.2.3.9", **elements)
        desk.take(arrive(pydicom.dcmread(path)))
        [revision_id] = complete_due(database, actor="test")
        plan(database, revision_id, actor="test")
        pipeline = partial(chest_xray, maps=True)
        analyst = Analyst(
            settings,
            database,
            archive,
            models=lambda: Models(restorer=restorer),
            pipelines={"chest_xray": (read_one_radiograph, pipeline)},
        )
        reporter = Reporter(settings, database, archive, "worker")
        worker = Worker(
            settings,
            database,
            actor="worker",
            analyse=analyst.analyse,
            report=reporter.report,
            after_report=reporter.hand_over,
        )
        while worker.run_next():
            pass
        with database.read() as session:
            rows = session.scalars(select(ResultRow)).all()
            return [pydicom.dcmread(io.BytesIO(archive.path(row.path).read_bytes())) for row in rows]

    return run


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
