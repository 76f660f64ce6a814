from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.dicom.commit import read_report, request_commitment
from node.dicom.folder import scan
from node.dicom.messages import encode_data_set
from node.dicom.query import echo, find_instances
from node.dicom.send import Outgoing, send
from node.dicom.standin import LOOPBACK, StandInPacs, sentences_of
from node.dicom.synthetic import write_ct_series
from node.settings import Peer, Settings


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    pacs = StandInPacs(tmp_path / "pacs")
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture
def peer(pacs: StandInPacs) -> Peer:
    return Peer(aet=pacs.aet, host=LOOPBACK, port=pacs.port)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(home=tmp_path / "home", aet="NODE")


@pytest.fixture
def objects(tmp_path: Path) -> list[Outgoing]:
    write_ct_series(tmp_path / "ct", np.zeros((3, 16, 16), np.float32), (3.0, 1.0, 1.0))
    return [found.outgoing for found in scan(tmp_path / "ct") if found.outgoing]


def test_keeps_what_it_is_sent(pacs: StandInPacs, peer: Peer, settings: Settings, objects: list[Outgoing]) -> None:
    assert all(sent.error is None for sent in send(settings, peer, objects))
    kept = pacs.kept()
    assert {one.sop_instance_uid for one in kept} == {one.sop_instance_uid for one in objects}
    assert {(one.modality, one.class_name, one.series_number) for one in kept} == {("CT", "CT Image", 1)}
    sent = pydicom.dcmread(objects[0].path)
    (stored,) = [one for one in kept if one.sop_instance_uid == objects[0].sop_instance_uid]
    assert pydicom.dcmread(stored.path).PixelData == sent.PixelData


def test_offers_what_a_pacs_offers(peer: Peer, settings: Settings) -> None:
    report = echo(settings, peer)
    assert report.round_trip_s is not None
    assert (report.commitment, report.find) == (True, True)
    assert {"Comprehensive 3D SR", "SEG", "SC", "CT"} <= set(report.stores)


def test_answers_a_query_with_what_it_has(peer: Peer, settings: Settings, objects: list[Outgoing]) -> None:
    header = pydicom.dcmread(objects[0].path)
    study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    assert find_instances(settings, peer, study, [series]) == set()
    send(settings, peer, objects[:2])
    assert find_instances(settings, peer, study, [series]) == {one.sop_instance_uid for one in objects[:2]}
    assert find_instances(settings, peer, study, ["1.2.3"]) == set()


def test_reports_commitment_on_an_association_of_its_own(
    pacs: StandInPacs, peer: Peer, settings: Settings, objects: list[Outgoing]
) -> None:
    send(settings, peer, objects[:2])
    reports: list[Dataset] = []
    came = threading.Event()

    def take(event: evt.Event) -> tuple[int, None]:
        reports.append(event.event_information)
        came.set()
        return 0x0000, None

    ae = AE(ae_title="NODE")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)])
    try:
        pacs.report_to("NODE", LOOPBACK, server.server_address[1])
        references = [(one.sop_class_uid, one.sop_instance_uid) for one in objects]
        request_commitment(settings, peer, "2.25.77", references)
        assert came.wait(30)
    finally:
        server.shutdown()
    syntax = "1.2.840.10008.1.2.1"
    report = read_report(encode_data_set(reports[0], syntax), syntax)
    assert report.transaction_uid == "2.25.77"
    assert report.committed == {one.sop_instance_uid for one in objects[:2]}
    assert set(report.failed) == {objects[2].sop_instance_uid}


def item(name: str, **values: object) -> Dataset:
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "1", "99TEST", name
    made = Dataset()
    made.RelationshipType = "CONTAINS"
    made.ConceptNameCodeSequence = [concept]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_tells_the_sentences_of_a_report_in_order(tmp_path: Path) -> None:
    unit, measured = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "[hnsf'U]", "UCUM", "Hounsfield unit"
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.50", [unit]
    observer = item("Observer", ValueType="TEXT", TextValue="somebody")
    observer.RelationshipType = "HAS OBS CONTEXT"
    noise = item("Noise", ValueType="NUM", MeasuredValueSequence=[measured])
    group = item("Group", ValueType="CONTAINER", ContentSequence=[noise])
    report = Dataset()
    report.ContentSequence = [observer, item("Conclusion", ValueType="TEXT", TextValue="Nothing found."), group]
    path = tmp_path / "report.dcm"
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3"
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.save_as(path, enforce_file_format=True)
    assert sentences_of(path) == ["Conclusion: Nothing found.", "Noise: 12.5 Hounsfield unit"]
