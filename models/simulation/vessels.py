"""Pulmonary vessel trees: branching by Murray's law inside a lung, down to a fraction of a millimetre.

Vessels and their forks are what a nodule must be told from; a phantom without them teaches "any blob".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.simulation.shapes import Point, Tube

Inside = Callable[[Point], bool]

LENGTH_PER_RADIUS = (3.5, 11.0)
"""Length of a branch over its radius, for the thickest and the thinnest: trunks are stout."""
TRIES, TRIES_OF_THIN, THIN_MM = 12, 2, 1.3
"""Headings tried before a branch ends at the lung's surface, each wider than the one before; thin branches give up
soon, else they would run along the surface and hedge it."""


@dataclass(frozen=True)
class TreeConfig:
    """Where a tree ends."""

    root_radius_mm: float = 4.6
    least_radius_mm: float = 0.45
    most_branches: int = 1500


def grow_tree(
    root: Point, direction: Point, inside: Inside, config: TreeConfig, rng: np.random.Generator
) -> list[Tube]:
    """Branches of one tree, thickest first.

    root, direction     where it enters the lung, and whereto (z, y, x)
    inside              whether a point (mm) is in the lung
    """
    tubes: list[Tube] = []
    front = [(root, direction / np.linalg.norm(direction), config.root_radius_mm)]
    while front and len(tubes) < config.most_branches:
        start, heading, radius = front.pop(0)
        thinness = 1 - radius / config.root_radius_mm
        length = radius * np.interp(thinness, (0, 1), LENGTH_PER_RADIUS) * rng.uniform(0.7, 1.3)
        end = start + heading * length
        if tubes and not inside(end):
            length *= 0.5
            end = start + heading * length
        tubes.append(Tube(start, end, radius))
        # Murray: r³ = r₁³ + r₂³, the flow shared unevenly
        share = rng.uniform(0.25, 0.5)
        for part, sign in ((1 - share, 1.0), (share, -1.0)):
            child = radius * part ** (1 / 3)
            if child >= config.least_radius_mm:
                turned = _turn(end, heading, child, (sign * (1.1 - part), inside), rng)
                if turned is not None:
                    front.append((end, turned, child))
    return tubes


def _turn(
    start: Point, heading: Point, radius: float, bend: tuple[float, Inside], rng: np.random.Generator
) -> Point | None:
    """A new heading that stays inside, None where every try leaves the lung."""
    amount, inside = bend
    for attempt in range(TRIES if radius > THIN_MM else TRIES_OF_THIN):
        (a, b, c), (u, v, w) = heading, rng.standard_normal(3)
        sideways = np.array((b * w - c * v, c * u - a * w, a * v - b * u))  # np.cross takes ten times as long
        sideways /= math.sqrt(sideways @ sideways) + 1e-9
        turned = heading + amount * (1 + 0.3 * attempt) * sideways + 0.15 * rng.standard_normal(3)
        turned /= math.sqrt(turned @ turned)
        if inside(start + turned * 6 * radius):
            return np.asarray(turned)
    return None
