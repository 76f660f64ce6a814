"""A CT series with lesions put into it, for tests of a node: it cannot pass for a patient's.

Nothing of patient, study and visit is taken over, only what an allow-list names: geometry, scanner and technique. Every
object says what it is, in Patient ID and Name, Study and Series Description, Derivation Description, Image Comments,
Image Type and Synthetic Data, and the pictures say it in their corner unless that is switched off. DERIVED\\PRIMARY,
since these are still the cross-sections, in HU, that an analysis is for. The node is not among the equipment: what
names it there is one of its results, and is not analysed.

A lower dose that was simulated stands in words beside the derivation. Exposure, tube current and voltage stay those of
the scan: they tell what the tube did (PS3.3 C.8.2.1), and no tube did less.

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
    dose        part of the scan's dose whose noise was simulated; None where none was
    """

    seed: int
    by: str
    digest: str = ""
    marked: bool = True
    dose: float | None = None


@dataclass(frozen=True)
class Series:
    """One of the new study's. `kind` is short and fixed, part of the UIDs."""

    kind: str
    modality: str
    number: int
    description: str


@dataclass(frozen=True)
class SyntheticStudy:
    """The new study, whose UIDs follow from what it was made of and from its voxels: other voxels are another study."""

    making: Making
    patient_id: str
    origin: uids.Origin

    @classmethod
    def of(cls, voxels: FloatArray, source: SeriesSource, making: Making) -> SyntheticStudy:
        """voxels      float32 (Z, Y, X), HU, with all that was done to them"""
        told = f"{source.series_instance_uid}/{making.seed}/{making.by}/{making.digest}"
        content = hashlib.sha256(f"{making}/{voxels.shape}".encode())
        content.update(np.ascontiguousarray(voxels).data)
        origin = uids.Origin(
            str(source.first.get("StudyInstanceUID") or ""),
            source.series_instance_uid,
            making.seed,
            f"synthetic lesions {making.by}",
            VERSION,
            content.hexdigest(),
        )
        return cls(making, f"{PREFIX}-{hashlib.sha256(told.encode()).hexdigest()[:12].upper()}", origin)

    @property
    def study_instance_uid(self) -> str:
        return uids.series_uid(self.origin, "study")

    def start(self, sop_class_uid: str, series: Series, index: int) -> Any:
        """An object of the study, that says what it is, and nothing else yet."""
        ds = Dataset()
        ds.SOPClassUID = sop_class_uid
        ds.SOPInstanceUID = uids.instance_uid(self.origin, series.kind, index)
        ds.StudyInstanceUID = self.study_instance_uid
        ds.SeriesInstanceUID = uids.series_uid(self.origin, series.kind)
        ds.PatientID, ds.PatientName = self.patient_id, f"{PREFIX}^NO PATIENT"
        ds.PatientBirthDate, ds.PatientSex = None, "O"
        ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = PREFIX, None, None
        ds.StudyDescription = f"{PREFIX} lesions, no patient"
        ds.SeriesDescription = f"{PREFIX} {series.description}, seed {self.making.seed}{self._dose()}"[:64]
        ds.SeriesNumber, ds.Modality = series.number, series.modality
        for what in ("Study", "Series", "Content"):
            setattr(ds, f"{what}Date", _DATE)
            setattr(ds, f"{what}Time", _TIME)
        ds.SyntheticData = "YES"
        ds.InstanceNumber = index + 1
        return ds

    def _dose(self) -> str:
        return "" if self.making.dose is None else f", simulated {percent(self.making.dose)} dose"


IMAGES = Series("images", "CT", 1, "lesions")


def synthetic_images(
    voxels: FloatArray, volume: Volume, source: SeriesSource, study: SyntheticStudy, *, lesions: int
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of one CT image per slice, at the place of its source slice, under UIDs of its own.

    voxels      float32, the grid of `volume`: where it equals the volume, stored values are those received
    raises      NotEligible     the received pictures have words in them, which may name the patient
    """
    if any(str(header.get("BurnedInAnnotation") or "") == "YES" for header in source.images()):
        raise NotEligible("There are words in these pictures (Burned In Annotation), and they may name the patient.")
    shown = [display.voi(source.frame(ref)) for ref in volume.sources]
    usual = next(filter(None, shown), None) or display.window(*display.SOFT_TISSUE_HU)
    for index, ref in enumerate(volume.sources):
        header = source.frame(ref)
        padding = None if volume.padding is None else volume.padding[index]
        coding = numbers.Coding.of_ct(header, padded=volume.padding is not None)
        plane = marked(voxels[index]) if study.making.marked else voxels[index]
        stored = coding.store(plane, padding, volume.voxels[index])
        ds = study.start(str(CTImageStorage), IMAGES, index)
        ds.FrameOfReferenceUID = uids.frame_of_reference_uid(ds.SeriesInstanceUID)
        _keep(ds, header)
        _say_what_it_is(ds, header, study.making, lesions)
        ds.ImagePositionPatient = [headers.decimal(round(float(mm), 6)) for mm in volume.slice_origins_mm[index]]
        display.show(ds, shown[index] or usual)
        coding.describe(ds, stored)
        headers.fill_empty(ds, may_be_empty_of(str(CTImageStorage)))
        yield f"ct-{index + 1:04d}.dcm", headers.encode(ds)


def percent(fraction: float) -> str:
    """ "25 %" """
    return f"{100 * fraction:.4g} %"


def marked(plane: FloatArray) -> FloatArray:
    """A copy of one slice, (Y, X), HU, with the word in its upper left corner."""
    height = max(8, plane.shape[0] // _MARK_SHARE)
    picture = Image.new("L", (plane.shape[1], plane.shape[0]))
    ImageDraw.Draw(picture).text((height // 4, height // 4), PREFIX, fill=255, font=ImageFont.load_default(height))
    letters: NDArray[np.bool_] = np.asarray(picture) > 127
    return np.where(letters, np.float32(_MARK_HU), plane)


def _keep(ds: Any, header: Any) -> None:
    for keyword in _KEPT.split():
        if header.get(keyword) not in (None, ""):
            headers.copy_element(header[keyword], ds)


def _say_what_it_is(ds: Any, header: Any, making: Making, lesions: int) -> None:
    kept = [str(value) for value in (header.get("ImageType") or [])][2:3]
    ds.ImageType = ["DERIVED", "PRIMARY", *(kept or ["AXIAL"]), PREFIX]
    low_dose = ""
    if making.dose is not None:
        low_dose = (
            f" Then noise was added as at {percent(making.dose)} of the dose; exposure and tube current are told as"
            " those of the scan."
        )
    ds.DerivationDescription = plain(
        f"{lesions} simulated lesions were put into the images of a scan, by {making.by}, seed {making.seed}"
        f" ({MODEL_NAME} {VERSION}).{low_dose}"
        " For tests of software. Not a patient's images."
    )[:1024]
    ds.ImageComments = (
        f"{PREFIX}: simulated lesions{' and noise' if making.dose else ''}. Not a patient's images, not for diagnosis."
    )
    ds.BurnedInAnnotation = "YES" if making.marked else "NO"
    ds.LossyImageCompression = header.get("LossyImageCompression") or "00"
    if ds.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                headers.copy_element(header[keyword], ds)
