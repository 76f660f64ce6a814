"""The truth of a synthetic study as DICOM: what others' programs say of it, and what is read back."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from node.dicom.header import read_header
from node.dicom.marks.shelf import shelves
from node.dicom.marks.study import StudyMarks, marks_of
from node.dicom.read.codec import Codec
from node.dicom.read.volume import read_volume
from node.dicom.synthetic import Labels, write_ct_series
from node.dicom.write.source import SeriesSource
from node.dicom.write.synthetic_ct import PREFIX, Making, SyntheticStudy, synthetic_images
from node.dicom.write.synthetic_truth import Planted, header_of, truth_documents

SPACING = (2.5, 0.8, 0.8)
SHAPE = (12, 64, 48)
UNKNOWN_TO_DICOM3TOOLS = "(0x0008,0x001c)"
"""Synthetic Data, of 2022."""
MAKING = Making(3, "formula", marked=False)
NODULE, LUNG = ("27925004", "SCT", "Nodule"), ("39607008", "SCT", "Lung")
FIRST = Planted(
    words="solid, contrast 800 HU",
    finding=NODULE,
    site=LUNG,
    box=(slice(2, 6), slice(10, 20), slice(8, 22)),
    mask=np.ones((4, 10, 14), bool),
    slice_index=3,
    long_px=((8.0, 14.0), (21.0, 14.0)),
    short_px=((14.0, 10.0), (14.0, 19.0)),
    long_mm=13 * 0.8,
    short_mm=9 * 0.8,
    volume_mm3=4 * 10 * 14 * 2.5 * 0.64,
)
SECOND = replace(
    FIRST,
    words="ground-glass",
    box=(slice(8, 10), slice(30, 36), slice(30, 36)),
    mask=np.eye(6, dtype=bool)[None] | np.ones((2, 6, 6), bool),
    slice_index=9,
    long_px=((30.0, 33.0), (35.0, 33.0)),
    short_px=((32.0, 31.0), (32.0, 35.0)),
    long_mm=5 * 0.8,
    short_mm=4 * 0.8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study, images and documents, that lay feet to head and turned when it was received."""
    out = tmp_path_factory.mktemp("study")
    voxels = np.random.default_rng(1).normal(-600, 300, SHAPE).astype(np.float32)
    paths = write_ct_series(out / "received", voxels, SPACING, labels=Labels(patient_id="A"))
    volume, source = read_volume(paths), SeriesSource.load(paths)
    study = SyntheticStudy.of(volume.voxels, source, MAKING)
    made = list(synthetic_images(volume.voxels, volume, source, study, lesions=2))
    documents = truth_documents([header_of(content) for _, content in made], [FIRST, SECOND], study, step_mm=SPACING[0])
    shutil.rmtree(out / "received")
    for name, content in [*made, *documents]:
        (out / name).write_bytes(content)
    return out


def document(folder: Path, kind: str) -> Any:
    return pydicom.dcmread(folder / f"truth-{kind}.dcm")


def needs(program: str) -> pytest.MarkDecorator:
    missing = shutil.which(program) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


@needs("dciodvfy")
@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_dicom3tools_finds_no_error(folder: Path, kind: str) -> None:
    assert errors_of(folder / f"truth-{kind}.dcm") == []


def errors_of(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    return [line for line in errors if UNKNOWN_TO_DICOM3TOOLS not in line]


@needs("dsrdump")
def test_dcmtk_reads_the_report(folder: Path) -> None:
    done = subprocess.run(["dsrdump", str(folder / "truth-sr.dcm")], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if line[:2] in ("E:", "W:")]


def test_both_say_that_they_are_synthetic_and_are_of_the_study(folder: Path) -> None:
    image = pydicom.dcmread(folder / "ct-0001.dcm")
    series = {image.SeriesInstanceUID}
    for kind in ("seg", "sr"):
        ds = document(folder, kind)
        assert ds.SyntheticData == "YES"
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyID", "StudyDescription"):
            assert ds[keyword].value == image[keyword].value
        said = (ds.SeriesDescription, ds.Manufacturer, ds.ManufacturerModelName)
        assert all(str(each).startswith(PREFIX) for each in said)
        series.add(ds.SeriesInstanceUID)
        assert not read_header(folder / f"truth-{kind}.dcm").own_result
    assert len(series) == 3
    segment = document(folder, "seg").SegmentSequence[0]
    assert segment.SegmentLabel.startswith(PREFIX)
    [kind_of] = segment.SegmentedPropertyTypeCodeSequence
    assert kind_of.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "synthetic"
    assert document(folder, "seg").FrameOfReferenceUID == image.FrameOfReferenceUID
    said = [item.TextValue for item in document(folder, "sr").ContentSequence[-1].ContentSequence]
    assert PREFIX in said[0]
    assert "Not a patient's images" in said[1]


def test_masks_are_on_the_images_they_were_drawn_on(folder: Path) -> None:
    images = [pydicom.dcmread(path) for path in sorted(folder.glob("ct-*.dcm"))]
    seg = hd.seg.segread(folder / "truth-seg.dcm")
    for number, lesion in enumerate((FIRST, SECOND), start=1):
        expected = np.zeros(SHAPE, bool)
        expected[lesion.box] = lesion.mask
        frames = seg.get_pixels_by_source_instance(
            [image.SOPInstanceUID for image in images], segment_numbers=[number], ignore_spatial_locations=False,
            assert_missing_frames_are_empty=True,
        )  # fmt: skip
        assert np.array_equal(frames[..., 0].astype(bool), expected)
    for group in seg.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0].ImagePositionPatient
        of = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        [image] = [image for image in images if of == image.SOPInstanceUID]
        assert np.allclose(position, image.ImagePositionPatient, atol=1e-3)


def read_back(folder: Path) -> StudyMarks:
    [shelf] = shelves(folder)
    with Codec() as codec:
        return marks_of(shelf, codec)


def test_the_report_is_read_back_as_the_marks_of_a_reader_would_be(folder: Path) -> None:
    found = read_back(folder)
    assert found.patient_id.startswith(PREFIX)
    assert len(found.marks) == 2
    images = {pydicom.dcmread(path).SOPInstanceUID: i for i, path in enumerate(sorted(folder.glob("ct-*.dcm")))}
    for mark in found.marks:
        [lesion] = [one for one in (FIRST, SECOND) if one.slice_index == images[mark.image.instance_uid]]
        assert np.allclose(mark.long_px, lesion.long_px, atol=1e-4)
        assert np.allclose(mark.short_px, lesion.short_px, atol=1e-4)
        assert mark.long_mm == pytest.approx(lesion.long_mm, abs=0.01)
        assert mark.short_mm == pytest.approx(lesion.short_mm, abs=0.01)
        assert (mark.about.finding[:2], mark.about.site[:2]) == (NODULE[:2], LUNG[:2])
    assert {refusal.reason for refusal in found.refusals} == {"the same lesion is marked already (tracking UID)"}


def test_the_masks_alone_are_read_back_at_the_same_places(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "study")
    report = tmp_path / "study" / "truth-sr.dcm"
    ds = pydicom.dcmread(report)
    groups = ds.ContentSequence[-2].ContentSequence
    ds.ContentSequence[-2].ContentSequence = [one for one in groups if "Referenced Segment" in str(one)]
    ds.save_as(report)
    found = read_back(tmp_path / "study")
    assert [mark.about.origin for mark in found.marks] == ["SR TID 1411", "SR TID 1411"]
    spots = {tuple(np.round(np.mean(mark.long_px, axis=0)).astype(int)) for mark in found.marks}
    for lesion in (FIRST, SECOND):
        middle = [(part.start + part.stop - 1) / 2 for part in lesion.box[:0:-1]]
        assert min(np.abs(np.subtract(spot, middle)).max() for spot in spots) <= 1


@needs("dciodvfy")
def test_the_step_is_that_of_all_slices_and_so_is_a_thickness_that_nobody_told(folder: Path, tmp_path: Path) -> None:
    [measures] = document(folder, "seg").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (SPACING[0], SPACING[0])
    made = [path.read_bytes() for path in sorted(folder.glob("ct-*.dcm"))]
    headers = [header_of(each) for each in made]
    for header in headers:
        header.SliceThickness = None
    volume, source = read_volume(paths := sorted(folder.glob("ct-*.dcm"))), SeriesSource.load(paths)
    study = SyntheticStudy.of(volume.voxels, source, MAKING)
    apart = replace(SECOND, box=(slice(9, 11), *SECOND.box[1:]))
    _, content = truth_documents(headers, [FIRST, apart], study, step_mm=SPACING[0])[0]
    (tmp_path / "seg.dcm").write_bytes(content)
    assert errors_of(tmp_path / "seg.dcm") == []


def test_the_same_study_makes_the_same_bytes(folder: Path) -> None:
    made = [path.read_bytes() for path in sorted(folder.glob("ct-*.dcm"))]
    paths = sorted(folder.glob("ct-*.dcm"))
    volume, source = read_volume(paths), SeriesSource.load(paths)
    study = SyntheticStudy.of(volume.voxels, source, MAKING)
    one, two = (
        truth_documents([header_of(each) for each in made], [FIRST, SECOND], study, step_mm=SPACING[0])
        for _ in range(2)
    )
    assert one == two
