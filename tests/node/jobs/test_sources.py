"""Received files that are gone: for good, which is told at once, or out of reach, which is waited for."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from sqlalchemy import select

from node.archive import Archive
from node.audit.events import FAILED, Action
from node.db.session import Database
from node.db.tables import AuditEventRow, InstanceRow, JobRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.errors import SourceLost
from node.jobs.analyse import Analyst, read_one_volume
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.receive import ReceivingDesk
from node.jobs.run import Worker
from node.jobs.sources import demand_all, lost
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Models
from node.settings import Settings

from .conftest import ct_slice
from .house import worker_of
from .test_report import slice_of_air_and_tissue, words


@dataclass
class Study:
    """One that was received and planned, and a worker that does its next job when it is told to."""

    database: Database
    archive: Archive
    worker: Worker
    revision_id: int

    def rows(self) -> list[InstanceRow]:
        with self.database.read() as session:
            return list(session.scalars(select(InstanceRow).order_by(InstanceRow.id)))

    def path(self, number: int) -> Path:
        return self.archive.path(self.rows()[number].path)

    def jobs(self) -> list[tuple[str, str, str]]:
        with self.database.read() as session:
            rows = session.scalars(select(JobRow).order_by(JobRow.id))
            return [(row.pipeline, row.state, row.reason) for row in rows]

    def state(self) -> str:
        with self.database.read() as session:
            return session.get_one(RevisionRow, self.revision_id).state

    def report(self) -> Any:
        with self.database.read() as session:
            row = session.scalars(select(ResultRow).where(ResultRow.kind == "sr", ResultRow.fallback == 0)).one()
        return pydicom.dcmread(self.archive.path(row.path))


@pytest.fixture
def study(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> Study:
    for number in (1, 2, 3, 4):
        desk.take(arrive(slice_of_air_and_tissue(number=number)))
    [revision_id] = complete_due(database, actor="test")
    plan(database, revision_id, actor="test")
    analyst = Analyst(settings, database, archive, Models, {"low_dose_ct": (read_one_volume, low_dose_ct)})
    worker = worker_of(settings, database, archive, analyst)
    return Study(database, archive, worker, revision_id)


def test_an_analysis_whose_file_is_gone_fails_at_once_and_its_report_says_why(study: Study) -> None:
    study.path(1).unlink()
    assert study.worker.run_next()
    pipeline, state, reason = study.jobs()[0]
    assert (pipeline, state) == ("low_dose_ct", "failed")
    assert "1 of 4 received files are gone from the archive" in reason
    assert study.rows()[1].sop_instance_uid in reason
    assert study.worker.run_next()
    assert study.state() == "reported"
    said = words(study.report())
    assert "AI processing failed. 1 of 4 received files are gone" in said


def test_a_file_that_goes_between_analysis_and_report_costs_the_findings_and_not_the_report(study: Study) -> None:
    study.worker.run_next()
    study.path(2).unlink()
    study.worker.run_next()
    assert study.state() == "reported"
    said = words(study.report())
    assert "It was analysed, but this report leaves out its measurements and findings" in said
    assert study.report().CompletionFlag == "PARTIAL"


def test_a_report_without_any_source_is_a_dead_letter_with_a_reason_and_an_event(study: Study) -> None:
    study.worker.run_next()
    shutil.rmtree(study.path(0).parent)
    other = study.archive.path("received/9.9/9.9.9/another.dcm")
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another study")
    study_of_its_own(study, other)
    assert study.worker.run_next()
    pipeline, state, reason = study.jobs()[-1]
    assert (pipeline, state) == ("report", "failed")
    assert "No report can be written of this revision: 4 of 4 received files are gone" in reason
    assert not study.worker.run_next(), "it is not tried again"
    with study.database.read() as session:
        event = session.scalars(select(AuditEventRow).order_by(AuditEventRow.number.desc())).first()
        assert event is not None
        assert (event.action, event.outcome, event.detail["reason"]) == (Action.JOB_FAILED, FAILED, reason)
    assert study.state() == "planned"


def study_of_its_own(study: Study, path: Path) -> None:
    """A row, older than all others, of a file that is there."""
    with study.database.write() as session:
        first = session.scalars(select(InstanceRow).order_by(InstanceRow.id)).first()
        assert first is not None
        values = {column.name: getattr(first, column.name) for column in InstanceRow.__table__.columns}
        values |= {"id": first.id - 1, "sop_instance_uid": "9.9.9.1", "revision_id": None}
        session.add(InstanceRow(**{**values, "path": str(path.relative_to(study.archive.root))}))


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "what came meanwhile"])
def test_an_archive_out_of_reach_is_waited_for(
    left: str, study: Study, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    received = study.archive.path("received")
    received.rename(study.archive.root / "elsewhere")
    if left != "nothing":
        received.mkdir()
    if left == "what came meanwhile":
        desk.take(arrive(ct_slice("1.2.3.5", study="1.2.9")))
    assert study.worker.run_next()
    [(_, state, reason)] = study.jobs()
    assert state == "queued"
    assert "No such file or directory" in reason
    with study.database.read() as session:
        assert session.scalars(select(JobRow.attempt)).one() == 0, "nothing was tried"
    shutil.rmtree(received, ignore_errors=True)
    (study.archive.root / "elsewhere").rename(received)
    assert lost(study.database, study.archive, study.rows()[:4]) == []


def test_what_is_lost_is_told_by_image(study: Study) -> None:
    demand_all(study.database, study.archive, study.rows())
    study.path(3).unlink()
    with pytest.raises(SourceLost, match=study.rows()[3].sop_instance_uid):
        demand_all(study.database, study.archive, study.rows())
    assert [row.id for row in lost(study.database, study.archive, study.rows())] == [study.rows()[3].id]
