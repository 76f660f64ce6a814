"""Deliveries to a peer that has other values of patient and order by now than the results were made with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from sqlalchemy import select

from node.archive import Archive
from node.audit.events import FAILED_FOR_NOW
from node.cli import timeline as shown
from node.db import deliveries, receiving, timeline, work
from node.db.lifecycle import DeliveryState, RevisionState
from node.db.session import Database
from node.db.tables import AuditEventRow, DeliveryRow, JobRow, ResultRow, RevisionRow
from node.jobs.deliver import Deliverer, new_delivery
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.site import apply_site
from node.settings import Peer, Settings, Site
from system.dcmtk import Address
from system.standin import Manners, StandIn

from .conftest import PACS, ct_slice

STUDY = "1.2.3"
NEW = {"PatientID": "P-NEW", "PatientName": "山田^太郎", "AccessionNumber": "A-NEW"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(home=tmp_path / "home", retry_first_s=0.01, retry_most_s=0.01, dimse_timeout_s=10)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandIn]:
    manners = Manners(offers_commitment=False, studies=[study(**NEW)])
    with StandIn(tmp_path / "pacs", reports_to=Address("NODE", 1), manners=manners) as stand_in:
        yield stand_in


class Round:
    """A revision with two results on their way to the stand-in, which is asked or not."""

    def __init__(self, settings: Settings, database: Database, archive: Archive, pacs: StandIn) -> None:
        self.settings, self.database, self.archive, self.pacs = settings, database, archive, pacs

    def set_out(self, *, reconcile: bool = True) -> None:
        peer = Peer(aet=self.pacs.aet, host="127.0.0.1", port=self.pacs.port, commitment="never", reconcile=reconcile)
        apply_site(self.database, Site.model_validate({"peer": [PACS, peer]}), actor="test")
        with self.database.write() as session:
            revision = session.scalars(select(RevisionRow)).one()
            job = JobRow(revision_id=revision.id, pipeline=work.REPORT, queued_at=now())
            work.add_job(session, job)
            at = dt.datetime(2026, 3, 1, 8, 30, tzinfo=dt.UTC)
            receiving.move_revision(session, revision.id, RevisionState.COMPLETE, completed_at=at)
            for state in (RevisionState.PLANNED, RevisionState.REPORTED):
                receiving.move_revision(session, revision.id, state)
            for number in (1, 2):
                row = self._result(revision, job, number)
                work.add_results(session, [row])
                deliveries.add(session, new_delivery(row, peer.aet, urgent=False))
            self.revision_id = revision.id

    def _result(self, revision: RevisionRow, job: JobRow, number: int) -> ResultRow:
        ds = ct_slice(series="2.25.1", number=number)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = self.archive.spool / "result"
        ds.save_as(path, enforce_file_format=True)
        data = path.read_bytes()
        path.unlink()
        relative, sha256 = self.archive.write(data, study=STUDY, revision=1, instance=ds.SOPInstanceUID)
        return ResultRow(
            sop_instance_uid=ds.SOPInstanceUID, series_instance_uid="2.25.1", sop_class_uid=ds.SOPClassUID,
            transfer_syntax_uid=ExplicitVRLittleEndian, revision_id=revision.id, job_id=job.id, kind="derived",
            label="", alternatives=str(number), fallback=0, path=relative, size=len(data), sha256=sha256,
            made_at=now(),
        )  # fmt: skip

    def deliver(self) -> None:
        with self.database.write() as session:
            deliveries.hasten(session, self.pacs.aet, at=now())
        Deliverer(self.settings, self.database, self.archive, "test").deliver(self.revision_id, self.pacs.aet)

    def states(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(DeliveryRow.state).order_by(DeliveryRow.id)))

    def events(self) -> list[AuditEventRow]:
        with self.database.read() as session:
            rows = session.scalars(select(AuditEventRow).order_by(AuditEventRow.number))
            return [row for row in rows if "reconciled" in row.action]

    def told(self) -> str:
        with self.database.read() as session:
            line = timeline.timeline(session, STUDY)
        assert line is not None
        console = Console(width=300, record=True, file=StringIO())
        shown.show(line, console)
        return console.export_text()

    def is_as_made(self, dataset: Dataset) -> bool:
        with self.database.read() as session:
            made = deliveries.result(session, dataset.SOPInstanceUID)
        assert self.archive.verify(made.path, made.sha256) is None
        own = dcmread(self.archive.path(made.path))
        return dataset.to_json_dict() == own.to_json_dict()


@pytest.fixture
def round_(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable, pacs: StandIn
) -> Round:
    desk.take(arrive(ct_slice(study=STUDY)))
    return Round(settings, database, archive, pacs)


def study(**values: str) -> Dataset:
    match = Dataset()
    match.SpecificCharacterSet, match.QueryRetrieveLevel, match.StudyInstanceUID = "ISO_IR 192", "STUDY", STUDY
    for keyword, value in values.items():
        setattr(match, keyword, value)
    return match


def test_results_go_to_the_patient_and_order_that_the_pacs_has(round_: Round) -> None:
    round_.set_out()
    round_.deliver()
    assert round_.states() == [DeliveryState.COMMITTED] * 2
    for ds in round_.pacs.datasets():
        assert {keyword: str(ds[keyword].value) for keyword in NEW} == NEW
        (item,) = ds.OriginalAttributesSequence
        assert (item.ModifyingSystem, item.SourceOfPreviousValues) == ("PACSNODE", "PACS")
        (former,) = item.ModifiedAttributesSequence
        assert (former.PatientID, former.PatientName) == ("P-1", "PHANTOM^TEST")
        assert not round_.is_as_made(ds)
    (event,) = round_.events()
    assert (event.action, event.detail["objects"], event.detail["attributes"]) == (
        "delivery.reconciled", 2, sorted(NEW),
    )  # fmt: skip
    assert not any(value in str(event.detail) for value in (*NEW.values(), "P-1", "PHANTOM"))
    assert "2 objects to STANDIN, with its own values of AccessionNumber, PatientID, PatientName" in round_.told()


def test_a_peer_is_asked_only_where_the_site_file_says_so(round_: Round) -> None:
    round_.set_out(reconcile=False)
    round_.deliver()
    assert [round_.is_as_made(ds) for ds in round_.pacs.datasets()] == [True, True]
    assert not round_.events()


def test_where_nothing_differs_files_go_as_they_lie_there_and_nothing_is_said(round_: Round) -> None:
    round_.pacs.manners.studies = [study(PatientID="P-1", PatientName="PHANTOM^TEST^")]
    round_.set_out()
    round_.deliver()
    assert [round_.is_as_made(ds) for ds in round_.pacs.datasets()] == [True, True]
    assert not round_.events()


def test_a_study_that_is_gone_or_not_told_of_changes_nothing_and_is_said_once(round_: Round) -> None:
    round_.pacs.manners.studies = []
    round_.set_out()
    round_.deliver()
    round_.deliver()
    assert round_.states() == [DeliveryState.COMMITTED] * 2
    assert [round_.is_as_made(ds) for ds in round_.pacs.datasets()] == [True, True]
    (event,) = round_.events()
    assert (event.action, event.outcome) == ("delivery.unreconciled", FAILED_FOR_NOW)
    assert "2 objects to STANDIN, as they are: STANDIN does not know the study" in round_.told()


def test_a_pacs_that_does_not_answer_the_query_gets_its_results_all_the_same(round_: Round) -> None:
    round_.pacs.manners.find_status = 0xA700
    round_.set_out()
    round_.deliver()
    assert [round_.is_as_made(ds) for ds in round_.pacs.datasets()] == [True, True]
    (event,) = round_.events()
    assert "A700" in event.detail["reason"]


def test_a_pacs_that_is_slow_to_answer_is_not_waited_for_beyond_the_lease(round_: Round) -> None:
    round_.settings = round_.settings.model_copy(update={"lease_s": 2.0})
    round_.pacs.manners.find_delay_s = 1.5
    round_.set_out()
    round_.deliver()
    assert round_.states() == [DeliveryState.COMMITTED] * 2
    assert [round_.is_as_made(ds) for ds in round_.pacs.datasets()] == [True, True]
    (event,) = round_.events()
    assert event.detail["reason"]


def test_what_is_stored_is_not_sent_again_and_the_rest_is_made_alike(round_: Round) -> None:
    first, second = "2.25.1.1", "2.25.1.2"
    round_.set_out()
    round_.pacs.manners.store_status = 0xA700
    round_.deliver()
    assert not round_.events(), "nothing was sent"
    round_.pacs.manners.store_status, round_.pacs.manners.aborts_on = 0, second
    round_.deliver()
    kept = round_.pacs.stored[first].read_bytes()
    round_.pacs.manners.aborts_on = ""
    round_.deliver()
    assert round_.states() == [DeliveryState.COMMITTED] * 2
    assert round_.pacs.offered[first] == 2
    assert round_.pacs.stored[first].read_bytes() == kept
    assert dcmread(round_.pacs.stored[second]).PatientID == "P-NEW"
    assert [event.detail["objects"] for event in round_.events()] == [1, 1]
