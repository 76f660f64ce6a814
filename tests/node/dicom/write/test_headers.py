from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from gate import made
from node.dicom import uids
from node.dicom.write import headers


def _header(**elements: Any) -> Dataset:
    ds = Dataset()
    with pydicom.config.disable_value_validation():
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return ds


def _start(header: Any, **stamp: Any) -> Any:
    return headers.start(header, str(SecondaryCaptureImageStorage), "2.25.1", made.stamp(**stamp))


def test_absent_type_2_attributes_are_there_and_empty() -> None:
    ds = _start(_header())
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName", "StudyID", "StudyDate"):
        assert keyword in ds
        assert not ds[keyword].value


def test_patient_and_study_are_copied_as_they_are() -> None:
    other = _header(TypeOfPatientID="TEXT", PatientID="OTHER")
    ds = _start(
        _header(
            PatientName="Müller^Anna",
            IssuerOfPatientID="H",
            PatientAge="075Y",
            OtherPatientIDsSequence=[other],
            StudyDescription="Thorax",
            ClinicalTrialSubjectID="7",
            SeriesDescription="not this",
            KVP="120",
        )
    )
    assert str(ds.PatientName) == "Müller^Anna"
    assert (ds.IssuerOfPatientID, ds.PatientAge, ds.StudyDescription) == ("H", "075Y", "Thorax")
    assert ds.OtherPatientIDsSequence[0].PatientID == "OTHER"
    assert ds.ClinicalTrialSubjectID == "7"
    assert "KVP" not in ds
    assert "SeriesDescription" not in ds


@pytest.mark.parametrize(
    ("offset", "written", "time"),
    [
        ("-0500", "-0500", "063456.123456"),
        ("+0545", "+0545", "171956.123456"),
        (None, None, "123456.123456"),
        ("", None, "123456.123456"),
        ("odd", None, "123456.123456"),
        ("+9900", None, "123456.123456"),
        ("+0170", None, "123456.123456"),
    ],
)
def test_our_times_are_on_the_clock_of_the_source(offset: str | None, written: str | None, time: str) -> None:
    """Where it names no time zone neither do we: its own times, which stand beside ours, would be moved by ours."""
    ds = _start(_header(StudyTime="101112", **({} if offset is None else {"TimezoneOffsetFromUTC": offset})))
    assert (ds.get("TimezoneOffsetFromUTC"), ds.ContentTime, ds.StudyTime) == (written, time, "101112")


def test_midnight_between_two_time_zones_moves_the_date() -> None:
    late = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    ds = _start(_header(TimezoneOffsetFromUTC="+0100"), made_at=late)
    assert (ds.ContentDate, ds.ContentTime[:4]) == ("20261121", "0030")


def test_a_number_too_long_for_its_field_is_rounded_not_refused() -> None:
    ds = Dataset()
    headers.copy_element(
        _header(ImagePositionPatient=["-123.4567890123456789", "1.5", "2"])["ImagePositionPatient"], ds
    )
    written = [str(value) for value in ds.ImagePositionPatient]
    assert all(len(text) <= 16 for text in written)
    assert abs(float(written[0]) + 123.4567890123456789) < 1e-9
    assert written[1] == "1.5"


def test_the_file_is_ours() -> None:
    ds = _start(_header())
    read = pydicom.dcmread(io.BytesIO(headers.encode(ds)))
    assert read.file_meta.ImplementationClassUID == uids.IMPLEMENTATION_CLASS_UID
    assert read.file_meta.ImplementationVersionName == "PACSNODE_0_1"
    assert headers.encode(ds) == headers.encode(ds)


def test_equipment_of_the_source_stays_before_ours() -> None:
    ds = _start(_header())
    ds.ContributingEquipmentSequence = [_header(Manufacturer="GATEWAY")]
    headers.add_contribution(ds, made.stamp(), made.MODEL, "low_dose_ct")
    assert [item.Manufacturer for item in ds.ContributingEquipmentSequence] == ["GATEWAY", "pacsnode"]
    ours = ds.ContributingEquipmentSequence[1]
    assert ours.ContributionDateTime == "20261120123456+0100"
    assert made.MODEL.weights_sha256 in ours.ContributionDescription
