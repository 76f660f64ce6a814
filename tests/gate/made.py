"""Studies made by code as a scanner would send them, complete enough for dciodvfy, and findings about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from images import chest as pictures
from models.contract import Analysis, Findings, Image, Lesion, Measurement, ModelIdentity, Radiograph, Score, Volume
from node.dicom.read import read_radiograph, read_volume
from node.dicom.write import (
    Produced,
    ResultRef,
    SeriesEntry,
    SeriesSource,
    Stamp,
    StudyEntry,
    noted,
    write_images,
    write_report,
)

ROOT = "1.2.826.0.1.3680043.8.498.77"
STUDY = f"{ROOT}.1"
CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.9, 0.3, 0.31622777, -0.31622777, 0.94868330, 0.0)

MODEL = ModelIdentity("lidnet", "0.1.0", "ab" * 32, "simulated low-dose CT of public chest and abdomen CT")
HU = ("[hnsf'U]", "UCUM", "Hounsfield unit")
NOISE = ("image-noise", "99PACSNODE", "Image noise")
QUALITY = ("111101", "DCM", "Image Quality")
SMOOTHING = ("113087", "DCM", "Smoothing")


def ct_series(
    folder: Path,
    *,
    slices: int = 5,
    shape: tuple[int, int] = (40, 37),
    orientation: Sequence[float] = AXIAL,
    tilt_mm: float = 0.0,
    series: int = 3,
    **elements: Any,
) -> list[Path]:
    """Single-frame CT images. `tilt_mm` moves each slice along its columns, as a tilted gantry does."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = 2.5 * np.cross(row, column) + tilt_mm * column
    paths = []
    for index in range(slices):
        ds = _common(CT, series, index + 1, "CT")
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = [round(float(v), 6) for v in np.array([-20.0, -30.0, 5.0]) + index * step]
        ds.ImageOrientationPatient = [round(float(v), 8) for v in orientation]
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = f"{ROOT}.9", None
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], 2.5
        ds.KVP, ds.XRayTubeCurrent, ds.Exposure, ds.ConvolutionKernel = 120, 100, 50, "B40f"
        ds.AcquisitionNumber, ds.PatientPosition, ds.BodyPartExamined = 1, "HFS", "CHEST"
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        ds.WindowCenter, ds.WindowWidth = [40, -600], [400, 1500]
        _pixels(ds, phantom(shape, index), 12)
        paths.append(_save(folder, change(ds, **elements)))
    return paths


def enhanced_ct(folder: Path, *, slices: int = 4, shape: tuple[int, int] = (40, 37)) -> list[Path]:
    """One enhanced multi-frame CT image, frames from the top down."""
    ds = _common(ENHANCED_CT, 4, 1, "CT")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = f"{ROOT}.9", None
    ds.PatientPosition, ds.BodyPartExamined, ds.AcquisitionNumber = "HFS", "CHEST", 1
    _pixels(ds, np.stack([phantom(shape, index) for index in range(slices)]), 12)
    ds.NumberOfFrames = slices
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.7, 0.7], SliceThickness=2.5)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(AXIAL))]
    rescale = _item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    shared.PixelValueTransformationSequence = [rescale]
    shared.FrameVOILUTSequence = [_item(WindowCenter=40, WindowWidth=400)]
    shared.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "AXIAL", "NONE"])]
    shared.CTXRayDetailsSequence = [_item(KVP=120)]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for index in range(slices):
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=[-20.0, -30.0, 50.0 - 2.5 * index])]
        frame.FrameContentSequence = [_item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=index + 1)]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    return [_save(folder, ds)]


def radiograph(folder: Path, *, sop_class: str = DX, shape: tuple[int, int] = (48, 41), **elements: Any) -> list[Path]:
    """One chest radiograph; MONOCHROME1 where the elements say so."""
    modality = "CR" if sop_class == CR else "DX"
    ds = _common(sop_class, 7, 1, modality)
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.ViewPosition, ds.BodyPartExamined, ds.PatientOrientation = "PA", "CHEST", ["L", "F"]
    ds.KVP, ds.Exposure = 110, 3
    ds.WindowCenter, ds.WindowWidth = 2000, 3000
    if modality == "DX":
        _dx(ds, for_processing=sop_class == DX_PROCESSING)
    else:
        ds.ImagerPixelSpacing = [0.2, 0.2]
    _pixels(ds, phantom(shape, 1), 12)
    return [_save(folder, change(ds, **elements))]


def chest(folder: Path, *, bits: int = 12, signed: bool = False, **elements: Any) -> list[Path]:
    """One chest radiograph with anatomy enough to be restored, 0.4 mm, any number of bits, signed or not."""
    bright_is_air = elements.get("PhotometricInterpretation") == "MONOCHROME1"
    bright_is_air |= elements.get("sop_class") == DX_PROCESSING
    values = pictures.radiograph().pixels.astype(np.int64)
    values = (4095 - values if bright_is_air else values) * ((1 << bits) - 1) // 4095
    stored = (values - (1 << (bits - 1)) if signed else values).astype(np.int16 if signed else np.uint16)
    spacing = {"PixelSpacing": [0.4, 0.4], "ImagerPixelSpacing": [0.42, 0.42]}
    [path] = radiograph(folder, **{**spacing, **elements})
    ds = dcmread(path)
    _pixels(ds, stored.astype(np.uint8) if bits == 8 else stored, bits)
    ds.PhotometricInterpretation = elements.get("PhotometricInterpretation", "MONOCHROME2")
    ds.save_as(path, enforce_file_format=True)
    return [path]


def phantom(shape: tuple[int, int], seed: int) -> NDArray[np.uint16]:
    """Stored values 12 bits: a body with two lungs of different size in air, noisy; no symmetry to hide behind."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array([[[shape[0]]], [[shape[1]]]])
    values = np.full(shape, 30.0)
    values[((y - 0.5) / 0.42) ** 2 + ((x - 0.5) / 0.46) ** 2 < 1] = 1060
    values[((y - 0.45) / 0.25) ** 2 + ((x - 0.3) / 0.13) ** 2 < 1] = 200
    values[((y - 0.5) / 0.18) ** 2 + ((x - 0.72) / 0.12) ** 2 < 1] = 250
    values[((y - 0.75) / 0.08) ** 2 + ((x - 0.5) / 0.08) ** 2 < 1] = 1700
    noise = np.random.default_rng(seed).normal(0, 15, shape)
    return np.clip(np.rint(values + noise), 1, 4095).astype(np.uint16)


def stamp(**given: Any) -> Stamp:
    values: dict[str, Any] = {
        "study_instance_uid": STUDY,
        "revision": 1,
        "replaces": None,
        "made_at": datetime(2026, 11, 20, 12, 34, 56, 123456, tzinfo=timezone(timedelta(hours=1))),
        "station_name": "node-1",
        "aet": "PACSNODE",
        "note": "Research use only. Not a medical device. Not for diagnostic use.",
        "series_number_base": 9000,
    }
    return Stamp(**{**values, **given})


_new_stamp = stamp


def denoised(array: NDArray[np.float32], kind: str = "denoised") -> Image:
    """A quarter of the way to the mean of four neighbours: another picture of the same anatomy."""
    neighbours = sum(np.roll(array, shift, axis) for shift, axis in ((1, -1), (-1, -1), (1, -2), (-1, -2))) / 4
    after = (0.75 * array + 0.25 * neighbours).astype(np.float32)
    checks = {"HU bias in soft tissue": "0.3 HU (limit 2 HU)"}
    return Image(kind, after, "Noise reduced by a neural network", SMOOTHING, MODEL, checks)


def findings(grid: Volume | Radiograph, *, lesions: int = 0, **given: Any) -> Findings:
    """What a pipeline might say: one derived image, noise before and after, one analysis done and one not."""
    array = grid.voxels if isinstance(grid, Volume) else grid.pixels
    values: dict[str, Any] = {
        "pipeline": "low_dose_ct",
        "version": "0.1.0",
        "analyses": (
            Analysis("AI denoising", "done", "", MODEL, duration_s=1.25),
            Analysis("lesion detection", "not done", "no trained weights for it are installed"),
        ),
        "images": (denoised(array),),
        "lesions": tuple(lesion(grid, number) for number in range(lesions)),
        "scores": scores(grid),
        "measurements": (
            Measurement(NOISE, 17.2, HU, "standard deviation in homogeneous soft tissue", "input"),
            Measurement(NOISE, 8.1, HU, "standard deviation in homogeneous soft tissue", "denoised"),
        ),
    }
    return Findings(**{**values, **given})


def scores(grid: Volume | Radiograph) -> tuple[Score, ...]:
    """Of a volume slice by slice, the first one poor; of a radiograph one number."""
    if isinstance(grid, Radiograph):
        return (Score(QUALITY, 3.4, (1.0, 5.0), MODEL),)
    per_slice = (1.2, *(3.4 for _ in grid.sources[1:]))
    lowest = ("image-quality-lo", "99PACSNODE", "Image quality of the lowest slice")
    return (
        Score(QUALITY, 3.4, (0.0, 4.0), MODEL, per_slice, poor_below=1.5),
        Score(lowest, 1.2, (0.0, 4.0), MODEL, slice_index=0),
    )


def lesion(grid: Volume | Radiograph, number: int = 0) -> Lesion:
    """A block of 9 × 5 pixels on two slices (one of a radiograph), its axes along it."""
    shape = grid.voxels.shape if isinstance(grid, Volume) else (1, *grid.pixels.shape)
    spacing = grid.spacing_zyx_mm if isinstance(grid, Volume) else (1.0, *(grid.spacing_yx_mm or (1.0, 1.0)))
    mask = np.zeros(shape, dtype=bool)
    top, left, first = 10 + 8 * number, 5, min(1, shape[0] - 1)
    mask[first : first + 2, top : top + 5, left : left + 9] = True
    middle = top + 2.0
    return Lesion(
        tracking_id=f"lesion-{number}",
        category=("4147007", "SCT", "Mass"),
        site=("39607008", "SCT", "Lung"),
        laterality=("7771000", "SCT", "Left"),
        mask=mask,
        slice_index=first,
        long_axis_px=((left, middle), (left + 8.0, middle)),
        short_axis_px=((left + 4.0, top), (left + 4.0, top + 4.0)),
        long_axis_mm=8 * spacing[2],
        short_axis_mm=4 * spacing[1],
        volume_mm3=float(mask.sum()) * spacing[0] * spacing[1] * spacing[2],
        score=0.91,
        operating_point=0.5,
        model=MODEL,
    )


def entry(
    source: SeriesSource, found: Findings | None, grid: Any = None, results: Sequence[ResultRef] = ()
) -> SeriesEntry:
    """The line of the report about one series: processed where there are findings."""
    header = source.first
    refs = () if grid is None else (grid.sources if isinstance(grid, Volume) else (grid.source,))
    return SeriesEntry(
        series_instance_uid=source.series_instance_uid,
        number=None if header.get("SeriesNumber") is None else int(header.SeriesNumber),
        description=str(header.get("SeriesDescription", "")),
        modality=str(header.Modality),
        images=len(source.headers),
        role="axial chest",
        outcome="not eligible" if found is None else "processed",
        reason="Localiser only." if found is None else "",
        findings=found,
        volume_sources=refs,
        results=tuple(results),
    )


def study(*entries: SeriesEntry, notes: Sequence[str] = ()) -> StudyEntry:
    return StudyEntry(tuple(entries), tuple(notes))


def keep(folder: Path, results: Sequence[Produced]) -> list[Path]:
    """Results as files, named by what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, result in enumerate(results):
        paths.append(folder / f"{number:03d}-{result.kind}-{result.fallback}.dcm")
        paths[-1].write_bytes(result.data)
    return paths


@dataclass(frozen=True)
class Run:
    """Everything that goes into the results of one series, and the results."""

    paths: list[Path]
    grid: Volume | Radiograph
    source: SeriesSource
    stamp: Stamp
    findings: Findings
    images: list[Produced]
    reports: list[Produced]

    @property
    def results(self) -> list[Produced]:
        return [*self.images, *self.reports]


def process(
    paths: Sequence[Path],
    *,
    lesions: int = 0,
    stamp: Stamp | None = None,
    pipeline: Callable[[Any], Findings] | None = None,
    **changes: Any,
) -> Run:
    """Read, find, write: as the jobs do it. `changes` are fields of the findings, which `pipeline` makes if given."""
    source = SeriesSource.load(paths)
    modality = source.first.Modality
    grid: Volume | Radiograph = read_volume(paths) if modality == "CT" else read_radiograph(paths[0])
    when = stamp or _new_stamp(study_instance_uid=str(source.first.StudyInstanceUID))
    found = replace(pipeline(grid) if pipeline else findings(grid, lesions=lesions), **changes)
    images = list(write_images(found, grid, source, when))
    found = noted(found, {image.kind for image in images})
    line = entry(source, found, grid, [image.ref for image in images])
    reports = write_report(study(line), {source.series_instance_uid: source}, when)
    return Run(list(paths), grid, source, when, found, images, reports)


def change(ds: Dataset, **elements: Any) -> Dataset:
    """None takes an element away."""
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def _common(sop_class: str, series: int, number: int, modality: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"{ROOT}.2.{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{ROOT}.2.{series}"
    ds.StudyDate, ds.StudyTime, ds.SeriesDate, ds.SeriesTime = "20260102", "101112", "20260102", "101213"
    ds.ContentDate, ds.ContentTime = "20260102", "101214"
    ds.AcquisitionDate, ds.AcquisitionTime = "20260102", "101213"
    ds.AccessionNumber, ds.StudyID, ds.StudyDescription = "A-17", "S-1", "Thorax"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Müller^Anna", "P-17", "HOSPITAL"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19500203", "F", "075Y"
    ds.ReferringPhysicianName = "Meier^Jörg"
    ds.Manufacturer, ds.ManufacturerModelName, ds.StationName = "ACME", "Scan 5", "CT2"
    ds.SeriesNumber, ds.InstanceNumber, ds.Modality = series, number, modality
    ds.SeriesDescription = f"{modality} Thorax 2.5 B40f"
    ds.TimezoneOffsetFromUTC = "+0100"
    return ds


def _dx(ds: Dataset, *, for_processing: bool) -> None:
    ds.PresentationIntentType = "FOR PROCESSING" if for_processing else "FOR PRESENTATION"
    ds.ImagerPixelSpacing, ds.PixelSpacing = [0.2, 0.2], [0.19, 0.19]
    ds.PixelSpacingCalibrationType, ds.PixelSpacingCalibrationDescription = "GEOMETRY", "known distance"
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1 if for_processing else -1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "US"
    ds.PresentationLUTShape, ds.LossyImageCompression, ds.BurnedInAnnotation = "IDENTITY", "00", "NO"
    ds.ImageLaterality, ds.DetectorType, ds.AcquisitionContextSequence = "U", "DIRECT", []
    ds.AnatomicRegionSequence = [
        _item(CodeValue="51185008", CodingSchemeDesignator="SCT", CodeMeaning="Chest"),
    ]


def _pixels(ds: Dataset, values: NDArray[Any], stored: int) -> None:
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * values.dtype.itemsize, stored, stored - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"


def _item(**elements: Any) -> Dataset:
    return change(Dataset(), **elements)


def _save(folder: Path, ds: Dataset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, f"{ROOT}.99"
    ds.file_meta = meta
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path
