from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from images import phantom
from models.contract import FloatArray
from node.dicom.read import read_volume
from node.dicom.read.brightness import alternation_hu

SHAPE = (48, 48)


def scan(slices: int, step_hu: float, *, seed: int = 1) -> FloatArray:
    """Air around soft tissue that slowly changes along the scan; `step_hu` more in every second slice."""
    rng = np.random.default_rng(seed)
    slowly = 80 + 15 * np.sin(np.arange(slices) / 5) + rng.normal(0, 0.3, slices)
    means = slowly + step_hu * (np.arange(slices) % 2)
    voxels = np.full((slices, *SHAPE), -1000.0)
    voxels[:, 4:-4, 4:-4] = means[:, None, None] + rng.normal(0, 15, (slices, 40, 40))
    return voxels.astype(np.float32)


@pytest.mark.parametrize("step_hu", [-40.0, -6.0, 6.0, 40.0])
def test_finds_by_how_much_every_second_slice_is_brighter(step_hu: float) -> None:
    assert alternation_hu(scan(30, step_hu)) == pytest.approx(abs(step_hu), rel=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_one_scan_does_not_alternate(seed: int) -> None:
    assert alternation_hu(scan(30, 0, seed=seed)) == 0
    assert alternation_hu(scan(12, 0, seed=seed)) == 0


def test_a_scan_of_few_slices_or_without_tissue_is_not_judged() -> None:
    assert alternation_hu(scan(11, 40)) == 0
    assert alternation_hu(np.full((20, *SHAPE), -1000, np.float32)) == 0


def test_a_change_at_one_place_is_no_alternation() -> None:
    voxels = scan(30, 0)
    voxels[10:13] += 60
    assert alternation_hu(voxels) == 0


def test_of_two_phases_slice_by_slice_that_no_header_tells_apart_one_is_read(tmp_path: Path) -> None:
    stored = (scan(13, 40) + 1024).astype(np.uint16)
    paths = phantom.save_series(
        [phantom.ct(n + 1, values, SliceThickness=5) for n, values in enumerate(stored)], tmp_path
    )
    volume = read_volume(paths)
    assert [source.instance_uid for source in volume.sources] == [f"{phantom.SERIES}.{n}" for n in range(1, 14, 2)]
    assert volume.voxels.shape == (7, *SHAPE)
    assert volume.spacing_zyx_mm[0] == pytest.approx(5)
    np.testing.assert_array_equal(volume.voxels, stored[::2].astype(np.float32) - 1024)
    [note] = volume.notes
    assert "two contrast phases" in note
    assert "(7 of 13 images)" in note


@pytest.mark.parametrize("thickness", [2.5, None])
def test_no_slice_is_left_out_for_its_brightness_where_slices_do_not_overlap(
    thickness: float | None, tmp_path: Path
) -> None:
    stored = (scan(13, 40) + 1024).astype(np.uint16)
    images = [phantom.ct(n + 1, values, SliceThickness=thickness) for n, values in enumerate(stored)]
    volume = read_volume(phantom.save_series(images, tmp_path))
    assert len(volume.voxels) == 13
    [note] = volume.notes
    assert "All slices were read as one scan" in note
