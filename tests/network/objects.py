"""Small DICOM objects made in code, and the bytes of their data sets."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

CT = str(CTImageStorage)
EXPLICIT = str(ExplicitVRLittleEndian)
STUDY = "1.2.826.0.1.3680043.10.511.1"


def ct_image(number: int = 1, *, side: int = 64, seed: int = 0) -> Dataset:
    """A CT slice without a patient worth the name."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = f"{STUDY}.1.{number}"
    image.StudyInstanceUID = STUDY
    image.SeriesInstanceUID = f"{STUDY}.1"
    image.Modality = "CT"
    image.PatientID = "TEST"
    image.PatientName = "Test^Object"
    image.InstanceNumber = number
    image.Rows = image.Columns = side
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.RescaleSlope, image.RescaleIntercept = "1", "-1024"
    noise = np.random.default_rng(seed + number).integers(0, 2000, (side, side), dtype="<u2")
    image.PixelData = noise.tobytes()
    image["PixelData"].VR = "OW"
    return image


def write(image: Dataset, path: Path, syntax: str = EXPLICIT) -> Path:
    """A Part 10 file in an uncompressed little endian syntax."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(syntax)
    image.save_as(path, enforce_file_format=True)
    return path


def data_set_of(file: bytes) -> bytes:
    """What stands behind the File Meta Information, whose group length says where that is."""
    assert file[128:132] == b"DICM"
    return file[132 + 12 + int.from_bytes(file[140:144], "little") :]


def syntax_of(file: bytes) -> str:
    return str(dcmread(BytesIO(file), stop_before_pixels=True).file_meta.TransferSyntaxUID)
