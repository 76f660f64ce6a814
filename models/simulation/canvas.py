"""A volume being painted: voxels in HU, a label for every voxel, and coordinates that a smooth warp has bent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from models.contract import BoolArray, FloatArray
from models.simulation.shapes import Grid, Point, Tube, edge, paint_tube

Distance = Callable[[FloatArray, FloatArray, FloatArray], NDArray[np.floating[Any]]]
"""(z, y, x) in mm, broadcastable → signed distance to a surface, mm, negative inside."""

FINEST_STEP_MM = 1.5
"""Thin tubes are painted on sub-slices not thicker than this, then averaged over the slice."""


class Tissue(IntEnum):
    """What a voxel mostly is."""

    AIR = 0
    SUBCUTANEOUS = 1
    MUSCLE = 2
    FAT = 3
    LIVER = 4
    SPLEEN = 5
    KIDNEY = 6
    BOWEL = 7
    VESSEL = 8
    BONE = 9
    OTHER = 10
    LUNG = 11


@dataclass(eq=False)
class Canvas:
    """What has been painted.

    voxels, labels, texture     (Z, Y, X); the texture has standard deviation 1
    y, x                        warped coordinates (Z, Y, X), mm
    offset_mm                   level of the grid's middle in the body
    """

    grid: Grid
    voxels: FloatArray
    labels: NDArray[np.uint8]
    texture: FloatArray
    y: FloatArray
    x: FloatArray
    offset_mm: float

    @property
    def z(self) -> FloatArray:
        """Level of each slice in the body, mm."""
        return self.grid.axes()[0] + np.float32(self.offset_mm)

    def cover(self, distance: Distance, low: Sequence[float], high: Sequence[float]) -> tuple[Box, FloatArray] | None:
        """Filled part of the voxels in a box of the body's coordinates (z, y, x)."""
        shift = np.array([self.offset_mm, 0, 0])
        box = self.grid.box(
            np.array(low, float) - shift - WARP_MARGIN_MM, np.array(high, float) - shift + WARP_MARGIN_MM
        )
        if box is None:
            return None
        z = self.z[box[0]][:, None, None]
        signed = distance(z, self.y[box], self.x[box])
        return box, np.broadcast_to(edge(signed, self.grid.spacing_zyx_mm[2]), self.y[box].shape)

    def paint(
        self,
        distance: Distance,
        span: tuple[Sequence[float], Sequence[float]],
        hu: float,
        label: Tissue,
        *,
        texture_hu: float = 0.0,
    ) -> None:
        """Fill a shape with a tissue; span: its (low, high) corners in the body's coordinates."""
        found = self.cover(distance, *span)
        if found is not None:
            box, cover = found
            self.fill(box, cover, hu + texture_hu * self.texture[box], label)

    def fill(self, box: Box, cover: FloatArray, hu: float | FloatArray, label: Tissue) -> None:
        """Replace the covered part of the box's voxels."""
        region = self.voxels[box]
        region += cover * (hu - region)
        self.labels[box][cover > 0.5] = label

    def tubes(self, tubes: Sequence[Tube], only: Tissue | None = None) -> tuple[Box, FloatArray] | None:
        """Filled part of the voxels around some tubes (body's coordinates); `only`: within that tissue."""
        if not tubes:
            return None
        step, row, column = self.grid.spacing_zyx_mm
        pieces = max(1, int(np.ceil(step / FINEST_STEP_MM)))
        depth, height, width = self.grid.shape_zyx
        fine = Grid((depth * pieces, height, width), (step / pieces, row, column))
        shift = np.array([self.offset_mm, 0, 0])
        ends = np.array([point for tube in tubes for point in (tube.start, tube.end)]) - shift
        margin = max(tube.radius_mm for tube in tubes) + step
        box = self.grid.box(ends.min(0) - margin, ends.max(0) + margin)
        if box is None:
            return None
        cover = np.zeros(fine.shape_zyx, np.float32)
        for tube in tubes:
            paint_tube(cover, fine, Tube(tube.start - shift, tube.end - shift, tube.radius_mm))
        cover = cover[box[0].start * pieces : box[0].stop * pieces, box[1], box[2]]
        cover = cover.reshape(-1, pieces, *cover.shape[1:]).mean(1)
        if only is not None:
            cover = cover * (self.labels[box] == only)
        return box, cover

    def paint_tubes(self, tubes: Sequence[Tube], hu: float, label: Tissue, only: Tissue | None = None) -> None:
        """Fill tubes."""
        found = self.tubes(tubes, only)
        if found is not None:
            self.fill(*found, hu, label)

    def label_at(self, point: Point) -> int:
        """Label of the voxel at a point of the body, AIR outside the volume."""
        step = np.array(self.grid.spacing_zyx_mm)
        index = np.rint((point - [self.offset_mm, 0, 0]) / step + (np.array(self.grid.shape_zyx) - 1) / 2).astype(int)
        if np.any(index < 0) or np.any(index >= self.grid.shape_zyx):
            return int(Tissue.AIR)
        return int(self.labels[tuple(index)])

    def where(self, *tissues: Tissue) -> BoolArray:
        """Voxels of these tissues."""
        return np.isin(self.labels, tissues)


Box = tuple[slice, slice, slice]
WARP_MARGIN_MM = 12.0


def blank(grid: Grid, rng: np.random.Generator, *, offset_mm: float, warp_mm: float) -> Canvas:
    """Air, with a texture and a warp drawn."""
    z, y, x = grid.axes()
    level = z + np.float32(offset_mm)
    return Canvas(
        grid,
        np.full(grid.shape_zyx, -1000, np.float32),
        np.zeros(grid.shape_zyx, np.uint8),
        texture(grid, rng),
        y[None, :, None] + _waves(level, y, x, warp_mm, rng),
        x[None, None, :] + _waves(level, y, x, warp_mm, rng),
        offset_mm,
    )


def texture(grid: Grid, rng: np.random.Generator) -> FloatArray:
    """Random field with a power spectrum like 1/f³, standard deviation 1, float32 (Z, Y, X)."""
    depth, height, width = grid.shape_zyx
    coarse = (depth, -(-height // 2), -(-width // 2))
    spectrum = np.fft.rfftn(rng.standard_normal(coarse, dtype=np.float32))
    steps = (grid.spacing_zyx_mm[0], 2 * grid.spacing_zyx_mm[1], 2 * grid.spacing_zyx_mm[2])
    fz, fy = (np.fft.fftfreq(n, d) for n, d in zip(coarse[:2], steps[:2], strict=True))
    fx = np.fft.rfftfreq(coarse[2], steps[2])
    f = np.sqrt(fz[:, None, None] ** 2 + fy[:, None] ** 2 + fx**2)
    field = np.fft.irfftn(spectrum / np.maximum(f, 0.02) ** 1.5, s=coarse, axes=(0, 1, 2))
    field = (field / field.std()).astype(np.float32)
    return np.stack([zoom(plane, 2, order=1)[:height, :width] for plane in field])


def _waves(z: FloatArray, y: FloatArray, x: FloatArray, amplitude_mm: float, rng: np.random.Generator) -> FloatArray:
    """A sum of plane waves of 70 to 200 mm, standard deviation about `amplitude_mm`, (Z, Y, X)."""
    count = 6
    total = np.zeros((z.size, y.size, x.size), np.float32)
    for _ in range(count):
        heading = rng.standard_normal(3) * (0.6, 1, 1)
        k = 2 * np.pi / rng.uniform(70, 200) * heading / np.linalg.norm(heading)
        parts = [
            np.exp(1j * np.float32(factor) * axis).astype(np.complex64)
            for factor, axis in zip(k, (z, y, x), strict=True)
        ]
        phase = np.complex64(np.exp(1j * rng.uniform(0, 2 * np.pi)))
        plane = parts[1][:, None] * parts[2]
        for level, factor in enumerate(parts[0] * phase):
            total[level] += (plane * factor).imag
    return total * np.float32(amplitude_mm * (2 / count) ** 0.5)
