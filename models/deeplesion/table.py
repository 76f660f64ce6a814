"""The lesion table: rows as `DL_info.csv` of DeepLesion has them (one per marked lesion), and its 16-bit images.

Rows in memory count pixels from 0, centres at whole numbers; the file counts from 1. Only `read_table`, `write_table`
convert. Imports no torch, so that the harvest from DICOM may use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Point = tuple[float, float]
"""(x, y): column first."""
Points = tuple[Point, Point, Point, Point]
"""Two ends of the long axis, then two ends of the short axis."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""
Sex = Literal["F", "M", ""]

MARGIN_PX = 5.0
"""Pixels, not millimetres, whatever the spacing."""
MERGE_OVERLAP = 0.6
FIRST_PIXEL = 1
"""What the file calls the first column and row; in memory it is 0."""
STORED_OFFSET = 32768
"""HU = stored value − 32768."""


class LesionType(IntEnum):
    """Coarse type. All of the training split is unlabelled."""

    UNLABELLED = -1
    BONE = 1
    ABDOMEN = 2
    MEDIASTINUM = 3
    LIVER = 4
    LUNG = 5
    KIDNEY = 6
    SOFT_TISSUE = 7
    PELVIS = 8


class Split(IntEnum):
    """By patient: 70, 15, 15 %."""

    TRAIN = 1
    VALIDATION = 2
    TEST = 3


@dataclass(frozen=True)
class LesionRow:
    """One marked lesion on its key slice.

    patient, study, series  numbers from 1 that stand for identities
    key_slice               index in the series, rising head → feet, as in the file's name
    points_px               ends of long and short axis, 0-based
    box_px                  x1, y1, x2, y2, 0-based, with the margin
    diameters_px            long, short
    location                x, y, z in the body, each 0 … 1 (z from the head); NaN where unknown
    slice_range             first and last neighbour that is there
    spacing_mm              (x, y, interval between slices); an interval that is unknown is NaN
    image_size              (columns, rows)
    window_hu               (low, high) the mark was made with
    age                     years, NaN where unknown
    origin                  kind of object that the mark comes from ("GSPS", "SR"…); "" in the public table
    institution             of the observer; "" where unknown
    """

    patient: int
    study: int
    series: int
    key_slice: int
    points_px: Points
    box_px: Box
    diameters_px: tuple[float, float]
    slice_range: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    image_size: tuple[int, int]
    window_hu: tuple[float, float]
    split: Split
    location: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    lesion_type: LesionType = LesionType.UNLABELLED
    noisy: bool = False
    sex: Sex = ""
    age: float = math.nan
    origin: str = ""
    institution: str = ""

    @property
    def file_name(self) -> str:
        """`PPPPPP_SS_RR_NNN.png`."""
        return f"{self.patient:06d}_{self.study:02d}_{self.series:02d}_{self.key_slice:03d}.png"

    @property
    def diameters_mm(self) -> tuple[float, float]:
        """Long, short (square pixels: the column spacing counts for both)."""
        long, short = self.diameters_px
        return long * self.spacing_mm[0], short * self.spacing_mm[0]


def box_of(points: Sequence[Point], *, margin_px: float = MARGIN_PX) -> Box:
    """The box round the ends of both axes, with the margin, unclipped, in the points' own coordinates.

    source   J Med Imaging 5(3) 036501, section 2
    """
    xs, ys = zip(*points, strict=True)
    return min(xs) - margin_px, min(ys) - margin_px, max(xs) + margin_px, max(ys) + margin_px


def diameters_of(points: Points) -> tuple[float, float]:
    """Lengths of the long and the short axis, in the points' unit."""
    return math.dist(points[0], points[1]), math.dist(points[2], points[3])
