"""The two axes of a region (RECIST 1.1): its longest diameter, and the longest chord at a right angle that meets it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from models.contract import BoolArray
from node.dicom.marks.mark import Axis

Array = NDArray[np.float64]

_STEP_PX = 0.25


def axes_of_polygon(points: Sequence[Sequence[float]], spacing_yx_mm: tuple[float, float]) -> tuple[Axis, Axis] | None:
    """Long and short axis of a closed polygon, px; None where it has no area.

    The short axis runs from edge to edge of the polygon. Its length is piecewise linear along the long axis, so the
    longest one passes through a corner.
    """
    scale = np.array([spacing_yx_mm[1], spacing_yx_mm[0]])
    corners = np.unique(np.asarray(points, np.float64), axis=0) * scale
    ring = np.asarray(points, np.float64) * scale
    ends = _farthest(corners)
    if ends is None:
        return None
    start, end = ends
    along = (end - start) / np.linalg.norm(end - start)
    across = np.array([-along[1], along[0]])
    turned = np.stack([(ring - start) @ along, (ring - start) @ across], axis=1)  # (points, 2): long axis is y = 0
    length = float(np.linalg.norm(end - start))
    best: tuple[float, float, float, float] | None = None
    for x in np.unique(turned[:, 0]):
        for beside in (x - 1e-9 * length, x + 1e-9 * length):
            if 0 < beside < length and (chord := _chord(turned, beside)) is not None:
                low, high = chord
                if best is None or high - low > best[0]:
                    best = (high - low, float(beside), low, high)
    if best is None or best[0] <= 0:
        return None
    _, x, low, high = best
    one, other = ((start + x * along + y * across) / scale for y in (low, high))
    return (_point(start / scale), _point(end / scale)), (_point(one), _point(other))


def axes_of_mask(mask: BoolArray, spacing_yx_mm: tuple[float, float]) -> tuple[Axis, Axis] | None:
    """Long and short axis of a mask (Y, X), px, between pixel centres; None where it is no wider than a line."""
    scale = np.array([spacing_yx_mm[1], spacing_yx_mm[0]])
    inside = np.argwhere(mask)[:, ::-1].astype(np.float64)  # (pixels, 2): x, y
    ends = _farthest(inside * scale)
    if ends is None:
        return None
    start, end = ends
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length
    across = np.array([-along[1], along[0]])
    step = _STEP_PX * min(spacing_yx_mm)
    best: tuple[float, Array, Array] | None = None
    for x in np.arange(0, length + step / 2, step):
        foot = start + x * along
        back, forth = (_reach(mask, foot, sign * step * across, scale) for sign in (-1, 1))
        if best is None or back + forth > best[0] + 1e-9:
            best = (back + forth, foot - back * across, foot + forth * across)
    if best is None or best[0] <= 0:
        return None
    return (_point(start / scale), _point(end / scale)), (_point(best[1] / scale), _point(best[2] / scale))


def longest_mm(mask: BoolArray, spacing_yx_mm: tuple[float, float]) -> float:
    """Length of the long axis alone of a mask (Y, X); 0 where it is no wider than a line."""
    inside = np.argwhere(mask)[:, ::-1] * np.array([spacing_yx_mm[1], spacing_yx_mm[0]])
    ends = _farthest(inside)
    return 0.0 if ends is None else float(np.linalg.norm(ends[1] - ends[0]))


def span_mm(points: Sequence[Sequence[float]], spacing_yx_mm: tuple[float, float]) -> float:
    """Length of the long axis alone of a polygon, px; 0 where it has no area."""
    ends = _farthest(np.asarray(points, np.float64) * np.array([spacing_yx_mm[1], spacing_yx_mm[0]]))
    return 0.0 if ends is None else float(np.linalg.norm(ends[1] - ends[0]))


def _farthest(points: Array) -> tuple[Array, Array] | None:
    """The two points (N, 2) farthest apart; the first such pair in the order of x, then y."""
    if len(points) < 3:
        return None
    try:
        hull = points[ConvexHull(points).vertices]
    except QhullError:
        return None  # all on one line
    hull = hull[np.lexsort((hull[:, 1], hull[:, 0]))]
    apart = np.linalg.norm(hull[:, None] - hull[None], axis=-1)
    i, j = np.unravel_index(int(np.argmax(apart)), apart.shape)
    return hull[min(i, j)], hull[max(i, j)]


def _chord(ring: Array, x: float) -> tuple[float, float] | None:
    """The part of the line at x that is inside the ring and meets y = 0; None where the ring is not met there."""
    here, following = ring, np.roll(ring, -1, axis=0)
    crosses = (here[:, 0] < x) != (following[:, 0] < x)
    (x0, y0), (x1, y1) = here[crosses].T, following[crosses].T
    heights = np.sort(y0 + (x - x0) / (x1 - x0) * (y1 - y0))
    slack = 1e-9 * float(np.ptp(ring))
    for low, high in zip(heights[::2], heights[1::2], strict=True):
        if low <= slack and high >= -slack:
            return float(low), float(high)
    return None


def _reach(mask: BoolArray, foot: Array, step: Array, scale: Array) -> float:
    """How far the mask goes on from `foot` in the direction of `step`: to the centre of the last pixel met, mm."""
    last, count = foot, 0
    while True:
        x, y = np.rint((foot + count * step) / scale).astype(int)
        if not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]):
            return max(0.0, float((last - foot) @ step / np.linalg.norm(step)))
        last = np.array([x, y]) * scale
        count += 1


def _point(values: Array) -> tuple[float, float]:
    return float(values[0]), float(values[1])
