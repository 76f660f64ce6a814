from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from images import phantom, shared
from images.phantom import REMOVED
from node.dicom.header import InstanceHeader, read_header
from node.errors import NotUnderstood
from node.settings import MANUFACTURER, MODEL_NAME

odd_files_warn = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def header_of(ds: Dataset, folder: Path, syntax: str = "1.2.840.10008.1.2.1") -> InstanceHeader:
    return read_header(phantom.save(ds, folder / "image.dcm", syntax))


def code(value: str, meaning: str = "", scheme: str = "SCT") -> Sequence:
    item = phantom.change(Dataset(), CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
    return Sequence([item])


def test_reads_identity_and_description(tmp_path: Path) -> None:
    ds = phantom.ct(
        4,
        AccessionNumber="A7",
        StudyDescription="CT CHEST",
        SeriesDescription="Thorax 2.5",
        Manufacturer="ACME",
        ManufacturerModelName="Scan 1",
        StationName="CT1",
        BodyPartExamined="CHEST",
        ProtocolName="Chest routine",
        ConvolutionKernel=["B30f", "2"],
    )
    found = header_of(ds, tmp_path)
    assert found == InstanceHeader(
        sop_class_uid=phantom.CT_IMAGE,
        sop_instance_uid=f"{phantom.SERIES}.4",
        study_instance_uid=phantom.STUDY,
        series_instance_uid=phantom.SERIES,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CT",
        patient_id="P-1",
        patient_name="PHANTOM^TEST",
        accession_number="A7",
        study_date="20260102",
        study_description="CT CHEST",
        series_description="Thorax 2.5",
        series_number=3,
        instance_number=4,
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        rows=12,
        columns=16,
        frames=1,
        manufacturer="ACME",
        manufacturer_model_name="Scan 1",
        station_name="CT1",
        body_part="CHEST",
        protocol_name="Chest routine",
        kernel="B30f 2",
    )


def test_knows_the_exposure_of_a_radiograph(tmp_path: Path) -> None:
    mask, raw = code("121321"), code("121358")
    ds = phantom.radiograph(
        IrradiationEventUID=["1.5.1", "1.5.2"],
        SourceImageSequence=[phantom.change(Dataset(), ReferencedSOPInstanceUID="1.4.1")],
        ReferencedImageSequence=[
            phantom.change(Dataset(), ReferencedSOPInstanceUID=uid, PurposeOfReferenceCodeSequence=purpose)
            for uid, purpose in (("1.4.1", raw), ("1.4.2", raw), ("1.4.3", mask), ("1.4.4", None))
        ],
    )
    found = header_of(ds, tmp_path)
    assert found.irradiation_events == ("1.5.1", "1.5.2")
    assert found.source_images == ("1.4.1", "1.4.2"), "a mask, or what is said of no purpose, is no source"
    assert InstanceHeader.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("elements", "known"),
    [
        ({"AcquisitionDateTime": "20260102091531.250"}, "20260102091531.25"),
        ({"AcquisitionDateTime": "20260102091531.25+0100"}, "20260102091531.25"),
        ({"AcquisitionDateTime": "20260102091531.000"}, "20260102091531"),
        ({"AcquisitionDate": "20260102", "AcquisitionTime": "091531.25"}, "20260102091531.25"),
        (
            {
                "AcquisitionDateTime": "20260102091531",
                "AcquisitionDate": "20260102",
                "AcquisitionTime": "091531.25",
            },
            "20260102091531.25",
        ),
        ({"AcquisitionTime": "091531.25"}, ""),
        ({"AcquisitionDate": "20260102", "AcquisitionTime": "0915"}, ""),
        ({}, ""),
    ],
)
def test_knows_when_a_radiograph_was_taken_as_exactly_as_its_header(
    tmp_path: Path, elements: dict[str, object], known: str
) -> None:
    assert header_of(phantom.radiograph(**elements), tmp_path).acquired_at == known


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_reads_the_same_from_every_encoding(tmp_path: Path, syntax: str) -> None:
    plain = header_of(phantom.ct(), tmp_path).to_json()
    assert header_of(phantom.ct(), tmp_path, syntax).to_json() == {**plain, "transfer_syntax_uid": syntax}


def test_goes_through_json_and_back(tmp_path: Path) -> None:
    found = header_of(phantom.ct(), tmp_path)
    assert InstanceHeader.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_takes_json_of_a_later_release(tmp_path: Path) -> None:
    found = header_of(phantom.ct(), tmp_path)
    assert InstanceHeader.from_json({**found.to_json(), "not_known_yet": 1}) == found


def test_needs_no_pixels(tmp_path: Path) -> None:
    whole = phantom.save(phantom.ct(), tmp_path / "whole.dcm")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-100])
    assert read_header(cut) == read_header(whole)


def test_objects_without_pixels_have_no_frames(tmp_path: Path) -> None:
    assert header_of(phantom.header("1.2.840.10008.5.1.4.1.1.88.11", Modality="SR"), tmp_path).frames == 0


def test_counts_frames_and_finds_the_kernel_of_an_enhanced_image(tmp_path: Path) -> None:
    ds = phantom.enhanced_ct([(0, 0, 0), (0, 0, 1)], np.zeros((2, 4, 4), np.uint16))
    found = header_of(ds, tmp_path)
    assert (found.frames, found.kernel, found.image_type[2]) == (2, "B30f", "VOLUME")


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("SOPClassUID", "SOP Class UID"),
        ("SOPInstanceUID", "SOP Instance UID"),
        ("StudyInstanceUID", "Study Instance UID"),
        ("SeriesInstanceUID", "Series Instance UID"),
    ],
)
@pytest.mark.parametrize("value", ["", "1.2.not.a.uid"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
def test_refuses_objects_without_identity(tmp_path: Path, keyword: str, words: str, value: str) -> None:
    path = tmp_path / "image.dcm"
    ds = phantom.change(phantom.ct(), **{keyword: value})
    ds.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(NotUnderstood, match=words):
        read_header(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"not DICOM at all, only words", b"\0" * 128 + b"DICM", b"\xff" * 4000]
)
@odd_files_warn
def test_refuses_what_is_not_dicom(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotUnderstood):
        read_header(path)


def raw(ds: Dataset, tag: str, vr: str, value: bytes, folder: Path) -> Path:
    """A file in which one element has this VR and these bytes, whatever the standard says."""
    ds.add_new(tag, "UT", "PLACEHOLDER")
    path = phantom.save(ds, folder / "odd.dcm")
    content = path.read_bytes()
    at = content.index(b"UT\0\0\x0c\0\0\0PLACEHOLDER ")
    encoded = vr.encode() + len(value).to_bytes(2, "little") + value
    path.write_bytes(content[:at] + encoded + content[at + 20 :])
    return path


@pytest.mark.parametrize(
    ("tag", "vr", "value", "name", "expected"),
    [
        ("SeriesNumber", "IS", b"001.000000E+00", "series_number", 1),
        ("SeriesNumber", "IS", b"seven ", "series_number", None),
        ("SeriesNumber", "IS", b"99999999999 ", "series_number", None),
        ("Rows", "IS", b"12", "rows", 12),
        ("Columns", "SS", b"\x10\x00", "columns", 16),
        ("PatientName", "LO", b"M\xfcller\0", "patient_name", "Müller"),
        ("PatientID", "SH", b"P\x001\r\n", "patient_id", "P 1"),
        ("StudyDate", "DA", b"1997.04.24", "study_date", "19970424"),
        ("StudyDate", "LO", b"last Tuesday", "study_date", ""),
        ("Modality", "CS", b"ct", "modality", "CT"),
    ],
)
def test_bears_odd_values(tmp_path: Path, tag: str, vr: str, value: bytes, name: str, expected: object) -> None:
    found = read_header(raw(phantom.ct(), tag, vr, value, tmp_path))
    assert getattr(found, name) == expected


def test_bears_a_private_element_of_many_megabytes(tmp_path: Path) -> None:
    ds = phantom.ct()
    ds.add_new(0x00290010, "LO", "MAKER")
    ds.add_new(0x00291010, "OB", bytes(32 << 20))
    path = phantom.save(ds, tmp_path / "large.dcm")
    assert path.stat().st_size > 32 << 20
    assert read_header(path) == read_header(phantom.save(phantom.ct(), tmp_path / "plain.dcm"))


@odd_files_warn
def test_bears_a_character_set_that_nobody_knows(tmp_path: Path) -> None:
    ds = phantom.ct(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    path = phantom.save(ds, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_XX 999"))
    assert read_header(path).patient_name == "Müller^Jörg"


@pytest.mark.parametrize("name", ["Müller^Jörg", "Люкceмбypг", "Διονυσιος", "山田^太郎"])
def test_reads_names_in_unicode(tmp_path: Path, name: str) -> None:
    assert header_of(phantom.ct(SpecificCharacterSet="ISO_IR 192", PatientName=name), tmp_path).patient_name == name


@pytest.mark.parametrize(
    "elements",
    [
        {"RequestedProcedurePriority": "STAT"},
        {"RequestedProcedurePriority": "high"},
        {"ReportingPriority": "HIGH"},
        {"RequestAttributesSequence": [phantom.change(Dataset(), RequestedProcedurePriority="STAT")]},
    ],
)
def test_hears_that_it_is_urgent(tmp_path: Path, elements: dict[str, Any]) -> None:
    assert header_of(phantom.ct(**elements), tmp_path).urgent


@pytest.mark.parametrize("elements", [{}, {"RequestedProcedurePriority": "ROUTINE"}, {"StudyDescription": "Stat. 3"}])
def test_does_not_make_things_urgent_by_itself(tmp_path: Path, elements: dict[str, Any]) -> None:
    assert not header_of(phantom.ct(**elements), tmp_path).urgent


CONTRIBUTED = [phantom.change(Dataset(), Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME)]


@pytest.mark.parametrize(
    ("elements", "ours"),
    [
        ({}, False),
        ({"Manufacturer": MANUFACTURER}, True),
        ({"ManufacturerModelName": MODEL_NAME}, True),
        ({"ContributingEquipmentSequence": CONTRIBUTED}, False),
        ({"ContributingEquipmentSequence": CONTRIBUTED, "ImageType": ["DERIVED", "SECONDARY"]}, True),
        ({"ContributingEquipmentSequence": CONTRIBUTED, "ImageType": REMOVED}, True),
    ],
)
def test_knows_its_own_results(tmp_path: Path, elements: dict[str, Any], ours: bool) -> None:
    assert header_of(phantom.ct(**elements), tmp_path).own_result is ours


def test_takes_view_and_region_from_codes_where_the_words_are_missing(tmp_path: Path) -> None:
    ds = phantom.radiograph(BodyPartExamined=REMOVED, ViewPosition="", ViewCodeSequence=code("399348003", "antero"))
    ds.AnatomicRegionSequence = code("51185008", "Chest")
    found = header_of(ds, tmp_path)
    assert (found.body_part, found.view_position, found.presentation_intent) == ("CHEST", "AP", "FOR PRESENTATION")


def test_finds_the_region_that_all_frames_share(tmp_path: Path) -> None:
    ds = phantom.enhanced_ct([(0, 0, 0), (0, 0, 1)], np.zeros((2, 4, 4), np.uint16))
    anatomy = phantom.change(Dataset(), AnatomicRegionSequence=code("69536005", "Head"))
    ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    assert header_of(ds, tmp_path).body_part == "HEAD"


def test_indexes_the_patient_orientation_and_keeps_it_in_json(tmp_path: Path) -> None:
    found = header_of(phantom.radiograph(PatientOrientation=["A", "F"]), tmp_path)
    assert found.patient_orientation == ("A", "F")
    stored = json.loads(json.dumps(found.to_json()))
    assert InstanceHeader.from_json(stored) == found
    del stored["patient_orientation"]
    assert InstanceHeader.from_json(stored).patient_orientation == (), "rows of earlier releases have none"


def test_takes_the_meaning_of_a_view_code_that_it_does_not_know(tmp_path: Path) -> None:
    ds = phantom.radiograph(ViewPosition=REMOVED, ViewCodeSequence=code("399135006", "left anterior oblique"))
    assert header_of(ds, tmp_path).view_position == "LEFT ANTERIOR OBLIQUE"


@pytest.mark.parametrize(
    ("stated", "value", "meaning", "position", "coded"),
    [
        ("PA", "399067008", "lateral", "PA", "LATERAL"),
        ("PA", "R-10236", "left lateral", "PA", "LL"),
        ("PA", "LAT", "Lateral projection", "PA", "LATERAL PROJECTION"),
        ("PA", "X1", "standard", "PA", ""),
        ("PORTABLE", "399173006", "left lateral", "LL", "LL"),
        ("PORTABLE", "X1", "standard", "PORTABLE", ""),
        ("", "X1", "standard", "", ""),
    ],
)
def test_keeps_what_the_view_code_says_beside_the_view_position(
    tmp_path: Path, stated: str, value: str, meaning: str, position: str, coded: str
) -> None:
    found = header_of(phantom.radiograph(ViewPosition=stated, ViewCodeSequence=code(value, meaning)), tmp_path)
    assert (found.view_position, found.view_code) == (position, coded)


def test_guesses_the_encoding_where_the_meta_information_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "bare"
    phantom.ct().save_as(path, implicit_vr=True, little_endian=True)
    assert read_header(path).transfer_syntax_uid == ImplicitVRLittleEndian


@odd_files_warn
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_a_storable_header_or_are_not_understood(tmp_path: Path, data: st.DataObject) -> None:
    ds = phantom.change(phantom.ct(), ContributingEquipmentSequence=CONTRIBUTED, SpecificCharacterSet="ISO 2022 IR 87")
    content = bytearray(phantom.save(ds, tmp_path / "whole.dcm").read_bytes())
    for at in data.draw(st.lists(st.integers(128, len(content) - 1), min_size=1, max_size=8)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[: data.draw(st.integers(100, len(content)))])
    try:
        found = read_header(path)
    except NotUnderstood:
        return
    as_json = json.dumps(found.to_json())
    assert "\\u0000" not in as_json
    as_json.encode("utf8")


@pytest.fixture
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return shared.unpack("odd-dicom", tmp_path_factory.getbasetemp())


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    @odd_files_warn
    def test_every_odd_file_gives_a_header_or_is_not_understood(self, odd_files: list[Path]) -> None:
        outcomes = {"header": 0, "not understood": 0}
        for path in odd_files:
            try:
                found = read_header(path)
            except NotUnderstood:
                outcomes["not understood"] += 1
            else:
                assert InstanceHeader.from_json(json.loads(json.dumps(found.to_json()))) == found
                outcomes["header"] += 1
        assert outcomes == {"header": 287, "not understood": 65}
