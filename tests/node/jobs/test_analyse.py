"""An analysis job: what its result objects lack reaches the finding that the report is written from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select

from gate import made
from models.contract import Findings
from node.archive import Archive
from node.db.session import Database
from node.db.tables import FindingRow, ResultRow
from node.dicom.receive import Arrival
from node.jobs.analyse import Analyst, read_one_volume
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.run import Outcome, Worker
from node.pipelines.models import Models
from node.settings import Settings


def test_a_segmentation_that_cannot_be_written_is_missing_alone_and_noted(
    settings: Settings,
    database: Database,
    archive: Archive,
    desk: ReceivingDesk,
    arrive: Callable[..., Arrival],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_given: Any) -> None:
        raise TypeError("this header")

    def found(volume: Any, _models: Models, _progress: Any) -> Findings:
        return made.findings(volume, lesions=1)

    monkeypatch.setattr("highdicom.seg.Segmentation", refuse)
    for path in made.ct_series(tmp_path / "in", slices=3):
        desk.take(arrive(dcmread(path)))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    analyst = Analyst(settings, database, archive, Models, {"low_dose_ct": (read_one_volume, found)})
    worker = Worker(
        settings,
        database,
        actor="test",
        analyse=analyst.analyse,
        report=lambda _attempt: Outcome("processed", ""),
        after_report=lambda _session, _attempt: None,
    )
    assert worker.run_next()
    with database.read() as session:
        kinds = [row.kind for row in session.scalars(select(ResultRow))]
        [finding] = session.scalars(select(FindingRow)).all()
    assert sorted(kinds) == ["derived", "derived", "derived", "gsps", "sc", "sc"]
    assert any("no segmentation" in note for note in finding.body["findings"]["notes"])
