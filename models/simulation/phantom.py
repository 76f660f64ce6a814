"""A chest CT phantom made by code: other seed, other patient. For demonstrations and tests; its anatomy is schematic.

source: proportions after the FORBILD thorax and the MIRD adult; vessels and nodules: simulation dossier 4.4 and 5.1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray
from models.simulation.anatomy import Anatomy, LungMap, draw_anatomy, ribs, slice_of, small_things, thoracic_tubes
from models.simulation.canvas import texture
from models.simulation.nodules import Nodule, draw_nodule, paint_nodule
from models.simulation.shapes import Grid, Point, Tube, blend, paint_tube
from models.simulation.vessels import TreeConfig, grow_tree

FINEST_STEP_MM = 1.5
"""Thin vessels are painted on sub-slices not thicker than this, then averaged over the slice."""
POINT_SPREAD_MM = 0.45
SURROUNDINGS_MM = 45.0
"""Vessels further above or below the volume do not come back into it."""


@dataclass(frozen=True, eq=False)
class ChestPhantom:
    """A volume without noise, and what is in it.

    voxels          float32 (Z, Y, X), HU, feet to head, anterior first, the patient's right first
    """

    voxels: FloatArray
    spacing_zyx_mm: tuple[float, float, float]
    nodules: tuple[Nodule, ...]


def chest_phantom(
    *,
    seed: int,
    shape_zyx: tuple[int, int, int] = (40, 512, 512),
    spacing_zyx_mm: tuple[float, float, float] = (3.0, 0.75, 0.75),
    nodules: int | None = None,
) -> ChestPhantom:
    """The chest around the hilum. `nodules`: how many inside the volume (None: as many as a scan has on average)."""
    rng = np.random.default_rng(seed)
    grid = Grid(shape_zyx, spacing_zyx_mm)
    chest = draw_chest(grid, rng)
    placed = _place_nodules(grid, chest.anatomy, rng.poisson(1.37) if nodules is None else nodules, rng)
    for nodule in placed:
        paint_nodule(chest.voxels, grid, nodule, rng)
    blur(chest.voxels, spacing_zyx_mm)
    return ChestPhantom(chest.voxels, spacing_zyx_mm, placed)


@dataclass(frozen=True, eq=False)
class Chest:
    """A painted chest, not yet blurred; texture float32 (Z, Y, X) of standard deviation 1."""

    anatomy: Anatomy
    voxels: FloatArray
    texture: FloatArray


def draw_chest(grid: Grid, rng: np.random.Generator) -> Chest:
    """A random chest without nodules."""
    anatomy = draw_anatomy(rng)
    grain = texture(grid, rng)
    z, y, x = grid.axes()
    voxels = np.stack([slice_of(anatomy, float(level), y[:, None], x[None, :], grain[k]) for k, level in enumerate(z)])
    _paint_tubes(voxels, grid, anatomy, rng)
    return Chest(anatomy, voxels, grain)


def blur(voxels: FloatArray, spacing_zyx_mm: tuple[float, float, float]) -> None:
    """The scanner's in-plane point spread, in place."""
    sigma = POINT_SPREAD_MM / spacing_zyx_mm[2]
    for plane in voxels:
        gaussian_filter(plane, sigma, output=plane, mode="nearest")


def _paint_tubes(voxels: FloatArray, grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Vessels, airways and ribs, on sub-slices."""
    pieces = max(1, int(np.ceil(grid.spacing_zyx_mm[0] / FINEST_STEP_MM)))
    step, row, column = grid.spacing_zyx_mm
    fine = Grid((grid.shape_zyx[0] * pieces, *grid.shape_zyx[1:]), (step / pieces, row, column))
    trees: list[Tube] = []
    half = float(grid.half_extent_mm[0])
    in_lung = LungMap(anatomy, (-half - SURROUNDINGS_MM, half + SURROUNDINGS_MM))
    for side in (-1, 1):
        for upward in (0.9, 0.1, -0.9, 0.6, -0.2, -1.2):  # lobar arteries, then veins
            root = anatomy.hilum(side) + rng.normal(0, 4, 3)
            heading = np.array([upward, rng.normal(0, 0.6), float(side)])
            trees += grow_tree(root, heading, partial(in_lung, side=side), TreeConfig(), rng)
    layers: list[tuple[list[Tube], float]] = [(trees, anatomy.blood_hu), *thoracic_tubes(anatomy), *ribs(anatomy)]
    layers += small_things(anatomy, rng)
    for tubes, hu in layers:
        cover = np.zeros(fine.shape_zyx, np.float32)
        for tube in tubes:
            paint_tube(cover, fine, tube)
        blend(voxels, cover.reshape(grid.shape_zyx[0], pieces, *grid.shape_zyx[1:]).mean(1), hu)


def _place_nodules(grid: Grid, anatomy: Anatomy, count: int, rng: np.random.Generator) -> tuple[Nodule, ...]:
    half = grid.half_extent_mm
    placed: list[Nodule] = []
    for _ in range(200 * count):
        if len(placed) == count:
            break
        side = int(rng.choice((-1, 1)))
        centre: Point = rng.uniform(-half, half)
        if abs(centre[0]) < half[0] - grid.spacing_zyx_mm[0] and anatomy.in_lung(centre, side):
            placed.append(draw_nodule(centre, rng))
    return tuple(placed)
