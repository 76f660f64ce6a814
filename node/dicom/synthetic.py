"""Arrays to CT and DX files as a scanner would write them: for the demonstration and for tests, never for results.

Every object says that it is simulated: in Series Description, Protocol Name, Manufacturer and Image Comments. Same
arrays and labels: same bytes, same UIDs.

source  PS3.3 A.3 (CT Image IOD), A.26 (Digital X-Ray Image IOD)
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from models.contract import FloatArray

_NAMESPACE = UUID("0b2f8a52-9d0f-5d0e-8b0e-3d1f1f6f2a11")
_IMPLEMENTATION = "2.25.228413180254706231830126215398126447145"
_COMMENT = "Simulated image of a computed phantom. No patient."
_INTERCEPT = -1024
_MOST_STORED = 4095


@dataclass(frozen=True)
class Labels:
    """Who and what the images pretend to be. `study` and `series` decide the UIDs."""

    patient_id: str = "PHANTOM-1"
    patient_name: str = "PHANTOM^CHEST"
    patient_sex: str = "O"
    study: str = "1"
    series: str = "1"
    series_number: int = 1
    accession_number: str = "SIM1"
    study_description: str = "Chest"
    series_description: str = "SIMULATED"
    taken: dt.datetime = dt.datetime(2026, 1, 15, 7, 10, 0)

    def uid(self, *parts: str | int) -> str:
        """Under 2.25 (PS3.5 B.2), from these labels and `parts`."""
        return f"2.25.{uuid5(_NAMESPACE, '/'.join(map(str, (self.patient_id, self.study, *parts)))).int}"

    @property
    def study_instance_uid(self) -> str:
        return self.uid("study")


@dataclass(frozen=True)
class Technique:
    """How the images pretend to have been made."""

    kvp: float = 120.0
    exposure_mas: float = 40.0
    kernel: str = "STANDARD"


def write_ct_series(
    folder: Path,
    voxels_hu: FloatArray,
    spacing_zyx_mm: tuple[float, float, float],
    *,
    labels: Labels | None = None,
    technique: Technique | None = None,
) -> list[Path]:
    """One CT Image object per slice.

    voxels_hu   (Z, Y, X), feet to head, anterior first, the patient's right first; clipped to -1024…3071 HU
    """
    labels, how = labels or Labels(), technique or Technique()
    stored = np.clip(np.rint(voxels_hu) - _INTERCEPT, 0, _MOST_STORED).astype("<u2")
    step, row, column = spacing_zyx_mm
    depth, height, width = stored.shape
    corner_mm = (-(width - 1) / 2 * column, -(height - 1) / 2 * row, -(depth - 1) / 2 * step)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, plane in enumerate(stored):
        image = _common(labels, CTImageStorage, "CT", instance=index + 1)
        _ct(image, how)
        image.FrameOfReferenceUID = labels.uid("frame of reference")
        image.PositionReferenceIndicator = ""
        image.PixelSpacing = [_ds(row), _ds(column)]
        image.SliceThickness = _ds(step)
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [_ds(corner_mm[0]), _ds(corner_mm[1]), _ds(corner_mm[2] + index * step)]
        image.SliceLocation = _ds(corner_mm[2] + index * step)
        _pixels(image, plane)
        written.append(_save(image, folder / f"ct-{labels.series}-{index + 1:04d}.dcm"))
    return written


def write_dx(
    folder: Path,
    pixels: FloatArray,
    pixel_spacing_mm: float,
    *,
    labels: Labels | None = None,
    technique: Technique | None = None,
    magnification: float | None = None,
) -> Path:
    """One postero-anterior chest radiograph, DX for presentation.

    pixels              (rows, columns), 0…4095, bright = dense, the patient's right on the left
    pixel_spacing_mm    at the detector
    magnification       of the patient's middle; None where it is not told
    """
    labels, how = labels or Labels(), technique or Technique(exposure_mas=2.0)
    image = _common(labels, DigitalXRayImageStorageForPresentation, "DX", instance=1)
    _dx(image, how, pixel_spacing_mm)
    if magnification is not None:
        image.EstimatedRadiographicMagnificationFactor = _ds(magnification)
    stored = np.clip(np.rint(pixels), 0, _MOST_STORED).astype("<u2")
    low, high = (float(v) for v in np.percentile(stored, (1, 99)))
    image.WindowCenter, image.WindowWidth = round((low + high) / 2), max(round(high - low), 1)
    image.WindowCenterWidthExplanation = "NORMAL"
    _pixels(image, stored)
    folder.mkdir(parents=True, exist_ok=True)
    return _save(image, folder / f"dx-{labels.series}.dcm")


def _common(labels: Labels, sop_class_uid: str, modality: str, *, instance: int) -> FileDataset:
    """Patient, study, series, equipment, general image and SOP common."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = labels.uid(labels.series, modality, instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.PatientName, image.PatientID = labels.patient_name, labels.patient_id
    image.PatientBirthDate, image.PatientSex = "", labels.patient_sex
    image.StudyInstanceUID = labels.study_instance_uid
    image.StudyID = labels.study[:16]
    image.AccessionNumber = labels.accession_number
    image.ReferringPhysicianName = ""
    image.StudyDescription = labels.study_description
    image.SeriesInstanceUID = labels.uid(labels.series, modality, "series")
    image.SeriesNumber = labels.series_number
    image.SeriesDescription = labels.series_description
    image.ProtocolName = "SIMULATED CHEST"
    image.Modality = modality
    image.BodyPartExamined = "CHEST"
    image.Manufacturer = "Simulation"
    image.ManufacturerModelName = "Computed phantom"
    image.InstanceNumber = instance
    image.ImageComments = _COMMENT
    date, time = labels.taken.strftime("%Y%m%d"), labels.taken.strftime("%H%M%S")
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = date
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = time
    return image


def _ct(image: Dataset, how: Technique) -> None:
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.PatientPosition = "HFS"
    image.AcquisitionNumber = 1
    image.KVP = how.kvp
    image.Exposure = round(how.exposure_mas)
    image.ConvolutionKernel = how.kernel
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = _INTERCEPT, 1, "HU"
    image.WindowCenter, image.WindowWidth = 40, 400


def _dx(image: Dataset, how: Technique, pixel_spacing_mm: float) -> None:
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.PresentationIntentType = "FOR PRESENTATION"
    image.AcquisitionNumber = 1
    image.KVP, image.ExposureInuAs = how.kvp, round(1000 * how.exposure_mas)
    image.ImagerPixelSpacing = [_ds(pixel_spacing_mm), _ds(pixel_spacing_mm)]
    image.DetectorType = "DIRECT"
    image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = "LOG", -1
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.PresentationLUTShape = "IDENTITY"
    image.LossyImageCompression, image.BurnedInAnnotation = "00", "NO"
    image.PatientOrientation = ["L", "F"]
    image.ImageLaterality = "U"
    image.ViewPosition, image.PositionerType = "PA", ""
    image.AnatomicRegionSequence = Sequence([_code("51185008", "SCT", "Chest")])
    view = _code("272479007", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = Sequence([])
    image.ViewCodeSequence = Sequence([view])
    image.AcquisitionContextSequence = Sequence([])


def _ds(value: float) -> str:
    return format_number_as_ds(float(value))  # at most 16 characters, PS3.5 6.2


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _pixels(image: Dataset, stored: NDArray[np.uint16]) -> None:
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = stored.tobytes()


def _save(image: FileDataset, path: Path) -> Path:
    image.save_as(path, enforce_file_format=True)
    return path
