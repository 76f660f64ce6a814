"""Patients of simple solids: ellipsoids, elliptic cylinders, boxes and half-spaces, voxelised by supersampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import BoolArray, FloatArray
from models.simulation.shapes import Grid

Axis = NDArray[np.float32]
Inside = Callable[[Axis, Axis, Axis], BoolArray]
"""(z, y, x) in mm, broadcastable → whether a point is inside."""

SAMPLES = (2, 3, 3)
"""Points per voxel along z, y, x."""
Z, Y, X = 0, 1, 2


@dataclass(frozen=True)
class Solid:
    """A part of a patient; later solids replace earlier ones.

    low, high   corners (z, y, x) of a box around it, mm
    name        what it is, for the places of lesions
    """

    inside: Inside
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    hu: float
    name: str = ""

    def within(self, other: Inside) -> Solid:
        """The part of it that lies in another solid as well."""
        mine = self.inside
        return replace(self, inside=lambda z, y, x: mine(z, y, x) & other(z, y, x))


def ellipsoid(
    centre: Sequence[float], half_axes: Sequence[float], hu: float, name: str = "", *, turn_deg: float = 0.0
) -> Solid:
    """Centre and half axes (z, y, x), turned in the transverse plane."""
    (cz, cy, cx), (az, ay, ax) = centre, half_axes
    cos, sin = float(np.cos(np.radians(turn_deg))), float(np.sin(np.radians(turn_deg)))
    reach = max(ay, ax)

    def inside(z: Axis, y: Axis, x: Axis) -> BoolArray:
        u, v = cos * (x - cx) + sin * (y - cy), cos * (y - cy) - sin * (x - cx)
        return np.asarray(((z - cz) / az) ** 2 + (v / ay) ** 2 + (u / ax) ** 2 < 1)

    return Solid(inside, (cz - az, cy - reach, cx - reach), (cz + az, cy + reach, cx + reach), hu, name)


def upright(
    centre: Sequence[float], half_axes: Sequence[float], hu: float, name: str = "", *, half_height: float
) -> Solid:
    """An elliptic cylinder along z: centre (z, y, x), half axes (y, x)."""
    (cz, cy, cx), (ay, ax) = centre, half_axes

    def inside(z: Axis, y: Axis, x: Axis) -> BoolArray:
        return np.asarray((np.abs(z - cz) < half_height) & (((y - cy) / ay) ** 2 + ((x - cx) / ax) ** 2 < 1))

    return Solid(inside, (cz - half_height, cy - ay, cx - ax), (cz + half_height, cy + ay, cx + ax), hu, name)


def rod(start: Sequence[float], end: Sequence[float], radius: float, hu: float, name: str = "") -> Solid:
    """A round cylinder with flat ends between two points (z, y, x)."""
    a, b = np.array(start, np.float32), np.array(end, np.float32)
    along = b - a
    length2 = float(along @ along)

    def inside(z: Axis, y: Axis, x: Axis) -> BoolArray:
        dz, dy, dx = z - a[Z], y - a[Y], x - a[X]
        t = (dz * along[Z] + dy * along[Y] + dx * along[X]) / length2
        off = (dz - t * along[Z]) ** 2 + (dy - t * along[Y]) ** 2 + (dx - t * along[X]) ** 2
        return np.asarray((t >= 0) & (t <= 1) & (off < radius**2))

    return Solid(inside, _corner(np.minimum(a, b) - radius), _corner(np.maximum(a, b) + radius), hu, name)


def brick(centre: Sequence[float], half_edges: Sequence[float], hu: float, name: str = "") -> Solid:
    """A box with edges along the axes."""
    c, h = np.array(centre, np.float32), np.array(half_edges, np.float32)

    def inside(z: Axis, y: Axis, x: Axis) -> BoolArray:
        return np.asarray((np.abs(z - c[Z]) < h[Z]) & (np.abs(y - c[Y]) < h[Y]) & (np.abs(x - c[X]) < h[X]))

    return Solid(inside, _corner(c - h), _corner(c + h), hu, name)


@dataclass(frozen=True)
class Pose:
    """Where a patient lies in the volume.

    scale       size of the patient over that of the description
    level_mm    level of the description that lies in the middle of the volume
    turn_deg    in the transverse plane
    """

    scale: float = 1.0
    level_mm: float = 0.0
    turn_deg: float = 0.0


def voxelise(grid: Grid, solids: Sequence[Solid], pose: Pose) -> tuple[FloatArray, NDArray[np.uint16]]:
    """Voxels in HU, and for each voxel the number of the solid that fills most of it (1 is the first), 0 for air."""
    voxels = np.full(grid.shape_zyx, -1000, np.float32)
    labels = np.zeros(grid.shape_zyx, np.uint16)
    for number, solid in enumerate(solids, start=1):
        box = _box(grid, solid, pose)
        if box is None:
            continue
        cover = _cover(grid, box, solid, pose)
        region = voxels[box]
        region += cover * (solid.hu - region)
        labels[box][cover > 0.5] = number
    return voxels, labels


def _box(grid: Grid, solid: Solid, pose: Pose) -> tuple[slice, slice, slice] | None:
    cos, sin = np.cos(np.radians(pose.turn_deg)), np.sin(np.radians(pose.turn_deg))
    corners = np.array([(y, x) for y in (solid.low[Y], solid.high[Y]) for x in (solid.low[X], solid.high[X])])
    turned = corners @ np.array([[cos, -sin], [sin, cos]])
    low, high = (np.array([z - pose.level_mm, *ends]) for z, ends in (
        (solid.low[Z], turned.min(0)), (solid.high[Z], turned.max(0))
    ))  # fmt: skip
    margin = max(grid.spacing_zyx_mm)
    return grid.box(low * pose.scale - margin, high * pose.scale + margin)


def _cover(grid: Grid, box: tuple[slice, slice, slice], solid: Solid, pose: Pose) -> FloatArray:
    z, y, x = (axis[part] for axis, part in zip(grid.axes(), box, strict=True))
    cos, sin = (np.float32(f(np.radians(pose.turn_deg))) for f in (np.cos, np.sin))
    inner = [((np.arange(n) + 0.5) / n - 0.5) * step for n, step in zip(SAMPLES, grid.spacing_zyx_mm, strict=True)]
    total = np.zeros((z.size, y.size, x.size), np.float32)
    for dz in inner[Z]:
        level = ((z + np.float32(dz)) / np.float32(pose.scale) + np.float32(pose.level_mm))[:, None, None]
        for dy in inner[Y]:
            for dx in inner[X]:
                row, column = (y + np.float32(dy))[None, :, None], x + np.float32(dx)
                turned_y = (cos * row - sin * column) / np.float32(pose.scale)
                turned_x = (sin * row + cos * column) / np.float32(pose.scale)
                total += solid.inside(level, turned_y.astype(np.float32), turned_x.astype(np.float32))
    return total / np.float32(np.prod(SAMPLES))


def _corner(point: NDArray[np.floating[Any]]) -> tuple[float, float, float]:
    z, y, x = (float(value) for value in point)
    return z, y, x
