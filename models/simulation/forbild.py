"""The FORBILD thorax and abdomen: solids in mm, y backwards (the sources count it forwards), density over water as HU.

source: simulation dossier 4.1 and 4.2. Left out: the abdomen's own low-contrast spheres, in whose place lesions of
known size and contrast are planted. Heights of vertebral bodies and the path of their processes are assumptions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from models.simulation.solids import Solid, brick, ellipsoid, rod, upright

BONE, RIB, SPONGIOSA, MARROW, SHELL = 920.0, 410.0, 180.0, -20.0, 250.0
LUNG, BLOOD, LIVER, SOFT = -740.0, 50.0, 60.0, 0.0
VERTEBRA_HALF_MM = 12.5
RIB_TURNS = np.linspace(-75, 68, 10)
"""Angles of the nine pieces' ends, degrees, from behind to the front."""


def thorax() -> list[Solid]:
    """Body, arms, lungs, heart, aorta, sternum, spine, five pairs of ribs."""
    parts = [upright((0, 0, 0), (100, 200), SOFT, "body", half_height=250)]
    parts += [upright((175, 0, side * 200), (50, 50), SOFT, "body", half_height=75) for side in (-1, 1)]
    parts += [ellipsoid((0, 0, side * 105), (150, 55, 75), LUNG, "lung") for side in (-1, 1)]
    parts += [ellipsoid((0, -40, 0), (35, 35, 35), BLOOD, "heart")]
    parts += [
        rod((-150, 25, -25), (150, 25, -25), 10, BLOOD, "aorta"),
        rod((30, -45, 5), (90, -45, 5), 10, BLOOD, "aorta"),
        rod((75, 25, -25), (75, -45, 5), 10, BLOOD, "aorta"),
    ]
    parts += [brick((25, -90, 0), (125, 4, 12.5), SHELL, "bone"), brick((25, -90, 0), (123.5, 2.5, 10), MARROW, "bone")]
    for level in range(-240, 241, 30):
        parts += _vertebra(level, 50, 17.5, 15)
    for number in range(5):
        for side in (-1, 1):
            parts += _rib(60.0 - 30 * number, side)
    return parts


def abdomen() -> list[Solid]:
    """Body, liver, spine."""
    parts = [upright((0, 0, 0), (120, 200), SOFT, "body", half_height=500)]
    parts += [ellipsoid((0, 0, -100), (100, 70, 80), LIVER, "liver", turn_deg=60)]
    for level in range(-100, 101, 50):
        parts += _vertebra(level, 70, 20, 17)
    return parts


def _vertebra(level: float, y: float, radius: float, core: float) -> list[Solid]:
    low, high = level - VERTEBRA_HALF_MM, level + VERTEBRA_HALF_MM
    back = y + radius
    return [
        rod((low, y, 0), (high, y, 0), radius, BONE, "bone"),
        rod((low + 2, y, 0), (high - 2, y, 0), core, SPONGIOSA, "bone"),
        *(rod((level, back - 4, side * 9), (level, back + 12, side * 3), 4, BONE, "bone") for side in (-1, 1)),
        rod((level, back + 10, 0), (level - 8, back + 22, 0), 4, BONE, "bone"),
    ]


def _rib(level: float, side: int) -> list[Solid]:
    turns = np.radians(RIB_TURNS)
    points = [(level - 55 * np.sin(q), -90 * np.sin(q), side * 185 * np.cos(q)) for q in turns]
    pieces = list(pairwise(points))
    return [rod(a, b, 5, RIB, "bone") for a, b in pieces] + [rod(a, b, 4, MARROW, "bone") for a, b in pieces]
