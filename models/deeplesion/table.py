"""The lesion table: rows as `DL_info.csv` of DeepLesion has them (one per marked lesion), and its 16-bit images.

Rows in memory count pixels from 0, centres at whole numbers; the file counts from 1. Only `read_table`, `write_table`
convert. Imports no torch, so that the harvest from DICOM may use it.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.contract import FloatArray, ModelError

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
_COMPRESS_LEVEL = 1
"""Of PNG: ten times as fast as the usual 6, and 7 % larger."""
FIRST_PIXEL = 1
"""What the file calls the first column and row; in memory it is 0."""
STORED_OFFSET = 32768
"""HU = stored value − 32768."""

COLUMNS = (
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)
DERIVED = "(derived)"
"""In the origin of a lesion that nobody measured."""
OWN_COLUMNS = ("Origin", "Institution")
"""Behind the others, in tables that a harvest made; a reader of the public table need not know them."""


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
    def measured(self) -> bool:
        """Whether somebody measured its axes: not where they were taken from what somebody, or software, drew."""
        return DERIVED not in self.origin

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


def merge_boxes(boxes: Sequence[Box], *, overlap: float = MERGE_OVERLAP) -> list[tuple[Box, tuple[int, ...]]]:
    """Boxes of one image, those that overlap averaged: (box, indices of the boxes in it), by first index.

    The closest two are merged first, until no two overlap more; so the order of the boxes does not matter.

    overlap  intersection over union above which two are one. J18 says "overlap > 60 %" and not of what
    """
    merged: list[tuple[Box, tuple[int, ...]]] = [(box, (index,)) for index, box in enumerate(boxes)]
    while len(merged) > 1:
        pairs = [(_iou(a[0], b[0]), i, j) for i, a in enumerate(merged) for j, b in enumerate(merged[:i])]
        closest, i, j = max(pairs, key=lambda pair: pair[0])
        if closest <= overlap:
            break
        members = tuple(sorted(merged[i][1] + merged[j][1]))
        mean = np.mean([boxes[index] for index in members], axis=0)
        merged = [one for k, one in enumerate(merged) if k not in (i, j)]
        merged.append(((float(mean[0]), float(mean[1]), float(mean[2]), float(mean[3])), members))
    return sorted(merged, key=lambda one: one[1])


def _iou(a: Box, b: Box) -> float:
    """Intersection over union, a box of one pixel having area 1."""
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def image_path(file_name: str) -> PurePosixPath:
    """Where the image lies: the last underscore of the table's name stands for a folder.

    raises   ModelError     the name is not PPPPPP_SS_RR_NNN.png
    """
    if not re.fullmatch(r"\d{6,}_\d{2,}_\d{2,}_\d{3,}\.png", file_name):
        raise ModelError(f"{file_name!r} is not of the form PPPPPP_SS_RR_NNN.png")
    folder, _, name = file_name.rpartition("_")
    return PurePosixPath(folder, name)


def hounsfield(stored: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Stored values of an image to HU, exact.

    raises   ModelError     the values are not 16-bit unsigned (an 8-bit copy has lost its HU)
    """
    if stored.dtype != np.uint16:
        raise ModelError(f"stored values are {stored.dtype}, not uint16")
    return stored.astype(np.int32) - STORED_OFFSET


def stored_values(hu: NDArray[np.generic]) -> NDArray[np.uint16]:
    """HU to what an image stores, rounded to whole HU.

    raises   ModelError     a value is not finite, or outside −32768…32767 HU
    """
    whole = np.rint(np.asarray(hu, np.float64)) + STORED_OFFSET
    if not np.all((whole >= 0) & (whole < 2 * STORED_OFFSET)):
        raise ModelError("HU outside −32768…32767, or not finite")
    return whole.astype(np.uint16)


def read_image(path: Path) -> NDArray[np.int32]:
    """HU (Y, X) of one 16-bit greyscale PNG.

    raises   ModelError     the file is missing, damaged, or not 16-bit greyscale
    """
    try:
        with Image.open(path) as image:
            if image.mode != "I;16":
                raise ModelError(f"{path.name}: mode {image.mode}, not a 16-bit greyscale PNG")
            return hounsfield(np.asarray(image, np.uint16))
    except (UnidentifiedImageError, OSError, SyntaxError) as exc:
        raise ModelError(f"{path.parent.name}/{path.name}: missing or damaged") from exc


def write_image(path: Path, hu: NDArray[np.generic]) -> None:
    """HU (Y, X) as a 16-bit greyscale PNG; makes the folder.

    raises   ModelError     as `stored_values`
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored_values(hu)).save(path, compress_level=_COMPRESS_LEVEL)


def windowed(hu: NDArray[np.generic], low: float, high: float) -> FloatArray:
    """HU to 0…255, clipped at both ends of the window.

    raises   ModelError     the window is empty
    """
    if not high > low:
        raise ModelError(f"window {low:g}…{high:g} HU is empty")
    share: FloatArray = np.clip((np.asarray(hu, np.float32) - low) / (high - low), 0, 1).astype(np.float32)
    return share * np.float32(255)


def read_table(path: Path) -> list[LesionRow]:
    """All rows, in the file's order, moved to 0-based pixels.

    raises   ModelError     no such file, a column missing, a cell that cannot be right (line and column named), or a
                            patient in two splits
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ModelError(f"{path.name}: no column {', '.join(sorted(missing))}")
            rows: list[LesionRow] = []
            splits: dict[int, Split] = {}
            for cells in reader:
                row = _parse(_Cells(cells, f"{path.name}, line {reader.line_num}"))
                if splits.setdefault(row.patient, row.split) != row.split:
                    where = f"{path.name}, line {reader.line_num}, column Train_Val_Test"
                    raise ModelError(f"{where}: patient {row.patient} is in two splits")
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ModelError(f"{path.name}: not a readable table ({type(exc).__name__})") from exc
    return rows


def write_table(path: Path, rows: Iterable[LesionRow]) -> None:
    """Rows as the public table has them: six significant digits, pixels from 1; makes the folder.

    Columns for origin and institution follow only where a row says either.
    """
    rows = list(rows)
    own = OWN_COLUMNS if any(row.origin or row.institution for row in rows) else ()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *own), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_cells(row) for row in rows)


Code = TypeVar("Code", bound=IntEnum)


@dataclass(frozen=True)
class _Cells:
    """One line of the file; every reading names line and column when it fails."""

    cells: Mapping[str, str | None]
    where: str

    def text(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def numbers(self, column: str, count: int, *, known: int) -> list[float]:
        """So many numbers, of which the first `known` must be finite."""
        try:
            values = [float(part) for part in self.text(column).split(",")]
        except ValueError as exc:
            raise self.wrong(column, f"not {count} number{'s' * (count > 1)}") from exc
        if len(values) != count or not all(map(math.isfinite, values[:known])) or any(map(math.isinf, values)):
            raise self.wrong(column, f"not {count} finite number{'s' * (count > 1)}")
        return values

    def wholes(self, column: str, count: int) -> list[int]:
        values = self.numbers(column, count, known=count)
        if any(value != int(value) for value in values):
            raise self.wrong(column, "not whole")
        return [int(value) for value in values]

    def code(self, column: str, codes: type[Code]) -> Code:
        (value,) = self.wholes(column, 1)
        try:
            return codes(value)
        except ValueError as exc:
            raise self.wrong(column, f"not one of {', '.join(str(int(code)) for code in codes)}") from exc

    def wrong(self, column: str, why: str) -> ModelError:
        return ModelError(f"{self.where}, column {column}: {self.text(column)!r} is {why}")


def _parse(cells: _Cells) -> LesionRow:
    x = [value - FIRST_PIXEL for value in cells.numbers("Measurement_coordinates", 8, known=8)]
    box = [value - FIRST_PIXEL for value in cells.numbers("Bounding_boxes", 4, known=4)]
    if not (box[0] < box[2] and box[1] < box[3]):
        raise cells.wrong("Bounding_boxes", "not x1, y1, x2, y2 of a box")
    long, short = cells.numbers("Lesion_diameters_Pixel_", 2, known=2)
    location = cells.numbers("Normalized_lesion_location", 3, known=0)
    first, last = cells.wholes("Slice_range", 2)
    spacing = cells.numbers("Spacing_mm_px_", 3, known=2)
    columns, rows = cells.wholes("Image_size", 2)
    low, high = cells.numbers("DICOM_windows", 2, known=2)
    noisy = cells.wholes("Possibly_noisy", 1)[0]
    if noisy not in (0, 1):
        raise cells.wrong("Possibly_noisy", "neither 0 nor 1")
    if spacing[0] <= 0 or spacing[1] <= 0:
        raise cells.wrong("Spacing_mm_px_", "not positive in the image plane")
    row = LesionRow(
        patient=cells.wholes("Patient_index", 1)[0],
        study=cells.wholes("Study_index", 1)[0],
        series=cells.wholes("Series_ID", 1)[0],
        key_slice=cells.wholes("Key_slice_index", 1)[0],
        points_px=((x[0], x[1]), (x[2], x[3]), (x[4], x[5]), (x[6], x[7])),
        box_px=(box[0], box[1], box[2], box[3]),
        diameters_px=(long, short),
        slice_range=(first, last),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        image_size=(columns, rows),
        window_hu=(low, high),
        split=cells.code("Train_Val_Test", Split),
        location=(location[0], location[1], location[2]),
        lesion_type=cells.code("Coarse_lesion_type", LesionType),
        noisy=noisy == 1,
        sex=_sex(cells),
        age=cells.numbers("Patient_age", 1, known=0)[0] if cells.text("Patient_age") else math.nan,
        origin=cells.text("Origin"),
        institution=cells.text("Institution"),
    )
    if cells.text("File_name") != row.file_name:
        raise cells.wrong("File_name", f"not {row.file_name}, as patient, study, series and slice say")
    return row


def _sex(cells: _Cells) -> Sex:
    known: dict[str, Sex] = {"F": "F", "M": "M", "": "", "NaN": ""}
    text = cells.text("Patient_gender")
    if text not in known:
        raise cells.wrong("Patient_gender", "neither F nor M nor empty")
    return known[text]


def _cells(row: LesionRow) -> dict[str, str]:
    """The texts of one line, by column."""

    def joined(values: Iterable[float], shift: int = 0) -> str:
        return ", ".join("NaN" if math.isnan(value) else f"{value + shift:.6g}" for value in values)

    return {
        "File_name": row.file_name,
        "Patient_index": str(row.patient),
        "Study_index": str(row.study),
        "Series_ID": str(row.series),
        "Key_slice_index": str(row.key_slice),
        "Measurement_coordinates": joined((value for point in row.points_px for value in point), FIRST_PIXEL),
        "Bounding_boxes": joined(row.box_px, FIRST_PIXEL),
        "Lesion_diameters_Pixel_": joined(row.diameters_px),
        "Normalized_lesion_location": joined(row.location),
        "Coarse_lesion_type": str(int(row.lesion_type)),
        "Possibly_noisy": str(int(row.noisy)),
        "Slice_range": joined(row.slice_range),
        "Spacing_mm_px_": joined(row.spacing_mm),
        "Image_size": joined(row.image_size),
        "DICOM_windows": joined(row.window_hu),
        "Patient_gender": row.sex,
        "Patient_age": joined([row.age]),
        "Train_Val_Test": str(int(row.split)),
        "Origin": row.origin,
        "Institution": row.institution,
    }
