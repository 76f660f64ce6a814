"""What documents, images and studies have to do with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from images import marks, phantom
from images.marks import Scan

PRIOR = "1.2.77"


def reasons(study: Any) -> set[str]:
    return {refusal.reason for refusal in study.refusals}


def test_a_document_of_another_patient_marks_nothing(axial: Scan, harvest: Any) -> None:
    state = marks.gsps(axial.key, marks.axes(marks.centred()), PatientID="P-2")
    study = harvest(axial, state)
    assert (study.marks, reasons(study)) == ((), {"the document and its image bear different patient IDs"})


def test_a_document_without_a_patient_is_of_its_images_patient(axial: Scan, harvest: Any) -> None:
    state = marks.gsps(axial.key, marks.axes(marks.centred()), PatientID="")
    study = harvest(axial, state)
    assert (len(study.marks), study.patient_id) == (1, axial.key.PatientID)


def test_a_study_with_images_of_two_patients_gives_nothing(tmp_path: Path, axial: Scan, harvest: Any) -> None:
    other = marks.scan(tmp_path / "other", SeriesInstanceUID="1.2.9.1", PatientID="P-2")
    paths = []
    for number, ds in enumerate(other.headers):
        ds.SOPInstanceUID = f"1.2.9.1.{number}"
        paths.append(phantom.save(ds, tmp_path / f"other-{number}.dcm"))
    states = [
        marks.gsps(scan.key, marks.axes(marks.centred()), uid=f"1.2.3.11.{number}")
        for number, scan in enumerate((axial, other))
    ]
    study = harvest(axial, *states, more=paths)
    assert (study.marks, reasons(study)) == ((), {"images with more than one patient ID in one study"})


@pytest.mark.parametrize("named", [["1.2.3.88.1"], ["1.2.3.88.2"], ["1.2.3.88.1", "1.2.3.88.2"]])
def test_documents_that_replace_themselves_or_each_other_still_count(
    named: list[str], axial: Scan, harvest: Any
) -> None:
    reports = [
        marks.report(axial.headers, marks.bidirectional(axial.headers[number], marks.centred()), uid=uid)
        for number, uid in enumerate(("1.2.3.88.1", "1.2.3.88.2"))
    ]
    for report in reports:
        referred = [marks.item(ReferencedSOPInstanceUID=uid) for uid in named]
        series = marks.item(ReferencedSOPSequence=referred)
        report.PredecessorDocumentsSequence = [marks.item(ReferencedSeriesSequence=[series])]
    study = harvest(axial, *reports)
    both = len(named) == 2
    assert len(study.marks) == (2 if both else 1)


def test_a_report_without_evidence_finds_its_images_in_the_study(axial: Scan, harvest: Any) -> None:
    report = marks.report(axial.headers, marks.bidirectional(axial.key, marks.centred()))
    del report.CurrentRequestedProcedureEvidenceSequence
    assert len(harvest(axial, report).marks) == 1


def test_a_mark_on_the_study_before_is_refused_as_such(axial: Scan, harvest: Any) -> None:
    prior = phantom.change(phantom.ct(1, phantom.stored_values(1, marks.SHAPE)), SOPInstanceUID=f"{PRIOR}.1")
    prior.StudyInstanceUID = PRIOR
    report = marks.report([axial.key], marks.bidirectional(prior, marks.centred()))
    (evidence,) = marks.report([prior]).CurrentRequestedProcedureEvidenceSequence
    report.PertinentOtherEvidenceSequence = [evidence]
    assert reasons(harvest(axial, report)) == {"the key image is of another study"}


def test_a_mark_on_a_phase_that_is_not_read_says_so(tmp_path: Path, harvest: Any) -> None:
    scanned = marks.scan(tmp_path / "ct", slices=6)
    for number, ds in enumerate(scanned.headers):
        ds.AcquisitionNumber = 1
        if number >= 4:  # a second acquisition over the first two positions
            ds.AcquisitionNumber, ds.ImagePositionPatient = 2, scanned.headers[number - 4].ImagePositionPatient
        phantom.save(ds, scanned.paths[number])
    states = [
        marks.gsps(scanned.headers[number], marks.axes(marks.centred()), uid=f"1.2.3.11.{number}") for number in (1, 5)
    ]
    study = harvest(scanned, *states)
    assert len(study.marks) == 1
    assert reasons(study) == {"the key image is beside the stack that is read: another phase, a copy or a localiser"}
