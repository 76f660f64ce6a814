"""Copies of received headers for highdicom: only what it reads, put in order.

Headers have quirks that the library refuses, and none of them may cost a result. Patient and study are left out: they
come from the source when an object is dressed, and the library's errors and warnings quote what it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from models.contract import SourceRef, Volume
from node.dicom import uids
from node.dicom.write import headers
from node.dicom.write.charset import UTF8
from node.dicom.write.source import SeriesSource

REFUSALS = (ValueError, TypeError, AttributeError)
"""How highdicom refuses a header."""
_READ = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Rows Columns
    LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
"""
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_ROUNDING = 1e-6
"""Differences of direction cosines that are the rounding of a header."""


def image(header: Any) -> Any:
    """Which image it is and how large, without its place; no frames, no values, no window."""
    copy = Dataset()
    for keyword in _READ.split():
        if header.get(keyword):
            headers.copy_element(header[keyword], copy)
    headers.fill_empty(copy, _EMPTY)
    copy.SpecificCharacterSet = UTF8
    copy.SamplesPerPixel = 1
    return copy


def slices(volume: Volume, indices: Sequence[int], source: SeriesSource) -> tuple[list[Any], dict[str, SourceRef]]:
    """Some slices of a volume as single-frame images of one plane, one frame of reference and one scale.

    A frame of a multi-frame image is given a UID of its own; the mapping says which UID is which frame.
    """
    frames = [source.frame(ref) for ref in volume.sources]
    orientation, frame_of_reference = _orientation(volume, frames), _frame_of_reference(frames)
    step, down, across = volume.spacing_zyx_mm
    copies, named = [], {}
    for index in indices:
        header, ref = frames[index], volume.sources[index]
        copy = image(header)
        if ref.frame is not None:
            copy.SOPClassUID, copy.SOPInstanceUID = CTImageStorage, f"2.25.{index + 1}"
        named[str(copy.SOPInstanceUID)] = ref
        copy.FrameOfReferenceUID = frame_of_reference
        copy.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or None
        headers.copy_element(header["ImagePositionPatient"], copy)
        copy.ImageOrientationPatient = orientation
        copy.PixelSpacing = [format_number_as_ds(down), format_number_as_ds(across)]
        copy.SliceThickness = format_number_as_ds(_thickness(frames[0], step))
        copies.append(copy)
    return copies, named


def _orientation(volume: Volume, frames: Sequence[Any]) -> list[str]:
    """As stated, digit by digit, where all slices mean one; else that of the volume."""
    _, down, across = volume.spacing_zyx_mm
    cosines = np.concatenate([volume.affine[:3, 2] / across, volume.affine[:3, 1] / down]) + 0.0  # no -0
    stated = np.array([frame.ImageOrientationPatient for frame in frames], dtype=np.float64)
    if np.allclose(stated, cosines, rtol=0, atol=_ROUNDING):
        return [str(headers.decimal(value)) for value in frames[0].ImageOrientationPatient]
    return [format_number_as_ds(float(value)) for value in cosines]


def _frame_of_reference(frames: Sequence[Any]) -> str:
    """The one that slices state; where none does, one of our own for the series."""
    stated = (str(frame.FrameOfReferenceUID) for frame in frames if frame.get("FrameOfReferenceUID"))
    return next(stated, None) or uids.frame_of_reference_uid(str(frames[0].SeriesInstanceUID))


def _thickness(frame: Any, step_mm: float) -> float:
    stated = frame.get("SliceThickness")
    return float(stated) if isinstance(stated, int | float) and stated > 0 else step_mm
