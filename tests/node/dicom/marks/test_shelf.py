"""Studies of a peer: what is asked for, and what becomes of what the peer does not send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, evt

from images import marks, phantom
from images.marks import Scan
from network.objects import EXPLICIT
from node.dicom.marks.mark import Origin
from node.dicom.marks.shelf import PeerShelf
from node.dicom.marks.study import StudyMarks, marks_of
from node.dicom.read.codec import Codec
from node.errors import PeerRefused
from node.settings import Peer, Settings

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
DOSE_REPORT, KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.59"
MR = "1.2.840.10008.5.1.4.1.1.4"
CANNOT_UNDERSTAND = 0xC000


class Pacs:
    """Sends what it is asked for, and makes an error of a retrieval that holds what was not negotiated, as Orthanc."""

    def __init__(self, objects: list[Dataset]) -> None:
        self.objects = objects
        self.asked: list[str] = []
        self.broken: set[str] = set()
        self.tells_objects = True

    def matching(self, keys: Dataset) -> list[Dataset]:
        wanted = keys.get("SOPInstanceUID") or []
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        return [
            it
            for it in self.objects
            if str(keys.get("SeriesInstanceUID") or it.SeriesInstanceUID) == it.SeriesInstanceUID
            and (not wanted or it.SOPInstanceUID in wanted)
        ]

    def on_find(self, event: Any) -> Iterator[Any]:
        keys = event.identifier
        if keys.QueryRetrieveLevel == "IMAGE" and not self.tells_objects:
            yield 0xA900, None
            return
        for it in (
            {it.SeriesInstanceUID: it for it in self.objects}.values()
            if keys.QueryRetrieveLevel == "SERIES"
            else self.matching(keys)
        ):
            match = Dataset()
            for keyword in ("SeriesInstanceUID", "Modality", "SOPInstanceUID", "SOPClassUID"):
                if keyword in keys:
                    setattr(match, keyword, it.get(keyword))
            if "NumberOfSeriesRelatedInstances" in keys:
                match.NumberOfSeriesRelatedInstances = len(self.matching(match))
            yield 0xFF00, match
        yield 0x0000, None

    def on_get(self, event: Any) -> Iterator[Any]:
        keys = event.identifier
        self.asked.append(str(keys.SeriesInstanceUID))
        found = self.matching(keys)
        taken = {context.abstract_syntax for context in event.assoc.accepted_contexts}
        if self.broken & {str(keys.SeriesInstanceUID)} or any(it.SOPClassUID not in taken for it in found):
            yield len(found)
            yield CANNOT_UNDERSTAND, None
            return
        sent = [it for it in found if it.SOPInstanceUID not in self.broken]
        yield len(sent)
        for it in sent:
            yield 0xFF00, it


@pytest.fixture
def peer_of(tmp_path: Path) -> Iterator[Callable[[Pacs], PeerShelf]]:
    """The phantom's study as this PACS has it, asked anew."""
    servers = []

    def run(pacs: Pacs) -> PeerShelf:
        ae = AE("PACS")
        for syntax in (FIND, GET):
            ae.add_supported_context(syntax, EXPLICIT)
        for kind in {str(it.SOPClassUID) for it in pacs.objects}:
            ae.add_supported_context(kind, EXPLICIT, scu_role=True, scp_role=True)
        for it in pacs.objects:
            it.file_meta = FileMetaDataset()
            it.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        handlers = [(evt.EVT_C_FIND, pacs.on_find), (evt.EVT_C_GET, pacs.on_get)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        servers.append(server)
        peer = Peer(aet="PACS", host="127.0.0.1", port=server.server_address[1])
        return PeerShelf(Settings(aet="NODE", dimse_timeout_s=10), peer, phantom.STUDY, tmp_path / "in")

    yield run
    for server in servers:
        server.shutdown()


@pytest.fixture
def ask(peer_of: Callable[[Pacs], PeerShelf], codec: Codec) -> Any:
    def run(pacs: Pacs) -> tuple[StudyMarks, int]:
        shelf = peer_of(pacs)
        return marks_of(shelf, codec), shelf.failed

    return run


def state(scanned: Scan, **elements: Any) -> Dataset:
    return marks.gsps(scanned.key, marks.axes(marks.centred()), **elements)


def beside(scanned: Scan, kind: str, uid: str, **elements: Any) -> Dataset:
    ds = marks.document(kind, uid, scanned.key)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def reasons(study: StudyMarks) -> set[str]:
    return {refusal.reason for refusal in study.refusals}


def test_dose_reports_and_key_object_notes_stay_where_they_are(axial: Scan, ask: Any) -> None:
    """One in a series of its own, one in that of a report."""
    report = marks.report(axial.headers, marks.bidirectional(axial.headers[3], marks.centred()))
    note = beside(axial, KEY_OBJECTS, "1.2.3.13.1", SeriesInstanceUID=report.SeriesInstanceUID)
    pacs = Pacs([*axial.headers, state(axial), report, note, beside(axial, DOSE_REPORT, "1.2.3.12.1")])
    study, failed = ask(pacs)
    assert (len(study.marks), failed, study.refusals) == (2, 0, ())
    assert "1.2.3.12.1.0" not in pacs.asked


def test_images_that_a_document_names_without_their_series_are_looked_for(axial: Scan, ask: Any) -> None:
    report = marks.report(axial.headers, marks.bidirectional(axial.key, marks.centred()))
    del report.CurrentRequestedProcedureEvidenceSequence
    study, failed = ask(Pacs([*axial.headers, report]))
    assert (len(study.marks), failed) == (1, 0)


def test_images_that_are_not_there_are_no_failure_of_the_peer(axial: Scan, ask: Any) -> None:
    pacs = Pacs([it for it in axial.headers if it is not axial.key] + [state(axial)])
    study, failed = ask(pacs)
    assert (study.marks, reasons(study), failed) == ((), {"the key image is not there"}, 0)


def test_what_the_peer_has_and_does_not_send_is_counted(axial: Scan, ask: Any) -> None:
    pacs = Pacs([*axial.headers, state(axial)])
    pacs.broken = {str(axial.headers[4].SOPInstanceUID)}
    study, failed = ask(pacs)
    assert (len(study.marks), failed) == (1, 1)


def test_a_series_that_the_peer_refuses_to_send_costs_no_mark_on_another(tmp_path: Path, axial: Scan, ask: Any) -> None:
    other = marks.scan(tmp_path / "other", SeriesInstanceUID="1.2.9.1")
    for number, ds in enumerate(other.headers):
        ds.SOPInstanceUID = f"1.2.9.1.{number}"
    pacs = Pacs([*axial.headers, *other.headers, state(axial), state(other, uid="1.2.3.11.9")])
    pacs.broken = {"1.2.9.1"}
    study, failed = ask(pacs)
    assert (len(study.marks), reasons(study), failed) == (1, {"the peer does not send the marked series"}, 5)
    assert pacs.asked.count("1.2.9.1") == 1


def test_a_series_without_ct_images_is_not_fetched(tmp_path: Path, ask: Any) -> None:
    scanned = marks.scan(tmp_path / "mr", SOPClassUID=MR, Modality="MR")
    pacs = Pacs([*scanned.headers, state(scanned)])
    study, failed = ask(pacs)
    assert (study.marks, failed, len(pacs.asked)) == ((), 0, 1)
    assert reasons(study) == {"the marked series is not usable: It holds no CT image and no segmentation."}


def test_a_peer_that_does_not_tell_of_objects_is_asked_for_series(axial: Scan, ask: Any) -> None:
    pacs = Pacs([*axial.headers, state(axial)])
    pacs.tells_objects = False
    study, failed = ask(pacs)
    assert (len(study.marks), failed) == (1, 0)


def test_rejected_images_are_not_asked_for(axial: Scan, ask: Any) -> None:
    """Many a PACS lists them and does not send them."""
    rejected = axial.headers[4]
    pacs = Pacs([*axial.headers, state(axial), marks.key_objects(rejected)])
    pacs.broken = {str(rejected.SOPInstanceUID)}
    study, failed = ask(pacs)
    assert (len(study.marks), study.rejections, failed) == (1, 1, 0)
    assert len(study.marks[0].series.frames) == len(axial.headers) - 1


def test_a_document_that_the_peer_refuses_costs_no_mark_of_another(axial: Scan, ask: Any) -> None:
    report = marks.report(axial.headers, marks.bidirectional(axial.headers[3], marks.centred()))
    pacs = Pacs([*axial.headers, state(axial), report])
    pacs.broken = {str(report.SeriesInstanceUID)}
    study, failed = ask(pacs)
    assert ([mark.about.origin for mark in study.marks], failed) == ([Origin.GSPS], 1)


def test_where_notes_are_refused_nobody_knows_what_is_rejected(axial: Scan, ask: Any) -> None:
    note = marks.key_objects(axial.key)
    pacs = Pacs([*axial.headers, state(axial), note])
    pacs.broken = {str(note.SeriesInstanceUID)}
    with pytest.raises(PeerRefused):
        ask(pacs)


@pytest.mark.parametrize("tells_objects", [True, False])
def test_what_a_study_holds_changes_with_its_documents_and_images_and_with_nothing_else(
    tells_objects: bool, axial: Scan, peer_of: Any
) -> None:
    pacs = Pacs([*axial.headers[:4], state(axial)])
    pacs.tells_objects = tells_objects
    seen = []
    for more in (
        beside(axial, MR, "1.2.3.14.1", Modality="MR"),
        axial.headers[4],
        state(axial, uid="1.2.3.11.5"),
        marks.key_objects(axial.key),
    ):
        seen.append(peer_of(pacs).holdings())
        pacs.objects.append(more)
    seen.append(peer_of(pacs).holdings())
    assert [one == other for one, other in pairwise(seen)] == [True, False, False, False]
    assert pacs.asked == []
