"""Lesions as shapes with soft edges, blended into a volume: what every family of cases plants, with the truth of each.

source: simulation dossier 5. Two generators that share nothing but the blending: `ellipsoid` for the families trained
on, `lobulated` for the families kept for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import erfc, sph_harm_y

from models.contract import BoolArray, FloatArray
from models.simulation.shapes import Grid, Point

Category = Literal["lung", "liver", "lymph node", "kidney", "soft tissue"]
Cover = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""(offsets from the centre (…, 3) in mm, diameter in mm) → filled part 0…1."""
Radius = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Unit vectors (…, 3) → radius."""
Fill = Literal["raise", "shift", "replace"]
"""raise: brighter than what was there, so vessels stay; shift: tissue at another level; replace: whatever is there."""

FINEST_STEP_MM = 0.8
"""Slices are cut into steps not thicker than this, then averaged: partial volume."""
LEAST_VOXELS = 4
MOST_NOISE_HU = 60.0
"""More than this above the smoothed volume is structure."""
LEAST_SHARE = 0.5
"""Of a lesion that must lie where it may be."""


@dataclass(frozen=True, eq=False)
class PlantedLesion:
    """The truth of one lesion.

    centre_mm       (z, y, x) from the volume's first voxel centre
    diameter_mm     of the sphere of equal volume, as planted
    contrast_hu     core minus surroundings
    box, mask       voxels of the volume that the lesion fills by more than half; mask is bool of the box's shape
    """

    category: Category
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    contrast_hu: float
    box: tuple[slice, slice, slice]
    mask: BoolArray


@dataclass(frozen=True, eq=False)
class Plan:
    """One lesion to be planted.

    centre      (z, y, x) in the grid's own millimetres
    level       HU of the core, or with fill "shift" its difference from the tissue around
    host        bool (Z, Y, X): where it may be; what sticks out is cut
    """

    category: Category
    centre: Point
    diameter_mm: float
    level: float
    fill: Fill
    cover: Cover
    host: BoolArray


def ellipsoid(rng: np.random.Generator, *, edge_mm: float, roughness: float = 0.08) -> Cover:
    """An ellipsoid with a few waves on it and an edge like an error function (standard deviation `edge_mm`)."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    axes = np.exp(rng.normal(0, 0.13, 3))
    axes /= np.prod(axes) ** (1 / 3)
    waves = [(rng.standard_normal(3), rng.uniform(0, 2 * np.pi), order) for order in (2, 3, 5)]

    def radius(unit: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth = 1 / np.sqrt((((unit @ turn) / axes) ** 2).sum(-1))
        ripple = sum(np.cos(order * (unit @ k) + phase) / order**0.5 for k, phase, order in waves)
        return np.asarray(smooth * (1 + roughness * ripple))

    star = _tabulated(radius)

    def cover(offset: NDArray[np.float64], diameter_mm: float) -> NDArray[np.float64]:
        distance = np.linalg.norm(offset, axis=-1)
        surface = star(offset / np.maximum(distance, 1e-6)[..., None]) * diameter_mm / 2
        return np.asarray(0.5 * erfc((distance - surface) / (2**0.5 * edge_mm)))

    return cover


def lobulated(rng: np.random.Generator, *, spread: float, spikes: int = 0, edge_mm: float = 0.4) -> Cover:
    """Spherical harmonics up to degree 6 with a radius that varies by `spread`, and thin cones; a flat-topped profile.

    spread      coefficient of variation of the radius (LIDC-IDRI: 0.13 smooth … 0.20 spiculated)
    """
    degrees = [(degree, order) for degree in range(2, 7) for order in range(degree + 1)]
    weights = rng.standard_normal(len(degrees)) / np.array([degree for degree, _ in degrees])
    phases = rng.uniform(0, 2 * np.pi, len(degrees))
    spines = rng.standard_normal((spikes, 3))
    spines /= np.linalg.norm(spines, axis=1, keepdims=True) + 1e-9
    lengths = rng.uniform(0.25, 0.7, spikes)

    def relief(unit: NDArray[np.float64]) -> NDArray[np.float64]:
        polar, azimuth = np.arccos(np.clip(unit[..., 2], -1, 1)), np.arctan2(unit[..., 1], unit[..., 0])
        return np.asarray(
            sum(
                weight * (sph_harm_y(degree, order, polar, azimuth) * np.exp(1j * phase)).real
                for (degree, order), weight, phase in zip(degrees, weights, phases, strict=True)
            )
        )

    # The harmonics are orthonormal over the sphere, so their variances add up.
    shares = np.array([0.5 if order else np.cos(phase) ** 2 for (_, order), phase in zip(degrees, phases, strict=True)])
    scale = spread / float(np.sqrt((weights**2 * shares).sum() / (4 * np.pi)))

    def radius(unit: NDArray[np.float64]) -> NDArray[np.float64]:
        cones = sum(
            length * np.exp(-((np.arccos(np.clip(unit @ spine, -1, 1)) / 0.22) ** 2))
            for spine, length in zip(spines, lengths, strict=True)
        )
        return np.asarray(np.maximum(1 + scale * relief(unit), 0.3) + cones)

    star = _tabulated(radius)

    def cover(offset: NDArray[np.float64], diameter_mm: float) -> NDArray[np.float64]:
        distance = np.linalg.norm(offset, axis=-1)
        surface = star(offset / np.maximum(distance, 1e-6)[..., None]) * diameter_mm / 2
        return np.asarray(np.clip(0.5 - (distance - surface) / (2.5 * edge_mm), 0, 1) ** 0.8)

    return cover


def plant(
    voxels: FloatArray, grid: Grid, plan: Plan, *, grain: FloatArray | None = None, smoothing_mm: float = 0.0
) -> PlantedLesion | None:
    """Blend the lesion into the volume; None, and the volume untouched, where too little of it would be seen.

    grain           texture of the lesion (Z, Y, X), HU; None where the volume's own noise stays on it
    smoothing_mm    what is taken for noise when the tissue's own level is asked; 0 for a volume without noise
    """
    reach = np.full(3, 0.95 * plan.diameter_mm + 4.0)
    box = grid.box(plan.centre - reach, plan.centre + reach)
    if box is None:
        return None
    whole = _partial_volume(grid, box, plan)
    cover = whole * plan.host[box]
    mask = cover > 0.5
    if mask.sum() < LEAST_VOXELS or cover.sum() < LEAST_SHARE * whole.sum():
        return None
    region = voxels[box]
    tissue = region
    if smoothing_mm > 0:
        tissue = gaussian_filter(region, [smoothing_mm / step for step in grid.spacing_zyx_mm])
    around = float(np.median(tissue[mask]))
    core = around + plan.level if plan.fill == "shift" else plan.level
    own = np.clip(region - tissue, -MOST_NOISE_HU, MOST_NOISE_HU) if grain is None else grain[box]
    change = core + own - region
    if plan.fill == "raise":
        change = np.maximum(change, 0)
    elif plan.fill == "shift":
        # Vessels that ran through it are pushed aside, the tissue's own texture stays.
        change = np.where(tissue > around + 12, change, plan.level)
    region += (cover * change).astype(np.float32)
    volume = float(cover.sum()) * float(np.prod(grid.spacing_zyx_mm))
    first = (np.array(grid.shape_zyx) - 1) / 2 * np.array(grid.spacing_zyx_mm)
    z, y, x = (float(value) for value in plan.centre + first)
    return PlantedLesion(plan.category, (z, y, x), (6 * volume / np.pi) ** (1 / 3), core - around, box, mask)


def overlaps(centre: Point, diameter_mm: float, others: Sequence[Plan], gap_mm: float = 3.0) -> bool:
    """Whether a sphere there comes nearer than the gap to a planned lesion."""
    return any(
        float(np.linalg.norm(centre - other.centre)) < (diameter_mm + other.diameter_mm) / 2 + gap_mm
        for other in others
    )


def apart(plan: Plan, planted: Sequence[PlantedLesion]) -> Plan:
    """The plan without the room that other lesions fill: lobes and spicules reach beyond the sphere of `overlaps`."""
    if not planted:
        return plan
    host = plan.host.copy()
    for lesion in planted:
        host[lesion.box] &= ~lesion.mask
    return replace(plan, host=host)


def drawn(quantiles: Sequence[tuple[float, float]], rng: np.random.Generator) -> float:
    """A positive number by its published quantiles (share, value), log-linear between them."""
    shares, values = zip(*quantiles, strict=True)
    return float(np.exp(np.interp(rng.uniform(), shares, np.log(values))))


def _partial_volume(grid: Grid, box: tuple[slice, slice, slice], plan: Plan) -> FloatArray:
    step = grid.spacing_zyx_mm[0]
    pieces = max(1, int(np.ceil(step / FINEST_STEP_MM)))
    inner = ((np.arange(pieces) + 0.5) / pieces - 0.5) * step
    z, y, x = (axis[part].astype(np.float64) for axis, part in zip(grid.axes(), box, strict=True))
    fine = (z[:, None] + inner).ravel()
    mesh = np.stack(np.meshgrid(fine, y, x, indexing="ij"), -1) - plan.centre
    filled = plan.cover(mesh, plan.diameter_mm).reshape(z.size, pieces, y.size, x.size).mean(1)
    return np.asarray(filled, np.float32)


def _tabulated(radius: Radius) -> Radius:
    """The same radius by direction from a table of 2°, scaled so that the shape has the volume of the unit sphere."""
    polar, azimuth = np.radians(np.arange(0, 181, 2.0)), np.radians(np.arange(-180, 181, 2.0))
    ring = np.sin(polar)[:, None]
    table = radius(
        np.stack(
            [ring * np.cos(azimuth), ring * np.sin(azimuth), np.broadcast_to(np.cos(polar)[:, None], (91, 181))], -1
        )
    )
    table = table / float(np.average(table[:, :-1] ** 3, weights=np.broadcast_to(ring, (91, 180)))) ** (1 / 3)

    def looked_up(unit: NDArray[np.float64]) -> NDArray[np.float64]:
        row = np.degrees(np.arccos(np.clip(unit[..., 2], -1, 1))) / 2
        column = (np.degrees(np.arctan2(unit[..., 1], unit[..., 0])) + 180) / 2
        return np.asarray(map_coordinates(table, [row, column], order=1, mode="nearest"))

    return looked_up
