"""Cases with lesions of known place, size and contrast: drawn patients of several families, and real chests.

The anthropomorphic families are for training. FORBILD, MIRD and spline surfaces are for tests: other anatomy,
other lesion generator.
source: simulation dossier 4 and 5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.contract import FloatArray, ModelError
from models.simulation.lesions import Category, Plan, PlantedLesion, apart, plant
from models.simulation.lungs import find_lungs, plan_nodule, point_spread_mm
from models.simulation.phantom import blur
from models.simulation.scenes import (
    Scene,
    abdomen_scene,
    chest_scene,
    forbild_abdomen_scene,
    mird_scene,
    plant_lesions,
    spline_scene,
    thorax_scene,
)
from models.simulation.shapes import Grid

Family = Literal[
    "anthropomorphic-chest", "anthropomorphic-abdomen", "forbild-thorax", "forbild-abdomen", "mird", "spline-chest"
]

__all__ = ["Case", "Category", "Family", "PlantedLesion", "draw_case", "plant_in"]

MEAN_LESIONS = 1.8
TRIES_PER_NODULE = 12
NOISE_SMOOTHING_MM = 1.2

SCENES: Mapping[Family, Callable[[Grid, np.random.Generator], Scene]] = {
    "anthropomorphic-chest": chest_scene,
    "anthropomorphic-abdomen": abdomen_scene,
    "forbild-thorax": thorax_scene,
    "forbild-abdomen": forbild_abdomen_scene,
    "mird": mird_scene,
    "spline-chest": spline_scene,
}


@dataclass(frozen=True, eq=False)
class Case:
    """A patient without noise, and the truth.

    voxels      float32 (Z, Y, X), HU, feet to head, anterior first, the patient's right first
    """

    voxels: FloatArray
    spacing_zyx_mm: tuple[float, float, float]
    lesions: tuple[PlantedLesion, ...]
    family: Family


def draw_case(
    family: Family,
    *,
    seed: int,
    shape_zyx: tuple[int, int, int] = (24, 512, 512),
    spacing_zyx_mm: tuple[float, float, float] = (2.0, 0.75, 0.75),
    lesions: int | None = None,
) -> Case:
    """A random patient. `lesions`: how many (None: drawn, often none); fewer where the volume has no room for more.

    raises   KeyError    no such family
    """
    rng = np.random.default_rng(seed)
    scene = SCENES[family](Grid(shape_zyx, spacing_zyx_mm), rng)
    count = int(rng.poisson(MEAN_LESIONS)) if lesions is None else lesions
    planted = plant_lesions(scene, count, rng)
    blur(scene.voxels, spacing_zyx_mm)
    return Case(scene.voxels, spacing_zyx_mm, planted, family)


def plant_in(
    voxels: FloatArray, spacing_zyx_mm: tuple[float, float, float], *, seed: int, lesions: int
) -> tuple[FloatArray, tuple[PlantedLesion, ...]]:
    """A copy of a real chest CT with lung nodules, as sharp as the volume itself; fewer where there is no room.

    voxels   float32 (Z, Y, X), HU, padding set to air
    raises   ModelError    no lungs found
    """
    rng = np.random.default_rng(seed)
    grid = Grid((voxels.shape[0], voxels.shape[1], voxels.shape[2]), spacing_zyx_mm)
    lungs = find_lungs(voxels, spacing_zyx_mm)
    if lungs is None:
        raise ModelError("no lungs found in this volume")
    image = voxels.astype(np.float32, copy=True)
    blur_mm = point_spread_mm(voxels, lungs, spacing_zyx_mm)
    plans: list[Plan] = []
    planted: list[PlantedLesion] = []
    for _ in range(TRIES_PER_NODULE * lesions):
        if len(planted) == lesions:
            break
        plan = plan_nodule(lungs, plans, rng=rng, blur_mm=blur_mm)
        done = None if plan is None else plant(image, grid, apart(plan, planted), smoothing_mm=NOISE_SMOOTHING_MM)
        if plan is not None and done is not None:
            plans.append(plan)
            planted.append(done)
    return image, tuple(planted)
