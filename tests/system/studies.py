"""Studies to send: made by code (a body in air, with noise), or real ones from ../shared/data."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def uid(*names: object) -> str:
    """The same UID for the same names: a study made twice is the same study."""
    return str(generate_uid(prefix="2.25.", entropy_srcs=["pacsnode-test", *map(str, names)]))


@dataclass(frozen=True)
class Study:
    """Files of one study and what it is called."""

    uid: str
    files: tuple[Path, ...]

    def instance_uids(self) -> set[str]:
        return {str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in self.files}


def ct_study(
    folder: Path, *, name: str = "one", slices: int = 24, size: int = 128, series: int = 1, noise_hu: float = 25
) -> Study:
    """A chest-like phantom: soft tissue in an ellipse, two lungs, a spine, white noise; 2.5 mm apart, axial."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(1, slices + 1):
        dataset = _ct_header(name, number, series=series, size=size)
        rng = np.random.default_rng([number, size, *name.encode()])
        hounsfield = _chest(size) + rng.normal(0, noise_hu, (size, size))
        dataset.PixelData = np.clip(hounsfield + 1024, 0, 4095).astype("<u2").tobytes()
        files.append(_write(dataset, folder / f"{name}-{series}-{number:04d}.dcm"))
    return Study(uid(name, "study"), tuple(files))


def radiograph_study(folder: Path, *, name: str = "radiograph", size: int = 512) -> Study:
    """One DX image, for presentation: bright mediastinum between dark lungs."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _common(name, DigitalXRayImageStorageForPresentation, "DX", series=1, number=1)
    dataset.SeriesDescription = "CHEST PA"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1
    dataset.ImagerPixelSpacing = [0.4, 0.4]
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.DetectorType = "DIRECT"
    dataset.PositionerType = "NONE"
    dataset.WindowCenter, dataset.WindowWidth = 2000, 4000
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageLaterality = "U"
    _pixels(dataset, size, bits=12)
    chest = (_chest(size) + 1000) / 2100
    noise = np.random.default_rng(7).normal(0, 0.01, chest.shape)
    dataset.PixelData = np.clip((chest + noise) * 4095, 0, 4095).astype("<u2").tobytes()
    return Study(uid(name, "study"), (_write(dataset, folder / f"{name}.dcm"),))


def large_ct(folder: Path, count: int, *, size: int = 512) -> Study:
    """`count` slices of 512×512 16 bit (0.53 MB each) that share one noisy image: for transport only."""
    folder.mkdir(parents=True, exist_ok=True)
    hounsfield = _chest(size) + np.random.default_rng(1).normal(0, 20, (size, size))
    pixels = np.clip(hounsfield + 1024, 0, 4095).astype("<u2").tobytes()
    files = []
    for number in range(1, count + 1):
        dataset = _ct_header("load", number, series=1, size=size)
        dataset.PixelData = pixels
        files.append(_write(dataset, folder / f"{number:05d}.dcm"))
    return Study(uid("load", "study"), tuple(files))


def altered(file: Path, into: Path) -> Path:
    """The same SOP Instance UID with other bytes."""
    into.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.dcmread(file)
    dataset.ImageComments = "not what was sent before"
    dataset.save_as(into / file.name, enforce_file_format=True)
    return into / file.name


def real_study(name: str, into: Path) -> Study:
    """A study of ../shared/data, unpacked below `into` once. Raises FileNotFoundError where there is none."""
    archive = SHARED_DATA / f"{name}.tar.xz"
    target = into / name
    if not target.exists():
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(archive.read_bytes()))) as tar:
            tar.extractall(target, filter="data")
    files = sorted(path for path in target.rglob("*") if path.is_file() and is_part10(path))
    return Study(str(pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID), tuple(files))


def middle(study: Study, count: int) -> Study:
    """`count` neighbouring slices from the middle, by position along the z axis."""

    def z(file: Path) -> float:
        return float(pydicom.dcmread(file, specific_tags=["ImagePositionPatient"]).ImagePositionPatient[2])

    ordered = sorted(study.files, key=z)
    first = max(0, (len(ordered) - count) // 2)
    return Study(study.uid, tuple(ordered[first : first + count]))


def is_part10(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def data_set_digest(file: Path) -> str:
    """SHA-256 of the data set as encoded, file meta information left out: an archive writes its own."""
    content = file.read_bytes()
    group_length = int.from_bytes(content[140:144], "little")  # the first element, always Explicit VR Little Endian
    return hashlib.sha256(content[144 + group_length :]).hexdigest()


def _chest(size: int) -> NDArray[np.float64]:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.full((size, size), -1000.0)
    image[(x / 0.9) ** 2 + (y / 0.65) ** 2 < 1] = 40
    for side in (-1, 1):
        image[((x - side * 0.42) / 0.3) ** 2 + (y / 0.45) ** 2 < 1] = -850
    image[(x / 0.12) ** 2 + ((y - 0.45) / 0.12) ** 2 < 1] = 600
    image[((x - 0.5) / 0.05) ** 2 + ((y + 0.1) / 0.05) ** 2 < 1] = 30
    return image


def _ct_header(name: str, number: int, *, series: int, size: int) -> Dataset:
    dataset = _common(name, CTImageStorage, "CT", series=series, number=number)
    dataset.SeriesDescription = "CHEST 2.5 MM"
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.FrameOfReferenceUID = uid(name, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-180, -180, -100 + 2.5 * number]
    dataset.PixelSpacing = [360 / size, 360 / size]
    dataset.SliceThickness = 2.5
    dataset.KVP = 120
    dataset.XRayTubeCurrent = 60
    dataset.ExposureTime = 500
    dataset.Exposure = 30
    dataset.ConvolutionKernel = "B40f"
    dataset.AcquisitionNumber = 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    _pixels(dataset, size, bits=12)
    return dataset


def _common(name: str, sop_class: str, modality: str, *, series: int, number: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid(name, series, number)
    dataset.StudyInstanceUID = uid(name, "study")
    dataset.SeriesInstanceUID = uid(name, "series", series)
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20260301"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "083000"
    dataset.AccessionNumber = f"A{abs(hash_of(name)) % 10**8:08d}"
    dataset.Modality = modality
    dataset.Manufacturer = "Phantom"
    dataset.ManufacturerModelName = "Made by code"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.StudyDescription = "Test study"
    dataset.PatientName = f"Test^{name}"
    dataset.PatientID = f"TEST-{name}"
    dataset.PatientBirthDate = "19600101"
    dataset.PatientSex = "O"
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = series
    dataset.InstanceNumber = number
    return dataset


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def _pixels(dataset: Dataset, size: int, *, bits: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = size
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0


def _write(dataset: Dataset, path: Path) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path


def split(files: Sequence[Path], parts: int) -> list[Sequence[Path]]:
    return [files[index::parts] for index in range(parts)]
