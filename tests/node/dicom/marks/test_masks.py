from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from gate import made
from images import marks
from images.marks import Scan
from node.dicom.marks.mark import Origin


def segment_group(segmentation: Any, number: int, *, frames: list[int] | None = None) -> Dataset:
    """TID 1411, or TID 1410 where frames are named."""
    named = marks.node("IMAGE", marks.code("121214" if frames else "121191"))
    reference = marks.reference(segmentation)
    reference.ReferencedSegmentNumber = number
    if frames:
        reference.ReferencedFrameNumber = frames
    named.ReferencedSOPSequence = [reference]
    return marks.group(named, template="1410" if frames else "1411", tracking_uid=f"1.2.3.99.{number}")


def segmented(paths: list[Path], folder: Path, masks: Any) -> tuple[Path, Any]:
    """A binary segmentation by highdicom, one segment for each mask bool (Z, Y, X) in the order of paths."""
    images = [pydicom.dcmread(path) for path in paths]
    descriptions = [
        hd.seg.SegmentDescription(
            number, f"{number}", pydicom.sr.codedict.codes.SCT.Tissue, pydicom.sr.codedict.codes.SCT.Mass, "MANUAL"
        )
        for number in range(1, len(masks) + 1)
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
    path, segmentation = segmented(paths, tmp_path / "seg", [mask, np.roll(mask, 3, axis=1)])
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
    assert [it.reason for it in found.refusals] == ["the same lesion is marked already (tracking UID)"]
