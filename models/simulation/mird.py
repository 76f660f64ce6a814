"""The MIRD/ORNL stylised adult's trunk: solids in mm, origin in the middle of the trunk, y backwards.

source: simulation dossier 4.3 (a public Geant4 deck); HU: 4.2. The plane that cuts the liver is that of Snyder's adult
(x/35 + y/45 - z/43 = -1, cm from the trunk's base), scaled as the deck scales its other parts.
"""

from __future__ import annotations

import numpy as np

from models.contract import BoolArray
from models.simulation.solids import Axis, Inside, Solid, ellipsoid, upright

BASE_MM = -315.5
SKELETON, SOFT, LUNG = 480.0, 35.0, -704.0
KIDNEY_CUT_MM = 26.0


def trunk() -> list[Solid]:
    """Skin, trunk, ribs, lungs, heart, organs of the upper abdomen, bladder, spine."""
    parts = [
        upright((0, 0, 0), (100, 174.5), 50, "skin", half_height=317.5),
        upright((0, 0, 0), (98, 172.5), SOFT, "body", half_height=315.5),
    ]
    for number in range(11):
        level = 8.0 + 28 * number
        parts += [upright((level, 0, 0), (98, 170), SKELETON, "bone", half_height=7)]
        parts += [upright((level, 0, 0), (93, 165), SOFT, "body", half_height=7)]
    for side in (-1, 1):
        lung = ellipsoid((76.6, 0, side * 73.3), (205.5, 69.8, 40.9), LUNG, "lung")
        parts += [lung.within(_above(76.6))]
    parts += _heart()
    parts += [upright((0, 0, 0), (82, 141.9), 60, "liver", half_height=72.1).within(_liver_side)]
    parts += [ellipsoid((18, 29.4, 94.9), (51.9, 18.8, 29), 50, "spleen")]
    parts += [ellipsoid((0, -39.2, 69), (71.6, 29.2, 34.3), 20, "stomach")]
    parts += [ellipsoid((18, 0, -7.2), (28.7, 11.4, 133.2), 42, "pancreas").within(_left_of(-7.2))]
    for side in (-1, 1):
        parts += [ellipsoid((-22.5, 58.8, side * 51.8), (49.6, 15.3, 40.5), 30, "kidney").within(_lateral)]
        parts += [ellipsoid((30, 65, side * 45), (50, 5, 15), 40, "adrenal").within(_above(30))]
    parts += [ellipsoid((-243, -44, 0), (31.1, 33.8, 42.7), 8, "bladder")]
    parts += [upright((30, 53.9, 0), (24.5, 17.3), SKELETON, "bone", half_height=285)]
    return parts


def _heart() -> list[Solid]:
    """A half ellipsoid to the left and a hemisphere to the right, their axis tilted by 25°."""
    centre = (153.0, -30.0, 0.0)
    cos, sin = np.float32(np.cos(np.radians(25))), np.float32(np.sin(np.radians(25)))

    def inside(z: Axis, y: Axis, x: Axis) -> BoolArray:
        dz, dy, dx = z - centre[0], y - centre[1], x - centre[2]
        along, down = cos * dx - sin * dz, sin * dx + cos * dz
        length = np.where(along > 0, np.float32(70), np.float32(39.9))
        return np.asarray((along / length) ** 2 + (dy / 40) ** 2 + (down / 40) ** 2 < 1)

    return [Solid(inside, (83, -71, -72), (223, 11, 72), 45, "heart")]


def _liver_side(z: Axis, y: Axis, x: Axis) -> BoolArray:
    return np.asarray(x / 301.9 + y / 441.0 - (z - BASE_MM) / 387.6 <= -1)


def _lateral(_z: Axis, _y: Axis, x: Axis) -> BoolArray:
    return np.asarray(np.abs(x) > KIDNEY_CUT_MM)


def _above(level: float) -> Inside:
    return lambda z, _y, _x: z > level


def _left_of(at: float) -> Inside:
    return lambda _z, _y, x: x > at
