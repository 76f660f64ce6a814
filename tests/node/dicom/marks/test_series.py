from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from images import marks, phantom
from images.marks import Scan
from models.contract import SourceRef
from node.dicom.marks.series import CtSeries, person_of
from node.dicom.read.codec import Codec
from node.errors import NotEligible

UP_AND_DOWN = [list(phantom.AXIAL), [1.0, 0.0, 0.0, 0.0, -1.0, 0.0]]


@pytest.mark.parametrize("orientation", UP_AND_DOWN, ids=["seen from the feet", "seen from the head"])
def test_slices_go_from_head_to_feet(orientation: list[float], tmp_path: Path, codec: Codec) -> None:
    scanned = marks.scan(tmp_path, ImageOrientationPatient=orientation)
    series = CtSeries.load(scanned.paths[::-1], codec)
    heights = [frame.position[2] for frame in series.frames]
    assert heights == sorted(heights, reverse=True)
    assert series.neighbours(2, 30) == (0, 4, pytest.approx(2.5))


def test_the_interval_is_that_of_positions_and_not_the_thickness(tmp_path: Path, codec: Codec) -> None:
    series = CtSeries.load(marks.scan(tmp_path, step=1.25, SliceThickness=5).paths, codec)
    assert series.neighbours(2, 2.5) == (0, 4, pytest.approx(1.25))
    assert series.neighbours(2, 2.4) == (1, 3, pytest.approx(1.25))
    assert series.half_step_mm(0) == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0, 1, 2, 5, 6, 7], {0: (0, 2, 1.0), 5: (3, 5, 1.0)}),  # slices 3 and 4 are missing
        ([0, 1, 2, 7, 12, 17], {0: (0, 3, 5.0), 5: (3, 5, 1.0)}),  # thick through the neck, thin below
        ([0, 0.6, 1.2, 1.9, 2.5, 3.1], {2: (0, 5, 0.6)}),  # 0.625 mm, rounded
    ],
)
def test_neighbours_end_where_the_scan_is_no_longer_even(
    heights: list[float], expected: dict[int, tuple[int, int, float]], tmp_path: Path, codec: Codec
) -> None:
    scanned = marks.scan(tmp_path, slices=len(heights))
    for ds, path, height in zip(scanned.headers, scanned.paths, heights, strict=True):
        ds.ImagePositionPatient = [0, 0, height]
        phantom.save(ds, path)
    series = CtSeries.load(scanned.paths, codec)
    for index, (first, last, step) in expected.items():
        assert series.neighbours(index, 30) == (first, last, pytest.approx(step))


def test_one_slice_has_no_interval(tmp_path: Path, codec: Codec) -> None:
    series = CtSeries.load(marks.scan(tmp_path, slices=1).paths, codec)
    first, last, step = series.neighbours(0, 30)
    assert (first, last, math.isnan(step)) == (0, 0, True)
    assert series.half_step_mm(0) == 1.25


def test_a_single_frame_may_be_called_frame_1(axial: Scan, codec: Codec) -> None:
    series = CtSeries.load(axial.paths, codec)
    uid = str(axial.key.SOPInstanceUID)
    assert series.index_of(SourceRef(uid, None)) == series.index_of(SourceRef(uid, 1)) == 3
    assert series.index_of(SourceRef(uid, 2)) is None
    assert series.index_of(SourceRef("1.2.3", None)) is None


def test_values_are_whole_hounsfield_units_that_16_bits_hold(tmp_path: Path, codec: Codec) -> None:
    scanned = marks.scan(tmp_path, RescaleSlope="40")
    series = CtSeries.load(scanned.paths, codec)
    index = series.index_of(SourceRef(str(scanned.key.SOPInstanceUID), None))
    assert index is not None
    stored = phantom.stored_values(2, marks.SHAPE).astype(int)
    assert np.array_equal(series.hounsfield(index, codec), np.minimum(stored * 40 - 1024, 32767))


def test_fill_values_of_unsigned_pixels_are_below_air_and_not_the_brightest_metal(tmp_path: Path, codec: Codec) -> None:
    scanned = marks.scan(tmp_path, slices=1, BitsStored=16, HighBit=15)
    stored = phantom.stored_values(1, marks.SHAPE)
    stored[:9], stored[-9:] = 63536, 65535
    scanned.headers[0].PixelData = stored.tobytes()
    phantom.save(scanned.headers[0], scanned.paths[0])
    hu = CtSeries.load(scanned.paths, codec).hounsfield(0, codec)
    assert (set(hu[:9].ravel()), set(hu[-9:].ravel())) == ({-3024}, {-1025})
    assert np.array_equal(hu[9:-9], stored[9:-9].astype(int) - 1024)


@pytest.mark.parametrize(
    ("elements", "words"), [({"LossyImageCompression": "01"}, "loss"), ({"BurnedInAnnotation": "YES"}, "burnt")]
)
def test_refuses_what_lost_its_values_or_may_name_the_patient(
    elements: Any, words: str, tmp_path: Path, codec: Codec
) -> None:
    series = CtSeries.load(marks.scan(tmp_path, **elements).paths, codec)
    with pytest.raises(NotEligible, match=words):
        series.hounsfield(0, codec)


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "061Y"}, 61),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "089Y"}, 89),
        ({"PatientAge": "093Y"}, 90),
        ({"PatientAge": "", "PatientBirthDate": "19600103"}, 65),  # the day after the study
        ({"PatientAge": "", "PatientBirthDate": "19600102"}, 66),
        ({"PatientAge": "", "PatientBirthDate": "19000101"}, 90),
        ({"PatientAge": "", "PatientBirthDate": ""}, math.nan),
        ({"PatientAge": "old"}, math.nan),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Invalid value for VR AS:UserWarning")
def test_the_age_is_told_up_to_89(elements: Any, age: float, tmp_path: Path) -> None:
    ds = phantom.ct(1, PatientSex="X", **elements)
    person = person_of(phantom.save(ds, tmp_path / "ct.dcm"))
    assert person.age == pytest.approx(age, nan_ok=True)
    assert person.sex == ""
    assert person.window_hu == (-175, 275)  # none in the image


def test_what_no_network_is_needed_for_does_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import node.dicom.marks.study, node.dicom.marks.deidentify"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
