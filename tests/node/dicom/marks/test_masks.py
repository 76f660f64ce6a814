from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from gate import made
from images import marks, phantom
from images.marks import Scan
from node.dicom.marks.mark import Origin
from node.dicom.marks.masks import Segmentation
from node.dicom.marks.series import CtSeries
from node.dicom.read.codec import Codec
from node.errors import NotEligible


def segment_group(segmentation: Any, number: int, *, frames: list[int] | None = None) -> Dataset:
    """TID 1411, or TID 1410 where frames are named."""
    named = marks.node("IMAGE", marks.code("121214" if frames else "121191"))
    reference = marks.reference(segmentation)
    reference.ReferencedSegmentNumber = number
    if frames:
        reference.ReferencedFrameNumber = frames
    named.ReferencedSOPSequence = [reference]
    return marks.group(named, template="1410" if frames else "1411", tracking_uid=f"1.2.3.99.{number}")


def segmented(paths: list[Path], folder: Path, masks: Any, named: Any = None) -> tuple[Path, Any]:
    """A binary segmentation by highdicom, one segment for each mask bool (Z, Y, X) in the order of paths.

    named   label, category, type and algorithm of each
    """
    images = [pydicom.dcmread(path) for path in paths]
    algorithm = hd.AlgorithmIdentificationSequence("a", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        hd.seg.SegmentDescription(
            number, *each, algorithm_identification=algorithm if each[-1] == "AUTOMATIC" else None
        )
        for number, each in enumerate(named or [("x", codes.SCT.Tissue, codes.SCT.Mass, "MANUAL")] * len(masks), 1)
    ]
    built = hd.seg.Segmentation(
        images, np.stack(masks, axis=-1), "BINARY", descriptions, "2.25.30", 1, "2.25.31", 1, "m", "m", "1", "1"
    )
    folder.mkdir(parents=True)
    built.save_as(folder / "seg.dcm")
    return folder / "seg.dcm", built


def test_the_largest_part_of_a_segment_is_measured_where_it_is_longest(tmp_path: Path, harvest: Any) -> None:
    """Pixels of .7 mm. Largest: 9 × 5 pixels on two slices, 11 × 5 on the next; a longer line elsewhere is smaller."""
    paths = made.ct_series(tmp_path / "ct", slices=5)
    mask = np.zeros((5, 40, 37), dtype=bool)
    mask[1:3, 10:15, 5:14] = True
    mask[3, 10:15, 5:16] = True
    mask[0, 30:32, 2:32] = True
    path, segmentation = segmented(paths, tmp_path / "seg", [mask])
    images = [pydicom.dcmread(each) for each in paths]
    found = harvest(
        Scan(paths, images), marks.report([*images, segmentation], segment_group(segmentation, 1)), more=[path]
    )
    assert found.refusals == ()
    (mark,) = found.marks
    assert mark.about.origin == Origin.VOLUMETRIC
    assert mark.image.instance_uid == images[3].SOPInstanceUID
    assert mark.long_mm == pytest.approx(0.7 * np.hypot(10, 4), abs=1e-6)
    xs, ys = zip(*mark.long_px, strict=True)
    assert sorted(xs) == pytest.approx([5.0, 15.0])
    assert sorted(ys) == pytest.approx([10.0, 14.0])


def test_named_frames_alone_are_meant_and_a_segment_that_is_not_there_is_refused(tmp_path: Path, harvest: Any) -> None:
    paths = made.ct_series(tmp_path / "ct", slices=3)
    mask = np.zeros((3, 40, 37), dtype=bool)
    mask[0, 10:15, 5:10] = True
    mask[1, 10:15, 5:16] = True
    path, segmentation = segmented(paths, tmp_path / "seg", [mask])
    of_first = next(
        number
        for number, frame in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1)
        if np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient[2], 5.0)
    )
    images = [pydicom.dcmread(each) for each in paths]
    report = marks.report(
        [*images, segmentation], segment_group(segmentation, 1, frames=[of_first]), segment_group(segmentation, 7)
    )
    found = harvest(Scan(paths, images), report, more=[path])
    (mark,) = found.marks
    assert (mark.about.origin, mark.image.instance_uid) == (Origin.PLANAR, images[0].SOPInstanceUID)
    assert [it.reason for it in found.refusals] == ["the segmentation is not usable: The segment is empty."]


def test_a_segmentation_on_another_grid_is_refused(tmp_path: Path, harvest: Any) -> None:
    paths = made.ct_series(tmp_path / "ct", slices=3)
    mask = np.zeros((3, 40, 37), dtype=bool)
    mask[1, 10:15, 5:16] = True
    path, segmentation = segmented(paths, tmp_path / "seg", [mask])
    moved = pydicom.dcmread(path)
    moved.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient = [-20.0, -29.0, 7.5]
    moved.save_as(path)
    images = [pydicom.dcmread(each) for each in paths]
    report = marks.report([*images, segmentation], segment_group(segmentation, 1))
    found = harvest(Scan(paths, images), report, more=[path])
    assert [it.reason for it in found.refusals] == [
        "the segmentation is not usable: The segmentation is on another grid than the images."
    ]


def test_a_volume_repeats_the_axes_of_the_same_tracking_uid(tmp_path: Path, harvest: Any) -> None:
    """As this node and others write both: the axes on one slice, the volume's longest on another."""
    run = made.process(made.ct_series(tmp_path / "ct", slices=5), lesions=1)
    segmentation = next(result for result in run.images if result.kind == "seg")
    ds = pydicom.dcmread(io.BytesIO(segmentation.data))
    (tmp_path / "seg").mkdir()
    path = tmp_path / "seg" / "seg.dcm"
    path.write_bytes(segmentation.data)
    images = [pydicom.dcmread(each) for each in run.paths]
    axes = marks.bidirectional(images[2], [(5, 12), (13, 12), (9, 10), (9, 14)], tracking_uid="1.2.3.99.1")
    report = marks.report([*images, ds], axes, segment_group(ds, 1))
    found = harvest(Scan(run.paths, images), report, more=[path])
    assert [mark.about.origin for mark in found.marks] == [Origin.BIDIRECTIONAL]
    assert [it.reason for it in found.refusals] == [
        "made by this node, not by a reader",  # the segmentation as such
        "the same lesion is marked already (tracking UID)",
    ]


ABNORMAL, ORGAN = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.AnatomicalStructure
LESIONS = [
    ("1", ABNORMAL, codes.SCT.Lesion, "MANUAL"),
    ("liver", ORGAN, codes.SCT.Liver, "AUTOMATIC"),
    ("Mrs Smith", ABNORMAL, codes.SCT.Edema, "MANUAL"),
    ("tumour 2", codes.SCT.Tissue, codes.SCT.Tissue, "AUTOMATIC"),
]


def four_segments() -> list[Any]:
    mask = np.zeros((5, 40, 37), dtype=bool)
    mask[2, 10:15, 5:14] = True
    return [np.roll(mask, shift, axis=(0, 1)) for shift in ((0, 0), (0, 8), (1, 0), (1, 14))]


def test_lesions_of_a_segmentation_without_a_report_have_axes_and_organs_have_none(
    tmp_path: Path, harvest: Any
) -> None:
    paths = made.ct_series(tmp_path / "ct", slices=5)
    path, _ = segmented(paths, tmp_path / "seg", four_segments(), LESIONS)
    images = [pydicom.dcmread(each) for each in paths]
    found = harvest(Scan(paths, images), more=[path])
    assert [it.reason for it in found.refusals] == ["a region that is not said to be a lesion"] * 2
    assert [mark.about.origin for mark in found.marks] == [Origin.SEGMENTATION] * 2
    assert [mark.about.observer for mark in found.marks] == ["person", "device"]
    assert [mark.image.instance_uid for mark in found.marks] == [images[2].SOPInstanceUID, images[3].SOPInstanceUID]
    for mark, top in zip(found.marks, (10, 24), strict=True):
        assert mark.long_mm == pytest.approx(0.7 * np.hypot(8, 4), abs=1e-6)
        assert sorted(y for _, y in mark.long_px) == pytest.approx([top, top + 4])
    assert "Smith" not in repr(found)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_segment_that_a_report_speaks_of_counts_once(replaced: bool, tmp_path: Path, harvest: Any) -> None:
    """A report that was replaced has had its say too: the one after it may have been drawn anew."""
    paths = made.ct_series(tmp_path / "ct", slices=5)
    path, segmentation = segmented(paths, tmp_path / "seg", four_segments(), LESIONS)
    images = [pydicom.dcmread(each) for each in paths]
    report = marks.report([*images, segmentation], segment_group(segmentation, 1))
    axes = marks.bidirectional(images[0], [(5, 12), (13, 12), (9, 10), (9, 14)])
    later = marks.supersede(marks.report(images, axes, uid="1.2.3.88.2"), "1.2.3.88.1")
    found = harvest(Scan(paths, images), report, *([later] if replaced else []), more=[path])
    assert {mark.about.origin for mark in found.marks} == {
        Origin.BIDIRECTIONAL if replaced else Origin.VOLUMETRIC,
        Origin.SEGMENTATION,
    }
    assert len(found.marks) == 2


def odd_images(folder: Path) -> list[Path]:
    """41 × 37 pixels: a frame of one bit a pixel ends within a byte."""
    paths = []
    for number in range(1, 6):
        ds = phantom.ct(number, phantom.stored_values(number, (41, 37)), ImagePositionPatient=[0, 0, 2.5 * number])
        for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
            setattr(ds, keyword, "")
        ds.PositionReferenceIndicator, ds.ReferringPhysicianName, ds.SeriesNumber = "", "", 1
        paths.append(phantom.save(ds, folder / f"{number}.dcm"))
    return paths


@pytest.mark.parametrize(
    ("kind", "syntax", "plugin"),
    [
        ("BINARY", "", ""),
        ("FRACTIONAL", "", ""),
        ("FRACTIONAL", "1.2.840.10008.1.2.5", "pydicom"),
        ("LABELMAP", "", ""),
        ("LABELMAP", "1.2.840.10008.1.2.5", "pydicom"),
        ("LABELMAP", "1.2.840.10008.1.2.4.90", "pylibjpeg"),
    ],
)
def test_a_segment_is_found_in_every_kind_of_segmentation(
    kind: str, syntax: str, plugin: str, tmp_path: Path, codec: Codec
) -> None:
    paths = odd_images(tmp_path)
    masks = np.zeros((5, 41, 37, 3), dtype=bool)
    for segment in range(3):
        masks[segment : segment + 3, 5 + segment : 9, 3 + 9 * segment : 9 + 9 * segment, segment] = True
        masks[segment, 30, 3 + 9 * segment, segment] = True  # apart, and smaller
    given = masks.astype(float) if kind == "FRACTIONAL" else masks
    if kind == "LABELMAP":
        given = np.where(masks.any(axis=-1), 1 + np.argmax(masks, axis=-1), 0).astype(np.uint8)
    described = [
        hd.seg.SegmentDescription(number, "x", codes.SCT.Tissue, codes.SCT.Mass, "MANUAL") for number in (1, 2, 3)
    ]
    images = [pydicom.dcmread(path) for path in paths]
    built = hd.seg.Segmentation(
        *(images, given, kind, described, "2.25.30", 1, "2.25.31", 1, "m", "m", "1", "1"),
        **({"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}),
    )
    if plugin:
        built.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    built.save_as(tmp_path / "seg")
    series = CtSeries.load(paths, codec)
    for segment in range(3):
        part = Segmentation(tmp_path / "seg", codec).largest_part(segment + 1, (), series)
        expected = masks[::-1, :, :, segment].copy()  # a series is head → feet
        expected[:, 30] = False
        assert np.array_equal(part, expected)


def test_a_segmentation_that_is_cut_off_is_refused_in_words(tmp_path: Path, codec: Codec) -> None:
    paths = odd_images(tmp_path)
    path, _ = segmented(paths, tmp_path / "seg", [np.ones((5, 41, 37), dtype=bool)])
    cut = pydicom.dcmread(path)
    cut.PixelData = cut.PixelData[:500]
    cut.save_as(path)
    with pytest.raises(NotEligible, match="cut off"):
        Segmentation(path, codec).largest_part(1, (), CtSeries.load(paths, codec))
