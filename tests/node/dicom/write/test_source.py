from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from gate import made
from models.contract import SourceRef
from node.dicom.header import read_header
from node.dicom.write import SeriesSource
from node.errors import AnalysisFailed, NotUnderstood


def test_headers_come_without_pixels_and_private_elements(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    ds = pydicom.dcmread(paths[0])
    ds.private_block(0x0029, "ACME", create=True).add_new(0x10, "LO", "secret")
    ds.save_as(paths[0])
    source = SeriesSource.load(paths)
    assert len(source.headers) == 5
    for header in source.headers.values():
        assert "PixelData" not in header
        assert not any(element.tag.is_private for element in header)


def test_an_element_that_is_not_what_it_claims_is_left_out(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path, slices=1, AcquisitionNumber=77)
    data = paths[0].read_bytes()
    assert data.count(b"77") >= 1
    element = b"\x20\x00\x12\x00IS\x02\x0077"
    assert element in data
    paths[0].write_bytes(data.replace(element, element[:-2] + b"x7"))
    header = SeriesSource.load(paths).first
    assert "AcquisitionNumber" not in header
    assert header.PatientID == "P-17"


def test_of_several_numbers_where_one_belongs_the_first_counts(tmp_path: Path) -> None:
    several = {"RescaleIntercept": [-1024, 0], "InstanceNumber": [2, 3], "SeriesNumber": [3, 4], "KVP": [120, 140]}
    run = made.process(made.ct_series(tmp_path, slices=2, **several), lesions=1)
    header = run.source.first
    assert {keyword: header[keyword].value for keyword in several} == {k: values[0] for k, values in several.items()}
    assert header.WindowCenter == [40, -600]
    assert {image.kind for image in run.images} >= {"derived", "seg"}


def test_of_several_values_where_one_belongs_none_becomes_a_list_in_words(tmp_path: Path) -> None:
    stated = {
        "SeriesDescription": ["CHEST", "ABDOMEN", "CHEST"],
        "RescaleType": ["HU", "HU"],
        "LossyImageCompression": ["00", "00"],
        "BodyPartExamined": ["CHEST", "ABDOMEN"],
        "FrameOfReferenceUID": ["1.2.3", "1.2.3"],
        "PatientID": ["1", "2"],
        "AccessionNumber": ["3", "3"],
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }
    header = SeriesSource.load(made.ct_series(tmp_path, slices=1, **stated)).first
    assert header.SeriesDescription == "CHEST ABDOMEN"
    assert (header.RescaleType, header.LossyImageCompression, header.BodyPartExamined) == ("HU", "00", "CHEST")
    assert header.FrameOfReferenceUID == "1.2.3"
    assert (list(header.PatientID), list(header.AccessionNumber)) == (["1", "2"], ["3", "3"]), "whose it is stays"
    assert len(header.ImageType) == 3


def test_what_was_taken_can_be_told_of_whatever_its_elements_claim_to_be(tmp_path: Path) -> None:
    [path] = made.ct_series(tmp_path, slices=1)
    data, uid = path.read_bytes(), f"{made.ROOT}.2.3.1"
    element = b"\x08\x00\x18\x00UI"
    assert data.count(element) == 1
    path.write_bytes(data.replace(element, element[:-2] + b"U\\"))
    assert read_header(path).sop_instance_uid == uid
    source = SeriesSource.load([path])
    assert source.headers.keys() == {uid}
    assert source.first.SOPInstanceUID == uid


def test_a_file_that_breaks_off_in_the_groups_of_its_frames_can_be_told_of(tmp_path: Path) -> None:
    [path] = made.enhanced_ct(tmp_path)
    data = path.read_bytes()
    groups = data.index(b"\x00\x52\x30\x92SQ")
    path.write_bytes(data[: groups + 8] + b"\xff\xff\xff\xff" + b"\x01" * 100)  # no item where one must begin
    assert read_header(path).frames == 4
    assert SeriesSource.load([path]).first.PatientID == "P-17"


def test_refuses_what_is_not_dicom(tmp_path: Path) -> None:
    path = tmp_path / "note.dcm"
    path.write_text("no image")
    with pytest.raises(NotUnderstood):
        SeriesSource.load([path])


def test_an_empty_series_has_no_first_header() -> None:
    with pytest.raises(AnalysisFailed):
        _ = SeriesSource.load([]).first


def test_a_frame_of_a_multi_frame_image_reads_like_an_image(tmp_path: Path) -> None:
    source = SeriesSource.load(made.enhanced_ct(tmp_path))
    uid = next(iter(source.headers))
    flat = source.frame(SourceRef(uid, 3))
    assert flat.ImagePositionPatient == [-20.0, -30.0, 45.0]
    assert flat.RescaleIntercept == -1024
    assert flat.InstanceNumber == 3
    assert list(flat.ImageType)[:3] == ["ORIGINAL", "PRIMARY", "AXIAL"]


def test_image_numbers_are_those_of_the_headers_only_where_they_differ(tmp_path: Path) -> None:
    distinct = SeriesSource.load(made.ct_series(tmp_path / "a"))
    same = SeriesSource.load(made.ct_series(tmp_path / "b", InstanceNumber=1))
    refs = [SourceRef(uid) for uid in reversed(distinct.headers)]
    assert distinct.image_numbers(refs) == [5, 4, 3, 2, 1]
    assert same.image_numbers(refs) == [1, 2, 3, 4, 5]
