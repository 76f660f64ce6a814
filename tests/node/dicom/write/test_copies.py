from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate import made, quirks
from models.contract import Volume
from node.dicom.read import read_volume
from node.dicom.write import SeriesSource, copies


def _copies(paths: list[Path]) -> tuple[list[Any], Volume]:
    volume, source = read_volume(paths), SeriesSource.load(paths)
    copied, _ = copies.slices(volume, range(len(volume.sources)), source)
    return copied, volume


def test_nothing_of_the_patient_is_in_a_copy(tmp_path: Path) -> None:
    copied, _ = _copies(made.ct_series(tmp_path))
    for secret in ("Anna", "P-17", "A-17", "Meier", "19500203"):
        assert not any(secret in str(copy) for copy in copied)


def test_one_orientation_is_kept_digit_by_digit(tmp_path: Path) -> None:
    copied, _ = _copies(made.ct_series(tmp_path, orientation=made.OBLIQUE))
    for copy in copied:
        assert [str(value) for value in copy.ImageOrientationPatient] == [str(value) for value in made.OBLIQUE]


def test_of_several_orientations_that_of_the_volume_is_taken(tmp_path: Path) -> None:
    fault = quirks.every_other("ImageOrientationPatient", [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 5e-4])
    copied, volume = _copies(quirks.plant(fault, made.ct_series(tmp_path, slices=4)))
    stated = np.array([copy.ImageOrientationPatient for copy in copied], dtype=float)
    assert (stated == stated[0]).all()
    assert np.allclose(stated[0, 3:], volume.affine[:3, 1] / 0.7, atol=1e-9)
    assert stated[0, 5] == pytest.approx(2.5e-4)


def test_the_frame_of_reference_that_some_slices_state_is_that_of_all(tmp_path: Path) -> None:
    copied, _ = _copies(quirks.plant(quirks.on_one(0, quirks.says(FrameOfReferenceUID=None)), made.ct_series(tmp_path)))
    assert {copy.FrameOfReferenceUID for copy in copied} == {f"{made.ROOT}.9"}


def test_without_any_frame_of_reference_all_slices_share_one_of_ours(tmp_path: Path) -> None:
    copied, _ = _copies(made.ct_series(tmp_path, FrameOfReferenceUID=None))
    [uid] = {copy.FrameOfReferenceUID for copy in copied}
    assert uid.startswith("2.25.")


@pytest.mark.parametrize(("stated", "thickness"), [(5, 5), (0, 2.5), ("", 2.5), (None, 2.5), ([1, 2], 1)])
def test_a_thickness_that_is_none_is_the_step(stated: Any, thickness: float, tmp_path: Path) -> None:
    copied, _ = _copies(quirks.plant(quirks.says(SliceThickness=stated), made.ct_series(tmp_path)))
    assert {float(copy.SliceThickness) for copy in copied} == {thickness}


def test_frames_become_images_that_are_told_apart(tmp_path: Path) -> None:
    paths = made.enhanced_ct(tmp_path)
    volume, source = read_volume(paths), SeriesSource.load(paths)
    copied, named = copies.slices(volume, [1, 2], source)
    assert [named[copy.SOPInstanceUID] for copy in copied] == list(volume.sources[1:3])
    assert all("PerFrameFunctionalGroupsSequence" not in copy for copy in copied)
    assert float(copied[0].SliceThickness) == 2.5
