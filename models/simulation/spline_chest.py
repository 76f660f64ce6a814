"""A chest of spline surfaces: skin, lungs, heart, spine and sternum, each patient of other proportions.

Neither ellipsoids as FORBILD and MIRD nor the anthropomorphic family's shapes: rings of control points, drawn here,
and cubic B-splines along and around them (NURBS whose weights are all 1). source: simulation dossier 1, item 3
Axes: z up, y backwards, x to the patient's left; the origin is in the middle of the lungs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter, map_coordinates

from models.contract import BoolArray, FloatArray
from models.simulation.solids import Axis, Solid

Points = NDArray[np.float64]
"""(…, 3): z, y, x in mm."""
Ring = tuple[float, float, float, float, float]
"""Level z, centre y and x, half axes y and x; mm."""

DEGREE = 3
SIDES = 12
"""Control points of a ring."""
EXPONENT = 2.4
"""Of a ring's superellipse: trunks and lungs are fuller than ellipses."""
_RIGHT_LUNG: tuple[Ring, ...] = (
    (-150, 45, -88, 18, 26), (-120, 25, -82, 62, 56), (-60, 5, -82, 84, 62), (0, 0, -80, 86, 60), (60, 5, -74, 78, 54),
    (110, 10, -64, 58, 42), (140, 15, -54, 30, 24),
)  # fmt: skip
PARTS: Mapping[str, tuple[str, tuple[float, float], tuple[Ring, ...]]] = {
    "skin": ("body", (25, 50), (
        (-260, 0, 0, 112, 160), (-130, 0, 0, 118, 168), (0, 0, 0, 120, 172), (110, 5, 0, 112, 178),
        (150, 8, 0, 100, 180), (260, 10, 0, 90, 165),
    )),
    "right lung": ("lung", (-870, -760), _RIGHT_LUNG),
    "left lung": ("lung", (-870, -760), tuple((z, y, -x, b, a) for z, y, x, b, a in _RIGHT_LUNG)),
    "heart": ("body", (30, 60), (
        (-115, -35, 35, 30, 45), (-80, -30, 32, 48, 62), (-30, -25, 22, 48, 55), (10, -20, 10, 36, 38),
        (50, -10, 5, 24, 26),
    )),
    "spine": ("bone", (150, 300), ((-260, 74, 0, 17, 19), (0, 76, 0, 17, 19), (260, 72, 0, 16, 18))),
    "sternum": ("bone", (150, 350), (
        (-70, -98, 0, 5, 10), (-10, -98, 0, 6, 18), (60, -96, 0, 6, 20), (95, -94, 0, 5, 24)
    )),
}  # fmt: skip
"""Surface → name of the solid, its range of HU, rings from below; in the order of filling."""
REACH_MM = 170.0
"""Above and below the middle: neck and pelvis are left out."""
MESH, LATTICE_MM = 240, 2.0
SMOOTHING = 0.6
"""Of the filled lattice, in steps: its stairs go, its level of one half stays on the surface."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface.

    points      control points (M, SIDES, 3), mm: rings from pole to pole; the first and last are points
    """

    points: Points

    def mesh(self, count: int) -> Points:
        """Points on it, (count, count, 3)."""
        rings, sides = self.points.shape[:2]
        steps = np.linspace(0, 1, count)
        inner = np.linspace(0, 1, rings - DEGREE + 1)
        along = BSpline(np.r_[[0] * DEGREE, inner, [1] * DEGREE], self.points, DEGREE)(steps)  # (count, SIDES, 3)
        closed = np.concatenate([along, along[:, :DEGREE]], axis=1).swapaxes(0, 1)
        knots = np.arange(-DEGREE, sides + DEGREE + 1) / sides
        around: Points = BSpline(knots, closed, DEGREE)(steps)  # (count, count, 3)
        return around.swapaxes(0, 1)


def draw_chest(rng: np.random.Generator) -> dict[str, tuple[Surface, Solid]]:
    """Surfaces and solids of one patient, by the names of `PARTS`."""
    scale = rng.uniform((0.92, 0.88, 0.9), (1.08, 1.1, 1.08))  # height, depth, width
    found = {}
    for part, (name, hu, rings) in PARTS.items():
        surface = Surface(_control_points(rings, rng) * scale)
        found[part] = surface, _solid(surface, name, float(rng.uniform(*hu)))
    return found


def _control_points(rings: Sequence[Ring], rng: np.random.Generator) -> Points:
    """(M + 2, SIDES, 3): the rings, each a little larger or smaller, between the centres of the outer two."""
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    cos, sin = np.cos(angle), np.sin(angle)
    round_ = (np.abs(cos) ** EXPONENT + np.abs(sin) ** EXPONENT) ** (-1 / EXPONENT)
    points = []
    for z, y, x, half_y, half_x in rings:
        grown = round_ * rng.normal(1, 0.03)
        points.append(np.stack([np.full(SIDES, z), y + half_y * grown * sin, x + half_x * grown * cos], axis=1))
    poles = [np.broadcast_to(ring.mean(0), ring.shape) for ring in (points[0], points[-1])]
    return np.stack([poles[0], *points, poles[1]])


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
