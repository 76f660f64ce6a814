"""Notes that reject, as another library writes them, and what they do not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from images import marks, phantom
from images.marks import Scan
from node.dicom.elements import parse
from node.dicom.marks.rejections import read_rejections

TITLES = {
    codes.DCM.RejectedForQualityReasons: "for quality reasons",
    codes.DCM.RejectedForPatientSafetyReasons: "for patient safety reasons",
    codes.DCM.IncorrectModalityWorklistEntry: "incorrect modality worklist entry",
    codes.DCM.DataRetentionPolicyExpired: "data retention policy expired",
    codes.DCM.OfInterest: None,
    codes.DCM.QualityIssue: None,
}


def images(folder: Path) -> list[Dataset]:
    scanned = marks.scan(folder, slices=3)
    for ds in scanned.headers:
        for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
            setattr(ds, keyword, "")
        ds.ReferringPhysicianName = ""
    return scanned.headers


@pytest.mark.parametrize("title", TITLES)
def test_a_note_by_highdicom_rejects_what_its_content_names(title: Any, tmp_path: Path) -> None:
    evidence = images(tmp_path / "ct")
    content = hd.ko.KeyObjectSelection(document_title=title, referenced_objects=evidence[:2])
    note = hd.ko.KeyObjectSelectionDocument(evidence, content, "2.25.40", 1, "2.25.41", 1, "m", "institution")
    note.save_as(tmp_path / "ko.dcm")
    rejects = read_rejections(parse(tmp_path / "ko.dcm")).rejects
    why = TITLES[title]
    assert rejects == ({} if why is None else {ds.SOPInstanceUID: why for ds in evidence[:2]})


def read(tmp_path: Path, note: Dataset) -> dict[str, str]:
    return read_rejections(dcmread(phantom.save(note, tmp_path / "ko.dcm"))).rejects


def test_a_title_of_somebody_elses_scheme_rejects_nothing(axial: Scan, tmp_path: Path) -> None:
    note = marks.key_objects(axial.key)
    note.ConceptNameCodeSequence = [marks.code("113001", "99LOCAL")]
    assert read(tmp_path, note) == {}


def test_a_note_without_content_rejects_its_evidence(axial: Scan, tmp_path: Path) -> None:
    note = marks.key_objects(axial.key)
    note.ContentSequence = []
    series = marks.item(ReferencedSOPSequence=[marks.reference(ds) for ds in axial.headers[:2]])
    note.CurrentRequestedProcedureEvidenceSequence = [marks.item(ReferencedSeriesSequence=[series])]
    assert set(read(tmp_path, note)) == {ds.SOPInstanceUID for ds in axial.headers[:2]}


def test_a_frame_that_is_rejected_takes_its_instance_with_it(axial: Scan, tmp_path: Path) -> None:
    note = marks.key_objects(axial.key)
    note.ContentSequence[0].ReferencedSOPSequence = [marks.reference(axial.key, 3)]
    assert set(read(tmp_path, note)) == {axial.key.SOPInstanceUID}
