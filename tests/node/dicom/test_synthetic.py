from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.dicom.header import read_header
from node.dicom.read import read_radiograph, read_volume
from node.dicom.select import CHEST_XRAY, LOW_DOSE_CT, choose
from node.dicom.synthetic import Labels, write_ct_series, write_dx

SPACING = (2.5, 0.7, 0.8)


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1000, 1500, (4, 24, 32)).astype(np.float32)


def test_a_written_ct_reads_back_as_it_was(tmp_path: Path, voxels: np.ndarray) -> None:
    volume = read_volume(write_ct_series(tmp_path, voxels, SPACING))
    assert np.array_equal(volume.voxels, np.rint(voxels))
    assert volume.spacing_zyx_mm == pytest.approx(SPACING)
    middle = volume.affine @ [1.5, 11.5, 15.5, 1]
    assert middle[:3] == pytest.approx([0, 0, 0])
    assert volume.affine[:3, 0] == pytest.approx([0, 0, 2.5])  # feet to head
    assert volume.padding is None
    assert volume.even_steps


def test_values_beyond_12_bits_are_clipped(tmp_path: Path) -> None:
    voxels = np.zeros((3, 16, 16), np.float32)
    voxels[0, 0, 0], voxels[0, 0, 1] = -3000, 9000
    read = read_volume(write_ct_series(tmp_path, voxels, SPACING)).voxels
    assert (read.min(), read.max()) == (-1024, 3071)


def test_a_written_radiograph_reads_back_bright_where_dense(tmp_path: Path) -> None:
    pixels = np.linspace(0, 4095, 48 * 32).reshape(48, 32).astype(np.float32)
    image = read_radiograph(write_dx(tmp_path, pixels, 0.35))
    assert np.array_equal(image.pixels, np.rint(pixels))
    assert not image.inverted
    assert image.view == "PA"
    assert image.spacing_yx_mm == pytest.approx((0.35, 0.35))


def test_the_magnification_told_gives_the_pixel_in_the_patient(tmp_path: Path) -> None:
    pixels = np.linspace(0, 4095, 48 * 32).reshape(48, 32).astype(np.float32)
    image = read_radiograph(write_dx(tmp_path, pixels, 0.33, magnification=1.1))
    assert image.spacing_yx_mm == pytest.approx((0.3, 0.3))
    assert image.notes == ()


def test_both_are_taken_for_what_they_are(tmp_path: Path, voxels: np.ndarray) -> None:
    paths = [*write_ct_series(tmp_path, voxels, SPACING), write_dx(tmp_path, np.full((32, 32), 7, np.float32), 0.2)]
    series: dict[str, list] = {}
    for header in map(read_header, paths):
        series.setdefault(header.series_instance_uid, []).append(header)
        assert not header.own_result
    assert sorted(choice.eligible_for or "" for choice in choose(series)) == [CHEST_XRAY, LOW_DOSE_CT]


def test_same_input_gives_same_bytes_and_other_labels_other_uids(tmp_path: Path, voxels: np.ndarray) -> None:
    first = write_ct_series(tmp_path / "1", voxels, SPACING)
    again = write_ct_series(tmp_path / "2", voxels, SPACING)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    other = write_ct_series(tmp_path / "3", voxels, SPACING, labels=Labels(series="2"))
    ours, theirs = (pydicom.dcmread(paths[0]) for paths in (first, other))
    assert ours.StudyInstanceUID == theirs.StudyInstanceUID
    assert ours.FrameOfReferenceUID == theirs.FrameOfReferenceUID
    assert ours.SeriesInstanceUID != theirs.SeriesInstanceUID
    assert ours.SOPInstanceUID != theirs.SOPInstanceUID


def test_every_object_says_that_it_is_simulated(tmp_path: Path, voxels: np.ndarray) -> None:
    for path in (write_ct_series(tmp_path, voxels, SPACING)[0], write_dx(tmp_path, voxels[0], 0.3)):
        image = pydicom.dcmread(path)
        assert "SIMULATED" in image.SeriesDescription
        assert "SIMULATED" in image.ProtocolName
        assert "phantom" in image.ImageComments


@pytest.mark.system
def test_the_conformance_check_finds_no_error(tmp_path: Path, voxels: np.ndarray) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.fail("dciodvfy is missing: apt-get install dicom3tools")
    for path in (*write_ct_series(tmp_path, voxels, SPACING), write_dx(tmp_path, voxels[0], 0.35, magnification=1.1)):
        found = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []
