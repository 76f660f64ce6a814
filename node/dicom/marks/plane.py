"""Pixels of one image ↔ millimetres in the patient, for any orientation and unequal spacing (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.dicom.marks.mark import Axis, Point
from node.dicom.read.frames import Frame
from node.dicom.read.geometry import Plane, plane_of

Array = NDArray[np.float64]

AXIAL_WITHIN_DEG = 5.0


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """One image in the patient.

    origin_mm       of the centre of the first pixel
    spacing_yx_mm   (between rows, between columns)
    """

    origin_mm: Array
    plane: Plane
    spacing_yx_mm: tuple[float, float]

    @classmethod
    def of(cls, frame: Frame) -> ImagePlane:
        """raises NotEligible where the orientation is none"""
        spacing = (frame.spacing[0], frame.spacing[1])
        return cls(np.array(frame.position, np.float64), plane_of([frame.orientation]), spacing)

    @property
    def axial(self) -> bool:
        """Whether its normal is within 5° of the body's axis."""
        return abs(float(self.plane.normal[2])) >= math.cos(math.radians(AXIAL_WITHIN_DEG))

    def to_pixel(self, point_mm: Sequence[float]) -> Point:
        """(x, y) px of a point, or of its foot on the plane."""
        relative = np.asarray(point_mm, np.float64) - self.origin_mm
        row_mm, column_mm = self.spacing_yx_mm
        return float(relative @ self.plane.row) / column_mm, float(relative @ self.plane.column) / row_mm

    def distance_mm(self, point_mm: Sequence[float]) -> float:
        """How far a point lies from the plane."""
        return abs(float((np.asarray(point_mm, np.float64) - self.origin_mm) @ self.plane.normal))


def length_mm(axis: Axis, spacing_yx_mm: tuple[float, float]) -> float:
    """Of an axis in px."""
    (x1, y1), (x2, y2) = axis
    return math.hypot((x2 - x1) * spacing_yx_mm[1], (y2 - y1) * spacing_yx_mm[0])
