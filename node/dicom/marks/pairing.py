"""Which two of the lines drawn on an image are the axes of one lesion.

In 19 real marks the axes met at 82.8 to 90°, between .15 and .73 of either: hence the limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from node.dicom.marks.mark import Axis, Line
from node.dicom.marks.plane import length_mm

LEAST_ANGLE_DEG = 75.0
SLACK = 0.05
"""Share of a line by which the crossing may lie beyond its end."""


@dataclass(frozen=True)
class Crossing:
    """Two lines that can be the axes of a lesion: indices of the longer and the shorter one."""

    long: int
    short: int
    angle_deg: float
    same_group: bool


def pair(lines: Sequence[Line], spacing_yx_mm: tuple[float, float]) -> tuple[list[Crossing], list[int]]:
    """(pairs, indices of lines left over).

    Lines that the writer tied together go first, then those closest to a right angle; each line is used once. Lines
    with different tracking UIDs are of different lesions, however they lie.
    """
    found = [
        crossing
        for i in range(len(lines))
        for j in range(i + 1, len(lines))
        if (crossing := _crossing(lines, i, j, spacing_yx_mm)) is not None
    ]
    found.sort(key=lambda it: (not it.same_group, 90 - it.angle_deg, it.long, it.short))
    free = set(range(len(lines)))
    pairs = []
    for crossing in found:
        if {crossing.long, crossing.short} <= free:
            free -= {crossing.long, crossing.short}
            pairs.append(crossing)
    return sorted(pairs, key=lambda it: min(it.long, it.short)), sorted(free)


def angle_deg(one: Axis, other: Axis, spacing_yx_mm: tuple[float, float]) -> float | None:
    """The angle at which two lines cross, 0 to 90, measured in mm; None where they do not cross within the slack."""
    found = _meeting(one, other, spacing_yx_mm)
    return None if found is None else found[0]


def _meeting(one: Axis, other: Axis, spacing_yx_mm: tuple[float, float]) -> tuple[float, float, float] | None:
    """The angle at which two lines cross, as `angle_deg`, and where: as shares of either line."""
    (ax, ay), (bx, by) = (_vector(axis, spacing_yx_mm) for axis in (one, other))
    sx = (other[0][0] - one[0][0]) * spacing_yx_mm[1]
    sy = (other[0][1] - one[0][1]) * spacing_yx_mm[0]
    sine = ax * by - ay * bx
    lengths = math.hypot(ax, ay) * math.hypot(bx, by)
    if lengths == 0 or abs(sine) < 1e-9 * lengths:
        return None
    along_one, along_other = (sx * by - sy * bx) / sine, (sx * ay - sy * ax) / sine
    if not all(-SLACK <= along <= 1 + SLACK for along in (along_one, along_other)):
        return None
    return math.degrees(math.asin(min(1.0, abs(sine) / lengths))), along_one, along_other


def _crossing(lines: Sequence[Line], i: int, j: int, spacing_yx_mm: tuple[float, float]) -> Crossing | None:
    one, other = lines[i], lines[j]
    if one.tracking_uid and other.tracking_uid and one.tracking_uid != other.tracking_uid:
        return None
    found = _meeting(one.ends, other.ends, spacing_yx_mm)
    if found is None or found[0] < LEAST_ANGLE_DEG:
        return None
    angle, *along = found
    if all(not SLACK < share < 1 - SLACK for share in along):
        return None  # two arms of an angle, or two sides of a frame
    tied = bool(one.tracking_uid and one.tracking_uid == other.tracking_uid) or 0 != one.group == other.group
    first_is_longer = length_mm(one.ends, spacing_yx_mm) >= length_mm(other.ends, spacing_yx_mm)
    return Crossing(i, j, angle, tied) if first_is_longer else Crossing(j, i, angle, tied)


def _vector(axis: Axis, spacing_yx_mm: tuple[float, float]) -> tuple[float, float]:
    (x1, y1), (x2, y2) = axis
    return (x2 - x1) * spacing_yx_mm[1], (y2 - y1) * spacing_yx_mm[0]
