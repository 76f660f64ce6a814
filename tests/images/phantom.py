"""DICOM images made of numbers: CT slices, enhanced CT, radiographs, each with any element changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
DX_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
STUDY, SERIES = "1.2.826.0.1.99.1", "1.2.826.0.1.99.1.1"
FRAME_OF_REFERENCE = "1.2.826.0.1.99.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SHAPE = (12, 16)
REMOVED = object()
"""Given as an element's value: the element is taken away."""


def stored_values(seed: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint16]:
    """Some tissue and some air, other for every seed; with intercept -1024, -1024 to 975 HU."""
    values = np.random.default_rng(seed).integers(0, 2000, shape, dtype=np.uint16)
    values[0, :2] = 0, 1100
    return values


def header(sop_class: str = CT_IMAGE, number: int = 1, **elements: Any) -> Dataset:
    """Identity and description, no pixels."""
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = f"{SERIES}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY, SERIES, FRAME_OF_REFERENCE
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientID, ds.PatientName = "P-1", "PHANTOM^TEST"
    ds.StudyDate, ds.SeriesNumber, ds.InstanceNumber = "20260102", 3, number
    return change(ds, **elements)


def change(ds: Dataset, **elements: Any) -> Dataset:
    for keyword, value in elements.items():
        if value is REMOVED:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def pixels(ds: Dataset, values: NDArray[Any], *, stored: int | None = None) -> Dataset:
    """Image Pixel Module for values (Y, X) or (frames, Y, X) of an integer type."""
    ds.Rows, ds.Columns = values.shape[-2:]
    bits = values.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored = bits, stored or bits
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW" if bits > 8 else "OB"
    return ds


def ct(number: int = 1, values: NDArray[Any] | None = None, **elements: Any) -> Dataset:
    """One axial CT image, 2.5 mm above the one before."""
    ds = header(CT_IMAGE, number)
    ds.ImagePositionPatient = [-10.0, -20.0, 2.5 * number]
    ds.ImageOrientationPatient = list(AXIAL)
    ds.PixelSpacing, ds.SliceThickness = [0.7, 0.8], 2.5
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    return change(pixels(ds, stored_values(number) if values is None else values), **elements)


def enhanced_ct(positions: Sequence[Sequence[float]], values: NDArray[Any], *, slopes: Sequence[float] = ()) -> Dataset:
    """One multi-frame object; frame i lies at positions[i], with a rescale of its own where slopes are given."""
    ds = pixels(header(ENHANCED_CT), values)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames = len(positions)
    shared = Dataset()
    shared.PixelMeasuresSequence = [change(Dataset(), PixelSpacing=[0.7, 0.8], SliceThickness=2.5)]
    shared.PlaneOrientationSequence = [change(Dataset(), ImageOrientationPatient=list(AXIAL))]
    shared.CTReconstructionSequence = [change(Dataset(), ConvolutionKernel="B30f")]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index, position in enumerate(positions):
        slope = slopes[index] if slopes else 1
        frame = Dataset()
        frame.PlanePositionSequence = [change(Dataset(), ImagePositionPatient=list(position))]
        frame.PixelValueTransformationSequence = [
            change(Dataset(), RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")
        ]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    return ds


def radiograph(values: NDArray[Any] | None = None, *, stored: int | None = 12, **elements: Any) -> Dataset:
    """A chest radiograph for presentation, 12 bits in 16."""
    ds = header(DX_PRESENTATION, Modality="DX", ImageType=["ORIGINAL", "PRIMARY", ""])
    ds.BodyPartExamined, ds.ViewPosition, ds.PresentationIntentType = "CHEST", "PA", "FOR PRESENTATION"
    ds.ImagerPixelSpacing = [0.143, 0.143]
    return change(pixels(ds, stored_values(7) if values is None else values, stored=stored), **elements)


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """As a file in one of the uncompressed syntaxes, or as the already compressed data set that it is."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def save_compressed(ds: Dataset, path: Path, syntax: str, **options: Any) -> Path:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(UID(syntax), generate_instance_uid=False, **options)
    ds.save_as(path, enforce_file_format=True)
    return path


def save_series(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """Files whose names tell nothing of their order."""
    return [save(ds, folder / f"{generate_uid(entropy_srcs=[str(index)])}.dcm") for index, ds in enumerate(datasets)]
