"""One CT series head → feet: where each image lies, and its HU when they are asked for."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.contract import SourceRef
from node.dicom.elements import item, number, parse, text
from node.dicom.marks.plane import ImagePlane
from node.dicom.read.codec import Codec
from node.dicom.read.frames import Frame, frames_of
from node.dicom.read.pixels import PixelFile
from node.dicom.read.stack import one_stack
from node.dicom.read.volume import ABOVE_METAL_HU
from node.errors import NotEligible, NotUnderstood

LOWEST_HU, HIGHEST_HU = -32768, 32767
_UNKNOWN_WINDOW = (-175.0, 275.0)
"""Low, high HU where the image names none: three quarters of DeepLesion's rows have it."""
_BEFORE_FRAMES = 0x52009230
_SIGN_BIT = 1 << 15
"""Unsigned pixels have their fill values above: 63536 for -2000, 65535 for -1."""
_UNEVEN = 0.25
"""Share by which two steps may differ and still be one: some scanners round positions to 0.1 mm."""


@dataclass(frozen=True, eq=False)
class CtSeries:
    """Slices of one stack, head → feet.

    places_mm       float64 (Z,): along the normal, in the order of the slices
    left_out        SOP Instance UIDs of its images that are not in the stack
    """

    uid: str
    frame_of_reference_uid: str
    frames: tuple[Frame, ...]
    planes: tuple[ImagePlane, ...]
    places_mm: NDArray[np.float64]
    left_out: frozenset[str]

    @classmethod
    def load(cls, paths: Sequence[Path], codec: Codec, *, without: Collection[str] = ()) -> CtSeries:
        """The headers of a series; pixels are asked only of images that share a position.

        without  SOP Instance UIDs of images that are as if they were not there
        raises   NotEligible   not one stack of CT images in HU
        """
        every = [frame for path in paths for frame in frames_of(path)[0]]
        found = [frame for frame in every if frame.source.instance_uid not in without]

        def fingerprint(frame: Frame) -> bytes:
            return hashlib.sha256(PixelFile(frame.path, codec).frame(frame.index)[0].tobytes()).digest()

        kept, plane, _ = one_stack(found, fingerprint)
        if plane.normal[2] > 0:
            kept = kept[::-1]
        stacked = {frame.source.instance_uid for frame in kept}
        return cls(
            uid=kept[0].series_instance_uid,
            frame_of_reference_uid=kept[0].frame_of_reference_uid,
            frames=tuple(kept),
            planes=tuple(ImagePlane.of(frame) for frame in kept),
            places_mm=np.array([frame.position for frame in kept], np.float64) @ plane.normal,
            left_out=frozenset(frame.source.instance_uid for frame in found) - stacked,
        )

    @property
    def patient_id(self) -> str:
        return next((frame.patient_id for frame in self.frames if frame.patient_id), "")

    def index_of(self, image: SourceRef) -> int | None:
        """Where an image, or a frame of one, lies in the series. A single frame may be named by its number or not."""
        of_instance = [i for i, frame in enumerate(self.frames) if frame.source.instance_uid == image.instance_uid]
        for index in of_instance:
            frame = self.frames[index].source.frame
            if frame == image.frame or (frame is None and image.frame == 1):
                return index
        return of_instance[0] if image.frame is None and len(of_instance) == 1 else None

    def nearest(self, point_mm: Sequence[float]) -> int:
        """The slice whose plane is closest to a point."""
        return int(np.argmin([plane.distance_mm(point_mm) for plane in self.planes]))

    def half_step_mm(self, index: int) -> float:
        """Half the way to the nearer neighbour: what is farther off the plane is not of this slice."""
        if len(self.frames) == 1:
            return (self.frames[0].slice_thickness_mm or 1.0) / 2
        return self._step_mm(index) / 2

    def neighbours(self, index: int, reach_mm: float) -> tuple[int, int, float]:
        """First and last slice that go on evenly from slice `index`, no farther than this, and their step, mm.

        A gap, or a part of the scan with another step, is the end: a table has one interval for all of a row's slices.
        The step is that of the positions, whatever SliceThickness says; NaN of a single slice.
        """
        if len(self.frames) == 1:
            return index, index, float("nan")
        steps, usual = np.abs(np.diff(self.places_mm)), self._step_mm(index)
        even = np.abs(steps - usual) <= _UNEVEN * usual
        near = np.abs(self.places_mm - self.places_mm[index]) <= reach_mm + 1e-6
        first = last = index
        while first > 0 and even[first - 1] and near[first - 1]:
            first -= 1
        while last + 1 < len(near) and even[last] and near[last + 1]:
            last += 1
        return first, last, float(np.median(steps[first:last])) if last > first else usual

    def _step_mm(self, index: int) -> float:
        """To the nearer neighbour."""
        beside = [i for i in (index - 1, index + 1) if 0 <= i < len(self.frames)]
        return min(abs(float(self.places_mm[index] - self.places_mm[i])) for i in beside)

    def hounsfield(self, index: int, codec: Codec) -> NDArray[np.int32]:
        """HU (Y, X) of one slice, whole numbers that 16 bits hold.

        raises   NotEligible   the pixels cannot be decoded, were compressed with loss, or hold burnt-in text
        """
        frame = self.frames[index]
        file = PixelFile(frame.path, codec)
        if file.lossy:
            raise NotEligible("The image was compressed with loss, so its values are not those of the scanner.")
        if text(file.dataset, 0x00280301).upper() == "YES":
            raise NotEligible("The image says that text is burnt into it, which may name the patient.")
        stored, _ = file.frame(frame.index)
        slope, intercept = float(frame.slope or 1), float(frame.intercept or 0)
        hu = stored * slope + intercept
        meant_signed = (hu > ABOVE_METAL_HU) & (stored >= _SIGN_BIT)
        hu[meant_signed] -= 2 * _SIGN_BIT * slope
        return np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU).astype(np.int32)


@dataclass(frozen=True)
class Person:
    """What a row says of the patient: no name, no number, no date. `age` NaN where unknown."""

    sex: Literal["F", "M", ""]
    age: float
    window_hu: tuple[float, float]


def person_of(path: Path) -> Person:
    """Sex, age at the scan, and the image's own first window. raises NotEligible"""
    try:
        dataset = parse(path, stop_at=_BEFORE_FRAMES)
    except NotUnderstood as exc:
        raise NotEligible(exc.reason) from exc
    sexes: dict[str, Literal["F", "M"]] = {"F": "F", "M": "M"}
    shared = item(item(dataset, 0x52009229), 0x00289132)
    voi = shared if len(shared) else dataset
    centre, width = number(voi, 0x00281050), number(voi, 0x00281051)
    window = _UNKNOWN_WINDOW if centre is None or not width or width <= 1 else (centre - width / 2, centre + width / 2)
    return Person(sexes.get(text(dataset, 0x00100040).upper(), ""), _age(dataset), window)


OLDEST_TOLD = 89
"""Older patients are few enough to be found by their age: they are all given as 90."""


def _age(dataset: Dataset) -> float:
    """Years at the study: from "045Y" (months, weeks and days count as fractions), else from the two dates."""
    stated = text(dataset, 0x00101010)
    if len(stated) == 4 and stated[:3].isdigit() and stated[3] in "DWMY":
        years = int(stated[:3]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[stated[3]]
    else:
        try:
            born, seen = (dt.date.fromisoformat(text(dataset, tag)) for tag in (0x00100030, 0x00080020))
        except ValueError:
            return float("nan")
        years = float(seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day)))
    if years < 0:
        return float("nan")
    return years if years <= OLDEST_TOLD else 90.0
