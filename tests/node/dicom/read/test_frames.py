from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from images import phantom
from images.phantom import REMOVED
from models.contract import Acquisition, SourceRef
from node.dicom.read.frames import described, frames_of
from node.errors import NotEligible


def test_a_single_frame_image_is_one_slice(tmp_path: Path) -> None:
    (frame,), _ = frames_of(phantom.save(phantom.ct(3), tmp_path / "a.dcm"))
    assert frame.source == SourceRef(f"{phantom.SERIES}.3", None)
    assert frame.position == (-10, -20, 7.5)
    assert (frame.orientation, frame.spacing) == (phantom.AXIAL, (0.7, 0.8))
    assert (frame.slope, frame.intercept, frame.rescale_type) == (1, -1024, "")


def test_every_frame_of_an_enhanced_image_is_a_slice_with_values_of_its_own(tmp_path: Path) -> None:
    ds = phantom.enhanced_ct([(0, 0, 5), (0, 0, 2)], np.zeros((2, 4, 4), np.uint16), slopes=[1, 2])
    frames, acquisition = frames_of(phantom.save(ds, tmp_path / "a.dcm"))
    assert [frame.source.frame for frame in frames] == [1, 2]
    assert [frame.position[2] for frame in frames] == [5, 2]
    assert [frame.slope for frame in frames] == [1, 2]
    assert {frame.spacing for frame in frames} == {(0.7, 0.8)}
    assert {frame.orientation for frame in frames} == {phantom.AXIAL}
    assert {frame.rescale_type for frame in frames} == {"HU"}
    assert acquisition.kernel == "B30f"
    assert acquisition.slice_thickness_mm == 2.5


@pytest.mark.parametrize(
    ("stated", "expected"), [(["HU", "HU"], "HU"), (["HU", ""], "HU"), (["hu"], "HU"), (["HU", "OD"], "HU OD")]
)
def test_of_several_equal_rescale_types_one_counts(tmp_path: Path, stated: list[str], expected: str) -> None:
    (frame,), _ = frames_of(phantom.save(phantom.ct(RescaleType=stated), tmp_path / "a.dcm"))
    assert frame.rescale_type == expected


def numbered(ds: Dataset, **values: Any) -> Dataset:
    """Frame Content with these values times 1, 2, 3… in the frames."""
    for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence, start=1):
        content = {keyword: number * value for keyword, value in values.items()}
        frame.FrameContentSequence = [phantom.change(Dataset(), **content)]
    return ds


@pytest.mark.parametrize(
    ("keyword", "words", "by", "expected"),
    [
        ("FrameAcquisitionNumber", "acquisition number", 1, ["1", "2", "3", "4"]),
        ("TemporalPositionIndex", "temporal position", 1_000_001, ["1000001", "2000002", "3000003", "4000004"]),
        ("NominalPercentageOfCardiacPhase", "cardiac phase", 12.5, ["12.5", "25", "37.5", "50"]),
    ],
)
def test_reads_the_numbers_that_tell_frames_apart(
    tmp_path: Path, keyword: str, words: str, by: float, expected: list[str]
) -> None:
    ds = phantom.enhanced_ct([(0, 0, z) for z in range(4)], np.zeros((4, 4, 4), np.uint16))
    ds.AcquisitionNumber = "7"
    frames, _ = frames_of(phantom.save(numbered(ds, **{keyword: by}), tmp_path / "a.dcm"))
    assert [dict(frame.phases)[words] for frame in frames] == expected


@pytest.mark.parametrize(
    ("sequence", "keyword", "words"),
    [
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", "cardiac phase"),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "trigger time"),
        ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase", "respiratory phase"),
    ],
)
def test_reads_the_phase_of_a_frame_where_the_standard_has_it(
    tmp_path: Path, sequence: str, keyword: str, words: str
) -> None:
    ds = phantom.enhanced_ct([(0, 0, z) for z in range(2)], np.zeros((2, 4, 4), np.uint16))
    for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        setattr(frame, sequence, [phantom.change(Dataset(), **{keyword: 40.0 + 35 * number})])
    frames, _ = frames_of(phantom.save(ds, tmp_path / "a.dcm"))
    assert [dict(frame.phases)[words] for frame in frames] == ["40", "75"]
    assert [frame.instance_number for frame in frames] == [1, 2]


def test_reads_what_tells_single_images_apart(tmp_path: Path) -> None:
    ds = phantom.ct(TriggerTime="450", ImageComments="75 %", SeriesDescription="CTA 75 %", InstanceNumber="12")
    (frame,), _ = frames_of(phantom.save(ds, tmp_path / "a.dcm"))
    told = dict(frame.phases)
    assert (told["trigger time"], told["image comments"], told["series description"]) == ("450", "75 %", "CTA 75 %")
    assert frame.instance_number == 12


def test_a_number_that_is_none_still_tells_images_apart(tmp_path: Path) -> None:
    path = phantom.save(phantom.ct(AcquisitionNumber="77"), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x0077", b"IS\x02\x00A1"))
    (frame,), _ = frames_of(path)
    assert dict(frame.phases)["acquisition number"] == "A1"


def anatomy(meaning: str) -> list[Dataset]:
    region = phantom.change(Dataset(), CodeValue="1", CodingSchemeDesignator="SCT", CodeMeaning=meaning)
    return [phantom.change(Dataset(), FrameLaterality="U", AnatomicRegionSequence=[region])]


def test_finds_the_region_in_the_frame_anatomy(tmp_path: Path) -> None:
    ds = phantom.enhanced_ct([(0, 0, 0), (0, 0, 1)], np.zeros((2, 4, 4), np.uint16))
    ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = anatomy("Head")
    assert frames_of(phantom.save(ds, tmp_path / "a.dcm"))[1].body_part == "HEAD"
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.FrameAnatomySequence = anatomy("Neck")
    assert frames_of(phantom.save(ds, tmp_path / "b.dcm"))[1].body_part == "NECK", "the frame's own first"


def test_finds_the_region_code_and_the_descriptions_of_an_image(tmp_path: Path) -> None:
    ds = phantom.ct(SeriesDescription="5 MM", StudyDescription="CT HEAD WO")
    ds.AnatomicRegionSequence = anatomy("Knee")[0].AnatomicRegionSequence
    _, acquisition = frames_of(phantom.save(ds, tmp_path / "a.dcm"))
    assert (acquisition.body_part, acquisition.descriptions) == ("KNEE", ("5 MM", "CT HEAD WO"))


def test_refuses_frames_without_places(tmp_path: Path) -> None:
    ds = phantom.ct(values=np.zeros((3, 4, 4), np.uint16), NumberOfFrames=3)
    with pytest.raises(NotEligible, match="without saying where"):
        frames_of(phantom.save(ds, tmp_path / "a.dcm"))


def test_refuses_frames_that_are_not_all_described(tmp_path: Path) -> None:
    ds = phantom.enhanced_ct([(0, 0, 5), (0, 0, 2)], np.zeros((2, 4, 4), np.uint16))
    ds.NumberOfFrames = 3
    with pytest.raises(NotEligible, match="disagree"):
        frames_of(phantom.save(ds, tmp_path / "a.dcm"))


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"Exposure": "120"}, 120),
        ({"ExposureInuAs": "2500"}, 2.5),
        ({"XRayTubeCurrent": "300", "ExposureTime": "500"}, 150),
        ({"Exposure": "0"}, None),
        ({"Exposure": "120", "XRayTubeCurrent": "300", "ExposureTime": "500"}, 120),
    ],
)
def test_finds_the_exposure(tmp_path: Path, elements: dict[str, Any], expected: float | None) -> None:
    (frame,), _ = frames_of(phantom.save(phantom.ct(**elements), tmp_path / "a.dcm"))
    assert frame.exposure_mas == expected


def test_a_volume_has_the_median_exposure_of_its_slices(tmp_path: Path) -> None:
    frames = [
        frames_of(phantom.save(phantom.ct(n, Exposure=mas), tmp_path / f"{n}.dcm"))[0][0]
        for n, mas in enumerate(["100", "900", "120"])
    ]
    assert described(Acquisition(modality="CT"), frames).exposure_mas == 120


def test_finds_how_the_image_was_made(tmp_path: Path) -> None:
    ds = phantom.ct(
        Manufacturer="ACME",
        ManufacturerModelName="Scan 1",
        ConvolutionKernel="B30f",
        KVP="120",
        BodyPartExamined="CHEST",
    )
    ds.ContrastBolusAgentSequence = [phantom.change(Dataset(), CodeMeaning="Iohexol")]
    assert frames_of(phantom.save(ds, tmp_path / "a.dcm"))[1] == Acquisition(
        modality="CT",
        manufacturer="ACME",
        scanner="Scan 1",
        kernel="B30f",
        kvp=120,
        slice_thickness_mm=2.5,
        body_part="CHEST",
        contrast_agent="Iohexol",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    )


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_numbers_that_are_none_are_absent(tmp_path: Path) -> None:
    path = phantom.save(phantom.ct(RescaleSlope="1.500", RescaleIntercept=REMOVED), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.500", b"1.5.0"))
    (frame,), _ = frames_of(path)
    assert (frame.slope, frame.intercept) == (None, None)


def test_refuses_what_cannot_be_parsed(tmp_path: Path) -> None:
    content = phantom.save(phantom.ct(), tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:400])
    with pytest.raises(NotEligible, match="cannot be read as DICOM"):
        frames_of(tmp_path / "cut.dcm")
