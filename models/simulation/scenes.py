"""Patients before lesions: what may lie where, and the drawing of lesions that fit.

source: simulation dossier 4.4 and 5; what is not in it (diameters outside liver and lung, shares) is an assumption
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from models.contract import BoolArray, FloatArray
from models.simulation import forbild, mird, spline_chest
from models.simulation.abdomen import draw_abdomen
from models.simulation.canvas import Tissue
from models.simulation.lesions import (
    Category,
    Cover,
    Fill,
    Plan,
    PlantedLesion,
    apart,
    drawn,
    ellipsoid,
    lobulated,
    overlaps,
    plant,
)
from models.simulation.lungs import Lungs, find_lungs, plan_nodule
from models.simulation.phantom import draw_chest
from models.simulation.shapes import Grid, Point, superellipse
from models.simulation.solids import Pose, Solid, voxelise

Quantiles = tuple[tuple[float, float], ...]
LIVER_CONTRAST_HU: Quantiles = ((0.0, 12.0), (0.25, 23.0), (0.5, 38.0), (0.75, 68.0), (1.0, 95.0))
"""Below the liver around. source: 91 metastases of a 25-reader study (dossier 5.2); the ends are assumptions."""
DIAMETER_MM: Mapping[Category, Quantiles] = {
    "liver": ((0.0, 4.5), (0.25, 9.0), (0.5, 12.0), (0.75, 18.0), (1.0, 36.0)),
    "lymph node": ((0.0, 7.5), (0.5, 12.0), (0.9, 20.0), (1.0, 28.0)),
    "kidney": ((0.0, 6.0), (0.5, 14.0), (0.9, 30.0), (1.0, 40.0)),
    "soft tissue": ((0.0, 6.0), (0.5, 12.0), (0.9, 22.0), (1.0, 30.0)),
}
DARKEST_LIVER_LESION_HU = -5.0
CYST_SHARE = 0.65

TRIES = 15
"""Plans made for one lesion before it is given up."""
SITES = 60


@dataclass(frozen=True, eq=False)
class Host:
    """Where lesions of a category lie.

    room        bool (Z, Y, X): voxels that they may fill
    tissue      bool (Z, Y, X): voxels in which their centres lie
    depth       least and most depth of the centre below that tissue's surface, over the radius
    """

    room: BoolArray
    tissue: BoolArray
    depth: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Scene:
    """A patient before lesions and blur.

    grain       texture of soft tissue (Z, Y, X), HU
    shares      how often a lesion is of each category
    tissue_hu   HU of lymph nodes and of other soft-tissue lesions, about
    kidney_hu   of the kidneys' cortex, 0 where there are none
    lobulated   whether the lesions are of the generator kept for tests
    """

    grid: Grid
    voxels: FloatArray
    grain: FloatArray
    shares: Mapping[Category, float]
    hosts: Mapping[Category, Host]
    tissue_hu: float
    kidney_hu: float = 0.0
    lungs: Lungs | None = None
    lobulated: bool = False


def chest_scene(grid: Grid, rng: np.random.Generator) -> Scene:
    """The anthropomorphic chest."""
    chest = draw_chest(grid, rng)
    voxels, anatomy = chest.voxels, chest.anatomy
    _, y, x = grid.axes()
    width, depth = anatomy.cavity
    cavity = superellipse(x / width, (y[:, None] - 4) / depth, anatomy.exponent) < 0.93
    fat = (voxels > -130) & (voxels < -20)
    mediastinal = ndimage.binary_opening(fat & cavity, np.ones((1, 3, 3), bool))
    under_skin = ndimage.binary_opening(fat & ~cavity, np.ones((1, 3, 3), bool))
    muscle = (voxels > 20) & (voxels < 80) & ~cavity
    lungs = find_lungs(voxels, grid.spacing_zyx_mm)
    shares: dict[Category, float] = {"lung": 0.6, "lymph node": 0.25, "soft tissue": 0.15}
    if lungs is None:
        del shares["lung"]
    wall = under_skin | muscle
    hosts: dict[Category, Host] = {
        "lymph node": Host(mediastinal, mediastinal, (0.45, 2.5)),
        "soft tissue": Host(wall, wall, (0.4, 9.0)),
    }
    grain = 0.35 * anatomy.texture_hu * chest.texture
    return Scene(grid, voxels, grain, shares, hosts, tissue_hu=0.5 * (40 + anatomy.blood_hu) - 5, lungs=lungs)


def abdomen_scene(grid: Grid, rng: np.random.Generator) -> Scene:
    """The anthropomorphic abdomen."""
    abdomen = draw_abdomen(grid, rng)
    canvas = abdomen.canvas
    fat, kidney, liver = canvas.where(Tissue.FAT), canvas.where(Tissue.KIDNEY), canvas.where(Tissue.LIVER)
    wall = canvas.where(Tissue.SUBCUTANEOUS, Tissue.MUSCLE)
    hosts: dict[Category, Host] = {
        "liver": Host(liver, liver, (0.5, 9.0)),
        "kidney": Host(fat | kidney, kidney, (0.1, 2.0)),
        "lymph node": Host(fat, fat & (np.abs(canvas.x) < 60), (0.45, 2.0)),
        "soft tissue": Host(wall | fat, wall | fat, (0.5, 9.0)),
    }
    wanted: dict[Category, float] = {"liver": 0.5, "kidney": 0.2, "lymph node": 0.18, "soft tissue": 0.12}
    phase = abdomen.phase
    return Scene(
        grid, canvas.voxels, 4 * canvas.texture, _present(wanted, hosts), hosts,
        tissue_hu=45 if phase.name == "plain" else 85, kidney_hu=phase.cortex,
    )  # fmt: skip


def thorax_scene(grid: Grid, rng: np.random.Generator) -> Scene:
    """The FORBILD thorax."""
    wanted: dict[Category, float] = {"lung": 0.8, "soft tissue": 0.2}
    return _solid_scene(grid, forbild.thorax(), _pose(rng, (0.82, 0.91), (-70, 70)), wanted)


def forbild_abdomen_scene(grid: Grid, rng: np.random.Generator) -> Scene:
    """The FORBILD abdomen."""
    wanted: dict[Category, float] = {"liver": 0.8, "soft tissue": 0.2}
    return _solid_scene(grid, forbild.abdomen(), _pose(rng, (0.8, 0.9), (-60, 60)), wanted)


def mird_scene(grid: Grid, rng: np.random.Generator) -> Scene:
    """The MIRD adult between kidneys and heart."""
    wanted: dict[Category, float] = {"lung": 0.35, "liver": 0.35, "kidney": 0.15, "soft tissue": 0.15}
    return _solid_scene(grid, mird.trunk(), _pose(rng, (0.92, 1.05), (-30, 190)), wanted)


def spline_scene(grid: Grid, rng: np.random.Generator) -> Scene:
    """A chest of spline surfaces, of other proportions in each patient."""
    wanted: dict[Category, float] = {"lung": 0.8, "soft tissue": 0.2}
    solids = [solid for _, solid in spline_chest.draw_chest(rng).values()]
    return _solid_scene(grid, solids, _pose(rng, (0.85, 0.97), (-60, 60)), wanted)


def _pose(rng: np.random.Generator, scale: tuple[float, float], level_mm: tuple[float, float]) -> Pose:
    return Pose(float(rng.uniform(*scale)), float(rng.uniform(*level_mm)), float(rng.uniform(-6, 6)))


def _solid_scene(grid: Grid, solids: Sequence[Solid], pose: Pose, wanted: dict[Category, float]) -> Scene:
    """Solids have no texture: what is seen in them is a lesion, an edge or noise."""
    voxels, labels = voxelise(grid, solids, pose)

    def where(name: str) -> BoolArray:
        numbers = [number for number, solid in enumerate(solids, start=1) if solid.name == name]
        return np.isin(labels, numbers)

    body, kidney, liver = where("body"), where("kidney"), where("liver")
    hosts: dict[Category, Host] = {
        "liver": Host(liver, liver, (0.5, 9.0)),
        "kidney": Host(body | kidney, kidney, (0.1, 2.0)),
        "soft tissue": Host(body, body, (1.1, 9.0)),
        "lung": Host(where("lung"), where("lung"), (0.0, 9.0)),
    }
    lungs = find_lungs(voxels, grid.spacing_zyx_mm)
    shares = _present(wanted, hosts)
    if lungs is None:
        shares.pop("lung", None)
    return Scene(
        grid, voxels, np.zeros(grid.shape_zyx, np.float32), shares, hosts, tissue_hu=45, lungs=lungs, lobulated=True
    )


def plant_lesions(scene: Scene, count: int, rng: np.random.Generator) -> tuple[PlantedLesion, ...]:
    """Draw and plant so many lesions, fewer where there is no room."""
    plans: list[Plan] = []
    planted: list[PlantedLesion] = []
    names = list(scene.shares)
    odds = np.array(list(scene.shares.values()))
    for _ in range(count if names else 0):
        for _ in range(TRIES):
            category = names[int(rng.choice(len(names), p=odds / odds.sum()))]
            plan = _plan(scene, category, plans, rng)
            done = None if plan is None else plant(scene.voxels, scene.grid, apart(plan, planted), grain=scene.grain)
            if plan is not None and done is not None:
                plans.append(plan)
                planted.append(done)
                break
    return tuple(planted)


def _present(wanted: Mapping[Category, float], hosts: Mapping[Category, Host]) -> dict[Category, float]:
    return {category: share for category, share in wanted.items() if hosts[category].tissue[1:-1].any()}


def _plan(scene: Scene, category: Category, others: list[Plan], rng: np.random.Generator) -> Plan | None:
    if category == "lung":
        return (
            None if scene.lungs is None else plan_nodule(scene.lungs, others, rng=rng, lobulated_shape=scene.lobulated)
        )
    host = scene.hosts[category]
    diameter = drawn(DIAMETER_MM[category], rng)
    centre = _place(scene, host, diameter, others, rng)
    if centre is None:
        return None
    around = float(scene.voxels[_index(scene.grid, centre)])
    level, fill = _level(scene, category, around, rng)
    return Plan(category, centre, diameter, level, fill, _cover(scene, category, diameter, rng), host.room)


def _level(scene: Scene, category: Category, around: float, rng: np.random.Generator) -> tuple[float, Fill]:
    """HU, or difference from the tissue around."""
    if category == "liver":
        return max(-drawn(LIVER_CONTRAST_HU, rng), DARKEST_LIVER_LESION_HU - around), "shift"
    if category == "kidney":
        if rng.uniform() < CYST_SHARE:
            return rng.uniform(-2, 18), "replace"
        solid = scene.kidney_hu * rng.uniform(0.4, 0.75) if scene.kidney_hu > 100 else rng.uniform(48, 70)
        return solid, "replace"
    if category == "soft tissue" and around > 0:
        return float(rng.choice((-1.0, 1.0))) * rng.uniform(20, 45), "shift"
    return float(rng.normal(scene.tissue_hu, 8)), "raise"


def _cover(scene: Scene, category: Category, diameter: float, rng: np.random.Generator) -> Cover:
    if scene.lobulated:
        return lobulated(rng, spread=float(rng.uniform(0.08, 0.18)), edge_mm=float(rng.uniform(0.3, 0.8)))
    softest = 1.2 if category == "liver" else 0.6
    edge = min(float(rng.uniform(0.3, softest)), diameter / 6)
    return ellipsoid(rng, edge_mm=edge, roughness=float(rng.uniform(0.02, 0.1)))


def _place(scene: Scene, host: Host, diameter: float, others: list[Plan], rng: np.random.Generator) -> Point | None:
    """A centre at the depth that the host asks for."""
    found = ndimage.find_objects(host.tissue.astype(np.uint8))
    if not found or found[0] is None:
        return None
    corner = np.array([part.start for part in found[0]])
    # Every second row and column: depth is needed to a millimetre, not better.
    tissue = host.tissue[found[0]][:, ::2, ::2]
    step, row, column = scene.grid.spacing_zyx_mm
    padded = np.pad(tissue, ((1, 1), (0, 0), (0, 0)), mode="edge")
    deep = ndimage.distance_transform_edt(np.pad(padded, ((0, 0), (1, 1), (1, 1))), (step, 2 * row, 2 * column))
    deep = deep[1:-1, 1:-1, 1:-1]
    radius = diameter / 2
    places = np.argwhere((deep > host.depth[0] * radius) & (deep < host.depth[1] * radius))
    axes = scene.grid.axes()
    last = scene.grid.shape_zyx[0] - 1
    for place in rng.permutation(places)[:SITES]:
        index = corner + place * (1, 2, 2)
        if scene.grid.shape_zyx[0] > 2 and not 0 < index[0] < last:
            continue
        centre = np.array([axis[i] for axis, i in zip(axes, index, strict=True)], float)
        centre += rng.uniform(-0.5, 0.5, 3) * scene.grid.spacing_zyx_mm
        if not overlaps(centre, diameter, others):
            return centre
    return None


def _index(grid: Grid, point: Point) -> tuple[int, int, int]:
    middle = (np.array(grid.shape_zyx) - 1) / 2
    index = np.clip(np.rint(point / np.array(grid.spacing_zyx_mm) + middle), 0, np.array(grid.shape_zyx) - 1)
    z, y, x = index.astype(int)
    return int(z), int(y), int(x)
