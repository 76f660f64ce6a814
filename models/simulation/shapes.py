"""Painting of soft-edged shapes into a CT volume: only the box around each shape is touched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import FloatArray

Point = NDArray[np.float64]
"""(z, y, x), mm."""


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm: origin in the middle of the volume, z up, y backwards, x to the patient's left.

    shape_zyx, spacing_zyx_mm     of the volume
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]

    def axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """z, y, x of the voxel centres, mm."""
        z, y, x = (
            ((np.arange(count) - (count - 1) / 2) * step).astype(np.float32)
            for count, step in zip(self.shape_zyx, self.spacing_zyx_mm, strict=True)
        )
        return z, y, x

    @property
    def half_extent_mm(self) -> Point:
        """From the middle to the outermost voxel's far face."""
        extent: Point = np.array(self.shape_zyx) * np.array(self.spacing_zyx_mm)
        return extent / 2

    def box(self, low: Point, high: Point) -> tuple[slice, slice, slice] | None:
        """Voxels between two corners, None where there are none."""
        step = np.array(self.spacing_zyx_mm)
        middle = (np.array(self.shape_zyx) - 1) / 2
        first = np.maximum(np.floor(low / step + middle), 0).astype(int)
        last = np.minimum(np.ceil(high / step + middle) + 1, self.shape_zyx).astype(int)
        if np.any(first >= last):
            return None
        z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return z, y, x


@dataclass(frozen=True)
class Tube:
    """A straight piece of vessel, airway or bone: a capsule."""

    start: Point
    end: Point
    radius_mm: float


def paint_tube(cover: FloatArray, grid: Grid, tube: Tube) -> None:
    """Raise `cover` (Z, Y, X) to the part of each voxel that the tube fills."""
    margin = tube.radius_mm + max(grid.spacing_zyx_mm)
    low, high = np.minimum(tube.start, tube.end) - margin, np.maximum(tube.start, tube.end) + margin
    box = grid.box(low, high)
    if box is None:
        return
    z, y, x = (axis[part] for axis, part in zip(grid.axes(), box, strict=True))
    along = (tube.end - tube.start).astype(np.float32)
    dz, dy, dx = z[:, None, None] - tube.start[0], y[None, :, None] - tube.start[1], x[None, None, :] - tube.start[2]
    length = float(along @ along)
    position = np.clip((dz * along[0] + dy * along[1] + dx * along[2]) / max(length, 1e-6), 0, 1)
    distance = np.sqrt(
        (dz - position * along[0]) ** 2 + (dy - position * along[1]) ** 2 + (dx - position * along[2]) ** 2
    )
    np.maximum(cover[box], edge(distance - tube.radius_mm, grid.spacing_zyx_mm[2], tube.radius_mm), out=cover[box])


def edge(signed_distance_mm: FloatArray, voxel_mm: float, radius_mm: float = np.inf) -> FloatArray:
    """Filled part of a voxel at this distance from a surface (negative inside); thin things never fill one."""
    filled = np.clip(0.5 - signed_distance_mm / voxel_mm, 0.0, 1.0)
    most = min(1.0, np.pi * radius_mm**2 / voxel_mm**2)
    cover: FloatArray = np.minimum(filled, most).astype(np.float32)
    return cover


def superellipse(u: FloatArray, v: FloatArray, exponent: float) -> FloatArray:
    """(|u|ⁿ + |v|ⁿ)^(1/n): below 1 inside."""
    result: FloatArray = np.power(np.abs(u) ** exponent + np.abs(v) ** exponent, 1 / exponent).astype(np.float32)
    return result


def blend(image: FloatArray, cover: FloatArray, hu: float | FloatArray) -> None:
    """Replace the covered part of every voxel by another tissue."""
    image += cover * (hu - image)
