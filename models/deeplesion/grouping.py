"""Detections on slices to lesions in the volume: what belongs together, its mask, its axes after RECIST, its volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, map_coordinates
from scipy.spatial import ConvexHull

from models.contract import BoolArray, FloatArray

Box3 = tuple[slice, slice, slice]
Segment = tuple[tuple[float, float], tuple[float, float]]
"""End points (x, y) in pixels, pixel centres at whole numbers."""

FLAT = 1e-3
"""Pixels by which an outline must leave a line to have two axes."""

INSIDE = 0.5
"""Probability from which on a voxel is lesion."""


@dataclass(frozen=True, eq=False)
class SliceFinding:
    """One detection on one key slice.

    index       of the slice        box     (x1, y1, x2, y2), pixels of the slice, pixel i covering i to i + 1
    categories  (K,), probabilities     mask    (S, S), probability of being lesion in the cells of the box
    """

    index: int
    box: tuple[float, float, float, float]
    score: float
    categories: FloatArray
    mask: FloatArray


@dataclass(frozen=True, eq=False)
class Track:
    """Detections on neighbouring key slices that are one lesion, in the order of slices."""

    findings: list[SliceFinding] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Of the surest slice."""
        return max(finding.score for finding in self.findings)

    @property
    def category(self) -> int:
        """Index of the category with most of the probability over all slices."""
        return int(np.sum([finding.categories for finding in self.findings], axis=0).argmax())


@dataclass(frozen=True, eq=False)
class Region:
    """A lesion's voxels: mask bool of the box's shape, soft the probability behind it (above `level` inside)."""

    box: Box3
    mask: BoolArray
    soft: FloatArray
    level: float

    def volume_mm3(self, positions_mm: NDArray[np.float64], spacing_yx_mm: tuple[float, float]) -> float:
        """Of the mask's voxels, each as thick as half the way to both neighbouring slices.

        positions_mm    of all slices of the volume along the normal
        """
        thickness = thickness_of(positions_mm)[self.box[0]]
        return float(self.mask.sum((1, 2)) @ thickness * np.prod(spacing_yx_mm))


@dataclass(frozen=True)
class Axes:
    """RECIST: longest diameter in a slice, and the longest across it at a right angle in the same slice."""

    index: int
    long_px: Segment
    short_px: Segment
    long_mm: float
    short_mm: float


def thickness_of(positions_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Millimetres that each slice stands for: half the way to both neighbours, the whole way at the ends; 1 alone."""
    if len(positions_mm) < 2:
        return np.ones(len(positions_mm))
    steps = np.diff(positions_mm)
    thickness: NDArray[np.float64] = (np.append(steps[0], steps) + np.append(steps, steps[-1])) / 2
    return thickness


def group(
    findings: Sequence[SliceFinding], positions_mm: NDArray[np.float64], *, link_iou: float, gap_mm: float
) -> list[Track]:
    """Detections to lesions: linked where boxes overlap on key slices at most `gap_mm` apart, closest overlap first.

    positions_mm    of all slices along the normal. Neighbouring key slices are linked however far apart they are.
    """
    slices = sorted({finding.index for finding in findings})
    tracks: list[Track] = []
    before: dict[int, int] = {after: first for first, after in pairwise(slices)}
    for index in slices:
        here = [finding for finding in findings if finding.index == index]
        reach = [
            track
            for track in tracks
            if positions_mm[index] - positions_mm[track.findings[-1].index] <= gap_mm
            or (track.findings[-1].index == before.get(index) and index - before[index] == 1)
        ]
        overlaps = np.array([[_iou(track.findings[-1].box, finding.box) for finding in here] for track in reach])
        taken: set[int] = set()
        while overlaps.size and overlaps.max() >= link_iou:
            row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            reach[row].findings.append(here[column])
            taken.add(int(column))
            overlaps[row], overlaps[:, column] = -1, -1
        tracks += [Track([finding]) for number, finding in enumerate(here) if number not in taken]
    return tracks


def region_of(track: Track, shape_zyx: tuple[int, int, int], keys: Sequence[int]) -> Region:
    """The voxels of a lesion: masks of its slices, interpolated over slices between, the largest connected piece.

    keys    slices that were looked at, in order: the lesion goes on for half the way to the next one on both sides
    Where no cell reaches one half, half of the highest probability is the limit: a lesion is never without a voxel.
    """
    boxes = np.array([finding.box for finding in track.findings])
    corner = np.maximum(np.floor(boxes[:, :2].min(0)), 0).astype(int)
    end = np.minimum(np.ceil(boxes[:, 2:].max(0)), shape_zyx[:0:-1]).astype(int)
    rows, columns = slice(int(corner[1]), int(end[1])), slice(int(corner[0]), int(end[0]))
    seen_first, seen_last = track.findings[0].index, track.findings[-1].index
    first, last = _reach(seen_first, seen_last, keys)
    soft = np.zeros((last - first + 1, end[1] - corner[1], end[0] - corner[0]), np.float32)
    for finding in track.findings:
        soft[finding.index - first] = paste(finding, rows, columns)
    for lower, upper in pairwise(finding.index - first for finding in track.findings):
        for between in range(lower + 1, upper):
            weight = (between - lower) / (upper - lower)
            soft[between] = (1 - weight) * soft[lower] + weight * soft[upper]
    soft[: seen_first - first] = soft[seen_first - first]
    soft[seen_last - first + 1 :] = soft[seen_last - first]
    if not soft.any():  # a box thinner than a pixel may hold no pixel's centre
        soft[0, soft.shape[1] // 2, soft.shape[2] // 2] = 1
    level = min(INSIDE, float(soft.max()) / 2)
    pieces, count = label(soft >= level, np.ones((3, 3, 3)))
    largest = 1 + int(np.bincount(pieces.ravel(), minlength=count + 1)[1:].argmax())
    return Region((slice(first, last + 1), rows, columns), pieces == largest, soft, level)


def _reach(first: int, last: int, keys: Sequence[int]) -> tuple[int, int]:
    """Half the slices between a lesion's end and the next key slice are its own; of an odd number, one less below."""
    before = max((key for key in keys if key < first), default=first - 1)
    after = min((key for key in keys if key > last), default=last + 1)
    return first - (first - before - 1) // 2, last + (after - last) // 2


def paste(finding: SliceFinding, rows: slice, columns: slice) -> FloatArray:
    """The mask's probabilities at the centres of these pixels, 0 outside its box, float32 (rows, columns)."""
    x1, y1, x2, y2 = finding.box
    cells = len(finding.mask)
    y = (np.arange(rows.start, rows.stop) + 0.5 - y1) / (y2 - y1)
    x = (np.arange(columns.start, columns.stop) + 0.5 - x1) / (x2 - x1)
    grid = np.meshgrid(y * cells - 0.5, x * cells - 0.5, indexing="ij")
    pasted: FloatArray = map_coordinates(finding.mask.astype(np.float32), grid, order=1, mode="nearest")
    within = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))
    return np.where(within, pasted, np.float32(0))


def axes_of(region: Region, spacing_zyx_mm: tuple[float, float, float]) -> Axes:
    """The axes on the slice where the lesion is longest (the first of equal ones)."""
    best: Axes | None = None
    for number in range(len(region.mask)):
        if region.mask[number].any():
            found = _axes_in(region, number, spacing_zyx_mm[1:])
            if best is None or found.long_mm > best.long_mm:
                best = found
    if best is None:
        raise ValueError("a lesion without a voxel")
    return best


def _axes_in(region: Region, number: int, spacing_yx_mm: tuple[float, float]) -> Axes:
    down, across = spacing_yx_mm
    points = outline(region.mask[number], region.soft[number], region.level) * (across, down)  # (P, 2), x and y in mm
    if np.linalg.matrix_rank(points - points.mean(0), tol=FLAT * min(down, across)) < 2:
        # Voxels exactly at the level have their outline through their centres: theirs is the pixels' own.
        points = outline(region.mask[number], region.mask[number].astype(np.float32), INSIDE) * (across, down)
    corners = points[ConvexHull(points).vertices]
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    first, second = np.unravel_index(int(apart.argmax()), apart.shape)
    start, finish = corners[first], corners[second]
    along = (finish - start) / apart.max()
    normal = np.array([-along[1], along[0]])
    place, height = (corners - start) @ along, (corners - start) @ normal
    above, below = (_side(place, height * sign) for sign in (1, -1))
    widths = np.interp(place, *above) + np.interp(place, *below)
    widest = int(widths.argmax())
    ends = [
        start + place[widest] * along + sign * float(np.interp(place[widest], *side)) * normal
        for sign, side in ((1, above), (-1, below))
    ]
    origin = np.array([region.box[2].start, region.box[1].start])
    scale = np.array([across, down])
    return Axes(
        index=region.box[0].start + number,
        long_px=_segment(start / scale + origin, finish / scale + origin),
        short_px=_segment(ends[0] / scale + origin, ends[1] / scale + origin),
        long_mm=float(apart.max()),
        short_mm=float(widths[widest]),
    )


def outline(mask: BoolArray, soft: FloatArray, level: float) -> NDArray[np.float64]:
    """Where the probability falls through `level` between a pixel inside and its neighbour, (P, 2) as (x, y)."""
    inside = np.pad(mask, 1)
    value = np.pad(soft, 1)
    found = []
    for axis in (0, 1):
        for step in (1, -1):
            beyond = np.roll(value, -step, axis)
            y, x = np.nonzero(inside & (beyond < level))
            part = (value[y, x] - level) / np.maximum(value[y, x] - beyond[y, x], 1e-6)
            places = np.stack([x, y], 1).astype(np.float64) - 1
            places[:, 1 - axis] += step * np.clip(part, 0, 1)
            found.append(places)
    return np.concatenate(found)


def _side(place: NDArray[np.float64], height: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The hull's corners on one side of its longest diameter, ordered along it."""
    chosen = height >= -1e-9
    order = np.argsort(place[chosen], kind="stable")
    return place[chosen][order], np.maximum(height[chosen][order], 0)


def _segment(first: NDArray[np.float64], second: NDArray[np.float64]) -> Segment:
    return (float(first[0]), float(first[1])), (float(second[0]), float(second[1]))


def _iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return shared / union if union > 0 else 0.0
