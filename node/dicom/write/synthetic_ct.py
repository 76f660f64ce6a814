"""A CT series with lesions put into it, for tests of a node: it cannot pass for a patient's.

Nothing of patient, study and visit is taken over, only what an allow-list names: geometry, scanner and technique. Every
object says what it is, in Patient ID and Name, Study and Series Description, Derivation Description, Image Comments,
Image Type and Synthetic Data, and the pictures say it in their corner unless that is switched off. DERIVED\\PRIMARY,
since these are still the cross-sections, in HU, that an analysis is for. The node is not among the equipment: what
names it there is one of its results, and is not analysed.

source  PS3.3 C.12.1 (SOP Common: Synthetic Data), C.7.6.1 (Image Type), A.3 (CT Image IOD)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from models.contract import FloatArray, Volume
from node.dicom import uids
from node.dicom.write import display, headers, numbers
from node.dicom.write.charset import plain
from node.dicom.write.source import SeriesSource
from node.dicom.write.tables import may_be_empty_of
from node.errors import NotEligible
from node.settings import MODEL_NAME, VERSION

PREFIX = "SYNTHETIC"
_KEPT = """
    Manufacturer ManufacturerModelName BodyPartExamined PatientPosition
    ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices
    KVP XRayTubeCurrent ExposureTime Exposure FilterType ConvolutionKernel ScanOptions
    DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient
    GantryDetectorTilt TableHeight RotationDirection FocalSpots
    RescaleSlope RescaleIntercept RescaleType
"""
"""Of the received headers: technique and geometry, no identity, no dates, no numbers of devices, no free text."""
_DATE, _TIME = "20000101", "120000"
"""Of no scan: with the day of making, the same command would make other bytes under the same UIDs."""
_MARK_HU = 1000.0
_MARK_SHARE = 24
"""Rows of an image over the height of the letters burned into it."""


@dataclass(frozen=True)
class Making:
    """What the new objects say of themselves; the same makes the same bytes.

    by          what drew the lesions, in words     digest      of its weights, "" for none
    marked      whether the word is burned into the corner of each image
    """

    seed: int
    by: str
    digest: str = ""
    marked: bool = True


def synthetic_images(
    voxels: FloatArray, volume: Volume, source: SeriesSource, making: Making, *, lesions: int
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of one CT image per slice, at the place of its source slice, under UIDs of its own.

    voxels      float32, the grid of `volume`: where it equals the volume, stored values are those received
    raises      NotEligible     the received pictures have words in them, which may name the patient
    """
    if any(str(header.get("BurnedInAnnotation") or "") == "YES" for header in source.images()):
        raise NotEligible("There are words in these pictures (Burned In Annotation), and they may name the patient.")
    origin = _origin(source, making)
    patient = patient_id(source, making)
    shown = [display.voi(source.frame(ref)) for ref in volume.sources]
    usual = next(filter(None, shown), None) or display.window(*display.SOFT_TISSUE_HU)
    for index, ref in enumerate(volume.sources):
        header = source.frame(ref)
        padding = None if volume.padding is None else volume.padding[index]
        coding = numbers.Coding.of_ct(header, padded=volume.padding is not None)
        plane = marked(voxels[index]) if making.marked else voxels[index]
        stored = coding.store(plane, padding, volume.voxels[index])
        ds = _identity(origin, patient, index, making)
        _keep(ds, header)
        _say_what_it_is(ds, header, making, lesions)
        ds.InstanceNumber = index + 1
        ds.ImagePositionPatient = [headers.decimal(round(float(mm), 6)) for mm in volume.slice_origins_mm[index]]
        display.show(ds, shown[index] or usual)
        coding.describe(ds, stored)
        headers.fill_empty(ds, may_be_empty_of(str(CTImageStorage)))
        yield f"ct-{index + 1:04d}.dcm", headers.encode(ds)


def patient_id(source: SeriesSource, making: Making) -> str:
    """Of the patient who is none: the same for the same series and seed, and not to be turned back."""
    told = f"{source.series_instance_uid}/{making.seed}/{making.by}/{making.digest}"
    return f"{PREFIX}-{hashlib.sha256(told.encode()).hexdigest()[:12].upper()}"


def marked(plane: FloatArray) -> FloatArray:
    """A copy of one slice, (Y, X), HU, with the word in its upper left corner."""
    height = max(8, plane.shape[0] // _MARK_SHARE)
    picture = Image.new("L", (plane.shape[1], plane.shape[0]))
    ImageDraw.Draw(picture).text((height // 4, height // 4), PREFIX, fill=255, font=ImageFont.load_default(height))
    letters: NDArray[np.bool_] = np.asarray(picture) > 127
    return np.where(letters, np.float32(_MARK_HU), plane)


def _origin(source: SeriesSource, making: Making) -> uids.Origin:
    return uids.Origin(
        str(source.first.get("StudyInstanceUID") or ""),
        source.series_instance_uid,
        making.seed,
        f"synthetic lesions {making.by}",
        "marked" if making.marked else "unmarked",
        making.digest,
    )


def _identity(origin: uids.Origin, patient: str, index: int, making: Making) -> Any:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = uids.instance_uid(origin, "image", index)
    ds.StudyInstanceUID = uids.series_uid(origin, "study")
    ds.SeriesInstanceUID = uids.series_uid(origin, "images")
    ds.FrameOfReferenceUID = uids.frame_of_reference_uid(ds.SeriesInstanceUID)
    ds.PatientID, ds.PatientName = patient, f"{PREFIX}^NO PATIENT"
    ds.PatientBirthDate, ds.PatientSex = None, "O"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = PREFIX, None, None
    ds.StudyDescription = f"{PREFIX} lesions, no patient"
    ds.SeriesDescription = f"{PREFIX} lesions, seed {making.seed}"
    ds.SeriesNumber, ds.Modality = 1, "CT"
    for what in ("Study", "Series", "Content"):
        setattr(ds, f"{what}Date", _DATE)
        setattr(ds, f"{what}Time", _TIME)
    return ds


def _keep(ds: Any, header: Any) -> None:
    for keyword in _KEPT.split():
        if header.get(keyword) not in (None, ""):
            headers.copy_element(header[keyword], ds)


def _say_what_it_is(ds: Any, header: Any, making: Making, lesions: int) -> None:
    kept = [str(value) for value in (header.get("ImageType") or [])][2:3]
    ds.ImageType = ["DERIVED", "PRIMARY", *(kept or ["AXIAL"]), PREFIX]
    ds.SyntheticData = "YES"
    ds.DerivationDescription = plain(
        f"{lesions} simulated lesions were put into the images of a scan, by {making.by}, seed {making.seed}"
        f" ({MODEL_NAME} {VERSION})."
        " For tests of software. Not a patient's images."
    )[:1024]
    ds.ImageComments = f"{PREFIX}: simulated lesions. Not a patient's images, not for diagnosis."
    ds.BurnedInAnnotation = "YES" if making.marked else "NO"
    ds.LossyImageCompression = header.get("LossyImageCompression") or "00"
