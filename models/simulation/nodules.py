"""Lung nodules drawn from what the LIDC-IDRI readers marked (simulation dossier 5.1, nodules of at least 3 readers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.contract import FloatArray
from models.simulation.shapes import Grid, Point, edge

Texture = Literal["solid", "part-solid", "ground-glass"]

LN_DIAMETER_MM = (2.338, 0.492)
DIAMETER_RANGE_MM = (4.0, 30.0)
TEXTURE_SHARES: dict[Texture, float] = {"solid": 0.892, "part-solid": 0.041, "ground-glass": 0.067}
ROUGHNESS = (0.13, 0.20)
"""Coefficient of variation of the radius, smooth and spiculated."""


@dataclass(frozen=True)
class Nodule:
    """A nodule as placed: the truth of a phantom.

    centre_mm       (z, y, x)
    diameter_mm     of the sphere of equal volume, before roughness
    hu              of its core
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    texture: Texture


def draw_nodule(centre: Point, rng: np.random.Generator) -> Nodule:
    """A nodule of random size and texture at this place."""
    diameter = float(np.clip(np.exp(rng.normal(*LN_DIAMETER_MM)), *DIAMETER_RANGE_MM))
    texture = list(TEXTURE_SHARES)[int(rng.choice(3, p=list(TEXTURE_SHARES.values())))]
    hu = float(rng.uniform(-650, -480)) if texture == "ground-glass" else float(rng.normal(35, 25))
    z, y, x = (float(value) for value in centre)
    return Nodule((z, y, x), diameter, hu, texture)


def paint_nodule(image: FloatArray, grid: Grid, nodule: Nodule, rng: np.random.Generator) -> None:
    """Blend the nodule into the volume (Z, Y, X), HU."""
    centre = np.array(nodule.centre_mm)
    radius = nodule.diameter_mm / 2
    reach = 1.8 * radius + 3
    box = grid.box(centre - reach, centre + reach)
    if box is None:
        return
    z, y, x = (axis[part] for axis, part in zip(grid.axes(), box, strict=True))
    offset = np.stack(np.broadcast_arrays(z[:, None, None], y[None, :, None], x[None, None, :]), -1) - centre
    distance = np.linalg.norm(offset, axis=-1)
    surface = radius * _radial_variation(offset / np.maximum(distance, 1e-3)[..., None], rng)
    softness = max(grid.spacing_zyx_mm[2], float(rng.uniform(0.6, 2.5)))
    cover = edge((distance - surface).astype(np.float32), softness)
    region = image[box]
    if nodule.texture == "part-solid":
        region += cover * (np.maximum(region, -550.0) - region)
        cover = edge((distance - 0.55 * surface).astype(np.float32), softness)
    # A nodule replaces air, never a vessel that runs through it.
    region += cover * (np.maximum(region, nodule.hu) - region)


def _radial_variation(unit: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Radius over mean radius by direction: elongation and some waves, (…,)."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    elongation = np.clip(np.exp(rng.normal(0.2, 0.12)), 1.0, 1.7)
    shape = np.sqrt(1 / (1 + (1 / elongation**2 - 1) * (unit @ axis) ** 2)) / elongation ** (1 / 3)
    waves = np.zeros(unit.shape[:-1])
    for order in (3, 5, 8):
        waves += np.cos(order * (unit @ rng.standard_normal(3)) + rng.uniform(0, 2 * np.pi)) / order**0.5
    roughness = float(rng.uniform(*ROUGHNESS)) * 0.6
    return np.asarray(shape * (1 + roughness * waves))
