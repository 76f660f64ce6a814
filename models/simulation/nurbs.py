"""A chest of spline surfaces: skin, both lungs and sternum of XCIST's adult male; it has no heart and no ribs.

source: simulation dossier 4.5; xcist_chest.npz holds the control points and knots of vmale50_chest_less_surfaces.nrb
from gecatsim 1.6.8 (Copyright 2024, GE Precision HealthCare, BSD 3-Clause: see LICENSE.xcist beside it), in steps of
0.02 mm. Axes are the source's own: z up, y backwards, x to the patient's left. All weights are 1, so that the surfaces
are plain B-splines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter, map_coordinates

from models.contract import BoolArray, FloatArray
from models.simulation.solids import Axis, Solid

Points = NDArray[np.float64]
"""(…, 3): z, y, x in mm."""

FILE = Path(__file__).with_name("xcist_chest.npz")
POINT_STEP_MM = 0.02
DEGREE = 3
TISSUES: dict[str, tuple[str, float]] = {
    "chest_surface": ("body", 35.0), "rlung": ("lung", -740.0), "llung": ("lung", -740.0), "sternum": ("bone", 250.0)
}  # fmt: skip
"""Surface → name of the solid and HU, in the order of filling."""
MIDDLE_MM = (135.0, 0.0, 0.0)
"""Of the lungs, in the source's axes: there the description has its origin."""
REACH_MM = 170.0
"""Above and below the middle: neck and pelvis are left out."""
MESH, LATTICE_MM = 240, 2.0
SMOOTHING = 0.6
"""Of the filled lattice, in steps: its stairs go, its level of one half stays on the surface."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface: rows (M) from pole to pole, columns (N) around.

    points      (M, N, 3), mm       rows, columns   knots, (M + 4,) and (N + 4,)
    """

    points: Points
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    def mesh(self, count: int) -> Points:
        """Points on it, (count, count, 3)."""
        steps = np.linspace(0, 1, count)
        along = BSpline(self.rows, self.points, DEGREE)(steps)  # (count, N, 3)
        around: Points = BSpline(self.columns, along.swapaxes(0, 1), DEGREE)(steps)  # (count, count, 3)
        return around.swapaxes(0, 1)


def surfaces() -> dict[str, Surface]:
    """Of the chest, by the source's names, origin in the middle of the lungs."""
    with np.load(FILE, allow_pickle=False) as arrays:
        return {
            name: Surface(
                POINT_STEP_MM * arrays[f"{name}.points"] - MIDDLE_MM, arrays[f"{name}.rows"], arrays[f"{name}.columns"]
            )
            for name in TISSUES
        }


@cache
def chest() -> tuple[Solid, ...]:
    """Body, lungs, sternum."""
    return tuple(_solid(surface, *TISSUES[name]) for name, surface in surfaces().items())


def _solid(surface: Surface, name: str, hu: float) -> Solid:
    mesh = surface.mesh(MESH)
    low, high = mesh.min((0, 1)) - 2 * LATTICE_MM, mesh.max((0, 1)) + 2 * LATTICE_MM
    low[0], high[0] = max(low[0], -REACH_MM), min(high[0], REACH_MM)
    shape = tuple(int(n) for n in np.ceil((high - low) / LATTICE_MM))
    filled = gaussian_filter(fill(mesh, low, (shape[0], shape[1], shape[2])).astype(np.float32), SMOOTHING)

    def inside(z: Axis, y: Axis, x: Axis) -> BoolArray:
        place = [(axis - start) / LATTICE_MM for axis, start in zip((z, y, x), low, strict=True)]
        return np.asarray(map_coordinates(filled, np.broadcast_arrays(*place), order=1) > 0.5)

    z, y, x = (float(value) for value in low)
    return Solid(inside, (z, y, x), tuple(float(value) for value in high), hu, name)  # type: ignore[arg-type]


def fill(mesh: Points, low: Points, shape: tuple[int, int, int], step_mm: float = LATTICE_MM) -> BoolArray:
    """Which points low + step · (k, j, i) a closed surface encloses: those with an odd number of crossings before them.

    mesh    (A, B, 3), closed around and at its poles
    """
    a, b, c, d = mesh[:-1, :-1], mesh[1:, :-1], mesh[1:, 1:], mesh[:-1, 1:]
    triangles = np.stack([np.stack([a, b, c], 2), np.stack([a, c, d], 2)]).reshape(-1, 3, 3)
    triangles = (triangles - low) / step_mm
    first = np.ceil(triangles[..., :2].min(1)).astype(int)  # (T, 2): k, j
    spans = np.floor(triangles[..., :2].max(1)).astype(int) - first + 1
    toggles = np.zeros((shape[0], shape[1], shape[2] + 1), np.int32)
    for dk in range(spans[:, 0].max()):
        for dj in range(spans[:, 1].max()):
            some = (spans[:, 0] > dk) & (spans[:, 1] > dj)
            at = first[some] + (dk, dj)
            crossed, x = _crossing(triangles[some], at)
            k, j = at[crossed].T
            i = np.clip(np.ceil(x[crossed]).astype(int), 0, shape[2])
            seen = (k >= 0) & (k < shape[0]) & (j >= 0) & (j < shape[1])
            np.add.at(toggles, (k[seen], j[seen], i[seen]), 1)
    return np.asarray(np.cumsum(toggles, 2)[..., :-1] % 2 == 1)


def _crossing(triangles: Points, at: NDArray[np.int64]) -> tuple[BoolArray, FloatArray]:
    """Whether the line along x through (k, j) crosses each triangle (T, 3, 3), and at which x."""
    (az, ay, ax), (bz, by, bx), (cz, cy, cx) = triangles.transpose(1, 2, 0)
    area = (by - cy) * (az - cz) + (cz - bz) * (ay - cy)
    safe = np.where(area == 0, 1, area)
    k, j = at.T
    u = ((by - cy) * (k - cz) + (cz - bz) * (j - cy)) / safe
    v = ((cy - ay) * (k - cz) + (az - cz) * (j - cy)) / safe
    inside = (area != 0) & (u >= 0) & (v >= 0) & (u + v <= 1)
    return inside, np.asarray(u * ax + v * bx + (1 - u - v) * cx)
