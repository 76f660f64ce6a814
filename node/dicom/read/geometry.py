"""Where a stack of slices is: order along the normal, steps, gantry tilt, and the affine (PS3.3 C.7.6.2.1.1).

Axes are DICOM's: millimetres towards the patient's Left, Posterior and Superior (head).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.errors import NotEligible

Array = NDArray[np.float64]

UNIT_TOLERANCE = 0.01
"""How far direction cosines may be from unit length and right angles: headers round them."""
ANGLE_TOLERANCE = 1e-3
"""Largest difference of direction cosines that still is the same orientation (0.06°)."""
STEP_TOLERANCE = 0.05
"""Share of a step by which a slice may be off its even place."""
SAME_PLACE_MM = 0.01
ROUNDED_TO_MM = 0.1
"""What positions are often rounded to: of thin steps, half of that is more than their share."""
WHOLE_MM = 1.0
"""What some systems round all positions to."""
LEAST_ODD_STEPS = 3
"""Steps of the rarer length, in the order in which rounding makes them: fewer may be slices that are missing."""
_SEARCH_STEPS = 60
TILT_TOLERANCE_DEG = 0.1
_ROUNDING_ERROR = 1e-6
"""Of a division of binary numbers."""


@dataclass(frozen=True)
class Plane:
    """Unit vectors along a row (x, columns increase), along a column (y, rows increase), and their normal."""

    row: Array
    column: Array

    @property
    def normal(self) -> Array:
        return np.cross(self.row, self.column)


@dataclass(frozen=True)
class Placement:
    """Geometry of an ordered stack, as `Volume` carries it.

    Where steps are uneven, the affine is their best fit while the spacing names the usual (median) step.
    """

    affine: Array
    spacing_zyx_mm: tuple[float, float, float]
    even_steps: bool
    gantry_tilt_deg: float
    notes: tuple[str, ...]


def plane_of(orientations: Sequence[Sequence[float]]) -> Plane:
    """The common plane: median of all, made exactly orthonormal.

    raises   NotEligible   not six numbers, not unit vectors at right angles
    """
    cosines = np.median(np.asarray(orientations, dtype=np.float64), axis=0)
    row, column = cosines[:3], cosines[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > UNIT_TOLERANCE or abs(float(row @ column)) > UNIT_TOLERANCE:
        raise NotEligible("The image orientation in the header is not a pair of directions at right angles.")
    row = row / lengths[0]
    column = column - (row @ column) * row
    return Plane(row, column / np.linalg.norm(column))


def distances(plane: Plane, positions: Array) -> Array:
    """Distance of each slice along the normal, mm."""
    return positions @ plane.normal


def place(
    plane: Plane,
    positions: Array,
    spacing_yx_mm: tuple[float, float],
    *,
    thickness_mm: float | None,
    stated_mm: Sequence[float] = (),
) -> Placement:
    """Affine and steps of slices already in order.

    positions      float64 (Z, 3), mm, increasing along the normal; of one place only where they are rounded
    thickness_mm   the step of a single slice, which has none of its own
    stated_mm      what the headers say that may be the step
    """
    count = len(positions)
    if count == 1:
        thickness = thickness_mm if thickness_mm is not None and thickness_mm > 0 else 1.0
        step, origin = plane.normal * thickness, positions[0]
        return Placement(_affine(plane, step, origin, spacing_yx_mm), (thickness, *spacing_yx_mm), True, 0.0, ())
    step, origin = _best_line(positions)
    even = _on_the_line(plane, positions)
    rounded = None if even else rounded_grid(plane, positions, stated_mm)
    if rounded is not None:
        step, origin = rounded
        even = True
    along = float(step @ plane.normal)
    places = distances(plane, positions)
    aside = _aside_mm(plane, positions)
    straight = rounded is not None or aside <= max(_allowed(along, positions), min(spacing_yx_mm) / 2)
    tilt = _tilt_deg(plane, positions) if straight else 0.0
    notes = [] if even or _evenly(places, positions) else _uneven(places)
    if rounded is not None:
        notes.append(
            f"Slice positions are written in whole millimetres. They are those of an even step of {along:.3g} mm, "
            "rounded; the even step was used."
        )
    if not straight:
        notes.append(f"Slices are shifted sideways, up to {aside:.1f} mm off one straight line; none was moved.")
    if tilt:
        notes.append(f"Gantry tilt of {tilt:.1f}°: the slices are sheared, not rotated; the affine carries it.")
    between = along if even else float(np.median(np.diff(places)))
    spacing = (between, *spacing_yx_mm)
    return Placement(_affine(plane, step, origin, spacing_yx_mm), spacing, even, tilt, tuple(notes))


def evenly_spaced(plane: Plane, positions: Array, stated_mm: Sequence[float] = ()) -> bool:
    """Whether all steps are equal, as far as rounded positions tell. Takes what `place` takes."""
    return _on_the_line(plane, positions) or rounded_grid(plane, positions, stated_mm) is not None


def rounded_grid(plane: Plane, positions: Array, stated_mm: Sequence[float]) -> tuple[Array, Array] | None:
    """(step, origin) of an even grid of which these are the positions in whole millimetres; None where they are not.

    What the headers state is believed where it explains every position. Else both lengths of steps must come often
    enough: one millimetre more, once, may as well be a slice that is missing.
    """
    fits = [fit for axis in positions.T if (fit := _whole_line(axis)) is not None]
    if len(positions) < 3 or len(fits) < 3:
        return None
    slope = np.array(fits)
    along = float(slope @ plane.normal)
    if along <= 0:
        return None
    for stated in stated_mm:
        told = slope * stated / along
        if abs(stated - round(stated)) > SAME_PLACE_MM and _explained(positions, told):
            return told, _middle(positions, told)
    steps = np.diff(positions[:, int(np.abs(slope).argmax())])
    if np.unique(steps, return_counts=True)[1].min() < LEAST_ODD_STEPS:
        return None
    return slope, _middle(positions, slope)


def _whole_line(places: Array) -> float | None:
    """Step of the line that whole numbers are, rounded, 0 where all are one; None where they are not whole, or no line.

    places      (Z,), of one axis
    """
    if np.ptp(places) <= SAME_PLACE_MM:
        return 0.0
    if not whole(places):
        return None
    count = len(places)
    usual = float((places[-1] - places[0]) / (count - 1))
    low, high = usual - 2 * WHOLE_MM / (count - 1), usual + 2 * WHOLE_MM / (count - 1)
    for _ in range(_SEARCH_STEPS):  # how far places lie from a line has one minimum over its step
        third = (high - low) / 3
        if _off_mm(places, low + third) <= _off_mm(places, high - third):
            high -= third
        else:
            low += third
    step = (low + high) / 2
    return step if _off_mm(places, step) <= WHOLE_MM + _ROUNDING_ERROR else None


def whole(places: Array) -> bool:
    """Whether all are whole millimetres."""
    return bool(np.abs(places - np.round(places / WHOLE_MM) * WHOLE_MM).max() <= _ROUNDING_ERROR)


def _off_mm(places: Array, step: float) -> float:
    """From the lowest to the highest distance of places (Z,) from a line of this step."""
    return float(np.ptp(places - np.arange(len(places)) * step))


def _explained(positions: Array, step: Array) -> bool:
    """Whether these are the positions (Z, 3) of a grid of this step, rounded."""
    return all(
        _off_mm(places, one) <= WHOLE_MM + _ROUNDING_ERROR for places, one in zip(positions.T, step, strict=True)
    )


def _middle(positions: Array, step: Array) -> Array:
    """The origin of a grid that is nowhere farther from the positions than it must be."""
    off = positions - np.arange(len(positions))[:, None] * step
    middle: Array = (off.min(axis=0) + off.max(axis=0)) / 2
    return middle


def _on_the_line(plane: Plane, positions: Array) -> bool:
    """Whether all steps are equal but for what `_allowed` allows."""
    if len(positions) < 3:
        return True
    step, origin = _best_line(positions)
    places = origin + np.arange(len(positions))[:, None] * step
    return float(np.linalg.norm(positions - places, axis=1).max()) <= _allowed(float(step @ plane.normal), positions)


def _evenly(places: Array, positions: Array) -> bool:
    """Whether all steps along the normal are equal, wherever in their planes the slices lie."""
    steps = np.diff(places)
    return float(np.abs(steps - steps.mean()).max()) <= 2 * _allowed(float(steps.mean()), positions)


def _allowed(step_mm: float, positions: Array) -> float:
    """How far a slice may be off its place: a share of the step, or what rounded positions may have moved it."""
    whole = positions / ROUNDED_TO_MM
    is_rounded = bool(np.abs(whole - np.round(whole)).max() < _ROUNDING_ERROR)
    rounding = ROUNDED_TO_MM / 2 * math.sqrt(3) if is_rounded else 0.0
    return max(SAME_PLACE_MM, STEP_TOLERANCE * step_mm, rounding)


def _aside_mm(plane: Plane, positions: Array) -> float:
    """How far slices lie, in their planes, from one straight line through the stack, as a tilted gantry moves them."""
    along = distances(plane, positions)
    sideways = positions @ np.stack([plane.row, plane.column], axis=1)  # (Z, 2)
    line = np.stack([along - along.mean(), np.ones_like(along)], axis=1)
    off = sideways - line @ np.linalg.lstsq(line, sideways, rcond=None)[0]
    return float(np.linalg.norm(off, axis=1).max())


def _affine(plane: Plane, step: Array, origin: Array, spacing_yx_mm: tuple[float, float]) -> Array:
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = plane.column * spacing_yx_mm[0]
    affine[:3, 2] = plane.row * spacing_yx_mm[1]
    affine[:3, 3] = origin
    return affine


def _best_line(positions: Array) -> tuple[Array, Array]:
    """(step, origin) from first to last where all lie on it, else by least squares."""
    count = len(positions)
    step = (positions[-1] - positions[0]) / (count - 1)
    places = positions[0] + np.arange(count)[:, None] * step
    if np.abs(places - positions).max() <= SAME_PLACE_MM:
        return step, positions[0]
    index = np.arange(count) - (count - 1) / 2
    step = index @ positions / (index @ index)
    return step, positions.mean(axis=0) - step * (count - 1) / 2


def _tilt_deg(plane: Plane, positions: Array) -> float:
    """Angle between the way from slice to slice and the normal; supine, its sign is that of Gantry/Detector Tilt."""
    way = positions[-1] - positions[0]
    along, down, across = float(way @ plane.normal), float(way @ plane.column), float(way @ plane.row)
    lean = down if abs(down) >= abs(across) else across
    tilt = math.degrees(math.atan2(lean, along))
    return tilt if abs(tilt) > TILT_TOLERANCE_DEG else 0.0


def _uneven(places: Array) -> list[str]:
    """What is known of uneven steps: slices missing from an even grid, or steps of all sizes."""
    steps = np.diff(places)
    usual = float(np.median(steps))
    ratios = steps / usual
    whole = np.round(ratios)
    missing = int((whole - 1).sum())
    if np.abs(ratios - whole).max() <= 2 * STEP_TOLERANCE and missing > 0:
        gaps = int((whole > 1).sum())
        return [f"Slices missing: {missing}, in gaps: {gaps} (usual step {usual:.2f} mm); no slice was made up."]
    return [f"Slices are unevenly spaced, {steps.min():.2f} to {steps.max():.2f} mm apart; no slice was resampled."]
