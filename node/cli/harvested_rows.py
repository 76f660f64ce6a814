"""A mark as a row of the lesion table: what it is called in public codes, and whether it is like a lesion's at all."""

from __future__ import annotations

import re
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.contract import Code
from models.deeplesion.table import (
    FIRST_PIXEL,
    LesionRow,
    LesionType,
    Points,
    Split,
    box_of,
    diameters_of,
    merge_boxes,
)
from node.dicom.marks.deidentify import Mapping
from node.dicom.marks.mark import Axis, Refusal
from node.dicom.marks.resolve import Mark
from node.dicom.marks.series import person_of

REACH_MM = 30.0
"""How far up and down neighbours of a key slice are kept."""
AGAIN = "the same lesion is marked already (boxes overlap by more than 60 %)"
_TABLE_DIGITS_PX = 0.01
_MOST_SLENDER = 8.0
"""Long over short axis; 1.0 to 4.0 in 19 real marks."""
_AIR_HU = -970.0
"""Mean over the box, margin and all: lung that is blown up is above, the air beside the patient below."""
_LEAST_SPREAD_HU = 3.0
"""Standard deviation over the box: no scanner's noise is so weak."""
_CODES = {
    "SCT": r"\d{6,18}",
    "SRT": r"[A-Z]{1,2}-[0-9A-F]{4,6}",
    "SNM3": r"[A-Z]{1,2}-[0-9A-F]{4,6}",
    "DCM": r"\d{6}",
    "RADLEX": r"RID\d{1,6}",
    "UMLS": r"C\d{7}",
    "FMA": r"\d{3,6}",
}
"""Public coding schemes → the codes they have."""

_TYPES: AnyMapping[str, LesionType] = {
    "272673000": LesionType.BONE,
    "818983003": LesionType.ABDOMEN,
    "113345001": LesionType.ABDOMEN,
    "T-D4000": LesionType.ABDOMEN,
    "72410000": LesionType.MEDIASTINUM,
    "T-D3300": LesionType.MEDIASTINUM,
    "10200004": LesionType.LIVER,
    "T-62000": LesionType.LIVER,
    "39607008": LesionType.LUNG,
    "T-28000": LesionType.LUNG,
    "64033007": LesionType.KIDNEY,
    "T-71000": LesionType.KIDNEY,
    "87784001": LesionType.SOFT_TISSUE,
    "816092008": LesionType.PELVIS,
    "12921003": LesionType.PELVIS,
    "T-D6000": LesionType.PELVIS,
}
"""Finding site (SNOMED CT, and RT of older reports) → coarse type."""


def row_of(mark: Mark, mapping: Mapping, patient: int, study: int, study_uid: str, split: Split) -> LesionRow:
    """The row, under the numbers that stand for patient and study; whether it is noisy its image says (`is_odd`)."""
    series, about = mark.series, mark.about
    person = person_of(series.frames[mark.index].path)
    points = _points(mark)
    first, last, step_mm = series.neighbours(mark.index, REACH_MM)
    row_mm, column_mm = series.planes[mark.index].spacing_yx_mm
    frame = series.frames[mark.index]
    return LesionRow(
        patient=patient,
        study=study,
        series=mapping.series_number(study_uid, series.uid),
        key_slice=FIRST_PIXEL + mark.index,
        points_px=points,
        box_px=box_of(points),
        diameters_px=diameters_of(points),
        slice_range=(1 + first, 1 + last),
        spacing_mm=(column_mm, row_mm, step_mm),
        image_size=(frame.columns, frame.rows),
        window_hu=person.window_hu,
        split=split,
        lesion_type=_type_at(about.site),
        sex=person.sex,
        age=person.age,
        origin=f"{about.origin}{' (device)' if about.observer == 'device' else ''}",
        institution=mapping.institution(about.institution),
    )


def once(marks: Sequence[Mark], refusals: list[Refusal]) -> list[Mark]:
    """Marks of one study, in their order, without those whose boxes lie on the box of an earlier one on its image."""
    kept: set[int] = set()
    images = {(mark.series.uid, mark.index) for mark in marks}
    for image in sorted(images):
        of_image = [i for i, mark in enumerate(marks) if (mark.series.uid, mark.index) == image]
        for _, members in merge_boxes([box_of(_points(marks[i])) for i in of_image]):
            kept.add(of_image[members[0]])
            for repeat in members[1:]:
                mark = marks[of_image[repeat]]
                refusals.append(Refusal(mark.about.document_uid, AGAIN, "", mark.image.instance_uid))
    return [mark for i, mark in enumerate(marks) if i in kept]


def is_odd(row: LesionRow, hu: NDArray[np.int32]) -> bool:
    """Whether a mark is unlike a lesion's: too slender, on nothing but air, or on no structure at all.

    J18 looked at boxes of odd area, aspect, mean or spread by hand; here they are marked as possibly noisy.
    """
    x1, y1, x2, y2 = (round(value) for value in row.box_px)
    inside = hu[max(0, y1) : y2 + 1, max(0, x1) : x2 + 1]
    long_mm, short_mm = row.diameters_mm
    return bool(long_mm > _MOST_SLENDER * short_mm or inside.mean() < _AIR_HU or inside.std() < _LEAST_SPREAD_HU)


def is_same(row: LesionRow, other: LesionRow) -> bool:
    """Whether two rows are of one mark: one of them may have been read from the table, which has six digits."""
    near = np.allclose(row.points_px, other.points_px, rtol=0, atol=_TABLE_DIGITS_PX)
    return row.file_name == other.file_name and near


def code_text(code: Code | None) -> str:
    """ "39607008 SCT"; "" for codes of private schemes, which may say anything, and for what no public scheme has."""
    if code is None or not re.fullmatch(_CODES.get(code[1], r"(?!)"), code[0]):
        return ""
    return f"{code[0]} {code[1]}"


def _type_at(site: Code | None) -> LesionType:
    return _TYPES.get(site[0], LesionType.UNLABELLED) if site and code_text(site) else LesionType.UNLABELLED


def _points(mark: Mark) -> Points:
    (a, b), (c, d) = (_ends(axis) for axis in (mark.long_px, mark.short_px))
    return a, b, c, d


def _ends(axis: Axis) -> tuple[tuple[float, float], tuple[float, float]]:
    (x1, y1), (x2, y2) = axis
    return (x1, y1), (x2, y2)
