"""Lungs in a CT volume, real or drawn: where they are, where a nodule may sit in them, how sharp the images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from models.contract import BoolArray, FloatArray
from models.simulation.lesions import Plan, drawn, ellipsoid, lobulated, overlaps
from models.simulation.shapes import Grid, Point

Site = Literal["free", "pleural", "vascular"]
SITE_SHARES: dict[Site, float] = {"free": 0.37, "pleural": 0.43, "vascular": 0.20}
"""Subpleural 43 % as in a screening sample (simulation dossier 5.1); the share on vessels is an assumption."""

AIR_BELOW_HU, AIRWAY_BELOW_HU = -400.0, -965.0
DENSE_ABOVE_HU = -600.0
LUNG_HU = (-960.0, -600.0)
"""The median of a lung lies between these: gas in the bowel and air around the patient do not."""
LEAST_LUNG_ML = 15.0
CLOSING_MM = 6.0
"""Vessels up to about twice this thickness belong to the lung that they run through."""

DIAMETER_QUANTILES_MM = ((0.0, 4.0), (0.05, 4.6), (0.25, 5.7), (0.5, 7.2), (0.75, 10.8), (0.95, 20.3), (1.0, 28.0))
"""Volume-equivalent diameters marked by at least 3 LIDC-IDRI readers (simulation dossier 5.1)."""
TEXTURE_SHARES = {"solid": 0.892, "part-solid": 0.041, "ground-glass": 0.067}
SPICULATED_SHARE = 0.134
TRIES = 60


@dataclass(frozen=True, eq=False)
class Lungs:
    """Lungs on a grid that is coarser in the plane.

    host        bool (Z, Y, X) of the volume: lungs with the vessels in them and a rim of their wall
    grid        the coarser grid; the distances below lie on it
    pleura_mm   from the inside to the lungs' surface, 0 outside
    dense_mm    from the air of the lungs to the next vessel or surface, 0 outside
    """

    host: BoolArray
    grid: Grid
    pleura_mm: FloatArray
    dense_mm: FloatArray


def find_lungs(voxels: FloatArray, spacing_zyx_mm: tuple[float, float, float]) -> Lungs | None:
    """Lungs by threshold and connected components; None where there are none."""
    depth, height, width = voxels.shape
    coarse = voxels[:, : height // 2 * 2, : width // 2 * 2]
    coarse = coarse.reshape(depth, height // 2, 2, width // 2, 2).mean((2, 4))
    step, row, column = spacing_zyx_mm
    spacing = (step, 2 * row, 2 * column)
    air = _inner_air(coarse, float(np.prod(spacing)))
    if not air.any():
        return None
    filled = _close(air, spacing)
    airy = filled & (coarse < DENSE_ABOVE_HU)
    host = np.zeros(voxels.shape, bool)
    # A pixel more: what is partly wall must be filled as well, else a dark seam parts a nodule from the pleura.
    seam = ndimage.binary_dilation(filled, np.ones((1, 3, 3), bool))
    host[:, : height // 2 * 2, : width // 2 * 2] = seam.repeat(2, 1).repeat(2, 2)
    pleura, dense = _depth(filled, spacing), _depth(airy, spacing)
    return Lungs(host, Grid(coarse.shape, spacing), pleura, dense)


def point_spread_mm(voxels: FloatArray, lungs: Lungs, spacing_zyx_mm: tuple[float, float, float]) -> float:
    """Standard deviation of the in-plane blur, from the steepest edges between lung and wall (0.35 … 1.2 mm)."""
    surface = lungs.host ^ ndimage.binary_erosion(lungs.host, np.ones((1, 3, 3), bool), iterations=4)
    planes = np.flatnonzero(surface.any((1, 2)))[::2]
    steepest = []
    for k in planes:
        gy, gx = np.gradient(voxels[k], *spacing_zyx_mm[1:])
        steepest.append(np.percentile(np.hypot(gy, gx)[surface[k]], 90))
    contrast = 40.0 - float(np.median(voxels[lungs.host]))
    return float(np.clip(contrast / ((2 * np.pi) ** 0.5 * np.median(steepest)), 0.35, 1.2))


def plan_nodule(
    lungs: Lungs, others: list[Plan], *, rng: np.random.Generator, blur_mm: float = 0.0, lobulated_shape: bool = False
) -> Plan | None:
    """A nodule of random size, texture and site; None where no place was found. `blur_mm` widens its edge."""
    diameter = drawn(DIAMETER_QUANTILES_MM, rng)
    texture = list(TEXTURE_SHARES)[int(rng.choice(3, p=list(TEXTURE_SHARES.values())))]
    site: Site = list(SITE_SHARES)[int(rng.choice(3, p=list(SITE_SHARES.values())))]
    centre = _site(lungs, site, diameter, others, rng)
    if centre is None:  # no vessel, or no room at the wall
        centre = _site(lungs, "free", diameter, others, rng)
    if centre is None:
        return None
    level = float(rng.uniform(-650, -480)) if texture == "ground-glass" else float(rng.normal(35, 25))
    if texture == "part-solid":
        level = float(rng.uniform(-350, -100))
    edge = float(np.hypot(rng.uniform(0.3, 1.5), blur_mm))
    if lobulated_shape:
        spiky = rng.uniform() < SPICULATED_SHARE
        spikes = int(rng.integers(6, 14)) if spiky else 0
        cover = lobulated(
            rng, spread=float(rng.uniform(0.17, 0.22) if spiky else rng.uniform(0.1, 0.15)), spikes=spikes
        )
    else:
        cover = ellipsoid(rng, edge_mm=min(edge, diameter / 5), roughness=float(rng.uniform(0.03, 0.12)))
    return Plan("lung", centre, diameter, level, "raise", cover, lungs.host)


def _inner_air(voxels: FloatArray, voxel_mm3: float) -> BoolArray:
    """Air that no plane's border touches, without airways, and that is lung by its size and its median."""
    air = voxels < AIR_BELOW_HU
    labels, _ = ndimage.label(air)
    borders = [labels[:, row].ravel() for row in (0, -1)] + [labels[:, :, column].ravel() for column in (0, -1)]
    air &= ~np.isin(labels, np.unique(np.concatenate(borders)))
    air &= ~ndimage.binary_opening(voxels < AIRWAY_BELOW_HU, np.ones((1, 3, 3), bool))
    labels, count = ndimage.label(air)
    keep = np.zeros(count + 1, bool)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for label in np.flatnonzero(sizes * voxel_mm3 > LEAST_LUNG_ML * 1000):
        if label:
            keep[label] = LUNG_HU[0] < float(np.median(voxels[labels == label])) < LUNG_HU[1]
    return np.asarray(keep[labels])


def _close(air: BoolArray, spacing: tuple[float, float, float]) -> BoolArray:
    """Plane by plane: vessels inside are filled, the hilum stays outside."""
    reach = max(1, round(CLOSING_MM / spacing[2]))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.hypot(y, x) <= reach
    filled = np.zeros_like(air)
    for k, plane in enumerate(air):
        if plane.any():
            padded = np.pad(plane, reach)
            closed = ndimage.binary_closing(padded, disc)[reach:-reach, reach:-reach]
            filled[k] = ndimage.binary_fill_holes(closed)
    return filled


def _depth(inside: BoolArray, spacing: tuple[float, float, float]) -> FloatArray:
    """Distance to the outside, mm; the first and last planes are no surface."""
    padded = np.pad(inside, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return np.asarray(ndimage.distance_transform_edt(padded, spacing)[1:-1], np.float32)


def _site(lungs: Lungs, site: Site, diameter: float, others: list[Plan], rng: np.random.Generator) -> Point | None:
    radius = diameter / 2
    if site == "pleural":
        fits = (lungs.pleura_mm > 0.5 * radius) & (lungs.pleura_mm < 0.9 * radius + 0.5)
    elif site == "vascular":
        fits = (lungs.dense_mm > 0) & (lungs.dense_mm < 0.7 * radius) & (lungs.pleura_mm > radius + 3)
    else:
        fits = lungs.dense_mm > min(radius, 5.0) + 1.0
    fits[[0, -1]] = False
    places = np.flatnonzero(fits)
    axes = lungs.grid.axes()
    for place in rng.choice(places, min(TRIES, places.size), replace=False) if places.size else ():
        index = np.unravel_index(place, fits.shape)
        centre = np.array([axis[i] for axis, i in zip(axes, index, strict=True)], float)
        centre += rng.uniform(-0.4, 0.4, 3) * lungs.grid.spacing_zyx_mm
        if not overlaps(centre, diameter, others):
            return centre
    return None
