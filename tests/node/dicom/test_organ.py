"""A liver's mask from a segmentation, on the grid of the series that was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from models.contract import BoolArray
from node.dicom.organ import liver_mask
from node.dicom.read.volume import read_volume
from node.dicom.synthetic import Labels, write_ct_series
from node.errors import ConfigurationError, NotEligible

VOXELS = np.random.default_rng(0).normal(0, 60, (6, 40, 36)).astype(np.float32)
ORGANS = {"Liver": ("10200004", "SCT"), "Spleen": ("78961009", "SCT")}


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_ct_series(tmp_path / "ct", VOXELS, (3.0, 0.8, 0.8), labels=Labels(patient_id="A"))


def drawn() -> BoolArray:
    """(Z, Y, X), different on each slice, so that no turn or shift goes unnoticed."""
    mask = np.zeros((6, 40, 36), bool)
    for index in range(1, 5):
        mask[index, 10 + index : 20, 5 : 12 + index] = True
    return mask


def segmented(paths: list[Path], to: Path, organs: dict[str, tuple[str, str]]) -> Path:
    """The mask as the first organ's, and its mirror image as the second's."""
    volume = read_volume(paths)
    by_uid = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, paths)}
    masks = np.stack([drawn(), drawn()[:, :, ::-1]][: len(organs)], axis=-1)
    described: list[Any] = [
        hd.seg.SegmentDescription(
            number, label, Code("123037004", "SCT", "Anatomical Structure"), Code(*code, label),
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, (label, code) in enumerate(organs.items(), start=1)
    ]  # fmt: skip
    seg = hd.seg.Segmentation(
        [by_uid[ref.instance_uid] for ref in volume.sources], masks, hd.seg.SegmentationTypeValues.BINARY, described,
        generate_uid(), 7, generate_uid(), 1, "Somebody", "Tool", "1", "1",
    )  # fmt: skip
    seg.save_as(to)
    return to


def test_the_segment_that_is_called_liver_is_taken_at_its_place(series: list[Path], tmp_path: Path) -> None:
    seg = segmented(series, tmp_path / "seg.dcm", ORGANS)
    assert np.array_equal(liver_mask(seg, read_volume(series), series), drawn())
    assert np.array_equal(liver_mask(seg, read_volume(series), series, segment=2), drawn()[:, :, ::-1])


def test_the_order_of_the_files_does_not_matter(series: list[Path], tmp_path: Path) -> None:
    seg = segmented(series, tmp_path / "seg.dcm", ORGANS)
    assert np.array_equal(liver_mask(seg, read_volume(series[::-1]), series[::-1]), drawn())


def test_no_segment_of_the_liver_is_said_with_those_that_are_there(series: list[Path], tmp_path: Path) -> None:
    seg = segmented(series, tmp_path / "seg.dcm", {"Spleen": ORGANS["Spleen"]})
    with pytest.raises(ConfigurationError, match=r"--segment; there are 1 \(Spleen\)"):
        liver_mask(seg, read_volume(series), series)
    with pytest.raises(NotEligible, match="empty"):
        liver_mask(seg, read_volume(series), series, segment=9)


def test_what_is_no_segmentation_of_this_series_is_refused(series: list[Path], tmp_path: Path) -> None:
    other = write_ct_series(tmp_path / "other", VOXELS, (3.0, 0.8, 0.8), labels=Labels(study="2", series="2"))
    seg = segmented(other, tmp_path / "seg.dcm", ORGANS)
    with pytest.raises(NotEligible, match="another series"):
        liver_mask(seg, read_volume(series), series)
    with pytest.raises(ConfigurationError, match="no DICOM segmentation"):
        liver_mask(series[0], read_volume(series), series)
    (tmp_path / "text").write_text("liver", encoding="utf8")
    with pytest.raises(ConfigurationError, match="no DICOM"):
        liver_mask(tmp_path / "text", read_volume(series), series)
