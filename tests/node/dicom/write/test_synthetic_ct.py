"""Synthetic CT: nobody's images, the pixels those received but for the lesions and the word."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from models.contract import FloatArray, Volume
from node.dicom.header import read_header
from node.dicom.read.volume import read_volume
from node.dicom.select import Role, judge
from node.dicom.synthetic import Labels, write_ct_series
from node.dicom.write.source import SeriesSource
from node.dicom.write.synthetic_ct import PREFIX, Making, SyntheticStudy, synthetic_images
from node.errors import NotEligible

SECRET = "Confidential"
MAKING = Making(3, "formula", marked=False)


@pytest.fixture
def received(tmp_path: Path) -> list[Path]:
    """A scan full of what must not be handed on."""
    voxels = np.random.default_rng(1).normal(-600, 300, (4, 64, 48)).astype(np.float32)
    labels = Labels(patient_id=f"{SECRET}1", patient_name=f"{SECRET}^Name", accession_number=f"{SECRET}2")
    paths = write_ct_series(tmp_path / "received", voxels, (2.5, 0.9, 0.7), labels=labels)
    for path in paths:
        ds = pydicom.dcmread(path)
        for keyword in (
            "InstitutionName",
            "OperatorsName",
            "StudyDescription",
            "PatientComments",
            "DeviceSerialNumber",
        ):
            setattr(ds, keyword, SECRET)
        ds.PatientBirthDate, ds.StudyDate, ds.PatientAge = "19500203", "20190405", "069Y"
        ds.save_as(path)
    return paths


def volume_of(paths: Sequence[Path]) -> Volume:
    return read_volume(paths)


def made(paths: Sequence[Path], voxels: FloatArray, making: Making = MAKING) -> list[Any]:
    return [pydicom.dcmread(io.BytesIO(content)) for _, content in files(paths, voxels, making)]


def files(paths: Sequence[Path], voxels: FloatArray, making: Making = MAKING) -> list[tuple[str, bytes]]:
    source = SeriesSource.load(paths)
    study = SyntheticStudy.of(voxels, source, making)
    return list(synthetic_images(voxels, volume_of(paths), source, study, lesions=2))


def test_nothing_of_the_patient_and_the_visit_is_handed_on(received: list[Path]) -> None:
    sources = [pydicom.dcmread(path) for path in received]
    known = {str(element.value) for ds in sources for element in ds if element.VR == "UI"}
    for ds in made(received, volume_of(received).voxels):
        text = str(ds)
        for word in (SECRET, "19500203", "20190405", "069Y"):
            assert word not in text
        own = {str(ds[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
        assert not own & known
        assert ds.FrameOfReferenceUID not in known
        assert sources[0].StudyInstanceUID not in text


def test_every_object_says_what_it_is(received: list[Path]) -> None:
    for ds in made(received, volume_of(received).voxels):
        assert ds.SyntheticData == "YES"
        assert ds.ImageType == ["DERIVED", "PRIMARY", "AXIAL", PREFIX]
        said = (ds.PatientID, ds.PatientName, ds.StudyDescription, ds.SeriesDescription, ds.ImageComments, ds.StudyID)
        assert all(str(each).startswith(PREFIX) for each in said)
        assert "2 simulated lesions" in ds.DerivationDescription
        assert "Not a patient's images" in ds.DerivationDescription
        assert ds.BurnedInAnnotation == "NO"


def test_where_nothing_was_put_in_the_stored_values_are_those_received(received: list[Path]) -> None:
    voxels = volume_of(received).voxels.copy()
    voxels[1, 20:24, 20:24] = 55
    for index, (path, ds) in enumerate(zip(received, made(received, voxels), strict=True)):
        before, after = pydicom.dcmread(path).pixel_array, ds.pixel_array
        changed = np.zeros(before.shape, bool)
        if index == 1:
            changed[20:24, 20:24] = True
        assert np.array_equal(before[~changed], after[~changed])
        assert (after[changed] * ds.RescaleSlope + ds.RescaleIntercept == 55).all()


def test_it_is_read_at_the_same_place(received: list[Path], tmp_path: Path) -> None:
    source = volume_of(received)
    paths = []
    for name, content in files(received, source.voxels):
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    again = volume_of(paths)
    assert np.array_equal(again.voxels, source.voxels)
    assert np.allclose(again.affine, source.affine, atol=1e-5)
    role, analysis, _ = judge(read_header(paths[0]))
    assert (role, analysis is None) == (Role.CT, False)


def test_the_word_is_in_the_corner_and_nowhere_else(received: list[Path]) -> None:
    plain = made(received, volume_of(received).voxels)
    marked = made(received, volume_of(received).voxels, replace(MAKING, marked=True))
    for before, after in zip(plain, marked, strict=True):
        changed = before.pixel_array != after.pixel_array
        assert 10 < changed.sum() < 0.1 * changed.size
        assert not changed[16:].any()
        assert after.BurnedInAnnotation == "YES"
        assert after.SOPInstanceUID != before.SOPInstanceUID


def test_same_seed_same_bytes_other_seed_other_patient(received: list[Path]) -> None:
    voxels = volume_of(received).voxels
    first, again, other = (
        dict(files(received, voxels, making)) for making in (MAKING, MAKING, replace(MAKING, seed=4))
    )
    assert first == again
    assert made(received, voxels)[0].PatientID != pydicom.dcmread(io.BytesIO(other["ct-0001.dcm"])).PatientID


def test_other_voxels_are_another_study(received: list[Path]) -> None:
    voxels = volume_of(received).voxels
    changed = voxels.copy()
    changed[2, 30, 30] += 100
    one, two = (made(received, each)[0] for each in (voxels, changed))
    assert one.PatientID == two.PatientID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert one[keyword].value != two[keyword].value


def test_a_simulated_dose_is_said_and_exposure_stays_the_scans(received: list[Path]) -> None:
    voxels = volume_of(received).voxels
    source, ds = pydicom.dcmread(received[0]), made(received, voxels, replace(MAKING, dose=0.25))[0]
    assert "noise was added as at 25 % of the dose" in ds.DerivationDescription
    assert "simulated 25 % dose" in ds.SeriesDescription
    assert (ds.Exposure, ds.KVP) == (source.Exposure, source.KVP)
    assert "dose" not in made(received, voxels)[0].SeriesDescription


def test_loss_of_the_source_is_told_whole(received: list[Path]) -> None:
    for path in received:
        ds = pydicom.dcmread(path)
        ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "12.5"
        ds.LossyImageCompressionMethod = "ISO_15444_1"
        ds.save_as(path)
    ds = made(received, volume_of(received).voxels)[0]
    told = (ds.LossyImageCompression, str(ds.LossyImageCompressionRatio), ds.LossyImageCompressionMethod)
    assert told == ("01", "12.5", "ISO_15444_1")


def test_pictures_with_words_in_them_are_refused(received: list[Path]) -> None:
    ds = pydicom.dcmread(received[0])
    ds.BurnedInAnnotation = "YES"
    ds.save_as(received[0])
    with pytest.raises(NotEligible, match="may name the patient"):
        made(received, volume_of(received).voxels)
